//! `GET /.well-known/oauth-protected-resource` (RFC 9728): what `/auth/verify` takes, and from
//! whom. A client is led here by the challenge of a refusal (§5.1).

use super::{metadata, verify};
use crate::oauth::OAuth;
use serde::Serialize;
use std::collections::BTreeSet;
use warp::reply::Response as Answer;

/// Where the document of a resource is that has no path (§3.1).
pub const PATH: &str = "/.well-known/oauth-protected-resource";
/// Where that of `/auth/verify` is.
pub const OF_VERIFY: &str = "/.well-known/oauth-protected-resource/auth/verify";

/// RFC 9728 §2.
#[derive(Serialize)]
struct Resource<'r> {
    resource: String,
    authorization_servers: [&'r str; 1],
    jwks_uri: String,
    bearer_methods_supported: [&'static str; 1],
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    scopes_supported: BTreeSet<&'r str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dpop_signing_alg_values_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dpop_bound_access_tokens_required: bool,
}

/// Where the document of `/auth/verify` is, for whoever is told of it.
pub fn url(issuer: &str) -> String {
    format!("{issuer}{OF_VERIFY}")
}

/// The document of the whole service, or of `/auth/verify`: a reader takes no document whose
/// `resource` is another than the one that it asked for (§3.3).
pub fn document(oauth: &OAuth, of_verify: bool) -> Answer {
    let issuer = oauth.exchange.issuer.as_str();
    let path = if of_verify { verify::PATH } else { "" };
    let document = Resource {
        resource: format!("{issuer}{path}"),
        authorization_servers: [issuer],
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        bearer_methods_supported: ["header"],
        scopes_supported: oauth.scopes().collect(),
        dpop_signing_alg_values_supported: oauth.proof_algorithms(),
        dpop_bound_access_tokens_required: oauth.needs_proofs(),
    };
    metadata::public(serde_json::to_string(&document).unwrap_or_default())
}
