//! The world around the service: its process, an issuer that can misbehave, keys and tokens.

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

use std::time::{Duration, SystemTime};

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Waits until the condition holds, ten seconds at most.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}
