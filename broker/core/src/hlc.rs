//! The hybrid logical clock behind `__ts` (AIO.md §4.2): milliseconds, a counter, a node.
//!
//! Wire form `ms:counter:node`, written zero-padded to 15 and 5 digits, read in any width.

use std::fmt;
use std::sync::Arc;

use crate::Millis;

/// How far ahead of our own clock a timestamp may be before it is refused (AIO.md §4.2).
pub const DRIFT_MAX_MS: u64 = 60_000;

/// One moment of the hybrid logical clock. Orders by time, then counter, then node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
    /// Orders events of one millisecond.
    pub counter: u64,
    /// Who made the timestamp; no `:` in it.
    pub node: Arc<str>,
}

/// Why a timestamp was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not three parts separated by `:`.
    #[error("a timestamp has three parts, <ms>:<counter>:<node>")]
    Shape,
    /// The first or the second part is no decimal number, or is out of range.
    #[error("the time or the counter is not a decimal number that fits 64 bits")]
    Number,
    /// More than [`DRIFT_MAX_MS`] ahead of this clock.
    #[error("the timestamp is more than 60 s ahead of this clock")]
    Drift,
    /// The counter would pass 2^64.
    #[error("the counter overflows")]
    Overflow,
}

impl Timestamp {
    /// Reads `ms:counter:node`, in any width.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let mut parts = text.split(':');
        let (Some(ms), Some(counter), Some(node), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TimestampError::Shape);
        };
        Ok(Self { ms: number(ms)?, counter: number(counter)?, node: node.into() })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut ms, mut counter) = ([0; DIGITS_MAX], [0; DIGITS_MAX]);
        f.write_str(padded(self.ms, 15, &mut ms))?;
        f.write_str(":")?;
        f.write_str(padded(self.counter, 5, &mut counter))?;
        f.write_str(":")?;
        f.write_str(&self.node)
    }
}

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// A number with leading zeros, by hand: each message that a graph publishes has two.
fn padded(mut number: u64, width: usize, digits: &mut [u8; DIGITS_MAX]) -> &str {
    let mut from = DIGITS_MAX;
    while from > 0 && (number > 0 || DIGITS_MAX - from < width) {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    std::str::from_utf8(&digits[from..]).unwrap_or_default()
}

fn number(text: &str) -> Result<u64, TimestampError> {
    // `u64::from_str` takes a leading `+`, which the wire form does not.
    if text.starts_with('+') {
        return Err(TimestampError::Number);
    }
    text.parse().map_err(|_| TimestampError::Number)
}

/// The broker's own clock: never goes back, and follows what it has seen.
#[derive(Debug)]
pub struct Clock {
    last: Timestamp,
}

impl Clock {
    /// A clock that signs with `node`.
    pub fn new(node: &str) -> Self {
        Self { last: Timestamp { ms: 0, counter: 0, node: node.replace(':', "-").into() } }
    }

    /// A new timestamp, later than every one before it.
    pub fn now(&mut self, wall: Millis) -> Timestamp {
        if wall.0 > self.last.ms {
            self.last.ms = wall.0;
            self.last.counter = 0;
        } else if let Some(next) = self.last.counter.checked_add(1) {
            self.last.counter = next;
        } else {
            self.last.ms += 1;
            self.last.counter = 0;
        }
        self.last.clone()
    }

    /// The last moment that was given out or observed, milliseconds.
    pub fn last_ms(&self) -> u64 {
        self.last.ms
    }

    /// From now on every timestamp is later than this moment: one that was given out in an earlier life.
    pub fn raise(&mut self, ms: u64) {
        if ms >= self.last.ms {
            (self.last.ms, self.last.counter) = (ms.saturating_add(1), 0);
        }
    }

    /// Takes note of a timestamp made elsewhere, so that what we stamp from now on is later.
    pub fn observe(&mut self, seen: &Timestamp, wall: Millis) -> Result<(), TimestampError> {
        if seen.node == self.last.node {
            return Ok(());
        }
        if seen.ms > wall.0.saturating_add(DRIFT_MAX_MS) {
            return Err(TimestampError::Drift);
        }
        if wall.0 > seen.ms && wall.0 > self.last.ms {
            self.last.ms = wall.0;
            self.last.counter = 0;
            return Ok(());
        }
        let counter = match seen.ms.cmp(&self.last.ms) {
            std::cmp::Ordering::Equal => seen.counter.max(self.last.counter),
            std::cmp::Ordering::Greater => seen.counter,
            std::cmp::Ordering::Less => self.last.counter,
        };
        self.last.counter = counter.checked_add(1).ok_or(TimestampError::Overflow)?;
        self.last.ms = self.last.ms.max(seen.ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn any_width_is_read_and_padding_is_written() {
        let ts = at("1696374425000:1:StateStore");
        assert_eq!((ts.ms, ts.counter, &*ts.node), (1_696_374_425_000, 1, "StateStore"));
        assert_eq!(ts.to_string(), "001696374425000:00001:StateStore");
        assert_eq!(at(&ts.to_string()), ts);
        let largest = format!("{0}:{0}:", u64::MAX);
        assert_eq!(at(&largest).to_string(), largest);
        assert_eq!(at("0:99999:n").to_string(), "000000000000000:99999:n");
    }

    #[test]
    fn what_is_no_timestamp_says_why() {
        for text in ["", "1", "1:2", "1:2:a:b"] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Shape), "{text}");
        }
        for text in ["x:0:a", "1::a", "-1:0:a", "+1:0:a", "18446744073709551616:0:a"] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Number), "{text}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_still_counts_on() {
        let mut clock = Clock::new("forebay");
        let first = clock.now(Millis(1000));
        let second = clock.now(Millis(400));
        assert!(second > first);
        assert_eq!(second.counter, 1);
    }

    #[test]
    fn a_clock_that_is_raised_goes_on_from_there_whatever_the_wall_says() {
        let mut clock = Clock::new("forebay");
        clock.raise(5_000);
        assert_eq!(clock.now(Millis(10)), at("5001:1:forebay"));
        clock.raise(400);
        assert_eq!((clock.now(Millis(10)), clock.last_ms()), (at("5001:2:forebay"), 5001));
        assert_eq!(clock.now(Millis(6_000)), at("6000:0:forebay"));
    }

    #[test]
    fn a_minute_ahead_is_followed_and_more_is_refused() {
        let mut clock = Clock::new("forebay");
        clock.observe(&at("61000:7:df"), Millis(1000)).unwrap();
        assert_eq!(clock.now(Millis(1000)).to_string(), "000000000061000:00009:forebay");
        assert_eq!(clock.observe(&at("61001:0:df"), Millis(1000)), Err(TimestampError::Drift));
        assert_eq!(
            clock.observe(&Timestamp { ms: 61_000, counter: u64::MAX, node: "df".into() }, Millis(1000)),
            Err(TimestampError::Overflow)
        );
    }
}
