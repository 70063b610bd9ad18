//! The `exchequer` command.

fn main() -> std::process::ExitCode {
    exchequer::cli::main()
}
