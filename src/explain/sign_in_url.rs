//! The URL of a sign-in, as a browser's address bar shows it: on its way to this service or to a
//! provider, and back. Told by the text alone.

use super::foreign::{ErrorAnswer, error_answer};
use crate::config::LOGIN;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use url::{Url, form_urlencoded};

/// The host of Google's OAuth server, where people see its pages.
pub const GOOGLE: &str = "accounts.google.com";

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
    /// To the page on which Google says what is wrong with a request.
    Refused(ErrorAnswer),
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
        let url = Url::parse(text).ok();
        let mut url = url.filter(|url| !url.cannot_be_a_base())?;
        let read = |text: Option<&str>| -> Vec<(String, String)> {
            let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
            pairs.into_owned().collect()
        };
        let (mut parameters, fragment) = (read(url.query()), read(url.fragment()));
        let value = |name: &str| {
            let mut sent = parameters.iter();
            Some(sent.find(|(each, _)| each == name)?.1.as_str())
        };
        let has = |name: &str| value(name).is_some();
        let comes = |name: &str| has(name) || fragment.iter().any(|(each, _)| each == name);
        let login = url.path().rsplit_once(LOGIN);
        let asks = ["client_id", "redirect_uri", "response_type"];
        let shown = value("authError").filter(|_| url.host_str() == Some(GOOGLE));
        let way = match (login.filter(|(_, name)| !name.is_empty()), shown) {
            _ if comes("error") => return None,
            (Some((_, name)), _) => Way::Login(name.to_owned()),
            (None, Some(error)) => Way::Refused(of_google(error)?),
            _ if asks.iter().filter(|name| has(name)).count() >= 2 => Way::Provider,
            _ if comes("code") && comes("state") => Way::Back,
            _ => return None,
        };
        // No server is sent a fragment: it is for who is at the end of the way back.
        if matches!(way, Way::Back) {
            parameters.extend(fragment);
        }
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
        self.all(name).next()
    }

    /// The values of a parameter that may be repeated.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.parameters.iter().filter(move |(each, _)| each == name);
        named
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// What Google's `authError` says: a message of Protocol Buffers in base64, whose first field is
/// the error, and the second a sentence.
fn of_google(error: &str) -> Option<ErrorAnswer> {
    let error = error.trim_end_matches('=').replace([' ', '+'], "-");
    let bytes = URL_SAFE_NO_PAD.decode(error.replace('/', "_")).ok()?;
    let known = error_answer(&String::from_utf8_lossy(&bytes));
    known.or_else(|| {
        let [0x0a, length, rest @ ..] = bytes.as_slice() else {
            return None;
        };
        let word = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let plain = word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        plain.then(|| ErrorAnswer::Unknown(Some(word.to_owned())))
    })
}

/// A redirect URI as it may be shown: what stands before its host and behind its path can be
/// anything.
pub fn shown(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let (path, rest) = uri.split_at_checked(end).unwrap_or_default();
    // A password may have a question mark in it.
    if rest.contains('@') {
        return "…".to_owned();
    }
    let nobody = |url: Url| url.has_host() && url.username().is_empty() && url.password().is_none();
    let path = match path.rsplit_once('@') {
        Some((_, behind)) if !Url::parse(path).is_ok_and(nobody) => format!("…@{behind}"),
        _ => path.to_owned(),
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
            ("https:u:p@app.example.com/a", "…@app.example.com/a"),
            ("https://u:p/p@app.example.com/a", "…@app.example.com/a"),
            ("https://u:p?p@app.example.com/a", "…"),
            ("https://u:p#p@app.example.com/a", "…"),
            (
                "https://app.example.com/@x/cb",
                "https://app.example.com/@x/cb",
            ),
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
                Way::Refused(_) => "refused".to_owned(),
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
            ("com.example.app:/back?code=a&state=b", Some("back")),
            ("view-source:https://u:p@a.example/?code=a&state=b", None),
            ("https://a.example/x#client_id=a&response_type=code", None),
            (
                "https://accounts.google.com/signin/oauth/error?authError=CgF4",
                Some("refused"),
            ),
            (
                "https://accounts.google.com/signin/oauth/error?authError=.",
                None,
            ),
            ("https://a.example/signin/oauth/error?authError=CgF4", None),
            (
                "https://a.example/back#error=access_denied&state=b&code=c",
                None,
            ),
            ("https://a.example/back?error=access_denied&state=b", None),
            ("https://a.example/?client_id=a", None),
            ("https://a.example/auth/login/", None),
            ("code=a&state=b", None),
        ] {
            assert_eq!(way(text).as_deref(), expected, "{text}");
        }
    }
}
