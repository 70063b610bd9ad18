//! How requests ended, minute by minute for three hours, for the console.
//!
//! It is read off the counters that the metrics have, now and then and by a task of its own, so
//! that no request pays for it.

use super::route::Route;
use crate::clock::{Clock, UnixSeconds};
use crate::explain::Code;
use crate::telemetry::{Metrics, ending};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter::once;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long it reaches back, minutes.
const MINUTES: usize = 180;
/// The length of a minute, seconds.
const MINUTE: UnixSeconds = 60;
/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(10);

/// How requests ended.
pub struct History {
    clock: Clock,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The counters as they were read last, those that are not zero.
    totals: HashMap<(&'static str, Option<Code>), u64>,
    /// Newest last; a minute without a request is missing.
    minutes: VecDeque<Minute>,
}

struct Minute {
    /// When it began.
    at: UnixSeconds,
    ended: BTreeMap<(&'static str, &'static str), u64>,
    codes: HashMap<Code, u64>,
}

/// What the console shows of it.
#[derive(Serialize)]
pub(super) struct Shown {
    /// When the first minute began.
    from: UnixSeconds,
    /// How many there are.
    minutes: usize,
    series: Vec<Series>,
    codes: Vec<Refusals>,
}

#[derive(Serialize)]
struct Series {
    route: &'static str,
    outcome: &'static str,
    /// One number a minute.
    counts: Vec<u64>,
}

#[derive(Serialize)]
struct Refusals {
    code: &'static str,
    status: u16,
    /// In these minutes.
    recent: u64,
    /// Since the service started.
    total: u64,
}

impl History {
    /// None yet.
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            metrics,
            kept: Mutex::default(),
        }
    }

    /// Reads the counters, for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.read(|_, _| ());
        }
    }

    /// Reads the counters, then shows what there is.
    pub(super) fn show(&self) -> Shown {
        self.read(Kept::show)
    }

    fn read<T>(&self, then: impl FnOnce(&Kept, UnixSeconds) -> T) -> T {
        let now = self.clock.now();
        let minute = now - now.rem_euclid(MINUTE);
        // Nothing panics while it is held; if it ever did, the counts are still whole.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for route in Route::DECIDING.map(Route::name) {
            let codes = Code::ALL.iter().copied().map(Some);
            for code in once(None).chain(codes) {
                kept.count(route, code, self.metrics.requests(route, code), minute);
            }
        }
        let oldest = oldest(minute);
        kept.minutes.retain(|each| each.at >= oldest);
        then(&kept, minute)
    }
}

/// The oldest minute that is shown in this one.
fn oldest(minute: UnixSeconds) -> UnixSeconds {
    minute - (MINUTES as UnixSeconds - 1) * MINUTE
}

impl Kept {
    fn count(&mut self, route: &'static str, code: Option<Code>, total: u64, minute: UnixSeconds) {
        if total == 0 {
            return;
        }
        let before = self.totals.insert((route, code), total).unwrap_or_default();
        let more = total.saturating_sub(before);
        if more == 0 {
            return;
        }
        // A clock that was set back goes on in the newest minute.
        if self.minutes.back().is_none_or(|newest| newest.at < minute) {
            self.minutes.push_back(Minute {
                at: minute,
                ended: BTreeMap::new(),
                codes: HashMap::new(),
            });
        }
        if let Some(newest) = self.minutes.back_mut() {
            *newest.ended.entry((route, outcome(code))).or_default() += more;
            if let Some(code) = code {
                *newest.codes.entry(code).or_default() += more;
            }
        }
    }

    fn show(&self, minute: UnixSeconds) -> Shown {
        let from = oldest(minute);
        let mut series: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        let mut codes: HashMap<Code, (u64, u64)> = HashMap::new();
        for each in &self.minutes {
            let place = usize::try_from((each.at - from) / MINUTE).unwrap_or_default();
            for (name, more) in &each.ended {
                let counts = series.entry(*name).or_insert_with(|| vec![0; MINUTES]);
                if let Some(count) = counts.get_mut(place.min(MINUTES - 1)) {
                    *count += more;
                }
            }
            for (code, more) in &each.codes {
                codes.entry(*code).or_default().0 += more;
            }
        }
        for ((_, code), total) in &self.totals {
            if let Some(code) = code {
                codes.entry(*code).or_default().1 += total;
            }
        }
        let mut codes: Vec<Refusals> = codes
            .into_iter()
            .map(|(code, (recent, total))| Refusals {
                code: code.entry().slug,
                status: code.entry().status,
                recent,
                total,
            })
            .collect();
        codes.sort_by(|a, b| (b.recent, b.total, a.code).cmp(&(a.recent, a.total, b.code)));
        let series = series.into_iter().map(|((route, outcome), counts)| Series {
            route,
            outcome,
            counts,
        });
        Shown {
            from,
            minutes: MINUTES,
            series: series.collect(),
            codes,
        }
    }
}

/// How a request with this code ended, as the console tells it: what was shed has a name of its
/// own, for it says nothing about the request.
fn outcome(code: Option<Code>) -> &'static str {
    match code {
        Some(code) if code.is_shed() => "shed",
        code => ending(code).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Option<Code> = Some(Code::SubjectTokenExpired);

    fn counts(kept: &Kept, minute: UnixSeconds, outcome: &str) -> Vec<u64> {
        let shown = kept.show(minute);
        let mut series = shown.series.into_iter();
        series
            .find(|series| series.outcome == outcome)
            .map(|series| series.counts)
            .unwrap_or_default()
    }

    #[test]
    fn each_minute_has_what_came_in_it() {
        let mut kept = Kept::default();
        kept.count("exchange", None, 5, 600);
        kept.count("exchange", None, 5, 660);
        kept.count("exchange", None, 7, 720);
        kept.count("exchange", REFUSED, 1, 720);
        let counts = counts(&kept, 720, "ok");
        assert_eq!(counts.len(), MINUTES);
        assert_eq!(counts[MINUTES - 3..], [5, 0, 2]);
        let shown = kept.show(720);
        assert_eq!((shown.codes[0].recent, shown.codes[0].total), (1, 1));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut kept = Kept::default();
        kept.count("exchange", None, 5, 6000);
        kept.count("exchange", None, 7, 60);
        assert_eq!(counts(&kept, 6000, "ok").iter().sum::<u64>(), 7);
        assert_eq!(counts(&kept, 60, "ok").iter().sum::<u64>(), 7);
    }

    #[test]
    fn what_is_shed_is_no_failure_of_a_request() {
        assert_eq!(outcome(Some(Code::Overloaded)), "shed");
        assert_eq!(outcome(REFUSED), "refused");
        assert_eq!(outcome(Some(Code::StoreUnavailable)), "failed");
        assert_eq!(outcome(None), "ok");
    }
}
