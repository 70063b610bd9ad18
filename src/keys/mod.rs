//! Our keys: published before they sign, kept after they signed.
//!
//! [`ring`] is the state machine, [`lineage`] tells which of two rings comes after the other, and
//! [`seen`] which key a replica may sign with, all three pure; [`sealed`] is a ring's form at rest.
//! It lies in a folder so that no crash can harm it ([`mod@file`]), in Redis for all replicas
//! ([`shared`], and [`replica`], what one of them does about it), or in a Secret ([`mounted`]).
//! [`keeper`] moves it through time, and [`published`] is what comes out.

pub mod file;
pub mod jwk;
pub mod keeper;
pub mod lineage;
#[cfg(test)]
mod model;
pub mod mounted;
pub mod published;
pub mod replica;
pub mod ring;
pub mod sealed;
pub mod seen;
pub mod shared;

pub use keeper::{Keeper, RingPlace};
pub use published::{Published, Signer};
