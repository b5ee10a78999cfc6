//! The log as it is written: the segment at its head, and what becomes of it when the disk fails.

use std::io;
use std::mem;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::event::Lsn;
use crate::failpoint::failpoint;
use crate::segment::{self, End, Header, LOG, SEGMENT_HEADER};

/// A segment is written under this name, and renamed when its header is on disk: a segment always has a header.
pub(crate) const TEMPORARY: &str = "log/segment.tmp";

/// The last segment of the log, whether it is written to or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    /// Where it ends: what is beyond does not count.
    pub end: End,
    /// What its own header says.
    pub previous: Option<End>,
}

/// The segment that is written to.
#[derive(Debug)]
struct Head {
    file: Arc<dyn DiskFile>,
    first: u64,
    previous: Option<End>,
    /// Bytes in it.
    end: u64,
    /// Bytes of these that are synced.
    synced: u64,
}

/// The log's head.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    mark: u32,
    head: Option<Head>,
    tail: Option<Tail>,
    /// Records that were written and applied, but not synced: they are written again if their segment is abandoned.
    /// They hold no messages, so that nothing points to where they stand.
    unsynced: Vec<u8>,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, mark: u32, tail: Option<Tail>) -> Self {
        Self { disk, mark, head: None, tail, unsynced: Vec::new() }
    }

    pub(crate) fn mark(&self) -> u32 {
        self.mark
    }

    /// The segment that is written to, and its size.
    pub(crate) fn head(&self) -> Option<(u64, u64)> {
        self.head.as_ref().map(|head| (head.first, head.end))
    }

    /// Everything that was written is synced, so that the next record may say so.
    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && self.head.as_ref().is_none_or(|head| head.synced == head.end)
    }

    /// Where the log ends.
    pub(crate) fn place(&self) -> Option<End> {
        let head = self.head.as_ref().map(|head| End { segment: head.first, offset: head.end });
        head.or(self.tail.map(|tail| tail.end))
    }

    /// Makes sure that there is a segment to write to, with `bytes_max` not passed yet; says whether it is new. `first`
    /// is the number of the next event to be written.
    pub(crate) fn prepare(&mut self, first: Lsn, bytes_max: u64) -> io::Result<bool> {
        match &self.head {
            Some(head) if head.end < bytes_max => return Ok(false),
            Some(_) => self.seal()?,
            None => {}
        }
        self.begin(first)?;
        Ok(true)
    }

    /// Appends records to the prepared segment; says where they begin. When they are not going to be synced, they are
    /// kept in case that the segment is abandoned.
    ///
    /// After an error the segment is abandoned, here and in [`Log::sync`].
    pub(crate) fn write(&mut self, records: &[u8], keep: bool) -> io::Result<End> {
        let Some(head) = &mut self.head else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = head.file.append(records) {
            self.abandon();
            return Err(error);
        }
        let place = End { segment: head.first, offset: head.end };
        head.end += records.len() as u64;
        if keep {
            self.unsynced.extend_from_slice(records);
        }
        Ok(place)
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(head) = &mut self.head {
            if let Err(error) = head.file.sync() {
                self.abandon();
                return Err(error);
            }
            head.synced = head.end;
        } else if !self.unsynced.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Bytes that were written without a sync and are kept for that reason.
    pub(crate) fn unsynced_bytes(&self) -> usize {
        self.unsynced.len()
    }

    /// Ends the segment in good order.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        self.sync()?;
        self.leave();
        Ok(())
    }

    /// Ends the segment after a failure: what was not synced does not count, and the file is not trusted any more.
    fn abandon(&mut self) {
        self.leave();
        let Some(Tail { end, .. }) = self.tail else { return };
        failpoint(&*self.disk, "store.before-truncate");
        // Only to give the space back: the next segment's header says the same, durably.
        let _ = self.disk.truncate(&segment::path(end.segment), end.offset);
        failpoint(&*self.disk, "store.after-truncate");
    }

    fn leave(&mut self) {
        if let Some(head) = self.head.take() {
            let end = End { segment: head.first, offset: head.synced };
            self.tail = Some(Tail { end, previous: head.previous });
        }
    }

    /// Begins a segment. From when this returns, nothing beyond the end of the one before can come back.
    fn begin(&mut self, first: Lsn) -> io::Result<()> {
        failpoint(&*self.disk, "store.before-segment");
        let (first, previous) = match self.tail {
            // Nothing stands in the tail: it is replaced.
            Some(tail) if tail.end.segment >= first.0 && tail.end.offset <= SEGMENT_HEADER as u64 => {
                (Lsn(tail.end.segment), tail.previous)
            }
            // Moves of messages stand in it, which take no numbers; names grow all the same.
            Some(tail) if tail.end.segment >= first.0 => (Lsn(tail.end.segment).plus(1), Some(tail.end)),
            tail => (first, tail.map(|tail| tail.end)),
        };
        let file = self.create(first, previous)?;
        let end = SEGMENT_HEADER as u64;
        self.head = Some(Head { file, first: first.0, previous, end, synced: end });
        failpoint(&*self.disk, "store.after-segment");
        self.write_again()
    }

    fn create(&self, first: Lsn, previous: Option<End>) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(TEMPORARY)?;
        file.append(&Header { mark: self.mark, first, previous }.encode())?;
        failpoint(&*self.disk, "store.segment-written");
        file.sync()?;
        self.disk.rename(TEMPORARY, &segment::path(first.0))?;
        failpoint(&*self.disk, "store.segment-renamed");
        self.disk.sync_dir(LOG)?;
        Ok(file)
    }

    /// What the last segment lost when it was abandoned.
    fn write_again(&mut self) -> io::Result<()> {
        let records = mem::take(&mut self.unsynced);
        if records.is_empty() {
            return Ok(());
        }
        let written = self.write(&records, false);
        self.unsynced = records;
        written.map(|_| ())
    }
}
