//! The story itself: a credential proves a subject, the app grants it something, and a token
//! of ours says so.

use crate::clock::Clock;
use crate::explain::{Code, Ladder, Refusal, Source};
use crate::keys::Keeper;
use crate::policy::app::Wish;
use crate::policy::{App, Apps};
use crate::subject::Subject;
use crate::subject::jwt::Unverified;
use crate::token::{AppToken, mint};
use std::sync::Arc;

/// What came in, unverified; its `Debug` does not show it.
pub struct Credential(String);

impl Credential {
    /// A subject token as it was sent.
    pub fn new(token: String) -> Self {
        Self(token)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What an exchange asks for.
#[derive(Debug)]
pub struct Request {
    /// What proves the subject.
    pub credential: Credential,
    /// The app, where one is named.
    pub app: Option<String>,
    /// The audience, where one is named.
    pub audience: Option<String>,
}

impl Request {
    fn wish(&self) -> Wish<'_> {
        Wish {
            app: self.app.as_deref(),
            audience: self.audience.as_deref(),
        }
    }
}

/// What an exchange gives.
pub struct Exchanged {
    /// The app token.
    pub token: AppToken,
    /// Seconds until it expires.
    pub expires_in: i64,
    /// `sub` of the app token.
    pub subject_id: String,
    /// Whose token it is.
    pub subject: Subject,
    /// The app.
    pub app: Arc<App>,
    /// The key that signed it.
    pub kid: String,
}

/// All that an exchange needs.
pub struct Exchange {
    /// `iss` of our tokens.
    pub issuer: String,
    /// The apps and, through them, the issuers.
    pub apps: Apps,
    /// Our keys.
    pub keys: Arc<Keeper>,
    /// The time.
    pub clock: Clock,
}

impl Exchange {
    /// Exchanges a credential for an app token.
    pub async fn exchange(&self, request: &Request) -> Result<Exchanged, Box<Refusal>> {
        self.climb(request, &mut Ladder::default()).await
    }

    /// The same, noting each check on the ladder; a refusal carries it.
    pub async fn climb(
        &self,
        request: &Request,
        ladder: &mut Ladder,
    ) -> Result<Exchanged, Box<Refusal>> {
        match self.story(request, ladder).await {
            Ok(exchanged) => Ok(exchanged),
            Err(mut refusal) => {
                refusal.ladder = ladder.clone();
                Err(refusal)
            }
        }
    }

    async fn story(
        &self,
        request: &Request,
        ladder: &mut Ladder,
    ) -> Result<Exchanged, Box<Refusal>> {
        let wish = request.wish();
        let now = self.clock.now();
        let unverified = Unverified::parse(&request.credential.0, ladder)?;
        let (app, issuer) = self
            .apps
            .select(wish, unverified.issuer(), ladder)
            .map_err(|refusal| unverified.shown(refusal))?;
        let subject = unverified.verify(&issuer, now, ladder).await?;
        let grant = app.grant(&subject, wish, now, ladder)?;
        let published = self.keys.published();
        let signer = published.signer(app.settings.algorithm).ok_or_else(|| {
            Refusal::new(Code::SigningKeyUnavailable).unavailable(Source::Exchequer, 5)
        })?;
        let token = mint(&self.issuer, &app.settings, &subject, &grant, now, signer)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        Ok(Exchanged {
            token,
            expires_in: grant.expires_at - now,
            subject_id: grant.subject,
            subject,
            kid: signer.kid.clone(),
            app,
        })
    }
}
