//! What the writer does between batches, a piece at a time so that nobody waits long: checkpoints, giving back
//! segments that nothing needs, compaction of those that hold little, and keeping some space in hand.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::{self, About, TEMPORARY};
use crate::codec::{Encoded, block_is_whole, put_moved};
use crate::disk::DiskFile;
use crate::error::is_full;
use crate::event::Lsn;
use crate::failpoint::failpoint;
use crate::index::{Location, Segment};
use crate::line::Room;
use crate::recovery::Kept;
use crate::segment::{self, End, LOG};
use crate::stats::add;
use crate::writer::Writer;

/// How much of a checkpoint is written at a time.
const SLICE: usize = 1 << 20;
/// How much is moved at a time.
const MOVE_BYTES: u64 = 512 << 10;
/// Space on the device that is given up when it is full, so that there is room to tidy up.
const BALLAST: &str = "reserve";
/// On a full device, less dead log than this is not worth a checkpoint.
const SHORT_DEAD_MIN: u64 = 64 << 10;
/// Segments that are given back in one piece of work.
const DELETE_MAX: usize = 4;

/// What there is to do besides commits.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Checkpoints on disk, oldest first.
    kept: Vec<Kept>,
    running: Option<Running>,
    /// Log written since the last checkpoint.
    since: u64,
    /// Somebody was refused for want of room.
    pub pressed: bool,
    /// There is something to do at once.
    busy: bool,
    /// Something did not work: it is not tried again before this moment.
    rest: Option<Instant>,
    /// Segments with damaged messages, which cannot be moved.
    stuck: HashSet<u64>,
    ballast: u64,
    /// There was no room for the ballast: it is not tried again before this moment.
    ballast_again: Option<Instant>,
    /// The device was full, and the ballast is given up.
    short: bool,
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct Running {
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
    written: usize,
    about: About,
    /// Who had asked for one when it was begun.
    asked: u64,
    /// Log that had been written since the one before.
    since: u64,
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
    fn is_covered(&self, first: u64, segment: &Segment) -> bool {
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

    // Room.

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

    // Checkpoints.

    fn checkpoint_is_due(&self) -> bool {
        let asked = {
            let line = self.shared.line.lock();
            line.checkpoints_asked > line.checkpoints_served
        };
        let last = self.chores.kept.last().map_or(0, |kept| kept.size);
        asked
            || self.chores.since >= self.shared.options.checkpoint_after(last)
            || (self.is_tight() && self.dead_and_not_covered() > self.worth_a_checkpoint())
    }

    /// How much dead log makes a checkpoint worth its while when room is wanted.
    fn worth_a_checkpoint(&self) -> u64 {
        let most = self.shared.options.max_bytes / 32;
        // A device that is full may be much smaller than what we might take of it.
        if self.chores.short { (self.room().used / 8).clamp(SHORT_DEAD_MIN.min(most), most) } else { most }
    }

    /// Room is wanted, or will be soon.
    fn is_tight(&self) -> bool {
        self.chores.pressed || self.chores.short || self.room().used > self.shared.options.max_bytes / 4 * 3
    }

    /// Dead bytes that only a checkpoint lets go.
    fn dead_and_not_covered(&self) -> u64 {
        let state = self.shared.state.read();
        let dead = |segment: &Segment| segment.size.saturating_sub(segment.live_bytes);
        let segments =
            state.index.segments().filter(|(first, segment)| !self.chores.is_covered(*first, segment));
        segments.map(|(_, segment)| dead(segment)).sum()
    }

    fn begin_checkpoint(&mut self) -> io::Result<()> {
        let asked = self.shared.line.lock().checkpoints_asked;
        let begun = self.try_begin_checkpoint(asked);
        if let Err(error) = &begun {
            self.checkpoint_failed(asked, error);
        }
        begun
    }

    fn try_begin_checkpoint(&mut self, asked: u64) -> io::Result<()> {
        let disk = self.shared.disk.clone();
        failpoint(&*disk, "store.before-checkpoint");
        if self.is_tight() {
            // So that this segment, too, can be given back or compacted.
            self.seal()?;
        } else {
            // What it contains must not be lost when it is not.
            self.sync_all()?;
        }
        let Some(place) = self.log.place() else {
            self.served(asked, None);
            return Ok(());
        };
        let (about, bytes) = {
            let next = self.shared.line.lock().next;
            let state = self.shared.state.read();
            let about = About { mark: self.log.mark(), last: state.last, next, place };
            (about, checkpoint::encode(&about, &state))
        };
        let same = |kept: &Kept| kept.about.last == about.last && kept.about.place == about.place;
        if self.chores.kept.last().is_some_and(same) {
            self.chores.since = 0;
            self.served(asked, None);
            return self.prune();
        }
        let file = disk.create(TEMPORARY)?;
        let since = mem::take(&mut self.chores.since);
        self.chores.running = Some(Running { file, bytes, written: 0, about, asked, since });
        Ok(())
    }

    /// Makes durable what nobody waited for.
    fn sync_all(&mut self) -> io::Result<()> {
        if self.log.is_synced() {
            return Ok(());
        }
        let next = Lsn(self.shared.line.lock().next);
        // Where the last segment was abandoned they are written again first.
        let prepared = self.prepare(self.first_in_line().unwrap_or(next));
        let synced = prepared.and_then(|()| self.sync());
        if synced.is_err() {
            self.set_abandoned_size();
        }
        synced
    }

    /// Ends the segment, so that the log goes on in another.
    fn seal(&mut self) -> io::Result<()> {
        self.sync_all()?;
        let sealed = self.log.head();
        let done = self.log.seal();
        if let Some((segment, _)) = sealed {
            self.shared.state.write().index.seal(segment);
        }
        done
    }

    /// Writes a slice, or puts the whole in its place.
    fn go_on_with_checkpoint(&mut self) -> io::Result<()> {
        let Some(mut running) = self.chores.running.take() else { return Ok(()) };
        match self.checkpoint_slice(&mut running) {
            Ok(true) => {
                self.served(running.asked, None);
                add(&self.shared.meters.checkpoints, 1);
                self.prune()
            }
            Ok(false) => {
                self.chores.running = Some(running);
                Ok(())
            }
            Err(error) => {
                self.give_up(&running, &error);
                Err(error)
            }
        }
    }

    /// Says whether the checkpoint is complete and durable.
    fn checkpoint_slice(&mut self, running: &mut Running) -> io::Result<bool> {
        let disk = self.shared.disk.clone();
        let end = running.bytes.len().min(running.written + SLICE);
        running.file.append(&running.bytes[running.written..end])?;
        running.written = end;
        failpoint(&*disk, "store.checkpoint-slice");
        if end < running.bytes.len() {
            // A little at a time: a single large sync would hold up the commits behind it.
            running.file.sync()?;
            return Ok(false);
        }
        failpoint(&*disk, "store.checkpoint-written");
        running.file.sync()?;
        failpoint(&*disk, "store.checkpoint-synced");
        disk.rename(TEMPORARY, &checkpoint::path(running.about.last))?;
        failpoint(&*disk, "store.checkpoint-renamed");
        if let Err(error) = disk.sync_dir("") {
            // As good as none: nothing may rely on it, nor should it lie about.
            let is_another = self.chores.kept.iter().all(|kept| kept.about.last != running.about.last);
            let _ = is_another.then(|| disk.remove(&checkpoint::path(running.about.last)));
            return Err(error);
        }
        failpoint(&*disk, "store.checkpoint-durable");
        self.chores.kept.retain(|kept| kept.about.last != running.about.last);
        self.chores.kept.push(Kept { about: running.about, size: running.bytes.len() as u64 });
        Ok(true)
    }

    fn give_up(&mut self, running: &Running, error: &io::Error) {
        let _ = self.shared.disk.remove(TEMPORARY);
        self.chores.since = self.chores.since.saturating_add(running.since);
        self.checkpoint_failed(running.asked, error);
    }

    fn checkpoint_failed(&mut self, asked: u64, error: &io::Error) {
        add(&self.shared.meters.checkpoint_failures, 1);
        self.served(asked, Some(error));
    }

    fn served(&self, asked: u64, error: Option<&io::Error>) {
        let mut line = self.shared.line.lock();
        line.checkpoints_served = line.checkpoints_served.max(asked);
        line.checkpoint_error = error.map(|error| (error.kind(), error.to_string()));
        self.shared.served.notify_all();
    }

    /// Nobody waits for a checkpoint while nothing is tried.
    fn serve_if_resting(&self) {
        let asked = self.shared.line.lock().checkpoints_asked;
        let error = io::Error::other("the last checkpoint failed, and is not tried again yet");
        if asked > self.shared.line.lock().checkpoints_served {
            self.served(asked, Some(&error));
        }
    }

    /// Gives up a checkpoint that is half written.
    fn drop_running(&mut self) {
        if let Some(running) = self.chores.running.take() {
            self.give_up(&running, &io::ErrorKind::StorageFull.into());
        }
    }

    /// A whole checkpoint without pauses.
    pub(crate) fn checkpoint_at_once(&mut self) -> io::Result<()> {
        if self.chores.running.is_none() {
            self.begin_checkpoint()?;
        } else {
            // It was begun before the last batches.
            self.finish_checkpoint()?;
            self.begin_checkpoint()?;
        }
        self.finish_checkpoint()?;
        while self.delete_dead()? {}
        Ok(())
    }

    fn finish_checkpoint(&mut self) -> io::Result<()> {
        while self.chores.running.is_some() {
            self.go_on_with_checkpoint()?;
        }
        Ok(())
    }

    /// Keeps the last two checkpoints, or one when room is short.
    fn prune(&mut self) -> io::Result<()> {
        let scarce = self.is_tight() || self.room().used > self.shared.options.max_bytes / 2;
        let surplus = self.chores.kept.len().saturating_sub(if scarce { 1 } else { 2 });
        if surplus == 0 {
            return Ok(());
        }
        for oldest in self.chores.kept.iter().take(surplus) {
            match self.shared.disk.remove(&checkpoint::path(oldest.about.last)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Before the log goes that only they needed.
        self.shared.disk.sync_dir("")?;
        self.chores.kept.drain(..surplus);
        failpoint(&*self.shared.disk, "store.checkpoint-pruned");
        Ok(())
    }

    // Space.

    /// Removes segments that hold nothing and that no checkpoint needs; says whether there were any.
    fn delete_dead(&mut self) -> io::Result<bool> {
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
    fn sparse_segment(&self) -> Option<u64> {
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
    fn compact(&mut self, segment: u64) -> io::Result<()> {
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
