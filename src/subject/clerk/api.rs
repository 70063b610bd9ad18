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
use crate::subject::breaker::{Breaker, Held, Pass};
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use crate::subject::json::Object;
use crate::telemetry::{Metrics, ProviderResult};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use url::Url;

/// All that one caller asks for.
const DEADLINE: Duration = Duration::from_secs(4);
/// One attempt of it.
const ATTEMPT: Duration = Duration::from_millis(1900);
/// The longest pause before the second attempt; it waits half of it at least.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a 429 without a `Retry-After` is respected.
const COOL_DOWN: Duration = Duration::from_secs(5);

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
    metrics: Arc<Metrics>,
    /// The issuer's name, for the log and the metrics.
    name: String,
    breaker: Mutex<Breaker>,
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
            metrics: Arc::clone(metrics),
            name: issuer.name.clone(),
            breaker: Mutex::default(),
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

    /// Gets an object; `path` is relative to `/v1/`, its parts checked by the caller.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        self.asking(None).get(path).await
    }

    /// Asks for the verification of a token: a POST that changes nothing.
    pub async fn verify(
        &self,
        path: &str,
        body: &Value,
        key: Option<&SecretString>,
    ) -> Result<Vec<u8>, ApiError> {
        self.asking(None).verify(path, body, key).await
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

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Nothing panics while it is held; if it ever did, the state is still whole.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, held: Held) -> ApiError {
        self.metrics
            .provider_asked(&self.name, ProviderResult::NotAsked);
        match held {
            Held::Cooling(left) => ApiError::RateLimited(whole_seconds(left)),
            Held::Open(_) => {
                ApiError::Unavailable("it failed several times in a row, and is left alone".into())
            }
        }
    }

    /// Tells the breaker, the metrics and the log what became of an attempt.
    fn note(&self, pass: Pass, outcome: &Result<Vec<u8>, ApiError>) {
        let result = match outcome {
            Ok(_) => ProviderResult::Ok,
            Err(ApiError::NotFound) => ProviderResult::NotFound,
            Err(ApiError::KeyRefused(_)) => ProviderResult::KeyRefused,
            Err(ApiError::RateLimited(_)) => ProviderResult::RateLimited,
            Err(ApiError::Refused(..)) => ProviderResult::Refused,
            Err(ApiError::Unavailable(_)) => ProviderResult::Error,
        };
        self.metrics.provider_asked(&self.name, result);
        let now = self.clock.monotonic();
        let mut breaker = self.breaker();
        match outcome {
            Err(ApiError::Unavailable(cause)) => {
                if breaker.failed(pass, now, rand::random()) {
                    drop(breaker);
                    self.metrics.provider_breaker(&self.name, true);
                    tracing::warn!(
                        issuer = self.name,
                        cause,
                        "the provider's API fails: it is left alone for a while"
                    );
                }
                return;
            }
            Err(ApiError::RateLimited(seconds)) => {
                breaker.cool_down(now, Duration::from_secs(*seconds));
            }
            _ => {}
        }
        if breaker.answered(pass) {
            drop(breaker);
            self.metrics.provider_breaker(&self.name, false);
            tracing::info!(issuer = self.name, "the provider's API is back");
        }
    }
}

impl Asking<'_> {
    /// Gets an object; `path` is relative to `/v1/`, its parts checked by the caller.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        self.ask(Method::GET, path, &self.api.settings.secret_key, None)
            .await
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
        let admitted = api.breaker().admit(api.clock.monotonic());
        let pass = admitted.map_err(|held| api.held(held))?;
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
        let admitted = api.breaker().admit_again(api.clock.monotonic());
        let Some(pass) = admitted else {
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
            if let Some(traceparent) = self.traceparent {
                request = request.header("traceparent", traceparent);
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

/// Seconds, a part of one counted whole.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
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
        429 => {
            let header = reply.headers.get("retry-after");
            let text = header.and_then(|value| value.to_str().ok());
            let seconds = text.and_then(|text| retry_after(text.trim(), now));
            Err(ApiError::RateLimited(
                seconds.unwrap_or(COOL_DOWN.as_secs()).clamp(1, 3600),
            ))
        }
        400..500 => Err(ApiError::Refused(reply.status, error_code(&reply.body))),
        status => Err(ApiError::Unavailable(format!("it answered {status}"))),
    }
}

/// `Retry-After` (RFC 9110 §10.2.3) in seconds.
fn retry_after(text: &str, now: i64) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(date.saturating_sub(u64::try_from(now).ok()?))
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

impl ApiError {
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
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_700_000_000;
        for (text, seconds) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Tue, 14 Nov 2023 22:13:30 GMT", Some(10)),
            ("Tue, 14 Nov 2023 22:13:10 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds, "{text}");
        }
    }

    #[test]
    fn a_part_of_a_second_is_waited_for() {
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(1)), 1);
    }

    #[test]
    fn only_a_word_of_an_error_goes_to_the_log() {
        let body = br#"{"errors":[{"code":"clerk_key_invalid\u001b[2J<b>","message":"sk_x"}]}"#;
        assert_eq!(error_code(body), "clerk_key_invalid2Jb");
        assert_eq!(error_code(b"<html>"), "no code");
    }
}
