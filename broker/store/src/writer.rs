//! The writer: one thread that takes what waits, writes it, syncs once, applies it and tells. While it syncs, the next
//! batch collects.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::chores::Chores;
use crate::codec::Encoded;
use crate::disk::Lock;
use crate::error::is_full;
use crate::event::Lsn;
use crate::failpoint::failpoint;
use crate::frame::{MOVES, SYNCED_BEFORE, put_frame};
use crate::index::Location;
use crate::line::{Closing, Health, Line, Sleep, Waiting};
use crate::log::Log;
use crate::observer::{Committed, Failed, OnFailure};
use crate::segment::End;
use crate::stats::add;
use crate::store::Shared;

/// What is written at once.
const BATCH_BYTES: u64 = 8 << 20;
/// What may be written without a sync until there is one all the same.
const UNSYNCED_BYTES_MAX: usize = 256 << 10;
/// A buffer larger than this is given back.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The writer's side of a store.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) chores: Chores,
    /// What could not be written and must not be given up: first in line.
    kept: Vec<Waiting>,
    /// The disk failed: it is left alone until then.
    backing_off: Option<Instant>,
    /// The disk had its rest: even if nobody has anything to write, it is tried whether it works again.
    probing: bool,
    /// What nobody waits for is written then.
    lazy_at: Option<Instant>,
    buffer: Vec<u8>,
    /// Where in the buffer the body of each record begins.
    bodies: Vec<usize>,
    _lock: Box<dyn Lock>,
}

/// What the writer does next.
struct Turn {
    records: Vec<Waiting>,
    sync: bool,
    closing: Option<Closing>,
}

/// When there is something to do.
enum Due {
    Now { urgent: bool },
    At(Instant, Sleep),
    Never,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, log: Log, chores: Chores, lock: Box<dyn Lock>) -> Self {
        Self {
            shared,
            log,
            chores,
            kept: Vec::new(),
            backing_off: None,
            probing: false,
            lazy_at: None,
            buffer: Vec::new(),
            bodies: Vec::new(),
            _lock: lock,
        }
    }

    /// Until the store is closed.
    pub(crate) fn run(mut self) {
        loop {
            let turn = self.wait();
            match self.carry_out(turn) {
                Some(writer) => self = writer,
                None => return,
            }
        }
    }

    /// Does what is due now, if anything is: the writer, unless the store is closed, and whether there was something.
    #[cfg(feature = "sim")]
    pub(crate) fn step(mut self) -> (Option<Self>, bool) {
        let shared = self.shared.clone();
        let mut line = shared.line.lock();
        match self.due(&mut line) {
            Due::Now { urgent } => {
                let turn = self.turn(&mut line, urgent);
                drop(line);
                (self.carry_out(turn), true)
            }
            Due::At(..) | Due::Never => (Some(self), false),
        }
    }

    fn carry_out(mut self, turn: Turn) -> Option<Self> {
        if mem::take(&mut self.probing) && turn.records.is_empty() {
            self.probe();
        }
        self.commit(turn.records, turn.sync);
        if let Some(how) = turn.closing {
            self.end(how);
            return None;
        }
        self.tend();
        Some(self)
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Turn {
        let shared = self.shared.clone();
        let mut line = shared.line.lock();
        loop {
            line.sleep = Sleep::Awake;
            match self.due(&mut line) {
                Due::Now { urgent } => return self.turn(&mut line, urgent),
                Due::At(until, sleep) => {
                    line.sleep = sleep;
                    shared.wake.wait_until(&mut line, until);
                }
                Due::Never => {
                    line.sleep = Sleep::Resting;
                    shared.wake.wait(&mut line);
                }
            }
        }
    }

    fn due(&mut self, line: &mut Line) -> Due {
        let now = self.shared.clock.now();
        if let Some(until) = self.backing_off {
            if now < until && line.closing.is_none() {
                return Due::At(until, Sleep::BackingOff);
            }
            self.backing_off = None;
            self.probing = true;
            // One record may try.
            line.health = Health::Failing { probe: true };
        }
        let urgent = line.urgent || line.closing.is_some() || !self.kept.is_empty();
        let asked = line.checkpoints_asked > line.checkpoints_served;
        if urgent || asked || line.pressed || self.probing || self.chores.busy() {
            return Due::Now { urgent };
        }
        if line.records.is_empty() {
            self.lazy_at = None;
        } else if self.lazy_at.is_none() {
            self.lazy_at = Some(now + Duration::from_millis(self.shared.options.lazy_ms));
        }
        let sleep = if self.lazy_at.is_some() { Sleep::Dozing } else { Sleep::Resting };
        match [self.lazy_at, self.chores.rests_until()].into_iter().flatten().min() {
            Some(until) if until <= now => Due::Now { urgent: false },
            Some(until) => Due::At(until, sleep),
            None => Due::Never,
        }
    }

    /// All that waits. Whatever stores a message is synced: places of messages are only known for what is durable.
    fn turn(&mut self, line: &mut Line, urgent: bool) -> Turn {
        line.sleep = Sleep::Awake;
        self.lazy_at = None;
        self.chores.pressed |= mem::take(&mut line.pressed);
        let mut records = mem::take(&mut self.kept);
        match records.is_empty() {
            true => records = line.take(),
            false => records.append(&mut line.take()),
        }
        let sync = urgent
            || self.log.unsynced_bytes() > UNSYNCED_BYTES_MAX
            || records.iter().any(|record| !record.encoded.blocks.is_empty());
        Turn { records, sync, closing: line.closing }
    }

    /// Writes a record that says nothing, to see whether the disk works.
    fn probe(&mut self) {
        match self.write_own(&Encoded::default()) {
            Ok(_) => {
                self.set_head_size();
                if self.note_working() {
                    let observer = self.shared.observer.read().clone();
                    observer.into_iter().for_each(|observer| observer.recovered());
                }
            }
            // Once more, if that has made room.
            Err(error) => self.probing = self.fail(Vec::new(), &error).is_some(),
        }
    }

    /// Writes and syncs a record of the store's own, of moves; says where it stands, and where in it its body.
    pub(crate) fn write_own(&mut self, moves: &Encoded) -> io::Result<(End, usize)> {
        let next = Lsn(self.shared.line.lock().next);
        self.prepare(self.first_in_line().unwrap_or(next))?;
        let flags = MOVES | if self.log.is_synced() { SYNCED_BEFORE } else { 0 };
        let mut record = Vec::with_capacity(moves.body.len() + 32);
        let body = put_frame(&mut record, self.log.mark(), flags, Lsn(0), moves.count, &moves.body);
        let place = self.log.write(&record, false)?;
        self.sync()?;
        add(&self.shared.meters.written, record.len() as u64);
        self.chores.note_written(record.len() as u64);
        Ok((place, body))
    }

    fn commit(&mut self, mut records: Vec<Waiting>, sync: bool) {
        while !records.is_empty() {
            let behind = records.split_off(batch_len(&records));
            match self.write(&records, sync) {
                Ok(place) => self.settle(records, place),
                Err(error) => {
                    records.extend(behind);
                    match self.fail(records, &error) {
                        Some(again) => records = again,
                        None => return,
                    }
                    continue;
                }
            }
            records = behind;
        }
    }

    /// Writes a batch; says where it begins. Nothing of it is applied yet.
    fn write(&mut self, records: &[Waiting], sync: bool) -> io::Result<End> {
        let first = records.first().map_or(Lsn(1), |record| record.first);
        self.prepare(first)?;
        self.encode(records);
        let disk = self.shared.disk.clone();
        failpoint(&*disk, "store.before-write");
        let buffer = mem::take(&mut self.buffer);
        let place = self.log.write(&buffer, !sync);
        if buffer.capacity() <= BUFFER_BYTES_MAX {
            self.buffer = buffer;
        }
        let place = place?;
        failpoint(&*disk, "store.after-write");
        if sync {
            self.sync()?;
        }
        failpoint(&*disk, "store.after-sync");
        Ok(place)
    }

    /// Makes sure that there is a segment to write to.
    pub(crate) fn prepare(&mut self, first: Lsn) -> io::Result<()> {
        let before = self.log.head().map(|(segment, _)| segment);
        if self.log.prepare(first, self.shared.options.segment_bytes())?
            && let Some((segment, size)) = self.log.head()
        {
            self.shared.files.forget(segment);
            let mut state = self.shared.state.write();
            before.into_iter().for_each(|before| state.index.seal(before));
            state.index.set_size(segment, size);
        }
        Ok(())
    }

    fn encode(&mut self, records: &[Waiting]) {
        self.buffer.clear();
        self.bodies.clear();
        let mut flags = if self.log.is_synced() { SYNCED_BEFORE } else { 0 };
        for record in records {
            // A record without events only waits for its turn.
            if record.encoded.count == 0 {
                self.bodies.push(self.buffer.len());
                continue;
            }
            let Encoded { count, body, .. } = &record.encoded;
            self.bodies.push(put_frame(&mut self.buffer, self.log.mark(), flags, record.first, *count, body));
            flags = 0;
        }
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.log.sync()?;
        self.shared.meters.synced(began.elapsed());
        Ok(())
    }

    /// The batch is written: it becomes part of the state, and everybody is told.
    fn settle(&mut self, records: Vec<Waiting>, place: End) {
        let shared = self.shared.clone();
        let last = self.apply(&records, place);
        failpoint(&*shared.disk, "store.after-apply");
        if let Some(last) = last {
            shared.committed.store(last.0, Ordering::Release);
        }
        let meters = &shared.meters;
        add(&meters.commits, 1);
        add(&meters.records, records.len() as u64);
        add(&meters.events, records.iter().map(|record| u64::from(record.encoded.count)).sum());
        let recovered = self.note_written(&records);
        let observer = shared.observer.read().clone();
        if let Some(observer) = observer {
            observer.committed(records.into_iter().map(committed).collect());
            if recovered {
                observer.recovered();
            }
        }
        failpoint(&*shared.disk, "store.after-told");
    }

    /// Carries out the events; gives the number of the last.
    fn apply(&mut self, records: &[Waiting], place: End) -> Option<Lsn> {
        let mut state = self.shared.state.write();
        let mut last = None;
        for (record, body) in records.iter().zip(&self.bodies) {
            let mut blocks = record.encoded.blocks.iter().peekable();
            for (number, event) in record.events.iter().enumerate() {
                let at = blocks.next_if(|block| block.event as usize == number).map(|block| {
                    let offset = (place.offset as usize + body + block.start as usize) as u32;
                    Location { segment: place.segment, offset, len: block.len }
                });
                let lsn = record.first.plus(number as u64);
                state.apply(lsn, event, at);
                last = Some(lsn);
            }
        }
        if let Some((segment, size)) = self.log.head() {
            state.index.set_size(segment, size);
        }
        last
    }

    fn set_head_size(&self) {
        if let Some((segment, size)) = self.log.head() {
            self.shared.state.write().index.set_size(segment, size);
        }
    }

    /// Counts what was written, and says whether this was the first commit after failures.
    fn note_written(&mut self, records: &[Waiting]) -> bool {
        let cost: u64 = records.iter().map(Waiting::cost).sum();
        add(&self.shared.meters.written, cost);
        self.chores.note_written(cost);
        let room = self.room();
        {
            let mut line = self.shared.line.lock();
            line.bytes -= cost;
            line.room = room;
        }
        self.note_working()
    }

    /// The disk works; says whether it failed before.
    fn note_working(&mut self) -> bool {
        let recovered = mem::take(&mut self.shared.line.lock().health) != Health::Working;
        if recovered {
            self.probing = false;
            add(&self.shared.meters.recoveries, 1);
        }
        recovered
    }

    /// The batch is not written: what may be given up is, the rest waits for the next try. Gives the batch back when it
    /// can be tried again at once.
    fn fail(&mut self, records: Vec<Waiting>, error: &io::Error) -> Option<Vec<Waiting>> {
        let shared = self.shared.clone();
        self.set_abandoned_size();
        if is_full(error) && self.run_short() {
            // There is room again, for these and for tidying up.
            self.set_room();
            return Some(records);
        }
        add(&shared.meters.failures, 1);
        self.backing_off = Some(shared.clock.now() + Duration::from_millis(shared.options.retry_ms));
        let (refused, kept, next) = {
            let mut line = shared.line.lock();
            line.health = Health::Failing { probe: false };
            let waiting = records.into_iter().chain(line.take());
            let (refused, kept): (Vec<_>, Vec<_>) =
                waiting.partition(|record| record.on_failure == OnFailure::Refuse);
            line.bytes -= refused.iter().map(Waiting::cost).sum::<u64>();
            (refused, kept, Lsn(line.next))
        };
        // A new segment's header says that what was written does not count. Only when that is on disk is a refusal
        // certain; but nobody is kept waiting for a disk that fails.
        let settled = self.prepare(kept.first().map_or(next, |record| record.first)).is_ok();
        self.kept = kept;
        self.set_room();
        let observer = shared.observer.read().clone();
        if let Some(observer) = observer
            && !refused.is_empty()
        {
            let refused = refused.into_iter().map(|record| failed(record, settled)).collect();
            observer.failed(refused, self.kept.first().map(|record| record.first), error);
        }
        None
    }

    /// The number of the first record that waits. Only the writer takes records out of the line.
    pub(crate) fn first_in_line(&self) -> Option<Lsn> {
        let line = self.shared.line.lock();
        self.kept.first().or(line.records.first()).map(|record| record.first)
    }

    /// After a failure the segment is as long as it was before.
    pub(crate) fn set_abandoned_size(&mut self) {
        if let Some(end) = self.log.place() {
            let mut state = self.shared.state.write();
            if state.index.segment(end.segment).is_some() {
                state.index.set_size(end.segment, end.offset);
            }
        }
    }

    /// The last turn: what was kept is given up, and the lock let go.
    fn end(mut self, how: Closing) {
        let error = self.last_checkpoint(how).err();
        let kept = mem::take(&mut self.kept);
        let observer = self.shared.observer.read().clone();
        if let Some(observer) = observer
            && !kept.is_empty()
        {
            let why = io::Error::other("the store was closed before the disk worked again");
            // Part of them may have been written by one of the tries.
            let next = Lsn(self.shared.line.lock().next);
            let settled = self.prepare(next).is_ok();
            observer.failed(kept.into_iter().map(|record| failed(record, settled)).collect(), None, &why);
        }
        let shared = self.shared.clone();
        drop(self);
        let mut line = shared.line.lock();
        line.closed = true;
        line.checkpoint_error = error.map(|error| (error.kind(), error.to_string()));
        shared.served.notify_all();
    }

    fn last_checkpoint(&mut self, how: Closing) -> io::Result<()> {
        if !self.kept.is_empty() {
            return Err(io::Error::other("the disk fails, and some records could not be written"));
        }
        if !self.log.is_synced() {
            self.sync()?;
        }
        match how {
            Closing::Orderly => self.checkpoint_at_once(),
            Closing::Plain => Ok(()),
        }
    }
}

/// How many of the records go into one batch: at least one.
fn batch_len(records: &[Waiting]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Waiting| {
        bytes += record.cost();
        bytes <= BATCH_BYTES
    };
    records.iter().take_while(fits).count().max(1)
}

fn committed(record: Waiting) -> Committed {
    Committed { first: record.first, events: record.events, token: record.token }
}

fn failed(record: Waiting, settled: bool) -> Failed {
    Failed { first: record.first, events: record.events, token: record.token, settled }
}
