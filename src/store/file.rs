//! The store in an embedded file (redb), for one process on one machine.
//!
//! What every exchange asks is answered from [`Memory`]: the revocations, read once at the start,
//! and the buckets, which are nowhere else. Records are read from the file when they are asked
//! for. A change goes to the writer, a thread of its own: it takes all changes that wait into one
//! transaction, so that they share its syncs; only when that is on disk does it put their
//! revocations into memory and answer. Whether a change was made before is judged within the
//! transaction, by the one thread that makes them all.
//!
//! Where the disk fails, the changes of that transaction are refused, what was known stays, and
//! the file is opened anew: it recovers to what was last on disk, or to the whole of what was
//! being written. Commits are in two phases, so that a file whose last commit cannot be read is
//! known to be damaged, and not taken for one that was interrupted.

use super::tables::{self, FORMAT, Made, Tables, Work};
use super::{
    Answer, Change, Committed, Delivery, Entry, Key, Memory, Message, Question, Record, StoreError,
};
use crate::clock::UnixSeconds;
use crate::telemetry::Metrics;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, StorageError, TableError};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How much of the file redb keeps in memory, bytes; its own default is 1 GiB.
const CACHE: usize = 4 << 20;

/// How many changes may wait, and how many share a transaction.
const QUEUE: usize = 1024;
const BATCH: usize = 256;

/// How long anybody waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// The records and the entries that were asked for, and whether something was done before.
type Rows = (Vec<Option<Record>>, Vec<Option<Entry>>, bool);

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Redis cannot be used.
    #[error("{0}")]
    Redis(String),
    /// The file system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{}: in use by another process; each needs a file of its own", .0.display())]
    InUse(PathBuf),
    /// Its bytes are not what was written.
    #[error(
        "{}: damaged, or no store ({cause}). Nothing was deleted. Bring a copy of it back; or move it away and start with an empty one, which has forgotten every revocation",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was seen.
        cause: String,
    },
    /// It was written by another version.
    #[error(
        "{}: written in format {found}, and this version reads format {FORMAT}. Nothing was deleted. Start the version that wrote it; or move it away and start with an empty one, which has forgotten every revocation",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The version of its layout.
        found: String,
    },
}

/// Something for the writer, and who waits for it.
struct Job {
    work: Work,
    answer: oneshot::Sender<Result<Made, StoreError>>,
}

/// The open file; `None` after the disk failed, until it can be opened again.
type Slot = RwLock<Option<Database>>;

/// A store in an embedded file. Dropping it waits until the writer has ended.
pub struct File {
    memory: Arc<Memory>,
    database: Arc<Slot>,
    metrics: Arc<Metrics>,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

struct Writer {
    path: PathBuf,
    memory: Arc<Memory>,
    database: Arc<Slot>,
    metrics: Arc<Metrics>,
    failing: bool,
}

impl File {
    /// Opens the file, or makes it; its folder too.
    pub(super) fn open(path: &Path, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        if !path.try_exists().map_err(|error| io_error(path, error))? {
            make(path)?;
        }
        let mut database = open(path)?;
        // What an interrupted process left was verified by opening it; this is for bit rot.
        guarded(path, || {
            let verified = database.check_integrity();
            verified.map(drop).map_err(|error| of(path, error))
        })?;
        let memory = Arc::new(Memory::new(Arc::clone(&metrics)));
        guarded(path, || load(path, &database, &memory, &metrics))?;
        let database = Arc::new(RwLock::new(Some(database)));
        let writer = Writer {
            path: path.to_owned(),
            memory: Arc::clone(&memory),
            database: Arc::clone(&database),
            metrics: Arc::clone(&metrics),
            failing: false,
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| io_error(path, error))?;
        Ok(Self {
            memory,
            database,
            metrics,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    pub(super) async fn ask(
        &self,
        question: Question<'_>,
        now: UnixSeconds,
    ) -> Result<Answer, StoreError> {
        let known = Question {
            records: &[],
            entries: &[],
            done: None,
            ..question
        };
        let answer = self.memory.ask(known, now);
        if question.records.is_empty() && question.entries.is_empty() && question.done.is_none() {
            return Ok(answer);
        }
        let (records, entries) = (question.records.to_vec(), question.entries.to_vec());
        let (done, database) = (question.done, Arc::clone(&self.database));
        let read = move || read(&database, &records, &entries, done, now);
        let (records, entries, done) = self.reading(read).await?;
        Ok(Answer {
            records,
            entries,
            done,
            ..answer
        })
    }

    /// Reads where a slow disk stalls nobody else.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = match timeout(PATIENCE, tokio::task::spawn_blocking(read)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(StoreError(error.to_string())),
            Err(_) => Err(late()),
        };
        read.inspect_err(|_| self.metrics.store_failed())
    }

    pub(super) async fn revoked_statuses(&self, now: UnixSeconds) -> Result<Vec<u32>, StoreError> {
        let (database, memory) = (Arc::clone(&self.database), Arc::clone(&self.memory));
        let read = move || {
            transaction(&database, |transaction| {
                let mut revoked = Vec::new();
                tables::each_status(transaction, now, |index, standings| {
                    let question = Question {
                        standings,
                        ..Question::default()
                    };
                    if memory.ask(question, now).revoked.is_some() {
                        revoked.push(index);
                    }
                })?;
                Ok(revoked)
            })
        };
        self.reading(read).await
    }

    pub(super) async fn commit(
        &self,
        change: Change,
        now: UnixSeconds,
    ) -> Result<Committed, StoreError> {
        let made = self.make(Work::Commit(change, now)).await?;
        Ok(made.committed)
    }

    pub(super) async fn due(
        &self,
        now: UnixSeconds,
        lease: UnixSeconds,
        most: usize,
    ) -> Result<Vec<Message>, StoreError> {
        Ok(self.make(Work::Due { now, lease, most }).await?.due)
    }

    pub(super) async fn settle(&self, id: &str, delivery: Delivery) -> Result<(), StoreError> {
        let settled = self.make(Work::Settle(id.to_owned(), delivery)).await;
        settled.map(drop)
    }

    pub(super) async fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        while self.make(Work::Sweep(now)).await?.more {}
        self.memory.sweep(now);
        Ok(())
    }

    /// Has the writer do it; after an error it may have been done all the same.
    async fn make(&self, work: Work) -> Result<Made, StoreError> {
        let (answer, answered) = oneshot::channel();
        let ended = || StoreError("the store's writer has ended".to_owned());
        let made = async {
            let jobs = self.jobs.as_ref().ok_or_else(ended)?;
            let sent = jobs.send(Job { work, answer }).await;
            sent.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        };
        let made = timeout(PATIENCE, made).await;
        made.unwrap_or_else(|_| Err(late()))
            .inspect_err(|_| self.metrics.store_failed())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                batch.push(job);
            }
            self.make(batch);
        }
    }

    fn make(&mut self, batch: Vec<Job>) {
        let began = Instant::now();
        // A panic of redb's, over pages that it cannot believe, is a failure like another.
        let made = catch_unwind(AssertUnwindSafe(|| self.transact(&batch)))
            .unwrap_or_else(|_| Err("the file holds what cannot be".to_owned()));
        match made {
            Ok((made, changed)) => {
                if changed {
                    self.metrics.store_committed(began.elapsed());
                }
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the store works again");
                }
                for (job, made) in batch.into_iter().zip(made) {
                    if let Work::Commit(change, now) = job.work
                        && made.committed == Committed::Done
                        && !change.revocations.is_empty()
                    {
                        let revocations = change.revocations;
                        let change = Change {
                            revocations,
                            ..Change::default()
                        };
                        self.memory.commit(&change, now);
                    }
                    let _ = job.answer.send(Ok(made));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(error, "the store cannot be changed");
                }
                // After a failed write redb stops for good. Records can be read meanwhile.
                if self.is_open() {
                    let _ = self.reopen();
                }
                for job in batch {
                    let _ = job.answer.send(Err(StoreError(error.clone())));
                }
            }
        }
    }

    /// Does all of it in one transaction; also tells whether there was anything to commit.
    fn transact(&self, batch: &[Job]) -> Result<(Vec<Made>, bool), String> {
        if !self.is_open() {
            self.reopen().map_err(|error| error.to_string())?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or("the file is not open")?;
        let transact = || -> Result<(Vec<Made>, bool), redb::Error> {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let mut tables = Tables::open(&transaction)?;
            let made = batch.iter().map(|job| tables.make(&job.work));
            let made = made.collect::<Result<Vec<Made>, StorageError>>()?;
            let (changed, waiting) = (tables.changed, tables.waiting()?);
            drop(tables);
            if changed {
                transaction.commit()?;
                self.metrics.events_waiting(waiting);
            } else {
                transaction.abort()?;
            }
            Ok((made, changed))
        };
        transact().map_err(|error| error.to_string())
    }

    fn is_open(&self) -> bool {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.is_some()
    }

    /// Opens the file anew; one that is gone is not made again. A change that was refused may be in it after all: then memory knows
    /// it too from now on.
    fn reopen(&self) -> Result<(), OpenError> {
        let mut slot = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Closed first: it is locked.
        *slot = None;
        let database = open(&self.path)?;
        guarded(&self.path, || {
            load(&self.path, &database, &self.memory, &self.metrics)
        })?;
        *slot = Some(database);
        Ok(())
    }
}

fn late() -> StoreError {
    StoreError("the disk did not answer in time".to_owned())
}

fn read(
    database: &Slot,
    records: &[Key],
    entries: &[Key],
    done: Option<Key>,
    now: UnixSeconds,
) -> Result<Rows, StoreError> {
    transaction(database, |transaction| {
        let records = tables::records(transaction, records)?;
        let entries = tables::entries(transaction, entries, now)?;
        let done = done.map(|key| tables::done(transaction, key));
        let until = done.transpose()?.flatten();
        Ok((records, entries, until.is_some_and(|until| until > now)))
    })
}

/// Reads in a transaction.
fn transaction<T>(
    database: &Slot,
    read: impl FnOnce(&ReadTransaction) -> Result<T, TableError>,
) -> Result<T, StoreError> {
    let database = database.read().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = database.as_ref() else {
        return Err(StoreError("the file is not open".to_owned()));
    };
    let read = || -> Result<T, redb::Error> { Ok(read(&database.begin_read()?)?) };
    read().map_err(|error| StoreError(error.to_string()))
}

/// Opens the file, which is there. Other formats are refused.
fn open(path: &Path) -> Result<Database, OpenError> {
    let io = |error| io_error(path, error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io)?;
    let exposed = file.metadata().map_err(io)?.mode() & 0o077 != 0;
    if exposed && let Err(error) = file.set_permissions(Permissions::from_mode(0o600)) {
        tracing::warn!(%error, "others may read the store: chmod 600 it");
    }
    guarded(path, || {
        let database = Builder::new()
            .set_cache_size(CACHE)
            .create_file(file)
            .map_err(|error| of(path, error))?;
        let format = || -> Result<_, redb::Error> { Ok(tables::format(&database.begin_read()?)?) };
        match format().map_err(|error| of(path, error))? {
            Some(FORMAT) => {}
            None => fill(&database).map_err(|error| of(path, error))?,
            Some(0) => return Err(damaged(path, "its tables are another program's")),
            Some(other) => {
                return Err(OpenError::Format {
                    path: path.to_owned(),
                    found: other.to_string(),
                });
            }
        }
        Ok(database)
    })
}

/// Makes an empty store under another name and then gives it its own, so that no moment leaves
/// half of one; never in the place of one that is there.
fn make(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let io = |error| io_error(path, error);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .map_err(|error| io_error(folder, error))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = folder.join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(io)?;
    let made = || -> Result<(), redb::Error> { fill(&Builder::new().create_file(file)?) };
    let linked = made().map_err(|error| of(path, error)).and_then(|()| {
        match fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(io(error)),
            _ => Ok(()),
        }
    });
    fs::remove_file(&unfinished).map_err(io)?;
    linked?;
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| io_error(folder, error))
}

fn fill(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    tables::make(&transaction)?;
    Ok(transaction.commit()?)
}

/// Reads what memory answers; the file is right where they differ.
fn load(
    path: &Path,
    database: &Database,
    memory: &Memory,
    metrics: &Metrics,
) -> Result<(), OpenError> {
    let read = || -> Result<_, redb::Error> {
        let transaction = database.begin_read()?;
        let revocations = tables::revocations(&transaction)?;
        Ok((revocations, tables::waiting(&transaction)?))
    };
    let (revocations, waiting) = read().map_err(|error| of(path, error))?;
    metrics.events_waiting(waiting);
    let change = Change {
        revocations,
        ..Change::default()
    };
    memory.commit(&change, UnixSeconds::MAX);
    Ok(())
}

/// redb panics over some damage.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "it holds what cannot be")))
}

/// What an error of redb's means for whoever opens the file.
fn of(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        redb::Error::UpgradeRequired(version) => OpenError::Format {
            path: path.to_owned(),
            found: format!("{version} of redb's"),
        },
        redb::Error::Io(error)
            if !matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            io_error(path, error)
        }
        other => damaged(path, other),
    }
}

fn damaged(path: &Path, cause: impl ToString) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        cause: cause.to_string(),
    }
}

fn io_error(path: &Path, error: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        error,
    }
}
