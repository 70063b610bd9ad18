//! Which pages may read the answers in a browser (CORS): those of the origins that are allowed, and
//! of public documents all.

use crate::http::{EXCHANGE, JWKS, OAUTH, OPENID, post, post_json, world};
use crate::support::{Answer, Issuer, Service};
use reqwest::Method;
use serde_json::{Value, json};

const APP: &str = "https://app.example.com";

async fn with_origins() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env(
            "EXCHEQUER_ALLOWED_ORIGINS",
            format!("{APP}, http://localhost:3000"),
        )
        .start()
        .await;
    (issuer, service)
}

/// The CORS headers of an answer.
fn cors(answer: &Answer) -> Value {
    let headers: serde_json::Map<String, Value> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("access-control-") || *name == "vary")
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    headers.into()
}

#[tokio::test]
async fn an_allowed_origin_reads_every_answer_and_no_other_does() {
    let (issuer, service) = with_origins().await;
    let good = json!({"session_token": issuer.token()}).to_string();
    let allowed = |origin: &str| {
        json!({
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "dpop-nonce, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, www-authenticate, x-request-id",
            "vary": "origin",
        })
    };
    for origin in [APP, "http://localhost:3000"] {
        let request = post_json(&service, good.clone()).header("origin", origin);
        let answer = service.send(request).await;
        assert_eq!((answer.status, cors(&answer)), (200, allowed(origin)));
        // Without them a browser shows its page nothing but "network error".
        for (request, status) in [
            (post_json(&service, "{"), 400),
            (post_json(&service, "{\"session_token\":\"a.b.c\"}"), 401),
            (post(&service).body("x"), 415),
            (
                service.client.put(format!("{}{EXCHANGE}", service.url)),
                405,
            ),
            (service.client.get(format!("{}/nowhere", service.url)), 404),
            (post_json(&service, vec![b' '; 70_000]), 413),
            (post(&service).header("x-pad", "a".repeat(33_000)), 431),
            (
                service
                    .client
                    .get(format!("{}/{}", service.url, "a".repeat(9000))),
                414,
            ),
        ] {
            let answer = service.send(request.header("origin", origin)).await;
            assert_eq!((answer.status, cors(&answer)), (status, allowed(origin)));
        }
    }
    for origin in [
        None,
        Some("null"),
        Some(""),
        Some("*"),
        Some("https://app.example.com/"),
        Some("https://app.example.com:443"),
        Some("https://APP.example.com"),
        Some("http://app.example.com"),
        Some("https://example.com"),
        Some("https://x.app.example.com"),
        Some("https://app.example.com.evil.example"),
        Some("https://evilapp.example.com"),
        Some("http://localhost:3001"),
        Some("https://app.example.com, http://localhost:3000"),
    ] {
        let mut request = post_json(&service, good.clone());
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = service.send(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(cors(&answer), json!({"vary": "origin"}), "{origin:?}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_for_allowed_origins_alone() {
    let (_issuer, service) = with_origins().await;
    let preflight = |origin: Option<&str>| {
        let request = service
            .client
            .request(Method::OPTIONS, format!("{}{EXCHANGE}", service.url))
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type");
        match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        }
    };
    let answer = service.send(preflight(Some(APP))).await;
    assert_eq!((answer.status, &answer.body), (204, &json!("")));
    assert_eq!(
        cors(&answer),
        json!({
            "access-control-allow-origin": APP,
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "access-control-allow-headers": "authorization, content-type, dpop, traceparent, x-request-id",
            "access-control-expose-headers": "dpop-nonce, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, www-authenticate, x-request-id",
            "access-control-max-age": "600",
            "vary": "origin",
        })
    );
    for origin in [None, Some("null"), Some("https://evil.example")] {
        let answer = service.send(preflight(origin)).await;
        assert_eq!(cors(&answer), json!({"vary": "origin"}), "{origin:?}");
    }
}

#[tokio::test]
async fn without_allowed_origins_there_is_no_cors_at_all() {
    let (issuer, service) = world().await;
    let body = json!({"session_token": issuer.token()}).to_string();
    for origin in [APP, "null", "http://localhost:8080"] {
        let request = post_json(&service, body.clone()).header("origin", origin);
        let answer = service.send(request).await;
        assert_eq!((answer.status, cors(&answer)), (200, json!({})));
        let preflight = service
            .client
            .request(Method::OPTIONS, format!("{}{EXCHANGE}", service.url))
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        assert_eq!(cors(&service.send(preflight).await), json!({}));
    }
}

#[tokio::test]
async fn public_documents_are_for_every_origin() {
    for (_issuer, service) in [world().await, with_origins().await] {
        for path in [JWKS, OPENID, OAUTH] {
            for origin in [None, Some(APP), Some("null"), Some("https://evil.example")] {
                let mut request = service.client.get(format!("{}{path}", service.url));
                if let Some(origin) = origin {
                    request = request.header("origin", origin);
                }
                let answer = service.send(request).await;
                assert_eq!(answer.status, 200);
                assert_eq!(cors(&answer), json!({"access-control-allow-origin": "*"}));
            }
        }
    }
}
