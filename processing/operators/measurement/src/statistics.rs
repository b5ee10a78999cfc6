//! Count, average, extremes and last value of the readings of one window.

use wasm_graph_sdk::{Message, Timestamp};

/// When a reading was taken: seconds and nanoseconds since the Unix epoch.
type At = (u64, u32);

/// What has been seen so far.
#[derive(Debug)]
pub struct Statistics {
    pub count: u64,
    pub sum: f64,
    pub max: f64,
    pub min: f64,
    pub last: f64,
    last_at: At,
}

impl Statistics {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { count: 0, sum: 0.0, max: f64::MIN, min: f64::MAX, last: 0.0, last_at: (0, 0) }
    }

    /// As they were staged, when the last reading was taken at `at`.
    pub fn resume(count: u64, average: f64, max: f64, min: f64, last: f64, at: &Timestamp) -> Self {
        Self { count, sum: average * count as f64, max, min, last, last_at: instant(at) }
    }

    /// One reading more, taken at `at`. Of two taken at the same time, the later one to arrive is the last.
    pub fn add(&mut self, value: f64, at: &Timestamp) {
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        self.min = self.min.min(value);
        let at = instant(at);
        if at >= self.last_at {
            self.last = value;
            self.last_at = at;
        }
    }

    pub fn average(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Gives the result of the window the time of its last reading.
    pub fn stamp(&self, result: &mut Message) {
        (result.timestamp.timestamp.secs, result.timestamp.timestamp.nanos) = self.last_at;
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

fn instant(at: &Timestamp) -> At {
    (at.timestamp.secs, at.timestamp.nanos)
}
