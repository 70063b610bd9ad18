//! The body of `POST /auth/exchange`, with and without a bearer token beside it.

#![no_main]

use exchequer::http::exchange::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for bearer in [None, Some("a.b.c".to_owned())] {
        if let Err(refusal) = read(body, bearer) {
            assert_eq!(refusal.code.entry().status, 400);
        }
    }
});
