//! The disk, as little of it as the store needs, so that another can take its place.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory tree. Names are relative to its root, their parts separated by `/`.
pub trait Disk: Send + Sync + Debug {
    /// A new, empty file for appending and reading; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file, for reading.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory, unless it is there.
    fn create_dir(&self, name: &str) -> io::Result<()>;
    /// The names in a directory, without it, sorted. The root is `""`.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Gives a file another name; one that has it already is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Cuts a file.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;
    /// Writes what is in a file from `offset` on once more, so that the next sync takes it for new.
    fn rewrite(&self, name: &str, offset: u64) -> io::Result<()>;
    /// A file's length.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Locks a file for as long as the guard lives; nothing if another process has it.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;
    /// Locks a file against [`Disk::lock`] for as long as the guard lives, changing nothing; nothing if a process has
    /// it. No such file is no error: then nobody has it.
    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;
    /// How people call the root.
    fn describe(&self) -> String;
    /// A number that nobody can guess.
    fn draw(&self) -> u32 {
        // Hash maps are seeded with good randomness: here is another use for it.
        RandomState::new().build_hasher().finish() as u32
    }
    /// A step in the life of the store is reached (see [`crate::FAILPOINTS`]): a simulated disk may lose power.
    fn step(&self, _name: &'static str) {}
}

/// What clients sent is nobody else's business.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What is rewritten at a time.
const REWRITE_PIECE: usize = 1 << 20;

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Adds bytes at the end. After an error nobody knows how many of them are there.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Fills the whole of `into` from `offset` on.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes the contents durable. After an error nobody knows which of them are, and another try proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn size(&self) -> io::Result<u64>;
}

/// Held as long as it lives.
pub trait Lock: Send + Sync + Debug {}

/// A directory of the operating system's.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The directory, which is made if it does not exist, for its owner alone.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_dirs(&root)?;
        Ok(Self { root })
    }

    /// An existing directory, for tools that change nothing.
    pub fn existing(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::metadata(&root)?;
        Ok(Self { root })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        // Truncating and appending do not go together in one call.
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&path)?;
        Ok(Arc::new(OpenOptions::new().read(true).append(true).open(path)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(self.path(name))?))
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        make_dirs(&self.path(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rewrite(&self, name: &str, offset: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        let mut piece = vec![0; REWRITE_PIECE];
        let mut at = offset;
        loop {
            let count = FileExt::read_at(&file, &mut piece, at)?;
            if count == 0 {
                return Ok(());
            }
            file.write_all_at(&piece[..count], at)?;
            at += count as u64;
        }
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(FILE_MODE).open(self.path(name))?;
        guard(file.try_lock(), file)
    }

    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        match File::open(self.path(name)) {
            Ok(file) => guard(file.try_lock_shared(), file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Box::new(NoFile))),
            Err(error) => Err(error),
        }
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

fn guard(locked: Result<(), TryLockError>, file: File) -> io::Result<Option<Box<dyn Lock>>> {
    match locked {
        Ok(()) => Ok(Some(Box::new(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes a directory and those above it, durably: what is later said to be on disk must not hang in the air.
fn make_dirs(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Err(error), make_dirs)?;
            make_dirs(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Lock for File {}

/// The guard of a lock that nobody can have.
#[derive(Debug)]
struct NoFile;

impl Lock for NoFile {}

impl DiskFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
