//! What the story asks of the store: how often somebody has asked, what was revoked, and what
//! was used up.

use super::{Caller, Exchange};
use crate::clock::UnixSeconds;
use crate::explain::{Check, Code, Ladder, Limit, Refusal};
use crate::policy::App;
use crate::policy::limits::{self, Takes};
use crate::store::{Answer, Change, Committed, Key, Once, Question, Record, Standing, StoreError};
use crate::subject::Subject;
use crate::subject::revocation::{self, Dependence, Hit};

impl Exchange {
    /// Looks, before a provider is asked on a stranger's word, whether its address could pay
    /// for a refusal, and whether what is to be done once was done: neither the provider nor
    /// the user pays for another try. A provider's answer costs more than this call of the
    /// store, and the provider counts it; a signature costs less, so a JWT is verified without
    /// looking.
    pub(super) async fn may_ask(
        &self,
        caller: Caller<'_>,
        done: Option<Key>,
        ladder: &mut Ladder,
    ) -> Result<(), Box<Refusal>> {
        let takes = Takes::of_look(self.limits.as_ref(), caller.network().as_deref());
        if takes.takes.is_empty() && done.is_none() {
            return Ok(());
        }
        let question = Question {
            takes: &takes.takes,
            done,
            ..Question::default()
        };
        let answer = self.store.ask(question, self.clock.now()).await;
        let answer = answer.map_err(StoreError::refusal)?;
        within(&takes, &answer, ladder)?;
        if answer.done {
            return Err(used(Code::SessionIdUsed, ladder));
        }
        Ok(())
    }

    /// A refusal that its address's bucket has paid for: where that is empty, the refusal
    /// that says so.
    pub async fn counted(&self, mut refusal: Box<Refusal>, caller: Caller<'_>) -> Box<Refusal> {
        let takes = Takes::of_refused(self.limits.as_ref(), caller.network().as_deref());
        if takes.takes.is_empty() || !limits::counts(&refusal) {
            return refusal;
        }
        // Where the store cannot be asked, the refusal that there is still holds.
        let Ok(answer) = self.take(&takes).await else {
            return refusal;
        };
        match takes.judge(&answer.levels) {
            Ok(limit) => {
                // Who is told that the store is away is told no limit.
                refusal.limit = limit.filter(|_| refusal.instead_of.is_none());
                refusal
            }
            Err(mut limited) => {
                limited.about = refusal.about;
                let code = refusal.instead_of.unwrap_or(refusal.code);
                limited.cause = Some(format!("instead of {}", code.entry().slug));
                limited.seen = refusal.seen;
                limited.ladder = refusal.ladder;
                limited
            }
        }
    }

    /// The same of what may have been refused.
    pub async fn counting<T>(
        &self,
        told: Result<T, Box<Refusal>>,
        caller: Caller<'_>,
    ) -> Result<T, Box<Refusal>> {
        match told {
            Ok(told) => Ok(told),
            Err(refusal) => Err(self.counted(refusal, caller).await),
        }
    }

    /// Takes from these buckets alone, now.
    pub async fn take(&self, takes: &Takes) -> Result<Answer, StoreError> {
        let question = Question {
            takes: &takes.takes,
            ..Question::default()
        };
        self.store.ask(question, self.clock.now()).await
    }

    /// Remembers that a credential for one use was used; only the first of several succeeds, the
    /// others are refused so.
    pub(super) async fn use_up(
        &self,
        once: Once,
        refused: Code,
        ladder: &mut Ladder,
    ) -> Result<(), Box<Refusal>> {
        let change = Change {
            once: Some(once),
            ..Change::default()
        };
        let committed = self.store.commit(change, self.clock.now()).await;
        match committed.map_err(StoreError::refusal)? {
            Committed::Done => Ok(()),
            Committed::Repeated => Err(used(refused, ladder)),
        }
    }

    /// What an exchange takes from its subject's bucket and its address's.
    pub(super) fn takes(&self, app: &App, subject: &Subject<'_>, caller: Caller<'_>) -> Takes {
        let organization = subject.organization.as_ref().map_or("", |org| org.id);
        let who = [
            app.settings.name.as_str(),
            subject.issuer,
            organization,
            subject.id,
        ];
        Takes::of(self.limits.as_ref(), &who, caller.network().as_deref())
    }

    /// What the store remembers of a subject, in one call: the nearest rate limit, and these
    /// records.
    pub(super) async fn remembered(
        &self,
        subject: &Subject<'_>,
        takes: &Takes,
        records: &[Key],
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<(Option<Limit>, Vec<Option<Record>>), Box<Refusal>> {
        let (hits, standings): (Vec<Hit>, Vec<Standing>) =
            Dependence::of(subject).standings().unzip();
        let question = Question {
            standings: &standings,
            takes: &takes.takes,
            records,
            ..Question::default()
        };
        let answer = self.store.ask(question, now).await;
        let answer = answer.map_err(StoreError::refusal)?;
        let limit = within(takes, &answer, ladder)?;
        ladder.pass(Check::Limits, || ("", ""));
        revocation::check(answer.revoked, &hits, ladder)?;
        ladder.pass(Check::Revocation, || ("", "not revoked"));
        Ok((limit, answer.records))
    }
}

fn used(code: Code, ladder: &mut Ladder) -> Box<Refusal> {
    ladder.fail(Check::Session, "one that was used before", "a new one");
    Refusal::new(code)
}

/// The nearest limit, or the refusal of one that is reached.
fn within(
    takes: &Takes,
    answer: &Answer,
    ladder: &mut Ladder,
) -> Result<Option<Limit>, Box<Refusal>> {
    takes.judge(&answer.levels).inspect_err(|refusal| {
        ladder.fail(
            Check::Limits,
            refusal.description.as_str(),
            "fewer requests",
        );
    })
}
