//! What a verified token of ours stands on: its time, and what would revoke it.

use super::claims::BACKDATE;
use super::read::Said;
use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::store::{Key, Kind, Standing, UnixMillis};
use crate::subject::revocation::{Dependence, Hit, Issued};

/// The key under which one token is revoked by itself, by its `jti`.
pub fn key(jti: &str) -> Key {
    Key::of(Kind::AppToken, &[jti])
}

/// What revokes the token of this `jti`, and nothing else of its user's.
pub fn itself(jti: &str) -> (Hit, Standing) {
    let since = UnixMillis::MIN;
    (
        Hit::Token,
        Standing {
            key: key(jti),
            since,
        },
    )
}

/// The key under which all tokens of a grant are revoked.
pub fn grant_key(id: &str) -> Key {
    Key::of(Kind::Grant, &[id])
}

/// What revokes all tokens of the grant of this id.
pub fn grant(id: &str) -> (Hit, Standing) {
    let (key, since) = (grant_key(id), UnixMillis::MIN);
    (Hit::Token, Standing { key, since })
}

impl Said<'_> {
    /// Refuses a token that expired, or is not valid yet.
    pub fn in_time(&self, now: UnixSeconds, ladder: &mut Ladder) -> Result<(), Box<Refusal>> {
        let until = self.expires_at - now;
        if until <= 0 {
            ladder.fail(Check::Expiry, format!("{} s ago", -until), "in the future");
            return Err(Refusal::because(
                Code::AppTokenExpired,
                format!("The app token expired {} s ago.", -until),
            ));
        }
        ladder.pass(Check::Expiry, || (format!("in {until} s"), "in the future"));
        if self.not_before > now {
            let ahead = self.not_before - now;
            ladder.fail(Check::NotBefore, format!("in {ahead} s"), "in the past");
            let mut refusal = Refusal::new(Code::AppTokenNotYetValid);
            refusal.retry_after = u64::try_from(ahead).ok();
            return Err(refusal);
        }
        ladder.pass(Check::NotBefore, || ("", "in the past"));
        Ok(())
    }

    /// What its user depends on, where it has one.
    pub fn dependence(&self) -> Option<Dependence<'_>> {
        self.provider.map(|issuer| Dependence {
            issuer,
            user: self.user,
            session: self.session,
            organization: self.organization,
            // Its `iat` lies back.
            issued: Issued::Here(self.issued_at + BACKDATE),
        })
    }

    /// All that would revoke it.
    pub fn standings(&self) -> impl Iterator<Item = (Hit, Standing)> {
        let user = self.dependence();
        let of_user: Vec<_> = user.iter().flat_map(Dependence::standings).collect();
        let grant = self.grant.map(grant);
        [itself(self.id)].into_iter().chain(grant).chain(of_user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::json::Object;

    const CLAIMS: &[u8] = br#"{"jti":"j","sub":"user_1","client_id":"web","aud":"web","idp":"i",
        "iat":100,"nbf":100,"exp":200}"#;

    #[test]
    fn a_token_is_good_from_its_nbf_on_and_until_its_exp() {
        let claims = Object::parse(CLAIMS).unwrap();
        let said = Said::read(&claims).unwrap();
        let at = |now| said.in_time(now, &mut Ladder::default());
        for now in [100, 199] {
            assert!(at(now).is_ok(), "{now}");
        }
        for (now, wait) in [(99, 1), (97, 3)] {
            let early = at(now).unwrap_err();
            assert_eq!(early.code, Code::AppTokenNotYetValid);
            assert_eq!(early.retry_after, Some(wait));
        }
        for now in [200, 201] {
            assert_eq!(at(now).unwrap_err().code, Code::AppTokenExpired);
        }
    }

    #[test]
    fn what_revokes_is_later_than_the_token_was_made_and_not_than_its_iat() {
        let claims = Object::parse(CLAIMS).unwrap();
        let dependence = Said::read(&claims).unwrap().dependence().unwrap().issued;
        assert!(matches!(dependence, Issued::Here(at) if at == 100 + BACKDATE));
    }
}
