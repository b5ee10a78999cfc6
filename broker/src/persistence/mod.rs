//! What is kept on disk, who asks for it, and what waits for it.
//!
//! The store's writer commits in groups; what it has committed is handed on by a thread of its own
//! ([`crate::delivery`]), so that the next group is written meanwhile. An answer that depends on a commit waits in its
//! client ([`crate::client::State::answer`]) until [`Persistence::told`] has passed its number.

pub mod asking;
mod form;
mod policy;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use broker_core::message::Message;
use broker_core::packet::ReasonCode;
use broker_core::session::Session;
use broker_store::{
    Committed, Event, Failed, Lsn, Observer, OnFailure, OpenError, Options, RealDisk, Recovery, Refused,
    Store,
};
use bytes::Bytes;
use foldhash::HashMap;
use metrics::{Counter, counter, gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::Client;
use crate::clock;
use crate::pipeline::cursor::Cursor;
use crate::pipeline::origin::Origins;

pub use form::{from_wall, message_of, options_bytes, options_of, qos, stored, to_wall};
pub use policy::Policy;

/// Where in the data directory the store is.
pub const DIRECTORY: &str = "store";
/// The key of the hybrid logical clock in the log.
const CLOCK_KEY: &[u8] = b"clock";
/// Refusals that are remembered, for answers that were about to wait.
const REFUSALS_MAX: usize = 100_000;

/// That a session is open, with its expiry and will.
pub fn opened(session: &Session) -> Event {
    let will = session.will.as_ref();
    Event::SessionOpened {
        session: session.id(),
        client_id: (&**session.client_id()).into(),
        expiry: session.expiry,
        will: will
            .map(|will| Box::new(broker_store::Will { message: stored(&will.message), delay: will.delay })),
    }
}

/// The subscriptions that a session has.
pub fn subscriptions(session: &Session) -> impl Iterator<Item = Event> {
    session.subscriptions().iter().map(|(filter, options)| Event::Subscribed {
        session: session.id(),
        filter: filter.clone(),
        options: options_bytes(options),
        persisted: options.persisted,
    })
}

/// That a session's connection has ended, with what was agreed on last.
pub fn closed(session: &Session) -> Vec<Event> {
    let at = session.closed.map_or_else(|| clock::wall().0, to_wall);
    vec![opened(session), Event::SessionClosed { session: session.id(), at }]
}

/// What the delivering thread is given to do.
pub enum Job {
    /// These are on disk.
    Committed(Vec<Committed>),
    /// These are not, and never will be; from the record of that number on, there are others that will.
    Failed(Vec<Failed>, Option<Lsn>),
    /// This session may want more of what the log has for it.
    Fill(Arc<Client>),
    /// This graph may want more of what the log has for it.
    Feed(Arc<Cursor>),
}

/// The store, and what is agreed about it.
pub struct Persistence {
    /// The store.
    pub store: Store,
    /// What is persisted.
    pub policy: Policy,
    /// Entries up to this number were there when the store was opened: they may have been sent before.
    pub restored: u64,
    jobs: Sender<Job>,
    told: AtomicU64,
    told_changed: Notify,
    /// Numbers of records that were refused after they had been taken.
    refusals: Mutex<VecDeque<u64>>,
    refused: AtomicU64,
    /// Topics whose retained message is being written, and how often.
    retaining: Mutex<HashMap<Box<str>, u32>>,
    /// What is published when a record is written, by the number of that.
    later: Mutex<HashMap<u64, Vec<Arc<Message>>>>,
    /// Places of graphs, by their sessions.
    cursors: Mutex<HashMap<u64, Arc<Cursor>>>,
    /// What messages were made of that are on their way to disk, by the number of their record.
    held: Mutex<BTreeMap<u64, Vec<Origins>>>,
    /// What was in the store when the clock was last written down.
    clock_noted: AtomicU64,
    lost: Counter,
}

impl Persistence {
    /// Opens the store in the data directory.
    ///
    /// # Errors
    /// Another process has it, a newer version wrote it, or the disk fails.
    pub fn open(
        data_dir: &Path,
        policy: Policy,
        bytes_max: u64,
        jobs: Sender<Job>,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        let directory = data_dir.join(DIRECTORY);
        let disk = RealDisk::new(&directory).map_err(|error| OpenError::Io {
            directory: directory.display().to_string(),
            doing: "make the directory",
            error,
        })?;
        let options = Options { max_bytes: bytes_max, ..Options::default() };
        let (store, recovery) = Store::open(Arc::new(disk), options)?;
        Ok((Self::of(store, policy, jobs), recovery))
    }

    /// Of an opened store.
    pub fn of(store: Store, policy: Policy, jobs: Sender<Job>) -> Arc<Self> {
        let restored = store.committed().0;
        let persistence = Arc::new(Self {
            policy,
            restored,
            told: AtomicU64::new(restored),
            told_changed: Notify::new(),
            refusals: Mutex::default(),
            refused: AtomicU64::new(0),
            retaining: Mutex::default(),
            clock_noted: AtomicU64::new(restored),
            later: Mutex::default(),
            cursors: Mutex::default(),
            held: Mutex::default(),
            lost: counter!("forebay_store_messages_unreadable_total"),
            jobs: jobs.clone(),
            store,
        });
        persistence.store.observe(Arc::new(Teller { jobs }));
        persistence
    }

    /// Has events written as one record that somebody waits for. The number to wait for, or what to tell him.
    ///
    /// # Errors
    /// The store is full, or its disk fails.
    pub fn append(&self, events: Vec<Event>, client: u64) -> Result<u64, ReasonCode> {
        let lsn = self.store.append(events, OnFailure::Refuse, true, client);
        lsn.map(|Lsn(number)| number).map_err(|refused| self.reason(refused))
    }

    /// Has events written that are refused now or not at all, and that somebody waits for.
    ///
    /// # Errors
    /// The store is full, or its disk fails.
    pub fn keep(&self, events: Vec<Event>) -> Result<u64, ReasonCode> {
        let lsn = self.store.append(events, OnFailure::Keep, true, 0);
        lsn.map(|Lsn(number)| number).map_err(|refused| self.reason(refused))
    }

    /// Has messages published once the record of this number is written. Gives them back when it is already.
    pub fn after(&self, number: u64, messages: Vec<Arc<Message>>) -> Vec<Arc<Message>> {
        let mut later = self.later.lock();
        if self.told() >= number {
            return messages;
        }
        later.insert(number, messages);
        Vec::new()
    }

    /// The messages that waited for this record.
    pub fn due(&self, number: u64) -> Vec<Arc<Message>> {
        self.later.lock().remove(&number).unwrap_or_default()
    }

    /// Has events written that must not be given up, and that somebody waits for.
    ///
    /// # Errors
    /// The store is closed.
    pub fn insist(&self, events: Vec<Event>, client: u64) -> Result<u64, ReasonCode> {
        let lsn = self.store.append(events, OnFailure::Retry, true, client);
        lsn.map(|Lsn(number)| number).map_err(|refused| self.reason(refused))
    }

    /// Has events written that nobody waits for.
    pub fn note(&self, events: Vec<Event>) {
        if let Err(error) = self.store.append(events, OnFailure::Retry, false, 0) {
            tracing::warn!("a change is not written down: {error}");
        }
    }

    /// Has written what a graph derived and what is done by that: all at once, and not to be given up. Somebody waits when a
    /// message is among it.
    /// The number to wait for, unless it is not written: what went into it is still there then, and comes again.
    pub fn write(&self, events: Vec<Event>) -> Option<u64> {
        let urgent = events.iter().any(|event| matches!(event, Event::Stored { .. }));
        let written = self.store.append(events, OnFailure::Insist, urgent, 0);
        let lsn =
            written.inspect_err(|error| tracing::error!("what a graph derived is not written down: {error}"));
        lsn.map(|Lsn(number)| number).ok()
    }

    /// Waits until everything that was handed in so far is on disk.
    pub async fn settled(&self) {
        let (key, value) = (Bytes::from_static(CLOCK_KEY), self.clock_ms().to_le_bytes().to_vec().into());
        if let Ok(number) = self.insist(vec![Event::KeySet { key, value }], 0) {
            // A store that is closed ends with the broker.
            let _ = self.written(number).await;
        }
    }

    /// Holds what a message was made of until the record of this number is written.
    pub fn hold(&self, number: u64, origins: Origins) {
        let mut held = self.held.lock();
        if self.told() < number {
            held.entry(number).or_default().push(origins);
        }
    }

    /// Lets go of what waited for records that are written.
    pub fn release(&self) {
        let mut held = self.held.lock();
        if held.is_empty() {
            return;
        }
        let later = held.split_off(&(self.told() + 1));
        let over = std::mem::replace(&mut *held, later);
        drop(held);
        for (number, origins) in over {
            if self.is_refused(number) {
                // It must not count as done: it comes again from where it came.
                std::mem::forget(origins);
            }
        }
    }

    fn reason(&self, refused: Refused) -> ReasonCode {
        let reason = match refused {
            Refused::Full => "full",
            Refused::TooLarge => "too-large",
            Refused::Failing => "failing",
            Refused::Closed => "closed",
        };
        counter!("forebay_store_refused_total", "reason" => reason).increment(1);
        match refused {
            Refused::Full | Refused::TooLarge => ReasonCode::QuotaExceeded,
            Refused::Failing => ReasonCode::UnspecifiedError,
            Refused::Closed => ReasonCode::ServerShuttingDown,
        }
    }

    /// Whether it is decided what becomes of this record, and those concerned are being told: it is on disk or, while the disk
    /// fails, it is [refused](Self::is_refused) before others that are older.
    pub fn is_decided(&self, number: u64) -> bool {
        number <= self.told() || self.is_refused(number)
    }

    /// Everything up to this number is on disk or refused, and those concerned are being told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Moves [`Persistence::told`] on.
    pub fn tell(&self, number: u64) {
        self.told.fetch_max(number, Ordering::AcqRel);
    }

    /// Wakes those who wait for [`Persistence::told`] in a task of their own.
    pub fn wake(&self) {
        self.told_changed.notify_waiters();
    }

    /// Notes that a record that was taken could not be written.
    pub fn refuse(&self, number: u64) {
        let mut refusals = self.refusals.lock();
        if refusals.len() >= REFUSALS_MAX {
            refusals.pop_front();
        }
        // At the very end, what was kept is given up, too, and is older than what was refused before.
        let place = refusals.partition_point(|refused| *refused < number);
        refusals.insert(place, number);
        self.refused.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a record was refused after all.
    pub fn is_refused(&self, number: u64) -> bool {
        self.refused.load(Ordering::Acquire) > 0 && self.refusals.lock().binary_search(&number).is_ok()
    }

    /// Waits until a record is on disk.
    ///
    /// # Errors
    /// It was refused.
    pub async fn written(&self, number: u64) -> Result<(), ReasonCode> {
        let mut changed = pin!(self.told_changed.notified());
        loop {
            // Before the look: what is told between the two counts, too.
            changed.as_mut().enable();
            if self.is_decided(number) {
                break;
            }
            changed.as_mut().await;
            changed.set(self.told_changed.notified());
        }
        match self.is_refused(number) {
            true => Err(ReasonCode::UnspecifiedError),
            false => Ok(()),
        }
    }

    /// Whether the log has a retained message of this topic, or is about to.
    pub fn retains(&self, topic: &str) -> bool {
        self.policy.retains()
            && (self.retaining.lock().contains_key(topic) || self.store.state().retained_of(topic).is_some())
    }

    /// A retained message of this topic, or the end of one, is about to be written.
    pub fn begin_retaining(&self, topic: &str) {
        let mut retaining = self.retaining.lock();
        match retaining.get_mut(topic) {
            Some(count) => *count += 1,
            None => drop(retaining.insert(topic.into(), 1)),
        }
    }

    /// It is written, or will not be.
    pub fn end_retaining(&self, topic: &str) {
        let mut retaining = self.retaining.lock();
        if let Some(count) = retaining.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                retaining.remove(topic);
            }
        }
    }

    /// How far the hybrid logical clock was when that was last written down, milliseconds.
    pub fn clock_ms(&self) -> u64 {
        let state = self.store.state();
        let bytes = state.get(CLOCK_KEY).and_then(|value| value[..].try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// Writes down how far the hybrid logical clock is. A broker that has nothing else to write does not wake its disk for
    /// that.
    pub fn note_clock(&self, ms: u64) {
        if self.clock_noted.load(Ordering::Acquire) < self.store.committed().0 {
            let (key, value) = (Bytes::from_static(CLOCK_KEY), ms.to_le_bytes().to_vec().into());
            self.note(vec![Event::KeySet { key, value }]);
            // That record itself is no reason for another one.
            self.clock_noted.store(self.store.committed().0 + 1, Ordering::Release);
        }
    }

    /// Entries of this session go into a graph.
    pub fn add_cursor(&self, cursor: &Arc<Cursor>) {
        self.cursors.lock().insert(cursor.session, Arc::clone(cursor));
    }

    /// The place of the graph that has this session.
    pub fn cursor(&self, session: u64) -> Option<Arc<Cursor>> {
        self.cursors.lock().get(&session).cloned()
    }

    /// Has more of what the log holds for a graph loaded, unless that is asked for already.
    pub fn feed(&self, cursor: &Arc<Cursor>) {
        if cursor.ask() {
            let _ = self.jobs.send(Job::Feed(Arc::clone(cursor)));
        }
    }

    /// So much is in the store already that what graphs derive would not fit: their messages wait in it until there is room.
    pub fn is_crowded(&self) -> bool {
        self.store.is_crowded()
    }

    /// Looks whether graphs that had to wait can go on.
    pub fn feed_graphs(&self) {
        if self.is_crowded() {
            return;
        }
        let waiting = |cursor: &&Arc<Cursor>| cursor.wants_more();
        let cursors: Vec<_> = self.cursors.lock().values().filter(waiting).cloned().collect();
        cursors.iter().for_each(|cursor| self.feed(cursor));
    }

    /// Has more of what the log holds for a session loaded.
    pub fn fill(&self, client: &Arc<Client>) {
        // The other end lives as long as the process.
        let _ = self.jobs.send(Job::Fill(Arc::clone(client)));
    }

    /// A message from the log; nothing when it cannot be read, which is told and counted.
    pub fn read(&self, number: u64) -> Option<Arc<Message>> {
        match self.store.read(Lsn(number)) {
            Ok(message) => Some(Arc::new(message_of(&message))),
            Err(broker_store::ReadError::Gone(_)) => None,
            Err(error) => {
                self.lost.increment(1);
                tracing::error!("a persisted message is lost: {error}");
                None
            }
        }
    }

    /// Messages in the log that wait for a session.
    pub fn queued(&self, session: u64) -> usize {
        self.store.state().session(session).map_or(0, |session| session.queue.len())
    }

    /// Brings the metrics up to date.
    pub fn show(&self) {
        let stats = self.store.stats();
        gauge!("forebay_store_bytes").set(stats.bytes as f64);
        gauge!("forebay_store_max_bytes").set(stats.bytes_max as f64);
        gauge!("forebay_store_live_bytes").set(stats.live_bytes as f64);
        gauge!("forebay_store_segments").set(stats.segments as f64);
        gauge!("forebay_store_messages").set(stats.messages as f64);
        gauge!("forebay_store_queued").set(stats.queued as f64);
        gauge!("forebay_store_sessions").set(stats.sessions as f64);
        gauge!("forebay_store_failing").set(if stats.failing { 1.0 } else { 0.0 });
        counter!("forebay_store_commits_total").absolute(stats.commits);
        counter!("forebay_store_records_total").absolute(stats.records);
        counter!("forebay_store_failures_total").absolute(stats.failures);
        let state = self.store.state();
        for cursor in self.cursors.lock().values() {
            let waits = state.session(cursor.session).map_or(0, |session| session.queue.len());
            let graph = cursor.graph().to_owned();
            gauge!("forebay_store_graph_entries", "dataflow_id" => graph).set(waits as f64);
        }
    }
}

/// What there is to tell of how the store was found, a line each.
pub fn recovered(recovery: &Recovery) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(torn) = &recovery.torn {
        tracing::info!("the end of {} was half written ({} bytes), and is cut off", torn.file, torn.bytes);
    }
    if let Some(version) = recovery.migrated_from {
        lines.push(format!("brought up to date from version {version}"));
    }
    for part in &recovery.quarantined {
        let broker_store::Quarantined { file, offset, bytes, reason } = part;
        lines.push(format!("{file}: {bytes} bytes from {offset} on are set aside in quarantine/: {reason}"));
    }
    if recovery.lost_entries + recovery.lost_retained > 0 {
        lines.push(format!(
            "{} queued and {} retained messages are lost with them",
            recovery.lost_entries, recovery.lost_retained
        ));
    }
    lines
}

/// Hands what the store's writer tells to the delivering thread.
struct Teller {
    jobs: Sender<Job>,
}

impl Observer for Teller {
    fn committed(&self, records: Vec<Committed>) {
        let _ = self.jobs.send(Job::Committed(records));
    }

    fn failed(&self, records: Vec<Failed>, kept: Option<Lsn>, why: &io::Error) {
        tracing::error!("{} records could not be written: {why}", records.len());
        let _ = self.jobs.send(Job::Failed(records, kept));
    }

    fn recovered(&self) {
        tracing::info!("the disk of the store works again");
    }
}
