//! The ring's life in time: loaded at start, moved on when something is due, taken over
//! when another process changed it, and published to whoever signs and verifies.

use super::file::{self, Before, Loaded, RingFileError, RingFolder};
use super::jwk::thumbprint;
use super::lineage::Relation;
use super::mounted::{MountedError, MountedRing, Stamp};
use super::published::{Overview, Published};
use super::replica::Replica;
use super::ring::{Change, Fresh, Key, Ring, Rotation, Schedule, State};
use super::seen::Seen;
use super::shared::SharedError;
use crate::audit::{Audit, Event};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{KeySettings, Settings, StoreSettings};
use crate::crypto::{self, BackendFailed, KeyRejected, SigningKey};
use crate::redis_client::RedisClient;
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Why the ring cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The folder cannot be read or written.
    #[error(transparent)]
    File(#[from] RingFileError),
    /// The shared ring cannot be read or changed.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// What lies in the shared place is no good, and nothing is held to put in its place.
    #[error("the key ring in Redis is damaged, or was written by somebody without the secret")]
    Damaged,
    /// There is no shared ring yet; other replicas have some seconds to put theirs back.
    #[error("there is no key ring in Redis; other replicas have some seconds to put theirs back")]
    Waiting,
    /// Others changed the shared ring again and again.
    #[error("the key ring in Redis was changed by others again and again: try once more")]
    Contended,
    /// What is mounted is not taken.
    #[error(transparent)]
    Mounted(#[from] MountedError),
    /// A ring that somebody else mounts is not changed here.
    #[error(
        "the key ring in {0} is mounted from a Secret and only read: make the change in a working copy of it, and put that into the Secret (docs/keys.md, \"From a Secret\")"
    )]
    ReadOnly(PathBuf),
    /// A key could not be made.
    #[error(transparent)]
    Backend(#[from] BackendFailed),
    /// A key of the ring does not parse.
    #[error(transparent)]
    Key(#[from] KeyRejected),
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

/// Where the ring is kept.
pub enum RingPlace {
    /// In this process, until it ends.
    Memory,
    /// In a folder.
    Folder(RingFolder),
    /// In Redis, for all replicas.
    Shared(Box<Replica>),
    /// In a folder that somebody else writes.
    Mounted(MountedRing),
}

impl RingPlace {
    /// The place that the settings name: a folder that Kubernetes mounts, the Redis, or the
    /// folder, in this order.
    pub fn of(settings: &KeySettings, redis: Option<&Arc<RedisClient>>) -> Self {
        let folder = || RingFolder::new(settings.dir.clone(), settings.secret.clone());
        let mounted = MountedRing::at(&settings.dir, settings.secret.as_ref());
        match (mounted, redis) {
            (Some(mounted), _) => Self::Mounted(mounted),
            (None, Some(redis)) => Self::Shared(Box::new(Replica::new(
                Arc::clone(redis),
                settings.secret.clone(),
                Some(folder()),
            ))),
            (None, None) => Self::Folder(folder()),
        }
    }

    /// The place as a command of this configuration has it: without a local copy of a shared
    /// ring, for it may run anywhere.
    pub fn for_command(settings: &Settings) -> Self {
        let (keys, clock) = (&settings.keys, Clock::system());
        match (Self::of(keys, None), &settings.store) {
            (Self::Folder(_), StoreSettings::Redis(redis)) => {
                let redis = RedisClient::new(redis.as_ref().clone(), clock, Arc::default());
                Self::Shared(Box::new(Replica::new(redis, keys.secret.clone(), None)))
            }
            (place, _) => place,
        }
    }

    /// Where it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Folder(folder) => folder.dir().display().to_string(),
            Self::Shared(replica) => replica.place(),
            Self::Mounted(mounted) => mounted.dir().display().to_string(),
        }
    }

    /// The ring that is there, only read; `None` where there is none.
    pub async fn load(&self) -> Result<Option<Loaded>, KeeperError> {
        let ring = match self {
            Self::Memory => None,
            Self::Folder(folder) => return Ok(folder.load()?),
            Self::Shared(replica) => replica.ring().await?,
            Self::Mounted(mounted) => Some(mounted.read()?),
        };
        Ok(ring.map(|ring| Loaded {
            ring,
            fallen_back: false,
            unsealed: false,
        }))
    }

    /// Its name in the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Folder(_) => "folder",
            Self::Shared(_) => "redis",
            Self::Mounted(_) => "mounted",
        }
    }
}

/// Keeps the ring.
pub struct Keeper {
    pub(super) place: RingPlace,
    pub(super) schedule: Schedule,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    held: Mutex<Held>,
    published: ArcSwap<Published>,
}

/// The ring in memory.
#[derive(Default)]
pub(super) struct Held {
    pub(super) ring: Ring,
    file: Option<file::Version>,
    mounted: Option<Stamp>,
    seen: Seen,
    outline: Vec<Outline>,
}

impl Held {
    /// Whether no ring has been published yet.
    pub(super) fn is_mute(&self) -> bool {
        self.outline.is_empty()
    }

    /// What has been published so far.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }
}

/// A key that is published, its state, and whether it signs here.
type Outline = (String, State, bool);

/// A ring as it is published at a time.
pub(super) struct View {
    published: Published,
    seen: Seen,
    outline: Vec<Outline>,
}

pub(super) fn generate(algorithm: Algorithm) -> Result<Fresh, BackendFailed> {
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

/// A random name of a save.
pub(super) fn name() -> Result<String, BackendFailed> {
    Ok(URL_SAFE_NO_PAD.encode(crypto::random::<9>()?))
}

/// An empty ring with its pseudonym key.
pub(super) fn newborn() -> Result<Ring, BackendFailed> {
    Ok(Ring {
        pseudonym_key: Zeroizing::new(crypto::random::<32>()?.to_vec()),
        ..Ring::default()
    })
}

impl Keeper {
    /// Loads the ring, or makes the first one. Of a shared ring only the local copy is read:
    /// [`Keeper::join`] comes next. `algorithms` are those that apps sign with.
    pub fn open(
        place: RingPlace,
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let keeper = Self::unopened(place, settings, algorithms, clock, metrics, audit)?;
        match &keeper.place {
            RingPlace::Shared(replica) => keeper.held().ring = replica.copied(&keeper.metrics),
            RingPlace::Mounted(mounted) => keeper.take_mounted(mounted)?,
            RingPlace::Memory | RingPlace::Folder(_) => {
                keeper.change_here(|_, _| ())?;
            }
        }
        Ok(keeper)
    }

    /// The ring, not read yet: its first change reads or makes it.
    pub fn unopened(
        place: RingPlace,
        settings: &KeySettings,
        algorithms: Vec<Algorithm>,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: Arc<Audit>,
    ) -> Result<Self, KeeperError> {
        let schedule = Schedule::from(settings);
        metrics.key_ring_place(place.name());
        Ok(Self {
            place,
            schedule,
            algorithms,
            clock,
            metrics,
            audit,
            held: Mutex::default(),
            published: ArcSwap::from_pointee(Published::new(&Ring::default(), &schedule, &[])?),
        })
    }

    /// The ring as it stands, only looked at: nothing is made, moved on or saved. `None` where
    /// there is none.
    pub async fn look(
        place: &RingPlace,
        settings: &KeySettings,
        clock: Clock,
    ) -> Result<Option<Self>, KeeperError> {
        let Some(Loaded { ring, .. }) = place.load().await? else {
            return Ok(None);
        };
        let audit = Audit::off(clock.clone());
        let metrics = Arc::default();
        let place = RingPlace::Memory;
        let keeper = Self::unopened(place, settings, Vec::new(), clock, metrics, audit)?;
        let view = keeper.view(&Seen::default(), &ring)?;
        keeper.published.store(Arc::new(view.published));
        Ok(Some(keeper))
    }

    /// The keys of a ring that is only looked at.
    pub fn overview(ring: &Ring, settings: &KeySettings) -> Result<Vec<Overview>, KeyRejected> {
        Ok(Published::new(ring, &Schedule::from(settings), &[])?.overview)
    }

    /// What signs and what is published, now.
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Why no key signs, for whoever asks whether the service is ready.
    pub fn why_mute(&self) -> &'static str {
        match &self.place {
            RingPlace::Shared(replica) => replica.trouble(),
            _ => "no signing key\n",
        }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the ring: of a shared one that of the server that has it.
    pub(super) fn now(&self) -> UnixSeconds {
        let shared = match &self.place {
            RingPlace::Shared(replica) => replica.now(self.elapsed()),
            _ => None,
        };
        match shared {
            Some(now) => now + self.clock.shift_of_server(),
            None => self.clock.now(),
        }
    }

    /// Seconds since the process started.
    pub(super) fn elapsed(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_secs()).unwrap_or(i64::MAX)
    }

    /// What to publish now of a ring, by one who has published this before.
    pub(super) fn view(&self, seen: &Seen, ring: &Ring) -> Result<View, KeyRejected> {
        let (ring, seen, outline) = self.outlined(seen, ring);
        let signing = outline.iter().filter(|(_, _, signs)| *signs);
        let signing: Vec<&str> = signing.map(|(kid, _, _)| kid.as_str()).collect();
        Ok(View {
            published: Published::new(&ring, &self.schedule, &signing)?,
            seen,
            outline,
        })
    }

    fn outlined(&self, seen: &Seen, ring: &Ring) -> (Ring, Seen, Vec<Outline>) {
        let (now, elapsed) = (self.now(), self.elapsed());
        let by_time = match &self.place {
            RingPlace::Memory | RingPlace::Folder(_) => None,
            // Whoever reaches Redis moves the ring on as soon as something is due. Whoever has
            // not for long goes by the time alone, before what it signs with is published no
            // longer by the others.
            RingPlace::Shared(_) => Some(now - self.schedule.spare()),
            RingPlace::Mounted(_) => Some(now),
        };
        let Some(by_time) = by_time else {
            let keys = ring.keys.iter();
            let outline = keys.map(|key| (key.kid.clone(), key.state, key.state == State::Active));
            return (ring.clone(), Seen::default(), outline.collect());
        };
        let ring = ring.as_of(by_time, &self.schedule);
        let mut seen = seen.clone();
        seen.note(&ring, now, elapsed);
        let active = ring.keys.iter().filter(|key| key.state == State::Active);
        let signing: Vec<&Key> = active
            .filter_map(|key| seen.signer(&ring, key.algorithm, now, elapsed, &self.schedule))
            .collect();
        let outline = ring.keys.iter().map(|key| {
            let signs = signing.iter().any(|signer| signer.kid == key.kid);
            (key.kid.clone(), key.state, signs)
        });
        let outline = outline.collect();
        (ring, seen, outline)
    }

    /// Publishes what time alone has changed.
    pub(super) fn refresh(&self) -> Result<(), KeeperError> {
        let mut held = self.held();
        if held.is_mute() || self.outlined(&held.seen, &held.ring).2 == held.outline {
            return Ok(());
        }
        let view = self.view(&held.seen, &held.ring)?;
        let ring = held.ring.clone();
        self.adopt(&mut held, ring.clone(), view, &ring, &[]);
        Ok(())
    }

    /// Goes on from a ring whose view is published, and tells what became of the one that was
    /// known before.
    pub(super) fn adopt(
        &self,
        held: &mut Held,
        ring: Ring,
        view: View,
        known: &Ring,
        changes: &[Change],
    ) {
        for change in changes {
            let (what, kid) = match change {
                Change::Published(kid) => ("published", kid),
                Change::Activated(kid) => ("activated", kid),
                Change::Retired(kid) => ("retired", kid),
                Change::Removed(kid) => ("removed", kid),
            };
            tracing::info!(kid, change = what, "the key ring changed");
        }
        for (kid, outcome) in turns(known, &ring, changes) {
            self.audit.record_blocking(Event {
                action: "key",
                outcome,
                kid: Some(kid),
                ..Event::default()
            });
        }
        held.seen = view.seen;
        held.outline = view.outline;
        held.ring = ring;
        self.metrics.key_ring_generation(held.ring.generation);
        self.published.store(Arc::new(view.published));
    }

    /// Changes the ring: reads what is there, makes the change, moves the ring on, saves it, and
    /// only then signs with it. The change is made again where others changed the ring meanwhile.
    async fn change<T>(
        &self,
        mut change: impl FnMut(&mut Ring, UnixSeconds) -> T + Send,
    ) -> Result<(T, Vec<Change>), KeeperError> {
        match &self.place {
            RingPlace::Memory | RingPlace::Folder(_) => self.change_here(change),
            RingPlace::Shared(replica) => {
                replica.connect().await?;
                self.change_shared_at_last(replica, &mut change).await
            }
            RingPlace::Mounted(mounted) => Err(KeeperError::ReadOnly(mounted.dir().to_owned())),
        }
    }

    fn folder(&self) -> Option<&RingFolder> {
        match &self.place {
            RingPlace::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// Changes a ring in memory, or in the folder under its lock.
    fn change_here<T>(
        &self,
        mut change: impl FnMut(&mut Ring, UnixSeconds) -> T,
    ) -> Result<(T, Vec<Change>), KeeperError> {
        let mut held = self.held();
        let lock = self.folder().map(RingFolder::lock).transpose()?;
        let (mut ring, unsaved, mut before) = self.present(&held.ring)?;
        let (generation, keys) = (ring.generation, ring.keys.len());
        // What another process changed meanwhile is told too, except at the start.
        let known = if held.ring.keys.is_empty() {
            ring.clone()
        } else {
            held.ring.clone()
        };
        let done = change(&mut ring, self.now());
        if ring.keys.len() < keys {
            // A key was revoked.
            before = Before::Forgotten;
        }
        let changes = ring.tick(self.now(), &self.schedule, &self.algorithms, &mut generate)?;
        let changed = unsaved || ring.generation != generation;
        if changed {
            ring.mark(name()?);
        }
        let view = self.view(&held.seen, &ring)?;
        if let Some(lock) = lock.as_ref().filter(|_| changed) {
            lock.save(&ring, before)?;
        }
        held.file = self.folder().and_then(RingFolder::version);
        self.adopt(&mut held, ring, view, &known, &changes);
        Ok((done, changes))
    }

    /// The ring to go on from, whether the folder must be written in any case, and what
    /// becomes of the generation before. A ring that was damaged or vanished under a running
    /// server is put back as the server knows it: not an older one, and none made anew.
    fn present(&self, held: &Ring) -> Result<(Ring, bool, Before), KeeperError> {
        let loaded = match self.folder().map(RingFolder::load) {
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
                if self.folder().is_some() {
                    lost(held, "the one in memory", what);
                }
                Ok((held.clone(), true, before))
            }
            _ => Ok((newborn()?, true, Before::Kept)),
        }
    }

    /// Takes over what is mounted, where it is good; else what is held stays.
    fn take_mounted(&self, mounted: &MountedRing) -> Result<(), KeeperError> {
        let mut held = self.held();
        // Asked before the ring is read: a swap meanwhile is noticed the next time.
        let stamp = mounted.stamp();
        let ring = mounted.read()?;
        if !held.is_mute() && mounted.judge(&held.ring, &ring)? == Relation::Apart {
            self.metrics.key_ring_conflict();
            tracing::error!(
                generation = ring.generation,
                "another key ring was mounted: tokens of the one before verify no longer"
            );
        }
        let view = self.view(&held.seen, &ring)?;
        let known = if held.is_mute() {
            ring.clone()
        } else {
            held.ring.clone()
        };
        held.mounted = stamp;
        self.adopt(&mut held, ring, view, &known, &[]);
        Ok(())
    }

    /// What a second brings, where the ring is here: something is due, or another process
    /// changed it.
    fn look_after(&self) -> Result<(), KeeperError> {
        if let RingPlace::Mounted(mounted) = &self.place {
            self.refresh()?;
            let swapped = self.held().mounted != mounted.stamp();
            return if swapped {
                self.take_mounted(mounted)
            } else {
                Ok(())
            };
        }
        let due = {
            let held = self.held();
            let next = held
                .ring
                .next_change(self.now(), &self.schedule, &self.algorithms);
            next.is_some_and(|at| at <= self.now())
                || self
                    .folder()
                    .is_some_and(|folder| folder.version() != held.file)
        };
        if due {
            self.change_here(|_, _| ())?;
        }
        Ok(())
    }

    /// Moves the ring through time, for ever. What fails is tried again, and meanwhile the
    /// keys that were good stay.
    pub async fn keep(self: Arc<Self>) {
        let mut failures: u32 = 0;
        loop {
            // After failures less often: a full disk is not filled faster by asking it.
            tokio::time::sleep(Duration::from_secs(1 << failures.min(4))).await;
            let ended = if let RingPlace::Shared(replica) = &self.place {
                Ok(self.look_to(replica).await)
            } else {
                let keeper = Arc::clone(&self);
                tokio::task::spawn_blocking(move || keeper.look_after()).await
            };
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
    pub async fn rotate(
        &self,
        algorithm: Algorithm,
        force: bool,
    ) -> Result<(Option<Rotation>, Vec<Change>), KeeperError> {
        let schedule = self.schedule;
        self.change(|ring, now| ring.rotate(algorithm, now, &schedule, force))
            .await
    }

    /// Takes a key out at once; `false` where there is none of this `kid`.
    pub async fn revoke(&self, kid: &str) -> Result<bool, KeeperError> {
        let schedule = self.schedule;
        let (revoked, _) = self
            .change(|ring, now| ring.revoke(kid, now, &schedule))
            .await?;
        Ok(revoked)
    }

    /// Puts a key made elsewhere (PKCS#8) in the place of the standby; gives its `kid` and
    /// whether the ring took it.
    pub async fn import(
        &self,
        algorithm: Algorithm,
        pkcs8: Zeroizing<Vec<u8>>,
    ) -> Result<(String, bool), KeeperError> {
        let fresh = fresh(algorithm, pkcs8)?;
        let kid = fresh.kid.clone();
        let schedule = self.schedule;
        let (taken, _) = self
            .change(|ring, now| ring.import(fresh.clone(), algorithm, now, &schedule))
            .await?;
        Ok((kid, taken))
    }
}
