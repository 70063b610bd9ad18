//! The time, from one place: the wall clock for claims, the monotonic clock for caches.

use std::time::{Duration, Instant, SystemTime};

/// Seconds since the Unix epoch, as in a JWT's `NumericDate` (RFC 7519 §2).
pub type UnixSeconds = i64;

/// The service's only source of time.
///
/// Built with the feature `settable-clock`, it adds what the file named by
/// `EXCHEQUER_CLOCK_SHIFT_FILE` says: whole numbers of seconds, the shift of the
/// wall clock, that of the monotonic one and that of a shared server's. A release has no such feature.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    #[cfg(feature = "settable-clock")]
    shift: Option<std::sync::Arc<std::path::PathBuf>>,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self {
            started: Instant::now(),
            #[cfg(feature = "settable-clock")]
            shift: std::env::var_os("EXCHEQUER_CLOCK_SHIFT_FILE")
                .map(|path| std::sync::Arc::new(path.into())),
        }
    }

    /// Seconds since the Unix epoch.
    pub fn now(&self) -> UnixSeconds {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX) + self.shifts().0
    }

    /// Time since the process started; never steps back.
    pub fn monotonic(&self) -> Duration {
        self.started.elapsed()
            + Duration::from_secs(u64::try_from(self.shifts().1).unwrap_or_default())
    }

    /// What to add to the time that a shared server says; nothing, but in tests.
    pub fn shift_of_server(&self) -> UnixSeconds {
        self.shifts().2
    }

    #[cfg(feature = "settable-clock")]
    fn shifts(&self) -> (i64, i64, i64) {
        let text = self
            .shift
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path.as_ref()).ok())
            .unwrap_or_default();
        let mut numbers = text
            .split_whitespace()
            .map(|word| word.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        (next(), next(), next())
    }

    #[cfg(not(feature = "settable-clock"))]
    #[inline]
    fn shifts(&self) -> (i64, i64, i64) {
        (0, 0, 0)
    }
}
