//! What a pasted text is, and what this service would do with it: the one way of
//! `exchequer explain` and of the console, which differ in what they have at hand.
//!
//! The checks are those of the exchange, the gate and the token endpoint, made by their own code.
//! Nothing comes of them: no token is minted, nothing is used up or taken from a limit. No
//! provider is shown a credential; a session id, which is none, only where that is allowed.

mod answers;
mod assertion;
mod causes;
mod own;
mod running;
mod session_id;
mod sign_in;
mod token;

use crate::clock::UnixSeconds;
use crate::config::{AppSettings, DpopPolicy, Settings};
use crate::crypto::sha256;
use crate::exchange::Exchange;
use crate::explain::foreign::is_assertion;
use crate::explain::hints::Case;
use crate::explain::input::{Around, Input, Shape};
use crate::explain::ladder::Outcome;
use crate::explain::report::{Report, Step, TokenFacts};
use crate::explain::say::Say;
use crate::explain::{Code, Ladder, Refusal};
use crate::gate::{Demand, Gate};
use crate::oauth::clients::Clients;
use crate::policy::app::Wish;
use crate::subject::fetch::Fetcher;
use crate::token::read;
pub use answers::of_answer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;

/// What is diagnosed with: a running service's parts, or what a command has of them.
pub struct Diagnosis {
    /// The configuration, whose lines the hints name.
    pub settings: Arc<Settings>,
    /// What judges a provider's token.
    pub exchange: Arc<Exchange>,
    /// What judges a client's assertion.
    pub clients: Arc<Clients>,
    /// What judges a token of ours.
    pub gate: Gate,
    /// What asks for key sets anew.
    pub fetcher: Fetcher,
    /// What of the service is not at hand.
    pub unseen: Unseen,
    /// Whether the provider is asked what a session id stands for.
    pub asks: bool,
}

/// What of the service is not at hand, each with why.
#[derive(Default)]
pub struct Unseen {
    /// Its key ring.
    pub ring: Option<Say>,
    /// Its store, and so what was revoked and used.
    pub store: Option<String>,
    /// The clients that were registered at run time.
    pub clients: Option<String>,
}

impl Diagnosis {
    /// Explains what was pasted, as if this were demanded: by the exchange that it is for, or by
    /// the gateway that it is shown to.
    pub async fn explain(&self, input: &Input<'_>, demand: Demand<'_>) -> Report {
        if let Some(report) = of_answer(input) {
            return report;
        }
        if let Shape::SignIn(url) = &input.shape {
            return self.of_sign_in(url);
        }
        let text = input.text.as_ref();
        let mut report = if is_assertion(text) {
            self.of_assertion(text).await
        } else if is_own(text, &self.settings.issuer) {
            self.of_own(text, demand).await
        } else if text.starts_with("sess_") {
            self.of_session_id(text, demand).await
        } else {
            self.of_token(text, demand).await
        };
        if matches!(input.shape, Shape::Token) {
            report.notes.extend(input.around.iter().map(around));
        }
        report
    }

    fn now(&self) -> UnixSeconds {
        self.exchange.clock.now()
    }

    fn case<'c>(&'c self, parts: &'c Parts, demand: Demand<'c>) -> Case<'c> {
        Case {
            settings: &self.settings,
            header: &parts.header,
            claims: &parts.claims,
            app: demand.app,
            audience: demand.audience,
            now: self.now(),
        }
    }

    /// Says of what passed without the service's store that its revocation is not known.
    fn without_store(&self, steps: &mut [Step], notes: &mut Vec<Say>) {
        let Some(why) = &self.unseen.store else {
            return;
        };
        if let Some(step) = revocation(steps) {
            step.outcome = Outcome::NotReached;
            (step.seen, step.expected) = (None, None);
        }
        let note = Say::words("revocation was not looked at: ");
        notes.push(note.value("reason", why.as_str()));
    }
}

/// How the checks ended, for a report: in whose words it was refused, or what it means that nothing
/// refused it.
fn ended(refusal: Option<Box<Refusal>>, passed: Say) -> Report {
    let code = refusal.as_ref().map(|refusal| refusal.code);
    Report {
        accepted: Some(code.is_none()),
        verdict: code.is_none().then_some(passed),
        code,
        description: refusal.as_ref().map(|refusal| refusal.description.clone()),
        because: refusal.and_then(|refusal| refusal.cause),
        known: code.into_iter().flat_map(Code::known_issues).collect(),
        ..Report::default()
    }
}

/// The same of an exchange's checks, where `unasked` says who would have been asked and was not.
fn exchange_ended(refusal: Option<Box<Refusal>>, unasked: Option<Say>) -> Report {
    let asked = unasked.is_none();
    let passed = Say::words("the exchange would give an app token");
    let report = ended(refusal, unasked.unwrap_or(passed));
    Report {
        accepted: report.accepted.filter(|_| asked),
        ..report
    }
}

/// What the app demands beside the credential, and is not looked at.
fn needs_proof(app: &AppSettings) -> Option<Say> {
    (app.dpop.policy == DpopPolicy::Required).then(|| {
        Say::words(
            "the app demands a DPoP proof with it, which is not looked at here: without one it is refused as dpop_proof_missing",
        )
    })
}

/// What an exchange is asked for by this demand.
fn wish<'r>(demand: &'r Demand<'_>) -> Wish<'r> {
    Wish {
        app: demand.app,
        audiences: demand.audience.as_slice(),
        ..Wish::default()
    }
}

/// The step at which the store is asked.
fn revocation(steps: &mut [Step]) -> Option<&mut Step> {
    steps.iter_mut().find(|step| step.check == "revocation")
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

/// What was around a token: where a request carries it too, that is the fault.
fn around(around: &Around) -> Say {
    match around {
        Around::Member(name) => Say::words("this is `").and(name).and("` of the JSON that was pasted"),
        around => Say::words("as pasted, it has ")
            .and(around.words())
            .and("; the token alone is explained. Where a request sends it so as `session_token`, that is the fault: it is refused as subject_token_malformed"),
    }
}

/// What a token's header and claims say, unverified; null where it is no JWT.
struct Parts {
    header: Value,
    claims: Value,
}

impl Parts {
    fn of(text: &str) -> Self {
        let mut parts = text.split('.');
        let mut part = || {
            let decoded = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
            serde_json::from_slice(&decoded).ok()
        };
        let header = part().unwrap_or(Value::Null);
        Self {
            header,
            claims: part().unwrap_or(Value::Null),
        }
    }

    /// Header and size; the hash only of what has a signature, for a short id could be guessed
    /// from it.
    fn facts(&self, text: &str) -> TokenFacts {
        let named = |name: &str| self.header.get(name).and_then(Value::as_str);
        let short = |name: &str| named(name).map(|text| text.chars().take(255).collect());
        let hash = || {
            let mut hex = String::new();
            for byte in sha256(text.as_bytes()) {
                let _ = write!(hex, "{byte:02x}");
            }
            hex
        };
        TokenFacts {
            bytes: text.len(),
            sha256: (text.matches('.').count() >= 2).then(hash),
            alg: short("alg"),
            kid: short("kid"),
            typ: short("typ"),
        }
    }
}

/// The first line about a token.
fn title(what: &'static str, facts: &TokenFacts, trust: &'static str) -> Say {
    let mut say = Say::words(what);
    if let Some(alg) = &facts.alg {
        say = say.and("  ").value("alg", alg.as_str());
    }
    if let Some(kid) = &facts.kid {
        say = say.and("  kid ").value("kid", kid.as_str());
    }
    let bytes = i64::try_from(facts.bytes).unwrap_or(i64::MAX);
    say.and("  ")
        .number(bytes)
        .and(" bytes   (")
        .and(trust)
        .and(")")
}

/// How far a token is to be believed that was only taken apart.
const DECODED: &str = "decoded, NOT yet trusted";
