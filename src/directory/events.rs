//! The events that an app's backend is told: `user.first_seen` and `user.updated`, as messages
//! for the store's outbox.

use super::events_of;
use super::projection::Fields;
use crate::clock::UnixSeconds;
use crate::config::AppSettings;
use crate::store::{Key, Kind, Message, UnixMillis};
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// The app saw the user for the first time.
    FirstSeen,
    /// A field that the app asked for has changed.
    Updated,
}

impl Happened {
    fn name(self) -> &'static str {
        match self {
            Self::FirstSeen => "user.first_seen",
            Self::Updated => "user.updated",
        }
    }
}

/// An event of a user.
pub(super) struct Event<'e> {
    /// The `iss` of the user's provider.
    pub(super) issuer: &'e str,
    /// The user: its id and what the app asked for.
    pub(super) user: &'e Fields,
    /// The organisation that the user acted for, alike.
    pub(super) organization: Option<&'e Fields>,
    /// The version of the user's record, or 0.
    pub(super) version: UnixMillis,
}

impl Event<'_> {
    /// The message of it, where the app has a receiver. The same event has the same id, whoever
    /// notices it and however often.
    pub(super) fn message(
        &self,
        happened: Happened,
        app: &AppSettings,
        now: UnixSeconds,
    ) -> Option<Message> {
        events_of(app)?;
        let mut data = json!({"app": app.name, "issuer": self.issuer, "user": self.user});
        if let (Some(organization), Some(data)) = (self.organization, data.as_object_mut()) {
            data.insert("organization".to_owned(), json!(organization));
        }
        let (name, version) = (happened.name(), self.version.to_string());
        let Key(id) = Key::of(Kind::Event, &[name, &version, &data.to_string()]);
        let body = json!({"type": name, "timestamp": iso8601(now), "data": data});
        Some(Message {
            id: format!("msg_{:032x}", u128::from_be_bytes(id)),
            app: app.name.clone(),
            due: now,
            attempts: 0,
            body: body.to_string().into_bytes(),
        })
    }
}

/// A time as ISO 8601 (RFC 3339) has it, in UTC.
fn iso8601(time: UnixSeconds) -> String {
    let since = Duration::from_secs(u64::try_from(time).unwrap_or_default());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
