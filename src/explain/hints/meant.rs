//! Whom a token is meant for: `aud`, and `azp`, the front end that asked for it.

use super::{Case, Hints, slip};
use crate::config::IssuerKind;
use crate::explain::say::Say;

/// Where Clerk's own claims are added.
const CLERK_SESSION: &str = "Clerk → Sessions → Customize session token";

impl Case<'_> {
    pub(super) fn audience_missing(&self) -> Hints {
        let issuer = self.judge()?;
        let wanted = issuer.audiences.iter().map(String::as_str).take(1);
        let add = if issuer.kind == IssuerKind::Clerk {
            Say::words(CLERK_SESSION)
                .and(": add `{\"aud\": \"")
                .values("audience", wanted)
                .and("\"}`. Tokens that are made from then on have it.")
        } else {
            Say::words("Let the provider write ")
                .values("audience", wanted)
                .and(" into `aud`.")
        };
        let remove = Say::words("Or, if no audience is needed, remove ")
            .then(self.of_issuer(issuer, "audiences"))
            .and(" and set ")
            .then(self.of_issuer(issuer, "authorized_parties"))
            .and(" instead.");
        Some(vec![add, remove])
    }

    pub(super) fn audience(&self) -> Hints {
        let issuer = self.judge()?;
        let seen = self.audiences();
        let known = || issuer.audiences.iter().map(String::as_str);
        let near = seen.iter().find_map(|seen| slip("audience", seen, known()));
        let mut next: Vec<Say> = near.into_iter().collect();
        // The same instance for another app.
        let apps = self.apps_trusting(|other| {
            let mut audiences = other.audiences.iter();
            other.issuer == issuer.issuer
                && other.name != issuer.name
                && audiences.any(|each| seen.contains(&each.as_str()))
        });
        if !apps.is_empty() {
            next.push(
                Say::words("The token fits another app: send `\"app\": \"")
                    .values("app", apps)
                    .and("\"` with the exchange."),
            );
        }
        let correct = match issuer.kind {
            IssuerKind::Clerk => {
                "Correct `aud` at Clerk → Sessions → Customize session token (or in the JWT template that the app names in `getToken({ template })`), or add the token's to "
            }
            _ => "Let the provider make the token for the right audience, or add the token's to ",
        };
        let place = self.of_issuer(issuer, "audiences");
        next.push(Say::words(correct).then(place).and("."));
        Some(next)
    }

    pub(super) fn party_missing(&self) -> Hints {
        let issuer = self.judge()?;
        Some(vec![
            Say::words("A native app (Expo, iOS, Android) sends no Origin, so its tokens have no `azp`: give it an app of its own, whose issuer has no ")
                .then(self.of_issuer(issuer, "authorized_parties"))
                .and("."),
            Say::words("A web app gets tokens with `azp` from `getToken()`; those in the `__session` cookie may lack it."),
        ])
    }

    pub(super) fn party(&self) -> Hints {
        let (issuer, seen) = (self.judge()?, self.text("azp")?);
        let known = issuer.authorized_parties.iter().map(String::as_str);
        let mut next: Vec<Say> = slip("origin", seen, known).into_iter().collect();
        next.push(
            Say::words("If that front end may sign in here, add ")
                .value("origin", seen)
                .and(" to ")
                .then(self.of_issuer(issuer, "authorized_parties"))
                .and(". `azp` is the origin of the page on which the session token was made."),
        );
        Some(next)
    }
}
