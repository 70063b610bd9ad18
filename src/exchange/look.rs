//! A look: what the app would say of whoever a signed token proves.
//!
//! It is the story of an exchange up to the grant, and nothing comes of it: no token is minted,
//! no bucket is taken from and nobody is met, for a gateway asks about each request, and whoever
//! explains a token asks for none.

use super::{Exchange, Granted, signs_none};
use crate::clock::UnixSeconds;
use crate::explain::{Code, Ladder, Refusal};
use crate::policy::App;
use crate::policy::app::Wish;
use crate::policy::limits::Takes;
use crate::subject::clerk::session::{self, SessionId};
use crate::subject::jwt::{self, Unverified};
use crate::subject::{Issuer, Subject};
use crate::token::mint;
use std::sync::Arc;

impl Exchange {
    /// The claims of the app token that this token would be exchanged for, as JSON. Whether
    /// its issuer signs its tokens is the caller's to look at: nobody is asked about one.
    pub async fn look(&self, token: &str, wish: Wish<'_>) -> Result<Vec<u8>, Box<Refusal>> {
        let mut ladder = Ladder::default();
        let looked = self.look_on(token, wish, &mut ladder).await;
        looked.map_err(|mut refusal| {
            refusal.ladder = ladder;
            refusal
        })
    }

    /// The same, noting each check on the ladder.
    pub async fn look_on(
        &self,
        token: &str,
        wish: Wish<'_>,
        ladder: &mut Ladder,
    ) -> Result<Vec<u8>, Box<Refusal>> {
        let decoded = jwt::decode(token, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        let told = async {
            let now = self.clock.now();
            let (app, issuer) = self.apps.select(wish, unverified.issuer(), ladder)?;
            if !issuer.settings.kind.signs() {
                return Err(signs_none(ladder));
            }
            let subject = unverified.verify(&issuer, now, ladder).await?;
            self.would_say(&app, &issuer, &subject, wish, now, ladder)
                .await
        };
        told.await.map_err(|refusal| unverified.shown(refusal))
    }

    /// The same of a session id, about which the Backend API is asked: it is not used up.
    pub async fn look_up_on(
        &self,
        id: &str,
        wish: Wish<'_>,
        ladder: &mut Ladder,
    ) -> Result<Vec<u8>, Box<Refusal>> {
        let id = SessionId::parse(id, ladder)?;
        let (app, issuer) = self.apps.select_for_session_id(wish, ladder)?;
        let now = self.clock.now();
        let asked = session::Asked {
            id,
            code_verifier: None,
            at: now,
            traceparent: None,
        };
        let told = session::look_up(asked, &app.settings, &issuer, ladder).await?;
        let claims = told.claims()?;
        let subject = session::judge(&claims, &issuer, now, ladder)?;
        self.would_say(&app, &issuer, &subject, wish, now, ladder)
            .await
    }

    /// The claims of the app token that this subject would get.
    async fn would_say(
        &self,
        app: &Arc<App>,
        issuer: &Arc<Issuer>,
        subject: &Subject<'_>,
        wish: Wish<'_>,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Vec<u8>, Box<Refusal>> {
        let nothing = Takes::default();
        let granted = self
            .granted(app, issuer, subject, &nothing, wish, now, ladder)
            .await;
        let about = |refusal: Box<Refusal>| refusal.about(self.about(app, subject));
        let Granted { grant, .. } = granted.map_err(about)?;
        mint::claims(&self.issuer, &app.settings, subject, &grant, now)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))
    }
}
