//! The gate: a bearer → who it is, for gateways that ask about each request.
//!
//! An app token is verified with our own keys. A provider's session token, where an app lets
//! it through, is exchanged, and what the app token would say is what the gate says. What was
//! admitted may be kept: whether it still holds is asked each time, of the clock, the key ring
//! and the store.
//!
//! An app token names its user as the app's `subject` does: where that is not the provider's
//! own id, a deleted user is seen through the end of the session, not by the user's id. The
//! same holds for `org_id` where the app's `claims` replace it. A changed membership refuses
//! what was minted until the provider's event came: it may say the old role.

use crate::clock::UnixSeconds;
use crate::config::IssuerKind;
use crate::crypto::MacKey;
use crate::exchange::{Caller, Credential, Exchange, Request};
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::policy::app::Wish;
use crate::store::{Question, Standing, StoreError};
use crate::subject::json::Json;
use crate::subject::revocation::{Dependence, Hit, Issued};
use crate::token::claims::BACKDATE;
use crate::token::read::{self, Said, Unverified};
use std::collections::BTreeMap;
use std::sync::Arc;

type Refused = Box<Refusal>;

/// How long a provider's token is taken for verified, in seconds: its keys are its issuer's,
/// and may be withdrawn.
const LOOK_AGAIN: UnixSeconds = 60;

/// What a request shows, unverified; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub enum Shown<'r> {
    /// A bearer token (RFC 6750 §2.1).
    Bearer(&'r str),
    /// The session cookie.
    Cookie(&'r str),
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown(…)")
    }
}

/// What the gateway demands of it, beside scopes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'r> {
    /// The app, where the gateway names one.
    pub app: Option<&'r str>,
    /// The audience; else any of the app's.
    pub audience: Option<&'r str>,
}

/// Who it is: personal data, so it has no `Debug`.
pub struct Identity {
    /// The app.
    pub app: String,
    /// The user, as the app names them.
    pub user: String,
    /// The organisation that they act for.
    pub organization: Option<String>,
    /// Their roles in it.
    pub roles: Vec<String>,
    /// What was granted (RFC 6749 §3.3).
    pub scopes: Vec<String>,
}

/// An identity, and what it depends on.
pub struct Admitted {
    /// Who it is.
    pub identity: Identity,
    /// What the app's identity headers are signed with.
    pub signing_key: Option<Arc<MacKey>>,
    /// Which of our keys vouches for it; none for a provider's token.
    kid: Option<String>,
    /// Until when it holds; then it is verified anew, or refused.
    until: UnixSeconds,
    hits: Vec<Hit>,
    standings: Vec<Standing>,
}

/// Judges bearers.
pub struct Gate {
    exchange: Arc<Exchange>,
    signing_keys: BTreeMap<String, Arc<MacKey>>,
}

impl Gate {
    /// The gate of a service.
    pub fn new(exchange: Arc<Exchange>) -> Self {
        let signing_keys = exchange.apps.iter().filter_map(|app| {
            let secret = app.settings.verify.signing_secret.as_ref()?;
            let key = Arc::new(MacKey::new(&secret.0));
            Some((app.settings.name.clone(), key))
        });
        Self {
            signing_keys: signing_keys.collect(),
            exchange,
        }
    }

    /// The time.
    pub fn now(&self) -> UnixSeconds {
        self.exchange.clock.now()
    }

    /// Whether a session cookie is looked at for this app, or for any where none is named.
    pub fn looks_at_cookies(&self, app: Option<&str>) -> bool {
        self.exchange.apps.iter().any(|each| {
            each.settings.verify.session_cookie && app.is_none_or(|app| app == each.settings.name)
        })
    }

    /// Verifies what a request shows; whether it was revoked is asked by [`Self::stands`].
    pub async fn admit(&self, shown: Shown<'_>, demand: Demand<'_>) -> Result<Admitted, Refused> {
        let (Shown::Bearer(token) | Shown::Cookie(token)) = shown;
        let decoded = read::decode(token)?;
        let unverified = Unverified::parse(&decoded)?;
        let issuer = unverified.claims().text("iss");
        let ours = issuer == Some(&self.exchange.issuer);
        let admitted = match shown {
            Shown::Bearer(_) if ours => self.app_token(&unverified, demand),
            _ => self.provider_token(shown, token, &unverified, demand).await,
        };
        admitted.map_err(|refusal| match &refusal.seen {
            None => unverified.shown(refusal),
            Some(_) => refusal,
        })
    }

    fn app_token(
        &self,
        unverified: &Unverified<'_>,
        demand: Demand<'_>,
    ) -> Result<Admitted, Refused> {
        let now = self.now();
        let verified = unverified.verify(&self.exchange.keys.published())?;
        let said = &verified.claims;
        let app = self.exchange.apps.iter();
        let app = app
            .map(|app| &app.settings)
            .find(|app| app.name == said.app)
            .ok_or_else(|| Refusal::new(Code::AppTokenAppUnknown))?;
        if demand.app.is_some_and(|demanded| demanded != app.name) {
            return Err(Refusal::new(Code::AppTokenAppMismatch));
        }
        if verified.typ != app.typ {
            return Err(Refusal::new(Code::AppTokenTypeMismatch));
        }
        let meant = match demand.audience {
            Some(demanded) => demanded == said.audience,
            None => app.audiences.iter().any(|each| each == said.audience),
        };
        if !meant {
            return Err(Refusal::new(Code::AppTokenAudienceMismatch));
        }
        if now >= said.expires_at {
            return Err(Refusal::because(
                Code::AppTokenExpired,
                format!("The app token expired {} s ago.", now - said.expires_at),
            ));
        }
        if said.not_before > now {
            let mut refusal = Refusal::new(Code::AppTokenNotYetValid);
            refusal.retry_after = u64::try_from(said.not_before - now).ok();
            return Err(refusal);
        }
        let dependence = said.provider.map(|issuer| Dependence {
            issuer,
            user: said.user,
            session: said.session,
            organization: said.organization,
            // Its `iat` lies back.
            issued: Issued::Here(said.issued_at + BACKDATE),
        });
        Ok(self.admitted(said, dependence, Some(verified.kid), said.expires_at))
    }

    /// A token that is not ours: exchanged, where the app lets it through.
    async fn provider_token(
        &self,
        shown: Shown<'_>,
        token: &str,
        unverified: &Unverified<'_>,
        demand: Demand<'_>,
    ) -> Result<Admitted, Refused> {
        let claims = unverified.claims();
        let wish = Wish {
            app: demand.app,
            audience: demand.audience,
            ..Wish::default()
        };
        let mut ladder = Ladder::default();
        let selected = self
            .exchange
            .apps
            .select(wish, claims.text("iss"), &mut ladder);
        let (app, issuer) = selected.map_err(|mut refusal| {
            refusal.ladder = ladder;
            refusal
        })?;
        let passes = &app.settings.verify;
        // Whoever guesses would make us ask, and no address here pays for it.
        let signed = issuer.settings.kind != IssuerKind::Introspection;
        match shown {
            Shown::Bearer(_) if !(passes.pass_through && signed) => {
                return Err(Refusal::new(Code::PassThroughNotAllowed));
            }
            Shown::Cookie(_) if !(passes.session_cookie && signed) => {
                return Err(Refusal::new(Code::BearerMissing));
            }
            _ => {}
        }
        let wish = Wish {
            app: Some(&app.settings.name),
            ..wish
        };
        let exchanged = self.exchange.exchange(Request {
            credential: Credential::Token(token),
            wish,
            caller: Caller::default(),
            keep: false,
        });
        let minted = exchanged.await?.token;
        // From here on the claims of the provider's token are verified.
        let decoded = read::decode(&minted.compact)?;
        let minted = Unverified::parse(&decoded)?;
        let said = Said::read(minted.claims())?;
        let whole = |name| claims.get(name).and_then(Json::as_i64);
        let dependence = Dependence {
            issuer: &issuer.settings.issuer,
            user: claims.text("sub").unwrap_or(said.user),
            session: said.session,
            organization: said.organization,
            issued: Issued::Upstream(whole("iat").unwrap_or(said.issued_at)),
        };
        let until = said.expires_at.min(self.now() + LOOK_AGAIN);
        let until = whole("exp").map_or(until, |exp| until.min(exp + issuer.settings.clock_skew));
        Ok(self.admitted(&said, Some(dependence), None, until))
    }

    fn admitted(
        &self,
        said: &Said<'_>,
        dependence: Option<Dependence<'_>>,
        kid: Option<&str>,
        until: UnixSeconds,
    ) -> Admitted {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let standings = dependence.iter().flat_map(Dependence::standings);
        let (hits, standings) = standings.unzip();
        Admitted {
            identity: Identity {
                app: said.app.to_owned(),
                user: said.user.to_owned(),
                organization: said.organization.map(str::to_owned),
                roles: owned(&said.roles),
                scopes: owned(&said.scopes),
            },
            signing_key: self.signing_keys.get(said.app).cloned(),
            kid: kid.map(str::to_owned),
            until,
            hits,
            standings,
        }
    }

    /// Whether what was admitted before need not be verified anew.
    pub fn holds(&self, admitted: &Admitted, now: UnixSeconds) -> bool {
        let known = |kid: &String| self.exchange.keys.published().verifier(kid).is_some();
        now < admitted.until && admitted.kid.as_ref().is_none_or(known)
    }

    /// Asks whether anything that the identity depends on was revoked.
    pub async fn stands(&self, admitted: &Admitted, now: UnixSeconds) -> Result<(), Refused> {
        let question = Question {
            standings: &admitted.standings,
            ..Question::default()
        };
        let answer = self.exchange.store.ask(question, now).await;
        let answer = answer.map_err(StoreError::refusal)?;
        let Some(hit) = answer.revoked.and_then(|place| admitted.hits.get(place)) else {
            return Ok(());
        };
        let mut refusal = Refusal::new(hit.code());
        let seen = format!("{hit:?}");
        refusal.ladder.fail(Check::Revocation, seen, "not revoked");
        Err(refusal)
    }
}
