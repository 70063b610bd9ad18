//! A JWT as an authorization grant (RFC 7523 §2.1): an issuer vouches for a user, to this
//! service and once; and the identity assertion grant
//! (draft-ietf-oauth-identity-assertion-authz-grant-04), which is for one client alone.

use crate::support::{Answer, Issuer, Key, Service, Token, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// What the service calls itself, wherever it listens.
const OURS: &str = "http://localhost:8080";
const ENDPOINT: &str = "http://localhost:8080/oauth/token";
const API: &str = "https://api.example.com";
const FILES: &str = "https://files.example.com";

/// The issuers `partner`, who vouches, and `plain`, who does not; the app `web` of both.
struct World {
    partner: Issuer,
    plain: Issuer,
    service: Service,
}

impl World {
    async fn start() -> Self {
        let (partner, plain) = (Issuer::start().await, Issuer::start().await);
        let config = format!(
            r#"
[issuers.partner]
issuer = {:?}
audiences = "partner-web"
authorized_parties = "partner-web"
assertions = true
[issuers.plain]
issuer = {:?}
[apps.web]
issuers = ["partner", "plain"]
audience = ["{API}", "{FILES}"]
subject = 'sub'
scopes."read:tasks" = ["task.view"]
scopes."write:tasks" = ["task.view", "task.edit"]
[apps.other]
issuers = ["plain"]
audience = "https://other.example.com"
[clients.agent]
secret = {{ env = "CLIENT_SECRET" }}
apps = "web"
[clients.second]
secret = {{ env = "CLIENT_SECRET" }}
apps = "web"
[clients.elsewhere]
secret = {{ env = "CLIENT_SECRET" }}
apps = "other"
[clients.reports]
secret = {{ env = "CLIENT_SECRET" }}
audience = "https://tasks.internal"
"#,
            partner.url, plain.url
        );
        let service = Service::builder()
            .config(&config)
            .env("CLIENT_SECRET", SECRET)
            .start()
            .await;
        Self {
            partner,
            plain,
            service,
        }
    }

    /// Sends an assertion, as this client.
    async fn send(&self, client: Option<&str>, token: &str, further: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", GRANT);
        form.append_pair("assertion", token);
        form.extend_pairs(further);
        let mut request = self
            .service
            .client
            .post(format!("{}/oauth/token", self.service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish());
        if let Some(client) = client {
            let basic = STANDARD.encode(format!("{client}:{SECRET}"));
            request = request.header("authorization", format!("Basic {basic}"));
        }
        self.service.send(request).await
    }

    /// An assertion of `partner`, of this `jti`.
    fn assertion(&self, jti: &str) -> Token {
        Token::oidc(&self.partner.url, OURS)
            .claim("sub", "user_1")
            .claim("exp", now() + 300)
            .claim("jti", jti)
    }

    /// An identity assertion grant for the client `agent`.
    fn id_jag(&self, jti: &str) -> Token {
        self.assertion(jti)
            .header("typ", "oauth-id-jag+jwt")
            .claim("client_id", "agent")
    }
}

fn signed(token: &Token) -> String {
    token.sign(Key::rsa())
}

#[track_caller]
fn claims(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    token::claims(answer.body["access_token"].as_str().unwrap())
}

#[track_caller]
fn assert_refused(answer: &Answer, error: &str, code: &str) {
    answer.assert_refused(400, code);
    assert_eq!(answer.body["error"], error, "{}", answer.body);
}

#[tokio::test]
async fn rfc_7523_2_1_an_issuers_assertion_is_a_grant_whoever_sends_it() {
    let world = World::start().await;
    // §4: the example has no client authentication.
    let answer = world.send(None, &signed(&world.assertion("1")), &[]).await;
    let said = claims(&answer);
    assert_eq!(
        answer.body,
        json!({
            "access_token": answer.body["access_token"], "token_type": "Bearer",
            "expires_in": 600, "scope": "read:tasks write:tasks",
        }),
        "RFC 6749 §5.1 and nothing else"
    );
    for (claim, value) in [
        ("sub", json!("user_1")),
        ("client_id", json!("web")),
        ("idp", json!(world.partner.url)),
        ("aud", json!(API)),
        ("act", Value::Null),
    ] {
        assert_eq!(said[claim], value, "{claim}");
    }
    let further = [("resource", FILES), ("scope", "read:tasks")];
    for (jti, client, aud) in [
        ("2", Some("agent"), json!(OURS)),
        ("3", None, json!(ENDPOINT)),
        ("4", Some("second"), json!([OURS])),
    ] {
        let assertion = signed(&world.assertion(jti).claim("aud", aud));
        let said = claims(&world.send(client, &assertion, &further).await);
        assert_eq!(
            (&said["aud"], &said["scope"]),
            (&json!(FILES), &json!("read:tasks"))
        );
    }
    let web = [("client_id", "web")];
    claims(&world.send(None, &signed(&world.assertion("5")), &web).await);
}

#[tokio::test]
async fn rfc_7523_3_what_an_assertion_must_say() {
    let world = World::start().await;
    let a = || world.assertion("1");
    for (assertion, code) in [
        // §3 (1): iss; (2): sub; (3): aud; (4): exp; (5): nbf; (6): iat; (7): jti; (9): signed.
        (a().without("iss"), "subject_token_issuer_missing"),
        (
            a().claim("iss", "https://x.example"),
            "subject_token_issuer_untrusted",
        ),
        (a().claim("iss", OURS), "subject_token_is_app_token"),
        (a().without("sub"), "subject_token_claim_missing"),
        (a().without("aud"), "assertion_audience_mismatch"),
        (
            a().claim("aud", "partner-web"),
            "assertion_audience_mismatch",
        ),
        (
            a().claim("aud", "http://localhost:8080/"),
            "assertion_audience_mismatch",
        ),
        (
            a().claim("aud", json!([OURS, "https://x.example"])),
            "assertion_audience_mismatch",
        ),
        (
            a().claim("aud", json!([OURS, ENDPOINT])),
            "assertion_audience_mismatch",
        ),
        (a().claim("aud", json!([])), "assertion_audience_mismatch"),
        (a().without("exp"), "subject_token_claim_missing"),
        (a().claim("exp", now() - 60), "subject_token_expired"),
        (
            a().claim("exp", now() + 100_000_000),
            "subject_token_lifetime_excessive",
        ),
        (a().claim("nbf", now() + 60), "subject_token_not_yet_valid"),
        (
            a().claim("iat", now() + 60),
            "subject_token_issued_in_future",
        ),
        (a().without("jti"), "assertion_claim_missing"),
        (a().claim("jti", ""), "assertion_claim_missing"),
        (a().claim("jti", "a".repeat(256)), "assertion_claim_missing"),
        (a().claim("jti", 1), "assertion_claim_missing"),
        (
            a().header("alg", "none"),
            "subject_token_algorithm_not_allowed",
        ),
        (a().header("typ", "at+jwt"), "subject_token_type_mismatch"),
        (
            a().header("typ", "logout+jwt"),
            "subject_token_type_mismatch",
        ),
        (
            a().claim("events", json!({})),
            "subject_token_type_mismatch",
        ),
        (
            Token::oidc(&world.plain.url, OURS).claim("jti", "1"),
            "assertion_not_accepted",
        ),
    ] {
        let answer = world.send(Some("agent"), &signed(&assertion), &[]).await;
        assert_refused(&answer, "invalid_grant", code);
    }
    let forged = a().sign(Key::other_rsa());
    let answer = world.send(Some("agent"), &forged, &[]).await;
    assert_refused(&answer, "invalid_grant", "subject_token_signature_invalid");
    for (further, error, code) in [
        (
            ("audience", "https://other.example.com"),
            "invalid_target",
            "audience_not_allowed",
        ),
        (("resource", "api"), "invalid_target", "resource_malformed"),
        (("scope", "a\"b"), "invalid_scope", "scope_not_allowed"),
        (
            ("assertion", "a.b.c"),
            "invalid_request",
            "parameter_malformed",
        ),
    ] {
        let answer = world.send(Some("agent"), &signed(&a()), &[further]).await;
        assert_refused(&answer, error, code);
    }
    let answer = world.send(Some("agent"), "", &[]).await;
    assert_refused(&answer, "invalid_request", "parameter_malformed");
    // Who may not act for the app's users may not with an assertion either.
    let answer = world.send(Some("reports"), &signed(&a()), &[]).await;
    assert_refused(&answer, "unauthorized_client", "exchange_not_allowed");
    let answer = world.send(Some("elsewhere"), &signed(&a()), &[]).await;
    assert_refused(&answer, "invalid_grant", "subject_token_issuer_untrusted");
    // §3.1: whoever authenticates does so well.
    let answer = world.send(Some("nobody"), &signed(&a()), &[]).await;
    answer.assert_refused(401, "client_authentication_failed");
    // None of these has used the assertion up; and it is no subject token.
    let subject = json!({"subject_token": signed(&a()), "app": "web"});
    let answer = world.service.exchange(&subject).await;
    answer.assert_refused(401, "subject_token_audience_mismatch");
    claims(&world.send(Some("agent"), &signed(&a()), &[]).await);
}

#[tokio::test]
async fn an_assertion_is_good_for_one_token() {
    let world = World::start().await;
    let assertion = signed(&world.assertion("once"));
    let attempts: [_; 10] = std::array::from_fn(|_| world.send(None, &assertion, &[]));
    let answers = futures_util::future::join_all(attempts).await;
    let good = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(good.count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_refused(answer, "invalid_grant", "assertion_used");
    }
    // Whoever signs anew with the same `jti` replays it too; until it would have expired.
    let again = signed(&world.assertion("once").claim("sub", "user_2"));
    let answer = world.send(Some("agent"), &again, &[]).await;
    assert_refused(&answer, "invalid_grant", "assertion_used");
    claims(
        &world
            .send(None, &signed(&world.assertion("twice")), &[])
            .await,
    );
}

#[tokio::test]
async fn id_jag_is_for_its_client_alone_and_bounds_what_it_gets() {
    let world = World::start().await;
    let said = claims(
        &world
            .send(Some("agent"), &signed(&world.id_jag("1")), &[])
            .await,
    );
    assert_eq!(
        (&said["sub"], &said["aud"]),
        (&json!("user_1"), &json!(API))
    );
    let prefixed = world
        .id_jag("2")
        .header("typ", "application/oauth-id-jag+jwt");
    claims(&world.send(Some("agent"), &signed(&prefixed), &[]).await);
    let j = || world.id_jag("3");
    for (client, assertion) in [
        (Some("second"), j()),
        (None, j()),
        (Some("agent"), j().without("client_id")),
        (Some("agent"), j().claim("client_id", "second")),
    ] {
        let answer = world.send(client, &signed(&assertion), &[]).await;
        assert_refused(&answer, "invalid_grant", "assertion_client_mismatch");
    }
    let web = [("client_id", "web")];
    let of_app = signed(&j().claim("client_id", "web"));
    let answer = world.send(None, &of_app, &web).await;
    assert_refused(&answer, "invalid_grant", "assertion_client_mismatch");
    for (assertion, code) in [
        (j().claim("aud", ENDPOINT), "assertion_audience_mismatch"),
        (
            j().claim("aud", json!([OURS, OURS])),
            "assertion_audience_mismatch",
        ),
        (j().without("jti"), "assertion_claim_missing"),
        (j().without("iat"), "assertion_claim_missing"),
        (j().claim("client_id", 1), "assertion_claim_missing"),
        (j().claim("resource", 1), "assertion_claim_missing"),
        (j().claim("resource", json!([])), "assertion_claim_missing"),
        (
            j().claim("scope", json!(["read:tasks"])),
            "assertion_claim_missing",
        ),
        (j().claim("exp", now() - 60), "subject_token_expired"),
    ] {
        let answer = world.send(Some("agent"), &signed(&assertion), &[]).await;
        assert_refused(&answer, "invalid_grant", code);
    }
    let bounded = |jti: &str| {
        world
            .id_jag(jti)
            .claim("resource", FILES)
            .claim("scope", "read:tasks offline_access other")
    };
    for (further, error, code) in [
        (("resource", API), "invalid_target", "audience_not_allowed"),
        (
            ("scope", "write:tasks"),
            "invalid_scope",
            "scope_not_allowed",
        ),
    ] {
        let answer = world
            .send(Some("agent"), &signed(&bounded("3")), &[further])
            .await;
        assert_refused(&answer, error, code);
    }
    let empty = signed(&j().claim("scope", ""));
    let answer = world.send(Some("agent"), &empty, &[]).await;
    assert_refused(&answer, "invalid_scope", "scope_not_allowed");
    let elsewhere = signed(&j().claim("resource", "https://tasks.internal"));
    let answer = world.send(Some("agent"), &elsewhere, &[]).await;
    assert_refused(&answer, "invalid_target", "audience_not_allowed");
    for (jti, further) in [
        ("4", vec![]),
        (
            "5",
            vec![
                ("resource", FILES),
                ("scope", "write:tasks read:tasks offline_access"),
            ],
        ),
    ] {
        let answer = world
            .send(Some("agent"), &signed(&bounded(jti)), &further)
            .await;
        let said = claims(&answer);
        assert_eq!(
            (&said["aud"], &said["scope"], &said["permissions"]),
            (&json!(FILES), &json!("read:tasks"), &json!(["task.view"]))
        );
        assert_eq!(answer.body.get("refresh_token"), None);
    }
    // It is no subject token.
    let subject = json!({"subject_token": signed(&j()), "app": "web"});
    let answer = world.service.exchange(&subject).await;
    answer.assert_refused(401, "subject_token_type_mismatch");
}
