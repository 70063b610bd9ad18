//! The epoch of a store: as long as it stays the same, nothing is known to have been lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// An epoch that this process has entered.
#[derive(Debug)]
pub(super) struct Epoch {
    /// As the store has it: see `enter.lua`.
    pub(super) text: String,
    /// How many changes are known to have been made in it; shared by all values of one id.
    count: Arc<AtomicI64>,
}

impl Epoch {
    pub(super) fn new(text: String, count: i64, before: Option<&Self>) -> Self {
        let mut epoch = Self {
            text,
            count: Arc::new(AtomicI64::new(count)),
        };
        if let Some(before) = before.filter(|before| before.id() == epoch.id()) {
            epoch.count = Arc::clone(&before.count);
            epoch.made(count);
        }
        epoch
    }

    /// What stays the same as long as nothing is lost.
    pub(super) fn id(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }

    /// When what was lost could have been known, in milliseconds; 0 where nothing was lost.
    pub(super) fn lost(&self) -> i64 {
        let lost = self.text.split(':').nth(1);
        lost.and_then(|number| number.parse().ok())
            .unwrap_or_default()
    }

    /// When it began, or went to another server, in milliseconds of the server's clock.
    pub(super) fn began(&self) -> i64 {
        let numbers = self.text.split(':').skip(2).take(2);
        let times = numbers.map(|number| number.parse().unwrap_or_default());
        times.max().unwrap_or_default()
    }

    pub(super) fn count(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }

    /// So many changes are known to have been made.
    pub(super) fn made(&self, count: i64) {
        self.count.fetch_max(count, Ordering::Relaxed);
    }
}
