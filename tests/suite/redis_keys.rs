//! Nothing in a Redis grows for ever: after every way to write to it, each key ends by itself, or is
//! one of few, or is one for each user or client, and is written once.

use crate::introspection_endpoint::post;
use crate::replica_races::shared;
use crate::support::{Answer, Issuer, Key, Redis, Service, clerk};
use crate::webhooks::{Hook, SECRET, session_event};
use crate::{client_auth, dpop, sign_in};
use exchequer::standin::{Session, StandIn, known};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What may last, by the end of its name or its kind, how many there are, and why.
const LASTING: [(&str, usize, &str); 12] = [
    ("ring", 1, "the key ring"),
    ("epoch", 1, "what tells a loss"),
    ("changes", 1, "a number"),
    ("log", 1, "its members are swept"),
    ("log-ends", 1, "its members are swept"),
    ("statuses", 1, "its members are swept"),
    ("statuses-ends", 1, "its members are swept"),
    ("outbox", 1, "its members are settled or given up"),
    ("messages", 1, "its members are settled or given up"),
    ("o:", 1, "that a user was seen by an app with a profile"),
    ("c:", 1, "the same, as it is read"),
    ("e:", 1, "a registered client, until it is removed"),
];

const APPS: &str = r#"
[apps.web]
issuers = ["clerk"]
refresh = {}
[apps.greeting]
issuers = ["clerk"]
audience = "https://greeting.example"
[apps.greeting.profile]
user = ["first_name"]
[apps.greeting.profile.events]
url = "http://127.0.0.1:9/nobody-listens"
secret = { env = "HOOK" }
[apps.listed]
issuers = ["clerk"]
audience = "https://listed.example"
status_list = true
"#;

/// The keys that do not end: how many of each kind.
fn lasting(redis: &Redis) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for key in redis.ask(&["KEYS", "*"]).lines() {
        let ends: i64 = redis.ask(&["TTL", key]).parse().unwrap();
        let rest = key.rsplit_once("}:").unwrap().1;
        let kind = rest.split_inclusive(':').next().unwrap();
        if ends == -1 {
            *kinds.entry(kind.to_owned()).or_default() += 1;
        } else {
            assert!((-2..=400 * 86_400).contains(&ends), "{key}: {ends}");
        }
    }
    kinds
}

async fn exchange(service: &Service, clerk: &StandIn, app: &str, scope: &str) -> Answer {
    let token = clerk.session_token(&Session::default());
    let body = json!({ "session_token": token, "app": app, "scope": scope });
    let answer = service.exchange(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

#[tokio::test]
async fn every_key_ends_but_those_whose_number_has_one() {
    let (redis, issuer) = (Redis::start().await, Issuer::start().await);
    let clerk = clerk().await;
    let mut main = Service::builder()
        .keyed_in_file(&clerk, "webhook_secret = { env = \"HOOK\" }", APPS)
        .env("HOOK", SECRET)
        .env("EXCHEQUER_RATE_LIMIT", "100/1m");
    let mut signing_in = sign_in::with(&issuer, "");
    let variables = shared(&redis.url());
    for (name, value) in &variables {
        main = main.env(name, value);
        signing_in = signing_in.env(name, value);
    }
    let (main, signing_in) = (main.start().await, signing_in.start().await);
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let of_clients = client_auth::world_with(&variables).await.service;
    let add = [
        "clients",
        "add",
        "worker",
        "--audience",
        "https://a.example",
    ];
    assert_eq!(main.command().run(&add).code, 0);
    let body = json!({ "session_id": known::SESSION, "app": "web" });
    main.exchange(&body).await.token();

    let expected: BTreeMap<String, usize> = LASTING
        .iter()
        .map(|(kind, count, _)| ((*kind).to_owned(), *count))
        .collect();
    for round in 0..2 {
        exchange(&main, &clerk, "greeting", "").await;
        let listed = exchange(&main, &clerk, "listed", "").await;
        let begun = exchange(&main, &clerk, "web", "offline_access").await;
        let first = begun.body["refresh_token"].as_str().unwrap();
        let pairs = [
            ("grant_type", "refresh_token"),
            ("refresh_token", first),
            ("client_id", "web"),
        ];
        let second = post(&main, "/oauth/token", None, &pairs).await;
        let second = second.body["refresh_token"].as_str().unwrap();
        for (token, app) in [(listed.token(), "listed"), (second, "web")] {
            let pairs = [("token", token), ("client_id", app)];
            let answer = post(&main, "/oauth/revoke", None, &pairs).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let ended = session_event("session.ended", "sess_gone");
        let hook = format!("msg_{round}");
        Hook::new(&hook, &ended)
            .to("web")
            .taken(&main, "revoked")
            .await;
        let key = Key::ed25519();
        let proof = dpop::Proof::exchange(key).sign(key);
        let body =
            json!({ "session_token": clerk.session_token(&Session::default()), "app": "web" });
        let request = main.client.post(format!("{}/auth/exchange", main.url));
        let request = request
            .header("content-type", "application/json")
            .header("dpop", proof);
        main.send(request.body(body.to_string())).await.token();
        let assertion = client_auth::hs256(&client_auth::claims("mac"));
        let pairs = client_auth::asserted(&assertion);
        let answer = client_auth::ask(&of_clients, None, &pairs).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let code = sign_in::code(&issuer, &signing_in, &[]).await;
        let answer = sign_in::exchange(&signing_in, &code, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let list = main.get("/.well-known/status-lists/1").await;
        assert!(matches!(list.body, Value::String(_)), "{}", list.body);
        assert_eq!(lasting(&redis), expected, "in round {round}");
    }
}
