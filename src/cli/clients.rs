//! `exchequer clients`: the clients that are registered at run time, beside those of the file.
//!
//! One process has the store open: where a service runs, it is asked to make the change; where
//! none does, the change is made here. Secrets are made here and shown once: the store, and the
//! service, get a hash.

use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{
    AuditSettings, AuthMethod, Settings, StoreSettings, duration as read_duration,
};
use crate::explain::Refusal;
use crate::oauth::registry::{KeptSecret, Listed, Order, Origin, Registered, Registry};
use crate::service::access::{self, Access};
use crate::store::{OpenError, Store};
use crate::subject::address::Reach;
use crate::subject::fetch::Fetcher;
use crate::telemetry::Metrics;
use clap::Subcommand;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::Url;

/// What to do with the clients.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show the clients of the file and the registered ones
    #[command(after_help = "Example:\n  exchequer clients list --json")]
    List,
    /// Register a client; its secret is shown once
    #[command(
        after_help = "Example:\n  exchequer clients add reports --audience https://tasks.internal --scope read:tasks\n  exchequer clients add partner --public-key partner.pub --app web --audience https://api.example.com"
    )]
    Add(Add),
    /// Give a client another secret; the one before serves on for a while
    #[command(after_help = "Example:\n  exchequer clients rotate-secret reports --grace 1h")]
    RotateSecret {
        /// Its id
        id: String,
        /// How long the secret before serves on: 0s to 30d
        #[arg(long, default_value = "24h")]
        grace: String,
    },
    /// Remove a client, at once
    #[command(after_help = "Example:\n  exchequer clients remove reports")]
    Remove {
        /// Its id
        id: String,
    },
}

#[derive(clap::Args)]
struct Add {
    /// Its id: letters, digits, '-', '_' and '.'
    id: String,
    /// A backend that it may call; several times for several, the first is the default
    #[arg(long)]
    audience: Vec<String>,
    /// A scope that its tokens may have; several times for several
    #[arg(long)]
    scope: Vec<String>,
    /// An app whose users it may act for; several times for several
    #[arg(long)]
    app: Vec<String>,
    /// An audience whose tokens it may look at; several times for several
    #[arg(long)]
    introspect: Vec<String>,
    /// client_secret, client_secret_basic, client_secret_post, private_key_jwt or none;
    /// private_key_jwt where there is a public key
    #[arg(long)]
    auth_method: Option<String>,
    /// Its public key, PEM
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// How long its tokens live: 30s to 1h; 5m unless set
    #[arg(long)]
    ttl: Option<String>,
    /// Give its own tokens a place in the status list
    #[arg(long)]
    status_list: bool,
}

/// Why a command ends otherwise than it should.
enum Failed {
    /// Wrong usage or configuration.
    Wrong(String),
    /// The registry says no.
    Refused {
        /// The code.
        code: String,
        /// The sentence.
        description: String,
    },
}

impl From<Box<Refusal>> for Failed {
    fn from(refusal: Box<Refusal>) -> Self {
        let description = match &refusal.cause {
            Some(cause) => format!("{} ({cause})", refusal.description),
            None => refusal.description.clone(),
        };
        Self::Refused {
            code: refusal.code.entry().slug.to_owned(),
            description,
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> ExitCode {
    let (settings, _) = match super::settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match act(args, settings).await {
        Ok(()) => super::DONE,
        Err(Failed::Wrong(message)) => {
            eprintln!("error: {message}");
            super::wrong()
        }
        Err(Failed::Refused { code, description }) => {
            eprintln!("error: {description}\n       `exchequer errors {code}` says more");
            super::not_right()
        }
    }
}

async fn act(args: Args, settings: Settings) -> Result<(), Failed> {
    let json = args.json;
    let listing = matches!(args.command, Command::List);
    let (order, secret) = order(args.command)?;
    let told = obey(order, &settings).await?;
    if listing {
        list(&told, json);
        return Ok(());
    }
    let Some(client) = told.first() else {
        return Ok(());
    };
    if json {
        let mut value = serde_json::to_value(client).unwrap_or_default();
        if let (Some(object), Some(secret)) = (value.as_object_mut(), secret) {
            object.insert("client_secret".to_owned(), Value::String(secret));
        }
        println!("{value}");
        return Ok(());
    }
    println!("client_id      {}", client.id);
    if let Some(secret) = secret {
        println!(
            "client_secret  {secret}\n\nThe secret is shown this once: only its hash is kept."
        );
    }
    for old in client.client.secrets.iter().filter_map(|kept| kept.until) {
        println!("The secret before serves until {}.", date(old));
    }
    Ok(())
}

/// What is to be done, and the secret that was made for it.
fn order(command: Command) -> Result<(Order, Option<String>), Failed> {
    let seconds = |name: &str, text: &str| {
        read_duration(text).map_err(|fault| Failed::Wrong(format!("{name}: {fault}")))
    };
    let new_secret = || access::new_token().map_err(|error| Failed::Wrong(error.to_string()));
    Ok(match command {
        Command::List => (Order::List, None),
        Command::Remove { id } => (Order::Remove { id }, None),
        Command::RotateSecret { id, grace } => {
            let secret = new_secret()?;
            let order = Order::RotateSecret {
                id,
                secret: KeptSecret::of(&secret),
                grace: seconds("--grace", &grace)?,
            };
            (order, Some(secret))
        }
        Command::Add(add) => {
            let method = match (&add.auth_method, &add.public_key) {
                (Some(name), _) => AuthMethod::from_name(name)
                    .map_err(|fault| Failed::Wrong(format!("--auth-method: {fault}")))?,
                (None, Some(_)) => AuthMethod::PrivateKeyJwt,
                (None, None) => AuthMethod::ClientSecret,
            };
            if method.signs_with_secret() {
                return Err(Failed::Wrong(format!(
                    "--auth-method: {} needs the secret in clear, and a hash is all that is kept: write [clients.ID] into exchequer.toml with `secret = {{ env = \"NAME\" }}`",
                    method.name()
                )));
            }
            let secret = method.sends_secret().then(new_secret).transpose()?;
            let public_key = add.public_key.as_deref().map(read).transpose()?;
            let ttl = add.ttl.as_deref().map(|text| seconds("--ttl", text));
            let client = Registered {
                auth_method: method,
                secrets: secret.iter().map(|secret| KeptSecret::of(secret)).collect(),
                public_key,
                audience: add.audience,
                scopes: add.scope,
                ttl: ttl.transpose()?,
                status_list: add.status_list,
                apps: add.app,
                introspect: add.introspect,
            };
            (Order::Add { id: add.id, client }, secret)
        }
    })
}

fn read(path: &Path) -> Result<String, Failed> {
    std::fs::read_to_string(path)
        .map_err(|error| Failed::Wrong(format!("cannot read {}: {error}", path.display())))
}

/// Has whoever has the store open do it.
async fn obey(order: Order, settings: &Settings) -> Result<Vec<Listed>, Failed> {
    if settings.store == StoreSettings::Memory {
        return Err(Failed::Wrong(
            "EXCHEQUER_STORE is memory: what is registered there would be forgotten when the service stops. Set a file, or write [clients.ID] into exchequer.toml".to_owned(),
        ));
    }
    let metrics = Arc::new(Metrics::default());
    match Store::open(&settings.store, Arc::clone(&metrics)) {
        Ok(store) => {
            // One that is shared need not be asked for by whoever has it open.
            store
                .begin()
                .await
                .map_err(|error| Failed::Wrong(format!("EXCHEQUER_STORE: {error}")))?;
            let clock = Clock::system();
            // Standard output is this command's own.
            let audit = settings.audit.as_ref();
            let audit = audit.filter(|place| **place != AuditSettings::Stdout);
            let audit = Audit::open(audit, "clients", clock.clone(), metrics)
                .map_err(|error| Failed::Wrong(format!("EXCHEQUER_AUDIT: {error}")))?;
            let registry = Registry::new(Arc::new(store), settings, clock, Arc::clone(&audit));
            let told = registry.obey(order).await;
            let _ = tokio::task::spawn_blocking(move || audit.stop()).await;
            Ok(told?)
        }
        Err(OpenError::InUse(store)) => {
            let place = access::beside(&store);
            let access = access::read(&place).map_err(|error| {
                Failed::Wrong(format!(
                    "{} is in use by another process, and the file that leads to it, {}, cannot be read: {error}. If a service is just starting or stopping, try again; else run this as its user, on its machine",
                    store.display(),
                    place.display()
                ))
            })?;
            ask(&order, &access).await
        }
        Err(error) => Err(Failed::Wrong(format!("EXCHEQUER_STORE: {error}"))),
    }
}

/// Asks the running service.
async fn ask(order: &Order, access: &Access) -> Result<Vec<Listed>, Failed> {
    let failed = |error: &dyn std::fmt::Display| {
        Failed::Wrong(format!(
            "the service at {} could not be asked: {error}. Whether the change was made, `exchequer clients list` tells",
            access.address
        ))
    };
    let fetcher = Fetcher::new().map_err(|error| failed(&error))?;
    let url = Url::parse(&format!("http://{}/clients", access.address));
    let url = url.map_err(|error| failed(&error))?;
    let body = serde_json::to_vec(order).map_err(|error| failed(&error))?;
    let reply = fetcher.send(Method::POST, &url, Reach::Private, |request| {
        request
            .bearer_auth(access.token.expose_secret())
            .header("content-type", "application/json")
            .body(body)
    });
    let reply = reply.await.map_err(|error| failed(&error))?;
    if reply.status == 200 {
        return serde_json::from_slice(&reply.body).map_err(|error| failed(&error));
    }
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    match (text("code"), text("error_description")) {
        (Some(code), Some(description)) => Err(Failed::Refused { code, description }),
        _ => Err(failed(&format!("it answered {}", reply.status))),
    }
}

fn list(clients: &[Listed], as_json: bool) {
    if as_json {
        println!("{}", json!(clients));
        return;
    }
    let id = clients.iter().map(|each| each.id.len()).max();
    let width = id.unwrap_or_default().max("client_id".len());
    println!("{:<width$}  from   auth_method           may", "client_id");
    for Listed { id, from, client } in clients {
        let from = match from {
            Origin::File => "file",
            Origin::Store => "store",
        };
        let lists = [
            ("call", &client.audience),
            ("with", &client.scopes),
            ("act for users of", &client.apps),
            ("look at tokens for", &client.introspect),
        ];
        let may: Vec<String> = lists
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(what, list)| format!("{what} {}", list.join(", ")))
            .collect();
        let method = client.auth_method.name();
        let line = format!("{id:<width$}  {from:<5}  {method:<20}  {}", may.join("; "));
        println!("{}", line.trim_end());
    }
}

/// The time in words.
fn date(at: i64) -> String {
    let since = Duration::from_secs(u64::try_from(at).unwrap_or_default());
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    httpdate::fmt_http_date(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
