//! What every command of `cli` writes through: `print!`, `println!` and `eprintln!` here are not
//! the standard ones, which panic where nobody reads on (`exchequer check | head`).
//!
//! A reader that has gone away has seen enough: what it would not read is left out, and the command
//! ends with its own exit code. Any other failure, such as a full disk, ends it with 2.

use std::io::{Error, ErrorKind};

macro_rules! print {
    ($($text:tt)*) => {
        $crate::cli::output::written(std::io::Write::write_fmt(
            &mut std::io::stdout().lock(),
            format_args!($($text)*),
        ))
    };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => {
        $crate::cli::output::written(std::io::Write::write_fmt(
            &mut std::io::stdout().lock(),
            format_args!("{}\n", format_args!($($text)*)),
        ))
    };
}

macro_rules! eprintln {
    ($($text:tt)*) => {{
        // Where it cannot be said, there is nobody to say it to.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr().lock(),
            format_args!("{}\n", format_args!($($text)*)),
        );
    }};
}

/// Ends the process where something could not be written, unless nobody reads it.
pub(super) fn written(result: Result<(), Error>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: standard output: {error}");
        std::process::exit(2);
    }
}
