//! The store in this process: everything is forgotten when it ends.
//!
//! It is also what the file answers from: see `file.rs`.

use super::{
    Answer, Change, Committed, Delivery, Entry, Key, Level, Message, Once, Question, Record,
    Revocation, Standing, Status, Take, UnixMillis,
};
use crate::clock::UnixSeconds;
use crate::telemetry::Metrics;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    kept: Box<RwLock<Kept>>,
    buckets: Mutex<Buckets>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Kept {
    revocations: HashMap<Key, (UnixMillis, UnixSeconds)>,
    done: HashMap<Key, UnixSeconds>,
    records: HashMap<Key, Record>,
    entries: HashMap<Key, Entry>,
    messages: BTreeMap<String, Message>,
    statuses: BTreeMap<u32, Status>,
}

/// Buckets that are not full; one that is need not be known.
#[derive(Default)]
struct Buckets {
    known: HashMap<Key, Bucket>,
    /// With how many the full ones are dropped next, so that whoever asks from ever new
    /// addresses fills no memory.
    sweep_at: usize,
}

const FEW_BUCKETS: usize = 4096;
const NANOS: i64 = 1_000_000_000;

/// A token bucket as one time, in nanoseconds: when it will be full again (GCRA's theoretical
/// arrival time).
struct Bucket {
    full_at: i64,
}

impl Bucket {
    fn take(&mut self, take: &Take, now: UnixSeconds) -> Level {
        let now = now.saturating_mul(NANOS);
        let flow = Flow::of(take);
        // A clock that stepped back leaves nobody waiting for longer than an empty bucket does.
        let full_at = self.full_at.clamp(now, now.saturating_add(flow.window));
        self.full_at = full_at;
        let after = full_at.saturating_add(flow.cost);
        if after - now > flow.window {
            return flow.level(full_at - now, true);
        }
        self.full_at = after;
        flow.level(after - now, false)
    }
}

/// A take in nanoseconds of filling.
pub(super) struct Flow {
    /// What an empty bucket takes to fill.
    pub(super) window: i64,
    /// What the take takes to fill again.
    pub(super) cost: i64,
    each: i64,
    burst: u32,
}

impl Flow {
    pub(super) fn of(take: &Take) -> Self {
        Self::within(take, take.window)
    }

    /// The same, where no window is longer than a month: a script's numbers are exact up to 2^53.
    pub(super) fn of_month(take: &Take) -> Self {
        Self::within(take, take.window.min(30 * 86_400))
    }

    fn within(take: &Take, window: UnixSeconds) -> Self {
        let window = window.max(1).saturating_mul(NANOS);
        let burst = take.burst.max(1);
        let each = (window / i64::from(burst)).max(1);
        // A full bucket is always enough: no wait ever gives more.
        let cost = each * i64::from(take.cost.min(burst));
        Self {
            window,
            cost,
            each,
            burst,
        }
    }

    /// The level of a bucket that is full in so long, after the take or where it was refused.
    pub(super) fn level(&self, filling: i64, refused: bool) -> Level {
        let seconds = |nanos: i64| nanos.max(0).saturating_add(NANOS - 1) / NANOS;
        let missing = filling.saturating_add(self.cost) - self.window;
        Level {
            left: u32::try_from((self.window - filling).max(0) / self.each)
                .map_or(self.burst, |left| left.min(self.burst)),
            full_in: seconds(filling),
            wait: refused.then(|| seconds(missing)),
        }
    }
}

impl Buckets {
    fn take(&mut self, take: &Take, now: UnixSeconds) -> Level {
        if self.known.len() >= self.sweep_at {
            self.sweep(now);
        }
        let bucket = self.known.entry(take.key);
        bucket.or_insert(Bucket { full_at: 0 }).take(take, now)
    }

    fn sweep(&mut self, now: UnixSeconds) {
        let now = now.saturating_mul(NANOS);
        self.known.retain(|_, bucket| bucket.full_at > now);
        self.sweep_at = (self.known.len() * 2).max(FEW_BUCKETS);
        self.known.shrink_to(self.sweep_at);
    }
}

impl Kept {
    fn is_revoked(&self, standing: &Standing, now: UnixSeconds) -> bool {
        let known = self.revocations.get(&standing.key);
        known.is_some_and(|(at, until)| *at >= standing.since && *until > now)
    }

    /// A mark that is over is as good as none, swept or not.
    fn revoke(&mut self, revocation: &Revocation, now: UnixSeconds) {
        let Revocation { key, at, until } = *revocation;
        match self.revocations.entry(key) {
            Slot::Occupied(mut known) if known.get().1 > now => {
                let known = known.get_mut();
                *known = (known.0.max(at), known.1.max(until));
            }
            entry => {
                entry.insert_entry((at, until));
            }
        }
    }
}

impl Memory {
    /// An empty one, seen in these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    pub(super) fn ask(&self, question: Question<'_>, now: UnixSeconds) -> Answer {
        let mut answer = Answer::default();
        let Question {
            standings,
            records,
            entries,
            done,
            ..
        } = question;
        let asks_what_is_kept =
            !standings.is_empty() || !records.is_empty() || !entries.is_empty() || done.is_some();
        if asks_what_is_kept {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            let mut standings = standings.iter();
            answer.revoked = standings.position(|standing| kept.is_revoked(standing, now));
            let records = records.iter();
            answer.records = records.map(|key| kept.records.get(key).cloned()).collect();
            let there = |key| kept.entries.get(key).filter(|entry| entry.until > now);
            answer.entries = entries.iter().map(|key| there(key).cloned()).collect();
            let until = done.and_then(|key| kept.done.get(&key));
            answer.done = until.is_some_and(|until| *until > now);
        }
        if !question.takes.is_empty() {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let takes = question.takes.iter();
            answer.levels = takes.map(|take| buckets.take(take, now)).collect();
        }
        answer
    }

    pub(super) fn commit(&self, change: &Change, now: UnixSeconds) -> Committed {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Once { key, .. }) = change.once
            && kept.done.get(&key).is_some_and(|until| *until > now)
        {
            return Committed::Repeated;
        }
        let there = |key| {
            let entry = kept.entries.get(key);
            entry.map(|entry: &Entry| (entry.version, entry.until))
        };
        let mut entries = change.entries.iter();
        if !entries.all(|replace| replace.fits(there(&replace.key), now)) {
            return Committed::Repeated;
        }
        let taken = |status: &Status| {
            let known = kept.statuses.get(&status.index);
            known.is_some_and(|known| known.until > now)
        };
        if change.statuses.iter().any(taken) {
            return Committed::Repeated;
        }
        if let Some(Once { key, until, .. }) = change.once {
            kept.done.insert(key, until);
        }
        for status in &change.statuses {
            kept.statuses.insert(status.index, status.clone());
        }
        for replace in &change.entries {
            match replace.entry() {
                Some(entry) => kept.entries.insert(replace.key, entry),
                None => kept.entries.remove(&replace.key),
            };
        }
        for revocation in &change.revocations {
            kept.revoke(revocation, now);
        }
        for (key, record) in &change.records {
            let known = kept.records.get(key);
            if known.is_none_or(|known| known.version <= record.version) {
                kept.records.insert(*key, record.clone());
            }
        }
        for message in &change.messages {
            kept.messages.insert(message.id.clone(), message.clone());
        }
        // The file has its messages elsewhere.
        if !change.messages.is_empty() {
            self.metrics.events_waiting(kept.messages.len() as u64);
        }
        self.metrics.revocations_held(kept.revocations.len());
        Committed::Done
    }

    /// The revocations that are not over.
    pub(super) fn revocations(&self, now: UnixSeconds) -> Vec<Revocation> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let revocations = kept
            .revocations
            .iter()
            .filter(|(_, (_, until))| *until > now);
        let revocations = revocations.map(|(key, (at, until))| Revocation {
            key: *key,
            at: *at,
            until: *until,
        });
        revocations.collect()
    }

    pub(super) fn revoked_statuses(&self, now: UnixSeconds) -> Vec<u32> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let revoked = |status: &&Status| {
            let mut standings = status.standings.iter();
            status.until > now && standings.any(|standing| kept.is_revoked(standing, now))
        };
        let statuses = kept.statuses.values().filter(revoked);
        statuses.map(|status| status.index).collect()
    }

    pub(super) fn due(&self, now: UnixSeconds, lease: UnixSeconds, most: usize) -> Vec<Message> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let messages = kept.messages.values_mut();
        let mut due: Vec<&mut Message> = messages.filter(|message| message.due <= now).collect();
        // Those that wait longest first, so that none waits for ever.
        due.sort_by(|one, other| (one.due, &one.id).cmp(&(other.due, &other.id)));
        due.into_iter()
            .take(most)
            .map(|message| {
                message.lease(now, lease);
                message.clone()
            })
            .collect()
    }

    pub(super) fn settle(&self, id: &str, delivery: Delivery) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        match delivery {
            Delivery::Settled => {
                kept.messages.remove(id);
                self.metrics.events_waiting(kept.messages.len() as u64);
            }
            Delivery::Again(at) => {
                if let Some(message) = kept.messages.get_mut(id) {
                    message.due = at;
                }
            }
        }
    }

    pub(super) fn sweep(&self, now: UnixSeconds) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.revocations.retain(|_, (_, until)| *until > now);
        kept.done.retain(|_, until| *until > now);
        kept.entries.retain(|_, entry| entry.until > now);
        kept.statuses.retain(|_, status| status.until > now);
        kept.records.retain(|_, record| record.until() > now);
        self.metrics.revocations_held(kept.revocations.len());
        drop(kept);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.sweep(now);
    }
}
