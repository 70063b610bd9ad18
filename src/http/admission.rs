//! What is taken on at once: so many requests at work, so many that wait a moment for a place,
//! so many bytes of bodies that have come in part, and nothing while requests wait long for a
//! processor. What is beyond is refused at once: the service stays as quick as it was, for
//! fewer, and does not grow slow for all.
//!
//! Only the doors that cost something ask. Whether too many wait for a processor is asked first of
//! all, for what is refused must cost next to nothing; for a place a request asks when its body is
//! there, so whoever sends slowly takes nobody's. The public documents are never refused.

use super::delay::Delay;
use crate::explain::{Code, Refusal, Source};
use crate::telemetry::{Load, Metrics, Shed};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for a place: less than a caller notices.
const PATIENCE: Duration = Duration::from_millis(100);
/// One may wait for so many places: as many as become free within [`PATIENCE`] where each
/// request takes 0.8 s, as with a slow provider. More would wait in vain.
const WAITING: usize = 8;
/// The most bytes of bodies that have come in part, over all connections.
const MAX_BODIES: usize = 64 * 1024 * 1024;
/// After how many seconds a caller is told to try again; at random, or all come back at once.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 1..=3;
/// How often at most the log says that requests are refused.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// A request's place among those at work; given back when dropped.
#[must_use]
pub struct Place {
    _held: OwnedSemaphorePermit,
}

/// What a listener takes on.
pub struct Admission {
    work: Arc<Semaphore>,
    most: usize,
    waiting: Semaphore,
    /// The bodies that have come in part.
    pub(super) bodies: Bodies,
    delay: Arc<Delay>,
    metrics: Arc<Metrics>,
    started: Instant,
    /// When the log last said that requests are refused, milliseconds since the start.
    said: AtomicU64,
}

impl Admission {
    /// So many at work at once.
    pub fn new(most: usize, delay: Arc<Delay>, metrics: Arc<Metrics>) -> Self {
        Self {
            work: Arc::new(Semaphore::new(most)),
            most,
            waiting: Semaphore::new(Self::may_wait(most)),
            bodies: Bodies::default(),
            delay,
            metrics,
            started: Instant::now(),
            said: AtomicU64::new(0),
        }
    }

    fn may_wait(most: usize) -> usize {
        most.div_ceil(WAITING)
    }

    /// Refuses a request that came `now` where whoever comes waits too long for a processor.
    pub(super) fn overdue(&self, now: Instant) -> Option<Box<Refusal>> {
        let overdue = self.delay.is_too_long(now);
        overdue.then(|| self.shed(Shed::Delay))
    }

    /// Takes a place, now or within a tenth of a second.
    pub async fn enter(&self) -> Result<Place, Box<Refusal>> {
        if let Ok(place) = Arc::clone(&self.work).try_acquire_owned() {
            return Ok(Place { _held: place });
        }
        let waiting = self.waiting.try_acquire();
        let waiting = waiting.map_err(|_| self.shed(Shed::Concurrency))?;
        let place = Arc::clone(&self.work).acquire_owned();
        let place = tokio::time::timeout(PATIENCE, place).await;
        drop(waiting);
        match place {
            Ok(Ok(place)) => Ok(Place { _held: place }),
            _ => Err(self.shed(Shed::Concurrency)),
        }
    }

    /// What is taken on right now.
    pub fn load(&self) -> Load {
        let waiting = Self::may_wait(self.most);
        Load {
            at_work: self.most.saturating_sub(self.work.available_permits()),
            waiting: waiting.saturating_sub(self.waiting.available_permits()),
            bodies: self.bodies.0.load(Ordering::Relaxed),
        }
    }

    /// Refuses a request; it is counted, and not each one is worth a line in the log.
    pub(super) fn shed(&self, reason: Shed) -> Box<Refusal> {
        self.metrics.shed(reason);
        let now = self.started.elapsed() + SAID_EVERY;
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let said = self.said.load(Ordering::Relaxed);
        let due = u128::from(now - said.min(now)) >= SAID_EVERY.as_millis();
        let ours = due
            && self
                .said
                .compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if ours {
            tracing::warn!(reason = reason.name(), "requests are shed");
        }
        let code = match reason {
            Shed::Delay | Shed::Concurrency => Code::Overloaded,
            Shed::Bodies => Code::BodiesTooMany,
        };
        let seconds = rand::rng().random_range(RETRY_AFTER);
        Refusal::new(code).unavailable(Source::Exchequer, seconds)
    }
}

/// The bytes of bodies that have come in part.
#[derive(Default)]
pub(super) struct Bodies(AtomicUsize);

/// Those of one of them; given back when dropped.
pub(super) struct Pending<'b> {
    of: &'b Bodies,
    bytes: usize,
}

impl Bodies {
    /// A body of which nothing has come.
    pub(super) fn begin(&self) -> Pending<'_> {
        Pending { of: self, bytes: 0 }
    }
}

impl Pending<'_> {
    /// So many bytes of it have come, no less than before; gives whether it may wait for more.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes = bytes;
        self.of.0.fetch_add(more, Ordering::Relaxed) + more <= MAX_BODIES
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn admission(most: usize) -> Admission {
        Admission::new(most, Delay::unknown(None), Arc::new(Metrics::default()))
    }

    fn load(admission: &Admission) -> (usize, usize) {
        let load = admission.load();
        (load.at_work, load.waiting)
    }

    #[tokio::test]
    async fn so_many_work_and_so_many_wait_and_the_next_is_refused_at_once() {
        let admission = admission(16);
        let mut places = Vec::new();
        for _ in 0..16 {
            places.push(admission.enter().await.unwrap());
        }
        let mut first = Box::pin(admission.enter());
        let mut second = Box::pin(admission.enter());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(load(&admission), (16, 2));
        let third = admission.enter().now_or_never().expect("it does not wait");
        let refusal = third.err().unwrap();
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(RETRY_AFTER.contains(&refusal.retry_after.unwrap()));
        assert_eq!(refusal.source, Some(Source::Exchequer));
        // Whoever waits gets the place that becomes free; whoever gives up leaves none behind.
        drop(second);
        assert_eq!(load(&admission), (16, 1));
        places.pop();
        places.push(first.await.unwrap());
        assert_eq!(load(&admission), (16, 0));
        drop(places);
        assert_eq!(load(&admission), (0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_long() {
        let admission = admission(1);
        let place = admission.enter().await.unwrap();
        let refusal = admission.enter().await.err().unwrap();
        assert_eq!(refusal.code, Code::Overloaded);
        assert_eq!(load(&admission), (1, 0));
        drop(place);
        assert!(admission.enter().await.is_ok());
    }

    #[test]
    fn bodies_that_have_come_in_part_share_their_room() {
        let bodies = Bodies::default();
        let (mut one, mut other) = (bodies.begin(), bodies.begin());
        assert!(one.grow(MAX_BODIES - 10) && other.grow(10));
        assert!(other.grow(10) && !other.grow(11));
        drop(other);
        assert!(one.grow(MAX_BODIES) && !bodies.begin().grow(1));
        drop(one);
        assert_eq!(bodies.0.load(Ordering::Relaxed), 0);
    }
}
