//! Replicas are killed (SIGKILL) at random moments: what was answered stays true, and whoever is
//! left serves.

use super::figures::Figures;
use super::load::{Habits, Load};
use super::plan::{Chance, rounds};
use super::world::World;
use std::time::Duration;

/// The clients' connections to the killed one break; nothing else may happen to them.
pub async fn kill_at_random(scenario: &'static str, mut world: World, habits: Habits, kills: u64) {
    let mut chance = Chance::new();
    let figures = Figures::new(scenario, chance.seed);
    let load = Load::on(&world, habits, &figures);
    load.minted(5).await;
    for round in 1..=kills {
        chance.wait(Duration::from_millis(200)).await;
        let index = chance.below(world.replicas.services.len());
        world.replicas.kill(index).await;
        figures.count().faults += 1;
        if round % 25 == 0 {
            load.check().await;
        }
    }
    load.minted(5).await;
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_missed_by_nobody_but_its_connections() {
    let world = World::start(3, |_, replica, _| replica).await;
    let habits = Habits {
        may_break: true,
        ..Habits::default()
    };
    kill_at_random("kill -9, key folder", world, habits, rounds(6, 100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_remembers_survives_kills() {
    let world = World::start(1, |_, replica, shared| {
        let store = shared.path().join("store.redb").display().to_string();
        replica.env("EXCHEQUER_STORE", store)
    })
    .await;
    let habits = Habits {
        remembered: true,
        may_break: true,
        ..Habits::default()
    };
    kill_at_random("kill -9, store in a file", world, habits, rounds(6, 100)).await;
}
