//! The configuration: everything that is wrong is said at once, each with its place and what
//! would be right, and never a secret.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Key, Service, Token, now, token};
use exchequer::config::{SECTIONS, VARIABLES};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;

/// Variables and their values.
type Variables<'v> = &'v [(&'v str, &'v str)];

const CLERK: (&str, &str) = ("CLERK_JWT_ISSUER", "https://clerk.example.com");
/// 32 bytes in base64.
const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";

fn run(command: &str, dir: &Path, variables: &[(&str, &str)]) -> Ended {
    variables
        .iter()
        .fold(Command::new(dir), |command, (name, value)| {
            command.env(name, value)
        })
        .run(&[command])
}

/// `check` with these variables and no file.
fn check(variables: &[(&str, &str)]) -> Ended {
    run("check", tempfile::tempdir().unwrap().path(), variables)
}

/// `check` with this `exchequer.toml`.
fn check_file(toml: &str) -> Ended {
    let dir = folder(toml);
    run("check", dir.path(), &[("A_SECRET", "of-client-a")])
}

fn folder(toml: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    dir
}

fn lines<'e>(ended: &'e Ended, kind: &str) -> Vec<&'e str> {
    ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix(kind).map(str::trim_start))
        .collect()
}

fn errors(ended: &Ended) -> Vec<&str> {
    lines(ended, "error:")
}

fn notes(ended: &Ended) -> Vec<&str> {
    lines(ended, "note:")
}

/// Asserts that `check` failed with one error, at this place, that says this.
#[track_caller]
fn assert_error(ended: &Ended, place: &str, says: &str) {
    let errors = errors(ended);
    assert_eq!(ended.code, 1, "{place} {says:?}: {ended:?}");
    assert_eq!(errors.len(), 1, "{place} {says:?}: {errors:#?}");
    assert!(
        errors[0].starts_with(&format!("{place}: ")) && errors[0].contains(says),
        "{place} {says:?}: {errors:#?}"
    );
}

#[track_caller]
fn assert_good(ended: &Ended) {
    assert_eq!((ended.code, errors(ended).len()), (0, 0), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const GOOD: &[(&str, &[&str])] = &[
    (
        "EXCHEQUER_LISTEN",
        &["0.0.0.0:80", "[::]:8080", "127.0.0.1:0"],
    ),
    (
        "EXCHEQUER_ADMIN_LISTEN",
        &["0.0.0.0:9091", "[::1]:9090", "127.0.0.1:0"],
    ),
    (
        "EXCHEQUER_ISSUER",
        &[
            "https://auth.example.com",
            "https://auth.example.com:8443/base",
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://auth.localhost",
        ],
    ),
    (
        "EXCHEQUER_AUDIENCE",
        &["https://api.example.com", "tasks", "urn:tasks"],
    ),
    ("EXCHEQUER_TOKEN_TTL", &["30s", "1h", "60m", "3600s"]),
    ("EXCHEQUER_KEYS_DIR", &["/var/lib/exchequer", "somewhere"]),
    ("EXCHEQUER_KEYS_SECRET", &[SECRET]),
    ("EXCHEQUER_KEY_ALG", &["ES256", "RS256", "EdDSA"]),
    ("EXCHEQUER_KEY_ROTATE_EVERY", &["1d", "3650d"]),
    ("EXCHEQUER_KEY_PUBLISH_AHEAD", &["2h", "90d", "1s"]),
    ("EXCHEQUER_KEY_KEEP_AFTER", &["15m", "3650d"]),
    (
        "EXCHEQUER_STORE",
        &[
            "memory",
            "data/exchequer.redb",
            "/var/lib/e.redb",
            "redis/e.redb",
        ],
    ),
    (
        "EXCHEQUER_ALLOWED_ORIGINS",
        &[
            "https://app.example.com",
            "https://app.example.com, http://localhost:3000",
            "capacitor://localhost,tauri://localhost",
            "https://app.example.com,",
        ],
    ),
    ("EXCHEQUER_STORE_DOWN_REVOCATION", &["last_known", "refuse"]),
    ("EXCHEQUER_STORE_DOWN_LIMITS", &["local", "refuse"]),
    ("EXCHEQUER_RATE_LIMIT", &["on", "off", "100/1m", "5/10s"]),
    (
        "EXCHEQUER_TRUSTED_PROXIES",
        &["10.0.0.1", "10.0.0.0/8, fd00::/8", "::1"],
    ),
    ("EXCHEQUER_AUDIT", &["off", "stdout", "file:audit.log"]),
    ("EXCHEQUER_VERIFY_CACHE", &["on", "off"]),
    ("EXCHEQUER_CONSOLE", &["on", "off"]),
    (
        "EXCHEQUER_CONSOLE_TOKEN",
        &["0123456789abcdef0123456789abcdef"],
    ),
    ("EXCHEQUER_MAX_CONCURRENCY", &["1", "512", "65536"]),
    (
        "EXCHEQUER_MAX_QUEUE_DELAY",
        &["1ms", "25ms", "1000ms", "off"],
    ),
    ("EXCHEQUER_SHUTDOWN_DELAY", &["0s", "10s", "5m"]),
    ("EXCHEQUER_LOG", &["debug", "warn,exchequer=trace"]),
    ("EXCHEQUER_LOG_FORMAT", &["json", "text"]),
];

const BAD: &[(&str, &[&str], &str)] = &[
    (
        "EXCHEQUER_LISTEN",
        &[
            "8080",
            "localhost:8080",
            "0.0.0.0",
            "0.0.0.0:70000",
            " 127.0.0.1:1",
        ],
        "is no address and port: write 0.0.0.0:8080 or [::]:8080",
    ),
    (
        "EXCHEQUER_ADMIN_LISTEN",
        &[":9090", "::1:9090x"],
        "is no address and port",
    ),
    (
        "EXCHEQUER_ADMIN_LISTEN",
        &["127.0.0.1:8080"],
        "the admin listener must not be the public one",
    ),
    (
        "EXCHEQUER_ISSUER",
        &["auth.example.com", "https://", "/"],
        "is no URL: write it with https://",
    ),
    (
        "EXCHEQUER_ISSUER",
        &[
            "http://auth.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
        ],
        "must be https: plain http is only for this machine",
    ),
    (
        "EXCHEQUER_ISSUER",
        &[
            "ftp://auth.example.com",
            "file:///etc/passwd",
            "localhost:8080",
        ],
        "must be an https URL",
    ),
    (
        "EXCHEQUER_ISSUER",
        &["https://auth.example.com/", "http://localhost:8080/"],
        "must not end in a slash: verifiers compare it byte for byte",
    ),
    (
        "EXCHEQUER_ISSUER",
        &["https://auth.example.com?a=b", "https://auth.example.com#a"],
        "must have no query and no fragment",
    ),
    (
        "EXCHEQUER_ISSUER",
        &["https://me@auth.example.com", "http://me:pw@example.com?x"],
        "a URL must have no user and no password",
    ),
    (
        "EXCHEQUER_TOKEN_TTL",
        &[
            "600",
            "ten",
            "10",
            "1.5m",
            "-1m",
            "10 m",
            "1h30m",
            "10M",
            "99999999999s",
        ],
        "is no duration: write 30s, 10m, 24h or 90d",
    ),
    (
        "EXCHEQUER_TOKEN_TTL",
        &["29s", "61m", "2h", "0s"],
        "is out of range: 30s to 1h",
    ),
    (
        "EXCHEQUER_KEYS_SECRET",
        &[
            "short",
            "c2hvcnQ=",
            "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ",
            "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ1",
        ],
        "must be 32 bytes in base64: make them with `openssl rand -base64 32`",
    ),
    (
        "EXCHEQUER_KEY_ALG",
        &["HS256", "none", "es256", "PS256"],
        "is none of ES256, RS256, EdDSA",
    ),
    (
        "EXCHEQUER_KEY_ROTATE_EVERY",
        &["monthly", "90"],
        "is no duration",
    ),
    ("EXCHEQUER_KEY_ROTATE_EVERY", &["3651d"], "out of range"),
    (
        "EXCHEQUER_KEY_ROTATE_EVERY",
        &["23h"],
        "cannot rotate faster than its successor is published ahead",
    ),
    ("EXCHEQUER_KEY_PUBLISH_AHEAD", &["soon"], "is no duration"),
    (
        "EXCHEQUER_KEY_PUBLISH_AHEAD",
        &["366d", "0s"],
        "out of range",
    ),
    ("EXCHEQUER_KEY_KEEP_AFTER", &["5m", "329s"], "out of range"),
    (
        "EXCHEQUER_KEY_KEEP_AFTER",
        &["14m", "899s"],
        "a retired key must stay published for the longest token lifetime and five minutes: at least 15m",
    ),
    (
        "EXCHEQUER_STORE",
        &["postgres://db", "mysql://user:pw@db"],
        "is no store: memory, the path of a file, or the URL of a Redis",
    ),
    (
        "EXCHEQUER_STORE",
        &["file:data/exchequer.redb", "file:"],
        "write the path alone, without file:",
    ),
    (
        "EXCHEQUER_STORE",
        &[
            "redis:/:hunter2@cache/0",
            "redis//:hunter2@cache",
            "rediss:hunter2@cache",
            "Redis+Cluster:one,two",
            "unix:/run/redis.sock",
        ],
        "begins like the URL of a Redis and is none: write redis://HOST:6379",
    ),
    (
        "EXCHEQUER_STORE",
        &[
            "redis://one,two",
            "rediss://user:pw@r:1/zero",
            "redis+cluster://one,two/3",
            "redis://one?prefix={all}",
        ],
        "the URL of a Redis takes ",
    ),
    ("EXCHEQUER_CONFIG", &["missing.toml", "/"], "cannot read"),
    (
        "EXCHEQUER_ALLOWED_ORIGINS",
        &[
            "*",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:443",
            "https://*.example.com",
            "capacitor://",
            "data:text/html",
        ],
        "is no origin: write https://app.example.com",
    ),
    (
        "EXCHEQUER_RATE_LIMIT",
        &["yes", "0/1m", "-1/1m", "ten/1m", "10"],
        "is neither on, off nor N/1m",
    ),
    (
        "EXCHEQUER_STORE_DOWN_REVOCATION",
        &["local", "closed"],
        "is neither last_known nor refuse",
    ),
    (
        "EXCHEQUER_STORE_DOWN_LIMITS",
        &["last_known", "open"],
        "is neither local nor refuse",
    ),
    ("EXCHEQUER_RATE_LIMIT", &["10/2d"], "out of range"),
    ("EXCHEQUER_RATE_LIMIT", &["10/minute"], "is no duration"),
    (
        "EXCHEQUER_TRUSTED_PROXIES",
        &["proxy.example.com", "10.0.0.0/33", "10.0.0.1,everyone"],
        "is neither an address nor a network: write 10.0.0.0/8",
    ),
    (
        "EXCHEQUER_AUDIT",
        &["on", "file:", "audit.log"],
        "is neither off, stdout nor file:PATH",
    ),
    (
        "EXCHEQUER_VERIFY_CACHE",
        &["yes", "1", "ON"],
        "is neither on nor off",
    ),
    (
        "EXCHEQUER_CONSOLE",
        &["yes", "local"],
        "is neither on nor off",
    ),
    (
        "EXCHEQUER_CONSOLE_TOKEN",
        &["short", "0123456789abcdef 0123456789abcdef"],
        "must be 32 or more printable ASCII characters",
    ),
    (
        "EXCHEQUER_MAX_CONCURRENCY",
        &["0", "-1", "65537", "many", "1e3"],
        "is no number from 1 to 65536",
    ),
    (
        "EXCHEQUER_MAX_QUEUE_DELAY",
        &["0ms", "1001ms", "25", "1s", "on", "-1ms"],
        "is neither off nor 1ms to 1000ms",
    ),
    (
        "EXCHEQUER_SHUTDOWN_DELAY",
        &["301s", "6m"],
        "is out of range: 0s to 5m",
    ),
    (
        "EXCHEQUER_LOG",
        &["exchequer=loud", "a=b=c"],
        "is no log filter",
    ),
    (
        "EXCHEQUER_LOG_FORMAT",
        &["JSON", "pretty"],
        "is neither json nor text",
    ),
];

#[test]
fn every_variable_takes_its_good_values() {
    for (name, values) in GOOD {
        for value in *values {
            let mut variables = vec![CLERK, (*name, *value)];
            if *name == "EXCHEQUER_KEY_PUBLISH_AHEAD" {
                variables.push(("EXCHEQUER_KEY_ROTATE_EVERY", "90d"));
            }
            let ended = check(&variables);
            assert_good(&ended);
            assert!(
                ended.stdout.contains("ok:    app default:"),
                "{name}={value}: {ended:?}"
            );
        }
    }
}

#[test]
fn every_variable_says_what_is_wrong_with_its_value() {
    for (name, values, says) in BAD {
        for value in *values {
            let secret = (name == &"EXCHEQUER_STORE").then_some(("EXCHEQUER_KEYS_SECRET", SECRET));
            let variables: Vec<_> = [CLERK, (*name, *value)].into_iter().chain(secret).collect();
            assert_error(&check(&variables), name, says);
        }
    }
}

#[test]
fn no_variable_is_left_out_of_these_tables() {
    let any_text = ["EXCHEQUER_AUDIENCE", "EXCHEQUER_KEYS_DIR"];
    for variable in VARIABLES {
        let name = variable.name;
        assert!(
            name == "EXCHEQUER_CONFIG" || GOOD.iter().any(|(good, _)| *good == name),
            "{name} has no good values"
        );
        assert!(
            any_text.contains(&name) || BAD.iter().any(|(bad, ..)| *bad == name),
            "{name} has no bad values"
        );
    }
}

#[test]
fn all_errors_are_said_at_once_in_the_order_of_their_places() {
    let dir = folder(
        "[issuers.a]\nissuer = \"http://example.com\"\n\n\n\n\n\n\n\n[apps.web]\nissuers = [\"b\"]\n[app.y]\n",
    );
    let variables = [
        ("EXCHEQUER_TOKEN_TTL", "600"),
        ("EXCHEQUER_LISEN", "127.0.0.1:1"),
        ("EXCHEQUER_KEYS_SECRET", "not-32-bytes"),
        ("EXCHEQUER_LOG_FORMAT", "xml"),
    ];
    let expected = [
        "EXCHEQUER_KEYS_SECRET: must be 32 bytes in base64: make them with `openssl rand -base64 32`",
        "EXCHEQUER_LISEN: there is no such variable: did you mean \"EXCHEQUER_LISTEN\"?",
        "EXCHEQUER_LOG_FORMAT: \"xml\" is neither json nor text",
        "EXCHEQUER_TOKEN_TTL: \"600\" is no duration: write 30s, 10m, 24h or 90d",
        "exchequer.toml:2: issuer: \"http://example.com\" must be https: plain http is only for this machine",
        "exchequer.toml:10: issuer \"b\" is not configured: did you mean \"a\"?",
        "exchequer.toml:12: there is no section \"app\": did you mean \"apps\"?",
    ];
    let checked = run("check", dir.path(), &variables);
    assert_eq!(errors(&checked), expected);
    assert_eq!((checked.code, checked.stderr.as_str()), (1, ""));
    assert!(!checked.stdout.contains("ok:"), "{}", checked.stdout);

    // The service says the same, where a service says it, and does not start.
    let served = run("serve", dir.path(), &variables);
    let said: Vec<&str> = served
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .collect();
    assert_eq!(said, expected);
    assert_eq!((served.code, served.stdout.as_str()), (2, ""));
}

#[test]
fn a_variable_with_a_typing_error_is_an_error_that_names_the_nearest() {
    for (name, nearest) in [
        ("EXCHEQUER_TOKEN_TLL", Some("EXCHEQUER_TOKEN_TTL")),
        ("EXCHEQUER_AUDIANCE", Some("EXCHEQUER_AUDIENCE")),
        ("EXCHEQUER_KEY_DIR", Some("EXCHEQUER_KEYS_DIR")),
        ("EXCHEQUER_ALLOW_ORIGINS", Some("EXCHEQUER_ALLOWED_ORIGINS")),
        ("EXCHEQUER_KEY_SECRET_FILE", None),
        ("EXCHEQUER_DATABASE", None),
    ] {
        let ended = check(&[CLERK, (name, "x")]);
        let says = match nearest {
            Some(nearest) => format!("there is no such variable: did you mean {nearest:?}?"),
            None => "there is no such variable".to_owned(),
        };
        assert_error(&ended, name, &says);
        assert_eq!(
            errors(&ended)[0].contains("did you mean"),
            nearest.is_some(),
            "{ended:?}"
        );
    }
}

#[test]
fn a_clerk_variable_with_a_typing_error_is_noted_and_a_foreign_one_is_not() {
    let ended = check(&[
        CLERK,
        ("CLERK_AUTHORISED_PARTIES", "x"),
        ("CLERK_TELEMETRY_DISABLED", "1"),
    ]);
    assert_good(&ended);
    let notes = notes(&ended).join("\n");
    assert!(
        notes.contains(
            "CLERK_AUTHORISED_PARTIES: is not a variable of this service: did you mean \"CLERK_AUTHORIZED_PARTIES\"?"
        ),
        "{notes}"
    );
    assert!(!notes.contains("TELEMETRY"), "{notes}");
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let names: Vec<String> = VARIABLES
        .iter()
        .flat_map(|variable| [variable.name.to_owned(), format!("{}_FILE", variable.name)])
        .chain(["CLERK_JWT_KEY".to_owned(), "CLERK_JWT_KEY_FILE".to_owned()])
        .chain(["EXCHEQUER_NO_SUCH".to_owned()])
        .collect();
    let mut variables = vec![CLERK];
    variables.extend(names.iter().map(|name| (name.as_str(), "")));
    let ended = check(&variables);
    assert_good(&ended);
    assert_eq!(ended.stdout, check(&[CLERK]).stdout);
}

#[test]
fn a_variable_that_is_no_utf8_is_not_taken_for_unset() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env(CLERK.0, CLERK.1)
        .env("EXCHEQUER_KEYS_SECRET", OsStr::from_bytes(b"\xff\xfe"))
        .run(&["check"]);
    assert_error(&ended, "EXCHEQUER_KEYS_SECRET", "must be 32 bytes");
}

#[tokio::test]
async fn what_is_configured_takes_effect_and_as_well_from_files() {
    let issuer = Issuer::start().await;
    let values = [
        ("CLERK_JWT_ISSUER", issuer.url.as_str()),
        ("CLERK_JWT_KEY", &Key::rsa().public_pem()),
        ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com\r\n"),
        ("EXCHEQUER_ISSUER", "https://auth.example.com"),
        ("EXCHEQUER_AUDIENCE", "tasks\n"),
        ("EXCHEQUER_TOKEN_TTL", "5m\n"),
        ("EXCHEQUER_KEY_ALG", "EdDSA"),
        ("EXCHEQUER_KEYS_DIR", "elsewhere"),
        ("EXCHEQUER_KEYS_SECRET", SECRET),
    ];
    let files = tempfile::tempdir().unwrap();
    let mut plain = Service::builder();
    let mut filed = Service::builder();
    for (name, value) in values {
        let path = files.path().join(name);
        std::fs::write(&path, value).unwrap();
        plain = plain.env(name, value.trim_end());
        filed = filed.env(&format!("{name}_FILE"), path.display().to_string());
    }
    for service in [plain.start().await, filed.start().await] {
        let answer = service.session(&issuer.token()).await;
        assert_eq!(answer.body["expires_in"], 300);
        let claims = token::claims(answer.token());
        assert_eq!(claims["iss"], "https://auth.example.com");
        assert_eq!(claims["aud"], "tasks");
        assert_eq!(token::header(answer.token())["alg"], "EdDSA");
        assert!(service.dir().join("elsewhere").is_dir());
        assert!(!service.dir().join("keys").exists());
        let elsewhere = Token::clerk(&issuer.url)
            .claim("azp", "https://other.example.com")
            .sign(Key::rsa());
        service
            .session(&elsewhere)
            .await
            .assert_refused(401, "subject_token_authorized_party_mismatch");
        assert!(issuer.requests().is_empty(), "the key was configured");
    }
}

#[test]
fn a_variable_and_its_file_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    std::fs::write(&path, "30s").unwrap();
    let path = path.display().to_string();
    for (name, value) in [
        ("EXCHEQUER_TOKEN_TTL", "10m"),
        ("CLERK_JWT_ISSUER", CLERK.1),
        ("CLERK_SECRET_KEY", "sk_test_1"),
    ] {
        let mut variables = vec![(name, value)];
        if name != CLERK.0 {
            variables.push(CLERK);
        }
        let file = format!("{name}_FILE");
        variables.push((&file, &path));
        assert_error(
            &check(&variables),
            &file,
            &format!("{name} is set too: set one of the two"),
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_or_is_empty_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("empty"), "\n").unwrap();
    std::fs::write(path("binary"), b"\xff\xfe").unwrap();
    for (name, file, says) in [
        ("EXCHEQUER_KEYS_SECRET_FILE", "missing", "cannot be read"),
        ("EXCHEQUER_KEYS_SECRET_FILE", "", "cannot be read"),
        ("EXCHEQUER_KEYS_SECRET_FILE", "binary", "cannot be read"),
        ("CLERK_JWT_KEY_FILE", "missing", "cannot be read"),
        ("CLERK_AUTHORIZED_PARTIES_FILE", "empty", "is empty"),
    ] {
        assert_error(&check(&[CLERK, (name, &path(file))]), name, says);
    }
}

#[test]
fn what_has_no_effect_yet_says_so() {
    let quiet = check(&[CLERK]);
    assert!(!quiet.stdout.contains("no effect"), "{}", quiet.stdout);

    let ended = check_file(
        "[issuers.a]\nissuer = \"https://a.example\"\naudiences = \"a\"\n[apps.web]\nissuers = \"a\"\n[clients.c]\nsecret = { env = \"A_SECRET\" }\n",
    );
    assert_good(&ended);
    assert_eq!(
        notes(&ended),
        [
            "exchequer.toml:6: a client without `audience`, `apps` and `introspect` may do nothing",
            "exchequer.toml:7: secret: shorter than 32 characters: make one with `openssl rand -base64 32`",
        ]
    );
}

#[test]
fn what_is_allowed_and_unwise_is_noted() {
    for (variables, place, says) in [
        (
            vec![CLERK],
            "CLERK_JWT_ISSUER",
            "neither audiences nor authorized parties",
        ),
        (
            vec![("CLERK_JWT_ISSUER", "https://clerk.example.com/")],
            "CLERK_JWT_ISSUER",
            "ends in a slash",
        ),
        (
            vec![
                CLERK,
                ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com/"),
            ],
            "CLERK_AUTHORIZED_PARTIES",
            "\"https://app.example.com/\" is no origin, and `azp` of a session token is one, compared byte for byte: write https://app.example.com",
        ),
        (
            vec![CLERK, ("CLERK_AUTHORIZED_PARTIES", "app.example.com")],
            "CLERK_AUTHORIZED_PARTIES",
            "write https://app.example.com",
        ),
        (
            vec![CLERK, ("CLERK_AUTHORIZED_PARTIES", "localhost:3000")],
            "CLERK_AUTHORIZED_PARTIES",
            "write http://localhost:3000",
        ),
        (
            vec![CLERK, ("EXCHEQUER_KEY_ALG", "EdDSA")],
            "EXCHEQUER_KEY_ALG",
            "EdDSA cannot be verified by Spring Security",
        ),
        (
            vec![CLERK, ("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h")],
            "EXCHEQUER_KEY_PUBLISH_AHEAD",
            "less than 2h",
        ),
        (
            // pk_test_ of other.clerk.accounts.dev$
            vec![
                CLERK,
                (
                    "CLERK_PUBLISHABLE_KEY",
                    "pk_test_b3RoZXIuY2xlcmsuYWNjb3VudHMuZGV2JA",
                ),
            ],
            "CLERK_PUBLISHABLE_KEY",
            "is the key of https://other.clerk.accounts.dev, which is none of the issuers of CLERK_JWT_ISSUER",
        ),
        (
            vec![CLERK, ("CLERK_MACHINE_SECRET_KEY", "ak_1")],
            "CLERK_MACHINE_SECRET_KEY",
            "has no effect without CLERK_SECRET_KEY",
        ),
        (
            vec![
                CLERK,
                ("CLERK_SECRET_KEY", "sk_test_1"),
                ("CLERK_MACHINE_SECRET_KEY", "ak_1"),
            ],
            "CLERK_JWT_ISSUER",
            "(`machine_secret_key`, CLERK_MACHINE_SECRET_KEY) has no effect: machine tokens need an issuer in exchequer.toml whose `accepts` names \"m2m\"",
        ),
    ] {
        let ended = check(&variables);
        assert_good(&ended);
        assert!(
            notes(&ended)
                .iter()
                .any(|note| note.starts_with(&format!("{place}: ")) && note.contains(says)),
            "{says}: {ended:?}"
        );
    }
}

#[test]
fn an_authorized_party_may_be_an_origin_a_scheme_or_an_id() {
    let parties = "https://app.example.com,http://localhost:3000,chrome-extension://abc,capacitor://localhost,bVxQ3kLm9";
    let ended = check(&[CLERK, ("CLERK_AUTHORIZED_PARTIES", parties)]);
    assert_good(&ended);
    assert_eq!(notes(&ended), [""; 0]);
}

#[test]
fn nothing_configured_says_where_to_begin() {
    for command in ["check", "serve"] {
        let dir = tempfile::tempdir().unwrap();
        let ended = run(command, dir.path(), &[]);
        let text = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(
            text,
            "error: CLERK_JWT_ISSUER: no app is configured: set CLERK_JWT_ISSUER=https://clerk.example.com, or write [issuers.NAME] and [apps.NAME] into exchequer.toml\n"
        );
        assert_eq!(ended.code, if command == "check" { 1 } else { 2 });
    }
}

#[test]
fn clerk_variables_say_what_is_wrong_with_them() {
    let pem = Key::rsa().public_pem();
    let cases: [(Variables<'_>, &str, &str); 12] = [
        (
            &[CLERK, ("CLERK_SECRET_KEY", "pk_test_1")],
            "CLERK_SECRET_KEY",
            "is no secret key: sk_test_… or sk_live_…",
        ),
        (
            &[CLERK, ("CLERK_API_URL", "http://api.clerk.com")],
            "CLERK_API_URL",
            "must be https",
        ),
        (
            &[CLERK, ("CLERK_OAUTH_CLIENT_ID", "exchequer")],
            "CLERK_OAUTH_CLIENT_ID",
            "go together: set both or none",
        ),
        (
            &[CLERK, ("CLERK_WEBHOOK_SECRET", "whsec_c2hvcnQ=")],
            "CLERK_WEBHOOK_SECRET",
            "is no webhook secret",
        ),
        (
            &[("CLERK_JWT_ISSUER", "http://clerk.example.com")],
            "CLERK_JWT_ISSUER",
            "must be https",
        ),
        (
            &[("CLERK_JWT_ISSUER", "https://a.example,clerk.example.com")],
            "CLERK_JWT_ISSUER",
            "\"clerk.example.com\" is no URL",
        ),
        (
            &[CLERK, ("CLERK_JWT_ISSUER_MOBILE", "mobile")],
            "CLERK_JWT_ISSUER_MOBILE",
            "\"mobile\" is no URL",
        ),
        (
            &[("CLERK_PUBLISHABLE_KEY", "pk_test_!")],
            "CLERK_PUBLISHABLE_KEY",
            "is no publishable key",
        ),
        (
            &[
                CLERK,
                (
                    "CLERK_JWT_KEY",
                    "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
                ),
            ],
            "CLERK_JWT_KEY",
            "is no public key in PEM",
        ),
        (
            &[
                ("CLERK_JWT_ISSUER", "https://a.example,https://b.example"),
                ("CLERK_JWT_KEY", &pem),
            ],
            "CLERK_JWT_KEY",
            "is one instance's key, but the app has several issuers",
        ),
        (
            &[("CLERK_JWT_ISSUER", "http://localhost:8080")],
            "CLERK_JWT_ISSUER",
            "this service's own issuer cannot be an upstream",
        ),
        (
            &[("CLERK_SECRET_KEY", "sk_test_1")],
            "CLERK_JWT_ISSUER",
            "no app is configured",
        ),
    ];
    for (variables, place, says) in cases {
        let ended = check(variables);
        assert!(
            errors(&ended)
                .iter()
                .any(|error| error.starts_with(&format!("{place}: ")) && error.contains(says)),
            "{variables:?}: {ended:?}"
        );
        assert_eq!(ended.code, 1);
    }
    // A key kept on one line, as dashboards keep it.
    let one_line = pem.trim().replace('\n', "\\n");
    assert_good(&check(&[CLERK, ("CLERK_JWT_KEY", &one_line)]));
}

#[test]
fn each_suffix_of_a_clerk_variable_makes_an_app() {
    let ended = check(&[
        ("CLERK_JWT_ISSUER", "https://a.example, https://b.example"),
        ("CLERK_JWT_ISSUER_MOBILE", "https://c.example"),
        (
            "CLERK_AUTHORIZED_PARTIES_ADMIN",
            "https://admin.example.com",
        ),
    ]);
    assert_good(&ended);
    assert_eq!(
        lines(&ended, "ok:"),
        [
            "issuer of app tokens http://localhost:8080",
            "issuer a.example (clerk) https://a.example RS256",
            "issuer b.example (clerk) https://b.example RS256",
            "issuer a.example-admin (clerk) https://a.example RS256",
            "issuer b.example-admin (clerk) https://b.example RS256",
            "issuer c.example-mobile (clerk) https://c.example RS256",
            "app admin: issuers a.example-admin, b.example-admin; audience http://localhost:8080; 600 s; ES256",
            "app default: issuers a.example, b.example; audience http://localhost:8080; 600 s; ES256",
            "app mobile: issuers c.example-mobile; audience http://localhost:8080; 600 s; ES256",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    for (toml, line) in [
        ("[issuers.a\nissuer = 1\n", 1),
        ("[issuers.a]\nissuer = https://a.example\n", 2),
        ("[issuers.a]\nissuer = \"x\"\nissuer = \"y\"\n", 3),
        ("\n\n[issuers.a]\n[issuers.a]\n", 4),
    ] {
        let ended = check_file(toml);
        assert_eq!(ended.code, 1, "{toml}");
        let place = format!("exchequer.toml:{line}: ");
        assert!(
            errors(&ended).iter().any(|error| error.starts_with(&place)),
            "{toml}: {ended:?}"
        );
    }
}

/// A good file with this as its line 4, in `[issuers.a]`, and this as its line 8, in
/// `[apps.web]`.
fn with(issuer: &str, app: &str) -> String {
    format!(
        "[issuers.a]\nissuer = \"https://a.example\"\naudiences = [\"web\"]\n{issuer}\n\n[apps.web]\nissuers = [\"a\"]\n{app}\n"
    )
}

#[test]
fn the_file_says_what_is_wrong_with_each_setting() {
    assert_good(&check_file(&with("", "")));
    let issuer = [
        (
            "kind = \"okta\"",
            "kind: \"okta\" is none of clerk, oidc, introspection",
        ),
        ("kind = 3", "kind: must be a text that is not empty"),
        (
            "accepts = \"session\"",
            "accepts: is for issuers of kind \"clerk\"",
        ),
        (
            "secret_key = { env = \"A_SECRET\" }",
            "secret_key: is for issuers of kind \"clerk\"",
        ),
        (
            "webhook_secret = { env = \"A_SECRET\" }",
            "webhook_secret: is for issuers of kind \"clerk\"",
        ),
        (
            "client_secret = \"verbatim\"",
            "client_secret: a secret does not stand in the file",
        ),
        (
            "introspection_endpoint = \"http://a.example/i\"",
            "introspection_endpoint: \"http://a.example/i\" must be https",
        ),
        (
            "jwks_url = \"x\"",
            "there is no setting \"jwks_url\" here: did you mean \"jwks_uri\"?",
        ),
        ("colour = \"red\"", "there is no setting \"colour\" here"),
        ("jwks_uri = \"http://a.example/jwks\"", "must be https"),
        (
            "jwks_uri = \"\"",
            "jwks_uri: must be a text that is not empty",
        ),
        (
            "algorithms = [\"none\"]",
            "\"none\" is never accepted: only asymmetric algorithms are",
        ),
        ("algorithms = [\"NONE\"]", "is never accepted"),
        (
            "algorithms = [\"RS256\", \"HS256\"]",
            "\"HS256\" is never accepted",
        ),
        ("algorithms = \"HS512\"", "\"HS512\" is never accepted"),
        (
            "algorithms = [\"rs256\"]",
            "\"rs256\" is none of RS256, RS384",
        ),
        (
            "algorithms = [256]",
            "algorithms: must be a text or a list of texts",
        ),
        (
            "authorized_parties = [\"\"]",
            "must be a text or a list of texts",
        ),
        ("token_types = true", "must be a text or a list of texts"),
        (
            "clock_skew = \"6m\"",
            "clock_skew: 6m is out of range: 0s to 5m",
        ),
        ("clock_skew = \"301s\"", "out of range: 0s to 5m"),
        (
            "clock_skew = 5",
            "clock_skew: must be a text with its unit: \"30s\", \"10m\"",
        ),
        ("clock_skew = \"5\"", "is no duration"),
        ("max_lifetime = \"59s\"", "out of range"),
        ("allow_private_network = \"yes\"", "must be true or false"),
        ("jwt_key = \"AAAA\"", "jwt_key: is no public key in PEM"),
        (
            "jwt_key = { env = \"NOT_SET\" }",
            "jwt_key: the variable NOT_SET is not set",
        ),
        (
            "jwt_key = { file = \"missing.pem\" }",
            "jwt_key: the file that it names cannot be read",
        ),
        (
            "jwt_key = { path = \"x\" }",
            "write { env = \"NAME\" } or { file = \"PATH\" }",
        ),
    ];
    for (line, says) in issuer {
        assert_error(&check_file(&with(line, "")), "exchequer.toml:4", says);
    }
    let app = [
        (
            "audience = 1",
            "audience: must be a text or a list of texts",
        ),
        ("ttl = \"2h\"", "ttl: 2h is out of range: 30s to 1h"),
        ("ttl = \"10\"", "is no duration"),
        (
            "ttl_bound = \"session\"",
            "ttl_bound: \"session\" is neither none nor subject",
        ),
        (
            "session_id = \"refuse\"",
            "session_id: \"refuse\" is none of off, fresh, any",
        ),
        (
            "code_verifier = \"yes\"",
            "code_verifier: must be true or false",
        ),
        ("scopes = [\"x\"]", "scopes: must be a table"),
        (
            "scopes = { \"a b\" = \"x\" }",
            "\"a b\" is no scope: it has a space, a quote or a backslash",
        ),
        (
            "scopes = { a = 1 }",
            "scopes: \"a\" must be a text or a list of texts",
        ),
        (
            "scopes = { a = { permission = \"x\" } }",
            "there is no setting \"permission\" here: did you mean \"permissions\"?",
        ),
        (
            "scopes = { a = { permissions = \"x\", when = \"role\" } }",
            "when: \"role\" is unknown in an expression: did you mean \"roles\"?",
        ),
        (
            "profile = { user = \"e-mail\" }",
            "user: \"e-mail\" is no field",
        ),
        (
            "profile = { user = \"primary_mail\" }",
            "user: \"primary_mail\" is no field: did you mean \"primary_email\"?",
        ),
        (
            "profile = { users = \"primary_email\" }",
            "there is no setting \"users\" here: did you mean \"user\"?",
        ),
        (
            "profile = { max_age = \"0s\" }",
            "max_age: 0s is out of range",
        ),
        (
            "profile = { events = { url = \"https://e.example\" } }",
            "events need `url` and `secret`",
        ),
        (
            "verify = { pass_trough = true }",
            "there is no setting \"pass_trough\" here: did you mean \"pass_through\"?",
        ),
        (
            "verify = { signing_secret = { env = \"A_SECRET\" } }",
            "signing_secret: is no webhook secret: whsec_ and 24 to 64 bytes",
        ),
        (
            "alg = \"HS256\"",
            "alg: \"HS256\" is none of ES256, RS256, EdDSA",
        ),
        ("typ = \"jwt\"", "typ: \"jwt\" is neither JWT nor at+jwt"),
        (
            "condition = \"claims.a ==\"",
            "condition: not a CEL expression",
        ),
        (
            "condition = \"claim.a == 1\"",
            "condition: \"claim\" is unknown in an expression: did you mean \"claims\"?",
        ),
        (
            "condition = \"wholly_other\"",
            "condition: \"wholly_other\" is unknown in an expression",
        ),
        (
            "condition = true",
            "condition: must be a text that is not empty",
        ),
        ("subject = \"(\"", "subject: not a CEL expression"),
        (
            "claims = \"x\"",
            "claims: must be a table: claims.NAME = 'EXPRESSION'",
        ),
        (
            "claims.tier = 3",
            "claims.tier: must be an expression in quotes",
        ),
        (
            "claims.tier = \"plan\"",
            "claims.tier: \"plan\" is unknown in an expression: did you mean \"plans\"?",
        ),
        (
            "issuer = \"a\"",
            "there is no setting \"issuer\" here: did you mean \"issuers\"?",
        ),
    ];
    for (line, says) in app {
        assert_error(&check_file(&with("", line)), "exchequer.toml:8", says);
    }
    for claim in [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "idp",
        "act",
        "sid",
        "scope",
        "cnf",
        "grant_id",
    ] {
        assert_error(
            &check_file(&with("", &format!("claims.{claim} = 'sub'"))),
            "exchequer.toml:8",
            &format!("claims.{claim}: this claim is the token's own and cannot be set"),
        );
    }
    let good = [
        with(
            "kind = \"clerk\"\nclock_skew = \"5m\"\nallow_private_network = true",
            "ttl = \"1h\"",
        ),
        with(
            "algorithms = \"ES384\"\ntoken_types = [\"at+jwt\"]",
            "typ = \"at+jwt\"\nttl_bound = \"subject\"",
        ),
        with(
            "",
            "condition = 'has(claims.x) && \"org:admin\" in roles && app == \"web\"'\nclaims.tier = 'plans'\nsubject = 'iss + \"|\" + sub'",
        ),
    ];
    for toml in good {
        assert_good(&check_file(&toml));
    }
}

#[test]
fn the_file_says_what_is_wrong_with_its_structure() {
    let a = "[issuers.a]\nissuer = \"https://a.example\"\naudiences = \"x\"\n";
    let b = "[issuers.b]\nissuer = \"https://b.example\"\naudiences = \"x\"\n";
    for (toml, line, says) in [
        (
            format!("{a}[apps.web]\nissuers = \"a\"\n[issuer.b]\nissuer = \"https://b.example\"\n"),
            6,
            "there is no section \"issuer\": did you mean \"issuers\"?",
        ),
        (
            format!("{a}[apps.web]\nissuers = \"a\"\n[something]\n"),
            6,
            "there is no section \"something\"",
        ),
        (format!("apps = 3\n{a}"), 1, "write [apps.NAME]"),
        (
            format!("apps.web = 3\n{a}"),
            1,
            "write a table of this name",
        ),
        (
            format!("{a}[apps.\"two words\"]\nissuers = \"a\"\n"),
            4,
            "\"two words\" is no name",
        ),
        (
            format!("{a}[apps.web]\n"),
            4,
            "`issuers` is missing: the names of the [issuers.NAME] that the app trusts",
        ),
        (
            format!("{a}[apps.web]\nissuers = []\n"),
            4,
            "`issuers` is missing",
        ),
        (
            format!("{a}[apps.web]\nissuers = [\"aa\"]\n"),
            4,
            "issuer \"aa\" is not configured: did you mean \"a\"?",
        ),
        (
            format!("{a}[apps.web]\nissuers = [\"elsewhere\"]\n"),
            4,
            "issuer \"elsewhere\" is not configured",
        ),
        (
            format!("{a}[apps.web]\nissuers = [\"a\", \"a\"]\n"),
            4,
            "two of the app's issuers are https://a.example: which one's rules hold?",
        ),
        (
            format!("{a}[issuers.again]\nissuer = \"https://a.example\"\nkind = \"clerk\"\naudiences = \"y\"\n[apps.web]\nissuers = [\"a\", \"again\"]\nsubject = 'iss + sub'\n"),
            8,
            "two of the app's issuers are https://a.example",
        ),
        (
            format!("{a}{b}[apps.web]\nissuers = [\"a\", \"b\"]\n"),
            7,
            "the app trusts several issuers whose subjects could be equal: say with `subject` how they stay apart",
        ),
        (
            format!("{a}{b}kind = \"clerk\"\n[apps.web]\nissuers = [\"a\", \"b\"]\n"),
            8,
            "the app trusts several issuers whose subjects could be equal",
        ),
        (
            "[issuers.own]\nissuer = \"http://localhost:8080\"\naudiences = \"x\"\n[apps.web]\nissuers = \"own\"\n".to_owned(),
            1,
            "this service's own issuer cannot be an upstream: an app token would prolong itself",
        ),
        (
            format!("{a}[apps.web]\nissuers = \"a\"\n[clients.c]\nsecret = \"in the open\"\n"),
            7,
            "secret: a secret does not stand in the file: write { env = \"NAME\" } or { file = \"PATH\" }",
        ),
        (
            format!("{a}[apps.web]\nissuers = \"a\"\n[clients.c]\nsecret = {{ env = \"NOT_SET\" }}\n"),
            7,
            "secret: the variable NOT_SET is not set",
        ),
        (
            format!("{a}[apps.web]\nissuers = \"a\"\n[clients.c]\nsecret = {{ env = \"A_SECRET\", file = \"x\" }}\n"),
            7,
            "secret: write { env = \"NAME\" } or { file = \"PATH\" }",
        ),
    ] {
        let ended = check_file(&toml);
        assert_error(&ended, &format!("exchequer.toml:{line}"), says);
    }
    // Without `issuer` there is no issuer: the app that trusts it is wrong too.
    let ended = check_file("[issuers.a]\nkind = \"clerk\"\n[apps.web]\nissuers = \"a\"\n");
    assert_eq!(
        errors(&ended),
        [
            "exchequer.toml:1: `issuer` is missing: the `iss` of the tokens, byte for byte",
            "exchequer.toml:3: issuer \"a\" is not configured",
        ]
    );
    for good in [
        format!("{a}{b}[apps.web]\nissuers = [\"a\", \"b\"]\nsubject = 'iss + \"|\" + sub'\n"),
        format!("{a}kind = \"clerk\"\n{b}kind = \"clerk\"\n[apps.web]\nissuers = [\"a\", \"b\"]\n"),
        format!("{a}{b}[apps.web]\nissuers = \"a\"\n[apps.other]\nissuers = \"b\"\n"),
        "[issuers.local]\nissuer = \"http://127.0.0.1:9000\"\naudiences = \"x\"\n[apps.web]\nissuers = \"local\"\n".to_owned(),
    ] {
        assert_good(&check_file(&good));
    }
}

#[test]
fn an_app_or_an_issuer_in_the_file_and_in_variables_is_an_error() {
    let file = "[issuers.a]\nissuer = \"https://a.example\"\naudiences = \"x\"\n[apps.default]\nissuers = \"a\"\n";
    let dir = folder(file);
    let ended = run("check", dir.path(), &[CLERK]);
    assert_error(
        &ended,
        CLERK.0,
        "the app \"default\" is configured in the file too: configure it in one place",
    );
    let dir = folder(
        "[issuers.\"clerk.example.com\"]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\nauthorized_parties = \"https://app.example.com\"\n[apps.web]\nissuers = \"clerk.example.com\"\n",
    );
    let ended = run("check", dir.path(), &[CLERK]);
    assert_error(
        &ended,
        CLERK.0,
        "two issuers are named \"clerk.example.com\": which one's rules hold?",
    );
    // Apart, file and variables add up.
    let dir = folder(&file.replace("default", "web"));
    assert_good(&run("check", dir.path(), &[CLERK]));
}

#[test]
fn keys_stay_published_for_the_longest_lived_token_of_any_app() {
    let dir = folder(&with("", "ttl = \"1h\""));
    let variables = |keep| [("EXCHEQUER_KEY_KEEP_AFTER", keep)];
    assert_error(
        &run("check", dir.path(), &variables("64m")),
        "EXCHEQUER_KEY_KEEP_AFTER",
        "at least 65m",
    );
    assert_good(&run("check", dir.path(), &variables("65m")));
}

#[test]
fn secrets_by_reference_are_read_from_variables_and_files() {
    let dir = folder(
        "[issuers.a]\nissuer = \"https://a.example\"\naudiences = \"x\"\njwt_key = { file = \"a.pem\" }\n[apps.web]\nissuers = \"a\"\n[clients.c]\nsecret = { env = \"CLIENT_SECRET_FILE\" }\n[clients.d]\nsecret = { file = \"d.secret\" }\n",
    );
    std::fs::write(dir.path().join("a.pem"), Key::rsa().public_pem()).unwrap();
    std::fs::write(dir.path().join("d.secret"), "of-client-d\n").unwrap();
    let ended = run(
        "check",
        dir.path(),
        &[("CLIENT_SECRET_FILE", "of-client-c")],
    );
    assert_good(&ended);
    assert!(ended.stdout.contains("ok:    client c\nok:    client d\n"));
    assert!(!ended.stdout.contains("of-client"), "{}", ended.stdout);
}

#[test]
fn no_message_ever_shows_a_secret() {
    let marker = "hunter2";
    let sealed = format!("{marker}-{marker}");
    let url = format!("http://me:{marker}@example.com/?x");
    let redis = format!("redis://:{marker}@[::");
    let variables = [
        ("EXCHEQUER_KEYS_SECRET", sealed.as_str()),
        ("CLERK_SECRET_KEY", sealed.as_str()),
        ("CLERK_SECRET_KEYS", sealed.as_str()),
        ("CLERK_JWT_KEY", sealed.as_str()),
        ("CLERK_WEBHOOK_SECRET", sealed.as_str()),
        ("CLERK_OAUTH_CLIENT_SECRET", sealed.as_str()),
        ("CLERK_JWT_ISSUER", &url),
        ("EXCHEQUER_ISSUER", &url),
        ("EXCHEQUER_STORE", &redis),
        ("EXCHEQUER_KEY_SECRET", sealed.as_str()),
        ("A_SECRET", sealed.as_str()),
    ];
    for toml in [
        format!("[clients.c]\nsecret = \"{marker}\"\n"),
        format!("[clients.c]\nsecret = \"{marker}\n"),
        format!("[clients.c]\nsecret = {marker}\n"),
        format!("[clients.c]\nsecret = [\"{marker}\"]\n"),
        format!("[clients.c]\nsecret = {{ value = \"{marker}\" }}\n"),
        "[clients.c]\nsecret = { env = \"A_SECRET\" }\nredirect = 1\n".to_owned(),
    ] {
        let dir = folder(&toml);
        for command in ["check", "serve", "doctor"] {
            let ended = run(command, dir.path(), &variables);
            assert_ne!(ended.code, 0);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains("EXCHEQUER_KEYS_SECRET"), "{said}");
            assert!(!said.contains(marker), "{command} {toml}: {said}");
        }
    }
}

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The example file; `#key` is a setting that is commented out, `# Words` are prose.
fn example(commented_out_too: bool) -> String {
    let text = std::fs::read_to_string(root("exchequer.example.toml")).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if commented_out_too && !setting.starts_with([' ', ':']) => setting,
            _ => line,
        })
        .collect();
    lines.join("\n")
}

#[test]
fn the_example_file_is_good() {
    for commented_out_too in [false, true] {
        let dir = folder(&example(commented_out_too));
        let key = Key::rsa().public_pem();
        let mut variables = vec![
            ("PARTNER_PUBLIC_KEY", key.as_str()),
            ("REPORTS_CLIENT_SECRET", "a secret"),
        ];
        if commented_out_too {
            variables.extend([
                ("GOOGLE_CLIENT_SECRET", "a secret"),
                ("CLERK_SECRET_KEY", "sk_test_1"),
                ("CLERK_MACHINE_SECRET_KEY", "ak_1"),
                ("CLERK_WEBHOOK_SIGNING_SECRET", WEBHOOK_SECRET),
                ("CLERK_OAUTH_CLIENT_SECRET", "a secret"),
                ("EVENTS_SECRET", WEBHOOK_SECRET),
                ("IDENTITY_SECRET", WEBHOOK_SECRET),
            ]);
        }
        assert_good(&run("check", dir.path(), &variables));
    }
}

#[test]
fn the_example_variables_are_good() {
    let text = std::fs::read_to_string(root("exchequer.example.env")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    let set = lines.filter_map(|line| line.split_once('='));
    let mut variables: Vec<(&str, &str)> = set
        .filter(|(name, value)| !name.contains(' ') && !value.is_empty())
        .collect();
    assert!(variables.len() > 25, "{variables:?}");
    variables.push(("CLERK_JWT_ISSUER", "https://clerk.example.com"));
    let dir = tempfile::tempdir().unwrap();
    assert_good(&run("check", dir.path(), &variables));
}

#[test]
fn the_example_file_shows_every_setting_and_says_what_it_means() {
    let text = example(true);
    let document = toml::de::DeTable::parse(&text).unwrap();
    let mut shown = BTreeSet::new();
    for (section, entries) in document.get_ref() {
        for entry in entries.get_ref().as_table().unwrap().values() {
            for key in entry.get_ref().as_table().unwrap().keys() {
                shown.insert((section.get_ref().to_string(), key.get_ref().to_string()));
            }
        }
    }
    for (section, keys) in SECTIONS {
        for key in keys {
            assert!(
                shown.contains(&(section.to_owned(), (*key).to_owned())),
                "[{section}] {key} is not shown"
            );
        }
    }
    let text = example(false);
    let mut before = "";
    for line in text.lines() {
        if !line.is_empty() && !line.starts_with("# ") && !line.starts_with("#:") {
            assert!(!before.is_empty(), "nothing is said before {line:?}");
        }
        before = line;
    }
}

#[test]
fn the_schema_has_the_settings_that_there_are() {
    let text = std::fs::read_to_string(root("docs/exchequer.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let names = |value: &Value| -> Vec<String> {
        let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let sorted = |names: &[&str]| -> Vec<String> {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(schema["additionalProperties"], false);
    let sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
    assert_eq!(names(&schema["properties"]), sorted(&sections));
    for (section, keys) in SECTIONS {
        let reference = schema["properties"][section]["additionalProperties"]["$ref"]
            .as_str()
            .unwrap();
        let definition = schema
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap();
        assert_eq!(definition["additionalProperties"], false, "{section}");
        assert_eq!(names(&definition["properties"]), sorted(keys), "{section}");
        for (key, property) in definition["properties"].as_object().unwrap() {
            assert!(
                property["description"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{section}.{key} is not described"
            );
        }
    }
}

#[tokio::test]
async fn the_largest_clock_skew_is_five_minutes_and_works() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.a]\nissuer = \"{}\"\nkind = \"clerk\"\nclock_skew = \"5m\"\n[apps.web]\nissuers = \"a\"\n",
            issuer.url
        ))
        .start()
        .await;
    let expired = |past: i64| {
        Token::clerk(&issuer.url)
            .claim("exp", now() - past)
            .sign(Key::rsa())
    };
    assert_eq!(service.session(&expired(280)).await.status, 200);
    service
        .session(&expired(300))
        .await
        .assert_refused(401, "subject_token_expired");
}
