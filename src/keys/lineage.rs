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
