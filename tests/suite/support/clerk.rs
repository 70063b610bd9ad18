//! A Clerk instance, which the stand-in is, and services that have its secret key.

use super::service::Builder;
use exchequer::clock::Clock;
use exchequer::standin::StandIn;
use std::sync::Arc;

/// An instance of its own.
pub async fn clerk() -> Arc<StandIn> {
    StandIn::start(Clock::system()).await.unwrap()
}

impl Builder {
    /// Trusts this instance and has its secret key, by variables alone.
    #[must_use]
    pub fn keyed(self, clerk: &StandIn) -> Self {
        self.env("CLERK_JWT_ISSUER", clerk.issuer())
            .env("CLERK_SECRET_KEY", clerk.secret_key())
            .env("CLERK_API_URL", clerk.api_url())
    }

    /// Writes `exchequer.toml` with this instance as the issuer `clerk`, whose secret key the
    /// service has, these further lines for it, and the apps.
    #[must_use]
    pub fn keyed_in_file(self, clerk: &StandIn, lines: &str, apps: &str) -> Self {
        let (url, api) = (clerk.issuer(), clerk.api_url());
        self.config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\napi_url = {api:?}\n\
             secret_key = {{ env = \"KEY\" }}\n{lines}\n{apps}\n"
        ))
        .env("KEY", clerk.secret_key())
    }
}
