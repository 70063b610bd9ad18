//! The metadata (RFC 8414, RFC 9728) lists what is on, and what it lists is what the endpoints
//! do.

use crate::introspection_endpoint::{SECRET, basic, post};
use crate::support::{Issuer, Service};
use serde_json::{Value, json};

const METADATA: &str = "/.well-known/oauth-authorization-server";
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const ISSUER: &str = "http://localhost:8080";
const CLIENT: &str = "[clients.worker]\nsecret = { env = \"CLIENT_SECRET\" }\n";
const PROOFS: [&str; 5] = ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"];

/// Every grant that a version of this service may know.
const GRANTS: [&str; 6] = [
    "authorization_code",
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:token-exchange",
];

/// What every app can do.
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

async fn service(issuer: &Issuer, lines: &str) -> Service {
    Service::builder()
        .one_app(issuer, "", lines)
        .env("CLIENT_SECRET", SECRET)
        .start()
        .await
}

/// What is configured, and what is listed then.
fn configurations() -> Vec<(String, Value)> {
    let secrets = json!(["client_secret_basic", "client_secret_post"]);
    let all = json!(["client_secret_basic", "client_secret_post", "none"]);
    vec![
        (
            "dpop = \"off\"".to_owned(),
            json!({
                "grant_types_supported": [EXCHANGE],
                "revocation_endpoint_auth_methods_supported": ["none"],
            }),
        ),
        (
            "refresh = {}\nstatus_list = true\nscopes.\"read:tasks\" = []".to_owned(),
            json!({
                "grant_types_supported": ["refresh_token", EXCHANGE],
                "revocation_endpoint_auth_methods_supported": ["none"],
                "dpop_signing_alg_values_supported": PROOFS,
                "status_list_aggregation_endpoint": format!("{ISSUER}/.well-known/status-lists"),
                "scopes_supported": ["offline_access", "read:tasks"],
            }),
        ),
        (
            format!("{CLIENT}audience = \"https://a.internal\"\nscopes = \"send:mail\""),
            json!({
                "grant_types_supported": ["client_credentials", EXCHANGE],
                "introspection_endpoint": format!("{ISSUER}/oauth/introspect"),
                "introspection_endpoint_auth_methods_supported": secrets,
                "revocation_endpoint_auth_methods_supported": all,
                "dpop_signing_alg_values_supported": PROOFS,
                "scopes_supported": ["send:mail"],
            }),
        ),
        (
            format!("{CLIENT}introspect = \"https://a.internal\""),
            json!({
                "grant_types_supported": [EXCHANGE],
                "introspection_endpoint": format!("{ISSUER}/oauth/introspect"),
                "introspection_endpoint_auth_methods_supported": secrets,
                "revocation_endpoint_auth_methods_supported": all,
                "dpop_signing_alg_values_supported": PROOFS,
            }),
        ),
    ]
}

#[tokio::test]
async fn the_metadata_lists_what_is_configured_and_nothing_else() {
    let issuer = Issuer::start().await;
    for (lines, expected) in configurations() {
        let service = service(&issuer, &lines).await;
        let mut whole = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/.well-known/jwks.json"),
            "id_token_signing_alg_values_supported": ["ES256"],
            "subject_types_supported": ["public"],
            "response_types_supported": [],
            "token_endpoint": format!("{ISSUER}/oauth/token"),
            "revocation_endpoint": format!("{ISSUER}/oauth/revoke"),
        });
        for (name, value) in expected.as_object().unwrap() {
            whole[name] = value.clone();
        }
        // An app proves itself by nothing at either.
        whole["token_endpoint_auth_methods_supported"] =
            whole["revocation_endpoint_auth_methods_supported"].clone();
        for path in [METADATA, "/.well-known/openid-configuration"] {
            let answer = service.get(path).await;
            assert_eq!((answer.status, &answer.body), (200, &whole), "{lines}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
    }
}

#[tokio::test]
async fn what_is_listed_is_what_the_endpoints_do() {
    let issuer = Issuer::start().await;
    for (lines, _) in configurations() {
        let service = service(&issuer, &lines).await;
        let listed = service.get(METADATA).await.body;
        let has = |name: &str, value: &str| {
            let values = listed[name].as_array();
            values.is_some_and(|values| values.iter().any(|each| each == value))
        };
        for grant in GRANTS {
            let answer = post(&service, "/oauth/token", None, &[("grant_type", grant)]).await;
            let unknown = answer.body["error"] == "unsupported_grant_type";
            assert_eq!(
                !unknown,
                has("grant_types_supported", grant),
                "{lines}: {grant}"
            );
        }
        // What is listed is there.
        for (name, value) in listed.as_object().unwrap() {
            let Some(path) = value.as_str().and_then(|url| url.strip_prefix(ISSUER)) else {
                continue;
            };
            let get = matches!(
                name.as_str(),
                "jwks_uri" | "status_list_aggregation_endpoint"
            );
            let status = service.get(path).await.status;
            match name.as_str() {
                "issuer" => continue,
                _ if get => assert_eq!(status, 200, "{name}"),
                _ => assert_eq!(status, 405, "{name}"),
            }
        }
        let lists = service.get("/.well-known/status-lists").await.status == 200;
        assert_eq!(
            lists,
            listed.get("status_list_aggregation_endpoint").is_some()
        );
        // Each way to authenticate that is listed works, and the others do not.
        for (endpoint, prefix) in [
            ("/oauth/introspect", "introspection_endpoint"),
            ("/oauth/revoke", "revocation_endpoint"),
        ] {
            let token = ("token", "45ghiukldjahdnhzdauz");
            let (id, secret) = (("client_id", "worker"), ("client_secret", SECRET));
            let header = basic("worker", SECRET);
            for (method, header, pairs) in [
                ("client_secret_basic", Some(header.as_str()), vec![token]),
                ("client_secret_post", None, vec![token, id, secret]),
                ("none", None, vec![token, ("client_id", "web")]),
            ] {
                let answer = post(&service, endpoint, header, &pairs).await;
                let works = answer.status == 200;
                let name = format!("{prefix}_auth_methods_supported");
                assert_eq!(works, has(&name, method), "{lines}: {endpoint} {method}");
            }
        }
    }
}

#[tokio::test]
async fn each_challenge_of_the_gate_leads_to_what_the_resource_says_of_itself() {
    let issuer = Issuer::start().await;
    let service = service(&issuer, "scopes.\"read:tasks\" = []").await;
    let whole = |resource: &str| {
        json!({
            "resource": resource,
            "authorization_servers": [ISSUER],
            "jwks_uri": format!("{ISSUER}/.well-known/jwks.json"),
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["read:tasks"],
            "dpop_signing_alg_values_supported": PROOFS,
        })
    };
    // RFC 9728 §3.1, §3.3: the path of the resource comes after the well-known one, and each
    // document is about the resource that it was asked for.
    let suffixed = format!("{RESOURCE}/auth/verify");
    for (path, resource) in [
        (RESOURCE, ISSUER.to_owned()),
        (&suffixed, format!("{ISSUER}/auth/verify")),
    ] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status, &answer.body),
            (200, &whole(&resource)),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
    }
    for path in ["/", "/auth", "/auth/verify/", "/auth/exchange"] {
        let answer = service.get(&format!("{RESOURCE}{path}")).await;
        answer.assert_refused(404, "not_found");
    }
    let token = service.session(&issuer.token()).await.token().to_owned();
    let verify = format!("{}/auth/verify", service.url);
    let metadata = format!("resource_metadata=\"{ISSUER}{suffixed}\"");
    for (query, bearer, challenge, status) in [
        ("", None, format!("Bearer {metadata}"), 401),
        (
            "?scope=admin",
            Some(token.as_str()),
            format!("Bearer error=\"insufficient_scope\", scope=\"admin\", {metadata}"),
            403,
        ),
        (
            "",
            Some("a.b.c"),
            format!(
                "Bearer error=\"invalid_token\", error_description=\"The bearer is not a well-formed app token: its header is not base64url.\", {metadata}"
            ),
            401,
        ),
    ] {
        let mut request = service.client.get(format!("{verify}{query}"));
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let answer = service.send(request).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
    // No other door is that resource.
    let answer = service.session("a.b.c").await;
    assert!(
        !answer
            .header("www-authenticate")
            .contains("resource_metadata")
    );
}

#[tokio::test]
async fn a_resource_that_takes_bound_tokens_alone_says_so() {
    let issuer = Issuer::start().await;
    for (policy, required, algorithms) in [
        ("required", json!(true), json!(PROOFS)),
        ("optional", Value::Null, json!(PROOFS)),
        ("off", Value::Null, Value::Null),
    ] {
        let service = service(&issuer, &format!("dpop = {policy:?}")).await;
        let said = service.get(RESOURCE).await.body;
        assert_eq!(
            said["dpop_bound_access_tokens_required"], required,
            "{policy}"
        );
        assert_eq!(
            said["dpop_signing_alg_values_supported"], algorithms,
            "{policy}"
        );
    }
}
