//! The names of keys: `PREFIX:1:{PREFIX}:KIND:HEX`, where 1 is the version of this layout.
//!
//! | key | value | how long it lives |
//! | --- | --- | --- |
//! | `epoch` | see `enter.lua` | for good |
//! | `changes` | how many changes were made | for good |
//! | `r:HEX` | a revocation: at, until | until it is over |
//! | `o:HEX` | once: until | until it is over |
//! | `e:HEX` | an entry: epoch, version, until, body | until it is over, or ended |
//! | `c:HEX` | a record: version, fetched at, body | `RECORDS_KEPT` |
//! | `log`, `log-ends` | revocations by the change that made them, and by their ends | members are swept |
//! | `statuses`, `statuses-ends` | places of the status list, and their ends | members are swept |
//! | `outbox`, `messages` | when messages are due, and what they are | until they are settled |
//! | `PREFIX:1:{HEX}:b` | a bucket: see `bucket.lua` | until it is full |
//!
//! All but the buckets share one hash tag (Redis Cluster specification, "Hash tags"): a change is
//! made by one script, whole or not at all. Each bucket has a tag of its own, so that they spread.

use super::super::Key;

/// What a key of its own is kept for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Revocation,
    Once,
    Entry,
    Record,
}

impl Of {
    fn letter(self) -> u8 {
        match self {
            Self::Revocation => b'r',
            Self::Once => b'o',
            Self::Entry => b'e',
            Self::Record => b'c',
        }
    }
}

/// The names under one prefix.
pub(super) struct Names {
    base: Vec<u8>,
    bucket: Vec<u8>,
    /// In the order in which `commit.lua` wants them.
    pub(super) shared: [Vec<u8>; 8],
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let base = format!("{prefix}:1:{{{prefix}}}:");
        let shared = [
            "epoch",
            "changes",
            "log",
            "log-ends",
            "statuses",
            "statuses-ends",
            "outbox",
            "messages",
        ];
        Self {
            shared: shared.map(|name| format!("{base}{name}").into_bytes()),
            bucket: format!("{prefix}:1:{{").into_bytes(),
            base: base.into_bytes(),
        }
    }

    /// Writes a key's name over what is there.
    pub(super) fn write(&self, name: &mut Vec<u8>, of: Of, key: &Key) {
        name.clear();
        name.extend_from_slice(&self.base);
        name.extend_from_slice(&[of.letter(), b':']);
        write_hex(name, key);
    }

    /// Writes a bucket's name over what is there.
    pub(super) fn write_bucket(&self, name: &mut Vec<u8>, key: &Key) {
        name.clear();
        name.extend_from_slice(&self.bucket);
        write_hex(name, key);
        name.extend_from_slice(b"}:b");
    }
}

fn write_hex(name: &mut Vec<u8>, key: &Key) {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    for byte in key.0 {
        name.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}
