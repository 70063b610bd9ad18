//! A bare session id is exchanged through Clerk's Backend API: active sessions only, fresh,
//! once, of the right instance; and whatever becomes of that API, a caller soon knows.

use crate::support::issuer::JWKS;
use crate::support::service::Answer;
use crate::support::{Behaviour, Issuer, Service, clerk, now, token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exchequer::standin::{Fault, Session, StandIn, World, known};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const MEMBERSHIPS: &str = "GET /v1/users/user_2standin/organization_memberships?limit=50&offset=0";
const SESSION_CALL: &str = "GET /v1/sessions/sess_2standin";

/// A Clerk instance and a service that has its secret key, by variables alone.
async fn world() -> (Arc<StandIn>, Service) {
    let clerk = clerk().await;
    let service = Service::builder().keyed(&clerk).start().await;
    (clerk, service)
}

/// The section of an issuer; its secret key is in the variable `KEY_NAME`.
fn issuer(name: &str, clerk: &StandIn) -> String {
    let (url, api) = (clerk.issuer(), clerk.api_url());
    format!(
        "[issuers.{name}]\nissuer = {url:?}\nkind = \"clerk\"\napi_url = {api:?}\nsecret_key = {{ env = \"KEY_{}\" }}\n",
        name.to_uppercase()
    )
}

/// The same with one app, `web`, and these lines of it.
async fn world_with(app_lines: &str) -> (Arc<StandIn>, Service) {
    let clerk = clerk().await;
    let app = format!("[apps.web]\nissuers = [\"one\"]\n{app_lines}\n");
    let service = Service::builder()
        .config(&format!("{}{app}", issuer("one", &clerk)))
        .env("KEY_ONE", clerk.secret_key())
        .start()
        .await;
    (clerk, service)
}

async fn exchange(service: &Service, id: &str) -> Answer {
    service.exchange(&json!({ "session_id": id })).await
}

/// The calls of the Backend API so far.
fn calls(clerk: &StandIn) -> Vec<String> {
    let mut calls = clerk.calls();
    calls.retain(|call| call.contains(" /v1/"));
    calls
}

/// A session of the known user whose member is this.
fn session_with(clerk: &StandIn, id: &str, member: &str, value: impl Into<Value>) {
    clerk.world(|world| {
        let session = world.add_session(id, known::USER, "active");
        session[member] = value.into();
    });
}

/// Asserts a refusal, whole: its action, its source and its `Retry-After` too.
#[track_caller]
fn assert_whole(answer: &Answer, status: u16, code: &str, action: &str, retry_after: &str) {
    answer.assert_refused(status, code);
    assert_eq!(answer.body["action"], action, "{}", answer.body);
    assert_eq!(
        answer.body["retryable"],
        action == "retry",
        "{}",
        answer.body
    );
    assert_eq!(answer.header("retry-after"), retry_after, "{}", answer.body);
    let source = if retry_after.is_empty() {
        Value::Null
    } else {
        json!("upstream-idp")
    };
    assert_eq!(answer.body["source"], source, "{}", answer.body);
    let error = match status {
        400 => "invalid_request",
        401 => "invalid_token",
        403 => "access_denied",
        _ => "temporarily_unavailable",
    };
    assert_eq!(answer.body["error"], error, "{}", answer.body);
    assert!(!answer.body.to_string().contains("sess_2standin"));
}

#[tokio::test]
async fn an_active_session_gives_a_token_of_its_user_and_organisation() {
    let (clerk, service) = world().await;
    let answer = exchange(&service, known::SESSION).await;
    let claims = token::claims(answer.token());
    for (name, expected) in [
        ("sub", json!(known::USER)),
        ("sid", json!(known::SESSION)),
        ("idp", json!(clerk.issuer())),
        ("client_id", json!("default")),
        ("org_id", json!(known::ORGANIZATION)),
        ("org_slug", json!("acme")),
        ("roles", json!(["org:admin"])),
        ("act", Value::Null),
        ("auth_time", Value::Null),
    ] {
        assert_eq!(claims[name], expected, "{name} of {claims}");
    }
    assert_eq!(
        answer.body["user"],
        json!({"id": known::USER, "org_id": known::ORGANIZATION, "roles": ["org:admin"]})
    );
    let mut asked = calls(&clerk);
    asked.sort();
    assert_eq!(asked, ["GET /v1/jwks", SESSION_CALL, MEMBERSHIPS]);
}

#[tokio::test]
async fn the_instance_is_looked_at_once() {
    let (clerk, service) = world().await;
    for id in ["sess_1", "sess_2", "sess_3"] {
        clerk.world(|world| {
            world.add_session(id, known::USER, "active");
        });
        exchange(&service, id).await.token();
    }
    let asked = calls(&clerk);
    let of = |what: &str| asked.iter().filter(|call| *call == what).count();
    assert_eq!((of("GET /v1/jwks"), of(MEMBERSHIPS)), (1, 3), "{asked:?}");
}

#[tokio::test]
async fn session_tokens_need_nothing_of_the_backend_api() {
    let (clerk, service) = world().await;
    clerk.fault(Some(Fault::Stall));
    let answer = service
        .session(&clerk.session_token(&Session::default()))
        .await;
    assert_eq!(token::claims(answer.token())["sub"], known::USER);
    assert_eq!(calls(&clerk), Vec::<String>::new());
}

#[tokio::test]
async fn only_an_active_session_is_exchanged() {
    let (clerk, service) = world().await;
    for (session, status, code, action) in [
        ("pending", 403, "session_pending", "sign_in"),
        ("ended", 401, "session_ended", "sign_in"),
        ("expired", 401, "session_expired", "sign_in"),
        ("removed", 401, "session_removed", "sign_in"),
        ("replaced", 401, "session_replaced", "sign_in"),
        ("revoked", 401, "session_revoked", "sign_in"),
        ("abandoned", 401, "session_abandoned", "sign_in"),
        ("hibernating", 401, "session_status_unknown", "sign_in"),
        ("", 401, "session_status_unknown", "sign_in"),
        ("Active", 401, "session_status_unknown", "sign_in"),
    ] {
        clerk.world(|world| {
            world.add_session(known::SESSION, known::USER, session);
        });
        let answer = exchange(&service, known::SESSION).await;
        assert_whole(&answer, status, code, action, "");
    }
    assert!(!calls(&clerk).contains(&MEMBERSHIPS.to_owned()));
    let answer = exchange(&service, "sess_unknown").await;
    assert_whole(&answer, 401, "session_not_found", "sign_in", "");
    // None of these used the id up.
    clerk.world(|world| {
        world.add_session(known::SESSION, known::USER, "active");
    });
    exchange(&service, known::SESSION).await.token();
}

#[tokio::test]
async fn a_session_that_should_have_ended_by_now_has() {
    let (clerk, service) = world().await;
    session_with(&clerk, known::SESSION, "expire_at", (now() - 1) * 1000);
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 401, "session_expired", "sign_in", "");
}

#[tokio::test]
async fn every_failure_of_the_backend_api_has_its_answer() {
    for (fault, code, action, retry_after, attempts) in [
        (
            Fault::Status(401),
            "provider_credentials_invalid",
            "fix_config",
            "60",
            1,
        ),
        (
            Fault::Status(403),
            "provider_credentials_invalid",
            "fix_config",
            "60",
            1,
        ),
        // Not even the keys are found there: it is no Backend API.
        (
            Fault::Status(404),
            "provider_request_refused",
            "fix_config",
            "60",
            1,
        ),
        (
            Fault::Status(422),
            "provider_request_refused",
            "fix_config",
            "60",
            1,
        ),
        (
            Fault::RateLimited { retry_after: 7 },
            "provider_rate_limited",
            "retry",
            "7",
            1,
        ),
        (Fault::Status(429), "provider_rate_limited", "retry", "5", 1),
        (Fault::Status(500), "provider_unavailable", "retry", "5", 2),
        (Fault::Status(503), "provider_unavailable", "retry", "5", 2),
        (Fault::Html, "provider_unavailable", "retry", "5", 2),
        (Fault::Truncated, "provider_unavailable", "retry", "5", 2),
        (Fault::Hangup, "provider_unavailable", "retry", "5", 2),
        (Fault::Stall, "provider_unavailable", "retry", "5", 2),
    ] {
        let (clerk, service) = world().await;
        clerk.fault(Some(fault));
        let answer = exchange(&service, known::SESSION).await;
        assert_whole(&answer, 503, code, action, retry_after);
        let asked = calls(&clerk);
        let sessions = asked.iter().filter(|call| *call == SESSION_CALL).count();
        assert_eq!(sessions, attempts, "{fault:?}: {asked:?}");
    }
}

#[tokio::test]
async fn a_dead_backend_api_is_soon_left_alone_and_found_again() {
    let (clerk, service) = world().await;
    clerk.fault(Some(Fault::Hangup));
    for _ in 0..5 {
        let answer = exchange(&service, known::SESSION).await;
        assert_whole(&answer, 503, "provider_unavailable", "retry", "5");
    }
    // Five failures, what was on its way already, and on a slow machine a probe or two:
    // without a breaker it would be four times as many.
    let asked = calls(&clerk).len();
    assert!((5..=8).contains(&asked), "{:?}", calls(&clerk));
    let name = clerk
        .issuer()
        .trim_start_matches("http://")
        .replace(':', "-");
    let open = format!("exchequer_provider_breaker_open{{issuer=\"{name}\"}}");
    assert_eq!(service.metric(&open).await, Some(1.0));
    assert_eq!(
        service
            .logged("the provider's API fails: it is left alone for a while")
            .len(),
        1
    );

    // One probe after the pause; it fails, and the pause is longer.
    service.shift_clocks(0, 2);
    for _ in 0..5 {
        exchange(&service, known::SESSION).await;
    }
    let probes = calls(&clerk).len() - asked;
    assert!((1..=2).contains(&probes), "{:?}", calls(&clerk));

    clerk.fault(None);
    service.shift_clocks(0, 60);
    // Only the probe asks, be it for the session or for the keys.
    let mut answer = exchange(&service, known::SESSION).await;
    if answer.status == 503 {
        answer = exchange(&service, known::SESSION).await;
    }
    answer.token();
    assert_eq!(service.metric(&open).await, Some(0.0));
    assert_eq!(service.logged("the provider's API is back").len(), 1);
    let not_asked =
        format!("exchequer_provider_requests_total{{issuer=\"{name}\",result=\"not_asked\"}}");
    assert!(service.metric(&not_asked).await.unwrap() >= 5.0);
}

#[tokio::test]
async fn refusals_of_the_backend_api_do_not_make_it_seem_dead() {
    let (clerk, service) = world().await;
    for n in 0..10 {
        let id = format!("sess_none{n}");
        let answer = exchange(&service, &id).await;
        assert_whole(&answer, 401, "session_not_found", "sign_in", "");
    }
    clerk.fault(Some(Fault::Status(401)));
    for _ in 0..10 {
        exchange(&service, known::SESSION).await;
    }
    clerk.fault(None);
    exchange(&service, known::SESSION).await.token();
}

#[tokio::test]
async fn a_429_is_remembered_for_as_long_as_it_says() {
    let (clerk, service) = world().await;
    clerk.fault(Some(Fault::RateLimited { retry_after: 30 }));
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 503, "provider_rate_limited", "retry", "30");
    clerk.fault(None);
    let asked = calls(&clerk).len();
    service.shift_clocks(0, 20);
    let answer = exchange(&service, known::SESSION).await;
    answer.assert_refused(503, "provider_rate_limited");
    let left: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=10).contains(&left), "{left}");
    assert_eq!(calls(&clerk).len(), asked);
    service.shift_clocks(0, 31);
    exchange(&service, known::SESSION).await.token();
}

#[tokio::test]
async fn a_slow_backend_api_keeps_nobody_for_longer_than_the_whole_deadline() {
    let (clerk, service) = world().await;
    // Each answer is in time; all of them together are not.
    clerk.delay(Duration::from_millis(1500));
    clerk.world(|world| many_memberships(world, 200));
    let began = std::time::Instant::now();
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 503, "provider_unavailable", "retry", "5");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(calls(&clerk).len() <= 5, "{:?}", calls(&clerk));
}

/// Makes the known session act for the last of that many organisations.
fn many_memberships(world: &mut World, count: usize) {
    for n in 0..count {
        world.add_membership(known::USER, &format!("org_{n}"), "org:member");
    }
    let last = world.memberships_of(known::USER).last().unwrap()["organization"]["id"].clone();
    world.add_session(known::SESSION, known::USER, "active")["last_active_organization_id"] = last;
}

#[tokio::test]
async fn the_organisation_is_found_on_any_page() {
    let (clerk, service) = world().await;
    clerk.world(|world| many_memberships(world, 120));
    let answer = exchange(&service, known::SESSION).await;
    let expected =
        clerk.world(|world| world.sessions[known::SESSION]["last_active_organization_id"].clone());
    assert_eq!(token::claims(answer.token())["org_id"], expected);
    let asked = calls(&clerk);
    for offset in [0, 50, 100] {
        assert!(asked.contains(&MEMBERSHIPS.replace("offset=0", &format!("offset={offset}"))));
    }
}

#[tokio::test]
async fn a_session_whose_organisation_the_user_has_left_has_none() {
    let (clerk, service) = world().await;
    clerk.world(|world| {
        world.add_membership("user_2other", "org_2other", "org:admin");
        world.sessions.get_mut(known::SESSION).unwrap()["last_active_organization_id"] =
            json!("org_2other");
    });
    let claims = token::claims(exchange(&service, known::SESSION).await.token());
    assert_eq!(claims["sub"], known::USER);
    for name in ["org_id", "org_slug", "roles", "permissions"] {
        assert_eq!(claims[name], Value::Null, "{claims}");
    }
}

#[tokio::test]
async fn a_session_of_no_organisation_asks_for_no_memberships() {
    let (clerk, service) = world().await;
    session_with(
        &clerk,
        known::SESSION,
        "last_active_organization_id",
        Value::Null,
    );
    let claims = token::claims(exchange(&service, known::SESSION).await.token());
    assert_eq!(claims["org_id"], Value::Null);
    assert!(!calls(&clerk).contains(&MEMBERSHIPS.to_owned()));
}

#[tokio::test]
async fn a_user_who_is_gone_is_told_so() {
    let (clerk, service) = world().await;
    clerk.world(|world| world.users.remove(known::USER));
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 401, "user_deleted", "sign_in", "");
}

#[tokio::test]
async fn whoever_impersonates_is_named() {
    let (clerk, service) = world().await;
    let actor = json!({"sub": "user_2support", "iss": "https://dashboard.clerk.com", "note": "x"});
    session_with(&clerk, known::SESSION, "actor", actor);
    let claims = token::claims(exchange(&service, known::SESSION).await.token());
    assert_eq!(
        claims["act"],
        json!({"sub": "user_2support", "iss": "https://dashboard.clerk.com"})
    );
    session_with(&clerk, "sess_odd", "actor", json!({"name": "nobody"}));
    let answer = exchange(&service, "sess_odd").await;
    answer.assert_refused(401, "subject_token_claim_malformed");
}

#[tokio::test]
async fn a_session_is_fresh_for_two_minutes_after_it_was_created_or_touched() {
    let (clerk, service) = world().await;
    let mut number = 0;
    let mut exchange_new = async |created: i64, touched: i64, wall: i64| {
        number += 1;
        let id = format!("sess_{number}");
        clerk.world(|world| {
            let session = world.add_session(&id, known::USER, "active");
            session["created_at"] = json!((now() + created) * 1000);
            session["last_active_at"] = json!((now() + touched) * 1000);
        });
        service.shift_clocks(wall, 0);
        exchange(&service, &id).await
    };
    for (created, touched, wall) in [
        (0, 0, 0),
        (0, 0, 110),
        (-110, -110, 0),
        (-86_400, -100, 0),
        (-100, -86_400, 0),
        // Their clock is a little ahead of ours.
        (0, 0, -3),
        (0, 3, 0),
    ] {
        let answer = exchange_new(created, touched, wall).await;
        assert_eq!(
            answer.status, 200,
            "{created} {touched} {wall}: {}",
            answer.body
        );
    }
    for (created, touched, wall) in [
        (0, 0, 121),
        (-121, -121, 0),
        (-60, -60, 70),
        (0, 0, 86_400),
        (0, 0, -10),
        (0, 10, 0),
    ] {
        let answer = exchange_new(created, touched, wall).await;
        assert_whole(
            &answer,
            401,
            "session_id_stale",
            "refresh_subject_token",
            "",
        );
    }
}

#[tokio::test]
async fn a_session_id_is_exchanged_once() {
    let (clerk, mut service) = world().await;
    exchange(&service, known::SESSION).await.token();
    let repeated = exchange(&service, known::SESSION).await;
    assert_whole(
        &repeated,
        401,
        "session_id_used",
        "refresh_subject_token",
        "",
    );
    service.restart().await;
    let repeated = exchange(&service, known::SESSION).await;
    assert_whole(
        &repeated,
        401,
        "session_id_used",
        "refresh_subject_token",
        "",
    );
    // The user stays active: fresh again, and used all the same.
    service.shift_clocks(5 * 86_400, 5 * 86_400);
    clerk.world(|world| {
        let session = world.sessions.get_mut(known::SESSION).unwrap();
        session["last_active_at"] = json!((now() + 5 * 86_400) * 1000);
    });
    let repeated = exchange(&service, known::SESSION).await;
    assert_whole(
        &repeated,
        401,
        "session_id_used",
        "refresh_subject_token",
        "",
    );
}

#[tokio::test]
async fn whoever_sends_a_used_id_again_takes_nothing_from_its_user_or_its_provider() {
    let clerk = clerk().await;
    let app = "[apps.web]\nissuers = [\"one\"]\n";
    let service = Service::builder()
        .config(&format!("{}{app}", issuer("one", &clerk)))
        .env("KEY_ONE", clerk.secret_key())
        // For the user: a stranger whose address cannot be told pays for nothing.
        .env("EXCHEQUER_RATE_LIMIT", "3/1h")
        .start()
        .await;
    exchange(&service, known::SESSION).await.token();
    let asked = calls(&clerk).len();
    for _ in 0..10 {
        exchange(&service, known::SESSION)
            .await
            .assert_refused(401, "session_id_used");
    }
    assert_eq!(calls(&clerk).len(), asked);
    let users_own = clerk.session_token(&Session::default());
    let answer = service.session(&users_own).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("ratelimit-remaining"), "1");
}

#[tokio::test]
async fn of_many_exchanges_of_one_id_at_once_one_succeeds() {
    let (clerk, service) = world().await;
    clerk.delay(Duration::from_millis(50));
    let body = json!({ "session_id": known::SESSION });
    let answers = futures_util::future::join_all((0..20).map(|_| service.exchange(&body))).await;
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.assert_refused(401, "session_id_used");
    }
}

#[tokio::test]
async fn any_takes_an_id_as_long_as_its_session_is_active() {
    let (clerk, service) = world_with("session_id = \"any\"").await;
    service.shift_clocks(86_400, 0);
    exchange(&service, known::SESSION).await.token();
    exchange(&service, known::SESSION).await.token();
    clerk.world(|world| world.end_session(known::SESSION, "ended"));
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 401, "session_ended", "sign_in", "");
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

#[tokio::test]
async fn a_code_verifier_is_the_one_that_was_bound_at_sign_in() {
    let (clerk, service) = world_with("code_verifier = true").await;
    let verifier = "a".repeat(43);
    let other = "~._-".repeat(32);
    let with = async |verifier: &Value| {
        let body = json!({"session_id": known::SESSION, "code_verifier": verifier});
        service.exchange(&body).await
    };
    for missing in [json!({}), json!({"code_verifier": null})] {
        let mut body = missing;
        body["session_id"] = json!(known::SESSION);
        let answer = service.exchange(&body).await;
        assert_whole(&answer, 400, "code_verifier_missing", "fix_request", "");
    }
    for malformed in [
        "",
        "short",
        &"a".repeat(42),
        &"a".repeat(129),
        &"a b".repeat(20),
    ] {
        let answer = with(&json!(malformed)).await;
        assert_whole(&answer, 400, "parameter_malformed", "fix_request", "");
    }
    assert_eq!(calls(&clerk), Vec::<String>::new());
    for bound in [
        Value::Null,
        json!(verifier),
        json!(challenge(&other)),
        json!(format!("{}=", challenge(&verifier))),
        json!([challenge(&other), null, 7]),
        json!(vec![challenge(&verifier); 11]),
        json!({"S256": challenge(&verifier)}),
    ] {
        clerk.world(|world| {
            world.users.get_mut(known::USER).unwrap()["unsafe_metadata"] =
                json!({ "code_challenge": bound });
        });
        let answer = with(&json!(verifier)).await;
        assert_whole(&answer, 401, "code_verifier_mismatch", "sign_in", "");
    }
    clerk.world(|world| {
        world.users.get_mut(known::USER).unwrap()["unsafe_metadata"] =
            json!({"theme": "dark", "code_challenge": [challenge(&other), challenge(&verifier)]});
    });
    // No mismatch used the id up.
    with(&json!(verifier)).await.token();
    // A verifier does not make an id good twice.
    let answer = with(&json!(other)).await;
    assert_whole(&answer, 401, "session_id_used", "refresh_subject_token", "");
}

#[tokio::test]
async fn what_is_no_session_id_never_reaches_the_backend_api() {
    let (clerk, service) = world().await;
    for id in [
        "sess_",
        "sess_x/../users",
        "sess_x/../../v1/users/user_2standin",
        "../users/user_2standin",
        "sess_x%2e%2e%2fusers",
        "sess_%2e",
        "sess_x?limit=1",
        "sess_x#y",
        "sess_x\\..\\users",
        "sess_x\u{0}",
        "sess_x\r\nHost: evil",
        "sess_\u{ff38}",
        "s\u{435}ss_x",
        "sess_x\u{202e}",
        "SESS_2standin",
        " sess_2standin",
        "sess_2standin ",
        "user_2standin",
        "eyJhbGciOiJub25lIn0.e30.",
        &format!("sess_{}", "a".repeat(60)),
        &format!("sess_{}", "a".repeat(4000)),
    ] {
        let answer = exchange(&service, id).await;
        assert_whole(&answer, 400, "session_id_malformed", "fix_request", "");
        assert!(
            id.len() < 6 || !answer.body.to_string().contains(id),
            "{id:?}"
        );
    }
    assert_eq!(calls(&clerk), Vec::<String>::new());
    let longest = format!("sess_{}", "a".repeat(59));
    let answer = exchange(&service, &longest).await;
    assert_whole(&answer, 401, "session_not_found", "sign_in", "");
}

#[tokio::test]
async fn a_session_id_beside_another_credential_is_refused() {
    let (clerk, service) = world().await;
    let token = clerk.session_token(&Session::default());
    let body = json!({"session_id": known::SESSION, "session_token": token});
    let answer = service.exchange(&body).await;
    assert_whole(&answer, 400, "several_credentials", "fix_request", "");
    assert_eq!(calls(&clerk), Vec::<String>::new());
}

#[tokio::test]
async fn two_apps_of_two_instances_never_see_each_others_sessions() {
    let (one, two) = (clerk().await, clerk().await);
    one.world(|world| {
        world.add_session("sess_one", "user_one", "active");
        world.add_user("user_one");
    });
    two.world(|world| {
        world.add_session("sess_two", "user_two", "active");
        world.add_user("user_two");
    });
    let service = Service::builder()
        .config(&format!(
            "{}{}[apps.web]\nissuers = [\"one\"]\naudience = \"https://web.example\"\n\
             [apps.ios]\nissuers = [\"two\"]\naudience = \"https://ios.example\"\n\
             [apps.old]\nissuers = [\"one\"]\nsession_id = \"off\"\naudience = \"https://old.example\"\n",
            issuer("one", &one),
            issuer("two", &two)
        ))
        .env("KEY_ONE", one.secret_key())
        .env("KEY_TWO", two.secret_key())
        .start()
        .await;
    let ask = async |id: &str, name: &str, value: &str| {
        service
            .exchange(&json!({"session_id": id, name: value}))
            .await
    };
    let answer = exchange(&service, "sess_one").await;
    assert_whole(&answer, 400, "app_required", "fix_request", "");
    for (name, value, code) in [
        ("app", "none", "app_unknown"),
        ("app", "old", "session_id_unsupported"),
        ("audience", "https://old.example", "audience_not_allowed"),
        ("audience", "https://else.example", "audience_not_allowed"),
    ] {
        ask("sess_one", name, value).await.assert_refused(400, code);
    }
    assert_eq!((calls(&one).len(), calls(&two).len()), (0, 0));
    for (id, name, value) in [
        ("sess_one", "app", "ios"),
        ("sess_two", "app", "web"),
        ("sess_one", "audience", "https://ios.example"),
        ("sess_two", "audience", "https://web.example"),
    ] {
        let answer = ask(id, name, value).await;
        assert_whole(&answer, 401, "session_not_found", "sign_in", "");
    }
    let claims = token::claims(ask("sess_one", "app", "web").await.token());
    assert_eq!(
        (&claims["sub"], &claims["idp"]),
        (&json!("user_one"), &json!(one.issuer()))
    );
    let claims = token::claims(
        ask("sess_two", "audience", "https://ios.example")
            .await
            .token(),
    );
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&json!("user_two"), &json!("ios"))
    );
    assert!(!calls(&one).iter().any(|call| call.contains("user_two")));
    assert!(!calls(&two).iter().any(|call| call.contains("user_one")));
}

#[tokio::test]
async fn without_a_secret_key_or_switched_off_session_ids_are_refused() {
    let clerk = clerk().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", clerk.issuer())
        .start()
        .await;
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 400, "session_id_unsupported", "fix_request", "");
    let (clerk, service) = world_with("session_id = \"off\"").await;
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(&answer, 400, "session_id_unsupported", "fix_request", "");
    assert_eq!(calls(&clerk), Vec::<String>::new());
}

#[tokio::test]
async fn of_two_instances_the_one_with_a_secret_key_is_asked() {
    let (one, two) = (clerk().await, clerk().await);
    let bare = format!(
        "[issuers.two]\nissuer = {:?}\nkind = \"clerk\"\n",
        two.issuer()
    );
    let app = "[apps.web]\nissuers = [\"two\", \"one\"]\n";
    let service = Service::builder()
        .config(&format!("{}{bare}{app}", issuer("one", &one)))
        .env("KEY_ONE", one.secret_key())
        .start()
        .await;
    let answer = exchange(&service, known::SESSION).await;
    assert_eq!(token::claims(answer.token())["idp"], one.issuer());
    assert_eq!(calls(&two), Vec::<String>::new());
}

#[tokio::test]
async fn the_condition_of_the_app_holds_for_sessions_that_are_looked_up() {
    let (clerk, service) = world_with("condition = 'roles.exists(r, r == \"org:admin\")'").await;
    clerk.world(|world| {
        world.add_membership("user_2member", known::ORGANIZATION, "org:member");
        world.add_session("sess_2member", "user_2member", "active");
    });
    let answer = exchange(&service, "sess_2member").await;
    assert_whole(&answer, 403, "condition_not_met", "fix_config", "");
    exchange(&service, known::SESSION).await.token();
}

/// A service whose issuer is one instance, and whose secret key is another one's.
async fn mixed_up() -> (Arc<StandIn>, Arc<StandIn>, Service) {
    let (right, wrong) = (clerk().await, clerk().await);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", right.issuer())
        .env("CLERK_SECRET_KEY", wrong.secret_key())
        .env("CLERK_API_URL", wrong.api_url())
        .start()
        .await;
    (right, wrong, service)
}

#[tokio::test]
async fn the_secret_key_of_another_instance_is_told_from_a_missing_session() {
    let (right, wrong, service) = mixed_up().await;
    wrong.world(|world| world.sessions.clear());
    for _ in 0..3 {
        let answer = exchange(&service, known::SESSION).await;
        assert_whole(
            &answer,
            503,
            "provider_instance_mismatch",
            "fix_config",
            "60",
        );
    }
    let keys = |clerk: &StandIn| {
        let asked = calls(clerk);
        asked.iter().filter(|call| *call == "GET /v1/jwks").count()
    };
    assert_eq!((keys(&right), keys(&wrong)), (0, 1));
    let lines = service.logged("the secret key belongs to another Clerk instance than the issuer");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["issuer"], right.issuer());
    assert_eq!(lines[0]["secret_key_kids"], wrong.instance_id());
    let keys_of_issuer = lines[0]["issuer_keys"].as_str().unwrap();
    assert!(keys_of_issuer.contains(right.instance_id()), "{lines:?}");
    let log = service.log().join("\n");
    assert!(!log.contains(wrong.secret_key()));
    // It is asked anew after some minutes.
    service.shift_clocks(0, 301);
    exchange(&service, known::SESSION)
        .await
        .assert_refused(503, "provider_instance_mismatch");
    assert_eq!(keys(&wrong), 2);
}

#[tokio::test]
async fn not_even_a_session_that_the_other_instance_has_is_taken() {
    let (_right, _wrong, service) = mixed_up().await;
    // Both stand-ins have the session of that id.
    let answer = exchange(&service, known::SESSION).await;
    assert_whole(
        &answer,
        503,
        "provider_instance_mismatch",
        "fix_config",
        "60",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_whether_each_secret_key_is_valid_and_the_issuers() {
    let row = |service: &Service| {
        let ended = service.command().run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rows = report["checks"].as_array().unwrap().clone();
        let of_key = |row: &Value| row["check"] == "secret_key";
        let mut rows = rows.into_iter().filter(of_key);
        let row = rows.next().unwrap();
        assert!(rows.next().is_none());
        row
    };
    let (clerk, mut service) = world().await;
    let found = row(&service);
    assert_eq!(
        (&found["status"], &found["code"]),
        (&json!("ok"), &Value::Null),
        "{found}"
    );
    service.set_env("CLERK_SECRET_KEY", "sk_test_wrong");
    let found = row(&service);
    assert_eq!(found["status"], "fail");
    assert_eq!(found["code"], "provider_credentials_invalid", "{found}");
    assert!(!found.to_string().contains("sk_test_wrong"));
    service.set_env("CLERK_SECRET_KEY", clerk.secret_key());
    clerk.fault(Some(Fault::Html));
    assert_eq!(row(&service)["code"], "provider_unavailable");
    let (_right, wrong, service) = mixed_up().await;
    let found = row(&service);
    assert_eq!(found["code"], "provider_instance_mismatch", "{found}");
    assert!(
        found["message"]
            .as_str()
            .unwrap()
            .contains(wrong.instance_id())
    );
}

#[tokio::test]
async fn an_app_with_secret_keys_of_several_instances_must_say_what_a_session_id_means() {
    let (one, two) = (clerk().await, clerk().await);
    let check = |app_lines: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "{}{}[apps.web]\nissuers = [\"one\", \"two\"]\n{app_lines}\n",
            issuer("one", &one),
            issuer("two", &two)
        );
        std::fs::write(dir.path().join("exchequer.toml"), config).unwrap();
        crate::support::Command::new(dir.path())
            .env("EXCHEQUER_CONFIG", "exchequer.toml")
            .env("KEY_ONE", one.secret_key())
            .env("KEY_TWO", two.secret_key())
            .run(&["check"])
    };
    let ended = check("");
    assert_eq!(ended.code, 1, "{ended:?}");
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        told.contains("session_id = \"off\"") && told.contains("one, two"),
        "{told}"
    );
    let ended = check("session_id = \"off\"");
    assert_eq!(ended.code, 0, "{ended:?}");
}

/// A Backend API that says what it is told to, at the origin of an issuer.
async fn scripted() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let keys = json!({"keys": [crate::support::Key::rsa().jwk("ins_1")]});
    issuer.behave("/v1/jwks", Behaviour::Answer(200, keys.to_string()));
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_SECRET_KEY", "sk_test_scripted")
        .env("CLERK_API_URL", &issuer.url)
        .start()
        .await;
    (issuer, service)
}

fn plain_session() -> Value {
    json!({
        "object": "session", "id": "sess_1", "user_id": "user_1", "status": "active",
        "created_at": now() * 1000, "last_active_at": now() * 1000,
        "expire_at": (now() + 3600) * 1000,
    })
}

#[tokio::test]
async fn the_backend_api_is_asked_as_clerk_wants_it_and_with_the_callers_trace() {
    let (issuer, service) = scripted().await;
    issuer.behave(
        "/v1/sessions/sess_1",
        Behaviour::Answer(200, plain_session().to_string()),
    );
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .header("traceparent", trace)
        .body(json!({"session_id": "sess_1"}).to_string());
    service.send(request).await.token();
    let heads = issuer.requests();
    let mut asked = heads.iter().filter(|head| head.starts_with("GET /v1/"));
    assert_eq!(asked.clone().count(), 2, "{heads:?}");
    assert!(asked.all(|head| {
        let head = head.to_lowercase();
        head.contains(&format!("\r\ntraceparent: {trace}\r\n"))
            && head.contains("\r\nauthorization: bearer sk_test_scripted\r\n")
            && head.contains("\r\nclerk-api-version: 2026-05-12\r\n")
            && head.contains("\r\nuser-agent: exchequer/")
    }));
    assert!(heads.iter().any(|head| head.contains(JWKS)));
    assert!(!service.log().join("\n").contains("sk_test_scripted"));
}

#[tokio::test]
async fn an_answer_that_is_not_the_session_that_was_asked_for_is_none() {
    let (issuer, service) = scripted().await;
    let with = |name: &str, value: Value| {
        let mut session = plain_session();
        session[name] = value;
        session.to_string()
    };
    let mut repeated = plain_session().to_string();
    repeated.insert_str(1, "\"id\":\"sess_1\",");
    for body in [
        with("id", json!("sess_2")),
        with("id", json!(null)),
        with("user_id", json!("user_1/../user_2")),
        with("user_id", json!("org_1")),
        with("user_id", json!("user_")),
        with("status", json!(1)),
        with("status", json!(null)),
        with("created_at", json!("now")),
        with("last_active_at", json!(null)),
        with("expire_at", json!(1e300)),
        with("last_active_organization_id", json!(["org_1"])),
        "[]".to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        String::new(),
        repeated,
    ] {
        issuer.behave("/v1/sessions/sess_1", Behaviour::Answer(200, body.clone()));
        let answer = exchange(&service, "sess_1").await;
        assert_eq!(answer.body["code"], "provider_unavailable", "{body}");
        assert_whole(&answer, 503, "provider_unavailable", "retry", "5");
        // Some of these count as failures of the API: the breaker is not what is tested.
        issuer.behave(
            "/v1/sessions/sess_1",
            Behaviour::Answer(404, "{}".to_owned()),
        );
        exchange(&service, "sess_1").await;
    }
    // A redirect could take the secret key elsewhere.
    let elsewhere = Behaviour::Redirect(format!("{}/v1/jwks", issuer.url));
    issuer.behave("/v1/sessions/sess_1", elsewhere);
    exchange(&service, "sess_1")
        .await
        .assert_refused(503, "provider_unavailable");
}

#[tokio::test]
async fn memberships_of_another_user_are_nobodys() {
    let (issuer, service) = scripted().await;
    let membership = |user: &str, role: &str| {
        json!({
            "role": role, "permissions": [], "public_user_data": {"user_id": user},
            "organization": {"id": "org_1", "slug": "acme"},
        })
    };
    let own = membership("user_1", "org:member");
    let other = membership("user_2", "org:admin");
    for (number, listed, roles) in [
        (1, json!([other]), Value::Null),
        (2, json!([other, own]), json!(["org:member"])),
    ] {
        let id = format!("sess_{number}");
        let mut session = plain_session();
        session["id"] = json!(id);
        session["last_active_organization_id"] = json!("org_1");
        let path = format!("/v1/sessions/{id}");
        issuer.behave(&path, Behaviour::Answer(200, session.to_string()));
        let listed = json!({"data": listed, "total_count": 2}).to_string();
        issuer.behave(
            "/v1/users/user_1/organization_memberships?limit=50&offset=0",
            Behaviour::Answer(200, listed),
        );
        let answer = exchange(&service, &id).await;
        assert_eq!(token::claims(answer.token())["roles"], roles);
    }
}
