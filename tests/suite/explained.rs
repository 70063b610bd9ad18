//! `exchequer explain` of what this service itself gives out, and of session ids: it says what
//! the service would say, check by check, and what was not looked at.

use crate::support::token::encode;
use crate::support::{Issuer, Service, clerk, eventually, token};
use crate::webhooks;
use exchequer::standin::known;
use serde_json::{Value, json};

const CHECKS: [&str; 13] = [
    "form",
    "header",
    "issuer",
    "key",
    "algorithm",
    "signature",
    "claims",
    "app",
    "type",
    "audience",
    "expiry",
    "not_before",
    "revocation",
];

fn explain(service: &Service, input: &str, arguments: &[&str]) -> Value {
    let arguments = [&["explain", "--json"], arguments].concat();
    let ended = service.command().input(input).run(&arguments);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(ended.code == 0, said["code"].is_null(), "{ended:?}");
    assert!(!ended.stdout.contains(input), "it is not shown");
    said
}

/// The checks that ended so.
fn ended(said: &Value, outcome: &str) -> Vec<String> {
    let rungs = said["ladder"].as_array().unwrap().iter();
    let rungs = rungs.filter(|rung| rung["outcome"] == outcome);
    let names = rungs.map(|rung| rung["check"].as_str().unwrap().to_owned());
    names.collect()
}

fn notes(said: &Value) -> String {
    said["notes"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_ours_is_explained_as_a_gateway_would_be_answered() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .env("REPORTS_SECRET", "0123456789abcdef0123456789abcdef")
        .one_app(
            &issuer,
            "",
            "[clients.reports]\nsecret = { env = \"REPORTS_SECRET\" }\naudience = \"https://tasks.internal\"\n",
        )
        .start()
        .await;
    let answer = service
        .exchange(&json!({"session_token": issuer.token()}))
        .await;
    let app_token = answer.token().to_owned();
    let form = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .basic_auth("reports", Some("0123456789abcdef0123456789abcdef"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let answer = service.send(form).await;
    let service_token = answer.body["access_token"].as_str().unwrap().to_owned();

    // The running service has its store open.
    let said = explain(&service, &app_token, &[]);
    assert_eq!(said["accepted"], true, "{said}");
    assert_eq!(ended(&said, "passed"), CHECKS[..12]);
    assert_eq!(ended(&said, "not_reached"), ["revocation"]);
    assert!(
        notes(&said).contains("revocation was not looked at: "),
        "{said}"
    );
    assert!(
        notes(&said).contains("subject_token_is_app_token"),
        "{said}"
    );

    let mut claims = token::claims(&app_token);
    let header = token::header(&app_token);
    let forged = |claims: &Value, header: &Value| {
        let (_, signature) = app_token.rsplit_once('.').unwrap();
        let (header, claims) = (encode(header.to_string()), encode(claims.to_string()));
        format!("{header}.{claims}.{signature}")
    };
    claims["sub"] = "user_2".into();
    let changed = forged(&claims, &header);
    let mut other = header.clone();
    other["kid"] = "another".into();
    let unknown = forged(&claims, &other);
    for (text, arguments, code, check) in [
        (
            &app_token,
            &["--app", "other"][..],
            "app_token_app_mismatch",
            "app",
        ),
        (
            &app_token,
            &["--audience", "https://other.example"],
            "app_token_audience_mismatch",
            "audience",
        ),
        (&changed, &[], "app_token_signature_invalid", "signature"),
        (&unknown, &[], "app_token_key_unknown", "key"),
        (&service_token, &[], "service_token_not_taken", "app"),
    ] {
        let said = explain(&service, text, arguments);
        assert_eq!(said["code"], code, "{said}");
        assert_eq!(ended(&said, "failed"), [check], "{said}");
        let place = CHECKS.iter().position(|each| *each == check).unwrap();
        assert_eq!(ended(&said, "passed"), CHECKS[..place], "{said}");
    }
    let audience = ["--audience", "https://tasks.internal"];
    let said = explain(&service, &service_token, &audience);
    assert_eq!(said["accepted"], true, "{said}");
    // Its client may be registered: who was not asked is no full disk, and no refusal.
    let added = [
        "clients",
        "add",
        "later",
        "--audience",
        "https://tasks.internal",
        "--json",
    ];
    let added = service.command().run(&added);
    let added: Value = serde_json::from_str(&added.stdout).unwrap();
    let mut registered = String::new();
    eventually("the client is known", async || {
        let form = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .basic_auth("later", added["client_secret"].as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials");
        let answer = service.send(form).await;
        let token = answer.body["access_token"].as_str().unwrap_or_default();
        registered = token.to_owned();
        answer.status == 200
    })
    .await;
    let said = explain(&service, &registered, &audience);
    assert_eq!(said["code"], Value::Null, "{said}");
    assert_eq!(said["accepted"], Value::Null, "{said}");
    assert_eq!(ended(&said, "failed"), [""; 0], "{said}");
    assert!(
        notes(&said).contains("registered clients were not looked at: "),
        "{said}"
    );

    service.shift_clocks(700, 700);
    let said = explain(&service, &app_token, &[]);
    assert_eq!(said["code"], "app_token_expired", "{said}");
    assert_eq!(ended(&said, "failed"), ["expiry"]);
    service.shift_clocks(0, 0);

    // A stopped one's is looked at, and nothing is made where there is none.
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    let said = explain(&service, &app_token, &[]);
    assert_eq!(ended(&said, "passed"), CHECKS, "{said}");
    std::fs::remove_dir_all(service.dir().join("data")).unwrap();
    std::fs::remove_dir_all(service.dir().join("keys")).unwrap();
    let said = explain(&service, &app_token, &[]);
    assert_eq!(said["code"], "app_token_key_unknown", "{said}");
    assert!(notes(&said).contains("there is no key ring in "), "{said}");
    assert!(notes(&said).contains("there is no store at "), "{said}");
    assert!(!service.dir().join("data").exists());
    assert!(!service.dir().join("keys").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_id_is_explained_by_what_the_backend_api_says_and_not_used_up() {
    let clerk = clerk().await;
    let service = Service::builder().keyed(&clerk).start().await;
    clerk.world(|world| {
        world.add_session("sess_2ended", known::USER, "ended");
    });
    for _ in 0..2 {
        let said = explain(&service, known::SESSION, &[]);
        assert_eq!(said["accepted"], true, "{said}");
        assert!(notes(&said).contains("once, within two minutes"), "{said}");
    }
    for (id, code) in [
        ("sess_2ended", "session_ended"),
        ("sess_2nobody", "session_not_found"),
        ("sess_2/../x", "session_id_malformed"),
    ] {
        let said = explain(&service, id, &[]);
        assert_eq!(said["code"], code, "{said}");
    }
    let body = json!({"session_id": known::SESSION});
    assert_eq!(service.exchange(&body).await.status, 200);

    // Without the secret key nobody is asked, and it is said what is missing.
    let asked = clerk.calls().len();
    let without = Service::builder()
        .env("CLERK_JWT_ISSUER", clerk.issuer())
        .start()
        .await;
    let said = explain(&without, known::SESSION, &[]);
    assert_eq!(said["code"], "session_id_unsupported", "{said}");
    let api = |call: &&String| call.contains(" /v1/");
    assert_eq!(clerk.calls().iter().skip(asked).find(api), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_service_is_asked_whether_a_token_of_its_own_still_stands() {
    let issuer = Issuer::start().await;
    let app = "verify.pass_through = false\n[apps.other]\nissuers = [\"clerk\"]\naudience = \"https://other.internal\"\n";
    let service = Service::builder().one_app(&issuer, "", app).start().await;
    let body = json!({"session_token": issuer.token(), "app": "web"});
    let app_token = service.exchange(&body).await.token().to_owned();
    let explain = |listen: &str, arguments: &[&str]| -> Value {
        let arguments = [&["explain", "--json"], arguments].concat();
        let command = service.command().env("EXCHEQUER_LISTEN", listen);
        let ended = command.input(app_token.as_str()).run(&arguments);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
    };
    let listen = service.url.trim_start_matches("http://");
    let said = explain(listen, &[]);
    assert_eq!(said["accepted"], true, "{said}");
    assert_eq!(ended(&said, "passed"), CHECKS, "{said}");
    assert!(
        notes(&said).contains("revocation was asked of the running service"),
        "{said}"
    );
    assert!(notes(&said).contains("its key signs, since "), "{said}");

    let pairs = [("token", app_token.as_str()), ("client_id", "web")];
    let revoked =
        crate::introspection_endpoint::post(&service, "/oauth/revoke", None, &pairs).await;
    assert_eq!(revoked.status, 200);
    let said = explain(listen, &[]);
    assert_eq!(said["code"], "token_revoked", "{said}");
    assert_eq!(ended(&said, "failed"), ["revocation"]);

    // Somebody else's listener is not shown the token.
    let stranger = Service::trusting(&issuer).await;
    let said = explain(stranger.url.trim_start_matches("http://"), &[]);
    assert_eq!(said["accepted"], true, "{said}");
    assert_eq!(ended(&said, "not_reached"), ["revocation"]);
    assert!(
        notes(&said).contains("revocation was not looked at: "),
        "{said}"
    );

    // What is wrong is told with what would be right.
    for (arguments, code, next) in [
        (
            &["--audience", "http://localhost:8080/"][..],
            "app_token_audience_mismatch",
            "http://localhost:8080/ is nearly http://localhost:8080: a slash at the end makes the difference.",
        ),
        (
            &["--app", "other"],
            "app_token_app_mismatch",
            "It was minted for the app web: let the client send `\"app\": \"other\"` with its exchange",
        ),
    ] {
        let said = explain(listen, arguments);
        assert_eq!(said["code"], code, "{said}");
        assert!(
            said["next"]
                .to_string()
                .replace("\\\"", "\"")
                .contains(next),
            "{said}"
        );
    }
    let kid = token::header(&app_token)["kid"]
        .as_str()
        .unwrap()
        .to_owned();
    let ended = service.command().run(&["keys", "revoke", &kid]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let said = explain(listen, &[]);
    assert_eq!(said["code"], "app_token_key_unknown", "{said}");
    assert!(
        notes(&said).contains("its key was revoked here with `exchequer keys revoke`"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_remembers_is_told_where_it_can_be_read() {
    let issuer = Issuer::start().await;
    let mut service = Service::builder()
        .env("HOOKS", webhooks::SECRET)
        .one_app(&issuer, "webhook_secret = { env = \"HOOKS\" }", "")
        .start()
        .await;
    let said = explain(&service, &issuer.token(), &[]);
    assert_eq!(said["accepted"], true, "{said}");
    assert!(
        notes(&said).contains("revocation was not looked at: "),
        "{said}"
    );
    let event = webhooks::session_event("session.removed", "sess_1");
    let hook = webhooks::Hook::new("msg_1", &event).to("web");
    hook.taken(&service, "revoked").await;
    service.signal("TERM");
    assert_eq!(service.ended().await, Some(0));
    let said = explain(&service, &issuer.token(), &[]);
    assert_eq!(said["code"], "session_revoked", "{said}");
    assert_eq!(ended(&said, "failed"), ["revocation"]);
    assert_eq!(ended(&said, "not_reached"), ["condition", "scopes"]);
    assert_eq!(ended(&said, "passed").len(), 16);
}
