//! A subject token: parsed once, then led up the ladder of checks.
//!
//! Exactly the bytes that were parsed are verified, and exactly that parse is used.

use super::json::{Json, Object};
use super::key_cache::KeyError;
use super::{Issuer, Subject, clerk};
use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Refusal, Seen, Source};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use signature::Verifier;
use std::str::FromStr;

/// The longest subject token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Header members that are never honoured.
const REFUSED_HEADERS: [&str; 8] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"];
/// The deepest chain of actors (RFC 8693 §4.1).
const MAX_ACTORS: usize = 5;
/// The last second of the year 9999: later dates are taken for mistakes.
const MAX_DATE: i64 = 253_402_300_799;
/// The longest `sub` (OpenID Connect Core §2), in bytes.
const MAX_SUB: usize = 255;
/// How much of a claim is shown back to its sender, in bytes.
const MAX_SHOWN: usize = 255;

type Refused = Box<Refusal>;

/// A token taken apart and decoded, not yet read.
pub struct Decoded<'t> {
    message: &'t [u8],
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

fn malformed(ladder: &mut Ladder, what: &str) -> Refused {
    ladder.fail(Check::Form, what, "three base64url parts of JSON");
    Refusal::because(
        Code::SubjectTokenMalformed,
        format!("The subject token is not a well-formed JWT: {what}."),
    )
}

impl<'t> Decoded<'t> {
    /// Takes a compact JWS (RFC 7515 §7.1) apart.
    pub fn read(token: &'t str, ladder: &mut Ladder) -> Result<Self, Refused> {
        if token.len() > MAX_TOKEN {
            ladder.fail(
                Check::Form,
                format!("{} bytes", token.len()),
                "at most 16 KiB",
            );
            return Err(Refusal::new(Code::SubjectTokenTooLarge));
        }
        let parts = token
            .rsplit_once('.')
            .and_then(|(message, signature)| Some((message, message.split_once('.')?, signature)))
            .filter(|(_, (_, claims), _)| !claims.contains('.'));
        let Some((message, (header, claims), signature)) = parts else {
            return Err(match token.matches('.').count() {
                0 => {
                    ladder.fail(Check::Form, "no dots: an opaque token", "a JWT");
                    Refusal::new(Code::SubjectTokenOpaque)
                }
                4 => {
                    ladder.fail(Check::Form, "five parts: a JWE", "a JWS of three parts");
                    Refusal::new(Code::SubjectTokenEncrypted)
                }
                1 => malformed(ladder, "it has two parts"),
                _ => malformed(ladder, "it has too many parts"),
            });
        };
        let mut decode = |part: &str, name: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed(ladder, &format!("its {name} is not base64url")))
        };
        Ok(Self {
            message: message.as_bytes(),
            header: decode(header, "header")?,
            claims: decode(claims, "payload")?,
            signature: decode(signature, "signature")?,
        })
    }
}

/// A parsed token of which nothing is believed yet.
pub struct Unverified<'d> {
    decoded: &'d Decoded<'d>,
    header: Object<'d>,
    claims: Object<'d>,
}

impl<'d> Unverified<'d> {
    /// Reads header and claims, and refuses headers that are never honoured.
    pub fn parse(decoded: &'d Decoded<'d>, ladder: &mut Ladder) -> Result<Self, Refused> {
        let mut object = |bytes, name: &str| {
            Object::parse(bytes).map_err(|_| {
                malformed(
                    ladder,
                    &format!("its {name} is not a JSON object without repeated members"),
                )
            })
        };
        let unverified = Self {
            decoded,
            header: object(&decoded.header, "header")?,
            claims: object(&decoded.claims, "payload")?,
        };
        ladder.pass(Check::Form, || {
            (format!("{} bytes of claims", decoded.claims.len()), "")
        });
        unverified.check_header(ladder)?;
        Ok(unverified)
    }

    fn check_header(&self, ladder: &mut Ladder) -> Result<(), Refused> {
        if let Some(name) = REFUSED_HEADERS
            .into_iter()
            .find(|name| self.header.has(name))
        {
            ladder.fail(
                Check::Header,
                name,
                "none of crit, b64, jwk, jku, x5u, x5c, zip",
            );
            let refusal = Refusal::because(
                Code::SubjectTokenHeaderUnsupported,
                format!("The token's header has `{name}`, which is never honoured."),
            );
            return Err(self.shown(refusal));
        }
        ladder.pass(Check::Header, || ("", ""));
        Ok(())
    }

    /// `iss`, unverified: it chooses whose keys to look at, nothing more.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// The claims, unverified: for `explain` alone.
    pub fn claims(&self) -> &Object<'d> {
        &self.claims
    }

    /// What the caller sent, to be shown back to it.
    pub fn seen(&self) -> Seen {
        let short = |text: &str| {
            let end = text.floor_char_boundary(MAX_SHOWN);
            text.get(..end).unwrap_or_default().to_owned()
        };
        let claim = |name: &str| self.claims.text(name).map(short);
        Seen {
            iss: claim("iss"),
            aud: claim("aud"),
            azp: claim("azp"),
            typ: self.header.text("typ").map(short),
            alg: self.header.text("alg").map(short),
            kid: self.header.text("kid").map(short),
            exp: self.claims.get("exp").and_then(date),
        }
    }

    /// Adds what the caller sent to a refusal.
    pub fn shown(&self, mut refusal: Refused) -> Refused {
        refusal.seen = Some(self.seen());
        refusal
    }

    /// Verifies the token with the issuer's keys and by its rules.
    pub async fn verify<'s>(
        &'s self,
        issuer: &'s Issuer,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Subject<'s>, Refused> {
        self.check_signature(issuer, ladder).await?;
        let read = self.check_claims(issuer, now, ladder)?;
        Ok(read.into_subject(&self.claims, issuer))
    }

    async fn check_signature(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<(), Refused> {
        self.check_type(issuer, ladder)?;
        let algorithm = self.check_algorithm(issuer, ladder)?;
        let kid = match self.header.get("kid") {
            Some(Json::Text(kid)) if kid.len() <= MAX_SHOWN => Some(kid.as_ref()),
            None => None,
            Some(_) => {
                ladder.fail(Check::Key, "kid is no text of at most 255 bytes", "a text");
                return Err(Refusal::because(
                    Code::SubjectTokenMalformed,
                    "The subject token is not a well-formed JWT: its `kid` is no short text.",
                ));
            }
        };
        let key = match issuer.keys.find(kid, algorithm).await {
            Ok(key) => key,
            Err(error) => return Err(key_refusal(error, kid, issuer, ladder)),
        };
        ladder.pass(Check::Key, || {
            (kid.unwrap_or_default(), issuer.keys.describe())
        });
        let signature = &self.decoded.signature;
        if key.verify(self.decoded.message, signature).is_err() {
            ladder.fail(
                Check::Signature,
                format!("{} bytes that do not verify", signature.len()),
                "a signature by the key that kid names",
            );
            return Err(Refusal::new(Code::SubjectTokenSignatureInvalid));
        }
        ladder.pass(Check::Signature, || ("", ""));
        Ok(())
    }

    fn check_type(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<(), Refused> {
        let allowed = &issuer.settings.token_types;
        let fits = match self.header.get("typ") {
            None => true,
            Some(Json::Text(typ)) => {
                // RFC 7515 §4.1.9: a media type, compared without case, `application/` optional.
                let bare = typ
                    .get(..12)
                    .filter(|prefix| prefix.eq_ignore_ascii_case("application/"))
                    .map_or(typ.as_ref(), |_| typ.get(12..).unwrap_or_default());
                allowed.iter().any(|each| each.eq_ignore_ascii_case(bare))
            }
            Some(_) => false,
        };
        let seen = || self.header.get("typ").map(short_json).unwrap_or_default();
        let expected = || format!("{}, or none", allowed.join(", "));
        // A logout token or another security event (RFC 8417 §2.2) may have any `typ`.
        let event = matches!(self.claims.get("events"), Some(Json::Object(_)));
        if !fits || event {
            let seen = if event { "events".to_owned() } else { seen() };
            ladder.fail(Check::Type, seen, expected());
            return Err(Refusal::new(Code::SubjectTokenTypeMismatch));
        }
        ladder.pass(Check::Type, || (seen(), expected()));
        Ok(())
    }

    fn check_algorithm(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<Algorithm, Refused> {
        let seen = || self.header.get("alg").map(short_json).unwrap_or_default();
        let expected = || {
            let names: Vec<String> = issuer
                .settings
                .algorithms
                .iter()
                .map(|algorithm| format!("{algorithm:?}"))
                .collect();
            names.join(", ")
        };
        let allowed = self
            .header
            .text("alg")
            .and_then(|name| Algorithm::from_str(name).ok())
            .filter(|algorithm| issuer.allows(*algorithm));
        match allowed {
            Some(algorithm) => {
                ladder.pass(Check::Algorithm, || (seen(), expected()));
                Ok(algorithm)
            }
            None => {
                ladder.fail(Check::Algorithm, seen(), expected());
                Err(Refusal::new(Code::SubjectTokenAlgorithmNotAllowed))
            }
        }
    }

    fn check_claims<'s>(
        &'s self,
        issuer: &Issuer,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Read<'s>, Refused> {
        let read = Read::from_claims(&self.claims, issuer).map_err(|fault| {
            let (code, name, what) = match fault {
                Fault::Missing(name) => (Code::SubjectTokenClaimMissing, name, "is missing"),
                Fault::Malformed(name) => (
                    Code::SubjectTokenClaimMalformed,
                    name,
                    "has the wrong type or an impossible value",
                ),
            };
            ladder.fail(
                Check::Claims,
                format!("{name} {what}"),
                "sub and exp, and every registered claim of its type",
            );
            Refusal::because(code, format!("The token's `{name}` {what}."))
        })?;
        ladder.pass(Check::Claims, || ("", ""));
        self.check_audience(issuer, ladder)?;
        self.check_authorized_party(issuer, ladder)?;
        read.check_times(issuer, now, ladder)?;
        read.check_session(ladder)?;
        Ok(read)
    }

    fn check_audience(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<(), Refused> {
        let expected = &issuer.settings.audiences;
        let audience = self.claims.get("aud");
        if !expected.is_empty() {
            let listed = |value: &Json<'_>| {
                value
                    .as_str()
                    .is_some_and(|text| expected.iter().any(|each| each == text))
            };
            let (code, seen) = match audience {
                None | Some(Json::Null) => {
                    (Some(Code::SubjectTokenAudienceMissing), "absent".to_owned())
                }
                Some(Json::List(items)) if items.iter().any(listed) => (None, String::new()),
                Some(single) if listed(single) => (None, String::new()),
                Some(other) => (Some(Code::SubjectTokenAudienceMismatch), short_json(other)),
            };
            if let Some(code) = code {
                ladder.fail(Check::Audience, seen, expected.join(", "));
                return Err(Refusal::new(code));
            }
        }
        ladder.pass(Check::Audience, || {
            (
                audience.map(short_json).unwrap_or_default(),
                any_of(expected),
            )
        });
        Ok(())
    }

    fn check_authorized_party(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<(), Refused> {
        let expected = &issuer.settings.authorized_parties;
        let party = self.claims.get("azp");
        if !expected.is_empty() {
            let (code, seen) = match party {
                None | Some(Json::Null) => (
                    Some(Code::SubjectTokenAuthorizedPartyMissing),
                    "absent".to_owned(),
                ),
                Some(Json::Text(party)) if expected.iter().any(|each| each == party) => {
                    (None, String::new())
                }
                Some(other) => (
                    Some(Code::SubjectTokenAuthorizedPartyMismatch),
                    short_json(other),
                ),
            };
            if let Some(code) = code {
                ladder.fail(Check::AuthorizedParty, seen, expected.join(", "));
                return Err(Refusal::new(code));
            }
        }
        ladder.pass(Check::AuthorizedParty, || {
            (party.map(short_json).unwrap_or_default(), any_of(expected))
        });
        Ok(())
    }
}

fn any_of(expected: &[String]) -> String {
    if expected.is_empty() {
        "none configured".to_owned()
    } else {
        expected.join(", ")
    }
}

/// A claim for the ladder: as JSON, cut to a bounded length.
fn short_json(value: &Json<'_>) -> String {
    let text = match value {
        Json::Text(text) => text.to_string(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let end = text.floor_char_boundary(MAX_SHOWN);
    text.get(..end).unwrap_or_default().to_owned()
}

fn key_refusal(
    error: KeyError,
    kid: Option<&str>,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Refused {
    let seen = kid.unwrap_or("no kid");
    ladder.fail(Check::Key, seen, issuer.keys.describe());
    match error {
        KeyError::NoKeyId => Refusal::new(Code::SubjectTokenKeyIdMissing),
        KeyError::Unknown => Refusal::new(Code::SubjectTokenKeyUnknown),
        KeyError::Unusable(reason) => Refusal::new(Code::SubjectTokenKeyUnusable).caused_by(reason),
        KeyError::Unavailable { retry_after, cause } => Refusal::new(Code::IssuerKeysUnavailable)
            .unavailable(Source::UpstreamIdp, retry_after)
            .caused_by(cause),
        KeyError::Metadata { retry_after, cause } => Refusal::new(Code::IssuerMetadataInvalid)
            .unavailable(Source::UpstreamIdp, retry_after)
            .caused_by(cause),
    }
}

enum Fault {
    Missing(&'static str),
    Malformed(&'static str),
}

/// The claims that the service understands, with their types checked.
struct Read<'s> {
    id: &'s str,
    expires_at: UnixSeconds,
    not_before: Option<UnixSeconds>,
    issued_at: Option<UnixSeconds>,
    session_id: Option<&'s str>,
    authenticated_at: Option<UnixSeconds>,
    actor: Option<Value>,
    session: clerk::Session<'s>,
}

/// A `NumericDate` (RFC 7519 §2): a finite number of seconds, whole or not, in range.
fn date(value: &Json<'_>) -> Option<UnixSeconds> {
    let seconds = match (value.as_i64(), value.as_f64()) {
        (Some(whole), _) => whole,
        #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
        (None, Some(fraction)) if (0.0..=253_402_300_799.0).contains(&fraction) => fraction as i64,
        _ => return None,
    };
    (0..=MAX_DATE).contains(&seconds).then_some(seconds)
}

impl<'s> Read<'s> {
    fn from_claims(claims: &'s Object<'s>, issuer: &Issuer) -> Result<Self, Fault> {
        let optional_date = |name| match claims.get(name) {
            None => Ok(None),
            Some(value) => date(value).map(Some).ok_or(Fault::Malformed(name)),
        };
        let id = match claims.get("sub") {
            None => return Err(Fault::Missing("sub")),
            Some(Json::Text(id))
                if !id.is_empty() && id.len() <= MAX_SUB && !id.chars().any(char::is_control) =>
            {
                id.as_ref()
            }
            Some(_) => return Err(Fault::Malformed("sub")),
        };
        let expires_at = optional_date("exp")?.ok_or(Fault::Missing("exp"))?;
        let issued_at = optional_date("iat")?;
        let session_id = match claims.get("sid") {
            None | Some(Json::Null) => None,
            Some(Json::Text(sid)) if sid.len() <= MAX_SUB => Some(sid.as_ref()),
            Some(_) => return Err(Fault::Malformed("sid")),
        };
        let actor = match claims.get("act") {
            None | Some(Json::Null) => None,
            Some(actor) => Some(actor_chain(actor).ok_or(Fault::Malformed("act"))?),
        };
        let session = if issuer.is_clerk() {
            clerk::session(claims).map_err(Fault::Malformed)?
        } else {
            clerk::Session::default()
        };
        let authenticated_at = match (optional_date("auth_time")?, session.first_factor_age) {
            (Some(time), _) => Some(time),
            (None, Some(minutes)) => issued_at.map(|time| (time - minutes * 60).max(0)),
            (None, None) => None,
        };
        Ok(Self {
            id,
            expires_at,
            not_before: optional_date("nbf")?,
            issued_at,
            session_id,
            authenticated_at,
            actor,
            session,
        })
    }

    fn check_times(
        &self,
        issuer: &Issuer,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<(), Refused> {
        let skew = issuer.settings.clock_skew;
        let past = now - self.expires_at;
        if past >= skew {
            ladder.fail(
                Check::Expiry,
                format!("exp {}: {past} s ago", self.expires_at),
                format!("later than now ({now}), {skew} s tolerated"),
            );
            return Err(Refusal::because(
                Code::SubjectTokenExpired,
                format!("The subject token expired {past} s ago."),
            ));
        }
        ladder.pass(Check::Expiry, || {
            (
                format!("exp {}: in {} s", self.expires_at, -past),
                format!("later than now ({now})"),
            )
        });
        for (check, code, claim, time, word) in [
            (
                Check::NotBefore,
                Code::SubjectTokenNotYetValid,
                "nbf",
                self.not_before,
                "is not valid before",
            ),
            (
                Check::IssuedAt,
                Code::SubjectTokenIssuedInFuture,
                "iat",
                self.issued_at,
                "was issued",
            ),
        ] {
            let ahead = time.map_or(0, |time| time - now);
            if ahead > skew {
                ladder.fail(
                    check,
                    format!("{claim}: in {ahead} s"),
                    format!("at most {skew} s after now ({now})"),
                );
                let mut refusal = Refusal::because(
                    code,
                    format!(
                        "The subject token {word} {ahead} s from now: the issuer's clock and this service's differ."
                    ),
                );
                refusal.retry_after = u64::try_from(ahead - skew).ok();
                return Err(refusal);
            }
            if check == Check::NotBefore {
                ladder.pass(check, || (shown_date(claim, time), "not after now"));
            }
        }
        let lifetime = self.expires_at - self.issued_at.unwrap_or(now);
        let most = issuer.settings.max_lifetime;
        if lifetime > most {
            ladder.fail(
                Check::IssuedAt,
                format!("a lifetime of {lifetime} s"),
                format!("at most {most} s"),
            );
            return Err(Refusal::new(Code::SubjectTokenLifetimeExcessive));
        }
        ladder.pass(Check::IssuedAt, || {
            (
                shown_date("iat", self.issued_at),
                format!("not after now, at most {most} s before exp"),
            )
        });
        Ok(())
    }

    fn check_session(&self, ladder: &mut Ladder) -> Result<(), Refused> {
        let status = self.session.status;
        match status {
            None | Some("active") => {
                ladder.pass(Check::Session, || (status.unwrap_or_default(), "active"));
                Ok(())
            }
            Some("pending") => {
                ladder.fail(Check::Session, "sts pending", "active");
                Err(Refusal::new(Code::SessionPending))
            }
            Some(_) => {
                ladder.fail(Check::Session, "an unknown sts", "active");
                Err(Refusal::because(
                    Code::SubjectTokenClaimMalformed,
                    "The token's `sts` has the wrong type or an impossible value.",
                ))
            }
        }
    }

    fn into_subject(self, claims: &'s Object<'s>, issuer: &'s Issuer) -> Subject<'s> {
        Subject {
            issuer: &issuer.settings.issuer,
            id: self.id,
            session_id: self.session_id,
            organization: self.session.organization,
            plans: self.session.plans,
            features: self.session.features,
            actor: self.actor,
            authenticated_at: self.authenticated_at,
            expires_at: self.expires_at,
            claims,
        }
    }
}

fn shown_date(claim: &str, time: Option<UnixSeconds>) -> String {
    time.map_or_else(
        || format!("{claim} absent"),
        |time| format!("{claim} {time}"),
    )
}

/// The chain of actors, rebuilt from what RFC 8693 §4.1 and Clerk put there; `None` where
/// it is malformed or too deep.
fn actor_chain(actor: &Json<'_>) -> Option<Value> {
    let mut levels = Vec::new();
    let mut next = Some(actor);
    while let Some(level) = next {
        let Json::Object(members) = level else {
            return None;
        };
        if levels.len() == MAX_ACTORS || members.text("sub").is_none() {
            return None;
        }
        let mut kept = Map::new();
        for name in ["sub", "iss", "sid", "type", "client_id"] {
            match members.get(name) {
                None | Some(Json::Null) => {}
                Some(Json::Text(text)) if text.len() <= MAX_SUB => {
                    kept.insert(name.to_owned(), Value::String(text.to_string()));
                }
                Some(_) => return None,
            }
        }
        levels.push(kept);
        next = members.get("act").filter(|inner| **inner != Json::Null);
    }
    let mut chain: Option<Value> = None;
    for mut level in levels.into_iter().rev() {
        if let Some(inner) = chain {
            level.insert("act".to_owned(), inner);
        }
        chain = Some(Value::Object(level));
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(token: &str) {
        let mut ladder = Ladder::default();
        let refused = |refusal: Refused| {
            assert!(matches!(refusal.code.entry().status, 400 | 401));
        };
        let decoded = match Decoded::read(token, &mut ladder) {
            Ok(decoded) => decoded,
            Err(refusal) => return refused(refusal),
        };
        let message = token
            .rsplit_once('.')
            .map(|(message, _)| message.as_bytes());
        assert_eq!(Some(decoded.message), message);
        match Unverified::parse(&decoded, &mut ladder) {
            Ok(unverified) => {
                let _ = unverified.shown(Refusal::new(Code::SubjectTokenExpired));
            }
            Err(refusal) => refused(refusal),
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(token in any::<String>()) {
            parse(&token);
        }

        #[test]
        fn any_parts_are_parsed_without_a_panic(
            parts in proptest::collection::vec("[A-Za-z0-9_=+/-]{0,40}", 0..7),
        ) {
            parse(&parts.join("."));
        }

        #[test]
        fn any_members_are_parsed_without_a_panic(
            header in r#"\{("(alg|kid|typ|crit)":("\PC{0,300}"|-?[0-9]{1,400}|null|\[\]),?){0,4}\}"#,
            claims in r#"\{("(iss|aud|exp|azp)":("\PC{0,300}"|-?[0-9]{1,40}(e[0-9]{1,4})?|null|\[\]),?){0,4}\}"#,
            signature in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let parts = [header.as_bytes(), claims.as_bytes(), &signature];
            parse(&parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join("."));
        }
    }
}
