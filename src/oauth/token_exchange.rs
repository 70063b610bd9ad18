//! Token exchange (RFC 8693): a client shows whose token it has, and gets one for a backend that
//! it calls in that user's name.
//!
//! A provider's token is exchanged as everywhere else. One of our own is given again for less,
//! for others or through somebody else, and never for longer: its claims are carried over, its
//! scopes only narrowed. Whoever acts for the user is told in `act`: the actor of an actor
//! token, or the client that shows one of our own tokens.

use super::OAuth;
use super::clients::{Client, Party};
use super::issued::{Issued, token_type};
use crate::clock::UnixSeconds;
use crate::config::{AppSettings, IssuerKind};
use crate::dpop;
use crate::exchange::{self, Caller, Credential};
use crate::explain::{About, Code, Ladder, Refusal};
use crate::policy::app::{Place, Wish as Asked, each_once};
use crate::policy::delegation::{Acting, Actor, Principal};
use crate::policy::limits::Takes;
use crate::policy::scopes;
use crate::subject::json::{Json, Object};
use crate::subject::jws::Decoded;
use crate::token::mint::signer;
use crate::token::read::{Said, Unverified};
use crate::token::{Carried, mint_again};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

type Refused = Box<Refusal>;

/// What a token is said to be (RFC 8693 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A JWT, whatever it is for.
    Jwt,
    /// An ID token (OpenID Connect Core §2).
    IdToken,
    /// An access token.
    AccessToken,
}

/// A token that is shown, unverified; its `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Shown<'r> {
    /// As it was sent.
    pub token: &'r str,
    /// What it is said to be.
    pub kind: TokenType,
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shown({:?})", self.kind)
    }
}

/// What a client asks for.
#[derive(Debug)]
pub struct Wish<'r> {
    /// Who the token is to be about.
    pub subject: Shown<'r>,
    /// Who acts for them, where that is told.
    pub actor: Option<Shown<'r>>,
    /// `issued_token_type` of the answer.
    pub issue: &'static str,
    /// The app, where the request names one.
    pub app: Option<&'r str>,
    /// `audience` and `resource` (RFC 8707).
    pub audiences: Vec<&'r str>,
    /// `scope`, where there is one.
    pub scope: Option<&'r str>,
}

impl Shown<'_> {
    /// Whether it can be what it is said to be: an access token is no ID token (RFC 8693 §2.1).
    fn check(&self, decoded: Option<&Decoded<'_>>, ours: bool) -> Result<(), Refused> {
        let access_token = || {
            let header = decoded.and_then(|decoded| Object::parse(&decoded.header).ok());
            let typ = header.as_ref().and_then(|header| header.text("typ"));
            ours || typ.is_some_and(|typ| typ.to_ascii_lowercase().ends_with("at+jwt"))
        };
        let fits = match self.kind {
            TokenType::AccessToken => true,
            TokenType::Jwt => self.token.contains('.'),
            TokenType::IdToken => self.token.contains('.') && !access_token(),
        };
        if fits {
            return Ok(());
        }
        Err(Refusal::because(
            Code::SubjectTokenTypeMismatch,
            "The token is not of the type that the request says.",
        ))
    }
}

impl OAuth {
    /// Exchanges a token for a party that may.
    pub(super) async fn token_exchange(
        &self,
        party: Party,
        wish: &Wish<'_>,
        caller: Caller<'_>,
    ) -> Result<Issued, Refused> {
        let apps = party.apps();
        if apps.is_empty() {
            return Err(Refusal::new(Code::ExchangeNotAllowed));
        }
        let actor = match (&party, wish.actor) {
            (_, None) => None,
            (Party::Client(client), Some(shown)) => {
                Some(self.actor(client, shown, wish.app).await?)
            }
            (Party::Public(_) | Party::App(_), Some(_)) => {
                return Err(Refusal::because(
                    Code::ExchangeNotAllowed,
                    "A public client proves nothing: it cannot let somebody act.",
                ));
            }
        };
        let itself = self.party_itself(&party);
        let decoded = Decoded::of(wish.subject.token).ok();
        let own = self.own(decoded.as_ref());
        wish.subject.check(decoded.as_ref(), own.is_some())?;
        let mut issued = match (&own, &party) {
            (Some(unverified), Party::Client(client)) => {
                let acting = match &actor {
                    Some(actor) => Acting::Named(actor),
                    None if client.settings.impersonation => Acting::Unnamed(&itself),
                    None => Acting::Named(&itself),
                };
                let again = Again {
                    unverified,
                    client,
                    wish,
                    acting,
                    caller,
                };
                let given = self.again(&again).await;
                given.map_err(|refusal| unverified.shown(refusal))?
            }
            (Some(_), Party::Public(_) | Party::App(_)) => {
                return Err(Refusal::new(Code::SubjectTokenIsAppToken));
            }
            (None, _) => {
                // A refresh would not know who acts: whoever does is asked for each token.
                let scope = wish.scope.filter(|_| actor.is_some()).map(scopes::online);
                let request = exchange::Request {
                    credential: Credential::Token(wish.subject.token),
                    wish: Asked {
                        app: wish.app,
                        among: Some(apps),
                        audiences: &wish.audiences,
                        scope: scope.as_deref().or(wish.scope),
                        acting: actor
                            .as_ref()
                            .map_or(Acting::Unnamed(&itself), Acting::Named),
                    },
                    caller,
                    keep: false,
                    grant_id: None,
                };
                self.exchanged(request, Some(party.clone())).await?
            }
        };
        issued.issued_token_type = Some(wish.issue);
        // RFC 6749 §5.1: where less is granted than was asked for, the answer says so.
        if wish.scope.is_some() {
            issued.scope.get_or_insert_default();
        }
        Ok(issued)
    }

    /// The token, where it says that it is one of ours.
    fn own<'d>(&self, decoded: Option<&'d Decoded<'d>>) -> Option<Unverified<'d>> {
        let unverified = Unverified::parse(decoded?, &mut Ladder::default()).ok()?;
        let ours = unverified.claims().text("iss") == Some(&self.exchange.issuer);
        ours.then_some(unverified)
    }

    /// Whoever asks, as an actor.
    pub(super) fn party_itself(&self, party: &Party) -> Actor {
        Actor {
            issuer: self.exchange.issuer.clone(),
            foreign: false,
            id: party.id().to_owned(),
            client: Some(party.id().to_owned()),
        }
    }

    /// Who an actor token stands for: the client itself by a token of its own, or a user of its
    /// apps. It is verified as a subject token is.
    async fn actor(
        &self,
        client: &Client,
        shown: Shown<'_>,
        app: Option<&str>,
    ) -> Result<Actor, Refused> {
        let told = async {
            let decoded = Decoded::of(shown.token).ok();
            let own = self.own(decoded.as_ref());
            shown.check(decoded.as_ref(), own.is_some())?;
            match (own, &decoded) {
                (Some(unverified), _) => self.own_actor(client, &unverified).await,
                (None, Some(decoded)) => self.foreign_actor(client, shown, decoded, app).await,
                (None, None) => Err(unusable("it is no signed token")),
            }
        };
        told.await.map_err(|refusal| {
            let entry = refusal.code.entry();
            if refusal.code == Code::ActorTokenUnusable || entry.status >= 429 {
                return refusal;
            }
            let mut unusable = Refusal::because(
                Code::ActorTokenUnusable,
                format!("The actor token is refused: {}", refusal.description),
            )
            .caused_by(entry.slug);
            unusable.ladder = refusal.ladder;
            unusable
        })
    }

    async fn own_actor(
        &self,
        client: &Client,
        unverified: &Unverified<'_>,
    ) -> Result<Actor, Refused> {
        let mut ladder = Ladder::default();
        let now = self.exchange.clock.now();
        let verified = self.verified(unverified, &mut ladder)?;
        let said = &verified.claims;
        said.in_time(now, &mut ladder)?;
        check_actor(unverified.claims())?;
        let known = match said.provider {
            Some(_) => client.settings.apps.iter().any(|app| app == said.app),
            None => said.app == client.id,
        };
        if !known {
            return Err(unusable("it is of another client, or of an app of others"));
        }
        let takes = Takes::default();
        self.stands(said, &takes, now, &mut ladder).await?;
        Ok(Actor {
            issuer: self.exchange.issuer.clone(),
            foreign: false,
            id: said.user.to_owned(),
            client: Some(said.app.to_owned()),
        })
    }

    /// A provider's user: looked at as an exchange would, which gives nothing.
    async fn foreign_actor(
        &self,
        client: &Client,
        shown: Shown<'_>,
        decoded: &Decoded<'_>,
        app: Option<&str>,
    ) -> Result<Actor, Refused> {
        let unverified = Unverified::parse(decoded, &mut Ladder::default())?;
        let claims = unverified.claims();
        let exchange = &self.exchange;
        let wish = Asked {
            app,
            among: Some(&client.settings.apps),
            ..Asked::default()
        };
        let iss = claims.text("iss");
        let (app, issuer) = exchange.apps.select(wish, iss, &mut Ladder::default())?;
        if issuer.settings.kind == IssuerKind::Introspection {
            return Err(unusable("its issuer would have to be asked about it"));
        }
        let wish = Asked {
            app: Some(&app.settings.name),
            ..wish
        };
        exchange.look(shown.token, wish).await?;
        // From here on its claims are verified.
        check_actor(claims)?;
        let id = claims.text("sub").unwrap_or_default();
        Ok(Actor {
            issuer: issuer.settings.issuer.clone(),
            foreign: true,
            id: id.to_owned(),
            client: None,
        })
    }

    /// Gives a token of ours again.
    async fn again(&self, again: &Again<'_>) -> Result<Issued, Refused> {
        let Again {
            unverified,
            client,
            wish,
            acting,
            caller,
        } = again;
        let exchange = &self.exchange;
        let now = exchange.clock.now();
        let mut ladder = Ladder::default();
        let verified = self.verified(unverified, &mut ladder)?;
        let said = &verified.claims;
        let claims = unverified.claims();
        let Some(provider) = said.provider else {
            return Err(Refusal::new(Code::SubjectTokenIsServiceToken));
        };
        let app = exchange.apps.get(said.app);
        let app = app.filter(|app| client.settings.apps.contains(&app.settings.name));
        let app = &app
            .ok_or_else(|| Refusal::new(Code::SubjectTokenNotForClient))?
            .settings;
        if wish.app.is_some_and(|name| name != app.name) {
            return Err(Refusal::new(Code::AppTokenAppMismatch));
        }
        let keys = exchange.keys.published();
        let about = About {
            app: app.name.clone(),
            issuer: Some(provider.to_owned()),
            subject: Some(keys.pseudonym(provider, said.user)),
            session: said.session.map(|id| keys.pseudonym(provider, id)),
        };
        let told = async {
            said.in_time(now, &mut ladder)?;
            let audiences = audiences(client, app, said, &wish.audiences)?;
            let narrowed = Narrowed::of(said, claims, app, wish.scope)?;
            let act = claims.get("act").map(serde_json::to_value).transpose();
            let act = act.map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?;
            let actor = acting.judge(Principal {
                issuer: &exchange.issuer,
                id: said.user,
                may_act: claims.get("may_act"),
                actor: act.as_ref(),
            })?;
            let who = [
                said.app,
                provider,
                said.organization.unwrap_or_default(),
                said.user,
            ];
            let network = caller.network();
            let takes = Takes::of(exchange.limits.as_ref(), &who, network.as_deref());
            let limit = self.stands(said, &takes, now, &mut ladder).await?;
            // One that is bound to a key is shown by whoever has the key.
            let proof = dpop::prove(caller.proof, said.bound_to, app.dpop, &keys, now)?;
            let signer = signer(&keys, app.algorithm)?;
            let carried = Carried {
                claims,
                subject: said.user,
                app: said.app,
                audiences: &audiences,
                expires_at: expires_at(said, app, now),
                scope: narrowed.scope.as_deref(),
                permissions: narrowed.permissions.as_ref(),
                actor: actor.as_ref(),
                place: None,
                bound_to: proof.as_ref().map(|proof| proof.thumbprint.as_str()),
            };
            let mint = |place: Option<Place>| {
                let carried = Carried {
                    place: place.as_ref(),
                    ..carried
                };
                mint_again(&exchange.issuer, app, &carried, now, signer)
            };
            let token = if app.status_list {
                let (user, expires_at) = (said.dependence(), carried.expires_at);
                Box::pin(exchange.listed(user, said.grant, expires_at, now, mint)).await?
            } else {
                mint(None).map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?
            };
            if let Some(proof) = &proof {
                proof.use_up(&exchange.store, now).await?;
            }
            Ok(Issued {
                token,
                token_type: token_type(proof.as_ref()),
                issued_token_type: None,
                expires_in: carried.expires_at - now,
                audience: audiences.join(" "),
                scope: narrowed.scope,
                refresh_token: None,
                proof,
                limit,
                party: Party::Client(Arc::clone(client)),
                about: Some(about.clone()),
                signer: Arc::clone(signer),
            })
        };
        let told = told.await;
        told.map_err(|mut refusal: Refused| {
            refusal.ladder = ladder;
            refusal.about(about)
        })
    }
}

/// One of our own tokens, and what is asked for it.
struct Again<'r> {
    unverified: &'r Unverified<'r>,
    client: &'r Arc<Client>,
    wish: &'r Wish<'r>,
    acting: Acting<'r>,
    caller: Caller<'r>,
}

/// Never later than the token before: nothing is prolonged by it.
fn expires_at(said: &Said<'_>, app: &AppSettings, now: UnixSeconds) -> UnixSeconds {
    said.expires_at.min(now + app.ttl)
}

/// Whom the token is for: the same as before, or any that the client or its app may ask for.
fn audiences(
    client: &Client,
    app: &AppSettings,
    said: &Said<'_>,
    asked: &[&str],
) -> Result<Vec<String>, Refused> {
    if asked.is_empty() {
        return Ok(each_once(&said.audiences));
    }
    let allowed = |audience: &&str| {
        let mut known = client.settings.audiences.iter().chain(&app.audiences);
        known.any(|each| each == audience)
    };
    if !asked.iter().all(allowed) {
        return Err(Refusal::because(
            Code::AudienceNotAllowed,
            "Neither the client nor its app may ask for this audience.",
        ));
    }
    Ok(each_once(asked))
}

/// What is left of a token's scopes.
struct Narrowed {
    /// `scope`, where the token has it.
    scope: Option<String>,
    /// `permissions`, where the token has them.
    permissions: Option<Value>,
}

impl Narrowed {
    /// All scopes, or those that are asked for: each must be the token's.
    fn of(
        said: &Said<'_>,
        claims: &Object<'_>,
        app: &AppSettings,
        asked: Option<&str>,
    ) -> Result<Self, Refused> {
        let asked: Vec<&str> = scopes::words(asked.unwrap_or_default()).collect();
        if !asked.iter().all(|name| said.scopes.contains(name)) {
            return Err(Refusal::new(Code::ScopeExceedsToken));
        }
        let kept = if asked.is_empty() {
            &said.scopes
        } else {
            &asked
        };
        let less = said.scopes.iter().any(|name| !kept.contains(name));
        let custom = app.claims.iter().any(|(name, _)| name == "permissions");
        let permissions = match claims.get("permissions") {
            // Never more than the token has, whatever its scopes stand for by now.
            Some(Json::List(list)) if less && !custom => {
                let known = app.scopes.iter();
                let known = known.filter(|scope| kept.contains(&scope.name.as_str()));
                let stand_for: BTreeSet<&str> = known
                    .flat_map(|scope| scope.permissions.iter().map(String::as_str))
                    .collect();
                let list = list.iter().filter_map(Json::as_str);
                let left = list.filter(|each| stand_for.contains(each));
                Some(left.collect::<Vec<_>>().into())
            }
            permissions => permissions
                .map(serde_json::to_value)
                .transpose()
                .map_err(|error| Refusal::new(Code::InternalError).caused_by(error))?,
        };
        Ok(Self {
            scope: claims.has("scope").then(|| each_once(kept).join(" ")),
            permissions,
        })
    }
}

/// An actor acts itself: for whom it acts by a chain of its own cannot be told in one.
fn check_actor(claims: &Object<'_>) -> Result<(), Refused> {
    if claims.has("act") {
        return Err(unusable("somebody acts for the actor itself"));
    }
    if claims.has("cnf") {
        return Err(unusable("it is bound to a key"));
    }
    Ok(())
}

fn unusable(why: &str) -> Refused {
    Refusal::because(
        Code::ActorTokenUnusable,
        format!("The actor token cannot be used here: {why}."),
    )
}
