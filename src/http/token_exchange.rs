//! The parameters of a token exchange (RFC 8693 §2.1), and of a JWT as a grant (RFC 7523 §2.1).

use super::form::Form;
use super::token::scope;
use crate::explain::{Code, Refusal};
use crate::oauth::issued::{ACCESS_TOKEN, ID_TOKEN, JWT};
use crate::oauth::jwt_bearer;
use crate::oauth::token_exchange::{Shown, TokenType, Wish};
use http::header::{AUTHORIZATION, HeaderMap};
use url::Url;

type Refused = Box<Refusal>;

/// What is asked for.
pub(super) fn wish<'f>(form: &'f Form<'_>) -> Result<Wish<'f>, Refused> {
    let subject = Shown {
        token: form.required("subject_token")?,
        kind: token_type("subject_token_type", form.required("subject_token_type")?)?,
    };
    let actor = match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => None,
        (Some(token), Some(kind)) => Some(Shown {
            token,
            kind: token_type("actor_token_type", kind)?,
        }),
        (Some(_), None) => return Err(one_of_two("actor_token_type")),
        (None, Some(_)) => return Err(one_of_two("actor_token")),
    };
    let issue = match form.get("requested_token_type") {
        None | Some(JWT) => JWT,
        Some(ACCESS_TOKEN) => ACCESS_TOKEN,
        Some(_) => return Err(Refusal::new(Code::RequestedTokenTypeUnsupported)),
    };
    Ok(Wish {
        subject,
        actor,
        issue,
        app: form.get("app"),
        audiences: audiences(form)?,
        scope: scope(form)?,
    })
}

/// What is asked for with an assertion; a client need not say who it is (RFC 7523 §3.1).
pub(super) fn jwt_bearer<'f>(
    headers: &HeaderMap,
    form: &'f Form<'_>,
) -> Result<jwt_bearer::Wish<'f>, Refused> {
    const CLIENT: [&str; 4] = [
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    ];
    let says = CLIENT.iter().any(|name| form.get(name).is_some());
    Ok(jwt_bearer::Wish {
        assertion: form.required("assertion")?,
        app: form.get("app"),
        audiences: audiences(form)?,
        scope: scope(form)?,
        anonymous: !says && !headers.contains_key(AUTHORIZATION),
    })
}

/// `audience` and `resource`; a resource is an absolute URI without a fragment (RFC 8707 §2).
fn audiences<'f>(form: &'f Form<'_>) -> Result<Vec<&'f str>, Refused> {
    let malformed = |resource: &&str| resource.contains('#') || Url::parse(resource).is_err();
    if form.all("resource").any(|resource| malformed(&resource)) {
        return Err(Refusal::new(Code::ResourceMalformed));
    }
    Ok(form.audiences())
}

fn token_type(name: &str, kind: &str) -> Result<TokenType, Refused> {
    match kind {
        JWT => Ok(TokenType::Jwt),
        ID_TOKEN => Ok(TokenType::IdToken),
        ACCESS_TOKEN => Ok(TokenType::AccessToken),
        _ => Err(Refusal::because(
            Code::SubjectTokenTypeUnsupported,
            format!("This `{name}` is not one that can be exchanged here."),
        )),
    }
}

fn one_of_two(name: &str) -> Refused {
    Refusal::because(
        Code::ParameterMalformed,
        format!("The parameter `{name}` is missing: an actor token goes with its type."),
    )
}
