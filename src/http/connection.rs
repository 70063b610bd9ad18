//! One connection: the protocol it speaks, what it is doing, and when it is cut off.
//!
//! A connection that is asked nothing for a while sleeps: hyper's side of it, some 24 KiB of
//! buffers and state, is given back, and made anew when the next head has arrived. So ten
//! thousand connections that are kept, or that send their heads byte by byte, are little more
//! than their sockets.

use super::answer;
use super::caller::Peer;
use super::front::Front;
use super::server::Stop;
use crate::telemetry::Cut;
use bytes::BytesMut;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

/// How long a request's head may take, from its first byte, or from the connection's start.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests: longer than load balancers keep
/// theirs (60 s), so that they are the ones to close.
const IDLE: Duration = Duration::from_secs(75);
/// The same where most connections are taken, so that whoever only holds them does not keep
/// others out.
const IDLE_IN_A_CROWD: Duration = Duration::from_secs(5);
/// How long a connection is idle before it sleeps: one that is in use never does, and of many
/// that come and are left alone few are awake at once.
const AWAKE: Duration = Duration::from_millis(200);
/// How long a request may be under way: more than any deadline within it.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a client may take to read what is written, once the network holds no more of it.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a closed connection's last bytes are awaited.
const LINGER: Duration = Duration::from_secs(2);
/// The bytes of head that HTTP/1 buffers: over what the front lets pass, so that the front
/// gives the answer.
const HEAD_BUFFER: usize = 64 * 1024;
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 32;
/// The bytes that may come on one HTTP/2 stream before they are read: a whole body, but a
/// webhook's.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Those on all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// The bytes of head that are awaited before hyper is: nearly every head's.
const BEGINNING: usize = 1024;
/// How HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The two protocols, as they are spoken here.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    pub(super) fn new() -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // The watcher sees to it, between requests too.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BUFFER);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(64 * 1024)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        Self { http1, http2 }
    }
}

/// What a turn of a connection ended with.
enum Turn {
    /// It is over; cut off, or by the client.
    Over(Option<Cut>),
    /// It sleeps.
    Asleep(Watched),
}

/// A connection in the making.
pub(super) struct Connection<C> {
    /// Who answers.
    pub(super) front: Arc<Front>,
    /// How.
    pub(super) protocols: Arc<Protocols>,
    /// Whom.
    pub(super) peer: Peer,
    /// Whether most connections are taken.
    pub(super) crowded: C,
    /// When the service stops.
    pub(super) stop: Stop,
}

impl<C: Fn() -> bool> Connection<C> {
    /// Serves it to its end; gives why it was cut off, if it was.
    pub(super) async fn serve(mut self, stream: TcpStream) -> Option<Cut> {
        let activity = Arc::new(Activity::new(self.stop.leaving.clone()));
        let mut io = Watched {
            inner: TokioIo::new(stream),
            activity: Arc::clone(&activity),
            ahead: BytesMut::new(),
            lingering: None,
        };
        let mut first = true;
        loop {
            tokio::select! {
                begun = io.begin() => begun.ok()?,
                cut = activity.stalled(&self.crowded) => return Some(cut),
                _ = self.stop.now.wait_for(|now| *now) => return None,
            }
            // Boxed, so that who sleeps needs no room for it.
            let turn = if first && io.ahead == PREFACE {
                Box::pin(self.framed(io, &activity)).await
            } else {
                Box::pin(self.awake(io, &activity)).await
            };
            match turn {
                Turn::Over(cut) => return cut,
                Turn::Asleep(back) => io = back,
            }
            first = false;
        }
    }

    /// Speaks HTTP/1.1 until the connection ends or has been idle for a while.
    async fn awake(&mut self, io: Watched, activity: &Arc<Activity>) -> Turn {
        let service = service(&self.front, activity, self.peer);
        let mut connection = self.protocols.http1.serve_connection(io, service);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                // How a connection ends is the client's affair.
                _ = &mut connection => return Turn::Over(None),
                cut = activity.stalled_or_idle(&self.crowded) => match cut {
                    Some(cut) => return Turn::Over(Some(cut)),
                    None => break,
                },
                _ = self.stop.now.wait_for(|now| *now), if !stopping => {
                    stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
        let parts = connection.into_parts();
        let mut io = parts.io;
        if io.lingering.is_some() {
            return Turn::Over(None);
        }
        if !parts.read_buf.is_empty() {
            // A head that began while a request was under way.
            io.ahead.extend_from_slice(&parts.read_buf);
            activity.read();
        }
        Turn::Asleep(io)
    }

    /// Speaks HTTP/2 until the connection ends.
    async fn framed(&mut self, io: Watched, activity: &Arc<Activity>) -> Turn {
        // HTTP/2 sends frames of its own between requests: they begin no head.
        let service = service(&self.front, activity, self.peer);
        let mut connection = pin!(self.protocols.http2.serve_connection(io, service));
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut connection => return Turn::Over(None),
                cut = activity.stalled(&self.crowded) => return Turn::Over(Some(cut)),
                _ = self.stop.now.wait_for(|now| *now), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The front, as hyper calls it.
fn service(
    front: &Arc<Front>,
    activity: &Arc<Activity>,
    peer: Peer,
) -> impl hyper::service::Service<
    http::Request<Incoming>,
    Response = warp::reply::Response,
    Error = Infallible,
    Future: Send + 'static,
> + use<> {
    let (front, activity) = (Arc::clone(front), Arc::clone(activity));
    service_fn(move |request: http::Request<Incoming>| {
        let (front, activity) = (Arc::clone(&front), Arc::clone(&activity));
        async move {
            let version = request.version();
            let began = Instant::now();
            let _busy = activity.request(version, began);
            if !names_one_host(version, request.headers()) {
                return Ok(answer::no_http());
            }
            let mut answer = front.answer(request, peer, began).await;
            // HTTP/2 has GOAWAY for that, when the listener stops.
            if *activity.leaving.borrow() && version != http::Version::HTTP_2 {
                let close = http::HeaderValue::from_static("close");
                answer.headers_mut().insert(http::header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer)
        }
    })
}

/// Whether the request says once which host it is for (RFC 9112 §3.2): of two a proxy in front may
/// have gone by the other. HTTP/1.0 need not say it, nor HTTP/2, which has `:authority`.
fn names_one_host(version: http::Version, headers: &http::HeaderMap) -> bool {
    let hosts = headers.get_all(http::header::HOST).iter().count();
    match version {
        http::Version::HTTP_11 => hosts == 1,
        _ => hosts <= 1,
    }
}

/// What a connection is doing, and since when; times in milliseconds since its start.
struct Activity {
    started: Instant,
    /// Requests under way.
    busy: AtomicU32,
    /// When the last request ended or began.
    turned: AtomicU64,
    /// When the first byte of a head that is not complete yet arrived; 0 for none.
    head_began: AtomicU64,
    /// Since when the network has taken less than there is to write; 0 for not.
    unwritten: AtomicU64,
    /// Whether it is HTTP/2.
    framed: AtomicBool,
    /// Whether clients are to go elsewhere.
    leaving: watch::Receiver<bool>,
}

/// A request under way; ends when dropped, however it ends.
struct Busy<'a>(&'a Activity);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.turned.store(self.0.now(), Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    fn new(leaving: watch::Receiver<bool>) -> Self {
        Self {
            leaving,
            started: Instant::now(),
            busy: AtomicU32::new(0),
            turned: AtomicU64::new(0),
            // The first head is due from the connection's start.
            head_began: AtomicU64::new(1),
            unwritten: AtomicU64::new(0),
            framed: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn request(&self, version: http::Version, began: Instant) -> Busy<'_> {
        if version == http::Version::HTTP_2 {
            self.framed.store(true, Ordering::Relaxed);
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.head_began.store(0, Ordering::Relaxed);
        self.turned.store(self.at(began), Ordering::Relaxed);
        Busy(self)
    }

    /// Bytes arrived.
    fn read(&self) {
        let waiting =
            self.busy.load(Ordering::Relaxed) == 0 && !self.framed.load(Ordering::Relaxed);
        if waiting && self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// The network did not take all there was to write.
    fn blocked(&self) {
        if self.unwritten.load(Ordering::Relaxed) == 0 {
            self.unwritten.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// The network took all there was to write.
    fn written(&self) {
        if self.unwritten.load(Ordering::Relaxed) > 0 {
            self.unwritten.store(0, Ordering::Relaxed);
        }
    }

    /// What the connection waits for: since when, how long it may, and as what it is cut off
    /// then.
    fn waits(&self, crowded: impl Fn() -> bool) -> (Duration, Duration, Cut) {
        let [head_began, turned, unwritten] = [&self.head_began, &self.turned, &self.unwritten]
            .map(|at| Duration::from_millis(at.load(Ordering::Relaxed)));
        if !unwritten.is_zero() {
            // It is for requests that have ended: it is due whatever came since.
            (unwritten, ANSWER, Cut::Answer)
        } else if self.busy.load(Ordering::Relaxed) > 0 {
            (turned, REQUEST, Cut::Request)
        } else if !head_began.is_zero() {
            (head_began, HEAD, Cut::Head)
        } else if crowded() {
            (turned, IDLE_IN_A_CROWD, Cut::Idle)
        } else {
            (turned, IDLE, Cut::Idle)
        }
    }

    /// Ends when the connection has stalled. Looks again at each deadline, so a busy
    /// connection costs no timer a request.
    async fn stalled(&self, crowded: impl Fn() -> bool) -> Cut {
        loop {
            let (since, most, cut) = self.waits(&crowded);
            if self.passed(since + most, HEAD).await {
                return cut;
            }
        }
    }

    /// The same, or ends with nothing when it has been idle for a while.
    async fn stalled_or_idle(&self, crowded: impl Fn() -> bool) -> Option<Cut> {
        loop {
            let (since, most, cut) = self.waits(&crowded);
            if cut == Cut::Idle {
                if self.passed(since + AWAKE, AWAKE).await {
                    return None;
                }
                continue;
            }
            // What is idle as soon as that is over is looked at again when it has lasted twice
            // as long: soon after a short request, seldom during a long one.
            let lasted = self.started.elapsed().saturating_sub(since);
            if self.passed(since + most, lasted.clamp(AWAKE, HEAD)).await {
                return Some(cut);
            }
        }
    }

    /// Whether the deadline has passed; where it has not, waits until it might have, and no
    /// longer than `most`.
    async fn passed(&self, deadline: Duration, most: Duration) -> bool {
        let now = self.started.elapsed();
        if now >= deadline {
            return true;
        }
        let wait = (deadline - now).min(most);
        tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
        false
    }
}

/// A stream that tells when bytes arrive and when they do not leave, and that is not closed
/// before the client has stopped sending.
struct Watched {
    inner: TokioIo<TcpStream>,
    activity: Arc<Activity>,
    /// What was read and not handed on.
    ahead: BytesMut,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Waits until a request's head is there, or so much that it is for hyper to judge.
    async fn begin(&mut self) -> io::Result<()> {
        let mut looked_at = 0;
        loop {
            let beginning = PREFACE.get(..self.ahead.len());
            let is_preface = beginning.is_some_and(|beginning| self.ahead == beginning);
            let ends = |bytes: &[u8]| bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n");
            let begun = if is_preface {
                self.ahead.len() == PREFACE.len()
            } else {
                let ahead = self.ahead.as_ref();
                let mut new = looked_at..ahead.len();
                ahead.len() >= BEGINNING
                    || !ahead.first().is_some_and(u8::is_ascii_uppercase)
                    || new.any(|at| ahead.get(..=at).is_some_and(ends))
            };
            if begun {
                return Ok(());
            }
            looked_at = self.ahead.len();
            // No more than tells the one from the other.
            let most = if is_preface { PREFACE.len() } else { BEGINNING };
            let most = (most - self.ahead.len()) as u64;
            self.inner.inner().readable().await?;
            // Only now: who sleeps has no room for a head.
            self.ahead.reserve(BEGINNING - self.ahead.len());
            let mut read = self.inner.inner_mut().take(most);
            if read.read_buf(&mut self.ahead).await? == 0 {
                return Ok(());
            }
            self.activity.read();
        }
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = if this.ahead.is_empty() {
            Pin::new(&mut this.inner).poll_read(cx, cursor)
        } else {
            let length = this.ahead.len().min(cursor.remaining());
            cursor.put_slice(&this.ahead.split_to(length));
            if this.ahead.is_empty() {
                // Or its room would be kept while the connection sleeps.
                this.ahead = BytesMut::new();
            }
            Poll::Ready(Ok(()))
        };
        if polled.is_ready() {
            this.activity.read();
        }
        polled
    }
}

impl Write for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if polled.is_pending() {
            self.activity.blocked();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for when all has been written.
        self.activity.written();
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Bytes that nobody has read when a socket is closed reset the connection (RFC 9112
    /// §9.6), and whoever is still sending a body loses the answer that refuses it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        let lingering = this
            .lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut discarded = [0; 4096];
        while lingering.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = Pin::new(this.inner.inner_mut()).poll_read(cx, &mut buffer);
            if ready!(read).is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        if polled.is_pending() {
            self.activity.blocked();
        }
        polled
    }
}
