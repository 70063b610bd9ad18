//! `client_credentials` (RFC 6749 §4.4): a backend gets a token of its own to call another.

use super::OAuth;
use super::clients::{Client, Party};
use super::issued::{Issued, token_type};
use crate::config::DpopSettings;
use crate::dpop;
use crate::exchange::Caller;
use crate::explain::{Code, Limit, Refusal};
use crate::policy::app::Place;
use crate::policy::limits::Takes;
use crate::policy::scopes;
use crate::store::StoreError;
use crate::token::mint::signer;
use crate::token::{ServiceGrant, mint_service};
use std::sync::Arc;

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Wish<'r> {
    /// `audience` and `resource` (RFC 8707): whom it wants to call; the client's first where
    /// there is none.
    pub audiences: Vec<&'r str>,
    /// `scope`, where there is one.
    pub scope: Option<&'r str>,
}

impl OAuth {
    /// Issues a service token to a client that proved itself.
    pub(super) async fn client_credentials(
        &self,
        party: Party,
        wish: &Wish<'_>,
        caller: Caller<'_>,
    ) -> Result<Issued, Box<Refusal>> {
        let Party::Client(client) = party else {
            return Err(Refusal::new(Code::ClientAuthenticationMissing));
        };
        let client = &client;
        let limit = self.limited(client, caller).await?;
        let exchange = &self.exchange;
        let now = exchange.clock.now();
        let audience = audience(client, &wish.audiences)?;
        let scope = scope(client, wish.scope)?;
        let keys = exchange.keys.published();
        // A client that has a key binds its token to it by sending a proof.
        let proof = dpop::prove(caller.proof, None, DpopSettings::default(), &keys, now)?;
        let signer = signer(&keys, self.algorithm)?;
        let grant = ServiceGrant {
            client: &client.id,
            audience,
            scope: scope.as_deref().filter(|_| !client.scopes.is_empty()),
            expires_at: now + client.settings.ttl,
            place: None,
            bound_to: proof.as_ref().map(|proof| proof.thumbprint.as_str()),
        };
        let mint = |place: Option<Place>| {
            let grant = ServiceGrant {
                place: place.as_ref(),
                ..grant
            };
            mint_service(&exchange.issuer, &grant, now, signer)
        };
        let token = if client.settings.status_list {
            Box::pin(exchange.listed(None, None, grant.expires_at, now, mint)).await?
        } else {
            mint(None).map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?
        };
        if let Some(proof) = &proof {
            proof.use_up(&exchange.store, now).await?;
        }
        Ok(Issued {
            token,
            token_type: token_type(proof.as_ref()),
            issued_token_type: None,
            expires_in: client.settings.ttl,
            audience: audience.to_owned(),
            scope,
            refresh_token: None,
            proof,
            limit,
            party: Party::Client(Arc::clone(client)),
            about: None,
            signer: Arc::clone(signer),
        })
    }

    async fn limited(
        &self,
        client: &Client,
        caller: Caller<'_>,
    ) -> Result<Option<Limit>, Box<Refusal>> {
        let exchange = &self.exchange;
        let network = caller.network();
        let who = ["client", &client.id];
        let takes = Takes::of(exchange.limits.as_ref(), &who, network.as_deref());
        let answer = exchange.take(&takes).await.map_err(StoreError::refusal)?;
        takes.judge(&answer.levels)
    }
}

/// The one audience of a token: a backend that is called could send a token for two to the
/// other.
fn audience<'c>(client: &'c Client, asked: &[&str]) -> Result<&'c String, Box<Refusal>> {
    let known = &client.settings.audiences;
    let first = known
        .first()
        .ok_or_else(|| Refusal::new(Code::ClientNotAllowed))?;
    let Some(wanted) = asked.first() else {
        return Ok(first);
    };
    if asked.iter().any(|each| each != wanted) {
        return Err(Refusal::because(
            Code::AudienceNotAllowed,
            "A service token has one audience: ask for a token for each.",
        ));
    }
    known.iter().find(|each| each == wanted).ok_or_else(|| {
        Refusal::because(
            Code::AudienceNotAllowed,
            "The client may not ask for this audience.",
        )
        .caused_by(format!("{} may ask for {}", client.id, known.join(", ")))
    })
}

/// The scopes, narrowed to the client's. A client that gets none of those that it asked for is
/// told so at once (RFC 6749 §5.2): nobody is there to look at an answer's `scope`.
fn scope(client: &Client, asked: Option<&str>) -> Result<Option<String>, Box<Refusal>> {
    if client.scopes.is_empty() && asked.is_none() {
        return Ok(None);
    }
    let granted = scopes::grant(&client.scopes, asked, None, |_| Ok(true));
    if asked.is_some() && granted.names.is_empty() {
        let known: Vec<&str> = client
            .scopes
            .iter()
            .map(|scope| scope.name.as_str())
            .collect();
        return Err(Refusal::new(Code::ScopeNotAllowed).caused_by(format!(
            "{} may ask for {}",
            client.id,
            known.join(" ")
        )));
    }
    Ok(Some(granted.names))
}
