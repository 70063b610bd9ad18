//! What `exchequer doctor` sees of the public URL: who answers there, and what a proxy on the way
//! changes.

use crate::doctor::{OURS, Report, answer, front, healthy, metadata, steady};
use crate::support::issuer::{DISCOVERY, JWKS};
use crate::support::{Behaviour, Issuer, Service};
use serde_json::json;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_that_redirects_is_told_where_to() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let to = |location: &str| {
        front.behave(
            JWKS,
            answer("301 Moved", &[&format!("location: {location}")], ""),
        );
        Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT")
    };
    let row = |to: &str, next: &str| {
        format!(
            "public_url fail: http://FRONT{JWKS}: it redirects (301) to {to}: jose, PyJWT, jwks-rsa and Envoy do not follow → {next}"
        )
    };
    to(&format!("https://www.example.com{JWKS}?a=b")).assert(
        "public_url",
        &[&row(
            &format!("https://www.example.com{JWKS}"),
            "if that is the public address: EXCHEQUER_ISSUER=https://www.example.com; else end the redirect at the proxy",
        )],
    );
    to(&format!("{JWKS}/")).assert(
        "public_url",
        &[&row(
            &format!("http://FRONT{JWKS}/"),
            &format!("the proxy rewrites addresses: end that for {JWKS}"),
        )],
    );
    // What follows the path is not shown: it may be a state, or a token.
    let report = to("https://login.example.com/authorize?state=s3cret#t0ken");
    report.assert(
        "public_url",
        &[&row(
            "https://login.example.com/authorize",
            &format!("a sign-in wall? let the proxy pass {JWKS} without sign-in"),
        )],
    );
    // Where no document of ours is there, nothing else is judged by it.
    assert_eq!(report.lines("metadata"), [""; 0]);
    assert_eq!(report.lines("round_trip"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_where_something_else_answers_is_told_what() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let route = format!("let the proxy pass {JWKS} to EXCHEQUER_LISTEN, unchanged");
    let wall = "a sign-in wall, a CDN's challenge or another website answers";
    for (behaviour, seen, next) in [
        (
            answer(
                "200 OK",
                &[
                    "content-type: text/html; charset=utf-8",
                    "server: cloudflare",
                ],
                "<!doctype html><html><head><title>Just a moment...</title>",
            ),
            "200 with a page for people, \"Just a moment...\"",
            format!("{wall} (cloudflare): {route}, without sign-in"),
        ),
        (
            answer("200 OK", &[], "\n <html>"),
            "200 with a page for people",
            format!("{wall}: {route}, without sign-in"),
        ),
        (
            answer("401 Unauthorized", &["server: envoy"], ""),
            "it answered 401 (envoy)",
            format!("verifiers have no credentials: {route}, without sign-in"),
        ),
        (
            answer("502 Bad Gateway", &["server: nginx"], "<html>"),
            "it answered 502 (nginx)",
            format!("does EXCHEQUER_ISSUER name this service, path and all? {route}"),
        ),
        (
            Behaviour::Flood(1 << 20),
            "the answer is larger than 512 KiB",
            "that is no document of ours: does EXCHEQUER_ISSUER name this service?".to_owned(),
        ),
        (
            Behaviour::Drip,
            "no complete answer within 3 s",
            "verifiers wait for as long: does EXCHEQUER_ISSUER name this service, and does it run?"
                .to_owned(),
        ),
    ] {
        front.behave(JWKS, behaviour);
        let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]);
        let row = format!("public_url fail: http://FRONT{JWKS}: {seen} → {next}");
        report
            .calling(&front.url, "FRONT")
            .assert("public_url", &[&steady(&row)]);
    }
    front.behave(JWKS, answer("200 OK", &OURS, "{\"keys\":[]}"));
    let empty = Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).lines("public_url");
    let next = ": a key set without a key → nothing is signed and nothing verifies: the log of the service there says why it has no key   signing_key_unavailable";
    let begins = "public_url fail: ";
    assert!(
        empty[0].starts_with(begins) && empty[0].ends_with(next),
        "{empty:?}"
    );
    front.vanish();
    let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]);
    let lines = report.lines("public_url");
    let next = "nobody listens there: does the service run, and does EXCHEQUER_ISSUER name it, port and all?";
    assert!(lines.len() == 1 && lines[0].ends_with(next), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_changes_of_the_documents_is_told() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let jwks = service.get(JWKS).await.body.to_string();
    let report =
        || Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT");
    let ok = |cache: &str| {
        format!("public_url ok: http://FRONT{JWKS}: 200, no redirect, N ms, N bytes, {cache}")
    };
    let tag = "verifiers fetch the whole set each time: a proxy takes the ETag away, or does not pass If-None-Match on";
    let again =
        format!("public_url info: asked again with its ETag it answers 200, not 304 → {tag}");
    let cached = "some verifiers (Hasura, Go jwx) refresh by nothing else: never without it, each second with no-store, and late with a long one; a proxy or CDN changes it";
    report().assert("public_url", &[&ok("public, max-age=300"), &again]);

    // All at once, and far too many bytes.
    let large =
        format!("{}{}", jwks.trim_end_matches('}'), ",\"x\":\"") + &"x".repeat(52_000) + "\"}";
    front.behave(
        JWKS,
        answer(
            "200 OK",
            &["content-type: text/plain", "cache-control: no-store"],
            &large,
        ),
    );
    report().assert(
        "public_url",
        &[
            &ok("no-store"),
            "public_url warn: its Content-Type is text/plain, not application/json → some verifiers read nothing else: a proxy changes it",
            &format!("public_url warn: its Cache-Control is no-store, not public, max-age=300 → {cached}"),
            "public_url warn: its Access-Control-Allow-Origin is nothing, not * → verifiers in browsers cannot read it: let the proxy leave the header as it is",
            "public_url warn: it has N bytes → Nimbus and Spring read N KiB at most: is that ours?",
            &format!("public_url info: it has no ETag → {tag}"),
        ],
    );
    for (header, well) in [
        ("max-age=60", true),
        ("max-age=59", false),
        ("public, max-age=3600", true),
        ("public, max-age=3601", false),
        ("max-age=300, no-cache", false),
    ] {
        let cache = format!("cache-control: {header}");
        front.behave(
            JWKS,
            answer("200 OK", &[OURS[0], &cache, OURS[2], OURS[3]], &jwks),
        );
        let found = report().lines("public_url");
        let warned = format!(
            "public_url warn: its Cache-Control is {header}, not public, max-age=300 → {cached}"
        );
        assert_eq!(found.contains(&warned), !well, "{found:?}");
    }
    // Slow, yet not too slow for an answer.
    front.behave(JWKS, Behaviour::Late(Duration::from_millis(700)));
    let found = report().rows;
    let slow = found
        .iter()
        .find(|row| row["message"].as_str().unwrap().starts_with("it took "));
    let slow = slow.unwrap();
    assert_eq!(
        (&slow["check"], &slow["status"], &slow["next"]),
        (
            &json!("public_url"),
            &json!("warn"),
            &json!(
                "Nimbus and Spring give up after 500 ms: the service answers from memory, so look at the way there"
            )
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_are_not_ours_are_told_by_what_they_differ() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let with = |body: &str| {
        front.behave(DISCOVERY, answer("200 OK", &OURS, body));
        Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT")
    };
    with(&metadata(&front.url)).assert(
        "metadata",
        &[&format!("metadata ok: http://FRONT{DISCOVERY}: 200, no redirect, N ms, N bytes, public, max-age=300, issuer equal")],
    );
    for (said, difference) in [
        (
            format!("{}/", front.url),
            "they differ by a trailing slash alone",
        ),
        (
            front.url.replace("http:", "https:"),
            "they differ by http and https",
        ),
        (
            "https://staging.example".to_owned(),
            "another deployment answers there",
        ),
    ] {
        let shown = said.replace(front.url.trim_start_matches("http://"), "FRONT");
        with(&metadata(&said)).assert(
            "metadata",
            &[&format!("metadata fail: it says issuer {shown}, configured is http://FRONT: verifiers compare byte for byte → {difference}: give the service that answers there, and this, one EXCHEQUER_ISSUER")],
        );
    }
    with("[]").assert(
        "metadata",
        &[&format!("metadata fail: http://FRONT{DISCOVERY}: no JSON object with `issuer` → that is no document of ours: does EXCHEQUER_ISSUER name this service?")],
    );
    let elsewhere = json!({ "issuer": front.url, "jwks_uri": "http://inside:8080/jwks" });
    with(&elsewhere.to_string()).assert(
        "metadata",
        &[&format!("metadata fail: its jwks_uri is http://inside:8080/jwks, not http://FRONT{JWKS} → a proxy rewrites the document: let it pass unchanged")],
    );
    front.behave(DISCOVERY, answer("404 Not Found", &[], ""));
    Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT").assert(
        "metadata",
        &[&format!("metadata fail: http://FRONT{DISCOVERY}: it answered 404 → does EXCHEQUER_ISSUER name this service, path and all? let the proxy pass {DISCOVERY} to EXCHEQUER_LISTEN, unchanged")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_is_not_ours_is_told_whose_it_is() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let other = healthy(&issuer).await;
    let front = front(&service).await;
    let report = |url: &str| Report::of(&service, &[("EXCHEQUER_ISSUER", url)]);
    // A service of another issuer.
    let theirs = other.get(JWKS).await.body.to_string();
    front.behave(JWKS, answer("200 OK", &OURS, &theirs));
    let staging = metadata("https://staging.example");
    front.behave(DISCOVERY, answer("200 OK", &OURS, &staging));
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: the deployment of https://staging.example answers there, with KID, KID → EXCHEQUER_ISSUER names another service's address, or the proxy sends its requests there"],
    );
    // One of this issuer with a ring of its own, and the same from a cache.
    let ours = metadata(&front.url);
    front.behave(DISCOVERY, answer("200 OK", &OURS, &ours));
    front.behave(
        JWKS,
        answer("200 OK", &[&OURS[..], &["server: nginx"]].concat(), &theirs),
    );
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: another ring answers there (nginx), with KID, KID → another deployment of this issuer, or a replica with a ring of its own: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)"],
    );
    front.behave(
        JWKS,
        answer("200 OK", &[&OURS[..], &["age: 86400"]].concat(), &theirs),
    );
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: a cache serves KID, KID, 86400 s old → empty the CDN's cache, and let it keep the key set for no longer than its max-age"].map(steady).each_ref().map(String::as_str),
    );
    // The standby alone: a ring from before the rotation, or after a revocation.
    let mut part = service.get(JWKS).await.body;
    let signs = report(&service.url);
    let signs = signs
        .rows
        .iter()
        .find(|row| row["check"] == "keys")
        .unwrap();
    let keys = part["keys"].as_array_mut().unwrap();
    keys.retain(|key| {
        !signs["message"]
            .as_str()
            .unwrap()
            .contains(key["kid"].as_str().unwrap())
    });
    assert_eq!(keys.len(), 1);
    front.behave(JWKS, answer("200 OK", &OURS, &part.to_string()));
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: an older ring answers there, with KID → a replica has not read the ring anew, or a copy of it was restored: all must share one (docs/keys.md)"],
    );
    // This command reads another folder than the service beside.
    let dir = other.dir().join("keys").display().to_string();
    let own = [("EXCHEQUER_KEYS_DIR", dir.as_str())];
    Report::of(&service, &own).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: the service beside publishes KID, KID, and signs with another ring than this command reads → run this in its folder, with its EXCHEQUER_KEYS_DIR and EXCHEQUER_STORE"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_serve_different_key_sets_are_told() {
    let issuer = Issuer::start().await;
    let (service, other) = (healthy(&issuer).await, healthy(&issuer).await);
    // A balancer that gives each connection to the next of two.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let replicas = [&service, &other].map(|each| each.url.trim_start_matches("http://").to_owned());
    let balancer = tokio::spawn(async move {
        for replica in replicas.iter().cycle() {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(replica).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let url = format!("http://{address}");
    let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &url)]);
    let row = "public_url fail: two key sets are served in turn: KID, KID and KID, KID → every second token is refused: replicas have rings of their own, or one has not read theirs anew: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)";
    let lines = report.lines("public_url");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], row);
    balancer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_at_the_public_url_fail() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let metrics = service.admin("/metrics").await.body;
    front.behave(
        "/metrics",
        answer(
            "200 OK",
            &["content-type: text/plain"],
            metrics.as_str().unwrap(),
        ),
    );
    Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT").assert(
        "admin",
        &[
            "admin ok: ADMIN: the service is ready",
            "admin fail: http://FRONT/metrics shows the metrics to everybody → a proxy passes it to EXCHEQUER_ADMIN_LISTEN: let it pass EXCHEQUER_LISTEN alone",
        ],
    );
}

/// A TLS server before a service, with a certificate for `localhost`.
struct Tls {
    port: u16,
    /// The authority that signed it.
    authority: String,
    task: tokio::task::AbortHandle,
    _dir: TempDir,
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = process::Command::new("openssl");
    let output = command.current_dir(dir).args(arguments.split(' ')).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tls {
    async fn before(service: &Service, days: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            at,
            &format!("req -x509 {new} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"),
        );
        openssl(
            at,
            &format!("req {new} -keyout key.pem -out request.pem -subj /CN=localhost"),
        );
        std::fs::write(at.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days {days} -extfile names"
            ),
        );
        let chain = CertificateDer::pem_file_iter(at.join("cert.pem")).unwrap();
        let chain: Vec<_> = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(at.join("key.pem")).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = service.url.trim_start_matches("http://").to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(behind).await.unwrap();
                    if let Ok(mut near) = acceptor.accept(near).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self {
            port,
            authority: at.join("ca.pem").display().to_string(),
            task: task.abort_handle(),
            _dir: dir,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_public_url_is_verified_as_others_do() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let tls = Tls::before(&service, 30).await;
    let url = format!("https://localhost:{}", tls.port);
    let of = |service: &Service, url: &str, authority: &str| {
        let variables = [("EXCHEQUER_ISSUER", url), ("SSL_CERT_FILE", authority)];
        Report::of(service, &variables).lines("public_url")
    };
    let found = of(&service, &url, &tls.authority);
    let good =
        format!("public_url ok: {url}{JWKS}: 200, no redirect, N ms, N bytes, public, max-age=300");
    assert_eq!(found, [good]);

    let unknown = of(&service, &url, "/etc/ssl/certs/ca-certificates.crt");
    let next = " → its certificate leads to no authority that this machine trusts: let the proxy send the whole chain (fullchain.pem), or take a certificate of a public authority";
    assert!(
        unknown.len() == 1 && unknown[0].ends_with(next),
        "{unknown:?}"
    );
    let numbered = format!("https://127.0.0.1:{}", tls.port);
    let misnamed = of(&service, &numbered, &tls.authority);
    let next = " → its certificate is for another name: EXCHEQUER_ISSUER must be a name in it";
    assert!(
        misnamed.len() == 1 && misnamed[0].ends_with(next),
        "{misnamed:?}"
    );
    let expired = Tls::before(&service, -1).await;
    let url = format!("https://localhost:{}", expired.port);
    let expired = of(&service, &url, &expired.authority);
    let next = " → its certificate has expired: renew it at the proxy";
    assert!(
        expired.len() == 1 && expired[0].ends_with(next),
        "{expired:?}"
    );
    // The port of a server that speaks none.
    let plain = service.url.replace("http:", "https:");
    let plain = of(&service, &plain, &tls.authority);
    let next = " → it speaks no TLS there: is the port in EXCHEQUER_ISSUER that of https?";
    assert!(plain.len() == 1 && plain[0].ends_with(next), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_of_the_pages_origins_are_sent_through_the_public_url() {
    let issuer = Issuer::start().await;
    let mut service = healthy(&issuer).await;
    service.set_env(
        "EXCHEQUER_ALLOWED_ORIGINS",
        "https://app.example.com,capacitor://localhost",
    );
    service.restart().await;
    let report = |url: &str| Report::of(&service, &[("EXCHEQUER_ISSUER", url)]).lines("browsers");
    assert_eq!(
        report(&service.url),
        ["browsers ok: preflights of 2 origins pass"]
    );

    let front = front(&service).await;
    let next = "the proxy answers them itself, or changes their headers: let it pass OPTIONS and Access-Control-* unchanged; or the running service has other EXCHEQUER_ALLOWED_ORIGINS";
    let origin = "access-control-allow-origin: ";
    for (headers, fault) in [
        (vec![], "it allows no origin"),
        (vec![format!("{origin}*")], "it allows *"),
        (
            vec![
                format!("{origin}https://app.example.com"),
                format!("{origin}*"),
            ],
            "Access-Control-Allow-Origin is there twice",
        ),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        front.behave("/auth/exchange", answer("204 No Content", &headers, ""));
        let row = format!(
            "browsers fail: preflights do not pass: https://app.example.com: {fault}; capacitor://localhost: {fault} → {next}"
        );
        assert_eq!(report(&front.url), [row]);
    }
    front.behave("/auth/exchange", answer("405 Method Not Allowed", &[], ""));
    let row = format!(
        "browsers fail: preflights do not pass: https://app.example.com: it answered 405; capacitor://localhost: it answered 405 → {next}"
    );
    assert_eq!(report(&front.url), [row]);
}
