//! Configuration: variables and a file in, one validated [`Settings`] out.
//!
//! Everything is read first and judged together, so that all that is wrong is said at
//! once, each with its place. Nothing else in the service reads a variable.

mod clerk;
mod client;
mod env;
mod file;
mod judge;
mod providers;
mod redis;
mod traces;
mod value;

use crate::clock::UnixSeconds;
use crate::crypto::PublicKey;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
pub use value::is_loopback_host;

pub use clerk::CLERK_VARIABLES;
pub use client::{
    AuthMethod, CLIENT_TTL, ClientFault, ClientKeys, ClientSettings, SecretHash,
    assertion_algorithms, client_id, duration, public_key,
};
pub use env::{VARIABLES, Variable};
pub use file::{MEMBERSHIP_FIELDS, ORGANIZATION_FIELDS, SECTIONS, USER_FIELDS};
pub use redis::{Login, Node, Password, RedisSettings, RedisTls, Topology};
pub use traces::{Sampling, TRACE_VARIABLES, TraceSettings};
pub use value::{is_scope_byte, origins};

/// Something that is wrong, or worth knowing, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A variable's name, or `file:line`.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }

    /// By place, the lines of a file in their order.
    fn order(&self) -> (&str, usize, &str) {
        let (place, line) = self
            .place
            .rsplit_once(':')
            .and_then(|(file, line)| Some((file, line.parse().ok()?)))
            .unwrap_or((&self.place, 0));
        (place, line, &self.message)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What was found while reading: errors stop the service, notes do not.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub errors: Vec<Finding>,
    /// What has no effect, or is allowed and unwise.
    pub notes: Vec<Finding>,
}

impl Findings {
    fn error(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.errors.push(Finding::new(place, message));
    }

    fn note(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Finding::new(place, message));
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a terminal.
    Text,
}

/// The console, where it is on.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// What it asks for, on whatever address it is.
    pub token: Option<SecretString>,
}

/// The whole configuration, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public listener.
    pub listen: SocketAddr,
    /// The listener for health and metrics.
    pub admin_listen: SocketAddr,
    /// `iss` of minted tokens and public base URL; no trailing slash.
    pub issuer: String,
    /// The key ring.
    pub keys: KeySettings,
    /// Origins that browsers may call from.
    pub allowed_origins: Vec<String>,
    /// The log filter, as `tracing_subscriber::EnvFilter` reads it.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Trusted upstream issuers.
    pub issuers: Vec<IssuerSettings>,
    /// The apps that tokens are minted for.
    pub apps: Vec<AppSettings>,
    /// Registered OAuth clients, by id.
    pub clients: BTreeMap<String, ClientSettings>,
    /// Where users sign in when this service begins it, by name.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Where what must be remembered is kept.
    pub store: StoreSettings,
    /// What is done while a Redis does not answer.
    pub store_down: StoreDown,
    /// How often one may ask; `None` limits nobody.
    pub rate_limits: Option<RateLimits>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where the audit log goes.
    pub audit: Option<AuditSettings>,
    /// The console, where it is on.
    pub console: Option<ConsoleSettings>,
    /// Whether `/auth/verify` remembers the bearers that it verified.
    pub verify_cache: bool,
    /// How long requests may wait for a processor; `None` for as long as it takes.
    pub max_queue_delay: Option<Duration>,
    /// How many requests are at work at once.
    pub max_concurrency: usize,
    /// How long the service serves on after SIGTERM.
    pub shutdown_delay: Duration,
    /// Where traces go; `None` makes none.
    pub traces: Option<TraceSettings>,
    /// Where its parts were configured, for people.
    pub places: Places,
}

/// Where each section and setting was configured: a variable's name, or `file:line`.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<String, String>);

impl Places {
    /// Where this setting of a section stands: itself, else its section.
    pub fn of(&self, section: &str, name: &str, setting: &str) -> Option<&str> {
        let setting = self.0.get(&format!("{section}.{name}.{setting}"));
        setting
            .or_else(|| self.0.get(&format!("{section}.{name}")))
            .map(String::as_str)
    }
}

/// Where what must be remembered is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In this process, until it ends.
    Memory,
    /// In an embedded file, for one machine.
    File(PathBuf),
    /// In a Redis, for many.
    Redis(Box<RedisSettings>),
}

/// What is done while a Redis does not answer. What is done once is refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDown {
    /// Revocations are judged by those that the process knows; else 503.
    pub last_known: bool,
    /// Each process counts by itself; else 503.
    pub local_limits: bool,
}

impl Default for StoreDown {
    fn default() -> Self {
        Self {
            last_known: true,
            local_limits: true,
        }
    }
}

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditSettings {
    /// To standard output, beside the log.
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

/// So many requests in so many seconds, all of them at once if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests.
    pub requests: u32,
    /// Seconds.
    pub window: UnixSeconds,
}

/// How often one may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// One subject of one app.
    pub subject: RateLimit,
    /// One client address.
    pub address: RateLimit,
}

/// The key ring's settings; times in seconds.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// The folder of the ring.
    pub dir: PathBuf,
    /// Seals the ring at rest.
    pub secret: Option<KeySecret>,
    /// The algorithm of apps that set none.
    pub algorithm: Algorithm,
    /// How long a key signs.
    pub rotate_every: UnixSeconds,
    /// How long a key is published before it signs.
    pub publish_ahead: UnixSeconds,
    /// How long a key is published after it signed.
    pub keep_after: UnixSeconds,
}

/// The 32 bytes that seal the key ring; never printed.
#[derive(Clone)]
pub struct KeySecret(pub(crate) [u8; 32]);

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret(…)")
    }
}

/// How an issuer's tokens are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerKind {
    /// A Clerk instance: its session claims are understood.
    Clerk,
    /// Any OpenID Connect provider.
    Oidc,
    /// An authorization server that is asked about each token (RFC 7662).
    Introspection,
    /// A provider that signs nothing: who signs in there is told by its API.
    SignIn,
}

impl IssuerKind {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Oidc => "oidc",
            Self::Introspection => "introspection",
            Self::SignIn => "sign_in",
        }
    }

    /// Whether it signs tokens that are taken here.
    pub fn signs(self) -> bool {
        matches!(self, Self::Clerk | Self::Oidc)
    }
}

/// A kind of credential that a Clerk instance gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A session token.
    Session,
    /// An OAuth access token: `oat_…`, or a JWT of type `at+jwt`.
    OAuth,
    /// A machine token: `mt_…`, or a JWT whose subject is a machine.
    Machine,
    /// An API key: `ak_…`.
    ApiKey,
}

impl TokenKind {
    /// Its name in an issuer's `accepts`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::OAuth => "oauth",
            Self::Machine => "m2m",
            Self::ApiKey => "api_key",
        }
    }
}

/// How Clerk's Backend API is asked.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// Its base URL, without `/v1` and without a trailing slash.
    pub url: String,
    /// `Clerk-API-Version`.
    pub version: String,
    /// The instance's secret key.
    pub secret_key: SecretString,
    /// The secret key for machine tokens, where it is another.
    pub machine_secret_key: Option<SecretString>,
}

/// How an introspection endpoint (RFC 7662) is asked.
#[derive(Debug, Clone)]
pub struct IntrospectionSettings {
    /// Where it is; else discovered, for Clerk `/oauth/token_info`.
    pub endpoint: Option<String>,
    /// Our client id there.
    pub client_id: String,
    /// Our client secret there.
    pub client_secret: SecretString,
}

/// The bytes of a webhook secret (`whsec_…`); never printed.
#[derive(Clone)]
pub struct WebhookSecret(pub zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// A trusted upstream issuer.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// The name in the configuration, logs and metrics.
    pub name: String,
    /// The `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// How its tokens are read.
    pub kind: IssuerKind,
    /// Where its key set is, if not discovered.
    pub jwks_uri: Option<String>,
    /// Its one key; then nothing is fetched.
    pub jwt_key: Option<PublicKey>,
    /// The algorithms it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// Where not empty, `aud` must hold one of them.
    pub audiences: Vec<String>,
    /// Where not empty, `azp` must be one of them.
    pub authorized_parties: Vec<String>,
    /// The `typ` values of its tokens; an absent `typ` passes.
    pub token_types: Vec<String>,
    /// Tolerated clock difference, seconds.
    pub clock_skew: UnixSeconds,
    /// The longest lifetime of a subject token, seconds.
    pub max_lifetime: UnixSeconds,
    /// Whether its documents may lead to private addresses.
    pub allow_private_network: bool,
    /// Whether its assertions are authorization grants (RFC 7523 §2.1).
    pub assertions: bool,
    /// The kinds of credential that are accepted from it.
    pub accepts: Vec<TokenKind>,
    /// Clerk's Backend API for this instance.
    pub backend: Option<BackendSettings>,
    /// Its introspection endpoint.
    pub introspection: Option<IntrospectionSettings>,
    /// What its webhooks are signed with: several while one replaces another.
    pub webhook_secrets: Vec<WebhookSecret>,
}

/// The longest life of a token of ours, seconds.
pub const MAX_TTL: UnixSeconds = 3600;

/// What an expression may read.
pub const EXPRESSION_VARIABLES: [&str; 15] = [
    "claims",
    "iss",
    "sub",
    "sid",
    "org",
    "roles",
    "permissions",
    "plans",
    "features",
    "act",
    "auth_time",
    "app",
    "scopes",
    "user",
    "membership",
];

/// A compiled CEL expression and its source.
#[derive(Clone)]
pub struct Expression {
    /// As it stands in the configuration.
    pub source: String,
    /// Compiled once.
    pub program: Arc<cel::Program>,
}

impl Expression {
    /// Whether it reads the variable; one that a macro of its own binds is another.
    pub fn reads(&self, variable: &str) -> bool {
        value::reads(self.program.expression(), variable)
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

/// An app that tokens are minted for.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// The app's name: `client_id` of its tokens.
    pub name: String,
    /// The names of the issuers that it trusts.
    pub issuers: Vec<String>,
    /// The audiences it may ask for; the first is the default.
    pub audiences: Vec<String>,
    /// How long its tokens live, seconds.
    pub ttl: UnixSeconds,
    /// Whether a token may outlive the subject token.
    pub outlives_subject: bool,
    /// What its tokens are signed with.
    pub algorithm: Algorithm,
    /// `typ` of its tokens.
    pub typ: String,
    /// Gives `sub`, where it is not the upstream's.
    pub subject: Option<Expression>,
    /// Must be true.
    pub condition: Option<Expression>,
    /// Further claims.
    pub claims: Vec<(String, Expression)>,
    /// Whether a bare session id may be exchanged.
    pub session_id: SessionIdPolicy,
    /// Whether a session id needs a code verifier (RFC 7636 §4.1).
    pub code_verifier: bool,
    /// The scopes that it knows; empty where it has none.
    pub scopes: Vec<ScopeSettings>,
    /// What it wants to know of users and organisations beside their tokens.
    pub profile: Option<ProfileSettings>,
    /// What its gateways are answered.
    pub verify: VerifySettings,
    /// Whether its tokens have a place in the status list.
    pub status_list: bool,
    /// Its refresh tokens, where it gives some.
    pub refresh: Option<RefreshSettings>,
    /// Whether its tokens are bound to a key of the client's.
    pub dpop: DpopSettings,
    /// Sign-in that this service begins for it.
    pub sign_in: Option<SignInSettings>,
}

/// Whether tokens are bound to a key of the client's (RFC 9449).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpopSettings {
    /// What is done with proofs.
    pub policy: DpopPolicy,
    /// Whether a proof needs a nonce of ours (RFC 9449 §8).
    pub nonce: bool,
}

/// What is done with DPoP proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DpopPolicy {
    /// They are not looked at.
    Off,
    /// One that is sent binds the token.
    #[default]
    Optional,
    /// Nothing is given without one.
    Required,
}

/// Whether a bare session id may be exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionIdPolicy {
    /// Never.
    Off,
    /// Within two minutes after the session was created or touched, and once.
    Fresh,
    /// As long as the session is active.
    Any,
}

/// A scope: who may have it, and what it stands for.
#[derive(Debug, Clone)]
pub struct ScopeSettings {
    /// Its name (RFC 6749 §3.3).
    pub name: String,
    /// The permissions that it stands for.
    pub permissions: Vec<String>,
    /// Where there is one, it must be true for the subject.
    pub when: Option<Expression>,
}

/// What an app wants to know of users and organisations beside their tokens.
#[derive(Debug, Clone)]
pub struct ProfileSettings {
    /// Fields of the user.
    pub user: Vec<String>,
    /// Fields of the organisation.
    pub organization: Vec<String>,
    /// Fields of the membership.
    pub membership: Vec<String>,
    /// How old they may be before they are fetched anew, seconds.
    pub max_age: UnixSeconds,
    /// Who is told of new and changed users.
    pub events: Option<EventSettings>,
}

/// Who is told of new and changed users.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// Where the events are sent.
    pub url: String,
    /// What they are signed with.
    pub secret: WebhookSecret,
    /// Whether the receiver may be at a private address.
    pub allow_private_network: bool,
}

/// What an app's gateways are answered at `/auth/verify`.
#[derive(Debug, Clone, Default)]
pub struct VerifySettings {
    /// Whether the provider's own session token passes as well as an app token.
    pub pass_through: bool,
    /// Whether the session cookie `__session` is looked at where there is no bearer.
    pub session_cookie: bool,
    /// Signs the identity headers, where set.
    pub signing_secret: Option<WebhookSecret>,
    /// Where the app's backends are reached: scheme, host and port of the requests that its
    /// gateways ask about.
    pub origins: Vec<String>,
}

/// How long an app's refresh tokens serve; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshSettings {
    /// How long one may lie unused.
    pub idle: UnixSeconds,
    /// How long after the exchange that began it a family ends.
    pub absolute: UnixSeconds,
    /// For how long the token before gets the same answer again.
    pub grace: UnixSeconds,
    /// Whether the provider is asked at each refresh if the session is still alive.
    pub ask_provider: bool,
}

/// The scope that asks for a refresh token (OpenID Connect Core §11). No app knows it, so it is
/// in no token.
pub const OFFLINE_ACCESS: &str = "offline_access";

/// Sign-in that this service begins for an app.
#[derive(Debug, Clone)]
pub struct SignInSettings {
    /// The names of the providers that its users may sign in at.
    pub providers: Vec<String>,
    /// Where they may be sent back to, byte for byte.
    pub redirect_uris: Vec<String>,
}

/// How a provider tells who signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// By an ID token, with endpoints as it publishes them (OpenID Connect Discovery).
    Oidc,
    /// By an ID token of a Clerk instance.
    Clerk,
    /// By an ID token of Google.
    Google,
    /// By GitHub's API.
    GitHub,
    /// By Facebook's API.
    Facebook,
}

/// How we prove ourselves at a provider's token endpoint (OpenID Connect Core §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderAuth {
    /// In the Authorization header.
    Basic,
    /// In the form.
    Post,
    /// Not at all: PKCE alone.
    None,
}

/// The path below which sign-ins begin; the provider's name follows.
pub const LOGIN: &str = "/auth/login/";
/// The path below which providers end them; the provider's name follows.
pub const CALLBACK: &str = "/auth/callback/";

/// Where users sign in when this service begins it.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its name in the configuration and in URLs.
    pub name: String,
    /// How it tells who signed in.
    pub kind: ProviderKind,
    /// The `iss` of those who sign in.
    pub issuer: String,
    /// Our client id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Option<SecretString>,
    /// How we prove ourselves there.
    pub auth: ProviderAuth,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Where users are sent to, where it is not discovered.
    pub authorization_endpoint: Option<String>,
    /// Where codes are exchanged, where it is not discovered.
    pub token_endpoint: Option<String>,
    /// The base URL of its API, where it tells by one.
    pub api_url: Option<String>,
    /// Whether its documents may lead to private addresses.
    pub allow_private_network: bool,
}

impl ProviderSettings {
    /// Where it sends users back to, at the service of this issuer.
    pub fn callback(&self, issuer: &str) -> String {
        format!("{issuer}{CALLBACK}{}", self.name)
    }
}

/// Where the configuration is read from.
#[derive(Clone, Default)]
pub struct Sources {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// The file to read where `EXCHEQUER_CONFIG` names none, if it exists.
    pub default_file: Option<PathBuf>,
    /// Whether standard output is a terminal: then the log is text.
    pub terminal: bool,
}

impl Sources {
    /// This process's environment and working directory.
    pub fn process() -> Self {
        use std::io::IsTerminal;
        Self {
            variables: std::env::vars_os()
                // What is no UTF-8 is refused by its parser, not taken for unset.
                .map(|(name, value)| {
                    let text = |text: OsString| text.to_string_lossy().into_owned();
                    (text(name), text(value))
                })
                .collect(),
            default_file: Some(PathBuf::from("exchequer.toml")),
            terminal: std::io::stdout().is_terminal(),
        }
    }
}

/// What a configuration is read from.
#[derive(Debug)]
pub struct ReadFrom {
    /// The variables that are set, by name.
    pub variables: Vec<String>,
    /// The file, where there is one.
    pub file: Option<PathBuf>,
}

/// What of the sources is read.
pub fn read_from(sources: &Sources) -> ReadFrom {
    let set = sources
        .variables
        .iter()
        .filter(|(_, text)| !text.is_empty());
    let mut variables: Vec<String> = set
        .map(|(name, _)| name)
        .filter(|name| {
            let base = name.strip_suffix("_FILE").unwrap_or(name);
            VARIABLES.iter().any(|known| known.name == base) || clerk::is_variable(base)
        })
        .cloned()
        .collect();
    variables.sort();
    let resolved = env::resolve_files(&sources.variables, &mut Findings::default());
    let named = resolved.get("EXCHEQUER_CONFIG").map(PathBuf::from);
    let default = || sources.default_file.clone().filter(|path| path.exists());
    ReadFrom {
        variables,
        file: named.or_else(default),
    }
}

/// Reads and judges the whole configuration. `None` where there are errors.
pub fn load(sources: &Sources) -> (Option<Settings>, Findings) {
    let mut findings = Findings::default();
    let variables = env::resolve_files(&sources.variables, &mut findings);
    let common = env::read(&variables, sources.terminal, &mut findings);
    let mut structure = file::read(
        &variables,
        common.config.as_ref(),
        sources.default_file.as_ref(),
        &common,
        &mut findings,
    );
    let traces = traces::read(&variables, &mut findings);
    clerk::read(&variables, &common, &mut structure, &mut findings);
    providers::trust(&mut structure, &mut findings);
    judge::judge(&common, &structure, &mut findings);
    for found in [&mut findings.errors, &mut findings.notes] {
        found.sort_by(|one, other| one.order().cmp(&other.order()));
        found.dedup();
    }
    let settings = findings.errors.is_empty().then(|| Settings {
        listen: common.listen,
        admin_listen: common.admin_listen,
        issuer: common.issuer,
        keys: common.keys,
        allowed_origins: common.allowed_origins,
        log: common.log,
        log_format: common.log_format,
        issuers: structure.issuers,
        apps: structure.apps.into_values().collect(),
        clients: structure.clients,
        providers: structure.providers,
        store: common.store,
        store_down: common.store_down,
        rate_limits: common.rate_limits,
        trusted_proxies: common.trusted_proxies,
        audit: common.audit,
        console: common.console,
        verify_cache: common.verify_cache,
        max_queue_delay: common.max_queue_delay,
        max_concurrency: common.max_concurrency,
        shutdown_delay: common.shutdown_delay,
        traces,
        places: structure.settings,
    });
    (settings, findings)
}

/// What the file and the `CLERK_*` variables describe together.
#[derive(Debug, Default)]
struct Structure {
    issuers: Vec<IssuerSettings>,
    apps: BTreeMap<String, AppSettings>,
    clients: BTreeMap<String, ClientSettings>,
    providers: BTreeMap<String, ProviderSettings>,
    /// Where each issuer and app was configured, for messages.
    places: BTreeMap<String, String>,
    /// Where each setting was, for `explain`.
    settings: Places,
}

impl Structure {
    fn place(&self, name: &str) -> String {
        self.places
            .get(name)
            .cloned()
            .unwrap_or_else(|| name.to_owned())
    }
}

/// Whether a URL's host is this machine.
pub fn is_loopback_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(is_loopback_host))
}
