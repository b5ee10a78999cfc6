//! A segment: one file of the log. Its header says where the segment before it ends: what lies beyond that was
//! refused, and must not come back.

use crate::event::{LSN_MAX, Lsn};
use crate::wire::{u32_at, u64_at};

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 44;

/// The directory of the segments.
pub(crate) const LOG: &str = "log";

const MAGIC: &[u8; 8] = b"forebayL";
pub(crate) const VERSION: u32 = 1;

/// The end of a segment, as its successor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The segment's first lsn: its name.
    pub segment: u64,
    /// What is beyond does not count.
    pub offset: u64,
}

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub mark: u32,
    /// Its name. Events in it have no smaller numbers, except after a failed commit or behind moves of messages.
    pub first: Lsn,
    pub previous: Option<End>,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        let previous = self.previous.unwrap_or(End { segment: 0, offset: 0 });
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.mark.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..32].copy_from_slice(&previous.segment.to_le_bytes());
        out[32..40].copy_from_slice(&previous.offset.to_le_bytes());
        let sum = crc32fast::hash(&out[..40]);
        out[40..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The version of a segment whose header may be laid out in another way.
    pub(crate) fn version_of(bytes: &[u8]) -> Option<u32> {
        bytes.starts_with(MAGIC).then(|| u32_at(bytes, 8)).flatten()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER)?;
        let whole = bytes.starts_with(MAGIC)
            && u32_at(bytes, 8) == Some(VERSION)
            && u32_at(bytes, 40) == Some(crc32fast::hash(&bytes[..40]));
        if !whole {
            return None;
        }
        let previous = End { segment: u64_at(bytes, 24)?, offset: u64_at(bytes, 32)? };
        Some(Self {
            mark: u32_at(bytes, 12)?,
            first: Lsn(u64_at(bytes, 16)?),
            previous: (previous.segment != 0).then_some(previous),
        })
    }
}

/// The file of the segment that begins with `first`.
pub(crate) fn path(first: u64) -> String {
    format!("{LOG}/{first:020}.log")
}

/// The first lsn of the segment whose file has this name (without the directory).
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ours.then(|| digits.parse().ok()).flatten().filter(|first| (1..=LSN_MAX).contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_no_bit_of_it_may_change() {
        let header = Header { mark: 9, first: Lsn(12), previous: Some(End { segment: 3, offset: 77 }) };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn only_names_that_we_give_are_segments() {
        assert_eq!(first_of("00000000000000000012.log"), Some(12));
        for name in [
            "12.log",
            "0000000000000000001x.log",
            "00000000000000000000.log",
            "x",
            "18446744073709551615.log",
            "99999999999999999999.log",
        ] {
            assert_eq!(first_of(name), None, "{name}");
        }
    }
}
