//! How a client says who it is (RFC 6749 §2.3, RFC 7523 §2.2): in the Authorization header, in
//! the form, or by an assertion, in one of these.

use super::form::Form;
use crate::explain::{Code, Refusal};
use crate::oauth::assertion::TYPE;
use crate::oauth::clients::{Evidence, Proof, Sent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use std::borrow::Cow;
use url::form_urlencoded;

/// What the client proves itself with.
pub(super) fn proof<'r>(
    headers: &'r HeaderMap,
    form: &'r Form<'_>,
) -> Result<Proof<'r>, Box<Refusal>> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let assertion = assertion(form)?;
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let header = all.next();
    let several = || {
        Refusal::because(
            Code::SeveralCredentials,
            "The client authenticates in more than one way, or as more than one client.",
        )
    };
    let ways = [header.is_some(), secret.is_some(), assertion.is_some()];
    if all.next().is_some() || ways.into_iter().filter(|there| *there).count() > 1 {
        return Err(several());
    }
    if let Some(header) = header {
        let proof = basic(header).ok_or_else(|| {
            Refusal::because(
                Code::ClientAuthenticationMissing,
                "The Authorization header is not `Basic`, a client id and its secret.",
            )
        })?;
        return match id {
            Some(id) if proof.id.as_deref() != Some(id) => Err(several()),
            _ => Ok(proof),
        };
    }
    let id = id.map(Cow::Borrowed);
    if let Some(assertion) = assertion {
        return Ok(Proof {
            id,
            evidence: Evidence::Assertion(assertion),
        });
    }
    let id = id.ok_or_else(|| Refusal::new(Code::ClientAuthenticationMissing))?;
    Ok(Proof {
        id: Some(id),
        evidence: secret.map_or(Evidence::None, |secret| Evidence::Secret {
            sent: Sent::Form,
            forms: vec![secret.into()],
        }),
    })
}

/// The assertion, where there is one, of the one type that there is (RFC 7523 §2.2).
fn assertion<'r>(form: &'r Form<'_>) -> Result<Option<&'r str>, Box<Refusal>> {
    let kind = form.get("client_assertion_type");
    match form.get("client_assertion") {
        None if kind.is_some() => Err(Refusal::because(
            Code::ClientAssertionMalformed,
            "The parameter `client_assertion` is missing.",
        )),
        Some(_) if kind != Some(TYPE) => Err(Refusal::because(
            Code::ClientAssertionMalformed,
            format!("The parameter `client_assertion_type` is not {TYPE}."),
        )),
        assertion => Ok(assertion),
    }
}

/// `Basic` (RFC 7617), each part form-encoded before (RFC 6749 §2.3.1). Many clients leave that
/// out, so a secret is taken both as it stands and decoded.
fn basic(header: &HeaderValue) -> Option<Proof<'static>> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| {
        let pairs = form_urlencoded::parse(part.as_bytes());
        let (name, _) = pairs.into_owned().next().unwrap_or_default();
        name
    };
    Some(Proof {
        id: Some(decoded(id).into()),
        evidence: Evidence::Secret {
            sent: Sent::Header,
            forms: vec![secret.to_owned().into(), decoded(secret).into()],
        },
    })
}
