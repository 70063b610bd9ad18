//! An issuer's key set is taken key by key: an odd key spoils neither the others nor the
//! service, and an answer that is no key set never replaces one that was.

use crate::support::issuer::JWKS;
use crate::support::{Answer, Behaviour, Issuer, Key, Service, Token, eventually};
use serde_json::{Value, json};
use std::io::Write as _;

/// A configuration whose one app trusts all of them; the issuers are named `i0`, `i1`, …
fn trusting_all(issuers: &[Issuer]) -> String {
    let mut toml = String::new();
    let mut names = Vec::new();
    for (index, issuer) in issuers.iter().enumerate() {
        toml += &format!(
            "[issuers.i{index}]\nissuer = '{}'\nkind = 'clerk'\nalgorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']\n",
            issuer.url
        );
        names.push(format!("'i{index}'"));
    }
    toml + &format!("[apps.all]\nissuers = [{}]\n", names.join(", "))
}

fn token(issuer: &Issuer, kid: &str, key: &Key) -> String {
    Token::clerk(&issuer.url)
        .header("alg", key.alg())
        .header("kid", kid)
        .sign(key)
}

/// The JWK with other members.
fn with(mut jwk: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

fn without(mut jwk: Value, name: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(name);
    jwk
}

fn encoded(bytes: &[u8]) -> String {
    crate::support::token::encode(bytes)
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({"kty": "RSA", "kid": "odd", "alg": "RS256", "use": "sig", "n": encoded(n), "e": encoded(e)})
}

const UNUSABLE: &str = "subject_token_key_unusable";
const UNKNOWN: &str = "subject_token_key_unknown";

/// Each odd key, the key that a token naming it is signed with, and the code of its refusal.
fn odd_keys() -> Vec<(&'static str, Value, &'static Key, &'static str)> {
    let (other, p256, p384, ed) = (Key::other_rsa(), Key::p256(), Key::p384(), Key::ed25519());
    let long = |len: usize| {
        let mut n = vec![0xff; len];
        n[0] = 0x80;
        n
    };
    let even = {
        let mut n = long(256);
        n[255] = 0xfe;
        n
    };
    let n = other.jwk("odd")["n"].as_str().unwrap().to_owned();
    let x = p256.jwk("odd")["x"].as_str().unwrap().to_owned();
    let padded = format!("{}==", n.trim_end_matches('='));
    let mut order_8 = [0_u8; 32];
    order_8[0] = 1;
    vec![
        ("RSA 1024", rsa(&long(128), &[1, 0, 1]), other, UNUSABLE),
        (
            "RSA 2047",
            rsa(
                &{
                    let mut n = long(256);
                    n[0] = 0x7f;
                    n
                },
                &[1, 0, 1],
            ),
            other,
            UNUSABLE,
        ),
        ("RSA 16384", rsa(&long(2048), &[1, 0, 1]), other, UNUSABLE),
        ("even modulus", rsa(&even, &[1, 0, 1]), other, UNUSABLE),
        ("empty n", rsa(&[], &[1, 0, 1]), other, UNUSABLE),
        ("zero n", rsa(&[0; 256], &[1, 0, 1]), other, UNUSABLE),
        (
            "e = 0",
            with(other.jwk("odd"), json!({"e": "AA"})),
            other,
            UNUSABLE,
        ),
        (
            "e = 1",
            with(other.jwk("odd"), json!({"e": "AQ"})),
            other,
            UNUSABLE,
        ),
        (
            "e = 2",
            with(other.jwk("odd"), json!({"e": "Ag"})),
            other,
            UNUSABLE,
        ),
        (
            "e empty",
            with(other.jwk("odd"), json!({"e": ""})),
            other,
            UNUSABLE,
        ),
        (
            "e even",
            with(other.jwk("odd"), json!({"e": "AQAA"})),
            other,
            UNUSABLE,
        ),
        ("e of 64 bits", rsa(&long(256), &[0xff; 8]), other, UNUSABLE),
        (
            "e as long as n",
            rsa(&long(256), &long(256)),
            other,
            UNUSABLE,
        ),
        (
            "padded n",
            with(other.jwk("odd"), json!({ "n": padded })),
            other,
            UNUSABLE,
        ),
        (
            "n in the other alphabet",
            with(other.jwk("odd"), json!({"n": "+/+/"})),
            other,
            UNUSABLE,
        ),
        (
            "n a number",
            with(other.jwk("odd"), json!({"n": 65537})),
            other,
            UNUSABLE,
        ),
        ("no n", without(other.jwk("odd"), "n"), other, UNUSABLE),
        (
            "off the curve",
            with(p256.jwk("odd"), json!({"y": x})),
            p256,
            UNUSABLE,
        ),
        (
            "the point zero",
            with(
                p256.jwk("odd"),
                json!({"x": encoded(&[0; 32]), "y": encoded(&[0; 32])}),
            ),
            p256,
            UNUSABLE,
        ),
        (
            "x too short",
            with(p256.jwk("odd"), json!({"x": encoded(&[7; 31])})),
            p256,
            UNUSABLE,
        ),
        (
            "x too long",
            with(p256.jwk("odd"), json!({"x": encoded(&[0; 33])})),
            p256,
            UNUSABLE,
        ),
        (
            "P-256 called P-384",
            with(p256.jwk("odd"), json!({"crv": "P-384"})),
            p256,
            UNUSABLE,
        ),
        (
            "P-384 called P-256",
            with(p384.jwk("odd"), json!({"crv": "P-256"})),
            p384,
            UNUSABLE,
        ),
        (
            "secp256k1",
            with(
                p256.jwk("odd"),
                json!({"crv": "secp256k1", "alg": "ES256K"}),
            ),
            p256,
            UNUSABLE,
        ),
        (
            "P-521",
            with(
                p256.jwk("odd"),
                json!({"crv": "P-521", "x": encoded(&[1; 66]), "y": encoded(&[1; 66]), "alg": "ES512"}),
            ),
            p256,
            UNUSABLE,
        ),
        (
            "X25519",
            with(ed.jwk("odd"), json!({"crv": "X25519"})),
            ed,
            UNUSABLE,
        ),
        (
            "Ed448",
            with(
                ed.jwk("odd"),
                json!({"crv": "Ed448", "x": encoded(&[3; 57])}),
            ),
            ed,
            UNUSABLE,
        ),
        (
            "Ed25519 zero",
            with(ed.jwk("odd"), json!({"x": encoded(&[0; 32])})),
            ed,
            UNUSABLE,
        ),
        (
            "Ed25519 identity",
            with(ed.jwk("odd"), json!({"x": encoded(&order_8)})),
            ed,
            UNUSABLE,
        ),
        (
            "Ed25519 too short",
            with(ed.jwk("odd"), json!({"x": encoded(&[9; 31])})),
            ed,
            UNUSABLE,
        ),
        (
            "a shared secret",
            json!({"kty": "oct", "kid": "odd", "alg": "HS256", "k": encoded(&[1; 32])}),
            other,
            UNUSABLE,
        ),
        (
            "a private half",
            with(other.jwk("odd"), json!({"d": "AQAB"})),
            other,
            UNUSABLE,
        ),
        (
            "a private half of EC",
            with(p256.jwk("odd"), json!({"d": encoded(&[1; 32])})),
            p256,
            UNUSABLE,
        ),
        (
            "a private half that is null",
            with(other.jwk("odd"), json!({"d": null})),
            other,
            UNUSABLE,
        ),
        (
            "prime factors",
            with(other.jwk("odd"), json!({"p": "AQAB", "q": "AQAB"})),
            other,
            UNUSABLE,
        ),
        (
            "use enc",
            with(other.jwk("odd"), json!({"use": "enc"})),
            other,
            UNUSABLE,
        ),
        (
            "use of its own",
            with(other.jwk("odd"), json!({"use": "tls"})),
            other,
            UNUSABLE,
        ),
        (
            "use a list",
            with(other.jwk("odd"), json!({"use": ["sig"]})),
            other,
            UNUSABLE,
        ),
        (
            "key_ops encrypt",
            with(other.jwk("odd"), json!({"key_ops": ["encrypt"]})),
            other,
            UNUSABLE,
        ),
        (
            "key_ops empty",
            with(other.jwk("odd"), json!({"key_ops": []})),
            other,
            UNUSABLE,
        ),
        (
            "alg of another family",
            with(other.jwk("odd"), json!({"alg": "ES256"})),
            other,
            UNUSABLE,
        ),
        (
            "alg of the same family",
            with(other.jwk("odd"), json!({"alg": "PS256"})),
            other,
            UNUSABLE,
        ),
        (
            "alg that the issuer may not use",
            with(other.jwk("odd"), json!({"alg": "RS512"})),
            other,
            UNUSABLE,
        ),
        (
            "alg HS256",
            with(other.jwk("odd"), json!({"alg": "HS256"})),
            other,
            UNUSABLE,
        ),
        (
            "alg none",
            with(other.jwk("odd"), json!({"alg": "none"})),
            other,
            UNUSABLE,
        ),
        (
            "alg unknown",
            with(other.jwk("odd"), json!({"alg": "RS256x"})),
            other,
            UNUSABLE,
        ),
        (
            "alg a number",
            with(other.jwk("odd"), json!({"alg": 256})),
            other,
            UNUSABLE,
        ),
        ("no kty", without(other.jwk("odd"), "kty"), other, UNUSABLE),
        (
            "kty unknown",
            with(other.jwk("odd"), json!({"kty": "rsa"})),
            other,
            UNUSABLE,
        ),
        (
            "ML-DSA",
            json!({"kty": "AKP", "kid": "odd", "alg": "ML-DSA-44", "pub": encoded(&[5; 1312])}),
            other,
            UNUSABLE,
        ),
        ("nothing but a kid", json!({"kid": "odd"}), other, UNUSABLE),
        (
            "nested garbage",
            json!({"kid": "odd", "kty": {"RSA": [[[{"n": null}]]]}, "n": {"n": []}}),
            other,
            UNUSABLE,
        ),
        (
            "kid a number",
            with(other.jwk("odd"), json!({"kid": 1})),
            other,
            UNKNOWN,
        ),
        (
            "kid null",
            with(other.jwk("odd"), json!({"kid": null})),
            other,
            UNKNOWN,
        ),
        (
            "kid a list",
            with(other.jwk("odd"), json!({"kid": ["odd"]})),
            other,
            UNKNOWN,
        ),
        (
            "kid of another case",
            with(other.jwk("odd"), json!({"kid": "ODD"})),
            other,
            UNKNOWN,
        ),
        (
            "kid too long",
            with(other.jwk("odd"), json!({"kid": "odd".repeat(100)})),
            other,
            UNKNOWN,
        ),
        ("no kid", without(other.jwk("odd"), "kid"), other, UNKNOWN),
        ("null", Value::Null, other, UNKNOWN),
        ("a text", json!("odd"), other, UNKNOWN),
        ("a number", json!(7), other, UNKNOWN),
        ("a list", json!([other.jwk("odd")]), other, UNKNOWN),
        ("an empty object", json!({}), other, UNKNOWN),
    ]
}

#[tokio::test]
async fn an_odd_key_is_refused_and_its_neighbour_goes_on() {
    let cases = odd_keys();
    let mut issuers = Vec::new();
    for (index, (_, odd, ..)) in cases.iter().enumerate() {
        let good = Key::rsa().jwk("ins_1");
        // The odd one stands before the good one and behind it in turn.
        let keys = match index % 2 {
            0 => vec![odd.clone(), good],
            _ => vec![good, odd.clone()],
        };
        issuers.push(Issuer::with_keys(keys).await);
    }
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    for ((what, _, key, code), issuer) in cases.iter().zip(&issuers) {
        let good = service.session(&issuer.token()).await;
        assert_eq!(good.status, 200, "beside {what}: {}", good.body);
        let odd = service.session(&token(issuer, "odd", key)).await;
        assert_eq!(odd.body["code"], *code, "{what}: {}", odd.body);
        odd.assert_refused(401, code);
        let good = service.session(&issuer.token()).await;
        assert_eq!(good.status, 200, "after {what}: {}", good.body);
    }
}

#[tokio::test]
async fn every_kind_of_key_that_the_issuer_may_sign_with_serves() {
    let keys = [
        ("rsa", Key::rsa()),
        ("p256", Key::p256()),
        ("p384", Key::p384()),
        ("ed", Key::ed25519()),
    ];
    let jwks = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    let bare = keys
        .iter()
        .map(|(kid, key)| without(without(key.jwk(kid), "alg"), "use"))
        .collect();
    let verifying = keys
        .iter()
        .map(|(kid, key)| {
            with(
                without(key.jwk(kid), "use"),
                json!({"key_ops": ["verify", "sign", "own"], "x": key.jwk(kid)["x"], "other": {"a": [1]}}),
            )
        })
        .collect();
    let mut issuers = Vec::new();
    for keys in [jwks, bare, verifying] {
        issuers.push(Issuer::with_keys(keys).await);
    }
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    for issuer in &issuers {
        for (kid, key) in &keys {
            let answer = service.session(&token(issuer, kid, key)).await;
            assert_eq!(answer.status, 200, "{kid}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn of_two_keys_of_one_kid_the_usable_one_counts() {
    let good = Key::rsa().jwk("ins_1");
    let weak = rsa(&[0xff; 128], &[1, 0, 1]);
    let weak = with(weak, json!({"kid": "ins_1"}));
    let other = Key::other_rsa().jwk("ins_1");
    let issuers = [
        Issuer::with_keys(vec![good.clone(), weak.clone()]).await,
        Issuer::with_keys(vec![weak, good.clone()]).await,
        Issuer::with_keys(vec![good, other]).await,
    ];
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    for issuer in &issuers {
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    let second = token(&issuers[2], "ins_1", Key::other_rsa());
    let answer = service.session(&second).await;
    answer.assert_refused(401, "subject_token_signature_invalid");
}

#[tokio::test]
async fn a_key_serves_its_own_issuer_alone() {
    let issuers = [
        Issuer::with_keys(vec![Key::rsa().jwk("ins_1")]).await,
        Issuer::with_keys(vec![Key::other_rsa().jwk("ins_1")]).await,
        Issuer::with_keys(vec![Key::other_rsa().jwk("ins_2")]).await,
    ];
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    let crossed = token(&issuers[1], "ins_1", Key::rsa());
    let answer = service.session(&crossed).await;
    answer.assert_refused(401, "subject_token_signature_invalid");
    let crossed = token(&issuers[2], "ins_1", Key::rsa());
    service.session(&crossed).await.assert_refused(401, UNKNOWN);
    let own = token(&issuers[1], "ins_1", Key::other_rsa());
    assert_eq!(service.session(&own).await.status, 200);
}

#[tokio::test]
async fn of_a_stuffed_set_a_hundred_keys_are_looked_at() {
    let stuffed = |good_at: usize| {
        (0..500)
            .map(|index| match index {
                index if index == good_at => Key::rsa().jwk("ins_1"),
                index => Key::p256().jwk(&format!("filler_{index}")),
            })
            .collect()
    };
    let issuers = [
        Issuer::with_keys(stuffed(99)).await,
        Issuer::with_keys(stuffed(100)).await,
    ];
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    assert_eq!(service.session(&issuers[0].token()).await.status, 200);
    let answer = service.session(&issuers[1].token()).await;
    answer.assert_refused(401, UNKNOWN);
}

/// An answer with these headers and this body.
fn raw(status: &str, headers: &str, body: &[u8]) -> Behaviour {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(body);
    Behaviour::Raw(answer)
}

/// Each way in which an answer is no key set.
fn no_key_sets() -> Vec<(&'static str, Behaviour)> {
    let good = json!({ "keys": [Key::rsa().jwk("ins_1")] }).to_string();
    let ok = |body: &str| Behaviour::Answer(200, body.to_owned());
    let with_status = |status| Behaviour::Answer(status, good.clone());
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let padding = " ".repeat(600 * 1024);
    let large = good.replacen('[', &format!("[{padding}"), 1);
    let mut packed = Vec::from(b"\x1f\x8b\x08\0\0\0\0\0\0\xff");
    packed.write_all(good.as_bytes()).unwrap();
    vec![
        ("HTML", ok("<!doctype html><title>Sign in</title>")),
        ("nothing", ok("")),
        ("white space", ok(" \r\n")),
        ("an empty object", ok("{}")),
        ("keys an object", ok(r#"{"keys":{}}"#)),
        ("keys null", ok(r#"{"keys":null}"#)),
        ("keys a text", ok(r#"{"keys":"[]"}"#)),
        ("Keys", ok(&good.replacen("keys", "Keys", 1))),
        ("an empty list", ok("[]")),
        (
            "a list of keys",
            ok(&json!([Key::rsa().jwk("ins_1")]).to_string()),
        ),
        (
            "a list of lists",
            ok(&json!([[Key::rsa().jwk("ins_1")]]).to_string()),
        ),
        ("a key", ok(&Key::rsa().jwk("ins_1").to_string())),
        ("null", ok("null")),
        ("a text", ok(&json!(good).to_string())),
        ("cut off", ok(&good[..good.len() - 1])),
        ("with more behind", ok(&format!("{good}{good}"))),
        ("with a byte order mark", ok(&format!("\u{feff}{good}"))),
        ("not UTF-8", raw("200 OK", "", b"{\"keys\":[\"\xff\xfe\"]}")),
        ("deep", ok(&deep)),
        ("no keys", ok(r#"{"keys":[]}"#)),
        (
            "no key with a kid",
            ok(r#"{"keys":[null,{},"ins_1",{"kid":7}]}"#),
        ),
        ("600 KiB", ok(&large)),
        ("100 MB", Behaviour::Flood(100_000_000)),
        ("500", with_status(500)),
        ("503", with_status(503)),
        ("429", with_status(429)),
        ("404", with_status(404)),
        ("403", with_status(403)),
        ("401", with_status(401)),
        ("201", with_status(201)),
        ("203", with_status(203)),
        ("204", raw("204 No Content", "", b"")),
        ("206", with_status(206)),
        ("300", with_status(300)),
        ("302", with_status(302)),
        ("302 elsewhere", Behaviour::Redirect("/keys".into())),
        ("304", with_status(304)),
        ("gzip", raw("200 OK", "content-encoding: gzip\r\n", &packed)),
        (
            "cut off by its length",
            raw("200 OK", "content-length: 9999\r\n", good.as_bytes()),
        ),
        (
            "chunks that end early",
            raw(
                "200 OK",
                "transfer-encoding: chunked\r\n",
                b"10\r\n{\"keys\":[",
            ),
        ),
        (
            "no HTTP",
            Behaviour::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ),
        (
            "a head without an end",
            raw("200 OK", &format!("x: {}\r\n", "y".repeat(600 * 1024)), b""),
        ),
        ("a closed connection", Behaviour::Close),
    ]
}

#[track_caller]
fn assert_unavailable(what: &str, answer: &Answer) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.body);
    answer.assert_refused(503, "issuer_keys_unavailable");
    let mut body = answer.body.clone();
    body["request_id"].take();
    body["seen"].take();
    assert_eq!(
        body,
        json!({
            "error": "temporarily_unavailable",
            "error_description": "The issuer's keys cannot be fetched at the moment.",
            "code": "issuer_keys_unavailable",
            "request_id": null,
            "retryable": true,
            "action": "retry",
            "source": "upstream-idp",
            "seen": null,
        }),
        "{what}"
    );
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{what}: {wait}");
}

#[tokio::test]
async fn what_is_no_key_set_is_a_503_to_whoever_comes_first() {
    let cases = no_key_sets();
    let issuers = Issuer::several(cases.len()).await;
    for ((_, behaviour), issuer) in cases.iter().zip(&issuers) {
        issuer.behave(JWKS, behaviour.clone());
    }
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    for ((what, _), issuer) in cases.iter().zip(&issuers) {
        let answer = service.session(&issuer.token()).await;
        assert_unavailable(what, &answer);
    }
    for issuer in &issuers {
        issuer.behave(JWKS, Behaviour::Well);
    }
    service.shift_clocks(0, 120);
    for ((what, _), issuer) in cases.iter().zip(&issuers) {
        let token = issuer.token();
        eventually(&format!("served again after {what}"), async || {
            service.session(&token).await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_no_key_set_never_replaces_one() {
    let cases = no_key_sets();
    let issuers = Issuer::several(cases.len()).await;
    let service = Service::builder()
        .config(&trusting_all(&issuers))
        .start()
        .await;
    for issuer in &issuers {
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    for ((_, behaviour), issuer) in cases.iter().zip(&issuers) {
        issuer.behave(JWKS, behaviour.clone());
    }
    service.shift_clocks(0, 300);
    for (index, ((what, _), issuer)) in cases.iter().zip(&issuers).enumerate() {
        let failures =
            format!("exchequer_jwks_fetch_total{{issuer=\"i{index}\",result=\"error\"}}");
        eventually(&format!("a refresh fails with {what}"), async || {
            service.metric(&failures).await.is_some()
        })
        .await;
        let answer = service.session(&issuer.token()).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        let unknown = token(issuer, "ins_9", Key::other_rsa());
        let answer = service.session(&unknown).await;
        assert!(
            matches!(answer.status, 401 | 503),
            "{what}: {}",
            answer.body
        );
        let answer = service.session(&issuer.token()).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
    }
}
