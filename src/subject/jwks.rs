//! An issuer's key set (RFC 7517 §5), judged key by key: one odd key does not spoil the set.

use crate::crypto::{KeyRejected, PublicKey, VerifyingKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 100;
/// The longest `kid`, in bytes.
const MAX_KID: usize = 255;
/// The members of private keys and of symmetric ones (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth"];

/// Why a document is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON object with a `keys` array.
    #[error("not a JSON object with a `keys` array")]
    Malformed,
    /// A set of which no key can be named says nothing; the keys known before stay.
    #[error("no key of the set has a `kid`")]
    Empty,
}

/// Why a key of a set is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not a JWK that we can read: another type, curve or encoding.
    #[error("not an RSA, P-256, P-384 or Ed25519 public key")]
    Malformed,
    /// `use` or `key_ops` says that it does not verify signatures.
    #[error("its use or key_ops is not for verifying signatures")]
    Use,
    /// A private half was published: anybody may have it.
    #[error("the key set publishes its private half")]
    PrivateHalf,
    /// `alg` is not one that the issuer may sign with, or not one for this type of key.
    #[error("it is made for no algorithm that the issuer may sign with")]
    Algorithm,
    /// Weak, or no key at all.
    #[error(transparent)]
    Rejected(#[from] KeyRejected),
}

/// What became of a key of the set.
enum Known {
    Usable(Vec<Arc<VerifyingKey>>),
    Unusable(Unusable),
}

/// What a look-up found.
pub enum Found {
    /// The key.
    Key(Arc<VerifyingKey>),
    /// There is a key of this `kid`, but not for this algorithm.
    Unusable(String),
    /// There is no key of this `kid`.
    Unknown,
}

/// An issuer's usable keys.
#[derive(Default)]
pub struct KeySet {
    keys: HashMap<String, Known>,
    /// The one key of an issuer that is configured with it; it answers to any `kid`.
    only: Option<(PublicKey, Known)>,
}

impl KeySet {
    /// Reads a document; `algorithms` are those that the issuer may sign with.
    pub fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        let document: Map<String, Value> =
            serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        let Some(Value::Array(listed)) = document.get("keys") else {
            return Err(KeySetError::Malformed);
        };
        let mut keys = HashMap::new();
        for key in listed.iter().take(MAX_KEYS) {
            let Some(kid) = key.get("kid").and_then(Value::as_str) else {
                continue;
            };
            if kid.len() > MAX_KID {
                continue;
            }
            let known = judge(key, algorithms).map_or_else(Known::Unusable, Known::Usable);
            // Of two keys of one kid the usable one counts, and of two usable ones the first.
            match keys.get(kid) {
                Some(Known::Usable(_)) => {}
                _ => {
                    keys.insert(kid.to_owned(), known);
                }
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self { keys, only: None })
    }

    /// The set of an issuer that is configured with its one key.
    pub fn only(key: &PublicKey, algorithms: &[Algorithm]) -> Self {
        Self {
            keys: HashMap::new(),
            only: Some((
                key.clone(),
                parsed(key, algorithms).map_or_else(Known::Unusable, Known::Usable),
            )),
        }
    }

    /// Looks a key up by `kid`, never by trying.
    pub fn find(&self, kid: &str, algorithm: Algorithm) -> Found {
        let only = self.only.as_ref().map(|(_, known)| known);
        match only.or_else(|| self.keys.get(kid)) {
            None => Found::Unknown,
            Some(Known::Unusable(reason)) => Found::Unusable(reason.to_string()),
            Some(Known::Usable(keys)) => keys
                .iter()
                .find(|key| jsonwebtoken::crypto::JwtVerifier::algorithm(key.as_ref()) == algorithm)
                .map_or_else(
                    || Found::Unusable(format!("it is not made for {algorithm:?}")),
                    |key| Found::Key(Arc::clone(key)),
                ),
        }
    }

    /// Whether one of these keys is in the set: by its `kid`, or the configured key itself.
    pub fn shares_a_key(&self, keys: &[(String, PublicKey)]) -> bool {
        keys.iter().any(|(kid, key)| match &self.only {
            Some((only, _)) => only == key,
            None => self.keys.contains_key(kid),
        })
    }

    /// Each `kid` and why it is not used, if it is not; in order of the `kid`.
    pub fn overview(&self) -> Vec<(&str, Option<String>)> {
        let mut all: Vec<_> = self
            .keys
            .iter()
            .map(|(kid, known)| (kid.as_str(), known))
            .chain(self.only.iter().map(|(_, known)| ("(any)", known)))
            .map(|(kid, known)| match known {
                Known::Usable(_) => (kid, None),
                Known::Unusable(reason) => (kid, Some(reason.to_string())),
            })
            .collect();
        all.sort();
        all
    }
}

/// The public keys of a document and their `kid`s, whoever may sign with them.
pub fn public_keys(document: &[u8]) -> Vec<(String, PublicKey)> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let listed = document.get("keys").and_then(Value::as_array);
    let read = |key: &Value| {
        let kid = key.get("kid")?.as_str()?;
        let jwk: Jwk = Deserialize::deserialize(key).ok()?;
        Some((kid.to_owned(), public_key(&jwk.algorithm)?))
    };
    let keys = listed.into_iter().flatten().take(MAX_KEYS);
    keys.filter_map(read).collect()
}

/// The public key of a JWK that stands by itself, as in the header of a DPoP proof
/// (RFC 9449 §4.2).
pub fn single(jwk: &Value) -> Result<PublicKey, Unusable> {
    if PRIVATE.iter().any(|name| jwk.get(*name).is_some()) {
        return Err(Unusable::PrivateHalf);
    }
    let parameters: AlgorithmParameters =
        Deserialize::deserialize(jwk).map_err(|_| Unusable::Malformed)?;
    public_key(&parameters).ok_or(Unusable::Malformed)
}

fn judge(key: &Value, algorithms: &[Algorithm]) -> Result<Vec<Arc<VerifyingKey>>, Unusable> {
    let jwk: Jwk = Deserialize::deserialize(key).map_err(|_| Unusable::Malformed)?;
    if PRIVATE.iter().any(|name| key.get(*name).is_some()) {
        return Err(Unusable::PrivateHalf);
    }
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let verifies = jwk
        .common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !signs || !verifies {
        return Err(Unusable::Use);
    }
    let public = public_key(&jwk.algorithm).ok_or(Unusable::Malformed)?;
    match jwk.common.key_algorithm {
        None => parsed(&public, algorithms),
        Some(named) => {
            let named = Algorithm::try_from(named).map_err(|_| Unusable::Algorithm)?;
            if !algorithms.contains(&named) {
                return Err(Unusable::Algorithm);
            }
            parsed(&public, &[named])
        }
    }
}

/// The key, parsed for each of the algorithms that fits its type.
fn parsed(key: &PublicKey, algorithms: &[Algorithm]) -> Result<Vec<Arc<VerifyingKey>>, Unusable> {
    let fitting: Vec<Algorithm> = algorithms
        .iter()
        .copied()
        .filter(|algorithm| key.algorithms().contains(algorithm))
        .collect();
    if fitting.is_empty() {
        return Err(Unusable::Algorithm);
    }
    fitting
        .into_iter()
        .map(|algorithm| Ok(Arc::new(VerifyingKey::new(algorithm, key)?)))
        .collect()
}

fn public_key(parameters: &AlgorithmParameters) -> Option<PublicKey> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let unpadded = |text: &str| {
        let bytes = decode(text)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).map(<[u8]>::to_vec)
    };
    match parameters {
        AlgorithmParameters::RSA(rsa) => Some(PublicKey::Rsa {
            n: unpadded(&rsa.n)?,
            e: unpadded(&rsa.e)?,
        }),
        AlgorithmParameters::EllipticCurve(ec) => {
            let mut point = vec![4];
            let size = match ec.curve {
                EllipticCurve::P256 => 32,
                EllipticCurve::P384 => 48,
                _ => return None,
            };
            for coordinate in [&ec.x, &ec.y] {
                // RFC 7518 §6.2.1.2: the full length, leading zeros and all.
                let bytes = decode(coordinate).filter(|bytes| bytes.len() == size)?;
                point.extend(bytes);
            }
            Some(match ec.curve {
                EllipticCurve::P256 => PublicKey::P256(point),
                _ => PublicKey::P384(point),
            })
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            Some(PublicKey::Ed25519(decode(&okp.x)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    const ALGORITHMS: [Algorithm; 5] = [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// Something that looks like a JWK from afar.
    fn jwk() -> impl Strategy<Value = Value> {
        let word = select(vec![
            "RSA", "EC", "OKP", "oct", "AKP", "P-256", "P-384", "P-521", "Ed25519", "X25519",
            "RS256", "ES256", "EdDSA", "HS256", "none", "sig", "enc", "verify", "AQAB", "",
        ]);
        let bytes = (select(vec![0, 1, 31, 32, 33, 48, 256, 1024]), any::<u8>())
            .prop_map(|(length, byte)| URL_SAFE_NO_PAD.encode(vec![byte | 1; length]));
        let value = prop_oneof![
            4 => word.prop_map(Value::from),
            4 => bytes.prop_map(Value::from),
            1 => json(),
        ];
        let name = select(vec![
            "kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "d", "k", "x5c",
        ]);
        btree_map(name, value, 0..10).prop_map(|members| {
            let mut jwk: Map<String, Value> = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            jwk.insert("kid".to_owned(), Value::from("odd"));
            Value::Object(jwk)
        })
    }

    /// The key of RFC 8037, appendix A.2, with these members of its own.
    fn ed25519(members: Value) -> Value {
        let mut key = serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "kid": "k",
        });
        if let (Value::Object(key), Value::Object(members)) = (&mut key, members) {
            key.extend(members);
        }
        key
    }

    fn set_of(key: &Value) -> Result<KeySet, KeySetError> {
        let document = serde_json::json!({ "keys": [key] }).to_string();
        KeySet::parse(document.as_bytes(), &ALGORITHMS)
    }

    #[test]
    fn a_key_that_says_that_it_does_something_else_verifies_nothing() {
        let found = |members| {
            let set = set_of(&ed25519(members)).unwrap();
            set.find("k", Algorithm::EdDSA)
        };
        for members in [
            serde_json::json!({}),
            serde_json::json!({"use": "sig", "key_ops": ["verify"]}),
            serde_json::json!({"key_ops": ["sign", "verify"]}),
        ] {
            assert!(matches!(found(members), Found::Key(_)));
        }
        for members in [
            serde_json::json!({"use": "enc"}),
            serde_json::json!({"key_ops": ["encrypt"]}),
            serde_json::json!({"use": "sig", "key_ops": ["encrypt"]}),
            serde_json::json!({"use": "enc", "key_ops": ["verify"]}),
            serde_json::json!({"crv": "X25519"}),
            serde_json::json!({"crv": "P-256"}),
        ] {
            assert!(matches!(found(members), Found::Unusable(_)));
        }
    }

    #[test]
    fn a_kid_has_255_bytes_at_most() {
        let of_length = |length| serde_json::json!({ "kid": "k".repeat(length) });
        assert!(set_of(&ed25519(of_length(MAX_KID))).is_ok());
        let refused = set_of(&ed25519(of_length(MAX_KID + 1)));
        assert_eq!(refused.err(), Some(KeySetError::Empty));
    }

    #[test]
    fn a_configured_key_is_known_by_itself_and_a_fetched_one_by_its_kid() {
        let key = |byte| PublicKey::Ed25519(vec![byte; 32]);
        let named = |kid: &str, byte| [(kid.to_owned(), key(byte))];
        let only = KeySet::only(&key(1), &ALGORITHMS);
        assert!(only.shares_a_key(&named("other", 1)));
        assert!(!only.shares_a_key(&named("k", 2)));
        let fetched = set_of(&ed25519(serde_json::json!({}))).unwrap();
        assert!(fetched.shares_a_key(&named("k", 2)));
        assert!(!fetched.shares_a_key(&named("other", 1)));
        assert!(!fetched.shares_a_key(&[]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..512)) {
            let _ = KeySet::parse(&bytes, &ALGORITHMS);
        }

        #[test]
        fn any_json_is_read_without_a_panic(document in json()) {
            let _ = KeySet::parse(document.to_string().as_bytes(), &ALGORITHMS);
        }

        #[test]
        fn whatever_stands_beside_it_a_good_key_is_found(
            odd in vec(prop_oneof![jwk(), json()], 0..8),
            at in any::<proptest::sample::Index>(),
        ) {
            let good = ed25519(serde_json::json!({"kid": "good"}));
            let mut keys = odd;
            keys.insert(at.index(keys.len() + 1), good);
            let document = serde_json::json!({ "keys": keys }).to_string();
            let set = KeySet::parse(document.as_bytes(), &ALGORITHMS).unwrap();
            prop_assert!(matches!(set.find("good", Algorithm::EdDSA), Found::Key(_)));
            prop_assert!(matches!(set.find("good", Algorithm::RS256), Found::Unusable(_)));
        }
    }
}
