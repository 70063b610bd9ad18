//! The Frontend API, as far as a service needs it: key set, metadata and introspection; and
//! routes of our own that stand for what people do in an app.

use super::server::{Call, Reply, parameter};
use super::world::{at, live};
use super::{Session, StandIn, TokenKind, identifier, known, locked};
use crate::crypto::sha256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The introspection endpoint (RFC 7662).
pub(super) const INTROSPECTION: &str = "/oauth/token_info";
/// How long a sign-out waits for its webhook to be taken.
const DELIVERY: Duration = Duration::from_secs(3);

impl StandIn {
    /// Answers a call of the Frontend API.
    pub(super) async fn frontend(self: &Arc<Self>, call: &Call) -> Reply {
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/.well-known/jwks.json") => Reply::json(200, &json!({"keys": [self.jwk()]})),
            (
                "GET",
                "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server",
            ) => Reply::json(200, &self.metadata()),
            ("GET", "/oauth/authorize") => self.sign_in_at(call),
            ("POST", "/oauth/token") => self.token_for(call),
            ("POST", INTROSPECTION) => self.introspect(call),
            ("GET", "/session-token") => Reply::plain(200, self.session_token(&asked_for(call))),
            ("GET", "/session-id") => Reply::plain(200, self.sign_in()),
            ("GET", "/oauth-token") => Reply::plain(200, self.authorize(call)),
            ("POST", "/dev/sign-out") => self.sign_out(call).await,
            _ => Reply::plain(404, "not found".to_owned()),
        }
    }

    /// The metadata of an authorization server (RFC 8414), which is an OpenID provider too.
    fn metadata(&self) -> Value {
        let url = self.issuer();
        json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/oauth/authorize"),
            "token_endpoint": format!("{url}/oauth/token"),
            "userinfo_endpoint": format!("{url}/oauth/userinfo"),
            "revocation_endpoint": format!("{url}/oauth/token/revoke"),
            "introspection_endpoint": format!("{url}{INTROSPECTION}"),
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "jwks_uri": format!("{url}/.well-known/jwks.json"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["form_post", "query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "public_metadata", "private_metadata", "offline_access"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        })
    }

    /// Introspection (RFC 7662) of OAuth access tokens, for a client that says its secret.
    fn introspect(&self, call: &Call) -> Reply {
        let (id, secret) = self.oauth_client();
        let expected = format!("{id}:{secret}");
        let given = call
            .authorization("basic")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .unwrap_or_default();
        // Hashes are compared: how long that takes says nothing of the secret.
        if sha256(&given) != sha256(expected.as_bytes()) {
            return refused(
                401,
                "invalid_client",
                "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).",
            );
        }
        let Some(token) = parameter(&call.body, "token") else {
            return refused(400, "invalid_request", "The request has no token.");
        };
        let found = self.world(|world| world.token(&token, TokenKind::OAuth));
        let Some(token) = found.filter(live) else {
            return Reply::json(200, &json!({"active": false}));
        };
        let scopes: Vec<&str> = at(&token, "/scopes")
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Reply::json(
            200,
            &json!({
                "active": true,
                "client_id": at(&token, "/client_id"),
                "exp": at(&token, "/expiration"),
                "iat": at(&token, "/created_at"),
                "scope": scopes.join(" "),
                "sub": at(&token, "/subject"),
                "token_type": "Bearer",
                "token_use": "access_token",
            }),
        )
    }

    /// Signs the user in once more; gives the new session's id.
    fn sign_in(&self) -> String {
        let id = identifier("sess");
        self.world(|world| {
            world.add_session(&id, known::USER, "active");
        });
        id
    }

    /// Gives an OAuth client an opaque access token of the user, for the scopes of the query.
    fn authorize(&self, call: &Call) -> String {
        let token = identifier("oat");
        let scope = parameter(call.query.as_bytes(), "scope");
        let scope = scope.as_deref().unwrap_or("profile email");
        let scopes: Vec<&str> = scope.split_whitespace().collect();
        self.world(|world| {
            world.add_token(&token, TokenKind::OAuth, known::USER, &scopes);
        });
        token
    }

    /// Ends a session, as its user does in an app, and tells the webhook's endpoint.
    async fn sign_out(self: &Arc<Self>, call: &Call) -> Reply {
        let session = parameter(call.query.as_bytes(), "session");
        let session = session.as_deref().unwrap_or(known::SESSION);
        let Some(event) = self.end_session(session, "ended") else {
            return Reply::json(404, &json!({"error": "there is no such session"}));
        };
        let delivered = match locked(&self.conduct).endpoint.clone() {
            None => None,
            Some(url) => {
                let standin = Arc::clone(self);
                Some(tokio::spawn(
                    async move { standin.send(&url, &event).await },
                ))
            }
        };
        // What takes longer goes on without us.
        let taken = match delivered {
            None => false,
            Some(delivery) => matches!(
                tokio::time::timeout(DELIVERY, delivery).await,
                Ok(Ok(Ok(())))
            ),
        };
        Reply::json(
            200,
            &json!({"session": session, "status": "ended", "webhook_taken": taken}),
        )
    }
}

/// The session token that a query asks for.
fn asked_for(call: &Call) -> Session {
    let asked = |name: &str| parameter(call.query.as_bytes(), name);
    let number = |name: &str| asked(name).and_then(|text| text.parse::<i64>().ok());
    Session {
        age: number("age").unwrap_or_default(),
        status: asked("status"),
        session: asked("session"),
        version: number("version").and_then(|version| u8::try_from(version).ok()),
        ..Session::default()
    }
}

/// An OAuth error (RFC 6749 §5.2).
pub(super) fn refused(status: u16, error: &str, description: &str) -> Reply {
    Reply::json(
        status,
        &json!({"error": error, "error_description": description}),
    )
}
