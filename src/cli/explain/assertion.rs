//! `exchequer explain` of a client assertion: the checks of the token endpoint. Nothing is used
//! up by it.

use super::{facts, own, service, title};
use crate::config::Settings;
use crate::explain::Code;
use crate::explain::ladder::Outcome;
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use std::process::ExitCode;
use std::sync::Arc;

/// Explains it.
pub(super) async fn explain(text: &str, settings: Settings) -> Result<Report, ExitCode> {
    let store = own::open(&settings.store).await;
    let mut service = service(settings)?;
    let unseen = match (Arc::get_mut(&mut service.clients), store) {
        (Some(clients), Ok(store)) => {
            let read = clients.look_into(store).await;
            read.err().map(|error| error.to_string())
        }
        (_, store) => store.err(),
    };
    let steps = service.clients.explain(text).await;
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
    let note = unseen.filter(|_| code == Some(Code::ClientUnknown));
    let note =
        note.map(|why| Say::words("registered clients were not looked at: ").value("reason", why));
    let facts = facts(text);
    Ok(Report {
        kind: "client_assertion",
        title: vec![
            title("client assertion", &facts, "decoded, NOT yet trusted"),
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
        notes: note.into_iter().collect(),
        ..Report::default()
    })
}
