//! Verifying a token of ours with our own key set, as a backend would: for `dev` and `doctor`.

use crate::subject::jwks::{Found, KeySet, KeySetError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use signature::Verifier;
use std::str::FromStr;

/// Why the token does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The key set.
    #[error("the key set: {0}")]
    KeySet(#[from] KeySetError),
    /// The token.
    #[error("the token is malformed")]
    Malformed,
    /// No key of that `kid`.
    #[error("the key set has no key {0}")]
    Unknown(String),
    /// The signature.
    #[error("the signature does not verify")]
    Signature,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Verifies the signature with a published key set; gives the `kid`.
pub fn with_key_set(key_set: &[u8], token: &str) -> Result<String, VerifyError> {
    let ours = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];
    let key_set = KeySet::parse(key_set, &ours)?;
    let malformed = || VerifyError::Malformed;
    let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, _) = message.split_once('.').ok_or_else(malformed)?;
    let decode = |part: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| VerifyError::Malformed)
    };
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
    let algorithm = Algorithm::from_str(&header.alg).map_err(|_| malformed())?;
    match key_set.find(&header.kid, algorithm) {
        Found::Key(key) => key
            .verify(message.as_bytes(), &decode(signature)?)
            .map(|()| header.kid)
            .map_err(|_| VerifyError::Signature),
        _ => Err(VerifyError::Unknown(header.kid)),
    }
}
