//! What the writer's pauses are counted by. Nothing that is written depends on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The machine's clock, or one that is moved by hand.
#[derive(Debug)]
pub(crate) struct Clock {
    by_hand: Option<(Instant, AtomicU64)>,
}

impl Clock {
    pub(crate) fn of_the_machine() -> Self {
        Self { by_hand: None }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn by_hand() -> Self {
        Self { by_hand: Some((Instant::now(), AtomicU64::new(0))) }
    }

    pub(crate) fn now(&self) -> Instant {
        match &self.by_hand {
            Some((start, ms)) => *start + Duration::from_millis(ms.load(Ordering::Acquire)),
            None => Instant::now(),
        }
    }

    /// Moves the clock, if it is one that is moved by hand.
    #[cfg(feature = "sim")]
    pub(crate) fn advance(&self, by_ms: u64) {
        if let Some((_, ms)) = &self.by_hand {
            ms.fetch_add(by_ms, Ordering::AcqRel);
        }
    }
}
