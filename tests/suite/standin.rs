//! The stand-in for Clerk is faithful: Clerk's own SDK and Svix's take it for the real one.

use crate::support::{Foreign, now, service::client};
use exchequer::clock::Clock;
use exchequer::standin::{Fault, Session, StandIn, TokenKind, Undelivered, known};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warp::Filter;

const PARTY: &str = "http://localhost:3000";

/// The SDK, and the stand-in that it talks to.
struct Clerk {
    standin: Arc<StandIn>,
    sdk: Foreign,
}

impl Clerk {
    async fn start() -> Self {
        Self {
            standin: StandIn::start(Clock::system()).await.unwrap(),
            sdk: Foreign::start("node", &["clerk.mjs"]),
        }
    }

    /// Asks the SDK with another secret key.
    fn ask_as(&mut self, secret_key: &str, call: &str, arguments: Value) -> Value {
        let question = json!({
            "apiUrl": self.standin.api_url(),
            "secretKey": secret_key,
            "call": call,
            "arguments": arguments,
        });
        self.sdk.ask(&question.to_string())
    }

    fn ask(&mut self, call: &str, arguments: Value) -> Value {
        let key = self.standin.secret_key().to_owned();
        self.ask_as(&key, call, arguments)
    }

    /// What the SDK makes of an answer that it takes.
    #[track_caller]
    fn get(&mut self, call: &str, arguments: Value) -> Value {
        let mut answer = self.ask(call, arguments);
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer["value"].take()
    }

    /// What a back end sees of a request with this token.
    #[track_caller]
    fn authenticate(&mut self, token: &str, accepted: &str) -> Value {
        let mut options = json!({"acceptsToken": accepted});
        // The SDK would look for `azp` in every JWT, and only session tokens have it.
        if accepted == "session_token" {
            options["authorizedParties"] = json!([PARTY]);
        }
        self.get("authenticateRequest", json!([token, options]))
    }
}

/// Asserts members of an object, by pointer.
#[track_caller]
fn assert_members(object: &Value, members: &[(&str, Value)]) {
    for (pointer, expected) in members {
        assert_eq!(
            object.pointer(pointer).unwrap_or(&Value::Null),
            expected,
            "{pointer} of {object:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_takes_session_tokens_of_both_versions() {
    let mut clerk = Clerk::start().await;
    // A role that was changed is the one that counts.
    clerk.standin.world(|world| {
        world.add_membership(known::USER, known::ORGANIZATION, "org:member");
        world.add_membership(known::USER, known::ORGANIZATION, "org:admin");
    });
    for version in [1, 2] {
        let token = clerk.standin.session_token(&Session {
            version: Some(version),
            ..Session::default()
        });
        let options = json!({"authorizedParties": [PARTY]});
        let claims = clerk.get("verifyToken", json!([token, options]));
        assert_members(
            &claims,
            &[
                ("/iss", json!(clerk.standin.issuer())),
                ("/sub", json!(known::USER)),
                ("/sid", json!(known::SESSION)),
                ("/azp", json!(PARTY)),
                ("/aud", Value::Null),
            ],
        );
        let seen = clerk.authenticate(&token, "session_token");
        assert_members(
            &seen,
            &[
                ("/authenticated", json!(true)),
                ("/auth/userId", json!(known::USER)),
                ("/auth/sessionId", json!(known::SESSION)),
                ("/auth/sessionStatus", json!("active")),
                ("/auth/orgId", json!(known::ORGANIZATION)),
                ("/auth/orgSlug", json!("acme")),
                ("/auth/orgRole", json!("org:admin")),
                (
                    "/auth/orgPermissions",
                    json!(["org:tasks:create", "org:tasks:read"]),
                ),
                ("/auth/factorVerificationAge", json!([2, -1])),
                ("/auth/actor", Value::Null),
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_unpacks_the_permissions_that_the_world_has() {
    let mut clerk = Clerk::start().await;
    let many: Vec<String> = (0..70).map(|n| format!("org:wide:p{n}")).collect();
    let mixed = json!([
        "org:a:x",
        "org:b:y",
        "org:a:z",
        "org:sys_domains:read",
        "org:c:x"
    ]);
    for (permissions, expected) in [
        (mixed, json!(["org:a:x", "org:a:z", "org:b:y", "org:c:x"])),
        // More than 64 bits.
        (json!(many), json!(many)),
        (json!([]), json!([])),
    ] {
        clerk.standin.world(|world| {
            for membership in world.memberships.values_mut() {
                membership["permissions"] = permissions.clone();
            }
        });
        let token = clerk.standin.session_token(&Session::default());
        let seen = clerk.authenticate(&token, "session_token");
        let mut unpacked: Vec<Value> = seen["auth"]["orgPermissions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut expected = expected.as_array().unwrap().clone();
        for list in [&mut unpacked, &mut expected] {
            list.sort_by_key(ToString::to_string);
        }
        assert_eq!(unpacked, expected, "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_tokens_follow_the_world_and_the_session_asked_for() {
    let mut clerk = Clerk::start().await;
    clerk.standin.world(|world| {
        world.add_user("user_2");
        let session = world.add_session("sess_2", "user_2", "active");
        session["actor"] = json!({"sub": "user_support"});
        world.add_session("sess_3", "user_2", "pending");
    });
    let of = |session: &str| Session {
        session: Some(session.to_owned()),
        ..Session::default()
    };
    let token = clerk.standin.session_token(&of("sess_2"));
    let seen = clerk.authenticate(&token, "session_token");
    assert_members(
        &seen,
        &[
            ("/auth/userId", json!("user_2")),
            ("/auth/orgId", Value::Null),
            ("/auth/actor/sub", json!("user_support")),
        ],
    );
    let token = clerk.standin.session_token(&of("sess_3"));
    assert_eq!(
        clerk.get("verifyToken", json!([token, {}]))["sts"],
        "pending"
    );
    let seen = clerk.authenticate(&token, "session_token");
    assert_eq!(seen["auth"]["userId"], Value::Null, "{seen}");

    for (session, reason) in [
        (
            Session {
                age: 90,
                ..Session::default()
            },
            "token-expired",
        ),
        (
            Session {
                age: -60,
                ..Session::default()
            },
            "token-not-active-yet",
        ),
        (
            Session {
                claims: json!({"azp": null}).as_object().unwrap().clone(),
                ..Session::default()
            },
            "token-invalid-authorized-parties",
        ),
    ] {
        let token = clerk.standin.session_token(&session);
        let options = json!({"authorizedParties": [PARTY]});
        let refused = clerk.ask("verifyToken", json!([token, options]));
        assert_eq!(refused["error"]["reason"], reason, "{refused}");
    }

    // Another instance's token is nobody's here.
    let other = StandIn::start(Clock::system()).await.unwrap();
    let token = other.session_token(&Session::default());
    let refused = clerk.ask("verifyToken", json!([token, {}]));
    assert_eq!(refused["error"]["reason"], "jwk-kid-mismatch", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_reads_sessions_users_and_memberships() {
    let mut clerk = Clerk::start().await;
    let began = now() * 1000;
    clerk.standin.world(|world| {
        for n in 1..=12 {
            world.add_membership(known::USER, &format!("org_{n}"), "org:member");
        }
        world.add_membership("user_other", "org_1", "org:admin");
    });

    let session = clerk.get("sessions.getSession", json!([known::SESSION]));
    assert_members(
        &session,
        &[
            ("/id", json!(known::SESSION)),
            ("/userId", json!(known::USER)),
            ("/status", json!("active")),
            ("/lastActiveOrganizationId", json!(known::ORGANIZATION)),
            ("/actor", Value::Null),
            ("/latestActivity/isMobile", json!(true)),
        ],
    );
    for time in ["createdAt", "updatedAt", "lastActiveAt"] {
        let at = session[time].as_i64().unwrap();
        assert!((began - 60_000..=began + 60_000).contains(&at), "{session}");
    }
    assert!(session["expireAt"].as_i64().unwrap() > began, "{session}");

    let user = clerk.get("users.getUser", json!([known::USER]));
    assert_members(
        &user,
        &[
            ("/id", json!(known::USER)),
            ("/firstName", json!("Ada")),
            (
                "/emailAddresses/0/emailAddress",
                json!("2standin@example.com"),
            ),
            ("/emailAddresses/0/verification/status", json!("verified")),
            ("/banned", json!(false)),
            ("/externalId", Value::Null),
        ],
    );
    assert_eq!(
        user["primaryEmailAddressId"],
        user["emailAddresses"][0]["id"]
    );
    for name in ["publicMetadata", "locale", "createdAt", "deleteSelfEnabled"] {
        assert!(!user[name].is_null(), "{name} of {user}");
    }

    let mut seen = Vec::new();
    for (offset, expected) in [(0, 5), (5, 5), (10, 3), (13, 0)] {
        let parameters = json!([{"userId": known::USER, "limit": 5, "offset": offset}]);
        let page = clerk.get("users.getOrganizationMembershipList", parameters);
        assert_eq!(page["totalCount"], 13);
        let data = page["data"].as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        for membership in data {
            assert_eq!(membership["publicUserData"]["userId"], known::USER);
            assert!(membership["role"].as_str().unwrap().starts_with("org:"));
            seen.push(
                membership["organization"]["id"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    let all = (1..=12).map(|n| format!("org_{n}"));
    let all: Vec<String> = [known::ORGANIZATION.to_owned()]
        .into_iter()
        .chain(all)
        .collect();
    assert_eq!(seen, all, "each once");
    let parameters = json!([{"userId": known::USER}]);
    let page = clerk.get("users.getOrganizationMembershipList", parameters);
    assert_eq!(
        page["data"].as_array().unwrap().len(),
        10,
        "a page by default"
    );

    let calls = clerk.standin.calls();
    let session = format!("GET /v1/sessions/{}", known::SESSION);
    assert!(calls.contains(&session), "{calls:?}");
    let page = format!(
        "GET /v1/users/{}/organization_memberships?limit=5&offset=10",
        known::USER
    );
    assert!(calls.contains(&page), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_makes_and_revokes_through_it() {
    let mut clerk = Clerk::start().await;
    clerk.standin.world(|world| {
        let claims = json!({"aud": "hasura", "tier": "gold"});
        world.templates.insert("hasura".to_owned(), claims);
    });
    let token = clerk.get("sessions.getToken", json!([known::SESSION]));
    let jwt = token["jwt"].as_str().unwrap();
    let claims = clerk.get("verifyToken", json!([jwt, {}]));
    assert_members(
        &claims,
        &[("/sid", json!(known::SESSION)), ("/v", json!(2))],
    );
    assert_eq!(lifetime(&claims), 60);

    let arguments = json!([known::SESSION, "hasura", 600]);
    let token = clerk.get("sessions.getToken", arguments);
    let jwt = token["jwt"].as_str().unwrap().to_owned();
    let claims = clerk.get("verifyToken", json!([jwt, {"audience": "hasura"}]));
    assert_members(
        &claims,
        &[
            ("/tier", json!("gold")),
            ("/sub", json!(known::USER)),
            ("/sid", Value::Null),
        ],
    );
    assert_eq!(lifetime(&claims), 600);
    let seen = clerk.authenticate(&jwt, "session_token");
    assert_eq!(seen["reason"], "token-type-mismatch", "{seen}");

    for (arguments, status, code) in [
        (json!([known::SESSION, "none"]), 404, "resource_not_found"),
        (json!(["sess_none"]), 404, "resource_not_found"),
        (
            json!([known::SESSION, "hasura", 1]),
            422,
            "form_param_format_invalid",
        ),
    ] {
        let refused = clerk.ask("sessions.getToken", arguments);
        assert_refused(&refused, status, code);
    }

    let revoked = clerk.get("sessions.revokeSession", json!([known::SESSION]));
    assert_eq!(revoked["status"], "revoked");
    let session = clerk.get("sessions.getSession", json!([known::SESSION]));
    assert_eq!(session["status"], "revoked");
    let refused = clerk.ask("sessions.getToken", json!([known::SESSION]));
    assert_refused(&refused, 404, "resource_not_found");
    let refused = clerk.ask("sessions.verifySession", json!([known::SESSION, jwt]));
    assert_refused(&refused, 410, "operation_deprecated_error");
}

fn lifetime(claims: &Value) -> i64 {
    claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
}

/// An error of Clerk's API, as its SDK shows it.
#[track_caller]
fn assert_refused(answer: &Value, status: u16, code: &str) {
    assert_members(
        answer,
        &[
            ("/error/name", json!("ClerkAPIResponseError")),
            ("/error/status", json!(status)),
            ("/error/codes", json!([code])),
            ("/error/traced", json!(true)),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_verifies_opaque_tokens_through_it() {
    let mut clerk = Clerk::start().await;
    let machine_key = clerk.standin.machine_secret_key().to_owned();
    clerk.standin.world(|world| {
        let scopes = &["profile", "read:tasks"];
        world.add_token("oat_1", TokenKind::OAuth, known::USER, scopes);
        world.add_token("mt_1", TokenKind::Machine, "mch_1", &["mch_2"]);
        let key = world.add_token("ak_1", TokenKind::ApiKey, known::ORGANIZATION, scopes);
        key["claims"] = json!({"tier": "gold"});
    });
    let client_id = clerk.standin.oauth_client().0.to_owned();

    let token = clerk.get("idPOAuthAccessToken.verify", json!(["oat_1"]));
    assert_members(
        &token,
        &[
            ("/clientId", json!(client_id)),
            ("/type", json!("oauth:access_token")),
            ("/subject", json!(known::USER)),
            ("/scopes", json!(["profile", "read:tasks"])),
            ("/revoked", json!(false)),
            ("/expired", json!(false)),
        ],
    );
    // Of these times alone the SDK says that they are seconds.
    let left = token["expiration"].as_i64().unwrap() - now();
    assert!((3500..=3600).contains(&left), "{token}");

    let token = clerk.get("m2m.verify", json!([{"token": "mt_1"}]));
    assert_members(
        &token,
        &[
            ("/subject", json!("mch_1")),
            ("/scopes", json!(["mch_2"])),
            ("/claims", Value::Null),
        ],
    );
    let left = token["expiration"].as_i64().unwrap() - now() * 1000;
    assert!((3_500_000..=3_600_000).contains(&left), "{token}");
    let arguments = json!([{"token": "mt_1", "machineSecretKey": machine_key}]);
    assert_eq!(clerk.get("m2m.verify", arguments), token);

    let key = clerk.get("apiKeys.verify", json!(["ak_1"]));
    assert_members(
        &key,
        &[
            ("/subject", json!(known::ORGANIZATION)),
            ("/claims/tier", json!("gold")),
            ("/expiration", Value::Null),
        ],
    );

    for (accepted, token, subject) in [
        ("oauth_token", "oat_1", json!(known::USER)),
        ("m2m_token", "mt_1", json!("mch_1")),
        ("api_key", "ak_1", json!(known::ORGANIZATION)),
    ] {
        let seen = clerk.authenticate(token, accepted);
        assert_eq!(seen["authenticated"], true, "{seen}");
        assert_eq!(seen["auth"]["tokenType"], accepted);
        let subjects = ["userId", "machineId", "subject", "orgId"].map(|name| &seen["auth"][name]);
        assert!(subjects.contains(&&subject), "{seen}");
    }

    for (call, argument) in [
        ("idPOAuthAccessToken.verify", json!("oat_none")),
        // A token of another kind is no token here.
        ("idPOAuthAccessToken.verify", json!("ak_1")),
        ("m2m.verify", json!({"token": "mt_none"})),
        ("apiKeys.verify", json!("ak_none")),
    ] {
        let refused = clerk.ask(call, json!([argument]));
        assert_refused(&refused, 404, "resource_not_found");
    }
    let refused = clerk.ask("apiKeys.verify", json!([""]));
    assert_refused(&refused, 422, "form_param_missing");
    assert_eq!(refused["error"]["parameters"], json!(["secret"]));

    clerk.standin.world(|world| {
        world.tokens.get_mut("oat_1").unwrap()["expiration"] = json!(now() - 1);
        world.tokens.get_mut("mt_1").unwrap()["revoked"] = json!(true);
    });
    let token = clerk.get("idPOAuthAccessToken.verify", json!(["oat_1"]));
    assert_eq!(token["expired"], true, "{token}");
    let token = clerk.get("m2m.verify", json!([{"token": "mt_1"}]));
    assert_eq!(token["revoked"], true, "{token}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_takes_access_tokens_and_machine_tokens_that_are_jwts() {
    let mut clerk = Clerk::start().await;
    let oauth = clerk.standin.oauth_jwt(known::USER, &["profile", "email"]);
    let seen = clerk.authenticate(&oauth, "oauth_token");
    assert_members(
        &seen,
        &[
            ("/authenticated", json!(true)),
            ("/auth/userId", json!(known::USER)),
            ("/auth/scopes", json!(["profile", "email"])),
            ("/auth/clientId", json!(clerk.standin.oauth_client().0)),
        ],
    );
    let known_to_it = clerk.get("idPOAuthAccessToken.verify", json!([oauth]));
    assert_eq!(known_to_it["id"], seen["auth"]["id"]);
    clerk.standin.world(|world| {
        world.tokens.get_mut(&oauth).unwrap()["revoked"] = json!(true);
    });
    for token in [oauth.as_str(), "a.b.c"] {
        let inactive = clerk.get("idPOAuthAccessToken.verify", json!([token]));
        assert_eq!(inactive["active"], false, "{inactive}");
    }

    let machine = clerk.standin.machine_jwt("mch_1", &["mch_2"]);
    let token = clerk.get("m2m.verify", json!([{"token": machine}]));
    assert_members(
        &token,
        &[("/subject", json!("mch_1")), ("/scopes", json!(["mch_2"]))],
    );
    let seen = clerk.authenticate(&machine, "m2m_token");
    assert_members(
        &seen,
        &[
            ("/authenticated", json!(true)),
            ("/auth/machineId", json!("mch_1")),
            ("/auth/scopes", json!(["mch_2"])),
        ],
    );

    // Neither is a session token.
    for token in [oauth, machine] {
        let seen = clerk.authenticate(&token, "session_token");
        assert_eq!(seen["authenticated"], false, "{seen}");
        let refused = clerk.ask("verifyToken", json!([token, {}]));
        assert_eq!(refused["error"]["reason"], "token-invalid", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_sdk_understands_its_refusals() {
    let mut clerk = Clerk::start().await;
    let session = json!([known::SESSION]);
    let refused = clerk.ask_as("sk_test_another", "sessions.getSession", session.clone());
    assert_refused(&refused, 401, "clerk_key_invalid");
    let token = clerk.standin.session_token(&Session::default());
    let refused = clerk.ask_as("sk_test_another", "verifyToken", json!([token, {}]));
    assert_eq!(
        refused["error"]["reason"], "secret-key-invalid",
        "{refused}"
    );
    // A machine's key opens nothing but the verification of machine tokens.
    let machine_key = clerk.standin.machine_secret_key().to_owned();
    let refused = clerk.ask_as(&machine_key, "sessions.getSession", session.clone());
    assert_refused(&refused, 401, "clerk_key_invalid");

    for (call, id) in [
        ("sessions.getSession", "sess_none"),
        ("users.getUser", "user_none"),
    ] {
        let refused = clerk.ask(call, json!([id]));
        assert_refused(&refused, 404, "resource_not_found");
    }
    let parameters = json!([{"userId": "user_none"}]);
    let refused = clerk.ask("users.getOrganizationMembershipList", parameters);
    assert_refused(&refused, 404, "resource_not_found");
    let parameters = json!([{"userId": known::USER, "limit": 501}]);
    let refused = clerk.ask("users.getOrganizationMembershipList", parameters);
    assert_refused(&refused, 422, "form_param_format_invalid");
    assert_eq!(refused["error"]["parameters"], json!(["limit"]));

    let url = format!("{}/v1/sessions/{}", clerk.standin.api_url(), known::SESSION);
    let answer = client().get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["errors"][0]["code"], "authentication_invalid");

    clerk
        .standin
        .fault(Some(Fault::RateLimited { retry_after: 7 }));
    let refused = clerk.ask("sessions.getSession", session.clone());
    assert_refused(&refused, 429, "too_many_requests");
    assert_eq!(refused["error"]["retryAfter"], 7);
    for (status, code) in [
        (401, "authentication_invalid"),
        (403, "authorization_invalid"),
        (422, "form_param_format_invalid"),
        (500, "internal_clerk_error"),
        (503, "internal_clerk_error"),
    ] {
        clerk.standin.fault(Some(Fault::Status(status)));
        let refused = clerk.ask("sessions.getSession", session.clone());
        assert_refused(&refused, status, code);
    }
    for fault in [Fault::Truncated, Fault::Hangup] {
        clerk.standin.fault(Some(fault));
        let refused = clerk.ask("sessions.getSession", session.clone());
        assert_eq!(
            refused["error"]["codes"],
            json!(["unexpected_error"]),
            "{fault:?}: {refused}"
        );
    }
    clerk.standin.fault(None);
    assert_eq!(
        clerk.get("sessions.getSession", session)["status"],
        "active"
    );
}

#[tokio::test]
async fn a_fault_lies_on_what_is_asked_with_a_secret_and_not_on_the_key_set() {
    let standin = StandIn::start(Clock::system()).await.unwrap();
    let url = |path: &str| format!("{}{path}", standin.issuer());
    let session = async || {
        let request = client().get(url("/v1/sessions/sess_2standin"));
        let request = request.bearer_auth(standin.secret_key());
        request.timeout(Duration::from_secs(2)).send().await
    };
    standin.fault(Some(Fault::Html));
    let answer = session().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    standin.fault(Some(Fault::Truncated));
    let answer = session().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "it breaks off");
    standin.fault(Some(Fault::Stall));
    assert!(session().await.unwrap_err().is_timeout());
    let key_set = client().get(url("/.well-known/jwks.json")).send().await;
    assert_eq!(key_set.unwrap().status(), 200);
    standin.fault(None);
    standin.delay(Duration::from_millis(300));
    let began = std::time::Instant::now();
    assert_eq!(session().await.unwrap().status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn introspection_answers_its_client_and_nobody_else() {
    let standin = StandIn::start(Clock::system()).await.unwrap();
    standin.world(|world| {
        world.add_token(
            "oat_1",
            TokenKind::OAuth,
            known::USER,
            &["profile", "email"],
        );
        world.add_token("oat_2", TokenKind::OAuth, known::USER, &[])["revoked"] = json!(true);
        world.add_token("oat_3", TokenKind::OAuth, known::USER, &[])["expiration"] = json!(1);
        world.add_token("ak_1", TokenKind::ApiKey, known::USER, &[]);
    });
    let metadata = format!(
        "{}/.well-known/oauth-authorization-server",
        standin.issuer()
    );
    let answer = client().get(metadata).send().await.unwrap();
    let metadata: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(metadata["issuer"], standin.issuer());
    let endpoint = metadata["introspection_endpoint"].as_str().unwrap();
    let ask = async |id: &str, secret: &str, form: String| {
        let answer = client()
            .post(endpoint)
            .basic_auth(id, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, body)
    };
    let (id, secret) = standin.oauth_client();
    let jwt = standin.oauth_jwt(known::USER, &["profile"]);
    for (token, scope) in [("oat_1", "profile email"), (jwt.as_str(), "profile")] {
        let (status, body) = ask(id, secret, format!("token={token}")).await;
        assert_eq!(status, 200);
        assert_members(
            &body,
            &[
                ("/active", json!(true)),
                ("/client_id", json!(id)),
                ("/sub", json!(known::USER)),
                ("/scope", json!(scope)),
                ("/token_type", json!("Bearer")),
            ],
        );
        let left = body["exp"].as_i64().unwrap() - now();
        assert!((3500..=3600).contains(&left), "{body}");
    }
    for token in ["oat_2", "oat_3", "oat_none", "ak_1"] {
        let (status, body) = ask(id, secret, format!("token={token}")).await;
        assert_eq!((status, body), (200, json!({"active": false})), "{token}");
    }
    for (id, secret, form, status, error) in [
        (id, "wrong", "token=oat_1", 401, "invalid_client"),
        ("wrong", secret, "token=oat_1", 401, "invalid_client"),
        (id, secret, "", 400, "invalid_request"),
    ] {
        let (answered, body) = ask(id, secret, form.to_owned()).await;
        assert_eq!((answered, &body["error"]), (status, &json!(error)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn svix_and_clerks_sdk_take_its_webhooks_and_none_that_was_touched() {
    let mut clerk = Clerk::start().await;
    let standin = Arc::clone(&clerk.standin);
    standin.world(|world| {
        world.add_session("sess_2", known::USER, "active");
        world.add_user("user_gone");
    });
    let secret = standin.webhook_secret();
    let ended = standin.end_session(known::SESSION, "ended").unwrap();
    let removed = standin.end_session("sess_2", "removed").unwrap();
    let deleted = standin.delete_user("user_gone").unwrap();
    assert!(standin.end_session("sess_none", "ended").is_none());
    assert!(standin.delete_user("user_gone").is_none());
    for (event, kind, id, status) in [
        (&ended, "session.ended", known::SESSION, json!("ended")),
        (&removed, "session.removed", "sess_2", json!("removed")),
        (&deleted, "user.deleted", "user_gone", Value::Null),
    ] {
        let (headers, body) = standin.webhook(event, "msg_1", now());
        let headers = object(headers);
        let taken = clerk.get("svix", json!([secret, headers, body]));
        assert_eq!(&taken, event);
        assert_members(
            &taken,
            &[
                ("/object", json!("event")),
                ("/instance_id", json!(standin.instance_id())),
            ],
        );
        let taken = clerk.get("verifyWebhook", json!([secret, headers, body]));
        assert_members(
            &taken,
            &[
                ("/type", json!(kind)),
                ("/data/id", json!(id)),
                ("/data/status", status),
            ],
        );
    }
    assert_eq!(ended["data"]["user"]["id"], known::USER);

    let (headers, body) = standin.webhook(&ended, "msg_1", now());
    let headers = object(headers);
    let with = |name: &str, value: String| {
        let mut headers = headers.clone();
        headers[name] = json!(value);
        headers
    };
    let stale = (now() - 600).to_string();
    let (old, _) = standin.webhook(&ended, "msg_1", now() - 600);
    let old = object(old);
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (secret, headers, body) in [
        (other, headers.clone(), body.clone()),
        (secret, headers.clone(), body.replace("ended", "added")),
        (secret, with("svix-id", "msg_2".to_owned()), body.clone()),
        (secret, with("svix-timestamp", stale), body.clone()),
        (secret, old, body.clone()),
    ] {
        for verifier in ["svix", "verifyWebhook"] {
            let refused = clerk.ask(verifier, json!([secret, headers, body]));
            assert!(refused["error"]["message"].is_string(), "{refused}");
        }
    }
}

/// Headers as an object.
fn object(headers: [(&str, String); 3]) -> Value {
    let member = |(name, value): (&str, String)| (name.to_owned(), json!(value));
    headers.into_iter().map(member).collect()
}

/// An endpoint for webhooks that answers with these statuses, then 204; and what it got.
async fn endpoint(statuses: &[u16]) -> (String, Arc<Mutex<Vec<(Value, String)>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let (kept, statuses) = (Arc::clone(&got), statuses.to_vec());
    let route = warp::post()
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .map(move |headers: http::HeaderMap, body: bytes::Bytes| {
            let mut got = kept.lock().unwrap();
            let headers: Value = headers
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            let status = statuses.get(got.len()).copied().unwrap_or(204);
            got.push((headers, String::from_utf8(body.to_vec()).unwrap()));
            http::StatusCode::from_u16(status).unwrap()
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
    tokio::spawn(warp::serve(route).incoming(listener).run());
    (url, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_delivered_again_under_its_id_until_it_is_taken() {
    let mut clerk = Clerk::start().await;
    let standin = Arc::clone(&clerk.standin);
    standin.retry_after(&[Duration::ZERO, Duration::from_millis(10)]);
    let event = standin.end_session(known::SESSION, "ended").unwrap();
    let (url, got) = endpoint(&[503, 400]).await;
    assert_eq!(standin.send(&url, &event).await, Ok(()));
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!(got.len(), 3);
    for (headers, body) in &got {
        assert_eq!(headers["svix-id"], got[0].0["svix-id"]);
        assert_eq!(headers["content-type"], "application/json");
        let secret = standin.webhook_secret();
        assert_eq!(clerk.get("svix", json!([secret, headers, body])), event);
    }

    let (url, got) = endpoint(&[500; 9]).await;
    let gave_up = standin.send(&url, &event).await;
    assert_eq!(gave_up, Err(Undelivered::Refused(Some(500))));
    assert_eq!(got.lock().unwrap().len(), 3, "the tries that it was given");
    let nobody = standin.send("http://127.0.0.1:1/", &event).await;
    assert_eq!(nobody, Err(Undelivered::Refused(None)));
    let elsewhere = standin.send("https://example.com/", &event).await;
    assert_eq!(elsewhere, Err(Undelivered::Elsewhere));
}

#[tokio::test]
async fn a_sign_out_ends_the_session_and_tells_the_endpoint() {
    let standin = StandIn::start(Clock::system()).await.unwrap();
    let (url, got) = endpoint(&[]).await;
    standin.deliver_to(&url);
    let sign_out = async |query: &str| {
        let url = format!("{}/dev/sign-out{query}", standin.issuer());
        let answer = client().post(url).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, body)
    };
    let (status, body) = sign_out("").await;
    assert_eq!(status, 200);
    let expected = json!({"session": known::SESSION, "status": "ended", "webhook_taken": true});
    assert_eq!(body, expected);
    let event: Value = serde_json::from_str(&got.lock().unwrap()[0].1).unwrap();
    assert_eq!(event["type"], "session.ended");
    assert_eq!(event["data"]["id"], known::SESSION);
    let status = standin.world(|world| world.sessions[known::SESSION]["status"].clone());
    assert_eq!(status, "ended");
    assert_eq!(sign_out("?session=sess_none").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_hands_out_for_a_try_is_known_to_it() {
    let mut clerk = Clerk::start().await;
    let get = async |path: &str| {
        let url = format!("{}{path}", clerk.standin.issuer());
        let answer = client().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };
    let session = get("/session-id").await;
    let token = get("/oauth-token?scope=read:tasks").await;
    let pending = get("/session-token?status=pending&version=1").await;
    let found = clerk.get("sessions.getSession", json!([session]));
    assert_members(
        &found,
        &[
            ("/userId", json!(known::USER)),
            ("/status", json!("active")),
            ("/lastActiveOrganizationId", json!(known::ORGANIZATION)),
        ],
    );
    let found = clerk.get("idPOAuthAccessToken.verify", json!([token]));
    assert_eq!(found["scopes"], json!(["read:tasks"]));
    let claims = clerk.get("verifyToken", json!([pending, {}]));
    assert_members(&claims, &[("/sts", json!("pending")), ("/v", Value::Null)]);
}
