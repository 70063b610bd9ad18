//! A Redis of its own for a test: a real `redis-server` (Debian's package of that name) in a
//! folder of its own, on a free TCP port and a Unix socket. It keeps its data on disk at each
//! change, and comes back at the same address. It ends with the value. Several of them make a
//! Cluster, or a primary and its replica behind sentinels.

use super::{eventually, free_port};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use tempfile::TempDir;

/// A running or stopped Redis. Dropping it kills it.
pub struct Redis {
    dir: TempDir,
    port: u16,
    directives: Vec<String>,
    process: Mutex<Option<Child>>,
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
            let redis = Self {
                dir: tempfile::tempdir().unwrap(),
                port: free_port(),
                directives: directives.iter().map(|each| (*each).to_owned()).collect(),
                process: Mutex::default(),
            };
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
        *self.process.lock().unwrap() = Some(child);
        let mut ended = false;
        eventually("the Redis answers, or has ended", async || {
            let mut process = self.process.lock().unwrap();
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

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it is the primary of this slot of a Cluster, as it sees it itself.
    fn serves(&self, slot: u16) -> bool {
        let nodes = self.ask(&["CLUSTER", "NODES"]);
        let own = nodes.lines().find(|line| line.contains("myself,master"));
        own.unwrap_or_default().split(' ').skip(8).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse().unwrap_or(u16::MAX);
            (number(first)..=number(last)).contains(&slot)
        })
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
        let process = self.process.lock().unwrap();
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
        let ended = self.process.lock().unwrap().take().unwrap().wait();
        assert!(ended.unwrap().success());
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        let process = self.process.lock().unwrap().take();
        if let Some(mut process) = process {
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

/// Three sentinels that watch a primary by the name `main`, and depose it after a second.
pub struct Sentinels {
    dir: TempDir,
    ports: [u16; 3],
    processes: Vec<Child>,
}

impl Sentinels {
    /// Sentinels of this primary, with further lines of their configuration.
    pub async fn of(primary: &Redis, lines: &str) -> Self {
        let mut sentinels = Self {
            dir: tempfile::tempdir().unwrap(),
            ports: std::array::from_fn(|_| free_port()),
            processes: Vec::new(),
        };
        for port in sentinels.ports {
            let file = sentinels.dir.path().join(format!("{port}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor main 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 3000\n{lines}\n",
                sentinels.dir.path().display(),
                primary.port
            );
            std::fs::write(&file, text).unwrap();
            let child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            sentinels.processes.push(child);
        }
        sentinels
    }

    fn ask(port: u16, password: Option<&str>, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "--raw", "--no-auth-warning"])
            .args(password.iter().flat_map(|password| ["--pass", password]))
            .arg("SENTINEL")
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Deposes the primary, in good order.
    pub fn fail_over(&self) {
        let answer = Self::ask(self.ports[0], None, &["FAILOVER", "main"]);
        assert_eq!(answer.trim(), "OK");
    }

    /// Waits until each knows the two others and one replica.
    pub async fn know_each_other(&self, password: Option<&str>) {
        eventually("the sentinels know each other", async || {
            self.ports.iter().all(|port| {
                let text = Self::ask(*port, password, &["MASTER", "main"]);
                let field = |name: &str| {
                    let mut lines = text.lines().skip_while(|line| *line != name);
                    lines.nth(1).unwrap_or_default().to_owned()
                };
                field("num-other-sentinels") == "2" && field("num-slaves") == "1"
            })
        })
        .await;
    }

    /// The URL of `main`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A Cluster: three primaries, and a replica of each where asked for.
pub struct RedisCluster {
    /// Its servers; the first three begin as primaries.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// A Cluster that serves every slot.
    pub async fn start(replicas: bool) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..if replicas { 6 } else { 3 } {
            let bus = free_port().to_string();
            let directives = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                // Where nobody can take over, a node that is only slow must not be given up.
                if replicas { "1000" } else { "15000" },
                "--cluster-port",
                &bus,
            ];
            nodes.push(Redis::with(&directives).await);
        }
        let addresses: Vec<String> = nodes.iter().map(Redis::address).collect();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", if replicas { "1" } else { "0" }])
            .arg("--cluster-yes")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let cluster = Self { nodes };
        eventually("every slot is served", async || {
            cluster
                .nodes
                .iter()
                .all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        })
        .await;
        if replicas {
            eventually("every primary has its replica", async || {
                cluster
                    .nodes
                    .iter()
                    .filter(|node| {
                        let text = node.ask(&["INFO", "replication"]);
                        text.contains("connected_slaves:1")
                            || text.contains("master_link_status:up")
                    })
                    .count()
                    == 6
            })
            .await;
        }
        cluster
    }

    /// The Cluster, without replicas, of all tests that run at the same time; each keeps to names
    /// of its own.
    pub async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<RedisCluster>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start(false).await);
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// Its URL, which names the last two of its servers.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .rev()
            .take(2)
            .map(Redis::address)
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The primary of this key.
    pub fn primary_of(&self, key: &str) -> &Redis {
        let slot: u16 = self.nodes[0]
            .ask(&["CLUSTER", "KEYSLOT", key])
            .parse()
            .unwrap();
        self.nodes
            .iter()
            .find(|node| node.serves(slot))
            .expect("someone serves the slot")
    }
}
