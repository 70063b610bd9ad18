//! The main job: a session token in, an app JWT out.

use crate::support::{Issuer, Key, Service, Token, now, token};
use serde_json::json;

#[tokio::test]
async fn a_session_token_becomes_an_app_token() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let answer = service.session(&issuer.token()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = answer.token().to_owned();
    assert_eq!(
        answer.body,
        json!({
            "token": token,
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": 600,
            "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "user": {"id": "user_1", "org_id": "org_1", "roles": ["org:admin"]},
        })
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");

    let mut claims = token::claims(&token);
    let jti = claims["jti"].take();
    assert_eq!(jti.as_str().map(str::len), Some(22));
    let iat = claims["iat"].as_i64().unwrap();
    assert!(
        (now() - 12..=now() - 10).contains(&iat),
        "backdated by 10 s"
    );
    assert_eq!(
        claims,
        json!({
            "iss": "http://localhost:8080", "sub": "user_1", "aud": "http://localhost:8080",
            "exp": iat + 610, "iat": iat, "nbf": iat, "jti": null, "client_id": "default",
            "idp": issuer.url, "sid": "sess_1", "org_id": "org_1", "org_slug": "acme",
            "roles": ["org:admin"], "auth_time": claims["auth_time"],
        })
    );
    let jwks = service.get("/.well-known/jwks.json").await;
    let header = token::header(&token);
    assert_eq!(header["alg"], "ES256");
    assert_eq!(header["typ"], "JWT");
    assert!(
        jwks.body["keys"]
            .as_array()
            .unwrap()
            .iter()
            .any(|key| key["kid"] == header["kid"])
    );
}

#[tokio::test]
async fn every_way_to_send_the_token_is_the_same() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    for path in ["/auth/exchange", "/auth/clerk/exchange"] {
        let url = format!("{}{path}", service.url);
        for body in [
            json!({"session_token": token}),
            json!({"subject_token": token}),
            json!({"subject_token": token, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}),
        ] {
            let request = service
                .client
                .post(&url)
                .header("content-type", "application/json; charset=utf-8")
                .body(body.to_string());
            assert_eq!(service.send(request).await.status, 200);
        }
        let request = service.client.post(&url).bearer_auth(&token);
        assert_eq!(service.send(request).await.status, 200);
    }
}

#[tokio::test]
async fn a_forged_token_is_refused_with_what_the_caller_sent_and_no_more() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let forged = Token::clerk(&issuer.url).sign(Key::other_rsa());
    let answer = service.session(&forged).await;
    answer.assert_refused(401, "subject_token_signature_invalid");
    let mut body = answer.body.clone();
    body["request_id"].take();
    let exp = token::claims(&forged)["exp"].clone();
    assert_eq!(
        body,
        json!({
            "error": "invalid_token",
            "error_description": "The token's signature does not verify with the issuer's key of that `kid`.",
            "code": "subject_token_signature_invalid",
            "request_id": null,
            "retryable": false,
            "action": "fix_request",
            "seen": {"iss": issuer.url, "azp": "https://app.example.com", "typ": "JWT", "alg": "RS256", "kid": "ins_1", "exp": exp},
        })
    );
}

#[tokio::test]
async fn a_machine_without_ca_certificates_serves_an_issuer_that_needs_none() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}
