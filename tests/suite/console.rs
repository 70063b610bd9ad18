//! The console: who sees it, what it shows, and what becomes of what is pasted into it.

use crate::support::issuer::{self, Behaviour};
use crate::support::secrecy::leak;
use crate::support::service::{Answer, Builder};
use crate::support::wire::Wire;
use crate::support::{Command, Issuer, Key, Redis, Service, Token, clerk, eventually, now};
use exchequer::standin::known;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

const FILES: [(&str, &str); 13] = [
    ("/console", "text/html; charset=utf-8"),
    ("/console/style.css", "text/css; charset=utf-8"),
    ("/console/icon.svg", "image/svg+xml"),
    ("/console/main.js", JS),
    ("/console/dom.js", JS),
    ("/console/catalogue.js", JS),
    ("/console/issuers.js", JS),
    ("/console/keys.js", JS),
    ("/console/service.js", JS),
    ("/console/requests.js", JS),
    ("/console/refusals.js", JS),
    ("/console/explain.js", JS),
    ("/console/data", "application/json"),
];
const JS: &str = "text/javascript; charset=utf-8";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn assert_guarded(answer: &Answer) {
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert!(!answer.headers.contains_key("set-cookie"));
}

/// Gets a path of the admin listener with these headers.
async fn get(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = service.client.get(format!("{}{path}", service.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.send(request).await
}

async fn data(service: &Service) -> Value {
    let answer = service.admin("/console/data").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_guarded(&answer);
    for line in answer.body.to_string().split(',') {
        assert_eq!(leak(line), None, "{line}");
    }
    answer.body
}

async fn explain(service: &Service, body: &Value) -> Answer {
    let request = service
        .client
        .post(format!("{}/console/explain", service.admin))
        .header("content-type", "application/json")
        .body(body.to_string());
    service.send(request).await
}

async fn explained(service: &Service, text: &str) -> Value {
    let answer = explain(service, &json!({ "text": text })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_guarded(&answer);
    let said = answer.body.to_string();
    assert!(text.len() < 16 || !said.contains(text), "{said}");
    answer.body
}

/// What is said, without how long ago a key set was fetched: by the service before, by the command
/// for this.
fn steady(mut said: Value) -> Value {
    for rung in said["ladder"].as_array_mut().unwrap() {
        let expected = rung["expected"].as_str().unwrap_or_default();
        if let Some((key, _)) = expected.split_once(" (fetched ") {
            rung["expected"] = key.into();
        }
    }
    said
}

/// What the box says of a text. Between two equal answers of it the command says the same: what
/// counts seconds changes.
async fn as_commanded(service: &Service, text: &str, app: &str, audience: &str) -> Value {
    let body = json!({"text": text, "app": app, "audience": audience});
    let options = [["--app", app], ["--audience", audience]];
    let options = options.iter().filter(|[_, value]| !value.is_empty());
    let arguments = [
        &["explain", "--json"],
        options.flatten().copied().collect::<Vec<_>>().as_slice(),
    ]
    .concat();
    let boxed = async || {
        let answer = explain(service, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_guarded(&answer);
        let said = answer.body.to_string();
        assert!(text.len() < 16 || !said.contains(text), "{said}");
        steady(answer.body)
    };
    for _ in 0..20 {
        let before = boxed().await;
        let ended = service.command().input(text).run(&arguments);
        if boxed().await == before {
            let told = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
            assert_eq!(before, steady(told), "{text}");
            return before;
        }
    }
    panic!("it says something else each second: {text}");
}

fn ended(said: &Value, outcome: &str) -> Vec<String> {
    let rungs = said["ladder"].as_array().unwrap().iter();
    let rungs = rungs.filter(|rung| rung["outcome"] == outcome);
    rungs
        .map(|rung| rung["check"].as_str().unwrap().to_owned())
        .collect()
}

fn open_to_all() -> Builder {
    Service::builder().env("EXCHEQUER_ADMIN_LISTEN", "0.0.0.0:0")
}

#[tokio::test]
async fn the_page_is_whole_asks_nobody_else_and_has_no_code_inside() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let root = service.admin("/").await;
    assert_eq!((root.status, root.header("location")), (302, "/console"));
    for (path, kind) in FILES {
        let answer = service.admin(path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, kind),
            "{path}"
        );
        assert_guarded(&answer);
        let Value::String(text) = answer.body else {
            continue;
        };
        let bare = text.replace("http://www.w3.org/2000/svg", "");
        for word in [
            "http://",
            "https://",
            "//cdn",
            "innerHTML",
            "eval(",
            "onclick",
        ] {
            assert!(!bare.contains(word), "{path}: {word}");
        }
        if kind == "text/html; charset=utf-8" {
            assert!(!text.contains(" style="), "a style inside");
            let scripts = text.matches("<script").count();
            assert_eq!(
                (scripts, text.matches("></script>").count()),
                (1, 1),
                "a script inside"
            );
        }
        // Whatever a file names is there.
        for part in text.split(['"', '\'']) {
            let named = part
                .strip_prefix("./")
                .map(|name| format!("/console/{name}"));
            let named = named.or_else(|| part.starts_with("/console/").then(|| part.to_owned()));
            if let Some(named) = named {
                let (named, _) = named.split_once('?').unwrap_or((&named, ""));
                let known = FILES.iter().any(|(path, _)| *path == named)
                    || ["/console/catalogue", "/console/explain"].contains(&named);
                assert!(known, "{path} names {named}");
            }
        }
    }
    for path in ["/console/", "/console/main.js/", "/console/nothing.js"] {
        let answer = service.admin(path).await;
        answer.assert_refused(404, "not_found");
        assert_guarded(&answer);
    }
    let answer = get(&service, "/console/explain", &[]).await;
    answer.assert_refused(405, "method_not_allowed");
    for path in ["/console", "/console/data"] {
        let answer = service.get(path).await;
        answer.assert_refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_fresh_service_has_a_ring_an_issuer_and_no_history() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    eventually("the key set is there", async || {
        data(&service).await["issuers"][0]["key_set"]["keys"] == 1
    })
    .await;
    let mut data = data(&service).await;
    let now = data["now"].as_i64().unwrap();
    let algorithm = data["keys"]["algorithms"][0].take();
    let [active, next] = ["active", "next"].map(|state| {
        let keys = algorithm["keys"].as_array().unwrap().iter();
        let mut keys = keys.filter(|key| key["state"] == state);
        keys.next().unwrap().clone()
    });
    let at = active["published_at"].as_i64().unwrap();
    assert!((now - 60..=now).contains(&at));
    let (day, rotation) = (86_400, at + 90 * 86_400);
    assert_eq!(
        [
            &active["signs_at"],
            &active["retires_at"],
            &active["gone_at"]
        ],
        [&json!(at), &json!(rotation), &json!(rotation + day)]
    );
    assert_eq!(
        [&next["signs_at"], &next["retires_at"], &next["gone_at"]],
        [&json!(rotation), &Value::Null, &Value::Null]
    );
    assert_eq!(
        algorithm["events"],
        json!([
            {"at": rotation, "what": "retires", "kid": active["kid"]},
            {"at": rotation, "what": "signs", "kid": next["kid"]},
            {"at": rotation + day, "what": "gone", "kid": active["kid"]},
        ])
    );
    let age = data["issuers"][0]["key_set"]["age"].take();
    assert!((0.0..60.0).contains(&age.as_f64().unwrap()));
    assert_eq!(
        data["issuers"],
        json!([{
            "name": issuer.url.replace("http://", "").replace(':', "-"), "issuer": issuer.url, "kind": "clerk", "apps": ["default"],
            "key_set": {"configured": false, "keys": 1, "age": null, "failures": 0, "failed": null},
        }])
    );
    let history = &data["history"];
    assert_eq!(
        (&history["minutes"], &history["series"], &history["codes"]),
        (&json!(180), &json!([]), &json!([]))
    );
    assert_eq!(data["refusals"], json!({"count": 0, "list": []}));
    assert_eq!(data["service"]["issuer"], "http://localhost:8080");
    assert_eq!(data["service"]["ready"], true);
}

#[tokio::test]
async fn refusals_are_shown_as_the_log_has_them_and_their_subject_under_its_pseudonym() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "condition = 'claims.tier == \"gold\"'")
        .start()
        .await;
    let token = |tier: &str| {
        let token = Token::clerk(&issuer.url).claim("tier", tier);
        token.sign(Key::rsa())
    };
    assert_eq!(service.session(&token("gold")).await.status, 200);
    let denied = service.session(&token("tin")).await;
    assert_eq!(denied.status, 403, "{}", denied.body);
    let code = denied.body["code"].as_str().unwrap();
    service
        .refuses(
            "an unknown issuer",
            &Token::clerk("https://x.example").sign(Key::rsa()),
            "subject_token_issuer_untrusted",
        )
        .await;

    let shown = data(&service).await["refusals"].clone();
    assert_eq!(shown["count"], 2);
    let [first, second] = [&shown["list"][0], &shown["list"][1]];
    assert_eq!(
        (
            &first["number"],
            &first["code"],
            &first["status"],
            &first["check"]
        ),
        (&json!(1), &json!(code), &json!(403), &json!("condition"))
    );
    assert_eq!(
        (
            &first["app"],
            &first["issuer"],
            &first["verified"],
            &first["route"]
        ),
        (
            &json!("web"),
            &json!(issuer.url),
            &json!(true),
            &json!("exchange")
        )
    );
    assert_eq!(first["request_id"], denied.body["request_id"]);
    // The same user has the same name in the log.
    let logged = &service.logged("exchanged")[0];
    assert_eq!(first["subject"], logged["subject"]);
    assert!(first["subject"].is_string());
    let line = service
        .logged("refused")
        .into_iter()
        .find(|line| line["request_id"] == first["request_id"])
        .unwrap();
    for member in [
        "code", "check", "seen", "expected", "cause", "route", "status",
    ] {
        assert_eq!(first[member], line[member], "{member}");
    }
    assert_eq!(
        (&second["issuer"], &second["verified"], &second["subject"]),
        (&json!("https://x.example"), &json!(false), &Value::Null)
    );
    let newer = service.admin("/console/data?after=1").await.body["refusals"].clone();
    assert_eq!(newer, json!({"count": 2, "list": [second]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_of_many_refusals_are_kept_and_all_are_counted() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let long = format!("https://{}.example", "x".repeat(400));
    let untrusted = Token::clerk(&long).sign(Key::rsa());
    for _ in 0..30 {
        let all = (0..10).map(|_| service.session(&untrusted));
        join_all(all).await;
    }
    let answer = service.admin("/console/data").await;
    let refusals = &answer.body["refusals"];
    assert_eq!(refusals["count"], 300);
    let list = refusals["list"].as_array().unwrap();
    assert_eq!(list.len(), 200);
    let numbers: Vec<u64> = list
        .iter()
        .map(|refused| refused["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (101..=300).collect::<Vec<_>>());
    for refused in list {
        for text in refused.as_object().unwrap().values() {
            assert!(text.as_str().unwrap_or_default().chars().count() <= 300);
        }
    }
    assert_eq!(
        answer.body["history"]["codes"],
        json!([{"code": "subject_token_issuer_untrusted", "status": 401, "recent": 300, "total": 300}])
    );
}

#[tokio::test]
async fn what_an_overloaded_service_turns_away_is_counted_and_not_listed() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_MAX_CONCURRENCY", "1")
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    issuer.publish(vec![Key::rsa().jwk("ins_1"), Key::rsa().jwk("ins_2")]);
    issuer.behave(issuer::JWKS, Behaviour::Late(Duration::from_secs(2)));
    let mut token = Token::clerk(&issuer.url);
    token.header["kid"] = json!("ins_2");
    let body = json!({"session_token": token.sign(Key::rsa())}).to_string();
    let request = format!(
        "POST /auth/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut wire = Wire::to(&service.url).await;
    wire.send(&request).await;
    eventually("the place is taken", async || {
        service.metric("exchequer_requests_at_work").await == Some(1.0)
    })
    .await;
    let turned_away = service.session(&issuer.token()).await;
    turned_away.assert_refused(503, "overloaded");
    let data = data(&service).await;
    assert_eq!(data["refusals"], json!({"count": 0, "list": []}));
    assert_eq!(
        data["history"]["codes"],
        json!([{"code": "overloaded", "status": 503, "recent": 1, "total": 1}])
    );
    let series = data["history"]["series"].as_array().unwrap();
    let shed = series.iter().find(|series| series["outcome"] == "shed");
    let counts = shed.unwrap()["counts"].as_array().unwrap();
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 1);
}

#[tokio::test]
async fn each_minute_has_its_requests_and_three_hours_later_they_are_gone() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let refused = async || {
        let data = data(&service).await;
        let series = data["history"]["series"].as_array().unwrap().clone();
        let mut series = series.into_iter();
        let found = series.find(|each| each["route"] == "exchange" && each["outcome"] == "refused");
        let counts = found.map(|found| found["counts"].as_array().unwrap().clone());
        let counts = counts.unwrap_or_default();
        let numbers = counts.iter().filter_map(Value::as_u64);
        numbers.filter(|count| *count > 0).collect::<Vec<_>>()
    };
    let refuse = async || assert_eq!(service.session("nonsense").await.status, 401);
    refuse().await;
    refuse().await;
    assert_eq!(refused().await, [2]);
    service.shift_clocks(120, 0);
    refuse().await;
    assert_eq!(refused().await, [2, 1]);
    service.shift_clocks(120 + 3 * 3600, 0);
    assert_eq!(refused().await, [] as [u64; 0]);
    let codes = data(&service).await["history"]["codes"].clone();
    assert_eq!(
        (&codes[0]["recent"], &codes[0]["total"]),
        (&json!(0), &json!(3))
    );
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_shown_by_code_and_without_its_address() {
    let issuer = Issuer::start().await;
    issuer.behave(issuer::JWKS, Behaviour::Answer(500, "no".to_owned()));
    let service = Service::trusting(&issuer).await;
    let key_set = async || data(&service).await["issuers"][0]["key_set"].clone();
    eventually("a fetch has failed", async || {
        key_set().await["failures"].as_u64() > Some(0)
    })
    .await;
    let failing = key_set().await;
    assert_eq!(failing["age"], Value::Null);
    assert_eq!(failing["failed"]["code"], "issuer_keys_unavailable");
    assert_eq!(failing["failed"]["cause"], "key set: it answered 500");
    issuer.behave(issuer::JWKS, Behaviour::Well);
    eventually("it is well again", async || {
        key_set().await["failures"] == 0
    })
    .await;
    let well = key_set().await;
    assert_eq!(
        (&well["keys"], &well["failed"]["code"]),
        (&json!(1), &json!("issuer_keys_unavailable"))
    );
    assert!(well["age"].is_number() && well["failed"]["age"].is_number());
}

#[tokio::test]
async fn without_a_token_only_this_machine_sees_it_and_only_its_own_page_its_data() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let port = service.admin.rsplit_once(':').unwrap().1.to_owned();
    let ours = format!("http://localhost:{port}");
    let local = format!("localhost:{port}");
    let here = service.admin.strip_prefix("http://").unwrap().to_owned();
    // A name of somebody else's that leads here, and a proxy on this machine.
    for header in [
        ("host", "attacker.example"),
        ("host", "localhost.attacker.example"),
        ("host", "10.0.0.1:9090"),
        ("x-forwarded-for", "203.0.113.1"),
        ("forwarded", "for=203.0.113.1"),
        ("via", "1.1 proxy"),
        ("x-real-ip", "203.0.113.1"),
    ] {
        for path in [
            "/",
            "/console",
            "/console/main.js",
            "/console/data",
            "/console/catalogue",
        ] {
            let answer = get(&service, path, &[header]).await;
            answer.assert_refused(403, "console_not_local");
        }
        let request = service
            .client
            .post(format!("{}/console/explain", service.admin))
            .header("content-type", "application/json")
            .header(header.0, header.1)
            .body(r#"{"text":"x"}"#);
        let answer = service.send(request).await;
        answer.assert_refused(403, "console_not_local");
        assert_eq!(get(&service, "/metrics", &[header]).await.status, 200);
    }
    // A link of another site may lead to the page; another site's page has nothing of its data.
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://attacker.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:1")],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://attacker.example"),
        ],
    ] {
        assert_eq!(get(&service, "/console", headers).await.status, 200);
        for path in ["/console/data", "/console/catalogue"] {
            let answer = get(&service, path, headers).await;
            answer.assert_refused(403, "console_not_local");
            assert_guarded(&answer);
        }
    }
    for headers in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("sec-fetch-site", "none")],
        &[("host", local.as_str()), ("origin", ours.as_str())],
        &[
            ("host", "app.localhost"),
            ("origin", "http://app.localhost"),
        ],
        &[("host", "[::1]:9090")],
        &[("host", here.as_str())],
    ] {
        let answer = get(&service, "/console/data", headers).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn elsewhere_than_on_loopback_it_is_off_or_asks_for_a_token() {
    let issuer = Issuer::start().await;
    let off = [
        open_to_all().env("EXCHEQUER_STORE", "memory"),
        Service::builder().env("EXCHEQUER_CONSOLE", "off"),
        open_to_all()
            .env("EXCHEQUER_CONSOLE", "off")
            .env("EXCHEQUER_CONSOLE_TOKEN", TOKEN),
    ];
    for builder in off {
        let service = builder.env("CLERK_JWT_ISSUER", &issuer.url).start().await;
        for path in ["/console", "/console/style.css", "/console/data"] {
            let answer = service.admin(path).await;
            answer.assert_refused(404, "console_off");
        }
        service.admin("/").await.assert_refused(404, "not_found");
        assert_eq!(service.admin("/livez").await.status, 200);
    }

    // The file beside the store has one, else the variable, which counts on loopback too.
    let by_file = open_to_all();
    let by_variable = open_to_all()
        .env("EXCHEQUER_STORE", "memory")
        .env("EXCHEQUER_CONSOLE_TOKEN", TOKEN);
    let on_loopback = Service::builder().env("EXCHEQUER_CONSOLE_TOKEN", TOKEN);
    for builder in [by_file, by_variable, on_loopback] {
        let service = builder.env("CLERK_JWT_ISSUER", &issuer.url).start().await;
        let written = std::fs::read_to_string(service.dir().join("data/exchequer.redb.admin"));
        let written: Value = serde_json::from_str(&written.unwrap_or_default()).unwrap_or_default();
        let by_variable = service.admin("/console/data").await;
        by_variable.assert_refused(401, "console_token_invalid");
        let file = written["token"].as_str().unwrap_or(TOKEN);
        let with = async |token: &str| {
            let bearer = format!("Bearer {token}");
            get(&service, "/console/data", &[("authorization", &bearer)]).await
        };
        let [of_file, of_variable] = [with(file).await.status, with(TOKEN).await.status];
        assert!(
            of_file == 200 || of_variable == 200,
            "{of_file} {of_variable}"
        );
        // What protects it is the token: the page may be asked for by any name.
        let page = get(&service, "/console", &[("host", "console.example")]).await;
        assert_eq!(page.status, 200);
        for path in ["/console/data", "/console/catalogue"] {
            let answer = get(&service, path, &[("host", "console.example")]).await;
            answer.assert_refused(401, "console_token_invalid");
        }
        let answer = explain(&service, &json!({"text": "x"})).await;
        answer.assert_refused(401, "console_token_invalid");
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(service.admin(path).await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_wrong_token_may_be_tried_ten_times_a_minute_and_no_other_site_may_use_a_right_one() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_CONSOLE_TOKEN", TOKEN)
        .start()
        .await;
    let with = async |authorization: &str| {
        get(
            &service,
            "/console/data",
            &[("authorization", authorization)],
        )
        .await
    };
    let right = format!("Bearer {TOKEN}");
    assert_eq!(with(&right).await.status, 200);
    let other = [
        ("authorization", right.as_str()),
        ("origin", "https://attacker.example"),
    ];
    let answer = get(&service, "/console/data", &other).await;
    answer.assert_refused(403, "console_not_local");
    // What is no token was not tried.
    for authorization in ["Basic eDp5", "Bearer", "DPoP x", "x"] {
        with(authorization)
            .await
            .assert_refused(401, "console_token_invalid");
    }
    for _ in 0..10 {
        let wrong = with("Bearer 0123456789abcdef0123456789abcdeF").await;
        wrong.assert_refused(401, "console_token_invalid");
    }
    let tried = with("Bearer another").await;
    tried.assert_refused(429, "console_tried_too_often");
    let wait: i64 = tried.header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    with(&right)
        .await
        .assert_refused(429, "console_tried_too_often");
    service.shift_clocks(0, 61);
    assert_eq!(with(&right).await.status, 200);
}

#[tokio::test]
async fn a_short_token_ends_the_start_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", "https://clerk.example.com")
        .env("EXCHEQUER_CONSOLE_TOKEN", "short-and-secret")
        .run(&["check"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("EXCHEQUER_CONSOLE_TOKEN"), "{said}");
    assert!(!said.contains("short-and-secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_token_is_explained_as_the_command_does_and_nothing_comes_of_it() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("EXCHEQUER_RATE_LIMIT", "2/1m")
        .one_app(&issuer, "", "")
        .start()
        .await;
    let good = issuer.token();
    let expired = Token::clerk(&issuer.url)
        .claim("iat", 1_700_000_000)
        .claim("nbf", 1_700_000_000)
        .claim("exp", 1_700_000_060)
        .sign(Key::rsa());
    let forged = Token::clerk(&issuer.url).sign(Key::other_rsa());
    // It asks for no limit: it says the same a hundred times.
    for _ in 0..20 {
        let said = explained(&service, &format!("\n {good} ")).await;
        assert_eq!(said["accepted"], true, "{said}");
        assert_eq!(ended(&said, "passed").len(), 19, "{said}");
    }
    for (token, code, check) in [
        (&expired, "subject_token_expired", "expiry"),
        (&forged, "subject_token_signature_invalid", "signature"),
    ] {
        let said = as_commanded(&service, token, "", "").await;
        assert_eq!(
            (&said["accepted"], &said["code"]),
            (&json!(false), &json!(code))
        );
        assert_eq!(ended(&said, "failed"), [check]);
    }
    // No limit was taken from, and no refusal is on record.
    let exchanged = service.session(&good).await;
    assert_eq!(exchanged.status, 200, "{}", exchanged.body);
    assert_eq!(data(&service).await["refusals"]["count"], 0);

    // What was minted is judged as a gateway would be told, revocation included.
    let said = explained(&service, exchanged.token()).await;
    assert_eq!(said["accepted"], true, "{said}");
    assert_eq!(ended(&said, "passed").last().unwrap(), "revocation");
    let said = explain(
        &service,
        &json!({"text": exchanged.token(), "audience": "https://other.example", "app": ""}),
    )
    .await;
    assert_eq!(said.body["code"], "app_token_audience_mismatch");
    let said = explain(&service, &json!({"text": good, "app": "other"})).await;
    assert_eq!(said.body["code"], "app_unknown", "{}", said.body);

    // It is in no line of the log.
    let log = service.log().concat();
    for part in good.split('.').chain(expired.split('.')) {
        assert!(!log.contains(part));
    }
    assert!(!log.contains("/console"));
}

/// Two issuers at one address, and a production instance that cannot be reached; the store and
/// the ring are in a Redis, where the command can look at them too.
fn many(issuer: &Issuer, redis: &Redis) -> Builder {
    Service::builder()
        .config(&format!(
            r#"[issuers.main]
issuer = "{url}"
kind = "clerk"
audiences = ["web"]
[issuers.tv]
issuer = "{url}"
kind = "clerk"
audiences = ["tv"]
[issuers.public]
issuer = "https://clerk.example.com"
kind = "clerk"
[apps.web]
issuers = ["main", "public"]
[apps.tv]
issuers = ["tv"]
"#,
            url = issuer.url
        ))
        .env("EXCHEQUER_STORE", format!("{}?deadline=2s", redis.url()))
        .env(
            "EXCHEQUER_KEYS_SECRET",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_box_says_word_for_word_what_the_command_says() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let service = many(&issuer, &redis).start().await;
    let of = |audience: &str| Token::clerk(&issuer.url).claim("aud", audience);
    let good = of("web").sign(Key::rsa());
    let body = json!({"session_token": good, "app": "web"});
    let ours = service.exchange(&body).await.token().to_owned();
    let revoked = service.exchange(&body).await.token().to_owned();
    let pairs = [("token", revoked.as_str()), ("client_id", "web")];
    let answer = crate::introspection_endpoint::post(&service, "/oauth/revoke", None, &pairs).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = service.session("nonsense").await.body.to_string();
    let sign = |token: Token| token.sign(Key::rsa());
    let kept = of("web")
        .claim("iat", now() - 600)
        .claim("nbf", now() - 600)
        .claim("exp", now() - 540);
    let assertion = sign(
        Token::clerk("reports")
            .claim("sub", "reports")
            .claim("aud", "http://localhost:8080"),
    );
    let cases: [[&str; 5]; 24] = [
        [&good, "web", "", "", "exp "],
        [
            &good,
            "",
            "",
            "app_required",
            "These apps would take it: tv, web",
        ],
        [&good, "wbe", "", "app_unknown", "did you mean web?"],
        [
            &good,
            "web",
            "https://x.example",
            "audience_not_allowed",
            "`[apps.web] audience`",
        ],
        [
            &sign(of("web/")),
            "web",
            "",
            "subject_token_audience_mismatch",
            "web/ is nearly web: a slash at the end makes the difference.",
        ],
        [
            &sign(of("tv")),
            "web",
            "",
            "subject_token_audience_mismatch",
            "Another app takes this very token",
        ],
        [
            &sign(of("web").without("aud")),
            "web",
            "",
            "subject_token_audience_missing",
            "`[issuers.main] audiences` (exchequer.toml:4)",
        ],
        [
            &sign(of("web").claim("iss", "https://wise-dog-9.clerk.accounts.dev")),
            "web",
            "",
            "subject_token_issuer_untrusted",
            "`pk_live_…` key of the production instance (Clerk → API keys)",
        ],
        [
            &sign(kept),
            "web",
            "",
            "subject_token_expired",
            "It lived 60 s, and ended ",
        ],
        [
            &of("web").sign(Key::other_rsa()),
            "web",
            "",
            "subject_token_signature_invalid",
            "key set asked anew: ins_1",
        ],
        [
            &sign(of("web").header("kid", "ins_2")),
            "web",
            "",
            "subject_token_key_unknown",
            "the same issuer's key ins_1 verifies it",
        ],
        [&ours, "", "", "", "its key signs, since 0 h"],
        [
            &ours,
            "",
            "http://localhost:8080/",
            "app_token_audience_mismatch",
            "http://localhost:8080/ is nearly http://localhost:8080",
        ],
        [
            &ours,
            "tv",
            "",
            "app_token_app_mismatch",
            "It was minted for the app web",
        ],
        [&revoked, "", "", "token_revoked", "revoked"],
        [
            "sess_0123456789abcdef",
            "",
            "",
            "session_id_unsupported",
            "this is a session id",
        ],
        [
            "sess_2/../x",
            "",
            "",
            "session_id_malformed",
            "this is a session id",
        ],
        [
            "jwt.exceptions.InvalidAudienceError: Audience doesn't match",
            "",
            "",
            "",
            "your-backend",
        ],
        [
            &refused,
            "",
            "",
            "subject_token_opaque",
            "written by Exchequer",
        ],
        [
            "ert_0123456789",
            "",
            "",
            "subject_token_is_refresh_token",
            "refresh token",
        ],
        [&assertion, "", "", "client_unknown", "client assertion"],
        [
            "sk_test_0123456789abcdefghijklmnop",
            "",
            "",
            "",
            "Replace it now",
        ],
        ["some words", "", "", "", "nothing in it is known"],
        [
            &format!("Authorization: Bearer {good}"),
            "web",
            "",
            "",
            "as pasted, it has ",
        ],
    ];
    let mut others = Vec::new();
    for [text, app, audience, code, words] in cases {
        let said = as_commanded(&service, text, app, audience).await;
        let shown = said.to_string().replace("\\\"", "\"");
        if said["code"].as_str().unwrap_or_default() != code || !shown.contains(words) {
            others.push(format!("not {code} with {words}: {said:#}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_session_id_the_box_says_who_would_be_asked_and_asks_nobody() {
    let clerk = clerk().await;
    let service = Service::builder().keyed(&clerk).start().await;
    let asked = clerk.calls().len();
    let said = explained(&service, known::SESSION).await;
    assert_eq!(
        (&said["kind"], &said["accepted"], &said["code"]),
        (&json!("session_id"), &Value::Null, &Value::Null)
    );
    let verdict = said["verdict"].as_str().unwrap();
    let asking = "nobody was asked: the app default would ask the Backend API of the issuer ";
    assert!(verdict.starts_with(asking), "{verdict}");
    assert!(
        said["notes"].to_string().contains("was not exchanged yet"),
        "{said}"
    );
    let said = explained(&service, "sess_2/../x").await;
    assert_eq!(said["code"], "session_id_malformed");
    let api = |call: &&String| call.contains(" /v1/");
    assert_eq!(clerk.calls().iter().skip(asked).find(api), None);

    // What was used up is known here.
    let body = json!({"session_id": known::SESSION});
    assert_eq!(service.exchange(&body).await.status, 200);
    let said = explained(&service, known::SESSION).await;
    assert_eq!(
        (&said["accepted"], &said["code"]),
        (&json!(false), &json!("session_id_used"))
    );
}

#[tokio::test]
async fn what_is_no_question_is_refused_without_being_quoted() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let send = async |kind: &str, body: String| {
        let request = service
            .client
            .post(format!("{}/console/explain", service.admin))
            .header("content-type", kind)
            .body(body);
        service.send(request).await
    };
    let json = "application/json";
    for body in [
        "\"eyJsecret.secret\"".to_owned(),
        r#"{"text":["eyJsecret"]}"#.to_owned(),
        r#"{"text":"x","eyJsecret":1}"#.to_owned(),
        r#"{"text":"x","text":"eyJsecret"}"#.to_owned(),
        "{}".to_owned(),
        "eyJsecret".to_owned(),
    ] {
        let answer = send(json, body).await;
        answer.assert_refused(400, "body_malformed");
        assert!(!answer.body.to_string().contains("eyJsecret"));
    }
    send(json, r#"{"text":" \n "}"#.to_owned())
        .await
        .assert_refused(400, "parameter_malformed");
    send("text/plain", r#"{"text":"x"}"#.to_owned())
        .await
        .assert_refused(415, "content_type_unsupported");
    send(json, format!(r#"{{"text":"{}"}}"#, "x".repeat(70_000)))
        .await
        .assert_refused(413, "body_too_large");
}

#[tokio::test]
async fn the_catalogue_is_whole() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let answer = service.admin("/console/catalogue").await;
    assert_eq!(answer.status, 200);
    assert_guarded(&answer);
    let entries = answer.body.as_array().unwrap();
    let page = include_str!("../../docs/errors.md");
    assert_eq!(entries.len(), page.matches("\n## ").count());
    for entry in entries {
        for member in ["code", "sentence", "cause", "confirm", "mend", "action"] {
            assert!(!entry[member].as_str().unwrap().is_empty(), "{entry}");
        }
        assert!(page.contains(entry["mend"].as_str().unwrap()), "{entry}");
    }
}
