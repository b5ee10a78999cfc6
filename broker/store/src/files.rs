//! Reading files: whole ones at a start, and blocks of segments whose files stay open for a while.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::index::Location;
use crate::segment;

/// Segments whose files are kept open.
const OPEN_MAX: usize = 64;

/// What is read at once where a device does not give a whole file.
const PIECE: usize = 4 << 10;

/// A file's contents, as far as `max` bytes. What the device does not give is zeros: checksums find that out.
pub(crate) fn read_whole(disk: &dyn Disk, name: &str, max: u64) -> io::Result<Bytes> {
    let file = disk.open(name)?;
    let len = usize::try_from(file.size()?.min(max)).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    if file.read_at(&mut bytes, 0).is_err() {
        for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
            if file.read_at(piece, (number * PIECE) as u64).is_err() {
                piece.fill(0);
            }
        }
    }
    Ok(Bytes::from(bytes))
}

/// The open files of segments.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    open: Mutex<HashMap<u64, Arc<dyn DiskFile>, FixedState>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::default() }
    }

    /// The block at a place, as it is there.
    pub(crate) fn read(&self, at: Location) -> io::Result<Bytes> {
        let mut bytes = vec![0; at.len as usize];
        self.file(at.segment)?.read_at(&mut bytes, u64::from(at.offset))?;
        Ok(Bytes::from(bytes))
    }

    /// The segment's file is gone, or is another one now.
    pub(crate) fn forget(&self, segment: u64) {
        self.open.lock().remove(&segment);
    }

    fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&segment) {
            return Ok(file.clone());
        }
        // Opened without the lock: another may do the same, which does no harm.
        let file = self.disk.open(&segment::path(segment))?;
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX
            && let Some(&other) = open.keys().next()
        {
            open.remove(&other);
        }
        open.insert(segment, file.clone());
        Ok(file)
    }
}
