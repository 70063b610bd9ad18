//! The clients: they exchange, verify what they get through the key set of every replica, use
//! session ids again and again, sign out, and check every answer.

use super::figures::{Figures, Violation};
use super::replicas::{Place, Places};
use super::support::ring::verifies;
use super::support::{now, token};
use super::world::{Provider, World};
use rand::Rng;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How soon every replica must know of a revocation that one of them has answered.
const KNOWN: Duration = Duration::from_secs(2);

/// What the clients do, and what they put up with.
#[derive(Clone)]
pub struct Habits {
    /// Clients at once; each keeps a connection of its own.
    pub clients: usize,
    /// How long each rests between two requests.
    pub rest: Duration,
    /// Whether half of them speak HTTP/2.
    pub http2: bool,
    /// Whether they use session ids and sign out too: the replicas must share a store.
    pub remembered: bool,
    /// After how long an answer is none.
    pub deadline: Duration,
    /// The codes of refusals that the fault excuses.
    pub excused: &'static [&'static str],
    /// Whether the fault excuses connections that break.
    pub may_break: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            clients: 6,
            rest: Duration::from_millis(20),
            http2: false,
            remembered: false,
            deadline: Duration::from_secs(10),
            excused: &[],
            may_break: false,
        }
    }
}

/// An answer: its status and body.
type Told = (u16, Value);

/// The clients at work.
pub struct Load {
    crowd: Arc<Crowd>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
}

/// A time without the store: what was revoked in the second before is known to those alone who
/// had heard of it, until it is over.
#[derive(Clone, Copy)]
struct Outage {
    from: Instant,
    until: Option<Instant>,
}

/// What all clients share.
struct Crowd {
    address: String,
    places: Places,
    provider: Arc<Provider>,
    habits: Habits,
    figures: Figures,
    /// To the replicas themselves.
    direct: Client,
    /// App tokens that live, and until when.
    living: Mutex<Vec<(String, i64)>>,
    /// Sessions that were revoked, and when that was answered.
    revoked: Mutex<Vec<(String, Instant)>>,
    /// Session ids that were used.
    used: Mutex<Vec<String>>,
    /// The last time that the store could not be asked.
    outage: Mutex<Option<Outage>>,
}

fn client(habits: &Habits, http2: bool) -> Client {
    let builder = Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(habits.deadline);
    let builder = if http2 {
        builder.http2_prior_knowledge()
    } else {
        builder
    };
    builder.build().unwrap()
}

impl Load {
    /// Lets the clients begin.
    pub fn on(world: &World, habits: Habits, figures: &Figures) -> Self {
        // The provider of TLS, which reqwest asks for even where there is none.
        let _ = super::support::service::client();
        let crowd = Arc::new(Crowd {
            address: world.balancer.url.clone(),
            places: Arc::clone(&world.replicas.places),
            provider: Arc::clone(&world.provider),
            direct: client(&habits, false),
            figures: figures.clone(),
            habits: habits.clone(),
            living: Mutex::default(),
            revoked: Mutex::default(),
            used: Mutex::default(),
            outage: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let clients = (0..habits.clients)
            .map(|index| {
                let crowd = Arc::clone(&crowd);
                let own = client(&habits, habits.http2 && index % 2 == 1);
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    while !*stopped.borrow() {
                        crowd.act(&own).await;
                        tokio::time::sleep(crowd.habits.rest).await;
                    }
                })
            })
            .collect();
        Self {
            crowd,
            stop,
            clients,
        }
    }

    /// Waits until so many more tokens were minted: the service serves again.
    pub async fn minted(&self, more: u64) {
        let enough = self.crowd.figures.count().tokens + more;
        for _ in 0..3000 {
            if self.crowd.figures.count().tokens >= enough {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.crowd
            .figures
            .violated(Violation::Hung, "no token was minted for half a minute");
    }

    /// Looks at everything that must still hold, at every replica.
    pub async fn check(&self) {
        self.crowd.check_all().await;
    }

    /// The same, once every replica must know of all that was revoked.
    pub async fn check_when_known(&self) {
        tokio::time::sleep(KNOWN).await;
        self.crowd.check_all().await;
    }

    /// The store cannot be asked from now on.
    pub fn store_is_away(&self) {
        *self.crowd.outage.lock().unwrap() = Some(Outage {
            from: Instant::now(),
            until: None,
        });
    }

    /// The store can be asked again.
    pub fn store_is_back(&self) {
        if let Some(outage) = &mut *self.crowd.outage.lock().unwrap() {
            outage.until = Some(Instant::now());
        }
    }

    /// Verifies the tokens that live, at every replica.
    pub async fn check_tokens(&self) {
        self.crowd.check_tokens().await;
    }

    /// Lets the clients end, and looks at everything once more.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        for client in self.clients {
            client.await.unwrap();
        }
        tokio::time::sleep(KNOWN).await;
        self.crowd.check_all().await;
    }
}

impl Crowd {
    async fn act(&self, own: &Client) {
        let chance = if self.habits.remembered {
            rand::rng().random_range(0..10)
        } else {
            9
        };
        match chance {
            0 => self.use_once().await,
            1 => self.sign_out(own).await,
            2 => self.try_what_ended().await,
            _ => self.exchange(own).await,
        }
    }

    /// Sends a request and judges how it was answered; none where the connection broke.
    async fn ask(&self, request: RequestBuilder) -> Option<Told> {
        let began = Instant::now();
        self.figures.count().requests += 1;
        let answered = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let answered = answered.await;
        self.figures.answered(began.elapsed());
        match answered {
            Ok((status, text)) => {
                let body: Value = serde_json::from_str(&text).unwrap_or_default();
                if status >= 400 {
                    let code = body["code"].as_str().unwrap_or("no code");
                    self.refused(status, code);
                }
                Some((status, body))
            }
            Err(error) if error.is_timeout() => {
                self.figures.violated(Violation::Hung, format!("{error:?}"));
                None
            }
            Err(error) => {
                self.figures.count().broken += 1;
                if !self.habits.may_break {
                    self.figures
                        .violated(Violation::Failed, format!("{error:?}"));
                }
                None
            }
        }
    }

    fn refused(&self, status: u16, code: &str) {
        let named = format!("{status} {code}");
        *self.figures.count().refused.entry(named).or_default() += 1;
        // What is asked for on purpose.
        let expected = ["session_id_used", "session_id_stale", "session_revoked"];
        if !expected.contains(&code) && !self.habits.excused.contains(&code) {
            let seen = format!("{status} {code}");
            self.figures.violated(Violation::Failed, seen);
        }
    }

    fn exchange_at(&self, client: &Client, url: &str, body: &Value) -> RequestBuilder {
        client
            .post(format!("{url}/auth/exchange"))
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    fn places(&self) -> Vec<Place> {
        self.places.read().unwrap().clone()
    }

    async fn exchange(&self, own: &Client) {
        let body = json!({ "session_token": self.provider.token() });
        let request = self.exchange_at(own, &self.address, &body);
        if let Some((200, body)) = self.ask(request).await {
            let token = body["token"].as_str().unwrap().to_owned();
            self.figures.count().tokens += 1;
            let ends = token::claims(&token)["exp"].as_i64().unwrap();
            for place in self.places() {
                self.verify_at(&place, &[&token]).await;
            }
            self.living.lock().unwrap().push((token, ends));
        }
    }

    /// Verifies tokens with the key set that a replica shows now; one that is dead shows none.
    async fn verify_at(&self, place: &Place, tokens: &[&str]) {
        let asked = self
            .direct
            .get(format!("{}/.well-known/jwks.json", place.url))
            .send();
        let Ok(answer) = asked.await else {
            return;
        };
        let Ok(text) = answer.text().await else {
            return;
        };
        let jwks: Value = serde_json::from_str(&text).unwrap();
        self.figures.count().verifications += u64::try_from(tokens.len()).unwrap();
        for token in tokens {
            if !verifies(token, &jwks) {
                let kid = &token::header(token)["kid"];
                let shown: Vec<_> = jwks["keys"].as_array().into_iter().flatten().collect();
                let shown: Vec<_> = shown.iter().map(|key| &key["kid"]).collect();
                let seen = format!("{kid} at {}, which shows {shown:?}", place.url);
                self.figures.violated(Violation::Unverified, seen);
            }
        }
    }

    /// A new session id at every replica at the same time, twice.
    async fn use_once(&self) {
        let id = format!("sess_{:024x}", rand::rng().random::<u128>() >> 32);
        self.provider.clerk.world(|world| {
            world.add_session(&id, exchequer::standin::known::USER, "active");
        });
        match self.honoured(&id, 2).await {
            // It may be used later; a broken connection may have used it.
            0 => return,
            1 => self.figures.count().single_uses += 1,
            _ => self
                .figures
                .violated(Violation::Twice, format!("{id} at once")),
        }
        self.used.lock().unwrap().push(id);
    }

    /// How often a session id is honoured, tried so often at each replica.
    async fn honoured(&self, id: &str, times: usize) -> usize {
        let body = json!({ "session_id": id });
        let places = self.places();
        let attempts = places.iter().flat_map(|place| {
            let body = &body;
            (0..times).map(move |_| self.ask(self.exchange_at(&self.direct, &place.url, body)))
        });
        let told = futures_util::future::join_all(attempts).await;
        told.iter()
            .filter(|told| matches!(told, Some((200, _))))
            .count()
    }

    /// A session is revoked, and the webhook that says so is answered by some replica.
    async fn sign_out(&self, own: &Client) {
        let session = format!("sess_{:024x}", rand::rng().random::<u128>() >> 32);
        let clerk = &self.provider.clerk;
        clerk.world(|world| {
            world.add_session(&session, exchequer::standin::known::USER, "active");
        });
        let event = clerk.end_session(&session, "revoked").unwrap();
        let id = format!("msg_{session}");
        // As Clerk does: the same again until it is answered well.
        for _ in 0..40 {
            let (headers, body) = clerk.webhook(&event, &id, now());
            let url = format!("{}/webhooks/clerk/web", self.address);
            let request = headers
                .iter()
                .fold(own.post(url), |request, (name, value)| {
                    request.header(*name, value)
                });
            let request = request.header("content-type", "application/json");
            if let Some((200, _)) = self.ask(request.body(body)).await {
                self.figures.count().revocations += 1;
                let answered = (session, Instant::now());
                self.revoked.lock().unwrap().push(answered);
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Something that was revoked and something that was used, at every replica.
    async fn try_what_ended(&self) {
        let any = |count: usize| (count > 0).then(|| rand::rng().random_range(0..count));
        let used = {
            let used = self.used.lock().unwrap();
            any(used.len()).map(|index| used[index].clone())
        };
        if let Some(id) = used {
            self.must_not_be_honoured_again(&id).await;
        }
        let revoked = {
            let revoked = self.revoked.lock().unwrap();
            any(revoked.len()).map(|index| revoked[index].clone())
        };
        if let Some((session, _)) = revoked.filter(|(_, at)| self.is_known(*at)) {
            self.must_be_revoked(&session).await;
        }
    }

    /// Whether every replica must know what was answered at this time.
    fn is_known(&self, at: Instant) -> bool {
        let long_ago = |at: Instant, now: Instant| at + KNOWN < now;
        let now = Instant::now();
        match *self.outage.lock().unwrap() {
            None => long_ago(at, now),
            Some(Outage { from, until }) => {
                let since = until.map(|until| until.max(at));
                long_ago(at, from) || since.is_some_and(|since| long_ago(since, now))
            }
        }
    }

    async fn must_not_be_honoured_again(&self, id: &str) {
        if self.honoured(id, 1).await > 0 {
            self.figures
                .violated(Violation::Twice, format!("{id} later"));
        }
    }

    async fn must_be_revoked(&self, session: &str) {
        let body = json!({ "session_token": self.provider.token_of(session) });
        for place in self.places() {
            let request = self.exchange_at(&self.direct, &place.url, &body);
            if let Some((200, _)) = self.ask(request).await {
                let seen = format!("{session} at {}", place.url);
                self.figures.violated(Violation::Forgotten, seen);
            }
        }
    }

    async fn check_tokens(&self) {
        let living = {
            let mut living = self.living.lock().unwrap();
            let now = self.provider.now();
            living.retain(|(_, ends)| *ends > now);
            living.clone()
        };
        let tokens: Vec<&str> = living.iter().map(|(token, _)| token.as_str()).collect();
        for place in self.places() {
            self.verify_at(&place, &tokens).await;
        }
    }

    async fn check_all(&self) {
        self.check_tokens().await;
        let (used, revoked) = {
            let revoked = self.revoked.lock().unwrap().clone();
            (self.used.lock().unwrap().clone(), revoked)
        };
        // The last twenty of each, and some twenty of all that went before.
        let some = |count: usize| -> BTreeSet<usize> {
            (0..count)
                .rev()
                .take(20)
                .chain((0..count).step_by(count / 20 + 1))
                .collect()
        };
        for index in some(used.len()) {
            self.must_not_be_honoured_again(&used[index]).await;
        }
        for index in some(revoked.len()) {
            if self.is_known(revoked[index].1) {
                self.must_be_revoked(&revoked[index].0).await;
            }
        }
    }
}
