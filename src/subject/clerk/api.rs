//! Clerk's Backend API: how it is asked, and what its refusals mean.

use crate::config::BackendSettings;
use crate::explain::{Code, Refusal, Source};
use crate::subject::address::{Reach, configured};
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

/// Why the Backend API gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 401 or 403: the secret key is wrong.
    #[error("it refused our secret key: {0}")]
    KeyRefused(String),
    /// 404: there is no such object in this instance.
    #[error("it has no such object")]
    NotFound,
    /// 429, and after how many seconds to ask again.
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
}

impl BackendApi {
    /// The API that the settings name.
    pub fn new(
        settings: &BackendSettings,
        allow_private_network: bool,
        fetcher: Fetcher,
    ) -> Result<Self, url::ParseError> {
        let base = Url::parse(&format!("{}/v1/", settings.url))?;
        Ok(Self {
            reach: configured(&base, allow_private_network),
            settings: settings.clone(),
            base,
            fetcher,
        })
    }

    /// Gets an object; `path` is relative to `/v1/`, its parts checked by the caller.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        let url = self.url(path)?;
        let key = &self.settings.secret_key;
        judge(self.send(Method::GET, &url, key, None).await?)
    }

    /// Asks for the verification of a token: a POST that changes nothing.
    pub async fn verify(
        &self,
        path: &str,
        body: &Value,
        key: Option<&SecretString>,
    ) -> Result<Vec<u8>, ApiError> {
        let url = self.url(path)?;
        let key = key.unwrap_or(&self.settings.secret_key);
        judge(self.send(Method::POST, &url, key, Some(body)).await?)
    }

    /// The secret key that machine tokens are verified with.
    pub fn machine_key(&self) -> Option<&SecretString> {
        self.settings.machine_secret_key.as_ref()
    }

    fn url(&self, path: &str) -> Result<Url, ApiError> {
        self.base
            .join(path)
            .ok()
            .filter(|url| url.as_str().starts_with(self.base.as_str()))
            .ok_or_else(|| ApiError::Unavailable("the path is none of the API's".to_owned()))
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        key: &SecretString,
        body: Option<&Value>,
    ) -> Result<Reply, ApiError> {
        let reply = self.fetcher.send(method, url, self.reach, |request| {
            let request = request
                .bearer_auth(key.expose_secret())
                .header("clerk-api-version", &self.settings.version);
            match body {
                None => request,
                Some(body) => request
                    .header("content-type", "application/json")
                    .body(body.to_string()),
            }
        });
        reply
            .await
            .map_err(|error: FetchError| ApiError::Unavailable(error.to_string()))
    }
}

/// What an answer means.
fn judge(reply: Reply) -> Result<Vec<u8>, ApiError> {
    match reply.status {
        200 => Ok(reply.body),
        401 | 403 => Err(ApiError::KeyRefused(error_code(&reply.body))),
        404 => Err(ApiError::NotFound),
        429 => Err(ApiError::RateLimited(
            reply
                .headers
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .unwrap_or(1),
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
        .filter(|each| each.is_ascii_alphanumeric() || *each == '_')
        .take(64)
        .collect()
}

impl ApiError {
    /// The refusal that this is for a caller, where it says nothing of the credential.
    pub fn refusal(&self) -> Box<Refusal> {
        let (code, after) = match self {
            Self::KeyRefused(_) => (Code::ProviderCredentialsInvalid, 60),
            Self::RateLimited(after) => (Code::ProviderRateLimited, *after),
            Self::NotFound | Self::Refused(..) | Self::Unavailable(_) => {
                (Code::ProviderUnavailable, 5)
            }
        };
        Refusal::new(code)
            .unavailable(Source::UpstreamIdp, after)
            .caused_by(self)
    }
}
