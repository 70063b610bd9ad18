//! The registered clients, and how one proves that it is itself (RFC 6749 §2.3).

use crate::config::{ClientSettings, ScopeSettings};
use crate::crypto::MacKey;
use crate::explain::{Code, Refusal};
use crate::policy::App;
use rand::Rng;
use secrecy::ExposeSecret;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A registered client.
pub struct Client {
    /// Its id: `sub` and `client_id` of its tokens.
    pub id: String,
    /// Its settings.
    pub settings: ClientSettings,
    /// The scopes that it may have.
    pub scopes: Vec<ScopeSettings>,
    /// The code of its secret; of a random one where it has none.
    proof: [u8; 32],
}

/// Who asks: a registered client that proved itself, or an app that names itself, as public
/// clients do (RFC 6749 §2.1).
#[derive(Clone)]
pub enum Party {
    /// A registered client.
    Client(Arc<Client>),
    /// An app, which has no secret.
    App(Arc<App>),
}

impl Party {
    /// Its `client_id`.
    pub fn id(&self) -> &str {
        match self {
            Self::Client(client) => &client.id,
            Self::App(app) => &app.settings.name,
        }
    }
}

/// What a client sends to prove itself; its `Debug` does not show it.
pub struct Proof<'r> {
    /// The client's id.
    pub id: Cow<'r, str>,
    /// What it proves it with.
    pub evidence: Evidence<'r>,
}

/// What a client proves itself with.
pub enum Evidence<'r> {
    /// Nothing: a public client.
    None,
    /// Its secret.
    Secret {
        /// In each form in which it may be meant.
        forms: Vec<Cow<'r, str>>,
    },
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({:?})", self.id)
    }
}

/// All registered clients.
pub struct Clients {
    clients: BTreeMap<String, Arc<Client>>,
    /// Made anew for each process: codes of secrets are compared, not secrets, so that the time
    /// that it takes says nothing of them.
    key: MacKey,
    /// The code of nobody's secret, for ids that are nobody's.
    nobody: [u8; 32],
}

impl Clients {
    /// The clients of the configuration.
    pub fn new(settings: &BTreeMap<String, ClientSettings>) -> Self {
        let key = MacKey::new(&rand::rng().random::<[u8; 32]>());
        let random = || rand::rng().random::<[u8; 32]>();
        let clients = settings
            .iter()
            .map(|(id, settings)| {
                let secret = settings.secret.as_ref();
                let scope = |name: &String| ScopeSettings {
                    name: name.clone(),
                    permissions: Vec::new(),
                    when: None,
                };
                let client = Client {
                    id: id.clone(),
                    scopes: settings.scopes.iter().map(scope).collect(),
                    proof: secret.map_or_else(random, |secret| {
                        key.sign(&[secret.expose_secret().as_bytes()])
                    }),
                    settings: settings.clone(),
                };
                (id.clone(), Arc::new(client))
            })
            .collect();
        Self {
            clients,
            key,
            nobody: random(),
        }
    }

    /// Whether some client gets tokens.
    pub fn any(&self) -> bool {
        self.clients.values().any(|client| client.gets_tokens())
    }

    /// The scopes of the clients that get tokens.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let clients = self.clients.values().filter(|client| client.gets_tokens());
        let scopes = clients.flat_map(|client| &client.scopes);
        scopes.map(|scope| scope.name.as_str())
    }

    /// The client that proved to be itself. Nobody learns which ids there are: an unknown one
    /// and a wrong secret are one refusal, in the same time; the log tells them apart.
    pub fn authenticate(&self, proof: &Proof<'_>) -> Result<&Arc<Client>, Box<Refusal>> {
        let Evidence::Secret { forms } = &proof.evidence else {
            return Err(Refusal::new(Code::ClientAuthenticationMissing));
        };
        let client = self.clients.get(proof.id.as_ref());
        let expected = client.map_or(&self.nobody, |client| &client.proof);
        let proven = forms.iter().fold(false, |proven, secret| {
            self.key.verify(secret.as_bytes(), expected) | proven
        });
        match client {
            Some(client) if proven => Ok(client),
            Some(client) if client.settings.secret.is_none() => Err(failed("it has no secret")),
            Some(_) => Err(failed("the secret is wrong")),
            None => Err(failed("no client of this id is configured")),
        }
    }
}

fn failed(cause: &str) -> Box<Refusal> {
    Refusal::new(Code::ClientAuthenticationFailed).caused_by(cause)
}

impl Client {
    /// Whether it gets tokens of its own.
    pub fn gets_tokens(&self) -> bool {
        !self.settings.audiences.is_empty()
    }
}
