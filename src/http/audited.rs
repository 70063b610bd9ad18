//! What the audit log says of an answer.

use super::caller::{self, Peer};
use super::outcome::{About, Outcome};
use super::route::Route;
use crate::audit::{Audit, Event, network};
use crate::crypto::sha256;
use crate::exchange::Exchanged;
use crate::explain::Refusal;
use crate::keys::Keeper;
use crate::oauth::introspection::Introspected;
use crate::oauth::issued::Issued;
use crate::oauth::revocation::Revoked;
use crate::oauth::sign_in::Told;
use crate::token::AppToken;
use crate::webhooks::Taken;
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

    /// Records what a door did, where it is an exchange, a token, a revocation or a refusal of
    /// them.
    pub(super) async fn answered(&self, about: About<'_>, outcome: &Outcome) {
        let action = match about.route {
            _ if !self.audit.is_on() => return,
            route if !route.decides() => return,
            Route::Webhooks => "revoke",
            route => route.name(),
        };
        let base = about.event(action);
        match outcome {
            // Nothing was decided, and a queue in which each waits its turn would be one more.
            Outcome::Refused(refusal) if refusal.code.is_shed() => {}
            Outcome::Refused(refusal) => self.refused(base, refusal).await,
            Outcome::Exchanged(exchanged) => self.exchanged(base, exchanged).await,
            Outcome::Issued(issued) => self.issued(base, issued).await,
            Outcome::Introspected(introspected) => self.introspected(base, introspected).await,
            Outcome::Revoked(revoked) => self.revoked(base, revoked).await,
            Outcome::SignIn(told) => self.sent(base, told).await,
            Outcome::Heard(taken) => self.heard(base, taken).await,
        }
    }

    async fn issued(&self, base: Event<'_>, issued: &Issued) {
        let about = issued.about.as_ref();
        let event = Event {
            outcome: "ok",
            client: Some(issued.party.id()),
            app: about.map(|about| about.app.as_str()),
            issuer: about.and_then(|about| about.issuer.as_deref()),
            subject: about.and_then(|about| about.subject.as_deref()),
            session: about.and_then(|about| about.session.as_deref()),
            audience: Some(&issued.audience),
            scope: issued.scope.as_deref(),
            token_sha256: Some(&hash(&issued.token)),
            jti: Some(&issued.token.jti),
            kid: Some(&issued.signer.kid),
            ..base
        };
        self.audit.record(event).await;
    }

    /// As at the gate, those are recorded that did not pass.
    async fn introspected(&self, base: Event<'_>, introspected: &Introspected) {
        if let Err(refusal) = &introspected.told {
            let event = Event {
                outcome: refusal.code.entry().slug,
                client: Some(&introspected.client.id),
                ..base
            };
            self.audit.record(event).await;
        }
    }

    async fn revoked(&self, base: Event<'_>, revoked: &Revoked) {
        if revoked.what.is_none() {
            return;
        }
        let about = revoked.about();
        let event = Event {
            outcome: revoked.result(),
            client: Some(revoked.party.id()),
            jti: revoked.jti(),
            app: about.map(|about| about.app.as_str()),
            issuer: about.and_then(|about| about.issuer.as_deref()),
            subject: about.and_then(|about| about.subject.as_deref()),
            session: about.and_then(|about| about.session.as_deref()),
            ..base
        };
        self.audit.record(event).await;
    }

    /// Who signed in, and whom a provider or we refused; beginnings are nobody's yet.
    async fn sent(&self, base: Event<'_>, told: &Told) {
        if let Some(refusal) = &told.refusal {
            return self.refused(base, refusal).await;
        }
        if told.about.subject.is_none() {
            return;
        }
        let event = Event {
            outcome: "ok",
            app: Some(&told.about.app),
            issuer: told.about.issuer.as_deref(),
            subject: told.about.subject.as_deref(),
            session: told.about.session.as_deref(),
            ..base
        };
        self.audit.record(event).await;
    }

    async fn refused(&self, base: Event<'_>, refusal: &Refusal) {
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

    async fn exchanged(&self, base: Event<'_>, exchanged: &Exchanged) {
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
            audience: Some(&exchanged.audiences.join(" ")),
            scope: exchanged
                .scopes
                .as_ref()
                .map(|scopes| scopes.names.as_str()),
            token_sha256: Some(&hash(&exchanged.token)),
            jti: Some(&exchanged.token.jti),
            kid: Some(&exchanged.signer.kid),
            ..base
        };
        self.audit.record(event).await;
    }

    async fn heard(&self, base: Event<'_>, taken: &Taken) {
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

fn hash(token: &AppToken) -> String {
    URL_SAFE_NO_PAD.encode(sha256(token.compact.as_bytes()))
}
