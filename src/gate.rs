//! The gate: a bearer → who it is, for gateways that ask about each request.
//!
//! An app token is verified with our own keys, and so is a service token, where the gateway
//! takes one. A provider's session token, where an app lets it through, is looked at as the
//! exchange would, and what the app token would say is what the gate says. What was admitted
//! may be kept: whether it still holds is asked each time, of the clock, the key ring and the
//! store.
//!
//! An app token names its user as the app's `subject` does: where that is not the provider's
//! own id, a deleted user is seen through the end of the session, not by the user's id. The
//! same holds for `org_id` where the app's `claims` replace it. A changed membership refuses
//! what was minted until the provider's event came: it may say the old role.

use crate::clock::UnixSeconds;
use crate::config::{AppSettings, DpopPolicy, DpopSettings, origins};
use crate::crypto::MacKey;
use crate::dpop::{self, Proof, Used};
use crate::exchange::Exchange;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::oauth::clients::{Client, Clients};
use crate::policy::app::Wish;
use crate::store::{Question, Standing, StoreError};
use crate::subject::date;
use crate::subject::json::Object;
use crate::subject::revocation::{self, Dependence, Hit, Issued};
use crate::token::mint::SERVICE_TYPE;
use crate::token::read::{self, Said, Unverified};
use std::collections::BTreeMap;
use std::sync::Arc;

type Refused = Box<Refusal>;

/// How long a provider's token is taken for verified, in seconds: its keys are its issuer's,
/// and may be withdrawn.
const LOOK_AGAIN: UnixSeconds = 60;

/// What a request shows, unverified; its `Debug` does not show it.
#[derive(Clone, Copy, Hash)]
pub enum Shown<'r> {
    /// A bearer token (RFC 6750 §2.1).
    Bearer(&'r str),
    /// A token that goes with a proof (RFC 9449 §7.1).
    Dpop(&'r str),
    /// The session cookie.
    Cookie(&'r str),
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown(…)")
    }
}

/// What the gateway demands of it, beside scopes.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub struct Demand<'r> {
    /// The app, where the gateway names one.
    pub app: Option<&'r str>,
    /// The audience; else any of the app's.
    pub audience: Option<&'r str>,
}

/// Whose token it is: personal data, so it has no `Debug`.
pub enum Whose {
    /// A user's.
    User {
        /// The app.
        app: String,
        /// The user, as the app names them.
        user: String,
    },
    /// A client's of ours, behind which there is no user.
    Client(String),
}

/// Who it is: personal data, so it has no `Debug`.
pub struct Identity {
    /// Whose token it is.
    pub whose: Whose,
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
    /// The thumbprint of the key that the token is bound to.
    bound_to: Option<String>,
    /// The backend that it was exchanged for, where that is none of its app's.
    called: Option<String>,
    /// What its app says of such keys.
    dpop: DpopSettings,
    /// Which of our keys vouches for it; none for a provider's token.
    kid: Option<String>,
    /// Until when it holds; then it is verified anew, or refused.
    until: UnixSeconds,
    hits: Vec<Hit>,
    standings: Vec<Standing>,
}

impl Admitted {
    /// Whether the token is bound to a key.
    pub fn is_bound(&self) -> bool {
        self.bound_to.is_some()
    }
}

/// Judges bearers.
pub struct Gate {
    exchange: Arc<Exchange>,
    clients: Arc<Clients>,
    signing_keys: BTreeMap<String, Arc<MacKey>>,
    used: Used,
}

impl Gate {
    /// The gate of a service with these clients.
    pub fn new(exchange: Arc<Exchange>, clients: Arc<Clients>) -> Self {
        let signing_keys = exchange.apps.iter().filter_map(|app| {
            let secret = app.settings.verify.signing_secret.as_ref()?;
            let key = Arc::new(MacKey::new(&secret.0));
            Some((app.settings.name.clone(), key))
        });
        Self {
            clients,
            signing_keys: signing_keys.collect(),
            used: Used::default(),
            exchange,
        }
    }

    /// `iss` of our tokens, and where this service is.
    pub fn issuer(&self) -> &str {
        &self.exchange.issuer
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
    pub async fn admit(
        &self,
        shown: Shown<'_>,
        demand: Demand<'_>,
        ladder: &mut Ladder,
    ) -> Result<Admitted, Refused> {
        let (Shown::Bearer(token) | Shown::Dpop(token) | Shown::Cookie(token)) = shown;
        let decoded = read::decode(token, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        let issuer = unverified.claims().text("iss");
        let ours = issuer == Some(&self.exchange.issuer);
        let admitted = match shown {
            Shown::Bearer(_) | Shown::Dpop(_) if ours => {
                ladder.pass(Check::Issuer, || {
                    (issuer.unwrap_or_default(), "this service")
                });
                self.token_of_ours(&unverified, demand, ladder)
            }
            Shown::Dpop(_) => Err(Refusal::new(Code::AppTokenNotBound)),
            _ => self.provider_token(shown, token, &unverified, demand).await,
        };
        admitted.map_err(|refusal| match &refusal.seen {
            None => unverified.shown(refusal),
            Some(_) => refusal,
        })
    }

    /// An app token, or a service token where the gateway takes one.
    fn token_of_ours(
        &self,
        unverified: &Unverified<'_>,
        demand: Demand<'_>,
        ladder: &mut Ladder,
    ) -> Result<Admitted, Refused> {
        let now = self.now();
        let verified = unverified.verify(&self.exchange.keys.published(), ladder)?;
        let said = &verified.claims;
        let client;
        let (typ, audiences) = match said.provider {
            Some(_) => self.app(said, demand, ladder)?,
            None => {
                client = self.client(said, demand, ladder)?;
                (SERVICE_TYPE, client.settings.audiences.as_slice())
            }
        };
        ladder.pass(Check::App, || (said.app, "configured"));
        if verified.typ != typ {
            ladder.fail(Check::Type, verified.typ, typ);
            return Err(Refusal::new(Code::AppTokenTypeMismatch));
        }
        ladder.pass(Check::Type, || (verified.typ, typ));
        let expected = || {
            demand
                .audience
                .map_or_else(|| audiences.join(", "), str::to_owned)
        };
        let meant = |audience: &&str| {
            demand.audience.is_none_or(|demanded| demanded == *audience)
                && (audiences.iter().any(|each| each == audience)
                    // A gateway that names it takes what a client exchanged for it.
                    || demand.audience.is_some() && self.clients.call_for(said.app, audience))
        };
        if !said.audiences.iter().any(meant) {
            ladder.fail(Check::Audience, said.audiences.join(", "), expected());
            let refusal = Refusal::new(Code::AppTokenAudienceMismatch);
            return Err(match demand.audience {
                // A registered client may have exchanged it.
                Some(_) => self.clients.unknown(refusal),
                None => refusal,
            });
        }
        ladder.pass(Check::Audience, || (said.audiences.join(", "), expected()));
        said.in_time(now, ladder)?;
        let standings = said.standings().unzip();
        let mut admitted = self.admitted(said, standings, Some(verified.kid), said.expires_at);
        let others = |demanded: &&str| audiences.iter().all(|each| each != demanded);
        admitted.called = demand.audience.filter(others).map(str::to_owned);
        Ok(admitted)
    }

    /// The app of this name.
    fn settings(&self, name: &str) -> Option<&AppSettings> {
        self.exchange.apps.get(name).map(|app| &app.settings)
    }

    /// `typ` and audiences of the app that an app token is of.
    fn app(
        &self,
        said: &Said<'_>,
        demand: Demand<'_>,
        ladder: &mut Ladder,
    ) -> Result<(&str, &[String]), Refused> {
        let Some(app) = self.settings(said.app) else {
            ladder.fail(Check::App, said.app, "an app that is configured");
            return Err(Refusal::new(Code::AppTokenAppUnknown));
        };
        if let Some(demanded) = demand.app.filter(|demanded| *demanded != app.name) {
            ladder.fail(Check::App, said.app, demanded);
            return Err(Refusal::new(Code::AppTokenAppMismatch));
        }
        Ok((&app.typ, &app.audiences))
    }

    /// The same of the client that a service token is of. A gateway that takes users alone
    /// could hand its backend an empty user: it says that it takes clients by naming whom they
    /// must mean to call, and no app.
    fn client(
        &self,
        said: &Said<'_>,
        demand: Demand<'_>,
        ladder: &mut Ladder,
    ) -> Result<Arc<Client>, Refused> {
        let Some(client) = self.clients.find(said.app) else {
            ladder.fail(Check::App, said.app, "a client that is configured");
            return Err(self.clients.unknown(Refusal::new(Code::AppTokenAppUnknown)));
        };
        if demand.app.is_some() || demand.audience.is_none() {
            let seen = format!("a service token of the client {}", said.app);
            ladder.fail(Check::App, seen, "a question with an audience and no app");
            return Err(Refusal::new(Code::ServiceTokenNotTaken));
        }
        Ok(client)
    }

    /// A token that is not ours: looked at as the exchange would, where the app lets it
    /// through.
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
            audiences: demand.audience.as_slice(),
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
        let signed = issuer.settings.kind.signs();
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
        let would_say = self.exchange.look(token, wish).await?;
        // From here on the claims of the provider's token are verified.
        let unusable = |error| Refusal::new(Code::AppTokenClaimUnusable).caused_by(error);
        let would_say = Object::parse(&would_say).map_err(unusable)?;
        let said = Said::read(&would_say)?;
        let told = |name| claims.get(name).and_then(date);
        let dependence = Dependence {
            issuer: &issuer.settings.issuer,
            user: claims.text("sub").unwrap_or(said.user),
            session: said.session,
            organization: said.organization,
            issued: Issued::Upstream(told("iat").unwrap_or(said.issued_at)),
        };
        let until = said.expires_at.min(self.now() + LOOK_AGAIN);
        let until = told("exp").map_or(until, |exp| until.min(exp + issuer.settings.clock_skew));
        let standings = dependence.standings().unzip();
        Ok(self.admitted(&said, standings, None, until))
    }

    fn admitted(
        &self,
        said: &Said<'_>,
        (hits, standings): (Vec<Hit>, Vec<Standing>),
        kid: Option<&str>,
        until: UnixSeconds,
    ) -> Admitted {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Admitted {
            identity: Identity {
                whose: if said.provider.is_some() {
                    Whose::User {
                        app: said.app.to_owned(),
                        user: said.user.to_owned(),
                    }
                } else {
                    Whose::Client(said.app.to_owned())
                },
                organization: said.organization.map(str::to_owned),
                roles: owned(&said.roles),
                scopes: owned(&said.scopes),
            },
            signing_key: self.signing_keys.get(said.app).cloned(),
            bound_to: said.bound_to.map(str::to_owned),
            called: None,
            dpop: self
                .settings(said.app)
                .map_or_else(DpopSettings::default, |app| app.dpop),
            kid: kid.map(str::to_owned),
            until,
            hits,
            standings,
        }
    }

    /// Whether what was admitted before need not be verified anew.
    pub fn holds(&self, admitted: &Admitted, now: UnixSeconds) -> bool {
        let known = |kid: &String| self.exchange.keys.published().verifier(kid).is_some();
        // A client that was removed is no longer taken, nor what was for it.
        let stays = match (&admitted.identity.whose, &admitted.called) {
            (Whose::User { app, .. }, Some(called)) => self.clients.call_for(app, called),
            (Whose::User { .. }, None) => true,
            (Whose::Client(client), _) => self.clients.find(client).is_some(),
        };
        stays && now < admitted.until && admitted.kid.as_ref().is_none_or(known)
    }

    /// Where the backends are reached that the token is for.
    pub fn origins(&self, admitted: &Admitted) -> Vec<String> {
        if let Some(called) = &admitted.called {
            return origins(std::slice::from_ref(called));
        }
        match &admitted.identity.whose {
            Whose::User { app, .. } => self.settings(app).map(|app| app.verify.origins.clone()),
            Whose::Client(client) => {
                let client = self.clients.find(client);
                client.map(|client| origins(&client.settings.audiences))
            }
        }
        .unwrap_or_default()
    }

    /// Whether whoever shows it may: each request has a proof of its own, so this is looked at
    /// whatever was admitted before. Gives the proof, to be used up when all else is well.
    pub fn sent_by(
        &self,
        admitted: &Admitted,
        shown: Shown<'_>,
        proof: Option<dpop::Shown<'_>>,
        now: UnixSeconds,
    ) -> Result<Option<Proof>, Refused> {
        let settings = admitted.dpop;
        match (shown, &admitted.bound_to) {
            (Shown::Dpop(_), Some(key)) => {
                let keys = self.exchange.keys.published();
                dpop::prove(proof, Some(key), settings, &keys, now)
            }
            (Shown::Dpop(_), None) => Err(Refusal::new(Code::AppTokenNotBound)),
            // A token that is bound and passes without its key could as well not be bound
            // (RFC 9449 §7.2).
            (_, Some(_)) => Err(challenging(Code::AppTokenBound)),
            (_, None) if settings.policy == DpopPolicy::Required => {
                Err(challenging(Code::AppTokenNotBound))
            }
            (_, None) => Ok(None),
        }
    }

    /// Uses a proof up.
    pub fn use_up(&self, proof: &Proof, now: UnixSeconds) -> Result<(), Refused> {
        self.used.take(proof, now)
    }

    /// Asks whether anything that the identity depends on was revoked.
    pub async fn stands(
        &self,
        admitted: &Admitted,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<(), Refused> {
        let question = Question {
            standings: &admitted.standings,
            ..Question::default()
        };
        let answer = self.exchange.store.ask(question, now).await;
        let answer = answer.map_err(StoreError::refusal)?;
        revocation::check(answer.revoked, &admitted.hits, ladder)?;
        ladder.pass(Check::Revocation, || ("", "not revoked"));
        Ok(())
    }
}

/// A refusal that asks for a bound token.
fn challenging(code: Code) -> Refused {
    let mut refusal = Refusal::new(code);
    refusal.dpop = true;
    refusal
}
