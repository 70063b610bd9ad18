//! The ladder: each check that a subject token passes, in the order in which it is made.

use serde::Serialize;

/// One check. The order of the variants is the order of the checks: first what the token
/// looks like, then whose it is, then whether it is genuine, then what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A compact JWS of three parts, strict base64url, JSON without repeated members.
    Form,
    /// A header that asks for nothing we do not honour (`crit`, `jwk`, `jku`, `x5u`, `x5c`).
    Header,
    /// `iss` is, byte for byte, an issuer that is trusted here.
    Issuer,
    /// The app that the exchange is for, and that it trusts this issuer.
    App,
    /// `typ` is one of the issuer's.
    Type,
    /// `alg` is on the issuer's list.
    Algorithm,
    /// `kid` names one of this issuer's keys, and the key is made for `alg`.
    Key,
    /// The signature verifies with that key; of a token that only its issuer can read, the
    /// issuer says that it is active.
    Signature,
    /// `sub`, `exp` and the other registered claims have their types.
    Claims,
    /// `aud` holds one of the issuer's configured audiences.
    Audience,
    /// `azp` is one of the issuer's configured authorized parties.
    AuthorizedParty,
    /// `exp` is in the future.
    Expiry,
    /// `nbf` is in the past.
    NotBefore,
    /// `iat` is in the past, and not too long before `exp`.
    IssuedAt,
    /// The session is one that may act (Clerk: `sts` is not `pending`).
    Session,
    /// The subject and the client's address do not ask too often.
    Limits,
    /// Nothing that the subject depends on has been revoked.
    Revocation,
    /// The app's own `condition` holds, and its other expressions give values.
    Condition,
    /// The scopes that were asked for, narrowed to what the app grants; never fails.
    Scopes,
}

impl Check {
    /// All checks, in order.
    pub const ALL: [Self; 19] = [
        Self::Form,
        Self::Header,
        Self::Issuer,
        Self::App,
        Self::Type,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Claims,
        Self::Audience,
        Self::AuthorizedParty,
        Self::Expiry,
        Self::NotBefore,
        Self::IssuedAt,
        Self::Session,
        Self::Limits,
        Self::Revocation,
        Self::Condition,
        Self::Scopes,
    ];

    /// The check's name, as logs and `explain` show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Header => "header",
            Self::Issuer => "issuer",
            Self::App => "app",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Audience => "audience",
            Self::AuthorizedParty => "authorized_party",
            Self::Expiry => "expiry",
            Self::NotBefore => "not_before",
            Self::IssuedAt => "issued_at",
            Self::Session => "session",
            Self::Limits => "limits",
            Self::Revocation => "revocation",
            Self::Condition => "condition",
            Self::Scopes => "scopes",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not; the ladder ends here.
    Failed,
    /// An earlier check failed.
    NotReached,
}

/// One check of a ladder: how it ended, what was seen and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rung {
    /// The check.
    pub check: Check,
    /// How it ended.
    pub outcome: Outcome,
    /// What the token says. Never the token itself, a signature or a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// What would have passed. For operators: it is not told to a caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// The record of a verification as it climbs.
///
/// On the way of a request only the height is kept; [`Ladder::detailed`] also keeps what
/// each passed check saw.
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    detailed: bool,
    rungs: Vec<Rung>,
    failed: bool,
    height: Option<Check>,
}

impl Ladder {
    /// A ladder that keeps what each passed check saw and expected.
    pub fn detailed() -> Self {
        Self {
            detailed: true,
            ..Self::default()
        }
    }

    /// Notes a passed check; `told` gives what was seen and expected, where it is kept.
    #[inline]
    pub fn pass<S: Into<String>, E: Into<String>>(
        &mut self,
        check: Check,
        told: impl FnOnce() -> (S, E),
    ) {
        self.height = Some(check);
        if self.detailed {
            let (seen, expected) = told();
            self.push(check, Outcome::Passed, seen.into(), expected.into());
        }
    }

    /// Notes the check that failed.
    pub fn fail(&mut self, check: Check, seen: impl Into<String>, expected: impl Into<String>) {
        self.height = Some(check);
        self.failed = true;
        self.push(check, Outcome::Failed, seen.into(), expected.into());
    }

    fn push(&mut self, check: Check, outcome: Outcome, seen: String, expected: String) {
        self.rungs.push(Rung {
            check,
            outcome,
            seen: printable(&seen),
            expected: printable(&expected),
        });
    }

    /// The check that failed, with what was seen and expected.
    pub fn failure(&self) -> Option<&Rung> {
        self.rungs
            .last()
            .filter(|rung| rung.outcome == Outcome::Failed)
    }

    /// These checks, made in another order than [`Check::ALL`]'s and all kept: those that are
    /// not were not reached.
    pub fn rungs_of(&self, checks: &[Check]) -> Vec<Rung> {
        let rung = |check: &Check| {
            let kept = self.rungs.iter().find(|rung| rung.check == *check);
            kept.cloned().unwrap_or(Rung {
                check: *check,
                outcome: Outcome::NotReached,
                seen: None,
                expected: None,
            })
        };
        checks.iter().map(rung).collect()
    }

    /// Every check in order: passed up to the height, failed there, not reached above.
    pub fn rungs(&self) -> Vec<Rung> {
        Check::ALL
            .into_iter()
            .map(|check| {
                let kept = self.rungs.iter().find(|rung| rung.check == check);
                let outcome = match self.height {
                    Some(height) if check < height => Outcome::Passed,
                    Some(height) if check == height && self.failed => Outcome::Failed,
                    Some(height) if check == height => Outcome::Passed,
                    _ => Outcome::NotReached,
                };
                kept.cloned().unwrap_or(Rung {
                    check,
                    outcome,
                    seen: None,
                    expected: None,
                })
            })
            .collect()
    }
}

/// The text without control characters: what was seen comes from strangers, and goes to
/// logs and terminals.
fn printable(text: &str) -> Option<String> {
    let clean: String = text
        .chars()
        .map(|each| if each.is_control() { '\u{fffd}' } else { each })
        .collect();
    Some(clean).filter(|text| !text.is_empty())
}
