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

    /// Whether records of this kind are kept: those of users always, since a deleted one must
    /// be known.
    pub(super) fn keeps(&self, kind: Kind) -> bool {
        match kind {
            Kind::Organization => !self.organization.is_empty(),
            Kind::Membership => !self.membership.is_empty(),
            _ => true,
        }
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
    /// What it is.
    pub(super) kind: Kind,
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
    fn new(kind: Kind, ids: &[&str], version: UnixMillis, fields: Fields) -> Self {
        Self {
            kind,
            key: Key::of(kind, ids),
            user: None,
            version: Some(version),
            fields: Some(fields),
        }
    }

    fn gone(kind: Kind, ids: &[&str], version: Option<UnixMillis>) -> Self {
        Self {
            kind,
            key: Key::of(kind, ids),
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
        let fields = project(&asked.user, origin, |field| match field {
            "primary_email" => primary(user, "email_address", "email_addresses"),
            "primary_phone" => primary(user, "phone_number", "phone_numbers"),
            plain => user.get(plain).cloned(),
        });
        Some(Self {
            user: Some(id.to_owned()),
            ..Self::new(Kind::User, &[issuer, id], version(user, at), fields)
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
        let fields = project(&asked.organization, origin, |field| {
            organization.get(field).cloned()
        });
        let version = version(organization, at);
        Some(Self::new(
            Kind::Organization,
            &[issuer, id],
            version,
            fields,
        ))
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
        let fields = project(&asked.membership, origin, |field| {
            membership.get(field).cloned()
        });
        let ids = [issuer, user, organization];
        let version = version(membership, at);
        Some(Self::new(Kind::Membership, &ids, version, fields))
    }

    /// A membership that the Backend API does not list.
    pub(super) fn no_membership(issuer: &str, user: &str, organization: &str) -> Self {
        Self::gone(Kind::Membership, &[issuer, user, organization], None)
    }

    /// An organisation of which nothing can be known through a user who is no member of it:
    /// gone, unless another knows it.
    pub(super) fn no_organization(issuer: &str, organization: &str) -> Self {
        Self::gone(Kind::Organization, &[issuer, organization], Some(0))
    }

    /// What an event of Clerk's of this type and time tells by its `data`; `None` where it is none of users, organisations and
    /// memberships, or is malformed.
    pub(super) fn told(
        issuer: &str,
        kind: &str,
        at: UnixMillis,
        data: &Value,
        asked: &Asked,
    ) -> Option<Self> {
        let told = Origin::Told;
        match kind {
            "user.created" | "user.updated" => Self::user(issuer, data, asked, told, at),
            // A user's id never comes back: nothing is newer than its end.
            "user.deleted" => {
                let ids = [issuer, text(data, "id")?];
                Some(Self::gone(Kind::User, &ids, Some(UnixMillis::MAX)))
            }
            "organization.created" | "organization.updated" => {
                Self::organization(issuer, data, asked, told, at)
            }
            "organization.deleted" => {
                let ids = [issuer, text(data, "id")?];
                Some(Self::gone(Kind::Organization, &ids, Some(UnixMillis::MAX)))
            }
            "organizationMembership.created" | "organizationMembership.updated" => {
                let user = text(data.get("public_user_data")?, "user_id")?;
                Self::membership(issuer, user, data, asked, told, at)
            }
            // Its user may be made a member again, later.
            "organizationMembership.deleted" => {
                let user = text(data.get("public_user_data")?, "user_id")?;
                let organization = text(data.get("organization")?, "id")?;
                let ids = [issuer, user, organization];
                Some(Self::gone(Kind::Membership, &ids, Some(at)))
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
    asked: &BTreeSet<String>,
    origin: Origin,
    value: impl Fn(&str) -> Option<Value>,
) -> Fields {
    let known = |field: &String| match (value(field), origin) {
        (Some(value), _) => Some((field.clone(), value)),
        (None, Origin::Fetched) => Some((field.clone(), Value::Null)),
        (None, Origin::Told) => None,
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(user: &[&str], organization: &[&str], membership: &[&str]) -> Asked {
        let set = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect();
        Asked {
            user: set(user),
            organization: set(organization),
            membership: set(membership),
        }
    }

    fn list(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|field| (*field).to_owned()).collect()
    }

    fn ada() -> Value {
        json!({
            "id": "user_1", "first_name": "Ada", "username": null, "updated_at": 5,
            "private_metadata": {"a": 1}, "unsafe_metadata": {"b": 2},
            "primary_email_address_id": "idn_1",
            "email_addresses": [
                {"id": "idn_1", "email_address": "ada@example.com", "verification": {"status": "verified"}},
            ],
            "primary_phone_number_id": "idn_2",
            "phone_numbers": [
                {"id": "idn_2", "phone_number": "+441234567890", "verification": {"status": "unverified"}},
            ],
        })
    }

    #[test]
    fn what_was_fetched_is_whole_and_what_was_told_is_what_was_told() {
        let asked = asked(
            &[
                "first_name",
                "last_name",
                "username",
                "primary_email",
                "primary_phone",
            ],
            &[],
            &[],
        );
        let of = |origin| Found::user("iss", &ada(), &asked, origin, 9).unwrap();
        let fetched = of(Origin::Fetched);
        assert_eq!(fetched.version, Some(5));
        assert_eq!(
            Value::Object(fetched.fields.unwrap()),
            json!({
                "first_name": "Ada", "last_name": null, "username": null,
                "primary_email": "ada@example.com", "primary_phone": null,
            })
        );
        let told = of(Origin::Told).fields.unwrap();
        assert!(!told.contains_key("last_name"));
        assert_eq!(told["username"], Value::Null);
        assert!(!covers(&told, &list(&["first_name", "last_name"])));
        assert!(covers(&told, &list(&["first_name", "username"])));
        let shown = select(&told, &list(&["first_name", "username", "last_name"]));
        assert_eq!(Value::Object(shown), json!({"first_name": "Ada"}));
    }

    #[test]
    fn a_change_is_one_of_a_field_that_both_know() {
        let fields = |value: Value| value.as_object().unwrap().clone();
        let one = fields(json!({"a": 1, "b": 2, "c": null}));
        for (other, differs) in [
            (json!({"a": 1, "b": 3}), false),
            (json!({"b": 3}), false),
            (json!({"a": 2}), true),
            (json!({"a": 1, "c": 1}), true),
            (json!({"a": null}), true),
        ] {
            let other = fields(other);
            assert_eq!(
                differ(&one, &other, &list(&["a", "c"])),
                differs,
                "{other:?}"
            );
        }
    }

    #[test]
    fn events_that_are_none_of_ours_or_malformed_tell_nothing() {
        let asked = asked(&["first_name"], &["name"], &["role"]);
        for (kind, data) in [
            ("user.updated", json!(null)),
            ("user.updated", json!([])),
            ("user.updated", json!({"id": ""})),
            ("user.updated", json!({"id": 5})),
            ("user.renamed", ada()),
            ("session.ended", json!({"id": "sess_1"})),
            ("organizationMembership.updated", json!({"role": "x"})),
            (
                "organizationMembership.deleted",
                json!({"organization": {"id": "org_1"}}),
            ),
            ("organization.deleted", json!({})),
        ] {
            assert!(
                Found::told("iss", kind, 1, &data, &asked).is_none(),
                "{kind} {data}"
            );
        }
    }

    #[test]
    fn records_never_grow_older() {
        let asked = asked(&["first_name"], &[], &["role"]);
        let told = |kind: &str, timestamp: i64, data: Value| {
            Found::told("iss", kind, timestamp, &data, &asked).unwrap()
        };
        let updated = told("user.updated", 9, ada());
        let deleted = told("user.deleted", 3, json!({"id": "user_1", "deleted": true}));
        assert!(updated.key == deleted.key);
        let record = updated.record(None, 70).unwrap();
        assert_eq!((record.version, record.fetched_at), (5, 70));
        assert!(
            updated.record(Some(&record), 71).is_some(),
            "equal is not older"
        );
        let end = deleted.record(Some(&record), 72).unwrap();
        assert!(end.body.is_empty());
        assert!(updated.record(Some(&end), 73).is_none());

        let of = |version| {
            json!({
                "role": "org:admin", "updated_at": version, "organization": {"id": "org_1"},
                "public_user_data": {"user_id": "user_1"},
            })
        };
        let member = told("organizationMembership.created", 1, of(20))
            .record(None, 1)
            .unwrap();
        // Its `updated_at` is from before.
        let left = told("organizationMembership.deleted", 30, of(20));
        let left = left.record(Some(&member), 2).unwrap();
        assert!(left.body.is_empty() && left.version == 30);
        let late = told("organizationMembership.updated", 31, of(25));
        assert!(late.record(Some(&left), 3).is_none());
        let again = told("organizationMembership.created", 41, of(40));
        assert!(again.record(Some(&left), 4).is_some());
        // One that the API does not list stays what it was in time, but has no fields.
        let gone = Found::no_membership("iss", "user_1", "org_1")
            .record(Some(&member), 5)
            .unwrap();
        assert!(gone.body.is_empty() && gone.version == 20);
    }
}
