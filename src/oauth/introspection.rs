//! Introspection (RFC 7662): a protected resource asks whether a token of ours holds.
//!
//! A client sees tokens of its own, those of the `apps` that it may act for, and those for an
//! audience of its `introspect`; of all others it learns no more than of tokens that there are
//! not (§4). Why a token is not active stands in the log, never in the answer (§2.2).

use super::clients::{Client, Party, Proof};
use super::{OAuth, refresh};
use crate::exchange::Caller;
use crate::explain::{Check, Code, Ladder, Refusal};
use crate::policy::limits::Takes;
use crate::token::read::{self, Said, Unverified};
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Refused = Box<Refusal>;

/// What an authorised client learns of a token: perhaps personal data, so it has no `Debug`.
pub struct Introspected {
    /// Who asked.
    pub client: Arc<Client>,
    /// What the token says, or why it is not active.
    pub told: Result<Active, Refused>,
}

/// An active token.
pub struct Active {
    /// Its `jti`, where it has one.
    pub jti: Option<String>,
    /// `Bearer`, or `DPoP` where it is bound to a key; of no refresh token (RFC 6749 §7.1).
    pub token_type: Option<&'static str>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

impl OAuth {
    /// Tells a client that proved itself what a token says, if it holds.
    pub async fn introspect(
        &self,
        proof: Result<Proof<'_>, Refused>,
        token: Result<&str, Refused>,
        caller: Caller<'_>,
    ) -> Result<Introspected, Refused> {
        let told = async {
            let Party::Client(client) = self.authenticate(&proof?).await? else {
                return Err(Refusal::new(Code::ClientAuthenticationMissing));
            };
            let mut ladder = Ladder::default();
            match self.active(&client, token?, &mut ladder).await {
                Err(refusal) if refusal.code.entry().status >= 500 => Err(refusal),
                Err(mut refusal) => {
                    refusal.ladder = ladder;
                    let told = Err(refusal);
                    Ok(Introspected { client, told })
                }
                told => Ok(Introspected { client, told }),
            }
        };
        self.exchange.counting(told.await, caller).await
    }

    /// What the token says, where it is one of ours that holds, and that the client may see.
    async fn active(
        &self,
        client: &Client,
        token: &str,
        ladder: &mut Ladder,
    ) -> Result<Active, Refused> {
        if token.starts_with(refresh::PREFIX) {
            return self.active_refresh_token(client, token).await;
        }
        let exchange = &self.exchange;
        let now = exchange.clock.now();
        let decoded = read::decode(token, ladder)?;
        let unverified = Unverified::parse(&decoded, ladder)?;
        let issuer = unverified.claims().text("iss").unwrap_or_default();
        if issuer != exchange.issuer {
            ladder.fail(Check::Issuer, issuer, "this service");
            return Err(Refusal::new(Code::TokenNotOurs));
        }
        let verified = self.verified(&unverified, ladder)?;
        let said = &verified.claims;
        if !sees(client, said) {
            ladder.fail(
                Check::Audience,
                said.audiences.join(", "),
                client.settings.introspect.join(", "),
            );
            return Err(Refusal::new(Code::IntrospectionNotAllowed));
        }
        said.in_time(now, ladder)?;
        self.stands(said, &Takes::default(), now, ladder).await?;
        let claims = serde_json::to_value(unverified.claims());
        let Ok(Value::Object(claims)) = claims else {
            return Err(Refusal::new(Code::InternalError));
        };
        Ok(Active {
            jti: Some(said.id.to_owned()),
            token_type: Some(if claims.contains_key("cnf") {
                "DPoP"
            } else {
                "Bearer"
            }),
            claims,
        })
    }

    /// A refresh token is between its client and this service: no resource sees it.
    async fn active_refresh_token(&self, client: &Client, token: &str) -> Result<Active, Refused> {
        let look = refresh::look(&self.exchange, token).await?;
        let look = look.ok_or_else(|| Refusal::new(Code::RefreshTokenUnknown))?;
        if look.client != client.id && !client.settings.apps.contains(&look.app) {
            return Err(Refusal::new(Code::IntrospectionNotAllowed));
        }
        let mut claims = Map::new();
        let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        say("iss", self.exchange.issuer.clone().into());
        say("client_id", look.client.into());
        say("exp", look.expires_at.into());
        if let Some(scope) = look.scope {
            say("scope", scope.into());
        }
        if let Some(jkt) = look.jkt {
            say("cnf", json!({ "jkt": jkt }));
        }
        Ok(Active {
            jti: None,
            token_type: None,
            claims,
        })
    }
}

/// Whether the client may see what the token says.
fn sees(client: &Client, said: &Said<'_>) -> bool {
    let settings = &client.settings;
    let is = |name: &String| name == said.app;
    is(&client.id)
        || settings.apps.iter().any(is)
        || settings
            .introspect
            .iter()
            .any(|each| said.audiences.contains(&each.as_str()))
}
