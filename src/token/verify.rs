//! Verifying a token of ours with our own key set, as a backend would: for `dev` and `doctor`.

use crate::subject::json::Object;
use crate::subject::jwks::{Found, KeySet, KeySetError};
use crate::subject::jws::Decoded;
use jsonwebtoken::Algorithm;
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

/// Verifies the signature with a published key set; gives the `kid`.
pub fn with_key_set(key_set: &[u8], token: &str) -> Result<String, VerifyError> {
    let ours = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];
    let key_set = KeySet::parse(key_set, &ours)?;
    let malformed = || VerifyError::Malformed;
    let decoded = Decoded::of(token).map_err(|_| malformed())?;
    let header = Object::parse(&decoded.header).map_err(|_| malformed())?;
    let algorithm = header
        .text("alg")
        .and_then(|name| Algorithm::from_str(name).ok());
    let kid = header.text("kid").map(str::to_owned);
    let (algorithm, kid) = algorithm.zip(kid).ok_or_else(malformed)?;
    match key_set.find(&kid, algorithm) {
        Found::Key(key) => key
            .verify(decoded.message, &decoded.signature)
            .map(|()| kid)
            .map_err(|_| VerifyError::Signature),
        _ => Err(VerifyError::Unknown(kid)),
    }
}
