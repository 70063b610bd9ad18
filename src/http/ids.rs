//! What a request is called: its own id, and the trace that it belongs to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use http::header::{HeaderMap, HeaderValue};
use rand::Rng;

/// The name of the id that each answer has.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name of the trace (W3C Trace Context §3.2).
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's request id where it is one, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(fits)
    });
    given.cloned().unwrap_or_else(|| {
        let id = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 12]>());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// A `traceparent` (W3C Trace Context §3.2), carried on as it came.
pub(super) struct Trace(HeaderValue);

impl Trace {
    /// The request's, where it has one.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        traceparent(headers)?;
        headers.get(TRACEPARENT).cloned().map(Self)
    }

    /// It as a header.
    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// It as a text.
    pub(super) fn text(&self) -> Option<&str> {
        self.0.to_str().ok()
    }

    /// The trace's id.
    pub(super) fn id(&self) -> &str {
        self.text()
            .and_then(|text| text.get(3..35))
            .unwrap_or_default()
    }
}

/// The request's `traceparent`, where it is one.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let version = parts.next()?;
    let sound = hex(version, 2)
        && version != "ff"
        && id(parts.next()?, 32)
        && id(parts.next()?, 16)
        && hex(parts.next()?, 2)
        && parts.next().is_none();
    sound.then_some(text)
}
