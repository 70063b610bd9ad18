//! Whether the webhooks of each Clerk instance arrive, as the running service counts them.

use super::report::{Row, span};
use super::running::{Running, label};
use crate::clock::Clock;
use crate::config::{IssuerKind, IssuerSettings, Settings};

const CHECK: &str = "webhooks";
/// After this long without any, something is wrong: Clerk tells of each session that begins.
const LONG: i64 = 86_400;

pub(super) fn look(settings: &Settings, running: Option<&Running>) -> Vec<Row> {
    let clerk = |issuer: &&IssuerSettings| issuer.kind == IssuerKind::Clerk;
    let issuers = settings.issuers.iter().filter(clerk);
    let mut rows: Vec<Row> = issuers
        .filter_map(|issuer| Some(of(issuer, settings, running)?.of(&issuer.name)))
        .collect();
    if let Some(running) = running
        && settings
            .issuers
            .iter()
            .any(|each| !each.webhook_secrets.is_empty())
    {
        rows.extend(refused(running));
    }
    rows
}

fn of(issuer: &IssuerSettings, settings: &Settings, running: Option<&Running>) -> Option<Row> {
    if issuer.webhook_secrets.is_empty() {
        return Some(Row::info(CHECK, "no secret: sign-outs and bans at the provider hold here only when tokens end").next(
            "CLERK_WEBHOOK_SIGNING_SECRET, or `webhook_secret` of the issuer (docs/revocation.md)",
        ));
    }
    let running = running?;
    let now = Clock::system().now();
    let up = now - running.started();
    let mut apps = settings.apps.iter();
    let app = apps.find(|app| app.issuers.contains(&issuer.name));
    let app = app.map_or("APP", |app| app.name.as_str());
    let next = format!(
        "is an endpoint {}/webhooks/clerk/{app} registered in the instance's dashboard, and does it reach this service? send an example from there",
        settings.issuer
    );
    let last = running
        .samples("exchequer_webhook_last_event_timestamp_seconds")
        .into_iter()
        .filter(|(labels, _)| label(labels, "issuer") == Some(&issuer.name))
        .max_by(|one, other| one.1.total_cmp(&other.1));
    Some(match last {
        Some((labels, at)) => {
            let ago = now - at as i64;
            let kind = label(labels, "type").unwrap_or_default();
            let seen = format!("the last event came {} ago: {kind}", span(ago));
            match ago {
                ..LONG => Row::ok(CHECK, seen),
                _ => Row::warn(CHECK, seen).next(next),
            }
        }
        None => {
            let seen = format!("no event since this service started, {} ago", span(up));
            // Of several replicas each gets its part.
            match up {
                LONG.. => Row::warn(CHECK, seen).next(next),
                _ => Row::info(CHECK, seen).next(next),
            }
        }
    })
}

/// Webhooks that were refused, by why.
fn refused(running: &Running) -> Option<Row> {
    let requests = running.samples("exchequer_requests_total").into_iter();
    let mut refused: Vec<(&str, f64)> = requests
        .filter(|(labels, _)| label(labels, "route") == Some("webhooks"))
        .filter_map(|(labels, number)| Some((label(labels, "code")?, number)))
        .filter(|(code, _)| *code != "ok")
        .collect();
    refused.sort_by(|one, other| one.0.cmp(other.0));
    if refused.is_empty() {
        return None;
    }
    let named: Vec<String> = refused
        .iter()
        .map(|(code, number)| format!("{number} {code}"))
        .collect();
    let up = Clock::system().now() - running.started();
    let seen = format!(
        "refused since the start {} ago: {}",
        span(up),
        named.join(", ")
    );
    let next = match refused
        .iter()
        .any(|(code, _)| *code == "webhook_signature_invalid")
    {
        true => {
            "CLERK_WEBHOOK_SIGNING_SECRET, or `webhook_secret` of the issuer, must be the secret of this endpoint in the instance's dashboard; anybody may send what is not signed"
        }
        false => "`exchequer errors CODE` says what each means",
    };
    Some(Row::warn(CHECK, seen).next(next))
}
