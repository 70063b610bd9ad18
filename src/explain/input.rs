//! What somebody pasted: a token and what was around it, an error answer, a secret, or none of
//! these. Told by the text alone; nothing is verified, and nobody is asked.

use super::foreign::{ErrorAnswer, error_answer};
use super::sign_in_url::SignInUrl;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value};

/// What is pasted, taken out of what was around it.
pub struct Input<'i> {
    /// The text itself: a token, an id, or the whole.
    pub text: std::borrow::Cow<'i, str>,
    /// What it is.
    pub shape: Shape,
    /// What it was taken out of, or what was taken out of it.
    pub around: Vec<Around>,
}

/// What a text is.
#[derive(Debug)]
pub enum Shape {
    /// An error answer, or a message of a library.
    Answer(ErrorAnswer),
    /// The URL of a sign-in.
    SignIn(SignInUrl),
    /// Something that opens doors by itself: it must not be pasted anywhere.
    Secret(Secret),
    /// A publishable key, and the issuer whose it is, where it can be read.
    PublishableKey(Option<String>),
    /// The id of a user, an organisation, a client or an instance.
    Id(&'static str),
    /// A JSON object that is neither an answer nor around a token.
    Json,
    /// A text of several words that says nothing known.
    Words,
    /// A token: a JWT, a session id or an opaque one.
    Token,
}

/// A secret by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// What it is.
    pub what: &'static str,
    /// Where a new one is made.
    pub rotate: &'static str,
}

/// What was around a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// `Authorization:`, or another header's or parameter's name.
    Name,
    /// `Bearer` or `DPoP`.
    Scheme,
    /// Quotes.
    Quotes,
    /// Line breaks or blanks within it.
    Blanks,
    /// A comma, a semicolon or another mark at its end.
    Mark,
    /// A JSON object, of which it is this member.
    Member(&'static str),
}

impl Around {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Name => "a header's or a parameter's name in front",
            Self::Scheme => "`Bearer ` in front",
            Self::Quotes => "quotes around it",
            Self::Blanks => "line breaks or blanks within it",
            Self::Mark => "a mark behind it",
            Self::Member(_) => "a JSON object around it",
        }
    }

    /// Whether a request that sends it so in its body is refused for it.
    pub fn spoils(self) -> bool {
        !matches!(self, Self::Member(_))
    }
}

/// The members of requests and answers that hold a token.
const MEMBERS: [&str; 10] = [
    "session_token",
    "subject_token",
    "client_assertion",
    "assertion",
    "access_token",
    "token",
    "id_token",
    "jwt",
    "session_id",
    "refresh_token",
];

/// Names that stand before a token in headers, cookies and forms.
const NAMES: [&str; 10] = [
    "authorization:",
    "__session=",
    "session_token=",
    "subject_token=",
    "client_assertion=",
    "access_token=",
    "id_token=",
    "token=",
    "jwt=",
    "session_id=",
];

/// Prefixes of what opens doors.
const SECRETS: [(&str, Secret); 7] = [
    (
        "sk_live_",
        Secret {
            what: "a secret key of a live instance (sk_live_…)",
            rotate: "Clerk → API keys → Secret keys",
        },
    ),
    (
        "sk_test_",
        Secret {
            what: "a secret key of a development instance (sk_test_…)",
            rotate: "Clerk → API keys → Secret keys",
        },
    ),
    (
        "whsec_",
        Secret {
            what: "a webhook's signing secret (whsec_…)",
            rotate: "Clerk → Webhooks → the endpoint → Signing secret",
        },
    ),
    (
        "GOCSPX-",
        Secret {
            what: "an OAuth client secret of Google (GOCSPX-…)",
            rotate: "Google Cloud → APIs & Services → Credentials",
        },
    ),
    (
        "ghp_",
        Secret {
            what: "a personal access token of GitHub (ghp_…)",
            rotate: "GitHub → Settings → Developer settings",
        },
    ),
    (
        "gho_",
        Secret {
            what: "an access token of GitHub (gho_…)",
            rotate: "GitHub → Settings → Applications",
        },
    ),
    ("-----BEGIN", PRIVATE_KEY),
];

const PRIVATE_KEY: Secret = Secret {
    what: "a private key",
    rotate: "whoever verifies with its public half, and `exchequer keys revoke` where it is this service's",
};

/// Prefixes of ids that prove nothing.
const IDS: [(&str, &str); 5] = [
    ("user_", "the id of a user (user_…)"),
    ("org_", "the id of an organisation (org_…)"),
    ("client_", "the id of a client of Clerk (client_…)"),
    ("ins_", "the id of an instance, or of its key (ins_…)"),
    ("sia_", "the id of a sign-in attempt (sia_…)"),
];

impl<'i> Input<'i> {
    /// Reads what was pasted.
    pub fn read(raw: &'i str) -> Self {
        let whole = raw.trim_matches(|each: char| each.is_whitespace() || each == '\u{feff}');
        let is = |shape, text: &'i str, around| Self {
            text: text.into(),
            shape,
            around,
        };
        if let Ok(Value::Object(object)) = serde_json::from_str(whole) {
            return Self::of_json(whole, &object);
        }
        let mut around = Vec::new();
        let text = unwrapped(whole, &mut around);
        if let Some((_, secret)) = SECRETS.iter().find(|(prefix, _)| text.starts_with(prefix)) {
            // The public half of a key is nobody's secret.
            let public = *secret == PRIVATE_KEY && !text.contains("PRIVATE KEY");
            let shape = if public {
                Shape::Words
            } else {
                Shape::Secret(*secret)
            };
            return is(shape, text, around);
        }
        if text.starts_with("pk_test_") || text.starts_with("pk_live_") {
            return is(Shape::PublishableKey(publishable(text)), text, around);
        }
        if let Some(joined) = joined(text) {
            around.push(Around::Blanks);
            return Self {
                text: joined.into(),
                shape: Shape::Token,
                around,
            };
        }
        let one_word = !text.contains(char::is_whitespace);
        if one_word && is_jwt(text) {
            return is(Shape::Token, text, around);
        }
        if let Some(url) = SignInUrl::read(text).filter(|_| one_word) {
            return is(Shape::SignIn(url), whole, Vec::new());
        }
        if let Some(answer) = error_answer(whole) {
            return is(Shape::Answer(answer), whole, Vec::new());
        }
        if !one_word || text.contains("://") {
            return is(Shape::Words, whole, Vec::new());
        }
        let id = IDS.iter().find(|(prefix, _)| text.starts_with(prefix));
        match id {
            Some((_, what)) => is(Shape::Id(what), text, around),
            None => is(Shape::Token, text, around),
        }
    }

    fn of_json(whole: &'i str, object: &Map<String, Value>) -> Self {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let found = MEMBERS
            .into_iter()
            .find_map(|name| Some((name, text(name)?)));
        let is = |shape| Self {
            text: whole.into(),
            shape,
            around: Vec::new(),
        };
        match found {
            _ if object.contains_key("d") && object.contains_key("kty") => {
                is(Shape::Secret(PRIVATE_KEY))
            }
            Some((name, token)) if !object.contains_key("error") => {
                let inner = Input::read(token);
                let mut around = vec![Around::Member(name)];
                around.extend(inner.around);
                Self {
                    text: inner.text.into_owned().into(),
                    shape: inner.shape,
                    around,
                }
            }
            _ => is(error_answer(whole).map_or(Shape::Json, Shape::Answer)),
        }
    }
}

/// The text without what people copy with a token.
fn unwrapped<'t>(whole: &'t str, around: &mut Vec<Around>) -> &'t str {
    const QUOTES: [char; 8] = ['"', '\'', '`', '“', '”', '‘', '’', '«'];
    let mut text = whole;
    // Each turn takes one thing away, so there are few.
    for _ in 0..8 {
        let before = text;
        let bare = text.trim_end_matches([',', ';']);
        if bare.len() < text.len() {
            around.push(Around::Mark);
            text = bare.trim_end();
            continue;
        }
        let bare = text.trim_matches(QUOTES);
        if bare.len() < text.len() {
            around.push(Around::Quotes);
            text = bare.trim();
            continue;
        }
        let named = |prefix: &str| {
            text.get(..prefix.len())
                .filter(|start| start.eq_ignore_ascii_case(prefix))
                .and_then(|_| text.get(prefix.len()..))
        };
        if let Some(rest) = NAMES.into_iter().find_map(named) {
            around.push(Around::Name);
            text = rest.trim_start();
        } else if let Some(rest) = ["bearer ", "dpop "].into_iter().find_map(named) {
            around.push(Around::Scheme);
            text = rest.trim_start();
        }
        if text.len() == before.len() {
            break;
        }
    }
    around.dedup();
    text
}

/// Whether it has the parts of a JWT, signed or encrypted, and the letters.
fn is_jwt(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+/".contains(&byte);
    text.starts_with("eyJ") && text.bytes().all(letter)
}

/// A JWT that was broken over lines, in one piece.
fn joined(text: &str) -> Option<String> {
    if !text.starts_with("eyJ") || !text.contains(char::is_whitespace) {
        return None;
    }
    let joined: String = text.split_whitespace().collect();
    is_jwt(&joined).then_some(joined)
}

/// The issuer that a publishable key names: base64 of its host and `$`.
fn publishable(key: &str) -> Option<String> {
    let coded = key.get(8..)?;
    let bytes = STANDARD
        .decode(coded)
        .or_else(|_| STANDARD_NO_PAD.decode(coded))
        .ok()?;
    let host = String::from_utf8(bytes).ok()?;
    let host = host.strip_suffix('$')?;
    let url = url::Url::parse(&format!("https://{host}")).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";

    #[test]
    fn a_token_is_found_in_what_people_copy_with_it() {
        for (pasted, around) in [
            (TOKEN.to_owned(), vec![]),
            (format!("\u{feff} {TOKEN}\r\n"), vec![]),
            (format!("Bearer {TOKEN}"), vec![Around::Scheme]),
            (
                format!("authorization: bearer {TOKEN}"),
                vec![Around::Name, Around::Scheme],
            ),
            (format!("\"{TOKEN}\","), vec![Around::Mark, Around::Quotes]),
            (
                format!("'Authorization: DPoP {TOKEN}'"),
                vec![Around::Quotes, Around::Name, Around::Scheme],
            ),
            (
                format!("__session={TOKEN};"),
                vec![Around::Mark, Around::Name],
            ),
            (TOKEN.replacen('.', "\n .", 1), vec![Around::Blanks]),
            (
                format!("{{\"session_token\": \"Bearer {TOKEN}\"}}"),
                vec![Around::Member("session_token"), Around::Scheme],
            ),
        ] {
            let input = Input::read(&pasted);
            assert_eq!(
                (input.text.as_ref(), &input.around),
                (TOKEN, &around),
                "{pasted}"
            );
            assert!(matches!(input.shape, Shape::Token), "{pasted}");
        }
    }

    #[test]
    fn what_is_no_token_is_told_from_one() {
        for (pasted, expected) in [
            ("sk_live_abc", "Secret"),
            ("Bearer sk_test_abc", "Secret"),
            ("whsec_abc", "Secret"),
            ("-----BEGIN EC PRIVATE KEY-----\nabc", "Secret"),
            ("-----BEGIN PUBLIC KEY-----\nabc", "Words"),
            (r#"{"kty":"EC","d":"abc"}"#, "Secret"),
            (
                "pk_test_ZXhhbXBsZS5jbGVyay5hY2NvdW50cy5kZXYk",
                "PublishableKey(Some(\"https://example.clerk.accounts.dev\"))",
            ),
            ("pk_live_!", "PublishableKey(None)"),
            ("user_2abc", "Id"),
            ("sess_2abc", "Token"),
            ("oat_abc", "Token"),
            ("some words of nothing", "Words"),
            ("{\"a\":1}", "Json"),
            ("{\"error\":\"x\"}", "Answer"),
            ("token-invalid-signature", "Answer"),
            ("subject_token_expired", "Answer(Ours"),
        ] {
            let shape = format!("{:?}", Input::read(pasted).shape);
            assert!(shape.starts_with(expected), "{pasted}: {shape}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let _ = Input::read(&text);
        }
    }
}
