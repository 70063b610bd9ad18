//! Tokens that only their issuer can read: it is asked what they say, and its word is judged
//! as a signed token's claims are.
//!
//! Whom to ask is told by the token's prefix and the configuration, never found by trying: a
//! token must not be shown to anybody but its issuer.

use super::claims::{self, Origin};
use super::clerk::tokens;
use super::json::Object;
use super::jws::MAX_TOKEN;
use super::{Issuer, Subject};
use crate::clock::UnixSeconds;
use crate::config::TokenKind;
use crate::explain::{Check, Code, Ladder, Refusal};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

type Refused = Box<Refusal>;

/// What each refresh token of ours begins with: "Exchequer refresh token".
pub const REFRESH_PREFIX: &str = "ert_";

/// What a token that is no JWT looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// Clerk's, of this kind.
    Clerk(TokenKind),
    /// A refresh token of ours, which nobody else may see.
    Refresh,
    /// Any authorization server's.
    Other,
}

impl Opaque {
    /// What the token looks like; `None` where it has the three parts of a JWT.
    pub fn of(token: &str) -> Option<Self> {
        let prefixes = [
            ("oat_", TokenKind::OAuth),
            ("mt_", TokenKind::Machine),
            ("ak_", TokenKind::ApiKey),
        ];
        let clerk = prefixes
            .into_iter()
            .find(|(prefix, _)| token.starts_with(prefix))
            .map(|(_, kind)| Self::Clerk(kind));
        match clerk {
            None if token.starts_with(REFRESH_PREFIX) => Some(Self::Refresh),
            None if token.bytes().filter(|byte| *byte == b'.').count() == 2 => None,
            None => Some(Self::Other),
            clerk => clerk,
        }
    }

    /// In words, for operators.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Clerk(TokenKind::OAuth) => "an OAuth access token of Clerk (oat_…)",
            Self::Clerk(TokenKind::Machine) => "a machine token of Clerk (mt_…)",
            Self::Clerk(TokenKind::ApiKey) => "an API key of Clerk (ak_…)",
            Self::Refresh => "a refresh token of this service (ert_…)",
            Self::Clerk(TokenKind::Session) | Self::Other => {
                "an opaque token without a known prefix"
            }
        }
    }
}

impl Opaque {
    /// Which settings take such a token, for operators.
    pub fn taken_by(self) -> &'static str {
        match self {
            Self::Clerk(TokenKind::OAuth) => {
                "a Clerk issuer with \"oauth\" in `accepts`, and `client_id` and `client_secret` (CLERK_OAUTH_CLIENT_ID, CLERK_OAUTH_CLIENT_SECRET) or `secret_key`"
            }
            Self::Clerk(TokenKind::Machine) => {
                "a Clerk issuer with \"m2m\" in `accepts`, and `secret_key`"
            }
            Self::Clerk(TokenKind::ApiKey) => {
                "a Clerk issuer with \"api_key\" in `accepts`, and `secret_key`"
            }
            Self::Refresh => "POST /oauth/token with grant_type=refresh_token",
            Self::Clerk(TokenKind::Session) | Self::Other => "an issuer of kind \"introspection\"",
        }
    }
}

/// What an issuer said of a token: perhaps personal data, so it has no `Debug`.
pub enum Told {
    /// It is active.
    Active {
        /// What it stands for: a JSON object.
        claims: Vec<u8>,
        /// Its `exp`, where it has one.
        expires_at: Option<UnixSeconds>,
    },
    /// It is not, and why.
    Not(Code),
}

impl Told {
    /// Its size in memory, about, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Active { claims, .. } => claims.len(),
            Self::Not(_) => 0,
        }
    }

    /// The claims of an active token.
    pub fn claims(&self, ladder: &mut Ladder) -> Result<Object<'_>, Refused> {
        match self {
            Self::Active { claims, .. } => {
                ladder.pass(Check::Signature, || ("active", "active"));
                Object::parse(claims)
                    .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))
            }
            Self::Not(code) => {
                ladder.fail(Check::Signature, code.entry().slug, "active");
                Err(Refusal::new(*code))
            }
        }
    }
}

/// Whether a token has the characters that one can have (RFC 6749 §A.12), and no more than
/// are read.
pub fn check_form(token: &str, ladder: &mut Ladder) -> Result<(), Refused> {
    if token.len() > MAX_TOKEN {
        let seen = format!("{} bytes", token.len());
        ladder.fail(Check::Form, seen, "at most 16 KiB");
        return Err(Refusal::new(Code::SubjectTokenTooLarge));
    }
    if !token.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        ladder.fail(Check::Form, "other characters", "printable ASCII");
        return Err(Refusal::because(
            Code::SubjectTokenMalformed,
            "The subject token has characters that no token has.",
        ));
    }
    Ok(())
}

/// The refusal of a kind that is not accepted: it names the setting.
pub fn not_accepted(kind: TokenKind) -> Refused {
    let name = kind.name();
    Refusal::because(
        Code::SubjectTokenKindNotAccepted,
        format!(
            "Tokens of this kind are not accepted here: the issuer's `accepts` lacks `{name}`."
        ),
    )
}

impl Issuer {
    /// The kinds that it takes, for operators.
    pub(super) fn accepted(&self) -> String {
        let names: Vec<&str> = self
            .settings
            .accepts
            .iter()
            .map(|kind| kind.name())
            .collect();
        format!("{} accepts {}", self.settings.name, names.join(", "))
    }

    /// Whether it can be asked about tokens of this kind.
    pub fn reads(&self, kind: TokenKind) -> bool {
        (kind == TokenKind::OAuth && self.introspection.is_some())
            || (self.is_clerk() && self.backend.is_some())
    }

    /// What it says of a token, perhaps a moment ago. `traceparent` (W3C Trace Context §3.2)
    /// is passed on.
    pub async fn look_up(
        self: &Arc<Self>,
        token: &str,
        kind: TokenKind,
        traceparent: Option<&str>,
        ladder: &mut Ladder,
    ) -> Result<Arc<Told>, Refused> {
        let ask = || {
            let (issuer, token) = (Arc::clone(self), SecretString::from(token));
            let trace = traceparent.map(str::to_owned);
            async move {
                let token = token.expose_secret();
                issuer.ask(token, kind, trace.as_deref()).await
            }
        };
        let told = self.answers.get(&self.settings.name, token, ask).await;
        told.inspect_err(|refusal| {
            ladder.fail(
                Check::Signature,
                refusal.code.entry().slug,
                "the issuer's answer",
            );
        })
    }

    async fn ask(
        &self,
        token: &str,
        kind: TokenKind,
        traceparent: Option<&str>,
    ) -> Result<Told, Refused> {
        match (&self.introspection, &self.backend) {
            (Some(introspection), _) if kind == TokenKind::OAuth => {
                introspection.ask(token, traceparent).await
            }
            (_, Some(backend)) => {
                tokens::verify(backend.asking(traceparent), self, token, kind).await
            }
            _ => Err(Refusal::new(Code::SubjectTokenKindNotAccepted)),
        }
    }
}

/// Judges what an issuer said of a token of this kind.
pub fn judge<'s>(
    claims: &'s Object<'s>,
    issuer: &'s Issuer,
    kind: TokenKind,
    now: UnixSeconds,
    ladder: &mut Ladder,
) -> Result<Subject<'s>, Refused> {
    claims::judge(claims, issuer, Origin::Told(kind), now, ladder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_by_its_prefix_and_its_dots() {
        for (token, expected) in [
            ("oat_x", Some(Opaque::Clerk(TokenKind::OAuth))),
            ("mt_x", Some(Opaque::Clerk(TokenKind::Machine))),
            ("ak_a/b+c=", Some(Opaque::Clerk(TokenKind::ApiKey))),
            ("ak_a.b.c", Some(Opaque::Clerk(TokenKind::ApiKey))),
            ("ert_x", Some(Opaque::Refresh)),
            ("ert_a.b.c", Some(Opaque::Refresh)),
            ("OAT_x", Some(Opaque::Other)),
            (" oat_x", Some(Opaque::Other)),
            ("x", Some(Opaque::Other)),
            ("a.b", Some(Opaque::Other)),
            ("a.b.c.d.e", Some(Opaque::Other)),
            ("a.b.c", None),
        ] {
            assert_eq!(Opaque::of(token), expected, "{token}");
        }
    }
}
