//! An issuer over HTTP on loopback that does what a test tells it to: rotate, stall,
//! redirect, drip, send too much, lie about its issuer, vanish.

use super::{Key, Token, now};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// How the issuer answers at a path.
#[derive(Clone)]
pub enum Behaviour {
    /// As it should.
    Well,
    /// With this status and body.
    Answer(u16, String),
    /// As it should, after a while.
    Late(Duration),
    /// Not at all: the connection stays open.
    Stall,
    /// By sending elsewhere.
    Redirect(String),
    /// A byte every 100 ms.
    Drip,
    /// With this many bytes.
    Flood(usize),
    /// With these very bytes, head and all.
    Raw(Vec<u8>),
    /// By closing the connection.
    Close,
}

struct State {
    keys: Vec<Value>,
    behaviours: HashMap<String, Behaviour>,
    claimed_issuer: Option<String>,
    jwks_uri: Option<String>,
    cache_control: Option<String>,
    date: Option<i64>,
    asked: HashMap<String, usize>,
    headers: Vec<String>,
    bodies: Vec<String>,
}

/// The issuer. It serves `/.well-known/jwks.json` and `/.well-known/openid-configuration`.
pub struct Issuer {
    /// Its `iss`.
    pub url: String,
    state: Arc<Mutex<State>>,
    server: Mutex<AbortHandle>,
}

pub const JWKS: &str = "/.well-known/jwks.json";
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

impl Issuer {
    /// An issuer that publishes the first RSA key as `ins_1`.
    pub async fn start() -> Self {
        Self::with_keys(vec![Key::rsa().jwk("ins_1")]).await
    }

    /// So many of them.
    pub async fn several(count: usize) -> Vec<Self> {
        let mut issuers = Vec::new();
        for _ in 0..count {
            issuers.push(Self::start().await);
        }
        issuers
    }

    /// An issuer that publishes these JWKs.
    pub async fn with_keys(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            keys,
            behaviours: HashMap::new(),
            claimed_issuer: None,
            jwks_uri: None,
            cache_control: None,
            date: None,
            asked: HashMap::new(),
            headers: Vec::new(),
            bodies: Vec::new(),
        }));
        let server = serve(listener, url.clone(), Arc::clone(&state));
        Self {
            url,
            state,
            server: Mutex::new(server),
        }
    }

    /// Publishes these JWKs from now on.
    pub fn publish(&self, keys: Vec<Value>) {
        self.state.lock().unwrap().keys = keys;
    }

    /// Behaves so at the path from now on.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        let mut state = self.state.lock().unwrap();
        state.behaviours.insert(path.to_owned(), behaviour);
    }

    /// Says another `issuer` in its discovery document.
    pub fn claim_issuer(&self, issuer: &str) {
        self.state.lock().unwrap().claimed_issuer = Some(issuer.to_owned());
    }

    /// Says another `jwks_uri` in its discovery document.
    pub fn claim_jwks_uri(&self, uri: &str) {
        self.state.lock().unwrap().jwks_uri = Some(uri.to_owned());
    }

    /// Sends this `Cache-Control` with its key set.
    pub fn cache_control(&self, value: &str) {
        self.state.lock().unwrap().cache_control = Some(value.to_owned());
    }

    /// Sends a `Date` this many seconds from now with its answers.
    pub fn date(&self, ahead: i64) {
        self.state.lock().unwrap().date = Some(ahead);
    }

    /// How often the path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.get(path).copied().unwrap_or_default()
    }

    /// The heads of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().headers.clone()
    }

    /// The bodies of all requests that had one.
    pub fn bodies(&self) -> Vec<String> {
        self.state.lock().unwrap().bodies.clone()
    }

    /// Stops listening: connections are refused.
    pub fn vanish(&self) {
        self.server.lock().unwrap().abort();
    }

    /// Listens again at the same address.
    pub async fn come_back(&self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        let mut bound = TcpListener::bind(&address).await;
        for _ in 0..100 {
            if bound.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            bound = TcpListener::bind(&address).await;
        }
        *self.server.lock().unwrap() =
            serve(bound.unwrap(), self.url.clone(), Arc::clone(&self.state));
    }

    /// A good session token of this issuer.
    pub fn token(&self) -> String {
        Token::clerk(&self.url).sign(Key::rsa())
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.vanish();
    }
}

fn serve(listener: TcpListener, url: String, state: Arc<Mutex<State>>) -> AbortHandle {
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            connections.spawn(connection(stream, url.clone(), Arc::clone(&state)));
        }
    })
    .abort_handle()
}

/// Answers one request and closes.
async fn connection(mut stream: TcpStream, url: String, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let end = head.windows(4).position(|window| window == b"\r\n\r\n");
    let mut sent = head.split_off(end.unwrap() + 4);
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, length) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| length.trim().parse::<usize>().unwrap())
    });
    while sent.len() < length.unwrap_or_default() {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => sent.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (behaviour, body, cache, date) = {
        let mut state = state.lock().unwrap();
        *state.asked.entry(path.clone()).or_default() += 1;
        state.headers.push(head);
        if length.is_some() {
            state.bodies.push(String::from_utf8(sent).unwrap());
        }
        let behaviour = state.behaviours.get(&path).cloned();
        let body = match path.as_str() {
            JWKS => Some(json!({ "keys": state.keys }).to_string()),
            DISCOVERY => Some(
                json!({
                    "issuer": state.claimed_issuer.as_ref().unwrap_or(&url),
                    "jwks_uri": state.jwks_uri.clone().unwrap_or(format!("{url}{JWKS}")),
                })
                .to_string(),
            ),
            _ => None,
        };
        (
            behaviour.unwrap_or(Behaviour::Well),
            body,
            state.cache_control.clone(),
            state.date,
        )
    };
    let (status, body) = match (&behaviour, body) {
        (Behaviour::Answer(status, body), _) => (*status, body.clone()),
        (_, Some(body)) => (200, body),
        (_, None) => (404, "{}".to_owned()),
    };
    let cache = cache.map_or(String::new(), |value| format!("cache-control: {value}\r\n"));
    let date = date.map_or(String::new(), |ahead| {
        let time = Duration::from_secs((now() + ahead).try_into().unwrap());
        format!("date: {}\r\n", httpdate::fmt_http_date(UNIX_EPOCH + time))
    });
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{cache}{date}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    match behaviour {
        Behaviour::Well | Behaviour::Answer(..) => send(&mut stream, answer.as_bytes()).await,
        Behaviour::Late(wait) => {
            tokio::time::sleep(wait).await;
            send(&mut stream, answer.as_bytes()).await;
        }
        Behaviour::Stall => std::future::pending().await,
        Behaviour::Redirect(target) => {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            send(&mut stream, answer.as_bytes()).await;
        }
        Behaviour::Drip => {
            for byte in answer.as_bytes() {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Behaviour::Flood(size) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"keys\":[";
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            let block = [b' '; 64 * 1024];
            for _ in 0..size / block.len() {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
            }
        }
        Behaviour::Raw(bytes) => send(&mut stream, &bytes).await,
        Behaviour::Close => {}
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
}
