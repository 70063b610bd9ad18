//! Three stories that cost people days, and how they end here. `docs/troubleshooting.md` tells
//! them.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Key, Service, Token, now, token};
use exchequer::explain::Code;
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

// The third issuer's token, refused with a signature error.

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_third_issuer_is_verified_with_the_third_issuers_key() {
    // Three instances whose keys have the same kid, and differ.
    let keys = [Key::rsa(), &Key::new_rsa(), Key::other_rsa()];
    let mut issuers = Vec::new();
    for key in keys {
        issuers.push(Issuer::with_keys(vec![key.jwk("ins_1")]).await);
    }
    let urls: Vec<&str> = issuers.iter().map(|issuer| issuer.url.as_str()).collect();
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", urls.join(","))
        .env("CLERK_AUTHORIZED_PARTIES", "https://app.example.com")
        .start()
        .await;
    let token = |issuer: usize, key: &Key| Token::clerk(urls[issuer]).sign(key);
    for (issuer, key) in keys.into_iter().enumerate() {
        let answer = service.session(&token(issuer, key)).await;
        assert_eq!(token::claims(answer.token())["idp"], urls[issuer]);
    }
    let third = token(2, keys[2]);
    assert_eq!(token::claims(&third).get("aud"), None);
    assert_eq!(service.session(&third).await.status, 200);
    // And never with another's.
    for (issuer, key) in [(0, keys[2]), (2, keys[0]), (1, keys[0])] {
        service
            .session(&token(issuer, key))
            .await
            .assert_refused(401, "subject_token_signature_invalid");
    }

    let explained = service.command().input(&third).run(&["explain"]);
    assert_eq!(explained.code, 0, "{explained:?}");
    for shown in [
        "accepted the exchange would give an app token",
        "note     if a library of yours refuses this token with token-invalid-signature, it mixes up the keys",
        "known    @clerk/backend: Up to 3.10, a process with several instances verified all tokens with the key that came first",
    ] {
        assert!(explained.stdout.contains(shown), "{}", explained.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_is_missing_never_looks_like_a_bad_signature() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_JWT_AUDIENCE", "tasks")
        .start()
        .await;
    let token = issuer.token();
    service
        .session(&token)
        .await
        .assert_refused(401, "subject_token_audience_missing");
    let explained = service.command().input(&token).run(&["explain"]);
    assert_eq!(explained.code, 1);
    for shown in [
        "ok    signature",
        "FAIL  audience         absent",
        "expected: tasks",
        "Clerk → Sessions → Customize session token: add `{\"aud\": \"tasks\"}`",
    ] {
        assert!(
            explained.stdout.contains(shown),
            "{shown}: {}",
            explained.stdout
        );
    }
}

// A client assertion that had simply expired, answered with a bare invalid_client.

/// 64 hexadecimal digits, as many dashboards give a secret.
const SECRET: &str = "5f2b8c0e9d7a4136b1e0c5d2f4a69788796a5b4c3d2e1f00112233445566778a";

fn assertion(claims: &Value, key: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    token::assemble(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        &claims.to_string(),
        |message| hmac::sign(&key, message).as_ref().to_vec(),
    )
}

fn clients() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[issuers.main]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\n[apps.web]\nissuers = \"main\"\n[clients.reports]\nauth_method = \"client_secret_as_jwt\"\nsecret = { env = \"REPORTS_SECRET\" }\n[clients.mail]\nauth_method = \"client_secret_jwt\"\nsecret = { env = \"REPORTS_SECRET\" }\n[clients.public]\nauth_method = \"none\"\n";
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    dir
}

fn explain(input: &str, arguments: &[&str]) -> Ended {
    let dir = clients();
    let arguments: Vec<&str> = ["explain"].iter().chain(arguments).copied().collect();
    let ended = Command::new(dir.path())
        .env("REPORTS_SECRET", SECRET)
        .input(input)
        .run(&arguments);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        !said.contains(SECRET) && !said.contains(input.trim()),
        "{said}"
    );
    ended
}

#[test]
fn an_assertion_that_has_expired_is_said_to_have_expired() {
    let exp = now() - 400 * 86_400 - 60;
    let token = assertion(
        &json!({"client_id": "reports", "exp": exp}),
        SECRET.as_bytes(),
    );
    let ended = explain(&format!("{token}\n"), &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let entry = Code::ClientAssertionExpired.entry();
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        ended.stdout,
        format!(
            "client assertion  HS256  {} bytes   (decoded, NOT yet trusted)\n\
             a JWT with which a client authenticates, and no user's token\n\
             sha256 {hash}\n\n  \
             1 ok    form             an assertion of \"reports\"\n  \
             2 ok    signature        HS256: verifies with the secret as text\n  \
             3 ok    audience         absent\n  \
             4 FAIL  expiry           exp {exp} was 400 days ago\n  \
             5 ok    issued_at        `nbf` and `iat` are past, or absent\n  \
             6 ok    jti              absent\n\n\
             refused  client_assertion_expired\n         {}\n\
             cause    {}\nconfirm  {}\nnext     {}\n",
            token.len(),
            entry.sentence,
            entry.cause,
            entry.confirm,
            entry.mend
        )
    );
}

#[test]
fn each_thing_that_can_be_wrong_with_an_assertion_is_named() {
    let exp = now() + 60;
    let good = json!({
        "iss": "mail", "sub": "mail", "aud": "http://localhost:8080/oauth/token",
        "jti": "1", "iat": now(), "exp": exp,
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let text = SECRET.as_bytes();
    let hex: Vec<u8> = (0..SECRET.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&SECRET[at..at + 2], 16).unwrap())
        .collect();
    let base64 = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD
            .decode(SECRET)
            .unwrap()
    };
    let of = |id: &str| json!({"client_id": id, "exp": exp});
    let ids = |id: &str| {
        let mut claims = with("iss", json!(id));
        claims["sub"] = json!(id);
        claims
    };
    for (claims, key, code, says) in [
        (&good, text, None, "ok    signature        HS256: verifies"),
        (&of("reports"), text, None, "ok    jti              absent"),
        (
            &with("aud", json!("http://localhost:8080")),
            text,
            None,
            "ok    audience         \"http://localhost:8080\"",
        ),
        (
            &good,
            b"another secret",
            Some("client_assertion_signature_invalid"),
            "does not verify with the secret in any reading: as text, hex or base64",
        ),
        (
            &good,
            &hex,
            Some("client_assertion_signature_invalid"),
            "but with the secret decoded from hex: sign with its text instead",
        ),
        (
            &good,
            &base64,
            Some("client_assertion_signature_invalid"),
            "but with the secret decoded from base64: sign with its text instead",
        ),
        (
            &with("exp", json!(now() - 30)),
            text,
            Some("client_assertion_expired"),
            "was 3",
        ),
        (
            &with("exp", json!(now() - 30)),
            b"another secret",
            Some("client_assertion_expired"),
            "in any reading",
        ),
        (
            &with("exp", json!("soon")),
            text,
            Some("client_assertion_malformed"),
            "its `exp` is no date",
        ),
        (
            &with("exp", json!(now() + 7200)),
            text,
            Some("client_assertion_lifetime_too_long"),
            "and 3600 s is the most",
        ),
        (
            &with("nbf", json!(now() + 60)),
            text,
            Some("client_assertion_not_yet_valid"),
            "FAIL  issued_at        nbf",
        ),
        (
            &with("aud", json!("https://auth.example.com/oauth/token")),
            text,
            Some("client_assertion_audience_mismatch"),
            "FAIL  audience",
        ),
        (
            &with("jti", Value::Null),
            text,
            Some("client_assertion_malformed"),
            "its `jti` is no text",
        ),
        (
            &of("reprots"),
            text,
            Some("client_unknown"),
            "FAIL  client           no client of this id is registered",
        ),
        (
            &ids("reprots"),
            text,
            Some("client_unknown"),
            "FAIL  client           no client of this id is registered",
        ),
        (
            &of("public"),
            text,
            Some("client_auth_method_mismatch"),
            "FAIL  method           it authenticates by none",
        ),
        (
            &of("mail"),
            text,
            Some("client_auth_method_mismatch"),
            "FAIL  method           it authenticates by client_secret_jwt",
        ),
        (
            &json!({"exp": exp}),
            text,
            Some("client_assertion_malformed"),
            "it has no `iss` or no `sub`",
        ),
    ] {
        let token = assertion(claims, key);
        let ended = explain(&token, &[]);
        assert_eq!(
            ended.code,
            i32::from(code.is_some()),
            "{claims}: {}",
            ended.stdout
        );
        assert!(ended.stdout.contains(says), "{says}: {}", ended.stdout);
        let said: Value = serde_json::from_str(&explain(&token, &["--json"]).stdout).unwrap();
        assert_eq!(said["code"].as_str(), code, "{claims}");
        assert_eq!(said["accepted"], code.is_none());
        let made = said["ladder"].as_array().unwrap().len();
        assert!(made == 6 || says.contains("no `iss`"), "{said}");
        if let Some(code) = code {
            assert!(
                ended
                    .stdout
                    .contains(&format!("\nrefused  {code}\n         ")),
                "{}",
                ended.stdout
            );
        }
    }
    // The algorithm is the client's.
    let own = token::assemble(r#"{"alg":"RS256"}"#, &good.to_string(), |message| {
        Key::rsa().sign(message)
    });
    let ended = explain(&own, &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("FAIL  algorithm        alg is \"RS256\", and the client signs with HS256"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_users_token_signed_with_a_shared_secret_is_no_client_assertion() {
    let users = json!({
        "iss": "https://clerk.example.com", "sub": "user_1", "aud": "authenticated", "exp": now() + 60,
    });
    let ended = explain(&assertion(&users, SECRET.as_bytes()), &[]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stdout.contains("FAIL  algorithm        HS256")
            && ended
                .stdout
                .contains("\nrefused  subject_token_algorithm_not_allowed\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_bare_invalid_client_leads_to_the_assertion() {
    for answer in [
        r#"{"error":"invalid_client"}"#,
        "{\n  \"error\": \"invalid_client\",\n  \"error_description\": \"Client authentication failed\"\n}",
        "https://app.example.com/callback?error=invalid_client&state=1",
    ] {
        let ended = explain(answer, &[]);
        assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
        for shown in [
            "This answer was not written by Exchequer.  source: elsewhere (an OAuth server, which does not say which)\n\nmeaning  upstream_client_refused\n",
            "an expired assertion (RFC 6749 §5.2)",
            "If the client authenticates with a JWT, pipe that JWT into `exchequer explain`",
        ] {
            assert!(ended.stdout.contains(shown), "{shown}: {}", ended.stdout);
        }
    }
}

// invalid_client: The requested OAuth 2.0 Client does not exist.

#[test]
fn a_client_that_the_provider_does_not_know_is_the_providers_answer() {
    for answer in [
        r#"{"error":"invalid_client","error_description":"The requested OAuth 2.0 Client does not exist."}"#,
        r#"{"error":"invalid_client","error_description":"Client authentication failed (e.g., unknown client). The requested OAuth 2.0 Client does not exist.","error_hint":"The requested OAuth 2.0 Client does not exist.","status_code":401}"#,
        "https://app.example.com/callback?error=invalid_client&error_description=The+requested+OAuth+2.0+Client+does+not+exist.&state=xyz",
        "error=invalid_client&error_description=Client%20authentication%20failed.%20The%20requested%20OAuth%202.0%20Client%20does%20not%20exist.",
        "invalid_client: The requested OAuth 2.0 Client does not exist",
        "Error: invalid_client\nDescription: The requested OAuth 2.0 Client does not exist.\n",
    ] {
        // No configuration is needed to read an answer.
        let dir = tempfile::tempdir().unwrap();
        let command = || Command::new(dir.path()).input(answer);
        let ended = command().run(&["explain"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (1, ""), "{answer}");
        for shown in [
            "This answer was not written by Exchequer.  source: upstream-idp",
            "\nmeaning  upstream_client_unknown\n",
            // Who knows clients, and who does not.
            "That endpoint knows OAuth applications, not your Clerk instance, its publishable key, or the Google client behind a social sign-in.",
            // What to do instead.
            "no OAuth client is needed: exchange the session token at POST /auth/exchange",
            "register an OAuth application at the provider and send its client_id",
        ] {
            assert!(
                ended.stdout.contains(shown),
                "{answer}: {shown}: {}",
                ended.stdout
            );
        }
        let said: Value =
            serde_json::from_str(&command().run(&["explain", "--json"]).stdout).unwrap();
        assert_eq!(
            (&said["source"], &said["code"]),
            (&json!("upstream-idp"), &json!("upstream_client_unknown"))
        );
    }
}

#[test]
fn the_stories_are_told_with_the_commands_that_end_them() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md");
    let page = std::fs::read_to_string(page).unwrap();
    for said in [
        "token-invalid-signature",
        "client_assertion_expired",
        "upstream_client_unknown",
        "The requested OAuth 2.0 Client does not exist",
        "exchequer explain",
        "exchequer doctor",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let links: Vec<&str> = page
        .split("errors.md#")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
        .collect();
    assert!(links.len() > 5);
    for slug in links {
        assert!(Code::from_slug(slug).is_some(), "errors.md#{slug}");
    }
}
