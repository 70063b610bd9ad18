//! `EXCHEQUER_STORE` where it names a Redis: its URL, read.
//!
//! | URL | which |
//! | --- | --- |
//! | `redis://[USER:PASSWORD@]HOST[:PORT][/DB]` | one server; `rediss` with TLS |
//! | `unix://[USER:PASSWORD@]/PATH[?db=N]` | one server on a Unix socket |
//! | `redis+sentinel://…@HOST[:PORT],HOST…/NAME[/DB]` | the primary that these sentinels know as NAME; `rediss+sentinel` with TLS |
//! | `redis+cluster://…@HOST[:PORT],HOST…` | a Cluster that these nodes belong to; `rediss+cluster` with TLS |
//!
//! Each may carry `?prefix=`, `?deadline=` and `?replicas=`; with TLS `?ca=`, `?cert=` and `?key=`;
//! with sentinels `?sentinel_user=` and `?sentinel_password=`.

use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// How long one round trip may take where the URL does not say.
const DEADLINE: Duration = Duration::from_millis(250);
const MOST_NODES: usize = 32;
/// Every option there is.
const OPTIONS: [&str; 9] = [
    "prefix",
    "deadline",
    "replicas",
    "db",
    "ca",
    "cert",
    "key",
    "sentinel_user",
    "sentinel_password",
];

/// A Redis, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Which servers.
    pub topology: Topology,
    /// How TLS is done, where the connection is TLS.
    pub tls: Option<Box<RedisTls>>,
    /// Who asks.
    pub login: Option<Login>,
    /// Who asks the sentinels.
    pub sentinel_login: Option<Login>,
    /// The number of the database.
    pub database: u32,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How long one round trip may take.
    pub deadline: Duration,
    /// How many replicas of Redis must have a change before it is answered.
    pub replicas: u32,
}

/// Which servers there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single(Node),
    /// One server on this socket.
    Unix(PathBuf),
    /// The primary of this name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Node>,
        /// What they call it.
        name: String,
    },
    /// A Cluster.
    Cluster(Vec<Node>),
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// An ACL user and its password; without a name, the default user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: Option<String>,
    /// Its password.
    pub password: Password,
}

/// A password; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// Certificate authorities that are trusted in the place of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Whether the text is a URL of a Redis, as its scheme tells.
pub(super) fn is_redis(scheme: &str) -> bool {
    matches!(
        scheme,
        "redis"
            | "rediss"
            | "unix"
            | "redis+unix"
            | "redis+sentinel"
            | "rediss+sentinel"
            | "redis+cluster"
            | "rediss+cluster"
    )
}

/// Whether the text was meant to be one, and lacks a mark of its scheme: taken for the path of a
/// file it would be a store of this process alone, named after a password.
pub(super) fn is_nearly(text: &str) -> bool {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (scheme, rest) = text.split_at(end);
    is_redis(&scheme.to_ascii_lowercase()) && (rest.starts_with(':') || rest.starts_with("//"))
}

/// Reads the URL. What it says in an error, every mistake at once, never shows the URL: it may
/// hold a password.
pub(super) fn read(text: &str) -> Result<RedisSettings, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let tls = scheme.starts_with("rediss");
    let kind = scheme.split_once('+').map_or(scheme, |(_, kind)| kind);
    let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_ends);
    // A / in a password ends the authority: what follows must not be taken for a name to show.
    if path.contains(['@', '#']) || text.chars().any(char::is_control) {
        return Err(
            "is no URL of a Redis: in a user, a password or a path each of / ? # @ % and each control character is written as % and its two hexadecimal digits"
                .to_owned(),
        );
    }
    // Several hosts are no URL: all of them are taken out.
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let url = Url::parse(&format!("redis://{user}host{path}"))
        .map_err(|_| "is no URL like redis://USER:PASSWORD@HOST:6379/0".to_owned())?;
    let mut wrong = Wrong::default();
    let login = wrong.login(
        decoded(url.username()),
        decoded(url.password().unwrap_or_default()),
    );
    let mut options = wrong.options(&url);
    let path = if kind == "unix" { "" } else { url.path() };
    let mut segments = path.split('/').filter(|part| !part.is_empty());
    let port = if kind == "sentinel" {
        SENTINEL_PORT
    } else {
        PORT
    };
    let mut nodes = match kind {
        "unix" => Vec::new(),
        _ => wrong.or(nodes(hosts, port), Vec::new()),
    };
    let topology = match kind {
        "unix" => {
            if !hosts.is_empty() || url.path().len() < 2 {
                wrong.note("the path of a socket after three slashes: unix:///run/redis.sock");
            }
            let path = wrong.or(decoded(url.path()), String::new());
            Topology::Unix(PathBuf::from(path))
        }
        "cluster" => Topology::Cluster(nodes),
        "sentinel" => {
            let name = segments.next().map_or(Ok(String::new()), decoded);
            let name = wrong.or(name, String::new());
            if name.is_empty() {
                wrong.note(
                    "the name of the primary after the sentinels: redis+sentinel://HOST:26379/NAME",
                );
            }
            Topology::Sentinel {
                sentinels: nodes,
                name,
            }
        }
        _ => {
            if nodes.len() > 1 {
                wrong.note("one host; several are redis+cluster:// or redis+sentinel://");
            }
            Topology::Single(nodes.pop().unwrap_or(Node {
                host: String::new(),
                port,
            }))
        }
    };
    let database = match (options.remove("db"), segments.next()) {
        (Some(_), _) if kind != "unix" => {
            wrong.note("db only of a socket; else the database is the last part of the path");
            0
        }
        (Some(number), _) => wrong.or(database(&number), 0),
        (None, Some(number)) => wrong.or(database(number), 0),
        (None, None) => 0,
    };
    if segments.next().is_some() {
        wrong.note("no more in the path than the number of a database");
    }
    if database != 0 && kind == "cluster" {
        wrong.note("no database: a Cluster has only 0");
    }
    let files = ["ca", "cert", "key"].map(|name| options.remove(name).map(PathBuf::from));
    if !tls && files.iter().any(Option::is_some) {
        wrong.note("ca, cert and key only where the scheme says TLS: rediss");
    }
    let [ca, cert, key] = files;
    if cert.is_some() != key.is_some() {
        wrong.note("cert and key, or neither");
    }
    let sentinel_user = options.remove("sentinel_user");
    let sentinel_password = options.remove("sentinel_password");
    if kind != "sentinel" && (sentinel_user.is_some() || sentinel_password.is_some()) {
        wrong.note("sentinel_user and sentinel_password only where the scheme says sentinel");
    }
    let sentinel_login = wrong.login(
        Ok(sentinel_user.unwrap_or_default()),
        Ok(sentinel_password.unwrap_or_default()),
    );
    let mut option = |name: &str| options.remove(name);
    let settings = RedisSettings {
        topology,
        tls: tls.then(|| {
            Box::new(RedisTls {
                ca,
                identity: cert.zip(key),
            })
        }),
        login,
        sentinel_login,
        database,
        prefix: option("prefix").map_or("exchequer".to_owned(), |text| {
            wrong.or(prefix(&text), String::new())
        }),
        deadline: option("deadline").map_or(DEADLINE, |text| wrong.or(deadline(&text), DEADLINE)),
        replicas: option("replicas").map_or(0, |text| wrong.or(replicas(&text), 0)),
    };
    match wrong.0.is_empty() {
        true => Ok(settings),
        false => Err(format!("the URL of a Redis takes {}", wrong.0.join("; "))),
    }
}

/// What is wrong with a URL, each as what it should have been.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn note(&mut self, should: impl Into<String>) {
        self.0.push(should.into());
    }

    fn or<T>(&mut self, read: Result<T, String>, default: T) -> T {
        read.unwrap_or_else(|should| {
            self.note(should);
            default
        })
    }

    fn login(
        &mut self,
        user: Result<String, String>,
        password: Result<String, String>,
    ) -> Option<Login> {
        let user = self.or(user, String::new());
        let password = self.or(password, String::new());
        match (user.is_empty(), password.is_empty()) {
            (true, true) => None,
            (false, true) => {
                self.note("a user with its password: USER:PASSWORD@, or :PASSWORD@ alone");
                None
            }
            (no_user, false) => Some(Login {
                user: (!no_user).then_some(user),
                password: Password(password),
            }),
        }
    }

    /// The options behind the question mark, each once.
    fn options(&mut self, url: &Url) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        // Not as a form: a + in a password is a +.
        let query = url.query().unwrap_or_default();
        // An & in a password ends it: what follows must not be taken for a name to show.
        let secret = query.to_ascii_lowercase().contains("pass");
        let pairs = query.split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = self.or(decoded(value), String::new());
            if !OPTIONS.contains(&name) {
                let known = OPTIONS.join(", ");
                self.note(match secret {
                    true => format!("{known} and nothing else"),
                    false => format!("{known}, not {name:?}"),
                });
            } else if options.insert(name.to_owned(), value).is_some() {
                self.note(format!("{name} once"));
            }
        }
        options
    }
}

/// A part of the URL with its escapes resolved.
fn decoded(encoded: &str) -> Result<String, String> {
    let text = percent_decode_str(encoded).decode_utf8();
    text.map(|text| text.into_owned())
        .map_err(|_| "UTF-8 where it is written with %".to_owned())
}

fn nodes(hosts: &str, port: u16) -> Result<Vec<Node>, String> {
    let nodes: Vec<Node> = hosts
        .split(',')
        .map(|host| {
            let url = Url::parse(&format!("redis://{host}")).ok();
            let named = url
                .as_ref()
                .and_then(|url| Some((url.host_str()?, url.port())))
                .filter(|(host, port)| !host.is_empty() && *port != Some(0));
            let (host, given) = named.ok_or("a host after the scheme: redis://HOST:6379")?;
            Ok(Node {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: given.unwrap_or(port),
            })
        })
        .collect::<Result<_, String>>()?;
    if nodes.len() > MOST_NODES {
        return Err(format!("at most {MOST_NODES} hosts"));
    }
    Ok(nodes)
}

fn database(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "a whole number for the database".to_owned())
}

/// A prefix makes no hash tag of its own (Redis Cluster specification, "Hash tags").
fn prefix(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a prefix of 1 to 64 letters, digits and -_.:".to_owned())
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text).ok();
    let fits = |time: &Duration| (10..=2_000).contains(&time.as_millis());
    read.filter(fits)
        .ok_or_else(|| "a deadline from 10ms to 2s".to_owned())
}

fn replicas(text: &str) -> Result<u32, String> {
    let read = text.parse().ok().filter(|count| *count <= 8);
    read.ok_or_else(|| "replicas from 0 to 8".to_owned())
}
