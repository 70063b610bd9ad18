//! A subject token as a stranger sends it: parsed, and shown back where it is refused.

#![no_main]

use exchequer::explain::{Code, Ladder, Refusal};
use exchequer::subject::jwt::{Unverified, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &str| {
    let mut ladder = Ladder::default();
    let refused = |refusal: Box<Refusal>| {
        assert!(matches!(refusal.code.entry().status, 400 | 401));
    };
    let decoded = match decode(token, &mut ladder) {
        Ok(decoded) => decoded,
        Err(refusal) => return refused(refusal),
    };
    match Unverified::parse(&decoded, &mut ladder) {
        Ok(unverified) => {
            let _ = unverified.issuer();
            let _ = unverified.shown(Refusal::new(Code::SubjectTokenExpired));
        }
        Err(refusal) => refused(refusal),
    }
});
