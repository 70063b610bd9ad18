//! Redis, as all who use it share it: one connection, one deadline for each round trip, and a
//! breaker.
//!
//! A round trip that fails or takes too long closes the connection and opens the breaker: from
//! then on nobody waits, all are told at once that there is no Redis. One task alone connects
//! anew, and closes the breaker when a server answers. So a server that hangs costs whoever asks
//! at that moment one deadline, and nobody after them anything.

use crate::clock::Clock;
use crate::config::RedisSettings;
use crate::telemetry::Metrics;
use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

mod address;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// The first pause after an attempt to connect that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a server that answers is asked for its time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why there is no answer. A change may have been made all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// The breaker is open: nothing was sent.
    #[error("Redis is not there")]
    Away,
    /// The round trip took longer than its deadline.
    #[error("Redis did not answer within {0:?}")]
    Late(Duration),
    /// The connection failed, or the server refused the command.
    #[error("Redis: {0}")]
    Failed(String),
}

/// A Redis.
pub struct RedisClient {
    settings: RedisSettings,
    link: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
    ahead: AtomicI64,
    clock: Clock,
    #[expect(dead_code, reason = "what is counted comes next")]
    metrics: Arc<Metrics>,
}

impl RedisClient {
    /// The Redis of these settings, not connected yet.
    pub fn new(settings: RedisSettings, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            link: ArcSwapOption::empty(),
            lost: Notify::new(),
            ahead: AtomicI64::new(0),
            clock,
            metrics,
        })
    }

    /// How it is asked.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// How many seconds the server's clock is ahead of ours, as of the last look.
    pub fn clock_ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Whether the breaker is closed.
    pub fn is_there(&self) -> bool {
        self.link.load().is_some()
    }

    /// Runs commands whose keys share one slot, in one round trip; each has its own answer, an
    /// error of the server among them ([`Value::ServerError`]).
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let link = self.link.load_full().ok_or(RedisError::Away)?;
        let mut connection = MultiplexedConnection::clone(&link);
        let deadline = self.settings.deadline;
        let asked = connection.req_packed_commands(pipeline, 0, pipeline.len());
        let failed = match timeout(deadline, asked).await {
            Ok(Ok(values)) => return Ok(values),
            Ok(Err(error)) => RedisError::Failed(error.to_string()),
            Err(_) => RedisError::Late(deadline),
        };
        self.trip(&link);
        Err(failed)
    }

    /// Opens the breaker, where that connection is still the one in use.
    fn trip(&self, broken: &Arc<MultiplexedConnection>) {
        let broken = Some(Arc::clone(broken));
        let before = self.link.compare_and_swap(&broken, None);
        if before.as_ref().map(Arc::as_ptr) == broken.as_ref().map(Arc::as_ptr) {
            self.lost.notify_one();
        }
    }

    /// Connects once; whoever needs a Redis at once says by the error why there is none.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let failed = |error: redis::RedisError| RedisError::Failed(error.to_string());
        let client = address::of(&self.settings)
            .and_then(Client::open)
            .map_err(failed)?;
        // Deadlines are ours.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connecting = async {
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            let time = connection.req_packed_command(&redis::cmd("TIME")).await?;
            Ok((connection, time))
        };
        let (connection, time) = timeout(CONNECT, connecting)
            .await
            .map_err(|_| RedisError::Late(CONNECT))?
            .map_err(failed)?;
        self.compare_clocks(time);
        self.link.store(Some(Arc::new(connection)));
        Ok(())
    }

    fn compare_clocks(&self, time: Value) {
        if let Ok((seconds, _)) = redis::from_redis_value::<(i64, i64)>(time) {
            self.ahead
                .store(seconds - self.clock.now(), Ordering::Relaxed);
        }
    }

    /// Connects again and again where there is no connection, for ever.
    pub async fn keep_connected(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.is_there() {
                let mut time = Pipeline::new();
                time.cmd("TIME");
                if let Ok(mut values) = self.run(&time).await
                    && let Some(time) = values.pop()
                {
                    self.compare_clocks(time);
                }
                let _ = timeout(LOOK_EVERY, self.lost.notified()).await;
                continue;
            }
            match self.connect().await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "no connection to Redis");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
