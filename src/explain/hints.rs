//! What to change, for this very token and this very configuration: the setting by its name and
//! place, the page of the provider's dashboard, and the slip that was probably made.
//!
//! Nothing here decides anything. A hint reads what is unverified, and says what would make it
//! pass if it is genuine.

mod app;
mod issuer;
mod kind;
mod meant;
mod ours;
mod time;

use super::catalogue::Code;
use super::ladder::Check;
use super::nearest::Difference;
use super::say::Say;
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, IssuerSettings, Settings};
use serde_json::Value;

/// What a refusal is about, as far as it is known; header and claims are unverified.
pub struct Case<'c> {
    /// The configuration.
    pub settings: &'c Settings,
    /// The header.
    pub header: &'c Value,
    /// The claims.
    pub claims: &'c Value,
    /// The app that was asked for, where one was.
    pub app: Option<&'c str>,
    /// The audience that was asked for, where one was.
    pub audience: Option<&'c str>,
    /// The time.
    pub now: UnixSeconds,
}

/// Hints where there are some: what they would be about may be missing.
type Hints = Option<Vec<Say>>;

impl Case<'_> {
    /// What to do about a refusal with this code, most likely first; empty where the catalogue
    /// says all.
    pub fn hints(&self, code: Code) -> Vec<Say> {
        let hints = match code {
            Code::SubjectTokenIssuerUntrusted => self.issuer(),
            Code::SubjectTokenIsAppToken => one(
                "This is what an exchange gave. Send the provider's token to /auth/exchange, and this one to your backends: two variables were swapped.",
            ),
            Code::AppUnknown => self.app_unknown(),
            Code::AppRequired => self.app_required(),
            Code::AudienceNotAllowed => self.audience_not_allowed(),
            Code::ConditionNotMet => self.condition(),
            Code::SubjectTokenAudienceMissing => self.audience_missing(),
            Code::SubjectTokenAudienceMismatch => self.audience(),
            Code::SubjectTokenAuthorizedPartyMissing => self.party_missing(),
            Code::SubjectTokenAuthorizedPartyMismatch => self.party(),
            Code::SubjectTokenExpired => self.expired(),
            Code::SubjectTokenNotYetValid => self.ahead("nbf"),
            Code::SubjectTokenIssuedInFuture => self.ahead("iat"),
            Code::SubjectTokenLifetimeExcessive => self.lifetime(),
            Code::SubjectTokenClaimMalformed => self.milliseconds(),
            Code::SubjectTokenAlgorithmNotAllowed => self.algorithm(),
            Code::SubjectTokenTypeMismatch | Code::SubjectTokenHeaderUnsupported => self.kind(),
            Code::SubjectTokenKindNotAccepted => self.not_accepted(),
            Code::SubjectTokenEncrypted => self.encrypted(),
            Code::SubjectTokenKeyIdMissing => self.key_id_missing(),
            Code::SessionPending => one(
                "Clerk → Organizations and Clerk → Multi-factor say what a user must still do (choose an organisation, set up a second factor).",
            ),
            Code::AppTokenAudienceMismatch => self.own_audience(),
            Code::AppTokenAppMismatch => self.own_app(),
            Code::AppTokenExpired => self.own_end(),
            Code::AppTokenKeyUnknown => one(
                "If `exchequer keys list` shows other kids, the token is of another environment with the same EXCHEQUER_ISSUER, or its ring was replaced: each environment needs an issuer of its own.",
            ),
            _ => None,
        };
        hints.unwrap_or_default()
    }

    /// What the checks after this one would say, for those that the token alone decides: so that
    /// nobody looks for the cause there.
    pub fn unreached(&self, failed: Check) -> Vec<Say> {
        let Some(issuer) = self.judge().filter(|_| failed < Check::Expiry) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        if let Some(exp) = self.number("exp") {
            let ahead = exp.saturating_sub(self.now);
            told.push(if ahead > -issuer.clock_skew {
                Say::words("expiry would pass: exp is in ")
                    .number(ahead)
                    .and(" s")
            } else {
                Say::words("expiry would fail: exp was ")
                    .number(ahead.saturating_neg())
                    .and(" s ago")
            });
        }
        if failed < Check::Audience {
            let known = |seen: &&str| issuer.audiences.iter().any(|each| each == seen);
            let seen = self.audiences();
            told.push(match (seen.is_empty(), issuer.audiences.is_empty()) {
                (true, true) => Say::words("audience would pass: absent, and none is required"),
                (false, true) => Say::words("audience would pass: none is required"),
                (true, false) => Say::words("audience would fail: absent"),
                (false, false) if seen.iter().any(known) => Say::words("audience would pass"),
                (false, false) => Say::words("audience would fail: another"),
            });
        }
        told
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    fn number(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64().or_else(|| value.as_f64().map(truncated))
    }

    /// The values of `aud`.
    fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The apps in question.
    fn apps(&self) -> impl Iterator<Item = &AppSettings> {
        let named = self.app;
        let apps = self.settings.apps.iter();
        apps.filter(move |app| named.is_none_or(|named| app.name == named))
    }

    /// The names of all apps that trust an issuer of this kind.
    fn apps_trusting(&self, fits: impl Fn(&IssuerSettings) -> bool) -> Vec<&str> {
        let issuers = self.settings.issuers.iter();
        let names: Vec<&str> = issuers
            .filter(|issuer| fits(issuer))
            .map(|issuer| issuer.name.as_str())
            .collect();
        let trusts = |app: &&AppSettings| {
            let mut issuers = app.issuers.iter();
            issuers.any(|name| names.contains(&name.as_str()))
        };
        let apps = self.settings.apps.iter().filter(trusts);
        apps.map(|app| app.name.as_str()).collect()
    }

    /// The issuers of the apps in question.
    fn issuers(&self) -> impl Iterator<Item = &IssuerSettings> {
        let trusted =
            |issuer: &&IssuerSettings| self.apps().any(|app| app.issuers.contains(&issuer.name));
        self.settings.issuers.iter().filter(trusted)
    }

    /// The issuer that the token is judged by.
    fn judge(&self) -> Option<&IssuerSettings> {
        let iss = self.text("iss")?;
        self.issuers().find(|issuer| issuer.issuer == iss)
    }

    /// A setting of an issuer, by its name and its place.
    fn of_issuer(&self, issuer: &IssuerSettings, setting: &'static str) -> Say {
        self.setting("issuers", &issuer.name, setting)
    }

    /// A setting by its name and its place, if that is known.
    fn setting(&self, section: &'static str, name: &str, setting: &'static str) -> Say {
        let place = self.settings.places.of(section, name, setting);
        let variable = |place: &&str| place.starts_with("CLERK_");
        if let Some(variable) = place.filter(variable) {
            return Say::default().value("variable", variable);
        }
        let named = Say::words(match section {
            "apps" => "`[apps.",
            _ => "`[issuers.",
        });
        let named = named.value("name", name).and("] ").and(setting).and("`");
        match place {
            Some(place) => named.and(" (").value("place", place).and(")"),
            None => named,
        }
    }
}

/// One hint that is the same for all.
fn one(text: &'static str) -> Hints {
    Some(vec![Say::words(text)])
}

/// What was seen, the known name that it is nearly, and by what they differ.
fn slip<'k>(kind: &'static str, seen: &str, known: impl Iterator<Item = &'k str>) -> Option<Say> {
    let (near, difference) = Difference::nearest(seen, known)?;
    let seen = Say::default().value(kind, seen);
    Some(
        seen.and(" is nearly ")
            .value(kind, near)
            .and(": ")
            .and(difference.words())
            .and("."),
    )
}

#[expect(clippy::cast_possible_truncation, reason = "a date, shown to people")]
fn truncated(value: f64) -> i64 {
    value as i64
}
