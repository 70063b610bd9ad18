//! A rotation of keys against thousands of verifiers, simulated.
//!
//! [`issuer`] plays the product's own ring on several replicas; [`rules`] are how verifiers keep a
//! key set, as data; [`verifier`] is one of them; [`world`] shows tokens to all of them and counts
//! what they refuse; [`report`] and [`picture`] say it; [`scale`] computes costs.

// `pub` is for the other files of this folder.
#![allow(unreachable_pub)]

mod issuer;
mod picture;
mod random;
mod report;
mod rules;
mod scale;
mod verifier;
mod world;

use clap::Parser;
use issuer::Event;
use rules::{Class, DAY};
use scale::Scale;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use world::Setup;

/// Simulates rotations of keys against verifiers, and computes what exchanges cost.
#[derive(Parser)]
#[command(name = "exchequer-sim")]
struct Arguments {
    /// Look at this publish-ahead time alone, verifier by verifier
    #[arg(long, value_name = "TIME")]
    publish_ahead: Option<humantime::Duration>,
    /// How long a key is published after it signed
    #[arg(long, value_name = "TIME", default_value = "24h")]
    keep_after: humantime::Duration,
    /// How many verifiers; each rule gets as many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    verifiers: u64,
    /// The same seed gives the same figures
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print for programs
    #[arg(long)]
    json: bool,
    /// Write the picture of the curve here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print what exchanges cost, and simulate nothing
    #[arg(long)]
    scale: bool,
    /// Write the tables into this page, between its marks
    #[arg(long, value_name = "FILE", conflicts_with_all = ["publish_ahead", "scale", "json"])]
    page: Option<PathBuf>,
}

/// Runs the command: what it prints, or what is wrong.
///
/// # Errors
/// Wrong arguments, and files that cannot be read or written.
pub fn command(arguments: impl IntoIterator<Item = OsString>) -> Result<String, String> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(help) if !help.use_stderr() => return Ok(help.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    if arguments.scale {
        return Ok(tables_of_costs()?.map(|(_, table)| table).join("\n"));
    }
    let setup = Setup {
        event: Event::Asked,
        publish_ahead: arguments.publish_ahead.map_or(DAY, seconds),
        keep_after: seconds(arguments.keep_after),
        verifiers: arguments.verifiers,
        seed: arguments.seed,
    };
    if setup.publish_ahead > 30 * DAY || setup.keep_after > 30 * DAY {
        return Err("30 days are the longest that is simulated".to_owned());
    }
    if arguments.publish_ahead.is_some() {
        let row = report::by_rule(setup);
        return Ok(if arguments.json {
            format!("{:#}\n", row.json())
        } else {
            report::rules_table(&row)
        });
    }
    let ahead = report::by_publish_ahead(setup);
    if let Some(path) = &arguments.svg {
        write(path, &picture::svg(&ahead, setup.verifiers, "24h"))?;
    }
    if arguments.json {
        let rows: Vec<_> = ahead.iter().map(report::Row::json).collect();
        return Ok(format!("{:#}\n", serde_json::Value::from(rows)));
    }
    let mut ahead_and_planned = ahead;
    ahead_and_planned.push(report::planned(setup));
    let refreshing: Vec<Class> = Class::ALL
        .into_iter()
        .filter(|class| class.refreshes())
        .collect();
    let tables = [
        (
            "publish-ahead",
            report::table(&ahead_and_planned, "published ahead", &Class::ALL),
        ),
        (
            "keep-after",
            report::table(&report::by_keep_after(setup), "kept after", &refreshing),
        ),
        ("emergencies", report::emergencies(setup)),
    ];
    if let Some(path) = &arguments.page {
        let mut page = read(path)?;
        for (mark, table) in tables.iter().chain(&tables_of_costs()?) {
            page = replaced(&page, mark, table)?;
        }
        write(path, &page)?;
    }
    Ok(tables.map(|(_, table)| table).join("\n"))
}

fn tables_of_costs() -> Result<[(&'static str, String); 4], String> {
    let scale = Scale::read()?;
    Ok([
        ("figures", scale.figures()),
        ("costs", scale.costs()),
        ("memory", scale.memory()),
        ("key-sets", scale.key_sets()),
    ])
}

/// The page with this table between its marks.
fn replaced(page: &str, mark: &str, table: &str) -> Result<String, String> {
    let begin = format!("<!-- exchequer-sim: {mark} -->\n");
    let missing = || format!("the page has no place for `{mark}`");
    let (before, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once("<!-- end -->").ok_or_else(missing)?;
    Ok(format!("{before}{begin}{table}<!-- end -->{after}"))
}

fn seconds(time: humantime::Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 4)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
