//! `exchequer doctor`: a live setting, checked from where the service runs.
//!
//! Each look is a task of its own with a deadline: what hangs is a row, and holds up no other.
//! Nothing is changed, and nothing that is secret is said.

mod browsers;
mod clock;
mod config;
mod issuer;
mod keys;
mod limits;
mod page;
mod provider;
mod public;
mod redis;
mod report;
mod running;
mod store;
mod verifiers;
mod webhooks;

use super::terminal::Color;
use crate::config::{Settings, Sources, StoreSettings, read_from};
use crate::oauth::clients::key_source;
use crate::subject::fetch::Fetcher;
use report::Row;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// All looks together: the longest, an issuer whose documents and API do not answer, takes ten.
const DEADLINE: Duration = Duration::from_secs(15);

/// How to print.
#[derive(clap::Args)]
pub(super) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: Color,
}

/// Checks everything and prints the report; 1 where something failed.
pub(super) async fn run(args: Args) -> ExitCode {
    let (settings, findings) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let fetcher = match Fetcher::new() {
        Ok(fetcher) => fetcher,
        Err(error) => {
            eprintln!("error: the HTTP client: {error}");
            return super::wrong();
        }
    };
    let mut rows = config::look(&settings, &findings, &read_from(&Sources::process()));
    rows.extend(looks(Arc::new(settings), fetcher).await);
    super::output::written(report::print(&rows, args.json, args.color));
    if report::failed(&rows) {
        super::not_right()
    } else {
        super::DONE
    }
}

/// Everything that is looked at, at the same time; the rows in a fixed order.
async fn looks(settings: Arc<Settings>, fetcher: Fetcher) -> Vec<Row> {
    let end = Instant::now() + DEADLINE;
    let clients = settings.clients.iter();
    let of_clients: Vec<_> = clients
        .filter_map(|(id, client)| key_source(id, client))
        .collect();
    let issuers: Vec<_> = each(settings.issuers.iter().chain(&of_clients), |issuer| {
        let fetcher = fetcher.clone();
        (
            issuer.name.clone(),
            tokio::spawn(async move { issuer::look(&fetcher, &issuer).await }),
        )
    });
    let providers: Vec<_> = each(settings.providers.values(), |provider| {
        let (fetcher, own) = (fetcher.clone(), settings.issuer.clone());
        (
            provider.name.clone(),
            tokio::spawn(async move { provider::look(&fetcher, &provider, &own).await }),
        )
    });
    let (here, of) = (Handle::current(), Arc::clone(&settings));
    // A folder may hang, on a network disk: it hangs in a thread of its own.
    let ring = tokio::task::spawn_blocking(move || here.block_on(keys::look(&of)));
    let (own, of) = (fetcher.clone(), Arc::clone(&settings));
    let running = tokio::spawn(async move { running::look(&own, &of).await });
    let (own, of) = (fetcher.clone(), Arc::clone(&settings));
    let outside = tokio::spawn(async move { public::look(&own, &of.issuer).await });
    let (own, of) = (fetcher.clone(), Arc::clone(&settings));
    let browsers = tokio::spawn(async move { browsers::look(&own, &of).await });
    let stored = stored(&settings.store);

    let mut rows = Vec::new();
    for (name, task) in issuers {
        let late = || vec![hangs("issuer").of(&name)];
        rows.extend(by(end, task).await.unwrap_or_else(late));
    }
    for (name, task) in providers {
        rows.push(
            by(end, task)
                .await
                .unwrap_or_else(|| hangs("provider").of(&name)),
        );
    }
    let (of_ring, ring) = by(end, ring)
        .await
        .unwrap_or_else(|| (vec![hangs("keys")], None));
    rows.extend(of_ring);
    rows.extend(verifiers::look(&settings, ring.as_ref()));
    let (admin, running) = by(end, running)
        .await
        .unwrap_or_else(|| (hangs("admin"), None));
    let running = running.as_ref();
    rows.extend(match stored {
        Stored::Memory => vec![store::in_memory()],
        Stored::File(task) => by(end, task)
            .await
            .map_or_else(|| vec![hangs("store")], |found| store::told(found, running)),
        Stored::Redis(task) => by(end, task).await.unwrap_or_else(|| vec![hangs("redis")]),
    });
    rows.push(admin);
    rows.extend(webhooks::look(&settings, running));
    rows.extend(limits::look(&settings, running));
    match by(end, outside).await {
        Some(outside) => {
            let trip = public::round_trip(&settings.issuer, ring.as_ref(), &outside, running);
            rows.extend(outside.rows);
            rows.extend(trip);
        }
        None => rows.push(hangs("public_url")),
    }
    rows.extend(
        by(end, browsers)
            .await
            .unwrap_or_else(|| vec![hangs("browsers")]),
    );
    rows
}

/// A look at the store, under way.
enum Stored {
    Memory,
    File(JoinHandle<store::Found>),
    Redis(JoinHandle<Vec<Row>>),
}

fn stored(settings: &StoreSettings) -> Stored {
    match settings {
        StoreSettings::Memory => Stored::Memory,
        StoreSettings::File(path) => {
            let path = path.clone();
            Stored::File(tokio::task::spawn_blocking(move || store::look(&path)))
        }
        StoreSettings::Redis(settings) => {
            let settings = settings.clone();
            Stored::Redis(tokio::spawn(async move { redis::look(&settings).await }))
        }
    }
}

fn each<'i, I: Clone + 'i, T>(
    all: impl IntoIterator<Item = &'i I>,
    begin: impl Fn(I) -> T,
) -> Vec<T> {
    all.into_iter().cloned().map(begin).collect()
}

/// What a look found, unless it takes too long.
async fn by<T>(end: Instant, task: JoinHandle<T>) -> Option<T> {
    tokio::time::timeout_at(end, task).await.ok()?.ok()
}

fn hangs(check: &'static str) -> Row {
    let seen = format!("no end within {} s", DEADLINE.as_secs());
    Row::fail(check, seen).next(
        "what it looks at hangs: a network disk, a name server, a firewall that drops packets",
    )
}

/// By what little two URLs differ, where it is little.
fn difference(ours: &str, theirs: &str) -> Option<&'static str> {
    let bare = |text: &str| {
        let (_, rest) = text.split_once("://").unwrap_or(("", text));
        rest.trim_end_matches('/').to_owned()
    };
    if ours.trim_end_matches('/') == theirs.trim_end_matches('/') {
        Some("they differ by a trailing slash alone")
    } else if bare(ours) == bare(theirs) {
        Some("they differ by http and https")
    } else if ours.eq_ignore_ascii_case(theirs) {
        Some("they differ in upper and lower case alone")
    } else if bare(ours).trim_start_matches("www.") == bare(theirs).trim_start_matches("www.") {
        Some("they differ by www. alone")
    } else {
        None
    }
}
