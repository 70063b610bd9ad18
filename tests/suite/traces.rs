//! Traces as a collector gets them: whole spans, nothing secret in them, and nobody who waits for a
//! collector.

use crate::support::collector::Span;
use crate::support::command::Ended;
use crate::support::service::Builder;
use crate::support::{
    Answer, Behaviour, Collector, Command, Issuer, Key, Service, Token, eventually, now,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SECRET_KEY: &str = "sk_test_scripted";

/// All that a span may say.
const ALLOWED: [&str; 12] = [
    "error.type",
    "exchequer.alg",
    "exchequer.app",
    "exchequer.issuer",
    "exchequer.store",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "server.address",
    "server.port",
    "url.path",
    "url.scheme",
];

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A service that sends its traces there soon.
fn traced(issuer: &Issuer, collector: &str) -> Builder {
    Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
}

async fn world() -> (Issuer, Collector, Service) {
    let (issuer, collector) = (Issuer::start().await, Collector::start().await);
    let service = traced(&issuer, &collector.url).start().await;
    // Whoever comes sooner waits for them, and its trace says so.
    service.has_keys_of(&issuer).await;
    (issuer, collector, service)
}

/// An exchange with these headers.
async fn exchange(service: &Service, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let mut request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.send(request).await
}

/// The trace that the log line of an exchange names.
async fn logged_trace(service: &Service, answer: &Answer) -> String {
    let id = answer.header("x-request-id");
    let line = || {
        let lines = service.logged("exchanged");
        lines.into_iter().find(|line| line["request_id"] == id)
    };
    eventually("the line is written", async || line().is_some()).await;
    line().unwrap()["trace_id"].as_str().unwrap().to_owned()
}

/// `name=value` of what a span says, in the order of the names.
fn said(span: &Span) -> Vec<String> {
    let said = span.attributes.iter();
    said.map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no span {name:?} in {spans:#?}"))
}

/// The name of a span and of its parent, in the order in which they began.
fn tree(spans: &[Span]) -> Vec<(&str, &str)> {
    let name = |id: &str| {
        let found = spans.iter().find(|span| span.id == id);
        found.map_or("", |span| span.name.as_str())
    };
    let tree = spans.iter();
    tree.map(|span| (span.name.as_str(), name(&span.parent)))
        .collect()
}

const SERVER: &str = "POST /auth/exchange";

#[tokio::test]
async fn an_exchange_of_a_session_id_shows_whom_it_waited_for_at_each_receiver() {
    for kind in Collector::kinds() {
        let collector = Collector::of(kind).await;
        let issuer = Issuer::start().await;
        let port = issuer.url.rsplit_once(':').unwrap().1.to_owned();
        let keys = json!({"keys": [Key::rsa().jwk("ins_1")]});
        issuer.behave("/v1/jwks", Behaviour::Answer(200, keys.to_string()));
        let session = json!({
            "object": "session", "id": "sess_1", "user_id": "user_1", "status": "active",
            "created_at": now() * 1000, "last_active_at": now() * 1000,
            "expire_at": (now() + 3600) * 1000,
        });
        let path = "/v1/sessions/sess_1";
        issuer.behave(path, Behaviour::Answer(200, session.to_string()));
        let service = traced(&issuer, &collector.url)
            .env("CLERK_SECRET_KEY", SECRET_KEY)
            .env("CLERK_API_URL", &issuer.url)
            .start()
            .await;
        let began = now();
        let body = json!({"session_id": "sess_1"});
        exchange(&service, &body, &[]).await.token();
        let spans = collector.trace(SERVER).await;
        let steps: Vec<(&str, &str)> = [
            (SERVER, ""),
            ("store ask", SERVER),
            ("GET", SERVER),
            ("GET", SERVER),
            ("store ask", SERVER),
            ("sign", SERVER),
            ("store commit", SERVER),
        ]
        .into();
        assert_eq!(tree(&spans), steps, "{kind:?}");
        let server = &spans[0];
        assert_eq!(
            said(server),
            [
                "exchequer.app=default".to_owned(),
                format!("exchequer.issuer={}", issuer.url),
                "http.request.method=POST".to_owned(),
                "http.response.status_code=200".to_owned(),
                "http.route=/auth/exchange".to_owned(),
                "url.path=/auth/exchange".to_owned(),
                "url.scheme=http".to_owned(),
            ]
        );
        for call in spans.iter().filter(|span| span.name == "GET") {
            assert_eq!(
                said(call),
                [
                    "http.request.method=GET".to_owned(),
                    "http.response.status_code=200".to_owned(),
                    "server.address=127.0.0.1".to_owned(),
                    format!("server.port={port}"),
                ]
            );
            // Who is asked hangs its spans below this one.
            let told = format!("traceparent: 00-{}-{}-01", call.trace, call.id);
            let heads = issuer.requests();
            assert!(heads.iter().any(|head| head.contains(&told)), "{heads:?}");
        }
        assert_eq!(said(named(&spans, "store ask")), ["exchequer.store=file"]);
        assert_eq!(
            said(named(&spans, "store commit")),
            ["exchequer.store=file"]
        );
        assert_eq!(said(named(&spans, "sign")), ["exchequer.alg=ES256"]);
        for span in &spans {
            let kind = match span.name.as_str() {
                SERVER => 2,
                "GET" => 3,
                _ => 1,
            };
            assert_eq!((span.kind, span.status), (kind, 0), "{span:?}");
            assert!(server.start <= span.start && span.start <= span.end);
            assert!(span.end <= server.end, "{span:?}");
            let began = u64::try_from(began - 1).unwrap() * 1_000_000_000;
            assert!(span.start > began, "{span:?}");
            assert_eq!(span.state, "");
        }
        let resource: Vec<_> = server.resource.iter().collect();
        assert_eq!(server.resource["service.name"], "exchequer");
        assert_eq!(
            server.resource["service.version"],
            env!("CARGO_PKG_VERSION")
        );
        let names: Vec<&str> = resource.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "service.name",
                "service.version",
                "telemetry.sdk.language",
                "telemetry.sdk.name",
                "telemetry.sdk.version"
            ]
        );
    }
}

#[tokio::test]
async fn who_waits_for_a_key_set_shows_it() {
    let issuer = Issuer::start().await;
    // The fetch at the start is under way when the request comes.
    let late = Behaviour::Late(Duration::from_secs(2));
    issuer.behave(crate::support::issuer::JWKS, late);
    let collector = Collector::start().await;
    let service = traced(&issuer, &collector.url).start().await;
    let token = issuer.token();
    assert_eq!(service.session(&token).await.status, 200);
    let spans = collector.trace(SERVER).await;
    let wait = named(&spans, "fetch key set");
    assert_eq!(wait.parent, named(&spans, SERVER).id);
    assert_eq!(said(wait), [format!("exchequer.issuer={}", issuer.url)]);
    assert_eq!((wait.kind, wait.status), (1, 0));
    // A fetch for a `kid` that nobody knows is this request's own, and fails for it.
    issuer.behave(
        crate::support::issuer::JWKS,
        Behaviour::Answer(500, "{}".to_owned()),
    );
    service.shift_clocks(60, 60);
    let unknown = Token::clerk(&issuer.url)
        .claim("exp", now() + 600)
        .header("kid", "ins_9")
        .sign(Key::rsa());
    let answer = exchange(
        &service,
        &json!({"session_token": unknown}),
        &[("traceparent", &parent("01"))],
    )
    .await;
    answer.assert_refused(503, "issuer_keys_unavailable");
    let own = async || {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace == TRACE);
        spans
    };
    eventually("it arrives", async || {
        own().await.iter().any(|span| span.name == SERVER)
    })
    .await;
    let spans = own().await;
    let wait = named(&spans, "fetch key set");
    assert_eq!(wait.attribute("error.type"), "issuer_keys_unavailable");
    assert_eq!(wait.status, 2);
    let server = named(&spans, SERVER);
    assert_eq!(server.attribute("error.type"), "issuer_keys_unavailable");
    assert_eq!(server.attribute("http.response.status_code"), "503");
    assert_eq!(server.status, 2);
    // The discovery and the key set were asked for in its name.
    let calls: Vec<&Span> = spans.iter().filter(|span| span.name == "GET").collect();
    assert!(!calls.is_empty(), "{spans:#?}");
    let failed = calls.iter().find(|call| call.status == 2).unwrap();
    assert_eq!(failed.attribute("error.type"), "500");
    assert!(calls.iter().all(|call| call.parent == server.id));
}

#[tokio::test]
async fn a_refusal_says_its_code_and_is_no_error_of_ours() {
    let (issuer, collector, service) = world().await;
    let expired = Token::clerk(&issuer.url).claim("exp", 1).sign(Key::rsa());
    assert_eq!(service.session(&expired).await.status, 401);
    let spans = collector.trace(SERVER).await;
    let server = named(&spans, SERVER);
    assert_eq!(server.attribute("error.type"), "subject_token_expired");
    assert_eq!(server.attribute("http.response.status_code"), "401");
    assert_eq!(server.status, 0);
    assert_eq!(tree(&spans), [(SERVER, "")]);
}

#[tokio::test]
async fn the_callers_trace_goes_on_in_the_span_and_in_the_log() {
    let (issuer, collector, service) = world().await;
    let body = json!({"session_token": issuer.token()});
    let state = "vendor=opaque,other=1";
    let headers = [
        ("traceparent", parent("01")),
        ("tracestate", state.to_owned()),
    ];
    let headers = headers
        .each_ref()
        .map(|(name, text)| (*name, text.as_str()));
    let answer = exchange(&service, &body, &headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("traceparent"), parent("01"));
    let spans = collector.trace(SERVER).await;
    let server = named(&spans, SERVER);
    assert_eq!(
        (server.trace.as_str(), server.parent.as_str()),
        (TRACE, CALLER)
    );
    assert!(spans.iter().all(|span| span.state == state), "{spans:#?}");
    assert_eq!(logged_trace(&service, &answer).await, TRACE);

    // A caller that keeps its trace to itself is followed: nothing is kept, the log still tells.
    let answer = exchange(&service, &body, &[("traceparent", &parent("00"))]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(logged_trace(&service, &answer).await, TRACE);
    // What is wrong is no parent: a trace of its own begins, and the log names that.
    let mut ids = BTreeSet::from([TRACE.to_owned()]);
    let wrong = [
        format!("00-{TRACE}-{CALLER}"),
        format!("00-{}-{CALLER}-01", "0".repeat(32)),
        format!("ff-{TRACE}-{CALLER}-01"),
        "x".to_owned(),
    ];
    for wrong in wrong {
        let answer = exchange(&service, &body, &[("traceparent", &wrong)]).await;
        assert!(!answer.headers.contains_key("traceparent"), "{wrong}");
        let trace = logged_trace(&service, &answer).await;
        eventually("its span arrives", async || {
            let spans = collector.spans();
            let mut servers = spans.iter().filter(|span| span.trace == trace);
            servers.any(|span| span.name == SERVER && span.parent.is_empty())
        })
        .await;
        assert!(ids.insert(trace), "{wrong}");
    }
    let servers = collector.spans();
    let servers = servers.iter().filter(|span| span.name == SERVER);
    assert_eq!(servers.filter(|span| span.trace == TRACE).count(), 1);
}

#[tokio::test]
async fn whatever_is_sent_a_span_says_only_what_is_allowed() {
    let collector = Collector::start().await;
    let issuer = Issuer::start().await;
    let service = traced(&issuer, &collector.url)
        .env("EXCHEQUER_RATE_LIMIT", "on")
        .start()
        .await;
    let token = issuer.token();
    let mine = "203.0.113.77";
    assert_eq!(service.session(&token).await.status, 200);
    let client = &service.client;
    for request in [
        client.get(format!("{}/{token}?state={token}", service.url)),
        client.get(format!(
            "{}/auth/login/{token}?email=a@example.org",
            service.url
        )),
        client.get(format!(
            "{}/auth/callback/x?code=mycode&state={token}",
            service.url
        )),
        client.post(format!("{}/webhooks/clerk/user_2abcdefghijk", service.url)),
        client.get(format!("{}/auth/verify?app=user_2abcdefghijk", service.url)),
        client
            .get(format!("{}/auth/verify", service.url))
            .bearer_auth(&token),
        client
            .post(format!("{}/oauth/token", service.url))
            .basic_auth("mycode", Some("sk_test_0123456789abc"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials"),
        client.request(
            "MYCODE".parse().unwrap(),
            format!("{}/auth/exchange", service.url),
        ),
        client
            .post(format!("{}/auth/exchange", service.url))
            .header("user-agent", "mycode")
            .header("x-forwarded-for", mine)
            .header("tracestate", format!("x={token}"))
            .header("baggage", "who=mycode")
            .bearer_auth(&token),
    ] {
        service.send(request).await;
    }
    eventually("all arrive", async || {
        let spans = collector.spans();
        spans.iter().filter(|span| span.kind == 2).count() == 10
    })
    .await;
    let names: BTreeSet<String> = collector
        .spans()
        .into_iter()
        .filter(|span| span.kind == 2)
        .map(|span| span.name)
        .collect();
    let expected = [
        "GET",
        "GET /auth/callback/{provider}",
        "GET /auth/login/{provider}",
        "GET /auth/verify",
        "HTTP /auth/exchange",
        "POST /auth/exchange",
        "POST /oauth/token",
        "POST /webhooks/clerk/{app}",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());
    for span in collector.spans() {
        for name in span.attributes.keys() {
            assert!(ALLOWED.contains(&name.as_str()), "{name} of {span:?}");
        }
    }
    // The collector's end looks for tokens and user ids in all of it; these no rule knows.
    for line in collector.lines() {
        for secret in ["mycode", mine, "example.org", "sess_1", &token] {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
}

#[tokio::test]
async fn probes_have_no_spans_and_without_a_collector_nobody_has() {
    let (issuer, collector, service) = world().await;
    service.get("/healthz").await;
    service.admin("/readyz").await;
    service.get("/.well-known/jwks.json").await;
    collector.trace("GET /.well-known/jwks.json").await;
    assert_eq!(collector.spans().len(), 1, "{:#?}", collector.spans());
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ] {
        let mut service = traced(&issuer, &collector.url)
            .env(name, value)
            .start()
            .await;
        assert_eq!(service.session(&issuer.token()).await.status, 200);
        service.signal("TERM");
        assert_eq!(service.ended().await, Some(0), "{name}");
        assert_eq!(collector.spans().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_waits_is_exported_before_the_end() {
    let (issuer, collector) = (Issuer::start().await, Collector::start().await);
    let mut service = traced(&issuer, &collector.url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "60000")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "k8s.pod.name=a%2Cb,service.name=x",
        )
        .env("OTEL_SERVICE_NAME", "front door")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    let spans = collector.trace(SERVER).await;
    let resource = &named(&spans, SERVER).resource;
    assert_eq!(resource["k8s.pod.name"], "a,b");
    assert_eq!(resource["service.name"], "front door");
    assert_eq!(
        collector.exports()[0]["authorization"],
        json!(["Bearer abc"])
    );
    let log = service.log().join("\n");
    assert!(
        !log.contains("Bearer abc") && !log.contains("Bearer%20abc"),
        "{log}"
    );
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_and_not_the_end() {
    let issuer = Issuer::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let mut service = traced(&issuer, &url)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
        .env("OTEL_BSP_EXPORT_TIMEOUT", "60000")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        .start()
        .await;
    let token = issuer.token();
    for _ in 0..20 {
        assert_eq!(service.session(&token).await.status, 200);
    }
    let dropped = service
        .metric("exchequer_spans_total{result=\"dropped\"}")
        .await;
    assert!(dropped.unwrap() >= 30.0, "{dropped:?}");
    let began = Instant::now();
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    // Its own bounds would have let it wait for a minute.
    assert!(began.elapsed() < Duration::from_secs(20));
    held.abort();
}

#[tokio::test]
async fn a_collector_that_is_down_is_told_of_once_and_counted() {
    let issuer = Issuer::start().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let service = traced(&issuer, &url)
        .env("OTEL_BSP_EXPORT_TIMEOUT", "100")
        .start()
        .await;
    let token = issuer.token();
    let failed = "exchequer_spans_total{result=\"failed\"}";
    for wanted in [3.0, 6.0] {
        assert_eq!(service.session(&token).await.status, 200);
        eventually("the loss is counted", async || {
            service
                .metric(failed)
                .await
                .is_some_and(|count| count >= wanted)
        })
        .await;
    }
    let told = service.logged("traces cannot be exported");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["level"], "WARN");
}

/// `check` with these variables beside a Clerk instance.
fn check(variables: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    variables
        .iter()
        .fold(Command::new(dir.path()), |command, (name, value)| {
            command.env(name, value)
        })
        .env("CLERK_JWT_ISSUER", "https://clerk.example.com")
        .run(&["check"])
}

#[test]
fn what_is_wrong_or_unknown_is_named_and_never_stops_the_start() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    for ((name, value), says) in [
        (
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            "no http or https URL",
        ),
        (
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://u:hunter2@c"),
            "no http or https URL",
        ),
        (
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            "port 4317",
        ),
        (
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            "\"grpc\" is not spoken here",
        ),
        (
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            "is not spoken here",
        ),
        (
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,hunter2"),
            "item 2 is no name=value",
        ),
        (
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=hunter2"),
            "item 1 is no name=value",
        ),
        (
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            "is no number from 1 to 60000: 10000 is used",
        ),
        (("OTEL_RESOURCE_ATTRIBUTES", "x"), "item 1 is no name=value"),
        (
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            "parentbased_always_on is used",
        ),
        (("OTEL_SDK_DISABLED", "yes"), "is neither true nor false"),
        (
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            "is neither otlp nor none",
        ),
        (
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            "is no number from 1 to 65536: 2048 is used",
        ),
        (
            ("OTEL_BSP_SCHEDULE_DELAYS", "5"),
            "did you mean \"OTEL_BSP_SCHEDULE_DELAY\"?",
        ),
        (
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            "SSL_CERT_FILE",
        ),
        (("OTEL_METRICS_EXPORTER", "otlp"), "has no effect"),
        (("OTEL_PROPAGATORS", "b3"), "has no effect"),
    ] {
        let ended = check(&[endpoint, (name, value)]);
        assert_eq!(ended.code, 0, "{name}: {ended:?}");
        let note = format!("note:  {name}: ");
        let mut notes = ended.stdout.lines().filter(|line| line.starts_with(&note));
        let said = notes.next().unwrap_or_else(|| panic!("{name}: {ended:?}"));
        assert!(said.contains(says), "{said}");
        assert_eq!(notes.next(), None, "{name}: {ended:?}");
        assert!(!ended.stdout.contains("hunter2"), "{ended:?}");
    }
    let share = [
        endpoint,
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    assert!(
        check(&share)
            .stdout
            .contains("OTEL_TRACES_SAMPLER_ARG: \"2\" is no number from 0 to 1")
    );
    let well = check(&[
        endpoint,
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    assert!(!well.stdout.contains("OTEL_"), "{well:?}");
    assert!(
        well.stdout
            .contains("ok:    traces to http://collector:4318\n"),
        "{well:?}"
    );
    assert!(!check(&[]).stdout.contains("traces"));
}

#[test]
fn the_headers_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers");
    std::fs::write(&file, "authorization=Bearer%20abc\n").unwrap();
    let file = file.display().to_string();
    let ended = check(&[("OTEL_EXPORTER_OTLP_HEADERS_FILE", &file)]);
    assert_eq!(ended.code, 0);
    assert!(!ended.stdout.contains("OTEL_"), "{ended:?}");
}
