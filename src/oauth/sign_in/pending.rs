//! A sign-in under way. The browser keeps it: however many are begun and left, the store knows
//! nothing of them, and of one that comes back only that it did.
//!
//! What was asked is sealed in a cookie, under a key that is made from the ring and the `state`:
//! it opens for that sign-in alone, and for all replicas that share the ring. The `state` says
//! until when it holds and has an authentication code, so that one that was never given, or is
//! over, is told from one that came back in another browser. The nonce and the code verifier of
//! the provider are made from it too, by the same ring.

use crate::clock::UnixSeconds;
use crate::crypto::{MacKey, SealingKey, sha256};
use crate::explain::{Code, Refusal};
use crate::keys::Published;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

type Refused = Box<Refusal>;

/// What the key is for that states and cookies are made with.
const LABEL: &str = "sign-in";
/// The longest value of a cookie, bytes: browsers take 4096 with its name (RFC 6265 §6.1).
const MAX_COOKIE: usize = 3_800;
/// The random part of a state, bytes.
const ID: usize = 16;
/// Its time, bytes.
const TIME: usize = 8;
/// Its authentication code, bytes.
const CODE: usize = 16;

/// A sign-in under way, as the browser keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    /// The provider that it was begun at.
    pub(super) provider: String,
    #[serde(flatten)]
    pub(super) asked: Asked,
}

/// What an app asked for, and gets once the user has signed in.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::oauth) struct Asked {
    pub(in crate::oauth) app: String,
    pub(in crate::oauth) redirect_uri: String,
    pub(in crate::oauth) code_challenge: String,
    /// The thumbprint of the key that the code is bound to, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_jkt: Option<String>,
    pub(super) state: Option<String>,
    pub(in crate::oauth) scope: Option<String>,
    pub(in crate::oauth) audiences: Vec<String>,
}

/// What is sent to the provider, and proves later that it is this sign-in's.
pub(super) struct Secrets {
    pub(super) nonce: String,
    pub(super) code_verifier: String,
}

/// How the name of a sign-in's cookie begins.
pub const COOKIE: &str = "exchequer-";

/// The name of the cookie of the sign-in with this state: several may be under way in one
/// browser.
pub(super) fn cookie_of(state: &str) -> String {
    let hash = sha256(state.as_bytes());
    let short = hash.get(..9).unwrap_or_default();
    format!("{COOKIE}{}", URL_SAFE_NO_PAD.encode(short))
}

/// What states and cookies are made with, by whoever has the ring.
pub(super) struct Maker(MacKey);

impl Maker {
    /// That of this ring.
    pub(super) fn of(keys: &Published) -> Self {
        Self(keys.derived_key(LABEL))
    }

    /// A state that holds until then: nobody can guess it, or make one.
    pub(super) fn state(&self, until: UnixSeconds) -> String {
        let mut bytes = Vec::with_capacity(ID + TIME + CODE);
        bytes.extend_from_slice(&rand::rng().random::<[u8; ID]>());
        bytes.extend_from_slice(&until.to_be_bytes());
        let code = self.code(&bytes);
        bytes.extend_from_slice(&code);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Until when a state of ours holds; `None` where it is not ours.
    pub(super) fn until(&self, state: &str) -> Option<UnixSeconds> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (known, code) = bytes.split_at_checked(ID + TIME)?;
        let time = known.last_chunk::<TIME>()?;
        let ours = bool::from(self.code(known).ct_eq(code));
        ours.then(|| UnixSeconds::from_be_bytes(*time))
    }

    fn code(&self, known: &[u8]) -> [u8; CODE] {
        let mut code = [0; CODE];
        let whole = self.0.sign(&[b"state ", known]);
        code.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        code
    }

    /// The value of the cookie of the sign-in with this state.
    ///
    /// # Errors
    /// Where no browser would take it.
    pub(super) fn seal(&self, state: &str, pending: &Pending) -> Result<String, Refused> {
        let body = serde_json::to_vec(pending).map_err(odd)?;
        let key = SealingKey::new(&self.sealing_key(state)).map_err(odd)?;
        let sealed = key.seal(LABEL.as_bytes(), &body).map_err(odd)?;
        let value = URL_SAFE_NO_PAD.encode(sealed);
        if value.len() > MAX_COOKIE {
            return Err(Refusal::new(Code::SignInTooLong));
        }
        Ok(value)
    }

    /// What [`seal`](Self::seal) put into the cookie of this state; `None` where the cookie is
    /// another's, or was changed.
    pub(super) fn open(&self, state: &str, cookie: &str) -> Option<Pending> {
        let sealed = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let key = SealingKey::new(&self.sealing_key(state)).ok()?;
        let body = key.open(LABEL.as_bytes(), &sealed)?;
        serde_json::from_slice(&body).ok()
    }

    /// A key for each sign-in, so that its random nonce seals one cookie and no more.
    fn sealing_key(&self, state: &str) -> [u8; 32] {
        self.0.sign(&[b"cookie ", state.as_bytes()])
    }

    /// What goes to the provider of the sign-in with this state.
    pub(super) fn secrets(&self, state: &str) -> Secrets {
        let made = |what: &[u8]| URL_SAFE_NO_PAD.encode(self.0.sign(&[what, state.as_bytes()]));
        Secrets {
            nonce: made(b"nonce "),
            code_verifier: made(b"code_verifier "),
        }
    }
}

fn odd(error: impl std::fmt::Display) -> Refused {
    Refusal::new(Code::InternalError).caused_by(error)
}
