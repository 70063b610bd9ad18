//! The console: one page on the admin listener for whoever runs the service, and what it shows.
//!
//! The page is a few files that are part of the binary. It asks nobody but this listener, keeps
//! nothing, and what is pasted into it is explained and forgotten.

pub mod access;
mod explain;
mod shown;

use super::admin::Admin;
use super::doors::Doors;
use super::history::History;
use super::recent::Recent;
use super::route::Route;
use super::routes::{GET, only, query};
use super::{answer, caller::Peer};
use crate::clock::UnixSeconds;
use crate::diagnosis::Diagnosis;
use crate::exchange::Exchange;
use crate::explain::{Code, Refusal};
use access::{Access, Asked};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use warp::Filter;
use warp::reply::Response as Answer;

const PATH: &str = "/console";
const JS: &str = "text/javascript; charset=utf-8";
/// How many credentials are explained at once; others wait.
const AT_ONCE: usize = 2;

/// The files of the page, each under its path.
const FILES: [(&str, &str, &str); 12] = [
    (
        PATH,
        "text/html; charset=utf-8",
        include_str!("console/page/index.html"),
    ),
    (
        "/console/style.css",
        "text/css; charset=utf-8",
        include_str!("console/page/style.css"),
    ),
    (
        "/console/icon.svg",
        "image/svg+xml",
        include_str!("console/page/icon.svg"),
    ),
    ("/console/main.js", JS, include_str!("console/page/main.js")),
    ("/console/dom.js", JS, include_str!("console/page/dom.js")),
    (
        "/console/catalogue.js",
        JS,
        include_str!("console/page/catalogue.js"),
    ),
    (
        "/console/issuers.js",
        JS,
        include_str!("console/page/issuers.js"),
    ),
    ("/console/keys.js", JS, include_str!("console/page/keys.js")),
    (
        "/console/requests.js",
        JS,
        include_str!("console/page/requests.js"),
    ),
    (
        "/console/service.js",
        JS,
        include_str!("console/page/service.js"),
    ),
    (
        "/console/refusals.js",
        JS,
        include_str!("console/page/refusals.js"),
    ),
    (
        "/console/explain.js",
        JS,
        include_str!("console/page/explain.js"),
    ),
];

/// What each answer below the console's path has. Nothing comes from elsewhere or goes there, no
/// text becomes markup or code, and nobody frames, opens or keeps it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        HeaderName::from_static("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// What the console knows of the service, beside what the admin listener does.
pub struct Console {
    /// Who may see it.
    pub access: Access,
    /// The exchange, its keys and its issuers.
    pub exchange: Arc<Exchange>,
    /// What explains a pasted text.
    pub diagnosis: Diagnosis,
    /// The last refusals.
    pub recent: Arc<Recent>,
    /// How requests ended.
    pub history: Arc<History>,
    /// Where requests run, and explanations: the admin listener's own thread is for probes.
    pub requests: Handle,
    /// When the service started.
    pub started_at: UnixSeconds,
    /// How many credentials may be explained now.
    pub explaining: Semaphore,
}

impl Console {
    /// Places for as many explanations as are made at once.
    pub fn places() -> Semaphore {
        Semaphore::new(AT_ONCE)
    }
}

/// Adds the headers of the console to an answer below its path.
pub(super) fn protect(path: &str, headers: &mut HeaderMap) {
    if path == PATH || path.starts_with("/console/") {
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// What a request says of where it comes from.
#[derive(Clone)]
struct From {
    headers: HeaderMap,
    authority: Option<Authority>,
    peer: Option<Peer>,
}

impl From {
    fn asked(&self) -> Asked<'_> {
        Asked {
            headers: &self.headers,
            authority: self.authority.as_ref(),
            peer: self.peer.map(|Peer(address)| address),
        }
    }
}

fn told(answer: Result<Answer, Box<Refusal>>) -> Answer {
    answer.unwrap_or_else(answer::refused)
}

fn on(admin: &Admin) -> Result<&Arc<Console>, Box<Refusal>> {
    let console = admin.console.as_ref();
    console.ok_or_else(|| Refusal::new(Code::ConsoleOff))
}

fn file(
    admin: &Admin,
    from: &From,
    kind: &'static str,
    text: &'static str,
) -> Result<Answer, Box<Refusal>> {
    on(admin)?.access.page(&from.asked())?;
    Ok(answer::plain(StatusCode::OK, kind, text))
}

/// The way from the listener's root to the page, where there is one.
fn root(admin: &Admin, from: &From) -> Result<Answer, Box<Refusal>> {
    let console = admin.console.as_ref();
    let console = console.ok_or_else(|| Refusal::new(Code::NotFound))?;
    console.access.page(&from.asked())?;
    let mut answer = answer::plain(StatusCode::FOUND, "text/plain; charset=utf-8", "/console\n");
    let headers = answer.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static(PATH));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// The routes of the console.
pub(super) fn routes(admin: &Arc<Admin>) -> Doors {
    let admin = Arc::clone(admin);
    let admin = warp::any().map(move || Arc::clone(&admin));
    let from = warp::header::headers_cloned()
        .and(warp::host::optional())
        .and(warp::ext::optional::<Peer>())
        .map(|headers, authority, peer| From {
            headers,
            authority,
            peer,
        });
    let get = || only(GET);
    let files = FILES.map(|(path, kind, text)| {
        let file = get()
            .and(admin.clone())
            .and(from)
            .map(move |admin: Arc<Admin>, from: From| told(file(&admin, &from, kind, text)));
        (path, file)
    });
    let root = get()
        .and(admin.clone())
        .and(from)
        .map(|admin: Arc<Admin>, from: From| told(root(&admin, &from)));
    let data = get().and(admin.clone()).and(from).and(query()).map(
        |admin: Arc<Admin>, from: From, query: String| {
            told(shown::data(&admin, &from.asked(), &query))
        },
    );
    let catalogue = get()
        .and(admin.clone())
        .and(from)
        .map(|admin: Arc<Admin>, from: From| told(shown::catalogue(&admin, &from.asked())));
    let explain = only("POST")
        .and(admin)
        .and(from)
        .and(warp::body::stream())
        .then(|admin: Arc<Admin>, from: From, body| async move {
            told(explain::answer(&admin, &from.asked(), body).await)
        });
    let doors = Doors::default()
        .at(Route::Other, "/", root)
        .at(Route::Other, "/console/data", data)
        .at(Route::Other, "/console/catalogue", catalogue)
        .at(Route::Other, "/console/explain", explain);
    files.into_iter().fold(doors, |doors, (path, file)| {
        doors.at(Route::Other, path, file)
    })
}
