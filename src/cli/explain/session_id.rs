//! `exchequer explain` of a session id: what its exchange would come to. The Backend API is asked
//! as the service would ask it, where there is a secret key; nothing is used up.

use super::{Args, own, service, title};
use crate::clock::Clock;
use crate::config::{SessionIdPolicy, Settings};
use crate::exchange::{Caller, Credential, Request};
use crate::explain::report::{Report, TokenFacts};
use crate::explain::say::Say;
use crate::explain::{Code, Ladder};
use crate::policy::app::Wish;
use crate::store::Question;
use crate::subject::clerk::session::SessionId;
use std::process::ExitCode;

/// Explains it.
pub(super) async fn explain(
    text: &str,
    args: &Args,
    settings: Settings,
) -> Result<Report, ExitCode> {
    let store = settings.store.clone();
    let service = service(settings)?;
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
    let refusal = exchanged.err();
    let mut code = refusal.as_ref().map(|refusal| refusal.code);
    let mut because = refusal.as_ref().and_then(|refusal| refusal.cause.clone());
    let mut notes = vec![Say::words(
        "this is a session id, which names a session and proves nothing: send it to /auth/exchange as `session_id`, or better the session token",
    )];
    let apps = &service.exchange.apps;
    if let Ok((app, issuer)) = apps.select_for_session_id(wish, &mut Ladder::default()) {
        let named = Say::words("the app ")
            .value("app", app.settings.name.as_str())
            .and(" takes the id of ");
        let of = " of the issuer ";
        let name = issuer.settings.name.as_str();
        notes.push(match app.settings.session_id {
            SessionIdPolicy::Any => named
                .and("any active session")
                .and(of)
                .value("name", name)
                .and(", as often as it is sent"),
            _ => named
                .and("a session")
                .and(of)
                .value("name", name)
                .and(" once, within two minutes of its last use"),
        });
        if code == Some(Code::CodeVerifierMissing) {
            notes.push(Say::words(
                "nobody was asked: the app demands a code_verifier, which is none of this command's business",
            ));
        }
        let used = SessionId::parse(text, &mut Ladder::default())
            .ok()
            .and_then(|id| id.used(&app.settings, &issuer));
        if let Some(used) = used {
            let question = Question {
                done: Some(used),
                ..Question::default()
            };
            let asked = match own::open(&store).await {
                Ok(store) => {
                    let answer = store.ask(question, Clock::system().now()).await;
                    answer.map_err(|error| error.to_string())
                }
                Err(why) => Err(why),
            };
            match asked {
                Ok(answer) if answer.done && code.is_none() => {
                    code = Some(Code::SessionIdUsed);
                    because = None;
                    notes.push(Say::words("the session itself is good; the service's store says that its id was exchanged"));
                }
                Ok(answer) if answer.done => {
                    notes.push(Say::words(
                        "the service's store says that the id was exchanged, too",
                    ));
                }
                Ok(_) => notes.push(Say::words(
                    "the service's store says that the id was not exchanged yet",
                )),
                Err(why) => notes.push(
                    Say::words(
                        "whether it was used is in the service's store, which was not looked at: ",
                    )
                    .value("reason", why),
                ),
            }
        }
    }
    let facts = TokenFacts {
        bytes: text.len(),
        ..TokenFacts::default()
    };
    let described = refusal.filter(|refusal| Some(refusal.code) == code);
    Ok(Report {
        kind: "session_id",
        title: vec![title(
            "session id",
            &facts,
            "an identifier, NOT a proof of anything",
        )],
        token: Some(facts),
        accepted: Some(code.is_none()),
        steps: ladder.rungs().into_iter().map(Into::into).collect(),
        verdict: code
            .is_none()
            .then(|| Say::words("the exchange would give an app token")),
        code,
        description: described.map(|refusal| refusal.description),
        because,
        known: code.into_iter().flat_map(Code::known_issues).collect(),
        notes,
        ..Report::default()
    })
}
