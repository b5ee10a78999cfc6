//! PUBLISH of a client, and its half of what follows: PUBACK, PUBREC, PUBREL and PUBCOMP.

use broker_core::message::Publication;
use broker_core::packet::{
    self, PacketId, PacketType, Properties, PropertiesBuilder, PubAck, Publish, QoS, ReasonCode, Version,
};
use broker_core::session::{PubRec, Session};
use broker_store::{Event, Lsn};

use super::{Inbound, Peer, resolve, too_many_user_properties};
use crate::client::Answer;
use crate::connection::End;
use crate::turn::{Taken, Turn};

/// The user property of PUBLISH by which a message is taken even when the memory for messages is used up (AIO.md §9.2).
const HIGH_PRIORITY: &str = "$high_priority";

/// Topics that are the broker's own.
const SYS: &str = "$SYS/";

impl Inbound {
    pub(super) fn publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        let Self { peer, aliases, category } = self;
        turn.count_received(publish.payload.len(), category.as_deref());
        if publish.properties.user_properties_count > turn.broker().limits.user_properties_max {
            return Err(too_many_user_properties());
        }
        let properties = &publish.properties;
        let kept = properties.forwardable();
        let topic = match properties.topic_alias {
            None => publish.topic,
            Some(alias) => resolve(aliases, alias, publish.topic, turn.broker().limits.topic_alias_maximum)?,
        };
        let refusal = match peer.may_publish(topic) {
            true => refusal(topic, properties, turn),
            false => Some(Refusal::Denied),
        };
        let (span, expiry_at) = (&kept.bytes, kept.expiry_offset);
        let mut publication = Publication::borrowed(topic, span, expiry_at, publish.payload, turn.now);
        publication.expiry = turn.broker().limits.message_expiry(properties.message_expiry);
        publication.qos = publish.qos;
        publication.retain = publish.retain;
        publication.publisher = peer.client.id();
        let Some(id) = publish.packet_id else {
            match refusal {
                None => {
                    turn.publish(&mut publication);
                }
                Some(_) => turn.refuse_qos0(category.as_deref()),
            }
            return Ok(());
        };
        let grant = match publish.retain {
            true => retained_grant(properties, topic, turn),
            false => None,
        };
        if publish.qos == QoS::AtLeastOnce {
            if turn.broker().persistence().is_some() {
                peer.has_room(turn)?; // otherwise each is answered before the next is read
            }
            let taken = match refusal {
                None => turn.publish(&mut publication),
                Some(refusal) => refusal.taken(peer.version, turn),
            };
            return peer.acknowledge(turn, PacketType::PubAck, id, taken, grant);
        }
        let taken = match peer.begin_qos2(id, turn)? {
            Begun::New { durable } => {
                let from = durable.then(|| (peer.client.id(), id.get()));
                let taken = match refusal {
                    None => turn.publish_from(&mut publication, from),
                    Some(refusal) => refusal.taken(peer.version, turn),
                };
                peer.note_qos2(id, taken, durable);
                taken
            }
            Begun::Again(number) => Taken::Once(number),
        };
        peer.acknowledge(turn, PacketType::PubRec, id, taken, grant)
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The memory for messages is used up.
    Pressed,
    /// The topic is the broker's own.
    Reserved,
    /// No rule allows it.
    Denied,
}

impl Refusal {
    /// What became of a message that is acknowledged.
    fn taken(self, version: Version, turn: &Turn<'_>) -> Taken {
        match self {
            Self::Pressed => {
                turn.broker().metrics.backpressure.increment(1);
                Taken::Refused(ReasonCode::QuotaExceeded)
            }
            Self::Reserved if version.is_v5() => Taken::Refused(ReasonCode::TopicNameInvalid),
            Self::Denied if version.is_v5() => Taken::Refused(ReasonCode::NotAuthorized),
            // Who cannot be told otherwise is told that it is done (AIO.md §5.9) 3.1.1 [MQTT-3.3.5-2].
            Self::Reserved | Self::Denied => Taken::ByNobody,
        }
    }
}

/// Whether a message is not to be taken, whatever it says.
fn refusal(topic: &str, properties: &packet::PublishProperties<'_>, turn: &Turn<'_>) -> Option<Refusal> {
    let broker = turn.broker();
    if topic.starts_with(SYS) {
        return Some(Refusal::Reserved);
    }
    let passes = || broker.limits.high_priority_passes && properties.user_property(HIGH_PRIORITY).is_some();
    (broker.is_pressed() && !passes()).then_some(Refusal::Pressed)
}

/// Whether the retained message of a topic is persisted; nothing when its publisher does not ask for that. What takes the
/// place of a persisted one is persisted in any case.
fn retained_grant(properties: &packet::PublishProperties<'_>, topic: &str, turn: &Turn<'_>) -> Option<bool> {
    let broker = turn.broker();
    let asked = properties.user_properties_count > 0 && broker.asking().asked(properties.user_properties());
    let granted =
        || broker.persistence().is_some_and(|it| it.policy.retained(topic, || true) || it.retains(topic));
    asked.then(granted)
}

/// PUBACK or PUBREC that says whether a retained message is persisted.
fn acknowledgement(
    kind: PacketType,
    id: PacketId,
    reason: ReasonCode,
    persisted: bool,
    turn: &Turn<'_>,
) -> Answer {
    let encode = |reason, properties: Properties<'_>| {
        let mut bytes = Vec::new();
        // Neither can be too long.
        let _ = match kind {
            PacketType::PubAck => {
                PubAck { packet_id: id, reason, properties }.encode(Version::V5, &mut bytes)
            }
            _ => packet::PubRec { packet_id: id, reason, properties }.encode(Version::V5, &mut bytes),
        };
        bytes.into_boxed_slice()
    };
    let mut said = PropertiesBuilder::new();
    turn.broker().asking().granted(persisted, &mut said);
    Answer::Packet {
        written: encode(reason, said.properties()),
        refused: encode(ReasonCode::UnspecifiedError, Properties::EMPTY),
    }
}

/// A QoS 2 message comes.
enum Begun {
    /// For the first time; whether it is to be remembered on disk.
    New { durable: bool },
    /// Again; the record that its answer waits for.
    Again(u64),
}

impl Peer {
    /// Whether it may publish to a topic; what is not taken then is counted.
    fn may_publish(&self, topic: &str) -> bool {
        let Some(access) = &self.access else { return true };
        let allowed = access.may_publish(topic);
        if !allowed {
            crate::metrics::message_denied();
        }
        allowed
    }

    /// An acknowledgement: the session takes note, and what waits for the window goes out.
    pub(super) fn acknowledged(
        &self,
        turn: &mut Turn<'_>,
        note: impl FnOnce(&mut Session, &mut broker_core::outbox::Outbox) -> PubRec,
    ) -> Result<(), End> {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        let (done, received) = match note(&mut state.session, &mut state.outbox) {
            PubRec::Answered => (None, None),
            PubRec::Done(number) => (Some(number), None),
            PubRec::Received(number) => (None, Some(number)),
        };
        turn.pump(&self.client, state);
        let fill = turn.pump_durable(&self.client, state);
        drop(guard);
        let session = self.client.id();
        if let Some(number) = done {
            turn.note(Event::Done { session, message: Lsn(number) });
        }
        let Some(persistence) = turn.broker().persistence() else { return Ok(()) };
        if let Some(number) = received {
            // PUBREL follows when this is written. A store that is closed ends with the broker.
            let _ = persistence.insist(vec![Event::Received { session, message: Lsn(number) }], 0);
        }
        if fill {
            persistence.fill(&self.client);
        }
        Ok(())
    }

    /// PUBREL: PUBCOMP says that the identifier is free, which must not be forgotten then.
    pub(super) fn released(&self, id: PacketId, turn: &mut Turn<'_>) -> Result<(), End> {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        let (reason, durable) = state.session.on_pubrel(id);
        let persistence = turn.broker().persistence();
        let wait = match persistence.filter(|_| durable) {
            Some(persistence) => {
                let session = self.client.id();
                let event = Event::Released { session, packet_id: id.get() };
                persistence.insist(vec![event], session).unwrap_or(u64::MAX)
            }
            None => 0,
        };
        state.answer(wait, Answer::Ack { kind: PacketType::PubComp, id, reason }, persistence);
        turn.count_answer();
        turn.touch(&self.client, state);
        Ok(())
    }

    pub(super) fn write(
        &self,
        turn: &mut Turn<'_>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>,
    ) -> Result<(), End> {
        let mut state = self.client.lock();
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        encode(state.outbox.buffer())
            .map_err(|error| End::Refused { reason: ReasonCode::PacketTooLarge, what: error.what })?;
        turn.count_answer();
        turn.touch(&self.client, &mut state);
        Ok(())
    }

    /// Answers a PUBLISH as its QoS asks [MQTT-3.3.4-1]: PUBACK [MQTT-4.3.2-4], after which its identifier is free
    /// [MQTT-4.3.2-5], or PUBREC [MQTT-4.3.3-8]; in the order in which they come [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    fn acknowledge(
        &self,
        turn: &mut Turn<'_>,
        kind: PacketType,
        id: PacketId,
        taken: Taken,
        grant: Option<bool>,
    ) -> Result<(), End> {
        let (reason, wait) = match taken {
            Taken::Now => (ReasonCode::Success, 0),
            Taken::ByNobody => (ReasonCode::NoMatchingSubscribers, 0),
            Taken::Once(number) => (ReasonCode::Success, number),
            Taken::Refused(reason) => (reason, 0),
        };
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        let answer = match grant.filter(|_| self.version.is_v5() && !reason.is_error()) {
            Some(persisted) => acknowledgement(kind, id, reason, persisted, turn),
            None => Answer::Ack { kind, id, reason },
        };
        state.answer(wait, answer, turn.broker().persistence());
        turn.count_answer();
        turn.touch(&self.client, state);
        Ok(())
    }

    /// Whether the client may have one more message under way: it was told how many [MQTT-3.3.4-7]. Clients before v5
    /// were not; theirs are bounded by the identifiers there are.
    fn has_room(&self, turn: &Turn<'_>) -> Result<(), End> {
        if !self.version.is_v5() {
            return Ok(());
        }
        let state = self.client.lock();
        if state.session.incoming().max(state.owed()) < usize::from(turn.broker().limits.receive_maximum) {
            return Ok(());
        }
        crate::metrics::packet_refused("receive-maximum");
        Err(End::Refused {
            reason: ReasonCode::ReceiveMaximumExceeded,
            what: "more messages are under way than the receive maximum allows",
        })
    }

    /// Whether the QoS 2 message is new [MQTT-4.3.3-10].
    fn begin_qos2(&self, id: PacketId, turn: &Turn<'_>) -> Result<Begun, End> {
        if !self.client.lock().session.has_incoming(id) {
            self.has_room(turn)?;
        }
        let mut state = self.client.lock();
        let new = state.session.on_publish_qos2(id);
        Ok(match new {
            true => Begun::New { durable: state.session.is_durable() },
            // Its record may still be on its way: the answer to the first one is then, too. Of a connection before, it is decided:
            // CONNACK waited for a newer one.
            false => Begun::Again(state.owed_of(id)),
        })
    }

    /// Notes what became of a new QoS 2 message.
    fn note_qos2(&self, id: PacketId, taken: Taken, durable: bool) {
        let mut state = self.client.lock();
        match taken {
            Taken::Refused(_) => {
                state.session.refuse_qos2(id);
            }
            Taken::Once(_) if durable => {
                state.session.durable().into_iter().for_each(|durable| {
                    durable.incoming.insert(id);
                });
            }
            _ => {}
        }
    }
}
