//! Scopes are narrowed to what policy grants, and stand for permissions; the task manager of
//! `examples/` is run as it is there.

use crate::support::{Answer, Command, Issuer, Key, Service, Token, eventually, token};
use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/task-manager.toml");
const MEMBERS: &str = "read:initiatives read:meetings read:people read:tasks \
                       write:initiatives write:meetings write:people write:tasks";

async fn task_manager() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let named = "issuer = \"https://clerk.example.com\"";
    assert!(example.contains(named));
    let toml = example.replace(named, &format!("issuer = {:?}", issuer.url));
    let service = Service::builder().config(&toml).start().await;
    (issuer, service)
}

async fn ask(service: &Service, token: &Token, scope: Option<&str>) -> Answer {
    let token = token.sign(Key::rsa());
    let mut body = json!({"session_token": token});
    if let Some(scope) = scope {
        body["scope"] = scope.into();
    }
    service.exchange(&body).await
}

fn member(issuer: &Issuer) -> Token {
    Token::clerk(&issuer.url).claim("o", json!({"id": "org_1", "slg": "acme", "rol": "member"}))
}

/// The scopes of the answer, which are those of the token.
#[track_caller]
fn granted(answer: &Answer) -> (String, Vec<String>) {
    let claims = token::claims(answer.token());
    assert_eq!(answer.body["scope"], claims["scope"]);
    let permissions = claims["permissions"].as_array().unwrap().iter();
    (
        claims["scope"].as_str().unwrap().to_owned(),
        permissions
            .map(|each| each.as_str().unwrap().to_owned())
            .collect(),
    )
}

#[tokio::test]
async fn the_task_managers_table_holds() {
    let (issuer, service) = task_manager().await;
    let (admin, member) = (Token::clerk(&issuer.url), member(&issuer));
    let alone = Token::clerk(&issuer.url).without("o");
    for (scope, permissions) in [
        ("read:people", vec!["person.view"]),
        (
            "write:people",
            vec!["person.create", "person.delete", "person.edit"],
        ),
        ("read:tasks", vec!["task.view"]),
        (
            "write:tasks",
            vec![
                "task.assign",
                "task.complete",
                "task.create",
                "task.delete",
                "task.edit",
            ],
        ),
        ("read:initiatives", vec!["initiative.view"]),
        (
            "write:initiatives",
            vec!["initiative.create", "initiative.delete", "initiative.edit"],
        ),
        ("read:meetings", vec!["meeting.view"]),
        (
            "write:meetings",
            vec!["meeting.cancel", "meeting.create", "meeting.edit"],
        ),
    ] {
        for who in [&admin, &member, &alone] {
            let found = granted(&ask(&service, who, Some(scope)).await);
            assert_eq!(
                (found.0.as_str(), found.1),
                (
                    scope,
                    permissions.iter().map(|each| (*each).to_owned()).collect()
                )
            );
        }
    }
    let (scope, permissions) = granted(&ask(&service, &admin, Some("admin")).await);
    assert_eq!(scope, "admin");
    assert_eq!(
        permissions,
        [
            "member.invite",
            "member.remove",
            "organization.manage",
            "role.assign"
        ]
    );
}

#[tokio::test]
async fn admin_is_dropped_for_whoever_administers_no_organisation_and_never_refused() {
    let (issuer, service) = task_manager().await;
    let role = |role: &str| {
        Token::clerk(&issuer.url).claim("o", json!({"id": "org_1", "slg": "acme", "rol": role}))
    };
    for (who, asked, scope) in [
        (Token::clerk(&issuer.url), None, format!("admin {MEMBERS}")),
        (member(&issuer), None, MEMBERS.to_owned()),
        (
            Token::clerk(&issuer.url).without("o"),
            None,
            MEMBERS.to_owned(),
        ),
        (role("administrator"), Some("admin"), String::new()),
        (role("org:admin"), Some("admin"), String::new()),
        (role("ADMIN"), Some("admin"), String::new()),
        (member(&issuer), Some("admin"), String::new()),
        (
            member(&issuer),
            Some("admin read:tasks"),
            "read:tasks".to_owned(),
        ),
        // As asked for, each once; unknown ones are dropped; case and form count.
        (
            Token::clerk(&issuer.url),
            Some("read:tasks  admin read:tasks"),
            "read:tasks admin".to_owned(),
        ),
        (
            Token::clerk(&issuer.url),
            Some("openid offline_access Read:Tasks tasks:read read:task *"),
            String::new(),
        ),
        // Version 1 claims say the same thing.
        (
            Token::clerk(&issuer.url)
                .without("v")
                .without("o")
                .claim("org_id", "org_1")
                .claim("org_role", "org:admin"),
            Some("admin"),
            "admin".to_owned(),
        ),
        // A claim that only looks like the role.
        (
            member(&issuer)
                .claim("org_role", "org:admin")
                .claim("scope", "admin"),
            Some("admin"),
            String::new(),
        ),
    ] {
        let answer = ask(&service, &who, asked).await;
        let (found, permissions) = granted(&answer);
        assert_eq!(found, scope, "{asked:?} {}", who.claims);
        assert_eq!(permissions.is_empty(), scope.is_empty());
        assert_eq!(
            permissions.contains(&"organization.manage".to_owned()),
            scope.contains("admin")
        );
        assert!(permissions.is_sorted());
    }
}

#[tokio::test]
async fn scopes_take_the_place_of_upstream_permissions_and_only_where_an_app_has_some() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n\
             [apps.none]\nissuers = \"clerk\"\n\
             [apps.some]\nissuers = \"clerk\"\nscopes.a = [\"x\", \"y\"]\nscopes.b = [\"y\", \"z\"]\n\
             scopes.bare = []\n\
             [apps.own]\nissuers = \"clerk\"\nscopes.a = \"x\"\nclaims.permissions = '[\"own\"]'\n"
        ))
        .start()
        .await;
    let token = Token::clerk(url)
        .claim("fea", "o:tasks")
        .claim(
            "o",
            json!({"id": "org_1", "slg": "acme", "rol": "admin", "per": "create", "fpm": "1"}),
        )
        .sign(Key::rsa());
    let ask = async |app: &str, scope: Option<&str>| {
        let body = json!({"session_token": token, "app": app, "scope": scope});
        let answer = service.exchange(&body).await;
        let claims = token::claims(answer.token());
        let part = |name: &str| claims.get(name).cloned();
        (
            answer.body.get("scope").cloned(),
            part("scope"),
            part("permissions"),
        )
    };
    let upstream = json!(["org:tasks:create"]);
    assert_eq!(
        ask("none", None).await,
        (None, None, Some(upstream.clone()))
    );
    assert_eq!(
        ask("none", Some("a")).await,
        (Some(json!("")), None, Some(upstream))
    );
    let some = |scope: &str, permissions: Value| {
        (Some(json!(scope)), Some(json!(scope)), Some(permissions))
    };
    assert_eq!(
        ask("some", None).await,
        some("a b bare", json!(["x", "y", "z"]))
    );
    assert_eq!(ask("some", Some("b")).await, some("b", json!(["y", "z"])));
    assert_eq!(ask("some", Some("bare")).await, some("bare", json!([])));
    assert_eq!(ask("some", Some("c")).await, some("", json!([])));
    assert_eq!(
        ask("some", Some(" ")).await,
        some("a b bare", json!(["x", "y", "z"]))
    );
    assert_eq!(ask("own", None).await, some("a", json!(["own"])));

    for path in ["openid-configuration", "oauth-authorization-server"] {
        let document = service.get(&format!("/.well-known/{path}")).await.body;
        assert_eq!(document["scopes_supported"], json!(["a", "b", "bare"]));
    }
    let plain = Service::trusting(&issuer).await;
    let document = plain.get("/.well-known/openid-configuration").await.body;
    assert_eq!(document.get("scopes_supported"), None);
}

#[tokio::test]
async fn a_delegated_token_gets_no_scope_that_it_was_not_given() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "accepts = [\"session\", \"oauth\"]",
            "[apps.web.scopes]\n\"read:tasks\" = \"task.view\"\n\"write:tasks\" = \"task.edit\"\n\
             [apps.web.scopes.admin]\npermissions = \"all\"\nwhen = 'sub == \"user_1\"'\n\
             [apps.web.scopes.files]\npermissions = \"file.view\"\nwhen = '\"https://clerk.example/files\" in scopes'",
        )
        .start()
        .await;
    let all = "read:tasks write:tasks admin files";
    let access = |scope: Value| {
        Token::clerk(&issuer.url)
            .header("typ", "at+jwt")
            .without("sid")
            .claim("client_id", "client_1")
            .claim("scope", scope)
    };
    for (token, granted_of_all, granted_unasked) in [
        // A session is its user's own.
        (
            Token::clerk(&issuer.url).claim("scope", "read:tasks"),
            None,
            None,
        ),
        (access(json!("")), Some(""), Some("")),
        (access(json!("profile email")), Some(""), Some("")),
        (
            access(json!("read:tasks profile")),
            Some("read:tasks"),
            Some("read:tasks"),
        ),
        (
            access(json!(["write:tasks"])),
            Some("write:tasks"),
            Some("write:tasks"),
        ),
        (access(json!("admin")), Some("admin"), Some("admin")),
        (access(json!("files")), Some(""), Some("")),
        (
            access(json!("https://clerk.example/files")),
            Some("files"),
            Some("files"),
        ),
        (
            access(json!("admin")).claim("sub", "user_2"),
            Some(""),
            Some(""),
        ),
    ] {
        for (asked, expected) in [(Some(all), granted_of_all), (None, granted_unasked)] {
            let answer = ask(&service, &token, asked).await;
            let Some(expected) = expected else {
                // A session has no `scopes` to read: the expression fails, the scope is dropped.
                let (mut found, _) = granted(&answer);
                if asked.is_none() {
                    let mut names: Vec<&str> = found.split(' ').collect();
                    names.sort_by_key(|name| all.find(name));
                    found = names.join(" ");
                }
                assert_eq!(found, "read:tasks write:tasks admin");
                continue;
            };
            assert_eq!(granted(&answer).0, expected, "{asked:?} {}", token.claims);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_whose_rule_fails_is_dropped_alone_and_the_operator_is_told() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            "[apps.web.scopes]\nsound = \"s\"\n\
             [apps.web.scopes.broken]\npermissions = \"b\"\nwhen = 'claims.department == \"x\"'\n\
             [apps.web.scopes.number]\npermissions = \"n\"\nwhen = '1'",
        )
        .start()
        .await;
    let token = Token::clerk(&issuer.url);
    let answer = ask(&service, &token, None).await;
    assert_eq!(granted(&answer), ("sound".to_owned(), vec!["s".to_owned()]));
    let answer = ask(&service, &token, Some("broken")).await;
    assert_eq!(granted(&answer), (String::new(), vec![]));
    assert!(!answer.body.to_string().contains("department"));
    let answer = ask(&service, &token.clone().claim("department", "x"), None).await;
    assert_eq!(granted(&answer).0, "broken sound");

    let mut lines = Vec::new();
    eventually("the exchange is logged", async || {
        lines = service.logged("exchanged");
        !lines.is_empty()
    })
    .await;
    assert_eq!(
        lines[0]["scope_faults"],
        "broken: when = \"claims.department == \\\"x\\\"\": there is no \"department\"; number: neither true nor false"
    );
    assert_eq!(lines[0]["scope"], "sound");
    let explained = service
        .command()
        .input(token.sign(Key::rsa()))
        .run(&["explain"]);
    assert_eq!(explained.code, 0, "{explained:?}");
    let rung = explained
        .stdout
        .lines()
        .find(|line| line.contains("scopes"))
        .unwrap();
    for part in ["all that there are", "granted: sound", "department"] {
        assert!(explained.stdout.contains(part), "{part}: {rung}");
    }
}

#[test]
fn check_shows_the_scopes_of_the_example() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path())
        .env("EXCHEQUER_CONFIG", EXAMPLE)
        .run(&["check"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("ok:    app task-manager: scope "))
        .collect();
    assert_eq!(lines.len(), 9, "{}", ended.stdout);
    assert!(lines.contains(&"read:tasks: task.view"), "{lines:?}");
    assert!(
        lines.contains(&"admin: organization.manage, member.invite, member.remove, role.assign when org.role == \"org:admin\""),
        "{lines:?}"
    );
}
