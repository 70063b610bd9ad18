//! `POST /oauth/token` (RFC 6749 §3.2): parse, authenticate, issue, answer.

use super::client::proof;
use super::form::Form;
use super::headers::are_scopes;
use super::outcome::Outcome;
use super::{answer, dpop, ids, token_exchange};
use crate::dpop::Shown;
use crate::exchange::Caller;
use crate::explain::{Code, Refusal};
use crate::oauth::capabilities::{
    AUTHORIZATION_CODE, CLIENT_CREDENTIALS, JWT_BEARER, REFRESH_TOKEN, TOKEN_EXCHANGE,
};
use crate::oauth::issued::Issued;
use crate::oauth::{OAuth, Request, client_credentials, codes, refresh};
use http::header::{HeaderMap, HeaderValue, PRAGMA};
use secrecy::ExposeSecret;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use warp::reply::Response as Answer;

/// RFC 6749 §5.1, RFC 8693 §2.2.1, and nothing else.
#[derive(Serialize)]
struct Success<'t> {
    access_token: &'t str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'t str>,
}

/// Answers a request for a token.
pub async fn handle(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Answer {
    match attempt(oauth, headers, address, body).await {
        Ok(issued) => success(issued),
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Result<Issued, Box<Refusal>> {
    let form = Form::read(headers, body)?;
    let shown = dpop::proof(headers)?;
    let uri = [format!("{}/oauth/token", oauth.exchange.issuer)];
    let caller = Caller {
        address,
        traceparent: ids::traceparent(headers),
        proof: shown.map(|proof| Shown {
            proof,
            method: "POST",
            uris: &uri,
            token: None,
        }),
    };
    oauth
        .token(
            proof(headers, &form),
            request(oauth, headers, &form),
            caller,
        )
        .await
}

/// What is asked for.
fn request<'f>(
    oauth: &OAuth,
    headers: &HeaderMap,
    form: &'f Form<'_>,
) -> Result<Request<'f>, Box<Refusal>> {
    let grant = form.required("grant_type")?;
    if oauth.grants().all(|on| on != grant) {
        return Err(Refusal::new(Code::GrantTypeUnsupported));
    }
    match grant {
        CLIENT_CREDENTIALS => Ok(Request::ClientCredentials(client_credentials::Wish {
            audiences: form.audiences(),
            scope: scope(form)?,
        })),
        REFRESH_TOKEN => Ok(Request::Refresh(refresh::Wish {
            token: form.required("refresh_token")?,
            scope: scope(form)?,
            audiences: form.audiences(),
        })),
        JWT_BEARER => {
            let wish = token_exchange::jwt_bearer(headers, form)?;
            Ok(Request::JwtBearer(wish))
        }
        TOKEN_EXCHANGE => Ok(Request::TokenExchange(token_exchange::wish(form)?)),
        AUTHORIZATION_CODE => Ok(Request::AuthorizationCode(codes::Wish {
            code: form.required("code")?,
            redirect_uri: form.required("redirect_uri")?,
            code_verifier: form.required("code_verifier")?,
        })),
        _ => Err(Refusal::new(Code::GrantTypeUnsupported)),
    }
}

/// `scope` (RFC 6749 §3.3), where there is one.
pub(super) fn scope<'f>(form: &'f Form<'_>) -> Result<Option<&'f str>, Box<Refusal>> {
    let scope = form.get("scope").filter(|scope| !scope.trim().is_empty());
    if scope.is_some_and(|scope| !are_scopes(scope)) {
        return Err(Refusal::because(
            Code::ScopeNotAllowed,
            "The parameter `scope` is malformed.",
        ));
    }
    Ok(scope)
}

fn success(issued: Issued) -> Answer {
    let compact = &issued.token.compact;
    let body = Success {
        access_token: compact,
        issued_token_type: issued.issued_token_type,
        token_type: issued.token_type,
        expires_in: issued.expires_in,
        scope: issued.scope.as_deref(),
        refresh_token: issued
            .refresh_token
            .as_ref()
            .map(ExposeSecret::expose_secret),
    };
    let mut response = answer::ok(&body, compact.len() + 256);
    let headers = response.headers_mut();
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    answer::limited(issued.limit, headers);
    dpop::tell(issued.proof.as_ref(), headers);
    response
        .extensions_mut()
        .insert(Outcome::Issued(Arc::new(issued)));
    response
}
