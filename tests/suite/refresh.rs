//! Refresh tokens: each for one use, the same answer to who asks again, and the end of all of
//! them when a used one comes back later, or when what they stand for has ended.

use crate::support::service::Builder;
use crate::support::{Answer, Behaviour, Issuer, Key, Service, Token, eventually, now, token};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exchequer::clock::Clock;
use exchequer::standin::{Fault, Session, StandIn, known};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::form_urlencoded;

const DAY: i64 = 86_400;

const SCOPES: &str = "scopes = { \"read:tasks\" = [\"task.view\"], \"write:tasks\" = [\"task.edit\"], never = { when = 'false' } }";

/// A service with one app, `web`, that gives refresh tokens.
pub fn app(issuer: &Issuer, lines: &str) -> Builder {
    Service::builder().one_app(issuer, "", lines)
}

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = app(&issuer, "refresh = {}").start().await;
    (issuer, service)
}

/// An exchange that asks for these scopes.
async fn exchanged(service: &Service, subject: &str, scope: &str) -> Answer {
    let body = json!({ "session_token": subject, "scope": scope });
    service.exchange(&body).await
}

/// The refresh token of an answer.
#[track_caller]
pub fn shown(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["refresh_token"].as_str().unwrap().to_owned()
}

/// Begins a family.
pub async fn begun(service: &Service, subject: &str) -> String {
    shown(&exchanged(service, subject, "offline_access").await)
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

fn request(service: &Service, token: &str, further: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let pairs = [
        &[("grant_type", "refresh_token"), ("refresh_token", token)],
        further,
    ];
    service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(&pairs.concat()))
}

/// Refreshes as the app, with these further parameters.
async fn refresh_with(service: &Service, token: &str, further: &[(&str, &str)]) -> Answer {
    let further = [&[("client_id", "web")], further].concat();
    service.send(request(service, token, &further)).await
}

/// Refreshes as the app.
pub async fn refresh(service: &Service, token: &str) -> Answer {
    refresh_with(service, token, &[]).await
}

/// Asserts that a refresh is refused as RFC 6749 §5.2 has it.
#[track_caller]
fn assert_grant_refused(answer: &Answer, code: &str, action: &str) {
    answer.assert_refused(400, code);
    assert_eq!(answer.body["error"], "invalid_grant", "{}", answer.body);
    assert_eq!(answer.body["action"], action, "{}", answer.body);
    assert_eq!(answer.body["retryable"], false, "{}", answer.body);
    assert_eq!(answer.headers.get("retry-after"), None);
}

/// The causes of so many refusals, as the log has them.
async fn causes(service: &Service, most: usize) -> Vec<String> {
    let mut causes = Vec::new();
    eventually("all is logged", async || {
        let lines = service.logged("refused");
        let said = lines.iter().filter_map(|line| line["cause"].as_str());
        causes = said.map(str::to_owned).collect();
        causes.len() >= most
    })
    .await;
    causes
}

#[tokio::test]
async fn an_exchange_for_offline_access_gives_one_and_its_use_gives_the_next() {
    let issuer = Issuer::start().await;
    let lines = format!("audience = \"https://api.example.com\"\nrefresh = {{}}\n{SCOPES}");
    let service = app(&issuer, &lines)
        .env("EXCHEQUER_AUDIT", "file:audit")
        .start()
        .await;
    let subject = Token::clerk(&issuer.url).claim("fva", json!([7, -1]));
    let scope = "openid offline_access read:tasks never write:tasks";
    let answer = exchanged(&service, &subject.sign(Key::rsa()), scope).await;
    let (first, compact) = (shown(&answer), answer.token().to_owned());
    assert_eq!(
        answer.body,
        json!({
            "token": compact, "access_token": compact, "token_type": "Bearer", "expires_in": 600,
            "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "scope": "read:tasks write:tasks",
            "refresh_token": first, "refresh_expires_in": 7 * DAY,
            "user": {"id": "user_1", "org_id": "org_1", "roles": ["org:admin"]},
        })
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!((first.len(), &first[..4]), (76, "ert_"));
    let before = token::claims(&compact);
    assert_eq!(before["scope"], "read:tasks write:tasks");

    service.shift_clocks(5 * DAY, 5 * DAY);
    let answer = refresh(&service, &first).await;
    let second = shown(&answer);
    let compact = answer.body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        answer.body,
        json!({
            "access_token": compact, "token_type": "Bearer", "expires_in": 600,
            "scope": "read:tasks write:tasks", "refresh_token": second,
        }),
        "RFC 6749 §5.1 and nothing else"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("pragma"), "no-cache");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_ne!(second, first);
    let mut after = token::claims(&compact);
    assert_ne!(after["jti"], before["jti"]);
    let moved = after["iat"].as_i64().unwrap() - before["iat"].as_i64().unwrap();
    assert!((5 * DAY..5 * DAY + 60).contains(&moved), "{moved}");
    assert_eq!(
        after["exp"].as_i64(),
        after["iat"].as_i64().map(|iat| iat + 610)
    );
    for moved in ["iat", "nbf", "exp", "jti"] {
        after[moved] = before[moved].clone();
    }
    assert_eq!(after, before, "auth_time, sid and all else stay");
    assert_eq!(before["sid"], "sess_1");
    assert!(before["auth_time"].as_i64().unwrap() < now() - 400);

    let mut event = Value::Null;
    eventually("it is in the audit log", async || {
        let events = std::fs::read_to_string(service.dir().join("audit")).unwrap();
        let mut events = events
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str(line).ok());
        event = events.next().unwrap_or_default();
        event["action"] == "token"
    })
    .await;
    assert_eq!(
        (&event["outcome"], &event["client"], &event["app"]),
        (&json!("ok"), &json!("web"), &json!("web")),
    );
    assert_eq!(event["jti"], token::claims(&compact)["jti"]);
    assert!(
        event["subject"].is_string() && event["session"].is_string(),
        "{event}"
    );
}

#[tokio::test]
async fn none_is_given_unasked_nor_for_what_is_no_session_of_the_users_own() {
    let issuer = Issuer::start().await;
    let issuer_lines = "accepts = [\"session\", \"oauth\", \"m2m\"]";
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\n{issuer_lines}\n\
             [apps.web]\nissuers = [\"clerk\"]\nrefresh = {{}}\n\
             [apps.plain]\nissuers = [\"clerk\"]\naudience = \"https://plain.example.com\"\n",
            issuer.url
        ))
        .start()
        .await;
    let clerk = || Token::clerk(&issuer.url);
    let session = clerk().sign(Key::rsa());
    let impersonated = clerk()
        .claim("act", json!({"sub": "user_support"}))
        .sign(Key::rsa());
    let delegated = clerk()
        .header("typ", "at+jwt")
        .claim("client_id", "client_1")
        .claim("scope", "profile offline_access")
        .without("sid")
        .without("sts")
        .without("o")
        .without("fva")
        .without("azp")
        .sign(Key::rsa());
    for (what, app, subject, scope, given) in [
        ("a session", "web", &session, Some("offline_access"), true),
        (
            "among others",
            "web",
            &session,
            Some("openid  offline_access profile"),
            true,
        ),
        ("unasked", "web", &session, None, false),
        (
            "asked for another scope",
            "web",
            &session,
            Some("offline_access2 openid"),
            false,
        ),
        (
            "an app without",
            "plain",
            &session,
            Some("offline_access"),
            false,
        ),
        (
            "an impersonated user",
            "web",
            &impersonated,
            Some("offline_access"),
            false,
        ),
        (
            "a delegated token",
            "web",
            &delegated,
            Some("offline_access"),
            false,
        ),
    ] {
        let mut body = json!({ "session_token": subject, "app": app });
        if let Some(scope) = scope {
            body["scope"] = scope.into();
        }
        let answer = service.exchange(&body).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        for member in ["refresh_token", "refresh_expires_in"] {
            assert_eq!(
                answer.body.get(member).is_some(),
                given,
                "{what}: {}",
                answer.body
            );
        }
        assert!(
            !answer.body["scope"].to_string().contains("offline"),
            "{what}"
        );
        assert_eq!(token::claims(answer.token()).get("scope"), None, "{what}");
    }
}

#[tokio::test]
async fn a_used_one_gets_the_same_answer_within_the_grace_and_ends_all_of_them_after_it() {
    let (issuer, service) = world().await;
    let first = begun(&service, &issuer.token()).await;
    let answer = refresh(&service, &first).await;
    let (second, app_token) = (shown(&answer), answer.body["access_token"].clone());
    for _ in 0..3 {
        let again = refresh(&service, &first).await;
        assert_eq!(shown(&again), second, "the same one, whatever was lost");
        assert_ne!(
            again.body["access_token"], app_token,
            "and an app token of its own"
        );
    }
    let third = shown(&refresh(&service, &second).await);
    service.shift_clocks(9, 9);
    assert_eq!(shown(&refresh(&service, &second).await), third);

    service.shift_clocks(11, 11);
    let reused = refresh(&service, &second).await;
    assert_grant_refused(&reused, "refresh_token_reused", "sign_in");
    for each in [&first, &second, &third] {
        let ended = refresh(&service, each).await;
        assert_grant_refused(&ended, "refresh_token_reused", "sign_in");
    }
    // It is remembered for as long as the family could have lived.
    service.shift_clocks(29 * DAY, 29 * DAY);
    let ended = refresh(&service, &third).await;
    assert_grant_refused(&ended, "refresh_token_reused", "sign_in");
    // Other families go on.
    let later = now() + 29 * DAY;
    let subject = Token::clerk(&issuer.url)
        .claim("iat", later)
        .claim("nbf", later);
    let subject = subject.claim("exp", later + 60).sign(Key::rsa());
    let other = begun(&service, &subject).await;
    assert_eq!(refresh(&service, &other).await.status, 200);

    let causes = causes(&service, 5).await;
    assert_eq!(causes[0], "a used token came back; its family was ended");
    assert_eq!(causes[1], "the family had been ended");
}

#[tokio::test]
async fn one_that_was_used_twice_over_ends_all_of_them_even_within_the_grace() {
    let (issuer, service) = world().await;
    let first = begun(&service, &issuer.token()).await;
    let second = shown(&refresh(&service, &first).await);
    let third = shown(&refresh(&service, &second).await);
    let reused = refresh(&service, &first).await;
    assert_grant_refused(&reused, "refresh_token_reused", "sign_in");
    let ended = refresh(&service, &third).await;
    assert_grant_refused(&ended, "refresh_token_reused", "sign_in");
}

#[tokio::test]
async fn a_chain_of_them_goes_on_and_no_two_are_the_same() {
    let (issuer, service) = world().await;
    let mut token = begun(&service, &issuer.token()).await;
    let mut seen = BTreeSet::from([token.clone()]);
    for _ in 0..50 {
        token = shown(&refresh(&service, &token).await);
        assert!(seen.insert(token.clone()));
        assert_eq!(token.len(), 76);
    }
    let family = |token: &String| token[4..25].to_owned();
    assert_eq!(seen.iter().map(family).collect::<BTreeSet<_>>().len(), 1);
}

/// Uses one token this often at the same time.
async fn raced(service: &Service, token: &str, times: usize) -> Vec<Answer> {
    let mut running = tokio::task::JoinSet::new();
    let mut answers = Vec::new();
    for started in 0..times {
        if started >= 64 {
            answers.push(running.join_next().await.unwrap().unwrap());
        }
        let request = request(service, token, &[("client_id", "web")]);
        running.spawn(async move {
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = answer.text().await.unwrap();
            let body = serde_json::from_str(&body).unwrap();
            Answer {
                status,
                headers,
                body,
            }
        });
    }
    while let Some(answer) = running.join_next().await {
        answers.push(answer.unwrap());
    }
    answers
}

#[tokio::test]
async fn of_a_thousand_that_race_all_get_the_one_successor() {
    let issuer = Issuer::start().await;
    let service = app(&issuer, "refresh = { grace = \"60s\" }").start().await;
    let first = begun(&service, &issuer.token()).await;
    let commits = "exchequer_store_commit_duration_seconds_count";
    let before = service.metric(commits).await;
    let answers = raced(&service, &first, 1000).await;
    let successors: BTreeSet<String> = answers.iter().map(shown).collect();
    assert_eq!(successors.len(), 1);
    let jti = |answer: &Answer| {
        token::claims(answer.body["access_token"].as_str().unwrap())["jti"].to_string()
    };
    assert_eq!(answers.iter().map(jti).collect::<BTreeSet<_>>().len(), 1000);
    let after = service.metric(commits).await;
    assert_eq!(after, before.map(|before| before + 1.0), "one rotation");
    let second = successors.into_iter().next().unwrap();
    assert_ne!(shown(&refresh(&service, &second).await), second);
}

#[tokio::test]
async fn without_a_grace_one_of_a_thousand_that_race_is_honoured() {
    let issuer = Issuer::start().await;
    let service = app(&issuer, "refresh = { grace = \"0s\" }").start().await;
    let first = begun(&service, &issuer.token()).await;
    let answers = raced(&service, &first, 1000).await;
    let (good, bad): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(good.len(), 1);
    for answer in bad {
        assert_grant_refused(answer, "refresh_token_reused", "sign_in");
    }
    let ended = refresh(&service, &shown(good[0])).await;
    assert_grant_refused(&ended, "refresh_token_reused", "sign_in");
}

#[tokio::test]
async fn sigkill_at_any_moment_loses_no_family_and_leaves_no_two_live_tokens() {
    let issuer = Issuer::start().await;
    let mut service = app(&issuer, "refresh = { grace = \"60s\" }").start().await;
    let mut token = begun(&service, &issuer.token()).await;
    let mut lost = 0;
    for round in 0..12_u64 {
        let killed = Instant::now() + Duration::from_micros(3_000 + round * 7_919 % 40_000);
        let pid = service.pid().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(killed.saturating_duration_since(Instant::now()));
            let status = std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status();
            assert!(status.unwrap().success());
        });
        // Refreshes until no answer comes: it was lost, or never made.
        loop {
            let request = request(&service, &token, &[("client_id", "web")]);
            let Ok(answer) = request.send().await else {
                break;
            };
            assert_eq!(answer.status().as_u16(), 200);
            let Ok(body) = answer.text().await else {
                break;
            };
            let body: Value = serde_json::from_str(&body).unwrap();
            token = body["refresh_token"].as_str().unwrap().to_owned();
        }
        killer.join().unwrap();
        service.restart().await;
        // What was lost is asked for again, and is the same for who asks twice.
        let next = shown(&refresh(&service, &token).await);
        let again = shown(&refresh(&service, &token).await);
        assert_eq!(
            next, again,
            "one successor, whether it was made before the kill or after it"
        );
        token = next;
        lost += 1;
    }
    assert_eq!(lost, 12);
    shown(&refresh(&service, &token).await);
}

#[tokio::test]
async fn one_that_lies_unused_ends_and_so_does_the_family_in_the_end() {
    let issuer = Issuer::start().await;
    let service = app(&issuer, "refresh = { idle = \"1h\", absolute = \"3h\" }")
        .start()
        .await;
    let subject = issuer.token();
    let answer = exchanged(&service, &subject, "offline_access").await;
    assert_eq!(answer.body["refresh_expires_in"], 3600);
    let unused = begun(&service, &subject).await;
    let mut used = shown(&answer);
    for at in [3500, 7000, 10_500] {
        service.shift_clocks(at, at);
        used = shown(&refresh(&service, &used).await);
    }
    let idle = refresh(&service, &unused).await;
    assert_grant_refused(&idle, "refresh_token_idle", "sign_in");
    service.shift_clocks(10_801, 10_801);
    for each in [&used, &unused] {
        let expired = refresh(&service, each).await;
        assert_grant_refused(&expired, "refresh_token_expired", "sign_in");
    }
    service.shift_clocks(10_801 + DAY, 10_801 + DAY);
    let forgotten = refresh(&service, &used).await;
    assert_grant_refused(&forgotten, "refresh_token_unknown", "sign_in");
}

#[tokio::test]
async fn what_is_no_refresh_token_is_told_from_one_that_nobody_knows() {
    let (issuer, service) = world().await;
    let good = begun(&service, &issuer.token()).await;
    let other = if good.ends_with('A') { "B" } else { "A" };
    let swapped = format!("{}{other}", &good[..75]);
    let subject = issuer.token();
    for (what, token) in [
        ("cut off", &good[..75]),
        ("longer", &format!("{good}A")),
        ("padded", &format!("{good}=")),
        ("another character", &swapped),
        ("without its prefix", &good[4..]),
        ("only its prefix", "ert_"),
        ("a subject token", &subject[..900.min(subject.len())]),
        ("a word", "x"),
    ] {
        let answer = refresh(&service, token).await;
        assert_eq!(answer.body["code"], "refresh_token_malformed", "{what}");
        assert_grant_refused(&answer, "refresh_token_malformed", "fix_request");
    }
    // Well made, and nobody's.
    let bytes = [7_u8; 48];
    let sum = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let nobodys = [&bytes, &sum.as_ref()[..6]].concat();
    let nobodys = format!("ert_{}", URL_SAFE_NO_PAD.encode(nobodys));
    let answer = refresh(&service, &nobodys).await;
    assert_grant_refused(&answer, "refresh_token_unknown", "sign_in");

    for (what, body, status, code) in [
        (
            "none",
            "grant_type=refresh_token&client_id=web".to_owned(),
            400,
            "parameter_malformed",
        ),
        (
            "two",
            format!(
                "grant_type=refresh_token&client_id=web&refresh_token={good}&refresh_token={good}"
            ),
            400,
            "parameter_malformed",
        ),
        (
            "no client",
            format!("grant_type=refresh_token&refresh_token={good}"),
            401,
            "client_authentication_missing",
        ),
        (
            "no app",
            format!("grant_type=refresh_token&client_id=nobody&refresh_token={good}"),
            401,
            "client_authentication_missing",
        ),
    ] {
        let request = service.client.post(format!("{}/oauth/token", service.url));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = service.send(request.body(body)).await;
        assert_eq!(answer.body["code"], code, "{what}");
        answer.assert_refused(status, code);
    }
    // None of all this used it up; and JSON will do.
    let body = json!({"grant_type": "refresh_token", "client_id": "web", "refresh_token": good});
    let request = service.client.post(format!("{}/oauth/token", service.url));
    let request = request.header("content-type", "application/json");
    let answer = service.send(request.body(body.to_string())).await;
    assert_ne!(shown(&answer), good);
}

#[tokio::test]
async fn it_serves_the_party_that_it_was_given_to_alone() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\n\
             [apps.web]\nissuers = [\"clerk\"]\naudience = \"https://web.example.com\"\nrefresh = {{}}\n\
             [apps.other]\nissuers = [\"clerk\"]\naudience = \"https://other.example.com\"\nrefresh = {{}}\n\
             [clients.reports]\nsecret = {{ env = \"REPORTS_SECRET\" }}\naudience = \"https://tasks.internal\"\n",
            issuer.url
        ))
        .env("REPORTS_SECRET", "0123456789abcdef0123456789abcdef")
        .start()
        .await;
    let body = json!({"session_token": issuer.token(), "app": "web", "scope": "offline_access"});
    let good = shown(&service.exchange(&body).await);
    let other = service
        .send(request(&service, &good, &[("client_id", "other")]))
        .await;
    assert_grant_refused(&other, "refresh_token_unknown", "sign_in");
    let basic = STANDARD.encode("reports:0123456789abcdef0123456789abcdef");
    let client = request(&service, &good, &[]).header("authorization", format!("Basic {basic}"));
    let client = service.send(client).await;
    assert_grant_refused(&client, "refresh_token_unknown", "sign_in");
    let mut unknown = good[..73].to_owned();
    unknown.push_str("AAA");
    for answer in [&other, &client] {
        assert_eq!(
            answer.body["error_description"],
            "The refresh token is unknown, or was given to another client."
        );
    }
    let cause = "it was given to another client";
    assert_eq!(causes(&service, 2).await, [cause, cause]);
    let audience = [("audience", "https://other.example.com")];
    let answer = refresh_with(&service, &good, &audience).await;
    answer.assert_refused(400, "audience_not_allowed");
    assert_eq!(answer.body["error"], "invalid_target");
    let audience = [("resource", "https://web.example.com")];
    let answer = refresh_with(&service, &good, &audience).await;
    shown(&answer);
    let claims = token::claims(answer.body["access_token"].as_str().unwrap());
    assert_eq!(
        (&claims["aud"], &claims["client_id"]),
        (&json!("https://web.example.com"), &json!("web"))
    );
}

#[tokio::test]
async fn a_client_that_exchanged_for_an_app_refreshes_with_its_secret_while_it_may() {
    let issuer = Issuer::start().await;
    let lines =
        "refresh = {}\n[clients.mail]\nsecret = { env = \"MAIL_SECRET\" }\napps = [\"web\"]";
    let secret = "0123456789abcdef0123456789abcdef";
    let mut service = app(&issuer, lines).env("MAIL_SECRET", secret).start().await;
    let basic = format!("Basic {}", STANDARD.encode(format!("mail:{secret}")));
    let ask = |service: &Service, pairs: &[(&str, &str)]| {
        let request = service.client.post(format!("{}/oauth/token", service.url));
        request
            .header("authorization", &basic)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form(pairs))
    };
    let exchange = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", &issuer.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("scope", "offline_access"),
    ];
    let first = shown(&service.send(ask(&service, &exchange)).await);
    let again = |token: &str| {
        let token = token.to_owned();
        [
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", token),
        ]
    };
    let pairs = again(&first);
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let second = shown(&service.send(ask(&service, &pairs)).await);
    // The app that it acted for is another party, and so is the client without its secret.
    for (client, status, code) in [
        ("web", 400, "refresh_token_unknown"),
        ("mail", 401, "client_authentication_missing"),
    ] {
        let answer = service
            .send(request(&service, &second, &[("client_id", client)]))
            .await;
        answer.assert_refused(status, code);
    }
    let config = service.dir().join("exchequer.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("apps = [\"web\"]", "apps = []")).unwrap();
    service.restart().await;
    let pairs = again(&second);
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let answer = service.send(ask(&service, &pairs)).await;
    assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
}

#[tokio::test]
async fn scope_narrows_an_answer_and_the_family_keeps_what_it_has() {
    let issuer = Issuer::start().await;
    let service = app(&issuer, &format!("refresh = {{}}\n{SCOPES}"))
        .start()
        .await;
    let both = "read:tasks write:tasks";
    for (began, granted) in [
        ("offline_access", both),
        ("offline_access read:tasks", "read:tasks"),
        ("offline_access openid", ""),
        ("offline_access never", ""),
    ] {
        let answer = exchanged(&service, &issuer.token(), began).await;
        let mut token = shown(&answer);
        assert_eq!(answer.body["scope"], granted, "{began}");
        for (asked, expected) in [
            ("", granted),
            (both, granted),
            (
                "write:tasks offline_access",
                if granted == both { "write:tasks" } else { "" },
            ),
            ("admin", ""),
            ("offline_access", granted),
            ("never", ""),
            ("", granted),
        ] {
            let answer = refresh_with(&service, &token, &[("scope", asked)]).await;
            token = shown(&answer);
            assert_eq!(answer.body["scope"], expected, "{began}, then {asked}");
            let claims = token::claims(answer.body["access_token"].as_str().unwrap());
            assert_eq!(claims["scope"], expected, "{began}, then {asked}");
        }
    }
    let token = begun(&service, &issuer.token()).await;
    let answer = refresh_with(&service, &token, &[("scope", "a\"b")]).await;
    answer.assert_refused(400, "scope_not_allowed");
    shown(&refresh(&service, &token).await);

    // An app without scopes; and no refresh begins another family.
    let service = app(&issuer, "refresh = {}").start().await;
    let mut token = begun(&service, &issuer.token()).await;
    let commits = "exchequer_store_commit_duration_seconds_count";
    let before = service.metric(commits).await.unwrap();
    for (asked, expected) in [
        ("offline_access", Value::Null),
        ("openid offline_access", json!("")),
    ] {
        let answer = refresh_with(&service, &token, &[("scope", asked)]).await;
        token = shown(&answer);
        assert_eq!(answer.body["scope"], expected, "{asked}");
    }
    assert_eq!(service.metric(commits).await, Some(before + 2.0));
}

#[tokio::test]
async fn a_ring_that_is_made_anew_ends_no_family_but_for_who_asks_again() {
    let (issuer, mut service) = world().await;
    let first = begun(&service, &issuer.token()).await;
    let second = shown(&refresh(&service, &first).await);
    std::fs::remove_dir_all(service.dir().join("keys")).unwrap();
    service.restart().await;
    let third = shown(&refresh(&service, &second).await);
    assert_eq!(shown(&refresh(&service, &second).await), third);
    std::fs::remove_dir_all(service.dir().join("keys")).unwrap();
    service.restart().await;
    let again = refresh(&service, &second).await;
    assert_grant_refused(&again, "refresh_token_reused", "sign_in");
}

#[tokio::test]
async fn policy_judges_each_refresh_and_what_it_refuses_uses_nothing_up() {
    let issuer = Issuer::start().await;
    let mut service = app(&issuer, "refresh = {}").start().await;
    let good = begun(&service, &issuer.token()).await;
    let config = service.dir().join("exchequer.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    for (line, status, code) in [
        ("condition = 'sub == \"nobody\"'", 400, "condition_not_met"),
        (
            "audience = \"https://moved.example.com\"",
            400,
            "audience_not_allowed",
        ),
    ] {
        std::fs::write(&config, format!("{before}{line}\n")).unwrap();
        service.restart().await;
        refresh(&service, &good).await.assert_refused(status, code);
    }
    for after in [
        // Another app keeps the grant on.
        before.replace("refresh = {}", "")
            + "[apps.other]\nissuers = [\"clerk\"]\naudience = \"https://other.example.com\"\nrefresh = {}\n",
        before.replace(
            "kind = \"clerk\"",
            "kind = \"clerk\"\nauthorized_parties = \"https://elsewhere.example.com\"",
        ),
    ] {
        std::fs::write(&config, after).unwrap();
        service.restart().await;
        let answer = refresh(&service, &good).await;
        assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
    }
    // The same token, once policy has it again.
    std::fs::write(&config, &before).unwrap();
    service.restart().await;
    let next = shown(&refresh(&service, &good).await);
    assert_eq!(
        shown(&refresh(&service, &good).await),
        next,
        "it was used for the first time"
    );
}

#[tokio::test]
async fn the_store_and_the_log_hold_no_refresh_token() {
    let (issuer, mut service) = world().await;
    let first = begun(&service, &issuer.token()).await;
    let second = shown(&refresh(&service, &first).await);
    let third = shown(&refresh(&service, &second).await);
    for bad in [&second[..70], &first] {
        let answer = refresh(&service, bad).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.body.to_string().contains(&bad[4..60]));
    }
    service.restart().await;
    let stored = std::fs::read(service.dir().join("data/exchequer.redb")).unwrap();
    let holds = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
    for token in [first, second, third] {
        let bytes = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
        assert!(!holds(&bytes[..16]), "the family's id");
        assert!(!holds(&bytes[16..48]), "the secret");
        assert!(!holds(&token.as_bytes()[4..25]), "the family's id, encoded");
        assert!(!holds(&token.as_bytes()[26..60]), "the secret, encoded");
    }
}

#[tokio::test]
async fn no_provider_is_shown_one_that_is_sent_in_the_place_of_its_own() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.asked]\nissuer = {:?}\nkind = \"introspection\"\n\
             introspection_endpoint = \"{}/introspect\"\nclient_id = \"us\"\n\
             client_secret = {{ env = \"ASKED\" }}\n[apps.web]\nissuers = [\"asked\"]\n",
            issuer.url, issuer.url
        ))
        .env("ASKED", "a secret of some length, that is")
        .start()
        .await;
    let token = format!("ert_{}", "A".repeat(72));
    let answer = service.session(&token).await;
    answer.assert_refused(401, "subject_token_is_refresh_token");
    assert_eq!(issuer.asked("/introspect"), 0);
    // Another opaque token is asked about.
    let answer = service.session(&"A".repeat(76)).await;
    assert_ne!(answer.body["code"], "subject_token_is_refresh_token");
    assert_eq!(issuer.asked("/introspect"), 1);
}

/// A Clerk instance that tells of ends, and a service whose app gives refresh tokens.
async fn clerk(refresh: &str, asks: bool) -> (Arc<StandIn>, Service) {
    let clerk = StandIn::start(Clock::system()).await.unwrap();
    let (url, api) = (clerk.issuer(), clerk.api_url());
    let key = if asks {
        "secret_key = { env = \"KEY\" }\n"
    } else {
        ""
    };
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\napi_url = {api:?}\n{key}\
             webhook_secret = {{ env = \"HOOK\" }}\n[apps.web]\nissuers = [\"clerk\"]\nrefresh = {refresh}\n"
        ))
        .env("KEY", clerk.secret_key())
        .env("HOOK", clerk.webhook_secret())
        .start()
        .await;
    (clerk, service)
}

#[tokio::test]
async fn what_ended_at_the_provider_ends_it_when_a_webhook_says_so_and_for_good() {
    for (kind, description) in [("session", "The session"), ("user", "The user")] {
        let (clerk, service) = clerk("{}", false).await;
        let subject = clerk.session_token(&Session::default());
        let used = begun(&service, &subject).await;
        let unused = begun(&service, &subject).await;
        let used = shown(&refresh(&service, &used).await);
        let event = match kind {
            "session" => clerk.end_session(known::SESSION, "revoked"),
            _ => clerk.delete_user(known::USER),
        };
        let hook = format!("{}/webhooks/clerk/web", service.url);
        clerk.send(&hook, &event.unwrap()).await.unwrap();
        let answer = refresh(&service, &used).await;
        assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
        let said = answer.body["error_description"].as_str().unwrap();
        assert!(said.starts_with(description), "{said}");
        // Nothing of the revocation is forgotten while a family lives.
        let late = 29 * DAY;
        service.shift_clocks(6 * DAY, 6 * DAY);
        eventually("the store is swept", async || true).await;
        let answer = refresh(&service, &unused).await;
        assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
        service.shift_clocks(late, late);
        for each in [&used, &unused] {
            let answer = refresh(&service, each).await;
            assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
        }
    }
}

#[tokio::test]
async fn where_the_app_says_so_the_provider_is_asked_each_time() {
    let (clerk, service) = clerk("{ ask_provider = true }", true).await;
    let first = begun(&service, &clerk.session_token(&Session::default())).await;
    let call = format!("GET /v1/sessions/{}", known::SESSION);
    let asked = || clerk.calls().iter().filter(|each| **each == call).count();
    assert_eq!(asked(), 0);
    let second = shown(&refresh(&service, &first).await);
    assert_eq!(asked(), 1);
    // Whatever becomes of that API, nothing is used up.
    for fault in [Fault::Status(500), Fault::Hangup, Fault::Html] {
        clerk.fault(Some(fault));
        let answer = refresh(&service, &second).await;
        answer.assert_refused(503, "provider_unavailable");
        assert_eq!(answer.body["source"], "upstream-idp", "{}", answer.body);
        assert_eq!(answer.body["retryable"], true);
    }
    clerk.fault(None);
    // The breaker lets a question through again.
    service.shift_clocks(0, 120);
    let mut third = String::new();
    eventually("Clerk is asked again", async || {
        let answer = refresh(&service, &second).await;
        third = answer.body["refresh_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        answer.status == 200
    })
    .await;
    assert_eq!(shown(&refresh(&service, &second).await), third);
    clerk.end_session(known::SESSION, "ended").unwrap();
    let answer = refresh(&service, &third).await;
    assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
    assert_eq!(causes(&service, 1).await, ["session_ended"]);
    let before = asked();
    let answer = refresh(&service, &third).await;
    assert_grant_refused(&answer, "refresh_token_revoked", "sign_in");
    assert_eq!(
        asked(),
        before,
        "its family has ended: nobody is asked about it again"
    );
}

#[tokio::test]
async fn the_issuers_absence_keeps_nobody_from_refreshing() {
    let (issuer, service) = world().await;
    let first = begun(&service, &issuer.token()).await;
    issuer.behave(
        "/.well-known/jwks.json",
        Behaviour::Answer(500, String::new()),
    );
    issuer.vanish();
    service.shift_clocks(2 * DAY, 2 * DAY);
    shown(&refresh(&service, &first).await);
}

#[tokio::test]
async fn the_metadata_says_so_where_an_app_gives_some() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let document = service.get("/.well-known/oauth-authorization-server").await;
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    assert_eq!(document.body["grant_types_supported"], json!([exchange]));
    let service = app(&issuer, "refresh = {}").start().await;
    let document = service.get("/.well-known/oauth-authorization-server").await;
    for (name, value) in [
        ("grant_types_supported", json!(["refresh_token", exchange])),
        ("token_endpoint", json!("http://localhost:8080/oauth/token")),
        ("token_endpoint_auth_methods_supported", json!(["none"])),
        ("scopes_supported", json!(["offline_access"])),
    ] {
        assert_eq!(document.body[name], value, "{name}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_and_unwise_ones_told() {
    let check = |issuer: &str, app: &str, store: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[issuers.a]\nissuer = \"https://clerk.example.com\"\n{issuer}\n[apps.web]\nissuers = \"a\"\n{app}\n"
        );
        std::fs::write(dir.path().join("exchequer.toml"), config).unwrap();
        let command = crate::support::Command::new(dir.path()).env("KEY", "sk_test_1");
        let command = command.env("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let command = match store {
            Some(store) => command.env("EXCHEQUER_STORE", store),
            None => command,
        };
        let ended = command.run(&["check"]);
        (ended.code, format!("{}{}", ended.stdout, ended.stderr))
    };
    let clerk = "kind = \"clerk\"";
    let asked =
        "kind = \"clerk\"\nsecret_key = { env = \"KEY\" }\nwebhook_secret = { env = \"HOOK\" }";
    for (issuer, app, says) in [
        (
            clerk,
            "refresh = {}\nttl_bound = \"subject\"",
            "an app has one of the two",
        ),
        (
            clerk,
            "refresh = { idle = \"40d\" }",
            "refresh.idle (40d) is longer than refresh.absolute (30d)",
        ),
        (
            clerk,
            "refresh = { idle = \"10m\" }\nttl = \"10m\"",
            "must be longer than the app token lives (10m)",
        ),
        (
            clerk,
            "refresh = { idle = \"401d\" }",
            "idle: 401d is out of range: 1m to 400d",
        ),
        (
            clerk,
            "refresh = { absolute = \"30s\" }",
            "absolute: 30s is out of range",
        ),
        (
            clerk,
            "refresh = { grace = \"61s\" }",
            "grace: 61s is out of range: 0s to 1m",
        ),
        (
            clerk,
            "refresh = { lifetime = \"1d\" }",
            "there is no setting \"lifetime\" here",
        ),
        (
            clerk,
            "refresh = { ask_provider = \"yes\" }",
            "ask_provider: must be true or false",
        ),
        (
            clerk,
            "refresh = { ask_provider = true }",
            "the issuer a needs kind = \"clerk\" and a `secret_key`",
        ),
        (
            "",
            "refresh = { ask_provider = true }",
            "the issuer a needs kind = \"clerk\" and a `secret_key`",
        ),
        (clerk, "refresh = true", "write a table of this name"),
        (
            clerk,
            "scopes = { offline_access = [] }",
            "offline_access asks for a refresh token",
        ),
    ] {
        let (code, said) = check(issuer, app, None);
        assert!(code != 0 && said.contains(says), "{app}: {said}");
    }
    for (issuer, app, store, says) in [
        (asked, "refresh = {}", None, None),
        (
            asked,
            "refresh = { ask_provider = true, idle = \"14d\", absolute = \"14d\", grace = \"0s\" }",
            None,
            None,
        ),
        (
            clerk,
            "refresh = {}",
            None,
            Some("serve for up to 30d: set ask_provider"),
        ),
        (
            asked,
            "refresh = {}",
            Some("memory"),
            Some("all refresh tokens end with the process"),
        ),
    ] {
        let (code, said) = check(issuer, app, store);
        assert_eq!(code, 0, "{app}: {said}");
        assert_eq!(said.contains("refresh: "), says.is_some(), "{app}: {said}");
        assert!(said.contains(says.unwrap_or_default()), "{app}: {said}");
    }
}

/// Whether a gate here lets an app token through, and says the same as introspection.
async fn passes(service: &Service, token: &str) -> bool {
    let request = service
        .client
        .get(format!("{}/auth/verify", service.url))
        .bearer_auth(token);
    let answer = service.send(request).await;
    let active = service
        .client
        .post(format!("{}/oauth/introspect", service.url));
    let active = active
        .header("content-type", "application/x-www-form-urlencoded")
        .basic_auth("partner", Some(PARTNER))
        .body(form(&[("token", token)]));
    let active = service.send(active).await.body["active"].clone();
    assert_eq!(active, answer.status == 200, "{}", answer.body);
    if answer.status != 200 {
        answer.assert_refused(401, "token_revoked");
    }
    answer.status == 200
}

const PARTNER: &str = "a secret of more than thirty-two letters";

#[tokio::test]
async fn who_revokes_a_refresh_token_ends_every_app_token_of_its_grant_and_no_other() {
    let issuer = Issuer::start().await;
    let lines = "refresh = {}\n[clients.partner]\nsecret = { env = \"S\" }\napps = \"web\"\naudience = \"http://localhost:8080\"\n";
    let mut service = app(&issuer, lines)
        .env("S", PARTNER)
        .env("EXCHEQUER_STORE", "store.redb")
        .start()
        .await;
    let subject = issuer.token();
    let begun = exchanged(&service, &subject, "offline_access").await;
    let (refresh_token, first) = (shown(&begun), begun.token().to_owned());
    let answer = refresh(&service, &refresh_token).await;
    let (present, second) = (shown(&answer), answer.body["access_token"].clone());
    let second = second.as_str().unwrap().to_owned();
    // One that was exchanged for it is of the grant too.
    let pairs = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", first.as_str()),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
    ];
    let request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .basic_auth("partner", Some(PARTNER))
        .body(form(&pairs));
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let third = answer.body["access_token"].as_str().unwrap().to_owned();
    // Of the same session, and of another grant or of none.
    let other = exchanged(&service, &subject, "offline_access").await;
    let plain = exchanged(&service, &subject, "").await;
    let (other, plain) = (other.token().to_owned(), plain.token().to_owned());
    let grants: Vec<_> = [&first, &second, &third, &other, &plain]
        .iter()
        .map(|token| token::claims(token)["grant_id"].clone())
        .collect();
    assert!(grants[0].is_string());
    assert_eq!((&grants[1], &grants[2]), (&grants[0], &grants[0]));
    assert_ne!(grants[3], grants[0]);
    assert_eq!(grants[4], Value::Null);
    let family = URL_SAFE_NO_PAD.decode(&present[4..]).unwrap();
    let family = URL_SAFE_NO_PAD.encode(&family[..16]);
    assert_ne!(grants[0], family, "it does not say whose family it is");
    for token in [&first, &second, &third, &other, &plain] {
        assert!(passes(&service, token).await);
    }

    let revoke = service
        .client
        .post(format!("{}/oauth/revoke", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(&[("token", &present), ("client_id", "web")]));
    assert_eq!(service.send(revoke).await.status, 200);
    service.restart().await;
    for token in [&first, &second, &third] {
        assert!(!passes(&service, token).await);
    }
    for token in [&other, &plain] {
        assert!(passes(&service, token).await);
    }
}

#[tokio::test]
async fn a_used_refresh_token_that_comes_back_ends_the_app_tokens_of_its_grant() {
    let issuer = Issuer::start().await;
    let lines = "refresh = {}\n[clients.partner]\nsecret = { env = \"S\" }\napps = \"web\"\naudience = \"http://localhost:8080\"\n";
    let service = app(&issuer, lines).env("S", PARTNER).start().await;
    let answer = exchanged(&service, &issuer.token(), "offline_access").await;
    let (stolen, compact) = (shown(&answer), answer.token().to_owned());
    let next = shown(&refresh(&service, &stolen).await);
    shown(&refresh(&service, &next).await);
    assert!(passes(&service, &compact).await);
    assert_grant_refused(
        &refresh(&service, &stolen).await,
        "refresh_token_reused",
        "sign_in",
    );
    assert!(!passes(&service, &compact).await);
}
