//! A client's assertion, and a JWT in the place of its secret, as a stranger sends them.

#![no_main]

use exchequer::oauth::assertion::{Assertion, Form, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &str| {
    let Ok(decoded) = decode(token) else {
        return;
    };
    for form in [Form::Assertion, Form::InSecret] {
        if let Ok(assertion) = Assertion::parse(&decoded, form) {
            assert!(!assertion.client().is_empty());
            let _ = assertion.other_reading("a secret");
        }
    }
});
