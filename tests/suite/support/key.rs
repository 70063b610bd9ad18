//! Keys of issuers, made once and shared by all tests. Signed with ring directly, not with
//! the code under test.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaKeyPair,
};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use std::sync::OnceLock;

enum Pair {
    Rsa(Box<rsa::RsaPrivateKey>, RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// An issuer's key.
pub struct Key {
    pair: Pair,
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    /// A new RSA key of 2048 bits.
    pub fn new_rsa() -> Self {
        let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let document = private.to_pkcs8_der().unwrap();
        let pair = RsaKeyPair::from_pkcs8(document.as_bytes()).unwrap();
        Self {
            pair: Pair::Rsa(Box::new(private), pair),
        }
    }

    /// The first RSA key.
    pub fn rsa() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(Self::new_rsa)
    }

    /// A second RSA key.
    pub fn other_rsa() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(Self::new_rsa)
    }

    /// A P-256 key.
    pub fn p256() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| {
            let rng = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &rng).unwrap();
            Self {
                pair: Pair::P256(pair),
            }
        })
    }

    /// The P-256 key of a PKCS#8 document.
    pub fn p256_from(pkcs8: &[u8]) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).unwrap();
        Self {
            pair: Pair::P256(pair),
        }
    }

    /// A P-384 key.
    pub fn p384() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| {
            let rng = SystemRandom::new();
            let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &rng).unwrap();
            Self {
                pair: Pair::P384(pair),
            }
        })
    }

    /// An Ed25519 key.
    pub fn ed25519() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
            Self {
                pair: Pair::Ed25519(pair),
            }
        })
    }

    /// The algorithm that goes with the key's type.
    pub fn alg(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(..) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half as a JWK with this `kid`.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(private, _) => json!({
                "kty": "RSA",
                "n": encode(&private.n().to_bytes_be()),
                "e": encode(&private.e().to_bytes_be()),
            }),
            Pair::P256(pair) | Pair::P384(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(kid);
        jwk["alg"] = json!(self.alg());
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public half as PEM (RSA keys only).
    pub fn public_pem(&self) -> String {
        let Pair::Rsa(private, _) = &self.pair else {
            panic!("only RSA keys have a PEM here");
        };
        private
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .unwrap()
    }

    /// Signs with the algorithm that goes with the key's type.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_as(self.alg(), message)
    }

    /// Signs with any algorithm that the key's type can do.
    pub fn sign_as(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(_, pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &'static dyn ring::signature::RsaEncoding = match alg {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    other => panic!("an RSA key cannot sign {other}"),
                };
                pair.sign(padding, &rng, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&rng, message).unwrap().as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}
