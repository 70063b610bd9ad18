//! `POST /webhooks/clerk/{app}`: the headers of a signed message, its body, and what became
//! of it.

use super::body::Incoming;
use super::outcome::Outcome;
use super::{answer, body, headers};
use crate::exchange::Exchange;
use crate::explain::{Code, Refusal};
use crate::standard_webhooks::Message;
use crate::webhooks::{self, Taken};
use bytes::Buf;
use futures_util::Stream;
use http::HeaderMap;
use serde::Serialize;
use std::sync::Arc;
use warp::reply::Response as Answer;

/// The largest body, in bytes: a user with all their metadata and accounts.
const MAX_BODY: usize = 256 * 1024;
/// The longest of the three headers, in bytes.
const MAX_HEADER: usize = 2048;
/// The two families of names of one scheme.
const FAMILIES: [[&str; 3]; 2] = [
    ["svix-id", "svix-timestamp", "svix-signature"],
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
];

#[derive(Serialize)]
struct Acknowledged {
    /// For whoever looks at the attempt in the provider's dashboard.
    result: &'static str,
}

/// Answers a webhook: 200 only where nothing of it can be lost any more.
pub async fn handle<B: Buf>(
    exchange: &Exchange,
    app: &str,
    headers: &HeaderMap,
    body: Incoming<impl Stream<Item = Result<B, warp::Error>>>,
) -> Answer {
    match attempt(exchange, app, headers, body).await {
        Ok(taken) => {
            let result = taken.outcome.name();
            let mut response = answer::ok(&Acknowledged { result }, 32);
            response
                .extensions_mut()
                .insert(Outcome::Heard(Arc::new(taken)));
            response
        }
        Err(refusal) => answer::refused(refusal),
    }
}

async fn attempt<B: Buf>(
    exchange: &Exchange,
    app: &str,
    headers: &HeaderMap,
    body: Incoming<impl Stream<Item = Result<B, warp::Error>>>,
) -> Result<Taken, Box<Refusal>> {
    let door = webhooks::door(exchange, app)?;
    let body = body::read_up_to(MAX_BODY, headers, body).await?;
    headers::has_type(headers, "application/json")?;
    let [id, timestamp, signatures] = signed(headers)?;
    let message = Message {
        id,
        timestamp,
        signatures,
        body: &body,
    };
    if !message.has_id() {
        return Err(invalid("The webhook's id is malformed."));
    }
    door.take(message).await
}

fn invalid(sentence: impl Into<String>) -> Box<Refusal> {
    Refusal::because(Code::WebhookHeadersMissing, sentence)
}

/// The headers of one family, each once. Where a message has both, it is Svix's own that
/// count: an id of the one is never taken with a signature of the other.
fn signed(headers: &HeaderMap) -> Result<[&str; 3], Box<Refusal>> {
    let [svix, standard] = FAMILIES;
    let family = if svix.iter().any(|name| headers.contains_key(*name))
        || !standard.iter().any(|name| headers.contains_key(*name))
    {
        svix
    } else {
        standard
    };
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (None, _) => Err(invalid(format!("The header `{name}` is missing."))),
            (Some(_), Some(_)) => Err(invalid(format!("The header `{name}` is there twice."))),
            (Some(value), None) => value
                .to_str()
                .ok()
                .filter(|text| text.len() <= MAX_HEADER)
                .ok_or_else(|| invalid(format!("The header `{name}` is malformed."))),
        }
    };
    let [id, timestamp, signatures] = family;
    Ok([one(id)?, one(timestamp)?, one(signatures)?])
}
