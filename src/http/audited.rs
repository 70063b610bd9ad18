//! What the audit log says of an answer.

use super::answer::Refused;
use super::caller::{self, Peer};
use super::exchange::Noted;
use super::token;
use super::webhooks::Heard;
use crate::audit::{Audit, Event, network};
use crate::crypto::sha256;
use crate::keys::Keeper;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use ipnet::IpNet;
use std::sync::Arc;

/// The audit log and what it needs to know of the way of a request.
pub struct Audited {
    /// The log.
    pub audit: Arc<Audit>,
    /// The proxies that are believed.
    pub proxies: Arc<[IpNet]>,
    /// Our keys, for pseudonyms.
    pub keys: Arc<Keeper>,
}

/// What the front knows of a request.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    /// The route's name.
    pub(super) route: &'static str,
    /// The request's id.
    pub(super) id: &'a str,
    /// The trace's id.
    pub(super) trace: Option<&'a str>,
    /// The client's network.
    pub(super) network: Option<&'a str>,
}

impl<'a> About<'a> {
    fn event(self, action: &'a str) -> Event<'a> {
        Event {
            action,
            request_id: Some(self.id),
            trace_id: self.trace,
            network: self.network,
            ..Event::default()
        }
    }
}

impl Audited {
    /// The network that a request came from, where it can be told and is asked for.
    pub(super) fn network(&self, Peer(peer): Peer, headers: &HeaderMap) -> Option<String> {
        if !self.audit.is_on() {
            return None;
        }
        caller::client(peer.ip(), headers, &self.proxies).map(network)
    }

    /// Records what was answered, where it is an exchange, a revocation or a refusal of them.
    pub(super) async fn answered(
        &self,
        about: About<'_>,
        refused: Option<&Refused>,
        noted: Option<&Noted>,
        heard: Option<&Heard>,
    ) {
        let action = match about.route {
            _ if !self.audit.is_on() => return,
            "jwks" | "metadata" | "health" | "other" => return,
            "webhooks" => "revoke",
            route => route,
        };
        let base = about.event(action);
        match (refused, noted, heard) {
            (Some(refused), ..) => self.refused(base, refused).await,
            (None, Some(noted), _) => self.exchanged(base, noted).await,
            (None, None, Some(heard)) => self.heard(base, heard).await,
            (None, None, None) => {}
        }
    }

    /// Records a service token that was issued.
    pub(super) async fn issued(&self, about: About<'_>, token::Noted(issued): &token::Noted) {
        if !self.audit.is_on() {
            return;
        }
        let hash = URL_SAFE_NO_PAD.encode(sha256(issued.token.compact.as_bytes()));
        let event = Event {
            outcome: "ok",
            client: Some(&issued.client.id),
            audience: Some(&issued.audience),
            scope: issued.scope.as_deref(),
            token_sha256: Some(&hash),
            jti: Some(&issued.token.jti),
            kid: Some(&issued.signer.kid),
            ..about.event(about.route)
        };
        self.audit.record(event).await;
    }

    async fn refused(&self, base: Event<'_>, Refused(refusal): &Refused) {
        let about = refusal.about.as_ref();
        let claimed = refusal.seen.as_ref().and_then(|seen| seen.iss.as_deref());
        let event = Event {
            outcome: refusal.code.entry().slug,
            app: about.map(|about| about.app.as_str()),
            issuer: about.and_then(|about| about.issuer.as_deref()),
            claimed_issuer: claimed.filter(|_| about.is_none()),
            subject: about.and_then(|about| about.subject.as_deref()),
            session: about.and_then(|about| about.session.as_deref()),
            ..base
        };
        self.audit.record(event).await;
    }

    async fn exchanged(&self, base: Event<'_>, Noted(exchanged): &Noted) {
        let hash = URL_SAFE_NO_PAD.encode(sha256(exchanged.token.compact.as_bytes()));
        let issuer = &exchanged.issuer.settings.issuer;
        let keys = self.keys.published();
        let session = exchanged.session_id.as_deref();
        let session = session.map(|session| keys.pseudonym(issuer, session));
        let event = Event {
            outcome: "ok",
            app: Some(&exchanged.app.settings.name),
            issuer: Some(issuer),
            subject: Some(&exchanged.pseudonym),
            session: session.as_deref(),
            audience: Some(&exchanged.audience),
            scope: exchanged
                .scopes
                .as_ref()
                .map(|scopes| scopes.names.as_str()),
            token_sha256: Some(&hash),
            jti: Some(&exchanged.token.jti),
            kid: Some(&exchanged.signer.kid),
            ..base
        };
        self.audit.record(event).await;
    }

    async fn heard(&self, base: Event<'_>, Heard(taken): &Heard) {
        if !taken.revokes {
            return;
        }
        let issuers = taken.issuers.join(" ");
        let event = Event {
            outcome: taken.outcome.name(),
            app: Some(&taken.app),
            issuer: Some(&issuers),
            subject: taken.subject.as_deref(),
            session: taken.session.as_deref(),
            event: Some(&taken.id),
            event_type: Some(taken.kind),
            ..base
        };
        self.audit.record(event).await;
    }
}
