//! One line in the log for each answer: who got what, or what was refused and why.

use super::answer::told;
use super::outcome::{About, Outcome};
use crate::exchange::Exchanged;
use crate::explain::Refusal;
use crate::keys::Keeper;
use crate::oauth::introspection::Introspected;
use crate::oauth::issued::Issued;
use crate::oauth::revocation::Revoked;
use crate::oauth::sign_in::Told;
use crate::policy::scopes::Scopes;
use crate::webhooks::Taken;
use http::StatusCode;

/// What each line has.
pub(super) struct Line<'l> {
    pub(super) about: About<'l>,
    /// How long it took, microseconds.
    pub(super) micros: u64,
}

impl Line<'_> {
    /// What a door did.
    pub(super) fn told(&self, outcome: &Outcome, keys: &Keeper) {
        match outcome {
            Outcome::Refused(refusal) => self.refused(refusal, keys),
            Outcome::Exchanged(exchanged) => self.exchanged(exchanged),
            Outcome::Issued(issued) => self.issued(issued),
            Outcome::Introspected(introspected) => self.introspected(introspected),
            Outcome::Revoked(revoked) => self.revoked(revoked),
            Outcome::SignIn(told) => self.sent(told, keys),
            Outcome::Heard(taken) => self.heard(taken),
        }
    }

    /// An answer of which there is nothing to tell but that it was given.
    pub(super) fn answered(&self, status: StatusCode) {
        tracing::debug!(
            route = self.about.route.name(),
            request_id = self.about.id,
            status = status.as_u16(),
            micros = self.micros,
            "answered"
        );
    }

    fn exchanged(&self, exchanged: &Exchanged) {
        tracing::info!(
            request_id = self.about.id,
            trace_id = self.about.trace,
            app = exchanged.app.settings.name,
            issuer = exchanged.issuer.settings.issuer,
            subject = exchanged.pseudonym,
            jti = exchanged.token.jti,
            kid = exchanged.signer.kid,
            scope = exchanged
                .scopes
                .as_ref()
                .map(|scopes| scopes.names.as_str()),
            scope_faults = exchanged.scopes.as_ref().and_then(Scopes::shown_faults),
            micros = self.micros,
            "exchanged"
        );
    }

    fn heard(&self, taken: &Taken) {
        tracing::info!(
            request_id = self.about.id,
            trace_id = self.about.trace,
            app = taken.app,
            issuer = taken.issuers.join(" "),
            event = taken.id,
            "type" = taken.kind,
            result = taken.outcome.name(),
            subject = taken.subject,
            session = taken.session,
            micros = self.micros,
            "webhook"
        );
    }

    fn issued(&self, issued: &Issued) {
        let about = issued.about.as_ref();
        tracing::info!(
            request_id = self.about.id,
            trace_id = self.about.trace,
            client = issued.party.id(),
            app = about.map(|about| about.app.as_str()),
            issuer = about.and_then(|about| about.issuer.as_deref()),
            subject = about.and_then(|about| about.subject.as_deref()),
            jti = issued.token.jti,
            kid = issued.signer.kid,
            scope = issued.scope,
            micros = self.micros,
            "issued"
        );
    }

    /// A token that holds is asked about with each request of somebody's: that is no news.
    fn introspected(&self, introspected: &Introspected) {
        let client = introspected.client.id.as_str();
        match &introspected.told {
            Ok(active) => tracing::debug!(
                request_id = self.about.id,
                trace_id = self.about.trace,
                client,
                active = true,
                jti = active.jti,
                micros = self.micros,
                "introspected"
            ),
            Err(refusal) => {
                let failure = refusal.ladder.failure();
                tracing::info!(
                    request_id = self.about.id,
                    trace_id = self.about.trace,
                    client,
                    active = false,
                    code = refusal.code.entry().slug,
                    check = failure.map(|rung| rung.check.name()),
                    seen = failure.and_then(|rung| rung.seen.as_deref()).map(printable),
                    expected = failure.and_then(|rung| rung.expected.as_deref()),
                    micros = self.micros,
                    "introspected"
                );
            }
        }
    }

    fn revoked(&self, revoked: &Revoked) {
        let about = revoked.about();
        tracing::info!(
            request_id = self.about.id,
            trace_id = self.about.trace,
            client = revoked.party.id(),
            kind = revoked.kind(),
            jti = revoked.jti(),
            app = about.map(|about| about.app.as_str()),
            subject = about.and_then(|about| about.subject.as_deref()),
            session = about.and_then(|about| about.session.as_deref()),
            result = revoked.result(),
            micros = self.micros,
            "revoked"
        );
    }

    fn sent(&self, told: &Told, keys: &Keeper) {
        if let Some(refusal) = &told.refusal {
            return self.refused(refusal, keys);
        }
        tracing::info!(
            route = self.about.route.name(),
            request_id = self.about.id,
            trace_id = self.about.trace,
            provider = told.provider,
            app = told.about.app,
            issuer = told.about.issuer,
            subject = told.about.subject,
            micros = self.micros,
            "sent on"
        );
    }

    fn refused(&self, refusal: &Refusal, keys: &Keeper) {
        let entry = refusal.code.entry();
        let failure = refusal.ladder.failure();
        let seen = refusal.seen.as_ref();
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    route = self.about.route.name(),
                    request_id = self.about.id,
                    trace_id = self.about.trace,
                    code = entry.slug,
                    status = told(refusal).0.as_u16(),
                    issuer = seen.and_then(|seen| seen.iss.as_deref()).map(printable),
                    check = failure.map(|rung| rung.check.name()),
                    seen = failure.and_then(|rung| rung.seen.as_deref()),
                    expected = failure.and_then(|rung| rung.expected.as_deref()),
                    cause = refusal.cause.as_deref(),
                    ring = keys.published().generation,
                    micros = self.micros,
                    $message
                )
            };
        }
        match entry.status {
            // Said once for many, by whoever refuses them.
            _ if refusal.code.is_shed() => line!(debug, "shed"),
            500 => line!(error, "failed"),
            503 => line!(warn, "failed"),
            _ => line!(info, "refused"),
        }
    }
}

pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|each| if each.is_control() { '\u{fffd}' } else { each })
        .collect()
}
