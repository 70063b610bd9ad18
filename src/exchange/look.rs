//! A look: what the app would say of whoever a signed token proves.
//!
//! It is the story of an exchange up to the grant, and nothing comes of it: no token is minted,
//! no bucket is taken from and nobody is met, for a gateway asks about each request, and whoever
//! explains a token asks for none.

use super::{Exchange, Granted, signs_none};
use crate::explain::{Code, Ladder, Refusal};
use crate::policy::app::Wish;
use crate::policy::limits::Takes;
use crate::subject::jwt::{self, Unverified};
use crate::token::mint;

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
            let nothing = Takes::default();
            let granted = self
                .granted(&app, &issuer, &subject, &nothing, wish, now, ladder)
                .await;
            let about = |refusal: Box<Refusal>| refusal.about(self.about(&app, &subject));
            let Granted { grant, .. } = granted.map_err(about)?;
            mint::claims(&self.issuer, &app.settings, &subject, &grant, now)
                .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))
        };
        told.await.map_err(|refusal| unverified.shown(refusal))
    }
}
