//! The store in a Redis, for many replicas.
//!
//! What a request asks is one pipeline: what is remembered by its keys, and each bucket by a
//! script. A change is one script ([`commit.lua`](redis/commit.lua)), whole or not at all. Values
//! say until when they stand, which is judged by the caller's time; the time to live of their keys
//! is only there to clear them away, an hour later, for clocks of replicas differ.
//!
//! A Redis can forget: emptied, restarted from an older snapshot, or replaced by a replica that
//! lagged behind. So the store has an [epoch](redis/enter.lua), and each change carries the one that
//! its process knows. A server that was restarted or replaced does not know the scripts; who finds
//! that compares what it knows with what is there before it goes on, and marks what was lost.

mod codec;
mod epoch;
mod names;
mod scripts;

use super::memory::Flow;
use super::{
    Answer, Change, Committed, Delivery, Entry, Level, Memory, Message, Question, Revocation,
    Standing, Status, StoreError, Take, tables,
};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{StoreDown, Topology};
use crate::crypto::random;
use crate::redis_client::{RedisClient, RedisError};
use crate::telemetry::Metrics;
use arc_swap::ArcSwapOption;
use epoch::Epoch;
use futures_util::future::join_all;
use names::{Names, Of};
use redis::{Cmd, Pipeline, Value};
use scripts::{Script, Scripts, is_unknown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, timeout};

/// How long keys outlive what they say, seconds: the clocks of replicas differ, and none may miss
/// what another relies on.
const SLACK: UnixSeconds = 3600;
/// What lives longer than this, seconds, is kept for good.
const FOR_GOOD: UnixSeconds = 50 * 365 * 86_400;
/// How long the key of a bucket outlives its filling, milliseconds: time is told in seconds.
const BUCKET_SLACK: i64 = 10_000;
/// How long a store that is new, or on another server, is not trusted with what is done once,
/// milliseconds: until all who might know better have compared.
const SETTLING: i64 = 3000;
/// How long after a loss tokens of before it have places in the status list, seconds: the longest
/// lifetime, and what clocks tolerate.
const TOKENS_LIVE: UnixSeconds = 3600 + 600;
/// How often what others did is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many marks are swept at once, and how many places are read at once.
const AT_ONCE: usize = 500;
/// How often a change is tried whose epoch has ended meanwhile.
const TRIES: u32 = 3;

/// How far the log of revocations was read.
struct Read {
    position: String,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            position: "0".to_owned(),
        }
    }
}

/// A store in a Redis.
pub struct Redis {
    client: Arc<RedisClient>,
    names: Names,
    scripts: Scripts,
    epoch: ArcSwapOption<Epoch>,
    /// Who compares what is known with what is there; one at a time.
    entering: Mutex<Read>,
    /// The revocations that were read or made, and the buckets of a time without Redis.
    known: Memory,
    /// Whether all revocations were read once.
    knows: AtomicBool,
    down: StoreDown,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

impl Redis {
    /// The store in this Redis, which need not be there yet.
    pub fn new(
        client: Arc<RedisClient>,
        down: StoreDown,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            down,
            names: Names::new(&client.settings().prefix),
            scripts: Scripts::new(),
            epoch: ArcSwapOption::empty(),
            entering: Mutex::default(),
            known: Memory::new(Arc::clone(&metrics)),
            knows: AtomicBool::new(false),
            client,
            clock,
            metrics,
        }
    }

    /// Connects and enters the store; gives for how long it is not trusted yet with what is done
    /// once.
    pub(super) async fn begin(&self) -> Result<Duration, StoreError> {
        if !self.client.is_there() {
            self.client.connect().await?;
        }
        let epoch = self.enter(None).await?;
        let left = epoch.began() + SETTLING - self.server_time().saturating_mul(1000);
        let left = u64::try_from(left.min(SETTLING)).unwrap_or_default();
        Ok(Duration::from_millis(left))
    }

    /// Keeps comparing what is known with what is there, and learning what others revoke.
    pub(super) async fn keep_known(&self) {
        let mut each = tokio::time::interval(LOOK_EVERY);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            each.tick().await;
            let mut read = self.entering.lock().await;
            let _ = self.look(&mut read).await;
        }
    }

    pub(super) async fn ask(
        &self,
        question: Question<'_>,
        now: UnixSeconds,
    ) -> Result<Answer, StoreError> {
        match self.asked(question, now).await {
            Ok(mut answer) => {
                // What Redis has lost is still known here.
                let known = self.known.ask(revocations_of(question), now).revoked;
                answer.revoked = answer.revoked.into_iter().chain(known).min();
                Ok(answer)
            }
            Err(error) => {
                self.metrics.store_failed();
                self.last_known(question, now).ok_or(error)
            }
        }
    }

    /// What can be answered without Redis, where policy allows: by the last known revocations and
    /// by buckets of this process; of records nothing is known.
    fn last_known(&self, question: Question<'_>, now: UnixSeconds) -> Option<Answer> {
        if !question.entries.is_empty() || question.done.is_some() {
            return None;
        }
        if !question.standings.is_empty() {
            if !self.knows.load(Ordering::Relaxed) || !self.down.last_known {
                return None;
            }
            self.metrics.store_fell_back("revocation");
        }
        let takes = question.takes.iter();
        let levels = takes.map(|take| self.local_level(take, now));
        let levels = levels.collect::<Option<Vec<Level>>>()?;
        Some(Answer {
            records: vec![None; question.records.len()],
            levels,
            ..self.known.ask(revocations_of(question), now)
        })
    }

    async fn asked(&self, question: Question<'_>, now: UnixSeconds) -> Result<Answer, StoreError> {
        let Question {
            standings,
            takes,
            records,
            entries,
            done,
        } = question;
        let kept = standings.len() + records.len() + entries.len() + usize::from(done.is_some());
        let mut commands = Vec::with_capacity(1 + takes.len());
        let mut name = Vec::with_capacity(128);
        if kept > 0 {
            let mut get = Cmd::with_capacity(1 + kept, kept * 80);
            get.arg("MGET");
            let standings = standings.iter().map(|each| (Of::Revocation, &each.key));
            let records = records.iter().map(|key| (Of::Record, key));
            let entries = entries.iter().map(|key| (Of::Entry, key));
            let done = done.iter().map(|key| (Of::Once, key));
            for (of, key) in standings.chain(records).chain(entries).chain(done) {
                self.names.write(&mut name, of, key);
                get.arg(name.as_slice());
            }
            commands.push(get);
        }
        for take in takes {
            commands.push(self.bucket(take, now, &mut name, false));
        }
        let mut values = self.together(commands).await.into_iter();
        let mut answer = Answer::default();
        if kept > 0 {
            let values = list(values.next().ok_or_else(strange)??)?;
            let mut values = values.into_iter().map(bytes);
            for (place, standing) in standings.iter().enumerate() {
                if let Some(value) = values.next().transpose()?.flatten()
                    && hits(standing, &value, now)
                    && answer.revoked.is_none()
                {
                    answer.revoked = Some(place);
                }
            }
            for _ in records {
                let value = values.next().transpose()?.flatten();
                answer
                    .records
                    .push(value.as_deref().and_then(codec::record));
            }
            for _ in entries {
                let value = values.next().transpose()?.flatten();
                answer.entries.push(self.entry(value, now).await?);
            }
            let done = values.next().transpose()?.flatten();
            answer.done = done.is_some_and(|value| codec::stands(&value, now));
        }
        answer.levels = self.levels(takes, values.collect(), now).await?;
        Ok(answer)
    }

    /// Reads an entry; of an epoch that has ended there may have been a later version, so it is
    /// as good as none.
    async fn entry(
        &self,
        value: Option<Vec<u8>>,
        now: UnixSeconds,
    ) -> Result<Option<Entry>, StoreError> {
        let Some((entry, of)) = value.as_deref().and_then(codec::entry) else {
            return Ok(None);
        };
        if let Some(of) = of {
            let known = self.epoch.load_full();
            let is_known = known
                .as_ref()
                .is_some_and(|epoch| epoch.id().as_bytes() == of);
            if !is_known && self.enter(known.as_ref()).await?.id().as_bytes() != of {
                return Ok(None);
            }
        }
        Ok(Some(entry).filter(|entry| entry.until > now))
    }

    /// The command that takes from a bucket. Its time is the server's: replicas whose clocks
    /// differ agree on it.
    fn bucket(&self, take: &Take, now: UnixSeconds, name: &mut Vec<u8>, by_text: bool) -> Cmd {
        // A second is what two readings of one clock differ by.
        let ahead = Some(self.client.clock_ahead()).filter(|ahead| ahead.abs() > 1);
        let flow = Flow::of_month(take);
        self.names.write_bucket(name, &take.key);
        let mut command = self.scripts.bucket.command(by_text, 1);
        command.arg(name.as_slice());
        command.arg(now.saturating_add(ahead.unwrap_or_default()));
        command.arg(flow.window).arg(flow.cost).arg(BUCKET_SLACK);
        command
    }

    /// The levels of buckets; of those whose server does not answer, this process's own.
    async fn levels(
        &self,
        takes: &[Take],
        mut values: Vec<Result<Value, RedisError>>,
        now: UnixSeconds,
    ) -> Result<Vec<Level>, StoreError> {
        let unknown = |value: &Result<Value, _>| value.as_ref().is_ok_and(is_unknown);
        if values.iter().any(unknown) {
            let mut name = Vec::with_capacity(128);
            let again = takes
                .iter()
                .zip(&values)
                .filter(|(_, value)| unknown(value));
            let again = again.map(|(take, _)| self.bucket(take, now, &mut name, true));
            let mut again = self.together(again.collect()).await.into_iter();
            for value in values.iter_mut().filter(|value| unknown(value)) {
                *value = again.next().ok_or_else(strange)?;
            }
        }
        let mut levels = Vec::with_capacity(takes.len());
        for (take, value) in takes.iter().zip(values) {
            let flow = Flow::of_month(take);
            levels.push(match value {
                Ok(value) => match int(value)? {
                    filling @ 0.. => flow.level(filling, false),
                    refused => flow.level(-1 - refused, true),
                },
                Err(error) => self.local_level(take, now).ok_or(error)?,
            });
        }
        Ok(levels)
    }

    /// The level of this process's own bucket, where policy allows.
    fn local_level(&self, take: &Take, now: UnixSeconds) -> Option<Level> {
        if !self.down.local_limits {
            return None;
        }
        self.metrics.store_fell_back("limits");
        let question = Question {
            takes: std::slice::from_ref(take),
            ..Question::default()
        };
        self.known.ask(question, now).levels.pop()
    }

    /// The answers to commands, asked for in one write; of a Cluster, whose servers each have
    /// some of the keys, at the same time.
    async fn together(&self, commands: Vec<Cmd>) -> Vec<Result<Value, RedisError>> {
        if matches!(self.client.settings().topology, Topology::Cluster(_)) {
            let asked = commands.into_iter().map(async |command| {
                let mut pipeline = Pipeline::with_capacity(1);
                pipeline.add_command(command);
                let answer = self.client.run(&pipeline).await?.pop();
                Ok(answer.unwrap_or_default())
            });
            return join_all(asked).await;
        }
        let asked = commands.len();
        let mut pipeline = Pipeline::with_capacity(asked);
        for command in commands {
            pipeline.add_command(command);
        }
        if pipeline.is_empty() {
            return Vec::new();
        }
        match self.client.run(&pipeline).await {
            Ok(values) => values.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); asked],
        }
    }

    pub(super) async fn commit(
        &self,
        change: Change,
        now: UnixSeconds,
    ) -> Result<Committed, StoreError> {
        let began = self.clock.monotonic();
        let committed = self.committed(&change, now).await;
        match &committed {
            Ok(_) => {
                let took = self.clock.monotonic().saturating_sub(began);
                self.metrics.store_committed(took);
            }
            Err(_) => self.metrics.store_failed(),
        }
        committed
    }

    async fn committed(&self, change: &Change, now: UnixSeconds) -> Result<Committed, StoreError> {
        let mut epoch = match self.epoch.load_full() {
            Some(epoch) => epoch,
            None => self.enter(None).await?,
        };
        let mut by_text = false;
        for _ in 0..TRIES {
            let command = self.change(change, &epoch, now, by_text);
            let (value, copies) = self.copied(command).await?;
            by_text = is_unknown(&value);
            if !by_text {
                match int(value)? {
                    0 => return Ok(Committed::Repeated),
                    -1 => {}
                    count @ 1.. => {
                        self.learn(change.revocations.clone(), now);
                        // What too few have was refused: where it is lost, nothing is.
                        copies?;
                        epoch.made(count);
                        return Ok(Committed::Done);
                    }
                    _ => {
                        return Err(StoreError(
                            "Redis has lost what it knew: whether this was done before cannot be told"
                                .to_owned(),
                        ));
                    }
                }
            }
            epoch = self.enter(Some(&epoch)).await?;
        }
        Err(unsteady())
    }

    /// The answer to a change, and whether as many replicas of Redis have it as are wanted.
    async fn copied(&self, command: Cmd) -> Result<(Value, Result<(), StoreError>), StoreError> {
        let settings = self.client.settings();
        let wanted = i64::from(settings.replicas);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command);
        if wanted > 0 {
            let patience = settings.deadline.as_millis() / 2;
            let patience = u64::try_from(patience).unwrap_or(u64::MAX);
            pipeline.cmd("WAIT").arg(wanted).arg(patience);
        }
        let mut values = self.client.run(&pipeline).await?.into_iter();
        let value = values.next().ok_or_else(strange)?;
        let copies = match values.next() {
            Some(copies) => int(copies)?,
            None => wanted,
        };
        let copies = if copies < wanted {
            Err(StoreError(format!(
                "{copies} replicas of Redis have it, of {wanted} that must"
            )))
        } else {
            Ok(())
        };
        Ok((value, copies))
    }

    /// The command that makes a change.
    fn change(&self, change: &Change, epoch: &Epoch, now: UnixSeconds, by_text: bool) -> Cmd {
        let Change {
            once,
            entries,
            revocations,
            statuses,
            records,
            messages,
        } = change;
        let named = usize::from(once.is_some()) + entries.len() + revocations.len() + records.len();
        let shared = &self.names.shared;
        let mut command = self.scripts.commit.command(by_text, shared.len() + named);
        for name in shared {
            command.arg(name.as_slice());
        }
        let once_key = once.iter().map(|once| (Of::Once, &once.key));
        let entry_keys = entries.iter().map(|each| (Of::Entry, &each.key));
        let revocation_keys = revocations.iter().map(|each| (Of::Revocation, &each.key));
        let record_keys = records.iter().map(|(key, _)| (Of::Record, key));
        let keys = once_key.chain(entry_keys).chain(revocation_keys);
        let mut name = Vec::with_capacity(128);
        for (of, key) in keys.chain(record_keys) {
            self.names.write(&mut name, of, key);
            command.arg(name.as_slice());
        }
        command.arg(epoch.text.as_str());
        command.arg(if by_text { "1" } else { "" });
        command.arg(&ordered(now));
        match once.and_then(|once| once.since) {
            Some(since) => command.arg(since.saturating_mul(1000).max(1)),
            None => command.arg(""),
        };
        command.arg(SETTLING);
        if let Some(once) = once {
            command.arg("o").arg(&ordered(once.until));
            ttl(&mut command, once.until, now);
        }
        for replace in entries {
            command.arg("e").arg(&codec::version(replace.version)[..]);
            match replace.entry() {
                Some(entry) => {
                    command.arg(codec::write_entry(&entry, epoch.id()));
                    ttl(&mut command, entry.until, now);
                }
                None => {
                    command.arg("").arg("");
                }
            }
        }
        for each in revocations {
            command.arg("r").arg(&each.key.0[..]);
            command.arg(&ordered(each.at)).arg(&ordered(each.until));
            command.arg(each.until);
            ttl(&mut command, each.until, now);
        }
        for (_, record) in records {
            command.arg("c").arg(&ordered(record.version));
            command.arg(codec::write_record(record));
            ttl(&mut command, record.until(), now);
        }
        for Status {
            index,
            standings,
            until,
        } in statuses
        {
            let mut value = ordered(*until).to_vec();
            value.extend(tables::written(standings));
            command.arg("s").arg(*index).arg(&ordered(*until));
            command.arg(*until).arg(value);
        }
        for message in messages {
            command.arg("m").arg(message.id.as_str()).arg(message.due);
            command.arg(codec::write_message(message));
        }
        command
    }

    /// Compares what is known of the store with what is there, unless that was done since the
    /// epoch was seen to have ended.
    async fn enter(&self, ended: Option<&Arc<Epoch>>) -> Result<Arc<Epoch>, StoreError> {
        let turn = timeout(self.client.settings().deadline, self.entering.lock()).await;
        let mut read = turn.map_err(|_| StoreError("others wait for Redis".to_owned()))?;
        match self.epoch.load_full() {
            Some(known) if ended.is_none_or(|ended| !Arc::ptr_eq(ended, &known)) => Ok(known),
            _ => self.look(&mut read).await,
        }
    }

    /// Compares what is known of the store with what is there, puts back what it has lost, and
    /// reads what was revoked since the last look.
    async fn look(&self, read: &mut Read) -> Result<Arc<Epoch>, StoreError> {
        let random = random::<8>().map_err(|error| StoreError(error.to_string()))?;
        let id = format!("{:016x}", u64::from_be_bytes(random));
        let known = self.epoch.load_full();
        let [epoch, changes, ..] = &self.names.shared;
        let arguments = |command: &mut Cmd| {
            command.arg(epoch.as_slice()).arg(changes.as_slice());
            command.arg(id.as_str());
            command.arg(known.as_ref().map_or("", |epoch| epoch.id()));
            command.arg(known.as_ref().map_or(0, |epoch| epoch.count()));
            command.arg(self.clock.now().saturating_mul(1000));
        };
        let told = list(self.script(&self.scripts.enter, 2, arguments).await?)?;
        let [text, count, behind] = <[Value; 3]>::try_from(told).map_err(|_| strange())?;
        let text = bytes(text)?.and_then(|text| String::from_utf8(text).ok());
        let text = text.ok_or_else(strange)?;
        let epoch = Arc::new(Epoch::new(text, int(count)?, known.as_deref()));
        if int(behind)? == 1 {
            let put_back = self.put_back(&epoch).await?;
            self.metrics.store_lost();
            tracing::error!(
                put_back,
                "Redis has lost what it knew; the revocations known here were put back"
            );
            *read = Read::default();
        }
        self.read_log(read).await?;
        self.epoch.store(Some(Arc::clone(&epoch)));
        Ok(epoch)
    }

    /// Puts back the revocations that this process knows; gives how many.
    async fn put_back(&self, epoch: &Epoch) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let revocations = self.known.revocations(now);
        for some in revocations.chunks(AT_ONCE) {
            let change = Change {
                revocations: some.to_vec(),
                ..Change::default()
            };
            let mut value = self.one(self.change(&change, epoch, now, false)).await?;
            if is_unknown(&value) {
                value = self.one(self.change(&change, epoch, now, true)).await?;
            }
            match int(value)? {
                count @ 1.. => epoch.made(count),
                _ => return Err(unsteady()),
            }
        }
        Ok(revocations.len())
    }

    /// Reads the log from where it was read to.
    async fn read_log(&self, read: &mut Read) -> Result<(), StoreError> {
        let [_, _, log, _, _, _, outbox, _] = &self.names.shared;
        loop {
            let mut pipeline = Pipeline::with_capacity(2);
            let range = pipeline.cmd("ZRANGEBYSCORE").arg(log.as_slice());
            range.arg(format!("({}", read.position)).arg("+inf");
            range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(AT_ONCE);
            pipeline.cmd("ZCARD").arg(outbox.as_slice());
            let told = <[Value; 2]>::try_from(self.client.run(&pipeline).await?);
            let [logged, waiting] = told.map_err(|_| strange())?;
            self.metrics.events_waiting(int(waiting)?.unsigned_abs());
            let mut logged = list(logged)?.into_iter();
            let mut revocations = Vec::new();
            while let (Some(revocation), Some(position)) = (logged.next(), logged.next()) {
                let revocation = bytes(revocation)?.ok_or_else(strange)?;
                revocations.push(codec::logged(&revocation).ok_or_else(strange)?);
                let position = bytes(position)?.and_then(|text| String::from_utf8(text).ok());
                read.position = position.ok_or_else(strange)?;
            }
            let some = revocations.len();
            self.learn(revocations, self.clock.now());
            if some < AT_ONCE {
                self.knows.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    /// Keeps revocations for when Redis does not answer, or has forgotten them.
    fn learn(&self, revocations: Vec<Revocation>, now: UnixSeconds) {
        if !revocations.is_empty() {
            let change = Change {
                revocations,
                ..Change::default()
            };
            self.known.commit(&change, now);
        }
    }

    pub(super) async fn revoked_statuses(&self, now: UnixSeconds) -> Result<Vec<u32>, StoreError> {
        self.knows_statuses().await?;
        let [_, _, _, _, statuses, ..] = &self.names.shared;
        let mut revoked = Vec::new();
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = Cmd::new();
            scan.arg("HSCAN").arg(statuses.as_slice());
            scan.arg(cursor.as_slice()).arg("COUNT").arg(AT_ONCE);
            let told = list(self.one(scan).await?)?;
            let [next, places] = <[Value; 2]>::try_from(told).map_err(|_| strange())?;
            let mut places = list(places)?.into_iter();
            let mut taken = Vec::new();
            while let (Some(index), Some(place)) = (places.next(), places.next()) {
                let (index, place) = (bytes(index)?, bytes(place)?.ok_or_else(strange)?);
                let index = index.and_then(|index| std::str::from_utf8(&index).ok()?.parse().ok());
                if codec::stands(&place, now) {
                    let standings = tables::read(place.get(8..).unwrap_or_default());
                    taken.push((index.ok_or_else(strange)?, standings));
                }
            }
            let standings: Vec<Standing> = taken
                .iter()
                .flat_map(|(_, each)| each.iter().copied())
                .collect();
            let marks = self.marks(&standings).await?;
            let mut hit = standings.iter().zip(&marks).map(|(standing, mark)| {
                mark.as_ref().is_some_and(|mark| hits(standing, mark, now))
            });
            for (index, each) in taken {
                if hit
                    .by_ref()
                    .take(each.len())
                    .fold(false, |any, hit| any | hit)
                {
                    revoked.push(index);
                }
            }
            cursor = bytes(next)?.ok_or_else(strange)?;
            if cursor == b"0" {
                break;
            }
        }
        revoked.sort_unstable();
        // A scan may tell a place twice.
        revoked.dedup();
        Ok(revoked)
    }

    /// Fails where tokens may live whose places were lost: their revocation could not be told.
    async fn knows_statuses(&self) -> Result<(), StoreError> {
        let epoch = match self.epoch.load_full() {
            Some(epoch) => epoch,
            None => self.enter(None).await?,
        };
        if self.server_time() < epoch.lost() / 1000 + TOKENS_LIVE {
            return Err(StoreError(
                "Redis has lost places of the status list".to_owned(),
            ));
        }
        Ok(())
    }

    /// The time of the server's clock.
    fn server_time(&self) -> UnixSeconds {
        self.clock.now().saturating_add(self.client.clock_ahead())
    }

    /// The revocation of each standing's key, where there is one.
    async fn marks(&self, standings: &[Standing]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut name = Vec::with_capacity(128);
        let mut marks = Vec::with_capacity(standings.len());
        for some in standings.chunks(AT_ONCE) {
            let mut get = Cmd::with_capacity(1 + some.len(), some.len() * 80);
            get.arg("MGET");
            for standing in some {
                self.names.write(&mut name, Of::Revocation, &standing.key);
                get.arg(name.as_slice());
            }
            for value in list(self.one(get).await?)? {
                marks.push(bytes(value)?);
            }
        }
        Ok(marks)
    }

    pub(super) async fn due(
        &self,
        now: UnixSeconds,
        lease: UnixSeconds,
        most: usize,
    ) -> Result<Vec<Message>, StoreError> {
        let until = now.saturating_add(lease);
        let [.., outbox, messages] = &self.names.shared;
        let arguments = |command: &mut Cmd| {
            command.arg(outbox.as_slice()).arg(messages.as_slice());
            command.arg(now).arg(until).arg(most);
        };
        let mut told = list(self.script(&self.scripts.due, 2, arguments).await?)?.into_iter();
        let mut due = Vec::with_capacity(told.len() / 2);
        while let (Some(id), Some(value)) = (told.next(), told.next()) {
            let (id, value) = (bytes(id)?, bytes(value)?);
            let message = id.zip(value);
            let message = message.and_then(|(id, value)| codec::message(&id, until, &value));
            due.push(message.ok_or_else(strange)?);
        }
        Ok(due)
    }

    pub(super) async fn settle(&self, id: &str, delivery: Delivery) -> Result<(), StoreError> {
        let [.., outbox, messages] = &self.names.shared;
        let arguments = |command: &mut Cmd| {
            command.arg(outbox.as_slice()).arg(messages.as_slice());
            command.arg(id);
            match delivery {
                Delivery::Settled => command.arg(""),
                Delivery::Again(at) => command.arg(at),
            };
        };
        self.script(&self.scripts.settle, 2, arguments).await?;
        Ok(())
    }

    /// Forgets what no key's time to live clears away.
    pub(super) async fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let [_, _, log, log_ends, statuses, statuses_ends, ..] = &self.names.shared;
        loop {
            let arguments = |command: &mut Cmd| {
                for name in [log, log_ends, statuses, statuses_ends] {
                    command.arg(name.as_slice());
                }
                command.arg(now.saturating_sub(SLACK)).arg(AT_ONCE);
            };
            let swept = int(self.script(&self.scripts.sweep, 4, arguments).await?)?;
            if usize::try_from(swept).unwrap_or_default() < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Runs a script that the server may not know yet.
    async fn script(
        &self,
        script: &Script,
        keys: usize,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, StoreError> {
        let mut command = script.command(false, keys);
        arguments(&mut command);
        let value = self.one(command).await?;
        if !is_unknown(&value) {
            return Ok(value);
        }
        let mut command = script.command(true, keys);
        arguments(&mut command);
        self.one(command).await
    }

    /// The answer to one command.
    async fn one(&self, command: Cmd) -> Result<Value, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let value = self.client.run(&pipeline).await?.pop();
        value.ok_or_else(strange)
    }
}

/// Adds how long a key lives: milliseconds, or nothing where it is kept for good.
fn ttl(command: &mut Cmd, until: UnixSeconds, now: UnixSeconds) {
    let left = until.saturating_sub(now).max(0);
    if left > FOR_GOOD {
        command.arg("");
    } else {
        command.arg((left + SLACK) * 1000);
    }
}

fn ordered(number: i64) -> [u8; 8] {
    codec::ordered(number)
}

/// What of a question is about revocations.
fn revocations_of(question: Question<'_>) -> Question<'_> {
    Question {
        standings: question.standings,
        ..Question::default()
    }
}

fn hits(standing: &Standing, mark: &[u8], now: UnixSeconds) -> bool {
    let mark = codec::revocation(mark);
    mark.is_some_and(|(at, until)| at >= standing.since && until > now)
}

fn unsteady() -> StoreError {
    StoreError("Redis changes again and again".to_owned())
}

fn strange() -> StoreError {
    StoreError("Redis gave an answer of another kind".to_owned())
}

fn refused(value: &Value) -> StoreError {
    match value {
        Value::ServerError(error) => StoreError(format!("Redis: {error}")),
        _ => strange(),
    }
}

fn int(value: Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(refused(&other)),
    }
}

fn bytes(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Err(refused(&other)),
    }
}

fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(refused(&other)),
    }
}
