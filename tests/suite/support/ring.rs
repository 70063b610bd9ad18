//! Our key ring as others see it: its folder through commands, its public keys as a verifier
//! reads them. Computed here, not with the code under test.

use super::{Command, Issuer, Key, Service, Token, command::Ended, now, token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with a key ring and no server.
pub struct Ring {
    dir: TempDir,
    variables: Vec<(String, String)>,
}

impl Ring {
    /// A folder without a ring yet; a rotation or a start makes it.
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            variables: vec![(
                "CLERK_JWT_ISSUER".to_owned(),
                "http://127.0.0.1:1".to_owned(),
            )],
        }
    }

    /// Sets a variable of its commands from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// A path in the folder that the commands run in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The names of what is in the folder of the keys, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("keys"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The environment of its commands.
    pub fn variables(&self) -> Vec<(String, String)> {
        let clock = self.path("clock").display().to_string();
        let clock = ("EXCHEQUER_CLOCK_SHIFT_FILE".to_owned(), clock);
        self.variables.iter().cloned().chain([clock]).collect()
    }

    /// A command.
    pub fn command(&self) -> Command {
        self.variables()
            .iter()
            .fold(Command::new(self.dir.path()), |command, (name, value)| {
                command.env(name, value)
            })
    }

    /// `exchequer keys` with these arguments.
    pub fn keys(&self, arguments: &[&str]) -> Ended {
        self.command().run(&[&["keys"], arguments].concat())
    }

    /// `exchequer serve` at an address that this machine does not have: it loads the ring,
    /// and then ends in any case.
    pub fn try_to_serve(&self) -> Ended {
        self.command()
            .env("EXCHEQUER_LISTEN", "192.0.2.1:1")
            .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
            .run(&["serve"])
    }

    /// Moves the clock of its commands.
    pub fn shift_clock(&self, seconds: i64) {
        std::fs::write(self.path("clock"), format!("{seconds} 0")).unwrap();
    }

    /// The keys, as `keys list --json` has them.
    pub fn list(&self) -> Vec<Value> {
        list(self.command())
    }
}

/// The keys, as `keys list --json` has them.
pub fn list(command: Command) -> Vec<Value> {
    try_list(command).unwrap_or_else(|ended| panic!("{ended:?}"))
}

/// The same, where the ring may be damaged for a moment.
pub fn try_list(command: Command) -> Result<Vec<Value>, Ended> {
    let ended = command.run(&["keys", "list", "--json"]);
    if ended.code == 0 {
        Ok(serde_json::from_str(&ended.stdout).unwrap())
    } else {
        Err(ended)
    }
}

/// The kids of those that are in the state.
pub fn in_state(keys: &[Value], state: &str) -> Vec<String> {
    keys.iter()
        .filter(|key| key["state"] == state)
        .map(|key| text(&key["kid"]))
        .collect()
}

/// An app token minted now, by a wall clock that is `shift` seconds off.
pub async fn mint(service: &Service, issuer: &Issuer, shift: i64) -> String {
    let at = now() + shift;
    let token = Token::clerk(&issuer.url)
        .claim("iat", at)
        .claim("nbf", at - 10)
        .claim("exp", at + 60)
        .sign(Key::rsa());
    service.session(&token).await.token().to_owned()
}

/// The text of a JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn decode(value: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}

/// The RFC 7638 thumbprint of a JWK.
pub fn thumbprint(jwk: &Value) -> String {
    let members: &[&str] = match jwk["kty"].as_str().unwrap() {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        other => panic!("{other}"),
    };
    let members: Vec<String> = members
        .iter()
        .map(|name| format!("\"{name}\":{}", jwk[name]))
        .collect();
    let hash = digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_ref())
}

/// Whether the key of the token's `kid` is in the key set and verifies the token.
pub fn verifies(token: &str, jwks: &Value) -> bool {
    let header = token::header(token);
    let found = jwks["keys"].as_array().unwrap().iter();
    let Some(jwk) = found.into_iter().find(|jwk| jwk["kid"] == header["kid"]) else {
        return false;
    };
    assert_eq!(jwk["alg"], header["alg"]);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (message, signature) = (
        message.as_bytes(),
        URL_SAFE_NO_PAD.decode(signature).unwrap(),
    );
    match header["alg"].as_str().unwrap() {
        "ES256" => {
            let point = [vec![4], decode(&jwk["x"]), decode(&jwk["y"])].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, &signature)
                .is_ok()
        }
        "EdDSA" => UnparsedPublicKey::new(&ED25519, decode(&jwk["x"]))
            .verify(message, &signature)
            .is_ok(),
        "RS256" => {
            let key = RsaPublicKeyComponents {
                n: decode(&jwk["n"]),
                e: decode(&jwk["e"]),
            };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature)
                .is_ok()
        }
        other => panic!("{other}"),
    }
}
