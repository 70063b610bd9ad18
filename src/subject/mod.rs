//! What proves who someone is: a subject token, its issuer, and the issuer's keys or word.
//!
//! The issuer is chosen first, by the unverified `iss`; then the key, by `kid`, among that
//! issuer's keys alone. A [`Subject`] can be made only by verification.

pub mod address;
pub mod answers;
pub mod assertion;
pub mod breaker;
pub mod claims;
pub mod clerk;
mod delegated;
pub mod discovery;
pub mod fetch;
pub mod guard;
pub mod introspection;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod jwt;
pub mod kept;
pub mod key_cache;
pub mod opaque;
pub mod revocation;

use crate::clock::UnixSeconds;
use crate::config::{IssuerKind, IssuerSettings, TokenKind};
use answers::Answers;
use claims::Origin;
pub use claims::date;
use clerk::api::BackendApi;
use introspection::Introspection;
use json::Object;
use jsonwebtoken::Algorithm;
use key_cache::KeyCache;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// A trusted upstream issuer: its rules and its keys.
pub struct Issuer {
    /// Its settings.
    pub settings: IssuerSettings,
    /// Its keys.
    pub keys: Arc<KeyCache>,
    /// Clerk's Backend API for this instance, where its secret key is configured.
    pub backend: Option<BackendApi>,
    /// Its introspection endpoint, where credentials for it are configured.
    pub introspection: Option<Introspection>,
    /// What it said of tokens a moment ago.
    pub answers: Arc<Answers>,
}

impl Issuer {
    /// Whether it may sign with the algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.settings.algorithms.contains(&algorithm)
    }

    /// Whether it takes tokens of this kind.
    pub fn accepts(&self, kind: TokenKind) -> bool {
        self.settings.accepts.contains(&kind)
    }

    /// Whether it is a Clerk instance.
    pub fn is_clerk(&self) -> bool {
        self.settings.kind == IssuerKind::Clerk
    }
}

/// A verified identity, borrowed from its token: personal data, so it has no `Debug`.
#[derive(Clone)]
pub struct Subject<'s> {
    /// The issuer's `iss`.
    pub issuer: &'s str,
    /// `sub`.
    pub id: &'s str,
    /// `sid`: the provider's session.
    pub session_id: Option<&'s str>,
    /// The organisation that the session acts for.
    pub organization: Option<Organization<'s>>,
    /// The plans that the user and the organisation have (Clerk: `pla`).
    pub plans: Vec<&'s str>,
    /// The features that these give (Clerk: `fea`).
    pub features: Vec<&'s str>,
    /// Who really acts (RFC 8693 §4.1), where the subject is impersonated.
    pub actor: Option<Value>,
    /// When the user authenticated.
    pub authenticated_at: Option<UnixSeconds>,
    /// `iat` of the subject token.
    pub issued_at: Option<UnixSeconds>,
    /// `exp` of the subject token.
    pub expires_at: UnixSeconds,
    /// What a delegated token is restricted to (RFC 6749 §3.3); `None` for a session.
    pub scopes: Option<Vec<&'s str>>,
    /// All verified claims.
    pub claims: &'s Object<'s>,
    /// How the service knows of them.
    origin: Origin,
    /// When they were judged.
    judged_at: UnixSeconds,
}

/// An organisation, and what the subject is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization<'s> {
    /// Its id.
    pub id: &'s str,
    /// Its slug.
    pub slug: Option<&'s str>,
    /// The subject's role, with the prefix `org:`.
    pub role: Option<Cow<'s, str>>,
    /// The subject's permissions, as `org:feature:permission`.
    pub permissions: Vec<Cow<'s, str>>,
}
