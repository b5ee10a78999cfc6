//! The version of what is on disk, and the way from an older one to ours.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use crate::disk::Disk;
use crate::failpoint::failpoint;
use crate::files::read_whole;
use crate::segment;
use crate::wire::u32_at;

/// The version of the files that this program writes.
pub const VERSION: u32 = 1;

const FILE: &str = "format";
const TEMPORARY: &str = "format.tmp";
const MAGIC: &[u8; 14] = b"forebay store\n";
const LEN: usize = 26;

/// One step for each older version: from that one to the next. A step may be cut off anywhere and is then carried out
/// again, so it must not mind finding its work half done.
const STEPS: [fn(&dyn Disk) -> io::Result<()>; VERSION as usize] = [segments_into_their_directory];

/// What the file `format` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub version: u32,
    /// The mark of this store's records.
    pub mark: u32,
}

/// What there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Damaged,
    Format(Format),
}

impl Format {
    /// Of a new store.
    pub(crate) fn new() -> Self {
        // Hash maps are seeded with good randomness: here is the only other use for it.
        let drawn = RandomState::new().build_hasher().finish();
        Self { version: VERSION, mark: drawn as u32 }
    }

    fn encode(self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..14].copy_from_slice(MAGIC);
        out[14..18].copy_from_slice(&self.version.to_le_bytes());
        out[18..22].copy_from_slice(&self.mark.to_le_bytes());
        let sum = crc32fast::hash(&out[..22]);
        out[22..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LEN).filter(|bytes| bytes.starts_with(MAGIC))?;
        let whole = u32_at(bytes, 22) == Some(crc32fast::hash(&bytes[..22]));
        whole.then_some(())?;
        Some(Self { version: u32_at(bytes, 14)?, mark: u32_at(bytes, 18)? })
    }
}

pub(crate) fn read(disk: &dyn Disk) -> io::Result<Found> {
    match read_whole(disk, FILE) {
        Ok(bytes) => Ok(Format::decode(&bytes).map_or(Found::Damaged, Found::Format)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

pub(crate) fn write(disk: &dyn Disk, format: Format) -> io::Result<()> {
    let file = disk.create(TEMPORARY)?;
    file.append(&format.encode())?;
    file.sync()?;
    disk.rename(TEMPORARY, FILE)?;
    disk.sync_dir("")
}

/// Brings an older store to our version, one step after the other.
pub(crate) fn migrate(disk: &dyn Disk, mut format: Format) -> io::Result<Format> {
    for step in STEPS.iter().skip(format.version as usize) {
        failpoint(disk, "store.migration-step");
        step(disk)?;
        format.version += 1;
        write(disk, format)?;
        failpoint(disk, "store.migration-done");
    }
    Ok(format)
}

/// Version 0, which only tests write, had the segments beside everything else.
fn segments_into_their_directory(disk: &dyn Disk) -> io::Result<()> {
    disk.create_dir(segment::LOG)?;
    for name in disk.list("")? {
        if let Some(first) = segment::first_of(&name) {
            disk.rename(&name, &segment::path(first))?;
        }
    }
    disk.sync_dir(segment::LOG)?;
    disk.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_comes_back_and_no_bit_of_it_may_change() {
        let format = Format::new();
        assert_eq!(Format::decode(&format.encode()), Some(format));
        for bit in 0..LEN * 8 {
            let mut damaged = format.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Format::decode(&damaged), None, "bit {bit}");
        }
    }
}
