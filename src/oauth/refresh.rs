//! Refresh tokens (RFC 6749 §6), each for one use (RFC 9700 §4.14.2).
//!
//! An exchange that asks for `offline_access` begins a family. Each use of its present token
//! replaces that by the next, with one compare-and-set of the family's entry, which is on disk
//! before the answer is given. The next token follows from the presented one by a key that only
//! the ring knows, so whoever lost an answer, and everybody who raced, gets the same one again;
//! later a used token that comes back ends the family. Where the ring was made anew meanwhile,
//! the same one cannot be made again: then coming back ends the family at once.
//!
//! The subject of the first exchange is kept and judged anew each time, by the policy and the
//! revocations of that time.

mod family;
mod token;

use super::OAuth;
use super::clients::Party;
use super::issued::Issued;
use super::revocation::REMEMBERED;
use crate::clock::UnixSeconds;
use crate::config::{MAX_TTL, OFFLINE_ACCESS, RefreshSettings};
use crate::crypto::MacKey;
use crate::exchange::{Caller, Credential, Exchange, Exchanged, Request};
use crate::explain::{About, Code, Ladder, Refusal};
use crate::policy::App;
use crate::policy::app::Wish as Asked;
use crate::policy::scopes;
use crate::store::{
    Change, Committed, Entry, Question, Revocation, Standing, StoreError, UnixMillis,
};
use crate::subject::clerk::session::{self, SessionId};
use crate::subject::kept::Kept;
use crate::subject::revocation::{Dependence, Hit};
use crate::token::standing;
use family::{End, Family, Place, State};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
pub use token::PREFIX;
use token::{LABEL, Token};

type Refused = Box<Refusal>;

/// How often a refresh that others raced looks again.
const ATTEMPTS: usize = 4;

/// What a client asks for with a refresh token; its `Debug` does not show it.
#[derive(Default)]
pub struct Wish<'r> {
    /// The token, as it was sent.
    pub token: &'r str,
    /// `scope`, which can only narrow.
    pub scope: Option<&'r str>,
    /// `audience` and `resource` (RFC 8707 §2.2), which can only be what was granted.
    pub audiences: Vec<&'r str>,
}

impl std::fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wish(…)")
    }
}

/// What a family begins with.
pub struct Beginning<'r> {
    /// Whom its tokens stand for.
    pub kept: Kept,
    /// Who may use it.
    pub party: &'r Party,
    /// The app.
    pub app: &'r App,
    /// What was granted, where the app has scopes.
    pub scope: Option<&'r str>,
    /// Whom its app tokens are for.
    pub audiences: Vec<String>,
    /// Its first token, of whose grant the app token is.
    pub first: First,
}

/// The first token of a family that may begin; it has no `Debug`.
pub struct First(Token);

impl First {
    /// One that nobody holds yet.
    pub(super) fn new() -> Self {
        Self(Token::first())
    }

    /// The grant that the app token is of which is given with it.
    pub(super) fn grant(&self) -> String {
        self.0.grant()
    }
}

/// A family that began.
pub struct Begun {
    /// Its first token.
    pub token: SecretString,
    /// Seconds until that ends unless it is used.
    pub expires_in: i64,
}

/// What a usable refresh token stands for.
pub struct Look {
    /// `client_id` of who may use it.
    pub client: String,
    /// The app.
    pub app: String,
    /// What was granted, where the app had scopes.
    pub scope: Option<String>,
    /// Whom its app tokens are for.
    pub audiences: Vec<String>,
    /// When its family began.
    pub began_at: UnixSeconds,
    /// When it ends unless it is used.
    pub expires_at: UnixSeconds,
    /// The thumbprint of the key that it is bound to.
    pub jkt: Option<String>,
}

/// Begins a family; `None` where the app gives no refresh tokens, or none to such a subject.
pub async fn begin(
    exchange: &Exchange,
    beginning: Beginning<'_>,
) -> Result<Option<Begun>, Refused> {
    let app = beginning.app;
    let Some(settings) = app.settings.refresh else {
        return Ok(None);
    };
    if !beginning.kept.is_refreshed(Some(settings))? {
        return Ok(None);
    }
    let now = exchange.clock.now();
    let First(token) = beginning.first;
    let family = Family {
        owner: family::owner(beginning.party),
        app: app.settings.name.clone(),
        kept: beginning.kept,
        scope: beginning.scope.map(str::to_owned),
        audiences: beginning.audiences,
        began_at: now,
        rotated_at: now,
        current: token.hash(),
        previous: None,
    };
    let (until, expires_at) = (family.kept_until(&settings), family.expires_at(&settings));
    let state = State::Alive(Box::new(family));
    match commit(exchange, &state, &token, 0, until).await? {
        Committed::Done => Ok(Some(Begun {
            token: token.show(),
            expires_in: expires_at - now,
        })),
        Committed::Repeated => {
            Err(Refusal::new(Code::InternalError).caused_by("two families of one id"))
        }
    }
}

/// Looks what a token stands for; `None` where it can no longer be used. Nothing changes by it.
pub async fn look(exchange: &Exchange, token: &str) -> Result<Option<Look>, Refused> {
    let Some(token) = Token::parse(token) else {
        return Ok(None);
    };
    let now = exchange.clock.now();
    let Some((_, State::Alive(family))) = read(exchange, &token).await? else {
        return Ok(None);
    };
    let Ok((_, settings)) = giving(exchange, &family) else {
        return Ok(None);
    };
    let key = exchange.keys.published().derived_key(LABEL);
    let usable = family.check_times(&settings, now).is_ok()
        && family.place(&token, &key, &settings, now) != Place::Used
        && stands(exchange, &family).await?;
    Ok(usable.then(|| Look {
        client: family.client().to_owned(),
        expires_at: family.expires_at(&settings),
        began_at: family.began_at,
        app: family.app,
        scope: family.scope,
        audiences: family.audiences,
        jkt: family.kept.bound_to,
    }))
}

/// Ends the family of a token, used or not, for the party that it was given to (RFC 7009 §2.1);
/// tells whom it was about. `None` where there is none, or it is somebody else's.
pub async fn end(
    exchange: &Exchange,
    token: &str,
    party: &Party,
) -> Result<Option<About>, Refused> {
    match Token::parse(token) {
        Some(token) => end_of(exchange, &token, Some(party)).await,
        None => Ok(None),
    }
}

/// Ends the family of this id, whoever it was given to.
pub(super) async fn end_family(exchange: &Exchange, id: &str) -> Result<Option<About>, Refused> {
    match Token::of_family(id) {
        Some(token) => end_of(exchange, &token, None).await,
        None => Ok(None),
    }
}

/// The id of the family of a token that was just given.
pub(super) fn family_of(token: &SecretString) -> Option<String> {
    Token::parse(token.expose_secret()).map(|token| token.family())
}

async fn end_of(
    exchange: &Exchange,
    token: &Token,
    party: Option<&Party>,
) -> Result<Option<About>, Refused> {
    for _ in 0..ATTEMPTS {
        let Some((entry, State::Alive(family))) = read(exchange, token).await? else {
            return Ok(None);
        };
        if party.is_some_and(|party| family.owner != family::owner(party)) {
            return Ok(None);
        }
        if ended(exchange, token, &entry, &family, End::Revoked).await? == Committed::Done {
            return Ok(Some(about(exchange, &family)));
        }
    }
    Err(raced())
}

/// What a presented token is, and its family.
struct Found<'a> {
    entry: Entry,
    family: Box<Family>,
    app: &'a Arc<App>,
    settings: RefreshSettings,
    place: Place,
}

impl OAuth {
    /// What `POST /auth/exchange` gives: an app token, and a refresh token to whoever asks for
    /// `offline_access`, as the public client that the app is.
    pub async fn exchange(
        &self,
        request: Request<'_>,
    ) -> Result<(Box<Exchanged>, Option<Begun>), Refused> {
        let first = asks_offline(&request.wish).then(First::new);
        let grant = first.as_ref().map(First::grant);
        let request = Request {
            keep: request.keep || first.is_some(),
            grant_id: grant.as_deref(),
            ..request
        };
        let mut exchanged = self.exchange.exchange(request).await?;
        let begun = match (exchanged.kept.take(), first) {
            (Some(kept), Some(first)) => {
                let party = Party::App(Arc::clone(&exchanged.app));
                Box::pin(self.begin_with(&exchanged, kept, first, &party)).await?
            }
            _ => None,
        };
        Ok((exchanged, begun))
    }

    /// Begins the family of an exchange.
    pub(super) async fn begin_with(
        &self,
        exchanged: &Exchanged,
        mut kept: Kept,
        first: First,
        party: &Party,
    ) -> Result<Option<Begun>, Refused> {
        // A registered client proves itself, and may change its key (RFC 9449 §5).
        if let Party::Client(_) = party {
            kept.bound_to = None;
        }
        let scopes = exchanged.scopes.as_ref();
        let beginning = Beginning {
            kept,
            party,
            app: &exchanged.app,
            scope: scopes.map(|scopes| scopes.names.as_str()),
            audiences: exchanged.audiences.clone(),
            first,
        };
        begin(&self.exchange, beginning).await
    }

    /// A new app token and the next refresh token, for the one that is shown.
    pub(super) async fn refresh(
        &self,
        party: Party,
        wish: &Wish<'_>,
        caller: Caller<'_>,
    ) -> Result<Issued, Refused> {
        let exchange = &*self.exchange;
        let token =
            Token::parse(wish.token).ok_or_else(|| Refusal::new(Code::RefreshTokenMalformed))?;
        let key = exchange.keys.published().derived_key(LABEL);
        let shown = Shown {
            token: &token,
            key: &key,
            owner: family::owner(&party),
        };
        let mut found = shown.find(exchange).await?;
        let family = &found.family;
        if !party.apps().contains(&family.app) {
            return Err(Refusal::new(Code::RefreshTokenRevoked)
                .caused_by("the client may no longer act for the app"));
        }
        let asked = asked(wish.scope);
        let scope = narrowed(family.scope.as_deref(), &asked);
        let audiences = audiences(family, &wish.audiences)?;
        let grant = token.grant();
        let request = Request {
            credential: Credential::Kept(&family.kept),
            wish: Asked {
                app: Some(&family.app),
                audiences: &audiences,
                scope: scope.as_deref(),
                ..Asked::default()
            },
            caller,
            keep: false,
            grant_id: Some(&grant),
        };
        let judged = async {
            let exchanged = exchange.climb(request, &mut Ladder::default()).await?;
            let issued = self.issue(exchanged, None, party).await?;
            if found.settings.ask_provider {
                alive(exchange, family, found.app, caller).await?;
            }
            Ok(issued)
        };
        let mut issued = match judged.await {
            Ok(issued) => issued,
            Err(refusal) => return Err(refused(exchange, &token, &found, refusal).await),
        };
        // Only now, so that what is refused uses nothing up; before anybody has the tokens.
        let next = token.successor(&key);
        let proven = issued.proof.as_ref().map(|proof| proof.thumbprint.clone());
        for _ in 0..ATTEMPTS {
            match &mut found.family.kept.bound_to {
                // Somebody was faster, with a key.
                Some(key) if Some(&*key) != proven.as_ref() => {
                    return Err(Refusal::new(Code::DpopKeyMismatch));
                }
                // What a public client gets for a proof is bound to its key (RFC 9449 §5).
                bound_to @ None if !matches!(issued.party, Party::Client(_)) => {
                    bound_to.clone_from(&proven);
                }
                _ => {}
            }
            if found.place == Place::Before
                || rotated(exchange, &token, found, &next).await? == Committed::Done
            {
                issued.refresh_token = Some(next.show());
                // RFC 6749 §5.1: where less is granted than was asked for, the answer says so.
                if issued.scope.is_none() && !asked.is_empty() {
                    issued.scope = Some(String::new());
                }
                return Ok(issued);
            }
            // Somebody was faster: then this one is the token before.
            found = shown.find(exchange).await?;
        }
        Err(raced())
    }
}

/// Whether a refresh token is asked for (OpenID Connect Core §11).
pub(super) fn asks_offline(wish: &Asked<'_>) -> bool {
    let scope = wish.scope.unwrap_or_default();
    scopes::words(scope).any(|name| name == OFFLINE_ACCESS)
}

/// A token that is shown, and who shows it.
struct Shown<'s> {
    token: &'s Token,
    /// What successors are made with.
    key: &'s MacKey,
    owner: String,
}

impl Shown<'_> {
    /// Finds its family, where it can be used. One that was used ends it.
    async fn find<'a>(&self, exchange: &'a Exchange) -> Result<Found<'a>, Refused> {
        let token = self.token;
        for _ in 0..ATTEMPTS {
            let now = exchange.clock.now();
            let unknown = |cause: &str| Refusal::new(Code::RefreshTokenUnknown).caused_by(cause);
            let Some((entry, state)) = read(exchange, token).await? else {
                return Err(unknown("no family of this id is kept"));
            };
            if state.owner() != self.owner {
                return Err(unknown("it was given to another client"));
            }
            let family = match state {
                State::Alive(family) => family,
                State::Ended { how, .. } => return Err(how.refusal()),
            };
            let (app, settings) = giving(exchange, &family)?;
            family.check_times(&settings, now)?;
            let place = family.place(token, self.key, &settings, now);
            if place == Place::Used {
                let marked = ended(exchange, token, &entry, &family, End::Reused).await?;
                if marked == Committed::Repeated {
                    continue;
                }
                return Err(Refusal::new(Code::RefreshTokenReused)
                    .caused_by("a used token came back; its family was ended")
                    .about(about(exchange, &family)));
            }
            return Ok(Found {
                entry,
                family,
                app,
                settings,
                place,
            });
        }
        Err(raced())
    }
}

/// What the store keeps of a token's family.
async fn read(exchange: &Exchange, token: &Token) -> Result<Option<(Entry, State)>, Refused> {
    let question = Question {
        entries: &[token.key()],
        ..Question::default()
    };
    let answer = exchange.store.ask(question, exchange.clock.now()).await;
    let mut entries = answer.map_err(StoreError::refusal)?.entries;
    let Some(entry) = entries.pop().flatten() else {
        return Ok(None);
    };
    let state = State::read(&entry)?;
    Ok(Some((entry, state)))
}

async fn commit(
    exchange: &Exchange,
    state: &State,
    token: &Token,
    version: u64,
    until: UnixSeconds,
) -> Result<Committed, Refused> {
    let change = Change {
        entries: vec![state.replace(token, version, until)?],
        ..Change::default()
    };
    let committed = exchange.store.commit(change, exchange.clock.now()).await;
    committed.map_err(StoreError::refusal)
}

/// Puts the next token in the place of the present one.
async fn rotated(
    exchange: &Exchange,
    token: &Token,
    found: Found<'_>,
    next: &Token,
) -> Result<Committed, Refused> {
    let mut family = found.family;
    family.rotate(next, exchange.clock.now());
    let until = family.kept_until(&found.settings);
    let state = State::Alive(family);
    commit(exchange, &state, token, found.entry.version, until).await
}

/// Puts a mark in the place of a family, for as long as it would have been kept, and revokes
/// the app tokens that were given with it (RFC 7009 §2.1).
async fn ended(
    exchange: &Exchange,
    token: &Token,
    entry: &Entry,
    family: &Family,
    how: End,
) -> Result<Committed, Refused> {
    let owner = family.owner.clone();
    let mark = State::Ended { owner, how };
    let now = exchange.clock.now();
    let change = Change {
        entries: vec![mark.replace(token, entry.version, entry.until)?],
        revocations: vec![Revocation {
            key: standing::grant_key(&token.grant()),
            at: UnixMillis::MAX,
            until: now + MAX_TTL + REMEMBERED,
        }],
        ..Change::default()
    };
    let committed = exchange.store.commit(change, now).await;
    committed.map_err(StoreError::refusal)
}

/// The app of a family, which still gives refresh tokens, and for how long they serve.
fn giving<'a>(
    exchange: &'a Exchange,
    family: &Family,
) -> Result<(&'a Arc<App>, RefreshSettings), Refused> {
    let app = exchange.apps.get(&family.app);
    let giving = app.and_then(|app| Some((app, app.settings.refresh?)));
    giving.ok_or_else(|| {
        Refusal::new(Code::RefreshTokenRevoked)
            .caused_by("the app gives no refresh tokens any more")
    })
}

/// Whether nothing that a family depends on was revoked.
async fn stands(exchange: &Exchange, family: &Family) -> Result<bool, Refused> {
    let mut ladder = Ladder::default();
    let wish = Asked {
        app: Some(&family.app),
        ..Asked::default()
    };
    let issuer = Some(family.kept.issuer.as_str());
    let Ok((_, issuer)) = exchange.apps.select(wish, issuer, &mut ladder) else {
        return Ok(false);
    };
    let claims = family.kept.claims()?;
    let Ok(subject) = family.kept.judge(&claims, &issuer, &mut ladder) else {
        return Ok(false);
    };
    let (_, standings): (Vec<Hit>, Vec<Standing>) = Dependence::of(&subject).standings().unzip();
    let question = Question {
        standings: &standings,
        ..Question::default()
    };
    let answer = exchange.store.ask(question, exchange.clock.now()).await;
    Ok(answer.map_err(StoreError::refusal)?.revoked.is_none())
}

/// Asks the provider whether the session is still alive.
async fn alive(
    exchange: &Exchange,
    family: &Family,
    app: &App,
    caller: Caller<'_>,
) -> Result<(), Refused> {
    let id = family.kept.session_id()?;
    let mut issuers = app.issuers.iter();
    let issuer = issuers.find(|issuer| issuer.settings.issuer == family.kept.issuer);
    let (Some(id), Some(issuer)) = (id, issuer) else {
        return Err(Refusal::new(Code::SessionIdUnsupported));
    };
    let mut ladder = Ladder::default();
    let asked = session::Asked {
        id: SessionId::parse(&id, &mut ladder)?,
        code_verifier: None,
        at: exchange.clock.now(),
        traceparent: caller.traceparent,
    };
    let alive = session::check_alive(asked, issuer, &mut ladder).await;
    alive.map_err(|mut refusal| {
        refusal.ladder = ladder;
        refusal
    })
}

/// What was refused of a subject, as this grant tells it (RFC 6749 §5.2): its credential is the
/// refresh token. What ended for good ends the family.
async fn refused(
    exchange: &Exchange,
    token: &Token,
    found: &Found<'_>,
    refusal: Refused,
) -> Refused {
    let entry = refusal.code.entry();
    if entry.status != 401 {
        return refusal;
    }
    let gone = matches!(
        refusal.code,
        Code::SessionRevoked
            | Code::UserDeleted
            | Code::OrganizationDeleted
            | Code::MembershipChanged
            | Code::SessionEnded
            | Code::SessionExpired
            | Code::SessionRemoved
            | Code::SessionReplaced
            | Code::SessionAbandoned
            | Code::SessionNotFound
    );
    if gone {
        // Where it cannot be written, the next use is refused for the same reason.
        let _ = ended(exchange, token, &found.entry, &found.family, End::Revoked).await;
    }
    let cause = match &refusal.cause {
        None => entry.slug.to_owned(),
        Some(cause) => format!("{}: {cause}", entry.slug),
    };
    let mut told = Refusal::because(Code::RefreshTokenRevoked, refusal.description)
        .caused_by(cause)
        .about(
            refusal
                .about
                .unwrap_or_else(|| about(exchange, &found.family)),
        );
    told.ladder = refusal.ladder;
    told
}

/// Whom a family is about, under pseudonyms.
fn about(exchange: &Exchange, family: &Family) -> About {
    let keys = exchange.keys.published();
    let issuer = &family.kept.issuer;
    let claims = family.kept.claims().ok();
    let name = |claim: &str| {
        let id = claims.as_ref()?.text(claim)?;
        Some(keys.pseudonym(issuer, id))
    };
    About {
        app: family.app.clone(),
        issuer: Some(issuer.clone()),
        subject: name("sub"),
        session: name("sid"),
    }
}

/// The audiences that are asked for, or all that were granted.
fn audiences<'f>(family: &'f Family, asked: &[&'f str]) -> Result<Vec<&'f str>, Refused> {
    let granted = |each: &&str| family.audiences.iter().any(|granted| granted == each);
    if !asked.iter().all(granted) {
        return Err(Refusal::because(
            Code::AudienceNotAllowed,
            "The refresh token was not given for this audience.",
        ));
    }
    Ok(match asked {
        [] => family.audiences.iter().map(String::as_str).collect(),
        asked => asked.to_vec(),
    })
}

/// The scopes that are asked for, but for the one that asks for a refresh token.
fn asked(scope: Option<&str>) -> Vec<&str> {
    let names = scopes::words(scope.unwrap_or_default());
    names.filter(|name| *name != OFFLINE_ACCESS).collect()
}

/// What to ask for: of what was granted, what is asked for. The family keeps what it has.
fn narrowed(granted: Option<&str>, asked: &[&str]) -> Option<String> {
    let Some(granted) = granted else {
        return (!asked.is_empty()).then(|| asked.join(" "));
    };
    let granted: Vec<&str> = scopes::words(granted).collect();
    let names = match asked {
        [] => granted,
        asked => {
            let names = asked.iter().copied();
            names.filter(|name| granted.contains(name)).collect()
        }
    };
    // To ask for nothing would be to ask for all.
    Some(if names.is_empty() {
        scopes::NONE.to_owned()
    } else {
        names.join(" ")
    })
}

fn raced() -> Refused {
    StoreError("others changed the same family at the same time".to_owned()).refusal()
}
