//! The public documents: our key set and our metadata.

use super::answer;
use crate::config::{DpopPolicy, OFFLINE_ACCESS};
use crate::dpop::ALGORITHMS;
use crate::keys::Keeper;
use crate::oauth::OAuth;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_NONE_MATCH,
};
use http::{Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeSet;
use warp::reply::{Reply, Response as Answer};

/// How long verifiers may keep the documents; Hasura refreshes by nothing else.
const CACHE: &str = "public, max-age=300";
const JSON: &str = "application/json";
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// `GET /.well-known/jwks.json`, answered from memory: Nimbus gives up after 500 ms.
pub fn jwks(keys: &Keeper, headers: &HeaderMap) -> Answer {
    let published = keys.published();
    document(headers, JSON, CACHE, &published.etag, &published.jwks)
}

/// A public document, or 304 where the reader has it.
pub(super) fn document(
    headers: &HeaderMap,
    kind: &'static str,
    cache: &str,
    etag: &str,
    body: &Bytes,
) -> Answer {
    let unchanged = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| matches(tags, etag));
    let mut response = if unchanged {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(body.clone())
    };
    let set = response.headers_mut();
    if !unchanged {
        set.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    set.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    for (name, value) in [(CACHE_CONTROL, cache), (ETAG, etag)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            set.insert(name, value);
        }
    }
    response.into_response()
}

/// `If-None-Match` compares weakly (RFC 9110 §13.1.2).
fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Our metadata (OpenID Connect Discovery §3, RFC 8414 §2).
#[derive(Serialize)]
struct Metadata<'m> {
    issuer: &'m str,
    jwks_uri: String,
    id_token_signing_alg_values_supported: &'m [&'static str],
    subject_types_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    grant_types_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint_auth_methods_supported: Option<BTreeSet<&'static str>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    token_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_signing_alg_values_supported: Option<[&'static str; 5]>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    scopes_supported: BTreeSet<&'m str>,
}

/// `GET /.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`:
/// what verifiers and clients configure themselves from.
pub fn metadata(oauth: &OAuth) -> Answer {
    let exchange = &oauth.exchange;
    let clients = oauth.clients.any();
    let issuer = exchange.issuer.as_str();
    let refreshes = exchange
        .apps
        .iter()
        .any(|app| app.settings.refresh.is_some());
    let scopes = exchange.apps.iter().flat_map(|app| &app.settings.scopes);
    let scopes = scopes.map(|scope| scope.name.as_str());
    let grants = [
        ("client_credentials", clients),
        ("refresh_token", refreshes),
    ];
    let grants = grants.into_iter().filter(|(_, on)| *on);
    let grants: Vec<_> = grants.map(|(grant, _)| grant).collect();
    // An app is a public client: it has nothing to prove itself with.
    let (mut methods, algorithms) = oauth.clients.methods();
    methods.extend(refreshes.then_some("none"));
    let of_clients = oauth.clients.scopes();
    let mut apps = exchange.apps.iter().map(|app| app.settings.dpop.policy);
    let dpop = clients || apps.any(|policy| policy != DpopPolicy::Off);
    let document = Metadata {
        issuer,
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        id_token_signing_alg_values_supported: &exchange.keys.published().algorithms,
        subject_types_supported: ["public"],
        response_types_supported: [],
        token_endpoint: (!grants.is_empty()).then(|| format!("{issuer}/oauth/token")),
        token_endpoint_auth_methods_supported: (!grants.is_empty()).then_some(methods),
        token_endpoint_auth_signing_alg_values_supported: algorithms,
        grant_types_supported: grants,
        dpop_signing_alg_values_supported: dpop.then_some(ALGORITHMS),
        scopes_supported: scopes
            .chain(of_clients.iter().map(String::as_str))
            .chain(refreshes.then_some(OFFLINE_ACCESS))
            .collect(),
    };
    public(serde_json::to_string(&document).unwrap_or_default())
}

/// A public JSON document.
pub(super) fn public(text: String) -> Answer {
    let mut response = answer::plain(StatusCode::OK, JSON, text);
    let set = response.headers_mut();
    set.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    set.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    response
}
