//! Tokens of Clerk's that only Clerk can read: asked about where the configuration says so and nowhere
//! else.

use crate::support::{Command, Issuer, Key, Service, Token, clerk, now, token};
use exchequer::standin::{Session, StandIn, TokenKind};
use serde_json::{Value, json};

const BY_SECRET_KEY: &str = "secret_key = { env = \"SECRET_KEY\" }";
const BY_CLIENT: &str =
    "client_id = { env = \"CLIENT\" }\nclient_secret = { env = \"CLIENT_SECRET\" }";

/// The file's section for a stand-in.
pub fn section(name: &str, standin: &StandIn, lines: &str) -> String {
    let (url, client) = (standin.issuer(), standin.oauth_client().0);
    let lines = lines.replace("{ env = \"CLIENT\" }", &format!("{client:?}"));
    format!(
        "[issuers.{name}]\nissuer = \"{url}\"\napi_url = \"{url}\"\nkind = \"clerk\"\n{lines}\n"
    )
}

/// A service whose one app, `web`, trusts the stand-in by these settings.
pub async fn service(standin: &StandIn, issuer: &str, app: &str) -> Service {
    let issuer = section("clerk", standin, issuer);
    Service::builder()
        .config(&format!("{issuer}[apps.web]\nissuers = \"clerk\"\n{app}\n"))
        .env("SECRET_KEY", standin.secret_key())
        .env("CLIENT_SECRET", standin.oauth_client().1)
        .start()
        .await
}

pub fn accepting(kinds: &[&str], credentials: &str) -> String {
    format!("accepts = {kinds:?}\n{credentials}")
}

/// The questions about tokens that the stand-in was asked.
pub fn questions(standin: &StandIn) -> Vec<String> {
    let mut calls = standin.calls();
    calls.retain(|call| call.starts_with("POST "));
    calls
}

pub fn add(standin: &StandIn, secret: &str, kind: TokenKind, subject: &str) {
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
pub struct Kind {
    pub prefix: &'static str,
    pub kind: TokenKind,
    pub setting: &'static str,
    pub credentials: &'static str,
    pub subject: &'static str,
    pub question: &'static str,
}

pub const KINDS: [Kind; 4] = [
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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

#[tokio::test]
async fn wrong_credentials_are_ours_and_not_the_tokens() {
    let standin = clerk().await;
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
    let standin = clerk().await;
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
async fn another_instances_secret_key_vouches_for_nobody() {
    let (ours, theirs) = (clerk().await, clerk().await);
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
    let standin = clerk().await;
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
    let standin = clerk().await;
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
