//! What is under way between broker and client at QoS 1 and 2: packet identifiers and what each waits for.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::message::Message;
use crate::packet::{PacketId, QoS};

/// What an outgoing message waits for.
#[derive(Debug, Clone)]
pub enum Waiting {
    /// For PUBACK (QoS 1) or PUBREC (QoS 2); the message may have to be sent again.
    Received {
        /// What was sent.
        message: Arc<Message>,
        /// At which QoS.
        qos: QoS,
        /// With the retain flag set.
        retain: bool,
        /// The subscription identifiers sent with it.
        subscription_ids: Box<[u32]>,
    },
    /// For PUBCOMP: PUBREL was sent, the message itself is done with [MQTT-4.3.3-6].
    Completed,
}

#[derive(Debug)]
struct Slot {
    id: PacketId,
    waiting: Waiting,
}

/// Messages sent to a client and not yet acknowledged, in the order they were sent.
#[derive(Debug, Default)]
pub struct Outgoing {
    slots: VecDeque<Slot>,
    last_id: u16,
}

impl Outgoing {
    /// Messages under way.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a free packet identifier for `waiting` [MQTT-2.2.1-4]. `None` when all 65,535 are in use.
    pub fn start(&mut self, waiting: Waiting) -> Option<PacketId> {
        let id = self.free_id()?;
        self.last_id = id.get();
        self.slots.push_back(Slot { id, waiting });
        Some(id)
    }

    fn free_id(&self) -> Option<PacketId> {
        if self.slots.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            let candidate = PacketId::new(id)?;
            // Identifiers are given out in turn, so the next one is free unless the window spans it.
            if !self.spans(candidate) || self.position(candidate).is_none() {
                return Some(candidate);
            }
        }
    }

    /// Whether `id` may be in use: a cheap test that holds for in-order acknowledgements.
    fn spans(&self, id: PacketId) -> bool {
        match (self.slots.front(), self.slots.back()) {
            (Some(first), Some(last)) if first.id <= last.id => (first.id..=last.id).contains(&id),
            (Some(_), Some(_)) => true,
            _ => false,
        }
    }

    /// Clients acknowledge in order [MQTT-4.6.0-2], so the first slot is nearly always the one.
    fn position(&self, id: PacketId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    /// PUBACK: the QoS 1 message is done. False when no such message was under way.
    pub fn acknowledge(&mut self, id: PacketId) -> bool {
        self.finish(id, |waiting| matches!(waiting, Waiting::Received { qos: QoS::AtLeastOnce, .. }))
    }

    /// PUBREC with success: from now on only PUBREL is sent again. False when the identifier is unknown.
    pub fn receive(&mut self, id: PacketId) -> bool {
        let Some(at) = self.position(id) else { return false };
        let waiting = &mut self.slots[at].waiting;
        match waiting {
            Waiting::Received { qos: QoS::ExactlyOnce, .. } => {
                *waiting = Waiting::Completed;
                true
            }
            Waiting::Completed => true,
            Waiting::Received { .. } => false,
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
        match self.position(id) {
            Some(0) if expected(&self.slots[0].waiting) => {
                self.slots.pop_front();
                true
            }
            Some(at) if expected(&self.slots[at].waiting) => {
                self.slots.remove(at);
                true
            }
            _ => false,
        }
    }

    /// Everything under way, oldest first: what is sent again when the client comes back [MQTT-4.4.0-1].
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, &Waiting)> {
        self.slots.iter().map(|slot| (slot.id, &slot.waiting))
    }
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
        for _ in 0..65_535 {
            assert!(outgoing.start(Waiting::Completed).is_some());
        }
        assert_eq!(outgoing.start(Waiting::Completed), None);
        assert!(outgoing.complete(id(77)));
        assert_eq!(outgoing.start(Waiting::Completed), Some(id(77)));
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
