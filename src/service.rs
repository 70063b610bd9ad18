//! The service put together: settings in, everything that runs out.

pub mod access;
mod apart;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{IssuerSettings, Settings, StoreSettings};
use crate::crypto::BackendFailed;
use crate::diagnosis::{Diagnosis, Unseen};
use crate::directory::Directory;
use crate::exchange::Exchange;
use crate::gate::Gate;
use crate::http::admin::{self, Admin};
use crate::http::admission::Admission;
use crate::http::audited::Audited;
use crate::http::console::Console;
use crate::http::console::access::Access;
use crate::http::cors::Cors;
use crate::http::delay::Delay;
use crate::http::front::Front;
use crate::http::history::History;
use crate::http::recent::Recent;
use crate::http::server::Stop;
use crate::http::verify::Verify;
use crate::http::{routes, server};
use crate::keys::keeper::KeeperError;
use crate::keys::{Keeper, RingPlace};
use crate::oauth::OAuth;
use crate::oauth::clients::Clients;
use crate::oauth::registry::Registry;
use crate::policy::{App, Apps};
use crate::redis_client::RedisClient;
use crate::store::{Memory, OpenError, Store};
use crate::subject::Issuer;
use crate::subject::answers::Answers;
use crate::subject::clerk::api::BackendApi;
use crate::subject::fetch::Fetcher;
use crate::subject::introspection::Introspection;
use crate::subject::key_cache::KeyCache;
use crate::telemetry::Metrics;
use crate::telemetry::traces::{Export, Traces};
use apart::Apart;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long the last events may take to be delivered when the service stops. What has not been by
/// then is still in the store, and delivered after the next start.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key ring.
    #[error("key ring: {0}")]
    Keys(#[from] KeeperError),
    /// The store.
    #[error("EXCHEQUER_STORE: {0}")]
    Store(#[from] OpenError),
    /// The audit log.
    #[error("EXCHEQUER_AUDIT: {0}")]
    Audit(#[source] io::Error),
    /// The HTTP client.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// An API's base URL.
    #[error("API URL: {0}")]
    Url(#[from] url::ParseError),
    /// Random bytes.
    #[error(transparent)]
    Random(#[from] BackendFailed),
    /// A listener.
    #[error("{variable}: cannot listen on {address}: {error}{}", room(.error))]
    Listen {
        /// The variable that names the address.
        variable: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// Where the key ring and the store live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the settings say.
    Disk,
    /// In memory, until the process ends.
    Memory,
}

/// The parts of a service, not yet listening.
pub struct Service {
    /// The exchange.
    pub exchange: Arc<Exchange>,
    /// The registered clients.
    pub clients: Arc<Clients>,
    /// The issuers' key sets, each once, and the clients'.
    pub key_sets: Vec<Arc<KeyCache>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The client for upstream documents.
    pub fetcher: Fetcher,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// What makes spans of requests and what exports them, where they are wanted.
    traces: Option<(Traces, Export)>,
    /// The Redis that the store and the key ring share, where one is configured.
    redis: Option<Arc<RedisClient>>,
    place: Place,
    settings: Settings,
}

/// The algorithms that the apps' tokens and the clients' are signed with, each once, in a
/// stable order.
pub fn signing_algorithms(settings: &Settings) -> Vec<Algorithm> {
    [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
        .into_iter()
        .filter(|algorithm| {
            let clients = settings
                .clients
                .values()
                .any(|each| !each.audiences.is_empty());
            settings.apps.iter().any(|app| app.algorithm == *algorithm)
                || (clients && settings.keys.algorithm == *algorithm)
        })
        .collect()
}

impl Service {
    /// Puts the parts together; loads or makes the key ring and the store.
    pub fn new(settings: Settings, place: Place) -> Result<Self, StartError> {
        let clock = Clock::system();
        let metrics = Arc::new(Metrics::default());
        let fetcher = Fetcher::new()?;
        let algorithms = signing_algorithms(&settings);
        let audit = match place {
            Place::Disk => {
                let log = settings.audit.as_ref();
                Audit::open(log, "serve", clock.clone(), Arc::clone(&metrics))
                    .map_err(StartError::Audit)?
            }
            Place::Memory => Audit::off(clock.clone()),
        };
        let traces = match (&settings.traces, place) {
            // Nobody is turned away because nobody watches.
            (Some(traces), Place::Disk) => Traces::new(traces, Arc::clone(&metrics))
                .inspect_err(|error| tracing::warn!(%error, "there are no traces"))
                .ok(),
            _ => None,
        };
        let redis = match (&settings.store, place) {
            (StoreSettings::Redis(redis), Place::Disk) => Some(RedisClient::new(
                redis.as_ref().clone(),
                clock.clone(),
                Arc::clone(&metrics),
            )),
            _ => None,
        };
        let keys = Keeper::open(
            match place {
                Place::Disk => RingPlace::of(&settings.keys, redis.as_ref()),
                Place::Memory => RingPlace::Memory,
            },
            &settings.keys,
            algorithms,
            clock.clone(),
            Arc::clone(&metrics),
            Arc::clone(&audit),
        )?;
        let store = match (&redis, place) {
            (Some(redis), _) => {
                let down = settings.store_down;
                Store::redis(Arc::clone(redis), down, clock.clone(), Arc::clone(&metrics))
            }
            (None, Place::Disk) => Store::open(&settings.store, Arc::clone(&metrics))?,
            (None, Place::Memory) => Store::Memory(Memory::new(Arc::clone(&metrics))),
        };
        let key_sets = key_sets(&settings.issuers, &fetcher, &clock, &metrics);
        let mut issuers: BTreeMap<&str, Arc<Issuer>> = BTreeMap::new();
        for issuer in &settings.issuers {
            let Some(keys) = key_sets.get(&identity(issuer)) else {
                continue;
            };
            let backend = BackendApi::of(issuer, &fetcher, &clock, &metrics)?;
            let issuer_of = Issuer {
                settings: issuer.clone(),
                keys: Arc::clone(keys),
                backend,
                introspection: Introspection::new(issuer, &fetcher, &clock, &metrics),
                answers: Answers::new(clock.clone()),
            };
            issuers.insert(&issuer.name, Arc::new(issuer_of));
        }
        let apps = settings.apps.iter().map(|app| App {
            settings: app.clone(),
            issuers: app
                .issuers
                .iter()
                .filter_map(|name| issuers.get(name.as_str()).cloned())
                .collect(),
        });
        let store = Arc::new(store);
        let directory = Directory::new(
            &settings,
            Arc::clone(&store),
            clock.clone(),
            fetcher.clone(),
            Arc::clone(&metrics),
        );
        let registry = Registry::new(
            Arc::clone(&store),
            &settings,
            clock.clone(),
            Arc::clone(&audit),
        );
        let clients = Clients::new(
            &settings,
            Arc::new(registry),
            &fetcher,
            &metrics,
            Arc::clone(&store),
            clock.clone(),
        )?;
        let exchange = Exchange {
            issuer: settings.issuer.clone(),
            apps: Apps::new(apps, settings.issuer.clone()),
            keys: Arc::new(keys),
            store,
            directory: Arc::new(directory),
            limits: settings.rate_limits,
            clock,
        };
        Ok(Self {
            exchange: Arc::new(exchange),
            // Nobody verifies signatures of one that signs nothing that is taken.
            key_sets: key_sets
                .into_values()
                .filter(|keys| keys.kind().signs())
                .chain(clients.key_sets())
                .collect(),
            clients: Arc::new(clients),
            place,
            metrics,
            fetcher,
            audit,
            traces,
            redis,
            settings,
        })
    }

    /// Binds the listeners.
    pub async fn bind(self) -> Result<Bound, StartError> {
        let public = listen("EXCHEQUER_LISTEN", self.settings.listen).await?;
        let admin = listen("EXCHEQUER_ADMIN_LISTEN", self.settings.admin_listen).await?;
        self.exchange.keys.join().await;
        match self.exchange.store.begin().await {
            Ok(left) => tokio::time::sleep(left).await,
            Err(error) => tracing::warn!(%error, "the store cannot be asked yet"),
        }
        // What is registered is known before the first request; where it cannot be read, it is
        // tried again.
        if let Err(error) = self.clients.registry.refresh().await {
            tracing::warn!(%error, "the registered clients could not be read");
        }
        let access = match self.place {
            Place::Disk => let_in(&self.settings, admin.local_addr().ok()),
            Place::Memory => None,
        };
        Ok(Bound {
            public,
            admin,
            access,
            service: self,
        })
    }
}

/// A service whose listeners are bound.
pub struct Bound {
    /// The public listener.
    pub public: TcpListener,
    /// The admin listener.
    pub admin: TcpListener,
    /// What `exchequer clients` is let in by, and the file that says it.
    pub access: Option<(PathBuf, SecretString)>,
    /// The parts.
    pub service: Service,
}

impl Bound {
    /// Serves until it is to stop now, and what is in flight has ended.
    pub async fn serve(self, stop: Stop) {
        let Service {
            exchange,
            clients,
            key_sets,
            metrics,
            audit,
            traces,
            redis,
            settings,
            fetcher,
            place: _,
        } = self.service;
        let access = self.access;
        let proxies: Arc<[IpNet]> = settings.trusted_proxies.as_slice().into();
        let draining = Arc::new(AtomicBool::new(false));
        let background: Vec<_> = key_sets
            .iter()
            .map(|keys| tokio::spawn(Arc::clone(keys).keep_fresh()))
            .chain([
                tokio::spawn(Arc::clone(&exchange.keys).keep()),
                tokio::spawn(Arc::clone(&clients.registry).keep_known()),
                tokio::spawn(Arc::clone(&exchange.store).keep_swept(exchange.clock.clone())),
                tokio::spawn(Arc::clone(&exchange.store).keep_known()),
            ])
            .chain(redis.map(|redis| tokio::spawn(redis.keep_connected())))
            .collect();
        let (stop_delivery, delivery_stops) = watch::channel(false);
        let directory = Arc::clone(&exchange.directory);
        let delivery = tokio::spawn(directory.deliver(delivery_stops));
        let keys = Arc::clone(&exchange.keys);
        let delay = Delay::unknown(settings.max_queue_delay);
        let admission = Arc::new(Admission::new(
            settings.max_concurrency,
            Arc::clone(&delay),
            Arc::clone(&metrics),
        ));
        let admin_token = access.as_ref().map(|(_, token)| token.clone());
        let console = Access::new(
            settings.console.as_ref(),
            self.admin.local_addr().ok(),
            admin_token.as_ref(),
            exchange.clock.clone(),
        );
        let recent = Arc::new(Recent::new(exchange.clock.clone()));
        let (traces, export) = traces.unzip();
        let public = Arc::new(Front {
            doors: routes::public(
                Arc::new(OAuth::new(
                    Arc::clone(&exchange),
                    Arc::clone(&clients),
                    &settings,
                    &fetcher,
                    &metrics,
                )),
                Verify::new(
                    Gate::new(Arc::clone(&exchange), Arc::clone(&clients)),
                    settings.verify_cache,
                    Arc::clone(&admission),
                ),
                Arc::clone(&proxies),
                Arc::clone(&admission),
                Arc::clone(&metrics),
            ),
            admission: Some(Arc::clone(&admission)),
            cors: Cors::new(&settings.allowed_origins),
            metrics: Some(Arc::clone(&metrics)),
            keys: Arc::clone(&keys),
            audited: Some(Audited {
                audit: Arc::clone(&audit),
                proxies,
                keys: Arc::clone(&keys),
            }),
            recent: console.is_some().then(|| Arc::clone(&recent)),
            traces,
        });
        let history = Arc::new(History::new(exchange.clock.clone(), Arc::clone(&metrics)));
        let console = console.map(|access| Console {
            access,
            exchange: Arc::clone(&exchange),
            diagnosis: Diagnosis {
                settings: Arc::new(settings),
                exchange: Arc::clone(&exchange),
                clients: Arc::clone(&clients),
                gate: Gate::new(Arc::clone(&exchange), Arc::clone(&clients)),
                fetcher,
                unseen: Unseen::default(),
                asks: false,
            },
            recent,
            history: Arc::clone(&history),
            requests: Handle::current(),
            started_at: exchange.clock.now(),
            explaining: Console::places(),
        });
        let admin = Arc::new(Front {
            doors: admin::routes(Arc::new(Admin {
                exchange,
                key_sets,
                metrics: Arc::clone(&metrics),
                admission,
                draining: Arc::clone(&draining),
                registry: Arc::clone(&clients.registry),
                token: admin_token,
                console: console.map(Arc::new),
            })),
            admission: None,
            cors: Cors::new(&[]),
            metrics: None,
            keys,
            audited: None,
            recent: None,
            traces: None,
        });
        // The admin listener outlives the public one: probes see the draining.
        let (stop_admin, admin_stops) = watch::channel(false);
        let apart = Apart::start().await;
        if let Err(error) = &apart {
            tracing::error!(%error, "the admin listener has no thread of its own");
        }
        let here = Handle::current();
        let aside = apart.as_ref().map_or(&here, Apart::handle);
        let admin_stops = Stop::at_once(admin_stops);
        let admin = aside.spawn(serve_moved(self.admin, admin, admin_stops));
        let counting = aside.spawn(history.keep());
        let watching = aside.spawn(delay.watch(here.clone(), Arc::clone(&metrics)));
        let (stop_export, export_stops) = watch::channel(false);
        let export = export.map(|export| aside.spawn(export.run(export_stops)));
        let mut leaving = stop.leaving.clone();
        let watcher = tokio::spawn(async move {
            if leaving.wait_for(|leaving| *leaving).await.is_ok() {
                draining.store(true, Ordering::Relaxed);
            }
        });
        server::serve(self.public, public, Some(metrics), stop).await;
        // The last exchanges have ended: what they have to tell is told.
        let _ = stop_delivery.send(true);
        let _ = stop_export.send(true);
        let _ = tokio::time::timeout(LAST_EVENTS, delivery).await;
        if let Some(export) = export {
            let _ = export.await;
        }
        let _ = stop_admin.send(true);
        let _ = admin.await;
        if let Some((path, _)) = access {
            let _ = std::fs::remove_file(path);
        }
        watching.abort();
        counting.abort();
        watcher.abort();
        for task in background {
            task.abort();
        }
        // Nobody asks any more: what was recorded goes to disk before the process ends.
        let _ = tokio::task::spawn_blocking(move || audit.stop()).await;
    }
}

/// Lets `exchequer clients` in: writes its file, and gives its place and the token. Where that
/// cannot be done, nobody is let in and the service serves on.
fn let_in(settings: &Settings, address: Option<SocketAddr>) -> Option<(PathBuf, SecretString)> {
    let path = access::place(&settings.store)?;
    let token = access::new_token().ok()?;
    match access::write(&path, address?, &token) {
        Ok(()) => Some((path, token.into())),
        Err(error) => {
            let place = path.display().to_string();
            tracing::warn!(place, %error, "`exchequer clients` cannot reach this service");
            None
        }
    }
}

/// Serves the admin listener on the runtime that this runs on.
async fn serve_moved(listener: TcpListener, front: Arc<Front>, stop: Stop) {
    match listener.into_std().and_then(TcpListener::from_std) {
        Ok(listener) => server::serve(listener, front, None, stop).await,
        Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
    }
}

/// Binds the listener whose address this variable names.
pub async fn listen(
    variable: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| StartError::Listen {
        variable,
        address,
        error,
    })
}

/// What to do about an address that cannot be listened on.
fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": end the process that has it, or set this to a free port",
        io::ErrorKind::AddrNotAvailable => {
            ": no interface of this machine has that address; 0.0.0.0 and [::] stand for all"
        }
        io::ErrorKind::PermissionDenied => {
            ": a port below 1024 needs a right of its own: take a higher one"
        }
        _ => "",
    }
}

/// What makes two configured issuers share one key set: where it comes from.
fn identity(issuer: &IssuerSettings) -> String {
    format!(
        "{} {:?} {:?} {:?} {}",
        issuer.issuer, issuer.kind, issuer.jwks_uri, issuer.jwt_key, issuer.allow_private_network
    )
}

fn key_sets(
    issuers: &[IssuerSettings],
    fetcher: &Fetcher,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> BTreeMap<String, Arc<KeyCache>> {
    let mut shared: BTreeMap<String, (IssuerSettings, Vec<Algorithm>)> = BTreeMap::new();
    for issuer in issuers {
        let (_, algorithms) = shared
            .entry(identity(issuer))
            .or_insert_with(|| (issuer.clone(), Vec::new()));
        for algorithm in &issuer.algorithms {
            if !algorithms.contains(algorithm) {
                algorithms.push(*algorithm);
            }
        }
    }
    shared
        .into_iter()
        .map(|(identity, (issuer, algorithms))| {
            let cache = KeyCache::new(
                issuer,
                algorithms,
                fetcher.clone(),
                clock.clone(),
                Arc::clone(metrics),
            );
            (identity, cache)
        })
        .collect()
}
