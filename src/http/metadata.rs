//! The public documents: our key set and our metadata.

use super::answer;
use crate::config::{LOGIN, OFFLINE_ACCESS};
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
pub(super) const CACHE: &str = "public, max-age=300";
/// The content type of nearly all of them.
pub(super) const JSON: &str = "application/json";
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
    response_types_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_endpoint: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    code_challenge_methods_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    authorization_response_iss_parameter_supported: bool,
    grant_types_supported: Vec<&'static str>,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: BTreeSet<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    token_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    introspection_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    introspection_endpoint_auth_methods_supported: Option<BTreeSet<&'static str>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    introspection_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: BTreeSet<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    revocation_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dpop_signing_alg_values_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    status_list_aggregation_endpoint: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    scopes_supported: BTreeSet<&'m str>,
}

/// `GET /.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`:
/// what verifiers and clients configure themselves from.
pub fn metadata(oauth: &OAuth) -> Answer {
    let exchange = &oauth.exchange;
    let issuer = exchange.issuer.as_str();
    let refreshes = oauth.gives_refresh_tokens();
    let signs_in = oauth.signs_in();
    // An app is a public client: it has nothing to prove itself with.
    let (methods, algorithms) = oauth.clients.methods();
    let mut with_none = methods.clone();
    with_none.insert("none");
    let mut proving = methods;
    proving.remove("none");
    let introspects = !proving.is_empty();
    let of_clients = oauth.clients.scopes();
    let document = Metadata {
        issuer,
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        id_token_signing_alg_values_supported: &exchange.keys.published().algorithms,
        subject_types_supported: ["public"],
        response_types_supported: if signs_in { &["code"] } else { &[] },
        authorization_endpoint: oauth
            .only_provider()
            .map(|name| format!("{issuer}{LOGIN}{name}")),
        code_challenge_methods_supported: if signs_in { &["S256"] } else { &[] },
        authorization_response_iss_parameter_supported: signs_in,
        token_endpoint: format!("{issuer}/oauth/token"),
        token_endpoint_auth_methods_supported: with_none.clone(),
        token_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
        grant_types_supported: oauth.grants().collect(),
        introspection_endpoint: introspects.then(|| format!("{issuer}/oauth/introspect")),
        introspection_endpoint_auth_methods_supported: introspects.then_some(proving),
        introspection_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
        revocation_endpoint: format!("{issuer}/oauth/revoke"),
        revocation_endpoint_auth_methods_supported: with_none,
        revocation_endpoint_auth_signing_alg_values_supported: algorithms,
        dpop_signing_alg_values_supported: oauth.proof_algorithms(),
        status_list_aggregation_endpoint: oauth
            .listing()
            .map(|_| format!("{issuer}/.well-known/status-lists")),
        scopes_supported: oauth
            .scopes()
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
