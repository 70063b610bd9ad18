//! Our keys: published before they sign, kept after they signed.
//!
//! [`ring`] is the state machine, pure; [`sealed`] its form at rest; [`mod@file`] puts that on a
//! disk so that no crash can harm it; [`keeper`] moves it through time.

pub mod file;
pub mod jwk;
pub mod keeper;
pub mod ring;
pub mod sealed;

pub use keeper::{Keeper, Published, Signer};
