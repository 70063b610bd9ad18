//! Two services over one Redis: what was revoked or used at one is so at the other, and what is
//! answered while Redis is gone.

use crate::introspection_endpoint::{SECRET as CLIENT_SECRET, basic, post};
use crate::status_list::Verifier;
use crate::support::service::{Answer, Builder};
use crate::support::{Redis, Service, clerk, eventually};
use crate::webhooks::{Hook, SECRET, session_event};
use exchequer::standin::{Session, StandIn, known};
use serde_json::{Value, json};

const APPS: &str = r#"
[apps.web]
issuers = ["clerk"]
refresh = { grace = "0s" }
[apps.greeting]
issuers = ["clerk"]
audience = "https://greeting.example"
profile = { user = ["first_name"] }
[apps.listed]
issuers = ["clerk"]
audience = "https://listed.example"
status_list = true
[clients.reports]
secret = { env = "CLIENT_SECRET" }
audience = "https://tasks.internal"
status_list = true
"#;

/// A service over this Redis, that trusts this Clerk instance; its deadline is one that a busy
/// machine keeps.
fn replica(redis: &Redis, clerk: &StandIn) -> Builder {
    let hook = "webhook_secret = { env = \"HOOK\" }";
    Service::builder()
        .keyed_in_file(clerk, hook, APPS)
        .env("HOOK", SECRET)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("EXCHEQUER_STORE", format!("{}?deadline=2s", redis.url()))
        .env(
            "EXCHEQUER_KEYS_SECRET",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        )
}

async fn two(redis: &Redis, clerk: &StandIn) -> (Service, Service) {
    let one = replica(redis, clerk).start().await;
    (one, replica(redis, clerk).start().await)
}

/// An exchange for an app, of a new token of the known session.
async fn exchange(service: &Service, clerk: &StandIn, app: &str) -> Answer {
    let token = clerk.session_token(&Session::default());
    let body = json!({ "session_token": token, "app": app });
    service.exchange(&body).await
}

async fn exchange_id(service: &Service) -> Answer {
    let body = json!({ "session_id": known::SESSION, "app": "web" });
    service.exchange(&body).await
}

async fn begun(service: &Service, clerk: &StandIn) -> String {
    let token = clerk.session_token(&Session::default());
    let body = json!({ "session_token": token, "app": "web", "scope": "offline_access" });
    let answer = service.exchange(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["refresh_token"].as_str().unwrap().to_owned()
}

async fn refresh(service: &Service, token: &str) -> Answer {
    let pairs = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("client_id", "web"),
    ];
    post(service, "/oauth/token", None, &pairs).await
}

async fn verify(service: &Service, token: &str) -> Answer {
    let url = format!("{}/auth/verify?app=web", service.url);
    service
        .send(service.client.get(url).bearer_auth(token))
        .await
}

/// The whole of what is answered where the store would have to be asked.
#[track_caller]
fn assert_store_unavailable(answer: &Answer) {
    answer.assert_refused(503, "store_unavailable");
    let said = &answer.body;
    assert_eq!(said["error"], "temporarily_unavailable", "{said}");
    assert_eq!(said["action"], "retry", "{said}");
    assert_eq!(said["retryable"], true, "{said}");
    assert_eq!(said["source"], "exchequer", "{said}");
    assert_eq!(answer.header("retry-after"), "1", "{said}");
}

#[tokio::test]
async fn what_is_revoked_at_one_is_refused_at_the_other() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let (one, other) = two(&redis, &clerk).await;
    let token = exchange(&one, &clerk, "web").await.token().to_owned();
    assert_eq!(verify(&other, &token).await.status, 200);
    let pairs = [("token", token.as_str()), ("client_id", "web")];
    assert_eq!(post(&one, "/oauth/revoke", None, &pairs).await.status, 200);
    verify(&other, &token)
        .await
        .assert_refused(401, "token_revoked");
    let ended = session_event("session.ended", known::SESSION);
    Hook::new("msg_1", &ended)
        .to("web")
        .taken(&other, "revoked")
        .await;
    for service in [&one, &other] {
        exchange(service, &clerk, "web")
            .await
            .assert_refused(401, "session_revoked");
    }
    // The sender tries again, at whichever.
    Hook::new("msg_1", &ended)
        .to("web")
        .taken(&one, "repeated")
        .await;
}

#[tokio::test]
async fn a_service_token_that_was_revoked_at_one_is_in_the_list_of_both() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let (one, other) = two(&redis, &clerk).await;
    let proof = basic("reports", CLIENT_SECRET);
    let grant = [("grant_type", "client_credentials")];
    let answer = post(&one, "/oauth/token", Some(&proof), &grant).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = answer.body["access_token"].as_str().unwrap().to_owned();
    let mut verifier = Verifier::start();
    for service in [&one, &other] {
        assert!(!verifier.is_revoked(service, &token));
    }
    let pairs = [("token", token.as_str())];
    let answer = post(&other, "/oauth/revoke", Some(&proof), &pairs).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for service in [&one, &other] {
        service.shift_clocks(10, 10);
        assert!(verifier.is_revoked(service, &token));
        let url = format!(
            "{}/auth/verify?audience=https://tasks.internal",
            service.url
        );
        let asked = service.client.get(url).bearer_auth(&token);
        service
            .send(asked)
            .await
            .assert_refused(401, "token_revoked");
    }
    // Without a place for it there is no token.
    redis.stop();
    let answer = post(&one, "/oauth/token", Some(&proof), &grant).await;
    assert_store_unavailable(&answer);
    assert_store_unavailable(&exchange(&one, &clerk, "listed").await);
}

#[tokio::test]
async fn without_redis_exchanges_go_on_and_what_is_for_one_use_is_refused() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let (one, other) = two(&redis, &clerk).await;
    let minted = exchange(&one, &clerk, "web").await.token().to_owned();
    let refresh_token = begun(&one, &clerk).await;
    let gone = json!({ "session_token": clerk.session_token(&Session {
        session: Some("sess_gone".to_owned()),
        ..Session::default()
    }), "app": "web" });
    let ended = session_event("session.ended", "sess_gone");
    Hook::new("msg_1", &ended)
        .to("web")
        .taken(&one, "revoked")
        .await;
    // Both have read what one was told.
    eventually("both know the revocation", async || {
        let mut known = true;
        for service in [&one, &other] {
            let held = service.metric("exchequer_store_revocations").await;
            known &= held == Some(1.0);
        }
        known
    })
    .await;
    redis.stop();
    for service in [&one, &other] {
        exchange(service, &clerk, "web").await.token();
        service
            .exchange(&gone)
            .await
            .assert_refused(401, "session_revoked");
        assert_eq!(verify(service, &minted).await.status, 200);
        // The profile is asked for anew; whether the user is new cannot be told.
        let answer = exchange(service, &clerk, "greeting").await;
        answer.token();
        assert_eq!(answer.body["user"].get("is_new"), None, "{}", answer.body);
        assert_store_unavailable(&exchange_id(service).await);
        assert_store_unavailable(&refresh(service, &refresh_token).await);
        let token = exchange(service, &clerk, "web").await.token().to_owned();
        let pairs = [("token", token.as_str()), ("client_id", "web")];
        assert_store_unavailable(&post(service, "/oauth/revoke", None, &pairs).await);
        let fell_back = "exchequer_store_fallbacks_total{use=\"revocation\"}";
        assert!(service.metric(fell_back).await > Some(3.0));
    }
    redis.run().await;
    eventually("it goes on", async || {
        exchange_id(&other).await.status == 200
    })
    .await;
    exchange_id(&one)
        .await
        .assert_refused(401, "session_id_used");
}

#[tokio::test]
async fn where_policy_says_so_nothing_goes_on_without_redis() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let strict = replica(&redis, &clerk)
        .env("EXCHEQUER_STORE_DOWN_REVOCATION", "refuse")
        .start()
        .await;
    let strict_limits = replica(&redis, &clerk)
        .env("EXCHEQUER_RATE_LIMIT", "100/1m")
        .env("EXCHEQUER_STORE_DOWN_LIMITS", "refuse")
        .start()
        .await;
    let local = replica(&redis, &clerk)
        .env("EXCHEQUER_RATE_LIMIT", "3/1h")
        .start()
        .await;
    redis.stop();
    for service in [&strict, &strict_limits] {
        assert_store_unavailable(&exchange(service, &clerk, "web").await);
    }
    for _ in 0..3 {
        exchange(&local, &clerk, "web").await.token();
    }
    let answer = exchange(&local, &clerk, "web").await;
    assert_eq!(answer.status, 429, "{}", answer.body);
}

#[tokio::test]
async fn a_service_that_starts_without_redis_refuses_until_it_has_read_what_was_revoked() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let mut service = replica(&redis, &clerk).start().await;
    redis.stop();
    service.restart().await;
    assert_store_unavailable(&exchange(&service, &clerk, "web").await);
    redis.run().await;
    eventually("it has read them", async || {
        exchange(&service, &clerk, "web").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn registered_clients_serve_on_without_redis_and_none_is_unknown_before_they_were_read() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let mut service = replica(&redis, &clerk).start().await;
    const BACKEND: &str = "https://tasks.internal";
    let add = |id| ["clients", "add", id, "--audience", BACKEND, "--json"];
    let added = service.command().run(&add("worker"));
    assert_eq!(added.code, 0, "{added:?}");
    let added: Value = serde_json::from_str(&added.stdout).unwrap();
    let secret = added["client_secret"].as_str().unwrap().to_owned();
    let wrong = "w".repeat(secret.len());
    let ask = async |service: &Service, id: &str, secret: &str| {
        let pairs = [("grant_type", "client_credentials"), ("audience", BACKEND)];
        post(service, "/oauth/token", Some(&basic(id, secret)), &pairs).await
    };
    let show = async |service: &Service, token: &str| {
        let url = format!("{}/auth/verify?audience={BACKEND}", service.url);
        let request = service.client.get(url).bearer_auth(token);
        service.send(request).await
    };
    let mut minted = String::new();
    eventually("it is read", async || {
        let answer = ask(&service, "worker", &secret).await;
        let token = answer.body["access_token"].as_str().unwrap_or_default();
        minted = token.to_owned();
        answer.status == 200
    })
    .await;
    redis.freeze();
    assert_eq!(ask(&service, "worker", &secret).await.status, 200);
    assert_eq!(show(&service, &minted).await.status, 200);
    for (id, secret) in [("worker", &wrong), ("nobody", &secret)] {
        ask(&service, id, secret)
            .await
            .assert_refused(401, "client_authentication_failed");
    }
    let refused = service.command().run(&add("other"));
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(
        refused.stderr.contains("Redis did not answer"),
        "{refused:?}"
    );

    // Whoever starts now cannot tell a client that it is none.
    service.restart().await;
    for (id, secret) in [("worker", &secret), ("worker", &wrong), ("nobody", &secret)] {
        assert_store_unavailable(&ask(&service, id, secret).await);
    }
    redis.thaw();
    eventually("they are read", async || {
        let shown = show(&service, &minted).await;
        if shown.status != 200 {
            assert_store_unavailable(&shown);
        }
        let asked = ask(&service, "worker", &secret).await;
        if asked.status != 200 {
            assert_store_unavailable(&asked);
        }
        (shown.status, asked.status) == (200, 200)
    })
    .await;
    ask(&service, "nobody", &secret)
        .await
        .assert_refused(401, "client_authentication_failed");
}

#[tokio::test]
async fn the_clients_command_and_explain_talk_to_redis_themselves() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let service = replica(&redis, &clerk).start().await;
    let token = exchange(&service, &clerk, "web").await.token().to_owned();
    let pairs = [("token", token.as_str()), ("client_id", "web")];
    assert_eq!(
        post(&service, "/oauth/revoke", None, &pairs).await.status,
        200
    );
    let told = service.command().input(&token).run(&["explain"]);
    assert!(told.stdout.contains("token_revoked"), "{told:?}");
    let add = [
        "clients",
        "add",
        "worker",
        "--audience",
        "https://tasks.internal",
    ];
    let told = service.command().run(&add);
    assert_eq!(told.code, 0, "{told:?}");
    let told = service.command().run(&["clients", "list"]);
    assert!(told.stdout.contains("worker"), "{told:?}");
    assert_eq!(redis.ask(&["KEYS", "*:e:*"]).lines().count(), 1);
}

#[tokio::test]
async fn the_least_rights_that_the_docs_name_are_enough() {
    let (redis, clerk) = (Redis::start().await, clerk().await);
    let page = std::fs::read_to_string("docs/operating.md").unwrap();
    let rule = page.lines().find(|line| line.starts_with("ACL SETUSER"));
    let rule: Vec<&str> = rule.unwrap().split(' ').collect();
    assert_eq!(redis.ask(&rule), "OK");
    let url = redis
        .url()
        .replace("redis://", "redis://exchequer:PASSWORD@");
    let service = replica(&redis, &clerk)
        .env("EXCHEQUER_STORE", format!("{url}?deadline=2s"))
        .env("EXCHEQUER_RATE_LIMIT", "100/1m")
        .start()
        .await;
    exchange_id(&service).await.token();
    let token = exchange(&service, &clerk, "greeting").await;
    assert_eq!(token.body["user"]["is_new"], true, "{}", token.body);
    let refresh_token = begun(&service, &clerk).await;
    assert_eq!(refresh(&service, &refresh_token).await.status, 200);
    let pairs = [("token", token.token()), ("client_id", "greeting")];
    assert_eq!(
        post(&service, "/oauth/revoke", None, &pairs).await.status,
        200
    );
    exchange(&service, &clerk, "listed").await.token();
    let list = service.get("/.well-known/status-lists/1").await;
    assert_eq!(list.status, 200, "{}", list.body);
    assert_eq!(
        service.metric("exchequer_store_failures_total").await,
        Some(0.0)
    );
}

#[tokio::test]
async fn a_replica_that_never_saw_redis_lets_nobody_guess_and_denies_no_list() {
    let clerk = clerk().await;
    let service = Service::builder()
        .keyed_in_file(
            &clerk,
            "",
            "[apps.web]\nissuers = [\"clerk\"]\naudience = \"https://api.example.com\"\n",
        )
        .env("EXCHEQUER_STORE", "redis://127.0.0.1:1?deadline=100ms")
        .env(
            "EXCHEQUER_KEYS_SECRET",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        )
        .env("EXCHEQUER_RATE_LIMIT", "2/1h")
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    // A registered client may have a place in it.
    assert_store_unavailable(&service.get("/.well-known/status-lists/1").await);
    let guess = async || {
        let request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-forwarded-for", "203.0.113.66")
            .header("authorization", basic("worker", "guess"))
            .body("grant_type=client_credentials");
        service.send(request).await
    };
    for _ in 0..4 {
        assert_store_unavailable(&guess().await);
    }
    guess().await.assert_refused(429, "rate_limited");
    let refused = service.logged("refused");
    assert_eq!(
        refused.last().unwrap()["cause"],
        "instead of client_authentication_failed"
    );
}
