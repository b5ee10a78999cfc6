//! What waits for a remote system: bounded, and counted until it is delivered.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, mpsc};

use crate::parcel::Parcel;

/// How much may wait for a remote system, what is under way included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// Messages.
    pub messages_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, messages_max: 1_000_000 }
    }
}

/// There is no room; the message is given back.
#[derive(Debug, thiserror::Error)]
#[error("too much waits for the remote system")]
pub struct Full(pub Box<(Parcel, Receipt)>);

/// Kept until a message is delivered, or never can be: whatever its owner wants to be dropped then.
#[derive(Default)]
pub struct Receipt(Option<Box<dyn Any + Send + Sync>>);

impl Receipt {
    /// Drops this when the message is delivered.
    pub fn keep(kept: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(kept)))
    }

    /// Nobody wants to know.
    pub fn none() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.0.is_some()).finish()
    }
}

/// A message on its way to a remote system. To drop it is to say that it is delivered, or never can be.
#[derive(Debug)]
pub struct Shipment {
    /// The message.
    pub parcel: Parcel,
    /// When it was queued.
    pub queued: Instant,
    // Dropped in this order: there is room before anybody hears of it.
    _room: Room,
    _receipt: Receipt,
}

/// The room that a message takes.
#[derive(Debug)]
struct Room {
    bytes: usize,
    level: Arc<Level>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.level.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.level.messages.fetch_sub(1, Ordering::AcqRel);
        self.level.fell.notify_one();
    }
}

#[derive(Debug, Default)]
struct Level {
    bytes: AtomicUsize,
    messages: AtomicUsize,
    fell: Notify,
    closed: AtomicBool,
}

/// The end that messages are put into. The queue is closed by [`Sender::close`], or when the last of its clones is gone.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Nothing stands for the end.
    line: mpsc::UnboundedSender<Option<Shipment>>,
    level: Arc<Level>,
    limits: QueueLimits,
}

/// The end that messages are taken from.
#[derive(Debug)]
pub struct Receiver {
    line: mpsc::UnboundedReceiver<Option<Shipment>>,
    ended: bool,
    limits: QueueLimits,
}

/// A queue in front of a remote system.
pub fn queue(limits: QueueLimits) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (
        Sender { line: sender, level: Arc::default(), limits },
        Receiver { line: receiver, ended: false, limits },
    )
}

impl Sender {
    /// Puts a message in. Never waits.
    ///
    /// # Errors
    /// There is no room, or nobody at the other end.
    pub fn send(&self, parcel: Parcel, receipt: Receipt) -> Result<(), Full> {
        match self.has_room() {
            true => self.insist(parcel, receipt),
            false => Err(Full(Box::new((parcel, receipt)))),
        }
    }

    /// Puts a message in, also when there is no room. Never waits. For who looks for room before he makes more.
    ///
    /// # Errors
    /// There is nobody at the other end.
    pub fn insist(&self, parcel: Parcel, receipt: Receipt) -> Result<(), Full> {
        let bytes = parcel.size();
        if self.line.is_closed() || self.level.closed.load(Ordering::Acquire) {
            return Err(Full(Box::new((parcel, receipt))));
        }
        self.level.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.level.messages.fetch_add(1, Ordering::AcqRel);
        let room = Room { bytes, level: Arc::clone(&self.level) };
        let shipment = Shipment { parcel, queued: Instant::now(), _room: room, _receipt: receipt };
        match self.line.send(Some(shipment)) {
            Ok(()) | Err(mpsc::error::SendError(None)) => Ok(()),
            Err(mpsc::error::SendError(Some(Shipment { parcel, _receipt, .. }))) => {
                Err(Full(Box::new((parcel, _receipt))))
            }
        }
    }

    /// Nothing more is put in; what is in there may still be taken.
    pub fn close(&self) {
        if !self.level.closed.swap(true, Ordering::AcqRel) {
            let _ = self.line.send(None);
        }
    }

    /// Whether another message would be taken now.
    pub fn has_room(&self) -> bool {
        self.bytes() < self.limits.bytes_max && self.messages() < self.limits.messages_max
    }

    /// Whether so little waits that more may well be brought: less than half of what may.
    pub fn wants_more(&self) -> bool {
        self.bytes() < self.limits.bytes_max / 2 && self.messages() < self.limits.messages_max / 2
    }

    /// Bytes that wait or are under way.
    pub fn bytes(&self) -> usize {
        self.level.bytes.load(Ordering::Acquire)
    }

    /// Messages that wait or are under way.
    pub fn messages(&self) -> usize {
        self.level.messages.load(Ordering::Acquire)
    }

    /// Returns when something was delivered since the last call, or is.
    pub async fn delivered(&self) {
        self.level.fell.notified().await;
    }
}

impl Receiver {
    /// How much may wait in all: who keeps more than a part of it back will wait for ever.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// The next message; nothing when the queue is closed and empty. Nothing is lost when this is dropped while it waits.
    pub async fn next(&mut self) -> Option<Shipment> {
        if self.ended {
            return None;
        }
        let next = self.line.recv().await.flatten();
        self.ended = next.is_none();
        next
    }

    /// Waits for a message and takes what else there is, up to `max` in all. How many; 0 when the queue is closed and empty.
    pub async fn next_many(&mut self, into: &mut Vec<Shipment>, max: usize) -> usize {
        let before = into.len();
        into.extend(self.next().await);
        while into.len() > before && into.len() - before < max {
            let Some(more) = self.try_next() else { break };
            into.push(more);
        }
        into.len() - before
    }

    /// A message that is there.
    pub fn try_next(&mut self) -> Option<Shipment> {
        if self.ended {
            return None;
        }
        let next = self.line.try_recv().ok()?;
        self.ended = next.is_none();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(bytes: usize) -> Parcel {
        Parcel { payload: vec![0; bytes].into(), ..Parcel::default() }
    }

    #[tokio::test]
    async fn room_is_taken_until_the_shipment_is_dropped_and_the_receipt_goes_with_it() {
        let (sender, mut receiver) = queue(QueueLimits { bytes_max: 1000, messages_max: 10 });
        let kept = Arc::new(());
        sender.send(parcel(2000), Receipt::keep(Arc::clone(&kept))).unwrap();
        let Full(back) = sender.send(parcel(1), Receipt::none()).unwrap_err();
        assert_eq!(back.0, parcel(1));
        let shipment = receiver.next().await.unwrap();
        assert!(!sender.has_room() && Arc::strong_count(&kept) == 2);
        drop(shipment);
        assert!((sender.bytes(), sender.messages(), Arc::strong_count(&kept)) == (0, 0, 1));
        sender.delivered().await;
        sender.send(parcel(1), Receipt::none()).unwrap();
        let other = sender.clone();
        other.close();
        assert!(sender.send(parcel(1), Receipt::none()).is_err());
        let mut rest = Vec::new();
        assert_eq!((receiver.next_many(&mut rest, 9).await, receiver.next_many(&mut rest, 9).await), (1, 0));
    }

    #[test]
    fn messages_are_counted_and_a_queue_without_a_reader_takes_none() {
        let (sender, receiver) = queue(QueueLimits { bytes_max: 1 << 20, messages_max: 2 });
        assert!(sender.send(parcel(1), Receipt::none()).is_ok() && !sender.wants_more());
        assert!(sender.send(parcel(1), Receipt::none()).is_ok());
        assert!(sender.send(parcel(1), Receipt::none()).is_err());
        drop(receiver);
        assert_eq!(sender.messages(), 0);
        assert!(sender.send(parcel(1), Receipt::none()).is_err());
    }
}
