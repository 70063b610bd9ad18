//! `EXCHEQUER_STORE` where it names a Redis: its URL, read.
//!
//! | URL | which |
//! | --- | --- |
//! | `redis://[USER:PASSWORD@]HOST[:PORT][/DB]` | one server; `rediss` with TLS |
//! | `unix://[USER:PASSWORD@]/PATH[?db=N]` | one server on a Unix socket |
//! | `redis+sentinel://…@HOST[:PORT],HOST…/NAME[/DB]` | the primary that these sentinels know as NAME; `rediss+sentinel` with TLS |
//! | `redis+cluster://…@HOST[:PORT],HOST…` | a Cluster that these nodes belong to; `rediss+cluster` with TLS |
//!
//! Each may carry `?prefix=`, `?deadline=`, `?replicas=`, and with TLS `?ca=`.

use percent_encoding::percent_decode_str;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// How long one round trip may take where the URL does not say.
const DEADLINE: Duration = Duration::from_millis(250);
const MOST_NODES: usize = 32;

/// A Redis, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Which servers.
    pub topology: Topology,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// A PEM file of certificate authorities that are trusted in the place of the system's.
    pub ca: Option<PathBuf>,
    /// The ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Password>,
    /// The number of the database.
    pub database: i64,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A password; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub(crate) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
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

/// Reads the URL. What it says in an error never shows the URL: it may hold a password.
pub(super) fn read(text: &str) -> Result<RedisSettings, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let tls = scheme.starts_with("rediss");
    let kind = scheme.split_once('+').map_or(scheme, |(_, kind)| kind);
    // Several hosts are no URL: all but the first are taken out.
    let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_ends);
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let url = Url::parse(&format!("redis://{user}h{path}"))
        .map_err(|_| "a URL like redis://USER:PASSWORD@HOST:6379/0".to_owned())?;
    if url.fragment().is_some() {
        return Err("a URL without a fragment: a # in a password is written %23".to_owned());
    }
    let text = |encoded: &str| {
        let decoded = percent_decode_str(encoded).decode_utf8();
        decoded.map_or_else(|_| encoded.to_owned(), |text| text.into_owned())
    };
    let mut settings = RedisSettings {
        topology: Topology::Cluster(Vec::new()),
        tls,
        ca: None,
        username: Some(text(url.username())).filter(|name| !name.is_empty()),
        password: url.password().map(|secret| Password(text(secret))),
        database: 0,
        prefix: "exchequer".to_owned(),
        deadline: DEADLINE,
        replicas: 0,
    };
    let mut segments = url.path().split('/').filter(|part| !part.is_empty());
    let mut database = None;
    settings.topology = match kind {
        "unix" => Topology::Unix(PathBuf::from(text(url.path()))),
        "cluster" => Topology::Cluster(nodes(hosts, PORT)?),
        "sentinel" => {
            let sentinels = nodes(hosts, SENTINEL_PORT)?;
            let name = segments.next().map(text).ok_or(
                "the name of the primary after the sentinels: redis+sentinel://HOST:26379/NAME",
            )?;
            database = segments.next().map(str::to_owned);
            Topology::Sentinel { sentinels, name }
        }
        _ => {
            database = segments.next().map(str::to_owned);
            let mut nodes = nodes(hosts, PORT)?;
            match (nodes.pop(), nodes.is_empty()) {
                (Some(node), true) => Topology::Single(node),
                _ => {
                    return Err(
                        "one host; several are redis+cluster:// or redis+sentinel://".to_owned(),
                    );
                }
            }
        }
    };
    if kind != "unix" && segments.next().is_some() {
        return Err("no more in the path than the number of a database".to_owned());
    }
    for (name, value) in url.query_pairs() {
        let value = value.as_ref();
        match name.as_ref() {
            "db" if kind == "unix" => database = Some(value.to_owned()),
            "prefix" => settings.prefix = prefix(value)?,
            "deadline" => settings.deadline = deadline(value)?,
            "replicas" => {
                settings.replicas = value
                    .parse()
                    .ok()
                    .filter(|count| *count <= 8)
                    .ok_or("replicas from 0 to 8")?;
            }
            "ca" if tls => settings.ca = Some(PathBuf::from(value)),
            "ca" => return Err("ca only where the scheme says TLS: rediss".to_owned()),
            other => {
                return Err(format!(
                    "prefix, deadline, replicas, ca and, of a socket, db; not {other:?}"
                ));
            }
        }
    }
    if let Some(database) = database {
        settings.database = database
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or("a database is a whole number")?;
    }
    if settings.database != 0 && kind == "cluster" {
        return Err("no database: a Cluster has only 0".to_owned());
    }
    Ok(settings)
}

fn nodes(hosts: &str, port: u16) -> Result<Vec<Node>, String> {
    let nodes: Vec<Node> = hosts
        .split(',')
        .map(|host| {
            let url = Url::parse(&format!("redis://{host}")).ok();
            let named = url
                .as_ref()
                .and_then(|url| Some((url.host_str()?, url.port())));
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
