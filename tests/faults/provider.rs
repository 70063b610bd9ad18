//! The provider is dead, slow, or lies.

use super::figures::{Figures, Violation};
use super::load::{Habits, Load};
use super::plan::{Chance, at_last, rounds};
use super::support::issuer::{DISCOVERY, JWKS};
use super::support::{Behaviour, Key};
use super::world::World;
use serde_json::json;
use std::time::{Duration, Instant};

/// Ways in which a provider does not serve its key set.
fn misbehaviours() -> Vec<Behaviour> {
    let other = json!({"keys": [Key::other_rsa().jwk("of somebody else")]});
    vec![
        Behaviour::Close,
        Behaviour::Stall,
        Behaviour::Drip,
        Behaviour::Late(Duration::from_secs(20)),
        Behaviour::Answer(500, "{}".to_owned()),
        Behaviour::Answer(200, "<html>maintenance</html>".to_owned()),
        Behaviour::Answer(200, "{\"keys\":[]}".to_owned()),
        Behaviour::Answer(503, other.to_string()),
        Behaviour::Redirect("http://127.0.0.1:1/keys".to_owned()),
        Behaviour::Flood(64 * 1024 * 1024),
        Behaviour::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_misbehaves_is_not_missed_while_its_keys_are_known() {
    let world = World::start(3, |_, replica, _| replica).await;
    let chance = Chance::new();
    let figures = Figures::new("provider misbehaves, its keys known", chance.seed);
    let load = Load::on(&world, Habits::default(), &figures);
    load.minted(20).await;
    let mut monotonic = 0;
    let ways = misbehaviours();
    let rounds = usize::try_from(rounds(3, 22)).unwrap();
    for behaviour in ways.iter().cycle().take(rounds) {
        for path in [JWKS, DISCOVERY] {
            world.provider.plain.behave(path, behaviour.clone());
        }
        let plain = &world.provider.plain;
        let asked = || plain.asked(JWKS) + plain.asked(DISCOVERY);
        let before = asked();
        // Every set is due to be fetched anew.
        monotonic += 700;
        world.shift_clocks(0, monotonic);
        at_last("it is asked again", async || asked() > before).await;
        load.minted(20).await;
        figures.count().faults += 1;
        for path in [JWKS, DISCOVERY] {
            world.provider.plain.behave(path, Behaviour::Well);
        }
    }
    load.end().await;
    figures.conclude();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_without_the_provider_says_so_soon_and_serves_once_it_is_back() {
    let mut world = World::start(3, |_, replica, _| replica).await;
    let chance = Chance::new();
    let figures = Figures::new("provider gone at the start", chance.seed);
    let habits = Habits {
        clients: 3,
        may_break: true,
        excused: &["issuer_keys_unavailable"],
        ..Habits::default()
    };
    let load = Load::on(&world, habits, &figures);
    load.minted(20).await;
    for round in 0..rounds(1, 6) {
        if round % 2 == 0 {
            world.provider.plain.vanish();
        } else {
            world.provider.plain.behave(JWKS, Behaviour::Stall);
        }
        world.replicas.kill(0).await;
        figures.count().faults += 1;
        // The one that knows no key, asked itself.
        let began = Instant::now();
        let answer = world.replicas.services[0]
            .session(&world.provider.token())
            .await;
        if answer.status != 503 || answer.header("retry-after").is_empty() {
            figures.violated(Violation::Failed, &answer.body);
        }
        figures.answered(began.elapsed());
        load.minted(20).await;
        if round % 2 == 0 {
            world.provider.plain.come_back().await;
        } else {
            world.provider.plain.behave(JWKS, Behaviour::Well);
        }
        at_last("it serves by itself", async || {
            let token = world.provider.token();
            world.replicas.services[0].session(&token).await.status == 200
        })
        .await;
    }
    load.end().await;
    figures.conclude();
}
