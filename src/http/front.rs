//! What every request passes on its way in and every answer on its way out: an id, limits,
//! CORS, the metrics and one line in the log.

use super::admission::Admission;
use super::answer::{self, Allowed};
use super::audited::Audited;
use super::body;
use super::caller::Peer;
use super::console;
use super::cors::Cors;
use super::doors::{Behind, Door, Doors, filtered};
use super::ids::{REQUEST_ID, TRACEPARENT, Trace, request_id};
use super::log::Line;
use super::outcome::{About, Outcome};
use super::recent::Recent;
use super::route::Route;
use super::traced;
use crate::explain::{Code, Refusal};
use crate::keys::Keeper;
use crate::telemetry::traces::{RequestSpan, Traces};
use crate::telemetry::{Metrics, ending};
use http::header::{CONNECTION, HeaderValue, ORIGIN, REFERRER_POLICY};
use http::{HeaderName, Request, Version};
use hyper::body::{Body, Incoming};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use warp::reply::Response as Answer;

/// No browser guesses what an answer is.
pub(super) const NOSNIFF: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-content-type-options"),
    HeaderValue::from_static("nosniff"),
);
/// The largest sum of header names and values, in bytes: a token of 16 KiB and as much again.
const MAX_HEADERS: usize = 32 * 1024;
/// The longest request target, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// The front of a listener.
pub struct Front {
    /// The doors behind it.
    pub doors: Doors,
    /// Without it nobody is refused for what others ask.
    pub admission: Option<Arc<Admission>>,
    /// Who may read the answers in a browser.
    pub cors: Cors,
    /// Without them nothing is measured or logged.
    pub metrics: Option<Arc<Metrics>>,
    /// Our keys, which pseudonyms are keyed with.
    pub keys: Arc<Keeper>,
    /// What the audit log is told.
    pub audited: Option<Audited>,
    /// Where refusals are kept for the console.
    pub recent: Option<Arc<Recent>>,
    /// Where spans go.
    pub traces: Option<Traces>,
}

impl Front {
    /// Answers a request that began then.
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
        began: Instant,
    ) -> Answer {
        let _in_flight = self.metrics.as_ref().map(|metrics| metrics.request_began());
        let door = self.doors.find(request.uri().path());
        let route = door.map_or(Route::Other, |door| door.route);
        let path = (self.metrics.is_none()).then(|| request.uri().path().to_owned());
        let id = request_id(request.headers());
        let trace = Trace::of(request.headers());
        let origin = request.headers().get(ORIGIN).cloned();
        let audited = self.audited.as_ref();
        let network = audited.and_then(|audited| audited.network(peer, request.headers()));
        let has_body = !request.body().is_end_stream() && request.version() < Version::HTTP_2;
        let span = self.span(door, &mut request, trace.as_ref());
        let early = self.early(&request, route);
        let overdue = match &self.admission {
            Some(admission) if early.is_none() && route.decides() => admission.overdue(began),
            _ => None,
        };
        let mut unread = false;
        let mut response = if let Some(refusal) = overdue {
            unread = has_body && !body::discard(request.into_body()).await;
            answer::refused(refusal)
        } else {
            let answering = async {
                match (early, door) {
                    (Some(response), _) => response,
                    (None, None) => answer::refused(Refusal::new(Code::NotFound)),
                    (None, Some(door)) => match &door.behind {
                        Behind::Gateway(verify) => verify.answer(&request).await,
                        Behind::Filters(filters) => filtered(filters.clone(), request, peer).await,
                    },
                }
            };
            let answering = pin!(answering);
            match &span {
                None => answering.await,
                Some(span) => span.within(answering).await,
            }
        };
        let outcome = response.extensions_mut().remove::<Outcome>();
        let allowed = response.extensions_mut().remove::<Allowed>();
        let refusal = outcome.as_ref().and_then(Outcome::refusal);
        let (result, code) = ending(refusal.map(|refusal| refusal.code));
        if let Some(Outcome::Refused(refusal)) = &outcome {
            let entry = refusal.code.entry();
            response = answer::refusal(refusal, allowed, id.to_str().unwrap_or_default());
            // The body was not read, so the connection ends: let nobody send a request after it.
            let unread = unread
                || matches!(entry.status, 404 | 405 | 408 | 413 | 414 | 431)
                || refusal.code == Code::BodiesTooMany;
            if has_body && unread {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
        }
        if matches!(route, Route::Login | Route::Callback) {
            // The address has a state or a code in it.
            let none = HeaderValue::from_static("no-referrer");
            response.headers_mut().insert(REFERRER_POLICY, none);
        }
        if let Some(path) = path {
            console::protect(&path, response.headers_mut());
        }
        self.finish(&mut response, &id, trace.as_ref(), origin);
        let traced = span.as_ref().map(RequestSpan::trace_id);
        let about = About {
            route,
            id: id.to_str().unwrap_or_default(),
            trace: traced.as_deref().or(trace.as_ref().map(Trace::id)),
            network: network.as_deref(),
        };
        if let (Some(audited), Some(outcome)) = (audited, &outcome) {
            audited.answered(about, outcome).await;
        }
        if let (Some(recent), Some(refusal)) =
            (&self.recent, outcome.as_ref().and_then(Outcome::refusal))
        {
            recent.note(about, refusal);
        }
        if let Some(metrics) = &self.metrics {
            let took = began.elapsed();
            metrics.request_ended(route.name(), result, code, took);
            match &outcome {
                Some(Outcome::Refused(refusal)) if refusal.code == Code::RateLimited => {
                    if let Some(limit) = refusal.limit {
                        metrics.rate_limited(limit.bucket);
                    }
                }
                Some(Outcome::Heard(taken)) => {
                    metrics.webhook_taken(&taken.names, taken.kind, taken.outcome.name());
                }
                _ => {}
            }
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let line = Line { about, micros };
            match &outcome {
                Some(outcome) => line.told(outcome, &self.keys),
                None => line.answered(response.status()),
            }
        }
        if let Some(span) = span {
            traced::end(span, response.status().as_u16(), outcome.as_ref());
        }
        response
    }

    /// The request's span, where there are traces; whoever is asked for it is asked in that
    /// span. Probes have none.
    fn span(
        &self,
        door: Option<&Door>,
        request: &mut Request<Incoming>,
        trace: Option<&Trace>,
    ) -> Option<RequestSpan> {
        let probe = door.is_some_and(|door| door.route == Route::Health);
        let traces = self.traces.as_ref().filter(|_| !probe)?;
        let template = door.map(|door| door.template);
        let span = traced::begin(traces, template, request, trace.and_then(Trace::text));
        if let Ok(traceparent) = HeaderValue::try_from(span.traceparent()) {
            request.headers_mut().insert(TRACEPARENT, traceparent);
        }
        Some(span)
    }

    /// The answers that need no door: preflights, and requests that are too large or lead
    /// nowhere.
    fn early(&self, request: &Request<Incoming>, route: Route) -> Option<Answer> {
        // CONNECT names no path.
        let Some(target) = request.uri().path_and_query() else {
            return Some(answer::refused(Refusal::new(Code::NotFound)));
        };
        if target.as_str().len() > MAX_TARGET {
            return Some(answer::refused(Refusal::new(Code::UriTooLong)));
        }
        let headers: usize = request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if headers > MAX_HEADERS {
            return Some(answer::refused(Refusal::new(Code::HeadersTooLarge)));
        }
        // A gateway would take the answer to a preflight for its permission.
        let preflight = || self.cors.preflight(request.method(), request.headers());
        (route != Route::Verify).then(preflight).flatten()
    }

    fn finish(
        &self,
        response: &mut Answer,
        id: &HeaderValue,
        trace: Option<&Trace>,
        origin: Option<HeaderValue>,
    ) {
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id.clone());
        headers.insert(NOSNIFF.0, NOSNIFF.1);
        if let Some(trace) = trace {
            headers.insert(TRACEPARENT, trace.value());
        }
        self.cors.apply(origin, headers);
    }
}
