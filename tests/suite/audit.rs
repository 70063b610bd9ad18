//! The audit log tells who got what, who was refused and what was revoked: all of it, whole,
//! and nobody's secrets.

use crate::support::ring::in_state;
use crate::support::{Command, Issuer, Key, Service, Token, eventually, now, ring, token};
use ::ring::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn service(issuer: &Issuer) -> Service {
    Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_WEBHOOK_SECRET", SECRET)
        .env("EXCHEQUER_AUDIT", "file:audit.jsonl")
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .env("EXCHEQUER_RATE_LIMIT", "off")
        .start()
        .await
}

fn file(service: &Service) -> PathBuf {
    service.dir().join("audit.jsonl")
}

fn events_in(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("half an event: {line}")))
        .collect()
}

/// The events so far, once there are so many; without those of keys.
async fn events(service: &Service, count: usize) -> Vec<Value> {
    let read = || {
        let text = std::fs::read_to_string(file(service)).unwrap();
        let mut events = events_in(&text);
        events.retain(|event| event["action"] != "key");
        events
    };
    eventually("the events are written", async || {
        // A line may be half written for a moment.
        let text = std::fs::read_to_string(file(service)).unwrap();
        text.ends_with('\n') && read().len() >= count
    })
    .await;
    let events = read();
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

/// Takes out what differs each time, after a look at it.
fn stripped(mut event: Value) -> Value {
    let members = event.as_object_mut().unwrap();
    assert_eq!(members.remove("audit"), Some(json!(1)));
    let unix = members.remove("unix").unwrap().as_i64().unwrap();
    assert!((now() - 60..=now()).contains(&unix), "{unix}");
    let time = members.remove("time").unwrap();
    let time = time.as_str().unwrap();
    assert!(
        time.len() == 20 && time.starts_with("20") && time.ends_with('Z'),
        "{time}"
    );
    assert_eq!(members.remove("id").unwrap().as_str().unwrap().len(), 16);
    event
}

async fn webhook(service: &Service, id: &str, secret: &str, event: &Value) -> u16 {
    let (body, at) = (event.to_string(), now());
    let bytes = STANDARD
        .decode(secret.trim_start_matches("whsec_"))
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let code = hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes());
    let request = service
        .client
        .post(format!("{}/webhooks/clerk/default", service.url))
        .header("content-type", "application/json")
        .header("x-request-id", id)
        .header("svix-id", id)
        .header("svix-timestamp", at.to_string())
        .header("svix-signature", format!("v1,{}", STANDARD.encode(code)))
        .body(body);
    service.send(request).await.status
}

fn session_ended() -> Value {
    json!({
        "type": "session.ended", "timestamp": now() * 1000,
        "data": {"id": "sess_1", "user_id": "user_1", "user": {"email": "ada@example.com"}},
    })
}

#[tokio::test]
async fn every_exchange_refusal_and_revocation_is_one_event_and_a_whole_one() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let send = async |token: &str, id: &str| {
        let request = service
            .client
            .post(format!("{}/auth/exchange", service.url))
            .header("content-type", "application/json")
            .header("x-request-id", id)
            .header("x-forwarded-for", "203.0.113.9")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .body(json!({ "session_token": token }).to_string());
        service.send(request).await
    };
    let subject_token = issuer.token();
    let answer = send(&subject_token, "one").await;
    let minted = answer.token().to_owned();
    let expired = Token::clerk(&issuer.url)
        .claim("exp", now() - 60)
        .sign(Key::rsa());
    send(&expired, "two")
        .await
        .assert_refused(401, "subject_token_expired");
    send("garbage", "three")
        .await
        .assert_refused(401, "subject_token_opaque");
    assert_eq!(
        webhook(&service, "msg_1", SECRET, &session_ended()).await,
        200
    );
    assert_eq!(
        webhook(&service, "msg_1", SECRET, &session_ended()).await,
        200
    );
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    assert_eq!(
        webhook(&service, "msg_2", other, &session_ended()).await,
        400
    );
    let pending = json!({"type": "session.pending", "data": {"id": "sess_1"}});
    assert_eq!(webhook(&service, "msg_3", SECRET, &pending).await, 200);
    send(&subject_token, "four")
        .await
        .assert_refused(401, "session_revoked");
    // Nobody was given anything, nor refused it.
    for path in ["/healthz", "/.well-known/jwks.json", "/nowhere"] {
        service.get(path).await;
    }

    let events = events(&service, 7).await;
    let ids: HashSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), events.len());
    let (subject, session) = (events[0]["subject"].clone(), events[0]["session"].clone());
    assert_eq!(subject.as_str().unwrap().len(), 12);
    assert_eq!(session.as_str().unwrap().len(), 12);
    assert_ne!(subject, session);
    let hash = digest::digest(&digest::SHA256, minted.as_bytes());
    let asked = |id: &str, outcome: &str, more: Value| {
        let mut event = json!({
            "by": "serve", "action": "exchange", "outcome": outcome, "request_id": id,
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "network": "203.0.113.0/24",
        });
        let members = event.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        event
    };
    let told = |id: &str, outcome: &str, more: Value| {
        let mut event = json!({
            "by": "serve", "action": "revoke", "outcome": outcome, "request_id": id, "app": "default",
        });
        let members = event.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        event
    };
    let ended = json!({
        "issuer": issuer.url, "subject": subject, "session": session,
        "event": "msg_1", "event_type": "session.ended",
    });
    let expected = [
        asked(
            "one",
            "ok",
            json!({
                "app": "default", "issuer": issuer.url, "subject": subject, "session": session,
                "audience": "http://localhost:8080", "jti": token::claims(&minted)["jti"],
                "kid": token::header(&minted)["kid"],
                "token_sha256": URL_SAFE_NO_PAD.encode(hash.as_ref()),
            }),
        ),
        asked(
            "two",
            "subject_token_expired",
            json!({ "claimed_issuer": issuer.url }),
        ),
        asked("three", "subject_token_opaque", json!({})),
        told("msg_1", "revoked", ended.clone()),
        told("msg_1", "repeated", ended),
        told("msg_2", "webhook_signature_invalid", json!({})),
        asked(
            "four",
            "session_revoked",
            json!({
                "app": "default", "issuer": issuer.url, "subject": subject, "session": session,
            }),
        ),
    ];
    for (event, expected) in events.into_iter().zip(expected) {
        assert_eq!(stripped(event), expected);
    }
    // The pseudonyms are those of the log.
    let logged = service.logged("exchanged");
    assert_eq!(logged[0]["subject"], subject);

    let text = std::fs::read_to_string(file(&service)).unwrap();
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in [
        &minted,
        &subject_token,
        &signature(&minted),
        &signature(&subject_token),
        "garbage",
        "user_1",
        "sess_1",
        "org_1",
        "ada@example.com",
        "203.0.113.9",
        &SECRET[6..],
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let mode = std::fs::metadata(file(&service))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_scope_that_was_granted_is_told() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "scopes.\"read:tasks\" = [\"task.view\"]")
        .env("EXCHEQUER_AUDIT", "file:audit.jsonl")
        .start()
        .await;
    let body = json!({"session_token": issuer.token(), "scope": "read:tasks admin"});
    service.exchange(&body).await.token();
    let events = events(&service, 1).await;
    assert_eq!(events[0]["scope"], "read:tasks");
    // Loopback is nobody's network.
    assert_eq!(events[0].get("network"), None);
}

#[tokio::test]
async fn every_turn_of_a_key_is_an_event_of_whoever_made_it_and_whoever_took_it_over() {
    let issuer = Issuer::start().await;
    let mut service = service(&issuer).await;
    let key_events = |service: &Service| -> Vec<(String, String, String)> {
        let lines = std::fs::read_to_string(file(service)).unwrap();
        let text = |event: &Value, name: &str| ring::text(&event[name]);
        events_in(&lines)
            .iter()
            .filter(|event| event["action"] == "key")
            .map(|event| {
                (
                    text(event, "by"),
                    text(event, "outcome"),
                    text(event, "kid"),
                )
            })
            .collect()
    };
    let wait = async |service: &Service, count: usize| {
        eventually("the keys' events", async || {
            key_events(service).len() >= count
        })
        .await;
        let events = key_events(service);
        assert_eq!(events.len(), count, "{events:#?}");
        events
    };
    let list = |service: &Service| ring::list(service.command());
    let said =
        |by: &str, outcome: &str, kid: &str| (by.to_owned(), outcome.to_owned(), kid.to_owned());

    let keys = list(&service);
    let (active, next) = (
        in_state(&keys, "active").remove(0),
        in_state(&keys, "next").remove(0),
    );
    let first = wait(&service, 2).await;
    assert!(
        first.contains(&said("serve", "activated", &active)),
        "{first:?}"
    );
    assert!(
        first.contains(&said("serve", "published", &next)),
        "{first:?}"
    );

    let rotated = service.command().run(&["keys", "rotate", "--force"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let events = wait(&service, 8).await;
    let newest = in_state(&list(&service), "next").remove(0);
    for by in ["keys", "serve"] {
        for (outcome, kid) in [
            ("retired", &active),
            ("activated", &next),
            ("published", &newest),
        ] {
            assert!(
                events.contains(&said(by, outcome, kid)),
                "{by} {outcome}: {events:?}"
            );
        }
    }
    let revoked = service.command().run(&["keys", "revoke", &active]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let events = wait(&service, 10).await;
    assert_eq!(
        events[8..],
        [
            said("keys", "revoked", &active),
            said("serve", "revoked", &active)
        ]
    );
    // A start tells nothing anew.
    service.restart().await;
    service.session(&issuer.token()).await.token();
    wait(&service, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_it_is_stopped_under_load() {
    let issuer = Issuer::start().await;
    let (mut service, _dir, pipe) = piped(&issuer).await;
    let (good, stopped) = (issuer.token(), Arc::new(AtomicBool::new(false)));
    let count = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let client = service.client.clone();
            let url = format!("{}/auth/exchange", service.url);
            let token = if number % 4 == 0 {
                "garbage".to_owned()
            } else {
                good.clone()
            };
            let (stopped, count) = (Arc::clone(&stopped), Arc::clone(&count));
            tokio::spawn(async move {
                let mut answered = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let id = format!("{number}.{}", answered.len());
                    let request = client.post(&url).bearer_auth(&token);
                    let sent = request.header("x-request-id", &id).send().await;
                    let Ok(answer) = sent else { break };
                    answered.push((id, answer.status().as_u16()));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                answered
            })
        })
        .collect();
    // More than the pipe holds: the rest waits in the service.
    eventually("it is under load", async || {
        count.load(Ordering::Relaxed) > 1_000
    })
    .await;
    service.signal("TERM");
    eventually("it drains", async || !service.logged("draining").is_empty()).await;
    let reader = read(&pipe);
    let events = told(&mut service, pipe, reader).await;
    stopped.store(true, Ordering::Relaxed);
    let mut answered = Vec::new();
    for client in clients {
        answered.extend(client.await.unwrap());
    }
    let events: HashSet<(String, u16)> = events
        .into_iter()
        .filter(|event| event["action"] == "exchange")
        .map(|event| {
            let status = if event["outcome"] == "ok" { 200 } else { 401 };
            (ring::text(&event["request_id"]), status)
        })
        .collect();
    let answered: HashSet<(String, u16)> = answered.into_iter().collect();
    let untold: Vec<_> = answered.difference(&events).collect();
    assert!(untold.is_empty(), "{untold:?}");
    // One that was answered as the connection was cut may not have been heard by its client.
    let unheard = events.difference(&answered).count();
    assert!(unheard <= 16, "{unheard}");
}

#[tokio::test]
async fn a_log_that_is_rotated_goes_on_in_the_new_file() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let exchange = async || service.session(&issuer.token()).await.token().to_owned();
    exchange().await;
    events(&service, 1).await;
    let old = service.dir().join("audit.jsonl.1");
    std::fs::rename(file(&service), &old).unwrap();
    exchange().await;
    eventually("the new file", async || file(&service).exists()).await;
    events(&service, 1).await;
    let mode = std::fs::metadata(file(&service))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&old).unwrap();
    let exchanges = events_in(&text)
        .iter()
        .filter(|event| event["action"] == "exchange")
        .count();
    assert_eq!(exchanges, 1);
    // Copied and cut off, as others do it.
    OpenOptions::new()
        .write(true)
        .open(file(&service))
        .unwrap()
        .set_len(0)
        .unwrap();
    exchange().await;
    exchange().await;
    events(&service, 2).await;
}

#[tokio::test]
async fn beside_the_log_on_standard_output_and_nowhere_when_it_is_off() {
    let issuer = Issuer::start().await;
    for (audit, expected) in [("stdout", 2), ("off", 0)] {
        let service = Service::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .env("EXCHEQUER_AUDIT", audit)
            .start()
            .await;
        for _ in 0..2 {
            service.session(&issuer.token()).await.token();
        }
        let told = || {
            let lines = service.log();
            let lines = lines
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines
                .filter(|line| line["audit"] == 1 && line["action"] == "exchange")
                .count()
        };
        eventually("both are logged", async || {
            service.logged("exchanged").len() == 2 && told() == expected
        })
        .await;
        let files: Vec<_> = std::fs::read_dir(service.dir())
            .unwrap()
            .map(|each| each.unwrap().file_name())
            .collect();
        assert!(
            !files
                .iter()
                .any(|name| name.to_string_lossy().contains("audit")),
            "{files:?}"
        );
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_said_once_counted_and_stops_nobody() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_AUDIT", "file:/dev/full")
        .start()
        .await;
    for _ in 0..5 {
        service.session(&issuer.token()).await.token();
    }
    // Two events of keys, five of exchanges.
    eventually("all are counted", async || {
        service.metric("exchequer_audit_lost_total").await == Some(7.0)
    })
    .await;
    let said = |service: &Service| {
        let message =
            "the audit log cannot be written as it should; what is lost until it can be is counted";
        service.logged(message)
    };
    assert_eq!(said(&service).len(), 1);
    assert_eq!(said(&service)[0]["level"], "ERROR");
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
}

/// A service whose audit log goes into a pipe that nobody reads yet, and the pipe.
async fn piped(issuer: &Issuer) -> (Service, tempfile::TempDir, File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    // Open for both, so that neither side waits for the other to open it.
    let pipe = OpenOptions::new().read(true).write(true).open(&path);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_AUDIT", format!("file:{}", path.display()))
        .env("EXCHEQUER_RATE_LIMIT", "off")
        .start()
        .await;
    (service, dir, pipe.unwrap())
}

/// Sends so many requests that are refused, from many clients at once.
fn refusals(service: &Service, count: usize, answered: &Arc<AtomicUsize>) -> Vec<JoinHandle<()>> {
    let client = |number: usize| {
        let (client, answered) = (service.client.clone(), Arc::clone(answered));
        let url = format!("{}/auth/exchange", service.url);
        tokio::spawn(async move {
            for turn in 0..count / 50 {
                let request = client.post(&url).bearer_auth("garbage");
                let request = request.header("x-request-id", format!("{number}.{turn}"));
                let sent = request.send().await;
                assert_eq!(sent.unwrap().status(), 401);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    (0..50).map(client).collect()
}

/// What ends the reading of a pipe.
const END: &str = "the service has ended";

/// Reads the pipe until its end.
fn read(pipe: &File) -> std::thread::JoinHandle<Vec<Value>> {
    let pipe = BufReader::new(pipe.try_clone().unwrap());
    std::thread::spawn(move || {
        let lines = pipe.lines().map(Result::unwrap);
        let lines: Vec<String> = lines.take_while(|line| line != END).collect();
        events_in(&lines.join("\n"))
    })
}

/// All that a service told that was asked to stop, once it has ended.
async fn told(
    service: &mut Service,
    mut pipe: File,
    reader: std::thread::JoinHandle<Vec<Value>>,
) -> Vec<Value> {
    assert_eq!(service.ended().await, Some(0));
    writeln!(pipe, "{END}").unwrap();
    reader.join().unwrap()
}

#[tokio::test]
async fn whoever_finds_the_queue_full_waits_and_nothing_is_lost() {
    let issuer = Issuer::start().await;
    let (mut service, _dir, pipe) = piped(&issuer).await;
    // What the pipe, a batch and the queue hold together, and more.
    let (count, answered) = (5_000, Arc::new(AtomicUsize::new(0)));
    let clients = refusals(&service, count, &answered);
    eventually("the queue is full", async || {
        answered.load(Ordering::Relaxed) > 4_000
    })
    .await;
    assert!(answered.load(Ordering::Relaxed) < count);
    let reader = read(&pipe);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(
        service.metric("exchequer_audit_lost_total").await,
        Some(0.0)
    );
    service.signal("TERM");
    let events = told(&mut service, pipe, reader).await;
    let ids: HashSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
    // And those of the first two keys.
    assert_eq!(ids.len(), count + 2);
}

#[test]
fn a_place_that_cannot_be_opened_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", "http://127.0.0.1:1")
        .env("EXCHEQUER_AUDIT", "file:nowhere/audit.jsonl")
        .run(&["serve"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("EXCHEQUER_AUDIT: nowhere/audit.jsonl: No such file"),
        "{ended:?}"
    );
}
