//! How values are written in a Redis.
//!
//! Numbers are eight bytes, big-endian, the sign turned over: in the order of bytes they are in
//! their own order, and a script compares them without the loss of a double.

use super::super::{Entry, Key, Message, Record, Revocation, UnixMillis};
use crate::clock::UnixSeconds;

/// In the place of an epoch's id, in an entry that is kept for good.
const NO_EPOCH: &[u8; 16] = b"----------------";

/// A number that compares as its bytes do.
pub(super) fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

fn number(bytes: &[u8; 8]) -> i64 {
    i64::from_be_bytes(*bytes) ^ i64::MIN
}

/// What is left when numbers are taken off the front.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<([i64; N], &[u8])> {
    let mut rest = bytes;
    let mut read = [0; N];
    for each in &mut read {
        let (first, after) = rest.split_first_chunk()?;
        *each = number(first);
        rest = after;
    }
    Some((read, rest))
}

/// Whether a mark's only number, until when it stands, is later than now.
pub(super) fn stands(value: &[u8], now: UnixSeconds) -> bool {
    numbers::<1>(value).is_some_and(|([until], _)| until > now)
}

/// At and until of a revocation.
pub(super) fn revocation(value: &[u8]) -> Option<(UnixMillis, UnixSeconds)> {
    numbers(value).map(|([at, until], _)| (at, until))
}

/// A revocation as it stands in the log: its key, at, until.
pub(super) fn logged(value: &[u8]) -> Option<Revocation> {
    let (key, rest) = value.split_first_chunk()?;
    let (at, until) = revocation(rest)?;
    let key = Key(*key);
    Some(Revocation { key, at, until })
}

pub(super) fn record(value: &[u8]) -> Option<Record> {
    let ([version, fetched_at], body) = numbers(value)?;
    let body = body.to_vec();
    Some(Record {
        version,
        fetched_at,
        body,
    })
}

pub(super) fn write_record(record: &Record) -> Vec<u8> {
    let numbers = [ordered(record.version), ordered(record.fetched_at)];
    [numbers.as_flattened(), &record.body].concat()
}

/// An entry's version as it is compared; more of them than a number holds there are not.
pub(super) fn version(version: u64) -> [u8; 8] {
    version.to_be_bytes()
}

/// Writes an entry of this epoch.
pub(super) fn write_entry(entry: &Entry, epoch: &str) -> Vec<u8> {
    let epoch = match entry.until {
        UnixSeconds::MAX => NO_EPOCH,
        _ => epoch.as_bytes(),
    };
    let numbers = [version(entry.version), ordered(entry.until)];
    [epoch, numbers.as_flattened(), &entry.body].concat()
}

/// An entry, and the epoch in which it was written; `None` where it is kept for good.
pub(super) fn entry(value: &[u8]) -> Option<(Entry, Option<&[u8]>)> {
    let (epoch, rest) = value.split_first_chunk::<16>()?;
    let (version, rest) = rest.split_first_chunk()?;
    let ([until], body) = numbers(rest)?;
    let entry = Entry {
        version: u64::from_be_bytes(*version),
        until,
        body: body.to_vec(),
    };
    Some((entry, (epoch != NO_EPOCH).then_some(epoch)))
}

/// A message but for its id and when it is due.
pub(super) fn write_message(message: &Message) -> Vec<u8> {
    let app = message.app.as_bytes();
    let length = u32::try_from(app.len()).unwrap_or_default();
    let numbers = [message.attempts.to_be_bytes(), length.to_be_bytes()];
    [numbers.as_flattened(), app, &message.body].concat()
}

pub(super) fn message(id: &[u8], due: UnixSeconds, value: &[u8]) -> Option<Message> {
    let (attempts, rest) = value.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (app, body) = rest.split_at_checked(length)?;
    Some(Message {
        id: String::from_utf8(id.to_vec()).ok()?,
        app: String::from_utf8(app.to_vec()).ok()?,
        due,
        attempts: u32::from_be_bytes(*attempts),
        body: body.to_vec(),
    })
}
