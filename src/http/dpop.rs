//! The `DPoP` header of a request (RFC 9449 §4.1) and the nonces of answers (§8.2).

use crate::dpop::Proof;
use crate::explain::{Code, Refusal};
use http::HeaderName;
use http::header::{HeaderMap, HeaderValue};

const DPOP: HeaderName = HeaderName::from_static("dpop");
pub(super) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The proof, where there is one (RFC 9449 §4.3, 1).
pub(super) fn proof(headers: &HeaderMap) -> Result<Option<&str>, Box<Refusal>> {
    let malformed = |what| {
        let sentence = format!("The DPoP proof is malformed: {what}.");
        Refusal::because(Code::DpopProofMalformed, sentence)
    };
    let mut all = headers.get_all(DPOP).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(malformed("there is more than one `DPoP` header")),
        (Some(value), None) => {
            let text = value.to_str().ok();
            let text = text.ok_or_else(|| malformed("it is no text"))?;
            Ok(Some(text))
        }
    }
}

/// Tells the nonce for the next proof.
pub(super) fn tell(proof: Option<&Proof>, headers: &mut HeaderMap) {
    let nonce = proof.and_then(|proof| proof.next_nonce.as_deref());
    tell_nonce(nonce, headers);
}

/// Tells this nonce.
pub(super) fn tell_nonce(nonce: Option<&str>, headers: &mut HeaderMap) {
    if let Some(Ok(value)) = nonce.map(HeaderValue::from_str) {
        headers.insert(NONCE, value);
    }
}
