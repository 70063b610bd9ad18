//! A document at our public URL, judged as a verifier's library would meet it: no redirect, no
//! page for people, nothing that a proxy changed.

use super::difference;
use super::report::Row;
use crate::subject::address::Reach;
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use reqwest::Method;
use std::time::{Duration, Instant};
use url::Url;

/// Nimbus gives up after as long, and reads as much.
const SLOW: Duration = Duration::from_millis(500);
const LARGE: usize = 50 * 1024;

/// A document that was had: 200, and no page for people.
pub(super) struct Page {
    pub(super) reply: Reply,
    took: Duration,
}

/// Fetches `{base}{path}`; what a verifier could not take is a row.
pub(super) async fn get(
    fetcher: &Fetcher,
    check: &'static str,
    base: &str,
    path: &str,
) -> Result<Page, Row> {
    let text = format!("{base}{path}");
    let route = format!("let the proxy pass {path} to EXCHEQUER_LISTEN, unchanged");
    let Ok(url) = Url::parse(&text) else {
        return Err(Row::fail(check, format!("{text} is no URL")).next("EXCHEQUER_ISSUER"));
    };
    let began = Instant::now();
    // Our own address may be inside the network: that is not an upstream's word.
    let reply = fetcher.send(Method::GET, &url, Reach::Private, |request| request);
    let reply = reply
        .await
        .map_err(|error| Row::fail(check, format!("{text}: {error}")).next(unreached(&error)))?;
    let took = began.elapsed();
    let status = reply.status;
    match status {
        200 if is_html(&reply) => {
            let seen = format!("{text}: 200 with a page for people{}", title(&reply));
            Err(Row::fail(check, seen).next(format!(
                "a sign-in wall, a CDN's challenge or another website answers{}: {route}, without sign-in",
                server(&reply)
            )))
        }
        200 => Ok(Page { reply, took }),
        300..=399 => Err(redirected(check, &url, &reply, path)),
        401 | 403 => Err(Row::fail(
            check,
            format!("{text}: it answered {status}{}", server(&reply)),
        )
        .next(format!(
            "verifiers have no credentials: {route}, without sign-in"
        ))),
        _ => Err(Row::fail(
            check,
            format!("{text}: it answered {status}{}", server(&reply)),
        )
        .next(format!(
            "does EXCHEQUER_ISSUER name this service, path and all? {route}"
        ))),
    }
}

fn redirected(check: &'static str, url: &Url, reply: &Reply, path: &str) -> Row {
    let to = header(reply, "location").and_then(|to| url.join(to).ok());
    // What follows the path may hold a state, or a token.
    let bare = to.map(|mut to| {
        to.set_query(None);
        to.set_fragment(None);
        // Both fail only for URLs that can have neither.
        let _ = to.set_username("");
        let _ = to.set_password(None);
        to.to_string()
    });
    let seen = format!(
        "{url}: it redirects ({}) to {}: jose, PyJWT, jwks-rsa and Envoy do not follow",
        reply.status,
        bare.as_deref().unwrap_or("nowhere")
    );
    let base = bare.as_deref().and_then(|to| to.strip_suffix(path));
    Row::fail(check, seen).next(match (base, bare.as_deref()) {
        (Some(base), _) => format!(
            "if that is the public address: EXCHEQUER_ISSUER={base}; else end the redirect at the proxy"
        ),
        (None, Some(to)) if difference(url.as_str(), to).is_some() => {
            format!("the proxy rewrites addresses: end that for {path}")
        }
        _ => format!("a sign-in wall? let the proxy pass {path} without sign-in"),
    })
}

/// What to do where there was no answer.
fn unreached(error: &FetchError) -> &'static str {
    let FetchError::Transport(text) = error else {
        return match error {
            FetchError::TooLarge => {
                "that is no document of ours: does EXCHEQUER_ISSUER name this service?"
            }
            _ => {
                "verifiers wait for as long: does EXCHEQUER_ISSUER name this service, and does it run?"
            }
        };
    };
    let known = [
        (
            "UnknownIssuer",
            "its certificate leads to no authority that this machine trusts: let the proxy send the whole chain (fullchain.pem), or take a certificate of a public authority",
        ),
        (
            "Expired",
            "its certificate has expired: renew it at the proxy",
        ),
        (
            "expired",
            "its certificate has expired: renew it at the proxy",
        ),
        (
            "not valid for name",
            "its certificate is for another name: EXCHEQUER_ISSUER must be a name in it",
        ),
        (
            "InvalidContentType",
            "it speaks no TLS there: is the port in EXCHEQUER_ISSUER that of https?",
        ),
        (
            "HandshakeFailure",
            "it takes no TLS 1.2 or 1.3 of ours: look at the proxy's TLS settings, and whether it knows this name",
        ),
        (
            "refused",
            "nobody listens there: does the service run, and does EXCHEQUER_ISSUER name it, port and all?",
        ),
        (
            "lookup",
            "the name is not known from here: does EXCHEQUER_ISSUER have a DNS record?",
        ),
    ];
    let found = known.iter().find(|(part, _)| text.contains(part));
    found.map_or(
        "does EXCHEQUER_ISSUER name this service, and is it reached from here?",
        |(_, next)| next,
    )
}

impl Page {
    /// What it is like, in a few words.
    pub(super) fn facts(&self) -> String {
        let age = header(&self.reply, "cache-control").unwrap_or("no Cache-Control");
        format!(
            "200, no redirect, {} ms, {} bytes, {age}",
            self.took.as_millis(),
            self.reply.body.len()
        )
    }

    /// What verifiers and browsers would stumble over, each with what to do.
    pub(super) fn faults(&self, check: &'static str) -> Vec<Row> {
        let reply = &self.reply;
        let mut rows = Vec::new();
        let mut warn = |seen: String, next: &str| rows.push(Row::warn(check, seen).next(next));
        let kind = header(reply, "content-type").unwrap_or("nothing");
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            warn(
                format!("its Content-Type is {kind}, not application/json"),
                "some verifiers read nothing else: a proxy changes it",
            );
        }
        let cache = header(reply, "cache-control").unwrap_or("nothing");
        if !(60..=3600).contains(&max_age(cache)) {
            warn(
                format!("its Cache-Control is {cache}, not public, max-age=300"),
                "some verifiers (Hasura, Go jwx) refresh by nothing else: never without it, each second with no-store, and late with a long one; a proxy or CDN changes it",
            );
        }
        let origin = header(reply, "access-control-allow-origin");
        if origin != Some("*")
            || reply
                .headers
                .get_all("access-control-allow-origin")
                .iter()
                .count()
                > 1
        {
            warn(
                format!(
                    "its Access-Control-Allow-Origin is {}, not *",
                    origin.unwrap_or("nothing")
                ),
                "verifiers in browsers cannot read it: let the proxy leave the header as it is",
            );
        }
        if reply.body.len() > LARGE {
            warn(
                format!("it has {} bytes", reply.body.len()),
                "Nimbus and Spring read 50 KiB at most: is that ours?",
            );
        }
        if self.took > SLOW {
            warn(
                format!("it took {} ms", self.took.as_millis()),
                "Nimbus and Spring give up after 500 ms: the service answers from memory, so look at the way there",
            );
        }
        rows
    }
}

/// `max-age`; 0 where it says not to store, or nothing.
fn max_age(cache: &str) -> u64 {
    let lower = cache.to_ascii_lowercase();
    if lower.contains("no-store") || lower.contains("no-cache") {
        return 0;
    }
    let found = lower
        .split(',')
        .find_map(|each| each.trim().strip_prefix("max-age="));
    found
        .and_then(|text| text.trim_matches('"').parse().ok())
        .unwrap_or_default()
}

fn is_html(reply: &Reply) -> bool {
    let kind = header(reply, "content-type").unwrap_or_default();
    kind.starts_with("text/html") || reply.body.trim_ascii_start().starts_with(b"<")
}

/// The title of a page for people.
fn title(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    let title = text
        .split_once("<title>")
        .and_then(|(_, rest)| Some(rest.split_once("</title>")?.0.trim()));
    title.map_or(String::new(), |title| {
        let short: String = title.chars().take(60).collect();
        format!(", {short:?}")
    })
}

/// Who answered, as far as they say.
pub(super) fn server(reply: &Reply) -> String {
    let server = header(reply, "server").map(|name| name.chars().take(60).collect::<String>());
    server.map_or(String::new(), |name| format!(" ({name})"))
}

/// A header, where it is text.
pub(super) fn header<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
    reply.headers.get(name)?.to_str().ok()
}
