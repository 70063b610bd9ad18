//! `POST /oauth/revoke` (RFC 7009): what a client no longer needs opens nothing from then on,
//! at any door, and nobody revokes what is another's.

use crate::introspection_endpoint::{
    SECRET, app_token, assert_inactive, basic, introspect, post, service_token, world, world_with,
};
use crate::support::{Answer, Issuer, Key, Redis, Service, Token, eventually, now, token};
use serde_json::{Value, json};

async fn revoke(service: &Service, authorization: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
    post(service, "/oauth/revoke", authorization, pairs).await
}

/// RFC 7009 §2.2: the status says all.
#[track_caller]
fn assert_done(answer: &Answer) {
    assert_eq!((answer.status, &answer.body), (200, &json!("")));
    assert_eq!(answer.header("content-length"), "0");
    assert_eq!(answer.header("cache-control"), "no-store");
}

async fn verify(service: &Service, token: &str) -> Answer {
    let url = format!("{}/auth/verify", service.url);
    service
        .send(service.client.get(url).bearer_auth(token))
        .await
}

async fn is_active(service: &Service, token: &str) -> bool {
    introspect(service, "tasks", token).await.body["active"] == true
}

#[tokio::test]
async fn a_public_app_revokes_its_token_by_naming_itself_and_every_door_knows() {
    let (issuer, service) = world().await;
    let one = app_token(&service, &issuer, "web").await;
    let other = app_token(&service, &issuer, "web").await;
    for token in [&one, &other] {
        assert_eq!(verify(&service, token).await.status, 200);
        assert!(is_active(&service, token).await);
    }
    let answer = revoke(&service, None, &[("token", &one), ("client_id", "web")]).await;
    assert_done(&answer);
    verify(&service, &one)
        .await
        .assert_refused(401, "token_revoked");
    assert_inactive(&introspect(&service, "tasks", &one).await);
    // The user's other token, and their session, are not touched.
    assert_eq!(verify(&service, &other).await.status, 200);
    assert!(is_active(&service, &other).await);
    app_token(&service, &issuer, "web").await;
    // Again is as good (§2.2).
    let answer = revoke(&service, None, &[("token", &one), ("client_id", "web")]).await;
    assert_done(&answer);
    let jti = token::claims(&one)["jti"].clone();
    let mut lines = Vec::new();
    eventually("both are logged", async || {
        lines = service.logged("revoked");
        lines.len() == 2
    })
    .await;
    assert_eq!(
        (&lines[0]["client"], &lines[0]["jti"]),
        (&json!("web"), &jti)
    );
    assert_eq!(
        (&lines[0]["result"], &lines[1]["result"]),
        (&json!("ok"), &json!("nothing"))
    );
    let audit = std::fs::read_to_string(service.dir().join("audit")).unwrap();
    let events = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events: Vec<Value> = events.filter(|event| event["action"] == "revoke").collect();
    assert_eq!(events.len(), 1, "what changed nothing is no event");
    assert_eq!(
        (&events[0]["outcome"], &events[0]["jti"]),
        (&json!("ok"), &jti)
    );
    assert_eq!(events[0]["client"], "web");
}

/// The request of RFC 7009 §2.1, with a client and a token of ours.
#[tokio::test]
async fn a_client_revokes_the_tokens_that_it_got_and_those_of_its_apps() {
    let (issuer, service) = world().await;
    let (worker, desk) = (basic("worker", SECRET), basic("desk", SECRET));
    let own = service_token(&service).await;
    for hint in ["access_token", "refresh_token", "no_such_type"] {
        let pairs = [("token", own.as_str()), ("token_type_hint", hint)];
        assert_done(&revoke(&service, Some(&worker), &pairs).await);
    }
    assert_inactive(&introspect(&service, "worker", &own).await);
    let url = format!(
        "{}/auth/verify?audience=https://tasks.internal",
        service.url
    );
    let asked = service.client.get(url).bearer_auth(&own);
    service
        .send(asked)
        .await
        .assert_refused(401, "token_revoked");
    let token = app_token(&service, &issuer, "other").await;
    assert_done(&revoke(&service, Some(&desk), &[("token", &token)]).await);
    assert_inactive(&introspect(&service, "desk", &token).await);
    // In JSON, and with the secret in the body.
    let own = service_token(&service).await;
    let request = service
        .client
        .post(format!("{}/oauth/revoke", service.url))
        .header("content-type", "application/json")
        .body(json!({"token": own, "client_id": "worker", "client_secret": SECRET}).to_string());
    assert_done(&service.send(request).await);
    assert_inactive(&introspect(&service, "worker", &own).await);
}

#[tokio::test]
async fn nobody_revokes_what_is_anothers() {
    let (issuer, service) = world().await;
    let web = app_token(&service, &issuer, "web").await;
    let own = service_token(&service).await;
    let (worker, tasks) = (basic("worker", SECRET), basic("tasks", SECRET));
    let wrong = basic("worker", "wrong");
    let (web_token, own_token) = (("token", web.as_str()), ("token", own.as_str()));
    for (authorization, pairs, status, code) in [
        // §2.1: it was issued to another client.
        (
            Some(worker.as_str()),
            vec![web_token],
            400,
            "token_of_another_client",
        ),
        (
            Some(tasks.as_str()),
            vec![web_token],
            400,
            "token_of_another_client",
        ),
        (
            None,
            vec![web_token, ("client_id", "other")],
            400,
            "token_of_another_client",
        ),
        (
            None,
            vec![own_token, ("client_id", "web")],
            400,
            "token_of_another_client",
        ),
        (None, vec![web_token], 401, "client_authentication_missing"),
        (
            None,
            vec![web_token, ("client_id", "nobody")],
            401,
            "client_authentication_missing",
        ),
        // A client with a secret proves itself.
        (
            None,
            vec![own_token, ("client_id", "worker")],
            401,
            "client_authentication_missing",
        ),
        (
            Some(wrong.as_str()),
            vec![own_token],
            401,
            "client_authentication_failed",
        ),
        (Some(worker.as_str()), vec![], 400, "parameter_malformed"),
        (
            Some(worker.as_str()),
            vec![own_token, own_token],
            400,
            "parameter_malformed",
        ),
    ] {
        let answer = revoke(&service, authorization, &pairs).await;
        answer.assert_refused(status, code);
        let error = match code {
            "token_of_another_client" => "invalid_grant",
            "parameter_malformed" => "invalid_request",
            _ => "invalid_client",
        };
        assert_eq!(answer.body["error"], error);
    }
    assert!(is_active(&service, &web).await);
    assert!(is_active(&service, &own).await);
    service
        .get(&format!("/oauth/revoke?token={web}&client_id=web"))
        .await
        .assert_refused(405, "method_not_allowed");
    assert!(is_active(&service, &web).await);
}

#[tokio::test]
async fn a_token_that_there_is_not_is_as_good_as_revoked_and_a_providers_is_not() {
    let (issuer, service) = world().await;
    let client = ("client_id", "web");
    let expired = app_token(&service, &issuer, "web").await;
    let (head, rest) = expired.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let forged = format!("{head}.{claims}.{}", token::encode([7; 64]));
    let stranger = Token::clerk("https://stranger.example").sign(Key::rsa());
    for token in [
        "45ghiukldjahdnhzdauz",
        "a.b.c",
        "oat_ABC",
        &forged,
        &stranger,
    ] {
        let answer = revoke(&service, None, &[("token", token), client]).await;
        assert_done(&answer);
    }
    assert!(
        is_active(&service, &expired).await,
        "the forgery revoked nothing"
    );
    let provider = issuer.token();
    let answer = revoke(&service, None, &[("token", &provider), client]).await;
    answer.assert_refused(400, "token_type_unsupported");
    assert_eq!(answer.body["error"], "unsupported_token_type");
    app_token(&service, &issuer, "web").await;
    service.shift_clocks(601, 601);
    assert_done(&revoke(&service, None, &[("token", &expired), client]).await);
}

#[tokio::test]
async fn clerks_opaque_tokens_are_not_revoked_here_where_they_are_taken() {
    let issuer = Issuer::start().await;
    let lines = "accepts = [\"session\", \"oauth\"]\nsecret_key = { env = \"KEY\" }";
    let service = Service::builder()
        .one_app(&issuer, lines, "")
        .env("KEY", "sk_test_0123456789")
        .start()
        .await;
    for (token, code) in [
        ("oat_ABC", Some("token_type_unsupported")),
        ("ak_ABC", None),
    ] {
        let answer = revoke(&service, None, &[("token", token), ("client_id", "web")]).await;
        match code {
            Some(code) => answer.assert_refused(400, code),
            None => assert_done(&answer),
        }
    }
}

#[tokio::test]
async fn a_revocation_that_was_answered_survives_a_kill() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .one_app(&issuer, "", "")
        .env("EXCHEQUER_STORE", "store.redb")
        .start()
        .await;
    let one = service.session(&issuer.token()).await.token().to_owned();
    let other = service.session(&issuer.token()).await.token().to_owned();
    assert_done(&revoke(&service, None, &[("token", &one), ("client_id", "web")]).await);
    service.restart().await;
    verify(&service, &one)
        .await
        .assert_refused(401, "token_revoked");
    assert_eq!(verify(&service, &other).await.status, 200);
}

#[tokio::test]
async fn a_browsers_app_may_revoke_from_its_own_origin() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "")
        .env("EXCHEQUER_ALLOWED_ORIGINS", "https://app.example.com")
        .start()
        .await;
    let token = service.session(&issuer.token()).await.token().to_owned();
    let url = format!("{}/oauth/revoke", service.url);
    for (origin, allowed) in [
        ("https://app.example.com", "https://app.example.com"),
        ("https://evil.example", ""),
    ] {
        let preflight = service
            .client
            .request(reqwest::Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let answer = service.send(preflight).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        let request = service
            .client
            .post(&url)
            .header("origin", origin)
            .header("content-type", "application/json")
            .body(json!({"token": token, "client_id": "web"}).to_string());
        let answer = service.send(request).await;
        assert_done(&answer);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn one_token_is_revoked_so_often_and_no_more() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "")
        .env("EXCHEQUER_RATE_LIMIT", "3/1m")
        .start()
        .await;
    let token = service.session(&issuer.token()).await.token().to_owned();
    for expected in [200, 200, 200, 429] {
        let answer = revoke(&service, None, &[("token", &token), ("client_id", "web")]).await;
        assert_eq!(answer.status, expected, "{}", answer.body);
    }
}

/// RFC 7009 §2.1: its holder ends a refresh token, and with it all that came of the same
/// sign-in; no resource is told of it (RFC 7662 §4).
#[tokio::test]
async fn a_refresh_token_is_its_clients_to_ask_about_and_to_revoke() {
    let issuer = Issuer::start().await;
    let secret = "secret = { env = \"CLIENT_SECRET\" }";
    let clients = format!(
        "refresh = {{}}\naudience = \"https://tasks.internal\"\nscopes.\"read:tasks\" = []\n\
         [apps.other]\nissuers = \"clerk\"\n\
         [clients.desk]\n{secret}\napps = \"web\"\n\
         [clients.tasks]\n{secret}\nintrospect = \"https://tasks.internal\"\n"
    );
    let service = Service::builder()
        .one_app(&issuer, "", &clients)
        .env("CLIENT_SECRET", SECRET)
        .start()
        .await;
    let begun = async || {
        let scope = "offline_access read:tasks";
        let body = json!({"session_token": issuer.token(), "app": "web", "scope": scope});
        let answer = service.exchange(&body).await;
        answer.body["refresh_token"].as_str().unwrap().to_owned()
    };
    let refreshed = async |token: &str| {
        let pairs = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", "web"),
        ];
        post(&service, "/oauth/token", None, &pairs).await
    };
    let (first, other) = (begun().await, begun().await);
    let mut told = introspect(&service, "desk", &first).await.body;
    let until = told["exp"].take().as_i64().unwrap() - now();
    assert!((7 * 86_400 - 5..=7 * 86_400).contains(&until), "{until}");
    assert_eq!(
        told,
        json!({
            "active": true, "iss": "http://localhost:8080", "client_id": "web", "exp": null,
            "scope": told["scope"],
        })
    );
    assert_inactive(&introspect(&service, "tasks", &first).await);
    for pairs in [
        vec![("token", first.as_str()), ("client_id", "other")],
        vec![
            ("token", first.as_str()),
            ("client_id", "tasks"),
            ("client_secret", SECRET),
        ],
    ] {
        let answer = revoke(&service, None, &pairs).await;
        answer.assert_refused(400, "token_of_another_client");
    }
    let second = refreshed(&first).await.body["refresh_token"].clone();
    let second = second.as_str().unwrap();
    // Whichever of the family.
    assert_done(&revoke(&service, None, &[("token", &first), ("client_id", "web")]).await);
    refreshed(second)
        .await
        .assert_refused(400, "refresh_token_revoked");
    for token in [&first, second] {
        assert_inactive(&introspect(&service, "desk", token).await);
        assert_done(&revoke(&service, None, &[("token", token), ("client_id", "web")]).await);
    }
    assert_eq!(refreshed(&other).await.status, 200);
    let mut lines = Vec::new();
    eventually("it is logged", async || {
        lines = service.logged("revoked");
        lines.len() == 3
    })
    .await;
    assert_eq!(lines[0]["kind"], "refresh_token");
    assert_eq!(
        (&lines[0]["app"], &lines[0]["result"]),
        (&json!("web"), &json!("ok"))
    );
    assert_eq!(lines[2]["result"], "nothing");
}

/// An answer could be taken for a revocation that was made, or for a token that holds.
#[tokio::test]
async fn while_the_store_does_not_answer_nothing_is_told_or_revoked() {
    let redis = Redis::start().await;
    let ring_secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (issuer, service) = world_with(&[
        ("EXCHEQUER_STORE", &redis.url()),
        ("EXCHEQUER_KEYS_SECRET", ring_secret),
        ("EXCHEQUER_STORE_DOWN_REVOCATION", "refuse"),
    ])
    .await;
    let body = json!({"session_token": issuer.token(), "app": "web", "scope": "offline_access"});
    let begun = service.exchange(&body).await;
    let refresh_token = begun.body["refresh_token"].as_str().unwrap();
    let tokens = [begun.token(), refresh_token];
    assert!(is_active(&service, begun.token()).await);
    redis.stop();
    for token in tokens {
        let pairs = [("token", token), ("client_id", "web")];
        for answer in [
            introspect(&service, "tasks", token).await,
            revoke(&service, None, &pairs).await,
        ] {
            assert_eq!(answer.body.get("active"), None, "{}", answer.body);
            answer.assert_refused(503, "store_unavailable");
            assert!(!answer.header("retry-after").is_empty());
        }
    }
    redis.run().await;
    eventually("it is told again", async || {
        is_active(&service, begun.token()).await
    })
    .await;
    eventually("it is revoked", async || {
        let pairs = [("token", refresh_token), ("client_id", "web")];
        revoke(&service, None, &pairs).await.status == 200
    })
    .await;
    assert_inactive(&introspect(&service, "tasks", begun.token()).await);
}
