//! What is no token: error answers, messages of libraries, secrets, ids and words. They are
//! explained without a configuration, and nobody is asked.

use crate::explain::Code;
use crate::explain::foreign::{ErrorAnswer, Meaning};
use crate::explain::input::{Input, Shape};
use crate::explain::report::Report;
use crate::explain::say::Say;

/// Explains what needs no configuration; `None` where it is a token, or the URL of a sign-in.
pub fn of_answer(input: &Input<'_>) -> Option<Report> {
    let report = |kind, title| Report {
        kind,
        title: vec![Say::words(title)],
        ..Report::default()
    };
    Some(match &input.shape {
        Shape::Token | Shape::SignIn(_) => return None,
        Shape::Answer(answer) => error_answer(answer),
        Shape::Secret(secret) => Report {
            title: vec![Say::words("This is ").and(secret.what).and(", and no token.")],
            accepted: Some(false),
            cause: Some("A secret was pasted, or stands where a token belongs: whoever has it can act as your service."),
            next: vec![
                Say::words("Replace it now: it has been in a clipboard, perhaps in a shell's history or a log. A new one is made at ")
                    .and(secret.rotate)
                    .and("."),
                Say::words("A client sends the session token, never this: `getToken()` of the provider's SDK. On the service's side it belongs into a file or a secret store (`CLERK_SECRET_KEY_FILE`)."),
            ],
            ..report("secret", "")
        },
        Shape::PublishableKey(issuer) => Report {
            accepted: Some(false),
            cause: Some("A publishable key says which Clerk instance an app signs in to. It is public, and proves nothing."),
            next: vec![
                match issuer {
                    Some(issuer) => Say::words("Its instance is ")
                        .value("issuer", issuer.as_str())
                        .and(": that is what CLERK_JWT_ISSUER must be, byte for byte (or set CLERK_PUBLISHABLE_KEY, which gives it)."),
                    None => Say::words("It cannot be read: copy it anew from Clerk → API keys."),
                },
                Say::words("To exchange, send the session token: `getToken()` of the provider's SDK."),
            ],
            ..report("publishable_key", "This is a publishable key of Clerk (pk_…), and no token.")
        },
        Shape::Id(what) => Report {
            title: vec![Say::words("This is ").and(what).and(", and no token.")],
            accepted: Some(false),
            cause: Some("An id names something and proves nothing: it is in every token and in many logs."),
            next: vec![Say::words("Send the session token: `getToken()` of the provider's SDK.")],
            ..report("id", "")
        },
        Shape::Json => Report {
            cause: Some("The JSON has no `error`, no `code` and no member that holds a token."),
            next: vec![Say::words("Pipe in the token itself, or the whole of an error answer.")],
            ..report("json", "This is JSON, but neither an error answer nor around a token.")
        },
        Shape::Words => unknown(None),
    })
}

/// Explains an error answer.
pub(super) fn error_answer(answer: &ErrorAnswer) -> Report {
    match answer {
        ErrorAnswer::Ours {
            code,
            description,
            request_id,
        } => {
            let mut notes = Vec::new();
            if let Some(id) = request_id {
                let note = Say::words("the log line of request ")
                    .value("request", id.as_str())
                    .and(" has `expected`: what would have passed, which is told to no stranger");
                notes.push(note);
            }
            notes.push(Say::words(
                "pipe in the token too: its checks are shown one by one",
            ));
            Report {
                kind: "error_answer",
                title: vec![Say::words("This answer was written by Exchequer.")],
                source: Some("exchequer"),
                accepted: Some(false),
                code: Some(*code),
                description: description.clone(),
                known: code.known_issues().collect(),
                notes,
                ..Report::default()
            }
        }
        ErrorAnswer::Known { speaker, meaning } => known(speaker, meaning),
        ErrorAnswer::ClerkReason(reason, codes) => {
            let report = foreign("your-backend", "@clerk/backend");
            let next = Say::words(
                "Pipe the token itself into `exchequer explain`: where it is accepted, the fault is in that library or in its configuration.",
            );
            match codes.as_slice() {
                [code] => Report {
                    code: Some(*code),
                    known: code.known_issues().collect(),
                    next: vec![next],
                    ..report
                },
                codes => {
                    let slugs = codes.iter().map(|code| code.entry().slug);
                    let note = slugs.enumerate().fold(
                        Say::words("`")
                            .and(reason)
                            .and("` can be each of these here: "),
                        |say, (place, slug)| say.and(if place > 0 { ", " } else { "" }).and(slug),
                    );
                    Report {
                        cause: Some("Clerk's SDK has one reason for several causes."),
                        next: vec![next],
                        known: codes.iter().flat_map(|code| code.known_issues()).collect(),
                        notes: vec![note],
                        ..report
                    }
                }
            }
        }
        ErrorAnswer::Unknown(error) => unknown(error.as_deref()),
    }
}

/// A report of what somebody else said.
fn foreign(source: &'static str, speaker: &'static str) -> Report {
    Report {
        kind: "error_answer",
        title: vec![
            Say::words("This answer was not written by Exchequer.  source: ")
                .and(source)
                .and(" (")
                .and(speaker)
                .and(")"),
        ],
        source: Some(source),
        accepted: Some(false),
        ..Report::default()
    }
}

fn known(speaker: &'static str, meaning: &'static Meaning) -> Report {
    let mut notes = Vec::new();
    if let Some(link) = meaning.link {
        notes.push(Say::words("others met it: ").and(link));
    }
    // Codes that this service answers with are about itself: only a pointer.
    let (about_them, ours) = match meaning.code {
        Some(code) if code.entry().status == 0 => (Some(code), None),
        code => (None, code),
    };
    if let Some(code) = ours {
        let slug = code.entry().slug;
        notes.push(
            Say::words("the same, met by this service itself: `exchequer errors ")
                .and(slug)
                .and("`"),
        );
    }
    let said = |text: &'static str| (!text.is_empty()).then_some(text);
    Report {
        cause: said(meaning.cause),
        next: said(meaning.next).map(Say::words).into_iter().collect(),
        code: about_them,
        known: meaning
            .code
            .into_iter()
            .flat_map(Code::known_issues)
            .collect(),
        notes,
        ..foreign(meaning.source, speaker)
    }
}

/// What nothing here knows, said honestly.
fn unknown(error: Option<&str>) -> Report {
    let title = match error {
        Some(error) => Say::words(
            "This answer was not written by Exchequer: it has no `code`. What it means by \"",
        )
        .value("error", error)
        .and("\" is not known here."),
        None => Say::words("This is no token, and nothing in it is known here as an error."),
    };
    Report {
        kind: if error.is_some() {
            "error_answer"
        } else {
            "text"
        },
        title: vec![title],
        source: error.map(|_| "elsewhere"),
        accepted: Some(false),
        next: vec![
            Say::words(
                "Ask the server that wrote it: its host is in the browser's address bar or in the client's log.",
            ),
            Say::words("If it is about a token, pipe the token itself into `exchequer explain`."),
        ],
        ..Report::default()
    }
}
