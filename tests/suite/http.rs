//! The HTTP surface: exact paths and methods, every refusal JSON, nothing echoed, limits to
//! the byte, and the public documents.

use crate::support::{Answer, Issuer, Service, Token, Wire, eventually, token};
use serde_json::{Value, json};

pub const EXCHANGE: &str = "/auth/exchange";
pub const JWKS: &str = "/.well-known/jwks.json";
pub const OPENID: &str = "/.well-known/openid-configuration";
pub const OAUTH: &str = "/.well-known/oauth-authorization-server";
/// Stands wherever a caller puts something secret or wrong; no answer may hold it.
const CANARY: &str = "k4n4r1env0gel";

pub async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    (issuer, service)
}

/// Asserts the refusal, and that neither the canary nor any part of the token comes back.
#[track_caller]
fn assert_silent(answer: &Answer, status: u16, code: &str, token: &str) {
    answer.assert_refused(status, code);
    let shown = format!("{} {:?}", answer.body, answer.headers);
    assert!(!shown.contains(CANARY), "{shown}");
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!shown.contains(part), "{shown}");
    }
}

pub fn post(service: &Service) -> reqwest::RequestBuilder {
    service.client.post(format!("{}{EXCHANGE}", service.url))
}

pub fn post_json(service: &Service, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    post(service)
        .header("content-type", "application/json")
        .body(body)
}

/// A request by hand: its head's lines, and its body with its length.
fn raw(head: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = head.join("\r\n").into_bytes();
    request.extend_from_slice(
        format!("\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
    );
    request.extend_from_slice(body);
    request
}

async fn sent(service: &Service, bytes: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::to(&service.url).await;
    wire.send(bytes).await;
    wire.answer().await.expect("an answer")
}

#[tokio::test]
async fn paths_that_are_not_there_are_404_and_near_ones_too() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    for target in [
        "/",
        "/auth",
        "/auth/",
        "/auth/exchange/",
        "/auth/exchange//",
        "/auth/exchange/x",
        "/auth/exchangE",
        "/AUTH/EXCHANGE",
        "//auth/exchange",
        "/auth//exchange",
        "/./auth/exchange",
        "/auth/./exchange",
        "/x/../auth/exchange",
        "/auth/exchange/.",
        "/auth/exchange/..",
        "/auth%2fexchange",
        "/auth/exchange%2f",
        "/auth/exchange%00",
        "/auth/exchange%20",
        "/auth/exchange;x=1",
        "/auth/exchange.json",
        "/auth/%65xchange",
        "/auth\\exchange",
        "/auth/clerk",
        "/auth/clerk/exchange/",
        "/.well-known",
        "/.well-known/",
        "/.well-known/jwks.json/",
        "/.well-known/jwks",
        "/.well-known/openid-configuration/",
        "/.well-known/oauth-authorization-server/",
        "/healthz/",
        "/readyz",
        "/livez",
        "/startupz",
        "/metrics",
        "/debug/pprof",
        "/.env",
        "/.git/config",
        "/actuator/env",
        "/oauth",
        "/oauth/token/",
        "*",
    ] {
        for method in ["POST", "GET"] {
            let answer = sent(
                &service,
                raw(
                    &[
                        &format!("{method} {target} HTTP/1.1"),
                        "content-type: application/json",
                    ],
                    json!({"session_token": token}).to_string(),
                ),
            )
            .await;
            assert_eq!(answer.status, 404, "{method} {target}: {}", answer.body);
            assert_silent(&answer, 404, "not_found", &token);
        }
    }
    // The form that a request to a proxy has (RFC 9112 §3.2.2) names the same path.
    let absolute = sent(
        &service,
        raw(
            &[
                "POST http://elsewhere.example/auth/exchange HTTP/1.1",
                "content-type: application/json",
            ],
            json!({"session_token": token}).to_string(),
        ),
    )
    .await;
    assert_eq!(absolute.status, 200, "{}", absolute.body);
}

#[tokio::test]
async fn a_wrong_method_is_405_and_the_right_ones_are_said() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let of = |path: &str| match path {
        EXCHANGE | "/auth/clerk/exchange" => "POST, OPTIONS",
        _ => "GET, HEAD",
    };
    for path in [
        EXCHANGE,
        "/auth/clerk/exchange",
        JWKS,
        OPENID,
        OAUTH,
        "/healthz",
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "CONNECT", "post",
            "get", "POSTS", "BREW", "PROPFIND",
        ] {
            let right = of(path) == "GET, HEAD" && matches!(method, "GET" | "HEAD")
                || of(path) == "POST, OPTIONS" && method == "POST";
            if right || method == "CONNECT" {
                continue;
            }
            // What would override the method must not.
            let request = raw(
                &[
                    &format!("{method} {path} HTTP/1.1"),
                    "content-type: application/json",
                    "x-http-method-override: POST",
                    "x-method-override: GET",
                    &format!("x-{CANARY}: {CANARY}"),
                ],
                json!({"session_token": token}).to_string(),
            );
            let mut wire = Wire::to(&service.url).await;
            wire.send(request).await;
            if method == "HEAD" {
                let answer = wire.answer_without_body().await.unwrap();
                assert_eq!(answer.status, 405, "HEAD {path}");
                assert_eq!(answer.header("allow"), of(path), "HEAD {path}");
                continue;
            }
            let answer = wire.answer().await.unwrap();
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.body);
            assert_silent(&answer, 405, "method_not_allowed", &token);
            assert_eq!(answer.header("allow"), of(path), "{method} {path}");
        }
    }
    // Only a proxy answers CONNECT (RFC 9110 §9.3.6).
    let answer = sent(&service, "CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_silent(&answer, 404, "not_found", "");
}

#[tokio::test]
async fn whoever_does_not_accept_json_gets_406() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let body = json!({"session_token": token}).to_string();
    for (accept, status) in [
        ("application/json", 200),
        ("APPLICATION/JSON", 200),
        ("*/*", 200),
        ("application/*;q=0.1", 200),
        ("text/html, application/json;q=0.9", 200),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200),
        ("", 200),
        ("text/html", 406),
        ("application/xml, text/*", 406),
        ("application/jwt", 406),
        ("application/jsonp", 406),
        ("application/json;q=0", 406),
        ("text/html, application/json; q=0.000", 406),
    ] {
        let request = post_json(&service, body.clone()).header("accept", accept);
        let answer = service.send(request).await;
        assert_eq!(answer.status, status, "{accept:?}: {}", answer.body);
        if status == 406 {
            assert_silent(&answer, 406, "not_acceptable", &token);
        }
    }
}

#[tokio::test]
async fn only_json_in_utf_8_and_not_compressed_is_read() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let body = json!({"session_token": token}).to_string();
    let form = format!("session_token={token}");
    for (content_type, body) in [
        (None, body.clone()),
        (Some(""), body.clone()),
        (Some("text/plain"), body.clone()),
        (Some("text/plain;charset=UTF-8"), body.clone()),
        (Some("application/x-www-form-urlencoded"), form),
        (
            Some("multipart/form-data; boundary=b"),
            format!(
                "--b\r\ncontent-disposition: form-data; name=\"session_token\"\r\n\r\n{token}\r\n--b--\r\n"
            ),
        ),
        (Some("application/json; charset=utf-16"), body.clone()),
        (Some("application/json; charset=iso-8859-1"), body.clone()),
        (
            Some("application/json; charset=utf-8; charset=utf-16"),
            body.clone(),
        ),
        (Some("application/json, text/plain"), body.clone()),
        (Some("text/plain, application/json"), body.clone()),
        (Some("application/jsonp"), body.clone()),
        (Some("application/merge-patch+json"), body.clone()),
        (Some("application/jwt"), token.clone()),
        (Some("json"), body.clone()),
    ] {
        let mut request = post(&service).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = service.send(request).await;
        assert_eq!(answer.status, 415, "{content_type:?}: {}", answer.body);
        assert_silent(&answer, 415, "content_type_unsupported", &token);
    }
    for content_type in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json ; charset=\"UTF-8\"",
        "application/json; profile=x",
    ] {
        let request = post(&service)
            .body(body.clone())
            .header("content-type", content_type);
        assert_eq!(service.send(request).await.status, 200, "{content_type}");
    }
    for (encoding, status) in [
        ("gzip", 415),
        ("deflate", 415),
        ("br", 415),
        ("zstd", 415),
        ("identity, gzip", 415),
        ("identity", 200),
    ] {
        let request = post_json(&service, body.clone()).header("content-encoding", encoding);
        assert_eq!(service.send(request).await.status, status, "{encoding}");
    }
}

/// A body of exactly this many bytes that carries the token.
fn padded(token: &str, size: usize) -> String {
    let body = json!({"session_token": token}).to_string();
    let padding = " ".repeat(size - body.len());
    format!("{padding}{body}")
}

#[tokio::test]
async fn a_body_of_64_kib_passes_and_a_byte_more_does_not() {
    const LIMIT: usize = 64 * 1024;
    let (issuer, service) = world().await;
    let token = issuer.token();
    let chunked = |body: &str, chunk: usize| {
        let mut request =
            b"POST /auth/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for part in body.as_bytes().chunks(chunk) {
            request.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            request.extend_from_slice(part);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    let whole = |body: &str| {
        raw(
            &[
                "POST /auth/exchange HTTP/1.1",
                "content-type: application/json",
            ],
            body,
        )
    };
    let fits = padded(&token, LIMIT);
    let over = padded(&token, LIMIT + 1);
    for request in [whole(&fits), chunked(&fits, LIMIT), chunked(&fits, 1000)] {
        let answer = sent(&service, request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let much = padded(&token, 64 * LIMIT);
    for request in [
        whole(&over),
        chunked(&over, LIMIT + 1),
        chunked(&over, 1000),
        whole(&much),
        chunked(&much, LIMIT),
    ] {
        let answer = sent(&service, request).await;
        assert_silent(&answer, 413, "body_too_large", &token);
    }
    // One that only says that it is large is not waited for.
    let said = "POST /auth/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 65537\r\n\r\n";
    assert_silent(&sent(&service, said).await, 413, "body_too_large", &token);
}

#[tokio::test]
async fn a_body_that_is_not_the_json_object_is_400_and_not_echoed() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let utf_16: Vec<u8> = format!("{{\"session_token\":\"{CANARY}\"}}")
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let good = json!({"session_token": token}).to_string();
    let object = |members: &str| format!("{{\"x\":\"{CANARY}\",{members}}}").into_bytes();
    let nested = |open: &str, times: usize| open.repeat(times).into_bytes();
    let cases: Vec<Vec<u8>> = vec![
        CANARY.into(),
        token.clone().into(),
        format!("\"{token}\"").into(),
        b" ".to_vec(),
        b"\0".to_vec(),
        b"{".to_vec(),
        b"}".to_vec(),
        b"null".to_vec(),
        b"true".to_vec(),
        b"1".to_vec(),
        b"-".to_vec(),
        b"1e999999".to_vec(),
        b"[]".to_vec(),
        format!("[\"{token}\"]").into(),
        format!("[\"{token}\",null,null,null,null,null,null]").into(),
        format!("[{good}]").into(),
        format!("{good}{good}").into(),
        format!("{good}\n{CANARY}").into(),
        format!("{good},").into(),
        format!("{good}\0").into(),
        format!("\u{feff}{good}").into(),
        [b"\xfe\xff".to_vec(), utf_16.clone()].concat(),
        utf_16,
        good[..good.len() - 1].into(),
        good[..good.len() - 2].into(),
        good.replace('"', "'").into(),
        good.replace('"', "\u{201d}").into(),
        good.replace(':', "=").into(),
        good.replace('}', ",}").into(),
        good.replace('{', "{,").into(),
        good.replace('{', "{/* c */").into(),
        format!("// c\n{good}").into(),
        format!("{good}# c").into(),
        format!("{{session_token:\"{token}\"}}").into(),
        format!("{{\"session_token\":{token}}}").into(),
        object("\"session_token\":NaN"),
        object("\"session_token\":Infinity"),
        object("\"session_token\":undefined"),
        object("\"session_token\":+1"),
        object("\"session_token\":01"),
        object("\"session_token\":.5"),
        object("\"session_token\":0x1"),
        object("\"session_token\":\"\\ud800\""),
        object("\"session_token\":\"\\udc00\\ud800\""),
        object("\"session_token\":\"\\u12\""),
        object("\"session_token\":\"\\x41\""),
        object("\"session_token\":\"a\nb\""),
        object("\"session_token\":\"a\0b\""),
        [&object("\"session_token\":\"")[..], b"\xff\"}"].concat(),
        [&object("\"session_token\":\"")[..], b"\xed\xa0\x80\"}"].concat(),
        [&object("\"session_token\":\"")[..], b"\xc0\x80\"}"].concat(),
        [&b"{\"y\":\"\xff\","[..], &good.as_bytes()[1..]].concat(),
        [&b"{\"\xff\":1,"[..], &good.as_bytes()[1..]].concat(),
        // Twice the same member, in any spelling: two readers would read two requests.
        object(&format!(
            "\"session_token\":\"{token}\",\"session_token\":\"{token}\""
        )),
        object("\"session_token\":\"a\",\"session_token\":null"),
        object("\"session_token\":\"a\",\"session_\\u0074oken\":\"b\""),
        object("\"app\":\"a\",\"app\":\"b\",\"session_token\":\"c\""),
        object("\"session_token\":1"),
        object("\"session_token\":true"),
        object("\"session_token\":[\"a\"]"),
        object("\"session_token\":{\"a\":1}"),
        object("\"subject_token\":0"),
        object("\"session_id\":{}"),
        object("\"session_token\":\"a\",\"app\":1"),
        object("\"session_token\":\"a\",\"audience\":[\"a\"]"),
        object("\"session_token\":\"a\",\"scope\":[\"a\"]"),
        object("\"session_token\":\"a\",\"subject_token_type\":{}"),
        nested("[", 60_000),
        nested("{\"a\":", 12_000),
        nested("[{\"a\":", 10_000),
        format!("{{\"session_token\":{}", "[".repeat(60_000)).into(),
    ];
    for case in cases {
        let answer = service.send(post_json(&service, case.clone())).await;
        let shown = String::from_utf8_lossy(&case[..case.len().min(80)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {}", answer.body);
        assert_silent(&answer, 400, "body_malformed", &token);
    }
    let deep = service.send(post_json(&service, "[".repeat(100_000))).await;
    assert_silent(&deep, 413, "body_too_large", &token);
    assert_eq!(service.session(&token).await.status, 200, "still at work");
}

#[tokio::test]
async fn a_malformed_body_says_where_and_nothing_more() {
    let (_issuer, service) = world().await;
    let answer = service
        .send(post_json(&service, "{\n  \"session_token\": 7\n}"))
        .await;
    let mut body = answer.body.clone();
    body["request_id"].take();
    assert_eq!(
        body,
        json!({
            "error": "invalid_request",
            "error_description": "The request body is not the JSON object that was expected: line 2, column 20.",
            "code": "body_malformed",
            "request_id": null,
            "retryable": false,
            "action": "fix_request",
        })
    );
}

#[tokio::test]
async fn exactly_one_credential_is_taken() {
    let (issuer, service) = world().await;
    let good = issuer.token();
    let bad = format!("{CANARY}.{CANARY}.{CANARY}");
    let missing = [
        json!({}),
        json!({"session_token": null}),
        json!({"session_token": ""}),
        json!({"session_token": "", "subject_token": "", "session_id": ""}),
        json!({"session_token": null, "subject_token": null, "session_id": null}),
        json!({"token": good}),
        json!({"Session_Token": good}),
        json!({"sessionToken": good}),
        json!({"app": "default", "scope": "a"}),
    ];
    for body in missing {
        let answer = service.exchange(&body).await;
        assert_silent(&answer, 400, "credential_missing", &good);
    }
    let empty = service.send(post(&service)).await;
    assert_silent(&empty, 400, "credential_missing", &good);

    let several = [
        json!({"session_token": good, "subject_token": good}),
        json!({"session_token": good, "subject_token": bad}),
        json!({"session_token": bad, "subject_token": good}),
        json!({"session_token": good, "session_id": "sess_1"}),
        json!({"subject_token": good, "session_id": "sess_1"}),
        json!({"session_token": bad, "subject_token": bad, "session_id": "sess_1"}),
    ];
    for body in several {
        let answer = service.exchange(&body).await;
        assert_silent(&answer, 400, "several_credentials", &good);
    }
    for body in [
        json!({"session_token": good}),
        json!({"session_token": bad}),
        json!({"subject_token": good}),
        json!({"session_id": "sess_1"}),
    ] {
        for bearer in [&good, &bad] {
            let request = post_json(&service, body.to_string()).bearer_auth(bearer);
            let answer = service.send(request).await;
            assert_silent(&answer, 400, "several_credentials", &good);
        }
    }
    // RFC 6749 §3.1: a parameter without a value counts as left out.
    for body in [
        json!({"session_token": good, "subject_token": "", "session_id": null}),
        json!({"session_token": null, "subject_token": good}),
        json!({"session_token": good, "unknown": {"x": [CANARY]}, "password": CANARY}),
    ] {
        assert_eq!(service.exchange(&body).await.status, 200, "{body}");
    }
    let beside_nothing = post_json(&service, "{}").bearer_auth(&good);
    assert_eq!(service.send(beside_nothing).await.status, 200);
    let beside_app = post_json(&service, "{\"app\":\"default\"}").bearer_auth(&good);
    assert_eq!(service.send(beside_app).await.status, 200);
}

#[tokio::test]
async fn a_session_id_proves_nothing() {
    let (_issuer, service) = world().await;
    for (id, code) in [
        ("sess_1", "session_id_unsupported"),
        (CANARY, "session_id_malformed"),
        ("../../v1/users", "session_id_malformed"),
        ("sess_\u{0}", "session_id_malformed"),
    ] {
        let answer = service.exchange(&json!({"session_id": id})).await;
        assert_silent(&answer, 400, code, "");
    }
}

#[tokio::test]
async fn the_authorization_header_is_one_bearer_token_or_refused() {
    let (issuer, service) = world().await;
    let good = issuer.token();
    for value in [
        format!("Bearer {good}"),
        format!("bearer {good}"),
        format!("BEARER {good}"),
        format!("Bearer   {good}"),
    ] {
        let request = post(&service).header("authorization", &value);
        assert_eq!(service.send(request).await.status, 200, "{value}");
    }
    for value in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        good.clone(),
        format!("Bearer:{good}"),
        format!("Bearer\t{good}"),
        format!("Token {good}"),
        format!("JWT {good}"),
        format!("DPoP {good}"),
        format!("Basic {CANARY}"),
        format!("Bearerx {good}"),
        format!("Bearer Bearer {good}"),
        format!("Bearer {good} {good}"),
        // Two headers, joined by a proxy (RFC 9110 §5.3).
        format!("Bearer {good}, Bearer {good}"),
        format!("Bearer {good},Basic {CANARY}"),
    ] {
        let request = post(&service).header("authorization", &value);
        let answer = service.send(request).await;
        assert_eq!(answer.status, 400, "{value}: {}", answer.body);
        assert_silent(&answer, 400, "parameter_malformed", &good);
    }
    let foreign = post(&service).header("authorization", &b"Bearer \xff\xfe"[..]);
    assert_silent(&service.send(foreign).await, 400, "parameter_malformed", "");
    let beside = post_json(&service, json!({"session_token": good}).to_string())
        .header("authorization", format!("Basic {CANARY}"));
    assert_silent(
        &service.send(beside).await,
        400,
        "parameter_malformed",
        &good,
    );
    for second in [
        format!("Bearer {good}"),
        format!("Basic {CANARY}"),
        String::new(),
    ] {
        let twice = post(&service)
            .header("authorization", format!("Bearer {good}"))
            .header("authorization", second);
        assert_silent(
            &service.send(twice).await,
            400,
            "several_credentials",
            &good,
        );
    }
    let quoted = post(&service).header("authorization", format!("Bearer \"{good}\""));
    assert_silent(
        &service.send(quoted).await,
        401,
        "subject_token_malformed",
        &good,
    );
}

#[tokio::test]
async fn a_token_elsewhere_than_in_body_or_header_is_not_read() {
    let (issuer, service) = world().await;
    let good = issuer.token();
    let empty = "{}";
    for target in [
        format!("{EXCHANGE}?session_token={good}"),
        format!("{EXCHANGE}?access_token={good}&token={good}"),
    ] {
        let request = service
            .client
            .post(format!("{}{target}", service.url))
            .header("content-type", "application/json")
            .body(empty);
        let answer = service.send(request).await;
        assert_silent(&answer, 400, "credential_missing", &good);
        // Beside a good one it changes nothing.
        let request = service
            .client
            .post(format!("{}{target}", service.url))
            .bearer_auth(&good);
        assert_eq!(service.send(request).await.status, 200);
    }
    let cookie = post_json(&service, empty)
        .header("cookie", format!("__session={good}; session_token={good}"));
    assert_silent(
        &service.send(cookie).await,
        400,
        "credential_missing",
        &good,
    );
    let proxy = post_json(&service, empty).header("proxy-authorization", format!("Bearer {good}"));
    assert_silent(&service.send(proxy).await, 400, "credential_missing", &good);
}

#[tokio::test]
async fn malformed_parameters_are_named_and_not_echoed() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let long = "a".repeat(1025);
    for (name, value) in [
        ("app", ""),
        ("app", "a\nb"),
        ("app", "a\u{0}b"),
        ("app", "a\u{85}b"),
        ("app", &long),
        ("audience", ""),
        ("audience", "https://a\r\nx: y"),
        ("audience", &long),
        ("scope", "a\tb"),
        ("scope", "a\"b"),
        ("scope", "a\\b"),
        ("scope", "a\u{7f}"),
        ("scope", "größe"),
        ("scope", &long),
        // Of a session id; beside a token it is not needed, and must be one all the same.
        ("code_verifier", ""),
        ("code_verifier", "short"),
    ] {
        let answer = service
            .exchange(&json!({"session_token": token, name: value}))
            .await;
        assert_silent(&answer, 400, "parameter_malformed", &token);
        assert_eq!(
            answer.body["error_description"],
            format!("The parameter `{name}` is malformed.")
        );
    }
    for (name, value, code) in [
        ("app", CANARY, "app_unknown"),
        ("app", "Default", "app_unknown"),
        ("app", "../default", "app_unknown"),
        ("audience", CANARY, "audience_not_allowed"),
        ("audience", "http://localhost:8080/", "audience_not_allowed"),
    ] {
        let answer = service
            .exchange(&json!({"session_token": token, name: value}))
            .await;
        assert_silent(&answer, 400, code, &token);
    }
    for (name, value) in [("app", "default"), ("audience", "http://localhost:8080")] {
        let answer = service
            .exchange(&json!({"session_token": token, name: value}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_subject_token_type_must_be_one_that_is_a_jwt() {
    let (issuer, service) = world().await;
    let token = issuer.token();
    let body = |kind: &str| json!({"subject_token": token, "subject_token_type": kind});
    for kind in ["jwt", "id_token", "access_token"] {
        let kind = format!("urn:ietf:params:oauth:token-type:{kind}");
        assert_eq!(service.exchange(&body(&kind)).await.status, 200, "{kind}");
    }
    for kind in [
        "",
        CANARY,
        "jwt",
        "urn:ietf:params:oauth:token-type:JWT",
        "urn:ietf:params:oauth:token-type:jwt ",
        "urn:ietf:params:oauth:token-type:refresh_token",
        "urn:ietf:params:oauth:token-type:saml1",
        "urn:ietf:params:oauth:token-type:saml2",
    ] {
        let answer = service.exchange(&body(kind)).await;
        assert_silent(&answer, 400, "subject_token_type_unsupported", &token);
    }
}

#[tokio::test]
async fn an_asked_scope_is_answered_with_none_granted() {
    let (issuer, service) = world().await;
    let issued = issuer.token();
    for (scope, answered) in [
        (json!("read:tasks"), Some("")),
        (json!("read:tasks write:tasks openid"), Some("")),
        (json!(""), None),
        (json!(" "), None),
        (Value::Null, None),
    ] {
        let answer = service
            .exchange(&json!({"session_token": issued, "scope": scope}))
            .await;
        assert_eq!(
            answer
                .body
                .get("scope")
                .map(|scope| scope.as_str().unwrap()),
            answered,
            "{scope}"
        );
        assert_eq!(token::claims(answer.token()).get("scope"), None);
    }
}

#[tokio::test]
async fn headers_over_32_kib_are_431_and_below_fine() {
    const LIMIT: usize = 32 * 1024;
    let (issuer, service) = world().await;
    let good = issuer.token();
    // Names and values count, not the colons and line ends between them.
    let request = |sum: usize| {
        let bearer = format!("Bearer {good}");
        let rest = sum
            - ["host", "x", "content-length", "0", "authorization", "x-pad"]
                .iter()
                .map(|part| part.len())
                .sum::<usize>()
            - bearer.len();
        format!(
            "POST /auth/exchange HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nauthorization: {bearer}\r\nx-pad: {}\r\n\r\n",
            "a".repeat(rest)
        )
    };
    let fits = sent(&service, request(LIMIT)).await;
    assert_eq!(fits.status, 200, "{}", fits.body);
    let over = sent(&service, request(LIMIT + 1)).await;
    assert_silent(&over, 431, "headers_too_large", &good);
    let over = sent(&service, request(48 * 1024)).await;
    assert_silent(&over, 431, "headers_too_large", &good);
    // What does not fit the buffer at all is refused before it is a request.
    let flood = sent(&service, request(1024 * 1024)).await;
    assert_eq!(flood.status, 431);
    assert_eq!(flood.body, "");
    // So are more headers than anybody sends.
    let many = format!(
        "GET {JWKS} HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(5000)
    );
    assert_eq!(sent(&service, many).await.status, 431);
    assert_eq!(service.session(&good).await.status, 200);
}

#[tokio::test]
async fn a_target_over_8_kib_is_414_and_below_fine() {
    const LIMIT: usize = 8 * 1024;
    let (_issuer, service) = world().await;
    let request = |length: usize| {
        let target = format!("{JWKS}?");
        let rest = "a".repeat(length - target.len());
        format!("GET {target}{rest} HTTP/1.1\r\nhost: x\r\n\r\n")
    };
    assert_eq!(sent(&service, request(LIMIT)).await.status, 200);
    let over = sent(&service, request(LIMIT + 1)).await;
    assert_silent(&over, 414, "uri_too_long", "");
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(LIMIT));
    assert_silent(&sent(&service, path).await, 414, "uri_too_long", "");
}

#[tokio::test]
async fn the_key_set_is_cacheable_and_has_a_strong_tag() {
    let (_issuer, service) = world().await;
    let whole = service.get(JWKS).await;
    assert_eq!(whole.status, 200, "no redirect");
    assert_eq!(whole.header("content-type"), "application/json");
    assert_eq!(whole.header("cache-control"), "public, max-age=300");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let tag = whole.header("etag").to_owned();
    assert!(
        tag.len() > 20 && tag.starts_with('"') && tag.ends_with('"'),
        "{tag}"
    );
    assert_eq!(service.get(JWKS).await.header("etag"), tag);
    for key in whole.body["keys"].as_array().unwrap() {
        let mut names: Vec<&str> = key
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    }

    let with = |given: &str| {
        service
            .client
            .get(format!("{}{JWKS}", service.url))
            .header("if-none-match", given)
    };
    for given in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        format!("\"a\",W/{tag} ,\"b\""),
        "*".to_owned(),
    ] {
        let answer = service.send(with(&given)).await;
        assert_eq!((answer.status, &answer.body), (304, &json!("")), "{given}");
        // RFC 9110 §15.4.5: what a 200 would have said to caches.
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(!answer.headers.contains_key("content-type"));
    }
    for given in [
        "\"other\"".to_owned(),
        tag.trim_matches('"').to_owned(),
        tag.to_uppercase() + "x",
        String::new(),
    ] {
        let answer = service.send(with(&given)).await;
        assert_eq!((answer.status, &answer.body), (200, &whole.body), "{given}");
    }

    let mut wire = Wire::to(&service.url).await;
    wire.send(format!("HEAD {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    let head = wire.answer_without_body().await.unwrap();
    assert_eq!(head.status, 200);
    for name in ["etag", "cache-control", "content-type", "content-length"] {
        assert_eq!(head.header(name), whole.header(name), "{name}");
    }
    // The connection goes on: HEAD had no body.
    wire.send(format!("GET {JWKS} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert_eq!(wire.answer().await.unwrap().body, whole.body);
}

#[tokio::test]
async fn metadata_says_what_there_is_and_no_more() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_ISSUER", "https://auth.example.com/x")
        .start()
        .await;
    for path in [OPENID, OAUTH] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status, &answer.body),
            (
                200,
                &json!({
                    "issuer": "https://auth.example.com/x",
                    "jwks_uri": "https://auth.example.com/x/.well-known/jwks.json",
                    "id_token_signing_alg_values_supported": ["ES256"],
                    "subject_types_supported": ["public"],
                    "response_types_supported": [],
                    "grant_types_supported":
                        ["urn:ietf:params:oauth:grant-type:token-exchange"],
                    "token_endpoint": "https://auth.example.com/x/oauth/token",
                    "token_endpoint_auth_methods_supported": ["none"],
                    "revocation_endpoint": "https://auth.example.com/x/oauth/revoke",
                    "revocation_endpoint_auth_methods_supported": ["none"],
                    "dpop_signing_alg_values_supported":
                        ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"],
                })
            )
        );
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
    }
    let health = service.get("/healthz").await;
    assert_eq!((health.status, &health.body), (200, &json!("ok\n")));
}

#[tokio::test]
async fn a_sound_request_id_is_kept_and_any_other_replaced() {
    let (issuer, service) = world().await;
    let long = "a".repeat(128);
    for id in [
        "a",
        "0.1_2-Z",
        "3f2b8c1e-1111-4222-8333-444455556666",
        &long,
    ] {
        let request = post_json(&service, "{}").header("x-request-id", id);
        let answer = service.send(request).await;
        answer.assert_refused(400, "credential_missing");
        assert_eq!(answer.header("x-request-id"), id);
        eventually("the id is logged", async || {
            service
                .logged("refused")
                .iter()
                .any(|line| line["request_id"] == id)
        })
        .await;
        let request = post(&service)
            .bearer_auth(issuer.token())
            .header("x-request-id", id);
        assert_eq!(service.send(request).await.header("x-request-id"), id);
    }
    let mut replaced = Vec::new();
    for id in [
        &b""[..],
        b"a b",
        b"a,b",
        b"<script>",
        b"${jndi:ldap://x}",
        b"a\tb",
        b"\xff",
        "ä".as_bytes(),
        &[b'a'; 129],
    ] {
        let request = post_json(&service, "{}").header("x-request-id", id);
        let answer = service.send(request).await;
        answer.assert_refused(400, "credential_missing");
        let new = answer.header("x-request-id").to_owned();
        assert_eq!(new.len(), 16, "{new}");
        replaced.push(new);
    }
    let count = replaced.len();
    replaced.sort_unstable();
    replaced.dedup();
    assert_eq!(replaced.len(), count, "each its own");
}

#[tokio::test]
async fn a_sound_traceparent_goes_on_and_into_the_log() {
    let (issuer, service) = world().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = post_json(&service, "{}").header("traceparent", parent);
    let answer = service.send(request).await;
    assert_eq!(answer.header("traceparent"), parent);
    let request = post(&service)
        .bearer_auth(issuer.token())
        .header("traceparent", parent);
    assert_eq!(service.send(request).await.header("traceparent"), parent);
    for message in ["refused", "exchanged"] {
        eventually("the trace is logged", async || {
            service
                .logged(message)
                .iter()
                .any(|line| line["trace_id"] == "0af7651916cd43dd8448eb211c80319c")
        })
        .await;
    }
    // W3C Trace Context §3.2.2: what is not valid is not carried on.
    for bad in [
        "",
        "x",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
    ] {
        let request = post_json(&service, "{}").header("traceparent", bad);
        let answer = service.send(request).await;
        answer.assert_refused(400, "credential_missing");
        assert!(!answer.headers.contains_key("traceparent"), "{bad}");
    }
}

#[tokio::test]
async fn refusals_of_tokens_show_no_part_of_them() {
    let (issuer, service) = world().await;
    let other = Token::clerk(&issuer.url);
    let key = crate::support::Key::rsa();
    for (token, status, code) in [
        (
            other.clone().claim("exp", 1).sign(key),
            401,
            "subject_token_expired",
        ),
        (
            other.clone().claim("sub", json!({CANARY: 1})).sign(key),
            401,
            "subject_token_claim_malformed",
        ),
        (
            other
                .clone()
                .claim("x", CANARY)
                .sign(crate::support::Key::other_rsa()),
            401,
            "subject_token_signature_invalid",
        ),
        (
            format!("{}!", issuer.token()),
            401,
            "subject_token_malformed",
        ),
        (CANARY.to_owned(), 401, "subject_token_opaque"),
        (
            format!("{CANARY}.{CANARY}.{CANARY}.{CANARY}.{CANARY}"),
            401,
            "subject_token_encrypted",
        ),
        (CANARY.repeat(2000), 400, "subject_token_too_large"),
    ] {
        let answer = service.session(&token).await;
        assert_silent(&answer, status, code, &token);
        let bearer = service.send(post(&service).bearer_auth(&token)).await;
        assert_silent(&bearer, status, code, &token);
    }
}
