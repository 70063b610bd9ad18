//! The Token Status List (draft-ietf-oauth-status-list-21): one bit for each token, so that
//! verifiers who ask nobody learn of revocations too.
//!
//! A token's place is drawn at random (§13.2), so that nobody reads from it when it was minted
//! or how many there are.

use super::claims::BACKDATE;
use super::mint::{MintFailed, sign};
use crate::clock::UnixSeconds;
use crate::keys::Signer;
use crate::policy::app::Place;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use serde::Serialize;

/// `typ` of a status list, and the last part of its content type (§5.1).
pub const TYPE: &str = "statuslist+jwt";
/// How many places it has: so many tokens may live at once.
pub const PLACES: u32 = 1 << 20;
/// For how long a verifier may keep it before it asks anew, seconds (`ttl`).
pub const TTL: UnixSeconds = 30;
/// For how long it may be believed by whoever cannot ask, seconds.
pub const LIFETIME: UnixSeconds = 300;
/// zlib's best compression, as §4.1 recommends.
const BEST: u8 = 9;

/// Where the list of this service is.
pub fn uri(issuer: &str) -> String {
    format!("{issuer}/.well-known/status-lists/1")
}

/// `status` of a token (§6.1).
#[derive(Serialize)]
pub(super) struct Status<'s> {
    pub(super) status_list: &'s Place,
}

#[derive(Serialize)]
struct List {
    bits: u8,
    lst: String,
}

#[derive(Serialize)]
struct Claims<'l> {
    iss: &'l str,
    sub: &'l str,
    iat: UnixSeconds,
    exp: UnixSeconds,
    ttl: UnixSeconds,
    status_list: List,
}

/// Signs the list in which these places are of revoked tokens; `uri` is where it is.
pub fn list(
    issuer: &str,
    uri: &str,
    revoked: &[u32],
    now: UnixSeconds,
    signer: &Signer,
) -> Result<String, MintFailed> {
    let claims = Claims {
        iss: issuer,
        sub: uri,
        iat: now - BACKDATE,
        exp: now + LIFETIME,
        ttl: TTL,
        status_list: List {
            bits: 1,
            lst: lst(revoked, PLACES),
        },
    };
    let claims = serde_json::to_vec(&claims).map_err(|_| MintFailed)?;
    sign(TYPE, &claims, signer)
}

/// One bit for each place, the first in the lowest bit of the first byte (§4.1).
fn lst(revoked: &[u32], places: u32) -> String {
    let mut bytes = vec![0_u8; places.div_ceil(8) as usize];
    for place in revoked {
        if let Some(byte) = bytes.get_mut((place / 8) as usize) {
            *byte |= 1 << (place % 8);
        }
    }
    URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(&bytes, BEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    fn bytes(lst: &str) -> Vec<u8> {
        decompress_to_vec_zlib(&URL_SAFE_NO_PAD.decode(lst).unwrap()).unwrap()
    }

    /// The example of §4.1, and of appendix C.1 with its million places.
    #[test]
    fn the_lists_of_the_draft_are_written() {
        let sixteen = [0, 3, 4, 5, 7, 8, 9, 13, 15];
        assert_eq!(bytes(&lst(&sixteen, 16)), [0xb9, 0xa3]);
        assert_eq!(bytes("eNrbuRgAAhcBXQ"), [0xb9, 0xa3]);
        let million = [
            0, 1993, 25460, 159_495, 495_669, 554_353, 645_645, 723_232, 854_545, 934_534,
            1_000_345,
        ];
        let theirs = "eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAAAAAAAAAAAAAAAJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb";
        assert_eq!(bytes(&lst(&million, PLACES)), bytes(theirs));
        assert!(lst(&million, PLACES).len() < 400);
    }
}
