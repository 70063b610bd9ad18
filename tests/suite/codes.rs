//! The code that a sign-in ends with: for one app, one redirect URI and whoever began, once and for
//! a minute.

use crate::sign_in::{
    BACK, Browser, OURS, VERIFIER, app_token, asked, challenge, code, exchange, gives, login,
    parameters, query, sent, told, with, world,
};
use crate::support::{Issuer, Key, now, token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exchequer::crypto::sha256;
use serde_json::json;

#[tokio::test]
async fn a_code_is_for_its_app_its_redirect_uri_and_its_verifier_for_a_minute() {
    let (issuer, service) = world().await;
    let given = code(&issuer, &service, &[]).await;
    assert_eq!(given.len(), 43, "256 bits");
    let other = "e".repeat(43);
    for (what, other, code) in [
        (
            "another app",
            vec![("client_id", "second")],
            "authorization_code_invalid",
        ),
        (
            "another redirect URI",
            vec![("redirect_uri", "app://oauth-native-callback")],
            "authorization_code_invalid",
        ),
        (
            "another verifier",
            vec![("code_verifier", other.as_str())],
            "code_verifier_wrong",
        ),
        (
            "the challenge",
            vec![("code_verifier", &challenge())],
            "code_verifier_wrong",
        ),
        (
            "no verifier",
            vec![("code_verifier", "")],
            "parameter_malformed",
        ),
        (
            "no redirect URI",
            vec![("redirect_uri", "")],
            "parameter_malformed",
        ),
        ("no code", vec![("code", "")], "parameter_malformed"),
        (
            "another code",
            vec![("code", &given[1..])],
            "authorization_code_invalid",
        ),
    ] {
        let answer = exchange(&service, &given, &other).await;
        assert_eq!(answer.body["code"], code, "{what}: {}", answer.body);
        answer.assert_refused(400, code);
        assert!(!answer.body.to_string().contains(&given));
    }
    // None of them used it up.
    let answer = exchange(&service, &given, &[]).await;
    assert_eq!(token::claims(app_token(&answer))["sub"], "248289761001");
    assert_eq!(answer.body["token_type"], "Bearer");

    let late = code(&issuer, &service, &[]).await;
    service.shift_clocks(60, 60);
    exchange(&service, &late, &[])
        .await
        .assert_refused(400, "authorization_code_invalid");
}

#[tokio::test]
async fn a_code_that_comes_again_ends_what_it_gave() {
    let (issuer, service) = world().await;
    let given = code(&issuer, &service, &[]).await;
    let answer = exchange(&service, &given, &[]).await;
    let bearer = app_token(&answer).to_owned();
    let verify = async || {
        let request = service
            .client
            .get(format!("{}/auth/verify", service.url))
            .bearer_auth(&bearer);
        service.send(request).await
    };
    // Whoever has no verifier ends nothing.
    let other = "e".repeat(43);
    exchange(&service, &given, &[("code_verifier", &other)])
        .await
        .assert_refused(400, "code_verifier_wrong");
    assert_eq!(verify().await.status, 200);
    exchange(&service, &given, &[])
        .await
        .assert_refused(400, "authorization_code_used");
    verify().await.assert_refused(401, "token_revoked");
    exchange(&service, &given, &[])
        .await
        .assert_refused(400, "authorization_code_used");
}

#[tokio::test]
async fn a_refresh_token_comes_with_the_code_and_ends_with_it() {
    let issuer = Issuer::start().await;
    let native = "app://oauth-native-callback";
    let service = with(
        &issuer,
        &format!("[apps.native]\nrefresh = {{}}\nscopes = {{ \"read:tasks\" = [] }}\n[apps.native.sign_in]\nproviders = \"op\"\nredirect_uris = {native:?}\n"),
    )
    .start()
    .await;
    let refresh = async |token: &str| {
        let body = query([
            ("grant_type", "refresh_token"),
            ("client_id", "native"),
            ("refresh_token", token),
        ]);
        let request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        service.send(request).await
    };
    let of_native = [("client_id", "native"), ("redirect_uri", native)];
    for scope in ["read:tasks", "read:tasks offline_access"] {
        let asked = [
            ("app", "native"),
            ("redirect_uri", native),
            ("scope", scope),
        ];
        let browser = Browser::new(&service, "op", &asked).await;
        gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
        let url = sent(&browser.with_code(&service).await);
        let given = parameters(&url).remove("code").unwrap();
        let answer = exchange(&service, &given, &of_native).await;
        assert_eq!(token::claims(app_token(&answer))["scope"], "read:tasks");
        let Some(first) = answer.body["refresh_token"].as_str() else {
            assert_eq!(scope, "read:tasks", "nobody asked for it");
            continue;
        };
        assert_eq!(scope, "read:tasks offline_access");
        let next = refresh(first).await;
        assert_eq!(token::claims(app_token(&next))["sub"], "248289761001");
        exchange(&service, &given, &of_native)
            .await
            .assert_refused(400, "authorization_code_used");
        let next = next.body["refresh_token"].as_str().unwrap();
        refresh(next)
            .await
            .assert_refused(400, "refresh_token_revoked");
    }
}

#[tokio::test]
async fn a_code_that_is_raced_a_thousand_times_is_honoured_once() {
    let (issuer, service) = world().await;
    let given = code(&issuer, &service, &[]).await;
    let (service, given) = (&service, &given);
    let tried = (0..1000).map(|_| async move { exchange(service, given, &[]).await });
    let answers = futures_util::future::join_all(tried).await;
    let honoured = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(honoured, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.assert_refused(400, "authorization_code_used");
    }
}

/// A proof of this key for the token endpoint, and the key's thumbprint (RFC 7638 §3.1).
fn proof(key: &Key) -> (String, String) {
    let mut jwk = key.jwk("any");
    for name in ["kid", "alg", "use"] {
        jwk.as_object_mut().unwrap().remove(name);
    }
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(jwk.to_string().as_bytes()));
    let header = json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": jwk});
    let jti = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
    let uri = format!("{OURS}/oauth/token");
    let claims = json!({"jti": jti, "htm": "POST", "htu": uri, "iat": now()});
    let proof = token::assemble(&header.to_string(), &claims.to_string(), |message| {
        key.sign(message)
    });
    (proof, thumbprint)
}

#[tokio::test]
async fn a_code_that_was_asked_for_with_a_key_is_good_with_that_key_alone() {
    let (issuer, service) = world().await;
    let (_, thumbprint) = proof(Key::p256());
    let given = code(&issuer, &service, &[("dpop_jkt", &thumbprint)]).await;
    let exchange = async |proof: Option<&str>| {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", given.as_str()),
            ("redirect_uri", BACK),
            ("client_id", "web"),
            ("code_verifier", VERIFIER),
        ];
        let mut request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(query(pairs));
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        service.send(request).await
    };
    exchange(None)
        .await
        .assert_refused(400, "dpop_proof_missing");
    let (other, _) = proof(Key::ed25519());
    exchange(Some(&other))
        .await
        .assert_refused(400, "dpop_key_mismatch");
    let (right, _) = proof(Key::p256());
    let answer = exchange(Some(&right)).await;
    assert_eq!(answer.body["token_type"], "DPoP", "{}", answer.body);
    let claims = token::claims(app_token(&answer));
    assert_eq!(claims["cnf"]["jkt"], thumbprint);

    let challenge = challenge();
    let pairs = asked(&challenge, &[("dpop_jkt", "no thumbprint")]);
    let answer = login(&service, "op", &pairs).await;
    told(
        &answer,
        "no thumbprint",
        "invalid_request",
        "parameter_malformed",
    );
}

#[tokio::test]
async fn policy_is_asked_when_the_code_is_exchanged() {
    let issuer = Issuer::start().await;
    let service = with(
        &issuer,
        "[apps.strict]\naudience = [\"a\", \"b\"]\ncondition = 'claims.email.startsWith(\"alice\")'\nscopes = { \"read:tasks\" = [], \"write:tasks\" = [] }\n\
         [apps.strict.sign_in]\nproviders = \"op\"\nredirect_uris = \"app://oauth-native-callback\"\n",
    )
    .start()
    .await;
    let native = "app://oauth-native-callback";
    for (email, allowed) in [("alice@example.com", true), ("mallory@example.com", false)] {
        let asked = [
            ("app", "strict"),
            ("redirect_uri", native),
            ("scope", "read:tasks"),
            ("audience", "b"),
        ];
        let browser = Browser::new(&service, "op", &asked).await;
        gives(
            &issuer,
            &browser
                .id_token(&issuer)
                .claim("email", email)
                .sign(Key::rsa()),
        );
        let url = sent(&browser.with_code(&service).await);
        assert!(
            url.as_str()
                .starts_with("app://oauth-native-callback?code="),
            "{url}"
        );
        let with = [("client_id", "strict"), ("redirect_uri", native)];
        let answer = exchange(&service, &parameters(&url)["code"], &with).await;
        if allowed {
            assert_eq!(answer.body["scope"], "read:tasks");
            let claims = token::claims(app_token(&answer));
            assert_eq!(
                (&claims["aud"], &claims["scope"]),
                (&json!("b"), &json!("read:tasks"))
            );
        } else {
            answer.assert_refused(400, "condition_not_met");
        }
    }
}
