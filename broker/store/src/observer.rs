//! Whoever is told what became of the records.

use std::io;

use crate::event::{Event, Lsn};

/// Called by the writer thread, in the order of the log. What it does holds up the next commit.
pub trait Observer: Send + Sync {
    /// These records are durable, and part of the state. Records that nobody waited for may still be lost if the
    /// power fails before the next one that somebody does wait for; not if the process ends.
    fn committed(&self, records: Vec<Committed>);
    /// These records are given up. `kept` is the first one, if any, that is not, and waits for the disk to work again: it and
    /// others between these are still undecided.
    fn failed(&self, records: Vec<Failed>, kept: Option<Lsn>, why: &io::Error);
    /// Commits work again.
    fn recovered(&self) {}
}

/// A record that is committed, with its events handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Number of its first event.
    pub first: Lsn,
    /// Its events.
    pub events: Vec<Event>,
    /// What its appender gave along.
    pub token: u64,
}

/// A record that is not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Number that its first event would have had.
    pub first: Lsn,
    /// Its events.
    pub events: Vec<Event>,
    /// What its appender gave along.
    pub token: u64,
    /// It cannot come back. Without this, part of it may have reached a disk that then failed altogether, and if the
    /// process ends before the disk works again, the record may be found there.
    pub settled: bool,
}

/// What to do with a record whose commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is given up and reported.
    Refuse,
    /// It is refused at once when the disk fails or is full; but once it is taken, it is kept and written with the next
    /// batch.
    Keep,
    /// It is kept, and written with the next batch.
    Retry,
    /// The same, and it is taken however full the store is: it follows from what is there, and makes room for it. Who appends
    /// such records holds back while the store [is crowded](crate::Store::is_crowded), so that its bound is passed by what is
    /// under way at most.
    Insist,
}
