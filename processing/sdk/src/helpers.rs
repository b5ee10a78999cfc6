//! Conversions that make the generated types pleasant.

use std::time::Duration;

use crate::prelude::{BufferOrBytes, BufferOrString, HybridLogicalClock, Timespec, Timestamp};

impl BufferOrBytes {
    /// The bytes; a buffer's are copied from the host.
    pub fn read(&self) -> Vec<u8> {
        match self {
            Self::Buffer(buffer) => buffer.read(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

impl BufferOrString {
    /// The text's bytes; a buffer's are copied from the host.
    pub fn read(&self) -> Vec<u8> {
        match self {
            Self::Buffer(buffer) => buffer.read(),
            Self::String(text) => text.clone().into_bytes(),
        }
    }
}

impl From<BufferOrBytes> for Vec<u8> {
    fn from(bytes: BufferOrBytes) -> Self {
        match bytes {
            BufferOrBytes::Buffer(buffer) => buffer.read(),
            BufferOrBytes::Bytes(bytes) => bytes,
        }
    }
}

impl From<BufferOrString> for String {
    /// # Panics
    /// A buffer whose bytes are not UTF-8.
    fn from(text: BufferOrString) -> Self {
        match text {
            BufferOrString::Buffer(buffer) => Self::from_utf8(buffer.read()).unwrap(),
            BufferOrString::String(text) => text,
        }
    }
}

impl From<Vec<u8>> for BufferOrBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<String> for BufferOrString {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<Timestamp> for HybridLogicalClock {
    fn from(Timestamp { timestamp, counter, node_id }: Timestamp) -> Self {
        Self { timestamp, counter, node_id: node_id.into() }
    }
}

impl From<HybridLogicalClock> for Timestamp {
    fn from(HybridLogicalClock { timestamp, counter, node_id }: HybridLogicalClock) -> Self {
        Self { timestamp, counter, node_id: node_id.into() }
    }
}

impl From<Timespec> for Duration {
    fn from(Timespec { secs, nanos }: Timespec) -> Self {
        Self::new(secs, nanos)
    }
}

impl From<Duration> for Timespec {
    fn from(duration: Duration) -> Self {
        Self { secs: duration.as_secs(), nanos: duration.subsec_nanos() }
    }
}

/// What needs no host: a buffer is the host's, and is not here.
#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> HybridLogicalClock {
        let timestamp = Timespec { secs: 1_767_225_600, nanos: 999_999_999 };
        HybridLogicalClock { timestamp, counter: u64::MAX, node_id: "node: ä".to_owned() }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whether_copied_or_taken() {
        for bytes in [Vec::new(), vec![0, 0xFF, b'\n'], vec![7; 100_000]] {
            let wrapped = BufferOrBytes::from(bytes.clone());
            assert!(matches!(wrapped, BufferOrBytes::Bytes(_)));
            assert_eq!(wrapped.read(), bytes);
            assert_eq!(wrapped.read(), bytes, "reading leaves them where they are");
            assert_eq!(Vec::from(wrapped), bytes);
        }
    }

    #[test]
    fn text_comes_out_as_it_went_in_and_its_bytes_are_utf_8() {
        for text in ["", "21.5 °C", "\0"] {
            let wrapped = BufferOrString::from(text.to_owned());
            assert!(matches!(wrapped, BufferOrString::String(_)));
            assert_eq!(wrapped.read(), text.as_bytes());
            assert_eq!(String::from(wrapped), text);
        }
    }

    #[test]
    fn a_messages_timestamp_and_a_clock_are_the_same_moment() {
        let HybridLogicalClock { timestamp: Timespec { secs, nanos }, counter, node_id } = clock();
        let stamp = Timestamp::from(clock());
        assert_eq!((stamp.timestamp.secs, stamp.timestamp.nanos, stamp.counter), (secs, nanos, counter));
        assert_eq!(stamp.node_id.read(), node_id.as_bytes());
        let again = HybridLogicalClock::from(stamp);
        assert_eq!((again.timestamp.secs, again.timestamp.nanos, again.counter), (secs, nanos, counter));
        assert_eq!(again.node_id, node_id);
    }

    #[test]
    fn a_duration_is_as_long_as_the_timespec_it_is_made_of() {
        for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::new(u64::MAX, 999_999_999)] {
            let timespec = Timespec::from(duration);
            assert_eq!((timespec.secs, timespec.nanos), (duration.as_secs(), duration.subsec_nanos()));
            assert_eq!(Duration::from(timespec), duration);
        }
    }

    #[test]
    fn nanoseconds_beyond_a_second_are_seconds() {
        let duration = Duration::from(Timespec { secs: 1, nanos: 2_500_000_000 });
        assert_eq!(duration, Duration::from_millis(3_500));
    }
}
