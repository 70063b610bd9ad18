//! How long a scenario runs and waits, and what chooses its moments.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// So many rounds in `make test`, and so many in a run of `FAULT_ROUNDS=200`.
pub fn rounds(short: u64, long: u64) -> u64 {
    number("FAULT_ROUNDS").map_or(short, |rounds| (long * rounds).div_ceil(200))
}

/// Waits for what takes its time on a busy machine, a minute at most.
pub async fn at_last(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// What chance decides in a scenario; the same again with the same seed.
pub struct Chance {
    pub seed: u64,
    random: StdRng,
}

impl Chance {
    /// `FAULT_SEED`, or a new one.
    pub fn new() -> Self {
        let seed = number("FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// One of so many.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    /// Waits for so long at most.
    pub async fn wait(&mut self, most: Duration) {
        let micros = self.random.random_range(0..=most.as_micros());
        tokio::time::sleep(Duration::from_micros(u64::try_from(micros).unwrap())).await;
    }
}
