//! The parameters of an OAuth request: a form (RFC 6749 appendix B), or a JSON object of texts,
//! which is what many callers send.
//!
//! A parameter that is repeated is refused (RFC 6749 §3.2), but for those that the RFCs allow
//! to be; empty ones are as good as absent; unknown ones are ignored.

use super::headers::has_type;
use crate::explain::{Code, Refusal};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use url::form_urlencoded;

type Refused = Box<Refusal>;

/// The most parameters of a request.
const MAX_PARAMETERS: usize = 64;
/// The longest parameter, in bytes; tokens may be as long as a body.
const MAX_PARAMETER: usize = 1024;
/// The longest name that is told, in bytes; no parameter has a longer one.
const MAX_NAME: usize = 32;
/// Those that carry a token, an assertion, a provider's code or a list of them.
const LONG: [&str; 7] = [
    "subject_token",
    "actor_token",
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "token",
];
/// Those that may be repeated (RFC 8693 §2.1, RFC 8707 §2).
const REPEATED: [&str; 2] = ["audience", "resource"];

/// The parameters, in the order in which they came; its `Debug` does not show them.
#[derive(Default)]
pub struct Form<'b>(Vec<(Cow<'b, str>, Cow<'b, str>)>);

impl fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(…)")
    }
}

impl<'b> Form<'b> {
    /// Reads a body by its content type.
    pub fn read(headers: &HeaderMap, bytes: &'b [u8]) -> Result<Self, Refused> {
        if is_json(headers) {
            has_type(headers, "application/json")?;
            return Self::json(bytes);
        }
        has_type(headers, "application/x-www-form-urlencoded")?;
        Self::of(form_urlencoded::parse(bytes))
    }

    /// Takes the parameters of a form or of a query.
    pub fn of(pairs: impl Iterator<Item = (Cow<'b, str>, Cow<'b, str>)>) -> Result<Self, Refused> {
        let mut form = Self::default();
        for (name, value) in pairs {
            form.add(name, value)?;
        }
        Ok(form)
    }

    fn json(bytes: &'b [u8]) -> Result<Self, Refused> {
        // A list would be taken for an object.
        let text = std::str::from_utf8(bytes).ok();
        let text = text.filter(|text| text.trim_ascii_start().starts_with('{'));
        let pairs = text.and_then(|text| serde_json::from_str::<Pairs<'b>>(text).ok());
        let Pairs(pairs) = pairs.ok_or_else(|| {
            Refusal::because(
                Code::BodyMalformed,
                "The request body is not a JSON object of texts.",
            )
        })?;
        let mut form = Self::default();
        for (name, Texts { texts, listed }) in pairs {
            if listed && !REPEATED.contains(&name.as_ref()) {
                return Err(odd(&name, "is a list, and can be one text alone"));
            }
            for text in texts {
                form.add(name.clone(), text)?;
            }
        }
        Ok(form)
    }

    fn add(&mut self, name: Cow<'b, str>, value: Cow<'b, str>) -> Result<(), Refused> {
        if value.is_empty() {
            return Ok(());
        }
        let long = LONG.contains(&name.as_ref());
        if value.chars().any(char::is_control) || !long && value.len() > MAX_PARAMETER {
            return Err(odd(&name, "is malformed"));
        }
        if !REPEATED.contains(&name.as_ref()) && self.get(&name).is_some() {
            return Err(odd(&name, "is repeated"));
        }
        if self.0.len() == MAX_PARAMETERS {
            return Err(Refusal::because(
                Code::ParameterMalformed,
                format!("There are more than {MAX_PARAMETERS} parameters."),
            ));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The parameter of that name, which must be there.
    pub fn required(&self, name: &str) -> Result<&str, Refused> {
        self.get(name).ok_or_else(|| {
            Refusal::because(
                Code::ParameterMalformed,
                format!("The parameter `{name}` is missing."),
            )
        })
    }

    /// Whom a token is to be for: `audience` (RFC 8693 §2.1) and `resource` (RFC 8707 §2).
    pub fn audiences(&self) -> Vec<&str> {
        self.all("audience").chain(self.all("resource")).collect()
    }

    /// All parameters of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(each, _)| each == name);
        named.map(|(_, value)| value.as_ref())
    }
}

/// What is wrong with a parameter. Its name is told where it can be one: of a body that is no form
/// any part may be taken for a name, a secret too.
fn odd(name: &str, what: &str) -> Refused {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let sentence = if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        format!("The parameter `{name}` {what}.")
    } else {
        format!("A parameter {what}.")
    };
    Refusal::because(Code::ParameterMalformed, sentence)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.trim_start().starts_with("application/json"))
}

/// The members of a JSON object: texts, or lists of them.
struct Pairs<'b>(Vec<(Cow<'b, str>, Texts<'b>)>);

/// A text, borrowed where it has no escapes, or several.
struct Texts<'b> {
    texts: Vec<Cow<'b, str>>,
    listed: bool,
}

impl<'b> Texts<'b> {
    fn one(text: Cow<'b, str>) -> Self {
        Self {
            texts: vec![text],
            listed: false,
        }
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Texts<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Texts<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Texts::one(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Texts::one(text.to_owned().into()))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Texts {
                    texts: Vec::new(),
                    listed: false,
                })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    texts.push(text.into());
                }
                Ok(Texts {
                    texts,
                    listed: true,
                })
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Pairs<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(names) = map.next_key::<Texts<'de>>()? {
                    let name = names.texts.into_iter().next();
                    let name = name.ok_or_else(|| de::Error::custom("a name is a text"))?;
                    pairs.push((name, map.next_value()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
