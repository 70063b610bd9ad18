//! Our public keys as JWKs (RFC 7517): these members and no others, for there are verifiers
//! that refuse a set for one that they do not know.

use crate::crypto::{PublicKey, sha256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The members that the type of key requires, in the order that RFC 7638 §3.2 hashes.
fn required(key: &PublicKey) -> Vec<(&'static str, String)> {
    let point = |crv: &str, point: &[u8]| {
        let coordinates = point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        vec![
            ("crv", crv.to_owned()),
            ("kty", "EC".to_owned()),
            ("x", encode(x)),
            ("y", encode(y)),
        ]
    };
    match key {
        PublicKey::Rsa { n, e } => vec![
            ("e", encode(e)),
            ("kty", "RSA".to_owned()),
            ("n", encode(n)),
        ],
        PublicKey::P256(bytes) => point("P-256", bytes),
        PublicKey::P384(bytes) => point("P-384", bytes),
        PublicKey::Ed25519(x) => vec![
            ("crv", "Ed25519".to_owned()),
            ("kty", "OKP".to_owned()),
            ("x", encode(x)),
        ],
    }
}

/// The key's RFC 7638 thumbprint: our `kid`.
pub fn thumbprint(key: &PublicKey) -> String {
    let members: Vec<String> = required(key)
        .iter()
        .map(|(name, value)| format!("\"{name}\":\"{value}\""))
        .collect();
    encode(&sha256(format!("{{{}}}", members.join(",")).as_bytes()))
}

/// The key as a JWK.
pub fn jwk(key: &PublicKey, algorithm: Algorithm) -> Value {
    let mut jwk = json!({
        "kid": thumbprint(key),
        "alg": algorithm_name(algorithm),
        "use": "sig",
    });
    for (name, value) in required(key) {
        if let Some(members) = jwk.as_object_mut() {
            members.insert(name.to_owned(), Value::String(value));
        }
    }
    jwk
}

/// The name of an algorithm on the wire (RFC 7518 §3.1, RFC 8037 §3.1).
pub fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::RS256 => "RS256",
        Algorithm::EdDSA => "EdDSA",
        _ => "unsupported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_of_rfc_7638_section_3_1() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = PublicKey::Rsa {
            n: URL_SAFE_NO_PAD.decode(n).unwrap(),
            e: vec![1, 0, 1],
        };
        assert_eq!(
            thumbprint(&key),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }
}
