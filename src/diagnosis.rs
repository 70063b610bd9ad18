//! What a pasted credential is, and what this service would do with it: the one way of
//! `exchequer explain` and of the console.
//!
//! The checks are those of the exchange and of the gate, made by their own code. Nothing comes
//! of them: no token is minted, nothing is used up or taken from a limit, and no provider is
//! asked about a credential, for whoever explains one may not want it shown.

use crate::config::{IssuerKind, TokenKind};
use crate::crypto::sha256;
use crate::exchange::Exchange;
use crate::explain::foreign::ErrorAnswer;
use crate::explain::ladder::Rung;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::gate::{Demand, Gate, Shown};
use crate::oauth::assertion::Step;
use crate::policy::Apps;
use crate::policy::app::{Reader, Wish};
use crate::subject::json::Json;
use crate::subject::jws::Decoded;
use crate::subject::jwt::{self, Unverified};
use crate::subject::opaque::Opaque;
use crate::token::read::{self, CHECKS};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What is told of a credential. It holds nothing of it but what the ladder shows: neither the
/// credential nor a signature.
pub struct Diagnosis {
    /// What it is.
    pub what: &'static str,
    /// How far it is to be believed.
    pub trust: &'static str,
    /// Its length, in bytes.
    pub bytes: usize,
    /// Its digest, in hex: to compare it with the one that was sent.
    pub sha256: String,
    /// Each check and how it ended.
    pub rungs: Vec<Rung>,
    /// Why it would be refused.
    pub refusal: Option<Box<Refusal>>,
    /// What it means that nothing refused it.
    pub accepted: &'static str,
    /// Who would have been asked, and was not.
    pub unasked: Option<String>,
    /// What the ladder alone does not say.
    pub notes: Vec<String>,
}

impl Diagnosis {
    /// Of this text, of which nothing is told yet.
    pub fn of(what: &'static str, trust: &'static str, text: &str) -> Self {
        let digest = sha256(text.as_bytes());
        let hex = digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self {
            what,
            trust,
            bytes: text.len(),
            sha256: hex,
            rungs: Vec::new(),
            refusal: None,
            accepted: "the exchange would give an app token",
            unasked: None,
            notes: Vec::new(),
        }
    }

    /// As JSON, for programs.
    pub fn json(&self) -> Value {
        let refusal = self.refusal.as_deref();
        json!({
            "accepted": self.unasked.is_none().then_some(refusal.is_none()),
            "code": refusal.map(|refusal| refusal.code.entry().slug),
            "description": refusal.map(|refusal| &refusal.description),
            "cause": refusal.and_then(|refusal| refusal.cause.as_ref()),
            "ladder": self.rungs,
            "token_sha256": self.sha256,
            "notes": self.notes,
            "unasked": self.unasked,
        })
    }
}

/// Whether the text is a JWT that names this service as its issuer.
pub fn is_own(text: &str, issuer: &str) -> bool {
    let ladder = &mut Ladder::default();
    let Ok(decoded) = read::decode(text, ladder) else {
        return false;
    };
    read::Unverified::parse(&decoded, ladder)
        .is_ok_and(|unverified| unverified.claims().text("iss") == Some(issuer))
}

/// Of a subject token: what its exchange would come to.
pub async fn of_token(exchange: &Exchange, text: &str, wish: Wish<'_>) -> Diagnosis {
    let trust = "decoded; only the checks below make it trusted";
    let mut told = Diagnosis::of("token", trust, text);
    let mut ladder = Ladder::detailed();
    let opaque = Opaque::of(text);
    let apps = &exchange.apps;
    let reader = match opaque {
        Some(opaque) => apps.select_opaque(wish, opaque, &mut ladder),
        None => Ok(introspected(text, apps, wish)),
    };
    match reader {
        Err(refusal) => told.refusal = Some(refusal),
        Ok(Some((app, issuer, kind))) => {
            let (app, issuer) = (&app.settings.name, &issuer.settings.name);
            let kind = kind.name();
            told.unasked = Some(format!(
                "the app {app} would ask the issuer {issuer} about it, as {kind}"
            ));
        }
        Ok(None) => {
            let looked = exchange.look_on(text, wish, &mut ladder).await;
            told.refusal = looked.err();
        }
    }
    let refusal = told.refusal.as_deref();
    told.notes = notes(text, &ladder, refusal, exchange);
    let is_opaque = refusal.is_none_or(|refusal| {
        use Code::{SubjectTokenKindNotAccepted, SubjectTokenOpaque};
        matches!(
            refusal.code,
            SubjectTokenKindNotAccepted | SubjectTokenOpaque
        )
    });
    if let Some(opaque) = opaque.filter(|_| is_opaque) {
        let (what, taken_by) = (opaque.describe(), opaque.taken_by());
        let note = format!("this is {what}; it is taken by {taken_by}");
        told.notes.push(note);
    }
    told.rungs = ladder.rungs();
    told
}

/// Who would be asked about a JWT, where its issuer is one that is asked.
fn introspected(text: &str, apps: &Apps, wish: Wish<'_>) -> Option<Reader> {
    let ladder = &mut Ladder::default();
    let decoded = jwt::decode(text, ladder).ok()?;
    let unverified = Unverified::parse(&decoded, ladder).ok()?;
    let (app, issuer) = apps.select(wish, unverified.issuer(), ladder).ok()?;
    let asked = issuer.settings.kind == IssuerKind::Introspection;
    asked.then_some((app, issuer, TokenKind::OAuth))
}

/// Of a session id: whom its exchange would ask. It proves nothing, so all that it means is theirs
/// to say.
pub fn of_session_id(exchange: &Exchange, text: &str, wish: Wish<'_>) -> Diagnosis {
    let trust = "an identifier; nobody was asked what it stands for";
    let mut told = Diagnosis::of("session id", trust, text);
    let mut ladder = Ladder::detailed();
    match exchange.apps.select_for_session_id(wish, &mut ladder) {
        Err(refusal) => told.refusal = Some(refusal),
        Ok((app, issuer)) => {
            let (app, issuer) = (&app.settings.name, &issuer.settings.name);
            told.unasked = Some(format!(
                "the app {app} would ask the Backend API of the issuer {issuer} about it"
            ));
        }
    }
    told.notes.push("this is a session id, which names a session and proves nothing: send it to /auth/exchange as `session_id`, or better the session token".to_owned());
    told.rungs = ladder.rungs();
    told
}

/// Of a token of this service: what a gateway that demands this would be told. Revocation is
/// looked at where the store can be asked.
pub async fn of_own(gate: &Gate, text: &str, demand: Demand<'_>, revocation: bool) -> Diagnosis {
    let trust = "decoded; only the checks below make it trusted";
    let mut told = Diagnosis::of("token", trust, text);
    told.accepted = "a gateway that asks so would be told whose it is";
    told.notes.push("its `iss` is this service: backends and gateways take it; /auth/exchange would refuse it as subject_token_is_app_token".to_owned());
    let mut ladder = Ladder::detailed();
    let notes = &mut told.notes;
    let judged = async {
        let shown = Shown::Bearer(text);
        let admitted = gate.admit(shown, demand, &mut ladder).await?;
        if admitted.is_bound() {
            notes.push(
                "it is bound to a key (`cnf`): it passes as `Authorization: DPoP`, with a proof by that key, and not as a bearer token".to_owned(),
            );
        } else {
            gate.sent_by(&admitted, shown, None, gate.now())?;
        }
        if revocation {
            gate.stands(&admitted, gate.now(), &mut ladder).await?;
        }
        Ok::<(), Box<Refusal>>(())
    };
    told.refusal = judged.await.err();
    told.rungs = ladder.rungs_of(&CHECKS);
    told
}

/// Of a copied error answer: who wrote it and why, as JSON for programs.
pub fn of_answer(answer: &ErrorAnswer) -> Value {
    let (source, told, code) = answer.told();
    let entry = code.map(Code::entry);
    json!({
        "accepted": false,
        "source": source,
        "description": told,
        "code": entry.map(|entry| entry.slug),
        "cause": entry.map(|entry| entry.cause),
        "mend": entry.map(|entry| entry.mend),
    })
}

/// Of a client assertion: the checks of the token endpoint, as JSON for programs.
pub fn of_assertion(steps: &[Step], notes: &[String]) -> Value {
    let code = steps.iter().find_map(|step| {
        let fault = step.result.as_ref().err();
        fault.map(|fault| fault.code.entry().slug)
    });
    let checks = steps.iter().map(|step| {
        let (outcome, seen) = step.told();
        json!({"check": step.check, "outcome": outcome, "seen": seen})
    });
    json!({
        "accepted": code.is_none(),
        "code": code,
        "checks": checks.collect::<Vec<_>>(),
        "notes": notes,
    })
}

/// Whether more than one issuer is trusted.
fn several_issuers(apps: &Apps) -> bool {
    let issuers = apps.iter().flat_map(|app| &app.issuers);
    let names: BTreeSet<&str> = issuers
        .map(|issuer| issuer.settings.name.as_str())
        .collect();
    names.len() > 1
}

/// What the ladder of a subject token alone does not say.
fn notes(
    text: &str,
    ladder: &Ladder,
    refusal: Option<&Refusal>,
    exchange: &Exchange,
) -> Vec<String> {
    let now = exchange.clock.now();
    let mut notes = Vec::new();
    let Some(refusal) = refusal else {
        if several_issuers(&exchange.apps) {
            notes.push(
                "if a library of yours refuses this token with token-invalid-signature, it mixes up keys: @clerk/backend up to 3.10 cached PEM keys under the kid alone, so with several instances the first one's key was used for all".to_owned(),
            );
        }
        return notes;
    };
    let failed = ladder.failure().map(|rung| rung.check);
    if failed.is_some_and(|check| check > Check::Form && check < Check::Expiry)
        && let Ok(decoded) = Decoded::of(text)
        && let Ok(unverified) = Unverified::parse(&decoded, &mut Ladder::default())
    {
        let claims = unverified.claims();
        if let Some(exp) = claims.get("exp").and_then(Json::as_i64) {
            notes.push(if exp <= now {
                format!(
                    "expiry was not reached; it would fail: exp was {} s ago",
                    now.saturating_sub(exp)
                )
            } else {
                format!(
                    "expiry was not reached; it would pass: exp is in {} s",
                    exp.saturating_sub(now)
                )
            });
        }
        if refusal.code == Code::SubjectTokenSignatureInvalid {
            notes.push("compare the sha256 above with that of the token where it is made: if they differ, it was changed on its way".to_owned());
            if !claims.has("aud") {
                notes.push(
                    "an absent aud is not the problem: it would have its own code".to_owned(),
                );
            }
        }
    }
    notes
}
