//! Tokens that an authorization server is asked about (RFC 7662): the question, and which answers
//! count, for how long.

use crate::opaque::{KINDS, accepting, add, questions, section, service};
use crate::support::{Answer, Behaviour, Issuer, Key, Service, Token, clerk, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exchequer::standin::{Fault, TokenKind};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Whatever takes longer hangs.
const GUARD: Duration = Duration::from_secs(15);
const INTROSPECT: &str = "/introspect";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const RFC_8414: &str = "/.well-known/oauth-authorization-server";

/// An authorization server of our own, and a service whose app `web` trusts it.
async fn introspecting(issuer_lines: &str, app_lines: &str) -> (Issuer, Service) {
    let server = Issuer::start().await;
    let service = trusting(&server, issuer_lines, app_lines).await;
    (server, service)
}

async fn trusting(server: &Issuer, issuer_lines: &str, app_lines: &str) -> Service {
    let url = &server.url;
    Service::builder()
        .config(&format!(
            "[issuers.server]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
             introspection_endpoint = \"{url}{INTROSPECT}\"\n\
             client_id = \"an id&:é\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n\
             {issuer_lines}\n[apps.web]\nissuers = \"server\"\n{app_lines}\n"
        ))
        .env("CLIENT_SECRET", "a secret%+:=")
        .start()
        .await
}

fn answers(server: &Issuer, status: u16, body: impl ToString) {
    server.behave(INTROSPECT, Behaviour::Answer(status, body.to_string()));
}

/// A good answer about a token of `user`.
fn active(server: &Issuer) -> Value {
    json!({
        "active": true, "iss": server.url, "sub": "user", "client_id": "client_1",
        "scope": "a:read  b", "aud": ["api", "other"], "token_type": "Bearer",
        "iat": now(), "nbf": now(), "exp": now() + 600,
    })
}

#[tokio::test]
async fn the_question_is_a_form_with_basic_credentials_both_encoded() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    let secrets = [
        "a&token=other",
        "a%26b",
        "a=b==",
        "a+b/c",
        "~!*'()\"<>",
        "a.b",
        "é",
    ];
    for (number, secret) in secrets.into_iter().enumerate() {
        if secret == "é" {
            service
                .refuses(secret, secret, "subject_token_malformed")
                .await;
            assert_eq!(server.bodies().len(), number);
            continue;
        }
        assert_eq!(service.session(secret).await.status, 200, "{secret}");
        let bodies = server.bodies();
        let form: Vec<(String, String)> = url::form_urlencoded::parse(bodies[number].as_bytes())
            .into_owned()
            .collect();
        assert_eq!(form, [("token".to_owned(), secret.to_owned())]);
    }
    let credentials = STANDARD.encode("an+id%26%3A%C3%A9:a+secret%25%2B%3A%3D");
    for request in server.requests() {
        let request = request.to_lowercase();
        assert!(
            request.starts_with("post /introspect http/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"));
        let header = format!("authorization: basic {}\r\n", credentials.to_lowercase());
        assert!(request.contains(&header), "{request}");
        assert!(!request.contains("token="), "{request}");
    }
    assert!(service.log().iter().all(|line| !line.contains("secret%")));
}

#[tokio::test]
async fn only_active_true_in_a_200_counts() {
    let (server, service) = introspecting("", "").await;
    let good = active(&server);
    let with = |active: Value| {
        let mut body = good.clone();
        body["active"] = active;
        body.to_string()
    };
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("active");
    let (unavailable, credentials) = ("provider_unavailable", "provider_credentials_invalid");
    let cases = [
        (200, with(json!("true")), unavailable),
        (200, with(json!("false")), unavailable),
        (200, with(json!(1)), unavailable),
        (200, with(json!(null)), unavailable),
        (200, with(json!([true])), unavailable),
        (200, without.to_string(), unavailable),
        (200, format!("[{good}]"), unavailable),
        (200, json!(good.to_string()).to_string(), unavailable),
        (
            200,
            good.to_string().replacen('{', "{\"active\":false,", 1),
            unavailable,
        ),
        (
            200,
            "<html><body>active: true</body></html>".to_owned(),
            unavailable,
        ),
        (200, String::new(), unavailable),
        (200, "{}".to_owned(), unavailable),
        (201, good.to_string(), unavailable),
        (204, String::new(), unavailable),
        (302, good.to_string(), unavailable),
        (404, good.to_string(), unavailable),
        (500, good.to_string(), unavailable),
        (503, good.to_string(), unavailable),
        (401, good.to_string(), credentials),
        (
            401,
            json!({"error": "invalid_client"}).to_string(),
            credentials,
        ),
        (403, String::new(), credentials),
        (
            400,
            json!({"error": "invalid_client"}).to_string(),
            credentials,
        ),
        (400, json!({"message": "no"}).to_string(), unavailable),
        (429, good.to_string(), "provider_rate_limited"),
    ];
    for (number, (status, body, code)) in cases.into_iter().enumerate() {
        answers(&server, status, &body);
        // Failures in a row may close the way for a while.
        service.shift_clocks(0, 40 * i64::try_from(number).unwrap());
        let answer = service.session("opaque").await;
        answer.assert_refused(503, code);
        assert_eq!(answer.body["source"], "upstream-idp", "{body}");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(
            server.asked(INTROSPECT),
            number + 1,
            "{status} {body}: not kept"
        );
    }
    service.shift_clocks(0, 3000);
    // Some servers refuse a question about what cannot be a token of theirs.
    for status in [400, 422] {
        answers(&server, status, json!({"error": "invalid_request"}));
        for _ in 0..6 {
            let inactive = "subject_token_inactive";
            service.refuses(status, "opaque", inactive).await;
        }
    }
    service.shift_clocks(0, 4000);
    answers(&server, 200, &good);
    let answer = service.session("opaque").await;
    assert_eq!(
        answer.body["user"],
        json!({"id": "user"}),
        "{}",
        answer.body
    );
    service.shift_clocks(0, 8000);
    answers(&server, 200, json!({"active": false, "sub": "user"}));
    service
        .refuses("inactive", "opaque", "subject_token_inactive")
        .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_a_bounded_time() {
    for behaviour in [
        Behaviour::Stall,
        Behaviour::Drip,
        Behaviour::Flood(1024 * 1024),
        Behaviour::Close,
        Behaviour::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"active\":true}".to_vec()),
    ] {
        let (server, service) = introspecting("", "").await;
        server.behave(INTROSPECT, behaviour);
        let answer = tokio::time::timeout(GUARD, service.session("opaque")).await;
        let answer = answer.expect("an answer in time");
        answer.assert_refused(503, "provider_unavailable");
    }
    // So does one whose users are taken by Clerk's Backend API.
    let standin = clerk().await;
    for kind in KINDS {
        let lines = accepting(&[kind.setting], kind.credentials);
        let service = service(&standin, &lines, "").await;
        let mut shift = 0;
        for (fault, code) in [
            (Fault::Status(500), "provider_unavailable"),
            (Fault::Html, "provider_unavailable"),
            (Fault::Truncated, "provider_unavailable"),
            (Fault::Hangup, "provider_unavailable"),
            (Fault::Stall, "provider_unavailable"),
            (Fault::Status(401), "provider_credentials_invalid"),
            (
                Fault::RateLimited { retry_after: 7 },
                "provider_rate_limited",
            ),
        ] {
            let secret = format!("{}_{shift}", kind.prefix);
            add(&standin, &secret, kind.kind, kind.subject);
            standin.fault(Some(fault));
            let answer = tokio::time::timeout(GUARD, service.session(&secret)).await;
            answer.expect("an answer in time").assert_refused(503, code);
            standin.fault(None);
            // Past any pause that a failure asks for.
            shift += 60;
            service.shift_clocks(0, shift);
            let answer = service.session(&secret).await;
            assert_eq!(answer.status, 200, "not kept: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn what_an_active_token_says_is_judged_like_a_signed_one() {
    let lines = "audiences = [\"api\"]\nauthorized_parties = [\"client_1\"]";
    let (server, service) = introspecting(lines, "claims.held = 'scopes'").await;
    let malformed = "subject_token_claim_malformed";
    let expired = "subject_token_expired";
    let mismatch = "subject_token_type_mismatch";
    let cases = [
        ("aud", json!("api"), None),
        (
            "aud",
            json!("other"),
            Some("subject_token_audience_mismatch"),
        ),
        (
            "aud",
            json!(["apis", "ap"]),
            Some("subject_token_audience_mismatch"),
        ),
        ("aud", Value::Null, Some("subject_token_audience_missing")),
        ("client_id", json!("an id&:é"), None),
        (
            "client_id",
            json!("client_2"),
            Some("subject_token_authorized_party_mismatch"),
        ),
        (
            "client_id",
            json!(["client_1"]),
            Some("subject_token_authorized_party_mismatch"),
        ),
        (
            "client_id",
            Value::Null,
            Some("subject_token_authorized_party_missing"),
        ),
        ("iss", Value::Null, None),
        (
            "iss",
            json!(format!("{}/", server.url)),
            Some("subject_token_issuer_untrusted"),
        ),
        ("iss", json!(1), Some("subject_token_issuer_untrusted")),
        ("exp", json!(now() - 60), Some(expired)),
        ("exp", json!("soon"), Some(malformed)),
        ("exp", json!(1e300), Some(malformed)),
        (
            "nbf",
            json!(now() + 60),
            Some("subject_token_not_yet_valid"),
        ),
        (
            "iat",
            json!(now() + 60),
            Some("subject_token_issued_in_future"),
        ),
        ("iat", json!("yesterday"), Some(malformed)),
        ("sub", json!(""), Some(malformed)),
        ("sub", json!(7), Some(malformed)),
        ("scope", json!(7), Some(malformed)),
        ("token_type", Value::Null, None),
        ("token_type", json!("bearer"), None),
        ("token_type", json!("access_token"), None),
        (
            "token_type",
            json!("DPoP"),
            Some("subject_token_sender_constrained"),
        ),
        ("token_type", json!("refresh_token"), Some(mismatch)),
        ("token_type", json!(1), Some(mismatch)),
        ("token_use", json!("access_token"), None),
        ("token_use", json!("refresh_token"), Some(mismatch)),
        (
            "cnf",
            json!({"jkt": "x"}),
            Some("subject_token_sender_constrained"),
        ),
        ("o", json!({"id": "org_x"}), None),
    ];
    for (number, (name, value, code)) in cases.into_iter().enumerate() {
        let mut body = active(&server);
        body[name] = value.clone();
        answers(&server, 200, body);
        let token = format!("opaque-{number}");
        match code {
            Some(code) => {
                service
                    .refuses(format!("{name} {value}"), &token, code)
                    .await
            }
            None => {
                let answer = service.session(&token).await;
                assert_eq!(answer.status, 200, "{name} {value}: {}", answer.body);
                let claims = token::claims(answer.token());
                assert_eq!(claims["held"], json!(["a:read", "b"]));
                assert_eq!(claims["org_id"], Value::Null);
            }
        }
    }
    let mut body = active(&server);
    body.as_object_mut().unwrap().remove("sub");
    answers(&server, 200, &body);
    let client_only = "subject_token_client_only";
    service.refuses("no sub", "opaque-c", client_only).await;
    body.as_object_mut().unwrap().remove("client_id");
    answers(&server, 200, &body);
    let missing = "subject_token_claim_missing";
    service.refuses("nobody", "opaque-n", missing).await;
    // No `exp` at all: the app's own lifetime bounds the app token.
    let mut body = active(&server);
    body.as_object_mut().unwrap().remove("exp");
    answers(&server, 200, &body);
    assert_eq!(service.session("opaque-e").await.status, 200);
}

#[tokio::test]
async fn a_jwt_of_an_introspected_issuer_is_asked_about_and_nothing_else_is() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    // Signed with anything: nobody here verifies it.
    let jwt = Token::oidc(&server.url, "api").sign(Key::other_rsa());
    let answer = service.session(&jwt).await;
    assert_eq!(token::claims(answer.token())["sub"], "user");
    answers(&server, 200, json!({"active": false}));
    let other = Token::oidc(&server.url, "api").claim("jti", "2");
    let other = other.sign(Key::other_rsa());
    let inactive = "subject_token_inactive";
    service.refuses("inactive", &other, inactive).await;
    assert_eq!(server.asked(INTROSPECT), 2);
    let elsewhere = Token::oidc("https://elsewhere.example.com", "api").sign(Key::rsa());
    let untrusted = "subject_token_issuer_untrusted";
    service.refuses("elsewhere", &elsewhere, untrusted).await;
    service
        .refuses("garbage", "a.b.c", "subject_token_malformed")
        .await;
    assert_eq!(server.requests().len(), 2, "no keys were fetched either");
    assert_eq!(service.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_gateways_question_never_asks_an_introspection_endpoint() {
    // The bearer is anybody's, and its address is the gateway's: nobody would pay for guesses.
    let (server, service) = introspecting("", "verify.pass_through = true\n").await;
    answers(&server, 200, active(&server));
    for guess in 0..3 {
        let jwt = Token::oidc(&server.url, "api").claim("jti", guess);
        let asked = service
            .client
            .get(format!("{}/auth/verify", service.url))
            .bearer_auth(jwt.sign(Key::other_rsa()));
        let answer = service.send(asked).await;
        answer.assert_refused(401, "pass_through_not_allowed");
    }
    assert_eq!(server.asked(INTROSPECT), 0);
}

#[tokio::test]
async fn the_endpoint_is_discovered_at_either_place_and_must_be_the_issuers() {
    for (at, not_at) in [(DISCOVERY, None), (RFC_8414, Some(DISCOVERY))] {
        let server = Issuer::start().await;
        let url = &server.url;
        let document = |issuer: &str, endpoint: &str| {
            let document = json!({"issuer": issuer, "introspection_endpoint": endpoint});
            Behaviour::Answer(200, document.to_string())
        };
        if let Some(not_at) = not_at {
            server.behave(not_at, Behaviour::Answer(404, String::new()));
        }
        answers(&server, 200, active(&server));
        let service = Service::builder()
            .config(&format!(
                "[issuers.server]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
                 client_id = \"id\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n\
                 [apps.web]\nissuers = \"server\"\n"
            ))
            .env("CLIENT_SECRET", "secret")
            .start()
            .await;
        let invalid = "issuer_metadata_invalid";
        for (number, wrong) in [
            document(
                "https://elsewhere.example.com",
                &format!("{url}{INTROSPECT}"),
            ),
            document(url, "http://169.254.169.254/introspect"),
            document(url, "file:///etc/passwd"),
            Behaviour::Answer(200, json!({"issuer": url}).to_string()),
        ]
        .into_iter()
        .enumerate()
        {
            server.behave(at, wrong);
            service.shift_clocks(0, 40 * i64::try_from(number).unwrap());
            service.session("opaque").await.assert_refused(503, invalid);
        }
        assert_eq!(server.asked(INTROSPECT), 0);
        server.behave(at, document(url, &format!("{url}{INTROSPECT}")));
        service.shift_clocks(0, 400);
        assert_eq!(service.session("opaque").await.status, 200);
        let asked = server.asked(at);
        assert_eq!(service.session("another").await.status, 200);
        assert_eq!(server.asked(at), asked, "once found it is believed");
    }
}

async fn exchange(service: &Service, app: &str, token: &str) -> Answer {
    service
        .exchange(&json!({"subject_token": token, "app": app}))
        .await
}

#[tokio::test]
async fn of_several_issuers_the_named_apps_alone_is_asked() {
    let (one, two, server) = (clerk().await, clerk().await, Issuer::start().await);
    answers(&server, 200, active(&server));
    let lines = "accepts = [\"session\", \"api_key\"]\n";
    let url = &server.url;
    let service = Service::builder()
        .config(&format!(
            "{}{}[issuers.three]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
             introspection_endpoint = \"{url}{INTROSPECT}\"\nclient_id = \"id\"\n\
             client_secret = {{ env = \"CLIENT_SECRET\" }}\n\
             [apps.one]\nissuers = \"one\"\naudience = [\"a\", \"b\"]\n\
             [apps.two]\nissuers = \"two\"\naudience = \"c\"\n\
             [apps.three]\nissuers = \"three\"\naudience = \"d\"\n",
            section(
                "one",
                &one,
                &format!("{lines}secret_key = {{ env = \"ONE\" }}")
            ),
            section(
                "two",
                &two,
                &format!("{lines}secret_key = {{ env = \"TWO\" }}")
            ),
        ))
        .env("ONE", one.secret_key())
        .env("TWO", two.secret_key())
        .env("CLIENT_SECRET", "secret")
        .start()
        .await;
    add(&one, "ak_1", TokenKind::ApiKey, "user_1");
    add(&two, "ak_2", TokenKind::ApiKey, "user_2");
    let counts = || {
        let three = server.asked(INTROSPECT);
        (questions(&one).len(), questions(&two).len(), three)
    };
    service
        .session("ak_1")
        .await
        .assert_refused(400, "app_required");
    exchange(&service, "none", "ak_1")
        .await
        .assert_refused(400, "app_unknown");
    let wrong = json!({"subject_token": "ak_1", "audience": "z"});
    let answer = service.exchange(&wrong).await;
    assert_eq!(answer.body["code"], "audience_not_allowed");
    assert_eq!(counts(), (0, 0, 0));

    assert_eq!(exchange(&service, "one", "ak_1").await.status, 200);
    assert_eq!(counts(), (1, 0, 0));
    exchange(&service, "two", "ak_1")
        .await
        .assert_refused(401, "subject_token_inactive");
    assert_eq!(counts(), (1, 1, 0));
    let by_audience = json!({"subject_token": "ak_2", "audience": "c"});
    let answer = service.exchange(&by_audience).await;
    assert_eq!(token::claims(answer.token())["client_id"], "two");
    assert_eq!(counts(), (1, 2, 0));

    // Without a prefix there is but one whom it could be of.
    let answer = service.session("plain").await;
    assert_eq!(token::claims(answer.token())["client_id"], "three");
    exchange(&service, "one", "plain")
        .await
        .assert_refused(401, "subject_token_kind_not_accepted");
    assert_eq!(counts(), (1, 2, 1));
    // Where an app trusts no Clerk instance, a prefix of Clerk's means nothing.
    assert_eq!(exchange(&service, "three", "ak_plain").await.status, 200);
    assert_eq!(counts(), (1, 2, 2));
}

#[tokio::test]
async fn an_active_answer_is_kept_for_half_a_minute_and_never_past_its_exp() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    for _ in 0..3 {
        assert_eq!(service.session("opaque").await.status, 200);
    }
    service.shift_clocks(0, 29);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 1);
    assert_eq!(service.session("another").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 2);
    service.shift_clocks(0, 31);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 3);
    // By the wall clock it is past its exp, kept or not.
    service.shift_clocks(700, 31);
    let expired = "subject_token_expired";
    service.refuses("kept", "opaque", expired).await;
    assert_eq!(server.asked(INTROSPECT), 3);

    service.shift_clocks(0, 100);
    let mut short = active(&server);
    short["exp"] = json!(now() + 12);
    answers(&server, 200, short);
    assert_eq!(service.session("short").await.status, 200);
    service.shift_clocks(0, 105);
    assert_eq!(service.session("short").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 4);
    answers(&server, 200, json!({"active": false}));
    service.shift_clocks(0, 113);
    let inactive = "subject_token_inactive";
    service.refuses("past its exp", "short", inactive).await;
    assert_eq!(server.asked(INTROSPECT), 5);
}

#[tokio::test]
async fn an_inactive_answer_is_kept_for_five_seconds_and_a_failure_never() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, json!({"active": false}));
    let inactive = "subject_token_inactive";
    for _ in 0..3 {
        service.refuses("inactive", "opaque", inactive).await;
    }
    assert_eq!(server.asked(INTROSPECT), 1);
    answers(&server, 200, active(&server));
    service.refuses("still", "opaque", inactive).await;
    service.shift_clocks(0, 6);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 2);

    answers(&server, 500, "");
    let unavailable = "provider_unavailable";
    for asked in 3..5 {
        let answer = service.session("failing").await;
        answer.assert_refused(503, unavailable);
        assert_eq!(server.asked(INTROSPECT), asked);
    }
    answers(&server, 200, active(&server));
    assert_eq!(service.session("failing").await.status, 200);
}

#[tokio::test]
async fn the_answer_is_kept_and_not_what_became_of_it() {
    let server = Issuer::start().await;
    answers(&server, 200, active(&server));
    let service = trusting(
        &server,
        "",
        "audience = [\"a\"]\ncondition = 'scopes.exists(each, each == \"b\")'\n\
         [apps.admin]\nissuers = \"server\"\naudience = [\"z\"]\n\
         condition = 'scopes.exists(each, each == \"admin\")'",
    )
    .await;
    for _ in 0..2 {
        assert_eq!(exchange(&service, "web", "opaque").await.status, 200);
        exchange(&service, "admin", "opaque")
            .await
            .assert_refused(403, "condition_not_met");
    }
    assert_eq!(server.asked(INTROSPECT), 1);
}

#[tokio::test]
async fn one_token_is_asked_about_once_at_a_time() {
    let (server, service) = introspecting("", "").await;
    let server = Arc::new(server);
    let body = active(&server).to_string();
    // Answers after a moment, as long as several wait.
    server.behave(INTROSPECT, Behaviour::Late(Duration::from_secs(2)));
    let calls = (0..8).map(|_| service.session("opaque"));
    for answer in futures_util::future::join_all(calls).await {
        answer.assert_refused(503, "provider_unavailable");
    }
    assert_eq!(server.asked(INTROSPECT), 1);
    answers(&server, 200, body);
    assert_eq!(service.session("opaque").await.status, 200);
}

#[tokio::test]
async fn a_server_that_fails_in_a_row_is_left_alone_for_a_while() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 500, "");
    for number in 0..9 {
        let answer = service.session(&format!("opaque-{number}")).await;
        answer.assert_refused(503, "provider_unavailable");
    }
    assert_eq!(server.asked(INTROSPECT), 5);
    answers(&server, 200, active(&server));
    service.shift_clocks(0, 40);
    assert_eq!(service.session("opaque").await.status, 200);
    // A 429 is respected as long as it asks for.
    server.behave(
        INTROSPECT,
        Behaviour::Raw(
            b"HTTP/1.1 429 X\r\nretry-after: 20\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                .to_vec(),
        ),
    );
    let limited = "provider_rate_limited";
    let answer = service.session("another").await;
    answer.assert_refused(503, limited);
    assert_eq!(answer.header("retry-after"), "20");
    let asked = server.asked(INTROSPECT);
    answers(&server, 200, active(&server));
    service
        .session("another")
        .await
        .assert_refused(503, limited);
    assert_eq!(server.asked(INTROSPECT), asked);
    service.shift_clocks(0, 61);
    assert_eq!(service.session("another").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_the_endpoint_with_our_credentials() {
    let (server, service) = introspecting("", "").await;
    let row = || {
        let ended = service.command().run(&["doctor", "--json"]);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rows = said["checks"].as_array().unwrap().clone();
        let named = |row: &&Value| row["check"] == "introspection" && row["name"] == "server";
        let row = rows.iter().find(named).unwrap_or_else(|| panic!("{said}"));
        (row["status"].clone(), row["code"].clone())
    };
    for (status, body, expected) in [
        (200, json!({"active": false}), (json!("ok"), Value::Null)),
        (
            401,
            json!({"error": "invalid_client"}),
            (json!("fail"), json!("provider_credentials_invalid")),
        ),
        (
            500,
            json!({}),
            (json!("fail"), json!("provider_unavailable")),
        ),
    ] {
        answers(&server, status, body);
        assert_eq!(row(), expected, "{status}");
    }
    assert_eq!(server.asked(super::support::issuer::JWKS), 0);
}
