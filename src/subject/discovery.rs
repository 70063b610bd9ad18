//! Where an issuer's key set and its introspection endpoint are: as configured, as
//! discovered, or at the usual place.

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
    #[error("discovery at {url}: not a JSON object with `issuer` and `{member}`")]
    Malformed {
        /// Where it is.
        url: String,
        /// What it was asked for.
        member: &'static str,
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
    #[error("the discovered address: {0}")]
    Forbidden(FetchError),
}

/// Finds the key set's URL and how far a request for it may reach.
pub async fn key_set_url(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
) -> Result<(Url, Reach), DiscoveryError> {
    if let Some(uri) = &issuer.jwks_uri {
        return configured(uri, issuer);
    }
    let base = issuer.issuer.trim_end_matches('/');
    let usual = || configured(&format!("{base}/.well-known/jwks.json"), issuer);
    if issuer.kind == IssuerKind::Clerk {
        return usual();
    }
    let openid = format!("{base}/.well-known/openid-configuration");
    match discovered(fetcher, issuer, &openid, "jwks_uri").await? {
        Some(place) => Ok(place),
        None => usual(),
    }
}

/// Finds the introspection endpoint (RFC 7662) and how far a request to it may reach.
pub async fn introspection_url(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
    endpoint: Option<&str>,
) -> Result<(Url, Reach), DiscoveryError> {
    if let Some(endpoint) = endpoint {
        return configured(endpoint, issuer);
    }
    let base = issuer.issuer.trim_end_matches('/');
    if issuer.kind == IssuerKind::Clerk {
        return configured(&format!("{base}/oauth/token_info"), issuer);
    }
    let member = "introspection_endpoint";
    let openid = format!("{base}/.well-known/openid-configuration");
    if let Some(place) = discovered(fetcher, issuer, &openid, member).await? {
        return Ok(place);
    }
    // RFC 8414 §3.1: between the host and the path.
    let mut oauth = parse(base)?;
    let path = oauth.path().trim_end_matches('/').to_owned();
    oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    discovered(fetcher, issuer, oauth.as_str(), member)
        .await?
        .ok_or_else(|| DiscoveryError::Malformed {
            url: oauth.to_string(),
            member,
        })
}

fn configured(text: &str, issuer: &IssuerSettings) -> Result<(Url, Reach), DiscoveryError> {
    let url = parse(text)?;
    let reach = address::configured(&url, issuer.allow_private_network);
    Ok((url, reach))
}

/// Finds a provider's authorization endpoint and token endpoint in its OpenID metadata, and how
/// far requests to them may reach.
pub async fn sign_in_urls(
    fetcher: &Fetcher,
    issuer: &str,
    private: bool,
) -> Result<((Url, Reach), (Url, Reach)), DiscoveryError> {
    let base = issuer.trim_end_matches('/');
    let openid = format!("{base}/.well-known/openid-configuration");
    let issuer = Identity { issuer, private };
    let document = issuer.document(fetcher, &openid).await?;
    let document = document.ok_or_else(|| DiscoveryError::Fetch {
        url: openid.clone(),
        error: FetchError::Status(404),
    })?;
    let place = |member| issuer.member(&document, &openid, member);
    Ok((place("authorization_endpoint")?, place("token_endpoint")?))
}

/// The URL that a member of the issuer's metadata names; `None` where there is no document.
async fn discovered(
    fetcher: &Fetcher,
    issuer: &IssuerSettings,
    document: &str,
    member: &'static str,
) -> Result<Option<(Url, Reach)>, DiscoveryError> {
    let issuer = Identity {
        issuer: &issuer.issuer,
        private: issuer.allow_private_network,
    };
    match issuer.document(fetcher, document).await? {
        None => Ok(None),
        Some(body) => issuer.member(&body, document, member).map(Some),
    }
}

/// Whose metadata it must be, and whether it may lead to private addresses.
struct Identity<'i> {
    issuer: &'i str,
    private: bool,
}

impl Identity<'_> {
    /// The metadata at this place; `None` where there is no document.
    async fn document(
        &self,
        fetcher: &Fetcher,
        place: &str,
    ) -> Result<Option<Vec<u8>>, DiscoveryError> {
        let own = parse(self.issuer)?;
        let url = parse(place)?;
        match fetcher
            .get(&url, address::configured(&own, self.private))
            .await
        {
            Ok(document) => Ok(Some(document.body)),
            Err(FetchError::Status(404)) => Ok(None),
            Err(error) => Err(DiscoveryError::Fetch {
                url: url.to_string(),
                error,
            }),
        }
    }

    /// The URL that a member of the metadata from this place names.
    fn member(
        &self,
        document: &[u8],
        place: &str,
        member: &'static str,
    ) -> Result<(Url, Reach), DiscoveryError> {
        let metadata = Object::parse(document).unwrap_or_default();
        let (Some(said), Some(uri)) = (metadata.text("issuer"), metadata.text(member)) else {
            return Err(DiscoveryError::Malformed {
                url: place.to_owned(),
                member,
            });
        };
        if said != self.issuer {
            return Err(DiscoveryError::Mismatch {
                url: place.to_owned(),
                said: short(said),
                configured: self.issuer.to_owned(),
            });
        }
        let uri = parse(uri)?;
        let reach = address::discovered(&uri, &parse(self.issuer)?, self.private);
        if !address::allowed(&uri, reach) {
            return Err(DiscoveryError::Forbidden(FetchError::forbidden(&uri)));
        }
        Ok((uri, reach))
    }
}

fn parse(text: &str) -> Result<Url, DiscoveryError> {
    Url::parse(text).map_err(|_| DiscoveryError::Forbidden(FetchError::Forbidden(short(text))))
}

/// As much of a document's text as a message takes.
fn short(text: &str) -> String {
    text.chars().take(255).collect()
}
