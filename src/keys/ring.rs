//! The key ring: `next` (published, not signing) → `active` → `retired` (published, not
//! signing) → gone. A pure state machine: time and new keys are handed in.
//!
//! For each algorithm there is one active key, and a standby that was published long before
//! it will sign. What has signed stays published until the last token it signed is dead.

use crate::clock::UnixSeconds;
use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

/// The most keys published for one algorithm: `jwks-rsa` caches five.
pub const MAX_PUBLISHED: usize = 4;
/// How far a clock may have run ahead, seconds, before its times are taken back: less only
/// delays a rotation by as much.
const AHEAD: UnixSeconds = 86_400;
/// The most keys of one algorithm in a ring that two were merged into.
const MOST_MERGED: usize = 16;
/// How many `kid`s of revoked keys are remembered.
const REVOKED: usize = 64;
/// The longest lifetime of a token that this service mints, seconds.
const LONGEST_TOKEN: UnixSeconds = 3600;

/// What a key is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Published, not signing yet.
    Next,
    /// Published and signing.
    Active,
    /// Published, no longer signing.
    Retired,
}

impl State {
    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// A key and its life so far; times in Unix seconds.
#[derive(Clone)]
pub struct Key {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The private key.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// What it is doing.
    pub state: State,
    /// Since when it is published.
    pub published_at: UnixSeconds,
    /// Since when it signs, or signed.
    pub activated_at: Option<UnixSeconds>,
    /// When its successor is due.
    pub rotate_at: Option<UnixSeconds>,
    /// When it stopped signing.
    pub retired_at: Option<UnixSeconds>,
    /// Whether it signs wherever it is found, seen for long or not: its rotation was forced.
    pub forced: bool,
}

/// New key material, not yet in a ring.
#[derive(Clone)]
pub struct Fresh {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// The private key.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// How long each part of a key's life is, seconds.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long a key signs.
    pub rotate_every: UnixSeconds,
    /// How long it is published before it signs.
    pub publish_ahead: UnixSeconds,
    /// How long it is published after it signed.
    pub keep_after: UnixSeconds,
}

impl Schedule {
    /// How much longer than any token that it signed a retired key is published.
    pub fn spare(&self) -> UnixSeconds {
        // The configuration leaves every lifetime five minutes of `keep_after`.
        (self.keep_after - LONGEST_TOKEN).max(300)
    }
}

/// One save of a ring: what tells two rings that follow one another from two that part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// The generation that was saved.
    pub generation: u64,
    /// A random name.
    pub name: String,
}

/// A change that a tick made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A standby was made and is published.
    Published(String),
    /// A key signs now.
    Activated(String),
    /// A key no longer signs.
    Retired(String),
    /// A key is no longer published.
    Removed(String),
}

/// What a request to rotate led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It is done with the next tick.
    Now,
    /// The standby has not been published for long enough: at this time.
    At(UnixSeconds),
}

/// The ring.
#[derive(Clone, Default)]
pub struct Ring {
    /// Counts the changes; only ever grows.
    pub generation: u64,
    /// Keys the pseudonyms of subjects in logs.
    pub pseudonym_key: Zeroizing<Vec<u8>>,
    /// All published keys.
    pub keys: Vec<Key>,
    /// The newest saves that led here, newest last.
    pub trail: Vec<Mark>,
    /// The `kid`s of the keys revoked last, newest last: no merge brings them back.
    pub revoked: Vec<String>,
}

impl Ring {
    /// The key that signs with the algorithm.
    pub fn active(&self, algorithm: Algorithm) -> Option<&Key> {
        self.find(algorithm, State::Active)
    }

    /// The key that will sign with the algorithm.
    pub fn next(&self, algorithm: Algorithm) -> Option<&Key> {
        self.find(algorithm, State::Next)
    }

    fn find(&self, algorithm: Algorithm, state: State) -> Option<&Key> {
        self.keys
            .iter()
            .find(|key| key.algorithm == algorithm && key.state == state)
    }

    fn find_mut(&mut self, algorithm: Algorithm, state: State) -> Option<&mut Key> {
        self.keys
            .iter_mut()
            .find(|key| key.algorithm == algorithm && key.state == state)
    }

    fn published(&self, algorithm: Algorithm) -> usize {
        self.keys
            .iter()
            .filter(|key| key.algorithm == algorithm)
            .count()
    }

    /// Brings the ring to what it should be at `now` for these algorithms.
    ///
    /// # Errors
    /// Where `generate` fails; the ring is then partly moved and must be thrown away.
    pub fn tick<E>(
        &mut self,
        now: UnixSeconds,
        schedule: &Schedule,
        algorithms: &[Algorithm],
        generate: &mut dyn FnMut(Algorithm) -> Result<Fresh, E>,
    ) -> Result<Vec<Change>, E> {
        let mut changes = Vec::new();
        let settled = self.settle(now, schedule);
        let signed_before: Vec<Algorithm> = self
            .keys
            .iter()
            .filter(|key| key.state == State::Retired)
            .map(|key| key.algorithm)
            .collect();
        self.keys.retain(|key| {
            let gone = key
                .retired_at
                .is_some_and(|retired| retired + schedule.keep_after <= now);
            if gone {
                changes.push(Change::Removed(key.kid.clone()));
            }
            !gone
        });
        let mute = self.keys.iter().all(|key| key.state != State::Active);
        for &algorithm in algorithms {
            self.rotate_if_due(algorithm, now, schedule, &mut changes);
            // In a new ring nobody holds a key set of ours yet, so the first key may sign at
            // once; where the signing key was revoked, or no key signs at all, another must.
            let bereft =
                self.active(algorithm).is_none() && (mute || signed_before.contains(&algorithm));
            if bereft {
                if self.next(algorithm).is_none() {
                    let fresh = generate(algorithm)?;
                    changes.push(Change::Published(fresh.kid.clone()));
                    self.insert(fresh, algorithm, now);
                }
                self.promote(algorithm, now, schedule, &mut changes);
            }
            if self.next(algorithm).is_none() && self.published(algorithm) < MAX_PUBLISHED {
                let fresh = generate(algorithm)?;
                changes.push(Change::Published(fresh.kid.clone()));
                self.insert(fresh, algorithm, now);
            }
        }
        self.end_unused(now, algorithms, &mut changes);
        if settled || !changes.is_empty() {
            self.generation += 1;
        }
        Ok(changes)
    }

    /// Whether times lie where a clock that ran far ahead has put them.
    fn is_ahead_of(&self, now: UnixSeconds, schedule: &Schedule) -> bool {
        self.keys.iter().any(|key| {
            let latest = now + AHEAD;
            key.published_at > latest
                || key.retired_at.is_some_and(|at| at > latest)
                || key
                    .rotate_at
                    .is_some_and(|at| at > latest + schedule.rotate_every)
        })
    }

    /// Brings such times back to now: or one jump of the clock would stop rotation for as
    /// long as it jumped.
    fn settle(&mut self, now: UnixSeconds, schedule: &Schedule) -> bool {
        if !self.is_ahead_of(now, schedule) {
            return false;
        }
        for key in &mut self.keys {
            key.published_at = key.published_at.min(now);
            key.retired_at = key.retired_at.map(|at| at.min(now));
            let latest = now + schedule.rotate_every;
            key.rotate_at = key.rotate_at.map(|at| at.min(latest));
        }
        true
    }

    /// When the keys of an algorithm that no app signs with any more stop: at their next
    /// rotation, and only once every algorithm in use has a key that signs.
    fn end_of_unused(&self, key: &Key, algorithms: &[Algorithm]) -> Option<UnixSeconds> {
        let unused = !algorithms.contains(&key.algorithm);
        let replaced = algorithms.iter().all(|each| self.active(*each).is_some());
        (unused && replaced && key.state == State::Active)
            .then(|| key.rotate_at.unwrap_or(UnixSeconds::MIN))
    }

    fn end_unused(
        &mut self,
        now: UnixSeconds,
        algorithms: &[Algorithm],
        changes: &mut Vec<Change>,
    ) {
        let ended: Vec<Algorithm> = self
            .keys
            .iter()
            .filter(|key| {
                let end = self.end_of_unused(key, algorithms);
                end.is_some_and(|at| at <= now)
            })
            .map(|key| key.algorithm)
            .collect();
        self.keys.retain_mut(|key| {
            if !ended.contains(&key.algorithm) {
                return true;
            }
            match key.state {
                State::Next => changes.push(Change::Removed(key.kid.clone())),
                State::Active => {
                    key.state = State::Retired;
                    key.retired_at = Some(now);
                    changes.push(Change::Retired(key.kid.clone()));
                }
                State::Retired => {}
            }
            key.state != State::Next
        });
    }

    fn rotate_if_due(
        &mut self,
        algorithm: Algorithm,
        now: UnixSeconds,
        schedule: &Schedule,
        changes: &mut Vec<Change>,
    ) {
        let due = self
            .active(algorithm)
            .is_none_or(|active| active.rotate_at.is_none_or(|at| at <= now));
        let ready = self
            .next(algorithm)
            .is_some_and(|next| next.published_at + schedule.publish_ahead <= now);
        if due && ready {
            self.promote(algorithm, now, schedule, changes);
        }
    }

    /// The standby signs from now on, and what signed before no longer does.
    fn promote(
        &mut self,
        algorithm: Algorithm,
        now: UnixSeconds,
        schedule: &Schedule,
        changes: &mut Vec<Change>,
    ) {
        if self.next(algorithm).is_none() {
            return;
        }
        if let Some(active) = self.find_mut(algorithm, State::Active) {
            active.state = State::Retired;
            active.retired_at = Some(now);
            changes.push(Change::Retired(active.kid.clone()));
        }
        if let Some(next) = self.find_mut(algorithm, State::Next) {
            next.state = State::Active;
            next.activated_at = Some(now);
            next.rotate_at = Some(now + schedule.rotate_every);
            changes.push(Change::Activated(next.kid.clone()));
        }
    }

    fn insert(&mut self, fresh: Fresh, algorithm: Algorithm, now: UnixSeconds) {
        self.keys.push(Key {
            kid: fresh.kid,
            algorithm,
            pkcs8: fresh.pkcs8,
            state: State::Next,
            published_at: now,
            activated_at: None,
            rotate_at: None,
            retired_at: None,
            forced: false,
        });
    }

    /// The ring as time alone moves it: what is due at `now` is done, and no key is made.
    /// Whoever holds the same ring sees the same.
    #[must_use]
    pub fn as_of(&self, now: UnixSeconds, schedule: &Schedule) -> Self {
        let mut ring = self.clone();
        for key in &self.keys {
            if let Some(at) = ring.next_rotation(key.algorithm, schedule)
                && at <= now
            {
                ring.promote(key.algorithm, at, schedule, &mut Vec::new());
            }
        }
        ring.keys.retain(|key| {
            let retired = key.retired_at;
            retired.is_none_or(|at| at + schedule.keep_after > now)
        });
        ring
    }

    /// When the next tick will change something; `None` where nothing is planned.
    pub fn next_change(
        &self,
        now: UnixSeconds,
        schedule: &Schedule,
        algorithms: &[Algorithm],
    ) -> Option<UnixSeconds> {
        if self.is_ahead_of(now, schedule) {
            return Some(now);
        }
        let removals = self
            .keys
            .iter()
            .filter_map(|key| Some(key.retired_at? + schedule.keep_after));
        let rotations = algorithms
            .iter()
            .filter_map(|&algorithm| self.next_rotation(algorithm, schedule));
        let standbys = algorithms.iter().filter_map(|&algorithm| {
            let missing =
                self.next(algorithm).is_none() && self.published(algorithm) < MAX_PUBLISHED;
            missing.then_some(UnixSeconds::MIN)
        });
        let ends = self
            .keys
            .iter()
            .filter_map(|key| self.end_of_unused(key, algorithms));
        removals.chain(rotations).chain(standbys).chain(ends).min()
    }

    /// When the standby will sign.
    pub fn next_rotation(&self, algorithm: Algorithm, schedule: &Schedule) -> Option<UnixSeconds> {
        let ready = self.next(algorithm)?.published_at + schedule.publish_ahead;
        let due = self
            .active(algorithm)
            .and_then(|active| active.rotate_at)
            .unwrap_or(ready);
        Some(ready.max(due))
    }

    /// Asks for a rotation as soon as it is safe; with `force` at once, at the cost of the
    /// verifiers that have not seen the standby yet. `None` where there is no standby.
    pub fn rotate(
        &mut self,
        algorithm: Algorithm,
        now: UnixSeconds,
        schedule: &Schedule,
        force: bool,
    ) -> Option<Rotation> {
        let next = self.find_mut(algorithm, State::Next)?;
        if force {
            next.published_at = next.published_at.min(now - schedule.publish_ahead);
            next.forced = true;
        }
        if let Some(active) = self.find_mut(algorithm, State::Active) {
            active.rotate_at = active.rotate_at.map(|at| at.min(now));
        }
        self.generation += 1;
        let at = self.next_rotation(algorithm, schedule)?;
        Some(if at <= now {
            Rotation::Now
        } else {
            Rotation::At(at)
        })
    }

    /// Takes a key out at once; where it signed, the standby signs from now on, ready or
    /// not. `false` where there is no such key.
    pub fn revoke(&mut self, kid: &str, now: UnixSeconds, schedule: &Schedule) -> bool {
        let Some(position) = self.keys.iter().position(|key| key.kid == kid) else {
            return false;
        };
        let revoked = self.keys.remove(position);
        self.revoked.push(revoked.kid.clone());
        let forgotten = self.revoked.len().saturating_sub(REVOKED);
        self.revoked.drain(..forgotten);
        if revoked.state == State::Active {
            self.promote(revoked.algorithm, now, schedule, &mut Vec::new());
        }
        self.generation += 1;
        true
    }

    /// Puts a key made elsewhere in the place of the standby; in an empty ring it signs at
    /// once. `false` where the ring has it already, has revoked it, or has no room.
    pub fn import(
        &mut self,
        fresh: Fresh,
        algorithm: Algorithm,
        now: UnixSeconds,
        schedule: &Schedule,
    ) -> bool {
        if self.keys.iter().any(|key| key.kid == fresh.kid) || self.revoked.contains(&fresh.kid) {
            return false;
        }
        let standby = usize::from(self.next(algorithm).is_some());
        if self.published(algorithm) - standby >= MAX_PUBLISHED {
            return false;
        }
        let newborn = self.keys.is_empty();
        self.keys
            .retain(|key| key.algorithm != algorithm || key.state != State::Next);
        self.insert(fresh, algorithm, now);
        if newborn {
            self.promote(algorithm, now, schedule, &mut Vec::new());
        }
        self.generation += 1;
        true
    }

    /// Of an algorithm with more keys than a merge may leave, the one that retired first.
    pub fn surplus(&self) -> Option<usize> {
        let retired = self.keys.iter().enumerate().filter(|(_, key)| {
            key.state == State::Retired && self.published(key.algorithm) > MOST_MERGED
        });
        let first = retired.min_by_key(|(_, key)| key.retired_at);
        first.map(|(position, _)| position)
    }

    /// Whether the ring is one that these rules could have made.
    pub fn is_sound(&self) -> bool {
        let mut kids: Vec<&str> = self.keys.iter().map(|key| key.kid.as_str()).collect();
        kids.sort_unstable();
        kids.dedup();
        kids.len() == self.keys.len()
            && self.keys.iter().all(|key| {
                let count = |state| {
                    self.keys
                        .iter()
                        .filter(|other| other.algorithm == key.algorithm && other.state == state)
                        .count()
                };
                count(State::Active) <= 1
                    && count(State::Next) <= 1
                    && self.published(key.algorithm) <= MOST_MERGED
                    && match key.state {
                        State::Next => key.activated_at.is_none() && key.retired_at.is_none(),
                        State::Active => key.activated_at.is_some() && key.retired_at.is_none(),
                        State::Retired => key.retired_at.is_some(),
                    }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::convert::Infallible;

    const TTL: i64 = 600;
    const SCHEDULE: Schedule = Schedule {
        rotate_every: 10_000,
        publish_ahead: 1000,
        keep_after: TTL + 300,
    };
    const ALGORITHMS: [Algorithm; 2] = [Algorithm::ES256, Algorithm::EdDSA];

    /// The world around a ring: its saved form, what verifiers may hold, and what was signed.
    struct World {
        saved: Ring,
        made: u32,
        now: i64,
        /// Since when each kid is published without a break.
        published: HashMap<String, i64>,
        /// Until when each kid must stay published, for tokens that it signed.
        owed: HashMap<String, i64>,
        revoked: HashSet<String>,
        excused: HashSet<String>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(i64),
        Tick,
        TickThenCrash,
        Rotate,
        Force,
        Revoke(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_i64..2000).prop_map(Step::Wait),
            1 => (5000_i64..40_000).prop_map(Step::Wait),
            6 => Just(Step::Tick),
            2 => Just(Step::TickThenCrash),
            1 => Just(Step::Rotate),
            1 => Just(Step::Force),
            1 => (0_usize..8).prop_map(Step::Revoke),
        ]
    }

    impl World {
        fn new() -> Self {
            Self {
                saved: Ring::default(),
                made: 0,
                now: 1_700_000_000,
                published: HashMap::new(),
                owed: HashMap::new(),
                revoked: HashSet::new(),
                excused: HashSet::new(),
            }
        }

        fn change(&mut self, crash: bool, change: impl FnOnce(&mut Ring, i64)) {
            let mut ring = self.saved.clone();
            let newborn = ring.keys.is_empty();
            change(&mut ring, self.now);
            let made = &mut self.made;
            let mut generate = |algorithm: Algorithm| {
                *made += 1;
                Ok::<_, Infallible>(Fresh {
                    kid: format!("{algorithm:?}-{made}"),
                    pkcs8: Zeroizing::new(Vec::new()),
                })
            };
            ring.tick(self.now, &SCHEDULE, &ALGORITHMS, &mut generate)
                .unwrap();
            if crash {
                return;
            }
            // A first key, or one that replaces a revoked key, signs before its time.
            let bereft = ALGORITHMS.iter().any(|algorithm| {
                let before = self.saved.active(*algorithm).map(|key| &key.kid);
                before.is_some_and(|kid| self.revoked.contains(kid))
            });
            if newborn || bereft {
                self.excused
                    .extend(ring.keys.iter().map(|key| key.kid.clone()));
            }
            self.saved = ring;
            self.observe();
        }

        fn observe(&mut self) {
            let ring = &self.saved;
            assert!(ring.is_sound());
            let published: HashSet<&str> = ring.keys.iter().map(|key| key.kid.as_str()).collect();
            for (kid, until) in &self.owed {
                assert!(
                    *until <= self.now
                        || self.revoked.contains(kid)
                        || published.contains(kid.as_str()),
                    "{kid} is gone, but a token that it signed lives"
                );
            }
            self.published
                .retain(|kid, _| published.contains(kid.as_str()));
            for key in &ring.keys {
                let since = *self.published.entry(key.kid.clone()).or_insert(self.now);
                if key.state == State::Active {
                    assert!(
                        self.now - since >= SCHEDULE.publish_ahead
                            || self.excused.contains(&key.kid),
                        "{} signs, but was published only {} s ago",
                        key.kid,
                        self.now - since
                    );
                    self.owed.insert(key.kid.clone(), self.now + TTL);
                }
            }
            for algorithm in ALGORITHMS {
                assert!(ring.active(algorithm).is_some());
            }
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Wait(seconds) => self.now += seconds,
                Step::Tick => self.change(false, |_, _| ()),
                Step::TickThenCrash => self.change(true, |_, _| ()),
                Step::Rotate => self.change(false, |ring, now| {
                    ring.rotate(Algorithm::ES256, now, &SCHEDULE, false);
                }),
                Step::Force => {
                    if let Some(next) = self.saved.next(Algorithm::ES256) {
                        self.excused.insert(next.kid.clone());
                    }
                    self.change(false, |ring, now| {
                        ring.rotate(Algorithm::ES256, now, &SCHEDULE, true);
                    });
                }
                Step::Revoke(index) => {
                    let Some(kid) = self.saved.keys.get(index).map(|key| key.kid.clone()) else {
                        return;
                    };
                    self.revoked.insert(kid.clone());
                    self.change(false, |ring, now| {
                        ring.revoke(&kid, now, &SCHEDULE);
                    });
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_signed_stays_published_until_its_tokens_are_dead(
            steps in prop::collection::vec(step(), 1..80)
        ) {
            let mut world = World::new();
            world.change(false, |_, _| ());
            for step in steps {
                world.run(step);
            }
        }

        #[test]
        fn a_tick_is_due_exactly_when_it_changes_something(
            steps in prop::collection::vec(step(), 1..40)
        ) {
            let mut world = World::new();
            world.change(false, |_, _| ());
            for step in steps {
                world.run(step);
                let due = world
                    .saved
                    .next_change(world.now, &SCHEDULE, &ALGORITHMS)
                    .is_some_and(|at| at <= world.now);
                let before = world.saved.generation;
                world.change(false, |_, _| ());
                prop_assert_eq!(due, world.saved.generation > before);
            }
        }
    }

    #[test]
    fn a_jump_of_the_clock_does_not_stop_rotation() {
        let mut made = 0;
        let mut generate = |_| {
            made += 1;
            Ok::<_, Infallible>(Fresh {
                kid: made.to_string(),
                pkcs8: Zeroizing::new(Vec::new()),
            })
        };
        let mut ring = Ring::default();
        let one = &ALGORITHMS[..1];
        let years = 100_000_000;
        for now in [0, years] {
            ring.tick(now, &SCHEDULE, one, &mut generate).unwrap();
        }
        assert_eq!(ring.next_change(10, &SCHEDULE, one), Some(10));
        ring.tick(10, &SCHEDULE, one, &mut generate).unwrap();
        let due = 10 + SCHEDULE.rotate_every;
        assert_eq!(ring.next_rotation(one[0], &SCHEDULE), Some(due));
    }

    #[test]
    fn an_algorithm_that_is_no_longer_used_ends_at_its_next_rotation() {
        let mut made = 0;
        let mut generate = |_| {
            made += 1;
            Ok::<_, Infallible>(Fresh {
                kid: made.to_string(),
                pkcs8: Zeroizing::new(Vec::new()),
            })
        };
        let (both, one) = (&ALGORITHMS[..], &ALGORITHMS[..1]);
        let mut ring = Ring::default();
        ring.tick(0, &SCHEDULE, both, &mut generate).unwrap();
        let due = SCHEDULE.rotate_every;
        ring.tick(due - 1, &SCHEDULE, one, &mut generate).unwrap();
        assert!(ring.active(Algorithm::EdDSA).is_some());
        assert_eq!(ring.next_change(due - 1, &SCHEDULE, one), Some(due));
        ring.tick(due, &SCHEDULE, one, &mut generate).unwrap();
        assert!(ring.active(Algorithm::EdDSA).is_none());
        assert!(ring.next(Algorithm::EdDSA).is_none());
        assert_eq!(ring.published(Algorithm::EdDSA), 1);
        let gone = due + SCHEDULE.keep_after;
        ring.tick(gone, &SCHEDULE, one, &mut generate).unwrap();
        assert_eq!(ring.published(Algorithm::EdDSA), 0);
        assert!(ring.active(Algorithm::ES256).is_some());
    }

    #[test]
    fn an_algorithm_added_to_a_ring_is_published_before_it_signs() {
        let mut ring = Ring::default();
        let mut generate = |algorithm: Algorithm| {
            Ok::<_, Infallible>(Fresh {
                kid: format!("{algorithm:?}"),
                pkcs8: Zeroizing::new(Vec::new()),
            })
        };
        ring.tick(0, &SCHEDULE, &ALGORITHMS[..1], &mut generate)
            .unwrap();
        let mut ring = Ring {
            keys: ring.keys.drain(..1).collect(),
            ..ring
        };
        ring.tick(1, &SCHEDULE, &ALGORITHMS[1..], &mut generate)
            .unwrap();
        assert!(ring.active(Algorithm::EdDSA).is_none());
        ring.tick(1001, &SCHEDULE, &ALGORITHMS[1..], &mut generate)
            .unwrap();
        assert!(ring.active(Algorithm::EdDSA).is_some());
    }

    const ES256: Algorithm = Algorithm::ES256;

    fn fresh(kid: &str) -> Fresh {
        Fresh {
            kid: kid.to_owned(),
            pkcs8: Zeroizing::new(Vec::new()),
        }
    }

    /// A key whose times are 0, as far as its state has them.
    fn key(kid: impl std::fmt::Display, state: State) -> Key {
        Key {
            kid: kid.to_string(),
            algorithm: ES256,
            pkcs8: Zeroizing::new(Vec::new()),
            state,
            published_at: 0,
            activated_at: (state != State::Next).then_some(0),
            rotate_at: None,
            retired_at: (state == State::Retired).then_some(0),
            forced: false,
        }
    }

    fn ring(keys: Vec<Key>) -> Ring {
        Ring {
            keys,
            ..Ring::default()
        }
    }

    fn retired(count: usize) -> Vec<Key> {
        (0..count).map(|each| key(each, State::Retired)).collect()
    }

    fn kids(ring: &Ring) -> Vec<&str> {
        ring.keys.iter().map(|key| key.kid.as_str()).collect()
    }

    #[test]
    fn a_ring_is_sound_where_these_rules_could_have_made_it() {
        let (next, active, old) = (State::Next, State::Active, State::Retired);
        let of_other = Key {
            algorithm: Algorithm::EdDSA,
            ..key("e", active)
        };
        for keys in [
            Vec::new(),
            vec![
                key("a", next),
                key("b", active),
                key("c", old),
                key("d", old),
            ],
            vec![key("a", active), of_other],
            retired(MOST_MERGED),
        ] {
            assert!(ring(keys).is_sound());
        }
        let never_signed = Key {
            activated_at: None,
            ..key("a", old)
        };
        assert!(ring(vec![never_signed]).is_sound(), "it stood by");
        for keys in [
            vec![key("a", active), key("b", active)],
            vec![key("a", next), key("b", next)],
            vec![key("a", active), key("a", old)],
            retired(MOST_MERGED + 1),
            vec![Key {
                activated_at: Some(0),
                ..key("a", next)
            }],
            vec![Key {
                retired_at: Some(0),
                ..key("a", next)
            }],
            vec![Key {
                activated_at: None,
                ..key("a", active)
            }],
            vec![Key {
                retired_at: Some(0),
                ..key("a", active)
            }],
            vec![Key {
                retired_at: None,
                ..key("a", old)
            }],
        ] {
            assert!(!ring(keys).is_sound());
        }
    }

    #[test]
    fn a_key_made_elsewhere_stands_by_and_signs_at_once_in_an_empty_ring_alone() {
        let mut ring = Ring::default();
        assert!(ring.import(fresh("a"), ES256, 5, &SCHEDULE));
        assert_eq!(ring.active(ES256).map(|key| key.kid.as_str()), Some("a"));
        assert!(!ring.import(fresh("a"), ES256, 5, &SCHEDULE), "it is there");
        assert!(ring.import(fresh("b"), ES256, 5, &SCHEDULE));
        assert!(ring.import(fresh("e"), Algorithm::EdDSA, 5, &SCHEDULE));
        assert!(ring.active(Algorithm::EdDSA).is_none());
        assert!(ring.import(fresh("c"), ES256, 5, &SCHEDULE));
        assert_eq!(kids(&ring), ["a", "e", "c"], "one stands by");
        assert_eq!(ring.generation, 4);
        assert!(ring.revoke("c", 5, &SCHEDULE));
        assert!(!ring.import(fresh("c"), ES256, 5, &SCHEDULE), "revoked");
        assert_eq!(ring.generation, 5);
        ring.keys.extend(retired(MAX_PUBLISHED - 2));
        for standby in ["d", "g"] {
            assert!(
                ring.import(fresh(standby), ES256, 5, &SCHEDULE),
                "full, but for it"
            );
        }
        ring.keys.push(key("x", State::Retired));
        let before = kids(&ring).join(" ");
        assert!(!ring.import(fresh("f"), ES256, 5, &SCHEDULE), "no room");
        assert_eq!(kids(&ring).join(" "), before, "the standby stays");
        assert_eq!(ring.generation, 7);
    }

    #[test]
    fn a_revoked_key_is_gone_and_its_kid_remembered_among_the_last() {
        let mut ring = ring(retired(REVOKED + 1));
        ring.keys
            .extend([key("a", State::Active), key("b", State::Next)]);
        for each in 0..=REVOKED {
            assert!(ring.revoke(&each.to_string(), 7, &SCHEDULE));
        }
        assert_eq!(ring.generation, REVOKED as u64 + 1);
        assert_eq!(ring.revoked.len(), REVOKED);
        assert_eq!(ring.revoked[0], "1");
        assert_eq!(kids(&ring), ["a", "b"]);
        assert!(
            ring.next(ES256).is_some(),
            "what did not sign is replaced by none"
        );
        assert!(!ring.revoke("0", 7, &SCHEDULE));
        assert_eq!(ring.generation, REVOKED as u64 + 1);
        assert!(ring.revoke("a", 7, &SCHEDULE));
        let active = ring.active(ES256).unwrap();
        assert_eq!((active.kid.as_str(), active.activated_at), ("b", Some(7)));
        assert_eq!(active.rotate_at, Some(7 + SCHEDULE.rotate_every));
    }

    #[test]
    fn of_too_many_merged_keys_the_one_that_retired_first_is_too_much() {
        let mut ring = ring(retired(MOST_MERGED));
        ring.keys[3].retired_at = Some(-1);
        assert_eq!(ring.surplus(), None);
        ring.keys.insert(0, key("a", State::Active));
        assert_eq!(ring.surplus(), Some(4));
    }

    #[test]
    fn time_alone_moves_a_ring_without_making_a_key() {
        let active = Key {
            rotate_at: Some(100),
            ..key("a", State::Active)
        };
        let ring = ring(vec![active, key("b", State::Next)]);
        let due = SCHEDULE.publish_ahead;
        assert_eq!(ring.next_rotation(ES256, &SCHEDULE), Some(due));
        let before = ring.as_of(due - 1, &SCHEDULE);
        assert_eq!(before.active(ES256).unwrap().kid, "a");
        let moved = ring.as_of(due, &SCHEDULE);
        assert_eq!(moved.active(ES256).unwrap().kid, "b");
        assert_eq!(
            moved.find(ES256, State::Retired).unwrap().retired_at,
            Some(due)
        );
        let gone = due + SCHEDULE.keep_after;
        assert_eq!(kids(&ring.as_of(gone - 1, &SCHEDULE)), ["a", "b"]);
        assert_eq!(kids(&ring.as_of(gone, &SCHEDULE)), ["b"]);
        assert_eq!(ring.as_of(gone, &SCHEDULE).generation, ring.generation);
    }

    #[test]
    fn no_standby_is_made_where_as_many_are_published_as_may_be() {
        let mut generate = |_| Ok::<_, Infallible>(fresh("new"));
        let active = || Key {
            rotate_at: Some(SCHEDULE.rotate_every),
            ..key("a", State::Active)
        };
        for (old, made) in [(MAX_PUBLISHED - 1, 0), (MAX_PUBLISHED - 2, 1)] {
            let mut ring = ring(retired(old));
            ring.keys.push(active());
            let due = ring.next_change(1, &SCHEDULE, &[ES256]);
            let planned = if made == 0 {
                SCHEDULE.keep_after
            } else {
                i64::MIN
            };
            assert_eq!(due, Some(planned));
            let changes = ring.tick(1, &SCHEDULE, &[ES256], &mut generate).unwrap();
            assert_eq!(changes, vec![Change::Published("new".to_owned()); made]);
            assert_eq!(ring.generation, made as u64);
        }
    }

    #[test]
    fn times_are_taken_back_where_they_lie_a_day_ahead_and_no_sooner() {
        let mut generate = |_| Ok::<_, Infallible>(fresh("new"));
        let now = 5000;
        let latest = now + AHEAD;
        for ahead in [0, 1] {
            let next = Key {
                published_at: latest + ahead,
                ..key("n", State::Next)
            };
            let old = Key {
                retired_at: Some(latest + ahead),
                ..key("o", State::Retired)
            };
            let active = Key {
                rotate_at: Some(latest + SCHEDULE.rotate_every + ahead),
                ..key("a", State::Active)
            };
            for odd in [next, old, active] {
                let (mut ring, state) = (ring(vec![odd.clone()]), odd.state);
                let due = ring.next_change(now, &SCHEDULE, &[]) == Some(now);
                assert_eq!(due, ahead == 1, "{state:?}");
                ring.tick(now, &SCHEDULE, &[], &mut generate).unwrap();
                assert_eq!(ring.generation, u64::from(due), "{state:?}");
                let settled = &ring.keys[0];
                let (published, retired, rotated) = match due {
                    true => (now, now, now + SCHEDULE.rotate_every),
                    false => (latest, latest, latest + SCHEDULE.rotate_every),
                };
                match state {
                    State::Next => assert_eq!(settled.published_at, published),
                    State::Retired => assert_eq!(settled.retired_at, Some(retired)),
                    State::Active => assert_eq!(settled.rotate_at, Some(rotated)),
                }
            }
        }
    }

    #[test]
    fn a_rotation_waits_for_the_standby_and_a_forced_one_does_not() {
        let active = Key {
            rotate_at: Some(50_000),
            ..key("a", State::Active)
        };
        let standby = |published_at| Key {
            published_at,
            ..key("b", State::Next)
        };
        let asked = |published_at, force| {
            let mut ring = ring(vec![active.clone(), standby(published_at)]);
            let rotation = ring.rotate(ES256, 5000, &SCHEDULE, force);
            assert_eq!(ring.generation, 1);
            let (active, next) = (ring.active(ES256).unwrap(), ring.next(ES256).unwrap());
            assert_eq!((active.rotate_at, next.forced), (Some(5000), force));
            (rotation, next.published_at)
        };
        assert_eq!(asked(4000, false), (Some(Rotation::Now), 4000));
        assert_eq!(asked(4001, false), (Some(Rotation::At(5001)), 4001));
        assert_eq!(asked(4001, true), (Some(Rotation::Now), 4000));
        assert_eq!(asked(3000, true), (Some(Rotation::Now), 3000));
        let mut alone = ring(vec![active]);
        assert_eq!(alone.rotate(ES256, 5000, &SCHEDULE, true), None);
    }

    #[test]
    fn a_retired_key_stays_for_as_long_as_a_token_may_live_and_five_minutes() {
        let spare = |keep_after| {
            Schedule {
                keep_after,
                ..SCHEDULE
            }
            .spare()
        };
        assert_eq!([spare(900), spare(3900), spare(5000)], [300, 300, 1400]);
    }
}
