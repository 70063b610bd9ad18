//! The command line: what each command prints, and how it ends.

use crate::support::command::Ended;
use crate::support::{Command, Issuer, Key, Service, Token, now, token};
use exchequer::explain::{Check, Code};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

const COMMANDS: [&str; 9] = [
    "serve",
    "dev",
    "check",
    "doctor",
    "explain",
    "errors",
    "keys",
    "clients",
    "completions",
];

fn run(arguments: &[&str]) -> Ended {
    Command::new(tempfile::tempdir().unwrap().path()).run(arguments)
}

#[test]
fn the_help_of_each_command_shows_an_example_of_it() {
    let all = run(&["--help"]);
    assert_eq!(all.code, 0);
    for command in COMMANDS {
        assert!(all.stdout.contains(&format!("\n  {command} ")), "{command}");
    }
    let parts = [
        "keys list",
        "keys rotate",
        "keys revoke",
        "keys import",
        "clients list",
        "clients add",
        "clients rotate-secret",
        "clients remove",
    ];
    for command in COMMANDS.into_iter().chain(parts) {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let ended = run(&words);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{command}");
        let (_, example) = ended.stdout.split_once("\nExample:\n").unwrap();
        let called = format!("exchequer {command}");
        assert!(example.contains(&called), "{command}: {example}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_how_it_is_used() {
    for arguments in [
        &[] as &[&str],
        &["exchange"],
        &["--verbose"],
        &["serve", "--port", "80"],
        &["check", "file.toml"],
        &["doctor", "--xml"],
        &["errors", "one", "two"],
        &["keys"],
        &["keys", "revoke"],
        &["explain", "--app"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(ended.stderr.contains("--help"), "{arguments:?}: {ended:?}");
    }
}

/// Runs a command whose output goes there, with a minimal configuration.
fn run_into(arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Option<i32> {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_exchequer"))
        .args(arguments)
        .current_dir(dir.path())
        .env_clear()
        .env("CLERK_JWT_ISSUER", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    child.wait().unwrap().code()
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_command_whose_reader_goes_away_ends_with_its_own_code() {
    for (arguments, code) in [
        (&["check"] as &[&str], 0),
        (&["errors"], 0),
        (&["errors", "--markdown"], 0),
        (&["completions", "bash"], 0),
        (&["doctor"], 1),
        (&["doctor", "--json"], 1),
        (&["errors", "no_such"], 2),
        (&["keys", "list"], 1),
    ] {
        let ended = run_into(arguments, unread(), unread());
        assert_eq!(ended, Some(code), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_command_whose_output_cannot_be_kept_does_not_succeed() {
    for arguments in [&["check"] as &[&str], &["completions", "zsh"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        assert_eq!(
            run_into(arguments, full.into(), Stdio::null()),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{shell}");
        for command in COMMANDS {
            assert!(ended.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn errors_prints_the_whole_catalogue_or_one_entry() {
    let all = run(&["errors"]);
    assert_eq!(all.code, 0);
    let slugs: Vec<&str> = all
        .stdout
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    let real: Vec<&str> = Code::ALL.iter().map(|code| code.entry().slug).collect();
    assert_eq!(slugs, real);
    for code in Code::ALL {
        let entry = code.entry();
        let one = run(&["errors", entry.slug]);
        assert_eq!((one.code, one.stderr.as_str()), (0, ""));
        for text in [
            entry.slug,
            entry.sentence,
            entry.cause,
            entry.confirm,
            entry.mend,
        ] {
            assert!(one.stdout.contains(text), "{text:?} in {}", one.stdout);
        }
        for name in entry.clerk {
            assert!(one.stdout.contains(name), "{name:?} in {}", one.stdout);
        }
    }
}

#[test]
fn an_unknown_code_suggests_the_nearest() {
    let ended = run(&["errors", "subject_token_expird"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert_eq!(
        ended.stderr,
        "error: there is no code \"subject_token_expird\": did you mean subject_token_expired?\n"
    );
}

#[test]
fn the_page_of_errors_is_the_printed_one() {
    let ended = run(&["errors", "--markdown"]);
    assert_eq!(ended.code, 0);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page == ended.stdout,
        "docs/errors.md is not what `exchequer errors --markdown` prints: write it anew"
    );
}

// exchequer dev

fn dev(dir: &Path) -> Command {
    Command::new(dir)
        .env("EXCHEQUER_LISTEN", "127.0.0.1:0")
        .env("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0")
}

#[test]
fn dev_needs_nothing_and_shows_a_real_exchange() {
    let dir = tempfile::tempdir().unwrap();
    // What is configured for the service is not dev's: its provider is the stand-in.
    std::fs::write(dir.path().join("exchequer.toml"), "no toml").unwrap();
    let ended = dev(dir.path())
        .env("CLERK_JWT_ISSUER", "nonsense")
        .env("EXCHEQUER_CONFIG", "missing.toml")
        .run(&["dev", "--once"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let text = &ended.stdout;
    let mut rest = text.as_str();
    for step in [
        "The identity provider (a stand-in that signs as Clerk does)  http://127.0.0.1:",
        "1  A user signed in. The provider's session token says:",
        "\"sts\": \"active\"",
        "2  The app exchanges it:  POST http://127.0.0.1:",
        "200 OK",
        "\"token_type\": \"Bearer\"",
        "3  The app JWT that your backend gets says:",
        "\"client_id\": \"default\"",
        "4  Your backend verifies it with the key set at http://localhost:",
        "signature good, kid ",
    ] {
        let (_, after) = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("{step:?} is not next in {text}"));
        rest = after;
    }
    // No whole token is shown.
    assert!(
        text.split(['"', ' ', '\n'])
            .all(|word| word.matches('.').count() != 2 || !word.starts_with("eyJ")),
        "{text}"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["exchequer.toml"], "throw-away keys are not on disk");
}

#[test]
fn dev_takes_the_audience_that_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let ended = dev(dir.path())
        .env("EXCHEQUER_AUDIENCE", "my-backend")
        .env("EXCHEQUER_TOKEN_TTL", "2m")
        .run(&["dev", "--once"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for shown in ["\"aud\": \"my-backend\"", "\"expires_in\": 120"] {
        assert!(ended.stdout.contains(shown), "{}", ended.stdout);
    }
}

#[test]
fn dev_stays_on_this_machine() {
    for (name, value, says) in [
        (
            "EXCHEQUER_LISTEN",
            "0.0.0.0:0",
            "listens on this machine only",
        ),
        ("EXCHEQUER_LISTEN", "[::]:0", "listens on this machine only"),
        (
            "EXCHEQUER_LISTEN",
            "192.0.2.1:80",
            "listens on this machine only",
        ),
        (
            "EXCHEQUER_ADMIN_LISTEN",
            "0.0.0.0:0",
            "listens on this machine only",
        ),
        (
            "EXCHEQUER_ISSUER",
            "https://auth.example.com",
            "an issuer on this machine only",
        ),
        (
            "EXCHEQUER_TOKEN_TTL",
            "2h",
            "EXCHEQUER_TOKEN_TTL: 2h is out of range",
        ),
        ("EXCHEQUER_LISEN", "x", "did you mean \"EXCHEQUER_LISTEN\"?"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ended = dev(dir.path()).env(name, value).run(&["dev", "--once"]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (2, ""),
            "{name}={value}"
        );
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(says),
            "{name}={value}: {}",
            ended.stderr
        );
    }
}

#[test]
fn dev_says_which_variables_make_room_where_a_port_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ended = dev(dir.path())
        .env("EXCHEQUER_LISTEN", &address)
        .run(&["dev", "--once"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(
        ended.stderr.starts_with(&format!(
            "error: EXCHEQUER_LISTEN: cannot listen on {address}: "
        )) && ended
            .stderr
            .ends_with("end the process that has it, or set this to a free port\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn serve_says_which_variable_names_an_address_that_it_cannot_listen_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (variable, other, address, says) in [
        (
            "EXCHEQUER_LISTEN",
            "EXCHEQUER_ADMIN_LISTEN",
            &taken[..],
            "end the process that has it, or set this to a free port",
        ),
        (
            "EXCHEQUER_ADMIN_LISTEN",
            "EXCHEQUER_LISTEN",
            &taken,
            "end the process that has it, or set this to a free port",
        ),
        (
            "EXCHEQUER_LISTEN",
            "EXCHEQUER_ADMIN_LISTEN",
            "192.0.2.1:0",
            "no interface of this machine has that address",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Command::new(dir.path())
            .env("CLERK_JWT_ISSUER", "https://clerk.example.com")
            .env("EXCHEQUER_STORE", "memory")
            .env(variable, address)
            .env(other, "127.0.0.1:0")
            .run(&["serve"]);
        assert_eq!(ended.code, 2);
        let said = format!("error: {variable}: cannot listen on {address}: ");
        let found = ended.stderr.contains(&said) && ended.stderr.contains(says);
        assert!(found, "{}", ended.stderr);
    }
}

/// A `dev` that keeps serving. Dropping it kills it.
struct Dev(Child);

impl Dev {
    /// Starts it and gives what it printed until it serves.
    fn start(dir: &Path, variables: &[(&str, &str)]) -> (Self, String) {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_exchequer"))
            .arg("dev")
            .current_dir(dir)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let dev = Self(child);
        let mut text = String::new();
        for line in stdout.lines().map_while(Result::ok) {
            text.push_str(&line);
            text.push('\n');
            if line.starts_with("Ctrl-C ends it") {
                return (dev, text);
            }
        }
        panic!("dev ended: {text}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What these lines print when they are pasted into a shell.
fn paste(lines: &str) -> Vec<u8> {
    let mut shell = std::process::Command::new("sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "{lines}");
    output.stdout
}

#[test]
fn the_lines_that_dev_prints_work_when_pasted_into_a_shell() {
    let curl = std::process::Command::new("curl").arg("--version").output();
    if curl.is_err() {
        eprintln!("not tested: curl is not installed");
        return;
    }
    for variables in [
        &[("EXCHEQUER_LISTEN", "127.0.0.1:0")] as &[_],
        &[("EXCHEQUER_LISTEN", "[::1]:0")],
        // Behind a name of one's own, the lines still go to where dev listens.
        &[
            ("EXCHEQUER_LISTEN", "127.0.0.1:0"),
            ("EXCHEQUER_ISSUER", "http://auth.localhost:1"),
        ],
    ] {
        // Not every machine has IPv6.
        if std::net::TcpListener::bind(variables[0].1).is_err() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut all = variables.to_vec();
        all.extend([("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:0"), ("PATH", &path)]);
        let (mut dev, printed) = Dev::start(dir.path(), &all);
        let (_, lines) = printed.split_once("in another terminal:\n").unwrap();
        let (explains, lines): (Vec<&str>, Vec<&str>) = lines
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .partition(|line| line.ends_with(" explain"));
        assert_eq!((explains.len(), lines.len()), (1, 17), "{printed}");
        let old = lines.iter().find(|line| line.starts_with("OLD=")).unwrap();
        let ladder = paste(&format!(
            "cd {}\n{old}\n{}\n",
            dir.path().display(),
            explains[0]
        ));
        let ladder = String::from_utf8(ladder).unwrap();
        assert!(ladder.contains("FAIL  expiry"), "{ladder}");
        let answers = paste(&(lines.join("\n") + "\n"));
        let answers: Vec<Value> = serde_json::Deserializer::from_slice(&answers)
            .into_iter()
            .map(|value| value.unwrap())
            .collect();
        let [
            exchanged,
            by_id,
            by_oauth,
            verified,
            expired,
            pending,
            signed_out,
            revoked,
            keys,
        ] = answers.as_slice()
        else {
            panic!("{answers:#?}");
        };
        for exchanged in [exchanged, by_id, by_oauth] {
            assert_eq!(exchanged["user"]["id"], "user_2standin", "{exchanged}");
        }
        assert_eq!(
            verified["x-user-id"],
            json!(["user_2standin"]),
            "{verified}"
        );
        assert_eq!(expired["code"], "subject_token_expired");
        assert_eq!(pending["code"], "session_pending");
        assert_eq!(signed_out["webhook_taken"], true, "{signed_out}");
        assert_eq!(revoked["code"], "session_revoked", "{revoked}");
        let kid = token::header(exchanged["token"].as_str().unwrap())["kid"].clone();
        let published = keys["keys"].as_array().unwrap();
        assert!(published.iter().any(|key| key["kid"] == kid), "{keys}");

        let interrupted = std::process::Command::new("kill")
            .args(["-INT", &dev.0.id().to_string()])
            .status()
            .unwrap();
        assert!(interrupted.success());
        assert_eq!(dev.0.wait().unwrap().code(), Some(0));
    }
}

// exchequer explain

/// A folder with a configuration, and the issuer that it trusts.
struct World {
    issuer: Issuer,
    dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let issuer = Issuer::start().await;
        let dir = tempfile::tempdir().unwrap();
        let toml = format!(
            r#"
            [issuers.main]
            issuer = "{}"
            kind = "clerk"
            audiences = ["web"]
            authorized_parties = ["https://app.example.com"]
            [issuers.public]
            issuer = "https://clerk.example.com"
            kind = "clerk"
            authorized_parties = ["https://app.example.com"]
            [apps.web]
            issuers = ["main", "public"]
            condition = 'claims.sub != "user_barred"'
            [apps.admin]
            issuers = ["main"]
            audience = "admin"
            claims.level = 'claims.level'
            "#,
            issuer.url
        );
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        Self { issuer, dir }
    }

    fn good(&self) -> Token {
        Token::clerk(&self.issuer.url).claim("aud", "web")
    }

    fn explain(&self, input: impl Into<String>, arguments: &[&str]) -> Ended {
        let arguments: Vec<&str> = ["explain"].iter().chain(arguments).copied().collect();
        Command::new(self.dir.path()).input(input).run(&arguments)
    }
}

/// The ladder's lines: mark, check, and the rest; those not reached stand on one line.
fn ladder(text: &str) -> Vec<(String, String, String)> {
    let mut rungs: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.trim_start().split_once(' ')?;
            number.parse::<u8>().ok()?;
            let mut words = rest.split_whitespace();
            let mark = words.next()?.to_owned();
            let check = words.next()?.to_owned();
            Some((mark, check, words.collect::<Vec<_>>().join(" ")))
        })
        .collect();
    let unreached = text
        .lines()
        .find_map(|line| line.split_once("--    not reached: "));
    for check in unreached.iter().flat_map(|(_, checks)| checks.split(", ")) {
        rungs.push(("--".to_owned(), check.to_owned(), String::new()));
    }
    rungs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_explained_check_by_check() {
    let world = World::new().await;
    let token = world.good().sign(Key::rsa());
    let ended = world.explain(format!("\n  {token}\n"), &["--app", "web"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let rungs = ladder(&ended.stdout);
    let passed = rungs.iter().filter(|(mark, ..)| mark == "ok");
    let passed: Vec<&str> = passed.map(|(_, check, _)| check.as_str()).collect();
    // There is no service here whose store could be looked at.
    let all = Check::ALL.iter().map(|check| check.name());
    let all: Vec<&str> = all.filter(|name| *name != "revocation").collect();
    assert_eq!(passed, all);
    assert!(
        ended.stdout.contains("not reached: revocation\n"),
        "{ended:?}"
    );
    for shown in [
        world.issuer.url.as_str(),
        "ins_1",
        "https://app.example.com",
        "accepted the exchange would give an app token",
    ] {
        assert!(ended.stdout.contains(shown), "{shown}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_from_a_file_or_standard_input_and_never_from_an_argument() {
    let world = World::new().await;
    let token = world.good().sign(Key::rsa());
    let piped = world.explain(&token, &["--app", "web"]);
    std::fs::write(world.dir.path().join("token.txt"), format!("{token}\r\n")).unwrap();
    let read = world.explain("", &["--app", "web", "token.txt"]);
    let steady = |ended: &Ended| {
        let lines = ended.stdout.lines();
        let lines: Vec<String> = lines
            .filter(|line| !line.contains("expiry"))
            .map(str::to_owned)
            .collect();
        (ended.code, lines)
    };
    assert_eq!(steady(&piped), steady(&read));
    assert_eq!(piped.code, 0);

    for typed in [token.as_str(), "oat_0123456789"] {
        let argument = world.explain("", &[typed]);
        assert_eq!((argument.code, argument.stdout.as_str()), (2, ""));
        assert!(argument.stderr.contains("A token is never an argument"));
        assert!(!argument.stderr.contains(typed), "{}", argument.stderr);
    }
    for nothing in ["", " \n\t\n"] {
        let ended = world.explain(nothing, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
        assert_eq!(
            ended.stderr,
            "error: there is nothing to explain in the input\n"
        );
    }
}

struct Failing {
    token: String,
    app: &'static str,
    check: Check,
    code: Code,
    /// What the output says of what was expected.
    shows: Vec<String>,
}

fn failing(world: &World) -> Vec<Failing> {
    let rsa = Key::rsa();
    let good = world.good();
    let signed = good.sign(rsa);
    let parts: Vec<&str> = signed.split('.').collect();
    let url = world.issuer.url.as_str();
    let other = "https://clerk.example.com";
    let now = now();
    let mut cases = Vec::new();
    let mut add = |token: String, check: Check, code: Code, shows: &[&str]| {
        cases.push(Failing {
            token,
            app: "web",
            check,
            code,
            shows: shows.iter().map(|text| (*text).to_owned()).collect(),
        });
    };
    add(
        "opaque2abcdefghijk".into(),
        Check::Form,
        Code::SubjectTokenOpaque,
        &["expected: a JWT"],
    );
    add(
        "sess_2abcdefghijk".into(),
        Check::Issuer,
        Code::SessionIdUnsupported,
        &["this is a session id", "an issuer with a secret key"],
    );
    add(
        format!("{}.{}", parts[0], parts[1]),
        Check::Form,
        Code::SubjectTokenMalformed,
        &["it has two parts"],
    );
    add(
        format!("{}.a.b.c.d", parts[0]),
        Check::Form,
        Code::SubjectTokenEncrypted,
        &["expected: a JWS of three parts"],
    );
    add(
        format!("{signed}{}", "A".repeat(17_000)),
        Check::Form,
        Code::SubjectTokenTooLarge,
        &["expected: at most 16 KiB"],
    );
    add(
        good.clone()
            .header("jku", "https://evil.example/keys")
            .sign(rsa),
        Check::Header,
        Code::SubjectTokenHeaderUnsupported,
        &["jku"],
    );
    add(
        good.clone().without("iss").sign(rsa),
        Check::Issuer,
        Code::SubjectTokenIssuerMissing,
        &[url, other],
    );
    for (iss, hint) in [
        (
            format!("{other}/"),
            "nearest: https://clerk.example.com (a slash at the end makes the difference)",
        ),
        (
            "http://clerk.example.com".into(),
            "nearest: https://clerk.example.com (http for https, or the other way round)",
        ),
        (
            "https://clerk.exmaple.com".into(),
            "nearest: https://clerk.example.com (nearly equal)",
        ),
        ("https://wholly.other.example".into(), "expected: http"),
    ] {
        add(
            good.clone().claim("iss", iss.as_str()).sign(rsa),
            Check::Issuer,
            Code::SubjectTokenIssuerUntrusted,
            &[iss.as_str(), other, hint],
        );
    }
    add(
        good.clone().header("typ", "logout+jwt").sign(rsa),
        Check::Type,
        Code::SubjectTokenTypeMismatch,
        &["logout+jwt", "expected: JWT, or none"],
    );
    add(
        good.clone().header("alg", "none").sign(rsa),
        Check::Algorithm,
        Code::SubjectTokenAlgorithmNotAllowed,
        &["none", "expected: RS256"],
    );
    add(
        good.clone().header("alg", "HS256").sign(rsa),
        Check::Algorithm,
        Code::SubjectTokenAlgorithmNotAllowed,
        &["HS256", "expected: RS256"],
    );
    add(
        good.clone().header("kid", "ins_2").sign(rsa),
        Check::Key,
        Code::SubjectTokenKeyUnknown,
        &["ins_2", "ins_1"],
    );
    add(
        good.clone().without_header("kid").sign(rsa),
        Check::Key,
        Code::SubjectTokenKeyIdMissing,
        &["no kid"],
    );
    add(
        good.sign(Key::other_rsa()),
        Check::Signature,
        Code::SubjectTokenSignatureInvalid,
        &[
            "256 bytes that do not verify",
            "          expiry would pass: exp is in",
            "          audience would pass\n",
            "tests    key set asked anew: ins_1 has thumbprint ",
            ", and does not verify it either  → not a stale cache\n",
            "signature of 256 bytes, the key makes 256  → not cut off, and of the right type of key\n",
            "note     compare the sha256 above with that of the token where it is made",
        ],
    );
    add(
        good.clone()
            .without("aud")
            .claim("exp", now - 900)
            .sign(Key::other_rsa()),
        Check::Signature,
        Code::SubjectTokenSignatureInvalid,
        &[
            "          expiry would fail: exp was 9",
            "          audience would fail: absent\n",
        ],
    );
    add(
        good.clone().without("sub").sign(rsa),
        Check::Claims,
        Code::SubjectTokenClaimMissing,
        &["sub is missing"],
    );
    add(
        good.clone().claim("exp", "tomorrow").sign(rsa),
        Check::Claims,
        Code::SubjectTokenClaimMalformed,
        &["exp has the wrong type or an impossible value"],
    );
    add(
        good.clone().without("aud").sign(rsa),
        Check::Audience,
        Code::SubjectTokenAudienceMissing,
        &["absent", "expected: web"],
    );
    add(
        good.clone()
            .claim("aud", json!(["desktop", "tv"]))
            .sign(rsa),
        Check::Audience,
        Code::SubjectTokenAudienceMismatch,
        &["[\"desktop\",\"tv\"]", "expected: web"],
    );
    add(
        good.clone().without("azp").sign(rsa),
        Check::AuthorizedParty,
        Code::SubjectTokenAuthorizedPartyMissing,
        &["absent", "expected: https://app.example.com"],
    );
    add(
        good.clone().claim("azp", "http://localhost:3000").sign(rsa),
        Check::AuthorizedParty,
        Code::SubjectTokenAuthorizedPartyMismatch,
        &["http://localhost:3000", "expected: https://app.example.com"],
    );
    add(
        good.clone().claim("exp", now - 4000).sign(rsa),
        Check::Expiry,
        Code::SubjectTokenExpired,
        &["s ago", "The subject token expired 4"],
    );
    add(
        good.clone().claim("nbf", now + 4000).sign(rsa),
        Check::NotBefore,
        Code::SubjectTokenNotYetValid,
        &["nbf: in ", "expected: at most 5 s after now"],
    );
    add(
        good.clone().claim("iat", now + 4000).sign(rsa),
        Check::IssuedAt,
        Code::SubjectTokenIssuedInFuture,
        &["iat: in ", "expected: at most 5 s after now"],
    );
    add(
        good.clone().claim("exp", now + 90_000).sign(rsa),
        Check::IssuedAt,
        Code::SubjectTokenLifetimeExcessive,
        &["a lifetime of 90000 s", "expected: at most 86400 s"],
    );
    add(
        good.clone().claim("sts", "pending").sign(rsa),
        Check::Session,
        Code::SessionPending,
        &["sts pending", "expected: active"],
    );
    add(
        good.clone().claim("sub", "user_barred").sign(rsa),
        Check::Condition,
        Code::ConditionNotMet,
        &["false", "expected: claims.sub != \"user_barred\""],
    );
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_explained_with_the_check_its_cause_and_the_mending() {
    let world = World::new().await;
    for case in failing(&world) {
        let slug = case.code.entry().slug;
        let ended = world.explain(&case.token, &["--app", case.app]);
        let text = &ended.stdout;
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (1, ""),
            "{slug}: {text}"
        );
        let rungs = ladder(text);
        assert_eq!(rungs.len(), Check::ALL.len(), "{slug}: {text}");
        for (check, (mark, name, _)) in Check::ALL.iter().zip(&rungs) {
            let expected = match check.cmp(&case.check) {
                std::cmp::Ordering::Less => "ok",
                std::cmp::Ordering::Equal => "FAIL",
                std::cmp::Ordering::Greater => "--",
            };
            assert_eq!(
                (mark.as_str(), name.as_str()),
                (expected, check.name()),
                "{text}"
            );
        }
        let entry = case.code.entry();
        for line in [
            format!("\nrefused  {slug}\n"),
            format!("\ncause    {}\n", entry.cause),
            format!("\nconfirm  {}\n", entry.confirm),
            format!(" {}\n", entry.mend),
            "\nnext     ".to_owned(),
        ] {
            assert!(text.contains(&line), "{slug}: {line:?} in {text}");
        }
        for shown in &case.shows {
            assert!(text.contains(shown), "{slug}: {shown:?} in {text}");
        }
        // Neither the token nor what would make one of it.
        let signature = case.token.rsplit('.').next().unwrap();
        assert!(!text.contains(&case.token), "{slug}: {text}");
        assert!(
            signature.len() < 20 || !text.contains(signature),
            "{slug}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_when_an_app_must_be_named_or_is_unknown() {
    let world = World::new().await;
    let token = world.good().sign(Key::rsa());
    let several = world.explain(&token, &[]);
    assert_eq!(several.code, 1);
    for shown in [
        "\nrefused  app_required\n",
        "no app named",
        "expected: admin, web",
    ] {
        assert!(
            several.stdout.contains(shown),
            "{shown}: {}",
            several.stdout
        );
    }
    let unknown = world.explain(&token, &["--app", "wbe"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stdout.contains("\nrefused  app_unknown\n"),
        "{}",
        unknown.stdout
    );

    // A claim that an expression reads and the token lacks.
    let admin = world.explain(&token, &["--app", "admin"]);
    assert_eq!(admin.code, 1);
    for shown in ["\nrefused  expression_failed\n", "\nbecause  claims.level"] {
        assert!(admin.stdout.contains(shown), "{shown}: {}", admin.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_an_issuer_that_cannot_be_asked_answers() {
    let world = World::new().await;
    world.issuer.vanish();
    let ended = world.explain(world.good().sign(Key::rsa()), &["--app", "web"]);
    assert_eq!(ended.code, 1);
    for shown in [
        "FAIL  key",
        "\nrefused  issuer_keys_unavailable\n",
        "\nbecause  ",
    ] {
        assert!(ended.stdout.contains(shown), "{shown}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_as_json_has_the_ladder() {
    let world = World::new().await;
    let report = |ended: &Ended| -> Value { serde_json::from_str(&ended.stdout).unwrap() };
    let token = world.good().sign(Key::rsa());
    let good = world.explain(&token, &["--app", "web", "--json"]);
    let said = report(&good);
    assert_eq!(good.code, 0);
    assert_eq!(said["accepted"], true);
    assert_eq!(
        (&said["code"], &said["cause"]),
        (&Value::Null, &Value::Null)
    );
    let rungs = said["ladder"].as_array().unwrap();
    assert_eq!(rungs.len(), Check::ALL.len());
    let open = rungs.iter().filter(|rung| rung["outcome"] != "passed");
    assert_eq!(
        open.collect::<Vec<_>>(),
        [&json!({"check": "revocation", "outcome": "not_reached"})],
        "there is no service here whose store could be looked at"
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(said["token"]["sha256"], hex);

    let expired = world.good().claim("exp", now() - 4000).sign(Key::rsa());
    let bad = world.explain(&expired, &["--app", "web", "--json"]);
    let said = report(&bad);
    assert_eq!(bad.code, 1);
    assert_eq!(said["accepted"], false);
    assert_eq!(said["code"], "subject_token_expired");
    let failed: Vec<&Value> = said["ladder"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rung| rung["outcome"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["check"], "expiry");
    assert!(failed[0]["seen"].is_string() && failed[0]["expected"].is_string());
    assert_eq!(
        said["ladder"].as_array().unwrap().last().unwrap(),
        &json!({"check": "scopes", "outcome": "not_reached"})
    );
    assert!(!bad.stdout.contains(&expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_answer_of_ours_is_explained_without_any_configuration() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let expired = Token::clerk(&issuer.url)
        .claim("exp", now() - 90)
        .sign(Key::rsa());
    let answer = service.session(&expired).await;
    let dir = tempfile::tempdir().unwrap();
    let explain = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["explain"].iter().chain(arguments).copied().collect();
        let pretty = serde_json::to_string_pretty(&answer.body).unwrap();
        Command::new(dir.path()).input(pretty).run(&arguments)
    };
    let ended = explain(&[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let entry = Code::SubjectTokenExpired.entry();
    let description = answer.body["error_description"].as_str().unwrap();
    let id = answer.body["request_id"].as_str().unwrap();
    let issue = Code::SubjectTokenExpired.known_issues().next().unwrap();
    assert_eq!(
        ended.stdout,
        format!(
            "This answer was written by Exchequer.\n\n\
             refused  subject_token_expired\n         {description}\n\
             cause    {}\nconfirm  {}\nnext     {}\nknown    {}: {} {}\n\
             note     the log line of request {id} has `expected`: what would have passed, which is told to no stranger\n\
             note     pipe in the token too: its checks are shown one by one\n",
            entry.cause, entry.confirm, entry.mend, issue.library, issue.what, issue.link
        )
    );
    let said: Value = serde_json::from_str(&explain(&["--json"]).stdout).unwrap();
    for (member, value) in [
        ("kind", json!("error_answer")),
        ("source", json!("exchequer")),
        ("accepted", json!(false)),
        ("code", json!("subject_token_expired")),
        ("action", json!("refresh_subject_token")),
        ("description", json!(description)),
        ("cause", json!(entry.cause)),
        ("next", json!([entry.mend])),
        ("ladder", json!([])),
    ] {
        assert_eq!(said[member], value, "{member}");
    }
}

#[test]
fn explain_with_a_wrong_configuration_says_so_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", "clerk.example.com")
        .input("eyJhbGciOiJub25lIn0.e30.")
        .run(&["explain"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(
        ended.stderr.starts_with("error: CLERK_JWT_ISSUER: "),
        "{}",
        ended.stderr
    );
}
