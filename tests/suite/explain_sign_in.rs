//! `exchequer explain` of the URL of a sign-in, as a browser's address bar shows it: what is not as the
//! configuration has it, and nothing of what is for one sign-in alone.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Service};
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::Serializer;

const OURS: &str = "http://localhost:8080";
const CLIENT: &str = "1234.apps.googleusercontent.com";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// What no report may show.
const SECRETS: [&str; 5] = [
    "s3cret-state",
    "s3cret-nonce",
    "s3cret-code",
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
        [apps.web]
        issuers = "clerk"
        subject = 'iss + "|" + sub'
        [apps.web.sign_in]
        providers = ["google"]
        redirect_uris = ["https://app.example.com/back?tab=a", "http://127.0.0.1/back"]
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
    assert_eq!(json["kind"], "sign_in_url", "{url}");
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
}

#[test]
fn a_url_at_which_a_sign_in_begins_is_judged_as_the_service_does() {
    let (text, good) = told(&login("google", &[]));
    assert_eq!(failed(&good), [""; 0], "{text}");
    assert!(text.contains("would be sent on to the provider"), "{text}");
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
    ] {
        let (text, report) = told(&login(provider, &[(name, value)]));
        assert_eq!(failed(&report), [check], "{name}={value}: {text}");
        assert_eq!(report["code"], code, "{text}");
        assert!(text.contains(says), "{name}={value}: {text}");
    }
    let loopback = ("redirect_uri", "http://127.0.0.1:49152/back");
    assert_eq!(failed(&told(&login("google", &[loopback])).1), [""; 0]);
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
    ] {
        let (text, report) = told(&format!("{at}?code=s3cret-code&state=s3cret-state&tab=a"));
        assert_eq!(failed(&report), Vec::from_iter(expected), "{at}: {text}");
        assert!(text.contains("is good once"), "{text}");
    }
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
