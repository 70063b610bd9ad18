//! DPoP (RFC 9449): a token that only the holder of a key can use.
//!
//! For each request the client signs a small JWT, the proof, with a key of its own, and puts the
//! public half into the proof's header: so that the key is taken from there is the point, and no
//! mistake. A token that was given for a proof carries the key's thumbprint, and is good only
//! together with further proofs by that key, each for one request and used once.
//!
//! A proof is used up last, so that whoever is refused uses nothing up, and a stranger makes
//! nobody write to a disk.

use crate::clock::UnixSeconds;
use crate::config::{DpopPolicy, DpopSettings};
use crate::crypto::{VerifyingKey, algorithm, sha256};
use crate::explain::{Code, Refusal, Source};
use crate::keys::Published;
use crate::keys::jwk::thumbprint;
use crate::store::{Change, Committed, Key, Kind, Once, Store, StoreError};
use crate::subject::claims::date;
use crate::subject::json::Object;
use crate::subject::jwks;
use crate::subject::jws::{Decoded, Malformed};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use signature::Verifier;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use url::Url;

type Refused = Box<Refusal>;

/// What proofs may be signed with; `Ed25519` is RFC 9864's name of `EdDSA` with that curve.
pub const ALGORITHMS: [&str; 5] = ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"];

/// The longest proof, in bytes: an RSA key of 8192 bits and its signature fit.
const MAX_PROOF: usize = 4 * 1024;
/// The longest `jti`, in bytes.
const MAX_JTI: usize = 255;
/// How far `iat` may lie back and ahead, in seconds.
const PAST: UnixSeconds = 60;
const FUTURE: UnixSeconds = 10;
/// How long a nonce is the present one, in seconds; it is taken as long again.
const SLOT: UnixSeconds = 120;
/// Header members that are never honoured. `kid` chooses nothing here.
const REFUSED_HEADERS: [&str; 7] = ["crit", "b64", "jku", "x5u", "x5c", "zip", "enc"];

/// A proof as it was sent, and the request that it must be for; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Shown<'r> {
    /// The `DPoP` header.
    pub proof: &'r str,
    /// The request's method.
    pub method: &'r str,
    /// What the request's address may be said to be.
    pub uris: &'r [String],
    /// The access token that goes with it, where one does.
    pub token: Option<&'r str>,
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown(…)")
    }
}

/// A verified proof.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The key's thumbprint (RFC 7638): `jkt`.
    pub thumbprint: String,
    /// The nonce for the next proof, where proofs need one.
    pub next_nonce: Option<String>,
    once: Once,
}

impl Proof {
    /// Uses it up; only the first of several succeeds.
    pub async fn use_up(&self, store: &Store, now: UnixSeconds) -> Result<(), Refused> {
        let change = Change {
            once: Some(self.once),
            ..Change::default()
        };
        let committed = store.commit(change, now).await;
        match committed.map_err(StoreError::refusal)? {
            Committed::Done => Ok(()),
            Committed::Repeated => Err(self.used()),
        }
    }

    fn used(&self) -> Refused {
        let mut refusal = Refusal::new(Code::DpopProofUsed);
        refusal.nonce.clone_from(&self.next_nonce);
        refusal
    }
}

/// Verifies what a request shows of its key, by the app's rules; `bound_to` is the thumbprint of
/// the key that it must be, where what is asked with is bound to one.
pub fn prove(
    shown: Option<Shown<'_>>,
    bound_to: Option<&str>,
    settings: DpopSettings,
    keys: &Published,
    now: UnixSeconds,
) -> Result<Option<Proof>, Refused> {
    // What is bound stays bound, whatever the app does meanwhile.
    if settings.policy == DpopPolicy::Off && bound_to.is_none() {
        return Ok(None);
    }
    let nonces = settings.nonce.then_some(Nonces { keys, now });
    let verified = match shown {
        None if settings.policy == DpopPolicy::Required || bound_to.is_some() => {
            Err(Refusal::new(Code::DpopProofMissing))
        }
        None => return Ok(None),
        Some(shown) => verify(shown, nonces.as_ref(), now),
    };
    let verified = verified.and_then(|(thumbprint, once)| match bound_to {
        Some(key) if key != thumbprint => Err(Refusal::new(Code::DpopKeyMismatch)),
        _ => Ok((thumbprint, once)),
    });
    let next_nonce = nonces.map(|nonces| nonces.present());
    match verified {
        Ok((thumbprint, once)) => Ok(Some(Proof {
            thumbprint,
            next_nonce,
            once,
        })),
        Err(mut refusal) => {
            refusal.nonce = next_nonce;
            Err(refusal)
        }
    }
}

/// The nonces that replicas of one key ring agree on without telling each other (RFC 9449 §8).
pub struct Nonces<'k> {
    keys: &'k Published,
    now: UnixSeconds,
}

impl Nonces<'_> {
    fn message(&self, before: i64) -> [u8; 8] {
        (self.now.div_euclid(SLOT) - before).to_be_bytes()
    }

    fn present(&self) -> String {
        let key = self.keys.derived_key("dpop nonce");
        URL_SAFE_NO_PAD.encode(key.sign(&[&self.message(0)]))
    }

    fn takes(&self, nonce: &str) -> bool {
        let key = self.keys.derived_key("dpop nonce");
        let code = URL_SAFE_NO_PAD.decode(nonce).unwrap_or_default();
        [0, 1]
            .iter()
            .any(|before| key.verify(&self.message(*before), &code))
    }
}

fn malformed(what: impl std::fmt::Display) -> Refused {
    Refusal::because(
        Code::DpopProofMalformed,
        format!("The DPoP proof is malformed: {what}."),
    )
}

/// RFC 9449 §4.3, in its order; gives the key's thumbprint, and what is used once.
///
/// # Errors
/// Where a check fails: with the refusal that this is for a caller.
pub fn verify(
    shown: Shown<'_>,
    nonces: Option<&Nonces<'_>>,
    now: UnixSeconds,
) -> Result<(String, Once), Refused> {
    if shown.proof.len() > MAX_PROOF {
        return Err(malformed("it is larger than 4 KiB"));
    }
    let decoded = Decoded::of(shown.proof).map_err(|error| match error {
        Malformed::TooLarge => malformed("it is larger than 4 KiB"),
        Malformed::Dots(_) => malformed("it has not three parts"),
        Malformed::NotBase64(part) => malformed(format_args!("its {part} is not base64url")),
    })?;
    let object = |bytes, name| {
        Object::parse(bytes).map_err(|_| {
            malformed(format_args!(
                "its {name} is not a JSON object without repeated members"
            ))
        })
    };
    let header: Object<'_> = object(&decoded.header, "header")?;
    let claims: Object<'_> = object(&decoded.claims, "payload")?;
    let text = |name| {
        let text = claims.text(name);
        text.ok_or_else(|| malformed(format_args!("it has no `{name}`, or it is no text")))
    };
    let (jti, htm, htu) = (text("jti")?, text("htm")?, text("htu")?);
    if jti.is_empty() || jti.len() > MAX_JTI {
        return Err(malformed("its `jti` has not 1 to 255 bytes"));
    }
    let iat = claims.get("iat").and_then(date);
    let iat = iat.ok_or_else(|| malformed("it has no `iat`, or it is no time"))?;
    if header.text("typ") != Some("dpop+jwt") {
        return Err(malformed("its `typ` is not dpop+jwt"));
    }
    if let Some(name) = REFUSED_HEADERS.into_iter().find(|name| header.has(name)) {
        return Err(malformed(format_args!("its header has `{name}`")));
    }
    let alg = header.text("alg").filter(|alg| ALGORITHMS.contains(alg));
    let algorithm = alg
        .and_then(algorithm)
        .ok_or_else(|| Refusal::new(Code::DpopProofAlgorithmNotAllowed))?;
    let thumbprint = check_signature(&decoded, &header, algorithm)?;
    let mismatch = |what: &str| {
        Refusal::because(
            Code::DpopProofRequestMismatch,
            format!("The DPoP proof was made for another request: {what}."),
        )
    };
    if htm != shown.method {
        return Err(mismatch("`htm` is not its method"));
    }
    let meant = plain(htu);
    if meant.is_none() || !shown.uris.iter().any(|uri| plain(uri) == meant) {
        return Err(mismatch("`htu` is not its address"));
    }
    let (until, since) = match nonces {
        // The nonce tells when the proof was made, and no clock but ours is asked.
        Some(nonces) => {
            if !claims
                .text("nonce")
                .is_some_and(|nonce| nonces.takes(nonce))
            {
                return Err(Refusal::new(Code::DpopNonceRequired));
            }
            (now + 2 * SLOT, now - 2 * SLOT)
        }
        None if (now - PAST..=now + FUTURE).contains(&iat) => (iat + PAST + 1, iat - FUTURE),
        None => return Err(Refusal::new(Code::DpopProofExpired)),
    };
    let of_token = |token: &str| URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()));
    let ath = shown.token.map(of_token);
    if ath.is_some() && claims.text("ath") != ath.as_deref() {
        return Err(Refusal::new(Code::DpopProofTokenMismatch));
    }
    let key = Key::of(Kind::ProofUsed, &[&thumbprint, jti]);
    let since = Some(since);
    Ok((thumbprint, Once { key, until, since }))
}

/// Verifies the proof with the key in its own header; gives the key's thumbprint.
fn check_signature(
    decoded: &Decoded<'_>,
    header: &Object<'_>,
    algorithm: Algorithm,
) -> Result<String, Refused> {
    let unusable = |why: &dyn std::fmt::Display| {
        Refusal::because(
            Code::DpopProofKeyUnusable,
            format!("The key in the DPoP proof cannot be used: {why}."),
        )
    };
    let jwk = header.get("jwk").map(serde_json::to_value);
    let Some(Ok(jwk)) = jwk else {
        return Err(unusable(&"there is no `jwk`"));
    };
    let public = jwks::single(&jwk).map_err(|error| unusable(&error))?;
    let key = VerifyingKey::new(algorithm, &public).map_err(|error| unusable(&error))?;
    key.verify(decoded.message, &decoded.signature)
        .map_err(|_| Refusal::new(Code::DpopProofSignatureInvalid))?;
    Ok(thumbprint(&public))
}

/// An address of the web in the one form that is compared: without query and fragment, and
/// normalised (RFC 3986 §6.2.2 and §6.2.3).
fn plain(uri: &str) -> Option<String> {
    // A URL parser for browsers mends what is none: too many slashes, backslashes, white space.
    let (scheme, rest) = uri.split_once("://")?;
    let whole = !rest.starts_with('/') && !scheme.contains(['/', '?', '#']);
    let sound = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if !whole || !uri.bytes().all(sound) {
        return None;
    }
    let mut url = Url::parse(&normalised(uri)).ok()?;
    let web = matches!(url.scheme(), "http" | "https");
    if !web || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(url.into())
}

/// Percent-encoded bytes in one form: decoded where they need not be encoded, else in capitals.
fn normalised(uri: &str) -> String {
    let mut parts = uri.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).filter(|hex| !hex.starts_with('+'));
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                text.push(char::from(byte));
            }
            Some(byte) => {
                let _ = write!(text, "%{byte:02X}");
            }
            None => text.push('%'),
        }
        text.push_str(
            part.get(if byte.is_some() { 2 } else { 0 }..)
                .unwrap_or_default(),
        );
    }
    text
}

/// The most proofs that are remembered in memory: some 50 MB of them.
const MAX_USED: usize = 1_000_000;
const FEW_USED: usize = 4096;

/// The proofs that were used at the gate, in memory.
///
/// Each request to each backend passes there, and a store on a disk would make all of them wait
/// for it. So another replica does not know of a proof that was used here, nor this one after a
/// restart: for as long as a proof lives, the same request could be sent once to each. Whoever
/// could do that has read the proof and the token off the wire (RFC 9449 §11.1 lets the server
/// choose). What gives new tokens uses proofs up in the store.
#[derive(Default)]
pub struct Used(Mutex<Known>);

#[derive(Default)]
struct Known {
    proofs: HashMap<Key, UnixSeconds>,
    /// With how many those that are over are dropped next, and when that was done last.
    sweep_at: usize,
    swept: UnixSeconds,
}

impl Used {
    /// Uses a proof up; only the first of several succeeds.
    pub fn take(&self, proof: &Proof, now: UnixSeconds) -> Result<(), Refused> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.proofs.len() >= known.sweep_at && known.swept != now {
            known.proofs.retain(|_, until| *until > now);
            known.sweep_at = (known.proofs.len() * 2).clamp(FEW_USED, MAX_USED);
            known.swept = now;
        }
        let Once { key, until, .. } = proof.once;
        if known.proofs.get(&key).is_some_and(|until| *until > now) {
            return Err(proof.used());
        }
        // Whatever were forgotten instead could be used again.
        if known.proofs.len() >= MAX_USED {
            return Err(Refusal::new(Code::DpopProofsTooMany).unavailable(Source::Exchequer, 1));
        }
        known.proofs.insert(key, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;
    use crate::keys::jwk::jwk;
    use crate::keys::ring::{Ring, Schedule};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use signature::Signer;

    fn proof(jti: usize, until: UnixSeconds) -> Proof {
        let key = Key::of(Kind::ProofUsed, &["key", &jti.to_string()]);
        Proof {
            thumbprint: "key".to_owned(),
            next_nonce: None,
            once: Once {
                key,
                until,
                since: None,
            },
        }
    }

    #[test]
    fn as_many_proofs_are_remembered_as_there_is_room_for_and_no_good_one_is_forgotten() {
        let used = Used::default();
        for jti in 0..MAX_USED {
            assert!(used.take(&proof(jti, 100), 0).is_ok());
        }
        let refusal = used.take(&proof(MAX_USED, 100), 99).unwrap_err();
        assert_eq!(refusal.code, Code::DpopProofsTooMany);
        for jti in [0, MAX_USED - 1] {
            let refusal = used.take(&proof(jti, 100), 99).unwrap_err();
            assert_eq!(refusal.code, Code::DpopProofUsed);
        }
        // When they are over there is room again, and they are good for nothing by their time.
        assert!(used.take(&proof(MAX_USED, 200), 100).is_ok());
        assert_eq!(used.0.lock().unwrap().proofs.len(), 1);
    }

    #[test]
    fn what_is_over_is_dropped_when_so_many_more_have_come_and_not_at_each_request() {
        let used = Used::default();
        let known = || {
            let known = used.0.lock().unwrap();
            (known.proofs.len(), known.sweep_at)
        };
        for jti in 0..FEW_USED - 1 {
            let until = if jti < 1000 { 2 } else { 100 };
            assert!(used.take(&proof(jti, until), 1).is_ok());
        }
        assert!(used.take(&proof(0, 100), 2).is_ok(), "it was over");
        assert_eq!(known(), (FEW_USED - 1, FEW_USED));
        assert!(used.take(&proof(FEW_USED, 100), 2).is_ok());
        assert!(used.take(&proof(FEW_USED + 1, 100), 3).is_ok());
        let left = FEW_USED - 999;
        assert_eq!(known(), (left + 1, left * 2));
    }

    /// A proof for `GET https://a.example/` with these claims beside.
    fn signed(iat: UnixSeconds, jti: &str, nonce: &str) -> String {
        let algorithm = Algorithm::ES256;
        let pkcs8 = SigningKey::generate(algorithm).unwrap();
        let key = SigningKey::from_pkcs8(algorithm, &pkcs8).unwrap();
        let header = json!({
            "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(key.public(), algorithm),
        });
        let claims = json!({
            "htm": "GET", "htu": "https://a.example/", "jti": jti, "iat": iat, "nonce": nonce,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature: Vec<u8> = key.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn keys() -> Published {
        let ring = Ring {
            pseudonym_key: vec![7; 32].into(),
            ..Ring::default()
        };
        let schedule = Schedule {
            rotate_every: 1,
            publish_ahead: 1,
            keep_after: 1,
        };
        Published::new(&ring, &schedule, &[]).unwrap()
    }

    #[test]
    fn a_used_proof_is_remembered_for_as_long_as_it_is_good() {
        let (keys, now) = (keys(), 10_000 * SLOT);
        let nonces = Nonces { keys: &keys, now };
        let uris = ["https://a.example/".to_owned()];
        let judged = |proof: &str, nonces| {
            let shown = Shown {
                proof,
                method: "GET",
                uris: &uris,
                token: None,
            };
            verify(shown, nonces, now).map(|(_, once)| (once.until, once.since))
        };
        for iat in [now - PAST, now, now + FUTURE] {
            let remembered = (iat + PAST + 1, Some(iat - FUTURE));
            assert_eq!(judged(&signed(iat, "j", ""), None).unwrap(), remembered);
        }
        for iat in [now - PAST - 1, now + FUTURE + 1] {
            let refusal = judged(&signed(iat, "j", ""), None).unwrap_err();
            assert_eq!(refusal.code, Code::DpopProofExpired);
        }
        let proof = signed(0, "j", &nonces.present());
        let remembered = (now + 2 * SLOT, Some(now - 2 * SLOT));
        assert_eq!(judged(&proof, Some(&nonces)).unwrap(), remembered);
        assert!(judged(&signed(now, &"j".repeat(MAX_JTI), ""), None).is_ok());
    }

    #[test]
    fn a_proof_of_4_kib_is_read_and_a_byte_more_is_not() {
        for (length, what) in [(MAX_PROOF, "three parts"), (MAX_PROOF + 1, "4 KiB")] {
            let shown = Shown {
                proof: &"a".repeat(length),
                method: "GET",
                uris: &[],
                token: None,
            };
            let refusal = verify(shown, None, 0).unwrap_err();
            assert!(refusal.description.contains(what), "{length}");
        }
    }

    #[test]
    fn a_nonce_is_taken_in_its_slot_and_the_next() {
        let keys = keys();
        let at = |now| Nonces { keys: &keys, now };
        let start = 10_000 * SLOT;
        let nonce = at(start).present();
        for now in [start, start + SLOT, start + 2 * SLOT - 1] {
            assert!(at(now).takes(&nonce));
        }
        for now in [start - 1, start + 2 * SLOT] {
            assert!(!at(now).takes(&nonce));
        }
    }

    #[test]
    fn a_proof_that_is_shown_is_not_shown_to_people() {
        let shown = Shown {
            proof: "a.b.c",
            method: "GET",
            uris: &[],
            token: Some("secret"),
        };
        assert_eq!(format!("{shown:?}"), "Shown(…)");
    }

    #[test]
    fn an_address_is_compared_in_its_normal_form_and_what_is_none_never() {
        for (uri, form) in [
            ("HTTPS://A.example:443/x?q=1#f", "https://a.example/x"),
            ("http://a.example:8080", "http://a.example:8080/"),
            (
                "https://a.example/%7e%61%2f%3F",
                "https://a.example/~a%2F%3F",
            ),
            ("https://a.example/%+7%", "https://a.example/%+7%"),
            ("https://a.example/%zz%4", "https://a.example/%zz%4"),
        ] {
            assert_eq!(plain(uri).as_deref(), Some(form), "{uri}");
        }
        for uri in [
            "a.example/x",
            "https:///a.example/x",
            "https:/x#://a.example",
            "https://a.example\\x",
            "https://a.example/ x",
            "https://a.example/é",
            "ftp://a.example/x",
            "https://user@a.example/x",
            "https://:password@a.example/x",
        ] {
            assert_eq!(plain(uri), None, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_makes_no_panic(
            proof in any::<String>(),
            parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
        ) {
            let uris = ["https://a.example/x".to_owned()];
            for proof in [proof, parts.join(".")] {
                let shown = Shown { proof: &proof, method: "GET", uris: &uris, token: None };
                prop_assert!(verify(shown, None, 0).is_err());
            }
        }

        #[test]
        fn one_address_has_one_form(
            uri in "(https?|HTTP|ftp)://[a-z@.:0-9%-]{0,12}[/?#%a-zA-Z0-9.~é\\\\ ]{0,24}",
        ) {
            if let Some(once) = plain(&uri) {
                prop_assert_eq!(plain(&once), Some(once.clone()));
                prop_assert!(!once.contains(['?', '#', '@', '\\', ' ']));
                prop_assert!(once.is_ascii());
            }
        }
    }
}
