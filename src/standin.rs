//! A stand-in identity provider on loopback, for `exchequer dev`: it signs session tokens as
//! a Clerk instance does, with a key that lives as long as the process.

use crate::clock::{Clock, UnixSeconds};
use crate::crypto::{BackendFailed, KeyRejected, SigningKey};
use crate::keys::jwk;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use rand::distr::{Alphanumeric, SampleString};
use serde::Deserialize;
use serde_json::{Value, json};
use signature::Signer;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use warp::{Filter, path};

/// How long a session token lives, seconds: Clerk's default.
const LIFETIME: UnixSeconds = 60;

/// Why the stand-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// Its listener.
    #[error("the stand-in cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// Its key could not be made.
    #[error(transparent)]
    Backend(#[from] BackendFailed),
    /// Its key does not parse.
    #[error(transparent)]
    Key(#[from] KeyRejected),
}

/// A stand-in for one Clerk instance.
pub struct StandIn {
    issuer: String,
    kid: String,
    key: SigningKey,
    clock: Clock,
}

/// What to put into a session token.
#[derive(Debug, Default, Deserialize)]
pub struct Session {
    /// Seconds since the token was issued: over 60 it is expired.
    #[serde(default)]
    pub age: UnixSeconds,
    /// `sts`, where it is not `active`.
    pub status: Option<String>,
}

impl StandIn {
    /// Starts the stand-in on a free port of 127.0.0.1.
    pub async fn start(clock: Clock) -> Result<Arc<Self>, StandInError> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let document = tokio::task::spawn_blocking(|| SigningKey::generate(Algorithm::RS256))
            .await
            .map_err(io::Error::other)??;
        let standin = Arc::new(Self {
            issuer: format!("http://{}", listener.local_addr()?),
            kid: identifier("ins"),
            key: SigningKey::from_pkcs8(Algorithm::RS256, &document)?,
            clock,
        });
        let served = Arc::clone(&standin);
        let key_set = path!(".well-known" / "jwks.json")
            .map(move || warp::reply::json(&json!({ "keys": [served.jwk()] })));
        let issuing = Arc::clone(&standin);
        let token = path!("session-token")
            .and(warp::query::<Session>())
            .map(move |session: Session| issuing.session_token(&session));
        tokio::spawn(
            warp::serve(warp::get().and(key_set.or(token)))
                .incoming(listener)
                .run(),
        );
        Ok(standin)
    }

    /// The instance's `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    fn jwk(&self) -> Value {
        let mut jwk = jwk::jwk(self.key.public(), Algorithm::RS256);
        if let Some(kid) = jwk.get_mut("kid") {
            *kid = json!(self.kid);
        }
        jwk
    }

    /// A session token (version 2) of a user who administers an organisation.
    pub fn session_token(&self, session: &Session) -> String {
        let issued_at = self.clock.now() - session.age.clamp(-86_400, 86_400);
        let header = json!({"alg": "RS256", "kid": self.kid, "typ": "JWT"});
        let claims = json!({
            "azp": "http://localhost:3000",
            "exp": issued_at + LIFETIME,
            "fea": "o:tasks,u:export",
            "fva": [2, -1],
            "iat": issued_at,
            "iss": self.issuer,
            "jti": identifier("jti"),
            "nbf": issued_at - 10,
            "o": {"id": "org_2standin", "slg": "acme", "rol": "admin", "per": "create,read", "fpm": "3"},
            "pla": "o:team",
            "sid": "sess_2standin",
            "sts": session.status.as_deref().unwrap_or("active"),
            "sub": "user_2standin",
            "v": 2,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.try_sign(message.as_bytes()).unwrap_or_default();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn identifier(prefix: &str) -> String {
    format!(
        "{prefix}_{}",
        Alphanumeric.sample_string(&mut rand::rng(), 20)
    )
}
