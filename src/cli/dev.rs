//! `exchequer dev`: the whole thing on one machine, with one real exchange shown.

use crate::clock::Clock;
use crate::config::{self, Settings, Sources, is_loopback_url};
use crate::service::{self, Bound, Place, Service};
use crate::standin::{Session, StandIn};
use crate::subject::address::Reach;
use crate::subject::fetch::Fetcher;
use crate::telemetry;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long to run.
#[derive(clap::Args)]
pub(super) struct Args {
    /// End after the exchange
    #[arg(long)]
    once: bool,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Runs the stand-in and the service, and shows one exchange.
pub(super) async fn run(args: Args) -> ExitCode {
    match show(args.once).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            super::wrong()
        }
    }
}

/// The configuration of the process, with the stand-in and all its credentials for the one
/// issuer, and whether it names its own issuer.
fn settings(provider: &StandIn) -> Result<(Settings, bool), Failed> {
    let mut sources = Sources::process();
    sources.default_file = None;
    sources.variables.retain(|(name, _)| {
        name.starts_with("EXCHEQUER_") && !name.starts_with("EXCHEQUER_CONFIG")
    });
    let named = sources.variables.iter().any(|(name, value)| {
        ["EXCHEQUER_ISSUER", "EXCHEQUER_ISSUER_FILE"].contains(&name.as_str()) && !value.is_empty()
    });
    let (client_id, client_secret) = provider.oauth_client();
    let clerk = [
        ("CLERK_JWT_ISSUER", provider.issuer()),
        ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
        ("CLERK_API_URL", provider.api_url()),
        ("CLERK_SECRET_KEY", provider.secret_key()),
        ("CLERK_MACHINE_SECRET_KEY", provider.machine_secret_key()),
        ("CLERK_WEBHOOK_SIGNING_SECRET", provider.webhook_secret()),
        ("CLERK_OAUTH_CLIENT_ID", client_id),
        ("CLERK_OAUTH_CLIENT_SECRET", client_secret),
    ];
    let clerk = clerk.map(|(name, value)| (name.to_owned(), value.to_owned()));
    sources.variables.extend(clerk);
    let (settings, findings) = config::load(&sources);
    let settings = settings.ok_or_else(|| {
        let lines: Vec<String> = findings.errors.iter().map(ToString::to_string).collect();
        lines.join("\nerror: ")
    })?;
    if !settings.listen.ip().is_loopback() || !settings.admin_listen.ip().is_loopback() {
        return Err("dev listens on this machine only: its provider signs in whoever asks".into());
    }
    if !is_loopback_url(&settings.issuer) {
        return Err("dev serves an issuer on this machine only: its keys are thrown away".into());
    }
    Ok((settings, named))
}

/// Makes the address that is really listened on the issuer, also where it is the audience.
fn issue_as(issuer: String, settings: &mut Settings) {
    for app in &mut settings.apps {
        for audience in &mut app.audiences {
            if *audience == settings.issuer {
                audience.clone_from(&issuer);
            }
        }
    }
    settings.issuer = issuer;
}

async fn show(once: bool) -> Result<ExitCode, Failed> {
    let clock = Clock::system();
    let provider = StandIn::start(clock.clone()).await?;
    let (mut settings, named) = settings(&provider)?;
    telemetry::start_log("warn", settings.log_format)?;
    let public = service::listen("EXCHEQUER_LISTEN", settings.listen).await?;
    let admin = service::listen("EXCHEQUER_ADMIN_LISTEN", settings.admin_listen).await?;
    let (address, admin_address) = (public.local_addr()?, admin.local_addr()?);
    if !named {
        issue_as(
            format!("http://localhost:{}", address.port()),
            &mut settings,
        );
    }
    let base = format!("http://{address}");
    provider.deliver_to(&format!("{base}/webhooks/clerk/default"));
    println!(
        "The identity provider (a stand-in that signs as Clerk does)  {}",
        provider.issuer()
    );
    println!("Exchequer                                                    {base}");
    println!("  health and metrics                                         http://{admin_address}");
    if settings.console.is_some() && admin_address.ip().is_loopback() {
        println!(
            "  console                                                    http://{admin_address}/console"
        );
    }
    let issuer = settings.issuer.clone();
    let service = Service::new(settings, Place::Memory)?;
    let bound = Bound {
        public,
        admin,
        access: None,
        service,
    };
    let stop = super::serve::stop_on_signal(Duration::ZERO)?;
    let serving = tokio::spawn(bound.serve(stop));

    exchange(&provider, &base, &issuer).await?;
    if once {
        return Ok(super::DONE);
    }
    print_curl(&provider, &base);
    serving.await?;
    Ok(super::DONE)
}

async fn exchange(provider: &Arc<StandIn>, base: &str, issuer: &str) -> Result<(), Failed> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()?;
    let session_token = provider.session_token(&Session::default());
    println!("\n1  A user signed in. The provider's session token says:\n");
    print_claims(&session_token)?;

    println!(
        "\n2  The app exchanges it:  POST {base}/auth/exchange  {{\"session_token\": \"{}\"}}",
        short(&session_token)
    );
    let answer = client
        .post(format!("{base}/auth/exchange"))
        .header("content-type", "application/json")
        .body(json!({ "session_token": session_token }).to_string())
        .send()
        .await?;
    let status = answer.status();
    let mut body: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let token = body
        .get("token")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    for name in ["token", "access_token"] {
        if let Some(member) = body.get_mut(name) {
            *member = json!(short(&token));
        }
    }
    println!("   {status}");
    println!("{}", indent(&serde_json::to_string_pretty(&body)?));
    if !status.is_success() {
        return Err("the exchange failed".into());
    }

    println!("\n3  The app JWT that your backend gets says:\n");
    print_claims(&token)?;

    println!("\n4  Your backend verifies it with the key set at {issuer}/.well-known/jwks.json:");
    let url = Url::parse(&format!("{base}/.well-known/jwks.json"))?;
    let document = Fetcher::new()?.get(&url, Reach::Private).await?;
    let verdict = crate::token::verify::with_key_set(&document.body, &token)?;
    println!("   signature good, kid {verdict}");
    Ok(())
}

fn print_curl(provider: &StandIn, base: &str) {
    let upstream = provider.issuer();
    let program = std::env::args().next().unwrap_or_default();
    println!(
        r#"
Do it yourself, in another terminal:

  TOKEN=$(curl -s {upstream}/session-token)
  curl -s {base}/auth/exchange -H 'Content-Type: application/json' -d "{{\"session_token\":\"$TOKEN\"}}"

A native app may hold a session's id instead: it is good once, while the session is fresh. And
an OAuth client brings an access token that only its issuer can read.

  SESSION=$(curl -s {upstream}/session-id)
  curl -s {base}/auth/exchange -H 'Content-Type: application/json' -d "{{\"session_id\":\"$SESSION\"}}"
  OAUTH=$(curl -s {upstream}/oauth-token)
  curl -s {base}/auth/exchange -H "Authorization: Bearer $OAUTH" -X POST

What a gateway learns of a request that brings an app JWT:

  APP=$(curl -s {base}/auth/exchange -H "Authorization: Bearer $(curl -s {upstream}/session-token)" -X POST | sed 's/.*"token":"\([^"]*\)".*/\1/')
  curl -s -o /dev/null -w '%{{header_json}}' {base}/auth/verify -H "Authorization: Bearer $APP"

What a refusal looks like: a token that expired half a minute ago, and an unfinished sign-in.

  OLD=$(curl -s '{upstream}/session-token?age=90')
  curl -s {base}/auth/exchange -H "Authorization: Bearer $OLD" -X POST
  echo "$OLD" | CLERK_JWT_ISSUER={upstream} {program} explain
  PENDING=$(curl -s '{upstream}/session-token?status=pending')
  curl -s {base}/auth/exchange -H "Authorization: Bearer $PENDING" -X POST

A sign-out: the provider's webhook tells of it, and a token of that session is refused at once.

  SESSION=$(curl -s {upstream}/session-id)
  TOKEN=$(curl -s "{upstream}/session-token?session=$SESSION")
  curl -s -X POST "{upstream}/dev/sign-out?session=$SESSION"
  curl -s {base}/auth/exchange -H "Authorization: Bearer $TOKEN" -X POST

The keys that verify app tokens:

  curl -s {base}/.well-known/jwks.json

Ctrl-C ends it; keys and tokens are thrown away."#
    );
}

/// The claims of a token that was made a moment ago, for a look.
fn print_claims(token: &str) -> Result<(), Failed> {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    println!("{}", indent(&serde_json::to_string_pretty(&claims)?));
    Ok(())
}

fn indent(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("   {line}")).collect();
    lines.join("\n")
}

fn short(token: &str) -> String {
    format!("{}…", token.get(..16).unwrap_or_default())
}
