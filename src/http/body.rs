//! Reading a request body within bounds of size and time.

use crate::explain::{Code, Refusal};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, HeaderMap};
use std::pin::pin;
use std::time::Duration;

/// The largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How long the whole body may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads the body. One that is too large by its own account is not waited for.
pub async fn read<B: Buf>(
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Box<Refusal>> {
    read_up_to(MAX_BODY, headers, stream).await
}

/// The same, with another bound in bytes.
pub async fn read_up_to<B: Buf>(
    most: usize,
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Box<Refusal>> {
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
        // Nearly every body is one chunk, and is not copied then.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        while let Some(chunk) = stream.next().await {
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
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    tokio::time::timeout(DEADLINE, whole)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Code::RequestTimeout)))
}
