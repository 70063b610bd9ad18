//! A token of ours that comes back to one of these endpoints: whether it is genuine, and
//! whether it still stands.

use super::OAuth;
use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Limit, Refusal};
use crate::policy::limits::Takes;
use crate::store::{Question, StoreError};
use crate::subject::revocation::{self, Hit};
use crate::token::mint::SERVICE_TYPE;
use crate::token::read::{Said, Unverified, Verified};

type Refused = Box<Refusal>;

impl OAuth {
    /// Verifies it with our own keys, and that it has the type that its app's tokens have, or
    /// service tokens, and its app or client is still there.
    pub(super) fn verified<'u>(
        &self,
        unverified: &'u Unverified<'_>,
        ladder: &mut Ladder,
    ) -> Result<Verified<'u>, Refused> {
        let verified = unverified.verify(&self.exchange.keys.published(), ladder)?;
        let said = &verified.claims;
        let app = self
            .exchange
            .apps
            .get(said.app)
            .map(|app| app.settings.typ.as_str());
        let expected = match said.provider {
            Some(_) => app,
            None => self.clients.find(said.app).map(|_| SERVICE_TYPE),
        };
        if expected != Some(verified.typ) {
            let refusal = Refusal::new(Code::AppTokenTypeMismatch);
            let nobody = "an app or a client that is configured";
            ladder.fail(Check::Type, verified.typ, expected.unwrap_or(nobody));
            return Err(match (said.provider, expected) {
                (None, None) => self.clients.unknown(refusal),
                _ => refusal,
            });
        }
        Ok(verified)
    }

    /// Asks, in one call, whether anything that it depends on was revoked, and takes from these
    /// buckets; gives the nearest limit.
    pub(super) async fn stands(
        &self,
        said: &Said<'_>,
        takes: &Takes,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Option<Limit>, Refused> {
        let (hits, standings): (Vec<Hit>, Vec<_>) = said.standings().unzip();
        let question = Question {
            standings: &standings,
            takes: &takes.takes,
            ..Question::default()
        };
        let answer = self.exchange.store.ask(question, now).await;
        let answer = answer.map_err(StoreError::refusal)?;
        let limit = takes.judge(&answer.levels)?;
        revocation::check(answer.revoked, &hits, ladder)?;
        Ok(limit)
    }
}
