//! Connections: nothing smuggled, nothing held up, nothing lost when the service stops.

use crate::support::{Answer, Behaviour, Issuer, Service, Wire, eventually, issuer};
use serde_json::json;
use std::time::{Duration, Instant};

const EXCHANGE: &str = "/auth/exchange";
const JWKS: &str = "/.well-known/jwks.json";

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    (issuer, service)
}

#[tokio::test]
async fn whoever_uploads_too_much_gets_the_answer_and_not_a_reset() {
    let (_issuer, service) = world().await;
    let body = " ".repeat(4 * 1024 * 1024);
    for (path, status) in [(EXCHANGE, 413), ("/nowhere", 404), (JWKS, 405)] {
        for _ in 0..10 {
            // One client: it must not send the next request after a body that is not read.
            let request = service
                .client
                .post(format!("{}{path}", service.url))
                .header("content-type", "application/json")
                .body(body.clone());
            let answer = service.send(request).await;
            assert_eq!(answer.status, status, "{}", answer.body);
            assert_eq!(answer.header("connection"), "close");
        }
    }
    // A client that reads only when it has sent everything.
    let mut wire = Wire::to(&service.url).await;
    let head = format!(
        "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert!(wire.send(head + &body).await, "reset while sending");
    assert_eq!(wire.answer().await.unwrap().status, 413);
    assert!(wire.answer().await.is_none(), "closed");
}

/// What an attacker wants answered as a request of its own.
const SMUGGLED: &str = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_request_whose_end_is_in_doubt_is_refused_and_the_connection_closed() {
    let (issuer, service) = world().await;
    // Good where it is read as one request: `BODY` of `LEN` bytes, `HEX` in hexadecimal.
    let body = json!({"session_token": issuer.token()}).to_string();
    let (length, hex) = (body.len().to_string(), format!("{:x}", body.len()));
    let with = |headers: &str, body: &str| {
        format!(
            "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}{SMUGGLED}"
        )
    };
    let chunked = |body: &str| with("transfer-encoding: chunked", body);
    let cases = [
        // Two lengths (RFC 9112 §6.3).
        with("content-length: LEN\r\ncontent-length: 3", "BODY "),
        with("content-length: LEN, 3", "BODY "),
        with("content-length: +LEN", "BODY"),
        with("content-length: -LEN", "BODY"),
        with("content-length: 0xHEX", "BODY"),
        with("content-length: LEN LEN", "BODY"),
        with("content-length: LEN;", "BODY"),
        with("content-length: 1e1", "BODY"),
        with("content-length: 18446744073709551618", "BODY"),
        with("content-length: \"LEN\"", "BODY"),
        with("content-length:", "BODY"),
        with("content-length : LEN", "BODY"),
        with("content-length\t: LEN", "BODY"),
        // A coding that is not understood, or not the last one.
        format!(
            "POST {EXCHANGE} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
        ),
        with("transfer-encoding: gzip", "BODY"),
        with("transfer-encoding: xchunked", "HEX\r\nBODY\r\n0\r\n\r\n"),
        with("transfer-encoding: identity", "BODY"),
        with(
            "transfer-encoding: chunked, identity",
            "HEX\r\nBODY\r\n0\r\n\r\n",
        ),
        with(
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            "HEX\r\nBODY\r\n0\r\n\r\n",
        ),
        with("transfer-encoding: \"chunked\"", "HEX\r\nBODY\r\n0\r\n\r\n"),
        with(
            "transfer-encoding: chun\u{b}ked",
            "HEX\r\nBODY\r\n0\r\n\r\n",
        ),
        with("transfer-encoding : chunked", "HEX\r\nBODY\r\n0\r\n\r\n"),
        // Chunks that do not add up (RFC 9112 §7.1).
        chunked("x\r\nBODY\r\n0\r\n\r\n"),
        chunked("-HEX\r\nBODY\r\n0\r\n\r\n"),
        chunked("+HEX\r\nBODY\r\n0\r\n\r\n"),
        chunked("0xHEX\r\nBODY\r\n0\r\n\r\n"),
        chunked("HEX HEX\r\nBODY\r\n0\r\n\r\n"),
        chunked("1\r\nBODY\r\n0\r\n\r\n"),
        chunked("100000000000000HEX\r\nBODY\r\n0\r\n\r\n"),
        chunked("\r\nBODY\r\n0\r\n\r\n"),
        chunked("HEX;\nBODY\r\n0\r\n\r\n"),
        chunked("HEX\nBODY\n0\n\n"),
        chunked("HEX\rBODY\r0\r\r"),
        chunked("HEX\r\nBODY0\r\n\r\n"),
        // Lines that readers end in different places (RFC 9112 §2.2, §5.2).
        with("x: y\r\n z\r\ncontent-length: LEN", "BODY"),
        with("x: y\rcontent-length: LEN", "BODY"),
        with("x: y\0\r\ncontent-length: LEN", "BODY"),
        with(" content-length: LEN", "BODY"),
        with("no colon\r\ncontent-length: LEN", "BODY"),
        with(": no name\r\ncontent-length: LEN", "BODY"),
        with("x y: z\r\ncontent-length: LEN", "BODY"),
        format!("POST {EXCHANGE} HTTP/1.1\r\n x: y\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE} HTTP/1.1 \r\n\r\n{SMUGGLED}"),
        format!("POST  {EXCHANGE}  HTTP/1.1\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE}\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE} HTTP/1.2\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE} HTTP/0.9\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE} HTTP/11.1\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE} http/1.1\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("POST {EXCHANGE}\0 HTTP/1.1\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("PO ST {EXCHANGE} HTTP/1.1\r\nhost: x\r\n\r\n{SMUGGLED}"),
        format!("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}{SMUGGLED}"),
    ];
    for case in cases {
        let request = case
            .replace("BODY", &body)
            .replace("LEN", &length)
            .replace("HEX", &hex);
        let mut wire = Wire::to(&service.url).await;
        wire.send(request).await;
        if let Some(answer) = wire.answer().await {
            assert_eq!(answer.status, 400, "{case:?}: {}", answer.body);
            assert!(wire.answer().await.is_none(), "{case:?}: two answers");
        }
    }
    // RFC 9112 §6.3 lets a server take the chunks for the body, if it closes after its answer.
    for headers in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
        "content-length: 0\r\ntransfer-encoding: chunked".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: 70000".to_owned(),
    ] {
        let mut wire = Wire::to(&service.url).await;
        wire.send(with(&headers, &format!("{hex}\r\n{body}\r\n0\r\n\r\n")))
            .await;
        let answers = wire.answers().await;
        assert!(answers.len() <= 1, "{headers:?}: {answers:?}");
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

#[tokio::test]
async fn a_request_says_once_which_host_it_is_for() {
    let (_issuer, service) = world().await;
    // RFC 9112 §3.2, both listeners.
    for (url, path) in [(&service.url, JWKS), (&service.admin, "/livez")] {
        for (version, hosts, status) in [
            ("1.1", "host: x\r\n", 200),
            ("1.1", "host:\r\n", 200),
            ("1.1", "", 400),
            ("1.1", "host: x\r\nhost: x\r\n", 400),
            ("1.1", "host: x\r\nx: y\r\nHost: evil.example\r\n", 400),
            ("1.0", "", 200),
            ("1.0", "host: x\r\n", 200),
            ("1.0", "host: x\r\nhost: y\r\n", 400),
        ] {
            let request = format!("GET {path} HTTP/{version}\r\n{hosts}\r\n");
            let mut wire = Wire::to(url).await;
            wire.send(&request).await;
            let answer = wire.answer().await.unwrap();
            assert_eq!(answer.status, status, "{request:?}");
            if status == 400 {
                assert_eq!(answer.body, "", "{request:?}");
                assert_eq!(answer.header("connection"), "close", "{request:?}");
                assert!(wire.answer().await.is_none(), "{request:?}: it is closed");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_in_their_order() {
    let (issuer, service) = world().await;
    let body = json!({"session_token": issuer.token()}).to_string();
    let exchange = |id: usize| {
        format!(
            "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut wire = Wire::to(&service.url).await;
    for id in 0..5 {
        wire.send(exchange(id)).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-request-id")),
            (200, &*id.to_string())
        );
    }
    // All at once, good and bad, one of them in two pieces (RFC 9112 §9.3.2).
    let bad = format!("GET {EXCHANGE} HTTP/1.1\r\nhost: x\r\nx-request-id: bad\r\n\r\n");
    let last = exchange(9);
    let (half, rest) = last.split_at(last.len() - 20);
    wire.send([&exchange(7), &bad, &exchange(8), half].concat())
        .await;
    for (id, status) in [("7", 200), ("bad", 405), ("8", 200)] {
        let answer = wire.answer().await.unwrap();
        assert_eq!((answer.header("x-request-id"), answer.status), (id, status));
    }
    wire.send(rest).await;
    assert_eq!(wire.answer().await.unwrap().header("x-request-id"), "9");
    wire.send(exchange(10).replace("host: x", "host: x\r\nconnection: close"))
        .await;
    let answers = wire.answers().await;
    assert_eq!(answers.len(), 1, "and closes when asked to");
    // HTTP/1.0 closes unless asked not to.
    let mut wire = Wire::to(&service.url).await;
    wire.send(format!("GET {JWKS} HTTP/1.0\r\n\r\n")).await;
    let answers = wire.answers().await;
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.status)
            .collect::<Vec<_>>(),
        [200]
    );
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge() {
    let (issuer, service) = world().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let token = issuer.token();
    let exchange = |body: String| {
        client
            .post(format!("{}{EXCHANGE}", service.url))
            .header("content-type", "application/json")
            .body(body)
    };
    let good = json!({"session_token": token}).to_string();
    let answers =
        futures_util::future::join_all((0..200).map(|_| service.send(exchange(good.clone()))))
            .await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let version = exchange(good.clone()).send().await.unwrap().version();
    assert_eq!(version, reqwest::Version::HTTP_2);
    let refused = service.send(exchange("{}".to_owned())).await;
    refused.assert_refused(400, "credential_missing");
    let large = service.send(exchange(" ".repeat(70_000))).await;
    large.assert_refused(413, "body_too_large");
    let hosts = client
        .get(format!("{}{JWKS}", service.url))
        .header("host", "auth.example.com")
        .header("host", "other.example.com");
    // As whatever is no HTTP, it gets no document.
    assert_eq!(hosts.send().await.unwrap().status(), 400);
    let header = client
        .get(format!("{}{JWKS}", service.url))
        .header("x-pad", "a".repeat(33 * 1024));
    service
        .send(header)
        .await
        .assert_refused(431, "headers_too_large");
    assert_eq!(service.send(exchange(good)).await.status, 200);
}

/// How a connection ends that never sends a whole request: its last answer, and after how long.
async fn stalled(
    url: String,
    sent: Vec<String>,
    drip: Option<&'static str>,
) -> (Option<Answer>, Duration) {
    let began = Instant::now();
    let mut wire = Wire::to(&url).await;
    for part in sent {
        wire.send(part).await;
    }
    let ended = async {
        loop {
            match drip {
                None => break wire.answer().await,
                Some(byte) => {
                    // Alive all the time, and never done.
                    let slice = Duration::from_millis(500);
                    match tokio::time::timeout(slice, wire.answer()).await {
                        Ok(answer) => break answer,
                        Err(_) => {
                            wire.send(byte).await;
                        }
                    }
                }
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(25), ended)
        .await
        .expect("held open for 25 s");
    (answer, began.elapsed())
}

#[tokio::test]
async fn whoever_never_finishes_a_request_is_cut_off_after_ten_seconds() {
    let (issuer, service) = world().await;
    let head = format!("POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\n");
    let body = format!("{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n");
    let whole = format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n");
    let start = |sent: Vec<String>, drip| tokio::spawn(stalled(service.url.clone(), sent, drip));
    let heads = [
        start(vec![], None),
        start(vec!["P".to_owned()], None),
        start(vec!["PRI * HTTP/2.0\r\n".to_owned()], None),
        start(vec![head.clone()], None),
        start(vec![head.clone()], Some("x-a: b\r\n")),
        start(vec![format!("{head}x: ")], Some("a")),
    ];
    let bodies = [
        start(vec![body.clone()], None),
        start(vec![body], Some(" ")),
        start(vec![chunked.clone()], None),
        start(vec![chunked], Some("1\r\n \r\n")),
    ];
    // The second request of a connection is no better.
    let second = tokio::spawn({
        let url = service.url.clone();
        async move {
            let mut wire = Wire::to(&url).await;
            wire.send(whole).await;
            assert_eq!(wire.answer().await.unwrap().status, 200);
            let began = Instant::now();
            wire.send(head).await;
            let ended = tokio::time::timeout(Duration::from_secs(25), wire.answer()).await;
            (ended.expect("held open for 25 s"), began.elapsed())
        }
    });
    let at_least = Duration::from_secs(8);
    for (index, stalled) in heads.into_iter().chain([second]).enumerate() {
        let (answer, took) = stalled.await.unwrap();
        let status = answer.map(|answer| answer.status);
        assert!(
            matches!(status, None | Some(408)),
            "head {index}: {status:?}"
        );
        assert!(took >= at_least, "head {index} cut off after {took:?}");
    }
    for (index, stalled) in bodies.into_iter().enumerate() {
        let (answer, took) = stalled.await.unwrap();
        let answer = answer.unwrap_or_else(|| panic!("body {index}"));
        answer.assert_refused(408, "request_timeout");
        assert!(took >= at_least, "body {index} cut off after {took:?}");
    }
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

#[tokio::test]
async fn what_is_in_flight_ends_well_when_the_service_stops() {
    let issuer = Issuer::start().await;
    issuer.behave(issuer::JWKS, Behaviour::Late(Duration::from_secs(2)));
    let mut service = Service::trusting(&issuer).await;
    let mut idle = Wire::to(&service.url).await;
    idle.send(format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    let mut silent = Wire::to(&service.url).await;
    let body = json!({"session_token": issuer.token()}).to_string();
    let mut busy = Wire::to(&service.url).await;
    busy.send(format!(
        "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    eventually("the request is in flight", async || {
        service.metric("exchequer_requests_in_flight").await == Some(1.0)
    })
    .await;
    service.signal("TERM");
    eventually("the probe says so", async || {
        let ready = service.admin("/readyz").await;
        (ready.status, ready.body) == (503, json!("draining\n"))
    })
    .await;
    eventually("new connections are refused", async || {
        tokio::net::TcpStream::connect(service.url.trim_start_matches("http://"))
            .await
            .is_err()
    })
    .await;
    assert_eq!(
        service.admin("/livez").await.status,
        200,
        "draining is not dead"
    );
    // While the request is still waiting, the idle connections are let go.
    assert!(idle.answer().await.is_none());
    assert!(silent.answer().await.is_none());
    assert_eq!(
        service.metric("exchequer_requests_in_flight").await,
        Some(1.0)
    );
    let answer = busy.answer().await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(busy.answer().await.is_none(), "and then closed");
    assert_eq!(service.ended().await, Some(0));
    for message in ["draining", "stopped"] {
        assert_eq!(service.logged(message).len(), 1, "{message}");
    }
}

#[tokio::test]
async fn after_sigterm_it_serves_on_while_balancers_leave_it_and_sends_everybody_away_politely() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_SHUTDOWN_DELAY", "4s")
        .start()
        .await;
    let ask = format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut known = Wire::to(&service.url).await;
    known.send(&ask).await;
    let answer = known.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, ""));
    service.signal("TERM");
    eventually("the probe says so", async || {
        service.admin("/readyz").await.status == 503
    })
    .await;
    let mut new = Wire::to(&service.url).await;
    for wire in [&mut known, &mut new] {
        wire.send(&ask).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
        assert!(wire.answer().await.is_none(), "and closed");
    }
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn a_person_who_interrupts_it_does_not_wait_for_balancers() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_SHUTDOWN_DELAY", "5m")
        .start()
        .await;
    service.signal("INT");
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn a_service_with_nothing_to_do_stops_at_once() {
    for name in ["TERM", "INT"] {
        let issuer = Issuer::start().await;
        let mut service = Service::trusting(&issuer).await;
        assert_eq!(service.session(&issuer.token()).await.status, 200);
        service.signal(name);
        assert_eq!(service.ended().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn idle_connections_do_not_disturb() {
    let (issuer, service) = world().await;
    let mut idle = Vec::new();
    for index in 0..500 {
        let mut wire = Wire::to(&service.url).await;
        if index % 2 == 0 {
            wire.send("POST /auth/exch").await;
        }
        idle.push(wire);
    }
    for _ in 0..20 {
        assert_eq!(service.session(&issuer.token()).await.status, 200);
    }
    let open = service.metric("exchequer_connections").await.unwrap();
    assert!(open >= 500.0, "{open}");
    drop(idle);
    eventually("they are forgotten", async || {
        service.metric("exchequer_connections").await.unwrap() < 10.0
    })
    .await;
}

#[tokio::test]
async fn clients_that_hang_up_leave_nothing_behind() {
    let issuer = Issuer::start().await;
    issuer.behave(issuer::JWKS, Behaviour::Late(Duration::from_secs(1)));
    let service = Service::trusting(&issuer).await;
    let body = json!({"session_token": issuer.token()}).to_string();
    let request = format!(
        "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for end in [10, 100, request.len() - 1, request.len()] {
        for _ in 0..10 {
            let mut wire = Wire::to(&service.url).await;
            wire.send(&request[..end]).await;
        }
    }
    // They were the ones to begin the fetch; it goes on without them.
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.asked(issuer::JWKS), 1);
    eventually("nothing is in flight", async || {
        service.metric("exchequer_requests_in_flight").await == Some(0.0)
            && service.metric("exchequer_connections").await.unwrap() <= 1.0
    })
    .await;
}
