//! Reading a segment: its records in order, and what of it is damaged or was cut off by a crash.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{self, Decoded, Logged};
use crate::event::Lsn;
use crate::frame::{Frame, MOVES, SYNCED_BEFORE, find_frame, parse_frame};
use crate::index::Location;
use crate::state::State;

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Its successor says where.
    At(u64),
    /// It has a successor that does not say.
    Unknown,
    /// It is the last: a crash may have cut it.
    Open,
}

/// What stands in a segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record.
    Record(Frame, Decoded),
    /// Bytes of what was committed are not what they were.
    Damage(Range<usize>, &'static str),
    /// The last writes before a crash are not all there: nothing that was committed.
    Torn(Range<usize>, &'static str),
}

/// A segment's bytes.
pub(crate) struct Scan<'a> {
    pub bytes: &'a Bytes,
    pub mark: u32,
    pub fence: Fence,
}

impl Scan<'_> {
    /// Hands out what stands behind `from`, in order; says where the segment ends. `last` is the number of the last
    /// event so far: what is not behind it is out of order.
    pub(crate) fn run(&self, from: usize, last: &mut Lsn, mut found: impl FnMut(Found)) -> usize {
        let len = self.bytes.len();
        let end = match self.fence {
            Fence::At(end) => usize::try_from(end).unwrap_or(len).min(len),
            Fence::Unknown | Fence::Open => len,
        };
        let mut at = from;
        while at < end {
            match self.record(at, end, *last) {
                Ok((frame, decoded)) => {
                    at = frame.end();
                    if frame.flags & MOVES == 0 {
                        *last = frame.last();
                    }
                    found(Found::Record(frame, decoded));
                }
                Err((Some(next), reason)) => {
                    found(Found::Damage(at..next, reason));
                    at = next;
                }
                Err((None, reason)) => {
                    let next = find_frame(self.bytes, at + 1, end, self.mark);
                    if self.fence == Fence::Open && !next.is_some_and(|next| self.was_synced(next)) {
                        found(Found::Torn(at..end, reason));
                        return at;
                    }
                    let next = next.unwrap_or(end);
                    found(Found::Damage(at..next, reason));
                    at = next;
                }
            }
        }
        if let Fence::At(end) = self.fence
            && end > len as u64
        {
            found(Found::Damage(len..len, "segment is shorter than it was"));
        }
        end
    }

    /// The record at `at`; or what is wrong, and where to go on, if that is known.
    fn record(
        &self,
        at: usize,
        end: usize,
        last: Lsn,
    ) -> Result<(Frame, Decoded), (Option<usize>, &'static str)> {
        let frame = parse_frame(self.bytes, at, self.mark).map_err(|reason| (None, reason))?;
        if frame.end() > end {
            return Err((None, "reaches beyond the segment's end"));
        }
        let next = frame.end();
        if frame.flags & MOVES == 0 && (frame.first <= last || frame.count == 0) {
            return Err((Some(next), "number is out of order"));
        }
        let body = self.bytes.slice(frame.body.clone());
        match codec::decode(&body, frame.count) {
            Ok(decoded) => Ok((frame, decoded)),
            Err(malformed) => Err((Some(next), malformed.0)),
        }
    }

    /// Some record from here on was written after everything before it had been synced.
    fn was_synced(&self, from: usize) -> bool {
        let mut at = Some(from);
        while let Some(here) = at {
            let Ok(frame) = parse_frame(self.bytes, here, self.mark) else { return false };
            if frame.flags & SYNCED_BEFORE != 0 {
                return true;
            }
            at = find_frame(self.bytes, frame.end(), self.bytes.len(), self.mark);
        }
        false
    }
}

/// Carries out a record that was found in a segment.
pub(crate) fn apply(state: &mut State, segment: u64, frame: &Frame, decoded: &Decoded) {
    let mut blocks = decoded.blocks.iter().peekable();
    for (number, logged) in decoded.events.iter().enumerate() {
        let at = blocks.next_if(|block| block.event as usize == number).map(|block| {
            let offset = (frame.body.start + block.start as usize) as u32;
            Location { segment, offset, len: block.len }
        });
        match (logged, at) {
            (Logged::Event(event), at) => state.apply(frame.first.plus(number as u64), event, at),
            (Logged::Moved(message), Some(at)) => state.index.relocate(*message, at),
            (Logged::Moved(_), None) => {}
        }
    }
}
