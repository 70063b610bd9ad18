//! `POST /oauth/introspect` (RFC 7662): parse, authenticate, look, answer.

use super::answer;
use super::client::proof;
use super::form::Form;
use super::outcome::Outcome;
use crate::exchange::Caller;
use crate::explain::Refusal;
use crate::oauth::OAuth;
use crate::oauth::introspection::{Active, Introspected};
use http::header::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::sync::Arc;
use warp::reply::Response as Answer;

/// RFC 7662 §2.2: of a token that is not active nothing else is said.
#[derive(Serialize)]
struct Told<'t> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(flatten)]
    claims: Option<&'t Map<String, Value>>,
}

/// Answers a question about a token.
pub async fn handle(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Answer {
    match attempt(oauth, headers, address, body).await {
        Ok(introspected) => told(introspected),
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Result<Introspected, Box<Refusal>> {
    let form = Form::read(headers, body)?;
    let caller = Caller::at(address);
    // `token_type_hint` would only shorten a search (§2.1): a token says itself what it is.
    let token = form.required("token");
    oauth.introspect(proof(headers, &form), token, caller).await
}

fn told(introspected: Introspected) -> Answer {
    let active = introspected.told.as_ref().ok();
    let mut response = answer::ok(
        &Told {
            active: active.is_some(),
            token_type: active.and_then(|active: &Active| active.token_type),
            claims: active.map(|active| &active.claims),
        },
        1024,
    );
    let outcome = Outcome::Introspected(Arc::new(introspected));
    response.extensions_mut().insert(outcome);
    response
}
