//! What `exchequer doctor`, `exchequer check` and the metadata say of the settings of sign-in.

use crate::sign_in::{BACK, OURS, SECRET, with, world};
use crate::support::{Behaviour, Foreign, Issuer, Service, clerk};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_whether_a_provider_knows_the_client() {
    let issuer = Issuer::start().await;
    let mut service = with(&issuer, "").start().await;
    let rows = |service: &Service| {
        let ended = service.command().run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rows = report["checks"].as_array().unwrap().clone();
        let own = |row: &Value| row["check"] == "provider" && row["name"] == "op";
        rows.into_iter().filter(own).collect::<Vec<_>>()
    };
    for (status, body, expected, says) in [
        (
            400,
            "invalid_grant",
            "ok",
            "it knows the client exchequer op; the callback http://localhost:8080/auth/callback/op must be registered there",
        ),
        (
            401,
            "invalid_client",
            "provider_client_unknown",
            "register an application of your own there",
        ),
        (
            400,
            "unauthorized_client",
            "provider_client_unknown",
            "register an application of your own there",
        ),
        (
            400,
            "redirect_uri_mismatch",
            "provider_refused",
            "sign in once to see",
        ),
        (
            500,
            "server_error",
            "provider_unavailable",
            "the provider said server_error",
        ),
    ] {
        issuer.behave(
            "/token",
            Behaviour::Answer(status, json!({ "error": body }).to_string()),
        );
        let rows = rows(&service);
        assert_eq!(rows.len(), 1, "{rows:?}");
        let code = rows[0]["code"].as_str().unwrap_or("ok");
        assert_eq!(code, expected, "{rows:?}");
        let said = ["message", "next"].map(|member| rows[0][member].as_str().unwrap_or_default());
        assert!(said.join(" ").contains(says), "{rows:?}");
    }
    issuer.vanish();
    assert_eq!(rows(&service)[0]["code"], "provider_unavailable");

    // A real OAuth server of Clerk's wording, and a real provider.
    let clerk = clerk().await;
    let mut provider = Foreign::start("node", &["oidc-provider.mjs", "0"]);
    let about = provider.next();
    for (lines, id, secret) in [
        (
            format!("kind = \"clerk\"\nissuer = {:?}", clerk.issuer()),
            clerk.oauth_client().0,
            clerk.oauth_client().1,
        ),
        (
            format!("issuer = {}", about["issuer"]),
            about["web"]["client_id"].as_str().unwrap(),
            about["web"]["client_secret"].as_str().unwrap(),
        ),
    ] {
        for (id, secret, expected) in [
            (id, secret, None),
            (id, "another", Some("provider_client_unknown")),
            ("another", secret, Some("provider_client_unknown")),
        ] {
            let config = format!(
                "[providers.op]\n{lines}\nclient_id = {id:?}\nclient_secret = {{ env = \"OP_SECRET\" }}\n\
                 [apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = {BACK:?}\n"
            );
            std::fs::write(service.dir().join("exchequer.toml"), config).unwrap();
            service.set_env("OP_SECRET", secret);
            let rows = rows(&service);
            assert_eq!(
                rows[0]["code"].as_str(),
                expected,
                "{id} {secret}: {rows:?}"
            );
        }
    }
    provider.kill();
}

/// `exchequer check` of a file with these lines; the exit code and what it printed.
fn check(lines: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("exchequer.toml"), lines).unwrap();
    let command = crate::support::Command::new(dir.path()).env("S", SECRET);
    let ended = command.run(&["check"]);
    (ended.code, ended.stdout)
}

#[test]
fn check_says_what_is_wrong_with_a_provider_or_a_sign_in() {
    let app =
        "[apps.web.sign_in]\nproviders = \"p\"\nredirect_uris = \"https://app.example.com/back\"\n";
    let good = "[providers.p]\nissuer = \"https://p.example\"\nclient_id = \"c\"\nclient_secret = { env = \"S\" }\n";
    let (code, text) = check(&format!("{good}{app}"));
    assert_eq!(code, 0, "{text}");
    for line in [
        "ok:    issuer provider p (oidc) https://p.example RS256, ES256",
        "ok:    app web: sign-in at p; back to https://app.example.com/back",
        "ok:    provider p https://p.example: client c; callback http://localhost:8080/auth/callback/p",
    ] {
        assert!(text.lines().any(|each| each == line), "{text}");
    }
    assert!(
        !text.contains("error:") && !text.contains("note:"),
        "{text}"
    );

    for (lines, says) in [
        (
            format!(
                "{}{app}",
                good.replace("issuer = \"https://p.example\"\n", "")
            ),
            "`issuer` is missing",
        ),
        (
            format!("{}{app}", good.replace("client_id = \"c\"\n", "")),
            "`client_id` is missing: register an application of your own",
        ),
        (
            format!("{}{app}", good.replace("{ env = \"S\" }", "\"plain\"")),
            "a secret does not stand in the file",
        ),
        (
            format!("{good}kind = \"gogle\"\n{app}"),
            "kind: \"gogle\" is none of oidc, clerk, google, github, facebook: did you mean \"google\"?",
        ),
        (
            format!("{good}scopes = \"email\"\n{app}"),
            "scopes: must hold \"openid\"",
        ),
        (
            format!("{good}client_auth = \"private_key_jwt\"\n{app}"),
            "client_auth: \"private_key_jwt\" is none of",
        ),
        (
            format!("{good}token_endpoint = \"http://p.example/token\"\n{app}"),
            "token_endpoint: \"http://p.example/token\" must be https",
        ),
        (
            format!("[providers.p]\nkind = \"github\"\nclient_id = \"c\"\n{app}"),
            "`client_secret` is missing: the provider asks for it",
        ),
        (
            format!(
                "[providers.p]\nissuer = \"https://p.example\"\nclient_id = \"c\"\nclient_auth = \"client_secret_post\"\n{app}"
            ),
            "client_auth: needs `client_secret`",
        ),
        (
            format!("{good}{}", app.replace("\"p\"", "\"q\"")),
            "provider \"q\" is not configured",
        ),
        (
            format!("{good}[apps.web.sign_in]\nproviders = \"p\"\n"),
            "sign_in needs `redirect_uris`",
        ),
        (
            format!(
                "{good}{}",
                app.replace("https://app.example.com/back", "https://*.example.com/")
            ),
            "has a wildcard",
        ),
        (
            format!(
                "{good}{}",
                app.replace("https://app.example.com/back", "https://app.example.com/#x")
            ),
            "must have no fragment",
        ),
        (
            format!(
                "{good}{}",
                app.replace("https://app.example.com/back", "http://app.example.com/")
            ),
            "must be https: plain http is only for this machine",
        ),
        (
            format!(
                "{good}{}",
                app.replace("https://app.example.com/back", "javascript:alert(1)")
            ),
            "javascript is no scheme of an app",
        ),
        (
            format!(
                "{good}{}",
                app.replace(
                    "https://app.example.com/back",
                    "https://user:pw@app.example.com/"
                )
            ),
            "must have no user and no password",
        ),
        (
            format!(
                "{good}{}[apps.web.sign_in]\nproviders = [\"p\", \"q\"]\nredirect_uris = \"https://app.example.com/back\"\n",
                good.replace("providers.p", "providers.q")
                    .replace("p.example", "q.example")
            ),
            "the app trusts several issuers whose subjects could be equal: say with `subject`",
        ),
    ] {
        let (code, text) = check(&lines);
        assert_eq!(code, 1, "{lines}{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("error: ") && line.contains(says)),
            "{says}: {text}"
        );
        assert!(!text.contains("pw@"), "{text}");
    }
    for (lines, says) in [
        (
            format!(
                "{good}{}",
                app.replace(
                    "https://app.example.com/back",
                    "app://oauth-native-callback"
                )
            ),
            "another app on the device can claim this scheme",
        ),
        (
            format!(
                "{good}[issuers.i]\nissuer = \"https://i.example\"\naudiences = \"a\"\n[apps.web]\nissuers = \"i\"\n"
            ),
            "no app lists this provider",
        ),
        (
            format!("{good}client_auth = \"none\"\n{app}"),
            "client_auth: none: the secret is not sent",
        ),
        (
            format!("{good}api_url = \"https://p.example\"\n{app}"),
            "api_url: has no effect but for kinds github and facebook",
        ),
    ] {
        let (code, text) = check(&lines);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("note: ") && line.contains(says)),
            "{says}: {text}"
        );
    }
    // An issuer of the app's own with this `iss` has its own rules, and is the only one.
    let own = format!(
        "{good}[issuers.i]\nissuer = \"https://p.example\"\naudiences = \"a\"\n[apps.web]\nissuers = \"i\"\n{app}"
    );
    let (code, text) = check(&own);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("ok:    app web: issuers i;"), "{text}");
}

#[tokio::test]
async fn the_metadata_says_how_users_sign_in() {
    let (issuer, service) = world().await;
    let path = "/.well-known/oauth-authorization-server";
    let metadata = service.get(path).await.body;
    assert_eq!(
        metadata["grant_types_supported"],
        json!([
            "authorization_code",
            "urn:ietf:params:oauth:grant-type:token-exchange"
        ])
    );
    assert_eq!(metadata["response_types_supported"], json!(["code"]));
    assert_eq!(
        metadata["code_challenge_methods_supported"],
        json!(["S256"])
    );
    assert_eq!(
        metadata["authorization_response_iss_parameter_supported"],
        true
    );
    assert_eq!(metadata["token_endpoint"], format!("{OURS}/oauth/token"));
    let methods = &metadata["token_endpoint_auth_methods_supported"];
    assert_eq!(methods, &json!(["none"]));
    // Which of two it should be a client cannot know.
    assert_eq!(metadata.get("authorization_endpoint"), None);
    let url = &issuer.url;
    let one = Service::builder()
        .config(&format!(
            "[providers.op]\nissuer = {url:?}\nclient_id = \"c\"\n\
             [apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = {BACK:?}\n"
        ))
        .start()
        .await;
    let metadata = one.get(path).await.body;
    assert_eq!(
        metadata["authorization_endpoint"],
        format!("{OURS}/auth/login/op")
    );
}
