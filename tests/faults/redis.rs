//! The Redis that the replicas share is stopped, frozen, emptied, replaced; and replicas are
//! killed, rotate and disagree on the time while they share it.

use super::clocks::{apart, wander};
use super::figures::{Figures, Violation};
use super::kills::kill_at_random;
use super::load::{Habits, Load};
use super::plan::{Chance, at_last, rounds};
use super::rolling;
use super::rotation;
use super::support::Redis;
use super::support::redis::Sentinels;
use super::support::service::Builder;
use super::world::World;
use std::time::{Duration, Instant};

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// How long a store that is there again may take until it is trusted.
const PATIENCE: Duration = Duration::from_secs(20);

/// A replica that shares this Redis, and nothing else.
fn sharing(replica: Builder, url: &str) -> Builder {
    replica
        .env("EXCHEQUER_STORE", url)
        .env("EXCHEQUER_KEYS_DIR", "keys")
        .env("EXCHEQUER_KEYS_SECRET", SECRET)
}

async fn world(url: &str) -> World {
    World::start(3, |_, replica, _| sharing(replica, url)).await
}

/// Where it is not Redis that fails, a machine that is busy with other things is no fault.
fn unhurried(redis: &Redis) -> String {
    format!("{}?deadline=2s", redis.url())
}

fn habits() -> Habits {
    Habits {
        remembered: true,
        ..Habits::default()
    }
}

/// The same, while the store may be away: each question costs its deadline and no more.
fn patient() -> Habits {
    Habits {
        excused: &["store_unavailable"],
        deadline: Duration::from_secs(5),
        ..habits()
    }
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Stopped,
    Killed,
    Frozen,
    Flushed,
    Emptied,
    /// Frozen until another server has taken its place.
    Replaced,
    /// Told to leave its place to another.
    Deposed,
}

impl Fault {
    /// Whether it takes what was remembered, or may have: session ids of sessions that began
    /// before are then refused, for nobody knows which were used.
    fn forgets(self) -> bool {
        !matches!(self, Self::Stopped | Self::Killed | Self::Frozen)
    }
}

/// Waits until something is remembered again: that a session was revoked, and that a session id
/// was used, except where those are refused for a minute.
async fn remembers(load: &Load, figures: &Figures, after: Fault) {
    let remembered = || {
        let counts = figures.count();
        (counts.revocations, counts.single_uses)
    };
    let (revocations, uses) = remembered();
    let began = Instant::now();
    loop {
        let now = remembered();
        if now.0 > revocations && (now.1 > uses || after.forgets()) {
            break;
        }
        if began.elapsed() > PATIENCE {
            let seen = format!("nothing was remembered for {PATIENCE:?} after {after:?}");
            return figures.violated(Violation::Failed, seen);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    figures.recovered(began.elapsed());
    load.store_is_back();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_frozen_or_emptied_costs_no_token_and_no_memory() {
    let redis = Redis::start().await;
    let world = world(&redis.url()).await;
    let mut chance = Chance::new();
    let figures = Figures::new("Redis stopped, killed, frozen, emptied", chance.seed);
    let load = Load::on(&world, patient(), &figures);
    load.minted(20).await;
    // What forgets comes last: session ids are refused for a minute then.
    let rounds = usize::try_from(rounds(1, 4)).unwrap();
    let keep = [Fault::Stopped, Fault::Killed, Fault::Frozen].repeat(rounds);
    let forget = [Fault::Flushed, Fault::Emptied].repeat(rounds);
    for fault in keep.into_iter().chain(forget) {
        figures.count().faults += 1;
        load.store_is_away();
        match fault {
            Fault::Stopped => redis.stop(),
            Fault::Killed | Fault::Emptied => redis.kill(),
            Fault::Frozen => redis.freeze(),
            _ => redis.flush(),
        }
        // Exchanges of session tokens go on.
        load.minted(20).await;
        chance.wait(Duration::from_millis(500)).await;
        load.check_tokens().await;
        match fault {
            Fault::Stopped | Fault::Killed => redis.run().await,
            Fault::Emptied => redis.run_empty().await,
            Fault::Frozen => redis.thaw(),
            _ => {}
        }
        remembers(&load, &figures, fault).await;
        load.check_when_known().await;
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_freezes_or_is_deposed_costs_no_token_and_no_memory() {
    let primary = Redis::start().await;
    let port = primary.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinels = Sentinels::of(&primary, "").await;
    sentinels.know_each_other(None).await;
    // A change is answered when the replica has it too: or a failover could lose it.
    let world = world(&format!("{}?replicas=1", sentinels.url())).await;
    let figures = Figures::new("Redis fails over", Chance::new().seed);
    let load = Load::on(&world, patient(), &figures);
    load.minted(20).await;
    let servers = [&primary, &replica];
    for round in 0..rounds(1, 8) {
        figures.count().faults += 1;
        load.store_is_away();
        let leads = |server: &&&Redis| server.ask(&["ROLE"]).starts_with("master");
        let leader = *servers.iter().find(leads).unwrap();
        let fault = if round % 2 == 0 {
            leader.freeze();
            Fault::Replaced
        } else {
            sentinels.fail_over();
            Fault::Deposed
        };
        load.minted(20).await;
        at_last("the other one leads", async || {
            let others = servers
                .iter()
                .filter(|server| server.port() != leader.port());
            others
                .into_iter()
                .any(|other| other.ask(&["ROLE"]).starts_with("master"))
        })
        .await;
        load.check_tokens().await;
        if fault == Fault::Replaced {
            leader.thaw();
        }
        // Until it follows, there is nobody who could have a change too.
        at_last("the deposed one follows", async || {
            leader
                .ask(&["INFO", "replication"])
                .contains("master_link_status:up")
        })
        .await;
        remembers(&load, &figures, fault).await;
        load.check_when_known().await;
        sentinels.know_each_other(None).await;
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_share_a_redis_are_killed_at_random() {
    let redis = Redis::start().await;
    let world = world(&unhurried(&redis)).await;
    let habits = Habits {
        may_break: true,
        ..habits()
    };
    kill_at_random("kill -9, Redis", world, habits, rounds(6, 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_replicas_that_share_a_redis_fails_no_request() {
    let redis = Redis::start().await;
    let url = unhurried(&redis);
    let world = World::start(3, |_, replica, _| {
        rolling::patiently(sharing(replica, &url))
    })
    .await;
    rolling::restart("rolling restart, Redis", world, rounds(1, 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_in_redis_rotates_each_second_and_leaves_no_token_unverified() {
    let redis = Redis::start().await;
    let url = unhurried(&redis);
    let world = World::start(3, |_, replica, _| rotation::quickly(sharing(replica, &url))).await;
    rotation::rotate("rotation, Redis", world, rounds(5, 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_share_a_redis_may_be_two_minutes_apart() {
    let redis = Redis::start().await;
    let url = unhurried(&redis);
    let world = World::with(3, "clock_skew = \"90s\"", |index, replica, shared| {
        apart(index, sharing(replica, &url), shared)
    })
    .await;
    wander("clocks, Redis", world, habits(), rounds(4, 20)).await;
}
