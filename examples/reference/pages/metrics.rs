//! `docs/reference/metrics.md`: every metric that the service tells. A metric whose labels have no
//! value yet is not told; so each is given one here, of bounded labels all that there are, and
//! `tests/suite/reference.rs` compares these with the code that gives them.

use super::GENERATED;
use exchequer::telemetry::{Cut, KeyInfo, Load, Metrics, ProviderResult, Shed};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Stands for any value of a label.
const ANY: &str = "…";

/// One metric.
#[derive(Default)]
struct Family {
    kind: String,
    unit: String,
    help: String,
    /// By name, the values that were seen.
    labels: BTreeMap<String, Vec<String>>,
}

/// The page.
pub(super) fn page() -> String {
    let mut text = format!(
        "# Metrics\n\n{GENERATED}\n\nAt `/metrics` of the [admin listener](../http.md#the-admin-listener), OpenMetrics text. What to watch: [operating](../operating.md), [alerts](../observability.md#alerts). Those of the process itself, `process_…`, are told on Linux alone.\n\n| name | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n"
    );
    for (name, family) in families(&sample()) {
        let suffix = if family.kind == "counter" {
            "_total"
        } else {
            ""
        };
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|(label, values)| match &values[..] {
                [] | [_] => format!("`{label}`"),
                _ => format!("`{label}` (`{}`)", values.join("`, `")),
            })
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{name}{suffix}` | {} | {} | {} | {} |",
            family.kind,
            family.unit,
            labels.join(", "),
            family.help.trim_end_matches('.')
        );
    }
    text
}

/// What a service tells in which everything has happened once.
fn sample() -> String {
    let metrics = Metrics::default();
    let once = Duration::from_millis(1);
    for outcome in ["ok", "refused", "failed"] {
        for route in [
            "exchange",
            "verify",
            "token",
            "introspect",
            "revoke",
            "jwks",
            "metadata",
            "status_list",
            "openapi",
            "health",
            "login",
            "callback",
            "webhooks",
            "other",
        ] {
            metrics.request_ended(route, outcome, ANY, once);
        }
    }
    for bucket in ["subject", "address"] {
        metrics.rate_limited(bucket);
    }
    for reason in [Cut::Head, Cut::Request, Cut::Answer, Cut::Idle] {
        metrics.connection_cut(reason);
    }
    for reason in [Shed::Delay, Shed::Concurrency, Shed::Bodies] {
        metrics.shed(reason);
    }
    metrics.loaded(Load {
        at_work: 0,
        waiting: 0,
        bodies: 0,
    });
    for well in [true, false] {
        metrics.key_set_fetched(ANY, well);
    }
    for result in [
        ProviderResult::Ok,
        ProviderResult::NotFound,
        ProviderResult::KeyRefused,
        ProviderResult::RateLimited,
        ProviderResult::Refused,
        ProviderResult::Error,
        ProviderResult::NotAsked,
    ] {
        metrics.provider_asked(ANY, result);
    }
    metrics.provider_breaker(ANY, false);
    for result in ["revoked", "recorded", "ignored", "repeated"] {
        metrics.webhook_taken(&[ANY.to_owned()], ANY, result);
    }
    for result in ["exported", "failed", "dropped"] {
        metrics.spans(result, 1);
    }
    for place in ["folder", "redis", "mounted", "memory"] {
        metrics.key_ring_place(place);
    }
    let keys = ["ES256", "RS256", "EdDSA"].into_iter().flat_map(|alg| {
        ["next", "active", "retired"].map(|state| KeyInfo {
            kid: ANY.to_owned(),
            alg,
            state,
            signs_at: Some(0),
        })
    });
    metrics.render(keys, 0, [(ANY.to_owned(), 0.0)].into_iter())
}

/// The metrics of an OpenMetrics text, in its order.
fn families(text: &str) -> Vec<(String, Family)> {
    let mut all: Vec<(String, Family)> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match (&words[..], all.last_mut()) {
            (["#", "HELP", name, help], _) => all.push((
                (*name).to_owned(),
                Family {
                    help: (*help).to_owned(),
                    ..Family::default()
                },
            )),
            (["#", "TYPE", _, kind], Some((_, family))) => family.kind = (*kind).to_owned(),
            (["#", "UNIT", _, unit], Some((_, family))) => family.unit = (*unit).to_owned(),
            (["#", ..], _) => {}
            (_, Some((_, family))) => labels(line, family),
            (_, None) => {}
        }
    }
    all
}

/// Adds the labels of a line.
fn labels(line: &str, family: &mut Family) {
    let Some((_, rest)) = line.split_once('{') else {
        return;
    };
    let inner = rest.split_once('}').map_or(rest, |(inner, _)| inner);
    for pair in inner.split(',') {
        if let Some((label, value)) = pair.split_once('=')
            && label != "le"
        {
            let values = family.labels.entry(label.to_owned()).or_default();
            let value = value.trim_matches('"').to_owned();
            // Nobody can list what stands for any.
            if value != ANY && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    for values in family.labels.values_mut() {
        values.sort();
    }
}
