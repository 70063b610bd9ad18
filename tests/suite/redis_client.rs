//! The client of a Redis: every topology is reached, nobody waits longer than a deadline, and it
//! comes back by itself. Against real servers.

use crate::support::redis::{RedisCluster, Sentinels};
use crate::support::{Command, Redis, eventually, now};
use exchequer::clock::Clock;
use exchequer::config::{Node, RedisSettings, Sources, StoreSettings, Topology, load};
use exchequer::redis_client::{RedisClient, RedisError};
use exchequer::telemetry::Metrics;
use proptest::prelude::*;
use redis::{FromRedisValue, Pipeline, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes, where it does not hang.
const GUARD: Duration = Duration::from_secs(30);

/// What `EXCHEQUER_STORE` says with this URL: settings, or the errors.
fn read(url: &str) -> Result<RedisSettings, String> {
    let variable = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let sources = Sources {
        variables: vec![
            variable("CLERK_JWT_ISSUER", "https://clerk.example.com"),
            variable(
                "EXCHEQUER_KEYS_SECRET",
                "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=",
            ),
            variable("EXCHEQUER_STORE", url),
        ],
        ..Sources::default()
    };
    let (settings, findings) = load(&sources);
    match settings.map(|settings| settings.store) {
        Some(StoreSettings::Redis(settings)) => Ok(*settings),
        Some(other) => panic!("{other:?}"),
        None => Err(format!("{:#?}", findings.errors)),
    }
}

/// A client that is patient, unless its URL says otherwise: tests share their machine.
fn new(url: &str) -> (Arc<RedisClient>, Arc<Metrics>) {
    let mut settings = read(url).unwrap();
    if !url.contains("deadline=") {
        settings.deadline = Duration::from_secs(2);
    }
    let metrics = Arc::new(Metrics::default());
    let client = RedisClient::new(settings, Clock::system(), Arc::clone(&metrics));
    (client, metrics)
}

/// Connects, again where that took too long.
async fn connect(client: &RedisClient) -> Result<(), RedisError> {
    let mut result = Ok(());
    eventually("it is connected, or refused", async || {
        result = client.connect().await;
        !matches!(result, Err(RedisError::Late(_)))
    })
    .await;
    result
}

/// A client that is kept connected.
struct Kept {
    client: Arc<RedisClient>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    async fn of(url: &str) -> Self {
        let (client, metrics) = new(url);
        connect(&client).await.unwrap();
        let task = tokio::spawn(Arc::clone(&client).keep_connected());
        Self {
            client,
            metrics,
            task,
        }
    }

    /// A metric: with labels, as they stand in the text, that sample; without, the sum of all.
    fn metric(&self, name: &str) -> f64 {
        let text = self
            .metrics
            .render(std::iter::empty(), 0, std::iter::empty());
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            })
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

fn one(words: &[&str]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd(words[0]);
    for word in &words[1..] {
        pipeline.arg(*word);
    }
    pipeline
}

async fn ask(client: &RedisClient, words: &[&str]) -> Result<Value, RedisError> {
    let answer = tokio::time::timeout(GUARD, client.run(&one(words))).await;
    let mut values = answer.expect("it hangs")?;
    assert_eq!(values.len(), 1);
    Ok(values.remove(0))
}

fn text(value: Value) -> String {
    String::from_redis_value(value).unwrap()
}

async fn set_and_get(client: &RedisClient) {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SET").arg("{one}a").arg("1");
    pipeline.cmd("INCR").arg("{one}a");
    pipeline.cmd("LPUSH").arg("{one}a").arg("x");
    pipeline.cmd("GET").arg("{one}a");
    let values = client.run(&pipeline).await.unwrap();
    assert_eq!(values.len(), 4);
    assert_eq!(values[..2], [Value::Okay, Value::Int(2)]);
    assert!(matches!(&values[2], Value::ServerError(error) if error.code() == "WRONGTYPE"));
    assert_eq!(values[3], Value::BulkString(b"2".into()));
}

/// Asks until it is answered; a refusal is at once or within a deadline.
async fn until_answered(client: &RedisClient, what: &str, words: &[&str]) -> Value {
    let mut answered = None;
    eventually(what, async || {
        let began = Instant::now();
        answered = match ask(client, words).await {
            Ok(Value::ServerError(_)) | Err(_) => None,
            Ok(value) => Some(value),
        };
        assert!(began.elapsed() < Duration::from_secs(5));
        answered.is_some()
    })
    .await;
    answered.unwrap()
}

// The URL.

#[test]
fn each_form_of_the_url_is_understood() {
    let node = |host: &str, port| Node {
        host: host.to_owned(),
        port,
    };
    let plain = read("redis://cache").unwrap();
    assert_eq!(plain.topology, Topology::Single(node("cache", 6379)));
    assert_eq!((plain.tls, plain.login, plain.database), (None, None, 0));
    assert_eq!((plain.prefix.as_str(), plain.replicas), ("exchequer", 0));
    assert_eq!(plain.deadline, Duration::from_millis(250));

    let full = read(
        "rediss://us%3Aer:p%2Fa%23s+s@[::1]:7000/3?prefix=prod.a&deadline=80ms&replicas=2&ca=%2Fca.pem&cert=c.pem&key=k.pem",
    )
    .unwrap();
    assert_eq!(full.topology, Topology::Single(node("::1", 7000)));
    let login = full.login.unwrap();
    assert_eq!(login.user.as_deref(), Some("us:er"));
    assert_eq!((full.database, full.replicas), (3, 2));
    assert_eq!(full.prefix, "prod.a");
    assert_eq!(full.deadline, Duration::from_millis(80));
    let tls = full.tls.unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(tls.identity, Some(("c.pem".into(), "k.pem".into())));

    let only_password = read("redis://:pa55@cache").unwrap().login.unwrap();
    assert_eq!(only_password.user, None);

    let socket = read("unix://:pa55@/run/redis/a%20b.sock?db=2").unwrap();
    assert_eq!(
        socket.topology,
        Topology::Unix("/run/redis/a b.sock".into())
    );
    assert_eq!(socket.database, 2);

    let sentinel =
        read("rediss+sentinel://:pa55@a,b:1,[::1]/main/4?sentinel_password=x%26y").unwrap();
    let sentinels = vec![node("a", 26379), node("b", 1), node("::1", 26379)];
    let name = "main".to_owned();
    assert_eq!(sentinel.topology, Topology::Sentinel { sentinels, name });
    assert_eq!(sentinel.database, 4);
    assert!(sentinel.tls.is_some() && sentinel.sentinel_login.unwrap().user.is_none());

    let cluster = read("redis+cluster://a:1,b").unwrap();
    assert_eq!(
        cluster.topology,
        Topology::Cluster(vec![node("a", 1), node("b", 6379)])
    );
}

#[test]
fn every_mistake_in_the_url_is_said_at_once_and_none_shows_it() {
    let cases: &[(&str, &[&str])] = &[
        ("redis://", &["a host"]),
        ("redis://:s3cret@", &["a host"]),
        ("redis://:s3cret@h:0", &["a host"]),
        ("redis://:s3cret@h:99999", &["a host"]),
        ("redis://:s3cret@a,b", &["one host"]),
        ("redis://:s3cret@h/x", &["whole number"]),
        ("redis://:s3cret@h/1/2", &["no more in the path"]),
        ("redis://:s3cret@h?db=1", &["db only of a socket"]),
        ("redis://s3cret@h", &["a user with its password"]),
        ("redis://u:s3/cret@h", &["%"]),
        ("redis://u:s3?cret@h", &["%"]),
        ("redis://u:s3#cret@h", &["%"]),
        ("redis://u:s3\tcret@h", &["%"]),
        ("redis://:s3cret@h?prefix=", &["prefix of 1 to 64"]),
        ("redis://:s3cret@h?prefix={a}", &["prefix of 1 to 64"]),
        ("redis://:s3cret@h?deadline=5ms", &["10ms to 2s"]),
        ("redis://:s3cret@h?deadline=1m", &["10ms to 2s"]),
        ("redis://:s3cret@h?replicas=9", &["0 to 8"]),
        (
            "redis://:s3cret@h?replicas=1&replicas=2",
            &["replicas once"],
        ),
        ("redis://:s3cret@h?ca=x", &["rediss"]),
        ("rediss://:s3cret@h?cert=x", &["cert and key"]),
        ("redis://:s3cret@h?timeout=1", &["not \"timeout\""]),
        (
            "redis://:s3cret@h?sentinel_password=s3cret",
            &["says sentinel"],
        ),
        (
            "redis+sentinel://h/main?sentinel_password=x&s3cret=y&cret",
            &["sentinel_password and nothing else"],
        ),
        ("redis+sentinel://:s3cret@h", &["name of the primary"]),
        ("redis+cluster://:s3cret@h/1", &["a Cluster has only 0"]),
        ("unix://:s3cret@run/redis.sock", &["three slashes"]),
        ("unix://", &["three slashes"]),
        (
            "redis://s3cret@/x?deadline=1h&replicas=x&nothing=1",
            &[
                "a user",
                "a host",
                "whole number",
                "10ms to 2s",
                "0 to 8",
                "\"nothing\"",
            ],
        ),
    ];
    for (url, says) in cases {
        let errors = read(url).expect_err(url);
        for part in *says {
            assert!(
                errors.contains(&part.replace('"', "\\\"")),
                "{url}: {errors}"
            );
        }
        for secret in ["s3", "cret"] {
            assert!(!errors.contains(secret), "{url}: {errors}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_url_is_too_strange_to_be_read(
        scheme in "(rediss?(\\+(sentinel|cluster))?|unix|redis\\+unix)",
        rest in "[ -~\\PC]{0,60}",
    ) {
        let _ = read(&format!("{scheme}://{rest}"));
    }

    #[test]
    fn a_password_is_never_shown(
        scheme in "(rediss?|redis\\+cluster)",
        user in "[a-z]{0,3}",
        // Nothing that an error or a Debug could hold by itself.
        password in "Q[ -~\\PC]{6,20}Q",
        escaped in any::<bool>(),
        tail in "(/1|/x|\\?nothing=1|\\?deadline=1h|:99999|)",
    ) {
        let written = if escaped {
            percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        } else {
            password.clone()
        };
        let shown = match read(&format!("{scheme}://{user}:{written}@host{tail}")) {
            Ok(settings) => {
                prop_assert!(settings.login.is_some());
                format!("{settings:?}")
            }
            Err(errors) => errors,
        };
        let decoded = percent_encoding::percent_decode_str(&written).decode_utf8_lossy().into_owned();
        for secret in [&password, &written, &decoded] {
            prop_assert!(!shown.contains(secret.as_str()), "{shown}");
        }
    }
}

// One server.

#[tokio::test]
async fn one_server_is_reached_by_tcp_and_by_its_socket() {
    let redis = Redis::start().await;
    for url in [redis.url(), redis.socket_url()] {
        let (client, _) = new(&url);
        assert_eq!(ask(&client, &["PING"]).await, Err(RedisError::Away));
        connect(&client).await.unwrap();
        assert!(client.is_there());
        assert_eq!(client.clock_ahead().abs() / 2, 0);
        set_and_get(&client).await;
        let clients = redis.ask(&["CLIENT", "LIST"]);
        assert!(clients.contains("name=exchequer"), "{clients}");
        redis.flush();
    }
}

#[tokio::test]
async fn a_database_a_password_and_an_acl_user_are_what_the_url_says() {
    let redis = Redis::with(&["--requirepass", "s3cret/word"]).await;
    let host = redis.address();
    let url = format!("redis://:s3cret%2Fword@{host}/5");
    let (client, _) = new(&url);
    connect(&client).await.unwrap();
    ask(&client, &["SET", "five", "5"]).await.unwrap();
    let asked = redis.ask(&[
        "--pass",
        "s3cret/word",
        "--no-auth-warning",
        "-n",
        "5",
        "GET",
        "five",
    ]);
    assert_eq!(asked, "5");
    let set_user = [
        "--pass",
        "s3cret/word",
        "--no-auth-warning",
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">w0rd",
        "~exchequer:*",
        "+get",
        "+set",
        "+time",
    ];
    assert_eq!(redis.ask(&set_user), "OK");
    let (client, _) = new(&format!("redis://app:w0rd@{host}"));
    connect(&client).await.unwrap();
    let well = ask(&client, &["SET", "exchequer:a", "1"]).await.unwrap();
    assert_eq!(well, Value::Okay);
    let refused = ask(&client, &["SET", "other", "1"]).await.unwrap();
    assert!(matches!(&refused, Value::ServerError(error) if error.code() == "NOPERM"));
    // One command that may not be is no reason to give up a server.
    assert!(client.is_there());
}

#[tokio::test]
async fn why_there_is_no_connection_is_said_without_a_secret() {
    let redis = Redis::with(&["--requirepass", "right-s3cret", "--databases", "4"]).await;
    let primary = Redis::start().await;
    let port = primary.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await;
    let gone = Redis::start().await;
    gone.kill();
    let (host, gone, replica) = (redis.address(), gone.address(), replica.address());
    let cases = [
        (format!("redis://:wrong-s3cret@{host}"), "WRONGPASS"),
        (format!("redis://nobody:wrong-s3cret@{host}"), "WRONGPASS"),
        (format!("redis://{host}"), "NOAUTH"),
        (
            format!("redis://:right-s3cret@{host}/9"),
            "DB index is out of range",
        ),
        (format!("redis://{gone}"), "Connection refused"),
        (format!("redis://{replica}"), "a replica, not the primary"),
        (format!("redis+cluster://{gone}"), "Connection refused"),
        (
            format!("redis+cluster://{}", primary.address()),
            "cluster support disabled",
        ),
        (
            format!("redis+sentinel://{gone}/main"),
            "Connection refused",
        ),
        ("unix:///no/such/socket".to_owned(), "No such file"),
        (
            "redis://no-such-host.invalid".to_owned(),
            "no-such-host.invalid",
        ),
    ];
    for (url, says) in cases {
        let (client, _) = new(&url);
        let error = connect(&client).await.expect_err(&url);
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
        assert!(!client.is_there());
        assert_eq!(ask(&client, &["PING"]).await, Err(RedisError::Away));
    }
}

#[tokio::test]
async fn a_transaction_is_not_sent() {
    let redis = Redis::start().await;
    let (client, _) = new(&redis.url());
    connect(&client).await.unwrap();
    let mut pipeline = Pipeline::new();
    pipeline.atomic().cmd("SET").arg("a").arg("1");
    assert!(matches!(
        client.run(&pipeline).await,
        Err(RedisError::Failed(_))
    ));
    set_and_get(&client).await;
}

// When it is slow or gone.

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_costs_each_who_asks_one_deadline_and_nobody_after_them_anything() {
    let redis = Redis::start().await;
    let kept = Kept::of(&format!("{}?deadline=1s", redis.url())).await;
    set_and_get(&kept.client).await;
    redis.freeze();
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let client = Arc::clone(&kept.client);
        callers.spawn(async move {
            let began = Instant::now();
            (ask(&client, &["GET", "a"]).await, began.elapsed())
        });
    }
    let mut late = 0;
    while let Some(ended) = callers.join_next().await {
        let (answer, took) = ended.unwrap();
        assert!(
            matches!(answer, Err(RedisError::Late(_) | RedisError::Away)),
            "{answer:?}"
        );
        assert!(took < Duration::from_secs(5), "{took:?}");
        late += usize::from(answer != Err(RedisError::Away));
    }
    assert!(late > 0);
    // From now on nobody waits: a thousand refusals take less than one deadline.
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            ask(&kept.client, &["GET", "a"]).await,
            Err(RedisError::Away)
        );
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(
        kept.metric("exchequer_redis_breaker_openings_total{cause=\"late\"}"),
        1.0
    );
    assert!(kept.metric("exchequer_redis_refused_total{cause=\"away\"}") >= 1000.0);
    assert_eq!(kept.metric("exchequer_redis_up"), 0.0);
    redis.thaw();
    until_answered(&kept.client, "it comes back", &["GET", "a"]).await;
    eventually("the metric tells", async || {
        kept.metric("exchequer_redis_up") == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_server_that_dies_or_loses_its_role_is_left_at_once_and_found_again() {
    let redis = Redis::start().await;
    let kept = Kept::of(&redis.url()).await;
    redis.kill();
    eventually("it is left", async || {
        matches!(
            ask(&kept.client, &["GET", "a"]).await,
            Err(RedisError::Away)
        )
    })
    .await;
    redis.run().await;
    until_answered(&kept.client, "it comes back", &["GET", "a"]).await;

    assert_eq!(redis.ask(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    let refused = ask(&kept.client, &["SET", "a", "1"]).await.unwrap_err();
    assert!(refused.to_string().contains("READONLY"), "{refused}");
    eventually("it is left", async || {
        ask(&kept.client, &["GET", "a"]).await == Err(RedisError::Away)
    })
    .await;
    assert_eq!(redis.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    until_answered(&kept.client, "it comes back", &["SET", "a", "1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_early_spoils_nobodys_answer() {
    let redis = Redis::start().await;
    let kept = Kept::of(&format!("{}?deadline=2s", redis.url())).await;
    let mut callers = JoinSet::new();
    for number in 0..4000_u64 {
        let client = Arc::clone(&kept.client);
        callers.spawn(async move {
            let (own, echo) = (number.to_string(), one(&["ECHO", &number.to_string()]));
            let patience = Duration::from_micros(number % 7 * 150);
            match number % 2 {
                0 => {
                    let answer = client.run(&echo).await.unwrap().remove(0);
                    assert_eq!(text(answer), own);
                    1
                }
                _ => {
                    u64::from(
                        tokio::time::timeout(patience, client.run(&echo))
                            .await
                            .is_err(),
                    ) << 32
                }
            }
        });
    }
    let mut sum = 0;
    while let Some(ended) = callers.join_next().await {
        sum += ended.unwrap();
    }
    let (answered, gone) = (sum & 0xffff_ffff, sum >> 32);
    assert_eq!(answered, 2000);
    assert!(gone > 100, "only {gone} went away early");
    assert_eq!(kept.metric("exchequer_redis_connections_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_server_is_bounded_and_the_seats_come_back() {
    let redis = Redis::start().await;
    let (client, _) = new(&format!("{}?deadline=2s", redis.url()));
    connect(&client).await.unwrap();
    redis.freeze();
    // All of them go away at once: what was sent is owed all the same.
    let mut full = 0;
    for _ in 0..5000 {
        let ping = one(&["PING"]);
        let gone = tokio::time::timeout(Duration::ZERO, client.run(&ping)).await;
        full += usize::from(matches!(gone, Ok(Err(RedisError::Full(_)))));
    }
    assert_eq!(full, 5000 - 4096);
    redis.thaw();
    let task = tokio::spawn(Arc::clone(&client).keep_connected());
    until_answered(&client, "there is room again", &["PING"]).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_missing_holds_up_the_changes_that_wait_for_it_and_nothing_else() {
    let redis = Redis::start().await;
    let kept = Kept::of(&format!("{}?deadline=2s&replicas=1", redis.url())).await;
    let mut change = one(&["SET", "a", "1"]);
    change.cmd("WAIT").arg(1).arg(1500);
    let mut changes = JoinSet::new();
    for _ in 0..5 {
        let (client, change) = (Arc::clone(&kept.client), change.clone());
        changes.spawn(async move { client.run(&change).await });
    }
    let mut answered = 0;
    while changes.try_join_next().is_none() {
        let value = ask(&kept.client, &["ECHO", "1"]).await.unwrap();
        answered += i32::from(text(value) == "1");
    }
    assert!(answered > 10, "{answered}");
    for ended in changes.join_all().await {
        let told = matches!(
            ended.as_deref(),
            Ok([Value::Okay, Value::Int(0)]) | Err(RedisError::Late(_) | RedisError::Away)
        );
        assert!(told, "{ended:?}");
    }
    assert!(kept.client.is_there());
}

/// A server that answers AUTH and TIME as it is told, and everything else with OK.
async fn fake(auth: &'static str, ahead: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    for command in heard.split('*').skip(1) {
                        let second = (now() + ahead).to_string();
                        let answer = match command.lines().nth(2) {
                            Some("AUTH") => auth.to_owned(),
                            Some("TIME") => {
                                format!("*2\r\n${}\r\n{second}\r\n$1\r\n0\r\n", second.len())
                            }
                            _ => "+OK\r\n".to_owned(),
                        };
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    address.to_string()
}

#[tokio::test]
async fn the_difference_of_the_clocks_is_known() {
    let (client, metrics) = new(&format!("redis://{}", fake("+OK\r\n", 120).await));
    connect(&client).await.unwrap();
    assert!(
        (119..=121).contains(&client.clock_ahead()),
        "{}",
        client.clock_ahead()
    );
    let text = metrics.render(std::iter::empty(), 0, std::iter::empty());
    assert!(
        text.contains("exchequer_redis_clock_ahead_seconds 1"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_server_repeats_of_a_command_is_not_shown() {
    let auth = "-ERR unknown command 'AUTH', with args beginning with: 'me' 's3cret' \r\n";
    let host = fake(auth, 0).await;
    let (client, _) = new(&format!("redis://me:s3cret@{host}"));
    let error = connect(&client).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("unknown command 'AUTH'") && !shown.contains("s3cret"),
        "{shown}"
    );
}

// Sentinel.

#[tokio::test]
async fn behind_sentinels_the_primary_is_found_and_after_a_failover_the_next() {
    let primary = Redis::with(&["--requirepass", "s3cret", "--masterauth", "s3cret"]).await;
    let port = primary.port().to_string();
    let replica = Redis::with(&[
        "--requirepass",
        "s3cret",
        "--masterauth",
        "s3cret",
        "--replicaof",
        "127.0.0.1",
        &port,
    ])
    .await;
    let sentinels = Sentinels::of(
        &primary,
        "sentinel auth-pass main s3cret\nrequirepass of-sentinels\nsentinel sentinel-pass of-sentinels",
    )
    .await;
    sentinels.know_each_other(Some("of-sentinels")).await;
    let url = sentinels.url().replace("://", "://:s3cret@");
    let (unnamed, _) = new(&url);
    let refused = connect(&unnamed).await.unwrap_err();
    assert!(refused.to_string().contains("NOAUTH"), "{refused}");
    let kept = Kept::of(&format!("{url}?sentinel_password=of-sentinels")).await;
    set_and_get(&kept.client).await;
    let (other, _) = new(&format!(
        "{}?sentinel_password=of-sentinels",
        url.replace("/main", "/other")
    ));
    let refused = connect(&other).await.unwrap_err();
    assert!(
        refused.to_string().contains("no primary \"other\""),
        "{refused}"
    );

    // Frozen, not dead: its socket still takes what is sent.
    primary.freeze();
    until_answered(
        &kept.client,
        "the replica took over",
        &["SET", "{one}b", "1"],
    )
    .await;
    let asked = replica.ask(&["--pass", "s3cret", "--no-auth-warning", "GET", "{one}b"]);
    assert_eq!(asked, "1");
    primary.thaw();
    // It comes back as what it was: whoever has its address must not take it for the primary.
    for number in 0..20 {
        let number = number.to_string();
        until_answered(&kept.client, "it goes on", &["SET", "{one}b", &number]).await;
        let asked = replica.ask(&["--pass", "s3cret", "--no-auth-warning", "GET", "{one}b"]);
        assert_eq!(asked, number);
    }
}

#[tokio::test]
async fn a_primary_that_the_sentinels_deposed_in_good_order_is_left() {
    let primary = Redis::start().await;
    let port = primary.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinels = Sentinels::of(&primary, "").await;
    sentinels.know_each_other(None).await;
    let kept = Kept::of(&sentinels.url()).await;
    set_and_get(&kept.client).await;
    sentinels.fail_over();
    eventually("changes reach the new primary", async || {
        let _ = ask(&kept.client, &["SET", "{one}c", "1"]).await;
        replica.ask(&["ROLE"]).starts_with("master") && replica.ask(&["GET", "{one}c"]) == "1"
    })
    .await;
}

// Cluster.

/// Counts up many keys at once, which lie in many slots; gives how many were answered.
async fn count_up(client: &Arc<RedisClient>, keys: usize) -> usize {
    let mut callers = JoinSet::new();
    for key in 0..keys {
        let client = Arc::clone(client);
        callers.spawn(async move {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("INCR").arg(format!("{{{key}}}n"));
            pipeline.cmd("EXISTS").arg(format!("{{{key}}}n"));
            matches!(
                client.run(&pipeline).await.as_deref(),
                Ok([Value::Int(_), Value::Int(1)])
            )
        });
    }
    let answered = callers.join_all().await;
    answered.into_iter().filter(|answered| *answered).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_every_slot_is_reached_and_a_slot_that_moves_is_followed() {
    let cluster = RedisCluster::start(false).await;
    let kept = Kept::of(&format!("{}?deadline=2s", cluster.url())).await;
    assert_eq!(count_up(&kept.client, 300).await, 300);
    let mut script = Pipeline::new();
    script.cmd("EVAL").arg("return redis.call('GET', KEYS[1])");
    script.arg(1).arg("{7}n");
    let values = kept.client.run(&script).await.unwrap();
    assert_eq!(text(values[0].clone()), "1");

    // One key is moved by hand, in each of its phases.
    let key = "{moving}a";
    let other = "{moving}b";
    ask(&kept.client, &["SET", key, "1"]).await.unwrap();
    let from = cluster.primary_of(key);
    let to = cluster
        .nodes
        .iter()
        .find(|node| node.port() != from.port())
        .unwrap();
    let slot = from.ask(&["CLUSTER", "KEYSLOT", key]);
    let (from_id, to_id) = (from.ask(&["CLUSTER", "MYID"]), to.ask(&["CLUSTER", "MYID"]));
    let set_slot = |node: &Redis, state: &[&str]| {
        let command = [&["CLUSTER", "SETSLOT", slot.as_str()], state].concat();
        assert_eq!(node.ask(&command), "OK");
    };
    set_slot(to, &["IMPORTING", &from_id]);
    set_slot(from, &["MIGRATING", &to_id]);
    let mut both = Pipeline::new();
    both.cmd("INCR").arg(key);
    both.cmd("INCR").arg(other);
    // The first is where it was; the second is not yet, and is asked for at the other (ASK).
    let values = kept.client.run(&both).await.unwrap();
    assert_eq!(values, [Value::Int(2), Value::Int(1)]);
    let port = to.port().to_string();
    assert_eq!(
        from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]),
        "OK"
    );
    let values = kept.client.run(&both).await.unwrap();
    assert_eq!(values, [Value::Int(3), Value::Int(2)]);
    for node in [to, from] {
        set_slot(node, &["NODE", &to_id]);
    }
    let values = kept.client.run(&both).await.unwrap();
    assert_eq!(values, [Value::Int(4), Value::Int(3)]);
    assert_eq!(kept.metric("exchequer_redis_breaker_openings_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_primary_that_is_gone_costs_its_own_slots_alone_until_its_replica_has_taken_over() {
    let cluster = RedisCluster::start(true).await;
    for node in &cluster.nodes {
        assert_eq!(
            node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]),
            "OK"
        );
    }
    let kept = Kept::of(&cluster.url()).await;
    assert_eq!(count_up(&kept.client, 300).await, 300);
    let gone = cluster.primary_of("{1}n");
    gone.freeze();
    // Whoever asks it pays a deadline; then its slots are refused at once, and no others.
    eventually("it is left", async || {
        ask(&kept.client, &["GET", "{1}n"]).await == Err(RedisError::Away)
    })
    .await;
    assert!(kept.client.is_there());
    let answered = count_up(&kept.client, 300).await;
    assert!((100..300).contains(&answered), "{answered}");
    eventually("all slots are served again", async || {
        count_up(&kept.client, 300).await == 300
    })
    .await;
    gone.thaw();
    for _ in 0..20 {
        until_answered(&kept.client, "it goes on", &["INCR", "{1}n"]).await;
    }
    eventually("all is well", async || {
        kept.metric("exchequer_redis_up") == 1.0
    })
    .await;
}

// TLS.

/// Certificates of an authority of the test's own, made by openssl.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        certificates.authority("ca");
        certificates.authority("other-ca");
        certificates.signed("server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
        certificates.signed("misnamed", "subjectAltName=DNS:elsewhere.example");
        certificates.signed("client", "extendedKeyUsage=clientAuth");
        certificates
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = std::process::Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn authority(&self, name: &str) {
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &out,
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
        ]);
    }

    fn signed(&self, name: &str, extension: &str) {
        let (key, request, out, extensions) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
            format!("{name}.ext"),
        );
        std::fs::write(self.path(&extensions), extension).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            &format!("/CN={name}"),
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-out",
            &out,
            "-days",
            "2",
            "-extfile",
            &extensions,
        ]);
    }

    /// A server with this certificate; gives it and its host and port for TLS.
    async fn serve(&self, name: &str, clients: &str) -> (Redis, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let redis = Redis::with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &self.path(&format!("{name}.pem")),
            "--tls-key-file",
            &self.path(&format!("{name}.key")),
            "--tls-ca-cert-file",
            &self.path("ca.pem"),
            "--tls-auth-clients",
            clients,
        ])
        .await;
        (redis, format!("localhost:{port}"))
    }
}

#[tokio::test]
async fn tls_is_verified_by_name_and_by_the_authority_that_the_url_names() {
    let made = Certificates::make();
    let (_redis, host) = made.serve("server", "no").await;
    let ca = format!("?ca={}", made.path("ca.pem"));
    for host in [host.clone(), host.replace("localhost", "127.0.0.1")] {
        let (client, _) = new(&format!("rediss://{host}{ca}"));
        connect(&client).await.unwrap();
        set_and_get(&client).await;
        ask(&client, &["DEL", "{one}a"]).await.unwrap();
    }
    let (_strict, strict_host) = made.serve("server", "yes").await;
    let identity = format!(
        "&cert={}&key={}",
        made.path("client.pem"),
        made.path("client.key")
    );
    let (client, _) = new(&format!("rediss://{strict_host}{ca}{identity}"));
    connect(&client).await.unwrap();
    set_and_get(&client).await;

    let (_misnamed, misnamed_host) = made.serve("misnamed", "no").await;
    let other = format!("?ca={}", made.path("other-ca.pem"));
    let empty = format!("?ca={}", made.path("ca.key"));
    let cases = [
        (format!("rediss://:s3cret@{host}{other}"), "UnknownIssuer"),
        (format!("rediss://:s3cret@{host}"), "certificate"),
        (
            format!("rediss://:s3cret@{misnamed_host}{ca}"),
            "not valid for name",
        ),
        // TLS 1.3: that our certificate lacks is said after the handshake, or the end comes first.
        (format!("rediss://:s3cret@{strict_host}{ca}"), "localhost"),
        (
            format!("rediss://:s3cret@{host}?ca=/no/such.pem"),
            "/no/such.pem",
        ),
        (
            format!("rediss://:s3cret@{host}{empty}"),
            "no certificate in it",
        ),
    ];
    for (url, says) in cases {
        let (client, _) = new(&url);
        let error = connect(&client).await.expect_err(&url);
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

// What `doctor` sees.

/// The lines of `doctor` about Redis: each check, how it ended, and what it says, to do too.
fn doctor(url: &str) -> Vec<(String, String, String)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("url"), format!("{url}\n")).unwrap();
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", "https://clerk.invalid")
        .env(
            "EXCHEQUER_KEYS_SECRET",
            "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=",
        )
        .env("EXCHEQUER_STORE_FILE", "url")
        .run(&["doctor", "--json"]);
    assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    rows.filter(|row| row["check"].as_str().unwrap().starts_with("redis") || row["name"] == "redis")
        .map(|row| {
            let said = format!("{} → {}", text(&row["message"]), text(&row["next"]));
            (text(&row["check"]), text(&row["status"]), said)
        })
        .collect()
}

#[track_caller]
fn assert_row(rows: &[(String, String, String)], check: &str, status: &str, says: &str) {
    let found = rows
        .iter()
        .any(|row| row.0 == check && row.1 == status && row.2.contains(says));
    assert!(found, "{check} {status} {says}: {rows:#?}");
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_the_least_rights_that_the_documents_name() {
    let redis = Redis::start().await;
    let page = std::fs::read_to_string("docs/operating.md").unwrap();
    let rule = page
        .lines()
        .find(|line| line.starts_with("ACL SETUSER"))
        .unwrap();
    let rule = rule.replace("PASSWORD", "s3cret");
    assert_eq!(redis.ask(&rule.split(' ').collect::<Vec<_>>()), "OK");
    let rows = doctor(&format!(
        "redis://exchequer:s3cret@{}/1?deadline=2s",
        redis.address()
    ));
    assert_row(&rows, "redis", "ok", ", standalone, master, 0 replicas, ");
    assert_row(&rows, "redis_rights", "ok", "all 18 commands");
    assert_row(&rows, "redis_latency", "ok", "of 10 round trips");
    assert_row(&rows, "clock", "ok", "Redis's is ");
    assert!(
        rows.iter().all(|(_, status, _)| status == "ok"),
        "{rows:#?}"
    );
    assert_eq!(redis.ask(&["-n", "1", "DBSIZE"]), "0");
}

#[tokio::test]
async fn doctor_says_what_is_wrong_with_a_redis_and_what_to_do() {
    let redis = Redis::with(&[
        "--appendonly",
        "no",
        "--maxmemory",
        "50mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ])
    .await;
    let host = redis.address();
    let rows = doctor(&format!("redis://{host}?replicas=2&deadline=2s"));
    assert_row(&rows, "redis", "fail", "allkeys-lru");
    assert_row(
        &rows,
        "redis",
        "fail",
        "replicas=2 in the URL, and 0 are connected",
    );
    assert_row(&rows, "redis", "warn", "appendonly yes");
    let rule = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">s3cret",
        "~exchequer:*",
        "+get",
        "+eval",
        "+time",
    ];
    assert_eq!(redis.ask(&rule), "OK");
    let rows = doctor(&format!("redis://app:s3cret@{host}?deadline=2s"));
    assert_row(&rows, "redis", "warn", "+info");
    assert_row(&rows, "redis_rights", "fail", "+zrangebyscore");
    let rows = doctor(&format!("redis://app:wrong-s3cret@{host}?deadline=2s"));
    assert_row(&rows, "redis", "fail", "the user or the password");
    redis.kill();
    let rows = doctor(&format!("redis://:s3cret@{host}?deadline=2s"));
    assert_row(&rows, "redis", "fail", "does it run, and listen");
}
