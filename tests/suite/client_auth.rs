//! How a client proves that it is itself: each method, and each way in which it can go wrong.
//! What a stranger gets wrong is one answer; what a client can see for itself is told.

use crate::support::issuer::JWKS;
use crate::support::token::{assemble, encode};
use crate::support::{Answer, Behaviour, Command, Issuer, Key, Service, eventually, now};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde_json::{Value, json};
use url::form_urlencoded;

const SECRET: &str = "yTq1Yk0s3mZlCwq8h5N2vR7bXe9uJd4fGa6iOp0LtSxHcVnMzKjQwErTyUiBgFd2";
const OTHER: &str = "Another0s3mZlCwq8h5N2vR7bXe9uJd4fGa6iOp0LtSxHcVnMzKjQwErTyUiBgFd2";
const ISSUER: &str = "http://localhost:8080";
const ENDPOINT: &str = "http://localhost:8080/oauth/token";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Parameters of a form.
pub type Pairs<'p> = Vec<(&'p str, String)>;

/// A service, and who its clients are.
pub struct World {
    /// The service.
    pub service: Service,
    /// Who publishes the keys of the client `fetched`.
    partner: Issuer,
    _issuer: Issuer,
}

/// One client for each method, all of which may call the backend `a`.
async fn world() -> World {
    world_with(&[]).await
}

/// The same with these variables.
pub async fn world_with(variables: &[(&str, &str)]) -> World {
    let issuer = Issuer::start().await;
    let partner = Issuer::with_keys(vec![Key::p256().jwk("p1")]).await;
    let hash: String = hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = "secret = { env = \"S\" }\naudience = \"a\"";
    let set = json!({"keys": [Key::ed25519().jwk("e1")]});
    let url = format!("{}{JWKS}", partner.url);
    let clients = format!(
        "[clients.either]\n{secret}\n\
         [clients.basic]\nauth_method = \"client_secret_basic\"\n{secret}\n\
         [clients.post]\nauth_method = \"client_secret_post\"\n{secret}\n\
         [clients.hashed]\nsecret_sha256 = \"{hash}\"\naudience = \"a\"\n\
         [clients.mac]\nauth_method = \"client_secret_jwt\"\n{secret}\n\
         [clients.mac512]\nauth_method = \"client_secret_jwt\"\nauth_alg = \"HS512\"\n{secret}\n\
         [clients.inside]\nauth_method = \"client_secret_as_jwt\"\n{secret}\n\
         [clients.pem]\npublic_key = {{ env = \"PEM\" }}\naudience = \"a\"\n\
         [clients.ps]\nauth_alg = \"PS256\"\npublic_key = {{ env = \"PEM\" }}\naudience = \"a\"\n\
         [clients.set]\njwks = '{set}'\naudience = \"a\"\n\
         [clients.fetched]\njwks_uri = \"{url}\"\naudience = \"a\"\n\
         [clients.public]\nauth_method = \"none\"\napps = [\"web\"]\n"
    );
    let mut builder = Service::builder()
        .one_app(&issuer, "", &clients)
        .env("S", SECRET)
        .env("PEM", Key::rsa().public_pem());
    for (name, value) in variables {
        builder = builder.env(name, *value);
    }
    World {
        service: builder.start().await,
        partner,
        _issuer: issuer,
    }
}

fn hash() -> Vec<u8> {
    digest::digest(&digest::SHA256, SECRET.as_bytes())
        .as_ref()
        .to_vec()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Asks for a service token.
pub async fn ask(service: &Service, header: Option<&str>, pairs: &Pairs<'_>) -> Answer {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    form.extend_pairs(pairs);
    let mut request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish());
    if let Some(value) = header {
        request = request.header("authorization", value);
    }
    service.send(request).await
}

fn post(id: &str, secret: &str) -> Pairs<'static> {
    vec![
        ("client_id", id.to_owned()),
        ("client_secret", secret.to_owned()),
    ]
}

/// What a client sends that proves itself by an assertion.
pub fn asserted(assertion: &str) -> Pairs<'static> {
    vec![
        ("client_assertion_type", TYPE.to_owned()),
        ("client_assertion", assertion.to_owned()),
    ]
}

/// The claims of a good assertion, with a new `jti`.
pub fn claims(id: &str) -> Value {
    let jti = encode(rand::random::<[u8; 12]>());
    json!({"iss": id, "sub": id, "aud": ISSUER, "jti": jti, "iat": now(), "exp": now() + 60})
}

fn with(id: &str, name: &str, value: Value) -> Value {
    let mut claims = claims(id);
    claims[name] = value;
    claims
}

fn without(id: &str, name: &str) -> Value {
    let mut claims = claims(id);
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn mac(alg: &str, key: &[u8], claims: &Value) -> String {
    let algorithm = match alg {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let key = hmac::Key::new(algorithm, key);
    let header = json!({"alg": alg, "typ": "JWT"}).to_string();
    assemble(&header, &claims.to_string(), |message| {
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

/// An assertion of the client `mac`, whose MAC is made with its secret.
pub fn hs256(claims: &Value) -> String {
    mac("HS256", SECRET.as_bytes(), claims)
}

fn signed(key: &Key, alg: &str, kid: Option<&str>, claims: &Value) -> String {
    let mut header = json!({"alg": alg});
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    assemble(&header.to_string(), &claims.to_string(), |message| {
        key.sign_as(alg, message)
    })
}

/// The last cause that the log has for a refused request.
async fn cause(service: &Service, request_id: &Value) -> String {
    let mut cause = String::new();
    eventually("the refusal is logged", async || {
        let lines = service.logged("refused");
        let line = lines.iter().find(|line| line["request_id"] == *request_id);
        cause = line.map_or_else(String::new, |line| {
            line["cause"].as_str().unwrap_or_default().to_owned()
        });
        line.is_some()
    })
    .await;
    cause
}

/// The answer without the request's own id.
fn bare(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    body["request_id"].take();
    body
}

#[tokio::test]
async fn each_method_proves_its_client() {
    let world = world().await;
    let service = &world.service;
    let tokens = |id: &str| claims(id);
    let listed = |id: &str| with(id, "aud", json!([ISSUER, ENDPOINT]));
    let now = now();
    for (header, pairs) in [
        (Some(basic("either", SECRET)), vec![]),
        (None, post("either", SECRET)),
        (Some(basic("basic", SECRET)), vec![]),
        (None, post("post", SECRET)),
        (Some(basic("hashed", SECRET)), vec![]),
        (None, post("hashed", SECRET)),
        (None, asserted(&hs256(&tokens("mac")))),
        (None, asserted(&hs256(&with("mac", "aud", json!(ENDPOINT))))),
        (None, asserted(&hs256(&listed("mac")))),
        // A client whose clock is ahead a little, and one whose `iat` is left out.
        (None, asserted(&hs256(&with("mac", "iat", json!(now + 5))))),
        (None, asserted(&hs256(&without("mac", "iat")))),
        (
            None,
            asserted(&hs256(&with("mac", "exp", json!(now + 3600)))),
        ),
        (
            None,
            [
                asserted(&hs256(&tokens("mac"))),
                vec![("client_id", "mac".to_owned())],
            ]
            .concat(),
        ),
        (
            None,
            asserted(&mac("HS512", SECRET.as_bytes(), &tokens("mac512"))),
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "RS256", None, &tokens("pem"))),
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "RS256", Some("any"), &tokens("pem"))),
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "PS256", None, &tokens("ps"))),
        ),
        (
            None,
            asserted(&signed(Key::ed25519(), "EdDSA", Some("e1"), &tokens("set"))),
        ),
        (
            None,
            asserted(&signed(
                Key::p256(),
                "ES256",
                Some("p1"),
                &tokens("fetched"),
            )),
        ),
        (
            None,
            post(
                "inside",
                &hs256(&json!({"client_id": "inside", "exp": now + 60})),
            ),
        ),
        (
            Some(basic(
                "inside",
                &hs256(&json!({"client_id": "inside", "exp": now + 60})),
            )),
            vec![],
        ),
    ] {
        let answer = ask(service, header.as_deref(), &pairs).await;
        assert_eq!(answer.status, 200, "{header:?} {pairs:?} {}", answer.body);
        assert_eq!(answer.body["token_type"], "Bearer");
    }
    let metadata = service.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(
        metadata.body["token_endpoint_auth_methods_supported"],
        json!([
            "client_secret_basic",
            "client_secret_jwt",
            "client_secret_post",
            "none",
            "private_key_jwt"
        ])
    );
    assert_eq!(
        metadata.body["token_endpoint_auth_signing_alg_values_supported"],
        json!(["ES256", "EdDSA", "HS256", "HS512", "PS256", "RS256"])
    );
}

#[tokio::test]
async fn what_a_stranger_gets_wrong_is_one_answer_and_the_log_says_what() {
    let world = world().await;
    let service = &world.service;
    let pem = Key::rsa().public_pem();
    let inside = json!({"client_id": "inside", "exp": now() + 60});
    let none = |claims: &Value| assemble(r#"{"alg":"none"}"#, &claims.to_string(), |_| Vec::new());
    let mut told = Vec::new();
    for (header, pairs, log) in [
        (Some(basic("nobody", SECRET)), vec![], "client_unknown"),
        (None, post("nobody", SECRET), "client_unknown"),
        (None, asserted(&hs256(&claims("nobody"))), "client_unknown"),
        (
            None,
            asserted(&signed(Key::rsa(), "RS256", None, &claims("nobody"))),
            "client_unknown",
        ),
        (
            None,
            post(
                "nobody",
                &hs256(&json!({"client_id": "nobody", "exp": now() + 60})),
            ),
            "client_unknown",
        ),
        // An app is no client, and has nothing to prove itself with.
        (Some(basic("web", SECRET)), vec![], "client_unknown"),
        (Some(basic("either", OTHER)), vec![], "client_secret_wrong"),
        (None, post("hashed", OTHER), "client_secret_wrong"),
        // The hash is no secret.
        (None, post("hashed", &encode(hash())), "client_secret_wrong"),
        // By another method than its own.
        (
            Some(basic("post", SECRET)),
            vec![],
            "client_auth_method_mismatch",
        ),
        (None, post("basic", SECRET), "client_auth_method_mismatch"),
        (None, post("mac", SECRET), "client_auth_method_mismatch"),
        (
            None,
            post("pem", &pem.replace('\n', "")),
            "client_auth_method_mismatch",
        ),
        (None, post("public", SECRET), "client_auth_method_mismatch"),
        (
            None,
            asserted(&hs256(&claims("either"))),
            "client_auth_method_mismatch",
        ),
        (
            None,
            asserted(&hs256(&claims("inside"))),
            "client_auth_method_mismatch",
        ),
        (
            None,
            asserted(&hs256(&claims("public"))),
            "client_auth_method_mismatch",
        ),
        // The algorithm is the client's, not the assertion's.
        (
            None,
            asserted(&mac("HS256", pem.as_bytes(), &claims("pem"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&none(&claims("pem"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&none(&claims("mac"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&mac("HS512", SECRET.as_bytes(), &claims("mac"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&hs256(&claims("mac512"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "RS256", None, &claims("ps"))),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "PS256", None, &claims("pem"))),
            "client_assertion_algorithm_mismatch",
        ),
        // Another key, or none.
        (
            None,
            asserted(&signed(Key::other_rsa(), "RS256", None, &claims("pem"))),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            asserted(&mac("HS256", OTHER.as_bytes(), &claims("mac"))),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            asserted(&mac("HS256", b"", &claims("mac"))),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            asserted(&signed(Key::ed25519(), "EdDSA", None, &claims("set"))),
            "client_assertion_key_unknown",
        ),
        (
            None,
            asserted(&signed(Key::ed25519(), "EdDSA", Some("e2"), &claims("set"))),
            "client_assertion_key_unknown",
        ),
        (
            None,
            asserted(&signed(Key::rsa(), "RS256", Some("e1"), &claims("set"))),
            "client_assertion_key_unknown",
        ),
        (
            None,
            asserted(&signed(
                Key::p256(),
                "ES256",
                Some("p2"),
                &claims("fetched"),
            )),
            "client_assertion_key_unknown",
        ),
        // In the place of a secret.
        (
            None,
            post("inside", SECRET),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            post("inside", "a.b.c"),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            post("inside", &mac("HS256", OTHER.as_bytes(), &inside)),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            post("inside", &none(&inside)),
            "client_assertion_algorithm_mismatch",
        ),
        (
            None,
            post(
                "inside",
                &hs256(&json!({"client_id": "either", "exp": now() + 60})),
            ),
            "client_assertion_signature_invalid",
        ),
        (
            None,
            post(
                "inside",
                &mac(
                    "HS256",
                    OTHER.as_bytes(),
                    &json!({"client_id": "inside", "exp": 1}),
                ),
            ),
            "client_assertion_signature_invalid",
        ),
        (None, post("either", &hs256(&inside)), "client_secret_wrong"),
    ] {
        let answer = ask(service, header.as_deref(), &pairs).await;
        answer.assert_refused(401, "client_authentication_failed");
        assert_eq!(answer.body["error"], "invalid_client");
        assert_eq!(
            answer.header("www-authenticate"),
            "Basic realm=\"exchequer\", charset=\"UTF-8\""
        );
        let cause = cause(service, &answer.body["request_id"]).await;
        assert!(
            cause.starts_with(&format!("{log}: ")),
            "{log}: {cause}, {pairs:?}"
        );
        told.push(bare(&answer));
    }
    assert!(told.iter().all(|each| *each == told[0]), "{told:#?}");
    assert_eq!(told[0].get("seen"), None);
}

#[tokio::test]
async fn what_a_client_can_see_for_itself_is_told() {
    let world = world().await;
    let service = &world.service;
    let odd = |header: &str| assemble(header, &claims("mac").to_string(), |_| vec![1]);
    let dated = |name: &str, ahead: i64| hs256(&with("mac", name, json!(now() + ahead)));
    let aud = |value: Value| hs256(&with("mac", "aud", value));
    let inside = |claims: Value| post("inside", &hs256(&claims));
    for (pairs, code) in [
        (asserted(""), "client_assertion_malformed"),
        (asserted("abc"), "client_assertion_malformed"),
        (asserted("a.b.c"), "client_assertion_malformed"),
        (
            asserted(&format!("{}=", hs256(&claims("mac")))),
            "client_assertion_malformed",
        ),
        (
            asserted(&format!("{}.", hs256(&claims("mac")))),
            "client_assertion_malformed",
        ),
        (asserted(&odd("{}")), "client_assertion_malformed"),
        (
            asserted(&odd(r#"{"alg":"HS256","alg":"none"}"#)),
            "client_assertion_malformed",
        ),
        (
            asserted(&odd(r#"{"alg":"HS256","crit":["b64"]}"#)),
            "client_assertion_malformed",
        ),
        (
            asserted(&odd(r#"{"alg":"RS256","jwk":{}}"#)),
            "client_assertion_malformed",
        ),
        (
            asserted(&odd(r#"{"alg":"HS256","typ":"at+jwt"}"#)),
            "client_assertion_malformed",
        ),
        (
            asserted(&odd(r#"{"alg":"HS256","typ":"dpop+jwt"}"#)),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&without("mac", "iss"))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&without("mac", "sub"))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "iss", json!("either")))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "client_id", json!("either")))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&without("mac", "exp"))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "exp", json!("soon")))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "jti", json!(7)))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "jti", json!("")))),
            "client_assertion_malformed",
        ),
        (
            asserted(&hs256(&with("mac", "jti", json!("x".repeat(256))))),
            "client_assertion_malformed",
        ),
        (
            vec![("client_assertion", hs256(&claims("mac")))],
            "client_assertion_malformed",
        ),
        (
            vec![
                ("client_assertion", hs256(&claims("mac"))),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:saml2-bearer".to_owned(),
                ),
            ],
            "client_assertion_malformed",
        ),
        (
            vec![("client_assertion_type", TYPE.to_owned())],
            "client_assertion_malformed",
        ),
        (asserted(&dated("exp", -60)), "client_assertion_expired"),
        // Whoever the client is: nothing is told of it.
        (
            asserted(&hs256(&with("nobody", "exp", json!(now() - 60)))),
            "client_assertion_expired",
        ),
        (
            asserted(&dated("exp", 3700)),
            "client_assertion_lifetime_too_long",
        ),
        (
            asserted(&dated("nbf", 60)),
            "client_assertion_not_yet_valid",
        ),
        (
            asserted(&dated("iat", 60)),
            "client_assertion_not_yet_valid",
        ),
        (
            asserted(&hs256(&without("mac", "aud"))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!("http://localhost:8080/"))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!("HTTP://localhost:8080"))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!("http://localhost:8080/oauth"))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!("http://localhost:8080/oauth/token/"))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!([]))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!([ISSUER, "https://other.example"]))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!([ISSUER, 1]))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&aud(json!({"a": ISSUER}))),
            "client_assertion_audience_mismatch",
        ),
        (
            asserted(&hs256(&without("mac", "jti"))),
            "client_assertion_jti_missing",
        ),
        (
            inside(json!({"client_id": "inside", "exp": now() - 60})),
            "client_assertion_expired",
        ),
        (
            inside(json!({"client_id": "inside", "exp": now() + 90_000})),
            "client_assertion_lifetime_too_long",
        ),
        (
            inside(json!({"client_id": "inside"})),
            "client_assertion_malformed",
        ),
        (
            inside(
                json!({"client_id": "inside", "exp": now() + 60, "aud": "https://other.example"}),
            ),
            "client_assertion_audience_mismatch",
        ),
    ] {
        let answer = ask(service, None, &pairs).await;
        // An empty parameter is as good as none: then the type stands alone.
        answer.assert_refused(401, code);
        assert_eq!(answer.body["error"], "invalid_client", "{pairs:?}");
        let cause = cause(service, &answer.body["request_id"]).await;
        let of_a_parameter = answer.body["error_description"]
            .as_str()
            .unwrap()
            .contains("The parameter");
        assert!(
            of_a_parameter || cause.starts_with(&format!("{code}: ")),
            "{code}: {cause}"
        );
    }
    let answer = ask(service, None, &asserted(&dated("exp", -60))).await;
    assert_eq!(answer.body["seen"]["iss"], "mac");
    let text = answer.body["error_description"].as_str().unwrap();
    assert!(
        text.starts_with("The client assertion expired: exp "),
        "{text}"
    );
}

#[tokio::test]
async fn a_client_authenticates_once_and_as_one() {
    let world = world().await;
    let service = &world.service;
    let good = || asserted(&hs256(&claims("mac")));
    let and = |pair: (&'static str, &str)| [good(), vec![(pair.0, pair.1.to_owned())]].concat();
    for (header, pairs, code) in [
        (Some(basic("either", SECRET)), good(), "several_credentials"),
        (Some(basic("mac", SECRET)), good(), "several_credentials"),
        (Some("Bearer x".to_owned()), good(), "several_credentials"),
        (None, and(("client_secret", SECRET)), "several_credentials"),
        (None, and(("client_id", "either")), "several_credentials"),
        (None, [good(), good()].concat(), "parameter_malformed"),
        (
            None,
            and(("client_assertion_type", TYPE)),
            "parameter_malformed",
        ),
    ] {
        let answer = ask(service, header.as_deref(), &pairs).await;
        answer.assert_refused(400, code);
        assert_eq!(answer.body["error"], "invalid_request", "{pairs:?}");
    }
    // A public client proves nothing, so it gets nothing of its own.
    let named = vec![("client_id", "public".to_owned())];
    ask(service, None, &named)
        .await
        .assert_refused(401, "client_authentication_missing");
}

#[tokio::test]
async fn an_assertion_is_used_once_even_across_a_crash() {
    let World { mut service, .. } = world().await;
    let assertion = hs256(&claims("mac"));
    assert_eq!(ask(&service, None, &asserted(&assertion)).await.status, 200);
    let again = ask(&service, None, &asserted(&assertion)).await;
    again.assert_refused(401, "client_assertion_used");
    assert_eq!(again.body["error"], "invalid_client");
    service.restart().await;
    ask(&service, None, &asserted(&assertion))
        .await
        .assert_refused(401, "client_assertion_used");

    // Of many at once one succeeds.
    let raced = hs256(&claims("mac"));
    let pairs = asserted(&raced);
    let all = (0..20).map(|_| ask(&service, None, &pairs));
    let answers = futures_util::future::join_all(all).await;
    let done = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(done.count(), 1);

    // A `jti` is a client's own, and a bad signature uses none up.
    let mut told = claims("mac");
    let forged = mac("HS256", OTHER.as_bytes(), &told);
    ask(&service, None, &asserted(&forged))
        .await
        .assert_refused(401, "client_authentication_failed");
    assert_eq!(
        ask(&service, None, &asserted(&hs256(&told))).await.status,
        200
    );
    told["iss"] = json!("mac512");
    told["sub"] = json!("mac512");
    let other = mac("HS512", SECRET.as_bytes(), &told);
    assert_eq!(ask(&service, None, &asserted(&other)).await.status, 200);
}

#[tokio::test]
async fn a_clients_key_set_is_fetched_as_an_issuers_is() {
    let World {
        service, partner, ..
    } = world().await;
    let by = |key: &Key, alg: &str, kid: &str| {
        asserted(&signed(key, alg, Some(kid), &claims("fetched")))
    };
    let good = by(Key::p256(), "ES256", "p1");
    assert_eq!(ask(&service, None, &good).await.status, 200);
    // A new key is found at once; invented ones do not make the service ask again and again.
    partner.publish(vec![Key::ed25519().jwk("p2")]);
    let new = by(Key::ed25519(), "EdDSA", "p2");
    assert_eq!(ask(&service, None, &new).await.status, 200);
    let asked = partner.asked(JWKS);
    for number in 0..20 {
        ask(
            &service,
            None,
            &by(Key::rsa(), "RS256", &format!("x{number}")),
        )
        .await
        .assert_refused(401, "client_authentication_failed");
    }
    assert!(partner.asked(JWKS) <= asked + 1, "{}", partner.asked(JWKS));
    // The key before is gone.
    ask(&service, None, &by(Key::p256(), "ES256", "p1"))
        .await
        .assert_refused(401, "client_authentication_failed");
}

/// So the first assertion in a client's name takes no longer than one in nobody's.
#[tokio::test]
async fn a_clients_key_set_is_fetched_before_anybody_asks_in_its_name() {
    let World {
        service, partner, ..
    } = world().await;
    eventually("it has started", async || {
        service.admin("/startupz").await.status == 200
    })
    .await;
    assert_eq!(partner.asked(JWKS), 1);
    let assertion = signed(Key::p256(), "ES256", Some("p1"), &claims("fetched"));
    let answer = ask(&service, None, &asserted(&assertion)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(partner.asked(JWKS), 1);
}

#[tokio::test]
async fn a_client_whose_keys_cannot_be_fetched_is_told_no_more_than_a_stranger() {
    let issuer = Issuer::start().await;
    let partner = Issuer::with_keys(vec![]).await;
    partner.behave(JWKS, Behaviour::Answer(500, "{}".to_owned()));
    let client = format!(
        "[clients.fetched]\njwks_uri = \"{}{JWKS}\"\naudience = \"a\"\n",
        partner.url
    );
    let service = Service::builder()
        .one_app(&issuer, "", &client)
        .start()
        .await;
    let assertion = |id: &str| asserted(&signed(Key::p256(), "ES256", Some("p1"), &claims(id)));
    let mut seen = Vec::new();
    for id in ["fetched", "nobody"] {
        let mut answer = ask(&service, None, &assertion(id)).await;
        answer.assert_refused(401, "client_authentication_failed");
        answer.body["request_id"].take();
        for own in ["x-request-id", "date"] {
            answer.headers.remove(own);
        }
        seen.push((answer.headers, answer.body));
    }
    assert_eq!(seen[0], seen[1]);
    // Who runs the service learns of it.
    eventually("the log tells them apart", async || {
        let lines = service.logged("refused");
        let causes: Vec<_> = lines
            .iter()
            .filter_map(|line| line["cause"].as_str())
            .collect();
        ["client_keys_unavailable: ", "client_unknown: "]
            .iter()
            .all(|code| causes.iter().any(|cause| cause.starts_with(code)))
    })
    .await;
    let failures = "exchequer_jwks_fetch_total{issuer=\"client:fetched\",result=\"error\"}";
    assert!(service.metric(failures).await.unwrap() >= 1.0);
    // An honest client sends another assertion later.
    partner.behave(JWKS, Behaviour::Well);
    partner.publish(vec![Key::p256().jwk("p1")]);
    eventually("its keys are back", async || {
        ask(&service, None, &assertion("fetched")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn guessing_ends_soon_by_assertions_too() {
    let limits = [
        ("EXCHEQUER_RATE_LIMIT", "2/1h"),
        ("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let World { service, .. } = world_with(&limits).await;
    let guess = async |id: &str| {
        let assertion = mac("HS256", OTHER.as_bytes(), &claims(id));
        let body = json!({
            "grant_type": "client_credentials", "client_assertion_type": TYPE,
            "client_assertion": assertion,
        });
        let request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/json")
            .header("x-forwarded-for", "203.0.113.66")
            .body(body.to_string());
        service.send(request).await
    };
    // Twenty for an address: four guesses, whoever they are for.
    for id in ["mac", "nobody", "either", "mac"] {
        guess(id)
            .await
            .assert_refused(401, "client_authentication_failed");
    }
    for _ in 0..3 {
        guess("mac").await.assert_refused(429, "rate_limited");
    }
}

#[test]
fn check_finds_what_does_not_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let check = |lines: &str| {
        let toml = format!(
            "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\naudiences = \"a\"\n\
             [apps.web]\nissuers = \"clerk\"\n[clients.c]\n{lines}\n"
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        let ended = Command::new(dir.path())
            .env("S", SECRET)
            .env("MIDDLE", &SECRET[..40])
            .env("PEM", Key::rsa().public_pem())
            .run(&["check"]);
        let lines = ended.stdout.lines().map(str::to_owned);
        let found: Vec<String> = lines.filter(|line| !line.starts_with("ok: ")).collect();
        (ended.code, found)
    };
    let secret = "secret = { env = \"S\" }";
    let key = "public_key = { env = \"PEM\" }";
    let hash = format!("secret_sha256 = \"{}\"", "ab".repeat(32));
    for good in [
        format!("{hash}\naudience = \"a\""),
        format!("{key}\naudience = \"a\""),
        format!("{key}\nauth_method = \"private_key_jwt\"\nauth_alg = \"PS256\"\naudience = \"a\""),
        "auth_method = \"none\"\napps = \"web\"".to_owned(),
    ] {
        assert_eq!(check(&good), (0, vec![]), "{good}");
    }
    for (lines, found) in [
        (
            format!("{secret}\n{hash}\naudience = \"a\""),
            "error: exchequer.toml:9: secret_sha256: stands beside `secret`: one of them is enough",
        ),
        (
            "secret_sha256 = \"abc\"\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:8: secret_sha256: is no SHA-256: 64 hex digits, or 32 bytes in base64, as `printf %s \"$SECRET\" | sha256sum` gives it",
        ),
        (
            format!("{secret}\naudience = \"a\"\nauth_method = \"client_secret_baisc\""),
            "error: exchequer.toml:10: auth_method: \"client_secret_baisc\" is none of client_secret, client_secret_basic, client_secret_post, client_secret_jwt, private_key_jwt, client_secret_as_jwt, none",
        ),
        (
            format!("{hash}\naudience = \"a\"\nauth_method = \"client_secret_jwt\""),
            "error: exchequer.toml:7: `secret` is missing: auth_method \"client_secret_jwt\" signs with it, so a hash is not enough",
        ),
        (
            "secret = { env = \"MIDDLE\" }\naudience = \"a\"\nauth_method = \"client_secret_jwt\"\nauth_alg = \"HS512\"".to_owned(),
            "error: exchequer.toml:8: secret: must have 64 bytes or more to sign assertions with",
        ),
        (
            format!("{secret}\naudience = \"a\"\nauth_alg = \"HS256\""),
            "error: exchequer.toml:10: auth_alg: auth_method \"client_secret\" signs nothing",
        ),
        (
            format!("{key}\naudience = \"a\"\nauth_alg = \"HS256\""),
            "error: exchequer.toml:10: auth_alg: \"HS256\" is none of RS256, PS256, ES256, EdDSA",
        ),
        (
            format!("{key}\naudience = \"a\"\nauth_alg = \"ES256\""),
            "error: exchequer.toml:8: public_key: is of no type that the client may sign with",
        ),
        (
            format!("{key}\n{secret}\naudience = \"a\""),
            "error: exchequer.toml:7: auth_method: auth_method \"client_secret\" has no keys",
        ),
        (
            format!("{key}\njwks_uri = \"https://a.example/jwks\"\naudience = \"a\""),
            "error: exchequer.toml:9: jwks_uri: one of `public_key`, `jwks` and `jwks_uri` is enough",
        ),
        (
            "jwks_uri = \"http://a.example/jwks\"\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:8: jwks_uri: \"http://a.example/jwks\" must be https: plain http is only for this machine",
        ),
        (
            "jwks = '{\"keys\": []}'\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:8: jwks: is no key set: a JSON object with `keys`, none of them private",
        ),
        (
            "auth_method = \"private_key_jwt\"\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:7: `public_key`, `jwks` or `jwks_uri` is missing: the client's assertions are verified with it",
        ),
        (
            "auth_method = \"none\"\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:9: audience: a client that proves nothing gets no tokens of its own",
        ),
        (
            format!("auth_method = \"none\"\n{secret}\napps = \"web\""),
            "error: exchequer.toml:8: auth_method: auth_method \"none\" has no secret",
        ),
    ] {
        let (code, all) = check(&lines);
        assert_eq!((code, all.as_slice()), (1, &[found.to_owned()][..]), "{lines}");
    }
    let (code, notes) = check(&format!(
        "{secret}\naudience = \"a\"\nauth_method = \"client_secret_as_jwt\""
    ));
    assert_eq!(code, 0);
    assert!(
        notes[0].starts_with(
            "note:  exchequer.toml:10: auth_method: client_secret_as_jwt: whoever sees"
        ),
        "{notes:?}"
    );
}
