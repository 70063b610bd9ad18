//! DPoP (RFC 9449): a token that was given for a proof is good with its key alone, and a proof is
//! good for one request, once.

use crate::support::ring::thumbprint;
use crate::support::token::{assemble, claims, encode};
use crate::support::{Answer, Foreign, Issuer, Key, Service, now};
use exchequer::config::{self, DpopSettings, Sources};
use exchequer::dpop;
use exchequer::explain::Code;
use exchequer::service::{Place, Service as Parts};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the tests' services say that they are.
pub const HERE: &str = "http://localhost:8080";
pub const API: &str = "https://api.example.com";

/// A proof in the making: a good one, and any deviation from it.
#[derive(Clone)]
pub struct Proof {
    pub header: Value,
    pub claims: Value,
}

impl Proof {
    pub fn new(key: &Key, method: &str, uri: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            header: json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": bare(key)}),
            claims: json!({
                "jti": format!("proof-{count}"), "htm": method, "htu": uri, "iat": now(),
            }),
        }
    }

    /// For an exchange.
    pub fn exchange(key: &Key) -> Self {
        Self::new(key, "POST", &format!("{HERE}/auth/exchange"))
    }

    /// For a request of a backend with this token.
    pub fn api(key: &Key, method: &str, path: &str, token: &str) -> Self {
        let hash = digest(&SHA256, token.as_bytes());
        Self::new(key, method, &format!("{API}{path}")).claim("ath", encode(hash))
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name);
        self
    }

    /// Signs it.
    pub fn sign(&self, key: &Key) -> String {
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

pub fn other_p256() -> &'static Key {
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
pub async fn world(lines: &str) -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", &format!("audience = {API:?}\n{lines}"))
        .start()
        .await;
    (issuer, service)
}

/// Exchanges a session token with these `DPoP` headers.
pub async fn exchange(service: &Service, issuer: &Issuer, proofs: &[&str]) -> Answer {
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
pub async fn bound(service: &Service, issuer: &Issuer, key: &Key) -> String {
    let proof = Proof::exchange(key).sign(key);
    let answer = exchange(service, issuer, &[&proof]).await;
    answer.token().to_owned()
}

/// What a gateway asks about a request with these headers.
pub async fn ask(
    service: &Service,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Answer {
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
pub async fn show(
    service: &Service,
    method: &str,
    target: &str,
    token: &str,
    proof: &str,
) -> Answer {
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

#[tokio::test]
async fn each_step_of_section_4_3_is_taken() {
    let (issuer, service) = world("").await;
    let (key, other) = (Key::p256(), other_p256());
    let good = || Proof::exchange(key);
    let with = |header: &str, claims: &str| assemble(header, claims, |message| key.sign(message));
    let texts = (good().header.to_string(), good().claims.to_string());
    let doubled = |text: &str| format!("{},{}", &text[..text.len() - 1], &text[1..]);
    let jwk = |jwk: Value| good().header("jwk", jwk).sign(key);
    let p384 = Key::p384();
    let mut off_curve = bare(key);
    off_curve["x"] = json!(encode([7; 32]));
    let mut short = bare(key);
    short["y"] = json!(encode([7; 31]));
    let mut private = bare(key);
    private["d"] = json!(encode([7; 32]));
    let mut half_private = bare(Key::rsa());
    half_private["dp"] = json!(encode([7; 32]));
    let unsigned = good().header("alg", "none").sign(key);
    let unsigned = unsigned.rsplit_once('.').unwrap().0;

    let malformed = "dpop_proof_malformed";
    let algorithm = "dpop_proof_algorithm_not_allowed";
    let unusable = "dpop_proof_key_unusable";
    let signature = "dpop_proof_signature_invalid";
    let mut cases = vec![
        // 2: one well-formed JWT.
        ("empty", String::new(), malformed),
        ("a word", "proof".to_owned(), malformed),
        ("two parts", "e30.e30".to_owned(), malformed),
        ("no JSON", "AAAA.AAAA.AAAA".to_owned(), malformed),
        ("no base64url", "e30.e30.+/==".to_owned(), malformed),
        (
            "two of them",
            format!("{}, {}", good().sign(key), good().sign(key)),
            malformed,
        ),
        (
            "4 KiB",
            good().claim("x", "x".repeat(4096)).sign(key),
            malformed,
        ),
        (
            "a header twice",
            with(&doubled(&texts.0), &texts.1),
            malformed,
        ),
        (
            "a claim twice",
            with(&texts.0, &doubled(&texts.1)),
            malformed,
        ),
        ("a list", with(&texts.0, "[]"), malformed),
        // 3: what is required.
        ("jti", good().without("jti").sign(key), malformed),
        ("htm", good().without("htm").sign(key), malformed),
        ("htu", good().without("htu").sign(key), malformed),
        ("iat", good().without("iat").sign(key), malformed),
        ("jti 5", good().claim("jti", 5).sign(key), malformed),
        ("jti empty", good().claim("jti", "").sign(key), malformed),
        (
            "jti long",
            good().claim("jti", "x".repeat(256)).sign(key),
            malformed,
        ),
        ("iat text", good().claim("iat", "now").sign(key), malformed),
        ("iat -1", good().claim("iat", -1).sign(key), malformed),
        // 4: the type.
        ("typ", good().without_header("typ").sign(key), malformed),
        ("typ JWT", good().header("typ", "JWT").sign(key), malformed),
        (
            "typ in capitals",
            good().header("typ", "DPOP+JWT").sign(key),
            malformed,
        ),
        (
            "typ of another kind",
            good().header("typ", "application/dpop+jwt").sign(key),
            malformed,
        ),
        // 5: the algorithm.
        ("alg none", format!("{unsigned}."), algorithm),
        (
            "alg HS256",
            good().header("alg", "HS256").sign(key),
            algorithm,
        ),
        (
            "alg es256",
            good().header("alg", "es256").sign(key),
            algorithm,
        ),
        ("no alg", good().without_header("alg").sign(key), algorithm),
        ("alg ES384", Proof::exchange(p384).sign(p384), algorithm),
        // 6 and 7: the key, and its signature.
        ("no jwk", good().without_header("jwk").sign(key), unusable),
        ("jwk null", jwk(Value::Null), unusable),
        ("jwk text", jwk(json!("key")), unusable),
        ("private", jwk(private), unusable),
        (
            "half private",
            Proof::exchange(Key::rsa())
                .header("jwk", half_private)
                .sign(Key::rsa()),
            unusable,
        ),
        (
            "symmetric",
            jwk(json!({"kty": "oct", "k": encode("secret")})),
            unusable,
        ),
        ("of another type", jwk(bare(Key::rsa())), unusable),
        ("of another curve", jwk(bare(p384)), unusable),
        ("off its curve", jwk(off_curve), unusable),
        ("a short coordinate", jwk(short), unusable),
        (
            "of small order",
            good()
                .header("alg", "EdDSA")
                .header(
                    "jwk",
                    json!({"kty": "OKP", "crv": "Ed25519", "x": encode([0; 32])}),
                )
                .sign(key),
            unusable,
        ),
        (
            "RSA of 1024 bits",
            good()
                .header("alg", "RS256")
                .header(
                    "jwk",
                    json!({"kty": "RSA", "n": encode([0xff; 128]), "e": "AQAB"}),
                )
                .sign(key),
            unusable,
        ),
        ("another's key", good().sign(other), signature),
        ("another key shown", jwk(bare(other)), signature),
        (
            "no signature",
            format!("{}.", good().sign(key).rsplit_once('.').unwrap().0),
            signature,
        ),
        // 8: the method.
        (
            "GET",
            good().claim("htm", "GET").sign(key),
            "dpop_proof_request_mismatch",
        ),
        (
            "post",
            good().claim("htm", "post").sign(key),
            "dpop_proof_request_mismatch",
        ),
        // 11: the time.
        (
            "old",
            good().claim("iat", now() - 70).sign(key),
            "dpop_proof_expired",
        ),
        (
            "of the future",
            good().claim("iat", now() + 30).sign(key),
            "dpop_proof_expired",
        ),
    ];
    for name in ["crit", "b64", "jku", "x5u", "x5c", "zip", "enc"] {
        let proof = good().header(name, json!(["https://evil.example"]));
        cases.push((name, proof.sign(key), malformed));
    }
    for (what, proof, code) in &cases {
        let answer = exchange(&service, &issuer, &[proof]).await;
        assert_eq!(answer.body["code"], *code, "{what}: {}", answer.body);
        answer.assert_refused(400, code);
        assert_eq!(answer.body["error"], "invalid_dpop_proof", "{what}");
        let text = answer.body.to_string();
        assert!(proof.len() < 16 || !text.contains(proof.as_str()), "{what}");
    }
    // 1: not more than one header, each of them good.
    let two = [good().sign(key), good().sign(key)];
    let answer = exchange(&service, &issuer, &[&two[0], &two[1]]).await;
    answer.assert_refused(400, malformed);
    let odd = reqwest::header::HeaderValue::from_bytes(b"\xff").unwrap();
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .bearer_auth(issuer.token())
        .header("dpop", odd);
    service.send(request).await.assert_refused(400, malformed);
    // A `kid` chooses nothing, and what is not known is ignored.
    let proof = good().header("kid", "other").claim("x", "y").sign(key);
    let answer = exchange(&service, &issuer, &[&proof]).await;
    assert_eq!(claims(answer.token())["cnf"]["jkt"], jkt(key));
}

#[tokio::test]
async fn the_address_is_compared_as_addresses_are() {
    let (issuer, service) = world("").await;
    let key = Key::p256();
    let with = |uri: &str| Proof::new(key, "POST", uri).sign(key);
    for uri in [
        "http://localhost:8080/auth/exchange",
        "http://localhost:8080/auth/clerk/exchange",
        "HTTP://LocalHost:8080/auth/exchange",
        "http://localhost:8080/auth/exchange?a=b",
        "http://localhost:8080/auth/exchange#a",
        "http://localhost:8080/auth/%65xchang%65",
        "http://localhost:8080/auth/./x/../exchange",
    ] {
        let answer = exchange(&service, &issuer, &[&with(uri)]).await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.body);
    }
    for uri in [
        "",
        "/auth/exchange",
        "//localhost:8080/auth/exchange",
        "http:/localhost:8080/auth/exchange",
        "http:localhost:8080/auth/exchange",
        "http:///localhost:8080/auth/exchange",
        "http:\\\\localhost:8080\\auth\\exchange",
        "http://localhost:8080\\auth\\exchange",
        " http://localhost:8080/auth/exchange",
        "http://local\thost:8080/auth/exchange",
        "https://localhost:8080/auth/exchange",
        "ftp://localhost:8080/auth/exchange",
        "http://localhost/auth/exchange",
        "http://localhost:80/auth/exchange",
        "http://127.0.0.1:8080/auth/exchange",
        "http://localhost.:8080/auth/exchange",
        "http://localhost:8080.evil.example/auth/exchange",
        "http://localhost:8080@evil.example/auth/exchange",
        "http://evil.example@localhost:8080/auth/exchange",
        "http://evil.example/?http://localhost:8080/auth/exchange",
        "http://evil.example#http://localhost:8080/auth/exchange",
        "http://localhost:8080/auth/exchange/",
        "http://localhost:8080/auth//exchange",
        "http://localhost:8080/AUTH/exchange",
        "http://localhost:8080/auth%2Fexchange",
        "http://localhost:8080/oauth/token",
        "http://localhost:8080",
        "?http://localhost:8080/auth/exchange",
        "a?http://localhost:8080/auth/exchange",
    ] {
        let answer = exchange(&service, &issuer, &[&with(uri)]).await;
        assert_eq!(
            answer.body["code"], "dpop_proof_request_mismatch",
            "{uri}: {}",
            answer.body
        );
        answer.assert_refused(400, "dpop_proof_request_mismatch");
    }
}

#[tokio::test]
async fn an_app_may_demand_proofs_or_not_look_at_them() {
    let (issuer, service) = world("dpop = \"required\"").await;
    let key = Key::p256();
    let answer = exchange(&service, &issuer, &[]).await;
    answer.assert_refused(400, "dpop_proof_missing");
    let token = bound(&service, &issuer, key).await;
    let proof = Proof::api(key, "GET", "/", &token).sign(key);
    assert_eq!(show(&service, "GET", "/", &token, &proof).await.status, 200);

    let (issuer, service) = world("dpop = \"off\"").await;
    let proof = Proof::exchange(key).sign(key);
    for proof in [proof.as_str(), proof.as_str(), "no proof at all"] {
        let answer = exchange(&service, &issuer, &[proof]).await;
        assert_eq!(answer.body["token_type"], "Bearer", "{}", answer.body);
        assert_eq!(claims(answer.token()).get("cnf"), None);
    }
    let metadata = service.get("/.well-known/oauth-authorization-server").await;
    let algorithms = "dpop_signing_alg_values_supported";
    assert_eq!(metadata.body.get(algorithms), None);
}

/// Asks for a nonce by sending a proof without one.
pub async fn nonce(service: &Service, issuer: &Issuer, key: &Key) -> String {
    let proof = Proof::exchange(key).sign(key);
    let answer = exchange(service, issuer, &[&proof]).await;
    answer.assert_refused(400, "dpop_nonce_required");
    assert_eq!(answer.body["error"], "use_dpop_nonce");
    answer.header("dpop-nonce").to_owned()
}

#[tokio::test]
async fn a_nonce_of_ours_is_demanded_and_tells_the_time_in_the_place_of_the_clients_clock() {
    let issuer = Issuer::start().await;
    let lines = format!("audience = {API:?}\ndpop = \"required\"\ndpop_nonce = true");
    let mut service = Service::builder()
        .one_app(&issuer, "", &lines)
        .start()
        .await;
    let key = Key::p256();
    let missing = exchange(&service, &issuer, &[]).await;
    missing.assert_refused(400, "dpop_proof_missing");
    let first = nonce(&service, &issuer, key).await;
    assert_eq!(missing.header("dpop-nonce").len(), 43);
    assert_eq!(first.len(), 43);
    let with = |nonce: &str| Proof::exchange(key).claim("nonce", nonce);
    // Whatever the client takes for the time.
    for iat in [now(), now() - 86_400, now() + 86_400] {
        let proof = with(&first).claim("iat", iat).sign(key);
        let answer = exchange(&service, &issuer, &[&proof]).await;
        assert_eq!(claims(answer.token())["cnf"]["jkt"], jkt(key));
        assert!(!answer.header("dpop-nonce").is_empty(), "the next one");
        let again = exchange(&service, &issuer, &[&proof]).await;
        again.assert_refused(400, "dpop_proof_used");
    }
    // Another server's, and what is none.
    let (others, other) = world("dpop_nonce = true").await;
    let foreign = nonce(&other, &others, key).await;
    assert_ne!(foreign, first);
    for bad in [
        foreign.as_str(),
        "",
        "x",
        &first[..42],
        &format!("{first}A"),
    ] {
        let answer = exchange(&service, &issuer, &[&with(bad).sign(key)]).await;
        answer.assert_refused(400, "dpop_nonce_required");
        assert!(!answer.header("dpop-nonce").is_empty());
    }
    // A process that shares the key ring takes it: here the same one, anew.
    service.restart().await;
    let answer = exchange(&service, &issuer, &[&with(&first).sign(key)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // It gets old.
    service.shift_clocks(240, 0);
    let later = crate::support::Token::clerk(&issuer.url)
        .claim("exp", now() + 3600)
        .sign(Key::rsa());
    let body = json!({ "session_token": later }).to_string();
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .header("dpop", with(&first).sign(key))
        .body(body);
    let answer = service.send(request).await;
    answer.assert_refused(400, "dpop_nonce_required");
    assert_ne!(answer.header("dpop-nonce"), first);
}

#[tokio::test]
async fn a_clients_own_token_is_bound_where_it_sends_a_proof() {
    let issuer = Issuer::start().await;
    let secret = "9oTfJ-q_Zp3w8xA1b2Fe0mQkV7uYhRsC";
    let client =
        "[clients.reports]\nsecret = { env = \"REPORTS\" }\naudience = \"https://tasks.internal\"";
    let service = Service::builder()
        .one_app(&issuer, "", client)
        .env("REPORTS", secret)
        .start()
        .await;
    let key = Key::ed25519();
    let ask = async |proof: Option<String>| {
        let body =
            format!("grant_type=client_credentials&client_id=reports&client_secret={secret}");
        let mut request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        service.send(request).await
    };
    let here = || Proof::new(key, "POST", &format!("{HERE}/oauth/token"));
    let proof = here().sign(key);
    let answer = ask(Some(proof.clone())).await;
    assert_eq!(answer.body["token_type"], "DPoP", "{}", answer.body);
    let token = answer.body["access_token"].as_str().unwrap();
    assert_eq!(claims(token)["cnf"], json!({"jkt": jkt(key)}));
    // A gateway that takes clients takes it with a proof alone.
    let url = format!(
        "{}/auth/verify?audience=https://tasks.internal",
        service.url
    );
    let show = |scheme: &str, proof: String| {
        service
            .client
            .get(&url)
            .header("authorization", format!("{scheme} {token}"))
            .header("dpop", proof)
            .header("x-original-method", "GET")
            .header("x-original-uri", "/x")
    };
    let there = || {
        Proof::api(key, "GET", "/x", token)
            .claim("htu", "https://tasks.internal/x")
            .sign(key)
    };
    let answer = service.send(show("Bearer", there())).await;
    answer.assert_refused(401, "app_token_bound");
    let answer = service.send(show("DPoP", there())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-client-id"), "reports");
    ask(Some(proof))
        .await
        .assert_refused(400, "dpop_proof_used");
    let elsewhere = Proof::exchange(key).sign(key);
    let answer = ask(Some(elsewhere)).await;
    answer.assert_refused(400, "dpop_proof_request_mismatch");
    assert_eq!(answer.body["error"], "invalid_dpop_proof");
    let answer = ask(None).await;
    assert_eq!(answer.body["token_type"], "Bearer");
    let token = answer.body["access_token"].as_str().unwrap();
    assert_eq!(claims(token).get("cnf"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_that_a_token_goes_with_a_proof() {
    let (issuer, service) = world("dpop = \"required\"").await;
    let key = Key::p256();
    let explain = |token: &str| {
        let command = service.command().input(token);
        let ended = command.run(&["explain", "--json"]);
        serde_json::from_str::<Value>(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
    };
    let report = explain(&bound(&service, &issuer, key).await);
    assert_eq!(report["accepted"], true, "{report}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("bound to a key (`cnf`)"), "{notes}");
    // A session token is explained without one.
    let report = explain(&issuer.token());
    assert_eq!(report["accepted"], true, "{report}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (lines, says) in [
        ("dpop = \"always\"", "is none of off, optional, required"),
        ("dpop = true", "must be a text"),
        ("dpop = \"off\"\ndpop_nonce = true", "has no effect"),
        (
            "dpop = \"required\"\nverify.pass_through = true",
            "bound to no key",
        ),
        (
            "verify.origins = \"https://api.example.com/v1\"",
            "is no origin",
        ),
        ("verify.origins = \"api.example.com\"", "is no origin"),
        (
            "verify.origins = \"https://api.example.com:443\"",
            "is no origin",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let toml = format!(
            "[issuers.a]\nissuer = \"https://a.example\"\n[apps.web]\nissuers = \"a\"\n{lines}\n"
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        let ended = crate::support::Command::new(dir.path()).run(&["check"]);
        assert_eq!(ended.code, 1, "{lines}: {ended:?}");
        assert!(ended.stdout.contains(says), "{lines}: {ended:?}");
    }
}

/// A proof of RFC 9449 that its example's client sent, and its time.
const KEY: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19";
const REQUEST: (&str, i64) = (
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
    1_562_262_616,
);
const REFRESH: (&str, i64) = (
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjY1Mjk2fQ.pAqut2IRDm_De6PR93SYmGBPXpwrAk90e8cP2hjiaG5QsGSuKDYW7_X620BxqhvYC8ynrrvZLTk41mSRroapUA",
    1_562_265_296,
);
const RESOURCE: (&str, i64) = (
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
    1_562_262_618,
);
const ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

/// A key ring, as nonces need one.
fn parts() -> Parts {
    let variables = [
        ("CLERK_JWT_ISSUER", "https://clerk.example.com"),
        ("EXCHEQUER_STORE", "memory"),
    ];
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let (settings, findings) = config::load(&Sources {
        variables: variables.map(variable).to_vec(),
        ..Sources::default()
    });
    assert_eq!(findings.errors, []);
    Parts::new(settings.unwrap(), Place::Memory).unwrap()
}

#[tokio::test]
async fn the_examples_of_rfc_9449_verify_in_their_time_and_for_their_requests() {
    let parts = parts();
    let keys = parts.exchange.keys.published();
    let server = ["https://server.example.com/token".to_owned()];
    let resource = ["https://resource.example.org/protectedresource".to_owned()];
    let prove = |claims: &str, method: &str, uris: &[String], token: Option<&str>, now: i64| {
        let proof = format!("{KEY}.{claims}");
        let shown = dpop::Shown {
            proof: &proof,
            method,
            uris,
            token,
        };
        dpop::prove(Some(shown), Some(JKT), DpopSettings::default(), &keys, now)
            .map(Option::unwrap)
            .map_err(|refusal| refusal.code)
    };
    for (claims, at) in [REQUEST, REFRESH] {
        let ago = |seconds: i64| prove(claims, "POST", &server, None, at + seconds);
        for seconds in [-10, 0, 60] {
            assert_eq!(ago(seconds).unwrap().thumbprint, JKT, "{seconds}");
        }
        for seconds in [-11, 61] {
            assert_eq!(ago(seconds).unwrap_err(), Code::DpopProofExpired);
        }
    }
    let (claims, at) = RESOURCE;
    let token = Some(ACCESS_TOKEN);
    let used = prove(claims, "GET", &resource, token, at).unwrap();
    assert_eq!(used.thumbprint, JKT);
    for (method, uris, token, code) in [
        ("POST", &resource, token, Code::DpopProofRequestMismatch),
        ("GET", &server, token, Code::DpopProofRequestMismatch),
        ("GET", &resource, Some("Kz"), Code::DpopProofTokenMismatch),
    ] {
        assert_eq!(prove(claims, method, uris, token, at).unwrap_err(), code);
    }
    // At the gate each is good once, as long as it is good at all.
    let gate = dpop::Used::default();
    gate.take(&used, at).unwrap();
    for now in [at, at + 60] {
        let refusal = gate.take(&used, now).unwrap_err();
        assert_eq!(refusal.code, Code::DpopProofUsed);
    }
    // Both examples of the token endpoint have one `jti`, three quarters of an hour apart.
    let store = &parts.exchange.store;
    for (claims, at) in [REQUEST, REFRESH] {
        let proof = prove(claims, "POST", &server, None, at).unwrap();
        proof.use_up(store, at).await.unwrap();
        let refusal = proof.use_up(store, at + 60).await.unwrap_err();
        assert_eq!(refusal.code, Code::DpopProofUsed);
    }
}

#[tokio::test]
async fn proofs_of_jose_are_taken() {
    let (issuer, service) = world("dpop_nonce = true").await;
    let mut jose = Foreign::start("node", &["dpop.mjs"]);
    for alg in ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"] {
        let mut make = |method: &str, uri: String, token: Option<&str>, nonce: Option<&str>| {
            let question =
                json!({"alg": alg, "method": method, "uri": uri, "token": token, "nonce": nonce});
            let answer = jose.ask(&question.to_string());
            let text = |name: &str| answer[name].as_str().unwrap().to_owned();
            (text("proof"), text("thumbprint"))
        };
        let uri = || format!("{HERE}/auth/exchange");
        let (proof, _) = make("POST", uri(), None, None);
        let answer = exchange(&service, &issuer, &[&proof]).await;
        answer.assert_refused(400, "dpop_nonce_required");
        let nonce = answer.header("dpop-nonce").to_owned();
        let (proof, thumbprint) = make("POST", uri(), None, Some(&nonce));
        let answer = exchange(&service, &issuer, &[&proof]).await;
        let token = answer.token().to_owned();
        assert_eq!(claims(&token)["cnf"]["jkt"], thumbprint, "{alg}");
        let uri = format!("{API}/tasks");
        let (proof, _) = make("GET", uri, Some(&token), Some(&nonce));
        let answer = show(&service, "GET", "/tasks?page=1", &token, &proof).await;
        assert_eq!(answer.status, 200, "{alg}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_refresh_token_of_an_app_is_good_with_the_key_alone_that_it_was_given_to() {
    let (issuer, service) = world("dpop_nonce = true\nrefresh = {}").await;
    let (key, other) = (Key::p256(), other_p256());
    let first = nonce(&service, &issuer, key).await;
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .header(
            "dpop",
            Proof::exchange(key)
                .claim("nonce", first.as_str())
                .sign(key),
        )
        .body(json!({"session_token": issuer.token(), "scope": "offline_access"}).to_string());
    let answer = service.send(request).await;
    assert_eq!(answer.body["token_type"], "DPoP", "{}", answer.body);
    let mut refresh = answer.body["refresh_token"].as_str().unwrap().to_owned();
    let ask = async |refresh: &str, key: Option<&Key>, nonce: &str| {
        let body = format!("grant_type=refresh_token&client_id=web&refresh_token={refresh}");
        let mut request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        if let Some(key) = key {
            let proof = Proof::new(key, "POST", &format!("{HERE}/oauth/token"));
            request = request.header("dpop", proof.claim("nonce", nonce).sign(key));
        }
        service.send(request).await
    };
    for round in 0..3 {
        let answer = ask(&refresh, None, "").await;
        answer.assert_refused(400, "dpop_proof_missing");
        let answer = ask(&refresh, Some(other), &first).await;
        answer.assert_refused(400, "dpop_key_mismatch");
        let answer = ask(&refresh, Some(key), "").await;
        answer.assert_refused(400, "dpop_nonce_required");
        assert!(!answer.header("dpop-nonce").is_empty());
        // None of these has used it up.
        let answer = ask(&refresh, Some(key), &first).await;
        assert_eq!(
            answer.body["token_type"], "DPoP",
            "{round}: {}",
            answer.body
        );
        assert!(!answer.header("dpop-nonce").is_empty());
        let token = answer.body["access_token"].as_str().unwrap();
        assert_eq!(claims(token)["cnf"]["jkt"], jkt(key));
        let next = answer.body["refresh_token"].as_str().unwrap();
        assert_ne!(refresh, next);
        refresh = next.to_owned();
    }
}

#[tokio::test]
async fn clients_that_nobody_here_wrote_drive_it_nonces_and_all() {
    let secret = "9oTfJ-q_Zp3w8xA1b2Fe0mQkV7uYhRsC";
    let client =
        "[clients.reports]\nsecret = { env = \"REPORTS\" }\naudience = \"https://tasks.internal\"";
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            &format!("dpop_nonce = true\nrefresh = {{}}\n{client}"),
        )
        .env("REPORTS", secret)
        .start()
        .await;
    let mut clients = Foreign::start("node", &["oauth-client.mjs"]);
    for lib in ["openid-client", "oauth4webapi"] {
        let mut ask = |mut call: Value| {
            call["lib"] = lib.into();
            call["url"] = service.url.as_str().into();
            call["issuer"] = HERE.into();
            clients.ask(&call.to_string())
        };
        let bound = |answer: &Value| {
            let token = answer["ok"]["access_token"].as_str();
            let token = token.unwrap_or_else(|| panic!("{lib}: {answer}"));
            assert_eq!(answer["ok"]["token_type"], "dpop", "{lib}: as it writes it");
            claims(token)["cnf"]["jkt"].as_str().unwrap().to_owned()
        };
        let answer = ask(json!({
            "do": "client_credentials", "client_id": "reports", "secret": secret,
            "auth": "basic", "dpop": true,
        }));
        assert_eq!(bound(&answer).len(), 43);
        // A refresh token that was given without a proof is bound by the first one.
        let body = json!({"session_token": issuer.token(), "scope": "offline_access"});
        let begun = service.exchange(&body).await;
        let mut refresh = begun.body["refresh_token"].clone();
        let mut keys = Vec::new();
        for _ in 0..2 {
            let call = json!({
                "do": "refresh", "client_id": "web", "auth": "none", "dpop": true,
                "refresh_token": refresh,
            });
            let answer = ask(call);
            keys.push(bound(&answer));
            refresh = answer["ok"]["refresh_token"].clone();
        }
        assert_eq!(keys[0], keys[1]);
        let answer = ask(json!({
            "do": "refresh", "client_id": "web", "auth": "none", "dpop": false,
            "refresh_token": refresh,
        }));
        assert_eq!(answer["error"], "invalid_dpop_proof", "{lib}: {answer}");
    }
}

/// Asks the token endpoint, with a proof or without.
pub async fn token(service: &Service, form: &str, proof: Option<&Key>) -> Answer {
    let mut request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    if let Some(key) = proof {
        let proof = Proof::new(key, "POST", &format!("{HERE}/oauth/token"));
        request = request.header("dpop", proof.sign(key));
    }
    service.send(request).await
}

const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn:ietf:params:oauth:token-type:jwt";

#[tokio::test]
async fn a_bound_token_that_is_exchanged_for_another_backend_is_shown_at_that_one() {
    let (issuer, service) = world(
        "[clients.tasks]\nsecret_sha256 = \"3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9\"\napps = \"web\"\naudience = \"https://mail.internal\"\n",
    )
    .await;
    let key = other_p256();
    let first = bound(&service, &issuer, key).await;
    let form = format!(
        "{EXCHANGE}&client_id=tasks&client_secret=0123456789abcdef0123456789abcdef&audience=https://mail.internal&subject_token={first}"
    );
    let answer = token(&service, &form, None).await;
    assert_eq!(answer.status, 400, "not without the key: {}", answer.body);
    let answer = token(&service, &form, Some(key)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = answer.body["access_token"].as_str().unwrap();
    let verify = async |origin: &str| {
        let hash = encode(digest(&SHA256, second.as_bytes()));
        let proof = Proof::new(key, "GET", &format!("{origin}/x")).claim("ath", hash);
        let request = service
            .client
            .get(format!(
                "{}/auth/verify?audience=https://mail.internal",
                service.url
            ))
            .header("x-original-method", "GET")
            .header("x-original-uri", "/x")
            .header("authorization", format!("DPoP {second}"))
            .header("dpop", proof.sign(key));
        service.send(request).await
    };
    assert_eq!(verify("https://mail.internal").await.status, 200);
    verify(API)
        .await
        .assert_refused(401, "dpop_proof_request_mismatch");
}

#[tokio::test]
async fn a_refresh_token_of_a_client_without_a_secret_is_bound_by_its_first_proof() {
    let (issuer, service) =
        world("refresh = {}\n[clients.open]\nauth_method = \"none\"\napps = \"web\"\n").await;
    let form = format!(
        "{EXCHANGE}&client_id=open&scope=offline_access&subject_token={}",
        issuer.token()
    );
    let mut given = token(&service, &form, None).await;
    let key = other_p256();
    for proof in [None, Some(key), Some(key)] {
        assert_eq!(given.status, 200, "{}", given.body);
        let refresh = given.body["refresh_token"].as_str().unwrap();
        let form = format!("grant_type=refresh_token&client_id=open&refresh_token={refresh}");
        given = token(&service, &form, proof).await;
    }
    let refresh = given.body["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&client_id=open&refresh_token={refresh}");
    assert_eq!(
        token(&service, &form, None).await.status,
        400,
        "it is bound"
    );
    assert_eq!(token(&service, &form, Some(key)).await.status, 200);
}
