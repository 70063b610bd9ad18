//! What we mint: the app JWT.

pub mod claims;
pub mod mint;
pub mod verify;

pub use mint::{AppToken, mint};
