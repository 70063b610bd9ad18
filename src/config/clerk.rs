//! The `CLERK_*` variables: one Clerk issuer or several, and an app for each suffix.

use super::env::{Common, Variable, variable};
use super::file::token_types;
use super::value::{self, https_url};
use super::{
    AppSettings, BackendSettings, DpopSettings, Findings, IntrospectionSettings, IssuerKind,
    IssuerSettings, Places, SessionIdPolicy, Structure, TokenKind, VerifySettings, WebhookSecret,
};
use crate::crypto::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};

/// Clerk's Backend API, and the version of it that this service is written for.
const API_URL: &str = "https://api.clerk.com";
const API_VERSION: &str = "2026-05-12";

/// The variables, as Clerk's own SDKs name them.
pub const CLERK_VARIABLES: &[Variable] = &[
    variable(
        "CLERK_JWT_ISSUER",
        "none",
        "the instance's `iss`, or several, comma separated",
    ),
    variable(
        "CLERK_PUBLISHABLE_KEY",
        "none",
        "gives the issuer where none is named",
    ),
    variable(
        "CLERK_FRONTEND_API_URL",
        "none",
        "gives the issuer where none is named",
    ),
    variable(
        "CLERK_AUTHORIZED_PARTIES",
        "none",
        "origins of your front ends, comma separated: `azp` must be one of them",
    ),
    variable(
        "CLERK_JWT_AUDIENCE",
        "none",
        "comma separated: `aud` must hold one of them. Clerk's session tokens have no `aud` unless a claim adds it",
    ),
    variable(
        "CLERK_JWT_KEY",
        "none",
        "the instance's public key in PEM: then no network is needed",
    ),
    variable(
        "CLERK_SECRET_KEY",
        "none",
        "secret; the instance's secret key: session ids, profiles, machine tokens and API keys need it",
    ),
    variable(
        "CLERK_MACHINE_SECRET_KEY",
        "none",
        "secret; the key that machine tokens are verified with, where it is another; machine tokens themselves need `accepts` in the file",
    ),
    variable("CLERK_API_URL", API_URL, "the Backend API"),
    variable(
        "CLERK_API_VERSION",
        API_VERSION,
        "the version of the Backend API that is asked for",
    ),
    variable(
        "CLERK_WEBHOOK_SIGNING_SECRET",
        "none",
        "secret; what the instance's webhooks are signed with (`whsec_…`), or several, comma separated, while one replaces another",
    ),
    variable(
        "CLERK_WEBHOOK_SECRET",
        "none",
        "the same, under the older name",
    ),
    variable(
        "CLERK_OAUTH_CLIENT_ID",
        "none",
        "an OAuth client of yours there: then OAuth access tokens are accepted too, the opaque ones introspected",
    ),
    variable("CLERK_OAUTH_CLIENT_SECRET", "none", "secret; that client's"),
];

/// Splits a name into the known variable and the app that its suffix names.
fn split(name: &str) -> Option<(&'static str, Option<String>)> {
    CLERK_VARIABLES
        .iter()
        .filter_map(|variable| {
            let known = variable.name;
            let rest = name.strip_prefix(known)?;
            if rest.is_empty() {
                return Some((known, None));
            }
            let suffix = rest.strip_prefix('_').filter(|suffix| !suffix.is_empty())?;
            Some((known, Some(suffix.to_ascii_lowercase())))
        })
        .max_by_key(|(known, _)| known.len())
}

/// Whether the name is a Clerk variable that the service knows.
pub(super) fn is_variable(name: &str) -> bool {
    split(name).is_some()
}

/// The variables that name an app's Clerk instance.
const INSTANCE: [&str; 3] = [
    "CLERK_JWT_ISSUER",
    "CLERK_PUBLISHABLE_KEY",
    "CLERK_FRONTEND_API_URL",
];

/// One app's view: its own variable, else the plain one.
struct View<'v> {
    variables: &'v BTreeMap<String, String>,
    suffix: Option<&'v str>,
    /// Whether the plain variables are looked at too.
    plain: bool,
}

impl<'v> View<'v> {
    fn own_name(&self, name: &str) -> Option<String> {
        self.suffix
            .map(|suffix| format!("{name}_{}", suffix.to_ascii_uppercase()))
    }

    /// The view on the variables of [`INSTANCE`]: the app's own alone where it has one of
    /// them, for two of two levels may name two instances.
    fn instance(&self) -> Self {
        let own = INSTANCE
            .iter()
            .filter_map(|name| self.own_name(name))
            .any(|name| self.variables.contains_key(&name));
        Self {
            plain: !own,
            ..*self
        }
    }

    /// The variable's name and value.
    fn get(&self, name: &str) -> Option<(String, &'v str)> {
        let plain = self.plain.then(|| name.to_owned());
        [self.own_name(name), plain]
            .into_iter()
            .flatten()
            .find_map(|name| Some((name.clone(), self.variables.get(&name)?.as_str())))
    }

    /// Notes which variable each setting of an issuer is, set or not.
    fn note_places(&self, issuer: &str, place: &str, places: &mut Places) {
        places
            .0
            .insert(format!("issuers.{issuer}"), place.to_owned());
        for (setting, name) in [
            ("audiences", "CLERK_JWT_AUDIENCE"),
            ("authorized_parties", "CLERK_AUTHORIZED_PARTIES"),
            ("jwt_key", "CLERK_JWT_KEY"),
            ("secret_key", "CLERK_SECRET_KEY"),
        ] {
            let variable = self.get(name).map(|(name, _)| name);
            let variable = variable
                .or_else(|| self.own_name(name))
                .unwrap_or_else(|| name.to_owned());
            places
                .0
                .insert(format!("issuers.{issuer}.{setting}"), variable);
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        let text = self.get(name).map_or("", |(_, text)| text);
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// Adds the issuers and apps that the variables describe.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    common: &Common,
    structure: &mut Structure,
    findings: &mut Findings,
) {
    let mut suffixes = BTreeSet::new();
    for name in variables.keys().filter(|name| name.starts_with("CLERK_")) {
        match split(name) {
            Some((_, suffix)) => {
                suffixes.insert(suffix);
            }
            None => {
                let known: Vec<&str> = CLERK_VARIABLES.iter().map(|each| each.name).collect();
                let near = value::suggest(name, &known);
                if !near.is_empty() {
                    findings.note(name, format!("is not a variable of this service{near}"));
                }
            }
        }
    }
    for suffix in suffixes {
        let view = View {
            variables,
            suffix: suffix.as_deref(),
            plain: true,
        };
        add_app(
            &view,
            suffix.as_deref().unwrap_or("default"),
            common,
            structure,
            findings,
        );
    }
}

fn add_app(
    view: &View<'_>,
    app: &str,
    common: &Common,
    structure: &mut Structure,
    findings: &mut Findings,
) {
    let Some((place, identifiers)) = issuers(view, findings) else {
        return;
    };
    let key = static_key(view, app, &identifiers, findings);
    let mut instance = Some(instance(view, app, &identifiers, findings));
    let mut names = Vec::new();
    for identifier in identifiers {
        let instance = instance.take().unwrap_or_default();
        let url = match https_url(&identifier) {
            Ok(url) => url,
            Err(message) => {
                findings.error(&place, message);
                continue;
            }
        };
        if identifier.ends_with('/') {
            findings.note(&place, format!("{identifier:?} ends in a slash, which Clerk's issuers do not: the comparison is byte for byte"));
        }
        let host = url.host_str().unwrap_or_default();
        let mut name = url
            .port()
            .map_or(host.to_owned(), |port| format!("{host}-{port}"));
        for part in url.path().split('/').filter(|part| !part.is_empty()) {
            name = format!("{name}-{part}");
        }
        if app != "default" {
            name = format!("{name}-{app}");
        }
        structure.places.insert(name.clone(), place.clone());
        view.note_places(&name, &place, &mut structure.settings);
        names.push(name.clone());
        structure.issuers.push(IssuerSettings {
            assertions: false,
            name,
            issuer: identifier,
            kind: IssuerKind::Clerk,
            jwks_uri: None,
            jwt_key: key.clone(),
            algorithms: vec![Algorithm::RS256],
            audiences: view.list("CLERK_JWT_AUDIENCE"),
            authorized_parties: view.list("CLERK_AUTHORIZED_PARTIES"),
            token_types: token_types(&instance.accepts),
            clock_skew: 5,
            max_lifetime: 86_400,
            allow_private_network: false,
            accepts: instance.accepts,
            backend: instance.backend,
            introspection: instance.introspection,
            webhook_secrets: instance.webhook_secrets,
        });
    }
    if structure.apps.contains_key(app) {
        findings.error(
            &place,
            format!("the app {app:?} is configured in the file too: configure it in one place"),
        );
        return;
    }
    let settings = &mut structure.settings.0;
    settings.insert(format!("apps.{app}"), place.clone());
    structure.places.insert(format!("app {app}"), place);
    structure.apps.insert(
        app.to_owned(),
        AppSettings {
            name: app.to_owned(),
            issuers: names,
            verify: VerifySettings {
                origins: value::origins(std::slice::from_ref(&common.audience)),
                ..VerifySettings::default()
            },
            dpop: DpopSettings::default(),
            audiences: vec![common.audience.clone()],
            ttl: common.token_ttl,
            outlives_subject: true,
            algorithm: common.keys.algorithm,
            typ: "JWT".to_owned(),
            subject: None,
            condition: None,
            claims: Vec::new(),
            session_id: SessionIdPolicy::Fresh,
            code_verifier: false,
            scopes: Vec::new(),
            profile: None,
            refresh: None,
            status_list: false,
            sign_in: None,
        },
    );
}

/// What an app holds of one Clerk instance beside its issuer.
struct Instance {
    accepts: Vec<TokenKind>,
    backend: Option<BackendSettings>,
    introspection: Option<IntrospectionSettings>,
    webhook_secrets: Vec<WebhookSecret>,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            accepts: vec![TokenKind::Session],
            backend: None,
            introspection: None,
            webhook_secrets: Vec::new(),
        }
    }
}

/// Clerk's Backend API, with the defaults of its SDK.
pub(super) fn backend(
    secret_key: SecretString,
    machine_secret_key: Option<SecretString>,
    url: Option<&str>,
    version: Option<String>,
) -> BackendSettings {
    let url = url.unwrap_or(API_URL);
    BackendSettings {
        url: url.trim_end_matches('/').to_owned(),
        version: version.unwrap_or_else(|| API_VERSION.to_owned()),
        secret_key,
        machine_secret_key,
    }
}

/// The credentials of an app's Clerk instance. Those of the plain variables belong to the
/// plain issuer: an app whose instance is another has none but its own.
fn instance(
    view: &View<'_>,
    app: &str,
    identifiers: &[String],
    findings: &mut Findings,
) -> Instance {
    let (shared, view) = (view, &view.instance());
    let mut found = Instance::default();
    let secret = |name| view.get(name).map(|(_, text)| SecretString::from(text));
    if let Some((name, url)) = shared.get("CLERK_API_URL")
        && let Err(message) = https_url(url)
    {
        findings.error(name, message);
    }
    if let Some((name, key)) = view.get("CLERK_SECRET_KEY") {
        if !key.starts_with("sk_") {
            findings.error(
                &name,
                "is no secret key: sk_test_… or sk_live_…, as the dashboard shows it",
            );
        }
        if let [first, _, ..] = identifiers {
            findings.note(
                name,
                format!("is one instance's key, but the app {app:?} has several issuers: it is used for {first} alone"),
            );
        }
        found.backend = Some(backend(
            SecretString::from(key),
            secret("CLERK_MACHINE_SECRET_KEY"),
            shared.get("CLERK_API_URL").map(|(_, url)| url),
            shared
                .get("CLERK_API_VERSION")
                .map(|(_, version)| version.to_owned()),
        ));
    } else if let Some((name, _)) = view.get("CLERK_MACHINE_SECRET_KEY") {
        findings.note(
            name,
            "has no effect without CLERK_SECRET_KEY; and machine tokens need an issuer in exchequer.toml whose `accepts` names \"m2m\"",
        );
    }
    let (id, client_secret) = (
        view.get("CLERK_OAUTH_CLIENT_ID"),
        secret("CLERK_OAUTH_CLIENT_SECRET"),
    );
    match (id, client_secret) {
        (Some((_, client_id)), Some(client_secret)) => {
            found.accepts.push(TokenKind::OAuth);
            found.introspection = Some(IntrospectionSettings {
                endpoint: None,
                client_id: client_id.to_owned(),
                client_secret,
            });
        }
        (None, None) => {}
        _ => findings.error(
            "CLERK_OAUTH_CLIENT_ID",
            "and CLERK_OAUTH_CLIENT_SECRET go together: set both or none",
        ),
    }
    for name in ["CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET"] {
        for text in view.list(name) {
            match value::webhook_secret(&text) {
                Ok(secret) => found.webhook_secrets.push(secret),
                Err(message) => findings.error(name, message),
            }
        }
    }
    found
}

/// The issuers of an app, and the variable that names them.
fn issuers(view: &View<'_>, findings: &mut Findings) -> Option<(String, Vec<String>)> {
    let view = &view.instance();
    let derived = publishable_issuer(view, findings);
    let Some((name, _)) = view.get("CLERK_JWT_ISSUER") else {
        return derived.map(|(name, derived)| (name, vec![derived]));
    };
    let identifiers = view.list("CLERK_JWT_ISSUER");
    if let Some((key_name, derived)) = derived
        && !identifiers.contains(&derived)
    {
        findings.note(
            key_name,
            format!("is the key of {derived}, which is none of the issuers of {name}"),
        );
    }
    Some((name, identifiers))
}

/// The issuer that a publishable key or a frontend API URL names: `pk_test_` or
/// `pk_live_`, then the host and `$` in base64.
fn publishable_issuer(view: &View<'_>, findings: &mut Findings) -> Option<(String, String)> {
    if let Some((name, key)) = view.get("CLERK_PUBLISHABLE_KEY") {
        let host = key
            .strip_prefix("pk_test_")
            .or_else(|| key.strip_prefix("pk_live_"))
            .and_then(|encoded| {
                STANDARD
                    .decode(encoded)
                    .or_else(|_| STANDARD_NO_PAD.decode(encoded))
                    .ok()
            })
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_suffix('$').map(str::to_owned));
        return match host {
            Some(host) => Some((name, format!("https://{host}"))),
            None => {
                findings.error(
                    name,
                    "is no publishable key: pk_test_… or pk_live_…, as the dashboard shows it",
                );
                None
            }
        };
    }
    view.get("CLERK_FRONTEND_API_URL")
        .map(|(name, url)| (name, url.trim_end_matches('/').to_owned()))
}

fn static_key(
    view: &View<'_>,
    app: &str,
    identifiers: &[String],
    findings: &mut Findings,
) -> Option<PublicKey> {
    let (name, text) = view.get("CLERK_JWT_KEY")?;
    let plain = View {
        suffix: None,
        ..*view
    };
    if name == "CLERK_JWT_KEY"
        && issuers(&plain, &mut Findings::default()).is_none_or(|(_, plain)| plain != identifiers)
    {
        findings.note(
            name,
            format!(
                "is not used for the app {app:?}, whose issuer is another: set CLERK_JWT_KEY_{}, or leave its keys to be fetched",
                app.to_ascii_uppercase()
            ),
        );
        return None;
    }
    if identifiers.len() > 1 {
        findings.error(
            name,
            "is one instance's key, but the app has several issuers: leave it out, or make an app of each instance",
        );
        return None;
    }
    match pem_key(text) {
        Ok(key) => Some(key),
        Err(message) => {
            findings.error(name, message);
            None
        }
    }
}

/// A public key in PEM; a single line with `\n` in it, as many dashboards keep it, is fine.
pub(super) fn pem_key(text: &str) -> Result<PublicKey, String> {
    let pem = text.replace("\\n", "\n");
    PublicKey::from_pem(pem.trim()).map_err(|_| {
        "is no public key in PEM: it begins with -----BEGIN PUBLIC KEY-----".to_owned()
    })
}
