//! `GET /openapi.json`: the whole public surface as an OpenAPI document, for whoever generates
//! a client or reads along.
//!
//! The document is the same in every configuration: it describes the product, so that a client
//! that was generated from one installation fits all of them. What is on here, the metadata
//! tells. Only the version and `servers`, which is the issuer, are put in.

use super::metadata::{self, CACHE, JSON};
use crate::crypto::sha256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::HeaderMap;
use serde_json::json;
use warp::reply::Response as Answer;

/// The document, but for what is put in.
const TEXT: &str = include_str!("openapi.json");
/// Where the version is put in.
const VERSION: &str = r#""version": "0.0.0""#;
/// Where the issuer is put in.
const SERVERS: &str = r#"[{"url": "http://localhost:8080"}]"#;

/// The document as it is served.
pub(super) struct Document {
    etag: String,
    text: Bytes,
}

impl Document {
    /// That of a service with this issuer.
    pub(super) fn new(issuer: &str) -> Self {
        let version = format!(r#""version": "{}""#, env!("CARGO_PKG_VERSION"));
        let servers = json!([{ "url": issuer }]).to_string();
        let text = TEXT.replacen(VERSION, &version, 1);
        let text = text.replacen(SERVERS, &servers, 1);
        Self {
            etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(sha256(text.as_bytes()))),
            text: text.into(),
        }
    }

    /// Answers with it, or with 304 where the reader has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Answer {
        metadata::document(headers, JSON, CACHE, &self.etag, &self.text)
    }
}
