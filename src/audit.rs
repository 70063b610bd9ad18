//! The audit log: who got what by which policy, who was refused, what was revoked, and which
//! keys signed. One JSON object a line, in a place of its own.
//!
//! A queue and a thread lie between the requests and the place. Whoever finds the queue full
//! waits: nothing is lost while the place can be written, and a graceful stop ends with
//! everything on disk. Where the place cannot be written, what is lost is counted and said
//! aloud, and the service goes on. People appear under their pseudonyms, tokens as hashes.

use crate::clock::{Clock, UnixSeconds};
use crate::config::AuditSettings;
use crate::telemetry::Metrics;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// How many events may wait for the writer.
const QUEUE: usize = 4096;
/// How many bytes are written at once, unless one event is larger.
const BATCH: usize = 64 * 1024;
/// How long anybody waits for a place that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The version of the events: a member that is there stays and keeps its meaning.
const FORMAT: u8 = 1;

/// What happened. Absent is what does not apply.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Event<'e> {
    /// `exchange`, `token`, `verify`, `introspect`, `revoke`, `key` or `client`: what was asked for, or done.
    pub action: &'e str,
    /// `ok`, a code of the catalogue, or what became of a revocation or a key.
    pub outcome: &'e str,
    /// The app whose policy decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<&'e str>,
    /// The client that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'e str>,
    /// The `iss` of the issuer that vouched for the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'e str>,
    /// An `iss` that was claimed and not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_issuer: Option<&'e str>,
    /// The subject's pseudonym.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'e str>,
    /// The session's pseudonym.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'e str>,
    /// `aud` of the token that was minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<&'e str>,
    /// `scope` of the token that was minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'e str>,
    /// SHA-256 of the token that was minted, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<&'e str>,
    /// `jti` of the token that was minted, or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'e str>,
    /// The key that signed, or that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<&'e str>,
    /// The id of the webhook event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<&'e str>,
    /// The type of the webhook event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<&'e str>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'e str>,
    /// The request's trace (W3C Trace Context §3.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'e str>,
    /// The network of the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<&'e str>,
}

/// A line: an event with its time and its name.
#[derive(Serialize)]
struct Line<'e> {
    audit: u8,
    time: String,
    unix: UnixSeconds,
    id: String,
    by: &'static str,
    #[serde(flatten)]
    event: Event<'e>,
}

/// The network of an address: its /24, of an IPv6 address its /48.
pub fn network(address: IpAddr) -> String {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 24 } else { 48 };
    ipnet::IpNet::new(address, length).map_or_else(|_| String::new(), |net| net.trunc().to_string())
}

enum Entry {
    Line(Vec<u8>),
    Stop,
}

/// The audit log, or none.
pub struct Audit {
    queue: Option<Queue>,
    by: &'static str,
    clock: Clock,
}

struct Queue {
    sender: Sender<Entry>,
    /// Tells when the writer has ended; taken by whoever stops it.
    ended: Mutex<Option<std_mpsc::Receiver<()>>>,
    metrics: Arc<Metrics>,
}

impl Audit {
    /// The log that the settings name; `by` names this process in it.
    pub fn open(
        settings: Option<&AuditSettings>,
        by: &'static str,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        let place = match settings {
            None => None,
            Some(AuditSettings::Stdout) => Some(Place::Stdout),
            Some(AuditSettings::File(path)) => {
                Some(Place::open(path.clone()).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?)
            }
        };
        let queue = place
            .map(|place| Queue::start(place, metrics))
            .transpose()?;
        Ok(Arc::new(Self { queue, by, clock }))
    }

    /// No log.
    pub fn off(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            queue: None,
            by: "",
            clock,
        })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Records an event; waits where the queue is full.
    pub async fn record(&self, event: Event<'_>) {
        let Some(queue) = &self.queue else { return };
        let full = match queue.sender.try_send(self.entry(event)) {
            Ok(()) => return,
            Err(TrySendError::Full(entry)) => entry,
            Err(TrySendError::Closed(_)) => return queue.metrics.audit_lost(1),
        };
        let (sender, metrics) = (queue.sender.clone(), Arc::clone(&queue.metrics));
        // In a task, for a client that goes away takes its request's future along.
        let waiting = tokio::spawn(async move {
            let sent = tokio::time::timeout(PATIENCE, sender.send(full)).await;
            if !matches!(sent, Ok(Ok(()))) {
                metrics.audit_lost(1);
            }
        });
        let _ = waiting.await;
    }

    /// The same for whoever may block: the key ring.
    pub fn record_blocking(&self, event: Event<'_>) {
        let Some(queue) = &self.queue else { return };
        if !queue.send(self.entry(event)) {
            queue.metrics.audit_lost(1);
        }
    }

    /// Ends when everything that was recorded is on disk, or cannot be. Blocks.
    pub fn stop(&self) {
        if let Some(queue) = &self.queue {
            queue.stop();
        }
    }

    fn entry(&self, event: Event<'_>) -> Entry {
        let unix = self.clock.now();
        let since = Duration::from_secs(u64::try_from(unix).unwrap_or_default());
        let time = SystemTime::UNIX_EPOCH.checked_add(since);
        let line = Line {
            audit: FORMAT,
            time: humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH))
                .to_string(),
            unix,
            id: URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 12]>()),
            by: self.by,
            event,
        };
        // Texts and numbers alone: this cannot fail.
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Entry::Line(bytes)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn start(place: Place, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (sender, entries) = mpsc::channel(QUEUE);
        let (tell, ended) = std_mpsc::channel();
        let writer = Writer {
            place,
            torn: false,
            failing: false,
            metrics: Arc::clone(&metrics),
        };
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                writer.run(entries);
                let _ = tell.send(());
            })?;
        Ok(Self {
            sender,
            ended: Mutex::new(Some(ended)),
            metrics,
        })
    }

    fn send(&self, mut entry: Entry) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.sender.try_send(entry) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => {
                    entry = back;
                    thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return false,
            }
        }
    }

    fn stop(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ended) = ended.take() else { return };
        if !self.send(Entry::Stop) || ended.recv_timeout(PATIENCE).is_err() {
            tracing::error!("the audit log could not be written to its end");
        }
    }
}

/// Where the lines go.
enum Place {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Place {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path)?;
        Ok(Self::File { path, file })
    }

    /// Opens the file anew where another one has its name, or none: it was rotated.
    fn follow(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            let open = file.metadata()?;
            let same = fs::metadata(&*path)
                .is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
            if !same {
                file.sync_data()?;
                *file = append_to(path)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
                Ok(bytes.len())
            }
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File { file, .. } => file.sync_all(),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

struct Writer {
    place: Place,
    /// Whether the last line was not written whole.
    torn: bool,
    /// Whether the last batch failed.
    failing: bool,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self, mut entries: Receiver<Entry>) {
        let mut batch = Vec::new();
        while let Some(entry) = entries.blocking_recv() {
            let mut next = Some(entry);
            while let Some(entry) = next.take() {
                match entry {
                    Entry::Line(line) => batch.extend_from_slice(&line),
                    // Whoever still waits to be heard is heard, and nobody after that.
                    Entry::Stop => entries.close(),
                }
                if batch.len() < BATCH {
                    next = entries.try_recv().ok();
                }
            }
            if !batch.is_empty() {
                self.append(&batch);
                batch.clear();
            }
        }
        if let Err(error) = self.place.sync() {
            tracing::error!(%error, "the audit log could not be brought to disk");
        }
    }

    /// Writes whole lines; what cannot be written is lost, and counted.
    fn append(&mut self, batch: &[u8]) {
        let (written, failed) = self.write(batch);
        let (well, rest) = batch.split_at_checked(written).unwrap_or((batch, &[]));
        self.torn = well.last().map_or(self.torn, |last| *last != b'\n');
        let lost = rest.iter().filter(|byte| **byte == b'\n').count();
        match failed {
            Some(error) => {
                self.metrics
                    .audit_lost(u64::try_from(lost).unwrap_or(u64::MAX));
                if !self.failing {
                    tracing::error!(%error, lost, "the audit log cannot be written as it should; what is lost until it can be is counted");
                }
                self.failing = true;
            }
            None if self.failing => {
                tracing::warn!("the audit log is written again");
                self.failing = false;
            }
            None => {}
        }
    }

    /// Writes as many of the bytes as it can; gives how many, and what stopped it.
    fn write(&mut self, batch: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        // A file that cannot be opened anew is written on under whatever name it has now.
        let followed = self.place.follow();
        // An event never continues another's broken line.
        let broken: &[u8] = if self.torn { b"\n" } else { b"" };
        let mut attempt = || {
            if self.place.write(broken)? < broken.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.torn = false;
            while let Some(rest) = batch.get(written..).filter(|rest| !rest.is_empty()) {
                match self.place.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => written += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let failed = attempt().err();
        (written, failed.or(followed.err()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_to_its_network() {
        for (address, expected) in [
            ("203.0.113.9", "203.0.113.0/24"),
            ("::ffff:203.0.113.9", "203.0.113.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected);
        }
    }
}
