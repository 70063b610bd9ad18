//! The claims of a token of ours: absent rather than null.

use super::status_list::Status;
use crate::clock::UnixSeconds;
use crate::policy::Grant;
use crate::policy::app::Place;
use crate::subject::Subject;
use crate::subject::json::{Json, Object};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::slice;

/// How far `iat` and `nbf` lie back, in seconds: PyJWT, jose and jsonwebtoken refuse a token
/// from a clock that is three seconds ahead of theirs.
pub const BACKDATE: i64 = 10;

/// What a client of ours gets for itself: no user is behind it.
#[derive(Debug, Clone, Copy)]
pub struct ServiceGrant<'g> {
    /// The client: `sub` and `client_id`.
    pub client: &'g str,
    /// `aud`.
    pub audience: &'g String,
    /// `scope`, where the client has some.
    pub scope: Option<&'g str>,
    /// When it expires.
    pub expires_at: UnixSeconds,
    /// Its place in the status list, where it has one.
    pub place: Option<&'g Place>,
    /// The thumbprint of the key that it is bound to (RFC 9449 §6.1).
    pub bound_to: Option<&'g str>,
}

/// A token of ours that is given again: for less, for others, or through somebody else.
#[derive(Clone, Copy)]
pub struct Carried<'c> {
    /// The verified claims of the token before: what is not written anew is carried over.
    pub claims: &'c Object<'c>,
    /// `sub`.
    pub subject: &'c str,
    /// `client_id`: the app.
    pub app: &'c str,
    /// `aud`.
    pub audiences: &'c [String],
    /// When it expires.
    pub expires_at: UnixSeconds,
    /// `scope`, where the token before has one.
    pub scope: Option<&'c str>,
    /// `permissions`, where the token before has some.
    pub permissions: Option<&'c Value>,
    /// `act`, where somebody acts.
    pub actor: Option<&'c Value>,
    /// Its place in the status list, where it has one.
    pub place: Option<&'c Place>,
    /// The thumbprint of the key that it is bound to (RFC 9449 §6.1).
    pub bound_to: Option<&'c str>,
}

/// The claims that are each token's own: `cnf` is of whoever shows it.
const ANEW: [&str; 12] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "client_id",
    "scope",
    "permissions",
    "act",
    "cnf",
];

/// Whom a token speaks for.
pub(super) enum Bearer<'c> {
    /// A user of an app.
    User {
        app: &'c str,
        subject: &'c Subject<'c>,
        grant: &'c Grant,
        bound_to: Option<&'c str>,
    },
    /// Whom a token of ours spoke for before.
    Carried(&'c Carried<'c>),
    /// A client of ours.
    Service(&'c ServiceGrant<'c>),
}

/// The claims, as they are written.
pub(super) struct Claims<'c> {
    pub issuer: &'c str,
    pub jti: &'c str,
    pub now: UnixSeconds,
    pub bearer: Bearer<'c>,
}

/// `cnf` (RFC 7800 §3.1): the key whose holder alone may use the token.
#[derive(serde::Serialize)]
struct Confirmation<'c> {
    /// Its thumbprint (RFC 9449 §6.1).
    jkt: &'c str,
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (sub, aud, exp, client, bound_to) = match &self.bearer {
            Bearer::User {
                app,
                grant,
                bound_to,
                ..
            } => (
                grant.subject.as_str(),
                Audiences(&grant.audiences),
                grant.expires_at,
                *app,
                *bound_to,
            ),
            Bearer::Carried(carried) => (
                carried.subject,
                Audiences(carried.audiences),
                carried.expires_at,
                carried.app,
                carried.bound_to,
            ),
            Bearer::Service(grant) => (
                grant.client,
                Audiences(slice::from_ref(grant.audience)),
                grant.expires_at,
                grant.client,
                grant.bound_to,
            ),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iss", self.issuer)?;
        map.serialize_entry("sub", sub)?;
        map.serialize_entry("aud", &aud)?;
        map.serialize_entry("exp", &exp)?;
        map.serialize_entry("iat", &(self.now - BACKDATE))?;
        map.serialize_entry("nbf", &(self.now - BACKDATE))?;
        map.serialize_entry("jti", self.jti)?;
        map.serialize_entry("client_id", client)?;
        if let Some(jkt) = bound_to {
            map.serialize_entry("cnf", &Confirmation { jkt })?;
        }
        match &self.bearer {
            Bearer::User { subject, grant, .. } => user(&mut map, subject, grant)?,
            Bearer::Carried(carried) => again(&mut map, carried)?,
            Bearer::Service(grant) => {
                if let Some(scope) = grant.scope {
                    map.serialize_entry("scope", scope)?;
                }
                if let Some(status_list) = grant.place {
                    map.serialize_entry("status", &Status { status_list })?;
                }
            }
        }
        map.end()
    }
}

/// `aud` (RFC 7519 §4.1.3): a text where there is one, which every reader understands.
struct Audiences<'a>(&'a [String]);

impl Serialize for Audiences<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

/// What a token says again.
fn again<M: SerializeMap>(map: &mut M, carried: &Carried<'_>) -> Result<(), M::Error> {
    for (name, value) in carried.claims.iter() {
        // A place in the list is each token's own; another claim of that name is the app's.
        let anew = match (name, value) {
            ("status", Json::Object(status)) if status.has("status_list") => true,
            ("status", _) => carried.place.is_some(),
            _ => ANEW.contains(&name),
        };
        if !anew {
            map.serialize_entry(name, value)?;
        }
    }
    if let Some(actor) = carried.actor {
        map.serialize_entry("act", actor)?;
    }
    if let Some(scope) = carried.scope {
        map.serialize_entry("scope", scope)?;
    }
    if let Some(permissions) = carried.permissions {
        map.serialize_entry("permissions", permissions)?;
    }
    if let Some(status_list) = carried.place {
        map.serialize_entry("status", &Status { status_list })?;
    }
    Ok(())
}

/// What a token says of its user.
fn user<M: SerializeMap>(
    map: &mut M,
    subject: &Subject<'_>,
    grant: &Grant,
) -> Result<(), M::Error> {
    map.serialize_entry("idp", subject.issuer)?;
    if let Some(sid) = subject.session_id {
        map.serialize_entry("sid", &sid)?;
    }
    if let Some(id) = &grant.grant_id {
        map.serialize_entry("grant_id", id)?;
    }
    if let Some(actor) = &grant.actor {
        map.serialize_entry("act", actor)?;
    }
    // Who may act is never lost on the way (RFC 8693 §4.4), unless the app says its own.
    let may_act = subject.claims.get("may_act");
    if let Some(may_act) = may_act.filter(|_| !grant.claims.contains_key("may_act")) {
        map.serialize_entry("may_act", may_act)?;
    }
    // The app's own claims come in the place of these.
    let ours = |name: &str| !grant.claims.contains_key(name);
    if let Some(organization) = &subject.organization {
        if ours("org_id") {
            map.serialize_entry("org_id", organization.id)?;
        }
        if let Some(slug) = organization.slug.filter(|_| ours("org_slug")) {
            map.serialize_entry("org_slug", &slug)?;
        }
        if let Some(role) = organization.role.as_ref().filter(|_| ours("roles")) {
            map.serialize_entry("roles", &[role])?;
        }
        let upstream = grant.scopes.is_none() && !organization.permissions.is_empty();
        if upstream && ours("permissions") {
            map.serialize_entry("permissions", &organization.permissions)?;
        }
    }
    // Both are there even where nothing is granted: absent could be read as unrestricted.
    if let Some(scopes) = &grant.scopes {
        map.serialize_entry("scope", &scopes.names)?;
        if ours("permissions") {
            map.serialize_entry("permissions", &scopes.permissions)?;
        }
    }
    if let Some(time) = subject.authenticated_at.filter(|_| ours("auth_time")) {
        map.serialize_entry("auth_time", &time)?;
    }
    if let Some(status_list) = &grant.place {
        map.serialize_entry("status", &Status { status_list })?;
    }
    for (name, value) in &grant.claims {
        map.serialize_entry(name, value)?;
    }
    Ok(())
}
