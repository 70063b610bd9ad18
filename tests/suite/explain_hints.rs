//! `exchequer explain` names the slip that was probably made, and the setting that mends it.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Key, Token, now};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a configuration in which issuers and apps are easily mistaken for each other.
struct World {
    main: Issuer,
    other: Issuer,
    dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let main = Issuer::start().await;
        let other = Issuer::with_keys(vec![Key::other_rsa().jwk("ins_other")]).await;
        let dir = tempfile::tempdir().unwrap();
        let toml = format!(
            r#"[issuers.main]
issuer = "{main}"
kind = "clerk"
audiences = ["web"]
authorized_parties = ["https://app.example.com", "http://localhost:3000"]
[issuers.tv]
issuer = "{main}"
kind = "clerk"
audiences = ["tv"]
[issuers.other]
issuer = "{other}"
kind = "clerk"
[issuers.public]
issuer = "https://clerk.example.com"
kind = "clerk"
[issuers.development]
issuer = "https://kind-cat-1.clerk.accounts.dev"
kind = "clerk"
[apps.web]
issuers = ["main", "public"]
condition = 'claims.sub != "user_barred"'
[apps.tv]
issuers = ["tv"]
[apps.partner]
issuers = ["other"]
[apps.staging]
issuers = ["development"]
"#,
            main = main.url,
            other = other.url
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        Self { main, other, dir }
    }

    fn good(&self) -> Token {
        Token::clerk(&self.main.url).claim("aud", "web")
    }

    fn run(&self, input: &str, arguments: &[&str]) -> Ended {
        let arguments = [&["explain"], arguments].concat();
        Command::new(self.dir.path()).input(input).run(&arguments)
    }

    fn explain(&self, input: &str, app: &str) -> Value {
        let ended = self.run(input, &["--json", "--app", app]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
    }

    /// Asserts that each of these tokens, signed, is refused so for the app `web`, and what to do.
    #[track_caller]
    fn assert_led(&self, code: &str, cases: &[(Token, &str)]) {
        for (token, next) in cases {
            assert_next(&self.explain(&token.sign(Key::rsa()), "web"), code, next);
        }
    }
}

/// Asserts a code, and that among the steps to take stands this one.
#[track_caller]
fn assert_next(said: &Value, code: &str, next: &str) {
    assert_eq!(said["code"], code, "{said:#}");
    let steps = said["next"].as_array().unwrap();
    assert!(
        steps
            .iter()
            .any(|step| step.as_str().unwrap().contains(next)),
        "{next:?} in {said:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_the_app_demands_is_said_to_be_needed_too() {
    let issuer = Issuer::start().await;
    for (policy, says) in [("required", true), ("optional", false)] {
        let dir = tempfile::tempdir().unwrap();
        let toml = format!(
            "[issuers.main]\nissuer = {:?}\nkind = \"clerk\"\n[apps.web]\nissuers = \"main\"\ndpop = {policy:?}\n",
            issuer.url
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        let token = Token::clerk(&issuer.url).sign(Key::rsa());
        let ended = Command::new(dir.path()).input(token).run(&["explain"]);
        let found = ended.stdout.contains("the app demands a DPoP proof");
        assert_eq!((found, ended.code), (says, 0), "{policy}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_issuer_leads_to_the_name_that_was_meant() {
    let world = World::new().await;
    let untrusted = "subject_token_issuer_untrusted";
    for (iss, app, nexts) in [
        (
            "https://clerk.example.com/",
            "web",
            [
                "Nearest is https://clerk.example.com: a slash at the end makes the difference.",
                "write its `iss` into `[issuers.public] issuer` (exchequer.toml:14): https://clerk.example.com/.",
            ],
        ),
        (
            "http://clerk.example.com",
            "web",
            [
                "Nearest is https://clerk.example.com: http for https",
                "(exchequer.toml:14)",
            ],
        ),
        (
            "https://Clerk.example.com",
            "web",
            [
                "small and capital letters make the difference",
                "(exchequer.toml:14)",
            ],
        ),
        (
            "clerk.example.com",
            "web",
            ["one has a scheme", "(exchequer.toml:14)"],
        ),
        (
            "https://wise-dog-9.clerk.accounts.dev",
            "web",
            [
                "a development instance of Clerk, where a production instance is configured",
                "`pk_live_…` key of the production instance (Clerk → API keys)",
            ],
        ),
        (
            "https://clerk.other.example",
            "staging",
            [
                "a production instance of Clerk, where a development instance is configured",
                "`pk_test_…` key of the development instance (Clerk → API keys)",
            ],
        ),
        (
            "https://wise-dog-9.clerk.accounts.dev",
            "staging",
            [
                "another development instance of Clerk",
                "from one page: Clerk → API keys",
            ],
        ),
        (
            "https://accounts.google.com",
            "web",
            [
                "Nothing like it is configured",
                "CLERK_JWT_ISSUER or as `[issuers.NAME]`",
            ],
        ),
    ] {
        let token = world.good().claim("iss", iss).sign(Key::rsa());
        let said = world.explain(&token, app);
        for next in nexts {
            assert_next(&said, untrusted, next);
        }
    }
    // The issuer of another app.
    let token = Token::clerk(&world.other.url).sign(Key::other_rsa());
    let said = world.explain(&token, "web");
    assert_next(
        &said,
        untrusted,
        "Another app trusts this issuer: send `\"app\": \"partner\"` with the exchange",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_audience_or_origin_leads_to_the_setting_and_its_line() {
    let world = World::new().await;
    let without = |claim| world.good().without(claim);
    let aud = |aud: Value| world.good().claim("aud", aud);
    let azp = |azp: &str| world.good().claim("azp", azp);
    world.assert_led(
        "subject_token_audience_missing",
        &[
            (
                without("aud"),
                "Clerk → Sessions → Customize session token: add `{\"aud\": \"web\"}`.",
            ),
            (
                without("aud"),
                "remove `[issuers.main] audiences` (exchequer.toml:4) and set `[issuers.main] authorized_parties` (exchequer.toml:5) instead.",
            ),
        ],
    );
    world.assert_led(
        "subject_token_audience_mismatch",
        &[
            (
                aud(json!("web/")),
                "web/ is nearly web: a slash at the end makes the difference.",
            ),
            (
                aud(json!("Web")),
                "Web is nearly web: small and capital letters make the difference.",
            ),
            (
                aud(json!(["desktop", "tv"])),
                "The token fits another app: send `\"app\": \"tv\"` with the exchange.",
            ),
            (
                aud(json!("tv")),
                "Another app takes this very token: send `\"app\": \"tv\"`",
            ),
            (
                aud(json!("radio")),
                "add the token's to `[issuers.main] audiences` (exchequer.toml:4).",
            ),
        ],
    );
    world.assert_led(
        "subject_token_authorized_party_missing",
        &[(
            without("azp"),
            "give it an app of its own, whose issuer has no `[issuers.main] authorized_parties` (exchequer.toml:5).",
        )],
    );
    world.assert_led(
        "subject_token_authorized_party_mismatch",
        &[
            (
                azp("https://www.app.example.com"),
                "is nearly https://app.example.com: `www.` makes the difference.",
            ),
            (
                azp("http://localhost:5173"),
                "http://localhost:5173 is nearly http://localhost:3000: the port makes the difference.",
            ),
            (
                azp("https://preview.example.net"),
                "add https://preview.example.net to `[issuers.main] authorized_parties` (exchequer.toml:5).",
            ),
        ],
    );
    world.assert_led(
        "condition_not_met",
        &[(
            world.good().claim("sub", "user_barred"),
            "The condition stands in `[apps.web] condition` (exchequer.toml:21).",
        )],
    );
    // By variables alone it is the variable.
    let dir = tempfile::tempdir().unwrap();
    let token = Token::clerk(&world.main.url).claim("azp", "http://localhost:1");
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", &world.main.url)
        .env("CLERK_AUTHORIZED_PARTIES", "https://app.example.com")
        .input(token.sign(Key::rsa()))
        .run(&["explain", "--json"]);
    let said = serde_json::from_str(&ended.stdout).unwrap();
    assert_next(
        &said,
        "subject_token_authorized_party_mismatch",
        "add http://localhost:1 to CLERK_AUTHORIZED_PARTIES.",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_off_is_told_from_a_token_that_was_kept() {
    let world = World::new().await;
    let now = now();
    let at = |claim: &str, time: i64| world.good().claim(claim, time);
    world.assert_led(
        "subject_token_expired",
        &[
            (
                at("exp", now - 300).claim("iat", now - 360),
                "It lived 60 s, and ended 3",
            ),
            (
                at("exp", now - 5 * 86_400 - 60),
                "It expired 5 days ago: it was kept in a file, a variable or a test",
            ),
        ],
    );
    for (code, claim, time, next) in [
        (
            "subject_token_not_yet_valid",
            "nbf",
            now + 400,
            "This machine's clock is behind the issuer's by ",
        ),
        (
            "subject_token_issued_in_future",
            "iat",
            now + 400,
            "`[issuers.main] clock_skew` (exchequer.toml:1)",
        ),
        (
            "subject_token_claim_malformed",
            "exp",
            (now + 60) * 1000,
            "`exp` looks like milliseconds: a date in a JWT is in seconds",
        ),
        (
            "subject_token_lifetime_excessive",
            "exp",
            now + 100_000,
            "Clerk → JWT templates → the template → Token lifetime",
        ),
    ] {
        world.assert_led(code, &[(at(claim, time), next)]);
    }
    // No date is too far off to be told.
    let said = world.explain(&at("exp", i64::MIN).sign(Key::other_rsa()), "web");
    assert_eq!(
        said["unreached"][0],
        format!("expiry would fail: exp was {} s ago", i64::MAX)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kind_of_token_is_called_by_its_name() {
    let world = World::new().await;
    let header = |name: &str, value: &str| world.good().header(name, value);
    world.assert_led(
        "subject_token_kind_not_accepted",
        &[
            (
                header("typ", "at+jwt"),
                "This is an OAuth access token (`typ` at+jwt), not a session token. Send what `getToken()` gives; or add `\"oauth\"` to `[issuers.main] accepts`",
            ),
            (
                world.good().claim("sub", "mch_1"),
                "This is a machine token, not a session token.",
            ),
        ],
    );
    world.assert_led(
        "subject_token_header_unsupported",
        &[(
            header("typ", "dpop+jwt").header("jwk", json!({})),
            "This is a DPoP proof: it goes into the `DPoP` header",
        )],
    );
    world.assert_led(
        "subject_token_type_mismatch",
        &[
            (header("typ", "logout+jwt"), "This is a logout token"),
            (
                header("typ", "custom"),
                "add it to `[issuers.main] token_types`",
            ),
        ],
    );
    world.assert_led(
        "subject_token_algorithm_not_allowed",
        &[
            (
                header("alg", "HS256"),
                "Clerk → JWT templates → the template → Custom signing key",
            ),
            (
                header("alg", "none"),
                "An unsigned token is no proof of anything",
            ),
            (
                header("alg", "RS512"),
                "add it to `[issuers.main] algorithms` (exchequer.toml:1).",
            ),
        ],
    );
    world.assert_led(
        "subject_token_key_id_missing",
        &[(
            world.good().without_header("kid"),
            "as `[issuers.main] jwt_key` (exchequer.toml:1) (Clerk → API keys → JWT public key).",
        )],
    );
    world.assert_led(
        "subject_token_issuer_untrusted",
        &[(
            world.good().claim("iss", "http://localhost:8080/"),
            "Nothing like it is configured",
        )],
    );
    for (header, next) in [
        (
            json!({"alg": "dir", "enc": "A256GCM", "iss": "https://x.auth0.com/"}),
            "an access token of Auth0 for its own /userinfo",
        ),
        (
            json!({"alg": "dir", "enc": "A256CBC-HS512"}),
            "a session cookie of Auth.js",
        ),
    ] {
        let header = crate::support::token::encode(header.to_string());
        let said = world.explain(&format!("{header}.a.b.c.d"), "web");
        assert_next(&said, "subject_token_encrypted", next);
    }
    let near = world.explain(&world.good().sign(Key::rsa()), "wbe");
    assert_next(
        &near,
        "app_unknown",
        "The apps are partner, staging, tv, web: did you mean web?",
    );
    let ended = world.run(&world.good().sign(Key::rsa()), &["--json"]);
    let said = serde_json::from_str(&ended.stdout).unwrap();
    assert_next(&said, "app_required", "These apps would take it: tv, web.");
    let ended = world.run(
        &world.good().sign(Key::rsa()),
        &["--json", "--app", "web", "--audience", "https://x.example"],
    );
    let said = serde_json::from_str(&ended.stdout).unwrap();
    assert_next(
        &said,
        "audience_not_allowed",
        "`[apps.web] audience` (exchequer.toml:19) allows http://localhost:8080.",
    );
}

/// What was tried, and what follows.
fn tests(said: &Value) -> Vec<(String, String)> {
    let tests = said["cause_tests"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tests
        .map(|test| (text(&test["found"]), text(&test["means"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_is_tried_with_every_key_at_hand() {
    let world = World::new().await;
    // Changed on its way.
    let token = world.good().sign(Key::rsa());
    let other = world.good().claim("sub", "user_2").sign(Key::rsa());
    let (message, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = token.rsplit_once('.').unwrap();
    let said = world.explain(&format!("{message}.{signature}"), "web");
    assert_eq!(said["code"], "subject_token_signature_invalid");
    let found = tests(&said);
    assert!(
        found[0]
            .0
            .starts_with("key set asked anew: ins_1 has thumbprint "),
        "{found:?}"
    );
    assert_eq!(found[0].1, "not a stale cache");
    assert_eq!(
        found[1..],
        [
            (
                "signature of 256 bytes, the key makes 256".to_owned(),
                "not cut off, and of the right type of key".to_owned()
            ),
            (
                "tried 1 key of the other issuers: none verifies it".to_owned(),
                "no mix-up of the configured issuers".to_owned()
            ),
        ],
        "the two public issuers cannot be asked from here"
    );
    // Cut off.
    let cut = &token[..token.len() - 10];
    let found = tests(&world.explain(cut, "web"));
    assert_eq!(found[1].1, "cut off on its way, or of another type of key");
    // Signed by another configured issuer.
    let mixed = world.good().sign(Key::other_rsa());
    let said = world.explain(&mixed, "web");
    let found = tests(&said);
    let url = &world.other.url;
    assert!(
        found.contains(&(
            format!("the issuer {url} has a key ins_other, which verifies it"),
            "signed by another issuer than `iss` says: two instances were mixed up where it was made".to_owned(),
        )),
        "{found:?}"
    );
    assert_next(
        &said,
        "subject_token_signature_invalid",
        &format!("Compare the instance that the app signs in to with {url} (exchequer.toml:11)."),
    );
    // The kid of another configured issuer.
    let misnamed = world.good().header("kid", "ins_other").sign(Key::rsa());
    let said = world.explain(&misnamed, "web");
    assert_eq!(said["code"], "subject_token_key_unknown", "{said}");
    let found = tests(&said);
    assert_eq!(found[0].0, "the same issuer's key ins_1 verifies it");
    assert_eq!(found[1].1, "the kid is another issuer's");
    // A configured key that the issuer no longer publishes.
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", &world.main.url)
        .env("CLERK_JWT_KEY", Key::other_rsa().public_pem())
        .input(world.good().sign(Key::rsa()))
        .run(&["explain", "--json"]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        tests(&said)[0].1,
        "the configured key is old, or another instance's"
    );
    assert_next(
        &said,
        "subject_token_signature_invalid",
        "Replace CLERK_JWT_KEY",
    );
}
