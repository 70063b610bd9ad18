//! `exchequer explain` of a provider's token: the exchange's own checks, with an empty store, then
//! what the service's own store says, where it can be read. Nobody is asked about an opaque one.

use super::{Args, decoded, diagnose, facts, own, service, title};
use crate::clock::Clock;
use crate::config::{DpopSettings, Settings, StoreSettings};
use crate::diagnosis;
use crate::explain::hints::Case;
use crate::explain::ladder::{Outcome, Rung};
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use crate::explain::{Check, Code, Refusal};
use crate::policy::app::Wish;
use crate::service::Service;
use crate::store::{Question, Standing};
use crate::subject::opaque::Opaque;
use crate::subject::revocation::{Dependence, Hit, Issued};
use serde_json::Value;
use std::process::ExitCode;

/// The most other apps that are tried.
const MAX_APPS: usize = 16;

/// Explains it.
pub(super) async fn explain(
    text: &str,
    args: &Args,
    mut settings: Settings,
) -> Result<Report, ExitCode> {
    let now = Clock::system().now();
    // The proof that goes with a token is not here, and would be used up if it were.
    for app in &mut settings.apps {
        app.dpop = DpopSettings::default();
    }
    let service = service(settings.clone())?;
    let audience = args.audience.as_deref();
    let wish = Wish {
        app: args.app.as_deref(),
        audiences: audience.as_slice(),
        ..Wish::default()
    };
    let (header, claims) = decoded(text);
    let opaque = Opaque::of(text);
    let told = diagnosis::of_token(&service.exchange, text, wish).await;
    let failed = told
        .rungs
        .iter()
        .find(|rung| rung.outcome == Outcome::Failed);
    let failed = failed.map(|rung| rung.check);
    let (mut refusal, mut notes) = (told.refusal, Vec::new());
    let unasked = told.unasked;
    let mut revoked = false;
    if refusal.is_none() && unasked.is_none() {
        let stands = stands(&settings.store, &claims, &mut notes).await;
        refusal = stands.err().map(Refusal::new);
        revoked = refusal.is_some();
    }
    let case = Case {
        settings: &settings,
        header: &header,
        claims: &claims,
        app: args.app.as_deref(),
        now,
    };
    let code = refusal.as_ref().map(|refusal| refusal.code);
    let (tests, mut next) = match code {
        Some(code) => diagnose::tests(&service, &settings, text, code).await,
        None => Default::default(),
    };
    if let Some(code) = code {
        next.extend(case.hints(code));
        if args.app.is_some() && !matches!(code, Code::SubjectTokenIssuerUntrusted) {
            next.extend(other_apps(&service, text, wish, failed).await);
        }
    }
    let mut known: Vec<_> = code.into_iter().flat_map(Code::known_issues).collect();
    notes.extend(kind_note(code, opaque));
    if code.is_none() && unasked.is_none() && settings.issuers.len() > 1 {
        known.extend(Code::SubjectTokenSignatureInvalid.known_issues());
        notes.push(Say::words("if a library of yours refuses this token with token-invalid-signature, it mixes up the keys of several issuers"));
    }
    if code == Some(Code::SubjectTokenSignatureInvalid) {
        notes.push(Say::words("compare the sha256 above with that of the token where it is made: if they differ, it was changed on its way"));
    }
    let facts = facts(text);
    let what = match opaque {
        Some(_) => "opaque token",
        None => "token",
    };
    Ok(Report {
        kind: match opaque {
            Some(Opaque::Refresh) => "refresh_token",
            Some(_) => "opaque_token",
            None => "subject_token",
        },
        title: vec![title(what, &facts, "decoded, NOT yet trusted")],
        token: Some(facts),
        accepted: unasked.is_none().then_some(code.is_none()),
        steps: steps(told.rungs, revoked),
        unreached: match failed {
            Some(failed) => case.unreached(failed),
            None => Vec::new(),
        },
        verdict: match (code, unasked) {
            (None, None) => Some(Say::words("the exchange would give an app token")),
            (_, unasked) => {
                unasked.map(|told| Say::words("nobody was asked: ").value("names", told))
            }
        },
        code,
        description: refusal.as_ref().map(|refusal| refusal.description.clone()),
        because: refusal.and_then(|refusal| refusal.cause),
        tests,
        next,
        known,
        notes,
        ..Report::default()
    })
}

/// Whether what the token depends on still stands, as far as the service's store can be read.
async fn stands(store: &StoreSettings, claims: &Value, notes: &mut Vec<Say>) -> Result<(), Code> {
    let now = Clock::system().now();
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let (Some(issuer), Some(user)) = (text("iss"), text("sub")) else {
        return Ok(());
    };
    // Clerk's second version has the organisation in `o`, its first beside the rest.
    let packed = claims.get("o").and_then(|o| o.get("id")?.as_str());
    let dependence = Dependence {
        issuer,
        user,
        session: text("sid"),
        organization: packed.or(text("org_id")),
        issued: Issued::Upstream(claims.get("iat").and_then(Value::as_i64).unwrap_or(now)),
    };
    let (hits, standings): (Vec<Hit>, Vec<Standing>) = dependence.standings().unzip();
    let question = Question {
        standings: &standings,
        ..Question::default()
    };
    let answer = match own::open(store).await {
        Ok(store) => store
            .ask(question, now)
            .await
            .map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    match answer {
        Ok(answer) => match answer.revoked.and_then(|place| hits.get(place)) {
            Some(hit) => Err(hit.code()),
            None => Ok(()),
        },
        Err(why) => {
            notes.push(Say::words("revocation was not looked at: ").value("reason", why));
            Ok(())
        }
    }
}

/// The ladder's steps; where the service's own store refused the token, it ends there.
fn steps(rungs: Vec<Rung>, revoked: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = rungs.into_iter().map(Into::into).collect();
    let mut ended = false;
    for step in steps.iter_mut().filter(|_| revoked) {
        if ended {
            step.outcome = Outcome::NotReached;
            (step.seen, step.expected) = (None, None);
        } else if step.check == Check::Revocation.name() {
            step.outcome = Outcome::Failed;
            step.seen = Some("revoked, says the service's store".to_owned());
            ended = true;
        }
    }
    steps
}

/// Which other apps would take the token that this one refuses.
async fn other_apps(
    service: &Service,
    text: &str,
    wish: Wish<'_>,
    failed: Option<Check>,
) -> Option<Say> {
    // Before an app is chosen, and for what no app decides, all say the same.
    failed.filter(|check| *check >= Check::Type && *check != Check::Signature)?;
    let mut taking = Vec::new();
    for app in service.exchange.apps.iter().take(MAX_APPS) {
        let name = app.settings.name.as_str();
        if Some(name) == wish.app {
            continue;
        }
        let other = Wish {
            app: Some(name),
            ..wish
        };
        let told = diagnosis::of_token(&service.exchange, text, other).await;
        if told.refusal.is_none() && told.unasked.is_none() {
            taking.push(name);
        }
    }
    (!taking.is_empty()).then(|| {
        Say::words("Another app takes this very token: send `\"app\": \"")
            .values("app", taking)
            .and("\"` with the exchange, if that is the one that is meant.")
    })
}

/// What an opaque token is, and what would take it.
fn kind_note(code: Option<Code>, opaque: Option<Opaque>) -> Option<Say> {
    let about_kind = code.is_none_or(|code| {
        matches!(
            code,
            Code::SubjectTokenKindNotAccepted | Code::SubjectTokenOpaque
        )
    });
    let note = |opaque: Opaque| {
        Say::words("this is ")
            .and(opaque.describe())
            .and("; it is taken by ")
            .and(opaque.taken_by())
    };
    opaque.filter(|_| about_kind).map(note)
}
