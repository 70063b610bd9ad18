//! The ring in a folder: every change whole or not at all, whatever dies when.
//!
//! A change is written beside the ring, synced, renamed over it, and the folder synced. The
//! generation before stays as `ring.previous.json`, for the day the disk damages the newest;
//! it goes when a key is revoked, so that none comes back.

use super::ring::Ring;
use super::sealed::{self, SealError};
use crate::config::KeySecret;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const RING: &str = "ring.json";
const PREVIOUS: &str = "ring.previous.json";
const DAMAGED: &str = "ring.damaged.json";
const TEMPORARY: &str = "ring.json.tmp";
const LOCK: &str = ".lock";

/// Why the ring cannot be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum RingFileError {
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// Of what.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Others may read the private keys.
    #[error("{0} can be read or written by others: chmod 600 it, and consider its keys known")]
    Exposed(String),
    /// The ring is there and cannot be used.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        error: SealError,
    },
}

/// What tells one version of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// The folder of the ring.
#[derive(Debug, Clone)]
pub struct RingFolder {
    dir: PathBuf,
    secret: Option<KeySecret>,
}

/// The right to change the ring: one holder at a time among all processes.
pub struct Locked<'f> {
    folder: &'f RingFolder,
    _lock: File,
}

/// A ring as it was read.
pub struct Loaded {
    /// The ring.
    pub ring: Ring,
    /// Whether the newest generation was damaged, and this is the one before.
    pub fallen_back: bool,
    /// Whether it should be written again: it is in clear, and there is a secret.
    pub unsealed: bool,
}

impl RingFolder {
    /// The folder at `dir`; it need not exist.
    pub fn new(dir: PathBuf, secret: Option<KeySecret>) -> Self {
        Self { dir, secret }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the folder where there is none, and takes the right to change the ring.
    pub fn lock(&self) -> Result<Locked<'_>, RingFileError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| io_error(&self.dir, error))?;
        let path = self.path(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io_error(&path, error))?;
        lock.lock().map_err(|error| io_error(&path, error))?;
        Ok(Locked {
            folder: self,
            _lock: lock,
        })
    }

    /// The version of the file, where there is one: it changes with each save.
    pub fn version(&self) -> Option<Version> {
        let meta = fs::metadata(self.path(RING)).ok()?;
        Some(Version {
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.size(),
        })
    }

    /// Reads the ring; `None` where there is none yet.
    pub fn load(&self) -> Result<Option<Loaded>, RingFileError> {
        let newest = self.read(RING);
        if (is_damaged(&newest) || matches!(newest, Ok(None)))
            && let Ok(Some((ring, unsealed))) = self.read(PREVIOUS)
        {
            return Ok(Some(Loaded {
                ring,
                fallen_back: true,
                unsealed,
            }));
        }
        Ok(newest?.map(|(ring, unsealed)| Loaded {
            ring,
            fallen_back: false,
            unsealed,
        }))
    }

    fn read(&self, name: &str) -> Result<Option<(Ring, bool)>, RingFileError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => zeroize::Zeroizing::new(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, error)),
        };
        let meta = fs::metadata(&path).map_err(|error| io_error(&path, error))?;
        if meta.mode() & 0o077 != 0 {
            return Err(RingFileError::Exposed(path.display().to_string()));
        }
        let ring = sealed::open(&bytes, self.secret.as_ref()).map_err(|error| {
            RingFileError::Unreadable {
                path: path.display().to_string(),
                error,
            }
        })?;
        let in_clear = sealed::open(&bytes, None).is_ok();
        Ok(Some((ring, in_clear && self.secret.is_some())))
    }
}

impl Locked<'_> {
    /// Saves the ring. After an error the file is what it was before.
    pub fn save(&self, ring: &Ring) -> Result<(), RingFileError> {
        let folder = self.folder;
        let target = folder.path(RING);
        let bytes = sealed::seal(ring, folder.secret.as_ref()).map_err(|error| {
            RingFileError::Unreadable {
                path: target.display().to_string(),
                error,
            }
        })?;
        let temporary = folder.path(TEMPORARY);
        let io = |error| io_error(&temporary, error);
        remove(&temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io)?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        drop(file);
        self.keep_previous(&target)?;
        fs::rename(&temporary, &target).map_err(io)?;
        self.sync_folder()
    }

    /// The present ring becomes the previous one; a second name, so that no moment is
    /// without the first.
    fn keep_previous(&self, target: &Path) -> Result<(), RingFileError> {
        let folder = self.folder;
        if is_damaged(&folder.read(RING)) {
            // Never keep a damaged ring as the one to fall back to.
            let damaged = folder.path(DAMAGED);
            return fs::rename(target, &damaged).map_err(|error| io_error(&damaged, error));
        }
        let previous = folder.path(PREVIOUS);
        remove(&previous)?;
        match fs::hard_link(target, &previous) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error(&previous, error)),
        }
    }

    /// Forgets the generation before: what was revoked must not come back.
    pub fn forget_previous(&self) -> Result<(), RingFileError> {
        remove(&self.folder.path(PREVIOUS))?;
        remove(&self.folder.path(DAMAGED))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), RingFileError> {
        let dir = &self.folder.dir;
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| io_error(dir, error))
    }
}

fn is_damaged<T>(read: &Result<T, RingFileError>) -> bool {
    matches!(
        read,
        Err(RingFileError::Unreadable {
            error: SealError::Damaged,
            ..
        })
    )
}

fn remove(path: &Path) -> Result<(), RingFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

fn io_error(path: &Path, error: io::Error) -> RingFileError {
    RingFileError::Io {
        path: path.display().to_string(),
        error,
    }
}
