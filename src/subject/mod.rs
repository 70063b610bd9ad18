//! What proves who someone is: a subject token, its issuer and the issuer's keys.
//!
//! The issuer is chosen first, by the unverified `iss`; then the key, by `kid`, among that
//! issuer's keys alone. A [`Subject`] can be made only by verification.

pub mod address;
mod clerk;
pub mod discovery;
pub mod fetch;
mod json;
pub mod jwks;
pub mod jwt;
pub mod key_cache;

use crate::clock::UnixSeconds;
use crate::config::{IssuerKind, IssuerSettings};
use jsonwebtoken::Algorithm;
use key_cache::KeyCache;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A trusted upstream issuer: its rules and its keys.
pub struct Issuer {
    /// Its settings.
    pub settings: IssuerSettings,
    /// Its keys.
    pub keys: Arc<KeyCache>,
}

impl Issuer {
    /// Whether it may sign with the algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.settings.algorithms.contains(&algorithm)
    }

    /// Whether its session claims are Clerk's.
    fn is_clerk(&self) -> bool {
        self.settings.kind == IssuerKind::Clerk
    }
}

/// A verified identity: personal data, so it has no `Debug`.
pub struct Subject {
    /// The issuer's `iss`.
    pub issuer: String,
    /// `sub`.
    pub id: String,
    /// `sid`: the provider's session.
    pub session_id: Option<String>,
    /// The organisation that the session acts for.
    pub organization: Option<Organization>,
    /// The plans that the user and the organisation have (Clerk: `pla`).
    pub plans: Vec<String>,
    /// The features that these give (Clerk: `fea`).
    pub features: Vec<String>,
    /// Who really acts (RFC 8693 §4.1), where the subject is impersonated.
    pub actor: Option<Value>,
    /// When the user authenticated.
    pub authenticated_at: Option<UnixSeconds>,
    /// `exp` of the subject token.
    pub expires_at: UnixSeconds,
    /// All verified claims.
    pub claims: Map<String, Value>,
}

/// An organisation, and what the subject is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: Option<String>,
    /// The subject's role, with the prefix `org:`.
    pub role: Option<String>,
    /// The subject's permissions, as `org:feature:permission`.
    pub permissions: Vec<String>,
}
