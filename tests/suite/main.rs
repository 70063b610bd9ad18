//! Black-box tests over HTTP against the built binary, one file a promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod architecture;
mod audit;
mod catalogue;
mod clerk_claims;
mod cli;
mod client_auth;
mod clients_cli;
mod codes;
mod config;
mod console;
mod cors;
mod dashboards;
mod discovery;
mod doctor;
mod doctor_public;
mod dpop;
mod dpop_gate;
mod exchange;
mod explain_foreign;
mod explain_hints;
mod explain_output;
mod explain_sign_in;
mod explained;
mod forged;
mod gateways;
mod http;
mod interop;
mod introspected;
mod introspection_endpoint;
mod jwt_bearer;
mod key_crash;
mod key_ring;
mod key_ring_mounted;
mod key_ring_shared;
mod key_set_life;
mod key_sets;
mod limits;
mod metadata_oauth;
mod misused;
mod multi_issuer;
mod oauth_clients;
mod observability;
mod opaque;
mod openapi;
mod overload;
mod policy;
mod profiles;
mod redis_client;
mod redis_keys;
mod reference;
mod refresh;
mod release;
mod replica_races;
mod revocation_endpoint;
mod scale;
mod scopes;
mod server;
mod service_tokens;
mod session_ids;
mod sign_in;
mod sign_in_providers;
mod sign_in_settings;
mod standin;
mod status_list;
mod store;
mod store_file;
mod store_redis;
mod store_shared;
mod stories;
mod support;
mod token_exchange;
mod traces;
mod verify;
mod webhooks;
