//! What others write: error answers of other servers, the messages of libraries, and client
//! assertions, told apart.

mod said;

use super::catalogue::Code;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use said::{MEANINGS, Meaning};
use serde_json::{Map, Value};

/// As much of a text as is looked at, in bytes.
const MAX_LOOKED_AT: usize = 64 * 1024;

/// A copied error answer, and whose it is.
#[derive(Debug)]
pub enum ErrorAnswer {
    /// One of ours: it has a code.
    Ours {
        /// The code.
        code: Code,
        /// Its `error_description`.
        description: Option<String>,
        /// Its `request_id`.
        request_id: Option<String>,
    },
    /// Somebody else's, in words that are known.
    Known {
        /// Who speaks.
        speaker: &'static str,
        /// What it means.
        meaning: &'static Meaning,
    },
    /// The Clerk SDK's name for something that has one or several codes here.
    ClerkReason(&'static str, Vec<Code>),
    /// Something else that another server wrote: its `error`, where it has one.
    Unknown(Option<String>),
}

/// Reads a copied error answer: JSON, or the text of a log line, an error page or a redirect.
/// `None` where the text has nothing of an error.
pub fn error_answer(text: &str) -> Option<ErrorAnswer> {
    let text = text
        .get(..text.floor_char_boundary(MAX_LOOKED_AT))
        .unwrap_or_default();
    if let Some(code) = Code::from_slug(text) {
        return Some(ErrorAnswer::Ours {
            code,
            description: None,
            request_id: None,
        });
    }
    let json: Option<Value> = serde_json::from_str(text).ok();
    if let Some(answer) = json.as_ref().and_then(Value::as_object) {
        let member = |name: &str| answer.get(name).and_then(Value::as_str);
        if let Some(code) = member("code").and_then(Code::from_slug) {
            return Some(ErrorAnswer::Ours {
                code,
                description: member("error_description").map(str::to_owned),
                request_id: member("request_id").map(str::to_owned),
            });
        }
    }
    if let Some(answer) = sent_back(text) {
        return Some(answer);
    }
    // In a redirect the spaces are `+` or `%20`; in JSON quotes are escaped.
    let plain = text.replace('+', " ").replace("\\\"", "\"");
    let plain = percent_encoding::percent_decode_str(&plain).decode_utf8_lossy();
    let plain = plain.to_lowercase();
    for meaning in MEANINGS {
        for (speaker, words) in meaning.said {
            if words.iter().all(|words| plain.contains(words)) {
                return Some(ErrorAnswer::Known { speaker, meaning });
            }
        }
        // Clerk's reasons are more exact than OAuth's words, and less than whole sentences.
        if meaning.source == "your-backend"
            && let Some((reason, codes)) = clerk_reason(&plain)
        {
            return Some(ErrorAnswer::ClerkReason(reason, codes));
        }
    }
    let answer = json.as_ref().and_then(Value::as_object)?;
    is_error(answer).then(|| ErrorAnswer::Unknown(said_error(answer)))
}

/// The error with which this service sends a browser back to an app.
fn sent_back(text: &str) -> Option<ErrorAnswer> {
    let url = url::Url::parse(text).ok()?;
    let parameter = |name: &str| {
        let mut pairs = url.query_pairs();
        let (_, value) = pairs.find(|(each, _)| each == name)?;
        Some(value.into_owned())
    };
    Some(ErrorAnswer::Ours {
        code: Code::from_slug(&parameter("error_code")?)?,
        description: parameter("error_description"),
        request_id: None,
    })
}

/// Whether a JSON object looks like an error of somebody's.
fn is_error(answer: &Map<String, Value>) -> bool {
    ["error", "errors", "message", "error_description", "title"]
        .iter()
        .any(|name| answer.contains_key(*name))
}

fn said_error(answer: &Map<String, Value>) -> Option<String> {
    let error = answer.get("error")?;
    let named = ["code", "type", "message"]
        .iter()
        .find_map(|name| error.get(*name)?.as_str());
    error.as_str().or(named).map(str::to_owned)
}

/// The reason of `@clerk/backend` that the text names, and the codes that it stands for.
fn clerk_reason(plain: &str) -> Option<(&'static str, Vec<Code>)> {
    let all = || {
        let codes = Code::ALL.iter().copied();
        codes.flat_map(|code| code.entry().clerk.iter().map(move |name| (*name, code)))
    };
    let (reason, _) = all().find(|(name, _)| has_word(plain, name))?;
    let codes = all().filter(|(name, _)| *name == reason);
    Some((reason, codes.map(|(_, code)| code).collect()))
}

/// Whether the word stands there by itself: `token-invalid` begins other reasons.
fn has_word(text: &str, word: &str) -> bool {
    let part = |each: char| each.is_ascii_alphanumeric() || each == '-' || each == '_';
    text.split(|each| !part(each)).any(|each| each == word)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_in_small_letters_and_each_line_can_be_met() {
        let mut before: Vec<&[&str]> = Vec::new();
        for meaning in MEANINGS {
            let by_its_code = meaning.code.is_some_and(|code| code.entry().status == 0);
            for text in [meaning.cause, meaning.next] {
                assert!(text.ends_with('.') || text.is_empty() && by_its_code);
            }
            for (speaker, words) in meaning.said {
                let text = words.join(" ");
                assert_eq!(text, text.to_lowercase(), "{speaker}");
                let hidden = before
                    .iter()
                    .any(|earlier| earlier.iter().all(|word| text.contains(word)));
                assert!(!hidden, "{speaker}: {text} is never reached");
                before.push(words);
            }
        }
    }
}
