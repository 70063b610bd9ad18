//! HTTP: bytes in, answers out. Nothing below knows of it.

pub mod admin;
pub mod answer;
pub mod audited;
pub mod body;
pub mod caller;
mod client;
pub mod cors;
mod dpop;
pub mod exchange;
pub mod form;
pub mod front;
mod headers;
mod identity_signature;
pub mod introspect;
mod log;
mod login;
pub mod metadata;
pub mod outcome;
pub mod resource;
pub mod revoke;
pub mod routes;
pub mod server;
pub mod status_list;
pub mod token;
mod token_exchange;
pub mod verify;
pub mod webhooks;
