//! What the store may take, and how it paces itself.

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment of the log is full at this size.
    pub segment_bytes: u64,
    /// A checkpoint is written after this much log.
    pub checkpoint_bytes: u64,
    /// All files together stay below this. What makes the store larger is refused a little earlier, so that what
    /// makes it smaller can always be written.
    pub max_bytes: u64,
    /// What nobody waits for is written after this long when nothing else comes, milliseconds.
    pub lazy_ms: u64,
    /// While the disk fails, it is tried again this often, milliseconds.
    pub retry_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            checkpoint_bytes: 64 << 20,
            max_bytes: 1 << 30,
            lazy_ms: 50,
            retry_ms: 1_000,
        }
    }
}

/// A segment is never made smaller than this.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Places in a segment are kept in 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

impl Options {
    /// Segments are small against the whole, or space would come back late.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.max_bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// How much log between two checkpoints, given what the last one took: writing them costs no more than a part of
    /// writing the log.
    pub(crate) fn checkpoint_after(&self, last: u64) -> u64 {
        self.checkpoint_bytes.max(last.saturating_mul(2)).min(self.max_bytes / 8)
    }

    /// What is kept back for ends of sessions, done entries, compaction and the like.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.max_bytes / 8
    }

    /// Space on the device that is held against the day when it is full.
    pub(crate) fn ballast_bytes(&self) -> u64 {
        (self.max_bytes / 32).min(1 << 20)
    }
}
