//! An open load: requests come at a rate that does not ask whether the ones before were answered.
//!
//! `wrk` waits for each answer before it asks again, so it can never bring more than is answered.
//! Here each connection has its times to ask, and how long an answer took is counted from there:
//! where the answer before is late, the wait for it counts too.
//!
//! It runs only when told to (see `benches/run.py`), so that `cargo bench` and
//! `cargo test --benches`, which run every bench target, return at once.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

type AnyError = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: overload ask ADDR REQUEST_PATH RATE SECONDS CONNECTIONS";
/// Whatever takes longer has hung.
const HUNG: Duration = Duration::from_secs(10);
/// In which the connections begin, one after the other; what is asked meanwhile does not count.
const RAMP: Duration = Duration::from_secs(2);

/// What came of the requests of one connection: how long each took, in microseconds.
#[derive(Default)]
struct Told {
    well: Vec<u64>,
    shed: Vec<u64>,
    other: u64,
    broken: u64,
}

/// Reads one answer; gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u16, AnyError> {
    let mut filled = 0;
    loop {
        let read = stream
            .read(buffer.get_mut(filled..).unwrap_or_default())
            .await?;
        if read == 0 {
            return Err("closed".into());
        }
        filled += read;
        let text = buffer.get(..filled).unwrap_or_default();
        let Some(head) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head_text = std::str::from_utf8(text.get(..head).unwrap_or_default())?;
        let length: usize = head_text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("no length")?
            .parse()?;
        if filled >= head + 4 + length {
            return Ok(head_text.get(9..12).unwrap_or_default().parse()?);
        }
    }
}

/// Connects and asks at `first`, then asks every `every`, until `end`.
async fn connection(
    address: String,
    request: &[u8],
    first: Instant,
    every: Duration,
    [from, end]: [Instant; 2],
) -> Told {
    let mut told = Told::default();
    let mut buffer = [0; 8192];
    let mut due = first;
    // Not before: whoever connects and does not ask for long is cut off.
    sleep_until(first).await;
    let Ok(mut stream) = TcpStream::connect(&address).await else {
        told.broken += 1;
        return told;
    };
    let _ = stream.set_nodelay(true);
    while due < end {
        sleep_until(due).await;
        let asked = async {
            stream.write_all(request).await?;
            answer(&mut stream, &mut buffer).await
        };
        let status = timeout(HUNG, asked).await;
        let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        match status {
            Ok(Ok(200 | 503)) if due < from => {}
            Ok(Ok(200)) => told.well.push(took),
            Ok(Ok(503)) => told.shed.push(took),
            Ok(Ok(_)) => told.other += 1,
            _ => {
                told.broken += 1;
                return told;
            }
        }
        due += every;
    }
    told
}

/// The value below which so many of a thousand are, in milliseconds.
fn quantile(sorted: &[u64], thousandth: usize) -> f64 {
    let at = (sorted.len() * thousandth / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |micros| *micros as f64 / 1000.0)
}

async fn ask(arguments: &[String]) -> Result<(), AnyError> {
    let [address, path, rate, seconds, connections] = arguments else {
        return Err(USAGE.into());
    };
    let request: &'static [u8] = std::fs::read(path)?.leak();
    let (rate, connections): (f64, u32) = (rate.parse()?, connections.parse()?);
    let every = Duration::from_secs_f64(f64::from(connections) / rate);
    let begin = Instant::now() + Duration::from_millis(100);
    let from = begin + RAMP.max(every);
    let end = from + Duration::from_secs(seconds.parse()?);
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let first = begin + (from - begin) * number / connections;
        let times = [from, end];
        tasks.spawn(connection(address.clone(), request, first, every, times));
    }
    let mut all = Told::default();
    while let Some(told) = tasks.join_next().await {
        let told = told?;
        all.well.extend(told.well);
        all.shed.extend(told.shed);
        all.other += told.other;
        all.broken += told.broken;
    }
    all.well.sort_unstable();
    all.shed.sort_unstable();
    let took = from.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        r#"{{"seconds":{took:.3},"well":{},"shed":{},"other":{},"broken":{},"well_p50":{},"well_p99":{},"shed_p50":{},"shed_p99":{}}}"#,
        all.well.len(),
        all.shed.len(),
        all.other,
        all.broken,
        quantile(&all.well, 500),
        quantile(&all.well, 990),
        quantile(&all.shed, 500),
        quantile(&all.shed, 990),
    )?;
    Ok(())
}

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("ask") => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(ask(arguments.get(2..).unwrap_or_default())),
        _ => Ok(()),
    }
}
