//! The dashboard and the rules speak of metrics that a service really has, and of all that it has.

use crate::support::{Behaviour, Issuer, Key, Service, eventually};
use crate::webhooks::{self, Hook};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What neither the dashboard nor a rule uses, and why.
const NOT_USED: [(&str, &str); 3] = [
    ("exchequer_callers_total", "`exchequer doctor` judges by it"),
    (
        "exchequer_start_time_seconds",
        "`exchequer doctor` counts from it",
    ),
    (
        "exchequer_webhook_last_event_timestamp_seconds",
        "`exchequer doctor` tells it; how often events come differs from app to app",
    ),
];

/// Labels that are not the service's: Prometheus sets them.
const SET_BY_PROMETHEUS: [&str; 3] = ["namespace", "job", "instance"];

/// The metrics of a service that has done a bit of everything: each sample's name, and its labels.
async fn live() -> BTreeMap<String, BTreeSet<String>> {
    let issuer = Issuer::start().await;
    let keys = json!({"keys": [Key::rsa().jwk("ins_1")]});
    issuer.behave("/v1/jwks", Behaviour::Answer(200, keys.to_string()));
    issuer.behave(
        "/v1/sessions/sess_1",
        Behaviour::Answer(500, "{}".to_owned()),
    );
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_SECRET_KEY", "sk_test_scripted")
        .env("CLERK_API_URL", &issuer.url)
        .env("CLERK_WEBHOOK_SIGNING_SECRET", webhooks::SECRET)
        .env("EXCHEQUER_RATE_LIMIT", "5/1m")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .start()
        .await;
    for _ in 0..5 {
        service.session(&issuer.token()).await.token();
    }
    let limited = service.session(&issuer.token()).await;
    limited.assert_refused(429, "rate_limited");
    let ended = webhooks::session_event("session.ended", "sess_9");
    Hook::new("msg_1", &ended).taken(&service, "revoked").await;
    eventually("the provider's API is left alone", async || {
        let body = json!({"session_id": "sess_1"});
        service.exchange(&body).await;
        let text = service.admin("/metrics").await.body;
        let mut lines = text.as_str().unwrap().lines();
        lines
            .any(|line| line.starts_with("exchequer_provider_breaker_open") && line.ends_with(" 1"))
    })
    .await;
    let text = service.admin("/metrics").await.body;
    let mut samples: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.as_str().unwrap().lines() {
        if line.starts_with('#') {
            continue;
        }
        let (name, labels) = selector(line.rsplit_once(' ').unwrap().0);
        let labels = labels.into_iter().map(|(label, _)| label);
        samples.entry(name).or_default().extend(labels);
    }
    samples
}

/// `name{label="value", …}`: the name, and the labels with their values.
fn selector(text: &str) -> (String, Vec<(String, String)>) {
    let Some((name, rest)) = text.split_once('{') else {
        return (text.to_owned(), Vec::new());
    };
    let labels = rest.split_once('}').unwrap().0;
    let labels = labels.split(',').filter(|label| !label.trim().is_empty());
    let labels = labels.map(|label| {
        // Between them is =, !=, =~ or !~.
        let (label, value) = label.split_at(label.find(['=', '!']).unwrap());
        let value = value.trim_start_matches(['=', '!', '~']).trim_matches('"');
        (label.trim().to_owned(), value.to_owned())
    });
    (name.to_owned(), labels.collect())
}

/// The metrics that an expression names, and what it asks of them.
fn asked(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    let word = |each: char| each.is_ascii_alphanumeric() || matches!(each, '_' | ':');
    let mut asked = Vec::new();
    for prefix in ["exchequer_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            // A recorded name (job:exchequer_…) is none of the service's.
            if expression[..at].ends_with(word) {
                continue;
            }
            let rest = &expression[at..];
            let end = rest.find(|each| !word(each)).unwrap_or(rest.len());
            let whole = match rest[end..].strip_prefix('{') {
                Some(labels) => end + 2 + labels.find('}').unwrap(),
                None => end,
            };
            asked.push(selector(&rest[..whole]));
        }
    }
    asked
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The expressions of the dashboard and of the rules.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("dashboards/exchequer.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let mut expressions: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect();
    assert!(expressions.len() > 40);
    // An expression of a rule is a block, deeper than its key.
    let rules = read("dashboards/exchequer.rules.yaml");
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.ends_with("expr: |") {
            continue;
        }
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("          ")) {
            block.push(line.trim());
        }
        assert!(!block.is_empty());
        expressions.push(block.join(" "));
    }
    expressions
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[tokio::test]
async fn each_metric_that_is_asked_for_is_there_and_each_that_is_there_is_asked_for() {
    let live = live().await;
    let mut source = String::new();
    sources(&Path::new(ROOT).join("src"), &mut source);
    let mut used = BTreeSet::new();
    for expression in expressions() {
        for (name, labels) in asked(&expression) {
            let has = live.get(&name);
            let has = has.unwrap_or_else(|| panic!("{name} of {expression}"));
            for (label, values) in labels {
                if SET_BY_PROMETHEUS.contains(&label.as_str()) {
                    continue;
                }
                assert!(has.contains(&label), "{label} of {name} in {expression}");
                for value in values.split('|') {
                    let literal = format!("\"{value}\"");
                    assert!(source.contains(&literal), "{value} in {expression}");
                }
            }
            used.insert(family(&name).to_owned());
        }
    }
    let there: BTreeSet<String> = live.keys().map(|name| family(name).to_owned()).collect();
    let not_used: BTreeSet<String> = NOT_USED.map(|(name, _)| name.to_owned()).into();
    let both: BTreeSet<_> = used.union(&not_used).cloned().collect();
    assert_eq!(there, both);
    assert!(used.is_disjoint(&not_used));
}

/// The name without what OpenMetrics adds to that of a histogram.
fn family(name: &str) -> &str {
    ["_bucket", "_count", "_sum"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

#[test]
fn the_reader_of_expressions_sees_what_it_looks_for() {
    let labels = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        let list = list.iter();
        list.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(
        asked(
            "sum(rate(exchequer_a_total{x=\"1\", y!~\"2|3\"}[5m])) / job:exchequer_b:rate5m unless process_c"
        ),
        [
            (
                "exchequer_a_total".to_owned(),
                labels(&[("x", "1"), ("y", "2|3")])
            ),
            ("process_c".to_owned(), labels(&[])),
        ]
    );
}
