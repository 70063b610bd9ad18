//! The way of spans to the collector (OTLP over HTTP): a bounded queue and one task. Whoever ends
//! a span never waits: what does not fit into the queue is dropped and counted, and so is what the
//! collector does not take.

use super::TracesError;
use crate::config::TraceSettings;
use crate::telemetry::Metrics;
use opentelemetry::Context;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use secrecy::ExposeSecret;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long what waits may take to leave when the service stops.
const FLUSH: Duration = Duration::from_secs(2);
/// Connecting to the collector.
const CONNECT: Duration = Duration::from_secs(2);

/// Where spans go when they end.
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What takes spans to the collector.
pub struct Export {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    metrics: Arc<Metrics>,
    delay: Duration,
    batch: usize,
    patience: Duration,
    failing: bool,
}

/// The queue, and what empties it.
pub(super) fn new(
    settings: &TraceSettings,
    resource: &Resource,
    metrics: Arc<Metrics>,
) -> Result<(Queue, Export), TracesError> {
    // Another part of the process may have installed it: that is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = || {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(settings.timeout)
            .pool_max_idle_per_host(1)
    };
    // A machine without CA certificates can still export where that needs none.
    let client = client()
        .build()
        .or_else(|_| client().tls_certs_only([]).build())?;
    let headers = settings.headers.iter();
    let headers = headers.map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.as_str())
        .with_timeout(settings.timeout)
        .with_headers(headers.collect())
        .build()?;
    exporter.set_resource(resource);
    for result in ["exported", "failed", "dropped"] {
        metrics.spans(result, 0);
    }
    let (sender, spans) = mpsc::channel(settings.queue);
    let queue = Queue {
        spans: sender,
        metrics: Arc::clone(&metrics),
    };
    let export = Export {
        exporter,
        spans,
        metrics,
        delay: settings.delay,
        batch: settings.batch,
        patience: settings.patience,
        failing: false,
    };
    Ok((queue, export))
}

impl Export {
    /// Exports until it is to stop, and then what still waits, for two seconds at most.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut stops = stop.clone();
        let mut late = pin!(async move {
            let _ = stops.wait_for(|stop| *stop).await;
            tokio::time::sleep(FLUSH).await;
        });
        loop {
            let spans = self.gather(stop.clone()).await;
            let count = spans.len();
            if count == 0 {
                return;
            }
            let exported = tokio::select! {
                exported = timeout(self.patience, self.exporter.export(spans)) => exported,
                () = &mut late => {
                    let left = count + self.spans.len();
                    self.metrics.spans("failed", left);
                    return;
                }
            };
            let failure = match exported {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it took too long".to_owned()),
            };
            let result = if failure.is_none() {
                "exported"
            } else {
                "failed"
            };
            self.metrics.spans(result, count);
            self.tell(failure);
        }
    }

    /// As many as are exported at once, or fewer that have waited long enough; none where there
    /// will be no more.
    async fn gather(&mut self, mut stop: watch::Receiver<bool>) -> Vec<SpanData> {
        let mut spans = Vec::new();
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let mut stopped = pin!(stopped);
        tokio::select! {
            biased;
            () = &mut stopped => self.spans.close(),
            first = self.spans.recv() => spans.extend(first),
        }
        let mut due = pin!(tokio::time::sleep(self.delay));
        while spans.len() < self.batch {
            let room = self.batch - spans.len();
            if self.spans.is_closed() {
                if self.spans.recv_many(&mut spans, room).await == 0 {
                    break;
                }
                continue;
            }
            tokio::select! {
                () = &mut stopped => self.spans.close(),
                () = &mut due => break,
                more = self.spans.recv_many(&mut spans, room) => {
                    if more == 0 {
                        break;
                    }
                }
            }
        }
        spans
    }

    /// Once when it begins to fail, and once when it is over.
    fn tell(&mut self, failure: Option<String>) {
        if self.failing == failure.is_some() {
            return;
        }
        self.failing = failure.is_some();
        match failure {
            Some(cause) => tracing::warn!(cause, "traces cannot be exported"),
            None => tracing::info!("traces are exported again"),
        }
    }
}
