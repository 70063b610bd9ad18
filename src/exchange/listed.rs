//! A token with a place in the status list: minted, and what would revoke it remembered, before
//! anybody has it.

use super::Exchange;
use crate::clock::UnixSeconds;
use crate::explain::{Code, Refusal, Source};
use crate::policy::app::Place;
use crate::store::{Change, Committed, Status, StoreError};
use crate::subject::revocation::{Dependence, Issued};
use crate::token::mint::MintFailed;
use crate::token::status_list::{self, PLACES};
use crate::token::{AppToken, standing};
use rand::Rng;

/// How many places are tried: where half of them are taken, one mint in 65,536 finds none.
const TRIES: u32 = 16;
/// How long after its end a token keeps its place, in seconds: verifiers tolerate clocks that
/// differ.
const LEEWAY: UnixSeconds = 300;

impl Exchange {
    /// Mints a token with a place of its own in the status list; where a user is behind it, it
    /// depends on this.
    pub(crate) async fn listed(
        &self,
        dependence: Option<Dependence<'_>>,
        grant_id: Option<&str>,
        expires_at: UnixSeconds,
        now: UnixSeconds,
        mut mint: impl FnMut(Option<Place>) -> Result<AppToken, MintFailed>,
    ) -> Result<AppToken, Box<Refusal>> {
        let dependence = dependence.map(|dependence| Dependence {
            issued: Issued::Here(now),
            ..dependence
        });
        for _ in 0..TRIES {
            let index = rand::rng().random_range(0..PLACES);
            let place = Place {
                idx: index,
                uri: status_list::uri(&self.issuer),
            };
            let token = mint(Some(place))
                .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
            let itself = [standing::itself(&token.jti)];
            let grant = grant_id.map(standing::grant);
            let of_user = dependence.iter().flat_map(Dependence::standings);
            let standings = of_user.chain(itself).chain(grant);
            let change = Change {
                statuses: vec![Status {
                    index,
                    standings: standings.map(|(_, standing)| standing).collect(),
                    until: expires_at + LEEWAY,
                }],
                ..Change::default()
            };
            let committed = self.store.commit(change, now).await;
            if committed.map_err(StoreError::refusal)? == Committed::Done {
                return Ok(token);
            }
        }
        Err(Refusal::new(Code::StatusListFull).unavailable(Source::Exchequer, 5))
    }
}
