//! `GET /auth/login/{provider}` and `GET /auth/callback/{provider}`: the browser's way to a
//! provider and back. What is wrong before the app is certain is answered here; the rest is told
//! to the app, in the redirect.

use super::answer;
use super::form::Form;
use super::outcome::Outcome;
use super::token::scope;
use crate::exchange::Caller;
use crate::explain::{Code, Refusal};
use crate::oauth::OAuth;
use crate::oauth::sign_in::{Begin, Callback, LIFE, Step};
use http::header::{COOKIE, HeaderMap};
use std::net::IpAddr;
use std::sync::Arc;
use url::form_urlencoded;
use warp::reply::Response as Answer;

/// Where sign-ins begin; the provider's name follows.
pub(super) const LOGIN: &str = "/auth/login/";
/// Where they end; the provider's name follows.
pub(super) const CALLBACK: &str = "/auth/callback/";

type Refused = Box<Refusal>;

/// Sends the browser to the provider.
pub(super) async fn login(
    oauth: &OAuth,
    provider: &str,
    query: &str,
    address: Option<IpAddr>,
) -> Answer {
    let step = async {
        let form = Form::of(form_urlencoded::parse(query.as_bytes()))?;
        let begin = Begin {
            app: app(&form)?,
            redirect_uri: form.get("redirect_uri"),
            response_type: form.get("response_type"),
            code_challenge: form.get("code_challenge"),
            code_challenge_method: form.get("code_challenge_method"),
            dpop_jkt: form.get("dpop_jkt"),
            state: form.get("state"),
            scope: scope(&form)?,
            audiences: form.all("audience").chain(form.all("resource")).collect(),
        };
        oauth
            .begin_sign_in(provider, &begin, Caller::at(address))
            .await
    };
    sent(oauth, step.await)
}

/// Sends the browser back to the app.
pub(super) async fn callback(
    oauth: &OAuth,
    provider: &str,
    query: &str,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Answer {
    let step = async {
        let form = Form::of(form_urlencoded::parse(query.as_bytes()))?;
        let callback = Callback {
            provider,
            state: form.get("state"),
            code: form.get("code"),
            error: form.get("error"),
            iss: form.get("iss"),
        };
        let cookie = |name: &str| cookie(headers, &full_name(oauth, name));
        oauth
            .end_sign_in(&callback, cookie, Caller::at(address))
            .await
    };
    sent(oauth, step.await)
}

/// `app`, or as clients of the standard say it, `client_id`.
fn app<'f>(form: &'f Form<'_>) -> Result<Option<&'f str>, Refused> {
    match (form.get("app"), form.get("client_id")) {
        (Some(app), Some(client)) if app != client => Err(Refusal::because(
            Code::ParameterMalformed,
            "`app` and `client_id` name two apps.",
        )),
        (app, client) => Ok(app.or(client)),
    }
}

fn sent(oauth: &OAuth, step: Result<Step, Refused>) -> Answer {
    match step {
        Ok(step) => answer::found(
            &step.location,
            &set_cookie(oauth, &step.cookie),
            Outcome::SignIn(Arc::new(step.told)),
        ),
        Err(refusal) => answer::refused(refusal),
    }
}

/// Plain http is for this machine alone, where no cookie needs to be secure.
fn is_https(oauth: &OAuth) -> bool {
    oauth.exchange.issuer.starts_with("https:")
}

/// Browsers take a `__Host-` cookie from this very host alone, over https.
fn full_name(oauth: &OAuth, name: &str) -> String {
    let prefix = if is_https(oauth) { "__Host-" } else { "" };
    format!("{prefix}{name}")
}

fn set_cookie(oauth: &OAuth, (name, value): &(String, Option<String>)) -> String {
    let name = full_name(oauth, name);
    let secure = if is_https(oauth) { "; Secure" } else { "" };
    let (value, age) = match value {
        Some(value) => (value.as_str(), LIFE),
        None => ("", 0),
    };
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

/// The one cookie of that name; several are nobody's.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(COOKIE).iter();
    let mut found = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(known, _)| *known == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value.to_owned()),
        _ => None,
    }
}
