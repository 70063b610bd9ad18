//! An issuer: where its key set is, what is in it, and whether our credentials are its own.

use super::report::{Row, count};
use super::{clock, difference};
use crate::clock::Clock;
use crate::config::{IssuerKind, IssuerSettings};
use crate::explain::Code;
use crate::subject::clerk::api::BackendApi;
use crate::subject::discovery::{DiscoveryError, key_set_url};
use crate::subject::fetch::{Document, FetchError, Fetcher};
use crate::subject::introspection::Introspection;
use crate::subject::jwks::{KeySet, public_keys};
use crate::telemetry::Metrics;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Everything about one issuer.
pub(super) async fn look(fetcher: &Fetcher, issuer: &IssuerSettings) -> Vec<Row> {
    let (introspection, (mut rows, set)) =
        tokio::join!(introspection(fetcher, issuer), keys(fetcher, issuer));
    if issuer.kind.signs() {
        rows.extend(secret_key(fetcher, issuer, set.as_ref()).await);
    }
    rows.extend(introspection);
    rows.into_iter().map(|row| row.of(&issuer.name)).collect()
}

async fn keys(fetcher: &Fetcher, issuer: &IssuerSettings) -> (Vec<Row>, Option<KeySet>) {
    if !issuer.kind.signs() {
        return (Vec::new(), None);
    }
    if let Some(key) = &issuer.jwt_key {
        let set = KeySet::only(key, &issuer.algorithms);
        let rows = judged(&set, "a configured key, no network", "");
        return (rows, Some(set));
    }
    match fetched(fetcher, issuer).await {
        Ok((place, document)) => {
            let date = document.date.as_deref();
            let mut rows: Vec<Row> = clock::with_date(issuer, date).into_iter().collect();
            let (more, set) = read(&place, &document, issuer);
            rows.extend(more);
            (rows, set)
        }
        Err(row) => (vec![row], None),
    }
}

/// Finds the key set and fetches it; gives where it was, and how long that took.
async fn fetched(fetcher: &Fetcher, issuer: &IssuerSettings) -> Result<(String, Document), Row> {
    let began = Instant::now();
    let (url, reach) = key_set_url(fetcher, issuer).await.map_err(|error| {
        Row::fail("issuer", error.to_string())
            .next(undiscovered(&error, issuer))
            .code(Code::IssuerMetadataInvalid)
    })?;
    let document = fetcher.get(&url, reach).await.map_err(|error| {
        Row::fail("issuer", format!("key set at {url}: {error}"))
            .next(unfetched(&error, issuer))
            .code(Code::IssuerKeysUnavailable)
    })?;
    let how = match (&issuer.jwks_uri, issuer.kind) {
        (Some(_), _) => "configured",
        (None, IssuerKind::Clerk) => "at the usual place",
        (None, _) => "discovered",
    };
    let took = began.elapsed().as_millis();
    Ok((format!("{url} ({how}) in {took} ms"), document))
}

fn undiscovered(error: &DiscoveryError, issuer: &IssuerSettings) -> String {
    match error {
        DiscoveryError::Mismatch {
            said, configured, ..
        } => format!(
            "{}; `issuer` in exchequer.toml must be what its tokens say in `iss`, byte for byte",
            difference(configured, said).unwrap_or("it is another issuer")
        ),
        DiscoveryError::Fetch { error, .. } => unfetched(error, issuer),
        DiscoveryError::Malformed { .. } | DiscoveryError::Forbidden(_) => {
            "open that address in a browser; where the key set is known, name it: `jwks_uri` in exchequer.toml".to_owned()
        }
    }
}

fn unfetched(error: &FetchError, issuer: &IssuerSettings) -> String {
    let setting = match issuer.kind {
        IssuerKind::Clerk => "CLERK_JWT_ISSUER, or `issuer` in exchequer.toml",
        _ => "`issuer`, or `jwks_uri`, in exchequer.toml",
    };
    match error {
        FetchError::Status(404) => {
            format!("nothing is there: compare {setting}, with the provider's dashboard")
        }
        FetchError::Status(300..=399) => {
            format!("redirects are not followed: let {setting}, name where it leads")
        }
        FetchError::Status(_) | FetchError::TooLarge => {
            format!("is that the provider? compare {setting}, with its dashboard")
        }
        FetchError::Forbidden(_) => "`allow_private_network` of the issuer".to_owned(),
        FetchError::Timeout | FetchError::Transport(_) => format!(
            "from here it is not reached: look at name resolution, firewall and NetworkPolicy, and at {setting}; exchanges go on with the keys that are known"
        ),
    }
}

/// Reads a key set as the service does, and says what the service would not.
fn read(place: &str, document: &Document, issuer: &IssuerSettings) -> (Vec<Row>, Option<KeySet>) {
    let set = match KeySet::parse(&document.body, &issuer.algorithms) {
        Ok(set) => set,
        Err(error) => {
            let row = Row::fail("issuer", format!("key set at {place}: {error}"))
                .next("open that address in a browser; `jwks_uri` in exchequer.toml names another")
                .code(Code::IssuerKeysUnavailable);
            return (vec![row], None);
        }
    };
    let listed: Value = serde_json::from_slice(&document.body).unwrap_or_default();
    let listed = listed.get("keys").and_then(Value::as_array);
    let text = |key: &Value, member: &str| Some(key.get(member)?.as_str()?.to_owned());
    let keys = || listed.into_iter().flatten();
    let algorithms: BTreeSet<String> = keys()
        .filter_map(|key| text(key, "alg").or_else(|| text(key, "kty")))
        .collect();
    let algorithms: Vec<String> = algorithms.into_iter().collect();
    let age = document.max_age.map_or_else(
        || "no max-age".to_owned(),
        |seconds| format!("max-age {seconds}"),
    );
    let facts = format!(
        "{}, {}, {age}; ",
        count(keys().count(), "key"),
        algorithms.join(" ")
    );
    let mut rows = judged(&set, place, &facts);
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for key in keys() {
        match text(key, "kid") {
            Some(kid) if !seen.insert(kid.clone()) => {
                twice.insert(kid);
            }
            Some(_) => {}
            None => rows.push(
                Row::warn("issuer", "a key has no kid, and is not used")
                    .next("keys are chosen by `kid`, never tried: let the provider name it"),
            ),
        }
    }
    rows.extend(twice.into_iter().map(|kid| {
        Row::warn("issuer", format!("kid {kid} is there more than once"))
            .next("the first that can be used counts here; other verifiers choose another, or none: let the provider publish each once")
    }));
    (rows, Some(set))
}

/// Which keys are used, and why others are not.
fn judged(set: &KeySet, place: &str, facts: &str) -> Vec<Row> {
    let overview = set.overview();
    let usable: Vec<&str> = overview
        .iter()
        .filter(|(_, unusable)| unusable.is_none())
        .map(|(kid, _)| *kid)
        .collect();
    let first = match usable.as_slice() {
        [] => Row::fail("issuer", format!("{place}: {facts}no usable key"))
            .next(
                "each key's fault is named below: mend the key set, or `algorithms` of the issuer",
            )
            .code(Code::SubjectTokenKeyUnusable),
        usable => Row::ok(
            "issuer",
            format!("{place}: {facts}kid {}", usable.join(", ")),
        ),
    };
    let unusable = overview.iter().filter_map(|(kid, why)| {
        let why = why.as_ref()?;
        let row = Row::warn("issuer", format!("kid {kid} is not used: {why}"));
        Some(row.next("tokens signed with it are refused: correct it at the provider, or `algorithms` of the issuer"))
    });
    std::iter::once(first).chain(unusable).collect()
}

/// Asks the introspection endpoint about a token that there is not: whoever answers that it
/// is not active takes our credentials.
async fn introspection(fetcher: &Fetcher, issuer: &IssuerSettings) -> Option<Row> {
    let check = "introspection";
    let metrics = Arc::new(Metrics::default());
    let endpoint = Introspection::new(issuer, fetcher, &Clock::system(), &metrics)?;
    Some(match endpoint.ask("exchequer-doctor", None).await {
        Err(refusal) if refusal.code != Code::SubjectTokenInactive => {
            let next = match refusal.code {
                Code::ProviderCredentialsInvalid => {
                    "`client_id` and `client_secret` of the issuer are not what the server knows"
                }
                _ => "`introspection_endpoint` of the issuer; is it reached from here?",
            };
            let cause = refusal.cause.unwrap_or(refusal.description);
            Row::fail(check, cause).next(next).code(refusal.code)
        }
        _ => Row::ok(check, "it takes our client id and secret"),
    })
}

/// Asks the Backend API with the issuer's secret key for its instance's keys: one of them is
/// the issuer's too, or the key is another instance's.
async fn secret_key(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
    set: Option<&KeySet>,
) -> Option<Row> {
    let check = "secret_key";
    let setting = "CLERK_SECRET_KEY, or `secret_key` of the issuer";
    let metrics = Arc::new(Metrics::default());
    let api = match BackendApi::of(issuer, fetcher, &Clock::system(), &metrics) {
        Ok(api) => api?,
        Err(error) => {
            let row = Row::fail(check, format!("the API's URL: {error}"));
            return Some(row.next("CLERK_API_URL, or `api_url` of the issuer"));
        }
    };
    let theirs =
        match api.asking(None).get("jwks").await {
            Ok(document) => public_keys(&document),
            Err(error) => {
                let code = error.refusal().code;
                let next = match code {
                Code::ProviderCredentialsInvalid => {
                    format!("{setting}: copy it from API keys of the instance's dashboard")
                }
                _ => "the API could not say: try again, and look at CLERK_API_URL and the way there"
                    .to_owned(),
            };
                let row = Row::fail(check, format!("the API: {error}"));
                return Some(row.next(next).code(code));
            }
        };
    let kids: Vec<&str> = theirs.iter().map(|(kid, _)| kid.as_str()).collect();
    let kids = kids.join(", ");
    Some(match set.map(|set| set.shares_a_key(&theirs)) {
        Some(true) => Row::ok(check, format!("it is the issuer's: kid {kids}")),
        None => Row::warn(
            check,
            format!("it is valid; its instance (kid {kids}) cannot be compared with the issuer's"),
        )
        .next("mend the issuer's key set first"),
        Some(false) => Row::fail(
            check,
            format!(
                "it belongs to another instance than {}: its instance has kid {kids}",
                issuer.issuer
            ),
        )
        .next(format!(
            "{setting}: take it and the issuer from one page of the dashboard"
        ))
        .code(Code::ProviderInstanceMismatch),
    })
}
