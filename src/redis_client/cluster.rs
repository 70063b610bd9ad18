//! A Redis Cluster (Redis Cluster specification): a link to each primary, and the slots that each
//! of them serves.
//!
//! Each link has a breaker of its own, so a primary that is gone costs the slots that it serves,
//! and nobody else anything.

use super::connection::{Connection, Place, ServerTime, said};
use super::link::Link;
use super::{CONNECT, RedisError};
use crate::config::{Node, RedisSettings};
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use crc16::{State, XMODEM};
use futures_util::future::join_all;
use redis::{Arg, Cmd, Pipeline, ServerError, ServerErrorKind, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

const SLOTS: usize = 16_384;
/// How many times commands are sent elsewhere, as the servers say, within their one deadline.
const REDIRECTS: usize = 4;
/// How long commands whose keys are being moved wait (TRYAGAIN).
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// A Cluster.
pub(super) struct Cluster {
    seeds: Vec<Node>,
    settings: RedisSettings,
    map: ArcSwap<Map>,
    /// Tells who keeps the map that it is old.
    lost: Arc<Notify>,
    /// Tells who waits that there is a new map.
    renewed: Notify,
    metrics: Arc<Metrics>,
}

/// Who serves what.
#[derive(Default)]
struct Map {
    links: BTreeMap<Node, Arc<Link>>,
    /// The primary of each slot.
    slots: Vec<Option<Arc<Link>>>,
}

/// The Cluster as one of its nodes sees it.
struct View {
    /// Whether it says that all slots are served.
    well: bool,
    /// Grows with each change: of two views that of the greater epoch is newer.
    epoch: u64,
    /// The first and last slot of each range, and its primary.
    ranges: Vec<(usize, usize, Node)>,
    time: ServerTime,
}

impl Cluster {
    pub(super) fn new(
        seeds: Vec<Node>,
        settings: RedisSettings,
        lost: &Arc<Notify>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            seeds,
            settings,
            map: ArcSwap::default(),
            lost: Arc::clone(lost),
            renewed: Notify::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether any of its primaries can be asked.
    pub(super) fn is_there(&self) -> bool {
        self.map.load().links.values().any(|link| link.is_closed())
    }

    /// Its primaries.
    pub(super) fn links(&self) -> Vec<(Node, Arc<Link>)> {
        let map = self.map.load();
        let links = map.links.iter();
        links
            .map(|(node, link)| (node.clone(), Arc::clone(link)))
            .collect()
    }

    /// Runs commands whose keys share one slot where that slot is served.
    pub(super) async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let began = Instant::now();
        let slot = pipeline.cmd_iter().find_map(slot);
        let link = self.serving(slot).ok_or_else(|| {
            self.metrics.redis_refused("away");
            RedisError::Away
        })?;
        let mut values = link.run(pipeline, self.settings.deadline).await?;
        for _ in 0..REDIRECTS {
            let Some(error) = values.iter().find_map(redirection) else {
                return Ok(values);
            };
            let left = self.settings.deadline.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(RedisError::Late(self.settings.deadline));
            }
            let kind = error.kind();
            let link = match kind {
                Some(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                    self.lost.notify_one();
                    self.named(error, slot, left).await?
                }
                Some(ServerErrorKind::TryAgain) => {
                    tokio::time::sleep(TRY_AGAIN).await;
                    self.serving(slot).ok_or(RedisError::Away)?
                }
                _ => {
                    self.lost.notify_one();
                    return Err(RedisError::Failed(said(error)));
                }
            };
            let left = self.settings.deadline.saturating_sub(began.elapsed());
            let asking = kind == Some(ServerErrorKind::Ask);
            // The others were done.
            let again: Vec<usize> = values
                .iter()
                .enumerate()
                .filter(|(_, value)| redirection(value).is_some_and(|one| one.kind() == kind))
                .map(|(index, _)| index)
                .collect();
            let mut commands = Pipeline::new();
            for (_, command) in pipeline
                .cmd_iter()
                .enumerate()
                .filter(|(index, _)| again.contains(index))
            {
                if asking {
                    commands.cmd("ASKING");
                }
                commands.add_command(command.clone());
            }
            let answers = link.run(&commands, left).await?;
            let step = if asking { 2 } else { 1 };
            for (index, answer) in again
                .into_iter()
                .zip(answers.into_iter().skip(step - 1).step_by(step))
            {
                if let Some(value) = values.get_mut(index) {
                    *value = answer;
                }
            }
        }
        Err(RedisError::Failed(
            "the Cluster sends us to and fro".to_owned(),
        ))
    }

    /// Who serves the slot, or whoever can be asked where a command has no key.
    fn serving(&self, slot: Option<usize>) -> Option<Arc<Link>> {
        let map = self.map.load();
        match slot {
            Some(slot) => map.slots.get(slot)?.clone(),
            None => map.links.values().find(|link| link.is_closed()).cloned(),
        }
    }

    /// The link to the node that a redirection names. One that is new is connected first, by
    /// whoever keeps the map.
    async fn named(
        &self,
        error: &ServerError,
        slot: Option<usize>,
        left: Duration,
    ) -> Result<Arc<Link>, RedisError> {
        let address = error.details().and_then(|details| {
            let (_, address) = details.split_once(' ')?;
            let (host, port) = address.rsplit_once(':')?;
            let port = port.parse().ok()?;
            let host = host.trim_matches(['[', ']']).to_owned();
            Some(Node { host, port })
        });
        let known = || {
            let map = self.map.load();
            let link = map.links.get(address.as_ref()?)?;
            link.is_closed().then(|| Arc::clone(link))
        };
        if let Some(link) = known() {
            return Ok(link);
        }
        let _ = timeout(left, self.renewed.notified()).await;
        known()
            .or_else(|| self.serving(slot))
            .ok_or(RedisError::Away)
    }

    /// Looks at the Cluster, and connects to whom it lacks. Gives its clock, as far as the
    /// farthest is ahead; an error where not all is well.
    pub(super) async fn renew(&self, now: impl Fn() -> i64) -> Result<Option<i64>, RedisError> {
        let views = self.views().await?;
        let ahead = views
            .iter()
            .filter_map(|view| view.time.ahead_of(now()))
            .max_by_key(|ahead| ahead.abs());
        let Some(view) = views.into_iter().max_by_key(|view| (view.well, view.epoch)) else {
            return Err(RedisError::Away);
        };
        let map = self.draw(&view);
        let lacking: Vec<(Node, Arc<Link>)> = map
            .links
            .iter()
            .filter(|(_, link)| link.lacks())
            .map(|(node, link)| (node.clone(), Arc::clone(link)))
            .collect();
        let whole = map.slots.iter().all(Option::is_some);
        self.map.store(Arc::new(map));
        let connecting = lacking
            .into_iter()
            .map(async |(node, link)| link.connect(&self.settings, &[Place::Tcp(node)]).await);
        let mut connected = Ok(None);
        for result in join_all(connecting).await {
            connected = connected.and(result);
        }
        self.renewed.notify_waiters();
        connected?;
        if !view.well || !whole {
            return Err(RedisError::Failed(
                "CLUSTERDOWN not every slot is served".to_owned(),
            ));
        }
        Ok(ahead)
    }

    /// A map of what was seen, with the links that there are.
    fn draw(&self, view: &View) -> Map {
        let old = self.map.load();
        let mut map = Map {
            links: BTreeMap::new(),
            slots: vec![None; SLOTS],
        };
        for (first, last, node) in &view.ranges {
            let link = map.links.entry(node.clone()).or_insert_with(|| {
                let known = old.links.get(node).map(Arc::clone);
                known.unwrap_or_else(|| {
                    Arc::new(Link::new(&self.settings, &self.lost, &self.metrics))
                })
            });
            let link = Arc::clone(link);
            for place in map.slots.iter_mut().take(last + 1).skip(*first) {
                *place = Some(Arc::clone(&link));
            }
        }
        map
    }

    /// What the nodes see: those that are connected, or else those that were ever named.
    async fn views(&self) -> Result<Vec<View>, RedisError> {
        let question = question();
        let links = self.links();
        let looking = links.iter().map(async |(node, link)| {
            let began = Instant::now();
            view(node, link.look(&question).await?, began)
        });
        let views: Vec<View> = join_all(looking).await.into_iter().flatten().collect();
        if !views.is_empty() {
            return Ok(views);
        }
        let mut named: Vec<Node> = links.into_iter().map(|(node, _)| node).collect();
        named.extend(self.seeds.iter().cloned());
        named.sort();
        named.dedup();
        let asking = named.iter().map(async |node| {
            let place = Place::Tcp(node.clone());
            let asked = timeout(CONNECT, async {
                let (connection, _) = Connection::to_primary(&self.settings, &place).await?;
                let began = Instant::now();
                let answer = connection.ask(&question, self.settings.deadline).await?;
                view(node, answer, began)
            });
            asked.await.unwrap_or(Err(RedisError::Late(CONNECT)))
        });
        let mut views = Vec::new();
        let mut why = RedisError::Away;
        for answer in join_all(asking).await {
            match answer {
                Ok(view) => views.push(view),
                Err(error) => why = error,
            }
        }
        if views.is_empty() {
            Err(why)
        } else {
            Ok(views)
        }
    }
}

fn question() -> Pipeline {
    let mut question = Pipeline::new();
    question.cmd("TIME");
    question.cmd("CLUSTER").arg("INFO");
    question.cmd("CLUSTER").arg("SLOTS");
    question
}

fn view(node: &Node, answer: Vec<Value>, began: Instant) -> Result<View, RedisError> {
    let failed = |what: String| RedisError::Failed(format!("{node}: {what}"));
    if let Some(Value::ServerError(error)) = answer
        .iter()
        .find(|value| matches!(value, Value::ServerError(_)))
    {
        return Err(failed(said(error)));
    }
    let took = began.elapsed();
    let [time, info, slots] =
        <[Value; 3]>::try_from(answer).map_err(|_| failed("an answer is missing".to_owned()))?;
    let unread = |_| failed("its answer to CLUSTER cannot be read".to_owned());
    let info: String = redis::from_redis_value(info).map_err(unread)?;
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
    };
    let rows: Vec<Vec<Value>> = redis::from_redis_value(slots).map_err(unread)?;
    let ranges = rows
        .into_iter()
        .map(|row| range(node, row))
        .collect::<Option<_>>()
        .ok_or_else(|| failed("its answer to CLUSTER SLOTS cannot be read".to_owned()))?;
    Ok(View {
        well: field("cluster_state") == "ok",
        epoch: field("cluster_current_epoch").parse().unwrap_or_default(),
        ranges,
        time: ServerTime::read(time, took),
    })
}

/// One line of CLUSTER SLOTS: first slot, last slot, the primary, its replicas.
fn range(asked: &Node, row: Vec<Value>) -> Option<(usize, usize, Node)> {
    let mut row = row.into_iter();
    let mut number = || redis::from_redis_value::<usize>(row.next()?).ok();
    let (first, last) = (number()?, number()?);
    let mut primary = redis::from_redis_value::<Vec<Value>>(row.next()?)
        .ok()?
        .into_iter();
    // Without a name it is at the address where we asked.
    let host: Option<String> = redis::from_redis_value(primary.next()?).ok()?;
    let port = redis::from_redis_value(primary.next()?).ok()?;
    let host = host
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| asked.host.clone());
    (first <= last && last < SLOTS).then_some((first, last, Node { host, port }))
}

/// The error of a command that was not done, because it must be sent elsewhere or later.
fn redirection(value: &Value) -> Option<&ServerError> {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    match value {
        Value::ServerError(error) => {
            matches!(error.kind(), Some(Moved | Ask | TryAgain | ClusterDown)).then_some(error)
        }
        _ => None,
    }
}

/// The slot of a command's first key, where it has one.
fn slot(command: &Cmd) -> Option<usize> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"",
    });
    let name = words.next()?.to_ascii_uppercase();
    let key = match name.as_slice() {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO" => {
            words.nth(1).filter(|keys| *keys != b"0")?;
            words.next()?
        }
        b"TIME" | b"PING" | b"INFO" | b"ROLE" | b"WAIT" | b"WAITAOF" | b"SCRIPT" | b"CLIENT"
        | b"CONFIG" | b"ACL" | b"CLUSTER" | b"SCAN" | b"FUNCTION" => return None,
        _ => words.next()?,
    };
    Some(usize::from(State::<XMODEM>::calculate(hashed(key))) % SLOTS)
}

/// What of a key decides its slot: what stands in its first braces, where that is anything.
fn hashed(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        rest.get(..rest.iter().position(|byte| *byte == b'}')?)
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}
