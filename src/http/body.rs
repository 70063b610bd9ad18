//! Reading a request body within bounds of size and time, its own and those of all bodies.

use super::admission::{Admission, Bodies, Place};
use crate::explain::{Code, Refusal};
use crate::telemetry::Shed;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::Body;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use warp::Filter;
use warp::reject::Rejection;

/// The largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How long the whole body may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one that nobody reads may take: what was sent with its head is there.
const DISCARD: Duration = Duration::from_secs(1);

/// A body to come, and who lets its request in.
pub struct Incoming<S> {
    stream: S,
    admission: Arc<Admission>,
}

/// A body that is there whole, of a request that was let in until this is dropped.
pub struct Received {
    bytes: Bytes,
    _place: Place,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bodies of a door that costs something.
pub(super) fn incoming(
    admission: &Arc<Admission>,
) -> impl Filter<
    Extract = (Incoming<impl Stream<Item = Result<impl Buf, warp::Error>> + Send + 'static>,),
    Error = Rejection,
> + Clone
+ Send
+ Sync
+ 'static {
    let admission = Arc::clone(admission);
    warp::body::stream().map(move |stream| Incoming {
        stream,
        admission: Arc::clone(&admission),
    })
}

/// Reads the body, then waits to be let in. A body that is too large by its own account is not
/// waited for.
pub async fn read<B: Buf>(
    headers: &HeaderMap,
    body: Incoming<impl Stream<Item = Result<B, warp::Error>>>,
) -> Result<Received, Box<Refusal>> {
    read_up_to(MAX_BODY, headers, body).await
}

/// The same, with another bound in bytes.
pub async fn read_up_to<B: Buf>(
    most: usize,
    headers: &HeaderMap,
    body: Incoming<impl Stream<Item = Result<B, warp::Error>>>,
) -> Result<Received, Box<Refusal>> {
    let Incoming { stream, admission } = body;
    let bytes = collect(most, headers, stream, &admission.bodies).await?;
    let bytes = bytes.ok_or_else(|| admission.shed(Shed::Bodies))?;
    let place = admission.enter().await?;
    Ok(Received {
        bytes,
        _place: place,
    })
}

/// Lets the body of a refused request go by, so that its connection can go on; gives whether it
/// ended in time and within bounds.
pub(super) async fn discard(mut body: hyper::body::Incoming) -> bool {
    let whole = async {
        let mut left = MAX_BODY;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else {
                return false;
            };
            left = rest;
        }
        body.is_end_stream()
    };
    tokio::time::timeout(DISCARD, whole).await.unwrap_or(false)
}

/// Reads a body of at most so many bytes, where nobody needs to be let in.
pub(super) async fn read_alone<B: Buf>(
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Box<Refusal>> {
    let bytes = collect(MAX_BODY, headers, stream, &Bodies::default()).await?;
    bytes.ok_or_else(|| Refusal::new(Code::BodiesTooMany))
}

/// The body; none where the bodies that have come in part take as much as they may.
async fn collect<B: Buf>(
    most: usize,
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
    bodies: &Bodies,
) -> Result<Option<Bytes>, Box<Refusal>> {
    let too_large = || {
        let most = most / 1024;
        let sentence = format!("The request body is larger than {most} KiB.");
        Refusal::because(Code::BodyTooLarge, sentence)
    };
    let said = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let whole = async {
        let mut stream = pin!(stream);
        let mut pending = bodies.begin();
        // Nearly every body is one chunk, and is not copied then.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        loop {
            // What is there already takes nobody's room.
            let next = match stream.next().now_or_never() {
                Some(next) => next,
                None if !pending.grow(first.len().max(all.len())) => return Ok(None),
                None => stream.next().await,
            };
            let Some(chunk) = next else { break };
            let mut chunk = chunk.map_err(|_| {
                Refusal::because(Code::BodyMalformed, "The request body broke off.")
            })?;
            let chunk = chunk.copy_to_bytes(chunk.remaining());
            if first.len().max(all.len()) + chunk.len() > most {
                return Err(too_large());
            }
            if first.is_empty() {
                first = chunk;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&chunk);
        }
        let whole = if all.is_empty() { first } else { all.freeze() };
        Ok(Some(whole))
    };
    tokio::time::timeout(DEADLINE, whole)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Code::RequestTimeout)))
}
