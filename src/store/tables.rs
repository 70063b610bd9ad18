//! What the file holds, table by table, and how a change is made in one transaction of it.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `format` | | the version of this layout: another one is refused |
//! | `revocations` | key | at, until |
//! | `done` | key | until |
//! | `expiry` | until, which table, key | what `sweep` looks for |
//! | `records` | key | version, fetched at, body |
//! | `entries` | key | version, until, body |
//! | `statuses` | index | until, standings |
//! | `messages` | id | app, due, attempts, body |
//! | `due` | due, id | what `due` looks for |

use super::{
    Change, Committed, Delivery, Entry, Key, Message, Once, Record, Revocation, Standing,
    UnixMillis,
};
use crate::clock::UnixSeconds;
use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition,
    TableError, TableHandle, WriteTransaction,
};

/// The version of this layout.
pub(super) const FORMAT: u64 = 1;

/// How many marks one transaction sweeps, so that changes need not wait for long.
const SWEPT_AT_ONCE: usize = 1000;

type Bytes = &'static [u8; 16];

const FORMATS: TableDefinition<'_, (), u64> = TableDefinition::new("format");
const REVOCATIONS: TableDefinition<'_, Bytes, (UnixMillis, UnixSeconds)> =
    TableDefinition::new("revocations");
const DONE: TableDefinition<'_, Bytes, UnixSeconds> = TableDefinition::new("done");
const EXPIRY: TableDefinition<'_, (UnixSeconds, u8, Bytes), ()> = TableDefinition::new("expiry");
const RECORDS: TableDefinition<'_, Bytes, (UnixMillis, UnixSeconds, &'static [u8])> =
    TableDefinition::new("records");
const ENTRIES: TableDefinition<'_, Bytes, (u64, UnixSeconds, &'static [u8])> =
    TableDefinition::new("entries");
const STATUSES: TableDefinition<'_, u32, (UnixSeconds, &'static [u8])> =
    TableDefinition::new("statuses");
const MESSAGES: TableDefinition<'_, &'static str, (&'static str, UnixSeconds, u32, &'static [u8])> =
    TableDefinition::new("messages");
const DUE: TableDefinition<'_, (UnixSeconds, &'static str), ()> = TableDefinition::new("due");

/// Which table a row of `expiry` is about.
const OF_REVOCATIONS: u8 = 0;
const OF_DONE: u8 = 1;
const OF_ENTRIES: u8 = 2;
const OF_RECORDS: u8 = 3;
const OF_STATUSES: u8 = 4;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Make a change.
    Commit(Change, UnixSeconds),
    /// Take what is due.
    Due {
        /// The time.
        now: UnixSeconds,
        /// For how long it is taken.
        lease: UnixSeconds,
        /// How many.
        most: usize,
    },
    /// Say what became of a message.
    Settle(String, Delivery),
    /// Forget some of what is over.
    Sweep(UnixSeconds),
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Made {
    /// Whether the change was made.
    pub(super) committed: Committed,
    /// The messages that were taken.
    pub(super) due: Vec<Message>,
    /// There may be more to sweep.
    pub(super) more: bool,
}

/// The tables in one transaction.
pub(super) struct Tables<'t> {
    revocations: Table<'t, Bytes, (UnixMillis, UnixSeconds)>,
    done: Table<'t, Bytes, UnixSeconds>,
    expiry: Table<'t, (UnixSeconds, u8, Bytes), ()>,
    records: Table<'t, Bytes, (UnixMillis, UnixSeconds, &'static [u8])>,
    entries: Table<'t, Bytes, (u64, UnixSeconds, &'static [u8])>,
    statuses: Table<'t, u32, (UnixSeconds, &'static [u8])>,
    messages: Table<'t, &'static str, (&'static str, UnixSeconds, u32, &'static [u8])>,
    due: Table<'t, (UnixSeconds, &'static str), ()>,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
}

/// The version of the layout that a file was written in; `None` where it is new. A file of
/// somebody else's tables has version 0.
pub(super) fn format(transaction: &ReadTransaction) -> Result<Option<u64>, TableError> {
    if transaction.list_tables()?.next().is_none() {
        return Ok(None);
    }
    if transaction
        .list_tables()?
        .all(|table| table.name() != FORMATS.name())
    {
        return Ok(Some(0));
    }
    let format = transaction.open_table(FORMATS)?.get(())?;
    Ok(Some(format.map_or(0, |format| format.value())))
}

/// Makes all tables in a new file.
pub(super) fn make(transaction: &WriteTransaction) -> Result<(), TableError> {
    transaction.open_table(FORMATS)?.insert((), FORMAT)?;
    Tables::open(transaction).map(drop)
}

/// All revocations of the file.
pub(super) fn revocations(transaction: &ReadTransaction) -> Result<Vec<Revocation>, TableError> {
    let table = transaction.open_table(REVOCATIONS)?;
    let rows = table.iter()?.map(|row| {
        let (key, value) = row?;
        let (at, until) = value.value();
        let key = Key(*key.value());
        Ok(Revocation { key, at, until })
    });
    rows.collect()
}

/// These entries, where there are any.
pub(super) fn entries(
    transaction: &ReadTransaction,
    keys: &[Key],
    now: UnixSeconds,
) -> Result<Vec<Option<Entry>>, TableError> {
    let table = match transaction.open_table(ENTRIES) {
        Ok(table) => table,
        // A file of a version that had none, in which nothing has been changed yet.
        Err(TableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
        Err(error) => return Err(error),
    };
    let entries = keys.iter().map(|key| {
        let row = table.get(&key.0)?;
        let entry = row.map(|row| {
            let (version, until, body) = row.value();
            Entry {
                version,
                until,
                body: body.to_vec(),
            }
        });
        Ok(entry.filter(|entry| entry.until > now))
    });
    entries.collect()
}

/// These records, where there are any.
pub(super) fn records(
    transaction: &ReadTransaction,
    keys: &[Key],
) -> Result<Vec<Option<Record>>, TableError> {
    let table = transaction.open_table(RECORDS)?;
    let records = keys.iter().map(|key| {
        let row = table.get(&key.0)?;
        Ok(row.map(|row| {
            let (version, fetched_at, body) = row.value();
            Record {
                version,
                fetched_at,
                body: body.to_vec(),
            }
        }))
    });
    records.collect()
}

/// How many messages wait.
pub(super) fn waiting(transaction: &ReadTransaction) -> Result<u64, TableError> {
    Ok(transaction.open_table(MESSAGES)?.len()?)
}

/// Until when it is remembered that this was done.
pub(super) fn done(
    transaction: &ReadTransaction,
    key: Key,
) -> Result<Option<UnixSeconds>, TableError> {
    let until = transaction.open_table(DONE)?.get(&key.0)?;
    Ok(until.map(|until| until.value()))
}

/// Shows each place in the status list that is taken, and what would revoke its token.
pub(super) fn each_status(
    transaction: &ReadTransaction,
    now: UnixSeconds,
    mut show: impl FnMut(u32, &[Standing]),
) -> Result<(), TableError> {
    let table = match transaction.open_table(STATUSES) {
        Ok(table) => table,
        // A file of a version that had none, in which nothing has been changed yet.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    for row in table.iter()? {
        let (index, value) = row?;
        let (until, standings) = value.value();
        if until > now {
            show(index.value(), &read(standings));
        }
    }
    Ok(())
}

/// Standings in a row: 16 bytes of key and 8 of time for each.
pub(super) fn written(standings: &[Standing]) -> Vec<u8> {
    let each = standings
        .iter()
        .flat_map(|standing| [&standing.key.0[..], &standing.since.to_be_bytes()].concat());
    each.collect()
}

/// Reads them.
pub(super) fn read(row: &[u8]) -> Vec<Standing> {
    let (standings, _) = row.as_chunks::<24>();
    let standings = standings.iter().filter_map(|standing| {
        let (key, since) = standing.split_first_chunk()?;
        let since = UnixMillis::from_be_bytes(*since.first_chunk()?);
        let key = Key(*key);
        Some(Standing { key, since })
    });
    standings.collect()
}

/// A place's row in `expiry`.
fn key_of(index: u32) -> Key {
    Key(u128::from(index).to_be_bytes())
}

fn index_of(key: &[u8; 16]) -> u32 {
    u32::try_from(u128::from_be_bytes(*key)).unwrap_or_default()
}

impl<'t> Tables<'t> {
    /// Opens all tables.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            revocations: transaction.open_table(REVOCATIONS)?,
            done: transaction.open_table(DONE)?,
            expiry: transaction.open_table(EXPIRY)?,
            records: transaction.open_table(RECORDS)?,
            entries: transaction.open_table(ENTRIES)?,
            statuses: transaction.open_table(STATUSES)?,
            messages: transaction.open_table(MESSAGES)?,
            due: transaction.open_table(DUE)?,
            changed: false,
        })
    }

    /// How many messages wait.
    pub(super) fn waiting(&self) -> Result<u64, StorageError> {
        self.messages.len()
    }

    /// Does it, as far as this transaction is concerned.
    pub(super) fn make(&mut self, work: &Work) -> Result<Made, StorageError> {
        let mut made = Made {
            committed: Committed::Done,
            due: Vec::new(),
            more: false,
        };
        match work {
            Work::Commit(change, now) => made.committed = self.commit(change, *now)?,
            Work::Due { now, lease, most } => made.due = self.take_due(*now, *lease, *most)?,
            Work::Settle(id, delivery) => self.settle(id, *delivery)?,
            Work::Sweep(now) => made.more = self.sweep(*now)?,
        }
        Ok(made)
    }

    /// Makes a change, where it is not made already and nobody was faster.
    fn commit(&mut self, change: &Change, now: UnixSeconds) -> Result<Committed, StorageError> {
        let done = match &change.once {
            Some(Once { key, .. }) => self.done.get(&key.0)?.map(|until| until.value()),
            None => None,
        };
        if done.is_some_and(|until| until > now) {
            return Ok(Committed::Repeated);
        }
        let mut there = Vec::with_capacity(change.entries.len());
        for replace in &change.entries {
            let entry = self.entries.get(&replace.key.0)?;
            let entry = entry.map(|entry| (entry.value().0, entry.value().1));
            if !replace.fits(entry, now) {
                return Ok(Committed::Repeated);
            }
            there.push(entry.map(|(_, until)| until));
        }
        for status in &change.statuses {
            let known = self.statuses.get(status.index)?;
            if known.is_some_and(|known| known.value().0 > now) {
                return Ok(Committed::Repeated);
            }
        }
        if let Some(Once { key, until, .. }) = change.once {
            self.done.insert(&key.0, until)?;
            self.expires(OF_DONE, key, done, until)?;
        }
        for status in &change.statuses {
            let standings = written(&status.standings);
            let row = (status.until, standings.as_slice());
            let before = self.statuses.insert(status.index, row)?;
            let before = before.map(|before| before.value().0);
            self.expires(OF_STATUSES, key_of(status.index), before, status.until)?;
        }
        for (replace, before) in change.entries.iter().zip(there) {
            let key = replace.key;
            match replace.entry() {
                Some(entry) => {
                    let row = (entry.version, entry.until, entry.body.as_slice());
                    self.entries.insert(&key.0, row)?;
                    self.expires(OF_ENTRIES, key, before, entry.until)?;
                }
                None => {
                    self.entries.remove(&key.0)?;
                    if let Some(before) = before {
                        self.expiry.remove((before, OF_ENTRIES, &key.0))?;
                    }
                    self.changed = true;
                }
            }
        }
        for Revocation { key, at, until } in &change.revocations {
            let known = self.revocations.get(&key.0)?.map(|known| known.value());
            let (at, until) = match known {
                // A mark that is over is as good as none, swept or not.
                Some(known) if known.1 > now => (known.0.max(*at), known.1.max(*until)),
                _ => (*at, *until),
            };
            self.revocations.insert(&key.0, (at, until))?;
            self.expires(OF_REVOCATIONS, *key, known.map(|known| known.1), until)?;
        }
        for (key, record) in &change.records {
            let known = self.records.get(&key.0)?.map(|known| {
                let (version, fetched_at, _) = known.value();
                Record {
                    version,
                    fetched_at,
                    body: Vec::new(),
                }
            });
            let newer = |known: &Record| known.version <= record.version;
            if known.as_ref().is_none_or(newer) {
                let row = (record.version, record.fetched_at, record.body.as_slice());
                self.records.insert(&key.0, row)?;
                let before = known.as_ref().map(Record::until);
                self.expires(OF_RECORDS, *key, before, record.until())?;
            }
        }
        for message in &change.messages {
            self.put(message)?;
        }
        Ok(Committed::Done)
    }

    fn expires(
        &mut self,
        of: u8,
        key: Key,
        before: Option<UnixSeconds>,
        until: UnixSeconds,
    ) -> Result<(), StorageError> {
        self.changed = true;
        if before == Some(until) {
            return Ok(());
        }
        if let Some(before) = before {
            self.expiry.remove((before, of, &key.0))?;
        }
        self.expiry.insert((until, of, &key.0), ())?;
        Ok(())
    }

    fn message(&self, id: &str) -> Result<Option<Message>, StorageError> {
        let row = self.messages.get(id)?;
        Ok(row.map(|row| {
            let (app, due, attempts, body) = row.value();
            Message {
                id: id.to_owned(),
                app: app.to_owned(),
                due,
                attempts,
                body: body.to_vec(),
            }
        }))
    }

    /// Writes a message in the place of the one with its id.
    fn put(&mut self, message: &Message) -> Result<(), StorageError> {
        let id = message.id.as_str();
        self.remove(id)?;
        let row = (
            message.app.as_str(),
            message.due,
            message.attempts,
            message.body.as_slice(),
        );
        self.messages.insert(id, row)?;
        self.due.insert((message.due, id), ())?;
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Result<(), StorageError> {
        let due = self.messages.remove(id)?.map(|row| row.value().1);
        if let Some(due) = due {
            self.due.remove((due, id))?;
            self.changed = true;
        }
        Ok(())
    }

    fn take_due(
        &mut self,
        now: UnixSeconds,
        lease: UnixSeconds,
        most: usize,
    ) -> Result<Vec<Message>, StorageError> {
        let rows = self.due.range(..(now.saturating_add(1), ""))?.take(most);
        let ids = rows.map(|row| Ok(row?.0.value().1.to_owned()));
        let ids: Vec<String> = ids.collect::<Result<_, StorageError>>()?;
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(mut message) = self.message(&id)? {
                message.lease(now, lease);
                self.put(&message)?;
                taken.push(message);
            }
        }
        Ok(taken)
    }

    fn settle(&mut self, id: &str, delivery: Delivery) -> Result<(), StorageError> {
        match delivery {
            Delivery::Settled => self.remove(id),
            Delivery::Again(at) => match self.message(id)? {
                Some(message) => self.put(&Message { due: at, ..message }),
                None => Ok(()),
            },
        }
    }

    /// Whether there may be more.
    fn sweep(&mut self, now: UnixSeconds) -> Result<bool, StorageError> {
        let over = self.expiry.range(..=(now, u8::MAX, &[u8::MAX; 16]))?;
        let rows = over.take(SWEPT_AT_ONCE).map(|row| {
            let row = row?.0;
            let (until, of, key) = row.value();
            Ok((until, of, *key))
        });
        let rows: Vec<(UnixSeconds, u8, [u8; 16])> = rows.collect::<Result<_, StorageError>>()?;
        for (until, of, key) in &rows {
            self.expiry.remove((*until, *of, key))?;
            match *of {
                OF_REVOCATIONS => drop(self.revocations.remove(key)?),
                OF_ENTRIES => drop(self.entries.remove(key)?),
                OF_STATUSES => drop(self.statuses.remove(index_of(key))?),
                OF_DONE => drop(self.done.remove(key)?),
                _ => drop(self.records.remove(key)?),
            }
        }
        self.changed |= !rows.is_empty();
        Ok(rows.len() == SWEPT_AT_ONCE)
    }
}
