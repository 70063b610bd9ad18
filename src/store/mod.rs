//! What must be remembered, and the promises about it.
//!
//! A request asks once ([`Store::ask`]): what has been revoked, how full its buckets are and
//! what is known of its user, in one call. Everything else is a [`Change`], made whole or not
//! at all; a change of one [`Once`] is made once, however often and wherever it is tried, and
//! of several that replace one version of an [`Entry`] one is made.
//!
//! | | `memory` | file | Redis |
//! | --- | --- | --- | --- |
//! | a change that was answered | lives as long as the process | survives `kill -9` and power loss | survives what Redis survives; a revocation as long as a process that knew it |
//! | a change that was refused with an error | cannot be | may have been made all the same: try it again | the same |
//! | buckets | live as long as the process | the same: a restart fills them | are shared; the process's own while Redis is away |
//! | who may use it | the process | one process at a time | all |
//! | while it cannot be asked | cannot be | errors | revocations by the last known, records unknown, the rest errors |
//! | when it has lost what it knew | a restart: nothing is known | is refused at the start | revocations are put back; what is done once ([`Once::since`]) and could have been done before is an error; entries of before are gone |
//!
//! Where the clock steps back, what was swept stays forgotten, and no bucket takes longer than
//! its window to fill. Keys are hashes: a store holds no id that could be read from it. Records hold what an app
//! asked for of its users, and are as secret as they are.

mod file;
mod memory;
mod redis;
mod tables;

use crate::clock::{Clock, UnixSeconds};
use crate::config::{StoreDown, StoreSettings};
use crate::crypto::sha256;
use crate::explain::{Code, Refusal, Source};
use crate::redis_client::RedisClient;
use crate::telemetry::{Metrics, traces};
pub use file::{File, OpenError};
pub use memory::Memory;
pub use redis::Redis;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often what is over is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a record is kept that is neither fetched nor told again, seconds: of users who do
/// not come back nothing stays but that they were seen.
pub const RECORDS_KEPT: UnixSeconds = 30 * 86_400;

/// Milliseconds since the Unix epoch, as Clerk dates its objects and events.
pub type UnixMillis = i64;

/// What a key is about; no two kinds share a key. Their order is kept on disk: new ones come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session: issuer, session id.
    Session,
    /// A user: issuer, user id.
    User,
    /// A user in an organisation: issuer, user id, organisation id.
    Membership,
    /// An organisation: issuer, organisation id.
    Organization,
    /// A session id that was exchanged: issuer, session id.
    SessionIdUsed,
    /// A webhook event that was taken: issuer, event id.
    Event,
    /// A user that an app has seen: app, issuer, user id.
    FirstSeen,
    /// A bucket of a subject: app, issuer, subject.
    SubjectBucket,
    /// A bucket of a client address: the address or its network.
    AddressBucket,
    /// A user in an organisation as app tokens say it: issuer, user id, organisation id.
    MintedMembership,
    /// A family of refresh tokens: its id.
    RefreshFamily,
    /// An authorization code, by its hash.
    Code,
    /// A sign-in that came back: its state.
    SignIn,
    /// An assertion of a client that was used: client, `jti`.
    AssertionUsed,
    /// A DPoP proof that was used: key thumbprint, `jti`.
    ProofUsed,
    /// An app token that was revoked by itself: `jti`.
    AppToken,
    /// The clients that were registered at run time: all of them in one entry.
    Clients,
    /// The app tokens that were given with one family of refresh tokens: the grant's id.
    Grant,
}

/// A key: a hash of what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of these parts; their lengths keep them apart.
    pub fn of(kind: Kind, parts: &[&str]) -> Self {
        let mut text = Vec::with_capacity(128);
        text.push(kind as u8);
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = sha256(&text);
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }
}

/// What could have been revoked, and since when it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The session, user or membership.
    pub key: Key,
    /// When the token was issued that depends on it: a revocation at that time or later hits.
    pub since: UnixMillis,
}

/// Takes from a token bucket.
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// The bucket.
    pub key: Key,
    /// How many it holds.
    pub burst: u32,
    /// In how many seconds an empty one is full again.
    pub window: UnixSeconds,
    /// How many to take; never more than it holds.
    pub cost: u32,
}

/// All that a request asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'q> {
    /// What could have been revoked.
    pub standings: &'q [Standing],
    /// From which buckets to take.
    pub takes: &'q [Take],
    /// Which records to read.
    pub records: &'q [Key],
    /// Which entries to read.
    pub entries: &'q [Key],
    /// Whether the change of this [`Once`] was made before.
    pub done: Option<Key>,
}

/// How full a bucket is after a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// How many are left.
    pub left: u32,
    /// Seconds until it is full again.
    pub full_in: UnixSeconds,
    /// Where the take found too few: seconds until there are enough. Nothing was taken then.
    pub wait: Option<UnixSeconds>,
}

/// What the store knows.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The first of the standings that has been revoked, by its place in the question.
    pub revoked: Option<usize>,
    /// Each bucket's level, in the order of the question.
    pub levels: Vec<Level>,
    /// Each record, in the order of the question.
    pub records: Vec<Option<Record>>,
    /// Each entry that is not over, in the order of the question.
    pub entries: Vec<Option<Entry>>,
    /// Whether it was done before, and that is still remembered.
    pub done: bool,
}

/// Something known of a user, an organisation or a membership.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// When its provider last changed it: an older version never replaces a newer one.
    pub version: UnixMillis,
    /// When it was fetched or told; [`RECORDS_KEPT`] later it is forgotten.
    /// [`UnixSeconds::MAX`] for what is nobody's copy and is kept for good.
    pub fetched_at: UnixSeconds,
    /// JSON, or empty where the object was deleted.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({} bytes)", self.body.len())
    }
}

/// Something that is kept for a while, and of which each version has one successor: a family of
/// refresh tokens, an authorization code.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1, and one more each time that it is replaced.
    pub version: u64,
    /// Until when it is kept; then there is none.
    pub until: UnixSeconds,
    /// What it says.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.version, self.body.len())
    }
}

/// Puts an entry in the place of one version of it, and of no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Replace {
    /// Whose place it is.
    pub key: Key,
    /// The version that must be there; 0 where there must be none.
    pub version: u64,
    /// What is there afterwards: until when, and what it says; nothing where it ends.
    pub by: Option<(UnixSeconds, Vec<u8>)>,
}

impl Replace {
    /// The entry that comes in the place of the version before.
    fn entry(&self) -> Option<Entry> {
        let (until, body) = self.by.as_ref()?;
        Some(Entry {
            version: self.version.saturating_add(1),
            until: *until,
            body: body.clone(),
        })
    }

    /// Whether the entry that is there is the one to be replaced.
    fn fits(&self, there: Option<(u64, UnixSeconds)>, now: UnixSeconds) -> bool {
        let there = there.filter(|(_, until)| *until > now);
        there.map_or(0, |(version, _)| version) == self.version
    }
}

impl std::fmt::Debug for Replace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replace({}, …)", self.version)
    }
}

/// Makes a change once.
#[derive(Debug, Clone, Copy)]
pub struct Once {
    /// What is done once.
    pub key: Key,
    /// Until when that is remembered; then it could be done again.
    pub until: UnixSeconds,
    /// The earliest that it could have been done; `None` where doing it twice does no harm. A
    /// store that has lost since then what it knew refuses, for it cannot tell.
    pub since: Option<UnixSeconds>,
}

/// Revokes what was issued up to a time.
#[derive(Debug, Clone, Copy)]
pub struct Revocation {
    /// The session, user or membership.
    pub key: Key,
    /// What was issued then or earlier is revoked; [`UnixMillis::MAX`] revokes all. Of two
    /// revocations of one key the later counts.
    pub at: UnixMillis,
    /// Until when that is remembered: no token of it lives longer. Of two the longer counts.
    pub until: UnixSeconds,
}

/// A place in the status list, which one token has for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The place.
    pub index: u32,
    /// What would revoke the token.
    pub standings: Vec<Standing>,
    /// Until when it has the place.
    pub until: UnixSeconds,
}

/// A message to be delivered to somebody else, at least once.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, the same at each attempt.
    pub id: String,
    /// The app whose receiver it is for.
    pub app: String,
    /// When to try next.
    pub due: UnixSeconds,
    /// How often it was tried.
    pub attempts: u32,
    /// JSON.
    pub body: Vec<u8>,
}

impl Record {
    /// When it is forgotten.
    fn until(&self) -> UnixSeconds {
        self.fetched_at.saturating_add(RECORDS_KEPT)
    }
}

impl Message {
    fn lease(&mut self, now: UnixSeconds, lease: UnixSeconds) {
        self.due = now.saturating_add(lease);
        self.attempts = self.attempts.saturating_add(1);
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({}, {} bytes)", self.id, self.body.len())
    }
}

/// A change, made whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Where set, the change is made only if this was not done before.
    pub once: Option<Once>,
    /// Which entries are replaced, each once: where one is of another version, nothing is
    /// changed.
    pub entries: Vec<Replace>,
    /// What is revoked.
    pub revocations: Vec<Revocation>,
    /// Which places in the status list are taken: where one is taken already, nothing is
    /// changed.
    pub statuses: Vec<Status>,
    /// What is known anew; an older version is left out, the rest of the change is made.
    pub records: Vec<(Key, Record)>,
    /// What is to be delivered.
    pub messages: Vec<Message>,
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is made, and as durable as the store promises.
    Done,
    /// It was made before, an entry that it replaces is of another version, or a place that it
    /// takes is taken: nothing was changed.
    Repeated,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken, or given up: it is forgotten.
    Settled,
    /// It is tried again then.
    Again(UnixSeconds),
}

/// The store could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

impl StoreError {
    /// The refusal that this is for a caller.
    pub fn refusal(self) -> Box<Refusal> {
        Refusal::new(Code::StoreUnavailable)
            .unavailable(Source::Exchequer, 1)
            .caused_by(self)
    }
}

/// What a span of it says where it could not be read or written.
const UNAVAILABLE: &str = "store_unavailable";

/// A store.
pub enum Store {
    /// In this process.
    Memory(Memory),
    /// In an embedded file.
    File(File),
    /// In a Redis.
    Redis(Box<Redis>),
}

impl Store {
    /// The store that the settings name.
    pub fn open(settings: &StoreSettings, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        match settings {
            StoreSettings::Memory => Ok(Self::Memory(Memory::new(metrics))),
            StoreSettings::File(path) => Self::file(path, metrics),
            StoreSettings::Redis(settings) => {
                let clock = Clock::system();
                let client = RedisClient::new(
                    settings.as_ref().clone(),
                    clock.clone(),
                    Arc::clone(&metrics),
                );
                Ok(Self::redis(client, StoreDown::default(), clock, metrics))
            }
        }
    }

    /// The store in this file, which is made where there is none.
    pub fn file(path: &Path, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        File::open(path, metrics).map(Self::File)
    }

    /// The store in this Redis, which need not be connected yet.
    pub fn redis(
        client: Arc<RedisClient>,
        down: StoreDown,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::Redis(Box::new(Redis::new(client, down, clock, metrics)))
    }

    /// Whether it is elsewhere, and exchanges go on without it as far as policy allows.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Answers all that a request asks, in one call. Buckets are taken from whatever has been
    /// revoked.
    pub async fn ask(
        &self,
        question: Question<'_>,
        now: UnixSeconds,
    ) -> Result<Answer, StoreError> {
        let span = self.span("store ask");
        let answer = match self {
            Self::Memory(memory) => Ok(memory.ask(question, now)),
            Self::File(file) => file.ask(question, now).await,
            // Boxed, or whoever asks the others too would carry the room that a network needs.
            Self::Redis(redis) => Box::pin(redis.ask(question, now)).await,
        };
        span.ended(&answer, |_| UNAVAILABLE);
        answer
    }

    fn span(&self, name: &'static str) -> traces::Open {
        let span = traces::begin(name);
        let kind = match self {
            Self::Memory(_) => "memory",
            Self::File(_) => "file",
            Self::Redis(_) => "redis",
        };
        span.set("exchequer.store", kind);
        span
    }

    /// Makes a change; returns when it is as durable as the store promises.
    pub async fn commit(&self, change: Change, now: UnixSeconds) -> Result<Committed, StoreError> {
        let span = self.span("store commit");
        let committed = match self {
            Self::Memory(memory) => Ok(memory.commit(&change, now)),
            Self::File(file) => Box::pin(file.commit(change, now)).await,
            Self::Redis(redis) => Box::pin(redis.commit(change, now)).await,
        };
        span.ended(&committed, |_| UNAVAILABLE);
        committed
    }

    /// The places in the status list whose tokens were revoked, in ascending order. It looks at
    /// all that are taken: for whoever keeps what it says for a while.
    pub async fn revoked_statuses(&self, now: UnixSeconds) -> Result<Vec<u32>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.revoked_statuses(now)),
            Self::File(file) => file.revoked_statuses(now).await,
            Self::Redis(redis) => redis.revoked_statuses(now).await,
        }
    }

    /// Takes up to `most` messages that are due, those that wait longest first; nobody else gets
    /// them for `lease` seconds.
    pub async fn due(
        &self,
        now: UnixSeconds,
        lease: UnixSeconds,
        most: usize,
    ) -> Result<Vec<Message>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.due(now, lease, most)),
            Self::File(file) => file.due(now, lease, most).await,
            Self::Redis(redis) => redis.due(now, lease, most).await,
        }
    }

    /// Says what became of a message.
    pub async fn settle(&self, id: &str, delivery: Delivery) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.settle(id, delivery);
                Ok(())
            }
            Self::File(file) => file.settle(id, delivery).await,
            Self::Redis(redis) => redis.settle(id, delivery).await,
        }
    }

    /// Forgets what need no longer be remembered. No answer changes by it but that of records
    /// of [`RECORDS_KEPT`] ago, which are as if they had never been read.
    pub async fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.sweep(now);
                Ok(())
            }
            Self::File(file) => file.sweep(now).await,
            Self::Redis(redis) => redis.sweep(now).await,
        }
    }

    /// Learns, before anybody asks, what there is to be known of a store that others share; gives
    /// for how long it is not trusted yet with what is done once. Where it cannot be asked, that
    /// is made up for later.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub async fn begin(&self) -> Result<Duration, StoreError> {
        match self {
            Self::Memory(_) | Self::File(_) => Ok(Duration::ZERO),
            Self::Redis(redis) => redis.begin().await,
        }
    }

    /// Keeps learning what others do to the store, until the task is dropped.
    pub async fn keep_known(self: Arc<Self>) {
        if let Self::Redis(redis) = &*self {
            redis.keep_known().await;
        }
    }

    /// Sweeps again and again, until the task is dropped.
    pub async fn keep_swept(self: Arc<Self>, clock: Clock) {
        let mut each = tokio::time::interval(SWEEP_EVERY);
        loop {
            each.tick().await;
            if let Err(error) = self.sweep(clock.now()).await {
                tracing::warn!(%error, "the store was not swept");
            }
        }
    }
}
