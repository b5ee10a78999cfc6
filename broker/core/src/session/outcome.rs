//! How a session takes messages, and what becomes of them.

use std::sync::Arc;

use crate::durable::Number;
use crate::message::Message;
use crate::packet::QoS;

/// How a subscription takes one message.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The highest QoS of the subscriptions that match.
    pub qos: QoS,
    /// The retain flag the client sees.
    pub retain: bool,
    /// The identifiers of all subscriptions that match [MQTT-3.3.4-3].
    pub identifiers: &'a [u32],
    /// The share that it comes by, as `group/filter`.
    pub share: Option<&'a Arc<str>>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the outbox.
    Sent,
    /// It waits in the session's queue.
    Queued,
    /// It waits, and others that waited made room for it.
    Displaced(Shed),
    /// It is not delivered.
    Dropped(DropCause),
}

/// Messages that left a session's queue without being sent, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    /// Their time was over.
    pub expired: u64,
    /// Too large for the client.
    pub too_large: u64,
    /// To make room for newer ones.
    pub oldest: u64,
}

impl Shed {
    pub(super) fn add(&mut self, cause: DropCause) {
        match cause {
            DropCause::TooLarge => self.too_large += 1,
            DropCause::Expired => self.expired += 1,
            DropCause::Away | DropCause::Slow | DropCause::QueueFull => self.oldest += 1,
        }
    }

    /// Each cause with its number.
    pub fn causes(&self) -> [(DropCause, u64); 3] {
        [
            (DropCause::Expired, self.expired),
            (DropCause::TooLarge, self.too_large),
            (DropCause::QueueFull, self.oldest),
        ]
    }
}

/// A message of a shared subscription whose session ended before it was delivered.
#[derive(Debug)]
pub struct Orphan {
    /// The share, as `group/filter`.
    pub share: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
}

/// Why a message was not delivered to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropCause {
    /// QoS 0, and the client is away.
    Away,
    /// QoS 0, and the client does not read as fast as others write.
    Slow,
    /// The session's queue is full.
    QueueFull,
    /// Larger than the client takes [MQTT-3.1.2-25].
    TooLarge,
    /// Its time is over [MQTT-3.3.2-5].
    Expired,
}

impl DropCause {
    /// The label on metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Slow => "slow",
            Self::QueueFull => "queue-full",
            Self::TooLarge => "too-large",
            Self::Expired => "expired",
        }
    }
}

/// What became of messages that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pumped {
    /// PUBLISH packets written.
    pub sent: u64,
    /// Messages that were not.
    pub shed: Shed,
}

impl Pumped {
    pub(super) fn and(self, other: Self) -> Self {
        let Shed { expired, too_large, oldest } = other.shed;
        let shed = Shed {
            expired: self.shed.expired + expired,
            too_large: self.shed.too_large + too_large,
            oldest: self.shed.oldest + oldest,
        };
        Self { sent: self.sent + other.sent, shed }
    }
}

/// What a PUBREC asks of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubRec {
    /// Nothing.
    Answered,
    /// The message of this number is done.
    Done(Number),
    /// It is to be written down that the message of this number was received; then comes PUBREL.
    Received(Number),
}
