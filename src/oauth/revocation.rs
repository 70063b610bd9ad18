//! Revocation (RFC 7009): a client says that a token of its own is needed no more.
//!
//! Public clients name themselves; what they revoke with is the token. Tokens that there are
//! not, or no more, are as good as revoked (§2.2). A provider's token is not: it is refused,
//! or its sender would think that it no longer opens anything (§2.2.1).

use super::clients::{Party, Proof};
use super::{OAuth, refresh};
use crate::clock::UnixSeconds;
use crate::config::TokenKind;
use crate::exchange::Caller;
use crate::explain::{About, Code, Ladder, Refusal};
use crate::policy::limits::Takes;
use crate::store::{Change, Question, Revocation, StoreError, UnixMillis};
use crate::subject::opaque::Opaque;
use crate::token::read::{self, Said, Unverified};
use crate::token::standing;

type Refused = Box<Refusal>;

/// How long after a token's end its revocation is remembered, in seconds: verifiers tolerate
/// clocks that differ.
pub const REMEMBERED: UnixSeconds = 300;

/// What was revoked.
pub struct Revoked {
    /// Who asked.
    pub party: Party,
    /// The token; none where there was nothing to revoke.
    pub what: Option<What>,
}

/// A token that was revoked.
pub enum What {
    /// An app token or a service token, by its `jti`.
    Token(String),
    /// A refresh token, and all of its family; whom it was about, under pseudonyms.
    RefreshToken(About),
}

impl Revoked {
    /// What became of it, in a word.
    pub fn result(&self) -> &'static str {
        match self.what {
            Some(_) => "ok",
            None => "nothing",
        }
    }

    /// What was revoked, in a word.
    pub fn kind(&self) -> Option<&'static str> {
        self.what.as_ref().map(|what| match what {
            What::Token(_) => "access_token",
            What::RefreshToken(_) => "refresh_token",
        })
    }

    /// `jti` of the token, where it has one.
    pub fn jti(&self) -> Option<&str> {
        match &self.what {
            Some(What::Token(jti)) => Some(jti),
            _ => None,
        }
    }

    /// Whom the token was about, where that is known.
    pub fn about(&self) -> Option<&About> {
        match &self.what {
            Some(What::RefreshToken(about)) => Some(about),
            _ => None,
        }
    }
}

impl OAuth {
    /// Revokes a token of the client's. When this returns, everybody who asks here is told.
    pub async fn revoke(
        &self,
        proof: Result<Proof<'_>, Refused>,
        token: Result<&str, Refused>,
        caller: Caller<'_>,
    ) -> Result<Revoked, Refused> {
        let revoked = async {
            let party = self.authenticate(&proof?).await?;
            let token = token?;
            let what = if token.starts_with(refresh::PREFIX) {
                let about = self.revoked_family(&party, token).await?;
                about.map(What::RefreshToken)
            } else {
                let jti = self.revoked(&party, token, caller).await?;
                jti.map(What::Token)
            };
            Ok(Revoked { party, what })
        };
        self.exchange.counting(revoked.await, caller).await
    }

    async fn revoked_family(&self, party: &Party, token: &str) -> Result<Option<About>, Refused> {
        let look = refresh::look(&self.exchange, token).await?;
        if look.is_some_and(|look| look.client != party.id()) {
            return Err(Refusal::new(Code::TokenOfAnotherClient));
        }
        refresh::end(&self.exchange, token, party).await
    }

    async fn revoked(
        &self,
        party: &Party,
        token: &str,
        caller: Caller<'_>,
    ) -> Result<Option<String>, Refused> {
        let exchange = &self.exchange;
        if let Some(Opaque::Clerk(kind)) = Opaque::of(token)
            && self.takes(kind)
        {
            return Err(Refusal::new(Code::TokenTypeUnsupported));
        }
        let mut ladder = Ladder::default();
        let Ok(decoded) = read::decode(token, &mut ladder) else {
            return Ok(None);
        };
        let Ok(unverified) = Unverified::parse(&decoded, &mut ladder) else {
            return Ok(None);
        };
        let issuer = unverified.claims().text("iss").unwrap_or_default();
        if issuer != exchange.issuer {
            let mut issuers = exchange.apps.iter().flat_map(|app| &app.issuers);
            if issuers.any(|each| each.settings.issuer == issuer) {
                return Err(Refusal::new(Code::TokenTypeUnsupported));
            }
            return Ok(None);
        }
        let Ok(verified) = unverified.verify(&exchange.keys.published(), &mut ladder) else {
            return Ok(None);
        };
        let said = &verified.claims;
        if !owns(party, said) {
            return Err(Refusal::new(Code::TokenOfAnotherClient));
        }
        let now = exchange.clock.now();
        let takes = ["revocation", said.id];
        let takes = Takes::of(
            exchange.limits.as_ref(),
            &takes,
            caller.network().as_deref(),
        );
        let (_, itself) = standing::itself(said.id);
        let question = Question {
            standings: &[itself],
            takes: &takes.takes,
            ..Question::default()
        };
        let answer = exchange.store.ask(question, now).await;
        let answer = answer.map_err(StoreError::refusal)?;
        takes.judge(&answer.levels)?;
        if answer.revoked.is_some() || now >= said.expires_at {
            return Ok(None);
        }
        let revocation = Revocation {
            key: itself.key,
            at: UnixMillis::MAX,
            until: said.expires_at + REMEMBERED,
        };
        let change = Change {
            revocations: vec![revocation],
            ..Change::default()
        };
        let committed = exchange.store.commit(change, now).await;
        committed.map_err(StoreError::refusal)?;
        Ok(Some(said.id.to_owned()))
    }

    /// Whether tokens of that kind are exchanged here.
    fn takes(&self, kind: TokenKind) -> bool {
        let mut issuers = self.exchange.apps.iter().flat_map(|app| &app.issuers);
        issuers.any(|issuer| issuer.settings.accepts.contains(&kind))
    }
}

/// Whether the token was issued to the client, or to an app that it may act for.
fn owns(party: &Party, said: &Said<'_>) -> bool {
    let apps = match party {
        Party::Client(client) => client.settings.apps.as_slice(),
        Party::Public(_) | Party::App(_) => &[],
    };
    said.app == party.id() || apps.iter().any(|app| app == said.app)
}
