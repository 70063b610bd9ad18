//! The clients that are registered at run time: all of them in one entry of the store, which a
//! change replaces as a whole or not at all.
//!
//! Whoever has the store open makes the change: the running service, or `exchequer clients`
//! where none runs. Of a secret the store has a hash alone. The clients of the file come first:
//! an id of the file or of an app cannot be registered, and one that came into the file later
//! is the file's.

use super::clients::Client;
use crate::audit::{Audit, Event};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{
    AuthMethod, CLIENT_TTL, ClientFault, ClientKeys, ClientSettings, SecretHash, Settings,
    assertion_algorithms, client_id, public_key,
};
use crate::explain::{Code, Refusal};
use crate::store::{Change, Committed, Entry, Key, Kind, Question, Replace, Store, StoreError};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

type Refused = Box<Refusal>;
type Usable = BTreeMap<String, Arc<Client>>;

/// How often the entry is looked at for changes that another process made.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a change is tried while others change the entry too.
const ATTEMPTS: usize = 16;
/// The most clients of a registry: they are all in memory.
const MAX_CLIENTS: usize = 10_000;
/// The most secrets of a client that serve at once.
const MAX_SECRETS: usize = 4;
/// The longest time, in seconds, that a replaced secret serves on.
const MAX_GRACE: UnixSeconds = 30 * 86_400;

/// A client as the store keeps it and as it is told: no secret is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// How it proves itself.
    #[serde(default)]
    pub auth_method: AuthMethod,
    /// Its secrets, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<KeptSecret>,
    /// Its public key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The audiences that it may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The scopes that it may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How long its tokens live, seconds; as long as the file's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<UnixSeconds>,
    /// Whether its own tokens have a place in the status list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status_list: bool,
    /// The apps whose users it may act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// The audiences whose tokens it may look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub introspect: Vec<String>,
}

/// A secret of a registered client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSecret {
    /// Its SHA-256, in base64url; nothing where it is only told of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Until when it serves, where another replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixSeconds>,
}

impl KeptSecret {
    /// What is kept of a secret.
    pub fn of(secret: &str) -> Self {
        Self {
            sha256: URL_SAFE_NO_PAD.encode(SecretHash::of(secret).sha256),
            until: None,
        }
    }
}

impl std::fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptSecret(…)")
    }
}

impl Registered {
    fn settings(&self) -> Result<ClientSettings, ClientFault> {
        let hash = |kept: &KeptSecret| {
            let read = SecretHash::read(&kept.sha256);
            read.map(|hash| SecretHash {
                until: kept.until,
                ..hash
            })
        };
        let hashes = self.secrets.iter().map(hash).collect::<Result<_, _>>();
        let key = self.public_key.as_deref().map(public_key).transpose();
        Ok(ClientSettings {
            method: self.auth_method,
            algorithms: assertion_algorithms(self.auth_method, None).unwrap_or_default(),
            secret: None,
            secret_hashes: hashes.map_err(|fault| (Some("secret_sha256"), fault))?,
            keys: key
                .map_err(|fault| (Some("public_key"), fault))?
                .map(ClientKeys::One),
            audiences: self.audience.clone(),
            scopes: self.scopes.clone(),
            ttl: self.ttl.unwrap_or(CLIENT_TTL),
            status_list: self.status_list,
            apps: self.apps.clone(),
            introspect: self.introspect.clone(),
            // For the file alone, where `check` notes it.
            impersonation: false,
        })
    }
}

/// What is to be done with the registry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Tell all clients.
    List,
    /// Register one.
    Add {
        /// Its id.
        id: String,
        /// What it is.
        client: Registered,
    },
    /// Give one another secret.
    RotateSecret {
        /// Its id.
        id: String,
        /// The new one.
        secret: KeptSecret,
        /// How long the one before serves on, seconds.
        grace: UnixSeconds,
    },
    /// Remove one.
    Remove {
        /// Its id.
        id: String,
    },
}

/// Where a client is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration file.
    File,
    /// The registry in the store.
    Store,
}

/// A client as it is listed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Where it is from.
    pub from: Origin,
    /// What it is; of the hashes of its secrets, only until when each serves.
    #[serde(flatten)]
    pub client: Registered,
}

#[derive(Default)]
struct Known {
    /// Nothing before they were read once.
    version: Option<u64>,
    usable: Usable,
}

/// The registry.
pub struct Registry {
    store: Arc<Store>,
    clock: Clock,
    audit: Arc<Audit>,
    configured: BTreeMap<String, ClientSettings>,
    apps: Vec<String>,
    /// The longest lifetime of a token that our keys stay published for, seconds.
    longest: UnixSeconds,
    known: ArcSwap<Known>,
}

fn key() -> Key {
    Key::of(Kind::Clients, &[])
}

fn invalid(place: Option<&str>, message: &str) -> Refused {
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let sentence = Code::ClientSettingsInvalid.entry().sentence;
    let sentence = sentence.trim_end_matches('.');
    Refusal::because(
        Code::ClientSettingsInvalid,
        format!("{sentence}: {place}{message}."),
    )
}

impl Registry {
    /// The registry in this store, not yet read.
    pub fn new(store: Arc<Store>, settings: &Settings, clock: Clock, audit: Arc<Audit>) -> Self {
        Self {
            store,
            clock,
            audit,
            configured: settings.clients.clone(),
            apps: settings.apps.iter().map(|app| app.name.clone()).collect(),
            longest: settings.keys.keep_after - 300,
            known: ArcSwap::from_pointee(Known::default()),
        }
    }

    /// The same in another store, not yet read.
    pub fn over(&self, store: Arc<Store>) -> Self {
        Self {
            store,
            clock: self.clock.clone(),
            audit: Arc::clone(&self.audit),
            configured: self.configured.clone(),
            apps: self.apps.clone(),
            longest: self.longest,
            known: ArcSwap::from_pointee(Known::default()),
        }
    }

    /// Whether they were read at least once.
    pub fn is_read(&self) -> bool {
        self.known.load().version.is_some()
    }

    /// The client of this id, as it was last read.
    pub fn find(&self, id: &str) -> Option<Arc<Client>> {
        self.known.load().usable.get(id).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.known.load().usable.values().cloned().collect()
    }

    /// Whether one of them gets tokens; before they were read one may.
    pub fn any(&self) -> bool {
        let known = self.known.load();
        known.version.is_none() || known.usable.values().any(|client| client.gets_tokens())
    }

    /// Whether the tokens of one of them have a place in the status list; before they were read
    /// one may.
    pub fn lists(&self) -> bool {
        let known = self.known.load();
        let mut clients = known.usable.values();
        known.version.is_none() || clients.any(|client| client.settings.status_list)
    }

    /// The scopes of those that get tokens.
    pub fn scopes(&self) -> BTreeSet<String> {
        let known = self.known.load();
        let clients = known.usable.values();
        let clients = clients.filter(|client| client.gets_tokens());
        clients
            .flat_map(|client| client.settings.scopes.iter().cloned())
            .collect()
    }

    /// Reads the clients, where they have changed.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (version, clients) = self.read().await?;
        if self.known.load().version != Some(version) {
            self.take(version, &clients);
        }
        Ok(())
    }

    /// Reads them again and again, until the task is dropped.
    pub async fn keep_known(self: Arc<Self>) {
        let mut each = tokio::time::interval(LOOK_EVERY);
        loop {
            each.tick().await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the registered clients could not be read");
            }
        }
    }

    async fn read(&self) -> Result<(u64, BTreeMap<String, Registered>), StoreError> {
        let question = Question {
            entries: &[key()],
            ..Question::default()
        };
        let answer = self.store.ask(question, self.clock.now()).await?;
        let Some(Entry { version, body, .. }) = answer.entries.into_iter().flatten().next() else {
            return Ok((0, BTreeMap::new()));
        };
        let clients = serde_json::from_slice(&body)
            .map_err(|error| StoreError(format!("the registered clients: {error}")))?;
        Ok((version, clients))
    }

    fn take(&self, version: u64, clients: &BTreeMap<String, Registered>) {
        let mut usable = Usable::new();
        for (id, client) in clients {
            match client.settings() {
                _ if self.configured.contains_key(id) || self.apps.contains(id) => {
                    tracing::warn!(
                        client = id,
                        "registered, and in the file: the file's counts"
                    );
                }
                Ok(settings) => {
                    usable.insert(id.clone(), Arc::new(Client::new(id, settings)));
                }
                Err((_, fault)) => {
                    tracing::warn!(client = id, fault, "a registered client is not used");
                }
            }
        }
        let version = Some(version);
        self.known.store(Arc::new(Known { version, usable }));
    }

    /// Does what is to be done, and tells the clients that it is about.
    pub async fn obey(&self, order: Order) -> Result<Vec<Listed>, Refused> {
        let (id, outcome) = match &order {
            Order::List => return self.list().await,
            Order::Add { id, .. } => (id.clone(), "added"),
            Order::RotateSecret { id, .. } => (id.clone(), "rotated"),
            Order::Remove { id } => (id.clone(), "removed"),
        };
        let now = self.clock.now();
        for _ in 0..ATTEMPTS {
            let (version, mut clients) = self.read().await.map_err(StoreError::refusal)?;
            let told = self.change(&order, &mut clients, now)?;
            let body = serde_json::to_vec(&clients)
                .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
            let replace = Replace {
                key: key(),
                version,
                by: Some((UnixSeconds::MAX, body)),
            };
            let change = Change {
                entries: vec![replace],
                ..Change::default()
            };
            let committed = self.store.commit(change, now).await;
            if committed.map_err(StoreError::refusal)? == Committed::Repeated {
                continue;
            }
            self.take(version.saturating_add(1), &clients);
            tracing::info!(client = id, outcome, "the registered clients have changed");
            let event = Event {
                action: "client",
                outcome,
                client: Some(&id),
                ..Event::default()
            };
            self.audit.record(event).await;
            return Ok(vec![listed(&id, Origin::Store, told)]);
        }
        Err(StoreError("others change the registered clients all the time".to_owned()).refusal())
    }

    /// Makes the change in memory; gives the client that it is about.
    fn change(
        &self,
        order: &Order,
        clients: &mut BTreeMap<String, Registered>,
        now: UnixSeconds,
    ) -> Result<Registered, Refused> {
        let unknown = |id: &str| match self.configured.contains_key(id) {
            true => Refusal::because(
                Code::ClientNotRegistered,
                "This client is in the configuration file: change it there.",
            ),
            false => Refusal::new(Code::ClientNotRegistered),
        };
        match order {
            Order::List => Ok(Registered::default()),
            Order::Add { id, client } => {
                self.may_be_added(id, client, clients)?;
                clients.insert(id.clone(), client.clone());
                Ok(client.clone())
            }
            Order::RotateSecret { id, secret, grace } => {
                let client = clients.get_mut(id).ok_or_else(|| unknown(id))?;
                if client.secrets.is_empty() {
                    let method = client.auth_method.name();
                    let message = format!("a client that authenticates by {method} has no secret");
                    return Err(invalid(None, &message));
                }
                if SecretHash::read(&secret.sha256).is_err() {
                    return Err(invalid(Some("secret"), "is no SHA-256"));
                }
                if !(0..=MAX_GRACE).contains(grace) {
                    return Err(invalid(Some("grace"), "is out of range: 0s to 30d"));
                }
                let end = now.saturating_add(*grace);
                for old in &mut client.secrets {
                    old.until = Some(old.until.map_or(end, |until| until.min(end)));
                }
                let serves = |kept: &KeptSecret| kept.until.is_some_and(|until| until > now);
                client.secrets.retain(serves);
                if client.secrets.len() >= MAX_SECRETS {
                    let message =
                        "four secrets serve already: wait until one ends, or set no grace";
                    return Err(invalid(Some("grace"), message));
                }
                client.secrets.push(KeptSecret {
                    until: None,
                    ..secret.clone()
                });
                Ok(client.clone())
            }
            Order::Remove { id } => clients.remove(id).ok_or_else(|| unknown(id)),
        }
    }

    /// Judges a new client as the file's are judged.
    fn may_be_added(
        &self,
        id: &str,
        client: &Registered,
        clients: &BTreeMap<String, Registered>,
    ) -> Result<(), Refused> {
        client_id(id).map_err(|fault| invalid(None, &fault))?;
        let taken = |by: &str| Refusal::because(Code::ClientExists, by);
        if self.configured.contains_key(id) {
            return Err(taken("The configuration file has a client of this id."));
        }
        if self.apps.iter().any(|app| app == id) {
            return Err(taken("There is an app of this name."));
        }
        if clients.contains_key(id) {
            return Err(Refusal::new(Code::ClientExists));
        }
        if clients.len() >= MAX_CLIENTS {
            return Err(invalid(None, "the registry is full"));
        }
        let settings = client.settings();
        let settings = settings.map_err(|(place, fault)| invalid(place, &fault))?;
        if let Some((place, fault)) = settings.faults().into_iter().next() {
            return Err(invalid(place, &fault));
        }
        if settings.method.sends_secret() && settings.secret_hashes.is_empty() {
            return Err(invalid(None, "a secret is missing"));
        }
        if let Some(app) = client.apps.iter().find(|app| !self.apps.contains(app)) {
            let message = format!("app {app:?} is not configured");
            return Err(invalid(Some("apps"), &message));
        }
        if settings.ttl > self.longest {
            let message = "is longer than EXCHEQUER_KEY_KEEP_AFTER allows";
            return Err(invalid(Some("ttl"), message));
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, Refused> {
        let (_, registered) = self.read().await.map_err(StoreError::refusal)?;
        let mut all: Vec<Listed> = Vec::new();
        for (id, settings) in &self.configured {
            all.push(listed(id, Origin::File, told(settings)));
        }
        for (id, client) in registered {
            if !self.configured.contains_key(&id) {
                all.push(listed(&id, Origin::Store, client));
            }
        }
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }
}

/// The client as it is told: the hashes of its secrets stay here.
fn listed(id: &str, from: Origin, mut client: Registered) -> Listed {
    for secret in &mut client.secrets {
        secret.sha256.clear();
    }
    Listed {
        id: id.to_owned(),
        from,
        client,
    }
}

/// A client of the file, as those of the registry are told.
fn told(settings: &ClientSettings) -> Registered {
    Registered {
        auth_method: settings.method,
        audience: settings.audiences.clone(),
        scopes: settings.scopes.clone(),
        ttl: Some(settings.ttl),
        status_list: settings.status_list,
        apps: settings.apps.clone(),
        introspect: settings.introspect.clone(),
        ..Registered::default()
    }
}
