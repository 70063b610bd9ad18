//! An app token that comes back: parsed once, strictly, and verified with our own keys.
//!
//! Its header has `alg`, `kid` and `typ` and nothing else, as we write it; the key that `kid`
//! names verifies with one algorithm, and `alg` must say that one.

use crate::clock::UnixSeconds;
use crate::explain::{Code, Refusal, Seen};
use crate::keys::keeper::Published;
use crate::subject::json::{Json, Object};
use crate::subject::jwt::MAX_TOKEN;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::JwtVerifier;
use signature::Verifier;
use std::str::FromStr;

type Refused = Box<Refusal>;

/// How much of a claim is shown back to its sender, in bytes.
const MAX_SHOWN: usize = 255;

/// A token taken apart and decoded, not yet read.
pub struct Decoded<'t> {
    message: &'t [u8],
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

fn malformed(what: &str) -> Refused {
    Refusal::because(
        Code::AppTokenMalformed,
        format!("The bearer is not a well-formed app token: {what}."),
    )
}

impl<'t> Decoded<'t> {
    /// Takes a compact JWS (RFC 7515 §7.1) apart.
    pub fn of(token: &'t str) -> Result<Self, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(malformed("it is larger than 16 KiB"));
        }
        let parts = token
            .rsplit_once('.')
            .and_then(|(message, signature)| Some((message, message.split_once('.')?, signature)))
            .filter(|(_, (_, claims), _)| !claims.contains('.'));
        let Some((message, (header, claims), signature)) = parts else {
            return Err(malformed("it has not three parts"));
        };
        let decode = |part: &str, name: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed(&format!("its {name} is not base64url")))
        };
        Ok(Self {
            message: message.as_bytes(),
            header: decode(header, "header")?,
            claims: decode(claims, "payload")?,
            signature: decode(signature, "signature")?,
        })
    }

    /// Reads header and claims.
    pub fn read(&self) -> Result<Unverified<'_>, Refused> {
        let object = |bytes, name: &str| {
            Object::parse(bytes).map_err(|_| {
                malformed(&format!(
                    "its {name} is not a JSON object without repeated members"
                ))
            })
        };
        Ok(Unverified {
            header: object(&self.header, "header")?,
            claims: object(&self.claims, "payload")?,
            decoded: self,
        })
    }
}

/// A parsed token of which nothing is believed yet.
pub struct Unverified<'d> {
    decoded: &'d Decoded<'d>,
    header: Object<'d>,
    claims: Object<'d>,
}

/// A token of ours: its claims, its key and its `typ`.
pub struct Verified<'d> {
    /// What it says.
    pub claims: Said<'d>,
    /// The key that signed it.
    pub kid: &'d str,
    /// Its `typ`.
    pub typ: &'d str,
}

impl<'d> Unverified<'d> {
    /// The claims, unverified: `iss` tells our tokens from others'.
    pub fn claims(&self) -> &Object<'d> {
        &self.claims
    }

    /// Verifies header and signature with the published keys, then reads the claims.
    pub fn verify(&self, keys: &Published) -> Result<Verified<'_>, Refused> {
        let (Some(alg), Some(kid), Some(typ), 3) = (
            self.header.text("alg"),
            self.header.text("kid"),
            self.header.text("typ"),
            self.header.len(),
        ) else {
            return Err(malformed("its header is not one of ours"));
        };
        let key = keys
            .verifier(kid)
            .ok_or_else(|| Refusal::new(Code::AppTokenKeyUnknown))?;
        if Algorithm::from_str(alg).ok() != Some(key.algorithm()) {
            return Err(Refusal::new(Code::AppTokenAlgorithmMismatch));
        }
        key.verify(self.decoded.message, &self.decoded.signature)
            .map_err(|_| Refusal::new(Code::AppTokenSignatureInvalid))?;
        let claims = Said::read(&self.claims)?;
        Ok(Verified { claims, kid, typ })
    }

    /// Adds what the caller sent to a refusal.
    pub fn shown(&self, mut refusal: Refused) -> Refused {
        let short = |text: &str| {
            let end = text.floor_char_boundary(MAX_SHOWN);
            text.get(..end).unwrap_or_default().to_owned()
        };
        refusal.seen = Some(Seen {
            iss: self.claims.text("iss").map(short),
            aud: self.claims.text("aud").map(short),
            azp: None,
            typ: self.header.text("typ").map(short),
            alg: self.header.text("alg").map(short),
            kid: self.header.text("kid").map(short),
            exp: self.claims.get("exp").and_then(Json::as_i64),
        });
        refusal
    }
}

/// What an app token says, as far as this service acts on it: personal data, so it has no
/// `Debug`.
pub struct Said<'c> {
    /// `sub`: the user, as the app names them.
    pub user: &'c str,
    /// `client_id`: the app.
    pub app: &'c str,
    /// `aud`.
    pub audience: &'c str,
    /// `idp`: the provider, where there is a user.
    pub provider: Option<&'c str>,
    /// `sid`: the provider's session.
    pub session: Option<&'c str>,
    /// `org_id`.
    pub organization: Option<&'c str>,
    /// `roles`.
    pub roles: Vec<&'c str>,
    /// `scope`, taken apart (RFC 6749 §3.3).
    pub scopes: Vec<&'c str>,
    /// `iat`.
    pub issued_at: UnixSeconds,
    /// `nbf`.
    pub not_before: UnixSeconds,
    /// `exp`.
    pub expires_at: UnixSeconds,
}

impl<'c> Said<'c> {
    /// Reads the claims that we wrote; only what an app's own `claims` put there can be odd.
    pub fn read(claims: &'c Object<'c>) -> Result<Self, Refused> {
        let odd = |name: &'static str| {
            Refusal::new(Code::AppTokenClaimUnusable).caused_by(format!("the claim `{name}`"))
        };
        let text = |name| claims.text(name).ok_or_else(|| odd(name));
        let time = |name| {
            let value = claims.get(name).and_then(Json::as_i64);
            value.ok_or_else(|| odd(name))
        };
        let optional = |name| match claims.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text.as_ref())),
            Some(_) => Err(odd(name)),
        };
        let roles = match claims.get("roles") {
            None => Vec::new(),
            Some(Json::Text(role)) => vec![role.as_ref()],
            Some(Json::List(roles)) => roles
                .iter()
                .map(Json::as_str)
                .collect::<Option<_>>()
                .ok_or_else(|| odd("roles"))?,
            Some(_) => return Err(odd("roles")),
        };
        let scopes = optional("scope")?.unwrap_or_default();
        Ok(Self {
            user: text("sub")?,
            app: text("client_id")?,
            audience: text("aud")?,
            provider: optional("idp")?,
            session: optional("sid")?,
            organization: optional("org_id")?,
            roles,
            scopes: scopes.split(' ').filter(|each| !each.is_empty()).collect(),
            issued_at: time("iat")?,
            not_before: time("nbf")?,
            expires_at: time("exp")?,
        })
    }
}
