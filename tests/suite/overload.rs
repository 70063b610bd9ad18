//! More than can be done at once: what is beyond is refused at once and nothing is left behind,
//! and the platform and the verifiers are answered meanwhile.

use crate::support::{Answer, Behaviour, Issuer, Key, Service, Token, Wire, eventually, issuer};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const EXCHANGE: &str = "/auth/exchange";
const JWKS: &str = "/.well-known/jwks.json";
/// Whatever takes longer hangs.
const GUARD: Duration = Duration::from_secs(60);

fn head(length: usize) -> String {
    format!(
        "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn exchange(token: &str) -> String {
    let body = json!({ "session_token": token }).to_string();
    head(body.len()) + &body
}

async fn count(service: &Service, metric: &str) -> f64 {
    let name = format!("exchequer_{metric}");
    service.metric(&name).await.unwrap_or_default()
}

/// The file descriptors that the process has open.
fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<f64>().unwrap() / 1024.0
}

/// The processor time that it has used, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let times: Vec<u64> = fields
        .skip(11)
        .take(2)
        .map(|n| n.parse().unwrap())
        .collect();
    times.iter().sum()
}

fn limit_files(pid: u32, soft: usize) {
    let status = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={soft}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[track_caller]
fn assert_overloaded(answer: &Answer) {
    answer.assert_refused(503, "overloaded");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    let mut body = answer.body.clone();
    body["request_id"].take();
    assert_eq!(
        body,
        json!({
            "error": "temporarily_unavailable",
            "error_description": "The service has more to do than it can do at once.",
            "code": "overloaded",
            "request_id": null,
            "retryable": true,
            "action": "retry",
            "source": "exchequer",
        })
    );
}

/// Everything that is taken on has been given back.
async fn assert_nothing_left(service: &Service) {
    eventually("nothing is left behind", async || {
        // The scrape itself comes by the other listener.
        let mut left = 0.0;
        for metric in [
            "requests_in_flight",
            "requests_at_work",
            "requests_waiting",
            "bodies_pending_bytes",
        ] {
            left += count(service, metric).await;
        }
        left == 0.0
    })
    .await;
}

#[tokio::test]
async fn beyond_the_places_every_door_that_costs_is_closed_at_once_and_all_others_are_open() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_MAX_CONCURRENCY", "8")
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    // A new key, and an issuer that takes its time to show it: whoever has a token of it waits.
    issuer.publish(vec![Key::rsa().jwk("ins_1"), Key::rsa().jwk("ins_2")]);
    issuer.behave(issuer::JWKS, Behaviour::Late(Duration::from_secs(2)));
    let mut token = Token::clerk(&issuer.url);
    token.header["kid"] = json!("ins_2");
    let request = exchange(&token.sign(Key::rsa()));
    let mut at_work = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::to(&service.url).await;
        wire.send(&request).await;
        at_work.push(wire);
    }
    eventually("all places are taken", async || {
        count(&service, "requests_at_work").await == 8.0
    })
    .await;

    let to = |path: &str| service.client.post(format!("{}{path}", service.url));
    let get = |path: &str| service.client.get(format!("{}{path}", service.url));
    let form = "application/x-www-form-urlencoded";
    let doors = [
        to(EXCHANGE)
            .header("content-type", "application/json")
            .body(json!({"session_token": issuer.token()}).to_string()),
        to("/auth/clerk/exchange").body("{}"),
        to("/oauth/token")
            .header("content-type", form)
            .body("grant_type=x"),
        to("/oauth/introspect")
            .header("content-type", form)
            .body("token=x"),
        to("/oauth/revoke")
            .header("content-type", form)
            .body("token=x"),
        get("/auth/verify").bearer_auth("x"),
        get("/auth/login/clerk"),
        get("/auth/callback/clerk"),
    ];
    let refused = join_all(doors.map(|door| service.send(door))).await;
    let documents = [
        JWKS,
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/healthz",
    ];
    let open = join_all(documents.map(|path| service.get(path))).await;
    let probes = ["/livez", "/readyz", "/startupz", "/healthz", "/metrics"];
    let probed = join_all(probes.map(|path| service.admin(path))).await;
    let still = count(&service, "requests_at_work").await;

    for answer in &refused {
        assert_overloaded(answer);
    }
    for (path, answer) in documents
        .iter()
        .zip(&open)
        .chain(probes.iter().zip(&probed))
    {
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(still, 8.0, "all of that while nothing had become free");
    for wire in &mut at_work {
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_nothing_left(&service).await;
    let shed = "requests_shed_total{reason=\"concurrency\"}";
    assert_eq!(count(&service, shed).await, 8.0);
    let labels = "{route=\"exchange\",outcome=\"failed\",code=\"overloaded\"}";
    let requests = format!("requests_total{labels}");
    assert_eq!(count(&service, &requests).await, 2.0);
    let said = service.logged("requests are shed");
    assert_eq!(said.len(), 1, "once for many: {said:?}");
    assert_eq!(said[0]["reason"], "concurrency");
}

#[tokio::test]
async fn whoever_sends_slowly_takes_nobodys_place() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_MAX_CONCURRENCY", "1")
        .start()
        .await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::to(&service.url).await;
        wire.send(head(1000) + "{\"session_token\":").await;
        slow.push(wire);
    }
    eventually("their bodies have come in part", async || {
        count(&service, "bodies_pending_bytes").await == 50.0 * 17.0
    })
    .await;
    assert_eq!(count(&service, "requests_at_work").await, 0.0);
    for _ in 0..5 {
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    drop(slow);
    assert_nothing_left(&service).await;
}

#[tokio::test]
async fn bodies_in_part_have_a_bound_over_all_connections_and_whole_ones_pass() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let part = head(64 * 1024) + &" ".repeat(63 * 1024);
    let send = async || {
        let mut wire = Wire::to(&service.url).await;
        wire.send(&part).await;
        wire
    };
    // 64 MiB, less one.
    let mut slow = Vec::new();
    for _ in 0..1040 {
        slow.push(send().await);
    }
    eventually("they have come", async || {
        count(&service, "bodies_pending_bytes").await == 1040.0 * 63.0 * 1024.0
    })
    .await;
    let mut beyond = send().await;
    let answer = beyond.answer().await.unwrap();
    answer.assert_refused(503, "bodies_too_many");
    assert!(["1", "2", "3"].contains(&answer.header("retry-after")));
    assert_eq!(answer.header("connection"), "close");
    assert!(beyond.answer().await.is_none());
    let shed = "requests_shed_total{reason=\"bodies\"}";
    assert_eq!(count(&service, shed).await, 1.0);
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    drop(slow);
    assert_nothing_left(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_processors_are_what_is_missing_the_queue_is_kept_short() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("TOKIO_WORKER_THREADS", "1")
        .env("EXCHEQUER_MAX_QUEUE_DELAY", "25ms")
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let request = exchange(&Token::clerk(&issuer.url).sign(Key::rsa()));
    let mut wires = Vec::new();
    for _ in 0..3000 {
        wires.push(Wire::to(&service.url).await);
    }
    let (mut well, mut shed) = (0, 0);
    // More at once than is done in the time that a burst may wait.
    for _ in 0..10 {
        for wire in &mut wires {
            wire.send(&request).await;
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(service.admin(path).await.status, 200);
        }
        for wire in &mut wires {
            let answer = wire.answer().await.expect("the connection is kept");
            match answer.status {
                200 => well += 1,
                _ => {
                    assert_overloaded(&answer);
                    shed += 1;
                }
            }
        }
        if shed > 0 {
            break;
        }
    }
    println!("{well} were answered well, {shed} were shed");
    assert!(well >= 32 && shed > 0);
    // They were never at work at once: no count of them would have told.
    let metric = "requests_shed_total{reason=\"delay\"}";
    assert_eq!(count(&service, metric).await, f64::from(shed));
    let metric = "requests_shed_total{reason=\"concurrency\"}";
    assert_eq!(count(&service, metric).await, 0.0);
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_nothing_left(&service).await;
}

#[tokio::test]
async fn whoever_does_not_read_the_answers_is_cut_off() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = service.url.trim_start_matches("http://").parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let requests = format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(500);
    let sending = async {
        // Until nothing is taken any more, and then until the end.
        while stream.write_all(requests.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(GUARD, sending)
        .await
        .expect("held open for a minute");
    eventually("it is told from those that ask for nothing", async || {
        count(&service, "connections_cut_total{reason=\"answer\"}").await == 1.0
    })
    .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_nothing_left(&service).await;
}

/// A client that goes away at some moment; gives the user whom it was answered about.
async fn fickle(address: String, request: Arc<Vec<u8>>, seed: u64) -> Option<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut stream = TcpStream::connect(&address).await.ok()?;
    let end = random
        .random_range(0..=request.len() * 2)
        .min(request.len());
    stream.write_all(&request[..end]).await.ok()?;
    if end < request.len() || random.random_bool(0.5) {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..3000))).await;
        if random.random_bool(0.5) {
            // A reset, as of a client that was killed.
            let _ = stream.set_zero_linger();
        }
        return None;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"}}") {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.ok()?;
        answer.extend_from_slice(&buffer[..length]);
        if length == 0 {
            break;
        }
    }
    let text = String::from_utf8(answer).unwrap();
    let body = text.split_once("\r\n\r\n")?.1;
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    Some(body["user"]["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_clients_that_go_away_leaves_nothing_and_mixes_up_nobody() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let users: Vec<(String, Arc<Vec<u8>>)> = (0..50)
        .map(|number| {
            let user = format!("user_{number}");
            let token = Token::clerk(&issuer.url).claim("sub", user.as_str());
            (
                user,
                Arc::new(exchange(&token.sign(Key::rsa())).into_bytes()),
            )
        })
        .collect();
    let address = service.url.trim_start_matches("http://").to_owned();
    let before = files(service.pid());
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut answered = 0;
    for round in 0..50 {
        let clients = (0..100).map(|number| {
            let (user, request) = &users[number % users.len()];
            let seed = seed.wrapping_add(round * 100 + number as u64);
            let client = tokio::spawn(fickle(address.clone(), Arc::clone(request), seed));
            async move { (user, client.await.unwrap()) }
        });
        let answers = tokio::time::timeout(GUARD, join_all(clients)).await;
        for (user, told) in answers.expect("a client waits for ever") {
            if let Some(told) = told {
                assert_eq!(*user, told);
                answered += 1;
            }
        }
    }
    println!("5000 clients came, {answered} stayed");
    assert!(answered > 500);
    assert_nothing_left(&service).await;
    eventually("their connections are closed", async || {
        files(service.pid()) <= before + 2
    })
    .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

#[tokio::test]
async fn connections_have_a_bound_that_leaves_files_to_everything_else() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .files(64)
        .start()
        .await;
    let ask = async |wire: &mut Wire| {
        wire.send(format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        wire.answer().await.map(|answer| answer.status)
    };
    let mut kept = Vec::new();
    for number in 0..32 {
        let mut wire = Wire::to(&service.url).await;
        assert_eq!(ask(&mut wire).await, Some(200), "{number}");
        kept.push(wire);
    }
    for _ in 0..100 {
        let mut wire = Wire::to(&service.url).await;
        assert_eq!(ask(&mut wire).await, None, "closed, and at once");
    }
    assert_eq!(count(&service, "connections_refused_total").await, 100.0);
    // Those that are there are served, and so is the platform; the store and the issuers too.
    for path in ["/livez", "/readyz"] {
        assert_eq!(service.admin(path).await.status, 200);
    }
    let first = &mut kept[0];
    first.send(exchange(&issuer.token())).await;
    assert_eq!(first.answer().await.unwrap().status, 200);
    // Whoever holds the connections and asks for nothing soon makes room.
    let idle = kept.split_off(1);
    eventually_for(30, "there is room again", async || {
        let mut wire = Wire::to(&service.url).await;
        ask(&mut wire).await == Some(200)
    })
    .await;
    assert!(count(&service, "connections_cut_total{reason=\"idle\"}").await > 0.0);
    drop(idle);
}

/// As `eventually`, for what takes longer.
async fn eventually_for(seconds: usize, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..seconds * 5 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn out_of_files_the_service_waits_without_spinning_and_comes_back() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    // So that the admin listener has a connection to be asked by.
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(service.admin("/livez").await.status, 200);
    let before = files(service.pid());
    limit_files(service.pid(), before + 3);
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::to(&service.url).await;
        wire.send(exchange(&issuer.token())).await;
        wires.push(wire);
    }
    eventually("there are no files left", async || {
        service.logged("connections cannot be accepted").len() == 1
    })
    .await;
    let used = ticks(service.pid());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = ticks(service.pid()) - used;
    assert!(used < 50, "{used} ticks of a hundred, with nothing to do");
    assert_eq!(service.admin("/livez").await.status, 200);
    assert_eq!(
        service.logged("connections cannot be accepted").len(),
        1,
        "once, not each time that it is tried"
    );
    limit_files(service.pid(), 1000);
    for wire in &mut wires {
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

/// Raises this process's own limit of open files as far as it may be; gives the limit.
fn own_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.unwrap().split_whitespace().nth(4).unwrap();
    let hard = hard.parse().unwrap_or(1_000_000);
    limit_files(std::process::id(), hard);
    hard
}

/// The watcher of a connection that waits for a body looks again soon after the request, not at
/// the deadline that the request had.
#[tokio::test]
async fn a_connection_whose_body_came_late_gives_its_buffers_back_as_soon_as_any() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let request = exchange(&issuer.token());
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let fifty = async || {
        let some = (0..50).map(async |_| {
            let mut wire = Wire::to(&service.url).await;
            wire.send(head).await;
            wire
        });
        let mut some = join_all(some).await;
        eventually("all bodies are awaited", async || {
            count(&service, "requests_in_flight").await >= 50.0
        })
        .await;
        let answers = some.iter_mut().map(async |wire| {
            wire.send(body).await;
            assert_eq!(wire.answer().await.unwrap().status, 200);
        });
        join_all(answers).await;
        // Longer than they stay awake.
        tokio::time::sleep(Duration::from_millis(400)).await;
        some
    };
    let mut kept = fifty().await;
    // What fifty need that are awake is there now, and used again by the next.
    let before = resident_mib(service.pid());
    for _ in 0..12 {
        kept.extend(fifty().await);
    }
    let held = resident_mib(service.pid()) - before;
    println!("{} that sleep: {held:.1} MiB more", kept.len());
    assert!(held < 7.0, "{held:.1} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_take_little_and_disturb_nobody() {
    const WANTED: usize = 10_000;
    // Other tests of this process need some too.
    let files = own_files().saturating_sub(2000);
    let connections = WANTED.min(files);
    if connections < WANTED {
        eprintln!("ONLY {connections} CONNECTIONS: the limit of open files is lower than 12000");
    }
    assert!(connections >= 500, "too few files to tell anything");
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let before = resident_mib(service.pid());
    let token = Token::clerk(&issuer.url).claim("exp", crate::support::now() + 3600);
    let request = exchange(&token.sign(Key::rsa()));
    let fetch = format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut idle = Vec::new();
    while idle.len() < connections {
        let some = (0..100).map(async |_| {
            // As a kept connection is: it has been used.
            let mut wire = Wire::to(&service.url).await;
            for request in [&request, &fetch] {
                wire.send(request).await;
                assert_eq!(wire.answer().await.unwrap().status, 200);
            }
            wire
        });
        idle.extend(join_all(some).await);
    }
    assert!(count(&service, "connections").await >= connections as f64);
    // One that slept is as good as any.
    let woken = &mut idle[0];
    for request in [&fetch, &request] {
        woken.send(request).await;
        assert_eq!(woken.answer().await.unwrap().status, 200);
    }
    let held = resident_mib(service.pid());
    let each = (held - before) * 1024.0 / connections as f64;
    println!(
        "{connections} idle connections: {before:.1} MiB before, {held:.1} MiB, {each:.1} KiB each"
    );
    let bound = 150.0 * connections as f64 / WANTED as f64;
    assert!(held - before <= bound && (connections < WANTED || held <= 150.0));
    for _ in 0..20 {
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    drop(idle);
    forgotten(&service).await;
    // Those who never finish a head are no better.
    let mut slow = Vec::new();
    while slow.len() < connections / 2 {
        let some = (0..100).map(async |_| {
            let mut wire = Wire::to(&service.url).await;
            for part in ["POST /auth/exchange HTTP/1.1\r\n", "x: "] {
                wire.send(part).await;
            }
            wire
        });
        slow.extend(join_all(some).await);
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let held = resident_mib(service.pid());
    println!("{} heads in part: {held:.1} MiB", slow.len());
    assert!(held <= 150.0);
    eventually_for(60, "they are cut off", async || {
        let metric = "connections_cut_total{reason=\"head\"}";
        count(&service, metric).await >= slow.len() as f64
    })
    .await;
    forgotten(&service).await;
}

/// Waits until only a client's own connections are left: before, as many more may not be taken.
async fn forgotten(service: &Service) {
    eventually_for(30, "they are forgotten", async || {
        count(service, "connections").await <= 4.0
    })
    .await;
}
