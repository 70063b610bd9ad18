//! A report for people: what was pasted, the checks that it passed, why it was refused, and what
//! to do. As text, as JSON, and without what must not be seen.
//!
//! A redacted report is an allow-list: our own words and numbers, and of what checks saw only
//! what can be no more than that (see `Step::redacted`). Issuers, kids, audiences, origins and
//! the names of the configuration stand under names that say which of them are equal; there is
//! nothing in it of a subject, a session, an organisation, a `jti` or a signature.

use super::catalogue::Code;
use super::known::KnownIssue;
use super::ladder::{Outcome, Rung};
use super::say::{Names, Say, printable};
use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use std::fmt::Write;

/// The column in which what is said begins.
const COLUMN: usize = 9;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();
const LABEL: Style = Style::new().bold();
const NEXT: Style = AnsiColor::Cyan.on_default().bold();

/// Algorithms and types whose names say nothing of anybody.
const PUBLIC_NAMES: [&str; 24] = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "HS256",
    "HS384",
    "HS512",
    "none",
    "dir",
    "JWT",
    "at+jwt",
    "dpop+jwt",
    "logout+jwt",
    "secevent+jwt",
    "or none",
    "session",
    "oauth",
];

/// A report.
#[derive(Debug, Default)]
pub struct Report {
    /// What was pasted: `subject_token`, `app_token`, `session_id`, `client_assertion`,
    /// `error_answer` and the like.
    pub kind: &'static str,
    /// The first lines.
    pub title: Vec<Say>,
    /// Who speaks, of an error answer.
    pub source: Option<&'static str>,
    /// Header and size of a token.
    pub token: Option<TokenFacts>,
    /// Whether it would be accepted; `None` where that was not found out.
    pub accepted: Option<bool>,
    /// The checks.
    pub steps: Vec<Step>,
    /// What checks that were not reached would have said.
    pub unreached: Vec<Say>,
    /// What it means that nothing refused it, or who would have been asked.
    pub verdict: Option<Say>,
    /// The cause's code.
    pub code: Option<Code>,
    /// The cause where there is no code.
    pub cause: Option<&'static str>,
    /// What a caller is told.
    pub description: Option<String>,
    /// What lies behind it.
    pub because: Option<String>,
    /// What was tried to tell causes apart.
    pub tests: Vec<CauseTest>,
    /// What to do, the likeliest first; the catalogue's own advice follows.
    pub next: Vec<Say>,
    /// Faults of others that fit.
    pub known: Vec<&'static KnownIssue>,
    /// What else is worth knowing.
    pub notes: Vec<Say>,
}

/// Header and size of a token.
#[derive(Debug, Default)]
pub struct TokenFacts {
    /// Its length in bytes.
    pub bytes: usize,
    /// Its SHA-256, in hexadecimal, so that two ends can compare; not of what can be guessed.
    pub sha256: Option<String>,
    /// `alg`, unverified.
    pub alg: Option<String>,
    /// `kid`, unverified.
    pub kid: Option<String>,
    /// `typ`, unverified.
    pub typ: Option<String>,
}

/// A check and how it ended.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub check: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen.
    pub seen: Option<String>,
    /// What would have passed.
    pub expected: Option<String>,
}

/// Something that was tried to tell causes apart, and what it means.
#[derive(Debug)]
pub struct CauseTest {
    /// What was tried and found.
    pub found: Say,
    /// What follows from it.
    pub means: &'static str,
}

impl From<Rung> for Step {
    fn from(rung: Rung) -> Self {
        Self {
            check: rung.check.name(),
            outcome: rung.outcome,
            seen: rung.seen,
            expected: rung.expected,
        }
    }
}

impl Step {
    /// The step as strangers may see it. What these checks see is our own words and numbers;
    /// of algorithms and types only those of [`PUBLIC_NAMES`]; of the rest how it ended.
    fn redacted(&self) -> Self {
        let words = matches!(
            self.check,
            "form" | "header" | "signature" | "expiry" | "not_before" | "issued_at" | "jti"
        );
        let names = matches!(self.check, "algorithm" | "type");
        let keep = |text: &Option<String>| {
            let public = |text: &&String| text.split(", ").all(|name| PUBLIC_NAMES.contains(&name));
            let kept = text.as_ref().filter(|text| words || names && public(text));
            kept.cloned()
        };
        Self {
            check: self.check,
            outcome: self.outcome,
            seen: keep(&self.seen),
            expected: keep(&self.expected),
        }
    }
}

impl Report {
    /// The steps, as they are shown.
    fn shown(&self, names: &Names) -> Vec<Step> {
        let step = |step: &Step| {
            if names.hide() {
                return step.redacted();
            }
            Step {
                check: step.check,
                outcome: step.outcome,
                seen: step.seen.as_deref().map(printable),
                expected: step.expected.as_deref().map(printable),
            }
        };
        self.steps.iter().map(step).collect()
    }

    /// What was said of the refusal, where it may be shown: a description may name what the
    /// caller sent, and what lies behind it names more.
    fn told(&self, names: &Names) -> (Option<String>, Option<String>) {
        let sentence = self.code.map(|code| code.entry().sentence.to_owned());
        if names.hide() {
            return (sentence, None);
        }
        let description = self.description.as_deref().map(printable);
        (
            description.or(sentence),
            self.because.as_deref().map(printable),
        )
    }

    /// What to do: the hints, then the catalogue's advice.
    fn advice(&self, names: &mut Names) -> Vec<String> {
        let mut next: Vec<String> = self.next.iter().map(|say| say.shown(names)).collect();
        next.extend(self.code.map(|code| code.entry().mend.to_owned()));
        next
    }

    /// The report as text, with colours for a terminal.
    pub fn text(&self, redact: bool) -> String {
        let names = &mut Names::new(redact);
        let mut text = String::new();
        for line in &self.title {
            let _ = writeln!(text, "{LABEL}{}{LABEL:#}", line.shown(names));
        }
        if let Some(hash) = self.token.as_ref().and_then(|token| token.sha256.as_ref()) {
            let _ = writeln!(text, "{FAINT}sha256 {hash}{FAINT:#}");
        }
        if !self.steps.is_empty() {
            text.push('\n');
            self.write_steps(&mut text, names);
        }
        text.push('\n');
        let (description, because) = self.told(names);
        if let Some(code) = self.code {
            let refused = format!("{BAD}{}{BAD:#}", code.entry().slug);
            let foreign = self.source.is_some_and(|source| source != "exchequer");
            let label = if foreign { "meaning" } else { "refused" };
            line(&mut text, label, BAD, &refused);
            if let Some(description) = description {
                line(&mut text, "", LABEL, &description);
            }
        }
        if let Some(verdict) = &self.verdict {
            let (label, style) = match self.accepted {
                Some(true) => ("accepted", GOOD),
                _ => ("open", LABEL),
            };
            line(&mut text, label, style, &verdict.shown(names));
        }
        if let Some(because) = because {
            line(&mut text, "because", LABEL, &because);
        }
        let entry = self.code.map(Code::entry);
        if let Some(cause) = self.cause.or(entry.map(|entry| entry.cause)) {
            line(&mut text, "cause", LABEL, cause);
        }
        for (place, test) in self.tests.iter().enumerate() {
            let label = if place == 0 { "tests" } else { "" };
            let found = test.found.shown(names);
            let told = format!("{found}  {FAINT}→ {}{FAINT:#}", test.means);
            line(&mut text, label, LABEL, &told);
        }
        if let Some(entry) = entry {
            line(&mut text, "confirm", LABEL, entry.confirm);
        }
        let advice = self.advice(names);
        for (place, next) in advice.iter().enumerate() {
            let label = if place == 0 { "next" } else { "" };
            let numbered = format!("{}. {next}", place + 1);
            let told = if advice.len() > 1 { &numbered } else { next };
            line(&mut text, label, NEXT, told);
        }
        for issue in &self.known {
            let told = format!("{}: {} {}", issue.library, issue.what, issue.link);
            line(&mut text, "known", LABEL, &told);
        }
        for note in &self.notes {
            line(&mut text, "note", LABEL, &note.shown(names));
        }
        text
    }

    /// The ladder, a check a line; those that were not reached, on one.
    fn write_steps(&self, text: &mut String, names: &mut Names) {
        let mut unreached = Vec::new();
        for (number, step) in self.shown(names).iter().enumerate() {
            let (mark, style) = match step.outcome {
                Outcome::Passed => ("ok  ", GOOD),
                Outcome::Failed => ("FAIL", BAD),
                Outcome::NotReached => {
                    unreached.push(step.check);
                    continue;
                }
            };
            let mut rest = format!("{:<17}", step.check);
            match (&step.seen, &step.expected) {
                (Some(seen), Some(expected)) if step.outcome == Outcome::Failed => {
                    let _ = write!(rest, "{seen}\n{:>27}expected: {expected}", "");
                }
                (Some(seen), Some(expected)) => {
                    let _ = write!(rest, "{seen}   [{expected}]");
                }
                (Some(seen), None) => rest.push_str(seen),
                (None, Some(expected)) => {
                    let _ = write!(rest, "[{expected}]");
                }
                (None, None) => {}
            }
            let rest = rest.trim_end();
            let _ = writeln!(text, "{:>3} {style}{mark}{style:#}  {rest}", number + 1);
        }
        if !unreached.is_empty() {
            let _ = writeln!(
                text,
                "    {FAINT}--{FAINT:#}    not reached: {}",
                unreached.join(", ")
            );
        }
        for remark in &self.unreached {
            let _ = writeln!(text, "{:>10}{}", "", remark.shown(names));
        }
    }

    /// The report as JSON. The shape is stable: members are added, never changed.
    pub fn json(&self, redact: bool) -> Value {
        let names = &mut Names::new(redact);
        let entry = self.code.map(Code::entry);
        let (description, because) = self.told(names);
        let ladder: Vec<Value> = self
            .shown(names)
            .iter()
            .map(|step| {
                let mut shown = json!({"check": step.check, "outcome": step.outcome});
                for (name, text) in [("seen", &step.seen), ("expected", &step.expected)] {
                    if let (Some(text), Some(members)) = (text, shown.as_object_mut()) {
                        members.insert(name.to_owned(), text.as_str().into());
                    }
                }
                shown
            })
            .collect();
        let token = self.token.as_ref().map(|token| {
            let public = |name: &Option<String>| {
                let shown = name
                    .as_deref()
                    .filter(|name| !redact || PUBLIC_NAMES.contains(name));
                shown.map(printable)
            };
            let kid = token.kid.as_deref().map(|kid| names.of("kid", kid));
            json!({
                "bytes": token.bytes, "sha256": token.sha256, "alg": public(&token.alg),
                "kid": kid, "typ": public(&token.typ),
            })
        });
        let tests: Vec<Value> = self
            .tests
            .iter()
            .map(|test| json!({"found": test.found.shown(names), "means": test.means}))
            .collect();
        let all = |says: &[Say], names: &mut Names| -> Vec<String> {
            says.iter().map(|say| say.shown(names)).collect()
        };
        json!({
            "kind": self.kind,
            "title": all(&self.title, names),
            "source": self.source,
            "token": token,
            "accepted": self.accepted,
            "verdict": self.verdict.as_ref().map(|verdict| verdict.shown(names)),
            "code": entry.map(|entry| entry.slug),
            "action": entry.map(|entry| entry.action),
            "description": description,
            "because": because,
            "cause": self.cause.or(entry.map(|entry| entry.cause)),
            "confirm": entry.map(|entry| entry.confirm),
            "next": self.advice(names),
            "ladder": ladder,
            "unreached": all(&self.unreached, names),
            "cause_tests": tests,
            "known_issues": self.known,
            "notes": all(&self.notes, names),
            "redacted": redact,
        })
    }
}

/// A label and what is said under it.
fn line(text: &mut String, label: &str, style: Style, told: &str) {
    let space = " ".repeat(COLUMN.saturating_sub(label.len()));
    let _ = writeln!(text, "{style}{label}{style:#}{space}{told}");
}
