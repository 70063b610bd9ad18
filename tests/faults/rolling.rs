//! All replicas are replaced, one after the other, and no client notices.

use super::figures::Figures;
use super::load::{Habits, Load};
use super::plan::{Chance, rounds};
use super::support::service::Builder;
use super::world::World;
use std::time::Duration;

/// A replica that serves on for longer than the balancer takes to see its probe, and a client to
/// ask again.
pub fn patiently(replica: Builder) -> Builder {
    replica.env("EXCHEQUER_SHUTDOWN_DELAY", "1s")
}

/// Half of the clients speak HTTP/2. Nothing that happens to them is excused.
pub async fn restart(scenario: &'static str, mut world: World, rounds: u64) {
    let figures = Figures::new(scenario, Chance::new().seed);
    let habits = Habits {
        clients: 8,
        http2: true,
        rest: Duration::from_millis(10),
        ..Habits::default()
    };
    let load = Load::on(&world, habits, &figures);
    load.minted(20).await;
    for _ in 0..rounds {
        for index in 0..world.replicas.services.len() {
            world.replicas.replace(index).await;
            figures.count().faults += 1;
        }
        load.check().await;
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_request() {
    let world = World::start(3, |_, replica, _| patiently(replica)).await;
    restart("rolling restart, key folder", world, rounds(2, 10)).await;
}
