//! What `exchequer doctor` asks a Redis: whether it is reached, whether we may do there what the
//! service does, and whether it keeps what it is told.

use super::{Report, Status};
use crate::clock::Clock;
use crate::config::RedisSettings;
use crate::explain::Code;
use crate::redis_client::RedisClient;
use crate::telemetry::Metrics;
use redis::{FromRedisValue, Pipeline, Value};
use std::sync::Arc;
use std::time::Instant;

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

pub(super) async fn check(settings: &RedisSettings, report: &mut Report) {
    let name = "redis";
    let metrics = Arc::new(Metrics::default());
    let client = RedisClient::new(settings.clone(), Clock::system(), metrics);
    if let Err(error) = client.connect().await {
        let text = error.to_string();
        let next = next_step(&text);
        let message = format!("{}: {text}: {next}", client.place());
        return report.fail(name, message, Code::StoreUnavailable);
    }
    let mut info = Pipeline::new();
    info.cmd("INFO");
    for (place, answer) in client.run_at_each(&info).await {
        match answer.map(|mut values| values.pop()) {
            Ok(Some(Value::ServerError(error))) => {
                let message = format!(
                    "{place}: {}: version, replicas, persistence and eviction were not looked at: allow +info",
                    error.code()
                );
                report.add(name, Status::Warn, message);
            }
            Ok(Some(value)) => {
                let info = String::from_redis_value(value).unwrap_or_default();
                check_server(&place, &info, settings, report);
            }
            Ok(None) => {}
            Err(error) => {
                report.fail(name, format!("{place}: {error}"), Code::StoreUnavailable);
            }
        }
    }
    check_rights(&client, report).await;
    let ahead = client.clock_ahead();
    let message = format!("Redis is {ahead} s ahead");
    match ahead.abs() {
        0..=2 => report.add("clock vs redis", Status::Ok, message),
        3..=60 => report.add(
            "clock vs redis",
            Status::Warn,
            format!("{message}: correct one of them (NTP)"),
        ),
        _ => report.add(
            "clock vs redis",
            Status::Fail,
            format!("{message}: correct one of them (NTP)"),
        ),
    }
}

/// Judges what a server tells of itself.
fn check_server(place: &str, info: &str, settings: &RedisSettings, report: &mut Report) {
    let name = "redis";
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
    };
    let version = match field("valkey_version") {
        "" => format!("Redis {}", field("redis_version")),
        version => format!("Valkey {version}"),
    };
    let replicas: u32 = field("connected_slaves").parse().unwrap_or_default();
    let (mode, role) = (field("redis_mode"), field("role"));
    let message = format!("{place}: {version}, {mode}, {role}, {replicas} replicas");
    report.add(name, Status::Ok, message);
    if replicas < settings.replicas {
        let message = format!(
            "{place}: replicas={} in the URL, and {replicas} are connected: no change can be answered",
            settings.replicas
        );
        report.fail(name, message, Code::StoreUnavailable);
    }
    match field("maxmemory_policy") {
        "noeviction" | "" => {}
        policy => report.fail(
            name,
            format!(
                "{place}: maxmemory-policy is {policy}: a full memory forgets revocations unnoticed: CONFIG SET maxmemory-policy noeviction"
            ),
            Code::StoreUnavailable,
        ),
    }
    if field("aof_enabled") == "0" {
        let message = format!(
            "{place}: no append-only file: a restart forgets all changes since the last snapshot, revocations and used session ids among them: CONFIG SET appendonly yes"
        );
        report.add(name, Status::Warn, message);
    }
    for field_name in ["rdb_last_bgsave_status", "aof_last_write_status"] {
        if field(field_name) == "err" {
            let message = format!(
                "{place}: {field_name} is err: it cannot write to its disk, and may refuse changes (MISCONF)"
            );
            report.fail(name, message, Code::StoreUnavailable);
        }
    }
}

/// Tries what the service does, and how long that takes.
async fn check_rights(client: &RedisClient, report: &mut Report) {
    let name = "redis rights";
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
    let began = Instant::now();
    let answers = match client.run(&tries).await {
        Ok(answers) => answers,
        Err(error) => return report.fail(name, error.to_string(), Code::StoreUnavailable),
    };
    let took = began.elapsed();
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
    if !refused.is_empty() {
        let message = format!(
            "the user may not do what the service does: ACL SETUSER … {} ~{prefix}:*",
            refused.join(" ")
        );
        report.fail(name, message, Code::StoreUnavailable);
    }
    if !others.is_empty() {
        report.fail(name, others.join(", "), Code::StoreUnavailable);
    } else if refused.is_empty() {
        let message = format!(
            "{} commands in {:.1} ms",
            NEEDED.len(),
            took.as_secs_f64() * 1000.0
        );
        report.add(name, Status::Ok, message);
    }
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
            "does it run, and does no firewall or NetworkPolicy drop the packets?",
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
