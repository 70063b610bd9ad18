//! The disk of the store in a file, and that of the key folder, is full or can only be read.

use super::figures::{Figures, Violation};
use super::load::{Habits, Load};
use super::plan::{Chance, at_last, rounds};
use super::rotation;
use super::support::Mount;
use super::world::World;
use std::path::Path;
use std::time::{Duration, Instant};

/// A disk of its own, small enough to be filled.
struct Disk {
    mount: Mount,
    _place: tempfile::TempDir,
}

impl Disk {
    fn of(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        let mount = Mount::tmpfs(&place.path().join("disk"), &options)?;
        Some(Self {
            mount,
            _place: place,
        })
    }

    fn path(&self, name: &str) -> String {
        self.mount.path().join(name).display().to_string()
    }

    /// Fills it until nothing more goes in.
    fn fill(&self) {
        let ballast = vec![0; 16 << 20];
        assert!(std::fs::write(self.path("ballast"), ballast).is_err());
    }

    fn empty(&self) {
        std::fs::remove_file(self.path("ballast")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_store_loses_nothing_and_stops_no_exchange() {
    let Some(disk) = Disk::of("8m") else {
        return;
    };
    let mut world = World::start(1, |_, replica, _| {
        replica.env("EXCHEQUER_STORE", disk.path("store.redb"))
    })
    .await;
    let mut chance = Chance::new();
    let figures = Figures::new("disk of the store full", chance.seed);
    let habits = Habits {
        remembered: true,
        may_break: true,
        excused: &["store_unavailable"],
        ..Habits::default()
    };
    let load = Load::on(&world, habits, &figures);
    load.minted(10).await;
    for round in 0..rounds(2, 16) {
        disk.fill();
        figures.count().faults += 1;
        // Exchanges of session tokens go on.
        load.minted(30).await;
        chance.wait(Duration::from_millis(500)).await;
        let before = figures.count().revocations;
        disk.empty();
        if round % 2 == 1 {
            // Whoever dies on a full disk comes back with what was answered.
            world.replicas.kill(0).await;
        }
        let began = Instant::now();
        at_last("it remembers again", async || {
            figures.count().revocations > before
        })
        .await;
        figures.recovered(began.elapsed());
        load.check().await;
    }
    load.end().await;
    if !(figures.count().refused).contains_key("503 store_unavailable") {
        figures.violated(Violation::Failed, "the disk was never missed");
    }
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_folder_that_cannot_be_written_stops_the_rotation_and_no_exchange() {
    let Some(disk) = Disk::of("64k") else {
        return;
    };
    let world = World::start(3, |_, replica, _| {
        rotation::quickly(replica).env("EXCHEQUER_KEYS_DIR", disk.path("keys"))
    })
    .await;
    let figures = Figures::new("key folder full and read-only", Chance::new().seed);
    let load = Load::on(&world, rotation::habits(), &figures);
    load.minted(10).await;
    let saved = || std::fs::read(Path::new(&disk.path("keys/ring.json"))).unwrap();
    let mut shift = 0;
    for round in 0..rounds(2, 8) {
        if round % 2 == 0 {
            disk.fill();
        } else {
            disk.mount.remount("ro");
        }
        figures.count().faults += 1;
        let before = saved();
        let failed = failures(&world).await;
        shift += rotation::EVERY + 1;
        world.shift_clocks(shift, shift);
        at_last("the failure is counted at each", async || {
            let now = failures(&world).await;
            now.iter().zip(&failed).all(|(now, failed)| now > failed)
        })
        .await;
        load.minted(10).await;
        load.check().await;
        if saved() != before {
            figures.violated(Violation::Failed, "it was written all the same");
        }
        if round % 2 == 0 {
            disk.empty();
        } else {
            disk.mount.remount("rw");
        }
        let began = Instant::now();
        // A replica that has failed for long looks again after 16 s.
        at_last("the rotation is made up for, by all", async || {
            saved() != before && rotation::agreed(&world, &[], &figures).await.is_some()
        })
        .await;
        figures.recovered(began.elapsed());
        load.minted(10).await;
        load.check().await;
    }
    load.end().await;
    figures.conclude();
}

/// How often each replica has failed to change the ring.
async fn failures(world: &World) -> Vec<f64> {
    let mut failures = Vec::new();
    for service in &world.replicas.services {
        let count = service.metric("exchequer_key_ring_failures_total").await;
        failures.push(count.unwrap());
    }
    failures
}
