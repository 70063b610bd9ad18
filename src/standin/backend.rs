//! The Backend API: what an instance's secret key opens.

use super::server::{Call, Reply, parameter};
use super::world::{live, text};
use super::{Session, StandIn, TokenKind, objects};
use crate::crypto::sha256;
use http::Method;
use serde_json::{Value, json};

/// How many members a page has that asks for no number, and how many it may ask for.
const PAGE: (usize, usize) = (10, 500);

/// Where each kind of token is verified, and the member of the body that has it. The SDK
/// asks here without `/v1`; Clerk answers with it as well.
const VERIFIERS: [(&str, &str, TokenKind); 3] = [
    (
        "/oauth_applications/access_tokens/verify",
        "access_token",
        TokenKind::OAuth,
    ),
    ("/m2m_tokens/verify", "token", TokenKind::Machine),
    ("/api_keys/verify", "secret", TokenKind::ApiKey),
];

/// Whether a path is the Backend API's.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/v1/") || verifier(path).is_some()
}

fn verifier(path: &str) -> Option<(&'static str, TokenKind)> {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    VERIFIERS
        .iter()
        .find(|(known, ..)| *known == path)
        .map(|(_, member, kind)| (*member, *kind))
}

/// Clerk's error with this status.
fn error(status: u16, code: &str, message: &str, long_message: &str) -> Reply {
    Reply::json(
        status,
        &objects::error(code, message, long_message, &json!({})),
    )
}

fn not_found(what: &str, id: &str) -> Reply {
    let long = format!("No {what} was found with id {id}");
    error(404, "resource_not_found", "not found", &long)
}

/// 422: a parameter that is missing or is none.
fn unprocessable(code: &str, message: &str, parameter: &str) -> Reply {
    let meta = json!({"param_name": parameter});
    let long = format!("{parameter} {message}");
    Reply::json(422, &objects::error(code, message, &long, &meta))
}

impl StandIn {
    /// Answers a call of the Backend API.
    pub(super) fn backend(&self, call: &Call) -> Reply {
        let verifier = verifier(&call.path).filter(|_| call.method == Method::POST);
        if let Err(refusal) = self.authenticate(call, verifier.map(|(_, kind)| kind)) {
            return refusal;
        }
        if let Some((member, kind)) = verifier {
            return self.verify(call, member, kind);
        }
        let path = call.path.strip_prefix("/v1/").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("GET", ["jwks"]) => Reply::json(200, &json!({"keys": [self.jwk()]})),
            ("GET", ["sessions", id]) => self.look("session", id),
            ("GET", ["users", id]) => self.look("user", id),
            ("GET", ["organizations", id]) => self.look("organization", id),
            ("GET", ["users", id, "organization_memberships"]) => self.memberships(call, id),
            ("POST", ["sessions", id, "revoke"]) => self.revoke(id),
            ("POST", ["sessions", id, "tokens"]) => self.token(call, id, None),
            ("POST", ["sessions", id, "tokens", template]) => self.token(call, id, Some(template)),
            ("POST", ["sessions", _, "verify"]) => error(
                410,
                "operation_deprecated_error",
                "Operation deprecated",
                "This endpoint is gone: get the session and look at its status",
            ),
            _ => error(
                404,
                "resource_not_found",
                "not found",
                "The URL was not found",
            ),
        }
    }

    /// The instance's secret key opens everything, a machine's the verification of machine
    /// tokens. Hashes are compared: how long that takes says nothing of the key.
    fn authenticate(&self, call: &Call, verified: Option<TokenKind>) -> Result<(), Reply> {
        let Some(key) = call.authorization("bearer") else {
            return Err(error(
                401,
                "authentication_invalid",
                "Invalid authentication",
                "Unable to authenticate the request: it has no secret key",
            ));
        };
        let is = |secret: &str| sha256(key.as_bytes()) == sha256(secret.as_bytes());
        let machine = verified == Some(TokenKind::Machine) && is(self.machine_secret_key());
        if machine || is(self.secret_key()) {
            return Ok(());
        }
        Err(error(
            401,
            "clerk_key_invalid",
            "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.",
            "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.",
        ))
    }

    fn look(&self, what: &str, id: &str) -> Reply {
        self.world(|world| {
            let known = match what {
                "session" => &world.sessions,
                "user" => &world.users,
                _ => &world.organizations,
            };
            match known.get(id) {
                Some(object) => Reply::json(200, object),
                None => not_found(what, id),
            }
        })
    }

    fn memberships(&self, call: &Call, user: &str) -> Reply {
        let number =
            |name: &str, default: usize, most: usize| match parameter(call.query.as_bytes(), name)
                .map(|text| text.parse::<usize>())
            {
                None => Ok(default),
                Some(Ok(number)) if number <= most => Ok(number),
                Some(_) => Err(unprocessable(
                    "form_param_format_invalid",
                    "is invalid",
                    name,
                )),
            };
        let (limit, offset) = match (
            number("limit", PAGE.0, PAGE.1),
            number("offset", 0, usize::MAX),
        ) {
            (Ok(0), _) => {
                return unprocessable("form_param_format_invalid", "is invalid", "limit");
            }
            (Ok(limit), Ok(offset)) => (limit, offset),
            (Err(refusal), _) | (_, Err(refusal)) => return refusal,
        };
        self.world(|world| {
            if !world.users.contains_key(user) {
                return not_found("user", user);
            }
            let all = world.memberships_of(user);
            let page: Vec<&&Value> = all.iter().skip(offset).take(limit).collect();
            Reply::json(200, &json!({"data": page, "total_count": all.len()}))
        })
    }

    fn revoke(&self, id: &str) -> Reply {
        let revoked = self.world(|world| {
            world.end_session(id, "revoked")?;
            world.sessions.get(id).cloned()
        });
        match revoked {
            Some(session) => Reply::json(200, &session),
            None => not_found("session", id),
        }
    }

    fn token(&self, call: &Call, id: &str, template: Option<&str>) -> Reply {
        let lifetime = match call.member("expires_in_seconds") {
            Value::Null => 60,
            given => match given
                .as_i64()
                .filter(|given| (30..=315_360_000).contains(given))
            {
                Some(given) => given,
                None => {
                    return unprocessable(
                        "form_param_format_invalid",
                        "is invalid",
                        "expires_in_seconds",
                    );
                }
            },
        };
        let found = self.world(|world| {
            let session = world.sessions.get(id)?;
            let lives = matches!(text(session, "status"), "active" | "pending");
            lives.then(|| {
                let claims = template.map(|name| world.templates.get(name).cloned());
                (text(session, "user_id").to_owned(), claims)
            })
        });
        let jwt = match found {
            None => return not_found("session", id),
            Some((_, Some(None))) => {
                return not_found("JWT template", template.unwrap_or_default());
            }
            Some((user, Some(Some(claims)))) => self.template_token(&user, &claims, lifetime),
            Some((_, None)) => self.session_token(&Session {
                session: Some(id.to_owned()),
                lifetime: Some(lifetime),
                ..Session::default()
            }),
        };
        Reply::json(200, &json!({"object": "token", "jwt": jwt}))
    }

    fn verify(&self, call: &Call, member: &str, kind: TokenKind) -> Reply {
        let given = call.member(member);
        let Some(secret) = given.as_str().filter(|secret| !secret.is_empty()) else {
            return unprocessable("form_param_missing", "is missing", member);
        };
        let found = self.world(|world| world.token(secret, kind));
        // An access token that is a JWT is not looked up but judged.
        let is_jwt = kind == TokenKind::OAuth && secret.contains('.');
        match found {
            Some(token) if !is_jwt || live(&token) => Reply::json(200, &token),
            _ if is_jwt => Reply::json(200, &json!({"active": false})),
            _ => error(
                404,
                "resource_not_found",
                "not found",
                "No such token was found",
            ),
        }
    }
}
