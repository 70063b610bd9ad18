//! `exchequer clients`: clients registered while the service runs or not, whose secrets are
//! shown once and change without anybody failing.

use crate::support::command::Ended;
use crate::support::{Answer, Issuer, Key, Service, eventually, now, secrecy, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const SECRET: &str = "yTq1Yk0s3mZlCwq8h5N2vR7bXe9uJd4fGa6iOp0LtSxHcVnMzKjQwErTyUiBgFd2";

/// One app, `web`, and a client in the file, `filed`.
async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let client = "[clients.filed]\nsecret = { env = \"S\" }\naudience = \"https://tasks.internal\"\nintrospect = \"https://tasks.internal\"\n";
    let service = Service::builder()
        .one_app(&issuer, "", client)
        .env("S", SECRET)
        .env("EXCHEQUER_AUDIT", "file:audit")
        .start()
        .await;
    (issuer, service)
}

fn admin_file(service: &Service) -> PathBuf {
    service.dir().join("data/exchequer.redb.admin")
}

fn run(service: &Service, arguments: &[&str]) -> Ended {
    let all: Vec<&str> = ["clients"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    service.command().run(&all)
}

/// Runs it with `--json`; it must succeed.
fn done(service: &Service, arguments: &[&str]) -> Value {
    let ended = run(service, &[arguments, &["--json"]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Registers a client that may call a backend; gives its secret.
fn added(service: &Service, id: &str) -> String {
    let said = done(
        service,
        &["add", id, "--audience", "https://tasks.internal"],
    );
    said["client_secret"].as_str().unwrap().to_owned()
}

async fn ask(service: &Service, id: &str, secret: &str) -> Answer {
    let header = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", header)
        .body("grant_type=client_credentials");
    service.send(request).await
}

#[track_caller]
fn refused(ended: &Ended, code: &str, says: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    let more = format!("`exchequer errors {code}` says more\n");
    assert!(ended.stderr.ends_with(&more), "{code}: {ended:?}");
}

#[track_caller]
fn wrong(ended: &Ended, says: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    assert!(ended.stderr.contains(says), "{says}: {ended:?}");
}

#[tokio::test]
async fn a_client_is_registered_while_the_service_runs_and_counts_at_once() {
    let (_issuer, mut service) = world().await;
    let said = done(
        &service,
        &[
            "add",
            "reports",
            "--audience",
            "https://tasks.internal",
            "--audience",
            "https://mail.internal",
            "--scope",
            "read:tasks",
            "--app",
            "web",
            "--ttl",
            "2m",
        ],
    );
    let secret = said["client_secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 43, "256 bits in base64url");
    assert_eq!(
        said,
        json!({
            "id": "reports", "from": "store", "auth_method": "client_secret",
            "secrets": [{}], "audience": ["https://tasks.internal", "https://mail.internal"],
            "scopes": ["read:tasks"], "ttl": 120, "apps": ["web"], "client_secret": secret,
        })
    );
    let answer = ask(&service, "reports", &secret).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["expires_in"], 120);
    assert_eq!(answer.body["scope"], "read:tasks");
    let claims = token::claims(answer.body["access_token"].as_str().unwrap());
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!("reports"), &json!("https://tasks.internal"))
    );
    let metadata = service
        .get("/.well-known/oauth-authorization-server")
        .await
        .body;
    assert_eq!(metadata["scopes_supported"], json!(["read:tasks"]));

    // Both kinds are listed, without secrets.
    assert_eq!(
        done(&service, &["list"]),
        json!([
            {"id": "filed", "from": "file", "auth_method": "client_secret", "ttl": 300,
             "audience": ["https://tasks.internal"], "introspect": ["https://tasks.internal"]},
            {"id": "reports", "from": "store", "auth_method": "client_secret", "secrets": [{}],
             "audience": ["https://tasks.internal", "https://mail.internal"],
             "scopes": ["read:tasks"], "ttl": 120, "apps": ["web"]},
        ])
    );
    let ended = run(&service, &["list"]);
    assert_eq!(
        ended.stdout,
        "client_id  from   auth_method           may\n\
         filed      file   client_secret         call https://tasks.internal; look at tokens for https://tasks.internal\n\
         reports    store  client_secret         call https://tasks.internal, https://mail.internal; with read:tasks; act for users of web\n"
    );

    // It outlives a crash; its secret stands nowhere.
    service.restart().await;
    assert_eq!(ask(&service, "reports", &secret).await.status, 200);
    let store = std::fs::read(service.dir().join("data/exchequer.redb")).unwrap();
    let found = store
        .windows(secret.len())
        .any(|bytes| bytes == secret.as_bytes());
    assert!(!found, "the store has the secret");
    assert!(service.log().iter().all(|line| !line.contains(&secret)));

    // Removed, it is unknown at once.
    let said = done(&service, &["remove", "reports"]);
    assert_eq!(
        (&said["id"], said.get("client_secret")),
        (&json!("reports"), None)
    );
    ask(&service, "reports", &secret)
        .await
        .assert_refused(401, "client_authentication_failed");

    let mut told = Vec::new();
    eventually("the changes are in the audit log", async || {
        let events = std::fs::read_to_string(service.dir().join("audit")).unwrap();
        told = events
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["action"] == "client")
            .collect();
        told.len() == 2
    })
    .await;
    for (event, outcome) in told.iter().zip(["added", "removed"]) {
        assert_eq!(
            (&event["outcome"], &event["client"], &event["by"]),
            (&json!(outcome), &json!("reports"), &json!("serve"))
        );
    }
}

#[tokio::test]
async fn where_no_service_runs_the_command_opens_the_store_itself() {
    let (_issuer, mut service) = world().await;
    let first = added(&service, "first");
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    assert!(!admin_file(&service).exists(), "gone at the end");
    let second = added(&service, "second");
    let ended = run(&service, &["remove", "first"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "client_id      first\n")
    );
    service.restart().await;
    assert_eq!(ask(&service, "second", &second).await.status, 200);
    ask(&service, "first", &first)
        .await
        .assert_refused(401, "client_authentication_failed");
    let events = std::fs::read_to_string(service.dir().join("audit")).unwrap();
    let by = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["action"] == "client").then(|| event["by"].as_str().unwrap().to_owned())
    };
    let by: Vec<String> = events.lines().filter_map(by).collect();
    assert_eq!(by, ["serve", "clients", "clients"]);
}

#[tokio::test]
async fn what_a_killed_service_leaves_behind_misleads_nobody() {
    let (_issuer, mut service) = world().await;
    service.signal("KILL");
    service.ended().await;
    assert!(admin_file(&service).exists());
    let before = std::fs::read_to_string(admin_file(&service)).unwrap();
    let secret = added(&service, "reports");
    service.restart().await;
    assert_ne!(
        std::fs::read_to_string(admin_file(&service)).unwrap(),
        before
    );
    assert_eq!(ask(&service, "reports", &secret).await.status, 200);
    assert_eq!(done(&service, &["list"]).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_secret_is_rotated_without_anybody_failing() {
    let (_issuer, service) = world().await;
    let first = added(&service, "reports");
    let said = done(&service, &["rotate-secret", "reports", "--grace", "1h"]);
    let second = said["client_secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let until = said["secrets"][0]["until"].as_i64().unwrap();
    assert!((now() + 3590..=now() + 3600).contains(&until), "{said}");
    assert_eq!(said["secrets"][1], json!({}));
    for secret in [&first, &second] {
        assert_eq!(ask(&service, "reports", secret).await.status, 200);
    }
    service.shift_clocks(3601, 3601);
    ask(&service, "reports", &first)
        .await
        .assert_refused(401, "client_authentication_failed");
    assert_eq!(ask(&service, "reports", &second).await.status, 200);

    // Without a grace the one before ends at once.
    let ended = run(&service, &["rotate-secret", "reports", "--grace", "0s"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let third = ended.stdout.lines().nth(1).unwrap();
    let third = third.strip_prefix("client_secret  ").unwrap().to_owned();
    assert_eq!(
        ended.stdout,
        format!(
            "client_id      reports\nclient_secret  {third}\n\nThe secret is shown this once: only its hash is kept.\n"
        )
    );
    assert_eq!(ask(&service, "reports", &third).await.status, 200);
    ask(&service, "reports", &second)
        .await
        .assert_refused(401, "client_authentication_failed");

    // An earlier end is never put off, and there is a bound.
    for _ in 0..3 {
        done(&service, &["rotate-secret", "reports"]);
    }
    let ended = run(&service, &["rotate-secret", "reports"]);
    refused(
        &ended,
        "client_settings_invalid",
        "four secrets serve already",
    );
    let ended = run(&service, &["rotate-secret", "reports", "--grace", "31d"]);
    refused(&ended, "client_settings_invalid", "grace: is out of range");
}

#[tokio::test]
async fn a_client_with_a_key_and_a_public_one_have_no_secret() {
    let (_issuer, service) = world().await;
    let pem = service.dir().join("key.pem");
    std::fs::write(&pem, Key::rsa().public_pem()).unwrap();
    let pem = pem.to_str().unwrap();
    let said = done(
        &service,
        &[
            "add",
            "robot",
            "--audience",
            "https://tasks.internal",
            "--public-key",
            pem,
        ],
    );
    assert_eq!(said["auth_method"], "private_key_jwt");
    assert_eq!(
        (said.get("client_secret"), said.get("secrets")),
        (None, None)
    );
    let claims = json!({
        "iss": "robot", "sub": "robot", "aud": "http://localhost:8080", "jti": "1", "exp": now() + 60,
    });
    let assertion = token::assemble(r#"{"alg":"RS256"}"#, &claims.to_string(), |message| {
        Key::rsa().sign(message)
    });
    let body = json!({
        "grant_type": "client_credentials", "client_assertion": assertion,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    });
    let request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/json")
        .body(body.to_string());
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let said = done(
        &service,
        &["add", "spa", "--auth-method", "none", "--app", "web"],
    );
    assert_eq!(
        (&said["auth_method"], said.get("client_secret")),
        (&json!("none"), None)
    );
    let ended = run(&service, &["rotate-secret", "spa"]);
    refused(
        &ended,
        "client_settings_invalid",
        "authenticates by none has no secret",
    );
}

#[tokio::test]
async fn explain_knows_registered_clients_where_it_can_open_the_store() {
    let (_issuer, mut service) = world().await;
    let pem = service.dir().join("key.pem");
    std::fs::write(&pem, Key::rsa().public_pem()).unwrap();
    done(
        &service,
        &[
            "add",
            "robot",
            "--public-key",
            pem.to_str().unwrap(),
            "--app",
            "web",
        ],
    );
    let claims = json!({
        "iss": "robot", "sub": "robot", "aud": "http://localhost:8080", "jti": "1", "exp": now() + 60,
    });
    let assertion = token::assemble(r#"{"alg":"RS256"}"#, &claims.to_string(), |message| {
        Key::rsa().sign(message)
    });
    let explain = |service: &Service| {
        service
            .command()
            .input(assertion.as_str())
            .run(&["explain"])
    };
    let ended = explain(&service);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("FAIL  client           no client of this id is registered")
            && ended
                .stdout
                .contains("note     registered clients were not looked at: ")
            && ended.stdout.contains("in use by another process\n"),
        "{ended:?}"
    );
    service.signal("TERM");
    service.ended().await;
    let ended = explain(&service);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("ok    signature        RS256: verifies with the client's key"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_its_reason() {
    let (_issuer, service) = world().await;
    added(&service, "reports");
    let audience = ["--audience", "https://tasks.internal"];
    for (arguments, code, says) in [
        (
            vec!["add", "reports"],
            "client_exists",
            "There is a client of this id.",
        ),
        (
            vec!["add", "filed"],
            "client_exists",
            "The configuration file has a client of this id.",
        ),
        (
            vec!["add", "web"],
            "client_exists",
            "There is an app of this name.",
        ),
        (
            vec!["add", "a b"],
            "client_settings_invalid",
            "\"a b\" is no name",
        ),
        (
            vec!["add", "c", "--scope", "a b"],
            "client_settings_invalid",
            "scopes: \"a b\" is no scope",
        ),
        (
            vec!["add", "c", "--ttl", "2h"],
            "client_settings_invalid",
            "ttl: 2h is out of range: 30s to 1h",
        ),
        (
            vec!["add", "c", "--app", "wep"],
            "client_settings_invalid",
            "apps: app \"wep\" is not configured",
        ),
        (
            vec!["add", "c", "--auth-method", "none"],
            "client_settings_invalid",
            "audience: a client that proves nothing gets no tokens of its own",
        ),
        (
            vec!["add", "c", "--auth-method", "private_key_jwt"],
            "client_settings_invalid",
            "`public_key`, `jwks` or `jwks_uri` is missing",
        ),
        (
            vec!["add", "c", "--public-key", "exchequer.toml"],
            "client_settings_invalid",
            "public_key: is no public key in PEM",
        ),
    ] {
        let ended = run(&service, &[&arguments[..], &audience[..]].concat());
        refused(&ended, code, says);
    }
    for (arguments, code, says) in [
        (
            vec!["remove", "nobody"],
            "client_not_registered",
            "No client of this id is registered.",
        ),
        (
            vec!["remove", "filed"],
            "client_not_registered",
            "change it there",
        ),
        (
            vec!["rotate-secret", "nobody"],
            "client_not_registered",
            "No client of this id",
        ),
    ] {
        refused(&run(&service, &arguments), code, says);
    }
    for (arguments, says) in [
        (
            vec!["add", "c", "--auth-method", "magic"],
            "--auth-method: \"magic\" is none of",
        ),
        (
            vec!["add", "c", "--auth-method", "client_secret_jwt"],
            "needs the secret in clear",
        ),
        (
            vec!["add", "c", "--auth-method", "client_secret_as_jwt"],
            "needs the secret in clear",
        ),
        (
            vec!["add", "c", "--public-key", "nowhere.pem"],
            "cannot read nowhere.pem",
        ),
        (
            vec!["add", "c", "--ttl", "soon"],
            "--ttl: \"soon\" is no duration",
        ),
        (
            vec!["rotate-secret", "reports", "--grace", "1"],
            "--grace: \"1\" is no duration",
        ),
        (vec![], "Usage"),
        (vec!["add"], "Usage"),
    ] {
        wrong(&run(&service, &arguments), says);
    }
    assert_eq!(done(&service, &["list"]).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn without_a_file_there_is_no_registry() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_STORE", "memory")
        .start()
        .await;
    wrong(&run(&service, &["list"]), "EXCHEQUER_STORE is memory");
    assert!(!service.dir().join("data").exists());
    let request = service
        .client
        .post(format!("{}/clients", service.admin))
        .body("{}");
    service.send(request).await.assert_refused(404, "not_found");
}

#[tokio::test]
async fn the_admin_listener_obeys_its_own_users_alone() {
    let (_issuer, service) = world().await;
    let file = admin_file(&service);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let good = said["token"].as_str().unwrap();
    assert_eq!(
        format!("http://{}", said["address"].as_str().unwrap()),
        service.admin
    );
    let order = r#"{"remove": {"id": "filed"}}"#;
    let send = |authorization: Option<String>, body: &str| {
        let mut request = service
            .client
            .post(format!("{}/clients", service.admin))
            .body(body.to_owned());
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        service.send(request)
    };
    for authorization in [
        None,
        Some(String::new()),
        Some("Bearer ".to_owned()),
        Some("Bearer x".to_owned()),
        Some(format!("Bearer {good}x")),
        Some(format!("Bearer {}", &good[1..])),
        Some(format!("Basic {good}")),
        Some(good.to_owned()),
    ] {
        let answer = send(authorization.clone(), order).await;
        assert_eq!(answer.status, 401, "{authorization:?} {}", answer.body);
        answer.assert_refused(401, "admin_token_invalid");
    }
    let bearer = || Some(format!("Bearer {good}"));
    for body in [
        "",
        "[]",
        "{}",
        r#"{"drop": {}}"#,
        r#"{"remove": {}}"#,
        "\"add\"",
    ] {
        send(bearer(), body)
            .await
            .assert_refused(400, "body_malformed");
    }
    send(bearer(), order)
        .await
        .assert_refused(404, "client_not_registered");
    let exists = r#"{"add": {"id": "filed", "client": {"audience": ["a"]}}}"#;
    send(bearer(), exists)
        .await
        .assert_refused(409, "client_exists");
    let secretless = r#"{"add": {"id": "c", "client": {"audience": ["a"]}}}"#;
    send(bearer(), secretless)
        .await
        .assert_refused(400, "client_settings_invalid");
    let answer = send(bearer(), "\"list\"").await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, "no-store")
    );
    let get = service.client.get(format!("{}/clients", service.admin));
    service
        .send(get)
        .await
        .assert_refused(405, "method_not_allowed");
    // The public listener has no such door.
    service
        .get("/clients")
        .await
        .assert_refused(404, "not_found");
    assert!(service.log().iter().all(|line| !line.contains(good)));
    secrecy::assert_kept(&service.log());
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_made() {
    let (_issuer, service) = world().await;
    std::thread::scope(|scope| {
        for number in 0..8 {
            let service = &service;
            scope.spawn(move || added(service, &format!("c{number}")));
        }
    });
    assert_eq!(done(&service, &["list"]).as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn what_is_in_the_file_counts_before_what_is_registered() {
    let (issuer, mut service) = world().await;
    let secret = added(&service, "reports");
    let toml = std::fs::read_to_string(service.dir().join("exchequer.toml")).unwrap();
    let both = format!(
        "{toml}\n[clients.reports]\nsecret = {{ env = \"S\" }}\naudience = \"https://mail.internal\"\n"
    );
    std::fs::write(service.dir().join("exchequer.toml"), both).unwrap();
    service.restart().await;
    ask(&service, "reports", &secret)
        .await
        .assert_refused(401, "client_authentication_failed");
    assert_eq!(ask(&service, "reports", SECRET).await.status, 200);
    let from: Vec<Value> = done(&service, &["list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["from"].clone())
        .collect();
    assert_eq!(from, ["file", "file"]);
    drop(issuer);
}

#[tokio::test]
async fn a_token_of_a_client_that_was_removed_is_taken_by_no_gateway() {
    let (_issuer, service) = world().await;
    let secret = added(&service, "reports");
    let answer = ask(&service, "reports", &secret).await;
    let token = answer.body["access_token"].as_str().unwrap();
    let url = format!(
        "{}/auth/verify?audience=https://tasks.internal",
        service.url
    );
    let verify = async || {
        let request = service.client.get(&url);
        service.send(request.bearer_auth(token)).await
    };
    for _ in 0..2 {
        assert_eq!(verify().await.status, 200, "the second time remembered");
    }
    done(&service, &["remove", "reports"]);
    verify().await.assert_refused(401, "app_token_app_unknown");
}
