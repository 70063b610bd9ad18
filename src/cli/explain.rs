//! `exchequer explain`: why a token, a session id, a client assertion or an error answer is what
//! it is.

mod answers;
mod assertion;
mod diagnose;
mod own;
mod session_id;
mod token;

use super::terminal::Color;
use crate::config::Settings;
use crate::crypto::sha256;
use crate::diagnosis;
use crate::explain::foreign::is_assertion;
use crate::explain::input::{Around, Input, Shape};
use crate::explain::report::{Report, TokenFacts};
use crate::explain::say::Say;
use crate::service::{Place, Service};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write as _};
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
    let text = input.text.as_ref();
    let mut report = match answers::explain(&input) {
        Some(report) => report,
        None => {
            let (settings, _) = match super::settings() {
                Ok(settings) => settings,
                Err(code) => return code,
            };
            let explained = if is_assertion(text) {
                assertion::explain(text, settings).await
            } else if diagnosis::is_own(text, &settings.issuer) {
                own::explain(text, &args, settings).await
            } else if text.starts_with("sess_") {
                session_id::explain(text, &args, settings).await
            } else {
                token::explain(text, &args, settings).await
            };
            match explained {
                Ok(report) => report,
                Err(code) => return code,
            }
        }
    };
    if matches!(input.shape, Shape::Token) {
        note_around(&input.around, &mut report);
    }
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

/// Says what was around the token: where a request carries it too, that is the fault.
fn note_around(around: &[Around], report: &mut Report) {
    for each in around {
        let note = match each {
            Around::Member(name) => Say::words("this is `").and(name).and("` of the JSON that was pasted"),
            each => Say::words("as pasted, it has ")
                .and(each.words())
                .and("; the token alone is explained. Where a request sends it so as `session_token`, that is the fault: it is refused as subject_token_malformed"),
        };
        report.notes.push(note);
    }
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

/// A service with this configuration, and nothing on disk.
fn service(settings: Settings) -> Result<Service, ExitCode> {
    Service::new(settings, Place::Memory).map_err(|error| {
        eprintln!("error: {error}");
        super::wrong()
    })
}

/// What a token's header and claims say, unverified; null where it is no JWT.
fn decoded(text: &str) -> (Value, Value) {
    let mut parts = text.split('.');
    let mut part = || {
        let decoded = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice(&decoded).ok()
    };
    let header = part().unwrap_or(Value::Null);
    (header, part().unwrap_or(Value::Null))
}

/// Header and size of a token; the hash only of what has a signature, for a short id could be
/// guessed from it.
fn facts(text: &str) -> TokenFacts {
    let (header, _) = decoded(text);
    let named = |name: &str| header.get(name).and_then(Value::as_str);
    let short = |name: &str| named(name).map(|text| text.chars().take(255).collect());
    let hash = || {
        let mut hex = String::new();
        for byte in sha256(text.as_bytes()) {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    };
    TokenFacts {
        bytes: text.len(),
        sha256: (text.matches('.').count() >= 2).then(hash),
        alg: short("alg"),
        kid: short("kid"),
        typ: short("typ"),
    }
}

/// The first line about a token.
fn title(what: &'static str, facts: &TokenFacts, trust: &'static str) -> Say {
    let mut say = Say::words(what);
    if let Some(alg) = &facts.alg {
        say = say.and("  ").value("alg", alg.as_str());
    }
    if let Some(kid) = &facts.kid {
        say = say.and("  kid ").value("kid", kid.as_str());
    }
    let bytes = i64::try_from(facts.bytes).unwrap_or(i64::MAX);
    say.and("  ")
        .number(bytes)
        .and(" bytes   (")
        .and(trust)
        .and(")")
}
