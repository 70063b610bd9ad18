//! The issuer's side: replicas that share one ring and move it on, each by its own clock.
//!
//! The ring is the product's own (`exchequer::keys::ring`). It does not depend on who verifies,
//! so it is played once, and what each replica publishes and signs with is written down.

use super::rules::{DAY, MINUTE};
use exchequer::keys::ring::{Fresh, Ring, Schedule};
use jsonwebtoken::Algorithm;
use std::convert::Infallible;
use zeroize::Zeroizing;

const ALGORITHM: Algorithm = Algorithm::ES256;
/// How far each replica's clock is from true time, seconds: two minutes apart.
const SKEWS: [i64; 3] = [-60, 0, 60];
/// How often a replica looks whether another changed the ring, seconds.
const LOOKS_EVERY: i64 = 10;
const ROTATE_EVERY: i64 = 90 * DAY;

/// Key ids, the first is 0.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys(u64);

impl Keys {
    pub fn has(self, kid: u8) -> bool {
        self.0 >> kid & 1 == 1
    }

    fn with(self, kid: u8) -> Self {
        Self(self.0 | 1 << kid)
    }
}

/// What happens to the ring. In all but the first the standby is known to nobody, since it was
/// made just before: the worst case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The key's time is over; its standby was made when it began to sign.
    Planned,
    /// `keys import` and `keys rotate`: the new key signs as soon as the publish-ahead time lets it.
    Asked,
    /// `keys rotate --force`, a minute after the standby was made.
    Forced,
    /// `keys revoke` of the key that signs; its standby was made when it began to sign.
    Revoked,
    /// `keys revoke` of the standby, then of the key that signs: the whole ring was stolen.
    Stolen,
}

/// What a replica shows and does, from a time on.
#[derive(Clone, Copy, Default)]
struct View {
    from: i64,
    published: Keys,
    signs: u8,
}

/// One replica, over all time.
pub struct Replica {
    /// How far its clock is ahead of true time, seconds.
    pub skew: i64,
    views: Vec<View>,
}

impl Replica {
    fn view(&self, at: i64) -> View {
        let seen = self.views.iter().rev().find(|view| view.from <= at);
        seen.copied().unwrap_or_default()
    }

    /// The key set that it answers with.
    pub fn published(&self, at: i64) -> Keys {
        self.view(at).published
    }

    /// The key that it mints with.
    pub fn signs(&self, at: i64) -> u8 {
        self.view(at).signs
    }
}

/// What all replicas did. Time 0 is when the rotation is due, or the operator acts.
pub struct Issuer {
    pub replicas: Vec<Replica>,
    /// The key that signed before.
    pub old: u8,
}

/// The ring as it is shared, and who changed it last.
struct Shared {
    ring: Ring,
    schedule: Schedule,
    made: u8,
    replicas: Vec<Replica>,
    /// When it was changed last.
    changed: i64,
}

impl Shared {
    fn tick(&mut self, clock: i64) {
        let made = &mut self.made;
        let mut generate = |_| {
            let kid = made.to_string();
            *made += 1;
            Ok::<_, Infallible>(Fresh {
                kid,
                pkcs8: Zeroizing::new(Vec::new()),
            })
        };
        let Ok(_changes) = self
            .ring
            .tick(clock, &self.schedule, &[ALGORITHM], &mut generate);
    }

    /// What was changed is seen by who did it at once, by the others when they look.
    fn show(&mut self, at: i64, by: Option<usize>) {
        self.changed = at;
        let number = |kid: &str| kid.parse().unwrap_or(u8::MAX);
        let published = self
            .ring
            .keys
            .iter()
            .fold(Keys::default(), |keys, key| keys.with(number(&key.kid)));
        let signs = self
            .ring
            .active(ALGORITHM)
            .map_or(0, |key| number(&key.kid));
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            let from = if by == Some(index) {
                at
            } else {
                next_look(index, at + 1)
            };
            replica.views.push(View {
                from,
                published,
                signs,
            });
        }
    }

    /// Lets the replicas move the ring on until this time: whichever finds first that
    /// something is due.
    fn run(&mut self, until: i64) {
        let algorithms = [ALGORITHM];
        while let Some(due) = self.ring.next_change(until, &self.schedule, &algorithms) {
            let due = due.max(self.changed - DAY);
            let looks = self.replicas.iter().enumerate().map(|(index, replica)| {
                let at = next_look(index, (due - replica.skew).max(self.changed));
                (at, index, at + replica.skew)
            });
            let Some((at, index, clock)) = looks.min().filter(|(at, ..)| *at <= until) else {
                return;
            };
            self.tick(clock);
            self.show(at, Some(index));
        }
    }

    /// What an operator does beside the replicas, by a clock that is right.
    fn act(&mut self, at: i64, act: impl FnOnce(&mut Ring, &Schedule)) {
        self.run(at);
        act(&mut self.ring, &self.schedule);
        self.tick(at);
        self.show(at, None);
    }

    fn import(&mut self, at: i64) {
        let fresh = Fresh {
            kid: self.made.to_string(),
            pkcs8: Zeroizing::new(Vec::new()),
        };
        self.made += 1;
        self.act(at, |ring, schedule| {
            ring.import(fresh, ALGORITHM, at, schedule);
        });
    }

    fn rotate(&mut self, at: i64, force: bool) {
        self.act(at, |ring, schedule| {
            ring.rotate(ALGORITHM, at, schedule, force);
        });
    }

    fn revoke(&mut self, at: i64, key: impl FnOnce(&Ring) -> Option<String>) {
        self.act(at, |ring, schedule| {
            if let Some(kid) = key(ring) {
                ring.revoke(&kid, at, schedule);
            }
        });
    }
}

/// When a replica looks next, at `at` at the earliest; each at another time.
fn next_look(index: usize, at: i64) -> i64 {
    let phase = i64::try_from(index).unwrap_or_default() * 3;
    at + (phase - at).rem_euclid(LOOKS_EVERY)
}

impl Issuer {
    /// Plays an event at time 0, and what follows until `until`.
    pub fn play(event: Event, publish_ahead: i64, keep_after: i64, until: i64) -> Self {
        let born = match event {
            Event::Planned => -ROTATE_EVERY,
            _ => -ROTATE_EVERY / 2,
        };
        let mut shared = Shared {
            ring: Ring::default(),
            schedule: Schedule {
                rotate_every: ROTATE_EVERY,
                publish_ahead,
                keep_after,
            },
            made: 0,
            replicas: SKEWS
                .iter()
                .map(|&skew| Replica {
                    skew,
                    views: Vec::new(),
                })
                .collect(),
            changed: born,
        };
        shared.tick(born);
        shared.show(born, None);
        let active = |ring: &Ring| ring.active(ALGORITHM).map(|key| key.kid.clone());
        let standby = |ring: &Ring| ring.next(ALGORITHM).map(|key| key.kid.clone());
        match event {
            Event::Planned => {}
            Event::Asked => {
                shared.import(-publish_ahead);
                shared.rotate(-publish_ahead, false);
            }
            Event::Forced => {
                shared.import(-MINUTE);
                shared.rotate(0, true);
            }
            Event::Revoked => shared.revoke(0, active),
            Event::Stolen => {
                shared.revoke(0, standby);
                shared.revoke(1, active);
            }
        }
        shared.run(until);
        Self {
            replicas: shared.replicas,
            old: 0,
        }
    }
}
