//! The ring survives whatever dies when: SIGKILL at any moment, a disk that fails, and many
//! processes at once.

use crate::support::ring::{in_state, text, verifies};
use crate::support::{Issuer, Ring, Service, eventually, now};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The commands' own random delays, reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn spawn(ring: &Ring, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_exchequer"))
        .args(arguments)
        .current_dir(ring.path(""))
        .env_clear()
        .envs(ring.variables())
        .env("EXCHEQUER_LISTEN", "127.0.0.1:0")
        .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a verifier relies on: no key that was published goes before its time, one signs, and
/// four are published at most.
fn assert_sound(before: &[Value], after: &[Value], at: i64) {
    let here: BTreeSet<String> = after.iter().map(|key| text(&key["kid"])).collect();
    for key in before {
        let expired = key["state"] == "retired" && key["changes_at"].as_i64().unwrap() <= at;
        assert!(
            expired || here.contains(key["kid"].as_str().unwrap()),
            "{key} is lost"
        );
    }
    assert_eq!(in_state(after, "active").len(), 1, "{after:#?}");
    assert!(after.len() <= 4);
}

#[test]
fn kills_at_random_moments_lose_no_key_and_leave_no_damage() {
    let ring = Ring::new();
    let mut ring = ring;
    ring.set_env("EXCHEQUER_KEY_ROTATE_EVERY", "1h");
    ring.set_env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1m");
    ring.set_env("EXCHEQUER_KEY_KEEP_AFTER", "15m");
    assert_eq!(ring.keys(&["rotate"]).code, 0);
    let mut random = Random(1);
    let (mut before, mut shift, mut killed) = (ring.list(), 0, 0);
    for round in 0..150 {
        // So that retired keys go and there is room for new ones.
        shift += 400;
        ring.shift_clock(shift);
        let mut child = match round % 3 {
            0 => spawn(&ring, &["serve"]),
            _ => spawn(&ring, &["keys", "rotate", "--force"]),
        };
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        let after = ring.list();
        assert_sound(&before, &after, now() + shift);
        before = after;
    }
    assert!(
        killed > 50,
        "most were killed before they had ended: {killed}"
    );
    assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
    assert_sound(&before, &ring.list(), now() + shift);
    assert_eq!(ring.files(), [".lock", "ring.json", "ring.previous.json"]);
}

#[tokio::test]
async fn a_token_minted_before_a_kill_verifies_after_it() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    let mut tokens = Vec::new();
    let mut random = Random(2);
    for _ in 0..10 {
        tokens.push(service.session(&issuer.token()).await.token().to_owned());
        // The rotation runs into the kill; four keys at most, so that later ones change nothing.
        let command = service.command();
        let rotation = std::thread::spawn(move || command.run(&["keys", "rotate", "--force"]));
        tokio::time::sleep(Duration::from_micros(random.below(15_000))).await;
        service.restart().await;
        rotation.join().unwrap();
        let jwks = service.get("/.well-known/jwks.json").await;
        for token in &tokens {
            assert!(verifies(token, &jwks.body));
        }
    }
    let signers: BTreeSet<String> = tokens
        .iter()
        .map(|token| text(&crate::support::token::header(token)["kid"]))
        .collect();
    assert!(signers.len() > 1, "the rotations were taken over");
}

#[tokio::test]
async fn rotations_at_once_come_one_after_the_other() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let first =
        text(&crate::support::token::header(service.session(&issuer.token()).await.token())["kid"]);
    let rotations: Vec<_> = (0..8)
        .map(|_| {
            let command = service.command();
            std::thread::spawn(move || command.run(&["keys", "rotate", "--force"]))
        })
        .collect();
    let ended: Vec<_> = rotations
        .into_iter()
        .map(|rotation| rotation.join().unwrap())
        .collect();
    let signed: BTreeSet<String> = ended
        .iter()
        .filter(|ended| ended.code == 0)
        .map(|ended| ended.stdout.split(' ').nth(1).unwrap().to_owned())
        .collect();
    let refused = ended.iter().filter(|ended| ended.code == 1).count();
    assert_eq!(
        (signed.len(), refused),
        (3, 5),
        "as one after the other: {ended:#?}"
    );
    for ended in ended.iter().filter(|ended| ended.code == 1) {
        assert!(
            ended.stderr.contains("four keys are published"),
            "{ended:?}"
        );
    }
    let keys = crate::support::ring::list(service.command());
    assert_eq!(keys.len(), 4);
    let active = in_state(&keys, "active");
    assert!(active.len() == 1 && signed.contains(&active[0]));
    let mut ever: BTreeSet<String> = in_state(&keys, "retired").into_iter().collect();
    ever.extend(active.clone());
    assert_eq!(ever, signed.into_iter().chain([first]).collect());
    eventually("the server signs with the last of them", async || {
        let token = service.session(&issuer.token()).await.token().to_owned();
        active == [text(&crate::support::token::header(&token)["kid"])]
    })
    .await;
}

/// Whether system calls can be tampered with here; said aloud where not.
fn strace() -> bool {
    let works = Command::new("strace")
        .args(["-qq", "-e", "trace=none", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        eprintln!("SKIPPED: strace is missing or may not trace here");
    }
    works
}

/// Runs `exchequer keys` with something done to its system calls; gives whether it was done,
/// the exit code (`None` where it was killed) and standard error.
fn tampered(
    ring: &Ring,
    calls: &str,
    what: &str,
    arguments: &[&str],
) -> (bool, Option<i32>, String) {
    let trace = ring.path("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:{what}")])
        .args([env!("CARGO_BIN_EXE_exchequer"), "keys"])
        .args(arguments)
        .current_dir(ring.path(""))
        .env_clear()
        .envs(ring.variables())
        .output()
        .unwrap();
    let trace = fs::read_to_string(trace).unwrap();
    let done = trace.contains("INJECTED") || trace.contains("killed by SIGKILL");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = if trace.contains("killed by SIGKILL") {
        None
    } else {
        output.status.code()
    };
    (done, code, stderr)
}

/// All calls by which a change of the ring reaches the disk.
const CALLS: &str = "openat,write,fsync,fdatasync,unlink,unlinkat,link,linkat,rename,renameat,renameat2,flock,mkdir";

fn rotated() -> Ring {
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1m");
    ring.set_env("EXCHEQUER_KEY_KEEP_AFTER", "15m");
    assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
    ring
}

#[test]
fn a_kill_at_any_system_call_of_a_rotation_leaves_the_old_ring_or_the_new_one() {
    if !strace() {
        return;
    }
    let ring = rotated();
    let (mut shift, mut before, mut points) = (0, ring.list(), 0);
    for when in 1..200 {
        shift += 1000;
        ring.shift_clock(shift);
        let kill = format!("signal=KILL:when={when}");
        let (done, code, stderr) = tampered(&ring, CALLS, &kill, &["rotate", "--force"]);
        let after = ring.list();
        assert_sound(&before, &after, now() + shift);
        assert!(
            ring.keys(&["list"]).stderr.is_empty(),
            "the newest ring is whole"
        );
        before = after;
        if !done {
            assert_eq!(code, Some(0), "{stderr}");
            points = when;
            break;
        }
        assert_eq!(code, None);
    }
    assert!(points > 15, "it made some calls: {points}");
    assert!(!ring.files().contains(&"ring.json.tmp".to_owned()));
}

#[test]
fn a_kill_at_any_system_call_of_a_revocation_leaves_no_copy_of_a_key_that_is_gone() {
    if !strace() {
        return;
    }
    let mut revoked_and_killed = 0;
    for when in 1..200 {
        let ring = rotated();
        let kid = in_state(&ring.list(), "active")[0].clone();
        let kill = format!("signal=KILL:when={when}");
        let (done, code, stderr) = tampered(&ring, CALLS, &kill, &["revoke", &kid]);
        let gone = ring.list().iter().all(|key| key["kid"] != kid.as_str());
        assert_eq!(in_state(&ring.list(), "active").len(), 1);
        if gone {
            // Whatever the disk does to the newest ring: the key does not come back.
            fs::write(ring.path("keys/ring.json"), "").unwrap();
            let listed = ring.keys(&["list"]);
            assert!(!listed.stdout.contains(&kid), "killed at call {when}");
            revoked_and_killed += i32::from(done);
        }
        if !done {
            assert_eq!(code, Some(0), "{stderr}");
            assert!(gone);
            break;
        }
    }
    assert!(
        revoked_and_killed > 0,
        "some kills came after the revocation was saved"
    );
}

#[test]
fn a_kill_at_any_system_call_of_an_import_into_an_empty_folder_leaves_no_half_of_a_ring() {
    if !strace() {
        return;
    }
    for when in 1..200 {
        let ring = Ring::new();
        let kill = format!("signal=KILL:when={when}");
        let (done, _, _) = tampered(&ring, CALLS, &kill, &["rotate"]);
        // What comes next starts well, from the ring that was made or from none.
        let ended = ring.keys(&["rotate"]);
        assert_eq!(ended.code, 0, "killed at call {when}: {ended:?}");
        assert_eq!(ring.list().len(), 2);
        if !done {
            return;
        }
    }
    panic!("it never ended by itself");
}

#[test]
fn a_failing_disk_leaves_the_old_ring_and_the_command_says_so() {
    if !strace() {
        return;
    }
    let ring = rotated();
    let mut shift = 0;
    for (calls, error, when) in [
        ("fsync,fdatasync", "EIO", 1),
        ("fsync,fdatasync", "ENOSPC", 1),
        ("rename,renameat,renameat2", "EIO", 1),
        ("rename,renameat,renameat2", "EROFS", 1),
        ("link,linkat", "EMLINK", 1),
        ("flock", "ENOLCK", 1),
    ] {
        // Settled first, so that the forced rotation is all there is to save.
        shift += 2000;
        ring.shift_clock(shift);
        assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
        let (saved, before) = (fs::read(ring.path("keys/ring.json")).unwrap(), ring.list());
        let fail = format!("error={error}:when={when}");
        let (done, code, stderr) = tampered(&ring, calls, &fail, &["rotate", "--force"]);
        assert!(done, "{calls} was never called");
        assert_eq!(code, Some(1), "{calls} {error}: {stderr}");
        assert!(
            stderr.starts_with("error: keys"),
            "{calls} {error}: {stderr}"
        );
        assert_eq!(
            fs::read(ring.path("keys/ring.json")).unwrap(),
            saved,
            "{calls} {error}"
        );
        assert_eq!(ring.list(), before);
        let ended = ring.keys(&["rotate", "--force"]);
        assert_eq!(ended.code, 0, "and the next one works: {ended:?}");
        assert!(!ring.files().contains(&"ring.json.tmp".to_owned()));
    }
    // The folder's own fsync comes after the rename: the new ring is there, and sound.
    shift += 2000;
    ring.shift_clock(shift);
    assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
    let before = ring.list();
    let (done, code, stderr) = tampered(&ring, "fsync", "error=EIO:when=2", &["rotate", "--force"]);
    assert!(done);
    assert_eq!(code, Some(1), "{stderr}");
    assert_sound(&before, &ring.list(), now() + shift);
}
