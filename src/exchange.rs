//! The story itself: a credential proves a subject, the app grants it something, and a token
//! of ours says so.

mod listed;
mod look;
mod remembered;
mod signed_in;

use crate::clock::{Clock, UnixSeconds};
use crate::config::{IssuerKind, RateLimits, TokenKind};
use crate::directory::{Directory, Known};
use crate::dpop::{self, Proof};
use crate::explain::{About, Check, Code, Ladder, Limit, Refusal};
use crate::keys::{Keeper, Published, Signer};
use crate::policy::app::Wish;
use crate::policy::limits::Takes;
use crate::policy::scopes::Scopes;
use crate::policy::{App, Apps, Grant};
use crate::store::{Once, Store, StoreError};
use crate::subject::assertion;
use crate::subject::clerk::session::{self, SessionId};
use crate::subject::jwt::{self, Unverified};
use crate::subject::kept::Kept;
use crate::subject::opaque::{self, Opaque};
use crate::subject::revocation::Dependence;
use crate::subject::{Issuer, Subject};
use crate::token::mint::signer;
use crate::token::{AppToken, mint};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// What came in, unverified; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub enum Credential<'r> {
    /// A subject token as it was sent.
    Token(&'r str),
    /// The id of a session, which proves nothing by itself.
    SessionId {
        /// As it was sent.
        id: &'r str,
        /// What the app bound at sign-in (RFC 7636 §4.1).
        code_verifier: Option<&'r str>,
    },
    /// A token that an issuer made for this service (RFC 7523 §2.1).
    Assertion {
        /// As it was sent.
        token: &'r str,
        /// Whether it is an identity assertion grant.
        id_jag: bool,
    },
    /// A subject that was verified before: what a refresh token or a code of ours stands for.
    Kept(&'r Kept),
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Who asks, as the connection tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'r> {
    /// The client's address; `None` where it cannot be told from others'.
    pub address: Option<IpAddr>,
    /// Its `traceparent` (W3C Trace Context §3.2).
    pub traceparent: Option<&'r str>,
    /// What shows that it has a key.
    pub proof: Option<dpop::Shown<'r>>,
}

impl Caller<'_> {
    /// One of whom nothing but the address matters.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }

    /// The network that a client has for itself: its IPv4 address, or the /64 of its IPv6
    /// address, of which it has 2⁶⁴.
    pub fn network(&self) -> Option<String> {
        self.address.map(|address| match address {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).to_string(),
        })
    }
}

/// What an exchange asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// What proves the subject.
    pub credential: Credential<'r>,
    /// The app, and what else is asked for.
    pub wish: Wish<'r>,
    /// Who asks.
    pub caller: Caller<'r>,
    /// Whether the subject is to be kept.
    pub keep: bool,
    /// The grant of the refresh tokens that the app token is given with, and ends with.
    pub grant_id: Option<&'r str>,
}

/// What an exchange gives.
pub struct Exchanged {
    /// The app token.
    pub token: AppToken,
    /// Seconds until it expires.
    pub expires_in: i64,
    /// The scopes that were granted, where the app has some.
    pub scopes: Option<Scopes>,
    /// The proof of the key that the token is bound to, where it is.
    pub proof: Option<Proof>,
    /// The nearest rate limit.
    pub limit: Option<Limit>,
    /// `sub` of the app token.
    pub id: String,
    /// The organisation's id.
    pub org_id: Option<String>,
    /// The subject's role in it.
    pub role: Option<String>,
    /// Whether the app sees the user for the first time, where it wants to know.
    pub is_new: Option<bool>,
    /// The subject's name in logs.
    pub pseudonym: String,
    /// The subject, where it is to be kept.
    pub kept: Option<Kept>,
    /// The provider's session: personal data, for whoever makes a pseudonym of it.
    pub session_id: Option<String>,
    /// `aud` of the app token.
    pub audiences: Vec<String>,
    /// Who vouched for the subject.
    pub issuer: Arc<Issuer>,
    /// The app.
    pub app: Arc<App>,
    /// The key that signed it.
    pub signer: Arc<Signer>,
}

/// What the app grants to a subject, of whom this is known.
struct Granted {
    grant: Grant,
    known: Known,
    limit: Option<Limit>,
}

/// All that an exchange needs.
pub struct Exchange {
    /// `iss` of our tokens.
    pub issuer: String,
    /// The apps and, through them, the issuers.
    pub apps: Apps,
    /// Our keys.
    pub keys: Arc<Keeper>,
    /// How often one may ask.
    pub limits: Option<RateLimits>,
    /// What must be remembered.
    pub store: Arc<Store>,
    /// What is known of users beside their tokens.
    pub directory: Arc<Directory>,
    /// The time.
    pub clock: Clock,
}

impl Exchange {
    /// Exchanges a credential for an app token.
    pub async fn exchange(&self, request: Request<'_>) -> Result<Box<Exchanged>, Box<Refusal>> {
        match self.climb(request, &mut Ladder::default()).await {
            Ok(exchanged) => Ok(exchanged),
            Err(refusal) => Err(Box::pin(self.counted(refusal, request.caller)).await),
        }
    }

    /// The same, noting each check on the ladder; a refusal carries it.
    pub async fn climb(
        &self,
        request: Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        self.story(request, ladder).await.map_err(|mut refusal| {
            refusal.ladder = ladder.clone();
            refusal
        })
    }

    async fn story(
        &self,
        request: Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        // Each way is boxed: a future is moved into the one that awaits it, and the room that a
        // way needs is moved only so far.
        match request.credential {
            Credential::Token(token) => match Opaque::of(token) {
                Some(opaque) => Box::pin(self.of_opaque(token, opaque, &request, ladder)).await,
                None => Box::pin(self.of_jwt(token, &request, ladder)).await,
            },
            Credential::SessionId { id, code_verifier } => {
                Box::pin(self.of_session_id(id, code_verifier, &request, ladder)).await
            }
            Credential::Assertion { token, id_jag } => {
                Box::pin(self.of_assertion(token, id_jag, &request, ladder)).await
            }
            Credential::Kept(kept) => Box::pin(self.of_kept(kept, &request, ladder)).await,
        }
    }

    async fn of_jwt(
        &self,
        token: &str,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let decoded = jwt::decode(token, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        let told = async {
            let now = self.clock.now();
            let (app, issuer) = self
                .apps
                .select(request.wish, unverified.issuer(), ladder)?;
            match issuer.settings.kind {
                IssuerKind::Clerk | IssuerKind::Oidc => {}
                IssuerKind::Introspection => {
                    let kind = TokenKind::OAuth;
                    let told = self.of_word(token, kind, &app, &issuer, request, ladder);
                    return Box::pin(told).await;
                }
                IssuerKind::SignIn => return Err(signs_none(ladder)),
            }
            let subject = unverified.verify(&issuer, now, ladder).await?;
            self.judge(&app, &issuer, &subject, None, request, ladder)
                .await
        };
        told.await.map_err(|refusal| unverified.shown(refusal))
    }

    async fn of_session_id(
        &self,
        id: &str,
        code_verifier: Option<&str>,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let id = SessionId::parse(id, ladder)?;
        let (app, issuer) = self.apps.select_for_session_id(request.wish, ladder)?;
        let asked_at = self.clock.now();
        let asked = session::Asked {
            id,
            code_verifier,
            at: asked_at,
            traceparent: request.caller.traceparent,
        };
        let done = id.used(&app.settings, &issuer);
        let may_ask = self.may_ask(request.caller, done, ladder).await;
        may_ask.map_err(|refusal| {
            let iss = &issuer.settings.issuer;
            refusal.about(About {
                app: app.settings.name.clone(),
                issuer: Some(iss.clone()),
                subject: None,
                session: Some(self.keys.published().pseudonym(iss, id.as_str())),
            })
        })?;
        let told = session::look_up(asked, &app.settings, &issuer, ladder).await?;
        let claims = told.claims()?;
        let subject = session::judge(&claims, &issuer, asked_at, ladder)?;
        let once = told.once.map(|once| (once, Code::SessionIdUsed));
        self.judge(&app, &issuer, &subject, once, request, ladder)
            .await
    }

    /// A token that an issuer made for this service.
    async fn of_assertion(
        &self,
        token: &str,
        id_jag: bool,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let decoded = jwt::decode(token, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        let told = async {
            let now = self.clock.now();
            let (app, issuer) = self
                .apps
                .select(request.wish, unverified.issuer(), ladder)?;
            if !issuer.settings.assertions {
                return Err(Refusal::new(Code::AssertionNotAccepted));
            }
            let rules = issuer.of_assertions();
            let subject = unverified.verify(&rules, now, ladder).await?;
            let skew = issuer.settings.clock_skew;
            let once = assertion::check(&subject, skew, id_jag, &self.issuer, ladder)?;
            let once = Some((once, Code::AssertionUsed));
            self.judge(&app, &issuer, &subject, once, request, ladder)
                .await
        };
        told.await.map_err(|refusal| unverified.shown(refusal))
    }

    /// A subject that was verified before.
    async fn of_kept(
        &self,
        kept: &Kept,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let issuer = Some(kept.issuer.as_str());
        let (app, issuer) = self.apps.select(request.wish, issuer, ladder)?;
        let claims = kept.claims()?;
        let subject = kept.judge(&claims, &issuer, ladder)?;
        self.judge(&app, &issuer, &subject, None, request, ladder)
            .await
    }

    /// A token that is no JWT.
    async fn of_opaque(
        &self,
        token: &str,
        opaque: Opaque,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let selected = self.apps.select_opaque(request.wish, opaque, ladder)?;
        match selected {
            // Then it is said what it is in the place of a JWT.
            None => self.of_jwt(token, request, ladder).await,
            Some((app, issuer, kind)) => {
                opaque::check_form(token, ladder)?;
                self.of_word(token, kind, &app, &issuer, request, ladder)
                    .await
            }
        }
    }

    /// A token that its issuer is asked about.
    async fn of_word(
        &self,
        token: &str,
        kind: TokenKind,
        app: &Arc<App>,
        issuer: &Arc<Issuer>,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        self.may_ask(request.caller, None, ladder).await?;
        let trace = request.caller.traceparent;
        let told = issuer.look_up(token, kind, trace, ladder).await?;
        let claims = told.claims(ladder)?;
        let now = self.clock.now();
        let subject = opaque::judge(&claims, issuer, kind, now, ladder)?;
        self.judge(app, issuer, &subject, None, request, ladder)
            .await
    }

    /// A verified subject: what it gets, or a refusal that says whom it is about.
    async fn judge(
        &self,
        app: &Arc<App>,
        issuer: &Arc<Issuer>,
        subject: &Subject<'_>,
        once: Option<(Once, Code)>,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let judged = self
            .judged(app, issuer, subject, once, request, ladder)
            .await;
        judged.map_err(|refusal| refusal.about(self.about(app, subject)))
    }

    /// Whom a refusal is about.
    fn about(&self, app: &App, subject: &Subject<'_>) -> About {
        let keys = self.keys.published();
        let name = |id| keys.pseudonym(subject.issuer, id);
        About {
            app: app.settings.name.clone(),
            issuer: Some(subject.issuer.to_owned()),
            subject: Some(name(subject.id)),
            session: subject.session_id.map(name),
        }
    }

    /// What was revoked, and what the app grants.
    #[expect(clippy::too_many_arguments, reason = "the story's own parts")]
    async fn granted(
        &self,
        app: &Arc<App>,
        issuer: &Arc<Issuer>,
        subject: &Subject<'_>,
        takes: &Takes,
        wish: Wish<'_>,
        now: UnixSeconds,
        ladder: &mut Ladder,
    ) -> Result<Granted, Box<Refusal>> {
        let directory = &self.directory;
        let records = directory.records(&app.settings, issuer, subject);
        let (limit, records) = self
            .remembered(subject, takes, &records, now, ladder)
            .await?;
        let known = directory.know(&app.settings, issuer, subject, records);
        let known = known.await?;
        let grant = app.grant(subject, &known.profile, wish, now, ladder)?;
        Ok(Granted {
            grant,
            known,
            limit,
        })
    }

    /// What the app grants, the token that says so, and what is used up by it.
    async fn judged(
        &self,
        app: &Arc<App>,
        issuer: &Arc<Issuer>,
        subject: &Subject<'_>,
        once: Option<(Once, Code)>,
        request: &Request<'_>,
        ladder: &mut Ladder,
    ) -> Result<Box<Exchanged>, Box<Refusal>> {
        let now = self.clock.now();
        let takes = self.takes(app, subject, request.caller);
        let Granted {
            mut grant,
            known,
            limit,
        } = self
            .granted(app, issuer, subject, &takes, request.wish, now, ladder)
            .await?;
        let keys = self.keys.published();
        let proof = prove(request, app, &keys, now)?;
        let signer = signer(&keys, app.settings.algorithm)?;
        let bound_to = proof.as_ref().map(|proof| proof.thumbprint.as_str());
        let settings = &app.settings;
        let expires_at = grant.expires_at;
        let mut kept = request.keep.then(|| Kept::of(subject)).transpose()?;
        if let Some(kept) = &mut kept {
            kept.bound_to = bound_to.map(str::to_owned);
        }
        // Of a subject that is kept it is known only now whether it gets refresh tokens.
        let refreshed = match &kept {
            Some(kept) => kept.is_refreshed(settings.refresh)?,
            None => true,
        };
        grant.grant_id = request.grant_id.filter(|_| refreshed).map(str::to_owned);
        let grant_id = grant.grant_id.clone();
        let mut mint = |place| {
            grant.place = place;
            mint(
                &self.issuer,
                settings,
                subject,
                &grant,
                bound_to,
                now,
                signer,
            )
        };
        let token = if settings.status_list {
            let dependence = Dependence::of(subject);
            let grant_id = grant_id.as_deref();
            Box::pin(self.listed(Some(dependence), grant_id, expires_at, now, mint)).await?
        } else {
            mint(None).map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?
        };
        // Last, so that what is refused uses nothing up, and its user stays new; before anybody
        // has the token.
        if let Some(proof) = &proof {
            Box::pin(proof.use_up(&self.store, now)).await?;
        }
        if let Some((once, used)) = once {
            Box::pin(self.use_up(once, used, ladder)).await?;
        }
        let is_new = match self.directory.meet(&app.settings, subject, &known).await {
            // The id is used up, or others hold the store and go on without it: rather the next
            // exchange tells that the user is new.
            Err(_) if once.is_some() || self.store.is_shared() => None,
            met => met.map_err(StoreError::refusal)?,
        };
        let organization = subject.organization.as_ref();
        Ok(Box::new(Exchanged {
            token,
            expires_in: grant.expires_at - now,
            scopes: grant.scopes,
            proof,
            limit,
            id: grant.subject,
            org_id: organization.map(|org| org.id.to_owned()),
            role: organization.and_then(|org| org.role.as_deref().map(str::to_owned)),
            is_new,
            pseudonym: keys.pseudonym(subject.issuer, subject.id),
            kept,
            session_id: subject.session_id.map(str::to_owned),
            audiences: grant.audiences,
            signer: Arc::clone(signer),
            issuer: Arc::clone(issuer),
            app: Arc::clone(app),
        }))
    }
}

/// A token of an issuer that signs none that are taken.
fn signs_none(ladder: &mut Ladder) -> Box<Refusal> {
    ladder.fail(Check::Type, "a token", "a sign-in: it signs no tokens");
    Refusal::new(Code::SubjectTokenKindNotAccepted)
}

/// The proof of a key, where the request shows one or the app or the credential needs one.
fn prove(
    request: &Request<'_>,
    app: &App,
    keys: &Published,
    now: UnixSeconds,
) -> Result<Option<Proof>, Box<Refusal>> {
    let bound_to = match request.credential {
        Credential::Kept(kept) => kept.bound_to.as_deref(),
        Credential::Token(_) | Credential::SessionId { .. } | Credential::Assertion { .. } => None,
    };
    let settings = app.settings.dpop;
    dpop::prove(request.caller.proof, bound_to, settings, keys, now)
}
