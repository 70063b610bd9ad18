//! What is on: the one place that the metadata is printed from and that the endpoints obey.

use super::OAuth;
use crate::config::{AppSettings, DpopPolicy};
use crate::dpop::ALGORITHMS;
use jsonwebtoken::Algorithm;

/// A client gets a token of its own (RFC 6749 §4.4).
pub const CLIENT_CREDENTIALS: &str = "client_credentials";
/// A refresh token gives the next app token (RFC 6749 §6).
pub const REFRESH_TOKEN: &str = "refresh_token";
/// The code of a sign-in gives an app token (RFC 6749 §4.1.3).
pub const AUTHORIZATION_CODE: &str = "authorization_code";
/// A token is exchanged for another (RFC 8693 §2.1).
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// An issuer vouches for a user by an assertion (RFC 7523 §2.1).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

impl OAuth {
    fn apps(&self) -> impl Iterator<Item = &AppSettings> {
        self.exchange.apps.iter().map(|app| &app.settings)
    }

    /// The grants of the token endpoint that somebody can use.
    pub fn grants(&self) -> impl Iterator<Item = &'static str> {
        let grants = [
            (CLIENT_CREDENTIALS, self.clients.any()),
            (REFRESH_TOKEN, self.gives_refresh_tokens()),
            (AUTHORIZATION_CODE, self.signs_in()),
            // An app shows its users' tokens here as it does at the exchange.
            (TOKEN_EXCHANGE, true),
            (JWT_BEARER, self.takes_assertions()),
        ];
        grants
            .into_iter()
            .filter_map(|(grant, on)| on.then_some(grant))
    }

    /// Whether some app has sign-in that this service begins.
    pub fn signs_in(&self) -> bool {
        self.apps().any(|app| app.sign_in.is_some())
    }

    /// The one provider that all users sign in at; clients that configure themselves know one
    /// authorization endpoint alone.
    pub fn only_provider(&self) -> Option<&str> {
        let sign_ins = self.apps().filter_map(|app| app.sign_in.as_ref());
        let mut names = sign_ins.flat_map(|sign_in| &sign_in.providers);
        let first = names.next()?;
        names.all(|name| name == first).then_some(first)
    }

    /// Whether some app gives refresh tokens.
    pub fn gives_refresh_tokens(&self) -> bool {
        self.apps().any(|app| app.refresh.is_some())
    }

    /// Whether some app trusts an issuer whose assertions are grants.
    pub fn takes_assertions(&self) -> bool {
        let mut issuers = self.exchange.apps.iter().flat_map(|app| &app.issuers);
        issuers.any(|issuer| issuer.settings.assertions)
    }

    /// What DPoP proofs may be signed with; nothing where no app looks at them.
    pub fn proof_algorithms(&self) -> &'static [&'static str] {
        let looks = |app: &AppSettings| app.dpop.policy != DpopPolicy::Off;
        // A client's token is bound wherever it sends a proof.
        if self.clients.any() || self.apps().any(looks) {
            &ALGORITHMS
        } else {
            &[]
        }
    }

    /// Whether no app takes a token without a proof of its key.
    pub fn needs_proofs(&self) -> bool {
        self.apps()
            .all(|app| app.dpop.policy == DpopPolicy::Required)
    }

    /// The scopes that the apps know.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = self.apps().flat_map(|app| &app.scopes);
        scopes.map(|scope| scope.name.as_str())
    }

    /// What the status list is signed with: as the tokens of the first app that has it, or else
    /// as service tokens. None where nobody has it.
    pub fn listing(&self) -> Option<Algorithm> {
        let app = self.apps().find(|app| app.status_list);
        let service = || self.clients.lists().then_some(self.algorithm);
        app.map(|app| app.algorithm).or_else(service)
    }
}
