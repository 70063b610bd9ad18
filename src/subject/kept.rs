//! A subject that was verified a while ago: its claims are kept, and judged as they were then.
//!
//! So a refresh token and an authorization code stand for the same subject as the credential
//! before them, and policy looks at it anew each time. What was revoked since is seen by the
//! times of those claims.

use super::claims::{self, Origin};
use super::json::Object;
use super::{Issuer, Subject};
use crate::clock::UnixSeconds;
use crate::config::{RefreshSettings, TokenKind};
use crate::explain::{Code, Ladder, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A verified subject, to be kept: personal data, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The `iss` of the issuer that vouched for it.
    pub issuer: String,
    /// How the service knows of the claims.
    origin: Origin,
    /// When they were judged.
    judged_at: UnixSeconds,
    /// Whether it is a session of the user's own: no delegated token, no machine, and nobody who
    /// impersonates the user.
    own_session: bool,
    /// The thumbprint of the key whose holder alone may use it (RFC 9449 §5), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    claims: Box<RawValue>,
}

impl Kept {
    /// Keeps a verified subject.
    ///
    /// # Errors
    /// Where its claims cannot be written down, which no claims that were read can be.
    pub fn of(subject: &Subject<'_>) -> Result<Self, Box<Refusal>> {
        Ok(Self {
            issuer: subject.issuer.to_owned(),
            origin: subject.origin,
            judged_at: subject.judged_at,
            own_session: subject.origin.kind() == TokenKind::Session && subject.actor.is_none(),
            bound_to: None,
            claims: serde_json::value::to_raw_value(subject.claims).map_err(odd)?,
        })
    }

    /// Whether it gets refresh tokens from an app of these settings: a session of the user's
    /// own does, and where the provider is to be asked about it, one that has an id.
    pub fn is_refreshed(&self, settings: Option<RefreshSettings>) -> Result<bool, Box<Refusal>> {
        let Some(settings) = settings.filter(|_| self.own_session) else {
            return Ok(false);
        };
        Ok(!settings.ask_provider || self.session_id()?.is_some())
    }

    /// The provider's session.
    pub fn session_id(&self) -> Result<Option<String>, Box<Refusal>> {
        Ok(self.claims()?.text("sid").map(str::to_owned))
    }

    /// Its claims, to be judged.
    pub fn claims(&self) -> Result<Object<'_>, Box<Refusal>> {
        Object::parse(self.claims.get().as_bytes()).map_err(odd)
    }

    /// Judges the claims by the issuer's rules, as of the time when they were first judged.
    pub fn judge<'s>(
        &self,
        claims: &'s Object<'s>,
        issuer: &'s Issuer,
        ladder: &mut Ladder,
    ) -> Result<Subject<'s>, Box<Refusal>> {
        claims::judge(claims, issuer, self.origin, self.judged_at, ladder)
    }
}

fn odd(error: serde_json::Error) -> Box<Refusal> {
    Refusal::new(Code::InternalError).caused_by(error)
}
