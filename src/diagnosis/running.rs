//! Asking the running service whether a token of ours still stands: it alone can say so while it
//! has its store open. It is asked at its own listener, and shown the token only if it publishes
//! the token's key.

use super::{Diagnosis, Parts};
use crate::explain::Code;
use crate::gate::Demand;
use crate::subject::address::Reach;
use crate::subject::jwks::public_keys;
use reqwest::Method;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::Url;

/// What ends a token before its time.
const ENDS: [Code; 6] = [
    Code::SessionRevoked,
    Code::UserDeleted,
    Code::OrganizationDeleted,
    Code::MembershipChanged,
    Code::TokenRevoked,
    Code::RefreshTokenRevoked,
];

/// The code by which the token was revoked, or that it was not; `None` where nobody could be
/// asked, or the answer is about something else.
pub(super) async fn ask(
    here: &Diagnosis,
    parts: &Parts,
    token: &str,
    demand: Demand<'_>,
) -> Option<Option<Code>> {
    let mut address = here.settings.listen;
    if address.port() == 0 {
        return None;
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let base = Url::parse(&format!("http://{address}")).ok()?;
    let fetcher = &here.fetcher;
    let keys = base.join("/.well-known/jwks.json").ok()?;
    let document = fetcher.get(&keys, Reach::Private).await.ok()?;
    let kid = parts.header.get("kid").and_then(Value::as_str)?;
    if !public_keys(&document.body)
        .iter()
        .any(|(each, _)| each == kid)
    {
        return None;
    }
    let mut url = base.join("/auth/verify").ok()?;
    for (name, value) in [("app", demand.app), ("audience", demand.audience)] {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    let sent = fetcher.send(Method::GET, &url, Reach::Private, |request| {
        request.bearer_auth(token)
    });
    let reply = sent.await.ok()?;
    if reply.status == 200 {
        return Some(None);
    }
    let answer: Value = serde_json::from_slice(&reply.body).ok()?;
    let code = Code::from_slug(answer.get("code")?.as_str()?)?;
    ENDS.contains(&code).then_some(Some(code))
}
