//! An issuer's keys over time: when they are fetched, how long they serve, and who waits.
//!
//! Three reasons to fetch, three limits. A *refresh* ahead of expiry runs in the
//! background and nobody waits for it. An *unknown `kid`* fetches at once, but only once in
//! a cool-down, so that a flood of invented ones costs one fetch. After a *failure* the
//! next try waits longer each time. Fetches never run twice at once, and go on when the
//! request that began one is gone.

use super::address::Reach;
use super::discovery::{DiscoveryError, key_set_url};
use super::fetch::{FetchError, Fetcher};
use super::jwks::{Found, KeySet, KeySetError};
use crate::clock::Clock;
use crate::config::{IssuerKind, IssuerSettings};
use crate::crypto::{PublicKey, VerifyingKey};
use crate::explain::{Code, Refusal, Source};
use crate::telemetry::{Metrics, traces};
use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use url::Url;

/// How long a set is fresh where its sender does not say.
const FRESH: u64 = 300;
/// The bounds of what a sender may say, seconds.
const FRESH_BOUNDS: (u64, u64) = (60, 600);
/// How long a set serves when it cannot be refreshed.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// At most one fetch for unknown `kid`s in this time.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long a `kid` that a fetch did not find is refused without another.
const MISSING: Duration = Duration::from_secs(60);
/// The most `kid`s remembered as missing.
const MAX_MISSING: usize = 1024;
/// How long a discovered place of a key set is believed.
const PLACE: Duration = Duration::from_secs(3600);
/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The whole of a fetch, discovery and key set together: nobody waits longer.
const DEADLINE: Duration = Duration::from_secs(4);

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The token names none.
    NoKeyId,
    /// The issuer publishes none of this `kid`.
    Unknown,
    /// The key of this `kid` does not serve this algorithm, and why.
    Unusable(String),
    /// The issuer cannot be asked.
    Unavailable {
        /// Seconds until the next try.
        retry_after: u64,
        /// Why not.
        cause: String,
    },
    /// The issuer's metadata is another issuer's, or leads where it must not.
    Metadata {
        /// Seconds until the next try.
        retry_after: u64,
        /// What it says.
        cause: String,
    },
}

impl KeyError {
    /// The refusal that this is for a caller.
    pub fn refusal(self) -> Box<Refusal> {
        let unavailable = |code, retry_after, cause: String| {
            Refusal::new(code)
                .unavailable(Source::UpstreamIdp, retry_after)
                .caused_by(cause)
        };
        match self {
            Self::NoKeyId => Refusal::new(Code::SubjectTokenKeyIdMissing),
            Self::Unknown => Refusal::new(Code::SubjectTokenKeyUnknown),
            Self::Unusable(reason) => Refusal::new(Code::SubjectTokenKeyUnusable).caused_by(reason),
            Self::Unavailable { retry_after, cause } => {
                unavailable(Code::IssuerKeysUnavailable, retry_after, cause)
            }
            Self::Metadata { retry_after, cause } => {
                unavailable(Code::IssuerMetadataInvalid, retry_after, cause)
            }
        }
    }
}

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The key set's place is not known.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The key set could not be had.
    #[error("key set at {url}: {error}")]
    Fetch {
        /// Where it was asked for.
        url: String,
        /// Why not.
        error: FetchError,
    },
    /// It is no key set.
    #[error("key set at {url}: {error}")]
    KeySet {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        error: KeySetError,
    },
    /// Discovery and key set together took too long.
    #[error("no key set within 4 s")]
    Late,
    /// The task that fetched it ended early.
    #[error("the fetch was given up")]
    Abandoned,
}

impl RefreshError {
    /// The same without any address: a document's may hold what is nobody else's to see.
    fn bare(&self) -> String {
        match self {
            Self::Discovery(DiscoveryError::Fetch { error, .. }) => {
                format!("discovery: {}", error.bare())
            }
            Self::Discovery(DiscoveryError::Malformed { member, .. }) => {
                format!("discovery: not a JSON object with `issuer` and `{member}`")
            }
            Self::Discovery(DiscoveryError::Mismatch { .. }) => {
                "discovery: the document is another issuer's".to_owned()
            }
            Self::Discovery(DiscoveryError::Forbidden(error)) => {
                format!("the discovered address: {}", error.bare())
            }
            Self::Fetch { error, .. } => format!("key set: {}", error.bare()),
            Self::KeySet { error, .. } => format!("key set: {error}"),
            Self::Late | Self::Abandoned => self.to_string(),
        }
    }
}

/// How an issuer's key set stands, for operators; times in seconds.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The key was configured: none is ever fetched.
    pub configured: bool,
    /// How many keys it has that could be read.
    pub keys: usize,
    /// Since when it is there.
    pub age: Option<f64>,
    /// The fetch that failed last, where one did.
    pub failed: Option<Failed>,
    /// How many have failed since one succeeded.
    pub failures: u32,
}

/// A fetch that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// What a token that waited for it was refused with.
    pub code: Code,
    /// Why, in a few words and without addresses.
    pub cause: String,
    /// How long ago.
    pub age: f64,
}

struct Cached {
    set: KeySet,
    fetched_at: Duration,
    refresh_at: Duration,
    usable_until: Duration,
}

type Outcome = Option<Result<(), RefreshError>>;

#[derive(Default)]
struct Flight {
    running: Option<watch::Receiver<Outcome>>,
    /// When a fetch was last made for an unknown `kid`.
    asked_for_unknown: Option<Duration>,
    missing: HashMap<String, Duration>,
    failures: u32,
    not_before: Duration,
    /// The last one and when it was, also when all is well again.
    last_error: Option<(RefreshError, Duration)>,
    /// The key set's place and when it was found; until a fetch from it fails, or is old.
    place: Option<(Url, Reach, Duration)>,
    /// The first fetch has ended, well or not.
    tried: bool,
}

impl Flight {
    /// Remembers a `kid` that a fetch did not find, where there is room.
    fn remember_missing(&mut self, kid: &str, now: Duration) {
        if self.missing.len() >= MAX_MISSING {
            self.missing.retain(|_, since| now < *since + MISSING);
        }
        if self.missing.len() < MAX_MISSING {
            self.missing.insert(kid.to_owned(), now);
        }
    }
}

/// The keys of one issuer.
pub struct KeyCache {
    issuer: IssuerSettings,
    algorithms: Vec<Algorithm>,
    only: Option<KeySet>,
    fetcher: Fetcher,
    clock: Clock,
    metrics: Arc<Metrics>,
    current: ArcSwapOption<Cached>,
    flight: Mutex<Flight>,
}

impl KeyCache {
    /// A cache for the issuer; `algorithms` are those that any app lets it sign with.
    pub fn new(
        issuer: IssuerSettings,
        algorithms: Vec<Algorithm>,
        fetcher: Fetcher,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let only = match (&issuer.jwt_key, issuer.kind) {
            (Some(key), _) => Some(KeySet::only(key, &algorithms)),
            // It is asked about each token: it has no keys.
            (None, IssuerKind::Introspection | IssuerKind::SignIn) => Some(KeySet::default()),
            (None, _) => None,
        };
        Arc::new(Self {
            issuer,
            algorithms,
            only,
            fetcher,
            clock,
            metrics,
            current: ArcSwapOption::empty(),
            flight: Mutex::default(),
        })
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        // Nothing panics while it is held; if it ever did, the state is still whole.
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, now: Duration) -> Option<Arc<Cached>> {
        self.current
            .load_full()
            .filter(|cached| now < cached.usable_until)
    }

    /// Finds the key of a token.
    pub async fn find(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerifyingKey>, KeyError> {
        if let Some(only) = &self.only {
            return found(only.find(kid.unwrap_or_default(), algorithm));
        }
        let kid = kid.ok_or(KeyError::NoKeyId)?;
        match self.look_up(kid, algorithm) {
            None | Some(Found::Unknown) => {}
            Some(known) => return found(known),
        }
        if let Some(outcome) = self.fetch_for(kid, algorithm)? {
            let wait = traces::begin("fetch key set");
            wait.set("exchequer.issuer", self.issuer.issuer.clone());
            let ended = self.ended(outcome).await;
            let ended = ended.map_err(|error| self.unavailable(&error));
            wait.ended(&ended, |error| error.clone().refusal().code.entry().slug);
            ended?;
        }
        match self.look_up(kid, algorithm) {
            None => Err(self.unavailable(&RefreshError::Abandoned)),
            Some(Found::Unknown) => {
                let now = self.clock.monotonic();
                self.flight().remember_missing(kid, now);
                Err(KeyError::Unknown)
            }
            Some(known) => found(known),
        }
    }

    fn look_up(&self, kid: &str, algorithm: Algorithm) -> Option<Found> {
        let cached = self.usable(self.clock.monotonic())?;
        Some(cached.set.find(kid, algorithm))
    }

    /// The fetch that a token must wait for whose key is not at hand; none where one has
    /// ended since. All is decided under one lock, or a fetch that ends between two
    /// decisions would be followed by a second one.
    fn fetch_for(
        self: &Arc<Self>,
        kid: &str,
        algorithm: Algorithm,
    ) -> Result<Option<watch::Receiver<Outcome>>, KeyError> {
        let mut flight = self.flight();
        let now = self.clock.monotonic();
        let idle = flight.running.is_none();
        let backing_off = idle && now < flight.not_before;
        match self.look_up(kid, algorithm) {
            None if backing_off => {
                let error = flight.last_error.clone().map(|(error, _)| error);
                drop(flight);
                return Err(self.unavailable(&error.unwrap_or(RefreshError::Abandoned)));
            }
            None => {}
            Some(Found::Unknown) => {
                let missing = flight
                    .missing
                    .get(kid)
                    .is_some_and(|since| now < *since + MISSING);
                let cooling = flight
                    .asked_for_unknown
                    .is_some_and(|asked| now < asked + COOL_DOWN);
                if missing || backing_off || idle && cooling {
                    return Err(KeyError::Unknown);
                }
                if idle {
                    flight.asked_for_unknown = Some(now);
                    // Perhaps the set has moved: its place is looked up anew.
                    flight.place = None;
                }
            }
            Some(_) => return Ok(None),
        }
        Ok(Some(self.running_or_new(&mut flight)))
    }

    fn unavailable(&self, error: &RefreshError) -> KeyError {
        let wait = self
            .flight()
            .not_before
            .saturating_sub(self.clock.monotonic());
        let retry_after = wait.as_secs() + 1;
        let cause = error.to_string();
        match error {
            RefreshError::Discovery(
                DiscoveryError::Mismatch { .. }
                | DiscoveryError::Forbidden(_)
                | DiscoveryError::Malformed { .. },
            ) => KeyError::Metadata { retry_after, cause },
            _ => KeyError::Unavailable { retry_after, cause },
        }
    }

    /// The fetch that is running, or a new one. It goes on when nobody waits any more.
    fn running_or_new(self: &Arc<Self>, flight: &mut Flight) -> watch::Receiver<Outcome> {
        if let Some(running) = &flight.running {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flight.running = Some(receiver.clone());
        let cache = Arc::clone(self);
        tokio::spawn(traces::carried(async move {
            let result = tokio::time::timeout(DEADLINE, cache.refresh())
                .await
                .unwrap_or(Err(RefreshError::Late));
            cache.note(&result);
            let _ = sender.send(Some(result));
        }));
        receiver
    }

    /// Waits for a fetch.
    async fn ended(&self, mut outcome: watch::Receiver<Outcome>) -> Result<(), RefreshError> {
        let ended = outcome.wait_for(Option::is_some).await;
        if let Ok(result) = ended
            && let Some(result) = result.as_ref()
        {
            return result.clone();
        }
        self.flight().running = None;
        Err(RefreshError::Abandoned)
    }

    async fn refresh(&self) -> Result<(), RefreshError> {
        let began = self.clock.monotonic();
        let place = self.flight().place.clone();
        let (url, reach, found) = match place.filter(|(.., found)| began < *found + PLACE) {
            Some(place) => place,
            None => {
                let (url, reach) = key_set_url(&self.fetcher, &self.issuer).await?;
                (url, reach, began)
            }
        };
        let shown = url.to_string();
        let document =
            self.fetcher
                .get(&url, reach)
                .await
                .map_err(|error| RefreshError::Fetch {
                    url: shown.clone(),
                    error,
                })?;
        let set = KeySet::parse(&document.body, &self.algorithms)
            .map_err(|error| RefreshError::KeySet { url: shown, error })?;
        let now = self.clock.monotonic();
        let fresh = document
            .max_age
            .unwrap_or(FRESH)
            .clamp(FRESH_BOUNDS.0, FRESH_BOUNDS.1);
        // Refreshed at 80 % of its life, give or take 10 %, so that replicas do not agree.
        let share = rand::random_range(0.7..0.9);
        self.current.store(Some(Arc::new(Cached {
            set,
            fetched_at: now,
            refresh_at: now + Duration::from_secs(fresh).mul_f64(share),
            usable_until: now + USABLE,
        })));
        self.flight().place = Some((url, reach, found));
        Ok(())
    }

    fn note(&self, result: &Result<(), RefreshError>) {
        let name = &self.issuer.name;
        self.metrics.key_set_fetched(name, result.is_ok());
        let now = self.clock.monotonic();
        let mut flight = self.flight();
        flight.running = None;
        flight.tried = true;
        match result {
            Ok(()) => {
                if flight.failures > 0 {
                    tracing::info!(issuer = name, "the issuer's key set is back");
                }
                flight.failures = 0;
                flight.not_before = Duration::ZERO;
            }
            Err(error) => {
                let backoff = Duration::from_secs(1 << flight.failures.min(6)).min(MAX_BACKOFF);
                flight.failures = flight.failures.saturating_add(1);
                flight.not_before = now + backoff.mul_f64(rand::random_range(0.5..1.0));
                flight.place = None;
                flight.last_error = Some((error.clone(), now));
                tracing::warn!(
                    issuer = name,
                    failures = flight.failures,
                    %error,
                    "the issuer's key set could not be fetched"
                );
            }
        }
    }

    /// Keeps the set fresh, for ever: the first fetch at once, then ahead of each expiry.
    pub async fn keep_fresh(self: Arc<Self>) {
        if self.only.is_some() {
            self.flight().tried = true;
            return;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let now = self.clock.monotonic();
            let outcome = {
                let mut flight = self.flight();
                let due = self
                    .current
                    .load()
                    .as_ref()
                    .is_none_or(|cached| now >= cached.refresh_at);
                (due && now >= flight.not_before).then(|| self.running_or_new(&mut flight))
            };
            if let Some(outcome) = outcome {
                // Its end is noted where it ends.
                let _ = self.ended(outcome).await;
            }
        }
    }

    /// Whether the first fetch has ended, well or not.
    pub fn tried(&self) -> bool {
        self.only.is_some() || self.flight().tried
    }

    /// The issuer's kind.
    pub fn kind(&self) -> IssuerKind {
        self.issuer.kind
    }

    /// The issuer's name.
    pub fn name(&self) -> &str {
        &self.issuer.name
    }

    /// Seconds since the set was fetched, where one was.
    pub fn age(&self) -> Option<f64> {
        let cached = self.current.load_full()?;
        Some(
            self.clock
                .monotonic()
                .saturating_sub(cached.fetched_at)
                .as_secs_f64(),
        )
    }

    /// How the set stands.
    pub fn standing(&self) -> Standing {
        if let Some(only) = &self.only {
            return Standing {
                configured: true,
                keys: only.overview().len(),
                age: None,
                failed: None,
                failures: 0,
            };
        }
        let (failed, failures) = {
            let flight = self.flight();
            (flight.last_error.clone(), flight.failures)
        };
        let now = self.clock.monotonic();
        let failed = failed.map(|(error, at)| Failed {
            code: self.unavailable(&error).refusal().code,
            cause: error.bare(),
            age: now.saturating_sub(at).as_secs_f64(),
        });
        let cached = self.current.load();
        Standing {
            configured: false,
            keys: cached
                .as_ref()
                .map_or(0, |cached| cached.set.overview().len()),
            age: self.age(),
            failed,
            failures,
        }
    }

    /// Whether one of these keys is the issuer's too, looked up as a token's key is.
    pub async fn shares_a_key(
        self: &Arc<Self>,
        keys: &[(String, PublicKey)],
    ) -> Result<bool, KeyError> {
        if let Some(only) = &self.only {
            return Ok(only.shares_a_key(keys));
        }
        for (kid, _) in keys {
            match self.find(Some(kid), Algorithm::RS256).await {
                Ok(_) | Err(KeyError::Unusable(_)) => return Ok(true),
                Err(KeyError::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The set in a line, for operators: its kids and its age.
    pub fn describe(&self) -> String {
        let kids = |set: &KeySet| {
            let kids: Vec<String> = set
                .overview()
                .into_iter()
                .take(8)
                .map(|(kid, unusable)| match unusable {
                    None => kid.to_owned(),
                    Some(reason) => format!("{kid} (not used: {reason})"),
                })
                .collect();
            kids.join(", ")
        };
        if let Some(only) = &self.only {
            return format!("the configured key: {}", kids(only));
        }
        match (self.current.load_full(), self.age()) {
            (Some(cached), Some(age)) => {
                format!("one of {} (fetched {age:.0} s ago)", kids(&cached.set))
            }
            _ => "a key set, which was never fetched".to_owned(),
        }
    }
}

fn found(found: Found) -> Result<Arc<VerifyingKey>, KeyError> {
    match found {
        Found::Key(key) => Ok(key),
        Found::Unusable(reason) => Err(KeyError::Unusable(reason)),
        Found::Unknown => Err(KeyError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_fetch_failed_is_told_to_operators_without_an_address() {
        let empty = RefreshError::KeySet {
            url: "https://idp.example/keys".to_owned(),
            error: KeySetError::Empty,
        };
        assert_eq!(empty.bare(), "key set: no key of the set has a `kid`");
        assert_eq!(RefreshError::Late.bare(), "no key set within 4 s");
    }

    #[test]
    fn so_many_missing_kids_are_remembered_and_no_more_until_they_are_old() {
        let mut flight = Flight::default();
        let start = Duration::from_secs(1000);
        for index in 0..MAX_MISSING {
            flight.remember_missing(&index.to_string(), start);
        }
        flight.remember_missing("more", start + MISSING - Duration::from_secs(1));
        assert_eq!(flight.missing.len(), MAX_MISSING);
        assert!(!flight.missing.contains_key("more"));
        flight.remember_missing("later", start + MISSING);
        assert_eq!(Vec::from_iter(flight.missing.keys()), ["later"]);
    }
}
