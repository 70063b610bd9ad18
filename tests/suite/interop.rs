//! With software that we did not write: a real OpenID provider whose ID tokens we take, and
//! the JWT libraries of Node and Python, which take ours.

use crate::support::{Foreign, Issuer, Service, eventually, token};
use serde_json::{Value, json};

/// A provider that runs, and what it said of itself.
fn provider(port: &str) -> (Foreign, Value) {
    let provider = Foreign::start("node", &["oidc-provider.mjs", port]);
    let about = provider.next();
    (provider, about)
}

/// Signs somebody in and gives the ID token.
fn sign_in(provider: &mut Foreign, who: &str, client: &Value) -> String {
    let answer = provider.ask(&format!("token {who} {}", client.as_str().unwrap()));
    let token = answer["id_token"].as_str();
    token.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn id_tokens_of_a_real_provider_are_exchanged_and_a_dead_one_stops_nobody() {
    let (mut first, about) = provider("0");
    let url = about["issuer"].as_str().unwrap();
    let (rs256, es256) = (&about["client_id"], &about["es256_client_id"]);
    let service = Service::builder()
        .config(&format!(
            r#"
            [issuers.one]
            issuer = "{url}"
            kind = "oidc"
            audiences = [{rs256}]
            [issuers.two]
            issuer = "{url}"
            kind = "oidc"
            audiences = [{es256}]
            [apps.one]
            issuers = "one"
            claims.email = 'claims.email'
            [apps.two]
            issuers = "two"
            "#
        ))
        .start()
        .await;
    let exchange = async |token: &str, app: &str| {
        let body = json!({"subject_token": token, "app": app});
        service.exchange(&body).await
    };
    let mut tokens = Vec::new();
    for (who, client, app, other, alg) in [
        ("alice", rs256, "one", "two", "RS256"),
        ("bob", es256, "two", "one", "ES256"),
    ] {
        let token = sign_in(&mut first, who, client);
        assert_eq!(token::header(&token)["alg"], alg);
        let answer = exchange(&token, app).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["user"], json!({"id": who}));
        let claims = token::claims(answer.token());
        assert_eq!(claims["sub"], who);
        assert_eq!(claims["idp"], url);
        assert_eq!(claims["client_id"], app);
        if app == "one" {
            assert_eq!(claims["email"], "alice@example.com");
        }
        let answer = exchange(&token, other).await;
        answer.assert_refused(401, "subject_token_audience_mismatch");
        tokens.push((token, app));
    }

    first.kill();
    for (token, app) in &tokens {
        let answer = exchange(token, app).await;
        assert_eq!(answer.status, 200, "warm keys go on: {}", answer.body);
    }
    assert_eq!(service.admin("/readyz").await.status, 200);

    let port = url.rsplit_once(':').unwrap().1;
    let (mut second, about) = provider(port);
    assert_eq!(about["issuer"], url);
    let token = sign_in(&mut second, "carol", rs256);
    // Past the cool-down of fetches for an unknown `kid`.
    service.shift_clocks(0, 120);
    eventually("the new provider's keys are fetched", async || {
        exchange(&token, "one").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn opaque_access_tokens_of_a_real_provider_are_introspected() {
    let (mut provider, about) = provider("0");
    let (url, client) = (about["issuer"].as_str().unwrap(), &about["client_id"]);
    let own = &about["resource_server"];
    let secret = own["client_secret"].as_str().unwrap();
    let service = Service::builder()
        .config(&format!(
            r#"
            [issuers.provider]
            issuer = "{url}"
            kind = "introspection"
            client_id = {}
            client_secret = {{ env = "CLIENT_SECRET" }}
            authorized_parties = [{client}]
            [apps.web]
            issuers = "provider"
            claims.client = 'claims.client_id'
            claims.held = 'scopes'
            "#,
            own["client_id"]
        ))
        .env("CLIENT_SECRET", secret)
        .start()
        .await;
    let text = |answer: Value, name: &str| {
        let token = answer[name].as_str();
        token.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let signed_in = provider.ask("token alice");
    let access = text(signed_in.clone(), "access_token");
    assert!(!access.contains('.'), "an opaque one");
    let answer = service.exchange(&json!({"subject_token": access})).await;
    let claims = token::claims(answer.token());
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["idp"], url);
    assert_eq!(claims["client"], *client);
    assert_eq!(claims["held"], json!(["openid", "email"]));

    for (what, token, code) in [
        ("an ID token", text(signed_in, "id_token"), "inactive"),
        ("an invented one", format!("{access}x"), "inactive"),
        (
            "another client's",
            {
                let other = about["es256_client_id"].as_str().unwrap();
                text(provider.ask(&format!("token bob {other}")), "access_token")
            },
            "authorized_party_mismatch",
        ),
        (
            "a client's own",
            text(provider.ask("client-token"), "access_token"),
            "client_only",
        ),
    ] {
        let code = format!("subject_token_{code}");
        service.refuses(what, &token, &code).await;
    }

    assert_eq!(provider.ask(&format!("revoke {access}"))["revoked"], true);
    service.shift_clocks(0, 31);
    let inactive = "subject_token_inactive";
    service.refuses("a revoked one", &access, inactive).await;

    provider.kill();
    let answer = service.session("whatever").await;
    answer.assert_refused(503, "provider_unavailable");
}

const VERIFIERS: [(&str, &str, &str); 2] = [
    ("node", "verify.mjs", "ERR_JWKS_NO_MATCHING_KEY"),
    (".venv/bin/python", "verify.py", "PyJWKClientError"),
];

/// One of each verifying library, nothing cached.
pub fn verifiers() -> Vec<Foreign> {
    let start = |(program, script, _): &(&str, &str, &str)| Foreign::start(program, &[script]);
    VERIFIERS.iter().map(start).collect()
}

/// What each of them says to the token.
pub fn verdicts(
    verifiers: &mut [Foreign],
    service: &Service,
    token: &str,
    audience: &str,
) -> Vec<Value> {
    let question = json!({
        "token": token,
        "jwks_uri": format!("{}/.well-known/jwks.json", service.url),
        "issuer": "http://localhost:8080",
        "audience": audience,
    });
    let ask = |verifier: &mut Foreign| verifier.ask(&question.to_string());
    verifiers.iter_mut().map(ask).collect()
}

fn assert_verified(verifiers: &mut [Foreign], service: &Service, token: &str) {
    let header = token::header(token);
    let expected = json!({
        "ok": true, "kid": header["kid"], "alg": header["alg"], "sub": "user_1",
    });
    for verdict in verdicts(verifiers, service, token, "http://localhost:8080") {
        assert_eq!(verdict, expected);
    }
}

#[tokio::test]
async fn our_tokens_verify_with_jose_and_pyjwt_before_during_and_after_a_rotation() {
    let issuer = Issuer::start().await;
    // Each holds the first key set that it fetched for as long as its library does.
    let (mut old, mut during, mut after) = (verifiers(), verifiers(), verifiers());
    for alg in ["ES256", "RS256", "EdDSA"] {
        let service = Service::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .env("EXCHEQUER_KEY_ALG", alg)
            .start()
            .await;
        let mint = async || {
            let answer = service.session(&issuer.token()).await;
            answer.token().to_owned()
        };
        let first = mint().await;
        assert_eq!(token::header(&first)["alg"], alg);
        assert_verified(&mut old, &service, &first);
        for verdict in verdicts(&mut old, &service, &first, "https://elsewhere.example.com") {
            assert_eq!(verdict["ok"], false, "they do check: {verdict}");
        }

        let ended = service.command().run(&["keys", "rotate", "--force"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let mut second = mint().await;
        eventually("the standby signs", async || {
            second = mint().await;
            // Across the rotation, whichever key signs.
            assert_verified(&mut old, &service, &second);
            token::header(&second)["kid"] != token::header(&first)["kid"]
        })
        .await;
        for verifiers in [&mut old, &mut during] {
            assert_verified(verifiers, &service, &first);
            assert_verified(verifiers, &service, &second);
        }

        // The old key goes a day after it signed; then back to the verifiers' time.
        service.shift_clocks(25 * 3600, 0);
        eventually("the old key is gone", async || {
            let jwks = service.get("/.well-known/jwks.json").await.body;
            let mut keys = jwks["keys"].as_array().unwrap().iter();
            keys.all(|key| key["kid"] != token::header(&first)["kid"])
        })
        .await;
        service.shift_clocks(0, 0);
        let third = mint().await;
        assert_eq!(token::header(&third), token::header(&second));
        for verifiers in [&mut old, &mut during, &mut after] {
            assert_verified(verifiers, &service, &second);
            assert_verified(verifiers, &service, &third);
        }
        let verdicts = verdicts(&mut after, &service, &first, "http://localhost:8080");
        for (verdict, (_, _, error)) in verdicts.iter().zip(VERIFIERS) {
            assert_eq!(verdict["ok"], false);
            assert!(
                verdict["error"].as_str().unwrap().starts_with(error),
                "{verdict}"
            );
        }
    }
}
