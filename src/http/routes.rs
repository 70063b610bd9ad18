//! The whole public surface on one page.

use super::admission::Admission;
use super::doors::Doors;
use super::route::Route;
use super::verify::{self, Verify};
use super::{
    answer, body, caller, exchange, introspect, login, metadata, openapi, resource, revoke,
    status_list, token, webhooks,
};
use crate::config::{CALLBACK, LOGIN};
use crate::exchange::Exchange;
use crate::explain::{Code, Refusal};
use crate::oauth::OAuth;
use crate::telemetry::Metrics;
use http::{HeaderMap, Method, StatusCode};
use ipnet::IpNet;
use std::convert::Infallible;
use std::sync::Arc;
use warp::Filter;
use warp::path::FullPath;
use warp::reject::{Reject, Rejection};
use warp::reply::Response as Answer;

pub(super) const GET: &str = "GET, HEAD";
/// What a HEAD would begin or end is not asked for by one.
const GET_ALONE: &str = "GET";
const POST: &str = "POST, OPTIONS";
const POST_ALONE: &str = "POST";
const WEBHOOKS: &str = "/webhooks/clerk/";

/// The public listener's routes.
pub fn public(
    oauth: Arc<OAuth>,
    verify: Verify,
    proxies: Arc<[IpNet]>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
) -> Doors {
    let body = || body::incoming(&admission);
    let entrance = Arc::clone(&admission);
    let entrance = warp::any().map(move || Arc::clone(&entrance));
    let exchange = Arc::clone(&oauth.exchange);
    let document = Arc::new(openapi::Document::new(&exchange.issuer));
    let oauth = warp::any().map(move || Arc::clone(&oauth));
    let caller = caller::headers_and_address(proxies, metrics);
    let exchange = warp::any().map(move || Arc::clone(&exchange));

    // Macros, for no function could name the type of a body that is to come.
    let posted = only(POST)
        .and(oauth.clone())
        .and(caller.clone())
        .and(body());
    macro_rules! posted {
        ($handle:path) => {
            posted
                .clone()
                .then(|oauth: Arc<OAuth>, headers: HeaderMap, address, body| {
                    // Boxed, or each filter around it would move all that an exchange may need.
                    Box::pin(async move {
                        // First, so that the connection can go on whatever is refused.
                        match body::read(&headers, body).await {
                            Ok(body) => $handle(&oauth, &headers, address, &body).await,
                            Err(refusal) => answer::refused(refusal),
                        }
                    })
                })
        };
    }
    macro_rules! signing_in {
        ($path:path, $handle:path) => {
            below($path)
                .and(only(GET_ALONE))
                .and(oauth.clone())
                .and(query())
                .and(caller.clone())
                .and(entrance.clone())
                .then(
                    |provider: String,
                     oauth: Arc<OAuth>,
                     query: String,
                     headers: HeaderMap,
                     address,
                     admission| {
                        let step = async move {
                            $handle(&oauth, &provider, &query, &headers, address).await
                        };
                        Box::pin(admitted(admission, step))
                    },
                )
        };
    }
    let webhooks = below(WEBHOOKS)
        .and(only(POST_ALONE))
        .and(exchange.clone())
        .and(warp::header::headers_cloned())
        .and(body())
        .then(
            |app: String, exchange: Arc<Exchange>, headers: HeaderMap, body| {
                Box::pin(async move { webhooks::handle(&exchange, &app, &headers, body).await })
            },
        );
    let jwks = only(GET)
        .and(exchange)
        .and(warp::header::headers_cloned())
        .map(|exchange: Arc<Exchange>, headers: HeaderMap| {
            metadata::jwks(&exchange.keys, &headers)
        });
    let metadata = only(GET)
        .and(oauth.clone())
        .map(|oauth: Arc<OAuth>| metadata::metadata(&oauth));
    let status_list = only(GET)
        .and(oauth.clone())
        .and(warp::header::headers_cloned())
        .then(|oauth: Arc<OAuth>, headers: HeaderMap| async move {
            status_list::list(&oauth, &headers).await
        });
    let resource = |of_verify| {
        only(GET)
            .and(oauth.clone())
            .map(move |oauth: Arc<OAuth>| resource::document(&oauth, of_verify))
    };
    let (resource, verified) = (resource(false), resource(true));
    let status_lists = only(GET)
        .and(oauth.clone())
        .map(|oauth: Arc<OAuth>| status_list::lists(&oauth));
    let openapi = only(GET)
        .and(warp::header::headers_cloned())
        .map(move |headers: HeaderMap| document.answer(&headers));
    let health =
        only(GET).map(|| answer::plain(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"));

    Doors::default()
        .at_each(Route::Exchange, &exchange::PATHS, posted!(exchange::handle))
        .gateway(Route::Verify, verify::PATH, verify)
        .at(Route::Token, "/oauth/token", posted!(token::handle))
        .at(
            Route::Introspect,
            "/oauth/introspect",
            posted!(introspect::handle),
        )
        .at(Route::Revoke, "/oauth/revoke", posted!(revoke::handle))
        .below(
            Route::Login,
            LOGIN,
            "/auth/login/{provider}",
            signing_in!(LOGIN, login::login),
        )
        .below(
            Route::Callback,
            CALLBACK,
            "/auth/callback/{provider}",
            signing_in!(CALLBACK, login::callback),
        )
        .below(
            Route::Webhooks,
            "/webhooks/",
            "/webhooks/clerk/{app}",
            webhooks,
        )
        .at(Route::Jwks, "/.well-known/jwks.json", jwks)
        .at_each(
            Route::Metadata,
            &[
                "/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server",
            ],
            metadata,
        )
        .at(Route::Metadata, resource::PATH, resource)
        .at(Route::Metadata, resource::OF_VERIFY, verified)
        .at(Route::StatusList, "/.well-known/status-lists", status_lists)
        .at(
            Route::StatusList,
            "/.well-known/status-lists/1",
            status_list,
        )
        .at(Route::Openapi, "/openapi.json", openapi)
        .at(Route::Health, "/healthz", health)
}

/// What a door answers to a request without a body, if it is let in.
async fn admitted(admission: Arc<Admission>, door: impl Future<Output = Answer>) -> Answer {
    match admission.enter().await {
        Ok(_place) => door.await,
        Err(refusal) => answer::refused(refusal),
    }
}

/// A name in the place of the last part of the path.
fn below(
    path: &'static str,
) -> impl Filter<Extract = (String,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::path::full().and_then(move |full: FullPath| async move {
        match full.as_str().strip_prefix(path) {
            Some(name) if !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
            _ => Err(warp::reject::not_found()),
        }
    })
}

/// The query as it came; empty where there is none.
pub(super) fn query()
-> impl Filter<Extract = (String,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

/// The path is there, the method is not.
#[derive(Debug)]
struct WrongMethod(&'static str);

impl Reject for WrongMethod {}

/// Passes the methods of an `Allow` header.
pub(super) fn only(
    allow: &'static str,
) -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::method()
        .and_then(move |method: Method| async move {
            let allowed =
                allow.split(", ").any(|each| each == method.as_str()) && method != Method::OPTIONS;
            if allowed {
                Ok(())
            } else {
                Err(warp::reject::custom(WrongMethod(allow)))
            }
        })
        .untuple_one()
}

/// Every rejection of warp's, in one place.
pub(super) async fn refused(rejection: Rejection) -> Result<Answer, Infallible> {
    Ok(match rejection.find::<WrongMethod>() {
        Some(WrongMethod(allow)) => answer::method_not_allowed(allow),
        None => answer::refused(Refusal::new(Code::NotFound)),
    })
}
