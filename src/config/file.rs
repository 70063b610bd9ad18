//! `exchequer.toml`: issuers, apps and clients, read table by table so that every error
//! names its line.

use super::env::Common;
use super::value::{self, bounded, https_url, suggest};
use super::{
    AppSettings, AuthMethod, BackendSettings, CLIENT_TTL, ClientKeys, ClientSettings, DpopPolicy,
    DpopSettings, EventSettings, Expression, Findings, IntrospectionSettings, IssuerKind,
    IssuerSettings, MAX_TTL, OFFLINE_ACCESS, ProfileSettings, RefreshSettings, ScopeSettings,
    SecretHash, SessionIdPolicy, Structure, TokenKind, VerifySettings, WebhookSecret,
    assertion_algorithms, clerk, providers,
};
use crate::crypto::PublicKey;
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// The sections of the file and the keys that each may have.
pub const SECTIONS: [(&str, &[&str]); 4] = [
    ("issuers", ISSUER),
    ("apps", APP),
    ("clients", CLIENT),
    ("providers", providers::PROVIDER),
];

const ISSUER: &[&str] = &[
    "issuer",
    "kind",
    "jwks_uri",
    "jwt_key",
    "algorithms",
    "audiences",
    "authorized_parties",
    "token_types",
    "clock_skew",
    "max_lifetime",
    "allow_private_network",
    "accepts",
    "assertions",
    "secret_key",
    "machine_secret_key",
    "api_url",
    "api_version",
    "webhook_secret",
    "client_id",
    "client_secret",
    "introspection_endpoint",
];
const APP: &[&str] = &[
    "issuers",
    "audience",
    "ttl",
    "ttl_bound",
    "alg",
    "typ",
    "subject",
    "condition",
    "claims",
    "scopes",
    "session_id",
    "code_verifier",
    "profile",
    "verify",
    "refresh",
    "dpop",
    "dpop_nonce",
    "status_list",
    "sign_in",
];
const SCOPE: &[&str] = &["permissions", "when"];
const PROFILE: &[&str] = &["user", "organization", "membership", "max_age", "events"];
const EVENTS: &[&str] = &["url", "secret", "allow_private_network"];
const VERIFY: &[&str] = &[
    "pass_through",
    "session_cookie",
    "signing_secret",
    "origins",
];
const REFRESH: &[&str] = &["idle", "absolute", "grace", "ask_provider"];
const CLIENT: &[&str] = &[
    "secret",
    "secret_sha256",
    "auth_method",
    "auth_alg",
    "public_key",
    "jwks",
    "jwks_uri",
    "allow_private_network",
    "audience",
    "scopes",
    "ttl",
    "status_list",
    "apps",
    "impersonation",
    "introspect",
];

/// The fields of a Clerk user that an app may ask for; its private and unsafe metadata never
/// enter a token.
pub const USER_FIELDS: [&str; 16] = [
    "primary_email",
    "primary_phone",
    "username",
    "first_name",
    "last_name",
    "image_url",
    "has_image",
    "external_id",
    "public_metadata",
    "locale",
    "banned",
    "locked",
    "two_factor_enabled",
    "created_at",
    "updated_at",
    "last_sign_in_at",
];
/// The fields of a Clerk organisation that an app may ask for.
pub const ORGANIZATION_FIELDS: [&str; 6] = [
    "name",
    "slug",
    "image_url",
    "members_count",
    "public_metadata",
    "created_at",
];
/// The fields of a Clerk membership that an app may ask for.
pub const MEMBERSHIP_FIELDS: [&str; 4] = ["role", "permissions", "public_metadata", "created_at"];

/// Claims that an app's `claims` cannot set: they are the token's own.
const RESERVED: [&str; 14] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "idp",
    "act",
    "sid",
    "scope",
    "cnf",
    "grant_id",
];

/// Seconds of a day.
const DAY: i64 = 86_400;

type Spanned<T> = toml::Spanned<T>;

/// Reads the file, if there is one.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    named: Option<&PathBuf>,
    default: Option<&PathBuf>,
    common: &Common,
    findings: &mut Findings,
) -> Structure {
    let mut structure = Structure::default();
    let Some(path) = named.or_else(|| default.filter(|path| path.exists())) else {
        return structure;
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            findings.error(
                "EXCHEQUER_CONFIG",
                format!("cannot read {}: {error}", path.display()),
            );
            return structure;
        }
    };
    let (document, errors) = DeTable::parse_recoverable(&text);
    let mut reader = Reader {
        file: path.display().to_string(),
        text: &text,
        variables,
        findings,
    };
    for error in &errors {
        reader.error(error.span().as_ref(), error.message());
    }
    if !errors.is_empty() {
        return structure;
    }
    let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    for (section, tables) in document.get_ref() {
        let name = section.get_ref().as_ref();
        let Some((_, keys)) = SECTIONS.iter().find(|(known, _)| *known == name) else {
            reader.error(
                Some(&section.span()),
                &format!("there is no section {name:?}{}", suggest(name, &names)),
            );
            continue;
        };
        let Some(tables) = tables.get_ref().as_table() else {
            reader.error(Some(&tables.span()), &format!("write [{name}.NAME]"));
            continue;
        };
        for (key, table) in tables {
            let entry = key.get_ref().as_ref();
            let Some(mut section) = Section::new(&mut reader, key.span(), table, keys) else {
                continue;
            };
            if let Err(message) = value::name(entry) {
                section.error_here(&message);
            }
            let place = section.reader.place(Some(&key.span()));
            let settings = &mut structure.settings.0;
            for (setting, span) in section.spans() {
                let place = section.reader.place(Some(&span));
                settings.insert(format!("{name}.{entry}.{setting}"), place);
            }
            settings.insert(format!("{name}.{entry}"), place.clone());
            match name {
                "issuers" => {
                    if let Some(issuer) = read_issuer(&mut section, entry) {
                        structure.places.insert(entry.to_owned(), place);
                        structure.issuers.push(issuer);
                    }
                }
                "apps" => {
                    let app = read_app(&mut section, entry, common);
                    structure.places.insert(format!("app {entry}"), place);
                    structure.apps.insert(entry.to_owned(), app);
                }
                "clients" => {
                    let client = read_client(&mut section);
                    structure.places.insert(format!("client {entry}"), place);
                    structure.clients.insert(entry.to_owned(), client);
                }
                _ => {
                    if let Some(provider) = providers::read(&mut section, entry) {
                        structure.places.insert(format!("provider {entry}"), place);
                        structure.providers.insert(entry.to_owned(), provider);
                    }
                }
            }
        }
    }
    structure
}

fn read_issuer(section: &mut Section<'_, '_, '_>, name: &str) -> Option<IssuerSettings> {
    let kind = match section.text("kind").as_deref() {
        None | Some("oidc") => IssuerKind::Oidc,
        Some("clerk") => IssuerKind::Clerk,
        Some("introspection") => IssuerKind::Introspection,
        Some(other) => {
            section.error(
                "kind",
                &format!("{other:?} is none of clerk, oidc, introspection"),
            );
            IssuerKind::Oidc
        }
    };
    let issuer = section.text("issuer");
    if issuer.is_none() && !section.has("issuer") {
        section.error_here("`issuer` is missing: the `iss` of the tokens, byte for byte");
    }
    for (key, text) in [
        ("issuer", issuer.clone()),
        ("jwks_uri", section.text("jwks_uri")),
    ] {
        if let Some(Err(message)) = text.as_deref().map(https_url) {
            section.error(key, &message);
        }
    }
    let algorithms: Vec<Algorithm> = section
        .texts("algorithms")
        .unwrap_or_default()
        .iter()
        .filter_map(|text| section.checked("algorithms", value::upstream_algorithm(text)))
        .collect();
    let algorithms = match (algorithms.is_empty(), kind) {
        (false, _) => algorithms,
        (true, IssuerKind::Clerk) => vec![Algorithm::RS256],
        (true, _) => vec![Algorithm::RS256, Algorithm::ES256],
    };
    let accepts = read_accepts(section, kind);
    let assertions = section.flag("assertions").unwrap_or_default();
    if assertions && kind != IssuerKind::Oidc {
        section.error("assertions", "is for issuers of kind \"oidc\"");
    }
    Some(IssuerSettings {
        name: name.to_owned(),
        kind,
        jwks_uri: section.text("jwks_uri"),
        jwt_key: section.public_key("jwt_key"),
        algorithms,
        audiences: section.texts("audiences").unwrap_or_default(),
        authorized_parties: section.texts("authorized_parties").unwrap_or_default(),
        token_types: section
            .texts("token_types")
            .unwrap_or_else(|| token_types(&accepts)),
        clock_skew: section.duration("clock_skew", 0, 300).unwrap_or(5),
        max_lifetime: section
            .duration("max_lifetime", 60, 3650 * 86_400)
            .unwrap_or(86_400),
        allow_private_network: section.flag("allow_private_network").unwrap_or_default(),
        accepts,
        assertions,
        backend: read_backend(section, kind),
        introspection: read_introspection(section, kind),
        webhook_secrets: match kind {
            IssuerKind::Clerk => section.webhook_secrets("webhook_secret"),
            _ => Vec::new(),
        },
        issuer: issuer?,
    })
}

/// The `typ` values of the JWTs among the kinds of credential.
pub(super) fn token_types(accepts: &[TokenKind]) -> Vec<String> {
    let mut types = vec!["JWT".to_owned()];
    if accepts.contains(&TokenKind::OAuth) {
        types.push("at+jwt".to_owned());
    }
    types
}

fn read_accepts(section: &mut Section<'_, '_, '_>, kind: IssuerKind) -> Vec<TokenKind> {
    let Some(names) = section.texts("accepts") else {
        return vec![TokenKind::Session];
    };
    if kind != IssuerKind::Clerk {
        section.error("accepts", "is for issuers of kind \"clerk\"");
    }
    let kinds = names.iter().filter_map(|name| match name.as_str() {
        "session" => Some(TokenKind::Session),
        "oauth" => Some(TokenKind::OAuth),
        "m2m" => Some(TokenKind::Machine),
        "api_key" => Some(TokenKind::ApiKey),
        other => {
            let message = format!("{other:?} is none of session, oauth, m2m, api_key");
            section.error("accepts", &message);
            None
        }
    });
    kinds.collect()
}

fn read_backend(section: &mut Section<'_, '_, '_>, kind: IssuerKind) -> Option<BackendSettings> {
    let clerk = ["secret_key", "machine_secret_key", "api_url", "api_version"];
    if kind != IssuerKind::Clerk {
        for key in clerk.into_iter().chain(["webhook_secret"]) {
            if section.has(key) {
                section.error(key, "is for issuers of kind \"clerk\"");
            }
        }
        return None;
    }
    let url = section.text("api_url");
    if let Some(Err(message)) = url.as_deref().map(https_url) {
        section.error("api_url", &message);
    }
    let version = section.text("api_version");
    let machine_secret_key = section.secret("machine_secret_key");
    let secret_key = section.secret("secret_key");
    Some(clerk::backend(
        secret_key?,
        machine_secret_key,
        url.as_deref(),
        version,
    ))
}

fn read_introspection(
    section: &mut Section<'_, '_, '_>,
    kind: IssuerKind,
) -> Option<IntrospectionSettings> {
    let endpoint = section.text("introspection_endpoint");
    if let Some(Err(message)) = endpoint.as_deref().map(https_url) {
        section.error("introspection_endpoint", &message);
    }
    let (client_id, client_secret) = (section.text("client_id"), section.secret("client_secret"));
    if kind == IssuerKind::Introspection {
        for key in ["client_id", "client_secret"] {
            if !section.has(key) {
                section.error_here(&format!(
                    "`{key}` is missing: the introspection endpoint asks who is asking"
                ));
            }
        }
    }
    Some(IntrospectionSettings {
        endpoint,
        client_id: client_id?,
        client_secret: client_secret?,
    })
}

fn read_app(section: &mut Section<'_, '_, '_>, name: &str, common: &Common) -> AppSettings {
    let issuers = section.texts("issuers").unwrap_or_default();
    let sign_in = providers::read_sign_in(section);
    if issuers.is_empty() && sign_in.is_none() {
        section.error_here(
            "`issuers` is missing: the names of the [issuers.NAME] that the app trusts",
        );
    }
    let audiences = section
        .texts("audience")
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| vec![common.audience.clone()]);
    let typ = section.text("typ").unwrap_or_else(|| "JWT".to_owned());
    match typ.as_str() {
        "JWT" => {}
        "at+jwt" => section.note(
            "typ",
            "at+jwt is refused by the defaults of Spring Security and Nimbus; JWT is taken everywhere",
        ),
        other => section.error("typ", &format!("{other:?} is neither JWT nor at+jwt")),
    }
    let outlives_subject = match section.text("ttl_bound").as_deref() {
        None | Some("none") => true,
        Some("subject") => false,
        Some(other) => {
            section.error(
                "ttl_bound",
                &format!("{other:?} is neither none nor subject"),
            );
            true
        }
    };
    let session_id = match section.text("session_id").as_deref() {
        None | Some("fresh") => SessionIdPolicy::Fresh,
        Some("off") => SessionIdPolicy::Off,
        Some("any") => {
            section.note(
                "session_id",
                "any: whoever sees the id of an active session, in a log or a URL, can exchange it",
            );
            SessionIdPolicy::Any
        }
        Some(other) => {
            section.error(
                "session_id",
                &format!("{other:?} is none of off, fresh, any"),
            );
            SessionIdPolicy::Off
        }
    };
    let algorithm = section
        .text("alg")
        .and_then(|text| section.checked("alg", value::signing_algorithm(&text)))
        .unwrap_or(common.keys.algorithm);
    let verify = section.nested("verify", VERIFY, read_verify);
    let mut verify = verify.unwrap_or_default();
    if verify.origins.is_empty() {
        verify.origins = value::origins(&audiences);
    }
    let dpop = read_dpop(section, &verify);
    AppSettings {
        name: name.to_owned(),
        issuers,
        audiences,
        ttl: section
            .duration("ttl", 30, MAX_TTL)
            .unwrap_or(common.token_ttl),
        outlives_subject,
        algorithm,
        typ,
        subject: section.expression("subject"),
        condition: section.expression("condition"),
        claims: section.claims(),
        session_id,
        code_verifier: section.flag("code_verifier").unwrap_or_default(),
        scopes: section.scopes(),
        profile: section.nested("profile", PROFILE, read_profile),
        verify,
        status_list: read_status_list(section),
        refresh: section.nested("refresh", REFRESH, read_refresh),
        dpop,
        sign_in,
    }
}

/// Both would be `status` in the token.
fn read_status_list(section: &mut Section<'_, '_, '_>) -> bool {
    let on = section.flag("status_list").unwrap_or_default();
    let claims = section
        .get("claims")
        .and_then(|claims| claims.get_ref().as_table());
    if on && claims.is_some_and(|claims| claims.keys().any(|name| name.get_ref() == "status")) {
        section.error(
            "status_list",
            "claims.status is set too, and is the claim that says where the list is",
        );
    }
    on
}

fn read_refresh(section: &mut Section<'_, '_, '_>) -> RefreshSettings {
    RefreshSettings {
        idle: section.duration("idle", 60, 400 * DAY).unwrap_or(7 * DAY),
        absolute: section
            .duration("absolute", 60, 400 * DAY)
            .unwrap_or(30 * DAY),
        grace: section.duration("grace", 0, 60).unwrap_or(10),
        ask_provider: section.flag("ask_provider").unwrap_or_default(),
    }
}

fn read_verify(section: &mut Section<'_, '_, '_>) -> VerifySettings {
    let origins = section.texts("origins").unwrap_or_default();
    for text in &origins {
        if value::origins(std::slice::from_ref(text)) != [text.as_str()] {
            let message =
                format!("{text:?} is no origin: write https://api.example.com, without a path");
            section.error("origins", &message);
        }
    }
    VerifySettings {
        pass_through: section.flag("pass_through").unwrap_or_default(),
        session_cookie: section.flag("session_cookie").unwrap_or_default(),
        signing_secret: section.webhook_secrets("signing_secret").pop(),
        origins,
    }
}

fn read_dpop(section: &mut Section<'_, '_, '_>, verify: &VerifySettings) -> DpopSettings {
    let policy = match section.text("dpop").as_deref() {
        None | Some("optional") => DpopPolicy::Optional,
        Some("off") => DpopPolicy::Off,
        Some("required") => DpopPolicy::Required,
        Some(other) => {
            let message = format!("{other:?} is none of off, optional, required");
            section.error("dpop", &message);
            DpopPolicy::Required
        }
    };
    if policy == DpopPolicy::Required && (verify.pass_through || verify.session_cookie) {
        section.error(
            "dpop",
            "required: the provider's own token is bound to no key, so neither \
             verify.pass_through nor verify.session_cookie goes with it",
        );
    }
    let nonce = section.flag("dpop_nonce").unwrap_or_default();
    if nonce && policy == DpopPolicy::Off {
        section.error("dpop_nonce", "has no effect with dpop = \"off\"");
    }
    DpopSettings { policy, nonce }
}

fn read_profile(section: &mut Section<'_, '_, '_>) -> ProfileSettings {
    let mut fields = |key: &str, known: &[&str]| {
        let fields = section.texts(key).unwrap_or_default();
        for field in &fields {
            if !known.contains(&field.as_str()) {
                let message = format!("{field:?} is no field{}", suggest(field, known));
                section.error(key, &message);
            }
        }
        fields
    };
    ProfileSettings {
        user: fields("user", &USER_FIELDS),
        organization: fields("organization", &ORGANIZATION_FIELDS),
        membership: fields("membership", &MEMBERSHIP_FIELDS),
        max_age: section.duration("max_age", 1, 30 * 86_400).unwrap_or(3600),
        events: section
            .nested("events", EVENTS, |section| {
                let url = section.text("url");
                if let Some(Err(message)) = url.as_deref().map(https_url) {
                    section.error("url", &message);
                }
                if !section.has("url") || !section.has("secret") {
                    section.error_here("events need `url` and `secret`");
                }
                Some(EventSettings {
                    secret: section.webhook_secrets("secret").pop()?,
                    allow_private_network: section
                        .flag("allow_private_network")
                        .unwrap_or_default(),
                    url: url?,
                })
            })
            .flatten(),
    }
}

fn read_client(section: &mut Section<'_, '_, '_>) -> ClientSettings {
    let errors_before = section.reader.findings.errors.len();
    let named = section.text("auth_method");
    let keys = read_client_keys(section);
    let method = match named {
        Some(name) => section.checked("auth_method", AuthMethod::from_name(&name)),
        // Whoever has keys and no secret can have meant nothing else.
        None if keys.is_some() && !section.has("secret") && !section.has("secret_sha256") => {
            Some(AuthMethod::PrivateKeyJwt)
        }
        None => Some(AuthMethod::ClientSecret),
    };
    let algorithm = section.text("auth_alg");
    let algorithms = method.and_then(|method| {
        let algorithms = assertion_algorithms(method, algorithm.as_deref());
        section.checked("auth_alg", algorithms)
    });
    let hash = section.text_or_reference("secret_sha256");
    let hash = hash.and_then(|text| section.checked("secret_sha256", SecretHash::read(&text)));
    let client = ClientSettings {
        method: method.unwrap_or_default(),
        algorithms: algorithms.unwrap_or_default(),
        secret: section.secret("secret"),
        secret_hashes: hash.into_iter().collect(),
        keys,
        audiences: section.texts("audience").unwrap_or_default(),
        scopes: section.texts("scopes").unwrap_or_default(),
        ttl: section.duration("ttl", 30, MAX_TTL).unwrap_or(CLIENT_TTL),
        status_list: section.flag("status_list").unwrap_or_default(),
        apps: section.texts("apps").unwrap_or_default(),
        impersonation: section.flag("impersonation").unwrap_or_default(),
        introspect: section.texts("introspect").unwrap_or_default(),
    };
    if client.may_nothing() {
        section.note_here("a client without `audience`, `apps` and `introspect` may do nothing");
    }
    if client.has_short_secret() {
        section.note(
            "secret",
            "shorter than 32 characters: make one with `openssl rand -base64 32`",
        );
    }
    if client.method == AuthMethod::ClientSecretAsJwt {
        section.note(
            "auth_method",
            "client_secret_as_jwt: whoever sees such a JWT can send it again until it expires; client_secret_jwt prevents that",
        );
    }
    if client.impersonation {
        section.note(
            "impersonation",
            "no backend and no log can tell what this client does in a user's name from what the user does",
        );
    }
    // What could not be read has been said, and is not missing.
    let unread = section.reader.findings.errors.len() > errors_before;
    for (key, message) in client.faults() {
        match key {
            None if unread => {}
            None => section.error_here(&message),
            Some(key) => section.error(key, &message),
        }
    }
    client
}

fn read_client_keys(section: &mut Section<'_, '_, '_>) -> Option<ClientKeys> {
    let keys = ["public_key", "jwks", "jwks_uri"];
    let mut there = keys.into_iter().filter(|key| section.has(key));
    if let (Some(_), Some(second)) = (there.next(), there.next()) {
        section.error(
            second,
            "one of `public_key`, `jwks` and `jwks_uri` is enough",
        );
    }
    let allow_private_network = section.flag("allow_private_network").unwrap_or_default();
    if section.has("public_key") {
        return section.public_key("public_key").map(ClientKeys::One);
    }
    if section.has("jwks") {
        return section.text_or_reference("jwks").map(ClientKeys::Set);
    }
    section.text("jwks_uri").map(|url| ClientKeys::At {
        url,
        allow_private_network,
    })
}

/// A text or a list of texts, none of them empty.
fn texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    let list: Option<Vec<String>> = match value.get_ref() {
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    list.filter(|list| list.iter().all(|item| !item.is_empty()))
}

/// Reads the file and notes what is wrong with it.
pub(super) struct Reader<'r, 't> {
    file: String,
    text: &'t str,
    variables: &'r BTreeMap<String, String>,
    findings: &'r mut Findings,
}

impl Reader<'_, '_> {
    fn place(&self, span: Option<&Range<usize>>) -> String {
        let before = self.text.get(..span.map_or(0, |span| span.start));
        let line = before.map_or(1, |text| text.matches('\n').count() + 1);
        format!("{}:{line}", self.file)
    }

    pub(super) fn error(&mut self, span: Option<&Range<usize>>, message: &str) {
        let place = self.place(span);
        self.findings.error(place, message);
    }
}

/// One `[section.NAME]` table.
pub(super) struct Section<'s, 'r, 't> {
    reader: &'s mut Reader<'r, 't>,
    span: Range<usize>,
    table: &'s DeTable<'t>,
}

impl<'s, 'r, 't> Section<'s, 'r, 't> {
    fn new(
        reader: &'s mut Reader<'r, 't>,
        span: Range<usize>,
        table: &'s Spanned<DeValue<'t>>,
        known: &[&str],
    ) -> Option<Self> {
        let Some(inner) = table.get_ref().as_table() else {
            reader.error(Some(&table.span()), "write a table of this name");
            return None;
        };
        for key in inner.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                reader.error(
                    Some(&key.span()),
                    &format!("there is no setting {name:?} here{}", suggest(name, known)),
                );
            }
        }
        Some(Self {
            reader,
            span,
            table: inner,
        })
    }

    fn get(&self, key: &str) -> Option<&'s Spanned<DeValue<'t>>> {
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    /// Each setting of the section and where it stands.
    fn spans(&self) -> impl Iterator<Item = (String, Range<usize>)> + use<'s, 't> {
        let settings = self.table.iter();
        settings.map(|(name, value)| (name.get_ref().to_string(), value.span()))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn error(&mut self, key: &str, message: &str) {
        let span = self.get(key).map_or(self.span.clone(), Spanned::span);
        self.reader.error(Some(&span), &format!("{key}: {message}"));
    }

    pub(super) fn error_here(&mut self, message: &str) {
        let span = self.span.clone();
        self.reader.error(Some(&span), message);
    }

    pub(super) fn note(&mut self, key: &str, message: &str) {
        let span = self.get(key).map_or(self.span.clone(), Spanned::span);
        let place = self.reader.place(Some(&span));
        self.reader
            .findings
            .note(place, format!("{key}: {message}"));
    }

    fn note_here(&mut self, message: &str) {
        let place = self.reader.place(Some(&self.span));
        self.reader.findings.note(place, message);
    }

    pub(super) fn checked<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(key, &message);
                None
            }
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)?.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            _ => {
                self.error(key, "must be a text that is not empty");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let list = texts(self.get(key)?);
        if list.is_none() {
            self.error(key, "must be a text or a list of texts");
        }
        list
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.get(key)?.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.error(key, "must be true or false");
                None
            }
        }
    }

    fn duration(&mut self, key: &str, least: i64, most: i64) -> Option<i64> {
        if let DeValue::Integer(_) = self.get(key)?.get_ref() {
            self.error(
                key,
                "must be a text with its unit: \"30s\", \"10m\", \"24h\" or \"90d\"",
            );
            return None;
        }
        let text = self.text(key)?;
        self.checked(key, bounded(&text, least, most))
    }

    fn expression(&mut self, key: &str) -> Option<Expression> {
        let text = self.text(key)?;
        self.checked(key, value::expression(&text))
    }

    /// A table inside this one, where there is one.
    pub(super) fn nested<T>(
        &mut self,
        key: &str,
        known: &[&str],
        read: impl FnOnce(&mut Section<'_, 'r, 't>) -> T,
    ) -> Option<T> {
        let table = self.get(key)?;
        let mut section = Section::new(&mut *self.reader, table.span(), table, known)?;
        Some(read(&mut section))
    }

    /// `"read:tasks" = ["task.view"]`, or `{ permissions = ["task.view"], when = 'CEL' }`.
    fn scopes(&mut self) -> Vec<ScopeSettings> {
        let Some(value) = self.get("scopes") else {
            return Vec::new();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.error(
                "scopes",
                "must be a table: \"read:tasks\" = [\"task.view\"]",
            );
            return Vec::new();
        };
        let mut scopes = Vec::new();
        for (name, value) in table {
            let span = value.span();
            let name = name.get_ref().to_string();
            if name == OFFLINE_ACCESS {
                let message = "offline_access asks for a refresh token, and no token has it: \
                               set `refresh` for the app";
                self.reader.error(Some(&span), message);
            } else if !value::is_scope(&name) {
                self.reader.error(
                    Some(&span),
                    &format!("{name:?} is no scope: it has a space, a quote or a backslash"),
                );
            }
            let (permissions, when) = if value.get_ref().is_table() {
                let Some(mut scope) = Section::new(&mut *self.reader, span, value, SCOPE) else {
                    continue;
                };
                (scope.texts("permissions"), scope.expression("when"))
            } else {
                let message = "must be a text or a list of texts";
                let list = texts(value).ok_or_else(|| format!("{name:?} {message}"));
                (self.checked("scopes", list), None)
            };
            scopes.push(ScopeSettings {
                name,
                permissions: permissions.unwrap_or_default(),
                when,
            });
        }
        scopes
    }

    /// Secrets of webhooks, by reference: one, or a list of them while one replaces another.
    fn webhook_secrets(&mut self, key: &str) -> Vec<WebhookSecret> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let values = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        values
            .into_iter()
            .filter_map(|value| {
                let text = self.secret_in(key, value)?;
                self.checked(key, value::webhook_secret(&text))
            })
            .collect()
    }

    fn claims(&mut self) -> Vec<(String, Expression)> {
        let Some(value) = self.get("claims") else {
            return Vec::new();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.error("claims", "must be a table: claims.NAME = 'EXPRESSION'");
            return Vec::new();
        };
        let mut claims = Vec::new();
        for (name, value) in table {
            let (name, span) = (name.get_ref().to_string(), value.span());
            if RESERVED.contains(&name.as_str()) {
                self.reader.error(
                    Some(&span),
                    &format!("claims.{name}: this claim is the token's own and cannot be set"),
                );
                continue;
            }
            let compiled = match value.get_ref() {
                DeValue::String(text) => value::expression(text),
                _ => Err("must be an expression in quotes".to_owned()),
            };
            match compiled {
                Ok(expression) => claims.push((name, expression)),
                Err(message) => {
                    self.reader
                        .error(Some(&span), &format!("claims.{name}: {message}"));
                }
            }
        }
        claims
    }

    /// `{ env = "NAME" }` or `{ file = "PATH" }`; never the secret itself.
    pub(super) fn secret(&mut self, key: &str) -> Option<SecretString> {
        let value = self.get(key)?;
        self.secret_in(key, value).map(SecretString::from)
    }

    fn secret_in(&mut self, key: &str, value: &Spanned<DeValue<'t>>) -> Option<String> {
        let text = self.reference(key, value)?;
        if text.is_none() {
            self.error(
                key,
                "a secret does not stand in the file: write { env = \"NAME\" } or { file = \"PATH\" }",
            );
        }
        text
    }

    /// A public key: PEM in the file, or by reference.
    fn public_key(&mut self, key: &str) -> Option<PublicKey> {
        let text = self.text_or_reference(key)?;
        self.checked(key, clerk::pem_key(&text))
    }

    /// A text in the file, or by reference.
    fn text_or_reference(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        match self.reference(key, value)? {
            Some(text) => Some(text),
            None => self.text(key),
        }
    }

    /// The text that a reference leads to; `Some(None)` where the value is no reference.
    fn reference(&mut self, key: &str, value: &Spanned<DeValue<'t>>) -> Option<Option<String>> {
        let Some(table) = value.get_ref().as_table() else {
            return Some(None);
        };
        let mut entries = table
            .iter()
            .map(|(name, value)| (name.get_ref().as_ref(), value.get_ref().as_str()));
        let found = match (entries.next(), entries.next()) {
            (Some(("env", Some(name))), None) => self
                .reader
                .variables
                .get(name)
                .cloned()
                .ok_or_else(|| format!("the variable {name} is not set")),
            (Some(("file", Some(path))), None) => std::fs::read_to_string(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("the file that it names cannot be read: {error}")),
            _ => Err("write { env = \"NAME\" } or { file = \"PATH\" }".to_owned()),
        };
        self.checked(key, found).map(Some)
    }
}
