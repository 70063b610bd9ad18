//! Tokens that only their issuer can read: asked about where the configuration says so and
//! nowhere else, believed only when plainly called active, remembered for a moment.

use crate::support::{Answer, Behaviour, Command, Issuer, Key, Service, Token, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exchequer::clock::Clock;
use exchequer::standin::{Fault, Session, StandIn, TokenKind};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Whatever takes longer hangs.
const GUARD: Duration = Duration::from_secs(15);
const INTROSPECT: &str = "/introspect";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const RFC_8414: &str = "/.well-known/oauth-authorization-server";
const BY_SECRET_KEY: &str = "secret_key = { env = \"SECRET_KEY\" }";
const BY_CLIENT: &str =
    "client_id = { env = \"CLIENT\" }\nclient_secret = { env = \"CLIENT_SECRET\" }";

async fn standin() -> Arc<StandIn> {
    StandIn::start(Clock::system()).await.unwrap()
}

/// The file's section for a stand-in.
fn section(name: &str, standin: &StandIn, lines: &str) -> String {
    let (url, client) = (standin.issuer(), standin.oauth_client().0);
    let lines = lines.replace("{ env = \"CLIENT\" }", &format!("{client:?}"));
    format!(
        "[issuers.{name}]\nissuer = \"{url}\"\napi_url = \"{url}\"\nkind = \"clerk\"\n{lines}\n"
    )
}

/// A service whose one app, `web`, trusts the stand-in by these settings.
async fn service(standin: &StandIn, issuer: &str, app: &str) -> Service {
    let issuer = section("clerk", standin, issuer);
    Service::builder()
        .config(&format!("{issuer}[apps.web]\nissuers = \"clerk\"\n{app}\n"))
        .env("SECRET_KEY", standin.secret_key())
        .env("CLIENT_SECRET", standin.oauth_client().1)
        .start()
        .await
}

fn accepting(kinds: &[&str], credentials: &str) -> String {
    format!("accepts = {kinds:?}\n{credentials}")
}

/// The questions about tokens that the stand-in was asked.
fn questions(standin: &StandIn) -> Vec<String> {
    let mut calls = standin.calls();
    calls.retain(|call| call.starts_with("POST "));
    calls
}

fn add(standin: &StandIn, secret: &str, kind: TokenKind, subject: &str) {
    change(standin, secret, kind, subject, |_| ());
}

fn change(
    standin: &StandIn,
    secret: &str,
    kind: TokenKind,
    subject: &str,
    change: impl FnOnce(&mut Value),
) {
    standin.world(|world| change(world.add_token(secret, kind, subject, &["a:read", "b"])));
}

/// A kind of token, and how it is asked about.
struct Kind {
    prefix: &'static str,
    kind: TokenKind,
    setting: &'static str,
    credentials: &'static str,
    subject: &'static str,
    question: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        prefix: "oat_2a",
        kind: TokenKind::OAuth,
        setting: "oauth",
        credentials: BY_SECRET_KEY,
        subject: "user_2a",
        question: "POST /v1/oauth_applications/access_tokens/verify",
    },
    Kind {
        prefix: "oat_2b",
        kind: TokenKind::OAuth,
        setting: "oauth",
        credentials: BY_CLIENT,
        subject: "user_2b",
        question: "POST /oauth/token_info",
    },
    Kind {
        prefix: "mt_2c",
        kind: TokenKind::Machine,
        setting: "m2m",
        credentials: BY_SECRET_KEY,
        subject: "mch_2c",
        question: "POST /v1/m2m_tokens/verify",
    },
    Kind {
        prefix: "ak_2d/+=",
        kind: TokenKind::ApiKey,
        setting: "api_key",
        credentials: BY_SECRET_KEY,
        subject: "user_2d",
        question: "POST /v1/api_keys/verify",
    },
];

#[tokio::test]
async fn each_kind_is_exchanged_by_its_issuers_word() {
    let standin = standin().await;
    let mut asked = Vec::new();
    for kind in KINDS {
        let (secret, subject) = (kind.prefix, kind.subject);
        add(&standin, secret, kind.kind, subject);
        let service = service(
            &standin,
            &accepting(&["session", kind.setting], kind.credentials),
            "claims.scope_said = 'has(claims.scope) ? claims.scope : null'\nclaims.held = 'scopes'",
        )
        .await;
        let answer = service.session(secret).await;
        let claims = token::claims(answer.token());
        assert_eq!(answer.body["user"], json!({"id": subject}), "{secret}");
        assert_eq!(claims["sub"], subject);
        assert_eq!(claims["idp"], standin.issuer());
        assert_eq!(claims["scope_said"], "a:read b");
        assert_eq!(claims["held"], json!(["a:read", "b"]));
        for absent in ["sid", "org_id", "act"] {
            assert_eq!(claims[absent], Value::Null, "{secret}: {absent}");
        }
        let session = standin.session_token(&Session::default());
        assert_eq!(service.session(&session).await.status, 200, "{secret}");
        let unseen = [secret, standin.secret_key(), standin.oauth_client().1];
        for line in service.log() {
            assert!(unseen.iter().all(|each| !line.contains(each)), "{line}");
        }
        asked.push(kind.question);
    }
    assert_eq!(questions(&standin), asked);
}

#[tokio::test]
async fn revoked_expired_and_unknown_tokens_are_refused_each_as_what_it_is() {
    let standin = standin().await;
    for kind in KINDS {
        let lines = accepting(&[kind.setting], kind.credentials);
        let service = service(&standin, &lines, "").await;
        // Introspection does not say why a token is inactive (RFC 7662 §2.2).
        let told = kind.credentials == BY_SECRET_KEY;
        for (name, member, code) in [
            ("revoked", "revoked", "subject_token_revoked"),
            ("expired", "expired", "subject_token_expired"),
            ("unknown", "", "subject_token_inactive"),
        ] {
            let secret = format!("{}_{name}", kind.prefix);
            if !member.is_empty() {
                change(&standin, &secret, kind.kind, kind.subject, |token| {
                    token[member] = json!(true);
                });
            }
            let code = if told { code } else { "subject_token_inactive" };
            service.refuses(&secret, &secret, code).await;
            let answer = service.session(&secret).await;
            assert_eq!(answer.body["action"], "refresh_subject_token", "{secret}");
            assert_eq!(answer.body["error"], "invalid_token");
        }
        // One kind's secret is none of another's.
        let other = format!("{}_other", kind.prefix);
        let another = match kind.kind {
            TokenKind::ApiKey => TokenKind::OAuth,
            _ => TokenKind::ApiKey,
        };
        add(&standin, &other, another, kind.subject);
        service
            .refuses(&other, &other, "subject_token_inactive")
            .await;
    }
}

#[tokio::test]
async fn a_kind_that_is_not_accepted_is_refused_and_nobody_is_asked() {
    let standin = standin().await;
    let not_accepted = "subject_token_kind_not_accepted";
    for kind in KINDS {
        add(&standin, kind.prefix, kind.kind, kind.subject);
        // Another kind is taken, so that something could be asked.
        let other = if kind.setting == "m2m" {
            "oauth"
        } else {
            "m2m"
        };
        let lines = accepting(&["session", other], BY_SECRET_KEY);
        let service = service(&standin, &lines, "").await;
        service
            .refuses(kind.prefix, kind.prefix, not_accepted)
            .await;
        let answer = service.session(kind.prefix).await;
        assert_eq!(answer.body["action"], "fix_config");
        let says = answer.body["error_description"].as_str().unwrap();
        assert!(says.contains(&format!("`{}`", kind.setting)), "{says}");
        // What has no prefix is nobody's here.
        service.refuses("plain", "plain", not_accepted).await;
    }
    // Accepted, but there is nothing to ask with.
    let service = service(&standin, "accepts = [\"oauth\", \"m2m\"]", "").await;
    for secret in ["oat_2a", "mt_2c"] {
        let answer = service.session(secret).await;
        answer.assert_refused(401, not_accepted);
        let says = answer.body["error_description"].as_str().unwrap();
        assert!(!says.contains("accepts"), "the list has it: {says}");
    }
    // A session token is a kind too.
    let session = standin.session_token(&Session::default());
    service.refuses("session", &session, not_accepted).await;
    assert_eq!(questions(&standin), Vec::<String>::new());
}

#[tokio::test]
async fn where_no_issuer_takes_opaque_tokens_the_answer_says_so() {
    let standin = standin().await;
    let service = service(&standin, BY_SECRET_KEY, "").await;
    for secret in ["oat_2a", "mt_2c", "ak_2d", "plain"] {
        service
            .refuses(secret, secret, "subject_token_opaque")
            .await;
    }
    service
        .refuses("jwe", "a.b.c.d.e", "subject_token_encrypted")
        .await;
    assert_eq!(questions(&standin), Vec::<String>::new());
}

#[tokio::test]
async fn the_variables_alone_take_oauth_tokens() {
    let standin = standin().await;
    add(&standin, "oat_v", TokenKind::OAuth, "user_v");
    let (id, secret) = standin.oauth_client();
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", standin.issuer())
        .env("CLERK_OAUTH_CLIENT_ID", id)
        .env("CLERK_OAUTH_CLIENT_SECRET", secret)
        .start()
        .await;
    let answer = service.session("oat_v").await;
    assert_eq!(token::claims(answer.token())["sub"], "user_v");
    let jwt = standin.oauth_jwt("user_v", &["a"]);
    let answer = service.session(&jwt).await;
    assert_eq!(token::claims(answer.token())["sub"], "user_v");
    assert_eq!(questions(&standin), ["POST /oauth/token_info"]);
}

#[tokio::test]
async fn a_machines_words_make_no_session_and_an_organisations_key_acts_for_it() {
    let standin = standin().await;
    let lies = json!({
        "team": "blue", "sid": "sess_x", "org_id": "org_x", "org_role": "org:admin", "sts": "no",
        "act": {"sub": "user_x"}, "sub": "user_x", "iss": "https://elsewhere.example.com",
        "exp": 1, "nbf": 99_999_999_999_i64, "scope": "admin", "scopes": "admin", "v": "?",
        "auth_time": 1, "o": {"id": "org_x"}, "azp": "x", "client_id": "x",
    });
    for (secret, kind, subject) in [
        ("mt_lies", TokenKind::Machine, "mch_1"),
        ("ak_lies", TokenKind::ApiKey, "user_1"),
        ("ak_org", TokenKind::ApiKey, "org_1"),
    ] {
        change(&standin, secret, kind, subject, |token| {
            token["claims"] = lies.clone();
        });
        let service = service(
            &standin,
            &accepting(&["m2m", "api_key"], BY_SECRET_KEY),
            "claims.team = 'claims.team'\nclaims.held = 'scopes'\nclaims.said = 'claims.iss'\nclaims.known = '[sid, org.id, org.role]'",
        )
        .await;
        let answer = service.session(secret).await;
        let claims = token::claims(answer.token());
        let org = if subject == "org_1" { "org_1" } else { "" };
        assert_eq!(claims["sub"], subject);
        assert_eq!(claims["team"], "blue");
        assert_eq!(claims["held"], json!(["a:read", "b"]));
        assert_eq!(claims["said"], standin.issuer());
        assert_eq!(claims["known"], json!(["", org, ""]));
        for absent in ["sid", "act", "roles", "auth_time"] {
            assert_eq!(claims[absent], Value::Null, "{secret}: {absent}");
        }
        assert_eq!(answer.body["user"]["roles"], Value::Null);
        let org = if org.is_empty() {
            Value::Null
        } else {
            json!(org)
        };
        assert_eq!(claims["org_id"], org);
    }
}

#[tokio::test]
async fn access_and_machine_jwts_need_leave_and_never_pass_as_sessions() {
    let standin = standin().await;
    let oauth = standin.oauth_jwt("user_1", &["a:read"]);
    let machine = standin.machine_jwt("mch_1", &["mch_2"]);
    let session = standin.session_token(&Session::default());
    let not_accepted = "subject_token_kind_not_accepted";
    for (accepts, good) in [
        (&["session"][..], &session),
        (&["oauth"], &oauth),
        (&["m2m"], &machine),
    ] {
        // A session's parties are origins, which no machine has.
        let parties = match accepts {
            ["oauth"] => standin.oauth_client().0,
            _ => "http://localhost:3000",
        };
        let lines = format!("accepts = {accepts:?}\nauthorized_parties = [{parties:?}]");
        let service = service(&standin, &lines, "claims.held = 'scopes'").await;
        for token in [&oauth, &machine, &session] {
            if token == good {
                let answer = service.session(token).await;
                let claims = token::claims(answer.token());
                let session = accepts == ["session"];
                assert_eq!(claims["sid"].is_string(), session, "{accepts:?}: {claims}");
                assert_eq!(claims["held"].is_array(), !session, "{claims}");
            } else {
                service
                    .refuses(format!("{accepts:?}"), token, not_accepted)
                    .await;
            }
        }
    }
    assert_eq!(
        questions(&standin),
        Vec::<String>::new(),
        "a key verifies them"
    );
}

#[tokio::test]
async fn what_kind_a_jwt_is_cannot_be_said_in_two_ways() {
    let issuer = Issuer::start().await;
    let all = "accepts = [\"session\", \"oauth\", \"m2m\"]";
    let service = Service::builder().one_app(&issuer, all, "").start().await;
    let token = || Token::clerk(&issuer.url).claim("client_id", "client_1");
    let mismatch = "subject_token_type_mismatch";
    let machine = "cl_B7d4PD333AAA";
    for (what, token, code) in [
        ("a session", token(), None),
        (
            "one of its category",
            token().header("cat", "cl_B7d4PD111AAA"),
            None,
        ),
        (
            "a template's",
            token().header("cat", "cl_B7d4PD222AAA"),
            None,
        ),
        (
            "no category said",
            token().header("cat", "cl_I7d4PD111III"),
            None,
        ),
        (
            "a machine's category, a user",
            token().header("cat", machine),
            Some(mismatch),
        ),
        (
            "a session's category, a machine",
            token()
                .header("cat", "cl_B7d4PD111AAA")
                .claim("sub", "mch_1"),
            Some(mismatch),
        ),
        (
            "an odd category, a machine",
            token().header("cat", 1).claim("sub", "mch_1"),
            Some(mismatch),
        ),
        (
            "an access token of a machine",
            token().header("typ", "at+jwt").claim("sub", "mch_1"),
            Some(mismatch),
        ),
        (
            "a machine's",
            token().header("cat", machine).claim("sub", "mch_1"),
            None,
        ),
        ("a machine's of old", token().claim("sub", "mch_1"), None),
        ("an access token", token().header("typ", "at+jwt"), None),
        (
            "an access token without its client",
            token().header("typ", "at+jwt").without("client_id"),
            Some("subject_token_claim_missing"),
        ),
        (
            "an access token without iat",
            token().header("typ", "at+jwt").without("iat"),
            Some("subject_token_claim_missing"),
        ),
        (
            "an access token bound to a key",
            token()
                .header("typ", "at+jwt")
                .claim("cnf", json!({"jkt": "x"})),
            Some("subject_token_sender_constrained"),
        ),
    ] {
        let signed = token.sign(Key::rsa());
        match code {
            Some(code) => service.refuses(what, &signed, code).await,
            None => {
                let answer = service.session(&signed).await;
                assert_eq!(answer.status, 200, "{what}: {}", answer.body);
            }
        }
    }
    // The claims of a session mean nothing in the others.
    for other in [
        token().claim("sub", "mch_1"),
        token().header("typ", "at+jwt"),
    ] {
        let other = other.claim("sts", "pending").sign(Key::rsa());
        let answer = service.session(&other).await;
        assert_eq!(token::claims(answer.token())["org_id"], Value::Null);
    }
}

/// An authorization server of our own, and a service whose app `web` trusts it.
async fn introspecting(issuer_lines: &str, app_lines: &str) -> (Issuer, Service) {
    let server = Issuer::start().await;
    let service = trusting(&server, issuer_lines, app_lines).await;
    (server, service)
}

async fn trusting(server: &Issuer, issuer_lines: &str, app_lines: &str) -> Service {
    let url = &server.url;
    Service::builder()
        .config(&format!(
            "[issuers.server]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
             introspection_endpoint = \"{url}{INTROSPECT}\"\n\
             client_id = \"an id&:é\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n\
             {issuer_lines}\n[apps.web]\nissuers = \"server\"\n{app_lines}\n"
        ))
        .env("CLIENT_SECRET", "a secret%+:=")
        .start()
        .await
}

fn answers(server: &Issuer, status: u16, body: impl ToString) {
    server.behave(INTROSPECT, Behaviour::Answer(status, body.to_string()));
}

/// A good answer about a token of `user`.
fn active(server: &Issuer) -> Value {
    json!({
        "active": true, "iss": server.url, "sub": "user", "client_id": "client_1",
        "scope": "a:read  b", "aud": ["api", "other"], "token_type": "Bearer",
        "iat": now(), "nbf": now(), "exp": now() + 600,
    })
}

#[tokio::test]
async fn the_question_is_a_form_with_basic_credentials_both_encoded() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    let secrets = [
        "a&token=other",
        "a%26b",
        "a=b==",
        "a+b/c",
        "~!*'()\"<>",
        "a.b",
        "é",
    ];
    for (number, secret) in secrets.into_iter().enumerate() {
        if secret == "é" {
            service
                .refuses(secret, secret, "subject_token_malformed")
                .await;
            assert_eq!(server.bodies().len(), number);
            continue;
        }
        assert_eq!(service.session(secret).await.status, 200, "{secret}");
        let bodies = server.bodies();
        let form: Vec<(String, String)> = url::form_urlencoded::parse(bodies[number].as_bytes())
            .into_owned()
            .collect();
        assert_eq!(form, [("token".to_owned(), secret.to_owned())]);
    }
    let credentials = STANDARD.encode("an+id%26%3A%C3%A9:a+secret%25%2B%3A%3D");
    for request in server.requests() {
        let request = request.to_lowercase();
        assert!(
            request.starts_with("post /introspect http/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"));
        let header = format!("authorization: basic {}\r\n", credentials.to_lowercase());
        assert!(request.contains(&header), "{request}");
        assert!(!request.contains("token="), "{request}");
    }
    assert!(service.log().iter().all(|line| !line.contains("secret%")));
}

#[tokio::test]
async fn only_active_true_in_a_200_counts() {
    let (server, service) = introspecting("", "").await;
    let good = active(&server);
    let with = |active: Value| {
        let mut body = good.clone();
        body["active"] = active;
        body.to_string()
    };
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("active");
    let (unavailable, credentials) = ("provider_unavailable", "provider_credentials_invalid");
    let cases = [
        (200, with(json!("true")), unavailable),
        (200, with(json!("false")), unavailable),
        (200, with(json!(1)), unavailable),
        (200, with(json!(null)), unavailable),
        (200, with(json!([true])), unavailable),
        (200, without.to_string(), unavailable),
        (200, format!("[{good}]"), unavailable),
        (200, json!(good.to_string()).to_string(), unavailable),
        (
            200,
            good.to_string().replacen('{', "{\"active\":false,", 1),
            unavailable,
        ),
        (
            200,
            "<html><body>active: true</body></html>".to_owned(),
            unavailable,
        ),
        (200, String::new(), unavailable),
        (200, "{}".to_owned(), unavailable),
        (201, good.to_string(), unavailable),
        (204, String::new(), unavailable),
        (302, good.to_string(), unavailable),
        (404, good.to_string(), unavailable),
        (500, good.to_string(), unavailable),
        (503, good.to_string(), unavailable),
        (401, good.to_string(), credentials),
        (
            401,
            json!({"error": "invalid_client"}).to_string(),
            credentials,
        ),
        (403, String::new(), credentials),
        (
            400,
            json!({"error": "invalid_client"}).to_string(),
            credentials,
        ),
        (400, json!({"message": "no"}).to_string(), unavailable),
        (429, good.to_string(), "provider_rate_limited"),
    ];
    for (number, (status, body, code)) in cases.into_iter().enumerate() {
        answers(&server, status, &body);
        // Failures in a row may close the way for a while.
        service.shift_clocks(0, 40 * i64::try_from(number).unwrap());
        let answer = service.session("opaque").await;
        answer.assert_refused(503, code);
        assert_eq!(answer.body["source"], "upstream-idp", "{body}");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(
            server.asked(INTROSPECT),
            number + 1,
            "{status} {body}: not kept"
        );
    }
    service.shift_clocks(0, 3000);
    // Some servers refuse a question about what cannot be a token of theirs.
    for status in [400, 422] {
        answers(&server, status, json!({"error": "invalid_request"}));
        for _ in 0..6 {
            let inactive = "subject_token_inactive";
            service.refuses(status, "opaque", inactive).await;
        }
    }
    service.shift_clocks(0, 4000);
    answers(&server, 200, &good);
    let answer = service.session("opaque").await;
    assert_eq!(
        answer.body["user"],
        json!({"id": "user"}),
        "{}",
        answer.body
    );
    service.shift_clocks(0, 8000);
    answers(&server, 200, json!({"active": false, "sub": "user"}));
    service
        .refuses("inactive", "opaque", "subject_token_inactive")
        .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_a_bounded_time() {
    for behaviour in [
        Behaviour::Stall,
        Behaviour::Drip,
        Behaviour::Flood(1024 * 1024),
        Behaviour::Close,
        Behaviour::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"active\":true}".to_vec()),
    ] {
        let (server, service) = introspecting("", "").await;
        server.behave(INTROSPECT, behaviour);
        let answer = tokio::time::timeout(GUARD, service.session("opaque")).await;
        let answer = answer.expect("an answer in time");
        answer.assert_refused(503, "provider_unavailable");
    }
    // So does one whose users are taken by Clerk's Backend API.
    let standin = standin().await;
    for kind in KINDS {
        let lines = accepting(&[kind.setting], kind.credentials);
        let service = service(&standin, &lines, "").await;
        let mut shift = 0;
        for (fault, code) in [
            (Fault::Status(500), "provider_unavailable"),
            (Fault::Html, "provider_unavailable"),
            (Fault::Truncated, "provider_unavailable"),
            (Fault::Hangup, "provider_unavailable"),
            (Fault::Stall, "provider_unavailable"),
            (Fault::Status(401), "provider_credentials_invalid"),
            (
                Fault::RateLimited { retry_after: 7 },
                "provider_rate_limited",
            ),
        ] {
            let secret = format!("{}_{shift}", kind.prefix);
            add(&standin, &secret, kind.kind, kind.subject);
            standin.fault(Some(fault));
            let answer = tokio::time::timeout(GUARD, service.session(&secret)).await;
            answer.expect("an answer in time").assert_refused(503, code);
            standin.fault(None);
            // Past any pause that a failure asks for.
            shift += 60;
            service.shift_clocks(0, shift);
            let answer = service.session(&secret).await;
            assert_eq!(answer.status, 200, "not kept: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_ours_and_not_the_tokens() {
    let standin = standin().await;
    let (id, _) = standin.oauth_client();
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", standin.issuer())
        .env("CLERK_OAUTH_CLIENT_ID", id)
        .env("CLERK_OAUTH_CLIENT_SECRET", "wrong")
        .start()
        .await;
    add(&standin, "oat_x", TokenKind::OAuth, "user_x");
    let answer = service.session("oat_x").await;
    answer.assert_refused(503, "provider_credentials_invalid");
    assert_eq!(answer.body["action"], "fix_config");
}

#[tokio::test]
async fn what_an_active_token_says_is_judged_like_a_signed_one() {
    let lines = "audiences = [\"api\"]\nauthorized_parties = [\"client_1\"]";
    let (server, service) = introspecting(lines, "claims.held = 'scopes'").await;
    let malformed = "subject_token_claim_malformed";
    let expired = "subject_token_expired";
    let mismatch = "subject_token_type_mismatch";
    let cases = [
        ("aud", json!("api"), None),
        (
            "aud",
            json!("other"),
            Some("subject_token_audience_mismatch"),
        ),
        (
            "aud",
            json!(["apis", "ap"]),
            Some("subject_token_audience_mismatch"),
        ),
        ("aud", Value::Null, Some("subject_token_audience_missing")),
        ("client_id", json!("an id&:é"), None),
        (
            "client_id",
            json!("client_2"),
            Some("subject_token_authorized_party_mismatch"),
        ),
        (
            "client_id",
            json!(["client_1"]),
            Some("subject_token_authorized_party_mismatch"),
        ),
        (
            "client_id",
            Value::Null,
            Some("subject_token_authorized_party_missing"),
        ),
        ("iss", Value::Null, None),
        (
            "iss",
            json!(format!("{}/", server.url)),
            Some("subject_token_issuer_untrusted"),
        ),
        ("iss", json!(1), Some("subject_token_issuer_untrusted")),
        ("exp", json!(now() - 60), Some(expired)),
        ("exp", json!("soon"), Some(malformed)),
        ("exp", json!(1e300), Some(malformed)),
        (
            "nbf",
            json!(now() + 60),
            Some("subject_token_not_yet_valid"),
        ),
        (
            "iat",
            json!(now() + 60),
            Some("subject_token_issued_in_future"),
        ),
        ("iat", json!("yesterday"), Some(malformed)),
        ("sub", json!(""), Some(malformed)),
        ("sub", json!(7), Some(malformed)),
        ("scope", json!(7), Some(malformed)),
        ("token_type", Value::Null, None),
        ("token_type", json!("bearer"), None),
        ("token_type", json!("access_token"), None),
        (
            "token_type",
            json!("DPoP"),
            Some("subject_token_sender_constrained"),
        ),
        ("token_type", json!("refresh_token"), Some(mismatch)),
        ("token_type", json!(1), Some(mismatch)),
        ("token_use", json!("access_token"), None),
        ("token_use", json!("refresh_token"), Some(mismatch)),
        (
            "cnf",
            json!({"jkt": "x"}),
            Some("subject_token_sender_constrained"),
        ),
        ("o", json!({"id": "org_x"}), None),
    ];
    for (number, (name, value, code)) in cases.into_iter().enumerate() {
        let mut body = active(&server);
        body[name] = value.clone();
        answers(&server, 200, body);
        let token = format!("opaque-{number}");
        match code {
            Some(code) => {
                service
                    .refuses(format!("{name} {value}"), &token, code)
                    .await
            }
            None => {
                let answer = service.session(&token).await;
                assert_eq!(answer.status, 200, "{name} {value}: {}", answer.body);
                let claims = token::claims(answer.token());
                assert_eq!(claims["held"], json!(["a:read", "b"]));
                assert_eq!(claims["org_id"], Value::Null);
            }
        }
    }
    let mut body = active(&server);
    body.as_object_mut().unwrap().remove("sub");
    answers(&server, 200, &body);
    let client_only = "subject_token_client_only";
    service.refuses("no sub", "opaque-c", client_only).await;
    body.as_object_mut().unwrap().remove("client_id");
    answers(&server, 200, &body);
    let missing = "subject_token_claim_missing";
    service.refuses("nobody", "opaque-n", missing).await;
    // No `exp` at all: the app's own lifetime bounds the app token.
    let mut body = active(&server);
    body.as_object_mut().unwrap().remove("exp");
    answers(&server, 200, &body);
    assert_eq!(service.session("opaque-e").await.status, 200);
}

#[tokio::test]
async fn a_jwt_of_an_introspected_issuer_is_asked_about_and_nothing_else_is() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    // Signed with anything: nobody here verifies it.
    let jwt = Token::oidc(&server.url, "api").sign(Key::other_rsa());
    let answer = service.session(&jwt).await;
    assert_eq!(token::claims(answer.token())["sub"], "user");
    answers(&server, 200, json!({"active": false}));
    let other = Token::oidc(&server.url, "api").claim("jti", "2");
    let other = other.sign(Key::other_rsa());
    let inactive = "subject_token_inactive";
    service.refuses("inactive", &other, inactive).await;
    assert_eq!(server.asked(INTROSPECT), 2);
    let elsewhere = Token::oidc("https://elsewhere.example.com", "api").sign(Key::rsa());
    let untrusted = "subject_token_issuer_untrusted";
    service.refuses("elsewhere", &elsewhere, untrusted).await;
    service
        .refuses("garbage", "a.b.c", "subject_token_malformed")
        .await;
    assert_eq!(server.requests().len(), 2, "no keys were fetched either");
    assert_eq!(service.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_gateways_question_never_asks_an_introspection_endpoint() {
    // The bearer is anybody's, and its address is the gateway's: nobody would pay for guesses.
    let (server, service) = introspecting("", "verify.pass_through = true\n").await;
    answers(&server, 200, active(&server));
    for guess in 0..3 {
        let jwt = Token::oidc(&server.url, "api").claim("jti", guess);
        let asked = service
            .client
            .get(format!("{}/auth/verify", service.url))
            .bearer_auth(jwt.sign(Key::other_rsa()));
        let answer = service.send(asked).await;
        answer.assert_refused(401, "pass_through_not_allowed");
    }
    assert_eq!(server.asked(INTROSPECT), 0);
}

#[tokio::test]
async fn the_endpoint_is_discovered_at_either_place_and_must_be_the_issuers() {
    for (at, not_at) in [(DISCOVERY, None), (RFC_8414, Some(DISCOVERY))] {
        let server = Issuer::start().await;
        let url = &server.url;
        let document = |issuer: &str, endpoint: &str| {
            let document = json!({"issuer": issuer, "introspection_endpoint": endpoint});
            Behaviour::Answer(200, document.to_string())
        };
        if let Some(not_at) = not_at {
            server.behave(not_at, Behaviour::Answer(404, String::new()));
        }
        answers(&server, 200, active(&server));
        let service = Service::builder()
            .config(&format!(
                "[issuers.server]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
                 client_id = \"id\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n\
                 [apps.web]\nissuers = \"server\"\n"
            ))
            .env("CLIENT_SECRET", "secret")
            .start()
            .await;
        let invalid = "issuer_metadata_invalid";
        for (number, wrong) in [
            document(
                "https://elsewhere.example.com",
                &format!("{url}{INTROSPECT}"),
            ),
            document(url, "http://169.254.169.254/introspect"),
            document(url, "file:///etc/passwd"),
            Behaviour::Answer(200, json!({"issuer": url}).to_string()),
        ]
        .into_iter()
        .enumerate()
        {
            server.behave(at, wrong);
            service.shift_clocks(0, 40 * i64::try_from(number).unwrap());
            service.session("opaque").await.assert_refused(503, invalid);
        }
        assert_eq!(server.asked(INTROSPECT), 0);
        server.behave(at, document(url, &format!("{url}{INTROSPECT}")));
        service.shift_clocks(0, 400);
        assert_eq!(service.session("opaque").await.status, 200);
        let asked = server.asked(at);
        assert_eq!(service.session("another").await.status, 200);
        assert_eq!(server.asked(at), asked, "once found it is believed");
    }
}

async fn exchange(service: &Service, app: &str, token: &str) -> Answer {
    service
        .exchange(&json!({"subject_token": token, "app": app}))
        .await
}

#[tokio::test]
async fn of_several_issuers_the_named_apps_alone_is_asked() {
    let (one, two, server) = (standin().await, standin().await, Issuer::start().await);
    answers(&server, 200, active(&server));
    let lines = "accepts = [\"session\", \"api_key\"]\n";
    let url = &server.url;
    let service = Service::builder()
        .config(&format!(
            "{}{}[issuers.three]\nissuer = \"{url}\"\nkind = \"introspection\"\n\
             introspection_endpoint = \"{url}{INTROSPECT}\"\nclient_id = \"id\"\n\
             client_secret = {{ env = \"CLIENT_SECRET\" }}\n\
             [apps.one]\nissuers = \"one\"\naudience = [\"a\", \"b\"]\n\
             [apps.two]\nissuers = \"two\"\naudience = \"c\"\n\
             [apps.three]\nissuers = \"three\"\naudience = \"d\"\n",
            section(
                "one",
                &one,
                &format!("{lines}secret_key = {{ env = \"ONE\" }}")
            ),
            section(
                "two",
                &two,
                &format!("{lines}secret_key = {{ env = \"TWO\" }}")
            ),
        ))
        .env("ONE", one.secret_key())
        .env("TWO", two.secret_key())
        .env("CLIENT_SECRET", "secret")
        .start()
        .await;
    add(&one, "ak_1", TokenKind::ApiKey, "user_1");
    add(&two, "ak_2", TokenKind::ApiKey, "user_2");
    let counts = || {
        let three = server.asked(INTROSPECT);
        (questions(&one).len(), questions(&two).len(), three)
    };
    service
        .session("ak_1")
        .await
        .assert_refused(400, "app_required");
    exchange(&service, "none", "ak_1")
        .await
        .assert_refused(400, "app_unknown");
    let wrong = json!({"subject_token": "ak_1", "audience": "z"});
    let answer = service.exchange(&wrong).await;
    assert_eq!(answer.body["code"], "audience_not_allowed");
    assert_eq!(counts(), (0, 0, 0));

    assert_eq!(exchange(&service, "one", "ak_1").await.status, 200);
    assert_eq!(counts(), (1, 0, 0));
    exchange(&service, "two", "ak_1")
        .await
        .assert_refused(401, "subject_token_inactive");
    assert_eq!(counts(), (1, 1, 0));
    let by_audience = json!({"subject_token": "ak_2", "audience": "c"});
    let answer = service.exchange(&by_audience).await;
    assert_eq!(token::claims(answer.token())["client_id"], "two");
    assert_eq!(counts(), (1, 2, 0));

    // Without a prefix there is but one whom it could be of.
    let answer = service.session("plain").await;
    assert_eq!(token::claims(answer.token())["client_id"], "three");
    exchange(&service, "one", "plain")
        .await
        .assert_refused(401, "subject_token_kind_not_accepted");
    assert_eq!(counts(), (1, 2, 1));
    // Where an app trusts no Clerk instance, a prefix of Clerk's means nothing.
    assert_eq!(exchange(&service, "three", "ak_plain").await.status, 200);
    assert_eq!(counts(), (1, 2, 2));
}

#[tokio::test]
async fn an_active_answer_is_kept_for_half_a_minute_and_never_past_its_exp() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, active(&server));
    for _ in 0..3 {
        assert_eq!(service.session("opaque").await.status, 200);
    }
    service.shift_clocks(0, 29);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 1);
    assert_eq!(service.session("another").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 2);
    service.shift_clocks(0, 31);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 3);
    // By the wall clock it is past its exp, kept or not.
    service.shift_clocks(700, 31);
    let expired = "subject_token_expired";
    service.refuses("kept", "opaque", expired).await;
    assert_eq!(server.asked(INTROSPECT), 3);

    service.shift_clocks(0, 100);
    let mut short = active(&server);
    short["exp"] = json!(now() + 12);
    answers(&server, 200, short);
    assert_eq!(service.session("short").await.status, 200);
    service.shift_clocks(0, 105);
    assert_eq!(service.session("short").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 4);
    answers(&server, 200, json!({"active": false}));
    service.shift_clocks(0, 113);
    let inactive = "subject_token_inactive";
    service.refuses("past its exp", "short", inactive).await;
    assert_eq!(server.asked(INTROSPECT), 5);
}

#[tokio::test]
async fn an_inactive_answer_is_kept_for_five_seconds_and_a_failure_never() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 200, json!({"active": false}));
    let inactive = "subject_token_inactive";
    for _ in 0..3 {
        service.refuses("inactive", "opaque", inactive).await;
    }
    assert_eq!(server.asked(INTROSPECT), 1);
    answers(&server, 200, active(&server));
    service.refuses("still", "opaque", inactive).await;
    service.shift_clocks(0, 6);
    assert_eq!(service.session("opaque").await.status, 200);
    assert_eq!(server.asked(INTROSPECT), 2);

    answers(&server, 500, "");
    let unavailable = "provider_unavailable";
    for asked in 3..5 {
        let answer = service.session("failing").await;
        answer.assert_refused(503, unavailable);
        assert_eq!(server.asked(INTROSPECT), asked);
    }
    answers(&server, 200, active(&server));
    assert_eq!(service.session("failing").await.status, 200);
}

#[tokio::test]
async fn the_answer_is_kept_and_not_what_became_of_it() {
    let server = Issuer::start().await;
    answers(&server, 200, active(&server));
    let service = trusting(
        &server,
        "",
        "audience = [\"a\"]\ncondition = 'scopes.exists(each, each == \"b\")'\n\
         [apps.admin]\nissuers = \"server\"\naudience = [\"z\"]\n\
         condition = 'scopes.exists(each, each == \"admin\")'",
    )
    .await;
    for _ in 0..2 {
        assert_eq!(exchange(&service, "web", "opaque").await.status, 200);
        exchange(&service, "admin", "opaque")
            .await
            .assert_refused(403, "condition_not_met");
    }
    assert_eq!(server.asked(INTROSPECT), 1);
}

#[tokio::test]
async fn one_token_is_asked_about_once_at_a_time() {
    let (server, service) = introspecting("", "").await;
    let server = Arc::new(server);
    let body = active(&server).to_string();
    // Answers after a moment, as long as several wait.
    server.behave(INTROSPECT, Behaviour::Late(Duration::from_secs(2)));
    let calls = (0..8).map(|_| service.session("opaque"));
    for answer in futures_util::future::join_all(calls).await {
        answer.assert_refused(503, "provider_unavailable");
    }
    assert_eq!(server.asked(INTROSPECT), 1);
    answers(&server, 200, body);
    assert_eq!(service.session("opaque").await.status, 200);
}

#[test]
fn one_app_has_one_reader_for_each_kind() {
    let check = |toml: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        Command::new(dir.path())
            .env("SECRET", "sk_test_1")
            .run(&["check"])
    };
    let clerk = |name: &str, accepts: &str| {
        format!(
            "[issuers.{name}]\nissuer = \"https://{name}.example.com\"\nkind = \"clerk\"\n\
             audiences = \"x\"\nsecret_key = {{ env = \"SECRET\" }}\naccepts = {accepts}\n"
        )
    };
    let server = |name: &str| {
        format!(
            "[issuers.{name}]\nissuer = \"https://{name}.example.com\"\nkind = \"introspection\"\n\
             client_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n"
        )
    };
    let app = "[apps.web]\nissuers = [\"a\", \"b\"]\nsubject = 'iss + sub'\nsession_id = \"off\"\n";
    let all = "[\"session\", \"oauth\", \"m2m\", \"api_key\"]";
    for (one, two, says) in [
        (clerk("a", all), clerk("b", "[\"session\"]"), None),
        (clerk("a", "[\"oauth\"]"), clerk("b", "[\"m2m\"]"), None),
        (clerk("a", all), server("b"), None),
        (
            clerk("a", "[\"session\", \"m2m\"]"),
            clerk("b", all),
            Some("take m2m tokens"),
        ),
        (
            clerk("a", "[\"oauth\"]"),
            clerk("b", "[\"oauth\"]"),
            Some("take oauth tokens"),
        ),
        (server("a"), server("b"), Some("take introspection tokens")),
    ] {
        let ended = check(&format!("{one}{two}{app}"));
        match says {
            None => assert_eq!(ended.code, 0, "{one}{two}{ended:?}"),
            Some(says) => {
                assert_eq!(ended.code, 1, "{one}{two}{ended:?}");
                assert!(ended.stdout.contains(says), "{ended:?}");
            }
        }
    }
    let keyless = clerk("a", all).replace("secret_key = { env = \"SECRET\" }\n", "");
    let ended = check(&format!("{keyless}[apps.web]\nissuers = \"a\"\n"));
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("set `secret_key`"), "{ended:?}");
}

#[tokio::test]
async fn explain_says_what_an_opaque_token_is_and_asks_nobody() {
    let standin = standin().await;
    let taking = service(&standin, &accepting(&["oauth"], BY_SECRET_KEY), "").await;
    let plain = service(&standin, "", "").await;
    let before = standin.calls().len();
    let explain = |service: &Service, token: &str| {
        let ended = service.command().input(token).run(&["explain", "--json"]);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(!ended.stdout.contains(token), "{ended:?}");
        (ended.code, said)
    };
    let (code, said) = explain(&taking, "oat_secret1");
    assert_eq!(
        (code, &said["accepted"], &said["code"]),
        (0, &Value::Null, &Value::Null)
    );
    let unasked = said["verdict"].as_str().unwrap();
    assert!(
        unasked.contains("web") && unasked.contains("oauth"),
        "{unasked}"
    );
    for (service, token, code, note) in [
        (
            &taking,
            "ak_secret1",
            "subject_token_kind_not_accepted",
            "\"api_key\" in `accepts`",
        ),
        (
            &taking,
            "mt_secret1",
            "subject_token_kind_not_accepted",
            "\"m2m\" in `accepts`",
        ),
        (
            &taking,
            "opaque-secret1",
            "subject_token_kind_not_accepted",
            "kind \"introspection\"",
        ),
        (
            &plain,
            "oat_secret1",
            "subject_token_opaque",
            "\"oauth\" in `accepts`",
        ),
        (
            &plain,
            "opaque-secret1",
            "subject_token_opaque",
            "kind \"introspection\"",
        ),
    ] {
        let (exit, said) = explain(service, token);
        assert_eq!((exit, &said["code"]), (1, &json!(code)), "{token}: {said}");
        assert!(
            said["notes"]
                .to_string()
                .replace("\\\"", "\"")
                .contains(note),
            "{said}"
        );
        let ended = service.command().input(token).run(&["explain"]);
        assert!(
            ended.stdout.contains(note) && !ended.stdout.contains(token),
            "{ended:?}"
        );
    }
    let asked = standin.calls().split_off(before);
    assert!(
        asked
            .iter()
            .all(|call| call.starts_with("GET /.well-known/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_server_that_fails_in_a_row_is_left_alone_for_a_while() {
    let (server, service) = introspecting("", "").await;
    answers(&server, 500, "");
    for number in 0..9 {
        let answer = service.session(&format!("opaque-{number}")).await;
        answer.assert_refused(503, "provider_unavailable");
    }
    assert_eq!(server.asked(INTROSPECT), 5);
    answers(&server, 200, active(&server));
    service.shift_clocks(0, 40);
    assert_eq!(service.session("opaque").await.status, 200);
    // A 429 is respected as long as it asks for.
    server.behave(
        INTROSPECT,
        Behaviour::Raw(
            b"HTTP/1.1 429 X\r\nretry-after: 20\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                .to_vec(),
        ),
    );
    let limited = "provider_rate_limited";
    let answer = service.session("another").await;
    answer.assert_refused(503, limited);
    assert_eq!(answer.header("retry-after"), "20");
    let asked = server.asked(INTROSPECT);
    answers(&server, 200, active(&server));
    service
        .session("another")
        .await
        .assert_refused(503, limited);
    assert_eq!(server.asked(INTROSPECT), asked);
    service.shift_clocks(0, 61);
    assert_eq!(service.session("another").await.status, 200);
}

#[tokio::test]
async fn another_instances_secret_key_vouches_for_nobody() {
    let (ours, theirs) = (standin().await, standin().await);
    let url = ours.issuer();
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = \"{url}\"\napi_url = \"{}\"\nkind = \"clerk\"\n\
             accepts = [\"session\", \"api_key\"]\nsecret_key = {{ env = \"SECRET_KEY\" }}\n\
             [apps.web]\nissuers = \"clerk\"\n",
            theirs.api_url()
        ))
        .env("SECRET_KEY", theirs.secret_key())
        .start()
        .await;
    // The keys of both sides are at hand from here on.
    let session = ours.session_token(&Session::default());
    assert_eq!(service.session(&session).await.status, 200);
    add(&theirs, "ak_theirs", TokenKind::ApiKey, "user_theirs");
    for secret in ["ak_theirs", "ak_unknown"] {
        let answer = service.session(secret).await;
        answer.assert_refused(503, "provider_instance_mismatch");
        assert_eq!(answer.body["action"], "fix_config");
    }
}

#[tokio::test]
async fn a_machines_own_secret_key_verifies_its_tokens() {
    let standin = standin().await;
    add(&standin, "mt_x", TokenKind::Machine, "mch_x");
    let lines = accepting(&["m2m"], BY_SECRET_KEY);
    for (key, code) in [
        (standin.machine_secret_key(), None),
        ("ak_wrong", Some("provider_credentials_invalid")),
    ] {
        let issuer = section(
            "clerk",
            &standin,
            &format!("{lines}\nmachine_secret_key = {{ env = \"MACHINE_KEY\" }}"),
        );
        let service = Service::builder()
            .config(&format!("{issuer}[apps.web]\nissuers = \"clerk\"\n"))
            .env("SECRET_KEY", standin.secret_key())
            .env("MACHINE_KEY", key)
            .start()
            .await;
        let answer = service.session("mt_x").await;
        match code {
            None => assert_eq!(answer.status, 200, "{}", answer.body),
            Some(code) => answer.assert_refused(503, code),
        }
    }
}

#[tokio::test]
async fn a_deleted_users_key_is_refused_at_once_whatever_is_kept() {
    let standin = standin().await;
    add(&standin, "ak_x", TokenKind::ApiKey, "user_x");
    let secret = standin.webhook_secret();
    let issuer = section(
        "clerk",
        &standin,
        &format!(
            "{}\nwebhook_secret = {{ env = \"WEBHOOK_SECRET\" }}",
            accepting(&["api_key"], BY_SECRET_KEY)
        ),
    );
    let service = Service::builder()
        .config(&format!("{issuer}[apps.web]\nissuers = \"clerk\"\n"))
        .env("SECRET_KEY", standin.secret_key())
        .env("WEBHOOK_SECRET", secret)
        .start()
        .await;
    assert_eq!(service.session("ak_x").await.status, 200);
    let event = json!({
        "type": "user.deleted", "object": "event", "timestamp": now() * 1000,
        "data": {"id": "user_x", "object": "user", "deleted": true},
    });
    let url = format!("{}/webhooks/clerk/web", service.url);
    standin.send(&url, &event).await.unwrap();
    service.refuses("deleted", "ak_x", "user_deleted").await;
    let asked = questions(&standin);
    assert_eq!(asked, ["POST /v1/api_keys/verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_the_endpoint_with_our_credentials() {
    let (server, service) = introspecting("", "").await;
    let row = || {
        let ended = service.command().run(&["doctor", "--json"]);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rows = said["checks"].as_array().unwrap().clone();
        let named = |row: &&Value| row["check"] == "introspection" && row["name"] == "server";
        let row = rows.iter().find(named).unwrap_or_else(|| panic!("{said}"));
        (row["status"].clone(), row["code"].clone())
    };
    for (status, body, expected) in [
        (200, json!({"active": false}), (json!("ok"), Value::Null)),
        (
            401,
            json!({"error": "invalid_client"}),
            (json!("fail"), json!("provider_credentials_invalid")),
        ),
        (
            500,
            json!({}),
            (json!("fail"), json!("provider_unavailable")),
        ),
    ] {
        answers(&server, status, body);
        assert_eq!(row(), expected, "{status}");
    }
    assert_eq!(server.asked(super::support::issuer::JWKS), 0);
}
