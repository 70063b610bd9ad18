//! A backend on axum that verifies app JWTs with jsonwebtoken.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION, header::WWW_AUTHENTICATE};
use axum::{Json, Router, routing::get};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::{Value, json};
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The library fetches nothing: the keys are kept for 10 minutes, and fetched again for a `kid`
/// that is not there, at most every 30 seconds.
const KEPT: Duration = Duration::from_secs(600);
const COOLDOWN: Duration = Duration::from_secs(30);

struct Verifier {
    url: String,
    client: reqwest::Client,
    keys: Mutex<(JwkSet, Option<Instant>)>,
    rules: Validation,
}

#[derive(serde::Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    scope: String,
}

type Refusal = (StatusCode, [(axum::http::HeaderName, &'static str); 1]);
const INVALID: Refusal = (
    StatusCode::UNAUTHORIZED,
    [(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)],
);
const SCOPE: Refusal = (
    StatusCode::FORBIDDEN,
    [(WWW_AUTHENTICATE, r#"Bearer error="insufficient_scope""#)],
);

impl Verifier {
    fn new(issuer: &str, audience: &str, algorithm: Algorithm) -> Self {
        let mut rules = Validation::new(algorithm); // never what the token's header says
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.validate_nbf = true;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5));
        Self {
            url: format!("{issuer}/.well-known/jwks.json"),
            client: client.build().expect("a client"),
            keys: Mutex::new((JwkSet { keys: Vec::new() }, None)),
            rules,
        }
    }

    async fn fetched(&self) -> reqwest::Result<JwkSet> {
        self.client
            .get(&self.url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await
    }

    async fn key(&self, kid: &str) -> Option<DecodingKey> {
        let mut keys = self.keys.lock().await;
        let after = if keys.0.find(kid).is_some() {
            KEPT
        } else {
            COOLDOWN
        };
        if keys.1.is_none_or(|asked| asked.elapsed() > after) {
            keys.1 = Some(Instant::now());
            if let Ok(set) = self.fetched().await {
                keys.0 = set; // else those that were there go on
            }
        }
        DecodingKey::from_jwk(keys.0.find(kid)?).ok()
    }

    async fn verify(&self, headers: &HeaderMap, scope: &str) -> Result<Claims, Refusal> {
        let header = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or(INVALID)?;
        let kid = decode_header(token)
            .ok()
            .and_then(|header| header.kid)
            .ok_or(INVALID)?;
        let key = self.key(&kid).await.ok_or(INVALID)?;
        let claims = decode::<Claims>(token, &key, &self.rules)
            .map_err(|_| INVALID)?
            .claims;
        let granted = claims.scope.split(' ').any(|each| each == scope);
        if granted { Ok(claims) } else { Err(SCOPE) }
    }
}

async fn reports(
    State(verifier): State<Arc<Verifier>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let claims = verifier.verify(&headers, "read:reports").await?;
    Ok(Json(json!({ "user": claims.sub })))
}

#[tokio::main]
async fn main() {
    let needed = |name| env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let algorithm = env::var("ALG").map_or(Ok(Algorithm::ES256), |name| name.parse());
    let verifier = Verifier::new(
        &needed("ISSUER"),
        &needed("AUDIENCE"),
        algorithm.expect("ALG: an algorithm"),
    );
    let app = Router::new()
        .route("/reports", get(reports))
        .with_state(Arc::new(verifier));
    let port = env::var("PORT").unwrap_or("3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("a port");
    axum::serve(listener, app).await.expect("it serves");
}
