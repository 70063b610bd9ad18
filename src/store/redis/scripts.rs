//! The scripts, each known to the server by the hash of its text.

use redis::{Cmd, Script as Text, Value};

/// A script.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

/// All of them.
pub(super) struct Scripts {
    pub(super) enter: Script,
    pub(super) commit: Script,
    pub(super) bucket: Script,
    pub(super) due: Script,
    pub(super) settle: Script,
    pub(super) sweep: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            enter: Script::new(include_str!("enter.lua")),
            commit: Script::new(include_str!("commit.lua")),
            bucket: Script::new(include_str!("bucket.lua")),
            due: Script::new(include_str!("due.lua")),
            settle: Script::new(include_str!("settle.lua")),
            sweep: Script::new(include_str!("sweep.lua")),
        }
    }
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = Text::new(text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The beginning of a command that runs it over so many keys: by its hash, or by its text,
    /// which the server then knows.
    pub(super) fn command(&self, by_text: bool, keys: usize) -> Cmd {
        let mut command = Cmd::with_capacity(16, 512);
        if by_text {
            command.arg("EVAL").arg(self.text);
        } else {
            command.arg("EVALSHA").arg(self.hash.as_str());
        }
        command.arg(keys);
        command
    }
}

/// Whether a server does not know a script by its hash: it has been restarted, or is another.
pub(super) fn is_unknown(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
