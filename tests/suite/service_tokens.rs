//! Service tokens: a backend proves itself at the token endpoint and gets a short-lived token
//! for one other backend, with no user in it.

use crate::support::{Answer, Command, Issuer, Key, Service, Token, eventually, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "")
        .env("EXCHEQUER_AUDIT", "file:audit")
        .start()
        .await;
    (issuer, service)
}

/// One app, and the clients `reports`, `bare` and `quiet`.
fn with(issuer: &Issuer, lines: &str) -> crate::support::service::Builder {
    let client = format!(
        "[clients.reports]\nsecret = {{ env = \"REPORTS_SECRET\" }}\n\
         audience = [\"https://tasks.internal\", \"https://mail.internal\"]\n\
         scopes = [\"read:tasks\", \"send:mail\"]\n{lines}\n\
         [clients.bare]\nsecret = {{ env = \"REPORTS_SECRET\" }}\naudience = \"https://tasks.internal\"\nttl = \"1h\"\n\
         [clients.quiet]\nsecret = {{ env = \"REPORTS_SECRET\" }}\n"
    );
    Service::builder()
        .one_app(issuer, "", &client)
        .env("REPORTS_SECRET", SECRET)
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn send(service: &Service, authorization: Option<&str>, body: String) -> Answer {
    let mut request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    service.send(request).await
}

/// Asks as the client `reports`, with these further parameters.
async fn ask(service: &Service, further: &[(&str, &str)]) -> Answer {
    let pairs = [&[("grant_type", "client_credentials")], further].concat();
    send(service, Some(&basic("reports", SECRET)), form(&pairs)).await
}

fn issued(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["access_token"].as_str().unwrap()
}

#[tokio::test]
async fn a_client_gets_a_short_lived_token_with_no_user_in_it() {
    let (_issuer, service) = world().await;
    let answer = ask(&service, &[]).await;
    let compact = issued(&answer).to_owned();
    assert_eq!(
        answer.body,
        json!({
            "access_token": compact, "token_type": "Bearer", "expires_in": 300,
            "scope": "read:tasks send:mail",
        }),
        "RFC 6749 §5.1 and nothing else"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("pragma"), "no-cache");
    assert_eq!(answer.header("content-type"), "application/json");
    let mut claims = token::claims(&compact);
    let iat = claims["iat"].as_i64().unwrap();
    assert!(
        (now() - 12..=now() - 10).contains(&iat),
        "backdated by 10 s"
    );
    assert_eq!(claims["jti"].take().as_str().map(str::len), Some(22));
    assert_eq!(
        claims,
        json!({
            "iss": "http://localhost:8080", "sub": "reports", "aud": "https://tasks.internal",
            "exp": iat + 310, "iat": iat, "nbf": iat, "jti": null, "client_id": "reports",
            "scope": "read:tasks send:mail",
        })
    );
    let kid = token::header(&compact)["kid"].clone();
    assert_eq!(
        token::header(&compact),
        json!({"alg": "ES256", "kid": kid, "typ": "JWT"})
    );
    let mut lines = Vec::new();
    eventually("it is logged", async || {
        lines = service.logged("issued");
        !lines.is_empty()
    })
    .await;
    assert_eq!(lines[0]["client"], "reports");
    assert_eq!(lines[0]["jti"], token::claims(&compact)["jti"]);
    assert!(service.log().iter().all(|line| !line.contains(SECRET)));

    let mut event = Value::Null;
    eventually("it is in the audit log", async || {
        let events = std::fs::read_to_string(service.dir().join("audit")).unwrap();
        let lines = events.lines();
        let mut events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        event = events.next_back().unwrap_or_default();
        event["action"] == "token"
    })
    .await;
    for (member, value) in [
        ("outcome", "ok"),
        ("client", "reports"),
        ("audience", "https://tasks.internal"),
        ("scope", "read:tasks send:mail"),
    ] {
        assert_eq!(event[member], value, "{event}");
    }
    assert_eq!(event["jti"], lines[0]["jti"]);

    // A client without scopes has none in its token.
    let body = form(&[("grant_type", "client_credentials")]);
    let answer = send(&service, Some(&basic("bare", SECRET)), body).await;
    let claims = token::claims(issued(&answer));
    assert_eq!(
        (answer.body.get("scope"), claims.get("scope")),
        (None, None)
    );
    assert_eq!(answer.body["expires_in"], 3600);
}

#[tokio::test]
async fn audience_and_scope_are_narrowed_to_the_clients() {
    let (_issuer, service) = world().await;
    for (further, audience, scope) in [
        (
            vec![("audience", "https://mail.internal")],
            "https://mail.internal",
            "read:tasks send:mail",
        ),
        (
            vec![("resource", "https://mail.internal")],
            "https://mail.internal",
            "read:tasks send:mail",
        ),
        (
            vec![
                ("resource", "https://tasks.internal"),
                ("audience", "https://tasks.internal"),
            ],
            "https://tasks.internal",
            "read:tasks send:mail",
        ),
        (
            vec![("scope", "send:mail")],
            "https://tasks.internal",
            "send:mail",
        ),
        (
            vec![("scope", "send:mail admin read:tasks send:mail")],
            "https://tasks.internal",
            "send:mail read:tasks",
        ),
        (
            vec![("scope", ""), ("audience", "")],
            "https://tasks.internal",
            "read:tasks send:mail",
        ),
        (
            vec![("sub", "user_1"), ("ttl", "86400"), ("client", "bare")],
            "https://tasks.internal",
            "read:tasks send:mail",
        ),
    ] {
        let answer = ask(&service, &further).await;
        let claims = token::claims(issued(&answer));
        assert_eq!(claims["aud"], audience, "{further:?}");
        assert_eq!(claims["scope"], scope, "{further:?}");
        assert_eq!(answer.body["scope"], scope, "{further:?}");
        assert_eq!(claims["sub"], "reports");
    }
    for (further, error, code) in [
        (
            vec![("audience", "https://other.internal")],
            "invalid_target",
            "audience_not_allowed",
        ),
        (
            vec![("resource", "https://tasks.internal/")],
            "invalid_target",
            "audience_not_allowed",
        ),
        (
            vec![
                ("resource", "https://tasks.internal"),
                ("resource", "https://mail.internal"),
            ],
            "invalid_target",
            "audience_not_allowed",
        ),
        (
            vec![("scope", "admin")],
            "invalid_scope",
            "scope_not_allowed",
        ),
        (
            vec![("scope", "read:tasks\"")],
            "invalid_scope",
            "scope_not_allowed",
        ),
        (
            vec![("audience", "a\u{7f}b")],
            "invalid_request",
            "parameter_malformed",
        ),
        (
            vec![("scope", "read:tasks"), ("scope", "send:mail")],
            "invalid_request",
            "parameter_malformed",
        ),
        (
            vec![("grant_type", "client_credentials")],
            "invalid_request",
            "parameter_malformed",
        ),
    ] {
        let answer = ask(&service, &further).await;
        answer.assert_refused(400, code);
        assert_eq!(answer.body["error"], error, "{further:?}");
    }
    // A client without scopes, that asks for some.
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("scope", "read:tasks"),
    ]);
    send(&service, Some(&basic("bare", SECRET)), body)
        .await
        .assert_refused(400, "scope_not_allowed");
}

#[tokio::test]
async fn a_client_proves_itself_in_exactly_one_way() {
    let (_issuer, service) = world().await;
    let grant = ("grant_type", "client_credentials");
    let encoded: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    assert_ne!(encoded, SECRET);
    let (raw, form_encoded) = (basic("reports", SECRET), basic("reports", &encoded));
    let (id, secret) = (("client_id", "reports"), ("client_secret", SECRET));
    for (header, pairs) in [
        (Some(raw.as_str()), vec![grant]),
        (Some(form_encoded.as_str()), vec![grant]),
        (Some(raw.as_str()), vec![grant, id]),
        (Some(&raw.replace("Basic", "bASIC")), vec![grant]),
        (None, vec![grant, id, secret]),
    ] {
        let answer = send(&service, header, form(&pairs)).await;
        assert_eq!(answer.status, 200, "{header:?} {pairs:?} {}", answer.body);
    }
    for (header, pairs) in [
        (Some(raw.as_str()), vec![grant, secret]),
        (Some(raw.as_str()), vec![grant, id, secret]),
        (Some(raw.as_str()), vec![grant, ("client_id", "bare")]),
    ] {
        let answer = send(&service, header, form(&pairs)).await;
        answer.assert_refused(400, "several_credentials");
        assert_eq!(answer.body["error"], "invalid_request");
    }
    for (header, pairs) in [
        (None, vec![grant]),
        (None, vec![grant, id]),
        (None, vec![grant, secret]),
        (None, vec![grant, id, ("client_secret", "")]),
        (Some("Bearer abc"), vec![grant]),
        (Some("Basic"), vec![grant]),
        (Some("Basic %%%"), vec![grant]),
        (Some("Basic cmVwb3J0cw=="), vec![grant]),
    ] {
        let answer = send(&service, header, form(&pairs)).await;
        answer.assert_refused(401, "client_authentication_missing");
        assert_challenged(&answer);
    }
}

#[track_caller]
fn assert_challenged(answer: &Answer) {
    assert_eq!(answer.body["error"], "invalid_client");
    assert_eq!(
        answer.header("www-authenticate"),
        "Basic realm=\"exchequer\", charset=\"UTF-8\""
    );
}

#[tokio::test]
async fn strangers_do_not_learn_which_clients_there_are() {
    let (_issuer, service) = world().await;
    let body = || form(&[("grant_type", "client_credentials")]);
    let upper = SECRET.to_uppercase();
    let cut = &SECRET[..SECRET.len() - 1];
    let longer = format!("{SECRET} ");
    let mut said = Vec::new();
    let cases = [
        ("nobody", SECRET),
        ("REPORTS", SECRET),
        ("web", SECRET),
        ("reports", "wrong"),
        ("reports", ""),
        ("reports", cut),
        ("reports", &upper),
        ("reports", &longer),
    ];
    for (id, secret) in cases {
        let answer = send(&service, Some(&basic(id, secret)), body()).await;
        answer.assert_refused(401, "client_authentication_failed");
        assert_challenged(&answer);
        let mut body = answer.body.clone();
        body["request_id"].take();
        said.push(body);
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
        ];
        if !secret.is_empty() {
            let answer = send(&service, None, form(&pairs)).await;
            answer.assert_refused(401, "client_authentication_failed");
        }
    }
    assert!(said.iter().all(|each| *each == said[0]), "{said:?}");
    let mut causes = Vec::new();
    eventually("the operator is told", async || {
        let lines = service.logged("refused");
        let cause = |line: &Value| line["cause"].as_str().unwrap().to_owned();
        causes = lines.iter().map(cause).collect();
        causes.len() == 15
    })
    .await;
    let unknown = "client_unknown: no client of this id is registered";
    assert_eq!(causes.iter().filter(|cause| *cause == unknown).count(), 6);
    assert_eq!(
        causes
            .iter()
            .filter(|cause| *cause == "client_secret_wrong: the secret of reports is another")
            .count(),
        9
    );

    // A client that proves itself, and gets nothing.
    let answer = send(&service, Some(&basic("quiet", SECRET)), body()).await;
    answer.assert_refused(400, "client_not_allowed");
    assert_eq!(answer.body["error"], "unauthorized_client");
}

#[tokio::test]
async fn what_is_no_request_for_a_service_token_is_refused_in_oauths_words() {
    let (issuer, service) = world().await;
    let header = basic("reports", SECRET);
    for (grant, error, code) in [
        (None, "invalid_request", "parameter_malformed"),
        (Some(""), "invalid_request", "parameter_malformed"),
        (
            Some("password"),
            "unsupported_grant_type",
            "grant_type_unsupported",
        ),
        (
            Some("CLIENT_CREDENTIALS"),
            "unsupported_grant_type",
            "grant_type_unsupported",
        ),
    ] {
        let body = grant.map_or_else(String::new, |grant| form(&[("grant_type", grant)]));
        let answer = send(&service, Some(&header), body).await;
        answer.assert_refused(400, code);
        assert_eq!(answer.body["error"], error, "{grant:?}");
    }
    let url = format!("{}/oauth/token", service.url);
    let sent_as = async |kind: &str, body: &str| {
        let request = service
            .client
            .post(&url)
            .header("authorization", &header)
            .header("content-type", kind)
            .body(body.to_owned());
        service.send(request).await
    };
    // Real callers send JSON.
    let list = json!({
        "grant_type": "client_credentials", "audience": ["https://mail.internal"], "scope": null,
    });
    let answer = sent_as("application/json", &list.to_string()).await;
    assert_eq!(
        token::claims(issued(&answer))["aud"],
        "https://mail.internal"
    );
    for (body, code) in [
        ("[]", "body_malformed"),
        ("{", "body_malformed"),
        (r#"{"grant_type": 1}"#, "body_malformed"),
        (r#"{"scope": "a", "scope": "b"}"#, "parameter_malformed"),
        (
            r#"{"grant_type": ["client_credentials", "password"]}"#,
            "parameter_malformed",
        ),
        // Only audience and resource may be several.
        (
            r#"{"grant_type": ["client_credentials"]}"#,
            "parameter_malformed",
        ),
        (
            r#"{"grant_type": "client_credentials", "scope": []}"#,
            "parameter_malformed",
        ),
    ] {
        let answer = sent_as("application/json", body).await;
        answer.assert_refused(400, code);
    }
    let answer = sent_as("text/plain", "grant_type=client_credentials").await;
    answer.assert_refused(415, "content_type_unsupported");
    assert!(
        answer.body["error_description"]
            .as_str()
            .unwrap()
            .contains("x-www-form-urlencoded"),
        "{}",
        answer.body
    );
    let names: Vec<String> = (0..65).map(|number| format!("p{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let answer = send(&service, Some(&header), form(&many)).await;
    answer.assert_refused(400, "parameter_malformed");
    assert_eq!(
        answer.body["error_description"],
        "There are more than 64 parameters."
    );
    // Nothing in the URL counts (RFC 6749 §2.3.1).
    let pairs = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", "reports"),
        ("client_secret", "x"),
    ]);
    let request = service
        .client
        .post(format!("{url}?{pairs}"))
        .header("content-type", "application/x-www-form-urlencoded");
    service
        .send(request)
        .await
        .assert_refused(400, "parameter_malformed");
    let answer = service.send(service.client.get(&url)).await;
    answer.assert_refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST, OPTIONS");

    // A service token is nobody's session: it cannot be exchanged.
    let compact = issued(&ask(&service, &[]).await).to_owned();
    service
        .refuses("a service token", &compact, "subject_token_is_app_token")
        .await;
    // And a user's token is no client's proof.
    let answer = send(
        &service,
        Some(&format!("Bearer {}", issuer.token())),
        form(&[("grant_type", "client_credentials")]),
    )
    .await;
    answer.assert_refused(401, "client_authentication_missing");
}

#[tokio::test]
async fn guessing_a_secret_ends_soon_and_a_client_has_a_limit_of_its_own() {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "")
        .env("EXCHEQUER_RATE_LIMIT", "2/1h")
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let ask = async |id: &str, secret: &str, address: &str| {
        let request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-forwarded-for", address)
            .header("authorization", basic(id, secret))
            .body(form(&[("grant_type", "client_credentials")]));
        service.send(request).await
    };
    // Twenty for an address: four guesses, whoever they are for.
    for id in ["reports", "bare", "nobody", "reports"] {
        let answer = ask(id, "guess", "203.0.113.66").await;
        answer.assert_refused(401, "client_authentication_failed");
    }
    for secret in ["guess", SECRET] {
        let answer = ask("reports", secret, "203.0.113.66").await;
        answer.assert_refused(429, "rate_limited");
    }
    for left in ["1", "0"] {
        let answer = ask("bare", SECRET, "203.0.113.67").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("ratelimit-limit"), "2");
        assert_eq!(answer.header("ratelimit-remaining"), left);
    }
    ask("bare", SECRET, "203.0.113.67")
        .await
        .assert_refused(429, "rate_limited");
    // An app's user has another bucket than a client.
    assert_eq!(service.session(&issuer.token()).await.status, 200);
}

#[tokio::test]
async fn the_metadata_says_so_where_a_client_gets_tokens() {
    const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
    let (issuer, service) = world().await;
    for path in ["openid-configuration", "oauth-authorization-server"] {
        let document = service.get(&format!("/.well-known/{path}")).await.body;
        assert_eq!(
            document["token_endpoint"],
            "http://localhost:8080/oauth/token"
        );
        assert_eq!(
            document["grant_types_supported"],
            json!(["client_credentials", EXCHANGE])
        );
        assert_eq!(
            document["token_endpoint_auth_methods_supported"],
            json!(["client_secret_basic", "client_secret_post", "none"])
        );
    }
    let plain = Service::trusting(&issuer).await;
    let document = plain.get("/.well-known/openid-configuration").await.body;
    assert_eq!(document["grant_types_supported"], json!([EXCHANGE]));
    let body = form(&[("grant_type", "client_credentials")]);
    send(&plain, Some(&basic("reports", SECRET)), body)
        .await
        .assert_refused(400, "grant_type_unsupported");
}

#[tokio::test]
async fn the_ring_has_a_key_for_service_tokens_whatever_the_apps_sign_with() {
    let issuer = Issuer::start().await;
    let app = "alg = \"EdDSA\"\n[clients.reports]\nsecret = { env = \"REPORTS_SECRET\" }\naudience = \"a\"";
    let service = Service::builder()
        .one_app(&issuer, "", app)
        .env("REPORTS_SECRET", SECRET)
        .start()
        .await;
    let compact = issued(&ask(&service, &[]).await).to_owned();
    assert_eq!(token::header(&compact)["alg"], "ES256");
    let session = Token::clerk(&issuer.url).sign(Key::rsa());
    let answer = service.session(&session).await;
    assert_eq!(token::header(answer.token())["alg"], "EdDSA");
}

#[test]
fn check_finds_what_is_wrong_with_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let check = |lines: &str| {
        let toml = format!(
            "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\naudiences = \"a\"\n\
             [apps.web]\nissuers = \"clerk\"\n{lines}\n"
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        let ended = Command::new(dir.path())
            .env("S", SECRET)
            .env("SHORT", "short")
            .run(&["check"]);
        let lines = ended.stdout.lines().map(str::to_owned);
        lines
            .filter(|line| !line.starts_with("ok:    ") || line.contains("client"))
            .collect::<Vec<_>>()
    };
    let secret = "secret = { env = \"S\" }";
    for (lines, found) in [
        (
            format!(
                "[clients.c]\n{secret}\naudience = \"a\"\nscopes = [\"x\", \"y\"]\nttl = \"2m\""
            ),
            "ok:    client c: audience a; scopes x, y; 120 s",
        ),
        (
            "[clients.c]\naudience = \"a\"".to_owned(),
            "error: exchequer.toml:7: `secret` is missing: the client proves itself with it",
        ),
        (
            "[clients.c]\naudience = \"a\"\nsecret = \"plain\"".to_owned(),
            "error: exchequer.toml:9: secret: a secret does not stand in the file: write { env = \"NAME\" } or { file = \"PATH\" }",
        ),
        (
            format!("[clients.c]\n{secret}\naudience = \"a\"\nttl = \"2h\""),
            "error: exchequer.toml:10: ttl: 2h is out of range: 30s to 1h",
        ),
        (
            format!("[clients.c]\n{secret}\naudience = \"a\"\nscopes = \"a b\""),
            "error: exchequer.toml:10: scopes: \"a b\" is no scope: it has a space, a quote or a backslash",
        ),
        (
            format!("[clients.web]\n{secret}\naudience = \"a\""),
            "error: exchequer.toml:7: there is an app \"web\" too: `client_id` could not tell their tokens apart",
        ),
        (
            "[clients.c]\naudience = \"a\"\nsecret = { env = \"SHORT\" }".to_owned(),
            "note:  exchequer.toml:9: secret: shorter than 32 characters: make one with `openssl rand -base64 32`",
        ),
        (
            format!("[clients.c]\n{secret}\naudience = \"a\"\nredirect_uris = []"),
            "error: exchequer.toml:10: there is no setting \"redirect_uris\" here",
        ),
        (
            format!("[clients.c]\n{secret}\napps = [\"web\", \"wep\"]"),
            "error: exchequer.toml:7: app \"wep\" is not configured: did you mean \"web\"?",
        ),
        (
            format!("[clients.c]\n{secret}\napps = \"web\"\nstatus_list = true"),
            "error: exchequer.toml:10: status_list: a client without `audience` gets no tokens of its own; for those of users, set it for their app",
        ),
        (
            format!("[clients.c]\n{secret}"),
            "note:  exchequer.toml:7: a client without `audience`, `apps` and `introspect` may do nothing",
        ),
    ] {
        let all = check(&lines);
        assert!(all.contains(&found.to_owned()), "{lines}: {all:#?}");
    }
}

#[tokio::test]
async fn the_metadata_has_the_scopes_of_clients_beside_those_of_apps() {
    let issuer = Issuer::start().await;
    let app = "scopes.\"read:tasks\" = {}\nscopes.\"a\" = {}\n[clients.reports]\nsecret = { env = \"REPORTS_SECRET\" }\n\
               audience = \"https://tasks.internal\"\nscopes = [\"read:tasks\", \"send:mail\"]\n\
               [clients.quiet]\nsecret = { env = \"REPORTS_SECRET\" }\nscopes = [\"never\"]\n";
    let service = Service::builder()
        .one_app(&issuer, "", app)
        .env("REPORTS_SECRET", SECRET)
        .start()
        .await;
    for path in ["openid-configuration", "oauth-authorization-server"] {
        let document = service.get(&format!("/.well-known/{path}")).await.body;
        let scopes = json!(["a", "read:tasks", "send:mail"]);
        assert_eq!(document["scopes_supported"], scopes);
    }
}

#[tokio::test]
async fn a_gateway_that_asks_with_the_audience_and_no_app_is_told_the_client() {
    let (_issuer, service) = world().await;
    let token = issued(&ask(&service, &[]).await).to_owned();
    let verify = async |query: &str| {
        let url = format!("{}/auth/verify{query}", service.url);
        let request = service.client.get(url).bearer_auth(&token);
        // Whatever a client says of itself is overwritten.
        let request = request.header("x-user-id", "user_1").header("x-app", "web");
        service.send(request).await
    };
    for query in [
        "?audience=https://tasks.internal",
        "?audience=https://tasks.internal&scope=read:tasks+send:mail",
    ] {
        for _ in 0..2 {
            let answer = verify(query).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            for (name, value) in [
                ("x-app", ""),
                ("x-user-id", ""),
                ("x-org-id", ""),
                ("x-roles", ""),
                ("x-scopes", "read:tasks send:mail"),
                ("x-rate-limit-key", "client::reports"),
                ("x-client-id", "reports"),
                ("x-signature", ""),
            ] {
                assert_eq!(answer.header(name), value, "{name}");
                assert_eq!(answer.headers.get_all(name).iter().count(), 1, "{name}");
            }
        }
    }
    for (query, status, code) in [
        ("", 401, "service_token_not_taken"),
        ("?app=web", 401, "service_token_not_taken"),
        ("?app=reports", 401, "service_token_not_taken"),
        (
            "?app=web&audience=https://tasks.internal",
            401,
            "service_token_not_taken",
        ),
        (
            "?audience=https://mail.internal",
            401,
            "app_token_audience_mismatch",
        ),
        (
            "?audience=https://tasks.internal&scope=admin",
            403,
            "insufficient_scope",
        ),
    ] {
        let answer = verify(query).await;
        answer.assert_refused(status, code);
        assert!(!answer.headers.contains_key("x-client-id"), "{query}");
    }
    service.shift_clocks(301, 0);
    verify("?audience=https://tasks.internal")
        .await
        .assert_refused(401, "app_token_expired");
}
