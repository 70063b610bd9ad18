//! Clerk's session claims, version 1 and version 2, as they arrive in the app token and in
//! `user`.

use crate::support::{Answer, Issuer, Key, Service, Token, now, token};
use serde_json::{Value, json};

const MALFORMED: &str = "subject_token_claim_malformed";

async fn exchange(service: &Service, token: &Token) -> Answer {
    service.session(&token.sign(Key::rsa())).await
}

/// The claims that come from the subject token, without those that every app token has.
fn carried(answer: &Answer) -> Value {
    let mut claims = token::claims(answer.token());
    for name in ["iss", "aud", "exp", "iat", "nbf", "jti", "client_id", "idp"] {
        let had = claims.as_object_mut().unwrap().remove(name);
        assert!(had.is_some(), "{name}");
    }
    claims
}

/// A token of version 1, as Clerk made them until 2025.
fn version_1(issuer: &str) -> Token {
    let mut token = Token::clerk(issuer).without("v").without("o");
    for (name, value) in [
        ("org_id", json!("org_1")),
        ("org_slug", json!("acme")),
        ("org_role", json!("org:admin")),
        (
            "org_permissions",
            json!(["org:tasks:read", "org:tasks:manage"]),
        ),
    ] {
        token = token.claim(name, value);
    }
    token
}

#[tokio::test]
async fn a_version_1_token_gives_its_organisation_role_and_permissions() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = version_1(&issuer.url).without("fva");
    let answer = exchange(&service, &token).await;
    assert_eq!(
        carried(&answer),
        json!({
            "sub": "user_1", "sid": "sess_1", "org_id": "org_1", "org_slug": "acme",
            "roles": ["org:admin"], "permissions": ["org:tasks:read", "org:tasks:manage"],
        })
    );
    assert_eq!(
        answer.body["user"],
        json!({"id": "user_1", "org_id": "org_1", "roles": ["org:admin"]})
    );
    // What is absent or null upstream is absent here.
    for name in ["org_slug", "org_role", "org_permissions"] {
        let ours = match name {
            "org_role" => "roles",
            "org_permissions" => "permissions",
            slug => slug,
        };
        for token in [
            token.clone().without(name),
            token.clone().claim(name, Value::Null),
        ] {
            let answer = exchange(&service, &token).await;
            assert!(carried(&answer).get(ours).is_none(), "{name}");
            assert_eq!(answer.body["user"].get("roles").is_none(), ours == "roles");
        }
    }
    let none = token.clone().claim("org_permissions", json!([]));
    let answer = exchange(&service, &none).await;
    assert!(carried(&answer).get("permissions").is_none());
    let personal = token.without("org_id");
    let answer = exchange(&service, &personal).await;
    assert_eq!(carried(&answer), json!({"sub": "user_1", "sid": "sess_1"}));
    assert_eq!(answer.body["user"], json!({"id": "user_1"}));
}

#[tokio::test]
async fn a_version_2_token_gives_the_same_with_its_permissions_unpacked() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = Token::clerk(&issuer.url)
        .without("fva")
        .claim("pla", "u:pro,o:team")
        .claim("fea", "o:tasks,u:export,uo:chat,o:invoices")
        .claim(
            "o",
            json!({
                "id": "org_2", "slg": "b", "rol": "member",
                "per": "create,read,manage", "fpm": "3,4,0",
            }),
        );
    let answer = exchange(&service, &token).await;
    assert_eq!(
        carried(&answer),
        json!({
            "sub": "user_1", "sid": "sess_1", "org_id": "org_2", "org_slug": "b",
            "roles": ["org:member"],
            "permissions": ["org:tasks:create", "org:tasks:read", "org:chat:manage"],
        })
    );
    assert_eq!(
        answer.body["user"],
        json!({"id": "user_1", "org_id": "org_2", "roles": ["org:member"]})
    );
    for (packed, expected) in [
        (json!({"id": "org_3"}), json!({"org_id": "org_3"})),
        (
            json!({"id": "org_3", "slg": null, "rol": null, "per": null, "fpm": null}),
            json!({"org_id": "org_3"}),
        ),
        (
            json!({"id": "org_3", "rol": "billing:viewer"}),
            json!({"org_id": "org_3", "roles": ["org:billing:viewer"]}),
        ),
        // A member without permissions.
        (
            json!({"id": "org_3", "per": "", "fpm": ""}),
            json!({"org_id": "org_3"}),
        ),
        (
            json!({"id": "org_3", "per": "read", "fpm": ""}),
            json!({"org_id": "org_3"}),
        ),
        // More numbers than features, and fewer.
        (
            json!({"id": "org_3", "per": "read", "fpm": "1,1,1,1,1,1"}),
            json!({"org_id": "org_3", "permissions": [
                "org:tasks:read", "org:chat:read", "org:invoices:read"]}),
        ),
        (
            json!({"id": "org_3", "per": "read", "fpm": "1"}),
            json!({"org_id": "org_3", "permissions": ["org:tasks:read"]}),
        ),
        // Bits beyond the named permissions mean nothing.
        (
            json!({"id": "org_3", "per": "read", "fpm": "254"}),
            json!({"org_id": "org_3"}),
        ),
        (
            json!({"id": "org_3", "per": "a,b", "fpm": "340282366920938463463374607431768211457"}),
            json!({"org_id": "org_3", "permissions": ["org:tasks:a"]}),
        ),
    ] {
        let answer = exchange(&service, &token.clone().claim("o", packed.clone())).await;
        let mut expected = expected;
        expected["sub"] = json!("user_1");
        expected["sid"] = json!("sess_1");
        assert_eq!(carried(&answer), expected, "{packed}");
    }
    // Seventy permissions: the number has more than 64 bits.
    let names: Vec<String> = (0..70).map(|index| format!("p{index}")).collect();
    let wide = token.clone().claim(
        "o",
        json!({"id": "org_3", "per": names.join(","), "fpm": "590295810358705651713"}),
    );
    let answer = exchange(&service, &wide).await;
    assert_eq!(
        carried(&answer)["permissions"],
        json!(["org:tasks:p0", "org:tasks:p69"])
    );
    let personal = token.without("o");
    let answer = exchange(&service, &personal).await;
    assert_eq!(carried(&answer), json!({"sub": "user_1", "sid": "sess_1"}));
}

#[tokio::test]
async fn a_version_is_not_read_by_the_rules_of_the_other() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    // A custom claim that looks like the other version's must not become a role.
    let two = Token::clerk(&issuer.url)
        .without("o")
        .claim("org_id", "org_9")
        .claim("org_role", "org:owner");
    let answer = exchange(&service, &two).await;
    assert_eq!(answer.body["user"], json!({"id": "user_1"}));
    let one = Token::clerk(&issuer.url).without("v");
    let answer = exchange(&service, &one).await;
    assert_eq!(answer.body["user"], json!({"id": "user_1"}));
    for version in [
        json!(1),
        json!(3),
        json!("2"),
        json!(2.5),
        json!(-2),
        json!(null),
        json!([2]),
    ] {
        let token = Token::clerk(&issuer.url).claim("v", version.clone());
        let token = token.sign(Key::rsa());
        service.refuses(version, &token, MALFORMED).await;
    }
}

#[tokio::test]
async fn an_impersonator_and_an_agent_are_named_in_the_app_token() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    for act in [
        json!({"sub": "user_9", "iss": "https://dashboard.clerk.com", "sid": "sess_9"}),
        json!({"sub": "agent_1", "type": "agent"}),
        json!({"sub": "user_9"}),
    ] {
        let token = Token::clerk(&issuer.url).claim("act", act.clone());
        let answer = exchange(&service, &token).await;
        assert_eq!(carried(&answer)["act"], act);
        assert_eq!(carried(&answer)["sub"], "user_1");
        assert_eq!(answer.body["user"]["id"], "user_1");
    }
    let answer = exchange(&service, &Token::clerk(&issuer.url)).await;
    assert!(carried(&answer).get("act").is_none());
}

#[tokio::test]
async fn the_age_of_the_first_factor_gives_the_time_of_sign_in() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let iat = now() - 3;
    let token = Token::clerk(&issuer.url).claim("iat", iat);
    for (fva, expected) in [
        (json!([0, -1]), json!(iat)),
        (json!([7, -1]), json!(iat - 420)),
        (json!([7, 3]), json!(iat - 420)),
        (json!([525_600, -1]), json!(iat - 31_536_000)),
        // Longer ago than there is time: as far back as it goes.
        (json!([1_u64 << 32, -1]), json!(0)),
        // Never verified.
        (json!([-1, -1]), Value::Null),
        (json!(null), Value::Null),
    ] {
        let answer = exchange(&service, &token.clone().claim("fva", fva.clone())).await;
        let found = carried(&answer).get("auth_time").cloned();
        assert_eq!(found.unwrap_or_default(), expected, "{fva}");
    }
    let bare = token.clone().without("fva");
    let answer = exchange(&service, &bare).await;
    assert!(carried(&answer).get("auth_time").is_none());
    // Without a time of issue, an age says nothing.
    let undated = token.clone().without("iat");
    let answer = exchange(&service, &undated).await;
    assert!(carried(&answer).get("auth_time").is_none());
    let said = token.claim("auth_time", iat - 1000);
    let answer = exchange(&service, &said).await;
    assert_eq!(carried(&answer)["auth_time"], json!(iat - 1000));
}

#[tokio::test]
async fn a_session_claim_of_the_wrong_type_is_refused_by_its_name() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let two = Token::clerk(&issuer.url).claim("fea", "o:tasks");
    let one = version_1(&issuer.url);
    let packed = |member: &str, value: Value| {
        let mut o = json!({"id": "org_1", "slg": "acme", "rol": "admin", "per": "a", "fpm": "1"});
        o[member] = value;
        ("o", o)
    };
    let many: Vec<String> = (0..401).map(|index| index.to_string()).collect();
    for (name, value) in [
        ("o", json!("org_1")),
        ("o", json!([])),
        ("o", json!(1)),
        ("o", json!({})),
        ("o", json!({"id": null})),
        packed("id", json!(1)),
        packed("id", json!(["org_1"])),
        packed("slg", json!(1)),
        packed("rol", json!(["admin"])),
        packed("rol", json!({"name": "admin"})),
        packed("per", json!(["a"])),
        packed("per", json!(1)),
        packed("per", json!(many.join(","))),
        packed("fpm", json!(1)),
        packed("fpm", json!("x")),
        packed("fpm", json!("-1")),
        packed("fpm", json!("0x1")),
        packed("fpm", json!("1.0")),
        packed("fpm", json!("1e3")),
        packed("fpm", json!("+1")),
        packed("fpm", json!(",")),
        packed("fpm", json!("١")),
        packed("fpm", json!("9".repeat(129))),
        ("fea", json!(["o:tasks"])),
        ("fea", json!(1)),
        ("pla", json!({"u": "pro"})),
        ("pla", json!(false)),
        ("fva", json!("1,-1")),
        ("fva", json!([1])),
        ("fva", json!([1, 2, 3])),
        ("fva", json!(["1", "-1"])),
        ("fva", json!([1.5, -1])),
        ("fva", json!([null, null])),
        ("fva", json!({"0": 1, "1": 2})),
        ("sts", json!(1)),
        ("sid", json!(["sess_1"])),
    ] {
        let token = two.clone().claim(name, value.clone()).sign(Key::rsa());
        let what = format!("{name}: {value}");
        service.refuses(&what, &token, MALFORMED).await;
        let answer = service.session(&token).await;
        assert_eq!(
            answer.body["error_description"],
            format!("The token's `{name}` has the wrong type or an impossible value.")
        );
    }
    for (name, value) in [
        ("org_id", json!(1)),
        ("org_id", json!(["org_1"])),
        ("org_slug", json!(1)),
        ("org_role", json!(["org:admin"])),
        ("org_permissions", json!("org:tasks:read")),
        ("org_permissions", json!([1])),
        ("org_permissions", json!([["org:tasks:read"]])),
        ("org_permissions", json!({"org:tasks:read": true})),
    ] {
        let token = one.clone().claim(name, value.clone()).sign(Key::rsa());
        let what = format!("{name}: {value}");
        service.refuses(what, &token, MALFORMED).await;
    }
    assert_eq!(exchange(&service, &two).await.status, 200);
    assert_eq!(exchange(&service, &one).await.status, 200);
}

#[tokio::test]
async fn odd_but_possible_lists_of_features_are_read() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = |fea: &str, fpm: &str| {
        Token::clerk(&issuer.url).claim("fea", fea).claim(
            "o",
            json!({"id": "org_1", "per": "read, write", "fpm": fpm}),
        )
    };
    for (fea, fpm, expected) in [
        ("", "1", json!(null)),
        ("tasks", "1", json!(null)),
        ("u:tasks", "1", json!(null)),
        (
            " o:tasks , o:chat ",
            " 1 , 2 ",
            json!(["org:tasks:read", "org:chat:write"]),
        ),
        ("o:a,,o:b", "1,2", json!(["org:a:read", "org:b:write"])),
        ("ou:tasks", "2", json!(["org:tasks:write"])),
        ("o:with:colon", "1", json!(["org:with:colon:read"])),
        (
            "u:a,o:b,u:c,o:d",
            "1,2",
            json!(["org:b:read", "org:d:write"]),
        ),
    ] {
        let answer = exchange(&service, &token(fea, fpm)).await;
        let found = carried(&answer).get("permissions").cloned();
        assert_eq!(found.unwrap_or_default(), expected, "{fea:?} {fpm:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_clerk_has_no_clerk_claims() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.plain]\nissuer = {url:?}\n[apps.web]\nissuers = [\"plain\"]\n"
        ))
        .start()
        .await;
    let token = Token::oidc(url, "client_1")
        .claim("o", "not Clerk's")
        .claim("v", "not Clerk's")
        .claim("sts", "not Clerk's")
        .claim("fva", "not Clerk's")
        .claim("org_id", "org_1")
        .claim("auth_time", 1_700_000_000);
    let answer = exchange(&service, &token).await;
    assert_eq!(
        carried(&answer),
        json!({"sub": "248289761001", "auth_time": 1_700_000_000})
    );
    assert_eq!(answer.body["user"], json!({"id": "248289761001"}));
}

#[tokio::test]
async fn a_native_app_has_no_azp_and_needs_none() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let native = Token::clerk(&issuer.url).without("azp");
    let answer = exchange(&service, &native).await;
    assert_eq!(carried(&answer)["sub"], "user_1");
}
