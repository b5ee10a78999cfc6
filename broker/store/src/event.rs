//! What is recorded: events, and the messages they store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Number of an event; also the id of the message an event stores. Starts at 1, grows by one for each event, never
/// used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// No number is larger, so that adding to one never overflows.
pub(crate) const LSN_MAX: u64 = u64::MAX >> 1;

impl Lsn {
    /// The number `n` events later.
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A durable session's number, chosen by the caller, unique for the life of the store. Whatever consumes is a
/// session: a client's, and the source of a graph.
pub type SessionKey = u64;

/// A message as it is kept. What its properties mean is the caller's business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Topic name.
    pub topic: Bytes,
    /// Encoded properties.
    pub properties: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// Where in `properties` the expiry stands, so that it can be patched.
    pub expiry_offset: Option<u32>,
    /// Expiry, seconds after `received`.
    pub expiry: Option<u32>,
    /// The QoS it was published with.
    pub qos: u8,
    /// The retain flag it was published with.
    pub retain: bool,
    /// When it came, wall milliseconds.
    pub received: u64,
    /// How many graphs it has passed through.
    pub hops: u8,
}

/// A will: published when its session's connection ends badly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Will {
    /// What is published.
    pub message: Message,
    /// How long after the end of the connection, seconds.
    pub delay: u32,
}

impl Will {
    /// A copy that holds on to no larger buffer.
    pub(crate) fn detached(&self) -> Self {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let message = Message {
            topic: copy(&self.message.topic),
            properties: copy(&self.message.properties),
            payload: copy(&self.message.payload),
            ..self.message.clone()
        };
        Self { message, delay: self.delay }
    }
}

/// A session that takes a stored message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taker {
    /// Whose queue. A session takes a message once.
    pub session: SessionKey,
    /// The QoS it is delivered with.
    pub qos: u8,
    /// The retain flag it is delivered with.
    pub retain: bool,
    /// Packet id it is delivered with, 0 while it has none.
    pub packet_id: u16,
    /// Subscription identifiers it is delivered with.
    pub identifiers: Box<[u32]>,
}

/// A change of the durable state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session begins, or an existing one gets a new connection, expiry or will.
    SessionOpened {
        /// Which.
        session: SessionKey,
        /// Its client's id.
        client_id: Box<str>,
        /// Expiry after the connection's end, seconds.
        expiry: u32,
        /// Its will, if it has one.
        will: Option<Box<Will>>,
    },
    /// The connection ended: expiry counts from here.
    SessionClosed {
        /// Which.
        session: SessionKey,
        /// When, wall milliseconds.
        at: u64,
    },
    /// The session is over: everything of it goes.
    SessionEnded {
        /// Which.
        session: SessionKey,
    },
    /// A subscription is made or replaced.
    Subscribed {
        /// Whose.
        session: SessionKey,
        /// Its filter.
        filter: Box<str>,
        /// Its options, opaque to the store.
        options: Bytes,
        /// Its messages are persisted.
        persisted: bool,
    },
    /// A subscription is taken back.
    Unsubscribed {
        /// Whose.
        session: SessionKey,
        /// Its filter.
        filter: Box<str>,
    },
    /// A message is kept for those who take it.
    Stored {
        /// The message; this event's number is its id.
        message: Arc<Message>,
        /// The sessions whose queues it joins. Sessions that the store does not know are passed over.
        takers: Vec<Taker>,
        /// It becomes the retained message of its topic.
        retained: bool,
        /// Publisher and packet id of a QoS 2 publish: remembered until [`Event::Released`].
        from: Option<(SessionKey, u16)>,
    },
    /// An entry went out under a packet id that it did not have when it was stored: it keeps this id from now on.
    Sent {
        /// Whose entry.
        session: SessionKey,
        /// Of which message.
        message: Lsn,
        /// The id, 0 to take it back.
        packet_id: u16,
    },
    /// The subscriber's PUBREC: from now on only PUBREL is owed.
    Received {
        /// Whose entry.
        session: SessionKey,
        /// Of which message.
        message: Lsn,
    },
    /// Delivered or deliberately dropped: the entry goes.
    Done {
        /// Whose entry.
        session: SessionKey,
        /// Of which message.
        message: Lsn,
    },
    /// The publisher's PUBREL: its packet id is free again.
    Released {
        /// The publisher.
        session: SessionKey,
        /// The packet id.
        packet_id: u16,
    },
    /// The topic has no retained message any more.
    RetainedCleared {
        /// Which.
        topic: Box<str>,
    },
    /// Keyed state is set: state store pairs, the clock's floor, checkpoints of graphs. Callers name-space the keys.
    KeySet {
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Keyed state is removed.
    KeyDeleted {
        /// Key.
        key: Bytes,
    },
}
