//! What an issuer said of tokens that only it can read, for a short while.
//!
//! The answer is kept, never the judgement of it: another audience, a changed membership or a
//! revocation is looked at each time. A token itself is not kept, only its hash. Nobody asks
//! twice at once about one token, and a question goes on when its asker is gone.

use super::opaque::Told;
use crate::clock::Clock;
use crate::crypto::sha256;
use crate::explain::{Code, Refusal, Source};
use crate::telemetry::traces;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a token is taken for active without asking again; never past its `exp`.
const ACTIVE: Duration = Duration::from_secs(30);
/// How long one is taken for what it was clearly said not to be.
const INACTIVE: Duration = Duration::from_secs(5);
/// The most answers kept of one issuer.
const MAX_ANSWERS: usize = 10_000;
/// The most bytes of claims kept of one issuer.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The most questions to one issuer at once.
const MAX_QUESTIONS: usize = 256;
/// The whole of a question: nobody waits longer.
const DEADLINE: Duration = Duration::from_millis(4500);

type Key = [u8; 32];
type Refused = Box<Refusal>;
type Outcome = Option<Result<Arc<Told>, Refused>>;

struct Kept {
    told: Arc<Told>,
    until: Duration,
    /// Tells it from an older answer under the same key.
    number: u64,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Kept>,
    /// The keys, oldest answer first; some were replaced since.
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    number: u64,
    asking: HashMap<Key, watch::Receiver<Outcome>>,
}

/// The answers of one issuer.
pub struct Answers {
    clock: Clock,
    state: Mutex<State>,
}

impl Answers {
    /// No answers yet.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    /// What is known of an issuer's token; where nothing is, `ask` finds out.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        issuer: &str,
        token: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<Arc<Told>, Refused>
    where
        F: Future<Output = Result<Told, Refused>> + Send + 'static,
    {
        let key = sha256(format!("{}:{issuer}{token}", issuer.len()).as_bytes());
        let mut outcome = {
            let mut state = self.state();
            if let Some(told) = state.find(&key, self.clock.monotonic()) {
                return Ok(told);
            }
            match state.asking.get(&key) {
                Some(running) => running.clone(),
                None if state.asking.len() >= MAX_QUESTIONS => {
                    return Err(unavailable("too many questions are open already"));
                }
                None => {
                    let (sender, receiver) = watch::channel(None);
                    state.asking.insert(key, receiver.clone());
                    let (answers, question) = (Arc::clone(self), traces::carried(ask()));
                    tokio::spawn(async move {
                        let result = answers.note(key, question).await;
                        let _ = sender.send(Some(result));
                    });
                    receiver
                }
            }
        };
        if let Ok(result) = outcome.wait_for(Option::is_some).await
            && let Some(result) = result.as_ref()
        {
            return result.clone();
        }
        self.state().asking.remove(&key);
        Err(unavailable("the question was given up"))
    }

    /// Asks, and keeps what was clearly said.
    async fn note(
        &self,
        key: Key,
        question: impl Future<Output = Result<Told, Refused>>,
    ) -> Result<Arc<Told>, Refused> {
        // The answer is as old as the question, or older than it looks.
        let (asked, now) = (self.clock.monotonic(), self.clock.now());
        let result = tokio::time::timeout(DEADLINE, question)
            .await
            .unwrap_or_else(|_| Err(unavailable("no answer in time")))
            .map(Arc::new);
        let mut state = self.state();
        state.asking.remove(&key);
        if let Ok(told) = &result {
            let keep = match told.as_ref() {
                Told::Not(_) => INACTIVE,
                Told::Active { expires_at, .. } => expires_at.map_or(ACTIVE, |exp| {
                    let left = u64::try_from(exp.saturating_sub(now)).unwrap_or_default();
                    ACTIVE.min(Duration::from_secs(left))
                }),
            };
            state.keep(key, Arc::clone(told), asked + keep, self.clock.monotonic());
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&mut self, key: &Key, now: Duration) -> Option<Arc<Told>> {
        let kept = self.kept.get(key)?;
        if now < kept.until {
            return Some(Arc::clone(&kept.told));
        }
        self.forget(key);
        None
    }

    fn forget(&mut self, key: &Key) {
        if let Some(gone) = self.kept.remove(key) {
            self.bytes -= gone.told.size();
        }
    }

    fn keep(&mut self, key: Key, told: Arc<Told>, until: Duration, now: Duration) {
        self.forget(&key);
        if now < until {
            self.number += 1;
            let number = self.number;
            self.bytes += told.size();
            self.order.push_back((key, number));
            let kept = Kept {
                told,
                until,
                number,
            };
            self.kept.insert(key, kept);
        }
        // The oldest go while there are too many, and with them what is past its time.
        while let Some((oldest, number)) = self.order.front().copied() {
            let current = self.kept.get(&oldest).filter(|kept| kept.number == number);
            let full = self.order.len() > MAX_ANSWERS || self.bytes > MAX_BYTES;
            if current.is_some_and(|kept| now < kept.until) && !full {
                break;
            }
            if current.is_some() {
                self.forget(&oldest);
            }
            self.order.pop_front();
        }
    }
}

fn unavailable(cause: &str) -> Refused {
    Refusal::new(Code::ProviderUnavailable)
        .unavailable(Source::UpstreamIdp, 1)
        .caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(size: usize) -> Arc<Told> {
        Arc::new(Told::Active {
            claims: vec![b' '; size],
            expires_at: None,
        })
    }

    fn key(number: usize) -> Key {
        sha256(&number.to_be_bytes())
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many() {
        let mut state = State::default();
        let later = Duration::from_secs(9);
        for number in 0..MAX_ANSWERS + 5 {
            state.keep(key(number), told(1), later, Duration::ZERO);
        }
        assert_eq!(state.kept.len(), MAX_ANSWERS);
        assert_eq!(state.bytes, MAX_ANSWERS);
        assert!(state.find(&key(4), Duration::ZERO).is_none());
        assert!(state.find(&key(5), Duration::ZERO).is_some());
    }

    #[test]
    fn the_oldest_go_where_they_are_too_large_and_the_sums_agree() {
        let mut state = State::default();
        let later = Duration::from_secs(9);
        for number in 0..40 {
            state.keep(
                key(number % 30),
                told(MAX_BYTES / 16),
                later,
                Duration::ZERO,
            );
            let sum: usize = state.kept.values().map(|kept| kept.told.size()).sum();
            assert_eq!(state.bytes, sum);
            assert!(sum <= MAX_BYTES);
            assert!(state.kept.len() <= state.order.len());
        }
        assert_eq!(state.kept.len(), 16);
    }

    #[test]
    fn what_is_past_its_time_goes() {
        let mut state = State::default();
        let at = Duration::from_secs;
        state.keep(key(1), told(7), at(5), at(0));
        assert!(state.find(&key(1), at(4)).is_some());
        state.keep(key(2), told(7), at(20), at(6));
        assert_eq!(
            (state.kept.len(), state.order.len(), state.bytes),
            (1, 1, 7)
        );
        assert!(state.find(&key(2), at(20)).is_none());
        assert_eq!(state.bytes, 0);
    }
}
