//! `exchequer explain` of a token of this service: the checks that `/auth/verify` makes, with the
//! ring of the folder, and with the store where no running service has it open.

use super::Args;
use crate::clock::Clock;
use crate::config::{Settings, StoreSettings};
use crate::diagnosis;
use crate::gate::{Demand, Gate};
use crate::keys::{Keeper, RingPlace};
use crate::service::{Place, Service};
use crate::store::Store;
use std::process::ExitCode;
use std::sync::Arc;

/// Explains it.
pub(super) async fn explain(text: &str, args: &Args, settings: Settings) -> ExitCode {
    let mut notes = Vec::new();
    let place = RingPlace::for_command(&settings);
    let keys = match Keeper::look(&place, &settings.keys, Clock::system()).await {
        Ok(keys) => keys,
        Err(error) => {
            eprintln!("error: key ring: {error}");
            return crate::cli::wrong();
        }
    };
    if keys.is_none() {
        let place = place.describe();
        notes.push(format!(
            "there is no key ring in {place}: run this where the service's is"
        ));
    }
    let store = open(&settings.store).await;
    if let Err(why) = &store {
        notes.push(format!("revocation was not looked at: {why}"));
    }
    let mut service = match Service::new(settings, Place::Memory) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("error: {error}");
            return crate::cli::wrong();
        }
    };
    let looked_at = store.is_ok();
    if let Some(exchange) = Arc::get_mut(&mut service.exchange) {
        if let Some(keys) = keys {
            exchange.keys = Arc::new(keys);
        }
        if let Ok(store) = &store {
            exchange.store = Arc::clone(store);
        }
    }
    if let (Some(clients), Ok(store)) = (Arc::get_mut(&mut service.clients), store)
        && let Err(error) = clients.look_into(store).await
    {
        notes.push(format!("registered clients were not looked at: {error}"));
    }
    let gate = Gate::new(Arc::clone(&service.exchange), Arc::clone(&service.clients));
    let demand = Demand {
        app: args.app.as_deref(),
        audience: args.audience.as_deref(),
    };
    let mut told = diagnosis::of_own(&gate, text, demand, looked_at).await;
    told.notes.append(&mut notes);
    super::show(&told, args.json)
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
