//! The `OTEL_*` variables: where traces go, which, and how many wait.
//!
//! What is wrong here is a note and never stops the start, as OpenTelemetry has it ("Environment
//! Variable Specification"): these variables are often set for all services of a cluster, and
//! nobody is to be turned away because nobody watches.

use super::Findings;
use super::env::{Variable, variable};
use super::value::suggest;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use url::Url;

/// Every `OTEL_*` variable that has an effect.
pub const TRACE_VARIABLES: &[Variable] = &[
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "none: no traces",
        "base URL of the collector; `/v1/traces` is added",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "none",
        "the whole URL for traces, in the place of the one before",
    ),
    variable(
        "OTEL_TRACES_EXPORTER",
        "otlp where an endpoint is set",
        "otlp, then without an endpoint to http://localhost:4318; or none",
    ),
    variable(
        "OTEL_SDK_DISABLED",
        "false",
        "true turns all of it off, whatever else is set",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/protobuf",
        "http/protobuf alone; with another no traces are exported",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "none",
        "the same for traces alone",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "none",
        "secret; headers of each export, `name=value`, comma separated, percent-encoded",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "none",
        "secret; the same for traces alone",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10000",
        "milliseconds of one export, 1 to 60000",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "none",
        "the same for traces alone",
    ),
    variable(
        "OTEL_SERVICE_NAME",
        "exchequer",
        "`service.name` of the traces",
    ),
    variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        "none",
        "attributes of this process, `name=value`, comma separated, percent-encoded",
    ),
    variable(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "always_on, always_off, traceidratio, or one of these after parentbased_",
    ),
    variable(
        "OTEL_TRACES_SAMPLER_ARG",
        "1",
        "the share that traceidratio keeps, 0 to 1",
    ),
    variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        "5000",
        "milliseconds that a span waits for others at most, 1 to 60000",
    ),
    variable(
        "OTEL_BSP_EXPORT_TIMEOUT",
        "30000",
        "milliseconds of one export and its repetitions, 1 to 60000",
    ),
    variable(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "2048",
        "spans that wait, 1 to 65536; more are dropped and counted",
    ),
    variable(
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "512",
        "spans of one export, 1 to the queue's size",
    ),
];

/// Those of them that are secrets, and may be given as `NAME_FILE`.
const SECRETS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whether the caller's decision counts, where it made one.
    pub by_parent: bool,
    /// The share of the others that is kept, 0 to 1.
    pub share: f64,
}

/// Where traces go, which, and how many wait.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector's URL for traces.
    pub endpoint: Url,
    /// Headers of each export.
    pub headers: Vec<(String, SecretString)>,
    /// One export.
    pub timeout: Duration,
    /// One export and its repetitions.
    pub patience: Duration,
    /// `service.name`.
    pub service_name: String,
    /// Further attributes of this process.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampling: Sampling,
    /// How long a span waits for others at most.
    pub delay: Duration,
    /// How many spans wait at most.
    pub queue: usize,
    /// How many are exported at once.
    pub batch: usize,
}

/// Whether it may be given as `NAME_FILE`.
pub(super) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// Reads the `OTEL_*` variables; `None` where no traces are exported.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Option<TraceSettings> {
    let mut reader = Reader {
        variables,
        findings,
    };
    reader.name_others();
    let wanted = reader.is_wanted();
    let endpoint = reader.endpoint();
    let protocol = reader.speaks_protobuf();
    let (queue, batch) = reader.sizes();
    let headers = reader.headers();
    let timeout = reader.of_traces("OTEL_EXPORTER_OTLP_TIMEOUT", |reader, name| {
        reader.millis(name, 10_000)
    });
    let patience = reader.millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000);
    let resource = reader.resource();
    let sampling = reader.sampling();
    let delay = reader.millis("OTEL_BSP_SCHEDULE_DELAY", 5000);
    let named = resource.iter().find(|(name, _)| name == "service.name");
    let settings = TraceSettings {
        endpoint: endpoint?,
        service_name: reader
            .get("OTEL_SERVICE_NAME")
            .or_else(|| named.map(|(_, value)| value.clone()))
            .unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()),
        headers,
        timeout,
        patience,
        resource,
        sampling,
        delay,
        queue,
        batch,
    };
    (wanted && protocol).then_some(settings)
}

/// Where a collector is by custom.
const LOCAL: &str = "http://localhost:4318";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const OWN_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

struct Reader<'r> {
    variables: &'r BTreeMap<String, String>,
    findings: &'r mut Findings,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    /// The name that counts: that for traces alone, where it is set.
    fn of_traces<T>(&mut self, name: &str, read: impl FnOnce(&mut Self, &str) -> T) -> T {
        let own = name.replace("OTLP_", "OTLP_TRACES_");
        let name = if self.variables.contains_key(&own) {
            &own
        } else {
            name
        };
        read(self, name)
    }

    /// Names what is set and has no effect.
    fn name_others(&mut self) {
        let known: Vec<&str> = TRACE_VARIABLES.iter().map(|each| each.name).collect();
        for (name, text) in self.variables {
            if !name.starts_with("OTEL_") || known.contains(&name.as_str()) {
                continue;
            }
            let words = || text.split(',').map(str::trim);
            let message = match name.as_str() {
                "OTEL_PROPAGATORS" if words().any(|word| word == "tracecontext") => continue,
                "OTEL_PROPAGATORS" => "has no effect: traces go by `traceparent` alone".to_owned(),
                "OTEL_EXPORTER_OTLP_CERTIFICATE" | "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE" => {
                    "has no effect: the system's CAs are trusted, or those of SSL_CERT_FILE"
                        .to_owned()
                }
                "OTEL_EXPORTER_OTLP_COMPRESSION" | "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"
                    if text == "none" =>
                {
                    continue;
                }
                _ => format!("has no effect{}", suggest(name, &known)),
            };
            self.findings.note(name, message);
        }
    }

    fn is_wanted(&mut self) -> bool {
        if let Some(text) = self.get("OTEL_SDK_DISABLED") {
            if text.eq_ignore_ascii_case("true") {
                return false;
            }
            if !text.eq_ignore_ascii_case("false") {
                let message = format!("{text:?} is neither true nor false, and taken for false");
                self.findings.note("OTEL_SDK_DISABLED", message);
            }
        }
        match self.get("OTEL_TRACES_EXPORTER").as_deref() {
            None => [ENDPOINT, OWN_ENDPOINT]
                .iter()
                .any(|name| self.variables.contains_key(*name)),
            Some("otlp") => true,
            Some("none") => false,
            Some(text) => {
                let message = format!("{text:?} is neither otlp nor none: no traces are exported");
                self.findings.note("OTEL_TRACES_EXPORTER", message);
                false
            }
        }
    }

    /// Where traces go; nowhere where what is named is no place.
    fn endpoint(&mut self) -> Option<Url> {
        let (name, text) = match (self.get(OWN_ENDPOINT), self.get(ENDPOINT)) {
            (Some(text), _) => (OWN_ENDPOINT, text),
            (None, text) => (ENDPOINT, text.unwrap_or_else(|| LOCAL.to_owned())),
        };
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let Some(mut url) = url else {
            // It may name a password: it is not shown.
            self.findings.note(
                name,
                "is no http or https URL, or names a user: no traces are exported; write http://collector:4318, and what proves you in OTEL_EXPORTER_OTLP_HEADERS",
            );
            return None;
        };
        if url.port() == Some(4317) {
            self.findings.note(
                name,
                "names port 4317, by custom that of gRPC; http/protobuf, which is spoken here, is at 4318",
            );
        }
        if name == ENDPOINT {
            let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Some(url)
    }

    fn speaks_protobuf(&mut self) -> bool {
        self.of_traces("OTEL_EXPORTER_OTLP_PROTOCOL", |reader, name| {
            match reader.get(name).as_deref() {
                None | Some("http/protobuf") => true,
                Some(text) => {
                    let message = format!(
                        "{text:?} is not spoken here: no traces are exported; write http/protobuf, which collectors take at port 4318"
                    );
                    reader.findings.note(name, message);
                    false
                }
            }
        })
    }

    fn headers(&mut self) -> Vec<(String, SecretString)> {
        self.of_traces("OTEL_EXPORTER_OTLP_HEADERS", |reader, name| {
            let fits = |key: &str, value: &str| {
                key.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
            };
            let pairs = reader.pairs(name, fits);
            pairs
                .into_iter()
                .map(|(key, value)| (key, value.into()))
                .collect()
        })
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        self.pairs("OTEL_RESOURCE_ATTRIBUTES", |key, _| !key.is_empty())
    }

    /// `name=value`, comma separated, percent-encoded; an item that does not fit is left out, and
    /// named by its place: it may be secret.
    fn pairs(&mut self, name: &str, fits: impl Fn(&str, &str) -> bool) -> Vec<(String, String)> {
        let text = self.get(name).unwrap_or_default();
        let mut pairs = Vec::new();
        for (place, item) in text.split(',').enumerate() {
            if item.trim().is_empty() {
                continue;
            }
            let decoded = |text: &str| {
                let text = percent_decode_str(text.trim()).decode_utf8();
                text.ok().map(|text| text.into_owned())
            };
            let pair = item
                .split_once('=')
                .and_then(|(key, value)| Some((decoded(key)?, decoded(value)?)))
                .filter(|(key, value)| fits(key, value));
            match pair {
                Some(pair) => pairs.push(pair),
                None => {
                    let message = format!("item {} is no name=value, and left out", place + 1);
                    self.findings.note(name, message);
                }
            }
        }
        pairs
    }

    fn sampling(&mut self) -> Sampling {
        let always = Sampling {
            by_parent: true,
            share: 1.0,
        };
        let name = "OTEL_TRACES_SAMPLER";
        let text = self.get(name);
        let text = text.as_deref().unwrap_or("parentbased_always_on");
        let (by_parent, own) = match text.strip_prefix("parentbased_") {
            Some(own) => (true, own),
            None => (false, text),
        };
        let share = match own {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.share(),
            _ => {
                let message = format!("{text:?} is unknown here: parentbased_always_on is used");
                self.findings.note(name, message);
                return always;
            }
        };
        Sampling { by_parent, share }
    }

    fn share(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.get(name) else {
            return 1.0;
        };
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => share,
            _ => {
                let message = format!("{text:?} is no number from 0 to 1: 1 is used");
                self.findings.note(name, message);
                1.0
            }
        }
    }

    fn millis(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default, 1..=60_000))
    }

    fn sizes(&mut self) -> (usize, usize) {
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=65_536);
        let name = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        let batch = self.number(name, 512.min(queue), 1..=queue);
        let size = |number| usize::try_from(number).unwrap_or(1);
        (size(queue), size(batch))
    }

    fn number(&mut self, name: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                let (least, most) = (bounds.start(), bounds.end());
                let message =
                    format!("{text:?} is no number from {least} to {most}: {default} is used");
                self.findings.note(name, message);
                default
            }
        }
    }
}
