//! Who signed in at a provider, verified and kept for the code that stands for it.

use super::Exchange;
use crate::config::TokenKind;
use crate::explain::{About, Code, Ladder, Refusal};
use crate::policy::App;
use crate::subject::Issuer;
use crate::subject::json::Object;
use crate::subject::jwt::{self, Unverified};
use crate::subject::kept::Kept;
use crate::subject::opaque;

/// A subject that signed in, and what the log may call it.
pub(crate) type SignedIn = (Kept, About);

impl Exchange {
    /// Keeps the subject of an ID token that the issuer made for this client of ours there, in
    /// answer to this `nonce`.
    pub async fn keep_id_token(
        &self,
        token: &str,
        app: &App,
        issuer: &Issuer,
        expected: (&str, &str),
    ) -> Result<SignedIn, Box<Refusal>> {
        let mut ladder = Ladder::default();
        let kept = async {
            let decoded = jwt::decode(token, &mut ladder)?;
            let unverified = Unverified::parse(&decoded, &mut ladder)?;
            let now = self.clock.now();
            let subject = unverified.verify_id_token(issuer, expected, now, &mut ladder);
            let subject = subject.await.map_err(|refusal| unverified.shown(refusal))?;
            Ok((Kept::of(&subject)?, self.about(app, &subject)))
        };
        let kept: Result<SignedIn, Box<Refusal>> = kept.await;
        kept.map_err(|mut refusal| {
            refusal.ladder = ladder;
            refusal
        })
    }

    /// Keeps a subject that a provider's API has just told us of, as claims in JSON.
    pub fn keep_told(
        &self,
        claims: &[u8],
        app: &App,
        issuer: &Issuer,
    ) -> Result<SignedIn, Box<Refusal>> {
        let claims = Object::parse(claims)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        let (kind, now) = (TokenKind::Session, self.clock.now());
        let subject = opaque::judge(&claims, issuer, kind, now, &mut Ladder::default())?;
        Ok((Kept::of(&subject)?, self.about(app, &subject)))
    }
}
