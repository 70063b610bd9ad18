//! Connections: accepted up to a bound, served over HTTP/1.1 and HTTP/2, cut off when they
//! stall, drained when the service stops.

use super::caller::Peer;
use super::front::Front;
use crate::telemetry::Metrics;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;

/// The most connections of a listener; more wait to be accepted.
const MAX_CONNECTIONS: usize = 12_000;
/// Descriptors that connections leave to everything else.
const SPARE_FILES: usize = 128;
/// How long a request's head may take, from its first byte, or from the connection's start.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests: longer than load balancers keep
/// theirs (60 s), so that they are the ones to close.
const IDLE: Duration = Duration::from_secs(75);
/// How long a request may be under way: more than any deadline within it.
const REQUEST: Duration = Duration::from_secs(30);
/// How long what is in flight may take to end when the service stops.
const DRAIN: Duration = Duration::from_secs(30);
/// How long a closed connection's last bytes are awaited.
const LINGER: Duration = Duration::from_secs(2);
/// The bytes of head that HTTP/1 buffers: over what the front lets pass, so that the front
/// gives the answer.
const HEAD_BUFFER: usize = 64 * 1024;

/// Serves the listener until `stop` becomes true, then drains it.
pub async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    metrics: Option<Arc<Metrics>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEAD_BUFFER)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let builder = Arc::new(builder);
    let places = Arc::new(Semaphore::new(max_connections()));
    let graceful = GracefulShutdown::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to be given back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without it a small answer waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new());
        let service = {
            let (front, activity) = (Arc::clone(&front), Arc::clone(&activity));
            service_fn(move |request: http::Request<Incoming>| {
                let (front, activity) = (Arc::clone(&front), Arc::clone(&activity));
                async move {
                    let _busy = activity.request(request.version());
                    Ok::<_, Infallible>(front.answer(request, Peer(peer)).await)
                }
            })
        };
        let io = Watched {
            inner: TokioIo::new(stream),
            activity: Arc::clone(&activity),
            lingering: None,
        };
        let connection = builder.serve_connection(io, service).into_owned();
        let connection = graceful.watch(connection);
        let metrics = metrics.clone();
        tokio::spawn(async move {
            if let Some(metrics) = &metrics {
                metrics.connection_opened();
            }
            tokio::select! {
                // How a connection ends is the client's affair.
                _ = connection => {}
                () = activity.stalled() => {}
            }
            if let Some(metrics) = &metrics {
                metrics.connection_closed();
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// The most connections that leave descriptors for the ring, the key sets and the other
/// listener.
fn max_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    files.map_or(MAX_CONNECTIONS, |files| {
        files.saturating_sub(SPARE_FILES).clamp(16, MAX_CONNECTIONS)
    })
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
    /// Whether it is HTTP/2.
    framed: AtomicBool,
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
    fn new() -> Self {
        Self {
            started: Instant::now(),
            busy: AtomicU32::new(0),
            turned: AtomicU64::new(0),
            // The first head is due from the connection's start.
            head_began: AtomicU64::new(1),
            framed: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn request(&self, version: http::Version) -> Busy<'_> {
        // HTTP/2 sends frames of its own between requests: they begin no head.
        if version == http::Version::HTTP_2 {
            self.framed.store(true, Ordering::Relaxed);
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.head_began.store(0, Ordering::Relaxed);
        self.turned.store(self.now(), Ordering::Relaxed);
        Busy(self)
    }

    fn read(&self) {
        let waiting =
            self.busy.load(Ordering::Relaxed) == 0 && !self.framed.load(Ordering::Relaxed);
        if waiting && self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// When the connection is to be cut off, should nothing happen until then.
    fn deadline(&self) -> Duration {
        let head_began = self.head_began.load(Ordering::Relaxed);
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        if self.busy.load(Ordering::Relaxed) > 0 {
            turned + REQUEST
        } else if head_began > 0 {
            Duration::from_millis(head_began) + HEAD
        } else {
            turned + IDLE
        }
    }

    /// Ends when the connection has stalled. Looks again at each deadline, so a busy
    /// connection costs no timer a request.
    async fn stalled(&self) {
        loop {
            let deadline = self.deadline();
            let now = self.started.elapsed();
            if now >= deadline {
                return;
            }
            let wait = (deadline - now).min(HEAD);
            tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
        }
    }
}

/// A stream that tells when bytes arrive, and that is not closed before the client has
/// stopped sending.
struct Watched {
    inner: TokioIo<TcpStream>,
    activity: Arc<Activity>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, cursor);
        if polled.is_ready() {
            self.activity.read();
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
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
}
