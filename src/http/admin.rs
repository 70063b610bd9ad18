//! The admin listener: health and metrics, for the platform alone, and the registry of clients
//! for `exchequer clients`. Beside them the console, for people.

use super::admission::Admission;
use super::console::{self, Console};
use super::doors::Doors;
use super::route::Route;
use super::routes::{GET, only};
use super::{answer, body};
use crate::crypto::is_secret;
use crate::exchange::Exchange;
use crate::explain::{Code, Refusal};
use crate::keys::ring::State;
use crate::oauth::registry::{Listed, Order, Registry};
use crate::subject::key_cache::KeyCache;
use crate::telemetry::{KeyInfo, Metrics};
use bytes::Buf;
use futures_util::Stream;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use warp::Filter;
use warp::reply::Response as Answer;

const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the probes and the scrape look at.
pub struct Admin {
    /// The service.
    pub exchange: Arc<Exchange>,
    /// The issuers' key sets.
    pub key_sets: Vec<Arc<KeyCache>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What the public listener takes on.
    pub admission: Arc<Admission>,
    /// Whether the service is draining.
    pub draining: Arc<AtomicBool>,
    /// The clients that are registered at run time.
    pub registry: Arc<Registry>,
    /// The bearer token of whoever may change them; nobody may where there is none.
    pub token: Option<SecretString>,
    /// The console, where it is on and protected.
    pub console: Option<Arc<Console>>,
}

impl Admin {
    /// Ready is whoever can mint; an upstream that is down does not change that.
    pub(super) fn ready(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining\n");
        }
        let published = self.exchange.keys.published();
        let every_app_signs = self
            .exchange
            .apps
            .iter()
            .all(|app| published.signer(app.settings.algorithm).is_some());
        if every_app_signs {
            Ok(())
        } else {
            Err(self.exchange.keys.why_mute())
        }
    }

    /// Started is whoever has tried to fetch every issuer's keys once.
    fn started(&self) -> Result<(), &'static str> {
        if self.key_sets.iter().all(|keys| keys.tried()) {
            Ok(())
        } else {
            Err("fetching key sets\n")
        }
    }

    fn metrics(&self) -> String {
        self.metrics.loaded(self.admission.load());
        let ages = self
            .key_sets
            .iter()
            .filter_map(|keys| Some((keys.name().to_owned(), keys.age()?)));
        let published = self.exchange.keys.published();
        let keys = published.overview.iter().map(|key| KeyInfo {
            kid: key.kid.clone(),
            alg: key.alg,
            state: key.state.name(),
            signs_at: key.changes_at.filter(|_| key.state == State::Next),
        });
        self.metrics.render(keys, self.exchange.clock.now(), ages)
    }
}

/// `POST /clients`, for `exchequer clients`: an [`Order`], and whom it was about.
async fn clients<B: Buf>(
    admin: &Admin,
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Vec<Listed>, Box<Refusal>> {
    let token = admin.token.as_ref();
    let token = token.ok_or_else(|| Refusal::new(Code::NotFound))?;
    let sent = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    if !is_secret(sent.unwrap_or_default(), token) {
        return Err(Refusal::new(Code::AdminTokenInvalid));
    }
    let bytes = body::read_alone(headers, stream).await?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| {
        Refusal::because(
            Code::BodyMalformed,
            format!("The request body is no order: {error}."),
        )
    })?;
    admin.registry.obey(order).await
}

fn probe(result: Result<(), &'static str>) -> Answer {
    match result {
        Ok(()) => answer::plain(StatusCode::OK, TEXT, "ok\n"),
        Err(why) => answer::plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

/// The admin listener's routes.
pub fn routes(admin: Arc<Admin>) -> Doors {
    let doors = console::routes(&admin);
    let admin = warp::any().map(move || Arc::clone(&admin));
    let get = || only(GET);
    let live = get().map(|| probe(Ok(())));
    let ready = get()
        .and(admin.clone())
        .map(|admin: Arc<Admin>| probe(admin.ready()));
    let started = get()
        .and(admin.clone())
        .map(|admin: Arc<Admin>| probe(admin.started()));
    let metrics = get()
        .and(admin.clone())
        .map(|admin: Arc<Admin>| answer::plain(StatusCode::OK, OPENMETRICS, admin.metrics()));
    let clients = only("POST")
        .and(admin)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(|admin: Arc<Admin>, headers: HeaderMap, body| async move {
            match clients(&admin, &headers, body).await {
                Ok(told) => answer::ok(&told, 256),
                Err(refusal) => answer::refused(refusal),
            }
        });
    doors
        .at_each(Route::Other, &["/livez", "/healthz"], live)
        .at(Route::Other, "/readyz", ready)
        .at(Route::Other, "/startupz", started)
        .at(Route::Other, "/metrics", metrics)
        .at(Route::Other, "/clients", clients)
}
