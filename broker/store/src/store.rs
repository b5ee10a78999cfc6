//! The store, as its users see it.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::chores::Chores;
use crate::clock::Clock;
use crate::codec;
use crate::disk::Disk;
use crate::error::{OpenError, ReadError, Refused};
use crate::event::{Event, Lsn, Message};
use crate::files::Files;
use crate::line::{Closing, Health, Line};
use crate::log::Log;
use crate::observer::{Observer, OnFailure};
use crate::options::Options;
use crate::recovery::{self, Opened, Recovery};
use crate::state::State;
use crate::stats::{Meters, Stats, add};
use crate::writer::Writer;

/// A durable store. Cheap to clone; all clones are the same store.
///
/// When the last clone goes without [`Store::close`], what waits is still written.
#[derive(Debug, Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// What the store's users and its writer share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub line: Mutex<Line>,
    /// Wakes the writer.
    pub wake: Condvar,
    /// Tells that a checkpoint is written, or could not be.
    pub served: Condvar,
    pub state: RwLock<State>,
    pub committed: AtomicU64,
    pub observer: RwLock<Option<Arc<dyn Observer>>>,
    pub files: Files,
    pub meters: Meters,
    pub clock: Clock,
}

/// Ends the writer when nobody uses the store any more.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store on this disk, and makes it if there is none. One process can have it open at a time.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovery), OpenError> {
        let (shared, writer, recovery) = assemble(&disk, options, Clock::of_the_machine())?;
        let thread = thread::Builder::new().name("store".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| OpenError::Io {
            directory: disk.describe(),
            doing: "start a thread for the store",
            error,
        })?;
        Ok((Self::of(shared, Some(thread)), recovery))
    }

    pub(crate) fn of(shared: Arc<Shared>, writer: Option<JoinHandle<()>>) -> Self {
        Self { handle: Arc::new(Handle { shared, writer: Mutex::new(writer) }) }
    }

    /// From now on `observer` is told what becomes of records. To be called before the first append.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        *self.handle.shared.observer.write() = Some(observer);
    }

    /// Puts events in line for the next commit, as one atomic record. Gives the number of the first.
    ///
    /// With `urgent`, somebody waits: the record is written as soon as the disk is free. Without, it is written with
    /// the next batch that somebody waits for, or after [`Options::lazy_ms`]. The observer gets `token` back.
    pub fn append(
        &self,
        events: Vec<Event>,
        on_failure: OnFailure,
        urgent: bool,
        token: u64,
    ) -> Result<Lsn, Refused> {
        let shared = &*self.handle.shared;
        // Encoded before the lock is taken: only numbers are given under it.
        let encoded = codec::encode(&events);
        let mut line = shared.line.lock();
        let joined = line.join(events, encoded, on_failure, urgent, token);
        let wake = (joined.is_ok() || line.pressed) && line.must_wake();
        drop(line);
        if wake {
            shared.wake.notify_one();
        }
        if joined == Err(Refused::Full) {
            add(&shared.meters.refused_full, 1);
        }
        joined
    }

    /// More is in the store, or about to be, than anybody may add who can be refused.
    pub fn is_crowded(&self) -> bool {
        self.handle.shared.line.lock().is_crowded()
    }

    /// Number of the last committed event.
    pub fn committed(&self) -> Lsn {
        Lsn(self.handle.shared.committed.load(Ordering::Acquire))
    }

    /// The committed state, which stands still as long as the guard lives: no commit ends meanwhile.
    pub fn state(&self) -> impl Deref<Target = State> + '_ {
        self.handle.shared.state.read()
    }

    /// A message that some queue or topic holds, from disk, its checksum verified.
    pub fn read(&self, message: Lsn) -> Result<Arc<Message>, ReadError> {
        let shared = &*self.handle.shared;
        let mut before = None;
        loop {
            let at = shared.state.read().index.locate(message).ok_or(ReadError::Gone(message))?;
            let read = shared.files.read(at);
            let found = match &read {
                Ok(block) => codec::read_block(block).map_err(|malformed| malformed.0),
                Err(_) => Err("cannot be read"),
            };
            match (found, read) {
                (Ok(found), _) => return Ok(Arc::new(found)),
                // It may have been moved between the two looks: then it is elsewhere now.
                _ if before != Some(at) => before = Some(at),
                (Err(_), Err(error)) => return Err(ReadError::Io(message, error)),
                (Err(reason), Ok(_)) => return Err(ReadError::Corrupt(message, reason)),
            }
        }
    }

    /// Writes a checkpoint now, and waits for it. The store does so by itself from time to time.
    pub fn checkpoint(&self) -> io::Result<()> {
        let shared = &*self.handle.shared;
        let mut line = shared.line.lock();
        line.checkpoints_asked += 1;
        let ours = line.checkpoints_asked;
        shared.wake.notify_one();
        while line.checkpoints_served < ours {
            if line.closed {
                return Err(io::Error::other("the store is closed"));
            }
            shared.served.wait(&mut line);
        }
        match &line.checkpoint_error {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    /// Writes what waits and a checkpoint, and lets go of the store, for all clones.
    pub fn close(self) -> io::Result<()> {
        self.handle.end(Closing::Orderly);
        match &self.handle.shared.line.lock().checkpoint_error {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    /// What the store holds and has done.
    pub fn stats(&self) -> Stats {
        let shared = &*self.handle.shared;
        let mut stats = shared.meters.read();
        stats.bytes_max = shared.options.max_bytes;
        stats.committed = self.committed().0;
        {
            let line = shared.line.lock();
            stats.bytes = line.room.used;
            stats.short = line.room.short;
            stats.waiting = line.records.len();
            stats.failing = line.health != Health::Working;
        }
        let state = shared.state.read();
        stats.segments = state.index.segments().count();
        stats.live_bytes = state.index.live_bytes();
        stats.messages = state.index.live();
        stats.queued = state.entries;
        stats.sessions = state.sessions.len();
        let queues: usize = state.sessions.values().map(|session| session.queue.memory()).sum();
        stats.memory = queues + state.index.memory();
        stats
    }
}

/// Reads a store in and puts its parts together; nothing runs yet.
pub(crate) fn assemble(
    disk: &Arc<dyn Disk>,
    options: Options,
    clock: Clock,
) -> Result<(Arc<Shared>, Writer, Recovery), OpenError> {
    let (opened, recovery) = recovery::open(disk)?;
    let Opened { state, mark, tail, checkpoints, lock } = opened;
    let shared = Arc::new(Shared {
        files: Files::new(disk.clone()),
        line: Mutex::new(Line { next: recovery.next.0, ..Line::default() }),
        wake: Condvar::new(),
        served: Condvar::new(),
        committed: AtomicU64::new(state.last.0),
        state: RwLock::new(state),
        observer: RwLock::new(None),
        meters: Meters::default(),
        disk: disk.clone(),
        options,
        clock,
    });
    // What is damaged is left behind by a checkpoint as soon as possible.
    let since = if recovery.quarantined.is_empty() { recovery.bytes } else { u64::MAX / 2 };
    let chores = Chores::new(checkpoints, since);
    let writer = Writer::new(shared.clone(), Log::new(disk.clone(), mark, tail), chores, lock);
    writer.set_room();
    Ok((shared, writer, recovery))
}

impl Handle {
    fn end(&self, how: Closing) {
        {
            let mut line = self.shared.line.lock();
            line.closing.get_or_insert(how);
            self.shared.wake.notify_one();
        }
        let writer = self.writer.lock().take();
        // An observer may hold the last clone: then the writer itself is here.
        if let Some(writer) = writer
            && thread::current().id() != writer.thread().id()
        {
            let _ = writer.join();
        }
        *self.shared.observer.write() = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end(Closing::Plain);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.disk.describe()).finish_non_exhaustive()
    }
}
