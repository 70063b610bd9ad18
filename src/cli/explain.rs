//! `exchequer explain`: why a token, a session id, a client assertion or an error answer is what
//! it is.

mod own;
mod session_id;

use crate::config::Settings;
use crate::diagnosis::{self, Diagnosis};
use crate::explain::foreign::{ErrorAnswer, error_answer, is_assertion};
use crate::explain::{Code, render};
use crate::policy::app::Wish;
use crate::service::{Place, Service};
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
    if diagnosis::is_own(text, &settings.issuer) {
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
    let (_, told, code) = answer.told();
    if as_json {
        println!("{}", diagnosis::of_answer(answer));
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
    let note = unseen.filter(|_| code == Some(Code::ClientUnknown));
    let note = note.map(|why| format!("registered clients were not looked at: {why}"));
    if as_json {
        let notes: Vec<String> = note.into_iter().collect();
        println!("{}", diagnosis::of_assertion(&steps, &notes));
    } else {
        println!(
            "a client assertion (a JWT with which a client authenticates), not a user's token\n"
        );
        for (number, step) in steps.iter().enumerate() {
            let (outcome, told) = step.told();
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

async fn explain_token(text: &str, args: Args, settings: Settings) -> ExitCode {
    let service = match Service::new(settings, Place::Memory) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("error: {error}");
            return super::wrong();
        }
    };
    let audience = args.audience.as_deref();
    let wish = Wish {
        app: args.app.as_deref(),
        audiences: audience.as_slice(),
        ..Wish::default()
    };
    let told = diagnosis::of_token(&service.exchange, text, wish).await;
    show(&told, args.json)
}

/// Prints what is told of a credential; 1 where it was refused.
fn show(told: &Diagnosis, as_json: bool) -> ExitCode {
    let refusal = told.refusal.as_deref();
    if as_json {
        println!("{}", told.json());
    } else {
        println!(
            "{}  {} bytes  sha256 {}   ({})\n",
            told.what, told.bytes, told.sha256, told.trust
        );
        print!("{}", render::ladder(&told.rungs));
        println!();
        match refusal {
            None => match &told.unasked {
                Some(unasked) => println!("not asked: {unasked}"),
                None => println!("accepted: {}", told.accepted),
            },
            Some(refusal) => {
                println!("refused: {}", refusal.description);
                if let Some(cause) = &refusal.cause {
                    println!("because  {cause}");
                }
                print!("\n{}", render::entry(refusal.code.entry()));
            }
        }
        for note in &told.notes {
            println!("note     {note}");
        }
    }
    if refusal.is_none() {
        super::DONE
    } else {
        super::not_right()
    }
}
