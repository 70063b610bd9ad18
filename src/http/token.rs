//! `POST /oauth/token` (RFC 6749 §3.2): parse, authenticate, issue, answer.

use super::exchange::malformed;
use super::headers::{are_scopes, has_type};
use super::outcome::Outcome;
use super::{answer, body};
use crate::exchange::Caller;
use crate::explain::{Code, Refusal};
use crate::oauth::OAuth;
use crate::oauth::client_credentials::{Issued, Wish};
use crate::oauth::clients::Proof;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf;
use futures_util::Stream;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, PRAGMA};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use url::form_urlencoded;
use warp::reply::Response as Answer;

/// The grants that there are.
pub(super) const GRANTS: [&str; 1] = ["client_credentials"];
/// The ways in which a client may prove itself.
pub(super) const AUTH_METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];
/// The longest parameter, in bytes.
const MAX_PARAMETER: usize = 1024;

/// RFC 6749 §5.1, and nothing else.
#[derive(Serialize)]
struct Success<'t> {
    access_token: &'t str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'t str>,
}

/// Answers a request for a token.
pub async fn handle<B: Buf>(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Answer {
    match attempt(oauth, headers, address, stream).await {
        Ok(issued) => success(issued),
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt<B: Buf>(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Issued, Box<Refusal>> {
    let bytes = body::read(headers, stream).await?;
    has_type(headers, "application/x-www-form-urlencoded")?;
    let form = Form::read(&bytes)?;
    let grant = form.get("grant_type").ok_or_else(|| {
        Refusal::because(
            Code::ParameterMalformed,
            "The parameter `grant_type` is missing.",
        )
    })?;
    if !GRANTS.contains(&grant) {
        return Err(Refusal::new(Code::GrantTypeUnsupported));
    }
    let scope = form.get("scope").filter(|scope| !scope.trim().is_empty());
    if scope.is_some_and(|scope| !are_scopes(scope)) {
        return Err(Refusal::because(
            Code::ScopeNotAllowed,
            "The parameter `scope` is malformed.",
        ));
    }
    let wish = Wish {
        audiences: form.targets.iter().map(AsRef::as_ref).collect(),
        scope,
    };
    let caller = Caller {
        address,
        ..Caller::default()
    };
    let proof = proof(headers, &form);
    oauth.client_credentials(proof, &wish, caller).await
}

fn success(issued: Issued) -> Answer {
    let compact = &issued.token.compact;
    let body = Success {
        access_token: compact,
        token_type: "Bearer",
        expires_in: issued.expires_in,
        scope: issued.scope.as_deref(),
    };
    let mut response = answer::ok(&body, compact.len() + 256);
    let headers = response.headers_mut();
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    answer::limited(issued.limit, headers);
    response
        .extensions_mut()
        .insert(Outcome::Issued(Arc::new(issued)));
    response
}

/// The parameters of a form; empty ones are as good as absent (RFC 6749 §3.2).
struct Form<'b> {
    single: BTreeMap<Cow<'b, str>, Cow<'b, str>>,
    /// `audience` and `resource`, which may be repeated (RFC 8693 §2.1, RFC 8707 §2).
    targets: Vec<Cow<'b, str>>,
}

impl<'b> Form<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Box<Refusal>> {
        let mut form = Self {
            single: BTreeMap::new(),
            targets: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(bytes) {
            if value.is_empty() {
                continue;
            }
            let known = matches!(
                name.as_ref(),
                "grant_type" | "client_id" | "client_secret" | "scope" | "audience" | "resource"
            );
            if !known {
                continue;
            }
            if value.len() > MAX_PARAMETER || value.chars().any(char::is_control) {
                return Err(malformed(&name));
            }
            if matches!(name.as_ref(), "audience" | "resource") {
                form.targets.push(value);
            } else if form.single.insert(name.clone(), value).is_some() {
                return Err(Refusal::because(
                    Code::ParameterMalformed,
                    format!("The parameter `{name}` is repeated."),
                ));
            }
        }
        Ok(form)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.single.get(name).map(AsRef::as_ref)
    }
}

/// What the client proves itself with: in the Authorization header or in the form, in one of
/// the two (RFC 6749 §2.3).
fn proof<'r>(headers: &'r HeaderMap, form: &'r Form<'_>) -> Result<Proof<'r>, Box<Refusal>> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else {
        let (Some(id), Some(secret)) = (id, secret) else {
            return Err(Refusal::new(Code::ClientAuthenticationMissing));
        };
        return Ok(Proof {
            id: id.into(),
            secrets: vec![secret.into()],
        });
    };
    let several = || {
        Refusal::because(
            Code::SeveralCredentials,
            "The client authenticates in more than one way, or as more than one client.",
        )
    };
    if all.next().is_some() || secret.is_some() {
        return Err(several());
    }
    let proof = basic(header).ok_or_else(|| {
        Refusal::because(
            Code::ClientAuthenticationMissing,
            "The Authorization header is not `Basic`, a client id and its secret.",
        )
    })?;
    if id.is_some_and(|id| id != proof.id) {
        return Err(several());
    }
    Ok(proof)
}

/// `Basic` (RFC 7617), each part form-encoded before (RFC 6749 §2.3.1). Many clients leave that
/// out, so a secret is taken both as it stands and decoded.
fn basic(header: &HeaderValue) -> Option<Proof<'static>> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| {
        let pairs = form_urlencoded::parse(part.as_bytes());
        let (name, _) = pairs.into_owned().next().unwrap_or_default();
        name
    };
    Some(Proof {
        id: decoded(id).into(),
        secrets: vec![secret.to_owned().into(), decoded(secret).into()],
    })
}
