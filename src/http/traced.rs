//! What the span of a request says: OpenTelemetry's conventions for HTTP servers, the app, the
//! issuer and the code. A path that is no route of ours is the caller's text, and is not told.

use super::outcome::Outcome;
use crate::telemetry::traces::{RequestSpan, Traces};
use http::{HeaderMap, Method, Request};

/// Begins the span of a request to the door of this template (`http.route`).
pub(super) fn begin<B>(
    traces: &Traces,
    template: Option<&'static str>,
    request: &Request<B>,
    traceparent: Option<&str>,
) -> RequestSpan {
    let method = method(request.method());
    let name = match (method, template) {
        (OTHER, template) => format!("HTTP {}", template.unwrap_or_default()),
        (method, template) => format!("{method} {}", template.unwrap_or_default()),
    };
    let span = traces.request(
        name.trim_end().to_owned(),
        traceparent,
        tracestate(request.headers()).as_deref(),
    );
    span.set("http.request.method", method);
    span.set("url.scheme", "http");
    if let Some(template) = template {
        span.set("http.route", template);
        // Of those with a part of the caller's only the template is told.
        if template == request.uri().path() {
            span.set("url.path", template);
        }
    }
    span
}

/// Ends it with what became of the request.
pub(super) fn end(span: RequestSpan, status: u16, outcome: Option<&Outcome>) {
    let told = outcome.map(about).unwrap_or_default();
    if let Some(app) = told.0 {
        span.set("exchequer.app", app.to_owned());
    }
    if let Some(issuer) = told.1 {
        span.set("exchequer.issuer", issuer.to_owned());
    }
    let refused = outcome.and_then(Outcome::refusal);
    span.end(status, refused.map(|refusal| refusal.code.entry().slug));
}

/// The app, and the `iss` of the issuer.
type Told<'o> = (Option<&'o str>, Option<&'o str>);

fn about(outcome: &Outcome) -> Told<'_> {
    let about = match outcome {
        Outcome::Refused(refusal) => refusal.about.as_ref(),
        Outcome::Exchanged(exchanged) => {
            let issuer = &exchanged.issuer.settings.issuer;
            return (Some(&exchanged.app.settings.name), Some(issuer));
        }
        Outcome::Issued(issued) => issued.about.as_ref(),
        Outcome::Revoked(revoked) => revoked.about(),
        Outcome::SignIn(told) => Some(&told.about),
        Outcome::Heard(taken) => return (Some(&taken.app), None),
        Outcome::Introspected(_) => None,
    };
    about.map_or((None, None), |about| {
        (Some(&about.app), about.issuer.as_deref())
    })
}

/// A method that nobody knows by name is the caller's text.
const OTHER: &str = "_OTHER";

fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => OTHER,
    }
}

/// `tracestate`, which may come in parts (W3C Trace Context §3.3.1.1).
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let parts: Option<Vec<&str>> = headers
        .get_all("tracestate")
        .iter()
        .map(|part| part.to_str().ok())
        .collect();
    Some(parts?.join(",")).filter(|state| (1..=512).contains(&state.len()))
}
