//! An issuer that is not trusted: whose it may be, and the one that was probably meant.

use super::{Case, Hints, one};
use crate::explain::nearest::Difference;
use crate::explain::say::Say;

impl Case<'_> {
    pub(super) fn issuer(&self) -> Hints {
        let iss = self.text("iss")?;
        let mut issuers = self.settings.issuers.iter();
        if issuers.any(|issuer| issuer.issuer == iss) {
            return Some(vec![self.trusted_elsewhere(iss)]);
        }
        let known = || self.issuers().map(|issuer| issuer.issuer.as_str());
        let Some((near, difference)) = Difference::nearest(iss, known()) else {
            return one(
                "Nothing like it is configured. If it is to be trusted, add it to CLERK_JWT_ISSUER or as `[issuers.NAME]`; if not, the app signs in at another provider than this service is configured for.",
            );
        };
        let issuer = self.issuers().find(|issuer| issuer.issuer == near)?;
        let told = Say::words("Nearest is ")
            .value("issuer", near)
            .and(": ")
            .and(difference.words())
            .and(".");
        let next = Say::words(match difference {
            Difference::Development => {
                "The app was built with a development key: build it with the `pk_live_…` key of the production instance (Clerk → API keys), or let this service trust the development instance in "
            }
            Difference::Production => {
                "The app was built with a production key: build it with the `pk_test_…` key of the development instance (Clerk → API keys), or let this service trust the production instance in "
            }
            Difference::OtherDevelopment => {
                "Take the publishable key of the app and the issuer of this service from one page: Clerk → API keys. The issuer stands in "
            }
            _ => {
                "Issuers are compared byte for byte. If the token is genuine, write its `iss` into "
            }
        })
        .then(self.of_issuer(issuer, "issuer"));
        let next = match difference {
            Difference::Development | Difference::Production | Difference::OtherDevelopment => next,
            _ => next.and(": ").value("issuer", iss),
        };
        Some(vec![told, next.and(".")])
    }

    /// The issuer is configured, for another app.
    fn trusted_elsewhere(&self, iss: &str) -> Say {
        let apps = self.apps_trusting(|issuer| issuer.issuer == iss);
        if apps.is_empty() {
            return Say::words("The issuer is configured, and no app trusts it: list it in ")
                .then(self.setting("apps", self.app.unwrap_or("NAME"), "issuers"))
                .and(".");
        }
        Say::words("Another app trusts this issuer: send `\"app\": \"")
            .values("app", apps)
            .and("\"` with the exchange, if the token is meant for it.")
    }
}
