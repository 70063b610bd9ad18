//! Fetching what is missing or stale from Clerk's Backend API: the same thing never twice at
//! once, and on when the request that began it is gone.

use super::projection::{Found, Origin};
use super::{Directory, Refused};
use crate::explain::{Code, Refusal, Source};
use crate::store::{Key, Kind, Record, StoreError, UnixMillis};
use crate::subject::Issuer;
use crate::subject::clerk::api::{ApiError, Asking};
use crate::subject::clerk::instance::Occasion;
use crate::telemetry::traces;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The whole of a fetch: nobody waits longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long nothing is refreshed after a failure.
const REST: Duration = Duration::from_secs(5);
/// The longest that a provider may ask us to rest.
const MAX_REST: u64 = 300;

/// What is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// A user.
    User(String),
    /// A user's membership in an organisation, and the organisation.
    Membership(String, String),
}

/// Why nothing was fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Lost {
    /// The Backend API.
    #[error("the Backend API: {0}")]
    Api(#[from] ApiError),
    /// The Backend API does not know the user: what that means.
    #[error("the Backend API does not know the user: {}", .0.code.entry().slug)]
    Unknown(Refused),
    /// What was fetched could not be kept.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// It took too long, or ended early.
    #[error("no answer within 5 s")]
    Late,
}

impl Lost {
    pub(super) fn refusal(&self) -> Refused {
        match self {
            Self::Api(ApiError::Unavailable(_)) | Self::Late => {
                Refusal::new(Code::ProfileUnavailable)
                    .unavailable(Source::UpstreamIdp, 5)
                    .caused_by(self)
            }
            Self::Api(error) => error.refusal(),
            Self::Unknown(refusal) => refusal.clone(),
            Self::Store(error) => error.clone().refusal(),
        }
    }
}

/// What was fetched, as it stands in the store now.
type Fetched = Arc<Vec<(Key, Record)>>;
type Outcome = Option<Result<Fetched, Lost>>;

/// The fetches that are running, and who is left alone for a while.
#[derive(Default)]
pub(super) struct Flights(Mutex<Air>);

#[derive(Default)]
struct Air {
    running: HashMap<Key, watch::Receiver<Outcome>>,
    /// By `iss`, on the monotonic clock.
    resting: HashMap<String, Duration>,
}

impl Flights {
    fn air(&self) -> MutexGuard<'_, Air> {
        // Nothing panics while it is held; if it ever did, the state is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Fetches in the background, unless a fetch has failed just now.
    pub(super) fn refresh(self: &Arc<Self>, issuer: &Arc<Issuer>, of: Of) {
        let now = self.clock.monotonic();
        let air = self.flights.air();
        let resting = air.resting.get(&issuer.settings.issuer);
        let resting = resting.is_some_and(|until| now < *until);
        drop(air);
        if !resting {
            drop(self.begin(issuer, of));
        }
    }

    /// Fetches, and waits for it.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        issuer: &Arc<Issuer>,
        of: Of,
    ) -> Result<Fetched, Lost> {
        let mut outcome = self.begin(issuer, of);
        let ended = outcome.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or(Err(Lost::Late))
    }

    /// The fetch that is running, or a new one.
    fn begin(self: &Arc<Self>, issuer: &Arc<Issuer>, of: Of) -> watch::Receiver<Outcome> {
        let iss = issuer.settings.issuer.as_str();
        let key = match &of {
            Of::User(user) => Key::of(Kind::User, &[iss, user]),
            Of::Membership(user, organization) => {
                Key::of(Kind::Membership, &[iss, user, organization])
            }
        };
        let mut air = self.flights.air();
        // One that ended without a word has let go of its sender.
        let running = air.running.get(&key);
        if let Some(running) = running.filter(|running| running.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        air.running.insert(key, receiver.clone());
        drop(air);
        let (directory, issuer) = (Arc::clone(self), Arc::clone(issuer));
        tokio::spawn(traces::carried(async move {
            let flight = directory.fly(&issuer, &of);
            let ended = tokio::time::timeout(DEADLINE, flight).await;
            let result = ended.unwrap_or(Err(Lost::Late));
            directory.land(&issuer, &key, &result);
            let _ = sender.send(Some(result));
        }));
        receiver
    }

    fn land(&self, issuer: &Issuer, key: &Key, result: &Result<Fetched, Lost>) {
        let now = self.clock.monotonic();
        let mut air = self.flights.air();
        air.running.remove(key);
        let Err(error) = result else {
            air.resting.remove(&issuer.settings.issuer);
            return;
        };
        let rest = match error {
            // It says nothing of the next one.
            Lost::Unknown(_) => return,
            Lost::Api(ApiError::RateLimited(after)) => Duration::from_secs(*after.min(&MAX_REST)),
            _ => REST,
        };
        let resting = air.resting.get(&issuer.settings.issuer);
        let told = resting.is_some_and(|until| now < *until);
        air.resting
            .insert(issuer.settings.issuer.clone(), now + rest);
        drop(air);
        if !told {
            let issuer = &issuer.settings.name;
            tracing::warn!(issuer, %error, "a profile could not be fetched");
        }
    }

    async fn fly(&self, issuer: &Issuer, of: &Of) -> Result<Fetched, Lost> {
        let iss = issuer.settings.issuer.as_str();
        let unavailable = |why: &str| Lost::Api(ApiError::Unavailable(why.to_owned()));
        let backend = issuer.backend.as_ref();
        let backend = backend.ok_or_else(|| unavailable("no secret_key is configured"))?;
        let instance = self.instances.get(iss);
        let instance = instance.ok_or_else(|| unavailable("no app asks about this issuer"))?;
        let (asked, fetched) = (&instance.asked, Origin::Fetched);
        let asking = backend.asking(None);
        let at: UnixMillis = self.clock.now().saturating_mul(1000);
        let found = match of {
            Of::User(id) => {
                let user = asking.read(&format!("users/{id}")).await;
                let user = known(user, asking, issuer).await?;
                let user = Found::user(iss, &user, asked, fetched, at);
                Vec::from_iter(user.filter(|found| found.user.as_ref() == Some(id)))
            }
            Of::Membership(user, organization) => {
                let membership = asking.membership(user, organization).await;
                match known(membership, asking, issuer).await? {
                    None => vec![
                        Found::no_membership(iss, user, organization),
                        Found::no_organization(iss, organization),
                    ],
                    Some(membership) => {
                        let of = membership.get("organization").unwrap_or(&Value::Null);
                        let organization = Found::organization(iss, of, asked, fetched, at);
                        let membership =
                            Found::membership(iss, user, &membership, asked, fetched, at);
                        organization.into_iter().chain(membership).collect()
                    }
                }
            }
        };
        if found.is_empty() {
            return Err(unavailable(
                "its answer is not the object that was asked for",
            ));
        }
        let change = self.change(iss, instance, &found, fetched).await?;
        let records = change.records.clone();
        match self.store.commit(change, self.clock.now()).await {
            // What was fetched serves, and is fetched again.
            Err(error) if self.store.is_shared() => tracing::warn!(%error, "a profile is not kept"),
            committed => drop(committed?),
        }
        Ok(Arc::new(records))
    }
}

/// What the API answers of a user whose token is genuine: one that it does not know was
/// deleted, unless the secret key is another instance's.
async fn known<T>(
    answer: Result<T, ApiError>,
    asking: Asking<'_>,
    issuer: &Issuer,
) -> Result<T, Lost> {
    let Err(ApiError::NotFound) = answer else {
        return Ok(answer?);
    };
    let other = asking.check_instance(issuer, Occasion::NotFound).await;
    let deleted = || Refusal::new(Code::UserDeleted).caused_by("the API does not know it");
    Err(Lost::Unknown(other.err().unwrap_or_else(deleted)))
}
