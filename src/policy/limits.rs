//! How often one may ask: which buckets a request takes from, how much, and what their levels
//! mean.
//!
//! A bucket for each subject of each app keeps one user from taking what all need; one for each
//! client address keeps a stranger from guessing. What is refused takes more from the address
//! than what succeeds: honest apps are seldom refused.

use crate::clock::UnixSeconds;
use crate::config::{RateLimit, RateLimits};
use crate::explain::{Code, Limit, Refusal};
use crate::store::{Key, Kind, Level, Take};

/// What a request that is refused takes from its address's bucket.
const REFUSED: u32 = 5;

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// A subject's, or a client's of ours.
    Subject,
    /// A client address's.
    Address,
}

impl Bucket {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
        }
    }
}

/// What a request takes.
#[derive(Debug, Default)]
pub struct Takes {
    buckets: Vec<Bucket>,
    /// For the store, in the order of the buckets.
    pub takes: Vec<Take>,
}

impl Takes {
    /// Of a request whose subject is known by these parts, from this network; nobody shares a
    /// bucket with somebody of other parts.
    pub fn of(limits: Option<&RateLimits>, who: &[&str], network: Option<&str>) -> Self {
        let mut takes = Self::default();
        if let Some(limits) = limits {
            takes.add(Bucket::Subject, limits.subject, who, 1);
            if let Some(network) = network {
                takes.add(Bucket::Address, limits.address, &[network], 1);
            }
        }
        takes
    }

    /// Of a request from this network that is nobody's yet.
    pub fn of_stranger(limits: Option<&RateLimits>, network: Option<&str>) -> Self {
        Self::of_address(limits, network, 1)
    }

    /// Of a request from this network that was refused.
    pub fn of_refused(limits: Option<&RateLimits>, network: Option<&str>) -> Self {
        Self::of_address(limits, network, REFUSED)
    }

    /// Of a look from this network, which takes nothing: whether a refusal could be paid for.
    pub fn of_look(limits: Option<&RateLimits>, network: Option<&str>) -> Self {
        Self::of_address(limits, network, 0)
    }

    fn of_address(limits: Option<&RateLimits>, network: Option<&str>, cost: u32) -> Self {
        let mut takes = Self::default();
        if let (Some(limits), Some(network)) = (limits, network) {
            takes.add(Bucket::Address, limits.address, &[network], cost);
        }
        takes
    }

    fn add(&mut self, bucket: Bucket, limit: RateLimit, parts: &[&str], cost: u32) {
        let kind = match bucket {
            Bucket::Subject => Kind::SubjectBucket,
            Bucket::Address => Kind::AddressBucket,
        };
        self.buckets.push(bucket);
        self.takes.push(Take {
            key: Key::of(kind, parts),
            burst: limit.requests,
            window: limit.window,
            // A bucket that holds less could never be taken from.
            cost: cost.min(limit.requests),
        });
    }

    /// What the levels mean: the limit that is nearest, or the refusal of one that is reached.
    pub fn judge(&self, levels: &[Level]) -> Result<Option<Limit>, Box<Refusal>> {
        let limits =
            self.buckets
                .iter()
                .zip(&self.takes)
                .zip(levels)
                .map(|((bucket, take), level)| {
                    let limit = Limit {
                        bucket: bucket.name(),
                        most: take.burst,
                        left: level.left,
                        full_in: level.full_in,
                    };
                    (*bucket, limit, level.wait.or_else(|| short(take, level)))
                });
        let mut nearest: Option<Limit> = None;
        for (bucket, limit, wait) in limits {
            if let Some(wait) = wait {
                let whom = match bucket {
                    Bucket::Subject => "for this subject",
                    Bucket::Address => "from this address",
                };
                let mut refusal = Refusal::because(
                    Code::RateLimited,
                    format!("Too many requests {whom}: try again in {wait} s."),
                );
                refusal.retry_after = u64::try_from(wait).ok();
                refusal.limit = Some(limit);
                return Err(refusal);
            }
            if nearest.is_none_or(|nearest| limit.left < nearest.left) {
                nearest = Some(limit);
            }
        }
        Ok(nearest)
    }
}

/// How long a look must wait until a refusal could be paid for.
fn short(take: &Take, level: &Level) -> Option<UnixSeconds> {
    let missing = REFUSED.min(take.burst).saturating_sub(level.left);
    let burst = i64::from(take.burst.max(1));
    let wait = (i64::from(missing) * take.window + burst - 1) / burst;
    (take.cost == 0 && missing > 0).then_some(wait.max(1))
}

/// Whether a refusal is one that its caller could have avoided: not the service's or a
/// provider's fault, not this limit itself, and not a nonce that nobody could know before.
pub fn counts(refusal: &Refusal) -> bool {
    let code = refusal.instead_of.unwrap_or(refusal.code);
    let unavoidable = matches!(code, Code::RateLimited | Code::DpopNonceRequired);
    (400..500).contains(&code.entry().status) && !unavoidable
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits {
        subject: RateLimit {
            requests: 120,
            window: 60,
        },
        address: RateLimit {
            requests: 3,
            window: 10,
        },
    };

    fn level(left: u32, wait: Option<i64>) -> Level {
        Level {
            left,
            full_in: 7,
            wait,
        }
    }

    #[test]
    fn subjects_and_addresses_have_their_own_buckets() {
        let keys = |who: &[&str], network| -> Vec<Key> {
            let takes = Takes::of(Some(&LIMITS), who, network).takes;
            takes.iter().map(|take| take.key).collect()
        };
        let one = keys(&["a", "iss", "", "u"], Some("192.0.2.1"));
        assert_eq!(one.len(), 2);
        assert_eq!(one, keys(&["a", "iss", "", "u"], Some("192.0.2.1")));
        for other in [
            keys(&["b", "iss", "", "u"], Some("192.0.2.2")),
            keys(&["a", "iss", "o", "u"], Some("192.0.2.3")),
            keys(&["a", "is", "s", "u"], Some("192.0.2.4")),
            keys(&["client", "a"], Some("a")),
        ] {
            assert!(other.iter().all(|key| !one.contains(key)));
        }
        let stranger = Takes::of_stranger(Some(&LIMITS), Some("192.0.2.1")).takes;
        assert_eq!((stranger.len(), stranger[0].key), (1, one[1]));
        assert_eq!(stranger[0].cost, 1);
        assert!(Takes::of(None, &["a"], Some("b")).takes.is_empty());
        assert_eq!(Takes::of(Some(&LIMITS), &["a"], None).takes.len(), 1);
    }

    #[test]
    fn what_is_refused_takes_more_and_never_more_than_there_is() {
        let refused = Takes::of_refused(Some(&LIMITS), Some("a")).takes;
        assert_eq!((refused.len(), refused[0].cost), (1, 3));
        let wider = RateLimits {
            address: LIMITS.subject,
            ..LIMITS
        };
        let refused = Takes::of_refused(Some(&wider), Some("a")).takes;
        assert_eq!(refused[0].cost, REFUSED);
        assert!(Takes::of_refused(Some(&LIMITS), None).takes.is_empty());
        let look = Takes::of_look(Some(&wider), Some("a"));
        assert_eq!((look.takes[0].key, look.takes[0].cost), (refused[0].key, 0));
        assert!(look.judge(&[level(REFUSED, None)]).is_ok());
        let short = look.judge(&[level(REFUSED - 3, None)]).unwrap_err();
        assert_eq!(short.retry_after, Some(2), "three of 120 in 60 s");
        let short = look.judge(&[level(REFUSED - 4, None)]).unwrap_err();
        assert_eq!(
            short.retry_after,
            Some(2),
            "four take no part of a second more"
        );
        assert!(counts(&Refusal::new(Code::SubjectTokenExpired)));
        assert!(counts(&Refusal::new(Code::ConditionNotMet)));
        for code in [
            Code::RateLimited,
            Code::StoreUnavailable,
            Code::ProviderCredentialsInvalid,
            Code::InternalError,
            Code::DpopNonceRequired,
        ] {
            assert!(!counts(&Refusal::new(code)), "{code:?}");
        }
    }

    #[test]
    fn the_nearest_limit_is_told_and_a_reached_one_refuses() {
        let takes = Takes::of(Some(&LIMITS), &["u"], Some("a"));
        let nearest = takes.judge(&[level(5, None), level(2, None)]).unwrap();
        let nearest = nearest.unwrap();
        assert_eq!(
            (nearest.bucket, nearest.most, nearest.left),
            ("address", 3, 2)
        );
        let equal = takes.judge(&[level(2, None), level(2, None)]).unwrap();
        assert_eq!(equal.unwrap().bucket, "subject", "the first of two");
        let refusal = takes
            .judge(&[level(5, None), level(0, Some(4))])
            .unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert_eq!(refusal.retry_after, Some(4));
        assert_eq!(refusal.limit.unwrap().bucket, "address");
        assert!(Takes::default().judge(&[]).unwrap().is_none());
    }
}
