//! Where a provider's endpoints are: as configured, else as discovered.
//!
//! What was discovered has two clocks, as a key set has: it is looked up anew after an hour,
//! while nobody waits, and serves for a day while that fails. Discovery that fails is tried
//! again after a pause that grows; until then whoever needs it is refused at once.

use crate::clock::Clock;
use crate::config::ProviderSettings;
use crate::explain::{Code, Refusal, Source};
use crate::subject::address::{self, Reach};
use crate::subject::discovery::{DiscoveryError, sign_in_urls};
use crate::subject::fetch::Fetcher;
use crate::subject::guard::whole_seconds;
use crate::telemetry::traces;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use url::Url;

/// How long discovered endpoints are believed without another look.
const FRESH: Duration = Duration::from_secs(3600);
/// How long they serve while that look fails.
const USABLE: Duration = Duration::from_secs(86_400);
/// The bounds of how long discovery that failed is not tried again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A provider's endpoints.
#[derive(Clone)]
pub struct Endpoints {
    /// Where users are sent to.
    pub authorization: Url,
    /// Where codes are exchanged, and how far a request there may reach.
    pub token: (Url, Reach),
}

/// Why there are none.
#[derive(Debug, Clone)]
enum Unknown {
    /// Discovery failed.
    Failed(DiscoveryError),
    /// The task that looked ended early.
    GivenUp,
}

/// An endpoint, and how far a request there may reach.
type Place = (Url, Reach);

type Outcome = Option<Result<Endpoints, Unknown>>;

/// The places of one provider.
pub(super) struct Places {
    settings: ProviderSettings,
    fetcher: Fetcher,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was found, and when.
    found: Option<(Endpoints, Duration)>,
    running: Option<watch::Receiver<Outcome>>,
    failures: u32,
    /// Why it was not found, and until when nobody looks again.
    failed: Option<(Unknown, Duration)>,
}

impl Places {
    pub(super) fn new(settings: &ProviderSettings, fetcher: &Fetcher, clock: &Clock) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            fetcher: fetcher.clone(),
            clock: clock.clone(),
            state: Mutex::default(),
        })
    }

    /// The endpoints. Only who comes when none are known waits.
    pub(super) async fn endpoints(self: &Arc<Self>) -> Result<Endpoints, Box<Refusal>> {
        let (authorization, token) = self.configured();
        if let (Some((authorization, _)), Some(token)) = (authorization, token) {
            return Ok(Endpoints {
                authorization,
                token,
            });
        }
        let mut looking = {
            let mut state = self.state();
            let now = self.clock.monotonic();
            let paused = state.failed.as_ref().filter(|(_, until)| now < *until);
            let paused = paused.map(|(why, until)| (why.clone(), *until - now));
            let found = state.found.as_ref().filter(|(_, at)| now < *at + USABLE);
            if let Some((endpoints, at)) = found.cloned() {
                if now >= at + FRESH && paused.is_none() {
                    self.looking(&mut state);
                }
                return Ok(endpoints);
            }
            if let Some((why, left)) = paused {
                return Err(why.refusal(left));
            }
            self.looking(&mut state)
        };
        let ended = looking.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        outcome
            .unwrap_or(Err(Unknown::GivenUp))
            .map_err(|why| why.refusal(PAUSE.0))
    }

    /// The look that is under way, or a new one. It goes on when nobody waits any more.
    fn looking(self: &Arc<Self>, state: &mut State) -> watch::Receiver<Outcome> {
        // One whose task is gone is none.
        let running = state.running.as_ref();
        if let Some(running) = running.filter(|running| running.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        state.running = Some(receiver.clone());
        let places = Arc::clone(self);
        tokio::spawn(traces::carried(async move {
            let outcome = places.discover().await;
            places.note(&outcome);
            let _ = sender.send(Some(outcome.map_err(Unknown::Failed)));
        }));
        receiver
    }

    async fn discover(&self) -> Result<Endpoints, DiscoveryError> {
        let settings = &self.settings;
        let private = settings.allow_private_network;
        let ((found, _), exchanges) =
            sign_in_urls(&self.fetcher, &settings.issuer, private).await?;
        let (authorization, token) = self.configured();
        Ok(Endpoints {
            authorization: authorization.map_or(found, |(url, _)| url),
            token: token.unwrap_or(exchanges),
        })
    }

    fn configured(&self) -> (Option<Place>, Option<Place>) {
        let settings = &self.settings;
        let place = |text: &Option<String>| {
            let url = Url::parse(text.as_deref()?).ok()?;
            let reach = address::configured(&url, settings.allow_private_network);
            Some((url, reach))
        };
        (
            place(&settings.authorization_endpoint),
            place(&settings.token_endpoint),
        )
    }

    fn note(&self, outcome: &Result<Endpoints, DiscoveryError>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.running = None;
        match outcome {
            Ok(endpoints) => {
                state.found = Some((endpoints.clone(), now));
                state.failures = 0;
                state.failed = None;
            }
            Err(error) => {
                let whole = PAUSE.0.saturating_mul(1 << state.failures.min(6));
                let pause = whole.min(PAUSE.1).mul_f64(rand::random_range(0.5..1.0));
                state.failures = state.failures.saturating_add(1);
                state.failed = Some((Unknown::Failed(error.clone()), now + pause));
                let known = state.found.is_some();
                drop(state);
                tracing::warn!(
                    provider = self.settings.name,
                    known,
                    %error,
                    "the provider's endpoints could not be looked up"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it ever did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unknown {
    /// The refusal that this is for a caller, and when to come again.
    fn refusal(self, left: Duration) -> Box<Refusal> {
        let after = whole_seconds(left).max(1);
        match self {
            Self::GivenUp => Refusal::new(Code::ProviderUnavailable)
                .unavailable(Source::UpstreamIdp, after)
                .caused_by("the look for its endpoints was given up"),
            Self::Failed(error @ DiscoveryError::Fetch { .. }) => {
                Refusal::new(Code::ProviderUnavailable)
                    .unavailable(Source::UpstreamIdp, after)
                    .caused_by(error)
            }
            Self::Failed(error) => Refusal::new(Code::IssuerMetadataInvalid)
                .unavailable(Source::UpstreamIdp, after)
                .caused_by(error),
        }
    }
}
