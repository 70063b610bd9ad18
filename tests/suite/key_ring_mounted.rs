//! The ring from a Secret that Kubernetes mounts: read, never written; a swap is noticed, and
//! what is worse than what is held is refused.

use crate::support::ring::{in_state, mint, text, verifies};
use crate::support::service::Builder;
use crate::support::token::kid;
use crate::support::{Issuer, Ring, Service, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A Secret's volume, written as the kubelet does: the files in a folder of their version, which
/// `..data` leads to, and their names leading through that.
struct Volume {
    dir: TempDir,
    version: std::cell::Cell<u32>,
}

impl Volume {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            version: std::cell::Cell::new(0),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts this in as the newest version, with the mode that a Secret's files have.
    fn put(&self, ring: &[u8]) {
        let version = self.version.get() + 1;
        self.version.set(version);
        let folder = format!("..2026_11_21_{version}");
        fs::create_dir(self.path().join(&folder)).unwrap();
        let file = self.path().join(&folder).join("ring.json");
        fs::write(&file, ring).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        symlink(&folder, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
        let _ = symlink("..data/ring.json", self.path().join("ring.json"));
        if version > 1 {
            let before = format!("..2026_11_21_{}", version - 1);
            fs::remove_dir_all(self.path().join(before)).unwrap();
        }
    }

    /// All that is in it, by name.
    fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn replica(&self, issuer: &Issuer) -> Builder {
        Service::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .env("EXCHEQUER_KEYS_DIR", self.path().display().to_string())
            .env("EXCHEQUER_KEYS_SECRET", SECRET)
            .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h")
            .env("EXCHEQUER_KEY_ROTATE_EVERY", "30d")
    }
}

/// A working copy: a folder with a ring and no server.
fn working_copy() -> Ring {
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    ring.set_env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h");
    ring.set_env("EXCHEQUER_KEY_ROTATE_EVERY", "30d");
    // A start makes it; a rotation would ask for the next one too.
    ring.try_to_serve();
    assert_eq!(ring.list().len(), 2);
    ring
}

fn bytes(ring: &Ring) -> Vec<u8> {
    fs::read(ring.path("keys/ring.json")).unwrap()
}

async fn kids(service: &Service) -> BTreeSet<String> {
    let answer = service.get("/.well-known/jwks.json").await;
    let keys = answer.body["keys"].as_array().unwrap().iter();
    keys.map(|key| text(&key["kid"])).collect()
}

fn listed(keys: &[Value]) -> BTreeSet<String> {
    keys.iter().map(|key| text(&key["kid"])).collect()
}

async fn failures(service: &Service) -> f64 {
    let count = service.metric("exchequer_key_ring_failures_total").await;
    count.unwrap()
}

#[tokio::test]
async fn a_mounted_ring_is_read_and_a_swap_of_it_is_noticed() {
    let (issuer, copy, volume) = (Issuer::start().await, working_copy(), Volume::new());
    volume.put(&bytes(&copy));
    let files = volume.files();
    let one = volume.replica(&issuer).start().await;
    let two = volume.replica(&issuer).start().await;
    for service in [&one, &two] {
        assert_eq!(kids(service).await, listed(&copy.list()));
        let place = "exchequer_key_ring_info{place=\"mounted\"}";
        assert_eq!(service.metric(place).await, Some(1.0));
    }
    let token = mint(&one, &issuer, 0).await;
    assert_eq!(vec![kid(&token)], in_state(&copy.list(), "active"));

    let rotated = copy.keys(&["rotate", "--force"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    volume.put(&bytes(&copy));
    for service in [&one, &two] {
        eventually("the new version is taken over", async || {
            kids(service).await == listed(&copy.list())
        })
        .await;
        let late = mint(service, &issuer, 0).await;
        assert_eq!(vec![kid(&late)], in_state(&copy.list(), "active"));
        let jwks = two.get("/.well-known/jwks.json").await.body;
        assert!(verifies(&token, &jwks) && verifies(&late, &jwks));
        assert_eq!(failures(service).await, 0.0);
    }
    let revoked = in_state(&copy.list(), "retired")[0].clone();
    assert_eq!(copy.keys(&["revoke", &revoked]).code, 0);
    volume.put(&bytes(&copy));
    eventually("a revocation is taken over", async || {
        !kids(&one).await.contains(&revoked) && !kids(&two).await.contains(&revoked)
    })
    .await;
    // Nothing was made or written there: no lock, no copy.
    let added: Vec<String> = volume.files().difference(&files).cloned().collect();
    assert_eq!(added, ["..2026_11_21_3"]);
}

#[tokio::test]
async fn a_standby_of_a_mounted_ring_signs_in_its_time_and_nothing_is_made() {
    let (issuer, copy, volume) = (Issuer::start().await, working_copy(), Volume::new());
    volume.put(&bytes(&copy));
    let service = volume.replica(&issuer).start().await;
    let (old, next) = (
        in_state(&copy.list(), "active")[0].clone(),
        in_state(&copy.list(), "next")[0].clone(),
    );
    let shift = 30 * 86_400 - 60;
    service.shift_clocks(shift, shift);
    // Nothing may happen, so there is nothing to wait for but the next look.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(kid(&mint(&service, &issuer, shift).await), old);
    let shift = 30 * 86_400 + 60;
    service.shift_clocks(shift, shift);
    eventually("the standby signs", async || {
        kid(&mint(&service, &issuer, shift).await) == next
    })
    .await;
    assert_eq!(
        kids(&service).await,
        BTreeSet::from([old.clone(), next.clone()])
    );
    let shift = shift + 86_400;
    service.shift_clocks(shift, shift);
    eventually("what signed before is gone in its time", async || {
        kids(&service).await == BTreeSet::from([next.clone()])
    })
    .await;
    // The same of a replica that starts only now.
    let mut late = volume.replica(&issuer).start().await;
    late.shift_clocks(shift, shift);
    late.restart().await;
    assert_eq!(kids(&late).await, BTreeSet::from([next.clone()]));
    assert_eq!(kid(&mint(&late, &issuer, shift).await), next);
    assert_eq!(
        bytes(&copy),
        fs::read(volume.path().join("ring.json")).unwrap()
    );
}

#[tokio::test]
async fn bad_content_and_older_rings_are_refused_and_the_last_good_one_stays() {
    let (issuer, copy, volume) = (Issuer::start().await, working_copy(), Volume::new());
    let older = bytes(&copy);
    assert_eq!(copy.keys(&["rotate", "--force"]).code, 0);
    let good = bytes(&copy);
    volume.put(&good);
    let service = volume.replica(&issuer).start().await;
    let first = kids(&service).await;
    let clear = Ring::new();
    assert_eq!(clear.keys(&["rotate"]).code, 0);
    let mut other = Ring::new();
    other.set_env(
        "EXCHEQUER_KEYS_SECRET",
        "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=",
    );
    assert_eq!(other.keys(&["rotate"]).code, 0);
    let other_ring = working_copy();
    for (what, content) in [
        ("is damaged", good[..100].to_vec()),
        ("is damaged", Vec::new()),
        ("is in clear", bytes(&clear)),
        ("another secret", bytes(&other)),
        ("an older ring is not taken", older),
        ("an older ring is not taken", bytes(&other_ring)),
    ] {
        let before = failures(&service).await;
        volume.put(&content);
        // It is looked at less and less often while it is no good.
        let mut waited = 0;
        while failures(&service).await <= before || !service.log().join("\n").contains(what) {
            waited += 1;
            assert!(waited < 800, "{what} is refused");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(kids(&service).await, first, "{what}");
        assert_eq!(service.admin("/readyz").await.status, 200);
        mint(&service, &issuer, 0).await;
        // What is good again is taken again.
        volume.put(&good);
    }
}

#[tokio::test]
async fn a_start_with_a_bad_mounted_ring_ends_and_says_why() {
    let (copy, volume) = (working_copy(), Volume::new());
    volume.put(&bytes(&copy)[..100]);
    let mut broken = Ring::new();
    broken.set_env("EXCHEQUER_KEYS_DIR", &volume.path().display().to_string());
    broken.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    let ended = broken.try_to_serve();
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("the key ring is damaged"),
        "{ended:?}"
    );
    volume.put(&bytes(&copy));
    let file: PathBuf = volume.path().join("ring.json");
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let ended = broken.try_to_serve();
    assert!(
        ended.stderr.contains("can be written by others"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_commands_look_at_a_mounted_ring_and_say_how_to_change_it() {
    let (copy, volume) = (working_copy(), Volume::new());
    volume.put(&bytes(&copy));
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_KEYS_DIR", &volume.path().display().to_string());
    ring.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    ring.set_env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h");
    assert_eq!(ring.list(), copy.list());
    let kid = in_state(&copy.list(), "active")[0].clone();
    for change in [&["rotate"][..], &["rotate", "--force"], &["revoke", &kid]] {
        let ended = ring.keys(change);
        assert_eq!(ended.code, 1, "{ended:?}");
        let told = ["is mounted from a Secret and only read", "working copy"];
        for each in told {
            assert!(ended.stderr.contains(each), "{ended:?}");
        }
    }
    assert_eq!(ring.list(), copy.list());
}

#[tokio::test]
async fn a_key_folder_that_others_can_write_to_is_refused() {
    let copy = working_copy();
    fs::set_permissions(copy.path("keys"), Permissions::from_mode(0o777)).unwrap();
    let ended = copy.keys(&["rotate"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("can be written to by others"),
        "{ended:?}"
    );
    // The group may be that of the volume, as `fsGroup` has it.
    fs::set_permissions(copy.path("keys"), Permissions::from_mode(0o2770)).unwrap();
    assert_eq!(copy.keys(&["rotate"]).code, 0);
}
