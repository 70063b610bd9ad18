//! What others write: error answers of other servers, and client assertions, told apart.

use super::catalogue::Code;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

impl ErrorAnswer {
    /// Who wrote it, what that means, and the code that says more.
    pub fn told(&self) -> (&'static str, String, Option<Code>) {
        match self {
            Self::Ours(code) => (
                "exchequer",
                "This answer was written by Exchequer.".to_owned(),
                Some(*code),
            ),
            Self::UpstreamClientUnknown => (
                "upstream-idp",
                "This answer was not written by Exchequer.  source: upstream-idp (the wording of Ory Hydra, which Clerk's OAuth server uses)".to_owned(),
                Some(Code::UpstreamClientUnknown),
            ),
            Self::BareInvalidClient => (
                "elsewhere",
                "This answer was not written by Exchequer: it has no `code`.".to_owned(),
                Some(Code::UpstreamClientRefused),
            ),
            Self::Unknown(error) => (
                "elsewhere",
                format!(
                    "This answer was not written by Exchequer: it has no `code`. Ask the server that wrote it what it means by {error:?}."
                ),
                None,
            ),
        }
    }
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

/// Whether a JWT is a client assertion (RFC 7523 §3) or stands in the place of a client secret,
/// rather than being a user's token: it names its client as issuer and subject both, or as
/// `client_id` without a subject, or is signed with HMAC and says of no user that another
/// issued it.
pub fn is_assertion(token: &str) -> bool {
    let parts = token
        .rsplit_once('.')
        .and_then(|(message, _)| message.split_once('.'));
    let decode =
        |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let Some((Some(header), Some(claims))) =
        parts.map(|(header, claims)| (decode(header), decode(claims)))
    else {
        return false;
    };
    let Some(alg) = header.get("alg").and_then(Value::as_str) else {
        return false;
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let (issuer, subject, client) = (text("iss"), text("sub"), text("client_id"));
    let self_issued = issuer.is_some() && issuer == subject;
    let named = client.is_some() && subject.is_none();
    let of_a_user = issuer.is_some()
        && subject.is_some()
        && issuer != subject
        && client.is_none_or(|_| client != issuer && client != subject);
    let shared_secret = alg.starts_with("HS") && !of_a_user;
    shared_secret || self_issued || named
}
