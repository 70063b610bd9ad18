//! What a provider may answer: another's word, a refusal, or nothing at all, and what the app is told.

use crate::sign_in::{
    BACK, Browser, asked, challenge, gives, login, parameters, sent, stays, told, with, world,
};
use crate::support::issuer::JWKS;
use crate::support::{Behaviour, Issuer, Key, Service, Token, eventually, now};
use serde_json::{Value, json};

#[tokio::test]
async fn the_answer_of_another_provider_is_refused() {
    let (issuer, service) = world().await;
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    let mixed_up = Browser {
        provider: "other".to_owned(),
        ..browser.clone()
    };
    stays(
        &mixed_up.with_code(&service).await,
        400,
        "sign_in_provider_mismatch",
    );
    stays(
        &browser.with_code(&service).await,
        400,
        "sign_in_state_invalid",
    );
    for iss in ["https://evil.example", "", &format!("{}/", issuer.url)] {
        let browser = Browser::new(&service, "op", &[]).await;
        gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
        let before = issuer.asked("/token");
        let pairs = [
            ("code", "1"),
            ("state", browser.at["state"].as_str()),
            ("iss", iss),
        ];
        let answer = browser.back(&service, &pairs).await;
        if iss.is_empty() {
            assert!(
                parameters(&sent(&answer)).contains_key("code"),
                "an empty one is none"
            );
        } else {
            told(&answer, iss, "access_denied", "sign_in_provider_mismatch");
            assert_eq!(
                issuer.asked("/token"),
                before,
                "the code was shown to nobody"
            );
        }
    }
}

#[tokio::test]
async fn an_id_token_of_another_sign_in_client_or_issuer_signs_nobody_in() {
    let (issuer, service) = world().await;
    type Change = fn(Token) -> Token;
    let changes: [(&str, Change, &str); 12] = [
        (
            "a code of another browser",
            |token| token.claim("nonce", "n"),
            "id_token_nonce_mismatch",
        ),
        (
            "no nonce",
            |token| token.without("nonce"),
            "id_token_nonce_mismatch",
        ),
        (
            "a nonce that is no text",
            |token| token.claim("nonce", 1),
            "id_token_nonce_mismatch",
        ),
        (
            "another client's",
            |token| token.claim("aud", "exchequer other"),
            "subject_token_audience_mismatch",
        ),
        (
            "nobody's",
            |token| token.without("aud"),
            "subject_token_audience_mismatch",
        ),
        (
            "several, and nobody says whose",
            |token| token.claim("aud", json!(["exchequer op", "x"])),
            "subject_token_authorized_party_mismatch",
        ),
        (
            "another party's",
            |token| token.claim("azp", "exchequer other"),
            "subject_token_authorized_party_mismatch",
        ),
        (
            "another issuer's",
            |token| token.claim("iss", "https://evil.example"),
            "subject_token_issuer_untrusted",
        ),
        (
            "expired",
            |token| token.claim("exp", now() - 60),
            "subject_token_expired",
        ),
        (
            "without an end",
            |token| token.without("exp"),
            "subject_token_claim_missing",
        ),
        (
            "an access token",
            |token| token.header("typ", "at+jwt"),
            "subject_token_type_mismatch",
        ),
        (
            "unsigned",
            |token| token.header("alg", "none"),
            "subject_token_algorithm_not_allowed",
        ),
    ];
    for (what, change, code) in changes {
        let browser = Browser::new(&service, "op", &[]).await;
        gives(&issuer, &change(browser.id_token(&issuer)).sign(Key::rsa()));
        told(
            &browser.with_code(&service).await,
            what,
            "access_denied",
            code,
        );
    }
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::other_rsa()));
    let answer = browser.with_code(&service).await;
    told(
        &answer,
        "another key",
        "access_denied",
        "subject_token_signature_invalid",
    );

    for (audiences, party) in [
        (json!(["exchequer op", "x"]), json!("exchequer op")),
        (json!(["exchequer op"]), Value::Null),
    ] {
        let browser = Browser::new(&service, "op", &[]).await;
        let token = browser.id_token(&issuer).claim("aud", audiences);
        gives(&issuer, &token.claim("azp", party).sign(Key::rsa()));
        assert!(parameters(&sent(&browser.with_code(&service).await)).contains_key("code"));
    }
}

#[tokio::test]
async fn what_the_provider_refuses_is_told_as_the_providers() {
    let (issuer, service) = world().await;
    let said =
        |error: &str| json!({"error": error, "error_description": "<b>mind you</b>"}).to_string();
    for (status, body, error, code) in [
        (
            401,
            said("invalid_client"),
            "server_error",
            "provider_client_unknown",
        ),
        (
            400,
            said("unauthorized_client"),
            "server_error",
            "provider_client_unknown",
        ),
        (
            401,
            "nope".to_owned(),
            "server_error",
            "provider_client_unknown",
        ),
        (
            400,
            said("invalid_grant"),
            "access_denied",
            "provider_code_refused",
        ),
        (
            400,
            said("invalid_scope"),
            "server_error",
            "provider_refused",
        ),
        (
            400,
            said("a word of its own"),
            "server_error",
            "provider_refused",
        ),
        (
            200,
            said("invalid_grant"),
            "access_denied",
            "provider_code_refused",
        ),
        (
            200,
            json!({"access_token": "x"}).to_string(),
            "server_error",
            "provider_answer_invalid",
        ),
        (
            200,
            "<html>".to_owned(),
            "server_error",
            "provider_answer_invalid",
        ),
        (
            404,
            "<html>".to_owned(),
            "server_error",
            "provider_answer_invalid",
        ),
        (
            302,
            String::new(),
            "temporarily_unavailable",
            "provider_unavailable",
        ),
        (
            500,
            String::new(),
            "temporarily_unavailable",
            "provider_unavailable",
        ),
        (
            503,
            said("temporarily_unavailable"),
            "temporarily_unavailable",
            "provider_unavailable",
        ),
        // Last: then it is left alone for a while.
        (
            429,
            String::new(),
            "temporarily_unavailable",
            "provider_rate_limited",
        ),
    ] {
        issuer.behave("/token", Behaviour::Answer(status, body.clone()));
        let browser = Browser::new(&service, "op", &[]).await;
        let told = told(
            &browser.with_code(&service).await,
            &format!("{status} {body}"),
            error,
            code,
        );
        assert_eq!(told["source"], "upstream-idp", "{status} {body}");
        assert!(!told["error_description"].contains("mind you"), "{told:?}");
        assert!(
            !told["error_description"].contains("word of its own"),
            "{told:?}"
        );
    }
    for (error, expected, code) in [
        ("access_denied", "access_denied", "sign_in_denied"),
        ("login_required", "access_denied", "sign_in_denied"),
        ("invalid_client", "server_error", "provider_client_unknown"),
        (
            "unauthorized_client",
            "server_error",
            "provider_client_unknown",
        ),
        ("invalid_scope", "server_error", "provider_refused"),
        (
            "temporarily_unavailable",
            "temporarily_unavailable",
            "provider_unavailable",
        ),
        ("<script>", "server_error", "provider_refused"),
    ] {
        let browser = Browser::new(&service, "op", &[]).await;
        let before = issuer.asked("/token");
        let pairs = [
            ("error", error),
            (
                "error_description",
                "The requested OAuth 2.0 Client does not exist.",
            ),
            ("state", browser.at["state"].as_str()),
        ];
        let told = told(&browser.back(&service, &pairs).await, error, expected, code);
        assert_eq!(told["source"], "upstream-idp");
        assert!(!told["error_description"].contains('<'), "{told:?}");
        assert_eq!(issuer.asked("/token"), before);
    }
    let browser = Browser::new(&service, "op", &[]).await;
    let answer = browser
        .back(&service, &[("state", browser.at["state"].as_str())])
        .await;
    told(
        &answer,
        "neither",
        "server_error",
        "provider_answer_invalid",
    );
}

#[tokio::test]
async fn a_dead_provider_is_told_in_time() {
    let issuer = Issuer::start().await;
    let service = with(
        &issuer,
        &format!("[providers.dead]\nissuer = {:?}\nclient_id = \"x\"\n[apps.dead.sign_in]\nproviders = \"dead\"\nredirect_uris = {BACK:?}\n", issuer.url),
    )
    .start()
    .await;
    let challenge = challenge();
    let of_dead = asked(&challenge, &[("app", "dead")]);
    // Its discovery document names no endpoints at first.
    told(
        &login(&service, "dead", &of_dead).await,
        "malformed",
        "temporarily_unavailable",
        "issuer_metadata_invalid",
    );
    let browser = Browser::new(&service, "op", &[]).await;
    for behaviour in [
        Behaviour::Stall,
        Behaviour::Drip,
        Behaviour::Flood(1 << 21),
        Behaviour::Close,
        Behaviour::Redirect("http://127.0.0.1:1/".to_owned()),
    ] {
        issuer.behave("/token", behaviour);
        let browser = Browser::new(&service, "op", &[]).await;
        let answer = browser.with_code(&service).await;
        told(
            &answer,
            "dead",
            "temporarily_unavailable",
            "provider_unavailable",
        );
    }
    issuer.vanish();
    told(
        &browser.with_code(&service).await,
        "gone",
        "temporarily_unavailable",
        "provider_unavailable",
    );
    service.shift_clocks(6, 6);
    told(
        &login(&service, "dead", &of_dead).await,
        "gone",
        "temporarily_unavailable",
        "provider_unavailable",
    );
}

#[tokio::test]
async fn a_dead_token_endpoint_is_left_alone_and_asked_again_after_a_while() {
    let (issuer, service) = world().await;
    issuer.behave("/token", Behaviour::Answer(500, String::new()));
    let fails = async |asked: usize| {
        let browser = Browser::new(&service, "op", &[]).await;
        let answer = browser.with_code(&service).await;
        let (error, code) = ("temporarily_unavailable", "provider_unavailable");
        told(&answer, "dead", error, code);
        assert_eq!(issuer.asked("/token"), asked);
    };
    for asked in 1..=5 {
        fails(asked).await;
    }
    for _ in 0..5 {
        fails(5).await;
    }
    service.shift_clocks(2, 2);
    fails(6).await;
    fails(6).await;
    service.shift_clocks(60, 60);
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    assert!(parameters(&sent(&browser.with_code(&service).await)).contains_key("code"));
}

#[tokio::test]
async fn endpoints_that_were_found_serve_for_a_day_while_nobody_can_look_them_up() {
    const METADATA: &str = "/.well-known/openid-configuration";
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let says = |path: &str| {
        let body = json!({
            "issuer": url, "jwks_uri": format!("{url}{JWKS}"),
            "authorization_endpoint": format!("{url}{path}"), "token_endpoint": format!("{url}/token"),
        });
        issuer.behave(METADATA, Behaviour::Answer(200, body.to_string()));
    };
    says("/first");
    let service = Service::builder()
        .config(&format!(
            "[providers.op]\nissuer = {url:?}\nclient_id = \"x\"\n\
             [apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = {BACK:?}\n"
        ))
        .start()
        .await;
    let challenge = challenge();
    let at = async || {
        let answer = login(&service, "op", &asked(&challenge, &[])).await;
        sent(&answer).path().to_owned()
    };
    assert_eq!(at().await, "/first");
    says("/second");
    service.shift_clocks(3000, 3000);
    assert_eq!(at().await, "/first", "for an hour they are believed");
    // Then they are looked up while nobody waits.
    issuer.behave(METADATA, Behaviour::Stall);
    service.shift_clocks(3601, 3601);
    let looks = issuer.asked(METADATA);
    for _ in 0..3 {
        assert_eq!(at().await, "/first");
    }
    eventually("it is looked up", async || issuer.asked(METADATA) > looks).await;
    issuer.behave(METADATA, Behaviour::Answer(500, String::new()));
    service.shift_clocks(86_000, 86_000);
    assert_eq!(at().await, "/first", "it fails, and they serve");
    says("/third");
    service.shift_clocks(86_200, 86_200);
    eventually("the new ones are found", async || at().await == "/third").await;
    issuer.behave(METADATA, Behaviour::Answer(500, String::new()));
    service.shift_clocks(180_000, 180_000);
    let answer = login(&service, "op", &asked(&challenge, &[])).await;
    let (error, code) = ("temporarily_unavailable", "provider_unavailable");
    told(&answer, "after a day they are none", error, code);
}
