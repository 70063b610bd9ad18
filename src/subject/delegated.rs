//! OAuth access tokens: what they must say beside what every subject token must, whether
//! signed (RFC 9068) or told by introspection (RFC 7662).

use super::Issuer;
use super::claims::{any_of, short_json};
use super::json::{Json, Object};
use crate::explain::{Check, Code, Ladder, Refusal};

type Refused = Box<Refusal>;

/// Whether it is a bearer access token of this issuer at all.
pub(super) fn check_kind(
    claims: &Object<'_>,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let identifier = &issuer.settings.issuer;
    let present = |name| claims.get(name).filter(|value| **value != Json::Null);
    let one_of = |name, words: &[&str]| {
        present(name).is_none_or(|value| {
            let text = value.as_str().unwrap_or_default();
            words.iter().any(|word| word.eq_ignore_ascii_case(text))
        })
    };
    let (code, name, expected) =
        if present("iss").is_some() && claims.text("iss") != Some(identifier) {
            (
                Code::SubjectTokenIssuerUntrusted,
                "iss",
                identifier.as_str(),
            )
        } else if present("cnf").is_some() {
            (Code::SubjectTokenSenderConstrained, "cnf", "a bearer token")
        } else if claims
            .text("token_type")
            .is_some_and(|text| text.eq_ignore_ascii_case("dpop"))
        {
            (
                Code::SubjectTokenSenderConstrained,
                "token_type",
                "a bearer token",
            )
        } else if !one_of("token_type", &["bearer", "access_token"]) {
            (Code::SubjectTokenTypeMismatch, "token_type", "Bearer")
        } else if !one_of("token_use", &["access_token"]) {
            // Ory Hydra introspects refresh tokens too, and says so here.
            (Code::SubjectTokenTypeMismatch, "token_use", "access_token")
        } else {
            return Ok(());
        };
    let seen = present(name).map(short_json).unwrap_or_default();
    ladder.fail(Check::Claims, format!("{name} {seen}"), expected);
    Err(Refusal::new(code))
}

/// Where the issuer has authorized parties, the client that the token was issued to must be
/// one (OpenID Connect Core §2: `azp` is a client id). The client that we introspect with is
/// our own, and so always one.
pub(super) fn check_client(
    claims: &Object<'_>,
    issuer: &Issuer,
    ladder: &mut Ladder,
) -> Result<(), Refused> {
    let parties = &issuer.settings.authorized_parties;
    let own = issuer.settings.introspection.as_ref();
    let own = own.map(|settings| settings.client_id.as_str());
    let client = claims.get("client_id");
    let known = |client: &str| Some(client) == own || parties.iter().any(|each| each == client);
    let (code, what) = match client {
        _ if parties.is_empty() => (None, ""),
        None | Some(Json::Null) => (
            Some(Code::SubjectTokenAuthorizedPartyMissing),
            "The token has no `client_id`, and this issuer's tokens must have one.",
        ),
        Some(Json::Text(client)) if known(client) => (None, ""),
        Some(_) => (
            Some(Code::SubjectTokenAuthorizedPartyMismatch),
            "The token's `client_id` is none of this issuer's authorized parties.",
        ),
    };
    let seen = client.map_or_else(
        || "client_id absent".to_owned(),
        |client| format!("client_id {}", short_json(client)),
    );
    if let Some(code) = code {
        ladder.fail(Check::AuthorizedParty, seen, any_of(parties));
        return Err(Refusal::because(code, what));
    }
    ladder.pass(Check::AuthorizedParty, || (seen, any_of(parties)));
    Ok(())
}
