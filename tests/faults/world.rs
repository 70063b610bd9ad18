//! What every scenario has: a provider, replicas that trust it, and one address before them.

use super::balancer::Balancer;
use super::replicas::Replicas;
use super::support::service::Builder;
use super::support::{Issuer, Key, Service, Token, now};
use exchequer::clock::Clock;
use exchequer::standin::{Session, StandIn};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// The provider: a stand-in that knows sessions and signs webhooks, and an issuer of mere tokens
/// that can misbehave and whose clock can be moved.
pub struct Provider {
    pub clerk: Arc<StandIn>,
    pub plain: Issuer,
    /// How far the plain one's clock is moved, seconds.
    ahead: AtomicI64,
}

impl Provider {
    pub async fn start() -> Arc<Self> {
        Arc::new(Self {
            clerk: StandIn::start(Clock::system()).await.unwrap(),
            plain: Issuer::start().await,
            ahead: AtomicI64::new(0),
        })
    }

    /// A replica that trusts both, for the app `web` with these lines; it keeps its keys where
    /// the others do.
    pub fn replica(&self, shared: &TempDir, issuer_lines: &str) -> Builder {
        let (clerk, plain) = (self.clerk.issuer(), &self.plain.url);
        Service::builder()
            .config(&format!(
                "[issuers.clerk]\nissuer = {clerk:?}\nkind = \"clerk\"\napi_url = {clerk:?}\n\
                 secret_key = {{ env = \"KEY\" }}\nwebhook_secret = {{ env = \"HOOK\" }}\n{issuer_lines}\n\
                 [issuers.plain]\nissuer = {plain:?}\nkind = \"clerk\"\n{issuer_lines}\n\
                 [apps.web]\nissuers = [\"clerk\", \"plain\"]\n"
            ))
            .env("KEY", self.clerk.secret_key())
            .env("HOOK", self.clerk.webhook_secret())
            .env("EXCHEQUER_STORE", "memory")
            .env(
                "EXCHEQUER_CLOCK_SHIFT_FILE",
                shared.path().join("clock").display().to_string(),
            )
            .env(
                "EXCHEQUER_KEYS_DIR",
                shared.path().join("keys").display().to_string(),
            )
    }

    /// Moves the clock of the plain one.
    pub fn shift_clock(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }

    /// What its clock says.
    pub fn now(&self) -> i64 {
        now() + self.ahead.load(Ordering::Relaxed)
    }

    /// A session token of the plain one.
    pub fn token(&self) -> String {
        let now = self.now();
        Token::clerk(&self.plain.url)
            .claim("iat", now)
            .claim("nbf", now - 10)
            .claim("exp", now + 60)
            .sign(Key::rsa())
    }

    /// A session token of the stand-in, for this session.
    pub fn token_of(&self, session: &str) -> String {
        self.clerk.session_token(&Session {
            session: Some(session.to_owned()),
            // It does not say itself that its session has ended.
            status: Some("active".to_owned()),
            ..Session::default()
        })
    }
}

/// The provider, replicas, and one address before them.
pub struct World {
    pub provider: Arc<Provider>,
    pub replicas: Replicas,
    pub balancer: Balancer,
    /// What the replicas share.
    pub shared: TempDir,
}

impl World {
    /// So many replicas, each made by `make` from what all have.
    pub async fn start(count: usize, make: impl Fn(usize, Builder, &TempDir) -> Builder) -> Self {
        Self::with(count, "", make).await
    }

    /// The same, with these lines for each issuer.
    pub async fn with(
        count: usize,
        issuer_lines: &str,
        make: impl Fn(usize, Builder, &TempDir) -> Builder,
    ) -> Self {
        let provider = Provider::start().await;
        let shared = tempfile::tempdir().unwrap();
        let builders = (0..count)
            .map(|index| {
                let replica = provider.replica(&shared, issuer_lines);
                make(index, replica, &shared)
            })
            .collect();
        let replicas = Replicas::start(builders).await;
        Self {
            balancer: Balancer::before(&replicas.places).await,
            provider,
            replicas,
            shared,
        }
    }

    /// Moves the clocks of all replicas at once, seconds from the real ones: the wall clock, with
    /// that of the server that has the ring and then that of the plain provider, and the
    /// monotonic one.
    pub fn shift_clocks(&self, wall: i64, monotonic: i64) {
        let clock = self.shared.path().join("clock");
        std::fs::write(
            clock.with_extension("new"),
            format!("{wall} {monotonic} {wall}"),
        )
        .unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
        self.provider.shift_clock(wall);
    }
}
