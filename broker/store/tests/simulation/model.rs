//! The durable state as a child would keep it: lists and maps, and every message in full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_store::{Event, Lsn, Message, Store, Taker, Will};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Session {
    pub client_id: String,
    pub expiry: u32,
    pub closed: Option<u64>,
    pub will: Option<Will>,
    pub subscriptions: BTreeMap<String, (Vec<u8>, bool)>,
    pub incoming: BTreeSet<u16>,
    pub queue: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub message: u64,
    pub qos: u8,
    pub retain: bool,
    pub packet_id: u16,
    pub received: bool,
    pub identifiers: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub sessions: BTreeMap<u64, Session>,
    pub retained: BTreeMap<String, u64>,
    pub keys: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Also such that nobody holds any more.
    pub messages: BTreeMap<u64, Arc<Message>>,
}

impl Model {
    /// What a store holds, all of it read.
    pub fn of(store: &Store) -> Self {
        let mut model = Self::default();
        {
            let state = store.state();
            for (key, session) in state.sessions() {
                let subscriptions = session.subscriptions.iter();
                let subscriptions = subscriptions.map(|(filter, (options, persisted))| {
                    (filter.to_string(), (options.to_vec(), *persisted))
                });
                let queue = session.queue.iter().map(|entry| Entry {
                    message: entry.message.0,
                    qos: entry.qos,
                    retain: entry.retain,
                    packet_id: entry.packet_id,
                    received: entry.received,
                    identifiers: entry.identifiers.to_vec(),
                });
                let session = Session {
                    client_id: session.client_id.to_string(),
                    expiry: session.expiry,
                    closed: session.closed,
                    will: session.will.as_deref().cloned(),
                    subscriptions: subscriptions.collect(),
                    incoming: session.incoming.clone(),
                    queue: queue.collect(),
                };
                model.sessions.insert(key, session);
            }
            model.retained = state.retained().map(|(topic, message)| (topic.to_owned(), message.0)).collect();
            model.keys = state.keys().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        }
        for message in model.held() {
            let read = store.read(Lsn(message)).unwrap_or_else(|error| panic!("{error}"));
            model.messages.insert(message, read);
        }
        model
    }

    /// The messages that somebody holds.
    pub fn held(&self) -> BTreeSet<u64> {
        let queued = self.sessions.values().flat_map(|session| &session.queue).map(|entry| entry.message);
        queued.chain(self.retained.values().copied()).collect()
    }

    /// Whether a store holds this.
    pub fn is(&self, found: &Self) -> bool {
        self.sessions == found.sessions
            && self.retained == found.retained
            && self.keys == found.keys
            && found.held().iter().all(|message| self.messages.get(message) == found.messages.get(message))
    }

    pub fn apply(&mut self, first: u64, events: &[Event]) {
        for (event, number) in events.iter().zip(first..) {
            self.apply_one(number, event);
        }
    }

    fn apply_one(&mut self, number: u64, event: &Event) {
        match event {
            Event::SessionOpened { session, client_id, expiry, will } => {
                let session = self.sessions.entry(*session).or_default();
                session.client_id = client_id.to_string();
                session.expiry = *expiry;
                session.closed = None;
                session.will = will.as_deref().cloned();
            }
            Event::SessionEnded { session } => drop(self.sessions.remove(session)),
            Event::Stored { message, takers, retained, from } => {
                if let Some((session, packet_id)) = from {
                    self.of_session(*session, |session| {
                        session.incoming.insert(*packet_id);
                    });
                }
                takers.iter().for_each(|taker| self.take(number, taker));
                if *retained {
                    self.retained.insert(String::from_utf8(message.topic.to_vec()).unwrap(), number);
                }
                self.messages.insert(number, message.clone());
            }
            Event::RetainedCleared { topic } => drop(self.retained.remove(&**topic)),
            Event::KeySet { key, value } => drop(self.keys.insert(key.to_vec(), value.to_vec())),
            Event::KeyDeleted { key } => drop(self.keys.remove(&key[..])),
            _ => self.apply_to_session(event),
        }
    }

    fn apply_to_session(&mut self, event: &Event) {
        match event {
            Event::SessionClosed { session, at } => self.of_session(*session, |it| it.closed = Some(*at)),
            Event::Subscribed { session, filter, options, persisted } => {
                let subscription = (options.to_vec(), *persisted);
                self.of_session(*session, |it| {
                    it.subscriptions.insert(filter.to_string(), subscription);
                });
            }
            Event::Unsubscribed { session, filter } => {
                self.of_session(*session, |it| drop(it.subscriptions.remove(&**filter)));
            }
            Event::Sent { session, message, packet_id } => {
                self.of_entry(*session, *message, |entry| entry.packet_id = *packet_id);
            }
            Event::Received { session, message } => {
                self.of_entry(*session, *message, |entry| entry.received = true);
            }
            Event::Done { session, message } => {
                self.of_session(*session, |it| it.queue.retain(|entry| entry.message != message.0));
            }
            Event::Released { session, packet_id } => {
                self.of_session(*session, |it| {
                    it.incoming.remove(packet_id);
                });
            }
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, message: u64, taker: &Taker) {
        self.of_session(taker.session, |session| {
            if session.queue.iter().all(|entry| entry.message != message) {
                session.queue.push(Entry {
                    message,
                    qos: taker.qos,
                    retain: taker.retain,
                    packet_id: taker.packet_id,
                    received: false,
                    identifiers: taker.identifiers.to_vec(),
                });
            }
        });
    }

    fn of_session(&mut self, session: u64, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            change(session);
        }
    }

    fn of_entry(&mut self, session: u64, message: Lsn, change: impl FnOnce(&mut Entry)) {
        self.of_session(session, |session| {
            if let Some(entry) = session.queue.iter_mut().find(|entry| entry.message == message.0) {
                change(entry);
            }
        });
    }
}
