//! `X-Forwarded-For`, a header a line: what a client wrote left of the proxies changes nothing.

#![no_main]

use exchequer::http::caller::client;
use http::header::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let proxies = ["10.0.0.0/8".parse().unwrap()];
    let peer = "10.0.0.1".parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let _ = client(peer, &headers, &proxies);
    // The nearest proxy's word.
    headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
    assert_eq!(
        client(peer, &headers, &proxies),
        Some("203.0.113.9".parse().unwrap())
    );
    // And nobody's, where no proxy stands between.
    let stranger = "203.0.113.10".parse().unwrap();
    assert_eq!(client(stranger, &headers, &proxies), Some(stranger));
});
