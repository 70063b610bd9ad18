//! The last refusals, for the console: what the log has of them, for a while and in memory alone.
//!
//! Those of an overloaded service are left out. They are many, all alike, and counted.

use super::answer::told;
use super::log::printable;
use super::outcome::About;
use crate::clock::{Clock, UnixSeconds};
use crate::explain::{Check, Refusal};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that are kept.
const MOST: usize = 200;
/// As much as is kept of each text, in characters: what was seen comes from strangers.
const MOST_TEXT: usize = 300;

/// The last refusals of a listener.
pub struct Recent {
    clock: Clock,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// How many there ever were.
    count: u64,
    newest_last: VecDeque<Refused>,
}

/// A refusal as the log has it: its subject under a pseudonym, no token and no secret.
#[derive(Clone, Serialize)]
pub struct Refused {
    /// Counts the refusals, from 1.
    pub number: u64,
    at: UnixSeconds,
    route: &'static str,
    code: &'static str,
    status: u16,
    request_id: String,
    app: Option<String>,
    /// The issuer: that of a verified subject, else what the token claims.
    issuer: Option<String>,
    verified: bool,
    subject: Option<String>,
    session: Option<String>,
    check: Option<Check>,
    seen: Option<String>,
    expected: Option<String>,
    cause: Option<String>,
}

impl Recent {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held; if it ever did, the list is still whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a refusal, in the place of the oldest.
    pub(super) fn note(&self, request: About<'_>, refusal: &Refusal) {
        if refusal.code.is_shed() {
            return;
        }
        let short = |text: &str| text.chars().take(MOST_TEXT).collect::<String>();
        let failure = refusal.ladder.failure();
        let about = refusal.about.as_ref();
        let claimed = refusal.seen.as_ref().and_then(|seen| seen.iss.as_deref());
        let known = about.and_then(|about| about.issuer.as_deref());
        let mut refused = Refused {
            number: 0,
            at: self.clock.now(),
            route: request.route.name(),
            code: refusal.code.entry().slug,
            status: told(refusal).0.as_u16(),
            request_id: request.id.to_owned(),
            app: about.map(|about| short(&about.app)),
            issuer: known.or(claimed).map(|issuer| short(&printable(issuer))),
            verified: known.is_some(),
            subject: about.and_then(|about| about.subject.clone()),
            session: about.and_then(|about| about.session.clone()),
            check: failure.map(|rung| rung.check),
            seen: failure.and_then(|rung| rung.seen.as_deref()).map(short),
            expected: failure.and_then(|rung| rung.expected.as_deref()).map(short),
            cause: refusal
                .cause
                .as_deref()
                .map(|cause| short(&printable(cause))),
        };
        let mut kept = self.kept();
        kept.count += 1;
        refused.number = kept.count;
        if kept.newest_last.len() >= MOST {
            kept.newest_last.pop_front();
        }
        kept.newest_last.push_back(refused);
    }

    /// How many there ever were, and those after this one, newest last.
    pub(super) fn after(&self, number: u64) -> (u64, Vec<Refused>) {
        let kept = self.kept();
        let newer = kept
            .newest_last
            .iter()
            .filter(|refused| refused.number > number);
        (kept.count, newer.cloned().collect())
    }
}
