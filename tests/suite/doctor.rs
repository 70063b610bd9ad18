//! What `exchequer doctor` sees of a live setting, and what it says to do: whole rows.

use crate::support::issuer::{DISCOVERY, JWKS};
use crate::support::{Behaviour, Command, Issuer, Key, Redis, Service, Token};
use crate::webhooks::{Hook, SECRET as WEBHOOK_SECRET, session_event};
use serde_json::{Value, json};
use std::process;
use std::time::{Duration, Instant};

const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";

/// A service with everything set, whose issuer is where it listens.
pub async fn healthy(issuer: &Issuer) -> Service {
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
pub struct Report {
    pub code: i32,
    pub rows: Vec<Value>,
    pub names: Vec<(String, &'static str)>,
}

impl Report {
    /// Runs doctor as JSON with the service's configuration; its public URL is the service's.
    pub fn of(service: &Service, variables: &[(&str, &str)]) -> Self {
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

    pub fn from(command: Command, names: Vec<(String, &'static str)>) -> Self {
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
    pub fn calling(mut self, what: &str, name: &'static str) -> Self {
        self.names
            .push((what.trim_start_matches("http://").to_owned(), name));
        self
    }

    /// The rows of a check, a line each; all of them where none is named.
    pub fn lines(&self, check: &str) -> Vec<String> {
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
    pub fn assert(&self, check: &str, expected: &[&str]) {
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
pub fn steady(line: &str) -> String {
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
pub fn answer(status: &str, headers: &[&str], body: &str) -> Behaviour {
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
pub const OURS: [&str; 4] = [
    "content-type: application/json",
    "cache-control: public, max-age=300",
    "access-control-allow-origin: *",
    "etag: \"1\"",
];

/// A front that serves what the service does, as a proxy before it would.
pub async fn front(service: &Service) -> Issuer {
    let front = Issuer::start().await;
    let jwks = service.get(JWKS).await.body.to_string();
    front.behave(JWKS, answer("200 OK", &OURS, &jwks));
    front.behave(DISCOVERY, answer("200 OK", &OURS, &metadata(&front.url)));
    front
}

pub fn metadata(issuer: &str) -> String {
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
    let next = "→ EXCHEQUER_KEYS_SECRET must be the secret that sealed the ring: take it from a replica that runs, or from its copy; where it is lost, start anew (keys/README.md)   signing_key_unavailable";
    assert!(sealed.len() == 1 && sealed[0].ends_with(next), "{sealed:?}");
    let nowhere = [("EXCHEQUER_STORE", "redis://127.0.0.1:1")];
    let away = Report::of(&service, &nowhere).lines("keys");
    let next = "→ the ring is in Redis: mend what the row `redis` says   signing_key_unavailable";
    assert!(away.len() == 1 && away[0].ends_with(next), "{away:?}");
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
