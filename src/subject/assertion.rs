//! An assertion that is an authorization grant (RFC 7523 §2.1): a token that an issuer made for
//! this service, good for one use. Its signature, its times and its issuer are judged as those
//! of any token; here is what it must say besides (§3).
//!
//! One of type `oauth-id-jag+jwt` is an identity assertion grant
//! (draft-ietf-oauth-identity-assertion-authz-grant-04): made for one client, which its
//! `client_id` names, and for what its `resource` and `scope` say.

use super::json::Json;
use super::{Issuer, Subject};
use crate::clock::UnixSeconds;
use crate::config::IssuerSettings;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::store::{Key, Kind, Once};
use std::sync::Arc;

/// `typ` of an identity assertion grant.
pub const ID_JAG: &str = "oauth-id-jag+jwt";
/// The longest `jti`, in bytes.
const MAX_ID: usize = 255;

impl Issuer {
    /// The same issuer, by the rules for its assertions.
    pub(crate) fn of_assertions(&self) -> Self {
        Self {
            settings: IssuerSettings {
                // Looked at below: there must be one, and it must be this service.
                audiences: Vec::new(),
                authorized_parties: Vec::new(),
                token_types: vec!["JWT".to_owned(), ID_JAG.to_owned()],
                ..self.settings.clone()
            },
            keys: Arc::clone(&self.keys),
            backend: None,
            introspection: None,
            answers: Arc::clone(&self.answers),
        }
    }
}

/// Whether the verified assertion was made for this service, whose issuer identifier this is;
/// gives what is used up with it.
///
/// # Errors
/// Where it says somebody else, several, or no `jti`.
pub(crate) fn check(
    subject: &Subject<'_>,
    skew: UnixSeconds,
    id_jag: bool,
    ours: &str,
    ladder: &mut Ladder,
) -> Result<Once, Box<Refusal>> {
    let claims = subject.claims;
    let audience = match claims.get("aud") {
        Some(Json::Text(audience)) => Some(audience.as_ref()),
        Some(Json::List(list)) => match list.as_slice() {
            [Json::Text(audience)] => Some(audience.as_ref()),
            _ => None,
        },
        _ => None,
    };
    let endpoint = format!("{ours}/oauth/token");
    // A grant for one authorization server names that server, never a URL of it.
    let expected = if id_jag {
        vec![ours]
    } else {
        vec![ours, &endpoint]
    };
    if !audience.is_some_and(|audience| expected.contains(&audience)) {
        let seen = audience.unwrap_or("no aud, or not one");
        ladder.fail(Check::Audience, seen, expected.join(" or "));
        return Err(Refusal::new(Code::AssertionAudienceMismatch));
    }
    let mut missing = |name: &str| {
        ladder.fail(Check::Claims, format!("{name} is missing"), "jti, exp");
        Refusal::because(
            Code::AssertionClaimMissing,
            format!("The assertion has no `{name}` that can be used."),
        )
    };
    let usable = |id: &&str| !id.is_empty() && id.len() <= MAX_ID;
    let id = match claims.text("jti").filter(usable) {
        Some(_) if id_jag && !claims.has("iat") => return Err(missing("iat")),
        Some(id) => id,
        None => return Err(missing("jti")),
    };
    Ok(Once {
        // No client's: those are two parts.
        key: Key::of(Kind::AssertionUsed, &["grant", subject.issuer, id]),
        until: subject.expires_at.saturating_add(skew).saturating_add(1),
        since: Some(
            subject
                .issued_at
                .map_or(UnixSeconds::MIN, |iat| iat.saturating_sub(skew)),
        ),
    })
}
