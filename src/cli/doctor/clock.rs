//! This machine's clock, compared with those of others.

use super::report::Row;
use crate::clock::Clock;
use crate::config::IssuerSettings;
use crate::explain::Code;
use std::time::SystemTime;

/// How far apart clocks may be, seconds: a `Date` is cut to the second, and on its way for a while.
const CLOSE: i64 = 2;
const NEXT: &str =
    "keep this machine's clock right (NTP: chrony, systemd-timesyncd); a container has its host's";

/// Compares with an issuer's `Date` header; nothing where it sent none. Its tokens are refused
/// where the difference is more than its `clock_skew`.
pub(super) fn with_date(issuer: &IssuerSettings, date: Option<&str>) -> Option<Row> {
    let theirs = httpdate::parse_http_date(date?).ok()?;
    let since = theirs.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ahead = i64::try_from(since.as_secs()).ok()? - Clock::system().now();
    let seen = format!("the issuer's is {}", apart(ahead));
    let row = match ahead.abs() {
        ..=CLOSE => Row::ok("clock", seen),
        apart if apart <= issuer.clock_skew => Row::warn("clock", seen).next(NEXT),
        _ => Row::fail("clock", seen).next(NEXT).code(if ahead > 0 {
            Code::SubjectTokenNotYetValid
        } else {
            Code::SubjectTokenExpired
        }),
    };
    Some(row.of(&issuer.name))
}

/// Compares with the time of a Redis, which the store's and the ring's times go by.
pub(super) fn with_redis(ahead: i64) -> Row {
    let seen = format!("Redis's is {}", apart(ahead));
    let row = match ahead.abs() {
        ..=CLOSE => Row::ok("clock", seen),
        apart if apart <= 60 => Row::warn("clock", seen).next(NEXT),
        _ => Row::fail("clock", seen).next(NEXT),
    };
    row.of("redis")
}

fn apart(ahead: i64) -> String {
    match ahead {
        0 => "the same".to_owned(),
        1.. => format!("{ahead} s ahead"),
        _ => format!("{} s behind", -ahead),
    }
}
