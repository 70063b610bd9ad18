//! Where the store is: whether it can be written, and has room. A running service holds the
//! file, so it is not opened as a store.

use super::report::Row;
use super::running::Running;
use crate::explain::Code;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

const CHECK: &str = "store";
/// Less room than this is none, bytes: a transaction must fit.
const NO_ROOM: u64 = 16 << 20;
/// Less than this ends before somebody looks.
const LITTLE_ROOM: u64 = 512 << 20;

pub(super) fn in_memory() -> Row {
    Row::warn(
        CHECK,
        "in memory: a restart forgets revocations and used session ids",
    )
    .next("EXCHEQUER_STORE names a file, or a Redis")
}

/// What was found of a file.
pub(super) struct Found {
    /// What to say of it, or what is wrong.
    row: Result<String, Row>,
    room: Option<Row>,
}

/// Looks at the file, or where it will be.
pub(super) fn look(path: &Path) -> Found {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let shown = path.display();
    let failed = |message: String, next: &str| {
        let row = Row::fail(CHECK, message).next(next);
        Err(row.code(Code::StoreUnavailable))
    };
    let row = match (path.exists(), folder.is_dir()) {
        (true, _) => match OpenOptions::new().write(true).open(path) {
            Ok(file) => {
                let bytes = file.metadata().map_or(0, |meta| meta.len());
                Ok(format!("{shown}: {} KiB", bytes / 1024))
            }
            Err(error) => failed(
                format!("{shown}: {error}"),
                "EXCHEQUER_STORE names a file that the service's user can write; run this as that user",
            ),
        },
        (false, true) => match try_to_write(folder) {
            Ok(()) => Ok(format!("no store at {shown}: `exchequer serve` makes it")),
            Err(error) => failed(
                format!("{} is not writable: {error}", folder.display()),
                "EXCHEQUER_STORE names a file in a folder that the service's user can write; in a container it needs a volume",
            ),
        },
        (false, false) => Err(Row::warn(
            CHECK,
            format!("no store at {shown}, and no folder for it"),
        )
        .next("`exchequer serve` makes both; where one should be there, EXCHEQUER_STORE is relative to this folder")),
    };
    Found {
        row,
        room: room(folder),
    }
}

/// What is said of it, knowing who runs.
pub(super) fn told(found: Found, running: Option<&Running>) -> Vec<Row> {
    let row = found.row.map(|seen| {
        Row::ok(
            CHECK,
            match running.filter(|running| running.holds_store) {
                Some(running) => format!("{seen}, held by the service at {}", running.address),
                None => format!("{seen}, held by no service that was found"),
            },
        )
    });
    let row = row.unwrap_or_else(|row| row);
    std::iter::once(row).chain(found.room).collect()
}

/// Whether the disk has room; nothing is said where it has.
fn room(folder: &Path) -> Option<Row> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= LITTLE_ROOM {
        return None;
    }
    let seen = format!(
        "{}: {} MiB are free on its disk",
        folder.display(),
        free >> 20
    );
    let next = "make room, or let EXCHEQUER_STORE name another disk: a full one refuses webhooks, session ids and refresh tokens with 503";
    Some(match free {
        ..NO_ROOM => Row::fail(CHECK, seen)
            .next(next)
            .code(Code::StoreUnavailable),
        _ => Row::warn(CHECK, seen).next(next),
    })
}

/// Makes a file in the folder and takes it away again.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".exchequer-doctor-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)
}
