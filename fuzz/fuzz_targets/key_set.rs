//! An issuer's key set: whatever stands in it, looking a key up finds one or says why not.

#![no_main]

use exchequer::subject::jwks::KeySet;
use jsonwebtoken::Algorithm;
use libfuzzer_sys::fuzz_target;

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fuzz_target!(|document: &[u8]| {
    let Ok(set) = KeySet::parse(document, &ALGORITHMS) else {
        return;
    };
    for (kid, _) in set.overview() {
        for algorithm in ALGORITHMS {
            let _ = set.find(kid, algorithm);
        }
    }
});
