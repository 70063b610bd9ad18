//! The way to one server, with its breaker: closed while there is a connection, open while there
//! is none.
//!
//! Where changes wait for replicas (WAIT), they have a connection and a breaker of their own: the
//! server answers nothing else on a connection that waits, and a replica that is missing must not
//! hold up who only asks.

use super::RedisError;
use super::connection::{Connection, Place, ServerTime, said};
use crate::config::RedisSettings;
use crate::telemetry::Metrics;
use arc_swap::ArcSwapOption;
use redis::{Arg, Pipeline, ServerError, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A round trip missed its deadline.
    Late,
    /// The connection failed.
    Connection,
    /// The server said that it cannot serve.
    Server,
    /// The sentinels say that another server is the primary.
    Moved,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Moved => "moved",
        }
    }
}

/// The way to one server.
pub(super) struct Link {
    live: ArcSwapOption<Connection>,
    /// For what waits for replicas; where nothing does, there is none.
    waiting: ArcSwapOption<Connection>,
    waits: bool,
    deadline: Duration,
    lost: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Link {
    pub(super) fn new(
        settings: &RedisSettings,
        lost: &Arc<Notify>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            live: ArcSwapOption::empty(),
            waiting: ArcSwapOption::empty(),
            waits: settings.replicas > 0,
            deadline: settings.deadline,
            lost: Arc::clone(lost),
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether the breaker is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.live.load().is_some()
    }

    pub(super) fn live(&self) -> Option<Arc<Connection>> {
        self.live.load_full()
    }

    /// Whether a connection is missing.
    pub(super) fn lacks(&self) -> bool {
        !self.is_closed() || self.waits && self.waiting.load().is_none()
    }

    /// Connects what is not connected, to the first of these places that can serve. Gives that
    /// server's time.
    pub(super) async fn connect(
        &self,
        settings: &RedisSettings,
        places: &[Place],
    ) -> Result<Option<ServerTime>, RedisError> {
        let mut seen = None;
        let mut why = RedisError::Away;
        for place in places {
            if self.is_closed() {
                break;
            }
            match Connection::to_primary(settings, place).await {
                Err(error) => why = error,
                Ok((connection, time)) => {
                    self.metrics.redis_connected();
                    self.live.store(Some(Arc::new(connection)));
                    seen = Some(time);
                }
            }
        }
        let live = self.live().ok_or(why)?;
        if self.lacks() {
            let (connection, _) = Connection::to_primary(settings, &live.place).await?;
            self.metrics.redis_connected();
            self.waiting.store(Some(Arc::new(connection)));
        }
        Ok(seen)
    }

    /// One round trip.
    pub(super) async fn run(
        &self,
        pipeline: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let lane = match self.waits && waits(pipeline) {
            true => &self.waiting,
            false => &self.live,
        };
        let Some(live) = lane.load_full() else {
            self.metrics.redis_refused("away");
            return Err(RedisError::Away);
        };
        let began = Instant::now();
        let answer = live.ask(pipeline, within).await;
        if answer.is_ok() {
            self.metrics.redis_answered(began.elapsed());
        }
        self.judge(&live, answer, within)
    }

    /// Asks what is answered after all that was asked before.
    pub(super) async fn look(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        if let Some(waiting) = self.waiting.load_full() {
            let answer = waiting.look(pipeline, self.deadline).await;
            self.judge(&waiting, answer, self.deadline)?;
        }
        let live = self.live().ok_or(RedisError::Away)?;
        let answer = live.look(pipeline, self.deadline).await;
        self.judge(&live, answer, self.deadline)
    }

    fn judge(
        &self,
        live: &Arc<Connection>,
        answer: Result<Vec<Value>, RedisError>,
        within: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let (cause, error) = match answer {
            Ok(values) => match values.iter().find_map(cannot_serve) {
                None => return Ok(values),
                Some(error) => (
                    Cause::Server,
                    RedisError::Failed(format!("{}: {}", live.place, said(error))),
                ),
            },
            Err(error @ (RedisError::Away | RedisError::Full(_))) => {
                self.metrics.redis_refused("full");
                return Err(error);
            }
            // What was left of a deadline may be too little for any server.
            Err(error @ RedisError::Late(_)) if within * 2 < self.deadline => return Err(error),
            Err(error @ RedisError::Late(_)) => (Cause::Late, error),
            Err(error @ RedisError::Failed(_)) => (Cause::Connection, error),
        };
        self.open(live, cause, &error);
        Err(error)
    }

    /// Opens the breaker, where that connection is still the one in use.
    pub(super) fn open(&self, broken: &Arc<Connection>, cause: Cause, error: &RedisError) {
        let broken = Some(Arc::clone(broken));
        let opened = |lane: &ArcSwapOption<Connection>| {
            let before = lane.compare_and_swap(&broken, None);
            before.as_ref().map(Arc::as_ptr) == broken.as_ref().map(Arc::as_ptr)
        };
        let first = opened(&self.live);
        if first {
            // Both are to one server, always.
            self.waiting.store(None);
        }
        if first || opened(&self.waiting) {
            let cause = cause.name();
            tracing::warn!(%error, cause, "the connection to Redis is given up");
            self.metrics.redis_breaker_opened(cause);
            self.metrics.redis_up(false);
            self.lost.notify_one();
        }
    }
}

fn waits(pipeline: &Pipeline) -> bool {
    let name = |word: Arg<&[u8]>| matches!(word, Arg::Simple(b"WAIT" | b"WAITAOF"));
    pipeline
        .cmd_iter()
        .any(|command| command.args_iter().next().is_some_and(name))
}

/// Whether this is the error of a server that can serve nobody now, as one that lost its role, or
/// reads its file. An error of one command alone, or of a full memory, is not.
fn cannot_serve(value: &Value) -> Option<&ServerError> {
    match value {
        Value::ServerError(error) => matches!(
            error.code(),
            "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "BUSY"
        )
        .then_some(error),
        _ => None,
    }
}
