//! The key ring, only looked at: what signs, and what is ready to.

use super::report::{Row, span};
use crate::clock::Clock;
use crate::config::Settings;
use crate::explain::Code;
use crate::keys::RingPlace;
use crate::keys::file::RingFileError;
use crate::keys::jwk::algorithm_name;
use crate::keys::keeper::KeeperError;
use crate::keys::ring::{Ring, Schedule};
use crate::keys::sealed::SealError;
use crate::keys::shared::SharedError;
use crate::service::signing_algorithms;
use jsonwebtoken::Algorithm;

const CHECK: &str = "keys";

/// The ring, and what is to be said of it.
pub(super) async fn look(settings: &Settings) -> (Vec<Row>, Option<Ring>) {
    let place = RingPlace::for_command(settings);
    let shown = place.describe();
    let loaded = match place.load().await {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            let row = Row::warn(CHECK, format!("no key ring in {shown}")).next(
                "`exchequer serve` makes it; where one should be there, EXCHEQUER_KEYS_DIR is relative to this folder",
            );
            return (vec![row], None);
        }
        Err(error) => {
            let row = Row::fail(CHECK, error.to_string())
                .next(next_step(&error))
                .code(Code::SigningKeyUnavailable);
            return (vec![row], None);
        }
    };
    let mut rows = Vec::new();
    if loaded.fallen_back {
        let row = Row::warn(
            CHECK,
            format!(
                "{shown}: the newest ring is damaged or gone: the generation before it is used"
            ),
        );
        rows.push(row.next("a key made since then is lost: look at the disk, and restore the folder from its backup"));
    }
    if settings.keys.secret.is_none() {
        let row = Row::warn(CHECK, format!("{shown}: the ring is not encrypted at rest"));
        rows.push(row.next("EXCHEQUER_KEYS_SECRET: make one with `openssl rand -base64 32`"));
    }
    let schedule = Schedule::from(&settings.keys);
    let now = Clock::system().now();
    let algorithms = signing_algorithms(settings).into_iter();
    rows.extend(algorithms.map(|algorithm| of(&loaded.ring, algorithm, &schedule, now)));
    (rows, Some(loaded.ring))
}

/// What to do about a ring that cannot be read.
fn next_step(error: &KeeperError) -> &'static str {
    let sealed = match error {
        KeeperError::Shared(SharedError::Redis(_)) => {
            return "the ring is in Redis: mend what the row `redis` says";
        }
        KeeperError::Shared(SharedError::Unreadable(error))
        | KeeperError::File(RingFileError::Unreadable { error, .. }) => Some(error),
        _ => None,
    };
    match sealed {
        Some(SealError::SecretWrong | SealError::SecretMissing) => {
            "EXCHEQUER_KEYS_SECRET must be the secret that sealed the ring: take it from a replica that runs, or from its copy; where it is lost, start anew (keys/README.md)"
        }
        _ => {
            "EXCHEQUER_KEYS_DIR, EXCHEQUER_KEYS_SECRET, and docs/keys.md; run this as the service's user"
        }
    }
}

fn of(ring: &Ring, algorithm: Algorithm, schedule: &Schedule, now: i64) -> Row {
    let name = algorithm_name(algorithm);
    let Some(active) = ring.active(algorithm) else {
        return Row::warn(CHECK, format!("{name}: no key signs yet")).next(
            "another algorithm's does until one was published for EXCHEQUER_KEY_PUBLISH_AHEAD",
        );
    };
    let signs = format!("{name}: {} signs", active.kid);
    let Some(next) = ring.next(algorithm) else {
        return Row::warn(CHECK, format!("{signs}, and there is no standby")).next(
            "a rotation now would break verifiers that cache: the running service makes one; where it cannot, its log says why",
        );
    };
    let rotation = match ring.next_rotation(algorithm, schedule) {
        Some(at) if at <= now => "the next rotation is due now".to_owned(),
        Some(at) => format!("the next rotation is in {}", span(at - now)),
        None => "no rotation is planned".to_owned(),
    };
    let ready = next.published_at + schedule.publish_ahead;
    let standby = if ready <= now {
        "a standby is ready".to_owned()
    } else {
        format!("a standby is ready in {}", span(ready - now))
    };
    Row::ok(CHECK, format!("{signs}, {standby}, {rotation}"))
}
