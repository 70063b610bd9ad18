//! A subject token as a stranger sends it: parsed, and shown back where it is refused.

#![no_main]

use exchequer::explain::{Code, Ladder, Refusal};
use exchequer::subject::jwt::Unverified;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &str| {
    let mut ladder = Ladder::default();
    match Unverified::parse(token, &mut ladder) {
        Ok(unverified) => {
            let _ = unverified.issuer();
            let _ = unverified.shown(Refusal::new(Code::SubjectTokenExpired));
        }
        Err(refusal) => assert!(matches!(refusal.code.entry().status, 400 | 401)),
    }
});
