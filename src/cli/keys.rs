//! `exchequer keys`: the key ring, in the folder or in Redis; running services take changes over.

use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{AuditSettings, Settings};
use crate::keys::jwk::algorithm_name;
use crate::keys::ring::{Rotation, State};
use crate::keys::{Keeper, RingPlace};
use crate::service::signing_algorithms;
use crate::telemetry::Metrics;
use clap::Subcommand;
use jsonwebtoken::Algorithm;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// What to do with the ring.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the keys, their states and what happens next
    #[command(after_help = "Example:\n  exchequer keys list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let the standby sign, as soon as verifiers had time to see it
    #[command(
        after_help = "Example:\n  exchequer keys rotate\n  exchequer keys rotate --alg ES256 --force"
    )]
    Rotate {
        /// The algorithm: ES256, RS256 or EdDSA; all that apps use where it is left out
        #[arg(long)]
        alg: Option<String>,
        /// At once, at the cost of verifiers that have not seen the standby yet
        #[arg(long)]
        force: bool,
    },
    /// Take a key out at once
    #[command(
        after_help = "Example:\n  exchequer keys revoke 4dp9RQrwWb8py0jZc6FuxtFRNQ0bKCSJJ1TRka4Hc_s"
    )]
    Revoke {
        /// The key's id
        // One in 64 begins with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Put a private key made elsewhere (PKCS#8 PEM) in the place of the standby
    #[command(after_help = "Example:\n  exchequer keys import key.pem --alg ES256")]
    Import {
        /// The PEM file
        file: PathBuf,
        /// The algorithm: ES256, RS256 or EdDSA
        #[arg(long, default_value = "RS256")]
        alg: String,
    },
}

type Failed = Box<dyn std::error::Error>;

/// Runs the command.
pub(super) async fn run(args: Args) -> ExitCode {
    let (settings, _) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match act(args.command, &settings).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            super::not_right()
        }
    }
}

async fn act(command: Command, settings: &Settings) -> Result<ExitCode, Failed> {
    let place = RingPlace::for_command(settings);
    // A folder is where the configuration says; of these it is not plain to see.
    if matches!(place, RingPlace::Shared(_) | RingPlace::Mounted(_)) {
        eprintln!("key ring: {}", place.describe());
    }
    if let Command::List { json } = command {
        return list(&place, settings, json).await;
    }
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::default()));
    // Standard output is this command's own.
    let audit = settings.audit.as_ref();
    let audit = audit.filter(|place| **place != AuditSettings::Stdout);
    let audit = Audit::open(audit, "keys", clock.clone(), Arc::clone(&metrics))
        .map_err(|error| format!("EXCHEQUER_AUDIT: {error}"))?;
    // A key imported where there is no ring yet is to be its first.
    let open = match command {
        Command::Import { .. } => Keeper::unopened,
        _ => Keeper::open,
    };
    let algorithms = signing_algorithms(settings);
    let keeper = open(
        place,
        &settings.keys,
        algorithms.clone(),
        clock,
        metrics,
        audit,
    )?;
    match command {
        Command::List { .. } => {}
        Command::Rotate { alg, force } => {
            let chosen = match alg.as_deref().map(algorithm).transpose()? {
                Some(one) if algorithms.contains(&one) => vec![one],
                Some(one) => {
                    return Err(format!("no app signs with {}", algorithm_name(one)).into());
                }
                None => algorithms,
            };
            for each in chosen {
                rotate(&keeper, each, force).await?;
            }
        }
        Command::Revoke { kid } => {
            if !keeper.revoke(&kid).await? {
                return Err(format!("there is no key {kid} in the ring").into());
            }
            println!("revoked {kid}: it is published no longer");
            println!(
                "verifiers forget it when they next fetch the key set: PyJWT and Nimbus within 5 min, jose and Envoy 10 min, Istio 20 min, AWS 2 h, go-oidc and aws-jwt-verify when they restart"
            );
        }
        Command::Import { file, alg } => {
            let pem = Zeroizing::new(
                std::fs::read_to_string(&file)
                    .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
            );
            let (label, document) = pkcs8::SecretDocument::from_pem(&pem)
                .map_err(|_| "this is no PEM: make a key with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`")?;
            if label != "PRIVATE KEY" {
                return Err(format!("a PKCS#8 key begins with BEGIN PRIVATE KEY, this one with BEGIN {label}: convert it with `openssl pkcs8 -topk8 -nocrypt`").into());
            }
            let pkcs8 = Zeroizing::new(document.as_bytes().to_vec());
            match keeper.import(algorithm(&alg)?, pkcs8).await? {
                (kid, true) => println!("imported {kid}"),
                (kid, false) => {
                    return Err(format!("the ring has {kid} already, or no room for it").into());
                }
            }
        }
    }
    Ok(super::DONE)
}

async fn rotate(keeper: &Keeper, algorithm: Algorithm, force: bool) -> Result<(), Failed> {
    let name = algorithm_name(algorithm);
    match keeper.rotate(algorithm, force).await?.0 {
        Some(Rotation::Now) => {
            let signer = keeper.published();
            let kid = signer
                .signer(algorithm)
                .map(|signer| signer.kid.clone())
                .unwrap_or_default();
            println!("{name}: {kid} signs from now on");
        }
        Some(Rotation::At(at)) => println!(
            "{name}: the standby was published only lately; it will sign at {} (--force lets it sign at once, at the cost of verifiers that have not seen it yet)",
            date(at)
        ),
        None => {
            return Err(format!(
                "{name}: there is no standby key: four keys are published, wait until one is gone"
            )
            .into());
        }
    }
    Ok(())
}

async fn list(place: &RingPlace, settings: &Settings, json: bool) -> Result<ExitCode, Failed> {
    let Some(loaded) = place.load().await? else {
        return Err(format!(
            "there is no key ring in {}: `exchequer serve` makes it",
            place.describe()
        )
        .into());
    };
    if loaded.fallen_back {
        eprintln!("warning: the newest key ring is damaged or gone; this is the generation before");
    }
    let overview = Keeper::overview(&loaded.ring, &settings.keys)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&overview)?);
        return Ok(super::DONE);
    }
    println!("{:<44} {:<6} {:<8} published", "kid", "alg", "state");
    for key in overview {
        let next = match (key.state, key.changes_at) {
            (_, None) => String::new(),
            (State::Next, Some(at)) => format!("signs from {}", date(at)),
            (State::Active, Some(at)) => format!("signs until {}", date(at)),
            (State::Retired, Some(at)) => format!("gone at {}", date(at)),
        };
        println!(
            "{:<44} {:<6} {:<8} {}  {next}",
            key.kid,
            key.alg,
            key.state.name(),
            date(key.published_at)
        );
    }
    Ok(super::DONE)
}

fn algorithm(name: &str) -> Result<Algorithm, Failed> {
    match Algorithm::from_str(name) {
        Ok(algorithm @ (Algorithm::ES256 | Algorithm::RS256 | Algorithm::EdDSA)) => Ok(algorithm),
        _ => Err(format!("{name:?} is none of ES256, RS256, EdDSA").into()),
    }
}

/// The time in words.
fn date(at: i64) -> String {
    let since = Duration::from_secs(u64::try_from(at).unwrap_or_default());
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
