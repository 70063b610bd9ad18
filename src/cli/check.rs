//! `exchequer check`: the configuration, read and judged.

use crate::config::{self, AuthMethod, IssuerKind, Settings, Sources};
use std::process::ExitCode;

/// Prints every error and note, then what is configured.
pub(super) fn run() -> ExitCode {
    let (settings, findings) = config::load(&Sources::process());
    for error in &findings.errors {
        println!("error: {error}");
    }
    for note in &findings.notes {
        println!("note:  {note}");
    }
    match settings {
        Some(settings) => {
            print(&settings);
            super::DONE
        }
        None => super::not_right(),
    }
}

fn print(settings: &Settings) {
    println!("ok:    issuer of app tokens {}", settings.issuer);
    for issuer in &settings.issuers {
        let kind = match issuer.kind {
            IssuerKind::Clerk => "clerk",
            IssuerKind::Oidc => "oidc",
            IssuerKind::Introspection => "introspection",
            IssuerKind::SignIn => "sign-in",
        };
        let algorithms: Vec<String> = issuer
            .algorithms
            .iter()
            .map(|algorithm| format!("{algorithm:?}"))
            .collect();
        println!(
            "ok:    issuer {} ({kind}) {} {}",
            issuer.name,
            issuer.issuer,
            algorithms.join(", ")
        );
    }
    for app in &settings.apps {
        println!(
            "ok:    app {}: issuers {}; audience {}; {} s; {:?}",
            app.name,
            app.issuers.join(", "),
            app.audiences.join(", "),
            app.ttl,
            app.algorithm
        );
        if let Some(sign_in) = &app.sign_in {
            println!(
                "ok:    app {}: sign-in at {}; back to {}",
                app.name,
                sign_in.providers.join(", "),
                sign_in.redirect_uris.join(" ")
            );
        }
        for scope in &app.scopes {
            let when = scope
                .when
                .as_ref()
                .map(|when| format!(" when {}", when.source));
            println!(
                "ok:    app {}: scope {}: {}{}",
                app.name,
                scope.name,
                scope.permissions.join(", "),
                when.unwrap_or_default()
            );
        }
    }
    for provider in settings.providers.values() {
        println!(
            "ok:    provider {} {}: client {}; callback {}",
            provider.name,
            provider.issuer,
            provider.client_id,
            provider.callback(&settings.issuer)
        );
    }
    for (id, client) in &settings.clients {
        let how = match client.method {
            AuthMethod::ClientSecret => String::new(),
            method => format!("; {}", method.name()),
        };
        if client.audiences.is_empty() {
            println!("ok:    client {id}{how}");
            continue;
        }
        println!(
            "ok:    client {id}: audience {}; scopes {}; {} s{how}",
            client.audiences.join(", "),
            client.scopes.join(", "),
            client.ttl
        );
    }
    if let Some(traces) = &settings.traces {
        // Its path may be a secret of whoever takes them.
        let origin = traces.endpoint.origin().ascii_serialization();
        println!("ok:    traces to {origin}");
    }
}
