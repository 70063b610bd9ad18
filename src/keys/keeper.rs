//! The ring's life in time: loaded at start, moved on when something is due, taken over
//! when another process changed it, and published to whoever signs and verifies.

use super::file::{Before, RingFileError, RingFolder, Version};
use super::jwk::{algorithm_name, jwk, thumbprint};
use super::ring::{Change, Fresh, Ring, Rotation, Schedule, State};
use crate::audit::{Audit, Event};
use crate::clock::{Clock, UnixSeconds};
use crate::config::KeySettings;
use crate::crypto::{self, BackendFailed, KeyRejected, MacKey, SigningKey, VerifyingKey};
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Why the ring cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The folder cannot be read or written.
    #[error(transparent)]
    File(#[from] RingFileError),
    /// A key could not be made.
    #[error(transparent)]
    Backend(#[from] BackendFailed),
    /// A key of the ring does not parse.
    #[error(transparent)]
    Key(#[from] KeyRejected),
}

/// A key that signs, parsed, with the headers of its tokens.
pub struct Signer {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// The key.
    pub key: SigningKey,
    headers: [(&'static str, String); 3],
}

impl Signer {
    fn new(kid: &str, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyRejected> {
        let header = |typ: &str| {
            let header = json!({"alg": algorithm_name(algorithm), "kid": kid, "typ": typ});
            URL_SAFE_NO_PAD.encode(header.to_string())
        };
        Ok(Self {
            kid: kid.to_owned(),
            key: SigningKey::from_pkcs8(algorithm, pkcs8)?,
            headers: ["JWT", "at+jwt", "statuslist+jwt"].map(|typ| (typ, header(typ))),
        })
    }

    /// The encoded header of a token of this type.
    pub fn header(&self, typ: &str) -> &str {
        let [(_, jwt), ..] = &self.headers;
        let mut headers = self.headers.iter();
        let found = headers.find(|(each, _)| *each == typ);
        found.map_or(jwt, |(_, header)| header)
    }
}

/// A key of the ring, for lists and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Overview {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs with.
    pub alg: &'static str,
    /// What it is doing.
    pub state: State,
    /// Since when it is published.
    pub published_at: UnixSeconds,
    /// When its state changes next, where that is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_at: Option<UnixSeconds>,
}

/// The ring as it stands: what signs, and what verifiers are shown.
pub struct Published {
    /// The ring's generation.
    pub generation: u64,
    signers: HashMap<Algorithm, Arc<Signer>>,
    verifiers: HashMap<String, VerifyingKey>,
    /// The key set document.
    pub jwks: Bytes,
    /// Its strong entity tag.
    pub etag: String,
    /// The keys.
    pub overview: Vec<Overview>,
    /// The algorithms of the published keys.
    pub algorithms: Vec<&'static str>,
    pseudonym: MacKey,
}

impl Published {
    fn new(ring: &Ring, schedule: &Schedule) -> Result<Self, KeyRejected> {
        let mut signers = HashMap::new();
        let mut verifiers = HashMap::new();
        let mut keys = Vec::new();
        let mut overview = Vec::new();
        let mut algorithms = Vec::new();
        for key in &ring.keys {
            let signer = Signer::new(&key.kid, key.algorithm, &key.pkcs8)?;
            let verifier = VerifyingKey::new(key.algorithm, signer.key.public())?;
            verifiers.insert(key.kid.clone(), verifier);
            keys.push(jwk(signer.key.public(), key.algorithm));
            let name = algorithm_name(key.algorithm);
            if !algorithms.contains(&name) {
                algorithms.push(name);
            }
            if key.state == State::Active {
                signers.insert(key.algorithm, Arc::new(signer));
            }
            overview.push(Overview {
                kid: key.kid.clone(),
                alg: name,
                state: key.state,
                published_at: key.published_at,
                changes_at: match key.state {
                    State::Next | State::Active => ring.next_rotation(key.algorithm, schedule),
                    State::Retired => key.retired_at.map(|at| at + schedule.keep_after),
                },
            });
        }
        let jwks = json!({ "keys": keys }).to_string();
        let digest = crypto::sha256(jwks.as_bytes());
        Ok(Self {
            generation: ring.generation,
            signers,
            verifiers,
            etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest)),
            jwks: Bytes::from(jwks),
            overview,
            algorithms,
            pseudonym: MacKey::new(&ring.pseudonym_key),
        })
    }

    /// The key that signs with the algorithm. While a newly chosen algorithm's first key is
    /// still being published ahead, another algorithm's signs on.
    pub fn signer(&self, algorithm: Algorithm) -> Option<&Arc<Signer>> {
        self.signers.get(&algorithm).or_else(|| {
            [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
                .iter()
                .find_map(|other| self.signers.get(other))
        })
    }

    /// The published key of this `kid`, standing by, signing or retired.
    pub fn verifier(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifiers.get(kid)
    }

    /// A key for one purpose, the same for all who have the ring, and as long as it lasts. The
    /// label has no line feed, or it could be a subject's name.
    pub fn derived_key(&self, label: &'static str) -> MacKey {
        MacKey::new(&self.pseudonym.sign(&[label.as_bytes()]))
    }

    /// The name of a subject in logs: the same subject has the same one, and nobody without
    /// the ring can tell whose it is.
    pub fn pseudonym(&self, issuer: &str, subject: &str) -> String {
        let parts = [issuer.as_bytes(), b"\n", subject.as_bytes()];
        let [a, b, c, d, e, f, g, h, i, ..] = self.pseudonym.sign(&parts);
        URL_SAFE_NO_PAD.encode([a, b, c, d, e, f, g, h, i])
    }
}

impl From<&KeySettings> for Schedule {
    fn from(settings: &KeySettings) -> Self {
        Self {
            rotate_every: settings.rotate_every,
            publish_ahead: settings.publish_ahead,
            keep_after: settings.keep_after,
        }
    }
}

/// Keeps the ring.
pub struct Keeper {
    folder: Option<RingFolder>,
    schedule: Schedule,
    algorithms: Vec<Algorithm>,
    clock: Clock,
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    ring: Mutex<(Ring, Option<Version>)>,
    published: ArcSwap<Published>,
}

fn generate(algorithm: Algorithm) -> Result<Fresh, BackendFailed> {
    let pkcs8 = SigningKey::generate(algorithm)?;
    fresh(algorithm, pkcs8).map_err(|_| BackendFailed)
}

fn fresh(algorithm: Algorithm, pkcs8: Zeroizing<Vec<u8>>) -> Result<Fresh, KeyRejected> {
    let kid = thumbprint(SigningKey::from_pkcs8(algorithm, &pkcs8)?.public());
    Ok(Fresh { kid, pkcs8 })
}

/// How the keys of a ring turned into those of the next: each that is new, in another state
/// or gone.
fn turns<'r>(
    before: &'r Ring,
    after: &'r Ring,
    changes: &[Change],
) -> Vec<(&'r str, &'static str)> {
    let came = after.keys.iter().filter_map(|key| {
        let known = before.keys.iter().find(|known| known.kid == key.kid);
        let turned = known.is_none_or(|known| known.state != key.state);
        let outcome = match key.state {
            State::Next => "published",
            State::Active => "activated",
            State::Retired => "retired",
        };
        turned.then_some((key.kid.as_str(), outcome))
    });
    let went = before.keys.iter().filter_map(|known| {
        let gone = after.keys.iter().all(|key| key.kid != known.kid);
        let in_time = |change: &Change| matches!(change, Change::Removed(kid) if *kid == known.kid);
        let outcome = if changes.iter().any(in_time) {
            "removed"
        } else {
            "revoked"
        };
        gone.then_some((known.kid.as_str(), outcome))
    });
    came.chain(went).collect()
}

/// An empty ring with its pseudonym key.
fn newborn() -> Result<Ring, BackendFailed> {
    Ok(Ring {
        pseudonym_key: Zeroizing::new(crypto::random::<32>()?.to_vec()),
        ..Ring::default()
    })
}

impl Keeper {
    /// Loads the ring of the folder, or makes the first one. `algorithms` are those that
    /// apps sign with.
    pub fn open(
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let keeper = Self::unopened(settings, algorithms, clock, metrics, audit)?;
        keeper.change(|_, _| ())?;
        Ok(keeper)
    }

    /// The ring of the folder, not read yet: its first change reads or makes it.
    pub fn unopened(
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let folder = RingFolder::new(settings.dir.clone(), settings.secret.clone());
        Self::new(Some(folder), settings, algorithms, clock, metrics, audit)
    }

    /// A ring in memory that ends with the process.
    pub fn in_memory(
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let keeper = Self::new(None, settings, algorithms, clock, metrics, audit)?;
        keeper.change(|_, _| ())?;
        Ok(keeper)
    }

    /// The ring of the folder as it stands, only looked at: nothing is made, moved on or saved.
    /// `None` where there is none.
    pub fn look(settings: &KeySettings, clock: Clock) -> Result<Option<Self>, KeeperError> {
        let folder = RingFolder::new(settings.dir.clone(), settings.secret.clone());
        let Some(loaded) = folder.load()? else {
            return Ok(None);
        };
        let audit = Audit::off(clock.clone());
        let keeper = Self::new(None, settings, Vec::new(), clock, Arc::default(), audit)?;
        let published = Published::new(&loaded.ring, &keeper.schedule)?;
        keeper.published.store(Arc::new(published));
        Ok(Some(keeper))
    }

    fn new(
        folder: Option<RingFolder>,
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let schedule = Schedule::from(settings);
        Ok(Self {
            folder,
            schedule,
            algorithms,
            clock,
            metrics,
            audit,
            ring: Mutex::new((Ring::default(), None)),
            published: ArcSwap::from_pointee(Published::new(&Ring::default(), &schedule)?),
        })
    }

    /// The keys of a ring that is only looked at.
    pub fn overview(ring: &Ring, settings: &KeySettings) -> Result<Vec<Overview>, KeyRejected> {
        Ok(Published::new(ring, &Schedule::from(settings))?.overview)
    }

    /// What signs and what is published, now.
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Changes the ring under the folder's lock: reads what is there, makes the change, moves
    /// the ring on, saves it, and only then signs with it.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Ring, UnixSeconds) -> T,
    ) -> Result<(T, Vec<Change>), KeeperError> {
        let mut held = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = self.folder.as_ref().map(RingFolder::lock).transpose()?;
        let (mut ring, unsaved, mut before) = self.present(&held.0)?;
        let (generation, keys) = (ring.generation, ring.keys.len());
        // What another process changed meanwhile is told too, except at the start.
        let known = if held.0.keys.is_empty() {
            ring.clone()
        } else {
            held.0.clone()
        };
        let done = change(&mut ring, self.clock.now());
        if ring.keys.len() < keys {
            // A key was revoked.
            before = Before::Forgotten;
        }
        let changes = ring.tick(
            self.clock.now(),
            &self.schedule,
            &self.algorithms,
            &mut generate,
        )?;
        let published = Published::new(&ring, &self.schedule)?;
        let changed = unsaved || ring.generation != generation;
        if let Some(lock) = lock.as_ref().filter(|_| changed) {
            lock.save(&ring, before)?;
        }
        let version = self.folder.as_ref().and_then(RingFolder::version);
        for change in &changes {
            let (what, kid) = match change {
                Change::Published(kid) => ("published", kid),
                Change::Activated(kid) => ("activated", kid),
                Change::Retired(kid) => ("retired", kid),
                Change::Removed(kid) => ("removed", kid),
            };
            tracing::info!(kid, change = what, "the key ring changed");
        }
        for (kid, outcome) in turns(&known, &ring, &changes) {
            self.audit.record_blocking(Event {
                action: "key",
                outcome,
                kid: Some(kid),
                ..Event::default()
            });
        }
        self.published.store(Arc::new(published));
        *held = (ring, version);
        Ok((done, changes))
    }

    /// The ring to go on from, whether the folder must be written in any case, and what
    /// becomes of the generation before. A ring that was damaged or vanished under a running
    /// server is put back as the server knows it: not an older one, and none made anew.
    fn present(&self, held: &Ring) -> Result<(Ring, bool, Before), KeeperError> {
        let loaded = match self.folder.as_ref().map(RingFolder::load) {
            None => None,
            Some(Err(error)) if error.is_damage() && !held.keys.is_empty() => None,
            Some(loaded) => loaded?,
        };
        let lost = |ring: &Ring, used, what| {
            self.metrics.key_ring_failed();
            tracing::error!(generation = ring.generation, used, "{what}");
        };
        const LOST: &str = "the newest key ring is damaged or gone";
        match loaded {
            // An older generation may hold a key that was revoked since, and one in clear where
            // ours is sealed was put there by somebody else: neither replaces what is held.
            Some(loaded)
                if loaded.ring.generation >= held.generation
                    && (held.keys.is_empty() || !loaded.unsealed) =>
            {
                if loaded.fallen_back {
                    lost(&loaded.ring, "the generation before", LOST);
                }
                let before = if loaded.unsealed {
                    Before::Forgotten
                } else {
                    Before::Kept
                };
                Ok((loaded.ring, loaded.fallen_back || loaded.unsealed, before))
            }
            rejected if !held.keys.is_empty() => {
                let (before, what) = match rejected {
                    Some(loaded) if !loaded.fallen_back => (
                        Before::Forgotten,
                        "the key ring on disk is older than it was, or no longer sealed",
                    ),
                    _ => (Before::Kept, LOST),
                };
                if self.folder.is_some() {
                    lost(held, "the one in memory", what);
                }
                Ok((held.clone(), true, before))
            }
            _ => Ok((newborn()?, true, Before::Kept)),
        }
    }

    /// Whether something is due, or another process changed the folder.
    fn is_due(&self) -> bool {
        let held = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let due = held
            .0
            .next_change(self.clock.now(), &self.schedule, &self.algorithms)
            .is_some_and(|at| at <= self.clock.now());
        due || self
            .folder
            .as_ref()
            .is_some_and(|folder| folder.version() != held.1)
    }

    /// Moves the ring through time, for ever. What fails is tried again, and meanwhile the
    /// keys that were good stay.
    pub async fn keep(self: Arc<Self>) {
        let mut failures: u32 = 0;
        loop {
            // After failures less often: a full disk is not filled faster by asking it.
            tokio::time::sleep(Duration::from_secs(1 << failures.min(4))).await;
            let keeper = Arc::clone(&self);
            let ended = tokio::task::spawn_blocking(move || {
                if keeper.is_due() {
                    keeper.change(|_, _| ()).map(|_| ())
                } else {
                    Ok(())
                }
            })
            .await;
            match ended {
                Ok(Ok(())) => failures = 0,
                Ok(Err(error)) => {
                    failures = failures.saturating_add(1);
                    self.metrics.key_ring_failed();
                    tracing::error!(%error, "the key ring could not be read or changed; the last good one stays");
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::error!(%error, "the key ring's task failed");
                }
            }
        }
    }

    /// Asks for a rotation; see [`Ring::rotate`].
    pub fn rotate(
        &self,
        algorithm: Algorithm,
        force: bool,
    ) -> Result<(Option<Rotation>, Vec<Change>), KeeperError> {
        let schedule = self.schedule;
        self.change(|ring, now| ring.rotate(algorithm, now, &schedule, force))
    }

    /// Takes a key out at once; `false` where there is none of this `kid`.
    pub fn revoke(&self, kid: &str) -> Result<bool, KeeperError> {
        let schedule = self.schedule;
        let (revoked, _) = self.change(|ring, now| ring.revoke(kid, now, &schedule))?;
        Ok(revoked)
    }

    /// Puts a key made elsewhere (PKCS#8) in the place of the standby; gives its `kid` and
    /// whether the ring took it.
    pub fn import(
        &self,
        algorithm: Algorithm,
        pkcs8: Zeroizing<Vec<u8>>,
    ) -> Result<(String, bool), KeeperError> {
        let fresh = fresh(algorithm, pkcs8)?;
        let kid = fresh.kid.clone();
        let schedule = self.schedule;
        let (taken, _) = self.change(|ring, now| ring.import(fresh, algorithm, now, &schedule))?;
        Ok((kid, taken))
    }
}
