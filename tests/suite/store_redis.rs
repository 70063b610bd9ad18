//! What the store in a Redis promises beyond what every store does: what outlives what, what is
//! cleared away, and what is answered while the server is slow, gone, or has forgotten.

use crate::store::{
    NOW, done, entry, is_revoked, key, known, message, messages, once, record, records, replace,
    revocation, status, take,
};
use crate::support::redis::RedisCluster;
use crate::support::{Redis, eventually, now};
use exchequer::clock::Clock;
use exchequer::config::{Node, RedisSettings, StoreDown, Topology};
use exchequer::redis_client::RedisClient;
use exchequer::store::{Change, Committed, Once, Question, Standing, Store};
use std::sync::Arc;
use std::time::Duration;

/// A process's store in this Redis.
pub async fn open(redis: &Redis) -> Store {
    open_with(redis, |_| {}).await
}

/// The same with other settings; a deadline that a busy machine keeps, where they name none.
pub async fn open_with(redis: &Redis, change: impl FnOnce(&mut RedisSettings)) -> Store {
    let mut settings = RedisSettings {
        topology: Topology::Unix(redis.socket()),
        tls: None,
        login: None,
        sentinel_login: None,
        database: 0,
        prefix: "exchequer".to_owned(),
        deadline: Duration::from_secs(10),
        replicas: 0,
    };
    change(&mut settings);
    let clock = Clock::system();
    let client = RedisClient::new(settings, clock.clone(), Arc::default());
    client.connect().await.unwrap();
    tokio::spawn(Arc::clone(&client).keep_connected());
    Store::redis(client, StoreDown::default(), clock, Arc::default())
}

/// A process's store in this Cluster, under this prefix.
pub async fn open_in(cluster: &RedisCluster, prefix: &str) -> Store {
    let nodes = cluster.nodes.iter().map(|node| Node {
        host: "127.0.0.1".to_owned(),
        port: node.port(),
    });
    open_with(&cluster.nodes[0], |each| {
        each.topology = Topology::Cluster(nodes.collect());
        each.prefix = prefix.to_owned();
    })
    .await
}

/// A name of the layout.
fn name(rest: &str) -> String {
    format!("exchequer:1:{{exchequer}}:{rest}")
}

fn names(redis: &Redis) -> Vec<String> {
    let mut names: Vec<String> = redis
        .ask(&["KEYS", "*"])
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// What is done once, of something that could have been used since then.
fn single_use(name: &str, since: i64) -> Change {
    let once = once(name, now() + 600).once.unwrap();
    Change {
        once: Some(Once {
            since: Some(since),
            ..once
        }),
        ..Change::default()
    }
}

/// Waits until what is done once is taken, as in a store that is not new.
async fn settled(store: &Store) {
    eventually("the store is trusted", async || {
        let mark = single_use("whether it is trusted", now() + 60);
        store.commit(mark, now()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn every_key_ends_by_itself_but_those_that_are_swept() {
    let redis = Redis::start().await;
    let store = open(&redis).await;
    let changes = [
        once("o", NOW + 60),
        replace("e", 0, Some((NOW + 60, "body"))),
        revocation("r", 5, NOW + 60),
        records("c", record(1, "{}")),
        status(7, &[("r", 5)], NOW + 60),
        messages([message("m", NOW)]),
    ];
    for change in changes {
        done(&store, change, NOW).await;
    }
    take(&store, "b", (10, 60), 1, NOW).await;
    let swept = [
        "log",
        "log-ends",
        "outbox",
        "messages",
        "statuses",
        "statuses-ends",
    ];
    let for_good = ["changes", "epoch"];
    let lasting: Vec<String> = swept
        .iter()
        .chain(&for_good)
        .map(|rest| name(rest))
        .collect();
    let all = names(&redis);
    assert_eq!(all.len(), 5 + lasting.len(), "{all:?}");
    for each in all {
        let left: i64 = redis.ask(&["TTL", &each]).parse().unwrap();
        let expected = match each.as_str() {
            each if lasting.iter().any(|lasting| lasting == each) => -1..=-1,
            each if each.ends_with(":b") => 1..=16,
            each if each.contains("}:c:") => 30 * 86_400..=30 * 86_400 + 3600,
            // An hour longer than it says: the clocks of replicas differ.
            _ => 3500..=3660,
        };
        assert!(expected.contains(&left), "{each}: {left}");
    }
    // A longer mark lives longer, and a shorter one does not cut it off.
    done(&store, revocation("r", 5, NOW + 6000), NOW).await;
    done(&store, revocation("r", 9, NOW + 10), NOW).await;
    let revoked = names(&redis).into_iter().find(|each| each.contains("}:r:"));
    let left: i64 = redis.ask(&["TTL", &revoked.unwrap()]).parse().unwrap();
    assert!((9500..=9600).contains(&left), "{left}");
    // What was merged is once in the log.
    assert_eq!(redis.ask(&["ZCARD", &name("log")]), "1");
    store
        .settle("m", exchequer::store::Delivery::Settled)
        .await
        .unwrap();
    store.sweep(NOW + 60 + 3599).await.unwrap();
    assert_eq!(redis.ask(&["HLEN", &name("statuses")]), "1");
    store.sweep(NOW + 6000 + 3600).await.unwrap();
    let left = names(&redis);
    let lasting: Vec<&String> = left
        .iter()
        .filter(|each| redis.ask(&["TTL", each]) == "-1")
        .collect();
    assert_eq!(lasting, for_good.map(name).iter().collect::<Vec<_>>());
    assert_eq!(left.len(), 7, "{left:?}");
}

#[tokio::test]
async fn many_marks_are_swept_in_steps() {
    let redis = Redis::start().await;
    let store = open(&redis).await;
    let before = redis.ask(&["DBSIZE"]);
    assert_eq!(before, "0");
    for number in 0..1200_u32 {
        let name = number.to_string();
        let change = Change {
            revocations: revocation(&name, 1, NOW + 1).revocations,
            ..status(number, &[(&name, 1)], NOW + 1)
        };
        done(&store, change, NOW).await;
    }
    let revoked = store.revoked_statuses(NOW).await.unwrap();
    assert_eq!(revoked, (0..1200).collect::<Vec<u32>>());
    store.sweep(NOW + 3601).await.unwrap();
    for swept in ["log", "log-ends", "statuses", "statuses-ends"] {
        assert_eq!(redis.ask(&["EXISTS", &name(swept)]), "0", "{swept}");
    }
    assert_eq!(redis.ask(&["ZCARD", &name("log")]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_race_for_a_thousand_uses_each_use_has_one_winner() {
    let redis = Redis::start().await;
    let stores = [Arc::new(open(&redis).await), Arc::new(open(&redis).await)];
    settled(&stores[0]).await;
    let racers = stores.map(|store| {
        tokio::spawn(async move {
            let mut won = Vec::new();
            for number in 0..1000 {
                let change = single_use(&number.to_string(), now() + 60);
                won.push(store.commit(change, now()).await.unwrap() == Committed::Done);
            }
            won
        })
    });
    let [one, other] = racers;
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert!(one.iter().zip(&other).all(|(one, other)| one ^ other));
}

#[tokio::test]
async fn a_redis_that_was_emptied_gets_its_revocations_back_and_honours_nothing_twice() {
    let redis = Redis::start().await;
    let (one, other) = (open(&redis).await, open(&redis).await);
    settled(&one).await;
    let (then, until) = (now() - 100, now() + 6000);
    done(&one, revocation("s", i64::MAX, until), now()).await;
    done(&one, single_use("used", then), now()).await;
    done(&one, replace("code", 0, Some((until, "unused"))), now()).await;
    done(&other, once("event", until), now()).await;
    redis.flush();
    // Even before anybody has noticed.
    assert!(is_revoked(&one, "s", 0, now()).await);
    let again = one.commit(single_use("used", then), now()).await;
    assert!(again.unwrap_err().to_string().contains("lost"));
    let listed = one.revoked_statuses(now()).await;
    assert!(
        listed.is_err(),
        "places of tokens that live were lost: {listed:?}"
    );
    // Whoever comes new reads the revocation from Redis.
    let newcomer = open(&redis).await;
    assert!(is_revoked(&newcomer, "s", 0, now()).await);
    settled(&newcomer).await;
    for store in [&one, &other, &newcomer] {
        let again = store.commit(single_use("used", then), now()).await;
        assert!(again.is_err(), "used before, and forgotten: {again:?}");
        assert_eq!(entry(store, "code", now()).await, None);
    }
    // What was made since is for one use again; what may be done twice is.
    let change = single_use("made since", now() + 60);
    done(&other, change.clone(), now()).await;
    assert_eq!(
        one.commit(change, now()).await.unwrap(),
        Committed::Repeated
    );
    done(&other, once("event", until), now()).await;
    assert_eq!(redis.ask(&["ZCARD", &name("log")]), "1");
}

#[tokio::test]
async fn a_new_redis_is_no_loss() {
    let redis = Redis::start().await;
    let store = open(&redis).await;
    tokio::time::sleep(store.begin().await.unwrap()).await;
    // Older than the store, and never used.
    done(&store, single_use("old", now() - 86_400), now()).await;
    let epoch = redis.ask(&["GET", &name("epoch")]);
    assert_eq!(epoch.split(':').nth(1), Some("0"), "{epoch}");
}

/// A snapshot is what the keys were; the server that starts from it says so by nothing.
#[tokio::test]
async fn a_redis_that_went_back_to_a_snapshot_honours_nothing_twice() {
    let redis = Redis::start().await;
    let store = open(&redis).await;
    settled(&store).await;
    let (then, until) = (now() - 100, now() + 6000);
    done(&store, replace("code", 0, Some((until, "unused"))), now()).await;
    done(
        &store,
        replace("for good", 0, Some((i64::MAX, "kept"))),
        now(),
    )
    .await;
    for each in names(&redis) {
        assert_eq!(redis.ask(&["COPY", &each, &format!("old {each}")]), "1");
    }
    done(&store, single_use("used", then), now()).await;
    done(&store, replace("code", 1, Some((until, "used"))), now()).await;
    done(&store, revocation("s", i64::MAX, until), now()).await;
    for each in names(&redis) {
        match each.strip_prefix("old ") {
            Some(now) => assert_eq!(redis.ask(&["RENAME", &each, now]), "OK"),
            None => drop(redis.ask(&["DEL", &each])),
        }
    }
    redis.stop();
    redis.run().await;
    eventually("the store is asked again", async || {
        let again = store
            .commit(replace("code", 1, Some((until, "used again"))), now())
            .await;
        match again {
            Ok(Committed::Repeated) => true,
            Ok(Committed::Done) => panic!("a code was honoured twice"),
            Err(_) => false,
        }
    })
    .await;
    assert_eq!(entry(&store, "code", now()).await, None);
    assert_eq!(
        entry(&store, "for good", now()).await,
        Some((1, "kept".to_owned()))
    );
    settled(&store).await;
    assert!(store.commit(single_use("used", then), now()).await.is_err());
    assert!(is_revoked(&open(&redis).await, "s", 0, now()).await);
}

#[tokio::test]
async fn a_redis_that_restarts_with_all_it_knew_goes_on() {
    let redis = Redis::start().await;
    let store = open(&redis).await;
    settled(&store).await;
    let until = now() + 6000;
    let before = now() - 100;
    done(&store, replace("family", 0, Some((until, "first"))), now()).await;
    done(&store, single_use("used", before), now()).await;
    redis.kill();
    redis.run().await;
    eventually("the store goes on", async || {
        let next = replace("family", 1, Some((until, "second")));
        store.commit(next, now()).await.ok() == Some(Committed::Done)
    })
    .await;
    let again = store.commit(single_use("used", before), now()).await;
    assert_eq!(again.unwrap(), Committed::Repeated);
    done(&store, single_use("unused", before), now()).await;
}

#[tokio::test]
async fn a_frozen_redis_costs_each_who_waits_one_deadline_and_nobody_else_anything() {
    let redis = Redis::start().await;
    let store =
        Arc::new(open_with(&redis, |each| each.deadline = Duration::from_millis(500)).await);
    settled(&store).await;
    done(&store, revocation("s", i64::MAX, now() + 600), now()).await;
    redis.freeze();
    let waiting: Vec<_> = (0..50)
        .map(|number: i32| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .commit(once(&number.to_string(), now() + 60), now())
                    .await
            })
        })
        .collect();
    for each in waiting {
        assert!(each.await.unwrap().is_err());
    }
    // The breaker is open: nothing is sent, and nobody waits.
    for number in 0..100 {
        let error = store
            .commit(once(&number.to_string(), now() + 60), now())
            .await;
        assert_eq!(error.unwrap_err().to_string(), "Redis is not there");
    }
    assert!(is_revoked(&store, "s", 0, now()).await, "as last known");
    redis.thaw();
    eventually("it comes back by itself", async || {
        store.commit(once("after", now() + 60), now()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn without_redis_what_is_known_serves_and_the_rest_is_refused() {
    let redis = Redis::start().await;
    let (store, other) = (open(&redis).await, open(&redis).await);
    done(&other, revocation("s", i64::MAX, now() + 600), now()).await;
    done(&other, records("user", record(1, "{}")), now()).await;
    store.begin().await.unwrap();
    let ignorant = open(&redis).await;
    redis.stop();
    // Read, though another process made it.
    assert!(is_revoked(&store, "s", 0, now()).await);
    assert!(!is_revoked(&store, "t", 0, now()).await);
    assert_eq!(known(&store, "user").await, None, "nothing is known of it");
    for left in [2, 1, 0] {
        assert_eq!(take(&store, "b", (3, 60), 1, now()).await.left, left);
    }
    assert!(take(&store, "b", (3, 60), 1, now()).await.wait.is_some());
    let entries = Question {
        entries: &[key("e")],
        ..Question::default()
    };
    let done_before = Question {
        done: Some(key("o")),
        ..Question::default()
    };
    for question in [entries, done_before] {
        assert!(store.ask(question, now()).await.is_err());
    }
    assert!(store.commit(once("o", now() + 60), now()).await.is_err());
    assert!(store.due(now(), 1, 1).await.is_err());
    assert!(store.revoked_statuses(now()).await.is_err());
    // Whoever has never read what was revoked cannot say that something was not.
    let standings = [Standing {
        key: key("t"),
        since: 0,
    }];
    let question = Question {
        standings: &standings,
        ..Question::default()
    };
    assert!(ignorant.ask(question, now()).await.is_err());
    redis.run().await;
    eventually("it is back", async || {
        ignorant.ask(question, now()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn what_is_wanted_on_replicas_is_an_error_where_there_are_none() {
    let redis = Redis::start().await;
    let store = open_with(&redis, |each| {
        each.replicas = 1;
        each.deadline = Duration::from_secs(2);
    })
    .await;
    let error = store
        .commit(once("o", now() + 60), now())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "0 replicas of Redis have it, of 1 that must"
    );
    // It may have been made all the same, and was.
    let again = store.commit(once("o", now() + 60), now()).await.unwrap();
    assert_eq!(again, Committed::Repeated);
}
