//! Times that are off: a token that was kept, a clock that is wrong, milliseconds.

use super::{Case, Hints};
use crate::clock::UnixSeconds;
use crate::config::IssuerKind;
use crate::explain::say::Say;

/// A day, in seconds.
const DAY: UnixSeconds = 86_400;
/// Times beyond this are milliseconds that were taken for seconds.
const MILLISECONDS: i64 = 100_000_000_000;

impl Case<'_> {
    pub(super) fn expired(&self) -> Hints {
        let exp = self.number("exp")?;
        let ago = self.now.saturating_sub(exp);
        if ago > DAY {
            return Some(vec![Say::words("It expired ").number(ago / DAY).and(
                " days ago: it was kept in a file, a variable or a test, and is not made anew.",
            )]);
        }
        let lifetime = exp.saturating_sub(self.number("iat")?);
        (lifetime > 0).then(|| {
            vec![
                Say::words("It lived ")
                    .number(lifetime)
                    .and(" s, and ended ")
                    .number(ago)
                    .and(" s ago: ask the SDK for a token right before each exchange. If it was made a moment ago, this machine's clock is ahead: `exchequer doctor` compares."),
            ]
        })
    }

    pub(super) fn ahead(&self, claim: &'static str) -> Hints {
        let ahead = self.number(claim)?.saturating_sub(self.now);
        let mut next = vec![
            Say::words("This machine's clock is behind the issuer's by ")
                .number(ahead)
                .and(" s or more, if the token was made just now: run NTP (`timedatectl`), and compare with `exchequer doctor`."),
        ];
        next.extend(self.judge().map(|issuer| {
            Say::words("A few seconds may be tolerated by ")
                .then(self.of_issuer(issuer, "clock_skew"))
                .and(".")
        }));
        Some(next)
    }

    pub(super) fn lifetime(&self) -> Hints {
        let issuer = self.judge()?;
        let begin = match issuer.kind {
            IssuerKind::Clerk => {
                "Clerk → JWT templates → the template → Token lifetime; or send the session token in its place (`getToken()` without a template). The limit is "
            }
            _ => "Shorten the lifetime at the provider. The limit is ",
        };
        let limit = self.of_issuer(issuer, "max_lifetime");
        Some(vec![Say::words(begin).then(limit).and(".")])
    }

    pub(super) fn milliseconds(&self) -> Hints {
        let long = |name: &&str| self.number(name).is_some_and(|time| time > MILLISECONDS);
        let name = ["exp", "iat", "nbf", "auth_time"].into_iter().find(long)?;
        let told = Say::words("`").and(name);
        Some(vec![told.and(
            "` looks like milliseconds: a date in a JWT is in seconds (RFC 7519 §2).",
        )])
    }
}
