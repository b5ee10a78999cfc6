//! The version of what is on disk, and the way from an older one to ours.

use std::io;

use crate::disk::Disk;
use crate::failpoint::failpoint;
use crate::files::read_whole;
use crate::wire::u32_at;

/// The version of the files that this program writes.
pub const VERSION: u32 = 1;

pub(crate) const FILE: &str = "format";
pub(crate) const TEMPORARY: &str = "format.tmp";
const MAGIC: &[u8; 14] = b"forebay store\n";
const LEN: usize = 26;

/// The oldest version that can be brought up to date.
pub(crate) const OLDEST: u32 = 1;

/// Brings a store from one version to the next. It may be cut off anywhere and is then carried out again, so it must
/// not mind finding its work half done.
type Step = fn(&dyn Disk) -> io::Result<()>;

/// From [`OLDEST`] on, one step for each version that came after it. There is none yet.
const STEPS: [Step; (VERSION - OLDEST) as usize] = [];

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
    pub(crate) fn new(mark: u32) -> Self {
        Self { version: VERSION, mark }
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
    match read_whole(disk, FILE, LEN as u64) {
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
pub(crate) fn migrate(disk: &dyn Disk, format: Format) -> io::Result<Format> {
    carry_out(disk, format, OLDEST, &STEPS)
}

fn carry_out(disk: &dyn Disk, mut format: Format, oldest: u32, steps: &[Step]) -> io::Result<Format> {
    for step in steps.iter().skip(format.version.saturating_sub(oldest) as usize) {
        failpoint(disk, "store.migration-step");
        step(disk)?;
        format.version += 1;
        write(disk, format)?;
        failpoint(disk, "store.migration-done");
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_comes_back_and_no_bit_of_it_may_change() {
        let format = Format::new(0x5eed_1234);
        assert_eq!(Format::decode(&format.encode()), Some(format));
        for bit in 0..LEN * 8 {
            let mut damaged = format.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Format::decode(&damaged), None, "bit {bit}");
        }
    }

    #[cfg(feature = "sim")]
    mod steps {
        use super::*;
        use crate::sim::SimDisk;

        /// Adds a letter to a file, once.
        fn write_letter(disk: &dyn Disk, letter: u8) -> io::Result<()> {
            let file = disk.create("letters.tmp")?;
            let before = read_whole(disk, "letters", 100).unwrap_or_default();
            let after =
                if before.contains(&letter) { before.to_vec() } else { [&before[..], &[letter]].concat() };
            file.append(&after)?;
            file.sync()?;
            disk.rename("letters.tmp", "letters")?;
            disk.sync_dir("")
        }

        const LETTERS: [Step; 3] = [
            |disk| write_letter(disk, b'a'),
            |disk| write_letter(disk, b'b'),
            |disk| write_letter(disk, b'c'),
        ];

        #[test]
        fn every_step_is_taken_once_wherever_the_power_is_cut() {
            for (version, expected) in [(1, "abc"), (2, "bc"), (3, "c"), (4, "")] {
                for cut in 0..80 {
                    let disk = SimDisk::new(cut);
                    write(&*disk.process(), Format { version, mark: 5 }).unwrap();
                    disk.cut_power_after(cut);
                    loop {
                        let process = disk.process();
                        let Ok(Found::Format(format)) = read(&*process) else { continue };
                        if carry_out(&*process, format, 1, &LETTERS).is_ok() {
                            break;
                        }
                    }
                    disk.spare();
                    let found = disk.contents("letters").unwrap_or_default();
                    assert_eq!(String::from_utf8(found).unwrap(), expected, "version {version}, cut {cut}");
                    let found = read(&*disk.process()).unwrap();
                    assert_eq!(found, Found::Format(Format { version: 4, mark: 5 }));
                }
            }
        }
    }
}
