//! An app token that comes back, as a stranger sends it: parsed, its claims read, and shown back
//! where it is refused.

#![no_main]

use exchequer::explain::{Code, Ladder, Refusal};
use exchequer::subject::json::Object;
use exchequer::token::read::{Said, Unverified, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &str| {
    let mut ladder = Ladder::default();
    if let Ok(decoded) = decode(token, &mut ladder)
        && let Ok(unverified) = Unverified::parse(&decoded, &mut ladder)
    {
        if let Ok(said) = Said::read(unverified.claims()) {
            let _ = said.in_time(0, &mut ladder);
            let _ = said.standings().count();
        }
        let _ = unverified.shown(Refusal::new(Code::AppTokenExpired));
    }
    // The claims of a signed token come from an app's own expressions too.
    if let Ok(claims) = Object::parse(token.as_bytes())
        && let Ok(said) = Said::read(&claims)
    {
        let _ = said.in_time(i64::MAX, &mut ladder);
        let _ = said.standings().count();
    }
});
