//! `POST /auth/exchange`: parse, exchange, answer.

use super::headers::{self, BearerError, are_scopes};
use super::outcome::Outcome;
use super::{answer, dpop, ids};
use crate::config::OFFLINE_ACCESS;
use crate::dpop::Shown;
use crate::exchange::{Caller, Credential, Exchanged, Request};
use crate::explain::{Code, Refusal};
use crate::oauth::OAuth;
use crate::oauth::issued::{ACCESS_TOKEN, ID_TOKEN, JWT, token_type};
use crate::oauth::refresh::Begun;
use crate::policy::app::Wish;
use crate::policy::scopes;
use http::header::HeaderMap;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use warp::reply::Response as Answer;

/// The kinds of subject token that are JWTs (RFC 8693 §3).
const TOKEN_TYPES: [&str; 3] = [JWT, ID_TOKEN, ACCESS_TOKEN];
/// The addresses of the exchange, under our own.
pub(super) const PATHS: [&str; 2] = ["/auth/exchange", "/auth/clerk/exchange"];
/// The longest `app`, `audience` or `scope`, in bytes.
const MAX_PARAMETER: usize = 1024;

/// The members of the request; others are ignored, repeated ones refused.
#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'b"))]
pub struct Body<'b> {
    session_token: Option<Text<'b>>,
    subject_token: Option<Text<'b>>,
    session_id: Option<Text<'b>>,
    code_verifier: Option<Text<'b>>,
    subject_token_type: Option<Text<'b>>,
    app: Option<Text<'b>>,
    audience: Option<Text<'b>>,
    scope: Option<Text<'b>>,
}

/// A text borrowed from the body, where it has no escapes.
#[derive(Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

/// What follows the token.
#[derive(Serialize)]
struct Success<'e> {
    token_type: &'static str,
    expires_in: i64,
    issued_token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<i64>,
    user: User<'e>,
}

#[derive(Serialize)]
struct User<'e> {
    id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<[&'e str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_new: Option<bool>,
}

/// What is given.
struct Given {
    exchanged: Box<Exchanged>,
    begun: Option<Begun>,
    /// Whether scopes were asked for.
    scope_asked: bool,
}

/// Answers an exchange.
pub async fn handle(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Answer {
    match attempt(oauth, headers, address, body).await {
        Ok(given) => success(given),
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Result<Given, Box<Refusal>> {
    headers::accepts_json(headers)?;
    let bearer = bearer(headers)?;
    let body = if body.is_empty() {
        Body::default()
    } else {
        headers::has_type(headers, "application/json")?;
        read(body)?
    };
    let (mut request, scope_asked) = request(&body, bearer)?;
    let audience = body.audience()?;
    request.wish.audiences = audience.as_slice();
    let proof = dpop::proof(headers)?;
    let at = |path| format!("{}{path}", oauth.exchange.issuer);
    let uris = proof.map_or_else(Default::default, |_| PATHS.map(at));
    request.caller.proof = proof.map(|proof| Shown {
        proof,
        method: "POST",
        uris: &uris,
        token: None,
    });
    request.caller.address = address;
    request.caller.traceparent = ids::traceparent(headers);
    let (exchanged, begun) = oauth.exchange(request).await?;
    Ok(Given {
        exchanged,
        begun,
        scope_asked,
    })
}

fn success(given: Given) -> Answer {
    let Given {
        exchanged,
        begun,
        scope_asked,
    } = given;
    let rest = Success {
        token_type: token_type(exchanged.proof.as_ref()),
        expires_in: exchanged.expires_in,
        issued_token_type: JWT,
        // RFC 6749 §5.1: where less is granted than was asked for, the answer says so.
        scope: match &exchanged.scopes {
            Some(scopes) => Some(&scopes.names),
            None => scope_asked.then_some(""),
        },
        refresh_token: begun.as_ref().map(|begun| begun.token.expose_secret()),
        refresh_expires_in: begun.as_ref().map(|begun| begun.expires_in),
        user: User {
            id: &exchanged.id,
            org_id: exchanged.org_id.as_deref(),
            roles: exchanged.role.as_deref().map(|role| [role]),
            is_new: exchanged.is_new,
        },
    };
    let mut response = answer::ok_with(&["token", "access_token"], &exchanged.token.compact, &rest);
    answer::limited(exchanged.limit, response.headers_mut());
    dpop::tell(exchanged.proof.as_ref(), response.headers_mut());
    response
        .extensions_mut()
        .insert(Outcome::Exchanged(exchanged.into()));
    response
}

/// Reads the body of an exchange: one JSON object. serde alone would take a list for it, and
/// would not look at the bytes of texts that it skips.
pub fn read(bytes: &[u8]) -> Result<Body<'_>, Box<Refusal>> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.trim_ascii_start().starts_with('{'))
        .ok_or_else(|| Refusal::new(Code::BodyMalformed))?;
    serde_json::from_str(text).map_err(|error| {
        // serde's own sentence may quote the value: a token, perhaps.
        Refusal::because(
            Code::BodyMalformed,
            format!(
                "The request body is not the JSON object that was expected: line {}, column {}.",
                error.line(),
                error.column()
            ),
        )
    })
}

impl Body<'_> {
    /// The audience that is asked for, where there is one.
    pub fn audience(&self) -> Result<Option<&str>, Box<Refusal>> {
        parameter("audience", &self.audience)
    }
}

/// A text of the body that must be a short one, where there is one.
fn parameter<'b>(name: &str, text: &'b Option<Text<'b>>) -> Result<Option<&'b str>, Box<Refusal>> {
    let text = text.as_ref().map(|Text(text)| text.as_ref());
    let bad = |text: &str| {
        text.is_empty() || text.len() > MAX_PARAMETER || text.chars().any(char::is_control)
    };
    match text {
        Some(text) if bad(text) => Err(malformed(name)),
        other => Ok(other),
    }
}

/// Judges the parameters but the audience; gives the request, and whether it asks for scopes.
pub fn request<'b>(
    body: &'b Body<'b>,
    bearer: Option<&'b str>,
) -> Result<(Request<'b>, bool), Box<Refusal>> {
    let text = |text: &'b Option<Text<'b>>| text.as_ref().map(|Text(text)| text.as_ref());
    let filled = |each| text(each).filter(|text: &&str| !text.is_empty());
    // Beside a token it is not needed, and no less malformed.
    let code_verifier = code_verifier(text(&body.code_verifier))?;
    let mut tokens = [
        filled(&body.session_token),
        filled(&body.subject_token),
        bearer,
    ]
    .into_iter()
    .flatten();
    let credential = match (tokens.next(), tokens.next(), filled(&body.session_id)) {
        (Some(token), None, None) => Credential::Token(token),
        (None, None, Some(id)) => Credential::SessionId { id, code_verifier },
        (None, None, None) => return Err(Refusal::new(Code::CredentialMissing)),
        _ => return Err(Refusal::new(Code::SeveralCredentials)),
    };
    if text(&body.subject_token_type).is_some_and(|kind| !TOKEN_TYPES.contains(&kind)) {
        return Err(Refusal::new(Code::SubjectTokenTypeUnsupported));
    }
    let scope = text(&body.scope).unwrap_or_default();
    if scope.len() > MAX_PARAMETER || !are_scopes(scope) {
        return Err(malformed("scope"));
    }
    let scope_asked = scopes::words(scope).any(|name| name != OFFLINE_ACCESS);
    let request = Request {
        credential,
        caller: Caller::default(),
        keep: false,
        grant_id: None,
        wish: Wish {
            app: parameter("app", &body.app)?,
            scope: Some(scope).filter(|scope| !scope.trim().is_empty()),
            ..Wish::default()
        },
    };
    Ok((request, scope_asked))
}

fn malformed(name: &str) -> Box<Refusal> {
    Refusal::because(
        Code::ParameterMalformed,
        format!("The parameter `{name}` is malformed."),
    )
}

/// RFC 7636 §4.1: 43 to 128 unreserved characters (RFC 3986 §2.3).
fn code_verifier(text: Option<&str>) -> Result<Option<&str>, Box<Refusal>> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match text {
        Some(text) if !((43..=128).contains(&text.len()) && text.bytes().all(unreserved)) => {
            Err(malformed("code_verifier"))
        }
        other => Ok(other),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Box<Refusal>> {
    headers::bearer(headers).map_err(|error| match error {
        BearerError::Several => Refusal::new(Code::SeveralCredentials),
        BearerError::Malformed => Refusal::because(
            Code::ParameterMalformed,
            "The Authorization header is not `Bearer` and a token.",
        ),
    })
}
