//! What the process takes of the machine, under the names that every Prometheus knows
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). Read from
//! `/proc` at each scrape; elsewhere than on Linux there is none of it.

use std::fmt::Write;
use std::fs;

/// What `/proc` counts processor time in: a hundredth of a second, whatever the kernel's own
/// clock (`sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust runs on).
const TICKS: f64 = 100.0;

/// Writes the metrics down, as OpenMetrics text.
pub(super) fn write(text: &mut String) {
    if let Some((processor, started)) = times() {
        family(
            text,
            "process_cpu_seconds",
            "counter",
            "Processor time used",
            processor,
        );
        let name = "process_start_time_seconds";
        family(
            text,
            name,
            "gauge",
            "When the process began, since the Unix epoch",
            started,
        );
    }
    if let Some(bytes) = resident() {
        family(
            text,
            "process_resident_memory_bytes",
            "gauge",
            "Memory that is in use",
            bytes,
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let open = open.count() as f64;
        family(
            text,
            "process_open_fds",
            "gauge",
            "Open files and connections",
            open,
        );
    }
    if let Some(most) = most_files() {
        family(
            text,
            "process_max_fds",
            "gauge",
            "How many may be open",
            most,
        );
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let suffix = if kind == "counter" { "_total" } else { "" };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {value}\n"
    );
}

/// Processor time, and when the process began; seconds.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, in brackets, with whatever it has in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<f64>().ok();
    // proc_pid_stat(5) counts from 1: utime 14, stime 15, starttime 22.
    let (user, system, started) = (number(11)?, number(12)?, number(19)?);
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = named(&machine, "btime ")?.parse().ok()?;
    Some(((user + system) / TICKS, booted + started / TICKS))
}

/// Resident memory, bytes.
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = named(&status, "VmRSS:")?.strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<f64>().ok()? * 1024.0)
}

/// The limit of open files.
fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = named(&limits, "Max open files")?
        .split_whitespace()
        .next()?;
    soft.parse().ok()
}

/// What follows this at the beginning of a line.
fn named<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines();
    Some(lines.find_map(|line| line.strip_prefix(name))?.trim())
}
