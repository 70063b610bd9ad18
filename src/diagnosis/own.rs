//! A token of this service: what a gateway that demands this would be told. Revocation is looked
//! at in the store, or asked of the running service that alone has it open.

use super::{DECODED, Diagnosis, Parts, ended, revocation, running, title};
use crate::explain::ladder::Outcome;
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use crate::explain::{Code, Ladder, Refusal};
use crate::gate::{Demand, Shown};
use crate::keys::ring::State;
use crate::token::read::CHECKS;
use serde_json::Value;

impl Diagnosis {
    pub(super) async fn of_own(&self, text: &str, demand: Demand<'_>) -> Report {
        let parts = Parts::of(text);
        let mut notes = vec![Say::words(
            "its `iss` is this service: backends and gateways take it; /auth/exchange would refuse it as subject_token_is_app_token",
        )];
        self.note_key(&parts, &mut notes);
        let mut ladder = Ladder::detailed();
        let judged = self.judge_own(text, demand, &mut ladder, &mut notes).await;
        let mut refusal = judged.err();
        // What the registry alone can say, where it was not looked at.
        let unsaid = refusal.as_ref().and_then(|refusal| refusal.instead_of);
        let undecided = match unsaid.filter(|_| self.unseen.clients.is_some()) {
            Some(code @ Code::AppTokenAudienceMismatch) => {
                refusal = Some(Refusal::new(code));
                false
            }
            Some(_) => {
                refusal = None;
                true
            }
            None => false,
        };
        let mut found_out = !undecided;
        let steps = ladder.rungs_of(&CHECKS).into_iter().map(Into::into);
        let mut steps: Vec<Step> = steps.collect();
        if undecided {
            let failed = steps
                .iter_mut()
                .filter(|step| step.outcome == Outcome::Failed);
            failed.for_each(|step| step.outcome = Outcome::NotReached);
        }
        if self.unseen.store.is_some() {
            // What is bound would be refused as a bearer.
            let asked = match refusal {
                None if parts.claims.get("cnf").is_none() => {
                    running::ask(self, &parts, text, demand).await
                }
                _ => None,
            };
            match asked {
                Some(ended) => {
                    found_out = true;
                    refusal = ended.map(Refusal::new);
                    notes.push(Say::words(
                        "revocation was asked of the running service, at EXCHEQUER_LISTEN",
                    ));
                    if let Some(step) = revocation(&mut steps) {
                        step.outcome = match ended {
                            Some(_) => Outcome::Failed,
                            None => Outcome::Passed,
                        };
                    }
                }
                None => self.without_store(&mut steps, &mut notes),
            }
        }
        let code = refusal.as_ref().map(|refusal| refusal.code);
        let of_a_client = parts.claims.get("idp").is_none();
        notes.extend(self.without_clients().filter(|_| of_a_client));
        let what = if of_a_client {
            "service token"
        } else {
            "app token"
        };
        let facts = parts.facts(text);
        let case = self.case(&parts, demand);
        let passed = match found_out {
            true => "a gateway that asks so would be told whose it is",
            false => "whether there is such a client was not found out",
        };
        let ended = ended(refusal, Say::words(passed));
        Report {
            kind: "app_token",
            title: vec![title(what, &facts, DECODED)],
            token: Some(facts),
            steps,
            next: code.map_or_else(Vec::new, |code| case.hints(code)),
            notes,
            accepted: ended.accepted.filter(|_| found_out),
            ..ended
        }
    }

    /// The checks of the gate, and of the store where it is at hand.
    async fn judge_own(
        &self,
        text: &str,
        demand: Demand<'_>,
        ladder: &mut Ladder,
        notes: &mut Vec<Say>,
    ) -> Result<(), Box<Refusal>> {
        let (gate, shown) = (&self.gate, Shown::Bearer(text));
        let admitted = gate.admit(shown, demand, ladder).await?;
        if admitted.is_bound() {
            notes.push(Say::words(
                "it is bound to a key (`cnf`): it passes as `Authorization: DPoP`, with a proof by that key, and not as a bearer token",
            ));
        } else {
            gate.sent_by(&admitted, shown, None, gate.now())?;
        }
        if self.unseen.store.is_none() {
            gate.stands(&admitted, gate.now(), ladder).await?;
        }
        Ok(())
    }

    /// What the ring says of the token's key.
    fn note_key(&self, parts: &Parts, notes: &mut Vec<Say>) {
        notes.extend(self.unseen.ring.clone());
        let kid = parts.header.get("kid").and_then(Value::as_str);
        let published = self.exchange.keys.published();
        if published
            .revoked
            .iter()
            .any(|revoked| Some(&**revoked) == kid)
        {
            notes.push(Say::words(
                "its key was revoked here with `exchequer keys revoke`: no token of it passes any more",
            ));
        }
        let mut keys = published.overview.iter();
        let Some(key) = keys.find(|key| Some(&*key.kid) == kid) else {
            return;
        };
        let (state, since) = match key.state {
            State::Next => (
                "its key is published and does not sign yet",
                Some(key.life.published_at),
            ),
            State::Active => ("its key signs", key.life.signs_at),
            State::Retired => (
                "its key is retired: published, and signs no more",
                key.life.retires_at,
            ),
        };
        let note = Say::words(state);
        notes.push(match since {
            Some(since) => note
                .and(", since ")
                .number(self.now().saturating_sub(since).max(0) / 3600)
                .and(" h"),
            None => note,
        });
    }
}
