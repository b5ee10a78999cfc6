//! The durable state, as the committed events made it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::event::{Event, Lsn, Message, SessionKey, Taker, Will};
use crate::index::{Index, Location};
use crate::queue::Queue;

/// A durable session.
#[derive(Debug, Clone, Default)]
pub struct SessionState {
    /// Its client's id.
    pub client_id: Box<str>,
    /// Expiry after the connection's end, seconds.
    pub expiry: u32,
    /// When its connection ended, wall milliseconds; nothing while it is connected, or was when the store last heard
    /// of it.
    pub closed: Option<u64>,
    /// Its will.
    pub will: Option<Box<Will>>,
    /// By filter: options, and whether its messages are persisted.
    pub subscriptions: BTreeMap<Box<str>, (Bytes, bool)>,
    /// Packet ids of QoS 2 publishes that were taken and not yet released.
    pub incoming: BTreeSet<u16>,
    /// What waits for it.
    pub queue: Queue,
}

/// Everything that is durable, except for the messages themselves, of which it knows where they stand.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) sessions: HashMap<SessionKey, SessionState, FixedState>,
    pub(crate) retained: BTreeMap<Box<str>, Lsn>,
    pub(crate) keys: BTreeMap<Bytes, Bytes>,
    pub(crate) index: Index,
    /// Number of the last event that made it.
    pub(crate) last: Lsn,
    /// Entries in all queues.
    pub(crate) entries: usize,
    /// Roughly what a checkpoint of it takes, queues and index left aside.
    pub(crate) weight: usize,
}

impl State {
    /// The sessions, in no particular order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionKey, &SessionState)> {
        self.sessions.iter().map(|(&key, session)| (key, session))
    }

    /// One session.
    pub fn session(&self, key: SessionKey) -> Option<&SessionState> {
        self.sessions.get(&key)
    }

    /// The topics that have a retained message, and its id.
    pub fn retained(&self) -> impl Iterator<Item = (&str, Lsn)> {
        self.retained.iter().map(|(topic, &message)| (&**topic, message))
    }

    /// The id of a topic's retained message.
    pub fn retained_of(&self, topic: &str) -> Option<Lsn> {
        self.retained.get(topic).copied()
    }

    /// Keyed state, in the order of the keys.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.keys.iter()
    }

    /// The value of one key.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.keys.get(key)
    }

    /// Entries in all queues.
    pub fn queued(&self) -> usize {
        self.entries
    }

    /// Messages that some queue or topic holds.
    pub fn messages(&self) -> usize {
        self.index.live()
    }

    /// Number of the last event that made it.
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Carries out an event. `at` is where its message stands, if it stores one.
    ///
    /// What the state keeps is copied: an event's bytes may be slices of a large buffer.
    pub(crate) fn apply(&mut self, lsn: Lsn, event: &Event, at: Option<Location>) {
        self.last = self.last.max(lsn);
        match event {
            Event::SessionOpened { session, client_id, expiry, will } => {
                self.open(*session, client_id, *expiry, will.as_deref());
            }
            Event::SessionClosed { session, at } => {
                self.with(*session, |session| session.closed = Some(*at));
            }
            Event::SessionEnded { session } => self.end(*session),
            Event::Subscribed { session, filter, options, persisted } => {
                self.subscribe(*session, filter, options, *persisted);
            }
            Event::Unsubscribed { session, filter } => self.unsubscribe(*session, filter),
            Event::Stored { message, takers, retained, from } => {
                if let Some((session, packet_id)) = *from {
                    self.with(session, |session| session.incoming.insert(packet_id));
                }
                self.store(lsn, message, takers, *retained, at);
            }
            Event::Sent { session, message, packet_id } => {
                self.with(*session, |session| session.queue.set_packet_id(*message, *packet_id));
            }
            Event::Received { session, message } => {
                self.with(*session, |session| session.queue.set_received(*message));
            }
            Event::Done { session, message } => self.done(*session, *message),
            Event::Released { session, packet_id } => {
                self.with(*session, |session| session.incoming.remove(packet_id));
            }
            Event::RetainedCleared { topic } => self.clear_retained(topic),
            Event::KeySet { key, value } => self.set_key(key, value),
            Event::KeyDeleted { key } => self.delete_key(key),
        }
    }

    fn with<R>(&mut self, session: SessionKey, change: impl FnOnce(&mut SessionState) -> R) -> Option<R> {
        self.sessions.get_mut(&session).map(change)
    }

    fn open(&mut self, key: SessionKey, client_id: &str, expiry: u32, will: Option<&Will>) {
        if let Some(known) = self.sessions.get(&key) {
            self.weight -= known.weight();
        }
        let session = self.sessions.entry(key).or_default();
        session.client_id = client_id.into();
        session.expiry = expiry;
        session.closed = None;
        session.will = will.map(|will| Box::new(will.detached()));
        self.weight += session.weight();
    }

    fn end(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        self.weight -= session.weight();
        self.weight -= session.subscriptions.iter().map(subscription_weight).sum::<usize>();
        self.entries -= session.queue.len();
        session.queue.iter().for_each(|entry| self.index.release(entry.message));
    }

    fn subscribe(&mut self, key: SessionKey, filter: &str, options: &Bytes, persisted: bool) {
        self.unsubscribe(key, filter);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let options = Bytes::copy_from_slice(options);
        self.weight += filter.len() + options.len() + SUBSCRIPTION_WEIGHT;
        session.subscriptions.insert(filter.into(), (options, persisted));
    }

    fn unsubscribe(&mut self, key: SessionKey, filter: &str) {
        let removed = self.with(key, |session| session.subscriptions.remove_entry(filter)).flatten();
        if let Some((filter, options)) = removed {
            self.weight -= subscription_weight((&filter, &options));
        }
    }

    fn store(&mut self, lsn: Lsn, message: &Message, takers: &[Taker], retained: bool, at: Option<Location>) {
        let Some(at) = at else { return };
        let mut refs = u32::from(retained);
        for taker in takers {
            let pushed = self.with(taker.session, |session| session.queue.push(lsn, taker));
            refs += u32::from(pushed == Some(true));
        }
        self.entries += (refs - u32::from(retained)) as usize;
        self.index.insert(lsn, at, refs);
        if retained {
            self.retain(lsn, &String::from_utf8_lossy(&message.topic));
        }
    }

    fn retain(&mut self, lsn: Lsn, topic: &str) {
        match self.retained.get_mut(topic) {
            Some(held) => {
                let old = std::mem::replace(held, lsn);
                self.index.release(old);
            }
            None => {
                self.weight += topic.len() + PAIR_WEIGHT;
                self.retained.insert(topic.into(), lsn);
            }
        }
    }

    fn done(&mut self, key: SessionKey, message: Lsn) {
        if self.with(key, |session| session.queue.remove(message)) == Some(true) {
            self.entries -= 1;
            self.index.release(message);
        }
    }

    fn clear_retained(&mut self, topic: &str) {
        if let Some(message) = self.retained.remove(topic) {
            self.weight -= topic.len() + PAIR_WEIGHT;
            self.index.release(message);
        }
    }

    fn set_key(&mut self, key: &Bytes, value: &Bytes) {
        self.delete_key(key);
        self.weight += key.len() + value.len() + PAIR_WEIGHT;
        self.keys.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    fn delete_key(&mut self, key: &Bytes) {
        if let Some(old) = self.keys.remove(key) {
            self.weight -= key.len() + old.len() + PAIR_WEIGHT;
        }
    }

    /// Drops the entries and retained topics whose message is gone; says how many of each.
    pub(crate) fn drop_lost(&mut self) -> (usize, usize) {
        let Self { sessions, index, retained, .. } = self;
        let mut lost = 0;
        for session in sessions.values_mut() {
            lost += session.queue.keep(|message| index.locate(message).is_some());
        }
        let topics = retained.len();
        retained.retain(|_, message| index.locate(*message).is_some());
        let lost_topics = topics - retained.len();
        self.entries -= lost;
        self.weigh();
        (lost, lost_topics)
    }

    /// Whether what is counted along is what it is when it is counted anew; what differs, if anything does.
    #[cfg(feature = "sim")]
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut holders: BTreeMap<Lsn, u32> = BTreeMap::new();
        let queued =
            self.sessions.values().flat_map(|session| session.queue.iter().map(|entry| entry.message));
        for message in queued.chain(self.retained.values().copied()) {
            *holders.entry(message).or_default() += 1;
        }
        self.index.audit(&holders)?;
        let mut copy = Self {
            sessions: self.sessions.clone(),
            retained: self.retained.clone(),
            keys: self.keys.clone(),
            ..Self::default()
        };
        copy.weigh();
        let (counted, anew) = ((self.entries, self.weight), (copy.entries, copy.weight));
        if anew != counted {
            Err(format!("entries and weight are {anew:?}, not {counted:?}"))
        } else {
            Ok(())
        }
    }

    /// Counts anew what is otherwise counted along.
    pub(crate) fn weigh(&mut self) {
        let sessions = self.sessions.values();
        self.entries = sessions.clone().map(|session| session.queue.len()).sum();
        self.weight = sessions
            .map(|session| {
                session.weight() + session.subscriptions.iter().map(subscription_weight).sum::<usize>()
            })
            .sum();
        self.weight += self.retained.keys().map(|topic| topic.len() + PAIR_WEIGHT).sum::<usize>();
        self.weight +=
            self.keys.iter().map(|(key, value)| key.len() + value.len() + PAIR_WEIGHT).sum::<usize>();
    }
}

const SESSION_WEIGHT: usize = 48;
const SUBSCRIPTION_WEIGHT: usize = 8;
const PAIR_WEIGHT: usize = 16;

impl SessionState {
    /// Roughly what it takes in a checkpoint, without subscriptions and queue.
    fn weight(&self) -> usize {
        let will = self.will.as_ref().map_or(0, |will| {
            let message = &will.message;
            message.topic.len() + message.properties.len() + message.payload.len() + 32
        });
        SESSION_WEIGHT + self.client_id.len() + will
    }
}

fn subscription_weight((filter, (options, _)): (impl AsRef<str>, &(Bytes, bool))) -> usize {
    filter.as_ref().len() + options.len() + SUBSCRIPTION_WEIGHT
}
