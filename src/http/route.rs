//! The routes, by the names that metrics, logs, traces and the audit log have for them.

/// What a request is for, as its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// An exchange.
    Exchange,
    /// A gateway's question.
    Verify,
    /// The token endpoint.
    Token,
    /// Introspection.
    Introspect,
    /// Revocation.
    Revoke,
    /// The beginning of a sign-in.
    Login,
    /// The end of a sign-in.
    Callback,
    /// A provider's events.
    Webhooks,
    /// Our key set.
    Jwks,
    /// Our metadata.
    Metadata,
    /// The status list, and the list of such lists.
    StatusList,
    /// The description of the public surface.
    Openapi,
    /// Whether the service is there.
    Health,
    /// A path without a door, and whatever the admin listener has.
    Other,
}

impl Route {
    /// Those where something is decided for a caller. They cost more than the answer that refuses
    /// them, so they alone may be shed; and they alone are audited and counted in the console's history.
    pub(super) const DECIDING: [Self; 8] = [
        Self::Exchange,
        Self::Verify,
        Self::Token,
        Self::Introspect,
        Self::Revoke,
        Self::Login,
        Self::Callback,
        Self::Webhooks,
    ];

    /// Whether it is one of [`Self::DECIDING`].
    pub(super) fn decides(self) -> bool {
        Self::DECIDING.contains(&self)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Verify => "verify",
            Self::Token => "token",
            Self::Introspect => "introspect",
            Self::Revoke => "revoke",
            Self::Login => "login",
            Self::Callback => "callback",
            Self::Webhooks => "webhooks",
            Self::Jwks => "jwks",
            Self::Metadata => "metadata",
            Self::StatusList => "status_list",
            Self::Openapi => "openapi",
            Self::Health => "health",
            Self::Other => "other",
        }
    }
}
