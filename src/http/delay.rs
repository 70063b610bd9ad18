//! How long whoever comes now waits for a processor.
//!
//! An exchange computes and does not wait, so however many come, no more are at work than there
//! are processors: the others wait in the runtime's queue, which no count of requests shows.
//! So the time in that queue is measured: from a thread of its own, a task that does nothing is
//! put at its end, and how long it lies there is what everybody waits.
//!
//! What is too long is judged as by CoDel (RFC 8289), in the form that B. Maurer gave it for
//! requests ("Fail at Scale", ACM Queue 13.8): a burst may wait long; but where a queue has
//! stood for so long, whoever would wait more than a little is refused. A task that still lies
//! there tells already how long it has: nobody is let in until it has run.
//!
//! A processor that was taken away (a busy neighbour, a container that used up its share, a
//! machine that slept) delays the task too, and refusing anybody would not bring it back. Then
//! few requests pass while the task lies there: it is a queue of requests only after `PASSED`
//! of them.

use crate::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// For so many times as long as where a queue stands a burst may wait; and so long one must
/// stand to be one.
const BURST: u32 = 6;
/// So many requests pass before the first is refused, each time that is looked.
const PASSED: u64 = 32;
/// The time between two looks.
const EVERY: Duration = Duration::from_millis(10);

/// The delay of a runtime.
pub struct Delay {
    started: Instant,
    /// How long a request may wait where a queue stands; for ever without.
    most: Option<Duration>,
    /// From when on requests are refused, microseconds since the start.
    too_long_from: AtomicU64,
    /// The requests that have passed, and how many had when the task was put.
    passed: AtomicU64,
    passed_then: AtomicU64,
}

impl Delay {
    /// None known yet: nobody is refused. Later whoever waits for more than `most` is, and
    /// without it nobody.
    pub fn unknown(most: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            most,
            too_long_from: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
            passed_then: AtomicU64::new(0),
        })
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether a request that came just now has waited too long; else it passes.
    pub(super) fn is_too_long(&self, now: Instant) -> bool {
        let from = self.too_long_from.load(Ordering::Relaxed);
        let passed = || {
            let passed = self.passed.load(Ordering::Relaxed);
            passed.saturating_sub(self.passed_then.load(Ordering::Relaxed))
        };
        if self.micros(now) > from && passed() >= PASSED {
            return true;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Looks at this runtime's queue from another's thread, until dropped.
    pub async fn watch(self: Arc<Self>, runtime: Handle, metrics: Arc<Metrics>) {
        let mut short_at = Instant::now();
        loop {
            let put = Instant::now();
            let passed = self.passed.load(Ordering::Relaxed);
            self.passed_then.store(passed, Ordering::Relaxed);
            if let Some(most) = self.most {
                let burst = most * BURST;
                let stood = put.duration_since(short_at) > burst;
                let allowed = if stood { most } else { burst };
                let from = self.micros(put + allowed);
                self.too_long_from.store(from, Ordering::Relaxed);
            }
            let delay = Arc::clone(&self);
            let task = runtime.spawn(async move {
                delay.too_long_from.store(u64::MAX, Ordering::Relaxed);
                Instant::now()
            });
            // It is not found where the runtime ends.
            let Ok(ran) = task.await else { return };
            let waited = ran.duration_since(put);
            metrics.delayed(waited);
            if self.most.is_none_or(|most| waited <= most) {
                short_at = ran;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
