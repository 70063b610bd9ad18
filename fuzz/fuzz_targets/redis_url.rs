//! The URL of a Redis, as `EXCHEQUER_STORE` names one: what is read of it is in bounds, and neither
//! a mistake's message nor the settings' `Debug` shows a password.

#![no_main]

use exchequer::config::{Node, RedisSettings, Settings, Sources, StoreSettings, Topology, load};
use libfuzzer_sys::fuzz_target;

const PASSWORD: &str = "correct-horse-battery-staple";

/// What a configuration with this store comes to, or everything that is said against it.
fn read(store: &str) -> Result<Settings, String> {
    let variables = [
        ("CLERK_JWT_ISSUER", "https://clerk.example.com"),
        ("EXCHEQUER_STORE", store),
    ];
    let sources = Sources {
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Sources::default()
    };
    let (settings, findings) = load(&sources);
    settings.ok_or_else(|| format!("{findings:?}"))
}

fn assert_in_bounds(redis: &RedisSettings) {
    let nodes: &[Node] = match &redis.topology {
        Topology::Single(node) => std::slice::from_ref(node),
        Topology::Cluster(nodes) => nodes,
        Topology::Sentinel { sentinels, name } => {
            assert!(!name.is_empty());
            sentinels
        }
        Topology::Unix(path) => {
            assert!(path.is_absolute());
            return;
        }
    };
    assert!((1..=32).contains(&nodes.len()));
    for node in nodes {
        assert!(!node.host.is_empty() && node.port != 0);
        // As it is shown, it is the same server.
        let Ok(again) = read(&format!("redis://{node}")) else {
            panic!("{node}");
        };
        let StoreSettings::Redis(again) = again.store else {
            panic!("{node}");
        };
        assert_eq!(again.topology, Topology::Single(node.clone()));
    }
    assert!((10..=2_000).contains(&redis.deadline.as_millis()));
    assert!(redis.replicas <= 8 && (1..=64).contains(&redis.prefix.len()));
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // All else is the path of a file, or a word.
    if !text.contains("://") || text.contains(PASSWORD) {
        return;
    }
    if let Ok(Settings {
        store: StoreSettings::Redis(redis),
        ..
    }) = read(text)
    {
        assert_in_bounds(&redis);
    }
    let told = match read(&text.replacen("://", &format!("://:{PASSWORD}@"), 1)) {
        Ok(settings) => format!("{:?}", settings.store),
        Err(told) => told,
    };
    assert!(!told.contains(PASSWORD), "{told}");
});
