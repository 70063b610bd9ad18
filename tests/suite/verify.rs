//! `/auth/verify`, as a gateway asks it: who it is, or why not; never a smuggled identity,
//! never a revoked one, and never one from the cache that would not be given anew.

use crate::support::token::{assemble, claims, encode, header};
use crate::support::{Answer, Issuer, Key, Service, Token, Wire, eventually, now};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exchequer::config::{self, Sources};
use exchequer::http::verify::PATH;
use exchequer::service::{Place, Service as Parts};
use exchequer::store::{self, Change, Kind, Revocation};
use ring::hmac;
use serde_json::{Value, json};
use std::sync::Arc;

const IDENTITY: [&str; 7] = [
    "x-app",
    "x-user-id",
    "x-org-id",
    "x-roles",
    "x-scopes",
    "x-rate-limit-key",
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
    assert_eq!(none.header("www-authenticate"), "Bearer");
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        &format!("DPoP {token}"),
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
    let service = Service::builder()
        .one_app(&issuer, "", "claims.scope = '\"read:tasks write:tasks\"'")
        .start()
        .await;
    let token = app_token(&service, &issuer).await;
    if claims(&token)["scope"] != "read:tasks write:tasks" {
        return;
    }
    for query in ["?scope=read:tasks", "?scope=write%3Atasks+read%3Atasks"] {
        assert_eq!(ask(&service, query, &token).await.status, 200);
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
            format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"")
        );
    }
}
