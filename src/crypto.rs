//! Cryptography, all of it: signatures, sealing, digests and random bytes.
//!
//! The backend is `ring`, or `aws-lc-rs` with the feature `aws-lc`: the same interface
//! under one alias. The keys here implement `jsonwebtoken`'s [`JwtSigner`] and
//! [`JwtVerifier`], so its types (`Algorithm`, `Jwk`) name everything. Its `encode` and
//! `decode` are not used: they take key bytes and build a signer or a verifier from them
//! on each call, where ours are parsed once, when a key is loaded.

#[cfg(feature = "aws-lc")]
use aws_lc_rs as backend;
#[cfg(not(feature = "aws-lc"))]
use ring as backend;

use backend::rand::{SecureRandom, SystemRandom};
use backend::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use secrecy::{ExposeSecret, SecretString};
use std::str::FromStr;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The name of the backend that this build uses.
pub const BACKEND: &str = if cfg!(feature = "aws-lc") {
    "aws-lc-rs"
} else {
    "ring"
};

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRejected {
    /// The key's type does not fit the algorithm.
    #[error("the key's type does not fit {0:?}")]
    WrongType(Algorithm),
    /// RSA moduli are 2048 to 8192 bits (RFC 7518 §3.3 sets the floor).
    #[error("an RSA modulus must have 2048 to 8192 bits")]
    ModulusSize,
    /// RSA exponents are odd, at least 3 and at most 33 bits long.
    #[error("the RSA exponent is out of range")]
    Exponent,
    /// The coordinates are no point on the curve, or one of small order.
    #[error("the public key is not a valid point of its curve")]
    Point,
    /// The encoding is not what it says.
    #[error("the key's encoding is malformed")]
    Encoding,
    /// We have no implementation of this algorithm.
    #[error("{0:?} is not supported")]
    Unsupported(Algorithm),
}

/// The key material could not be produced or used: the backend failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the cryptographic backend failed")]
pub struct BackendFailed;

/// A public key's parts, as a JWK or a SubjectPublicKeyInfo gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256: 0x04, x, y.
    P256(Vec<u8>),
    /// An uncompressed point of P-384: 0x04, x, y.
    P384(Vec<u8>),
    /// An Ed25519 public key, 32 bytes.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Reads a `BEGIN PUBLIC KEY` PEM (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7).
    pub fn from_pem(pem: &str) -> Result<Self, KeyRejected> {
        use pkcs8::ObjectIdentifier;
        use pkcs8::der::Decode;
        const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
        const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
        const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

        let (label, document) =
            pkcs8::Document::from_pem(pem).map_err(|_| KeyRejected::Encoding)?;
        if label != "PUBLIC KEY" {
            return Err(KeyRejected::Encoding);
        }
        let info = pkcs8::SubjectPublicKeyInfoRef::from_der(document.as_bytes())
            .map_err(|_| KeyRejected::Encoding)?;
        let bytes = info
            .subject_public_key
            .as_bytes()
            .ok_or(KeyRejected::Encoding)?;
        match info.algorithm.oid {
            RSA => Self::from_pkcs1(bytes),
            EC => match info
                .algorithm
                .parameters_oid()
                .map_err(|_| KeyRejected::Encoding)?
            {
                P256 => Ok(Self::P256(bytes.to_vec())),
                P384 => Ok(Self::P384(bytes.to_vec())),
                _ => Err(KeyRejected::Encoding),
            },
            ED25519 => Ok(Self::Ed25519(bytes.to_vec())),
            _ => Err(KeyRejected::Encoding),
        }
    }

    /// The algorithms that a key of this type can verify and this build implements.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa { .. } => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::P256(_) => &[ES256],
            Self::P384(_) => &[ES384],
            Self::Ed25519(_) => &[EdDSA],
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyRejected> {
        use pkcs1::der::Decode;
        let key = pkcs1::RsaPublicKey::from_der(der).map_err(|_| KeyRejected::Encoding)?;
        Ok(Self::Rsa {
            n: key.modulus.as_bytes().to_vec(),
            e: key.public_exponent.as_bytes().to_vec(),
        })
    }

    /// Checks the parts and gives the bytes that the backend takes.
    fn encoded(&self) -> Result<Vec<u8>, KeyRejected> {
        match self {
            Self::Rsa { n, e } => {
                let bits = n.first().map_or(0, |top| {
                    n.len() * 8 - usize::try_from(top.leading_zeros()).unwrap_or_default()
                });
                if !(2048..=8192).contains(&bits) || n.last().is_none_or(|low| low % 2 == 0) {
                    return Err(KeyRejected::ModulusSize);
                }
                let exponent = e
                    .iter()
                    .try_fold(0_u64, |sum, byte| {
                        sum.checked_mul(256)?.checked_add(u64::from(*byte))
                    })
                    .ok_or(KeyRejected::Exponent)?;
                if exponent < 3 || exponent % 2 == 0 || exponent >= 1 << 33 {
                    return Err(KeyRejected::Exponent);
                }
                rsa_public_key_der(n, e).ok_or(KeyRejected::Encoding)
            }
            Self::P256(point) if point.len() == 65 && point.first() == Some(&4) => {
                Ok(point.clone())
            }
            Self::P384(point) if point.len() == 97 && point.first() == Some(&4) => {
                Ok(point.clone())
            }
            Self::Ed25519(point) if point.len() == 32 && !ed25519_small_order(point) => {
                Ok(point.clone())
            }
            Self::P256(_) | Self::P384(_) | Self::Ed25519(_) => Err(KeyRejected::Point),
        }
    }
}

fn rsa_public_key_der(n: &[u8], e: &[u8]) -> Option<Vec<u8>> {
    use pkcs1::UintRef;
    use pkcs1::der::Encode;
    pkcs1::RsaPublicKey {
        modulus: UintRef::new(n).ok()?,
        public_exponent: UintRef::new(e).ok()?,
    }
    .to_der()
    .ok()
}

/// Whether the point has small order: with such a key anybody can make a signature that
/// verifies (the encodings are those of "Taming the many EdDSAs", ePrint 2020/1244).
fn ed25519_small_order(point: &[u8]) -> bool {
    const P: [u8; 32] = {
        let mut p = [0xff; 32];
        p[0] = 0xed;
        p[31] = 0x7f;
        p
    };
    const ORDER_8: [&str; 2] = [
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
    ];
    let mut y = [0; 32];
    if point.len() != y.len() {
        return true;
    }
    y.copy_from_slice(point);
    y[31] &= 0x7f;
    let small = |value: u8| y[0] == value && y.iter().skip(1).all(|byte| *byte == 0);
    let near_p = |low: u8| y[0] == low && y.iter().skip(1).eq(P.iter().skip(1));
    small(0)
        || small(1)
        || near_p(0xec)
        || near_p(0xed)
        || near_p(0xee)
        || ORDER_8
            .iter()
            .any(|encoded| URL_SAFE_NO_PAD.encode(y) == *encoded)
}

/// The few calls in which the two backends differ.
#[cfg(not(feature = "aws-lc"))]
mod differing {
    use super::{Algorithm, BackendFailed, EcdsaKeyPair, KeyRejected, SystemRandom, parameters};
    use ring::{agreement, signature as sig};

    /// ring has no parsed form of a public key; its own parsing on use costs 2 µs of 21.
    pub(super) struct PublicKey(sig::UnparsedPublicKey<Vec<u8>>);

    impl PublicKey {
        /// A key agreement with the point refuses one that is off its curve.
        pub(super) fn parse(algorithm: Algorithm, bytes: Vec<u8>) -> Result<Self, KeyRejected> {
            let curve = match algorithm {
                Algorithm::ES256 => Some(&agreement::ECDH_P256),
                Algorithm::ES384 => Some(&agreement::ECDH_P384),
                _ => None,
            };
            if let Some(curve) = curve {
                let rng = SystemRandom::new();
                let ours = agreement::EphemeralPrivateKey::generate(curve, &rng)
                    .map_err(|_| KeyRejected::Point)?;
                let theirs = agreement::UnparsedPublicKey::new(curve, &bytes);
                agreement::agree_ephemeral(ours, &theirs, |_| ())
                    .map_err(|_| KeyRejected::Point)?;
            }
            Ok(Self(sig::UnparsedPublicKey::new(
                parameters(algorithm)?,
                bytes,
            )))
        }

        pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            self.0.verify(message, signature).is_ok()
        }
    }

    pub(super) fn ecdsa(
        algorithm: &'static sig::EcdsaSigningAlgorithm,
        pkcs8: &[u8],
    ) -> Result<EcdsaKeyPair, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new())
            .map_err(|_| KeyRejected::Encoding)
    }

    /// ring cannot generate RSA keys. The `rsa` crate generates them and does nothing
    /// else here: its private-key operations are not constant-time (RUSTSEC-2023-0071).
    pub(super) fn generate_rsa() -> Result<Vec<u8>, BackendFailed> {
        use pkcs8::EncodePrivateKey;
        let key =
            rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).map_err(|_| BackendFailed)?;
        let der = key.to_pkcs8_der().map_err(|_| BackendFailed)?;
        Ok(der.as_bytes().to_vec())
    }
}

/// The few calls in which the two backends differ.
#[cfg(feature = "aws-lc")]
mod differing {
    use super::{Algorithm, BackendFailed, EcdsaKeyPair, KeyRejected, parameters};
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::{rsa::KeySize, signature as sig};

    pub(super) struct PublicKey(sig::ParsedPublicKey);

    impl PublicKey {
        pub(super) fn parse(algorithm: Algorithm, bytes: Vec<u8>) -> Result<Self, KeyRejected> {
            sig::ParsedPublicKey::new(parameters(algorithm)?, bytes)
                .map(Self)
                .map_err(|_| KeyRejected::Point)
        }

        pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            self.0.verify_sig(message, signature).is_ok()
        }
    }

    pub(super) fn ecdsa(
        algorithm: &'static sig::EcdsaSigningAlgorithm,
        pkcs8: &[u8],
    ) -> Result<EcdsaKeyPair, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).map_err(|_| KeyRejected::Encoding)
    }

    pub(super) fn generate_rsa() -> Result<Vec<u8>, BackendFailed> {
        let key = sig::RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| BackendFailed)?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| BackendFailed)?;
        Ok(der.as_ref().to_vec())
    }
}

fn parameters(
    algorithm: Algorithm,
) -> Result<&'static dyn sig::VerificationAlgorithm, KeyRejected> {
    Ok(match algorithm {
        Algorithm::RS256 => &sig::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &sig::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &sig::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &sig::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &sig::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &sig::RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 => &sig::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &sig::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &sig::ED25519,
        _ => return Err(KeyRejected::Unsupported(algorithm)),
    })
}

/// A public key, parsed for one algorithm.
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: differing::PublicKey,
}

impl VerifyingKey {
    /// Parses and checks a key for one algorithm; a key of another type is refused.
    pub fn new(algorithm: Algorithm, key: &PublicKey) -> Result<Self, KeyRejected> {
        if !key.algorithms().contains(&algorithm) {
            return Err(KeyRejected::WrongType(algorithm));
        }
        let key = differing::PublicKey::parse(algorithm, key.encoded()?)?;
        Ok(Self { algorithm, key })
    }
}

impl signature::Verifier<Vec<u8>> for VerifyingKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if self.key.verify(message, signature) {
            Ok(())
        } else {
            Err(signature::Error::new())
        }
    }
}

impl JwtVerifier for VerifyingKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

enum PrivateKey {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A private key, parsed for one algorithm: ES256, RS256 or EdDSA.
pub struct SigningKey {
    algorithm: Algorithm,
    key: PrivateKey,
    public: PublicKey,
    rng: SystemRandom,
}

impl SigningKey {
    /// Generates a key; gives its PKCS#8 document (RFC 5208), the form that is stored.
    /// For RS256 this takes a second of processor time.
    pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, BackendFailed> {
        let rng = SystemRandom::new();
        let document = match algorithm {
            Algorithm::ES256 => {
                EcdsaKeyPair::generate_pkcs8(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
                    .map_err(|_| BackendFailed)?
                    .as_ref()
                    .to_vec()
            }
            Algorithm::EdDSA => Ed25519KeyPair::generate_pkcs8(&rng)
                .map_err(|_| BackendFailed)?
                .as_ref()
                .to_vec(),
            Algorithm::RS256 => differing::generate_rsa()?,
            _ => return Err(BackendFailed),
        };
        Ok(Zeroizing::new(document))
    }

    /// Parses a PKCS#8 document.
    pub fn from_pkcs8(algorithm: Algorithm, document: &[u8]) -> Result<Self, KeyRejected> {
        let key = match algorithm {
            Algorithm::ES256 => PrivateKey::Ecdsa(differing::ecdsa(
                &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
                document,
            )?),
            Algorithm::EdDSA => PrivateKey::Ed25519(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(document)
                    .map_err(|_| KeyRejected::Encoding)?,
            ),
            Algorithm::RS256 => PrivateKey::Rsa(
                RsaKeyPair::from_pkcs8(document).map_err(|_| KeyRejected::Encoding)?,
            ),
            _ => return Err(KeyRejected::Unsupported(algorithm)),
        };
        let public = match &key {
            PrivateKey::Ecdsa(pair) => PublicKey::P256(pair.public_key().as_ref().to_vec()),
            PrivateKey::Ed25519(pair) => PublicKey::Ed25519(pair.public_key().as_ref().to_vec()),
            PrivateKey::Rsa(pair) => PublicKey::from_pkcs1(pair.public_key().as_ref())?,
        };
        Ok(Self {
            algorithm,
            key,
            public,
            rng: SystemRandom::new(),
        })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl signature::Signer<Vec<u8>> for SigningKey {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        match &self.key {
            PrivateKey::Ecdsa(pair) => pair
                .sign(&self.rng, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| signature::Error::new()),
            PrivateKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            PrivateKey::Rsa(pair) => {
                let PublicKey::Rsa { n, .. } = &self.public else {
                    return Err(signature::Error::new());
                };
                let mut signature = vec![0; n.len()];
                pair.sign(&sig::RSA_PKCS1_SHA256, &self.rng, message, &mut signature)
                    .map_err(|_| signature::Error::new())?;
                Ok(signature)
            }
        }
    }
}

impl JwtSigner for SigningKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// The algorithm of that name; RFC 9864 has another for the one that is used of EdDSA.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        _ => Algorithm::from_str(name).ok(),
    }
}

/// Whether the text is the secret; compares their hashes in constant time, so that the time says
/// nothing of the length either.
pub fn is_secret(text: &str, secret: &SecretString) -> bool {
    let [expected, sent] = [secret.expose_secret(), text].map(|text| sha256(text.as_bytes()));
    expected.ct_eq(&sent).into()
}

/// SHA-256 of the bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = backend::digest::digest(&backend::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Fills an array from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], BackendFailed> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| BackendFailed)?;
    Ok(bytes)
}

/// A key for HMAC-SHA256 (RFC 2104), prepared once.
pub struct MacKey(backend::hmac::Key);

impl MacKey {
    /// Prepares the key.
    pub fn new(key: &[u8]) -> Self {
        Self(backend::hmac::Key::new(backend::hmac::HMAC_SHA256, key))
    }

    /// The authentication code of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = backend::hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }

    /// Compares in constant time.
    pub fn verify(&self, message: &[u8], code: &[u8]) -> bool {
        backend::hmac::verify(&self.0, message, code).is_ok()
    }
}

/// Whether the code is that of the message under the key, by HS256, HS384 or HS512 (RFC 7518
/// §3.2); never by another algorithm. Compares in constant time.
pub fn verify_mac(algorithm: Algorithm, key: &[u8], message: &[u8], code: &[u8]) -> bool {
    let digest = match algorithm {
        Algorithm::HS256 => backend::hmac::HMAC_SHA256,
        Algorithm::HS384 => backend::hmac::HMAC_SHA384,
        Algorithm::HS512 => backend::hmac::HMAC_SHA512,
        _ => return false,
    };
    let key = backend::hmac::Key::new(digest, key);
    backend::hmac::verify(&key, message, code).is_ok()
}

/// AES-256-GCM under a 32-byte key: what is stored sealed.
pub struct SealingKey(backend::aead::LessSafeKey);

/// The length of the nonce that [`SealingKey::seal`] puts before the ciphertext, in bytes.
const NONCE: usize = 12;

impl SealingKey {
    /// Prepares the key.
    pub fn new(key: &[u8; 32]) -> Result<Self, BackendFailed> {
        backend::aead::UnboundKey::new(&backend::aead::AES_256_GCM, key)
            .map(|key| Self(backend::aead::LessSafeKey::new(key)))
            .map_err(|_| BackendFailed)
    }

    /// Seals the plaintext, bound to `context`: a fresh nonce, then the ciphertext.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, BackendFailed> {
        let nonce = random::<NONCE>()?;
        let mut sealed = plaintext.to_vec();
        self.0
            .seal_in_place_append_tag(
                backend::aead::Nonce::assume_unique_for_key(nonce),
                backend::aead::Aad::from(context),
                &mut sealed,
            )
            .map_err(|_| BackendFailed)?;
        let mut out = nonce.to_vec();
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens what [`seal`](Self::seal) made, or nothing where key, context or bytes differ.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .0
            .open_in_place(
                backend::aead::Nonce::assume_unique_for_key(*nonce),
                backend::aead::Aad::from(context),
                &mut buffer,
            )
            .ok()?
            .len();
        buffer.truncate(length);
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signature::{Signer, Verifier};

    #[test]
    fn every_algorithm_we_sign_with_verifies_and_only_its_own_message() {
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
            let document = SigningKey::generate(algorithm).unwrap();
            let key = SigningKey::from_pkcs8(algorithm, &document).unwrap();
            let signature = key.sign(b"message");
            let verifier = VerifyingKey::new(algorithm, key.public()).unwrap();
            assert!(verifier.verify(b"message", &signature).is_ok());
            assert!(verifier.verify(b"massage", &signature).is_err());
        }
    }

    #[test]
    fn a_point_off_its_curve_is_refused() {
        let mut point = vec![4];
        point.extend([7; 64]);
        let refused = VerifyingKey::new(Algorithm::ES256, &PublicKey::P256(point));
        assert_eq!(refused.err(), Some(KeyRejected::Point));
    }

    #[test]
    fn small_order_points_are_refused_in_every_spelling() {
        let mut spellings = vec![vec![0; 32], vec![0; 32]];
        spellings[1][0] = 1;
        for low in [0xec, 0xed, 0xee] {
            let mut point = vec![0xff; 32];
            point[0] = low;
            point[31] = 0x7f;
            spellings.push(point.clone());
            point[31] = 0xff;
            spellings.push(point);
        }
        for text in [
            "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
            "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        ] {
            spellings.push(URL_SAFE_NO_PAD.decode(text).unwrap());
        }
        for point in spellings {
            let refused = VerifyingKey::new(Algorithm::EdDSA, &PublicKey::Ed25519(point));
            assert_eq!(refused.err(), Some(KeyRejected::Point));
        }
    }

    #[test]
    fn rsa_keys_out_of_range_are_refused() {
        let mut odd = vec![0xff; 256];
        let rsa = |n: &[u8], e: &[u8]| {
            VerifyingKey::new(
                Algorithm::RS256,
                &PublicKey::Rsa {
                    n: n.to_vec(),
                    e: e.to_vec(),
                },
            )
            .err()
        };
        assert_eq!(rsa(&odd, &[1, 0, 1]), None);
        assert_eq!(rsa(&odd[1..], &[1, 0, 1]), Some(KeyRejected::ModulusSize));
        assert_eq!(rsa(&[0xff; 1025], &[3]), Some(KeyRejected::ModulusSize));
        assert_eq!(rsa(&[], &[3]), Some(KeyRejected::ModulusSize));
        for e in [&[][..], &[0], &[1], &[2], &[1, 0], &[0xff; 9]] {
            assert_eq!(rsa(&odd, e), Some(KeyRejected::Exponent));
        }
        odd[255] = 0xfe;
        assert_eq!(rsa(&odd, &[1, 0, 1]), Some(KeyRejected::ModulusSize));
    }

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_context() {
        let key = SealingKey::new(&[1; 32]).unwrap();
        let sealed = key.seal(b"a", b"secret").unwrap();
        assert_eq!(key.open(b"a", &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open(b"b", &sealed).is_none());
        assert!(
            SealingKey::new(&[2; 32])
                .unwrap()
                .open(b"a", &sealed)
                .is_none()
        );
        assert!(key.open(b"a", &sealed[..5]).is_none());
    }
}
