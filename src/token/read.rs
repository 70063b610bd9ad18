//! An app token that comes back: parsed once, strictly, and verified with our own keys.
//!
//! Its header has `alg`, `kid` and `typ` and nothing else, as we write it; the key that `kid`
//! names verifies with one algorithm, and `alg` must say that one.

use crate::clock::UnixSeconds;
use crate::explain::{Code, Refusal};
use crate::keys::keeper::Published;
use crate::subject::json::{Json, Object};
use crate::subject::jws::{self, Decoded, Malformed};
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::JwtVerifier;
use signature::Verifier;
use std::str::FromStr;

type Refused = Box<Refusal>;

fn malformed(what: &str) -> Refused {
    Refusal::because(
        Code::AppTokenMalformed,
        format!("The bearer is not a well-formed app token: {what}."),
    )
}

/// Takes a bearer apart.
pub fn decode(token: &str) -> Result<Decoded<'_>, Refused> {
    Decoded::of(token).map_err(|error| match error {
        Malformed::TooLarge => malformed("it is larger than 16 KiB"),
        Malformed::Dots(_) => malformed("it has not three parts"),
        Malformed::NotBase64(part) => malformed(&format!("its {part} is not base64url")),
    })
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
    /// Reads header and claims.
    pub fn parse(decoded: &'d Decoded<'d>) -> Result<Self, Refused> {
        let object = |bytes, name: &str| {
            Object::parse(bytes).map_err(|_| {
                malformed(&format!(
                    "its {name} is not a JSON object without repeated members"
                ))
            })
        };
        Ok(Self {
            header: object(&decoded.header, "header")?,
            claims: object(&decoded.claims, "payload")?,
            decoded,
        })
    }

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
        refusal.seen = Some(jws::seen(&self.header, &self.claims));
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
