//! What a command has of the service that its configuration is of: parts like its own, its key
//! ring to look at, and its store where that is shared, or a file that nobody has open.

use crate::clock::Clock;
use crate::config::{Settings, StoreSettings};
use crate::diagnosis::{self, Diagnosis, Unseen};
use crate::explain::say::Say;
use crate::gate::Gate;
use crate::keys::{Keeper, RingPlace};
use crate::service::{Place, Service};
use crate::store::{OpenError, Store};
use std::process::ExitCode;
use std::sync::Arc;

/// What this text is diagnosed with; nothing is made on disk.
pub(super) async fn diagnosis(text: &str, settings: Settings) -> Result<Diagnosis, ExitCode> {
    let mut unseen = Unseen::default();
    let mut service = Service::new(settings.clone(), Place::Memory).map_err(|error| {
        eprintln!("error: {error}");
        super::super::wrong()
    })?;
    // Only of a token of ours does the ring say something.
    if diagnosis::is_own(text, &settings.issuer) {
        let place = RingPlace::for_command(&settings);
        let looked = Keeper::look(&place, &settings.keys, Clock::system()).await;
        let keys = looked.map_err(|error| {
            eprintln!("error: key ring: {error}");
            super::super::wrong()
        })?;
        match (keys, Arc::get_mut(&mut service.exchange)) {
            (Some(keys), Some(exchange)) => exchange.keys = Arc::new(keys),
            _ => {
                let note = Say::words("there is no key ring in ").value("place", place.describe());
                unseen.ring = Some(note.and(": run this where the service's is"));
            }
        }
    }
    match open(&settings.store).await {
        Ok(store) => {
            if let Some(clients) = Arc::get_mut(&mut service.clients) {
                let looked = clients.look_into(Arc::clone(&store)).await;
                unseen.clients = looked.err().map(|error| error.to_string());
            }
            if let Some(exchange) = Arc::get_mut(&mut service.exchange) {
                exchange.store = store;
            }
        }
        Err(why) => {
            unseen.clients = Some(why.clone());
            unseen.store = Some(why);
        }
    }
    let Service {
        exchange,
        clients,
        fetcher,
        ..
    } = service;
    Ok(Diagnosis {
        gate: Gate::new(Arc::clone(&exchange), Arc::clone(&clients)),
        settings: Arc::new(settings),
        exchange,
        clients,
        fetcher,
        unseen,
        asks: true,
    })
}

/// The service's store; never a new file.
async fn open(settings: &StoreSettings) -> Result<Arc<Store>, String> {
    match settings {
        StoreSettings::Memory => return Err("the store is in the service's memory".to_owned()),
        StoreSettings::File(path) if !path.exists() => {
            return Err(format!("there is no store at {}", path.display()));
        }
        StoreSettings::File(_) | StoreSettings::Redis(_) => {}
    }
    let store = Store::open(settings, Arc::default()).map_err(|error| match error {
        // Most often the running service, which has every right to.
        OpenError::InUse(path) => format!("{}: in use by another process", path.display()),
        error => error.to_string(),
    })?;
    store.begin().await.map_err(|error| error.to_string())?;
    Ok(Arc::new(store))
}
