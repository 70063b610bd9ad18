//! A token with a place in the status list: minted, and what would revoke it remembered, before
//! anybody has it.

use super::Exchange;
use crate::clock::UnixSeconds;
use crate::explain::{Code, Refusal, Source};
use crate::keys::Signer;
use crate::policy::app::Place;
use crate::policy::{App, Grant};
use crate::store::{Change, Committed, Status, StoreError};
use crate::subject::Subject;
use crate::subject::revocation::{Dependence, Issued};
use crate::token::status_list::{self, PLACES};
use crate::token::{AppToken, mint, standing};
use rand::Rng;

/// How many places are tried: where half of them are taken, one mint in 65,536 finds none.
const TRIES: u32 = 16;
/// How long after its end a token keeps its place, in seconds: verifiers tolerate clocks that
/// differ.
const LEEWAY: UnixSeconds = 300;

impl Exchange {
    /// Mints a token that has a place of its own in the status list.
    pub(super) async fn listed(
        &self,
        app: &App,
        subject: &Subject<'_>,
        grant: &mut Grant,
        bound_to: Option<&str>,
        now: UnixSeconds,
        signer: &Signer,
    ) -> Result<AppToken, Box<Refusal>> {
        let dependence = Dependence {
            issued: Issued::Here(now),
            ..Dependence::of(subject)
        };
        for _ in 0..TRIES {
            let index = rand::rng().random_range(0..PLACES);
            grant.place = Some(Place {
                idx: index,
                uri: status_list::uri(&self.issuer),
            });
            let settings = &app.settings;
            let token = mint(
                &self.issuer,
                settings,
                subject,
                grant,
                bound_to,
                now,
                signer,
            )
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
            let itself = [standing::itself(&token.jti)];
            let standings = dependence.standings().chain(itself);
            let change = Change {
                statuses: vec![Status {
                    index,
                    standings: standings.map(|(_, standing)| standing).collect(),
                    until: grant.expires_at + LEEWAY,
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
