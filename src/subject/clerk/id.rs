//! The shape of Clerk's ids: whatever else is sent in the place of one comes into no URL and
//! into no key of the store.

/// The longest id, in bytes.
const MAX_ID: usize = 64;

/// Whether Clerk could have made the id: its prefix, then ASCII letters and digits, 64 bytes
/// at most.
pub fn is_id(text: &str, prefix: &str) -> bool {
    text.len() <= MAX_ID
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_its_prefix_and_letters_and_digits() {
        let long = format!("user_{}", "a".repeat(59));
        let longer = format!("{long}a");
        for (id, fits) in [
            ("user_2abC", true),
            (&long, true),
            (&longer, false),
            ("user_", false),
            ("user_2/../../sessions", false),
            ("user_2?x=1", false),
            ("org_2abc", false),
            ("mch_2abc", false),
            ("", false),
        ] {
            assert_eq!(is_id(id, "user_"), fits, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_text_that_is_an_id_is_a_part_of_a_path(text in "(sess_)?\\PC{0,80}") {
            if is_id(&text, "sess_") {
                let base = url::Url::parse("https://api.example/v1/sessions/").unwrap();
                let whole = format!("https://api.example/v1/sessions/{text}");
                let joined = base.join(&text).unwrap();
                prop_assert_eq!(joined.as_str(), whole);
            }
        }
    }
}
