//! Order by `__ts`: a subscription is fed in the order in which its messages were stamped, within a bounded lateness
//! (DESIGN: "order by `__ts` at the broker").
//!
//! A message is held until everybody had `max_lateness_ms` to bring an earlier one: from its arrival on, or, when its
//! stamp is ahead of our clock, from the moment of its stamp on. When it leaves, everything stamped before it
//! leaves first. So what leaves never goes back in time, whatever the clocks of the publishers say; a message is late
//! only when one with a later stamp has left already. A publisher whose clock is ahead delays its own messages and
//! makes nobody else's late.

use std::collections::{BTreeMap, BTreeSet};

use crate::Millis;
use crate::hlc::{DRIFT_MAX_MS, Timestamp, TimestampError};

/// How long a subscription waits when it does not say so, milliseconds.
pub const LATENESS_MS_DEFAULT: u32 = 1_000;
/// The longest that a subscription may wait, milliseconds.
pub const LATENESS_MS_MAX: u32 = 600_000;

/// How a subscription wants to be fed in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// How long a message waits for those stamped before it.
    pub max_lateness_ms: u32,
    /// What happens to one that comes later still.
    pub late: Late,
}

/// What happens to a message that comes after one with a later stamp has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Late {
    /// It is delivered at once, marked as late.
    #[default]
    Deliver,
    /// It is dropped and counted.
    Drop,
}

/// What one subscription may hold back.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages; beyond, the earliest leaves before its time.
    pub messages_max: usize,
    /// Bytes of these messages.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 << 20 }
    }
}

/// A stamp, and the order of arrival among equal ones.
type Key = (Timestamp, u64);

/// Messages that wait for their turn.
#[derive(Debug)]
pub struct Reorder<T> {
    lateness_ms: u64,
    limits: Limits,
    waiting: BTreeMap<Key, Held<T>>,
    /// When each of them leaves, at the latest.
    due: BTreeSet<(Millis, Key)>,
    /// Everything up to here may leave.
    open: Option<Key>,
    /// The latest that has left.
    passed: Option<Timestamp>,
    arrivals: u64,
    bytes: usize,
    /// Messages that left before their time since too much waited.
    pub forced: u64,
}

#[derive(Debug)]
struct Held<T> {
    item: T,
    size: usize,
    due: Millis,
}

impl<T> Reorder<T> {
    /// Holds nothing yet.
    pub fn new(max_lateness_ms: u32, limits: Limits) -> Self {
        Self {
            lateness_ms: u64::from(max_lateness_ms),
            limits,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            open: None,
            passed: None,
            arrivals: 0,
            bytes: 0,
            forced: 0,
        }
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a message of `size` bytes. `now` is monotonic, `wall` what stamps are compared with. What may leave
    /// afterwards is asked for with [`release`](Self::release).
    ///
    /// # Errors
    /// Gives the message back when it is late: one with a later stamp has left.
    pub fn push(
        &mut self,
        stamp: Timestamp,
        item: T,
        size: usize,
        now: Millis,
        wall: Millis,
    ) -> Result<(), T> {
        if self.passed.as_ref().is_some_and(|passed| stamp < *passed) {
            return Err(item);
        }
        let ahead_ms = stamp.ms.saturating_sub(wall.0).min(DRIFT_MAX_MS);
        let due = now.plus(self.lateness_ms + ahead_ms);
        let key = (stamp, self.arrivals);
        self.arrivals += 1;
        self.bytes += size;
        self.due.insert((due, key.clone()));
        self.waiting.insert(key, Held { item, size, due });
        Ok(())
    }

    /// The next message that may leave at `now`, in order; ask until there is none.
    pub fn release(&mut self, now: Millis) -> Option<T> {
        while let Some((due, _)) = self.due.first()
            && *due <= now
        {
            let (_, key) = self.due.pop_first()?;
            self.open = self.open.take().max(Some(key));
        }
        let (first, _) = self.waiting.first_key_value()?;
        if self.open.as_ref().is_some_and(|open| first <= open) {
            return self.pop();
        }
        if self.waiting.len() > self.limits.messages_max || self.bytes > self.limits.bytes_max {
            self.forced += 1;
            return self.pop();
        }
        None
    }

    /// The earliest message, whether its time has come or not.
    pub fn pop(&mut self) -> Option<T> {
        let (key, Held { item, size, due }) = self.waiting.pop_first()?;
        self.bytes -= size;
        let entry = (due, key);
        self.due.remove(&entry);
        self.passed = Some(entry.1.0);
        Some(item)
    }

    /// When [`release`](Self::release) has something next, by the monotonic clock.
    pub fn due(&self) -> Option<Millis> {
        self.due.first().map(|(due, _)| *due)
    }
}

/// The stamp that a message is ordered by: that of its `__ts`, or else its arrival. With the reason why a `__ts` that is
/// there is not used.
pub fn stamp(text: Option<&str>, wall: Millis) -> (Timestamp, Option<TimestampError>) {
    let arrival = || Timestamp { ms: wall.0, counter: 0, node: "".into() };
    let Some(text) = text else { return (arrival(), None) };
    match Timestamp::parse(text) {
        Ok(stamp) if stamp.ms > wall.0.saturating_add(DRIFT_MAX_MS) => {
            (arrival(), Some(TimestampError::Drift))
        }
        Ok(stamp) => (stamp, None),
        Err(error) => (arrival(), Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp { ms, counter: 0, node: "n".into() }
    }

    fn all(reorder: &mut Reorder<&'static str>, now: u64) -> Vec<&'static str> {
        std::iter::from_fn(|| reorder.release(Millis(now))).collect()
    }

    fn small() -> Reorder<&'static str> {
        Reorder::new(100, Limits { messages_max: 3, bytes_max: 100 })
    }

    #[test]
    fn who_comes_within_the_lateness_takes_its_place() {
        let mut reorder = small();
        let wall = Millis(10_000);
        reorder.push(at(9_002), "second", 1, Millis(0), wall).unwrap();
        reorder.push(at(9_001), "first", 1, Millis(99), wall).unwrap();
        reorder.push(at(9_003), "third", 1, Millis(99), wall).unwrap();
        assert_eq!(all(&mut reorder, 99), [""; 0]);
        assert_eq!(reorder.due(), Some(Millis(100)));
        assert_eq!(all(&mut reorder, 100), ["first", "second"]);
        assert_eq!(reorder.push(at(9_001), "late", 1, Millis(101), wall), Err("late"));
        assert_eq!(all(&mut reorder, 199), ["third"]);
        assert_eq!((reorder.len(), reorder.due(), reorder.bytes), (0, None, 0));
    }

    #[test]
    fn equal_times_go_by_counter_then_node_then_arrival() {
        let mut reorder = Reorder::new(100, Limits::default());
        let stamps = ["5:1:a", "5:0:b", "5:0:a", "5:0:b"];
        for (text, name) in stamps.into_iter().zip(["fourth", "second", "first", "third"]) {
            reorder.push(Timestamp::parse(text).unwrap(), name, 1, Millis(0), Millis(0)).unwrap();
        }
        assert_eq!(all(&mut reorder, 200), ["first", "second", "third", "fourth"]);
        // What is equal to the last that left is not late.
        assert_eq!(
            reorder.push(Timestamp::parse("5:1:a").unwrap(), "again", 1, Millis(200), Millis(0)),
            Ok(())
        );
    }

    #[test]
    fn a_clock_that_is_ahead_delays_its_own_messages_only() {
        let mut reorder = small();
        reorder.push(at(11_000), "ahead", 1, Millis(0), Millis(10_000)).unwrap();
        reorder.push(at(10_200), "right", 1, Millis(200), Millis(10_200)).unwrap();
        assert_eq!(all(&mut reorder, 299), [""; 0]);
        assert_eq!(all(&mut reorder, 300), ["right"]);
        reorder.push(at(10_900), "right again", 1, Millis(900), Millis(10_900)).unwrap();
        assert_eq!(all(&mut reorder, 1_100), ["right again", "ahead"]);
    }

    #[test]
    fn when_too_much_waits_the_earliest_leaves_before_its_time() {
        let mut reorder = small();
        for (ms, name) in [(4, "4"), (2, "2"), (3, "3"), (1, "1")] {
            reorder.push(at(ms), name, 1, Millis(0), Millis(0)).unwrap();
        }
        assert_eq!(all(&mut reorder, 0), ["1"]);
        reorder.push(at(5), "5", 99, Millis(0), Millis(0)).unwrap();
        assert_eq!(all(&mut reorder, 0), ["2", "3"]);
        assert_eq!(reorder.forced, 3);
    }

    #[test]
    fn a_stamp_that_cannot_be_used_is_the_time_of_arrival() {
        let wall = Millis(1_000);
        assert_eq!(stamp(Some("900:7:n"), wall), (Timestamp { ms: 900, counter: 7, node: "n".into() }, None));
        let arrival = Timestamp { ms: 1_000, counter: 0, node: "".into() };
        assert_eq!(stamp(None, wall), (arrival.clone(), None));
        assert_eq!(stamp(Some("x"), wall), (arrival.clone(), Some(TimestampError::Shape)));
        assert_eq!(stamp(Some("61001:0:n"), wall), (arrival, Some(TimestampError::Drift)));
        assert_eq!(stamp(Some("61000:0:n"), wall).1, None);
    }

    /// Any arrivals: everything leaves once, in order, in time; and nothing is late that came within the lateness.
    #[test]
    fn whatever_comes_leaves_once_in_order_and_in_time() {
        let mut state = 42u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..200 {
            let lateness = random(50);
            let jitter = if round % 2 == 0 { lateness.max(1) } else { 200 };
            let mut reorder = Reorder::new(lateness as u32, Limits::default());
            let (mut now, mut late, mut left) = (1_000u64, 0, Vec::new());
            for number in 0..300u64 {
                now += random(5);
                let stamp = at(now - random(jitter) + random(3));
                let due = now.max(stamp.ms) + lateness;
                late += u64::from(
                    reorder.push(stamp.clone(), (stamp, number, due), 1, Millis(now), Millis(now)).is_err(),
                );
                while let Some((stamp, number, due)) = reorder.release(Millis(now)) {
                    assert!(now <= due + 4, "{number} is due at {due} and leaves at {now}");
                    left.push((stamp, number));
                }
            }
            while let Some((stamp, number, _)) = reorder.release(Millis(u64::MAX)) {
                left.push((stamp, number));
            }
            assert_eq!(left.len() as u64 + late, 300);
            assert!(left.is_sorted(), "round {round}");
            if round % 2 == 0 {
                assert_eq!(late, 0, "round {round}: nobody came later than allowed");
            }
        }
    }
}
