//! A compact JWS (RFC 7515 §7.1), taken apart: what every JWT is before anybody reads it, a
//! provider's or one of ours.

use super::claims::{MAX_SHOWN, date};
use super::json::Object;
use crate::explain::Seen;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// A token taken apart and decoded, not yet read.
pub struct Decoded<'t> {
    /// What is signed: header and payload as they were sent.
    pub message: &'t [u8],
    /// The header's JSON.
    pub header: Vec<u8>,
    /// The payload's JSON.
    pub claims: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a text is no compact JWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is larger than [`MAX_TOKEN`].
    TooLarge,
    /// It has not three parts, but as many dots.
    Dots(usize),
    /// The part of this name is not base64url without padding.
    NotBase64(&'static str),
}

impl<'t> Decoded<'t> {
    /// Takes a compact JWS apart.
    ///
    /// # Errors
    /// Where it is none.
    pub fn of(token: &'t str) -> Result<Self, Malformed> {
        if token.len() > MAX_TOKEN {
            return Err(Malformed::TooLarge);
        }
        let parts = token
            .rsplit_once('.')
            .and_then(|(message, signature)| Some((message, message.split_once('.')?, signature)))
            .filter(|(_, (_, claims), _)| !claims.contains('.'));
        let Some((message, (header, claims), signature)) = parts else {
            return Err(Malformed::Dots(token.matches('.').count()));
        };
        let decode = |part: &str, name| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| Malformed::NotBase64(name))
        };
        Ok(Self {
            message: message.as_bytes(),
            header: decode(header, "header")?,
            claims: decode(claims, "payload")?,
            signature: decode(signature, "signature")?,
        })
    }
}

/// As much of a text of a stranger's as is shown and logged.
pub fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_SHOWN))
        .unwrap_or_default()
}

/// What the sender of a token is shown of it, cut to a bounded length.
pub fn seen(header: &Object<'_>, claims: &Object<'_>) -> Seen {
    let short = |text: &str| short(text).to_owned();
    Seen {
        iss: claims.text("iss").map(short),
        aud: claims.text("aud").map(short),
        azp: claims.text("azp").map(short),
        typ: header.text("typ").map(short),
        alg: header.text("alg").map(short),
        kid: header.text("kid").map(short),
        exp: claims.get("exp").and_then(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_shown_what_it_sent_cut_short() {
        let header = Object::parse(br#"{"alg":"RS256","typ":"JWT","kid":"k"}"#).unwrap();
        let long = format!(
            r#"{{"iss":"i","aud":"{}","azp":"p","exp":5,"sub":"s"}}"#,
            "\u{e9}".repeat(MAX_SHOWN)
        );
        let seen = seen(&header, &Object::parse(long.as_bytes()).unwrap());
        let texts = [seen.iss, seen.azp, seen.alg, seen.typ, seen.kid];
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        assert_eq!(texts, ["i", "p", "RS256", "JWT", "k"]);
        assert_eq!(seen.aud, Some("\u{e9}".repeat(MAX_SHOWN / 2)));
        assert_eq!(seen.exp, Some(5));
    }
}
