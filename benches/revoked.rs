//! Fills a store with revocations, so that `benches/run.py` can tell what they cost.
//!
//! It fills only when told to (`revoked PATH COUNT`), so that `cargo bench` and
//! `cargo test --benches`, which run every bench target, return at once.

use exchequer::clock::Clock;
use exchequer::store::{Change, Key, Kind, Revocation, Store, UnixMillis};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

const ISSUER: &str = "https://bench.clerk.accounts.dev";
const DAY: i64 = 86_400;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = arguments.as_slice() else {
        println!("usage: revoked PATH COUNT   (see benches/run.py)");
        return Ok(());
    };
    let count: u64 = count.parse()?;
    let store = Store::file(Path::new(path), Arc::default())?;
    let now = Clock::system().now();
    let revocations = (0..count).map(|number| Revocation {
        key: Key::of(Kind::Session, &[ISSUER, &format!("sess_{number}")]),
        at: UnixMillis::MAX,
        until: now + DAY,
    });
    let change = Change {
        revocations: revocations.collect(),
        ..Change::default()
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(store.commit(change, now))?;
    Ok(())
}
