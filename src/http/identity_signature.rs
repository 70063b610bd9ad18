//! Signed identity headers, for services that do not speak JWT.
//!
//! `X-Signature: v1,t=UNIX_SECONDS,BASE64`: HMAC-SHA256 (RFC 2104) over these lines, joined by
//! a line feed, none at the end:
//!
//! ```text
//! v1
//! t                  seconds since 1970, as in the header
//! METHOD             of the original request
//! /path?query        of the original request, byte for byte
//! base64 or -        sha-256 of Content-Digest (RFC 9530), without the colons; else a hyphen
//! x-app:VALUE        then x-user-id, x-org-id, x-roles, x-scopes, x-rate-limit-key, x-client-id
//! ```
//!
//! A service checks the code in constant time, that `t` is a minute old at most, that method
//! and path are those of the request that it got, and, where it takes a body, that the body
//! has the digest that was signed: a hyphen says nothing of the body.

use super::verify::IDENTITY;
use crate::clock::UnixSeconds;
use crate::crypto::MacKey;
use crate::explain::{Code, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue};

/// How a gateway tells which request it asks about: method and target.
const SOURCES: [[&str; 2]; 2] = [
    ["x-original-method", "x-original-uri"],
    ["x-forwarded-method", "x-forwarded-uri"],
];
const CONTENT_DIGEST: &str = "content-digest";

/// The request that a gateway asks about.
pub(super) struct Original<'r> {
    /// Its method.
    pub(super) method: &'r str,
    /// Its path and query.
    pub(super) target: &'r str,
    /// SHA-256 of its body in base64, where it says so.
    digest: Option<&'r str>,
}

impl<'r> Original<'r> {
    /// Reads it from one of the pairs of headers: from a second one nobody could tell whether
    /// the gateway or the client wrote it.
    pub(super) fn read(headers: &'r HeaderMap) -> Result<Self, Box<Refusal>> {
        let unknown = || Refusal::new(Code::OriginalRequestUnknown);
        let mut sources = SOURCES
            .iter()
            .filter(|names| names.iter().any(|name| headers.contains_key(*name)));
        let (Some([method, target]), None) = (sources.next(), sources.next()) else {
            return Err(unknown());
        };
        let once = |name: &&str| {
            let text = one(headers, name)?;
            // Visible ASCII: no line can be begun or ended in it.
            let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            sound.then_some(text)
        };
        Ok(Self {
            method: once(method).ok_or_else(unknown)?,
            target: once(target)
                .filter(|target| target.starts_with('/') || *target == "*")
                .ok_or_else(unknown)?,
            digest: digest(headers),
        })
    }
}

/// The header's text, where it stands once.
fn one<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// `sha-256` of a `Content-Digest` (RFC 9530 §2), where there is one of 32 bytes.
fn digest(headers: &HeaderMap) -> Option<&str> {
    let mut found = one(headers, CONTENT_DIGEST)?
        .split(',')
        .filter_map(|member| member.trim().strip_prefix("sha-256="));
    let (Some(value), None) = (found.next(), found.next()) else {
        return None;
    };
    let text = value.strip_prefix(':')?.strip_suffix(':')?;
    (STANDARD.decode(text).ok()?.len() == 32).then_some(text)
}

/// The value of `X-Signature` for these identity headers.
pub(super) fn sign(
    key: &MacKey,
    original: &Original<'_>,
    identity: &HeaderMap,
    now: UnixSeconds,
) -> HeaderValue {
    let time = now.to_string();
    let mut parts: Vec<&[u8]> = vec![
        b"v1\n",
        time.as_bytes(),
        b"\n",
        original.method.as_bytes(),
        b"\n",
        original.target.as_bytes(),
        b"\n",
        original.digest.unwrap_or("-").as_bytes(),
    ];
    for name in &IDENTITY {
        let value = identity.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        parts.extend([b"\n", name.as_str().as_bytes(), b":", value]);
    }
    let code = STANDARD.encode(key.sign(&parts));
    HeaderValue::try_from(format!("v1,t={time},{code}")).unwrap_or(HeaderValue::from_static(""))
}
