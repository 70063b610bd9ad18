//! Clerk: what its session tokens say, its Backend API, and what that says of other
//! tokens.

pub mod api;
pub mod id;
pub mod instance;
mod memberships;
pub mod session;
pub(super) mod session_claims;
pub(super) mod tokens;
