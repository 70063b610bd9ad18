//! Token exchange (RFC 8693): a client gets a token for a backend that it calls in a user's
//! name; it never gets more than the user's token has, and who acts is never lost.

use crate::support::{Answer, Issuer, Key, Service, Token, eventually, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const API: &str = "https://api.example.com";

/// The issuers `clerk` and `corp`, the apps `web` of both and `other` of `corp`, and clients.
struct World {
    clerk: Issuer,
    corp: Issuer,
    service: Service,
}

impl World {
    async fn start() -> Self {
        let (clerk, corp) = (Issuer::start().await, Issuer::start().await);
        let config = format!(
            r#"
[issuers.clerk]
issuer = {:?}
kind = "clerk"
[issuers.corp]
issuer = {:?}
[apps.web]
issuers = ["clerk", "corp"]
audience = ["{API}", "https://files.example.com", "urn:example:cooperation-context"]
subject = 'sub'
claims.tenant = 'org.slug'
claims.may_act = 'has(claims.delegate) ? claims.delegate : null'
scopes."read:tasks" = ["task.view"]
scopes."write:tasks" = ["task.view", "task.edit"]
scopes.admin = {{ permissions = ["task.all"], when = 'roles == ["org:owner"]' }}
[apps.other]
issuers = ["corp"]
audience = "https://other.example.com"
status_list = true
[clients.gateway]
secret = {{ env = "CLIENT_SECRET" }}
apps = "web"
audience = "https://tasks.internal"
[clients.tasks]
secret = {{ env = "CLIENT_SECRET" }}
apps = "web"
audience = "https://mail.internal"
[clients.support]
secret = {{ env = "CLIENT_SECRET" }}
apps = ["web"]
impersonation = true
[clients.both]
secret = {{ env = "CLIENT_SECRET" }}
apps = ["web", "other"]
[clients.reports]
secret = {{ env = "CLIENT_SECRET" }}
audience = "https://tasks.internal"
"#,
            clerk.url, corp.url
        );
        let service = Service::builder()
            .config(&config)
            .env("CLIENT_SECRET", SECRET)
            .env("EXCHEQUER_AUDIT", "file:audit")
            .start()
            .await;
        Self {
            clerk,
            corp,
            service,
        }
    }

    /// Sends a form, as this client.
    async fn send(&self, client: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(pairs);
        let mut request = self
            .service
            .client
            .post(format!("{}/oauth/token", self.service.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish());
        if let Some(client) = client {
            let basic = STANDARD.encode(format!("{client}:{SECRET}"));
            request = request.header("authorization", format!("Basic {basic}"));
        }
        self.service.send(request).await
    }

    /// Exchanges this token, as this client.
    async fn exchange(&self, client: &str, subject: &str, further: &[(&str, &str)]) -> Answer {
        let pairs = [
            ("grant_type", GRANT),
            ("subject_token", subject),
            ("subject_token_type", JWT),
        ];
        self.send(Some(client), &[&pairs, further].concat()).await
    }

    /// An app token of `web`, as `/auth/exchange` gives it for this token.
    async fn app_token(&self, subject: &str) -> String {
        let body = json!({"session_token": subject, "app": "web"});
        let answer = self.service.exchange(&body).await;
        answer.token().to_owned()
    }

    /// A service token of this client.
    async fn service_token(&self, client: &str) -> String {
        let pairs = [("grant_type", "client_credentials")];
        issued(&self.send(Some(client), &pairs).await).to_owned()
    }

    fn user(&self) -> Token {
        Token::clerk(&self.clerk.url)
    }

    /// A token of `corp` for this subject.
    fn corp(&self, subject: &str) -> Token {
        Token::oidc(&self.corp.url, "corp").claim("sub", subject)
    }
}

fn signed(token: &Token) -> String {
    token.sign(Key::rsa())
}

#[track_caller]
fn issued(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["access_token"].as_str().unwrap()
}

#[track_caller]
fn claims(answer: &Answer) -> Value {
    token::claims(issued(answer))
}

#[track_caller]
fn assert_refused(answer: &Answer, error: &str, code: &str) {
    answer.assert_refused(400, code);
    assert_eq!(answer.body["error"], error, "{}", answer.body);
}

#[tokio::test]
async fn rfc_8693_2_3_a_providers_token_is_exchanged_for_a_resource() {
    let world = World::start().await;
    let subject = signed(&world.user());
    let further = [("resource", "https://files.example.com")];
    let answer = world.exchange("gateway", &subject, &further).await;
    let compact = issued(&answer).to_owned();
    assert_eq!(
        answer.body,
        json!({
            "access_token": compact, "issued_token_type": JWT, "token_type": "Bearer",
            "expires_in": 600, "scope": "read:tasks write:tasks",
        }),
        "RFC 8693 §2.2.1 and nothing else"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    let said = token::claims(&compact);
    for (claim, value) in [
        ("sub", json!("user_1")),
        ("aud", json!("https://files.example.com")),
        ("client_id", json!("web")),
        ("idp", json!(world.clerk.url)),
        ("sid", json!("sess_1")),
        ("org_id", json!("org_1")),
        ("tenant", json!("acme")),
        ("permissions", json!(["task.edit", "task.view"])),
        ("act", Value::Null),
    ] {
        assert_eq!(said[claim], value, "{claim}");
    }
    // §2.2.1: an access token, where that is asked for.
    let further = [("requested_token_type", ACCESS_TOKEN), ("scope", "admin")];
    let answer = world.exchange("gateway", &subject, &further).await;
    assert_eq!(answer.body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!(
        answer.body["scope"], "",
        "less was granted than was asked for"
    );

    let mut event = Value::Null;
    eventually("it is in the audit log", async || {
        let events = std::fs::read_to_string(world.service.dir().join("audit")).unwrap();
        let mut lines = events.lines();
        let found = lines.find_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["audience"] == "https://files.example.com").then_some(event)
        });
        event = found.unwrap_or_default();
        !event.is_null()
    })
    .await;
    assert_eq!(
        (&event["client"], &event["app"]),
        (&json!("gateway"), &json!("web"))
    );
}

#[tokio::test]
async fn rfc_8693_a_1_impersonation_is_for_an_audience_by_its_name() {
    let world = World::start().await;
    let subject = signed(&world.corp("bdc@example.net"));
    let further = [
        ("audience", "urn:example:cooperation-context"),
        ("app", "web"),
    ];
    let answer = world.exchange("both", &subject, &further).await;
    let said = claims(&answer);
    assert_eq!(said["aud"], "urn:example:cooperation-context");
    assert_eq!(said["sub"], "bdc@example.net");
    assert_eq!(said.get("act"), None);
}

#[tokio::test]
async fn rfc_8693_a_2_delegation_tells_the_actor_that_may_act() {
    let world = World::start().await;
    let may_act = json!({"sub": "admin@example.net"});
    let subject = signed(&world.corp("bdc@example.net").claim("may_act", may_act));
    let actor = signed(&world.corp("admin@example.net"));
    let with = |actor: &str| {
        [
            ("audience", API.to_owned()),
            ("actor_token", actor.to_owned()),
            ("actor_token_type", ID_TOKEN.to_owned()),
        ]
    };
    let exchange = async |actor: &str| {
        let further = with(actor);
        let further = further
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        world.exchange("gateway", &subject, &further).await
    };
    let said = claims(&exchange(&actor).await);
    assert_eq!(said["sub"], "bdc@example.net");
    assert_eq!(
        said["act"],
        json!({"sub": "admin@example.net", "iss": world.corp.url})
    );
    // §4.4: nobody else may, not even the client by itself, nor a namesake of another issuer.
    let other = signed(&world.corp("mallory@example.net"));
    assert_refused(
        &exchange(&other).await,
        "invalid_request",
        "actor_not_allowed",
    );
    let namesake = signed(&world.user().claim("sub", "admin@example.net"));
    assert_refused(
        &exchange(&namesake).await,
        "invalid_request",
        "actor_not_allowed",
    );
    let answer = world.exchange("gateway", &subject, &[]).await;
    assert_refused(&answer, "invalid_request", "actor_not_allowed");
    // One that names the client lets it ask, of a provider's token and of one of ours.
    let may_act = json!({"sub": "gateway", "iss": "http://localhost:8080"});
    let subject = signed(&world.corp("u").claim("may_act", may_act.clone()));
    assert_eq!(
        claims(&world.exchange("gateway", &subject, &[]).await).get("act"),
        None
    );
    let answer = world.exchange("tasks", &subject, &[]).await;
    assert_refused(&answer, "invalid_request", "actor_not_allowed");
    let app_token = world
        .app_token(&signed(&world.corp("u").claim("delegate", may_act.clone())))
        .await;
    assert_eq!(token::claims(&app_token)["may_act"], may_act);
    let answer = world.exchange("tasks", &app_token, &[]).await;
    assert_refused(&answer, "invalid_request", "actor_not_allowed");
    let answer = world.exchange("support", &app_token, &[]).await;
    assert_refused(&answer, "invalid_request", "actor_not_allowed");
    let said = claims(&world.exchange("gateway", &app_token, &[]).await);
    assert_eq!(said["act"], json!({"sub": "gateway"}));
    assert_eq!(said["may_act"], may_act, "a restriction is never lost");
}

#[tokio::test]
async fn who_may_act_is_not_forgotten_on_the_way_and_no_namesake_passes() {
    let world = World::start().await;
    let may_act = json!({"sub": "reports"});
    let subject = signed(&world.corp("u").claim("may_act", may_act.clone()));
    let app_token = world.app_token(&subject).await;
    assert_eq!(token::claims(&app_token)["may_act"], may_act);
    for token in [&subject, &app_token] {
        let answer = world.exchange("gateway", token, &[("app", "web")]).await;
        assert_refused(&answer, "invalid_request", "actor_not_allowed");
    }
    // A user of that name is not the client of that name.
    let namesake = world.app_token(&signed(&world.corp("reports"))).await;
    let further = [
        ("app", "web"),
        ("actor_token", namesake.as_str()),
        ("actor_token_type", ACCESS_TOKEN),
    ];
    let answer = world.exchange("gateway", &subject, &further).await;
    assert_refused(&answer, "invalid_request", "actor_not_allowed");
}

#[tokio::test]
async fn rfc_8693_4_1_actors_are_nested_the_present_one_outside() {
    let world = World::start().await;
    let first = world.app_token(&signed(&world.user())).await;
    let second = world
        .exchange("gateway", &first, &[("audience", "https://tasks.internal")])
        .await;
    let (before, said) = (token::claims(&first), claims(&second));
    assert_eq!(said["act"], json!({"sub": "gateway"}));
    assert_eq!(said["aud"], "https://tasks.internal");
    for carried in [
        "iss",
        "sub",
        "client_id",
        "idp",
        "sid",
        "org_id",
        "org_slug",
        "roles",
        "scope",
        "permissions",
        "auth_time",
        "tenant",
    ] {
        assert_eq!(said[carried], before[carried], "{carried}");
        assert!(!said[carried].is_null(), "{carried}");
    }
    assert_ne!(said["jti"], before["jti"]);
    assert!(
        said["exp"].as_i64() <= before["exp"].as_i64(),
        "never for longer"
    );
    assert_eq!(token::header(issued(&second))["typ"], "JWT");

    let third = world
        .exchange(
            "tasks",
            issued(&second),
            &[("audience", "https://mail.internal")],
        )
        .await;
    assert_eq!(
        claims(&third)["act"],
        json!({"sub": "tasks", "act": {"sub": "gateway"}})
    );
    // The same one acts on; who acted before does not come back outside.
    let again = world.exchange("tasks", issued(&third), &[]).await;
    assert_eq!(claims(&again)["act"], claims(&third)["act"]);
    assert_eq!(claims(&again)["aud"], "https://mail.internal", "as before");
    let cyclic = world.exchange("gateway", issued(&third), &[]).await;
    assert_refused(&cyclic, "invalid_request", "delegation_cyclic");
    // Impersonation adds nobody, and strips nobody.
    let unnamed = world.exchange("support", &first, &[]).await;
    assert_eq!(claims(&unnamed).get("act"), None);
    let unnamed = world.exchange("support", issued(&third), &[]).await;
    assert_eq!(claims(&unnamed)["act"], claims(&third)["act"]);
    // A provider's impersonated session keeps its actor too.
    let impersonated = world
        .user()
        .claim("act", json!({"sub": "user_admin", "iss": "https://x"}));
    let said = claims(&world.exchange("gateway", &signed(&impersonated), &[]).await);
    assert_eq!(
        said["act"],
        json!({"sub": "user_admin", "iss": "https://x"})
    );

    // Gateways that ask with the audience take it, and no others.
    let verify = async |query: &str| {
        let url = format!("{}/auth/verify{query}", world.service.url);
        let request = world.service.client.get(url).bearer_auth(issued(&second));
        world.service.send(request).await
    };
    let admitted = verify("?audience=https%3A%2F%2Ftasks.internal&app=web").await;
    assert_eq!(
        (admitted.status, admitted.header("x-user-id")),
        (200, "user_1")
    );
    verify("")
        .await
        .assert_refused(401, "app_token_audience_mismatch");
    verify("?audience=https%3A%2F%2Fmail.internal")
        .await
        .assert_refused(401, "app_token_audience_mismatch");
}

#[tokio::test]
async fn scopes_are_only_ever_narrowed_and_permissions_with_them() {
    let world = World::start().await;
    let first = world.app_token(&signed(&world.user())).await;
    let less = world
        .exchange("gateway", &first, &[("scope", "read:tasks")])
        .await;
    assert_eq!(less.body["scope"], "read:tasks");
    let said = claims(&less);
    assert_eq!(
        (&said["scope"], &said["permissions"]),
        (&json!("read:tasks"), &json!(["task.view"]))
    );
    for (token, scope) in [
        (issued(&less), "write:tasks"),
        (issued(&less), "read:tasks write:tasks"),
        (&first, "admin"),
        (&first, "read:tasks unknown"),
        (&first, "READ:TASKS"),
    ] {
        let answer = world.exchange("gateway", token, &[("scope", scope)]).await;
        assert_refused(&answer, "invalid_scope", "scope_exceeds_token");
    }
    let again = world.exchange("gateway", issued(&less), &[]).await;
    assert_eq!(claims(&again)["permissions"], json!(["task.view"]));
    let several = [
        ("audience", "https://tasks.internal"),
        ("audience", API),
        ("resource", API),
    ];
    let several = world.exchange("gateway", &first, &several).await;
    assert_eq!(
        claims(&several)["aud"],
        json!(["https://tasks.internal", API])
    );
    // Of what a request says of itself (threats B11), nothing enters a token.
    let smuggled = [
        ("sub", "user_2"),
        ("ttl", "86400"),
        ("roles", "org:owner"),
        ("act", "{}"),
    ];
    let said = claims(&world.exchange("gateway", &first, &smuggled).await);
    assert_eq!(
        (&said["sub"], &said["roles"]),
        (&json!("user_1"), &json!(["org:admin"]))
    );
}

#[tokio::test]
async fn nothing_is_prolonged_and_what_was_revoked_is_refused() {
    let world = World::start().await;
    let first = world.app_token(&signed(&world.user())).await;
    world.service.shift_clocks(500, 500);
    let second = world.exchange("gateway", &first, &[]).await;
    let left = second.body["expires_in"].as_i64().unwrap();
    assert!((90..=100).contains(&left), "{left}");
    assert_eq!(claims(&second)["exp"], token::claims(&first)["exp"]);
    let body = json!({"session_token": first});
    world
        .service
        .exchange(&body)
        .await
        .assert_refused(401, "subject_token_is_app_token");
    world.service.shift_clocks(700, 700);
    for expired in [first.as_str(), issued(&second)] {
        let answer = world.exchange("gateway", expired, &[]).await;
        assert_refused(&answer, "invalid_request", "app_token_expired");
    }
    world.service.shift_clocks(0, 0);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", &first)
        .append_pair("client_id", "web")
        .finish();
    let request = world
        .service
        .client
        .post(format!("{}/oauth/revoke", world.service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(world.service.send(request).await.status, 200);
    let answer = world.exchange("gateway", &first, &[]).await;
    assert_refused(&answer, "invalid_request", "token_revoked");
}

#[tokio::test]
async fn a_bad_subject_token_is_a_bad_request_here_and_nothing_comes_in_its_place() {
    let world = World::start().await;
    let good = signed(&world.user());
    let first = world.app_token(&good).await;
    let mut forged = first.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let long = format!("{good}{}", "A".repeat(17_000));
    for (subject, code) in [
        (
            signed(&world.user().claim("exp", now() - 100)),
            "subject_token_expired",
        ),
        (
            world.user().sign(Key::other_rsa()),
            "subject_token_signature_invalid",
        ),
        (
            signed(&world.user().claim("iss", "https://x.example")),
            "subject_token_issuer_untrusted",
        ),
        (
            signed(&world.user().claim("sts", "pending")),
            "session_pending",
        ),
        (forged, "app_token_signature_invalid"),
        ("oat_0123456789".to_owned(), "subject_token_type_mismatch"),
        ("a.b".to_owned(), "subject_token_malformed"),
        (long, "subject_token_too_large"),
    ] {
        let answer = world.exchange("gateway", &subject, &[]).await;
        assert_refused(&answer, "invalid_request", code);
        assert!(!answer.body.to_string().contains(&subject), "{code}");
    }
    // CVE-2026-9704: never, then, a token for the client itself.
    let base = [("grant_type", GRANT), ("subject_token_type", JWT)];
    for subject in [vec![], vec![("subject_token", "")]] {
        let pairs = [&base[..], &subject].concat();
        let answer = world.send(Some("gateway"), &pairs).await;
        assert_refused(&answer, "invalid_request", "parameter_malformed");
    }
    let huge = "A".repeat(70_000);
    let answer = world.exchange("gateway", &huge, &[]).await;
    answer.assert_refused(413, "body_too_large");
    // Threats B13: two credentials, one of them good.
    let answer = world
        .exchange("gateway", &good, &[("subject_token", &first)])
        .await;
    assert_refused(&answer, "invalid_request", "parameter_malformed");
    let bad = signed(&world.user().claim("exp", now() - 100));
    let further = [
        ("session_token", good.as_str()),
        ("assertion", good.as_str()),
    ];
    let answer = world.exchange("gateway", &bad, &further).await;
    assert_refused(&answer, "invalid_request", "subject_token_expired");
}

#[tokio::test]
async fn rfc_8693_2_1_parameters_are_what_the_rfc_says() {
    let world = World::start().await;
    let user = signed(&world.user());
    let first = world.app_token(&user).await;
    let access = signed(&world.corp("u").header("typ", "at+jwt"));
    for (subject, kind, further, error, code) in [
        (&user, "", vec![], "invalid_request", "parameter_malformed"),
        (
            &user,
            "jwt",
            vec![],
            "invalid_request",
            "subject_token_type_unsupported",
        ),
        (
            &user,
            "urn:ietf:params:oauth:token-type:saml2",
            vec![],
            "invalid_request",
            "subject_token_type_unsupported",
        ),
        (
            &user,
            "urn:ietf:params:oauth:token-type:refresh_token",
            vec![],
            "invalid_request",
            "subject_token_type_unsupported",
        ),
        (
            &first,
            ID_TOKEN,
            vec![],
            "invalid_request",
            "subject_token_type_mismatch",
        ),
        (
            &access,
            ID_TOKEN,
            vec![],
            "invalid_request",
            "subject_token_type_mismatch",
        ),
        (
            &user,
            JWT,
            vec![(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:refresh_token",
            )],
            "invalid_request",
            "requested_token_type_unsupported",
        ),
        (
            &user,
            JWT,
            vec![(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:saml2",
            )],
            "invalid_request",
            "requested_token_type_unsupported",
        ),
        (
            &user,
            JWT,
            vec![("actor_token", &first)],
            "invalid_request",
            "parameter_malformed",
        ),
        (
            &user,
            JWT,
            vec![("actor_token_type", JWT)],
            "invalid_request",
            "parameter_malformed",
        ),
        (
            &user,
            JWT,
            vec![("actor_token", &first), ("actor_token_type", "jwt")],
            "invalid_request",
            "subject_token_type_unsupported",
        ),
        (
            &user,
            JWT,
            vec![("resource", "files")],
            "invalid_target",
            "resource_malformed",
        ),
        (
            &user,
            JWT,
            vec![("resource", "https://files.example.com#a")],
            "invalid_target",
            "resource_malformed",
        ),
        (
            &user,
            JWT,
            vec![("scope", "a\"b")],
            "invalid_scope",
            "scope_not_allowed",
        ),
        (
            &user,
            JWT,
            vec![("app", "other")],
            "invalid_request",
            "app_unknown",
        ),
        (
            &user,
            JWT,
            vec![("app", "nothing")],
            "invalid_request",
            "app_unknown",
        ),
    ] {
        let base = [
            ("grant_type", GRANT),
            ("subject_token", subject.as_str()),
            ("subject_token_type", kind),
        ];
        let answer = world
            .send(Some("gateway"), &[&base, &further[..]].concat())
            .await;
        assert_refused(&answer, error, code);
    }
    // §2.1: an access token may be what it likes; a JSON body is as good as a form.
    for kind in [ACCESS_TOKEN, ID_TOKEN, JWT] {
        let pairs = [
            ("grant_type", GRANT),
            ("subject_token", &user),
            ("subject_token_type", kind),
        ];
        issued(&world.send(Some("gateway"), &pairs).await);
    }
}

#[tokio::test]
async fn cve_2022_1245_no_client_gets_a_token_for_what_others_may_call() {
    let world = World::start().await;
    let user = signed(&world.user());
    let first = world.app_token(&user).await;
    for (subject, audience) in [
        (&user, "https://mail.internal"),
        (&user, "https://other.example.com"),
        (&first, "https://mail.internal"),
        (&first, "https://other.example.com"),
        (&first, "https://tasks.internal/"),
        (&first, "gateway"),
    ] {
        for further in [
            vec![("audience", audience)],
            vec![("audience", API), ("audience", audience)],
        ] {
            let answer = world.exchange("gateway", subject, &further).await;
            assert_refused(&answer, "invalid_target", "audience_not_allowed");
        }
    }
    // Nor one of a user of an app that is not its own.
    let answer = world
        .service
        .exchange(&json!({"session_token": signed(&world.corp("u")), "app": "other"}))
        .await;
    let foreign = answer.token().to_owned();
    let answer = world.exchange("gateway", &foreign, &[]).await;
    assert_refused(&answer, "invalid_request", "subject_token_not_for_client");
    assert_eq!(
        claims(&world.exchange("both", &foreign, &[]).await)["client_id"],
        "other"
    );
    let answer = world.exchange("both", &foreign, &[("app", "web")]).await;
    assert_refused(&answer, "invalid_request", "app_token_app_mismatch");
    // Where several of its apps fit, it says which; the audience may say it too.
    let corp = signed(&world.corp("u"));
    let answer = world.exchange("both", &corp, &[]).await;
    assert_refused(&answer, "invalid_request", "app_required");
    for further in [("app", "other"), ("audience", "https://other.example.com")] {
        assert_eq!(
            claims(&world.exchange("both", &corp, &[further]).await)["client_id"],
            "other"
        );
    }
    assert_eq!(
        claims(&world.exchange("gateway", &corp, &[]).await)["client_id"],
        "web"
    );
    let answer = world.exchange("reports", &user, &[]).await;
    assert_refused(&answer, "unauthorized_client", "exchange_not_allowed");
}

#[tokio::test]
async fn an_app_without_a_secret_exchanges_its_providers_tokens_alone() {
    let world = World::start().await;
    let user = signed(&world.user());
    let first = world.app_token(&user).await;
    let as_app = async |app: &str, subject: &str, further: &[(&str, &str)]| {
        let pairs = [
            ("grant_type", GRANT),
            ("client_id", app),
            ("subject_token", subject),
            ("subject_token_type", JWT),
        ];
        world.send(None, &[&pairs, further].concat()).await
    };
    let said = claims(&as_app("web", &user, &[("audience", API)]).await);
    assert_eq!((&said["client_id"], said.get("act")), (&json!("web"), None));
    let answer = as_app("web", &first, &[]).await;
    assert_refused(&answer, "invalid_request", "subject_token_is_app_token");
    let answer = as_app("other", &user, &[]).await;
    assert_refused(&answer, "invalid_request", "subject_token_issuer_untrusted");
    let actor = [("actor_token", user.as_str()), ("actor_token_type", JWT)];
    let answer = as_app("web", &user, &actor).await;
    assert_refused(&answer, "unauthorized_client", "exchange_not_allowed");
    let answer = as_app("gateway", &user, &[]).await;
    answer.assert_refused(401, "client_authentication_missing");
    let answer = as_app("nobody", &user, &[]).await;
    answer.assert_refused(401, "client_authentication_missing");
}

#[tokio::test]
async fn actors_are_verified_as_subjects_are() {
    let world = World::start().await;
    let user = signed(&world.user());
    let first = world.app_token(&user).await;
    let exchange = async |client: &str, subject: &str, actor: &str| {
        let actor = [("actor_token", actor), ("actor_token_type", JWT)];
        world.exchange(client, subject, &actor).await
    };
    let own = world.service_token("gateway").await;
    for subject in [&user, &first] {
        let said = claims(&exchange("gateway", subject, &own).await);
        assert_eq!(
            (&said["sub"], &said["act"]),
            (&json!("user_1"), &json!({"sub": "gateway"}))
        );
    }
    // Also who may impersonate says who acts, where it sends an actor token.
    let admin = world.app_token(&signed(&world.corp("admin"))).await;
    for client in ["gateway", "support"] {
        let said = claims(&exchange(client, &first, &admin).await);
        assert_eq!(said["act"], json!({"sub": "admin", "client_id": "web"}));
    }
    let of_other = json!({"session_token": signed(&world.corp("u")), "app": "other"});
    let of_other = world.service.exchange(&of_other).await.token().to_owned();
    let delegated = world.exchange("gateway", &first, &[]).await;
    let mut forged = own.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    for actor in [
        world.service_token("reports").await,
        world.service_token("tasks").await,
        of_other,
        issued(&delegated).to_owned(),
        forged,
        signed(&world.corp("admin").claim("exp", now() - 100)),
        world.corp("admin").sign(Key::other_rsa()),
        signed(&world.corp("admin").claim("iss", "https://x.example")),
        signed(&world.corp("admin").claim("act", json!({"sub": "x"}))),
        "a.b.c".to_owned(),
        "opaque".to_owned(),
    ] {
        let answer = exchange("gateway", &first, &actor).await;
        assert_refused(&answer, "invalid_request", "actor_token_unusable");
    }
    // A service token is nobody's user.
    let answer = world.exchange("gateway", &own, &[]).await;
    assert_refused(&answer, "invalid_request", "subject_token_is_service_token");
    // Nobody acts for itself.
    let answer = exchange("gateway", &user, &user).await;
    assert_refused(&answer, "invalid_request", "delegation_cyclic");
    let answer = exchange("gateway", &first, &first).await;
    assert_refused(&answer, "invalid_request", "delegation_cyclic");
}

#[tokio::test]
async fn chains_of_actors_are_bounded_and_none_in_them_is_lost() {
    let world = World::start().await;
    let chain = |depth: usize| {
        (1..depth).fold(
            json!({"sub": "a0"}),
            |inner, each| json!({"sub": format!("a{each}"), "act": inner}),
        )
    };
    let exchange = async |act: Value| {
        let subject = signed(&world.user().claim("act", act));
        world.exchange("gateway", &subject, &[]).await
    };
    assert_eq!(claims(&exchange(chain(5)).await)["act"], chain(5));
    // serde bounds what is parsed at 128 levels; either way it is refused, and quickly.
    for (depth, code) in [
        (6, "subject_token_claim_malformed"),
        (100, "subject_token_claim_malformed"),
        (500, "subject_token_malformed"),
    ] {
        assert_refused(&exchange(chain(depth)).await, "invalid_request", code);
    }
    for act in [
        json!("a"),
        json!([{"sub": "a"}]),
        json!({"act": {"sub": "a"}}),
        json!({"sub": 1}),
    ] {
        let answer = exchange(act).await;
        assert_refused(&answer, "invalid_request", "subject_token_claim_malformed");
    }
    // Through a fifth it goes, through a sixth it does not.
    let four = world
        .app_token(&signed(&world.user().claim("act", chain(4))))
        .await;
    let five = world.exchange("gateway", &four, &[]).await;
    assert_eq!(
        claims(&five)["act"],
        json!({"sub": "gateway", "act": chain(4)})
    );
    let six = world.exchange("tasks", issued(&five), &[]).await;
    assert_refused(&six, "invalid_request", "delegation_too_deep");
    let own = world.service_token("gateway").await;
    let actor = [("actor_token", own.as_str()), ("actor_token_type", JWT)];
    let subject = signed(&world.user().claim("act", chain(5)));
    let six = world.exchange("gateway", &subject, &actor).await;
    assert_refused(&six, "invalid_request", "delegation_too_deep");
    let cyclic = json!({"sub": "a", "act": {"sub": "gateway"}});
    let subject = signed(&world.user().claim("act", cyclic));
    let cyclic = world.exchange("gateway", &subject, &actor).await;
    assert_refused(&cyclic, "invalid_request", "delegation_cyclic");
}

#[tokio::test]
async fn a_token_that_is_given_again_has_a_place_of_its_own_in_the_status_list() {
    let world = World::start().await;
    let body = json!({"session_token": signed(&world.corp("u")), "app": "other"});
    let first = world.service.exchange(&body).await.token().to_owned();
    let second = world.exchange("both", &first, &[]).await;
    let places =
        [token::claims(&first), claims(&second)].map(|said| said["status"]["status_list"].clone());
    assert_eq!(places[0]["uri"], places[1]["uri"]);
    assert!(
        places.iter().all(|place| place["idx"].is_u64()),
        "{places:?}"
    );
    assert_ne!(places[0]["idx"], places[1]["idx"]);
}
