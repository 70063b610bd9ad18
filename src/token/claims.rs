//! The claims of an app JWT: absent rather than null.

use crate::policy::Grant;
use crate::subject::Subject;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// How far `iat` and `nbf` lie back, in seconds: PyJWT, jose and jsonwebtoken refuse a token
/// from a clock that is three seconds ahead of theirs.
pub(super) const BACKDATE: i64 = 10;

/// The claims, as they are written.
pub(super) struct Claims<'c> {
    pub issuer: &'c str,
    pub app: &'c str,
    pub jti: &'c str,
    pub now: i64,
    pub subject: &'c Subject<'c>,
    pub grant: &'c Grant,
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            issuer,
            app,
            jti,
            now,
            subject,
            grant,
        } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iss", issuer)?;
        map.serialize_entry("sub", &grant.subject)?;
        map.serialize_entry("aud", &grant.audience)?;
        map.serialize_entry("exp", &grant.expires_at)?;
        map.serialize_entry("iat", &(now - BACKDATE))?;
        map.serialize_entry("nbf", &(now - BACKDATE))?;
        map.serialize_entry("jti", jti)?;
        map.serialize_entry("client_id", app)?;
        map.serialize_entry("idp", subject.issuer)?;
        if let Some(sid) = subject.session_id {
            map.serialize_entry("sid", &sid)?;
        }
        if let Some(actor) = &subject.actor {
            map.serialize_entry("act", actor)?;
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
        for (name, value) in &grant.claims {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
