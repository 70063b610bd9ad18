//! Where the lines of the log go: to standard output, by way of a buffer and a thread of its
//! own. No request waits for whoever reads the log, and lines that come together are written
//! together. A reader that takes nothing costs lines, which are counted and told of, and never a
//! request.

use prometheus_client::metrics::counter::Counter;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that wait to be written: what some ten thousand exchanges log.
const MOST: usize = 4 * 1024 * 1024;
/// How long lines wait for each other after some were written: what is lost where the process
/// is killed.
const TOGETHER: Duration = Duration::from_millis(5);
/// How long the end waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to standard output.
#[derive(Clone, Default)]
pub(super) struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
    went: Condvar,
    lost: Counter,
}

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Whether the thread waits for lines.
    idle: bool,
}

impl Output {
    /// Starts the thread that writes. It ends with the process.
    pub(super) fn start() -> io::Result<Self> {
        let output = Self::default();
        let writing = output.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writing.write())?;
        Ok(output)
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> Counter {
        self.0.lost.clone()
    }

    /// Waits until what there is is written, for two seconds at most.
    pub(super) fn finish(&self) {
        let waiting = self.waiting();
        let _ = self
            .0
            .went
            .wait_timeout_while(waiting, PATIENCE, |waiting| {
                !waiting.idle || !waiting.lines.is_empty()
            });
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let mut lines = Vec::new();
        let mut told = 0;
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() {
                waiting.idle = true;
                self.0.went.notify_all();
                let woken = self.0.came.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
            waiting.idle = false;
            std::mem::swap(&mut lines, &mut waiting.lines);
            drop(waiting);
            // Now there is room for what is said of those that found none.
            let lost = self.0.lost.get();
            if lost > told {
                tracing::error!(lines = lost - told, "lines of the log were lost");
                told = lost;
            }
            let mut stdout = io::stdout().lock();
            if stdout.write_all(&lines).is_err() || stdout.flush().is_err() {
                // Not told of: that line would be lost as well.
                let many = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.0.lost.inc_by(many);
                told += many;
            }
            drop(stdout);
            lines.clear();
            // Whoever was stuck for long gives back what it needed then.
            lines.shrink_to(MOST / 16);
            thread::sleep(TOGETHER);
        }
    }
}

impl Write for &Output {
    /// A line. It is there whole or lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MOST {
            self.0.lost.inc();
            return Ok(line.len());
        }
        waiting.lines.extend_from_slice(line);
        let wake = std::mem::take(&mut waiting.idle);
        drop(waiting);
        if wake {
            self.0.came.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Output {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> &'w Self {
        self
    }
}
