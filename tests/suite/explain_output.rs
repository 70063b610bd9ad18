//! The output of `exchequer explain`: whole, in colours, as JSON, and fit for a public ticket.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Key, Token, now, token};
use serde_json::{Value, json};
use tempfile::TempDir;

fn configured(issuer: &Issuer) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let toml = format!(
        "[issuers.canaryissuer]\nissuer = \"{}\"\nkind = \"clerk\"\naudiences = [\"canaryaudience\"]\n[apps.canaryapp]\nissuers = [\"canaryissuer\"]\n",
        issuer.url
    );
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    dir
}

fn run(dir: &TempDir, input: &str, arguments: &[&str]) -> Ended {
    let arguments = [&["explain"], arguments].concat();
    Command::new(dir.path()).input(input).run(&arguments)
}

/// The text with numbers and what changes from run to run replaced.
fn steady(text: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replaced {
        text = text.replace(from, to);
    }
    let mut steady = String::new();
    for each in text.chars() {
        match (each.is_ascii_digit(), steady.ends_with('#')) {
            (true, true) => {}
            (true, false) => steady.push('#'),
            (false, _) => steady.push(each),
        }
    }
    steady
}

fn sha256(text: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_explained_on_one_screen() {
    let issuer = Issuer::start().await;
    let dir = configured(&issuer);
    let good = Token::clerk(&issuer.url).claim("aud", "canaryaudience");
    let wrong = good.sign(Key::other_rsa());
    let ended = run(&dir, &wrong, &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let hash = sha256(&wrong);
    let thumbprint = ended.stdout.split("thumbprint ").nth(1).unwrap();
    let thumbprint = thumbprint.split(',').next().unwrap().to_owned();
    assert_eq!(thumbprint.len(), 43);
    let replaced = [
        (issuer.url.as_str(), "ISSUER"),
        (&hash, "HASH"),
        (&thumbprint, "PRINT"),
    ];
    assert_eq!(
        steady(&ended.stdout, &replaced),
        "token  RS#  kid ins_#  # bytes   (decoded, NOT yet trusted)
sha# HASH

  # ok    form             # bytes of claims
  # ok    header
  # ok    issuer           ISSUER   [canaryissuer]
  # ok    app              [canaryapp]
  # ok    type             JWT   [JWT, or none]
  # ok    algorithm        RS#   [RS#]
  # ok    key              ins_#   [one of ins_# (fetched # s ago)]
  # FAIL  signature        # bytes that do not verify
                           expected: a signature by the key that kid names
    --    not reached: claims, audience, authorized_party, expiry, not_before, issued_at, session, limits, revocation, condition, scopes
          expiry would pass: exp is in # s
          audience would pass

refused  subject_token_signature_invalid
         The token's signature does not verify with the issuer's key of that `kid`.
cause    The token was changed on its way (cut off, re-encoded, pieced together) or signed with another key.
tests    key set asked anew: ins_# has thumbprint PRINT, and does not verify it either  → not a stale cache
         signature of # bytes, the key makes #  → not cut off, and of the right type of key
confirm  Compare SHA-# of the token where it is made with the one that `exchequer explain` shows.
next     Send the token untouched. If the bytes are the same, the provider's key was replaced under the same `kid`: ask there. If only a library of yours refuses the token and `explain` accepts it, the library mixes up keys of several issuers.
known    @clerk/backend: Up to #.#, a process with several instances verified all tokens with the key that came first (`token-invalid-signature`) where keys were given as PEM; since August # keys are kept apart by instance. https://github.com/clerk/javascript/pull/#
known    Clerk's SDKs for Python, Go, C# and Ruby: Before August # they cached the keys of all instances in a process together, without the instance. https://github.com/clerk/clerk-sdk-python/pull/#
note     compare the sha# above with that of the token where it is made: if they differ, it was changed on its way
"
    );
    // The one line that a hurried reader looks for is the last of its kind.
    let missing = good.without("aud").sign(Key::rsa());
    let ended = run(&dir, &missing, &[]);
    let end = ended.stdout.split("\n\nrefused  ").nth(1).unwrap();
    let (_, next) = end.split_once("\nnext     ").unwrap();
    assert_eq!(
        next,
        "1. Clerk → Sessions → Customize session token: add `{\"aud\": \"canaryaudience\"}`. Tokens that are made from then on have it.
         2. Or, if no audience is needed, remove `[issuers.canaryissuer] audiences` (exchequer.toml:4) and set `[issuers.canaryissuer] authorized_parties` (exchequer.toml:1) instead.
         3. Either add `\"aud\": \"…\"` to the session token at the provider (Clerk: Sessions → Customize session token), or remove the configured audience and set the authorized parties instead.
"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_colours_where_they_are_wanted_and_nowhere_else() {
    let issuer = Issuer::start().await;
    let dir = configured(&issuer);
    let token = Token::clerk(&issuer.url).sign(Key::rsa());
    let plain = run(&dir, &token, &[]).stdout;
    assert!(!plain.contains('\u{1b}'));
    let explain = |variables: &[(&str, &str)], color: &str| {
        let mut command = Command::new(dir.path()).input(token.as_str());
        for (name, value) in variables {
            command = command.env(name, value);
        }
        command.run(&["explain", "--color", color]).stdout
    };
    // Standard output is no terminal here.
    for (variables, color, coloured) in [
        (&[][..], "auto", false),
        (&[("CLICOLOR_FORCE", "1")], "auto", true),
        (&[("CLICOLOR_FORCE", "1")], "never", false),
        (&[("NO_COLOR", "1")], "auto", false),
        (&[("TERM", "dumb")], "auto", false),
        (&[], "always", true),
        (&[("NO_COLOR", "1")], "always", true),
        (&[], "never", false),
    ] {
        let shown = explain(variables, color);
        assert_eq!(shown.contains('\u{1b}'), coloured, "{variables:?} {color}");
        // Without its colours it is the same text.
        let bare = anstream::adapter::strip_str(&shown).to_string();
        let ladder = |text: &str| text.lines().filter(|line| !line.contains("exp")).count();
        assert_eq!(ladder(&bare), ladder(&plain));
    }
    let json = run(&dir, &token, &["--json", "--color", "always"]).stdout;
    assert!(!json.contains('\u{1b}'));
    let wrong = run(&dir, &token, &["--color", "sometimes"]);
    assert_eq!(wrong.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_has_one_shape_whatever_is_explained() {
    let issuer = Issuer::start().await;
    let dir = configured(&issuer);
    let good = Token::clerk(&issuer.url).claim("aud", "canaryaudience");
    let assertion = json!({"iss": "robot", "sub": "robot"});
    let assertion = token::assemble(r#"{"alg":"RS256"}"#, &assertion.to_string(), |message| {
        Key::rsa().sign(message)
    });
    let own = good
        .clone()
        .claim("iss", "http://localhost:8080")
        .sign(Key::rsa());
    for (input, kind, accepted, code) in [
        (
            good.sign(Key::rsa()),
            "subject_token",
            json!(true),
            Value::Null,
        ),
        (
            good.without("aud").sign(Key::rsa()),
            "subject_token",
            json!(false),
            json!("subject_token_audience_missing"),
        ),
        (
            "oat_abc".to_owned(),
            "opaque_token",
            json!(false),
            json!("subject_token_opaque"),
        ),
        (
            "ert_abc".to_owned(),
            "refresh_token",
            json!(false),
            json!("subject_token_is_refresh_token"),
        ),
        (
            "sess_abc".to_owned(),
            "session_id",
            json!(false),
            json!("session_id_unsupported"),
        ),
        (
            own,
            "app_token",
            json!(false),
            json!("app_token_key_unknown"),
        ),
        (
            assertion,
            "client_assertion",
            json!(false),
            json!("client_assertion_audience_mismatch"),
        ),
        (
            "{\"error\":\"invalid_client\"}".to_owned(),
            "error_answer",
            json!(false),
            json!("upstream_client_refused"),
        ),
        (
            "sk_live_abc".to_owned(),
            "secret",
            json!(false),
            Value::Null,
        ),
        (
            "pk_live_abc".to_owned(),
            "publishable_key",
            json!(false),
            Value::Null,
        ),
        ("user_abc".to_owned(), "id", json!(false), Value::Null),
        ("{\"a\":1}".to_owned(), "json", Value::Null, Value::Null),
        (
            "nothing of that".to_owned(),
            "text",
            json!(false),
            Value::Null,
        ),
    ] {
        let ended = run(&dir, &input, &["--json"]);
        let said: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        let members: Vec<&str> = said
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            members,
            [
                "accepted",
                "action",
                "because",
                "cause",
                "cause_tests",
                "code",
                "confirm",
                "description",
                "kind",
                "known_issues",
                "ladder",
                "next",
                "notes",
                "redacted",
                "source",
                "title",
                "token",
                "unreached",
                "verdict",
            ],
            "{kind}"
        );
        assert_eq!(
            (&said["kind"], &said["accepted"], &said["code"]),
            (&json!(kind), &accepted, &code),
            "{said}"
        );
        assert_eq!(ended.code, i32::from(accepted != true), "{kind}");
        assert!(!said["title"].as_array().unwrap().is_empty(), "{kind}");
        if accepted != true {
            assert!(
                !said["next"].as_array().unwrap().is_empty(),
                "{kind}: {said}"
            );
        }
        assert!(!ended.stdout.contains("sk_live_abc"), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_report_holds_nothing_of_anybody() {
    let issuer = Issuer::start().await;
    let dir = configured(&issuer);
    let base = || {
        Token::clerk(&issuer.url)
            .claim("aud", "canaryaudience")
            .claim("sub", "user_canarysubject")
            .claim("sid", "sess_canarysession")
            .claim("jti", "canaryjti")
            .claim("azp", "https://canaryorigin.example")
            .claim("email", "canary@mail.example")
            .claim(
                "o",
                json!({"id": "org_canaryorg", "slg": "canaryslug", "rol": "canaryrole"}),
            )
    };
    let secrets = [
        "canary",
        "user_",
        "sess_",
        "org_",
        "ins_",
        issuer.url.trim_start_matches("http://"),
        "127.0.0.1",
    ];
    for (token, code) in [
        (base().sign(Key::rsa()), Value::Null),
        (base().claim("iss", "https://canaryother.example").sign(Key::rsa()), json!("subject_token_issuer_untrusted")),
        (base().claim("iss", format!("{}/", issuer.url)).sign(Key::rsa()), json!("subject_token_issuer_untrusted")),
        (base().header("kid", "ins_canarykid").sign(Key::rsa()), json!("subject_token_key_unknown")),
        (base().header("typ", "canarytype").sign(Key::rsa()), json!("subject_token_type_mismatch")),
        (base().header("alg", "canaryalg").sign(Key::rsa()), json!("subject_token_algorithm_not_allowed")),
        (base().sign(Key::other_rsa()), json!("subject_token_signature_invalid")),
        (base().claim("aud", "canaryaudience/").sign(Key::rsa()), json!("subject_token_audience_mismatch")),
        (base().without("aud").sign(Key::rsa()), json!("subject_token_audience_missing")),
        (base().claim("exp", 1).sign(Key::rsa()), json!("subject_token_expired")),
        (base().claim("sts", "canarystatus").sign(Key::rsa()), json!("subject_token_claim_malformed")),
        (base().claim("iss", "http://localhost:8080").claim("client_id", "canaryclient").sign(Key::rsa()), json!("app_token_key_unknown")),
        ("sess_canarysession".to_owned(), json!("session_id_unsupported")),
        ("oat_canarytoken".to_owned(), json!("subject_token_opaque")),
        ("{\"error\":\"canaryerror\",\"error_description\":\"canary\"}".to_owned(), Value::Null),
        ("{\"error\":\"x\",\"code\":\"subject_token_expired\",\"error_description\":\"canary\",\"request_id\":\"canary\"}".to_owned(), json!("subject_token_expired")),
        (format!("{{\"session_token\":\"{}\"}}", base().sign(Key::rsa())), Value::Null),
    ] {
        for arguments in [&["--redact"][..], &["--redact", "--json"]] {
            let ended = run(&dir, &token, arguments);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            for secret in secrets {
                assert!(!said.contains(secret), "{secret}: {said}");
            }
            let signed = token.split('.').filter(|part| token.starts_with("eyJ") && part.len() > 30);
            for part in signed {
                for piece in part.as_bytes().chunks(12) {
                    let piece = std::str::from_utf8(piece).unwrap();
                    assert!(piece.len() < 12 || !said.contains(piece), "{said}");
                }
            }
            if arguments.len() == 2 {
                let said: Value = serde_json::from_str(&ended.stdout).unwrap();
                assert_eq!((&said["code"], &said["redacted"]), (&code, &json!(true)), "{said}");
            }
        }
    }
    // What is equal stays equal, and the slip can still be seen.
    let near = base().claim("aud", "canaryaudience/").sign(Key::rsa());
    let said = run(&dir, &near, &["--redact"]).stdout;
    assert!(
        said.contains(
            "<audience 1> is nearly <audience 2>: a slash at the end makes the difference."
        ),
        "{said}"
    );
    // Two ends can compare the token itself.
    assert!(said.contains(&sha256(&near)), "{said}");
}

/// Each rung that was reached: the check, what was seen, and in brackets what was expected.
fn rungs(said: &Value, replaced: &[(&str, &str)]) -> Vec<String> {
    let rungs = said["ladder"].as_array().unwrap().iter();
    let text = |value: &Value| steady(value.as_str().unwrap_or_default(), replaced);
    rungs
        .filter(|rung| rung["outcome"] != "not_reached")
        .map(|rung| {
            let [check, seen, expected] =
                ["check", "seen", "expected"].map(|name| text(&rung[name]));
            format!("{check}: {seen} [{expected}]")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rung_says_what_was_seen_and_what_was_expected() {
    // In the order in which they are told.
    let mut issuers = [Issuer::start().await, Issuer::start().await];
    issuers.sort_by(|one, other| one.url.cmp(&other.url));
    let [main, bare] = issuers;
    let dir = tempfile::tempdir().unwrap();
    let toml = format!(
        r#"[issuers.main]
issuer = "{main}"
kind = "clerk"
audiences = ["web", "tv"]
authorized_parties = ["https://app.example.com", "https://example.com"]
[issuers.bare]
issuer = "{bare}"
kind = "clerk"
[apps.web]
issuers = ["main", "bare"]
audience = "https://web.example"
[apps.other]
issuers = ["bare"]
audience = "https://other.example"
"#,
        main = main.url,
        bare = bare.url
    );
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    let replaced = [(main.url.as_str(), "MAIN"), (bare.url.as_str(), "BARE")];
    let explained = |token: &Token, arguments: &[&str]| {
        let arguments = [&["--json"], arguments].concat();
        let ended = run(&dir, &token.sign(Key::rsa()), &arguments);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        rungs(&said, &replaced)
    };
    let good = || Token::clerk(&main.url).claim("aud", json!(["phone", "web"]));
    assert_eq!(
        explained(&good(), &[]),
        [
            "form: # bytes of claims []",
            "header:  []",
            "issuer: MAIN [main]",
            "app:  [web]",
            "type: JWT [JWT, or none]",
            "algorithm: RS# [RS#]",
            "key: ins_# [one of ins_# (fetched # s ago)]",
            "signature:  []",
            "claims:  []",
            "audience: [\"phone\",\"web\"] [web, tv]",
            "authorized_party: https://app.example.com [https://app.example.com, https://example.com]",
            "expiry: exp #: in # s [later than now (#)]",
            "not_before: nbf # [not after now]",
            "issued_at: iat # [not after now, at most # s before exp]",
            "session: active [active]",
            "limits:  []",
            "condition:  [none configured]",
            "scopes:  [none configured]",
        ]
    );
    let plain = Token::clerk(&bare.url).without("iat").without("nbf");
    assert_eq!(
        explained(&plain, &["--app", "web"])[9..14],
        [
            "audience:  [none configured]",
            "authorized_party: https://app.example.com [none configured]",
            "expiry: exp #: in # s [later than now (#)]",
            "not_before: nbf absent [not after now]",
            "issued_at: iat absent [not after now, at most # s before exp]",
        ]
    );
    let long = format!("audience: {{\"web\":\"{} [web, tv]", "x".repeat(247));
    for (token, arguments, last) in [
        (
            Token::clerk("https://nobody.example"),
            &[][..],
            "issuer: https://nobody.example [MAIN, BARE]",
        ),
        (
            Token::clerk(&format!("{}/", main.url)),
            &[],
            "issuer: MAIN/ [MAIN, BARE; nearest: MAIN (a slash at the end makes the difference)]",
        ),
        (
            good().without("iss"),
            &[],
            "issuer: no iss, or not a text [MAIN, BARE]",
        ),
        (plain, &[], "app: no app named [other, web]"),
        (
            good(),
            &["--audience", "https://else.example"],
            "app: audience https://else.example [https://web.example]",
        ),
        (
            good().header("jku", "else"),
            &[],
            "header: jku [none of crit, b#, jwk, jku, x#u, x#c, zip, enc]",
        ),
        (good().header("typ", "x"), &[], "type: x [JWT, or none]"),
        (
            good().header("typ", "at+jwt"),
            &[],
            "type: oauth [main accepts session]",
        ),
        (good().header("alg", "HS256"), &[], "algorithm: HS# [RS#]"),
        (
            good().header("kid", "else"),
            &[],
            "key: else [one of ins_# (fetched # s ago)]",
        ),
        (
            good().without("sub"),
            &[],
            "claims: sub is missing [sub and exp, and every registered claim of its type]",
        ),
        (
            good().claim("aud", json!({"web": "x".repeat(300)})),
            &[],
            &long,
        ),
        (good().without("aud"), &[], "audience: absent [web, tv]"),
        (
            good().claim("azp", "https://else.example"),
            &[],
            "authorized_party: https://else.example [https://app.example.com, https://example.com]",
        ),
        (
            good().without("azp"),
            &[],
            "authorized_party: absent [https://app.example.com, https://example.com]",
        ),
        (
            good().claim("exp", now() - 100),
            &[],
            "expiry: exp #: # s ago [later than now (#), # s tolerated]",
        ),
        (
            good().claim("nbf", now() + 100),
            &[],
            "not_before: nbf: in # s [at most # s after now (#)]",
        ),
        (
            good().claim("iat", now() + 100),
            &[],
            "issued_at: iat: in # s [at most # s after now (#)]",
        ),
        (
            good().claim("iat", now() - 1_000_000),
            &[],
            "issued_at: a lifetime of # s [at most # s]",
        ),
        (
            good().claim("sts", "pending"),
            &[],
            "session: sts pending [active]",
        ),
    ] {
        let explained = explained(&token, arguments);
        assert_eq!(explained.last().map(String::as_str), Some(last));
    }
}
