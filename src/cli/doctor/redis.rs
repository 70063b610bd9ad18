//! What `exchequer doctor` asks a Redis: whether it is reached, whether we may do there what the
//! service does, and whether it keeps what it is told.

use super::clock;
use super::report::Row;
use crate::clock::Clock;
use crate::config::{Node, RedisSettings, Topology, is_loopback_url};
use crate::explain::Code;
use crate::redis_client::RedisClient;
use crate::telemetry::Metrics;
use redis::{FromRedisValue, Pipeline, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHECK: &str = "redis";
/// What the service does with keys. Each is tried, on a key of its own.
const NEEDED: [&[&str]; 18] = [
    &["SET", "KEY", "1", "PX", "10000"],
    &["GET", "KEY"],
    &["MGET", "KEY"],
    &["INCR", "KEY"],
    &["PTTL", "KEY"],
    &["DEL", "KEY"],
    &["HSET", "KEY", "field", "1"],
    &["HGET", "KEY", "field"],
    &["HSCAN", "KEY", "0"],
    &["HDEL", "KEY", "field"],
    &["ZADD", "KEY", "1", "member"],
    &["ZSCORE", "KEY", "member"],
    &["ZCARD", "KEY"],
    &["ZRANGEBYSCORE", "KEY", "0", "1"],
    &["ZREM", "KEY", "member"],
    &["EVAL", "return 1", "1", "KEY"],
    &[
        "EVALSHA",
        "0000000000000000000000000000000000000000",
        "1",
        "KEY",
    ],
    &["WAIT", "0", "1"],
];

/// The memory that may be full, of a hundred parts.
const FULL: u64 = 80;
/// How often the way there and back is measured.
const ROUNDS: usize = 10;

/// Everything about the Redis of the settings.
pub(super) async fn look(settings: &RedisSettings) -> Vec<Row> {
    let metrics = Arc::new(Metrics::default());
    let client = RedisClient::new(settings.clone(), Clock::system(), metrics);
    let mut rows = in_the_open(settings);
    if let Err(error) = client.connect().await {
        let text = error.to_string();
        let row = Row::fail(CHECK, format!("{}: {text}", client.place())).next(next_step(&text));
        rows.push(row.code(Code::StoreUnavailable));
        return rows;
    }
    let mut info = Pipeline::new();
    info.cmd("INFO");
    for (place, answer) in client.run_at_each(&info).await {
        match answer.map(|mut values| values.pop()) {
            Ok(Some(Value::ServerError(error))) => {
                let message = format!(
                    "{place}: {}: version, replicas, memory, persistence and eviction were not looked at",
                    error.code()
                );
                rows.push(Row::warn(CHECK, message).next("allow its user +info"));
            }
            Ok(Some(value)) => {
                let info = String::from_redis_value(value).unwrap_or_default();
                rows.extend(server(&place, &info, settings));
            }
            Ok(None) => {}
            Err(error) => {
                let row = Row::fail(CHECK, format!("{place}: {error}"));
                rows.push(
                    row.next(next_step(&error.to_string()))
                        .code(Code::StoreUnavailable),
                );
            }
        }
    }
    rows.extend(rights(&client).await);
    rows.extend(latency(&client).await);
    rows.push(clock::with_redis(client.clock_ahead()));
    rows
}

/// Judges what a server tells of itself.
fn server(place: &str, info: &str, settings: &RedisSettings) -> Vec<Row> {
    let mut rows = Vec::new();
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
    };
    let number = |name: &str| field(name).parse::<u64>().unwrap_or_default();
    let failed = |message: String, next: &str| {
        Row::fail(CHECK, message)
            .next(next)
            .code(Code::StoreUnavailable)
    };
    let valkey = field("valkey_version");
    let (version, mode) = match valkey {
        "" => (format!("Redis {}", field("redis_version")), "redis_mode"),
        version => (format!("Valkey {version}"), "server_mode"),
    };
    let replicas = number("connected_slaves");
    let (mode, role) = (field(mode), field("role"));
    let (used, most) = (number("used_memory"), number("maxmemory"));
    let of = match most {
        0 => "no maxmemory".to_owned(),
        most => format!("of {} MiB", most >> 20),
    };
    rows.push(Row::ok(
        CHECK,
        format!(
            "{place}: {version}, {mode}, {role}, {replicas} replicas, {} MiB used, {of}",
            used.div_ceil(1 << 20)
        ),
    ));
    let major = field("redis_version")
        .split('.')
        .next()
        .and_then(|text| text.parse().ok());
    if valkey.is_empty() && major.is_some_and(|major: u32| major < 7) {
        let next =
            "Redis 7.0 or newer, or Valkey: older ones copy scripts, by which a restart is noticed";
        rows.push(failed(format!("{place}: {version} is too old"), next));
    }
    if replicas < u64::from(settings.replicas) {
        let message = format!(
            "{place}: replicas={} in the URL, and {replicas} are connected: no change can be answered",
            settings.replicas
        );
        rows.push(failed(
            message,
            "connect the replicas, or lower ?replicas= in EXCHEQUER_STORE",
        ));
    }
    match field("maxmemory_policy") {
        "noeviction" | "" => {}
        policy => {
            let message = format!(
                "{place}: maxmemory-policy is {policy}: a full memory forgets revocations unnoticed"
            );
            rows.push(failed(message, "CONFIG SET maxmemory-policy noeviction"));
        }
    }
    if most > 0 && used.saturating_mul(100) > most.saturating_mul(FULL) {
        let message = format!("{place}: {} of {} MiB are used", used >> 20, most >> 20);
        rows.push(Row::warn(CHECK, message).next(
            "a full memory refuses all that must be remembered with 503: raise maxmemory, and look at who else writes there",
        ));
    }
    if field("aof_enabled") == "0" {
        let message = format!(
            "{place}: no append-only file: a restart forgets all changes since the last snapshot, revocations and used session ids among them"
        );
        rows.push(Row::warn(CHECK, message).next("CONFIG SET appendonly yes"));
    }
    for name in ["rdb_last_bgsave_status", "aof_last_write_status"] {
        if field(name) == "err" {
            let message = format!("{place}: {name} is err: it cannot write to its disk");
            rows.push(failed(
                message,
                "look at its log and its disk: it may refuse changes (MISCONF)",
            ));
        }
    }
    rows
}

/// A Redis over the network that anybody may read, or listen to.
fn in_the_open(settings: &RedisSettings) -> Vec<Row> {
    let nodes = match &settings.topology {
        Topology::Unix(_) => return Vec::new(),
        Topology::Single(node) => std::slice::from_ref(node),
        Topology::Sentinel { sentinels, .. } => sentinels,
        Topology::Cluster(nodes) => nodes,
    };
    let here = |node: &Node| is_loopback_url(&format!("redis://{node}"));
    if nodes.iter().all(here) {
        return Vec::new();
    }
    let mut rows = Vec::new();
    if settings.login.is_none() {
        rows.push(Row::warn(CHECK, "nobody is asked for a password: whoever reaches it may use the service").next(
            "give it a user with a password (docs/operating.md), and name them in EXCHEQUER_STORE, or better in the file that EXCHEQUER_STORE_FILE names",
        ));
    }
    if settings.tls.is_none() {
        rows.push(
            Row::info(
                CHECK,
                "the way there has no TLS: who is between reads the password, and profiles",
            )
            .next("EXCHEQUER_STORE=rediss://…, unless the network is yours alone"),
        );
    }
    rows
}

/// Tries what the service does.
async fn rights(client: &RedisClient) -> Vec<Row> {
    let check = "redis_rights";
    let prefix = &client.settings().prefix;
    let key = format!("{prefix}:{{{prefix}}}:doctor:{}", std::process::id());
    let mut tries = Pipeline::new();
    for words in NEEDED {
        for (place, word) in words.iter().enumerate() {
            match (place, *word) {
                (0, word) => tries.cmd(word),
                (_, "KEY") => tries.arg(&key),
                (_, word) => tries.arg(word),
            };
        }
    }
    let answers = match client.run(&tries).await {
        Ok(answers) => answers,
        Err(error) => {
            let row = Row::fail(check, error.to_string()).next(next_step(&error.to_string()));
            return vec![row.code(Code::StoreUnavailable)];
        }
    };
    let mut refused = Vec::new();
    let mut others = Vec::new();
    for (words, answer) in NEEDED.iter().zip(answers) {
        let command = words.first().copied().unwrap_or_default().to_lowercase();
        match answer {
            Value::ServerError(error) if error.code() == "NOPERM" => {
                refused.push(format!("+{command}"))
            }
            Value::ServerError(error) if error.code() != "NOSCRIPT" => {
                others.push(format!("{command}: {}", error.code()));
            }
            _ => {}
        }
    }
    let mut rows = Vec::new();
    if !refused.is_empty() {
        let row = Row::fail(check, "the user may not do what the service does");
        let next = format!("ACL SETUSER … {} ~{prefix}:*", refused.join(" "));
        rows.push(row.next(next).code(Code::StoreUnavailable));
    }
    if !others.is_empty() {
        let row = Row::fail(check, others.join(", ")).next(next_step(&others.join(", ")));
        rows.push(row.code(Code::StoreUnavailable));
    }
    if rows.is_empty() {
        let seen = format!("all {} commands that the service needs", NEEDED.len());
        rows.push(Row::ok(check, seen));
    }
    rows
}

/// How long the way there and back is, of ten the longest, beside the deadline that each
/// request has.
async fn latency(client: &RedisClient) -> Option<Row> {
    let check = "redis_latency";
    let mut get = Pipeline::new();
    let prefix = &client.settings().prefix;
    get.cmd("GET").arg(format!("{prefix}:{{{prefix}}}:doctor"));
    let mut longest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        client.run(&get).await.ok()?;
        longest = longest.max(began.elapsed());
    }
    let deadline = client.settings().deadline;
    let seen = format!(
        "{:.1} ms at most, of {ROUNDS} round trips; the deadline is {} ms",
        longest.as_secs_f64() * 1000.0,
        deadline.as_millis()
    );
    Some(if longest * 2 > deadline {
        Row::warn(check, seen).next(
            "each exchange waits for as long, and is refused after the deadline: a Redis nearer by, or ?deadline= in EXCHEQUER_STORE",
        )
    } else {
        Row::ok(check, seen)
    })
}

/// What to do about an error of connecting.
fn next_step(error: &str) -> &'static str {
    let known = [
        (
            "WRONGPASS",
            "the user or the password in EXCHEQUER_STORE is not the server's",
        ),
        (
            "NOAUTH",
            "it wants a password: redis://:PASSWORD@HOST, or USER:PASSWORD@; of sentinels ?sentinel_password=",
        ),
        (
            "NOPERM",
            "the user may not do that: see the ACL rule in docs/operating.md",
        ),
        (
            "a replica",
            "name the primary, or the sentinels that know it: redis+sentinel://",
        ),
        (
            "cluster support disabled",
            "it is no Cluster: redis:// without +cluster",
        ),
        (
            "CLUSTERDOWN",
            "look at CLUSTER INFO and CLUSTER NODES there",
        ),
        ("UnknownIssuer", "name the PEM file of its authority: ?ca="),
        (
            "not valid for name",
            "the host in the URL must be a name in the server's certificate",
        ),
        (
            "ertificateRequired",
            "it wants our certificate: ?cert= and ?key=",
        ),
        (
            "broken pipe",
            "with TLS it may want our certificate: ?cert= and ?key=",
        ),
        (
            "Connection refused",
            "does it run, and listen at that address and port?",
        ),
        (
            "did not answer",
            "does it run, does no firewall or NetworkPolicy drop the packets, and with rediss://, does it speak TLS at that port?",
        ),
        (
            "failed to lookup",
            "its name does not resolve here: compare the host in EXCHEQUER_STORE, and ask this machine's name server",
        ),
        (
            "without any password",
            "it asks for no password: leave it out of EXCHEQUER_STORE, or set it on the server too",
        ),
        (
            "LOADING",
            "it reads its file: try again when it has done so",
        ),
        (
            "knows no primary",
            "the name after the sentinels is the one in their `sentinel monitor`",
        ),
    ];
    known.iter().find(|(part, _)| error.contains(part)).map_or(
        "compare EXCHEQUER_STORE with what the server is",
        |(_, next)| next,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, StoreSettings, load};

    fn settings(url: &str) -> RedisSettings {
        let set = [
            ("CLERK_JWT_ISSUER", "https://clerk.example.com"),
            (
                "EXCHEQUER_KEYS_SECRET",
                "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=",
            ),
            ("EXCHEQUER_STORE", url),
        ];
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sources = Sources {
            variables: variables.into(),
            ..Sources::default()
        };
        match load(&sources).0.unwrap().store {
            StoreSettings::Redis(settings) => *settings,
            _ => panic!("no Redis"),
        }
    }

    fn lines(rows: &[Row]) -> Vec<String> {
        rows.iter()
            .map(|row| {
                let row = serde_json::to_value(row).unwrap();
                let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("status"), text("message"))
            })
            .collect()
    }

    #[test]
    fn an_error_of_connecting_leads_to_what_mends_it() {
        for (error, part) in [
            (
                "failed to lookup address information: Name or service not known",
                "name server",
            ),
            (
                "ERR AUTH <password> called without any password configured",
                "leave it out",
            ),
            ("Redis did not answer within 1s", "speak TLS"),
            ("something new", "compare EXCHEQUER_STORE"),
        ] {
            assert!(next_step(error).contains(part), "{error}");
        }
    }

    #[test]
    fn a_server_is_judged_by_what_it_tells() {
        let told = |info: &str| lines(&server("r:1", info, &settings("redis://r")));
        let well = "redis_version:7.4.1\r\nredis_mode:standalone\r\nrole:master\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        let about = "standalone, master, 0 replicas, 1 MiB used, no maxmemory";
        assert_eq!(told(well), [format!("ok: r:1: Redis 7.4.1, {about}")]);
        let old = told(&well.replace("7.4.1", "6.2.7"));
        assert_eq!(old[1], "fail: r:1: Redis 6.2.7 is too old");
        // Valkey says a version of Redis too, for those who ask for one.
        let valkey = format!("{well}valkey_version:8.0.1\r\n")
            .replace("7.4.1", "6.9.9")
            .replace("redis_mode", "server_mode");
        assert_eq!(told(&valkey), [format!("ok: r:1: Valkey 8.0.1, {about}")]);
        let full = |used: u64| {
            let memory = format!("used_memory:{}", used << 20);
            told(
                &well
                    .replace("used_memory:1048576", &memory)
                    .replace("maxmemory:0", "maxmemory:104857600"),
            )
        };
        assert_eq!(full(80).len(), 1);
        assert_eq!(full(81)[1], "warn: r:1: 81 of 100 MiB are used");
        let broken = told(&format!("{well}aof_last_write_status:err\r\n"));
        assert_eq!(
            broken[1],
            "fail: r:1: aof_last_write_status is err: it cannot write to its disk"
        );
    }

    #[test]
    fn a_redis_over_the_network_needs_a_password_and_better_tls() {
        let open = |url: &str| in_the_open(&settings(url)).len();
        for (url, rows) in [
            ("redis://redis.internal", 2),
            ("redis://:word@redis.internal", 1),
            ("rediss://redis.internal", 1),
            ("rediss://user:word@redis.internal", 0),
            ("redis+cluster://a.internal,b.internal", 2),
            ("redis+sentinel://a.internal/main", 2),
            ("redis://localhost", 0),
            ("redis://[::1]:6380", 0),
            ("unix:///run/redis.sock", 0),
        ] {
            assert_eq!(open(url), rows, "{url}");
        }
    }
}
