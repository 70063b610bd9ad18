//! What is kept of Clerk's objects: the fields that apps ask for, and nothing else.
//!
//! The body of a [`Record`] is an object of exactly those fields, `null` where the user has
//! none. A field that is not there was not known when the record was written: a webhook
//! left it out, or no app asked for it yet. An empty body says that the object is gone.

use crate::clock::UnixSeconds;
use crate::config::ProfileSettings;
use crate::store::{Key, Kind, Record, UnixMillis};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Fields and their values: personal data, not to be logged.
pub(super) type Fields = Map<String, Value>;

/// The fields that are asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) user: BTreeSet<String>,
    pub(super) organization: BTreeSet<String>,
    pub(super) membership: BTreeSet<String>,
}

impl Asked {
    /// Adds what an app asks for.
    pub(super) fn add(&mut self, profile: &ProfileSettings) {
        self.user.extend(profile.user.iter().cloned());
        self.organization
            .extend(profile.organization.iter().cloned());
        self.membership.extend(profile.membership.iter().cloned());
    }
}

/// Who gave an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The Backend API: what is not in it, the object does not have.
    Fetched,
    /// A webhook: what is not in it is not known.
    Told,
}

/// An object as it is now, before it is compared with what was known.
pub(super) struct Found {
    /// Whose record it is.
    pub(super) key: Key,
    /// The user's id, where it is a user.
    pub(super) user: Option<String>,
    /// When it was last changed; `None` for one that is gone at an unknown time.
    pub(super) version: Option<UnixMillis>,
    /// Its fields; `None` where it is gone.
    pub(super) fields: Option<Fields>,
}

impl Found {
    fn new(key: Key, version: UnixMillis, fields: Fields) -> Self {
        Self {
            key,
            user: None,
            version: Some(version),
            fields: Some(fields),
        }
    }

    fn gone(key: Key, version: Option<UnixMillis>) -> Self {
        Self {
            key,
            user: None,
            version,
            fields: None,
        }
    }

    /// A user.
    pub(super) fn user(
        issuer: &str,
        user: &Value,
        asked: &Asked,
        origin: Origin,
        at: UnixMillis,
    ) -> Option<Self> {
        let id = text(user, "id")?;
        let fields = project(user, &asked.user, origin, |field| match field {
            "primary_email" => primary(user, "email_address", "email_addresses"),
            "primary_phone" => primary(user, "phone_number", "phone_numbers"),
            plain => user.get(plain).cloned(),
        });
        let key = Key::of(Kind::User, &[issuer, id]);
        Some(Self {
            user: Some(id.to_owned()),
            ..Self::new(key, version(user, at), fields)
        })
    }

    /// An organisation.
    pub(super) fn organization(
        issuer: &str,
        organization: &Value,
        asked: &Asked,
        origin: Origin,
        at: UnixMillis,
    ) -> Option<Self> {
        let id = text(organization, "id")?;
        let fields = project(organization, &asked.organization, origin, |field| {
            organization.get(field).cloned()
        });
        let key = Key::of(Kind::Organization, &[issuer, id]);
        Some(Self::new(key, version(organization, at), fields))
    }

    /// A user's membership in an organisation.
    pub(super) fn membership(
        issuer: &str,
        user: &str,
        membership: &Value,
        asked: &Asked,
        origin: Origin,
        at: UnixMillis,
    ) -> Option<Self> {
        let organization = text(membership.get("organization")?, "id")?;
        let fields = project(membership, &asked.membership, origin, |field| {
            membership.get(field).cloned()
        });
        let key = Key::of(Kind::Membership, &[issuer, user, organization]);
        Some(Self::new(key, version(membership, at), fields))
    }

    /// A membership that the Backend API does not list.
    pub(super) fn no_membership(issuer: &str, user: &str, organization: &str) -> Self {
        let key = Key::of(Kind::Membership, &[issuer, user, organization]);
        Self::gone(key, None)
    }

    /// An organisation of which nothing can be known through a user who is no member of it:
    /// gone, unless another knows it.
    pub(super) fn no_organization(issuer: &str, organization: &str) -> Self {
        let key = Key::of(Kind::Organization, &[issuer, organization]);
        Self::gone(key, Some(0))
    }

    /// What an event of Clerk's tells; `None` where it is none of users, organisations and
    /// memberships, or is malformed.
    pub(super) fn told(issuer: &str, event: &Value, asked: &Asked) -> Option<Self> {
        let data = event.get("data")?;
        let at = event.get("timestamp")?.as_i64()?;
        let told = Origin::Told;
        match text(event, "type")? {
            "user.created" | "user.updated" => Self::user(issuer, data, asked, told, at),
            // A user's id never comes back: nothing is newer than its end.
            "user.deleted" => {
                let key = Key::of(Kind::User, &[issuer, text(data, "id")?]);
                Some(Self::gone(key, Some(UnixMillis::MAX)))
            }
            "organization.created" | "organization.updated" => {
                Self::organization(issuer, data, asked, told, at)
            }
            "organization.deleted" => {
                let key = Key::of(Kind::Organization, &[issuer, text(data, "id")?]);
                Some(Self::gone(key, Some(UnixMillis::MAX)))
            }
            "organizationMembership.created" | "organizationMembership.updated" => {
                let user = text(data.get("public_user_data")?, "user_id")?;
                Self::membership(issuer, user, data, asked, told, at)
            }
            // Its user may be made a member again, later.
            "organizationMembership.deleted" => {
                let user = text(data.get("public_user_data")?, "user_id")?;
                let organization = text(data.get("organization")?, "id")?;
                let key = Key::of(Kind::Membership, &[issuer, user, organization]);
                Some(Self::gone(key, Some(at)))
            }
            _ => None,
        }
    }

    /// The record of it, given what was known: never an older one.
    pub(super) fn record(&self, known: Option<&Record>, now: UnixSeconds) -> Option<Record> {
        let known = known.map(|record| record.version);
        let version = self.version.or(known).unwrap_or_default();
        let body = self.fields.as_ref().map(serde_json::to_vec);
        known.is_none_or(|known| known <= version).then(|| Record {
            version,
            fetched_at: now,
            body: body.and_then(Result::ok).unwrap_or_default(),
        })
    }
}

fn text<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// `updated_at`, else the time at which the object was given.
fn version(object: &Value, at: UnixMillis) -> UnixMillis {
    let updated_at = object.get("updated_at").and_then(Value::as_i64);
    updated_at.unwrap_or(at)
}

fn project(
    object: &Value,
    asked: &BTreeSet<String>,
    origin: Origin,
    value: impl Fn(&str) -> Option<Value>,
) -> Fields {
    let known = |field: &String| match (value(field), origin) {
        (Some(value), _) => Some((field.clone(), value)),
        (None, Origin::Fetched) => Some((field.clone(), Value::Null)),
        (None, Origin::Told) => None,
    };
    debug_assert!(object.is_object(), "checked by its id");
    asked.iter().filter_map(known).collect()
}

/// The address that `primary_…_id` names, where it is verified.
fn primary(user: &Value, name: &str, list: &str) -> Option<Value> {
    let addresses = user.get(list)?.as_array()?;
    let id = user.get(format!("primary_{name}_id"))?;
    let address = addresses.iter().find(|each| {
        let verified = each.pointer("/verification/status");
        id.is_string() && each.get("id") == Some(id) && verified == Some(&"verified".into())
    });
    Some(
        address
            .and_then(|each| each.get(name))
            .cloned()
            .unwrap_or_default(),
    )
}

/// The fields of a record; `None` where the object is gone.
pub(super) fn fields(record: &Record) -> Option<Fields> {
    let fields = || serde_json::from_slice(&record.body).unwrap_or_default();
    (!record.body.is_empty()).then(fields)
}

/// Whether all the fields are known.
pub(super) fn covers(fields: &Fields, asked: &[String]) -> bool {
    asked.iter().all(|field| fields.contains_key(field))
}

/// What an app asked for and the object has.
pub(super) fn select(fields: &Fields, asked: &[String]) -> Fields {
    let filled = |field: &&String| fields.get(*field).is_some_and(|value| !value.is_null());
    let entry = |field: &String| Some((field.clone(), fields.get(field)?.clone()));
    asked.iter().filter(filled).filter_map(entry).collect()
}

/// Whether a field that both know has changed.
pub(super) fn differ(one: &Fields, other: &Fields, asked: &[String]) -> bool {
    asked
        .iter()
        .any(|field| match (one.get(field), other.get(field)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        })
}
