//! What a subject depends on, and so what can be revoked under it.

use super::Subject;
use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Refusal};
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
    /// The organisation was deleted.
    Organization,
    /// The membership changed.
    Membership,
    /// The token was revoked by itself.
    Token,
}

impl Hit {
    /// What is answered.
    fn code(self) -> Code {
        match self {
            Self::Session => Code::SessionRevoked,
            Self::User => Code::UserDeleted,
            Self::Organization => Code::OrganizationDeleted,
            Self::Membership => Code::MembershipChanged,
            Self::Token => Code::TokenRevoked,
        }
    }
}

/// Refuses what was revoked: the place of the one of these that was hit, as the store tells it.
pub fn check(
    revoked: Option<usize>,
    hits: &[Hit],
    ladder: &mut Ladder,
) -> Result<(), Box<Refusal>> {
    let Some(hit) = revoked.and_then(|place| hits.get(place)) else {
        return Ok(());
    };
    ladder.fail(Check::Revocation, format!("{hit:?}"), "not revoked");
    Err(Refusal::new(hit.code()))
}

impl<'d> Dependence<'d> {
    /// What a verified subject depends on; when it was judged stands for an unknown time of
    /// issue.
    pub fn of(subject: &Subject<'d>) -> Self {
        Self {
            issuer: subject.issuer,
            user: subject.id,
            session: subject.session_id,
            organization: subject.organization.as_ref().map(|org| org.id),
            issued: Issued::Upstream(subject.issued_at.unwrap_or(subject.judged_at)),
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
        // What ended or was deleted never comes back, whatever a token says.
        let gone = |hit, kind, id| {
            let key = Key::of(kind, &[self.issuer, id]);
            let since = UnixMillis::MIN;
            (hit, Standing { key, since })
        };
        let session = self.session;
        let session = session.map(|id| gone(Hit::Session, Kind::Session, id));
        let user = gone(Hit::User, Kind::User, self.user);
        let organization = self.organization.into_iter().flat_map(move |id| {
            let key = Key::of(kind, &[self.issuer, self.user, id]);
            [
                gone(Hit::Organization, Kind::Organization, id),
                (Hit::Membership, Standing { key, since }),
            ]
        });
        session.into_iter().chain([user]).chain(organization)
    }
}
