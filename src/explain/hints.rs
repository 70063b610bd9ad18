//! What to change, for this very token and this very configuration: the setting by its name and
//! place, the page of the provider's dashboard, and the slip that was probably made.
//!
//! Nothing here decides anything. A hint reads what is unverified, and says what would make it
//! pass if it is genuine.

use super::catalogue::Code;
use super::ladder::Check;
use super::nearest::Difference;
use super::say::Say;
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, IssuerKind, IssuerSettings, Settings, TokenKind};
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
    /// The time.
    pub now: UnixSeconds,
}

/// A day, in seconds.
const DAY: UnixSeconds = 86_400;
/// Times beyond this are milliseconds that were taken for seconds.
const MILLISECONDS: i64 = 100_000_000_000;
/// Where Clerk's own claims are added.
const CLERK_SESSION: &str = "Clerk → Sessions → Customize session token";

impl Case<'_> {
    /// What to do about a refusal with this code, most likely first; empty where the catalogue
    /// says all.
    pub fn hints(&self, code: Code) -> Vec<Say> {
        match code {
            Code::SubjectTokenIssuerUntrusted => self.issuer(),
            Code::SubjectTokenIsAppToken => vec![Say::words(
                "This is what an exchange gave. Send the provider's token to /auth/exchange, and this one to your backends: two variables were swapped.",
            )],
            Code::AppUnknown => self.app_unknown(),
            Code::AppRequired => self.app_required(),
            Code::AudienceNotAllowed => self.audience_not_allowed(),
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
            Code::ConditionNotMet => self.expression("condition"),
            Code::SessionPending => vec![Say::words(
                "Clerk → Organizations and Clerk → Multi-factor say what a user must still do (choose an organisation, set up a second factor).",
            )],
            _ => Vec::new(),
        }
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
                    .number(-ahead)
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

    /// The apps in question.
    fn apps(&self) -> impl Iterator<Item = &AppSettings> {
        let named = self.app;
        let apps = self.settings.apps.iter();
        apps.filter(move |app| named.is_none_or(|named| app.name == named))
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

    /// A setting by its name and its place, if that is known.
    fn setting(&self, section: &'static str, name: &str, setting: &'static str) -> Say {
        let place = self.settings.places.of(section, name, setting);
        let variable = |place: &&str| place.starts_with("CLERK_");
        if let Some(variable) = place.filter(variable) {
            return Say::words("").value("variable", variable);
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

    fn issuer(&self) -> Vec<Say> {
        let Some(iss) = self.text("iss") else {
            return Vec::new();
        };
        // The issuer of another app.
        let others: Vec<&IssuerSettings> = self
            .settings
            .issuers
            .iter()
            .filter(|issuer| issuer.issuer == iss)
            .collect();
        if !others.is_empty() {
            let trusts = |app: &&AppSettings| {
                others
                    .iter()
                    .any(|issuer| app.issuers.contains(&issuer.name))
            };
            let apps = self.settings.apps.iter().filter(trusts);
            let apps: Vec<&str> = apps.map(|app| app.name.as_str()).collect();
            return match apps.as_slice() {
                [] => vec![
                    Say::words("The issuer is configured, and no app trusts it: list it in ")
                        .then(self.setting("apps", self.app.unwrap_or("NAME"), "issuers"))
                        .and("."),
                ],
                apps => vec![
                    Say::words("Another app trusts this issuer: send `\"app\": \"")
                        .values("app", apps.iter().copied())
                        .and("\"` with the exchange, if the token is meant for it."),
                ],
            };
        }
        let known = self.issuers().map(|issuer| issuer.issuer.as_str());
        let nearest = Difference::nearest(iss, known);
        let Some((near, difference)) = nearest else {
            return vec![Say::words(
                "Nothing like it is configured. If it is to be trusted, add it to CLERK_JWT_ISSUER or as `[issuers.NAME]`; if not, the app signs in at another provider than this service is configured for.",
            )];
        };
        let issuer = self.issuers().find(|issuer| issuer.issuer == near);
        let place = issuer.map(|issuer| self.setting("issuers", &issuer.name, "issuer"));
        let place = place.unwrap_or_default();
        let told = Say::words("Nearest is ")
            .value("issuer", near)
            .and(": ")
            .and(difference.words())
            .and(".");
        let next = match difference {
            Difference::Development => Say::words("The app was built with a development key: build it with the `pk_live_…` key of the production instance (Clerk → API keys), or let this service trust the development instance in ").then(place).and("."),
            Difference::Production => Say::words("The app was built with a production key: build it with the `pk_test_…` key of the development instance (Clerk → API keys), or let this service trust the production instance in ").then(place).and("."),
            Difference::OtherDevelopment => Say::words("Take the publishable key of the app and the issuer of this service from one page: Clerk → API keys. The issuer stands in ").then(place).and("."),
            _ => Say::words("Issuers are compared byte for byte. If the token is genuine, write its `iss` into ")
                .then(place)
                .and(": ")
                .value("issuer", iss)
                .and("."),
        };
        vec![told, next]
    }

    fn app_unknown(&self) -> Vec<Say> {
        let names = self.settings.apps.iter().map(|app| app.name.as_str());
        let wanted = self.app.unwrap_or_default();
        let near = names.clone().min_by_key(|name| {
            strsim::damerau_levenshtein(&name.to_lowercase(), &wanted.to_lowercase())
        });
        let apps = Say::words("The apps are ").values("app", names);
        match near.filter(|near| strsim::damerau_levenshtein(near, wanted) <= 3) {
            Some(near) => vec![apps.and(": did you mean ").value("app", near).and("?")],
            None => vec![apps.and(".")],
        }
    }

    fn app_required(&self) -> Vec<Say> {
        let iss = self.text("iss");
        let trusts = |app: &&AppSettings| {
            let mut issuers = self.settings.issuers.iter();
            issuers.any(|issuer| {
                Some(issuer.issuer.as_str()) == iss && app.issuers.contains(&issuer.name)
            })
        };
        let apps = self.settings.apps.iter().filter(trusts);
        let names: Vec<&str> = apps.map(|app| app.name.as_str()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        vec![
            Say::words("These apps would take it: ")
                .values("app", names)
                .and(". Try each with `exchequer explain --app NAME`."),
        ]
    }

    fn audience_not_allowed(&self) -> Vec<Say> {
        let each = |app: &AppSettings| {
            Say::words("")
                .then(self.setting("apps", &app.name, "audience"))
                .and(" allows ")
                .values("audience", app.audiences.iter().map(String::as_str))
                .and(".")
        };
        self.apps().map(each).collect()
    }

    fn audience_missing(&self) -> Vec<Say> {
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        let wanted = issuer.audiences.iter().map(String::as_str).take(1);
        let mut next = Vec::new();
        if issuer.kind == IssuerKind::Clerk {
            next.push(
                Say::words(CLERK_SESSION)
                    .and(": add `{\"aud\": \"")
                    .values("audience", wanted)
                    .and("\"}`. Tokens that are made from then on have it."),
            );
        } else {
            next.push(
                Say::words("Let the provider write ")
                    .values("audience", wanted)
                    .and(" into `aud`."),
            );
        }
        next.push(
            Say::words("Or, if no audience is needed, remove ")
                .then(self.setting("issuers", &issuer.name, "audiences"))
                .and(" and set ")
                .then(self.setting("issuers", &issuer.name, "authorized_parties"))
                .and(" instead."),
        );
        next
    }

    /// The values of `aud`.
    fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn audience(&self) -> Vec<Say> {
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        let seen = self.audiences();
        let known = || issuer.audiences.iter().map(String::as_str);
        let near = seen
            .iter()
            .find_map(|seen| Some((*seen, Difference::nearest(seen, known())?)));
        let place = self.setting("issuers", &issuer.name, "audiences");
        let mut next = Vec::new();
        if let Some((seen, (near, difference))) = near {
            next.push(
                Say::words("")
                    .value("audience", seen)
                    .and(" is nearly ")
                    .value("audience", near)
                    .and(": ")
                    .and(difference.words())
                    .and("."),
            );
        }
        // The same instance for another app.
        let fits = |other: &&IssuerSettings| {
            other.issuer == issuer.issuer
                && other.name != issuer.name
                && other
                    .audiences
                    .iter()
                    .any(|each| seen.contains(&each.as_str()))
        };
        let fitting: Vec<&str> = self
            .settings
            .issuers
            .iter()
            .filter(fits)
            .map(|other| other.name.as_str())
            .collect();
        let apps = self.settings.apps.iter();
        let apps: Vec<&str> = apps
            .filter(|app| {
                app.issuers
                    .iter()
                    .any(|name| fitting.contains(&name.as_str()))
            })
            .map(|app| app.name.as_str())
            .collect();
        if !apps.is_empty() {
            next.push(
                Say::words("The token fits another app: send `\"app\": \"")
                    .values("app", apps)
                    .and("\"` with the exchange."),
            );
        }
        let at_provider = match issuer.kind {
            IssuerKind::Clerk => {
                "Correct `aud` at Clerk → Sessions → Customize session token (or in the JWT template that the app names in `getToken({ template })`), or add the token's to "
            }
            _ => "Let the provider make the token for the right audience, or add the token's to ",
        };
        next.push(Say::words(at_provider).then(place).and("."));
        next
    }

    fn party_missing(&self) -> Vec<Say> {
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        vec![
            Say::words("A native app (Expo, iOS, Android) sends no Origin, so its tokens have no `azp`: give it an app of its own, whose issuer has no ")
                .then(self.setting("issuers", &issuer.name, "authorized_parties"))
                .and("."),
            Say::words("A web app gets tokens with `azp` from `getToken()`; those in the `__session` cookie may lack it."),
        ]
    }

    fn party(&self) -> Vec<Say> {
        let (Some(issuer), Some(seen)) = (self.judge(), self.text("azp")) else {
            return Vec::new();
        };
        let known = issuer.authorized_parties.iter().map(String::as_str);
        let place = self.setting("issuers", &issuer.name, "authorized_parties");
        let mut next = Vec::new();
        if let Some((near, difference)) = Difference::nearest(seen, known) {
            next.push(
                Say::words("")
                    .value("origin", seen)
                    .and(" is nearly ")
                    .value("origin", near)
                    .and(": ")
                    .and(difference.words())
                    .and("."),
            );
        }
        next.push(
            Say::words("If that front end may sign in here, add ")
                .value("origin", seen)
                .and(" to ")
                .then(place)
                .and(". `azp` is the origin of the page on which the session token was made."),
        );
        next
    }

    fn expired(&self) -> Vec<Say> {
        let Some(exp) = self.number("exp") else {
            return Vec::new();
        };
        let ago = self.now.saturating_sub(exp);
        if ago > DAY {
            return vec![Say::words("It expired ").number(ago / DAY).and(
                " days ago: it was kept in a file, a variable or a test, and is not made anew.",
            )];
        }
        let lifetime = self.number("iat").map(|iat| exp.saturating_sub(iat));
        match lifetime {
            Some(lifetime) if lifetime > 0 => vec![
                Say::words("It lived ")
                    .number(lifetime)
                    .and(" s, and ended ")
                    .number(ago)
                    .and(" s ago: ask the SDK for a token right before each exchange. If it was made a moment ago, this machine's clock is ahead: `exchequer doctor` compares."),
            ],
            _ => Vec::new(),
        }
    }

    fn ahead(&self, claim: &'static str) -> Vec<Say> {
        let Some(time) = self.number(claim) else {
            return Vec::new();
        };
        let ahead = time.saturating_sub(self.now);
        let mut next = vec![
            Say::words("This machine's clock is behind the issuer's by ")
                .number(ahead)
                .and(" s or more, if the token was made just now: run NTP (`timedatectl`), and compare with `exchequer doctor`."),
        ];
        if let Some(issuer) = self.judge() {
            next.push(
                Say::words("A few seconds may be tolerated by ")
                    .then(self.setting("issuers", &issuer.name, "clock_skew"))
                    .and("."),
            );
        }
        next
    }

    fn lifetime(&self) -> Vec<Say> {
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        let limit = self.setting("issuers", &issuer.name, "max_lifetime");
        let begin = match issuer.kind {
            IssuerKind::Clerk => {
                "Clerk → JWT templates → the template → Token lifetime; or send the session token in its place (`getToken()` without a template). The limit is "
            }
            _ => "Shorten the lifetime at the provider. The limit is ",
        };
        vec![Say::words(begin).then(limit).and(".")]
    }

    fn milliseconds(&self) -> Vec<Say> {
        let names = ["exp", "iat", "nbf", "auth_time"];
        let long = |name: &&&str| self.number(name).is_some_and(|time| time > MILLISECONDS);
        let found = names.iter().find(long);
        found.map_or_else(Vec::new, |name| {
            vec![
                Say::words("`")
                    .and(name)
                    .and("` looks like milliseconds: a date in a JWT is in seconds (RFC 7519 §2)."),
            ]
        })
    }

    fn algorithm(&self) -> Vec<Say> {
        let alg = self.header.get("alg").and_then(Value::as_str);
        let alg = alg.unwrap_or_default();
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        if alg.eq_ignore_ascii_case("none") {
            return vec![Say::words(
                "An unsigned token is no proof of anything, and never accepted: find out who made it.",
            )];
        }
        if alg.starts_with("HS") {
            return vec![match issuer.kind {
                IssuerKind::Clerk => Say::words(
                    "Clerk signs so where a JWT template has a custom signing key (Clerk → JWT templates → the template → Custom signing key): switch that off, or send the session token in its place (`getToken()` without a template).",
                ),
                _ => Say::words(
                    "The provider signs with a shared secret: let it sign this application's tokens with RS256 or ES256.",
                ),
            }];
        }
        vec![
            Say::words("If the issuer signs so on purpose, add it to ")
                .then(self.setting("issuers", &issuer.name, "algorithms"))
                .and("."),
        ]
    }

    fn kind(&self) -> Vec<Say> {
        let typ = self.header.get("typ").and_then(Value::as_str);
        let typ = typ.unwrap_or_default().to_lowercase();
        let typ = typ.trim_start_matches("application/");
        match typ {
            "dpop+jwt" => vec![Say::words(
                "This is a DPoP proof: it goes into the `DPoP` header, beside the token and not in its place.",
            )],
            "logout+jwt" => vec![Say::words(
                "This is a logout token (OpenID Connect Back-Channel Logout): it says that a session ended, and is no session token.",
            )],
            "secevent+jwt" => vec![Say::words(
                "This is a security event token (RFC 8417), and no session token.",
            )],
            "at+jwt" => self.not_accepted(),
            _ => match self.judge() {
                Some(issuer) if !typ.is_empty() => vec![
                    Say::words("If this issuer's session tokens have this `typ`, add it to ")
                        .then(self.setting("issuers", &issuer.name, "token_types"))
                        .and("."),
                ],
                _ => Vec::new(),
            },
        }
    }

    fn not_accepted(&self) -> Vec<Say> {
        let Some(issuer) = self.judge() else {
            return Vec::new();
        };
        let machine = self.text("sub").is_some_and(|sub| sub.starts_with("mch_"));
        let kind = if machine {
            TokenKind::Machine
        } else {
            TokenKind::OAuth
        };
        let what = match kind {
            TokenKind::Machine => "This is a machine token",
            _ => "This is an OAuth access token (`typ` at+jwt)",
        };
        vec![
            Say::words(what)
                .and(", not a session token. Send what `getToken()` gives; or add `\"")
                .and(kind.name())
                .and("\"` to ")
                .then(self.setting("issuers", &issuer.name, "accepts"))
                .and("."),
        ]
    }

    fn encrypted(&self) -> Vec<Say> {
        let direct = self.header.get("alg").and_then(Value::as_str) == Some("dir");
        if direct && self.header.get("iss").is_some() {
            return vec![Say::words(
                "This is an access token of Auth0 for its own /userinfo: name your API's identifier as `audience` when the app signs in, and Auth0 gives a signed one.",
            )];
        }
        if direct {
            return vec![Say::words(
                "This is probably a session cookie of Auth.js (NextAuth), which only its own site can read: send the provider's ID token in its place.",
            )];
        }
        Vec::new()
    }

    fn key_id_missing(&self) -> Vec<Say> {
        self.judge().map_or_else(Vec::new, |issuer| {
            vec![
                Say::words("Give the issuer's one key as ")
                    .then(self.setting("issuers", &issuer.name, "jwt_key"))
                    .and(" (Clerk → API keys → JWT public key)."),
            ]
        })
    }

    fn expression(&self, setting: &'static str) -> Vec<Say> {
        let with = |app: &&AppSettings| app.condition.is_some();
        let each = |app: &AppSettings| {
            Say::words("The condition stands in ")
                .then(self.setting("apps", &app.name, setting))
                .and(".")
        };
        self.apps().filter(with).map(each).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a date, shown to people")]
fn truncated(value: f64) -> i64 {
    value as i64
}
