//! What the writer does between batches, a piece at a time so that nobody waits long: checkpoints
//! ([`crate::checkpointing`]), giving back segments that nothing needs and compaction of those that hold little
//! ([`crate::compaction`]), and keeping some space in hand.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::About;
use crate::disk::DiskFile;
use crate::error::is_full;
use crate::index::Segment;
use crate::line::Room;
use crate::recovery::Kept;
use crate::segment::End;
use crate::writer::Writer;

/// Space on the device that is given up when it is full, so that there is room to tidy up.
const BALLAST: &str = "reserve";

/// What there is to do besides commits.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Checkpoints on disk, oldest first.
    pub kept: Vec<Kept>,
    pub running: Option<Running>,
    /// Log written since the last checkpoint.
    pub since: u64,
    /// Somebody was refused for want of room.
    pub pressed: bool,
    /// There is something to do at once.
    busy: bool,
    /// Something did not work: it is not tried again before this moment.
    rest: Option<Instant>,
    /// Segments with damaged messages, which cannot be moved.
    pub stuck: HashSet<u64>,
    ballast: u64,
    /// There was no room for the ballast: it is not tried again before this moment.
    ballast_again: Option<Instant>,
    /// The device was full, and the ballast is given up.
    pub short: bool,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(crate) struct Running {
    pub file: Arc<dyn DiskFile>,
    pub bytes: Vec<u8>,
    pub written: usize,
    pub about: About,
    /// Who had asked for one when it was begun.
    pub asked: u64,
    /// Log that had been written since the one before.
    pub since: u64,
}

impl Chores {
    /// `since` is the log behind the newest checkpoint.
    pub(crate) fn new(kept: Vec<Kept>, since: u64) -> Self {
        Self { kept, since, busy: true, ..Self::default() }
    }

    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// When something that did not work is to be tried again.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.rest.or(self.ballast_again)
    }

    pub(crate) fn note_written(&mut self, bytes: u64) {
        self.since = self.since.saturating_add(bytes);
    }

    /// The place behind which all kept checkpoints need the log.
    fn needed_from(&self) -> Option<End> {
        self.kept.first().map(|kept| kept.about.place)
    }

    /// No checkpoint that is kept needs this segment's records.
    pub(crate) fn is_covered(&self, first: u64, segment: &Segment) -> bool {
        self.needed_from().is_some_and(|place| {
            first < place.segment || (first == place.segment && segment.size <= place.offset)
        })
    }
}

impl Writer {
    /// A piece of whatever is to be done.
    pub(crate) fn tend(&mut self) {
        if self.chores.rest.is_some_and(|until| self.shared.clock.now() < until) {
            self.chores.busy = false;
            return self.serve_if_resting();
        }
        self.chores.rest = None;
        match self.tend_once() {
            Ok(worked) => self.chores.busy = worked,
            // There is room again, to do the same with.
            Err(error) if is_full(&error) && self.run_short() => self.chores.busy = true,
            Err(_) => {
                self.chores.busy = false;
                self.chores.rest = Some(self.later());
            }
        }
        self.set_room();
    }

    /// When something that did not work is tried again.
    fn later(&self) -> Instant {
        self.shared.clock.now() + Duration::from_millis(self.shared.options.retry_ms.max(1))
    }

    /// Says whether there was something to do, and so may be more.
    fn tend_once(&mut self) -> io::Result<bool> {
        if !self.chores.short {
            self.keep_ballast();
        }
        if self.delete_dead()? {
            return Ok(true);
        }
        if self.chores.running.is_some() {
            self.go_on_with_checkpoint()?;
            return Ok(true);
        }
        if self.checkpoint_is_due() {
            self.begin_checkpoint()?;
            return Ok(true);
        }
        if let Some(segment) = self.sparse_segment() {
            self.compact(segment)?;
            return Ok(true);
        }
        self.chores.pressed = false;
        if self.chores.short {
            self.keep_ballast();
        }
        Ok(false)
    }

    /// What is left, as far as the writer knows.
    pub(crate) fn room(&self) -> Room {
        let max = self.shared.options.max_bytes;
        let state = self.shared.state.read();
        let log: u64 = state.index.segments().map(|(_, segment)| segment.size).sum();
        let checkpoints: u64 = self.chores.kept.iter().map(|kept| kept.size).sum();
        let running = self.chores.running.as_ref().map_or(0, |running| running.bytes.len() as u64);
        // The next checkpoint must find room, too.
        let coming = (state.weight + 16 * (state.entries + state.index.live())) as u64;
        let reserve = self.shared.options.reserve_bytes();
        Room {
            used: log + checkpoints + running + self.chores.ballast,
            limit: max.saturating_sub(reserve + coming),
            limit_sessions: max.saturating_sub(reserve / 2 + coming),
            short: self.chores.short,
        }
    }

    /// Tells those who append.
    pub(crate) fn set_room(&self) {
        let room = self.room();
        self.shared.line.lock().room = room;
    }

    /// The device is full: the ballast goes. Says whether that helps.
    pub(crate) fn run_short(&mut self) -> bool {
        self.chores.short = true;
        self.chores.pressed = true;
        self.chores.ballast_again = Some(self.later());
        self.drop_running();
        if self.chores.ballast == 0 {
            return false;
        }
        self.chores.ballast = 0;
        self.shared.disk.remove(BALLAST).and_then(|()| self.shared.disk.sync_dir("")).is_ok()
    }

    /// Takes space in hand, when there is some. While there is none, nothing new is stored.
    fn keep_ballast(&mut self) {
        let bytes = self.shared.options.ballast_bytes();
        let too_early = self.chores.ballast_again.is_some_and(|until| self.shared.clock.now() < until);
        if self.chores.ballast >= bytes || too_early {
            return;
        }
        match self.take_ballast(bytes) {
            Ok(()) => {
                self.chores.ballast = bytes;
                self.chores.ballast_again = None;
                self.chores.short = false;
            }
            Err(error) => {
                let _ = self.shared.disk.remove(BALLAST);
                self.chores.short |= is_full(&error);
                self.chores.ballast_again = Some(self.later());
            }
        }
    }

    fn take_ballast(&self, bytes: u64) -> io::Result<()> {
        let disk = &self.shared.disk;
        if !self.chores.short && disk.len(BALLAST).is_ok_and(|len| len == bytes) {
            return Ok(());
        }
        let file = disk.create(BALLAST)?;
        let zeros = vec![0; bytes as usize];
        file.append(&zeros)?;
        if self.chores.short {
            // As much again must be free, or what was just given up to tidy up with would be taken back.
            file.append(&zeros)?;
            disk.truncate(BALLAST, bytes)?;
        }
        file.sync()
    }
}
