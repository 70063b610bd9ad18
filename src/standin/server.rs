//! Connections and the way of a call: recorded, delayed, met with a [`Fault`] where one is
//! set, and answered by one of the two APIs.

use super::{StandIn, backend, frontend, locked, objects};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The most calls that are remembered.
const MAX_CALLS: usize = 10_000;
/// How long a request's head and body may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long [`Fault::Stall`] keeps a caller who does not give up.
const STALL: Duration = Duration::from_secs(60);
/// What goes out before [`Fault::Truncated`] breaks off has this long to arrive.
const LINGER: Duration = Duration::from_millis(20);

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and Clerk's body for it.
    Status(u16),
    /// Answers 429.
    RateLimited {
        /// `Retry-After`, seconds.
        retry_after: u64,
    },
    /// Does not answer for a minute.
    Stall,
    /// Answers 200 with a page for people.
    Html,
    /// Breaks the true answer off in its middle.
    Truncated,
    /// Closes the connection without an answer.
    Hangup,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A call, read whole.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// What stands after this scheme in the `Authorization` header.
    pub(super) fn authorization(&self, scheme: &str) -> Option<&str> {
        let header = self.headers.get(http::header::AUTHORIZATION)?;
        let (given, rest) = header.to_str().ok()?.split_once(' ')?;
        given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
    }

    /// A member of a JSON body.
    pub(super) fn member(&self, name: &str) -> Value {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body.get(name).cloned().unwrap_or_default()
    }
}

/// A parameter of a query or a form.
pub(super) fn parameter(encoded: &[u8], name: &str) -> Option<String> {
    url::form_urlencoded::parse(encoded)
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

/// An answer.
pub(super) struct Reply {
    status: u16,
    content_type: &'static str,
    retry_after: Option<u64>,
    location: Option<String>,
    body: String,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            retry_after: None,
            location: None,
            body: body.to_string(),
        }
    }

    /// Sends a browser elsewhere.
    pub(super) fn found(location: String) -> Self {
        let mut reply = Self::plain(302, String::new());
        reply.location = Some(location);
        reply
    }

    pub(super) fn plain(status: u16, body: String) -> Self {
        Self::text(status, "text/plain; charset=utf-8", body)
    }

    fn text(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            retry_after: None,
            location: None,
            body,
        }
    }

    fn response(self, truncated: bool) -> Result<Response<Body>, http::Error> {
        let mut response = Response::builder()
            .status(self.status)
            .header("content-type", self.content_type)
            .header("content-length", self.body.len());
        if let Some(seconds) = self.retry_after {
            response = response.header("retry-after", seconds);
        }
        if let Some(location) = self.location {
            response = response.header("location", location);
        }
        let whole = Bytes::from(self.body);
        if !truncated {
            let full = Full::new(whole).map_err(|never| match never {});
            return response.body(full.boxed_unsync());
        }
        let half = whole.slice(..whole.len() / 2);
        let frames = stream::unfold(Some(half), |half| async move {
            let Some(half) = half else {
                tokio::time::sleep(LINGER).await;
                return Some((Err(io::ErrorKind::BrokenPipe.into()), None));
            };
            Some((Ok(Frame::data(half)), None))
        });
        response.body(BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

/// Serves the listener for as long as the process lives.
pub(super) async fn serve(listener: TcpListener, standin: Arc<StandIn>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let standin = Arc::clone(&standin);
        let service = service_fn(move |request| {
            let standin = Arc::clone(&standin);
            async move { answer(standin, request).await }
        });
        tokio::spawn(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(DEADLINE)
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// An error closes the connection without an answer.
async fn answer(
    standin: Arc<StandIn>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(DEADLINE, Limited::new(body, MAX_BODY).collect())
        .await?
        .map_err(io::Error::other)?
        .to_bytes();
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    let (fault, delay) = {
        let mut conduct = locked(&standin.conduct);
        if conduct.calls.len() < MAX_CALLS {
            let asked = head.uri.path_and_query().map_or("", |path| path.as_str());
            conduct.calls.push(format!("{} {asked}", call.method));
        }
        (conduct.fault, conduct.delay)
    };
    let (reply, truncated) = if backend::owns(&call.path) || call.path == frontend::INTROSPECTION {
        tokio::time::sleep(delay).await;
        match fault {
            None => (standin.reply(&call).await, false),
            Some(Fault::Truncated) => (standin.reply(&call).await, true),
            Some(Fault::Hangup) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::Stall) => {
                tokio::time::sleep(STALL).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Some(Fault::Status(status)) => (faulty(status), false),
            Some(Fault::RateLimited { retry_after }) => {
                let mut reply = faulty(429);
                reply.retry_after = Some(retry_after);
                (reply, false)
            }
            Some(Fault::Html) => {
                let page = "<!doctype html><title>Welcome</title>".to_owned();
                (Reply::text(200, "text/html; charset=utf-8", page), false)
            }
        }
    } else {
        (standin.reply(&call).await, false)
    };
    reply.response(truncated).map_err(io::Error::other)
}

/// Clerk's error of this status.
fn faulty(status: u16) -> Reply {
    let (code, message) = match status {
        401 => ("authentication_invalid", "Invalid authentication"),
        403 => ("authorization_invalid", "Unauthorized request"),
        404 => ("resource_not_found", "Resource not found"),
        422 => ("form_param_format_invalid", "Invalid parameter"),
        429 => ("too_many_requests", "Too many requests"),
        _ => ("internal_clerk_error", "Oops, something went wrong"),
    };
    Reply::json(status, &objects::error(code, message, message, &json!({})))
}

impl StandIn {
    async fn reply(self: &Arc<Self>, call: &Call) -> Reply {
        if backend::owns(&call.path) {
            self.backend(call)
        } else {
            self.frontend(call).await
        }
    }
}
