//! What can go wrong, for those who must do something about it.

use std::io;

use crate::event::Lsn;

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses the store in {0}")]
    Locked(String),
    /// A newer version wrote it.
    #[error(
        "the store in {directory} has version {version}; this program knows up to {known}: a newer one is needed"
    )]
    Newer {
        /// Where.
        directory: String,
        /// The version of what is there.
        version: u32,
        /// The newest that we can read.
        known: u32,
    },
    /// It is older than what can be brought up to date.
    #[error(
        "the store in {directory} has version {version}; this program reads {oldest} to {known}: \
         start a version of forebay in between on it first"
    )]
    Older {
        /// Where.
        directory: String,
        /// The version of what is there.
        version: u32,
        /// The oldest that we can read.
        oldest: u32,
        /// The newest that we can read.
        known: u32,
    },
    /// There is none, and none is to be made.
    #[error("there is no store in {0}")]
    Missing(String),
    /// The disk does not do what it is asked.
    #[error("cannot {doing} in {directory}: {error}")]
    Io {
        /// Where.
        directory: String,
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        error: io::Error,
    },
}

/// Why events are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The store would grow beyond what it may take, or the device is full.
    #[error("the store is full")]
    Full,
    /// One record cannot be so large.
    #[error("the events are too large for one record")]
    TooLarge,
    /// The disk failed, and has not recovered yet.
    #[error("the disk of the store fails")]
    Failing,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody holds it any more, or it never was.
    #[error("there is no message {0}")]
    Gone(Lsn),
    /// What stands in its place is not what was written.
    #[error("message {0} is damaged: {1}")]
    Corrupt(Lsn, &'static str),
    /// The disk does not give it.
    #[error("message {0} cannot be read: {1}")]
    Io(Lsn, #[source] io::Error),
}

/// The file system or the quota has no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
