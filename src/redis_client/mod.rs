//! Redis, as all who use it share it: one connection to a server, one deadline for each round
//! trip, and a breaker.
//!
//! A round trip that fails or takes too long closes the connection and opens the breaker: from
//! then on nobody waits, all are told at once that there is no Redis. One task alone connects
//! anew, and closes the breaker when a server answers within the deadline. So a server that hangs
//! costs whoever asks at that moment one deadline, and nobody after them anything.
//!
//! Nothing is sent twice, but what a Cluster says was not done where it was sent. The library
//! encodes, decodes and multiplexes; connecting, deadlines, sentinels and the map of a Cluster are
//! here, because its own retries and queues know no deadline of ours, and its Cluster holds up all
//! requests while one node is looked for.

use crate::clock::Clock;
use crate::config::{Node, RedisSettings, Topology};
use crate::telemetry::Metrics;
use cluster::Cluster;
use connection::{Place, ServerTime};
use link::{Cause, Link};
use rand::Rng;
use redis::{Pipeline, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

mod cluster;
mod connection;
mod link;
mod sentinel;
mod tls;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a sentinel may take.
const SENTINEL: Duration = Duration::from_millis(500);
/// The longest pause before an attempt to connect, where the one before failed or did not last.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How often a server that answers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// In how many looks the sentinels are asked once.
const SENTINELS_EVERY: u32 = 5;
/// From how many seconds on a difference of the clocks is worth a line of the log.
const FAR_APART: i64 = 60;

/// Why there is no answer. A change may have been made all the same, but where nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// The breaker is open: nothing was sent.
    #[error("Redis is not there")]
    Away,
    /// So many wait for the server that one more would only wait in vain: nothing was sent.
    #[error("{0} requests wait for Redis")]
    Full(usize),
    /// The round trip took longer than its deadline.
    #[error("Redis did not answer within {0:?}")]
    Late(Duration),
    /// The connection failed, or the server refused to serve.
    #[error("Redis: {0}")]
    Failed(String),
}

/// A Redis.
pub struct RedisClient {
    settings: RedisSettings,
    servers: Servers,
    lost: Arc<Notify>,
    ahead: AtomicI64,
    clock: Clock,
    metrics: Arc<Metrics>,
}

enum Servers {
    One(Link),
    Cluster(Box<Cluster>),
}

impl RedisClient {
    /// The Redis of these settings, not connected yet.
    pub fn new(settings: RedisSettings, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        let lost = Arc::new(Notify::new());
        let servers = match &settings.topology {
            Topology::Cluster(seeds) => {
                let cluster = Cluster::new(seeds.clone(), settings.clone(), &lost, &metrics);
                Servers::Cluster(Box::new(cluster))
            }
            _ => Servers::One(Link::new(&settings, &lost, &metrics)),
        };
        metrics.redis_up(false);
        Arc::new(Self {
            settings,
            servers,
            lost,
            ahead: AtomicI64::new(0),
            clock,
            metrics,
        })
    }

    /// How it is asked.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// How many seconds the server's clock is ahead of ours, as of the last look; of several
    /// servers', that which differs most.
    pub fn clock_ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Whether the breaker is closed; of a Cluster, that of one server at least.
    pub fn is_there(&self) -> bool {
        match &self.servers {
            Servers::One(link) => link.is_closed(),
            Servers::Cluster(cluster) => cluster.is_there(),
        }
    }

    /// Runs commands whose keys share one slot, in one round trip; each has its own answer, an
    /// error of the server among them ([`Value::ServerError`]). They are no transaction: what must
    /// be done whole is a script.
    pub async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        if pipeline.is_transaction() {
            // Its answers are not as many as its commands: others would get those left over.
            return Err(RedisError::Failed("a transaction is not sent".to_owned()));
        }
        match &self.servers {
            Servers::One(link) => link.run(pipeline, self.settings.deadline).await,
            Servers::Cluster(cluster) => cluster.run(pipeline).await,
        }
    }

    /// Runs commands without keys at each server that is asked: the one, or all primaries of a
    /// Cluster.
    pub async fn run_at_each(
        &self,
        pipeline: &Pipeline,
    ) -> Vec<(String, Result<Vec<Value>, RedisError>)> {
        let deadline = self.settings.deadline;
        match &self.servers {
            Servers::One(link) => {
                let place = link
                    .live()
                    .map_or(String::new(), |live| live.place.to_string());
                vec![(place, link.run(pipeline, deadline).await)]
            }
            Servers::Cluster(cluster) => {
                let mut answers = Vec::new();
                for (node, link) in cluster.links() {
                    answers.push((node.to_string(), link.run(pipeline, deadline).await));
                }
                answers
            }
        }
    }

    /// Connects once; whoever needs a Redis at once says by the error why there is none.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let now = || self.clock.now();
        let ahead = match &self.servers {
            Servers::Cluster(cluster) => cluster.renew(now).await?,
            Servers::One(link) => {
                let places = match link.is_closed() {
                    true => Vec::new(),
                    false => self.places().await?,
                };
                let time = link.connect(&self.settings, &places).await?;
                time.and_then(|time| time.ahead_of(now()))
            }
        };
        self.compare_clocks(ahead);
        self.metrics.redis_up(true);
        Ok(())
    }

    /// Where the one server is; of sentinels, where they say that it is.
    async fn places(&self) -> Result<Vec<Place>, RedisError> {
        match &self.settings.topology {
            Topology::Unix(path) => Ok(vec![Place::Unix(path.clone())]),
            Topology::Single(node) => Ok(vec![Place::Tcp(node.clone())]),
            Topology::Sentinel { sentinels, name } => {
                let named = sentinel::primaries(&self.settings, sentinels, name).await?;
                Ok(named
                    .into_iter()
                    .map(|(node, _)| Place::Tcp(node))
                    .collect())
            }
            Topology::Cluster(_) => Ok(Vec::new()),
        }
    }

    fn compare_clocks(&self, ahead: Option<i64>) {
        let Some(ahead) = ahead else { return };
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        self.metrics.redis_clock_ahead(ahead);
        if ahead.abs() > FAR_APART && before.abs() <= FAR_APART {
            tracing::warn!(
                seconds = ahead,
                "the clock of Redis is far ahead of ours, or far behind: correct one of them (NTP)"
            );
        }
    }

    /// Connects again and again where there is no connection, for ever, and looks at the servers
    /// that there are.
    pub async fn keep_connected(self: Arc<Self>) {
        let mut pause = Duration::ZERO;
        let mut said = None;
        for look in 0_u32.. {
            let seen = self.look(look).await.err();
            self.metrics.redis_up(seen.is_none());
            if seen != said {
                match &seen {
                    Some(error) => tracing::warn!(%error, "Redis is not there, or not all of it"),
                    None => tracing::info!("Redis is there"),
                }
            }
            let well = seen.is_none();
            said = seen;
            if well && timeout(LOOK_EVERY, self.lost.notified()).await.is_err() {
                pause = Duration::ZERO;
                continue;
            }
            // Full jitter: replicas that lost a server together do not come back together.
            let part = rand::rng().random_range(0.0..=1.0);
            tokio::time::sleep(pause.mul_f64(part)).await;
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Looks at the servers, and connects where there is no connection.
    async fn look(&self, number: u32) -> Result<(), RedisError> {
        let Servers::One(link) = &self.servers else {
            return self.connect().await;
        };
        let Some(live) = link.live().filter(|_| !link.lacks()) else {
            return self.connect().await;
        };
        let mut question = Pipeline::new();
        question.cmd("TIME");
        let began = Instant::now();
        let mut answer = link.look(&question).await?;
        let time = ServerTime::read(answer.pop().unwrap_or(Value::Nil), began.elapsed());
        self.compare_clocks(time.ahead_of(self.clock.now()));
        if let Topology::Sentinel { sentinels, name } = &self.settings.topology
            && number.is_multiple_of(SENTINELS_EVERY)
            && sentinel::moved(&self.settings, sentinels, name, &live.place).await
        {
            let error = RedisError::Failed(format!("{} is the primary no more", live.place));
            link.open(&live, Cause::Moved, &error);
            return self.connect().await;
        }
        Ok(())
    }

    /// The servers of the settings, for people: never a password.
    pub fn place(&self) -> String {
        let list = |nodes: &[Node]| {
            let nodes: Vec<String> = nodes.iter().map(Node::to_string).collect();
            nodes.join(", ")
        };
        match &self.settings.topology {
            Topology::Single(node) => node.to_string(),
            Topology::Unix(path) => path.display().to_string(),
            Topology::Sentinel { sentinels, name } => {
                format!("{name} of the sentinels {}", list(sentinels))
            }
            Topology::Cluster(seeds) => format!("the Cluster of {}", list(seeds)),
        }
    }
}
