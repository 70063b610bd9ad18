//! A subject token: parsed once, then led up the ladder of checks.
//!
//! Exactly the bytes that were parsed are verified, and exactly that parse is used.

use super::claims::{self, MAX_SHOWN, Origin, short_json};
use super::json::{Json, Object};
use super::jws::{self, Decoded, Malformed};
use super::key_cache::KeyError;
use super::opaque::not_accepted;
use super::{Issuer, Subject};
use crate::clock::UnixSeconds;
use crate::config::TokenKind;
use crate::explain::{Check, Code, Ladder, Refusal};
use jsonwebtoken::Algorithm;
use signature::Verifier;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Header members that are never honoured.
pub const REFUSED_HEADERS: [&str; 8] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"];

type Refused = Box<Refusal>;

/// Clerk's categories of tokens that one instance key signs (header `cat`): machine tokens,
/// and one that says nothing.
const MACHINE: &str = "cl_B7d4PD333AAA";
const UNCATEGORISED: &str = "cl_I7d4PD111III";

/// RFC 9068 §2.1, with or without `application/`.
fn is_access_token(typ: &str) -> bool {
    ["at+jwt", "application/at+jwt"]
        .iter()
        .any(|each| each.eq_ignore_ascii_case(typ))
}

fn malformed(ladder: &mut Ladder, what: &str) -> Refused {
    ladder.fail(Check::Form, what, "three base64url parts of JSON");
    Refusal::because(
        Code::SubjectTokenMalformed,
        format!("The subject token is not a well-formed JWT: {what}."),
    )
}

/// Takes a subject token apart, or says what it is instead of a JWT.
pub fn decode<'t>(token: &'t str, ladder: &mut Ladder) -> Result<Decoded<'t>, Refused> {
    Decoded::of(token).map_err(|error| match error {
        Malformed::TooLarge => {
            let seen = format!("{} bytes", token.len());
            ladder.fail(Check::Form, seen, "at most 16 KiB");
            Refusal::new(Code::SubjectTokenTooLarge)
        }
        Malformed::Dots(0) => {
            ladder.fail(Check::Form, "no dots: an opaque token", "a JWT");
            Refusal::new(Code::SubjectTokenOpaque)
        }
        Malformed::Dots(4) => {
            ladder.fail(Check::Form, "five parts: a JWE", "a JWS of three parts");
            Refusal::new(Code::SubjectTokenEncrypted)
        }
        Malformed::Dots(1) => malformed(ladder, "it has two parts"),
        Malformed::Dots(_) => malformed(ladder, "it has too many parts"),
        Malformed::NotBase64(part) => malformed(ladder, &format!("its {part} is not base64url")),
    })
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
            let expected = format!("none of {}", REFUSED_HEADERS.join(", "));
            ladder.fail(Check::Header, name, expected);
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

    /// Adds what the caller sent to a refusal.
    pub fn shown(&self, mut refusal: Refused) -> Refused {
        refusal.seen = Some(jws::seen(&self.header, &self.claims));
        refusal
    }

    /// Verifies the token with the issuer's keys and by its rules.
    pub async fn verify<'s>(
        &'s self,
        issuer: &'s Issuer,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Subject<'s>, Refused> {
        let kind = self.check_kind(issuer, ladder)?;
        self.check_signature(issuer, ladder).await?;
        claims::judge(&self.claims, issuer, Origin::Signed(kind), now, ladder)
    }

    /// Verifies the ID token of somebody who just signed in (OpenID Connect Core §3.1.3.7):
    /// the issuer made it for this client of ours there, in answer to this `nonce`.
    pub async fn verify_id_token<'s>(
        &'s self,
        issuer: &'s Issuer,
        (client_id, nonce): (&str, &str),
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Subject<'s>, Refused> {
        let expected = &issuer.settings.issuer;
        if self.issuer() != Some(expected) {
            let seen = self.claims.get("iss").map(short_json).unwrap_or_default();
            ladder.fail(Check::Issuer, seen, expected.as_str());
            return Err(Refusal::new(Code::SubjectTokenIssuerUntrusted));
        }
        ladder.pass(Check::Issuer, || (expected.as_str(), ""));
        if self.check_kind(issuer, ladder)? != TokenKind::Session {
            ladder.fail(Check::Type, "another token", "an ID token");
            return Err(Refusal::new(Code::SubjectTokenTypeMismatch));
        }
        self.check_signature(issuer, ladder).await?;
        self.check_client(client_id, ladder)?;
        let said = self.claims.text("nonce").unwrap_or_default();
        if !bool::from(said.as_bytes().ct_eq(nonce.as_bytes())) {
            ladder.fail(Check::Claims, "another nonce", "the one of this sign-in");
            return Err(Refusal::new(Code::IdTokenNonceMismatch));
        }
        claims::judge(&self.claims, issuer, Origin::SignedIn, now, ladder)
    }

    /// That the token is meant for this client, and was asked for by it.
    fn check_client(&self, client_id: &str, ladder: &mut Ladder) -> Result<(), Refused> {
        let is_client = |value: &Json<'_>| value.as_str() == Some(client_id);
        let (meant, several) = match self.claims.get("aud") {
            Some(Json::List(list)) => (list.iter().any(is_client), list.len() > 1),
            other => (other.is_some_and(is_client), false),
        };
        if !meant {
            let seen = self.claims.get("aud").map(short_json).unwrap_or_default();
            ladder.fail(Check::Audience, seen, client_id);
            return Err(Refusal::new(Code::SubjectTokenAudienceMismatch));
        }
        let party = self.claims.get("azp").filter(|party| **party != Json::Null);
        if !party.map_or(!several, is_client) {
            let seen = party.map(short_json).unwrap_or_default();
            ladder.fail(Check::AuthorizedParty, seen, client_id);
            return Err(Refusal::new(Code::SubjectTokenAuthorizedPartyMismatch));
        }
        Ok(())
    }

    /// What kind of credential the token is, and that the issuer takes it. A kind is told by
    /// what is signed with the rest: `typ` (RFC 9068 §2.1), and Clerk's `cat` and `sub`.
    fn check_kind(&self, issuer: &Issuer, ladder: &mut Ladder) -> Result<TokenKind, Refused> {
        if !issuer.is_clerk() {
            return Ok(TokenKind::Session);
        }
        let access_token = self.header.text("typ").is_some_and(is_access_token);
        let category = self.header.get("cat").map(|cat| cat.as_str().unwrap_or(""));
        let subject = self.claims.text("sub").unwrap_or_default();
        let of_machine = subject.starts_with("mch_");
        let kind = match category {
            Some(MACHINE) => TokenKind::Machine,
            _ if of_machine => TokenKind::Machine,
            _ if access_token => TokenKind::OAuth,
            _ => TokenKind::Session,
        };
        let agrees = match (kind, category) {
            (TokenKind::Machine, None | Some(MACHINE | UNCATEGORISED)) => {
                of_machine && !access_token
            }
            (TokenKind::Machine, Some(_)) => false,
            _ => true,
        };
        if !agrees {
            let seen = format!("cat {}", category.unwrap_or("absent"));
            ladder.fail(Check::Type, seen, "one kind of token");
            return Err(Refusal::new(Code::SubjectTokenTypeMismatch));
        }
        if !issuer.accepts(kind) {
            ladder.fail(Check::Type, kind.name(), issuer.accepted());
            return Err(not_accepted(kind));
        }
        Ok(kind)
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
}

fn key_refusal(
    error: KeyError,
    kid: Option<&str>,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Refused {
    let seen = kid.unwrap_or("no kid");
    ladder.fail(Check::Key, seen, issuer.keys.describe());
    error.refusal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    fn parse(token: &str) {
        let mut ladder = Ladder::default();
        let refused = |refusal: Refused| {
            assert!(matches!(refusal.code.entry().status, 400 | 401));
        };
        let decoded = match decode(token, &mut ladder) {
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
