//! What docs/scale.md says of rotations is what the simulation of them says: at the defaults no
//! good token is refused by a verifier that ever refreshes, and the simulation can tell.

#[path = "../../examples/exchequer-sim/sim/mod.rs"]
mod sim;

use serde_json::Value;
use std::fs;
use std::path::Path;

fn command(arguments: &[&str]) -> String {
    let words = ["exchequer-sim"].iter().chain(arguments);
    sim::command(words.map(Into::into)).unwrap()
}

/// How many tokens each rule's verifiers refused; hundreds of verifiers, each rule with many.
fn refusals(arguments: &[&str]) -> Vec<(String, bool, u64)> {
    let size = ["--verifiers", "1800", "--json"];
    let row: Value = serde_json::from_str(&command(&[arguments, &size].concat())).unwrap();
    let rules = row["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    rules
        .iter()
        .map(|rule| {
            assert!(rule["shown"].as_u64().unwrap() > 1000, "{rule}");
            (
                rule["rule"].as_str().unwrap().to_owned(),
                rule["refreshes"].as_bool().unwrap(),
                rule["refused"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn of(refusals: &[(String, bool, u64)], name: &str) -> u64 {
    let found = refusals.iter().find(|(rule, ..)| rule == name);
    found.unwrap().2
}

#[test]
fn at_the_defaults_no_verifier_that_refreshes_refuses_a_good_token() {
    for seed in ["1", "2", "3"] {
        let refusals = refusals(&[
            "--publish-ahead",
            "24h",
            "--keep-after",
            "24h",
            "--seed",
            seed,
        ]);
        for (rule, refreshes, refused) in &refusals {
            assert!(
                !refreshes || *refused == 0,
                "{rule}: {refused} with seed {seed}"
            );
        }
    }
}

#[test]
fn a_key_that_signs_before_caches_are_over_is_refused() {
    let at_once = refusals(&["--publish-ahead", "0s"]);
    for rule in ["jose", "Envoy", "jwx v3 cache", "Istio", "AWS HTTP API"] {
        assert!(of(&at_once, rule) > 0, "{rule}");
    }
    let within_the_hour = refusals(&["--publish-ahead", "1h"]);
    assert_eq!(of(&within_the_hour, "Istio"), 0);
    assert!(of(&within_the_hour, "AWS HTTP API") > 0);
}

#[test]
fn a_key_that_goes_before_its_tokens_are_over_is_missed() {
    let kept = refusals(&["--publish-ahead", "24h", "--keep-after", "0s"]);
    assert!(of(&kept, "Hasura") > 0);
    let kept = refusals(&["--publish-ahead", "24h", "--keep-after", "20m"]);
    assert_eq!(of(&kept, "Hasura"), 0);
}

#[test]
fn who_never_asks_again_refuses_until_it_is_restarted() {
    let refusals = refusals(&["--publish-ahead", "24h"]);
    assert!(of(&refusals, "PostgREST, restarted weekly") > 0);
}

#[test]
fn the_page_and_its_picture_are_what_the_command_writes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("scale.md");
    let picture = folder.path().join("rotation.svg");
    fs::copy(docs.join("scale.md"), &page).unwrap();
    command(&[
        "--page",
        page.to_str().unwrap(),
        "--svg",
        picture.to_str().unwrap(),
    ]);
    for (written, committed) in [(page, "scale.md"), (picture, "images/rotation.svg")] {
        let same = fs::read_to_string(written).unwrap()
            == fs::read_to_string(docs.join(committed)).unwrap();
        assert!(same, "docs/{committed} is not current: make sim");
    }
}
