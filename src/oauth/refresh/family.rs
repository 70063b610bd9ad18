//! A family: all refresh tokens that came of one exchange. The store keeps it in one entry, and
//! of its tokens hashes alone.

use super::token::{Hash, Token};
use crate::clock::UnixSeconds;
use crate::config::RefreshSettings;
use crate::crypto::MacKey;
use crate::explain::{Code, Refusal};
use crate::oauth::clients::Party;
use crate::store::{Entry, Replace};
use crate::subject::kept::Kept;
use serde::{Deserialize, Serialize};

type Refused = Box<Refusal>;

/// How long after its last day a family can be told from none, seconds.
const TOLD_FOR: UnixSeconds = 86_400;

/// What the store keeps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It goes on.
    Alive(Box<Family>),
    /// It was ended.
    Ended {
        /// Whose it was.
        owner: String,
        /// How.
        how: End,
    },
}

/// How a family was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// A used token came back.
    Reused,
    /// Its holder ended it, or what it stands for has ended.
    Revoked,
}

impl End {
    pub(super) fn refusal(self) -> Refused {
        match self {
            Self::Reused => {
                Refusal::new(Code::RefreshTokenReused).caused_by("the family had been ended")
            }
            Self::Revoked => {
                Refusal::new(Code::RefreshTokenRevoked).caused_by("the family had been ended")
            }
        }
    }
}

/// A family that goes on: personal data, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub(super) struct Family {
    /// Who may use it.
    pub(super) owner: String,
    /// The app.
    pub(super) app: String,
    /// Whom its tokens stand for.
    pub(super) kept: Kept,
    /// What was granted, where the app had scopes.
    pub(super) scope: Option<String>,
    /// Whom its app tokens are for.
    pub(super) audiences: Vec<String>,
    /// When it began.
    pub(super) began_at: UnixSeconds,
    /// When its present token was made.
    pub(super) rotated_at: UnixSeconds,
    /// The hash of its present token.
    pub(super) current: Hash,
    /// The hash of the one before.
    pub(super) previous: Option<Hash>,
}

/// Which token of its family one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The present one.
    Current,
    /// The one before, a moment after its use: its answer may have been lost.
    Before,
    /// One that was used.
    Used,
}

impl Family {
    /// When its present token ends unless it is used.
    pub(super) fn expires_at(&self, settings: &RefreshSettings) -> UnixSeconds {
        let last = self.began_at.saturating_add(settings.absolute);
        last.min(self.rotated_at.saturating_add(settings.idle))
    }

    /// Whether it can still be used.
    pub(super) fn check_times(
        &self,
        settings: &RefreshSettings,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        if now >= self.began_at.saturating_add(settings.absolute) {
            return Err(Refusal::new(Code::RefreshTokenExpired));
        }
        if now >= self.rotated_at.saturating_add(settings.idle) {
            return Err(Refusal::new(Code::RefreshTokenIdle));
        }
        Ok(())
    }

    /// Which of its tokens this is. Whoever knows the family's id has seen one of them, so any
    /// that is not remembered counts as used.
    pub(super) fn place(
        &self,
        token: &Token,
        key: &MacKey,
        settings: &RefreshSettings,
        now: UnixSeconds,
    ) -> Place {
        if token.is(&self.current) {
            return Place::Current;
        }
        let before = self.previous.as_ref().is_some_and(|hash| token.is(hash));
        // Another replica's clock may be ahead.
        let lately = (-settings.grace..settings.grace).contains(&(now - self.rotated_at));
        if before && lately && token.successor(key).is(&self.current) {
            Place::Before
        } else {
            Place::Used
        }
    }

    /// Its present token was used: the next one takes its place.
    pub(super) fn rotate(&mut self, next: &Token, now: UnixSeconds) {
        self.previous = Some(std::mem::replace(&mut self.current, next.hash()));
        self.rotated_at = now;
    }

    /// `client_id` of who may use it.
    pub(super) fn client(&self) -> &str {
        let owner = self.owner.split_once(' ');
        owner.map_or("", |(_, id)| id)
    }

    /// Until when the store keeps it.
    pub(super) fn kept_until(&self, settings: &RefreshSettings) -> UnixSeconds {
        self.began_at
            .saturating_add(settings.absolute)
            .saturating_add(TOLD_FOR)
    }
}

/// How the store names who may use a family.
pub(super) fn owner(party: &Party) -> String {
    let kind = match party {
        Party::Client(_) | Party::Public(_) => "client",
        Party::App(_) => "app",
    };
    format!("{kind} {}", party.id())
}

impl State {
    /// Reads what the store kept.
    pub(super) fn read(entry: &Entry) -> Result<Self, Refused> {
        // The error may quote what it read.
        serde_json::from_slice(&entry.body).map_err(|error| {
            let cause = format!("a family of refresh tokens: {:?}", error.classify());
            Refusal::new(Code::InternalError).caused_by(cause)
        })
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> &str {
        match self {
            Self::Alive(family) => &family.owner,
            Self::Ended { owner, .. } => owner,
        }
    }

    /// Puts it in the place of a version.
    pub(super) fn replace(
        &self,
        token: &Token,
        version: u64,
        until: UnixSeconds,
    ) -> Result<Replace, Refused> {
        let body = serde_json::to_vec(self)
            .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
        Ok(Replace {
            key: token.key(),
            version,
            by: Some((until, body)),
        })
    }
}
