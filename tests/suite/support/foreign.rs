//! Programs that we did not write, driven line by line.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// A foreign program that answers each line with a line of JSON.
pub struct Foreign {
    process: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Foreign {
    /// Starts it in the folder of the interop tests.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        for needed in ["node_modules/.installed", ".venv/.installed"] {
            let installed = Path::new(FOLDER).join(needed).exists();
            assert!(
                installed,
                "run tests/interop/install.sh: {needed} is missing"
            );
        }
        let mut process = Command::new(program)
            .args(arguments)
            .current_dir(FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (answered, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = answered.send(line);
            }
        });
        Self {
            process,
            input,
            answers,
        }
    }

    /// A program of ours around a Go module, where there is a Go that built it.
    pub fn go(program: &str, arguments: &[&str]) -> Option<Self> {
        let there = |name: &str| Path::new(FOLDER).join("go/bin").join(name).exists();
        if !there(".installed") {
            assert!(there(".skipped"), "run tests/interop/install.sh");
            eprintln!("skipped: there is no Go here");
            return None;
        }
        Some(Self::start(&format!("go/bin/{program}"), arguments))
    }

    /// The folder of the web pages of the Dex that was built; empty where there is none.
    pub fn dex_web() -> String {
        let folder = std::fs::read_to_string(Path::new(FOLDER).join("go/bin/dex-folder"));
        folder.map_or_else(|_| String::new(), |folder| format!("{}/web", folder.trim()))
    }

    /// Its next line.
    pub fn next(&self) -> Value {
        let line = self.answers.recv_timeout(Duration::from_secs(60)).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Its answer to a line.
    pub fn ask(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        self.next()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.kill();
    }
}
