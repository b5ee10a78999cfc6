//! What one operator may use.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

/// Limits of one operation's instance. Each has a default that suits a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes.
    pub memory_bytes_max: usize,
    /// Linear memory from which on it is begun anew between two calls, bytes: some languages never give back what an
    /// export returned. `None` is three quarters of the way from what it has after `init` to the limit.
    pub memory_soft_bytes: Option<usize>,
    /// Elements of its tables.
    pub table_elements_max: usize,
    /// Buffers (and other host resources) it holds at once.
    pub handles_max: usize,
    /// How long one call of `process` may take.
    pub call_max: Duration,
    /// How long `init` may take.
    pub init_max: Duration,
    /// How long a call may hold up the one who makes it before [`crate::host::Options::on_overrun`] is called.
    pub inline_budget: Duration,
    /// How long a crashed instance is gone before it is begun anew; doubles with each crash in a row.
    pub restart_wait_min: Duration,
    /// The least that is logged of what it says; `None` leaves that to whoever filters the log.
    pub log_level: Option<LevelFilter>,
    /// Log lines a second.
    pub log_lines_per_second_max: u32,
    /// Different metrics (name and labels) it may have.
    pub metrics_max: usize,
    /// Bytes of models and tensors that it holds through wasi-nn; and what one inference computes on its way.
    pub nn_bytes_max: usize,
}

impl Limits {
    /// The memory from which on an instance that had `begun_with` bytes after `init` is begun anew. Never so little that
    /// it would be at every call.
    pub(crate) fn recycle_bytes(&self, begun_with: usize) -> usize {
        const ROOM_BYTES_MIN: usize = 1 << 20;
        let room = self.memory_bytes_max.saturating_sub(begun_with);
        match self.memory_soft_bytes {
            Some(soft) => soft.max(begun_with.saturating_add(ROOM_BYTES_MIN)),
            None => begun_with + room / 4 * 3,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            memory_soft_bytes: None,
            table_elements_max: 100_000,
            handles_max: 10_000,
            call_max: Duration::from_secs(1),
            init_max: Duration::from_secs(10),
            inline_budget: Duration::from_millis(1),
            restart_wait_min: Duration::from_millis(10),
            log_level: None,
            log_lines_per_second_max: 100,
            metrics_max: 1_000,
            nn_bytes_max: 128 << 20,
        }
    }
}
