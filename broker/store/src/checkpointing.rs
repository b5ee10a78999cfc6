//! When the writer makes a checkpoint, and how: a slice at a time between batches.

use std::io;
use std::mem;

use crate::checkpoint::{self, About, TEMPORARY};
use crate::chores::Running;
use crate::event::Lsn;
use crate::failpoint::failpoint;
use crate::index::Segment;
use crate::recovery::Kept;
use crate::stats::add;
use crate::writer::Writer;

/// How much of a checkpoint is written at a time.
const SLICE: usize = 1 << 20;
/// On a full device, less dead log than this is not worth a checkpoint.
const SHORT_DEAD_MIN: u64 = 64 << 10;

impl Writer {
    pub(crate) fn checkpoint_is_due(&self) -> bool {
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
    pub(crate) fn is_tight(&self) -> bool {
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

    pub(crate) fn begin_checkpoint(&mut self) -> io::Result<()> {
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
    pub(crate) fn sync_all(&mut self) -> io::Result<()> {
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
    pub(crate) fn go_on_with_checkpoint(&mut self) -> io::Result<()> {
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
    pub(crate) fn serve_if_resting(&self) {
        let asked = self.shared.line.lock().checkpoints_asked;
        let error = io::Error::other("the last checkpoint failed, and is not tried again yet");
        if asked > self.shared.line.lock().checkpoints_served {
            self.served(asked, Some(&error));
        }
    }

    /// Gives up a checkpoint that is half written.
    pub(crate) fn drop_running(&mut self) {
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
}
