//! `exchequer explain` of the URL of a sign-in, as a browser's address bar shows it: what is not as the
//! configuration has it, and nothing of what is for one sign-in alone.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Service};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::Serializer;

const OURS: &str = "http://localhost:8080";
const CLIENT: &str = "1234.apps.googleusercontent.com";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// What no report may show.
const SECRETS: [&str; 6] = [
    "s3cret-state",
    "s3cret-nonce",
    "s3cret-code",
    "s3cret-password",
    "ada@example.com",
    CHALLENGE,
];

fn explain(url: &str, arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let toml = format!(
        r#"
        [issuers.clerk]
        kind = "clerk"
        issuer = "https://clerk.example.com"
        [providers.google]
        kind = "google"
        client_id = "{CLIENT}"
        client_secret = {{ env = "A_SECRET" }}
        [providers.github]
        kind = "github"
        client_id = "Iv1.abc"
        client_secret = {{ env = "A_SECRET" }}
        [providers.facebook]
        kind = "facebook"
        client_id = "4711"
        client_secret = {{ env = "A_SECRET" }}
        [providers.staff]
        issuer = "https://id.example.com/realms/staff"
        client_id = "exchequer"
        [providers.visitors]
        issuer = "https://id.example.com/realms/visitors"
        client_id = "exchequer"
        [apps.web]
        issuers = "clerk"
        subject = 'iss + "|" + sub'
        [apps.web.sign_in]
        providers = ["google"]
        redirect_uris = ["https://app.example.com/back?tab=a", "http://127.0.0.1/back", "com.example.app:/back"]
        [apps.tv]
        issuers = "clerk"
        "#
    );
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    Command::new(dir.path())
        .env("A_SECRET", "s3cret-of-the-client")
        .input(url)
        .run(&[&["explain"], arguments].concat())
}

/// The URL with these parameters, some of them replaced, or left out where they are empty.
fn with(at: &str, usual: &[(&str, &str)], other: &[(&str, &str)]) -> String {
    let replaced = |name: &str| other.iter().any(|(each, _)| *each == name);
    let pairs = usual
        .iter()
        .filter(|(name, _)| !replaced(name))
        .chain(other);
    let mut form = Serializer::new(String::new());
    form.extend_pairs(pairs.filter(|(_, value)| !value.is_empty()));
    format!("{at}?{}", form.finish())
}

fn request(at: &str, other: &[(&str, &str)]) -> String {
    let callback = format!("{OURS}/auth/callback/google");
    let usual = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", &callback),
        ("scope", "openid email profile"),
        ("state", "s3cret-state"),
        ("nonce", "s3cret-nonce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("login_hint", "ada@example.com"),
    ];
    with(at, &usual, other)
}

fn login(provider: &str, other: &[(&str, &str)]) -> String {
    let usual = [
        ("app", "web"),
        ("redirect_uri", "https://app.example.com/back?tab=a"),
        ("state", "s3cret-state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    with(&format!("{OURS}/auth/login/{provider}"), &usual, other)
}

const GOOGLE: &str = "https://accounts.google.com/o/oauth2/v2/auth";

/// The report, as text and as JSON; and that neither shows a secret, redacted or not.
fn told(url: &str) -> (String, Value) {
    told_as("sign_in_url", url)
}

fn told_as(kind: &str, url: &str) -> (String, Value) {
    let (text, json) = (explain(url, &[]), explain(url, &["--json"]));
    let redacted = explain(url, &["--redact"]);
    for ended in [&text, &json, &redacted] {
        assert_eq!(
            (ended.stderr.as_str(), ended.code),
            ("", text.code),
            "{url}"
        );
        for secret in SECRETS {
            assert!(!ended.stdout.contains(secret), "{secret}: {}", ended.stdout);
        }
    }
    for name in ["google", CLIENT, "example.com"] {
        assert!(!redacted.stdout.contains(name), "{}", redacted.stdout);
    }
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["kind"], kind, "{url}");
    (text.stdout, json)
}

/// The checks that failed.
fn failed(report: &Value) -> Vec<&str> {
    let ladder = report["ladder"].as_array().unwrap().iter();
    let failed = ladder.filter(|step| step["outcome"] == "failed");
    failed.map(|step| step["check"].as_str().unwrap()).collect()
}

#[test]
fn a_request_to_a_provider_is_compared_with_the_configuration() {
    let url = request(GOOGLE, &[]);
    let (text, good) = told(&url);
    assert_eq!(explain(&url, &[]).code, 0);
    assert_eq!(
        (failed(&good), &good["accepted"]),
        (vec![], &json!(null)),
        "{text}"
    );
    assert!(
        text.contains("open     it asks as this configuration does")
            && text.contains("byte for byte: http://localhost:8080/auth/callback/google"),
        "{text}"
    );
    let callback = format!("{OURS}/auth/callback/google");
    let slash = format!("{callback}/");
    let secure = callback.replacen("http", "https", 1);
    for (name, value, check, says) in [
        (
            "client_id",
            "9.apps.googleusercontent.com",
            "client_id",
            "`[providers.google] client_id`",
        ),
        (
            "client_id",
            "",
            "client_id",
            "`[providers.google] client_id`",
        ),
        (
            "client_id",
            "pk_live_abc",
            "client_id",
            "is a publishable key",
        ),
        (
            "redirect_uri",
            &slash,
            "redirect_uri",
            "a slash at the end makes the difference",
        ),
        ("redirect_uri", &secure, "redirect_uri", "http for https"),
        (
            "redirect_uri",
            "https://app.example.com/x?t=s3cret-code",
            "redirect_uri",
            "https://app.example.com/x?…",
        ),
        (
            "response_type",
            "token",
            "response_type",
            "written or changed by somebody else",
        ),
        (
            "scope",
            "email profile",
            "scope",
            "Without `openid` there is no ID token",
        ),
        ("scope", "", "scope", "absent"),
        ("state", "", "state", "written or changed by somebody else"),
        ("nonce", "", "nonce", "written or changed by somebody else"),
        ("code_challenge", "", "pkce", "there is no code_challenge"),
        ("code_challenge", "abc", "pkce", "of 43 characters"),
        ("code_challenge_method", "", "pkce", "which means plain"),
        (
            "code_challenge_method",
            "plain",
            "pkce",
            "another than S256",
        ),
    ] {
        let url = request(GOOGLE, &[(name, value)]);
        let (text, report) = told(&url);
        assert_eq!(failed(&report), [check], "{name}={value}: {text}");
        assert!(text.contains(says), "{name}={value}: {text}");
        assert_eq!(
            (&report["accepted"], &report["code"]),
            (&json!(false), &json!(null))
        );
        assert_eq!(explain(&url, &[]).code, 1);
    }
    let callback = format!("{OURS}/auth/callback/github");
    let github = [
        ("client_id", "Iv1.abc"),
        ("redirect_uri", &callback),
        ("scope", "read:user user:email"),
        ("nonce", ""),
    ];
    let good = "https://github.com/login/oauth/authorize";
    assert_eq!(failed(&told(&request(good, &github)).1), [""; 0]);
    let (text, report) = told(&request("https://github.com/login", &github));
    assert_eq!(failed(&report), ["provider"], "{text}");
    assert!(text.contains(&format!("expected: {good}")), "{text}");
    let several = [("state", ""), ("code_challenge", "")];
    let (text, report) = told(&request(GOOGLE, &several));
    assert_eq!(failed(&report), ["state", "pkce"], "{text}");
    assert_eq!(text.matches("somebody else").count(), 1, "{text}");
    let (text, report) = told(&request(GOOGLE, &[("scope", "openid email")]));
    assert_eq!(failed(&report), ["scope"], "{text}");
    assert!(!text.contains("Without `openid`"), "{text}");
    let (text, report) = told(&request("https://accounts.example.com/auth", &[]));
    assert_eq!(failed(&report), ["provider"], "{text}");
    assert!(
        text.contains("expected: https://accounts.google.com"),
        "{text}"
    );
}

#[test]
fn a_provider_s_own_ways_to_write_a_request_are_no_faults() {
    let callback = format!("{OURS}/auth/callback/facebook");
    let facebook = [
        ("client_id", "4711"),
        ("redirect_uri", &callback),
        ("scope", "email,public_profile"),
        ("nonce", ""),
    ];
    for at in [
        "https://www.facebook.com/dialog/oauth",
        "https://www.facebook.com/v19.0/dialog/oauth",
    ] {
        let (text, report) = told(&request(at, &facebook));
        assert_eq!(failed(&report), [""; 0], "{text}");
    }
    let elsewhere = request("https://www.facebook.com/v19.0/dialog/share", &facebook);
    assert_eq!(failed(&told(&elsewhere).1), ["provider"]);
}

#[test]
fn of_two_providers_with_one_client_the_callback_tells_which_is_asked() {
    let at = "https://id.example.com/realms/visitors/protocol/openid-connect/auth";
    for provider in ["staff", "visitors"] {
        let callback = format!("{OURS}/auth/callback/{provider}");
        let asked = [("client_id", "exchequer"), ("redirect_uri", &callback)];
        let (text, report) = told(&request(at, &asked));
        assert_eq!(failed(&report), [""; 0], "{text}");
        // Where it is discovered nothing is at hand to compare it with.
        assert!(
            text.contains("was not compared") && !text.contains("provider  "),
            "{text}"
        );
    }
}

#[test]
fn a_request_that_this_service_has_no_part_in_is_said_to_be_none_of_its() {
    let own = ("redirect_uri", "https://app.example.com/own");
    let at = "https://clerk.example.com/oauth/authorize";
    for (client, says) in [
        ("7.apps.googleusercontent.com", "is a client of Google's"),
        ("pk_test_abc", "is a publishable key"),
        ("abc", "no OAuth client is needed"),
    ] {
        let (text, report) = told(&request(at, &[("client_id", client), own]));
        assert_eq!(failed(&report), ["provider"], "{text}");
        assert!(
            text.contains(says) && text.contains("This configuration begins no sign-in there"),
            "{text}"
        );
    }
    // Others sign in at our providers too, and call back below a path that ends like ours.
    for back in [
        "https://app.example.com/api/auth/callback/google",
        "https://clerk.example.com/v1/oauth_callback",
        "",
    ] {
        let client = ("client_id", "7.apps.googleusercontent.com");
        let (text, report) = told(&request(GOOGLE, &[client, ("redirect_uri", back)]));
        assert_eq!(failed(&report), ["client_id", "redirect_uri"], "{text}");
        assert!(
            text.contains("This configuration begins no sign-in there")
                && !text.contains("The setting is")
                && !text.contains("must have registered"),
            "{text}"
        );
        let elsewhere = request(
            "https://op.example.com/auth",
            &[client, ("redirect_uri", back)],
        );
        assert_eq!(failed(&told(&elsewhere).1), ["provider"]);
    }
    // Another environment of ours.
    let back = (
        "redirect_uri",
        "https://id.example.com/auth/callback/google",
    );
    let (text, report) = told(&request(GOOGLE, &[("client_id", "7"), back]));
    assert_eq!(failed(&report), ["client_id", "redirect_uri"], "{text}");
    assert!(text.contains("another environment's"), "{text}");
}

/// The page on which Google says this of a client: the first two fields of its message.
fn error_page(client: &str, error: &str, sentence: &str) -> String {
    let mut message = Vec::new();
    for (field, text) in [(0x0a, error), (0x12, sentence)] {
        message.extend([field, u8::try_from(text.len()).unwrap()]);
        message.extend(text.as_bytes());
    }
    let error = URL_SAFE.encode(message);
    let at = "https://accounts.google.com/signin/oauth/error";
    let flow = ("flowName", "GeneralOAuthFlow");
    with(
        at,
        &[("authError", &error), ("client_id", client), flow],
        &[],
    )
}

#[test]
fn an_error_page_of_google_s_is_read_and_its_client_compared() {
    for (error, sentence, code, says) in [
        (
            "invalid_client",
            "The OAuth client was not found.",
            json!("upstream_client_unknown"),
            "of no OAuth client that Google knows",
        ),
        (
            "redirect_uri_mismatch",
            "ada@example.com",
            json!(null),
            "compared letter by letter",
        ),
        ("quite_new", "ada@example.com", json!(null), "\"quite_new\""),
    ] {
        for (client, expected) in [(CLIENT, None), ("7.apps", Some("client_id"))] {
            let (text, report) = told_as("error_answer", &error_page(client, error, sentence));
            assert_eq!(failed(&report), Vec::from_iter(expected), "{text}");
            assert_eq!(
                (&report["accepted"], &report["code"]),
                (&json!(false), &code),
                "{text}"
            );
            assert!(text.contains(says), "{text}");
            let others = text.contains("no provider of this configuration has this client");
            assert_eq!(others, expected.is_some(), "{text}");
        }
    }
}

#[test]
fn a_url_at_which_a_sign_in_begins_is_judged_as_the_service_does() {
    let (text, good) = told(&login("google", &[]));
    assert_eq!(failed(&good), [""; 0], "{text}");
    assert!(
        text.contains("would be sent on to the provider, as far as app, provider"),
        "{text}"
    );
    for (provider, name, value, check, code, says) in [
        (
            "google",
            "app",
            "wep",
            "app",
            "app_unknown",
            "Nearest is web",
        ),
        ("google", "app", "", "app", "parameter_malformed", "web"),
        (
            "google",
            "app",
            "tv",
            "provider",
            "sign_in_provider_unknown",
            "none is configured",
        ),
        (
            "gogle",
            "app",
            "web",
            "provider",
            "sign_in_provider_unknown",
            "Nearest is google",
        ),
        (
            "github",
            "app",
            "web",
            "provider",
            "sign_in_provider_unknown",
            "`[apps.web.sign_in] providers`",
        ),
        (
            "google",
            "redirect_uri",
            "",
            "redirect_uri",
            "redirect_uri_not_registered",
            "absent",
        ),
        (
            "google",
            "redirect_uri",
            "https://app.example.com/back?tab=b",
            "redirect_uri",
            "redirect_uri_not_registered",
            "Nearest is https://app.example.com/back?tab=a",
        ),
        (
            "google",
            "response_type",
            "token",
            "response_type",
            "response_type_unsupported",
            "code, or none",
        ),
        (
            "google",
            "code_challenge",
            "",
            "pkce",
            "pkce_required",
            "there is no code_challenge",
        ),
        (
            "google",
            "client_id",
            "tv",
            "app",
            "parameter_malformed",
            "app and client_id: web, tv",
        ),
        (
            "google",
            "dpop_jkt",
            "abc",
            "dpop_jkt",
            "parameter_malformed",
            "of 43 characters",
        ),
        (
            "google",
            "audience",
            "tv",
            "audience",
            "audience_not_allowed",
            "expected: http://localhost:8080",
        ),
        (
            "google",
            "resource",
            "tv",
            "audience",
            "audience_not_allowed",
            "expected: http://localhost:8080",
        ),
    ] {
        let (text, report) = told(&login(provider, &[(name, value)]));
        assert_eq!(failed(&report), [check], "{name}={value}: {text}");
        assert_eq!(report["code"], code, "{text}");
        assert!(text.contains(says), "{name}={value}: {text}");
    }
    let loopback = ("redirect_uri", "http://127.0.0.1:49152/back");
    assert_eq!(failed(&told(&login("google", &[loopback])).1), [""; 0]);
    let more = [
        ("client_id", "web"),
        ("dpop_jkt", CHALLENGE),
        ("audience", OURS),
    ];
    assert_eq!(failed(&told(&login("google", &more)).1), [""; 0]);
    // No server is sent a fragment.
    let fragment = login("google", &[("app", "")]) + "#app=web";
    assert_eq!(failed(&told(&fragment).1), ["app"]);
    let (text, _) = told(&login("google", &[("state", "")]));
    assert!(text.contains("it has no `state`"), "{text}");
}

#[test]
fn a_url_that_leads_back_shows_neither_its_code_nor_its_state() {
    for (at, expected) in [
        (&format!("{OURS}/auth/callback/google")[..], None),
        ("https://app.example.com/back", None),
        ("http://127.0.0.1:49152/back", None),
        ("https://app.example.com/elsewhere", Some("redirect_uri")),
        ("http://127.0.0.1:49152/elsewhere", Some("redirect_uri")),
        ("com.example.app:/back", None),
        ("com.example.app:/elsewhere", Some("redirect_uri")),
    ] {
        let (text, report) = told(&format!("{at}?code=s3cret-code&state=s3cret-state&tab=a"));
        assert_eq!(failed(&report), Vec::from_iter(expected), "{at}: {text}");
        assert!(text.contains("is good once"), "{text}");
    }
    for url in [
        "view-source:https://u:s3cret-password@app.example.com/back?code=s3cret-code&state=s3cret-state",
        "https://u:x?s3cret-password@app.example.com/back?code=s3cret-code&state=s3cret-state",
    ] {
        told_as("text", url);
        let (text, report) = told(&request(GOOGLE, &[("redirect_uri", url)]));
        assert_eq!(failed(&report), ["redirect_uri"], "{text}");
    }
    let at = ("redirect_uri", "https://app.example.com/@x/back");
    let (text, _) = told(&request(GOOGLE, &[at]));
    assert!(text.contains("https://app.example.com/@x/back"), "{text}");
    // With an error of ours, it is an answer of ours.
    let url = "https://app.example.com/back?error=invalid_request&error_description=No.&error_code=pkce_required&state=s3cret-state";
    let report: Value = serde_json::from_str(&explain(url, &["--json"]).stdout).unwrap();
    assert_eq!(
        (
            &report["kind"],
            &report["source"],
            &report["code"],
            &report["description"]
        ),
        (
            &json!("error_answer"),
            &json!("exchequer"),
            &json!("pkce_required"),
            &json!("No.")
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_sends_a_browser_to_is_as_its_configuration_says() {
    let issuer = Issuer::start().await;
    let service: Service = crate::sign_in::with(&issuer, "").start().await;
    let begin = with(
        "/auth/login/op",
        &[
            ("app", "web"),
            ("redirect_uri", "app://oauth-native-callback"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ],
        &[],
    );
    let answer = service.get(&begin).await;
    assert_eq!(answer.status, 302, "{}", answer.body);
    let location = Url::parse(answer.header("location")).unwrap();
    let ended = service
        .command()
        .input(location.as_str())
        .run(&["explain", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((failed(&report), ended.code), (vec![], 0), "{report:#}");
    let state = location.query_pairs().find(|(name, _)| name == "state");
    assert!(!ended.stdout.contains(&*state.unwrap().1), "{report:#}");
}
