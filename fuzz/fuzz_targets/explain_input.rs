//! What somebody pastes into `exchequer explain`: told what it is, and hinted at for every code.
//! Nothing panics, no control character comes out, and hidden values stay hidden.

#![no_main]

use exchequer::config::{Settings, Sources, load};
use exchequer::diagnosis::of_answer;
use exchequer::explain::foreign::is_assertion;
use exchequer::explain::hints::Case;
use exchequer::explain::input::Input;
use exchequer::explain::say::Names;
use exchequer::explain::{Check, Code};
use exchequer::subject::jws::Decoded;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let variables = [
        ("CLERK_JWT_ISSUER", "https://clerk.example.com"),
        ("CLERK_JWT_AUDIENCE", "web"),
        ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
    ];
    let sources = Sources {
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Sources::default()
    };
    load(&sources).0.expect("a good configuration")
});

fuzz_target!(|bytes: &[u8]| {
    let pasted = String::from_utf8_lossy(bytes);
    let input = Input::read(&pasted);
    let _ = is_assertion(&input.text);
    if let Some(report) = of_answer(&input) {
        for redact in [false, true] {
            let _ = report.text(redact);
            assert!(!report.json(redact).to_string().contains(char::is_control));
        }
    }
    let Ok(decoded) = Decoded::of(&input.text) else {
        return;
    };
    let part = |bytes| serde_json::from_slice(bytes).unwrap_or_default();
    let (header, claims) = (part(&decoded.header), part(&decoded.claims));
    let case = Case {
        settings: &SETTINGS,
        header: &header,
        claims: &claims,
        app: None,
        audience: None,
        now: 1_763_700_000,
    };
    let unreached = Check::ALL
        .into_iter()
        .flat_map(|check| case.unreached(check));
    let hints = Code::ALL.iter().flat_map(|code| case.hints(*code));
    let (open, hidden) = (&mut Names::new(false), &mut Names::new(true));
    let issuer = claims
        .get("iss")
        .and_then(|iss| iss.as_str())
        .unwrap_or_default();
    for said in unreached.chain(hints) {
        assert!(!said.shown(open).contains(char::is_control));
        let shown = said.shown(hidden);
        // Longer than any of our own words.
        assert!(issuer.len() < 60 || issuer.contains(' ') || !shown.contains(issuer));
    }
});
