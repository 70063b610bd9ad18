//! A session id: what its exchange would come to. It proves nothing by itself, so that all that it
//! means is the provider's to say; where that is not asked, it is said who would be.

use super::{Diagnosis, exchange_ended, needs_proof, title, wish};
use crate::config::SessionIdPolicy;
use crate::explain::report::{Report, Step, TokenFacts};
use crate::explain::say::Say;
use crate::explain::{Code, Ladder, Refusal};
use crate::gate::Demand;
use crate::policy::App;
use crate::policy::app::Wish;
use crate::store::Question;
use crate::subject::Issuer;
use crate::subject::clerk::session::SessionId;

impl Diagnosis {
    pub(super) async fn of_session_id(&self, text: &str, demand: Demand<'_>) -> Report {
        let wish = wish(&demand);
        let apps = &self.exchange.apps;
        let mut ladder = Ladder::detailed();
        let mut refusal = self.judge_session_id(text, wish, &mut ladder).await.err();
        let mut notes = vec![Say::words(
            "this is a session id, which names a session and proves nothing: send it to /auth/exchange as `session_id`, or better the session token",
        )];
        let mut steps: Vec<Step> = ladder.rungs().into_iter().map(Into::into).collect();
        let mut unasked = None;
        if let Ok((app, issuer)) = apps.select_for_session_id(wish, &mut Ladder::default()) {
            notes.push(takes(&app, &issuer));
            notes.extend(needs_proof(&app.settings));
            if !self.asks && refusal.is_none() {
                let asked = Say::words("nobody was asked: the app ");
                unasked = Some(
                    asked
                        .value("app", app.settings.name.as_str())
                        .and(" would ask the Backend API of the issuer ")
                        .value("name", issuer.settings.name.as_str())
                        .and(" about it"),
                );
            } else if refusal.is_none() {
                self.without_store(&mut steps, &mut notes);
            }
            let code = refusal.as_ref().map(|refusal| refusal.code);
            if code == Some(Code::CodeVerifierMissing) {
                notes.push(Say::words(
                    "nobody was asked: the app demands a code_verifier, which is none of this command's business",
                ));
            }
            match self.used(text, &app, &issuer).await {
                Some(Ok(true)) => {
                    notes.push(Say::words(
                        "the service's store says that the id was exchanged",
                    ));
                    if refusal.is_none() {
                        refusal = Some(Refusal::new(Code::SessionIdUsed));
                        unasked = None;
                    }
                }
                Some(Ok(false)) => notes.push(Say::words(
                    "the service's store says that the id was not exchanged yet",
                )),
                Some(Err(why)) => notes.push(
                    Say::words(
                        "whether it was used is in the service's store, which was not looked at: ",
                    )
                    .value("reason", why),
                ),
                None => {}
            }
        }
        let facts = TokenFacts {
            bytes: text.len(),
            ..TokenFacts::default()
        };
        let trust = "an identifier, NOT a proof of anything";
        Report {
            kind: "session_id",
            title: vec![title("session id", &facts, trust)],
            token: Some(facts),
            steps,
            notes,
            ..exchange_ended(refusal, unasked)
        }
    }

    /// The checks of its exchange, as far as they are made here.
    async fn judge_session_id(
        &self,
        text: &str,
        wish: Wish<'_>,
        ladder: &mut Ladder,
    ) -> Result<(), Box<Refusal>> {
        if self.asks {
            return self.exchange.look_up_on(text, wish, ladder).await.map(drop);
        }
        SessionId::parse(text, ladder)?;
        let selected = self.exchange.apps.select_for_session_id(wish, ladder);
        selected.map(drop)
    }

    /// Whether it was exchanged, or why that is not known; `None` where it may be again.
    async fn used(&self, text: &str, app: &App, issuer: &Issuer) -> Option<Result<bool, String>> {
        let id = SessionId::parse(text, &mut Ladder::default()).ok()?;
        let done = id.used(&app.settings, issuer)?;
        if let Some(why) = &self.unseen.store {
            return Some(Err(why.clone()));
        }
        let question = Question {
            done: Some(done),
            ..Question::default()
        };
        let asked = self.exchange.store.ask(question, self.now()).await;
        Some(match asked {
            Ok(answer) => Ok(answer.done),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// Of which sessions the app takes the id, and how often.
fn takes(app: &App, issuer: &Issuer) -> Say {
    let (which, often) = match app.settings.session_id {
        SessionIdPolicy::Any => ("any active session", ", as often as it is sent"),
        _ => ("a session", " once, within two minutes of its last use"),
    };
    Say::words("the app ")
        .value("app", app.settings.name.as_str())
        .and(" takes the id of ")
        .and(which)
        .and(" of the issuer ")
        .value("name", issuer.settings.name.as_str())
        .and(often)
}
