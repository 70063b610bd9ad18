//! What a replica has itself published, and for how long: it signs with nothing that those who
//! fetch the key set from it could not know.

use super::ring::{Key, Ring, Schedule, State};
use crate::clock::UnixSeconds;
use jsonwebtoken::Algorithm;
use std::collections::HashMap;

/// Since when a replica has published each key, by its monotonic clock, seconds.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    since: Option<HashMap<String, i64>>,
}

impl Seen {
    /// Notes the keys of a ring that is published from `elapsed` on. Of a replica that is new
    /// nobody has fetched a key set yet: at first each key counts as published since it was.
    pub fn note(&mut self, ring: &Ring, now: UnixSeconds, elapsed: i64) {
        let before = self.since.take();
        let since = ring.keys.iter().map(|key| {
            let at = match &before {
                None => elapsed - (now - key.published_at).max(0),
                Some(before) => before.get(&key.kid).copied().unwrap_or(elapsed),
            };
            (key.kid.clone(), at)
        });
        self.since = Some(since.collect());
    }

    fn is_known(&self, key: &Key, elapsed: i64, schedule: &Schedule) -> bool {
        let since = self.since.as_ref().and_then(|since| since.get(&key.kid));
        key.forced || since.is_some_and(|at| elapsed - at >= schedule.publish_ahead)
    }

    /// The key that this replica signs with: the active one, once it was published here for
    /// long enough; until then the newest that was and stays published for longer than its
    /// tokens live. Where there is none, as in a new ring or after a revocation, the active one
    /// at once.
    pub fn signer<'r>(
        &self,
        ring: &'r Ring,
        algorithm: Algorithm,
        now: UnixSeconds,
        elapsed: i64,
        schedule: &Schedule,
    ) -> Option<&'r Key> {
        let active = ring.active(algorithm)?;
        if self.is_known(active, elapsed, schedule) {
            return Some(active);
        }
        let known = ring.keys.iter().filter(|key| {
            key.algorithm == algorithm
                && key.state == State::Retired
                && key.activated_at.is_some()
                && key.retired_at.is_some_and(|at| now < at + schedule.spare())
                && self.is_known(key, elapsed, schedule)
        });
        Some(known.max_by_key(|key| key.activated_at).unwrap_or(active))
    }
}
