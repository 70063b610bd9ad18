//! A command of the binary that ends by itself.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{self, Stdio};

/// A command in the making.
pub struct Command {
    inner: process::Command,
    input: String,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Command {
    /// The binary, in this folder, with an empty environment.
    pub fn new(dir: &Path) -> Self {
        let mut inner = process::Command::new(env!("CARGO_BIN_EXE_exchequer"));
        inner.current_dir(dir).env_clear();
        Self {
            inner,
            input: String::new(),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Gives it standard input.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    /// Runs it with these arguments.
    pub fn run(mut self, arguments: &[&str]) -> Ended {
        let mut child = self
            .inner
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input is free to end before it is written.
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
