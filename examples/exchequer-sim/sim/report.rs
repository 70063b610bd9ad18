//! What the simulation says, as Markdown tables, which a terminal shows as well as a page.

use super::issuer::Event;
use super::rules::{Class, DAY, HOUR, MINUTE, RULES};
use super::world::{Outcome, Setup, Tally};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Publish-ahead times of the table and the picture.
const AHEAD: [i64; 12] = [
    0,
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
];
/// Keep-after times of the other table.
const KEPT: [i64; 7] = [
    0,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    20 * MINUTE,
    HOUR,
    DAY,
];

/// One line of a table.
pub struct Row {
    pub label: String,
    pub setup: Setup,
    pub outcome: Outcome,
}

impl Row {
    fn play(label: String, setup: Setup) -> Self {
        let outcome = setup.play();
        Self {
            label,
            setup,
            outcome,
        }
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let rules = RULES.iter().zip(&self.outcome.by_rule).map(|(rule, tally)| {
            json!({
                "rule": rule.name, "class": rule.class.name(), "refreshes": rule.class.refreshes(),
                "shown": tally.shown, "refused": tally.refused,
                "last_refused_s": tally.last_refused, "old_key_trusted_s": tally.last_trusted,
            })
        });
        json!({
            "publish_ahead_s": self.setup.publish_ahead, "keep_after_s": self.setup.keep_after,
            "verifiers": self.setup.verifiers, "seed": self.setup.seed,
            "rules": rules.collect::<Vec<_>>(),
        })
    }
}

/// A rotation as soon as the publish-ahead time lets it, for each such time.
pub fn by_publish_ahead(setup: Setup) -> Vec<Row> {
    let at = |publish_ahead| Setup {
        publish_ahead,
        ..setup
    };
    AHEAD.map(|ahead| Row::play(short(ahead), at(ahead))).into()
}

/// The same for each keep-after time.
pub fn by_keep_after(setup: Setup) -> Vec<Row> {
    let at = |keep_after| Setup {
        keep_after,
        ..setup
    };
    KEPT.map(|kept| Row::play(short(kept), at(kept))).into()
}

/// Failures of a million, by class.
pub fn table(rows: &[Row], first: &str, classes: &[Class]) -> String {
    let mut text = format!("| {first} |");
    for class in classes {
        let _ = write!(text, " {} |", class.name());
    }
    text.push('\n');
    text.push_str(&"| --- ".repeat(classes.len() + 1));
    text.push_str("|\n");
    for row in rows {
        let _ = write!(text, "| {} |", row.label);
        for class in classes {
            let _ = write!(text, " {} |", of_a_million(&row.outcome.of(*class)));
        }
        text.push('\n');
    }
    text
}

/// A planned rotation, whose standby was published for the whole life of the key before.
pub fn planned(setup: Setup) -> Row {
    let setup = Setup {
        event: Event::Planned,
        ..setup
    };
    Row::play("a planned rotation".to_owned(), setup)
}

/// What emergencies cost, by class: which share of good tokens is refused and until when, and
/// until when those of whoever has the old key are taken.
pub fn emergencies(setup: Setup) -> String {
    let play = |event| Setup { event, ..setup }.play();
    let outcomes = [Event::Forced, Event::Revoked, Event::Stolen].map(play);
    let mut text = String::from(
        "| verifiers | `rotate --force`: refused | `revoke`: refused | thief | whole ring: refused | thief |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for class in Class::ALL {
        let _ = write!(text, "| {} |", class.name());
        for (outcome, revoked) in outcomes.iter().zip([false, true, true]) {
            let tally = outcome.of(class);
            let until = |time| after(time, outcome.end);
            let refused = match until(tally.last_refused) {
                None => "none".to_owned(),
                Some(last) => format!("{:.1} %, {last}", tally.percent_of_first_hour()),
            };
            let _ = write!(text, " {refused} |");
            if revoked {
                let thief = until(tally.last_trusted);
                let _ = write!(text, " {} |", thief.unwrap_or_else(|| "none".to_owned()));
            }
        }
        text.push('\n');
    }
    text
}

/// One setup, rule by rule.
pub fn by_rule(setup: Setup) -> Row {
    Row::play(short(setup.publish_ahead), setup)
}

/// Its table.
pub fn rules_table(row: &Row) -> String {
    let mut text = String::from(
        "| verifier | tokens shown | refused | of a million | last refusal |\n| --- | --- | --- | --- | --- |\n",
    );
    for (rule, tally) in RULES.iter().zip(&row.outcome.by_rule) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            rule.name,
            spaced(tally.shown),
            spaced(tally.refused),
            of_a_million(tally),
            after(tally.last_refused, row.outcome.end).unwrap_or_default()
        );
    }
    text
}

/// A number with a space between thousands.
pub fn spaced(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn of_a_million(tally: &Tally) -> String {
    match tally.per_million() {
        _ if tally.refused == 0 => "**0**".to_owned(),
        rate if rate < 1.0 => "< 1".to_owned(),
        rate => spaced(rate.round() as u64),
    }
}

/// A configured time: `0`, `20m`, `24h`.
fn short(seconds: i64) -> String {
    match seconds {
        0 => "0".to_owned(),
        seconds if seconds < HOUR => format!("{}m", seconds / MINUTE),
        seconds => format!("{}h", seconds / HOUR),
    }
}

/// How long after the event; the end of the simulation is not the end of it.
fn after(time: Option<i64>, end: i64) -> Option<String> {
    let time = time.filter(|time| *time > 0)?;
    Some(match time {
        time if time > end - HOUR => format!("> {} h", end / HOUR),
        time if time < 2 * HOUR => format!("{} min", time / MINUTE + 1),
        time => format!("{}.{} h", time / HOUR, time % HOUR * 10 / HOUR),
    })
}
