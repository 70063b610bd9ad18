//! Minting: typed claims in, a compact JWS (RFC 7515 §7.1) out.

use super::claims::{Bearer, Claims, ServiceGrant};
use crate::clock::UnixSeconds;
use crate::config::AppSettings;
use crate::keys::Signer;
use crate::policy::Grant;
use crate::subject::Subject;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use signature::Signer as _;

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

/// Mints the app token that a grant allows.
pub fn mint(
    issuer: &str,
    app: &AppSettings,
    subject: &Subject<'_>,
    grant: &Grant,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    let bearer = Bearer::User {
        app: &app.name,
        subject,
        grant,
    };
    write(issuer, bearer, &app.typ, now, signer)
}

/// Mints a service token, of type `JWT`.
pub fn mint_service(
    issuer: &str,
    grant: &ServiceGrant<'_>,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    write(issuer, Bearer::Service(grant), "JWT", now, signer)
}

fn write(
    issuer: &str,
    bearer: Bearer<'_>,
    typ: &str,
    now: UnixSeconds,
    signer: &Signer,
) -> Result<AppToken, MintFailed> {
    let jti = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 16]>());
    let mut claims = Vec::with_capacity(1024);
    let written = Claims {
        issuer,
        jti: &jti,
        now,
        bearer,
    };
    serde_json::to_writer(&mut claims, &written).map_err(|_| MintFailed)?;
    let header = signer.header(typ);
    let mut compact = String::with_capacity(header.len() + claims.len() * 4 / 3 + 350);
    compact.push_str(header);
    compact.push('.');
    URL_SAFE_NO_PAD.encode_string(&claims, &mut compact);
    let signature = signer
        .key
        .try_sign(compact.as_bytes())
        .map_err(|_| MintFailed)?;
    compact.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut compact);
    Ok(AppToken { compact, jti })
}
