//! `exchequer explain` of a session id: what its exchange would come to. The Backend API is asked
//! as the service would ask it, where there is a secret key; nothing is used up.

use super::Args;
use crate::config::{SessionIdPolicy, Settings};
use crate::diagnosis::Diagnosis;
use crate::exchange::{Caller, Credential, Request};
use crate::explain::{Code, Ladder};
use crate::policy::app::Wish;
use crate::service::{Place, Service};
use std::process::ExitCode;

/// Explains it.
pub(super) async fn explain(text: &str, args: &Args, settings: Settings) -> ExitCode {
    let service = match Service::new(settings, Place::Memory) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("error: {error}");
            return crate::cli::wrong();
        }
    };
    let audience = args.audience.as_deref();
    let wish = Wish {
        app: args.app.as_deref(),
        audiences: audience.as_slice(),
        ..Wish::default()
    };
    let request = Request {
        credential: Credential::SessionId {
            id: text,
            code_verifier: None,
        },
        caller: Caller::default(),
        wish,
        keep: false,
        grant_id: None,
    };
    let mut ladder = Ladder::detailed();
    let exchanged = service.exchange.climb(request, &mut ladder).await;
    let refusal = exchanged.as_ref().err().map(AsRef::as_ref);
    let mut notes = vec![
        "this is a session id, which names a session and proves nothing: send it to /auth/exchange as `session_id`, or better the session token".to_owned(),
    ];
    let apps = &service.exchange.apps;
    if let Ok((app, issuer)) = apps.select_for_session_id(wish, &mut Ladder::default()) {
        let (app, issuer) = (&app.settings, &issuer.settings.name);
        let name = &app.name;
        notes.push(match app.session_id {
            SessionIdPolicy::Any => format!(
                "the app {name} takes the id of any active session of the issuer {issuer}, as often as it is sent"
            ),
            _ => format!(
                "the app {name} takes the id of a session of the issuer {issuer} once, within two minutes of its last use; whether it was used is in the service's store, which was not looked at"
            ),
        });
        if refusal.is_some_and(|refusal| refusal.code == Code::CodeVerifierMissing) {
            notes.push(
                "nobody was asked: the app demands a code_verifier, which is none of this command's business".to_owned(),
            );
        }
    }
    let trust = "an identifier; only the checks below make it trusted";
    let mut told = Diagnosis::of("session id", trust, text);
    told.rungs = ladder.rungs();
    told.refusal = exchanged.err();
    told.notes = notes;
    super::show(&told, args.json)
}
