//! Our public URL, as those who verify our tokens and those who call us see it.

use super::difference;
use super::page::{self, Page, header, server};
use super::report::Row;
use super::running::Running;
use crate::crypto::SigningKey;
use crate::explain::Code;
use crate::keys::jwk::{jwk, thumbprint};
use crate::keys::ring::{Ring, State};
use crate::subject::address::Reach;
use crate::subject::fetch::Fetcher;
use crate::subject::jwks::public_keys;
use crate::token::verify::{self, VerifyError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use signature::Signer;
use url::Url;

const JWKS: &str = "/.well-known/jwks.json";
const METADATA: &str = "/.well-known/openid-configuration";

/// So many more connections are made, to meet more than one replica.
const REPLICAS: usize = 6;

/// What was found there.
pub(super) struct Outside {
    pub(super) rows: Vec<Row>,
    key_set: Option<Page>,
    /// `issuer` of the metadata there.
    issuer: Option<String>,
}

/// Looks at both documents, and at what must not be there.
pub(super) async fn look(fetcher: &Fetcher, issuer: &str) -> Outside {
    let key_set = page::get(fetcher, "public_url", issuer, JWKS).await;
    let mut rows = Vec::new();
    let key_set = match key_set {
        Ok(page) => {
            let seen = format!("{issuer}{JWKS}: {}", page.facts());
            rows.push(if without_keys(&page.reply.body) {
                Row::fail("public_url", format!("{seen}: a key set without a key"))
                    .next("nothing is signed and nothing verifies: the log of the service there says why it has no key")
                    .code(Code::SigningKeyUnavailable)
            } else {
                Row::ok("public_url", seen)
            });
            rows.extend(page.faults("public_url"));
            page
        }
        // Nothing else there would be ours.
        Err(row) => {
            return Outside {
                rows: vec![row],
                key_set: None,
                issuer: None,
            };
        }
    };
    let (etag, others, metadata, admin, plain) = tokio::join!(
        etag(fetcher, issuer, &key_set),
        others(fetcher, issuer, &key_set),
        metadata(fetcher, issuer),
        admin(fetcher, issuer),
        plain(fetcher, issuer)
    );
    rows.extend(etag);
    rows.extend(others);
    let (more, said) = metadata;
    rows.extend(more);
    rows.extend(admin);
    rows.extend(plain);
    Outside {
        rows,
        key_set: Some(key_set),
        issuer: said,
    }
}

/// Whether who has the key set is told so with 304.
async fn etag(fetcher: &Fetcher, issuer: &str, page: &Page) -> Option<Row> {
    let check = "public_url";
    let next = "verifiers fetch the whole set each time: a proxy takes the ETag away, or does not pass If-None-Match on";
    let Some(tag) = header(&page.reply, "etag") else {
        return Some(Row::info(check, "it has no ETag").next(next));
    };
    let url = Url::parse(&format!("{issuer}{JWKS}")).ok()?;
    let ask = |request: reqwest::RequestBuilder| request.header("if-none-match", tag);
    let reply = fetcher
        .send(Method::GET, &url, Reach::Private, ask)
        .await
        .ok()?;
    (reply.status != 304).then(|| {
        Row::info(
            check,
            format!(
                "asked again with its ETag it answers {}, not 304",
                reply.status
            ),
        )
        .next(next)
    })
}

/// Whether all replicas behind the URL serve one key set: a balancer gives each connection to
/// another.
async fn others(fetcher: &Fetcher, issuer: &str, page: &Page) -> Option<Row> {
    let url = Url::parse(&format!("{issuer}{JWKS}")).ok()?;
    let ask = || {
        fetcher.send(Method::GET, &url, Reach::Private, |request| {
            request.header("connection", "close")
        })
    };
    let answers = futures_util::future::join_all((0..REPLICAS).map(|_| ask())).await;
    let first = kids(&page.reply.body);
    let other = answers
        .into_iter()
        .flatten()
        .filter(|reply| reply.status == 200)
        .map(|reply| kids(&reply.body))
        .find(|other| *other != first)?;
    let seen = format!(
        "two key sets are served in turn: {} and {}",
        first.join(", "),
        other.join(", ")
    );
    Some(Row::fail("public_url", seen).next("every second token is refused: replicas have rings of their own, or one has not read theirs anew: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)"))
}

/// Whether this is a key set, and has no key.
fn without_keys(body: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    document
        .get("keys")
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
}

/// The `kid`s of a key set, in order.
fn kids(key_set: &[u8]) -> Vec<String> {
    let keys = public_keys(key_set).into_iter().take(8);
    let mut kids: Vec<String> = keys.map(|(kid, _)| kid).collect();
    kids.sort();
    kids
}

/// The metadata, and the issuer that they name.
async fn metadata(fetcher: &Fetcher, issuer: &str) -> (Vec<Row>, Option<String>) {
    let check = "metadata";
    let page = match page::get(fetcher, check, issuer, METADATA).await {
        Ok(page) => page,
        Err(row) => return (vec![row], None),
    };
    let document: Value = serde_json::from_slice(&page.reply.body).unwrap_or_default();
    let member = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let said = member("issuer");
    let expected = format!("{issuer}{JWKS}");
    let first = match (said.as_deref(), member("jwks_uri")) {
        (None, _) => Row::fail(
            check,
            format!("{issuer}{METADATA}: no JSON object with `issuer`"),
        )
        .next("that is no document of ours: does EXCHEQUER_ISSUER name this service?"),
        (Some(said), _) if said != issuer => Row::fail(
            check,
            format!(
                "it says issuer {said}, configured is {issuer}: verifiers compare byte for byte"
            ),
        )
        .next(format!(
            "{}: give the service that answers there, and this, one EXCHEQUER_ISSUER",
            difference(issuer, said).unwrap_or("another deployment answers there")
        )),
        (_, Some(uri)) if uri == expected => Row::ok(
            check,
            format!("{issuer}{METADATA}: {}, issuer equal", page.facts()),
        ),
        (_, uri) => Row::fail(
            check,
            format!(
                "its jwks_uri is {}, not {expected}",
                uri.as_deref().unwrap_or("nothing")
            ),
        )
        .next("a proxy rewrites the document: let it pass unchanged"),
    };
    let rows = std::iter::once(first).chain(page.faults(check)).collect();
    (rows, said)
}

/// Health and metrics are nobody's outside the platform.
async fn admin(fetcher: &Fetcher, issuer: &str) -> Option<Row> {
    let url = Url::parse(&format!("{issuer}/metrics")).ok()?;
    let ask = fetcher.send(Method::GET, &url, Reach::Private, |request| request);
    let reply = ask.await.ok()?;
    let text = String::from_utf8_lossy(&reply.body);
    (reply.status == 200 && text.contains("exchequer_build_info")).then(|| {
        Row::fail("admin", format!("{url} shows the metrics to everybody"))
            .next("a proxy passes it to EXCHEQUER_ADMIN_LISTEN: let it pass EXCHEQUER_LISTEN alone")
    })
}

/// Whether the same is served without TLS.
async fn plain(fetcher: &Fetcher, issuer: &str) -> Option<Row> {
    let mut url = Url::parse(&format!("{issuer}{JWKS}")).ok()?;
    if url.scheme() != "https" || url.port().is_some() {
        return None;
    }
    url.set_scheme("http").ok()?;
    let ask = fetcher.send(Method::GET, &url, Reach::Private, |request| request);
    let reply = ask.await.ok()?;
    (reply.status == 200).then(|| {
        Row::warn("public_url", format!("{url} answers too, without TLS"))
            .next("tokens and keys could be read and changed on their way: let the proxy redirect http to https, or close port 80")
    })
}

/// Signs a token with the ring, and verifies it with the key set that is served.
pub(super) fn round_trip(
    issuer: &str,
    ring: Option<&Ring>,
    outside: &Outside,
    running: Option<&Running>,
) -> Option<Row> {
    let check = "round_trip";
    let (ring, page) = (ring?, outside.key_set.as_ref()?);
    Some(match sign_and_verify(ring, &page.reply.body) {
        Ok(kid) => Row::ok(
            check,
            format!("a token signed with {kid} verifies with the published key set"),
        ),
        Err(Fault::Own(error)) => Row::fail(check, format!("our own key does not sign: {error}"))
            .next("EXCHEQUER_KEYS_DIR, and docs/keys.md"),
        Err(Fault::Theirs(error)) => {
            let (who, next) = stranger(issuer, ring, outside, page, running);
            Row::fail(check, format!("{error}: {who}")).next(next)
        }
    })
}

enum Fault {
    Own(String),
    Theirs(VerifyError),
}

fn sign_and_verify(ring: &Ring, key_set: &[u8]) -> Result<String, Fault> {
    let own = |error: &dyn std::fmt::Display| Fault::Own(error.to_string());
    let mut keys = ring.keys.iter();
    let key = keys.find(|key| key.state == State::Active);
    let key = key.ok_or_else(|| own(&"none is active"))?;
    let signer = SigningKey::from_pkcs8(key.algorithm, &key.pkcs8).map_err(|error| own(&error))?;
    let public = jwk(signer.public(), key.algorithm);
    let header = json!({"alg": public.get("alg"), "kid": thumbprint(signer.public())});
    let encoded = URL_SAFE_NO_PAD.encode(header.to_string());
    let message = format!("{encoded}.{}", URL_SAFE_NO_PAD.encode("{}"));
    let signature = signer
        .try_sign(message.as_bytes())
        .map_err(|error| own(&error))?;
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    verify::with_key_set(key_set, &token).map_err(Fault::Theirs)
}

/// Whose key set is served, as far as that can be told, and what to do.
fn stranger(
    issuer: &str,
    ring: &Ring,
    outside: &Outside,
    page: &Page,
    running: Option<&Running>,
) -> (String, String) {
    let theirs = kids(&page.reply.body);
    let listed = match theirs.as_slice() {
        [] => "no key".to_owned(),
        kids => kids.join(", "),
    };
    let server = server(&page.reply);
    let has = |kid: &str| theirs.iter().any(|each| each == kid);
    if let Some(said) = outside.issuer.as_deref().filter(|said| *said != issuer) {
        return (
            format!("the deployment of {said} answers there{server}, with {listed}"),
            "EXCHEQUER_ISSUER names another service's address, or the proxy sends its requests there".to_owned(),
        );
    }
    let elsewhere = |running: &Running| {
        let kids = running.kids();
        let ours = ring.keys.iter().any(|key| kids.contains(&key.kid.as_str()));
        !ours && kids.iter().any(|kid| has(kid))
    };
    if running.is_some_and(elsewhere) {
        return (
            format!(
                "the service beside publishes {listed}, and signs with another ring than this command reads"
            ),
            "run this in its folder, with its EXCHEQUER_KEYS_DIR and EXCHEQUER_STORE".to_owned(),
        );
    }
    if let Some(age) = header(&page.reply, "age") {
        return (
            format!("a cache{server} serves {listed}, {age} s old"),
            "empty the CDN's cache, and let it keep the key set for no longer than its max-age"
                .to_owned(),
        );
    }
    if ring.keys.iter().any(|key| has(&key.kid)) {
        return (
            format!("an older ring answers there{server}, with {listed}"),
            "a replica has not read the ring anew, or a copy of it was restored: all must share one (docs/keys.md)".to_owned(),
        );
    }
    (
        format!("another ring answers there{server}, with {listed}"),
        "another deployment of this issuer, or a replica with a ring of its own: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)".to_owned(),
    )
}
