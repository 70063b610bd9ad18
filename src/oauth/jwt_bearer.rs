//! A JWT as an authorization grant (RFC 7523 §2.1): an issuer that an app trusts vouches for a
//! user, to this service and once.
//!
//! An identity assertion grant (draft-ietf-oauth-identity-assertion-authz-grant-04) is for one
//! client alone, which must prove itself, and bounds what it gets. What is read here before it
//! is verified only ever narrows what is asked for.

use super::OAuth;
use super::clients::Party;
use super::issued::Issued;
use crate::exchange::{self, Caller, Credential};
use crate::explain::{Code, Refusal};
use crate::policy::app::Wish as Asked;
use crate::policy::delegation::Acting;
use crate::policy::scopes;
use crate::subject::assertion::ID_JAG;
use crate::subject::json::{Json, Object};
use crate::subject::jws::Decoded;

type Refused = Box<Refusal>;

/// What a client asks for with an assertion; its `Debug` does not show it.
pub struct Wish<'r> {
    /// The assertion, as it was sent.
    pub assertion: &'r str,
    /// The app, where the request names one.
    pub app: Option<&'r str>,
    /// `audience` and `resource` (RFC 8707).
    pub audiences: Vec<&'r str>,
    /// `scope`, where there is one.
    pub scope: Option<&'r str>,
    /// Whether the request says nothing of a client, which it need not (RFC 7523 §3.1).
    pub anonymous: bool,
}

impl std::fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wish(…)")
    }
}

/// What an identity assertion grant allows.
struct Bounds {
    client: Option<String>,
    /// Where it names some.
    resources: Option<Vec<String>>,
    /// Where it names some.
    scope: Option<String>,
}

impl OAuth {
    /// Gives a token for an assertion; `party` is nobody where nobody says who asks.
    pub(super) async fn jwt_bearer(
        &self,
        party: Option<Party>,
        wish: &Wish<'_>,
        caller: Caller<'_>,
    ) -> Result<Issued, Refused> {
        let bounds = Bounds::of(wish.assertion)?;
        if let Some(bounds) = &bounds {
            let client = match &party {
                Some(Party::Client(client)) => Some(&client.id),
                _ => None,
            };
            if client.is_none() || client != bounds.client.as_ref() {
                return Err(Refusal::new(Code::AssertionClientMismatch));
            }
        }
        let audiences = audiences(bounds.as_ref(), &wish.audiences)?;
        let scope = scope(bounds.as_ref(), wish.scope)?;
        let itself = party.as_ref().map(|party| self.party_itself(party));
        let apps = party.as_ref().map(Party::apps);
        if apps.is_some_and(<[String]>::is_empty) {
            return Err(Refusal::new(Code::ExchangeNotAllowed));
        }
        let request = exchange::Request {
            credential: Credential::Assertion {
                token: wish.assertion,
                id_jag: bounds.is_some(),
            },
            wish: Asked {
                app: wish.app,
                among: apps,
                audiences: &audiences,
                scope: scope.as_deref(),
                acting: itself.as_ref().map_or(Acting::Nobody, Acting::Unnamed),
            },
            caller,
            keep: false,
            grant_id: None,
        };
        let mut issued = self.exchanged(request, party.clone()).await?;
        // RFC 6749 §5.1: where less is granted than was asked for, the answer says so.
        if wish.scope.is_some() {
            issued.scope.get_or_insert_default();
        }
        Ok(issued)
    }
}

impl Bounds {
    /// Reads them, where the assertion is of that type. One that cannot be read at all has none:
    /// it is refused by whoever verifies it.
    fn of(assertion: &str) -> Result<Option<Self>, Refused> {
        let Ok(decoded) = Decoded::of(assertion) else {
            return Ok(None);
        };
        let (header, claims) = (
            Object::parse(&decoded.header),
            Object::parse(&decoded.claims),
        );
        let (Ok(header), Ok(claims)) = (header, claims) else {
            return Ok(None);
        };
        let typ = header.text("typ").unwrap_or_default().to_ascii_lowercase();
        if typ.strip_prefix("application/").unwrap_or(&typ) != ID_JAG {
            return Ok(None);
        }
        let malformed = |name: &str| {
            Refusal::because(
                Code::AssertionClaimMissing,
                format!("The assertion has no `{name}` that can be used."),
            )
        };
        let text = |name| match claims.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(malformed(name)),
        };
        let texts = |list: &[Json<'_>]| -> Option<Vec<String>> {
            let texts = list.iter().map(|each| each.as_str().map(str::to_owned));
            texts
                .collect::<Option<Vec<_>>>()
                .filter(|list| !list.is_empty())
        };
        let resources = match claims.get("resource") {
            Some(Json::List(list)) => Some(texts(list).ok_or_else(|| malformed("resource"))?),
            _ => text("resource")?.map(|resource| vec![resource]),
        };
        Ok(Some(Self {
            client: text("client_id")?,
            resources,
            scope: text("scope")?,
        }))
    }
}

/// Whom the token is to be for: what is asked for, which must be allowed; else what is allowed.
fn audiences<'r>(bounds: Option<&'r Bounds>, asked: &[&'r str]) -> Result<Vec<&'r str>, Refused> {
    let Some(allowed) = bounds.and_then(|bounds| bounds.resources.as_ref()) else {
        return Ok(asked.to_vec());
    };
    if asked.is_empty() {
        return Ok(allowed.iter().map(String::as_str).collect());
    }
    if !asked
        .iter()
        .all(|each| allowed.iter().any(|known| known == each))
    {
        return Err(Refusal::because(
            Code::AudienceNotAllowed,
            "The assertion is not for this resource.",
        ));
    }
    Ok(asked.to_vec())
}

/// The scopes that are asked for, of those that are allowed; none of them is refused, for asking
/// for nothing is asking for all. No refresh token is given: whoever vouched is asked again.
fn scope(bounds: Option<&Bounds>, asked: Option<&str>) -> Result<Option<String>, Refused> {
    let asked = asked.map(scopes::online);
    let Some(allowed) = bounds.and_then(|bounds| bounds.scope.as_deref()) else {
        return Ok(asked);
    };
    let allowed = scopes::online(allowed);
    let asked = asked.filter(|asked| !asked.is_empty());
    let left: Vec<&str> = scopes::words(asked.as_deref().unwrap_or(&allowed))
        .filter(|name| scopes::words(&allowed).any(|each| each == *name))
        .collect();
    if left.is_empty() {
        return Err(Refusal::because(
            Code::ScopeNotAllowed,
            "The assertion allows none of these scopes.",
        ));
    }
    Ok(Some(left.join(" ")))
}
