//! What `exchequer doctor` says: a row for each thing that was looked at, as text or as JSON.

use super::super::terminal::{BAD, CAUTION, Color, FAINT, GOOD, NOTE, STRONG};
use crate::explain::Code;
use serde::Serialize;
use serde_json::json;
use std::io::{self, Write};

/// The longest text of a row, in characters: what others answer is quoted in it.
const LONGEST: usize = 600;

/// How a look ended.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Will go wrong one day.
    Warn,
    /// Is wrong.
    Fail,
}

/// One thing that was looked at. The names of the members, and of the checks, are a promise
/// (docs/doctor.md).
#[derive(Serialize)]
pub(super) struct Row {
    /// What was looked at.
    pub(super) check: &'static str,
    /// Which of several: the name of an issuer, of a provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    pub(super) status: Status,
    /// What was seen.
    message: String,
    /// What to do, and the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The code that callers get while this is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl Row {
    fn new(check: &'static str, status: Status, message: impl AsRef<str>) -> Self {
        Self {
            check,
            name: None,
            status,
            message: printable(message.as_ref()),
            next: None,
            code: None,
        }
    }

    pub(super) fn ok(check: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(check, Status::Ok, message)
    }

    pub(super) fn info(check: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(check, Status::Info, message)
    }

    pub(super) fn warn(check: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(check, Status::Warn, message)
    }

    pub(super) fn fail(check: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(check, Status::Fail, message)
    }

    /// Which of several.
    pub(super) fn of(mut self, name: &str) -> Self {
        self.name = Some(printable(name));
        self
    }

    /// What to do.
    pub(super) fn next(mut self, step: impl AsRef<str>) -> Self {
        self.next = Some(printable(step.as_ref()));
        self
    }

    /// What callers get.
    pub(super) fn code(mut self, code: Code) -> Self {
        self.code = Some(code.entry().slug);
        self
    }
}

/// What others answer may hold what moves a terminal's cursor.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|each| if each.is_control() { ' ' } else { each })
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a row says that something is wrong.
pub(super) fn failed(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.status == Status::Fail)
}

/// Prints the report.
pub(super) fn print(rows: &[Row], as_json: bool, color: Color) -> io::Result<()> {
    let mut out = color.stdout();
    if as_json {
        return writeln!(out, "{}", json!({ "ok": !failed(rows), "checks": rows }));
    }
    let shown = |row: &Row| {
        let check = row.check.replace('_', " ");
        match &row.name {
            Some(name) => format!("{check} {name}"),
            None => check,
        }
    };
    let width = rows.iter().map(|row| shown(row).chars().count()).max();
    let width = width.unwrap_or_default().min(32);
    for row in rows {
        let (style, mark) = match row.status {
            Status::Ok => (GOOD, "ok"),
            Status::Info => (NOTE, "info"),
            Status::Warn => (CAUTION, "warn"),
            Status::Fail => (BAD, "FAIL"),
        };
        let code = row.code.map(|code| format!("   {FAINT}{code}{FAINT:#}"));
        writeln!(
            out,
            "{STRONG}{:<width$}{STRONG:#}  {style}{mark:<4}{style:#}  {}{}",
            shown(row),
            row.message,
            code.unwrap_or_default()
        )?;
        if let Some(next) = &row.next {
            writeln!(out, "{:width$}        → {next}", "")?;
        }
    }
    let count = |status| rows.iter().filter(|row| row.status == status).count();
    writeln!(
        out,
        "\n{} ok, {} info, {} warn, {} FAIL",
        count(Status::Ok),
        count(Status::Info),
        count(Status::Warn),
        count(Status::Fail)
    )
}

/// A time in words, to the nearest of its largest unit: `3 d`, `20 min`.
pub(super) fn span(seconds: i64) -> String {
    let (size, unit) = match seconds {
        ..120 => (1, "s"),
        120..7200 => (60, "min"),
        7200..172_800 => (3600, "h"),
        _ => (86_400, "d"),
    };
    format!("{} {unit}", (seconds + size / 2) / size)
}

/// The noun with its number: `1 key`, `2 keys`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
