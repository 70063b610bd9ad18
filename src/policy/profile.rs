//! What is known of a subject beside its token, as the app asked for it.

use serde_json::{Map, Value};

/// Fields of the user, the organisation and the membership; each only where the app asked for
/// it and there is one. Personal data, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Profile {
    /// Fields of the user.
    pub user: Map<String, Value>,
    /// Fields of the organisation that the subject acts for.
    pub organization: Map<String, Value>,
    /// Fields of the user's membership in it.
    pub membership: Map<String, Value>,
}
