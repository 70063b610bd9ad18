//! One replica's part in a ring that all share: it looks each second, takes over what others
//! changed, puts back what was lost, and goes on with what it has while Redis is away.

use super::file::{Before, RingFolder};
use super::keeper::{Keeper, KeeperError, generate, name, newborn};
use super::lineage::{Found, Step, decide};
use super::ring::{Change, Ring};
use super::shared::{Document, SharedError, SharedRing};
use crate::clock::UnixSeconds;
use crate::config::KeySecret;
use crate::crypto;
use crate::redis_client::RedisClient;
use crate::telemetry::Metrics;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How long the others have to put their ring back before one is made anew, seconds: they find
/// a Redis that came back within one, and look within another.
const OTHERS: i64 = 3;
/// How often a change is tried that others come before, at most.
const ATTEMPTS: u32 = 64;
/// Every so many looks the document itself is read, not its version alone: what was damaged
/// under its version is noticed.
const WHOLE: u32 = 10;

/// The shared ring, and how this replica stands to it.
pub struct Replica {
    shared: SharedRing,
    copy: Option<RingFolder>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    looks: u32,
    /// The server's time at 0 of our monotonic clock, as of the last answer.
    epoch: Option<UnixSeconds>,
    /// Since when nothing is there, by our monotonic clock.
    empty_since: Option<i64>,
    trouble: Trouble,
    /// The version that the local copy has, or could not be given.
    copied: String,
}

/// Why the shared ring cannot be had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    Away,
    Waiting,
    Unusable,
}

impl Replica {
    /// A replica of the ring in this Redis; with a folder for a local copy of it.
    pub fn new(
        redis: Arc<RedisClient>,
        secret: Option<KeySecret>,
        copy: Option<RingFolder>,
    ) -> Self {
        Self {
            shared: SharedRing::new(redis, secret),
            copy,
            turn: tokio::sync::Mutex::default(),
            standing: Mutex::default(),
        }
    }

    /// Where the ring is, for people.
    pub fn place(&self) -> String {
        self.shared.place()
    }

    /// Connects, where nobody has.
    pub(super) async fn connect(&self) -> Result<(), SharedError> {
        self.shared.connect().await
    }

    /// The ring that is there, only read; `None` where none is.
    pub(super) async fn ring(&self) -> Result<Option<Ring>, KeeperError> {
        self.shared.connect().await?;
        match self.shared.read().await?.1 {
            Document::Nothing => Ok(None),
            Document::Damaged(_) => Err(KeeperError::Damaged),
            Document::Ring(ring) => Ok(Some(ring)),
        }
    }

    /// The ring of the local copy; an empty one where there is none that is good.
    pub(super) fn copied(&self, metrics: &Metrics) -> Ring {
        match self.copy.as_ref().map(RingFolder::load) {
            Some(Ok(Some(loaded))) => loaded.ring,
            Some(Err(error)) => {
                metrics.key_ring_failed();
                tracing::error!(%error, "the local copy of the key ring cannot be used");
                Ring::default()
            }
            Some(Ok(None)) | None => Ring::default(),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's time, as of its last answer; `None` before the first.
    pub(super) fn now(&self, elapsed: i64) -> Option<UnixSeconds> {
        self.standing().epoch.map(|epoch| epoch + elapsed)
    }

    /// Why no key signs.
    pub(super) fn trouble(&self) -> &'static str {
        match self.standing().trouble {
            Trouble::None => "no signing key\n",
            Trouble::Away => {
                "no signing key: Redis cannot be reached, and there is no local copy of its key ring\n"
            }
            Trouble::Waiting => {
                "no signing key: there is no key ring in Redis, and other replicas have some seconds to put theirs back\n"
            }
            Trouble::Unusable => {
                "no signing key: the key ring in Redis cannot be used, the log says why\n"
            }
        }
    }

    /// Whether nothing has been there for so long that nobody else has a ring.
    fn is_alone(&self, elapsed: i64) -> bool {
        let since = *self.standing().empty_since.get_or_insert(elapsed);
        elapsed - since >= OTHERS
    }

    /// Puts a ring into the local copy. What was revoked leaves no trace there.
    fn copy(&self, ring: &Ring, metrics: &Metrics) {
        let version = ring.version();
        let copied = std::mem::replace(&mut self.standing().copied, version.clone());
        let Some(folder) = self.copy.as_ref().filter(|_| copied != version) else {
            return;
        };
        let saved = folder
            .lock()
            .and_then(|lock| lock.save(ring, Before::Forgotten));
        if let Err(error) = saved {
            metrics.key_ring_failed();
            tracing::error!(%error, "the key ring of Redis has no local copy: should Redis lose it while no replica runs, its keys are lost");
        }
    }
}

impl Keeper {
    /// Makes a shared ring known before the first request; waits some seconds at most, and
    /// goes on from the local copy where there is no Redis. Of other rings nothing.
    pub async fn join(&self) {
        let super::RingPlace::Shared(replica) = &self.place else {
            return;
        };
        let joined = match replica.shared.connect().await {
            Ok(()) => self
                .change_shared_at_last(replica, &mut |_, _| ())
                .await
                .map(drop),
            Err(error) => Err(error.into()),
        };
        self.stands(replica, joined.as_ref().err());
        if let Err(error) = joined {
            self.metrics.key_ring_failed();
            tracing::error!(%error, "the shared key ring cannot be had");
            self.go_on_alone(&error);
        }
    }

    /// Starts from the local copy, where Redis is away: what it has was in the shared ring.
    fn go_on_alone(&self, error: &KeeperError) {
        let mut held = self.held();
        let away = matches!(error, KeeperError::Shared(SharedError::Redis(_)));
        if !away || !held.is_mute() || held.ring.keys.is_empty() {
            return;
        }
        let ring = held.ring.clone();
        if let Ok(view) = self.view(held.seen(), &ring) {
            tracing::warn!(
                generation = ring.generation,
                "the local copy of the key ring is used"
            );
            self.adopt(&mut held, ring.clone(), view, &ring, &[]);
        }
    }

    /// Notes how this replica stands to the shared ring.
    fn stands(&self, replica: &Replica, error: Option<&KeeperError>) {
        let trouble = match error {
            None => Trouble::None,
            Some(KeeperError::Shared(SharedError::Redis(_))) => Trouble::Away,
            Some(KeeperError::Waiting) => Trouble::Waiting,
            Some(_) => Trouble::Unusable,
        };
        self.metrics.key_ring_shared(trouble == Trouble::None);
        let mut standing = replica.standing();
        if trouble != Trouble::Waiting {
            standing.empty_since = None;
        }
        let before = std::mem::replace(&mut standing.trouble, trouble);
        if let Some(error) = error.filter(|_| trouble == Trouble::Away && before != trouble) {
            self.metrics.key_ring_failed();
            tracing::warn!(%error, "Redis is away: the key ring stays as it was");
        }
    }

    /// What a second brings: something is due, or another replica changed the ring.
    pub(super) async fn look_to(&self, replica: &Replica) -> Result<(), KeeperError> {
        self.refresh()?;
        let looked = self.look_at(replica).await;
        self.stands(replica, looked.as_ref().err());
        match looked {
            // Said once; Redis is asked again a second later.
            Err(KeeperError::Shared(SharedError::Redis(_)) | KeeperError::Waiting) => Ok(()),
            other => other,
        }
    }

    async fn look_at(&self, replica: &Replica) -> Result<(), KeeperError> {
        let (time, version) = replica.shared.version().await?;
        let whole = {
            let mut standing = replica.standing();
            standing.epoch = Some(time - self.elapsed());
            standing.looks = standing.looks.wrapping_add(1);
            standing.looks.is_multiple_of(WHOLE)
        };
        let now = self.now();
        let moved = {
            let held = self.held();
            let next = held.ring.next_change(now, &self.schedule, &self.algorithms);
            held.is_mute()
                || version.as_deref() != Some(held.ring.version().as_bytes())
                || next.is_some_and(|at| at <= now)
        };
        if whole || moved {
            self.change_shared(replica, &mut |_, _| ()).await?;
        }
        Ok(())
    }

    /// Changes the shared ring; where there is none yet, when the others have had their time.
    pub(super) async fn change_shared_at_last<T>(
        &self,
        replica: &Replica,
        change: &mut (dyn FnMut(&mut Ring, UnixSeconds) -> T + Send),
    ) -> Result<(T, Vec<Change>), KeeperError> {
        loop {
            match self.change_shared(replica, change).await {
                Err(KeeperError::Waiting) => sleep(Duration::from_millis(200)).await,
                ended => return ended,
            }
        }
    }

    /// Changes the shared ring: from what is there and what is held, by compare-and-set.
    async fn change_shared<T>(
        &self,
        replica: &Replica,
        change: &mut (dyn FnMut(&mut Ring, UnixSeconds) -> T + Send),
    ) -> Result<(T, Vec<Change>), KeeperError> {
        let _turn = replica.turn.lock().await;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let [random] = crypto::random::<1>()?;
                sleep(Duration::from_millis(u64::from(random) / 8)).await;
            }
            let (time, document) = replica.shared.read().await?;
            replica.standing().epoch = Some(time - self.elapsed());
            let now = self.now();
            let (held, seen, mute) = {
                let held = self.held();
                (held.ring.clone(), held.seen().clone(), held.is_mute())
            };
            let found = match &document {
                Document::Nothing => Found::Nothing,
                Document::Damaged(_) => Found::Damaged,
                Document::Ring(ring) => Found::Ring(ring),
            };
            let held = Some(held).filter(|ring| !ring.keys.is_empty());
            let step = decide(held.as_ref(), !mute, &found, now, &self.schedule);
            // A local copy may be old: what the others hold comes first.
            if mute && matches!(found, Found::Nothing) && !replica.is_alone(self.elapsed()) {
                return Err(KeeperError::Waiting);
            }
            let version = document.version();
            let (mut ring, mut changed) = match (&step, held, document) {
                (Step::Refuse, ..) => return Err(KeeperError::Damaged),
                (Step::Begin, ..) => (newborn()?, true),
                (Step::Merge(ring), ..) => (ring.clone(), true),
                (Step::Keep, Some(held), _) => (held, false),
                (Step::PutBack, Some(held), _) => (held, true),
                (_, _, Document::Ring(found)) => (found, false),
                _ => return Err(KeeperError::Damaged),
            };
            let (generation, base) = (ring.generation, ring.clone());
            let done = change(&mut ring, now);
            let changes = ring.tick(now, &self.schedule, &self.algorithms, &mut generate)?;
            changed |= ring.generation != generation;
            if changed {
                ring.mark(name()?);
            }
            let view = self.view(&seen, &ring)?;
            if changed && !self.put(replica, &version, time, &ring).await? {
                continue;
            }
            self.tell(&step, &ring);
            tokio::task::block_in_place(|| {
                replica.copy(&ring, &self.metrics);
                let mut held = self.held();
                let known = if held.is_mute() {
                    base
                } else {
                    held.ring.clone()
                };
                self.adopt(&mut held, ring, view, &known, &changes);
            });
            return Ok((done, changes));
        }
        Err(KeeperError::Contended)
    }

    /// Puts the ring there; `false` where others came before. Where the answer is lost, what is
    /// there tells whether it was done.
    async fn put(
        &self,
        replica: &Replica,
        version: &[u8],
        read_at: UnixSeconds,
        ring: &Ring,
    ) -> Result<bool, KeeperError> {
        let error = match replica.shared.replace(version, read_at, ring).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match replica.shared.version().await {
            Ok((_, there)) => Ok(there.as_deref() == Some(ring.version().as_bytes())),
            Err(_) => Err(error.into()),
        }
    }

    /// Says aloud what should not have been needed.
    fn tell(&self, step: &Step, ring: &Ring) {
        let generation = ring.generation;
        match step {
            Step::PutBack => {
                self.metrics.key_ring_put_back();
                tracing::error!(
                    generation,
                    "the key ring in Redis was gone, damaged or older than it was: it was put back as this replica knows it"
                );
            }
            Step::Merge(_) => {
                self.metrics.key_ring_conflict();
                tracing::error!(
                    generation,
                    "key rings that had parted were made one: what signed by either stays published as a retired key"
                );
            }
            Step::Begin => tracing::warn!(generation, "the first key ring was put into Redis"),
            Step::Keep | Step::Take | Step::Refuse => {}
        }
    }
}
