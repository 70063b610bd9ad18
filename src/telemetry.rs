//! What is seen from outside: the log, the metrics and the traces. Never a token, a secret or personal
//! data: a subject appears under its pseudonym only.

mod lines;
mod output;
mod process;
pub mod traces;

use crate::clock::{Clock, UnixSeconds};
use crate::config::LogFormat;
use crate::crypto::BACKEND;
use crate::explain::Code;
use lines::JsonLines;
use output::Output;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The way of the log to standard output, once it has started.
static LOG: OnceLock<Output> = OnceLock::new();

/// Starts the log on standard output. A second call changes nothing.
///
/// # Errors
/// Where the thread that writes cannot start.
pub fn start_log(filter: &str, format: LogFormat) -> io::Result<()> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let output = Output::start()?;
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Libraries do not know what is secret: h2 writes a malformed path out, token and all.
    let ours = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(env!("CARGO_PKG_NAME"), LevelFilter::TRACE);
    let registry = tracing_subscriber::registry().with(filter).with(ours);
    let lines = tracing_subscriber::fmt::layer().with_writer(output.clone());
    let _ = match format {
        LogFormat::Json => registry.with(lines.event_format(JsonLines)).try_init(),
        LogFormat::Text => registry.with(lines).try_init(),
    };
    let _ = LOG.set(output);
    Ok(())
}

/// Waits until the log is written: before the process ends.
pub fn finish_log() {
    if let Some(output) = LOG.get() {
        output.finish();
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    outcome: &'static str,
    code: &'static str,
}

/// The labels of a gateway's question that was answered.
const VERIFIED: RequestLabels = RequestLabels {
    route: "verify",
    outcome: "ok",
    code: "ok",
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BucketLabels {
    bucket: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    r#use: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    kid: String,
    alg: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    place: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlgLabels {
    alg: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    backend: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LastEventLabels {
    issuer: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    address: &'static str,
}

/// What became of a question to a provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderResult {
    /// It was answered.
    Ok,
    /// There is no such object.
    NotFound,
    /// Our key was refused.
    KeyRefused,
    /// 429.
    RateLimited,
    /// Another 4xx.
    Refused,
    /// No answer, a 5xx, or no JSON.
    Error,
    /// It was not asked: it failed too often, or had answered 429.
    NotAsked,
}

/// The labels of a request that ended so: with a code of the catalogue, or without one.
pub fn ending(code: Option<Code>) -> (&'static str, &'static str) {
    match code.map(Code::entry) {
        None => ("ok", "ok"),
        Some(entry) if entry.status >= 500 => ("failed", entry.slug),
        Some(entry) => ("refused", entry.slug),
    }
}

impl ProviderResult {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::KeyRefused => "key_refused",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::Error => "error",
            Self::NotAsked => "not_asked",
        }
    }
}

/// Why a request was shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// Requests wait too long for a processor.
    Delay,
    /// As many as may be are at work, and as many as may wait are waiting.
    Concurrency,
    /// The bodies that have come in part take as much as they may.
    Bodies,
}

impl Shed {
    /// Its name in metrics and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Concurrency => "concurrency",
            Self::Bodies => "bodies",
        }
    }
}

/// Why a connection was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A request's head did not arrive.
    Head,
    /// A request took too long.
    Request,
    /// An answer was not taken.
    Answer,
    /// Nothing was asked.
    Idle,
}

impl Cut {
    fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Idle => "idle",
        }
    }
}

/// What is taken on right now.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests at work.
    pub at_work: usize,
    /// Requests that wait for a place among them.
    pub waiting: usize,
    /// Bytes of bodies that have come in part.
    pub bodies: usize,
}

type Durations = Family<RouteLabels, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// The bounds of the latency histogram, seconds: an exchange takes some 60 µs, a fetch 3 s.
fn buckets() -> Histogram {
    Histogram::new([
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
        0.5, 1.0, 2.5, 5.0,
    ])
}

/// The service's metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    /// What gateways are answered, found once: they ask about every request that they get.
    verified: (Counter, Histogram),
    limited: Family<BucketLabels, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    connections_refused: Counter,
    connections_cut: Family<ReasonLabels, Counter>,
    shed: Family<ReasonLabels, Counter>,
    at_work: Gauge,
    queued: Gauge,
    bodies: Gauge,
    delays: Histogram,
    fetches: Family<FetchLabels, Counter>,
    ages: Family<IssuerLabels, Seconds>,
    provider: Family<FetchLabels, Counter>,
    breakers: Family<IssuerLabels, Gauge>,
    keys: Family<KeyLabels, Gauge>,
    rotations: Family<AlgLabels, Gauge>,
    ring_failures: Counter,
    ring_place: Family<PlaceLabels, Gauge>,
    ring_generation: Gauge<u64, AtomicU64>,
    ring_shared: Gauge,
    ring_put_back: Counter,
    ring_conflicts: Counter,
    store_failures: Counter,
    store_revocations: Gauge,
    store_commits: Histogram,
    store_losses: Counter,
    store_fallbacks: Family<UseLabels, Counter>,
    events: Family<EventLabels, Counter>,
    last_events: Family<LastEventLabels, Gauge>,
    callers: [Counter; 2],
    deliveries: Family<DeliveryLabels, Counter>,
    waiting: Gauge,
    audit_lost: Counter,
    spans: Family<DeliveryLabels, Counter>,
    redis_up: Gauge,
    redis_clock_ahead: Gauge,
    redis_breaker_openings: Family<CauseLabels, Counter>,
    redis_refused: Family<CauseLabels, Counter>,
    redis_connections: Counter,
    redis_round_trips: Histogram,
    scrape: Mutex<()>,
}

/// A request in flight; ends when dropped, answered or given up by the client.
#[must_use]
pub struct InFlight<'m>(&'m Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Has the metric registered, and gives it.
fn registered<M: Clone>(metric: M, register: impl FnOnce(M)) -> M {
    register(metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("exchequer");
        // Registers a metric, and gives it.
        macro_rules! metric {
            ($name:literal, $help:literal $(, $unit:ident)?) => {
                metric!(Default::default(), $name, $help $(, $unit)?)
            };
            ($metric:expr, $name:literal, $help:literal) => {
                registered($metric, |metric| registry.register($name, $help, metric))
            };
            ($metric:expr, $name:literal, $help:literal, $unit:ident) => {
                registered($metric, |metric| {
                    registry.register_with_unit($name, $help, Unit::$unit, metric);
                })
            };
        }
        let build = metric!(
            Family::<BuildLabels, Gauge>::default(),
            "build_info",
            "Version and cryptographic backend"
        );
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
                backend: BACKEND,
            })
            .set(1);
        let start = metric!(
            Gauge::<i64>::default(),
            "start_time",
            "When it started",
            Seconds
        );
        start.set(Clock::system().now());
        let _ = metric!(
            LOG.get().map(Output::lost).unwrap_or_default(),
            "log_lost",
            "Lines of the log that could not be written"
        );
        let requests = metric!(
            Family::<RequestLabels, Counter>::default(),
            "requests",
            "Requests by route, outcome and code of the catalogue"
        );
        let durations: Durations = metric!(
            Family::new_with_constructor(buckets as fn() -> Histogram),
            "request_duration",
            "Time from the request's head to its answer",
            Seconds
        );
        let verified = (
            requests.get_or_create(&VERIFIED).clone(),
            durations
                .get_or_create(&RouteLabels {
                    route: VERIFIED.route,
                })
                .clone(),
        );
        let metrics = Self {
            requests,
            durations,
            verified,
            limited: metric!(
                "rate_limited",
                "Requests refused by a rate limit, by whose it is"
            ),
            in_flight: metric!("requests_in_flight", "Requests being answered"),
            connections: metric!("connections", "Open connections of the public listener"),
            connections_refused: metric!(
                "connections_refused",
                "Connections closed at once, for there were as many as may be"
            ),
            connections_cut: metric!(
                "connections_cut",
                "Connections cut off, by what had stalled"
            ),
            shed: metric!(
                "requests_shed",
                "Requests refused at once, by what there was too much of"
            ),
            at_work: metric!(
                "requests_at_work",
                "Requests that take one of the EXCHEQUER_MAX_CONCURRENCY places"
            ),
            queued: metric!("requests_waiting", "Requests that wait for such a place"),
            bodies: metric!(
                "bodies_pending",
                "Request bodies that have come in part",
                Bytes
            ),
            delays: metric!(
                buckets(),
                "queue_delay",
                "Time that whoever comes now waits for a processor, looked at a hundred times a second",
                Seconds
            ),
            fetches: metric!("jwks_fetch", "Fetches of an issuer's key set, by result"),
            ages: metric!(
                "jwks_age",
                "Time since an issuer's key set was fetched",
                Seconds
            ),
            provider: metric!(
                "provider_requests",
                "Requests to a provider's API, by result; not_asked made none"
            ),
            breakers: metric!(
                "provider_breaker_open",
                "1 while a provider's API fails and is left alone"
            ),
            keys: metric!("signing_key_info", "Our published keys and their states"),
            rotations: metric!(
                "next_rotation",
                "Time until the standby key signs; negative where it is overdue",
                Seconds
            ),
            ring_failures: metric!(
                "key_ring_failures",
                "Times that the key ring could not be read, changed or saved"
            ),
            ring_place: metric!(
                "key_ring_info",
                "Where the key ring is kept: memory, folder, redis or mounted"
            ),
            ring_generation: metric!(
                "key_ring_generation",
                "The generation of the key ring that is published"
            ),
            ring_shared: metric!(
                "key_ring_shared",
                "1 while the key ring in Redis can be read and changed"
            ),
            ring_put_back: metric!(
                "key_ring_put_back",
                "Times that the key ring in Redis was gone, damaged or older, and was put back"
            ),
            ring_conflicts: metric!(
                "key_ring_conflicts",
                "Times that two key rings met and were made one"
            ),
            store_failures: metric!(
                "store_failures",
                "Times that the store could not be read or changed"
            ),
            store_revocations: metric!("store_revocations", "Revocations held"),
            store_commits: metric!(
                buckets(),
                "store_commit_duration",
                "Time until changes were on disk or in Redis, those that waited together counted once",
                Seconds
            ),
            store_losses: metric!(
                "store_losses",
                "Times that a Redis was found to have lost what it knew"
            ),
            store_fallbacks: metric!(
                "store_fallbacks",
                "Questions answered without Redis: by the last known revocations, by local limits"
            ),
            events: metric!(
                "webhook_events",
                "Well-signed webhook events, by type and by what became of them"
            ),
            last_events: metric!(
                "webhook_last_event_timestamp",
                "When the last event of an issuer was taken, by type",
                Seconds
            ),
            callers: {
                let callers = metric!(
                    Family::<AddressLabels, Counter>::default(),
                    "callers",
                    "Requests to the doors that have a limit for addresses, by whether the caller's could be told"
                );
                ["known", "unknown"]
                    .map(|address| callers.get_or_create(&AddressLabels { address }).clone())
            },
            deliveries: metric!(
                "event_deliveries",
                "Attempts to send an event to an app's backend, by result; failed is tried again"
            ),
            waiting: metric!(
                "events_waiting",
                "Events that wait in the outbox to be sent, now or again"
            ),
            audit_lost: metric!("audit_lost", "Audit events that could not be written"),
            spans: metric!(
                "spans",
                "Spans of traces, by what became of them: exported, failed, or dropped where too many waited"
            ),
            redis_up: metric!(
                "redis_up",
                "1 while Redis answers; of a Cluster, while every slot is served"
            ),
            redis_clock_ahead: metric!(
                "redis_clock_ahead",
                "How far the clock of Redis is ahead of ours",
                Seconds
            ),
            redis_breaker_openings: metric!(
                "redis_breaker_openings",
                "Times that a connection to Redis was given up, by cause"
            ),
            redis_refused: metric!(
                "redis_refused",
                "Requests to Redis that were not sent: the breaker was open, or too many waited"
            ),
            redis_connections: metric!("redis_connections", "Connections made to Redis servers"),
            redis_round_trips: metric!(
                buckets(),
                "redis_round_trip_duration",
                "Time until Redis answered, of those that it did answer",
                Seconds
            ),
            scrape: Mutex::default(),
            registry,
        };
        // Of what is to be told of at its first time: whoever watches a counter sees it rise only
        // where it was there before.
        for result in ["delivered", "failed", "given_up"] {
            let _ = metrics.deliveries.get_or_create(&DeliveryLabels { result });
        }
        for r#use in ["revocation", "limits"] {
            let _ = metrics.store_fallbacks.get_or_create(&UseLabels { r#use });
        }
        for reason in [Shed::Delay, Shed::Concurrency, Shed::Bodies] {
            let reason = reason.name();
            let _ = metrics.shed.get_or_create(&ReasonLabels { reason });
        }
        for reason in [Cut::Head, Cut::Request, Cut::Answer, Cut::Idle] {
            let reason = reason.name();
            let _ = metrics
                .connections_cut
                .get_or_create(&ReasonLabels { reason });
        }
        for cause in ["late", "connection", "server", "moved"] {
            let _ = metrics
                .redis_breaker_openings
                .get_or_create(&CauseLabels { cause });
        }
        for cause in ["away", "full"] {
            let _ = metrics.redis_refused.get_or_create(&CauseLabels { cause });
        }
        metrics
    }
}

/// One of our published keys, as the metrics show it.
#[derive(Debug)]
pub struct KeyInfo {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs with.
    pub alg: &'static str,
    /// The name of its state.
    pub state: &'static str,
    /// When it will sign, where it is a standby.
    pub signs_at: Option<UnixSeconds>,
}

impl Metrics {
    /// A request began; it is in flight until the guard is dropped.
    pub fn request_began(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// A request was answered; `code` is `ok` or one of the catalogue.
    pub fn request_ended(
        &self,
        route: &'static str,
        outcome: &'static str,
        code: &'static str,
        took: Duration,
    ) {
        let labels = RequestLabels {
            route,
            outcome,
            code,
        };
        if labels == VERIFIED {
            self.verified.0.inc();
            self.verified.1.observe(took.as_secs_f64());
            return;
        }
        self.requests.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&RouteLabels { route })
            .observe(took.as_secs_f64());
    }

    /// How many requests to a route ended with this code of the catalogue, or with none. A
    /// combination that never was is not made by looking at it.
    pub fn requests(&self, route: &'static str, code: Option<Code>) -> u64 {
        let (outcome, code) = ending(code);
        let labels = RequestLabels {
            route,
            outcome,
            code,
        };
        self.requests
            .get(&labels)
            .map_or(0, |counter| counter.get())
    }

    /// A request was refused by a rate limit.
    pub fn rate_limited(&self, bucket: &'static str) {
        self.limited.get_or_create(&BucketLabels { bucket }).inc();
    }

    /// A connection was opened.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A connection was closed.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// A connection was closed at once.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A connection was cut off.
    pub fn connection_cut(&self, reason: Cut) {
        self.connections_cut
            .get_or_create(&ReasonLabels {
                reason: reason.name(),
            })
            .inc();
    }

    /// A request was refused at once.
    pub fn shed(&self, reason: Shed) {
        self.shed
            .get_or_create(&ReasonLabels {
                reason: reason.name(),
            })
            .inc();
    }

    /// Whoever came just now waited so long for a processor.
    pub fn delayed(&self, waited: Duration) {
        self.delays.observe(waited.as_secs_f64());
    }

    /// So much is taken on.
    pub fn loaded(&self, load: Load) {
        for (gauge, value) in [
            (&self.at_work, load.at_work),
            (&self.queued, load.waiting),
            (&self.bodies, load.bodies),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// A fetch of an issuer's key set ended.
    pub fn key_set_fetched(&self, issuer: &str, well: bool) {
        self.fetches
            .get_or_create(&FetchLabels {
                issuer: issuer.to_owned(),
                result: if well { "ok" } else { "error" },
            })
            .inc();
    }

    /// A well-signed webhook event of these issuers was acknowledged; `kind` is one of those
    /// known by name.
    pub fn webhook_taken(&self, issuers: &[String], kind: &'static str, result: &'static str) {
        let now = Clock::system().now();
        for issuer in issuers {
            let labels = LastEventLabels {
                issuer: issuer.clone(),
                r#type: kind,
            };
            self.last_events.get_or_create(&labels).set(now);
        }
        self.events
            .get_or_create(&EventLabels {
                r#type: kind,
                result,
            })
            .inc();
    }

    /// Somebody called whose address could be told, or could not.
    pub fn called(&self, known: bool) {
        let [told, untold] = &self.callers;
        if known { told } else { untold }.inc();
    }

    /// An event was sent to an app's backend, or was to be: `delivered`, `failed` and to be
    /// tried again, or `given_up`.
    pub fn event_sent(&self, result: &'static str) {
        self.deliveries
            .get_or_create(&DeliveryLabels { result })
            .inc();
    }

    /// So many events wait to be sent.
    pub fn events_waiting(&self, events: u64) {
        self.waiting.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// A provider's API was asked, or would have been.
    pub fn provider_asked(&self, issuer: &str, result: ProviderResult) {
        self.provider
            .get_or_create(&FetchLabels {
                issuer: issuer.to_owned(),
                result: result.name(),
            })
            .inc();
    }

    /// The breaker before a provider's API opened or closed.
    pub fn provider_breaker(&self, issuer: &str, open: bool) {
        self.breakers
            .get_or_create(&IssuerLabels {
                issuer: issuer.to_owned(),
            })
            .set(open.into());
    }

    /// Audit events could not be written.
    pub fn audit_lost(&self, count: u64) {
        self.audit_lost.inc_by(count);
    }

    /// So many spans were `exported`, `failed`, or `dropped` for too many waited.
    pub fn spans(&self, result: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.spans
            .get_or_create(&DeliveryLabels { result })
            .inc_by(count);
    }

    /// Redis answers, all that is needed of it, or it does not.
    pub fn redis_up(&self, up: bool) {
        self.redis_up.set(up.into());
    }

    /// The clock of Redis is so many seconds ahead of ours.
    pub fn redis_clock_ahead(&self, seconds: i64) {
        self.redis_clock_ahead.set(seconds);
    }

    /// A connection to Redis was given up: `late`, `connection`, `server` or `moved`.
    pub fn redis_breaker_opened(&self, cause: &'static str) {
        self.redis_breaker_openings
            .get_or_create(&CauseLabels { cause })
            .inc();
    }

    /// A request to Redis was not sent: `away` or `full`.
    pub fn redis_refused(&self, cause: &'static str) {
        self.redis_refused
            .get_or_create(&CauseLabels { cause })
            .inc();
    }

    /// A connection to a Redis server was made.
    pub fn redis_connected(&self) {
        self.redis_connections.inc();
    }

    /// Redis answered.
    pub fn redis_answered(&self, took: Duration) {
        self.redis_round_trips.observe(took.as_secs_f64());
    }

    /// The key ring could not be read, changed or saved.
    pub fn key_ring_failed(&self) {
        self.ring_failures.inc();
    }

    /// Where the key ring is kept.
    pub fn key_ring_place(&self, place: &'static str) {
        self.ring_place.get_or_create(&PlaceLabels { place }).set(1);
    }

    /// A key ring of this generation is published.
    pub fn key_ring_generation(&self, generation: u64) {
        self.ring_generation.set(generation);
    }

    /// Whether the shared key ring can be read and changed.
    pub fn key_ring_shared(&self, reached: bool) {
        self.ring_shared.set(reached.into());
    }

    /// The shared key ring was lost and put back.
    pub fn key_ring_put_back(&self) {
        self.ring_put_back.inc();
    }

    /// Two key rings met.
    pub fn key_ring_conflict(&self) {
        self.ring_conflicts.inc();
    }

    /// The store could not be read or changed.
    pub fn store_failed(&self) {
        self.store_failures.inc();
    }

    /// The store committed changes.
    pub fn store_committed(&self, took: Duration) {
        self.store_commits.observe(took.as_secs_f64());
    }

    /// A Redis has lost what it knew.
    pub fn store_lost(&self) {
        self.store_losses.inc();
    }

    /// A question was answered without Redis: `revocation` or `limits`.
    pub fn store_fell_back(&self, r#use: &'static str) {
        self.store_fallbacks
            .get_or_create(&UseLabels { r#use })
            .inc();
    }

    /// So many revocations are held.
    pub fn revocations_held(&self, revocations: usize) {
        self.store_revocations
            .set(i64::try_from(revocations).unwrap_or(i64::MAX));
    }

    /// The metrics as Prometheus reads them (OpenMetrics text).
    pub fn render(
        &self,
        keys: impl Iterator<Item = KeyInfo>,
        now: UnixSeconds,
        ages: impl Iterator<Item = (String, f64)>,
    ) -> String {
        // One scrape at a time: each fills these families anew.
        let _turn = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.ages.clear();
        for (issuer, age) in ages {
            self.ages.get_or_create(&IssuerLabels { issuer }).set(age);
        }
        self.keys.clear();
        self.rotations.clear();
        let mut rotations = BTreeMap::new();
        for key in keys {
            if let Some(at) = key.signs_at {
                rotations.insert(key.alg, at);
            }
            self.keys
                .get_or_create(&KeyLabels {
                    kid: key.kid,
                    alg: key.alg,
                    state: key.state,
                })
                .set(1);
        }
        for (alg, at) in rotations {
            self.rotations
                .get_or_create(&AlgLabels { alg })
                .set(at - now);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        process::write(&mut text);
        let _ = encode_eof(&mut text);
        text
    }
}
