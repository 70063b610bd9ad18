//! `/auth/verify`, for gateways: who is it that sends this request?
//!
//! Any method is answered, for some gateways ask with the method of the request that they ask
//! about. What is the client's fault is answered 401 or 403, since nginx takes anything else
//! for a failure of its own; what is the gateway's configuration, 400.
//!
//! A 200 always has every identity header, empty where there is nothing to say, so that a
//! gateway that copies them overwrites whatever a client smuggled in.

use super::admission::Admission;
use super::headers::{self, Scheme, are_scopes};
use super::identity_signature::{self, Original};
use super::{answer, dpop, front, ids, resource};
use crate::clock::UnixSeconds;
use crate::dpop::Proof;
use crate::explain::{Code, Ladder, Refusal};
use crate::gate::{Admitted, Demand, Gate, Identity, Shown, Whose};
use http::Request;
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue, VARY};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::Arc;
use url::form_urlencoded;
use warp::reply::Response as Answer;

/// Where gateways ask.
pub const PATH: &str = "/auth/verify";

/// The identity headers, in the order in which they are signed.
pub(super) static IDENTITY: [HeaderName; 7] = [
    HeaderName::from_static("x-app"),
    HeaderName::from_static("x-user-id"),
    HeaderName::from_static("x-org-id"),
    HeaderName::from_static("x-roles"),
    HeaderName::from_static("x-scopes"),
    HeaderName::from_static("x-rate-limit-key"),
    HeaderName::from_static("x-client-id"),
];
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const NOTHING: HeaderValue = HeaderValue::from_static("");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const VARIES: HeaderValue = HeaderValue::from_static("authorization, cookie");
/// Clerk's session cookie. Its SDK writes a second one, with a suffix, for sites that have
/// several Clerk applications: this one it writes too.
const SESSION_COOKIE: &[u8] = b"__session";
/// The most bytes that remembered identities may take, and the least that one counts for: so
/// there are never more than 30,000 of them.
const MAX_REMEMBERED: u64 = 64 * 1024 * 1024;
const LEAST_WEIGHT: u64 = MAX_REMEMBERED / 30_000;
/// How many headers an answer has.
const HEADERS: usize = 16;

/// The values of the identity headers, in their order.
type Values = [HeaderValue; 7];

/// An identity as it is answered: with the headers, so that they need not be put together for
/// each request.
struct Entry {
    admitted: Admitted,
    headers: HeaderMap,
}

impl Entry {
    fn new(admitted: Admitted) -> Self {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(VARY, VARIES);
        for (name, value) in IDENTITY.iter().zip(values(&admitted.identity)) {
            headers.insert(name.clone(), value);
        }
        headers.insert(SIGNATURE, NOTHING);
        // The front's own: with their places there, a copy of the map need not grow.
        headers.insert(front::NOSNIFF.0, front::NOSNIFF.1);
        headers.insert(ids::REQUEST_ID, NOTHING);
        Self { admitted, headers }
    }
}

/// Weighs entries in bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<u128, Arc<Entry>> for Bytes {
    fn weight(&self, _: &u128, entry: &Arc<Entry>) -> u64 {
        let values: usize = entry.headers.values().map(HeaderValue::len).sum();
        // Each text is held twice; the rest is the map of headers and the entry itself.
        (values as u64 * 2 + 2048).max(LEAST_WEIGHT)
    }
}

/// What was verified, by the hash of what was shown and demanded: everything that the verdict
/// depends on.
///
/// The hash is 128 bits of SipHash-1-3 under a key drawn at the start. Nobody sees the key or
/// a hash, so whoever looks for a text with the hash of another's has nothing better than to
/// try 2¹²⁸ of them here: of two texts that differ in any known way, 2¹⁶⁷ (Dobraunig, Mendel,
/// Schläffer, "Differential Cryptanalysis of SipHash", SAC 2014).
struct Remembered {
    hasher: SipHasher13,
    entries: Cache<u128, Arc<Entry>, Bytes>,
}

impl Remembered {
    fn new() -> Self {
        Self {
            hasher: SipHasher13::new_with_key(&rand::random()),
            entries: Cache::with_weighter(1000, MAX_REMEMBERED, Bytes),
        }
    }

    fn key(&self, shown: Shown<'_>, demand: Demand<'_>) -> u128 {
        let mut hasher = self.hasher;
        (shown, demand).hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}

/// The door.
pub struct Verify {
    gate: Gate,
    remembered: Option<Remembered>,
    admission: Arc<Admission>,
}

impl Verify {
    /// The door before a gate; with `remembering`, what was verified is.
    pub fn new(gate: Gate, remembering: bool, admission: Arc<Admission>) -> Self {
        Self {
            gate,
            admission,
            remembered: remembering.then(Remembered::new),
        }
    }

    /// Answers a gateway.
    pub async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let mut ladder = Ladder::default();
        match self.attempt(request, &mut ladder).await {
            Ok(headers) => answer::identity(headers),
            Err(mut refusal) => {
                // An exchange that was looked at brings its own.
                if refusal.ladder.failure().is_none() {
                    refusal.ladder = ladder;
                }
                let token = headers::token(request.headers());
                refusal.resource_metadata = Some(resource::url(self.gate.issuer()));
                refusal.dpop |= matches!(token, Ok(Some((Scheme::Dpop, _))));
                answer::refused(refusal)
            }
        }
    }

    async fn attempt<B>(
        &self,
        request: &Request<B>,
        ladder: &mut Ladder,
    ) -> Result<HeaderMap, Box<Refusal>> {
        let _place = self.admission.enter().await?;
        let headers = request.headers();
        let asked = Asked::parse(request.uri().query())?;
        let demand = Demand {
            app: asked.app.as_deref(),
            audience: asked.audience.as_deref(),
        };
        let token = headers::shown(headers).map_err(|_| Refusal::new(Code::BearerMalformed))?;
        let shown = match token {
            Some((Scheme::Bearer, token)) => Shown::Bearer(token),
            Some((Scheme::Dpop, token)) => Shown::Dpop(token),
            None if self.gate.looks_at_cookies(demand.app) => {
                let cookie = session_cookie(headers)?;
                Shown::Cookie(cookie.ok_or_else(|| Refusal::new(Code::BearerMissing))?)
            }
            None => return Err(Refusal::new(Code::BearerMissing)),
        };
        let now = self.gate.now();
        let entry = self.entry(shown, demand, now, ladder).await?;
        let admitted = &entry.admitted;
        let proof = self.sent_by(admitted, shown, headers, now)?;
        self.gate.stands(admitted, now, ladder).await?;
        if let Some(needed) = &asked.scope {
            demand_scopes(needed, &admitted.identity)?;
        }
        if let Some(proof) = &proof {
            // Last: nginx asks again for the words of a refusal.
            self.gate.use_up(proof, now)?;
        }
        let mut answered = entry.headers.clone();
        if let Some(key) = &admitted.signing_key {
            let original = Original::read(headers)?;
            let signature = identity_signature::sign(key, &original, &answered, now);
            answered.insert(SIGNATURE, signature);
        }
        dpop::tell(proof.as_ref(), &mut answered);
        if let Some(key) = headers.get(IDEMPOTENCY_KEY) {
            answered.insert(IDEMPOTENCY_KEY, key.clone());
        }
        Ok(answered)
    }

    /// Whether whoever shows the token has its key: the proof is of the request that the gateway
    /// asks about. Of that the gateway tells method and path, as for the signature; where it is
    /// reached is configured, for the gateway itself has it from the client's `Host`, and a
    /// proof that was made for somebody else's server must not pass here.
    fn sent_by(
        &self,
        admitted: &Admitted,
        shown: Shown<'_>,
        headers: &HeaderMap,
        now: UnixSeconds,
    ) -> Result<Option<Proof>, Box<Refusal>> {
        let Shown::Dpop(token) = shown else {
            return self.gate.sent_by(admitted, shown, None, now);
        };
        let Some(proof) = dpop::proof(headers)? else {
            return self.gate.sent_by(admitted, shown, None, now);
        };
        let original = Original::read(headers)?;
        let origins = self.gate.origins(admitted).into_iter();
        let uris: Vec<String> = origins
            .map(|origin| format!("{origin}{}", original.target))
            .collect();
        let proof = crate::dpop::Shown {
            proof,
            method: original.method,
            uris: &uris,
            token: Some(token),
        };
        self.gate.sent_by(admitted, shown, Some(proof), now)
    }

    /// What was verified before, if it still holds, or is now.
    async fn entry(
        &self,
        shown: Shown<'_>,
        demand: Demand<'_>,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Arc<Entry>, Box<Refusal>> {
        let verified = async {
            // Only now: what was remembered was sound.
            if let Shown::Bearer(token) | Shown::Dpop(token) = shown
                && !headers::is_sound(token)
            {
                return Err(Refusal::new(Code::BearerMalformed));
            }
            // Boxed, or every request would carry the room that an exchange needs.
            let admitted = Box::pin(self.gate.admit(shown, demand, ladder)).await?;
            Ok(Arc::new(Entry::new(admitted)))
        };
        let Some(remembered) = &self.remembered else {
            return verified.await;
        };
        let key = remembered.key(shown, demand);
        if let Some(entry) = remembered.entries.get(&key) {
            if self.gate.holds(&entry.admitted, now) {
                return Ok(entry);
            }
            remembered.entries.remove(&key);
        }
        let entry = verified.await?;
        remembered.entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }
}

/// What the gateway demands, in the query.
#[derive(Default)]
struct Asked<'q> {
    app: Option<Cow<'q, str>>,
    audience: Option<Cow<'q, str>>,
    scope: Option<Cow<'q, str>>,
}

impl<'q> Asked<'q> {
    /// A parameter that is not known would be a demand that is not made: it is refused.
    fn parse(query: Option<&'q str>) -> Result<Self, Box<Refusal>> {
        let mut asked = Self::default();
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        for (name, value) in pairs {
            let (place, sound): (_, fn(&str) -> bool) = match name.as_ref() {
                "app" => (&mut asked.app, is_name),
                "audience" => (&mut asked.audience, is_name),
                "scope" => (&mut asked.scope, are_scopes),
                _ => return Err(malformed("a parameter other than app, audience and scope")),
            };
            if value.trim().is_empty() || !sound(&value) {
                return Err(malformed("a parameter that is empty or malformed"));
            }
            if place.replace(value).is_some() {
                return Err(malformed("a parameter twice"));
            }
        }
        Ok(asked)
    }
}

fn malformed(what: &str) -> Box<Refusal> {
    Refusal::because(
        Code::ParameterMalformed,
        format!("The gateway's request to /auth/verify has {what}."),
    )
}

fn is_name(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_control())
}

fn demand_scopes(needed: &str, identity: &Identity) -> Result<(), Box<Refusal>> {
    let mut each = needed.split(' ').filter(|scope| !scope.is_empty());
    if each.all(|scope| identity.scopes.iter().any(|has| has == scope)) {
        return Ok(());
    }
    let has = match identity.scopes.join(" ") {
        none if none.is_empty() => "no scope".to_owned(),
        scopes => scopes,
    };
    let cause = format!("the bearer has {has}, and the gateway demands {needed}");
    let mut refusal = Refusal::new(Code::InsufficientScope).caused_by(cause);
    refusal.scope = Some(needed.trim().to_owned());
    Err(refusal)
}

/// The session cookie (RFC 6265 §4.2.1), where there is one; HTTP/2 may split the header.
pub fn session_cookie(headers: &HeaderMap) -> Result<Option<&str>, Box<Refusal>> {
    let mut sessions = headers
        .get_all(COOKIE)
        .iter()
        // Other cookies of the site may hold any bytes.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            pair.trim_ascii()
                .strip_prefix(SESSION_COOKIE)?
                .strip_prefix(b"=")
        });
    match (sessions.next(), sessions.next()) {
        (_, Some(_)) => Err(Refusal::new(Code::SessionCookieAmbiguous)),
        (Some([]) | None, None) => Ok(None),
        (Some(token), None) => std::str::from_utf8(token)
            .map(Some)
            .map_err(|_| Refusal::new(Code::AppTokenMalformed)),
    }
}

/// What the identity headers say.
fn values(identity: &Identity) -> Values {
    let Identity {
        whose,
        organization,
        roles,
        scopes,
    } = identity;
    let (app, user, client) = match whose {
        Whose::User { app, user } => (app.as_str(), user.as_str(), ""),
        Whose::Client(client) => ("", "", client.as_str()),
    };
    let organization = organization.as_deref().unwrap_or_default();
    let joined = |texts: &[String], separator: &str, escaped: &[u8]| {
        let texts: Vec<String> = texts.iter().map(|text| escape(text, escaped)).collect();
        texts.join(separator)
    };
    let limited = match whose {
        // No user's key has two colons.
        Whose::Client(client) => format!("client::{}", escape(client, b":")),
        Whose::User { user, .. } if organization.is_empty() => escape(user, b":"),
        Whose::User { user, .. } => {
            format!("{}:{}", escape(organization, b":"), escape(user, b":"))
        }
    };
    [
        escape(app, b""),
        escape(user, b""),
        escape(organization, b""),
        joined(roles, ",", b","),
        joined(scopes, " ", b""),
        limited,
        escape(client, b""),
    ]
    .map(|text| HeaderValue::try_from(text).unwrap_or(NOTHING))
}

/// The text as a header can carry it: what is no visible ASCII character, `%`, and whatever
/// separates such texts, is percent-encoded (RFC 3986 §2.1).
fn escape(text: &str, separators: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'%' && !separators.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_identity_can_leave_its_header_or_pass_for_another(
            one in any::<String>(), other in any::<String>(), roles in prop::collection::vec(any::<String>(), 0..4),
        ) {
            for text in [&one, &other] {
                let escaped = escape(text, b",");
                prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
            }
            prop_assert_eq!(one == other, escape(&one, b":") == escape(&other, b":"));
            let identity = Identity {
                whose: Whose::User { app: one.clone(), user: other },
                organization: Some(one),
                scopes: roles.clone(),
                roles,
            };
            let written = values(&identity);
            let apart = |text: &HeaderValue, separator| text.to_str().unwrap().split(separator).count();
            let several = identity.roles.len().max(1);
            prop_assert_eq!(apart(&written[3], ','), several);
            prop_assert_eq!(apart(&written[4], ' '), several);
            prop_assert!(apart(&written[5], ':') <= 2);
        }
    }
}
