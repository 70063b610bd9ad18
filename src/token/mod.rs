//! What we mint, the app JWT and the service token, and how it is read when it comes back.

pub mod claims;
pub mod mint;
pub mod read;
pub mod standing;
pub mod status_list;
pub mod verify;

pub use claims::{Carried, ServiceGrant};
pub use mint::{AppToken, mint, mint_again, mint_service};
