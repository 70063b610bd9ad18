//! What the service is configured with, and where from.

use super::report::{Row, count};
use crate::config::{Findings, ReadFrom, Settings, is_loopback_url};

/// What the rows about keys, verifiers and proxies say, and more.
const SAID_ELSEWHERE: [&str; 3] = [
    "EXCHEQUER_KEY_ALG",
    "EXCHEQUER_KEY_PUBLISH_AHEAD",
    "EXCHEQUER_TRUSTED_PROXIES",
];

pub(super) fn look(settings: &Settings, findings: &Findings, from: &ReadFrom) -> Vec<Row> {
    let file = from.file.as_ref().map_or_else(
        || "no file".to_owned(),
        |path| format!("{} is read", path.display()),
    );
    let variables = match from.variables.as_slice() {
        [] => "no variable is set".to_owned(),
        set => format!("{} set ({})", count(set.len(), "variable"), set.join(", ")),
    };
    let of = [
        (settings.issuers.len(), "issuer"),
        (settings.apps.len(), "app"),
        (settings.clients.len(), "client"),
        (settings.providers.len(), "provider"),
    ];
    let of: Vec<String> = of
        .iter()
        .map(|(number, noun)| count(*number, noun))
        .collect();
    let mut rows = vec![Row::ok(
        "config",
        format!("{variables}, {file}: {}", of.join(", ")),
    )];
    if is_loopback_url(&settings.issuer) {
        let seen = format!(
            "{} is this machine: nobody else can verify its tokens",
            settings.issuer
        );
        rows.push(Row::info("config", seen).next("EXCHEQUER_ISSUER"));
    }
    let notes = findings.notes.iter();
    let notes = notes.filter(|note| !SAID_ELSEWHERE.contains(&note.place.as_str()));
    // Each says what to do itself.
    rows.extend(notes.map(|note| Row::warn("config", note.to_string())));
    rows
}
