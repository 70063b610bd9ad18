//! The file by which `exchequer clients` reaches the service that holds the store: where its
//! admin listener is, and the token that proves that one may read its user's files. New at each
//! start, gone at the end.

use crate::config::StoreSettings;
use crate::crypto::{BackendFailed, random};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The way to the admin listener.
pub struct Access {
    /// Where it is.
    pub address: SocketAddr,
    /// The bearer token.
    pub token: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Written<'w> {
    address: SocketAddr,
    token: &'w str,
}

/// The file's place: beside the store. A store in memory has none, and one in a Redis needs none.
pub fn place(store: &StoreSettings) -> Option<PathBuf> {
    match store {
        StoreSettings::Memory | StoreSettings::Redis(_) => None,
        StoreSettings::File(path) => Some(beside(path)),
    }
}

/// Its place beside this store.
pub fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".admin");
    name.into()
}

/// A token of 256 random bits.
///
/// # Errors
/// Where there are no random bytes.
pub fn new_token() -> Result<String, BackendFailed> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// Writes the file with mode 0600, whole or not at all.
///
/// # Errors
/// Where the file system says no.
pub fn write(path: &Path, address: SocketAddr, token: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".tmp");
    // One that an interrupted start left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    serde_json::to_writer(&file, &Written { address, token })?;
    file.flush()?;
    fs::rename(&new, path)
}

/// Reads the file.
///
/// # Errors
/// Where there is none, or something else in it.
pub fn read(path: &Path) -> io::Result<Access> {
    let text = fs::read_to_string(path)?;
    let Written { address, token } = serde_json::from_str(&text)?;
    Ok(Access {
        address: reachable(address),
        token: token.to_owned().into(),
    })
}

/// Whoever listens everywhere is asked on loopback.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
