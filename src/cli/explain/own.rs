//! `exchequer explain` of a token of this service: the checks that `/auth/verify` makes, with the
//! ring of the folder, and with the store where no running service has it open.

mod running;

use super::{Args, decoded, facts, service, title};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{Settings, StoreSettings};
use crate::diagnosis;
use crate::explain::ladder::Outcome;
use crate::explain::nearest::Difference;
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use crate::explain::{Code, Refusal};
use crate::gate::{Demand, Gate};
use crate::keys::keeper::KeeperError;
use crate::keys::ring::State;
use crate::keys::{Keeper, RingPlace};
use crate::store::Store;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Arc;

/// Explains it.
pub(super) async fn explain(
    text: &str,
    args: &Args,
    settings: Settings,
) -> Result<Report, ExitCode> {
    let now = Clock::system().now();
    let mut notes = vec![Say::words(
        "its `iss` is this service: backends and gateways take it; /auth/exchange would refuse it as subject_token_is_app_token",
    )];
    let (header, claims) = decoded(text);
    let place = RingPlace::for_command(&settings);
    let looked = look(&place, &settings, &header, now, &mut notes).await;
    let keys = looked.map_err(|error| {
        eprintln!("error: key ring: {error}");
        crate::cli::wrong()
    })?;
    let store = open(&settings.store).await;
    let mut service = service(settings.clone())?;
    let looked_at = store.is_ok();
    if let Some(exchange) = Arc::get_mut(&mut service.exchange) {
        if let Some(keys) = keys {
            exchange.keys = Arc::new(keys);
        }
        if let Ok(store) = &store {
            exchange.store = Arc::clone(store);
        }
    }
    let unseen = store.as_ref().err().cloned();
    if let (Some(clients), Ok(store)) = (Arc::get_mut(&mut service.clients), store)
        && let Err(error) = clients.look_into(store).await
    {
        let note = Say::words("registered clients were not looked at: ");
        notes.push(note.value("reason", error.to_string()));
    }
    let gate = Gate::new(Arc::clone(&service.exchange), Arc::clone(&service.clients));
    let demand = Demand {
        app: args.app.as_deref(),
        audience: args.audience.as_deref(),
    };
    let told = diagnosis::of_own(&gate, text, demand, looked_at).await;
    let mut refusal = told.refusal;
    let bound = claims.get("cnf").is_some();
    if bound {
        notes.push(Say::words(
            "it is bound to a key (`cnf`): it passes as `Authorization: DPoP`, with a proof by that key, and not as a bearer token",
        ));
    }
    let mut steps: Vec<Step> = told.rungs.into_iter().map(Into::into).collect();
    if let Some(why) = unseen {
        // The service that has the store open can say it.
        let asked = match refusal {
            None if !bound => running::ask(&settings, &service, text, demand).await,
            _ => None,
        };
        let revocation = steps.iter_mut().find(|step| step.check == "revocation");
        match (asked, revocation) {
            (Some(answer), Some(step)) => {
                notes.push(Say::words(
                    "revocation was asked of the running service, at EXCHEQUER_LISTEN",
                ));
                step.outcome = Outcome::Passed;
                if let Some(code) = answer {
                    step.outcome = Outcome::Failed;
                    refusal = Some(Refusal::new(code));
                }
            }
            _ => notes.push(Say::words("revocation was not looked at: ").value("reason", why)),
        }
    }
    let code = refusal.as_ref().map(|refusal| refusal.code);
    let facts = facts(text);
    let service_token = claims.get("idp").is_none();
    let what = if service_token {
        "service token"
    } else {
        "app token"
    };
    Ok(Report {
        kind: "app_token",
        title: vec![title(what, &facts, "decoded, NOT yet trusted")],
        token: Some(facts),
        accepted: Some(code.is_none()),
        steps,
        unreached: Vec::new(),
        verdict: code
            .is_none()
            .then(|| Say::words("a gateway that asks so would be told whose it is")),
        code,
        description: refusal.as_ref().map(|refusal| refusal.description.clone()),
        because: refusal.and_then(|refusal| refusal.cause),
        next: code.map_or_else(Vec::new, |code| hints(code, &claims, args, &settings, now)),
        known: code.into_iter().flat_map(Code::known_issues).collect(),
        notes,
        ..Report::default()
    })
}

/// The ring, only looked at, and what it says of the token's key.
async fn look(
    place: &RingPlace,
    settings: &Settings,
    header: &Value,
    now: UnixSeconds,
    notes: &mut Vec<Say>,
) -> Result<Option<Keeper>, KeeperError> {
    let Some(loaded) = place.load().await? else {
        let note = Say::words("there is no key ring in ").value("place", place.describe());
        notes.push(note.and(": run this where the service's is"));
        return Ok(None);
    };
    let kid = header
        .get("kid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if loaded.ring.revoked.iter().any(|revoked| revoked == kid) {
        notes.push(Say::words(
            "its key was revoked here with `exchequer keys revoke`: no token of it passes any more",
        ));
    }
    if let Some(key) = loaded.ring.keys.iter().find(|key| key.kid == kid) {
        let (state, since) = match key.state {
            State::Next => (
                "its key is published and does not sign yet",
                Some(key.published_at),
            ),
            State::Active => ("its key signs", key.activated_at),
            State::Retired => (
                "its key is retired: published, and signs no more",
                key.retired_at,
            ),
        };
        let mut note = Say::words(state);
        if let Some(since) = since {
            note = note
                .and(", since ")
                .number(now.saturating_sub(since).max(0) / 3600)
                .and(" h");
        }
        notes.push(note);
    }
    Keeper::look(place, &settings.keys, Clock::system()).await
}

/// What to do about a refusal of a token of ours.
fn hints(
    code: Code,
    claims: &Value,
    args: &Args,
    settings: &Settings,
    now: UnixSeconds,
) -> Vec<Say> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| claims.get(name).and_then(Value::as_i64);
    match code {
        Code::AppTokenAudienceMismatch => {
            let audiences = match claims.get("aud") {
                Some(Value::String(one)) => vec![one.as_str()],
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            let wanted = args.audience.as_deref().unwrap_or_default();
            let near = Difference::nearest(wanted, audiences.iter().copied());
            let mut next: Vec<Say> = near
                .map(|(near, difference)| {
                    Say::words("")
                        .value("audience", wanted)
                        .and(" is nearly ")
                        .value("audience", near)
                        .and(": ")
                        .and(difference.words())
                        .and(".")
                })
                .into_iter()
                .collect();
            let app = text("client_id").unwrap_or_default();
            if let Some(place) = settings.places.of("apps", app, "audience") {
                next.push(
                    Say::words("The app's audiences stand in ")
                        .value("place", place)
                        .and("."),
                );
            }
            next
        }
        Code::AppTokenAppMismatch => text("client_id").map_or_else(Vec::new, |app| {
            vec![
                Say::words("It was minted for the app ")
                    .value("app", app)
                    .and(": let the client send `\"app\": \"")
                    .value("app", args.app.as_deref().unwrap_or_default())
                    .and("\"` with its exchange, or correct the gateway's question."),
            ]
        }),
        Code::AppTokenExpired => time("exp").map_or_else(Vec::new, |exp| {
            vec![
                Say::words("It ended ")
                    .number(now.saturating_sub(exp))
                    .and(" s ago, and lived ")
                    .number(time("iat").map_or(0, |iat| exp.saturating_sub(iat)))
                    .and(" s: the client kept it for longer."),
            ]
        }),
        Code::AppTokenKeyUnknown => vec![Say::words(
            "If `exchequer keys list` shows other kids, the token is of another environment with the same EXCHEQUER_ISSUER, or its ring was replaced: each environment needs an issuer of its own.",
        )],
        _ => Vec::new(),
    }
}

/// The service's store, where it is shared, or a file that nobody has open; never a new file.
pub(super) async fn open(settings: &StoreSettings) -> Result<Arc<Store>, String> {
    match settings {
        StoreSettings::Memory => return Err("the store is in the service's memory".to_owned()),
        StoreSettings::File(path) if !path.exists() => {
            return Err(format!("there is no store at {}", path.display()));
        }
        StoreSettings::File(_) | StoreSettings::Redis(_) => {}
    }
    let store = Store::open(settings, Arc::default()).map_err(|error| error.to_string())?;
    store.begin().await.map_err(|error| error.to_string())?;
    Ok(Arc::new(store))
}
