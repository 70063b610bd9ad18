//! The rules between settings: what no setting alone can be wrong in.

use super::env::Common;
use super::value;
use super::{
    AppSettings, Findings, IssuerKind, SessionIdPolicy, StoreSettings, Structure, TokenKind,
};
use std::collections::{BTreeMap, BTreeSet};

/// Finds what is wrong, or worth knowing, between settings that are each right.
pub(super) fn judge(common: &Common, structure: &Structure, findings: &mut Findings) {
    if structure.apps.is_empty() && findings.errors.is_empty() {
        findings.error(
            "CLERK_JWT_ISSUER",
            "no app is configured: set CLERK_JWT_ISSUER=https://clerk.example.com, or write [issuers.NAME] and [apps.NAME] into exchequer.toml",
        );
    }
    let mut names = BTreeSet::new();
    for issuer in &structure.issuers {
        let place = structure.place(&issuer.name);
        if !names.insert(issuer.name.as_str()) {
            findings.error(
                &place,
                format!(
                    "two issuers are named {:?}: which one's rules hold?",
                    issuer.name
                ),
            );
        }
        if issuer.issuer == common.issuer {
            findings.error(
                &place,
                "this service's own issuer cannot be an upstream: an app token would prolong itself",
            );
        }
        if issuer.accepts.contains(&TokenKind::ApiKey) && issuer.backend.is_none() {
            findings.error(
                &place,
                "accepts \"api_key\", which the Backend API verifies: set `secret_key`",
            );
        }
        let machine_key = issuer
            .backend
            .as_ref()
            .map(|backend| &backend.machine_secret_key);
        if machine_key.is_some_and(Option::is_some) && !issuer.accepts.contains(&TokenKind::Machine)
        {
            findings.note(
                &place,
                "the machine secret key (`machine_secret_key`, CLERK_MACHINE_SECRET_KEY) has no effect: machine tokens need an issuer in exchequer.toml whose `accepts` names \"m2m\"",
            );
        }
        if issuer.kind == IssuerKind::Clerk {
            let place = structure
                .settings
                .of("issuers", &issuer.name, "authorized_parties");
            let parties = issuer.authorized_parties.iter();
            for message in parties.filter_map(|party| no_origin(party)) {
                findings.note(place.unwrap_or_default(), message);
            }
        }
        if issuer.audiences.is_empty()
            && issuer.authorized_parties.is_empty()
            && issuer.kind.signs()
        {
            findings.note(
                &place,
                format!(
                    "issuer {} has neither audiences nor authorized parties: a token that it made for any other application is accepted too",
                    issuer.issuer
                ),
            );
        }
        if !structure
            .apps
            .values()
            .any(|app| app.issuers.contains(&issuer.name))
        {
            findings.note(&place, "no app trusts this issuer");
        }
    }
    for app in structure.apps.values() {
        judge_app(app, structure, findings);
    }
    judge_audiences(structure, findings);
    if common.store == StoreSettings::Memory
        && let Some(app) = structure.apps.values().find(|app| app.refresh.is_some())
    {
        findings.note(
            structure.place(&format!("app {}", app.name)),
            "refresh: the store is in memory, so all refresh tokens end with the process: set EXCHEQUER_STORE",
        );
    }
    for (id, client) in &structure.clients {
        let place = structure.place(&format!("client {id}"));
        if structure.apps.contains_key(id) {
            findings.error(
                &place,
                format!(
                    "there is an app {id:?} too: `client_id` could not tell their tokens apart"
                ),
            );
        }
        for app in client
            .apps
            .iter()
            .filter(|app| !structure.apps.contains_key(*app))
        {
            let known: Vec<&str> = structure.apps.keys().map(String::as_str).collect();
            let like = value::suggest(app, &known);
            findings.error(&place, format!("app {app:?} is not configured{like}"));
        }
    }
    let clients = structure.clients.values().map(|client| client.ttl);
    let longest = structure
        .apps
        .values()
        .map(|app| app.ttl)
        .chain(clients)
        .max();
    if let Some(longest) = longest
        && common.keys.keep_after < longest + 300
    {
        findings.error(
            "EXCHEQUER_KEY_KEEP_AFTER",
            format!(
                "a retired key must stay published for the longest token lifetime and five minutes: at least {}",
                value::show_duration(longest + 300)
            ),
        );
    }
}

/// Two apps that mint for one audience from different issuers: a backend of that audience
/// takes equal subjects of both for one user, unless it looks at `idp` or `client_id` too.
fn judge_audiences(structure: &Structure, findings: &mut Findings) {
    let oidc = |app: &AppSettings| {
        let issuers = structure.issuers.iter();
        let own = issuers.filter(|issuer| app.issuers.contains(&issuer.name));
        own.map(|issuer| (issuer.kind != IssuerKind::Clerk, issuer.issuer.clone()))
            .collect::<BTreeSet<_>>()
    };
    let apps: Vec<&AppSettings> = structure.apps.values().collect();
    for (index, app) in apps.iter().enumerate() {
        for other in apps.iter().skip(index + 1) {
            let shared = app
                .audiences
                .iter()
                .find(|each| other.audiences.contains(each));
            let issuers: BTreeSet<_> = oidc(app).union(&oidc(other)).cloned().collect();
            let mixed = issuers.len() > 1 && issuers.iter().any(|(oidc, _)| *oidc);
            let distinct = app.subject.is_some() && other.subject.is_some();
            if let Some(audience) = shared.filter(|_| mixed && !distinct) {
                findings.note(
                    structure.place(&format!("app {}", other.name)),
                    format!(
                        "the apps {} and {} mint for {audience} from different issuers whose subjects could be equal: give each an `audience` of its own, or say with `subject` how they stay apart",
                        app.name, other.name
                    ),
                );
            }
        }
    }
}

/// What is wrong with an authorized party of Clerk's, which is a page's origin. Ids of OAuth
/// applications pass, and what has the scheme of a native app.
fn no_origin(party: &str) -> Option<String> {
    let meant = match value::origins(&[party.to_owned()]).pop() {
        Some(origin) if origin == party => return None,
        Some(origin) => origin,
        None if party.contains("://") => return None,
        None if party.starts_with("localhost") => format!("http://{party}"),
        None if party.contains('.') => format!("https://{party}"),
        None => return None,
    };
    Some(format!(
        "{party:?} is no origin, and `azp` of a session token is one, compared byte for byte: write {meant}"
    ))
}

fn judge_app(app: &AppSettings, structure: &Structure, findings: &mut Findings) {
    let place = structure.place(&format!("app {}", app.name));
    judge_refresh(app, structure, findings);
    let mut identifiers = BTreeSet::new();
    let mut kinds = Vec::new();
    let mut readers: BTreeMap<&str, &str> = BTreeMap::new();
    for name in &app.issuers {
        let Some(issuer) = structure.issuers.iter().find(|each| each.name == *name) else {
            let known: Vec<&str> = structure
                .issuers
                .iter()
                .map(|each| each.name.as_str())
                .collect();
            findings.error(
                &place,
                format!(
                    "issuer {name:?} is not configured{}",
                    value::suggest(name, &known)
                ),
            );
            continue;
        };
        if !identifiers.insert(issuer.issuer.as_str()) {
            findings.error(
                &place,
                format!(
                    "two of the app's issuers are {}: which one's rules hold?",
                    issuer.issuer
                ),
            );
            continue;
        }
        kinds.push(issuer.kind);
        // Users of any other provider have no profile but their id.
        let clerk = issuer.kind == IssuerKind::Clerk;
        if app.profile.is_some() && clerk && issuer.backend.is_none() {
            findings.error(
                &place,
                format!(
                    "`profile` is asked for at Clerk's Backend API: the issuer {name} needs a `secret_key`"
                ),
            );
        }
        // A token that cannot be read names no issuer: nobody is asked in turn.
        let opaque = match issuer.kind {
            IssuerKind::Introspection => vec!["introspection"],
            _ => issuer.accepts.iter().map(|kind| kind.name()).collect(),
        };
        for kind in opaque.into_iter().filter(|kind| *kind != "session") {
            if let Some(other) = readers.insert(kind, name) {
                findings.error(
                    &place,
                    format!(
                        "the issuers {other} and {name} both take {kind} tokens, which do not say whose they are: give each an app of its own"
                    ),
                );
            }
        }
        if app.verify.session_cookie && issuer.authorized_parties.is_empty() {
            findings.error(
                &place,
                format!(
                    "verify.session_cookie needs authorized_parties at issuer {}: a cookie comes with requests of any page of the site, and `azp` alone says which page the session is of",
                    issuer.name
                ),
            );
        }
    }
    let asked: Vec<&str> = structure
        .issuers
        .iter()
        .filter(|issuer| {
            app.issuers.contains(&issuer.name)
                && issuer.backend.is_some()
                && issuer.accepts.contains(&TokenKind::Session)
        })
        .map(|issuer| issuer.name.as_str())
        .collect();
    if asked.len() > 1 && app.session_id != SessionIdPolicy::Off {
        findings.error(
            &place,
            format!(
                "a session id does not say whose it is, and the app has secret keys of several Clerk instances ({}): set session_id = \"off\", make an app for each, or remove all secret keys but one",
                asked.join(", ")
            ),
        );
    }
    let foreign = kinds.iter().any(|kind| *kind != IssuerKind::Clerk);
    if kinds.len() > 1 && foreign && app.subject.is_none() {
        findings.error(
            &place,
            "the app trusts several issuers whose subjects could be equal: say with `subject` how they stay apart, for example subject = 'iss + \"|\" + sub'",
        );
    }
}

/// Refresh tokens, and what an app that gives some needs.
fn judge_refresh(app: &AppSettings, structure: &Structure, findings: &mut Findings) {
    let Some(refresh) = app.refresh else {
        return;
    };
    let place = structure.place(&format!("app {}", app.name));
    let mut error = |message: String| findings.error(&place, message);
    if !app.outlives_subject {
        error(
            "ttl_bound = \"subject\" ends what `refresh` goes on with: an app has one of the two"
                .to_owned(),
        );
    }
    let (idle, absolute) = (refresh.idle, refresh.absolute);
    if absolute < idle {
        error(format!(
            "refresh.idle ({}) is longer than refresh.absolute ({}), which ends it",
            value::show_duration(idle),
            value::show_duration(absolute)
        ));
    }
    if idle <= app.ttl {
        error(format!(
            "refresh.idle ({}) must be longer than the app token lives ({}), or its end comes before a refresh is due",
            value::show_duration(idle),
            value::show_duration(app.ttl)
        ));
    }
    let issuers = structure.issuers.iter();
    let own: Vec<_> = issuers
        .filter(|issuer| app.issuers.contains(&issuer.name))
        .collect();
    for issuer in &own {
        let asked = issuer.kind == IssuerKind::Clerk && issuer.backend.is_some();
        if refresh.ask_provider && !asked {
            error(format!(
                "refresh.ask_provider asks Clerk's Backend API: the issuer {} needs kind = \"clerk\" and a `secret_key`",
                issuer.name
            ));
        }
    }
    for issuer in own {
        if !refresh.ask_provider && issuer.webhook_secrets.is_empty() {
            findings.note(
                &place,
                format!(
                    "refresh: nobody tells when a session of issuer {} ends, so its refresh tokens serve for up to {}: set ask_provider, or the issuer's `webhook_secret`",
                    issuer.name,
                    value::show_duration(absolute)
                ),
            );
        }
    }
}
