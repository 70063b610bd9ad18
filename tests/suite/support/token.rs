//! Subject tokens: good ones, and any deviation from them.

use super::{Key, now};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A token in the making.
#[derive(Clone)]
pub struct Token {
    /// The header's members.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

/// base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Token {
    /// A Clerk session token (version 2) of `issuer`, as a web front end has it.
    pub fn clerk(issuer: &str) -> Self {
        let now = now();
        Self {
            header: json!({"alg": "RS256", "kid": "ins_1", "typ": "JWT"}),
            claims: json!({
                "azp": "https://app.example.com", "exp": now + 60, "iat": now, "iss": issuer,
                "jti": "0123456789abcdef", "nbf": now - 10, "sid": "sess_1", "sts": "active",
                "sub": "user_1", "v": 2, "fva": [1, -1],
                "o": {"id": "org_1", "slg": "acme", "rol": "admin"},
            }),
        }
    }

    /// An ID token of `issuer`.
    pub fn oidc(issuer: &str, audience: &str) -> Self {
        let now = now();
        Self {
            header: json!({"alg": "RS256", "kid": "ins_1"}),
            claims: json!({
                "iss": issuer, "sub": "248289761001", "aud": audience, "exp": now + 3600, "iat": now,
            }),
        }
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    /// Takes a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    /// Sets a header member.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    /// Takes a header member out.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name);
        self
    }

    /// Signs it with the key, by the algorithm that goes with the key's type.
    pub fn sign(&self, key: &Key) -> String {
        assemble(
            &self.header.to_string(),
            &self.claims.to_string(),
            |message| key.sign(message),
        )
    }
}

/// A compact JWS of these very texts.
pub fn assemble(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token.
pub fn header(token: &str) -> Value {
    part(token, 0)
}

/// The key that a token names.
pub fn kid(token: &str) -> String {
    header(token)["kid"].as_str().unwrap().to_owned()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
