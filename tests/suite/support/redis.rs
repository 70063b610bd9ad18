//! A Redis of its own for a test: a real `redis-server` (Debian's package of that name) in a
//! folder of its own, on a free TCP port and a Unix socket. It keeps its data on disk at each
//! change, and comes back at the same address. It ends with the value.

use super::eventually;
use std::cell::RefCell;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running or stopped Redis. Dropping it kills it.
pub struct Redis {
    dir: TempDir,
    port: u16,
    directives: Vec<String>,
    process: RefCell<Option<Child>>,
}

impl Redis {
    /// A Redis that answers.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A Redis with these further directives of its configuration, as arguments:
    /// `["--requirepass", "word"]`.
    pub async fn with(directives: &[&str]) -> Self {
        for _ in 0..20 {
            // Free now; where another process takes it meanwhile, another port is tried.
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let redis = Self {
                dir: tempfile::tempdir().unwrap(),
                port: port.local_addr().unwrap().port(),
                directives: directives.iter().map(|each| (*each).to_owned()).collect(),
                process: RefCell::new(None),
            };
            drop(port);
            if redis.try_to_run().await {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    async fn try_to_run(&self) -> bool {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(&self.directives)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is on the path: apt-get install redis-server");
        *self.process.borrow_mut() = Some(child);
        let mut ended = false;
        eventually("the Redis answers, or has ended", async || {
            let mut process = self.process.borrow_mut();
            ended = process.as_mut().unwrap().try_wait().unwrap().is_some();
            // Where a password is asked for, even the refusal is an answer.
            let answer = self.ask(&["PING"]);
            ended || answer == "PONG" || answer.starts_with("NOAUTH")
        })
        .await;
        !ended
    }

    /// Its URL, over TCP.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its URL, over its Unix socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Its TCP port, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command by `redis-cli`; gives what it prints, an error of the server likewise,
    /// without the last line feed. `--pass` and the like go before it.
    pub fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--raw"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// Empties it, as `FLUSHALL` does.
    pub fn flush(&self) {
        assert_eq!(self.ask(&["FLUSHALL"]), "OK");
    }

    fn signal(&self, name: &str) {
        let process = self.process.borrow();
        let pid = process.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Stops it where it stands (SIGSTOP): connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Stops it in good order (SIGTERM), and waits until it has ended.
    pub fn stop(&self) {
        self.signal("-TERM");
        let ended = self.process.take().unwrap().wait();
        assert!(ended.unwrap().success());
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], with its data.
    pub async fn run(&self) {
        assert!(self.try_to_run().await, "redis-server does not start again");
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], without its data.
    pub async fn run_empty(&self) {
        let _ = std::fs::remove_dir_all(self.dir.path().join("appendonlydir"));
        self.run().await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
