//! Delivering events: at least once, with the same id each time, for about a day.
//!
//! Standard Webhooks: any 2xx says that it was taken, 410 that nobody wants it any more;
//! redirects are not followed. Whatever was not taken is sent again, later each time.

use super::{Directory, events_of};
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, EventSettings};
use crate::standard_webhooks::sign;
use crate::store::{Delivery, Message, StoreError};
use crate::subject::address::configured;
use crate::subject::fetch::FetchError;
use futures_util::future::join_all;
use reqwest::Method;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use url::Url;

/// How often the outbox is looked at while there is something in it.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is looked at so after a message was made, seconds: longer than a commit takes.
const BUSY: UnixSeconds = 15;
/// How often it is looked at otherwise, seconds: a look costs the store a write.
const IDLE: UnixSeconds = 30;
/// How many messages are sent at once.
const MOST: usize = 64;
/// For how long a message is ours to send, seconds: longer than any attempt.
const LEASE: UnixSeconds = 60;
/// After the last of so many attempts, about 26 hours after the first, it is given up.
const ATTEMPTS: u32 = 11;
/// The wait after the first attempt, seconds; four times as long after each further one.
const FIRST_WAIT: f64 = 5.0;
/// The longest wait, seconds.
const LONGEST_WAIT: f64 = 6.0 * 3600.0;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    /// The configuration names no receiver any more.
    #[error("the app has no receiver")]
    NoReceiver,
    /// 410.
    #[error("the receiver answered 410")]
    Gone,
    /// Another status that is no 2xx.
    #[error("the receiver answered {0}")]
    Refused(u16),
    /// No answer.
    #[error("{0}")]
    Unreached(#[from] FetchError),
}

impl Directory {
    /// Delivers events until `stop` becomes true, and what is due then once more; a caller that does
    /// not wait for the end of that loses nothing, for leases run out.
    pub async fn deliver(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut well = true;
        let mut next = UnixSeconds::MIN;
        loop {
            let stopping = tokio::select! {
                _ = ticks.tick() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            let now = self.clock.now();
            let busy = now < self.busy_until.load(Ordering::Relaxed);
            if !(stopping || busy || now >= next) {
                continue;
            }
            let delivered = self.deliver_due().await;
            if let Err(error) = &delivered
                && well
            {
                tracing::warn!(%error, "the outbox cannot be read");
            }
            well = delivered.is_ok();
            // What was put off before is not forgotten because something else came.
            let put_off = Some(next).filter(|next| now < *next);
            let again = delivered.unwrap_or_default();
            let soonest = put_off.into_iter().chain(again).min();
            next = soonest.map_or(now + IDLE, |soonest| soonest.min(now + IDLE));
            // Whoever has no receivers looked once, for what an earlier configuration left.
            if stopping || well && self.apps().all(|app| events_of(app).is_none()) {
                return;
            }
        }
    }

    fn apps(&self) -> impl Iterator<Item = &AppSettings> {
        self.instances.values().flat_map(|each| each.apps.iter())
    }

    /// Notes that messages are about to be committed.
    pub(super) fn expect_messages(&self, now: UnixSeconds) {
        self.busy_until.fetch_max(now + BUSY, Ordering::Relaxed);
    }

    /// Delivers what is due; gives when the first that was put off is due again.
    async fn deliver_due(&self) -> Result<Option<UnixSeconds>, StoreError> {
        let mut again = None;
        loop {
            let now = self.clock.now();
            let messages = self.store.due(now, LEASE, MOST).await?;
            let settled = messages.iter().map(async |message| {
                let delivery = self.delivery(message).await;
                let settled = self.store.settle(&message.id, delivery).await;
                settled.map(|()| delivery)
            });
            for settled in join_all(settled).await {
                if let Delivery::Again(at) = settled? {
                    again = Some(again.map_or(at, |again: UnixSeconds| again.min(at)));
                }
            }
            if messages.len() < MOST {
                return Ok(again);
            }
        }
    }

    /// Sends a message, and says what becomes of it.
    async fn delivery(&self, message: &Message) -> Delivery {
        let mut apps = self.apps();
        let events = apps.find(|app| app.name == message.app).and_then(events_of);
        let sent = match events {
            Some(events) => self.send(message, events).await,
            None => Err(NotTaken::NoReceiver),
        };
        let (app, id, attempts) = (&message.app, &message.id, message.attempts);
        match sent {
            Ok(()) => {
                self.metrics.event_sent("delivered");
                Delivery::Settled
            }
            Err(error @ (NotTaken::Unreached(_) | NotTaken::Refused(_))) if attempts < ATTEMPTS => {
                self.metrics.event_sent("failed");
                let wait = wait(attempts, rand::random_range(0.8..1.2));
                tracing::warn!(app, id, attempts, wait, %error, "an event was not taken");
                Delivery::Again(self.clock.now() + wait)
            }
            Err(error) => {
                self.metrics.event_sent("given_up");
                tracing::error!(app, id, attempts, %error, "an event was given up");
                Delivery::Settled
            }
        }
    }

    async fn send(&self, message: &Message, events: &EventSettings) -> Result<(), NotTaken> {
        let url = Url::parse(&events.url);
        let url = url.map_err(|error| FetchError::Forbidden(error.to_string()))?;
        let reach = configured(&url, events.allow_private_network);
        // The time of this attempt: the receiver refuses old ones.
        let now = self.clock.now();
        let signature = sign(&events.secret, &message.id, now, &message.body);
        let reply = self.fetcher.send(Method::POST, &url, reach, |request| {
            request
                .header("content-type", "application/json")
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", now)
                .header("webhook-signature", signature)
                .body(message.body.clone())
        });
        match reply.await?.status {
            200..300 => Ok(()),
            410 => Err(NotTaken::Gone),
            status => Err(NotTaken::Refused(status)),
        }
    }
}

/// Seconds until the next attempt after so many; `jitter` is around 1.
fn wait(attempts: u32, jitter: f64) -> UnixSeconds {
    let exponent = i32::try_from(attempts.clamp(1, ATTEMPTS) - 1).unwrap_or_default();
    let wait = (FIRST_WAIT * 4.0_f64.powi(exponent)).min(LONGEST_WAIT);
    #[expect(clippy::cast_possible_truncation, reason = "at most 26 000")]
    let seconds = (wait * jitter) as UnixSeconds;
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempts_are_spread_over_about_a_day() {
        let waits: Vec<UnixSeconds> = (1..ATTEMPTS).map(|attempts| wait(attempts, 1.0)).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits.first(), Some(&5));
        let hours = waits.iter().sum::<UnixSeconds>() / 3600;
        assert!((22..30).contains(&hours), "{hours}");
        assert_eq!(wait(u32::MAX, 1.2), 25_920);
        assert_eq!(wait(0, 0.8), 4);
    }
}
