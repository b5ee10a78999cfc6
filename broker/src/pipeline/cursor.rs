//! The place of a persisted graph in the log (AIO.md §4.4): what of it is on its way through the graph, what waits in the
//! log only, and what is done.
//!
//! A message enters the graph when it is on disk. It is done when what was derived from it is on disk, too, or was dropped on
//! purpose: both are one record, so that a crash either has all of it happen or none. A message that windows of different
//! lengths are made of is done when the last of them closes; what was derived before is remembered by its identity, so
//! that the same messages that go through the graph once more after a crash publish none of it twice.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use broker_core::message::Message;
use broker_store::{Event, Lsn, Queue};
use bytes::Bytes;
use parking_lot::Mutex;

use super::origin::{Finished, Origins};
use super::{Arrival, Dataflow};
use crate::persistence;

/// With this many messages in front of the graph, the rest stays in the log for now.
const BACKLOG_HIGH: usize = 1024;
/// With fewer than this, more are loaded.
const BACKLOG_LOW: usize = BACKLOG_HIGH / 2;
/// How many are loaded at a time.
const LOAD_MAX: usize = 256;
/// How the client id of a graph's session begins: no client can have such a one [MQTT-1.5.4-2].
const CLIENT_ID: &str = "\0graph/";
/// How the keys begin that remember what was derived.
const KEY: &str = "graph/";

/// The place of a graph in the log.
pub struct Cursor {
    /// The session that the log knows it as.
    pub session: u64,
    /// The graph, as the log knows it.
    name: Box<str>,
    place: Mutex<Place>,
    /// Entries that the graph has no item of any more.
    finished: Finished,
    derived: Mutex<Derived>,
    /// When what entered last arrived, wall milliseconds.
    entered_ms: AtomicU64,
    /// It is going to be looked after.
    fed: AtomicBool,
}

#[derive(Default)]
struct Place {
    flow: Weak<Dataflow>,
    /// From this number on, entries may be in the log only.
    behind: Option<u64>,
    /// The highest number that is known to be in the log.
    seen: u64,
    /// Entries up to this one have been here.
    here: u64,
}

/// What was derived from entries that are not done, by its identity.
#[derive(Default)]
struct Derived {
    /// The entries that it was derived from and that are not done.
    pending: HashMap<String, BTreeSet<u64>>,
    by_entry: HashMap<u64, Vec<String>>,
}

/// What one step of a graph changes. All of it is written down, or nothing.
#[derive(Default)]
pub struct Record {
    /// What is published.
    pub messages: Vec<Arc<Message>>,
    /// What is done thereby.
    pub events: Vec<Event>,
    /// Messages of remote systems that are done with when it is written.
    pub tickets: Vec<Origins>,
}

/// An entry of the log that goes into the graph.
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// The sources it goes in by.
    pub sources: Vec<usize>,
    /// The message; nothing when it cannot be read any more.
    pub message: Option<Arc<Message>>,
}

impl Cursor {
    /// The name of a graph in the log.
    pub fn name_of(namespace: &str, name: &str) -> String {
        format!("{namespace}/{name}")
    }

    /// The client id that the session of a graph has.
    pub fn client_id(name: &str) -> String {
        format!("{CLIENT_ID}{name}")
    }

    /// The graph whose session has this client id.
    pub fn graph_of(client_id: &str) -> Option<&str> {
        client_id.strip_prefix(CLIENT_ID)
    }

    /// The place of a graph: this queue is in the log, `keys` say what was derived from it. Beside it come the keys that are
    /// of no use any more.
    pub fn new<'a>(
        name: &str,
        session: u64,
        queue: Option<&Queue>,
        keys: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>,
    ) -> (Arc<Self>, Vec<Event>) {
        let mut numbers = queue.into_iter().flat_map(|queue| queue.iter().map(|entry| entry.message.0));
        let behind = numbers.next();
        let seen = numbers.next_back().or(behind).unwrap_or(0);
        let waits = |number: &u64| queue.is_some_and(|queue| queue.get(Lsn(*number)).is_some());
        let place = Place { behind, seen, ..Place::default() };
        let (mut derived, mut useless) = (Derived::default(), Vec::new());
        let prefix = Self::key(name, "");
        for (key, value) in keys {
            let Some(identity) = key.strip_prefix(&prefix[..]) else { continue };
            let pending: BTreeSet<u64> = numbers_of(value).filter(waits).collect();
            match pending.is_empty() {
                true => useless.push(Event::KeyDeleted { key: key.clone() }),
                false => derived.remember(String::from_utf8_lossy(identity).into_owned(), pending),
            }
        }
        let cursor = Arc::new(Self {
            session,
            name: name.into(),
            place: Mutex::new(place),
            finished: Finished::default(),
            derived: Mutex::new(derived),
            entered_ms: AtomicU64::new(0),
            fed: AtomicBool::new(false),
        });
        (cursor, useless)
    }

    /// The name of the graph's resource.
    pub fn graph(&self) -> &str {
        self.name.split_once('/').map_or(&*self.name, |(_, name)| name)
    }

    fn key(name: &str, identity: &str) -> Bytes {
        format!("{KEY}{name}\0{identity}").into_bytes().into()
    }

    /// Everything that the log remembers of a graph is to go.
    pub fn end(name: &str, session: u64, keys: impl IntoIterator<Item = Bytes>) -> Vec<Event> {
        let prefix = Self::key(name, "");
        let keys = keys.into_iter().filter(|key| key.starts_with(&prefix));
        let mut events: Vec<Event> = keys.map(|key| Event::KeyDeleted { key }).collect();
        events.push(Event::SessionEnded { session });
        events
    }

    /// The graph runs: from now on entries go into it.
    pub fn attach(&self, flow: &Arc<Dataflow>) {
        self.place.lock().flow = Arc::downgrade(flow);
    }

    /// The graph is being stopped: entries stay in the log.
    pub fn detach(&self) {
        let mut place = self.place.lock();
        place.flow = Weak::new();
        // Entries that are in the graph may not come out any more.
        place.behind.get_or_insert(0);
    }

    /// Whether the graph runs.
    pub fn runs(&self) -> bool {
        self.place.lock().flow.strong_count() > 0
    }

    /// An entry is on disk. The graph to run, if it goes into the graph now; not when there is no room for what it would
    /// derive.
    pub fn committed(&self, entry: Entry, room: bool) -> Option<Arc<Dataflow>> {
        let mut place = self.place.lock();
        place.seen = place.seen.max(entry.number);
        if entry.number <= place.here || place.behind.is_some() {
            return None;
        }
        let ready = |flow: &Arc<Dataflow>| room && flow.backlog() < BACKLOG_HIGH && !flow.is_full();
        let Some(flow) = place.flow.upgrade().filter(ready) else {
            place.behind = Some(entry.number);
            return None;
        };
        place.here = entry.number;
        self.enter(&flow, entry);
        Some(flow)
    }

    fn enter(&self, flow: &Dataflow, Entry { number, sources, message }: Entry) {
        let origins = Origins::entry(number, &self.finished);
        let Some(message) = message else { return };
        for source in sources {
            flow.leave_message(Arrival { source, message: Arc::clone(&message), origins: origins.clone() });
        }
    }

    /// Whether entries wait in the log only, and there is room for some of them.
    pub fn wants_more(&self) -> bool {
        let place = self.place.lock();
        let has_room = |flow: Arc<Dataflow>| flow.backlog() < BACKLOG_LOW && !flow.is_full();
        place.behind.is_some() && place.flow.upgrade().is_some_and(has_room)
    }

    /// Whether it is the first to ask that more be loaded.
    pub fn ask(&self) -> bool {
        !self.fed.swap(true, Ordering::AcqRel)
    }

    /// From where to load, and how many entries; nothing when there is no need.
    pub fn begin_loading(&self) -> Option<(u64, usize)> {
        self.fed.store(false, Ordering::Release);
        if !self.wants_more() {
            return None;
        }
        Some((self.place.lock().behind?, LOAD_MAX))
    }

    /// These are the next entries of the log. The graph to run.
    pub fn loaded(&self, entries: Vec<Entry>) -> Option<Arc<Dataflow>> {
        let mut place = self.place.lock();
        let flow = place.flow.upgrade()?;
        // Nothing there: what was seen is done already.
        let Some(last) = entries.last().map(|entry| entry.number) else {
            place.behind = None;
            return Some(flow);
        };
        place.here = place.here.max(last);
        place.behind = (place.seen > last).then_some(last + 1);
        for entry in entries {
            self.enter(&flow, entry);
        }
        Some(flow)
    }

    /// Notes that a message enters which arrived then.
    pub fn entered(&self, arrived_ms: u64) {
        self.entered_ms.fetch_max(arrived_ms, Ordering::AcqRel);
    }

    /// How far time may go in the graph: while messages wait in the log or in front of the graph, no further than to when the
    /// last one arrived that entered, or those would come too late for windows that they were in time for.
    pub fn time_ms(&self, wall_ms: u64, backlog: usize) -> u64 {
        let waits = backlog > 0 || self.place.lock().behind.is_some();
        if waits { self.entered_ms.load(Ordering::Acquire).min(wall_ms) } else { wall_ms }
    }

    /// What a step of the graph changes, that derived these messages; nothing when it changes nothing.
    pub fn record(&self, derived: Vec<(Arc<Message>, Origins)>) -> Option<Record> {
        let tickets =
            derived.iter().map(|(_, origins)| origins.tickets()).filter(|it| !it.is_none()).collect();
        let told: Vec<(Arc<Message>, Vec<u64>, String)> = derived
            .into_iter()
            .map(|(message, origins)| (message, origins.numbers(), origins.next_identity()))
            .collect();
        let finished: BTreeSet<u64> = std::mem::take(&mut *self.finished.lock()).into_iter().collect();
        if told.is_empty() && finished.is_empty() {
            return None;
        }
        let mut record = Record { tickets, ..Record::default() };
        let mut known = self.derived.lock();
        for (message, numbers, identity) in told {
            if known.pending.contains_key(&identity) {
                continue; // before a crash
            }
            record.messages.push(message);
            let pending: BTreeSet<u64> = numbers.into_iter().filter(|n| !finished.contains(n)).collect();
            if !pending.is_empty() {
                let key = Self::key(&self.name, &identity);
                record.events.push(Event::KeySet { key, value: bytes_of(&pending) });
                known.remember(identity, pending);
            }
        }
        for number in finished {
            let over = known.finish(number).into_iter();
            record
                .events
                .extend(over.map(|identity| Event::KeyDeleted { key: Self::key(&self.name, &identity) }));
            record.events.push(Event::Done { session: self.session, message: Lsn(number) });
        }
        Some(record)
    }
}

impl Derived {
    fn remember(&mut self, identity: String, pending: BTreeSet<u64>) {
        for number in &pending {
            self.by_entry.entry(*number).or_default().push(identity.clone());
        }
        self.pending.insert(identity, pending);
    }

    /// An entry is done: the identities that nothing can derive again.
    fn finish(&mut self, number: u64) -> Vec<String> {
        let mut over = self.by_entry.remove(&number).unwrap_or_default();
        over.retain(|identity| {
            let Some(pending) = self.pending.get_mut(identity) else { return false };
            pending.remove(&number);
            pending.is_empty()
        });
        over.iter().for_each(|identity| drop(self.pending.remove(identity)));
        over
    }
}

fn bytes_of(numbers: &BTreeSet<u64>) -> Bytes {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number))
}

/// The sources that a filter of a graph leads to, as they are written down.
pub fn sources_bytes(sources: &[usize]) -> Bytes {
    let places = sources.iter().filter_map(|source| u32::try_from(*source).ok());
    places.flat_map(u32::to_le_bytes).collect()
}

/// When a message arrived, wall milliseconds.
pub fn arrived_ms(message: &Message) -> u64 {
    persistence::to_wall(message.received)
}

#[cfg(test)]
mod tests {
    use broker_core::Millis;

    use super::*;

    fn message(text: &'static str) -> Arc<Message> {
        let payload = Bytes::from_static(text.as_bytes());
        Arc::new(Message::new(Bytes::from_static(b"t"), Bytes::new(), payload, Millis(0)))
    }

    /// A place where these keys are known, whose entries all wait.
    fn cursor(keys: &[(Bytes, Bytes)]) -> Arc<Cursor> {
        let (cursor, _) = Cursor::new("ns/g", 7, None, []);
        for (key, value) in keys {
            let identity = key.strip_prefix(&Cursor::key("ns/g", "")[..]).unwrap();
            let identity = String::from_utf8(identity.to_vec()).unwrap();
            cursor.derived.lock().remember(identity, numbers_of(value).collect());
        }
        cursor
    }

    fn done(record: &Record) -> Vec<u64> {
        let done = record.events.iter().filter_map(|event| match event {
            Event::Done { message, .. } => Some(message.0),
            _ => None,
        });
        done.collect()
    }

    #[test]
    fn an_entry_is_done_with_what_was_derived_from_it() {
        let cursor = cursor(&[]);
        let origins = Origins::entry(3, &cursor.finished);
        assert!(cursor.record(Vec::new()).is_none());
        let record = cursor.record(vec![(message("a"), origins.clone())]);
        drop(origins);
        // It was still on another way: the message goes out and is remembered.
        let record = record.unwrap();
        assert_eq!((record.messages.len(), done(&record)), (1, vec![]));
        let [Event::KeySet { key, value }] = &record.events[..] else { panic!("{:?}", record.events) };
        let kept = [(key.clone(), value.clone())];
        let record = cursor.record(Vec::new()).unwrap();
        assert_eq!((record.messages.len(), done(&record)), (0, vec![3]));
        assert!(matches!(&record.events[0], Event::KeyDeleted { key: gone } if gone == key));

        // After a crash in between, the same message is not published again.
        let again = self::cursor(&kept);
        let origins = Origins::entry(3, &again.finished);
        let record = again.record(vec![(message("a"), origins.clone()), (message("b"), origins)]).unwrap();
        assert_eq!(record.messages.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(done(&record), [3]);
    }

    #[test]
    fn what_is_remembered_of_entries_that_are_done_is_nothing() {
        let key = Cursor::key("ns/g", "#3/0");
        let other = (Cursor::key("ns/graph", "#3/0"), bytes_of(&BTreeSet::from([3])));
        let keys = [(key.clone(), bytes_of(&BTreeSet::from([3]))), other];
        let keys = keys.iter().map(|(key, value)| (key, value));
        let (cursor, useless) = Cursor::new("ns/g", 7, None, keys);
        assert!(cursor.derived.lock().pending.is_empty());
        assert_eq!(useless, [Event::KeyDeleted { key }]);
    }

    #[test]
    fn without_a_graph_entries_stay_in_the_log() {
        let cursor = cursor(&[]);
        let entry = |number| Entry { number, sources: vec![0], message: Some(message("x")) };
        assert!(cursor.committed(entry(5), true).is_none());
        assert!(cursor.committed(entry(6), true).is_none());
        assert!(!cursor.wants_more());
        assert_eq!(cursor.place.lock().behind, Some(5));
        // Time does not go on for what waits.
        assert_eq!(cursor.time_ms(1000, 0), 0);
        cursor.entered(400);
        assert_eq!(cursor.time_ms(1000, 0), 400);
    }
}
