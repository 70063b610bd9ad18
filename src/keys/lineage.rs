//! What a ring that is found has to do with the one that is held, and what follows: the
//! decisions of replicas that share a ring, pure.
//!
//! A ring goes from save to save, each with a [`Mark`]. Of two rings where one has the mark of
//! the other in its trail, that one is newer. Where neither has, they have parted: a place was
//! emptied and a ring made anew, or a server fell back to before a change. Then the one of the
//! higher generation goes on, and takes the other's keys along as retired ones, so that no
//! token that was honestly minted fails.

use super::ring::{Mark, Ring, Schedule, State};
use crate::clock::UnixSeconds;

/// How many saves a ring remembers: one that was cut off for longer is taken for older.
const TRAIL: usize = 32;

/// What lies in the shared place.
pub enum Found<'r> {
    /// No ring.
    Nothing,
    /// Something that was not written so: damaged, or tampered with.
    Damaged,
    /// A ring.
    Ring(&'r Ring),
}

/// What to do about it.
pub enum Step {
    /// What is held is what is there.
    Keep,
    /// What is there comes after what is held: it is taken over.
    Take,
    /// What is held is newer than what is there, or nothing good is: it is put there again.
    PutBack,
    /// Both have what the other must keep: this is put there, both in one.
    Merge(Ring),
    /// There is no ring anywhere: the first one is made, when the others had time to put
    /// theirs back.
    Begin,
    /// What is there is no good, and there is nothing to put in its place.
    Refuse,
}

/// How one ring is related to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are one save.
    Same,
    /// The other comes after it.
    Newer,
    /// The other comes before it.
    Older,
    /// Neither comes after the other.
    Apart,
}

/// Decides what follows from what is held and what is found; `signs` is whether the holder has
/// signed with what it holds.
pub fn decide(
    held: Option<&Ring>,
    signs: bool,
    found: &Found<'_>,
    now: UnixSeconds,
    schedule: &Schedule,
) -> Step {
    match (held, found) {
        (None, Found::Nothing) => Step::Begin,
        (None, Found::Damaged) => Step::Refuse,
        (None, Found::Ring(_)) => Step::Take,
        (Some(_), Found::Nothing | Found::Damaged) => Step::PutBack,
        (Some(held), Found::Ring(found)) => match held.relation_of(found) {
            Relation::Same => Step::Keep,
            Relation::Newer => {
                let mut ring = Ring::clone(found);
                if signs && keep_up(&mut ring, held, now, schedule) {
                    ring.generation += 1;
                    Step::Merge(ring)
                } else {
                    Step::Take
                }
            }
            Relation::Older => Step::PutBack,
            Relation::Apart => Step::Merge(merged(held, found, now, schedule)),
        },
    }
}

/// Publishes on what has signed by another ring, for as long as its tokens live, where this one
/// does not or would end it sooner: one was cut off, or a server fell back to a rotation that was
/// lost. Gives whether it was needed.
fn keep_up(ring: &mut Ring, other: &Ring, now: UnixSeconds, schedule: &Schedule) -> bool {
    let mut needed = false;
    let other = other.as_of(now - schedule.spare(), schedule);
    for mut key in other.keys {
        // It signs until now, or did until it retired by the time.
        let (until, from) = match key.retired_at {
            None if key.state == State::Active => (now, now - schedule.spare() + 1),
            Some(at) if at + schedule.keep_after > now => (at, at),
            _ => continue,
        };
        match ring.keys.iter_mut().find(|known| known.kid == key.kid) {
            Some(known) => {
                if known.retired_at.is_some_and(|at| at < from) {
                    known.retired_at = Some(until);
                    needed = true;
                }
            }
            None if ring.revoked.contains(&key.kid) => {}
            None => {
                key.state = State::Retired;
                key.retired_at = Some(until);
                ring.keys.push(key);
                needed = true;
            }
        }
    }
    needed
}

/// Both in one: the ring of the higher generation, and the other's keys as retired ones.
fn merged(held: &Ring, found: &Ring, now: UnixSeconds, schedule: &Schedule) -> Ring {
    let (mut ring, other) = if held.generation > found.generation {
        (held.clone(), found)
    } else {
        (found.clone(), held)
    };
    ring.revoked.extend(other.revoked.iter().cloned());
    ring.revoked.sort_unstable();
    ring.revoked.dedup();
    keep_up(&mut ring, other, now, schedule);
    let known: Vec<String> = ring.keys.iter().map(|key| key.kid.clone()).collect();
    let missing = other.keys.iter().filter(|key| !known.contains(&key.kid));
    ring.keys.extend(missing.cloned().map(|mut key| {
        key.state = State::Retired;
        key.retired_at.get_or_insert(now);
        key
    }));
    let revoked = std::mem::take(&mut ring.revoked);
    ring.keys.retain(|key| !revoked.contains(&key.kid));
    ring.revoked = revoked;
    // More than ever meet; a ring that is not sound would be read by nobody.
    while let Some(position) = ring.surplus() {
        ring.keys.remove(position);
    }
    ring.trail.extend(other.trail.iter().cloned());
    ring.trail.sort_by_key(|mark| mark.generation);
    ring.trail.dedup();
    ring.generation += 1;
    ring
}

impl Ring {
    /// The mark of its save; `None` where it has not been saved since it was changed, or was
    /// saved by a version that made none.
    pub fn tip(&self) -> Option<&Mark> {
        let newest = self.trail.last();
        newest.filter(|mark| mark.generation == self.generation)
    }

    /// Names the save that is to come, where it has no name yet.
    pub fn mark(&mut self, name: String) {
        if self.tip().is_none() {
            let generation = self.generation;
            self.trail.push(Mark { generation, name });
            let forgotten = self.trail.len().saturating_sub(TRAIL);
            self.trail.drain(..forgotten);
        }
    }

    /// What tells this save from any other.
    pub fn version(&self) -> String {
        let name = self.tip().map_or("", |mark| mark.name.as_str());
        format!("{}:{name}", self.generation)
    }

    fn is_of_lineage(&self, other: &Self) -> bool {
        self.pseudonym_key == other.pseudonym_key
    }

    /// How it is related to another.
    pub fn relation_of(&self, other: &Self) -> Relation {
        if self.version() == other.version() && self.is_of_lineage(other) {
            Relation::Same
        } else if other.comes_after(self) {
            Relation::Newer
        } else if self.comes_after(other) {
            Relation::Older
        } else {
            Relation::Apart
        }
    }

    fn comes_after(&self, other: &Self) -> bool {
        let tip = other.tip();
        if tip.is_some_and(|tip| self.trail.contains(tip)) {
            return true;
        }
        // Its save had no mark, or is too long ago to be remembered.
        let unmarked = tip.is_none() && self.generation >= other.generation;
        let forgotten = match self.trail.first() {
            Some(oldest) => oldest.generation > other.generation,
            None => self.generation > other.generation,
        };
        self.is_of_lineage(other) && (unmarked || forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Key;
    use super::*;
    use jsonwebtoken::Algorithm;
    use zeroize::Zeroizing;

    /// A ring of this lineage and generation, whose trail has these saves.
    fn ring(lineage: u8, generation: u64, trail: &[(u64, &str)]) -> Ring {
        let mark = |(generation, name): &(u64, &str)| Mark {
            generation: *generation,
            name: (*name).to_owned(),
        };
        Ring {
            generation,
            pseudonym_key: Zeroizing::new(vec![lineage]),
            trail: trail.iter().map(mark).collect(),
            ..Ring::default()
        }
    }

    #[test]
    fn a_ring_without_marks_is_told_by_its_generation_and_its_lineage() {
        let marked = || ring(1, 5, &[(4, "d"), (5, "e")]);
        let bare = |generation| ring(1, generation, &[]);
        for (held, found, relation) in [
            (bare(2), marked(), Relation::Newer),
            (bare(5), marked(), Relation::Newer),
            (bare(6), marked(), Relation::Older),
            (marked(), bare(5), Relation::Older),
            (marked(), bare(6), Relation::Newer),
            (ring(2, 5, &[]), marked(), Relation::Apart),
            (bare(2), bare(3), Relation::Newer),
            (bare(3), bare(2), Relation::Older),
            (bare(3), bare(3), Relation::Same),
            (ring(2, 3, &[]), bare(3), Relation::Apart),
            // With marks these count, and where they reach no longer back, the generation.
            (marked(), marked(), Relation::Same),
            (marked(), ring(1, 6, &[(5, "e"), (6, "f")]), Relation::Newer),
            (marked(), ring(1, 5, &[(4, "d"), (5, "z")]), Relation::Apart),
            (ring(1, 3, &[(3, "c")]), marked(), Relation::Newer),
            (ring(2, 3, &[(3, "c")]), marked(), Relation::Apart),
            (ring(1, 4, &[(4, "z")]), marked(), Relation::Apart),
        ] {
            assert_eq!(held.relation_of(&found), relation);
        }
    }

    #[test]
    fn a_save_has_one_name_and_the_last_few_are_remembered() {
        let mut ring = ring(1, 5, &[]);
        assert_eq!((ring.tip(), ring.version()), (None, "5:".to_owned()));
        ring.mark("e".to_owned());
        ring.mark("f".to_owned());
        assert_eq!((ring.trail.len(), ring.version()), (1, "5:e".to_owned()));
        for generation in 6..40 {
            ring.generation = generation;
            ring.mark("g".to_owned());
        }
        assert_eq!(
            (ring.trail.len(), ring.version()),
            (TRAIL, "39:g".to_owned())
        );
    }

    const NOW: UnixSeconds = 1_000_000;
    const SCHEDULE: Schedule = Schedule {
        rotate_every: 10_000,
        publish_ahead: 1000,
        keep_after: 3900,
    };

    fn key(kid: &str, state: State, retired_at: Option<UnixSeconds>) -> Key {
        Key {
            kid: kid.to_owned(),
            algorithm: Algorithm::ES256,
            pkcs8: Zeroizing::new(Vec::new()),
            state,
            published_at: 0,
            activated_at: (state != State::Next).then_some(0),
            rotate_at: None,
            retired_at,
            forced: false,
        }
    }

    /// What becomes of these keys when a later ring is found, which has these and revoked that:
    /// the keys of the ring that is put there, if one must be.
    fn kept(
        signs: bool,
        held: Vec<Key>,
        found: Vec<Key>,
        revoked: &[&str],
    ) -> Option<Vec<(String, Option<UnixSeconds>)>> {
        let held = Ring {
            keys: held,
            ..ring(1, 1, &[(1, "a")])
        };
        let mut found = Ring {
            keys: found,
            ..ring(1, 2, &[(1, "a"), (2, "b")])
        };
        found.revoked = revoked.iter().map(|kid| (*kid).to_owned()).collect();
        match decide(Some(&held), signs, &Found::Ring(&found), NOW, &SCHEDULE) {
            Step::Merge(ring) => {
                assert_eq!(ring.generation, 3);
                let keys = ring.keys.into_iter();
                Some(keys.map(|key| (key.kid, key.retired_at)).collect())
            }
            step => {
                assert!(matches!(step, Step::Take));
                None
            }
        }
    }

    #[test]
    fn what_has_signed_is_published_on_where_a_later_ring_has_lost_it() {
        let active = |kid| key(kid, State::Active, None);
        let retired = |kid, at| key(kid, State::Retired, Some(at));
        let new = || vec![active("new")];
        let with = |kid: &str, at| Some(vec![("new".to_owned(), None), (kid.to_owned(), Some(at))]);
        assert_eq!(kept(true, vec![active("a")], new(), &[]), with("a", NOW));
        assert_eq!(
            kept(false, vec![active("a")], new(), &[]),
            None,
            "it never signed"
        );
        assert_eq!(kept(true, vec![active("a")], new(), &["a"]), None);
        // A retired one, for as long as its tokens live.
        let last = NOW - SCHEDULE.keep_after + 1;
        assert_eq!(
            kept(true, vec![retired("r", last)], new(), &[]),
            with("r", last)
        );
        assert_eq!(kept(true, vec![retired("r", last - 1)], new(), &[]), None);
        // One that the later ring ends too soon: its last tokens are of now, less what is spare.
        let early = NOW - SCHEDULE.spare();
        let ended = |at| vec![active("new"), retired("a", at)];
        assert_eq!(
            kept(true, vec![active("a")], ended(early), &[]),
            with("a", NOW)
        );
        assert_eq!(kept(true, vec![active("a")], ended(early + 1), &[]), None);
        // A rotation that fell due within the spare time may not have been seen.
        let due = Key {
            rotate_at: Some(NOW - 100),
            ..active("a")
        };
        let standby = key("n", State::Next, None);
        assert_eq!(kept(true, vec![due, standby], new(), &[]), with("a", NOW));
    }

    #[test]
    fn of_two_rings_that_parted_the_one_of_the_higher_generation_goes_on() {
        for (held, found, goes_on) in [(6, 5, "held"), (5, 6, "found"), (5, 5, "found")] {
            let of = |name: &str, generation| Ring {
                keys: vec![key(name, State::Active, None)],
                ..ring(1, generation, &[(1, "a"), (generation, name)])
            };
            let (held, found) = (of("held", held), of("found", found));
            let step = decide(Some(&held), true, &Found::Ring(&found), NOW, &SCHEDULE);
            let Step::Merge(ring) = step else {
                panic!("they have parted");
            };
            assert_eq!(ring.active(Algorithm::ES256).unwrap().kid, goes_on);
            assert_eq!((ring.keys.len(), ring.trail.len()), (2, 3));
            assert!(ring.generation > held.generation.max(found.generation));
        }
    }
}
