//! Behind real gateways, configured as in `examples/`: who has a good token gets to the backend
//! with its identity, who has none gets our refusal, and no client names itself.

use crate::support::{Answer, Foreign, Issuer, Service, eventually, now};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const IDENTITY: [&str; 8] = [
    "x-app",
    "x-user-id",
    "x-org-id",
    "x-roles",
    "x-scopes",
    "x-rate-limit-key",
    "x-client-id",
    "x-signature",
];

/// A backend that answers what it was asked: method, target, headers and body.
pub struct Backend {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    echo(request)
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn echo(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<bytes::Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut headers = json!({});
    for (name, value) in &head.headers {
        let all = headers[name.as_str()].take();
        let value = value.to_str().unwrap();
        // A header that comes twice is seen twice.
        headers[name.as_str()] = match all.as_str() {
            None => json!(value),
            Some(first) => json!(format!("{first} and {value}")),
        };
    }
    let body = body.collect().await.unwrap().to_bytes();
    let seen = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8(body.to_vec()).unwrap(),
    });
    Ok(http::Response::new(Full::new(seen.to_string().into())))
}

/// A gateway that runs until dropped.
pub struct Gateway {
    pub url: String,
    process: Child,
    _dir: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // nginx has a worker to take along.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Nginx,
    Envoy,
}

impl Gateway {
    pub async fn start(kind: Kind, service: &Service, backend: &Backend) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let port = |url: &str| url.rsplit_once(':').unwrap().1.to_owned();
        let (ours, theirs) = (port(&service.url), backend.address.port().to_string());
        let folder = dir.path().display().to_string();
        let adapt = |text: &str| {
            text.replace("127.0.0.1:8080", &format!("127.0.0.1:{ours}"))
                .replace("127.0.0.1:3000", &format!("127.0.0.1:{theirs}"))
                .replace("127.0.0.1:8000", &address.to_string())
                .replace("port_value: 8080", &format!("port_value: {ours}"))
                .replace("port_value: 3000", &format!("port_value: {theirs}"))
                .replace(
                    "port_value: 8000",
                    &format!("port_value: {}", address.port()),
                )
                .replace("/etc/nginx", &folder)
        };
        let copy = |example: &str| {
            let source = Path::new(ROOT).join("examples").join(example);
            let target = dir.path().join(source.file_name().unwrap());
            std::fs::write(&target, adapt(&std::fs::read_to_string(source).unwrap())).unwrap();
            target
        };
        let mut command = match kind {
            Kind::Nginx => {
                for part in ["conf", "identity", "question"] {
                    copy(&format!("nginx/exchequer.{part}"));
                }
                std::fs::write(dir.path().join("nginx.conf"), nginx(&folder)).unwrap();
                let mut command = Command::new("nginx");
                command.env(
                    "PATH",
                    "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
                );
                command.args([
                    "-p",
                    &folder,
                    "-e",
                    "stderr",
                    "-c",
                    &format!("{folder}/nginx.conf"),
                ]);
                command
            }
            Kind::Envoy => {
                let config = copy("envoy/exchequer.yaml");
                let program = Path::new(ROOT).join("tests/interop/.venv/bin/envoy");
                assert!(program.exists(), "run tests/interop/install.sh");
                let mut command = Command::new(program);
                command.arg("--config-path").arg(config).args([
                    "--disable-hot-restart",
                    "--concurrency",
                    "1",
                    "--log-level",
                    "error",
                ]);
                command
            }
        };
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{kind:?}: {error}: run tests/interop/install.sh"));
        let mut gateway = Self {
            url: format!("http://{address}"),
            process,
            _dir: dir,
        };
        eventually("the gateway listens", async || {
            if let Some(status) = gateway.process.try_wait().unwrap() {
                let log = std::fs::read_to_string(gateway._dir.path().join("log")).unwrap();
                panic!("{kind:?} ended with {status}: {log}");
            }
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        gateway
    }
}

/// What a distribution's own nginx.conf does for a site, in a folder of its own.
fn nginx(folder: &str) -> String {
    let temporary: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {folder}/{module};"))
        .to_vec();
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; {} include {folder}/exchequer.conf; }}\n",
        temporary.join(" ")
    )
}

/// A service whose app signs the identity headers.
async fn service(issuer: &Issuer) -> Service {
    let lines = "verify.signing_secret = { env = \"SIGNING_SECRET\" }\n\
                 scopes.\"read:tasks\" = \"task.view\"\nscopes.\"read:reports\" = \"report.view\"";
    Service::builder()
        .env("SIGNING_SECRET", SECRET)
        .one_app(issuer, "", lines)
        .start()
        .await
}

async fn token(service: &Service, issuer: &Issuer, scope: &str) -> String {
    let body = json!({"session_token": issuer.token(), "scope": scope});
    service.exchange(&body).await.token().to_owned()
}

/// A header that says nothing may be left out.
fn header<'a>(seen: &'a Value, name: &str) -> &'a str {
    seen["headers"][name].as_str().unwrap_or_default()
}

fn assert_identity(kind: Kind, answer: &Answer, scopes: &str) {
    assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
    let expected = [
        "web",
        "user_1",
        "org_1",
        "org:admin",
        scopes,
        "org_1:user_1",
    ];
    for (name, value) in IDENTITY.into_iter().zip(expected) {
        assert_eq!(header(&answer.body, name), value, "{kind:?}: {name}");
    }
}

async fn through(kind: Kind) {
    let issuer = Issuer::start().await;
    let service = service(&issuer).await;
    let backend = Backend::start().await;
    let gateway = Gateway::start(kind, &service, &backend).await;
    let token = token(&service, &issuer, "read:tasks").await;
    let mut verifiers = [
        Foreign::start("node", &["identity.mjs"]),
        Foreign::start(".venv/bin/python", &["identity.py"]),
    ];
    let client = &service.client;

    // Every method gets through, with its body, and with the identity of the token.
    for (method, target, body) in [
        ("GET", "/tasks?scope=admin&app=other&x=%2F%20y", ""),
        ("POST", "/tasks", "{\"title\":\"a\"}"),
        ("PUT", "/tasks/1", "b"),
        ("PATCH", "/tasks/1", "c"),
        ("DELETE", "/tasks/1", ""),
        ("OPTIONS", "/tasks", ""),
    ] {
        let hash = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client
            .request(method.clone(), format!("{}{target}", gateway.url))
            .bearer_auth(&token)
            .header("idempotency-key", "k-1")
            // None of this is the client's to say.
            .header("x-user-id", "user_of_another")
            .header("x-user-id", "and_a_second")
            .header("x-org-id", "org_of_another")
            .header("x-roles", "org:owner")
            .header("x-scopes", "admin")
            .header("x-app", "other")
            .header("x-rate-limit-key", "nobody")
            .header("x-client-id", "reports")
            .header("x-signature", "v1,t=1,AAAA")
            .header("x-original-uri", "/harmless")
            .header("x-original-method", "GET")
            .header("x-forwarded-uri", "/harmless")
            .header("x-forwarded-method", "GET");
        if !body.is_empty() {
            request = request
                .header("content-digest", format!("sha-256=:{hash}:"))
                .body(body);
        }
        let answer = service.send(request).await;
        assert_identity(kind, &answer, "read:tasks");
        let seen = &answer.body;
        assert_eq!(seen["method"], method.as_str(), "{kind:?}");
        assert_eq!(seen["target"], target, "{kind:?}");
        assert_eq!(seen["body"], body, "{kind:?}");
        assert_eq!(header(seen, "idempotency-key"), "k-1", "{kind:?}");
        let mut question = json!({
            "secret": SECRET, "now": now(), "method": seen["method"], "target": seen["target"],
            "headers": seen["headers"], "body": seen["body"],
        });
        for verifier in &mut verifiers {
            let verdict = verifier.ask(&question.to_string());
            assert_eq!(
                verdict,
                json!({"ok": true, "user": "user_1"}),
                "{kind:?} {method}"
            );
        }
        for (name, value) in [
            ("method", json!("TRACE")),
            ("target", json!("/harmless")),
            ("body", json!("another body")),
            ("now", json!(now() + 120)),
            ("secret", json!("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ] {
            let good = std::mem::replace(&mut question[name], value);
            for verifier in &mut verifiers {
                let verdict = verifier.ask(&question.to_string());
                assert_eq!(verdict["ok"], false, "{kind:?} {method} {name}");
            }
            question[name] = good;
        }
        for name in IDENTITY {
            let mut other = question.clone();
            other["headers"][name] = json!("other");
            for verifier in &mut verifiers {
                assert_eq!(
                    verifier.ask(&other.to_string())["ok"],
                    false,
                    "{kind:?} {name}"
                );
            }
        }
    }
    let head = client
        .head(format!("{}/tasks", gateway.url))
        .bearer_auth(&token);
    assert_eq!(service.send(head).await.status, 200, "{kind:?}");

    // Who may not gets our words, and the backend hears nothing.
    let asked = backend.asked();
    let send = async |path: &str, authorization: Option<&str>| {
        let mut request = client.post(format!("{}{path}", gateway.url)).body("x");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request
            .header("x-user-id", "user_1")
            .header("x-roles", "org:admin");
        service.send(request).await
    };
    let none = send("/tasks", None).await;
    none.assert_refused(401, "bearer_missing");
    let metadata = "resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/auth/verify\"";
    assert_eq!(
        none.header("www-authenticate"),
        format!("Bearer {metadata}")
    );
    let bad = send("/tasks", Some("Bearer x")).await;
    bad.assert_refused(401, "app_token_malformed");
    let session = format!("Bearer {}", issuer.token());
    send("/tasks", Some(&session))
        .await
        .assert_refused(401, "pass_through_not_allowed");
    let good = format!("Bearer {token}");
    let narrow = send("/reports/2026?scope=read:tasks", Some(&good)).await;
    narrow.assert_refused(403, "insufficient_scope");
    assert_eq!(
        narrow.header("www-authenticate"),
        format!("Bearer error=\"insufficient_scope\", scope=\"read:reports\", {metadata}")
    );
    // What goes to Exchequer alone is not to be reached, nor is it to be asked through the gate.
    for path in ["/_exchequer", "/auth/verify"] {
        let answer = send(path, None).await;
        assert!(
            matches!(answer.status, 401 | 404),
            "{kind:?} {path}: {}",
            answer.body
        );
    }
    // A name that a backend could take for an identity header.
    let underscores = client
        .get(format!("{}/tasks", gateway.url))
        .header("x_user_id", "user_of_another")
        .bearer_auth(&token);
    let underscores = service.send(underscores).await;
    match kind {
        Kind::Nginx => assert_eq!(underscores.body["headers"].get("x_user_id"), None),
        Kind::Envoy => assert_eq!(underscores.status, 400),
    }
    let heard = usize::from(kind == Kind::Nginx);
    assert_eq!(backend.asked(), asked + heard, "{kind:?}");
    let wide = self::token(&service, &issuer, "read:tasks read:reports").await;
    let answer = send("/reports/2026", Some(&format!("Bearer {wide}"))).await;
    assert_identity(kind, &answer, "read:tasks read:reports");

    // Without Exchequer nothing passes, not even what was let through before.
    let asked = backend.asked();
    let (url, client) = (gateway.url.clone(), client.clone());
    drop(service);
    let answer = client
        .get(format!("{url}/tasks"))
        .bearer_auth(&token)
        .send()
        .await;
    let status = answer.unwrap().status().as_u16();
    let expected = if kind == Kind::Nginx { 500 } else { 503 };
    assert_eq!(status, expected, "{kind:?}");
    assert_eq!(backend.asked(), asked, "{kind:?}");
}

#[tokio::test]
async fn nginx_lets_through_whom_exchequer_knows() {
    through(Kind::Nginx).await;
}

#[tokio::test]
async fn envoy_lets_through_whom_exchequer_knows() {
    through(Kind::Envoy).await;
}

#[test]
fn every_example_takes_each_identity_header_from_exchequer_and_none_from_the_client() {
    let example = |name: &str| {
        let path = Path::new(ROOT).join("examples").join(name);
        std::fs::read_to_string(path).unwrap().to_lowercase()
    };
    let nginx = example("nginx/exchequer.identity");
    let envoy = example("envoy/exchequer.yaml");
    let traefik = example("traefik/exchequer.yaml");
    for name in IDENTITY {
        let taken = format!("$upstream_http_{};", name.replace('-', "_"));
        assert_eq!(nginx.matches(&taken).count(), 1, "{name}");
        assert_eq!(
            nginx
                .matches(&format!("proxy_set_header {name} $identity_"))
                .count(),
            1,
            "{name}"
        );
        assert_eq!(
            envoy.matches(&format!("remove: {name}\n")).count(),
            1,
            "{name}"
        );
        assert_eq!(
            envoy.matches(&format!("exact: {name}\n")).count(),
            2,
            "{name}"
        );
        assert_eq!(
            traefik.matches(&format!(" {name}: \"\"\n")).count(),
            1,
            "{name}"
        );
        assert_eq!(traefik.matches(&format!("- {name}\n")).count(), 1, "{name}");
    }
}
