//! The story itself: a credential proves a subject, the app grants it something, and a token
//! of ours says so.

use crate::clock::Clock;
use crate::explain::{Code, Ladder, Refusal, Source};
use crate::keys::{Keeper, Signer};
use crate::policy::app::Wish;
use crate::policy::{App, Apps};
use crate::subject::Issuer;
use crate::subject::jwt::{Decoded, Unverified};
use crate::token::{AppToken, mint};
use std::sync::Arc;

/// What came in, unverified; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Credential<'r>(&'r str);

impl<'r> Credential<'r> {
    /// A subject token as it was sent.
    pub fn new(token: &'r str) -> Self {
        Self(token)
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What an exchange asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// What proves the subject.
    pub credential: Credential<'r>,
    /// The app, and what else is asked for.
    pub wish: Wish<'r>,
}

/// What an exchange gives.
pub struct Exchanged {
    /// The app token.
    pub token: AppToken,
    /// Seconds until it expires.
    pub expires_in: i64,
    /// `sub` of the app token.
    pub id: String,
    /// The organisation's id.
    pub org_id: Option<String>,
    /// The subject's role in it.
    pub role: Option<String>,
    /// The subject's name in logs.
    pub pseudonym: String,
    /// Who vouched for the subject.
    pub issuer: Arc<Issuer>,
    /// The app.
    pub app: Arc<App>,
    /// The key that signed it.
    pub signer: Arc<Signer>,
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
    pub async fn exchange(&self, request: Request<'_>) -> Result<Exchanged, Box<Refusal>> {
        self.climb(request, &mut Ladder::default()).await
    }

    /// The same, noting each check on the ladder; a refusal carries it.
    pub async fn climb(
        &self,
        request: Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Exchanged, Box<Refusal>> {
        self.story(request, ladder).await.map_err(|mut refusal| {
            refusal.ladder = ladder.clone();
            refusal
        })
    }

    async fn story(
        &self,
        request: Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Exchanged, Box<Refusal>> {
        let decoded = Decoded::read(request.credential.0, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        self.judge(&unverified, request.wish, ladder)
            .await
            .map_err(|refusal| unverified.shown(refusal))
    }

    async fn judge(
        &self,
        unverified: &Unverified<'_>,
        wish: Wish<'_>,
        ladder: &mut Ladder,
    ) -> Result<Exchanged, Box<Refusal>> {
        let now = self.clock.now();
        let (app, issuer) = self.apps.select(wish, unverified.issuer(), ladder)?;
        let subject = unverified.verify(&issuer, now, ladder).await?;
        let grant = app.grant(&subject, wish, now, ladder)?;
        let keys = self.keys.published();
        let signer = keys.signer(app.settings.algorithm).ok_or_else(|| {
            Refusal::new(Code::SigningKeyUnavailable).unavailable(Source::Exchequer, 5)
        })?;
        let token = mint(&self.issuer, &app.settings, &subject, &grant, now, signer)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        let organization = subject.organization.as_ref();
        Ok(Exchanged {
            token,
            expires_in: grant.expires_at - now,
            id: grant.subject,
            org_id: organization.map(|org| org.id.to_owned()),
            role: organization.and_then(|org| org.role.as_deref().map(str::to_owned)),
            pseudonym: keys.pseudonym(subject.issuer, subject.id),
            signer: Arc::clone(signer),
            issuer: Arc::clone(&issuer),
            app,
        })
    }
}
