//! The directory: what apps want to know of users, organisations and memberships beside their
//! tokens, kept in the store; and who is told of new and changed users.
//!
//! A record is fetched from Clerk's Backend API on first sight, told by webhooks, and fetched
//! anew when it is older than the app allows: a stale one serves meanwhile, a missing one is
//! waited for. Of each object only the fields are kept that apps of its issuer ask for.

mod delivery;
mod events;
mod fetch;
mod projection;

use crate::clock::{Clock, UnixSeconds};
use crate::config::{AppSettings, EventSettings, Settings};
use crate::explain::{Code, Refusal};
use crate::policy::Profile;
use crate::store::{
    Change, Committed, Key, Kind, Once, Question, Record, Store, StoreError, UnixMillis,
};
use crate::subject::clerk::id::is_id;
use crate::subject::fetch::Fetcher;
use crate::subject::{Issuer, Subject};
use crate::telemetry::Metrics;
use events::{Event, Happened};
use fetch::{Flights, Of};
use futures_util::future::join_all;
use projection::{Asked, Fields, Found, Origin, covers, differ, fields, select};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

type Refused = Box<Refusal>;

/// The directory of all issuers.
pub struct Directory {
    store: Arc<Store>,
    clock: Clock,
    fetcher: Fetcher,
    /// By `iss`: two issuers of one `iss` are one Clerk instance.
    instances: HashMap<String, Instance>,
    flights: Flights,
    metrics: Arc<Metrics>,
    /// Until when messages are looked for at short intervals.
    busy_until: AtomicI64,
}

/// A Clerk instance whose users some app wants to know.
#[derive(Default)]
struct Instance {
    /// What its apps ask for together: that is kept.
    asked: Asked,
    apps: Vec<AppSettings>,
}

/// What is known of a subject, and whether its app knows it.
#[derive(Default)]
pub struct Known {
    /// What the app asked for.
    pub profile: Profile,
    /// Whether the app has seen the user before; `None` where it does not ask.
    seen: Option<bool>,
}

/// How a record stands for an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It serves.
    Fresh,
    /// It serves until it is fetched anew.
    Stale,
    /// It is not there, or lacks a field that the app asks for.
    Missing,
}

impl Directory {
    /// The directory of these settings' apps and issuers.
    pub fn new(
        settings: &Settings,
        store: Arc<Store>,
        clock: Clock,
        fetcher: Fetcher,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut instances: HashMap<String, Instance> = HashMap::new();
        for app in &settings.apps {
            let Some(profile) = &app.profile else {
                continue;
            };
            let trusted = |name: &String| settings.issuers.iter().find(|each| each.name == *name);
            for issuer in app.issuers.iter().filter_map(trusted) {
                let instance = instances.entry(issuer.issuer.clone()).or_default();
                instance.asked.add(profile);
                instance.apps.push(app.clone());
            }
        }
        Self {
            store,
            clock,
            fetcher,
            metrics,
            instances,
            flights: Flights::default(),
            busy_until: AtomicI64::new(UnixSeconds::MIN),
        }
    }

    /// The records to ask the store for, for [`Self::know`]: none where the app asks for no
    /// profile, or the subject is no user.
    pub fn records(&self, app: &AppSettings, issuer: &Issuer, subject: &Subject<'_>) -> Vec<Key> {
        let asks = app.profile.is_some() && issuer.backend.is_some();
        if !asks || !is_id(subject.id, "user_") {
            return Vec::new();
        }
        let (issuer, user) = (subject.issuer, subject.id);
        let mut keys = vec![
            Key::of(Kind::FirstSeen, &[&app.name, issuer, user]),
            Key::of(Kind::User, &[issuer, user]),
        ];
        if let Some(organization) = organization(subject) {
            keys.push(Key::of(Kind::Organization, &[issuer, organization]));
            keys.push(Key::of(Kind::Membership, &[issuer, user, organization]));
        }
        keys
    }

    /// What is known of a subject; `records` are the store's, as [`Self::records`] asked for
    /// them. Waits for the Backend API only where a record is missing.
    ///
    /// # Errors
    /// Where the user is deleted, or a record is missing and cannot be fetched.
    pub async fn know(
        self: &Arc<Self>,
        app: &AppSettings,
        issuer: &Arc<Issuer>,
        subject: &Subject<'_>,
        mut records: Vec<Option<Record>>,
    ) -> Result<Known, Refused> {
        let (Some(asked), false) = (&app.profile, records.is_empty()) else {
            return Ok(Known::default());
        };
        if is_deleted(at(&records, USER)) {
            return Err(Refusal::new(Code::UserDeleted));
        }
        let now = self.clock.now();
        let state = |place: usize, fields: &[String]| {
            state(at(&records, place), fields, asked.max_age, now)
        };
        let mut wanted = vec![(state(USER, &asked.user), Of::User(subject.id.to_owned()))];
        if let Some(organization) = organization(subject) {
            let one = state(ORGANIZATION, &asked.organization);
            let other = state(MEMBERSHIP, &asked.membership);
            let of = Of::Membership(subject.id.to_owned(), organization.to_owned());
            wanted.push((one.max(other), of));
        }
        let mut missing = Vec::new();
        for (state, of) in wanted {
            match state {
                State::Fresh => {}
                State::Stale => self.refresh(issuer, of),
                State::Missing => missing.push(self.fetch(issuer, of)),
            }
        }
        if !missing.is_empty() {
            let keys = self.records(app, issuer, subject);
            let mut lost = None;
            for fetched in join_all(missing).await {
                let fetched = fetched.unwrap_or_else(|error| {
                    lost = Some(error);
                    Arc::default()
                });
                for (key, record) in fetched.iter() {
                    let place = keys.iter().position(|each| each == key);
                    if let Some(known) = place.and_then(|place| records.get_mut(place)) {
                        *known = Some(record.clone());
                    }
                }
            }
            // What is there serves, even where it lacks a field.
            let asks = [&asked.user, &asked.organization, &asked.membership];
            let needed = [USER, ORGANIZATION, MEMBERSHIP].into_iter().zip(asks);
            let lacks = needed
                .filter(|(place, asked)| *place < keys.len() && !asked.is_empty())
                .any(|(place, _)| at(&records, place).is_none());
            if let Some(lost) = lost.filter(|_| lacks) {
                return Err(lost.refusal());
            }
        }
        if is_deleted(at(&records, USER)) {
            return Err(Refusal::new(Code::UserDeleted));
        }
        let selected = |place, asked: &[String]| {
            let fields = at(&records, place).and_then(fields).unwrap_or_default();
            select(&fields, asked)
        };
        Ok(Known {
            seen: Some(at(&records, FIRST_SEEN).is_some()),
            profile: Profile {
                user: selected(USER, &asked.user),
                organization: selected(ORGANIZATION, &asked.organization),
                membership: selected(MEMBERSHIP, &asked.membership),
            },
        })
    }

    /// Whether the app sees the user for the first time; of many that ask at once, one is told
    /// so. `None` where the app asks for no profile, or the subject is no user.
    pub async fn meet(
        &self,
        app: &AppSettings,
        subject: &Subject<'_>,
        known: &Known,
    ) -> Result<Option<bool>, StoreError> {
        match known.seen {
            None => return Ok(None),
            Some(true) => return Ok(Some(false)),
            Some(false) => {}
        }
        let now = self.clock.now();
        let key = Key::of(Kind::FirstSeen, &[&app.name, subject.issuer, subject.id]);
        let user = named(subject.id, &known.profile.user);
        let organization = organization(subject).map(|id| named(id, &known.profile.organization));
        let happened = Happened::FirstSeen;
        let event = Event {
            issuer: subject.issuer,
            user: &user,
            organization: organization.as_ref(),
            version: 0,
        };
        let change = Change {
            once: Some(Once {
                key,
                until: UnixSeconds::MAX,
                since: None,
            }),
            // Read with the others, so that who was seen costs no commit again.
            records: vec![(
                key,
                Record {
                    version: 0,
                    // No copy that ages: who was seen stays seen.
                    fetched_at: UnixSeconds::MAX,
                    body: b"{}".to_vec(),
                },
            )],
            messages: Vec::from_iter(event.message(happened, app, now)),
            ..Change::default()
        };
        if !change.messages.is_empty() {
            self.expect_messages(now);
        }
        let committed = self.store.commit(change, now).await?;
        Ok(Some(committed == Committed::Done))
    }

    /// The records and the messages that an event of Clerk's makes, whose signature is verified:
    /// its `type`, when it happened, and its `data`, of the instance whose `iss` is `issuer`.
    ///
    /// To be committed with whatever else the event does; `once` and `revocations` are the
    /// caller's, and empty here. Empty altogether for an event that is none of users,
    /// organisations and memberships, that is malformed, or whose instance no app asks about.
    /// Of events that come out of order the older one changes nothing.
    ///
    /// # Errors
    /// Where the store cannot be asked what was known.
    pub async fn change_for(
        &self,
        issuer: &str,
        kind: &str,
        at: UnixMillis,
        data: &Value,
    ) -> Result<Change, StoreError> {
        let Some(instance) = self.instances.get(issuer) else {
            return Ok(Change::default());
        };
        let found = Found::told(issuer, kind, at, data, &instance.asked);
        let found = Vec::from_iter(found);
        self.change(issuer, instance, &found, Origin::Told).await
    }

    /// The change that objects make to what was known.
    async fn change(
        &self,
        issuer: &str,
        instance: &Instance,
        found: &[Found],
        origin: Origin,
    ) -> Result<Change, StoreError> {
        let now = self.clock.now();
        let mut change = Change::default();
        for found in found
            .iter()
            .filter(|found| instance.asked.keeps(found.kind))
        {
            let user = found.user.as_deref();
            let told = instance.apps.iter().filter(|app| events_of(app).is_some());
            let told: Vec<&AppSettings> = told.filter(|_| user.is_some()).collect();
            let first_seen = told.iter().map(|app| {
                let user = user.unwrap_or_default();
                Key::of(Kind::FirstSeen, &[&app.name, issuer, user])
            });
            let keys: Vec<Key> = [found.key].into_iter().chain(first_seen).collect();
            let question = Question {
                records: &keys,
                ..Question::default()
            };
            let answer = self.store.ask(question, now).await?;
            let mut answers = answer.records.into_iter();
            let known = answers.next().flatten();
            let seen = told.iter().zip(answers.map(|each| each.is_some()));
            let Some(record) = found.record(known.as_ref(), now) else {
                // It was looked at now, and is still the newest.
                let looked_at = known.filter(|_| origin == Origin::Fetched);
                let looked_at = looked_at.map(|known| Record {
                    fetched_at: now,
                    ..known
                });
                change
                    .records
                    .extend(looked_at.map(|known| (found.key, known)));
                continue;
            };
            let before = known.as_ref().and_then(fields);
            if let (Some(id), Some(after)) = (user, &found.fields) {
                for (app, _) in seen.filter(|(_, seen)| *seen) {
                    let asked = app.profile.as_ref().map_or(&[][..], |asked| &asked.user);
                    // What it was may have been forgotten since the app saw the user.
                    if before
                        .as_ref()
                        .is_none_or(|before| differ(before, after, asked))
                    {
                        let event = Event {
                            issuer,
                            user: &named(id, &select(after, asked)),
                            organization: None,
                            version: record.version,
                        };
                        change
                            .messages
                            .extend(event.message(Happened::Updated, app, now));
                    }
                }
            }
            change.records.push((found.key, record));
        }
        if !change.messages.is_empty() {
            self.expect_messages(now);
        }
        Ok(change)
    }
}

/// The places of the records in what [`Directory::records`] asks for.
const FIRST_SEEN: usize = 0;
const USER: usize = 1;
const ORGANIZATION: usize = 2;
const MEMBERSHIP: usize = 3;

fn at(records: &[Option<Record>], place: usize) -> Option<&Record> {
    records.get(place)?.as_ref()
}

fn is_deleted(user: Option<&Record>) -> bool {
    user.is_some_and(|record| record.body.is_empty())
}

fn state(
    record: Option<&Record>,
    asked: &[String],
    max_age: UnixSeconds,
    now: UnixSeconds,
) -> State {
    let Some(record) = record else {
        return if asked.is_empty() {
            State::Fresh
        } else {
            State::Missing
        };
    };
    // What is gone has no fields, and is looked at again as often as others.
    let whole = fields(record).is_none_or(|fields| covers(&fields, asked));
    // A clock that was set back must not make it fresh for ever.
    let old = (now - record.fetched_at).abs() > max_age;
    match (asked.is_empty(), whole, old) {
        (true, ..) | (_, true, false) => State::Fresh,
        (_, true, true) => State::Stale,
        (_, false, _) => State::Missing,
    }
}

/// Who is told of the app's users.
fn events_of(app: &AppSettings) -> Option<&EventSettings> {
    app.profile.as_ref()?.events.as_ref()
}

/// The organisation that the subject acts for, where Clerk could have made its id.
fn organization<'s>(subject: &Subject<'s>) -> Option<&'s str> {
    let organization = subject.organization.as_ref()?;
    is_id(organization.id, "org_").then_some(organization.id)
}

/// The fields, and the id of whose they are.
fn named(id: &str, fields: &Fields) -> Fields {
    let mut named = fields.clone();
    named.insert("id".to_owned(), Value::from(id));
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use crate::store::Memory;
    use serde_json::json;

    const ISSUER: &str = "https://clerk.example.com";
    const SEEN: [&str; 3] = ["web", ISSUER, "user_1"];

    /// Two apps of one instance, and another instance that no app asks about.
    fn directory() -> Directory {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exchequer.toml");
        let toml = format!(
            r#"
            [issuers.clerk]
            issuer = "{ISSUER}"
            kind = "clerk"
            secret_key = {{ env = "KEY" }}
            [issuers.other]
            issuer = "https://other.example.com"
            kind = "clerk"
            [apps.web]
            issuers = "clerk"
            [apps.web.profile]
            user = ["first_name"]
            [apps.web.profile.events]
            url = "https://backend.example.com/events"
            secret = {{ env = "SECRET" }}
            [apps.mobile]
            issuers = "clerk"
            [apps.mobile.profile]
            user = ["last_name"]
            [apps.plain]
            issuers = "other"
            "#
        );
        std::fs::write(&path, toml).unwrap();
        let variables = [
            ("EXCHEQUER_CONFIG", path.to_str().unwrap()),
            ("KEY", "sk_test_1"),
            ("SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (settings, findings) = load(&Sources {
            variables: variables.to_vec(),
            ..Sources::default()
        });
        let settings = settings.unwrap_or_else(|| panic!("{findings:?}"));
        let store = Arc::new(Store::Memory(Memory::new(Arc::default())));
        let fetcher = Fetcher::new().unwrap();
        Directory::new(&settings, store, Clock::system(), fetcher, Arc::default())
    }

    fn updated(first: &str, last: &str, at: UnixMillis) -> Value {
        json!({
            "type": "user.updated", "timestamp": at,
            "data": {"id": "user_1", "first_name": first, "last_name": last, "updated_at": at},
        })
    }

    /// The change that an event in Clerk's envelope makes.
    async fn change_of(directory: &Directory, issuer: &str, event: &Value) -> Change {
        let kind = event["type"].as_str().unwrap();
        let at = event["timestamp"].as_i64().unwrap();
        let change = directory.change_for(issuer, kind, at, &event["data"]);
        change.await.unwrap()
    }

    async fn told(directory: &Directory, event: &Value) -> Vec<Value> {
        let change = change_of(directory, ISSUER, event).await;
        assert!(change.once.is_none() && change.revocations.is_empty());
        let bodies = change.messages.iter();
        let bodies = bodies.map(|each| serde_json::from_slice(&each.body).unwrap());
        let bodies = bodies.collect();
        directory.store.commit(change, 1).await.unwrap();
        bodies
    }

    async fn record(directory: &Directory) -> Option<Record> {
        let question = Question {
            records: &[Key::of(Kind::User, &[ISSUER, "user_1"])],
            ..Question::default()
        };
        directory
            .store
            .ask(question, 1)
            .await
            .unwrap()
            .records
            .remove(0)
    }

    #[tokio::test]
    async fn an_event_becomes_a_record_and_tells_apps_that_know_the_user() {
        let directory = directory();
        assert!(
            told(&directory, &updated("Ada", "Byron", 1))
                .await
                .is_empty()
        );
        let kept = fields(&record(&directory).await.unwrap()).unwrap();
        assert_eq!(
            Value::Object(kept),
            json!({"first_name": "Ada", "last_name": "Byron"})
        );
        // Nobody has seen the user yet.
        assert!(
            told(&directory, &updated("Augusta", "Byron", 2))
                .await
                .is_empty()
        );
        let seen = Record {
            version: 0,
            fetched_at: 1,
            body: b"{}".to_vec(),
        };
        let change = Change {
            records: vec![(Key::of(Kind::FirstSeen, &SEEN), seen)],
            ..Change::default()
        };
        directory.store.commit(change, 1).await.unwrap();
        // What another app asks for is not this one's business.
        assert!(
            told(&directory, &updated("Augusta", "King", 3))
                .await
                .is_empty()
        );
        let events = told(&directory, &updated("Ada", "King", 4)).await;
        let [event] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(
            event["data"],
            json!({"app": "web", "issuer": ISSUER, "user": {"id": "user_1", "first_name": "Ada"}})
        );
        // An older one that comes late changes nothing, nor does the same again.
        assert!(
            told(&directory, &updated("Augusta", "King", 3))
                .await
                .is_empty()
        );
        assert!(
            told(&directory, &updated("Ada", "King", 4))
                .await
                .is_empty()
        );
        assert_eq!(record(&directory).await.unwrap().version, 4);
    }

    #[tokio::test]
    async fn a_deleted_user_stays_deleted() {
        let directory = directory();
        told(&directory, &updated("Ada", "Byron", 1)).await;
        let deleted = json!({"type": "user.deleted", "timestamp": 2, "data": {"id": "user_1"}});
        assert!(told(&directory, &deleted).await.is_empty());
        assert!(
            told(&directory, &updated("Ada", "King", 3))
                .await
                .is_empty()
        );
        assert!(is_deleted(record(&directory).await.as_ref()));
        let user = json!({"id": "user_1", "first_name": "Ada", "updated_at": 9});
        let instance = directory.instances.get(ISSUER).unwrap();
        let found = Found::user(ISSUER, &user, &instance.asked, Origin::Fetched, 9);
        let found = Vec::from_iter(found);
        let fetched = directory.change(ISSUER, instance, &found, Origin::Fetched);
        directory
            .store
            .commit(fetched.await.unwrap(), 1)
            .await
            .unwrap();
        assert!(is_deleted(record(&directory).await.as_ref()));
    }

    #[tokio::test]
    async fn nothing_is_kept_that_no_app_asks_for() {
        let directory = directory();
        let other = "https://other.example.com";
        let change = change_of(&directory, other, &updated("Ada", "King", 1)).await;
        assert!(change.records.is_empty());
        let data = json!({"id": "org_1", "name": "Acme", "updated_at": 1});
        let event = json!({"type": "organization.updated", "timestamp": 1, "data": data});
        let change = change_of(&directory, ISSUER, &event).await;
        assert!(change.records.is_empty());
    }

    #[test]
    fn a_record_serves_by_its_fields_and_its_age() {
        let asked = ["name".to_owned()];
        let record = |body: &str| Record {
            version: 1,
            fetched_at: 1000,
            body: body.as_bytes().to_vec(),
        };
        let whole = record(r#"{"name": null}"#);
        let part = record(r#"{"slug": "acme"}"#);
        let gone = record("");
        for (record, now, expected) in [
            (None, 1000, State::Missing),
            (Some(&whole), 1060, State::Fresh),
            (Some(&whole), 1061, State::Stale),
            (Some(&whole), 990, State::Fresh),
            (Some(&whole), 900, State::Stale),
            (Some(&part), 1000, State::Missing),
            (Some(&gone), 1060, State::Fresh),
            (Some(&gone), 1061, State::Stale),
        ] {
            assert_eq!(state(record, &asked, 60, now), expected, "{now}");
            assert_eq!(state(record, &[], 60, now), State::Fresh);
        }
    }
}
