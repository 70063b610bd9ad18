//! Token introspection (RFC 7662): an authorization server is asked whether a token is active
//! and what it stands for.

use super::address::Reach;
use super::breaker::{Held, Pass};
use super::claims::date;
use super::discovery::{DiscoveryError, introspection_url};
use super::fetch::{Fetcher, Reply};
use super::guard::{Guard, LEFT_ALONE, Outcome, whole_seconds};
use super::json::{Json, Object};
use super::opaque::Told;
use crate::clock::{Clock, UnixSeconds};
use crate::config::{IntrospectionSettings, IssuerSettings};
use crate::explain::{Code, Refusal, Source};
use crate::telemetry::{Metrics, ProviderResult, traces};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// The whole of a question, discovery and endpoint together.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long a 429 without a `Retry-After` is respected, seconds.
const COOL_DOWN: u64 = 5;
/// How long a discovered endpoint is believed.
const PLACE: Duration = Duration::from_secs(3600);
/// How long discovery that failed is not tried again.
const PAUSE: Duration = Duration::from_secs(5);

type Refused = Box<Refusal>;

/// Where the endpoint is.
enum Place {
    Unknown,
    Found(Url, Reach, Duration),
    Failed(DiscoveryError, Duration),
}

/// An introspection endpoint and how it is asked.
pub struct Introspection {
    issuer: IssuerSettings,
    settings: IntrospectionSettings,
    fetcher: Fetcher,
    clock: Clock,
    guard: Guard,
    place: Mutex<Place>,
}

impl Introspection {
    /// The issuer's endpoint, where credentials for it are configured.
    pub fn new(
        issuer: &IssuerSettings,
        fetcher: &Fetcher,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        Some(Self {
            settings: issuer.introspection.clone()?,
            issuer: issuer.clone(),
            fetcher: fetcher.clone(),
            clock: clock.clone(),
            guard: Guard::new(&issuer.name, "introspection", clock, metrics),
            place: Mutex::new(Place::Unknown),
        })
    }

    /// Asks about a token; it ends within four seconds. `traceparent` is passed on.
    ///
    /// # Errors
    /// Where nothing was learnt of the token: the server could not be asked, refused our
    /// credentials, or did not answer as RFC 7662 §2.2 has it.
    pub async fn ask(&self, token: &str, traceparent: Option<&str>) -> Result<Told, Refused> {
        let pass = self.guard.admit().map_err(|held| match held {
            Held::Cooling(left) => rate_limited(whole_seconds(left)),
            Held::Open(_) => unavailable(LEFT_ALONE),
        })?;
        let told = tokio::time::timeout(DEADLINE, self.question(token, traceparent));
        let told = told
            .await
            .unwrap_or_else(|_| Err(unavailable("it did not answer in time")));
        self.note(pass, &told);
        told
    }

    async fn question(&self, token: &str, traceparent: Option<&str>) -> Result<Told, Refused> {
        let (url, reach) = self.place().await.map_err(|error| match error {
            DiscoveryError::Fetch { .. } => unavailable(error),
            other => Refusal::new(Code::IssuerMetadataInvalid)
                .unavailable(Source::UpstreamIdp, PAUSE.as_secs())
                .caused_by(other),
        })?;
        let body: String = Serializer::new(String::new())
            .append_pair("token", token)
            .finish();
        // RFC 6749 §2.3.1: each encoded as in a form, then joined.
        let encoded = |text: &str| {
            let encoded: String = byte_serialize(text.as_bytes()).collect();
            SecretString::from(encoded)
        };
        let id = encoded(&self.settings.client_id);
        let secret = encoded(self.settings.client_secret.expose_secret());
        let reply = self.fetcher.send(Method::POST, &url, reach, |request| {
            let request = request
                .basic_auth(id.expose_secret(), Some(secret.expose_secret()))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
            match traceparent {
                None => request,
                Some(given) => {
                    let own = traces::traceparent();
                    request.header("traceparent", own.as_deref().unwrap_or(given))
                }
            }
        });
        let reply = reply.await.map_err(unavailable)?;
        if reply.status == 404 {
            // Perhaps it has moved.
            *self.place.lock().await = Place::Unknown;
        }
        read(reply, self.clock.now())
    }

    fn note(&self, pass: Pass, told: &Result<Told, Refused>) {
        let outcome = match told {
            Ok(Told::Active { .. }) => Outcome::Answered(ProviderResult::Ok),
            Ok(Told::Not(_)) => Outcome::Answered(ProviderResult::NotFound),
            Err(refusal) => match refusal.code {
                Code::ProviderUnavailable => {
                    Outcome::Failed(refusal.cause.as_deref().unwrap_or_default())
                }
                Code::ProviderRateLimited => {
                    Outcome::RateLimited(refusal.retry_after.unwrap_or(COOL_DOWN))
                }
                Code::ProviderCredentialsInvalid => Outcome::Answered(ProviderResult::KeyRefused),
                _ => Outcome::Answered(ProviderResult::Refused),
            },
        };
        self.guard.note(pass, outcome);
    }

    async fn place(&self) -> Result<(Url, Reach), DiscoveryError> {
        let mut place = self.place.lock().await;
        let now = self.clock.monotonic();
        match &*place {
            Place::Found(url, reach, at) if now < *at + PLACE => return Ok((url.clone(), *reach)),
            Place::Failed(error, at) if now < *at + PAUSE => return Err(error.clone()),
            _ => {}
        }
        let endpoint = self.settings.endpoint.as_deref();
        let found = introspection_url(&self.fetcher, &self.issuer, endpoint).await;
        *place = match &found {
            Ok((url, reach)) => Place::Found(url.clone(), *reach, now),
            Err(error) => Place::Failed(error.clone(), now),
        };
        found
    }
}

/// What an answer means: `active` counts only where it is true, and the status 200.
fn read(reply: Reply, now: UnixSeconds) -> Result<Told, Refused> {
    match reply.status {
        200 => {}
        401 | 403 => return Err(credentials_refused(reply.status)),
        // RFC 6749 §5.2 lets a server say so with 400.
        400 if error(&reply.body).as_deref() == Some("invalid_client") => {
            return Err(credentials_refused(400));
        }
        // It cannot be one of its tokens; but that is not said so clearly that it is kept.
        400 | 422 if error(&reply.body).is_some() => {
            return Err(Refusal::new(Code::SubjectTokenInactive).caused_by(format!(
                "the introspection endpoint answered {}",
                reply.status
            )));
        }
        429 => {
            return Err(rate_limited(reply.retry_after(now).unwrap_or(COOL_DOWN)));
        }
        status => {
            return Err(unavailable(format!(
                "the introspection endpoint answered {status}"
            )));
        }
    }
    let answer = Object::parse(&reply.body)
        .map_err(|_| unavailable("the introspection endpoint answered with no JSON object"))?;
    match answer.get("active") {
        Some(Json::Bool(true)) => {
            let expires_at = answer.get("exp").and_then(date);
            drop(answer);
            Ok(Told::Active {
                claims: reply.body,
                expires_at,
            })
        }
        Some(Json::Bool(false)) => Ok(Told::Not(Code::SubjectTokenInactive)),
        _ => Err(unavailable(
            "the introspection endpoint's `active` is neither true nor false",
        )),
    }
}

/// The error that an answer says (RFC 6749 §5.2).
fn error(body: &[u8]) -> Option<String> {
    Object::parse(body).ok()?.text("error").map(str::to_owned)
}

fn credentials_refused(status: u16) -> Refused {
    Refusal::new(Code::ProviderCredentialsInvalid)
        .unavailable(Source::UpstreamIdp, 60)
        .caused_by(format!(
            "the introspection endpoint answered {status} to our client id and secret"
        ))
}

fn rate_limited(retry_after: u64) -> Refused {
    Refusal::new(Code::ProviderRateLimited)
        .unavailable(Source::UpstreamIdp, retry_after)
        .caused_by("the introspection endpoint answered 429")
}

fn unavailable(cause: impl std::fmt::Display) -> Refused {
    Refusal::new(Code::ProviderUnavailable)
        .unavailable(Source::UpstreamIdp, 5)
        .caused_by(cause)
}
