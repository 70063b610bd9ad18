//! The `Cookie` headers of a request, a header a line: the session cookie, or why there is none.

#![no_main]

use exchequer::http::verify::session_cookie;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    match session_cookie(&headers) {
        Ok(value) => assert!(value.is_none_or(|value| !value.contains(';'))),
        Err(refusal) => assert!(matches!(refusal.code.entry().status, 400 | 401)),
    }
});
