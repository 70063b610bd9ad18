//! What a door did, on its way from the answer to the log, the metrics and the audit log.

use super::route::Route;
use crate::exchange::Exchanged;
use crate::explain::Refusal;
use crate::oauth::introspection::Introspected;
use crate::oauth::issued::Issued;
use crate::oauth::revocation::Revoked;
use crate::oauth::sign_in::Told;
use crate::webhooks::Taken;
use std::sync::Arc;

/// What a door did, among its answer's extensions; other answers have none.
#[derive(Clone)]
pub enum Outcome {
    /// It refused: the front writes the answer, for it knows the request's id.
    Refused(Box<Refusal>),
    /// It exchanged a credential.
    Exchanged(Arc<Exchanged>),
    /// It issued a token at the token endpoint.
    Issued(Arc<Issued>),
    /// It told a client whether a token holds.
    Introspected(Arc<Introspected>),
    /// It revoked a token of a client's.
    Revoked(Arc<Revoked>),
    /// It sent a browser on, to a provider or back to an app.
    SignIn(Arc<Told>),
    /// It took a provider's event.
    Heard(Arc<Taken>),
}

impl Outcome {
    /// Why it refused, whoever was told.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::SignIn(told) => told.refusal.as_deref(),
            _ => None,
        }
    }
}

/// What the front knows of a request.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    /// What it was for.
    pub(super) route: Route,
    /// The request's id.
    pub(super) id: &'a str,
    /// The trace's id.
    pub(super) trace: Option<&'a str>,
    /// The client's network, where the audit log asks for it.
    pub(super) network: Option<&'a str>,
}
