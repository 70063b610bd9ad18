//! `/auth/verify`, as a gateway asks it: who it is, or why not; never a smuggled identity,
//! never a revoked one, and never one from the cache that would not be given anew.

use crate::support::token::{assemble, claims, encode, header};
use crate::support::{Answer, Issuer, Key, Service, Token, Wire, clerk, eventually, now};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exchequer::config::{self, Sources};
use exchequer::http::server::Stop;
use exchequer::http::verify::PATH;
use exchequer::service::{Place, Service as Parts};
use exchequer::standin::Session;
use exchequer::store::{self, Change, Kind, Revocation};
use ring::hmac;
use serde_json::{Value, json};
use std::sync::Arc;

/// What each challenge ends with (RFC 9728 §5.1).
const METADATA: &str =
    "resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/auth/verify\"";
const IDENTITY: [&str; 8] = [
    "x-app",
    "x-user-id",
    "x-org-id",
    "x-roles",
    "x-scopes",
    "x-rate-limit-key",
    "x-client-id",
    "x-signature",
];
/// An app that lets the provider's tokens through, in headers and cookies.
const OPEN: &str = "verify.pass_through = true\nverify.session_cookie = true";
const PARTIES: &str = "authorized_parties = [\"https://app.example.com\"]";

/// What a gateway sends.
struct Question<'q> {
    service: &'q Service,
    request: reqwest::RequestBuilder,
}

impl<'q> Question<'q> {
    fn new(service: &'q Service, query: &str) -> Self {
        let request = service.client.get(format!("{}{PATH}{query}", service.url));
        Self { service, request }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    async fn ask(self) -> Answer {
        let answer = self.service.send(self.request).await;
        if answer.status != 200 {
            for name in IDENTITY {
                assert!(!answer.headers.contains_key(name), "{name} of a refusal");
            }
        }
        answer
    }
}

async fn ask(service: &Service, query: &str, bearer: &str) -> Answer {
    let bearer = format!("Bearer {bearer}");
    let question = Question::new(service, query);
    question.header("authorization", &bearer).ask().await
}

/// Asserts a 200 with this identity, each header exactly once: app, user, organisation, roles,
/// scopes and the key for rate limits.
#[track_caller]
fn assert_identity(answer: &Answer, identity: [&str; 6]) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    for (name, value) in IDENTITY.into_iter().zip(identity) {
        assert_eq!(answer.header(name), value, "{name}");
        assert_eq!(answer.headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert_eq!(answer.header("x-client-id"), "", "a user's token");
    assert!(answer.headers.contains_key("x-signature"));
    assert_eq!(answer.body, "");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("vary"), "authorization, cookie");
}

const ALICE: [&str; 6] = ["web", "user_1", "org_1", "org:admin", "", "org_1:user_1"];

async fn app_token(service: &Service, issuer: &Issuer) -> String {
    let answer = service
        .exchange(&json!({"session_token": issuer.token()}))
        .await;
    answer.token().to_owned()
}

#[tokio::test]
async fn an_app_token_is_answered_with_its_identity_whatever_the_method() {
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    let token = app_token(&service, &issuer).await;
    assert_identity(&ask(&service, "", &token).await, ALICE);
    let url = format!("{}{PATH}", service.url);
    for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let asked = service
            .client
            .request(method, &url)
            .bearer_auth(&token)
            .body("a body that nobody reads");
        assert_identity(&service.send(asked).await, ALICE);
    }
    // A preflight asks for nothing that it could be given: an empty 204 would be a permission.
    let preflight = service
        .client
        .request(reqwest::Method::OPTIONS, &url)
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "DELETE");
    service
        .send(preflight)
        .await
        .assert_refused(401, "bearer_missing");
    // Beside it there is nothing.
    for path in [
        "/auth/verify/",
        "/auth//verify",
        "/auth/verify/x",
        "/auth/verify%2f",
    ] {
        service.get(path).await.assert_refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_user_without_an_organisation_has_empty_headers_and_not_none() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            "typ = \"at+jwt\"\nsubject = '\"über 1%,:\" + sub'",
        )
        .start()
        .await;
    let session = Token::clerk(&issuer.url).without("o").sign(Key::rsa());
    let token = service.session(&session).await.token().to_owned();
    let smuggling = Question::new(&service, "")
        .header("authorization", &format!("bearer  {token}"))
        .header("x-org-id", "org_of_another")
        .header("x-roles", "org:admin")
        .header("x-user-id", "user_of_another")
        .header("x-signature", "v1,t=1,AAAA");
    let answer = smuggling.ask().await;
    let user = "%C3%BCber%201%25,:user_1";
    let limited = "%C3%BCber%201%25,%3Auser_1";
    assert_identity(&answer, ["web", user, "", "", "", limited]);
    assert_eq!(answer.header("x-signature"), "");
}

#[tokio::test]
async fn what_belongs_to_the_request_goes_through() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = app_token(&service, &issuer).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = Question::new(&service, "")
        .header("authorization", &format!("Bearer {token}"))
        .header("traceparent", trace)
        .header("idempotency-key", "\"8e03978e\"")
        .header("x-request-id", "request-1")
        .ask()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("traceparent"), trace);
    assert_eq!(answer.header("idempotency-key"), "\"8e03978e\"");
    assert_eq!(answer.header("x-request-id"), "request-1");
    let answer = ask(&service, "", &token).await;
    assert!(!answer.headers.contains_key("idempotency-key"));
}

#[tokio::test]
async fn one_bearer_or_none() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, PARTIES, OPEN)
        .start()
        .await;
    let token = app_token(&service, &issuer).await;
    let none = Question::new(&service, "").ask().await;
    none.assert_refused(401, "bearer_missing");
    assert_eq!(
        none.header("www-authenticate"),
        format!("Bearer {METADATA}")
    );
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "DPoP",
        "DPoP ",
        &format!("DPoP {token} {token}"),
        &format!("Bearer {token},{token}"),
        &format!("Bearer {token} {token}"),
        &format!("Bearer{token}"),
        &token,
    ] {
        // And no cookie comes to the rescue.
        let answer = Question::new(&service, "")
            .header("authorization", bad)
            .header("cookie", &format!("__session={}", issuer.token()))
            .ask()
            .await;
        answer.assert_refused(401, "bearer_malformed");
        assert!(
            answer
                .header("www-authenticate")
                .starts_with("Bearer error=\"invalid_token\"")
        );
    }
    let twice = Question::new(&service, "")
        .header("authorization", &format!("Bearer {token}"))
        .header("authorization", &format!("Bearer {token}"));
    twice.ask().await.assert_refused(401, "bearer_malformed");
    let obscure = format!("GET {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \u{fc}\r\n\r\n");
    let mut wire = Wire::to(&service.url).await;
    wire.send(obscure).await;
    let answer = wire.answer().await.unwrap();
    answer.assert_refused(401, "bearer_malformed");
}

#[tokio::test]
async fn a_demand_that_is_not_understood_is_never_taken_for_none() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            "audience = [\"https://a.example\", \"https://b.example\"]",
        )
        .start()
        .await;
    let token = app_token(&service, &issuer).await;
    for query in [
        "?scopes=read",
        "?scope=",
        "?scope=%20",
        "?scope=a&scope=b",
        "?scope=a%22b",
        "?app=",
        "?app=web&app=web",
        "?app=%0a",
        "?audience=",
        "?access_token=x",
        "?x",
    ] {
        let answer = ask(&service, query, &token).await;
        answer.assert_refused(400, "parameter_malformed");
    }
    for query in [
        "",
        "?",
        "?&",
        "?app=web",
        "?audience=https%3A%2F%2Fa.example",
        "?audience=https://a.example&app=web",
    ] {
        for _ in 0..2 {
            assert_identity(&ask(&service, query, &token).await, ALICE);
        }
    }
    for (query, code) in [
        ("?app=other", "app_token_app_mismatch"),
        ("?app=Web", "app_token_app_mismatch"),
        ("?audience=https://b.example", "app_token_audience_mismatch"),
        (
            "?audience=https://a.example/",
            "app_token_audience_mismatch",
        ),
    ] {
        ask(&service, query, &token).await.assert_refused(401, code);
    }
}

#[tokio::test]
async fn a_scope_that_was_not_granted_is_asked_for_in_the_challenge() {
    let issuer = Issuer::start().await;
    let lines = "scopes.\"read:tasks\" = \"task.view\"\nscopes.\"write:tasks\" = \"task.edit\"\n\
                 scopes.admin = { permissions = \"all\", when = 'false' }";
    let service = Service::builder().one_app(&issuer, "", lines).start().await;
    let token = app_token(&service, &issuer).await;
    let mut alice = ALICE;
    alice[4] = "read:tasks write:tasks";
    for query in ["", "?scope=read:tasks", "?scope=write%3Atasks+read%3Atasks"] {
        assert_identity(&ask(&service, query, &token).await, alice);
    }
    for (query, scope) in [
        ("?scope=admin", "admin"),
        ("?scope=read%3Atasks%20admin", "read:tasks admin"),
        ("?scope=read", "read"),
        ("?scope=READ:TASKS", "READ:TASKS"),
    ] {
        let answer = ask(&service, query, &token).await;
        answer.assert_refused(403, "insufficient_scope");
        assert_eq!(answer.body["error"], "insufficient_scope");
        assert_eq!(
            answer.header("www-authenticate"),
            format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\", {METADATA}")
        );
    }
    let narrow = json!({"session_token": issuer.token(), "scope": "read:tasks"});
    let narrow = service.exchange(&narrow).await.token().to_owned();
    ask(&service, "?scope=write:tasks", &narrow)
        .await
        .assert_refused(403, "insufficient_scope");
    let cause = "the bearer has read:tasks, and the gateway demands write:tasks";
    eventually("the operator is told", async || {
        let lines = service.logged("refused");
        lines.iter().any(|line| line["cause"] == cause)
    })
    .await;
}

/// The service's own signing key, from its folder: what only its owner could do.
fn own_key(service: &Service) -> (String, Key) {
    let mut files = std::fs::read_dir(service.dir().join("keys")).unwrap();
    files
        .find_map(|file| {
            let envelope: Value =
                serde_json::from_slice(&std::fs::read(file.unwrap().path()).ok()?).ok()?;
            let payload = STANDARD.decode(envelope["payload"].as_str()?).unwrap();
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            let key = payload["keys"].as_array()?.iter();
            let key = key.into_iter().find(|key| key["state"] == "active")?;
            let pkcs8 = STANDARD.decode(key["pkcs8"].as_str()?).unwrap();
            Some((key["kid"].as_str()?.to_owned(), Key::p256_from(&pkcs8)))
        })
        .unwrap()
}

#[tokio::test]
async fn what_our_own_key_did_not_sign_as_it_stands_is_refused() {
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    let token = app_token(&service, &issuer).await;
    let (kid, key) = own_key(&service);
    let jwks = service.get("/.well-known/jwks.json").await.body;
    let own = jwks["keys"].as_array().unwrap().iter();
    let own = own.into_iter().find(|each| each["kid"] == kid).unwrap();
    let message = token.rsplit_once('.').unwrap().0.to_owned();
    let signature = URL_SAFE_NO_PAD
        .decode(token.rsplit_once('.').unwrap().1)
        .unwrap();
    let (good_header, good_claims) = (header(&token), claims(&token));
    let signed = |header: &Value, claims: &Value| {
        assemble(&header.to_string(), &claims.to_string(), |message| {
            key.sign(message)
        })
    };
    // Our own key can: what follows is refused for its difference from this.
    assert_identity(
        &ask(&service, "", &signed(&good_header, &good_claims)).await,
        ALICE,
    );

    let headed = |change: Value| {
        let mut header = good_header.clone();
        for (name, value) in change.as_object().unwrap() {
            header[name] = value.clone();
        }
        signed(&header, &good_claims)
    };
    let mut forged: Vec<(String, String, &str)> = Vec::new();
    let mut add = |what: &str, token: String, code| forged.push((what.to_owned(), token, code));

    const ALGORITHM: &str = "app_token_algorithm_mismatch";
    for alg in [
        "none", "None", "HS256", "RS256", "ES384", "EdDSA", "es256", "", "ES256 ",
    ] {
        let token = headed(json!({"alg": alg}));
        let bare = format!("{}.", token.rsplit_once('.').unwrap().0);
        add(alg, token, ALGORITHM);
        add("no signature", bare, ALGORITHM);
    }
    // Our public key is in everybody's hands; it is nobody's secret.
    let x = own["x"].as_str().unwrap();
    for secret in [
        own.to_string().into_bytes(),
        x.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(x).unwrap(),
    ] {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string();
        let token = assemble(&header, &good_claims.to_string(), |message| {
            hmac::sign(&secret, message).as_ref().to_vec()
        });
        add("HS256", token, ALGORITHM);
    }
    const MALFORMED: &str = "app_token_malformed";
    for change in [
        json!({"alg": null}),
        json!({"alg": ["ES256"]}),
        json!({"kid": null}),
        json!({"kid": 1}),
        json!({"typ": null}),
        json!({"crit": ["exp"]}),
        json!({"jwk": own}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"b64": false}),
        json!({"x": 1}),
    ] {
        add(&change.to_string(), headed(change.clone()), MALFORMED);
    }
    for name in ["alg", "kid", "typ"] {
        let mut header = good_header.clone();
        header.as_object_mut().unwrap().remove(name);
        add(name, signed(&header, &good_claims), MALFORMED);
    }
    for (what, token) in [
        ("empty", ".."),
        ("opaque", "oat_0123456789"),
        ("two parts", &message),
        ("four parts", &format!("{token}.x")),
        ("padding", &format!("{token}=")),
        ("standard base64", &token.replacen('e', "+", 1)),
        ("too large", &format!("{token}{}", "A".repeat(16 * 1024))),
    ] {
        add(what, token.to_owned(), MALFORMED);
    }
    let twice = good_claims
        .to_string()
        .replacen('{', "{\"sub\":\"user_2\",", 1);
    let twice = assemble(&good_header.to_string(), &twice, |message| {
        key.sign(message)
    });
    add("a member twice", twice, MALFORMED);

    const UNKNOWN: &str = "app_token_key_unknown";
    for other in [
        "",
        "ins_1",
        &kid[1..],
        &kid.to_uppercase(),
        &format!("{kid} "),
    ] {
        add(other, headed(json!({"kid": other})), UNKNOWN);
    }
    for typ in ["jwt", "at+jwt", "application/JWT", "logout+jwt", ""] {
        add(typ, headed(json!({"typ": typ})), "app_token_type_mismatch");
    }
    const SIGNATURE: &str = "app_token_signature_invalid";
    let other_key = assemble(
        &good_header.to_string(),
        &good_claims.to_string(),
        |message| Key::p256().sign(message),
    );
    add("another key", other_key, SIGNATURE);
    let with = |signature: &[u8]| format!("{message}.{}", encode(signature));
    for place in [0, 31, 32, 63] {
        let mut changed = signature.clone();
        changed[place] ^= 1;
        add("a bit of the signature", with(&changed), SIGNATURE);
    }
    for changed in [
        &[][..],
        &[0; 64],
        &[0; 32],
        &signature[..63],
        &[&signature[..], &[0]].concat(),
    ] {
        add("a signature that is none", with(changed), SIGNATURE);
    }
    let mut other = good_claims.clone();
    other["sub"] = json!("user_2");
    let (head, _) = message.split_once('.').unwrap();
    let pieced = format!(
        "{head}.{}.{}",
        encode(other.to_string()),
        encode(&signature)
    );
    add("other claims", pieced, SIGNATURE);

    let mut said = |name: &str, value: Value, code| {
        let mut claims = good_claims.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
        add(
            &format!("{name} {value}"),
            signed(&good_header, &claims),
            code,
        );
    };
    said("exp", json!(now() - 1), "app_token_expired");
    said("nbf", json!(now() + 60), "app_token_not_yet_valid");
    said("client_id", json!("other"), "app_token_app_unknown");
    said(
        "aud",
        json!("https://elsewhere.example"),
        "app_token_audience_mismatch",
    );
    said(
        "iss",
        json!("https://elsewhere.example"),
        "subject_token_issuer_untrusted",
    );
    said(
        "iss",
        json!("http://localhost:8080/"),
        "subject_token_issuer_untrusted",
    );
    said("iss", Value::Null, "subject_token_issuer_missing");
    said("iss", json!(issuer.url), "pass_through_not_allowed");
    for (name, value) in [
        ("sub", Value::Null),
        ("sub", json!(1)),
        ("aud", json!(1)),
        ("aud", json!([])),
        ("aud", json!(["http://localhost:8080", 1])),
        ("jti", Value::Null),
        ("exp", Value::Null),
        ("exp", json!("9999999999")),
        ("exp", json!(9_999_999_999.5)),
        ("iat", Value::Null),
        ("nbf", json!([])),
        ("sid", json!(1)),
        ("org_id", json!({"id": "org_1"})),
        ("roles", json!({"admin": true})),
        ("roles", json!(["org:admin", 1])),
        ("scope", json!(["read"])),
    ] {
        said(name, value, "app_token_claim_unusable");
    }

    for (what, token, code) in &forged {
        for _ in 0..2 {
            let answer = ask(&service, "", token).await;
            assert_eq!(answer.body["code"], *code, "{what}: {}", answer.body);
            answer.assert_refused(401, code);
            let text = answer.body.to_string();
            assert!(
                token.len() < 16 || !text.contains(token.as_str()),
                "{what}: {text}"
            );
        }
    }
    // And none of them has hurt the good one.
    assert_identity(&ask(&service, "", &token).await, ALICE);
}

#[tokio::test]
async fn a_remembered_bearer_expires_like_any_other() {
    for cache in ["on", "off"] {
        let issuer = Issuer::start().await;
        let service = Service::builder()
            .env("EXCHEQUER_VERIFY_CACHE", cache)
            .one_app(&issuer, "", "")
            .start()
            .await;
        let token = app_token(&service, &issuer).await;
        let expires = claims(&token)["exp"].as_i64().unwrap();
        service.shift_clocks(-20, 0);
        let answer = ask(&service, "", &token).await;
        answer.assert_refused(401, "app_token_not_yet_valid");
        assert_eq!(answer.body["retryable"], true);
        service.shift_clocks(0, 0);
        for _ in 0..3 {
            assert_identity(&ask(&service, "", &token).await, ALICE);
        }
        for _ in 0..2 {
            service.shift_clocks(expires - now(), 0);
            let answer = ask(&service, "", &token).await;
            answer.assert_refused(401, "app_token_expired");
            assert_eq!(answer.body["action"], "refresh_subject_token");
            assert_eq!(answer.body["seen"]["exp"], expires);
            service.shift_clocks(0, 0);
            assert_identity(&ask(&service, "", &token).await, ALICE);
        }
    }
}

#[tokio::test]
async fn a_remembered_token_of_a_providers_ends_with_it_also_at_a_part_of_a_second() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, PARTIES, OPEN)
        .start()
        .await;
    for part in ["", ".5"] {
        let exp = format!("{}{part}", now() + 20);
        let exp: Value = serde_json::from_str(&exp).unwrap();
        let token = Token::clerk(&issuer.url).claim("exp", exp.clone());
        let token = token.sign(Key::rsa());
        service.shift_clocks(0, 0);
        assert_identity(&ask(&service, "", &token).await, ALICE);
        // Less than what is verified is taken for, more than clocks may differ.
        service.shift_clocks(40, 0);
        let answer = ask(&service, "", &token).await;
        assert_eq!(answer.status, 401, "{exp}: {}", answer.body);
        answer.assert_refused(401, "subject_token_expired");
    }
}

#[tokio::test]
async fn a_retired_key_vouches_on_and_a_revoked_one_no_longer() {
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    let old = app_token(&service, &issuer).await;
    let kid = header(&old)["kid"].as_str().unwrap().to_owned();
    assert_identity(&ask(&service, "", &old).await, ALICE);
    let ended = service.command().run(&["keys", "rotate", "--force"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut new = old.clone();
    eventually("the standby signs", async || {
        new = app_token(&service, &issuer).await;
        header(&new)["kid"] != kid.as_str()
    })
    .await;
    for token in [&old, &new] {
        assert_identity(&ask(&service, "", token).await, ALICE);
    }
    let ended = service.command().run(&["keys", "revoke", &kid]);
    assert_eq!(ended.code, 0, "{ended:?}");
    eventually("the key is revoked", async || {
        ask(&service, "", &old).await.status != 200
    })
    .await;
    ask(&service, "", &old)
        .await
        .assert_refused(401, "app_token_key_unknown");
    assert_identity(&ask(&service, "", &new).await, ALICE);
}

#[tokio::test]
async fn tokens_of_an_app_that_is_gone_or_was_changed_are_refused() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .one_app(
            &issuer,
            "",
            "audience = [\"https://a.example\", \"https://b.example\"]",
        )
        .start()
        .await;
    let token = app_token(&service, &issuer).await;
    assert_identity(&ask(&service, "", &token).await, ALICE);
    let file = service.dir().join("exchequer.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    for (from, to, code) in [
        ("[apps.web]", "[apps.web]", None),
        ("[apps.web]", "[apps.www]", Some("app_token_app_unknown")),
        (
            "\"https://a.example\", ",
            "",
            Some("app_token_audience_mismatch"),
        ),
        (
            "[apps.web]",
            "[apps.web]\ntyp = \"at+jwt\"",
            Some("app_token_type_mismatch"),
        ),
    ] {
        std::fs::write(&file, config.replacen(from, to, 1)).unwrap();
        service.restart().await;
        let answer = ask(&service, "", &token).await;
        match code {
            None => assert_identity(&answer, ALICE),
            Some(code) => answer.assert_refused(401, code),
        }
    }
}

/// A service in this process, whose store the test can write; it listens until dropped.
async fn in_process(
    issuer: &Issuer,
    app_lines: &str,
) -> (String, Arc<exchequer::exchange::Exchange>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("exchequer.toml");
    let toml = format!(
        "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\n{PARTIES}\n[apps.web]\nissuers = \"clerk\"\n{app_lines}\n",
        issuer.url
    );
    std::fs::write(&file, toml).unwrap();
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let (settings, findings) = config::load(&Sources {
        variables: [
            ("EXCHEQUER_LISTEN", "127.0.0.1:0"),
            ("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("EXCHEQUER_STORE", "memory"),
            ("EXCHEQUER_CONFIG", file.to_str().unwrap()),
        ]
        .map(variable)
        .to_vec(),
        ..Sources::default()
    });
    assert_eq!(findings.errors, []);
    let bound = Parts::new(settings.unwrap(), Place::Memory)
        .unwrap()
        .bind()
        .await
        .unwrap();
    let url = format!("http://{}", bound.public.local_addr().unwrap());
    let exchange = Arc::clone(&bound.service.exchange);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        bound.serve(Stop::at_once(stopping)).await;
        drop(stop);
    });
    (url, exchange)
}

#[tokio::test]
async fn a_remembered_bearer_is_refused_as_soon_as_what_it_depends_on_is_revoked() {
    let issuer = Issuer::start().await;
    let client = crate::support::service::client();
    for (kind, parts, status) in [
        (Kind::Session, &["sess_1"][..], "session_revoked"),
        (Kind::User, &["user_1"], "user_deleted"),
        (Kind::Membership, &["user_1", "org_1"], "membership_changed"),
        // Somebody else's.
        (Kind::Session, &["sess_2"], ""),
        (Kind::User, &["user_2"], ""),
        (Kind::Membership, &["user_1", "org_2"], ""),
    ] {
        let (url, exchange) = in_process(&issuer, OPEN).await;
        let asked = async |bearer: &str| {
            let request = client.get(format!("{url}{PATH}")).bearer_auth(bearer);
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            (status, body["code"].as_str().unwrap_or_default().to_owned())
        };
        let session = issuer.token();
        let body = json!({"session_token": session}).to_string();
        let exchanged = client
            .post(format!("{url}/auth/exchange"))
            .header("content-type", "application/json")
            .body(body);
        let text = exchanged.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let bearers = [answer["token"].as_str().unwrap(), &session];
        for bearer in bearers {
            for _ in 0..2 {
                assert_eq!(asked(bearer).await, (200, String::new()));
            }
        }
        let parts: Vec<&str> = [issuer.url.as_str()].iter().chain(parts).copied().collect();
        // A membership is revoked as the provider's tokens and as ours say it.
        let minted = (kind == Kind::Membership).then_some(Kind::MintedMembership);
        let revocation = |kind| Revocation {
            key: store::Key::of(kind, &parts),
            at: now() * 1000,
            until: now() + 3600,
        };
        let change = Change {
            revocations: [kind].into_iter().chain(minted).map(revocation).collect(),
            ..Change::default()
        };
        exchange.store.commit(change, now()).await.unwrap();
        for bearer in bearers {
            for _ in 0..2 {
                let expected = if status.is_empty() { 200 } else { 401 };
                assert_eq!(asked(bearer).await, (expected, status.to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn a_providers_token_passes_where_the_app_lets_it_and_as_the_exchange_would_have_it() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n{PARTIES}\n\
             [apps.closed]\nissuers = \"clerk\"\n\
             [apps.web]\nissuers = \"clerk\"\naudience = [\"https://a.example\"]\nverify.pass_through = true\n\
             subject = '\"u-\" + sub'\ncondition = 'sub != \"user_3\"'\nscopes.read = {{ permissions = \"see\" }}\n"
        ))
        .start()
        .await;
    let session = issuer.token();
    let identity = [
        "web",
        "u-user_1",
        "org_1",
        "org:admin",
        "read",
        "org_1:u-user_1",
    ];
    for query in ["?app=web", "?app=web&audience=https://a.example&scope=read"] {
        for _ in 0..2 {
            assert_identity(&ask(&service, query, &session).await, identity);
        }
    }
    let other = Token::clerk(url);
    let expired = other
        .clone()
        .claim("exp", now() - 60)
        .claim("iat", now() - 120);
    for (what, query, token, status, code) in [
        ("no app", "", session.clone(), 400, "app_required"),
        (
            "closed",
            "?app=closed",
            session.clone(),
            401,
            "pass_through_not_allowed",
        ),
        ("unknown", "?app=none", session.clone(), 400, "app_unknown"),
        (
            "audience",
            "?app=web&audience=https://b.example",
            session.clone(),
            400,
            "audience_not_allowed",
        ),
        (
            "scope",
            "?app=web&scope=write",
            session.clone(),
            403,
            "insufficient_scope",
        ),
        (
            "condition",
            "?app=web",
            other.clone().claim("sub", "user_3").sign(Key::rsa()),
            403,
            "condition_not_met",
        ),
        (
            "pending",
            "?app=web",
            other.clone().claim("sts", "pending").sign(Key::rsa()),
            403,
            "session_pending",
        ),
        (
            "azp",
            "?app=web",
            other
                .clone()
                .claim("azp", "https://evil.example")
                .sign(Key::rsa()),
            401,
            "subject_token_authorized_party_mismatch",
        ),
        (
            "expired",
            "?app=web",
            expired.sign(Key::rsa()),
            401,
            "subject_token_expired",
        ),
        (
            "forged",
            "?app=web",
            other.clone().sign(Key::other_rsa()),
            401,
            "subject_token_signature_invalid",
        ),
        (
            "issuer",
            "?app=web",
            other
                .clone()
                .claim("iss", "https://evil.example")
                .sign(Key::rsa()),
            401,
            "subject_token_issuer_untrusted",
        ),
    ] {
        for _ in 0..2 {
            let answer = ask(&service, query, &token).await;
            assert_eq!(answer.body["code"], code, "{what}: {}", answer.body);
            answer.assert_refused(status, code);
        }
    }
    // Remembered, it ends with the session token all the same.
    service.shift_clocks(59, 0);
    assert_eq!(ask(&service, "?app=web", &session).await.status, 200);
    service.shift_clocks(66, 0);
    ask(&service, "?app=web", &session)
        .await
        .assert_refused(401, "subject_token_expired");
}

#[tokio::test]
async fn a_session_cookie_counts_only_where_the_app_says_so_and_only_once() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n{PARTIES}\n\
             [apps.api]\nissuers = \"clerk\"\n\
             [apps.web]\nissuers = \"clerk\"\nverify.session_cookie = true\n"
        ))
        .start()
        .await;
    let session = issuer.token();
    let cookie = async |query: &str, cookie: String| {
        let question = Question::new(&service, query);
        question.header("cookie", &cookie).ask().await
    };
    let good = format!("a=b; __session={session}; __session_1a2b3c4d=x; c=\"d\"");
    for _ in 0..2 {
        assert_identity(&cookie("?app=web", good.clone()).await, ALICE);
    }
    // In a header the same token is another matter, remembered or not.
    ask(&service, "?app=web", &session)
        .await
        .assert_refused(401, "pass_through_not_allowed");
    let own = json!({"session_token": session, "app": "web"});
    let own = service.exchange(&own).await.token().to_owned();
    let no_party = Token::clerk(url).without("azp").sign(Key::rsa());
    let other_party = Token::clerk(url)
        .claim("azp", "https://evil.example")
        .sign(Key::rsa());
    for (query, text, code) in [
        ("?app=web", "a=b".to_owned(), "bearer_missing"),
        ("?app=web", "__session=".to_owned(), "bearer_missing"),
        ("?app=web", format!("__Session={session}"), "bearer_missing"),
        (
            "?app=web",
            format!("__session_1a2b3c4d={session}"),
            "bearer_missing",
        ),
        (
            "?app=web",
            format!("x__session={session}"),
            "bearer_missing",
        ),
        ("?app=api", good.clone(), "bearer_missing"),
        (
            "?app=web",
            format!("__session={session}; __session={session}"),
            "session_cookie_ambiguous",
        ),
        (
            "?app=web",
            format!("__session={session}; __session="),
            "session_cookie_ambiguous",
        ),
        ("?app=web", "__session=x".to_owned(), "app_token_malformed"),
        (
            "?app=web",
            format!("__session=\"{session}\""),
            "app_token_malformed",
        ),
        (
            "?app=web",
            format!("__session={own}"),
            "subject_token_is_app_token",
        ),
        (
            "?app=web",
            format!("__session={no_party}"),
            "subject_token_authorized_party_missing",
        ),
        (
            "?app=web",
            format!("__session={other_party}"),
            "subject_token_authorized_party_mismatch",
        ),
    ] {
        let answer = cookie(query, text.clone()).await;
        assert_eq!(answer.body["code"], code, "{text}: {}", answer.body);
        answer.assert_refused(401, code);
    }
    // Two headers are two places for cookies.
    let twice = Question::new(&service, "?app=web")
        .header("cookie", &format!("__session={session}"))
        .header("cookie", &format!("__session={session}"));
    twice
        .ask()
        .await
        .assert_refused(401, "session_cookie_ambiguous");
}

#[test]
fn cookies_without_authorized_parties_are_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\n[apps.web]\nissuers = \"clerk\"\nverify.session_cookie = true\n";
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    let check = || crate::support::Command::new(dir.path());
    let ended = check().run(&["check"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        said.contains("verify.session_cookie needs authorized_parties"),
        "{said}"
    );
    std::fs::write(
        dir.path().join("exchequer.toml"),
        toml.replacen("kind", &format!("{PARTIES}\nkind"), 1),
    )
    .unwrap();
    let ended = check().run(&["check"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = check().env("EXCHEQUER_VERIFY_CACHE", "yes").run(&["check"]);
    assert_eq!(ended.code, 1, "{ended:?}");
}

#[tokio::test]
async fn refusals_are_logged_and_successes_are_not() {
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    let token = app_token(&service, &issuer).await;
    for _ in 0..3 {
        assert_identity(&ask(&service, "", &token).await, ALICE);
    }
    ask(&service, "", "x")
        .await
        .assert_refused(401, "app_token_malformed");
    eventually("the refusal is logged", async || {
        !service.logged("refused").is_empty()
    })
    .await;
    assert_eq!(service.logged("refused")[0]["route"], "verify");
    assert_eq!(service.logged("answered"), Vec::<Value>::new());
    assert!(service.log().iter().all(|line| !line.contains(&token)));
    let count = |outcome: &str, code: &str| {
        format!(
            "exchequer_requests_total{{route=\"verify\",outcome=\"{outcome}\",code=\"{code}\"}}"
        )
    };
    assert_eq!(service.metric(&count("ok", "ok")).await, Some(3.0));
    assert_eq!(
        service
            .metric(&count("refused", "app_token_malformed"))
            .await,
        Some(1.0)
    );
}

/// What `X-Signature` covers, built here and not with the code under test.
fn signed(secret: &[u8], time: &str, request: [&str; 3]) -> String {
    let [method, target, digest] = request;
    let [app, user, org, roles, scopes, limited] = ALICE;
    let text = format!(
        "v1\n{time}\n{method}\n{target}\n{digest}\nx-app:{app}\nx-user-id:{user}\nx-org-id:{org}\n\
         x-roles:{roles}\nx-scopes:{scopes}\nx-rate-limit-key:{limited}\nx-client-id:"
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!(
        "v1,t={time},{}",
        STANDARD.encode(hmac::sign(&key, text.as_bytes()))
    )
}

#[tokio::test]
async fn the_signature_covers_the_identity_and_the_request_that_one_pair_of_headers_names() {
    const SECRET: [u8; 24] = [7; 24];
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env(
            "SIGNING_SECRET",
            format!("whsec_{}", STANDARD.encode(SECRET)),
        )
        .one_app(
            &issuer,
            "",
            "verify.signing_secret = { env = \"SIGNING_SECRET\" }",
        )
        .start()
        .await;
    let token = app_token(&service, &issuer).await;
    let bearer = format!("Bearer {token}");
    let asked = async |headers: &[(&str, &str)]| {
        let mut question = Question::new(&service, "").header("authorization", &bearer);
        for (name, value) in headers {
            question = question.header(name, value);
        }
        question.ask().await
    };
    let digest = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, b"body"));
    let whole = format!("sha-256=:{digest}:");
    let original = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/a%20b?c=d&e"),
    ];
    let forwarded = [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/")];
    let [method, target] = original;
    for (headers, covered) in [
        (vec![method, target], ["POST", "/a%20b?c=d&e", "-"]),
        (forwarded.to_vec(), ["GET", "/", "-"]),
        (
            vec![method, target, ("content-digest", &whole)],
            ["POST", "/a%20b?c=d&e", &digest],
        ),
        (
            vec![
                method,
                target,
                ("content-digest", &format!("sha-512=:AAAA:, {whole}")),
            ],
            ["POST", "/a%20b?c=d&e", &digest],
        ),
        // Whatever is not one digest of 32 bytes is none.
        (
            vec![method, target, ("content-digest", "sha-256=:AAAA:")],
            ["POST", "/a%20b?c=d&e", "-"],
        ),
        (
            vec![method, target, ("content-digest", &digest)],
            ["POST", "/a%20b?c=d&e", "-"],
        ),
        (
            vec![
                method,
                target,
                ("content-digest", &format!("{whole}, {whole}")),
            ],
            ["POST", "/a%20b?c=d&e", "-"],
        ),
        (
            vec![
                method,
                target,
                ("content-digest", &whole),
                ("content-digest", &whole),
            ],
            ["POST", "/a%20b?c=d&e", "-"],
        ),
    ] {
        let before = now();
        let answer = asked(&headers).await;
        assert_identity(&answer, ALICE);
        let signature = answer.header("x-signature");
        let time = signature
            .split(',')
            .nth(1)
            .unwrap()
            .strip_prefix("t=")
            .unwrap();
        assert!(
            (before..=now()).contains(&time.parse().unwrap()),
            "{signature}"
        );
        assert_eq!(signature, signed(&SECRET, time, covered), "{headers:?}");
    }
    for headers in [
        vec![],
        vec![method],
        vec![target],
        vec![method, target, forwarded[0]],
        vec![method, target, forwarded[1]],
        [original, forwarded].concat(),
        vec![method, ("x-forwarded-uri", "/")],
        vec![method, target, target],
        vec![method, method, target],
        vec![method, ("x-original-uri", "")],
        vec![method, ("x-original-uri", "tasks")],
        vec![method, ("x-original-uri", "/a b")],
        vec![("x-original-method", "GET /"), target],
    ] {
        let answer = asked(&headers).await;
        assert_eq!(
            answer.body["code"], "original_request_unknown",
            "{headers:?}"
        );
        answer.assert_refused(400, "original_request_unknown");
    }
}

#[tokio::test]
async fn a_gateways_question_meets_nobody_and_takes_from_no_bucket() {
    let clerk = clerk().await;
    let app = "[apps.web]\nissuers = \"clerk\"\nverify.pass_through = true\n\
               claims.roles = '[user.first_name]'\nprofile.user = [\"first_name\"]";
    let service = Service::builder()
        .keyed_in_file(&clerk, "", app)
        .env("EXCHEQUER_RATE_LIMIT", "3/1h")
        .env("EXCHEQUER_VERIFY_CACHE", "off")
        .start()
        .await;
    let token = clerk.session_token(&Session::default());
    for _ in 0..10 {
        let answer = ask(&service, "", &token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-roles"), "Ada", "the profile counts");
    }
    let answer = service.session(&token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("ratelimit-remaining"), "2");
    assert_eq!(answer.body["user"]["is_new"], true);
}
