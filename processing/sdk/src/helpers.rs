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
