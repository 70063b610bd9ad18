//! What every door reads of a request's headers: the bearer token and the kinds of content.

use crate::config::is_scope_byte;
use crate::explain::{Code, Refusal};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

/// How a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `Bearer` (RFC 6750 §2.1).
    Bearer,
    /// `DPoP` (RFC 9449 §7.1).
    Dpop,
}

/// Why an Authorization header has no bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BearerError {
    /// It is there more than once.
    Several,
    /// It is not `Bearer` and a token.
    Malformed,
}

/// The bearer token (RFC 6750 §2.1), where there is an Authorization header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, BearerError> {
    match token(headers)? {
        Some((Scheme::Dpop, _)) => Err(BearerError::Malformed),
        bearer => Ok(bearer.map(|(_, token)| token)),
    }
}

/// The token and how it is shown, where there is an Authorization header.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<(Scheme, &str)>, BearerError> {
    let shown = shown(headers)?;
    match shown {
        Some((_, token)) if !is_sound(token) => Err(BearerError::Malformed),
        shown => Ok(shown),
    }
}

/// Whether this can be a token: it is not empty, and no list of several.
pub(super) fn is_sound(token: &str) -> bool {
    // Every byte is looked at in any case: so many at once.
    let each = |sound, byte: u8| sound & byte.is_ascii_graphic() & (byte != b',');
    !token.is_empty() && token.bytes().fold(true, each)
}

/// The same, whether it [is sound](is_sound) or not: for whoever compares it with what was.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<(Scheme, &str)>, BearerError> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (all.next(), all.next());
    let Some(first) = first else {
        return Ok(None);
    };
    if second.is_some() {
        return Err(BearerError::Several);
    }
    let bytes = first.as_bytes();
    let of = |scheme, name: &[u8]| {
        let (found, token) = bytes.split_at_checked(name.len())?;
        let token = std::str::from_utf8(token.trim_ascii()).ok()?;
        found.eq_ignore_ascii_case(name).then_some((scheme, token))
    };
    of(Scheme::Bearer, b"bearer ")
        .or_else(|| of(Scheme::Dpop, b"dpop "))
        .map(Some)
        .ok_or(BearerError::Malformed)
}

/// Whether the text is a list of scopes, separated by spaces (RFC 6749 §3.3).
pub(super) fn are_scopes(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || is_scope_byte(byte))
}

/// Whether the body is of this content type, in UTF-8 and not compressed.
pub(super) fn has_type(headers: &HeaderMap, expected: &str) -> Result<(), Box<Refusal>> {
    let unsupported = || {
        Refusal::because(
            Code::ContentTypeUnsupported,
            format!("The request body must be `{expected}`, not compressed."),
        )
    };
    let encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes() != b"identity");
    if encoded {
        return Err(unsupported());
    }
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(unsupported)?;
    let mut parts = text.split(';').map(str::trim);
    let fits = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case(expected));
    let utf8 = parts.all(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            !name.eq_ignore_ascii_case("charset")
                || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    if fits && utf8 {
        Ok(())
    } else {
        Err(unsupported())
    }
}

/// Whether the answer may be JSON (RFC 9110 §12.5.1).
pub(super) fn accepts_json(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter(|range| !range.trim().is_empty())
        .peekable();
    if ranges.peek().is_none() || ranges.any(takes_json) {
        Ok(())
    } else {
        Err(Refusal::new(Code::NotAcceptable))
    }
}

/// Whether a range of an `Accept` header takes JSON; a weight of 0 does not (RFC 9110 §12.4.2).
fn takes_json(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| {
        ["application/json", "application/*", "*/*"]
            .iter()
            .any(|each| kind.eq_ignore_ascii_case(each))
    });
    let weightless = |each: &str| {
        each.strip_prefix("q=")
            .is_some_and(|weight| weight.parse() == Ok(0.0))
    };
    json && !parts.any(weightless)
}
