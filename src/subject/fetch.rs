//! Asking an upstream for a document, within bounds of time, size and address.

use super::address::{PublicOnly, Reach, allowed};
use crate::clock::UnixSeconds;
use crate::telemetry::traces::{self, Open};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use std::time::{Duration, SystemTime};
use url::Url;

/// The whole of a fetch: connecting, sending, and the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// Of which connecting.
const CONNECT: Duration = Duration::from_secs(2);
/// The largest document, in bytes.
const MAX_BODY: usize = 512 * 1024;

/// Why a document could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL leads where it must not.
    #[error(
        "{0} is not https, names a user, or is no public address; for an issuer inside the network set allow_private_network = true"
    )]
    Forbidden(String),
    /// The upstream answered with another status than 200.
    #[error("it answered {0}")]
    Status(u16),
    /// The answer did not end within the bound.
    #[error("the answer is larger than 512 KiB")]
    TooLarge,
    /// The answer was not complete within the deadline.
    #[error("no complete answer within 3 s")]
    Timeout,
    /// No connection, no TLS, or a broken answer.
    #[error("{0}")]
    Transport(String),
}

impl FetchError {
    /// The refusal of a URL, shown without the user and the password that it may name.
    pub fn forbidden(url: &Url) -> Self {
        let mut bare = url.clone();
        // Both fail only for URLs that can have neither.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        Self::Forbidden(bare.as_str().chars().take(255).collect())
    }

    /// Its name in traces.
    fn kind(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "forbidden",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Transport(_) => "transport",
        }
    }
}

impl FetchError {
    /// The same without any address.
    pub fn bare(&self) -> String {
        match self {
            Self::Forbidden(_) => {
                "its address is not https, names a user, or is no public one".to_owned()
            }
            Self::Transport(cause) if cause.contains("://") => {
                "no connection, no TLS, or a broken answer".to_owned()
            }
            Self::Transport(_) | Self::Status(_) | Self::TooLarge | Self::Timeout => {
                self.to_string()
            }
        }
    }
}

/// A document and how long its sender says it stays fresh.
#[derive(Debug)]
pub struct Document {
    /// The body.
    pub body: Vec<u8>,
    /// `max-age` of its `Cache-Control`, seconds.
    pub max_age: Option<u64>,
    /// The `Date` header, as sent.
    pub date: Option<String>,
}

/// An answer of any status.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Its `Retry-After` (RFC 9110 §10.2.3) in seconds, from one to an hour.
    pub fn retry_after(&self, now: UnixSeconds) -> Option<u64> {
        let text = self.headers.get("retry-after")?.to_str().ok()?;
        retry_after(text.trim(), now).map(|seconds| seconds.clamp(1, 3600))
    }
}

/// The HTTP client for upstream documents.
#[derive(Clone)]
pub struct Fetcher {
    public: reqwest::Client,
    private: reqwest::Client,
}

impl Fetcher {
    /// Builds the client. TLS uses rustls on ring, whatever the signing backend.
    pub fn new() -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed it: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("exchequer/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .connect_timeout(CONNECT)
                .timeout(DEADLINE)
                .pool_max_idle_per_host(16)
                .pool_idle_timeout(Duration::from_secs(60))
        };
        // A machine without CA certificates can still be asked for what needs none.
        let build = |make: &dyn Fn() -> reqwest::ClientBuilder| {
            make().build().or_else(|error| {
                tracing::warn!(%error, "no CA certificates: https issuers cannot be verified");
                make().tls_certs_only([]).build()
            })
        };
        Ok(Self {
            public: build(&|| builder().https_only(true).dns_resolver(PublicOnly))?,
            private: build(&builder)?,
        })
    }

    /// Fetches a document: 200 only, no redirects, bounded.
    pub async fn get(&self, url: &Url, reach: Reach) -> Result<Document, FetchError> {
        let reply = self
            .send(Method::GET, url, reach, |request| request)
            .await?;
        if reply.status != 200 {
            return Err(FetchError::Status(reply.status));
        }
        let header = |name: &str| Some(reply.headers.get(name)?.to_str().ok()?.to_owned());
        Ok(Document {
            max_age: header("cache-control").and_then(|text| max_age(&text)),
            date: header("date"),
            body: reply.body,
        })
    }

    /// Sends a request that `shape` adds headers and a body to: no redirects, bounded. Where
    /// there are traces it has a span, and [`traces::traceparent`] is that span's in `shape`.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        reach: Reach,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Reply, FetchError> {
        if !allowed(url, reach) {
            return Err(FetchError::forbidden(url));
        }
        let call = traces::begin_call(method.as_str(), url);
        let sent = self.sent(method, url, reach, &call, shape).await;
        match &sent {
            Ok(reply) => {
                call.set("http.response.status_code", i64::from(reply.status));
                match reply.status {
                    ..400 => call.end(),
                    status => call.fail(status.to_string()),
                }
            }
            Err(error) => call.fail(error.kind()),
        }
        sent
    }

    async fn sent(
        &self,
        method: Method,
        url: &Url,
        reach: Reach,
        call: &Open,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Reply, FetchError> {
        let client = match reach {
            Reach::Public => &self.public,
            Reach::Private => &self.private,
        };
        let request = client
            .request(method, url.clone())
            .header("accept", "application/json");
        let request = call.within(|| shape(request));
        let mut answer = request.send().await.map_err(transport)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status,
            headers,
            body,
        })
    }
}

fn transport(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    // reqwest's own sentence says little; the cause at the end of the chain says it all.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    FetchError::Transport(cause.to_string())
}

/// `max-age` of a `Cache-Control` header; 0 where it says not to store.
fn max_age(header: &str) -> Option<u64> {
    let mut directives = header.split(',').map(str::trim);
    if directives
        .clone()
        .any(|each| each.eq_ignore_ascii_case("no-store") || each.eq_ignore_ascii_case("no-cache"))
    {
        return Some(0);
    }
    directives.find_map(|each| {
        let (name, seconds) = each.split_once('=')?;
        let seconds = seconds.trim_matches('"').parse().ok()?;
        name.eq_ignore_ascii_case("max-age").then_some(seconds)
    })
}

/// Seconds, or a date, as seconds from now.
fn retry_after(text: &str, now: UnixSeconds) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(date.saturating_sub(u64::try_from(now).ok()?))
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
}
