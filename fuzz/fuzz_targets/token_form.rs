//! The body of `POST /oauth/token`, as a form and as JSON.

#![no_main]

use exchequer::http::form::Form;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for kind in ["application/x-www-form-urlencoded", "application/json"] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        match Form::read(&headers, bytes) {
            Ok(form) => {
                for name in ["grant_type", "subject_token", "audience", "resource"] {
                    let all = form.all(name).count();
                    assert!(all <= 64);
                    assert_eq!(form.get(name).is_some(), all > 0);
                    assert_eq!(form.required(name).is_ok(), all > 0);
                }
            }
            Err(refusal) => assert_eq!(refusal.code.entry().status, 400),
        }
    }
});
