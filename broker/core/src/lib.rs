//! MQTT without I/O: bytes, `now` and limits in; packets, routes and actions out.
//!
//! Nothing here opens a socket or a file, reads a clock, spawns a task or knows that graphs exist.

pub mod alias;
pub mod durable;
pub mod hlc;
pub mod inflight;
pub mod memory;
pub mod message;
pub mod outbox;
pub mod packet;
pub mod rare;
pub mod reorder;
pub mod retained;
pub mod router;
pub mod session;
pub mod small_map;
pub mod topic;

/// A moment in milliseconds, on whatever clock the caller keeps: monotonic for sessions and expiries, the
/// Unix epoch for timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that is in the future.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
