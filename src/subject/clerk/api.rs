//! Clerk's Backend API: how it is asked, and what its refusals mean.
//!
//! A caller waits four seconds at most, whatever it asks for. What fails is asked once more,
//! where that changes nothing and the budget of retries allows; an API that fails in a row,
//! or says 429, is left alone for a while, and whoever needs it is refused at once.

use super::instance::Instance;
use crate::clock::Clock;
use crate::config::{BackendSettings, IssuerSettings};
use crate::explain::{Code, Refusal, Source};
use crate::subject::address::{Reach, configured};
use crate::subject::breaker::{Held, Pass};
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use crate::subject::guard::{Guard, LEFT_ALONE, Outcome, whole_seconds};
use crate::subject::json::Object;
use crate::telemetry::{Metrics, ProviderResult, traces};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// All that one caller asks for.
const DEADLINE: Duration = Duration::from_secs(4);
/// One attempt of it.
const ATTEMPT: Duration = Duration::from_millis(1900);
/// The longest pause before the second attempt; it waits half of it at least.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a 429 without a `Retry-After` is respected, seconds.
const COOL_DOWN: u64 = 5;

/// Why the Backend API gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 401 or 403: the secret key is wrong.
    #[error("it refused our secret key: {0}")]
    KeyRefused(String),
    /// 404: there is no such object in this instance.
    #[error("it has no such object")]
    NotFound,
    /// 429, now or a while ago, and after how many seconds to ask again.
    #[error("it answered 429")]
    RateLimited(u64),
    /// Another status of the 4xx.
    #[error("it answered {0}: {1}")]
    Refused(u16, String),
    /// It could not be asked, or answered 5xx, or with what is no JSON object.
    #[error("{0}")]
    Unavailable(String),
}

/// The Backend API of one Clerk instance.
pub struct BackendApi {
    settings: BackendSettings,
    base: Url,
    reach: Reach,
    fetcher: Fetcher,
    clock: Clock,
    guard: Guard,
    pub(super) instance: Instance,
}

/// One caller's questions to the Backend API: they share its deadline and its trace.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub(super) api: &'a BackendApi,
    traceparent: Option<&'a str>,
    until: Instant,
}

impl BackendApi {
    /// The API that the issuer's settings name; `None` where they have no secret key.
    pub fn of(
        issuer: &IssuerSettings,
        fetcher: &Fetcher,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, url::ParseError> {
        let Some(settings) = &issuer.backend else {
            return Ok(None);
        };
        let base = Url::parse(&format!("{}/v1/", settings.url))?;
        Ok(Some(Self {
            reach: configured(&base, issuer.allow_private_network),
            settings: settings.clone(),
            base,
            fetcher: fetcher.clone(),
            clock: clock.clone(),
            guard: Guard::new(&issuer.name, "backend", clock, metrics),
            instance: Instance::default(),
        }))
    }

    /// Begins what one caller asks for: all of it ends within four seconds. `traceparent`
    /// (W3C Trace Context §3.2) is passed on.
    pub fn asking<'a>(&'a self, traceparent: Option<&'a str>) -> Asking<'a> {
        Asking {
            api: self,
            traceparent,
            until: Instant::now() + DEADLINE,
        }
    }

    /// The secret key that machine tokens are verified with.
    pub fn machine_key(&self) -> Option<&SecretString> {
        self.settings.machine_secret_key.as_ref()
    }

    /// The time that its memory goes by.
    pub(super) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn url(&self, path: &str) -> Result<Url, ApiError> {
        self.base
            .join(path)
            .ok()
            .filter(|url| url.as_str().starts_with(self.base.as_str()))
            .ok_or_else(|| ApiError::Unavailable("the path is none of the API's".to_owned()))
    }

    fn note(&self, pass: Pass, outcome: &Result<Vec<u8>, ApiError>) {
        let outcome = match outcome {
            Ok(_) => Outcome::Answered(ProviderResult::Ok),
            Err(ApiError::NotFound) => Outcome::Answered(ProviderResult::NotFound),
            Err(ApiError::KeyRefused(_)) => Outcome::Answered(ProviderResult::KeyRefused),
            Err(ApiError::Refused(..)) => Outcome::Answered(ProviderResult::Refused),
            Err(ApiError::RateLimited(seconds)) => Outcome::RateLimited(*seconds),
            Err(ApiError::Unavailable(cause)) => Outcome::Failed(cause),
        };
        self.guard.note(pass, outcome);
    }
}

impl Asking<'_> {
    /// Gets an object; `path` is relative to `/v1/`, its parts checked by the caller.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        self.ask(Method::GET, path, &self.api.settings.secret_key, None)
            .await
    }

    /// Gets an object and reads what is wanted of it.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::odd(&error))
    }

    /// Asks for the verification of a token: a POST that changes nothing.
    pub async fn verify(
        &self,
        path: &str,
        body: &Value,
        key: Option<&SecretString>,
    ) -> Result<Vec<u8>, ApiError> {
        let key = key.unwrap_or(&self.api.settings.secret_key);
        self.ask(Method::POST, path, key, Some(body)).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        key: &SecretString,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, ApiError> {
        let (api, url) = (self.api, self.api.url(path)?);
        if self.until <= Instant::now() {
            return Err(late());
        }
        let pass = api.guard.admit()?;
        let attempt = || self.attempt(method.clone(), &url, key, body);
        let (first, again) = attempt().await;
        api.note(pass, &first);
        if !again {
            return first;
        }
        let pause = PAUSE.mul_f64(rand::random_range(0.5..1.0));
        if self.until <= Instant::now() + pause {
            return first;
        }
        tokio::time::sleep(pause).await;
        let Some(pass) = api.guard.admit_again() else {
            return first;
        };
        let (second, _) = attempt().await;
        api.note(pass, &second);
        second
    }

    /// Asks once; also tells whether it may be asked again. A GET may wherever it gave no
    /// answer; the verification of a token only where the API itself says that it failed, or
    /// the connection broke: what was taken in and never answered is not sent twice.
    async fn attempt(
        &self,
        method: Method,
        url: &Url,
        key: &SecretString,
        body: Option<&Value>,
    ) -> (Result<Vec<u8>, ApiError>, bool) {
        let api = self.api;
        let reads = method == Method::GET;
        let sent = api.fetcher.send(method, url, api.reach, |request| {
            let mut request = request
                .bearer_auth(key.expose_secret())
                .header("clerk-api-version", &api.settings.version);
            if let Some(given) = self.traceparent {
                let own = traces::traceparent();
                request = request.header("traceparent", own.as_deref().unwrap_or(given));
            }
            match body {
                None => request,
                Some(body) => request
                    .header("content-type", "application/json")
                    .body(body.to_string()),
            }
        });
        let until = self.until.min(Instant::now() + ATTEMPT);
        match tokio::time::timeout_at(until, sent).await {
            Err(_) => (Err(late()), reads),
            Ok(Err(error)) => {
                let again = match error {
                    FetchError::Transport(_) => true,
                    FetchError::Timeout => reads,
                    _ => false,
                };
                (Err(ApiError::Unavailable(error.to_string())), again)
            }
            Ok(Ok(reply)) => {
                let failed = reply.status >= 500;
                let outcome = judge(reply, api.clock.now());
                let unavailable = matches!(outcome, Err(ApiError::Unavailable(_)));
                (outcome, unavailable && (reads || failed))
            }
        }
    }
}

fn late() -> ApiError {
    ApiError::Unavailable("it did not answer in time".to_owned())
}

/// What an answer means.
fn judge(reply: Reply, now: i64) -> Result<Vec<u8>, ApiError> {
    match reply.status {
        200 if Object::parse(&reply.body).is_ok() => Ok(reply.body),
        200 => Err(ApiError::Unavailable(
            "its answer is no JSON object".to_owned(),
        )),
        401 | 403 => Err(ApiError::KeyRefused(error_code(&reply.body))),
        404 => Err(ApiError::NotFound),
        429 => Err(ApiError::RateLimited(
            reply.retry_after(now).unwrap_or(COOL_DOWN),
        )),
        400..500 => Err(ApiError::Refused(reply.status, error_code(&reply.body))),
        status => Err(ApiError::Unavailable(format!("it answered {status}"))),
    }
}

/// The code of the first error: a word of Clerk's, shortened.
fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body
        .pointer("/errors/0/code")
        .and_then(Value::as_str)
        .unwrap_or("no code");
    code.chars()
        .filter(|each| each.is_ascii_alphanumeric() || matches!(each, '_' | ' '))
        .take(64)
        .collect()
}

impl From<Held> for ApiError {
    fn from(held: Held) -> Self {
        match held {
            Held::Cooling(left) => Self::RateLimited(whole_seconds(left)),
            Held::Open(_) => Self::Unavailable(LEFT_ALONE.to_owned()),
        }
    }
}

impl ApiError {
    /// An answer of another shape; what it says instead may be personal.
    pub(super) fn odd(error: &serde_json::Error) -> Self {
        Self::Unavailable(format!(
            "its answer is not of its shape: line {}, column {}",
            error.line(),
            error.column()
        ))
    }

    /// The refusal that this is for a caller, where it says nothing of the credential.
    pub fn refusal(&self) -> Box<Refusal> {
        let (code, after) = match self {
            Self::KeyRefused(_) => (Code::ProviderCredentialsInvalid, 60),
            Self::RateLimited(after) => (Code::ProviderRateLimited, *after),
            Self::Refused(..) => (Code::ProviderRequestRefused, 60),
            Self::NotFound | Self::Unavailable(_) => (Code::ProviderUnavailable, 5),
        };
        Refusal::new(code)
            .unavailable(Source::UpstreamIdp, after)
            .caused_by(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_of_an_error_goes_to_the_log() {
        let body = br#"{"errors":[{"code":"clerk_key_invalid\u001b[2J<b>","message":"sk_x"}]}"#;
        assert_eq!(error_code(body), "clerk_key_invalid2Jb");
        assert_eq!(error_code(b"<html>"), "no code");
    }
}
