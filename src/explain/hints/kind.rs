//! Another kind of token than is taken: how it is signed, what its header says that it is.

use super::{Case, Hints, one};
use crate::config::{IssuerKind, TokenKind};
use crate::explain::say::Say;
use serde_json::Value;

impl Case<'_> {
    fn named(&self, member: &str) -> &str {
        let named = self.header.get(member).and_then(Value::as_str);
        named.unwrap_or_default()
    }

    pub(super) fn algorithm(&self) -> Hints {
        let (alg, issuer) = (self.named("alg"), self.judge()?);
        if alg.eq_ignore_ascii_case("none") {
            return one(
                "An unsigned token is no proof of anything, and never accepted: find out who made it.",
            );
        }
        if alg.starts_with("HS") {
            return one(match issuer.kind {
                IssuerKind::Clerk => {
                    "Clerk signs so where a JWT template has a custom signing key (Clerk → JWT templates → the template → Custom signing key): switch that off, or send the session token in its place (`getToken()` without a template)."
                }
                _ => {
                    "The provider signs with a shared secret: let it sign this application's tokens with RS256 or ES256."
                }
            });
        }
        Some(vec![
            Say::words("If the issuer signs so on purpose, add it to ")
                .then(self.of_issuer(issuer, "algorithms"))
                .and("."),
        ])
    }

    pub(super) fn kind(&self) -> Hints {
        let typ = self.named("typ").to_lowercase();
        match typ.trim_start_matches("application/") {
            "dpop+jwt" => one(
                "This is a DPoP proof: it goes into the `DPoP` header, beside the token and not in its place.",
            ),
            "logout+jwt" => one(
                "This is a logout token (OpenID Connect Back-Channel Logout): it says that a session ended, and is no session token.",
            ),
            "secevent+jwt" => {
                one("This is a security event token (RFC 8417), and no session token.")
            }
            "at+jwt" => self.not_accepted(),
            "" => None,
            _ => Some(vec![
                Say::words("If this issuer's session tokens have this `typ`, add it to ")
                    .then(self.of_issuer(self.judge()?, "token_types"))
                    .and("."),
            ]),
        }
    }

    pub(super) fn not_accepted(&self) -> Hints {
        let issuer = self.judge()?;
        let machine = self.text("sub").is_some_and(|sub| sub.starts_with("mch_"));
        let (kind, what) = match machine {
            true => (TokenKind::Machine, "This is a machine token"),
            false => (
                TokenKind::OAuth,
                "This is an OAuth access token (`typ` at+jwt)",
            ),
        };
        Some(vec![
            Say::words(what)
                .and(", not a session token. Send what `getToken()` gives; or add `\"")
                .and(kind.name())
                .and("\"` to ")
                .then(self.of_issuer(issuer, "accepts"))
                .and("."),
        ])
    }

    pub(super) fn encrypted(&self) -> Hints {
        if self.named("alg") != "dir" {
            return None;
        }
        one(match self.header.get("iss") {
            Some(_) => {
                "This is an access token of Auth0 for its own /userinfo: name your API's identifier as `audience` when the app signs in, and Auth0 gives a signed one."
            }
            None => {
                "This is probably a session cookie of Auth.js (NextAuth), which only its own site can read: send the provider's ID token in its place."
            }
        })
    }

    pub(super) fn key_id_missing(&self) -> Hints {
        let issuer = self.judge()?;
        Some(vec![
            Say::words("Give the issuer's one key as ")
                .then(self.of_issuer(issuer, "jwt_key"))
                .and(" (Clerk → API keys → JWT public key)."),
        ])
    }
}
