//! What exchanges cost, from one a second to a million: arithmetic over `benches/scale.json`,
//! which `benches/scale.py` and `benches/run.py` measured.

use super::report::spaced;
use serde::Deserialize;
use std::fmt::Write as _;

const FIGURES: &str = include_str!("../../../benches/scale.json");
/// How busy a core may be in the mean: the rest is for peaks, and for a zone that is lost.
const BUSY: f64 = 0.6;
/// So few survive the loss of one during a deployment.
const LEAST_REPLICAS: f64 = 3.0;
/// Of a replica, where three of one core each are not enough.
const CORES: f64 = 4.0;
/// A bucket in Redis lives until it is full, and ten seconds (`bucket.lua`): after one of 120 a
/// minute 10.5 s, after one of 1,200 a minute 10.05 s.
const BUCKET_SECONDS: f64 = 10.5 + 10.05;
const RATES: [f64; 4] = [1.0, 1e2, 1e4, 1e6];
const VERIFIERS: [f64; 4] = [1e3, 1e4, 1e5, 1e6];
/// How often a verifier asks for the key set: its `max-age`, seconds.
const REFRESH: f64 = 300.0;
const DAY: f64 = 86_400.0;

#[derive(Deserialize)]
struct File {
    machine: String,
    figures: Vec<Figure>,
}

#[derive(Deserialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    what: String,
    from: String,
}

/// The figures and the tables that are computed from them.
pub struct Scale(File);

impl Scale {
    /// As they are committed.
    pub fn read() -> Result<Self, String> {
        serde_json::from_str(FIGURES)
            .map(Self)
            .map_err(|error| format!("benches/scale.json: {error}"))
    }

    fn get(&self, name: &str) -> f64 {
        // A figure that is missing shows in every cell that needs it.
        let found = self.0.figures.iter().find(|figure| figure.name == name);
        found.map_or(f64::NAN, |figure| figure.value)
    }

    /// What was measured, and by what.
    pub fn figures(&self) -> String {
        let mut text = format!("On {}:\n\n", self.0.machine);
        text.push_str("| figure | what | value | measured by |\n| --- | --- | --- | --- |\n");
        for figure in &self.0.figures {
            let Figure {
                name,
                value,
                unit,
                what,
                from,
            } = figure;
            let _ = writeln!(text, "| `{name}` | {what} | {value} {unit} | {from} |");
        }
        text
    }

    /// Busy cores of replicas, at this many exchanges a second.
    fn replica_cores(&self, rate: f64) -> f64 {
        rate * self.get("exchange_us") / self.get("redis_share") / 1e6
    }

    /// Exchanges a second that one store can answer: what must change together shares a slot,
    /// which is one thread of one server.
    fn of_one_store(&self) -> f64 {
        BUSY * 1e6 / self.get("redis_mget_us")
    }

    /// How many replicas, and of how many cores.
    fn replicas(&self, rate: f64) -> (f64, f64) {
        let cores = self.replica_cores(rate) / BUSY;
        if cores <= LEAST_REPLICAS {
            (LEAST_REPLICAS, 1.0)
        } else {
            ((cores / CORES).ceil().max(LEAST_REPLICAS), CORES)
        }
    }

    /// What so many exchanges a second need.
    pub fn costs(&self) -> String {
        let redis_cores = |rate: f64| rate * self.get("redis_us") / 1e6;
        let primaries = |rate: f64| (redis_cores(rate) / BUSY).ceil();
        let stores = |rate: f64| (rate / self.of_one_store()).ceil();
        let buckets = |rate: f64| rate * BUCKET_SECONDS * self.get("redis_bucket_bytes");
        let memory = |rate: f64| self.replicas(rate).0 * self.get("resident_mib") * 1_048_576.0;
        let wire = self.get("exchange_in_bytes") + self.get("exchange_out_bytes");
        let to_redis = self.get("redis_in_bytes") + self.get("redis_out_bytes");
        let a_day = |name: &str, rate: f64| bytes(rate * self.get(name) * DAY);
        let mut text = row("exchanges a second", |rate| spaced(round(rate)));
        text.push_str(&"| --- ".repeat(RATES.len() + 1));
        text.push_str("|\n");
        text += &row("cores that replicas keep busy", |rate| {
            number(self.replica_cores(rate))
        });
        text += &row("replicas × cores", |rate| {
            let (replicas, cores) = self.replicas(rate);
            format!("{replicas} × {cores}")
        });
        text += &row("cores that Redis keeps busy", |rate| {
            number(redis_cores(rate))
        });
        text += &row("commands to Redis, a second", |rate| {
            spaced(round(3.0 * rate))
        });
        text += &row("Redis primaries", |rate| number(primaries(rate)));
        let most = spaced(round(self.of_one_store()));
        text += &row(&format!("stores, of {most} a second at most"), |rate| {
            number(stores(rate))
        });
        text += &row("to and from Redis, a second", |rate| bytes(rate * to_redis));
        text += &row("to and from clients, a second", |rate| bytes(rate * wire));
        text += &row("to clients, a day", |rate| {
            a_day("exchange_out_bytes", rate)
        });
        text += &row("log, a day", |rate| a_day("log_bytes", rate));
        text += &row("audit log, a day", |rate| a_day("audit_bytes", rate));
        text += &row("**cores to pay for**", |rate| {
            let (replicas, cores) = self.replicas(rate);
            number(replicas * cores + 2.0 * primaries(rate))
        });
        text += &row("**memory to pay for**", |rate| {
            bytes(memory(rate) + 2.0 * buckets(rate))
        });
        text
    }

    /// What is held in memory, and for how many.
    pub fn memory(&self) -> String {
        let mib = self.get("revocations_mib") * 1_048_576.0 / 1e5;
        let connection = |figure| self.get(figure) * 1024.0;
        let bucket = self.get("redis_bucket_bytes");
        let held = [
            (
                "an idle connection over HTTP/1.1",
                "the replica",
                connection("connection_kib"),
            ),
            (
                "an idle connection over HTTP/2",
                "the replica",
                connection("connection_framed_kib"),
            ),
            ("a revocation", "a replica that holds it", mib),
            ("a revocation", "Redis", self.get("redis_revocation_bytes")),
            (
                "a bucket: two for each exchange of the last ten seconds",
                "Redis",
                bucket,
            ),
            (
                "a place of the status list",
                "Redis",
                self.get("redis_place_bytes"),
            ),
        ];
        let mut text = String::from(
            "| what | where | each | 10 000 | 1 000 000 |\n| --- | --- | --- | --- | --- |\n",
        );
        for (what, place, each) in held {
            let [one, many, most] = [1.0, 1e4, 1e6].map(|count| bytes(count * each));
            let _ = writeln!(text, "| {what} | {place} | {one} | {many} | {most} |");
        }
        text
    }

    /// What the key set costs, each verifier asking by itself.
    pub fn key_sets(&self) -> String {
        let mut text = String::from(
            "| verifiers | answers a second | bytes a second | cores |\n| --- | --- | --- | --- |\n",
        );
        for verifiers in VERIFIERS {
            let rate = verifiers / REFRESH;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                spaced(round(verifiers)),
                number(rate),
                bytes(rate * self.get("jwks_bytes")),
                number(rate * self.get("jwks_us") / 1e6),
            );
        }
        text
    }
}

fn row(what: &str, cell: impl Fn(f64) -> String) -> String {
    let cells: Vec<String> = RATES.iter().map(|rate| cell(*rate)).collect();
    format!("| {what} | {} |\n", cells.join(" | "))
}

fn round(number: f64) -> u64 {
    number.round() as u64
}

/// Two digits that mean something.
fn number(number: f64) -> String {
    if number >= 10.0 || number.fract() == 0.0 {
        return spaced(round(number));
    }
    let places = (1..8).find(|places| number * 10_f64.powi(*places) >= 10.0);
    let places = places.and_then(|places| usize::try_from(places).ok());
    format!("{number:.*}", places.unwrap_or(8))
}

fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1000.0 && unit + 1 < units.len() {
        count /= 1000.0;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    if count < 10.0 {
        format!("{count:.1} {unit}")
    } else {
        format!("{count:.0} {unit}")
    }
}
