//! Webhooks: the events, signed and delivered as Svix does it for Clerk. The signature is
//! that of Standard Webhooks (<https://www.standardwebhooks.com>), under Svix's names.

use super::{StandIn, identifier, locked, objects};
use crate::clock::UnixSeconds;
use crate::config::{WebhookSecret, is_loopback_url};
use crate::crypto::{self, BackendFailed};
use crate::standard_webhooks;
use crate::subject::address::Reach;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// How long Svix waits before each further try.
pub(super) const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(10 * 3600),
];

/// Why an event was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The stand-in talks to this machine only.
    #[error("the endpoint is not on this machine")]
    Elsewhere,
    /// No try was answered with a 2xx; the last answer's status, where there was one.
    #[error("no try was answered with a 2xx (the last: {0:?})")]
    Refused(Option<u16>),
}

/// A new secret, as the dashboard shows it and as bytes.
pub(super) fn secret() -> Result<(String, WebhookSecret), BackendFailed> {
    let bytes = crypto::random::<32>()?;
    let shown = format!("whsec_{}", STANDARD.encode(bytes));
    Ok((shown, WebhookSecret(bytes.to_vec().into())))
}

impl StandIn {
    /// An event as Clerk wraps it. `kind` is such as `session.ended`, `data` the object.
    pub fn event(&self, kind: &str, data: Value) -> Value {
        json!({
            "data": data,
            "event_attributes": {
                "http_request": {"client_ip": "203.0.113.7", "user_agent": "Mozilla/5.0"},
            },
            "instance_id": self.instance_id(),
            "object": "event",
            "timestamp": self.clock.now() * 1000,
            "type": kind,
        })
    }

    /// Ends a session and gives the event that says so. `status` is `ended`, `removed` or
    /// `revoked`; `None` where there is no such session.
    pub fn end_session(&self, id: &str, status: &str) -> Option<Value> {
        let session = self.world(|world| world.end_session(id, status))?;
        Some(self.event(&format!("session.{status}"), session))
    }

    /// Deletes a user with all that is theirs and gives the event that says so.
    pub fn delete_user(&self, id: &str) -> Option<Value> {
        let deleted = self.world(|world| world.delete_user(id));
        deleted.then(|| self.event("user.deleted", objects::deleted("user", id)))
    }

    /// The headers and the body of a webhook: of this event, under this message id, sent at
    /// this time.
    pub fn webhook(
        &self,
        event: &Value,
        id: &str,
        timestamp: UnixSeconds,
    ) -> ([(&'static str, String); 3], String) {
        let body = event.to_string();
        let secret = &self.credentials.webhook_key;
        let signature = standard_webhooks::sign(secret, id, timestamp, body.as_bytes());
        let headers = [
            ("svix-id", id.to_owned()),
            ("svix-timestamp", timestamp.to_string()),
            ("svix-signature", signature),
        ];
        (headers, body)
    }

    /// Delivers an event under a new message id; see [`send_as`](Self::send_as).
    pub async fn send(&self, url: &str, event: &Value) -> Result<(), Undelivered> {
        self.send_as(&identifier("msg"), url, event).await
    }

    /// Delivers an event under this message id. What is not answered with a 2xx is sent
    /// again after a while, under the same id and signed anew, as long as Svix does: about
    /// a day, or what [`retry_after`](Self::retry_after) says.
    pub async fn send_as(&self, id: &str, url: &str, event: &Value) -> Result<(), Undelivered> {
        let url = Url::parse(url)
            .ok()
            .filter(|url| is_loopback_url(url.as_str()))
            .ok_or(Undelivered::Elsewhere)?;
        let waits = locked(&self.conduct).waits.clone();
        let mut status = self.attempt(id, &url, event).await;
        for wait in waits {
            if matches!(status, Some(200..300)) {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            status = self.attempt(id, &url, event).await;
        }
        match status {
            Some(200..300) => Ok(()),
            _ => Err(Undelivered::Refused(status)),
        }
    }

    async fn attempt(&self, id: &str, url: &Url, event: &Value) -> Option<u16> {
        let (headers, body) = self.webhook(event, id, self.clock.now());
        let reply = self
            .fetcher
            .send(Method::POST, url, Reach::Private, |request| {
                let request = headers.into_iter().fold(request, |request, (name, value)| {
                    request.header(name, value)
                });
                request
                    .header("content-type", "application/json")
                    .header("user-agent", "Svix-Webhooks/1.0")
                    .body(body)
            })
            .await;
        reply.ok().map(|reply| reply.status)
    }
}
