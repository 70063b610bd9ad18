//! The `exchequer` command.

/// The same everywhere: musl's own makes threads wait for each other, glibc's is slow for what is
/// larger than a KiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    exchequer::cli::main()
}
