//! Two replicas over one Redis: what is for one use is honoured once, though it is tried a thousand
//! times at both.

use crate::support::redis::RedisCluster;
use crate::support::service::Builder;
use crate::support::token::claims;
use crate::support::{Answer, Issuer, Key, Redis, Service, clerk};
use crate::{client_auth, dpop, refresh, sign_in};
use exchequer::standin::known;
use futures_util::stream::{StreamExt, iter};
use serde_json::json;
use std::collections::BTreeSet;

const TIMES: usize = 1000;
/// How many are under way at once.
const AT_ONCE: usize = 64;

/// What makes a service a replica over the Redis of this URL; the deadline is one that a busy
/// machine keeps.
pub fn shared(url: &str) -> [(&'static str, String); 2] {
    [
        ("EXCHEQUER_STORE", format!("{url}?deadline=2s")),
        (
            "EXCHEQUER_KEYS_SECRET",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
        ),
    ]
}

/// Two services that are alike, over the Redis of this URL.
async fn two(url: &str, alike: impl Fn() -> Builder) -> [Service; 2] {
    let start = async || {
        let mut builder = alike();
        for (name, value) in shared(url) {
            builder = builder.env(name, value);
        }
        builder.start().await
    };
    [start().await, start().await]
}

/// Tries something this often, every other time at the other replica.
async fn raced(replicas: [&Service; 2], attempt: impl AsyncFn(&Service) -> Answer) -> Vec<Answer> {
    let attempt = &attempt;
    let attempts = replicas.into_iter().cycle().take(TIMES);
    let attempts = attempts.map(|replica| attempt(replica));
    iter(attempts).buffer_unordered(AT_ONCE).collect().await
}

/// The answer to the one attempt that was honoured; each other was refused like this.
#[track_caller]
fn the_one(answers: &[Answer], status: u16, code: &str) -> Answer {
    let (good, bad): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    for answer in bad {
        answer.assert_refused(status, code);
    }
    assert_eq!((good.len(), answers.len()), (1, TIMES));
    good[0].clone()
}

#[tokio::test]
async fn an_authorization_code_is_honoured_once() {
    let (redis, issuer) = (Redis::start().await, Issuer::start().await);
    let [one, other] = two(&redis.url(), || sign_in::with(&issuer, "")).await;
    let code = sign_in::code(&issuer, &one, &[]).await;
    let answers = raced([&other, &one], async |replica| {
        sign_in::exchange(replica, &code, &[]).await
    })
    .await;
    the_one(&answers, 400, "authorization_code_used");
}

#[tokio::test]
async fn a_refresh_token_has_one_successor_which_both_give_to_who_lost_the_answer() {
    let (redis, issuer) = (Redis::start().await, Issuer::start().await);
    let [one, other] = two(&redis.url(), || {
        refresh::app(&issuer, "refresh = {grace=\"60s\"}")
    })
    .await;
    let first = refresh::begun(&one, &issuer.token()).await;
    let answers = raced([&one, &other], async |replica| {
        refresh::refresh(replica, &first).await
    })
    .await;
    let successors: BTreeSet<String> = answers.iter().map(refresh::shown).collect();
    assert_eq!((successors.len(), answers.len()), (1, TIMES));
    let minted = answers.iter().map(|answer| {
        let token = answer.body["access_token"].as_str().unwrap();
        claims(token)["jti"].to_string()
    });
    assert_eq!(minted.collect::<BTreeSet<_>>().len(), TIMES);
    let families = redis.ask(&["KEYS", "*:e:*"]);
    assert_eq!(families.lines().count(), 1, "{families}");
    // The successor is good at either, once, and ends what came before it.
    let second = successors.into_iter().next().unwrap();
    let third = refresh::shown(&refresh::refresh(&other, &second).await);
    assert_ne!(third, second);
    assert_eq!(
        refresh::shown(&refresh::refresh(&one, &second).await),
        third
    );
    refresh::refresh(&one, &first)
        .await
        .assert_refused(400, "refresh_token_reused");
}

#[tokio::test]
async fn a_refresh_token_without_a_grace_is_honoured_once_and_its_family_ends() {
    let (redis, issuer) = (Redis::start().await, Issuer::start().await);
    let [one, other] = two(&redis.url(), || {
        refresh::app(&issuer, "refresh = {grace=\"0s\"}")
    })
    .await;
    let first = refresh::begun(&one, &issuer.token()).await;
    let answers = raced([&one, &other], async |replica| {
        refresh::refresh(replica, &first).await
    })
    .await;
    let honoured = the_one(&answers, 400, "refresh_token_reused");
    for replica in [&one, &other] {
        refresh::refresh(replica, &refresh::shown(&honoured))
            .await
            .assert_refused(400, "refresh_token_reused");
    }
}

#[tokio::test]
async fn over_a_cluster_a_refresh_token_is_honoured_once_too() {
    let (cluster, issuer) = (RedisCluster::start(false).await, Issuer::start().await);
    let app = || refresh::app(&issuer, "refresh = {grace=\"0s\"}");
    let [one, other] = two(&cluster.url(), app).await;
    let first = refresh::begun(&one, &issuer.token()).await;
    let answers = raced([&one, &other], async |replica| {
        refresh::refresh(replica, &first).await
    })
    .await;
    the_one(&answers, 400, "refresh_token_reused");
}

#[tokio::test]
async fn a_session_id_is_honoured_once() {
    let redis = Redis::start().await;
    let clerk = clerk().await;
    let [one, other] = two(&redis.url(), || {
        Service::builder().keyed_in_file(&clerk, "", "[apps.web]\nissuers = [\"clerk\"]")
    })
    .await;
    let body = json!({ "session_id": known::SESSION });
    let answers = raced([&one, &other], async |replica| {
        replica.exchange(&body).await
    })
    .await;
    the_one(&answers, 401, "session_id_used");
}

#[tokio::test]
async fn a_client_assertion_is_honoured_once() {
    let redis = Redis::start().await;
    let variables = shared(&redis.url());
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let one = client_auth::world_with(&variables).await;
    let other = client_auth::world_with(&variables).await;
    let assertion = client_auth::hs256(&client_auth::claims("mac"));
    let pairs = client_auth::asserted(&assertion);
    let answers = raced([&one.service, &other.service], async |replica| {
        client_auth::ask(replica, None, &pairs).await
    })
    .await;
    the_one(&answers, 401, "client_assertion_used");
}

#[tokio::test]
async fn a_dpop_proof_is_honoured_once() {
    let (redis, issuer) = (Redis::start().await, Issuer::start().await);
    let [one, other] = two(&redis.url(), || Service::builder().one_app(&issuer, "", "")).await;
    let key = Key::ed25519();
    let proof = dpop::Proof::exchange(key).sign(key);
    let answers = raced([&one, &other], async |replica| {
        dpop::exchange(replica, &issuer, &[&proof]).await
    })
    .await;
    the_one(&answers, 400, "dpop_proof_used");
}
