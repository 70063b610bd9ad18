//! An issuer's key set over time: fetched ahead, once for all, kept through an outage, and
//! never at the bidding of a stranger.

use crate::support::issuer::{DISCOVERY, JWKS};
use crate::support::{Behaviour, Issuer, Key, Service, Token, eventually};
use futures_util::StreamExt;
use futures_util::future::{Either, join_all, select};
use serde_json::json;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const HOUR: i64 = 3600;
/// No answer takes longer; a guard against hanging, not a promise of speed.
const NOBODY_WAITS: Duration = Duration::from_millis(5500);

async fn asked(issuer: &Issuer, times: usize) {
    eventually(
        &format!("the key set is asked for {times} times"),
        async || issuer.asked(JWKS) >= times,
    )
    .await;
    assert_eq!(issuer.asked(JWKS), times);
}

fn named(issuer: &Issuer, kid: &str, key: &Key) -> String {
    Token::clerk(&issuer.url).header("kid", kid).sign(key)
}

/// A token of a kid that nobody has.
fn invented(issuer: &Issuer, kid: impl std::fmt::Display) -> String {
    named(issuer, &format!("invented_{kid}"), Key::other_rsa())
}

#[tokio::test]
async fn a_stampede_at_a_cold_start_is_one_fetch_and_all_are_served() {
    let issuer = Issuer::start().await;
    issuer.behave(JWKS, Behaviour::Late(Duration::from_millis(500)));
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    let answers = join_all((0..300).map(|_| service.session(&token))).await;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(issuer.asked(JWKS), 1);
}

#[tokio::test]
async fn the_keys_are_there_before_the_first_request() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    assert_eq!(service.admin("/startupz").await.status, 200);
    issuer.vanish();
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.asked(JWKS), 1);
    assert_eq!(issuer.asked(DISCOVERY), 0);
}

#[tokio::test]
async fn a_refresh_runs_ahead_of_expiry_and_nobody_waits_for_it() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    issuer.behave(JWKS, Behaviour::Stall);
    service.shift_clocks(0, 275);
    asked(&issuer, 2).await;
    let token = issuer.token();
    for answer in join_all((0..50).map(|_| service.session(&token))).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(
        service.key_set_fetches(&issuer, "error").await,
        0.0,
        "all were answered while the refresh was still under way"
    );
    eventually("the stalled refresh is given up", async || {
        service.key_set_fetches(&issuer, "error").await >= 1.0
    })
    .await;
    assert_eq!(service.session(&token).await.status, 200);
    issuer.behave(JWKS, Behaviour::Well);
    service.shift_clocks(0, 340);
    eventually("the key set is refreshed", async || {
        service.key_set_fetches(&issuer, "ok").await >= 2.0
    })
    .await;
}

#[tokio::test]
async fn how_long_a_set_stays_fresh_is_its_senders_word_within_a_minute_and_ten() {
    let (short, silent, long) = (
        [
            "no-store",
            "no-cache",
            "max-age=0",
            "public, Max-Age=\"1\"",
            "max-age=60",
        ],
        ["public", "max-age=soon", "max-age=300"],
        ["max-age=999999999", "public, max-age=3600"],
    );
    let all: Vec<&str> = short.into_iter().chain(silent).chain(long).collect();
    let mut issuers = Vec::new();
    for value in &all {
        let issuer = Issuer::start().await;
        issuer.cache_control(value);
        issuers.push(issuer);
    }
    let urls: Vec<&str> = issuers.iter().map(|issuer| issuer.url.as_str()).collect();
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", urls.join(","))
        .start()
        .await;
    for issuer in &issuers {
        service.has_keys_of(issuer).await;
    }
    // Landed, not begun: a set that lands after the next shift is fresh from then on.
    let landed = async || {
        let mut counts = Vec::new();
        for issuer in &issuers {
            counts.push(service.key_set_fetches(issuer, "ok").await);
        }
        counts
    };
    // A refresh comes at 70 to 90 % of the time, and is looked for each second.
    for (shift, expected) in [
        (25, [1.0, 1.0, 1.0]),
        (60, [2.0, 1.0, 1.0]),
        (90, [2.0, 1.0, 1.0]),
        (180, [3.0, 1.0, 1.0]),
        (275, [4.0, 2.0, 1.0]),
        (380, [5.0, 2.0, 1.0]),
        (560, [6.0, 3.0, 2.0]),
    ] {
        let before = landed().await;
        service.shift_clocks(0, shift);
        let wanted: Vec<f64> = [(short.len(), 0), (silent.len(), 1), (long.len(), 2)]
            .into_iter()
            .flat_map(|(times, class)| vec![expected[class]; times])
            .collect();
        if before == wanted {
            // Nothing may happen, so there is nothing to wait for but the next tick.
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        eventually(&format!("refreshed as due after {shift} s"), async || {
            landed()
                .await
                .iter()
                .zip(&wanted)
                .all(|(count, least)| count >= least)
        })
        .await;
        assert_eq!(landed().await, wanted, "after {shift} s: {all:?}");
    }
}

#[tokio::test]
async fn an_outage_is_bridged_for_a_day_and_no_longer() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    let back = || service.logged("the issuer's key set is back").len();
    assert_eq!(back(), 0, "it was never away");
    issuer.vanish();
    let token = issuer.token();
    for shift in [300, 600, HOUR, 12 * HOUR, 24 * HOUR - 60] {
        service.shift_clocks(0, shift);
        let answer = service.session(&token).await;
        assert_eq!(answer.status, 200, "after {shift} s: {}", answer.body);
        assert_eq!(service.admin("/readyz").await.status, 200);
    }
    service.shift_clocks(0, 24 * HOUR + 1);
    let answer = service.session(&token).await;
    answer.assert_refused(503, "issuer_keys_unavailable");
    assert_eq!(answer.body["source"], "upstream-idp");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(service.admin("/readyz").await.status, 200);

    issuer.come_back().await;
    service.shift_clocks(0, 24 * HOUR + 120);
    eventually("good tokens are exchanged again", async || {
        service.session(&token).await.status == 200
    })
    .await;
    eventually("the log says so, once", async || back() == 1).await;
}

#[tokio::test]
async fn an_issuer_that_was_away_at_the_start_is_found_when_it_comes() {
    let issuer = Issuer::start().await;
    issuer.vanish();
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    let answer = service.session(&token).await;
    answer.assert_refused(503, "issuer_keys_unavailable");
    eventually("the start is over", async || {
        service.admin("/startupz").await.status == 200
    })
    .await;
    issuer.come_back().await;
    service.shift_clocks(0, 120);
    service.has_keys_of(&issuer).await;
    assert_eq!(service.session(&token).await.status, 200);
}

#[tokio::test]
async fn a_new_key_is_found_by_its_first_token() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    issuer.publish(vec![Key::rsa().jwk("ins_1"), Key::other_rsa().jwk("ins_2")]);
    let new = named(&issuer, "ins_2", Key::other_rsa());
    for answer in join_all((0..50).map(|_| service.session(&new))).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.asked(JWKS), 2);
}

#[tokio::test]
async fn a_flood_of_invented_kids_is_one_fetch_a_cool_down() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    let good = issuer.token();
    for (round, shift) in [0, 31, 62].into_iter().enumerate() {
        service.shift_clocks(0, shift);
        // Slow enough that requests come before, during and after the fetch.
        issuer.behave(JWKS, Behaviour::Late(Duration::from_millis(30)));
        let flood = futures_util::stream::iter(0..500)
            .map(|number| {
                let (service, good) = (&service, &good);
                let invented = invented(&issuer, format!("{round}_{number}"));
                async move {
                    let refused = service.session(&invented).await;
                    refused.assert_refused(401, "subject_token_key_unknown");
                    if number % 10 == 0 {
                        assert_eq!(service.session(good).await.status, 200);
                    }
                }
            })
            .buffer_unordered(64);
        flood.collect::<Vec<()>>().await;
        assert_eq!(issuer.asked(JWKS), 2 + round);
    }
}

#[tokio::test]
async fn a_rotation_in_a_flood_is_found_when_the_cool_down_is_over() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    service
        .session(&invented(&issuer, 1))
        .await
        .assert_refused(401, "subject_token_key_unknown");
    issuer.publish(vec![Key::rsa().jwk("ins_1"), Key::other_rsa().jwk("ins_2")]);
    let new = named(&issuer, "ins_2", Key::other_rsa());
    let answer = service.session(&new).await;
    answer.assert_refused(401, "subject_token_key_unknown");
    assert_eq!(answer.body["action"], "refresh_subject_token");
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.asked(JWKS), 2);
    service.shift_clocks(0, 31);
    assert_eq!(service.session(&new).await.status, 200);
    assert_eq!(issuer.asked(JWKS), 3);
}

#[tokio::test]
async fn a_kid_that_was_not_found_is_not_asked_for_again_for_a_minute() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    let refused = async |kid: u32| {
        let answer = service.session(&invented(&issuer, kid)).await;
        answer.assert_refused(401, "subject_token_key_unknown");
    };
    refused(1).await;
    assert_eq!(issuer.asked(JWKS), 2);
    service.shift_clocks(0, 31);
    refused(1).await;
    assert_eq!(issuer.asked(JWKS), 2, "known to be missing");
    refused(2).await;
    assert_eq!(issuer.asked(JWKS), 3, "another one, after the cool-down");
    service.shift_clocks(0, 65);
    refused(1).await;
    assert_eq!(issuer.asked(JWKS), 4, "asked for again");
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_after_the_next_refresh() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    let old = issuer.token();
    assert_eq!(service.session(&old).await.status, 200);
    issuer.publish(vec![Key::other_rsa().jwk("ins_2")]);
    service.shift_clocks(0, 275);
    eventually("the key set is refreshed", async || {
        service.key_set_fetches(&issuer, "ok").await >= 2.0
    })
    .await;
    let answer = service.session(&old).await;
    answer.assert_refused(401, "subject_token_key_unknown");
    let new = named(&issuer, "ins_2", Key::other_rsa());
    assert_eq!(service.session(&new).await.status, 200);
}

#[tokio::test]
async fn a_broken_issuer_is_asked_less_and_less_often() {
    let issuer = Issuer::start().await;
    issuer.behave(JWKS, Behaviour::Close);
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    for second in 0..600 {
        service.shift_clocks(0, second);
        let answer = service.session(&token).await;
        answer.assert_refused(503, "issuer_keys_unavailable");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
    }
    // 1, 2, 4 … 60 s between tries, each halved at most: 8 to 27 tries in ten minutes.
    let tries = issuer.asked(JWKS);
    assert!((8..=30).contains(&tries), "{tries}");
}

#[tokio::test]
async fn an_issuer_that_stalls_or_drips_is_given_up_in_time() {
    for behaviour in [Behaviour::Stall, Behaviour::Drip] {
        let issuer = Issuer::start().await;
        issuer.behave(JWKS, behaviour);
        let service = Service::trusting(&issuer).await;
        let began = Instant::now();
        let answer = service.session(&issuer.token()).await;
        assert!(began.elapsed() < NOBODY_WAITS, "{:?}", began.elapsed());
        answer.assert_refused(503, "issuer_keys_unavailable");
        assert_eq!(answer.body["source"], "upstream-idp");
    }
}

#[tokio::test]
async fn a_late_discovery_and_a_stalled_key_set_are_given_up_together_in_time() {
    let issuer = Issuer::start().await;
    issuer.behave(DISCOVERY, Behaviour::Late(Duration::from_millis(2800)));
    issuer.behave(JWKS, Behaviour::Stall);
    let service = Service::builder()
        .config(&format!(
            "[issuers.idp]\nissuer = '{}'\n[apps.web]\nissuers = ['idp']\n",
            issuer.url
        ))
        .start()
        .await;
    let token = Token::oidc(&issuer.url, "web").sign(Key::rsa());
    let began = Instant::now();
    let answer = service.session(&token).await;
    assert!(began.elapsed() < NOBODY_WAITS, "{:?}", began.elapsed());
    answer.assert_refused(503, "issuer_keys_unavailable");
    assert_eq!(issuer.asked(JWKS), 1);
}

#[tokio::test]
async fn one_dead_issuer_does_not_hold_up_another() {
    let (dead, alive) = (Issuer::start().await, Issuer::start().await);
    dead.behave(JWKS, Behaviour::Stall);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &alive.url)
        .env("CLERK_JWT_ISSUER_MOBILE", &dead.url)
        .start()
        .await;
    service.has_keys_of(&alive).await;
    let (dead_token, good) = (dead.token(), alive.token());
    let waiting = pin!(join_all((0..100).map(|_| service.session(&dead_token))));
    let served = pin!(async {
        for _ in 0..50 {
            assert_eq!(service.session(&good).await.status, 200);
        }
    });
    match select(served, waiting).await {
        Either::Left(((), waiting)) => {
            for answer in waiting.await {
                answer.assert_refused(503, "issuer_keys_unavailable");
            }
        }
        Either::Right(_) => panic!("good tokens waited for the dead issuer"),
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_fetch_with_it() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    service.has_keys_of(&issuer).await;
    issuer.publish(vec![Key::other_rsa().jwk("ins_2")]);
    issuer.behave(JWKS, Behaviour::Late(Duration::from_millis(1500)));
    let new = named(&issuer, "ins_2", Key::other_rsa());

    let address = service.url.trim_start_matches("http://");
    let mut gone = TcpStream::connect(address).await.unwrap();
    let body = json!({ "session_token": new }).to_string();
    let request = format!(
        "POST /auth/exchange HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    gone.write_all(request.as_bytes()).await.unwrap();
    asked(&issuer, 2).await;
    drop(gone);
    eventually("the service sees it go", async || {
        service.metric("exchequer_connections").await == Some(0.0)
    })
    .await;
    assert_eq!(
        service.key_set_fetches(&issuer, "ok").await,
        1.0,
        "still on its way"
    );

    // In the cool-down only the fetch that was begun can bring the key.
    assert_eq!(service.session(&new).await.status, 200);
    assert_eq!(issuer.asked(JWKS), 2);
}

#[tokio::test]
async fn an_issuer_configured_with_its_key_is_never_asked() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_JWT_KEY", Key::rsa().public_pem())
        .start()
        .await;
    eventually("the start is over", async || {
        service.admin("/startupz").await.status == 200
    })
    .await;
    let any = Token::clerk(&issuer.url);
    for token in [
        issuer.token(),
        named(&issuer, "another", Key::rsa()),
        any.without_header("kid").sign(Key::rsa()),
    ] {
        assert_eq!(service.session(&token).await.status, 200);
    }
    for (kid, shift) in [("ins_1", 0), ("another", 700), ("ins_1", 25 * HOUR)] {
        service.shift_clocks(0, shift);
        let forged = named(&issuer, kid, Key::other_rsa());
        let answer = service.session(&forged).await;
        answer.assert_refused(401, "subject_token_signature_invalid");
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    assert_eq!(issuer.requests(), Vec::<String>::new());
}
