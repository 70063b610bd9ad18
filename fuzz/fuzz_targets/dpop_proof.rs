//! A DPoP proof as a stranger sends it. None that is made by chance verifies.

#![no_main]

use exchequer::dpop::{Shown, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|proof: &str| {
    let uris = ["https://auth.example.com/oauth/token".to_owned()];
    let shown = Shown {
        proof,
        method: "POST",
        uris: &uris,
        token: None,
    };
    if let Err(refusal) = verify(shown, None, 1_700_000_000) {
        assert!(matches!(refusal.code.entry().status, 400 | 401));
    }
});
