//! Clerk's opaque tokens, verified by its Backend API: what it says of them, as claims.

use super::api::{ApiError, Asking};
use super::instance::Occasion;
use crate::clock::UnixSeconds;
use crate::config::{IssuerSettings, TokenKind};
use crate::explain::{Code, Refusal};
use crate::subject::Issuer;
use crate::subject::json::{Json, Object};
use crate::subject::opaque::Told;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Claims that Clerk itself gives: a custom one of these names says nothing.
const RESERVED: [&str; 10] = [
    "iss",
    "sub",
    "exp",
    "nbf",
    "iat",
    "jti",
    "scope",
    "scp",
    "scopes",
    "client_id",
];
/// Times above this are milliseconds: as seconds they would lie in the year 5138.
const MOST_SECONDS: i64 = 99_999_999_999;

/// What Clerk answers of an access token, a machine token or an API key.
#[derive(Deserialize)]
struct Verified {
    id: String,
    subject: String,
    revoked: bool,
    expired: bool,
    expiration: Option<i64>,
    created_at: Option<i64>,
    scopes: Option<Vec<String>>,
    client_id: Option<String>,
    aud: Option<Value>,
    claims: Option<Map<String, Value>>,
}

/// Asks about a token of this kind.
pub(in crate::subject) async fn verify(
    asking: Asking<'_>,
    issuer: &Issuer,
    token: &str,
    kind: TokenKind,
) -> Result<Told, Box<Refusal>> {
    let (path, body, key) = match kind {
        TokenKind::OAuth => (
            "oauth_applications/access_tokens/verify",
            json!({"access_token": token}),
            None,
        ),
        TokenKind::Machine => (
            "m2m_tokens/verify",
            json!({"token": token}),
            asking.api.machine_key(),
        ),
        TokenKind::ApiKey => ("api_keys/verify", json!({"secret": token}), None),
        TokenKind::Session => return Err(Refusal::new(Code::SubjectTokenKindNotAccepted)),
    };
    // Another instance's key would vouch for another instance's users.
    let (verified, instance) = tokio::join!(
        asking.verify(path, &body, key),
        asking.check_instance(issuer, Occasion::Use)
    );
    instance?;
    match verified {
        Ok(answer) => read(&answer, &issuer.settings, kind),
        Err(ApiError::NotFound) => {
            asking.check_instance(issuer, Occasion::NotFound).await?;
            Ok(Told::Not(Code::SubjectTokenInactive))
        }
        // It cannot be one of its tokens; but that is not said so clearly that it is kept.
        Err(error @ ApiError::Refused(..)) => {
            Err(Refusal::new(Code::SubjectTokenInactive).caused_by(error))
        }
        Err(error) => Err(error.refusal()),
    }
}

fn read(answer: &[u8], issuer: &IssuerSettings, kind: TokenKind) -> Result<Told, Box<Refusal>> {
    // What it answers of a JWT that is no longer active.
    let inactive = |object: Object<'_>| object.get("active") == Some(&Json::Bool(false));
    if Object::parse(answer).is_ok_and(inactive) {
        return Ok(Told::Not(Code::SubjectTokenInactive));
    }
    let verified: Verified =
        serde_json::from_slice(answer).map_err(|error| ApiError::odd(&error).refusal())?;
    if verified.revoked {
        return Ok(Told::Not(Code::SubjectTokenRevoked));
    }
    if verified.expired {
        return Ok(Told::Not(Code::SubjectTokenExpired));
    }
    let expires_at = verified.expiration.map(seconds);
    // Machine tokens and API keys: as in a machine token that is a JWT, beside the others.
    let mut claims = verified.claims.unwrap_or_default();
    claims.retain(|name, _| !RESERVED.contains(&name.as_str()));
    if kind == TokenKind::OAuth {
        claims = Map::new();
    }
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    set("iss", Some(issuer.issuer.clone().into()));
    set("sub", Some(verified.subject.into()));
    set("jti", Some(verified.id.into()));
    set("exp", expires_at.map(Value::from));
    set("iat", verified.created_at.map(seconds).map(Value::from));
    set("scope", verified.scopes.map(|all| all.join(" ").into()));
    if kind == TokenKind::OAuth {
        set("client_id", verified.client_id.map(Value::from));
        set("aud", verified.aud);
    }
    Ok(Told::Active {
        claims: Value::Object(claims).to_string().into_bytes(),
        expires_at,
    })
}

/// Clerk dates access tokens in seconds, machine tokens and API keys in milliseconds.
fn seconds(time: i64) -> UnixSeconds {
    if time > MOST_SECONDS {
        time / 1000
    } else {
        time
    }
}
