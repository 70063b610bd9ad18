//! The status list as it is published: made anew when it is asked for and is older than a few
//! seconds, and served from memory until then.

use super::OAuth;
use crate::clock::UnixSeconds;
use crate::crypto::sha256;
use crate::explain::{Code, Refusal};
use crate::store::StoreError;
use crate::token::mint::signer;
use crate::token::status_list::{self, LIFETIME};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How old it may be before it is made anew, seconds: a revocation is in it so much later at
/// most.
pub const MADE_EVERY: UnixSeconds = 10;

/// The list, signed.
pub struct Made {
    /// The compact JWS.
    pub token: Bytes,
    /// Its strong entity tag.
    pub etag: String,
    made_at: UnixSeconds,
    /// The ring that signed it: a key that was revoked signs for nobody.
    ring: u64,
}

/// The last list that was made. Whoever finds it too old makes the next; others wait for it.
#[derive(Default)]
pub struct StatusList(Mutex<Option<Arc<Made>>>);

impl OAuth {
    /// The list; none where nobody has one. While the store cannot be asked, the last one is
    /// shown for as long as it may be believed.
    pub async fn status_list(&self) -> Result<Option<Arc<Made>>, Box<Refusal>> {
        let Some(algorithm) = self.listing() else {
            return Ok(None);
        };
        let exchange = &self.exchange;
        let mut last = self.status_list.0.lock().await;
        let now = exchange.clock.now();
        let keys = exchange.keys.published();
        let usable = last.clone().filter(|made| {
            // A clock that stepped back makes no list old, nor young for long.
            made.ring == keys.generation && (made.made_at..made.made_at + LIFETIME).contains(&now)
        });
        if let Some(made) = &usable
            && now < made.made_at + MADE_EVERY
        {
            return Ok(usable);
        }
        let revoked = match (exchange.store.revoked_statuses(now).await, usable) {
            (Ok(revoked), _) => revoked,
            (Err(_), Some(made)) => return Ok(Some(made)),
            (Err(error), None) => return Err(StoreError::refusal(error)),
        };
        let signer = signer(&keys, algorithm)?;
        let uri = status_list::uri(&exchange.issuer);
        let token = status_list::list(&exchange.issuer, &uri, &revoked, now, signer)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        let made = Arc::new(Made {
            etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()))),
            token: token.into(),
            made_at: now,
            ring: keys.generation,
        });
        *last = Some(Arc::clone(&made));
        Ok(Some(made))
    }
}
