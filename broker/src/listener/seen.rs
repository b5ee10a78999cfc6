//! Files as they were when they were read: what differs later has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file, and how it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub path: PathBuf,
    state: Option<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Seen {
    /// How the file (or directory, or what a link leads to) is now. Asked before it is read: a change that comes in between
    /// is then seen as one.
    pub fn now(path: &Path) -> Self {
        let state = fs::metadata(path).ok().map(|file| State {
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        });
        Self { path: path.to_owned(), state }
    }

    /// How all of these are now.
    pub fn all<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Self> {
        paths.into_iter().map(|path| Self::now(path)).collect()
    }
}
