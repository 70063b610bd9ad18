//! The world around the service: its process, an issuer that can misbehave, keys and tokens.

pub mod clerk;
pub mod collector;
pub mod command;
pub mod described;
pub mod foreign;
pub mod issuer;
pub mod key;
pub mod mount;
pub mod proxy;
pub mod redis;
pub mod ring;
pub mod secrecy;
pub mod service;
pub mod token;
pub mod wire;

pub use clerk::clerk;
pub use collector::Collector;
pub use command::Command;
pub use foreign::Foreign;
pub use issuer::{Behaviour, Issuer};
pub use key::Key;
pub use mount::Mount;
pub use proxy::Proxy;
pub use redis::Redis;
pub use ring::Ring;
pub use service::{Answer, Service};
pub use token::Token;
pub use wire::Wire;

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A port for a server that cannot choose its own. None of those that clients get for their ends,
/// for one of the thousands that other tests open would have it before the server.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_768);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until the condition holds, half a minute at most.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}
