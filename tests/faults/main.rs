//! What really happens to a service, made to happen: replicas that die, disks that fill, clocks
//! that disagree, a Redis that is gone, a provider that lies. Meanwhile clients that check every
//! answer.
//!
//! `make test` runs a few rounds of each; `make test-faults` all of them (`FAULT_ROUNDS=200`).
//! Each scenario prints its figures in a line, with the seed that chose its moments
//! (`FAULT_SEED=`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod balancer;
mod clocks;
mod disk;
mod figures;
mod kills;
mod load;
mod plan;
mod provider;
mod redis;
mod replicas;
mod rolling;
mod rotation;
/// Shared with the other tests, which use all of it.
#[allow(dead_code, unused_imports)]
#[path = "../suite/support/mod.rs"]
mod support;
mod world;
