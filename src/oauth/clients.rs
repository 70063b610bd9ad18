//! The clients, those of the file and those registered at run time, and how one proves that it
//! is itself (RFC 6749 §2.3).
//!
//! Whatever a stranger gets wrong of it is one refusal, after the same work: an unknown client,
//! a wrong secret, none where one is needed, another method than the client's, a signature that
//! does not verify. Only the log tells them apart.

use super::assertion::{self, Assertion, Fault, Form, Rules, Step};
use super::nobody::Nobody;
use super::registry::Registry;
use crate::clock::{Clock, UnixSeconds};
use crate::config::{
    AuthMethod, ClientKeys, ClientSettings, IssuerKind, IssuerSettings, ScopeSettings, SecretHash,
    Settings,
};
use crate::crypto::{BackendFailed, VerifyingKey, sha256};
use crate::explain::{Code, Refusal};
use crate::policy::App;
use crate::store::{Change, Committed, Store, StoreError};
use crate::subject::fetch::Fetcher;
use crate::subject::jwks::{Found, KeySet};
use crate::subject::jws::Decoded;
use crate::subject::key_cache::{KeyCache, KeyError};
use crate::telemetry::Metrics;
use jsonwebtoken::Algorithm;
use secrecy::ExposeSecret;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use subtle::ConstantTimeEq;

type Refused = Box<Refusal>;

/// The keys of a client's assertions.
enum Keys {
    /// At hand.
    Held(KeySet),
    /// Fetched, and kept fresh.
    Fetched(Arc<KeyCache>),
}

/// A registered client.
pub struct Client {
    /// Its id: `sub` and `client_id` of its tokens.
    pub id: String,
    /// Its settings.
    pub settings: ClientSettings,
    /// The scopes that it may have.
    pub scopes: Vec<ScopeSettings>,
    hashes: Vec<SecretHash>,
    keys: Option<Keys>,
}

impl Client {
    /// A client whose keys are at hand, or that has none.
    pub(super) fn new(id: &str, settings: ClientSettings) -> Self {
        let hashes = match &settings.secret {
            Some(secret) => vec![SecretHash::of(secret.expose_secret())],
            None => settings.secret_hashes.clone(),
        };
        let algorithms = &settings.algorithms;
        let keys = match &settings.keys {
            Some(ClientKeys::One(key)) => Some(Keys::Held(KeySet::only(key, algorithms))),
            Some(ClientKeys::Set(text)) => {
                let set = KeySet::parse(text.as_bytes(), algorithms);
                Some(Keys::Held(set.unwrap_or_default()))
            }
            Some(ClientKeys::At { .. }) | None => None,
        };
        let scope = |name: &String| ScopeSettings {
            name: name.clone(),
            permissions: Vec::new(),
            when: None,
        };
        Self {
            id: id.to_owned(),
            scopes: settings.scopes.iter().map(scope).collect(),
            settings,
            hashes,
            keys,
        }
    }

    /// Whether it gets tokens of its own.
    pub fn gets_tokens(&self) -> bool {
        !self.settings.audiences.is_empty()
    }

    /// The key that its assertion names.
    pub(super) async fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerifyingKey>, KeyError> {
        match &self.keys {
            None => Err(KeyError::Unknown),
            Some(Keys::Fetched(cache)) => cache.find(kid, algorithm).await,
            Some(Keys::Held(set)) => match set.find(kid.unwrap_or_default(), algorithm) {
                Found::Key(key) => Ok(key),
                Found::Unusable(why) => Err(KeyError::Unusable(why)),
                Found::Unknown if kid.is_none() => Err(KeyError::NoKeyId),
                Found::Unknown => Err(KeyError::Unknown),
            },
        }
    }
}

/// Who asks: a client that proved itself, or one that only says who it is, as public clients
/// do (RFC 6749 §2.1).
#[derive(Clone)]
pub enum Party {
    /// A registered client that proved itself.
    Client(Arc<Client>),
    /// A registered client that has nothing to prove itself with: what it asks with must.
    Public(Arc<Client>),
    /// An app, which has no secret: what it asks with must prove it.
    App(Arc<App>),
}

impl Party {
    /// Its `client_id`.
    pub fn id(&self) -> &str {
        match self {
            Self::Client(client) | Self::Public(client) => &client.id,
            Self::App(app) => &app.settings.name,
        }
    }

    /// The names of the apps whose users it may act for.
    pub fn apps(&self) -> &[String] {
        match self {
            Self::Client(client) | Self::Public(client) => &client.settings.apps,
            Self::App(app) => std::slice::from_ref(&app.settings.name),
        }
    }
}

/// What a client sends to prove itself; its `Debug` does not show it.
pub struct Proof<'r> {
    /// The client's id; an assertion may say it alone.
    pub id: Option<Cow<'r, str>>,
    /// What it proves it with.
    pub evidence: Evidence<'r>,
}

/// What a client proves itself with.
pub enum Evidence<'r> {
    /// Nothing: a public client.
    None,
    /// Its secret.
    Secret {
        /// Where it stands.
        sent: Sent,
        /// In each form in which it may be meant.
        forms: Vec<Cow<'r, str>>,
    },
    /// An assertion (RFC 7523 §2.2).
    Assertion(&'r str),
}

/// Where a secret stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// In the Authorization header.
    Header,
    /// In the form.
    Form,
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({:?})", self.id)
    }
}

/// All clients.
pub struct Clients {
    configured: BTreeMap<String, Arc<Client>>,
    /// Those that are registered at run time.
    pub registry: Arc<Registry>,
    nobody: Nobody,
    /// The audiences that an assertion may be for: our issuer identifier, as
    /// draft-ietf-oauth-rfc7523bis and FAPI 2.0 want it, and the URL of the token endpoint, as
    /// RFC 7523 §3 and most libraries have it.
    audiences: [String; 2],
    store: Arc<Store>,
    clock: Clock,
}

impl Clients {
    /// The clients of the configuration and of the registry.
    ///
    /// # Errors
    /// Where there are no random bytes.
    pub fn new(
        settings: &Settings,
        registry: Arc<Registry>,
        fetcher: &Fetcher,
        metrics: &Arc<Metrics>,
        store: Arc<Store>,
        clock: Clock,
    ) -> Result<Self, BackendFailed> {
        let client = |(id, settings): (&String, &ClientSettings)| {
            let mut client = Client::new(id, settings.clone());
            if let Some(source) = key_source(id, settings) {
                let algorithms = settings.algorithms.clone();
                let (fetcher, metrics) = (fetcher.clone(), Arc::clone(metrics));
                let cache = KeyCache::new(source, algorithms, fetcher, clock.clone(), metrics);
                client.keys = Some(Keys::Fetched(cache));
            }
            (id.clone(), Arc::new(client))
        };
        Ok(Self {
            configured: settings.clients.iter().map(client).collect(),
            registry,
            nobody: Nobody::new()?,
            audiences: [
                settings.issuer.clone(),
                format!("{}/oauth/token", settings.issuer),
            ],
            store,
            clock,
        })
    }

    /// Knows the clients that are registered in another store: for `exchequer explain`.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn look_into(&mut self, store: Arc<Store>) -> Result<(), StoreError> {
        self.registry = Arc::new(self.registry.over(store));
        self.registry.refresh().await
    }

    /// The key sets that are fetched.
    pub fn key_sets(&self) -> impl Iterator<Item = Arc<KeyCache>> {
        let clients = self.configured.values();
        clients.filter_map(|client| match &client.keys {
            Some(Keys::Fetched(cache)) => Some(Arc::clone(cache)),
            _ => None,
        })
    }

    /// Whether some client gets tokens.
    pub fn any(&self) -> bool {
        let mut configured = self.configured.values();
        configured.any(|client| client.gets_tokens()) || self.registry.any()
    }

    /// Whether the tokens of some client have a place in the status list.
    pub fn lists(&self) -> bool {
        let mut configured = self.configured.values();
        configured.any(|client| client.settings.status_list) || self.registry.lists()
    }

    /// The scopes of the clients that get tokens.
    pub fn scopes(&self) -> BTreeSet<String> {
        let mut scopes = self.registry.scopes();
        let clients = self.configured.values();
        for client in clients.filter(|client| client.gets_tokens()) {
            scopes.extend(client.settings.scopes.iter().cloned());
        }
        scopes
    }

    /// The ways in which the clients authenticate, by their registered names (RFC 7591 §2), and
    /// what assertions are signed with.
    pub fn methods(&self) -> (BTreeSet<&'static str>, BTreeSet<String>) {
        let mut all: Vec<Arc<Client>> = self.configured.values().cloned().collect();
        all.extend(self.registry.all());
        let (mut methods, mut algorithms) = (BTreeSet::new(), BTreeSet::new());
        for client in all.iter().filter(|client| !client.settings.may_nothing()) {
            methods.extend(client.settings.method.registered());
            if client.settings.method != AuthMethod::ClientSecretAsJwt {
                let names = client.settings.algorithms.iter();
                algorithms.extend(names.map(|algorithm| format!("{algorithm:?}")));
            }
        }
        (methods, algorithms)
    }

    /// Whether one that acts for the app's users may ask for this audience.
    pub fn call_for(&self, app: &str, audience: &str) -> bool {
        let calls = |client: &Arc<Client>| {
            let settings = &client.settings;
            settings.apps.iter().any(|each| each == app)
                && settings.audiences.iter().any(|each| each == audience)
        };
        self.configured.values().any(calls) || self.registry.all().iter().any(calls)
    }

    /// The client of this id; the file's comes first.
    pub fn find(&self, id: &str) -> Option<Arc<Client>> {
        let configured = self.configured.get(id).cloned();
        configured.or_else(|| self.registry.find(id))
    }

    /// The refusal of whom nobody here knows; before the registry was read once they may be
    /// registered, and the store is what is missing.
    pub fn unknown(&self, refusal: Refused) -> Refused {
        if self.registry.is_read() {
            return refusal;
        }
        let instead_of = refusal.code;
        let mut cause = format!(
            "the registered clients were never read: instead of {}",
            instead_of.entry().slug
        );
        if let Some(behind) = &refusal.cause {
            cause = format!("{cause}: {behind}");
        }
        let mut unread = StoreError(cause).refusal();
        // Or secrets could be guessed for as long as the store is away.
        unread.instead_of = Some(instead_of);
        unread.ladder = refusal.ladder;
        unread
    }

    /// Who proved to be itself, or says who it is and need prove nothing.
    pub async fn authenticate(&self, proof: &Proof<'_>) -> Result<Party, Refused> {
        let proven = self.proven(proof).await;
        proven.map_err(|refusal| match refusal.code {
            // Of the file's clients too: else it could be told who they are.
            Code::ClientAuthenticationFailed => self.unknown(refusal),
            Code::ClientAuthenticationMissing if proof.id.is_some() => self.unknown(refusal),
            _ => refusal,
        })
    }

    async fn proven(&self, proof: &Proof<'_>) -> Result<Party, Refused> {
        let id = proof.id.as_deref();
        match &proof.evidence {
            Evidence::None => {
                let client = id.and_then(|id| self.find(id));
                client
                    .filter(|client| client.settings.method == AuthMethod::None)
                    .map(Party::Public)
                    .ok_or_else(|| Refusal::new(Code::ClientAuthenticationMissing))
            }
            Evidence::Secret { sent, forms } => {
                let id = id.unwrap_or_default();
                self.by_secret(id, *sent, forms).await.map(Party::Client)
            }
            Evidence::Assertion(token) => self.by_assertion(id, token).await.map(Party::Client),
        }
    }

    /// By its secret, or by a JWT in its place. Both are tried of each: which one a client has
    /// to send is nobody else's business.
    async fn by_secret(
        &self,
        id: &str,
        sent: Sent,
        forms: &[Cow<'_, str>],
    ) -> Result<Arc<Client>, Refused> {
        let now = self.clock.now();
        let client = self.find(id);
        let hashes = client
            .as_ref()
            .map_or(&self.nobody.hash[..], |client| &client.hashes);
        let proven = forms.iter().fold(false, |proven, secret| {
            is_one_of(secret, hashes, now) | proven
        });
        let decoded = forms.first().and_then(|text| Decoded::of(text).ok());
        let jwt = decoded
            .as_ref()
            .map(|decoded| Assertion::parse(decoded, Form::InSecret));
        let signed = match &jwt {
            Some(Ok(jwt)) if jwt.client() != id => Err(Fault::new(
                Code::ClientAssertionSignatureInvalid,
                "its `client_id` is another client",
            )),
            Some(Ok(jwt)) => jwt.check_proof(client.as_deref(), &self.nobody).await,
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(Fault::new(
                Code::ClientAssertionMalformed,
                "the secret is no JWT",
            )),
        };
        let failed = |code, told: &str| Fault::new(code, told).refusal();
        let Some(client) = client else {
            let told = "no client of this id is registered";
            return Err(failed(Code::ClientUnknown, told));
        };
        let fits = match client.settings.method {
            AuthMethod::ClientSecret => true,
            AuthMethod::ClientSecretBasic => sent == Sent::Header,
            AuthMethod::ClientSecretPost => sent == Sent::Form,
            AuthMethod::ClientSecretAsJwt => {
                // Nobody but the client learns that it authenticates so: of what does not
                // verify, nothing is told.
                let unproven = |fault: Fault| Fault {
                    code: match fault.code {
                        Code::ClientAssertionMalformed => Code::ClientAssertionSignatureInvalid,
                        code => code,
                    },
                    ..fault
                };
                signed.map_err(|fault| unproven(fault).refusal())?;
                if let Some(Ok(jwt)) = &jwt {
                    self.accept(jwt, &client, now).await?;
                }
                return Ok(client);
            }
            _ => false,
        };
        if !fits {
            let told = format!("{id} authenticates by {}", client.settings.method.name());
            return Err(failed(Code::ClientAuthMethodMismatch, &told));
        }
        if client.hashes.is_empty() {
            let told = format!("{id} has no secret");
            return Err(failed(Code::ClientSecretWrong, &told));
        }
        if !proven {
            let told = format!("the secret of {id} is another");
            return Err(failed(Code::ClientSecretWrong, &told));
        }
        Ok(client)
    }

    /// By an assertion. What it says is looked at first: whoever sent it can see that too.
    async fn by_assertion(&self, id: Option<&str>, token: &str) -> Result<Arc<Client>, Refused> {
        let decoded = assertion::decode(token).map_err(Fault::refusal)?;
        let assertion = Assertion::parse(&decoded, Form::Assertion).map_err(Fault::refusal)?;
        if id.is_some_and(|id| id != assertion.client()) {
            return Err(Refusal::because(
                Code::SeveralCredentials,
                "The parameter `client_id` is another client than the assertion's.",
            ));
        }
        let now = self.clock.now();
        self.said(&assertion, now)?;
        let client = self.find(assertion.client());
        let proven = assertion.check_proof(client.as_deref(), &self.nobody).await;
        proven.map_err(Fault::refusal)?;
        let unknown = || Fault::new(Code::ClientUnknown, "no client of this id is registered");
        let client = client.ok_or_else(|| unknown().refusal())?;
        self.use_up(&assertion, &client, now).await?;
        Ok(client)
    }

    /// What a JWT that its client signed says, and that it is used once where it has a `jti`.
    async fn accept(
        &self,
        jwt: &Assertion<'_>,
        client: &Client,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        self.said(jwt, now)?;
        self.use_up(jwt, client, now).await
    }

    fn said(&self, assertion: &Assertion<'_>, now: UnixSeconds) -> Result<(), Refused> {
        let audiences = &self.audiences;
        let steps = assertion.said(&Rules { audiences, now });
        let fault = steps.into_iter().find_map(|step| step.result.err());
        fault.map_or(Ok(()), |fault| Err(assertion.shown(fault.refusal())))
    }

    /// Each assertion once (RFC 7523 §3): only the first of several with one `jti` succeeds.
    async fn use_up(
        &self,
        assertion: &Assertion<'_>,
        client: &Client,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let Some(once) = assertion.once(&client.id) else {
            return Ok(());
        };
        let change = Change {
            once: Some(once),
            ..Change::default()
        };
        let committed = self.store.commit(change, now).await;
        match committed.map_err(StoreError::refusal)? {
            Committed::Done => Ok(()),
            Committed::Repeated => {
                let fault = Fault::new(Code::ClientAssertionUsed, "its `jti` was sent before");
                Err(assertion.shown(fault.refusal()))
            }
        }
    }

    /// Makes every check of an assertion, or of a JWT in the place of a secret, in the order in
    /// which a request makes them; nothing is used up by it.
    pub async fn explain(&self, token: &str) -> Vec<Step> {
        let step = |check, result| Step { check, result };
        let decoded = match assertion::decode(token) {
            Ok(decoded) => decoded,
            Err(fault) => return vec![step("form", Err(fault))],
        };
        let parsed = Assertion::parse(&decoded, Form::Assertion);
        let parsed = match parsed {
            Err(fault) => match Assertion::parse(&decoded, Form::InSecret) {
                Ok(jwt) if !jwt.names_itself() => Ok(jwt),
                _ => Err(fault),
            },
            parsed => parsed,
        };
        let assertion = match parsed {
            Ok(assertion) => assertion,
            Err(fault) => return vec![step("form", Err(fault))],
        };
        let client = self.find(assertion.client());
        let mut proof = assertion.check_proof(client.as_deref(), &self.nobody).await;
        let secret = client
            .as_ref()
            .and_then(|client| client.settings.secret.as_ref());
        if let (Err(fault), Some(secret)) = (&mut proof, secret)
            && fault.code == Code::ClientAssertionSignatureInvalid
        {
            fault.told += &match assertion.other_reading(secret.expose_secret()) {
                Some(name) => format!(
                    " as text, but with the secret decoded from {name}: sign with its text instead"
                ),
                None => " in any reading: as text, hex or base64".to_owned(),
            };
        }
        let proof = step(check_of(&proof), proof);
        let audiences = &self.audiences;
        let now = self.clock.now();
        let said = assertion.said(&Rules { audiences, now }).into_iter();
        let form = step(
            "form",
            Ok(format!("an assertion of {:?}", assertion.client())),
        );
        match assertion.form() {
            Form::Assertion => [form].into_iter().chain(said).chain([proof]).collect(),
            Form::InSecret => [form, proof].into_iter().chain(said).collect(),
        }
    }
}

/// How far the proof came.
fn check_of(proof: &Result<String, Fault>) -> &'static str {
    match proof.as_ref().map_err(|fault| fault.code) {
        Err(Code::ClientUnknown) => "client",
        Err(Code::ClientAuthMethodMismatch) => "method",
        Err(Code::ClientAssertionAlgorithmMismatch) => "algorithm",
        Err(Code::ClientAssertionKeyUnknown | Code::ClientKeysUnavailable) => "key",
        _ => "signature",
    }
}

/// Whether the secret is one of these that serve now; compares in constant time.
fn is_one_of(secret: &str, hashes: &[SecretHash], now: UnixSeconds) -> bool {
    let hash = sha256(secret.as_bytes());
    hashes.iter().fold(false, |found, each| {
        let serves = each.until.is_none_or(|until| now < until);
        (bool::from(each.sha256.ct_eq(&hash)) & serves) | found
    })
}

/// Where the client's key set is fetched from, with the guards of an issuer's.
pub fn key_source(id: &str, settings: &ClientSettings) -> Option<IssuerSettings> {
    let Some(ClientKeys::At {
        url,
        allow_private_network,
    }) = &settings.keys
    else {
        return None;
    };
    Some(IssuerSettings {
        assertions: false,
        name: format!("client:{id}"),
        issuer: url.clone(),
        kind: IssuerKind::Oidc,
        jwks_uri: Some(url.clone()),
        jwt_key: None,
        algorithms: settings.algorithms.clone(),
        audiences: Vec::new(),
        authorized_parties: Vec::new(),
        token_types: Vec::new(),
        clock_skew: 0,
        max_lifetime: 0,
        allow_private_network: *allow_private_network,
        accepts: Vec::new(),
        backend: None,
        introspection: None,
        webhook_secrets: Vec::new(),
    })
}
