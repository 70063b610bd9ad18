//! The JWTs that the instance signs: session tokens of both versions, those of a template,
//! OAuth access tokens and machine tokens. They say what the [`World`](super::World) says.

use super::world::{at, set, text};
use super::{StandIn, identifier, known};
use crate::clock::UnixSeconds;
use crate::keys::jwk;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};
use signature::Signer;

/// How long a session token lives, seconds: Clerk's default.
const LIFETIME: UnixSeconds = 60;
/// The category of a JWT, in its header (`cat`), as `@clerk/backend` knows them.
const SESSION: &str = "cl_B7d4PD111AAA";
const TEMPLATE: &str = "cl_B7d4PD222AAA";
const MACHINE: &str = "cl_B7d4PD333AAA";

/// What a session token is asked to say; the rest is the world's.
#[derive(Debug, Default)]
pub struct Session {
    /// Seconds since the token was issued: over 60 it is expired.
    pub age: UnixSeconds,
    /// `sts`, where it is not what the world says.
    pub status: Option<String>,
    /// The session's id, where it is not [`known::SESSION`]; one that the world does not
    /// have is [`known::USER`]'s.
    pub session: Option<String>,
    /// 1 for the older claims; else version 2.
    pub version: Option<u8>,
    /// Seconds that the token lives, where it is not Clerk's 60.
    pub lifetime: Option<UnixSeconds>,
    /// Claims to add or replace; `null` removes one.
    pub claims: Map<String, Value>,
}

impl StandIn {
    /// The public key, as the key set has it.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = jwk::jwk(self.key.public(), Algorithm::RS256);
        set(&mut jwk, "kid", json!(self.instance_id()));
        jwk
    }

    /// A session token: of the session's user, and of the organisation that it acts for. It
    /// is made of a session that has ended, too: such tokens live on for their minute.
    pub fn session_token(&self, session: &Session) -> String {
        let id = session.session.as_deref().unwrap_or(known::SESSION);
        let issued_at = self.clock.now() - session.age.clamp(-86_400, 86_400);
        let mut claims = self.common(issued_at, session.lifetime.unwrap_or(LIFETIME));
        self.world(|world| {
            let known = world.sessions.get(id).unwrap_or(&Value::Null);
            let user = at(known, "/user_id").as_str().unwrap_or(known::USER);
            let organization = text(known, "last_active_organization_id");
            let membership = world
                .memberships_of(user)
                .into_iter()
                .find(|membership| at(membership, "/organization/id") == organization);
            let status = match (session.status.as_deref(), text(known, "status")) {
                (Some(status), _) => status,
                (None, "pending") => "pending",
                (None, _) => "active",
            };
            claims.extend(members(json!({
                "azp": "http://localhost:3000",
                "fva": [2, -1],
                "sid": id,
                "sts": status,
                "sub": user,
            })));
            if at(known, "/actor").is_object() {
                claims.insert("act".to_owned(), at(known, "/actor").clone());
            }
            claims.extend(members(match session.version {
                Some(1) => organization_v1(membership),
                _ => organization_v2(membership),
            }));
        });
        for (name, value) in session.claims.clone() {
            claims.insert(name, value);
        }
        claims.retain(|_, value| !value.is_null());
        self.sign("JWT", Some(SESSION), &claims)
    }

    /// A token of a JWT template: the template's claims, and no session.
    pub(super) fn template_token(
        &self,
        user: &str,
        template: &Value,
        lifetime: UnixSeconds,
    ) -> String {
        let mut claims = self.common(self.clock.now(), lifetime);
        claims.insert("sub".to_owned(), json!(user));
        claims.insert("azp".to_owned(), json!("http://localhost:3000"));
        claims.extend(members(template.clone()));
        self.sign("JWT", Some(TEMPLATE), &claims)
    }

    /// An OAuth access token as JWT (RFC 9068), which lives for an hour. The instance knows
    /// it from now on: it can be verified, introspected and revoked.
    pub fn oauth_jwt(&self, subject: &str, scopes: &[&str]) -> String {
        let now = self.clock.now();
        let mut claims = self.common(now, 3600);
        claims.extend(members(json!({
            "sub": subject,
            "client_id": self.oauth_client().0,
            "jti": identifier("oat"),
            "scope": scopes.join(" "),
            "scp": scopes,
        })));
        let token = self.sign("at+jwt", None, &claims);
        self.world(|world| {
            let known = world.add_token(&token, super::TokenKind::OAuth, subject, scopes);
            set(known, "id", claims.get("jti").cloned().unwrap_or_default());
        });
        token
    }

    /// A machine's token as JWT, which lives for an hour. `machine` is its id, `mch_…`.
    pub fn machine_jwt(&self, machine: &str, scopes: &[&str]) -> String {
        let mut claims = self.common(self.clock.now(), 3600);
        claims.extend(members(json!({
            "sub": machine,
            "jti": identifier("mt"),
            "aud": scopes,
            "scopes": scopes.join(" "),
        })));
        self.sign("JWT", Some(MACHINE), &claims)
    }

    /// An ID token of the user for the instance's OAuth client, which lives for a day.
    pub(super) fn id_token(&self, subject: &str, nonce: Option<&str>) -> String {
        let mut claims = self.common(self.clock.now(), 86_400);
        claims.remove("nbf");
        claims.extend(members(
            json!({"sub": subject, "aud": self.oauth_client().0}),
        ));
        if let Some(nonce) = nonce {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        self.sign("JWT", None, &claims)
    }

    fn common(&self, issued_at: UnixSeconds, lifetime: UnixSeconds) -> Map<String, Value> {
        members(json!({
            "exp": issued_at + lifetime,
            "iat": issued_at,
            "iss": self.issuer(),
            "jti": super::random_text(20),
            "nbf": issued_at - 10,
        }))
    }

    fn sign(&self, typ: &str, category: Option<&str>, claims: &Map<String, Value>) -> String {
        let mut header = json!({"alg": "RS256", "kid": self.instance_id(), "typ": typ});
        if let Some(category) = category {
            set(&mut header, "cat", json!(category));
        }
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let claims = Value::Object(claims.clone());
        let message = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = self.key.try_sign(message.as_bytes()).unwrap_or_default();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The feature and the permission of each that a token carries: not the system's own.
fn permissions(membership: &Value) -> Vec<(&str, &str)> {
    let all = at(membership, "/permissions").as_array();
    all.into_iter()
        .flatten()
        .filter_map(|permission| permission.as_str()?.strip_prefix("org:")?.split_once(':'))
        .filter(|(feature, _)| !feature.starts_with("sys_"))
        .collect()
}

fn organization_v1(membership: Option<&Value>) -> Value {
    let Some(membership) = membership else {
        return json!({});
    };
    let permissions: Vec<String> = permissions(membership)
        .into_iter()
        .map(|(feature, permission)| format!("org:{feature}:{permission}"))
        .collect();
    json!({
        "org_id": at(membership, "/organization/id"),
        "org_slug": at(membership, "/organization/slug"),
        "org_role": at(membership, "/role"),
        "org_permissions": permissions,
    })
}

/// The version 2 claims: for each feature, `fpm` has a number whose bits say which of the
/// permissions of `per` it has, lowest bit first.
fn organization_v2(membership: Option<&Value>) -> Value {
    let Some(membership) = membership else {
        return json!({"v": 2, "pla": "u:free", "fea": "u:export"});
    };
    let pairs = permissions(membership);
    let (mut features, mut names) = (Vec::new(), Vec::new());
    for (feature, name) in &pairs {
        for (list, item) in [(&mut features, feature), (&mut names, name)] {
            if !list.contains(item) {
                list.push(item);
            }
        }
    }
    let maps: Vec<String> = features
        .iter()
        .map(|feature| {
            let bits = names
                .iter()
                .zip(0..u128::BITS)
                .fold(0_u128, |bits, (name, place)| {
                    let has = pairs.contains(&(*feature, *name));
                    bits | u128::from(has) << place
                });
            bits.to_string()
        })
        .collect();
    let scoped: Vec<String> = features
        .iter()
        .map(|feature| format!("o:{feature}"))
        .chain(std::iter::once("u:export".to_owned()))
        .collect();
    let mut organization = json!({
        "id": at(membership, "/organization/id"),
        "slg": at(membership, "/organization/slug"),
        "rol": text(membership, "role").trim_start_matches("org:"),
    });
    if !names.is_empty() {
        set(&mut organization, "per", json!(names.join(",")));
        set(&mut organization, "fpm", json!(maps.join(",")));
    }
    json!({"v": 2, "pla": "o:team", "fea": scoped.join(","), "o": organization})
}
