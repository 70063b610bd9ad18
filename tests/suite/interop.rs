//! With software that we did not write: a real OpenID provider whose ID tokens we take. Who takes
//! ours is run by `make test-interop`.

use crate::support::{Foreign, Service, eventually, token};
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
