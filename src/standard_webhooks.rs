//! Signatures of webhooks, as Standard Webhooks and Svix have them: made for what we send,
//! checked for what is sent to us.
//!
//! HMAC-SHA256 over `id.timestamp.body` with the bytes of a `whsec_` secret. The header holds
//! several signatures, separated by spaces, while one secret replaces another.

use crate::clock::UnixSeconds;
use crate::config::WebhookSecret;
use crate::crypto::MacKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

/// How far a message's time may be from ours, in seconds, both ways.
pub const TOLERANCE: UnixSeconds = 300;
/// The longest id, in bytes.
const MAX_ID: usize = 128;
/// The version of the signatures: symmetric ones.
const VERSION: &str = "v1";

/// The signature of a message, as its header has it: `v1,` and base64.
pub fn sign(secret: &WebhookSecret, id: &str, at: UnixSeconds, body: &[u8]) -> String {
    let code = code(secret, id, &at.to_string(), body);
    format!("{VERSION},{}", STANDARD.encode(code))
}

fn code(secret: &WebhookSecret, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    MacKey::new(&secret.0).sign(&parts)
}

/// A message as it came, unverified; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    /// Its id, the same at each attempt.
    pub id: &'m str,
    /// The text of its timestamp.
    pub timestamp: &'m str,
    /// The signatures.
    pub signatures: &'m str,
    /// The body, byte for byte.
    pub body: &'m [u8],
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message(…)")
    }
}

impl Message<'_> {
    /// Whether the id can be one. A dot in it could be taken for the one after it.
    pub fn has_id(&self) -> bool {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
        (1..=MAX_ID).contains(&self.id.len()) && self.id.bytes().all(fits)
    }

    /// When it was sent: whole seconds since the Unix epoch, in digits alone.
    pub fn sent_at(&self) -> Option<UnixSeconds> {
        let digits = self.timestamp.bytes().all(|byte| byte.is_ascii_digit());
        (digits && (1..=12).contains(&self.timestamp.len()))
            .then(|| self.timestamp.parse().ok())
            .flatten()
    }

    /// Its signatures of the version that is understood here, decoded; others are passed over.
    fn codes(&self) -> impl Iterator<Item = Vec<u8>> {
        self.signatures.split(' ').filter_map(|each| {
            let (_, encoded) = each
                .split_once(',')
                .filter(|(version, _)| *version == VERSION)?;
            STANDARD.decode(encoded).ok()
        })
    }

    /// Whether any signature can be one of ours: 32 bytes of the version that is understood.
    pub fn has_signature(&self) -> bool {
        self.codes().any(|code| code.len() == 32)
    }

    /// Whether one of its signatures was made with the secret. Each is compared in full and in
    /// constant time.
    pub fn is_signed_with(&self, secret: &WebhookSecret) -> bool {
        let expected = code(secret, self.id, self.timestamp, self.body);
        self.codes().fold(false, |good, code| {
            // Slices of different lengths are not equal.
            good | bool::from(expected.as_slice().ct_eq(&code))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn secret(encoded: &str) -> WebhookSecret {
        WebhookSecret(Zeroizing::new(STANDARD.decode(encoded).unwrap()))
    }

    // The vector that Svix's own libraries are tested with.
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn known() -> WebhookSecret {
        secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    }

    fn message(signatures: &str) -> Message<'_> {
        Message {
            id: ID,
            timestamp: "1614265330",
            signatures,
            body: BODY,
        }
    }

    #[test]
    fn the_known_vector_is_signed_and_verified() {
        assert_eq!(sign(&known(), ID, 1_614_265_330, BODY), SIGNATURE);
        assert!(message(SIGNATURE).is_signed_with(&known()));
        assert!(!message(SIGNATURE).is_signed_with(&secret("C2FVsBQIhrscChlQIMV+b5sSYspob7oD")));
        for (id, timestamp, body) in [
            ("msg_p5jXN8AQM9LWM0D4loKWxJel", "1614265330", BODY),
            (ID, "1614265331", BODY),
            (ID, "01614265330", BODY),
            (ID, "1614265330", br#"{"test": 2432232315}"#),
            (ID, "1614265330", b""),
        ] {
            let changed = Message {
                id,
                timestamp,
                signatures: SIGNATURE,
                body,
            };
            assert!(!changed.is_signed_with(&known()), "{id} {timestamp}");
        }
    }

    #[test]
    fn only_a_whole_signature_of_the_known_version_counts() {
        let whole = SIGNATURE.strip_prefix("v1,").unwrap();
        for bad in [
            String::new(),
            "v1,".to_owned(),
            "v1".to_owned(),
            ",".to_owned(),
            whole.to_owned(),
            format!("v2,{whole}"),
            format!("v1a,{whole}"),
            format!("V1,{whole}"),
            format!("v1,{}", whole.trim_end_matches('=')),
            format!("v1,{}", &whole[..40]),
            format!("v1,{whole}AAAA"),
            format!("v1,{whole},"),
            format!("v1,,{whole}"),
            format!("v1, {whole}"),
            format!("v1,{}", whole.replace('/', "_").replace('+', "-")),
        ] {
            assert!(!message(&bad).is_signed_with(&known()), "{bad}");
            let among = format!("v1, {bad} v1,AAAA {SIGNATURE} v2,x");
            assert!(message(&among).is_signed_with(&known()), "{among}");
        }
    }

    #[test]
    fn ids_and_timestamps_have_one_form() {
        let with = |id, timestamp| Message {
            id,
            timestamp,
            ..message("")
        };
        let long = "a".repeat(129);
        for id in ["", "a b", "a.b", "ä", "a\n", &long] {
            assert!(!with(id, "1").has_id(), "{id:?}");
        }
        assert!(with("3f2504e0-4f89-11d3-9a0c-0305e82c3301", "1").has_id());
        for bad in ["", "-1", "+1", "1.0", "1e9", " 1", "0x1", "1614265330000"] {
            assert_eq!(with("a", bad).sent_at(), None, "{bad:?}");
        }
        assert_eq!(with("a", "1614265330").sent_at(), Some(1_614_265_330));
    }
}
