//! The world: tokens minted all the time by every replica, and verifiers that they are shown to.
//!
//! A failure is a token that a replica minted, shown within its lifetime and the verifier's
//! leeway, and refused because the verifier lacks its key. A token that is late by the
//! verifier's own clock is not shown: that is no matter of keys.

use super::issuer::{Event, Issuer};
use super::random::Random;
use super::rules::{Class, DAY, HOUR, MINUTE, RULES, Rule};
use super::verifier::Verifier;
use std::panic::resume_unwind;
use std::thread;

/// How long a token lives: the service's default.
pub const TTL: i64 = 10 * MINUTE;
/// How long verifiers run before the new key is published: longer than any cache that ends.
const WARM_UP: i64 = 12 * HOUR;
/// The longest that is simulated before an event; what was published earlier was at its start.
const LONGEST: i64 = 8 * DAY;
/// For how long after the last change failures are counted.
const AFTERMATH: i64 = 3 * HOUR;
/// How far verifiers' clocks are from true time.
const SKEWS: [i64; 3] = [-2 * MINUTE, 0, 2 * MINUTE];
const LEEWAYS: [i64; 3] = [0, MINUTE, 5 * MINUTE];
/// The mean times between two tokens: busy verifiers and forgotten ones.
const GAPS: [i64; 5] = [10 * MINUTE, 20 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR];

/// What is simulated. Seconds.
#[derive(Clone, Copy)]
pub struct Setup {
    pub event: Event,
    pub publish_ahead: i64,
    pub keep_after: i64,
    pub verifiers: u64,
    pub seed: u64,
}

/// What happened to tokens.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub shown: u64,
    pub refused: u64,
    pub shown_first_hour: u64,
    pub refused_first_hour: u64,
    /// The last refusal, after the event.
    pub last_refused: Option<i64>,
    /// When a verifier was last seen to hold the old key.
    pub last_trusted: Option<i64>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.shown += other.shown;
        self.refused += other.refused;
        self.shown_first_hour += other.shown_first_hour;
        self.refused_first_hour += other.refused_first_hour;
        self.last_refused = self.last_refused.max(other.last_refused);
        self.last_trusted = self.last_trusted.max(other.last_trusted);
    }

    /// Of a million tokens.
    pub fn per_million(&self) -> f64 {
        ratio(self.refused, self.shown) * 1e6
    }

    /// Of a hundred tokens of the first hour.
    pub fn percent_of_first_hour(&self) -> f64 {
        ratio(self.refused_first_hour, self.shown_first_hour) * 100.0
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What happened, by rule, in the order of [`RULES`].
pub struct Outcome {
    pub by_rule: Vec<Tally>,
    /// Until when it was looked at.
    pub end: i64,
}

impl Outcome {
    /// Of all verifiers of a class.
    pub fn of(&self, class: Class) -> Tally {
        let mut sum = Tally::default();
        for (rule, tally) in RULES.iter().zip(&self.by_rule) {
            if rule.class == class {
                sum.add(tally);
            }
        }
        sum
    }
}

impl Setup {
    /// Until when failures are counted: three hours after the old key is gone.
    fn end(&self) -> i64 {
        self.keep_after.max(DAY) + AFTERMATH
    }

    /// Plays it; each rule on a thread of its own.
    pub fn play(&self) -> Outcome {
        let end = self.end();
        let issuer = Issuer::play(self.event, self.publish_ahead, self.keep_after, end);
        let by_rule = thread::scope(|scope| {
            let running: Vec<_> = (0..)
                .zip(&RULES)
                .map(|(index, rule)| {
                    let issuer = &issuer;
                    scope.spawn(move || self.play_rule(rule, index, issuer, end))
                })
                .collect();
            let ended = running.into_iter().map(|rule| rule.join());
            ended
                .map(|tally| tally.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        Outcome { by_rule, end }
    }

    fn play_rule(&self, rule: &Rule, index: u64, issuer: &Issuer, end: i64) -> Tally {
        let mut sum = Tally::default();
        for verifier in (index..self.verifiers).step_by(RULES.len()) {
            let random = Random::of(self.seed, verifier);
            sum.add(&self.play_verifier(rule, random, issuer, end));
        }
        sum
    }

    fn play_verifier(&self, rule: &Rule, mut random: Random, issuer: &Issuer, end: i64) -> Tally {
        let known_before = match self.event {
            Event::Planned => LONGEST,
            Event::Asked => self.publish_ahead.min(LONGEST),
            Event::Forced | Event::Revoked | Event::Stolen => 0,
        };
        let start = -known_before - WARM_UP;
        let skew = random.one_of(&SKEWS).copied().unwrap_or_default();
        let leeway = random.one_of(&LEEWAYS).copied().unwrap_or_default();
        let gap = random.one_of(&GAPS).copied().unwrap_or(HOUR);
        let mut verifier = Verifier::new(rule, issuer, random.fork(), start);
        let mut tally = Tally::default();
        let mut now = start + random.below(2 * gap);
        while now < end {
            // Any replica's token, of any age at which this verifier's clock finds it good.
            if let Some(replica) = random.one_of(&issuer.replicas) {
                let oldest = TTL + leeway + replica.skew - skew;
                let minted = now - random.below(oldest);
                let accepted = verifier.accepts(replica.signs(minted), now);
                tally.count(now, accepted);
                if verifier.trusts(issuer.old) {
                    tally.last_trusted = Some(now);
                }
            }
            now += 1 + random.below(2 * gap);
        }
        tally
    }
}

impl Tally {
    fn count(&mut self, now: i64, accepted: bool) {
        // A replica whose clock is fast rotates a minute before its time.
        if now < -5 * MINUTE {
            return;
        }
        self.shown += 1;
        self.refused += u64::from(!accepted);
        if (0..HOUR).contains(&now) {
            self.shown_first_hour += 1;
            self.refused_first_hour += u64::from(!accepted);
        }
        if !accepted {
            self.last_refused = Some(now);
        }
    }
}
