//! Many processes of the service, and where they are.

use super::plan::at_last;
use super::support::Service;
use super::support::service::Builder;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

/// Where a replica is.
#[derive(Clone)]
pub struct Place {
    pub url: String,
    pub admin: String,
    ready: Arc<AtomicBool>,
}

impl Place {
    fn of(service: &Service) -> Self {
        Self {
            url: service.url.clone(),
            admin: service.admin.clone(),
            ready: Arc::new(AtomicBool::new(true)),
        }
    }

    /// What its probe said last.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Waits until its probe is good: it may listen before it has its keys.
async fn ready(service: &Service) {
    at_last("it is ready", async || {
        service.admin("/readyz").await.status == 200
    })
    .await;
}

/// Where all of them are; whoever was started anew is somewhere else.
pub type Places = Arc<RwLock<Vec<Place>>>;

/// The replicas.
pub struct Replicas {
    pub services: Vec<Service>,
    pub places: Places,
}

impl Replicas {
    /// Starts one of each.
    pub async fn start(builders: Vec<Builder>) -> Self {
        let mut services = Vec::new();
        for builder in builders {
            let service = builder.start().await;
            ready(&service).await;
            services.push(service);
        }
        let places = services.iter().map(Place::of).collect();
        Self {
            services,
            places: Arc::new(RwLock::new(places)),
        }
    }

    /// Kills one (SIGKILL) and starts it anew.
    pub async fn kill(&mut self, index: usize) {
        self.services[index].restart().await;
        self.moved(index).await;
    }

    /// Stops one in good order (SIGTERM) and starts it anew.
    pub async fn replace(&mut self, index: usize) {
        let service = &mut self.services[index];
        service.signal("TERM");
        assert_eq!(service.ended().await, Some(0), "{:#?}", service.log());
        service.restart().await;
        self.moved(index).await;
    }

    async fn moved(&self, index: usize) {
        ready(&self.services[index]).await;
        self.places.write().unwrap()[index] = Place::of(&self.services[index]);
    }
}
