//! The client's side of exchanges at QoS 1 and 2: what its acknowledgements end, and what it publishes itself.

use super::encode::{write_ack, write_ack_reason};
use super::{PubRec, Session};
use crate::durable::{Durable, Number, OnPubRec};
use crate::outbox::Outbox;
use crate::packet::{PacketId, PacketType, ReasonCode};

impl Session {
    /// PUBACK from the client: the window has room for one more. Unknown identifiers are not an error in
    /// MQTT; they are ignored. Gives the number of a persisted message that is done.
    pub fn on_puback(&mut self, id: PacketId) -> Option<Number> {
        match self.durable_of(id) {
            Some(durable) => durable.acknowledge(id),
            None => {
                self.is_done(id);
                self.outgoing.acknowledge(id);
                None
            }
        }
    }

    /// The client has said more of an exchange: from an earlier connection or not, it is not begun again.
    fn is_done(&mut self, id: PacketId) {
        if let Some(resend) = self.resend.get_mut() {
            resend.retain(|waiting| *waiting != id);
        }
    }

    /// The persisted part, when this identifier is one of its.
    fn durable_of(&mut self, id: PacketId) -> Option<&mut Durable> {
        self.durable.as_deref_mut().filter(|_| id.get() >= crate::durable::FIRST_ID)
    }

    /// PUBREC from the client; answers PUBREL at once and so in the order of the PUBRECs [MQTT-4.3.3-4] [MQTT-4.6.0-4],
    /// with "packet identifier not found" when there is
    /// no such message. For a persisted message, says what has to be written down before.
    pub fn on_pubrec(&mut self, id: PacketId, reason: ReasonCode, outbox: &mut Outbox) -> PubRec {
        let Some(link) = self.link else { return PubRec::Answered };
        let known = match self.durable_of(id) {
            Some(durable) if reason.is_error() => {
                return durable.reject(id).map_or(PubRec::Answered, PubRec::Done);
            }
            Some(durable) => match durable.receive(id) {
                OnPubRec::WriteDown(number) => return PubRec::Received(number),
                OnPubRec::Wait => return PubRec::Answered,
                OnPubRec::Again => true,
                OnPubRec::Unknown => false,
            },
            None if reason.is_error() => {
                self.is_done(id);
                self.outgoing.reject(id); // [MQTT-4.4.0-2]
                return PubRec::Answered;
            }
            None => {
                self.is_done(id);
                self.outgoing.receive(id)
            }
        };
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        write_ack_reason(link.version, PacketType::PubRel, id, reason, outbox);
        PubRec::Answered
    }

    /// The PUBREC of a persisted message is written down: PUBREL follows [MQTT-4.3.3-4].
    pub fn on_received(&mut self, number: Number, outbox: &mut Outbox) {
        let id = self.durable.as_mut().and_then(|durable| durable.written_received(number));
        if let (Some(id), Some(link)) = (id, self.link) {
            write_ack(link.version, PacketType::PubRel, id, outbox);
        }
    }

    /// PUBCOMP from the client. Gives the number of a persisted message that is done.
    pub fn on_pubcomp(&mut self, id: PacketId) -> Option<Number> {
        match self.durable_of(id) {
            Some(durable) => durable.complete(id),
            None => {
                self.is_done(id);
                self.outgoing.complete(id);
                None
            }
        }
    }

    /// QoS 2 PUBLISH from the client. False when it is one that was taken already [MQTT-4.3.3-10].
    pub fn on_publish_qos2(&mut self, id: PacketId) -> bool {
        self.incoming.publish(id)
    }

    /// Whether a QoS 2 message with this identifier was taken and is not completed.
    pub fn has_incoming(&self, id: PacketId) -> bool {
        self.incoming.contains(id)
    }

    /// Takes back what [`Self::on_publish_qos2`] noted: the message was refused, and the next one with its identifier is
    /// a new one [MQTT-4.3.3-9].
    pub fn refuse_qos2(&mut self, id: PacketId) {
        self.incoming.release(id);
    }

    /// QoS 2 messages from the client that are not completed: counts against our receive maximum.
    pub fn incoming(&self) -> usize {
        self.incoming.len()
    }

    /// PUBREL from the client. The reason of the PUBCOMP that is to follow [MQTT-4.3.3-11] and after which the identifier
    /// is free [MQTT-4.3.3-12], and whether the message is
    /// in the log, so that this must be written down before.
    pub fn on_pubrel(&mut self, id: PacketId) -> (ReasonCode, bool) {
        let known = self.incoming.release(id);
        let durable = self.durable.as_mut().is_some_and(|durable| durable.incoming.remove(&id));
        match known {
            true => (ReasonCode::Success, durable),
            false => (ReasonCode::PacketIdentifierNotFound, durable),
        }
    }
}
