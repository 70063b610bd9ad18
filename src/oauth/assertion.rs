//! Client assertions (RFC 7523 §3), and the JWT that some clients send in the place of their
//! secret: taken apart once, strictly, and judged check by check.
//!
//! What an assertion says can be seen by whoever sent it, so what is wrong with it is told.
//! Whether its client is known, may authenticate so and signed it is one question with one
//! answer; the log and `exchequer explain` tell these apart. `explain` makes the same checks.

use super::clients::Client;
use super::nobody::Nobody;
use crate::clock::UnixSeconds;
use crate::config::{AuthMethod, ClientSettings};
use crate::crypto::{algorithm, verify_mac};
use crate::explain::{Code, Refusal};
use crate::store::{Key, Kind, Once};
use crate::subject::date;
use crate::subject::json::{Json, Object};
use crate::subject::jws::{self, Decoded, Malformed};
use crate::subject::jwt::REFUSED_HEADERS;
use crate::subject::key_cache::KeyError;
use jsonwebtoken::Algorithm;
use secrecy::ExposeSecret;
use signature::Verifier;

/// `client_assertion_type` (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How far a client's clock may be from ours, seconds.
const SKEW: UnixSeconds = 10;
/// How far ahead an assertion may expire, seconds: as far as the libraries that people use
/// make it (Authlib: an hour). What was used is remembered as long.
const LIFETIME: UnixSeconds = 3600;
/// The longest `jti`, in bytes.
const MAX_ID: usize = 255;
/// As much of an unknown `alg` as is told, in characters.
const MAX_ALG: usize = 32;
/// What `typ` may be; none passes too (draft-ietf-oauth-rfc7523bis wants the second).
const TYPES: [&str; 2] = ["JWT", "client-authentication+jwt"];

/// Where a JWT stood, and so what it must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In `client_assertion`: an assertion.
    Assertion,
    /// In `client_secret`: `client_id` and `exp` are enough.
    InSecret,
}

/// What is wrong, under a code of its own: for the log and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The code; one without a status is not told to strangers.
    pub code: Code,
    /// What was found.
    pub told: String,
}

impl Fault {
    pub(super) fn new(code: Code, told: impl Into<String>) -> Self {
        let told = told.into();
        Self { code, told }
    }

    /// What the client is told: its own mistakes, and of all else one thing.
    pub(super) fn refusal(self) -> Box<Refusal> {
        let Self { code, told } = self;
        let entry = code.entry();
        let cause = format!("{}: {told}", entry.slug);
        let refusal = match entry.status {
            0 => Refusal::new(Code::ClientAuthenticationFailed),
            _ => {
                let sentence = entry.sentence.trim_end_matches('.');
                Refusal::because(code, format!("{sentence}: {told}."))
            }
        };
        refusal.caused_by(cause)
    }
}

/// One check and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is checked.
    pub check: &'static str,
    /// What was found.
    pub result: Result<String, Fault>,
}

/// What an assertion is judged by.
pub(super) struct Rules<'r> {
    /// Who we are: our issuer identifier, and the URL of the token endpoint.
    pub(super) audiences: &'r [String],
    /// The time.
    pub(super) now: UnixSeconds,
}

/// A JWT by which a client means to prove itself, unverified.
pub struct Assertion<'d> {
    decoded: &'d Decoded<'d>,
    header: Object<'d>,
    claims: Object<'d>,
    form: Form,
}

fn malformed(told: impl Into<String>) -> Fault {
    Fault::new(Code::ClientAssertionMalformed, told)
}

/// Takes an assertion apart.
pub fn decode(token: &str) -> Result<Decoded<'_>, Fault> {
    Decoded::of(token).map_err(|error| match error {
        Malformed::TooLarge => malformed("it is larger than 16 KiB"),
        Malformed::Dots(_) => malformed("it has not three parts"),
        Malformed::NotBase64(part) => malformed(format!("its {part} is not base64url")),
    })
}

impl<'d> Assertion<'d> {
    /// Reads header and claims, and whom it names.
    pub fn parse(decoded: &'d Decoded<'d>, form: Form) -> Result<Self, Fault> {
        let object = |bytes, name: &str| {
            Object::parse(bytes).map_err(|_| {
                malformed(format!(
                    "its {name} is not a JSON object without repeated members"
                ))
            })
        };
        let assertion = Self {
            header: object(&decoded.header, "header")?,
            claims: object(&decoded.claims, "payload")?,
            decoded,
            form,
        };
        assertion.check_header()?;
        assertion.check_names()?;
        Ok(assertion)
    }

    fn check_header(&self) -> Result<(), Fault> {
        let header = &self.header;
        if let Some(name) = REFUSED_HEADERS.into_iter().find(|name| header.has(name)) {
            let told = format!("its header has `{name}`, which is never honoured");
            return Err(malformed(told));
        }
        let known = |typ: &str| TYPES.iter().any(|each| each.eq_ignore_ascii_case(typ));
        if header.has("typ") && !header.text("typ").is_some_and(known) {
            return Err(malformed(format!(
                "its `typ` is none of {}",
                TYPES.join(", ")
            )));
        }
        if header.text("alg").is_none() {
            return Err(malformed("its header has no `alg`"));
        }
        Ok(())
    }

    /// RFC 7523 §3: `iss` and `sub` are the client both.
    fn check_names(&self) -> Result<(), Fault> {
        let named = |name| match self.claims.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) if !text.is_empty() => Ok(Some(text.as_ref())),
            Some(_) => Err(malformed(format!("its `{name}` is no text"))),
        };
        let (iss, sub, id) = (named("iss")?, named("sub")?, named("client_id")?);
        match self.form {
            Form::Assertion if iss.is_none() || sub.is_none() => {
                return Err(malformed("it has no `iss` or no `sub`: the client is both"));
            }
            Form::InSecret if id.is_none() => {
                return Err(malformed("it has no `client_id`"));
            }
            _ => {}
        }
        let client = Some(self.client());
        if [iss, sub, id]
            .into_iter()
            .flatten()
            .any(|each| Some(each) != client)
        {
            return Err(malformed("its `iss`, `sub` and `client_id` differ"));
        }
        Ok(())
    }

    /// The client that it names, unverified.
    pub fn client(&self) -> &str {
        let name = match self.form {
            Form::Assertion => "sub",
            Form::InSecret => "client_id",
        };
        self.claims.text(name).unwrap_or_default()
    }

    /// Where it stood.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Whether it has a name that only an assertion needs.
    pub(super) fn names_itself(&self) -> bool {
        self.claims.has("iss") || self.claims.has("sub")
    }

    /// Adds what the client sent to a refusal.
    pub(super) fn shown(&self, mut refusal: Box<Refusal>) -> Box<Refusal> {
        refusal.seen = Some(jws::seen(&self.header, &self.claims));
        refusal
    }

    /// The checks of what it says, in their order.
    pub(super) fn said(&self, rules: &Rules<'_>) -> [Step; 4] {
        let step = |check, result| Step { check, result };
        [
            step("audience", self.check_audience(rules)),
            step("expiry", self.check_expiry(rules)),
            step("issued_at", self.check_times(rules)),
            step("jti", self.check_id()),
        ]
    }

    /// One audience, byte for byte. Of a list each must be ours: an assertion that another
    /// server takes too could be sent here by that server (RFC 7523 §3, and the attack that
    /// draft-ietf-oauth-rfc7523bis was written for).
    fn check_audience(&self, rules: &Rules<'_>) -> Result<String, Fault> {
        let ours = |value: &Json<'_>| {
            let text = value.as_str();
            text.is_some_and(|text| rules.audiences.iter().any(|each| each == text))
        };
        let mismatch = |told: String| Err(Fault::new(Code::ClientAssertionAudienceMismatch, told));
        match self.claims.get("aud") {
            None if self.form == Form::InSecret => Ok("absent".to_owned()),
            None => mismatch("it has no `aud`".to_owned()),
            Some(Json::List(all)) if !all.is_empty() && all.iter().all(ours) => {
                Ok("each is this server".to_owned())
            }
            Some(Json::List(_)) => mismatch("not each `aud` of its list is this server".to_owned()),
            Some(one) if ours(one) => Ok(format!("{:?}", one.as_str().unwrap_or_default())),
            Some(_) => mismatch("`aud` is another".to_owned()),
        }
    }

    fn date(&self, name: &str) -> Result<Option<UnixSeconds>, Fault> {
        let value = self.claims.get(name);
        let read = |value| date(value).ok_or_else(|| malformed(format!("its `{name}` is no date")));
        value.map(read).transpose()
    }

    fn check_expiry(&self, rules: &Rules<'_>) -> Result<String, Fault> {
        let exp = self.date("exp")?;
        let exp = exp.ok_or_else(|| malformed("it has no `exp`"))?;
        let ahead = exp.saturating_sub(rules.now);
        if ahead <= -SKEW {
            let told = format!("exp {exp} was {} ago", ago(-ahead));
            return Err(Fault::new(Code::ClientAssertionExpired, told));
        }
        if ahead > LIFETIME + SKEW {
            let told = format!("exp {exp} is in {ahead} s, and {LIFETIME} s is the most");
            return Err(Fault::new(Code::ClientAssertionTooLong, told));
        }
        Ok(format!("exp {exp}: in {ahead} s"))
    }

    fn check_times(&self, rules: &Rules<'_>) -> Result<String, Fault> {
        for name in ["nbf", "iat"] {
            let Some(time) = self.date(name)? else {
                continue;
            };
            let ahead = time.saturating_sub(rules.now);
            if ahead > SKEW {
                let told = format!("{name} {time} is in {ahead} s");
                return Err(Fault::new(Code::ClientAssertionNotYetValid, told));
            }
        }
        Ok("`nbf` and `iat` are past, or absent".to_owned())
    }

    fn check_id(&self) -> Result<String, Fault> {
        match self.claims.get("jti") {
            None if self.form == Form::InSecret => Ok("absent".to_owned()),
            None => Err(Fault::new(
                Code::ClientAssertionIdMissing,
                "it has no `jti`",
            )),
            Some(Json::Text(id)) if (1..=MAX_ID).contains(&id.len()) => Ok("it has one".to_owned()),
            Some(_) => Err(malformed(format!(
                "its `jti` is no text of 1 to {MAX_ID} bytes"
            ))),
        }
    }

    /// How this client's use of it is remembered, where it has a `jti`.
    pub(super) fn once(&self, client: &str) -> Option<Once> {
        let date = |name| self.claims.get(name).and_then(date);
        let until = date("exp")?;
        // Before any of these it would have been refused.
        let earliest = [
            Some(until.saturating_sub(LIFETIME)),
            date("nbf"),
            date("iat"),
        ];
        let earliest = earliest.into_iter().flatten().max();
        Some(Once {
            key: Key::of(Kind::AssertionUsed, &[client, self.claims.text("jti")?]),
            until: until.saturating_add(SKEW),
            since: earliest.map(|earliest| earliest.saturating_sub(SKEW)),
        })
    }

    /// Whether the client that it names signed it, and may authenticate so. What a stranger's
    /// assertion costs is spent on one of nobody's too.
    pub(super) async fn check_proof(
        &self,
        client: Option<&Client>,
        nobody: &Nobody,
    ) -> Result<String, Fault> {
        let (message, signature) = (self.decoded.message, &self.decoded.signature);
        let alg = self.header.text("alg").unwrap_or_default();
        let named = algorithm(alg);
        let wanted: &[AuthMethod] = match self.form {
            Form::Assertion => &[AuthMethod::ClientSecretJwt, AuthMethod::PrivateKeyJwt],
            Form::InSecret => &[AuthMethod::ClientSecretAsJwt],
        };
        let fault = match client.map(|client| &client.settings) {
            None => Some(Fault::new(
                Code::ClientUnknown,
                "no client of this id is registered",
            )),
            Some(settings) if !wanted.contains(&settings.method) => {
                let told = format!("it authenticates by {}", settings.method.name());
                Some(Fault::new(Code::ClientAuthMethodMismatch, told))
            }
            Some(settings) => not_allowed(settings, named, alg),
        };
        let (Some(client), Some(algorithm), None) = (client, named, &fault) else {
            nobody.verify(named, message, signature);
            let unknown = || Fault::new(Code::ClientUnknown, "no client of this id is registered");
            return Err(fault.unwrap_or_else(unknown));
        };
        let invalid = |told: String| Fault::new(Code::ClientAssertionSignatureInvalid, told);
        if let Some(secret) = &client.settings.secret {
            let secret = secret.expose_secret().as_bytes();
            if verify_mac(algorithm, secret, message, signature) {
                return Ok(format!("{alg}: verifies with the secret as text"));
            }
            return Err(invalid(format!("{alg}: does not verify with the secret")));
        }
        let kid = match self.header.get("kid") {
            None => None,
            Some(Json::Text(kid)) if kid.len() <= MAX_ID => Some(kid.as_ref()),
            Some(_) => {
                let told = "its `kid` is no short text";
                return Err(Fault::new(Code::ClientAssertionKeyUnknown, told));
            }
        };
        let key = match client.key(kid, algorithm).await {
            Ok(key) => key,
            Err(error) => {
                nobody.verify(named, message, signature);
                return Err(key_fault(error, kid));
            }
        };
        match key.verify(message, signature) {
            Ok(()) => Ok(format!("{alg}: verifies with the client's key")),
            Err(_) => Err(invalid(format!(
                "{alg}: does not verify with the client's key"
            ))),
        }
    }

    /// In which other reading of the secret it verifies: most who sign with the wrong bytes
    /// have decoded them.
    pub fn other_reading(&self, secret: &str) -> Option<&'static str> {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let alg = self.header.text("alg").unwrap_or_default();
        let algorithm = algorithm(alg)?;
        let (message, signature) = (self.decoded.message, &self.decoded.signature);
        let verifies = |key: &[u8]| verify_mac(algorithm, key, message, signature);
        let readings = [
            ("hex", from_hex(secret)),
            ("base64", STANDARD.decode(secret).ok()),
        ];
        let found = readings
            .into_iter()
            .find(|(_, key)| key.as_deref().is_some_and(verifies));
        found.map(|(name, _)| name)
    }
}

/// The algorithm is the client's to choose, never the assertion's.
fn not_allowed(settings: &ClientSettings, named: Option<Algorithm>, alg: &str) -> Option<Fault> {
    if named.is_some_and(|named| settings.algorithms.contains(&named)) {
        return None;
    }
    let names: Vec<String> = settings
        .algorithms
        .iter()
        .map(|each| format!("{each:?}"))
        .collect();
    let alg: String = alg.chars().take(MAX_ALG).collect();
    let told = format!(
        "alg is {alg:?}, and the client signs with {}",
        names.join(", ")
    );
    Some(Fault::new(Code::ClientAssertionAlgorithmMismatch, told))
}

fn key_fault(error: KeyError, kid: Option<&str>) -> Fault {
    let unknown = |told| Fault::new(Code::ClientAssertionKeyUnknown, told);
    match error {
        KeyError::NoKeyId => unknown("it names no `kid`, and the client has a set".to_owned()),
        KeyError::Unknown => unknown(format!("the client has no key {kid:?}")),
        KeyError::Unusable(why) => unknown(format!("the key {kid:?} is not used: {why}")),
        KeyError::Unavailable { cause, .. } | KeyError::Metadata { cause, .. } => {
            Fault::new(Code::ClientKeysUnavailable, cause)
        }
    }
}

fn ago(seconds: UnixSeconds) -> String {
    match seconds / 86_400 {
        0 => format!("{seconds} s"),
        days => format!("{days} days"),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    const NOW: UnixSeconds = 1_700_000_000;

    /// Every step of it, as far as it can be read.
    fn judge(token: &str) {
        let Ok(decoded) = decode(token) else { return };
        for form in [Form::Assertion, Form::InSecret] {
            let Ok(assertion) = Assertion::parse(&decoded, form) else {
                continue;
            };
            let audiences = ["https://a.example".to_owned()];
            let rules = Rules {
                audiences: &audiences,
                now: NOW,
            };
            for step in assertion.said(&rules) {
                let _ = step
                    .result
                    .map_err(|fault| assertion.shown(fault.refusal()));
            }
            let _ = (assertion.once("a"), assertion.other_reading("00ff"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(token in any::<String>()) {
            judge(&token);
        }

        #[test]
        fn any_members_are_judged_without_a_panic(
            header in r#"\{"alg":("HS256"|"Ed25519"|"\PC{0,300}")(,"(typ|kid)":("JWT"|"\PC{0,300}"|-?[0-9]{1,30}))?\}"#,
            claims in r#"\{"client_id":"a","iss":"a","sub":"a"(,"aud":("\PC{0,30}"|\[\]|null))?(,"exp":-?[0-9]{1,25}(e[0-9]{1,3})?)?(,"(nbf|iat|jti)":(-?[0-9]{1,25}|"\PC{0,300}"|null))?\}"#,
            signature in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let parts = [header.as_bytes(), claims.as_bytes(), &signature];
            judge(&parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join("."));
        }
    }

    #[test]
    fn hex_is_read_strictly() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        for text in ["", "0", "0g", "+1", "ä"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
