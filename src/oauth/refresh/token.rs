//! The form of a refresh token: `ert_`, and in base64url the id of its family, a secret and a
//! checksum, by which one that was cut off, and one in a leaked file, is told without the store.

use crate::crypto::{MacKey, sha256};
use crate::store::{Key, Kind};
pub use crate::subject::opaque::REFRESH_PREFIX as PREFIX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What the key is for that successors are made with.
pub(super) const LABEL: &str = "refresh token";

const ID: usize = 16;
const SECRET: usize = 32;
const CHECKSUM: usize = 6;
/// The bytes before the checksum.
const KNOWN: usize = ID + SECRET;

/// A refresh token; it has no `Debug`.
pub(super) struct Token {
    family: [u8; ID],
    secret: Zeroizing<[u8; SECRET]>,
}

/// The hash of a token, as the store keeps it.
pub(super) type Hash = String;

impl Token {
    /// The first token of a new family.
    pub(super) fn first() -> Self {
        Self {
            family: rand::rng().random(),
            secret: Zeroizing::new(rand::rng().random()),
        }
    }

    /// Reads one; `None` where it is none, or not the whole of one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let (known, check) = bytes.split_at_checked(KNOWN)?;
        let (family, secret) = known.split_at_checked(ID)?;
        if check != checksum(known) {
            return None;
        }
        Some(Self {
            family: family.try_into().ok()?,
            secret: Zeroizing::new(secret.try_into().ok()?),
        })
    }

    /// One of this family, which nobody holds: its secret is none.
    pub(super) fn of_family(id: &str) -> Option<Self> {
        let family = URL_SAFE_NO_PAD.decode(id).ok()?;
        Some(Self {
            family: family.try_into().ok()?,
            secret: Zeroizing::new([0; SECRET]),
        })
    }

    /// The id of its family, which is good for ending that and for nothing else.
    pub(super) fn family(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.family)
    }

    /// The id of what its family was granted, as the app tokens say it that were given with it.
    /// It is a hash: whoever knows the family's id could end it.
    pub(super) fn grant(&self) -> String {
        let hash = sha256(&[b"grant ", self.family.as_slice()].concat());
        URL_SAFE_NO_PAD.encode(hash.get(..ID).unwrap_or_default())
    }

    /// The one that comes after it: the same, however often it is asked for, and unknown to
    /// whoever has no key.
    pub(super) fn successor(&self, key: &MacKey) -> Self {
        Self {
            family: self.family,
            secret: Zeroizing::new(key.sign(&[&self.family, self.secret.as_slice()])),
        }
    }

    /// Where its family is kept.
    pub(super) fn key(&self) -> Key {
        Key::of(Kind::RefreshFamily, &[&self.family()])
    }

    /// What the store keeps of it. The secret is random, so that a plain hash is enough.
    pub(super) fn hash(&self) -> Hash {
        URL_SAFE_NO_PAD.encode(sha256(self.secret.as_slice()))
    }

    /// Whether this is its hash.
    pub(super) fn is(&self, hash: &Hash) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }

    /// As its holder gets it.
    pub(super) fn show(&self) -> SecretString {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KNOWN + CHECKSUM));
        bytes.extend_from_slice(&self.family);
        bytes.extend_from_slice(self.secret.as_slice());
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        let mut text = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text.into()
    }
}

fn checksum(known: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, e, f, ..] = sha256(known);
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_token_is_read_as_it_was_given_out_and_in_no_other_form() {
        let token = Token::first();
        let text = token.show().expose_secret().to_owned();
        assert_eq!((text.len(), &text[..4]), (76, PREFIX));
        assert!(Token::parse(&text).is_some_and(|read| read.is(&token.hash())));
        for (place, _) in text.char_indices() {
            let mut other = text.clone();
            let swapped = if &text[place..=place] == "A" {
                "B"
            } else {
                "A"
            };
            other.replace_range(place..=place, swapped);
            assert!(
                Token::parse(&other).is_none(),
                "another character at {place}"
            );
            assert!(Token::parse(&text[..place]).is_none(), "cut off at {place}");
        }
        for other in [format!("{text}="), format!("{text}A"), format!(" {text}")] {
            assert!(Token::parse(&other).is_none());
        }
    }

    #[test]
    fn a_successor_is_the_same_for_who_has_the_key_alone() {
        let (ours, theirs) = (MacKey::new(&[1; 32]), MacKey::new(&[2; 32]));
        let first = Token::first();
        let second = first.successor(&ours);
        assert!(second.is(&first.successor(&ours).hash()));
        assert!(!second.is(&first.successor(&theirs).hash()));
        assert!(!second.is(&first.hash()));
        assert!(!second.is(&second.successor(&ours).hash()));
        assert_eq!(second.key(), first.key());
        assert_ne!(Token::first().key(), first.key());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,120}", encoded in "[A-Za-z0-9_-]{72}") {
            prop_assert!(Token::parse(&text).is_none());
            let shown = format!("{PREFIX}{text}");
            prop_assert!(Token::parse(&shown).is_none());
            let shown = format!("{PREFIX}{encoded}");
            prop_assert!(Token::parse(&shown).is_none());
        }
    }
}
