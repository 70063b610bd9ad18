//! What no log line may hold, whatever a test does: every line that any service of the suite
//! writes is looked at.

/// What secrets begin with, and user ids, which logs show as pseudonyms alone.
const PREFIXES: [&str; 8] = [
    "sk_test_", "sk_live_", "whsec_", "oat_", "mt_", "ak_", "user_", "ert_",
];

/// What is random or a hash in base64url, and how long it is.
const RANDOM: [(&str, usize); 7] = [
    ("request_id", 16),
    ("id", 16),
    ("jti", 22),
    ("subject", 12),
    ("session", 12),
    ("kid", 43),
    ("token_sha256", 43),
];

/// The first token, secret or e-mail address of a line.
pub fn leak(line: &str) -> Option<&str> {
    let of_word = |each: char| each.is_ascii_alphanumeric() || "_-.@+=/".contains(each);
    line.split(|each| !of_word(each)).find(|word| {
        let token = word.len() > 40 && word.starts_with("eyJ") && word.contains('.');
        let secret = PREFIXES.iter().any(|prefix| {
            word.match_indices(prefix).any(|(at, _)| {
                let rest = &word[at + prefix.len()..];
                // A refresh token goes on in base64url.
                let goes_on = |byte: &u8| {
                    byte.is_ascii_alphanumeric() || (*prefix == "ert_" && b"-_".contains(byte))
                };
                rest.bytes().take_while(goes_on).count() >= 8
                    && !word[..at].ends_with(|each: char| each.is_ascii_alphanumeric())
            })
        });
        let address = word.split_once('@').is_some_and(|(user, host)| {
            user.starts_with(|each: char| each.is_ascii_alphabetic())
                && !user.contains('/')
                && host.contains('.')
        });
        // Random ones begin with `mt_` or `ak_` once in a hundred thousand.
        let random = secret
            && RANDOM.iter().any(|(member, length)| {
                let said = format!("\"{member}\":\"{word}\"");
                word.len() == *length && line.contains(&said)
            });
        token || (secret && !random) || address
    })
}

/// Asserts that no line leaks.
pub fn assert_kept(lines: &[String]) {
    for line in lines {
        assert!(
            leak(line).is_none(),
            "a log line holds {:?}: {line}",
            leak(line)
        );
    }
}

#[test]
fn leaks_are_seen() {
    for (line, leaks) in [
        (
            r#"{"seen":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIiwiaXNzIjoieCJ9.AAAA"}"#,
            true,
        ),
        (r#"{"cause":"sk_test_0123456789abcdef"}"#, true),
        (r#"{"cause":"key sk_live_0123456789"}"#, true),
        (r#"{"subject":"user_2abcdefghij"}"#, true),
        (r#"{"token":"oat_0123456789"}"#, true),
        (r#"{"seen":"ert_0-1_2-3_4"}"#, true),
        (r#"{"path":"/etc/cert_store_of_ours"}"#, false),
        (r#"{"to":"someone@example.com"}"#, true),
        (r#"{"request_id":"mt_45Mh5U97LlpX8"}"#, false),
        (r#"{"jti":"x","seen":"mt_45Mh5U97LlpX8"}"#, true),
        (r#"{"request_id":"mt_0123456789abcdefghijkl"}"#, true),
        (
            r#"{"issuer":"https://clerk.example.com","subject":"p-3f"}"#,
            false,
        ),
        (r#"{"cause":"the prefix oat_ says so"}"#, false),
    ] {
        assert_eq!(leak(line).is_some(), leaks, "{line}");
    }
}
