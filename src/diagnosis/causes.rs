//! What is tried to tell the causes of a failed signature or an unknown key apart: the key sets
//! of all configured issuers are asked anew, and their keys tried. For diagnosis alone: the
//! service chooses a key by issuer and `kid`, and never tries.

use crate::config::{IssuerSettings, Settings};
use crate::crypto::{PublicKey, VerifyingKey};
use crate::explain::Code;
use crate::explain::report::CauseTest;
use crate::explain::say::Say;
use crate::keys::jwk::thumbprint;
use crate::subject::discovery::key_set_url;
use crate::subject::fetch::Fetcher;
use crate::subject::jwks::public_keys;
use crate::subject::jws::Decoded;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::Value;
use signature::Verifier;
use std::str::FromStr;

/// The most issuers whose key sets are asked for.
const MAX_ISSUERS: usize = 16;

/// An issuer and the keys that it publishes now; none where it cannot be asked.
struct Published<'s> {
    issuer: &'s IssuerSettings,
    keys: Option<Vec<(String, PublicKey)>>,
}

/// A token as far as it can be tried.
struct Tried<'d> {
    decoded: Decoded<'d>,
    algorithm: Algorithm,
    kid: Option<String>,
    iss: Option<String>,
}

impl<'d> Tried<'d> {
    fn of(text: &'d str) -> Option<Self> {
        let decoded = Decoded::of(text).ok()?;
        let header: Value = serde_json::from_slice(&decoded.header).ok()?;
        let claims: Value = serde_json::from_slice(&decoded.claims).ok()?;
        let text = |object: &Value, name: &str| Some(object.get(name)?.as_str()?.to_owned());
        Some(Self {
            algorithm: Algorithm::from_str(&text(&header, "alg")?).ok()?,
            kid: text(&header, "kid"),
            iss: text(&claims, "iss"),
            decoded,
        })
    }

    fn verifies(&self, key: &PublicKey) -> bool {
        let Ok(key) = VerifyingKey::new(self.algorithm, key) else {
            return false;
        };
        let signature = &self.decoded.signature;
        key.verify(self.decoded.message, signature).is_ok()
    }
}

/// What was tried, and what to do if it found something.
pub(super) async fn tests(
    fetcher: &Fetcher,
    settings: &Settings,
    text: &str,
    code: Code,
) -> (Vec<CauseTest>, Vec<Say>) {
    let about_keys = matches!(
        code,
        Code::SubjectTokenSignatureInvalid | Code::SubjectTokenKeyUnknown
    );
    let Some(tried) = Tried::of(text).filter(|_| about_keys) else {
        return Default::default();
    };
    let signing = settings.issuers.iter().filter(|issuer| issuer.kind.signs());
    let asked = signing.take(MAX_ISSUERS).map(|issuer| ask(fetcher, issuer));
    let published = join_all(asked).await;
    let (own, others): (Vec<_>, Vec<_>) = published
        .iter()
        .partition(|each| Some(&each.issuer.issuer) == tried.iss.as_ref());
    let mut found = Found::default();
    if let Some(own) = own.first() {
        match code {
            Code::SubjectTokenSignatureInvalid => {
                found.key_set(&tried, own);
                found.length(&tried, own);
            }
            _ => found.other_kid(&tried, own),
        }
    }
    found.elsewhere(&tried, &own, &others, settings);
    (found.tests, found.next)
}

async fn ask<'s>(fetcher: &Fetcher, issuer: &'s IssuerSettings) -> Published<'s> {
    let keys = async {
        let (url, reach) = key_set_url(fetcher, issuer).await.ok()?;
        let document = fetcher.get(&url, reach).await.ok()?;
        Some(public_keys(&document.body))
    };
    Published {
        issuer,
        keys: keys.await,
    }
}

#[derive(Default)]
struct Found {
    tests: Vec<CauseTest>,
    next: Vec<Say>,
}

impl Found {
    fn test(&mut self, found: Say, means: &'static str) {
        self.tests.push(CauseTest { found, means });
    }

    /// The issuer's key set, asked anew.
    fn key_set(&mut self, tried: &Tried<'_>, own: &Published<'_>) {
        let configured = own.issuer.jwt_key.as_ref();
        let Some(keys) = &own.keys else {
            let found = Say::words("the issuer's key set, asked anew, does not come");
            return self.test(found, "whether its keys were replaced is not known");
        };
        let signer = keys.iter().find(|(_, key)| tried.verifies(key));
        if configured.is_some() {
            // The token was judged by the key in the configuration, whatever its kid.
            match signer {
                Some((kid, _)) => {
                    let found = Say::words("the issuer's published key ")
                        .value("kid", kid.as_str())
                        .and(" verifies it, the configured key does not");
                    self.test(found, "the configured key is old, or another instance's");
                    self.next.push(Say::words("Replace CLERK_JWT_KEY (or the issuer's `jwt_key`) by the key of this instance: Clerk → API keys → JWT public key; or remove it, and the keys are fetched."));
                }
                None => {
                    let found = Say::words("no key that the issuer publishes verifies it either");
                    self.test(found, "the configured key is not the reason");
                }
            }
            return;
        }
        let named = keys.iter().find(|(kid, _)| Some(kid) == tried.kid.as_ref());
        if let Some((kid, key)) = named {
            let found = Say::words("key set asked anew: ")
                .value("kid", kid.as_str())
                .and(" has thumbprint ")
                .value("thumbprint", thumbprint(key));
            if tried.verifies(key) {
                self.test(
                    found.and(", and verifies it"),
                    "the key was replaced under the same kid a moment ago",
                );
            } else {
                self.test(
                    found.and(", and does not verify it either"),
                    "not a stale cache",
                );
            }
        }
        if let Some((kid, _)) = signer.filter(|(kid, _)| Some(kid) != tried.kid.as_ref()) {
            let found = Say::words("the same issuer's key ")
                .value("kid", kid.as_str())
                .and(" verifies it");
            self.test(found, "the header names the wrong kid");
        }
    }

    /// The signature's length against the key's.
    fn length(&mut self, tried: &Tried<'_>, own: &Published<'_>) {
        let signature = &tried.decoded.signature;
        let keys = own.keys.as_deref().unwrap_or_default();
        let named = keys.iter().find(|(kid, _)| Some(kid) == tried.kid.as_ref());
        let configured = own.issuer.jwt_key.as_ref();
        let Some(key) = configured.or(named.map(|(_, key)| key)) else {
            return;
        };
        let expected = match key {
            PublicKey::Rsa { n, .. } => n.len(),
            PublicKey::P256(_) | PublicKey::Ed25519(_) => 64,
            PublicKey::P384(_) => 96,
        };
        let number = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let found = Say::words("signature of ")
            .number(number(signature.len()))
            .and(" bytes, the key makes ")
            .number(number(expected));
        let elliptic = matches!(key, PublicKey::P256(_) | PublicKey::P384(_));
        let means = match signature.len() {
            length if length == expected => "not cut off, and of the right type of key",
            length if elliptic && length > expected && signature.first() == Some(&0x30) => {
                "DER in the place of r and s: the signer's library is set wrongly (RFC 7518 §3.4)"
            }
            length if length < expected => "cut off on its way, or of another type of key",
            _ => "of another key, or something was added on its way",
        };
        self.test(found, means);
    }

    /// Whether another key of the same issuer made a token with an unknown kid.
    fn other_kid(&mut self, tried: &Tried<'_>, own: &Published<'_>) {
        let keys = own.keys.as_deref().unwrap_or_default();
        match keys.iter().find(|(_, key)| tried.verifies(key)) {
            Some((kid, _)) => {
                let found = Say::words("the same issuer's key ")
                    .value("kid", kid.as_str())
                    .and(" verifies it");
                self.test(
                    found,
                    "genuine, but its header names a kid that is not published",
                );
            }
            None if own.keys.is_some() => {
                let number = i64::try_from(keys.len()).unwrap_or(i64::MAX);
                let found = Say::words("none of the ")
                    .number(number)
                    .and(" keys that the issuer publishes verifies it");
                self.test(found, "another instance's, withdrawn, or forged");
            }
            None => {}
        }
    }

    /// The keys of all other issuers.
    fn elsewhere(
        &mut self,
        tried: &Tried<'_>,
        own: &[&Published<'_>],
        others: &[&Published<'_>],
        settings: &Settings,
    ) {
        let mut count: i64 = 0;
        for other in others {
            for (kid, key) in other.keys.iter().flatten() {
                count += 1;
                let named = Some(kid) == tried.kid.as_ref();
                let verifies = tried.verifies(key);
                if !verifies && !named {
                    continue;
                }
                let found = Say::words("the issuer ")
                    .value("issuer", other.issuer.issuer.as_str())
                    .and(" has a key ")
                    .value("kid", kid.as_str());
                // Names are equal where somebody's keys are not told apart.
                let same_name = own
                    .iter()
                    .flat_map(|own| own.keys.iter().flatten())
                    .any(|(name, _)| name == kid);
                match (verifies, same_name) {
                    (true, _) => self.test(
                        found.and(", which verifies it"),
                        "signed by another issuer than `iss` says: two instances were mixed up where it was made",
                    ),
                    (false, false) => self.test(
                        found.and(", which does not verify it"),
                        "the kid is another issuer's",
                    ),
                    (false, true) => continue,
                }
                let place = settings.places.of("issuers", &other.issuer.name, "issuer");
                let mut next = Say::words("Compare the instance that the app signs in to with ")
                    .value("issuer", other.issuer.issuer.as_str());
                if let Some(place) = place {
                    next = next.and(" (").value("place", place).and(")");
                }
                self.next.push(next.and("."));
            }
        }
        let met = self
            .tests
            .iter()
            .any(|test| test.means.contains("another issuer"));
        if count > 0 && !met {
            let found = Say::words("tried ")
                .number(count)
                .and(if count == 1 { " key" } else { " keys" })
                .and(" of the other issuers: none verifies it");
            self.test(found, "no mix-up of the configured issuers");
        }
    }
}
