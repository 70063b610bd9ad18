//! `GET /.well-known/status-lists/1` and the list of such lists
//! (draft-ietf-oauth-status-list-21 §8, §9): public documents for verifiers.

use super::{answer, metadata};
use crate::explain::{Code, Refusal};
use crate::oauth::OAuth;
use crate::oauth::status_list::MADE_EVERY;
use crate::token::status_list;
use http::header::HeaderMap;
use serde_json::json;
use warp::reply::Response as Answer;

/// The list, as a JWT: the one form that there is.
pub async fn list(oauth: &OAuth, headers: &HeaderMap) -> Answer {
    match oauth.status_list().await {
        Ok(Some(made)) => {
            let kind = "application/statuslist+jwt";
            let cache = format!("public, max-age={MADE_EVERY}");
            metadata::document(headers, kind, &cache, &made.etag, &made.token)
        }
        Ok(None) => answer::refused(Refusal::new(Code::NotFound)),
        Err(refusal) => answer::refused(refusal),
    }
}

/// The lists that there are: one.
pub fn lists(oauth: &OAuth) -> Answer {
    if oauth.listing().is_none() {
        return answer::refused(Refusal::new(Code::NotFound));
    }
    let text = json!({"status_lists": [status_list::uri(&oauth.exchange.issuer)]}).to_string();
    metadata::public(text)
}
