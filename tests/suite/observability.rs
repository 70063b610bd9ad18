//! What operators see: probes, metrics and the log; and what the log never holds.

use crate::support::{Behaviour, Issuer, Key, Service, Token, eventually, issuer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    (issuer, service)
}

/// The samples of a metric: its labels, in the order of their names, and its value.
async fn samples(service: &Service, name: &str) -> Vec<(String, f64)> {
    let answer = service.admin("/metrics").await;
    let text = answer.body.as_str().unwrap();
    text.lines()
        .filter_map(|line| {
            let (left, value) = line.rsplit_once(' ')?;
            let labels = left.strip_prefix(name)?;
            let labels = match labels.strip_prefix('{') {
                Some(labels) => labels.strip_suffix('}')?,
                None if labels.is_empty() => "",
                None => return None,
            };
            let mut labels: Vec<&str> = labels.split(',').collect();
            labels.sort_unstable();
            Some((labels.join(","), value.parse().ok()?))
        })
        .collect()
}

/// The value of the sample with exactly these labels; 0 where there is none.
async fn sample(service: &Service, name: &str, labels: &str) -> f64 {
    let samples = samples(service, name).await;
    let found = samples.into_iter().find(|(each, _)| each == labels);
    found.map_or(0.0, |(_, value)| value)
}

#[tokio::test]
async fn probes_and_metrics_are_on_the_admin_listener_alone() {
    let (issuer, service) = world().await;
    eventually("it is started", async || {
        service.admin("/startupz").await.status == 200
    })
    .await;
    for path in ["/livez", "/readyz", "/startupz", "/healthz"] {
        let answer = service.admin(path).await;
        assert_eq!(
            (answer.status, &answer.body),
            (200, &json!("ok\n")),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let metrics = service.admin("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(metrics.body.as_str().unwrap().ends_with("# EOF\n"));
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        service.get(path).await.assert_refused(404, "not_found");
    }
    for path in ["/auth/exchange", "/.well-known/jwks.json", "/metrics/"] {
        service.admin(path).await.assert_refused(404, "not_found");
    }
    let post = service.client.post(format!("{}/metrics", service.admin));
    let answer = service.send(post).await;
    answer.assert_refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD");
    let exchange = service
        .client
        .post(format!("{}/auth/exchange", service.admin))
        .bearer_auth(issuer.token());
    service
        .send(exchange)
        .await
        .assert_refused(404, "not_found");
}

#[tokio::test]
async fn startup_waits_for_the_first_answer_of_every_issuer() {
    let issuer = Issuer::start().await;
    issuer.behave(issuer::JWKS, Behaviour::Stall);
    let service = Service::trusting(&issuer).await;
    let starting = service.admin("/startupz").await;
    assert_eq!(
        (starting.status, starting.body),
        (503, json!("fetching key sets\n"))
    );
    assert_eq!(service.admin("/livez").await.status, 200);
    // A key set that cannot be had is an answer too: the service starts without it.
    eventually("it is started", async || {
        service.admin("/startupz").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_service_is_ready_whatever_happens_upstream() {
    let (issuer, service) = world().await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    issuer.vanish();
    service.shift_clocks(3600, 3600);
    eventually("the fetch fails", async || {
        sample_of_fetches(&service, "error").await >= 1.0
    })
    .await;
    assert_eq!(service.admin("/readyz").await.status, 200);
    assert_eq!(service.admin("/livez").await.status, 200);
}

async fn sample_of_fetches(service: &Service, result: &str) -> f64 {
    let samples = samples(service, "exchequer_jwks_fetch_total").await;
    samples
        .iter()
        .filter(|(labels, _)| labels.ends_with(&format!("result=\"{result}\"")))
        .map(|(_, value)| value)
        .sum()
}

#[tokio::test]
async fn requests_are_counted_by_route_outcome_and_code() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    for _ in 0..3 {
        assert_eq!(service.session(&token).await.status, 200);
    }
    let expired = Token::clerk(&issuer.url).claim("exp", 1).sign(Key::rsa());
    for _ in 0..2 {
        assert_eq!(service.session(&expired).await.status, 401);
    }
    service.exchange(&json!({})).await;
    service.get("/auth/exchange").await;
    service.get("/.well-known/jwks.json").await;
    service.get("/.well-known/openid-configuration").await;
    service.get("/healthz").await;
    // Paths are the caller's: they never become labels.
    service.get("/nowhere").await;
    service.get("/auth/exchange/x").await;
    let alg = Token::clerk(&issuer.url).header("kid", "unknown");
    service.session(&alg.sign(Key::rsa())).await;
    let name = "exchequer_requests_total";
    let counted: BTreeSet<(String, u64)> = samples(&service, name)
        .await
        .into_iter()
        .map(|(labels, value)| (labels, value as u64))
        .collect();
    let of = |route: &str, outcome: &str, code: &str, count: u64| {
        let labels = format!("code=\"{code}\",outcome=\"{outcome}\",route=\"{route}\"");
        (labels, count)
    };
    let expected = BTreeSet::from([
        of("exchange", "ok", "ok", 3),
        of("exchange", "refused", "subject_token_expired", 2),
        of("exchange", "refused", "credential_missing", 1),
        of("exchange", "refused", "method_not_allowed", 1),
        of("exchange", "refused", "subject_token_key_unknown", 1),
        of("jwks", "ok", "ok", 1),
        of("metadata", "ok", "ok", 1),
        of("health", "ok", "ok", 1),
        of("other", "refused", "not_found", 2),
        // The gate's commonest answer has its counter from the start.
        of("verify", "ok", "ok", 0),
    ]);
    assert_eq!(counted, expected);

    let durations = "exchequer_request_duration_seconds";
    let exchanges = "route=\"exchange\"";
    assert_eq!(
        sample(&service, &format!("{durations}_count"), exchanges).await,
        8.0
    );
    let sum = sample(&service, &format!("{durations}_sum"), exchanges).await;
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    let buckets: Vec<f64> = samples(&service, &format!("{durations}_bucket"))
        .await
        .into_iter()
        .filter(|(labels, _)| labels.ends_with(exchanges))
        .map(|(_, value)| value)
        .collect();
    assert_eq!(buckets.len(), 17);
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&8.0), "+Inf");

    assert_eq!(
        sample(&service, "exchequer_requests_in_flight", "").await,
        0.0
    );
    let version = env!("CARGO_PKG_VERSION");
    let backend = exchequer::crypto::BACKEND;
    let labels = format!("backend=\"{backend}\",version=\"{version}\"");
    assert_eq!(sample(&service, "exchequer_build_info", &labels).await, 1.0);
}

#[tokio::test]
async fn the_process_shows_what_it_takes_of_the_machine() {
    let (issuer, service) = world().await;
    let value = async |name: &str| sample(&service, name, "").await;
    let memory = value("process_resident_memory_bytes").await;
    assert!((1e6..1e9).contains(&memory), "{memory}");
    let started = value("process_start_time_seconds").await;
    let now = crate::support::now() as f64;
    assert!((now - 60.0..now + 2.0).contains(&started), "{started}");
    let (open, most) = (
        value("process_open_fds").await,
        value("process_max_fds").await,
    );
    assert!(5.0 < open && open < most, "{open} of {most}");
    let before = value("process_cpu_seconds_total").await;
    let token = issuer.token();
    eventually("it works", async || {
        service.session(&token).await.token();
        value("process_cpu_seconds_total").await > before
    })
    .await;
    assert!(value("process_cpu_seconds_total").await < before + 60.0);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_counts_as_failed() {
    let issuer = Issuer::start().await;
    issuer.behave(issuer::JWKS, Behaviour::Answer(500, String::new()));
    let service = Service::trusting(&issuer).await;
    let answer = service.session(&issuer.token()).await;
    answer.assert_refused(503, "issuer_keys_unavailable");
    let labels = "code=\"issuer_keys_unavailable\",outcome=\"failed\",route=\"exchange\"";
    assert_eq!(
        sample(&service, "exchequer_requests_total", labels).await,
        1.0
    );
    assert!(sample_of_fetches(&service, "error").await >= 1.0);
    assert_eq!(sample_of_fetches(&service, "ok").await, 0.0);
    assert_eq!(samples(&service, "exchequer_jwks_age_seconds").await, []);
    let line = &service.logged("failed")[0];
    assert_eq!(
        [
            &line["level"],
            &line["code"],
            &line["check"],
            &line["status"]
        ],
        [
            &json!("WARN"),
            &json!("issuer_keys_unavailable"),
            &json!("key"),
            &json!(503)
        ]
    );
    assert!(line["cause"].as_str().unwrap().contains("500"), "{line}");

    issuer.behave(issuer::JWKS, Behaviour::Well);
    service.shift_clocks(120, 120);
    eventually("it is fetched", async || {
        sample_of_fetches(&service, "ok").await >= 1.0
    })
    .await;
    let (of, young) = samples(&service, "exchequer_jwks_age_seconds").await[0].clone();
    let name = issuer.url.trim_start_matches("http://").replace(':', "-");
    assert_eq!(of, format!("issuer=\"{name}\""));
    assert!((0.0..60.0).contains(&young), "{young}");
    service.shift_clocks(180, 180);
    let old = samples(&service, "exchequer_jwks_age_seconds").await[0].1;
    assert!((60.0..120.0).contains(&old), "{old}");
}

#[tokio::test]
async fn keys_are_shown_with_their_states_and_the_next_rotation() {
    const DAY: f64 = 86_400.0;
    let (_issuer, service) = world().await;
    let states = async || {
        let mut states: Vec<String> = samples(&service, "exchequer_signing_key_info")
            .await
            .into_iter()
            .map(|(labels, value)| {
                assert_eq!(value, 1.0);
                assert!(labels.starts_with("alg=\"ES256\",kid=\""), "{labels}");
                let state = labels.rsplit_once("state=").unwrap().1;
                state.trim_matches('"').to_owned()
            })
            .collect();
        states.sort_unstable();
        states
    };
    assert_eq!(states().await, ["active", "next"]);
    let until = async || sample(&service, "exchequer_next_rotation_seconds", "alg=\"ES256\"").await;
    let first = until().await;
    assert!((89.0 * DAY..=90.0 * DAY).contains(&first), "{first}");
    service.shift_clocks(10 * 86_400, 0);
    let later = until().await;
    assert!(
        (first - 10.5 * DAY..=first - 9.5 * DAY).contains(&later),
        "{later}"
    );
    assert_eq!(
        service.command().run(&["keys", "rotate", "--force"]).code,
        0
    );
    eventually("the rotation is taken over", async || {
        states().await == ["active", "next", "retired"]
    })
    .await;
    let jwks = service.get("/.well-known/jwks.json").await;
    for key in jwks.body["keys"].as_array().unwrap() {
        let kid = format!("kid={}", key["kid"]);
        let samples = samples(&service, "exchequer_signing_key_info").await;
        assert!(
            samples.iter().any(|(labels, _)| labels.contains(&kid)),
            "{kid}"
        );
    }
    assert_eq!(
        sample(&service, "exchequer_key_ring_failures_total", "").await,
        0.0
    );
}

#[tokio::test]
async fn each_exchange_is_one_line_that_names_no_one() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    let of = |sub: &str| Token::clerk(&issuer.url).claim("sub", sub).sign(Key::rsa());
    let mut pseudonyms = Vec::new();
    for sub in ["user_1", "user_1", "user_2"] {
        let answer = service.session(&of(sub)).await;
        let id = answer.header("x-request-id");
        let claims = crate::support::token::claims(answer.token());
        let header = crate::support::token::header(answer.token());
        let line = async || {
            service
                .logged("exchanged")
                .into_iter()
                .find(|line| line["request_id"] == id)
        };
        eventually("the line is written", async || line().await.is_some()).await;
        let line = line().await.unwrap();
        let subject = line["subject"].as_str().unwrap().to_owned();
        let mut whole = line.clone();
        for varying in ["timestamp", "micros"] {
            assert!(!whole[varying].take().is_null(), "{line}");
        }
        assert_eq!(
            whole,
            json!({
                "timestamp": null, "micros": null, "level": "INFO", "message": "exchanged",
                "target": line["target"], "request_id": id,
                "app": "default", "issuer": issuer.url, "subject": subject,
                "jti": claims["jti"], "kid": header["kid"],
            })
        );
        assert!(line["target"].as_str().unwrap().starts_with("exchequer"));
        assert_eq!(subject.len(), 12, "{subject}");
        pseudonyms.push(subject);
    }
    assert_eq!(pseudonyms[0], pseudonyms[1], "the same subject");
    assert_ne!(pseudonyms[0], pseudonyms[2], "another subject");
    service.restart().await;
    assert_eq!(service.session(&of("user_1")).await.status, 200);
    eventually("the line is written", async || {
        !service.logged("exchanged").is_empty()
    })
    .await;
    assert_eq!(service.logged("exchanged")[0]["subject"], pseudonyms[0]);
    // The pseudonym is this service's: nobody else can tell whose it is.
    let (other_issuer, other) = world().await;
    assert_eq!(other.session(&other_issuer.token()).await.status, 200);
    eventually("the line is written", async || {
        !other.logged("exchanged").is_empty()
    })
    .await;
    assert_ne!(other.logged("exchanged")[0]["subject"], pseudonyms[0]);
}

#[tokio::test]
async fn each_refusal_is_one_line_that_says_what_was_expected() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_AUTHORIZED_PARTIES", "https://www.example.com")
        .start()
        .await;
    let answer = service.session(&issuer.token()).await;
    answer.assert_refused(401, "subject_token_authorized_party_mismatch");
    eventually("the line is written", async || {
        !service.logged("refused").is_empty()
    })
    .await;
    let line = &service.logged("refused")[0];
    for (name, value) in [
        ("level", json!("INFO")),
        ("route", json!("exchange")),
        ("request_id", answer.body["request_id"].clone()),
        ("code", json!("subject_token_authorized_party_mismatch")),
        ("status", json!(401)),
        ("issuer", json!(issuer.url)),
        ("check", json!("authorized_party")),
        ("seen", json!("https://app.example.com")),
        ("expected", json!("https://www.example.com")),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    // Other people's text cannot write lines of its own.
    let forger = Token::clerk("https://x\n{\"message\":\"forged\"}\u{1b}[2J").sign(Key::rsa());
    service
        .session(&forger)
        .await
        .assert_refused(401, "subject_token_issuer_untrusted");
    eventually("the line is written", async || {
        service.logged("refused").len() == 2
    })
    .await;
    assert_eq!(service.logged("forged"), [] as [Value; 0]);
    for line in service.log() {
        assert!(!line.contains('\u{1b}'), "{line}");
        serde_json::from_str::<Value>(&line).expect(&line);
    }
}

/// Sends all that may come, good and bad; gives what no line of the log may hold.
async fn mixed_bag(service: &Service, issuer: &Issuer) -> Vec<String> {
    const SUBJECT: &str = "user_4711subject";
    const MAIL: &str = "jane.doe@mail.example";
    let base = Token::clerk(&issuer.url)
        .claim("sub", SUBJECT)
        .claim("email", MAIL);
    let good = base.sign(Key::rsa());
    let cut = good[..good.len() - 20].to_owned();
    let tokens = [
        good.clone(),
        cut,
        base.sign(Key::other_rsa()),
        base.clone().claim("exp", 1).sign(Key::rsa()),
        base.clone().claim("exp", "never").sign(Key::rsa()),
        base.clone()
            .claim("nbf", 9_999_999_999_i64)
            .sign(Key::rsa()),
        base.clone().claim("sts", "pending").sign(Key::rsa()),
        base.clone()
            .claim("iss", "https://other.example")
            .sign(Key::rsa()),
        base.clone().without("iss").sign(Key::rsa()),
        base.clone().header("kid", "ins_9").sign(Key::rsa()),
        base.clone().header("alg", "HS256").sign(Key::rsa()),
        base.clone()
            .header("jku", "https://evil.example")
            .sign(Key::rsa()),
        base.clone().header("typ", "logout+jwt").sign(Key::rsa()),
        base.clone().claim("sub", json!([SUBJECT])).sign(Key::rsa()),
        base.clone()
            .claim("act", json!({"sub": 1, "mail": MAIL}))
            .sign(Key::rsa()),
        "oat_0pAqUe70k3n0fS0m3b0dy".to_owned(),
        format!("{good}.{good}"),
        format!("\"{good}\""),
    ];
    let mut secret = vec![SUBJECT.to_owned(), MAIL.to_owned()];
    let http_2 = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    for token in &tokens {
        secret.extend(
            token
                .split('.')
                .filter(|part| part.len() > 8)
                .map(str::to_owned),
        );
        for app in [
            None,
            Some("plain"),
            Some("listed"),
            Some("typed"),
            Some("deep"),
            Some("called"),
        ] {
            let answer = service
                .exchange(&json!({"session_token": token, "app": app}))
                .await;
            if let Some(token) = answer.body["token"].as_str() {
                secret.extend(token.split('.').skip(1).map(str::to_owned));
            }
        }
        let url = format!("{}/auth/exchange", service.url);
        for client in [&service.client, &http_2] {
            for request in [
                client
                    .post(&url)
                    .bearer_auth(token)
                    .body("{\"app\":\"plain\"}"),
                client
                    .post(&url)
                    .bearer_auth(token)
                    .header("content-type", "text/plain")
                    .body(token.clone()),
                client
                    .post(&url)
                    .header("content-type", "application/json")
                    .body(format!("{{\"session_token\":{token}}}")),
                client
                    .post(&url)
                    .header("content-type", "application/json")
                    .body(json!({"session_token": [token]}).to_string()),
                client
                    .post(&url)
                    .header("content-type", "application/json")
                    .body(json!({"session_token": token, "subject_token": token}).to_string()),
                client
                    .post(&url)
                    .header("authorization", format!("Basic {token}")),
                client
                    .post(&url)
                    .header("cookie", format!("__session={token}")),
                client.post(format!("{url}?session_token={token}")),
                client.post(format!("{url}/{token}")),
                client.get(format!("{}/{token}?{token}", service.url)),
                client.put(&url).header("traceparent", token),
                client
                    .post(&url)
                    .header("origin", token)
                    .header("user-agent", token)
                    .header("referer", token),
                client
                    .get(format!("{}/metrics?{token}", service.admin))
                    .bearer_auth(token),
            ] {
                // HTTP/2 has no answer to a header that it cannot carry.
                let _ = request.send().await;
            }
        }
    }
    broken_http_2(service, &format!("/auth/exchange?session_token={good} ")).await;
    secret
}

/// Asks for a path that is none, over HTTP/2 by hand (RFC 9113 §3.4, §6.2; RFC 7541 §6.2.2).
async fn broken_http_2(service: &Service, path: &str) {
    let text = |text: &str| {
        // A length in a prefix of seven bits (RFC 7541 §5.1).
        let rest = text.len().checked_sub(127);
        let mut bytes = match rest {
            None => vec![text.len() as u8],
            Some(rest) => vec![127, (rest % 128) as u8 | 128, (rest / 128) as u8],
        };
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", path),
    ] {
        block.push(0);
        block.extend(text(name));
        block.extend(text(value));
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(b"\x01\x05\0\0\0\x01");
    bytes.extend(block);
    let address = service.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    // RST_STREAM with PROTOCOL_ERROR: the path was seen, and refused.
    let reset = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x01";
    let mut answer = Vec::new();
    while !answer.windows(reset.len()).any(|frame| frame == reset) {
        let read = stream.read_buf(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await;
        assert!(read.unwrap().unwrap() > 0, "{answer:?}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody_and_what_was_lost_is_told() {
    let (_issuer, service) = world().await;
    let unread = service.leave_log_unread();
    let long = "r".repeat(128);
    let asked = || async {
        let request = service.client.get(format!("{}/auth/verify", service.url));
        let answer = service.send(request.header("x-request-id", &long)).await;
        answer.assert_refused(401, "bearer_missing");
    };
    let lost = async || sample(&service, "exchequer_log_lost_total", "").await;
    // The pipe and the buffer take some 12,000 such lines.
    for round in 0.. {
        assert!(round < 1000, "nothing is lost");
        join_all((0..64).map(|_| asked())).await;
        if lost().await > 0.0 {
            break;
        }
    }
    // Others may be lost meanwhile, but who asks is answered.
    asked().await;
    drop(unread);
    let told = || -> f64 {
        let told = service.logged("lines of the log were lost");
        told.iter()
            .map(|line| line["lines"].as_f64().unwrap())
            .sum()
    };
    eventually("what was lost is told", async || told() > 0.0).await;
    assert_eq!(told(), lost().await);
    asked().await;
    eventually("the log goes on", async || {
        service
            .log()
            .last()
            .is_some_and(|line| line.contains(&long))
    })
    .await;
    for line in service.log() {
        let line: Value = serde_json::from_str(&line).expect(&line);
        assert!(line["target"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn no_line_of_the_log_holds_a_token_a_subject_or_a_secret() {
    let keys_secret = STANDARD.encode([b'k'; 32]);
    for level in [
        "debug",
        "trace",
        "info,hyper=trace,hyper_util=trace,h2=trace,warp=trace,reqwest=trace,rustls=trace,cel=trace",
    ] {
        let issuer = Issuer::start().await;
        let service = Service::builder()
            .env("EXCHEQUER_LOG", level)
            .env("EXCHEQUER_KEYS_SECRET", &keys_secret)
            .config(&format!(
                r#"
                [issuers.clerk]
                issuer = "{}"
                kind = "clerk"
                [apps.plain]
                issuers = ["clerk"]
                [apps.listed]
                issuers = ["clerk"]
                condition = '{{"user_1": true}}[sub]'
                [apps.typed]
                issuers = ["clerk"]
                condition = 'sub + 1 == 2'
                [apps.deep]
                issuers = ["clerk"]
                claims.x = 'claims[claims.email].y'
                [apps.called]
                issuers = ["clerk"]
                claims.x = 'timestamp(claims.email)'
                "#,
                issuer.url
            ))
            .start()
            .await;
        let mut secrets = mixed_bag(&service, &issuer).await;
        secrets.push(keys_secret.clone());
        secrets.push("kkkkkkkk".to_owned());
        assert_eq!(service.get("/healthz").await.status, 200);
        let last = service.get("/last").await.header("x-request-id").to_owned();
        eventually("everything is logged", async || {
            service.log().iter().any(|line| line.contains(&last))
        })
        .await;
        let log = service.log();
        let mut targets = BTreeSet::new();
        for line in &log {
            for secret in &secrets {
                assert!(!line.contains(secret), "{level}: {secret} in {line}");
            }
            let line: Value = serde_json::from_str(line).expect(line);
            if line["level"] == "DEBUG" || line["level"] == "TRACE" {
                targets.insert(line["target"].as_str().unwrap().to_owned());
            }
        }
        // Libraries know nothing of what is secret: only we may be asked for more than info.
        let ours = |target: &String| target.starts_with("exchequer::");
        assert!(targets.iter().all(ours), "{level}: {targets:?}");
        assert_eq!(
            !level.starts_with("info"),
            log.iter().any(|line| line.contains("\"answered\""))
        );
    }
}
