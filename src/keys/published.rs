//! The ring as it is used: what signs, and what verifiers are shown, parsed once.

use super::jwk::{algorithm_name, jwk};
use super::ring::{Key, Ring, Schedule, State};
use crate::clock::UnixSeconds;
use crate::crypto::{self, KeyRejected, MacKey, SigningKey, VerifyingKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// A key that signs, parsed, with the headers of its tokens.
pub struct Signer {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// The key.
    pub key: SigningKey,
    headers: [(&'static str, String); 3],
}

impl Signer {
    fn new(kid: &str, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyRejected> {
        let header = |typ: &str| {
            let header = json!({"alg": algorithm_name(algorithm), "kid": kid, "typ": typ});
            URL_SAFE_NO_PAD.encode(header.to_string())
        };
        Ok(Self {
            kid: kid.to_owned(),
            key: SigningKey::from_pkcs8(algorithm, pkcs8)?,
            headers: ["JWT", "at+jwt", "statuslist+jwt"].map(|typ| (typ, header(typ))),
        })
    }

    /// The encoded header of a token of this type.
    pub fn header(&self, typ: &str) -> &str {
        let [(_, jwt), ..] = &self.headers;
        let mut headers = self.headers.iter();
        let found = headers.find(|(each, _)| *each == typ);
        found.map_or(jwt, |(_, header)| header)
    }
}

/// A key of the ring, for lists and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Overview {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs with.
    pub alg: &'static str,
    /// What it is doing.
    pub state: State,
    /// Since when it is published.
    pub published_at: UnixSeconds,
    /// When its state changes next, where that is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_at: Option<UnixSeconds>,
    /// Its whole life.
    #[serde(skip)]
    pub life: Life,
}

/// A key's life, what was and what is planned: published, then signing, then published still,
/// then gone. What is not planned yet is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Since when it is published.
    pub published_at: UnixSeconds,
    /// When it begins to sign.
    pub signs_at: Option<UnixSeconds>,
    /// When it stops.
    pub retires_at: Option<UnixSeconds>,
    /// When it is no longer published.
    pub gone_at: Option<UnixSeconds>,
}

impl Life {
    fn of(key: &Key, rotation: Option<UnixSeconds>, schedule: &Schedule) -> Self {
        let (signs_at, retires_at) = match key.state {
            State::Next => (rotation, None),
            State::Active => (key.activated_at, rotation),
            State::Retired => (key.activated_at, key.retired_at),
        };
        Self {
            published_at: key.published_at,
            signs_at,
            retires_at,
            gone_at: retires_at.map(|at| at + schedule.keep_after),
        }
    }
}

/// The ring as it stands: what signs, and what verifiers are shown.
pub struct Published {
    /// The ring's generation.
    pub generation: u64,
    signers: HashMap<Algorithm, Arc<Signer>>,
    verifiers: HashMap<String, VerifyingKey>,
    /// The key set document.
    pub jwks: Bytes,
    /// Its strong entity tag.
    pub etag: String,
    /// The keys.
    pub overview: Vec<Overview>,
    /// The `kid`s of the keys that were revoked.
    pub revoked: Vec<String>,
    /// The algorithms of the published keys.
    pub algorithms: Vec<&'static str>,
    pseudonym: MacKey,
}

impl Published {
    /// Of this ring, signed with by the keys of these `kid`s.
    ///
    /// # Errors
    /// Where a key does not parse.
    pub fn new(ring: &Ring, schedule: &Schedule, signing: &[&str]) -> Result<Self, KeyRejected> {
        let mut signers = HashMap::new();
        let mut verifiers = HashMap::new();
        let mut keys = Vec::new();
        let mut overview = Vec::new();
        let mut algorithms = Vec::new();
        for key in &ring.keys {
            let signer = Signer::new(&key.kid, key.algorithm, &key.pkcs8)?;
            let verifier = VerifyingKey::new(key.algorithm, signer.key.public())?;
            verifiers.insert(key.kid.clone(), verifier);
            keys.push(jwk(signer.key.public(), key.algorithm));
            let name = algorithm_name(key.algorithm);
            if !algorithms.contains(&name) {
                algorithms.push(name);
            }
            if signing.contains(&key.kid.as_str()) {
                signers.insert(key.algorithm, Arc::new(signer));
            }
            let rotation = ring.next_rotation(key.algorithm, schedule);
            overview.push(Overview {
                kid: key.kid.clone(),
                alg: name,
                state: key.state,
                published_at: key.published_at,
                changes_at: match key.state {
                    State::Next | State::Active => rotation,
                    State::Retired => key.retired_at.map(|at| at + schedule.keep_after),
                },
                life: Life::of(key, rotation, schedule),
            });
        }
        let jwks = json!({ "keys": keys }).to_string();
        let digest = crypto::sha256(jwks.as_bytes());
        Ok(Self {
            generation: ring.generation,
            signers,
            verifiers,
            etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest)),
            jwks: Bytes::from(jwks),
            overview,
            revoked: ring.revoked.clone(),
            algorithms,
            pseudonym: MacKey::new(&ring.pseudonym_key),
        })
    }

    /// The key that signs with the algorithm. While a newly chosen algorithm's first key is
    /// still being published ahead, another algorithm's signs on.
    pub fn signer(&self, algorithm: Algorithm) -> Option<&Arc<Signer>> {
        self.signers.get(&algorithm).or_else(|| {
            [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
                .iter()
                .find_map(|other| self.signers.get(other))
        })
    }

    /// The published key of this `kid`, standing by, signing or retired.
    pub fn verifier(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifiers.get(kid)
    }

    /// A key for one purpose, the same for all who have the ring, and as long as it lasts. The
    /// label has no line feed, or it could be a subject's name.
    pub fn derived_key(&self, label: &'static str) -> MacKey {
        MacKey::new(&self.pseudonym.sign(&[label.as_bytes()]))
    }

    /// The name of a subject in logs: the same subject has the same one, and nobody without
    /// the ring can tell whose it is.
    pub fn pseudonym(&self, issuer: &str, subject: &str) -> String {
        let parts = [issuer.as_bytes(), b"\n", subject.as_bytes()];
        let [a, b, c, d, e, f, g, h, i, ..] = self.pseudonym.sign(&parts);
        URL_SAFE_NO_PAD.encode([a, b, c, d, e, f, g, h, i])
    }
}
