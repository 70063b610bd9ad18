//! `exchequer completions`: what a shell needs to complete the command line.

use clap_complete::Shell;
use std::process::ExitCode;

/// Which shell.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    let mut command = super::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    super::DONE
}
