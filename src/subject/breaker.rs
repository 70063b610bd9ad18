//! When an upstream may be asked: a circuit breaker, the cool-down that a 429 asks for, and
//! a budget of retries. Pure: time and chance are handed in.
//!
//! Closed, every request passes. After some failures in a row it opens: for a while nobody
//! asks, then one probe does, and what becomes of it closes or opens it again, for longer
//! each time. Whoever is not let through knows at once.

use std::time::Duration;

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// The bounds of how long it stays open.
const OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a probe may take before another one may be sent: its sender may have gone.
const PROBE: Duration = Duration::from_secs(5);
/// The longest cool-down that is believed.
const MAX_COOL_DOWN: Duration = Duration::from_secs(3600);
/// What a retry takes from the budget, where a request brings 1.
const RETRY: u32 = 10;
/// The most that is in the budget, and what it begins with: ten retries.
const BUDGET: u32 = 100;

/// Leave to ask once; what becomes of it must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    /// Whether it decides if the breaker closes.
    probe: bool,
}

/// Why nobody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The upstream said 429: so long it is not asked.
    Cooling(Duration),
    /// It failed too often: so long it is not asked.
    Open(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, opened: u32 },
    Probing { since: Duration, opened: u32 },
}

/// The state of one upstream.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    cool_until: Duration,
    budget: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            cool_until: Duration::ZERO,
            budget: BUDGET,
        }
    }
}

impl Breaker {
    /// Asks for leave; the times are those of one monotonic clock.
    pub fn admit(&mut self, now: Duration) -> Result<Pass, Held> {
        let pass = self.pass(now)?;
        self.budget = (self.budget + 1).min(BUDGET);
        Ok(pass)
    }

    /// Asks for leave to ask again, which the budget pays for.
    pub fn admit_again(&mut self, now: Duration) -> Option<Pass> {
        let left = self.budget.checked_sub(RETRY)?;
        let pass = self.pass(now).ok()?;
        self.budget = left;
        Some(pass)
    }

    fn pass(&mut self, now: Duration) -> Result<Pass, Held> {
        if now < self.cool_until {
            return Err(Held::Cooling(self.cool_until - now));
        }
        let probe = match self.state {
            State::Closed { .. } => false,
            State::Open { until, .. } if now < until => return Err(Held::Open(until - now)),
            State::Probing { since, .. } if now < since + PROBE => {
                return Err(Held::Open(since + PROBE - now));
            }
            State::Open { opened, .. } | State::Probing { opened, .. } => {
                self.state = State::Probing { since: now, opened };
                true
            }
        };
        Ok(Pass { probe })
    }

    /// The upstream answered, whatever it said; true where that closed the breaker.
    pub fn answered(&mut self, pass: Pass) -> bool {
        match self.state {
            State::Closed { .. } => self.state = State::Closed { failures: 0 },
            State::Open { .. } | State::Probing { .. } if pass.probe => {
                self.state = State::Closed { failures: 0 };
                return true;
            }
            // It was asked before the breaker opened: the probe knows better.
            State::Open { .. } | State::Probing { .. } => {}
        }
        false
    }

    /// The upstream did not answer; true where that opened the breaker. `chance` is in 0..1.
    pub fn failed(&mut self, pass: Pass, now: Duration, chance: f64) -> bool {
        let opened = match self.state {
            State::Closed { failures } if failures + 1 < FAILURES => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
                return false;
            }
            State::Closed { .. } => 0,
            State::Open { opened, .. } | State::Probing { opened, .. } if pass.probe => opened,
            State::Open { .. } | State::Probing { .. } => return false,
        };
        let whole = OPEN.0.saturating_mul(1 << opened.min(8)).min(OPEN.1);
        let until = now + whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        let opened = opened.saturating_add(1);
        self.state = State::Open { until, opened };
        true
    }

    /// The upstream said 429: it answered, and is not asked for so long.
    pub fn cool_down(&mut self, now: Duration, wait: Duration) {
        self.cool_until = self.cool_until.max(now + wait.min(MAX_COOL_DOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn fail(breaker: &mut Breaker, times: u32, now: Duration) -> bool {
        let mut opened = false;
        for _ in 0..times {
            let pass = breaker.admit(now).unwrap();
            opened = breaker.failed(pass, now, 1.0);
        }
        opened
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_an_answer_between_them_begins_anew() {
        let mut breaker = Breaker::default();
        assert!(!fail(&mut breaker, 4, at(0)));
        let pass = breaker.admit(at(0)).unwrap();
        assert!(!breaker.answered(pass));
        assert!(!fail(&mut breaker, 4, at(0)));
        assert!(fail(&mut breaker, 1, at(0)));
        assert_eq!(breaker.admit(at(0)), Err(Held::Open(at(1000))));
        assert_eq!(breaker.admit(at(999)), Err(Held::Open(at(1))));
    }

    #[test]
    fn one_probe_is_let_through_and_its_answer_closes_it() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 5, at(0));
        let probe = breaker.admit(at(1000)).unwrap();
        assert_eq!(breaker.admit(at(1000)), Err(Held::Open(PROBE)));
        assert!(breaker.answered(probe));
        let pass = breaker.admit(at(1000)).unwrap();
        assert!(!breaker.failed(pass, at(1000), 1.0), "the row begins anew");
    }

    #[test]
    fn a_probe_that_nobody_waits_for_any_more_is_replaced() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 5, at(0));
        let _gone = breaker.admit(at(1000)).unwrap();
        assert!(breaker.admit(at(5999)).is_err());
        let probe = breaker.admit(at(6000)).unwrap();
        assert!(breaker.answered(probe));
    }

    #[test]
    fn each_failed_probe_keeps_it_open_for_twice_as_long_up_to_the_bound() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 5, at(0));
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(breaker.admit(now), Err(Held::Open(wait)));
            now += wait;
            let probe = breaker.admit(now).unwrap();
            assert!(breaker.failed(probe, now, 1.0));
        }
    }

    #[test]
    fn chance_shortens_the_wait_by_half_at_most() {
        for (chance, wait) in [(0.0, 500), (0.5, 750), (1.0, 1000), (7.0, 1000)] {
            let mut breaker = Breaker::default();
            fail(&mut breaker, 4, at(0));
            let pass = breaker.admit(at(0)).unwrap();
            assert!(breaker.failed(pass, at(0), chance));
            assert_eq!(breaker.admit(at(0)), Err(Held::Open(at(wait))));
        }
    }

    #[test]
    fn what_was_asked_before_it_opened_changes_nothing_after() {
        let mut breaker = Breaker::default();
        let (late, later) = (breaker.admit(at(0)).unwrap(), breaker.admit(at(0)).unwrap());
        fail(&mut breaker, 5, at(0));
        assert!(!breaker.failed(late, at(900), 1.0));
        assert!(!breaker.answered(later));
        assert_eq!(breaker.admit(at(900)), Err(Held::Open(at(100))));
    }

    #[test]
    fn a_cool_down_holds_everybody_is_never_shortened_and_is_bounded() {
        let mut breaker = Breaker::default();
        let pass = breaker.admit(at(0)).unwrap();
        breaker.answered(pass);
        breaker.cool_down(at(0), Duration::from_secs(7));
        breaker.cool_down(at(0), Duration::from_secs(2));
        assert_eq!(breaker.admit(at(500)), Err(Held::Cooling(at(6500))));
        assert!(breaker.admit(at(7000)).is_ok());
        breaker.cool_down(at(7000), Duration::MAX);
        assert_eq!(breaker.admit(at(7000)), Err(Held::Cooling(MAX_COOL_DOWN)));
    }

    #[test]
    fn retries_are_a_tenth_of_the_requests_once_the_first_ten_are_spent() {
        let mut breaker = Breaker::default();
        let again = |breaker: &mut Breaker| {
            let pass = breaker.admit_again(at(0));
            pass.map(|pass| breaker.answered(pass)).is_some()
        };
        assert_eq!((0..20).filter(|_| again(&mut breaker)).count(), 10);
        let mut retries = 0;
        for _ in 0..1000 {
            let pass = breaker.admit(at(0)).unwrap();
            breaker.answered(pass);
            retries += u32::from(again(&mut breaker));
        }
        assert_eq!(retries, 100);
    }

    #[test]
    fn nobody_asks_again_while_it_is_open() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 5, at(0));
        assert_eq!(breaker.admit_again(at(0)), None);
        assert_eq!(breaker.admit_again(at(1000)), Some(Pass { probe: true }));
    }
}
