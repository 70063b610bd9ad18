//! The token status list (draft-ietf-oauth-status-list-21): verifiers who ask nobody about a
//! token learn all the same that it was revoked.

use crate::introspection_endpoint::post;
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
struct Verifier(Foreign);

impl Verifier {
    fn start() -> Self {
        Self(Foreign::start(".venv/bin/python", &["status_list.py"]))
    }

    /// Whether the list says that the token was revoked.
    fn is_revoked(&mut self, service: &Service, token: &str) -> bool {
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
async fn an_exchange_that_finds_no_free_place_is_put_off() {
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
    let (issuer, service) = world(path.to_str().unwrap()).await;
    let body = |app| json!({"session_token": issuer.token(), "app": app});
    let answer = service.exchange(&body("web")).await;
    answer.assert_refused(503, "status_list_full");
    assert_eq!(answer.header("retry-after"), "5");
    // Who is not listed needs no place.
    assert_eq!(service.exchange(&body("plain")).await.status, 200);
}
