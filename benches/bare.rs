//! The bound: what one exchange costs when nothing but the exchange is done.
//!
//! A hyper 1 handler that reads a body, verifies one RS256 signature, mints one ES256 token and
//! answers. It checks no claim, keeps no log, counts nothing. For `/auth/verify` it does nothing but
//! answer, with the headers that the service answers with. The service is measured against it by
//! `benches/run.py`, side by side in one run; the figure that matters is the ratio of the two.
//!
//! It serves only when told to (`bare serve ADDR PUBLIC_KEY_PATH`), so that `cargo bench` and
//! `cargo test --benches`, which run every bench target, return at once.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[cfg(feature = "aws-lc")]
use aws_lc_rs as crypto;
#[cfg(not(feature = "aws-lc"))]
use ring as crypto;

use crypto::rand::SystemRandom;
use crypto::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
};

/// aws-lc-rs can parse the key once and keep it; ring reads its bytes at every verification.
#[cfg(feature = "aws-lc")]
type VerifyingKey = crypto::signature::ParsedPublicKey;
#[cfg(not(feature = "aws-lc"))]
type VerifyingKey = crypto::signature::UnparsedPublicKey<Vec<u8>>;

type AnyError = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: bare serve ADDR PUBLIC_KEY_PATH   (see benches/run.py)";
const ISSUER: &str = "http://localhost:8080";
const CLIENT: &str = "default";
/// What `/auth/verify` answers about the user of the bench.
const IDENTITY: [(&str, &str); 12] = [
    ("cache-control", "no-store"),
    ("vary", "authorization, cookie"),
    ("x-app", CLIENT),
    ("x-user-id", "user_2abT9nUxYrM4KwQvCjPiHdGzSoB"),
    ("x-org-id", "org_2cdR8kqYwVn3LhZsT0uXbJfGmEa"),
    ("x-roles", "org:admin"),
    ("x-scopes", ""),
    (
        "x-rate-limit-key",
        "org_2cdR8kqYwVn3LhZsT0uXbJfGmEa:user_2abT9nUxYrM4KwQvCjPiHdGzSoB",
    ),
    ("x-client-id", ""),
    ("x-signature", ""),
    ("x-request-id", "AAAAAAAAAAAAAAAA"),
    ("x-content-type-options", "nosniff"),
];
const LIFETIME: u64 = 600;
const BACKDATED: u64 = 10;

/// What stands before the PKCS#1 key in the DER of a 2048-bit RSA `SubjectPublicKeyInfo`.
const SPKI_RSA_2048: [u8; 24] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
    0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
];

#[derive(Deserialize)]
struct Ask<'a> {
    session_token: &'a str,
}

#[derive(Deserialize)]
struct SubjectHeader<'a> {
    alg: &'a str,
    kid: &'a str,
}

#[derive(Deserialize)]
struct SubjectClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    sid: &'a str,
    azp: &'a str,
    exp: u64,
    iat: u64,
    nbf: u64,
}

#[derive(Serialize)]
struct AppHeader<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct AppClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    nbf: u64,
    jti: &'a str,
    client_id: &'a str,
    idp: &'a str,
    sid: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    issued_token_type: &'a str,
    user: User<'a>,
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a str,
}

/// Everything that can be made ready before the first request.
struct Bare {
    subject_key: VerifyingKey,
    signing_key: EcdsaKeyPair,
    random: SystemRandom,
    /// The encoded header of every minted token, with its dot.
    header: String,
}

impl Bare {
    fn new(public_key: &[u8]) -> Result<Self, AnyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| "cannot generate a signing key")?;
        let signing_key = signing_key(pkcs8.as_ref(), &random)?;
        let public = signing_key.public_key().as_ref();
        let thumbprint = crypto::digest::digest(&crypto::digest::SHA256, public);
        let header = serde_json::to_vec(&AppHeader {
            alg: "ES256",
            typ: "JWT",
            kid: &URL_SAFE_NO_PAD.encode(thumbprint),
        })?;
        let mut header = URL_SAFE_NO_PAD.encode(header);
        header.push('.');
        Ok(Self {
            subject_key: verifying_key(public_key)?,
            signing_key,
            random,
            header,
        })
    }

    /// The exchange itself: the JSON asked in, the JSON answered out.
    fn exchange(&self, body: &[u8]) -> Result<Vec<u8>, AnyError> {
        let ask: Ask<'_> = serde_json::from_slice(body)?;
        let (signed, signature) = ask.session_token.rsplit_once('.').ok_or("not a JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("not a JWT")?;

        let header = URL_SAFE_NO_PAD.decode(header)?;
        let claims = URL_SAFE_NO_PAD.decode(claims)?;
        let signature = URL_SAFE_NO_PAD.decode(signature)?;
        let header: SubjectHeader<'_> = serde_json::from_slice(&header)?;
        let claims: SubjectClaims<'_> = serde_json::from_slice(&claims)?;
        // Parsed as any service would have to, though nothing here looks at them.
        std::hint::black_box((header.alg, header.kid));
        std::hint::black_box((claims.azp, claims.exp, claims.iat, claims.nbf));
        self.verify(signed.as_bytes(), &signature)?;

        let subject = claims.sub;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = serde_json::to_vec(&AppClaims {
            iss: ISSUER,
            sub: subject,
            aud: ISSUER,
            exp: now + LIFETIME,
            iat: now - BACKDATED,
            nbf: now - BACKDATED,
            jti: &URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
            client_id: CLIENT,
            idp: claims.iss,
            sid: claims.sid,
        })?;

        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self
            .signing_key
            .sign(&self.random, token.as_bytes())
            .map_err(|_| "cannot sign")?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);

        let mut answer = Vec::with_capacity(token.len() * 2 + 256);
        serde_json::to_writer(
            &mut answer,
            &Answer {
                token: &token,
                access_token: &token,
                token_type: "Bearer",
                expires_in: LIFETIME,
                issued_token_type: "urn:ietf:params:oauth:token-type:jwt",
                user: User { id: subject },
            },
        )?;
        Ok(answer)
    }

    #[cfg(feature = "aws-lc")]
    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), AnyError> {
        self.subject_key
            .verify_sig(signed, signature)
            .map_err(|_| "bad signature".into())
    }

    #[cfg(not(feature = "aws-lc"))]
    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), AnyError> {
        self.subject_key
            .verify(signed, signature)
            .map_err(|_| "bad signature".into())
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/auth/verify" {
            let mut response = Response::new(Full::new(Bytes::new()));
            let headers = response.headers_mut();
            headers.reserve(IDENTITY.len());
            for (name, value) in IDENTITY {
                headers.insert(name, HeaderValue::from_static(value));
            }
            return response;
        }
        let answer = match request.into_body().collect().await {
            Ok(body) => self.exchange(&body.to_bytes()),
            Err(error) => Err(error.into()),
        };
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, Bytes::from(body)),
            Err(error) => (StatusCode::BAD_REQUEST, Bytes::from(format!("{error}\n"))),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(feature = "aws-lc")]
fn verifying_key(pkcs1: &[u8]) -> Result<VerifyingKey, AnyError> {
    VerifyingKey::new(&RSA_PKCS1_2048_8192_SHA256, pkcs1)
        .map_err(|_| "not an RSA public key".into())
}

#[cfg(not(feature = "aws-lc"))]
fn verifying_key(pkcs1: &[u8]) -> Result<VerifyingKey, AnyError> {
    Ok(VerifyingKey::new(
        &RSA_PKCS1_2048_8192_SHA256,
        pkcs1.to_vec(),
    ))
}

#[cfg(feature = "aws-lc")]
fn signing_key(pkcs8: &[u8], _: &SystemRandom) -> Result<EcdsaKeyPair, AnyError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
        .map_err(|_| "cannot read the signing key".into())
}

#[cfg(not(feature = "aws-lc"))]
fn signing_key(pkcs8: &[u8], random: &SystemRandom) -> Result<EcdsaKeyPair, AnyError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, random)
        .map_err(|_| "cannot read the signing key".into())
}

/// The PKCS#1 bytes of a 2048-bit RSA public key, from the PEM or DER of its public key file.
fn read_public_key(path: &str) -> Result<Vec<u8>, AnyError> {
    let file = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let der = match std::str::from_utf8(&file) {
        Ok(pem) if pem.starts_with("-----BEGIN") => {
            let body: String = pem
                .lines()
                .filter(|line| !line.starts_with("-----"))
                .collect();
            STANDARD.decode(body)?
        }
        _ => file,
    };
    Ok(der
        .strip_prefix(&SPKI_RSA_2048)
        .map_or_else(|| der.clone(), <[u8]>::to_vec))
}

async fn serve(address: SocketAddr, bare: Bare) -> Result<(), AnyError> {
    let bare = Arc::new(bare);
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let bare = Arc::clone(&bare);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let bare = Arc::clone(&bare);
                async move { Ok::<_, Infallible>(bare.handle(request).await) }
            });
            // A connection that breaks off is the client's affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["serve", address, public_key] = arguments.as_slice() else {
        println!("{USAGE}");
        return Ok(());
    };
    let bare = Bare::new(&read_public_key(public_key)?)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(address.parse()?, bare))
}
