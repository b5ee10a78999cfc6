//! The operating system's clocks: the only place that reads them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker_core::Millis;

const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// Milliseconds since the process began; never goes back. Sessions, expiries and keep-alives count with it.
pub fn monotonic() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    #[cfg(test)]
    if let Some(now) = by_hand::monotonic() {
        return now;
    }
    let start = START.get_or_init(Instant::now);
    // Begins at ten years, so that "so long ago" never underflows, not even what was written down by a process before.
    Millis(TEN_YEARS_MS + u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch, for timestamps.
pub fn wall() -> Millis {
    #[cfg(test)]
    if let Some(now) = by_hand::wall() {
        return now;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Clocks that a test moves by hand, for all that happens on its thread.
#[cfg(test)]
pub mod by_hand {
    use std::cell::Cell;

    use broker_core::Millis;

    thread_local! {
        static NOW: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }

    /// From now on it is so many milliseconds since the process began, and since the Unix epoch.
    pub fn set(monotonic: u64, wall: u64) {
        NOW.set(Some((monotonic, wall)));
    }

    pub(super) fn monotonic() -> Option<Millis> {
        NOW.get().map(|(monotonic, _)| Millis(super::TEN_YEARS_MS + monotonic))
    }

    pub(super) fn wall() -> Option<Millis> {
        NOW.get().map(|(_, wall)| Millis(wall))
    }
}
