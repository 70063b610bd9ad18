//! `exchequer explain`: why a token, a session id, a client assertion or an error answer is what
//! it is.

mod at_hand;

use super::terminal::Color;
use crate::diagnosis;
use crate::explain::input::Input;
use crate::explain::report::Report;
use crate::gate::Demand;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The largest input, in bytes.
const MAX_INPUT: u64 = 1024 * 1024;

/// What to explain.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A file with the token or the answer; standard input where it is left out
    file: Option<PathBuf>,
    /// The app that the exchange is for
    #[arg(long)]
    app: Option<String>,
    /// The audience that the exchange, or the gateway of a token of this service, asks for
    #[arg(long)]
    audience: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Without subjects, issuers, keys and names: safe to paste into a public ticket
    #[arg(long)]
    redact: bool,
    #[command(flatten)]
    color: Color,
}

/// Reads the input, tells what it is and explains it; 1 where it would be refused.
pub(super) async fn run(args: Args) -> ExitCode {
    let raw = match read(&args) {
        Ok(raw) => raw,
        Err(message) => {
            eprintln!("error: {message}");
            return super::wrong();
        }
    };
    let input = Input::read(&raw);
    let report = match diagnosis::of_answer(&input) {
        Some(report) => report,
        None => {
            let (settings, _) = match super::settings() {
                Ok(settings) => settings,
                Err(code) => return code,
            };
            let diagnosis = match at_hand::diagnosis(&input.text, settings).await {
                Ok(diagnosis) => diagnosis,
                Err(code) => return code,
            };
            let demand = Demand {
                app: args.app.as_deref(),
                audience: args.audience.as_deref(),
            };
            diagnosis.explain(&input, demand).await
        }
    };
    show(&report, &args)
}

fn read(args: &Args) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = match &args.file {
        Some(path) => {
            let file = std::fs::File::open(path)
                // What was typed may be the token itself: it is not shown.
                .map_err(|error| format!("cannot read the file: {error}. A token is never an argument, since a shell keeps those: pipe it in"))?;
            file.take(MAX_INPUT).read_to_end(&mut bytes)
        }
        None => {
            if std::io::stdin().is_terminal() {
                eprintln!("Paste the token or the error answer, then Ctrl-D:");
            }
            std::io::stdin().take(MAX_INPUT).read_to_end(&mut bytes)
        }
    };
    read.map_err(|error| format!("cannot read the input: {error}"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.trim().is_empty() {
        return Err("there is nothing to explain in the input".to_owned());
    }
    Ok(text)
}

/// Prints it; 1 where it was refused, or is none that could be accepted.
fn show(report: &Report, args: &Args) -> ExitCode {
    let written = if args.json {
        writeln!(std::io::stdout().lock(), "{}", report.json(args.redact))
    } else {
        let text = report.text(args.redact);
        args.color.stdout().write_all(text.as_bytes())
    };
    super::output::written(written);
    match report.accepted {
        Some(true) => super::DONE,
        None if report.code.is_none() && report.verdict.is_some() => super::DONE,
        _ => super::not_right(),
    }
}
