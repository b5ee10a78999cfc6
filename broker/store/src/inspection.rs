//! Looking into a store without changing it: what it holds, and whether every record of it is whole.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::checkpoint;
use crate::codec;
use crate::disk::{Disk, Lock};
use crate::error::{OpenError, ReadError};
use crate::event::{Lsn, Message};
use crate::files::{Files, read_whole};
use crate::format::VERSION;
use crate::recovery::{self, LOCK, Piece, QUARANTINE, Quarantined, Read, Reader, Recovery, Torn};
use crate::replay::{Found, Scan};
use crate::segment::{self, LOG, SEGMENT_HEADER};
use crate::state::State;

/// A store that is looked into. As long as this lives, no process can open it; a process that has it open already keeps
/// everybody from looking.
#[derive(Debug)]
pub struct Inspection {
    disk: Arc<dyn Disk>,
    files: Files,
    version: u32,
    mark: u32,
    state: State,
    recovery: Recovery,
    _lock: Box<dyn Lock>,
}

/// What every record of a store was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are whole.
    pub records: u64,
    /// Whatever is not, in the order of the files.
    pub damaged: Vec<Quarantined>,
    /// The end of the log that a crash left half written: normal, and nothing that was committed.
    pub torn: Option<Torn>,
    /// Entries of queues whose message is lost.
    pub lost_entries: usize,
    /// Topics whose retained message is lost.
    pub lost_retained: usize,
    /// Messages that somebody waits for and that cannot be read.
    pub unreadable: Vec<Lsn>,
}

impl Report {
    /// Nothing that was committed is lost or changed.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.unreadable.is_empty() && self.lost_entries + self.lost_retained == 0
    }
}

/// What a store takes on disk, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Segments of the log.
    pub segments: usize,
    /// What they take.
    pub log: u64,
    /// What messages that somebody waits for take of that.
    pub live: u64,
    /// Checkpoints.
    pub checkpoints: usize,
    /// What they take.
    pub checkpoint: u64,
    /// Damaged pieces that were set aside.
    pub quarantined: usize,
    /// What they take.
    pub quarantine: u64,
    /// Everything else: the reserve for when the device is full, the format, the lock.
    pub other: u64,
}

impl Inspection {
    /// Reads a store in, as a start would, and changes nothing.
    ///
    /// # Errors
    /// There is no store, a process has it open, or it has a version that is not ours.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let doing = |doing| {
            let directory = disk.describe();
            move |error| OpenError::Io { directory, doing, error }
        };
        let lock = disk.lock_shared(LOCK).map_err(doing("lock the store"))?;
        let lock = lock.ok_or_else(|| OpenError::Locked(disk.describe()))?;
        let (format, lost) = recovery::read_format(&*disk)?;
        let mark = match format {
            Some(format) => Some(format.mark),
            None => recovery::mark_of_files(&*disk).map_err(doing("read the format"))?,
        };
        let mark = mark.or(lost.is_some().then_some(0)).ok_or_else(|| OpenError::Missing(disk.describe()))?;
        let recovery = Recovery { quarantined: lost.into_iter().collect(), ..Recovery::default() };
        let mut reader = Reader { disk: &*disk, mark, keep: false, unsure_from: 0, recovery };
        let Read { state, .. } = reader.read().map_err(doing("read the store"))?;
        let Reader { recovery, .. } = reader;
        Ok(Self {
            files: Files::new(disk.clone()),
            version: format.map_or(VERSION, |format| format.version),
            disk,
            mark,
            state,
            recovery,
            _lock: lock,
        })
    }

    /// The version of its files.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What a start would begin with.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What a start would find.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// A message, its checksum verified.
    ///
    /// # Errors
    /// It is damaged, or the disk does not give it.
    pub fn read(&self, message: Lsn) -> Result<Message, ReadError> {
        let at = self.state.index.locate(message).ok_or(ReadError::Gone(message))?;
        let block = self.files.read(at).map_err(|error| ReadError::Io(message, error))?;
        codec::read_block(&block).map_err(|malformed| ReadError::Corrupt(message, malformed.0))
    }

    /// What the files take.
    ///
    /// # Errors
    /// The disk does not say.
    pub fn sizes(&self) -> io::Result<Sizes> {
        let mut sizes = Sizes { live: self.state.index.live_bytes(), ..Sizes::default() };
        for dir in ["", LOG, QUARANTINE] {
            for name in self.disk.list(dir).or_else(none_if_missing)? {
                let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
                if path == LOG || path == QUARANTINE {
                    continue;
                }
                let bytes = self.disk.len(&path)?;
                match dir {
                    LOG if segment::first_of(&name).is_some() => {
                        sizes.segments += 1;
                        sizes.log += bytes;
                    }
                    QUARANTINE => {
                        sizes.quarantined += 1;
                        sizes.quarantine += bytes;
                    }
                    "" if checkpoint::last_of(&name).is_some() => {
                        sizes.checkpoints += 1;
                        sizes.checkpoint += bytes;
                    }
                    _ => sizes.other += bytes,
                }
            }
        }
        Ok(sizes)
    }

    /// Reads everything there is, also what a start would not look at.
    ///
    /// # Errors
    /// A directory cannot be listed. Files that cannot be read count as damaged.
    pub fn verify(&self) -> io::Result<Report> {
        let mut report = Report {
            lost_entries: self.recovery.lost_entries,
            lost_retained: self.recovery.lost_retained,
            ..Report::default()
        };
        let mut damaged = BTreeMap::new();
        for damage in &self.recovery.quarantined {
            note(&mut damaged, damage.clone());
        }
        self.verify_checkpoints(&mut report, &mut damaged)?;
        self.verify_log(&mut report, &mut damaged)?;
        report.damaged = damaged.into_values().collect();
        report.unreadable =
            self.state.index.all().into_iter().filter(|&message| self.read(message).is_err()).collect();
        Ok(report)
    }

    fn verify_checkpoints(&self, report: &mut Report, damaged: &mut Damages) -> io::Result<()> {
        for name in self.disk.list("")?.into_iter().filter(|name| checkpoint::last_of(name).is_some()) {
            let bytes = read_whole(&*self.disk, &name, u64::MAX)?;
            report.files += 1;
            report.bytes += bytes.len() as u64;
            if let Err(malformed) = checkpoint::decode(&bytes) {
                let bytes = bytes.len() as u64;
                note(damaged, Quarantined { file: name, offset: 0, bytes, reason: malformed.0 });
            }
        }
        Ok(())
    }

    fn verify_log(&self, report: &mut Report, damaged: &mut Damages) -> io::Result<()> {
        let mut firsts = recovery::segments(&*self.disk)?.into_iter();
        let mut piece = firsts.next().map(|first| Piece::read(&*self.disk, self.mark, first)).transpose()?;
        let mut last = Lsn(0);
        while let Some(current) = piece {
            let next = firsts.next().map(|first| Piece::read(&*self.disk, self.mark, first)).transpose()?;
            report.files += 1;
            report.bytes += current.bytes.len() as u64;
            self.verify_segment(&current, next.as_ref(), &mut last, report, damaged);
            piece = next;
        }
        Ok(())
    }

    fn verify_segment(
        &self,
        piece: &Piece,
        next: Option<&Piece>,
        last: &mut Lsn,
        report: &mut Report,
        damaged: &mut Damages,
    ) {
        let file = segment::path(piece.first);
        if piece.header.is_none() {
            let bytes = piece.bytes.len().min(SEGMENT_HEADER) as u64;
            let reason = recovery::SEGMENT_HEADER_DAMAGED;
            note(damaged, Quarantined { file: file.clone(), offset: 0, bytes, reason });
        }
        let scan = Scan { bytes: &piece.bytes, mark: self.mark, fence: piece.fence(next) };
        scan.run(SEGMENT_HEADER.min(piece.bytes.len()), last, |found| match found {
            Found::Record(..) => report.records += 1,
            Found::Damage(range, reason) => {
                let (offset, bytes) = (range.start as u64, range.len() as u64);
                note(damaged, Quarantined { file: file.clone(), offset, bytes, reason });
            }
            Found::Torn(range, reason) => {
                let (offset, bytes) = (range.start as u64, range.len() as u64);
                report.torn = Some(Torn { file: file.clone(), offset, bytes, reason });
            }
        });
    }
}

/// By file and place, so that what is found on two ways is reported once.
type Damages = BTreeMap<(String, u64, &'static str), Quarantined>;

fn note(damaged: &mut Damages, found: Quarantined) {
    damaged.entry((found.file.clone(), found.offset, found.reason)).or_insert(found);
}

fn none_if_missing(error: io::Error) -> io::Result<Vec<String>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}
