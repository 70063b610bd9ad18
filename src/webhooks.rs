//! What an identity provider tells by itself: an event, believed for the issuer whose secret
//! signed it, made to last, and only then acknowledged.
//!
//! Events come late, twice and out of order. Each is taken once by its id, and what it revokes
//! depends on when it happened, not on when it came.

use crate::clock::UnixSeconds;
use crate::exchange::Exchange;
use crate::explain::{About, Code, Refusal};
use crate::policy::App;
use crate::standard_webhooks::{Message, TOLERANCE};
use crate::store::{Committed, Key, Kind, Once, Revocation, StoreError, UnixMillis};
use crate::subject::Issuer;
use crate::subject::clerk::id::is_id;
use serde_json::Value;
use std::sync::Arc;

type Refused = Box<Refusal>;

/// How long an event's id is remembered: Svix tries for about a day, and its operators may
/// send anew what failed.
const REMEMBERED: UnixSeconds = 3 * 86_400;
/// How long a deleted user or organisation is: no session and hardly a key of theirs outlives it.
const GONE: UnixSeconds = 400 * 86_400;
/// How much longer than any token could live a revocation is remembered.
const MARGIN: UnixSeconds = 3600;

/// The events that are known by name; others are counted together.
const KNOWN: [&str; 19] = [
    "user.created",
    "user.updated",
    "user.deleted",
    "session.created",
    "session.pending",
    "session.ended",
    "session.removed",
    "session.revoked",
    "organization.created",
    "organization.updated",
    "organization.deleted",
    "organizationMembership.created",
    "organizationMembership.updated",
    "organizationMembership.deleted",
    "organizationInvitation.created",
    "organizationInvitation.accepted",
    "organizationInvitation.revoked",
    "email.created",
    "sms.created",
];

/// The door of an app that takes webhooks.
pub struct Door<'e> {
    exchange: &'e Exchange,
    app: &'e App,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something is revoked from now on.
    Revoked,
    /// What is known of a user, an organisation or a membership changed.
    Recorded,
    /// It says nothing that concerns this service.
    Ignored,
    /// It was taken before.
    Repeated,
}

impl Outcome {
    /// Its name in answers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Recorded => "recorded",
            Self::Ignored => "ignored",
            Self::Repeated => "repeated",
        }
    }
}

/// An event that was taken. It names people by their pseudonyms alone.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id.
    pub id: String,
    /// Its type, or `other`.
    pub kind: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it is one that revokes something.
    pub revokes: bool,
    /// The app whose door it came through.
    pub app: String,
    /// The `iss` of each issuer that it is believed for.
    pub issuers: Vec<String>,
    /// Their names in the configuration.
    pub names: Vec<String>,
    /// The user that it is about.
    pub subject: Option<String>,
    /// The session that it is about.
    pub session: Option<String>,
}

/// The door of this name; an app without webhook secrets has none.
pub fn door<'e>(exchange: &'e Exchange, name: &str) -> Result<Door<'e>, Refused> {
    let unknown = |why: String| Refusal::new(Code::WebhookUnknown).caused_by(why);
    let Some(app) = exchange.apps.get(name) else {
        return Err(unknown("there is no app of this name".to_owned()));
    };
    let door = Door { exchange, app };
    if door.issuers().next().is_none() {
        return Err(unknown(format!(
            "no issuer of the app {name} has a webhook secret: {}",
            app.settings.issuers.join(", ")
        )));
    }
    Ok(door)
}

impl Door<'_> {
    /// The app's issuers that have webhook secrets.
    fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let issuers = self.app.issuers.iter();
        issuers.filter(|issuer| !issuer.settings.webhook_secrets.is_empty())
    }

    /// Takes a message: returns when what it says is as durable as the store promises.
    pub async fn take(&self, message: Message<'_>) -> Result<Taken, Refused> {
        let taken = self.taken(message).await;
        taken.map_err(|refusal| {
            refusal.about(About {
                app: self.app.settings.name.clone(),
                ..About::default()
            })
        })
    }

    async fn taken(&self, message: Message<'_>) -> Result<Taken, Refused> {
        let now = self.exchange.clock.now();
        let sent_at = check_time(&message, now)?;
        let signers = self.signers(&message)?;
        let event = Event::read(message.body, sent_at)?;
        let effect = Effect::of(&event, now)?;
        let keys = self.exchange.keys.published();
        let issuer = signers.first().map(|issuer| &*issuer.settings.issuer);
        let pseudonym = |id| keys.pseudonym(issuer.unwrap_or_default(), id);
        let (user, session) = effect.as_ref().map_or((None, None), Effect::about);
        let mut taken = Taken {
            id: message.id.to_owned(),
            kind: event.known(),
            outcome: Outcome::Ignored,
            revokes: effect.is_some(),
            app: self.app.settings.name.clone(),
            issuers: signers
                .iter()
                .map(|issuer| issuer.settings.issuer.clone())
                .collect(),
            names: signers
                .iter()
                .map(|issuer| issuer.settings.name.clone())
                .collect(),
            subject: user.map(pseudonym),
            session: session.map(pseudonym),
        };
        // Each issuer's change is whole; where one fails, the sender's next attempt finds the
        // others done.
        for issuer in signers {
            let iss = issuer.settings.issuer.as_str();
            let directory = &self.exchange.directory;
            let told = directory.change_for(iss, event.kind(), event.at, event.data());
            let mut change = told.await.map_err(StoreError::refusal)?;
            if let Some(effect) = &effect {
                change.revocations = effect.revocations(iss, now, self.longest(issuer));
            } else if change.records.is_empty() && change.messages.is_empty() {
                continue;
            }
            change.once = Some(Once {
                key: Key::of(Kind::Event, &[iss, message.id]),
                until: now + REMEMBERED,
                // What it revokes is revoked again, and older records replace no newer.
                since: None,
            });
            let committed = self.exchange.store.commit(change, now).await;
            taken.outcome = match (committed.map_err(StoreError::refusal)?, &effect) {
                (Committed::Done, Some(_)) => Outcome::Revoked,
                (Committed::Done, None) => Outcome::Recorded,
                (Committed::Repeated, _) if taken.outcome == Outcome::Ignored => Outcome::Repeated,
                (Committed::Repeated, _) => taken.outcome,
            };
        }
        Ok(taken)
    }

    /// The issuers that the message is believed for: those whose secret signed it.
    fn signers(&self, message: &Message<'_>) -> Result<Vec<&Arc<Issuer>>, Refused> {
        if !message.has_signature() {
            return Err(Refusal::because(
                Code::WebhookSignatureInvalid,
                "The webhook has no whole signature of version v1.",
            ));
        }
        let signed = |issuer: &&Arc<Issuer>| {
            let secrets = issuer.settings.webhook_secrets.iter();
            secrets.fold(false, |good, secret| good | message.is_signed_with(secret))
        };
        let signers: Vec<_> = self.issuers().filter(signed).collect();
        if !signers.is_empty() {
            return Ok(signers);
        }
        let tried: Vec<String> = self
            .issuers()
            .map(|issuer| {
                let settings = &issuer.settings;
                format!("{} ({})", settings.name, settings.webhook_secrets.len())
            })
            .collect();
        Err(
            Refusal::new(Code::WebhookSignatureInvalid).caused_by(format!(
                "the secrets of these issuers were tried: {}",
                tried.join(", ")
            )),
        )
    }

    /// How long from now a token could live that the issuer has vouched for until now.
    fn longest(&self, issuer: &Issuer) -> UnixSeconds {
        let apps = self.exchange.apps.iter();
        let of = |app: &Arc<App>| {
            let refresh = app.settings.refresh;
            app.settings.ttl + refresh.map_or(0, |refresh| refresh.absolute)
        };
        let longest_ttl = apps.map(of).max().unwrap_or_default();
        let settings = &issuer.settings;
        settings.max_lifetime + settings.clock_skew + longest_ttl + MARGIN
    }
}

fn check_time(message: &Message<'_>, now: UnixSeconds) -> Result<UnixSeconds, Refused> {
    let Some(sent_at) = message.sent_at() else {
        return Err(Refusal::because(
            Code::WebhookTimestampInvalid,
            "The webhook's timestamp is not a whole number of seconds.",
        ));
    };
    let ahead = sent_at - now;
    if ahead.abs() <= TOLERANCE {
        return Ok(sent_at);
    }
    let sentence = if ahead > 0 {
        format!(
            "The webhook was sent {ahead} s from now: the sender's clock and this service's differ."
        )
    } else {
        format!(
            "The webhook was sent {} s ago; at most {TOLERANCE} s are tolerated.",
            -ahead
        )
    };
    Err(Refusal::because(Code::WebhookTimestampInvalid, sentence))
}

fn malformed(sentence: impl Into<String>) -> Refused {
    Refusal::because(Code::WebhookBodyMalformed, sentence)
}

/// A verified event.
struct Event {
    body: Value,
    /// When it happened, as far as it says; else when this attempt was made.
    at: UnixMillis,
}

impl Event {
    fn read(body: &[u8], sent_at: UnixSeconds) -> Result<Self, Refused> {
        let body: Value = serde_json::from_slice(body).map_err(|error| {
            malformed(format!(
                "The webhook's body is not JSON: line {}, column {}.",
                error.line(),
                error.column()
            ))
        })?;
        let at = body.get("timestamp").and_then(Value::as_i64);
        // An object that was deleted says when it was last updated before. The later time costs
        // one fresh token at most.
        let changed_at = body.pointer("/data/updated_at").and_then(Value::as_i64);
        let at = at.max(changed_at).unwrap_or(sent_at.saturating_mul(1000));
        let event = Self { body, at };
        match event.kind() {
            "" => Err(malformed("The event has no `type`.")),
            _ => Ok(event),
        }
    }

    fn kind(&self) -> &str {
        self.body
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn data(&self) -> &Value {
        self.body.get("data").unwrap_or(&Value::Null)
    }

    /// The type, where it is known by name.
    fn known(&self) -> &'static str {
        let mut known = KNOWN.iter().copied();
        known.find(|known| *known == self.kind()).unwrap_or("other")
    }

    /// An id in the event's object.
    fn id(&self, pointer: &str, prefix: &str) -> Result<&str, Refused> {
        let id = self.data().pointer(pointer).and_then(Value::as_str);
        id.filter(|id| is_id(id, prefix)).ok_or_else(|| {
            let place = pointer.replace('/', ".");
            malformed(format!(
                "The event's `data{place}` is no id that begins with {prefix}."
            ))
        })
    }
}

/// What an event revokes.
enum Effect<'v> {
    /// A session, for ever.
    Session {
        session: &'v str,
        user: Option<&'v str>,
    },
    /// A user, for ever.
    User(&'v str),
    /// An organisation, for ever.
    Organization(&'v str),
    /// What was issued for a membership up to a time.
    Membership {
        user: &'v str,
        organization: &'v str,
        at: UnixMillis,
    },
}

impl<'v> Effect<'v> {
    /// The effect of an event; most have none. A session that is pending may become active,
    /// and its tokens say themselves that it is not yet. A ban may be lifted, and a revocation
    /// may not; Clerk ends the sessions of whom it bans itself.
    fn of(event: &'v Event, now: UnixSeconds) -> Result<Option<Self>, Refused> {
        Ok(Some(match event.kind() {
            "session.ended" | "session.removed" | "session.revoked" => Self::Session {
                session: event.id("/id", "sess_")?,
                user: event.id("/user_id", "user_").ok(),
            },
            "user.deleted" => Self::User(event.id("/id", "user_")?),
            "organization.deleted" => Self::Organization(event.id("/id", "org_")?),
            "organizationMembership.updated" | "organizationMembership.deleted" => {
                Self::Membership {
                    user: event.id("/public_user_data/user_id", "user_")?,
                    organization: event.id("/organization/id", "org_")?,
                    // A time in the far future would revoke what is yet to be issued.
                    at: event.at.min((now + TOLERANCE).saturating_mul(1000)),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// The user and the session that it is about.
    fn about(&self) -> (Option<&'v str>, Option<&'v str>) {
        match *self {
            Self::Session { session, user } => (user, Some(session)),
            Self::User(user) | Self::Membership { user, .. } => (Some(user), None),
            Self::Organization(_) => (None, None),
        }
    }

    fn revocations(&self, issuer: &str, now: UnixSeconds, longest: UnixSeconds) -> Vec<Revocation> {
        let until = now + longest;
        let ever = |kind, id, until| {
            vec![Revocation {
                key: Key::of(kind, &[issuer, id]),
                at: UnixMillis::MAX,
                until,
            }]
        };
        match *self {
            Self::Session { session, .. } => ever(Kind::Session, session, until),
            Self::User(user) => ever(Kind::User, user, now + GONE),
            Self::Organization(organization) => ever(Kind::Organization, organization, now + GONE),
            // What was minted between the change and its event says the old role too.
            Self::Membership {
                user,
                organization,
                at,
            } => [
                (Kind::Membership, at),
                (Kind::MintedMembership, now.saturating_mul(1000)),
            ]
            .map(|(kind, at)| Revocation {
                key: Key::of(kind, &[issuer, user, organization]),
                at,
                until,
            })
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_tolerated_both_ways_and_not_a_second_more() {
        let now = 1_700_000_000;
        for (ahead, good) in [
            (0, true),
            (300, true),
            (-300, true),
            (301, false),
            (-301, false),
        ] {
            let timestamp = (now + ahead).to_string();
            let message = Message {
                id: "msg_1",
                timestamp: &timestamp,
                signatures: "",
                body: b"",
            };
            assert_eq!(check_time(&message, now).is_ok(), good, "{ahead}");
        }
    }
}
