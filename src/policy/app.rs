//! An app: whom it trusts, and what it grants a subject.

use super::Profile;
use super::claims::Scope;
use super::delegation::{Acting, Principal};
use super::scopes::{self, Scopes};
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, Expression, IssuerKind, SessionIdPolicy, TokenKind};
use crate::explain::nearest::Difference;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::subject::opaque::{Opaque, not_accepted};
use crate::subject::{Issuer, Subject};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

type Refused = Box<Refusal>;
/// What an app's expressions give: `sub`, further claims, scopes.
type Evaluated = (String, Map<String, Value>, Option<Scopes>);
/// Who reads an opaque token, and as what.
pub type Reader = (Arc<App>, Arc<Issuer>, TokenKind);

/// The longest `iss`, in bytes.
const MAX_ISSUER: usize = 255;

/// An app and the issuers that it trusts.
pub struct App {
    /// Its settings.
    pub settings: AppSettings,
    /// The issuers that it trusts.
    pub issuers: Vec<Arc<Issuer>>,
}

/// What an app grants a subject: personal data, so it has no `Debug`.
pub struct Grant {
    /// `sub` of the app token.
    pub subject: String,
    /// `aud` of the app token, none twice.
    pub audiences: Vec<String>,
    /// When the app token expires.
    pub expires_at: UnixSeconds,
    /// What the app's `claims` add.
    pub claims: Map<String, Value>,
    /// The scopes, where the app has some: then they stand for the subject's permissions.
    pub scopes: Option<Scopes>,
    /// Its token's place in the status list, where it has one.
    pub place: Option<Place>,
    /// Who acts for the subject (RFC 8693 §4.1), where somebody does.
    pub actor: Option<Value>,
    /// The grant of the refresh tokens that its token ends with, where there are some.
    pub grant_id: Option<String>,
}

/// A token's place in a status list, as the token says it (`status_list` in `status`,
/// draft-ietf-oauth-status-list-21 §6.2).
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// The place.
    pub idx: u32,
    /// Where the list is.
    pub uri: String,
}

/// What the request asks for beside the token.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wish<'r> {
    /// The app, where the request names one.
    pub app: Option<&'r str>,
    /// The apps that may be chosen, where not all may.
    pub among: Option<&'r [String]>,
    /// The audiences, where the request names some.
    pub audiences: &'r [&'r str],
    /// The scopes, where the request names some: by their names, spaces between them.
    pub scope: Option<&'r str>,
    /// Who asks to act for the subject.
    pub acting: Acting<'r>,
}

/// All apps.
pub struct Apps {
    apps: BTreeMap<String, Arc<App>>,
    /// Our own issuer: its tokens are not subject tokens.
    own_issuer: String,
}

impl Apps {
    /// The apps of this service.
    pub fn new(apps: impl IntoIterator<Item = App>, own_issuer: String) -> Self {
        let apps = apps
            .into_iter()
            .map(|app| (app.settings.name.clone(), Arc::new(app)))
            .collect();
        Self { apps, own_issuer }
    }

    /// All apps, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.apps.values()
    }

    /// The app of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<App>> {
        self.apps.get(name)
    }

    /// Chooses the app and the issuer of a session id, which names neither.
    pub fn select_for_session_id(
        &self,
        wish: Wish<'_>,
        ladder: &mut Ladder,
    ) -> Result<(Arc<App>, Arc<Issuer>), Refused> {
        let named = self.named(wish, ladder)?;
        let taking = || {
            self.candidates(named, wish)
                .filter_map(|app| Some((app, app.looks_sessions_up()?)))
        };
        let Some((_, issuer)) = taking().next() else {
            let expected = "an app with session_id fresh or any and an issuer with a secret key";
            ladder.fail(Check::Issuer, wish.app.unwrap_or("a session id"), expected);
            return Err(Refusal::new(Code::SessionIdUnsupported));
        };
        ladder.pass(Check::Issuer, || ("", issuer.settings.name.clone()));
        choose(taking, wish, ladder)
    }

    /// Chooses the app and the issuer by the request's wishes and the token's `iss`, compared
    /// byte for byte.
    pub fn select(
        &self,
        wish: Wish<'_>,
        issuer: Option<&str>,
        ladder: &mut Ladder,
    ) -> Result<(Arc<App>, Arc<Issuer>), Refused> {
        let named = self.named(wish, ladder)?;
        let candidates = || self.candidates(named, wish);
        let Some(identifier) = issuer else {
            ladder.fail(
                Check::Issuer,
                "no iss, or not a text",
                trusted(candidates()),
            );
            return Err(Refusal::new(Code::SubjectTokenIssuerMissing));
        };
        // No configured issuer is longer.
        if identifier.len() > MAX_ISSUER {
            let seen = format!("an iss of {} bytes", identifier.len());
            ladder.fail(Check::Issuer, seen, trusted(candidates()));
            return Err(Refusal::new(Code::SubjectTokenIssuerUntrusted));
        }
        if identifier == self.own_issuer {
            ladder.fail(Check::Issuer, identifier, trusted(candidates()));
            return Err(Refusal::new(Code::SubjectTokenIsAppToken));
        }
        let trusting = || candidates().filter_map(|app| Some((app, app.trusts(identifier)?)));
        let Some((_, issuer)) = trusting().next() else {
            ladder.fail(
                Check::Issuer,
                identifier,
                format!(
                    "{}{}",
                    trusted(candidates()),
                    nearest(identifier, candidates())
                ),
            );
            return Err(Refusal::new(Code::SubjectTokenIssuerUntrusted));
        };
        ladder.pass(Check::Issuer, || (identifier, issuer.settings.name.clone()));
        choose(trusting, wish, ladder)
    }

    /// Chooses the app and the issuer of a token that only its issuer can read, by what the
    /// token looks like and which issuers take such tokens; `None` where none here takes any.
    ///
    /// Clerk's prefixes are Clerk's where an app in question trusts a Clerk instance: a token
    /// of one instance is shown to no other server.
    pub fn select_opaque(
        &self,
        wish: Wish<'_>,
        opaque: Opaque,
        ladder: &mut Ladder,
    ) -> Result<Option<Reader>, Refused> {
        if opaque == Opaque::Refresh {
            ladder.fail(Check::Issuer, opaque.describe(), opaque.taken_by());
            return Err(Refusal::new(Code::SubjectTokenIsRefreshToken));
        }
        let reads = |issuer: &Arc<Issuer>| {
            let opaque = [TokenKind::OAuth, TokenKind::Machine, TokenKind::ApiKey];
            is_introspected(issuer) || opaque.iter().any(|kind| issuer.accepts(*kind))
        };
        if !self.apps.values().flat_map(|app| &app.issuers).any(reads) {
            return Ok(None);
        }
        let named = self.named(wish, ladder)?;
        let issuers = || {
            self.candidates(named, wish)
                .flat_map(|app| app.issuers.iter().map(move |issuer| (app, issuer)))
        };
        if !issuers().any(|(_, issuer)| reads(issuer)) {
            return Ok(None);
        }
        let clerk = issuers().any(|(_, issuer)| issuer.is_clerk());
        let kind = match opaque {
            Opaque::Clerk(kind) if clerk => Some(kind),
            _ => None,
        };
        let takes = |issuer: &Issuer| match kind {
            Some(kind) => issuer.is_clerk() && issuer.accepts(kind) && issuer.reads(kind),
            None => is_introspected(issuer),
        };
        let trusting = || issuers().filter(|(_, issuer)| takes(issuer));
        if trusting().next().is_none() {
            ladder.fail(Check::Issuer, opaque.describe(), opaque.taken_by());
            return Err(match kind {
                Some(kind) if !issuers().any(|(_, issuer)| issuer.accepts(kind)) => {
                    not_accepted(kind)
                }
                _ => Refusal::new(Code::SubjectTokenKindNotAccepted),
            });
        }
        ladder.pass(Check::Issuer, || (opaque.describe(), ""));
        let (app, issuer) = choose(trusting, wish, ladder)?;
        Ok(Some((app, issuer, kind.unwrap_or(TokenKind::OAuth))))
    }

    /// The app that the request names, where it names one.
    fn named(&self, wish: Wish<'_>, ladder: &mut Ladder) -> Result<Option<&Arc<App>>, Refused> {
        let Some(name) = wish.app else {
            return Ok(None);
        };
        let app = self
            .candidates(None, wish)
            .find(|app| app.settings.name == name);
        if app.is_none() {
            let apps = self.candidates(None, wish);
            let names: Vec<&str> = apps.map(|app| app.settings.name.as_str()).collect();
            ladder.fail(Check::Issuer, format!("the app {name:?}"), names.join(", "));
            return Err(Refusal::new(Code::AppUnknown));
        }
        Ok(app)
    }

    /// The app that is named, or all that may be chosen.
    fn candidates(
        &self,
        named: Option<&Arc<App>>,
        wish: Wish<'_>,
    ) -> impl Iterator<Item = &Arc<App>> {
        self.apps
            .values()
            .filter(move |app| named.is_none_or(|named| Arc::ptr_eq(named, app)))
            .filter(move |app| {
                wish.among
                    .is_none_or(|among| among.contains(&app.settings.name))
            })
    }
}

/// Texts in the order in which they were asked for, none twice.
pub fn each_once(asked: &[&str]) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(asked.len());
    for text in asked {
        if once.iter().all(|each| each != text) {
            once.push((*text).to_owned());
        }
    }
    once
}

/// The first few audiences, for the log.
fn shown(audiences: &[&str]) -> String {
    let cut = |text: &&str| text.chars().take(MAX_ISSUER).collect::<String>();
    let few: Vec<String> = audiences.iter().take(4).map(cut).collect();
    few.join(", ")
}

fn is_introspected(issuer: &Issuer) -> bool {
    issuer.settings.kind == IssuerKind::Introspection
}

/// The one app among these that may ask for what is wished, and its issuer.
fn choose<'a, I: Iterator<Item = (&'a Arc<App>, &'a Arc<Issuer>)>>(
    trusting: impl Fn() -> I,
    wish: Wish<'_>,
    ladder: &mut Ladder,
) -> Result<(Arc<App>, Arc<Issuer>), Refused> {
    let mut granting = trusting().filter(|(app, _)| app.may_ask_for(wish.audiences));
    match (granting.next(), granting.next()) {
        (Some((app, issuer)), None) => {
            ladder.pass(Check::App, || {
                (wish.app.unwrap_or_default(), app.settings.name.clone())
            });
            Ok((Arc::clone(app), Arc::clone(issuer)))
        }
        (Some(_), Some(_)) => {
            let names: Vec<&str> = trusting()
                .map(|(app, _)| app.settings.name.as_str())
                .collect();
            ladder.fail(Check::App, "no app named", names.join(", "));
            Err(Refusal::new(Code::AppRequired))
        }
        (None, _) => {
            let audiences: Vec<&str> = trusting()
                .flat_map(|(app, _)| app.settings.audiences.iter().map(String::as_str))
                .collect();
            ladder.fail(
                Check::App,
                format!("audience {}", shown(wish.audiences)),
                audiences.join(", "),
            );
            Err(Refusal::new(Code::AudienceNotAllowed))
        }
    }
}

fn trusted<'a>(apps: impl Iterator<Item = &'a Arc<App>>) -> String {
    let mut names: Vec<&str> = apps
        .flat_map(|app| app.issuers.iter())
        .map(|issuer| issuer.settings.issuer.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// What the identifier was probably meant to be, for operators.
fn nearest<'a>(identifier: &str, apps: impl Iterator<Item = &'a Arc<App>>) -> String {
    let issuers = apps.flat_map(|app| app.issuers.iter());
    let known = issuers.map(|issuer| issuer.settings.issuer.as_str());
    Difference::nearest(identifier, known).map_or_else(String::new, |(near, difference)| {
        format!("; nearest: {near} ({})", difference.words())
    })
}

impl App {
    /// The issuer of this `iss`, where the app trusts it.
    fn trusts(&self, identifier: &str) -> Option<&Arc<Issuer>> {
        self.issuers
            .iter()
            .find(|issuer| issuer.settings.issuer == identifier)
    }

    /// The issuer whose sessions are looked up by their ids, where the app takes these: the
    /// one Clerk instance of which it has the secret key.
    fn looks_sessions_up(&self) -> Option<&Arc<Issuer>> {
        let mut asked = self.issuers.iter().filter(|issuer| {
            issuer.backend.is_some() && issuer.settings.accepts.contains(&TokenKind::Session)
        });
        match (self.settings.session_id, asked.next(), asked.next()) {
            (SessionIdPolicy::Off, ..) => None,
            (_, issuer, None) => issuer,
            (_, _, Some(_)) => None,
        }
    }

    /// Whether a request may ask for these audiences.
    pub fn may_ask_for(&self, audiences: &[&str]) -> bool {
        let known = &self.settings.audiences;
        let knows = |audience| known.iter().any(|each| each == audience);
        audiences.iter().all(knows)
    }

    /// Judges a verified subject, of whom this is known beside its token.
    pub fn grant(
        &self,
        subject: &Subject<'_>,
        profile: &Profile,
        wish: Wish<'_>,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Grant, Refused> {
        let settings = &self.settings;
        let condition = || {
            let source = settings.condition.as_ref().map(|each| each.source.clone());
            source.unwrap_or_else(|| "none configured".to_owned())
        };
        let actor = wish.acting.judge(Principal {
            issuer: subject.issuer,
            id: subject.id,
            may_act: subject.claims.get("may_act"),
            actor: subject.actor.as_ref(),
        })?;
        let delegated = match wish.acting {
            // What the app's expressions say of `act`, they say of the whole chain.
            Acting::Named(_) => {
                let mut delegated = subject.clone();
                delegated.actor.clone_from(&actor);
                Some(delegated)
            }
            Acting::Nobody | Acting::Unnamed(_) => None,
        };
        let subject = delegated.as_ref().unwrap_or(subject);
        let (subject_id, claims, scopes) = match self.evaluate(subject, profile, wish) {
            Ok(evaluated) => evaluated,
            Err(refusal) => {
                let seen = refusal.cause.as_deref().unwrap_or("false");
                ladder.fail(Check::Condition, seen, condition());
                return Err(refusal);
            }
        };
        ladder.pass(Check::Condition, || ("", condition()));
        ladder.pass(Check::Scopes, || match &scopes {
            None => (String::new(), "none configured".to_owned()),
            Some(scopes) => {
                let asked = wish.scope.unwrap_or("all that there are");
                let faults = scopes.shown_faults();
                let faults =
                    faults.map_or_else(String::new, |faults| format!("; failed: {faults}"));
                (
                    asked.to_owned(),
                    format!("granted: {}{faults}", scopes.names),
                )
            }
        });
        let mut expires_at = now + settings.ttl;
        if !settings.outlives_subject {
            // A subject token within the clock skew of its end still gives a token of a second.
            expires_at = expires_at.min(subject.expires_at).max(now + 1);
        }
        let audiences = match wish.audiences {
            [] => settings.audiences.first().cloned().into_iter().collect(),
            asked => each_once(asked),
        };
        Ok(Grant {
            subject: subject_id,
            audiences,
            expires_at,
            claims,
            scopes,
            place: None,
            actor,
            grant_id: None,
        })
    }

    /// `sub`, the further claims and the scopes that the app's expressions give, where its
    /// condition holds.
    fn evaluate(
        &self,
        subject: &Subject<'_>,
        profile: &Profile,
        wish: Wish<'_>,
    ) -> Result<Evaluated, Refused> {
        let settings = &self.settings;
        let plain = settings.condition.is_none()
            && settings.subject.is_none()
            && settings.claims.is_empty()
            && settings.scopes.iter().all(|scope| scope.when.is_none());
        if plain {
            let scopes = self.scopes(subject, wish, |_| Ok(true));
            return Ok((subject.id.to_owned(), Map::new(), scopes));
        }
        let scope = Scope::new(subject, profile, &settings.name)?;
        if let Some(condition) = &settings.condition {
            match scope.evaluate("condition", condition)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Err(Refusal::new(Code::ConditionNotMet)),
                _ => {
                    return Err(Refusal::new(Code::ExpressionFailed)
                        .caused_by("the condition is neither true nor false"));
                }
            }
        }
        let id = match &settings.subject {
            None => subject.id.to_owned(),
            Some(expression) => match scope.evaluate("subject", expression)? {
                Value::String(id) if !id.is_empty() && id.len() <= 255 => id,
                _ => {
                    return Err(Refusal::new(Code::ExpressionFailed)
                        .caused_by("`subject` gives no text of 1 to 255 bytes"));
                }
            },
        };
        let mut claims = Map::new();
        for (name, expression) in &settings.claims {
            let value = scope.evaluate(&format!("claims.{name}"), expression)?;
            if !value.is_null() {
                claims.insert(name.clone(), value);
            }
        }
        let scopes = self.scopes(subject, wish, |when| match scope.evaluate("when", when) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("neither true nor false".to_owned()),
            Err(refusal) => Err(refusal.cause.unwrap_or_default()),
        });
        Ok((id, claims, scopes))
    }

    /// The scopes that it grants; `None` where it has none.
    fn scopes(
        &self,
        subject: &Subject<'_>,
        wish: Wish<'_>,
        holds: impl Fn(&Expression) -> Result<bool, String>,
    ) -> Option<Scopes> {
        let known = self.settings.scopes.as_slice();
        let held = subject.scopes.as_deref();
        (!known.is_empty()).then(|| scopes::grant(known, wish.scope, held, holds))
    }
}
