//! The clocks of the replicas are two minutes apart.

use super::figures::Figures;
use super::load::{Habits, Load};
use super::plan::{Chance, rounds};
use super::support::service::Builder;
use super::world::World;
use std::path::PathBuf;
use tempfile::TempDir;

/// How far each replica's clock is off, seconds.
const OFF: [i64; 3] = [-60, 0, 60];

fn clock(shared: &TempDir, index: usize) -> PathBuf {
    shared.path().join(format!("clock{index}"))
}

/// A replica with a clock of its own.
pub fn apart(index: usize, replica: Builder, shared: &TempDir) -> Builder {
    let path = clock(shared, index).display().to_string();
    replica.env("EXCHEQUER_CLOCK_SHIFT_FILE", path)
}

/// With clocks that wander within those bounds, again and again.
pub async fn wander(scenario: &'static str, world: World, habits: Habits, rounds: u64) {
    let mut chance = Chance::new();
    let figures = Figures::new(scenario, chance.seed);
    let load = Load::on(&world, habits, &figures);
    for _ in 0..rounds {
        let first = chance.below(OFF.len());
        for index in 0..OFF.len() {
            let path = clock(&world.shared, index);
            let off = OFF[(first + index) % OFF.len()];
            std::fs::write(path.with_extension("new"), format!("{off} 0")).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }
        figures.count().faults += 1;
        load.minted(20).await;
        load.check().await;
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_two_minutes_apart_spoil_no_token() {
    let world = World::with(3, "clock_skew = \"90s\"", apart).await;
    wander(
        "clocks, key folder",
        world,
        Habits::default(),
        rounds(4, 20),
    )
    .await;
}
