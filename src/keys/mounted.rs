//! The ring in a folder that somebody else writes: a Secret that Kubernetes mounts, where
//! `..data` leads to the folder of the newest version and is swapped as a whole.
//!
//! It is only read. What is worse than what is held (damaged, sealed with another secret, of an
//! older generation) is refused, and the last good ring stays.

use super::lineage::Relation;
use super::ring::Ring;
use super::sealed::{self, SealError};
use crate::config::KeySecret;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const DATA: &str = "..data";
const RING: &str = "ring.json";
/// The largest ring that is read, bytes: a Secret has 1 MiB at most.
const LARGEST: u64 = 1 << 20;

/// Why what is mounted is not taken.
#[derive(Debug, thiserror::Error)]
pub enum MountedError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Others than who mounts it could change it.
    #[error("{0} can be written by others than its owner: mount the Secret read-only")]
    Exposed(String),
    /// It is no good.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        error: SealError,
    },
    /// There is a secret, and it is in clear.
    #[error("{0} is in clear, and EXCHEQUER_KEYS_SECRET is set: seal it with that secret")]
    InClear(String),
    /// It is older than what is held, or of another ring and no newer.
    #[error(
        "{path} has generation {found}, and generation {held} is held: an older ring is not taken"
    )]
    Older {
        /// Which file.
        path: String,
        /// The generation that is held.
        held: u64,
        /// The generation that it has.
        found: u64,
    },
}

/// Which version of it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    target: Option<PathBuf>,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct MountedRing {
    dir: PathBuf,
    secret: Option<KeySecret>,
}

impl MountedRing {
    /// The folder at `dir`, where it is one that Kubernetes mounts.
    pub fn at(dir: &Path, secret: Option<&KeySecret>) -> Option<Self> {
        let data = fs::symlink_metadata(dir.join(DATA)).ok()?;
        data.is_symlink().then(|| Self {
            dir: dir.to_owned(),
            secret: secret.cloned(),
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RING)
    }

    /// Which version is mounted; `None` where none is.
    pub fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(self.path()).ok()?;
        Some(Stamp {
            target: fs::read_link(self.dir.join(DATA)).ok(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.size(),
        })
    }

    /// Reads the ring that is mounted.
    pub fn read(&self) -> Result<Ring, MountedError> {
        let path = self.path();
        let shown = || path.display().to_string();
        let io = |error| MountedError::Io {
            path: path.display().to_string(),
            error,
        };
        let file = File::open(&path).map_err(io)?;
        // Only writing by others is refused: a Secret's files are 0644 unless the pod says
        // otherwise, or readable by the group of `fsGroup` where it runs as another user; they
        // lie in memory, in a mount that the pod's own containers alone have.
        if file.metadata().map_err(io)?.mode() & 0o022 != 0 {
            return Err(MountedError::Exposed(shown()));
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
        if self.secret.is_some() && !sealed::is_sealed(&bytes) && !bytes.is_empty() {
            return match sealed::open(&bytes, None) {
                Ok(_) => Err(MountedError::InClear(shown())),
                Err(error) => Err(MountedError::Unreadable {
                    path: shown(),
                    error,
                }),
            };
        }
        sealed::open(&bytes, self.secret.as_ref()).map_err(|error| MountedError::Unreadable {
            path: shown(),
            error,
        })
    }

    /// Whether a ring that was read may take the place of the one that is held. Another ring
    /// of a higher generation may: whoever mounts it has the last word.
    pub fn judge(&self, held: &Ring, found: &Ring) -> Result<Relation, MountedError> {
        let relation = held.relation_of(found);
        match relation {
            Relation::Same | Relation::Newer => Ok(relation),
            Relation::Apart if found.generation > held.generation => Ok(relation),
            Relation::Apart | Relation::Older => Err(MountedError::Older {
                path: self.path().display().to_string(),
                held: held.generation,
                found: found.generation,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn another_ring_takes_the_place_of_the_one_that_is_held_where_its_generation_is_higher() {
        let mounted = MountedRing {
            dir: PathBuf::new(),
            secret: None,
        };
        let ring = |lineage: u8, generation| Ring {
            generation,
            pseudonym_key: Zeroizing::new(vec![lineage]),
            ..Ring::default()
        };
        for (found, judged) in [
            (ring(1, 5), Some(Relation::Same)),
            (ring(1, 6), Some(Relation::Newer)),
            (ring(1, 4), None),
            (ring(2, 6), Some(Relation::Apart)),
            (ring(2, 5), None),
            (ring(2, 4), None),
        ] {
            assert_eq!(mounted.judge(&ring(1, 5), &found).ok(), judged);
        }
    }
}
