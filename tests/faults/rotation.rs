//! The key rotates with each round, as fast as the replicas notice: no verifier is ever without
//! the key of a token that lives.
//!
//! Four keys are published at most, each for five minutes after it signed, so the replicas' one
//! clock is moved with each rotation. What a verifier holds from the round before must verify
//! what is signed now: the key was published long before.

use super::figures::{Figures, Violation};
use super::load::{Habits, Load};
use super::plan::{Chance, at_last, rounds};
use super::replicas::Replicas;
use super::support::ring::verifies;
use super::support::service::{Answer, Builder};
use super::support::token;
use super::world::World;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A key signs for so long, seconds: with [`KEEP`] a third of it is spent as one of two retired.
pub const EVERY: i64 = 170;
/// Five minutes and the life of a token.
const KEEP: &str = "330s";

/// The key set of a replica.
async fn shown(replicas: &Replicas, index: usize) -> Value {
    let answer: Answer = replicas.services[index].get("/.well-known/jwks.json").await;
    answer.body
}

/// A token of a replica; none where it refuses.
async fn minted(world: &World, index: usize) -> Option<String> {
    let subject = world.provider.token();
    let answer = world.replicas.services[index].session(&subject).await;
    answer.body["token"].as_str().map(str::to_owned)
}

/// What all replicas sign with, where they agree on that and on what they show; and what each
/// of their tokens looks like to whoever still holds these key sets.
pub async fn agreed(
    world: &World,
    held: &[Value],
    figures: &Figures,
) -> Option<(Value, Vec<Value>)> {
    let mut kids = Vec::new();
    let mut sets = Vec::new();
    for index in 0..world.replicas.services.len() {
        let token = minted(world, index).await?;
        let kid = token::header(&token)["kid"].clone();
        for set in held {
            figures.count().verifications += 1;
            if !verifies(&token, set) {
                let seen = format!("{kid} by what was published a round ago");
                figures.violated(Violation::Unverified, seen);
            }
        }
        kids.push(kid);
        sets.push(shown(&world.replicas, index).await);
    }
    let agreed = kids.iter().all(|kid| *kid == kids[0]) && sets.iter().all(|set| *set == sets[0]);
    agreed.then(|| (kids.swap_remove(0), sets))
}

/// A replica that rotates as often as it may, by the clock of all.
pub fn quickly(replica: Builder) -> Builder {
    replica
        .env("EXCHEQUER_KEY_ROTATE_EVERY", format!("{EVERY}s"))
        .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "60s")
        .env("EXCHEQUER_KEY_KEEP_AFTER", KEEP)
        .env("EXCHEQUER_TOKEN_TTL", "30s")
}

pub fn habits() -> Habits {
    Habits {
        // Of a client whose token was under way when the clock was moved.
        excused: &["subject_token_expired"],
        ..Habits::default()
    }
}

/// Moves that clock so many times.
pub async fn rotate(scenario: &'static str, world: World, rounds: u64) {
    let figures = Figures::new(scenario, Chance::new().seed);
    let load = Load::on(&world, habits(), &figures);
    let mut shift = 0;
    let mut now = None;
    at_last("they agree", async || {
        now = agreed(&world, &[], &figures).await;
        now.is_some()
    })
    .await;
    let (mut signer, mut held) = now.unwrap();
    for _ in 0..rounds {
        let began = Instant::now();
        shift += EVERY + 1;
        world.shift_clocks(shift, shift);
        let mut now = None;
        at_last("all sign with the next key", async || {
            now = agreed(&world, &held, &figures).await;
            now.as_ref().is_some_and(|(kid, _)| *kid != signer)
        })
        .await;
        (signer, held) = now.unwrap();
        load.check().await;
        figures.count().faults += 1;
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(began.elapsed())).await;
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_each_second_leaves_no_token_unverified() {
    let world = World::start(3, |_, replica, _| quickly(replica)).await;
    rotate("rotation, key folder", world, rounds(5, 40)).await;
}
