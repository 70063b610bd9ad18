//! By what two names differ that should be equal: the slip that is usually made, said in words.
//! Names are compared byte for byte everywhere else; here it is told why they are not equal.

use url::Url;

/// The usual difference between two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Blanks or quotes around one of them.
    Blanks,
    /// A slash at the end.
    Slash,
    /// `http` and `https`.
    Scheme,
    /// One has a scheme, the other is a bare host.
    NoScheme,
    /// Small and capital letters.
    Case,
    /// `www.` in front of the host.
    Www,
    /// The port.
    Port,
    /// The same host, another path.
    Path,
    /// A development instance of Clerk in the place of a production instance.
    Development,
    /// A production instance of Clerk in the place of a development instance.
    Production,
    /// Another development instance of Clerk.
    OtherDevelopment,
    /// A typing error.
    Typing,
}

/// What a host of a Clerk development instance ends in.
const DEVELOPMENT: &str = ".clerk.accounts.dev";

impl Difference {
    /// By what `seen` differs from `expected`, where that is a usual slip.
    pub fn between(seen: &str, expected: &str) -> Option<Self> {
        let bare = |text: &str| {
            text.trim_matches([' ', '\t', '\n', '\r', '"', '\''])
                .to_owned()
        };
        let slashless = |text: &str| text.trim_end_matches('/').to_owned();
        let schemeless = |text: &str| {
            let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
            rest.to_owned()
        };
        let same = |change: &dyn Fn(&str) -> String| change(seen) == change(expected);
        if seen == expected {
            return None;
        }
        if same(&bare) {
            return Some(Self::Blanks);
        }
        if same(&slashless) {
            return Some(Self::Slash);
        }
        if same(&|text| text.to_lowercase()) {
            return Some(Self::Case);
        }
        if same(&|text| schemeless(&slashless(text))) {
            let both = seen.contains("://") && expected.contains("://");
            return Some(if both { Self::Scheme } else { Self::NoScheme });
        }
        if let (Ok(seen), Ok(expected)) = (Url::parse(seen), Url::parse(expected))
            && let Some(difference) = Self::of_urls(&seen, &expected)
        {
            return Some(difference);
        }
        let near = strsim::damerau_levenshtein(seen, expected);
        let short = seen.chars().count().min(expected.chars().count()) < 8;
        (near <= if short { 1 } else { 3 }).then_some(Self::Typing)
    }

    fn of_urls(seen: &Url, expected: &Url) -> Option<Self> {
        let (one, other) = (seen.host_str()?, expected.host_str()?);
        let www = |host: &str| host.trim_start_matches("www.").to_owned();
        if one == other {
            let ports = seen.port_or_known_default() != expected.port_or_known_default();
            return Some(if ports { Self::Port } else { Self::Path });
        }
        if www(one) == www(other) {
            return Some(Self::Www);
        }
        let clerk = |host: &str| host.starts_with("clerk.");
        match (one.ends_with(DEVELOPMENT), other.ends_with(DEVELOPMENT)) {
            (true, true) => Some(Self::OtherDevelopment),
            (true, false) if clerk(other) => Some(Self::Development),
            (false, true) if clerk(one) => Some(Self::Production),
            _ => None,
        }
    }

    /// The one of `expected` that `seen` is nearest to, and by what they differ.
    pub fn nearest<'e>(
        seen: &str,
        expected: impl IntoIterator<Item = &'e str>,
    ) -> Option<(&'e str, Self)> {
        let near = expected
            .into_iter()
            .filter_map(|each| Some((each, Self::between(seen, each)?)));
        near.min_by_key(|(each, difference)| {
            (
                *difference as usize,
                strsim::damerau_levenshtein(seen, each),
            )
        })
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Blanks => "blanks or quotes around one of them make the difference",
            Self::Slash => "a slash at the end makes the difference",
            Self::Scheme => "http for https, or the other way round",
            Self::NoScheme => "one has a scheme (https://), the other is a bare host",
            Self::Case => "small and capital letters make the difference",
            Self::Www => "`www.` makes the difference",
            Self::Port => "the port makes the difference",
            Self::Path => "the path makes the difference",
            Self::Development => {
                "a development instance of Clerk, where a production instance is configured"
            }
            Self::Production => {
                "a production instance of Clerk, where a development instance is configured"
            }
            Self::OtherDevelopment => "another development instance of Clerk",
            Self::Typing => "nearly equal",
        }
    }

    /// Whether the two are two instances, and no slip in one name.
    pub fn is_instance(self) -> bool {
        matches!(
            self,
            Self::Development | Self::Production | Self::OtherDevelopment
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usual_slip_is_named() {
        use Difference::{
            Blanks, Case, Development, NoScheme, OtherDevelopment, Path, Port, Production, Scheme,
            Slash, Typing, Www,
        };
        let production = "https://clerk.example.com";
        for (seen, expected, difference) in [
            (production, production, None),
            ("\"web\"", "web", Some(Blanks)),
            ("https://clerk.example.com/", production, Some(Slash)),
            ("http://clerk.example.com", production, Some(Scheme)),
            ("http://clerk.example.com/", production, Some(Scheme)),
            ("clerk.example.com", production, Some(NoScheme)),
            ("Web", "web", Some(Case)),
            ("https://www.example.com", "https://example.com", Some(Www)),
            ("http://localhost:5173", "http://localhost:3000", Some(Port)),
            ("https://a.example/x", "https://a.example/y", Some(Path)),
            (
                "https://kind-cat-1.clerk.accounts.dev",
                production,
                Some(Development),
            ),
            (
                production,
                "https://kind-cat-1.clerk.accounts.dev",
                Some(Production),
            ),
            (
                "https://kind-cat-1.clerk.accounts.dev",
                "https://wise-dog-9.clerk.accounts.dev",
                Some(OtherDevelopment),
            ),
            ("https://clerk.exmaple.com", production, Some(Typing)),
            ("tv", "web", None),
            ("https://other.example", production, None),
        ] {
            assert_eq!(Difference::between(seen, expected), difference, "{seen}");
        }
        let near = Difference::nearest(
            "https://clerk.example.com/",
            ["https://x.example", production],
        );
        assert_eq!(near, Some((production, Slash)));
    }
}
