//! An OAuth provider: whether it knows our client.

use super::report::Row;
use crate::clock::Clock;
use crate::config::ProviderSettings;
use crate::explain::Code;
use crate::oauth::providers::Provider;
use crate::subject::fetch::Fetcher;
use std::sync::Arc;

/// Shows its token endpoint a code that cannot be right: the answer tells whether it knows the
/// client.
pub(super) async fn look(fetcher: &Fetcher, settings: &ProviderSettings, issuer: &str) -> Row {
    let check = "provider";
    let provider = Provider::new(settings, fetcher, &Clock::system(), &Arc::default());
    let (name, client) = (&settings.name, &settings.client_id);
    let callback = settings.callback(issuer);
    let row = match provider.recognises_us(&callback).await {
        Ok(()) => Row::ok(
            check,
            format!(
                "it knows the client {client}; the callback {callback} must be registered there"
            ),
        ),
        Err(refusal) => {
            let cause = refusal.cause.unwrap_or(refusal.description);
            let (seen, next) = match refusal.code {
                Code::ProviderClientUnknown => (
                    format!("{cause}: it does not know the client {client}, or refuses its secret"),
                    format!(
                        "register an application of your own there, and set `client_id` and `client_secret` of [providers.{name}] to what it shows; where they are right, try another `client_auth`"
                    ),
                ),
                Code::ProviderRefused => (
                    format!("{cause}: it does not say whether it knows the client {client}"),
                    format!("register {callback} there, and sign in once to see"),
                ),
                _ => (
                    cause,
                    format!(
                        "is it reached from here? `issuer` and `token_endpoint` of [providers.{name}]"
                    ),
                ),
            };
            Row::fail(check, seen).next(next).code(refusal.code)
        }
    };
    row.of(name)
}
