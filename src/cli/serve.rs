//! `exchequer serve`: the service.

use crate::service::{Place, Service};
use crate::telemetry;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs until SIGTERM or SIGINT; a second one ends it at once.
pub(super) async fn run() -> ExitCode {
    let (settings, findings) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    telemetry::start_log(&settings.log, settings.log_format);
    for note in &findings.notes {
        tracing::warn!(place = note.place, "{}", note.message);
    }
    let issuer = settings.issuer.clone();
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
    let stop = match stop_on_signal() {
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

/// A channel that becomes true with the first SIGTERM or SIGINT.
pub(super) fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if round > 0 {
                std::process::exit(1);
            }
            tracing::info!("draining");
            let _ = stop.send(true);
        }
    });
    Ok(stopped)
}
