//! A session that is looked up by its id: it is Clerk's Backend API that vouches for it.
//!
//! A session id names a session and proves nothing, so an app says what it wants more: that
//! the session is fresh and the id is used once, or a code verifier (RFC 7636) whose
//! challenge the app left in the user's `unsafe_metadata` when it signed in.

use super::api::{ApiError, Asking};
use super::id::is_id;
use super::instance::Occasion;
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, SessionIdPolicy, TokenKind};
use crate::crypto::sha256;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::store::{Key, Kind, Once, UnixMillis};
use crate::subject::claims::{self, Origin};
use crate::subject::json::Object;
use crate::subject::{Issuer, Subject};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::{Choice, ConstantTimeEq};

type Refused = Box<Refusal>;

/// How far the provider's clock may be ahead of ours, seconds.
const CLOCKS_APART: UnixSeconds = 60;
/// How long after it was created or touched a session is fresh, seconds.
const FRESH: UnixSeconds = 120;
/// The longest that a used id is remembered, seconds: no browser keeps a cookie for longer
/// (RFC 6265bis §5.5).
const REMEMBERED: UnixSeconds = 400 * 86_400;
/// The most challenges of a user: one a device.
const MAX_CHALLENGES: usize = 10;

/// A session id that can stand in a path.
#[derive(Clone, Copy)]
pub struct SessionId<'r>(&'r str);

impl<'r> SessionId<'r> {
    /// Judges what was sent as one: `sess_` and ASCII letters and digits, 64 bytes at most.
    pub fn parse(text: &'r str, ladder: &mut Ladder) -> Result<Self, Refused> {
        if is_id(text, "sess_") {
            ladder.pass(Check::Form, || ("", "a session id"));
            return Ok(Self(text));
        }
        ladder.fail(
            Check::Form,
            format!("{} bytes", text.len()),
            "sess_ and letters and digits, 64 bytes at most",
        );
        Err(Refusal::new(Code::SessionIdMalformed))
    }
}

impl SessionId<'_> {
    /// What is remembered where the app takes an id once.
    pub fn used(self, app: &AppSettings, issuer: &Issuer) -> Option<Key> {
        let once = app.session_id != SessionIdPolicy::Any;
        once.then(|| Key::of(Kind::SessionIdUsed, &[&issuer.settings.issuer, self.0]))
    }

    /// The id as it was sent.
    pub fn as_str(&self) -> &str {
        self.0
    }
}

/// A session as the Backend API has it; its other members are not read.
#[derive(Deserialize)]
struct Session {
    id: String,
    user_id: String,
    status: String,
    #[serde(default)]
    last_active_organization_id: Option<String>,
    #[serde(default)]
    actor: Option<Value>,
    created_at: UnixMillis,
    last_active_at: UnixMillis,
    expire_at: UnixMillis,
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    unsafe_metadata: Option<Metadata>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    code_challenge: Value,
}

#[derive(Deserialize)]
struct Membership {
    role: String,
    #[serde(default)]
    permissions: Vec<String>,
    organization: Organization,
}

#[derive(Deserialize)]
struct Organization {
    id: String,
    #[serde(default)]
    slug: Option<String>,
}

/// What the Backend API told of an active session.
pub struct Told {
    /// Claims as a session token of version 1 would have them.
    claims: Vec<u8>,
    /// Where the app takes an id once: what to commit.
    pub once: Option<Once>,
}

impl Told {
    /// The claims, to be judged.
    pub fn claims(&self) -> Result<Object<'_>, Refused> {
        Object::parse(&self.claims).map_err(|error| ApiError::odd(&error).refusal())
    }
}

/// Judges the claims of a session that was looked up by the issuer's rules.
pub fn judge<'s>(
    claims: &'s Object<'s>,
    issuer: &'s Issuer,
    now: UnixSeconds,
    ladder: &mut Ladder,
) -> Result<Subject<'s>, Refused> {
    let origin = Origin::Told(TokenKind::Session);
    claims::judge(claims, issuer, origin, now, ladder)
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Asked<'r> {
    /// The session.
    pub id: SessionId<'r>,
    /// What the app bound at sign-in (RFC 7636 §4.1).
    pub code_verifier: Option<&'r str>,
    /// When it is asked for.
    pub at: UnixSeconds,
    /// The caller's `traceparent`.
    pub traceparent: Option<&'r str>,
}

/// Looks a session up and judges it by what the app demands of a session id.
pub async fn look_up(
    asked: Asked<'_>,
    app: &AppSettings,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Result<Told, Refused> {
    let (id, now) = (asked.id, asked.at);
    let verifier = match (app.code_verifier, asked.code_verifier) {
        (false, _) => None,
        (true, Some(verifier)) => Some(verifier),
        (true, None) => return Err(Refusal::new(Code::CodeVerifierMissing)),
    };
    let Some(backend) = &issuer.backend else {
        return Err(Refusal::new(Code::SessionIdUnsupported));
    };
    let asking = backend.asking(asked.traceparent);
    let session = asking.existing(asked.id, issuer, ladder).await?;
    check_status(&session, now, ladder)?;
    if app.session_id != SessionIdPolicy::Any {
        check_fresh(&session, issuer.settings.clock_skew, now, ladder)?;
    }
    let (challenged, membership) = tokio::join!(
        async {
            match verifier {
                None => Ok(true),
                Some(verifier) => asking.has_challenge(&session.user_id, verifier).await,
            }
        },
        asking.membership_of(&session)
    );
    if !challenged.map_err(|error| of_user(&error))? {
        ladder.fail(
            Check::Session,
            "a code verifier of no challenge",
            "one whose S256 is in unsafe_metadata.code_challenge",
        );
        return Err(Refusal::new(Code::CodeVerifierMismatch));
    }
    let membership = membership.map_err(|error| of_user(&error))?;
    let once = id.used(app, issuer).map(|key| Once {
        key,
        until: session.expires_at().min(now + REMEMBERED),
        since: Some(session.created_at / 1000 - CLOCKS_APART),
    });
    let claims = session.claims(membership, &issuer.settings.issuer, now);
    Ok(Told {
        claims: Value::Object(claims).to_string().into_bytes(),
        once,
    })
}

/// Asks whether a session is still alive.
pub async fn check_alive(
    asked: Asked<'_>,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let Some(backend) = &issuer.backend else {
        return Err(Refusal::new(Code::SessionIdUnsupported));
    };
    let asking = backend.asking(asked.traceparent);
    let session = asking.existing(asked.id, issuer, ladder).await?;
    check_status(&session, asked.at, ladder)
}

/// The refusal where a user's object was asked for.
fn of_user(error: &ApiError) -> Refused {
    match error {
        ApiError::NotFound => Refusal::new(Code::UserDeleted),
        other => other.refusal(),
    }
}

fn check_status(session: &Session, now: UnixSeconds, ladder: &mut Ladder) -> Result<(), Refused> {
    let code = match session.status.as_str() {
        "active" if session.expires_at() > now => return Ok(()),
        "active" | "expired" => Code::SessionExpired,
        "pending" => Code::SessionPending,
        "ended" => Code::SessionEnded,
        "removed" => Code::SessionRemoved,
        "replaced" => Code::SessionReplaced,
        "revoked" => Code::SessionRevoked,
        "abandoned" => Code::SessionAbandoned,
        _ => Code::SessionStatusUnknown,
    };
    let status: String = session.status.chars().take(32).collect();
    ladder.fail(Check::Session, format!("status {status}"), "active");
    Err(Refusal::new(code))
}

/// Fresh is what was created or touched within two minutes, by our clock.
fn check_fresh(
    session: &Session,
    skew: UnixSeconds,
    now: UnixSeconds,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let touched = session.created_at.max(session.last_active_at);
    let age = now - touched.div_euclid(1000);
    if (-skew..=FRESH).contains(&age) {
        return Ok(());
    }
    ladder.fail(
        Check::Session,
        format!("created or touched {age} s ago"),
        format!("{FRESH} s at most, {skew} s ahead at most"),
    );
    Err(Refusal::new(Code::SessionIdStale))
}

impl Session {
    fn expires_at(&self) -> UnixSeconds {
        self.expire_at.div_euclid(1000)
    }

    /// Claims of version 1. No `jti`: nobody issued a token.
    fn claims(
        self,
        membership: Option<Membership>,
        issuer: &str,
        now: UnixSeconds,
    ) -> Map<String, Value> {
        let mut claims = Map::new();
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("exp", self.expires_at().into());
        add("iat", now.into());
        add("iss", issuer.into());
        add("sid", self.id.into());
        add("sts", self.status.into());
        add("sub", self.user_id.into());
        if let Some(actor) = self.actor {
            add("act", actor);
        }
        if let Some(membership) = membership {
            add("org_id", membership.organization.id.into());
            add("org_slug", membership.organization.slug.into());
            add("org_role", membership.role.into());
            add("org_permissions", membership.permissions.into());
        }
        claims
    }
}

impl Asking<'_> {
    /// The session, where this instance has it.
    async fn existing(
        &self,
        id: SessionId<'_>,
        issuer: &Issuer,
        ladder: &mut Ladder,
    ) -> Result<Session, Refused> {
        let (found, instance) =
            tokio::join!(self.session(id), self.check_instance(issuer, Occasion::Use));
        instance?;
        match found {
            Ok(session) => Ok(session),
            Err(ApiError::NotFound) => {
                self.check_instance(issuer, Occasion::NotFound).await?;
                ladder.fail(Check::Session, "not found", "active");
                Err(Refusal::new(Code::SessionNotFound))
            }
            Err(error) => Err(error.refusal()),
        }
    }

    async fn session(&self, id: SessionId<'_>) -> Result<Session, ApiError> {
        let session: Session = self.read(&format!("sessions/{}", id.0)).await?;
        // The user's id stands in further paths.
        if session.id == id.0 && is_id(&session.user_id, "user_") {
            Ok(session)
        } else {
            Err(another())
        }
    }

    /// Whether the user has the challenge of this verifier (RFC 7636 §4.6, S256).
    async fn has_challenge(&self, user: &str, verifier: &str) -> Result<bool, ApiError> {
        let found: User = self.read(&format!("users/{user}")).await?;
        if found.id != user {
            return Err(another());
        }
        let metadata = found.unsafe_metadata.unwrap_or_default();
        Ok(answers(&metadata.code_challenge, verifier))
    }

    /// The user's membership in the organisation that the session was last active in.
    async fn membership_of(&self, session: &Session) -> Result<Option<Membership>, ApiError> {
        let Some(organization) = &session.last_active_organization_id else {
            return Ok(None);
        };
        let found = self.membership(&session.user_id, organization).await?;
        let membership = found.map(serde_json::from_value).transpose();
        membership.map_err(|error| ApiError::odd(&error))
    }
}

/// Whether the verifier's S256 is the challenge, or one of a list of them.
fn answers(challenges: &Value, verifier: &str) -> bool {
    let listed = match challenges {
        Value::Array(list) if list.len() <= MAX_CHALLENGES => list.as_slice(),
        Value::String(_) => std::slice::from_ref(challenges),
        _ => &[],
    };
    let expected = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
    let equal = listed
        .iter()
        .filter_map(Value::as_str)
        .fold(Choice::from(0), |any, challenge| {
            any | challenge.as_bytes().ct_eq(expected.as_bytes())
        });
    equal.into()
}

fn another() -> ApiError {
    ApiError::Unavailable("it answered with another object than was asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_id_that_could_be_anything_else_in_a_path_is_none() {
        let long = format!("sess_{}", "a".repeat(59));
        for good in ["sess_2abC", "sess_1", &long] {
            assert!(SessionId::parse(good, &mut Ladder::default()).is_ok());
        }
        let longer = format!("{long}a");
        for bad in [
            "",
            "sess_",
            "sess",
            "2abc",
            "SESS_2abc",
            "user_2abc",
            " sess_2",
            "sess_2 ",
            "sess_2\n",
            "sess_2/../users",
            "sess_2%2e",
            "sess_2?x",
            "sess_2#",
            "sess_2\0",
            "sess_é",
            "sess_２",
            "sess_a_b",
            "sess_-",
            "../sess_2",
            &longer,
        ] {
            let refusal = SessionId::parse(bad, &mut Ladder::default()).err().unwrap();
            assert_eq!(refusal.code, Code::SessionIdMalformed, "{bad:?}");
        }
    }

    #[test]
    fn a_verifier_answers_its_own_challenge_alone() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        for (challenges, answered) in [
            (json!(challenge), true),
            (json!([challenge]), true),
            (json!(["other", 7, challenge]), true),
            (json!(vec![challenge; 10]), true),
            (json!(vec![challenge; 11]), false),
            (json!(format!("{challenge}=")), false),
            (json!(verifier), false),
            (json!(""), false),
            (json!([]), false),
            (json!([[challenge]]), false),
            (json!({"code_challenge": challenge}), false),
            (json!(null), false),
            (json!(true), false),
        ] {
            assert_eq!(answers(&challenges, verifier), answered, "{challenges}");
        }
    }

    fn session(status: &str, touched: UnixMillis) -> Session {
        Session {
            id: "sess_1".to_owned(),
            user_id: "user_1".to_owned(),
            status: status.to_owned(),
            last_active_organization_id: None,
            actor: None,
            created_at: 0,
            last_active_at: touched,
            expire_at: 10_000_000,
        }
    }

    #[test]
    fn fresh_is_two_minutes_and_a_few_seconds_ahead() {
        for (age, fresh) in [
            (0, true),
            (120, true),
            (121, false),
            (-5, true),
            (-6, false),
        ] {
            let now = 5000;
            let session = session("active", (now - age) * 1000 + 999);
            let judged = check_fresh(&session, 5, now, &mut Ladder::default());
            assert_eq!(judged.is_ok(), fresh, "{age}");
        }
    }

    #[test]
    fn a_session_that_should_have_expired_has() {
        let judged = check_status(&session("active", 0), 10_000, &mut Ladder::default());
        assert_eq!(judged.unwrap_err().code, Code::SessionExpired);
    }
}
