//! The `EXCHEQUER_*` variables: read with envy into plain strings, then judged.

use super::redis;
use super::value::{self, bounded, suggest};
use super::{
    AuditSettings, ConsoleSettings, Findings, KeySecret, KeySettings, LogFormat, MAX_TTL,
    RateLimit, RateLimits, StoreDown, StoreSettings,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A variable that the service knows.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value where it is not set.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

pub(super) const fn variable(
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// Every `EXCHEQUER_*` variable.
pub const VARIABLES: &[Variable] = &[
    variable("EXCHEQUER_LISTEN", "127.0.0.1:8080", "public listener"),
    variable(
        "EXCHEQUER_ADMIN_LISTEN",
        "127.0.0.1:9090",
        "health and metrics; never published",
    ),
    variable(
        "EXCHEQUER_CONSOLE",
        "on",
        "on or off: the console, on the admin listener's `/console`; where that is not loopback, only with a token",
    ),
    variable(
        "EXCHEQUER_CONSOLE_TOKEN",
        "none",
        "32 characters or more: what the console asks for, also on loopback; without it a console that is not on loopback takes the admin token of the file beside the store",
    ),
    variable(
        "EXCHEQUER_ISSUER",
        "http://localhost:8080",
        "`iss` of minted tokens and public base URL; no trailing slash",
    ),
    variable(
        "EXCHEQUER_AUDIENCE",
        "the issuer",
        "`aud` of minted tokens where an app sets none",
    ),
    variable(
        "EXCHEQUER_TOKEN_TTL",
        "10m",
        "lifetime of minted tokens, 30s to 1h",
    ),
    variable("EXCHEQUER_KEYS_DIR", "keys", "folder of the local key ring"),
    variable(
        "EXCHEQUER_KEYS_SECRET",
        "none",
        "32 bytes, base64: encrypts the key ring at rest; optional with a folder, required with Redis",
    ),
    variable("EXCHEQUER_KEY_ALG", "ES256", "ES256, RS256 or EdDSA"),
    variable("EXCHEQUER_KEY_ROTATE_EVERY", "90d", "how long a key signs"),
    variable(
        "EXCHEQUER_KEY_PUBLISH_AHEAD",
        "24h",
        "how long a key is published before it signs",
    ),
    variable(
        "EXCHEQUER_KEY_KEEP_AFTER",
        "24h",
        "how long a key stays published after it signed; never less than the longest token lifetime and five minutes",
    ),
    variable(
        "EXCHEQUER_STORE",
        "data/exchequer.redb",
        "what must be remembered: `memory`, the path of a file, or the URL of a Redis",
    ),
    variable(
        "EXCHEQUER_STORE_DOWN_REVOCATION",
        "last_known",
        "while Redis does not answer: `last_known` goes by the revocations known by then, `refuse` answers 503",
    ),
    variable(
        "EXCHEQUER_STORE_DOWN_LIMITS",
        "local",
        "while Redis does not answer: `local` counts in each process for itself, `refuse` answers 503",
    ),
    variable(
        "EXCHEQUER_CONFIG",
        "exchequer.toml if present",
        "the configuration file",
    ),
    variable(
        "EXCHEQUER_ALLOWED_ORIGINS",
        "none",
        "exact origins for CORS, comma separated",
    ),
    variable(
        "EXCHEQUER_RATE_LIMIT",
        "on",
        "on (120/1m for a subject, 1200/1m for an address), off, or N/1m for a subject and ten times that for an address",
    ),
    variable(
        "EXCHEQUER_TRUSTED_PROXIES",
        "none",
        "addresses or networks, comma separated, whose X-Forwarded-For is believed",
    ),
    variable(
        "EXCHEQUER_AUDIT",
        "off",
        "off, stdout, or file:PATH: one event for each exchange, refusal, revocation and rotation",
    ),
    variable(
        "EXCHEQUER_VERIFY_CACHE",
        "on",
        "on or off: whether /auth/verify remembers the bearers that it verified",
    ),
    variable(
        "EXCHEQUER_MAX_CONCURRENCY",
        "512",
        "1 to 65536: requests at work at once, those that wait for a provider or the store among them; an eighth as many wait for a place, the rest is refused with 503",
    ),
    variable(
        "EXCHEQUER_MAX_QUEUE_DELAY",
        "25ms",
        "1ms to 1000ms, or off: how long requests may wait for a processor; while they would wait longer, those that cost something are refused with 503",
    ),
    variable(
        "EXCHEQUER_SHUTDOWN_DELAY",
        "5s",
        "how long it serves on after SIGTERM, while balancers leave it; 0s to 5m",
    ),
    variable(
        "EXCHEQUER_LOG",
        "info",
        "log filter, as in RUST_LOG; libraries never below info",
    ),
    variable(
        "EXCHEQUER_LOG_FORMAT",
        "json off a terminal",
        "json or text",
    ),
];

/// The same names, as envy fills them; every one plain text.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Plain {
    listen: Option<String>,
    admin_listen: Option<String>,
    console: Option<String>,
    console_token: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    token_ttl: Option<String>,
    keys_dir: Option<String>,
    keys_secret: Option<String>,
    key_alg: Option<String>,
    key_rotate_every: Option<String>,
    key_publish_ahead: Option<String>,
    key_keep_after: Option<String>,
    store: Option<String>,
    store_down_revocation: Option<String>,
    store_down_limits: Option<String>,
    config: Option<String>,
    allowed_origins: Option<String>,
    rate_limit: Option<String>,
    trusted_proxies: Option<String>,
    audit: Option<String>,
    verify_cache: Option<String>,
    max_concurrency: Option<String>,
    max_queue_delay: Option<String>,
    shutdown_delay: Option<String>,
    log: Option<String>,
    log_format: Option<String>,
}

/// What the variables alone say.
#[derive(Debug)]
pub(super) struct Common {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub console: Option<ConsoleSettings>,
    pub issuer: String,
    pub audience: String,
    pub token_ttl: i64,
    pub keys: KeySettings,
    pub config: Option<PathBuf>,
    pub allowed_origins: Vec<String>,
    pub store: StoreSettings,
    pub store_down: StoreDown,
    pub rate_limits: Option<RateLimits>,
    pub trusted_proxies: Vec<IpNet>,
    pub audit: Option<AuditSettings>,
    pub verify_cache: bool,
    pub max_concurrency: usize,
    pub max_queue_delay: Option<Duration>,
    pub shutdown_delay: Duration,
    pub log: String,
    pub log_format: LogFormat,
}

/// Replaces every known `NAME_FILE` by `NAME` with the file's content; empty is unset.
pub(super) fn resolve_files(
    variables: &[(String, String)],
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut resolved = BTreeMap::new();
    for (name, text) in variables {
        if !text.is_empty() && !name.ends_with("_FILE") {
            resolved.insert(name.clone(), text.clone());
        }
    }
    for (name, path) in variables {
        let Some(base) = name.strip_suffix("_FILE") else {
            continue;
        };
        let ours = VARIABLES.iter().any(|variable| variable.name == base)
            || super::clerk::is_variable(base)
            || super::traces::is_secret(base);
        if path.is_empty() {
            continue;
        }
        if !ours {
            if !is_test_variable(name) {
                resolved.insert(name.clone(), path.clone());
            }
            continue;
        }
        if resolved.contains_key(base) {
            findings.error(name, format!("{base} is set too: set one of the two"));
            continue;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => match text.trim_end_matches(['\r', '\n']) {
                "" => findings.error(name, "the file that it names is empty".to_owned()),
                text => {
                    resolved.insert(base.to_owned(), text.to_owned());
                }
            },
            Err(error) => findings.error(
                name,
                format!("the file that it names cannot be read: {error}"),
            ),
        }
    }
    resolved
}

fn is_test_variable(name: &str) -> bool {
    cfg!(feature = "settable-clock") && name == "EXCHEQUER_CLOCK_SHIFT_FILE"
}

/// Reads the `EXCHEQUER_*` variables.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    terminal: bool,
    findings: &mut Findings,
) -> Common {
    let known: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    for name in variables
        .keys()
        .filter(|name| name.starts_with("EXCHEQUER_"))
    {
        if !known.contains(&name.as_str()) {
            findings.error(
                name,
                format!("there is no such variable{}", suggest(name, &known)),
            );
        }
    }
    let pairs = variables
        .iter()
        .map(|(name, text)| (name.clone(), text.clone()));
    let plain: Plain = match envy::prefixed("EXCHEQUER_").from_iter(pairs) {
        Ok(plain) => plain,
        Err(error) => {
            findings.error("EXCHEQUER_*", error.to_string());
            Plain::default()
        }
    };
    judge(plain, terminal, findings)
}

/// Takes a value through its parser; where it fails, notes the error and goes on with the
/// default, so that everything that is wrong is said at once.
fn parsed<T>(
    name: &str,
    text: Option<&str>,
    default: T,
    findings: &mut Findings,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> T {
    match text.map(parse) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(message)) => {
            findings.error(name, message);
            default
        }
    }
}

fn judge(plain: Plain, terminal: bool, findings: &mut Findings) -> Common {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!("{text:?} is no address and port: write 0.0.0.0:8080 or [::]:8080")
        })
    };
    let listen = parsed(
        "EXCHEQUER_LISTEN",
        plain.listen.as_deref(),
        local(8080),
        findings,
        listener,
    );
    let admin_listen = parsed(
        "EXCHEQUER_ADMIN_LISTEN",
        plain.admin_listen.as_deref(),
        local(9090),
        findings,
        listener,
    );
    if listen == admin_listen && listen.port() != 0 {
        findings.error(
            "EXCHEQUER_ADMIN_LISTEN",
            "the admin listener must not be the public one",
        );
    }
    let console = parsed(
        "EXCHEQUER_CONSOLE",
        plain.console.as_deref(),
        true,
        findings,
        on_or_off,
    );
    let console_token = parsed(
        "EXCHEQUER_CONSOLE_TOKEN",
        plain.console_token.as_deref(),
        None,
        findings,
        |text| console_token(text).map(Some),
    );
    let issuer = parsed(
        "EXCHEQUER_ISSUER",
        plain.issuer.as_deref(),
        "http://localhost:8080".to_owned(),
        findings,
        own_issuer,
    );
    let audience = plain.audience.unwrap_or_else(|| issuer.clone());
    let token_ttl = parsed(
        "EXCHEQUER_TOKEN_TTL",
        plain.token_ttl.as_deref(),
        600,
        findings,
        |text| bounded(text, 30, MAX_TTL),
    );
    let keys = KeySettings {
        dir: plain
            .keys_dir
            .map_or_else(|| PathBuf::from("keys"), PathBuf::from),
        secret: parsed(
            "EXCHEQUER_KEYS_SECRET",
            plain.keys_secret.as_deref(),
            None,
            findings,
            |text| key_secret(text).map(Some),
        ),
        algorithm: parsed(
            "EXCHEQUER_KEY_ALG",
            plain.key_alg.as_deref(),
            Algorithm::ES256,
            findings,
            value::signing_algorithm,
        ),
        rotate_every: parsed(
            "EXCHEQUER_KEY_ROTATE_EVERY",
            plain.key_rotate_every.as_deref(),
            90 * 86_400,
            findings,
            |text| bounded(text, 1, 3650 * 86_400),
        ),
        publish_ahead: parsed(
            "EXCHEQUER_KEY_PUBLISH_AHEAD",
            plain.key_publish_ahead.as_deref(),
            86_400,
            findings,
            |text| bounded(text, 1, 365 * 86_400),
        ),
        keep_after: parsed(
            "EXCHEQUER_KEY_KEEP_AFTER",
            plain.key_keep_after.as_deref(),
            86_400,
            findings,
            |text| bounded(text, 330, 3650 * 86_400),
        ),
    };
    judge_keys(&keys, findings);
    let store = parsed(
        "EXCHEQUER_STORE",
        plain.store.as_deref(),
        StoreSettings::File(PathBuf::from("data/exchequer.redb")),
        findings,
        store,
    );
    if matches!(store, StoreSettings::Redis(_)) && keys.secret.is_none() {
        findings.error(
            "EXCHEQUER_KEYS_SECRET",
            "is required where EXCHEQUER_STORE is a Redis, which holds the key ring too: make it with `openssl rand -base64 32`, the same for all replicas",
        );
    }
    let rate_limits = parsed(
        "EXCHEQUER_RATE_LIMIT",
        plain.rate_limit.as_deref(),
        Some(DEFAULT_RATE_LIMITS),
        findings,
        rate_limits,
    );
    let audit = parsed(
        "EXCHEQUER_AUDIT",
        plain.audit.as_deref(),
        None,
        findings,
        audit,
    );
    let store_down = store_down(
        plain.store_down_revocation.as_deref(),
        plain.store_down_limits.as_deref(),
        findings,
    );
    let verify_cache = parsed(
        "EXCHEQUER_VERIFY_CACHE",
        plain.verify_cache.as_deref(),
        true,
        findings,
        on_or_off,
    );
    let max_concurrency = parsed(
        "EXCHEQUER_MAX_CONCURRENCY",
        plain.max_concurrency.as_deref(),
        512,
        findings,
        |text| match text.parse() {
            Ok(most @ 1..=65_536) => Ok(most),
            _ => Err(format!("{text:?} is no number from 1 to 65536")),
        },
    );
    let max_queue_delay = parsed(
        "EXCHEQUER_MAX_QUEUE_DELAY",
        plain.max_queue_delay.as_deref(),
        Some(Duration::from_millis(25)),
        findings,
        queue_delay,
    );
    let shutdown_delay = parsed(
        "EXCHEQUER_SHUTDOWN_DELAY",
        plain.shutdown_delay.as_deref(),
        Duration::from_secs(5),
        findings,
        |text| bounded(text, 0, 300).map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
    );
    let trusted_proxies = listed(plain.trusted_proxies.as_deref())
        .filter_map(|text| match network(text) {
            Ok(network) => Some(network),
            Err(message) => {
                findings.error("EXCHEQUER_TRUSTED_PROXIES", message);
                None
            }
        })
        .collect();
    if rate_limits.is_some() && plain.trusted_proxies.is_none() && !listen.ip().is_loopback() {
        findings.note(
            "EXCHEQUER_TRUSTED_PROXIES",
            "is not set: clients are limited by the address that connects, and those that connect from a private address, as through a proxy in the cluster, by their subject alone; set it to the proxies' networks, or EXCHEQUER_RATE_LIMIT=off",
        );
    }
    let log = parsed(
        "EXCHEQUER_LOG",
        plain.log.as_deref(),
        "info".to_owned(),
        findings,
        |text| {
            tracing_subscriber::EnvFilter::try_new(text)
                .map(|_| text.to_owned())
                .map_err(|error| format!("{text:?} is no log filter: {error}"))
        },
    );
    let log_format = parsed(
        "EXCHEQUER_LOG_FORMAT",
        plain.log_format.as_deref(),
        if terminal {
            LogFormat::Text
        } else {
            LogFormat::Json
        },
        findings,
        |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err(format!("{text:?} is neither json nor text")),
        },
    );
    let allowed_origins = listed(plain.allowed_origins.as_deref())
        .filter_map(|text| match origin(text) {
            Ok(()) => Some(text.to_owned()),
            Err(message) => {
                findings.error("EXCHEQUER_ALLOWED_ORIGINS", message);
                None
            }
        })
        .collect();
    Common {
        listen,
        admin_listen,
        console: console.then_some(ConsoleSettings {
            token: console_token,
        }),
        issuer,
        audience,
        token_ttl,
        keys,
        config: plain.config.map(PathBuf::from),
        allowed_origins,
        store,
        store_down,
        rate_limits,
        trusted_proxies,
        audit,
        verify_cache,
        max_concurrency,
        max_queue_delay,
        shutdown_delay,
        log,
        log_format,
    }
}

/// Milliseconds, for no other setting is as short.
fn queue_delay(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text
        .strip_suffix("ms")
        .and_then(|number| number.parse().ok())
    {
        Some(millis @ 1..=1000) => Ok(Some(Duration::from_millis(millis))),
        _ => Err(format!(
            "{text:?} is neither off nor 1ms to 1000ms: write 25ms"
        )),
    }
}

/// The items of a comma-separated list.
fn listed(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.into_iter()
        .flat_map(|list| list.split(',').map(str::trim))
        .filter(|item| !item.is_empty())
}

fn own_issuer(text: &str) -> Result<String, String> {
    value::https_url(text)?;
    if text.ends_with('/') {
        return Err(format!(
            "{text:?} must not end in a slash: verifiers compare it byte for byte"
        ));
    }
    Ok(text.to_owned())
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

/// What a header can carry, and nobody guesses; the text is a secret, and not shown.
fn console_token(text: &str) -> Result<SecretString, String> {
    if text.len() < 32 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be 32 or more printable ASCII characters without spaces: make it with `openssl rand -hex 32`".to_owned());
    }
    Ok(text.to_owned().into())
}

fn key_secret(text: &str) -> Result<KeySecret, String> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(KeySecret)
        .ok_or_else(|| {
            "must be 32 bytes in base64: make them with `openssl rand -base64 32`".to_owned()
        })
}

fn judge_keys(keys: &KeySettings, findings: &mut Findings) {
    if keys.rotate_every < keys.publish_ahead {
        findings.error(
            "EXCHEQUER_KEY_ROTATE_EVERY",
            "a key cannot rotate faster than its successor is published ahead (EXCHEQUER_KEY_PUBLISH_AHEAD)",
        );
    }
    if keys.publish_ahead < 7200 {
        findings.note(
            "EXCHEQUER_KEY_PUBLISH_AHEAD",
            "less than 2h: verifiers that refresh their key sets more seldom than that (AWS HTTP API: 2h, Istio: 20m) refuse good tokens after a rotation",
        );
    }
    if keys.algorithm == Algorithm::EdDSA {
        findings.note(
            "EXCHEQUER_KEY_ALG",
            "EdDSA cannot be verified by Spring Security, Nimbus alone, Node's jsonwebtoken, python-jose and AWS; ES256 can, but for AWS HTTP APIs",
        );
    }
}

fn store(text: &str) -> Result<StoreSettings, String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        _ if !scheme.is_some_and(redis::is_redis) && redis::is_nearly(text) => {
            Err("begins like the URL of a Redis and is none: write redis://HOST:6379".to_owned())
        }
        None if text == "memory" => Ok(StoreSettings::Memory),
        None if text.starts_with("file:") => {
            Err(format!("{text:?}: write the path alone, without file:"))
        }
        None => Ok(StoreSettings::File(PathBuf::from(text))),
        // The URL may hold a password: it is not shown.
        Some(scheme) if redis::is_redis(scheme) => {
            redis::read(text).map(|redis| StoreSettings::Redis(Box::new(redis)))
        }
        Some(scheme) => Err(format!(
            "{scheme:?} is no store: memory, the path of a file, or the URL of a Redis"
        )),
    }
}

/// What is done without a Redis: each either by what the process knows, or not at all.
fn store_down(
    revocation: Option<&str>,
    limits: Option<&str>,
    findings: &mut Findings,
) -> StoreDown {
    let mut either = |name, text: Option<&str>, goes_on: &str| {
        parsed(name, text, true, findings, |text| match text {
            "refuse" => Ok(false),
            _ if text == goes_on => Ok(true),
            _ => Err(format!("{text:?} is neither {goes_on} nor refuse")),
        })
    };
    StoreDown {
        last_known: either("EXCHEQUER_STORE_DOWN_REVOCATION", revocation, "last_known"),
        local_limits: either("EXCHEQUER_STORE_DOWN_LIMITS", limits, "local"),
    }
}

/// A rate limit where none is configured.
const DEFAULT_RATE_LIMITS: RateLimits = RateLimits {
    subject: RateLimit {
        requests: 120,
        window: 60,
    },
    address: RateLimit {
        requests: 1200,
        window: 60,
    },
};

fn rate_limits(text: &str) -> Result<Option<RateLimits>, String> {
    let error = || format!("{text:?} is neither on, off nor N/1m");
    match text {
        "on" => return Ok(Some(DEFAULT_RATE_LIMITS)),
        "off" => return Ok(None),
        _ => {}
    }
    let (requests, window) = text.split_once('/').ok_or_else(error)?;
    let requests = requests
        .parse()
        .ok()
        .filter(|requests| (1..=1_000_000).contains(requests))
        .ok_or_else(error)?;
    let window = bounded(window, 1, 86_400)?;
    Ok(Some(RateLimits {
        subject: RateLimit { requests, window },
        address: RateLimit {
            requests: requests * 10,
            window,
        },
    }))
}

fn audit(text: &str) -> Result<Option<AuditSettings>, String> {
    match (text, text.strip_prefix("file:")) {
        ("off", _) => Ok(None),
        ("stdout", _) => Ok(Some(AuditSettings::Stdout)),
        (_, Some(path)) if !path.is_empty() => Ok(Some(AuditSettings::File(PathBuf::from(path)))),
        _ => Err(format!("{text:?} is neither off, stdout nor file:PATH")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()))
        .map_err(|_| format!("{text:?} is neither an address nor a network: write 10.0.0.0/8"))
}

fn origin(text: &str) -> Result<(), String> {
    let error = || {
        format!(
            "{text:?} is no origin: write https://app.example.com, with its port where it is not 443"
        )
    };
    let url = url::Url::parse(text).map_err(|_| error())?;
    // A web view's own scheme (capacitor://localhost) has an opaque origin by the URL
    // standard; browsers send scheme and host all the same.
    let sent = if url.origin().is_tuple() {
        url.origin().ascii_serialization()
    } else {
        format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
    };
    if url.has_host() && sent == text && !text.contains('*') {
        Ok(())
    } else {
        Err(error())
    }
}
