//! What the instance knows: its users, sessions, organisations, memberships and tokens, as
//! the Backend API shows them.

use super::objects;
use crate::clock::Clock;
use serde_json::Value;
use std::collections::BTreeMap;

/// A kind of token beside session tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An OAuth access token: `oat_…`, or a JWT.
    OAuth,
    /// A machine's token: `mt_…`, or a JWT.
    Machine,
    /// An API key: `ak_…`.
    ApiKey,
}

impl TokenKind {
    /// `object` of such tokens.
    pub(super) fn object(self) -> &'static str {
        match self {
            Self::OAuth => "clerk_idp_oauth_access_token",
            Self::Machine => "machine_to_machine_token",
            Self::ApiKey => "api_key",
        }
    }
}

/// What the instance knows, in Clerk's shape: members may be changed, added and removed.
pub struct World {
    /// By id.
    pub users: BTreeMap<String, Value>,
    /// By id.
    pub sessions: BTreeMap<String, Value>,
    /// By id.
    pub organizations: BTreeMap<String, Value>,
    /// By id, which follow the order of adding; each holds a copy of its organisation and of
    /// its user's public data.
    pub memberships: BTreeMap<String, Value>,
    /// OAuth access tokens, machine tokens and API keys, by their secret.
    pub tokens: BTreeMap<String, Value>,
    /// JWT templates by name: the claims that each adds.
    pub templates: BTreeMap<String, Value>,
    clock: Clock,
    oauth_client: String,
    /// How many memberships were added.
    added: u32,
}

impl World {
    pub(super) fn new(clock: Clock, oauth_client: String) -> Self {
        Self {
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            organizations: BTreeMap::new(),
            memberships: BTreeMap::new(),
            tokens: BTreeMap::new(),
            templates: BTreeMap::new(),
            clock,
            oauth_client,
            added: 0,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now(&self) -> i64 {
        self.clock.now() * 1000
    }

    /// Adds a user with a verified e-mail address.
    pub fn add_user(&mut self, id: &str) -> &mut Value {
        let user = objects::user(id, self.now());
        put(&mut self.users, id, user)
    }

    /// Adds a session that began now; it acts for the first organisation that the user is a
    /// member of. `status` is one of Clerk's: `active`, `pending`, `ended`, `expired`,
    /// `removed`, `replaced`, `revoked`, `abandoned`.
    pub fn add_session(&mut self, id: &str, user: &str, status: &str) -> &mut Value {
        let mut session = objects::session(id, user, status, self.now());
        if let Some(membership) = self.memberships_of(user).first() {
            set(
                &mut session,
                "last_active_organization_id",
                at(membership, "/organization/id").clone(),
            );
        }
        put(&mut self.sessions, id, session)
    }

    /// Adds an organisation.
    pub fn add_organization(&mut self, id: &str, slug: &str) -> &mut Value {
        let organization = objects::organization(id, slug, self.now());
        put(&mut self.organizations, id, organization)
    }

    /// Adds a membership, or replaces the one that there is; and adds the user and the
    /// organisation (with the slug `acme`) where they are not there yet. `role` is as Clerk
    /// writes it: `org:admin`.
    pub fn add_membership(&mut self, user: &str, organization: &str, role: &str) -> &mut Value {
        let now = self.now();
        self.memberships.retain(|_, known| {
            at(known, "/public_user_data/user_id") != user
                || at(known, "/organization/id") != organization
        });
        self.added = self.added.saturating_add(1);
        let id = format!("orgmem_{:010}", self.added);
        let user = self
            .users
            .entry(user.to_owned())
            .or_insert_with(|| objects::user(user, now));
        let organization = self
            .organizations
            .entry(organization.to_owned())
            .or_insert_with(|| objects::organization(organization, "acme", now));
        let membership = objects::membership(&id, user, organization, role, now);
        put(&mut self.memberships, &id, membership)
    }

    /// Adds a token under its secret: `oat_…`, `mt_…`, `ak_…`, or a JWT. The subject is a
    /// user, a machine (`mch_…`) or an organisation.
    pub fn add_token(
        &mut self,
        secret: &str,
        kind: TokenKind,
        subject: &str,
        scopes: &[&str],
    ) -> &mut Value {
        let now = self.now();
        let token = match kind {
            TokenKind::OAuth => {
                objects::oauth_token(&self.oauth_client, subject, scopes, now / 1000)
            }
            TokenKind::Machine => objects::machine_token(subject, scopes, now),
            TokenKind::ApiKey => objects::api_key(subject, scopes, now),
        };
        put(&mut self.tokens, secret, token)
    }

    /// A user's memberships, in the order of adding.
    pub fn memberships_of(&self, user: &str) -> Vec<&Value> {
        let of_user = |membership: &&Value| at(membership, "/public_user_data/user_id") == user;
        self.memberships.values().filter(of_user).collect()
    }

    /// Ends a session; gives it as a webhook shows it, with its user. `status` is `ended`,
    /// `removed` or `revoked`; `None` where there is no such session.
    pub fn end_session(&mut self, id: &str, status: &str) -> Option<Value> {
        let now = self.now();
        let session = self.sessions.get_mut(id)?;
        set(session, "status", status.into());
        set(session, "updated_at", now.into());
        let mut shown = session.clone();
        let user = self.users.get(text(&shown, "user_id")).cloned();
        set(&mut shown, "user", user.unwrap_or_default());
        Some(shown)
    }

    /// Deletes a user with all that is theirs; whether there was one.
    pub fn delete_user(&mut self, id: &str) -> bool {
        self.sessions
            .retain(|_, session| at(session, "/user_id") != id);
        self.memberships
            .retain(|_, membership| at(membership, "/public_user_data/user_id") != id);
        self.users.remove(id).is_some()
    }

    /// The token of this secret and kind, `expired` as the clock has it.
    pub(super) fn token(&self, secret: &str, kind: TokenKind) -> Option<Value> {
        let mut token = self.tokens.get(secret)?.clone();
        if at(&token, "/object") != kind.object() {
            return None;
        }
        let now = match kind {
            TokenKind::OAuth => self.clock.now(),
            TokenKind::Machine | TokenKind::ApiKey => self.now(),
        };
        if at(&token, "/expiration")
            .as_i64()
            .is_some_and(|end| end <= now)
        {
            set(&mut token, "expired", true.into());
        }
        Some(token)
    }
}

/// Whether a token is neither revoked nor expired.
pub(super) fn live(token: &Value) -> bool {
    at(token, "/revoked") == false && at(token, "/expired") == false
}

/// A member's text; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What a pointer (RFC 6901) leads to; `null` where that is nothing.
pub(super) fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// Sets a member of an object.
pub(super) fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value);
    }
}

fn put<'m>(map: &'m mut BTreeMap<String, Value>, id: &str, value: Value) -> &'m mut Value {
    let place = map.entry(id.to_owned()).or_default();
    *place = value;
    place
}
