//! Forged subject tokens: what the issuer's own key did not sign, byte for byte and by its
//! rules, is never exchanged.

use crate::support::token::{assemble, encode};
use crate::support::{Issuer, Key, Service, Token, issuer};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::{StreamExt, stream};
use ring::hmac;
use serde_json::{Value, json};

const MALFORMED: &str = "subject_token_malformed";
const NOT_ALLOWED: &str = "subject_token_algorithm_not_allowed";
const UNUSABLE: &str = "subject_token_key_unusable";
const SIGNATURE: &str = "subject_token_signature_invalid";
const HEADER: &str = "subject_token_header_unsupported";
const UNKNOWN: &str = "subject_token_key_unknown";

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The token with another signature.
fn signed_by(token: &str, signature: &[u8]) -> String {
    let (message, _) = token.rsplit_once('.').unwrap();
    format!("{message}.{}", encode(signature))
}

fn signature(token: &str) -> Vec<u8> {
    decode(token.rsplit_once('.').unwrap().1)
}

/// A token with this header text, signed by the issuer's own key.
fn with_header(issuer: &Issuer, header: &str) -> String {
    let claims = Token::clerk(&issuer.url).claims.to_string();
    assemble(header, &claims, |message| Key::rsa().sign(message))
}

/// The sum of two big-endian numbers; one byte longer where it overflows.
fn sum(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut bytes: Vec<u8> = left
        .iter()
        .zip(right)
        .rev()
        .map(|(left, right)| {
            let value = u16::from(*left) + u16::from(*right) + carry;
            carry = value >> 8;
            value.to_le_bytes()[0]
        })
        .collect();
    if carry > 0 {
        bytes.push(1);
    }
    bytes.reverse();
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A service that trusts the issuer for these algorithms.
async fn allowing(issuer: &Issuer, algorithms: &[&str]) -> Service {
    Service::builder()
        .one_app(issuer, &format!("algorithms = {algorithms:?}"), "")
        .start()
        .await
}

#[tokio::test]
async fn an_algorithm_that_is_not_on_the_issuers_list_is_refused_in_every_spelling() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = Token::clerk(&issuer.url);
    for alg in [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!("nOnE"),
        json!("none "),
        json!(" none"),
        json!("none\0"),
        json!(""),
        json!("rs256"),
        json!("Rs256"),
        json!("RS256 "),
        json!("RS256\0"),
        json!("RS256\u{200b}"),
        json!("\u{ff32}S256"),
        json!("RS256,none"),
        json!("RS1"),
        json!("ES256K"),
        json!("HS256"),
        json!("RSA-OAEP"),
        json!("dir"),
        json!(null),
        json!(0),
        json!(true),
        json!([]),
        json!(["RS256"]),
        json!({}),
        json!({"RS256": 1}),
    ] {
        let named = token.clone().header("alg", alg.clone()).sign(Key::rsa());
        service.refuses(&alg, &named, NOT_ALLOWED).await;
        service
            .refuses(&alg, &signed_by(&named, b""), NOT_ALLOWED)
            .await;
    }
    let absent = token.clone().without_header("alg").sign(Key::rsa());
    service.refuses("absent", &absent, NOT_ALLOWED).await;
    let escaped = with_header(&issuer, r#"{"alg":"n\u006fne","kid":"ins_1"}"#);
    service.refuses("escaped none", &escaped, NOT_ALLOWED).await;
    let unsigned = signed_by(&token.sign(Key::rsa()), b"");
    service.refuses("no signature", &unsigned, SIGNATURE).await;
    // The right name, escaped, is still the right name.
    let escaped = with_header(&issuer, r#"{"\u0061lg":"RS\u0032\u00356","kid":"ins_1"}"#);
    assert_eq!(service.session(&escaped).await.status, 200);
}

#[tokio::test]
async fn the_issuers_public_key_is_never_an_hmac_secret() {
    let issuer = Issuer::start().await;
    let pem = Key::rsa().public_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = STANDARD.decode(body).unwrap();
    let jwk = Key::rsa().jwk("ins_1");
    let modulus = decode(jwk["n"].as_str().unwrap());
    let mut bare = jwk.clone();
    bare.as_object_mut().unwrap().remove("alg");
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("PEM", pem.clone().into_bytes()),
        ("PEM without its last newline", pem.trim_end().into()),
        ("PEM with CRLF", pem.replace('\n', "\r\n").into()),
        ("SPKI DER", spki.clone()),
        // The SubjectPublicKeyInfo of a 2048-bit key has 24 bytes before the PKCS#1 one.
        ("PKCS#1 DER", spki[24..].to_vec()),
        ("JWK", jwk.to_string().into()),
        ("JWK without alg", bare.to_string().into()),
        ("JWKS", json!({ "keys": [jwk] }).to_string().into()),
        ("modulus", modulus.clone()),
        ("modulus as text", encode(&modulus).into()),
        ("exponent", vec![1, 0, 1]),
        ("kid", b"ins_1".to_vec()),
        ("empty", Vec::new()),
        ("a zero", vec![0]),
    ];
    let by_network = Service::trusting(&issuer).await;
    let by_key = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_JWT_KEY", &pem)
        .start()
        .await;
    // The trap of PyJWT, Hono and libjwt: a JWK that does not say what it is for.
    let unsaid = Issuer::with_keys(vec![bare]).await;
    let by_bare_key = Service::trusting(&unsaid).await;
    for (service, url) in [
        (&by_network, &issuer.url),
        (&by_key, &issuer.url),
        (&by_bare_key, &unsaid.url),
    ] {
        for (what, secret) in &secrets {
            for (alg, algorithm) in [
                ("HS256", hmac::HMAC_SHA256),
                ("HS384", hmac::HMAC_SHA384),
                ("HS512", hmac::HMAC_SHA512),
                // And where only the verifier's own idea of the key decides.
                ("RS256", hmac::HMAC_SHA256),
            ] {
                let token = Token::clerk(url).header("alg", alg);
                let forged = assemble(
                    &token.header.to_string(),
                    &token.claims.to_string(),
                    |message| {
                        let key = hmac::Key::new(algorithm, secret);
                        hmac::sign(&key, message).as_ref().to_vec()
                    },
                );
                let code = if alg == "RS256" {
                    SIGNATURE
                } else {
                    NOT_ALLOWED
                };
                service
                    .refuses(format!("{alg} {what}"), &forged, code)
                    .await;
            }
        }
        let good = Token::clerk(url).sign(Key::rsa());
        assert_eq!(service.session(&good).await.status, 200);
    }
}

#[tokio::test]
async fn another_algorithm_of_the_same_key_is_refused_though_it_is_signed_correctly() {
    let issuer = Issuer::start().await;
    let clerk = Service::trusting(&issuer).await;
    let both = allowing(&issuer, &["RS256", "PS256", "RS384"]).await;
    for alg in ["PS256", "RS384", "RS512"] {
        let token = Token::clerk(&issuer.url).header("alg", alg);
        let token = assemble(
            &token.header.to_string(),
            &token.claims.to_string(),
            |message| Key::rsa().sign_as(alg, message),
        );
        clerk.refuses(alg, &token, NOT_ALLOWED).await;
        // Allowed to the issuer, but the JWK says `"alg": "RS256"`.
        let code = if alg == "RS512" {
            NOT_ALLOWED
        } else {
            UNUSABLE
        };
        both.refuses(alg, &token, code).await;
    }
    assert_eq!(both.session(&issuer.token()).await.status, 200);

    // Where the JWK leaves it open, each algorithm that the issuer may sign with will do.
    let mut open = Key::rsa().jwk("ins_1");
    open.as_object_mut().unwrap().remove("alg");
    let issuer = Issuer::with_keys(vec![open]).await;
    let both = allowing(&issuer, &["RS256", "PS256"]).await;
    for (alg, signed, status) in [
        ("RS256", "RS256", 200),
        ("PS256", "PS256", 200),
        ("RS256", "PS256", 401),
        ("PS256", "RS256", 401),
        ("RS384", "RS384", 401),
    ] {
        let token = Token::clerk(&issuer.url).header("alg", alg);
        let token = assemble(
            &token.header.to_string(),
            &token.claims.to_string(),
            |message| Key::rsa().sign_as(signed, message),
        );
        let answer = both.session(&token).await;
        assert_eq!(answer.status, status, "{alg} {signed}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_key_serves_the_algorithm_of_its_type_and_no_other() {
    let keys = [Key::rsa(), Key::p256(), Key::p384(), Key::ed25519()];
    let published: Vec<Value> = keys.iter().map(|key| key.jwk(key.alg())).collect();
    let issuer = Issuer::with_keys(published.clone()).await;
    let service = allowing(&issuer, &["ES256", "EdDSA"]).await;
    let all = allowing(&issuer, &["RS256", "ES256", "ES384", "EdDSA"]).await;
    let open = published.into_iter().map(|mut jwk| {
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    });
    let bare = Issuer::with_keys(open.collect()).await;
    let unsaid = allowing(&bare, &["RS256", "ES256", "ES384", "EdDSA"]).await;
    for key in keys {
        for alg in ["RS256", "ES256", "ES384", "EdDSA"] {
            let token = |url: &str| {
                Token::clerk(url)
                    .header("alg", alg)
                    .header("kid", key.alg())
                    .sign(key)
            };
            let what = format!("{} key, header {alg}", key.alg());
            let fits = key.alg() == alg;
            for (service, url) in [(&all, &issuer.url), (&unsaid, &bare.url)] {
                let answer = service.session(&token(url)).await;
                if fits {
                    assert_eq!(answer.status, 200, "{what}: {}", answer.body);
                } else {
                    service.refuses(&what, &token(url), UNUSABLE).await;
                }
            }
            let token = token(&issuer.url);
            match (alg, fits) {
                ("RS256" | "ES384", _) => service.refuses(&what, &token, NOT_ALLOWED).await,
                (_, false) => service.refuses(&what, &token, UNUSABLE).await,
                (_, true) => assert_eq!(service.session(&token).await.status, 200, "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn special_values_and_other_encodings_of_an_ecdsa_signature_are_refused() {
    let issuer = Issuer::with_keys(vec![Key::p256().jwk("ins_1")]).await;
    let service = allowing(&issuer, &["ES256"]).await;
    let token = Token::clerk(&issuer.url)
        .header("alg", "ES256")
        .sign(Key::p256());
    assert_eq!(service.session(&token).await.status, 200);
    let order = hex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551");
    let field = hex("FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF");
    let mut one = vec![0; 32];
    one[31] = 1;
    let mut before = order.clone();
    before[31] -= 1;
    let after = sum(&order, &one);
    let values = [
        vec![0; 32],
        one,
        before,
        order,
        after,
        field,
        vec![0xff; 32],
    ];
    for (r, s) in values
        .iter()
        .flat_map(|r| values.iter().map(move |s| (r, s)))
    {
        let forged = signed_by(&token, &[&r[..], s].concat());
        service
            .refuses(format!("{r:?} {s:?}"), &forged, SIGNATURE)
            .await;
    }
    let good = signature(&token);
    let (r, s) = good.split_at(32);
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let mut body = number[zeros..].to_vec();
        if body[0] > 0x7f {
            body.insert(0, 0);
        }
        [vec![2, u8::try_from(body.len()).unwrap()], body].concat()
    };
    let sequence = [integer(r), integer(s)].concat();
    let length = u8::try_from(sequence.len()).unwrap();
    let padded = |number: &[u8], zeros: usize| [vec![0; zeros], number.to_vec()].concat();
    for (what, bytes) in [
        ("DER", [vec![0x30, length], sequence].concat()),
        ("r alone", r.to_vec()),
        ("cut off", good[..63].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("a byte before", padded(&good, 1)),
        ("48-byte halves", [padded(r, 16), padded(s, 16)].concat()),
        ("swapped", [s, r].concat()),
        ("twice", [&good[..], &good].concat()),
        ("with the key's point", [&[4], &good[..]].concat()),
    ] {
        service
            .refuses(what, &signed_by(&token, &bytes), SIGNATURE)
            .await;
    }
}

#[tokio::test]
async fn an_rsa_signature_has_the_length_of_its_modulus_and_one_value() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    let good = signature(&token);
    let modulus = decode(Key::rsa().jwk("")["n"].as_str().unwrap());
    let mut one = vec![0; 256];
    one[255] = 1;
    let mut last = modulus.clone();
    last[255] -= 1;
    let mut reversed = good.clone();
    reversed.reverse();
    for (what, bytes) in [
        ("empty", vec![]),
        ("one byte", vec![1]),
        ("cut off at its end", good[..255].to_vec()),
        ("cut off at its start", good[1..].to_vec()),
        ("half", good[..128].to_vec()),
        ("a zero after", [&good[..], &[0]].concat()),
        ("a zero before", [&[0], &good[..]].concat()),
        ("256 zeros before", [&vec![0; 256], &good[..]].concat()),
        ("twice", [&good[..], &good].concat()),
        ("s + n", sum(&good, &modulus)),
        ("reversed", reversed),
        ("zero", vec![0; 256]),
        ("one", one),
        ("n", modulus),
        ("n - 1", last),
        ("all bits", vec![0xff; 256]),
        ("as long as the limit lets it be", vec![0x5a; 11_000]),
    ] {
        service
            .refuses(what, &signed_by(&token, &bytes), SIGNATURE)
            .await;
    }
    // Another key's good signature, and a good one of another message.
    let other = Token::clerk(&issuer.url).sign(Key::other_rsa());
    service.refuses("another key", &other, SIGNATURE).await;
    let moved = Token::clerk(&issuer.url)
        .claim("sub", "user_2")
        .sign(Key::rsa());
    let moved = signed_by(&moved, &good);
    service.refuses("another message", &moved, SIGNATURE).await;
    assert_eq!(service.session(&token).await.status, 200);
}

#[tokio::test]
async fn an_eddsa_signature_has_one_form_and_small_order_keys_sign_nothing() {
    let identity = [vec![1], vec![0; 31]].concat();
    let small = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&identity), "kid": "small"});
    let issuer = Issuer::with_keys(vec![Key::ed25519().jwk("ins_1"), small]).await;
    let service = allowing(&issuer, &["EdDSA"]).await;
    let token = Token::clerk(&issuer.url)
        .header("alg", "EdDSA")
        .sign(Key::ed25519());
    assert_eq!(service.session(&token).await.status, 200);
    let good = signature(&token);
    let (r, s) = good.split_at(32);
    // S + L verifies too where the range of S is not checked (RFC 8032 §5.1.7).
    let mut order = hex("1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED");
    let mut big_endian = s.to_vec();
    big_endian.reverse();
    let mut malleable = sum(&big_endian, &order);
    assert_eq!(malleable.len(), 32);
    malleable.reverse();
    order.reverse();
    for (what, bytes) in [
        ("S + L", [r, &malleable].concat()),
        ("S = 0", [r, &[0; 32]].concat()),
        ("S = L", [r, &order].concat()),
        ("R = identity", [&identity, s].concat()),
        ("R = identity, S = 0", [&identity[..], &[0; 32]].concat()),
        ("zeros", vec![0; 64]),
        ("cut off", good[..63].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("swapped", [s, r].concat()),
        ("empty", vec![]),
    ] {
        service
            .refuses(what, &signed_by(&token, &bytes), SIGNATURE)
            .await;
    }
    // [0]B = R + h·A holds for any message where A and R are the identity.
    let forged = Token::clerk(&issuer.url)
        .header("alg", "EdDSA")
        .header("kid", "small")
        .sign(Key::ed25519());
    let forged = signed_by(&forged, &[&identity[..], &[0; 32]].concat());
    service.refuses("small order", &forged, UNUSABLE).await;
}

#[tokio::test]
async fn a_token_cannot_bring_its_own_key_or_change_the_rules() {
    let issuer = Issuer::start().await;
    let attacker = Issuer::with_keys(vec![Key::other_rsa().jwk("ins_1")]).await;
    let service = Service::trusting(&issuer).await;
    let key = Key::other_rsa().jwk("ins_1");
    let authority = attacker.url.trim_start_matches("http://");
    let port = authority.rsplit(':').next().unwrap();
    let mut headers = vec![
        ("jwk", key.clone()),
        ("jwk", json!(null)),
        ("x5c", json!(["MIIB"])),
        ("x5c", json!([])),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("crit", json!(["urn:example:unknown"])),
        ("crit", json!("b64")),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
    ];
    let url = format!("{}{}", attacker.url, issuer::JWKS);
    let shapes = [
        url.clone(),
        attacker.url.clone(),
        format!("http://clerk.example.com@{authority}/keys"),
        format!("http://localhost:{port}/keys"),
        format!("http://2130706433:{port}/keys"),
        format!("http://0x7f.1:{port}/keys"),
        format!("http://[::ffff:127.0.0.1]:{port}/keys"),
        format!("{url}\r\nX-Injected: 1"),
        format!("{}#{url}", issuer.url),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for shape in &shapes {
        headers.push(("jku", json!(shape)));
        headers.push(("x5u", json!(shape)));
    }
    for (name, value) in &headers {
        for signer in [Key::rsa(), Key::other_rsa()] {
            let token = Token::clerk(&issuer.url).header(name, value.clone());
            let what = format!("{name}: {value}");
            service.refuses(what, &token.sign(signer), HEADER).await;
        }
    }
    let both = Token::clerk(&issuer.url)
        .header("b64", false)
        .header("crit", json!(["b64"]));
    service
        .refuses("RFC 7797", &both.sign(Key::rsa()), HEADER)
        .await;
    // The same members among the claims, and an issuer that nobody configured.
    let claimed = Token::clerk(&issuer.url)
        .claim("jwk", key)
        .claim("jku", url)
        .sign(Key::other_rsa());
    service.refuses("as claims", &claimed, SIGNATURE).await;
    let foreign = Token::clerk(&attacker.url).sign(Key::other_rsa());
    let untrusted = "subject_token_issuer_untrusted";
    service.refuses("its own issuer", &foreign, untrusted).await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(attacker.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_kid_names_one_key_and_nothing_else() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let missing = "subject_token_key_id_missing";
    let cases = [
        (json!(""), UNKNOWN),
        (json!("ins_"), UNKNOWN),
        (json!("ins_11"), UNKNOWN),
        (json!("INS_1"), UNKNOWN),
        (json!(" ins_1"), UNKNOWN),
        (json!("ins_1 "), UNKNOWN),
        (json!("ins_1\0"), UNKNOWN),
        (json!("ins_1\0.pem"), UNKNOWN),
        (json!("ins_1\r\nx-injected: 1"), UNKNOWN),
        (json!("{\"message\":\"listening\"}"), UNKNOWN),
        (json!("../../../../dev/null"), UNKNOWN),
        (json!("file:///dev/null"), UNKNOWN),
        (json!("keys/ins_1"), UNKNOWN),
        (json!("x' UNION SELECT 'key';--"), UNKNOWN),
        (json!("*"), UNKNOWN),
        (json!("0"), UNKNOWN),
        (json!("(any)"), UNKNOWN),
        (json!("$(id)|id;`id`"), UNKNOWN),
        (json!("\u{202e}1_sni"), UNKNOWN),
        (json!("é".repeat(127)), UNKNOWN),
        (json!("k".repeat(255)), UNKNOWN),
        (json!("k".repeat(256)), MALFORMED),
        (json!("é".repeat(128)), MALFORMED),
        (json!("k".repeat(9000)), MALFORMED),
        (json!(1), MALFORMED),
        (json!(null), MALFORMED),
        (json!(true), MALFORMED),
        (json!(["ins_1"]), MALFORMED),
        (json!({"kid": "ins_1"}), MALFORMED),
    ];
    for (kid, code) in &cases {
        let token = Token::clerk(&issuer.url).header("kid", kid.clone());
        service.refuses(kid, &token.sign(Key::rsa()), code).await;
    }
    let absent = Token::clerk(&issuer.url).without_header("kid");
    service
        .refuses("absent", &absent.sign(Key::rsa()), missing)
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert!(issuer.asked(issuer::JWKS) <= 2, "one fetch for all of them");
    for line in service.log() {
        let line: Value = serde_json::from_str(&line).expect("every line of the log is JSON");
        assert!(line.is_object());
    }
}

#[tokio::test]
async fn json_that_two_readers_could_read_differently_is_refused() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    for header in [
        r#"{"alg":"none","alg":"RS256","kid":"ins_1"}"#,
        r#"{"alg":"RS256","alg":"RS256","kid":"ins_1"}"#,
        r#"{"alg":"RS256","\u0061lg":"none","kid":"ins_1"}"#,
        r#"{"alg":"RS256","kid":"x","k\u0069d":"ins_1"}"#,
        r#"{"alg":"RS256","kid":"ins_1","x":{"a":1,"a":1}}"#,
        r#"{"alg":"RS256","kid":"ins_1","x":[[{"a":1,"\u0061":2}]]}"#,
        r#"{"alg":"RS256","kid":"ins_1",}"#,
        r#"{"alg":"RS256","kid":"ins_1"}{}"#,
        r#"{"alg":"RS256","kid":"ins_1"} x"#,
        r#"{'alg':'RS256','kid':'ins_1'}"#,
        r#"{"alg":"RS256","kid":"ins_1"}//"#,
        r#"{"alg":"RS256","kid":"\ud800"}"#,
        r#"{"alg":"RS256","kid":"ins_1","x":NaN}"#,
        r#"{"alg":"RS256","kid":"ins_1","x":1e999}"#,
        "{\"alg\":\"RS256\",\"kid\":\"ins\n_1\"}",
        "\u{feff}{\"alg\":\"RS256\",\"kid\":\"ins_1\"}",
        r#"["RS256","ins_1"]"#,
        r#""RS256""#,
        "null",
        "",
    ] {
        let token = with_header(&issuer, header);
        service.refuses(header, &token, MALFORMED).await;
    }
    let good = Token::clerk(&issuer.url);
    let body = good.claims.to_string();
    let body = body.strip_suffix('}').unwrap();
    let deep = format!("{body},\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for claims in [
        format!("{body},\"sub\":\"user_2\"}}"),
        format!("{body},\"s\\u0075b\":\"user_2\"}}"),
        format!("{body},\"iss\":\"https://evil.example\"}}"),
        format!("{body},\"exp\":99999999999}}"),
        format!("{body},\"x\":{{\"a\":{{\"b\":1,\"b\":1}}}}}}"),
        format!("{body},\"x\":[{{\"a\":1,\"\\u0061\":1}}]}}"),
        format!("{body},\"x\":1e400}}"),
        format!("{body},\"x\":-Infinity}}"),
        format!("{body}}}]"),
        format!("[{body}}}]"),
        deep,
        "{}{}".to_owned(),
        String::new(),
    ] {
        let token = assemble(&good.header.to_string(), &claims, |message| {
            Key::rsa().sign(message)
        });
        service.refuses(&claims, &token, MALFORMED).await;
    }
    // UTF-8 only (RFC 8725 §3.7): Latin-1, and an overlong slash.
    for bytes in [
        &b"\xe9"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
    ] {
        let claims = [body.as_bytes(), b",\"x\":\"", bytes, b"\"}"].concat();
        let message = format!("{}.{}", encode(good.header.to_string()), encode(claims));
        let signature = Key::rsa().sign(message.as_bytes());
        let token = format!("{message}.{}", encode(signature));
        service
            .refuses(format!("{bytes:?}"), &token, MALFORMED)
            .await;
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

#[tokio::test]
async fn base64url_is_read_strictly() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let base = Token::clerk(&issuer.url);
    // Texts of each length modulo 3: with and without spare bits in the last letter.
    for filler in ["", "x", "xx"] {
        let token = base
            .clone()
            .header("x", filler)
            .claim("x", filler)
            .sign(Key::rsa());
        assert_eq!(service.session(&token).await.status, 200);
        let parts: Vec<&str> = token.split('.').collect();
        for (index, part) in parts.iter().enumerate() {
            let altered = |text: String| {
                let mut parts = parts.clone();
                parts[index] = &text;
                parts.join(".")
            };
            let (start, last) = part.split_at(part.len() - 1);
            let mut variants = vec![
                format!("{part}="),
                format!("{part}=="),
                format!("{part}\n"),
                format!("{part}\r\n"),
                format!(" {part}"),
                format!("{part}%3D"),
                format!("{start}\n{last}"),
                format!("{start} {last}"),
                format!("{start}*"),
                format!("{start}\0"),
                format!("{start}é"),
            ];
            let standard = part.replace('-', "+").replace('_', "/");
            if standard != *part {
                variants.push(standard);
            }
            // Every other last letter that decodes to the same bytes in a lenient reader.
            let spare = [0, 0, 4, 2][part.len() % 4];
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let value = alphabet
                .iter()
                .position(|letter| *letter == last.as_bytes()[0])
                .unwrap();
            for bits in 1..1 << spare {
                let letter = char::from(alphabet[value | bits]);
                variants.push(format!("{start}{letter}"));
            }
            for variant in variants {
                let token = altered(variant.clone());
                service.refuses(&variant, &token, MALFORMED).await;
            }
        }
    }
    let token = base.sign(Key::rsa());
    for altered in [
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("Bearer {token}"),
        format!("\"{token}\""),
        token.replace('.', " . "),
    ] {
        service.refuses(&altered, &altered, MALFORMED).await;
    }
}

#[tokio::test]
async fn only_a_compact_jws_of_three_parts_is_a_subject_token() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    let parts: Vec<&str> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let opaque = "subject_token_opaque";
    for text in [
        "oat_2xk9d8f7",
        "ak_live_1",
        "mt_1",
        "sess_2abc",
        "user_2abc",
        "x",
        "null",
        "undefined",
        "[object Object]",
        header,
        signature,
        "é",
        "\0",
    ] {
        service.refuses(text, text, opaque).await;
    }
    let general = json!({
        "payload": claims,
        "signatures": [{"protected": header, "signature": signature}],
    });
    let flattened = json!({"payload": claims, "protected": header, "signature": signature});
    for serialized in [general, flattened] {
        service
            .refuses(&serialized, &serialized.to_string(), opaque)
            .await;
        let answer = service
            .exchange(&json!({ "session_token": serialized }))
            .await;
        answer.assert_refused(400, "body_malformed");
    }
    for text in [
        format!("{header}.{claims}"),
        format!("{header}."),
        format!(".{claims}"),
        ".".to_owned(),
        "..".to_owned(),
        format!("..{signature}"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}.{signature}.{signature}.{signature}"),
        ".".repeat(5),
        ".".repeat(16 * 1024),
    ] {
        service.refuses(&text, &text, MALFORMED).await;
    }
    let encrypted = "subject_token_encrypted";
    for text in [
        format!("{header}.{claims}.{signature}.{claims}.{signature}"),
        format!("{token}.."),
        "....".to_owned(),
    ] {
        service.refuses(&text, &text, encrypted).await;
    }
    // A JWS whose payload is the token itself (RFC 7519 §5.2).
    let nested = assemble(
        r#"{"alg":"RS256","kid":"ins_1","cty":"JWT"}"#,
        &token,
        |message| Key::rsa().sign(message),
    );
    service.refuses("nested", &nested, MALFORMED).await;
    assert_eq!(service.session(&token).await.status, 200);
}

/// A good token of exactly this many bytes.
fn of_length(issuer: &Issuer, length: usize) -> String {
    let token = Token::clerk(&issuer.url);
    // Base64url never has 4 n + 1 letters, so that the header may have to give way.
    (0..4)
        .flat_map(|header| (0..4).map(move |claims| (header, claims)))
        .find_map(|(header, claims)| {
            let padded = |claims: usize| {
                token
                    .clone()
                    .header("x", "x".repeat(header))
                    .claim("x", "x".repeat(claims))
                    .sign(Key::rsa())
            };
            let missing = length - padded(claims).len();
            let filled = padded(claims + missing / 4 * 3);
            (filled.len() == length).then_some(filled)
        })
        .unwrap()
}

#[tokio::test]
async fn a_token_of_16_kib_is_read_and_a_byte_more_is_not() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let largest = of_length(&issuer, 16 * 1024);
    assert_eq!(service.session(&largest).await.status, 200);
    let bearer = |token: &str| {
        let url = format!("{}/auth/exchange", service.url);
        service.client.post(url).bearer_auth(token)
    };
    assert_eq!(service.send(bearer(&largest)).await.status, 200);
    let too_large = of_length(&issuer, 16 * 1024 + 1);
    for answer in [
        service.session(&too_large).await,
        service.send(bearer(&too_large)).await,
        service.session(&"x".repeat(16 * 1024 + 1)).await,
        service.session(&".".repeat(60 * 1024)).await,
    ] {
        answer.assert_refused(400, "subject_token_too_large");
        assert!(answer.body.get("seen").is_none());
    }
}

/// Sends many tokens at once over few connections; none may pass, and none may fail
/// otherwise than by its own fault.
async fn assert_all_refused(service: &Service, tokens: Vec<String>) {
    let count = tokens.len();
    let answers = stream::iter(tokens)
        .map(|token| async move {
            let answer = service.session(&token).await;
            (token, answer)
        })
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    assert_eq!(answers.len(), count);
    for (token, answer) in answers {
        let code = answer.body["code"].as_str().unwrap_or_default();
        assert_eq!(answer.status, 401, "{token}: {}", answer.body);
        assert!(code.starts_with("subject_token_"), "{token}: {code}");
    }
}

#[tokio::test]
async fn a_token_with_any_bit_flipped_is_refused() {
    let issuer = Issuer::with_keys(vec![
        Key::rsa().jwk("ins_1"),
        Key::p256().jwk("es"),
        Key::ed25519().jwk("ed"),
    ])
    .await;
    let service = allowing(&issuer, &["RS256", "ES256", "EdDSA"]).await;
    for (key, kid) in [
        (Key::rsa(), "ins_1"),
        (Key::p256(), "es"),
        (Key::ed25519(), "ed"),
    ] {
        let token = Token::clerk(&issuer.url)
            .header("alg", key.alg())
            .header("kid", kid)
            .sign(key);
        assert_eq!(service.session(&token).await.status, 200);
        let parts: Vec<Vec<u8>> = token.split('.').map(decode).collect();
        let mut flipped = Vec::new();
        // The RSA token has its every bit flipped; of the others, the signature's are new.
        let first = if kid == "ins_1" { 0 } else { 2 };
        for part in first..3 {
            for bit in 0..parts[part].len() * 8 {
                let mut parts = parts.clone();
                parts[part][bit / 8] ^= 1 << (bit % 8);
                let texts: Vec<String> = parts.iter().map(encode).collect();
                flipped.push(texts.join("."));
            }
        }
        assert_all_refused(&service, flipped).await;
        assert_eq!(service.session(&token).await.status, 200);
    }
}

#[tokio::test]
async fn a_token_with_any_letter_changed_cut_or_doubled_is_refused() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    let mut altered = Vec::new();
    for at in 0..token.len() {
        let (before, after) = token.split_at(at);
        let (letter, rest) = after.split_at(1);
        // A letter whose spare bits differ would be the same token to a lenient reader.
        let next = char::from(letter.as_bytes()[0] ^ 1);
        altered.push(format!("{before}{next}{rest}"));
        altered.push(format!("{before}{rest}"));
        altered.push(format!("{before}{letter}{after}"));
        if at > 0 {
            altered.push(before.to_owned());
        }
    }
    assert_all_refused(&service, altered).await;
    assert_eq!(service.session(&token).await.status, 200);
}
