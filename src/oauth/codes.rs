//! `authorization_code` (RFC 6749 §4.1.3): the code that a sign-in ended with, exchanged once by
//! whoever began it.

use super::clients::Party;
use super::issued::Issued;
use super::refresh::First;
use super::revocation::REMEMBERED;
use super::sign_in::Asked;
use super::{OAuth, refresh};
use crate::clock::UnixSeconds;
use crate::crypto::sha256;
use crate::exchange::{Caller, Credential, Request};
use crate::explain::{Code, Ladder, Refusal};
use crate::policy::app;
use crate::store::{
    Change, Committed, Entry, Key, Kind, Question, Replace, Revocation, StoreError, UnixMillis,
};
use crate::subject::kept::Kept;
use crate::token::standing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// How long a code may be exchanged, seconds (RFC 6749 §4.1.2 has ten minutes at most).
const LIFE: UnixSeconds = 60;

type Refused = Box<Refusal>;

/// What a client sends to exchange a code; its `Debug` does not show it.
pub struct Wish<'r> {
    /// The code.
    pub code: &'r str,
    /// The redirect URI that it was sent to.
    pub redirect_uri: &'r str,
    /// The verifier of the challenge that the sign-in was begun with (RFC 7636 §4.5).
    pub code_verifier: &'r str,
}

impl std::fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wish(…)")
    }
}

/// A code, as the store keeps it.
#[derive(Serialize, Deserialize)]
struct Given {
    asked: Asked,
    state: State,
}

/// What became of a code.
#[derive(Serialize, Deserialize)]
enum State {
    /// It stands for this subject.
    Fresh(Kept),
    /// It was exchanged for the app token of this `jti` and, where one was asked for, a refresh
    /// token of this family.
    Used { jti: String, family: Option<String> },
    /// It was shown once more: what it gave is over.
    Ended,
}

impl OAuth {
    /// Gives a code for somebody who signed in.
    pub(super) async fn give_code(&self, asked: &Asked, kept: Kept) -> Result<String, Refused> {
        // 256 bits that nobody can guess.
        let code = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>());
        let given = Given {
            asked: asked.clone(),
            state: State::Fresh(kept),
        };
        let until = self.exchange.clock.now() + LIFE;
        self.keep(&code, 0, until, &given).await?;
        Ok(code)
    }

    /// Exchanges a code. Of several who try at once one succeeds; who comes later with all that
    /// is needed ends what it gave.
    pub(super) async fn authorization_code(
        &self,
        party: Party,
        wish: &Wish<'_>,
        caller: Caller<'_>,
    ) -> Result<Issued, Refused> {
        let invalid = |cause| Refusal::new(Code::AuthorizationCodeInvalid).caused_by(cause);
        let Some(entry) = self.kept(wish.code).await? else {
            return Err(invalid("no such code is kept"));
        };
        let given = read(&entry)?;
        let asked = &given.asked;
        let own = match &party {
            Party::App(app) => app.settings.name == asked.app,
            Party::Client(client) | Party::Public(client) => {
                client.settings.apps.contains(&asked.app)
            }
        };
        if !own {
            return Err(invalid("it was given to another app"));
        }
        if wish.redirect_uri != asked.redirect_uri {
            return Err(invalid("it was sent to another redirect URI"));
        }
        let challenge = URL_SAFE_NO_PAD.encode(sha256(wish.code_verifier.as_bytes()));
        if !bool::from(challenge.as_bytes().ct_eq(asked.code_challenge.as_bytes())) {
            return Err(Refusal::new(Code::CodeVerifierWrong));
        }
        let kept = match given.state {
            State::Fresh(ref kept) => kept,
            State::Used { .. } | State::Ended => {
                return Err(self.used_again(wish.code).await);
            }
        };
        let audiences: Vec<&str> = asked.audiences.iter().map(String::as_str).collect();
        let granted = app::Wish {
            app: Some(&asked.app),
            audiences: &audiences,
            scope: asked.scope.as_deref(),
            ..app::Wish::default()
        };
        let first = refresh::asks_offline(&granted).then(First::new);
        let grant = first.as_ref().map(First::grant);
        let request = Request {
            credential: Credential::Kept(kept),
            wish: granted,
            caller,
            keep: first.is_some(),
            grant_id: grant.as_deref(),
        };
        let exchange = &self.exchange;
        let exchanged = exchange.climb(request, &mut Ladder::default()).await?;
        // Before anybody has the token: it is known then what the code gave.
        let mut used = Used {
            code: wish.code,
            version: entry.version,
            until: exchange.clock.now() + exchanged.expires_in.max(LIFE),
            asked: asked.clone(),
            jti: exchanged.token.jti.clone(),
        };
        if self.mark(&mut used, None).await? == Committed::Repeated {
            return Err(Refusal::new(Code::AuthorizationCodeUsed)
                .caused_by("another request with this code was faster"));
        }
        let mut issued = self.issue(exchanged, first, party).await?;
        let family = issued.refresh_token.as_ref().and_then(refresh::family_of);
        if let Some(family) = family
            && self.mark(&mut used, Some(&family)).await? == Committed::Repeated
        {
            // It was shown once more meanwhile.
            issued.refresh_token = None;
            refresh::end_family(exchange, &family).await?;
        }
        Ok(issued)
    }

    /// What is kept of a code, where something is.
    async fn kept(&self, code: &str) -> Result<Option<Entry>, Refused> {
        let question = Question {
            entries: &[key(code)],
            ..Question::default()
        };
        let exchange = &self.exchange;
        let answer = exchange.store.ask(question, exchange.clock.now()).await;
        let answer = answer.map_err(StoreError::refusal)?;
        Ok(answer.entries.into_iter().next().flatten())
    }

    /// Keeps this of a code, in the place of that version.
    async fn keep(
        &self,
        code: &str,
        version: u64,
        until: UnixSeconds,
        given: &Given,
    ) -> Result<Committed, Refused> {
        let change = Change {
            entries: vec![replace(code, version, until, given)?],
            ..Change::default()
        };
        let exchange = &self.exchange;
        let committed = exchange.store.commit(change, exchange.clock.now()).await;
        committed.map_err(StoreError::refusal)
    }

    /// Notes what a code gave.
    async fn mark(&self, used: &mut Used<'_>, family: Option<&str>) -> Result<Committed, Refused> {
        let given = Given {
            asked: used.asked.clone(),
            state: State::Used {
                jti: used.jti.clone(),
                family: family.map(str::to_owned),
            },
        };
        let committed = self
            .keep(used.code, used.version, used.until, &given)
            .await?;
        used.version += 1;
        Ok(committed)
    }

    /// Ends what a code gave (RFC 6749 §4.1.2): somebody else has it, and its verifier.
    async fn used_again(&self, code: &str) -> Refused {
        match self.end_what_it_gave(code).await {
            Ok(()) => Refusal::new(Code::AuthorizationCodeUsed),
            Err(refusal) => refusal,
        }
    }

    async fn end_what_it_gave(&self, code: &str) -> Result<(), Refused> {
        let exchange = &self.exchange;
        // Again where the family was noted meanwhile, which happens once.
        for _ in 0..2 {
            let Some(entry) = self.kept(code).await? else {
                return Ok(());
            };
            let given = read(&entry)?;
            let State::Used { jti, family } = given.state else {
                return Ok(());
            };
            let ended = Given {
                asked: given.asked,
                state: State::Ended,
            };
            let change = Change {
                entries: vec![replace(code, entry.version, entry.until, &ended)?],
                revocations: vec![Revocation {
                    key: standing::key(&jti),
                    at: UnixMillis::MAX,
                    until: entry.until + REMEMBERED,
                }],
                ..Change::default()
            };
            // First, for it is in its own entry, and ending it twice does nothing.
            if let Some(family) = &family {
                refresh::end_family(exchange, family).await?;
            }
            let committed = exchange.store.commit(change, exchange.clock.now()).await;
            if committed.map_err(StoreError::refusal)? == Committed::Done {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A code that was exchanged, and what is noted of it.
struct Used<'c> {
    code: &'c str,
    version: u64,
    until: UnixSeconds,
    asked: Asked,
    jti: String,
}

fn read(entry: &Entry) -> Result<Given, Refused> {
    serde_json::from_slice(&entry.body)
        .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))
}

fn key(code: &str) -> Key {
    Key::of(Kind::Code, &[code])
}

fn replace(
    code: &str,
    version: u64,
    until: UnixSeconds,
    given: &Given,
) -> Result<Replace, Refused> {
    let body = serde_json::to_vec(given)
        .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
    Ok(Replace {
        key: key(code),
        version,
        by: Some((until, body)),
    })
}
