//! What `exchequer doctor` sees of a live setting, and what it says to do: whole rows.

use crate::support::issuer::{DISCOVERY, JWKS};
use crate::support::{Behaviour, Command, Issuer, Key, Redis, Service, Token};
use crate::webhooks::{Hook, SECRET as WEBHOOK_SECRET, session_event};
use serde_json::{Value, json};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";

/// A service with everything set, whose issuer is where it listens.
async fn healthy(issuer: &Issuer) -> Service {
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_AUTHORIZED_PARTIES", "https://app.example.com")
        .env("EXCHEQUER_KEYS_SECRET", SECRET);
    settled(service.start().await).await
}

/// The service again, at the same address, which is its issuer from now on.
async fn settled(mut service: Service) -> Service {
    let url = service.url.clone();
    service.set_env("EXCHEQUER_LISTEN", url.trim_start_matches("http://"));
    service.set_env("EXCHEQUER_ISSUER", &url);
    service.restart().await;
    service
}

/// A report: its rows, a line each, with what differs from run to run left out.
struct Report {
    code: i32,
    rows: Vec<Value>,
    names: Vec<(String, &'static str)>,
}

impl Report {
    /// Runs doctor as JSON with the service's configuration; its public URL is the service's.
    fn of(service: &Service, variables: &[(&str, &str)]) -> Self {
        let mut command = service.command();
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let names = vec![
            (bare(&service.url), "PUBLIC"),
            (bare(&service.admin), "ADMIN"),
        ];
        Self::from(command, names)
    }

    fn from(command: Command, names: Vec<(String, &'static str)>) -> Self {
        let ended = command.run(&["doctor", "--json"]);
        assert_eq!(ended.stderr, "");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report.as_object().unwrap().len(), 2, "{report:#}");
        let rows = report["checks"].as_array().unwrap().clone();
        // The verdict follows the worst row.
        let failed = rows.iter().any(|row| row["status"] == "fail");
        assert_eq!(report["ok"], !failed);
        assert_eq!(ended.code, i32::from(failed), "{report:#}");
        let documented = documented();
        for row in &rows {
            let check = row["check"].as_str().unwrap();
            assert!(documented.iter().any(|name| name == check), "{row}");
            let members = ["check", "name", "status", "message", "next", "code"];
            let known = |name: &String| members.contains(&name.as_str());
            assert!(row.as_object().unwrap().keys().all(known), "{row}");
            assert!(
                row["status"] == "ok"
                    || row["status"] == "info"
                    || row["next"].is_string()
                    || row["check"] == "config",
                "{row}"
            );
        }
        Self {
            code: ended.code,
            rows,
            names,
        }
    }

    /// Calls something else by a name too.
    fn calling(mut self, what: &str, name: &'static str) -> Self {
        self.names
            .push((what.trim_start_matches("http://").to_owned(), name));
        self
    }

    /// The rows of a check, a line each; all of them where none is named.
    fn lines(&self, check: &str) -> Vec<String> {
        let rows = self.rows.iter();
        // A machine that has other things to do is slow.
        let slow = |row: &Value| row["message"].as_str().unwrap().starts_with("it took ");
        rows.filter(|row| (check.is_empty() || row["check"] == check) && !slow(row))
            .map(|row| {
                let text = |member: &str| row[member].as_str();
                let mut line = text("check").unwrap().to_owned();
                let mut add = |before: &str, what: Option<&str>| {
                    if let Some(what) = what {
                        line.push_str(before);
                        line.push_str(what);
                    }
                };
                add(" ", text("name"));
                add(" ", text("status"));
                add(": ", text("message"));
                add(" → ", text("next"));
                add("   ", text("code"));
                for (what, name) in &self.names {
                    line = line.replace(what, name);
                    line = line.replace(&what.replace(':', "-"), name);
                }
                steady(&line)
            })
            .collect()
    }

    #[track_caller]
    fn assert(&self, check: &str, expected: &[&str]) {
        assert_eq!(self.lines(check), expected, "{:#?}", self.rows);
    }
}

/// The checks that the page lists.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string("docs/doctor.md").unwrap();
    let table = page.split("## What it looks at").nth(1).unwrap();
    let table = table.split("\n\n").nth(1).unwrap();
    let names = table
        .lines()
        .skip(2)
        .map(|line| line.split('`').nth(1).unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn every_check_that_the_page_lists_is_made() {
    let names = documented();
    assert!(names.len() > 15, "{names:?}");
    let files = std::fs::read_dir("src/cli/doctor").unwrap();
    let sources: String = files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for name in names {
        assert!(sources.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn every_setting_that_a_next_step_names_is_one() {
    let files = std::fs::read_dir("src/cli/doctor").unwrap();
    let sources: String = files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let lines = sources
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.collect();
    let end = |rest: &str, of: &str| {
        rest.find(|each: char| !each.is_ascii_uppercase() && !of.contains(each))
            .unwrap()
    };
    let variables: Vec<&str> = text
        .match_indices("EXCHEQUER_")
        .map(|(at, _)| &text[at..at + end(&text[at..], "_")])
        .collect();
    assert!(variables.len() > 20);
    for name in variables {
        let name = name.trim_end_matches("_FILE");
        assert!(
            exchequer::config::VARIABLES
                .iter()
                .any(|known| known.name == name),
            "{name}"
        );
    }
    let member = |word: &&str| {
        word.contains('_')
            && word
                .chars()
                .all(|each| each.is_ascii_lowercase() || each == '_')
    };
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(member).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let known = exchequer::config::SECTIONS
            .iter()
            .any(|(_, members)| members.contains(&name));
        assert!(known, "{name}");
    }
}

/// Numbers of milliseconds, bytes and the like, and the thumbprints of keys, differ each time.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let steadied = words.iter().enumerate().map(|(place, word)| {
        let unit = words.get(place + 1).copied().unwrap_or_default();
        let unit = unit.trim_end_matches([',', ';', ':']);
        let number = word.starts_with(|each: char| each.is_ascii_digit());
        let bare = word.trim_end_matches([',', ';', ':']);
        let thumbprint = |each: char| each.is_ascii_alphanumeric() || "-_".contains(each);
        if number && ["ms", "bytes", "KiB", "s"].contains(&unit) && !line.contains(" for a subject")
        {
            "N".to_owned()
        } else if bare.len() == 43 && bare.chars().all(thumbprint) {
            word.replace(bare, "KID")
        } else {
            (*word).to_owned()
        }
    });
    steadied.collect::<Vec<_>>().join(" ")
}

/// An answer, head and all, with these headers.
fn answer(status: &str, headers: &[&str], body: &str) -> Behaviour {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    Behaviour::Raw(
        format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

/// The headers of our documents.
const OURS: [&str; 4] = [
    "content-type: application/json",
    "cache-control: public, max-age=300",
    "access-control-allow-origin: *",
    "etag: \"1\"",
];

/// A front that serves what the service does, as a proxy before it would.
async fn front(service: &Service) -> Issuer {
    let front = Issuer::start().await;
    let jwks = service.get(JWKS).await.body.to_string();
    front.behave(JWKS, answer("200 OK", &OURS, &jwks));
    front.behave(DISCOVERY, answer("200 OK", &OURS, &metadata(&front.url)));
    front
}

fn metadata(issuer: &str) -> String {
    json!({ "issuer": issuer, "jwks_uri": format!("{issuer}{JWKS}") }).to_string()
}

const ES256: &str = "verifiers info: ES256: an AWS HTTP API's authorizer cannot verify it; Spring with jwk-set-uri alone needs jws-algorithms: ES256; go-oidc needs discovery, or ES256 in SupportedSigningAlgs → EXCHEQUER_KEY_ALG, or `alg` of an app: RS256 where the first is yours";
const IN_TIME: &str = "verifiers ok: a key is published 24 h before it signs, and 24 h after: AWS HTTP API, which keeps a key set for 2 h, hears of it in time";
const NO_WEBHOOKS: &str = "webhooks ISSUER info: no secret: sign-outs and bans at the provider hold here only when tokens end → CLERK_WEBHOOK_SIGNING_SECRET, or `webhook_secret` of the issuer (docs/revocation.md)";
const NO_PAGE: &str = "browsers info: no page may call → EXCHEQUER_ALLOWED_ORIGINS, where a web app exchanges; native apps and backends need none";

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_service_is_found_healthy() {
    let issuer = Issuer::start().await;
    issuer.date(0);
    let service = healthy(&issuer).await;
    let report = Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
    assert_eq!(report.code, 0);
    let clock = report.lines("clock");
    let known = ["the same", "N s ahead", "N s behind"];
    assert_eq!(clock.len(), 1);
    assert!(
        known
            .iter()
            .any(|apart| clock[0] == format!("clock ISSUER ok: the issuer's is {apart}")),
        "{clock:?}"
    );
    report.assert(
        "",
        &[
            "config ok: 5 variables set (CLERK_AUTHORIZED_PARTIES, CLERK_JWT_ISSUER, EXCHEQUER_ISSUER, EXCHEQUER_KEYS_SECRET, EXCHEQUER_LISTEN), no file: 1 issuer, 1 app, 0 clients, 0 providers",
            "config info: http://PUBLIC is this machine: nobody else can verify its tokens → EXCHEQUER_ISSUER",
            &clock[0],
            "issuer ISSUER ok: http://ISSUER/.well-known/jwks.json (at the usual place) in N ms: 1 key, RS256, no max-age; kid ins_1",
            "keys ok: ES256: KID signs, a standby is ready in 24 h, the next rotation is in 90 d",
            ES256,
            IN_TIME,
            "store ok: data/exchequer.redb: N KiB, held by the service at ADMIN",
            "admin ok: ADMIN: the service is ready",
            NO_WEBHOOKS,
            "limits info: 120 in 60 s for a subject, 1200 in 60 s for an address, counted by this process alone → with several replicas each grants the whole of it: EXCHEQUER_STORE=redis://… shares them",
            "proxies info: of 0 callers since its start the service could tell the address of 0: too few to judge by",
            "public_url ok: http://PUBLIC/.well-known/jwks.json: 200, no redirect, N ms, N bytes, public, max-age=300",
            "metadata ok: http://PUBLIC/.well-known/openid-configuration: 200, no redirect, N ms, N bytes, public, max-age=300, issuer equal",
            "round_trip ok: a token signed with KID verifies with the published key set",
            NO_PAGE,
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_said_as_text_in_colour_where_it_is_wanted() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    issuer.vanish();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = service.command();
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let ended = command.run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
        ended.stdout
    };
    let plain = run(&["doctor"], &[]);
    let name = issuer.url.trim_start_matches("http://").replace(':', "-");
    let of_issuer = format!("issuer {name}");
    let width = format!("webhooks {name}").len();
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with(&format!("{:<width$}  ok    5 variables set (", "config")));
    let place = lines
        .iter()
        .position(|line| line.starts_with(&of_issuer))
        .unwrap();
    assert!(
        lines[place].starts_with(&format!("{of_issuer:<width$}  FAIL  key set at ")),
        "{plain}"
    );
    assert!(
        lines[place].ends_with("   issuer_keys_unavailable"),
        "{plain}"
    );
    assert!(
        lines[place + 1].starts_with(&format!(
            "{:width$}        → from here it is not reached: ",
            ""
        )),
        "{plain}"
    );
    let count = |status: &str| {
        let marks = lines
            .iter()
            .filter_map(|line| line.get(width + 2..width + 6));
        marks.filter(|mark| mark.trim_end() == status).count()
    };
    let (ok, info, warn) = (count("ok"), count("info"), count("warn"));
    assert!(ok > 5 && info > 3, "{plain}");
    let counts = format!("{ok} ok, {info} info, {warn} warn, 1 FAIL");
    assert_eq!(lines[lines.len() - 2..], ["", &counts], "{plain}");
    assert!(!plain.contains('\u{1b}'));

    let coloured = run(&["doctor", "--color", "always"], &[]);
    assert!(
        coloured.contains("\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m  "),
        "{coloured}"
    );
    assert!(coloured.contains("\u{1b}[32mok  \u{1b}[0m  "), "{coloured}");
    let forced = run(&["doctor"], &[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains('\u{1b}'));
    for (arguments, variables) in [
        (
            &["doctor", "--color", "never"] as &[&str],
            ("CLICOLOR_FORCE", "1"),
        ),
        (&["doctor"], ("NO_COLOR", "1")),
        (
            &["doctor", "--color", "always", "--json"],
            ("TERM", "xterm"),
        ),
    ] {
        let text = run(arguments, &[variables]);
        assert!(!text.contains('\u{1b}'), "{arguments:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_answer_moves_no_cursor() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let page = "<html><title>\u{1b}[2J\u{7}gone\u{9b}1m</title>";
    let front = front(&service).await;
    front.behave(JWKS, answer("200 OK", &["content-type: text/html"], page));
    let ended = service
        .command()
        .env("EXCHEQUER_ISSUER", &front.url)
        .run(&["doctor"]);
    let odd = ended
        .stdout
        .chars()
        .find(|each| each.is_control() && *each != '\n');
    assert_eq!(odd, None, "{:?}", ended.stdout);
    assert!(ended.stdout.contains("gone"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_issuer_is_told_with_what_to_do() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let unreached = "from here it is not reached: look at name resolution, firewall and NetworkPolicy, and at CLERK_JWT_ISSUER, or `issuer` in exchequer.toml; exchanges go on with the keys that are known   issuer_keys_unavailable";
    let another = "is that the provider? compare CLERK_JWT_ISSUER, or `issuer` in exchequer.toml, with its dashboard   issuer_keys_unavailable";
    let browse = "open that address in a browser; `jwks_uri` in exchequer.toml names another   issuer_keys_unavailable";
    let answers = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    for (behaviour, seen, next) in [
        (answers(500, "{}"), ": it answered 500", another),
        (
            answers(404, "{}"),
            ": it answered 404",
            "nothing is there: compare CLERK_JWT_ISSUER, or `issuer` in exchequer.toml, with the provider's dashboard   issuer_keys_unavailable",
        ),
        (
            answers(200, "<html>"),
            " (at the usual place) in N ms: not a JSON object with a `keys` array",
            browse,
        ),
        (
            answers(200, "{\"keys\":[]}"),
            " (at the usual place) in N ms: no key of the set has a `kid`",
            browse,
        ),
        (
            Behaviour::Redirect("http://127.0.0.1:1/".to_owned()),
            ": it answered 302",
            "redirects are not followed: let CLERK_JWT_ISSUER, or `issuer` in exchequer.toml, name where it leads   issuer_keys_unavailable",
        ),
        (
            Behaviour::Stall,
            ": no complete answer within N s",
            unreached,
        ),
    ] {
        issuer.behave(JWKS, behaviour);
        let row = format!("issuer ISSUER fail: key set at http://ISSUER{JWKS}{seen} → {next}");
        Report::of(&service, &[])
            .calling(&issuer.url, "ISSUER")
            .assert("issuer", &[&row]);
    }
    issuer.vanish();
    let down = Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
    let lines = down.lines("issuer");
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains("refused") && lines[0].ends_with(unreached),
        "{lines:?}"
    );
    assert_eq!(
        down.lines("round_trip"),
        ["round_trip ok: a token signed with KID verifies with the published key set"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_of_an_issuer_that_is_not_used_is_named() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let mut odd = Key::p256().jwk("ins_odd");
    odd["use"] = json!("enc");
    let mut nameless = Key::p256().jwk("x");
    nameless.as_object_mut().unwrap().remove("kid");
    let report = || Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
    let place = format!("http://ISSUER{JWKS} (at the usual place) in N ms");
    let unused = "issuer ISSUER warn: kid ins_odd is not used: its use or key_ops is not for verifying signatures → tokens signed with it are refused: correct it at the provider, or `algorithms` of the issuer";

    issuer.publish(vec![odd.clone()]);
    report().assert(
        "issuer",
        &[
            &format!("issuer ISSUER fail: {place}: 1 key, ES256, no max-age; no usable key → each key's fault is named below: mend the key set, or `algorithms` of the issuer   subject_token_key_unusable"),
            unused,
        ],
    );
    issuer.cache_control("public, max-age=3600");
    let good = Key::rsa().jwk("ins_1");
    issuer.publish(vec![good.clone(), odd, nameless, good]);
    report().assert(
        "issuer",
        &[
            &format!("issuer ISSUER ok: {place}: 4 keys, ES256 RS256, max-age 3600; kid ins_1"),
            unused,
            "issuer ISSUER warn: a key has no kid, and is not used → keys are chosen by `kid`, never tried: let the provider name it",
            "issuer ISSUER warn: kid ins_1 is there more than once → the first that can be used counts here; other verifiers choose another, or none: let the provider publish each once",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_document_that_is_another_issuers_is_told_by_what_it_differs() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.partner]\nissuer = \"{}\"\naudiences = \"web\"\n[apps.web]\nissuers = \"partner\"\n",
            issuer.url
        ))
        .start()
        .await;
    let report = || Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
    report().assert(
        "issuer",
        &[&format!("issuer partner ok: http://ISSUER{JWKS} (discovered) in N ms: 1 key, RS256, no max-age; kid ins_1")],
    );
    for (said, difference) in [
        ("https://other.example".to_owned(), "it is another issuer"),
        (
            format!("{}/", issuer.url),
            "they differ by a trailing slash alone",
        ),
        (
            issuer.url.replace("http:", "https:"),
            "they differ by http and https",
        ),
    ] {
        issuer.claim_issuer(&said);
        let said = said.replace(issuer.url.trim_start_matches("http://"), "ISSUER");
        report().assert(
            "issuer",
            &[&format!("issuer partner fail: discovery at http://ISSUER{DISCOVERY}: the document says issuer {said:?}, configured is \"http://ISSUER\" → {difference}; `issuer` in exchequer.toml must be what its tokens say in `iss`, byte for byte   issuer_metadata_invalid")],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_set_of_a_client_is_fetched_too() {
    let issuer = Issuer::with_keys(vec![Key::p256().jwk("client_1")]).await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.one]\nissuer = {url:?}\njwks_uri = \"{url}{JWKS}\"\naudiences = \"x\"\nalgorithms = \"ES256\"\n[apps.web]\nissuers = \"one\"\n\
             [clients.partner]\nauth_method = \"private_key_jwt\"\njwks_uri = \"{url}/partner\"\naudience = \"x\"\n"
        ))
        .start()
        .await;
    let report = || Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
    let one = format!(
        "issuer one ok: http://ISSUER{JWKS} (configured) in N ms: 1 key, ES256, no max-age; kid client_1"
    );
    report().assert(
        "issuer",
        &[
            &one,
            "issuer client:partner fail: key set at http://ISSUER/partner: it answered 404 → nothing is there: compare `issuer`, or `jwks_uri`, in exchequer.toml, with the provider's dashboard   issuer_keys_unavailable",
        ],
    );
    let set = json!({ "keys": [Key::p256().jwk("client_1")] });
    issuer.behave("/partner", Behaviour::Answer(200, set.to_string()));
    report().assert(
        "issuer",
        &[
            &one,
            "issuer client:partner ok: http://ISSUER/partner (configured) in N ms: 1 key, ES256, no max-age; kid client_1",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_are_compared() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let next = "keep this machine's clock right (NTP: chrony, systemd-timesyncd); a container has its host's";
    for (ahead, status, code) in [
        (0, "ok", ""),
        (4, "warn", ""),
        (-4, "warn", ""),
        (60, "fail", "   subject_token_not_yet_valid"),
        (-60, "fail", "   subject_token_expired"),
    ] {
        issuer.date(ahead);
        let report = Report::of(&service, &[]).calling(&issuer.url, "ISSUER");
        let lines = report.lines("clock");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let begin = format!("clock ISSUER {status}: the issuer's is ");
        assert!(lines[0].starts_with(&begin), "{lines:?}");
        if ahead != 0 {
            let way = if ahead > 0 { "ahead" } else { "behind" };
            let end = format!("N s {way} → {next}{code}");
            assert!(lines[0].ends_with(&end), "{lines:?}");
        }
    }
}

// The public URL.

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_that_redirects_is_told_where_to() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let to = |location: &str| {
        front.behave(
            JWKS,
            answer("301 Moved", &[&format!("location: {location}")], ""),
        );
        Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT")
    };
    let row = |to: &str, next: &str| {
        format!(
            "public_url fail: http://FRONT{JWKS}: it redirects (301) to {to}: jose, PyJWT, jwks-rsa and Envoy do not follow → {next}"
        )
    };
    to(&format!("https://www.example.com{JWKS}?a=b")).assert(
        "public_url",
        &[&row(
            &format!("https://www.example.com{JWKS}"),
            "if that is the public address: EXCHEQUER_ISSUER=https://www.example.com; else end the redirect at the proxy",
        )],
    );
    to(&format!("{JWKS}/")).assert(
        "public_url",
        &[&row(
            &format!("http://FRONT{JWKS}/"),
            &format!("the proxy rewrites addresses: end that for {JWKS}"),
        )],
    );
    // What follows the path is not shown: it may be a state, or a token.
    let report = to("https://login.example.com/authorize?state=s3cret#t0ken");
    report.assert(
        "public_url",
        &[&row(
            "https://login.example.com/authorize",
            &format!("a sign-in wall? let the proxy pass {JWKS} without sign-in"),
        )],
    );
    // Where no document of ours is there, nothing else is judged by it.
    assert_eq!(report.lines("metadata"), [""; 0]);
    assert_eq!(report.lines("round_trip"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_where_something_else_answers_is_told_what() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let route = format!("let the proxy pass {JWKS} to EXCHEQUER_LISTEN, unchanged");
    let wall = "a sign-in wall, a CDN's challenge or another website answers";
    for (behaviour, seen, next) in [
        (
            answer(
                "200 OK",
                &[
                    "content-type: text/html; charset=utf-8",
                    "server: cloudflare",
                ],
                "<!doctype html><html><head><title>Just a moment...</title>",
            ),
            "200 with a page for people, \"Just a moment...\"",
            format!("{wall} (cloudflare): {route}, without sign-in"),
        ),
        (
            answer("200 OK", &[], "\n <html>"),
            "200 with a page for people",
            format!("{wall}: {route}, without sign-in"),
        ),
        (
            answer("401 Unauthorized", &["server: envoy"], ""),
            "it answered 401 (envoy)",
            format!("verifiers have no credentials: {route}, without sign-in"),
        ),
        (
            answer("502 Bad Gateway", &["server: nginx"], "<html>"),
            "it answered 502 (nginx)",
            format!("does EXCHEQUER_ISSUER name this service, path and all? {route}"),
        ),
        (
            Behaviour::Flood(1 << 20),
            "the answer is larger than 512 KiB",
            "that is no document of ours: does EXCHEQUER_ISSUER name this service?".to_owned(),
        ),
        (
            Behaviour::Drip,
            "no complete answer within 3 s",
            "verifiers wait for as long: does EXCHEQUER_ISSUER name this service, and does it run?"
                .to_owned(),
        ),
    ] {
        front.behave(JWKS, behaviour);
        let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]);
        let row = format!("public_url fail: http://FRONT{JWKS}: {seen} → {next}");
        report
            .calling(&front.url, "FRONT")
            .assert("public_url", &[&steady(&row)]);
    }
    front.vanish();
    let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]);
    let lines = report.lines("public_url");
    let next = "nobody listens there: does the service run, and does EXCHEQUER_ISSUER name it, port and all?";
    assert!(lines.len() == 1 && lines[0].ends_with(next), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_changes_of_the_documents_is_told() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let jwks = service.get(JWKS).await.body.to_string();
    let report =
        || Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT");
    let ok = |cache: &str| {
        format!("public_url ok: http://FRONT{JWKS}: 200, no redirect, N ms, N bytes, {cache}")
    };
    let tag = "verifiers fetch the whole set each time: a proxy takes the ETag away, or does not pass If-None-Match on";
    let again =
        format!("public_url info: asked again with its ETag it answers 200, not 304 → {tag}");
    let cached = "some verifiers (Hasura, Go jwx) refresh by nothing else: never without it, each second with no-store, and late with a long one; a proxy or CDN changes it";
    report().assert("public_url", &[&ok("public, max-age=300"), &again]);

    // All at once, and far too many bytes.
    let large =
        format!("{}{}", jwks.trim_end_matches('}'), ",\"x\":\"") + &"x".repeat(52_000) + "\"}";
    front.behave(
        JWKS,
        answer(
            "200 OK",
            &["content-type: text/plain", "cache-control: no-store"],
            &large,
        ),
    );
    report().assert(
        "public_url",
        &[
            &ok("no-store"),
            "public_url warn: its Content-Type is text/plain, not application/json → some verifiers read nothing else: a proxy changes it",
            &format!("public_url warn: its Cache-Control is no-store, not public, max-age=300 → {cached}"),
            "public_url warn: its Access-Control-Allow-Origin is nothing, not * → verifiers in browsers cannot read it: let the proxy leave the header as it is",
            "public_url warn: it has N bytes → Nimbus and Spring read N KiB at most: is that ours?",
            &format!("public_url info: it has no ETag → {tag}"),
        ],
    );
    for (header, well) in [
        ("max-age=60", true),
        ("max-age=59", false),
        ("public, max-age=3600", true),
        ("public, max-age=3601", false),
        ("max-age=300, no-cache", false),
    ] {
        let cache = format!("cache-control: {header}");
        front.behave(
            JWKS,
            answer("200 OK", &[OURS[0], &cache, OURS[2], OURS[3]], &jwks),
        );
        let found = report().lines("public_url");
        let warned = format!(
            "public_url warn: its Cache-Control is {header}, not public, max-age=300 → {cached}"
        );
        assert_eq!(found.contains(&warned), !well, "{found:?}");
    }
    // Slow, yet not too slow for an answer.
    front.behave(JWKS, Behaviour::Late(Duration::from_millis(700)));
    let found = report().rows;
    let slow = found
        .iter()
        .find(|row| row["message"].as_str().unwrap().starts_with("it took "));
    let slow = slow.unwrap();
    assert_eq!(
        (&slow["check"], &slow["status"], &slow["next"]),
        (
            &json!("public_url"),
            &json!("warn"),
            &json!(
                "Nimbus and Spring give up after 500 ms: the service answers from memory, so look at the way there"
            )
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_are_not_ours_are_told_by_what_they_differ() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let with = |body: &str| {
        front.behave(DISCOVERY, answer("200 OK", &OURS, body));
        Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT")
    };
    with(&metadata(&front.url)).assert(
        "metadata",
        &[&format!("metadata ok: http://FRONT{DISCOVERY}: 200, no redirect, N ms, N bytes, public, max-age=300, issuer equal")],
    );
    for (said, difference) in [
        (
            format!("{}/", front.url),
            "they differ by a trailing slash alone",
        ),
        (
            front.url.replace("http:", "https:"),
            "they differ by http and https",
        ),
        (
            "https://staging.example".to_owned(),
            "another deployment answers there",
        ),
    ] {
        let shown = said.replace(front.url.trim_start_matches("http://"), "FRONT");
        with(&metadata(&said)).assert(
            "metadata",
            &[&format!("metadata fail: it says issuer {shown}, configured is http://FRONT: verifiers compare byte for byte → {difference}: give the service that answers there, and this, one EXCHEQUER_ISSUER")],
        );
    }
    with("[]").assert(
        "metadata",
        &[&format!("metadata fail: http://FRONT{DISCOVERY}: no JSON object with `issuer` → that is no document of ours: does EXCHEQUER_ISSUER name this service?")],
    );
    let elsewhere = json!({ "issuer": front.url, "jwks_uri": "http://inside:8080/jwks" });
    with(&elsewhere.to_string()).assert(
        "metadata",
        &[&format!("metadata fail: its jwks_uri is http://inside:8080/jwks, not http://FRONT{JWKS} → a proxy rewrites the document: let it pass unchanged")],
    );
    front.behave(DISCOVERY, answer("404 Not Found", &[], ""));
    Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT").assert(
        "metadata",
        &[&format!("metadata fail: http://FRONT{DISCOVERY}: it answered 404 → does EXCHEQUER_ISSUER name this service, path and all? let the proxy pass {DISCOVERY} to EXCHEQUER_LISTEN, unchanged")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_is_not_ours_is_told_whose_it_is() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let other = healthy(&issuer).await;
    let front = front(&service).await;
    let report = |url: &str| Report::of(&service, &[("EXCHEQUER_ISSUER", url)]);
    // A service of another issuer.
    let theirs = other.get(JWKS).await.body.to_string();
    front.behave(JWKS, answer("200 OK", &OURS, &theirs));
    let staging = metadata("https://staging.example");
    front.behave(DISCOVERY, answer("200 OK", &OURS, &staging));
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: the deployment of https://staging.example answers there, with KID, KID → EXCHEQUER_ISSUER names another service's address, or the proxy sends its requests there"],
    );
    // One of this issuer with a ring of its own, and the same from a cache.
    let ours = metadata(&front.url);
    front.behave(DISCOVERY, answer("200 OK", &OURS, &ours));
    front.behave(
        JWKS,
        answer("200 OK", &[&OURS[..], &["server: nginx"]].concat(), &theirs),
    );
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: another ring answers there (nginx), with KID, KID → another deployment of this issuer, or a replica with a ring of its own: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)"],
    );
    front.behave(
        JWKS,
        answer("200 OK", &[&OURS[..], &["age: 86400"]].concat(), &theirs),
    );
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: a cache serves KID, KID, 86400 s old → empty the CDN's cache, and let it keep the key set for no longer than its max-age"].map(steady).each_ref().map(String::as_str),
    );
    // The standby alone: a ring from before the rotation, or after a revocation.
    let mut part = service.get(JWKS).await.body;
    let signs = report(&service.url);
    let signs = signs
        .rows
        .iter()
        .find(|row| row["check"] == "keys")
        .unwrap();
    let keys = part["keys"].as_array_mut().unwrap();
    keys.retain(|key| {
        !signs["message"]
            .as_str()
            .unwrap()
            .contains(key["kid"].as_str().unwrap())
    });
    assert_eq!(keys.len(), 1);
    front.behave(JWKS, answer("200 OK", &OURS, &part.to_string()));
    report(&front.url).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: an older ring answers there, with KID → a replica has not read the ring anew, or a copy of it was restored: all must share one (docs/keys.md)"],
    );
    // This command reads another folder than the service beside.
    let dir = other.dir().join("keys").display().to_string();
    let own = [("EXCHEQUER_KEYS_DIR", dir.as_str())];
    Report::of(&service, &own).assert(
        "round_trip",
        &["round_trip fail: the key set has no key KID: the service beside publishes KID, KID, and signs with another ring than this command reads → run this in its folder, with its EXCHEQUER_KEYS_DIR and EXCHEQUER_STORE"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_serve_different_key_sets_are_told() {
    let issuer = Issuer::start().await;
    let (service, other) = (healthy(&issuer).await, healthy(&issuer).await);
    // A balancer that gives each connection to the next of two.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let replicas = [&service, &other].map(|each| each.url.trim_start_matches("http://").to_owned());
    let balancer = tokio::spawn(async move {
        for replica in replicas.iter().cycle() {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(replica).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let url = format!("http://{address}");
    let report = Report::of(&service, &[("EXCHEQUER_ISSUER", &url)]);
    let row = "public_url fail: two key sets are served in turn: KID, KID and KID, KID → every second token is refused: replicas have rings of their own, or one has not read theirs anew: one EXCHEQUER_KEYS_DIR, or a Redis, for all (docs/keys.md)";
    let lines = report.lines("public_url");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], row);
    balancer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_at_the_public_url_fail() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let front = front(&service).await;
    let metrics = service.admin("/metrics").await.body;
    front.behave(
        "/metrics",
        answer(
            "200 OK",
            &["content-type: text/plain"],
            metrics.as_str().unwrap(),
        ),
    );
    Report::of(&service, &[("EXCHEQUER_ISSUER", &front.url)]).calling(&front.url, "FRONT").assert(
        "admin",
        &[
            "admin ok: ADMIN: the service is ready",
            "admin fail: http://FRONT/metrics shows the metrics to everybody → a proxy passes it to EXCHEQUER_ADMIN_LISTEN: let it pass EXCHEQUER_LISTEN alone",
        ],
    );
}

/// A TLS server before a service, with a certificate for `localhost`.
struct Tls {
    port: u16,
    /// The authority that signed it.
    authority: String,
    task: tokio::task::AbortHandle,
    _dir: TempDir,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = process::Command::new("openssl");
    let output = command.current_dir(dir).args(arguments.split(' ')).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

impl Tls {
    async fn before(service: &Service, days: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            at,
            &format!("req -x509 {new} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"),
        );
        openssl(
            at,
            &format!("req {new} -keyout key.pem -out request.pem -subj /CN=localhost"),
        );
        std::fs::write(at.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days {days} -extfile names"
            ),
        );
        let chain = CertificateDer::pem_file_iter(at.join("cert.pem")).unwrap();
        let chain: Vec<_> = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(at.join("key.pem")).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = service.url.trim_start_matches("http://").to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(behind).await.unwrap();
                    if let Ok(mut near) = acceptor.accept(near).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self {
            port,
            authority: at.join("ca.pem").display().to_string(),
            task: task.abort_handle(),
            _dir: dir,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_public_url_is_verified_as_others_do() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let tls = Tls::before(&service, 30).await;
    let url = format!("https://localhost:{}", tls.port);
    let of = |service: &Service, url: &str, authority: &str| {
        let variables = [("EXCHEQUER_ISSUER", url), ("SSL_CERT_FILE", authority)];
        Report::of(service, &variables).lines("public_url")
    };
    let found = of(&service, &url, &tls.authority);
    let good =
        format!("public_url ok: {url}{JWKS}: 200, no redirect, N ms, N bytes, public, max-age=300");
    assert_eq!(found, [good]);

    let unknown = of(&service, &url, "/etc/ssl/certs/ca-certificates.crt");
    let next = " → its certificate leads to no authority that this machine trusts: let the proxy send the whole chain (fullchain.pem), or take a certificate of a public authority";
    assert!(
        unknown.len() == 1 && unknown[0].ends_with(next),
        "{unknown:?}"
    );
    let numbered = format!("https://127.0.0.1:{}", tls.port);
    let misnamed = of(&service, &numbered, &tls.authority);
    let next = " → its certificate is for another name: EXCHEQUER_ISSUER must be a name in it";
    assert!(
        misnamed.len() == 1 && misnamed[0].ends_with(next),
        "{misnamed:?}"
    );
    let expired = Tls::before(&service, -1).await;
    let url = format!("https://localhost:{}", expired.port);
    let expired = of(&service, &url, &expired.authority);
    let next = " → its certificate has expired: renew it at the proxy";
    assert!(
        expired.len() == 1 && expired[0].ends_with(next),
        "{expired:?}"
    );
    // The port of a server that speaks none.
    let plain = service.url.replace("http:", "https:");
    let plain = of(&service, &plain, &tls.authority);
    let next = " → it speaks no TLS there: is the port in EXCHEQUER_ISSUER that of https?";
    assert!(plain.len() == 1 && plain[0].ends_with(next), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_of_the_pages_origins_are_sent_through_the_public_url() {
    let issuer = Issuer::start().await;
    let mut service = healthy(&issuer).await;
    service.set_env(
        "EXCHEQUER_ALLOWED_ORIGINS",
        "https://app.example.com,capacitor://localhost",
    );
    service.restart().await;
    let report = |url: &str| Report::of(&service, &[("EXCHEQUER_ISSUER", url)]).lines("browsers");
    assert_eq!(
        report(&service.url),
        ["browsers ok: preflights of 2 origins pass"]
    );

    let front = front(&service).await;
    let next = "the proxy answers them itself, or changes their headers: let it pass OPTIONS and Access-Control-* unchanged; or the running service has other EXCHEQUER_ALLOWED_ORIGINS";
    let origin = "access-control-allow-origin: ";
    for (headers, fault) in [
        (vec![], "it allows no origin"),
        (vec![format!("{origin}*")], "it allows *"),
        (
            vec![
                format!("{origin}https://app.example.com"),
                format!("{origin}*"),
            ],
            "Access-Control-Allow-Origin is there twice",
        ),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        front.behave("/auth/exchange", answer("204 No Content", &headers, ""));
        let row = format!(
            "browsers fail: preflights do not pass: https://app.example.com: {fault}; capacitor://localhost: {fault} → {next}"
        );
        assert_eq!(report(&front.url), [row]);
    }
    front.behave("/auth/exchange", answer("405 Method Not Allowed", &[], ""));
    let row = format!(
        "browsers fail: preflights do not pass: https://app.example.com: it answered 405; capacitor://localhost: it answered 405 → {next}"
    );
    assert_eq!(report(&front.url), [row]);
}

// What runs beside.

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_with_their_next_rotation() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    Report::of(&service, &[("EXCHEQUER_KEYS_DIR", "empty")]).assert(
        "keys",
        &["keys warn: no key ring in empty → `exchequer serve` makes it; where one should be there, EXCHEQUER_KEYS_DIR is relative to this folder"],
    );
    assert!(
        !service.dir().join("empty").exists(),
        "doctor changes nothing"
    );
    let wrong = "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3JvbmctMTI=";
    let sealed = Report::of(&service, &[("EXCHEQUER_KEYS_SECRET", wrong)]).lines("keys");
    let next = "→ EXCHEQUER_KEYS_DIR, EXCHEQUER_KEYS_SECRET, and docs/keys.md; run this as the service's user   signing_key_unavailable";
    assert!(sealed.len() == 1 && sealed[0].ends_with(next), "{sealed:?}");
    service.shift_clocks(86_400, 86_400);
    Report::of(&service, &[]).assert(
        "keys",
        &["keys ok: ES256: KID signs, a standby is ready, the next rotation is in 89 d"],
    );

    let open = Service::trusting(&issuer).await;
    let keys = Report::of(&open, &[]).lines("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(
        keys[0],
        "keys warn: keys: the ring is not encrypted at rest → EXCHEQUER_KEYS_SECRET: make one with `openssl rand -base64 32`"
    );
    // One whose standby is gone.
    let ring = crate::support::ring::list(open.command());
    let standby = crate::support::ring::in_state(&ring, "next");
    assert_eq!(open.command().run(&["keys", "revoke", &standby[0]]).code, 0);
    let keys = Report::of(&open, &[]).lines("keys");
    assert!(
        keys[1].starts_with("keys ok: ES256: KID signs, a standby is ready in "),
        "{keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_that_the_algorithm_and_the_times_shut_out_are_named() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let of = |name: &str, value: &str| Report::of(&service, &[(name, value)]).lines("verifiers");
    assert_eq!(
        of("EXCHEQUER_KEY_ALG", "RS256"),
        ["verifiers ok: RS256: all that were tried take it", IN_TIME]
    );
    assert_eq!(
        of("EXCHEQUER_KEY_ALG", "EdDSA"),
        [
            "verifiers warn: EdDSA: Spring Security, Nimbus without Tink, Node's jsonwebtoken and jwks-rsa, get-jwks, python-jose and AWS HTTP APIs cannot verify it; Hasura calls it Ed25519 → EXCHEQUER_KEY_ALG, or `alg` of an app: ES256 where one of these is yours",
            IN_TIME
        ]
    );
    let next = "EXCHEQUER_KEY_PUBLISH_AHEAD: 24h unless set, 2h at least";
    for (ahead, status, shown, late) in [
        ("7199s", "warn", "120 min", "AWS HTTP API (2 h)"),
        ("30m", "warn", "30 min", "AWS HTTP API (2 h)"),
        ("1799s", "fail", "30 min", "AWS HTTP API (2 h)"),
        (
            "19m",
            "fail",
            "19 min",
            "AWS HTTP API (2 h), Istio (20 min)",
        ),
        (
            "1m",
            "fail",
            "60 s",
            "AWS HTTP API (2 h), Istio (20 min), Envoy (10 min), Go keyfunc (5 min)",
        ),
    ] {
        let row = format!(
            "verifiers {status}: a key is published {shown} before it signs, and 24 h after: after a rotation these refuse good tokens until they fetch the key set anew: {late} → {next}"
        );
        assert_eq!(
            of("EXCHEQUER_KEY_PUBLISH_AHEAD", ahead),
            [ES256, &steady(&row)]
        );
    }
    // Three algorithms at once: each has a key that signs, and its standby.
    let three = Service::builder()
        .config(&format!(
            "[issuers.one]\nissuer = {:?}\nkind = \"clerk\"\nauthorized_parties = \"https://a.example\"\n\
             [apps.a]\nissuers = \"one\"\naudience = \"a\"\n\
             [apps.b]\nissuers = \"one\"\naudience = \"b\"\nalg = \"RS256\"\n\
             [apps.c]\nissuers = \"one\"\naudience = \"c\"\nalg = \"EdDSA\"\n",
            issuer.url
        ))
        .start()
        .await;
    let lines = Report::of(&three, &[]).lines("verifiers");
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(
        lines[4],
        "verifiers warn: 6 keys are published → jwks-rsa caches five, and fetches the others again and again: fewer algorithms, or a longer EXCHEQUER_KEY_ROTATE_EVERY beside EXCHEQUER_KEY_KEEP_AFTER"
    );
    let exact = of("EXCHEQUER_KEY_PUBLISH_AHEAD", "2h");
    assert!(
        exact[1].starts_with("verifiers ok: a key is published 2 h before it signs"),
        "{exact:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_told_with_who_holds_it() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let dir = service.dir();
    std::fs::create_dir(dir.join("empty")).unwrap();
    let lonely = "held by no service that was found";
    for (store, row) in [
        ("data/exchequer.redb", "ok: data/exchequer.redb: N KiB, held by the service at ADMIN".to_owned()),
        ("empty/store.redb", format!("ok: no store at empty/store.redb: `exchequer serve` makes it, {lonely}")),
        (
            "none/store.redb",
            "warn: no store at none/store.redb, and no folder for it → `exchequer serve` makes both; where one should be there, EXCHEQUER_STORE is relative to this folder".to_owned(),
        ),
        (
            "memory",
            "warn: in memory: a restart forgets revocations and used session ids → EXCHEQUER_STORE names a file, or a Redis".to_owned(),
        ),
        (
            "empty",
            "fail: empty: Is a directory (os error 21) → EXCHEQUER_STORE names a file that the service's user can write; run this as that user   store_unavailable".to_owned(),
        ),
        // Nobody, root neither, writes here.
        (
            "/proc/store.redb",
            "fail: /proc is not writable: No such file or directory (os error 2) → EXCHEQUER_STORE names a file in a folder that the service's user can write; in a container it needs a volume   store_unavailable".to_owned(),
        ),
    ] {
        // The service beside holds its own file, and no other that is asked about.
        let admin = service.admin.trim_start_matches("http://");
        let report = Report::of(&service, &[("EXCHEQUER_STORE", store), ("EXCHEQUER_ADMIN_LISTEN", admin)]);
        let found = report.lines("store");
        assert_eq!(found.first(), Some(&format!("store {row}")), "{store}: {found:?}");
    }
    let left = std::fs::read_dir(dir.join("empty")).unwrap().count();
    assert_eq!(left, 0, "doctor changes nothing");
    assert!(!dir.join("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_found_or_not_ready_is_told() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let nowhere = Report::of(
        &service,
        &[
            ("EXCHEQUER_STORE", "memory"),
            ("EXCHEQUER_ADMIN_LISTEN", "127.0.0.1:1"),
        ],
    );
    nowhere.assert(
        "admin",
        &["admin warn: no service found: 127.0.0.1:1: Connection refused (os error 111) → what only a running service knows (webhooks, callers' addresses) was not looked at: run this beside it, as its user and with its EXCHEQUER_ADMIN_LISTEN"],
    );
    // What cannot be known is not said.
    nowhere.assert(
        "webhooks",
        &[&NO_WEBHOOKS.replace(
            "ISSUER",
            &issuer.url.trim_start_matches("http://").replace(':', "-"),
        )],
    );
    nowhere.assert("proxies", &[]);
    // Something else at that address.
    let address = issuer.url.trim_start_matches("http://").to_owned();
    let other = Report::of(
        &service,
        &[
            ("EXCHEQUER_STORE", "memory"),
            ("EXCHEQUER_ADMIN_LISTEN", &address),
        ],
    );
    other.calling(&issuer.url, "OTHER").assert(
        "admin",
        &["admin warn: no service found: OTHER: something else answers there (404) → what only a running service knows (webhooks, callers' addresses) was not looked at: run this beside it, as its user and with its EXCHEQUER_ADMIN_LISTEN"],
    );
    let metrics = answer("200 OK", &[], "exchequer_build_info{version=\"1\"} 1\n");
    issuer.behave("/metrics", metrics);
    for (why, row) in [
        (
            "no signing key",
            "fail: OTHER: the service is not ready: no signing key → its log says why no key signs; EXCHEQUER_KEYS_DIR, or EXCHEQUER_STORE where that is a Redis   signing_key_unavailable",
        ),
        (
            "draining",
            "fail: OTHER: the service is not ready: draining → it was told to stop",
        ),
    ] {
        issuer.behave(
            "/readyz",
            answer("503 Service Unavailable", &[], &format!("{why}\n")),
        );
        let other = Report::of(
            &service,
            &[
                ("EXCHEQUER_STORE", "memory"),
                ("EXCHEQUER_ADMIN_LISTEN", &address),
            ],
        );
        other
            .calling(&issuer.url, "OTHER")
            .assert("admin", &[&format!("admin {row}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_told_by_the_last_that_came() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "authorized_parties = \"https://app.example.com\"\nwebhook_secret = { env = \"HOOKS\" }", "")
        .env("HOOKS", WEBHOOK_SECRET)
        .env("EXCHEQUER_KEYS_SECRET", SECRET);
    let service = settled(service.start().await).await;
    let report = || Report::of(&service, &[]);
    let next = "is an endpoint http://PUBLIC/webhooks/clerk/web registered in the instance's dashboard, and does it reach this service? send an example from there";
    report().assert(
        "webhooks",
        &[&format!(
            "webhooks clerk info: no event since this service started, N s ago → {next}"
        )],
    );
    service.shift_clocks(86_400 + 60, 0);
    report().assert(
        "webhooks",
        &[&format!(
            "webhooks clerk warn: no event since this service started, 24 h ago → {next}"
        )],
    );
    // What says nothing that concerns us is an event too.
    for (id, kind, result) in [
        ("msg_1", "session.ended", "revoked"),
        ("msg_2", "session.created", "ignored"),
    ] {
        let hook = Hook::new(id, &session_event(kind, "sess_1"));
        service.shift_clocks(0, 0);
        hook.to("web").taken(&service, result).await;
        let said = report().lines("webhooks");
        assert_eq!(said.len(), 1, "{said:?}");
        // Both may have come in the same second.
        assert!(
            said[0].starts_with("webhooks clerk ok: the last event came N s ago: session."),
            "{said:?}"
        );
    }
    service.shift_clocks(3 * 86_400 + 60, 0);
    let said = report().lines("webhooks");
    let old = format!(" → {next}");
    assert!(
        said[0].starts_with("webhooks clerk warn: the last event came 3 d ago: session.")
            && said[0].ends_with(&old),
        "{said:?}"
    );
    service.shift_clocks(0, 0);
    let forged = service
        .client
        .post(format!("{}/webhooks/clerk/web", service.url));
    let forged = forged
        .header("content-type", "application/json")
        .header("svix-id", "msg_3")
        .header("svix-timestamp", crate::support::now().to_string())
        .header(
            "svix-signature",
            "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        )
        .body("{}");
    service
        .send(forged)
        .await
        .assert_refused(400, "webhook_signature_invalid");
    let said = report().lines("webhooks");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[1].starts_with("webhooks warn: refused since the start ")
            && said[1].ends_with(" ago: 1 webhook_signature_invalid → CLERK_WEBHOOK_SIGNING_SECRET, or `webhook_secret` of the issuer, must be the secret of this endpoint in the instance's dashboard; anybody may send what is not signed"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_whose_address_cannot_be_told_are_counted() {
    let issuer = Issuer::start().await;
    let mut service = healthy(&issuer).await;
    let few = "proxies info: of 19 callers since its start the service could tell the address of 0: too few to judge by";
    for _ in 0..19 {
        service
            .refuses("a stranger", "x", "subject_token_opaque")
            .await;
    }
    assert_eq!(Report::of(&service, &[]).lines("proxies"), [few]);
    service
        .refuses("a stranger", "x", "subject_token_opaque")
        .await;
    let next = "the others came from an internal address that is no configured proxy, or through one that names nobody, and are limited by their subject alone: EXCHEQUER_TRUSTED_PROXIES must name the proxies' networks, and these must append to X-Forwarded-For";
    assert_eq!(
        Report::of(&service, &[]).lines("proxies"),
        [format!(
            "proxies warn: of 20 callers since its start the service could tell the address of 0 → {next}"
        )]
    );
    service.set_env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.0/8");
    service.restart().await;
    let token = Token::clerk(&issuer.url).sign(Key::rsa());
    for _ in 0..20 {
        let request = service
            .client
            .post(format!("{}/auth/exchange", service.url))
            .header("content-type", "application/json")
            .header("x-forwarded-for", "203.0.113.9")
            .body(json!({ "session_token": token }).to_string());
        assert_eq!(service.send(request).await.status, 200);
    }
    assert_eq!(
        Report::of(&service, &[]).lines("proxies"),
        ["proxies ok: of 20 callers since its start the service could tell the address of 20"]
    );
    assert_eq!(
        Report::of(&service, &[("EXCHEQUER_RATE_LIMIT", "off")]).lines("proxies"),
        [""; 0]
    );
    for (networks, row) in [
        (
            "0.0.0.0/0",
            "proxies fail: 0.0.0.0/0: every caller is believed → whoever calls names an address of their choice, and no limit holds: EXCHEQUER_TRUSTED_PROXIES must be the proxies' own networks",
        ),
        (
            "10.0.0.0/8,52.0.0.0/6",
            "proxies warn: 52.0.0.0/6: that is a large part of the internet → EXCHEQUER_TRUSTED_PROXIES: the proxies' own networks",
        ),
    ] {
        let found =
            Report::of(&service, &[("EXCHEQUER_TRUSTED_PROXIES", networks)]).lines("proxies");
        assert_eq!(found[0], row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_with_who_shares_them() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    let of = |limit: &str| Report::of(&service, &[("EXCHEQUER_RATE_LIMIT", limit)]).lines("limits");
    assert_eq!(
        of("off"),
        ["limits info: rate limits are off → EXCHEQUER_RATE_LIMIT"]
    );
    assert_eq!(
        of("5/1h"),
        [
            "limits info: 5 in 3600 s for a subject, 50 in 3600 s for an address, counted by this process alone → with several replicas each grants the whole of it: EXCHEQUER_STORE=redis://… shares them"
        ]
    );
    let redis = Redis::start().await;
    let report = Report::of(&service, &[("EXCHEQUER_STORE", &redis.url())]);
    assert_eq!(
        report.lines("limits"),
        [
            "limits ok: 120 in 60 s for a subject, 1200 in 60 s for an address, shared by all replicas"
        ]
    );
    assert_eq!(report.lines("store"), [""; 0]);
    assert_eq!(redis.ask(&["DBSIZE"]), "0", "doctor changes nothing");
}

// Bounds.

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_hangs_holds_up_the_rest_and_no_secret_is_said() {
    let (issuer, front) = (Issuer::start().await, Issuer::start().await);
    for path in [JWKS, DISCOVERY, "/metrics", "/auth/exchange"] {
        front.behave(path, Behaviour::Stall);
    }
    let redis = Redis::with(&["--requirepass", "s3cret-of-redis"]).await;
    issuer.behave(JWKS, Behaviour::Stall);
    issuer.behave(DISCOVERY, Behaviour::Stall);
    for path in ["/v1/jwks", "/token", "/introspect"] {
        issuer.behave(path, Behaviour::Stall);
    }
    let dir = tempfile::tempdir().unwrap();
    let url = &issuer.url;
    std::fs::write(
        dir.path().join("exchequer.toml"),
        format!(
            "[issuers.one]\nissuer = {url:?}\nkind = \"clerk\"\nsecret_key = {{ env = \"KEY\" }}\napi_url = {url:?}\nauthorized_parties = \"https://a.example\"\n\
             [issuers.two]\nissuer = \"{url}/two\"\naudiences = \"x\"\n\
             [issuers.three]\nissuer = \"{url}/three\"\nkind = \"introspection\"\nintrospection_endpoint = \"{url}/introspect\"\nclient_id = \"c\"\nclient_secret = {{ env = \"KEY\" }}\naudiences = \"x\"\n\
             [providers.op]\nissuer = \"{url}/op\"\nclient_id = \"c\"\nclient_secret = {{ env = \"KEY\" }}\nauthorization_endpoint = \"{url}/authorize\"\ntoken_endpoint = \"{url}/token\"\n\
             [apps.web]\nissuers = [\"one\", \"two\", \"three\"]\nsubject = 'iss + \"|\" + sub'\n[apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = \"https://a.example/back\"\n"
        ),
    )
    .unwrap();
    redis.freeze();
    let address = url.trim_start_matches("http://");
    issuer.behave("/metrics", Behaviour::Stall);
    let began = Instant::now();
    let ended = Command::new(dir.path())
        .env("KEY", "sk_test_s3cret-of-clerk-0123456789-0123456789")
        .env("EXCHEQUER_ISSUER", &front.url)
        .env("EXCHEQUER_ADMIN_LISTEN", address)
        .env("EXCHEQUER_ALLOWED_ORIGINS", "https://a.example")
        .env("EXCHEQUER_KEYS_SECRET", SECRET)
        .env(
            "EXCHEQUER_STORE",
            format!("redis://:s3cret-of-redis@{}", redis.address()),
        )
        .run(&["doctor", "--json"]);
    redis.thaw();
    let text = format!("{}{}", ended.stdout, ended.stderr);
    for secret in ["s3cret", SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| row["status"] == "fail")
        .map(|row| {
            let name = row["name"]
                .as_str()
                .map_or(String::new(), |name| format!(" {name}"));
            format!("{}{name}", row["check"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        failed,
        [
            "issuer one",
            "secret_key one",
            "introspection three",
            "issuer two",
            "issuer provider op",
            "provider op",
            "keys",
            "redis",
            "public_url",
            "browsers"
        ],
        "{report:#}"
    );
    // One after the other they would take more than a minute; the bound is fifteen seconds.
    assert!(
        began.elapsed() < Duration::from_secs(45),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_told_and_holds_nothing_up() {
    let issuer = Issuer::start().await;
    let service = healthy(&issuer).await;
    // Whoever opens a pipe that nobody reads waits for ever, as on a network disk that is gone.
    let made = process::Command::new("mkfifo")
        .arg(service.dir().join("pipe.redb"))
        .status();
    assert!(made.unwrap().success());
    let began = Instant::now();
    let report = Report::of(&service, &[("EXCHEQUER_STORE", "pipe.redb")]);
    report.assert(
        "store",
        &["store fail: no end within N s → what it looks at hangs: a network disk, a name server, a firewall that drops packets"],
    );
    assert_eq!(
        report.lines("round_trip"),
        ["round_trip ok: a token signed with KID verifies with the published key set"]
    );
    // It ends without the thread that waits.
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_wrong_configuration_ends_with_2() {
    for arguments in [&["doctor"] as &[&str], &["doctor", "--json"]] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Command::new(dir.path()).run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
        assert!(
            ended
                .stderr
                .starts_with("error: CLERK_JWT_ISSUER: no app is configured")
        );
    }
}
