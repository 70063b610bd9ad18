//! What the page shows: the key ring, the issuers' key sets, how requests ended, the last
//! refusals; and the catalogue.

use super::access::Asked;
use super::{Console, on};
use crate::clock::UnixSeconds;
use crate::explain::catalogue::Entry;
use crate::explain::{Check, Code, Refusal};
use crate::http::admin::Admin;
use crate::http::answer;
use crate::keys::published::Life;
use crate::subject::key_cache::{KeyCache, Standing};
use crate::token::read;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warp::reply::Response as Answer;

type Refused = Box<Refusal>;

/// `GET /console/data`: all that changes. With `?after=N` the refusals after that one.
pub(super) fn data(admin: &Admin, asked: &Asked<'_>, query: &str) -> Result<Answer, Refused> {
    let console = on(admin)?;
    console.access.data(asked)?;
    let after = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("after=")?.parse().ok())
        .unwrap_or_default();
    let (count, refusals) = console.recent.after(after);
    let now = console.exchange.clock.now();
    let body = json!({
        "now": now,
        "service": service(admin, console),
        "keys": keys(console, now),
        "issuers": issuers(admin, console),
        "history": console.history.show(),
        "refusals": {"count": count, "list": refusals},
        "checks": {"exchange": Check::ALL, "own": read::CHECKS},
    });
    Ok(answer::ok(&body, 16 * 1024))
}

fn service(admin: &Admin, console: &Console) -> Value {
    let ready = admin.ready();
    json!({
        "issuer": console.exchange.issuer,
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": console.started_at,
        "ready": ready.is_ok(),
        "why": ready.err().map(str::trim_end),
    })
}

/// The ring, and for each algorithm what happens next, soonest first.
fn keys(console: &Console, now: UnixSeconds) -> Value {
    let published = console.exchange.keys.published();
    /// When, what and to which key.
    type Event<'k> = (UnixSeconds, &'static str, &'k str);
    let mut algorithms: BTreeMap<&str, (Vec<Value>, Vec<Event<'_>>)> = BTreeMap::new();
    for key in &published.overview {
        let Life {
            published_at,
            signs_at,
            retires_at,
            gone_at,
        } = key.life;
        let (keys, events) = algorithms.entry(key.alg).or_default();
        keys.push(json!({
            "kid": key.kid,
            "state": key.state.name(),
            "published_at": published_at,
            "signs_at": signs_at,
            "retires_at": retires_at,
            "gone_at": gone_at,
        }));
        for (at, what) in [
            (signs_at, "signs"),
            (retires_at, "retires"),
            (gone_at, "gone"),
        ] {
            events.extend(at.filter(|at| *at > now).map(|at| (at, what, &*key.kid)));
        }
    }
    let algorithms = algorithms.into_iter().map(|(alg, (keys, mut events))| {
        events.sort_unstable();
        let events = events
            .into_iter()
            .map(|(at, what, kid)| json!({"at": at, "what": what, "kid": kid}));
        json!({"alg": alg, "keys": keys, "events": events.collect::<Vec<_>>()})
    });
    json!({
        "generation": published.generation,
        "algorithms": algorithms.collect::<Vec<_>>(),
    })
}

/// The issuers that apps trust, then the clients whose keys are fetched.
fn issuers(admin: &Admin, console: &Console) -> Vec<Value> {
    let mut apps: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut trusted = BTreeMap::new();
    for app in console.exchange.apps.iter() {
        for issuer in &app.issuers {
            let name = issuer.settings.name.as_str();
            trusted.insert(name, issuer);
            apps.entry(name).or_default().insert(&app.settings.name);
        }
    }
    let of_issuers = trusted.iter().map(|(name, issuer)| {
        let signs = issuer.settings.kind.signs();
        let keys = signs.then(|| standing(&issuer.keys.standing()));
        json!({
            "name": name,
            "issuer": issuer.settings.issuer,
            "kind": issuer.settings.kind.name(),
            "apps": apps.get(name),
            "key_set": keys,
        })
    });
    let of_an_issuer =
        |keys: &Arc<KeyCache>| trusted.values().any(|each| Arc::ptr_eq(&each.keys, keys));
    let of_clients = admin.key_sets.iter().filter(|keys| !of_an_issuer(keys));
    let of_clients = of_clients.map(|keys| {
        json!({
            "name": keys.name(),
            "kind": "client",
            "key_set": standing(&keys.standing()),
        })
    });
    of_issuers.chain(of_clients).collect()
}

fn standing(standing: &Standing) -> Value {
    json!({
        "configured": standing.configured,
        "keys": standing.keys,
        "age": standing.age,
        "failures": standing.failures,
        "failed": standing.failed.as_ref().map(|failed| json!({
            "code": failed.code.entry().slug,
            "cause": failed.cause,
            "age": failed.age,
        })),
    })
}

/// `GET /console/catalogue`: every code, its cause and its mending.
pub(super) fn catalogue(admin: &Admin, asked: &Asked<'_>) -> Result<Answer, Refused> {
    on(admin)?.access.data(asked)?;
    let entries = Code::ALL.iter().map(|code| {
        let Entry {
            slug,
            error,
            status,
            action,
            sentence,
            cause,
            confirm,
            mend,
            clerk,
            ..
        } = code.entry();
        json!({
            "code": slug,
            "error": error,
            "status": status,
            "action": action.name(),
            "sentence": sentence,
            "cause": cause,
            "confirm": confirm,
            "mend": mend,
            "clerk": clerk,
        })
    });
    Ok(answer::ok(&entries.collect::<Vec<_>>(), 128 * 1024))
}
