//! The body of `POST /auth/exchange`, with and without a bearer token beside it.

#![no_main]

use exchequer::http::exchange::{read, request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let body = match read(bytes) {
        Ok(body) => body,
        Err(refusal) => return assert_eq!(refusal.code.entry().status, 400),
    };
    for bearer in [None, Some("a.b.c")] {
        if let Err(refusal) = request(&body, bearer).and(body.audience()) {
            assert_eq!(refusal.code.entry().status, 400);
        }
    }
});
