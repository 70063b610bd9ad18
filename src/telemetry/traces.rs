//! Traces of requests (OpenTelemetry): a span for each request, and one for each thing in it that
//! waits or costs. What they may say is what stands here; never a token, a secret, a user, a
//! client's address or a query.
//!
//! The span of the request is the task's own. Without traces there is none, and whatever would
//! have a span finds that out by one look and does nothing more.

mod export;

use super::Metrics;
use crate::config::{Sampling, TraceSettings};
pub use export::Export;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanLimits};
use std::sync::Arc;
use url::Url;

tokio::task_local! {
    static CURRENT: Current;
}

/// A span, and what makes its children.
#[derive(Clone)]
struct Current {
    tracer: SdkTracer,
    context: Context,
}

impl Current {
    fn begin(tracer: &SdkTracer, parent: &Context, name: String, kind: SpanKind) -> Self {
        let builder = tracer.span_builder(name).with_kind(kind);
        let span = tracer.build_with_context(builder, parent);
        Self {
            tracer: tracer.clone(),
            context: Context::new().with_span(span),
        }
    }

    fn child(&self, name: String, kind: SpanKind) -> Self {
        Self::begin(&self.tracer, &self.context, name, kind)
    }

    fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.context
            .span()
            .set_attribute(KeyValue::new(name, value));
    }

    /// Said, for a task that goes on may still hold it.
    fn end(&self) {
        self.context.span().end();
    }

    fn traceparent(&self) -> String {
        let span = self.context.span();
        let context = span.span_context();
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    }
}

/// A span that is open; dropped before its end, it was given up.
#[must_use]
pub struct Open(Option<Current>);

impl Open {
    /// Says something of it. The names are OpenTelemetry's conventions, or begin with
    /// `exchequer.`.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(current) = &self.0 {
            current.set(name, value);
        }
    }

    /// Runs what makes requests for it: [`traceparent`] is its own there.
    pub fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        match &self.0 {
            None => run(),
            Some(current) => CURRENT.sync_scope(current.clone(), run),
        }
    }

    /// It ended well.
    pub fn end(mut self) {
        if let Some(current) = self.0.take() {
            current.end();
        }
    }

    /// It failed, with this `error.type`.
    pub fn fail(mut self, error: impl Into<Value>) {
        if let Some(current) = self.0.take() {
            current.set("error.type", error);
            current.context.span().set_status(Status::error(""));
            current.end();
        }
    }

    /// It ended so.
    pub fn ended<T, E>(self, result: &Result<T, E>, error: impl FnOnce(&E) -> &'static str) {
        match result {
            Ok(_) => self.end(),
            Err(cause) => self.fail(error(cause)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(current) = self.0.take() {
            current.set("error.type", "cancelled");
            current.end();
        }
    }
}

/// Begins a span in the current one; of none where there is none, or it is not kept.
pub fn begin(name: &'static str) -> Open {
    let child = CURRENT.try_with(|current| {
        let kept = current.context.span().is_recording();
        kept.then(|| current.child(name.to_owned(), SpanKind::Internal))
    });
    Open(child.ok().flatten())
}

/// Begins the span of a request to somebody else (OpenTelemetry semantic conventions for HTTP
/// clients). The URL's path and query are not told: they name sessions and users.
pub fn begin_call(method: &str, url: &Url) -> Open {
    // Also where it is not kept: whoever is asked learns that from its traceparent.
    let child = CURRENT.try_with(|current| current.child(method.to_owned(), SpanKind::Client));
    let call = Open(child.ok());
    if call.0.is_some() {
        call.set("http.request.method", method.to_owned());
        call.set(
            "server.address",
            url.host_str().unwrap_or_default().to_owned(),
        );
        if let Some(port) = url.port_or_known_default() {
            call.set("server.port", i64::from(port));
        }
    }
    call
}

/// `traceparent` of the current span (W3C Trace Context §3.2).
pub fn traceparent() -> Option<String> {
    CURRENT.try_with(Current::traceparent).ok()
}

/// Takes the current span along to another task.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Clone::clone).ok();
    async move {
        match current {
            None => work.await,
            Some(current) => CURRENT.scope(current, work).await,
        }
    }
}

/// What makes the spans of requests.
pub struct Traces {
    tracer: SdkTracer,
}

/// The traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The HTTP client.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter.
    #[error("exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Traces {
    /// Traces that these settings describe, and what exports them once it runs.
    ///
    /// # Errors
    /// Where the exporter cannot be made.
    pub fn new(
        settings: &TraceSettings,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Export), TracesError> {
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(
                settings
                    .resource
                    .iter()
                    .map(|(name, value)| KeyValue::new(name.clone(), value.clone())),
            )
            .with_service_name(settings.service_name.clone())
            .build();
        let (queue, export) = export::new(settings, &resource, metrics)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.sampling))
            .with_span_limits(SpanLimits::default())
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let tracer = provider.tracer_with_scope(scope);
        Ok((Self { tracer }, export))
    }

    /// Begins the span of a request. `traceparent` is a sound one, or there is none and a trace
    /// begins.
    pub fn request(
        &self,
        name: String,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
    ) -> RequestSpan {
        let parent = traceparent.and_then(|text| remote(text, tracestate));
        let parent = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent)
        });
        let current = Current::begin(&self.tracer, &parent, name, SpanKind::Server);
        RequestSpan(Open(Some(current)))
    }
}

/// The span of a request.
pub struct RequestSpan(Open);

impl RequestSpan {
    /// Its trace's id, as it stands in the log.
    pub fn trace_id(&self) -> String {
        let current = self.0.0.as_ref();
        current.map_or_else(String::new, |current| {
            current.context.span().span_context().trace_id().to_string()
        })
    }

    /// Its `traceparent` (W3C Trace Context §3.2), for whoever is asked in it.
    pub fn traceparent(&self) -> String {
        let current = self.0.0.as_ref();
        current.map_or_else(String::new, Current::traceparent)
    }

    /// Does the request's work in it.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        match &self.0.0 {
            None => work.await,
            Some(current) => CURRENT.scope(current.clone(), work).await,
        }
    }

    /// Says something of it.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.0.set(name, value);
    }

    /// It was answered with this status and, where it was refused, this code. Whose fault it is
    /// tells whether the span is an error: of a refusal it is the caller's (semantic conventions
    /// for HTTP servers).
    pub fn end(self, status: u16, refused: Option<&'static str>) {
        self.set("http.response.status_code", i64::from(status));
        match refused {
            Some(code) if status >= 500 => self.0.fail(code),
            Some(code) => {
                self.set("error.type", code);
                self.0.end();
            }
            None => self.0.end(),
        }
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    let own = match sampling.share {
        share if share >= 1.0 => Sampler::AlwaysOn,
        share if share <= 0.0 => Sampler::AlwaysOff,
        share => Sampler::TraceIdRatioBased(share),
    };
    if sampling.by_parent {
        Sampler::ParentBased(Box::new(own))
    } else {
        own
    }
}

/// The caller's span, of its sound `traceparent`. A `tracestate` that is none is left out (W3C
/// Trace Context §3.3.1).
fn remote(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let trace = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let flags = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()?;
    let state = tracestate.and_then(|text| text.parse::<TraceState>().ok());
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(
        trace,
        span,
        flags,
        true,
        state.unwrap_or_default(),
    ))
}
