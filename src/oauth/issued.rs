//! What the token endpoint gives (RFC 6749 §5.1, RFC 8693 §2.2.1).

use super::clients::Party;
use crate::dpop::Proof;
use crate::exchange::Exchanged;
use crate::explain::{About, Limit};
use crate::keys::Signer;
use crate::token::AppToken;
use secrecy::SecretString;
use std::sync::Arc;

/// The type of a token that is a JWT, whatever it is for (RFC 8693 §3).
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// That of an ID token.
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// That of an access token.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What a request at the token endpoint gets.
pub struct Issued {
    /// The token.
    pub token: AppToken,
    /// `token_type`: `Bearer`, or `DPoP` where the token is bound to a key (RFC 9449 §5).
    pub token_type: &'static str,
    /// `issued_token_type`, in answer to a token exchange.
    pub issued_token_type: Option<&'static str>,
    /// Seconds until it expires.
    pub expires_in: i64,
    /// `aud` of the token, spaces between several.
    pub audience: String,
    /// The scopes that were granted, where there are some or some were asked for.
    pub scope: Option<String>,
    /// A refresh token, where the app gives one.
    pub refresh_token: Option<SecretString>,
    /// The proof of the key that the token is bound to, where it is.
    pub proof: Option<Proof>,
    /// The nearest rate limit.
    pub limit: Option<Limit>,
    /// Who asked.
    pub party: Party,
    /// Whom the token is about, under pseudonyms; nobody where the client asked for itself.
    pub about: Option<About>,
    /// The key that signed it.
    pub signer: Arc<Signer>,
}

/// `token_type` of a token that was given for this proof, or for none (RFC 9449 §5).
pub fn token_type(proof: Option<&Proof>) -> &'static str {
    proof.map_or("Bearer", |_| "DPoP")
}

impl Issued {
    /// What an exchange gave, as the token endpoint tells it; `session` is a pseudonym.
    pub(super) fn of(exchanged: Box<Exchanged>, party: Party, session: Option<String>) -> Self {
        Self {
            token: exchanged.token,
            token_type: token_type(exchanged.proof.as_ref()),
            issued_token_type: None,
            expires_in: exchanged.expires_in,
            audience: exchanged.audiences.join(" "),
            scope: exchanged.scopes.map(|scopes| scopes.names),
            refresh_token: None,
            proof: exchanged.proof,
            limit: exchanged.limit,
            party,
            about: Some(About {
                app: exchanged.app.settings.name.clone(),
                issuer: Some(exchanged.issuer.settings.issuer.clone()),
                subject: Some(exchanged.pseudonym),
                session,
            }),
            signer: exchanged.signer,
        }
    }
}
