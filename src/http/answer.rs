//! Answers: the only place that decides a status or writes an error.

use super::dpop;
use super::outcome::Outcome;
use crate::dpop::ALGORITHMS;
use crate::explain::{Code, Limit, Refusal, Seen, Source};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
    SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{HeaderName, Response, StatusCode};
use serde::Serialize;
use warp::reply::{Reply, Response as Answer};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The headers that the clients' libraries read (draft-ietf-httpapi-ratelimit-headers-03);
/// later drafts have structured fields, which none of them reads.
pub(super) const RATE_LIMIT: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

/// `Allow` of a 405, beside its refusal.
#[derive(Clone, Copy)]
pub struct Allowed(pub &'static str);

/// A 200 with a JSON body of about `size` bytes that must not be stored.
pub fn ok(body: &impl Serialize, size: usize) -> Answer {
    let mut bytes = Vec::with_capacity(size);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => json(StatusCode::OK, bytes),
        Err(error) => refused(Refusal::new(Code::InternalError).caused_by(error)),
    }
}

/// The same, with a compact JWS as the members of these names before those of an object that has
/// some. The JWS is most of the answer and has nothing to escape (RFC 7515 §2): nobody looks.
pub fn ok_with(names: &[&str], jws: &str, rest: &impl Serialize) -> Answer {
    let mut bytes = Vec::with_capacity(names.len() * (jws.len() + 16) + 512);
    for (place, name) in names.iter().enumerate() {
        let before = if place == 0 { "{" } else { "," };
        for part in [before, "\"", name, "\":\"", jws, "\""] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    let brace = bytes.len();
    if let Err(error) = serde_json::to_writer(&mut bytes, rest) {
        return refused(Refusal::new(Code::InternalError).caused_by(error));
    }
    if let Some(brace) = bytes.get_mut(brace) {
        *brace = b',';
    }
    json(StatusCode::OK, bytes)
}

/// A 200 whose headers say all.
pub fn identity(headers: HeaderMap) -> Answer {
    let mut response = Answer::default();
    *response.headers_mut() = headers;
    response
}

/// A 200 that says nothing and must not be stored.
pub fn empty() -> Answer {
    let mut response = Response::new(Bytes::new());
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.into_response()
}

/// Sends a browser elsewhere, with these cookies; what is there now is nobody else's.
pub fn found(location: &str, cookies: &[String], outcome: Outcome) -> Answer {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    let cookies = cookies.iter().map(|cookie| (SET_COOKIE, cookie.as_str()));
    for (name, value) in [(LOCATION, location)].into_iter().chain(cookies) {
        match HeaderValue::from_str(value) {
            Ok(value) => headers.append(name, value),
            Err(error) => return refused(Refusal::new(Code::InternalError).caused_by(error)),
        };
    }
    headers.insert(CACHE_CONTROL, NO_STORE);
    *response.status_mut() = StatusCode::FOUND;
    response.extensions_mut().insert(outcome);
    response.into_response()
}

/// What is no HTTP: a bare 400, as hyper answers what it cannot read, and nothing after it.
pub fn no_http() -> Answer {
    let mut response = Answer::default();
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// Hands a refusal to the front.
pub fn refused(refusal: Box<Refusal>) -> Answer {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = told(&refusal).0;
    response.extensions_mut().insert(Outcome::Refused(refusal));
    response.into_response()
}

/// Hands a 405 to the front.
pub fn method_not_allowed(allow: &'static str) -> Answer {
    let mut response = refused(Refusal::new(Code::MethodNotAllowed));
    response.extensions_mut().insert(Allowed(allow));
    response
}

/// A body with a content type, for any status.
pub fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.into_response()
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.into_response()
}

/// The status and the RFC's word of a refusal: its code's, but that a credential which is no
/// good authenticates nobody at the token endpoint: there it is part of the request. A DPoP
/// proof is part of the authentication where it goes with a token (RFC 9449 §7.1), and not
/// where one is asked for with it (§5).
pub fn told(refusal: &Refusal) -> (StatusCode, &'static str) {
    let entry = refusal.code.entry();
    match (entry.error, refusal.as_grant) {
        ("invalid_token" | "access_denied", Some(error)) => (StatusCode::BAD_REQUEST, error),
        ("invalid_dpop_proof" | "use_dpop_nonce", _) if refusal.dpop => {
            (StatusCode::UNAUTHORIZED, entry.error)
        }
        _ => {
            let status = StatusCode::from_u16(entry.status);
            (
                status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                entry.error,
            )
        }
    }
}

#[derive(Serialize)]
struct Error<'r> {
    error: &'static str,
    error_description: &'r str,
    code: &'static str,
    request_id: &'r str,
    retryable: bool,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<&'r Seen>,
}

/// Writes a refusal: the caller's own part of it.
pub fn refusal(refusal: &Refusal, allowed: Option<Allowed>, request_id: &str) -> Answer {
    let entry = refusal.code.entry();
    let (status, error) = told(refusal);
    let body = Error {
        error,
        error_description: &refusal.description,
        code: entry.slug,
        request_id,
        retryable: entry.retryable(),
        action: entry.action.name(),
        source: refusal.source,
        seen: refusal.seen.as_ref(),
    };
    let mut response = json(status, serde_json::to_vec(&body).unwrap_or_default());
    let headers = response.headers_mut();
    if let Some(challenge) = challenge(refusal) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if refusal.code == Code::BearerMissing {
        // A client that has a key learns that it can use it (RFC 9449 §7.1).
        if let Ok(challenge) = HeaderValue::try_from(format!("DPoP {}", algorithms())) {
            headers.append(WWW_AUTHENTICATE, challenge);
        }
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    limited(refusal.limit, headers);
    dpop::tell_nonce(refusal.nonce.as_deref(), headers);
    if let Some(Allowed(methods)) = allowed {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}

/// Tells the nearest limit.
pub(super) fn limited(limit: Option<Limit>, headers: &mut HeaderMap) {
    let Some(limit) = limit else { return };
    let [most, left, reset] = RATE_LIMIT;
    headers.insert(most, HeaderValue::from(limit.most));
    headers.insert(left, HeaderValue::from(limit.left));
    headers.insert(reset, HeaderValue::from(limit.full_in));
}

/// What DPoP proofs may be signed with, as a challenge says it (RFC 9449 §7.1).
fn algorithms() -> String {
    format!("algs=\"{}\"", ALGORITHMS.join(" "))
}

/// The challenge of a refusal (RFC 6750 §3, RFC 9449 §7.1): no quotes and no backslashes inside,
/// ASCII only.
fn challenge(refusal: &Refusal) -> Option<HeaderValue> {
    let entry = refusal.code.entry();
    let scheme = if refusal.dpop {
        format!("DPoP {},", algorithms())
    } else {
        "Bearer".to_owned()
    };
    let text = match (refusal.code, told(refusal).0.as_u16(), &refusal.scope) {
        // §3.1: who sent nothing has made no error yet.
        (Code::BearerMissing, ..) => "Bearer".to_owned(),
        // RFC 6749 §5.2: our own client authentication.
        _ if entry.error == "invalid_client" => {
            return Some(HeaderValue::from_static(
                "Basic realm=\"exchequer\", charset=\"UTF-8\"",
            ));
        }
        (_, _, Some(scope)) => format!("{scheme} error=\"{}\", scope=\"{scope}\"", entry.error),
        (_, 401, None) => {
            let description: String = refusal
                .description
                .chars()
                .filter(|each| matches!(each, ' '..='~') && !matches!(each, '"' | '\\'))
                .collect();
            format!(
                "{scheme} error=\"{}\", error_description=\"{description}\"",
                entry.error
            )
        }
        _ => return None,
    };
    let comma = if text.contains('=') { "," } else { "" };
    let text = match &refusal.resource_metadata {
        Some(url) => format!("{text}{comma} resource_metadata=\"{url}\""),
        None => text,
    };
    HeaderValue::from_str(&text).ok()
}
