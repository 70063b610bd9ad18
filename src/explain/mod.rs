//! Explanation: why a request was refused, as data.
//!
//! A [`Refusal`] carries one code of the [`catalogue`] and the [`ladder`] that led to it.
//! Who shows how much of it is decided elsewhere: the HTTP answer shows the caller's own
//! part, the log and `exchequer explain` show all.

pub mod catalogue;
pub mod foreign;
pub mod hints;
pub mod input;
pub mod known;
pub mod ladder;
pub mod nearest;
pub mod render;
pub mod report;
pub mod say;
pub mod sign_in_url;

use crate::clock::UnixSeconds;
pub use catalogue::{Action, Code};
pub use ladder::{Check, Ladder};
use serde::Serialize;

/// What the caller itself sent, as far as it could be read; nothing of it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The token's `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The token's `aud`, where it is a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The token's `azp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azp: Option<String>,
    /// The header's `typ`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// The header's `alg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// The header's `kid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The token's `exp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<UnixSeconds>,
}

/// Who could not be asked, where a refusal is temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// The identity provider.
    #[serde(rename = "upstream-idp")]
    UpstreamIdp,
    /// This service.
    #[serde(rename = "exchequer")]
    Exchequer,
}

/// How far a limit is from being reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Whose it is: `subject` or `address`.
    pub bucket: &'static str,
    /// How many requests it allows at once.
    pub most: u32,
    /// How many of them are left.
    pub left: u32,
    /// Seconds until all of them are there again.
    pub full_in: UnixSeconds,
}

/// Whom a refusal is about, where that was certain before it; under pseudonyms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The app whose policy decided.
    pub app: String,
    /// The `iss` of the issuer that vouched for the subject.
    pub issuer: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The session.
    pub session: Option<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The cause.
    pub code: Code,
    /// A sentence for the caller. It holds nothing that the caller did not send.
    pub description: String,
    /// What the caller sent.
    pub seen: Option<Seen>,
    /// Who could not be asked.
    pub source: Option<Source>,
    /// When to try again, in seconds.
    pub retry_after: Option<u64>,
    /// The nearest limit, where one was looked at.
    pub limit: Option<Limit>,
    /// Where the resource describes itself (RFC 9728 §5.1), where one was called.
    pub resource_metadata: Option<String>,
    /// The scopes that are needed (RFC 6750 §3), where scopes are what is missing.
    pub scope: Option<String>,
    /// Whether the request showed a DPoP-bound token, or should have: it is challenged to
    /// (RFC 9449 §7.1).
    pub dpop: bool,
    /// The nonce for the next DPoP proof (RFC 9449 §8), where proofs need one.
    pub nonce: Option<String>,
    /// What a bad credential is called at the token endpoint, with a 400: `invalid_grant`
    /// (RFC 6749 §5.2) or `invalid_request` (RFC 8693 §2.2.2).
    pub as_grant: Option<&'static str>,
    /// Whom it is about, for the audit log.
    pub about: Option<About>,
    /// The checks that were made, for the log and `explain`.
    pub ladder: Ladder,
    /// What lies behind it, for the log alone: an I/O error, an expression's error.
    pub cause: Option<String>,
    /// What it counts as for the limits, where the caller is told something else.
    pub instead_of: Option<Code>,
}

impl Refusal {
    /// A refusal with the catalogue's own sentence.
    pub fn new(code: Code) -> Box<Self> {
        Self::because(code, code.entry().sentence)
    }

    /// A refusal with a more exact sentence.
    pub fn because(code: Code, description: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            code,
            description: description.into(),
            seen: None,
            source: None,
            retry_after: None,
            limit: None,
            resource_metadata: None,
            scope: None,
            dpop: false,
            nonce: None,
            as_grant: None,
            about: None,
            ladder: Ladder::default(),
            cause: None,
            instead_of: None,
        })
    }

    /// Adds what lies behind it.
    #[must_use]
    pub fn caused_by(mut self: Box<Self>, cause: impl std::fmt::Display) -> Box<Self> {
        self.cause = Some(cause.to_string());
        self
    }

    /// Says whom it is about.
    #[must_use]
    pub fn about(mut self: Box<Self>, about: About) -> Box<Self> {
        self.about = Some(about);
        self
    }

    /// Says who could not be asked, and when to try again.
    #[must_use]
    pub fn unavailable(mut self: Box<Self>, source: Source, retry_after: u64) -> Box<Self> {
        self.source = Some(source);
        self.retry_after = Some(retry_after);
        self
    }
}
