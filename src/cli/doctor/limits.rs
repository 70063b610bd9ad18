//! Who is limited by what: how often one may ask, and whether callers can be told apart.

use super::report::Row;
use super::running::Running;
use crate::config::{Settings, StoreSettings};
use ipnet::IpNet;

/// Fewer callers than this tell nothing.
const SOME: f64 = 20.0;

pub(super) fn look(settings: &Settings, running: Option<&Running>) -> Vec<Row> {
    let mut rows = vec![limits(settings)];
    rows.extend(proxies(settings));
    rows.extend(running.and_then(|running| callers(settings, running)));
    rows
}

fn limits(settings: &Settings) -> Row {
    let Some(limits) = settings.rate_limits else {
        return Row::info("limits", "rate limits are off").next("EXCHEQUER_RATE_LIMIT");
    };
    let seen = format!(
        "{} in {} s for a subject, {} in {} s for an address",
        limits.subject.requests,
        limits.subject.window,
        limits.address.requests,
        limits.address.window
    );
    match settings.store {
        StoreSettings::Redis(_) => Row::ok("limits", format!("{seen}, shared by all replicas")),
        _ => Row::info("limits", format!("{seen}, counted by this process alone"))
            .next("with several replicas each grants the whole of it: EXCHEQUER_STORE=redis://… shares them"),
    }
}

fn proxies(settings: &Settings) -> Option<Row> {
    let networks = &settings.trusted_proxies;
    let list = |wanted: &dyn Fn(&IpNet) -> bool| -> Vec<String> {
        let found = networks.iter().filter(|network| wanted(network));
        found.map(ToString::to_string).collect()
    };
    let everybody = list(&|network| network.prefix_len() == 0);
    if !everybody.is_empty() {
        let row = Row::fail(
            "proxies",
            format!("{}: every caller is believed", everybody.join(", ")),
        );
        return Some(row.next("whoever calls names an address of their choice, and no limit holds: EXCHEQUER_TRUSTED_PROXIES must be the proxies' own networks"));
    }
    let wide = list(&|network| {
        let most = if network.addr().is_ipv4() { 8 } else { 32 };
        let private = ["10.0.0.0/8", "fc00::/7"];
        network.prefix_len() < most && !private.contains(&network.to_string().as_str())
    });
    if !wide.is_empty() {
        let row = Row::warn(
            "proxies",
            format!("{}: that is a large part of the internet", wide.join(", ")),
        );
        return Some(row.next("EXCHEQUER_TRUSTED_PROXIES: the proxies' own networks"));
    }
    None
}

/// How many callers' addresses the running service could tell.
fn callers(settings: &Settings, running: &Running) -> Option<Row> {
    settings.rate_limits?;
    let of = |label| running.sum("exchequer_callers_total", label);
    let (known, unknown) = (of("address=\"known\""), of("address=\"unknown\""));
    let all = known + unknown;
    let seen =
        format!("of {all} callers since its start the service could tell the address of {known}");
    let next = "the others came from an internal address that is no configured proxy, or through one that names nobody, and are limited by their subject alone: EXCHEQUER_TRUSTED_PROXIES must name the proxies' networks, and these must append to X-Forwarded-For";
    Some(match all {
        ..SOME => Row::info("proxies", format!("{seen}: too few to judge by")),
        _ if unknown > all / 2.0 => Row::warn("proxies", seen).next(next),
        _ => Row::ok("proxies", seen),
    })
}
