//! What a subject depends on, and so what can be revoked under it.

use super::Subject;
use crate::clock::UnixSeconds;
use crate::explain::Code;
use crate::store::{Key, Kind, Standing, UnixMillis};

/// The ids that a token stands for: the same for a subject token and for an app token.
#[derive(Debug, Clone, Copy)]
pub struct Dependence<'d> {
    /// The provider's `iss`.
    pub issuer: &'d str,
    /// The provider's id of the user.
    pub user: &'d str,
    /// The provider's session.
    pub session: Option<&'d str>,
    /// The organisation that the token acts for.
    pub organization: Option<&'d str>,
    /// When it was issued, and by whom.
    pub issued: Issued,
}

/// When a token was issued, and by whom.
#[derive(Debug, Clone, Copy)]
pub enum Issued {
    /// By the provider: it says what held then.
    Upstream(UnixSeconds),
    /// By this service: it says what held when its subject token was issued, a while before.
    Here(UnixSeconds),
}

/// What a revocation hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// The session ended.
    Session,
    /// The user was deleted.
    User,
    /// The membership changed.
    Membership,
}

impl Hit {
    /// What is answered.
    pub fn code(self) -> Code {
        match self {
            Self::Session => Code::SessionRevoked,
            Self::User => Code::UserDeleted,
            Self::Membership => Code::MembershipChanged,
        }
    }
}

impl<'d> Dependence<'d> {
    /// What a verified subject depends on; `now` stands for an unknown time of issue.
    pub fn of(subject: &Subject<'d>, now: UnixSeconds) -> Self {
        Self {
            issuer: subject.issuer,
            user: subject.id,
            session: subject.session_id,
            organization: subject.organization.as_ref().map(|org| org.id),
            issued: Issued::Upstream(subject.issued_at.unwrap_or(now)),
        }
    }

    /// What to look up, and what a hit means.
    pub fn standings(&self) -> impl Iterator<Item = (Hit, Standing)> {
        let (kind, issued_at) = match self.issued {
            Issued::Upstream(time) => (Kind::Membership, time),
            Issued::Here(time) => (Kind::MintedMembership, time),
        };
        // A token issued in the second of a revocation may be older than it.
        let since = issued_at.saturating_mul(1000);
        // An ended session and a deleted user never come back, whatever a token says.
        let ever = UnixMillis::MIN;
        let session = self.session.map(|session| {
            let key = Key::of(Kind::Session, &[self.issuer, session]);
            (Hit::Session, Standing { key, since: ever })
        });
        let user = Key::of(Kind::User, &[self.issuer, self.user]);
        let membership = self.organization.map(|organization| {
            let key = Key::of(kind, &[self.issuer, self.user, organization]);
            (Hit::Membership, Standing { key, since })
        });
        let user = (
            Hit::User,
            Standing {
                key: user,
                since: ever,
            },
        );
        session.into_iter().chain([user]).chain(membership)
    }
}
