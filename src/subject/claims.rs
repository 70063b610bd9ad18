//! The claims of a subject, whoever vouched for them: their types, and the issuer's rules.

use super::clerk::session_claims::{self, Session};
use super::delegated;
use super::json::{Json, Object};
use super::{Issuer, Organization, Subject};
use crate::clock::UnixSeconds;
use crate::config::TokenKind;
use crate::explain::{Check, Code, Ladder, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The deepest chain of actors (RFC 8693 §4.1).
pub const MAX_ACTORS: usize = 5;
/// The last second of the year 9999: later dates are taken for mistakes.
const MAX_DATE: i64 = 253_402_300_799;
/// The longest `sub` (OpenID Connect Core §2), in bytes.
const MAX_SUB: usize = 255;
/// How much of a claim is shown back to its sender, in bytes.
pub(super) const MAX_SHOWN: usize = 255;

type Refused = Box<Refusal>;

/// How the service knows of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// The issuer signed them.
    Signed(TokenKind),
    /// The issuer was asked, and said so.
    Told(TokenKind),
    /// The issuer signed them for our own client there, when somebody signed in: whom they
    /// are meant for was looked at then.
    SignedIn,
}

impl Origin {
    pub(super) fn kind(self) -> TokenKind {
        match self {
            Self::Signed(kind) | Self::Told(kind) => kind,
            Self::SignedIn => TokenKind::Session,
        }
    }
}

/// Judges claims whose origin is certain by the issuer's rules.
pub(super) fn judge<'s>(
    claims: &'s Object<'s>,
    issuer: &'s Issuer,
    origin: Origin,
    now: UnixSeconds,
    ladder: &mut Ladder,
) -> Result<Subject<'s>, Refused> {
    let delegated = origin.kind() == TokenKind::OAuth;
    if delegated {
        delegated::check_kind(claims, issuer, ladder)?;
    } else if matches!(origin, Origin::Signed(_)) && !issuer.is_clerk() {
        check_unbound(claims, ladder)?;
    }
    let read = Read::from_claims(claims, issuer, origin).map_err(|fault| {
        let (code, name, what) = match fault {
            Fault::Missing("sub") if delegated && claims.has("client_id") => {
                ladder.fail(Check::Claims, "sub is missing", "sub");
                return Refusal::new(Code::SubjectTokenClientOnly);
            }
            Fault::Missing(name) => (Code::SubjectTokenClaimMissing, name, "is missing"),
            Fault::Malformed(name) => (
                Code::SubjectTokenClaimMalformed,
                name,
                "has the wrong type or an impossible value",
            ),
        };
        ladder.fail(
            Check::Claims,
            format!("{name} {what}"),
            "sub and exp, and every registered claim of its type",
        );
        Refusal::because(code, format!("The token's `{name}` {what}."))
    })?;
    ladder.pass(Check::Claims, || ("", ""));
    check_audience(claims, issuer, origin, ladder)?;
    if delegated {
        delegated::check_client(claims, issuer, ladder)?;
    } else {
        check_authorized_party(claims, issuer, origin, ladder)?;
    }
    read.check_times(issuer, origin, now, ladder)?;
    read.check_session(ladder)?;
    Ok(read.into_subject(claims, issuer, origin, now))
}

/// A token that is good only together with a key (RFC 7800 §3.1) would be given again as one that
/// is good without. Clerk binds no session to a key: what a template of its own says there is
/// one more claim.
fn check_unbound(claims: &Object<'_>, ladder: &mut Ladder) -> Result<(), Refused> {
    match claims.get("cnf").filter(|cnf| **cnf != Json::Null) {
        None => Ok(()),
        Some(cnf) => {
            let seen = format!("cnf {}", short_json(cnf));
            ladder.fail(Check::Claims, seen, "a bearer token");
            Err(Refusal::new(Code::SubjectTokenSenderConstrained))
        }
    }
}

fn check_audience(
    claims: &Object<'_>,
    issuer: &Issuer,
    origin: Origin,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let expected = &issuer.settings.audiences;
    let audience = claims.get("aud");
    // A session that was looked up has no audience; every token has.
    let has_one = !matches!(origin, Origin::Told(TokenKind::Session) | Origin::SignedIn);
    if !expected.is_empty() && has_one {
        let listed = |value: &Json<'_>| {
            value
                .as_str()
                .is_some_and(|text| expected.iter().any(|each| each == text))
        };
        let (code, seen) = match audience {
            None | Some(Json::Null) => {
                (Some(Code::SubjectTokenAudienceMissing), "absent".to_owned())
            }
            Some(Json::List(items)) if items.iter().any(listed) => (None, String::new()),
            Some(single) if listed(single) => (None, String::new()),
            Some(other) => (Some(Code::SubjectTokenAudienceMismatch), short_json(other)),
        };
        if let Some(code) = code {
            ladder.fail(Check::Audience, seen, expected.join(", "));
            return Err(Refusal::new(code));
        }
    }
    ladder.pass(Check::Audience, || {
        (
            audience.map(short_json).unwrap_or_default(),
            any_of(expected),
        )
    });
    Ok(())
}

fn check_authorized_party(
    claims: &Object<'_>,
    issuer: &Issuer,
    origin: Origin,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let expected = &issuer.settings.authorized_parties;
    let party = claims.get("azp");
    if !expected.is_empty() && origin == Origin::Signed(TokenKind::Session) {
        let (code, seen) = match party {
            None | Some(Json::Null) => (
                Some(Code::SubjectTokenAuthorizedPartyMissing),
                "absent".to_owned(),
            ),
            Some(Json::Text(party)) if expected.iter().any(|each| each == party) => {
                (None, String::new())
            }
            Some(other) => (
                Some(Code::SubjectTokenAuthorizedPartyMismatch),
                short_json(other),
            ),
        };
        if let Some(code) = code {
            ladder.fail(Check::AuthorizedParty, seen, expected.join(", "));
            return Err(Refusal::new(code));
        }
    }
    ladder.pass(Check::AuthorizedParty, || {
        (party.map(short_json).unwrap_or_default(), any_of(expected))
    });
    Ok(())
}

pub(super) fn any_of(expected: &[String]) -> String {
    if expected.is_empty() {
        "none configured".to_owned()
    } else {
        expected.join(", ")
    }
}

/// A claim for the ladder: as JSON, cut to a bounded length.
pub(super) fn short_json(value: &Json<'_>) -> String {
    let text = match value {
        Json::Text(text) => text.to_string(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let end = text.floor_char_boundary(MAX_SHOWN);
    text.get(..end).unwrap_or_default().to_owned()
}

enum Fault {
    Missing(&'static str),
    Malformed(&'static str),
}

/// The claims that the service understands, with their types checked.
struct Read<'s> {
    id: &'s str,
    expires_at: UnixSeconds,
    not_before: Option<UnixSeconds>,
    issued_at: Option<UnixSeconds>,
    session_id: Option<&'s str>,
    authenticated_at: Option<UnixSeconds>,
    actor: Option<Value>,
    session: Session<'s>,
    scopes: Option<Vec<&'s str>>,
}

/// What a delegated token was restricted to (RFC 6749 §3.3); a session is not restricted.
fn scopes<'s>(claims: &'s Object<'s>, kind: TokenKind) -> Result<Option<Vec<&'s str>>, Fault> {
    let names: &[&'static str] = match kind {
        TokenKind::Session => return Ok(None),
        TokenKind::OAuth | TokenKind::ApiKey => &["scope", "scp"],
        TokenKind::Machine => &["scope", "scopes"],
    };
    let first = names.iter().find(|name| claims.has(name));
    let (name, value) = first.map_or(("scope", None), |name| (*name, claims.get(name)));
    let list = match value {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Text(text)) => text.split(' ').filter(|each| !each.is_empty()).collect(),
        Some(Json::List(items)) => items
            .iter()
            .map(Json::as_str)
            .collect::<Option<_>>()
            .ok_or(Fault::Malformed(name))?,
        Some(_) => return Err(Fault::Malformed(name)),
    };
    Ok(Some(list))
}

/// A `NumericDate` (RFC 7519 §2): a finite number of seconds, whole or not, in range.
pub fn date(value: &Json<'_>) -> Option<UnixSeconds> {
    let seconds = match (value.as_i64(), value.as_f64()) {
        (Some(whole), _) => whole,
        #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
        (None, Some(fraction)) if (0.0..=253_402_300_799.0).contains(&fraction) => fraction as i64,
        _ => return None,
    };
    (0..=MAX_DATE).contains(&seconds).then_some(seconds)
}

impl<'s> Read<'s> {
    fn from_claims(claims: &'s Object<'s>, issuer: &Issuer, origin: Origin) -> Result<Self, Fault> {
        let kind = origin.kind();
        // Who makes a machine token or an API key writes what it says beside the registered
        // claims: it can claim no session, no actor and no organisation.
        let own_words = matches!(kind, TokenKind::Machine | TokenKind::ApiKey);
        let optional_date = |name| match claims.get(name) {
            None => Ok(None),
            Some(value) => date(value).map(Some).ok_or(Fault::Malformed(name)),
        };
        let id = match claims.get("sub") {
            None => return Err(Fault::Missing("sub")),
            Some(Json::Text(id))
                if !id.is_empty() && id.len() <= MAX_SUB && !id.chars().any(char::is_control) =>
            {
                id.as_ref()
            }
            Some(_) => return Err(Fault::Malformed("sub")),
        };
        let expires_at = match (optional_date("exp")?, origin) {
            (Some(time), _) => time,
            (None, Origin::Told(_)) => MAX_DATE,
            (None, Origin::Signed(_) | Origin::SignedIn) => return Err(Fault::Missing("exp")),
        };
        let issued_at = optional_date("iat")?;
        let session_id = match claims.get("sid") {
            _ if own_words => None,
            None | Some(Json::Null) => None,
            Some(Json::Text(sid)) if sid.len() <= MAX_SUB => Some(sid.as_ref()),
            Some(_) => return Err(Fault::Malformed("sid")),
        };
        let actor = match claims.get("act") {
            _ if own_words => None,
            None | Some(Json::Null) => None,
            Some(actor) => Some(actor_chain(actor).ok_or(Fault::Malformed("act"))?),
        };
        let session = match kind {
            TokenKind::Session if issuer.is_clerk() => {
                session_claims::read(claims).map_err(Fault::Malformed)?
            }
            // An organisation's own API key acts for it, in no role.
            TokenKind::ApiKey if id.starts_with("org_") => Session {
                organization: Some(Organization {
                    id,
                    ..Organization::default()
                }),
                ..Session::default()
            },
            _ => Session::default(),
        };
        // RFC 9068 §2.2.
        if origin == Origin::Signed(TokenKind::OAuth) {
            for name in ["iat", "client_id"] {
                if !claims.has(name) {
                    return Err(Fault::Missing(name));
                }
            }
        }
        let authenticated_at = match (own_words, claims.get("auth_time"), session.first_factor_age)
        {
            (true, ..) | (_, None, None) => None,
            (_, Some(_), _) => optional_date("auth_time")?,
            (_, None, Some(minutes)) => issued_at.map(|time| (time - minutes * 60).max(0)),
        };
        Ok(Self {
            id,
            expires_at,
            not_before: optional_date("nbf")?,
            issued_at,
            session_id,
            authenticated_at,
            actor,
            session,
            scopes: scopes(claims, kind)?,
        })
    }

    fn check_times(
        &self,
        issuer: &Issuer,
        origin: Origin,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<(), Refused> {
        let skew = issuer.settings.clock_skew;
        let past = now - self.expires_at;
        if past >= skew {
            ladder.fail(
                Check::Expiry,
                format!("exp {}: {past} s ago", self.expires_at),
                format!("later than now ({now}), {skew} s tolerated"),
            );
            return Err(Refusal::because(
                Code::SubjectTokenExpired,
                format!("The subject token expired {past} s ago."),
            ));
        }
        ladder.pass(Check::Expiry, || {
            (
                format!("exp {}: in {} s", self.expires_at, -past),
                format!("later than now ({now})"),
            )
        });
        for (check, code, claim, time, word) in [
            (
                Check::NotBefore,
                Code::SubjectTokenNotYetValid,
                "nbf",
                self.not_before,
                "is not valid before",
            ),
            (
                Check::IssuedAt,
                Code::SubjectTokenIssuedInFuture,
                "iat",
                self.issued_at,
                "was issued",
            ),
        ] {
            let ahead = time.map_or(0, |time| time - now);
            if ahead > skew {
                ladder.fail(
                    check,
                    format!("{claim}: in {ahead} s"),
                    format!("at most {skew} s after now ({now})"),
                );
                let mut refusal = Refusal::because(
                    code,
                    format!(
                        "The subject token {word} {ahead} s from now: the issuer's clock and this service's differ."
                    ),
                );
                refusal.retry_after = u64::try_from(ahead - skew).ok();
                return Err(refusal);
            }
            if check == Check::NotBefore {
                ladder.pass(check, || (shown_date(claim, time), "not after now"));
            }
        }
        let lifetime = self.expires_at - self.issued_at.unwrap_or(now);
        let most = issuer.settings.max_lifetime;
        if lifetime > most && !matches!(origin, Origin::Told(_)) {
            ladder.fail(
                Check::IssuedAt,
                format!("a lifetime of {lifetime} s"),
                format!("at most {most} s"),
            );
            return Err(Refusal::new(Code::SubjectTokenLifetimeExcessive));
        }
        ladder.pass(Check::IssuedAt, || {
            (
                shown_date("iat", self.issued_at),
                format!("not after now, at most {most} s before exp"),
            )
        });
        Ok(())
    }

    fn check_session(&self, ladder: &mut Ladder) -> Result<(), Refused> {
        let status = self.session.status;
        match status {
            None | Some("active") => {
                ladder.pass(Check::Session, || (status.unwrap_or_default(), "active"));
                Ok(())
            }
            Some("pending") => {
                ladder.fail(Check::Session, "sts pending", "active");
                Err(Refusal::new(Code::SessionPending))
            }
            Some(_) => {
                ladder.fail(Check::Session, "an unknown sts", "active");
                Err(Refusal::because(
                    Code::SubjectTokenClaimMalformed,
                    "The token's `sts` has the wrong type or an impossible value.",
                ))
            }
        }
    }

    fn into_subject(
        self,
        claims: &'s Object<'s>,
        issuer: &'s Issuer,
        origin: Origin,
        judged_at: UnixSeconds,
    ) -> Subject<'s> {
        Subject {
            issuer: &issuer.settings.issuer,
            id: self.id,
            session_id: self.session_id,
            organization: self.session.organization,
            plans: self.session.plans,
            features: self.session.features,
            actor: self.actor,
            authenticated_at: self.authenticated_at,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            scopes: self.scopes,
            claims,
            origin,
            judged_at,
        }
    }
}

fn shown_date(claim: &str, time: Option<UnixSeconds>) -> String {
    time.map_or_else(
        || format!("{claim} absent"),
        |time| format!("{claim} {time}"),
    )
}

/// The chain of actors, rebuilt from what RFC 8693 §4.1 and Clerk put there; `None` where
/// it is malformed or too deep.
fn actor_chain(actor: &Json<'_>) -> Option<Value> {
    let mut levels = Vec::new();
    let mut next = Some(actor);
    while let Some(level) = next {
        let Json::Object(members) = level else {
            return None;
        };
        if levels.len() == MAX_ACTORS || members.text("sub").is_none() {
            return None;
        }
        let mut kept = Map::new();
        for name in ["sub", "iss", "sid", "type", "client_id"] {
            match members.get(name) {
                None | Some(Json::Null) => {}
                Some(Json::Text(text)) if text.len() <= MAX_SUB => {
                    kept.insert(name.to_owned(), Value::String(text.to_string()));
                }
                Some(_) => return None,
            }
        }
        levels.push(kept);
        next = members.get("act").filter(|inner| **inner != Json::Null);
    }
    let mut chain: Option<Value> = None;
    for mut level in levels.into_iter().rev() {
        if let Some(inner) = chain {
            level.insert("act".to_owned(), inner);
        }
        chain = Some(Value::Object(level));
    }
    chain
}
