//! The service as a process: the built binary, its environment, its log and its clock.

use super::{Issuer, described, eventually, secrecy};
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// A service in the making.
pub struct Builder {
    dir: TempDir,
    variables: Vec<(String, String)>,
    files: Option<u32>,
}

/// A running service. Dropping it kills it.
pub struct Service {
    /// Its public base URL.
    pub url: String,
    /// Its admin base URL.
    pub admin: String,
    /// The client to talk to it with.
    pub client: reqwest::Client,
    dir: TempDir,
    variables: Vec<(String, String)>,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body: JSON, or the text of one that is none.
    pub body: Value,
}

impl Answer {
    async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The app token of a successful exchange.
    pub fn token(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["token"].as_str().unwrap()
    }

    /// Asserts a refusal: its status and code, and that it has the shape that all have.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        for member in ["error", "error_description", "request_id", "action"] {
            assert!(self.body[member].is_string(), "{member} of {}", self.body);
        }
        assert!(self.body["retryable"].is_boolean(), "{}", self.body);
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("x-request-id"), self.body["request_id"]);
        let challenged = status == 401 || code == "insufficient_scope";
        assert_eq!(self.headers.contains_key("www-authenticate"), challenged);
    }
}

impl Builder {
    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Writes `exchequer.toml`.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        std::fs::write(self.dir.path().join("exchequer.toml"), toml).unwrap();
        self
    }

    /// Writes `exchequer.toml` with one app, `web`, that trusts this issuer as `clerk`, and
    /// these further lines for the issuer and for the app.
    #[must_use]
    pub fn one_app(self, issuer: &Issuer, issuer_lines: &str, app_lines: &str) -> Self {
        let url = &issuer.url;
        self.config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n{issuer_lines}\n\
             [apps.web]\nissuers = [\"clerk\"]\n{app_lines}\n"
        ))
    }

    /// Lets it open so many files.
    #[must_use]
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// Starts the service and waits until it listens.
    pub async fn start(self) -> Service {
        let variables = self.variables;
        let (process, log, url, admin) = spawn(&self.dir, &variables, self.files).await;
        Service {
            url,
            admin,
            client: client(),
            dir: self.dir,
            variables,
            process,
            log,
        }
    }
}

/// A client as an app has one: no redirects followed, bounded.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

async fn spawn(
    dir: &TempDir,
    variables: &[(String, String)],
    files: Option<u32>,
) -> (Child, Arc<Mutex<Vec<String>>>, String, String) {
    const BINARY: &str = env!("CARGO_BIN_EXE_exchequer");
    let mut command = Command::new(BINARY);
    if let Some(files) = files {
        command = Command::new("prlimit");
        command.arg(format!("--nofile={files}")).arg(BINARY);
    }
    let mut process = command
        .arg("serve")
        .current_dir(dir.path())
        .env_clear()
        .env("EXCHEQUER_LISTEN", "127.0.0.1:0")
        .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("EXCHEQUER_CLOCK_SHIFT_FILE", dir.path().join("clock"))
        // Most tests ask for one subject far more often than its app would.
        .env("EXCHEQUER_RATE_LIMIT", "off")
        // And some a thousand times at once, on machines that have other things to do.
        .env("EXCHEQUER_MAX_CONCURRENCY", "4096")
        .env("EXCHEQUER_MAX_QUEUE_DELAY", "off")
        .env("EXCHEQUER_SHUTDOWN_DELAY", "0s")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let streams: [Box<dyn std::io::Read + Send>; 2] = [
        Box::new(process.stdout.take().unwrap()),
        Box::new(process.stderr.take().unwrap()),
    ];
    for stream in streams {
        let log = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
    }
    let mut found = None;
    eventually("the service listens", async || {
        found = log.lock().unwrap().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| {
                let address = |name: &str| format!("http://{}", line[name].as_str().unwrap());
                (address("public"), address("admin"))
            })
        });
        if let Some(status) = process.try_wait().unwrap() {
            panic!(
                "the service ended with {status}: {:#?}",
                log.lock().unwrap()
            );
        }
        found.is_some()
    })
    .await;
    let (url, admin) = found.unwrap();
    (process, log, url, admin)
}

impl Service {
    /// A service with nothing configured yet.
    pub fn builder() -> Builder {
        Builder {
            dir: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
            files: None,
        }
    }

    /// A service that trusts this Clerk instance.
    pub async fn trusting(issuer: &Issuer) -> Self {
        Self::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .start()
            .await
    }

    /// The folder that it runs in; its keys are in `keys`.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Sets a variable for its next start and its commands.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Exchanges this JSON body.
    pub async fn exchange(&self, body: &Value) -> Answer {
        let request = self
            .client
            .post(format!("{}/auth/exchange", self.url))
            .header("content-type", "application/json")
            .body(body.to_string());
        self.send(request).await
    }

    /// Exchanges a session token.
    pub async fn session(&self, token: &str) -> Answer {
        self.exchange(&json!({ "session_token": token })).await
    }

    /// Exchanges a session token that must be refused with 401 and this code; the answer
    /// must not echo it.
    pub async fn refuses(&self, what: impl Display, token: &str, code: &str) {
        let answer = self.session(token).await;
        assert_eq!(answer.body["code"], code, "{what}: {}", answer.body);
        answer.assert_refused(401, code);
        let text = answer.body.to_string();
        assert!(token.len() < 16 || !text.contains(token), "{what}: {text}");
    }

    /// Sends any request; an answer of its public listener must be one that its OpenAPI document
    /// describes.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, url) = (request.method().clone(), request.url().clone());
        let answer = Answer::of(client.execute(request).await.unwrap()).await;
        if url.as_str().starts_with(&format!("{}/", self.url)) {
            described::assert_described(method.as_str(), url.path(), &answer);
        }
        answer
    }

    /// Gets a path of the public listener.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.url)))
            .await
    }

    /// Gets a path of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.admin)))
            .await
    }

    /// The value of a metric with these labels, as they stand in the text.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.admin("/metrics").await;
        let text = answer.body.as_str().unwrap().to_owned();
        text.lines().find_map(|line| {
            let (left, right) = line.rsplit_once(' ')?;
            (left == name).then(|| right.parse().ok())?
        })
    }

    /// How many fetches of this issuer's key set had this result.
    pub async fn key_set_fetches(&self, issuer: &Issuer, result: &str) -> f64 {
        let name = issuer.url.trim_start_matches("http://").replace(':', "-");
        let metric = format!("exchequer_jwks_fetch_total{{issuer=\"{name}\",result=\"{result}\"}}");
        self.metric(&metric).await.unwrap_or_default()
    }

    /// Waits until it has this issuer's keys.
    pub async fn has_keys_of(&self, issuer: &Issuer) {
        eventually("the keys are fetched", async || {
            self.key_set_fetches(issuer, "ok").await >= 1.0
        })
        .await;
    }

    /// The lines of its log so far. A thread of its own writes them, some milliseconds after the
    /// answers: so it is waited until no more come.
    pub fn log(&self) -> Vec<String> {
        let read = || self.log.lock().unwrap().clone();
        let mut log = read();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(25));
            let more = read();
            if more.len() == log.len() {
                break;
            }
            log = more;
        }
        log
    }

    /// Leaves the log unread from now on, until the answer is dropped.
    pub fn leave_log_unread(&self) -> std::sync::mpsc::Sender<()> {
        let (unread, dropped) = std::sync::mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let _held = log.lock().unwrap();
            let _ = dropped.recv();
        });
        unread
    }

    /// The log lines that are JSON and have this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.log()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == message)
            .collect()
    }

    /// Moves its clocks: the wall clock and the monotonic one, seconds from the real ones.
    pub fn shift_clocks(&self, wall: i64, monotonic: i64) {
        self.set_clocks(&format!("{wall} {monotonic}"));
    }

    /// Lets time pass for it, seconds from its real start: by its own clocks, and by that of the
    /// server that it shares a key ring in.
    pub fn pass_time(&self, seconds: i64) {
        self.set_clocks(&format!("{seconds} {seconds} {seconds}"));
    }

    /// Lets time pass for all but itself: by the clock of the server that it shares a key ring
    /// in it is later, by its own monotonic clock it is not.
    pub fn pass_time_elsewhere(&self, own: i64, elsewhere: i64) {
        self.set_clocks(&format!("{elsewhere} {own} {elsewhere}"));
    }

    fn set_clocks(&self, text: &str) {
        let path = self.dir.path().join("clock");
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Runs a command of the same binary with the same configuration.
    pub fn command(&self) -> super::Command {
        let mut command = super::Command::new(self.dir.path());
        for (name, value) in &self.variables {
            command = command.env(name, value);
        }
        command.env(
            "EXCHEQUER_CLOCK_SHIFT_FILE",
            self.dir.path().join("clock").display().to_string(),
        )
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the process has ended; gives its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        for _ in 0..2000 {
            if let Some(status) = self.process.try_wait().unwrap() {
                code = Some(status);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        code.expect("the process never ended").code()
    }

    /// Kills the process (SIGKILL) and starts it anew in the same folder.
    pub async fn restart(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        secrecy::assert_kept(&self.log());
        let (process, log, url, admin) = spawn(&self.dir, &self.variables, None).await;
        self.process = process;
        self.log = log;
        self.url = url;
        self.admin = admin;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            secrecy::assert_kept(&self.log());
        }
    }
}
