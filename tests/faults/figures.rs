//! What came out of a scenario: counted, printed in a line, and judged.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A token that was honestly minted does not verify at a replica.
    Unverified,
    /// What may be used once was honoured again.
    Twice,
    /// What was revoked was honoured.
    Forgotten,
    /// An answer came after its deadline, or never.
    Hung,
    /// A refusal that this fault does not excuse, or a connection that broke.
    Failed,
}

/// What was counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests of clients.
    pub requests: u64,
    /// App tokens that were minted.
    pub tokens: u64,
    /// Looks at a token with the key set of one replica.
    pub verifications: u64,
    /// Session ids that were used, each tried many times.
    pub single_uses: u64,
    /// Sessions that were revoked.
    pub revocations: u64,
    /// Refusals, by code.
    pub refused: BTreeMap<String, u64>,
    /// Connections that broke without an answer.
    pub broken: u64,
    /// Faults that were made.
    pub faults: u64,
    longest: Duration,
    /// How long it took at most until all was well again after a fault.
    recovered: Duration,
    violations: BTreeMap<Violation, u64>,
    seen: Vec<String>,
}

/// The figures of one scenario, shared by all who count.
#[derive(Clone)]
pub struct Figures {
    scenario: &'static str,
    seed: u64,
    counts: Arc<Mutex<Counts>>,
}

impl Figures {
    pub fn new(scenario: &'static str, seed: u64) -> Self {
        Self {
            scenario,
            seed,
            counts: Arc::default(),
        }
    }

    pub fn count(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap()
    }

    /// An answer came after so long.
    pub fn answered(&self, after: Duration) {
        let mut counts = self.count();
        counts.longest = counts.longest.max(after);
    }

    /// After a fault all was well again after so long.
    pub fn recovered(&self, after: Duration) {
        let mut counts = self.count();
        counts.recovered = counts.recovered.max(after);
    }

    pub fn violated(&self, what: Violation, seen: impl Display) {
        let mut counts = self.count();
        *counts.violations.entry(what).or_default() += 1;
        if counts.seen.len() < 20 {
            counts.seen.push(format!("{what:?}: {seen}"));
        }
    }

    /// Prints the line, and fails where anything happened that must not.
    #[track_caller]
    pub fn conclude(&self) {
        println!("{self}");
        let counts = self.count();
        assert!(counts.tokens > 0 && counts.verifications > 0, "{self}");
        assert!(counts.violations.is_empty(), "{:#?}", counts.seen);
    }
}

impl Display for Figures {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not to be called with the counts locked.
        let Ok(counts) = self.counts.try_lock() else {
            return line.write_str(self.scenario);
        };
        let refused: Vec<String> = (counts.refused.iter())
            .map(|(code, times)| format!("{code} {times}"))
            .collect();
        write!(
            line,
            "{} (seed {}): {} faults; {} requests; {} tokens, verified {} times; \
             {} single uses; {} revocations; refused: {}; {} connections broke; \
             longest answer {:.2} s; all well again within {:.1} s; violations: {:?}",
            self.scenario,
            self.seed,
            counts.faults,
            counts.requests,
            counts.tokens,
            counts.verifications,
            counts.single_uses,
            counts.revocations,
            if refused.is_empty() {
                "none".to_owned()
            } else {
                refused.join(", ")
            },
            counts.broken,
            counts.longest.as_secs_f64(),
            counts.recovered.as_secs_f64(),
            counts.violations,
        )
    }
}
