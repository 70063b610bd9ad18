//! One verifier: what it holds of the key set, and how it comes by it.

use super::issuer::{Issuer, Keys};
use super::random::Random;
use super::rules::{HOUR, Keeps, MINUTE, Rule, Unknown};

/// How long a cache between may serve the key set: `max-age` of its answer, seconds.
const MAX_AGE: i64 = 300;
/// For how much longer some CDN serves it stale while it fetches another, seconds. The service
/// does not allow it by its header; an operator may.
const STALE_FOR: i64 = HOUR;

/// An edge of a CDN, which others use too.
struct Edge {
    stale_for: i64,
    copy: Option<(Keys, i64)>,
    others_every: i64,
    others_next: i64,
}

impl Edge {
    /// Answers, and fetches where it has nothing or nothing fresh.
    fn ask(&mut self, at: i64, origin: impl FnOnce() -> Keys) -> Keys {
        match self.copy {
            Some((keys, since)) if at < since + MAX_AGE => keys,
            Some((keys, since)) if at < since + MAX_AGE + self.stale_for => {
                self.copy = Some((origin(), at));
                keys
            }
            _ => {
                let keys = origin();
                self.copy = Some((keys, at));
                keys
            }
        }
    }
}

/// A verifier.
pub struct Verifier<'w> {
    rule: &'w Rule,
    issuer: &'w Issuer,
    random: Random,
    edge: Option<Edge>,
    set: Keys,
    set_at: i64,
    /// For those that hold each key by itself, the newest last.
    keys: Vec<(u8, i64)>,
    next_poll: i64,
}

impl<'w> Verifier<'w> {
    /// A verifier that has run since some time before `start`; a third each without a CDN,
    /// behind one, and behind one that serves stale answers.
    pub fn new(rule: &'w Rule, issuer: &'w Issuer, mut random: Random, start: i64) -> Self {
        let edge = match random.below(3) {
            0 => None,
            kind => Some(Edge {
                stale_for: if kind == 1 { 0 } else { STALE_FOR },
                copy: None,
                others_every: *random.one_of(&[10 * MINUTE, HOUR]).unwrap_or(&HOUR),
                others_next: start,
            }),
        };
        let next_poll = match rule.keeps {
            Keeps::Polls(every) | Keeps::UntilRestart(every) => start + random.below(every),
            _ => i64::MAX,
        };
        let mut verifier = Self {
            rule,
            issuer,
            random,
            edge,
            set: Keys::default(),
            set_at: start,
            keys: Vec::new(),
            next_poll,
        };
        verifier.refresh(start);
        verifier
    }

    /// The key set, as some replica has it.
    fn origin(&mut self, at: i64) -> Keys {
        let replica = self.random.one_of(&self.issuer.replicas);
        replica.map_or(Keys::default(), |replica| replica.published(at))
    }

    /// The key set, as the verifier is answered.
    fn fetch(&mut self, at: i64) -> Keys {
        let Some(mut edge) = self.edge.take() else {
            return self.origin(at);
        };
        while edge.others_next <= at {
            let now = edge.others_next;
            edge.ask(now, || self.origin(now));
            edge.others_next += 1 + self.random.below(2 * edge.others_every);
        }
        let keys = edge.ask(at, || self.origin(at));
        self.edge = Some(edge);
        keys
    }

    fn refresh(&mut self, at: i64) {
        self.set = self.fetch(at);
        self.set_at = at;
    }

    /// Fetches what its timer fetched since the last token.
    fn poll(&mut self, at: i64, every: i64) {
        while self.next_poll <= at {
            self.refresh(self.next_poll);
            self.next_poll += every;
        }
    }

    /// Whether it takes a token that this key signed.
    pub fn accepts(&mut self, kid: u8, at: i64) -> bool {
        match self.rule.keeps {
            Keeps::EachKey(keeps, most) => return self.has_by_itself(kid, at, keeps, most),
            Keeps::Polls(every) | Keeps::UntilRestart(every) => self.poll(at, every),
            Keeps::Set(keeps) if at >= self.set_at + keeps => self.refresh(at),
            Keeps::Set(_) | Keeps::SetForEver => {}
        }
        if self.set.has(kid) {
            return true;
        }
        // Some count from the last unknown kid alone; to count from every fetch is stricter.
        match self.rule.unknown {
            Unknown::Asks(cool_down) if at >= self.set_at + cool_down => self.refresh(at),
            _ => return false,
        }
        self.set.has(kid)
    }

    fn has_by_itself(&mut self, kid: u8, at: i64, keeps: i64, most: usize) -> bool {
        self.keys.retain(|(_, since)| at < since + keeps);
        if self.keys.iter().any(|(held, _)| *held == kid) {
            return true;
        }
        let found = self.fetch(at).has(kid);
        if found {
            if self.keys.len() >= most {
                self.keys.remove(0);
            }
            self.keys.push((kid, at));
        }
        found
    }

    /// Whether it would take a token that a thief signs with this key, as it stands.
    pub fn trusts(&self, kid: u8) -> bool {
        match self.rule.keeps {
            Keeps::EachKey(..) => self.keys.iter().any(|(held, _)| *held == kid),
            _ => self.set.has(kid),
        }
    }
}
