//! The ring in Redis, for all replicas: one sealed document, changed only from the version that
//! whoever changes it has read.
//!
//! The version stands beside the document in clear, the generation and the name of the save:
//! it is what is compared before a change is made, and all that is asked for each second.

use super::ring::Ring;
use super::sealed::{self, SealError};
use crate::clock::UnixSeconds;
use crate::config::KeySecret;
use crate::redis_client::{RedisClient, RedisError};
use redis::{Pipeline, Value};
use std::sync::Arc;

/// Sets the document where its version is still the one that was read, and was read just now;
/// gives 1 then, else 0. Of a process that slept meanwhile the times in it would be wrong.
const REPLACE: &str = "
local version = redis.call('HGET', KEYS[1], 'version') or ''
local age = redis.call('TIME')[1] - ARGV[4]
if version ~= ARGV[1] or age > 10 then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'document', ARGV[3])
return 1";
/// What is there, and the server's time, the same for all replicas, in one round trip.
const LOOK: &str = "
local time = redis.call('TIME')[1]
local version = redis.call('HGET', KEYS[1], 'version')
if ARGV[1] == 'version' then return {time, version} end
return {time, version, redis.call('HGET', KEYS[1], 'document')}";
/// The largest document that is read, bytes: a ring has a few KiB.
const LARGEST: usize = 1 << 20;

/// Why the shared ring cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The server said something that the command does not.
    #[error("Redis answered what it never should")]
    Answer,
    /// The document is there and cannot be used, and is not ours to replace.
    #[error("in Redis: {0}")]
    Unreadable(SealError),
}

/// The ring in Redis.
pub struct SharedRing {
    redis: Arc<RedisClient>,
    key: String,
    secret: Option<KeySecret>,
}

/// A version and a document, where they are there.
type Parts = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What is there.
pub enum Document {
    /// Nothing.
    Nothing,
    /// Not what anybody with the secret wrote; its version, as it stands there.
    Damaged(Vec<u8>),
    /// A ring.
    Ring(Ring),
}

impl Document {
    /// The version that a change of it must name.
    pub fn version(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Damaged(version) => version.clone(),
            Self::Ring(ring) => ring.version().into_bytes(),
        }
    }
}

impl SharedRing {
    /// The ring in this Redis, sealed with this secret; without one nothing is read or written.
    pub fn new(redis: Arc<RedisClient>, secret: Option<KeySecret>) -> Self {
        let prefix = &redis.settings().prefix;
        Self {
            key: format!("{prefix}:1:{{{prefix}}}:ring"),
            redis,
            secret,
        }
    }

    /// Where it is, for people: without a password.
    pub fn place(&self) -> String {
        format!("{} in Redis, {}", self.key, self.redis.place())
    }

    /// Connects once, where there is no connection yet.
    pub async fn connect(&self) -> Result<(), SharedError> {
        if !self.redis.is_there() {
            self.redis.connect().await?;
        }
        Ok(())
    }

    async fn eval(&self, script: &str, arguments: &[&[u8]]) -> Result<Value, SharedError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("EVAL").arg(script).arg(1).arg(&self.key);
        for argument in arguments {
            pipeline.arg(*argument);
        }
        match self.redis.run(&pipeline).await?.pop() {
            Some(Value::ServerError(error)) => {
                Err(RedisError::Failed(redis::RedisError::from(error).to_string()).into())
            }
            Some(value) => Ok(value),
            None => Err(SharedError::Answer),
        }
    }

    /// The server's time, and these parts of what is there.
    async fn look(&self, what: &str) -> Result<(UnixSeconds, Parts), SharedError> {
        let Value::Array(values) = self.eval(LOOK, &[what.as_bytes()]).await? else {
            return Err(SharedError::Answer);
        };
        let mut values = values.into_iter();
        let mut next = || match values.next() {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(SharedError::Answer),
        };
        let time = next()?.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        let time = time.ok_or(SharedError::Answer)?;
        Ok((time, (next()?, next()?)))
    }

    /// The server's time, and the version of what is there; `None` where nothing is.
    pub async fn version(&self) -> Result<(UnixSeconds, Option<Vec<u8>>), SharedError> {
        let (time, (version, _)) = self.look("version").await?;
        Ok((time, version))
    }

    /// The server's time, and what is there.
    pub async fn read(&self) -> Result<(UnixSeconds, Document), SharedError> {
        let (time, (version, document)) = self.look("document").await?;
        let Some(document) = document else {
            return Ok((time, version.map_or(Document::Nothing, Document::Damaged)));
        };
        let version = version.unwrap_or_default();
        // Whoever can write to Redis without the secret could put a ring in clear there.
        if document.len() > LARGEST || !sealed::is_sealed(&document) {
            return Ok((time, Document::Damaged(version)));
        }
        match sealed::open(&document, self.secret.as_ref()) {
            Ok(ring) if ring.version().as_bytes() == version => Ok((time, Document::Ring(ring))),
            Ok(_) | Err(SealError::Damaged) => Ok((time, Document::Damaged(version))),
            Err(error) => Err(SharedError::Unreadable(error)),
        }
    }

    /// Puts a ring there, if what is there still has the version that it had when it was read,
    /// by the server's time; gives whether it had. After an error it may have been put there all
    /// the same.
    pub async fn replace(
        &self,
        version: &[u8],
        read_at: UnixSeconds,
        ring: &Ring,
    ) -> Result<bool, SharedError> {
        if self.secret.is_none() {
            return Err(SharedError::Unreadable(SealError::SecretMissing));
        }
        let document = sealed::seal(ring, self.secret.as_ref()).map_err(SharedError::Unreadable)?;
        let new = ring.version();
        let read_at = read_at.to_string();
        let arguments = [version, new.as_bytes(), &document, read_at.as_bytes()];
        match self.eval(REPLACE, &arguments).await? {
            Value::Int(done) => Ok(done == 1),
            _ => Err(SharedError::Answer),
        }
    }
}
