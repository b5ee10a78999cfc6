//! What is told of a graph: its metrics, and what becomes of messages that it drops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};

/// Dropped messages that are told one by one, each second.
const WARNINGS_MAX: u32 = 10;

pub(super) struct Metrics {
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    pub(super) busy: Counter,
    pub(super) filtered: Counter,
    pub(super) errors: Counter,
    pub(super) expired: Counter,
    pub(super) dead_letters: Counter,
    pub(super) moves: Counter,
    pub(super) latency: Histogram,
}

impl Metrics {
    pub(super) fn new(name: &str) -> Self {
        let of = |metric: &'static str| counter!(metric, "dataflow_id" => name.to_owned());
        Self {
            received: Traffic::new([
                of("aio_dataflow_messages_received"),
                of("aio_dataflow_graph_messages_received"),
                of("aio_dataflow_bytes_received"),
            ]),
            sent: Traffic::new([
                of("aio_dataflow_messages_sent"),
                of("aio_dataflow_graph_messages_sent"),
                of("aio_dataflow_bytes_sent"),
            ]),
            busy: of("aio_dataflow_messages_dropped_when_busy"),
            filtered: of("aio_dataflow_messages_filtered"),
            errors: of("aio_dataflow_messages_dropped_processing_errors"),
            expired: of("aio_dataflow_messages_expired"),
            dead_letters: of("forebay_graph_dead_letters_total"),
            moves: of("forebay_graph_moved_off_total"),
            latency: histogram!("aio_dataflow_processing_latency", "dataflow_id" => name.to_owned()),
        }
    }
}

/// What goes in one direction: counted for each message here, and told when somebody asks.
pub(super) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// AIO counts messages for the data flow and for its graph (AIO.md §9.6), and then their bytes.
    told: [Counter; 3],
}

impl Traffic {
    fn new(told: [Counter; 3]) -> Self {
        Self { messages: AtomicU64::new(0), bytes: AtomicU64::new(0), told }
    }

    /// One more message.
    pub(super) fn count(&self, payload_bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(payload_bytes as u64, Ordering::Relaxed);
    }

    /// Tells how many there were since the last time, so that a graph goes on counting where one of its name was before.
    pub(super) fn show(&self) {
        let messages = self.messages.swap(0, Ordering::Relaxed);
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        for (counter, by) in self.told.iter().zip([messages, messages, bytes]) {
            counter.increment(by);
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.show();
    }
}

/// Keeps the log readable when every message is dropped.
#[derive(Default)]
pub(super) struct Warnings {
    pub(super) second: Option<Instant>,
    pub(super) told: u32,
    pub(super) kept_back: u64,
}

impl Warnings {
    /// Whether one more may be told in this second; tells first how many were not.
    pub(super) fn one_more(&mut self, graph: &str) -> bool {
        if self.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            let kept_back = std::mem::take(&mut self.kept_back);
            if kept_back > 0 {
                tracing::warn!(graph, "{kept_back} more messages were dropped; the metrics say why");
            }
            (self.second, self.told) = (Some(Instant::now()), 0);
        }
        self.told += 1;
        self.kept_back += u64::from(self.told > WARNINGS_MAX);
        self.told <= WARNINGS_MAX
    }
}
