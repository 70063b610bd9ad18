//! Whether the pages that may call us can: the origins, and what the public URL answers to their
//! preflights (Fetch standard).

use super::report::{Row, count};
use crate::config::{Settings, is_loopback_url};
use crate::subject::address::Reach;
use crate::subject::fetch::Fetcher;
use reqwest::Method;
use url::Url;

const CHECK: &str = "browsers";
/// So many origins are tried.
const MOST: usize = 8;

/// Judges the origins, and sends each one's preflight.
pub(super) async fn look(fetcher: &Fetcher, settings: &Settings) -> Vec<Row> {
    let origins = settings.allowed_origins.as_slice();
    if origins.is_empty() {
        return vec![
            Row::info(CHECK, "no page may call").next("EXCHEQUER_ALLOWED_ORIGINS, where a web app exchanges; native apps and backends need none"),
        ];
    }
    let mut rows = sanity(settings);
    let mut refused = Vec::new();
    let tried = origins.iter().take(MOST);
    let answers = tried.map(|origin| preflight(fetcher, &settings.issuer, origin));
    for (origin, fault) in origins
        .iter()
        .zip(futures_util::future::join_all(answers).await)
    {
        if let Some(fault) = fault {
            refused.push(format!("{origin}: {fault}"));
        }
    }
    if refused.is_empty() {
        let seen = format!(
            "preflights of {} pass",
            count(origins.len().min(MOST), "origin")
        );
        rows.insert(0, Row::ok(CHECK, seen));
    } else {
        let row = Row::fail(
            CHECK,
            format!("preflights do not pass: {}", refused.join("; ")),
        );
        rows.push(row.next("the proxy answers them itself, or changes their headers: let it pass OPTIONS and Access-Control-* unchanged; or the running service has other EXCHEQUER_ALLOWED_ORIGINS"));
    }
    rows
}

fn sanity(settings: &Settings) -> Vec<Row> {
    if is_loopback_url(&settings.issuer) {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for origin in &settings.allowed_origins {
        let seen = if is_loopback_url(origin) && origin.starts_with("http") {
            format!("{origin} is whatever runs on a user's own machine")
        } else if origin.starts_with("http://") {
            format!("{origin} has no TLS: who is between reads its tokens")
        } else {
            continue;
        };
        rows.push(Row::warn(CHECK, seen).next(
            "EXCHEQUER_ALLOWED_ORIGINS of a public service: https origins of the apps' pages alone",
        ));
    }
    rows
}

/// What is wrong with the answer to an origin's preflight.
async fn preflight(fetcher: &Fetcher, issuer: &str, origin: &str) -> Option<String> {
    let url = Url::parse(&format!("{issuer}/auth/exchange")).ok()?;
    let ask = |request: reqwest::RequestBuilder| {
        request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
    };
    let reply = fetcher.send(Method::OPTIONS, &url, Reach::Private, ask);
    let reply = match reply.await {
        Ok(reply) => reply,
        Err(error) => return Some(error.to_string()),
    };
    if !(200..300).contains(&reply.status) {
        return Some(format!("it answered {}", reply.status));
    }
    let allowed = reply.headers.get_all("access-control-allow-origin");
    let allowed: Vec<&str> = allowed
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let headers = reply.headers.get_all("access-control-allow-headers").iter();
    let content_type = headers
        .filter_map(|value| value.to_str().ok())
        .any(|list| list.to_ascii_lowercase().contains("content-type"));
    match allowed.as_slice() {
        [one] if *one != origin => Some(format!("it allows {one}")),
        [_] if !content_type => Some("it does not allow content-type".to_owned()),
        [_] => None,
        [] => Some("it allows no origin".to_owned()),
        _ => Some("Access-Control-Allow-Origin is there twice".to_owned()),
    }
}
