//! Opening a store: the newest checkpoint that holds, and the log behind it. Whatever is damaged is set aside and
//! reported; what is not damaged is there.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, About};
use crate::disk::{Disk, Lock};
use crate::error::OpenError;
use crate::event::Lsn;
use crate::files::read_whole;
use crate::format::{self, Format, OLDEST, VERSION};
use crate::frame::SYNCED_BEFORE;
use crate::log::Tail;
use crate::replay::{self, Fence, Found, Scan};
use crate::segment::{self, End, Header, LOG, SEGMENT_HEADER};
use crate::state::State;

/// Where damaged bytes are kept for people to look at.
pub(crate) const QUARANTINE: &str = "quarantine";
pub(crate) const LOCK: &str = "lock";
/// Versions of segments that a newer program may have written; anything else is noise.
const NEWER_SEGMENTS: std::ops::Range<u32> = segment::VERSION + 1..segment::VERSION + 1000;
/// More than this is not kept.
const QUARANTINE_BYTES_MAX: u64 = 64 << 20;

/// What was found when a store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last event of the checkpoint that was used, if there was one.
    pub checkpoint: Option<Lsn>,
    /// Records of the log that were carried out after it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The end of the log that a crash left half written: normal, and nothing that was committed.
    pub torn: Option<Torn>,
    /// What is damaged.
    pub quarantined: Vec<Quarantined>,
    /// Entries of queues whose message is lost.
    pub lost_entries: usize,
    /// Topics whose retained message is lost.
    pub lost_retained: usize,
    /// The store had this older version.
    pub migrated_from: Option<u32>,
    /// The number that the next event gets.
    pub next: Lsn,
}

/// A half-written end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// In which file.
    pub file: String,
    /// From where on.
    pub offset: u64,
    /// How much was cut off.
    pub bytes: u64,
    /// How it showed.
    pub reason: &'static str,
}

/// Damaged bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// In which file.
    pub file: String,
    /// From where on.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong with them.
    pub reason: &'static str,
}

/// A checkpoint that is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub about: About,
    pub size: u64,
}

/// A store that was read in.
#[derive(Debug)]
pub(crate) struct Opened {
    pub state: State,
    pub mark: u32,
    pub tail: Option<Tail>,
    /// Oldest first.
    pub checkpoints: Vec<Kept>,
    pub lock: Box<dyn Lock>,
}

pub(crate) const SEGMENT_HEADER_DAMAGED: &str = "header of the segment is damaged, or another store's";

/// A segment that was read.
pub(crate) struct Piece {
    pub first: u64,
    pub bytes: Bytes,
    /// If it is whole, and ours.
    pub header: Option<Header>,
}

impl Piece {
    pub(crate) fn read(disk: &dyn Disk, mark: u32, first: u64) -> io::Result<Self> {
        let bytes = read_whole(disk, &segment::path(first), u64::from(u32::MAX))?;
        let ours = |header: &Header| header.mark == mark && header.first.0 == first;
        let header = Header::decode(&bytes).filter(ours);
        Ok(Self { first, bytes, header })
    }

    /// How it ends, given the segment behind it.
    pub(crate) fn fence(&self, next: Option<&Self>) -> Fence {
        match next.map(|next| next.header.and_then(|header| header.previous)) {
            // A segment has its header before it has its name: without, it is not a crash that we see.
            None if self.header.is_none() => Fence::Unknown,
            None => Fence::Open,
            Some(Some(end)) if end.segment == self.first => Fence::At(end.offset),
            Some(_) => Fence::Unknown,
        }
    }
}

pub(crate) fn open(disk: &Arc<dyn Disk>) -> Result<(Opened, Recovery), OpenError> {
    let disk = &**disk;
    let failed = |doing| move |error| OpenError::Io { directory: disk.describe(), doing, error };
    let lock = disk.lock(LOCK).map_err(failed("lock the store"))?;
    let lock = lock.ok_or_else(|| OpenError::Locked(disk.describe()))?;
    let mut recovery = Recovery::default();
    let format = settle_format(disk, &mut recovery)?;
    make_directories(disk).map_err(failed("make directories"))?;
    let mut reader = Reader { disk, mark: format.mark, keep: true, unsure_from: 0, recovery };
    let read = reader.read().map_err(failed("read the store"))?;
    let Reader { recovery, .. } = reader;
    make_tail_durable(disk, &read, &recovery).map_err(failed("sync the log"))?;
    remove_leftovers(disk);
    let Read { state, tail, checkpoints, .. } = read;
    Ok((Opened { state, mark: format.mark, tail, checkpoints, lock }, recovery))
}

fn make_directories(disk: &dyn Disk) -> io::Result<()> {
    disk.create_dir(LOG)?;
    disk.create_dir(QUARANTINE)?;
    disk.sync_dir("")
}

/// What a crash left half made only takes space.
fn remove_leftovers(disk: &dyn Disk) {
    for name in [checkpoint::TEMPORARY, crate::log::TEMPORARY, format::TEMPORARY] {
        let _ = disk.remove(name);
    }
}

/// Finds out the version, migrates what is older and refuses what is newer.
fn settle_format(disk: &dyn Disk, recovery: &mut Recovery) -> Result<Format, OpenError> {
    let doing = |doing| move |error| OpenError::Io { directory: disk.describe(), doing, error };
    let (format, damaged) = read_format(disk)?;
    recovery.quarantined.extend(damaged);
    let format = match format {
        Some(format) => format,
        None => {
            // Whether lost or not there yet: what the other files say, or a new one.
            let mark = mark_of_files(disk).map_err(doing("read the format"))?;
            let format = Format::new(mark.unwrap_or_else(|| disk.draw()));
            format::write(disk, format).map_err(doing("write the format"))?;
            format
        }
    };
    if format.version < VERSION {
        recovery.migrated_from = Some(format.version);
    }
    format::migrate(disk, format).map_err(doing("migrate the store"))
}

/// The format, if there is one that can be used, or what is wrong with it. Another version than ours is an error unless
/// it can be migrated.
pub(crate) fn read_format(disk: &dyn Disk) -> Result<(Option<Format>, Option<Quarantined>), OpenError> {
    let failed = |error| OpenError::Io { directory: disk.describe(), doing: "read the format", error };
    let found = format::read(disk).map_err(failed)?;
    if let format::Found::Format(format) = found {
        check_version(disk, format.version)?;
        return Ok((Some(format), None));
    }
    // A newer program's files must not be taken for damaged ones of ours.
    for first in segments(disk).map_err(failed)? {
        let version = Header::version_of(&read_start(disk, &segment::path(first), SEGMENT_HEADER));
        if version.is_some_and(|version| NEWER_SEGMENTS.contains(&version)) {
            check_version(disk, VERSION.saturating_add(1))?;
        }
    }
    let is_lost = found == format::Found::Damaged || mark_of_files(disk).map_err(failed)?.is_some();
    let reason = "the file that names version and mark is damaged or missing";
    let lost = Quarantined { file: format::FILE.into(), offset: 0, bytes: 0, reason };
    Ok((None, is_lost.then_some(lost)))
}

fn check_version(disk: &dyn Disk, version: u32) -> Result<(), OpenError> {
    let directory = || disk.describe();
    if version > VERSION {
        return Err(OpenError::Newer { directory: directory(), version, known: VERSION });
    }
    if version < OLDEST {
        return Err(OpenError::Older { directory: directory(), version, oldest: OLDEST, known: VERSION });
    }
    Ok(())
}

/// The mark as segments and checkpoints have it, for when the format file is damaged.
pub(crate) fn mark_of_files(disk: &dyn Disk) -> io::Result<Option<u32>> {
    for name in disk.list("")?.iter().filter(|name| checkpoint::last_of(name).is_some()) {
        if let Some((about, ..)) = About::decode(&read_start(disk, name, checkpoint::HEADER)) {
            return Ok(Some(about.mark));
        }
    }
    for first in segments(disk)? {
        if let Some(header) = Header::decode(&read_start(disk, &segment::path(first), SEGMENT_HEADER)) {
            return Ok(Some(header.mark));
        }
    }
    Ok(None)
}

/// The first bytes of a file; none if it is shorter.
fn read_start(disk: &dyn Disk, name: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = disk.open(name).and_then(|file| file.read_at(&mut bytes, 0));
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

/// The first lsn of each segment there is, in order.
pub(crate) fn segments(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    match disk.list(LOG) {
        Ok(names) => Ok(names.iter().filter_map(|name| segment::first_of(name)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Cuts off what is torn, and syncs: what is read from the page cache after a process died may not be on disk yet, and
/// from now on everybody is told that it is.
///
/// It may not even be on its way there: if the process died over a sync that failed, the system takes it for written. So
/// what no record says was synced before is written again.
fn make_tail_durable(disk: &dyn Disk, read: &Read, recovery: &Recovery) -> io::Result<()> {
    let Some(tail) = read.tail else { return Ok(()) };
    let path = segment::path(tail.end.segment);
    match disk.open(&path) {
        Ok(file) => {
            if recovery.torn.is_some() {
                // Gives the space back; what is beyond counts for nothing anyway.
                let _ = disk.truncate(&path, tail.end.offset);
            }
            if read.unsure_from < tail.end.offset {
                disk.rewrite(&path, read.unsure_from)?;
            }
            file.sync()?;
        }
        // A checkpoint has made it superfluous.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    disk.sync_dir(LOG)?;
    disk.sync_dir("")
}

/// What was read of a store, before anything is written to it.
pub(crate) struct Read {
    pub state: State,
    pub tail: Option<Tail>,
    /// From where on no record in the tail says that it was synced.
    pub unsure_from: u64,
    pub checkpoints: Vec<Kept>,
}

/// Reads a store in.
pub(crate) struct Reader<'a> {
    pub disk: &'a dyn Disk,
    pub mark: u32,
    /// Set aside what is damaged; else only report it.
    pub keep: bool,
    /// From where on no record in the segment that was read last says that it was synced.
    pub unsure_from: u64,
    pub recovery: Recovery,
}

impl Reader<'_> {
    pub(crate) fn read(&mut self) -> io::Result<Read> {
        let (mut state, checkpoints) = self.read_checkpoints()?;
        let about = checkpoints.last().map(|kept| kept.about);
        let place = about.map(|about| about.place);
        let sizes = self.sizes()?;
        let tail = self.replay(&mut state, place, &sizes)?;
        self.drop_lost(&mut state, &sizes);
        let next = [about.map_or(1, |about| about.next), state.last.plus(1).0];
        let named = sizes.keys().next_back().copied();
        self.recovery.next = Lsn(next.into_iter().chain(named).max().unwrap_or(1));
        Ok(Read { state, tail, unsure_from: self.unsure_from, checkpoints })
    }

    /// The newest checkpoint that holds. Damaged ones are set aside.
    fn read_checkpoints(&mut self) -> io::Result<(State, Vec<Kept>)> {
        let names = self.disk.list("")?;
        let mut kept = Vec::new();
        let mut newest = None;
        for name in names.iter().rev().filter(|name| checkpoint::last_of(name).is_some()) {
            let bytes = match &newest {
                None => read_whole(self.disk, name, u64::MAX)?,
                Some(_) => Bytes::from(read_start(self.disk, name, checkpoint::HEADER)),
            };
            let about = match &newest {
                None => checkpoint::decode(&bytes).map(|(about, state)| {
                    newest = Some(state);
                    about
                }),
                Some(_) => About::decode(&bytes).map(|(about, ..)| about).ok_or(checkpoint::HEADER_DAMAGED),
            };
            match about {
                Ok(about) if about.mark != self.mark => {
                    self.set_aside_checkpoint(name, bytes.len(), "checkpoint of another store");
                    newest = newest.filter(|_| !kept.is_empty());
                }
                Ok(about) => kept.push(Kept { about, size: self.disk.len(name)? }),
                Err(malformed) => self.set_aside_checkpoint(name, bytes.len(), malformed.0),
            }
        }
        kept.reverse();
        self.recovery.checkpoint = newest.as_ref().map(|state| state.last);
        Ok((newest.unwrap_or_default(), kept))
    }

    fn set_aside_checkpoint(&mut self, name: &str, len: usize, reason: &'static str) {
        self.report(name.to_owned(), 0..len, reason);
        if self.keep {
            // If it cannot be moved, it is passed over again next time.
            let _ = match self.quarantine_has_room(len as u64) {
                true => self.disk.rename(name, &format!("{QUARANTINE}/{name}")),
                false => self.disk.remove(name),
            };
        }
    }

    /// The segments there are, and how large each is.
    fn sizes(&self) -> io::Result<BTreeMap<u64, u64>> {
        let sized = |first| Ok((first, self.disk.len(&segment::path(first))?));
        segments(self.disk)?.into_iter().map(sized).collect()
    }

    /// Carries out the log behind `place`; says where it ends.
    fn replay(
        &mut self,
        state: &mut State,
        place: Option<End>,
        sizes: &BTreeMap<u64, u64>,
    ) -> io::Result<Option<Tail>> {
        let start = place.map_or(0, |place| place.segment);
        for (&first, &size) in sizes {
            state.index.set_size(first, size);
        }
        let mut last = state.last;
        let mut tail = place.map(|end| Tail { end, previous: None });
        let mut firsts = sizes.range(start..).map(|(&first, _)| first).peekable();
        let mut piece = firsts.next().map(|first| Piece::read(self.disk, self.mark, first)).transpose()?;
        while let Some(current) = piece {
            let next = firsts.next().map(|first| Piece::read(self.disk, self.mark, first)).transpose()?;
            self.check_chain(&current, sizes, place);
            let from = match place {
                Some(place) if place.segment == current.first => place.offset,
                _ => 0,
            };
            let end = self.replay_piece(state, &current, next.as_ref(), from, &mut last);
            state.index.set_size(current.first, end.offset);
            let previous = current.header.and_then(|header| header.previous);
            tail = Some(Tail { end, previous });
            piece = next;
        }
        Ok(tail)
    }

    /// Reports a segment that should stand before this one.
    fn check_chain(&mut self, piece: &Piece, sizes: &BTreeMap<u64, u64>, place: Option<End>) {
        let Some(previous) = piece.header.and_then(|header| header.previous) else { return };
        // Not always the last one seen: one whose making failed half way may lie in between, empty.
        let there = sizes.contains_key(&previous.segment);
        let covered = place.is_some_and(|place| {
            previous.segment < place.segment
                || (previous.segment == place.segment && previous.offset <= place.offset)
        });
        if !there && !covered {
            self.report(segment::path(previous.segment), 0..0, "segment is missing");
        }
    }

    fn replay_piece(
        &mut self,
        state: &mut State,
        piece: &Piece,
        next: Option<&Piece>,
        from: u64,
        last: &mut Lsn,
    ) -> End {
        let from = usize::try_from(from).unwrap_or(usize::MAX).max(SEGMENT_HEADER);
        // Behind a checkpoint's place it is not needed.
        if piece.header.is_none() && from == SEGMENT_HEADER {
            let damaged = 0..SEGMENT_HEADER.min(piece.bytes.len());
            self.set_aside(piece, damaged, SEGMENT_HEADER_DAMAGED);
        }
        self.unsure_from = from as u64;
        let scan = Scan { bytes: &piece.bytes, mark: self.mark, fence: piece.fence(next) };
        let end = scan.run(from.min(piece.bytes.len()), last, |found| match found {
            Found::Record(frame, decoded) => {
                self.recovery.records += 1;
                self.recovery.bytes += (frame.end() - frame.start) as u64;
                if frame.flags & SYNCED_BEFORE != 0 {
                    self.unsure_from = frame.start as u64;
                }
                replay::apply(state, piece.first, &frame, &decoded);
            }
            Found::Damage(range, reason) => self.set_aside(piece, range, reason),
            Found::Torn(range, reason) => self.note_torn(piece, range, reason),
        });
        End { segment: piece.first, offset: end.max(SEGMENT_HEADER) as u64 }
    }

    fn note_torn(&mut self, piece: &Piece, range: Range<usize>, reason: &'static str) {
        let file = segment::path(piece.first);
        let bytes = range.len() as u64;
        self.recovery.torn = Some(Torn { file, offset: range.start as u64, bytes, reason });
        self.keep_aside(piece, range, reason);
    }

    fn set_aside(&mut self, piece: &Piece, range: Range<usize>, reason: &'static str) {
        self.report(segment::path(piece.first), range.clone(), reason);
        self.keep_aside(piece, range, reason);
    }

    fn keep_aside(&self, piece: &Piece, range: Range<usize>, reason: &'static str) {
        if self.keep && !range.is_empty() && self.quarantine_has_room(range.len() as u64) {
            let name = format!("{QUARANTINE}/{:020}-{}", piece.first, range.start);
            // Only for people to look at: if it cannot be written, the store opens all the same.
            let _ = self.write_aside(&name, &piece.bytes[range], reason);
        }
    }

    /// Whether so much may still be set aside.
    fn quarantine_has_room(&self, bytes: u64) -> bool {
        let names = self.disk.list(QUARANTINE).unwrap_or_default();
        let sizes = names.iter().filter_map(|name| self.disk.len(&format!("{QUARANTINE}/{name}")).ok());
        sizes.sum::<u64>().saturating_add(bytes) <= QUARANTINE_BYTES_MAX
    }

    /// The reason on a line of its own, then the bytes.
    fn write_aside(&self, name: &str, bytes: &[u8], reason: &str) -> io::Result<()> {
        if self.disk.len(name).is_ok() {
            return Ok(());
        }
        let file = self.disk.create(name)?;
        file.append(format!("{reason}\n").as_bytes())?;
        file.append(bytes)?;
        file.sync()
    }

    fn report(&mut self, file: String, range: Range<usize>, reason: &'static str) {
        let (offset, bytes) = (range.start as u64, range.len() as u64);
        self.recovery.quarantined.push(Quarantined { file, offset, bytes, reason });
    }

    /// Entries whose message is not there any more are dropped.
    fn drop_lost(&mut self, state: &mut State, sizes: &BTreeMap<u64, u64>) {
        let known: Vec<u64> = state.index.segments().map(|(first, _)| first).collect();
        let mut lost = false;
        for first in known {
            let beyond = match sizes.get(&first) {
                Some(&size) => state.index.lose_beyond(first, size) > 0,
                None => {
                    let had = state.index.segment(first).is_some_and(|segment| segment.live > 0);
                    state.index.remove_segment(first);
                    had
                }
            };
            if beyond {
                self.report(segment::path(first), 0..0, "messages that should stand here are gone");
            }
            lost |= beyond;
            state.index.seal(first);
        }
        if lost {
            (self.recovery.lost_entries, self.recovery.lost_retained) = state.drop_lost();
        }
    }
}
