//! OAuth for clients of ours: who they are, and what they get at the token endpoint.

pub mod assertion;
pub mod capabilities;
pub mod client_credentials;
pub mod clients;
pub mod codes;
pub mod introspection;
pub mod issued;
pub mod jwt_bearer;
mod nobody;
mod ours;
pub mod providers;
pub mod refresh;
pub mod registry;
pub mod revocation;
pub mod sign_in;
pub mod status_list;
pub mod token_exchange;

use crate::config::Settings;
use crate::exchange::{self, Caller, Exchange, Exchanged};
use crate::explain::{Ladder, Refusal};
use crate::subject::fetch::Fetcher;
use crate::telemetry::Metrics;
use clients::{Clients, Evidence, Party, Proof};
use issued::Issued;
use jsonwebtoken::Algorithm;
use providers::Provider;
use refresh::First;
use status_list::StatusList;
use std::collections::BTreeMap;
use std::sync::Arc;

type Refused = Box<Refusal>;

/// What is asked of the token endpoint, by its grant.
#[derive(Debug)]
pub enum Request<'r> {
    /// A client wants a token of its own (RFC 6749 §4.4).
    ClientCredentials(client_credentials::Wish<'r>),
    /// A party shows a refresh token (RFC 6749 §6).
    Refresh(refresh::Wish<'r>),
    /// A client has a token and wants another for it (RFC 8693).
    TokenExchange(token_exchange::Wish<'r>),
    /// An app has the code of a sign-in (RFC 6749 §4.1.3).
    AuthorizationCode(codes::Wish<'r>),
    /// Somebody has an issuer's word for a user (RFC 7523 §2.1).
    JwtBearer(jwt_bearer::Wish<'r>),
}

impl Request<'_> {
    /// What a bad credential of the user is called: the client's own is `invalid_client`.
    fn refused_as(&self) -> &'static str {
        match self {
            Self::TokenExchange(_) => "invalid_request",
            Self::ClientCredentials(_)
            | Self::Refresh(_)
            | Self::AuthorizationCode(_)
            | Self::JwtBearer(_) => "invalid_grant",
        }
    }
}

/// The token endpoint's parts.
pub struct OAuth {
    /// Keys, store, limits and time are the exchange's.
    pub exchange: Arc<Exchange>,
    /// The registered clients.
    pub clients: Arc<Clients>,
    /// What verifiers are shown of revocations.
    status_list: StatusList,
    /// The providers that users sign in at, by their names.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// What service tokens are signed with.
    algorithm: Algorithm,
}

impl OAuth {
    /// The token endpoint of these settings.
    pub fn new(
        exchange: Arc<Exchange>,
        clients: Arc<Clients>,
        settings: &Settings,
        fetcher: &Fetcher,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let providers = settings.providers.iter().map(|(name, settings)| {
            let provider = Provider::new(settings, fetcher, &exchange.clock, metrics);
            (name.clone(), Arc::new(provider))
        });
        Self {
            providers: providers.collect(),
            exchange,
            clients,
            status_list: StatusList::default(),
            algorithm: service_algorithm(settings),
        }
    }

    /// Gives a token to whoever proves itself and may have it.
    pub async fn token(
        &self,
        proof: Result<Proof<'_>, Refused>,
        request: Result<Request<'_>, Refused>,
        caller: Caller<'_>,
    ) -> Result<Issued, Refused> {
        let refused_as = request.as_ref().ok().map(Request::refused_as);
        let issued = async {
            let request = request?;
            if let Request::JwtBearer(wish) = &request
                && wish.anonymous
            {
                return Box::pin(self.jwt_bearer(None, wish, caller)).await;
            }
            let party = self.authenticate(&proof?).await?;
            // Boxed, as the ways of an exchange are.
            match request {
                Request::ClientCredentials(wish) => {
                    Box::pin(self.client_credentials(party, &wish, caller)).await
                }
                Request::Refresh(wish) => Box::pin(self.refresh(party, &wish, caller)).await,
                Request::JwtBearer(wish) => {
                    Box::pin(self.jwt_bearer(Some(party), &wish, caller)).await
                }
                Request::TokenExchange(wish) => {
                    Box::pin(self.token_exchange(party, &wish, caller)).await
                }
                Request::AuthorizationCode(wish) => {
                    Box::pin(self.authorization_code(party, &wish, caller)).await
                }
            }
        };
        match issued.await {
            Ok(issued) => Ok(issued),
            Err(refusal) => {
                let mut refusal = Box::pin(self.exchange.counted(refusal, caller)).await;
                refusal.as_grant = refused_as;
                Err(refusal)
            }
        }
    }

    /// Who asks. An app's name proves nothing, nor does a public client's id: what they ask
    /// with must.
    pub async fn authenticate(&self, proof: &Proof<'_>) -> Result<Party, Refused> {
        if let (Evidence::None, Some(id)) = (&proof.evidence, &proof.id)
            && let Some(app) = self.exchange.apps.get(id)
        {
            return Ok(Party::App(Arc::clone(app)));
        }
        self.clients.authenticate(proof).await
    }

    /// Exchanges for a party of the token endpoint, or for the app itself where nobody says who
    /// asks, with a refresh token where one is asked for.
    async fn exchanged(
        &self,
        request: exchange::Request<'_>,
        party: Option<Party>,
    ) -> Result<Issued, Refused> {
        let first = refresh::asks_offline(&request.wish).then(First::new);
        let grant = first.as_ref().map(First::grant);
        let request = exchange::Request {
            keep: request.keep || first.is_some(),
            grant_id: grant.as_deref(),
            ..request
        };
        let exchanged = self.exchange.climb(request, &mut Ladder::default()).await?;
        let party = party.unwrap_or_else(|| Party::App(Arc::clone(&exchanged.app)));
        self.issue(exchanged, first, party).await
    }

    /// What a party of the token endpoint gets of an exchange.
    async fn issue(
        &self,
        mut exchanged: Box<Exchanged>,
        first: Option<First>,
        party: Party,
    ) -> Result<Issued, Refused> {
        let begun = match (exchanged.kept.take(), first) {
            (Some(kept), Some(first)) => self.begin_with(&exchanged, kept, first, &party).await?,
            _ => None,
        };
        let keys = self.exchange.keys.published();
        let issuer = &exchanged.issuer.settings.issuer;
        let session = exchanged.session_id.as_deref();
        let session = session.map(|session| keys.pseudonym(issuer, session));
        let mut issued = Issued::of(exchanged, party, session);
        issued.refresh_token = begun.map(|begun| begun.token);
        Ok(issued)
    }
}

/// What service tokens are signed with: the ring has keys of the apps' algorithms, and of the
/// default one where a client of the file wants it. A client that is registered later takes
/// what there is.
fn service_algorithm(settings: &Settings) -> Algorithm {
    let default = settings.keys.algorithm;
    let mut clients = settings.clients.values();
    let mut apps = settings.apps.iter().map(|app| app.algorithm);
    if clients.any(|client| !client.audiences.is_empty()) || apps.clone().any(|app| app == default)
    {
        return default;
    }
    apps.next().unwrap_or(default)
}
