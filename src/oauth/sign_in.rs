//! Sign-in that this service begins: to the provider with a state, a nonce and a challenge, and
//! back to the app with a code of ours.
//!
//! A sign-in is bound to the browser that began it by a cookie, in which all that was asked is
//! sealed: nothing is kept here before the browser comes back, and then only that it did. Until
//! the app and its redirect URI are certain nobody is sent anywhere; after that the app is told
//! what went wrong (RFC 6749 §4.1.2.1).

mod pending;

use super::OAuth;
use super::providers::{Gained, Provider, ProviderCode, refusal_of};
use crate::clock::UnixSeconds;
use crate::config::SignInSettings;
use crate::crypto::sha256;
use crate::exchange::Caller;
use crate::explain::sign_in_url::shown;
use crate::explain::{About, Code, Refusal, Source};
use crate::policy::App;
use crate::policy::app::each_once;
use crate::policy::limits::Takes;
use crate::store::{Change, Committed, Key, Kind, Once, StoreError};
use crate::subject::Issuer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub(super) use pending::Asked;
pub use pending::COOKIE;
use pending::{Maker, Pending, Secrets, cookie_of};
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded::Serializer;

/// How long a user may take to sign in, seconds.
pub const LIFE: UnixSeconds = 600;
/// The whole of what a callback asks a provider: the code, the key set or the API.
const DEADLINE: Duration = Duration::from_secs(8);

type Refused = Box<Refusal>;

/// What an app asks of login; its `Debug` shows nothing that is the user's.
#[derive(Debug, Default)]
pub struct Begin<'r> {
    /// The app: `app`, or `client_id`.
    pub app: Option<&'r str>,
    /// Where the user is to be sent back to.
    pub redirect_uri: Option<&'r str>,
    /// `code`, or nothing.
    pub response_type: Option<&'r str>,
    /// The app's challenge (RFC 7636 §4.2).
    pub code_challenge: Option<&'r str>,
    /// `S256`.
    pub code_challenge_method: Option<&'r str>,
    /// The thumbprint of the key that the code is to be bound to (RFC 9449 §10).
    pub dpop_jkt: Option<&'r str>,
    /// The app's own state, which it gets back.
    pub state: Option<&'r str>,
    /// The scopes of the app token.
    pub scope: Option<&'r str>,
    /// Its audiences.
    pub audiences: Vec<&'r str>,
}

/// What a provider sends to the callback; its `Debug` does not show the code.
#[derive(Default)]
pub struct Callback<'r> {
    /// The provider in the path.
    pub provider: &'r str,
    /// Our state.
    pub state: Option<&'r str>,
    /// The provider's code.
    pub code: Option<&'r str>,
    /// Its error.
    pub error: Option<&'r str>,
    /// Its issuer (RFC 9207).
    pub iss: Option<&'r str>,
}

impl std::fmt::Debug for Callback<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Callback({:?}, …)", self.provider)
    }
}

/// A step of a sign-in: where the browser goes next.
pub struct Step {
    /// The URL, which holds a state or a code.
    pub location: String,
    /// The cookie of the sign-in, to be set or to be forgotten.
    pub cookie: (String, Option<String>),
    /// What the log may know of it.
    pub told: Told,
}

/// What the log may know of a step.
#[derive(Debug)]
pub struct Told {
    /// The provider.
    pub provider: String,
    /// The app, and the subject where it is certain.
    pub about: About,
    /// Why the app was told of an error.
    pub refusal: Option<Refused>,
}

impl OAuth {
    /// Begins a sign-in at a provider.
    pub async fn begin_sign_in(
        &self,
        provider: &str,
        begin: &Begin<'_>,
        caller: Caller<'_>,
    ) -> Result<Step, Refused> {
        let step = async {
            self.take_from_address(caller).await?;
            let (provider, app) = self.offered(provider, begin.app)?;
            let sign_in = app.settings.sign_in.as_ref();
            let redirect_uri = registered(sign_in, begin.redirect_uri)?;
            match self.depart(&provider, &app, redirect_uri, begin).await {
                Ok(step) => Ok(step),
                Err(refusal) => {
                    let asked = Asked {
                        app: app.settings.name.clone(),
                        redirect_uri: redirect_uri.to_owned(),
                        code_challenge: String::new(),
                        dpop_jkt: None,
                        state: begin.state.map(str::to_owned),
                        scope: None,
                        audiences: Vec::new(),
                    };
                    let refusal = self.exchange.counted(refusal, caller).await;
                    let cookie = (cookie_of(""), None);
                    Ok(self.back(&asked, &provider, cookie, Err(refusal)))
                }
            }
        };
        self.exchange.counting(step.await, caller).await
    }

    /// The provider and the app, where the app has sign-in there.
    fn offered(
        &self,
        provider: &str,
        app: Option<&str>,
    ) -> Result<(Arc<Provider>, Arc<App>), Refused> {
        let name = app.ok_or_else(|| {
            Refusal::because(Code::ParameterMalformed, "The parameter `app` is missing.")
        })?;
        let app = self.exchange.apps.get(name);
        let app = app.ok_or_else(|| {
            let known = self.exchange.apps.iter();
            let known: Vec<&str> = known.map(|app| app.settings.name.as_str()).collect();
            Refusal::new(Code::AppUnknown).caused_by(format!("there are {}", known.join(", ")))
        })?;
        let sign_in = app.settings.sign_in.as_ref();
        let listed =
            sign_in.is_some_and(|sign_in| sign_in.providers.iter().any(|each| each == provider));
        let provider = self.providers.get(provider).filter(|_| listed);
        let provider = provider.ok_or_else(|| {
            let known = sign_in.map(|sign_in| sign_in.providers.join(", "));
            let known = known.unwrap_or("none: it has no `sign_in`".to_owned());
            Refusal::new(Code::SignInProviderUnknown)
                .caused_by(format!("the app {name} lists {known}"))
        })?;
        Ok((Arc::clone(provider), Arc::clone(app)))
    }

    /// Sends the browser to the provider.
    async fn depart(
        &self,
        provider: &Provider,
        app: &App,
        redirect_uri: &str,
        begin: &Begin<'_>,
    ) -> Result<Step, Refused> {
        if begin.response_type.is_some_and(|kind| kind != "code") {
            return Err(Refusal::new(Code::ResponseTypeUnsupported));
        }
        let code_challenge = challenge(begin.code_challenge, begin.code_challenge_method)
            .map_err(|why| Refusal::new(Code::PkceRequired).caused_by(why))?;
        thumbprint(begin.dpop_jkt)?;
        if !app.may_ask_for(&begin.audiences) {
            let known = app.settings.audiences.join(", ");
            return Err(Refusal::new(Code::AudienceNotAllowed)
                .caused_by(format!("the app may ask for {known}")));
        }
        let endpoints = provider.endpoints().await?;
        let maker = Maker::of(&self.exchange.keys.published());
        let state = maker.state(self.exchange.clock.now() + LIFE);
        let pending = Pending {
            provider: provider.settings.name.clone(),
            asked: Asked {
                app: app.settings.name.clone(),
                redirect_uri: redirect_uri.to_owned(),
                code_challenge: code_challenge.to_owned(),
                dpop_jkt: begin.dpop_jkt.map(str::to_owned),
                state: begin.state.map(str::to_owned),
                scope: begin.scope.map(str::to_owned),
                audiences: each_once(&begin.audiences),
            },
        };
        let cookie = maker.seal(&state, &pending)?;
        let secrets = maker.secrets(&state);
        let challenge = URL_SAFE_NO_PAD.encode(sha256(secrets.code_verifier.as_bytes()));
        let mut location = endpoints.authorization;
        location
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.settings.client_id)
            .append_pair("redirect_uri", &self.callback(provider))
            .append_pair("scope", &provider.settings.scopes.join(" "))
            .append_pair("state", &state)
            .append_pair("nonce", &secrets.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(Step {
            location: location.into(),
            cookie: (cookie_of(&state), Some(cookie)),
            told: Told {
                provider: provider.settings.name.clone(),
                about: About {
                    app: app.settings.name.clone(),
                    ..About::default()
                },
                refusal: None,
            },
        })
    }

    /// Where the provider sends users back to.
    fn callback(&self, provider: &Provider) -> String {
        provider.settings.callback(&self.exchange.issuer)
    }

    /// Ends a sign-in: `browser` gives the value of the cookie of a name.
    pub async fn end_sign_in(
        &self,
        callback: &Callback<'_>,
        browser: impl Fn(&str) -> Option<String>,
        caller: Caller<'_>,
    ) -> Result<Step, Refused> {
        let step = async {
            self.take_from_address(caller).await?;
            let (pending, secrets, cookie) = self.resume(callback, browser).await?;
            let asked = &pending.asked;
            // Neither is gone unless the configuration has changed since.
            let (provider, app) = self.offered(&pending.provider, Some(&asked.app))?;
            registered(app.settings.sign_in.as_ref(), Some(&asked.redirect_uri))?;
            let code = tokio::time::timeout(
                DEADLINE,
                self.arrive(&provider, &app, &pending, callback, &secrets),
            );
            let code = code.await.unwrap_or_else(|_| {
                Err(Refusal::new(Code::ProviderUnavailable)
                    .unavailable(Source::UpstreamIdp, 5)
                    .caused_by("the provider did not answer in time"))
            });
            let code = self.exchange.counting(code, caller).await;
            Ok(self.back(asked, &provider, (cookie, None), code))
        };
        self.exchange.counting(step.await, caller).await
    }

    /// The sign-in that a callback belongs to, which ends with it: it was begun in this browser,
    /// at this provider, and nobody has come back from it before.
    async fn resume(
        &self,
        callback: &Callback<'_>,
        browser: impl Fn(&str) -> Option<String>,
    ) -> Result<(Pending, Secrets, String), Refused> {
        let unknown = || Refusal::new(Code::SignInStateInvalid);
        let state = callback.state.ok_or_else(unknown)?;
        let exchange = &self.exchange;
        let (maker, now) = (Maker::of(&exchange.keys.published()), exchange.clock.now());
        let until = maker.until(state).filter(|until| now < *until);
        let until = until.ok_or_else(unknown)?;
        let cookie = cookie_of(state);
        let pending = browser(&cookie).and_then(|value| maker.open(state, &value));
        let pending = pending.ok_or_else(|| Refusal::new(Code::SignInBrowserMismatch))?;
        let change = Change {
            once: Some(Once {
                key: Key::of(Kind::SignIn, &[state]),
                // Longer than the state holds: the clocks of replicas differ.
                until: until + LIFE,
                // It was begun when the state was made, which may have been by a clock that is slow.
                since: Some(until - 2 * LIFE),
            }),
            ..Change::default()
        };
        let committed = exchange.store.commit(change, now).await;
        if committed.map_err(StoreError::refusal)? == Committed::Repeated {
            return Err(unknown());
        }
        if pending.provider != callback.provider {
            return Err(Refusal::new(Code::SignInProviderMismatch));
        }
        Ok((pending, maker.secrets(state), cookie))
    }

    /// Verifies who came back from the provider, and gives a code of ours for them.
    async fn arrive(
        &self,
        provider: &Provider,
        app: &App,
        pending: &Pending,
        callback: &Callback<'_>,
        secrets: &Secrets,
    ) -> Result<(String, About), Refused> {
        if callback.iss.is_some_and(|iss| !provider.answers_as(iss)) {
            return Err(Refusal::new(Code::SignInProviderMismatch));
        }
        if let Some(error) = callback.error {
            return Err(refusal_of(error));
        }
        let code = callback.code.ok_or_else(|| {
            Refusal::new(Code::ProviderAnswerInvalid)
                .caused_by("the callback has neither `code` nor `error`")
        })?;
        let issuer = issuer_of(app, provider)?;
        let code = ProviderCode {
            code,
            redirect_uri: &self.callback(provider),
            code_verifier: &secrets.code_verifier,
        };
        let (mut kept, about) = match provider.exchange(&code).await? {
            Gained::IdToken(token) => {
                use secrecy::ExposeSecret;
                let expected = (provider.settings.client_id.as_str(), secrets.nonce.as_str());
                let token = token.expose_secret();
                let kept = self.exchange.keep_id_token(token, app, issuer, expected);
                kept.await?
            }
            Gained::Told(claims) => self.exchange.keep_told(&claims, app, issuer)?,
        };
        kept.bound_to.clone_from(&pending.asked.dpop_jkt);
        let code = self.give_code(&pending.asked, kept).await?;
        Ok((code, about))
    }

    /// Sends the browser back to the app with a code or an error.
    fn back(
        &self,
        asked: &Asked,
        provider: &Provider,
        cookie: (String, Option<String>),
        code: Result<(String, About), Refused>,
    ) -> Step {
        let mut query = Serializer::new(String::new());
        let (about, refusal) = match code {
            Ok((code, about)) => {
                query.append_pair("code", &code);
                (about, None)
            }
            Err(mut refusal) => {
                // RFC 6749 §4.1.2.1.
                let printable = |each: &char| matches!(each, ' '..='~') && !r#""\"#.contains(*each);
                let description: String = refusal.description.chars().filter(printable).collect();
                query
                    .append_pair("error", error_word(&refusal))
                    .append_pair("error_description", &description)
                    .append_pair("error_code", refusal.code.entry().slug);
                if refusal.source == Some(Source::UpstreamIdp) {
                    query.append_pair("source", "upstream-idp");
                }
                let about = About {
                    app: asked.app.clone(),
                    ..About::default()
                };
                refusal.about.get_or_insert_with(|| about.clone());
                (about, Some(refusal))
            }
        };
        if let Some(state) = &asked.state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", &self.exchange.issuer);
        let uri = &asked.redirect_uri;
        let mark = if uri.contains('?') { '&' } else { '?' };
        Step {
            location: format!("{uri}{mark}{}", query.finish()),
            cookie,
            told: Told {
                provider: provider.settings.name.clone(),
                about,
                refusal,
            },
        }
    }

    async fn take_from_address(&self, caller: Caller<'_>) -> Result<(), Refused> {
        let network = caller.network();
        let takes = Takes::of_stranger(self.exchange.limits.as_ref(), network.as_deref());
        if takes.takes.is_empty() {
            return Ok(());
        }
        let answer = self.exchange.take(&takes).await;
        let answer = answer.map_err(StoreError::refusal)?;
        takes.judge(&answer.levels).map(drop)
    }
}

/// The issuer by whose rules the app takes those who sign in at the provider.
fn issuer_of<'a>(app: &'a App, provider: &Provider) -> Result<&'a Issuer, Refused> {
    let wanted = &provider.settings.issuer;
    let mut issuers = app.issuers.iter();
    issuers
        .find(|issuer| issuer.settings.issuer == *wanted)
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal::new(Code::SubjectTokenIssuerUntrusted))
}

/// The app that is named: by `app`, or as clients of the standard say it, by `client_id`.
pub fn app_named<'r>(
    app: Option<&'r str>,
    client: Option<&'r str>,
) -> Result<Option<&'r str>, Refused> {
    match (app, client) {
        (Some(app), Some(client)) if app != client => Err(Refusal::because(
            Code::ParameterMalformed,
            "`app` and `client_id` name two apps.",
        )),
        (app, client) => Ok(app.or(client)),
    }
}

/// Judges a `dpop_jkt`, where there is one (RFC 9449 §10).
pub fn thumbprint(dpop_jkt: Option<&str>) -> Result<(), Refused> {
    if dpop_jkt.is_none_or(is_sha256) {
        return Ok(());
    }
    Err(Refusal::because(
        Code::ParameterMalformed,
        "The parameter `dpop_jkt` is no SHA-256 thumbprint of a key.",
    ))
}

/// The redirect URI, where the app has registered it: byte for byte, but for the port of a
/// loopback address that was registered without one (RFC 8252 §7.3).
pub fn registered<'r>(
    sign_in: Option<&SignInSettings>,
    asked: Option<&'r str>,
) -> Result<&'r str, Refused> {
    let known = sign_in.map_or(&[] as &[String], |sign_in| &sign_in.redirect_uris);
    asked
        .filter(|asked| {
            known
                .iter()
                .any(|known| known == asked || on_loopback(known, asked))
        })
        .ok_or_else(|| {
            let registered = known.join(", ");
            let sent = asked.map_or("none".to_owned(), |asked| format!("{:?}", shown(asked)));
            Refusal::new(Code::RedirectUriNotRegistered)
                .caused_by(format!("{sent} was sent, and registered are {registered}"))
        })
}

/// The challenge of a request (RFC 7636 §4.3); else what is wrong with it.
pub fn challenge<'r>(
    challenge: Option<&'r str>,
    method: Option<&str>,
) -> Result<&'r str, &'static str> {
    match (challenge, method) {
        (None, _) => Err("there is no code_challenge"),
        (Some(_), None) => Err("there is no code_challenge_method, which means plain"),
        (Some(challenge), Some("S256")) if is_sha256(challenge) => Ok(challenge),
        (Some(_), Some("S256")) => {
            Err("code_challenge is no SHA-256 in base64url without padding, of 43 characters")
        }
        (Some(_), Some(_)) => Err("code_challenge_method is another than S256"),
    }
}

/// Whether the URI is the known one of this machine with a port.
fn on_loopback(known: &str, asked: &str) -> bool {
    ["http://127.0.0.1", "http://[::1]"].iter().any(|host| {
        let path = known.strip_prefix(host);
        let Some(path) = path.filter(|path| path.is_empty() || path.starts_with(['/', '?'])) else {
            return false;
        };
        let port = asked
            .strip_prefix(host)
            .and_then(|rest| rest.strip_prefix(':'))
            .and_then(|rest| rest.strip_suffix(path));
        port.is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    })
}

/// Whether a text is the SHA-256 of something, as RFC 7636 §4.2 and RFC 7638 §3.1 write it.
fn is_sha256(text: &str) -> bool {
    text.len() == 43 && URL_SAFE_NO_PAD.decode(text).is_ok()
}

/// The word of an authorization error (RFC 6749 §4.1.2.1, RFC 8707 §2).
fn error_word(refusal: &Refusal) -> &'static str {
    let entry = refusal.code.entry();
    match (entry.error, entry.status) {
        (
            word @ ("invalid_request"
            | "unsupported_response_type"
            | "invalid_scope"
            | "invalid_target"
            | "access_denied"
            | "server_error"
            | "temporarily_unavailable"),
            _,
        ) => word,
        (_, 429 | 503) => "temporarily_unavailable",
        (_, 500..) => "server_error",
        _ => "access_denied",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_machine_is_any_and_nothing_else_is() {
        let known = "http://127.0.0.1/callback";
        for good in [
            "http://127.0.0.1:1/callback",
            "http://127.0.0.1:65535/callback",
        ] {
            assert!(on_loopback(known, good), "{good}");
        }
        assert!(on_loopback(
            "http://[::1]/cb?a=b",
            "http://[::1]:8080/cb?a=b"
        ));
        assert!(on_loopback("http://127.0.0.1", "http://127.0.0.1:8080"));
        for bad in [
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:+80/callback",
            "http://127.0.0.1:80@evil.example/callback",
            "http://127.0.0.1:80/other/callback",
            "http://127.0.0.1:80/callback/",
            "http://127.0.0.1.evil.example:80/callback",
            "http://127.0.0.2:80/callback",
            "http://localhost:80/callback",
            "https://127.0.0.1:80/callback",
            "http://[::1]:80/callback",
        ] {
            assert!(!on_loopback(known, bad), "{bad}");
        }
        // With a port it is the one that was registered.
        assert!(!on_loopback(
            "http://127.0.0.1:80/callback",
            "http://127.0.0.1:81/callback"
        ));
        assert!(!on_loopback(
            "http://127.0.0.1.example.com/cb",
            "http://127.0.0.1:1.example.com/cb"
        ));
    }
}
