//! Clerk: what its session tokens say, and its Backend API.

pub mod api;
pub(super) mod instance;
pub mod session;
pub(super) mod session_claims;
