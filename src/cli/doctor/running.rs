//! The service that runs beside this command, as its admin listener shows it.

use super::report::Row;
use crate::config::{Settings, StoreSettings};
use crate::explain::Code;
use crate::service::access;
use crate::subject::address::Reach;
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use reqwest::Method;
use std::net::SocketAddr;
use url::Url;

const CHECK: &str = "admin";

/// A running service.
pub(super) struct Running {
    /// Its admin listener.
    pub(super) address: SocketAddr,
    /// Whether it is the one that has the store's file open.
    pub(super) holds_store: bool,
    metrics: String,
}

impl Running {
    /// The samples of a metric: the labels as they stand there, and the value.
    pub(super) fn samples(&self, metric: &str) -> Vec<(&str, f64)> {
        let lines = self.metrics.lines();
        lines.filter_map(|line| sample(metric, line)).collect()
    }

    /// The sum of a metric's samples that have this among their labels.
    pub(super) fn sum(&self, metric: &str, label: &str) -> f64 {
        let samples = self.samples(metric).into_iter();
        samples
            .filter(|(labels, _)| labels.contains(label))
            .map(|(_, value)| value)
            .sum()
    }

    /// When it started, Unix seconds.
    pub(super) fn started(&self) -> i64 {
        self.sum("exchequer_start_time_seconds", "") as i64
    }

    /// The `kid`s that it publishes.
    pub(super) fn kids(&self) -> Vec<&str> {
        let keys = self.samples("exchequer_signing_key_info");
        keys.iter()
            .filter_map(|(labels, _)| label(labels, "kid"))
            .collect()
    }
}

/// The labels and the value of a line, where it is one of this metric.
fn sample<'l>(metric: &str, line: &'l str) -> Option<(&'l str, f64)> {
    let (left, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
    let labels = match left {
        "" => left,
        _ => left.strip_prefix('{')?.strip_suffix('}')?,
    };
    Some((labels, value.parse().ok()?))
}

/// The value of a label.
pub(super) fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

/// Asks the admin listener: where the file beside the store says that it is, or the settings.
pub(super) async fn look(fetcher: &Fetcher, settings: &Settings) -> (Row, Option<Running>) {
    let mut places: Vec<(SocketAddr, bool)> = Vec::new();
    if let StoreSettings::File(path) = &settings.store
        && let Ok(access) = access::read(&access::beside(path))
    {
        places.push((access.address, true));
    }
    let configured = access::reachable(settings.admin_listen);
    if !places.contains(&(configured, true)) && configured.port() != 0 {
        places.push((configured, false));
    }
    let mut seen = Vec::new();
    for (address, holds_store) in places {
        let reply = match get(fetcher, address, "/metrics").await {
            Ok(reply) => reply,
            Err(error) => {
                seen.push(format!("{address}: {error}"));
                continue;
            }
        };
        let metrics = String::from_utf8_lossy(&reply.body).into_owned();
        if reply.status != 200 || !metrics.contains("exchequer_build_info") {
            seen.push(format!(
                "{address}: something else answers there ({})",
                reply.status
            ));
            continue;
        }
        let running = Running {
            address,
            holds_store,
            metrics,
        };
        return (ready(fetcher, &running).await, Some(running));
    }
    let row = Row::warn(CHECK, format!("no service found: {}", seen.join("; "))).next(
        "what only a running service knows (webhooks, callers' addresses) was not looked at: run this beside it, as its user and with its EXCHEQUER_ADMIN_LISTEN",
    );
    (row, None)
}

async fn ready(fetcher: &Fetcher, running: &Running) -> Row {
    let address = running.address;
    match get(fetcher, address, "/readyz").await {
        Ok(Reply { status: 200, .. }) => Row::ok(CHECK, format!("{address}: the service is ready")),
        Ok(reply) => {
            let why = String::from_utf8_lossy(&reply.body).trim().to_owned();
            let row = Row::fail(CHECK, format!("{address}: the service is not ready: {why}"));
            match why.as_str() {
                "draining" => row.next("it was told to stop"),
                _ => row
                    .next("its log says why no key signs; EXCHEQUER_KEYS_DIR, or EXCHEQUER_STORE where that is a Redis")
                    .code(Code::SigningKeyUnavailable),
            }
        }
        Err(error) => Row::fail(CHECK, format!("{address}: {error}"))
            .next("it answered a moment ago: try again, and look at its log"),
    }
}

async fn get(fetcher: &Fetcher, address: SocketAddr, path: &str) -> Result<Reply, FetchError> {
    let url = Url::parse(&format!("http://{address}{path}"))
        .map_err(|error| FetchError::Transport(error.to_string()))?;
    fetcher
        .send(Method::GET, &url, Reach::Private, |request| request)
        .await
}
