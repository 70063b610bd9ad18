//! Whether a secret key and an issuer belong to one Clerk instance: the classic mistake is
//! the key of another environment, with which no session is ever found.
//!
//! Both sides publish the instance's keys: the issuer to everybody, the Backend API to the
//! holder of the secret key. Without a key in common they are two instances.

use super::api::{ApiError, Asking};
use crate::explain::{Code, Refusal, Source};
use crate::subject::Issuer;
use crate::subject::jwks;
use crate::subject::key_cache::KeyError;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an answer is believed when a session is not found.
const BELIEVED: Duration = Duration::from_secs(300);

/// What is known of the instance behind a secret key.
#[derive(Default)]
pub(super) struct Instance(Mutex<Option<Known>>);

#[derive(Clone, Copy)]
struct Known {
    same: bool,
    since: Duration,
}

/// When the instance is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The API is used: once is enough.
    Use,
    /// It does not know a session.
    NotFound,
}

impl Asking<'_> {
    /// Refuses where the API's instance is not the issuer's, or where that was never known
    /// and cannot be found out.
    pub async fn check_instance(
        &self,
        issuer: &Issuer,
        occasion: Occasion,
    ) -> Result<(), Box<Refusal>> {
        let now = self.api.monotonic();
        let lock = || {
            let known = self.api.instance.0.lock();
            known.unwrap_or_else(PoisonError::into_inner)
        };
        let known = *lock();
        let believed = known.filter(|known| {
            let settled = known.same && occasion == Occasion::Use;
            settled || now < known.since + BELIEVED
        });
        let same = match believed {
            Some(known) => known.same,
            None => match self.shares_a_key(issuer).await {
                Ok(same) => {
                    *lock() = Some(Known { same, since: now });
                    same
                }
                Err(_) if known.is_some_and(|known| known.same) => true,
                Err(refusal) => return Err(refusal),
            },
        };
        if same {
            return Ok(());
        }
        Err(Refusal::new(Code::ProviderInstanceMismatch)
            .unavailable(Source::UpstreamIdp, 60)
            .caused_by(format!(
                "the secret key of the issuer {} belongs to another instance than {}",
                issuer.settings.name, issuer.settings.issuer
            )))
    }

    async fn shares_a_key(&self, issuer: &Issuer) -> Result<bool, Box<Refusal>> {
        let document = self.get("jwks").await.map_err(|error| match error {
            // Every instance has keys: this is no Backend API.
            ApiError::NotFound => ApiError::Refused(404, "it has no key set".to_owned()).refusal(),
            other => other.refusal(),
        })?;
        let theirs = jwks::public_keys(&document);
        let shares = issuer.keys.shares_a_key(&theirs).await;
        let shares = shares.map_err(KeyError::refusal)?;
        if !shares {
            let kids: Vec<&str> = theirs.iter().map(|(kid, _)| kid.as_str()).collect();
            tracing::error!(
                name = issuer.settings.name,
                issuer = issuer.settings.issuer,
                issuer_keys = issuer.keys.describe(),
                secret_key_kids = kids.join(", "),
                "the secret key belongs to another Clerk instance than the issuer"
            );
        }
        Ok(shares)
    }
}
