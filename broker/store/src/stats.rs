//! Counters, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the classes of [`Stats::sync_classes`], microseconds; the last class has none.
pub const SYNC_CLASSES_US: [u64; 7] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

/// What a store holds and has done since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes they may take.
    pub bytes_max: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Bytes that live messages take in them.
    pub live_bytes: u64,
    /// Messages that some queue or topic holds.
    pub messages: usize,
    /// Entries in all queues.
    pub queued: usize,
    /// Sessions.
    pub sessions: usize,
    /// Memory that queues and index take, bytes.
    pub memory: usize,
    /// Records that wait for their commit.
    pub waiting: usize,
    /// Number of the last committed event.
    pub committed: u64,
    /// The last commit failed, and none has worked since.
    pub failing: bool,
    /// The device is full: nothing more is stored until there is room.
    pub short: bool,
    /// Batches written.
    pub commits: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Records committed.
    pub records: u64,
    /// Events committed.
    pub events: u64,
    /// Bytes of the log written, moves included.
    pub written: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Times that commits worked again after some had failed.
    pub recoveries: u64,
    /// Times that events were refused because the store was full.
    pub refused_full: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: u64,
    /// Segments given back.
    pub segments_deleted: u64,
    /// Bytes that compaction has written again.
    pub moved_bytes: u64,
    /// Time that syncs took, microseconds: of all, of the longest, of the last.
    pub sync_us_sum: u64,
    /// The longest.
    pub sync_us_max: u64,
    /// The last.
    pub sync_us_last: u64,
    /// Syncs by the time they took, see [`SYNC_CLASSES_US`].
    pub sync_classes: [u64; 8],
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub commits: AtomicU64,
    pub syncs: AtomicU64,
    pub records: AtomicU64,
    pub events: AtomicU64,
    pub written: AtomicU64,
    pub failures: AtomicU64,
    pub recoveries: AtomicU64,
    pub refused_full: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoint_failures: AtomicU64,
    pub segments_deleted: AtomicU64,
    pub moved_bytes: AtomicU64,
    sync_us_sum: AtomicU64,
    sync_us_max: AtomicU64,
    sync_us_last: AtomicU64,
    sync_classes: [AtomicU64; 8],
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Meters {
    pub(crate) fn synced(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.syncs, 1);
        add(&self.sync_us_sum, us);
        self.sync_us_max.fetch_max(us, Relaxed);
        self.sync_us_last.store(us, Relaxed);
        let class = SYNC_CLASSES_US.iter().position(|&end| us <= end).unwrap_or(SYNC_CLASSES_US.len());
        if let Some(counter) = self.sync_classes.get(class) {
            add(counter, 1);
        }
    }

    /// The counters as they stand.
    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            commits: get(&self.commits),
            syncs: get(&self.syncs),
            records: get(&self.records),
            events: get(&self.events),
            written: get(&self.written),
            failures: get(&self.failures),
            recoveries: get(&self.recoveries),
            refused_full: get(&self.refused_full),
            checkpoints: get(&self.checkpoints),
            checkpoint_failures: get(&self.checkpoint_failures),
            segments_deleted: get(&self.segments_deleted),
            moved_bytes: get(&self.moved_bytes),
            sync_us_sum: get(&self.sync_us_sum),
            sync_us_max: get(&self.sync_us_max),
            sync_us_last: get(&self.sync_us_last),
            sync_classes: std::array::from_fn(|class| self.sync_classes.get(class).map_or(0, get)),
            ..Stats::default()
        }
    }
}
