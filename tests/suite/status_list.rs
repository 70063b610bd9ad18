//! The token status list (draft-ietf-oauth-status-list-21): verifiers who ask nobody about a
//! token learn all the same that it was revoked.

use crate::introspection_endpoint::{SECRET, assert_inactive, basic, introspect, post};
use crate::support::{
    Answer, Command, Foreign, Issuer, Key, Service, Token, eventually, now, token,
};
use crate::webhooks::{self, Hook};
use exchequer::config::StoreSettings;
use exchequer::store::{Change, Status, Store};
use exchequer::token::status_list::PLACES;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

const LIST: &str = "/.well-known/status-lists/1";
const URI: &str = "http://localhost:8080/.well-known/status-lists/1";

/// The apps `web`, whose tokens are listed, and `plain`, whose are not.
async fn world(store: &str) -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\nwebhook_secret = {{ env = \"HOOKS\" }}\n\
             [apps.web]\nissuers = \"clerk\"\nstatus_list = true\nrefresh = {{}}\n\
             [apps.plain]\nissuers = \"clerk\"\n",
            issuer.url
        ))
        .env("HOOKS", webhooks::SECRET)
        .env("EXCHEQUER_STORE", store)
        .start()
        .await;
    (issuer, service)
}

async fn exchanged(service: &Service, token: &str, app: &str) -> String {
    let body = json!({"session_token": token, "app": app});
    service.exchange(&body).await.token().to_owned()
}

/// A verifier in Python.
pub struct Verifier(Foreign);

impl Verifier {
    pub fn start() -> Self {
        Self(Foreign::start(".venv/bin/python", &["status_list.py"]))
    }

    /// Whether the list says that the token was revoked.
    pub fn is_revoked(&mut self, service: &Service, token: &str) -> bool {
        let question = json!({"token": token, "base": service.url});
        let answer = self.0.ask(&question.to_string());
        let status = answer["status"].as_i64();
        assert_eq!(
            answer,
            json!({"status": status, "places": 1 << 20, "exp_in": 310, "ttl": 30})
        );
        status == Some(1)
    }
}

#[tokio::test]
async fn a_token_says_where_its_status_is_and_the_list_is_a_public_document() {
    let (issuer, service) = world("memory").await;
    let compact = exchanged(&service, &issuer.token(), "web").await;
    let claims = token::claims(&compact);
    let index = claims["status"]["status_list"]["idx"].as_u64().unwrap();
    assert!(index < 1 << 20);
    assert_eq!(
        claims["status"],
        json!({"status_list": {"idx": index, "uri": URI}})
    );
    let plain = exchanged(&service, &issuer.token(), "plain").await;
    assert_eq!(token::claims(&plain).get("status"), None);

    let answer = service.get(LIST).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/statuslist+jwt");
    assert_eq!(answer.header("cache-control"), "public, max-age=10");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let list = answer.body.as_str().unwrap();
    let kid = token::header(&compact)["kid"].clone();
    assert_eq!(
        token::header(list),
        json!({"alg": "ES256", "kid": kid, "typ": "statuslist+jwt"})
    );
    let said = token::claims(list);
    let iat = said["iat"].as_i64().unwrap();
    let lst = said["status_list"]["lst"].clone();
    assert_eq!(
        said,
        json!({
            "iss": "http://localhost:8080", "sub": URI, "iat": iat, "exp": iat + 310, "ttl": 30,
            "status_list": {"bits": 1, "lst": lst},
        })
    );
    // It is asked for by its tag, and made anew once it is old.
    let with_tag = async |service: &Service, tag: &str| {
        let url = format!("{}{LIST}", service.url);
        let request = service.client.get(url).header("if-none-match", tag);
        service.send(request).await
    };
    let unchanged = with_tag(&service, answer.header("etag")).await;
    assert_eq!((unchanged.status, &unchanged.body), (304, &json!("")));
    assert_eq!(unchanged.header("etag"), answer.header("etag"));
    service.shift_clocks(10, 10);
    let newer = with_tag(&service, answer.header("etag")).await;
    assert_eq!(newer.status, 200);
    assert!(
        token::claims(newer.body.as_str().unwrap())["iat"]
            .as_i64()
            .unwrap()
            >= iat + 10
    );
    let lists = service.get("/.well-known/status-lists").await;
    assert_eq!(
        (lists.status, lists.body),
        (200, json!({"status_lists": [URI]}))
    );
    for path in ["/.well-known/status-lists/", "/.well-known/status-lists/2"] {
        service.get(path).await.assert_refused(404, "not_found");
    }
    // A list is no bearer.
    let bearer = service.client.get(format!("{}/auth/verify", service.url));
    let answer = service.send(bearer.bearer_auth(list)).await;
    answer.assert_refused(401, "app_token_claim_unusable");
}

#[tokio::test]
async fn where_no_app_asks_for_it_there_is_no_list() {
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    for path in [LIST, "/.well-known/status-lists"] {
        service.get(path).await.assert_refused(404, "not_found");
    }
}

#[tokio::test]
async fn places_are_drawn_and_no_two_tokens_share_one() {
    let (issuer, service) = world("memory").await;
    let session = issuer.token();
    let mut places = Vec::new();
    for _ in 0..50 {
        let claims = token::claims(&exchanged(&service, &session, "web").await);
        places.push(claims["status"]["status_list"]["idx"].as_u64().unwrap());
    }
    let distinct: BTreeSet<u64> = places.iter().copied().collect();
    assert_eq!(distinct.len(), 50);
    assert!(!places.is_sorted(), "they say nothing of the order");
}

/// Whatever revokes a token for the doors here revokes it for those who look at the list.
#[tokio::test]
async fn a_verifier_that_asks_nobody_learns_of_every_kind_of_revocation() {
    let mut verifier = Verifier::start();
    for (place, event) in [
        ("memory", webhooks::session_event("session.ended", "sess_1")),
        (
            "store.redb",
            webhooks::session_event("session.ended", "sess_1"),
        ),
        ("memory", webhooks::user_deleted()),
        (
            "store.redb",
            webhooks::membership_event("organizationMembership.updated", 0),
        ),
    ] {
        let (issuer, service) = world(place).await;
        let one = exchanged(&service, &issuer.token(), "web").await;
        let stranger = Token::clerk(&issuer.url)
            .claim("sub", "user_2")
            .claim("sid", "sess_2");
        let other = exchanged(&service, &stranger.sign(Key::rsa()), "web").await;
        for token in [&one, &other] {
            assert!(!verifier.is_revoked(&service, token));
        }
        Hook::new("msg_1", &event)
            .to("web")
            .taken(&service, "revoked")
            .await;
        assert!(
            !verifier.is_revoked(&service, &one),
            "the list is 10 s old at most"
        );
        service.shift_clocks(10, 10);
        assert!(verifier.is_revoked(&service, &one), "{event}");
        assert!(!verifier.is_revoked(&service, &other), "{event}");
    }
}

async fn revoke(service: &Service, token: &str) -> Answer {
    let pairs = [("token", token), ("client_id", "web")];
    post(service, "/oauth/revoke", None, &pairs).await
}

#[tokio::test]
async fn a_token_that_its_client_revoked_is_in_the_list_alone_and_after_a_kill_too() {
    let mut verifier = Verifier::start();
    let (issuer, mut service) = world("store.redb").await;
    let one = exchanged(&service, &issuer.token(), "web").await;
    let other = exchanged(&service, &issuer.token(), "web").await;
    assert_eq!(revoke(&service, &one).await.status, 200);
    service.restart().await;
    assert!(verifier.is_revoked(&service, &one));
    assert!(!verifier.is_revoked(&service, &other));
}

#[tokio::test]
async fn the_app_tokens_of_a_revoked_refresh_token_are_in_the_list() {
    let mut verifier = Verifier::start();
    let (issuer, service) = world("memory").await;
    let body = json!({"session_token": issuer.token(), "app": "web", "scope": "offline_access"});
    let begun = service.exchange(&body).await;
    let other = exchanged(&service, &issuer.token(), "web").await;
    let refresh_token = begun.body["refresh_token"].as_str().unwrap();
    assert_eq!(revoke(&service, refresh_token).await.status, 200);
    assert!(verifier.is_revoked(&service, begun.token()));
    assert!(!verifier.is_revoked(&service, &other));
}

/// Every way to an app token, for an app whose tokens are listed: none of them misses the list.
#[tokio::test]
async fn an_app_token_has_a_place_whichever_grant_gave_it() {
    const GRANTS: &str = "urn:ietf:params:oauth:grant-type";
    let (clerk, partner) = (Issuer::start().await, Issuer::start().await);
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {:?}\nkind = \"clerk\"\n\
             [issuers.partner]\nissuer = {:?}\nassertions = true\naudiences = \"web\"\nauthorized_parties = \"web\"\n\
             [apps.web]\nissuers = [\"clerk\", \"partner\"]\nstatus_list = true\nrefresh = {{}}\nsubject = 'sub'\n\
             [clients.desk]\nsecret = {{ env = \"CLIENT_SECRET\" }}\napps = \"web\"\n",
            clerk.url, partner.url
        ))
        .env("CLIENT_SECRET", SECRET)
        .start()
        .await;
    let desk = basic("desk", SECRET);
    let token = async |proof: Option<&str>, grant: &str, further: &[(&str, &str)]| {
        let pairs = [&[("grant_type", grant)], further].concat();
        let answer = post(&service, "/oauth/token", proof, &pairs).await;
        assert_eq!(answer.status, 200, "{grant}: {}", answer.body);
        answer.body
    };
    let session = clerk.token();
    let body = json!({"session_token": session, "app": "web", "scope": "offline_access"});
    let begun = service.exchange(&body).await.body;
    let refresh_token = begun["refresh_token"].as_str().unwrap();
    let pairs = [("refresh_token", refresh_token), ("client_id", "web")];
    let refreshed = token(None, "refresh_token", &pairs).await;
    let assertion = Token::oidc(&partner.url, "http://localhost:8080")
        .claim("sub", "user_1")
        .claim("jti", "one")
        .sign(Key::rsa());
    let pairs = [("assertion", assertion.as_str())];
    let vouched = token(Some(&desk), &format!("{GRANTS}:jwt-bearer"), &pairs).await;
    let exchange = async |subject: &str| {
        let kind = "urn:ietf:params:oauth:token-type:jwt";
        let pairs = [("subject_token", subject), ("subject_token_type", kind)];
        token(Some(&desk), &format!("{GRANTS}:token-exchange"), &pairs).await
    };
    let of_provider = exchange(&session).await;
    let of_ours = exchange(begun["access_token"].as_str().unwrap()).await;
    let all = [&begun, &refreshed, &vouched, &of_provider, &of_ours];
    let places = all.map(|body| {
        let claims = token::claims(body["access_token"].as_str().unwrap());
        assert_eq!(claims["status"]["status_list"]["uri"], URI, "{claims}");
        claims["status"]["status_list"]["idx"].as_u64().unwrap()
    });
    assert_eq!(BTreeSet::from(places).len(), places.len(), "{places:?}");
}

#[tokio::test]
async fn where_the_app_has_no_list_a_claim_of_that_name_is_its_own_and_carried_along() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            "claims.status = '\"trial\"'\n\
             [clients.desk]\nsecret = { env = \"CLIENT_SECRET\" }\napps = \"web\"\n",
        )
        .env("CLIENT_SECRET", SECRET)
        .start()
        .await;
    let first = exchanged(&service, &issuer.token(), "web").await;
    assert_eq!(token::claims(&first)["status"], "trial");
    let pairs = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", first.as_str()),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
    ];
    let answer = post(
        &service,
        "/oauth/token",
        Some(&basic("desk", SECRET)),
        &pairs,
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = token::claims(answer.body["access_token"].as_str().unwrap());
    assert_eq!(second["status"], "trial", "{second}");
}

/// The clients `worker`, whose own tokens are listed, and `desk`, whose are not; no app is.
async fn clients(store: &str) -> Service {
    let client = "secret = { env = \"CLIENT_SECRET\" }\naudience = \"https://tasks.internal\"";
    Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\n\
             [apps.web]\nissuers = \"clerk\"\nalg = \"EdDSA\"\n\
             [clients.worker]\n{client}\nstatus_list = true\n\
             [clients.desk]\n{client}\nintrospect = \"https://tasks.internal\"\n"
        ))
        .env("CLIENT_SECRET", SECRET)
        .env("EXCHEQUER_STORE", store)
        .start()
        .await
}

/// A client's own token.
async fn service_token(service: &Service, client: &str, secret: &str) -> String {
    let grant = [("grant_type", "client_credentials")];
    let answer = post(
        service,
        "/oauth/token",
        Some(&basic(client, secret)),
        &grant,
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_clients_own_token_has_a_place_where_its_client_wants_that() {
    let service = clients("memory").await;
    let compact = service_token(&service, "worker", SECRET).await;
    let claims = token::claims(&compact);
    let (iat, jti) = (claims["iat"].as_i64().unwrap(), &claims["jti"]);
    let index = claims["status"]["status_list"]["idx"].as_u64().unwrap();
    assert!(index < u64::from(PLACES));
    assert_eq!(
        claims,
        json!({
            "iss": "http://localhost:8080", "sub": "worker", "aud": "https://tasks.internal",
            "exp": iat + 310, "iat": iat, "nbf": iat, "jti": jti, "client_id": "worker",
            "status": {"status_list": {"idx": index, "uri": URI}},
        })
    );
    let unlisted = service_token(&service, "desk", SECRET).await;
    assert_eq!(token::claims(&unlisted).get("status"), None);
    // No app has the list: it is signed as service tokens are.
    let answer = service.get(LIST).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let kid = token::header(&compact)["kid"].clone();
    assert_eq!(
        token::header(answer.body.as_str().unwrap()),
        json!({"alg": "ES256", "kid": kid, "typ": "statuslist+jwt"})
    );
    let metadata = service
        .get("/.well-known/oauth-authorization-server")
        .await
        .body;
    assert_eq!(
        metadata["status_list_aggregation_endpoint"],
        "http://localhost:8080/.well-known/status-lists"
    );
}

#[tokio::test]
async fn a_revoked_service_token_is_refused_by_all_who_ask_and_in_the_list_for_those_who_do_not() {
    let mut verifier = Verifier::start();
    for place in ["memory", "store.redb"] {
        let mut service = clients(place).await;
        let one = service_token(&service, "worker", SECRET).await;
        let other = service_token(&service, "worker", SECRET).await;
        let verify = async |service: &Service, token: &str| {
            let question = "/auth/verify?audience=https://tasks.internal";
            let url = format!("{}{question}", service.url);
            service
                .send(service.client.get(url).bearer_auth(token))
                .await
        };
        for token in [&one, &other] {
            assert!(!verifier.is_revoked(&service, token));
            assert_eq!(verify(&service, token).await.status, 200);
            let told = introspect(&service, "desk", token).await;
            assert_eq!(told.body["active"], true, "{}", told.body);
            assert_eq!(told.body["status"], token::claims(token)["status"]);
        }
        let pairs = [("token", one.as_str())];
        // Another client of the same backend cannot.
        let desk = basic("desk", SECRET);
        post(&service, "/oauth/revoke", Some(&desk), &pairs)
            .await
            .assert_refused(400, "token_of_another_client");
        let worker = basic("worker", SECRET);
        let answer = post(&service, "/oauth/revoke", Some(&worker), &pairs).await;
        assert_eq!((answer.status, &answer.body), (200, &json!("")));
        if place == "memory" {
            service.shift_clocks(10, 10);
        } else {
            service.restart().await;
        }
        assert!(verifier.is_revoked(&service, &one), "{place}");
        assert!(!verifier.is_revoked(&service, &other), "{place}");
        verify(&service, &one)
            .await
            .assert_refused(401, "token_revoked");
        assert_inactive(&introspect(&service, "desk", &one).await);
        assert_eq!(verify(&service, &other).await.status, 200);
        let told = introspect(&service, "desk", &other).await;
        assert_eq!(told.body["active"], true, "{}", told.body);
    }
}

#[tokio::test]
async fn a_client_that_is_registered_while_the_service_runs_brings_the_list_and_takes_it_along() {
    let mut verifier = Verifier::start();
    let issuer = Issuer::start().await;
    let service = Service::builder().one_app(&issuer, "", "").start().await;
    service.get(LIST).await.assert_refused(404, "not_found");
    let register = |further: &[&str]| {
        let add = ["clients", "add", "--json"];
        let ended = service.command().run(&[&add, further].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap()
    };
    let audience = ["--audience", "https://tasks.internal"];
    let plain = register(&[&["plain"], &audience[..]].concat());
    assert_eq!(plain.get("status_list"), None, "{plain}");
    service.get(LIST).await.assert_refused(404, "not_found");
    let worker = register(&[&["worker", "--status-list"], &audience[..]].concat());
    assert_eq!(worker["status_list"], true, "{worker}");
    let secret = worker["client_secret"].as_str().unwrap();
    let compact = service_token(&service, "worker", secret).await;
    assert!(!verifier.is_revoked(&service, &compact));
    let (proof, pairs) = (basic("worker", secret), [("token", compact.as_str())]);
    let answer = post(&service, "/oauth/revoke", Some(&proof), &pairs).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    service.shift_clocks(10, 10);
    assert!(verifier.is_revoked(&service, &compact));
    let plain = plain["client_secret"].as_str().unwrap();
    let unlisted = service_token(&service, "plain", plain).await;
    assert_eq!(token::claims(&unlisted).get("status"), None);

    let removed = service.command().run(&["clients", "remove", "worker"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    service.get(LIST).await.assert_refused(404, "not_found");
    // For whom there is no token of their own, the list is a mistake.
    let add = ["clients", "add", "other", "--app", "web", "--status-list"];
    let ended = service.command().run(&add);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    let expected = "status_list: a client without `audience` gets no tokens of its own";
    assert!(ended.stderr.contains(expected), "{ended:?}");
}

#[tokio::test]
async fn a_list_that_a_revoked_key_signed_is_shown_to_nobody() {
    let (_issuer, service) = world("memory").await;
    let list = async || service.get(LIST).await.body.as_str().unwrap().to_owned();
    let kid = token::header(&list().await)["kid"].clone();
    let revoked = service
        .command()
        .run(&["keys", "revoke", kid.as_str().unwrap()]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    eventually("another key signs it", async || {
        token::header(&list().await)["kid"] != kid
    })
    .await;
}

#[test]
fn a_claim_of_the_same_name_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[issuers.c]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\n\
         [apps.web]\nissuers = \"c\"\nstatus_list = true\nclaims.status = '\"x\"'\n";
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    let ended = Command::new(dir.path()).run(&["check"]);
    assert_ne!(ended.code, 0);
    let said = format!("{ended:?}");
    let expected = "exchequer.toml:6: status_list: claims.status is set too";
    assert!(said.contains(expected), "{said}");
}

#[tokio::test]
async fn whoever_finds_no_free_place_is_put_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.redb");
    let settings = StoreSettings::File(path.clone());
    let store = Store::open(&settings, Arc::default()).unwrap();
    store.begin().await.unwrap();
    let until = now() + 3600;
    let taken = |index| Status {
        index,
        standings: Vec::new(),
        until,
    };
    for first in (0..PLACES).step_by(1 << 17) {
        let change = Change {
            statuses: (first..first + (1 << 17)).map(taken).collect(),
            ..Change::default()
        };
        store.commit(change, now()).await.unwrap();
    }
    drop(store);
    let full = clients(path.to_str().unwrap()).await;
    let grant = [("grant_type", "client_credentials")];
    let worker = basic("worker", SECRET);
    let answer = post(&full, "/oauth/token", Some(&worker), &grant).await;
    answer.assert_refused(503, "status_list_full");
    assert_eq!(answer.header("retry-after"), "5");
    service_token(&full, "desk", SECRET).await;
    drop(full);
    let (issuer, service) = world(path.to_str().unwrap()).await;
    let body = |app| json!({"session_token": issuer.token(), "app": app});
    let answer = service.exchange(&body("web")).await;
    answer.assert_refused(503, "status_list_full");
    assert_eq!(answer.header("retry-after"), "5");
    // Who is not listed needs no place.
    assert_eq!(service.exchange(&body("plain")).await.status, 200);
}
