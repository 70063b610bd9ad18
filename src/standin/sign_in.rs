//! The instance's OAuth server, as far as one application's sign-in needs it: authorize, where
//! the known user says yes at once, and the code's way at the token endpoint.

use super::server::{Call, Reply, parameter};
use super::{StandIn, TokenKind, frontend, identifier, known, locked};
use crate::crypto::sha256;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use url::Url;
use url::form_urlencoded;

/// A code that was given out, and what it was asked for with.
#[derive(Clone)]
pub(super) struct Given {
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
    scope: String,
}

impl StandIn {
    /// `GET /oauth/authorize`.
    pub(super) fn sign_in_at(&self, call: &Call) -> Reply {
        let asked = |name: &str| parameter(call.query.as_bytes(), name);
        let (id, _) = self.oauth_client();
        if asked("client_id").as_deref() != Some(id) {
            return frontend::refused(
                401,
                "invalid_client",
                "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method). The requested OAuth 2.0 Client does not exist.",
            );
        }
        let redirect_uri = asked("redirect_uri").unwrap_or_default();
        let Ok(mut back) = Url::parse(&redirect_uri) else {
            return frontend::refused(400, "invalid_request", "The redirect URI is malformed.");
        };
        let code = identifier("code");
        let given = Given {
            redirect_uri,
            challenge: asked("code_challenge"),
            nonce: asked("nonce"),
            scope: asked("scope").unwrap_or_default(),
        };
        locked(&self.conduct).codes.insert(code.clone(), given);
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("scope", &asked("scope").unwrap_or_default())
            .append_pair("state", &asked("state").unwrap_or_default());
        Reply::found(back.into())
    }

    /// `POST /oauth/token` for a code.
    pub(super) fn token_for(&self, call: &Call) -> Reply {
        let asked = |name: &str| parameter(&call.body, name);
        if !self.is_client(call) {
            return frontend::refused(
                401,
                "invalid_client",
                "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).",
            );
        }
        let code = asked("code").unwrap_or_default();
        let given = locked(&self.conduct).codes.remove(&code);
        let given = given.filter(|given| {
            let proven = asked("code_verifier")
                .map(|verifier| URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())));
            asked("redirect_uri").as_ref() == Some(&given.redirect_uri) && given.challenge == proven
        });
        let Some(given) = given else {
            return frontend::refused(
                400,
                "invalid_grant",
                "The provided authorization grant is invalid, expired or revoked.",
            );
        };
        let token = identifier("oat");
        let scopes: Vec<&str> = given.scope.split_whitespace().collect();
        self.world(|world| {
            world.add_token(&token, TokenKind::OAuth, known::USER, &scopes);
        });
        let mut answer = json!({
            "access_token": token, "token_type": "bearer", "expires_in": 86_400,
            "scope": given.scope,
        });
        if scopes.contains(&"openid") {
            let id_token = self.id_token(known::USER, given.nonce.as_deref());
            super::world::set(&mut answer, "id_token", json!(id_token));
        }
        Reply::json(200, &answer)
    }

    /// Whether a call has the client's id and secret, in the header or in the form. Hashes are
    /// compared: how long that takes says nothing of the secret.
    fn is_client(&self, call: &Call) -> bool {
        let (id, secret) = self.oauth_client();
        let decoded = |text: &str| {
            let pairs = form_urlencoded::parse(text.as_bytes());
            pairs.map(|(name, _)| name.into_owned()).next()
        };
        let basic = call.authorization("basic").and_then(|encoded| {
            let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
            let (id, secret) = text.split_once(':')?;
            Some((decoded(id)?, decoded(secret)?))
        });
        let form = || {
            let id = parameter(&call.body, "client_id")?;
            Some((id, parameter(&call.body, "client_secret")?))
        };
        basic.or_else(form).is_some_and(|(given_id, given)| {
            given_id == id && sha256(given.as_bytes()) == sha256(secret.as_bytes())
        })
    }
}
