//! A listener: connections are accepted up to a bound and closed at once beyond it, and drained
//! when the service stops.

use super::caller::Peer;
use super::connection::{Connection, Protocols};
use super::front::Front;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The most connections of the public listener.
const MAX_CONNECTIONS: u32 = 12_000;
/// Those of the admin listener, for probes, a scrape or two and a person.
const ADMIN_CONNECTIONS: u32 = 64;
/// Descriptors that connections leave to everything else, half of them at most: the other
/// listener, the ring, the store, and the connections to providers.
const SPARE_FILES: u32 = 256;
/// How long what is in flight may take to end when the service stops.
const DRAIN: Duration = Duration::from_secs(30);
/// The same of the admin listener: no user asks there, and the audit log's last lines wait for it.
const ADMIN_DRAIN: Duration = Duration::from_secs(5);
/// How long it waits where no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// When a listener stops, in two steps.
#[derive(Clone)]
pub struct Stop {
    /// Becomes true when clients are to go elsewhere: each is served, and told so.
    pub leaving: watch::Receiver<bool>,
    /// Becomes true when nobody is accepted any more.
    pub now: watch::Receiver<bool>,
}

impl Stop {
    /// Both steps in one.
    pub fn at_once(now: watch::Receiver<bool>) -> Self {
        Self {
            leaving: now.clone(),
            now,
        }
    }
}

/// Serves a listener until it is to stop now, then drains it: with `metrics` the public one,
/// without the admin one.
pub async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    metrics: Option<Arc<Metrics>>,
    mut stop: Stop,
) {
    let (most, drain) = match &metrics {
        Some(_) => (max_connections(), DRAIN),
        None => (ADMIN_CONNECTIONS, ADMIN_DRAIN),
    };
    let places = Arc::new(Semaphore::new(most as usize));
    let protocols = Arc::new(Protocols::new());
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.now.wait_for(|now| *now) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to be given back.
                if !failing {
                    tracing::warn!(%error, "connections cannot be accepted");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        failing = false;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Some(metrics) = &metrics {
                metrics.connection_refused();
            }
            continue;
        };
        // Without it a small answer waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let crowd = Arc::clone(&places);
        let connection = Connection {
            front: Arc::clone(&front),
            protocols: Arc::clone(&protocols),
            peer: Peer(peer),
            crowded: move || crowd.available_permits() < most as usize / 8,
            stop: stop.clone(),
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            if let Some(metrics) = &metrics {
                metrics.connection_opened();
            }
            let cut = connection.serve(stream).await;
            if let Some(metrics) = &metrics {
                metrics.connection_closed();
                if let Some(cut) = cut {
                    metrics.connection_cut(cut);
                }
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(drain, places.acquire_many(most)).await;
}

/// The most connections that leave descriptors for the ring, the key sets and the other
/// listener.
fn max_connections() -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    files.map_or(MAX_CONNECTIONS, |files| {
        let spare = SPARE_FILES.min(files / 2);
        (files - spare).clamp(16, MAX_CONNECTIONS)
    })
}
