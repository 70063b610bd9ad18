//! The providers that users sign in at: where they are sent, how a code is exchanged there, and
//! what GitHub and Facebook tell of a user instead of an ID token. One that fails in a row is
//! left alone for a while, and whoever needs it is refused at once.

mod places;

use crate::clock::Clock;
use crate::config::{ProviderAuth, ProviderKind, ProviderSettings};
use crate::crypto::MacKey;
use crate::explain::{Code, Refusal, Source};
use crate::subject::address;
use crate::subject::breaker::Held;
use crate::subject::fetch::{FetchError, Fetcher, Reply};
use crate::subject::guard::{Guard, LEFT_ALONE, Outcome, whole_seconds};
use crate::telemetry::{Metrics, ProviderResult};
pub use places::Endpoints;
use places::Places;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// How long a 429 without a `Retry-After` is respected, seconds.
const COOL_DOWN: u64 = 5;
/// What GitHub's API wants to be asked with.
const GITHUB_VERSION: &str = "2022-11-28";

type Refused = Box<Refusal>;

/// A provider of the configuration.
pub struct Provider {
    /// Its settings.
    pub settings: ProviderSettings,
    fetcher: Fetcher,
    clock: Clock,
    places: Arc<Places>,
    /// Before its token endpoint.
    tokens: Guard,
    /// Before its API.
    api: Guard,
}

/// What a code was exchanged for; its `Debug` would show it, so it has none.
pub enum Gained {
    /// An ID token, not verified.
    IdToken(SecretString),
    /// The claims that the provider's API told, as JSON.
    Told(Vec<u8>),
}

/// A code of the provider's, and what it was asked for with.
pub struct ProviderCode<'c> {
    /// As it came.
    pub code: &'c str,
    /// The callback.
    pub redirect_uri: &'c str,
    /// The verifier of the challenge (RFC 7636 §4.1).
    pub code_verifier: &'c str,
}

impl Provider {
    /// The provider of these settings.
    pub fn new(
        settings: &ProviderSettings,
        fetcher: &Fetcher,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let guard = |api| Guard::new(&settings.name, api, clock, metrics);
        Self {
            places: Places::new(settings, fetcher, clock),
            tokens: guard("token"),
            api: guard("user"),
            settings: settings.clone(),
            fetcher: fetcher.clone(),
            clock: clock.clone(),
        }
    }

    /// Where its endpoints are: as configured, else as discovered.
    pub async fn endpoints(&self) -> Result<Endpoints, Refused> {
        self.places.endpoints().await
    }

    /// Whether an answer's `iss` (RFC 9207) may be the provider's. GitHub's authorization
    /// server has an identifier of its own.
    pub fn answers_as(&self, iss: &str) -> bool {
        let issuer = &self.settings.issuer;
        iss == issuer
            || self.settings.kind == ProviderKind::GitHub && iss == format!("{issuer}/login/oauth")
    }

    /// Exchanges a code (RFC 6749 §4.1.3), and asks the API where there is no ID token.
    pub async fn exchange(&self, code: &ProviderCode<'_>) -> Result<Gained, Refused> {
        let answer = self.ask(code).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        match self.settings.kind {
            ProviderKind::Oidc | ProviderKind::Clerk | ProviderKind::Google => {
                let token = text("id_token").ok_or_else(|| odd("there is no `id_token`"))?;
                Ok(Gained::IdToken(token.into()))
            }
            ProviderKind::GitHub | ProviderKind::Facebook => {
                let token =
                    text("access_token").ok_or_else(|| odd("there is no `access_token`"))?;
                let token = SecretString::from(token);
                let claims = match self.settings.kind {
                    ProviderKind::GitHub => self.github(&token).await?,
                    _ => self.facebook(&token).await?,
                };
                Ok(Gained::Told(claims.to_string().into_bytes()))
            }
        }
    }

    /// Shows the token endpoint a code that cannot be right: whoever knows our client refuses
    /// the code, and whoever does not, the client (RFC 6749 §5.2).
    ///
    /// # Errors
    /// Where it does not know the client, or said nothing that tells.
    pub async fn recognises_us(&self, callback: &str) -> Result<(), Refused> {
        let code = ProviderCode {
            code: "exchequer-doctor",
            redirect_uri: callback,
            code_verifier: &"exchequer-doctor".repeat(3),
        };
        match self.ask(&code).await {
            Err(refusal) if refusal.code == Code::ProviderCodeRefused => Ok(()),
            Err(refusal) => Err(refusal),
            Ok(_) => Err(odd("the token endpoint took a code that nobody was given")),
        }
    }

    /// The token endpoint's answer, where it is none of its errors.
    async fn ask(&self, code: &ProviderCode<'_>) -> Result<Map<String, Value>, Refused> {
        let (url, reach) = self.endpoints().await?.token;
        let settings = &self.settings;
        let secret = self.secret();
        let body = self.form(code);
        // RFC 6749 §2.3.1: each encoded as in a form, then joined.
        let encoded = |text: &str| -> String { byte_serialize(text.as_bytes()).collect() };
        let (id, secret) = (encoded(&settings.client_id), encoded(secret));
        let pass = self.tokens.admit().map_err(held)?;
        let reply = self.fetcher.send(Method::POST, &url, reach, |request| {
            let request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
            match settings.auth {
                ProviderAuth::Basic => request.basic_auth(id, Some(secret)),
                ProviderAuth::Post | ProviderAuth::None => request,
            }
        });
        let reply = reply.await;
        self.tokens.note(pass, self.outcome(&reply));
        self.read(reply.map_err(lost)?)
    }

    /// What an answer says of the provider: whether it is there.
    fn outcome(&self, reply: &Result<Reply, FetchError>) -> Outcome<'static> {
        match reply {
            Err(_) => Outcome::Failed("it did not answer"),
            Ok(reply) => match reply.status {
                429 => Outcome::RateLimited(self.wait(reply)),
                500.. => Outcome::Failed("it answered 5xx"),
                200 => Outcome::Answered(ProviderResult::Ok),
                _ => Outcome::Answered(ProviderResult::Refused),
            },
        }
    }

    /// For how long a 429 asks to be left alone, seconds.
    fn wait(&self, reply: &Reply) -> u64 {
        reply.retry_after(self.clock.now()).unwrap_or(COOL_DOWN)
    }

    fn form(&self, code: &ProviderCode<'_>) -> String {
        let settings = &self.settings;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code.code)
            .append_pair("redirect_uri", code.redirect_uri)
            .append_pair("code_verifier", code.code_verifier);
        if settings.auth != ProviderAuth::Basic {
            form.append_pair("client_id", &settings.client_id);
        }
        if settings.auth == ProviderAuth::Post {
            form.append_pair("client_secret", self.secret());
        }
        form.finish()
    }

    fn secret(&self) -> &str {
        let secret = self.settings.client_secret.as_ref();
        secret.map_or("", ExposeSecret::expose_secret)
    }

    fn read(&self, reply: Reply) -> Result<Map<String, Value>, Refused> {
        if reply.status == 429 {
            return Err(
                rate_limited(self.wait(&reply)).caused_by("the token endpoint answered 429")
            );
        }
        let answer: Option<Map<String, Value>> = serde_json::from_slice(&reply.body).ok();
        // GitHub has its errors in answers of status 200.
        let error = answer.as_ref().and_then(|answer| answer.get("error"));
        if let Some(error) = error {
            return Err(refused(word(error)));
        }
        match (reply.status, answer) {
            (200, Some(answer)) => Ok(answer),
            (200, None) => Err(odd("the token endpoint answered with no JSON object")),
            (401, _) => Err(refused("invalid_client")),
            (status @ 400..500, _) => Err(odd(format!("the token endpoint answered {status}"))),
            (status, _) => Err(unavailable(format!("the token endpoint answered {status}"))),
        }
    }

    /// A document of the provider's API.
    async fn api(&self, path: &str, query: &[(&str, &str)], token: &SecretString) -> Api {
        let settings = &self.settings;
        let base = settings.api_url.as_deref().unwrap_or_default();
        let mut url = Url::parse(&format!("{}{path}", base.trim_end_matches('/')))
            .map_err(|_| unavailable("`api_url` is no URL"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let reach = address::configured(&url, settings.allow_private_network);
        let pass = self.api.admit().map_err(held)?;
        let reply = self.fetcher.send(Method::GET, &url, reach, |request| {
            let request = request.bearer_auth(token.expose_secret());
            match settings.kind {
                ProviderKind::GitHub => request.header("x-github-api-version", GITHUB_VERSION),
                _ => request,
            }
        });
        let reply = reply.await;
        self.api.note(pass, self.outcome(&reply));
        let reply = reply.map_err(lost)?;
        match reply.status {
            429 => Err(rate_limited(self.wait(&reply)).caused_by(format!("{path} answered 429"))),
            200 => serde_json::from_slice(&reply.body)
                .map_err(|_| odd(format!("{path} answered with no JSON"))),
            status @ 400..500 => Err(odd(format!("{path} answered {status}"))),
            status => Err(unavailable(format!("{path} answered {status}"))),
        }
    }

    /// Who GitHub says that it is, as claims. Of the addresses only the primary one counts, and
    /// only where GitHub verified it; without the scope `user:email` there is none.
    async fn github(&self, token: &SecretString) -> Api {
        let (user, emails) = tokio::join!(
            self.api("/user", &[], token),
            self.api("/user/emails", &[], token)
        );
        let user = user?;
        let id = user.get("id").and_then(Value::as_u64);
        let id = id.ok_or_else(|| odd("/user has no `id`"))?;
        let emails = emails.unwrap_or_default();
        let is = |email: &Value, what: &str| email.get(what) == Some(&Value::Bool(true));
        let email = emails.as_array().into_iter().flatten();
        let email = email
            .filter(|email| is(email, "primary") && is(email, "verified"))
            .find_map(|email| email.get("email")?.as_str());
        Ok(claims(
            &self.settings.issuer,
            id.to_string(),
            [
                ("preferred_username", user.get("login").cloned()),
                ("name", user.get("name").cloned()),
                ("picture", user.get("avatar_url").cloned()),
                ("email", email.map(Value::from)),
                ("email_verified", email.map(|_| true.into())),
            ],
        ))
    }

    /// Who Facebook says that it is, as claims. It does not say whether the address is verified.
    async fn facebook(&self, token: &SecretString) -> Api {
        let secret = self.secret();
        // Proves that whoever shows the token has the secret too.
        let proof = MacKey::new(secret.as_bytes()).sign(&[token.expose_secret().as_bytes()]);
        let proof = proof.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let query = [
            ("fields", "id,name,email"),
            ("appsecret_proof", proof.as_str()),
        ];
        let user = self.api("/me", &query, token).await?;
        let id = user.get("id").and_then(Value::as_str);
        let id = id.ok_or_else(|| odd("/me has no `id`"))?.to_owned();
        Ok(claims(
            &self.settings.issuer,
            id,
            [
                ("name", user.get("name").cloned()),
                ("email", user.get("email").cloned()),
            ],
        ))
    }
}

type Api = Result<Value, Refused>;

fn claims<const N: usize>(issuer: &str, id: String, further: [(&str, Option<Value>); N]) -> Value {
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), issuer.into());
    claims.insert("sub".to_owned(), id.into());
    for (name, value) in further {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            claims.insert(name.to_owned(), value);
        }
    }
    json!(claims)
}

/// The words of a provider that are passed on, and what they are in those of RFC 6749; anything
/// else that it wrote stays with it.
const WORDS: [(&str, &str); 21] = [
    ("invalid_client", "invalid_client"),
    ("incorrect_client_credentials", "invalid_client"),
    ("unauthorized_client", "unauthorized_client"),
    ("application_suspended", "unauthorized_client"),
    ("invalid_grant", "invalid_grant"),
    ("bad_verification_code", "invalid_grant"),
    ("invalid_request", "invalid_request"),
    ("redirect_uri_mismatch", "redirect_uri_mismatch"),
    ("invalid_scope", "invalid_scope"),
    ("unsupported_grant_type", "unsupported_grant_type"),
    ("unsupported_response_type", "unsupported_response_type"),
    ("access_denied", "access_denied"),
    ("user_cancelled_login", "access_denied"),
    ("unverified_user_email", "access_denied"),
    ("login_required", "login_required"),
    ("consent_required", "consent_required"),
    ("interaction_required", "interaction_required"),
    ("account_selection_required", "account_selection_required"),
    ("server_error", "server_error"),
    ("temporarily_unavailable", "temporarily_unavailable"),
    ("slow_down", "temporarily_unavailable"),
];

/// The word of an error as a provider's token endpoint writes it.
fn word(error: &Value) -> &'static str {
    if let Some(text) = error.as_str() {
        return listed(text);
    }
    // Facebook numbers its errors.
    match error.get("code").and_then(Value::as_i64) {
        Some(1 | 101) => "invalid_client",
        Some(100) => "invalid_grant",
        _ => "another error",
    }
}

fn listed(text: &str) -> &'static str {
    let found = WORDS.iter().find(|(theirs, _)| *theirs == text);
    found.map_or("another error", |(_, ours)| ours)
}

/// The refusal of a provider that came back with this error instead of a code.
pub fn refusal_of(error: &str) -> Refused {
    refused(listed(error))
}

/// What a provider's error means here; it is said that it is the provider's.
fn refused(word: &'static str) -> Refused {
    let (code, retry) = match word {
        "invalid_client" | "unauthorized_client" => (Code::ProviderClientUnknown, None),
        "invalid_grant" => (Code::ProviderCodeRefused, None),
        "access_denied"
        | "login_required"
        | "consent_required"
        | "interaction_required"
        | "account_selection_required" => (Code::SignInDenied, None),
        "server_error" | "temporarily_unavailable" => (Code::ProviderUnavailable, Some(5)),
        _ => (Code::ProviderRefused, None),
    };
    let mut refusal = Refusal::because(code, format!("{} It said: {word}.", code.entry().sentence))
        .caused_by(format!("the provider said {word}"));
    refusal.source = Some(Source::UpstreamIdp);
    refusal.retry_after = retry;
    refusal
}

fn odd(cause: impl std::fmt::Display) -> Refused {
    let mut refusal = Refusal::new(Code::ProviderAnswerInvalid).caused_by(cause);
    refusal.source = Some(Source::UpstreamIdp);
    refusal
}

fn lost(error: FetchError) -> Refused {
    match error {
        FetchError::Forbidden(_) => odd(error),
        _ => unavailable(error),
    }
}

/// The refusal of who was not let through to a provider.
fn held(held: Held) -> Refused {
    match held {
        Held::Cooling(left) => {
            rate_limited(whole_seconds(left)).caused_by("it answered 429 a while ago")
        }
        Held::Open(left) => Refusal::new(Code::ProviderUnavailable)
            .unavailable(Source::UpstreamIdp, whole_seconds(left))
            .caused_by(LEFT_ALONE),
    }
}

fn rate_limited(wait: u64) -> Refused {
    Refusal::new(Code::ProviderRateLimited).unavailable(Source::UpstreamIdp, wait)
}

fn unavailable(cause: impl std::fmt::Display) -> Refused {
    Refusal::new(Code::ProviderUnavailable)
        .unavailable(Source::UpstreamIdp, 5)
        .caused_by(cause)
}
