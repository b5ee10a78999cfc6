//! The operating system's clocks: the only place that reads them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker_core::Millis;

const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// Milliseconds since the process began; never goes back. Sessions, expiries and keep-alives count with it.
pub fn monotonic() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    // Begins at ten years, so that "so long ago" never underflows, not even what was written down by a process before.
    Millis(TEN_YEARS_MS + u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch, for timestamps.
pub fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
