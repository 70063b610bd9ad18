//! The box that explains: what `exchequer explain` says of a pasted text, with the keys and the
//! store of the running service. The text is neither kept nor logged, nor shown to anybody.

use super::access::Asked;
use super::on;
use crate::explain::input::Input;
use crate::explain::{Code, Refusal};
use crate::gate::Demand;
use crate::http::admin::Admin;
use crate::http::{answer, body, headers};
use bytes::Buf;
use futures_util::Stream;
use serde::Deserialize;
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
    let explained = console.requests.spawn(async move {
        let demand = Demand {
            app: asking.app.as_deref().filter(|app| !app.is_empty()),
            audience: asking.audience.as_deref().filter(|each| !each.is_empty()),
        };
        let input = Input::read(&asking.text);
        here.diagnosis.explain(&input, demand).await.json(false)
    });
    let explained = explained
        .await
        .map_err(|_| Refusal::new(Code::InternalError))?;
    Ok(answer::ok(&explained, 8 * 1024))
}
