//! `exchequer explain`: why a token, a session id, a client assertion or an error answer is what
//! it is.

mod own;
mod session_id;

use crate::clock::Clock;
use crate::config::{DpopSettings, Settings};
use crate::crypto::sha256;
use crate::exchange::{Caller, Credential, Request};
use crate::explain::foreign::{ErrorAnswer, error_answer, is_assertion};
use crate::explain::ladder::Rung;
use crate::explain::{Check, Code, Ladder, Refusal, render};
use crate::oauth::assertion::Step;
use crate::policy::app::Wish;
use crate::service::{Place, Service};
use crate::subject::json::Json;
use crate::subject::jws::Decoded;
use crate::subject::jwt::Unverified;
use crate::subject::opaque::Opaque;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

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
}

/// Reads the input, tells what it is and explains it; 1 where it would be refused.
pub(super) async fn run(args: Args) -> ExitCode {
    let input = match read(&args) {
        Ok(input) => input,
        Err(message) => {
            eprintln!("error: {message}");
            return super::wrong();
        }
    };
    let text = input.trim();
    if let Some(answer) = error_answer(text) {
        return explain_answer(&answer, args.json);
    }
    let (settings, _) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if is_assertion(text) {
        return explain_assertion(text, settings, args.json).await;
    }
    if own::is_own(text, &settings.issuer) {
        return own::explain(text, &args, settings).await;
    }
    if text.starts_with("sess_") {
        return session_id::explain(text, &args, settings).await;
    }
    explain_token(text, args, settings).await
}

fn read(args: &Args) -> Result<String, String> {
    let mut text = String::new();
    let read = match &args.file {
        Some(path) => {
            let file = std::fs::File::open(path)
                // What was typed may be the token itself: it is not shown.
                .map_err(|error| format!("cannot read the file: {error}. A token is never an argument, since a shell keeps those: pipe it in"))?;
            file.take(MAX_INPUT).read_to_string(&mut text)
        }
        None => {
            if std::io::stdin().is_terminal() {
                eprintln!("Paste the token or the error answer, then Ctrl-D:");
            }
            std::io::stdin().take(MAX_INPUT).read_to_string(&mut text)
        }
    };
    read.map_err(|error| format!("cannot read the input: {error}"))?;
    if text.trim().is_empty() {
        return Err("there is nothing to explain in the input".to_owned());
    }
    Ok(text)
}

fn explain_answer(answer: &ErrorAnswer, as_json: bool) -> ExitCode {
    let (source, told, code) = match answer {
        ErrorAnswer::Ours(code) => (
            "exchequer",
            "This answer was written by Exchequer.".to_owned(),
            Some(*code),
        ),
        ErrorAnswer::UpstreamClientUnknown => (
            "upstream-idp",
            "This answer was not written by Exchequer.  source: upstream-idp (the wording of Ory Hydra, which Clerk's OAuth server uses)".to_owned(),
            Some(Code::UpstreamClientUnknown),
        ),
        ErrorAnswer::BareInvalidClient => (
            "elsewhere",
            "This answer was not written by Exchequer: it has no `code`.".to_owned(),
            Some(Code::UpstreamClientRefused),
        ),
        ErrorAnswer::Unknown(error) => (
            "elsewhere",
            format!(
                "This answer was not written by Exchequer: it has no `code`. Ask the server that wrote it what it means by {error:?}."
            ),
            None,
        ),
    };
    if as_json {
        let entry = code.map(Code::entry);
        let report = json!({
            "accepted": false,
            "source": source,
            "description": told,
            "code": entry.map(|entry| entry.slug),
            "cause": entry.map(|entry| entry.cause),
            "mend": entry.map(|entry| entry.mend),
        });
        println!("{report}");
    } else {
        println!("{told}");
        if let Some(code) = code {
            print!("\n{}", render::entry(code.entry()));
        }
    }
    super::not_right()
}

/// Makes the checks of the token endpoint; nothing is used up by it.
async fn explain_assertion(text: &str, settings: Settings, as_json: bool) -> ExitCode {
    let store = own::open(&settings.store).await;
    let mut service = match Service::new(settings, Place::Memory) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("error: {error}");
            return super::wrong();
        }
    };
    let unseen = match (Arc::get_mut(&mut service.clients), store) {
        (Some(clients), Ok(store)) => {
            let read = clients.look_into(store).await;
            read.err().map(|error| error.to_string())
        }
        (_, store) => store.err(),
    };
    let steps = service.clients.explain(text).await;
    let code = steps.iter().find_map(|step| {
        let fault = step.result.as_ref().err();
        fault.map(|fault| fault.code)
    });
    let told = |step: &Step| match &step.result {
        Ok(told) => ("passed", told.clone()),
        Err(fault) => ("failed", fault.told.clone()),
    };
    let note = unseen.filter(|_| code == Some(Code::ClientUnknown));
    let note = note.map(|why| format!("registered clients were not looked at: {why}"));
    if as_json {
        let shown: Vec<Value> = steps
            .iter()
            .map(|step| {
                let (outcome, seen) = told(step);
                json!({"check": step.check, "outcome": outcome, "seen": seen})
            })
            .collect();
        let report = json!({
            "accepted": code.is_none(),
            "code": code.map(|code| code.entry().slug),
            "checks": shown,
            "notes": note.iter().collect::<Vec<_>>(),
        });
        println!("{report}");
    } else {
        println!(
            "a client assertion (a JWT with which a client authenticates), not a user's token\n"
        );
        for (number, step) in steps.iter().enumerate() {
            let (outcome, told) = told(step);
            let mark = if outcome == "passed" { "ok  " } else { "FAIL" };
            println!("{:>3} {mark}  {:<11} {told}", number + 1, step.check);
        }
        match code {
            Some(code) => print!("\n{}", render::entry(code.entry())),
            None => println!(
                "\naccepted: the client would be authenticated, unless its `jti` was sent before"
            ),
        }
        if let Some(note) = note {
            println!("note     {note}");
        }
    }
    match code {
        Some(_) => super::not_right(),
        None => super::DONE,
    }
}

async fn explain_token(text: &str, args: Args, mut settings: Settings) -> ExitCode {
    let now = Clock::system().now();
    let several = settings.issuers.len() > 1;
    // The proof that goes with a token is not here, and would be used up if it were.
    for app in &mut settings.apps {
        app.dpop = DpopSettings::default();
    }
    let service = match Service::new(settings, Place::Memory) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("error: {error}");
            return super::wrong();
        }
    };
    let audience = args.audience.as_deref();
    let request = Request {
        credential: Credential::Token(text),
        caller: Caller::default(),
        keep: false,
        grant_id: None,
        wish: Wish {
            app: args.app.as_deref(),
            audiences: audience.as_slice(),
            ..Wish::default()
        },
    };
    let mut ladder = Ladder::detailed();
    let opaque = Opaque::of(text);
    let apps = &service.exchange.apps;
    let reader = match opaque {
        Some(opaque) => apps.select_opaque(request.wish, opaque, &mut ladder),
        None => Ok(None),
    };
    // Nobody is asked about an opaque token: whoever explains one may not want it shown.
    let (refusal, unasked) = match reader {
        Err(refusal) => (Some(refusal), None),
        Ok(Some((app, issuer, kind))) => {
            let (app, issuer) = (&app.settings.name, &issuer.settings.name);
            let kind = kind.name();
            let told = format!("the app {app} would ask the issuer {issuer} about it, as {kind}");
            (None, Some(told))
        }
        Ok(None) => {
            let result = service.exchange.climb(request, &mut ladder).await;
            (result.err(), None)
        }
    };
    let refusal = refusal.as_deref();
    let mut notes = notes(text, &ladder, refusal, several, now);
    let is_opaque = refusal.is_none_or(|refusal| {
        use Code::{SubjectTokenKindNotAccepted, SubjectTokenOpaque};
        matches!(
            refusal.code,
            SubjectTokenKindNotAccepted | SubjectTokenOpaque
        )
    });
    if let Some(opaque) = opaque.filter(|_| is_opaque) {
        let (what, taken_by) = (opaque.describe(), opaque.taken_by());
        notes.push(format!("this is {what}; it is taken by {taken_by}"));
    }
    let report = Report {
        text,
        what: "token",
        trust: "decoded; only the checks below make it trusted",
        rungs: ladder.rungs(),
        refusal,
        accepted: "the exchange would give an app token",
        unasked,
        notes,
    };
    report.show(args.json)
}

/// What is told of a credential that climbed a ladder.
struct Report<'r> {
    text: &'r str,
    what: &'static str,
    trust: &'static str,
    rungs: Vec<Rung>,
    refusal: Option<&'r Refusal>,
    /// What it means that nothing refused it.
    accepted: &'static str,
    /// Who would have been asked, and was not.
    unasked: Option<String>,
    notes: Vec<String>,
}

impl Report<'_> {
    /// Prints it; 1 where it was refused.
    fn show(self, as_json: bool) -> ExitCode {
        let refusal = self.refusal;
        let digest: String =
            sha256(self.text.as_bytes())
                .iter()
                .fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
        if as_json {
            let report = json!({
                "accepted": self.unasked.is_none().then_some(refusal.is_none()),
                "code": refusal.map(|refusal| refusal.code.entry().slug),
                "description": refusal.map(|refusal| &refusal.description),
                "cause": refusal.and_then(|refusal| refusal.cause.as_ref()),
                "ladder": self.rungs,
                "token_sha256": digest,
                "notes": self.notes,
                "unasked": self.unasked,
            });
            println!("{report}");
        } else {
            println!(
                "{}  {} bytes  sha256 {digest}   ({})\n",
                self.what,
                self.text.len(),
                self.trust
            );
            print!("{}", render::ladder(&self.rungs));
            println!();
            match refusal {
                None => match &self.unasked {
                    Some(told) => println!("not asked: {told}"),
                    None => println!("accepted: {}", self.accepted),
                },
                Some(refusal) => {
                    println!("refused: {}", refusal.description);
                    if let Some(cause) = &refusal.cause {
                        println!("because  {cause}");
                    }
                    print!("\n{}", render::entry(refusal.code.entry()));
                }
            }
            for note in self.notes {
                println!("note     {note}");
            }
        }
        if refusal.is_none() {
            super::DONE
        } else {
            super::not_right()
        }
    }
}

/// What the ladder alone does not say.
fn notes(
    text: &str,
    ladder: &Ladder,
    refusal: Option<&Refusal>,
    several: bool,
    now: i64,
) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(refusal) = refusal else {
        if several {
            notes.push(
                "if a library of yours refuses this token with token-invalid-signature, it mixes up keys: @clerk/backend up to 3.10 cached PEM keys under the kid alone, so with several instances the first one's key was used for all".to_owned(),
            );
        }
        return notes;
    };
    let failed = ladder.failure().map(|rung| rung.check);
    if failed.is_some_and(|check| check > Check::Form && check < Check::Expiry)
        && let Ok(decoded) = Decoded::of(text)
        && let Ok(unverified) = Unverified::parse(&decoded, &mut Ladder::default())
    {
        let claims = unverified.claims();
        if let Some(exp) = claims.get("exp").and_then(Json::as_i64) {
            notes.push(if exp <= now {
                format!(
                    "expiry was not reached; it would fail: exp was {} s ago",
                    now.saturating_sub(exp)
                )
            } else {
                format!(
                    "expiry was not reached; it would pass: exp is in {} s",
                    exp.saturating_sub(now)
                )
            });
        }
        if refusal.code == Code::SubjectTokenSignatureInvalid {
            notes.push("compare the sha256 above with that of the token where it is made: if they differ, it was changed on its way".to_owned());
            if !claims.has("aud") {
                notes.push(
                    "an absent aud is not the problem: it would have its own code".to_owned(),
                );
            }
        }
    }
    notes
}
