//! `authorization_code` (RFC 6749 §4.1.3): the code that a sign-in ended with, exchanged once by
//! whoever began it.

use super::OAuth;
use super::clients::Party;
use super::issued::Issued;
use super::revocation::REMEMBERED;
use super::sign_in::{Asked, random};
use crate::clock::UnixSeconds;
use crate::crypto::sha256;
use crate::exchange::{Caller, Credential, Request};
use crate::explain::{Code, Refusal};
use crate::policy::app;
use crate::store::{Change, Committed, Entry, Kind, Revocation, StoreError, UnixMillis};
use crate::subject::kept::Kept;
use crate::token::standing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    /// It was exchanged for the app token of this `jti`.
    Used { jti: String },
}

impl OAuth {
    /// Gives a code for somebody who signed in.
    pub(super) async fn give_code(&self, asked: &Asked, kept: Kept) -> Result<String, Refused> {
        let code = random();
        let given = Given {
            asked: asked.clone(),
            state: State::Fresh(kept),
        };
        let until = self.exchange.clock.now() + LIFE;
        self.replace(Kind::Code, &code, 0, Some((until, written(&given)?)))
            .await?;
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
        let Some(entry) = self.entry(Kind::Code, wish.code).await? else {
            return Err(invalid("no such code is kept"));
        };
        let given: Given = serde_json::from_slice(&entry.body)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        let asked = &given.asked;
        let app = match &party {
            Party::App(app) if app.settings.name == asked.app => app,
            _ => return Err(invalid("it was given to another app")),
        };
        if wish.redirect_uri != asked.redirect_uri {
            return Err(invalid("it was sent to another redirect URI"));
        }
        let challenge = URL_SAFE_NO_PAD.encode(sha256(wish.code_verifier.as_bytes()));
        if !bool::from(challenge.as_bytes().ct_eq(asked.code_challenge.as_bytes())) {
            return Err(Refusal::new(Code::CodeVerifierWrong));
        }
        let kept = match &given.state {
            State::Fresh(kept) => kept,
            State::Used { jti } => return Err(self.used_again(&entry, jti).await),
        };
        let audiences: Vec<&str> = asked.audiences.iter().map(String::as_str).collect();
        let request = Request {
            credential: Credential::Kept(kept),
            wish: app::Wish {
                app: Some(&app.settings.name),
                audiences: &audiences,
                scope: asked.scope.as_deref(),
                ..app::Wish::default()
            },
            caller,
            keep: false,
        };
        let issued = self.exchanged(request, party.clone()).await?;
        // Before anybody has the token: it is known then what the code gave.
        let jti = issued.token.jti.clone();
        let until = self.exchange.clock.now() + issued.expires_in.max(LIFE);
        let used = Given {
            asked: asked.clone(),
            state: State::Used { jti },
        };
        let by = Some((until, written(&used)?));
        match self
            .replace(Kind::Code, wish.code, entry.version, by)
            .await?
        {
            Committed::Done => Ok(issued),
            Committed::Repeated => Err(Refusal::new(Code::AuthorizationCodeUsed)
                .caused_by("another request with this code was faster")),
        }
    }

    /// Ends what a code gave (RFC 6749 §4.1.2): somebody else has it, and its verifier.
    async fn used_again(&self, entry: &Entry, jti: &str) -> Refused {
        let change = Change {
            revocations: vec![Revocation {
                key: standing::key(jti),
                at: UnixMillis::MAX,
                until: entry.until + REMEMBERED,
            }],
            ..Change::default()
        };
        let exchange = &self.exchange;
        match exchange.store.commit(change, exchange.clock.now()).await {
            Ok(_) => Refusal::new(Code::AuthorizationCodeUsed),
            Err(error) => StoreError::refusal(error),
        }
    }
}

fn written(given: &Given) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(given).map_err(|error| Refusal::new(Code::InternalError).caused_by(error))
}
