//! `exchequer doctor`: a live setting, checked from where the service runs.

use super::terminal::{BAD, CAUTION, Color, FAINT, GOOD, STRONG};
use crate::clock::Clock;
use crate::config::{IssuerSettings, ProviderSettings, Settings, StoreSettings};
use crate::crypto::SigningKey;
use crate::explain::Code;
use crate::keys::jwk::{algorithm_name, jwk, thumbprint};
use crate::keys::ring::{Ring, State};
use crate::keys::{Keeper, RingPlace};
use crate::oauth::providers::Provider;
use crate::service::signing_algorithms;
use crate::subject::address::Reach;
use crate::subject::clerk::api::BackendApi;
use crate::subject::discovery::key_set_url;
use crate::subject::fetch::{Document, Fetcher};
use crate::subject::introspection::Introspection;
use crate::subject::jwks::{KeySet, public_keys};
use crate::telemetry::Metrics;
use crate::token::verify;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::json;
use signature::Signer;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use url::Url;

mod redis;

/// How to print.
#[derive(clap::Args)]
pub(super) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: Color,
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Serialize)]
struct Row {
    check: String,
    status: Status,
    message: String,
    /// The code that callers get while this is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

#[derive(Default)]
struct Report(Vec<Row>);

impl Report {
    fn add(&mut self, check: &str, status: Status, message: impl Into<String>) {
        self.0.push(Row {
            check: check.to_owned(),
            status,
            message: message.into(),
            code: None,
        });
    }

    fn fail(&mut self, check: &str, message: impl Into<String>, code: Code) {
        self.0.push(Row {
            check: check.to_owned(),
            status: Status::Fail,
            message: message.into(),
            code: Some(code.entry().slug),
        });
    }
}

/// Checks everything and prints the report; 1 where something failed.
pub(super) async fn run(args: Args) -> ExitCode {
    let (settings, findings) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let mut report = Report::default();
    report.add(
        "config",
        Status::Ok,
        format!(
            "{} issuers, {} apps",
            settings.issuers.len(),
            settings.apps.len()
        ),
    );
    for note in &findings.notes {
        report.add("config", Status::Warn, note.to_string());
    }
    match Fetcher::new() {
        Ok(fetcher) => {
            for issuer in &settings.issuers {
                check_issuer(&fetcher, issuer, &mut report).await;
            }
            for provider in settings.providers.values() {
                check_provider(&fetcher, provider, &settings.issuer, &mut report).await;
            }
            let ring = check_keys(&settings, &mut report).await;
            check_store(&settings.store, &mut report).await;
            check_public(&fetcher, &settings, ring.as_ref(), &mut report).await;
        }
        Err(error) => report.add("client", Status::Fail, error.to_string()),
    }
    if let Err(error) = print(&report, &args) {
        eprintln!("error: {error}");
        return super::wrong();
    }
    if report.0.iter().any(|row| row.status == Status::Fail) {
        super::not_right()
    } else {
        super::DONE
    }
}

fn print(report: &Report, args: &Args) -> io::Result<()> {
    let mut out = args.color.stdout();
    if args.json {
        let ok = report.0.iter().all(|row| row.status != Status::Fail);
        return writeln!(out, "{}", json!({ "ok": ok, "checks": report.0 }));
    }
    for row in &report.0 {
        let (style, mark) = match row.status {
            Status::Ok => (GOOD, "ok"),
            Status::Warn => (CAUTION, "warn"),
            Status::Fail => (BAD, "FAIL"),
        };
        let code = row
            .code
            .map(|code| format!("   {FAINT}{code}{FAINT:#}"))
            .unwrap_or_default();
        let Row { check, message, .. } = row;
        writeln!(
            out,
            "{STRONG}{check:<24}{STRONG:#} {style}{mark:<5}{style:#} {message}{code}"
        )?;
    }
    Ok(())
}

async fn check_issuer(fetcher: &Fetcher, issuer: &IssuerSettings, report: &mut Report) {
    let name = format!("issuer {}", issuer.name);
    check_introspection(fetcher, issuer, report).await;
    if !issuer.kind.signs() {
        return;
    }
    if let Some(key) = &issuer.jwt_key {
        let set = KeySet::only(key, &issuer.algorithms);
        report_keys(&name, &set, "a configured key, no network", report);
        return check_secret_key(fetcher, issuer, Some(&set), report).await;
    }
    let set = check_key_set(fetcher, issuer, &name, report).await;
    check_secret_key(fetcher, issuer, set.as_ref(), report).await;
}

/// Asks the introspection endpoint about a token that there is not: whoever answers that it
/// is not active takes our credentials.
async fn check_introspection(fetcher: &Fetcher, issuer: &IssuerSettings, report: &mut Report) {
    let name = format!("introspection {}", issuer.name);
    let metrics = Arc::new(Metrics::default());
    let clock = Clock::system();
    let Some(endpoint) = Introspection::new(issuer, fetcher, &clock, &metrics) else {
        return;
    };
    match endpoint.ask("exchequer-doctor", None).await {
        Err(refusal) if refusal.code != Code::SubjectTokenInactive => {
            let cause = refusal.cause.unwrap_or(refusal.description);
            report.fail(&name, cause, refusal.code);
        }
        _ => report.add(&name, Status::Ok, "it takes our client id and secret"),
    }
}

/// Shows a provider's token endpoint a code that cannot be right: the answer tells whether it
/// knows the client.
async fn check_provider(
    fetcher: &Fetcher,
    settings: &ProviderSettings,
    issuer: &str,
    report: &mut Report,
) {
    let name = format!("provider {}", settings.name);
    let provider = Provider::new(settings, fetcher, &Clock::system(), &Arc::default());
    let callback = format!("{issuer}/auth/callback/{}", settings.name);
    let client = &settings.client_id;
    let Err(refusal) = provider.recognises_us(&callback).await else {
        let message = format!(
            "it knows the client {client}; the callback {callback} must be registered there"
        );
        return report.add(&name, Status::Ok, message);
    };
    let cause = refusal.cause.unwrap_or(refusal.description);
    let message = match refusal.code {
        Code::ProviderClientUnknown => format!(
            "{cause}: it does not know the client {client}, or refuses its secret: register an application of your own there, and set `client_id` and `client_secret` to what it shows; where they are right, try another `client_auth`"
        ),
        Code::ProviderRefused => {
            format!(
                "{cause}: it does not say whether it knows the client {client}: sign in once to see"
            )
        }
        _ => cause,
    };
    report.fail(&name, message, refusal.code);
}

async fn check_key_set(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
    name: &str,
    report: &mut Report,
) -> Option<KeySet> {
    let began = Instant::now();
    let (url, reach) = match key_set_url(fetcher, issuer).await {
        Ok(place) => place,
        Err(error) => {
            report.fail(name, error.to_string(), Code::IssuerMetadataInvalid);
            return None;
        }
    };
    let document = match fetcher.get(&url, reach).await {
        Ok(document) => document,
        Err(error) => {
            let message = format!("key set at {url}: {error}");
            report.fail(name, message, Code::IssuerKeysUnavailable);
            return None;
        }
    };
    let took = began.elapsed().as_millis();
    check_clock(name, &document, report);
    match KeySet::parse(&document.body, &issuer.algorithms) {
        Ok(set) => {
            report_keys(name, &set, &format!("{url} in {took} ms"), report);
            Some(set)
        }
        Err(error) => {
            let message = format!("key set at {url}: {error}");
            report.fail(name, message, Code::IssuerKeysUnavailable);
            None
        }
    }
}

/// Asks the Backend API with the issuer's secret key for its instance's keys: one of them is
/// the issuer's too, or the key is another instance's.
async fn check_secret_key(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
    set: Option<&KeySet>,
    report: &mut Report,
) {
    let name = format!("secret key {}", issuer.name);
    let metrics = Arc::new(Metrics::default());
    let api = match BackendApi::of(issuer, fetcher, &Clock::system(), &metrics) {
        Ok(Some(api)) => api,
        Ok(None) => return,
        Err(error) => return report.add(&name, Status::Fail, format!("api_url: {error}")),
    };
    let theirs = match api.asking(None).get("jwks").await {
        Ok(document) => public_keys(&document),
        Err(error) => {
            return report.fail(&name, format!("the API: {error}"), error.refusal().code);
        }
    };
    let kids: Vec<&str> = theirs.iter().map(|(kid, _)| kid.as_str()).collect();
    let kids = kids.join(", ");
    match set.map(|set| set.shares_a_key(&theirs)) {
        Some(true) => report.add(&name, Status::Ok, format!("it is the issuer's: kid {kids}")),
        None => report.add(
            &name,
            Status::Warn,
            format!("it is valid; its instance (kid {kids}) cannot be compared with the issuer's"),
        ),
        Some(false) => report.fail(
            &name,
            format!(
                "it belongs to another instance than {}: its instance has kid {kids}; take both from one page of the dashboard",
                issuer.issuer
            ),
            Code::ProviderInstanceMismatch,
        ),
    }
}

fn report_keys(name: &str, set: &KeySet, whence: &str, report: &mut Report) {
    let overview = set.overview();
    let usable: Vec<&str> = overview
        .iter()
        .filter(|(_, unusable)| unusable.is_none())
        .map(|(kid, _)| *kid)
        .collect();
    if usable.is_empty() {
        report.fail(
            name,
            format!("{whence}: no usable key"),
            Code::SubjectTokenKeyUnusable,
        );
    } else {
        report.add(
            name,
            Status::Ok,
            format!("{whence}: kid {}", usable.join(", ")),
        );
    }
    for (kid, reason) in overview {
        if let Some(reason) = reason {
            report.add(
                name,
                Status::Warn,
                format!("kid {kid} is not used: {reason}"),
            );
        }
    }
}

/// Compares this machine's clock with the `Date` of an answer, which is cut to the second.
fn check_clock(name: &str, document: &Document, report: &mut Report) {
    let Some(theirs) = document
        .date
        .as_deref()
        .and_then(|date| httpdate::parse_http_date(date).ok())
    else {
        return;
    };
    let now = Clock::system().now();
    let theirs = theirs
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
    let ahead = theirs - now;
    let check = format!("clock vs {}", name.trim_start_matches("issuer "));
    match ahead.abs() {
        0..=2 => report.add(&check, Status::Ok, format!("the issuer is {ahead} s ahead")),
        3..=4 => report.add(
            &check,
            Status::Warn,
            format!("the issuer is {ahead} s ahead: correct this machine's clock (NTP)"),
        ),
        _ => report.fail(
            &check,
            format!("the issuer is {ahead} s ahead: correct this machine's clock (NTP)"),
            if ahead > 0 {
                Code::SubjectTokenNotYetValid
            } else {
                Code::SubjectTokenExpired
            },
        ),
    }
}

/// Looks at the ring without changing it.
async fn check_keys(settings: &Settings, report: &mut Report) -> Option<Ring> {
    let keys = &settings.keys;
    let place = RingPlace::for_command(settings);
    let ring = match place.load().await {
        Ok(Some(loaded)) => {
            if loaded.fallen_back {
                report.add(
                    "keys",
                    Status::Warn,
                    "the newest ring is damaged or gone: the generation before it is used",
                );
            }
            loaded.ring
        }
        Ok(None) => {
            let message = format!(
                "no key ring in {}: `exchequer serve` makes it",
                place.describe()
            );
            report.add("keys", Status::Warn, message);
            return None;
        }
        Err(error) => {
            report.fail("keys", error.to_string(), Code::SigningKeyUnavailable);
            return None;
        }
    };
    if keys.secret.is_none() {
        report.add(
            "keys",
            Status::Warn,
            "the ring is not encrypted at rest: set EXCHEQUER_KEYS_SECRET",
        );
    }
    let overview = Keeper::overview(&ring, keys).unwrap_or_default();
    let now = Clock::system().now();
    for algorithm in signing_algorithms(settings) {
        let name = algorithm_name(algorithm);
        let find = |state| {
            overview
                .iter()
                .find(|key| key.alg == name && key.state == state)
        };
        match (find(State::Active), find(State::Next)) {
            (Some(active), Some(next)) if next.published_at + keys.publish_ahead <= now => {
                report.add(
                    "keys",
                    Status::Ok,
                    format!("{name}: {} signs, a standby is ready", active.kid),
                );
            }
            (Some(active), Some(_)) => report.add(
                "keys",
                Status::Ok,
                format!(
                    "{name}: {} signs, a standby is published but not for long enough to take over",
                    active.kid
                ),
            ),
            (Some(active), None) => report.add(
                "keys",
                Status::Warn,
                format!(
                    "{name}: {} signs, and there is no standby: a rotation now would break verifiers that cache",
                    active.kid
                ),
            ),
            (None, _) => report.add(
                "keys",
                Status::Warn,
                format!("{name}: no key signs yet; another algorithm's does until one was published long enough"),
            ),
        }
    }
    Some(ring)
}

/// Looks at the store's place. The file itself is not opened: a running service holds it.
async fn check_store(store: &StoreSettings, report: &mut Report) {
    let name = "store";
    let path = match store {
        StoreSettings::File(path) => path,
        StoreSettings::Redis(settings) => return redis::check(settings, report).await,
        StoreSettings::Memory => {
            return report.add(
                name,
                Status::Warn,
                "in memory: a restart forgets revocations and used session ids; EXCHEQUER_STORE names a file",
            );
        }
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let shown = path.display();
    match (path.exists(), folder.is_dir()) {
        (true, _) => match OpenOptions::new().write(true).open(path) {
            Ok(file) => {
                let bytes = file.metadata().map_or(0, |meta| meta.len());
                report.add(name, Status::Ok, format!("{shown}: {} KiB", bytes / 1024));
            }
            Err(error) => report.fail(name, format!("{shown}: {error}"), Code::StoreUnavailable),
        },
        (false, true) => match try_to_write(folder) {
            Ok(()) => report.add(
                name,
                Status::Ok,
                format!("no store at {shown}: `exchequer serve` makes it"),
            ),
            Err(error) => report.fail(
                name,
                format!("{} is not writable: {error}", folder.display()),
                Code::StoreUnavailable,
            ),
        },
        (false, false) => report.add(
            name,
            Status::Warn,
            format!("no store at {shown}, and no folder for it: `exchequer serve` makes both"),
        ),
    }
}

/// Makes a file in the folder and takes it away again.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".exchequer-doctor-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)
}

/// Fetches the key set from the public URL, as a verifier would, and verifies a token with it.
async fn check_public(
    fetcher: &Fetcher,
    settings: &Settings,
    ring: Option<&Ring>,
    report: &mut Report,
) {
    let name = "public URL";
    let text = format!("{}/.well-known/jwks.json", settings.issuer);
    let Ok(url) = Url::parse(&text) else {
        return report.add(name, Status::Fail, format!("{text} is no URL"));
    };
    // Our own address may be inside the network: that is not an upstream's word.
    let document = match fetcher.get(&url, Reach::Private).await {
        Ok(document) => document,
        Err(error) => {
            return report.add(
                name,
                Status::Fail,
                format!("{text}: {error}: verifiers cannot fetch the key set"),
            );
        }
    };
    match document.max_age {
        Some(60..=3600) => report.add(name, Status::Ok, format!("{text}: 200, no redirect")),
        other => report.add(
            name,
            Status::Warn,
            format!("{text}: max-age is {other:?}, not 300: a proxy changes Cache-Control"),
        ),
    }
    let Some(ring) = ring else { return };
    match round_trip(ring, &document.body) {
        Ok(kid) => report.add(
            "round trip",
            Status::Ok,
            format!("a token signed with {kid} verifies with the published key set"),
        ),
        Err(error) => report.add(
            "round trip",
            Status::Fail,
            format!(
                "{error}: another service or an older ring answers at {}",
                settings.issuer
            ),
        ),
    }
}

fn round_trip(ring: &Ring, key_set: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
    let key = ring
        .keys
        .iter()
        .find(|key| key.state == State::Active)
        .ok_or("no key signs")?;
    let signer = SigningKey::from_pkcs8(key.algorithm, &key.pkcs8)?;
    let public = jwk(signer.public(), key.algorithm);
    let header = json!({"alg": public.get("alg"), "kid": thumbprint(signer.public())});
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode("{}")
    );
    let signature = signer.try_sign(message.as_bytes())?;
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    Ok(verify::with_key_set(key_set, &token)?)
}
