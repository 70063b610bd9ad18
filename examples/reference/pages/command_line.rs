//! `docs/reference/cli.md`: what each command's `--help` says.

use super::GENERATED;
use clap::Command;
use std::fmt::Write;

/// The page.
pub(super) fn page() -> String {
    let mut text = format!(
        "# Command line\n\n{GENERATED}\n\nExit codes: 0 done, 1 the thing checked is not right, 2 wrong usage or configuration.\n"
    );
    let mut root = exchequer::cli::command();
    root.build();
    write_down(&mut text, &mut root, "");
    text
}

/// The command and those below it, but for `help`.
fn write_down(text: &mut String, command: &mut Command, above: &str) {
    let name = format!("{above}{}", command.get_name());
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n## `{name}`\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    );
    for below in command.get_subcommands_mut() {
        if below.get_name() != "help" && !below.is_hide_set() {
            write_down(text, below, &format!("{name} "));
        }
    }
}
