//! A registered OAuth client: how it proves itself, and what it may have. The same rules judge
//! one of the file and one that is registered at run time.

use super::{MAX_TTL, value};
use crate::clock::UnixSeconds;
use crate::crypto::{PublicKey, VerifyingKey, sha256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// How long a client's tokens live where it sets nothing, seconds.
pub const CLIENT_TTL: UnixSeconds = 300;
/// The least and the most of it, seconds.
const TTL_BOUNDS: (UnixSeconds, UnixSeconds) = (30, MAX_TTL);
/// A secret that is shorter, in characters, may be guessable.
const LONG_ENOUGH: usize = 32;

/// How a client proves itself (RFC 7591 §2, `token_endpoint_auth_method`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// With its secret, in the header or in the form: OAuth 2.1 §2.5 wants a server to take
    /// both, and a client that is given a secret need not know which way it sends it.
    #[default]
    ClientSecret,
    /// With its secret in the Authorization header alone (RFC 6749 §2.3.1).
    ClientSecretBasic,
    /// With its secret in the form alone (RFC 6749 §2.3.1).
    ClientSecretPost,
    /// With an assertion that its secret signs (RFC 7523 §2.2).
    ClientSecretJwt,
    /// With an assertion that its private key signs (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// With a JWT of `client_id` and `exp`, signed with its secret, in the place of the secret.
    /// No RFC has it; some integrations do. It can be sent again until it expires.
    ClientSecretAsJwt,
    /// With nothing: a public client (RFC 6749 §2.1). Something else must prove its requests.
    None,
}

impl AuthMethod {
    /// All that a client can be set to.
    pub const ALL: [Self; 7] = [
        Self::ClientSecret,
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::ClientSecretJwt,
        Self::PrivateKeyJwt,
        Self::ClientSecretAsJwt,
        Self::None,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecret => "client_secret",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretJwt => "client_secret_jwt",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::ClientSecretAsJwt => "client_secret_as_jwt",
            Self::None => "none",
        }
    }

    /// The method of that name.
    ///
    /// # Errors
    /// Where there is none: the names that there are.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|each| each.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name:?} is none of {names}")
        })
    }

    /// The names that the RFCs have for it; a method of our own has none.
    pub fn registered(self) -> &'static [&'static str] {
        match self {
            Self::ClientSecret => &["client_secret_basic", "client_secret_post"],
            Self::ClientSecretBasic => &["client_secret_basic"],
            Self::ClientSecretPost => &["client_secret_post"],
            Self::ClientSecretJwt => &["client_secret_jwt"],
            Self::PrivateKeyJwt => &["private_key_jwt"],
            Self::ClientSecretAsJwt => &[],
            Self::None => &["none"],
        }
    }

    /// Whether the client sends its secret itself: then a hash of it is enough to know.
    pub fn sends_secret(self) -> bool {
        matches!(
            self,
            Self::ClientSecret | Self::ClientSecretBasic | Self::ClientSecretPost
        )
    }

    /// Whether the client signs with its secret: then it must be known in clear.
    pub fn signs_with_secret(self) -> bool {
        matches!(self, Self::ClientSecretJwt | Self::ClientSecretAsJwt)
    }

    /// What its assertions may be signed with where the client does not say.
    pub fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::PrivateKeyJwt => &[Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            _ if self.signs_with_secret() => &[Algorithm::HS256],
            _ => &[],
        }
    }

    /// What they can be signed with at all.
    fn possible(self) -> &'static [Algorithm] {
        match self {
            Self::PrivateKeyJwt => &[
                Algorithm::RS256,
                Algorithm::PS256,
                Algorithm::ES256,
                Algorithm::EdDSA,
            ],
            Self::ClientSecretJwt => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            Self::ClientSecretAsJwt => &[Algorithm::HS256],
            _ => &[],
        }
    }
}

/// SHA-256 of a client's secret.
///
/// A hash as fast as this one keeps a secret only where nobody can try all that it could be:
/// for one of 32 random characters, such as `exchequer clients add` and `openssl rand -base64
/// 32` make, there are 2¹⁶⁰ and more, and a slow hash would cost each request what it costs an
/// attacker and gain nothing. For a secret that somebody thought up, or a short one, it keeps
/// nothing from whoever reads the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash {
    /// The hash.
    pub sha256: [u8; 32],
    /// Until when the secret serves, where another replaced it.
    pub until: Option<UnixSeconds>,
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl SecretHash {
    /// The hash of a secret that serves for good.
    pub fn of(secret: &str) -> Self {
        Self {
            sha256: sha256(secret.as_bytes()),
            until: None,
        }
    }

    /// Reads 64 hex digits or the 32 bytes in base64, url-safe or not.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn read(text: &str) -> Result<Self, String> {
        let hex = || {
            let digits = text.as_bytes().chunks(2);
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits
                .map(byte)
                .collect::<Option<Vec<u8>>>()
                .filter(|_| plain)
        };
        let bare = text.trim_end_matches('=');
        let base64 = || {
            STANDARD_NO_PAD
                .decode(bare)
                .or_else(|_| URL_SAFE_NO_PAD.decode(bare))
        };
        let bytes = if text.len() == 64 {
            hex()
        } else {
            base64().ok()
        };
        let sha256 = bytes.and_then(|bytes| bytes.try_into().ok());
        sha256
            .map(|sha256| Self { sha256, until: None })
            .ok_or_else(|| {
                "is no SHA-256: 64 hex digits, or 32 bytes in base64, as `printf %s \"$SECRET\" | sha256sum` gives it".to_owned()
            })
    }
}

/// The keys that a client signs its assertions with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKeys {
    /// One.
    One(PublicKey),
    /// A set (RFC 7517 §5): its JSON.
    Set(String),
    /// A set that is fetched.
    At {
        /// Where.
        url: String,
        /// Whether that may be a private address.
        allow_private_network: bool,
    },
}

/// A registered OAuth client.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// How it proves itself.
    pub method: AuthMethod,
    /// What its assertions may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Its secret, in clear.
    pub secret: Option<SecretString>,
    /// Its secrets, where only hashes of them are kept: several while one replaces another.
    pub secret_hashes: Vec<SecretHash>,
    /// Its keys.
    pub keys: Option<ClientKeys>,
    /// The audiences that it may ask for; the first is the default. Without one it gets no
    /// tokens of its own.
    pub audiences: Vec<String>,
    /// The scopes that it may have.
    pub scopes: Vec<String>,
    /// How long its tokens live, seconds.
    pub ttl: UnixSeconds,
    /// Whether its own tokens have a place in the status list.
    pub status_list: bool,
    /// The names of the apps whose users it may act for.
    pub apps: Vec<String>,
    /// Whether it acts for them unnamed: a token of ours that it exchanges has no `act`.
    pub impersonation: bool,
    /// The audiences whose tokens it may look at (RFC 7662): usually what it is itself.
    pub introspect: Vec<String>,
}

/// What is wrong with a client: with which setting, where it is one's own fault.
pub type ClientFault = (Option<&'static str>, String);

impl ClientSettings {
    /// What is wrong with it; nothing where it is right.
    pub fn faults(&self) -> Vec<ClientFault> {
        let mut faults = Vec::new();
        for scope in self.scopes.iter().filter(|scope| !value::is_scope(scope)) {
            let message = format!("{scope:?} is no scope: it has a space, a quote or a backslash");
            faults.push((Some("scopes"), message));
        }
        let (least, most) = TTL_BOUNDS;
        if !(least..=most).contains(&self.ttl) {
            let (least, most) = (value::show_duration(least), value::show_duration(most));
            let ttl = value::show_duration(self.ttl);
            let message = format!("{ttl} is out of range: {least} to {most}");
            faults.push((Some("ttl"), message));
        }
        if self.status_list && self.audiences.is_empty() {
            let message = "a client without `audience` gets no tokens of its own; for those of users, set it for their app";
            faults.push((Some("status_list"), message.to_owned()));
        }
        self.judge_proof(&mut faults);
        faults
    }

    /// Whether it gets and learns nothing, whatever it proves.
    pub fn may_nothing(&self) -> bool {
        self.audiences.is_empty() && self.apps.is_empty() && self.introspect.is_empty()
    }

    fn judge_proof(&self, faults: &mut Vec<ClientFault>) {
        let name = self.method.name();
        let (clear, hashed) = (self.secret.is_some(), !self.secret_hashes.is_empty());
        if clear && hashed {
            let message = "stands beside `secret`: one of them is enough".to_owned();
            faults.push((Some("secret_sha256"), message));
        }
        let secretless = matches!(self.method, AuthMethod::PrivateKeyJwt | AuthMethod::None);
        if secretless && (clear || hashed) {
            let message = format!("auth_method \"{name}\" has no secret");
            faults.push((Some("auth_method"), message));
        }
        if self.method.sends_secret() && !self.may_nothing() && !clear && !hashed {
            let message = "`secret` is missing: the client proves itself with it";
            faults.push((None, message.to_owned()));
        }
        if self.method.signs_with_secret() && !clear {
            let message = format!(
                "`secret` is missing: auth_method \"{name}\" signs with it, so a hash is not enough"
            );
            faults.push((None, message));
        }
        if let Some(secret) = self
            .secret
            .as_ref()
            .filter(|_| self.method.signs_with_secret())
        {
            // RFC 7518 §3.2.
            let least = self.algorithms.iter().map(|each| mac_size(*each)).max();
            if let Some(least) = least.filter(|least| secret.expose_secret().len() < *least) {
                let message = format!("must have {least} bytes or more to sign assertions with");
                faults.push((Some("secret"), message));
            }
        }
        if self.method == AuthMethod::None && !self.audiences.is_empty() {
            let message = "a client that proves nothing gets no tokens of its own".to_owned();
            faults.push((Some("audience"), message));
        }
        if self.method == AuthMethod::None && !self.introspect.is_empty() {
            let message = "a client that proves nothing learns nothing of tokens".to_owned();
            faults.push((Some("introspect"), message));
        }
        self.judge_keys(faults);
    }

    fn judge_keys(&self, faults: &mut Vec<ClientFault>) {
        let name = self.method.name();
        match &self.keys {
            Some(_) if self.method != AuthMethod::PrivateKeyJwt => {
                let message = format!("auth_method \"{name}\" has no keys");
                faults.push((Some("auth_method"), message));
            }
            None if self.method == AuthMethod::PrivateKeyJwt => {
                let message = "`public_key`, `jwks` or `jwks_uri` is missing: the client's assertions are verified with it";
                faults.push((None, message.to_owned()));
            }
            // What it may sign with could not be read.
            Some(_) if self.algorithms.is_empty() => {}
            Some(ClientKeys::One(key)) => {
                let fits = |each: &&Algorithm| key.algorithms().contains(each);
                let fault = match self.algorithms.iter().find(fits) {
                    None => Some("is of no type that the client may sign with".to_owned()),
                    Some(algorithm) => VerifyingKey::new(*algorithm, key)
                        .err()
                        .map(|error| error.to_string()),
                };
                faults.extend(fault.map(|fault| (Some("public_key"), fault)));
            }
            Some(ClientKeys::Set(text)) if !is_key_set(text) => {
                let message = "is no key set: a JSON object with `keys`, none of them private";
                faults.push((Some("jwks"), message.to_owned()));
            }
            Some(ClientKeys::At { url, .. }) => {
                let fault = value::https_url(url).err();
                faults.extend(fault.map(|fault| (Some("jwks_uri"), fault)));
            }
            _ => {}
        }
    }

    /// Whether its secret may be guessable.
    pub fn has_short_secret(&self) -> bool {
        let secret = self.secret.as_ref();
        secret.is_some_and(|secret| secret.expose_secret().len() < LONG_ENOUGH)
    }
}

/// What an assertion of this method may be signed with, by the name that the client's settings
/// give.
///
/// # Errors
/// Where the method has no such algorithm.
pub fn assertion_algorithms(
    method: AuthMethod,
    named: Option<&str>,
) -> Result<Vec<Algorithm>, String> {
    let Some(named) = named else {
        return Ok(method.algorithms().to_vec());
    };
    let possible = method.possible();
    let found = possible.iter().find(|each| format!("{each:?}") == named);
    found.map(|found| vec![*found]).ok_or_else(|| {
        let name = method.name();
        match possible {
            [] => format!("auth_method \"{name}\" signs nothing"),
            _ => {
                let names: Vec<String> = possible.iter().map(|each| format!("{each:?}")).collect();
                format!("{named:?} is none of {}", names.join(", "))
            }
        }
    })
}

/// Judges an id as the file's names are judged.
///
/// # Errors
/// Where it can be none.
pub fn client_id(text: &str) -> Result<(), String> {
    value::name(text)
}

/// Reads a duration as the configuration has them: seconds.
///
/// # Errors
/// Where it is none.
pub fn duration(text: &str) -> Result<UnixSeconds, String> {
    value::duration(text)
}

/// Reads a public key in PEM.
///
/// # Errors
/// Where it is none.
pub fn public_key(text: &str) -> Result<PublicKey, String> {
    super::clerk::pem_key(text)
}

/// Bytes of an HMAC's code, and the least of its key's (RFC 7518 §3.2).
fn mac_size(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS512 => 64,
        Algorithm::HS384 => 48,
        _ => 32,
    }
}

fn is_key_set(text: &str) -> bool {
    let set: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let keys = set.get("keys").and_then(serde_json::Value::as_array);
    keys.is_some_and(|keys| {
        !keys.is_empty()
            && keys
                .iter()
                .all(|key| key.get("kid").is_some() && key.get("d").is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_in_hex_and_in_base64() {
        let hash = SecretHash::of("abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let base64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let url_safe = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        for text in [hex, &hex.to_uppercase(), base64, url_safe] {
            assert_eq!(SecretHash::read(text), Ok(hash), "{text}");
        }
        let signed = hex.replacen("ba", "+a", 1);
        for text in ["", "abc", &hex[1..], &base64[4..], &signed, "ä"] {
            assert!(SecretHash::read(text).is_err(), "{text}");
        }
    }
}
