//! The ring in a folder: every change whole or not at all, whatever dies when.
//!
//! A change is written beside the ring, synced, renamed over it, and the folder synced. The
//! generation before stays as `ring.previous.json`, for the day the disk damages the newest;
//! it goes before a revocation is saved, so that no key comes back.

use super::ring::Ring;
use super::sealed::{self, SealError};
use crate::config::KeySecret;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
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
    /// Others may put another ring in its place.
    #[error(
        "{0} can be written to by others: chmod o-w it; of a volume that is so, use a folder in it"
    )]
    Open(String),
    /// The ring is there and cannot be used.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        error: SealError,
    },
}

impl RingFileError {
    /// Whether the bytes are not what was written.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Unreadable {
                error: SealError::Damaged,
                ..
            }
        )
    }
}

/// What becomes of the generation before when a ring is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It stays, to fall back to.
    Kept,
    /// It goes: it holds what was revoked, or stands in clear.
    Forgotten,
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

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
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
        self.check_mode()?;
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

    /// Whoever can write to the folder can put another ring there. The group may: a volume's
    /// `fsGroup` makes it so.
    fn check_mode(&self) -> Result<(), RingFileError> {
        match fs::metadata(&self.dir) {
            Ok(meta) if meta.mode() & 0o002 != 0 => {
                Err(RingFileError::Open(self.dir.display().to_string()))
            }
            _ => Ok(()),
        }
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
        self.check_mode()?;
        let newest = self.read(RING);
        let lost = match &newest {
            Ok(found) => found.is_none(),
            Err(error) => error.is_damage(),
        };
        if lost && let Ok(Some((ring, unsealed))) = self.read(PREVIOUS) {
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
        let io = |error| io_error(&path, error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        // Of the file that is open, whatever its name leads to by now.
        if file.metadata().map_err(io)?.mode() & 0o077 != 0 {
            return Err(RingFileError::Exposed(path.display().to_string()));
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes).map_err(io)?;
        let ring = sealed::open(&bytes, self.secret.as_ref()).map_err(|error| {
            RingFileError::Unreadable {
                path: path.display().to_string(),
                error,
            }
        })?;
        let unsealed = self.secret.is_some() && !sealed::is_sealed(&bytes);
        Ok(Some((ring, unsealed)))
    }
}

impl Locked<'_> {
    /// Saves the ring. After an error the file is what it was before.
    pub fn save(&self, ring: &Ring, before: Before) -> Result<(), RingFileError> {
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
        let present = folder.read(RING);
        match before {
            Before::Kept => self.keep(&target, &present)?,
            // Before the rename: whatever dies then, no key comes back.
            Before::Forgotten if matches!(present, Ok(Some(_))) => self.forget()?,
            // Where the present ring is no good, the one before is all there is until then.
            Before::Forgotten => {}
        }
        fs::rename(&temporary, &target).map_err(io)?;
        if before == Before::Forgotten {
            self.forget()?;
        }
        self.sync_folder()
    }

    /// Gives the present ring a second name, so that no moment is without the first. A
    /// damaged one is never the one to fall back to.
    fn keep<T>(
        &self,
        target: &Path,
        present: &Result<Option<T>, RingFileError>,
    ) -> Result<(), RingFileError> {
        let name = match present {
            Ok(None) => return Ok(()),
            Err(error) if error.is_damage() => DAMAGED,
            _ => PREVIOUS,
        };
        let kept = self.folder.path(name);
        remove(&kept)?;
        fs::hard_link(target, &kept).map_err(|error| io_error(&kept, error))
    }

    fn forget(&self) -> Result<(), RingFileError> {
        remove(&self.folder.path(PREVIOUS))?;
        remove(&self.folder.path(DAMAGED))
    }

    fn sync_folder(&self) -> Result<(), RingFileError> {
        let dir = &self.folder.dir;
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| io_error(dir, error))
    }
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
