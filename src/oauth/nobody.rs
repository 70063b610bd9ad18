//! The client that does not exist: what a stranger sends is compared with its secret and its
//! keys, so that an unknown client takes the time of a known one.

use crate::config::SecretHash;
use crate::crypto::{BackendFailed, PublicKey, SigningKey, VerifyingKey, random, verify_mac};
use jsonwebtoken::Algorithm;
use signature::Verifier;

/// What nobody has: made anew for each process.
pub(super) struct Nobody {
    /// The secret.
    secret: [u8; 32],
    /// The hash of another, which nobody knows either.
    pub(super) hash: [SecretHash; 1],
    keys: Vec<(Algorithm, VerifyingKey)>,
}

impl Nobody {
    /// Makes them.
    ///
    /// # Errors
    /// Where there are no random bytes.
    pub(super) fn new() -> Result<Self, BackendFailed> {
        // Any odd number of that size verifies as slowly as a key; it need not be one.
        let mut n = [random::<128>()?, random::<128>()?].concat();
        if let Some(top) = n.first_mut() {
            *top |= 0x80;
        }
        if let Some(low) = n.last_mut() {
            *low |= 1;
        }
        let rsa = PublicKey::Rsa {
            n,
            e: vec![1, 0, 1],
        };
        let mut keys = vec![(Algorithm::RS256, rsa.clone()), (Algorithm::PS256, rsa)];
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
            let document = SigningKey::generate(algorithm)?;
            let key = SigningKey::from_pkcs8(algorithm, &document).map_err(|_| BackendFailed)?;
            keys.push((algorithm, key.public().clone()));
        }
        let parsed = |(algorithm, key): (Algorithm, PublicKey)| {
            Some((algorithm, VerifyingKey::new(algorithm, &key).ok()?))
        };
        Ok(Self {
            secret: random()?,
            hash: [SecretHash {
                sha256: random()?,
                until: None,
            }],
            keys: keys.into_iter().filter_map(parsed).collect(),
        })
    }

    /// Verifies in vain.
    pub(super) fn verify(&self, alg: Option<Algorithm>, message: &[u8], signature: &Vec<u8>) {
        let alg = alg.unwrap_or(Algorithm::HS256);
        let key = self.keys.iter().find(|(each, _)| *each == alg);
        std::hint::black_box(match key {
            Some((_, key)) => key.verify(message, signature).is_ok(),
            None => verify_mac(alg, &self.secret, message, signature),
        });
    }
}
