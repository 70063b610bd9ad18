//! JSON as a token carries it: borrowed from the decoded bytes, no member twice at any depth.
//!
//! RFC 7515 §4 and RFC 7519 §4 forbid repeated members: two readers of one may read two
//! different tokens. `serde_json` alone keeps the last.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;
use std::borrow::Cow;
use std::fmt;

/// A JSON value: perhaps personal data, so it has no `Debug`.
#[cfg_attr(test, derive(Debug))]
#[derive(Clone, PartialEq)]
pub enum Json<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// A text.
    Text(Cow<'t, str>),
    /// An array.
    List(Vec<Json<'t>>),
    /// An object.
    Object(Object<'t>),
}

impl Json<'_> {
    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, where it is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The number, where it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }
}

/// An object, its members in order of their names.
#[cfg_attr(test, derive(Debug))]
#[derive(Clone, Default, PartialEq)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Json<'t>)>);

impl<'t> Object<'t> {
    /// Parses one object. Nesting is bounded by `serde_json` (128).
    ///
    /// # Errors
    /// Where the bytes are no JSON object, or a member stands twice in one.
    pub fn parse(bytes: &'t [u8]) -> Result<Self, serde_json::Error> {
        // Looked at once: of bytes, each text would be.
        let text = std::str::from_utf8(bytes).map_err(de::Error::custom)?;
        match serde_json::from_str(text)? {
            Json::Object(object) => Ok(object),
            _ => Err(de::Error::custom("not a JSON object")),
        }
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Json<'t>> {
        // Names are short and differ early: no call for them, as a comparison of texts is.
        let compared = |each: &str| each.bytes().cmp(name.bytes());
        let place = self.0.binary_search_by(|(each, _)| compared(each));
        self.0.get(place.ok()?).map(|(_, value)| value)
    }

    /// All members, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json<'t>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Whether there is a member of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The member of that name, where it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// A member's name: borrowed where it has no escapes.
struct Name<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(JsonVisitor)? {
            Json::Text(name) => Ok(Self(name)),
            _ => Err(de::Error::custom("a name is a text")),
        }
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = entries.next_entry()? {
            if members.is_empty() {
                // As many as a token has: few need more room.
                members.reserve(16);
            }
            members.push((name, value));
        }
        members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let repeated = members
            .iter()
            .zip(members.iter().skip(1))
            .any(|((a, _), (b, _))| a == b);
        if repeated {
            return Err(de::Error::custom("a member stands twice"));
        }
        Ok(Json::Object(Object(members)))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            // Signed where it fits: CEL takes what is unsigned for another type than its own
            // literals, and no arithmetic takes one of each.
            Self::Number(number) => match number.as_i64() {
                Some(whole) => serializer.serialize_i64(whole),
                None => number.serialize(serializer),
            },
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeated_members_are_refused_at_every_depth() {
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":1,"\u0061":2}"#,
            br#"{"a":1,"b":2,"c":3,"a":4}"#,
            br#"{"a":{"b":1,"b":2}}"#,
            br#"{"a":[{"b":1,"b":2}]}"#,
            b"[]",
            b"1",
            b"",
            b"{} {}",
            b"{\"a\":1e400}",
            b"{\"a\":NaN}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            br#"{"a":"\ud800"}"#,
        ] {
            assert!(
                Object::parse(bad).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        let deep = [b"{\"a\":".repeat(200), b"1".to_vec(), b"}".repeat(200)].concat();
        assert!(Object::parse(&deep).is_err());
    }

    #[test]
    fn members_are_found_and_written_again() {
        let text = br#"{"z":1,"a":"x\n","m":{"k":[true,null,-2,1.5]}}"#;
        let object = Object::parse(text).unwrap();
        assert_eq!(object.text("a"), Some("x\n"));
        assert_eq!(object.get("z").and_then(Json::as_i64), Some(1));
        assert!(!object.has("b"));
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"a":"x\n","m":{"k":[true,null,-2,1.5]},"z":1}"#
        );
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json_where_no_member_is_repeated(
            names in prop::collection::btree_map("[a-z]{0,3}", any::<i32>(), 0..40)
        ) {
            let text = serde_json::to_vec(&names).unwrap();
            let object = Object::parse(&text).unwrap();
            for (name, value) in &names {
                prop_assert_eq!(object.get(name).and_then(Json::as_i64), Some(i64::from(*value)));
            }
            let theirs: serde_json::Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(serde_json::to_value(&object).unwrap(), theirs);
        }
    }
}
