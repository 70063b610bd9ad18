//! What the store in a file promises beyond what every store does: it survives whatever dies
//! when, refuses what it cannot believe, and the service says so.

use crate::support::{Command, Issuer, Service, eventually};
use exchequer::store::{
    Change, Committed, Key, Kind, Message, Once, OpenError, Question, Record, Replace, Revocation,
    Standing, Status, Store,
};
use exchequer::telemetry::Metrics;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NOW: i64 = 1_800_000_000;
const LATER: i64 = NOW + 1000;

pub fn open(path: &Path) -> Store {
    try_to_open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn try_to_open(path: &Path) -> Result<Store, OpenError> {
    Store::file(path, Arc::default())
}

fn refusal(path: &Path) -> OpenError {
    match try_to_open(path) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

fn key(kind: Kind, number: usize) -> Key {
    Key::of(kind, &["https://issuer.example", &number.to_string()])
}

/// A change of everything that a change may hold; each number has keys of its own.
fn change(number: usize) -> Change {
    Change {
        once: Some(Once {
            key: key(Kind::Event, number),
            until: LATER,
            since: None,
        }),
        revocations: vec![Revocation {
            key: key(Kind::Session, number),
            at: i64::MAX,
            until: LATER,
        }],
        records: vec![(
            key(Kind::User, number),
            Record {
                version: 1,
                fetched_at: NOW,
                body: number.to_string().into_bytes(),
            },
        )],
        entries: vec![Replace {
            key: key(Kind::Code, number),
            version: 0,
            by: Some((LATER, number.to_string().into_bytes())),
        }],
        messages: vec![Message {
            id: number.to_string(),
            app: "web".to_owned(),
            due: NOW,
            attempts: 0,
            body: b"{}".to_vec(),
        }],
        statuses: vec![Status {
            index: u32::try_from(number).unwrap(),
            standings: Vec::new(),
            until: LATER,
        }],
    }
}

/// Which of these changes the store knows; fails where it knows a part of one.
async fn made(store: &Store, numbers: usize) -> BTreeSet<usize> {
    let due = store.due(NOW, 0, usize::MAX).await.unwrap();
    let due: BTreeSet<String> = due.into_iter().map(|message| message.id).collect();
    let mut made = BTreeSet::new();
    for number in 0..numbers {
        let parts = [
            is_revoked(store, number).await,
            is_known(store, number).await,
            is_kept(store, number).await,
            due.contains(&number.to_string()),
        ];
        assert!(parts == [parts[0]; 4], "half of change {number}: {parts:?}");
        // Last, because it makes the mark where there is none.
        let once = Change {
            once: change(number).once,
            ..Change::default()
        };
        let again = store.commit(once, NOW).await.unwrap();
        assert_eq!(again == Committed::Repeated, parts[0], "change {number}");
        if parts[0] {
            made.insert(number);
        }
    }
    made
}

async fn is_revoked(store: &Store, number: usize) -> bool {
    let standings = [Standing {
        key: key(Kind::Session, number),
        since: 0,
    }];
    let question = Question {
        standings: &standings,
        ..Question::default()
    };
    store.ask(question, NOW).await.unwrap().revoked.is_some()
}

async fn is_known(store: &Store, number: usize) -> bool {
    let records = [key(Kind::User, number)];
    let question = Question {
        records: &records,
        ..Question::default()
    };
    let answer = store.ask(question, NOW).await.unwrap();
    let body = answer.records[0].as_ref().map(|record| record.body.clone());
    body.is_some_and(|body| body == number.to_string().into_bytes())
}

async fn is_kept(store: &Store, number: usize) -> bool {
    let entries = [key(Kind::Code, number)];
    let question = Question {
        entries: &entries,
        ..Question::default()
    };
    let answer = store.ask(question, NOW).await.unwrap();
    let body = answer.entries[0].as_ref().map(|entry| entry.body.clone());
    body.is_some_and(|body| body == number.to_string().into_bytes())
}

// What survives.

/// This test binary again, running one of the tests below that say they are a process.
fn spawn(test: &str, store: &Path) -> process::Command {
    let mut command = process::Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            &format!("store_file::{test}"),
            "--ignored",
            "--nocapture",
        ])
        .env("TEST_STORE", store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os("TEST_STORE").unwrap())
}

/// Says each change that was answered, on a line of its own, until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that others start and kill"]
async fn process_that_commits() {
    let store = Arc::new(open(&place()));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in (task..).step_by(8) {
                    // A repeated one was made by the process before.
                    store.commit(change(number), NOW).await.unwrap();
                    println!("\nmade {number}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Waits until so many changes were answered, kills it, and gives all that were.
async fn killed_after(mut child: Child, changes: usize) -> BTreeSet<usize> {
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hears = Arc::clone(&heard);
    let listener = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("made ") {
                hears.lock().unwrap().insert(number.parse().unwrap());
            }
        }
    });
    eventually("it committed", async || {
        heard.lock().unwrap().len() >= changes
    })
    .await;
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    listener.join().unwrap();
    std::mem::take(&mut *heard.lock().unwrap())
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it_and_nothing_is_there_by_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut answered = BTreeSet::new();
    for round in 1..=10 {
        let child = spawn("process_that_commits", &path).spawn().unwrap();
        // It goes through the earlier rounds' changes first.
        answered.extend(killed_after(child, round * 37).await);
        // `made` leaves marks where there were none: it looks at a copy.
        let copy = dir.path().join("copy.redb");
        fs::copy(&path, &copy).unwrap();
        let made = made(&open(&copy), answered.last().unwrap() + 20).await;
        let lost: Vec<_> = answered.difference(&made).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    assert!(answered.len() >= 370);
}

#[tokio::test]
async fn a_kill_while_the_file_is_made_leaves_none_or_one_that_works() {
    let mut made = 0;
    for round in 0..30_u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/store.redb");
        let mut child = spawn("process_that_commits", &path).spawn().unwrap();
        eventually("it began", async || path.parent().unwrap().exists()).await;
        tokio::time::sleep(Duration::from_micros(round * 700)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        made += usize::from(path.exists());
        let store = open(&path);
        assert_eq!(
            store.commit(change(1_000_000), NOW).await.unwrap(),
            Committed::Done
        );
    }
    assert!(made > 0, "some were killed after it was made");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for number in 0..5 {
        let store = open(&path);
        let done = store.commit(change(number), NOW).await.unwrap();
        assert_eq!(done, Committed::Done);
    }
    assert_eq!(made(&open(&path), 6).await, (0..5).collect());
}

#[tokio::test]
async fn changes_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let store = Store::file(&dir.path().join("store.redb"), Arc::clone(&metrics)).unwrap();
    let commits = (0..200).map(|number| store.commit(change(number), NOW));
    for made in futures_util::future::join_all(commits).await {
        assert_eq!(made.unwrap(), Committed::Done);
    }
    let text = metrics.render(std::iter::empty(), NOW, std::iter::empty());
    let sample = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let commits = sample("exchequer_store_commit_duration_seconds_count ");
    assert!((1.0..100.0).contains(&commits), "{commits}");
    assert_eq!(sample("exchequer_store_revocations "), 200.0);
    // A repeated one needs none.
    let again = store.commit(change(7), NOW).await.unwrap();
    assert_eq!(again, Committed::Repeated);
    let text = metrics.render(std::iter::empty(), NOW, std::iter::empty());
    assert!(text.contains(&format!("commit_duration_seconds_count {commits}\n")));
}

// A disk that fails.

/// Limits how large its files may become; `None` lifts the limit.
fn limit_files(bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let status = process::Command::new("prlimit")
        .args(["--pid", &process::id().to_string()])
        .arg(format!("--fsize={limit}:unlimited"))
        .status()
        .unwrap();
    assert!(status.success());
}

fn bulky(number: usize) -> Change {
    let mut bulky = change(number);
    bulky.messages[0].body = vec![b' '; 3 << 20];
    bulky
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process with a limit on its files"]
async fn process_whose_disk_fills_up() {
    let path = place();
    let store = open(&path);
    for number in 0..10 {
        store.commit(change(number), NOW).await.unwrap();
    }
    // Somebody else takes the file away and the disk fails: no empty one takes its place.
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    limit_files(Some(1));
    assert!(store.commit(bulky(99), NOW).await.is_err());
    limit_files(None);
    assert!(store.commit(bulky(99), NOW).await.is_err());
    assert!(!path.exists());
    fs::rename(&away, &path).unwrap();
    for round in 0..3 {
        // Full: the file can be changed, and cannot grow. Then dead: it cannot be written at all.
        let dead = round == 2;
        let limit = if dead {
            1
        } else {
            fs::metadata(&path).unwrap().len()
        };
        limit_files(Some(limit));
        let next = 10 + round;
        for _ in 0..3 {
            let error = store.commit(bulky(next), NOW).await.unwrap_err();
            assert!(error.to_string().contains("File too large"), "{error}");
        }
        for number in 0..next {
            assert!(is_revoked(&store, number).await, "{number}");
            assert!(dead || is_known(&store, number).await, "{number}");
        }
        assert!(!is_revoked(&store, next).await);
        limit_files(None);
        // As it was, without a restart.
        assert_eq!(
            store.commit(bulky(next), NOW).await.unwrap(),
            Committed::Done
        );
        assert!(is_revoked(&store, next).await && is_known(&store, next).await);
        let again = store.commit(bulky(next), NOW).await.unwrap();
        assert_eq!(again, Committed::Repeated);
    }
    drop(store);
    assert_eq!(made(&open(&path), 20).await, (0..13).collect());
    println!("\nall held");
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_changes_and_recovers_without_a_restart() {
    if process::Command::new("prlimit")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("SKIPPED: prlimit is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = spawn(
        "process_whose_disk_fills_up",
        &dir.path().join("store.redb"),
    );
    // Ignored, the signal that comes with the limit leaves an error in its place.
    let output = process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(test.get_program())
        .args(test.get_args())
        .envs(
            test.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stdout.contains("\nall held"), "{stdout}{stderr}");
}

// What is refused.

#[test]
fn the_folder_and_the_file_are_their_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/store.redb");
    drop(open(&path));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&dir.path().join("a")), 0o700);
    let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "nothing is left of its making");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path));
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn an_empty_file_becomes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    fs::write(&path, "").unwrap();
    drop(open(&path));
    drop(open(&path));
}

#[test]
fn one_process_has_it_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&path);
    let error = refusal(&path);
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    drop(store);
    drop(open(&path));
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for bytes in [
        "not a store".to_owned(),
        "\0".repeat(100_000),
        "redb".repeat(9999),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::Io { .. }));
    assert!(matches!(
        refusal(&dir.path().join("x\0y")),
        OpenError::Io { .. }
    ));
}

#[test]
fn another_format_and_another_programs_tables_are_refused() {
    let format: redb::TableDefinition<'_, (), u64> = redb::TableDefinition::new("format");
    let tables: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("theirs");
    for (version, says) in [
        (Some(2), "written in format 2"),
        (None, "another program's"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        match version {
            Some(version) => drop(transaction.open_table(format).unwrap().insert((), version)),
            None => drop(transaction.open_table(tables).unwrap().insert(1, 1)),
        }
        transaction.commit().unwrap();
        drop(database);
        let error = refusal(&path).to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("Nothing was deleted"), "{error}");
    }
}

/// Whatever byte of it the disk forgets: it is refused, or all that was answered is there. As
/// a kill leaves it too: there the last change is the one that could be taken for half of one.
#[tokio::test]
async fn a_damaged_file_is_refused_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&path);
    for number in 0..20 {
        store.commit(change(number), NOW).await.unwrap();
    }
    let killed = fs::read(&path).unwrap();
    drop(store);
    let ended = fs::read(&path).unwrap();
    for whole in [killed, ended] {
        // The header, with the byte that tells which of two commits is the last.
        let mut places: Vec<usize> = (4..320).step_by(5).collect();
        // Then a few of each page, where there is anything.
        places.extend((320..whole.len()).step_by(509).filter(|at| whole[*at] != 0));
        let (mut refused, mut opened) = (0, 0);
        for at in places {
            fs::write(&path, &whole).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[!whole[at]], at as u64).unwrap();
            drop(file);
            match try_to_open(&path) {
                Ok(store) => {
                    opened += 1;
                    for number in 0..20 {
                        assert!(is_revoked(&store, number).await, "byte {at}: {number}");
                        assert!(is_known(&store, number).await, "byte {at}: {number}");
                    }
                }
                Err(OpenError::Damaged { .. } | OpenError::Format { .. }) => {
                    refused += 1;
                    assert!(
                        try_to_open(&path).is_err(),
                        "byte {at}: and not the next time"
                    );
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
        assert!(refused > 20 && opened > 20, "{refused} {opened}");
        for length in [1, 100, 4096, 5000, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = refusal(&path);
            assert!(
                matches!(error, OpenError::Damaged { .. }),
                "{length}: {error}"
            );
        }
    }
}

// The service with it.

/// Stops the service, does this to its store, and starts it again.
async fn while_stopped(service: &mut Service, work: impl AsyncFnOnce(&Store)) {
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    work(&open(&service.dir().join("data/exchequer.redb"))).await;
    service.restart().await;
}

#[tokio::test]
async fn a_revocation_in_the_file_holds_from_the_start_and_after_a_kill() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    let token = issuer.token();
    service.session(&token).await.token();
    let session = crate::support::token::claims(&token)["sid"].clone();
    let session = session.as_str().unwrap().to_owned();
    let change = Change {
        revocations: vec![Revocation {
            key: Key::of(Kind::Session, &[&issuer.url, &session]),
            at: i64::MAX,
            until: crate::support::now() + 3600,
        }],
        ..Change::default()
    };
    while_stopped(&mut service, async |store| {
        let made = store.commit(change, crate::support::now()).await.unwrap();
        assert_eq!(made, Committed::Done);
    })
    .await;
    for _ in 0..2 {
        service.refuses("revoked", &token, "session_revoked").await;
        assert_eq!(
            service.metric("exchequer_store_revocations").await,
            Some(1.0)
        );
        assert_eq!(
            service.metric("exchequer_store_failures_total").await,
            Some(0.0)
        );
        service.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_file_does_not_start_and_the_first_goes_on() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let ended = service
        .command()
        .env("EXCHEQUER_LISTEN", "127.0.0.1:0")
        .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
        .run(&["serve"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let says = "error: EXCHEQUER_STORE: data/exchequer.redb: in use by another process";
    assert!(ended.stderr.contains(says), "{ended:?}");
    service.session(&issuer.token()).await.token();
    // Whoever looks at a running service leaves its file alone.
    let explained = service.command().input(issuer.token()).run(&["explain"]);
    assert_eq!(explained.code, 0, "{explained:?}");
    assert_eq!(service.command().run(&["check"]).code, 0);
}

#[test]
fn a_store_that_cannot_be_opened_stops_the_start_with_its_place_and_a_next_step() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::write(dir.path().join("garbage"), "garbage").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (store, says) in [
        (
            "file/store.redb",
            "EXCHEQUER_STORE: file/store.redb: Not a directory",
        ),
        ("/proc/none/store.redb", "EXCHEQUER_STORE: /proc/none: "),
        ("folder", "EXCHEQUER_STORE: folder: Is a directory"),
        ("garbage", "EXCHEQUER_STORE: garbage: damaged, or no store"),
    ] {
        let ended = Command::new(dir.path())
            .env("CLERK_JWT_ISSUER", "http://127.0.0.1:1")
            .env("EXCHEQUER_LISTEN", "127.0.0.1:0")
            .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
            .env("EXCHEQUER_STORE", store)
            .run(&["serve"]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    }
    assert_eq!(fs::read(dir.path().join("garbage")).unwrap(), b"garbage");
}
