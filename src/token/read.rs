//! An app token that comes back: parsed once, strictly, and verified with our own keys.
//!
//! Each check is noted on a ladder: [`CHECKS`] has them in the order in which they are made.
//!
//! Its header has `alg`, `kid` and `typ` and nothing else, as we write it; the key that `kid`
//! names verifies with one algorithm, and `alg` must say that one.

use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::keys::Published;
use crate::subject::json::{Json, Object};
use crate::subject::jws::{self, Decoded, Malformed};
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::JwtVerifier;
use signature::Verifier;
use std::str::FromStr;

type Refused = Box<Refusal>;

/// The checks of an app token that comes back: these here, then the gate's.
pub const CHECKS: [Check; 13] = [
    Check::Form,
    Check::Header,
    Check::Issuer,
    Check::Key,
    Check::Algorithm,
    Check::Signature,
    Check::Claims,
    Check::App,
    Check::Type,
    Check::Audience,
    Check::Expiry,
    Check::NotBefore,
    Check::Revocation,
];

fn malformed(what: &str) -> Refused {
    Refusal::because(
        Code::AppTokenMalformed,
        format!("The bearer is not a well-formed app token: {what}."),
    )
}

/// Takes a bearer apart.
pub fn decode<'t>(token: &'t str, ladder: &mut Ladder) -> Result<Decoded<'t>, Refused> {
    Decoded::of(token).map_err(|error| {
        let what = match error {
            Malformed::TooLarge => "it is larger than 16 KiB".to_owned(),
            Malformed::Dots(_) => "it has not three parts".to_owned(),
            Malformed::NotBase64(part) => format!("its {part} is not base64url"),
        };
        ladder.fail(Check::Form, what.as_str(), "a compact JWS");
        malformed(&what)
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
    pub fn parse(decoded: &'d Decoded<'d>, ladder: &mut Ladder) -> Result<Self, Refused> {
        let mut object = |bytes, name: &str| {
            Object::parse(bytes).map_err(|_| {
                let what = format!("its {name} is not a JSON object without repeated members");
                ladder.fail(Check::Form, what.as_str(), "two JSON objects");
                malformed(&what)
            })
        };
        let unverified = Self {
            header: object(&decoded.header, "header")?,
            claims: object(&decoded.claims, "payload")?,
            decoded,
        };
        ladder.pass(Check::Form, || ("", "a compact JWS of two JSON objects"));
        Ok(unverified)
    }

    /// The claims, unverified: `iss` tells our tokens from others'.
    pub fn claims(&self) -> &Object<'d> {
        &self.claims
    }

    /// Verifies header and signature with the published keys, then reads the claims.
    pub fn verify(&self, keys: &Published, ladder: &mut Ladder) -> Result<Verified<'_>, Refused> {
        let (Some(alg), Some(kid), Some(typ), 3) = (
            self.header.text("alg"),
            self.header.text("kid"),
            self.header.text("typ"),
            self.header.iter().count(),
        ) else {
            let seen = format!("{} members", self.header.iter().count());
            ladder.fail(Check::Header, seen, "alg, kid and typ, and nothing else");
            return Err(malformed("its header is not one of ours"));
        };
        ladder.pass(Check::Header, || ("", "alg, kid and typ"));
        let Some(key) = keys.verifier(kid) else {
            ladder.fail(
                Check::Key,
                jws::short(kid),
                "the kid of a published key of ours",
            );
            return Err(Refusal::new(Code::AppTokenKeyUnknown));
        };
        ladder.pass(Check::Key, || (kid, "one of our published keys"));
        let algorithm = key.algorithm();
        if Algorithm::from_str(alg).ok() != Some(algorithm) {
            ladder.fail(Check::Algorithm, jws::short(alg), format!("{algorithm:?}"));
            return Err(Refusal::new(Code::AppTokenAlgorithmMismatch));
        }
        ladder.pass(Check::Algorithm, || (alg, format!("{algorithm:?}")));
        if key
            .verify(self.decoded.message, &self.decoded.signature)
            .is_err()
        {
            let expected = "one that verifies with that key";
            ladder.fail(Check::Signature, "another signature", expected);
            return Err(Refusal::new(Code::AppTokenSignatureInvalid));
        }
        ladder.pass(Check::Signature, || ("", "verifies with that key"));
        let claims = Said::read(&self.claims).inspect_err(|refusal| {
            let seen = refusal.cause.as_deref().unwrap_or_default();
            ladder.fail(Check::Claims, seen, "another type");
        })?;
        ladder.pass(Check::Claims, || ("", ""));
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
    /// `jti`.
    pub id: &'c str,
    /// `sub`: the user, as the app names them.
    pub user: &'c str,
    /// `client_id`: the app.
    pub app: &'c str,
    /// `aud`, one or several.
    pub audiences: Vec<&'c str>,
    /// `idp`: the provider, where there is a user.
    pub provider: Option<&'c str>,
    /// `sid`: the provider's session.
    pub session: Option<&'c str>,
    /// `grant_id`: the grant of the refresh tokens that it was given with.
    pub grant: Option<&'c str>,
    /// `org_id`.
    pub organization: Option<&'c str>,
    /// `roles`.
    pub roles: Vec<&'c str>,
    /// `scope`, taken apart (RFC 6749 §3.3).
    pub scopes: Vec<&'c str>,
    /// `cnf.jkt`: the thumbprint of the key that it is bound to (RFC 9449 §6.1).
    pub bound_to: Option<&'c str>,
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
        let texts = |name| match claims.get(name) {
            None => Some(Vec::new()),
            Some(Json::Text(text)) => Some(vec![text.as_ref()]),
            Some(Json::List(list)) => list.iter().map(Json::as_str).collect(),
            Some(_) => None,
        };
        let roles = texts("roles").ok_or_else(|| odd("roles"))?;
        let bound_to = match claims.get("cnf") {
            None => None,
            Some(Json::Object(key)) => Some(key.text("jkt").ok_or_else(|| odd("cnf"))?),
            Some(_) => return Err(odd("cnf")),
        };
        let scopes = optional("scope")?.unwrap_or_default();
        Ok(Self {
            id: text("jti")?,
            user: text("sub")?,
            app: text("client_id")?,
            audiences: texts("aud")
                .filter(|each| !each.is_empty())
                .ok_or_else(|| odd("aud"))?,
            provider: optional("idp")?,
            session: optional("sid")?,
            grant: optional("grant_id")?,
            organization: optional("org_id")?,
            roles,
            scopes: scopes.split(' ').filter(|each| !each.is_empty()).collect(),
            bound_to,
            issued_at: time("iat")?,
            not_before: time("nbf")?,
            expires_at: time("exp")?,
        })
    }
}
