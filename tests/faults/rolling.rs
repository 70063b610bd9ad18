//! All replicas are replaced, one after the other, and no client notices.

use super::figures::Figures;
use super::load::{Habits, Load};
use super::plan::{Chance, rounds};
use super::world::World;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_request() {
    let mut world = World::start(3, |_, replica, _| {
        // Longer than the balancer takes to see the probe, and a client to ask again.
        replica.env("EXCHEQUER_SHUTDOWN_DELAY", "1s")
    })
    .await;
    let chance = Chance::new();
    let figures = Figures::new("rolling restart", chance.seed);
    let habits = Habits {
        clients: 8,
        http2: true,
        rest: Duration::from_millis(10),
        ..Habits::default()
    };
    let load = Load::on(&world, habits, &figures);
    load.minted(20).await;
    for _ in 0..rounds(2, 50) {
        for index in 0..world.replicas.services.len() {
            world.replicas.replace(index).await;
            figures.count().faults += 1;
        }
        load.check().await;
    }
    load.end().await;
    figures.conclude();
}
