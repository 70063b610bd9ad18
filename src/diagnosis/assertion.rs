//! A client assertion: the checks of the token endpoint. Nothing is used up by it.

use super::{DECODED, Diagnosis, Parts, title};
use crate::explain::Code;
use crate::explain::ladder::Outcome;
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;

impl Diagnosis {
    pub(super) async fn of_assertion(&self, text: &str) -> Report {
        let steps = self.clients.explain(text).await;
        let code = steps.iter().find_map(|step| {
            let fault = step.result.as_ref().err();
            fault.map(|fault| fault.code)
        });
        let steps = steps.into_iter().map(|step| {
            let (outcome, seen) = match step.result {
                Ok(told) => (Outcome::Passed, told),
                Err(fault) => (Outcome::Failed, fault.told),
            };
            Step {
                check: step.check,
                outcome,
                seen: Some(seen),
                expected: None,
            }
        });
        let unknown = code == Some(Code::ClientUnknown);
        let facts = Parts::of(text).facts(text);
        Report {
            kind: "client_assertion",
            title: vec![
                title("client assertion", &facts, DECODED),
                Say::words("a JWT with which a client authenticates, and no user's token"),
            ],
            token: Some(facts),
            accepted: Some(code.is_none()),
            steps: steps.collect(),
            verdict: code.is_none().then(|| {
                Say::words("the client would be authenticated, unless its `jti` was sent before")
            }),
            code,
            known: code.into_iter().flat_map(Code::known_issues).collect(),
            notes: self
                .without_clients()
                .filter(|_| unknown)
                .into_iter()
                .collect(),
            ..Report::default()
        }
    }

    /// That clients which were registered at run time are not known here.
    pub(super) fn without_clients(&self) -> Option<Say> {
        let why = self.unseen.clients.as_deref()?;
        let note = Say::words("registered clients were not looked at: ");
        Some(note.value("reason", why))
    }
}
