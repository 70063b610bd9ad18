//! One address for many replicas: connections go round, to those whose readiness probe is good.
//!
//! It forwards bytes, as a cluster's service does. Where a replica refuses a connection, the
//! next one gets it; nothing that was sent is sent again.

use super::replicas::Places;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// How often each replica is probed.
const PROBE: Duration = Duration::from_millis(100);

/// The balancer. It ends with the value; connections that it has stay.
pub struct Balancer {
    pub url: String,
    tasks: [AbortHandle; 2],
}

impl Balancer {
    pub async fn before(places: &Places) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            tasks: [
                tokio::spawn(accept(listener, Arc::clone(places))).abort_handle(),
                tokio::spawn(probe(Arc::clone(places))).abort_handle(),
            ],
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn accept(listener: TcpListener, places: Places) {
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(forward(client, Arc::clone(&places), Arc::clone(&turn)));
    }
}

async fn forward(mut client: TcpStream, places: Places, turn: Arc<AtomicUsize>) {
    let _ = client.set_nodelay(true);
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let known: Vec<_> = places.read().unwrap().clone();
    let round = (0..known.len()).map(|step| &known[(first + step) % known.len()]);
    let (ready, rest): (Vec<_>, Vec<_>) = round.partition(|place| place.is_ready());
    for place in ready.into_iter().chain(rest) {
        let address = place.url.trim_start_matches("http://");
        if let Ok(mut replica) = TcpStream::connect(address).await {
            let _ = replica.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
            return;
        }
    }
}

async fn probe(places: Places) {
    let client = super::support::service::client();
    loop {
        let known: Vec<_> = places.read().unwrap().clone();
        for place in known {
            let asked = client.get(format!("{}/readyz", place.admin)).send();
            let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
            let ready = matches!(answer, Ok(Ok(answer)) if answer.status() == 200);
            place.set_ready(ready);
        }
        tokio::time::sleep(PROBE).await;
    }
}
