//! A provider's token: the exchange's own checks. Nobody is asked about an opaque one.

use super::{DECODED, Diagnosis, Parts, causes, exchange_ended, needs_proof, title, wish};
use crate::config::{IssuerKind, TokenKind};
use crate::explain::ladder::{Outcome, Rung};
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::gate::Demand;
use crate::policy::app::{Reader, Wish};
use crate::subject::jwt::{self, Unverified};
use crate::subject::opaque::Opaque;
use serde_json::Value;

/// The most other apps that are tried.
const MAX_APPS: usize = 16;

/// How its exchange would end.
struct Judged {
    rungs: Vec<Rung>,
    refusal: Option<Box<Refusal>>,
    /// Who would have been asked, and was not.
    unasked: Option<Say>,
}

impl Diagnosis {
    pub(super) async fn of_token(&self, text: &str, demand: Demand<'_>) -> Report {
        let wish = wish(&demand);
        let opaque = Opaque::of(text);
        let Judged {
            rungs,
            refusal,
            unasked,
        } = self.judge_token(text, wish).await;
        let failed = rungs.iter().find(|rung| rung.outcome == Outcome::Failed);
        let failed = failed.map(|rung| rung.check);
        let mut steps: Vec<Step> = rungs.into_iter().map(Into::into).collect();
        let mut notes = Vec::new();
        let code = refusal.as_ref().map(|refusal| refusal.code);
        let parts = Parts::of(text);
        let case = self.case(&parts, demand);
        let (mut tests, mut next) = Default::default();
        let mut known: Vec<_> = code.into_iter().flat_map(Code::known_issues).collect();
        if let Some(code) = code {
            (tests, next) = causes::tests(&self.fetcher, &self.settings, text, code).await;
            next.extend(case.hints(code));
            if demand.app.is_some() && code != Code::SubjectTokenIssuerUntrusted {
                next.extend(self.other_apps(text, wish, failed).await);
            }
        } else if unasked.is_none() {
            self.without_store(&mut steps, &mut notes);
        }
        if code.is_none() {
            let iss = parts.claims.get("iss").and_then(Value::as_str);
            let selected = self.exchange.apps.select(wish, iss, &mut Ladder::default());
            notes.extend(
                selected
                    .ok()
                    .and_then(|(app, _)| needs_proof(&app.settings)),
            );
        }
        notes.extend(kind_note(code, opaque));
        if code.is_none() && unasked.is_none() && self.settings.issuers.len() > 1 {
            known.extend(Code::SubjectTokenSignatureInvalid.known_issues());
            notes.push(Say::words("if a library of yours refuses this token with token-invalid-signature, it mixes up the keys of several issuers"));
        }
        if code == Some(Code::SubjectTokenSignatureInvalid) {
            notes.push(Say::words("compare the sha256 above with that of the token where it is made: if they differ, it was changed on its way"));
        }
        let facts = parts.facts(text);
        let (kind, what) = match opaque {
            Some(Opaque::Refresh) => ("refresh_token", "opaque token"),
            Some(_) => ("opaque_token", "opaque token"),
            None => ("subject_token", "token"),
        };
        Report {
            kind,
            title: vec![title(what, &facts, DECODED)],
            token: Some(facts),
            steps,
            unreached: failed.map_or_else(Vec::new, |failed| case.unreached(failed)),
            tests,
            next,
            known,
            notes,
            ..exchange_ended(refusal, unasked)
        }
    }

    async fn judge_token(&self, text: &str, wish: Wish<'_>) -> Judged {
        let mut ladder = Ladder::detailed();
        let reader = match Opaque::of(text) {
            Some(opaque) => self.exchange.apps.select_opaque(wish, opaque, &mut ladder),
            None => Ok(self.introspected(text, wish)),
        };
        let (refusal, unasked) = match reader {
            Err(refusal) => (Some(refusal), None),
            Ok(Some((app, issuer, kind))) => {
                let asked = Say::words("nobody was asked: the app ")
                    .value("app", app.settings.name.as_str())
                    .and(" would ask the issuer ")
                    .value("name", issuer.settings.name.as_str())
                    .and(" about it, as ")
                    .and(kind.name());
                (None, Some(asked))
            }
            Ok(None) => {
                let looked = self.exchange.look_on(text, wish, &mut ladder).await;
                (looked.err(), None)
            }
        };
        Judged {
            rungs: ladder.rungs(),
            refusal,
            unasked,
        }
    }

    /// Who would be asked about a JWT, where its issuer is one that is asked.
    fn introspected(&self, text: &str, wish: Wish<'_>) -> Option<Reader> {
        let ladder = &mut Ladder::default();
        let decoded = jwt::decode(text, ladder).ok()?;
        let unverified = Unverified::parse(&decoded, ladder).ok()?;
        let selected = self.exchange.apps.select(wish, unverified.issuer(), ladder);
        let (app, issuer) = selected.ok()?;
        let asked = issuer.settings.kind == IssuerKind::Introspection;
        asked.then_some((app, issuer, TokenKind::OAuth))
    }

    /// Which other apps would take the token that this one refuses.
    async fn other_apps(&self, text: &str, wish: Wish<'_>, failed: Option<Check>) -> Option<Say> {
        // Before an app is chosen, and for what no app decides, all say the same.
        failed.filter(|check| *check >= Check::Type && *check != Check::Signature)?;
        let mut taking = Vec::new();
        for app in self.exchange.apps.iter().take(MAX_APPS) {
            let name = app.settings.name.as_str();
            if Some(name) == wish.app {
                continue;
            }
            let other = Wish {
                app: Some(name),
                ..wish
            };
            let judged = self.judge_token(text, other).await;
            if judged.refusal.is_none() && judged.unasked.is_none() {
                taking.push(name);
            }
        }
        (!taking.is_empty()).then(|| {
            Say::words("Another app takes this very token: send `\"app\": \"")
                .values("app", taking)
                .and("\"` with the exchange, if that is the one that is meant.")
        })
    }
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
