//! Exchequer: *a subject token is verified by its issuer's keys, judged by the app's policy,
//! and becomes an app token signed by our keys.*
//!
//! The way of a request, forward only:
//! [`http`] → [`exchange`] → [`subject`] → [`policy`] → [`token`] with [`keys`] → [`http::answer`].
//!
//! Who may call whom: `cli, service, http, standin` → `diagnosis, webhooks, gate, exchange, oauth, dpop` →
//! `subject, policy, token, directory` → `keys, store` →
//! `redis_client, audit, standard_webhooks, explain, telemetry, crypto, clock, config`. Never upwards,
//! and in no circle; `tests/suite/architecture.rs` reads the `use` lines and holds it.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod diagnosis;
pub mod directory;
pub mod dpop;
pub mod exchange;
pub mod explain;
pub mod gate;
pub mod http;
pub mod keys;
pub mod oauth;
pub mod policy;
pub mod redis_client;
pub mod service;
pub mod standard_webhooks;
pub mod standin;
pub mod store;
pub mod subject;
pub mod telemetry;
pub mod token;
pub mod webhooks;
