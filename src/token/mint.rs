//! Minting: typed claims in, a compact JWS (RFC 7515 §7.1) out.

use super::claims::{Bearer, Carried, Claims, ServiceGrant};
use crate::clock::UnixSeconds;
use crate::config::AppSettings;
use crate::explain::{Code, Refusal, Source};
use crate::keys::jwk::algorithm_name;
use crate::keys::{Published, Signer};
use crate::policy::Grant;
use crate::subject::Subject;
use crate::telemetry::traces;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::JwtSigner;
use rand::Rng;
use signature::Signer as _;
use std::sync::Arc;

/// An app JWT; its `Debug` does not show it.
pub struct AppToken {
    /// The compact JWS.
    pub compact: String,
    /// Its `jti`.
    pub jti: String,
}

impl std::fmt::Debug for AppToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppToken({})", self.jti)
    }
}

/// The app token could not be written or signed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the app token could not be signed")]
pub struct MintFailed;

/// The key that signs with this algorithm.
///
/// # Errors
/// Where there is none that may sign now.
pub fn signer(keys: &Published, algorithm: Algorithm) -> Result<&Arc<Signer>, Box<Refusal>> {
    let signer = keys.signer(algorithm);
    signer
        .ok_or_else(|| Refusal::new(Code::SigningKeyUnavailable).unavailable(Source::Exchequer, 5))
}

/// Mints the app token that a grant allows, bound to the key of this thumbprint where there is
/// one.
pub fn mint(
    issuer: &str,
    app: &AppSettings,
    subject: &Subject<'_>,
    grant: &Grant,
    bound_to: Option<&str>,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    let bearer = Bearer::User {
        app: &app.name,
        subject,
        grant,
        bound_to,
    };
    write(issuer, bearer, &app.typ, now, signer)
}

/// What the app token that a grant allows would say: its claims as JSON, with no `jti`, and
/// signed by nobody.
pub fn claims(
    issuer: &str,
    app: &AppSettings,
    subject: &Subject<'_>,
    grant: &Grant,
    now: UnixSeconds,
) -> Result<Vec<u8>, MintFailed> {
    let bearer = Bearer::User {
        app: &app.name,
        subject,
        grant,
        bound_to: None,
    };
    write_claims(issuer, "", bearer, now)
}

/// Mints a token of ours again.
pub fn mint_again(
    issuer: &str,
    app: &AppSettings,
    carried: &Carried<'_>,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    write(issuer, Bearer::Carried(carried), &app.typ, now, signer)
}

/// `typ` of service tokens.
pub const SERVICE_TYPE: &str = "JWT";

/// Mints a service token.
pub fn mint_service(
    issuer: &str,
    grant: &ServiceGrant<'_>,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    write(issuer, Bearer::Service(grant), SERVICE_TYPE, now, signer)
}

fn write_claims(
    issuer: &str,
    jti: &str,
    bearer: Bearer<'_>,
    now: UnixSeconds,
) -> Result<Vec<u8>, MintFailed> {
    let mut claims = Vec::with_capacity(1024);
    let written = Claims {
        issuer,
        jti,
        now,
        bearer,
    };
    serde_json::to_writer(&mut claims, &written).map_err(|_| MintFailed)?;
    Ok(claims)
}

fn write(
    issuer: &str,
    bearer: Bearer<'_>,
    typ: &str,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    let jti = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 16]>());
    let claims = write_claims(issuer, &jti, bearer, now)?;
    let compact = sign(typ, &claims, signer)?;
    Ok(AppToken { compact, jti })
}

/// Signs claims as they are written.
pub(super) fn sign(typ: &str, claims: &[u8], signer: &Signer) -> Result<String, MintFailed> {
    let header = signer.header(typ);
    let mut compact = String::with_capacity(header.len() + claims.len() * 4 / 3 + 350);
    compact.push_str(header);
    compact.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut compact);
    let span = traces::begin("sign");
    span.set("exchequer.alg", algorithm_name(signer.key.algorithm()));
    let signature = signer.key.try_sign(compact.as_bytes());
    let signature = signature.map_err(|_| MintFailed);
    span.ended(&signature, |_| "internal_error");
    let signature = signature?;
    compact.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut compact);
    Ok(compact)
}
