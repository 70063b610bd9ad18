//! `POST /oauth/revoke` (RFC 7009): parse, authenticate, revoke, answer.

use super::answer;
use super::client::proof;
use super::form::Form;
use super::outcome::Outcome;
use crate::exchange::Caller;
use crate::explain::Refusal;
use crate::oauth::OAuth;
use crate::oauth::revocation::Revoked;
use http::header::HeaderMap;
use std::net::IpAddr;
use std::sync::Arc;
use warp::reply::Response as Answer;

/// Answers a request to revoke a token.
pub async fn handle(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Answer {
    match attempt(oauth, headers, address, body).await {
        Ok(revoked) => {
            let mut response = answer::empty();
            let outcome = Outcome::Revoked(Arc::new(revoked));
            response.extensions_mut().insert(outcome);
            response
        }
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt(
    oauth: &OAuth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    body: &[u8],
) -> Result<Revoked, Box<Refusal>> {
    let form = Form::read(headers, body)?;
    let caller = Caller::at(address);
    // A `token_type_hint` that is wrong or unknown changes nothing (§2.1).
    let token = form.required("token");
    oauth.revoke(proof(headers, &form), token, caller).await
}
