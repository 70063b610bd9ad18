//! The box that explains: what `exchequer explain` says of a pasted text, with the keys and the
//! store of the running service. The text is neither kept nor logged, nor shown to anybody.

use super::access::Asked;
use super::{Console, on};
use crate::diagnosis;
use crate::explain::foreign::is_assertion;
use crate::explain::input::{Input, Shape};
use crate::explain::{Code, Refusal};
use crate::gate::Demand;
use crate::http::admin::Admin;
use crate::http::{answer, body, headers};
use crate::policy::app::Wish;
use bytes::Buf;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use warp::reply::Response as Answer;

/// What is asked. It has no `Debug`: the text is a credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    text: String,
    app: Option<String>,
    audience: Option<String>,
}

/// `POST /console/explain`.
pub(super) async fn answer<B: Buf>(
    admin: &Admin,
    asked: &Asked<'_>,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, Box<Refusal>> {
    let console = on(admin)?;
    console.access.data(asked)?;
    // No form of another page has this type.
    headers::has_type(asked.headers, "application/json")?;
    let bytes = body::read_alone(asked.headers, stream).await?;
    // What is wrong with it is not told: the parser's words would quote it.
    let asking: Asking =
        serde_json::from_slice(&bytes).map_err(|_| Refusal::new(Code::BodyMalformed))?;
    if asking.text.trim().is_empty() {
        let sentence = "There is nothing to explain in `text`.";
        return Err(Refusal::because(Code::ParameterMalformed, sentence));
    }
    let internal = |_| Refusal::new(Code::InternalError);
    let _place = console.explaining.acquire().await.map_err(internal)?;
    let here = Arc::clone(console);
    let explained = console
        .requests
        .spawn(async move { explain(&here, &asking).await });
    let explained = explained
        .await
        .map_err(|_| Refusal::new(Code::InternalError))?;
    Ok(answer::ok(&explained, 8 * 1024))
}

async fn explain(console: &Console, asking: &Asking) -> Value {
    let input = Input::read(&asking.text);
    let text = input.text.as_ref();
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (app, audience) = (filled(&asking.app), filled(&asking.audience));
    let audience = audience.as_deref();
    let wish = Wish {
        app: app.as_deref(),
        audiences: audience.as_slice(),
        ..Wish::default()
    };
    match &input.shape {
        Shape::Answer(answer) => return with(diagnosis::of_answer(answer), "answer"),
        Shape::Secret(secret) => {
            let (what, rotate) = (secret.what, secret.rotate);
            return json!({
                "kind": "secret",
                "accepted": false,
                "description": format!("This is {what}, and no token. Replace it now: it has been in a clipboard. A new one is made at {rotate}."),
            });
        }
        _ => {}
    }
    if is_assertion(text) {
        let steps = console.clients.explain(text).await;
        return with(diagnosis::of_assertion(&steps, &[]), "assertion");
    }
    let exchange = &console.exchange;
    let mut told = if diagnosis::is_own(text, &exchange.issuer) {
        let app = app.as_deref();
        diagnosis::of_own(&console.gate, text, Demand { app, audience }, true).await
    } else if text.starts_with("sess_") {
        diagnosis::of_session_id(exchange, text, wish)
    } else {
        diagnosis::of_token(exchange, text, wish).await
    };
    for around in &input.around {
        let around = around.words();
        told.notes.push(format!(
            "as pasted, it has {around}; the token alone is explained"
        ));
    }
    let mut shown = with(told.json(), "credential");
    for (name, value) in [
        ("what", json!(told.what)),
        ("trust", json!(told.trust)),
        ("bytes", json!(told.bytes)),
        ("accepted_means", json!(told.accepted)),
    ] {
        add(&mut shown, name, value);
    }
    shown
}

fn with(mut report: Value, kind: &str) -> Value {
    add(&mut report, "kind", json!(kind));
    report
}

fn add(report: &mut Value, name: &str, value: Value) {
    if let Some(report) = report.as_object_mut() {
        report.insert(name.to_owned(), value);
    }
}
