//! `[providers.NAME]` and `[apps.NAME.sign_in]`: where users sign in when this service begins
//! it, and where they may be sent back to.

use super::file::{Section, token_types};
use super::value::{self, https_url, suggest};
use super::{
    Findings, IssuerKind, IssuerSettings, ProviderAuth, ProviderKind, ProviderSettings,
    SignInSettings, Structure, TokenKind,
};
use jsonwebtoken::Algorithm;
use url::Url;

/// The keys of a provider.
pub(super) const PROVIDER: &[&str] = &[
    "kind",
    "issuer",
    "client_id",
    "client_secret",
    "client_auth",
    "scopes",
    "authorization_endpoint",
    "token_endpoint",
    "api_url",
    "allow_private_network",
];
const SIGN_IN: &[&str] = &["providers", "redirect_uris"];

const GITHUB: &str = "https://github.com";
/// Schemes that browsers and systems keep for themselves; none is an app's own.
const TAKEN_SCHEMES: [&str; 15] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "http",
    "intent",
    "javascript",
    "mailto",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Reads a provider.
pub(super) fn read(section: &mut Section<'_, '_, '_>, name: &str) -> Option<ProviderSettings> {
    let kind = read_kind(section);
    let issuer = section.text("issuer").or_else(|| match kind {
        ProviderKind::Oidc | ProviderKind::Clerk => None,
        ProviderKind::Google => Some("https://accounts.google.com".to_owned()),
        ProviderKind::GitHub => Some(GITHUB.to_owned()),
        ProviderKind::Facebook => Some("https://www.facebook.com".to_owned()),
    });
    if issuer.is_none() && !section.has("issuer") {
        section.error_here("`issuer` is missing: the `iss` of the provider's ID tokens");
    }
    let client_id = section.text("client_id");
    if !section.has("client_id") {
        section.error_here("`client_id` is missing: register an application of your own at the provider, with the callback that `exchequer check` prints");
    }
    let url = |section: &mut Section<'_, '_, '_>, key: &str| {
        let text = section.text(key)?;
        section.checked(key, https_url(&text).map(|_| text))
    };
    if let Some(Err(message)) = issuer.as_deref().map(https_url) {
        section.error("issuer", &message);
    }
    let authorization_endpoint = url(section, "authorization_endpoint");
    let token_endpoint = url(section, "token_endpoint");
    let api_url = url(section, "api_url");
    let base = issuer.as_deref().map(|issuer| issuer.trim_end_matches('/'));
    let usual = usual(kind, base.unwrap_or_default());
    if section.has("api_url") && usual.api.is_none() {
        section.note("api_url", "has no effect but for kinds github and facebook");
    }
    let client_secret = section.secret("client_secret");
    let auth = read_auth(section, kind);
    Some(ProviderSettings {
        name: name.to_owned(),
        kind,
        scopes: read_scopes(section, kind),
        authorization_endpoint: authorization_endpoint.or(usual.authorization),
        token_endpoint: token_endpoint.or(usual.token),
        api_url: api_url.or(usual.api),
        auth,
        allow_private_network: section.flag("allow_private_network").unwrap_or_default(),
        client_secret,
        issuer: issuer?,
        client_id: client_id?,
    })
}

fn read_kind(section: &mut Section<'_, '_, '_>) -> ProviderKind {
    match section.text("kind").as_deref() {
        None | Some("oidc") => ProviderKind::Oidc,
        Some("clerk") => ProviderKind::Clerk,
        Some("google") => ProviderKind::Google,
        Some("github") => ProviderKind::GitHub,
        Some("facebook") => ProviderKind::Facebook,
        Some(other) => {
            let known = ["oidc", "clerk", "google", "github", "facebook"];
            let message = format!(
                "{other:?} is none of {}{}",
                known.join(", "),
                suggest(other, &known)
            );
            section.error("kind", &message);
            ProviderKind::Oidc
        }
    }
}

/// Where a provider of this kind always is; nothing where it is discovered.
#[derive(Default)]
struct Usual {
    authorization: Option<String>,
    token: Option<String>,
    api: Option<String>,
}

fn usual(kind: ProviderKind, base: &str) -> Usual {
    match kind {
        ProviderKind::Oidc | ProviderKind::Google => Usual::default(),
        ProviderKind::Clerk => Usual {
            authorization: Some(format!("{base}/oauth/authorize")),
            token: Some(format!("{base}/oauth/token")),
            api: None,
        },
        ProviderKind::GitHub => Usual {
            authorization: Some(format!("{base}/login/oauth/authorize")),
            token: Some(format!("{base}/login/oauth/access_token")),
            // GitHub Enterprise Server has it below its own host.
            api: Some(if base == GITHUB {
                "https://api.github.com".to_owned()
            } else {
                format!("{base}/api/v3")
            }),
        },
        ProviderKind::Facebook => Usual {
            authorization: Some("https://www.facebook.com/dialog/oauth".to_owned()),
            token: Some("https://graph.facebook.com/oauth/access_token".to_owned()),
            api: Some("https://graph.facebook.com".to_owned()),
        },
    }
}

fn read_auth(section: &mut Section<'_, '_, '_>, kind: ProviderKind) -> ProviderAuth {
    let secret = section.has("client_secret");
    let auth = match section.text("client_auth").as_deref() {
        Some("client_secret_basic") => ProviderAuth::Basic,
        Some("client_secret_post") => ProviderAuth::Post,
        Some("none") => ProviderAuth::None,
        Some(other) => {
            let message =
                format!("{other:?} is none of client_secret_basic, client_secret_post, none");
            section.error("client_auth", &message);
            return ProviderAuth::None;
        }
        None if !secret => ProviderAuth::None,
        None => match kind {
            ProviderKind::GitHub | ProviderKind::Facebook => ProviderAuth::Post,
            _ => ProviderAuth::Basic,
        },
    };
    if auth == ProviderAuth::None {
        if matches!(kind, ProviderKind::GitHub | ProviderKind::Facebook) {
            section.error_here("`client_secret` is missing: the provider asks for it");
        } else if secret {
            section.note("client_auth", "none: the secret is not sent");
        }
    } else if !secret {
        section.error("client_auth", "needs `client_secret`");
    }
    auth
}

fn read_scopes(section: &mut Section<'_, '_, '_>, kind: ProviderKind) -> Vec<String> {
    let usual: &[&str] = match kind {
        ProviderKind::Oidc | ProviderKind::Clerk | ProviderKind::Google => {
            &["openid", "profile", "email"]
        }
        ProviderKind::GitHub => &["read:user", "user:email"],
        ProviderKind::Facebook => &["public_profile", "email"],
    };
    let scopes = section
        .texts("scopes")
        .unwrap_or_else(|| usual.iter().map(|scope| (*scope).to_owned()).collect());
    for scope in scopes.iter().filter(|scope| !value::is_scope(scope)) {
        let message = format!("{scope:?} is no scope: it has a space, a quote or a backslash");
        section.error("scopes", &message);
    }
    if usual.contains(&"openid") && !scopes.iter().any(|scope| scope == "openid") {
        section.error("scopes", "must hold \"openid\": else there is no ID token");
    }
    scopes
}

/// Reads `[apps.NAME.sign_in]`.
pub(super) fn read_sign_in(app: &mut Section<'_, '_, '_>) -> Option<SignInSettings> {
    app.nested("sign_in", SIGN_IN, |section| {
        let providers = section.texts("providers").unwrap_or_default();
        let redirect_uris = section.texts("redirect_uris").unwrap_or_default();
        for (key, list) in [("providers", &providers), ("redirect_uris", &redirect_uris)] {
            if list.is_empty() && !section.has(key) {
                section.error_here(&format!("sign_in needs `{key}`"));
            }
        }
        for uri in &redirect_uris {
            match redirect_uri(uri) {
                Ok(Whose::Own) => {}
                Ok(Whose::Anybodys) => section.note(
                    "redirect_uris",
                    &format!(
                        "{uri}: another app on the device can claim this scheme; what protects the code is PKCE, which is always asked for"
                    ),
                ),
                Err(message) => section.error("redirect_uris", &message),
            }
        }
        SignInSettings {
            providers,
            redirect_uris,
        }
    })
}

/// Who can stand behind a redirect URI.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// Its host, or this machine.
    Own,
    /// Any app that claims its scheme (RFC 8252 §8.6).
    Anybodys,
}

/// Whether a redirect URI can be registered: one that is absolute, without a fragment
/// (RFC 6749 §3.1.2) and without a wildcard; https, http on loopback, or of a private-use
/// scheme (RFC 8252 §7).
fn redirect_uri(text: &str) -> Result<Whose, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}*".contains(&byte);
    if text.len() > 1024 || !text.bytes().all(plain) {
        return Err(format!(
            "{text:?} has a wildcard or a character that no URI has: it is compared byte for byte"
        ));
    }
    let url = Url::parse(text).map_err(|_| format!("{text:?} is no absolute URI"))?;
    if text.contains('#') {
        return Err(format!("{text:?} must have no fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must have no user and no password".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" if !host.is_empty() => Ok(Whose::Own),
        "http" if value::is_loopback_host(host) => Ok(Whose::Own),
        "http" => Err(format!(
            "{text:?} must be https: plain http is only for this machine"
        )),
        scheme if TAKEN_SCHEMES.contains(&scheme) => {
            Err(format!("{text:?}: {scheme} is no scheme of an app"))
        }
        // As it stands: schemes are compared without case, redirect URIs are not.
        scheme if text.starts_with(scheme) => Ok(Whose::Anybodys),
        scheme => Err(format!("{text:?}: write the scheme as {scheme}")),
    }
}

/// An app trusts the issuers of the providers that it lists: by the rules of an issuer of its
/// own where it has one of that `iss`, else for tokens that are meant for the provider's client.
pub(super) fn trust(structure: &mut Structure, findings: &mut Findings) {
    let known: Vec<&str> = structure.providers.keys().map(String::as_str).collect();
    let mut trusted: Vec<(String, String)> = Vec::new();
    let mut listed = Vec::new();
    for app in structure.apps.values() {
        let Some(sign_in) = &app.sign_in else {
            continue;
        };
        for name in &sign_in.providers {
            let Some(provider) = structure.providers.get(name) else {
                findings.error(
                    structure.place(&format!("app {}", app.name)),
                    format!(
                        "provider {name:?} is not configured{}",
                        suggest(name, &known)
                    ),
                );
                continue;
            };
            listed.push(name.clone());
            let own = |issuer: &&IssuerSettings| {
                issuer.issuer == provider.issuer && app.issuers.contains(&issuer.name)
            };
            if !structure.issuers.iter().any(|issuer| own(&issuer)) {
                trusted.push((app.name.clone(), name.clone()));
            }
        }
    }
    for name in structure.providers.keys() {
        if !listed.contains(name) {
            findings.note(
                structure.place(&format!("provider {name}")),
                "no app lists this provider in its `sign_in`",
            );
        }
    }
    for (app, name) in trusted {
        let Some(provider) = structure.providers.get(&name) else {
            continue;
        };
        let issuer = issuer(provider);
        if let Some(app) = structure.apps.get_mut(&app) {
            app.issuers.push(issuer.name.clone());
        }
        if !structure
            .issuers
            .iter()
            .any(|each| each.name == issuer.name)
        {
            let place = structure.place(&format!("provider {name}"));
            structure.places.insert(issuer.name.clone(), place);
            structure.issuers.push(issuer);
        }
    }
}

/// The issuer that a provider is; a space keeps its name apart from configured ones.
fn issuer(provider: &ProviderSettings) -> IssuerSettings {
    let kind = match provider.kind {
        ProviderKind::Oidc | ProviderKind::Google => IssuerKind::Oidc,
        ProviderKind::Clerk => IssuerKind::Clerk,
        ProviderKind::GitHub | ProviderKind::Facebook => IssuerKind::SignIn,
    };
    let accepts = vec![TokenKind::Session];
    IssuerSettings {
        assertions: false,
        name: format!("provider {}", provider.name),
        issuer: provider.issuer.clone(),
        kind,
        jwks_uri: None,
        jwt_key: None,
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        audiences: vec![provider.client_id.clone()],
        authorized_parties: Vec::new(),
        token_types: token_types(&accepts),
        clock_skew: 5,
        max_lifetime: 86_400,
        allow_private_network: provider.allow_private_network,
        accepts,
        backend: None,
        introspection: None,
        webhook_secrets: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_are_absolute_and_somebodys() {
        for good in [
            "https://app.example.com/callback",
            "https://app.example.com/callback?tenant=a",
            "https://app.example.com:8443/",
            "http://127.0.0.1/callback",
            "http://[::1]:7777/callback",
            "http://localhost:3000/callback",
        ] {
            assert_eq!(redirect_uri(good), Ok(Whose::Own), "{good}");
        }
        for good in ["app://oauth-native-callback", "com.example.app:/callback"] {
            assert_eq!(redirect_uri(good), Ok(Whose::Anybodys), "{good}");
        }
        for bad in [
            "",
            "/callback",
            "//app.example.com/callback",
            "app.example.com",
            "https://*.example.com/callback",
            "https://app.example.com/*",
            "https://app.example.com/callback#",
            "https://app.example.com/callback#part",
            "https://user@app.example.com/callback",
            "https://user:pass@app.example.com/callback",
            "https://app.example.com\\@evil.example/",
            "https://app.example.com/call back",
            "https://app.example.com/\r\nx: y",
            "https://äpp.example.com/",
            "http://app.example.com/callback",
            "http://127.0.0.1.evil.example/callback",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "intent://x#Intent;end",
            "App://callback",
        ] {
            assert!(redirect_uri(bad).is_err(), "{bad}");
        }
    }
}
