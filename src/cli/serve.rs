//! `exchequer serve`: the service.

use crate::http::server::Stop;
use crate::service::{Place, Service};
use crate::telemetry;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs until SIGTERM, and serves on for a while; or until SIGINT. A second one ends it at once.
pub(super) async fn run() -> ExitCode {
    let (settings, findings) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if let Err(error) = telemetry::start_log(&settings.log, settings.log_format) {
        eprintln!("error: the log cannot start: {error}");
        return super::wrong();
    }
    for note in &findings.notes {
        tracing::warn!(place = note.place, "{}", note.message);
    }
    let issuer = settings.issuer.clone();
    let delay = settings.shutdown_delay;
    let bound = match Service::new(settings, Place::Disk) {
        Ok(service) => service.bind().await,
        Err(error) => Err(error),
    };
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => {
            eprintln!("error: {error}");
            return super::wrong();
        }
    };
    let stop = match stop_on_signal(delay) {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: signals cannot be handled: {error}");
            return super::wrong();
        }
    };
    let shown = |listener: &tokio::net::TcpListener| {
        listener
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default()
    };
    tracing::info!(
        issuer,
        public = shown(&bound.public),
        admin = shown(&bound.admin),
        version = env!("CARGO_PKG_VERSION"),
        backend = crate::crypto::BACKEND,
        "listening"
    );
    bound.serve(stop).await;
    tracing::info!("stopped");
    super::DONE
}

/// What stops the service: SIGTERM, after so long, for whoever sends it tells the balancers at
/// the same time; SIGINT at once, for a person waits for it.
pub(super) fn stop_on_signal(delay: Duration) -> std::io::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (leave, leaving) = watch::channel(false);
    let (stop, now) = watch::channel(false);
    tokio::spawn(async move {
        let delay = tokio::select! {
            _ = terminate.recv() => delay,
            _ = interrupt.recv() => Duration::ZERO,
        };
        tracing::info!(serves_on_s = delay.as_secs(), "draining");
        let _ = leave.send(true);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = stop.send(true);
        });
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    Ok(Stop { leaving, now })
}
