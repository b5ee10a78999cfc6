//! What is under way between broker and client at QoS 1 and 2: packet identifiers and what each waits for.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::message::Message;
use crate::packet::{PacketId, QoS};

/// What an outgoing message waits for.
#[derive(Debug, Clone)]
pub enum Waiting {
    /// For PUBACK (QoS 1) [MQTT-4.3.2-3] or PUBREC (QoS 2) [MQTT-4.3.3-3]; the message may have to be sent again.
    Received {
        /// What was sent.
        message: Arc<Message>,
        /// At which QoS.
        qos: QoS,
        /// With the retain flag set.
        retain: bool,
        /// The subscription identifiers sent with it.
        subscription_ids: Box<[u32]>,
        /// The share that it came by, as `group/filter`.
        share: Option<Arc<str>>,
    },
    /// For PUBCOMP [MQTT-4.3.3-5]: PUBREL was sent, the message itself is done with [MQTT-4.3.3-6]. A share's message
    /// stays with this client [MQTT-4.8.2-4].
    Completed,
}

/// Messages sent to a client and not yet acknowledged, in the order they were sent.
///
/// Identifiers are given out in turn, so a message's place follows from its identifier: nothing is searched,
/// whatever order the acknowledgements come in.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The message with identifier `first + n` (round the corner) is at `n`; `None` once it is done.
    slots: VecDeque<Option<Waiting>>,
    /// Identifier of the first slot, 0-based.
    first: u16,
    live: usize,
}

/// How many identifiers there are: 1 to 32,767. The others are those of persisted messages.
const IDS: u16 = crate::durable::FIRST_ID - 1;

impl Outgoing {
    /// Messages under way.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The next identifier in turn is still in use: its message has to be acknowledged first.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= usize::from(IDS)
    }

    /// Takes a free packet identifier for `waiting` [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]. `None` while the next one in turn is
    /// still in use.
    pub fn start(&mut self, waiting: Waiting) -> Option<PacketId> {
        let offset = u16::try_from(self.slots.len()).ok().filter(|n| *n < IDS)?;
        self.slots.push_back(Some(waiting));
        self.live += 1;
        id_at(self.first, offset)
    }

    fn position(&self, id: PacketId) -> usize {
        let id = id.get() - 1;
        usize::from(if id >= self.first { id - self.first } else { IDS - self.first + id })
    }

    /// What the message with this identifier waits for.
    pub fn get(&mut self, id: PacketId) -> Option<&mut Waiting> {
        let at = self.position(id);
        self.slots.get_mut(at)?.as_mut()
    }

    /// PUBACK: the QoS 1 message is done. False when no such message was under way.
    pub fn acknowledge(&mut self, id: PacketId) -> bool {
        self.finish(id, |waiting| matches!(waiting, Waiting::Received { qos: QoS::AtLeastOnce, .. }))
    }

    /// PUBREC with success: from now on only PUBREL is sent again. False when the identifier is unknown.
    pub fn receive(&mut self, id: PacketId) -> bool {
        match self.get(id) {
            Some(waiting @ Waiting::Received { qos: QoS::ExactlyOnce, .. }) => {
                *waiting = Waiting::Completed;
                true
            }
            Some(Waiting::Completed) => true,
            _ => false,
        }
    }

    /// PUBREC with an error: the message is over.
    pub fn reject(&mut self, id: PacketId) -> bool {
        self.finish(id, |waiting| matches!(waiting, Waiting::Received { qos: QoS::ExactlyOnce, .. }))
    }

    /// PUBCOMP: the QoS 2 message is done.
    pub fn complete(&mut self, id: PacketId) -> bool {
        self.finish(id, |waiting| matches!(waiting, Waiting::Completed))
    }

    fn finish(&mut self, id: PacketId, expected: impl Fn(&Waiting) -> bool) -> bool {
        let at = self.position(id);
        match self.slots.get_mut(at) {
            Some(slot) if slot.as_ref().is_some_and(expected) => *slot = None,
            _ => return false,
        }
        self.live -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first = (self.first + 1) % IDS;
        }
        true
    }

    /// Everything under way, oldest first: what is sent again when the client comes back [MQTT-4.4.0-1].
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, &Waiting)> {
        let ids = (0..IDS).filter_map(|n| id_at(self.first, n));
        ids.zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }
}

/// The identifier `offset` places behind the 0-based `first`.
fn id_at(first: u16, offset: u16) -> Option<PacketId> {
    let at = (u32::from(first) + u32::from(offset)) % u32::from(IDS);
    PacketId::new(u16::try_from(at + 1).ok()?)
}

/// QoS 2 messages taken from a client whose PUBREL has not come yet.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Sorted.
    ids: Vec<PacketId>,
}

impl Incoming {
    /// PUBLISH at QoS 2. False when it is the same message again, which must not be passed on [MQTT-4.3.3-10].
    pub fn publish(&mut self, id: PacketId) -> bool {
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.ids.insert(at, id);
                true
            }
        }
    }

    /// Whether a PUBLISH with this identifier was taken.
    pub fn contains(&self, id: PacketId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// PUBREL. False when the identifier is unknown.
    pub fn release(&mut self, id: PacketId) -> bool {
        self.ids.binary_search(&id).map(|at| self.ids.remove(at)).is_ok()
    }

    /// Messages whose PUBREL has not come.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    #[test]
    fn identifiers_in_use_are_not_given_out_again() {
        let mut outgoing = Outgoing::default();
        for n in 1..=32_767 {
            assert_eq!(outgoing.start(Waiting::Completed), Some(id(n)));
        }
        assert_eq!(outgoing.start(Waiting::Completed), None);
        assert!(outgoing.complete(id(2)), "out of order is fine");
        assert_eq!(outgoing.start(Waiting::Completed), None, "1 is next in turn and still in use");
        assert!(outgoing.complete(id(1)));
        assert_eq!(outgoing.start(Waiting::Completed), Some(id(1)), "round the corner");
        assert_eq!(outgoing.start(Waiting::Completed), Some(id(2)));
        assert_eq!(outgoing.start(Waiting::Completed), None);
        let under_way: Vec<u16> = outgoing.iter().map(|(id, _)| id.get()).collect();
        assert_eq!((under_way[0], under_way[32_766]), (3, 2));
    }

    #[test]
    fn acknowledgements_must_fit_what_was_sent() {
        let mut outgoing = Outgoing::default();
        let first = outgoing.start(Waiting::Completed).unwrap();
        assert!(!outgoing.acknowledge(first), "PUBACK does not end a QoS 2 message");
        assert!(!outgoing.complete(id(9)), "an unknown identifier ends nothing");
        assert!(outgoing.receive(first), "PUBREC again is answered again");
        assert!(outgoing.complete(first));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_qos_2_message_is_new_once() {
        let mut incoming = Incoming::default();
        assert!(incoming.publish(id(3)));
        assert!(!incoming.publish(id(3)));
        assert!(incoming.release(id(3)));
        assert!(!incoming.release(id(3)));
        assert!(incoming.publish(id(3)));
    }
}
