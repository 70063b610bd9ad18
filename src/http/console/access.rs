//! Who may see the console: whoever is on this machine, or has its token; and of a browser's
//! pages its own alone.
//!
//! A browser takes pages of the whole web, and they can ask for addresses on loopback. Without a
//! token a page of another site is kept out by the name that it must use (DNS rebinding makes a
//! name of its own lead here, but the request still has that name) and by what the browser says
//! of where a request comes from. A token is none that a browser sends by itself.

use crate::clock::Clock;
use crate::config::{ConsoleSettings, is_loopback_host};
use crate::crypto::is_secret;
use crate::explain::{Code, Refusal};
use crate::http::headers::bearer;
use http::header::ORIGIN;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use secrecy::SecretString;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a proxy adds: then the peer on loopback is nobody on this machine.
const FORWARDED: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "via",
];
/// So many wrong tokens an address may send in this time.
const WRONG: (usize, Duration) = (10, Duration::from_secs(60));
/// The most wrong tokens that are remembered.
const REMEMBERED: usize = 256;

/// What lets somebody in.
pub struct Access {
    clock: Clock,
    /// Without one, whoever is on this machine.
    token: Option<SecretString>,
    wrong: Mutex<VecDeque<(IpAddr, Duration)>>,
}

/// What a request says of where it comes from.
pub(super) struct Asked<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The name that the service was asked by.
    pub(super) authority: Option<&'a Authority>,
    pub(super) peer: Option<SocketAddr>,
}

impl Access {
    /// For a listener at this address; none where nothing protects it there. `admin_token` is
    /// the one that whoever may read the service's files has.
    pub fn new(
        settings: Option<&ConsoleSettings>,
        listener: Option<SocketAddr>,
        admin_token: Option<&SecretString>,
        clock: Clock,
    ) -> Option<Self> {
        let settings = settings?;
        let token = match (&settings.token, listener) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(address)) if address.ip().is_loopback() => None,
            (None, _) => Some(admin_token?.clone()),
        };
        Some(Self {
            clock,
            token,
            wrong: Mutex::default(),
        })
    }

    /// Whether the page may be shown, which says nothing by itself: a link of another site may
    /// lead to it.
    pub(super) fn page(&self, asked: &Asked<'_>) -> Result<(), Box<Refusal>> {
        if self.token.is_some() || asked.is_local() {
            Ok(())
        } else {
            Err(Refusal::new(Code::ConsoleNotLocal))
        }
    }

    /// Whether the page's data may be shown.
    pub(super) fn data(&self, asked: &Asked<'_>) -> Result<(), Box<Refusal>> {
        self.page(asked)?;
        if !asked.is_of_the_page() {
            return Err(Refusal::new(Code::ConsoleNotLocal));
        }
        self.token
            .as_ref()
            .map_or(Ok(()), |token| self.shown(token, asked))
    }

    fn shown(&self, token: &SecretString, asked: &Asked<'_>) -> Result<(), Box<Refusal>> {
        let refused = || Err(Refusal::new(Code::ConsoleTokenInvalid));
        let Ok(Some(sent)) = bearer(asked.headers) else {
            return refused();
        };
        let now = self.clock.monotonic();
        let (most, within) = WRONG;
        let address = asked.peer.map(|peer| peer.ip().to_canonical());
        // Nothing panics while it is held; if it ever did, the list is still whole.
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|(_, at)| now < *at + within);
        let of_this = |each: &&(IpAddr, Duration)| Some(each.0) == address;
        if wrong.iter().filter(of_this).count() >= most {
            let first = wrong.iter().find(of_this).map(|(_, at)| *at + within);
            let left = first.unwrap_or_default().saturating_sub(now);
            let mut refusal = Refusal::new(Code::ConsoleTriedTooOften);
            refusal.retry_after = Some(left.as_secs() + 1);
            return Err(refusal);
        }
        if is_secret(sent, token) {
            return Ok(());
        }
        if let Some(address) = address {
            if wrong.len() >= REMEMBERED {
                wrong.pop_front();
            }
            wrong.push_back((address, now));
        }
        refused()
    }
}

impl Asked<'_> {
    /// Whether it was made on this machine, by this machine's name.
    fn is_local(&self) -> bool {
        let host = self.authority.map(Authority::host);
        host.is_some_and(|host| is_loopback_host(&host.to_ascii_lowercase()))
            && FORWARDED
                .iter()
                .all(|name| !self.headers.contains_key(*name))
    }

    /// Whether the console's own page made it, or no page at all.
    fn is_of_the_page(&self) -> bool {
        let site = self.headers.get(SEC_FETCH_SITE);
        let site = site.is_none_or(|site| site == "same-origin" || site == "none");
        let own = |origin: &str| {
            let rest = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            rest.is_some_and(|rest| self.authority.is_some_and(|own| own.as_str() == rest))
        };
        let origin = self.headers.get(ORIGIN);
        let origin = origin.is_none_or(|origin| origin.to_str().is_ok_and(own));
        site && origin
    }
}
