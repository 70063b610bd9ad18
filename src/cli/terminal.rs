//! Where a command writes for people: in colour on a terminal, plain elsewhere.
//!
//! Text is written with its styles; where colour is not wanted they are taken out on the way.
//! `--color` decides, and where it says `auto`, the terminal and the usual variables: `NO_COLOR`,
//! `CLICOLOR`, `CLICOLOR_FORCE`, `TERM`.

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use std::io::{self, StdoutLock};

/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is worth knowing.
pub(super) const NOTE: Style = AnsiColor::Cyan.on_default();
/// What will go wrong one day.
pub(super) const CAUTION: Style = AnsiColor::Yellow.on_default().bold();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What matters less than the rest of its line.
pub(super) const FAINT: Style = Style::new().dimmed();
/// What matters more.
pub(super) const STRONG: Style = Style::new().bold();

/// The option of every command that can write in colour.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct Color {
    /// Whether to write in colour
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: When,
}

/// When to write in colour.
#[derive(Clone, Copy, ValueEnum)]
enum When {
    /// On a terminal that shows colours, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Standard output, which leaves styles out where they are not wanted.
    pub(super) fn stdout(self) -> AutoStream<StdoutLock<'static>> {
        let choice = match self.color {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::Always,
            When::Never => ColorChoice::Never,
        };
        AutoStream::new(io::stdout().lock(), choice)
    }
}
