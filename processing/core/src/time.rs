//! Hybrid logical time (AIO.md §1.2, §4.2; `DESIGN.md` §4.7).

use std::sync::Arc;

/// One moment of a hybrid logical clock. Orders by time, then counter, then node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc {
    /// Whole seconds since the Unix epoch.
    pub secs: u64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
    /// Orders events of the same instant.
    pub counter: u64,
    /// Who made the timestamp.
    pub node: Arc<str>,
}

impl Hlc {
    /// The instant `ms` milliseconds after the Unix epoch, with counter 0.
    pub fn from_millis(ms: u64, node: Arc<str>) -> Self {
        let Time { secs, nanos, counter } = Time::from_millis(ms);
        Self { secs, nanos, counter, node }
    }

    /// The timestamp without its node: what groups and orders items inside a graph.
    pub fn time(&self) -> Time {
        Time { secs: self.secs, nanos: self.nanos, counter: self.counter }
    }
}

/// Logical time inside one graph: an instant and a counter. A graph has one node id for all its logical time, so
/// that equal windows of different publishers are one (AIO.md §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds since the Unix epoch.
    pub secs: u64,
    /// Nanoseconds within the second.
    pub nanos: u32,
    /// Orders events of the same instant.
    pub counter: u64,
}

impl Time {
    /// The instant `ms` milliseconds after the Unix epoch, with counter 0.
    pub fn from_millis(ms: u64) -> Self {
        // The remainder is below 1000, so the product is below a second's nanoseconds.
        let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
        Self { secs: ms / 1000, nanos, counter: 0 }
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub fn to_millis_floor(self) -> u64 {
        self.secs.saturating_mul(1000).saturating_add(u64::from(self.nanos / 1_000_000))
    }

    /// This time with a node.
    pub fn at(self, node: Arc<str>) -> Hlc {
        Hlc { secs: self.secs, nanos: self.nanos, counter: self.counter, node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_order_by_time_then_counter_then_node() {
        let at = |secs, nanos, counter, node: &str| Hlc { secs, nanos, counter, node: node.into() };
        let sorted = [
            at(1, 999_999_999, 9, "z"),
            at(2, 0, 0, "z"),
            at(2, 0, 1, "a"),
            at(2, 0, 1, "b"),
            at(2, 1, 0, "a"),
        ];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn milliseconds_survive_the_way_there_and_back() {
        for ms in [0, 1, 999, 1000, 1_696_374_425_123] {
            assert_eq!(Time::from_millis(ms).to_millis_floor(), ms);
        }
        assert_eq!(Time { secs: 1, nanos: 1_999_999, counter: 0 }.to_millis_floor(), 1001);
    }
}
