//! The guard before a provider's API: its breaker, with the clock that it goes by, and the
//! metrics and the log that tell of it.

use super::breaker::{Breaker, Held, Pass};
use crate::clock::Clock;
use crate::telemetry::{Metrics, ProviderResult};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why nobody is let through, while the breaker is open.
pub const LEFT_ALONE: &str = "it failed several times in a row, and is left alone";

/// What became of a question.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'o> {
    /// It was answered, and how.
    Answered(ProviderResult),
    /// 429: nobody asks again for so many seconds.
    RateLimited(u64),
    /// There was no answer, and why.
    Failed(&'o str),
}

/// The guard of one API.
pub struct Guard {
    /// The issuer's name, for the log and the metrics.
    issuer: String,
    /// What the log calls the API.
    api: &'static str,
    clock: Clock,
    metrics: Arc<Metrics>,
    breaker: Mutex<Breaker>,
}

impl Guard {
    /// The guard of this API of an issuer or a provider.
    pub fn new(issuer: &str, api: &'static str, clock: &Clock, metrics: &Arc<Metrics>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            api,
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
            breaker: Mutex::default(),
        }
    }

    /// Leave to ask; else it is counted that nobody was asked.
    pub fn admit(&self) -> Result<Pass, Held> {
        let admitted = self.breaker().admit(self.clock.monotonic());
        admitted.inspect_err(|_| {
            self.metrics
                .provider_asked(&self.issuer, ProviderResult::NotAsked);
        })
    }

    /// Leave to ask again, which the budget of retries pays for.
    pub fn admit_again(&self) -> Option<Pass> {
        self.breaker().admit_again(self.clock.monotonic())
    }

    /// Tells the breaker, the metrics and the log what became of a question.
    pub fn note(&self, pass: Pass, outcome: Outcome<'_>) {
        let result = match outcome {
            Outcome::Answered(result) => result,
            Outcome::RateLimited(_) => ProviderResult::RateLimited,
            Outcome::Failed(_) => ProviderResult::Error,
        };
        self.metrics.provider_asked(&self.issuer, result);
        let now = self.clock.monotonic();
        let mut breaker = self.breaker();
        if let Outcome::Failed(cause) = outcome {
            let opened = breaker.failed(pass, now, rand::random());
            drop(breaker);
            if opened {
                self.metrics.provider_breaker(&self.issuer, true);
                tracing::warn!(
                    issuer = self.issuer,
                    api = self.api,
                    cause,
                    "the provider's API fails: it is left alone for a while"
                );
            }
            return;
        }
        if let Outcome::RateLimited(seconds) = outcome {
            breaker.cool_down(now, Duration::from_secs(seconds));
        }
        let closed = breaker.answered(pass);
        drop(breaker);
        if closed {
            self.metrics.provider_breaker(&self.issuer, false);
            tracing::info!(
                issuer = self.issuer,
                api = self.api,
                "the provider's API is back"
            );
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Nothing panics while it is held; if it ever did, the state is still whole.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds, a part of one counted whole.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_waited_for() {
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(1)), 1);
    }
}
