//! How the writer gives space back: segments that nothing needs are removed, and what lives in sparse ones is moved.

use std::io;

use crate::codec::{Encoded, block_is_whole, put_moved};
use crate::event::Lsn;
use crate::failpoint::failpoint;
use crate::index::{Location, Segment};
use crate::segment::{self, End, LOG};
use crate::stats::add;
use crate::writer::Writer;

/// How much is moved at a time.
const MOVE_BYTES: u64 = 512 << 10;
/// Segments that are given back in one piece of work.
const DELETE_MAX: usize = 4;

impl Writer {
    /// Removes segments that hold nothing and that no checkpoint needs; says whether there were any.
    pub(crate) fn delete_dead(&mut self) -> io::Result<bool> {
        let head = self.log.head().map(|(segment, _)| segment);
        let dead: Vec<u64> = {
            let state = self.shared.state.read();
            let is_dead = |first: u64, segment: &Segment| {
                segment.live == 0 && Some(first) != head && self.chores.is_covered(first, segment)
            };
            state
                .index
                .segments()
                .filter(|&(first, segment)| is_dead(first, segment))
                .map(|(first, _)| first)
                .take(DELETE_MAX)
                .collect()
        };
        if dead.is_empty() {
            return Ok(false);
        }
        // What made them so must not be lost when they are.
        self.sync_all()?;
        failpoint(&*self.shared.disk, "store.before-delete");
        for &first in &dead {
            match self.shared.disk.remove(&segment::path(first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.shared.files.forget(first);
            self.shared.state.write().index.remove_segment(first);
            self.chores.stuck.remove(&first);
            add(&self.shared.meters.segments_deleted, 1);
        }
        self.shared.disk.sync_dir(LOG)?;
        failpoint(&*self.shared.disk, "store.after-delete");
        Ok(true)
    }

    /// The segment with the least alive, if it is worth moving what lives.
    pub(crate) fn sparse_segment(&self) -> Option<u64> {
        let max = self.shared.options.max_bytes;
        let used = self.room().used;
        let state = self.shared.state.read();
        let log: u64 = state.index.segments().map(|(_, segment)| segment.size).sum();
        // Percent. The less room there is, the more work is worth it.
        let worth = match () {
            () if self.chores.pressed || self.chores.short => 75,
            () if used > max / 2 => 50,
            () if log / 4 > state.index.live_bytes() => 25,
            () => return None,
        };
        let head = self.log.head().map(|(segment, _)| segment);
        let percent = |segment: &Segment| segment.live_bytes * 100 / segment.size.max(1);
        let may_go = |first: u64, segment: &Segment| {
            Some(first) != head
                && segment.live > 0
                && !self.chores.stuck.contains(&first)
                && self.chores.is_covered(first, segment)
                && percent(segment) < worth
        };
        let sparse = state.index.segments().filter(|&(first, segment)| may_go(first, segment));
        sparse.min_by_key(|(_, segment)| percent(segment)).map(|(first, _)| first)
    }

    /// Writes some of a segment's live messages again at the head of the log.
    ///
    /// Until the copies are synced, the originals count; afterwards both say the same. The segment is removed once
    /// nothing lives in it.
    pub(crate) fn compact(&mut self, segment: u64) -> io::Result<()> {
        failpoint(&*self.shared.disk, "store.before-move");
        let live = self.shared.state.read().index.live_in(segment);
        let mut moves = Encoded::default();
        let mut moved = Vec::new();
        for (lsn, at) in live {
            match self.shared.files.read(at) {
                Ok(block) if block_is_whole(&block) => {
                    put_moved(&mut moves, lsn, &block);
                    moved.push((lsn, at.len));
                }
                // It stays where it is, and its segment with it, until it is done.
                _ => {
                    self.chores.stuck.insert(segment);
                }
            }
            if moves.body.len() as u64 >= MOVE_BYTES {
                break;
            }
        }
        if moves.count == 0 {
            return Ok(());
        }
        let written = self.write_own(&moves);
        if written.is_err() {
            self.set_abandoned_size();
        }
        let (place, body) = written?;
        add(&self.shared.meters.moved_bytes, moves.body.len() as u64);
        self.relocate(&moves, &moved, place, body);
        failpoint(&*self.shared.disk, "store.after-move");
        Ok(())
    }

    fn relocate(&mut self, moves: &Encoded, moved: &[(Lsn, u32)], place: End, body: usize) {
        let mut state = self.shared.state.write();
        for (&(lsn, len), block) in moved.iter().zip(&moves.blocks) {
            let offset = (place.offset as usize + body + block.start as usize) as u32;
            state.index.relocate(lsn, Location { segment: place.segment, offset, len });
        }
        if let Some((segment, size)) = self.log.head() {
            state.index.set_size(segment, size);
        }
    }
}
