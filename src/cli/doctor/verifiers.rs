//! What those who verify our tokens can do with the chosen algorithm and times.
//!
//! What each verifier demands was measured, or read in its sources (docs/verifying.md).

use super::report::{Row, count, span};
use crate::config::Settings;
use crate::keys::jwk::algorithm_name;
use crate::keys::ring::Ring;
use crate::service::signing_algorithms;
use jsonwebtoken::Algorithm;

const CHECK: &str = "verifiers";
/// How long verifiers go by the key set that they have, seconds, though a token has a new `kid`.
const CACHES: [(&str, i64); 4] = [
    ("AWS HTTP API", 7200),
    ("Istio", 1200),
    ("Envoy", 600),
    ("Go keyfunc", 300),
];
/// Below this a key that was just made is refused by meshes: Istio's 20 minutes, and as long as
/// a kubelet may take with a Secret.
const LEAST_AHEAD: i64 = 1800;
/// The keys that jwks-rsa caches: one more than may be published.
const MOST_KEYS: usize = 4;

pub(super) fn look(settings: &Settings, ring: Option<&Ring>) -> Vec<Row> {
    let algorithms = signing_algorithms(settings).into_iter().map(of);
    let mut rows: Vec<Row> = algorithms.collect();
    rows.push(times(settings));
    let published = ring.map_or(0, |ring| ring.keys.len());
    if published > MOST_KEYS {
        let seen = format!("{} are published", count(published, "key"));
        rows.push(Row::warn(CHECK, seen).next(
            "jwks-rsa caches five, and fetches the others again and again: fewer algorithms, or a longer EXCHEQUER_KEY_ROTATE_EVERY beside EXCHEQUER_KEY_KEEP_AFTER",
        ));
    }
    rows
}

fn of(algorithm: Algorithm) -> Row {
    let name = algorithm_name(algorithm);
    let other = "EXCHEQUER_KEY_ALG, or `alg` of an app";
    match algorithm {
        Algorithm::RS256 => Row::ok(CHECK, format!("{name}: all that were tried take it")),
        Algorithm::EdDSA => Row::warn(
            CHECK,
            format!("{name}: Spring Security, Nimbus without Tink, Node's jsonwebtoken and jwks-rsa, get-jwks, python-jose and AWS HTTP APIs cannot verify it; Hasura calls it Ed25519"),
        )
        .next(format!("{other}: ES256 where one of these is yours")),
        _ => Row::info(
            CHECK,
            format!("{name}: an AWS HTTP API's authorizer cannot verify it; Spring with jwk-set-uri alone needs jws-algorithms: {name}; go-oidc needs discovery, or {name} in SupportedSigningAlgs"),
        )
        .next(format!("{other}: RS256 where the first is yours")),
    }
}

fn times(settings: &Settings) -> Row {
    let (ahead, after) = (settings.keys.publish_ahead, settings.keys.keep_after);
    let seen = format!(
        "a key is published {} before it signs, and {} after",
        span(ahead),
        span(after)
    );
    let late: Vec<String> = CACHES
        .iter()
        .filter(|(_, cached)| *cached > ahead)
        .map(|(who, cached)| format!("{who} ({})", span(*cached)))
        .collect();
    if late.is_empty() {
        let [(who, longest), ..] = CACHES;
        return Row::ok(
            CHECK,
            format!(
                "{seen}: {who}, which keeps a key set for {}, hears of it in time",
                span(longest)
            ),
        );
    }
    let seen = format!(
        "{seen}: after a rotation these refuse good tokens until they fetch the key set anew: {}",
        late.join(", ")
    );
    let next = "EXCHEQUER_KEY_PUBLISH_AHEAD: 24h unless set, 2h at least";
    match ahead {
        ..LEAST_AHEAD => Row::fail(CHECK, seen).next(next),
        _ => Row::warn(CHECK, seen).next(next),
    }
}
