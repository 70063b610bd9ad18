//! How a client says who it is (RFC 6749 §2.3): in the Authorization header or in the form, in
//! one of the two.

use super::form::Form;
use crate::explain::{Code, Refusal};
use crate::oauth::clients::{Evidence, Proof};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::form_urlencoded;

/// What the client proves itself with.
pub(super) fn proof<'r>(
    headers: &'r HeaderMap,
    form: &'r Form<'_>,
) -> Result<Proof<'r>, Box<Refusal>> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else {
        let id = id.ok_or_else(|| Refusal::new(Code::ClientAuthenticationMissing))?;
        return Ok(Proof {
            id: id.into(),
            evidence: secret.map_or(Evidence::None, |secret| Evidence::Secret {
                forms: vec![secret.into()],
            }),
        });
    };
    let several = || {
        Refusal::because(
            Code::SeveralCredentials,
            "The client authenticates in more than one way, or as more than one client.",
        )
    };
    if all.next().is_some() || secret.is_some() {
        return Err(several());
    }
    let proof = basic(header).ok_or_else(|| {
        Refusal::because(
            Code::ClientAuthenticationMissing,
            "The Authorization header is not `Basic`, a client id and its secret.",
        )
    })?;
    if id.is_some_and(|id| id != proof.id) {
        return Err(several());
    }
    Ok(proof)
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
        id: decoded(id).into(),
        evidence: Evidence::Secret {
            forms: vec![secret.to_owned().into(), decoded(secret).into()],
        },
    })
}
