//! What an app asks to know of its users is there when it is needed, is no more than was asked
//! for, and reaches whoever else is to know it.

use crate::support::described::{DOCUMENT, assert_valid};
use crate::support::{Answer, Command, Service, clerk, eventually, now, token};
use exchequer::standin::{Fault, Session, StandIn};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const USER: &str = "user_1ada";

/// A Clerk instance with one user, who is a member of an organisation.
async fn instance() -> Arc<StandIn> {
    let clerk = clerk().await;
    clerk.world(|world| {
        world.add_user(USER);
        world.add_organization("org_1acme", "acme");
        world.add_membership(USER, "org_1acme", "org:admin");
        world.add_session("sess_1ada", USER, "active");
    });
    clerk
}

/// A service that trusts these instances by these names, with these apps.
async fn start(instances: &[(&str, &StandIn)], apps: &str) -> Service {
    let mut toml = String::new();
    let mut builder = Service::builder().env("EVENTS_SECRET", SECRET);
    for (name, clerk) in instances {
        let (issuer, api_url) = (clerk.issuer(), clerk.api_url());
        write!(
            toml,
            "[issuers.{name}]\nissuer = {issuer:?}\nkind = \"clerk\"\napi_url = {api_url:?}\n\
             secret_key = {{ env = \"KEY_OF_{name}\" }}\n\
             webhook_secret = {{ env = \"WEBHOOKS_OF_{name}\" }}\n"
        )
        .unwrap();
        builder = builder
            .env(&format!("KEY_OF_{name}"), clerk.secret_key())
            .env(&format!("WEBHOOKS_OF_{name}"), clerk.webhook_secret());
    }
    builder.config(&(toml + apps)).start().await
}

/// A service with the app `web` and these lines of it and of its profile.
async fn service(clerk: &StandIn, app: &str, profile: &str) -> Service {
    let app = format!("[apps.web]\nissuers = [\"clerk\"]\n{app}\n[apps.web.profile]\n{profile}\n");
    start(&[("clerk", clerk)], &app).await
}

fn session(clerk: &StandIn, session: &str) -> String {
    clerk.session_token(&Session {
        session: Some(session.to_owned()),
        ..Session::default()
    })
}

async fn exchange(service: &Service, clerk: &StandIn) -> Answer {
    service.session(&session(clerk, "sess_1ada")).await
}

fn claims(answer: &Answer) -> Value {
    token::claims(answer.token())
}

/// The calls of the Backend API that are about users.
fn asked(clerk: &StandIn) -> usize {
    let calls = clerk.calls();
    calls
        .iter()
        .filter(|call| call.contains("/v1/users/"))
        .count()
}

/// Changes a user at the instance.
fn change(clerk: &StandIn, name: &str, value: impl Into<Value>) {
    clerk.world(|world| {
        let user = world.users.get_mut(USER).unwrap();
        user[name] = value.into();
        user["updated_at"] = (user["updated_at"].as_i64().unwrap() + 1000).into();
    });
}

const EVERYTHING: &str = r#"
claims.user = 'user'
claims.org = 'org'
claims.membership = 'membership'
claims.email = 'has(user.primary_email) ? user.primary_email : "none"'
"#;

#[tokio::test]
async fn the_fields_that_the_app_asks_for_are_in_its_expressions_and_no_others() {
    let clerk = instance().await;
    clerk.world(|world| {
        let user = world.users.get_mut(USER).unwrap();
        user["public_metadata"] = json!({"plan": "pro", "tags": ["a", "b"]});
        user["private_metadata"] = json!({"secret": "private"});
        user["unsafe_metadata"] = json!({"secret": "unsafe"});
    });
    let profile = r#"
user = ["primary_email", "first_name", "username", "public_metadata", "has_image", "created_at"]
organization = ["name", "slug", "members_count"]
membership = ["role", "permissions"]
"#;
    let service = service(&clerk, EVERYTHING, profile).await;
    let answer = exchange(&service, &clerk).await;
    let claims = claims(&answer);
    let created_at = clerk.world(|world| world.users[USER]["created_at"].clone());
    assert_eq!(
        claims["user"],
        json!({
            "id": USER, "primary_email": "1ada@example.com", "first_name": "Ada",
            "public_metadata": {"plan": "pro", "tags": ["a", "b"]}, "has_image": false,
            "created_at": created_at,
        })
    );
    assert_eq!(
        claims["org"],
        json!({"id": "org_1acme", "slug": "acme", "role": "org:admin", "name": "acme"})
    );
    let membership = &claims["membership"];
    assert_eq!(membership["role"], "org:admin");
    let permissions = membership["permissions"].as_array().unwrap();
    assert!(
        permissions.contains(&json!("org:tasks:read")),
        "{permissions:?}"
    );
    assert_eq!(membership.as_object().unwrap().len(), 2, "{membership}");
    assert_eq!(claims["email"], "1ada@example.com");
    assert_eq!(
        answer.body["user"],
        json!({"id": USER, "org_id": "org_1acme", "roles": ["org:admin"], "is_new": true})
    );
}

#[tokio::test]
async fn an_email_is_known_only_where_it_is_asked_for_primary_and_verified() {
    let clerk = instance().await;
    let address = |id: &str, status: &str| {
        json!({
            "id": id, "object": "email_address", "email_address": format!("{id}@example.com"),
            "verification": {"status": status},
        })
    };
    let cases = [
        (
            "user_1verified",
            json!("idn_a"),
            json!([address("idn_a", "verified")]),
            "idn_a@example.com",
        ),
        (
            "user_1second",
            json!("idn_b"),
            json!([address("idn_a", "verified"), address("idn_b", "verified")]),
            "idn_b@example.com",
        ),
        (
            "user_1unverified",
            json!("idn_a"),
            json!([address("idn_a", "unverified")]),
            "none",
        ),
        (
            "user_1expired",
            json!("idn_a"),
            json!([address("idn_a", "expired")]),
            "none",
        ),
        (
            "user_1other",
            json!("idn_b"),
            json!([address("idn_a", "verified"), address("idn_b", "unverified")]),
            "none",
        ),
        (
            "user_1noprimary",
            Value::Null,
            json!([address("idn_a", "verified")]),
            "none",
        ),
        (
            "user_1dangling",
            json!("idn_c"),
            json!([address("idn_a", "verified")]),
            "none",
        ),
        (
            "user_1unjudged",
            json!("idn_a"),
            json!([{"id": "idn_a", "email_address": "idn_a@example.com", "verification": null}]),
            "none",
        ),
        ("user_1empty", Value::Null, json!([]), "none"),
    ];
    for (user, primary, addresses, _) in &cases {
        clerk.world(|world| {
            let object = world.add_user(user);
            object["primary_email_address_id"] = primary.clone();
            object["email_addresses"] = addresses.clone();
            world.add_session(&user.replace("user_", "sess_"), user, "active");
        });
    }
    let lines = "claims.email = 'has(user.primary_email) ? user.primary_email : \"none\"'";
    let asking = service(&clerk, lines, "user = [\"primary_email\"]").await;
    let other = service(&clerk, lines, "user = [\"first_name\"]").await;
    for (user, .., email) in &cases {
        let token = session(&clerk, &user.replace("user_", "sess_"));
        assert_eq!(
            claims(&asking.session(&token).await)["email"],
            *email,
            "{user}"
        );
        assert_eq!(
            claims(&other.session(&token).await)["email"],
            "none",
            "{user}"
        );
    }
}

#[tokio::test]
async fn an_app_without_a_profile_knows_what_the_token_says_and_asks_nobody() {
    let clerk = instance().await;
    let app = format!("[apps.web]\nissuers = [\"clerk\"]\n{EVERYTHING}");
    let service = start(&[("clerk", &clerk)], &app).await;
    let answer = exchange(&service, &clerk).await;
    let known = claims(&answer);
    assert_eq!(known["user"], json!({"id": USER}));
    assert_eq!(known["membership"], json!({"role": "org:admin"}));
    assert_eq!(
        known["org"],
        json!({"id": "org_1acme", "slug": "acme", "role": "org:admin"})
    );
    assert_eq!(known["email"], "none");
    assert_eq!(
        answer.body["user"],
        json!({"id": USER, "org_id": "org_1acme", "roles": ["org:admin"]})
    );
    clerk.world(|world| {
        world.add_user("user_1alone");
        world.add_session("sess_1alone", "user_1alone", "active");
    });
    let alone = service.session(&session(&clerk, "sess_1alone")).await;
    assert_eq!(claims(&alone)["membership"], json!({}));
    assert_eq!(asked(&clerk), 0);
}

#[tokio::test]
async fn a_user_is_new_once_for_each_app_and_a_second_exchange_asks_nobody() {
    let clerk = instance().await;
    let mut apps = String::new();
    for app in ["one", "two"] {
        write!(
            apps,
            "[apps.{app}]\nissuers = [\"clerk\"]\n[apps.{app}.profile]\nuser = [\"first_name\"]\nmembership = [\"permissions\"]\n"
        )
        .unwrap();
    }
    let service = start(&[("clerk", &clerk)], &apps).await;
    let token = session(&clerk, "sess_1ada");
    let is_new = async |app: &str| {
        let answer = service
            .exchange(&json!({"session_token": token, "app": app}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["user"]["is_new"].as_bool().unwrap()
    };
    assert!(is_new("one").await);
    assert_eq!(asked(&clerk), 2, "{:?}", clerk.calls());
    assert!(!is_new("one").await);
    assert!(is_new("two").await);
    assert!(!is_new("two").await);
    assert!(!is_new("one").await);
    assert_eq!(asked(&clerk), 2, "{:?}", clerk.calls());
}

#[tokio::test]
async fn of_many_exchanges_at_once_one_finds_the_user_new_and_one_fetches_it() {
    let clerk = instance().await;
    clerk.delay(Duration::from_millis(500));
    let service = service(&clerk, "", "user = [\"first_name\"]").await;
    let token = session(&clerk, "sess_1ada");
    let many = (0..20).map(|_| service.session(&token));
    let answers = futures_util::future::join_all(many).await;
    let new = answers.iter().filter(|answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["user"]["is_new"] == true
    });
    assert_eq!(new.count(), 1);
    // Whoever came after the first fetch had ended may have asked again.
    assert!(asked(&clerk) < 5, "{:?}", clerk.calls());
}

#[tokio::test]
async fn whoever_replays_a_session_id_meets_nobody() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let service = service(&clerk, "", &receiver.lines()).await;
    // All wait for the session together, and come to its use together.
    clerk.delay(Duration::from_millis(300));
    let body = json!({"session_id": "sess_1ada"});
    let answers = futures_util::future::join_all((0..20).map(|_| service.exchange(&body))).await;
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(good.len(), 1);
    assert_eq!(good[0].body["user"]["is_new"], true, "{}", good[0].body);
    for answer in refused {
        answer.assert_refused(401, "session_id_used");
    }
    receiver.took(1).await;
}

#[tokio::test]
async fn a_stale_profile_serves_and_is_fetched_anew_behind_the_answer() {
    let clerk = instance().await;
    let lines = "claims.name = 'user.first_name'";
    let profile = "user = [\"first_name\"]\nmax_age = \"20s\"";
    let service = service(&clerk, lines, profile).await;
    let name = async || claims(&exchange(&service, &clerk).await)["name"].clone();
    assert_eq!(name().await, "Ada");
    change(&clerk, "first_name", "Augusta");
    assert_eq!(name().await, "Ada");
    assert_eq!(asked(&clerk), 1);

    // The API is down: the stale profile serves for as long as that lasts.
    clerk.fault(Some(Fault::Status(500)));
    service.shift_clocks(30, 30);
    assert_eq!(name().await, "Ada");
    eventually("it was asked for again", async || asked(&clerk) > 1).await;
    assert_eq!(name().await, "Ada");

    clerk.fault(None);
    service.shift_clocks(40, 400);
    eventually("the new name is known", async || name().await == "Augusta").await;
    let calls = asked(&clerk);
    assert_eq!(name().await, "Augusta");
    assert_eq!(asked(&clerk), calls);
}

#[tokio::test]
async fn without_a_profile_at_hand_a_dead_api_is_the_reason_given_and_the_user_stays_new() {
    let clerk = instance().await;
    let service = service(&clerk, "", "user = [\"first_name\"]").await;
    let cases = [
        (Fault::Status(500), "profile_unavailable", true),
        (Fault::Html, "profile_unavailable", true),
        (Fault::Truncated, "profile_unavailable", true),
        (Fault::Hangup, "profile_unavailable", true),
        (Fault::Stall, "profile_unavailable", true),
        (Fault::Status(401), "provider_credentials_invalid", false),
        (Fault::Status(422), "provider_request_refused", false),
        (
            Fault::RateLimited { retry_after: 7 },
            "provider_rate_limited",
            true,
        ),
        // Not even the key set is there: it is no Backend API.
        (Fault::Status(404), "provider_request_refused", false),
    ];
    for (minutes, (fault, code, retryable)) in (1..).zip(cases) {
        let what = format!("{fault:?}");
        clerk.fault(Some(fault));
        // Later, so that an API that failed a while ago is asked again.
        service.shift_clocks(0, minutes * 60);
        let answer = exchange(&service, &clerk).await;
        assert_eq!(answer.body["code"], code, "{what}: {}", answer.body);
        answer.assert_refused(503, code);
        assert_eq!(answer.body["retryable"], retryable, "{what}");
        assert_eq!(answer.body["source"], "upstream-idp", "{what}");
        let retry_after: u32 = answer.header("retry-after").parse().unwrap();
        assert!(retry_after > 0, "{what}");
    }
    clerk.fault(None);
    eventually("the profile is fetched", async || {
        let answer = exchange(&service, &clerk).await;
        answer.status == 200 && {
            assert_eq!(answer.body["user"]["is_new"], true, "{}", answer.body);
            true
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_that_the_api_does_not_know_is_gone_or_another_instances() {
    let (clerk, other) = (instance().await, clerk().await);
    let gone = service(&clerk, "", "user = [\"first_name\"]").await;
    let token = session(&clerk, "sess_1ada");
    let user = clerk.world(|world| world.users.remove(USER)).unwrap();
    let answer = gone.session(&token).await;
    answer.assert_refused(401, "user_deleted");
    clerk.world(|world| world.users.insert(USER.to_owned(), user));
    let answer = gone.session(&token).await;
    assert_eq!(answer.body["user"]["is_new"], true, "{}", answer.body);

    let toml = format!(
        "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\napi_url = {:?}\nsecret_key = {{ env = \"KEY\" }}\n\
         [apps.web]\nissuers = [\"clerk\"]\n[apps.web.profile]\nuser = [\"first_name\"]\n",
        clerk.issuer(),
        other.api_url()
    );
    let builder = Service::builder().config(&toml);
    let mixed = builder.env("KEY", other.secret_key()).start().await;
    let answer = mixed.session(&token).await;
    answer.assert_refused(503, "provider_instance_mismatch");
}

#[tokio::test]
async fn two_instances_with_users_of_one_id_are_kept_apart() {
    let (one, two) = (instance().await, instance().await);
    change(&two, "first_name", "Grace");
    let app = "[apps.web]\nissuers = [\"one\", \"two\"]\nsession_id = \"off\"\nclaims.name = 'user.first_name'\n\
               [apps.web.profile]\nuser = [\"first_name\"]\n";
    let service = start(&[("one", &one), ("two", &two)], app).await;
    for (clerk, name) in [(&one, "Ada"), (&two, "Grace"), (&one, "Ada")] {
        let answer = exchange(&service, clerk).await;
        assert_eq!(claims(&answer)["name"], name);
    }
    assert_eq!((asked(&one), asked(&two)), (1, 1));
    for clerk in [one, two] {
        let answer = exchange(&service, &clerk).await;
        assert_eq!(answer.body["user"]["is_new"], false);
    }
}

#[tokio::test]
async fn an_organisation_that_the_api_does_not_list_has_no_fields_and_is_not_asked_for_each_time() {
    let clerk = instance().await;
    let profile = "organization = [\"name\"]\nmembership = [\"permissions\"]";
    let service = service(&clerk, EVERYTHING, profile).await;
    let token = session(&clerk, "sess_1ada");
    clerk.world(|world| world.memberships.clear());
    for _ in 0..2 {
        let known = claims(&service.session(&token).await);
        assert_eq!(
            known["org"],
            json!({"id": "org_1acme", "slug": "acme", "role": "org:admin"})
        );
        assert_eq!(known["membership"], json!({"role": "org:admin"}));
    }
    assert_eq!(asked(&clerk), 1, "{:?}", clerk.calls());
}

#[tokio::test]
async fn a_profile_of_an_issuer_without_a_secret_key_is_a_configuration_error() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\n\
                [apps.web]\nissuers = [\"clerk\"]\n[apps.web.profile]\nuser = [\"first_name\"]\n";
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    let checked = Command::new(dir.path()).run(&["check"]);
    let said = checked.stdout + &checked.stderr;
    assert_eq!(checked.code, 1, "{said}");
    assert!(
        said.contains("the issuer clerk needs a `secret_key`"),
        "{said}"
    );
}

/// A backend that takes events, and answers as it is told.
struct Receiver {
    url: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    status: Arc<Mutex<u16>>,
}

#[derive(Clone)]
struct Taken {
    headers: Value,
    body: String,
}

impl Taken {
    fn header(&self, name: &str) -> &str {
        self.headers[name].as_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let status = Arc::new(Mutex::new(204));
        let (keep, answer) = (Arc::clone(&taken), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = Vec::new();
                let (head, length) = loop {
                    let mut block = [0; 4096];
                    let count = stream.read(&mut block).await.unwrap();
                    read.extend_from_slice(&block[..count]);
                    let text = String::from_utf8(read.clone()).unwrap();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let head = head.to_lowercase();
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    if Some(body.len()) == length {
                        break (
                            text.split_once("\r\n\r\n").unwrap().0.to_owned(),
                            body.len(),
                        );
                    }
                };
                let mut headers = json!({});
                for line in head.lines().skip(1) {
                    let (name, value) = line.split_once(':').unwrap();
                    headers[name.to_lowercase()] = value.trim().into();
                }
                let body = String::from_utf8(read.split_off(read.len() - length)).unwrap();
                keep.lock().unwrap().push(Taken { headers, body });
                let status = *answer.lock().unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, taken, status }
    }

    fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    async fn took(&self, count: usize) -> Vec<Taken> {
        eventually("the event is sent", async || self.taken().len() >= count).await;
        let taken = self.taken();
        assert_eq!(taken.len(), count);
        for each in &taken {
            let webhook = &DOCUMENT["webhooks"][each.json()["type"].as_str().unwrap()]["post"];
            let schema = &webhook["requestBody"]["content"]["application/json"]["schema"];
            assert_valid(schema, &each.json(), "the event");
        }
        taken
    }

    /// The lines of a profile that has this receiver.
    fn lines(&self) -> String {
        format!(
            "user = [\"first_name\", \"primary_email\"]\norganization = [\"name\"]\nmax_age = \"20s\"\n\
             [apps.web.profile.events]\nurl = {:?}\nsecret = {{ env = \"EVENTS_SECRET\" }}\n",
            self.url
        )
    }
}

/// Whether svix's own package and our verification take the message.
fn verifies(taken: &Taken) {
    use exchequer::standard_webhooks::Message;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
    let mut svix = std::process::Command::new("./.venv/bin/python")
        .arg("svix_sign.py")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run tests/interop/install.sh");
    let given = json!({"secret": SECRET, "headers": taken.headers, "body": taken.body});
    writeln!(svix.stdin.take().unwrap(), "{given}").unwrap();
    let said = svix.wait_with_output().unwrap().stdout;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said, json!({"ok": true}));
    let message = Message {
        id: taken.header("webhook-id"),
        timestamp: taken.header("webhook-timestamp"),
        signatures: taken.header("webhook-signature"),
        body: taken.body.as_bytes(),
    };
    assert!(message.has_id() && message.has_signature());
    let sent_at = message.sent_at().unwrap();
    assert!((sent_at - now()).abs() < 120, "{sent_at}");
    assert_eq!(taken.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_new_user_is_told_once_in_a_signed_event_with_the_fields_asked_for() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let mut service = service(&clerk, "", &receiver.lines()).await;
    for _ in 0..3 {
        assert_eq!(exchange(&service, &clerk).await.status, 200);
    }
    let taken = receiver.took(1).await;
    verifies(&taken[0]);
    let mut event = taken[0].json();
    let timestamp = event["timestamp"].take();
    let timestamp = timestamp.as_str().unwrap();
    assert!(
        timestamp.ends_with('Z') && timestamp.len() == 20,
        "{timestamp}"
    );
    assert_eq!(
        event,
        json!({
            "type": "user.first_seen", "timestamp": null,
            "data": {
                "app": "web", "issuer": clerk.issuer(),
                "user": {"id": USER, "first_name": "Ada", "primary_email": "1ada@example.com"},
                "organization": {"id": "org_1acme", "name": "acme"},
            },
        })
    );
    // It ends cleanly, and with nothing sent twice.
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    receiver.took(1).await;
}

#[tokio::test]
async fn a_changed_user_is_told_where_a_field_of_the_app_has_changed() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let profile = receiver.lines()
        + "[apps.other]\nissuers = [\"clerk\"]\nclaims.name = 'user.last_name'\n\
           [apps.other.profile]\nuser = [\"last_name\"]\nmax_age = \"20s\"\n";
    let service = service(&clerk, "", &profile).await;
    let exchange = async |app: &str| {
        let token = session(&clerk, "sess_1ada");
        let body = json!({"session_token": token, "app": app});
        let answer = service.exchange(&body).await;
        claims(&answer)["name"].clone()
    };
    exchange("web").await;
    receiver.took(1).await;
    // What the app did not ask for is none of its business.
    change(&clerk, "last_name", "King");
    service.shift_clocks(25, 25);
    eventually("the other app knows it", async || {
        exchange("other").await == "King"
    })
    .await;
    change(&clerk, "first_name", "Augusta");
    service.shift_clocks(50, 50);
    exchange("web").await;
    let taken = receiver.took(2).await;
    verifies(&taken[1]);
    assert_ne!(taken[0].header("webhook-id"), taken[1].header("webhook-id"));
    let event = taken[1].json();
    assert_eq!(event["type"], "user.updated");
    assert_eq!(
        event["data"],
        json!({
            "app": "web", "issuer": clerk.issuer(),
            "user": {"id": USER, "first_name": "Augusta", "primary_email": "1ada@example.com"},
        })
    );
}

#[tokio::test]
async fn an_event_that_is_not_taken_is_sent_again_with_the_same_id() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let service = service(&clerk, "", &receiver.lines()).await;
    // A redirect is not followed: it is one more way not to take it.
    let refusals = [500, 307, 404, 429];
    receiver.answer(refusals[0]);
    exchange(&service, &clerk).await;
    let mut wall = 0;
    for (count, wait) in [(1, 0), (2, 8), (3, 30), (4, 120)] {
        wall += wait;
        receiver.answer(refusals[count - 1]);
        service.shift_clocks(wall, wall);
        receiver.took(count).await;
        eventually("it is put off", async || {
            service.logged("an event was not taken").len() == count
        })
        .await;
        assert_eq!(deliveries(&service, "failed").await, Some(count as f64));
        assert_eq!(service.metric("exchequer_events_waiting").await, Some(1.0));
    }
    receiver.answer(200);
    service.shift_clocks(wall + 500, wall + 500);
    let taken = receiver.took(5).await;
    for again in &taken[1..] {
        assert_eq!(again.header("webhook-id"), taken[0].header("webhook-id"));
        assert_eq!(again.body, taken[0].body);
    }
    let sent = |taken: &Taken| taken.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!(sent(&taken[4]) - sent(&taken[0]) > 600);
    eventually("none waits", async || {
        service.metric("exchequer_events_waiting").await == Some(0.0)
    })
    .await;
    assert_eq!(deliveries(&service, "delivered").await, Some(1.0));
    assert_eq!(deliveries(&service, "given_up").await, Some(0.0));
    // Taken is taken.
    service.shift_clocks(wall + 100_000, wall + 100_000);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    receiver.took(5).await;
    let log = service.log().concat();
    assert!(!log.contains("1ada@example.com") && !log.contains(SECRET));
}

async fn deliveries(service: &Service, result: &str) -> Option<f64> {
    let name = format!("exchequer_event_deliveries_total{{result=\"{result}\"}}");
    service.metric(&name).await
}

#[tokio::test]
async fn who_comes_back_after_a_month_is_not_new_and_what_changed_meanwhile_is_told() {
    const MONTH: i64 = 30 * 86_400;
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let app = "claims.name = 'user.first_name'";
    let mut service = service(&clerk, app, &receiver.lines()).await;
    let answer = exchange(&service, &clerk).await;
    assert_eq!(answer.body["user"]["is_new"], true);
    receiver.took(1).await;
    eventually("none waits", async || {
        service.metric("exchequer_events_waiting").await == Some(0.0)
    })
    .await;
    change(&clerk, "first_name", "Augusta");
    // A start sweeps at once.
    service.shift_clocks(MONTH + 600, MONTH + 600);
    service.restart().await;
    eventually("it is swept", async || {
        let commits = "exchequer_store_commit_duration_seconds_count";
        service.metric(commits).await >= Some(1.0)
    })
    .await;
    let at = now() + MONTH + 600;
    let times = json!({"iat": at, "nbf": at, "exp": at + 60});
    let later = clerk.session_token(&Session {
        session: Some("sess_1ada".to_owned()),
        claims: times.as_object().unwrap().clone(),
        ..Session::default()
    });
    let answer = service.session(&later).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["user"]["is_new"], false);
    assert_eq!(
        claims(&answer)["name"],
        "Augusta",
        "no copy of a month ago serves"
    );
    let taken = receiver.took(2).await;
    assert_eq!(taken[1].json()["type"], "user.updated");
    assert_eq!(taken[1].json()["data"]["user"]["first_name"], "Augusta");
}

#[tokio::test]
async fn a_receiver_that_wants_no_more_is_not_asked_again_and_that_is_said_loudly() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let service = service(&clerk, "", &receiver.lines()).await;
    receiver.answer(410);
    exchange(&service, &clerk).await;
    receiver.took(1).await;
    eventually("it is given up", async || {
        service.logged("an event was given up").len() == 1
    })
    .await;
    let line = &service.logged("an event was given up")[0];
    assert_eq!(
        (&line["level"], &line["app"]),
        (&json!("ERROR"), &json!("web"))
    );
    service.shift_clocks(200_000, 200_000);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    receiver.took(1).await;
}

/// Has the instance tell the service; gives what came of it.
async fn told(service: &Service, clerk: &StandIn, id: &str, event: &Value) -> Value {
    let (headers, body) = clerk.webhook(event, id, now());
    let url = format!("{}/webhooks/clerk/web", service.url);
    let request = service.client.post(url).body(body);
    let request = request.header("content-type", "application/json");
    let headers = headers.into_iter();
    let request = headers.fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["result"].clone()
}

#[tokio::test]
async fn webhooks_change_what_is_known_at_once_and_tell_the_apps() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let lines =
        "claims.known = '[user.first_name, org.name, string(\"x\" in membership.permissions)]'";
    let profile = format!("membership = [\"permissions\"]\n{}", receiver.lines());
    let service = service(&clerk, lines, &profile).await;
    let known = async || claims(&exchange(&service, &clerk).await)["known"].clone();
    assert_eq!(known().await, json!(["Ada", "acme", "false"]));
    receiver.took(1).await;
    let calls = asked(&clerk);
    let (user, mut organization, mut membership) = clerk.world(|world| {
        let membership = world.memberships_of(USER)[0].clone();
        let organization = world.organizations["org_1acme"].clone();
        (world.users[USER].clone(), organization, membership)
    });
    let before = clerk.event("user.updated", user);
    change(&clerk, "first_name", "Augusta");
    let user = clerk.world(|world| world.users[USER].clone());
    let after = clerk.event("user.updated", user);
    for (id, event, result) in [
        ("msg_1", &after, "recorded"),
        ("msg_1", &after, "repeated"),
        // It comes late, and changes nothing any more.
        ("msg_2", &before, "ignored"),
    ] {
        assert_eq!(told(&service, &clerk, id, event).await, result, "{id}");
        assert_eq!(
            known().await,
            json!(["Augusta", "acme", "false"]),
            "{id} {result}"
        );
    }
    organization["name"] = json!("Acme Ltd");
    organization["members_count"] = json!(2);
    let event = clerk.event("organization.updated", organization);
    assert_eq!(told(&service, &clerk, "msg_3", &event).await, "recorded");
    membership["permissions"] = json!(["x"]);
    let event = clerk.event("organizationMembership.created", membership);
    assert_eq!(told(&service, &clerk, "msg_4", &event).await, "recorded");
    assert_eq!(known().await, json!(["Augusta", "Acme Ltd", "true"]));
    assert_eq!(asked(&clerk), calls, "{:?}", clerk.calls());
    let taken = receiver.took(2).await;
    verifies(&taken[1]);
    let event = taken[1].json();
    assert_eq!(event["type"], "user.updated");
    assert_eq!(event["data"]["user"]["first_name"], "Augusta");
}

#[tokio::test]
async fn a_user_told_by_a_webhook_is_not_asked_for_and_is_new_at_the_first_exchange() {
    let clerk = instance().await;
    let service = service(
        &clerk,
        "claims.name = 'user.first_name'",
        "user = [\"first_name\"]",
    )
    .await;
    let user = clerk.world(|world| world.users[USER].clone());
    let event = clerk.event("user.created", user);
    assert_eq!(told(&service, &clerk, "msg_1", &event).await, "recorded");
    let answer = exchange(&service, &clerk).await;
    assert_eq!(claims(&answer)["name"], "Ada");
    assert_eq!(answer.body["user"]["is_new"], true);
    assert_eq!(asked(&clerk), 0, "{:?}", clerk.calls());

    let token = session(&clerk, "sess_1ada");
    let event = clerk.delete_user(USER).unwrap();
    assert_eq!(told(&service, &clerk, "msg_2", &event).await, "revoked");
    let answer = service.session(&token).await;
    answer.assert_refused(401, "user_deleted");
    assert_eq!(asked(&clerk), 0, "{:?}", clerk.calls());
}

#[tokio::test]
async fn what_is_known_and_what_is_to_be_told_survive_a_kill() {
    let (clerk, receiver) = (instance().await, Receiver::start().await);
    let mut service = service(&clerk, "", &receiver.lines()).await;
    receiver.answer(503);
    assert_eq!(
        exchange(&service, &clerk).await.body["user"]["is_new"],
        true
    );
    let calls = asked(&clerk);
    receiver.took(1).await;
    eventually("it is put off", async || {
        service.logged("an event was not taken").len() == 1
    })
    .await;
    service.restart().await;
    receiver.answer(200);
    assert_eq!(
        exchange(&service, &clerk).await.body["user"]["is_new"],
        false
    );
    assert_eq!(asked(&clerk), calls, "{:?}", clerk.calls());
    // It looks for what it was to tell when it starts, and every half minute.
    service.shift_clocks(40, 40);
    let taken = receiver.took(2).await;
    verifies(&taken[1]);
    assert_eq!(taken[0].header("webhook-id"), taken[1].header("webhook-id"));
    assert_eq!(taken[0].body, taken[1].body);
}
