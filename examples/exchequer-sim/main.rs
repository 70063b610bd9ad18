//! `exchequer-sim`: what a rotation of keys costs ten thousand verifiers, and what exchanges cost
//! a data centre. `make sim` runs it; docs/scale.md is what it found.

mod sim;

use std::process::ExitCode;

fn main() -> ExitCode {
    match sim::command(std::env::args_os()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
