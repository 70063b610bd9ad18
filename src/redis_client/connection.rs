//! One connection to one server: opened by us, so that its socket, its certificates and its errors
//! are what we say, and shared by all who ask.

use super::{CONNECT, RedisError, tls};
use crate::config::{Login, Node, RedisSettings, Topology};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, ServerError, Value};
use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The name by which operators find us in `CLIENT LIST`.
const NAME: &str = "exchequer";
/// How many may wait for one server at once. Where it answers within a millisecond, that many are
/// asked four million times a second; so only a slow one is ever refused more.
pub(super) const ROOM: usize = 4096;
/// When the kernel asks a silent peer, and when it gives up on what is not acknowledged.
const KEEPALIVE: Duration = Duration::from_secs(15);
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Tcp(Node),
    Unix(PathBuf),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(node) => node.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection.
pub(super) struct Connection {
    pub(super) place: Place,
    inner: MultiplexedConnection,
    room: Semaphore,
    /// How many went away before their answer came, which the server owes all the same.
    abandoned: AtomicUsize,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A place in the room. Who goes away early leaves it taken until the server has answered.
struct Seat<'c> {
    connection: &'c Connection,
    permit: Option<SemaphorePermit<'c>>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.forget();
            self.connection.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    /// Connects, and proves who we are.
    async fn open(
        settings: &RedisSettings,
        place: &Place,
        login: Option<&Login>,
    ) -> Result<Self, RedisError> {
        let failed = |error: io::Error| RedisError::Failed(format!("{place}: {error}"));
        let opening = async {
            let stream = stream(settings, place).await.map_err(failed)?;
            // Deadlines are ours, and so are the first commands: then their errors are the
            // server's own words.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(ROOM);
            let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
            let (inner, driver) = MultiplexedConnection::new_with_config(&bare, stream, config)
                .await
                .map_err(|error| failed(io::Error::other(error)))?;
            let connection = Self {
                place: place.clone(),
                inner,
                room: Semaphore::new(ROOM),
                abandoned: AtomicUsize::new(0),
                driver: tokio::spawn(driver).abort_handle(),
            };
            if let Some(Login { user, password }) = login {
                let mut auth = Pipeline::new();
                auth.cmd("AUTH").arg(user).arg(&password.0);
                let answers = connection.ask(&auth, CONNECT).await?;
                granted(answers.first()).map_err(failed)?;
            }
            Ok(connection)
        };
        let opened = timeout(CONNECT, opening).await;
        opened.unwrap_or(Err(RedisError::Late(CONNECT)))
    }

    /// Connects to a sentinel.
    pub(super) async fn to_sentinel(
        settings: &RedisSettings,
        node: &Node,
    ) -> Result<Self, RedisError> {
        let login = settings.sentinel_login.as_ref();
        Self::open(settings, &Place::Tcp(node.clone()), login).await
    }

    /// Connects to a server that can serve us, and answers within the deadline.
    pub(super) async fn to_primary(
        settings: &RedisSettings,
        place: &Place,
    ) -> Result<(Self, ServerTime), RedisError> {
        let connection = Self::open(settings, place, settings.login.as_ref()).await?;
        let began = Instant::now();
        let mut hello = Pipeline::new();
        if settings.database != 0 {
            hello.cmd("SELECT").arg(settings.database);
        }
        hello.cmd("CLIENT").arg("SETNAME").arg(NAME);
        hello.cmd("ROLE");
        hello.cmd("TIME");
        let answers = connection.ask(&hello, settings.deadline).await?;
        let failed = |error: io::Error| RedisError::Failed(format!("{place}: {error}"));
        let mut answers = answers.into_iter();
        if settings.database != 0 {
            granted(answers.next().as_ref()).map_err(failed)?;
        }
        // Who may not ask for a role, or whose proxy knows none, goes without the check.
        let role = answers.nth(1);
        if let Some(Value::Array(role)) = &role
            && role.first() == Some(&Value::BulkString(b"slave".into()))
            && !matches!(settings.topology, Topology::Cluster(_))
        {
            let replica = io::Error::other("READONLY this server is a replica, not the primary");
            return Err(failed(replica));
        }
        let time = answers.next().unwrap_or(Value::Nil);
        granted(Some(&time)).map_err(failed)?;
        Ok((connection, ServerTime::read(time, began.elapsed())))
    }

    /// One round trip.
    pub(super) async fn ask(
        &self,
        pipeline: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let full = |_| RedisError::Full(ROOM);
        let mut seat = Seat {
            connection: self,
            permit: Some(self.room.try_acquire().map_err(full)?),
        };
        let mut inner = MultiplexedConnection::clone(&self.inner);
        let asked = inner.req_packed_commands(pipeline, 0, pipeline.len());
        let answer = timeout(within, asked)
            .await
            .map_err(|_| RedisError::Late(within))?;
        drop(seat.permit.take());
        answer.map_err(|error| RedisError::Failed(format!("{}: {}", self.place, kept(&error))))
    }

    /// Asks something whose answer comes after all that were asked for before it: then the seats
    /// of those who went away are free again.
    pub(super) async fn look(
        &self,
        pipeline: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let abandoned = self.abandoned.load(Ordering::Relaxed);
        // A full room is no reason not to look: what is asked here is one more at most.
        self.room.add_permits(1);
        let answer = self.ask(pipeline, within).await;
        if let Ok(permit) = self.room.try_acquire() {
            permit.forget();
        }
        if answer.is_ok() {
            self.abandoned.fetch_sub(abandoned, Ordering::Relaxed);
            self.room.add_permits(abandoned);
        }
        answer
    }
}

async fn stream(settings: &RedisSettings, place: &Place) -> io::Result<Box<dyn Stream>> {
    let node = match place {
        Place::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Place::Tcp(node) => node,
    };
    let tcp = TcpStream::connect((node.host.as_str(), node.port)).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    match &settings.tls {
        None => Ok(Box::new(tcp)),
        Some(files) => Ok(Box::new(tls::connect(files, &node.host, tcp).await?)),
    }
}

/// A stream of whatever kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a server's clock showed in the middle of a round trip.
#[derive(Clone, Copy)]
pub(super) struct ServerTime {
    /// Seconds since the Unix epoch, as of the answer.
    seconds: Option<i64>,
}

impl ServerTime {
    /// Reads the answer to TIME, which was under way for half of the round trip.
    pub(super) fn read(answer: Value, took: Duration) -> Self {
        let read = redis::from_redis_value::<(i64, u32)>(answer).ok();
        let seconds = read.map(|(seconds, micros)| {
            let since = Duration::from_micros(micros.into()) + took / 2;
            seconds + i64::try_from(since.as_secs()).unwrap_or_default()
        });
        Self { seconds }
    }

    /// How many seconds it is ahead of this time.
    pub(super) fn ahead_of(self, now: i64) -> Option<i64> {
        Some(self.seconds? - now)
    }
}

fn granted(answer: Option<&Value>) -> io::Result<()> {
    match answer {
        Some(Value::ServerError(error)) => Err(io::Error::other(said(error))),
        Some(_) => Ok(()),
        None => Err(io::Error::other("no answer")),
    }
}

/// What a server said, without the arguments that it repeats: one of them may be a password.
pub(super) fn said(error: &ServerError) -> String {
    let details = error.details().unwrap_or_default();
    format!("{} {}", error.code(), without_arguments(details))
}

fn kept(error: &redis::RedisError) -> String {
    without_arguments(&error.to_string()).to_owned()
}

fn without_arguments(text: &str) -> &str {
    text.split_once(", with args beginning with")
        .map_or(text, |(before, _)| before)
}
