//! A stand-in for one Clerk instance on loopback, for `exchequer dev` and for tests.
//!
//! It answers as Clerk's Frontend API and Backend API do, signs the tokens and the webhooks
//! that Clerk signs, and misbehaves when told to. Its key, its secrets and its
//! [`World`] live as long as the process. `tests/suite/standin.rs` holds it against Clerk's
//! own SDK; where that and Clerk's documentation differ, the SDK is followed.

mod backend;
mod frontend;
mod objects;
mod server;
mod sign_in;
mod tokens;
mod webhook;
mod world;

use crate::clock::Clock;
use crate::config::WebhookSecret;
use crate::crypto::{BackendFailed, KeyRejected, SigningKey};
use crate::subject::fetch::Fetcher;
use jsonwebtoken::Algorithm;
use rand::distr::{Alphanumeric, SampleString};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

pub use server::Fault;
pub use tokens::Session;
pub use webhook::Undelivered;
pub use world::{TokenKind, World};

/// The ids of what a new stand-in's world holds.
pub mod known {
    /// The user, who administers the organisation.
    pub const USER: &str = "user_2standin";
    /// The user's session, active and acting for the organisation.
    pub const SESSION: &str = "sess_2standin";
    /// The organisation.
    pub const ORGANIZATION: &str = "org_2standin";
}

/// Why the stand-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// Its listener.
    #[error("the stand-in cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// Its key could not be made.
    #[error(transparent)]
    Backend(#[from] BackendFailed),
    /// Its key does not parse.
    #[error(transparent)]
    Key(#[from] KeyRejected),
    /// Its HTTP client, which delivers webhooks.
    #[error("the stand-in has no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// What an instance's dashboard shows: ids and secrets.
struct Credentials {
    instance: String,
    secret_key: String,
    machine_secret_key: String,
    webhook_secret: String,
    /// The bytes of the webhook secret.
    webhook_key: WebhookSecret,
    client_id: String,
    client_secret: String,
}

impl Credentials {
    fn new() -> Result<Self, BackendFailed> {
        let (webhook_secret, webhook_key) = webhook::secret()?;
        Ok(Self {
            instance: identifier("ins"),
            secret_key: identifier("sk_test"),
            machine_secret_key: identifier("ak"),
            webhook_secret,
            webhook_key,
            client_id: random_text(16),
            client_secret: random_text(32),
        })
    }
}

/// How it behaves, and what it was asked.
#[derive(Default)]
struct Conduct {
    fault: Option<Fault>,
    delay: Duration,
    calls: Vec<String>,
    /// The codes of its OAuth server that nobody has exchanged.
    codes: HashMap<String, sign_in::Given>,
    /// Where its webhooks go.
    endpoint: Option<String>,
    /// How long it waits before each try to deliver again.
    waits: Vec<Duration>,
}

/// A stand-in for one Clerk instance.
pub struct StandIn {
    url: String,
    credentials: Credentials,
    key: SigningKey,
    clock: Clock,
    fetcher: Fetcher,
    world: Mutex<World>,
    conduct: Mutex<Conduct>,
}

impl StandIn {
    /// Starts the stand-in on a free port of 127.0.0.1, with the world of [`known`].
    pub async fn start(clock: Clock) -> Result<Arc<Self>, StandInError> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let document = tokio::task::spawn_blocking(|| SigningKey::generate(Algorithm::RS256))
            .await
            .map_err(io::Error::other)??;
        let credentials = Credentials::new()?;
        let mut world = World::new(clock.clone(), credentials.client_id.clone());
        world.add_user(known::USER);
        world.add_membership(known::USER, known::ORGANIZATION, "org:admin");
        world.add_session(known::SESSION, known::USER, "active");
        let standin = Arc::new(Self {
            url: format!("http://{}", listener.local_addr()?),
            credentials,
            key: SigningKey::from_pkcs8(Algorithm::RS256, &document)?,
            clock,
            fetcher: Fetcher::new()?,
            world: Mutex::new(world),
            conduct: Mutex::new(Conduct {
                waits: webhook::SCHEDULE.to_vec(),
                ..Conduct::default()
            }),
        });
        tokio::spawn(server::serve(listener, Arc::clone(&standin)));
        Ok(standin)
    }

    /// The instance's `iss`, and the base URL of its Frontend API.
    pub fn issuer(&self) -> &str {
        &self.url
    }

    /// The base URL of the Backend API, without `/v1`.
    pub fn api_url(&self) -> &str {
        &self.url
    }

    /// The instance's id: the `kid` of its tokens.
    pub fn instance_id(&self) -> &str {
        &self.credentials.instance
    }

    /// The secret key of the Backend API: `sk_test_…`.
    pub fn secret_key(&self) -> &str {
        &self.credentials.secret_key
    }

    /// A machine's secret key, which verifies machine tokens and nothing else: `ak_…`.
    pub fn machine_secret_key(&self) -> &str {
        &self.credentials.machine_secret_key
    }

    /// What its webhooks are signed with: `whsec_…`.
    pub fn webhook_secret(&self) -> &str {
        &self.credentials.webhook_secret
    }

    /// The id and the secret of its OAuth client.
    pub fn oauth_client(&self) -> (&str, &str) {
        (&self.credentials.client_id, &self.credentials.client_secret)
    }

    /// Looks at what the instance knows, or changes it.
    pub fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut locked(&self.world))
    }

    /// How it answers on the Backend API and at its introspection endpoint, until `None`.
    pub fn fault(&self, fault: Option<Fault>) {
        locked(&self.conduct).fault = fault;
    }

    /// How long it takes to answer there.
    pub fn delay(&self, delay: Duration) {
        locked(&self.conduct).delay = delay;
    }

    /// The first ten thousand calls that it got, in their order, such as
    /// `GET /v1/sessions/sess_x`: method, path, and query where there is one.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.conduct).calls.clone()
    }

    /// Where [`POST /dev/sign-out`](self) sends its webhook.
    pub fn deliver_to(&self, url: &str) {
        locked(&self.conduct).endpoint = Some(url.to_owned());
    }

    /// How long [`send`](Self::send) waits before each further try, in the place of Svix's
    /// schedule of a day.
    pub fn retry_after(&self, waits: &[Duration]) {
        locked(&self.conduct).waits = waits.to_vec();
    }
}

/// A lock that whoever panicked with it does not keep.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id or a secret as Clerk writes them: a prefix and letters and digits.
fn identifier(prefix: &str) -> String {
    format!("{prefix}_{}", random_text(27))
}

fn random_text(length: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), length)
}
