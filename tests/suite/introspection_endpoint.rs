//! `POST /oauth/introspect` (RFC 7662): whoever is asked by, it tells what holds, to those whom
//! it concerns, and of everything else the same two words.

use crate::support::{Answer, Issuer, Key, Service, Token, eventually, token};
use crate::webhooks::{self, Hook};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

pub const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";

/// The apps `web` and `other`, and the clients `tasks`, which is an audience of `web`'s, `mail`,
/// which is none, and `worker`, which gets tokens of its own.
pub async fn world() -> (Issuer, Service) {
    world_with(&[]).await
}

/// The same, with these variables.
pub async fn world_with(variables: &[(&str, &str)]) -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let secret = "secret = { env = \"CLIENT_SECRET\" }";
    let mut builder = Service::builder();
    for (name, value) in variables {
        builder = builder.env(name, *value);
    }
    let service = builder
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\nwebhook_secret = {{ env = \"HOOKS\" }}\n\
             [apps.web]\nissuers = \"clerk\"\naudience = \"https://tasks.internal\"\nrefresh = {{}}\n\
             scopes.\"read:tasks\" = [\"task.view\"]\n\
             [apps.other]\nissuers = \"clerk\"\naudience = \"https://other.internal\"\n\
             [clients.tasks]\n{secret}\nintrospect = [\"https://tasks.internal\"]\n\
             [clients.mail]\n{secret}\nintrospect = \"https://mail.internal\"\n\
             [clients.desk]\n{secret}\napps = [\"other\"]\n\
             [clients.worker]\n{secret}\naudience = \"https://tasks.internal\"\nscopes = \"send:mail\"\n"
        ))
        .env("CLIENT_SECRET", SECRET)
        .env("HOOKS", webhooks::SECRET)
        .env("EXCHEQUER_AUDIT", "file:audit")
        .start()
        .await;
    (issuer, service)
}

pub fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Posts a form, with this Authorization header.
pub async fn post(
    service: &Service,
    path: &str,
    authorization: Option<&str>,
    pairs: &[(&str, &str)],
) -> Answer {
    let mut request = service
        .client
        .post(format!("{}{path}", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(pairs));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    service.send(request).await
}

/// Asks as a client about a token.
pub async fn introspect(service: &Service, client: &str, token: &str) -> Answer {
    let proof = basic(client, SECRET);
    post(
        service,
        "/oauth/introspect",
        Some(&proof),
        &[("token", token)],
    )
    .await
}

/// Asserts that a token is not active, and that nothing else is said.
#[track_caller]
pub fn assert_inactive(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body, json!({ "active": false }));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
}

/// An app token of `app`.
pub async fn app_token(service: &Service, issuer: &Issuer, app: &str) -> String {
    let body = json!({"session_token": issuer.token(), "app": app});
    service.exchange(&body).await.token().to_owned()
}

/// A service token of the client `worker`.
pub async fn service_token(service: &Service) -> String {
    let proof = basic("worker", SECRET);
    let grant = [("grant_type", "client_credentials")];
    let answer = post(service, "/oauth/token", Some(&proof), &grant).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_active_token_is_told_whole_to_the_resource_that_it_is_for() {
    let (issuer, service) = world().await;
    let compact = app_token(&service, &issuer, "web").await;
    let answer = introspect(&service, "tasks", &compact).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let claims = token::claims(&compact);
    let (iat, jti) = (claims["iat"].as_i64().unwrap(), claims["jti"].clone());
    assert_eq!(
        answer.body,
        json!({
            "active": true, "token_type": "Bearer", "iss": "http://localhost:8080",
            "sub": "user_1", "aud": "https://tasks.internal", "client_id": "web",
            "exp": iat + 610, "iat": iat, "nbf": iat, "jti": jti, "idp": issuer.url,
            "sid": "sess_1", "org_id": "org_1", "org_slug": "acme", "roles": ["org:admin"],
            "scope": "read:tasks", "permissions": ["task.view"],
            "auth_time": claims["auth_time"],
        })
    );
    // In JSON, with a hint, wrong or right, and with the client's secret in the body.
    let request = service
        .client
        .post(format!("{}/oauth/introspect", service.url))
        .header("content-type", "application/json").body(json!({
            "token": compact, "client_id": "tasks", "client_secret": SECRET, "unknown": "ignored",
        }).to_string());
    assert_eq!(service.send(request).await.body, answer.body);
    for hint in ["access_token", "refresh_token", "anything"] {
        let pairs = [("token", compact.as_str()), ("token_type_hint", hint)];
        let proof = basic("tasks", SECRET);
        let hinted = post(&service, "/oauth/introspect", Some(&proof), &pairs).await;
        assert_eq!(hinted.body, answer.body, "{hint}");
    }
    let compact = service_token(&service).await;
    let answer = introspect(&service, "tasks", &compact).await;
    let claims = token::claims(&compact);
    let iat = claims["iat"].as_i64().unwrap();
    assert_eq!(
        answer.body,
        json!({
            "active": true, "token_type": "Bearer", "iss": "http://localhost:8080",
            "sub": "worker", "aud": "https://tasks.internal", "client_id": "worker",
            "exp": iat + 310, "iat": iat, "nbf": iat, "jti": claims["jti"], "scope": "send:mail",
        })
    );
}

#[tokio::test]
async fn a_client_sees_its_own_tokens_and_those_meant_for_it_and_no_others() {
    let (issuer, service) = world().await;
    let web = app_token(&service, &issuer, "web").await;
    let other = app_token(&service, &issuer, "other").await;
    let own = service_token(&service).await;
    for (client, sees) in [
        ("tasks", [true, false, true]),
        ("mail", [false, false, false]),
        ("desk", [false, true, false]),
        // May ask for tokens for tasks.internal, and is not tasks.internal.
        ("worker", [false, false, true]),
    ] {
        for (token, sees) in [&web, &other, &own].into_iter().zip(sees) {
            let answer = introspect(&service, client, token).await;
            if sees {
                assert_eq!(answer.body["active"], true, "{client}: {}", answer.body);
            } else {
                assert_inactive(&answer);
            }
        }
    }
    let mut line = Value::Null;
    eventually("the log says why", async || {
        let lines = service.logged("introspected");
        let found = lines.into_iter().find(|line| line["client"] == "mail");
        line = found.unwrap_or_default();
        line["code"] == "introspection_not_allowed"
    })
    .await;
    assert_eq!(line["seen"], "https://tasks.internal");
    assert_eq!(line["expected"], "https://mail.internal");
}

/// RFC 7662 §2.1: whoever asks proves that it may, or tokens could be tried out here.
#[tokio::test]
async fn nobody_learns_anything_without_proving_itself() {
    let (issuer, service) = world().await;
    let compact = app_token(&service, &issuer, "web").await;
    let token = ("token", compact.as_str());
    let wrong = basic("tasks", "wrong");
    for (authorization, pairs, code) in [
        (None, vec![token], "client_authentication_missing"),
        // A public client proves nothing.
        (
            None,
            vec![token, ("client_id", "web")],
            "client_authentication_missing",
        ),
        (
            None,
            vec![token, ("client_id", "nobody")],
            "client_authentication_missing",
        ),
        (
            None,
            vec![token, ("client_id", "tasks")],
            "client_authentication_missing",
        ),
        (
            Some(wrong.as_str()),
            vec![token],
            "client_authentication_failed",
        ),
        (
            None,
            vec![token, ("client_id", "tasks"), ("client_secret", "wrong")],
            "client_authentication_failed",
        ),
        // A bearer is no client here (§2.1 leaves it open).
        (
            Some(&format!("Bearer {compact}")),
            vec![token],
            "client_authentication_missing",
        ),
    ] {
        let answer = post(&service, "/oauth/introspect", authorization, &pairs).await;
        answer.assert_refused(401, code);
        assert_eq!(answer.body["error"], "invalid_client");
    }
    let proof = basic("tasks", SECRET);
    for (pairs, code) in [
        (vec![], "parameter_malformed"),
        (vec![("token", "")], "parameter_malformed"),
        (vec![token, token], "parameter_malformed"),
    ] {
        let answer = post(&service, "/oauth/introspect", Some(&proof), &pairs).await;
        answer.assert_refused(400, code);
        assert_eq!(answer.body["error"], "invalid_request");
    }
    service
        .get(&format!("/oauth/introspect?token={compact}"))
        .await
        .assert_refused(405, "method_not_allowed");
    let request = service
        .client
        .post(format!("{}/oauth/introspect", service.url))
        .header("authorization", &proof)
        .header("content-type", "text/plain")
        .body(form(&[token]));
    service
        .send(request)
        .await
        .assert_refused(415, "content_type_unsupported");
}

#[tokio::test]
async fn what_is_no_token_of_ours_that_holds_is_not_active_and_the_log_says_why() {
    let (issuer, service) = world().await;
    let compact = app_token(&service, &issuer, "web").await;
    let foreign = issuer.token();
    let (head, rest) = compact.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut claims = token::claims(&compact);
    claims["scope"] = "admin".into();
    let forged = format!("{head}.{}.{signature}", token::encode(claims.to_string()));
    let unknown_key = Token {
        header: json!({"alg": "ES256", "kid": "none", "typ": "JWT"}),
        claims: token::claims(&compact),
    };
    let unknown_key = unknown_key.sign(Key::rsa());
    for (token, code) in [
        ("x", "app_token_malformed"),
        // The tokens of RFC 7662 §2.1.
        ("mF_9.B5f-4.1JqM", "app_token_malformed"),
        ("2YotnFZFEjr1zCsicMWpAA", "app_token_malformed"),
        ("ert_AAAA", "refresh_token_unknown"),
        ("a.b.c", "app_token_malformed"),
        (foreign.as_str(), "token_not_ours"),
        (&forged, "app_token_signature_invalid"),
        (&unknown_key, "app_token_key_unknown"),
    ] {
        let before = service.logged("introspected").len();
        assert_inactive(&introspect(&service, "tasks", token).await);
        eventually("the log says why", async || {
            let lines = service.logged("introspected");
            lines.len() > before && lines.last().unwrap()["code"] == code
        })
        .await;
    }
    assert!(service.log().iter().all(|line| !line.contains(&foreign)));
    service.shift_clocks(601, 601);
    assert_inactive(&introspect(&service, "tasks", &compact).await);
    let audit = std::fs::read_to_string(service.dir().join("audit")).unwrap();
    let events = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let outcomes: Vec<Value> = events
        .filter(|event| event["action"] == "introspect")
        .map(|event| event["outcome"].clone())
        .collect();
    assert_eq!(outcomes[0], "app_token_malformed");
    assert!(outcomes.contains(&json!("token_not_ours")), "{outcomes:?}");
}

#[tokio::test]
async fn what_was_revoked_is_not_active_from_then_on() {
    for (event, code) in [
        (
            webhooks::session_event("session.ended", "sess_1"),
            "session_revoked",
        ),
        (webhooks::user_deleted(), "user_deleted"),
        (
            webhooks::membership_event("organizationMembership.updated", 0),
            "membership_changed",
        ),
    ] {
        let (issuer, service) = world().await;
        let compact = app_token(&service, &issuer, "web").await;
        let own = service_token(&service).await;
        for _ in 0..2 {
            let answer = introspect(&service, "tasks", &compact).await;
            assert_eq!(answer.body["active"], true, "{code}: {}", answer.body);
        }
        Hook::new("msg_1", &event)
            .to("web")
            .taken(&service, "revoked")
            .await;
        assert_inactive(&introspect(&service, "tasks", &compact).await);
        let mut lines = Vec::new();
        eventually("the log says why", async || {
            lines = service.logged("introspected");
            lines.last().is_some_and(|line| line["code"] == code)
        })
        .await;
        let answer = introspect(&service, "tasks", &own).await;
        assert_eq!(answer.body["active"], true, "no user's: {}", answer.body);
    }
}

#[tokio::test]
async fn a_token_of_an_app_that_is_gone_or_of_a_revoked_key_is_not_active() {
    let (issuer, mut service) = world().await;
    let compact = app_token(&service, &issuer, "other").await;
    let answer = introspect(&service, "desk", &compact).await;
    assert_eq!(answer.body["active"], true);
    let file = service.dir().join("exchequer.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let at = text.replace("[apps.other]\n", "[apps.other]\ntyp = \"at+jwt\"\n");
    let own = service_token(&service).await;
    let answer = introspect(&service, "tasks", &own).await;
    assert_eq!(answer.body["active"], true);
    let at = at.replace("[clients.worker]", "[clients.gone]");
    std::fs::write(&file, at).unwrap();
    service.restart().await;
    assert_inactive(&introspect(&service, "desk", &compact).await);
    assert_inactive(&introspect(&service, "tasks", &own).await);
    std::fs::write(&file, text).unwrap();
    service.restart().await;
    let answer = introspect(&service, "desk", &compact).await;
    assert_eq!(answer.body["active"], true);
    let kid = token::header(&compact)["kid"].clone();
    let revoked = service
        .command()
        .run(&["keys", "revoke", kid.as_str().unwrap()]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    eventually("the key is gone", async || {
        introspect(&service, "desk", &compact).await.body == json!({"active": false})
    })
    .await;
}
