//! A record on disk: a frame around its events.
//!
//! ```text
//! mark u32 · length u32 · crc32 u32 · flags u8 · first lsn varint · count varint · events
//!                                     └─────────────── length ──────────────────────┘
//! ```
//!
//! The checksum covers everything else. The mark is a number that each store draws for itself: with it frames are
//! found again behind damage, and nobody outside can put one into a payload.

use std::ops::Range;

use bytes::Bytes;

use crate::event::{LSN_MAX, Lsn};
use crate::wire::{Reader, put_varint, u32_at};

/// Mark, length and checksum.
pub(crate) const FRAME_HEADER: usize = 12;

/// Whatever stands before this frame in its segment was synced before the frame was written. So damage before it is
/// damage of what was committed, and no trace of a crash.
pub(crate) const SYNCED_BEFORE: u8 = 1;

/// The record holds moves of messages, which take no numbers; its `first` says nothing.
pub(crate) const MOVES: u8 = 1 << 1;

/// A record as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Where it begins.
    pub start: usize,
    pub flags: u8,
    pub first: Lsn,
    pub count: u32,
    /// Where the events stand.
    pub body: Range<usize>,
}

impl Frame {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> usize {
        self.body.end
    }

    /// Number of the last event.
    pub(crate) fn last(&self) -> Lsn {
        self.first.plus(u64::from(self.count).saturating_sub(1))
    }
}

/// Appends a frame; says where in `out` its body begins.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    mark: u32,
    flags: u8,
    first: Lsn,
    count: u32,
    body: &[u8],
) -> usize {
    let start = out.len();
    out.extend_from_slice(&mark.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.push(flags);
    put_varint(out, first.0);
    put_varint(out, u64::from(count));
    let at = out.len();
    out.extend_from_slice(body);
    let length = ((out.len() - start - FRAME_HEADER) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    let sum = checksum(mark, &length, &out[start + FRAME_HEADER..]).to_le_bytes();
    out[start + 8..start + FRAME_HEADER].copy_from_slice(&sum);
    at
}

/// The frame at `at`, or what is wrong with it.
pub(crate) fn parse_frame(bytes: &Bytes, at: usize, mark: u32) -> Result<Frame, &'static str> {
    let found = u32_at(bytes, at).ok_or("cut short")?;
    if found != mark {
        return Err("no record where one should begin");
    }
    let length = u32_at(bytes, at + 4).ok_or("cut short")?;
    let sum = u32_at(bytes, at + 8).ok_or("cut short")?;
    let start = at + FRAME_HEADER;
    let end = start.checked_add(length as usize).filter(|&end| end <= bytes.len()).ok_or("cut short")?;
    if checksum(mark, &length.to_le_bytes(), &bytes[start..end]) != sum {
        return Err("checksum does not hold");
    }
    let inside = bytes.slice(start..end);
    let mut reader = Reader::new(&inside);
    let mut read = || Some((reader.u8().ok()?, reader.varint().ok()?, reader.varint_u32().ok()?));
    let (flags, first, count) = read().ok_or("cut short")?;
    if first > LSN_MAX {
        return Err("number too large");
    }
    Ok(Frame { start: at, flags, first: Lsn(first), count, body: start + reader.position()..end })
}

/// Where the next whole frame at or after `from` begins, looking no further than `end`.
pub(crate) fn find_frame(bytes: &Bytes, from: usize, end: usize, mark: u32) -> Option<usize> {
    let mark_bytes = mark.to_le_bytes();
    let end = end.min(bytes.len());
    let mut at = from;
    while at + FRAME_HEADER <= end {
        let next = bytes[at..end].iter().position(|&byte| byte == mark_bytes[0])?;
        at += next;
        if bytes[at..end].starts_with(&mark_bytes) && parse_frame(bytes, at, mark).is_ok() {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn checksum(mark: u32, length: &[u8; 4], inside: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(mark);
    hasher.update(length);
    hasher.update(inside);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: u32 = 0x5eed_1234;

    fn two_frames() -> (Bytes, usize) {
        let mut out = Vec::new();
        put_frame(&mut out, MARK, SYNCED_BEFORE, Lsn(7), 2, b"first");
        let second = out.len();
        put_frame(&mut out, MARK, 0, Lsn(9), 1, b"second");
        (Bytes::from(out), second)
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let (bytes, second) = two_frames();
        let frame = parse_frame(&bytes, 0, MARK).unwrap();
        assert_eq!((frame.flags, frame.first, frame.count), (SYNCED_BEFORE, Lsn(7), 2));
        assert_eq!((&bytes[frame.body.clone()], frame.end()), (&b"first"[..], second));
        assert_eq!(frame.last(), Lsn(8));
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is_and_the_next_frame_is_found() {
        let (bytes, second) = two_frames();
        for bit in 0..second * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damaged = Bytes::from(damaged);
            assert!(parse_frame(&damaged, 0, MARK).is_err(), "bit {bit}");
            assert_eq!(find_frame(&damaged, 1, damaged.len(), MARK), Some(second), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_store_is_none() {
        let (bytes, _) = two_frames();
        assert!(parse_frame(&bytes, 0, MARK + 1).is_err());
        assert_eq!(find_frame(&bytes, 0, bytes.len(), MARK + 1), None);
    }
}
