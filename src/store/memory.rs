//! The store in this process: everything is forgotten when it ends.

use super::{
    Answer, Change, Committed, Delivery, Key, Level, Message, Once, Question, Record, Revocation,
    Take, UnixMillis,
};
use crate::clock::UnixSeconds;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError, RwLock};

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    kept: RwLock<Kept>,
    buckets: Mutex<HashMap<Key, Bucket>>,
    messages: Mutex<BTreeMap<String, Message>>,
}

#[derive(Default)]
struct Kept {
    revocations: HashMap<Key, (UnixMillis, UnixSeconds)>,
    done: HashMap<Key, UnixSeconds>,
    records: HashMap<Key, Record>,
}

/// A token bucket as one time, in milliseconds: when it will be full again (GCRA's
/// theoretical arrival time).
struct Bucket {
    full_at: i64,
}

impl Bucket {
    fn take(&mut self, take: &Take, now: UnixSeconds) -> Level {
        let now = now * 1000;
        let window = take.window.max(1) * 1000;
        let each = (window / i64::from(take.burst.max(1))).max(1);
        let full_at = self.full_at.max(now);
        let after = full_at + each * i64::from(take.cost);
        let seconds = |millis: i64| (millis.max(0) + 999) / 1000;
        let left = |full_at: i64| {
            u32::try_from((window - (full_at - now)).max(0) / each).unwrap_or(take.burst)
        };
        if after - now > window {
            return Level {
                left: left(full_at),
                full_in: seconds(full_at - now),
                wait: Some(seconds(after - now - window).max(1)),
            };
        }
        self.full_at = after;
        Level {
            left: left(after),
            full_in: seconds(after - now),
            wait: None,
        }
    }
}

impl Memory {
    pub(super) fn ask(&self, question: Question<'_>, now: UnixSeconds) -> Answer {
        let mut answer = Answer::default();
        if !question.standings.is_empty() || !question.records.is_empty() {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            answer.revoked = question.standings.iter().position(|standing| {
                kept.revocations
                    .get(&standing.key)
                    .is_some_and(|(at, until)| *at >= standing.since && *until > now)
            });
            let records = question.records.iter();
            answer.records = records.map(|key| kept.records.get(key).cloned()).collect();
        }
        if !question.takes.is_empty() {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let takes = question.takes.iter();
            answer.levels = takes
                .map(|take| {
                    let bucket = buckets.entry(take.key).or_insert(Bucket { full_at: 0 });
                    bucket.take(take, now)
                })
                .collect();
        }
        answer
    }

    pub(super) fn commit(&self, change: &Change, now: UnixSeconds) -> Committed {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Once { key, until }) = change.once {
            if kept.done.get(&key).is_some_and(|until| *until > now) {
                return Committed::Repeated;
            }
            kept.done.insert(key, until);
        }
        for Revocation { key, at, until } in &change.revocations {
            let known = kept.revocations.entry(*key).or_insert((*at, *until));
            *known = (known.0.max(*at), known.1.max(*until));
        }
        for (key, record) in &change.records {
            let newer = kept.records.get(key);
            if newer.is_none_or(|known| known.version <= record.version) {
                kept.records.insert(*key, record.clone());
            }
        }
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        for message in &change.messages {
            messages.insert(message.id.clone(), message.clone());
        }
        Committed::Done
    }

    pub(super) fn due(&self, now: UnixSeconds, lease: UnixSeconds, most: usize) -> Vec<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let due = messages.values_mut().filter(|message| message.due <= now);
        due.take(most)
            .map(|message| {
                message.due = now + lease;
                message.attempts += 1;
                message.clone()
            })
            .collect()
    }

    pub(super) fn settle(&self, id: &str, delivery: Delivery) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match delivery {
            Delivery::Settled => {
                messages.remove(id);
            }
            Delivery::Again(at) => {
                if let Some(message) = messages.get_mut(id) {
                    message.due = at;
                }
            }
        }
    }

    pub(super) fn sweep(&self, now: UnixSeconds) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.revocations.retain(|_, (_, until)| *until > now);
        kept.done.retain(|_, until| *until > now);
        drop(kept);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, bucket| bucket.full_at > now * 1000);
    }
}
