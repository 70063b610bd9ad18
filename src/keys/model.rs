//! The protocol of replicas that share a ring, checked as a whole: a Redis that forgets, falls
//! back and answers to nobody, replicas that are cut off, crash and start, and operators, in any
//! order that a schedule has. It drives the real `decide`, `Ring` and `Seen`.
//!
//! Why random schedules that shrink (proptest): what is checked is a protocol between
//! processes, so loom and shuttle, which interleave the threads of one, do not fit; and what
//! breaks it lies hours apart on a clock, after tens of steps, where an exhaustive search
//! (stateright) would need times and rings made so small that the state machine that runs would
//! no longer be the one that is checked. The flaws show that it finds what it is for.

#[cfg(test)]
mod checked {
    use crate::keys::lineage::{Found, Step as Decision, decide};
    use crate::keys::ring::{Fresh, Ring, Schedule, State};
    use crate::keys::seen::Seen;
    use jsonwebtoken::Algorithm::{self, ES256};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    use std::collections::{HashMap, HashSet};
    use std::convert::Infallible;
    use zeroize::Zeroizing;

    /// The lifetime of a token: with the spare time of 300 s and what the clock is off, as long as
    /// a key is kept after it signed.
    const TTL: i64 = 560;
    const SKEW: i64 = 20;
    const SCHEDULE: Schedule = Schedule {
        rotate_every: 10_000,
        publish_ahead: 1000,
        keep_after: 900,
    };
    const ALGORITHMS: [Algorithm; 1] = [ES256];
    const REPLICAS: usize = 3;

    /// What is left out of the protocol, to see that the check finds it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Flaw {
        None,
        /// A write does not look at the version that is there.
        NoFence,
        /// A write comes long after the read.
        LateWrite,
        /// What is found is taken, whatever it is.
        TakeAnything,
        /// Where nothing is found, a ring is made anew.
        BeginAnew,
        /// The active key signs, seen or not.
        SignUnseen,
        /// What is cut off never goes by the time.
        NoTime,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(i64),
        Read(usize),
        Write(usize),
        /// The write is made and its answer lost.
        LoseAnswer(usize),
        Cut(usize),
        Mend(usize),
        Crash(usize),
        Start(usize),
        /// Started without its local copy.
        StartBare(usize),
        Rotate,
        Revoke(usize),
        Flush,
        /// The server falls back to a save before.
        Rollback(usize),
        /// The server's clock steps.
        Skew,
        /// Everything is mended, and all have looked.
        Settle,
    }

    fn step() -> impl Strategy<Value = Step> {
        let replica = || 0..REPLICAS;
        prop_oneof![
            4 => (1_i64..600).prop_map(Step::Wait),
            2 => (600_i64..6000).prop_map(Step::Wait),
            8 => replica().prop_map(Step::Read),
            6 => replica().prop_map(Step::Write),
            1 => replica().prop_map(Step::LoseAnswer),
            2 => replica().prop_map(Step::Cut),
            2 => replica().prop_map(Step::Mend),
            1 => replica().prop_map(Step::Crash),
            3 => replica().prop_map(Step::Start),
            1 => replica().prop_map(Step::StartBare),
            1 => Just(Step::Rotate),
            1 => (0_usize..6).prop_map(Step::Revoke),
            1 => Just(Step::Flush),
            1 => (0_usize..6).prop_map(Step::Rollback),
            1 => Just(Step::Skew),
            2 => Just(Step::Settle),
        ]
    }

    #[derive(Default)]
    struct Replica {
        runs: bool,
        cut: bool,
        held: Option<Ring>,
        seen: Seen,
        /// Whether it publishes what it holds.
        publishes: bool,
        copy: Option<Ring>,
        /// What it is about to write, over which version, and when it read that.
        writes: Option<(String, Ring, i64)>,
        /// The time of the server less the true time, as it knows it.
        skew: i64,
        contact: i64,
        /// Whether somebody asked for a rotation since.
        missed_rotation: bool,
        /// Since when it publishes each key, as it is to count it.
        since: HashMap<String, i64>,
    }

    /// A token that lives, and who minted it.
    struct Minted {
        kid: String,
        until: i64,
        by: usize,
        by_one_in_contact: bool,
        /// Whether who minted it has ended since: what it held last may have gone with it.
        orphaned: bool,
    }

    struct World {
        flaw: Flaw,
        now: i64,
        skew: i64,
        made: u32,
        there: Option<Ring>,
        saves: Vec<Ring>,
        replicas: Vec<Replica>,
        tokens: Vec<Minted>,
        /// Since when each key is in the shared document, lost in between or not.
        published: HashMap<String, i64>,
        revoked: HashSet<String>,
        /// Keys that signed before their time, for want of another.
        excused: HashSet<String>,
        /// Keys that nobody has any more: the last who did lost its copy.
        lost: HashSet<String>,
        /// Versions that were written over; each once, unless the server forgot.
        replaced: HashSet<String>,
        /// Whether the server never lost anything.
        faithful: bool,
        bare: u32,
    }

    type Checked = Result<(), TestCaseError>;

    impl World {
        fn new(flaw: Flaw) -> Self {
            Self {
                flaw,
                now: 1_700_000_000,
                skew: 0,
                made: 0,
                there: None,
                saves: Vec::new(),
                replicas: (0..REPLICAS).map(|_| Replica::default()).collect(),
                tokens: Vec::new(),
                published: HashMap::new(),
                revoked: HashSet::new(),
                excused: HashSet::new(),
                lost: HashSet::new(),
                replaced: HashSet::new(),
                faithful: true,
                bare: 0,
            }
        }

        fn version(&self) -> String {
            self.there.as_ref().map(Ring::version).unwrap_or_default()
        }

        /// The ring that follows from what one holds and what is there, changed and moved on, and
        /// whether it must be written.
        fn proposal(
            &mut self,
            held: Option<&Ring>,
            signs: bool,
            change: impl FnOnce(&mut Ring, i64),
        ) -> (Ring, bool) {
            let now = self.now + self.skew;
            let found = self.there.as_ref().map_or(Found::Nothing, Found::Ring);
            let decision = match (self.flaw, &self.there) {
                (Flaw::TakeAnything, Some(_)) => Decision::Take,
                (Flaw::BeginAnew, None) => Decision::Begin,
                _ => decide(held, signs, &found, now, &SCHEDULE),
            };
            let (mut ring, mut write) = match (decision, held, &self.there) {
                (Decision::Begin, ..) => {
                    self.made += 1;
                    let ring = Ring {
                        pseudonym_key: Zeroizing::new(self.made.to_be_bytes().to_vec()),
                        ..Ring::default()
                    };
                    (ring, true)
                }
                (Decision::Merge(ring), ..) => (ring, true),
                (Decision::Keep, Some(held), _) => (held.clone(), false),
                (Decision::PutBack, Some(held), _) => (held.clone(), true),
                (_, _, Some(found)) => (found.clone(), false),
                _ => unreachable!("there is nothing to refuse here"),
            };
            let (generation, newborn) = (ring.generation, ring.keys.is_empty());
            change(&mut ring, now);
            let made = &mut self.made;
            let mut generate = |_| {
                *made += 1;
                Ok::<_, Infallible>(Fresh {
                    kid: format!("key-{made}"),
                    pkcs8: Zeroizing::new(Vec::new()),
                })
            };
            ring.tick(now, &SCHEDULE, &ALGORITHMS, &mut generate)
                .unwrap();
            write |= ring.generation != generation;
            if write {
                self.made += 1;
                ring.mark(format!("save-{}", self.made));
            }
            if newborn {
                let kids = ring.keys.iter().map(|key| key.kid.clone());
                self.excused.extend(kids);
            }
            (ring, write)
        }

        /// Writes, if what is there is still what was read.
        fn write(&mut self, version: &str, ring: &Ring) -> Result<bool, TestCaseError> {
            if self.version() != version && self.flaw != Flaw::NoFence {
                return Ok(false);
            }
            prop_assert!(ring.is_sound());
            if !version.is_empty() {
                let first = self.replaced.insert(version.to_owned());
                prop_assert!(first, "two changes of {version} both won");
            }
            if let Some(there) = self.there.as_ref().filter(|_| self.faithful) {
                prop_assert!(ring.generation > there.generation, "a generation went back");
            }
            for key in &ring.keys {
                self.published.entry(key.kid.clone()).or_insert(self.now);
            }
            self.saves.push(ring.clone());
            self.there = Some(ring.clone());
            Ok(true)
        }

        fn adopt(&mut self, index: usize, ring: Ring) -> Checked {
            let (now, skew) = (self.now, self.skew);
            let replica = &mut self.replicas[index];
            if let Some(held) = replica.held.as_ref().filter(|_| self.flaw == Flaw::None) {
                prop_assert!(ring.generation >= held.generation, "a generation went back");
            }
            replica.skew = skew;
            replica.contact = now;
            replica.missed_rotation = false;
            replica.copy = Some(ring.clone());
            replica.held = Some(ring);
            replica.publishes = true;
            Ok(())
        }

        fn read(&mut self, index: usize) -> Checked {
            let replica = &self.replicas[index];
            if !replica.runs || replica.cut {
                return Ok(());
            }
            let (held, signs) = (replica.held.clone(), replica.publishes);
            let version = self.version();
            let (ring, write) = self.proposal(held.as_ref(), signs, |_, _| ());
            if write {
                self.replicas[index].writes = Some((version, ring, self.now));
                Ok(())
            } else {
                self.replicas[index].writes = None;
                self.adopt(index, ring)
            }
        }

        fn finish(&mut self, index: usize, answered: bool) -> Checked {
            let Some((version, ring, read_at)) = self.replicas[index].writes.take() else {
                return Ok(());
            };
            let replica = &self.replicas[index];
            let in_time =
                self.now + self.skew - read_at <= 10 + SKEW || self.flaw == Flaw::LateWrite;
            if in_time && replica.runs && !replica.cut && self.write(&version, &ring)? && answered {
                self.adopt(index, ring)?;
            }
            Ok(())
        }

        /// What an operator does: read, change and write, again and again until it is done.
        fn operate(&mut self, change: impl FnOnce(&mut Ring, i64)) -> Checked {
            if self.there.is_none() {
                return Ok(());
            }
            let version = self.version();
            let (ring, write) = self.proposal(None, false, change);
            if write {
                self.write(&version, &ring)?;
            }
            Ok(())
        }

        fn start(&mut self, index: usize, bare: bool) {
            let replica = &mut self.replicas[index];
            if replica.runs {
                return;
            }
            for token in self.tokens.iter_mut().filter(|token| token.by == index) {
                token.orphaned = true;
            }
            let copy = replica.copy.take().filter(|_| !bare);
            *replica = Replica {
                runs: true,
                cut: replica.cut,
                held: copy.clone(),
                copy,
                skew: self.skew,
                contact: if bare { i64::MIN } else { replica.contact },
                missed_rotation: replica.missed_rotation,
                // Away from Redis, what it has is the copy.
                publishes: replica.cut,
                ..Replica::default()
            };
            if bare {
                self.note_lost();
            }
        }

        /// Keys that stand nowhere any more.
        fn note_lost(&mut self) {
            let replicas = self.replicas.iter();
            let rings = replicas.flat_map(|each| [&each.held, &each.copy]);
            let known: HashSet<&str> = rings
                .chain([&self.there])
                .flatten()
                .flat_map(|ring| ring.keys.iter().map(|key| key.kid.as_str()))
                .collect();
            let minted = self.tokens.iter().map(|token| &token.kid);
            let lost: Vec<String> = minted
                .filter(|kid| !known.contains(kid.as_str()))
                .cloned()
                .collect();
            self.lost.extend(lost);
        }

        fn view(&self, index: usize) -> Option<Ring> {
            let replica = &self.replicas[index];
            let held = replica.held.as_ref()?;
            if !replica.runs || !replica.publishes {
                return None;
            }
            let lag = match self.flaw {
                Flaw::NoTime => i64::MAX / 2,
                _ => SCHEDULE.spare(),
            };
            Some(held.as_of(self.now + replica.skew - lag, &SCHEDULE))
        }

        /// Each that runs publishes what it has, and mints a token.
        fn mint(&mut self) -> Checked {
            for index in 0..REPLICAS {
                let Some(view) = self.view(index) else {
                    continue;
                };
                let (now, unseen) = (self.now, self.flaw == Flaw::SignUnseen);
                let replica = &mut self.replicas[index];
                let fresh = replica.since.is_empty();
                let time = now + replica.skew;
                replica.seen.note(&view, time, now);
                let since = view.keys.iter().map(|key| {
                    let known = replica.since.get(&key.kid).copied();
                    let first = if fresh {
                        key.published_at.min(now)
                    } else {
                        now
                    };
                    (key.kid.clone(), known.unwrap_or(first))
                });
                replica.since = since.collect();
                let signer = replica.seen.signer(&view, ES256, time, now, &SCHEDULE);
                let signer = match view.active(ES256) {
                    active if unseen => active,
                    _ => signer,
                };
                let Some(signer) = signer else {
                    continue;
                };
                let ripe = |kid: &String| {
                    let since = replica.since.get(kid).copied();
                    since.is_some_and(|at| now + SKEW - at >= SCHEDULE.publish_ahead)
                };
                let better = view.keys.iter().find(|key| {
                    key.state == State::Retired
                        && key.activated_at.is_some()
                        && key
                            .retired_at
                            .is_some_and(|at| time < at + SCHEDULE.spare())
                        && replica
                            .since
                            .get(&key.kid)
                            .is_some_and(|at| now - SKEW - at >= SCHEDULE.publish_ahead)
                });
                prop_assert!(
                    ripe(&signer.kid) || better.is_none(),
                    "replica {index} signs with {} that it published only since {:?}",
                    signer.kid,
                    replica.since.get(&signer.kid)
                );
                let shared = self.published.get(&signer.kid).copied();
                prop_assert!(shared.is_some(), "{} was never shared", signer.kid);
                prop_assert!(
                    shared.is_some_and(|at| now + SKEW - at >= SCHEDULE.publish_ahead)
                        || self.excused.contains(&signer.kid)
                        || !self.faithful,
                    "{} signs, and is shared only since {:?}",
                    signer.kid,
                    shared
                );
                // A ring that was asked to rotate while one was cut off is the operator's affair,
                // once what signs there is kept no longer than its tokens live.
                let away = now.saturating_sub(replica.contact);
                let by_one_in_contact = away < SCHEDULE.spare()
                    || (away < SCHEDULE.rotate_every / 2 && !replica.missed_rotation);
                let token = Minted {
                    kid: signer.kid.clone(),
                    until: now + TTL,
                    by: index,
                    by_one_in_contact,
                    orphaned: false,
                };
                self.tokens.retain(|other| other.until > now);
                self.tokens.push(token);
            }
            Ok(())
        }

        /// Whether every token that lives verifies: where the server never lost anything, at all
        /// who were in contact since its key was published; when all is settled, at all.
        fn verify(&self, settled: bool) -> Checked {
            for index in 0..REPLICAS {
                let Some(view) = self.view(index) else {
                    continue;
                };
                let away = self.now.saturating_sub(self.replicas[index].contact);
                if !settled && (!self.faithful || away + SKEW >= SCHEDULE.publish_ahead) {
                    continue;
                }
                for token in self.tokens.iter().filter(|token| token.until > self.now) {
                    let known = match settled {
                        true => !token.orphaned || (token.by_one_in_contact && self.faithful),
                        false => token.by_one_in_contact && !self.excused.contains(&token.kid),
                    };
                    let excused = self.revoked.contains(&token.kid)
                        || self.lost.contains(&token.kid)
                        || !known;
                    prop_assert!(
                        excused || view.keys.iter().any(|key| key.kid == token.kid),
                        "replica {index} does not verify a token of {}, settled: {settled}",
                        token.kid
                    );
                }
            }
            Ok(())
        }

        fn settle(&mut self) -> Checked {
            for index in 0..REPLICAS {
                self.replicas[index].cut = false;
                self.start(index, false);
                self.replicas[index].writes = None;
            }
            for _ in 0..3 {
                for index in 0..REPLICAS {
                    self.read(index)?;
                    self.finish(index, true)?;
                }
            }
            let version = self.version();
            for replica in &self.replicas {
                let held = replica.held.as_ref().map(Ring::version);
                prop_assert_eq!(held.as_ref(), Some(&version), "all hold what is there");
            }
            self.verify(true)
        }

        fn run(&mut self, step: Step) -> Checked {
            match step {
                Step::Wait(seconds) => self.now += seconds,
                Step::Read(index) => self.read(index)?,
                Step::Write(index) => self.finish(index, true)?,
                Step::LoseAnswer(index) => self.finish(index, false)?,
                Step::Cut(index) => self.replicas[index].cut = true,
                Step::Mend(index) => self.replicas[index].cut = false,
                Step::Crash(index) => self.replicas[index].runs = false,
                Step::Start(index) => self.start(index, false),
                Step::StartBare(index) => {
                    self.bare += 1;
                    self.start(index, self.bare < 3);
                }
                Step::Rotate => {
                    for replica in &mut self.replicas {
                        replica.missed_rotation = true;
                    }
                    self.operate(|ring, now| {
                        ring.rotate(ES256, now, &SCHEDULE, false);
                    })?;
                }
                Step::Revoke(index) => {
                    let there = self.there.as_ref();
                    let Some(kid) = there
                        .and_then(|ring| ring.keys.get(index))
                        .map(|key| key.kid.clone())
                    else {
                        return Ok(());
                    };
                    self.revoked.insert(kid.clone());
                    self.operate(|ring, now| {
                        ring.revoke(&kid, now, &SCHEDULE);
                    })?;
                    // What signs for want of it may be new.
                    let active = self.there.as_ref().and_then(|ring| ring.active(ES256));
                    self.excused.extend(active.map(|key| key.kid.clone()));
                }
                Step::Flush => {
                    self.faithful = false;
                    self.replaced.clear();
                    self.there = None;
                    self.note_lost();
                }
                Step::Rollback(back) => {
                    let Some(index) = self.saves.len().checked_sub(back + 1) else {
                        return Ok(());
                    };
                    self.faithful = false;
                    self.replaced.clear();
                    self.there = self.saves.get(index).cloned();
                    self.note_lost();
                }
                Step::Skew => self.skew = SKEW - self.skew,
                Step::Settle => self.settle()?,
            }
            self.mint()?;
            self.verify(false)
        }
    }

    fn check(flaw: Flaw, cases: u32) -> Result<(), String> {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let steps = prop::collection::vec(step(), 1..150);
        TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        )
        .run(&steps, |steps| {
            let mut world = World::new(flaw);
            world.start(0, false);
            world.start(1, false);
            for step in steps {
                world.run(step)?;
            }
            world.settle()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn no_schedule_breaks_the_ring_that_replicas_share() {
        if let Err(error) = check(Flaw::None, 3000) {
            panic!("{error}");
        }
    }

    #[test]
    fn each_flaw_of_the_protocol_is_found() {
        for (flaw, found) in [
            (Flaw::NoFence, "went back"),
            (Flaw::LateWrite, ""),
            (Flaw::TakeAnything, "does not verify"),
            (Flaw::BeginAnew, "does not verify"),
            (Flaw::SignUnseen, "signs with"),
            (Flaw::NoTime, "does not verify"),
        ] {
            let error = check(flaw, 3000).expect_err(&format!("{flaw:?} is found"));
            assert!(error.contains(found), "{flaw:?}: {error}");
        }
    }
}
