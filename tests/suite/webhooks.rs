//! What Clerk tells by webhooks holds at once and for good, whoever else knocks at the door.

use crate::support::{Answer, Issuer, Key, Service, Token, clerk, eventually, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exchequer::standin::Session;
use ring::hmac;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A signature as the scheme has it, made here and not with the code under test.
fn signature(secret: &str, id: &str, at: &str, body: &[u8]) -> String {
    let bytes = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let mut context = hmac::Context::with_key(&key);
    for part in [id.as_bytes(), b".", at.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// A webhook in the making.
#[derive(Clone)]
pub struct Hook {
    app: &'static str,
    headers: Vec<(String, String)>,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Hook {
    /// A body signed now with the secret.
    fn raw(secret: &str, id: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::at(secret, id, &now().to_string(), body)
    }

    fn at(secret: &str, id: &str, at: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let signature = signature(secret, id, at, &body);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            app: "default",
            headers: vec![
                header("svix-id", id),
                header("svix-timestamp", at),
                header("svix-signature", &signature),
            ],
            content_type: "application/json",
            body,
        }
    }

    pub fn new(id: &str, event: &Value) -> Self {
        Self::raw(SECRET, id, event.to_string())
    }

    pub fn to(mut self, app: &'static str) -> Self {
        self.app = app;
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    fn get(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        &found.unwrap().1
    }

    fn request(&self, service: &Service) -> reqwest::RequestBuilder {
        let url = format!("{}/webhooks/clerk/{}", service.url, self.app);
        let request = service
            .client
            .post(url)
            .header("content-type", self.content_type)
            .body(self.body.clone());
        let headers = self.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }

    async fn send(&self, service: &Service) -> Answer {
        service.send(self.request(service)).await
    }

    /// Sends what must be acknowledged, with this result.
    #[track_caller]
    pub fn taken(&self, service: &Service, result: &str) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let answer = self.send(service).await;
            assert_eq!(answer.status, 200, "{place}: {}", answer.body);
            assert_eq!(answer.body, json!({ "result": result }), "{place}");
        }
    }
}

/// An event in Clerk's envelope, that happened this many seconds ago.
fn event(kind: &str, ago: i64, data: Value) -> Value {
    json!({
        "type": kind, "object": "event", "timestamp": (now() - ago) * 1000 + 123,
        "instance_id": "ins_1", "data": data,
        "event_attributes": {"http_request": {"client_ip": "203.0.113.9", "user_agent": "Mozilla/5.0"}},
    })
}

pub fn session_event(kind: &str, session: &str) -> Value {
    let status = kind.trim_start_matches("session.");
    let data = json!({
        "object": "session", "id": session, "client_id": "client_1", "user_id": "user_1",
        "status": status, "actor": null, "created_at": 1_700_000_000_000_i64,
        "updated_at": now() * 1000, "user": {"id": "user_1", "object": "user", "email_addresses": [{"email_address": "ada@example.com"}]},
    });
    event(kind, 0, data)
}

pub fn membership_event(kind: &str, ago: i64) -> Value {
    let data = json!({
        "object": "organization_membership", "id": "orgmem_1", "role": "org:member",
        "organization": {"object": "organization", "id": "org_1", "slug": "acme"},
        "public_user_data": {"user_id": "user_1", "identifier": "ada@example.com"},
        "created_at": 1_700_000_000_000_i64, "updated_at": (now() - ago) * 1000,
    });
    event(kind, ago, data)
}

pub fn user_deleted() -> Value {
    let data = json!({"id": "user_1", "object": "user", "deleted": true});
    event("user.deleted", 0, data)
}

/// The lines of the log with this message, once there are so many.
async fn logged(service: &Service, message: &str, count: usize) -> Vec<Value> {
    eventually("the lines are logged", async || {
        service.logged(message).len() >= count
    })
    .await;
    let lines = service.logged(message);
    assert_eq!(lines.len(), count);
    lines
}

async fn service(issuer: &Issuer) -> Service {
    Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_WEBHOOK_SECRET", SECRET)
        .start()
        .await
}

#[tokio::test]
async fn an_ended_session_is_exchanged_no_longer_and_others_are() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    for (number, kind) in ["session.ended", "session.removed", "session.revoked"]
        .iter()
        .enumerate()
    {
        let session = format!("sess_of{number}");
        let token = Token::clerk(&issuer.url).claim("sid", session.clone());
        service.session(&token.sign(Key::rsa())).await.token();
        let hook = Hook::new(&format!("msg_{number}"), &session_event(kind, &session));
        hook.taken(&service, "revoked").await;
        // A token that is issued later for it is none the better.
        for ahead in [0, 4] {
            let later = token.clone().claim("iat", now() + ahead);
            let later = later.sign(Key::rsa());
            service.refuses(kind, &later, "session_revoked").await;
        }
    }
    service.session(&issuer.token()).await.token();
    // One user's session ends, the user stays.
    let other = Token::clerk(&issuer.url).without("sid").sign(Key::rsa());
    service.session(&other).await.token();
}

#[tokio::test]
async fn a_deleted_user_is_gone_with_all_sessions() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    Hook::new("msg_1", &user_deleted())
        .taken(&service, "revoked")
        .await;
    for session in ["sess_1", "sess_2"] {
        let token = Token::clerk(&issuer.url).claim("sid", session);
        service
            .refuses(session, &token.sign(Key::rsa()), "user_deleted")
            .await;
    }
    let other = Token::clerk(&issuer.url).claim("sub", "user_2");
    service.session(&other.sign(Key::rsa())).await.token();
    // Not even in 399 days; the ring and the token are of that day.
    service.shift_clocks(399 * 86_400, 0);
    let then = now() + 399 * 86_400;
    let token = Token::clerk(&issuer.url)
        .claim("iat", then)
        .claim("nbf", then)
        .claim("exp", then + 60)
        .sign(Key::rsa());
    service.refuses("later", &token, "user_deleted").await;
}

#[tokio::test]
async fn a_changed_membership_revokes_what_was_issued_before_and_nothing_else() {
    let issuer = Issuer::start().await;
    for kind in [
        "organizationMembership.updated",
        "organizationMembership.deleted",
    ] {
        let service = service(&issuer).await;
        let token = |age: i64| Token::clerk(&issuer.url).claim("iat", now() - age);
        let old = token(30);
        Hook::new("msg_1", &membership_event(kind, 10))
            .taken(&service, "revoked")
            .await;
        service
            .refuses(kind, &old.sign(Key::rsa()), "membership_changed")
            .await;
        // In no organisation, in another, as another, and with what the provider says now.
        let o = |id: &str| json!({"id": id, "slg": "acme", "rol": "admin"});
        for well in [
            old.clone().without("o"),
            old.clone().claim("o", o("org_2")),
            old.clone().claim("sub", "user_2"),
            token(5),
        ] {
            service.session(&well.sign(Key::rsa())).await.token();
        }
    }
}

#[tokio::test]
async fn a_deleted_organisation_is_nobodys_any_more() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let in_organization = |id: &str| {
        Token::clerk(&issuer.url).claim("o", json!({"id": id, "slg": "acme", "rol": "admin"}))
    };
    let minted = service.session(&issuer.token()).await.token().to_owned();
    let data = json!({"id": "org_1", "object": "organization", "deleted": true});
    Hook::new("msg_1", &event("organization.deleted", 0, data))
        .taken(&service, "revoked")
        .await;
    // Whatever is issued later in its name, too; and of every member.
    for (what, token) in [
        ("before", in_organization("org_1")),
        ("later", in_organization("org_1").claim("iat", now() + 3)),
        ("another", in_organization("org_1").claim("sub", "user_2")),
    ] {
        service
            .refuses(what, &token.sign(Key::rsa()), "organization_deleted")
            .await;
    }
    let verify = service.client.get(format!("{}/auth/verify", service.url));
    let verified = service.send(verify.bearer_auth(minted)).await;
    verified.assert_refused(401, "organization_deleted");
    for well in [
        in_organization("org_2"),
        Token::clerk(&issuer.url).without("o"),
    ] {
        service.session(&well.sign(Key::rsa())).await.token();
    }
}

#[tokio::test]
async fn what_was_minted_between_a_change_and_its_event_is_verified_no_longer() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let verify = async |token: &str| {
        let request = service.client.get(format!("{}/auth/verify", service.url));
        service.send(request.bearer_auth(token)).await
    };
    // Issued before the change, exchanged after it: the provider's event is late.
    let stale = Token::clerk(&issuer.url)
        .claim("iat", now() - 30)
        .sign(Key::rsa());
    let minted = service.session(&stale).await.token().to_owned();
    assert_eq!(verify(&minted).await.status, 200);
    Hook::new(
        "msg_1",
        &membership_event("organizationMembership.updated", 20),
    )
    .taken(&service, "revoked")
    .await;
    verify(&minted)
        .await
        .assert_refused(401, "membership_changed");
    // What is exchanged from then on says the new role, and passes at once.
    service.shift_clocks(1, 0);
    let fresh = Token::clerk(&issuer.url)
        .claim("iat", now() - 5)
        .sign(Key::rsa());
    let minted = service.session(&fresh).await.token().to_owned();
    assert_eq!(verify(&minted).await.status, 200);
}

#[tokio::test]
async fn memberships_that_change_out_of_order_stay_as_the_latest_change_says() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let token = |age: i64| Token::clerk(&issuer.url).claim("iat", now() - age);
    for (id, ago) in [("msg_2", 20), ("msg_1", 40), ("msg_0", 86_400)] {
        let event = membership_event("organizationMembership.updated", ago);
        Hook::new(id, &event).taken(&service, "revoked").await;
        service
            .refuses(id, &token(30).sign(Key::rsa()), "membership_changed")
            .await;
        service.session(&token(10).sign(Key::rsa())).await.token();
    }
    // Deleted long after it was last updated: when it was deleted counts.
    let mut event = membership_event("organizationMembership.deleted", 7);
    event["data"]["updated_at"] = json!(1_700_000_000_000_i64);
    Hook::new("msg_3", &event).taken(&service, "revoked").await;
    service
        .refuses("deleted", &token(10).sign(Key::rsa()), "membership_changed")
        .await;
    // A time in the far future does not revoke what is yet to be issued.
    let event = membership_event("organizationMembership.updated", -86_400 * 365);
    Hook::new("msg_4", &event).taken(&service, "revoked").await;
    service.shift_clocks(400, 0);
    let later = token(-400).claim("exp", now() + 460);
    service.session(&later.sign(Key::rsa())).await.token();
}

#[tokio::test]
async fn what_revokes_nothing_is_acknowledged_and_counted() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let pending = session_event("session.pending", "sess_1");
    for (number, (event, counted)) in [
        (pending, "session.pending"),
        (
            session_event("session.created", "sess_1"),
            "session.created",
        ),
        (
            membership_event("organizationMembership.created", 0),
            "organizationMembership.created",
        ),
        (
            event("user.updated", 0, json!({"id": "user_1"})),
            "user.updated",
        ),
        (event("waitlistEntry.created\",x=\"", 0, json!({})), "other"),
        (event("session.ended.", 0, json!({"id": "sess_1"})), "other"),
        (json!({"type": "nothing"}), "other"),
    ]
    .into_iter()
    .enumerate()
    {
        let name =
            format!(r#"exchequer_webhook_events_total{{type="{counted}",result="ignored"}}"#);
        let before = service.metric(&name).await.unwrap_or_default();
        Hook::new(&format!("msg_{number}"), &event)
            .taken(&service, "ignored")
            .await;
        assert_eq!(service.metric(&name).await, Some(before + 1.0), "{name}");
    }
    service.session(&issuer.token()).await.token();
}

#[tokio::test]
async fn an_event_is_taken_once_however_often_and_at_once_it_comes() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let event = membership_event("organizationMembership.updated", 0);
    let hook = Hook::new("msg_1", &event);
    let answers = futures_util::future::join_all((0..24).map(|_| hook.send(&service))).await;
    let results: Vec<&str> = answers
        .iter()
        .map(|answer| answer.body["result"].as_str().unwrap())
        .collect();
    assert_eq!(results.iter().filter(|each| **each == "revoked").count(), 1);
    assert_eq!(
        results.iter().filter(|each| **each == "repeated").count(),
        23
    );
    let counted = |result: &str| {
        format!(
            r#"exchequer_webhook_events_total{{type="organizationMembership.updated",result="{result}"}}"#
        )
    };
    assert_eq!(service.metric(&counted("revoked")).await, Some(1.0));
    assert_eq!(service.metric(&counted("repeated")).await, Some(23.0));
    // The sender's next attempt is dated and signed anew, a day later too.
    service.shift_clocks(86_400, 0);
    let tomorrow = (now() + 86_400).to_string();
    Hook::at(SECRET, "msg_1", &tomorrow, event.to_string())
        .taken(&service, "repeated")
        .await;
}

#[tokio::test]
async fn nothing_is_believed_that_was_not_signed_with_a_secret_of_the_app() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let good = Hook::new("msg_1", &session_event("session.ended", "sess_1"));
    let whole = good.get("svix-signature").to_owned();
    let code = whole.strip_prefix("v1,").unwrap();
    let at = good.get("svix-timestamp").to_owned();
    let body = String::from_utf8(good.body.clone()).unwrap();
    for (what, signatures) in [
        ("empty", String::new()),
        ("no code", "v1,".to_owned()),
        ("no version", code.to_owned()),
        ("another version", format!("v2,{code}")),
        ("an asymmetric one", format!("v1a,{code}")),
        ("cut off", whole[..whole.len() - 4].to_owned()),
        (
            "one byte",
            format!(
                "v1,{}",
                STANDARD.encode([STANDARD.decode(code).unwrap()[0]])
            ),
        ),
        (
            "longer",
            format!(
                "v1,{}",
                STANDARD.encode([STANDARD.decode(code).unwrap(), vec![0]].concat())
            ),
        ),
        (
            "another secret",
            signature(OTHER_SECRET, "msg_1", &at, body.as_bytes()),
        ),
        (
            "another id",
            signature(SECRET, "msg_2", &at, body.as_bytes()),
        ),
        (
            "another time",
            signature(SECRET, "msg_1", "1", body.as_bytes()),
        ),
        ("no id", signature(SECRET, "", &at, body.as_bytes())),
        ("the body alone", signature(SECRET, "", "", body.as_bytes())),
        ("all zeros", format!("v1,{}", STANDARD.encode([0; 32]))),
    ] {
        let answer = good
            .clone()
            .header("svix-signature", &signatures)
            .send(&service)
            .await;
        assert_eq!(
            answer.body["code"], "webhook_signature_invalid",
            "{what}: {}",
            answer.body
        );
        answer.assert_refused(400, "webhook_signature_invalid");
    }
    for place in [0, body.len() / 2, body.len() - 1] {
        let mut flipped = good.clone();
        flipped.body[place] ^= 1;
        let answer = flipped.send(&service).await;
        answer.assert_refused(400, "webhook_signature_invalid");
    }
    let spaced = Hook {
        body: format!("{body}\n").into_bytes(),
        ..good.clone()
    };
    spaced
        .send(&service)
        .await
        .assert_refused(400, "webhook_signature_invalid");
    service.session(&issuer.token()).await.token();

    // The operator is told whose secrets were tried, and nobody the secrets.
    let lines = logged(&service, "refused", 18).await;
    let name = issuer.url.trim_start_matches("http://").replace(':', "-");
    let tried = format!("the secrets of these issuers were tried: {name} (1)");
    assert_eq!(lines[8]["cause"], tried);
    let log = service.log().join("\n");
    assert!(!log.contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") && !log.contains(code));

    // One good one among bad ones is enough.
    let among = format!("v2,x v1,AAAA {whole} v1,{}", STANDARD.encode([0; 32]));
    let among = good.header("svix-signature", &among);
    among.taken(&service, "revoked").await;
    service
        .refuses("revoked", &issuer.token(), "session_revoked")
        .await;
}

#[tokio::test]
async fn two_secrets_sign_while_one_replaces_the_other() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_WEBHOOK_SECRET", format!("{SECRET},{OTHER_SECRET}"))
        .start()
        .await;
    for (id, secret, session) in [
        ("msg_1", SECRET, "sess_1"),
        ("msg_2", OTHER_SECRET, "sess_2"),
    ] {
        let event = session_event("session.ended", session);
        Hook::raw(secret, id, event.to_string())
            .taken(&service, "revoked")
            .await;
    }
    // Clerk itself signs with both meanwhile.
    let hook = Hook::new("msg_3", &session_event("session.ended", "sess_3"));
    let both = format!(
        "{} {}",
        signature(
            OTHER_SECRET,
            "msg_3",
            hook.get("svix-timestamp"),
            &hook.body
        ),
        hook.get("svix-signature")
    );
    hook.header("svix-signature", &both)
        .taken(&service, "revoked")
        .await;
    let third = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let event = session_event("session.ended", "sess_4");
    Hook::raw(third, "msg_4", event.to_string())
        .send(&service)
        .await
        .assert_refused(400, "webhook_signature_invalid");
    for (session, status) in [
        ("sess_1", 401),
        ("sess_2", 401),
        ("sess_3", 401),
        ("sess_4", 200),
    ] {
        let token = Token::clerk(&issuer.url).claim("sid", session);
        assert_eq!(
            service.session(&token.sign(Key::rsa())).await.status,
            status,
            "{session}"
        );
    }
}

#[tokio::test]
async fn a_message_counts_within_five_minutes_of_when_it_was_sent() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let send = async |id: &str, at: String| {
        let event = session_event("session.ended", "sess_1").to_string();
        Hook::at(SECRET, id, &at, event).send(&service).await
    };
    // The exact bound is held where the time is handed in.
    for (id, ago) in [("msg_1", 295), ("msg_2", -295)] {
        let answer = send(id, (now() - ago).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    for ago in [305, -305, 86_400, -86_400, now()] {
        let answer = send("msg_3", (now() - ago).to_string()).await;
        answer.assert_refused(400, "webhook_timestamp_invalid");
        let said = answer.body["error_description"].as_str().unwrap();
        let word = if ago > 0 { "ago" } else { "from now" };
        assert!(said.contains(word), "{said}");
    }
    let millis = (now() * 1000).to_string();
    for at in [
        "soon",
        "-1",
        "1e9",
        "1.5",
        &millis,
        "99999999999999999999",
        "",
    ] {
        let answer = send("msg_3", at.to_owned()).await;
        answer.assert_refused(400, "webhook_timestamp_invalid");
    }
}

#[tokio::test]
async fn the_three_headers_are_each_there_once_and_of_one_family() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let good = Hook::new("msg_1", &session_event("session.pending", "sess_1"));
    for name in ["svix-id", "svix-timestamp", "svix-signature"] {
        let missing = good.clone().without(name).send(&service).await;
        missing.assert_refused(400, "webhook_headers_missing");
        let said = missing.body["error_description"].as_str().unwrap();
        assert_eq!(said, format!("The header `{name}` is missing."));
        let mut twice = good.clone();
        twice
            .headers
            .push((name.to_owned(), good.get(name).to_owned()));
        let twice = twice.send(&service).await;
        twice.assert_refused(400, "webhook_headers_missing");
        let long = good
            .clone()
            .header(name, &"1".repeat(2049))
            .send(&service)
            .await;
        long.assert_refused(400, "webhook_headers_missing");
        // The twin of one header does not complete the two others.
        let twin = name.replace("svix", "webhook");
        let mixed = good.clone().header(&twin, good.get(name)).without(name);
        mixed
            .send(&service)
            .await
            .assert_refused(400, "webhook_headers_missing");
    }
    for id in ["", "msg 1", "msg.1", &"m".repeat(129)] {
        let event = session_event("session.pending", "sess_1").to_string();
        let answer = Hook::raw(SECRET, id, event).send(&service).await;
        answer.assert_refused(400, "webhook_headers_missing");
    }
    let none = Hook {
        headers: Vec::new(),
        ..good.clone()
    };
    let none = none.send(&service).await;
    none.assert_refused(400, "webhook_headers_missing");
    assert_eq!(
        none.body["error_description"],
        "The header `svix-id` is missing."
    );

    let mut standard = good.clone();
    for (name, _) in &mut standard.headers {
        *name = name.replace("svix", "webhook");
    }
    standard.taken(&service, "ignored").await;
    // Of both families it is Svix's own that counts.
    let mut both = good.clone();
    both.headers.extend(standard.headers.clone());
    let both = both.header("webhook-signature", "v1,AAAA");
    both.taken(&service, "ignored").await;
    let both = both.header("webhook-signature", good.get("svix-signature"));
    let both = both.header("svix-signature", "v1,AAAA");
    both.send(&service)
        .await
        .assert_refused(400, "webhook_signature_invalid");
}

#[tokio::test]
async fn two_apps_of_two_instances_never_touch_each_other() {
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &first.url)
        .env("CLERK_WEBHOOK_SECRET", SECRET)
        .env("CLERK_JWT_ISSUER_MOBILE", &second.url)
        .env("CLERK_WEBHOOK_SECRET_MOBILE", OTHER_SECRET)
        .env("CLERK_JWT_ISSUER_BARE", "https://clerk.example.com")
        .start()
        .await;
    // The same ids in both.
    let event = session_event("session.ended", "sess_1").to_string();
    let of_first = Hook::raw(SECRET, "msg_1", event.clone());
    let of_second = Hook::raw(OTHER_SECRET, "msg_1", event).to("mobile");
    for (hook, app) in [(&of_first, "mobile"), (&of_second, "default")] {
        let answer = hook.clone().to(app).send(&service).await;
        answer.assert_refused(400, "webhook_signature_invalid");
    }
    of_second.taken(&service, "revoked").await;
    service.session(&first.token()).await.token();
    service
        .refuses("the second", &second.token(), "session_revoked")
        .await;
    of_first.taken(&service, "revoked").await;
    service
        .refuses("the first", &first.token(), "session_revoked")
        .await;

    for (before, (app, cause)) in [
        ("nobody", "there is no app of this name"),
        (
            "bare",
            "no issuer of the app bare has a webhook secret: clerk.example.com-bare",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = of_first.clone().to(app).send(&service).await;
        answer.assert_refused(404, "webhook_unknown");
        let lines = logged(&service, "refused", before + 5).await;
        assert_eq!(lines[before + 4]["cause"], cause);
    }
}

#[tokio::test]
async fn an_event_is_believed_for_the_issuer_whose_secret_signed_it_alone() {
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    let service = Service::builder()
        .env("ONE", SECRET)
        .env("TWO", OTHER_SECRET)
        .config(&format!(
            r#"
            [issuers.one]
            issuer = "{}"
            kind = "clerk"
            webhook_secret = {{ env = "ONE" }}
            [issuers.two]
            issuer = "{}"
            kind = "clerk"
            webhook_secret = {{ env = "TWO" }}
            [apps.web]
            issuers = ["one", "two"]
            "#,
            first.url, second.url
        ))
        .start()
        .await;
    let event = session_event("session.ended", "sess_1").to_string();
    Hook::raw(OTHER_SECRET, "msg_1", event)
        .to("web")
        .taken(&service, "revoked")
        .await;
    service.session(&first.token()).await.token();
    service
        .refuses("the second", &second.token(), "session_revoked")
        .await;
}

#[tokio::test]
async fn a_signed_body_that_cannot_be_understood_is_refused_and_said_so() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let session = |id: Value| event("session.ended", 0, json!({ "id": id })).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, body) in [
        ("empty", String::new()),
        ("no JSON", "{".to_owned()),
        ("a list", "[]".to_owned()),
        ("a text", "\"session.ended\"".to_owned()),
        ("deep", deep),
        ("no type", json!({"data": {"id": "sess_1"}}).to_string()),
        ("a type that is no text", json!({"type": 1}).to_string()),
        ("no data", json!({"type": "session.ended"}).to_string()),
        ("no id", session(Value::Null)),
        ("an id that is no text", session(json!(1))),
        ("an id of another kind", session(json!("user_1"))),
        ("an empty id", session(json!("sess_"))),
        ("a path", session(json!("sess_1/../../users"))),
        (
            "a long id",
            session(json!(format!("sess_{}", "a".repeat(200)))),
        ),
        (
            "a user without id",
            event("user.deleted", 0, json!({"object": "user"})).to_string(),
        ),
        (
            "a membership of nobody",
            event(
                "organizationMembership.deleted",
                0,
                json!({"organization": {"id": "org_1"}}),
            )
            .to_string(),
        ),
        (
            "a membership in nothing",
            event(
                "organizationMembership.updated",
                0,
                json!({"public_user_data": {"user_id": "user_1"}}),
            )
            .to_string(),
        ),
    ] {
        let answer = Hook::raw(SECRET, "msg_1", body).send(&service).await;
        assert_eq!(
            answer.body["code"], "webhook_body_malformed",
            "{what}: {}",
            answer.body
        );
        answer.assert_refused(400, "webhook_body_malformed");
    }
    let binary = Hook::raw(SECRET, "msg_1", vec![0xff, 0xfe, 0]);
    binary
        .send(&service)
        .await
        .assert_refused(400, "webhook_body_malformed");
    // Nothing of it was remembered: the same id can still be taken.
    Hook::new("msg_1", &session_event("session.ended", "sess_1"))
        .taken(&service, "revoked")
        .await;
}

#[tokio::test]
async fn a_body_is_json_of_at_most_256_kib_and_a_post() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let mut user = session_event("session.ended", "sess_1");
    user["data"]["user"]["private_metadata"] = json!({ "notes": "" });
    let room = 256 * 1024 - user.to_string().len();
    user["data"]["user"]["private_metadata"]["notes"] = json!("x".repeat(room));
    assert_eq!(user.to_string().len(), 256 * 1024);
    Hook::new("msg_1", &user).taken(&service, "revoked").await;
    let large = Hook::raw(SECRET, "msg_2", format!("{user} "));
    large
        .send(&service)
        .await
        .assert_refused(413, "body_too_large");

    let good = Hook::new("msg_3", &session_event("session.pending", "sess_1"));
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
    ] {
        let answer = Hook {
            content_type,
            ..good.clone()
        }
        .send(&service)
        .await;
        answer.assert_refused(415, "content_type_unsupported");
    }
    good.clone()
        .header("content-encoding", "gzip")
        .send(&service)
        .await
        .assert_refused(415, "content_type_unsupported");
    Hook {
        content_type: "application/json; charset=utf-8",
        ..good.clone()
    }
    .taken(&service, "ignored")
    .await;

    let answer = service.get("/webhooks/clerk/default").await;
    answer.assert_refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    for path in [
        "/webhooks/clerk",
        "/webhooks/clerk/",
        "/webhooks/clerk/default/",
        "/webhooks/clerk/default/x",
        "/webhooks/other/default",
    ] {
        let request = service.client.post(format!("{}{path}", service.url));
        service.send(request).await.assert_refused(404, "not_found");
    }
    let request = service
        .client
        .post(format!("{}/webhooks/clerk/%64efault", service.url));
    service
        .send(request)
        .await
        .assert_refused(404, "webhook_unknown");
}

#[tokio::test]
async fn the_log_says_what_came_and_names_nobody() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    service.session(&issuer.token()).await.token();
    let hook = Hook::new("msg_1", &session_event("session.ended", "sess_1"))
        .header("x-request-id", "attempt-1");
    hook.taken(&service, "revoked").await;
    let exchanged = logged(&service, "exchanged", 1).await;
    let mut lines = logged(&service, "webhook", 1).await;
    let line = lines[0].as_object_mut().unwrap();
    assert_eq!(line["subject"], exchanged[0]["subject"]);
    let session = line["session"].as_str().unwrap();
    assert_eq!(session.len(), 12);
    assert_ne!(session, line["subject"]);
    for name in [
        "timestamp",
        "target",
        "subject",
        "session",
        "micros",
        "level",
        "message",
    ] {
        assert!(line.remove(name).is_some(), "{name}");
    }
    assert_eq!(
        *lines[0].as_object().unwrap(),
        *json!({
            "request_id": "attempt-1", "app": "default", "issuer": issuer.url,
            "event": "msg_1", "type": "session.ended", "result": "revoked",
        })
        .as_object()
        .unwrap()
    );
    Hook::new("msg_2", &user_deleted())
        .taken(&service, "revoked")
        .await;
    let membership = membership_event("organizationMembership.deleted", 0);
    Hook::new("msg_3", &membership)
        .taken(&service, "revoked")
        .await;
    logged(&service, "webhook", 3).await;
    let log = service.log().join("\n");
    for personal in [
        "user_1",
        "sess_1",
        "org_1",
        "orgmem_1",
        "ada@example.com",
        "203.0.113.9",
        "Mozilla",
    ] {
        assert!(!log.contains(personal), "{personal} in {log}");
    }
}

#[tokio::test]
async fn what_the_official_package_signs_is_taken() {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
    let mut process = Command::new(format!("{folder}/.venv/bin/python"))
        .arg("svix_sign.py")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run tests/interop/install.sh");
    let mut input = process.stdin.take().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut ask = |question: Value| -> Value {
        writeln!(input, "{question}").unwrap();
        serde_json::from_str(&output.next().unwrap().unwrap()).unwrap()
    };
    let events = [
        session_event("session.ended", "sess_1"),
        user_deleted(),
        membership_event("organizationMembership.updated", 0),
        event(
            "user.updated",
            0,
            json!({"id": "user_1", "first_name": "Ädä \u{1f600}"}),
        ),
    ];
    for (number, event) in events.iter().enumerate() {
        let (id, at) = (format!("msg_{number}"), now());
        let body = event.to_string();
        let said = ask(json!({"secret": SECRET, "id": id, "at": at, "body": body}));
        let hook = Hook::at(SECRET, &id, &at.to_string(), body.clone());
        // The signature of this file, which all other tests use, is the official one.
        assert_eq!(said["signature"], hook.get("svix-signature"), "{said}");
        let hook = hook.header("svix-signature", said["signature"].as_str().unwrap());
        let result = if number < 3 { "revoked" } else { "ignored" };
        hook.taken(&service, result).await;
        let headers: serde_json::Map<String, Value> = hook
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let said = ask(json!({"secret": SECRET, "headers": headers, "body": body}));
        assert_eq!(said, json!({"ok": true}));
    }
    drop(input);
    process.wait().unwrap();
    service
        .refuses("revoked", &issuer.token(), "session_revoked")
        .await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_in_the_next_moment() {
    let issuer = Issuer::start().await;
    let mut service = service(&issuer).await;
    let membership = membership_event("organizationMembership.updated", 10);
    let token = |sid: &str, age: i64| {
        Token::clerk(&issuer.url)
            .claim("sid", sid)
            .claim("iat", now() - age)
            .sign(Key::rsa())
    };
    Hook::new("msg_m", &membership)
        .taken(&service, "revoked")
        .await;
    for round in 0..4 {
        let (id, session) = (format!("msg_{round}"), format!("sess_r{round}"));
        let hook = Hook::new(&id, &session_event("session.ended", &session));
        hook.taken(&service, "revoked").await;
        service.restart().await;
        let token = token(&session, 0);
        service.refuses(round, &token, "session_revoked").await;
        hook.taken(&service, "repeated").await;
    }
    service
        .refuses("membership", &token("sess_1", 30), "membership_changed")
        .await;
    service.session(&token("sess_1", 5)).await.token();
    Hook::new("msg_u", &user_deleted())
        .taken(&service, "revoked")
        .await;
    service.restart().await;
    service
        .refuses("user", &token("sess_1", 0), "user_deleted")
        .await;
}

#[tokio::test]
async fn killed_while_events_come_it_forgets_none_that_it_acknowledged() {
    let issuer = Issuer::start().await;
    let mut service = service(&issuer).await;
    let hooks: Vec<Hook> = (0..200)
        .map(|number| {
            let event = session_event("session.ended", &format!("sess_k{number}"));
            Hook::new(&format!("msg_{number}"), &event)
        })
        .collect();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let sends = hooks.iter().enumerate().map(|(number, hook)| {
        let request = hook.request(&service);
        let acknowledged = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            let status = request.send().await.ok()?.status().as_u16();
            assert_eq!(status, 200);
            acknowledged.fetch_add(1, Ordering::Relaxed);
            Some(number)
        })
    });
    let sends: Vec<_> = sends.collect();
    eventually("some are acknowledged", async || {
        acknowledged.load(Ordering::Relaxed) >= 20
    })
    .await;
    service.restart().await;
    let mut known = 0;
    for send in sends {
        let Some(number) = send.await.unwrap() else {
            continue;
        };
        known += 1;
        let session = format!("sess_k{number}");
        let token = Token::clerk(&issuer.url).claim("sid", session.clone());
        service
            .refuses(session, &token.sign(Key::rsa()), "session_revoked")
            .await;
    }
    assert!(known >= 20, "{known}");
    // The sender tries again what was not acknowledged; nothing is in the way of it.
    for hook in &hooks {
        assert_eq!(hook.send(&service).await.status, 200);
    }
    let last = Token::clerk(&issuer.url).claim("sid", "sess_k199");
    let last = last.sign(Key::rsa());
    service.refuses("the last", &last, "session_revoked").await;
}

#[tokio::test]
async fn what_the_stand_in_for_clerk_sends_is_taken() {
    let clerk = clerk().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", clerk.issuer())
        .env("CLERK_WEBHOOK_SECRET", clerk.webhook_secret())
        .start()
        .await;
    let url = format!("{}/webhooks/clerk/default", service.url);
    clerk.world(|world| {
        for user in ["user_2a", "user_2b"] {
            world.add_user(user);
        }
        world.add_session("sess_2a", "user_2a", "active");
        world.add_session("sess_2b", "user_2b", "active");
    });
    let token = |session: &str| {
        clerk.session_token(&Session {
            session: Some(session.to_owned()),
            ..Session::default()
        })
    };
    let (a, b) = (token("sess_2a"), token("sess_2b"));
    for token in [&a, &b] {
        service.session(token).await.token();
    }
    let event = clerk.end_session("sess_2a", "removed").unwrap();
    clerk.send(&url, &event).await.unwrap();
    service.refuses("ended", &a, "session_revoked").await;
    service.session(&b).await.token();
    let event = clerk.delete_user("user_2b").unwrap();
    clerk.send(&url, &event).await.unwrap();
    service.refuses("deleted", &b, "user_deleted").await;
}

#[tokio::test]
async fn what_is_told_of_a_user_is_known_at_the_next_exchange_without_asking() {
    let clerk = clerk().await;
    clerk.world(|world| {
        world.add_user("user_2a");
        world.add_session("sess_2a", "user_2a", "active");
    });
    let service = Service::builder()
        .env("KEY", clerk.secret_key())
        .env("HOOK", clerk.webhook_secret())
        .env("EXCHEQUER_AUDIT", "file:audit.jsonl")
        .config(&format!(
            r#"
            [issuers.clerk]
            issuer = "{}"
            kind = "clerk"
            api_url = "{}"
            secret_key = {{ env = "KEY" }}
            webhook_secret = {{ env = "HOOK" }}
            [apps.web]
            issuers = "clerk"
            claims.name = 'user.first_name'
            [apps.web.profile]
            user = ["first_name"]
            "#,
            clerk.issuer(),
            clerk.api_url()
        ))
        .start()
        .await;
    let name = async || {
        let token = clerk.session_token(&Session {
            session: Some("sess_2a".to_owned()),
            ..Session::default()
        });
        token::claims(service.session(&token).await.token())["name"].clone()
    };
    assert_eq!(name().await, "Ada");
    let asked = clerk.calls().len();
    let updated = |name: &str, later: i64| {
        let mut user = clerk.world(|world| world.users["user_2a"].clone());
        user["first_name"] = json!(name);
        user["updated_at"] = json!(user["updated_at"].as_i64().unwrap() + later);
        clerk.event("user.updated", user)
    };
    let (newer, older) = (updated("Grace", 9_000), updated("Augusta", 5_000));
    for (id, event, result) in [
        ("msg_2", &newer, "recorded"),
        ("msg_2", &newer, "repeated"),
        // It comes late, and changes nothing.
        ("msg_1", &older, "ignored"),
    ] {
        Hook::raw(clerk.webhook_secret(), id, event.to_string())
            .to("web")
            .taken(&service, result)
            .await;
        assert_eq!(name().await, "Grace");
    }
    // But for what was asked of the key set, nobody was asked again.
    let calls = clerk.calls();
    assert!(
        !calls[asked..].iter().any(|call| call.contains("/v1/users")),
        "{calls:?}"
    );
    // It revoked nothing, and the audit log does not say so.
    let audit = || std::fs::read_to_string(service.dir().join("audit.jsonl")).unwrap();
    eventually("the exchanges are told", async || {
        audit().matches("\"exchange\"").count() == 4
    })
    .await;
    let audit = audit();
    assert!(!audit.contains("\"revoke\""), "{audit}");
}
