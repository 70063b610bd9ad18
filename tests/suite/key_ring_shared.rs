//! One key ring for many replicas, in a Redis: they agree on it whatever becomes of Redis, and
//! no token that was honestly minted fails at any of them.

use crate::support::ring::{in_state, list, mint, text, try_list, verifies};
use crate::support::service::Builder;
use crate::support::token::kid;
use crate::support::{Issuer, Proxy, Redis, Ring, Service, eventually, now};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_SECRET: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const RING: &str = "exchequer:1:{exchequer}:ring";

fn replica_at(url: &str, issuer: &Issuer) -> Builder {
    Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_STORE", url)
        .env("EXCHEQUER_KEYS_SECRET", SECRET)
        .env("EXCHEQUER_KEY_ROTATE_EVERY", "30d")
        .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h")
        .env("EXCHEQUER_KEY_KEEP_AFTER", "24h")
}

async fn replicas(redis: &Redis, issuer: &Issuer, count: usize) -> Vec<Service> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(replica_at(&redis.url(), issuer).start().await);
    }
    all
}

async fn jwks(service: &Service) -> Value {
    let answer = service.get("/.well-known/jwks.json").await;
    assert_eq!(answer.status, 200);
    answer.body
}

async fn kids(service: &Service) -> BTreeSet<String> {
    let jwks = jwks(service).await;
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| text(&key["kid"])).collect()
}

/// Asserts that the token verifies by the key set of every one of them.
async fn assert_good_at(all: &[&Service], token: &str) {
    for service in all {
        let jwks = jwks(service).await;
        assert!(verifies(token, &jwks), "{} by {jwks}", kid(token));
    }
}

async fn count(service: &Service, name: &str) -> f64 {
    let name = format!("exchequer_key_ring_{name}");
    service.metric(&name).await.unwrap()
}

async fn generation(service: &Service) -> u64 {
    let counted = count(service, "generation").await;
    format!("{counted}").parse().unwrap()
}

/// Waits until all publish the same keys.
async fn agreed(all: &[&Service]) {
    eventually("all publish the same keys", async || {
        let mut sets = BTreeSet::new();
        for service in all {
            sets.insert(kids(service).await);
        }
        sets.len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_redis_of_the_tests_does_what_the_tests_ask_of_it() {
    let redis = Redis::start().await;
    let holds = || redis.ask(&["GET", "name"]);
    assert_eq!(redis.ask(&["SET", "name", "value"]), "OK");
    assert_eq!(holds(), "value");
    redis.kill();
    redis.run().await;
    assert_eq!(holds(), "value");
    redis.stop();
    redis.run().await;
    assert_eq!(holds(), "value");
    redis.stop();
    redis.run_empty().await;
    assert_eq!(holds(), "");
    redis.ask(&["SET", "name", "value"]);
    redis.freeze();
    redis.thaw();
    assert_eq!(holds(), "value");
    redis.flush();
    assert_eq!(holds(), "");
    assert!(redis.socket().exists() && redis.port() != 0);
    assert!(redis.url().starts_with("redis://") && redis.socket_url().starts_with("unix:///"));
}

#[tokio::test]
async fn replicas_share_one_ring_and_each_verifies_what_any_signs() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 3).await;
    let all: Vec<&Service> = all.iter().collect();
    let first = kids(all[0]).await;
    assert_eq!(first.len(), 2);
    for service in &all {
        assert_eq!(kids(service).await, first);
        assert_eq!(service.admin("/readyz").await.status, 200);
        assert_good_at(&all, &mint(service, &issuer, 0).await).await;
        let place = "exchequer_key_ring_info{place=\"redis\"}";
        assert_eq!(service.metric(place).await, Some(1.0));
        assert_eq!(count(service, "put_back_total").await, 0.0);
        assert_eq!(count(service, "conflicts_total").await, 0.0);
        assert_eq!(count(service, "shared").await, 1.0);
    }
    // No private key leaves the replicas in clear.
    let document = redis.ask(&["HGET", RING, "document"]);
    assert!(document.contains("sealed_with"), "{document}");
    assert_eq!(redis.ask(&["TTL", RING]), "-1");
}

#[tokio::test]
async fn a_ring_that_does_not_change_is_not_read_again_each_second_and_nothing_fails() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 1).await;
    let service = &all[0];
    mint(service, &issuer, 0).await;
    redis.ask(&["CONFIG", "SET", "slowlog-max-len", "10000"]);
    redis.ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    let looks = |what: &str| {
        let asked = redis.ask(&["SLOWLOG", "GET", "-1"]);
        let mut lines = asked.lines().peekable();
        let mut count = 0;
        while let Some(line) = lines.next() {
            count += usize::from(line == RING && lines.peek() == Some(&what));
        }
        count
    };
    eventually("its version is looked at", async || looks("version") >= 6).await;
    // One look of ten is at the whole, for what was damaged under its version.
    assert!(looks("document") <= 1, "{}", looks("document"));
    assert_eq!(count(service, "failures_total").await, 0.0);
}

#[tokio::test]
async fn the_commands_act_on_the_shared_ring_from_anywhere_and_say_so() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 2).await;
    let all: Vec<&Service> = all.iter().collect();
    let mut elsewhere = Ring::new();
    elsewhere.set_env("EXCHEQUER_STORE", &redis.url());
    elsewhere.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    let before = elsewhere.list();
    assert_eq!(before.len(), 2);
    let ended = elsewhere.keys(&["rotate", "--force"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let place = format!("key ring: {RING} in Redis, 127.0.0.1:{}\n", redis.port());
    assert_eq!(ended.stderr, place);
    assert!(!elsewhere.path("keys").exists(), "nothing is kept here");
    let signs = in_state(&before, "next")[0].clone();
    assert_eq!(in_state(&elsewhere.list(), "active"), vec![signs.clone()]);
    for service in &all {
        eventually("a forced rotation is taken over at once", async || {
            kid(&mint(service, &issuer, 0).await) == signs
        })
        .await;
    }
    let ended = elsewhere.keys(&["revoke", &signs]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for service in &all {
        eventually("a revoked key is gone everywhere", async || {
            !kids(service).await.contains(&signs)
        })
        .await;
    }
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-out"])
        .arg(elsewhere.path("key.pem"))
        .output();
    assert!(made.unwrap().status.success());
    let ended = elsewhere.keys(&["import", "key.pem", "--alg", "ES256"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let imported = ended.stdout.trim().trim_start_matches("imported ");
    for service in &all {
        eventually("an imported key is published everywhere", async || {
            kids(service).await.contains(imported)
        })
        .await;
    }
    redis.stop();
    let ended = elsewhere.keys(&["rotate"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("error: Redis"), "{ended:?}");
}

#[tokio::test]
async fn a_change_of_the_shared_ring_is_one_script_that_reads_and_one_that_writes() {
    let redis = Redis::start().await;
    let mut elsewhere = Ring::new();
    elsewhere.set_env("EXCHEQUER_STORE", &redis.url());
    elsewhere.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    let scripts = || {
        let said = redis.ask(&["INFO", "commandstats"]);
        let mut lines = said.lines();
        let calls = lines.find_map(|line| line.strip_prefix("cmdstat_eval:calls="));
        let calls = calls.and_then(|calls| calls.split(',').next());
        calls.unwrap().parse::<u32>().unwrap()
    };
    let rotate = || elsewhere.keys(&["rotate", "--force"]);
    // Makes the ring, in which nothing stands by yet.
    rotate();
    assert_eq!(elsewhere.list().len(), 2);
    let before = scripts();
    let ended = rotate();
    assert_eq!(ended.code, 0, "{ended:?}");
    // What was answered needs no look whether it was done.
    assert_eq!(scripts() - before, 2);
}

#[tokio::test]
async fn a_rotation_is_published_by_all_before_any_signs_and_no_token_fails_anywhere() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 3).await;
    let all: Vec<&Service> = all.iter().collect();
    let mut tokens = Vec::new();
    // Four days, each longer than a key is kept after it signed.
    for day in 1..=4_i64 {
        let shift = day * 90_000;
        for service in &all {
            service.pass_time(shift);
        }
        eventually("the standby is ready and what is old is gone", async || {
            let keys = list(all[0].command());
            in_state(&keys, "retired").is_empty() && in_state(&keys, "next").len() == 1
        })
        .await;
        agreed(&all).await;
        tokens.clear();
        for service in &all {
            tokens.push(mint(service, &issuer, shift).await);
        }
        let known = kids(all[0]).await;
        let rotated = all[1].command().run(&["keys", "rotate"]);
        assert!(rotated.stdout.contains("signs from now on"), "{rotated:?}");
        let next = in_state(&list(all[1].command()), "active")[0].clone();
        assert!(known.contains(&next));
        eventually("all sign with the new key", async || {
            let mut signers = BTreeSet::new();
            for service in &all {
                let token = mint(service, &issuer, shift).await;
                assert_good_at(&all, &token).await;
                signers.insert(kid(&token));
                tokens.push(token);
            }
            signers == BTreeSet::from([next.clone()])
        })
        .await;
        for token in &tokens {
            assert_good_at(&all, token).await;
        }
    }
}

#[tokio::test]
async fn rotations_of_many_processes_at_once_come_one_after_the_other() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let service = replica_at(&redis.url(), &issuer).start().await;
    let before = list(service.command());
    let first = generation(&service).await;
    let rotations: Vec<_> = (0..5)
        .map(|_| {
            let command = service.command();
            std::thread::spawn(move || command.run(&["keys", "rotate", "--force"]))
        })
        .collect();
    let ended: Vec<_> = rotations
        .into_iter()
        .map(|each| each.join().unwrap())
        .collect();
    let signed: BTreeSet<String> = ended
        .iter()
        .filter(|ended| ended.code == 0)
        .map(|ended| ended.stdout.split(' ').nth(1).unwrap().to_owned())
        .collect();
    // Four keys are published at most: two were there, and three rotations are as many.
    assert_eq!(signed.len(), 3, "{ended:#?}");
    for refused in ended.iter().filter(|ended| ended.code != 0) {
        assert!(refused.stderr.contains("four keys"), "{refused:?}");
    }
    let after = list(service.command());
    let mut ever: BTreeSet<String> = in_state(&after, "retired").into_iter().collect();
    ever.extend(in_state(&after, "active"));
    let expected = signed.into_iter().chain(in_state(&before, "active"));
    assert_eq!(ever, expected.collect());
    eventually("the service has the last of them", async || {
        kids(&service).await == ever
    })
    .await;
    // Each is one change and the tick that follows it; the last makes no standby.
    let last = generation(&service).await;
    assert!((first + 4..=first + 6).contains(&last), "{first} {last}");
}

#[tokio::test]
async fn a_rotation_that_is_due_is_made_once_whoever_comes_first() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 3).await;
    let all: Vec<&Service> = all.iter().collect();
    let before = list(all[0].command());
    let shift = 31 * 86_400;
    for service in &all {
        service.pass_time(shift);
    }
    for service in &all {
        eventually("the rotation is made", async || {
            let keys = try_list(service.command()).unwrap_or_default();
            in_state(&keys, "active") == in_state(&before, "next")
        })
        .await;
    }
    agreed(&all).await;
    let after = list(all[2].command());
    assert_eq!(after.len(), 3, "{after:#?}");
    assert_eq!(in_state(&after, "retired"), in_state(&before, "active"));
    assert_eq!(count(all[0], "conflicts_total").await, 0.0);
}

#[tokio::test]
async fn a_flushed_redis_or_one_that_restarts_empty_gets_the_same_ring_back() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 2).await;
    let all: Vec<&Service> = all.iter().collect();
    let version = redis.ask(&["HGET", RING, "version"]);
    let first = kids(all[0]).await;
    redis.flush();
    eventually("the ring is back", async || {
        redis.ask(&["HGET", RING, "version"]) == version
    })
    .await;
    redis.stop();
    redis.run_empty().await;
    eventually("the ring is back again", async || {
        redis.ask(&["HGET", RING, "version"]) == version
    })
    .await;
    let fresh = replica_at(&redis.url(), &issuer).start().await;
    for service in [all[0], all[1], &fresh] {
        assert_eq!(kids(service).await, first);
        assert_eq!(count(service, "conflicts_total").await, 0.0);
    }
    eventually("it is told", async || {
        count(all[0], "put_back_total").await + count(all[1], "put_back_total").await >= 2.0
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_starts_while_redis_is_empty_leaves_the_others_time_to_put_theirs_back() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let first = replica_at(&redis.url(), &issuer).start().await;
    for _ in 0..3 {
        redis.flush();
        let fresh = replica_at(&redis.url(), &issuer).start().await;
        assert_eq!(kids(&fresh).await, kids(&first).await);
    }
    assert_eq!(count(&first, "conflicts_total").await, 0.0);
}

#[tokio::test]
async fn while_redis_is_frozen_or_gone_the_replicas_sign_on_and_take_up_again() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 2).await;
    let all: Vec<&Service> = all.iter().collect();
    let first = kids(all[0]).await;
    redis.freeze();
    for service in &all {
        eventually("the absence is told", async || {
            count(service, "shared").await == 0.0
        })
        .await;
        assert_good_at(&all, &mint(service, &issuer, 0).await).await;
        assert_eq!(service.admin("/readyz").await.status, 200);
        assert_eq!(kids(service).await, first);
    }
    redis.thaw();
    for service in &all {
        eventually("Redis is back", async || {
            count(service, "shared").await == 1.0
        })
        .await;
    }
    redis.kill();
    for service in &all {
        eventually("the absence is told", async || {
            count(service, "shared").await == 0.0
        })
        .await;
        assert_good_at(&all, &mint(service, &issuer, 0).await).await;
    }
    redis.run().await;
    eventually("and changes reach all of them again", async || {
        let rotated = all[0].command().run(&["keys", "rotate", "--force"]);
        rotated.code == 0
    })
    .await;
    agreed(&all).await;
    eventually("the new standby is there", async || {
        !kids(all[1]).await.is_subset(&first)
    })
    .await;
}

#[tokio::test]
async fn a_start_without_redis_uses_the_local_copy_and_without_one_it_waits() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let mut known = replica_at(&redis.url(), &issuer).start().await;
    let first = kids(&known).await;
    let copy = std::fs::read_to_string(known.dir().join("keys/ring.json")).unwrap();
    assert!(copy.contains("sealed_with"));
    let token = mint(&known, &issuer, 0).await;
    redis.kill();
    known.restart().await;
    assert_eq!(kids(&known).await, first);
    assert_eq!(known.admin("/readyz").await.status, 200);
    assert_good_at(&[&known], &token).await;

    let fresh = replica_at(&redis.url(), &issuer).start().await;
    let ready = fresh.admin("/readyz").await;
    assert_eq!(ready.status, 503);
    let why =
        "no signing key: Redis cannot be reached, and there is no local copy of its key ring\n";
    assert_eq!(ready.body, why);
    redis.run_empty().await;
    eventually("the fresh one has the ring of the other", async || {
        fresh.admin("/readyz").await.status == 200 && kids(&fresh).await == first
    })
    .await;
    let late = mint(&fresh, &issuer, 0).await;
    for token in [&token, &late] {
        assert_good_at(&[&known, &fresh], token).await;
    }
    assert_eq!(count(&known, "conflicts_total").await, 0.0);
}

#[tokio::test]
async fn two_rings_that_meet_become_one_and_no_token_of_either_fails() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let proxy = Proxy::to(redis.port()).await;
    let cut_off = replica_at(&proxy.redis_url(), &issuer).start().await;
    let ours = mint(&cut_off, &issuer, 0).await;
    let first = kids(&cut_off).await;
    proxy.cut();
    eventually("the cut is noticed", async || {
        count(&cut_off, "shared").await == 0.0
    })
    .await;
    redis.flush();
    let other = replica_at(&redis.url(), &issuer).start().await;
    let theirs = mint(&other, &issuer, 0).await;
    let second = kids(&other).await;
    assert!(first.is_disjoint(&second));
    proxy.mend();
    let both = [&cut_off, &other];
    agreed_on(&both, &first, &second).await;
    let late = mint(&cut_off, &issuer, 0).await;
    for token in [&ours, &theirs, &late, &mint(&other, &issuer, 0).await] {
        assert_good_at(&both, token).await;
    }
    let conflicts =
        count(&cut_off, "conflicts_total").await + count(&other, "conflicts_total").await;
    assert_eq!(conflicts, 1.0, "it is told once, by who found it");
    let keys = list(other.command());
    assert_eq!(in_state(&keys, "active").len(), 1);
    assert_eq!(in_state(&keys, "next").len(), 1);
    // A key of either that is revoked now stays so, whoever comes back with it.
    proxy.cut();
    let gone = first.iter().next().unwrap().clone();
    assert_eq!(other.command().run(&["keys", "revoke", &gone]).code, 0);
    proxy.mend();
    eventually("it is gone from both", async || {
        !kids(&cut_off).await.contains(&gone) && !kids(&other).await.contains(&gone)
    })
    .await;
}

/// Waits until all publish both sets of keys.
async fn agreed_on(all: &[&Service], one: &BTreeSet<String>, other: &BTreeSet<String>) {
    eventually("the keys of both are published by all", async || {
        let mut well = true;
        for service in all {
            let kids = kids(service).await;
            well &= one.is_subset(&kids) && other.is_subset(&kids);
        }
        well
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_was_cut_off_signs_with_no_key_that_it_has_not_published_long_enough() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let proxy = Proxy::to(redis.port()).await;
    let there = replica_at(&redis.url(), &issuer).start().await;
    let cut_off = replica_at(&proxy.redis_url(), &issuer).start().await;
    let both = [&there, &cut_off];
    let before = list(there.command());
    let (old, standby) = (
        in_state(&before, "active")[0].clone(),
        in_state(&before, "next")[0].clone(),
    );
    for service in both {
        service.pass_time(4000);
    }
    eventually("the time has passed for both", async || {
        let keys = list(there.command());
        in_state(&keys, "active") == [old.clone()] && kids(&cut_off).await == kids(&there).await
    })
    .await;
    proxy.cut();
    eventually("the cut is noticed", async || {
        count(&cut_off, "shared").await == 0.0
    })
    .await;
    // A standby that the one that is cut off has never seen, and that signs elsewhere.
    assert_eq!(there.command().run(&["keys", "revoke", &standby]).code, 0);
    let standby = in_state(&list(there.command()), "next")[0].clone();
    eventually("the new standby is published", async || {
        kids(&there).await.contains(&standby)
    })
    .await;
    there.pass_time(8000);
    let rotated = there.command().run(&["keys", "rotate"]);
    assert!(rotated.stdout.contains("signs from now on"), "{rotated:?}");
    let new = in_state(&list(there.command()), "active")[0].clone();
    eventually("the one that is there signs with it", async || {
        kid(&mint(&there, &issuer, 8000).await) == new
    })
    .await;
    proxy.mend();
    cut_off.pass_time_elsewhere(4000, 8000);
    eventually("the other publishes it", async || {
        kids(&cut_off).await.contains(&new)
    })
    .await;
    let token = mint(&cut_off, &issuer, 8000).await;
    assert_eq!(kid(&token), old);
    assert_good_at(&both, &token).await;
    cut_off.pass_time_elsewhere(7700, 8000);
    eventually("and signs with it when it has for an hour", async || {
        kid(&mint(&cut_off, &issuer, 8000).await) == new
    })
    .await;
}

#[tokio::test]
async fn replicas_whose_clocks_are_two_minutes_apart_agree_on_the_times_of_the_ring() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let all = replicas(&redis, &issuer, 2).await;
    let all: Vec<&Service> = all.iter().collect();
    all[0].shift_clocks(-120, 0);
    all[1].shift_clocks(120, 0);
    for service in &all {
        let rotated = service.command().run(&["keys", "rotate", "--force"]);
        assert_eq!(rotated.code, 0, "{rotated:?}");
    }
    agreed(&all).await;
    let keys = list(all[0].command());
    assert_eq!(keys, list(all[1].command()));
    let newest = keys.last().unwrap()["published_at"].as_i64().unwrap();
    assert!((now() - newest).abs() < 60, "{newest}: {keys:#?}");
}

#[tokio::test]
async fn another_secret_is_refused_and_changes_nothing() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let good = replica_at(&redis.url(), &issuer).start().await;
    let document = redis.ask(&["HGET", RING, "document"]);
    let wrong = replica_at(&redis.url(), &issuer)
        .env("EXCHEQUER_KEYS_SECRET", OTHER_SECRET)
        .start()
        .await;
    let ready = wrong.admin("/readyz").await;
    assert_eq!(ready.status, 503);
    let why = "no signing key: the key ring in Redis cannot be used, the log says why\n";
    assert_eq!(ready.body, why);
    let told = wrong.log().join("\n");
    assert!(told.contains("sealed with another secret"), "{told}");
    let ended = wrong.command().run(&["keys", "rotate", "--force"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("another secret"), "{ended:?}");
    assert_eq!(redis.ask(&["HGET", RING, "document"]), document);
    assert_good_at(&[&good], &mint(&good, &issuer, 0).await).await;
}

#[tokio::test]
async fn a_document_that_was_tampered_with_or_rolled_back_is_refused_and_replaced() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let service = replica_at(&redis.url(), &issuer).start().await;
    let get = |field: &str| redis.ask(&["HGET", RING, field]);
    let old = (get("version"), get("document"));
    let revoked = in_state(&list(service.command()), "next")[0].clone();
    assert_eq!(service.command().run(&["keys", "revoke", &revoked]).code, 0);
    eventually("it is taken over", async || {
        !kids(&service).await.contains(&revoked)
    })
    .await;
    let good = (get("version"), get("document"));
    let clear = {
        let folder = Ring::new();
        assert_eq!(folder.keys(&["rotate"]).code, 0);
        std::fs::read_to_string(folder.path("keys/ring.json")).unwrap()
    };
    let of_clear = {
        let envelope: Value = serde_json::from_str(&clear).unwrap();
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
        let payload: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
        let newest = payload["trail"].as_array().and_then(|trail| trail.last());
        let name = newest.map_or("", |mark| mark["name"].as_str().unwrap());
        format!("{}:{name}", payload["generation"])
    };
    let cut: String = good.1.chars().take(200).collect();
    let swapped = good.1.replacen("\"payload\":\"", "\"payload\":\"AAAA", 1);
    for (what, version, document) in [
        ("an older one", &old.0, &old.1),
        ("an older one under the newer version", &good.0, &old.1),
        (
            "a newer version of the same",
            &"999:name".to_owned(),
            &good.1,
        ),
        ("half of it", &good.0, &cut),
        ("other bytes", &good.0, &swapped),
        ("one in clear", &"999:name".to_owned(), &clear),
        ("one in clear under its own version", &of_clear, &clear),
        ("nothing", &"".to_owned(), &"".to_owned()),
    ] {
        redis.ask(&["HSET", RING, "version", version, "document", document]);
        let mut waited = 0;
        while (get("version"), get("document").len()) != (good.0.clone(), good.1.len())
            || get("document") == *document
        {
            assert!(!kids(&service).await.contains(&revoked), "{what}");
            waited += 1;
            assert!(waited < 600, "{what} is replaced");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(count(&service, "put_back_total").await >= 7.0);
    assert_eq!(count(&service, "conflicts_total").await, 0.0);
}

#[tokio::test]
async fn a_redis_without_a_secret_for_the_ring_is_a_configuration_error() {
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_STORE", "redis://127.0.0.1:1");
    let ended = ring.command().run(&["check"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let told = "EXCHEQUER_KEYS_SECRET: is required where EXCHEQUER_STORE is a Redis";
    assert!(
        ended.stderr.contains(told) || ended.stdout.contains(told),
        "{ended:?}"
    );
}
