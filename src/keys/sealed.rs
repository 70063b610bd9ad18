//! The ring at rest: a JSON envelope whose payload is encrypted with the operator's secret
//! (AES-256-GCM), or in clear with a digest that tells damage.

use super::ring::{Key, Mark, Ring, State};
use crate::clock::UnixSeconds;
use crate::config::KeySecret;
use crate::crypto::{MacKey, SealingKey, SigningKey, sha256};
use crate::keys::jwk::{algorithm_name, thumbprint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use zeroize::Zeroizing;

/// The version of the envelope.
const FORMAT: u32 = 1;
const CONTEXT: &[u8] = b"exchequer key ring 1";

/// Why a ring at rest cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes are not what was written.
    #[error("the key ring is damaged")]
    Damaged,
    /// Written by a later version.
    #[error("the key ring has format {0}, which this version does not know")]
    Format(u32),
    /// It is sealed and there is no secret.
    #[error("the key ring is sealed: set EXCHEQUER_KEYS_SECRET")]
    SecretMissing,
    /// It is sealed with another secret.
    #[error("the key ring is sealed with another secret than EXCHEQUER_KEYS_SECRET")]
    SecretWrong,
    /// The backend failed.
    #[error("the cryptographic backend failed")]
    Backend,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    exchequer_key_ring: u32,
    /// Names the secret that sealed it, without telling anything of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_with: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    payload: String,
}

/// What every version of the envelope says, whatever else it may hold.
#[derive(Deserialize)]
struct Format {
    exchequer_key_ring: u32,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    generation: u64,
    pseudonym_key: String,
    keys: Vec<KeyRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trail: Vec<Mark>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct KeyRecord {
    kid: String,
    alg: String,
    state: State,
    published_at: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotate_at: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
    pkcs8: String,
}

fn secret_name(secret: &KeySecret) -> String {
    let code = MacKey::new(&secret.0).sign(&[b"exchequer key ring secret"]);
    STANDARD.encode(code.get(..8).unwrap_or_default())
}

/// Writes the ring.
pub fn seal(ring: &Ring, secret: Option<&KeySecret>) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let payload = Payload {
        generation: ring.generation,
        pseudonym_key: STANDARD.encode(ring.pseudonym_key.as_slice()),
        keys: ring
            .keys
            .iter()
            .map(|key| KeyRecord {
                kid: key.kid.clone(),
                alg: algorithm_name(key.algorithm).to_owned(),
                state: key.state,
                published_at: key.published_at,
                activated_at: key.activated_at,
                rotate_at: key.rotate_at,
                retired_at: key.retired_at,
                forced: key.forced,
                pkcs8: STANDARD.encode(key.pkcs8.as_slice()),
            })
            .collect(),
        trail: ring.trail.clone(),
        revoked: ring.revoked.clone(),
    };
    let payload = Zeroizing::new(serde_json::to_vec(&payload).map_err(|_| SealError::Backend)?);
    let envelope = match secret {
        Some(secret) => {
            let sealed = SealingKey::new(&secret.0)
                .and_then(|key| key.seal(CONTEXT, &payload))
                .map_err(|_| SealError::Backend)?;
            Envelope {
                exchequer_key_ring: FORMAT,
                sealed_with: Some(secret_name(secret)),
                sha256: None,
                payload: STANDARD.encode(sealed),
            }
        }
        None => Envelope {
            exchequer_key_ring: FORMAT,
            sealed_with: None,
            sha256: Some(STANDARD.encode(sha256(&payload))),
            payload: STANDARD.encode(payload.as_slice()),
        },
    };
    serde_json::to_vec(&envelope)
        .map(Zeroizing::new)
        .map_err(|_| SealError::Backend)
}

/// Whether a ring at rest says that it is encrypted.
pub fn is_sealed(bytes: &[u8]) -> bool {
    let envelope: Result<Envelope, _> = serde_json::from_slice(bytes);
    envelope.is_ok_and(|envelope| envelope.sealed_with.is_some())
}

/// Reads a ring, and checks that every key in it is what its record says.
pub fn open(bytes: &[u8], secret: Option<&KeySecret>) -> Result<Ring, SealError> {
    let format: Format = serde_json::from_slice(bytes).map_err(|_| SealError::Damaged)?;
    if format.exchequer_key_ring != FORMAT {
        return Err(SealError::Format(format.exchequer_key_ring));
    }
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| SealError::Damaged)?;
    let payload = Zeroizing::new(
        STANDARD
            .decode(&envelope.payload)
            .map_err(|_| SealError::Damaged)?,
    );
    let payload = match (&envelope.sealed_with, secret) {
        (Some(_), None) => return Err(SealError::SecretMissing),
        (Some(name), Some(secret)) => {
            if *name != secret_name(secret) {
                return Err(SealError::SecretWrong);
            }
            SealingKey::new(&secret.0)
                .map_err(|_| SealError::Backend)?
                .open(CONTEXT, &payload)
                .ok_or(SealError::Damaged)?
        }
        (None, _) if envelope.sha256 == Some(STANDARD.encode(sha256(&payload))) => payload,
        (None, _) => return Err(SealError::Damaged),
    };
    let payload: Payload = serde_json::from_slice(&payload).map_err(|_| SealError::Damaged)?;
    read(payload).ok_or(SealError::Damaged)
}

fn read(payload: Payload) -> Option<Ring> {
    let keys = payload
        .keys
        .into_iter()
        .map(|record| {
            let algorithm = Algorithm::from_str(&record.alg).ok()?;
            let pkcs8 = Zeroizing::new(STANDARD.decode(&record.pkcs8).ok()?);
            let parsed = SigningKey::from_pkcs8(algorithm, &pkcs8).ok()?;
            (thumbprint(parsed.public()) == record.kid).then_some(Key {
                kid: record.kid,
                algorithm,
                pkcs8,
                state: record.state,
                published_at: record.published_at,
                activated_at: record.activated_at,
                rotate_at: record.rotate_at,
                retired_at: record.retired_at,
                forced: record.forced,
            })
        })
        .collect::<Option<Vec<Key>>>()?;
    let ring = Ring {
        generation: payload.generation,
        pseudonym_key: Zeroizing::new(STANDARD.decode(&payload.pseudonym_key).ok()?),
        keys,
        trail: payload.trail,
        revoked: payload.revoked,
    };
    (ring.is_sound() && !ring.pseudonym_key.is_empty()).then_some(ring)
}
