//! What every store promises (`src/store/mod.rs`): one suite over all makers.

use crate::store_file::open as open_file;
use crate::store_redis::{open as open_redis, open_in, open_with};
use crate::support::Redis;
use crate::support::redis::RedisCluster;
use exchequer::store::{
    Answer, Change, Committed, Delivery, Entry, Key, Kind, Level, Memory, Message, Once, Question,
    RECORDS_KEPT, Record, Replace, Revocation, Standing, Status, Store, Take,
};
use futures_util::future::join_all;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ways to make a store: each promise below is asked of each.
#[derive(Debug, Clone, Copy)]
enum Maker {
    Memory,
    File,
    Redis,
    Cluster,
}

/// Asks a promise of every maker; says which one broke it.
async fn each(promise: impl AsyncFn(Arc<Store>)) {
    for maker in [Maker::Memory, Maker::File, Maker::Redis, Maker::Cluster] {
        eprintln!("{maker:?}:");
        let place = tempfile::tempdir().unwrap();
        let (mut server, mut cluster) = (None, None);
        let store = match maker {
            Maker::Memory => Store::Memory(Memory::default()),
            Maker::File => open_file(&place.path().join("store.redb")),
            Maker::Redis => open_redis(server.insert(Redis::start().await)).await,
            Maker::Cluster => {
                static COUNT: AtomicU32 = AtomicU32::new(0);
                let prefix = format!("promise-{}", COUNT.fetch_add(1, Ordering::Relaxed));
                open_in(cluster.insert(RedisCluster::shared().await), &prefix).await
            }
        };
        promise(Arc::new(store)).await;
    }
}

/// Whether the store forgets what is over only when it is swept. A Redis does so by itself, a
/// while later: see `store_redis.rs`.
fn forgets_by_sweeping(store: &Store) -> bool {
    !matches!(store, Store::Redis(_))
}

pub const NOW: i64 = 1_800_000_000;

pub fn key(name: impl ToString) -> Key {
    Key::of(
        Kind::Session,
        &["https://issuer.example", &name.to_string()],
    )
}

pub fn once(name: &str, until: i64) -> Change {
    Change {
        once: Some(Once {
            key: key(name),
            until,
            since: None,
        }),
        ..Change::default()
    }
}

pub fn revocation(name: &str, at: i64, until: i64) -> Change {
    Change {
        revocations: vec![Revocation {
            key: key(name),
            at,
            until,
        }],
        ..Change::default()
    }
}

pub fn record(version: i64, body: &str) -> Record {
    Record {
        version,
        fetched_at: NOW,
        body: body.as_bytes().to_vec(),
    }
}

pub fn records(name: &str, record: Record) -> Change {
    Change {
        records: vec![(key(name), record)],
        ..Change::default()
    }
}

/// Puts an entry in the place of this version.
pub fn replace(name: &str, version: u64, by: Option<(i64, &str)>) -> Change {
    let by = by.map(|(until, body)| (until, body.as_bytes().to_vec()));
    Change {
        entries: vec![Replace {
            key: key(name),
            version,
            by,
        }],
        ..Change::default()
    }
}

pub async fn entry(store: &Store, name: &str, now: i64) -> Option<(u64, String)> {
    let question = Question {
        entries: &[key(name)],
        ..Question::default()
    };
    let answer = store.ask(question, now).await.unwrap();
    let [entry] = &answer.entries[..] else {
        panic!("{answer:?}")
    };
    let entry = entry.as_ref()?;
    Some((
        entry.version,
        String::from_utf8(entry.body.clone()).unwrap(),
    ))
}

pub fn status(index: u32, standings: &[(&str, i64)], until: i64) -> Change {
    let standings = standings.iter().map(|(name, since)| Standing {
        key: key(name),
        since: *since,
    });
    Change {
        statuses: vec![Status {
            index,
            standings: standings.collect(),
            until,
        }],
        ..Change::default()
    }
}

pub fn message(id: &str, due: i64) -> Message {
    Message {
        id: id.to_owned(),
        app: "web".to_owned(),
        due,
        attempts: 0,
        body: format!("{{\"id\":{id:?}}}").into_bytes(),
    }
}

pub fn messages(messages: impl IntoIterator<Item = Message>) -> Change {
    Change {
        messages: messages.into_iter().collect(),
        ..Change::default()
    }
}

pub async fn done(store: &Store, change: Change, now: i64) {
    assert_eq!(store.commit(change, now).await.unwrap(), Committed::Done);
}

pub async fn ask(store: &Store, standings: &[(&str, i64)], records: &[&str], now: i64) -> Answer {
    let standings: Vec<Standing> = standings
        .iter()
        .map(|(name, since)| Standing {
            key: key(name),
            since: *since,
        })
        .collect();
    let records: Vec<Key> = records.iter().map(key).collect();
    let question = Question {
        standings: &standings,
        records: &records,
        ..Question::default()
    };
    store.ask(question, now).await.unwrap()
}

pub async fn is_revoked(store: &Store, name: &str, since: i64, now: i64) -> bool {
    ask(store, &[(name, since)], &[], now).await.revoked == Some(0)
}

pub async fn known(store: &Store, name: &str) -> Option<Record> {
    ask(store, &[], &[name], NOW).await.records.remove(0)
}

async fn ids_due(store: &Store, now: i64, lease: i64, most: usize) -> Vec<String> {
    let due = store.due(now, lease, most).await.unwrap();
    due.into_iter().map(|message| message.id).collect()
}

#[tokio::test]
async fn a_store_that_knows_nothing_says_so() {
    each(async |store| {
        let answer = ask(&store, &[("a", i64::MIN)], &["a", "b"], NOW).await;
        assert_eq!(answer.revoked, None);
        assert_eq!(answer.records, [None, None]);
        assert!(answer.levels.is_empty());
        assert_eq!(store.due(i64::MAX, 60, 100).await.unwrap(), []);
        store.settle("nobody", Delivery::Settled).await.unwrap();
        store.settle("nobody", Delivery::Again(1)).await.unwrap();
        assert_eq!(store.due(i64::MAX, 60, 100).await.unwrap(), []);
        store.sweep(NOW).await.unwrap();
        done(&store, Change::default(), NOW).await;
    })
    .await;
}

#[tokio::test]
async fn a_revocation_hits_what_was_issued_then_or_earlier_until_it_is_over() {
    each(async |store| {
        done(&store, revocation("s", 5000, NOW + 60), NOW).await;
        for (since, now, hit) in [
            (5000, NOW, true),
            (4999, NOW, true),
            (i64::MIN, NOW, true),
            (5001, NOW, false),
            (5000, NOW + 59, true),
            (5000, NOW + 60, false),
        ] {
            assert_eq!(
                is_revoked(&store, "s", since, now).await,
                hit,
                "{since} {now}"
            );
        }
        assert!(!is_revoked(&store, "other", i64::MIN, NOW).await);
        done(&store, revocation("all", i64::MAX, i64::MAX), NOW).await;
        assert!(is_revoked(&store, "all", i64::MAX, i64::MAX - 1).await);
    })
    .await;
}

#[tokio::test]
async fn of_two_revocations_the_later_counts_in_whatever_order_they_come() {
    each(async |store| {
        for (name, first, second) in [
            ("in order", (5000, NOW + 60), (7000, NOW + 90)),
            ("reordered", (7000, NOW + 90), (5000, NOW + 60)),
            ("crossed", (7000, NOW + 60), (5000, NOW + 90)),
        ] {
            done(&store, revocation(name, first.0, first.1), NOW).await;
            done(&store, revocation(name, second.0, second.1), NOW).await;
            assert!(is_revoked(&store, name, 7000, NOW).await, "{name}");
            assert!(!is_revoked(&store, name, 7001, NOW).await, "{name}");
            assert!(is_revoked(&store, name, 5000, NOW + 89).await, "{name}");
            assert!(!is_revoked(&store, name, 5000, NOW + 90).await, "{name}");
        }
        // One that is over is as good as none: its reach is not lent to the next.
        for swept in [false, true] {
            let name = format!("over, {swept}");
            done(&store, revocation(&name, i64::MAX, NOW + 10), NOW).await;
            if swept {
                store.sweep(NOW + 10).await.unwrap();
            }
            done(&store, revocation(&name, 5000, NOW + 60), NOW + 10).await;
            assert!(is_revoked(&store, &name, 5000, NOW + 10).await, "{name}");
            assert!(!is_revoked(&store, &name, 5001, NOW + 10).await, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_standing_that_is_revoked_is_told() {
    each(async |store| {
        done(&store, revocation("b", i64::MAX, NOW + 60), NOW).await;
        done(&store, revocation("c", i64::MAX, NOW + 60), NOW).await;
        let standings = [("a", 0), ("b", 0), ("c", 0)];
        assert_eq!(ask(&store, &standings, &[], NOW).await.revoked, Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_change_of_one_once_is_made_once_and_again_when_that_is_over() {
    each(async |store| {
        let change = |name: &str, until| Change {
            once: once("event", until).once,
            ..revocation(name, i64::MAX, NOW + 1000)
        };
        done(&store, change("first", NOW + 60), NOW).await;
        for now in [NOW, NOW + 59] {
            let again = store
                .commit(change("second", NOW + 500), now)
                .await
                .unwrap();
            assert_eq!(again, Committed::Repeated);
        }
        assert!(
            !is_revoked(&store, "second", 0, NOW).await,
            "nothing of it was made"
        );
        done(&store, change("third", NOW + 120), NOW + 60).await;
        let again = store.commit(once("event", NOW + 500), NOW + 119).await;
        assert_eq!(again.unwrap(), Committed::Repeated);
        done(&store, once("another event", NOW + 60), NOW).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_that_come_at_once_one_is_made() {
    each(async |store| {
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let store = Arc::clone(&store);
                let change = Change {
                    once: once("event", NOW + 60).once,
                    ..records(&format!("by {number}"), record(1, "{}"))
                };
                tokio::spawn(async move { store.commit(change, NOW).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            if task.await.unwrap() == Committed::Done {
                winners.push(number);
            }
        }
        let [winner] = winners[..] else {
            panic!("{winners:?}")
        };
        for number in 0..100 {
            let made = known(&store, &format!("by {number}")).await.is_some();
            assert_eq!(made, number == winner, "{number}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_entry_is_replaced_by_whoever_knows_its_version_and_by_nobody_else() {
    each(async |store| {
        let repeated = async |change: Change, now| {
            let made = store.commit(change, now).await.unwrap();
            assert_eq!(made, Committed::Repeated);
        };
        assert_eq!(entry(&store, "e", NOW).await, None);
        repeated(replace("e", 1, Some((NOW + 60, "too early"))), NOW).await;
        done(&store, replace("e", 0, Some((NOW + 60, "first"))), NOW).await;
        repeated(replace("e", 0, Some((NOW + 60, "another"))), NOW).await;
        done(&store, replace("e", 1, Some((NOW + 90, "second"))), NOW).await;
        assert_eq!(
            entry(&store, "e", NOW + 89).await,
            Some((2, "second".to_owned()))
        );
        // What goes with it is changed with it or not at all.
        let late = Change {
            entries: replace("e", 1, None).entries,
            once: once("late", NOW + 60).once,
            ..revocation("late", i64::MAX, NOW + 60)
        };
        repeated(late.clone(), NOW).await;
        assert!(!is_revoked(&store, "late", 0, NOW).await);
        done(
            &store,
            Change {
                entries: Vec::new(),
                ..late
            },
            NOW,
        )
        .await;
        // Over is as good as ended, swept or not.
        assert_eq!(entry(&store, "e", NOW + 90).await, None);
        store.sweep(NOW + 60).await.unwrap();
        assert!(entry(&store, "e", NOW + 89).await.is_some());
        repeated(replace("e", 2, None), NOW + 90).await;
        done(&store, replace("e", 0, Some((NOW + 200, "anew"))), NOW + 90).await;
        store.sweep(NOW + 100).await.unwrap();
        assert_eq!(
            entry(&store, "e", NOW + 100).await,
            Some((1, "anew".to_owned()))
        );
        done(&store, replace("e", 1, None), NOW + 100).await;
        assert_eq!(entry(&store, "e", NOW + 100).await, None);
        done(&store, replace("e", 0, None), NOW + 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_that_replace_one_version_at_once_one_does() {
    each(async |store| {
        done(&store, replace("e", 0, Some((NOW + 60, "first"))), NOW).await;
        let tasks: Vec<_> = (0..100)
            .map(|number: i32| {
                let store = Arc::clone(&store);
                let change = replace("e", 1, Some((NOW + 60, &number.to_string())));
                tokio::spawn(async move { store.commit(change, NOW).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            if task.await.unwrap() == Committed::Done {
                winners.push(number.to_string());
            }
        }
        let [winner] = &winners[..] else {
            panic!("{winners:?}")
        };
        assert_eq!(entry(&store, "e", NOW).await, Some((2, winner.clone())));
    })
    .await;
}

#[tokio::test]
async fn a_place_in_the_status_list_is_one_tokens_until_it_is_over() {
    each(async |store| {
        let taken = async |change: Change, now| store.commit(change, now).await.unwrap();
        let change = status(7, &[("a", 5)], NOW + 10);
        assert_eq!(taken(change.clone(), NOW).await, Committed::Done);
        // Whoever comes second changes nothing else either.
        let second = Change {
            revocations: revocation("b", 5, NOW + 100).revocations,
            statuses: [status(8, &[("b", 5)], NOW + 10), change.clone()]
                .into_iter()
                .flat_map(|change| change.statuses)
                .collect(),
            ..Change::default()
        };
        assert_eq!(taken(second, NOW + 9).await, Committed::Repeated);
        assert!(!is_revoked(&store, "b", 5, NOW + 9).await);
        assert_eq!(
            taken(status(8, &[], NOW + 10), NOW + 9).await,
            Committed::Done
        );
        let third = status(7, &[("b", 5)], NOW + 30);
        assert_eq!(taken(third, NOW + 10).await, Committed::Done);
        // The sweep of the first does not take the third's place away.
        store.sweep(NOW + 20).await.unwrap();
        assert_eq!(taken(change, NOW + 20).await, Committed::Repeated);
    })
    .await;
}

#[tokio::test]
async fn of_a_hundred_that_take_one_place_at_once_one_does() {
    each(async |store| {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.commit(status(1, &[], NOW + 9), NOW).await })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += i32::from(task.await.unwrap().unwrap() == Committed::Done);
        }
        assert_eq!(done, 1);
    })
    .await;
}

#[tokio::test]
async fn the_places_whose_tokens_were_revoked_are_told_as_long_as_they_are_taken() {
    each(async |store| {
        let revoked = async |now| store.revoked_statuses(now).await.unwrap();
        assert_eq!(revoked(NOW).await, Vec::<u32>::new());
        // A revocation from before, one that is too old, and none.
        done(&store, revocation("user", 50, NOW + 100), NOW).await;
        done(
            &store,
            status(1_048_575, &[("session", i64::MIN), ("user", 50)], NOW + 20),
            NOW,
        )
        .await;
        done(&store, status(2, &[("user", 51)], NOW + 20), NOW).await;
        done(&store, status(3, &[("session", i64::MIN)], NOW + 30), NOW).await;
        done(&store, status(4, &[], NOW + 30), NOW).await;
        assert_eq!(revoked(NOW).await, [1_048_575]);
        // And one from after.
        done(&store, revocation("session", i64::MAX, NOW + 25), NOW).await;
        assert_eq!(revoked(NOW).await, [3, 1_048_575]);
        assert_eq!(revoked(NOW + 19).await, [3, 1_048_575]);
        store.sweep(NOW + 20).await.unwrap();
        assert_eq!(revoked(NOW + 20).await, [3]);
        assert_eq!(
            revoked(NOW + 25).await,
            Vec::<u32>::new(),
            "forgotten: no token of it lives longer"
        );
    })
    .await;
}

#[tokio::test]
async fn an_older_record_never_replaces_a_newer_one_and_the_rest_of_its_change_is_made() {
    each(async |store| {
        done(&store, records("user", record(10, "ten")), NOW).await;
        let late = Change {
            records: vec![
                (key("user"), record(9, "nine")),
                (key("org"), record(1, "one")),
            ],
            ..revocation("s", i64::MAX, NOW + 60)
        };
        done(&store, late, NOW).await;
        assert_eq!(known(&store, "user").await, Some(record(10, "ten")));
        assert_eq!(known(&store, "org").await, Some(record(1, "one")));
        assert!(is_revoked(&store, "s", 0, NOW).await);
        // The same version anew: it was fetched again.
        done(&store, records("user", record(10, "ten again")), NOW).await;
        assert_eq!(known(&store, "user").await, Some(record(10, "ten again")));
        done(&store, records("user", record(11, "")), NOW).await;
        assert_eq!(
            known(&store, "user").await,
            Some(record(11, "")),
            "deleted, and known to be"
        );
        let answer = ask(&store, &[], &["org", "nobody", "user"], NOW)
            .await
            .records;
        let told: Vec<_> = answer
            .iter()
            .map(|record| record.as_ref().map(|known| known.version))
            .collect();
        assert_eq!(told, [Some(1), None, Some(11)]);
    })
    .await;
}

#[tokio::test]
async fn a_message_is_taken_by_one_until_its_lease_is_over() {
    each(async |store| {
        done(&store, messages([message("m", NOW + 5)]), NOW).await;
        assert!(ids_due(&store, NOW + 4, 30, 10).await.is_empty());
        let taken = store.due(NOW + 5, 30, 10).await.unwrap();
        let leased = Message {
            due: NOW + 35,
            attempts: 1,
            ..message("m", 0)
        };
        assert_eq!(taken, [leased]);
        assert!(ids_due(&store, NOW + 34, 30, 10).await.is_empty());
        // Whoever took it died: it is delivered again.
        let again = store.due(NOW + 35, 30, 10).await.unwrap();
        assert_eq!(again[0].attempts, 2);
        store.settle("m", Delivery::Again(NOW + 500)).await.unwrap();
        assert!(ids_due(&store, NOW + 499, 30, 10).await.is_empty());
        assert_eq!(store.due(NOW + 500, 30, 10).await.unwrap()[0].attempts, 3);
        store.settle("m", Delivery::Settled).await.unwrap();
        assert!(ids_due(&store, i64::MAX, 30, 10).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn messages_that_wait_longest_come_first_and_no_more_than_asked_for() {
    each(async |store| {
        let all = [("a", 30), ("b", 10), ("c", 20), ("d", 10), ("e", 99)];
        let all = all.map(|(id, after)| message(id, NOW + after));
        done(&store, messages(all), NOW).await;
        assert_eq!(ids_due(&store, NOW + 50, 60, 3).await, ["b", "d", "c"]);
        assert_eq!(ids_due(&store, NOW + 50, 60, 3).await, ["a"]);
        assert!(ids_due(&store, NOW + 50, 60, 0).await.is_empty());
        // One id is one message: the newer replaces the older, wherever it stood.
        done(&store, messages([message("e", NOW + 1)]), NOW).await;
        assert_eq!(ids_due(&store, NOW + 50, 60, 10).await, ["e"]);
        assert_eq!(ids_due(&store, NOW + 109, 60, 10).await.len(), 0);
        assert_eq!(ids_due(&store, NOW + 110, 60, 10).await.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_message_that_another_has() {
    each(async |store| {
        let all = (0..60).map(|number| message(&format!("{number:02}"), NOW));
        done(&store, messages(all), NOW).await;
        let takers: Vec<_> = (0..10)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { ids_due(&store, NOW, 60, 7).await })
            })
            .collect();
        let mut taken = Vec::new();
        for taker in takers {
            taken.extend(taker.await.unwrap());
        }
        let distinct: BTreeSet<&String> = taken.iter().collect();
        assert_eq!((taken.len(), distinct.len()), (60, 60));
    })
    .await;
}

#[tokio::test]
async fn sweeping_forgets_what_is_over_and_nothing_else() {
    each(async |store| {
        // More than a store would sweep in one go.
        let marks = (0..2500).map(|number| Revocation {
            key: key(number),
            at: i64::MAX,
            until: NOW + i64::from(number % 2),
        });
        let change = Change {
            revocations: marks.collect(),
            ..Change::default()
        };
        done(&store, change, NOW - 100).await;
        done(&store, once("over", NOW), NOW - 100).await;
        done(&store, once("stays", NOW + 1), NOW - 100).await;
        done(&store, records("r", record(1, "kept")), NOW - 100).await;
        done(&store, messages([message("m", NOW - 50)]), NOW - 100).await;
        store.sweep(NOW).await.unwrap();
        if !forgets_by_sweeping(&store) {
            assert_eq!(ids_due(&store, NOW, 60, 10).await, ["m"]);
            return;
        }
        for number in 0..2500 {
            // Asked of the past, where what was forgotten would still be heard of.
            let hit = is_revoked(&store, &number.to_string(), 0, NOW - 100).await;
            assert_eq!(hit, number % 2 == 1, "{number}");
        }
        done(&store, once("over", NOW), NOW - 100).await;
        let stays = store.commit(once("stays", NOW + 9), NOW - 100).await;
        assert_eq!(stays.unwrap(), Committed::Repeated);
        assert!(known(&store, "r").await.is_some());
        assert_eq!(ids_due(&store, NOW, 60, 10).await, ["m"]);
    })
    .await;
}

#[tokio::test]
async fn a_record_of_long_ago_is_forgotten_and_one_that_is_kept_for_good_is_not() {
    each(async |store| {
        let at = |fetched_at| Record {
            version: 1,
            fetched_at,
            body: b"{}".to_vec(),
        };
        done(&store, records("old", at(NOW)), NOW).await;
        done(&store, records("again", at(NOW)), NOW).await;
        done(&store, records("again", at(NOW + 1)), NOW).await;
        done(&store, records("mark", at(i64::MAX)), NOW).await;
        store.sweep(NOW + RECORDS_KEPT - 1).await.unwrap();
        assert!(known(&store, "old").await.is_some());
        store.sweep(NOW + RECORDS_KEPT).await.unwrap();
        if !forgets_by_sweeping(&store) {
            return;
        }
        assert!(known(&store, "old").await.is_none());
        assert!(known(&store, "again").await.is_some(), "fetched anew");
        store.sweep(NOW + RECORDS_KEPT + 1).await.unwrap();
        assert!(known(&store, "again").await.is_none());
        assert!(known(&store, "mark").await.is_some());
        // It is known anew as if it had never been.
        done(&store, records("old", at(NOW + RECORDS_KEPT)), NOW).await;
        store.sweep(NOW + RECORDS_KEPT + 1).await.unwrap();
        assert!(known(&store, "old").await.is_some());
    })
    .await;
}

/// One take from a bucket of this name.
pub async fn take(
    store: &Store,
    name: &str,
    (burst, window): (u32, i64),
    cost: u32,
    now: i64,
) -> Level {
    let takes = [Take {
        key: key(name),
        burst,
        window,
        cost,
    }];
    let question = Question {
        takes: &takes,
        ..Question::default()
    };
    store.ask(question, now).await.unwrap().levels[0]
}

fn level(left: u32, full_in: i64, wait: Option<i64>) -> Level {
    Level {
        left,
        full_in,
        wait,
    }
}

#[tokio::test]
async fn a_bucket_gives_its_burst_at_once_and_then_as_fast_as_it_fills() {
    each(async |store| {
        let six_a_minute = (6, 60);
        for taken in 1..=6 {
            let expected = level(6 - taken, i64::from(taken) * 10, None);
            assert_eq!(take(&store, "b", six_a_minute, 1, NOW).await, expected);
        }
        let none = take(&store, "b", six_a_minute, 1, NOW).await;
        assert_eq!(none, level(0, 60, Some(10)));
        let none = take(&store, "b", six_a_minute, 1, NOW + 9).await;
        assert_eq!(none, level(0, 51, Some(1)), "a refusal takes nothing");
        let one = take(&store, "b", six_a_minute, 1, NOW + 10).await;
        assert_eq!(one, level(0, 60, None));
        let dear = take(&store, "b", six_a_minute, 3, NOW + 30).await;
        assert_eq!(
            dear,
            level(2, 40, Some(10)),
            "two are left, three would be in ten seconds"
        );
        let free = take(&store, "b", six_a_minute, 0, NOW + 30).await;
        assert_eq!(free, level(2, 40, None), "a look");
        let full = take(&store, "b", six_a_minute, 6, NOW + 1000).await;
        assert_eq!(
            full,
            level(0, 60, None),
            "it never holds more than its burst"
        );
        assert_eq!(take(&store, "another", six_a_minute, 1, NOW).await.left, 5);
    })
    .await;
}

#[tokio::test]
async fn buckets_are_right_at_the_edges() {
    each(async |store| {
        // As fine as one can configure: a burst that outnumbers the window's milliseconds.
        let fine = (1_000_000_000, 60);
        for _ in 0..3 {
            let taken = take(&store, "fine", fine, 100_000_000, NOW).await;
            assert_eq!(taken.wait, None);
        }
        assert_eq!(take(&store, "fine", fine, 0, NOW).await.left, 700_000_000);
        // A burst that does not divide the window.
        for number in 0..7 {
            assert_eq!(
                take(&store, "odd", (7, 60), 1, NOW).await.wait,
                None,
                "{number}"
            );
        }
        assert_eq!(
            take(&store, "odd", (7, 60), 1, NOW).await,
            level(0, 60, Some(9))
        );
        // What costs more than a bucket holds costs all it holds: waiting helps.
        assert_eq!(
            take(&store, "dear", (3, 30), 10, NOW).await,
            level(0, 30, None)
        );
        assert_eq!(
            take(&store, "dear", (3, 30), 10, NOW).await,
            level(0, 30, Some(30))
        );
        assert_eq!(take(&store, "dear", (3, 30), 10, NOW + 30).await.wait, None);
        // No burst, no window: the least there can be of each.
        assert_eq!(
            take(&store, "least", (0, 0), 1, NOW).await,
            level(0, 1, None)
        );
        assert_eq!(
            take(&store, "least", (0, 0), 1, NOW).await,
            level(0, 1, Some(1))
        );
        let most = take(&store, "most", (u32::MAX, i64::MAX), u32::MAX, NOW).await;
        assert_eq!(most.wait, None);
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_steps_back_leaves_nobody_waiting_longer_than_a_window() {
    each(async |store| {
        take(&store, "b", (2, 60), 2, NOW).await;
        let back = take(&store, "b", (2, 60), 1, NOW - 86_400).await;
        assert_eq!(back, level(0, 60, Some(30)));
        assert_eq!(
            take(&store, "b", (2, 60), 1, NOW - 86_400 + 30).await.wait,
            None
        );
    })
    .await;
}

#[tokio::test]
async fn sweeping_changes_no_bucket() {
    each(async |store| {
        // A Redis forgets a bucket when it would be full by the server's own clock, too: not here.
        let limit = (2, 3600);
        take(&store, "half", limit, 1, NOW).await;
        take(&store, "full", limit, 1, NOW - 3600).await;
        store.sweep(NOW).await.unwrap();
        assert_eq!(take(&store, "half", limit, 1, NOW).await.left, 0);
        assert_eq!(take(&store, "full", limit, 1, NOW).await.left, 1);
        // More than are kept without a look at them.
        for hundred in 0..100 {
            let store = &store;
            let passing = (0..100).map(|number| async move {
                take(store, &format!("passing {hundred} {number}"), limit, 1, NOW).await;
            });
            join_all(passing).await;
        }
        assert!(take(&store, "half", limit, 1, NOW).await.wait.is_some());
    })
    .await;
}

#[tokio::test]
async fn one_question_is_answered_whole() {
    each(async |store| {
        let change = Change {
            records: vec![(key("r"), record(1, "known"))],
            ..revocation("s", i64::MAX, NOW + 60)
        };
        done(&store, change, NOW).await;
        let (standings, records) = (
            [Standing {
                key: key("s"),
                since: 0,
            }],
            [key("r")],
        );
        let bucket = |name| Take {
            key: key(name),
            burst: 5,
            window: 50,
            cost: 2,
        };
        let takes = [bucket("one"), bucket("other"), bucket("one"), bucket("one")];
        let question = Question {
            standings: &standings,
            takes: &takes,
            records: &records,
            done: None,
            ..Question::default()
        };
        let answer = store.ask(question, NOW).await.unwrap();
        assert_eq!(answer.revoked, Some(0));
        assert_eq!(answer.records, [Some(record(1, "known"))]);
        let left = answer.levels.iter().map(|level| (level.left, level.wait));
        let expected = [(3, None), (3, None), (1, None), (1, Some(10))];
        assert_eq!(left.collect::<Vec<_>>(), expected);
    })
    .await;
}

#[test]
fn no_two_kinds_and_no_two_ways_to_cut_the_parts_share_a_key() {
    let keys = [
        Key::of(Kind::Session, &["ab", "c"]),
        Key::of(Kind::Session, &["a", "bc"]),
        Key::of(Kind::Session, &["abc"]),
        Key::of(Kind::Session, &["abc", ""]),
        Key::of(Kind::User, &["ab", "c"]),
        Key::of(Kind::SubjectBucket, &["ab", "c"]),
    ];
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

/// What a caller may do, over few names so that it meets what was done before.
#[derive(Debug, Clone)]
enum Step {
    Commit {
        once: Option<(u8, i64)>,
        revocations: Vec<(u8, i64, i64)>,
        records: Vec<(u8, i64, u8)>,
        entries: BTreeMap<u8, (u64, Option<i64>)>,
        messages: Vec<(u8, i64)>,
        statuses: BTreeMap<u32, (u8, i64, i64)>,
    },
    Ask {
        standings: Vec<(u8, i64)>,
        records: Vec<u8>,
        entries: Vec<u8>,
    },
    Take(u8, u32),
    Due(i64, usize),
    Settle(u8, Option<i64>),
    Statuses,
    Sweep,
    Wait(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    let (name, after) = (0..4_u8, -3..8_i64);
    let commit = (
        option::of((name.clone(), after.clone())),
        vec((name.clone(), 0..6_i64, after.clone()), 0..3),
        vec((name.clone(), 0..4_i64, 0..9_u8), 0..3),
        btree_map(name.clone(), (0..3_u64, option::of(after.clone())), 0..3),
        vec((name.clone(), after.clone()), 0..3),
        btree_map(0..4_u32, (name.clone(), 0..6_i64, after.clone()), 0..2),
    );
    let step = prop_oneof![
        6 => commit.prop_map(|(once, revocations, records, entries, messages, statuses)| Step::Commit {
            once, revocations, records, entries, messages, statuses
        }),
        4 => (vec((name.clone(), 0..6_i64), 0..4), vec(name.clone(), 0..4), vec(name.clone(), 0..4))
            .prop_map(|(standings, records, entries)| Step::Ask { standings, records, entries }),
        2 => (name.clone(), 0..4_u32).prop_map(|(name, cost)| Step::Take(name, cost)),
        2 => (0..5_i64, 0..4_usize).prop_map(|(lease, most)| Step::Due(lease, most)),
        2 => (name, option::of(after)).prop_map(|(name, again)| Step::Settle(name, again)),
        2 => Just(Step::Statuses),
        1 => Just(Step::Sweep),
        2 => (0..4_i64).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..40)
}

/// What a step brings to light, as text.
async fn seen(store: &Store, step: &Step, now: i64) -> String {
    match step {
        Step::Commit {
            once,
            revocations,
            records,
            entries,
            messages,
            statuses,
        } => {
            let change = Change {
                once: once.map(|(name, after)| Once {
                    key: key(name),
                    until: now + after,
                    since: None,
                }),
                revocations: revocations
                    .iter()
                    .map(|(name, at, after)| Revocation {
                        key: key(name),
                        at: *at,
                        until: now + after,
                    })
                    .collect(),
                records: records
                    .iter()
                    .map(|(name, version, body)| (key(name), record(*version, &body.to_string())))
                    .collect(),
                entries: entries
                    .iter()
                    .map(|(name, (version, after))| Replace {
                        key: key(name),
                        version: *version,
                        by: after.map(|after| (now + after, name.to_string().into_bytes())),
                    })
                    .collect(),
                messages: messages
                    .iter()
                    .map(|(name, after)| message(&name.to_string(), now + after))
                    .collect(),
                statuses: statuses
                    .iter()
                    .flat_map(|(index, (name, since, after))| {
                        status(*index, &[(&name.to_string(), *since)], now + after).statuses
                    })
                    .collect(),
            };
            format!("{:?}", store.commit(change, now).await.unwrap())
        }
        Step::Ask {
            standings,
            records,
            entries,
        } => {
            let standings: Vec<Standing> = standings
                .iter()
                .map(|(name, since)| Standing {
                    key: key(name),
                    since: *since,
                })
                .collect();
            let records: Vec<Key> = records.iter().map(key).collect();
            let entries: Vec<Key> = entries.iter().map(key).collect();
            let question = Question {
                standings: &standings,
                records: &records,
                entries: &entries,
                done: records.first().copied(),
                ..Question::default()
            };
            let answer = store.ask(question, now).await.unwrap();
            let records = answer.records.into_iter().map(|record| {
                record.map(|record| (record.version, record.fetched_at, record.body))
            });
            let entries = answer.entries.into_iter().map(|entry| {
                let kept = |entry: Entry| (entry.version, entry.until, entry.body);
                entry.map(kept)
            });
            format!(
                "{:?} {:?} {:?} {}",
                answer.revoked,
                records.collect::<Vec<_>>(),
                entries.collect::<Vec<_>>(),
                answer.done
            )
        }
        Step::Take(name, cost) => {
            format!(
                "{:?}",
                take(store, &name.to_string(), (3, 6), *cost, now).await
            )
        }
        Step::Due(lease, most) => {
            let due = store.due(now, *lease, *most).await.unwrap();
            let due = due.into_iter();
            format!(
                "{:?}",
                due.map(|m| (m.id, m.due, m.attempts, m.body))
                    .collect::<Vec<_>>()
            )
        }
        Step::Settle(name, again) => {
            let delivery = again.map_or(Delivery::Settled, |after| Delivery::Again(now + after));
            format!("{:?}", store.settle(&name.to_string(), delivery).await)
        }
        Step::Statuses => format!("{:?}", store.revoked_statuses(now).await.unwrap()),
        Step::Sweep => format!("{:?}", store.sweep(now).await),
        Step::Wait(_) | Step::Reopen => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The file says what memory says, whatever was done before and however often it was opened.
    #[test]
    fn the_file_says_what_memory_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("store.redb");
        let memory = Store::Memory(Memory::default());
        let mut file = Some(open_file(&path));
        // Buckets do not outlast a process: from there on they are not compared.
        let (mut now, mut reopened) = (NOW, false);
        for step in &steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Reopen => {
                    drop(file.take());
                    file = Some(open_file(&path));
                    reopened = true;
                }
                Step::Take(..) if reopened => {}
                step => {
                    let expected = runtime.block_on(seen(&memory, step, now));
                    let told = runtime.block_on(seen(file.as_ref().unwrap(), step, now));
                    prop_assert_eq!(told, expected, "{:?}", step);
                }
            }
        }
    }

}

/// A store says what memory says, whichever process asks; each case has a prefix of its own.
async fn says_what_memory_says(
    all: &[Vec<Step>],
    open: impl AsyncFn(&str) -> Store,
) -> Result<(), TestCaseError> {
    for (number, steps) in all.iter().enumerate() {
        let prefix = format!("case-{number}");
        let memory = Store::Memory(Memory::default());
        let mut store = open(&prefix).await;
        let mut now = NOW;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Reopen => store = open(&prefix).await,
                step => {
                    let expected = seen(&memory, step, now).await;
                    prop_assert_eq!(seen(&store, step, now).await, expected, "{:?}", step);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, ..ProptestConfig::default() })]

    #[test]
    fn redis_says_what_memory_says(all in proptest::collection::vec(steps(), 24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Redis::start().await;
            let open = async |prefix: &str| {
                open_with(&server, |each| prefix.clone_into(&mut each.prefix)).await
            };
            says_what_memory_says(&all, open).await
        })?;
    }

    #[test]
    fn a_cluster_says_what_memory_says(all in proptest::collection::vec(steps(), 24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = RedisCluster::start(false).await;
            let open = async |prefix: &str| open_in(&cluster, prefix).await;
            says_what_memory_says(&all, open).await
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What a level tells is so: what is left can be taken, no more, and waiting is enough.
    #[test]
    fn a_level_tells_the_truth(
        burst in 1..50_u32,
        window in 1..400_i64,
        takes in proptest::collection::vec((0..5_u32, 0..20_i64), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let limit = (burst, window);
        // What was granted, by the arithmetic of a bucket that fills continuously.
        let (mut now, mut given) = (NOW, 0_i64);
        runtime.block_on(async {
            let store = Store::Memory(Memory::default());
            for (cost, after) in takes {
                now += after;
                let cost = cost.min(burst);
                let level = take(&store, "b", limit, cost, now).await;
                let look = take(&store, "b", limit, 0, now).await;
                assert_eq!((look.left, look.full_in), (level.left, level.full_in));
                match level.wait {
                    None => given += i64::from(cost),
                    Some(wait) => {
                        assert!(level.left < cost && wait >= 1 && wait <= window);
                        let early = now + wait - 1;
                        assert!(take(&store, "b", limit, cost, early).await.wait.is_some());
                        let taken = take(&store, "b", limit, cost, now + wait).await;
                        assert_eq!(taken.wait, None);
                        now += wait;
                        given += i64::from(cost);
                    }
                }
                let could = i64::from(burst) + i64::from(burst) * (now - NOW) / window;
                assert!(given <= could, "{given} of {could}");
            }
            let rest = take(&store, "b", limit, 0, now).await;
            let taken = take(&store, "b", limit, rest.left, now).await;
            assert_eq!((taken.wait, taken.left), (None, 0));
            if rest.left < burst {
                assert!(take(&store, "b", limit, 1, now).await.wait.is_some());
            }
            let full = take(&store, "b", limit, burst, now + taken.full_in).await;
            assert_eq!(full.wait, None);
        });
    }
}
