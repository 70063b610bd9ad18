//! The URL of a sign-in, as a browser's address bar shows it: on its way to this service or to a
//! provider, and back. Told by the text alone.

use crate::config::LOGIN;
use std::fmt;
use url::{Url, form_urlencoded};

/// A URL of a sign-in, unverified.
pub struct SignInUrl {
    /// It without its parameters.
    pub at: String,
    /// Where it leads.
    pub way: Way,
    parameters: Vec<(String, String)>,
}

/// Where the URL of a sign-in leads.
pub enum Way {
    /// To a login endpoint of this service's kind, for the provider of this name.
    Login(String),
    /// To a provider's authorization endpoint (RFC 6749 §4.1.1).
    Provider,
    /// Back, with a code (RFC 6749 §4.1.2). One that leads back with an error is an error answer.
    Back,
}

/// Says nothing: parameters are secrets.
impl fmt::Debug for SignInUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SignInUrl")
    }
}

impl SignInUrl {
    /// Reads one; `None` where it is none of a sign-in, or has an error.
    pub fn read(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok().filter(|_| text.contains("://"))?;
        let fragment = url.fragment().unwrap_or_default().as_bytes();
        let parameters: Vec<(String, String)> = url
            .query_pairs()
            .chain(form_urlencoded::parse(fragment))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let has = |name: &str| parameters.iter().any(|(each, _)| each == name);
        let login = url.path().rsplit_once(LOGIN);
        let asks = ["client_id", "redirect_uri", "response_type"];
        let way = match login.filter(|(_, name)| !name.is_empty()) {
            _ if has("error") => return None,
            Some((_, name)) => Way::Login(name.to_owned()),
            None if asks.iter().filter(|name| has(name)).count() >= 2 => Way::Provider,
            None if has("code") && has("state") => Way::Back,
            None => return None,
        };
        url.set_query(None);
        url.set_fragment(None);
        // A URL without a host can have neither, and says so.
        let _ = (url.set_username(""), url.set_password(None));
        Some(Self {
            at: url.into(),
            way,
            parameters,
        })
    }

    /// The value of a parameter, where it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let (_, value) = parameters.find(|(each, _)| each == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A redirect URI as it may be shown: what stands before its host and behind its path can be
/// anything.
pub fn shown(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let (path, rest) = uri.split_at_checked(end).unwrap_or_default();
    let path = match path.rsplit_once('@') {
        Some((_, behind)) => format!("…@{behind}"),
        None => path.to_owned(),
    };
    let path: String = path.chars().take(255).collect();
    if rest.is_empty() {
        path
    } else {
        format!("{path}?…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_of_a_redirect_uri_is_not_shown() {
        for (uri, expected) in [
            ("https://app.example.com/a", "https://app.example.com/a"),
            (
                "https://app.example.com/a?t=s",
                "https://app.example.com/a?…",
            ),
            ("app://a#t=s", "app://a?…"),
            ("https://u:p@app.example.com/a", "…@app.example.com/a"),
        ] {
            assert_eq!(shown(uri), expected);
        }
    }

    #[test]
    fn urls_of_sign_ins_are_told_from_others() {
        let way = |text| {
            SignInUrl::read(text).map(|url| match url.way {
                Way::Login(provider) => provider,
                Way::Provider => "provider".to_owned(),
                Way::Back => "back".to_owned(),
            })
        };
        for (text, expected) in [
            (
                "https://a.example/auth/login/google?app=web",
                Some("google"),
            ),
            (
                "https://a.example/authorize?client_id=a&response_type=code",
                Some("provider"),
            ),
            ("app://back?code=a&state=b", Some("back")),
            ("app://back#code=a&state=b", Some("back")),
            ("https://a.example/back?error=access_denied&state=b", None),
            ("https://a.example/?client_id=a", None),
            ("https://a.example/auth/login/", None),
            ("code=a&state=b", None),
        ] {
            assert_eq!(way(text).as_deref(), expected, "{text}");
        }
    }
}
