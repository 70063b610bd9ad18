//! OAuth for clients of ours: who they are, and what they get at the token endpoint.

pub mod client_credentials;
pub mod clients;

use crate::config::Settings;
use crate::exchange::Exchange;
use clients::Clients;
use jsonwebtoken::Algorithm;
use std::sync::Arc;

/// The token endpoint's parts.
pub struct OAuth {
    /// Keys, store, limits and time are the exchange's.
    pub exchange: Arc<Exchange>,
    /// The registered clients.
    pub clients: Clients,
    /// What service tokens are signed with.
    algorithm: Algorithm,
}

impl OAuth {
    /// The token endpoint of these settings.
    pub fn new(exchange: Arc<Exchange>, settings: &Settings) -> Self {
        Self {
            exchange,
            clients: Clients::new(&settings.clients),
            algorithm: settings.keys.algorithm,
        }
    }
}
