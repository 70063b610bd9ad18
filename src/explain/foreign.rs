//! What others write: error answers of other servers, and client assertions, told apart and
//! explained.

use super::catalogue::Code;
use crate::clock::UnixSeconds;
use crate::crypto::MacKey;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// A copied error answer, and whose it is.
#[derive(Debug, PartialEq)]
pub enum ErrorAnswer {
    /// One of ours: it has a code.
    Ours(Code),
    /// The provider's OAuth server does not know the client.
    UpstreamClientUnknown,
    /// Somebody's bare `invalid_client`.
    BareInvalidClient,
    /// Something else that another server wrote.
    Unknown(String),
}

/// The wording of Ory Hydra, which Clerk's OAuth server uses.
const HYDRA_UNKNOWN_CLIENT: &str = "The requested OAuth 2.0 Client does not exist";

/// Recognises a copied error answer: JSON, or the text of an error page or redirect.
pub fn error_answer(text: &str) -> Option<ErrorAnswer> {
    let json: Option<Value> = serde_json::from_str(text).ok();
    if let Some(answer) = json.as_ref().and_then(Value::as_object) {
        let member = |name: &str| answer.get(name).and_then(Value::as_str);
        if let Some(code) = member("code").and_then(Code::from_slug) {
            return Some(ErrorAnswer::Ours(code));
        }
        let error = member("error")?;
        let description = member("error_description").unwrap_or_default();
        return Some(match error {
            _ if description.contains(HYDRA_UNKNOWN_CLIENT) => ErrorAnswer::UpstreamClientUnknown,
            "invalid_client" => ErrorAnswer::BareInvalidClient,
            other => ErrorAnswer::Unknown(other.to_owned()),
        });
    }
    // In a redirect the spaces are `+` or `%20`.
    let plain = text.replace('+', " ").replace("%20", " ");
    if plain.contains(HYDRA_UNKNOWN_CLIENT) {
        return Some(ErrorAnswer::UpstreamClientUnknown);
    }
    plain
        .contains("invalid_client")
        .then_some(ErrorAnswer::BareInvalidClient)
}

/// A client assertion (RFC 7523 §3) or a JWT in the place of a client secret, unverified.
pub struct Assertion<'t> {
    message: &'t str,
    signature: Vec<u8>,
    alg: String,
    claims: Value,
}

/// One check of a client assertion.
#[derive(Debug, PartialEq)]
pub struct AssertionCheck {
    /// What is checked.
    pub name: &'static str,
    /// Passed, failed with a code, or only worth knowing.
    pub result: Result<(), Option<Code>>,
    /// What was found.
    pub told: String,
}

impl<'t> Assertion<'t> {
    /// Recognises a client assertion: it names its client as issuer and subject both, or as
    /// `client_id` without a subject, or is signed with HMAC and says of no user that another
    /// issued it.
    pub fn recognise(token: &'t str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode =
            |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let (header, claims) = (decode(header)?, decode(claims)?);
        let alg = header.get("alg")?.as_str()?.to_owned();
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let (issuer, subject, client) = (text("iss"), text("sub"), text("client_id"));
        let self_issued = issuer.is_some() && issuer == subject;
        let named = client.is_some() && subject.is_none();
        let of_a_user = issuer.is_some()
            && subject.is_some()
            && issuer != subject
            && client.is_none_or(|_| client != issuer && client != subject);
        let shared_secret = alg.starts_with("HS") && !of_a_user;
        (shared_secret || self_issued || named).then(|| Self {
            message,
            signature: URL_SAFE_NO_PAD.decode(signature).unwrap_or_default(),
            alg,
            claims,
        })
    }

    /// The client that it names.
    pub fn client_id(&self) -> Option<&str> {
        ["client_id", "sub", "iss"]
            .iter()
            .find_map(|name| self.claims.get(*name).and_then(Value::as_str))
    }

    /// Checks it as far as can be: `registered` and `secret` are the client's, where known.
    pub fn checks(
        &self,
        registered: bool,
        secret: Option<&[u8]>,
        now: UnixSeconds,
    ) -> Vec<AssertionCheck> {
        let told = match self.client_id() {
            None => "no client is named by client_id, sub or iss".to_owned(),
            Some(client) if registered => format!("{client} is configured"),
            Some(client) => format!("{client} is none of [clients.ID]"),
        };
        let mut checks = vec![AssertionCheck {
            name: "client",
            result: if registered {
                Ok(())
            } else {
                Err(Some(Code::ClientUnknown))
            },
            told,
        }];
        checks.push(self.check_expiry(now));
        checks.push(self.check_signature(secret));
        let missing: Vec<&str> = ["iss", "sub", "aud", "jti", "iat"]
            .into_iter()
            .filter(|name| self.claims.get(*name).is_none())
            .collect();
        checks.push(AssertionCheck {
            name: "form",
            result: if missing.is_empty() { Ok(()) } else { Err(None) },
            told: if missing.is_empty() {
                "iss, sub, aud, jti and iat are there".to_owned()
            } else {
                format!(
                    "no {}: RFC 7523 wants iss and sub = client_id, aud = the token endpoint, jti once",
                    missing.join(", ")
                )
            },
        });
        checks
    }

    fn check_expiry(&self, now: UnixSeconds) -> AssertionCheck {
        let exp = self.claims.get("exp").and_then(Value::as_i64);
        let (result, told) = match exp {
            None => (
                Err(Some(Code::ClientAssertionMalformed)),
                "no exp, or not a whole number".to_owned(),
            ),
            Some(exp) if exp <= now => {
                let past = now.saturating_sub(exp);
                let days = past / 86_400;
                let ago = if days > 0 {
                    format!("{days} days ago")
                } else {
                    format!("{past} s ago")
                };
                (
                    Err(Some(Code::ClientAssertionExpired)),
                    format!("exp {exp}: expired {ago}"),
                )
            }
            Some(exp) => (
                Ok(()),
                format!("exp {exp}: in {} s", exp.saturating_sub(now)),
            ),
        };
        AssertionCheck {
            name: "expiry",
            result,
            told,
        }
    }

    fn check_signature(&self, secret: Option<&[u8]>) -> AssertionCheck {
        let (result, told) = match secret {
            None => (
                Err(None),
                "not checked: no secret of this client is configured here".to_owned(),
            ),
            Some(_) if self.alg != "HS256" => (
                Err(None),
                format!(
                    "not checked: only HS256 can be checked here, and alg is {:?}",
                    self.alg
                ),
            ),
            Some(secret) => self.try_readings(secret),
        };
        AssertionCheck {
            name: "signature",
            result,
            told,
        }
    }

    /// The secret as text is what counts; the other readings explain a failure.
    fn try_readings(&self, secret: &[u8]) -> (Result<(), Option<Code>>, String) {
        let verifies =
            |key: &[u8]| MacKey::new(key).verify(self.message.as_bytes(), &self.signature);
        let hex = from_hex(secret);
        let base64 = STANDARD.decode(secret).ok();
        let other = [("hex", hex.as_deref()), ("base64", base64.as_deref())]
            .into_iter()
            .find_map(|(name, key)| key.filter(|key| verifies(key)).map(|_| name));
        match (verifies(secret), other) {
            (true, _) if hex.is_some() => (
                Ok(()),
                "verifies with the secret as text; it looks like hex, but is not to be decoded"
                    .to_owned(),
            ),
            (true, _) => (Ok(()), "verifies with the secret as text".to_owned()),
            (false, Some(name)) => (
                Err(Some(Code::ClientAssertionSignatureInvalid)),
                format!(
                    "verifies only with the secret decoded from {name}: sign with its text instead"
                ),
            ),
            (false, None) => (
                Err(Some(Code::ClientAssertionSignatureInvalid)),
                "verifies with the secret in no reading: as text, hex or base64".to_owned(),
            ),
        }
    }
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}
