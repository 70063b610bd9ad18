//! DPoP (RFC 9449): a token that was given for a proof is good with its key alone, and a proof is
//! good for one request, once.

use crate::support::ring::thumbprint;
use crate::support::token::{assemble, claims, encode};
use crate::support::{Answer, Issuer, Key, Service, now};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the tests' services say that they are.
const HERE: &str = "http://localhost:8080";
const API: &str = "https://api.example.com";

/// A proof in the making: a good one, and any deviation from it.
#[derive(Clone)]
struct Proof {
    header: Value,
    claims: Value,
}

impl Proof {
    fn new(key: &Key, method: &str, uri: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            header: json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": bare(key)}),
            claims: json!({
                "jti": format!("proof-{count}"), "htm": method, "htu": uri, "iat": now(),
            }),
        }
    }

    fn exchange(key: &Key) -> Self {
        Self::new(key, "POST", &format!("{HERE}/auth/exchange"))
    }

    /// For a request of a backend with this token.
    fn api(key: &Key, method: &str, path: &str, token: &str) -> Self {
        let hash = digest(&SHA256, token.as_bytes());
        Self::new(key, method, &format!("{API}{path}")).claim("ath", encode(hash))
    }

    fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    fn without_header(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name);
        self
    }

    fn sign(&self, key: &Key) -> String {
        let texts = (self.header.to_string(), self.claims.to_string());
        assemble(&texts.0, &texts.1, |message| {
            match self.header["alg"].as_str() {
                Some("PS256") => key.sign_as("PS256", message),
                _ => key.sign(message),
            }
        })
    }
}

/// The members of a public key that say what it is, and no others.
fn bare(key: &Key) -> Value {
    let mut jwk = key.jwk("any");
    for name in ["kid", "alg", "use"] {
        jwk.as_object_mut().unwrap().remove(name);
    }
    jwk
}

fn other_p256() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Key::p256_from(document.as_ref())
    })
}

/// Its RFC 7638 thumbprint.
fn jkt(key: &Key) -> String {
    thumbprint(&bare(key))
}

/// An app, `web`, for backends at [`API`], with these lines.
async fn world(lines: &str) -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", &format!("audience = {API:?}\n{lines}"))
        .start()
        .await;
    (issuer, service)
}

/// Exchanges a session token with these `DPoP` headers.
async fn exchange(service: &Service, issuer: &Issuer, proofs: &[&str]) -> Answer {
    let mut request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .body(json!({"session_token": issuer.token()}).to_string());
    for proof in proofs {
        request = request.header("dpop", *proof);
    }
    service.send(request).await
}

/// A token that is bound to the key.
async fn bound(service: &Service, issuer: &Issuer, key: &Key) -> String {
    let proof = Proof::exchange(key).sign(key);
    let answer = exchange(service, issuer, &[&proof]).await;
    answer.token().to_owned()
}

/// What a gateway asks about a request with these headers.
async fn ask(service: &Service, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = service
        .client
        .get(format!("{}/auth/verify", service.url))
        .header("x-original-method", method)
        .header("x-original-uri", target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.send(request).await
}

/// The same, of a token with its proof.
async fn show(service: &Service, method: &str, target: &str, token: &str, proof: &str) -> Answer {
    let token = format!("DPoP {token}");
    let headers = [("authorization", token.as_str()), ("dpop", proof)];
    ask(service, method, target, &headers).await
}

#[tokio::test]
async fn a_proof_binds_the_token_to_its_key_whatever_kind_of_key_it_is() {
    let (issuer, service) = world("").await;
    for (key, alg) in [
        (Key::p256(), "ES256"),
        (Key::ed25519(), "EdDSA"),
        (Key::ed25519(), "Ed25519"),
        (Key::rsa(), "RS256"),
        (Key::rsa(), "PS256"),
    ] {
        let proof = Proof::exchange(key).header("alg", alg).sign(key);
        let answer = exchange(&service, &issuer, &[&proof]).await;
        let token = answer.token();
        assert_eq!(answer.body["token_type"], "DPoP", "{alg}");
        let expected = json!({"jkt": jkt(key)});
        assert_eq!(claims(token)["cnf"], expected, "{alg}");
        assert_eq!(jkt(key).len(), 43);
        assert!(!answer.headers.contains_key("dpop-nonce"), "no nonces here");
    }
    let answer = exchange(&service, &issuer, &[]).await;
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(claims(answer.token()).get("cnf"), None);
}

#[tokio::test]
async fn a_proof_is_good_once() {
    let (issuer, service) = world("").await;
    let key = Key::p256();
    let proof = Proof::exchange(key);
    let signed = proof.sign(key);
    assert_eq!(exchange(&service, &issuer, &[&signed]).await.status, 200);
    // The same, and another with the same `jti`: signatures of P-256 differ each time.
    for again in [&signed, &proof.clone().claim("x", 1).sign(key)] {
        let answer = exchange(&service, &issuer, &[again]).await;
        answer.assert_refused(400, "dpop_proof_used");
        assert_eq!(answer.body["error"], "invalid_dpop_proof");
    }
    // The `jti` of another key is another.
    let other = other_p256();
    let jti = proof.claims["jti"].clone();
    let theirs = Proof::exchange(other).claim("jti", jti).sign(other);
    assert_eq!(exchange(&service, &issuer, &[&theirs]).await.status, 200);
    // What is refused uses nothing up.
    let fresh = Proof::exchange(key).sign(key);
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("dpop", &fresh)
        .header("content-type", "application/json")
        .body(json!({"session_token": "e30.e30.e30"}).to_string());
    assert_eq!(service.send(request).await.status, 401);
    assert_eq!(exchange(&service, &issuer, &[&fresh]).await.status, 200);
}

#[tokio::test]
async fn of_many_requests_with_one_proof_one_gets_a_token() {
    let (issuer, service) = world("").await;
    let key = Key::ed25519();
    let proof = Proof::exchange(key).sign(key);
    let proofs = [proof.as_str()];
    let all = (0..20).map(|_| exchange(&service, &issuer, &proofs));
    let answers = futures_util::future::join_all(all).await;
    let given = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(given.count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.assert_refused(400, "dpop_proof_used");
    }
}
