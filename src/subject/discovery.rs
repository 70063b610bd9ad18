//! Where an issuer's key set is: as configured, as discovered, or at the usual place.

use super::address::{self, Reach};
use super::fetch::{FetchError, Fetcher};
use super::json::Object;
use crate::config::{IssuerKind, IssuerSettings};
use url::Url;

/// Why the place of the key set is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The discovery document could not be had.
    #[error("discovery at {url}: {error}")]
    Fetch {
        /// Where it was asked for.
        url: String,
        /// Why not.
        error: FetchError,
    },
    /// It is no discovery document.
    #[error("discovery at {url}: not a JSON object with `issuer` and `jwks_uri`")]
    Malformed {
        /// Where it is.
        url: String,
    },
    /// It is another issuer's (OpenID Connect Discovery §4.3).
    #[error("discovery at {url}: the document says issuer {said:?}, configured is {configured:?}")]
    Mismatch {
        /// Where it is.
        url: String,
        /// `issuer` in the document.
        said: String,
        /// The configured issuer.
        configured: String,
    },
    /// A URL that leads where it must not.
    #[error("the key set's address: {0}")]
    Forbidden(FetchError),
}

/// Finds the key set's URL and how far a request for it may reach.
pub async fn key_set_url(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
) -> Result<(Url, Reach), DiscoveryError> {
    let parse = |text: &str| {
        Url::parse(text).map_err(|_| DiscoveryError::Forbidden(FetchError::Forbidden(short(text))))
    };
    let own = parse(&issuer.issuer)?;
    let private = issuer.allow_private_network;
    if let Some(uri) = &issuer.jwks_uri {
        let uri = parse(uri)?;
        let reach = address::configured(&uri, private);
        return Ok((uri, reach));
    }
    let reach = address::configured(&own, private);
    let base = issuer.issuer.trim_end_matches('/');
    let usual = parse(&format!("{base}/.well-known/jwks.json"))?;
    if issuer.kind == IssuerKind::Clerk {
        return Ok((usual, reach));
    }
    let url = parse(&format!("{base}/.well-known/openid-configuration"))?;
    let document = match fetcher.get(&url, reach).await {
        Ok(document) => document,
        Err(FetchError::Status(404)) => return Ok((usual, reach)),
        Err(error) => {
            return Err(DiscoveryError::Fetch {
                url: url.to_string(),
                error,
            });
        }
    };
    let metadata = Object::parse(&document.body).unwrap_or_default();
    let (Some(said), Some(uri)) = (metadata.text("issuer"), metadata.text("jwks_uri")) else {
        return Err(DiscoveryError::Malformed {
            url: url.to_string(),
        });
    };
    if said != issuer.issuer {
        return Err(DiscoveryError::Mismatch {
            url: url.to_string(),
            said: short(said),
            configured: issuer.issuer.clone(),
        });
    }
    let uri = parse(uri)?;
    let reach = address::discovered(&uri, &own, private);
    if !address::allowed(&uri, reach) {
        return Err(DiscoveryError::Forbidden(FetchError::forbidden(&uri)));
    }
    Ok((uri, reach))
}

/// As much of a document's text as a message takes.
fn short(text: &str) -> String {
    text.chars().take(255).collect()
}
