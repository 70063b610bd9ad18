//! `GET /auth/login/{provider}` and `GET /auth/callback/{provider}`: the browser's way to a
//! provider and back. What is wrong before the app is certain is answered here; the rest is told
//! to the app, in the redirect.

use super::answer;
use super::form::Form;
use super::outcome::Outcome;
use super::token::scope;
use crate::exchange::Caller;
use crate::explain::Refusal;
use crate::oauth::OAuth;
use crate::oauth::sign_in::{self, Begin, Callback, LIFE, Step, app_named};
use http::header::{COOKIE, HeaderMap};
use std::net::IpAddr;
use std::sync::Arc;
use url::form_urlencoded;
use warp::reply::Response as Answer;

/// How many other sign-ins a browser that begins one keeps under way: each has a cookie, and
/// proxies bound the header that holds them.
const OTHERS: usize = 4;

type Refused = Box<Refusal>;

/// Sends the browser to the provider.
pub(super) async fn login(
    oauth: &OAuth,
    provider: &str,
    query: &str,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Answer {
    let step = async {
        let form = Form::of(form_urlencoded::parse(query.as_bytes()))?;
        let begin = Begin {
            app: app_named(form.get("app"), form.get("client_id"))?,
            redirect_uri: form.get("redirect_uri"),
            response_type: form.get("response_type"),
            code_challenge: form.get("code_challenge"),
            code_challenge_method: form.get("code_challenge_method"),
            dpop_jkt: form.get("dpop_jkt"),
            state: form.get("state"),
            scope: scope(&form)?,
            audiences: form.audiences(),
        };
        oauth
            .begin_sign_in(provider, &begin, Caller::at(address))
            .await
    };
    sent(oauth, step.await, &too_many(oauth, headers))
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
    sent(oauth, step.await, &[])
}

/// Sends the browser on; the cookies of these names are forgotten beside.
fn sent(oauth: &OAuth, step: Result<Step, Refused>, forgotten: &[String]) -> Answer {
    match step {
        Ok(step) => {
            let (name, value) = &step.cookie;
            let own = set_cookie(oauth, &full_name(oauth, name), value.as_deref());
            let forgotten = forgotten.iter().map(|name| set_cookie(oauth, name, None));
            let cookies: Vec<String> = forgotten.chain([own]).collect();
            answer::found(
                &step.location,
                &cookies,
                Outcome::SignIn(Arc::new(step.told)),
            )
        }
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

fn set_cookie(oauth: &OAuth, name: &str, value: Option<&str>) -> String {
    let secure = if is_https(oauth) { "; Secure" } else { "" };
    let (value, age) = match value {
        Some(value) => (value, LIFE),
        None => ("", 0),
    };
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

/// The cookies that a browser sent, names and values, in its order.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(COOKIE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// The names of the cookies of the sign-ins that are too many: browsers send the oldest first
/// (RFC 6265 §5.4).
fn too_many(oauth: &OAuth, headers: &HeaderMap) -> Vec<String> {
    let prefix = full_name(oauth, sign_in::COOKIE);
    let ours = |name: &str| {
        let rest = name.strip_prefix(&prefix).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !rest.is_empty() && rest.bytes().all(plain)
    };
    let mut names: Vec<&str> = cookies(headers).map(|(name, _)| name).collect();
    names.retain(|name| ours(name));
    let too_many = names.len().saturating_sub(OTHERS);
    let oldest = names.into_iter().take(too_many);
    oldest.map(str::to_owned).collect()
}

/// The one cookie of that name; several are nobody's.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut found = cookies(headers).filter(|(known, _)| *known == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value.to_owned()),
        _ => None,
    }
}
