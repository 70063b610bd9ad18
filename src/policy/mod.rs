//! What a subject gets: which app it is for, and what that app grants.
//!
//! Pure: nothing here does I/O, reads a clock or makes a random number.

pub mod app;
pub mod claims;
pub mod delegation;
pub mod limits;
mod profile;
pub mod scopes;

pub use app::{App, Apps, Grant};
pub use profile::Profile;
