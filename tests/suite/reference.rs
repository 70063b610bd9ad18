//! docs/reference/, docs/errors.md and exchequer.example.env are what the code says, whole.

#[path = "../../examples/reference/pages/mod.rs"]
mod pages;

use exchequer::config::{CLERK_VARIABLES, TRACE_VARIABLES, VARIABLES};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

#[test]
fn each_page_of_the_reference_is_what_the_code_says() {
    for (path, text) in pages::all() {
        assert!(read(path) == text, "{path} lags behind: make reference");
    }
}

#[test]
fn the_reference_has_every_metric_that_is_registered() {
    let source = read("src/telemetry.rs");
    let page = read("docs/reference/metrics.md");
    let mut names = 0;
    let (_, metrics) = source.split_once("let build = ").unwrap();
    for after in metrics.split("metric!(").skip(1) {
        let name = after.split('"').nth(1).unwrap();
        let told = ["", "_seconds", "_bytes"].iter().any(|unit| {
            ["", "_total"]
                .iter()
                .any(|suffix| page.contains(&format!("| `exchequer_{name}{unit}{suffix}` |")))
        });
        assert!(told, "{name}");
        names += 1;
    }
    assert!(names > 40, "{names}");
    assert_eq!(page.matches("\n| `exchequer_").count(), names);
}

/// The texts that the arms of a function give.
fn given<'s>(source: &'s str, function: &str) -> BTreeSet<&'s str> {
    let (before, body) = source.split_once(function).unwrap();
    let line = before.rsplit('\n').next().unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    let (body, _) = body.split_once(&format!("\n{indent}}}\n")).unwrap();
    let arms = body.split("=> ").skip(1);
    arms.filter_map(|arm| {
        arm.trim_start_matches('(')
            .strip_prefix('"')?
            .split('"')
            .next()
    })
    .collect()
}

/// The values of a label that the page tells of a metric.
fn told<'p>(page: &'p str, metric: &str, label: &str) -> BTreeSet<&'p str> {
    let mut rows = page.lines();
    let row = rows
        .find(|row| row.starts_with(&format!("| `{metric}` |")))
        .unwrap_or_else(|| panic!("{metric}"));
    let (_, values) = row.split_once(&format!("`{label}` (")).unwrap();
    let (values, _) = values.split_once(')').unwrap();
    values
        .split(", ")
        .map(|value| value.trim_matches('`'))
        .collect()
}

#[test]
fn the_reference_has_every_value_of_a_bounded_label() {
    let page = read("docs/reference/metrics.md");
    let telemetry = read("src/telemetry.rs");
    let within = |start: &str| telemetry.split_once(start).unwrap().1.to_owned();
    let name = "fn name(self) -> &'static str {";
    for (metric, label, source, function) in [
        ("requests_total", "route", read("src/http/route.rs"), name),
        (
            "requests_total",
            "outcome",
            telemetry.clone(),
            "pub fn ending(",
        ),
        (
            "provider_requests_total",
            "result",
            within("impl ProviderResult {"),
            name,
        ),
        ("requests_shed_total", "reason", within("impl Shed {"), name),
        (
            "connections_cut_total",
            "reason",
            within("impl Cut {"),
            name,
        ),
        (
            "rate_limited_total",
            "bucket",
            read("src/policy/limits.rs"),
            name,
        ),
        (
            "webhook_events_total",
            "result",
            read("src/webhooks.rs"),
            name,
        ),
        (
            "key_ring_info",
            "place",
            read("src/keys/keeper.rs"),
            "fn name(&self) -> &'static str {",
        ),
        ("signing_key_info", "state", read("src/keys/ring.rs"), name),
        (
            "redis_breaker_openings_total",
            "cause",
            read("src/redis_client/link.rs"),
            name,
        ),
    ] {
        let given = given(&source, function);
        assert!(given.len() > 1, "{metric}: {given:?}");
        assert_eq!(
            told(&page, &format!("exchequer_{metric}"), label),
            given,
            "{metric}"
        );
    }
}

#[test]
fn no_variable_is_told_twice_and_none_without_a_meaning() {
    let all = [VARIABLES, CLERK_VARIABLES, TRACE_VARIABLES];
    let all: Vec<_> = all.into_iter().flatten().collect();
    let mut names: Vec<&str> = all.iter().map(|variable| variable.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for variable in all {
        assert!(
            !variable.default.is_empty() && !variable.meaning.is_empty(),
            "{}",
            variable.name
        );
    }
}
