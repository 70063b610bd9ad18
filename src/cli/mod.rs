//! The command line: one file a command.
//!
//! Exit codes: 0 done, 1 the thing checked is not right, 2 wrong usage or configuration.

#[macro_use]
mod output;

mod check;
mod clients;
mod completions;
mod dev;
mod doctor;
mod errors;
mod explain;
mod keys;
mod serve;
mod terminal;

use crate::config::{self, Findings, Settings, Sources};
use crate::telemetry;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Done.
const DONE: ExitCode = ExitCode::SUCCESS;

fn not_right() -> ExitCode {
    ExitCode::from(1)
}

fn wrong() -> ExitCode {
    ExitCode::from(2)
}

/// An identity provider's token in, your own app JWT out, and never a mystery.
#[derive(Parser)]
#[command(name = "exchequer", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service, configured by environment and exchequer.toml
    #[command(
        after_help = "Example:\n  CLERK_JWT_ISSUER=https://clerk.example.com EXCHEQUER_ISSUER=https://auth.example.com exchequer serve"
    )]
    Serve,
    /// Run everything on this machine with nothing configured, and show one exchange
    #[command(after_help = "Example:\n  exchequer dev\n  exchequer dev --once")]
    Dev(dev::Args),
    /// Read the configuration and print all that is wrong with it
    #[command(
        after_help = "Example:\n  CLERK_JWT_ISSUER=https://clerk.example.com exchequer check"
    )]
    Check,
    /// Check a live setting: clock, issuers, providers, keys, store, webhooks, public URL, a round trip
    #[command(after_help = "Example:\n  exchequer doctor --json")]
    Doctor(doctor::Args),
    /// Show the ladder of checks for a token, a session id, a client assertion, the URL of a sign-in or a copied error answer
    #[command(
        after_help = "Example:\n  pbpaste | exchequer explain --app mobile\n  exchequer explain token.txt"
    )]
    Explain(explain::Args),
    /// Print the catalogue of errors, or one entry of it
    #[command(after_help = "Example:\n  exchequer errors subject_token_expired")]
    Errors(errors::Args),
    /// List, rotate, revoke or import signing keys
    #[command(
        after_help = "Example:\n  exchequer keys list\n  exchequer keys rotate\n  exchequer keys revoke KID"
    )]
    Keys(keys::Args),
    /// List, add or remove OAuth clients, or rotate their secrets, while the service runs or not
    #[command(
        after_help = "Example:\n  exchequer clients add reports --audience https://tasks.internal --scope read:tasks\n  exchequer clients list\n  exchequer clients rotate-secret reports --grace 24h\n  exchequer clients remove reports"
    )]
    Clients(clients::Args),
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  exchequer completions bash > /etc/bash_completion.d/exchequer\n  exchequer completions zsh > /usr/local/share/zsh/site-functions/_exchequer\n  exchequer completions fish > ~/.config/fish/completions/exchequer.fish"
    )]
    Completions(completions::Args),
}

/// The command line itself, for its man pages and its reference.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Serve => run(serve::run()),
        Command::Dev(args) => run(dev::run(args)),
        Command::Check => check::run(),
        Command::Doctor(args) => run(doctor::run(args)),
        Command::Explain(args) => run(explain::run(args)),
        Command::Errors(args) => errors::run(&args),
        Command::Keys(args) => run(keys::run(args)),
        Command::Clients(args) => run(clients::run(args)),
        Command::Completions(args) => completions::run(&args),
    };
    telemetry::finish_log();
    code
}

fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // A thread that hangs, on a network disk or a name server, does not hold up the end.
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("exchequer: the runtime cannot start: {error}");
            wrong()
        }
    }
}

/// The configuration of this process; what is wrong with it goes to standard error.
fn settings() -> Result<(Settings, Findings), ExitCode> {
    match config::load(&Sources::process()) {
        (Some(settings), findings) => Ok((settings, findings)),
        (None, findings) => {
            for error in &findings.errors {
                eprintln!("error: {error}");
            }
            Err(wrong())
        }
    }
}
