//! What a client sends once it is connected, packet by packet.

use std::sync::Arc;

use broker_core::message::Publication;
use broker_core::packet::{
    self, PINGRESP, Packet, PacketId, PacketType, Properties, PropertiesBuilder, Property, Publish, QoS,
    ReasonCode, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version,
};
use broker_core::reorder::Order;
use broker_core::router::Options;
use broker_core::session::{Delivered, Delivery, write_ack_reason};

use crate::broker::split_share;
use crate::client::Client;
use crate::connection::End;
use crate::ordered::{self, Held, Ordered};
use crate::turn::Turn;

/// The receiving side of a connection.
pub struct Inbound {
    peer: Peer,
    /// Topic aliases of this connection [MQTT-3.3.2-9]; by alias − 1.
    aliases: Vec<Option<Box<str>>>,
}

impl Inbound {
    /// Nothing received yet.
    ///
    /// `problem_information`: the client reads what is said beyond codes [MQTT-3.1.2-29].
    pub fn new(client: Arc<Client>, number: u64, version: Version, problem_information: bool) -> Self {
        Self { peer: Peer { client, number, version, problem_information }, aliases: Vec::new() }
    }

    /// Does what `packet` asks for.
    pub fn packet(&mut self, packet: Packet<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish, turn),
            Packet::PubAck(ack) => {
                self.peer.acknowledged(turn, |session, _| session.on_puback(ack.packet_id))
            }
            Packet::PubRec(ack) => self
                .peer
                .acknowledged(turn, |session, outbox| session.on_pubrec(ack.packet_id, ack.reason, outbox)),
            Packet::PubRel(ack) => {
                self.peer.acknowledged(turn, |session, outbox| session.on_pubrel(ack.packet_id, outbox))
            }
            Packet::PubComp(ack) => {
                self.peer.acknowledged(turn, |session, _| session.on_pubcomp(ack.packet_id))
            }
            Packet::Subscribe(subscribe) => self.peer.subscribe(&subscribe, turn),
            Packet::Unsubscribe(unsubscribe) => self.peer.unsubscribe(&unsubscribe, turn),
            Packet::PingReq => self.peer.write(turn, |out| {
                out.extend_from_slice(&PINGRESP); // [MQTT-3.12.4-1]
                Ok(())
            }),
            Packet::Disconnect(disconnect) => Err(self.peer.disconnect(&disconnect)),
            Packet::Connect(_) => Err(refused("a second CONNECT came on one connection")), // [MQTT-3.1.0-2]
            Packet::Auth(_) => Err(refused("AUTH came, but no authentication method was agreed on")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(refused("a packet came that only a server may send"))
            }
        }
    }

    fn publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        let Self { peer, aliases } = self;
        turn.count_received(publish.payload.len());
        let properties = &publish.properties;
        let kept = properties.forwardable();
        let topic = match properties.topic_alias {
            None => publish.topic,
            Some(alias) => resolve(aliases, alias, publish.topic, turn.broker().limits.topic_alias_maximum)?,
        };
        let (span, expiry_at) = (&kept.bytes, kept.expiry_offset);
        let mut publication = Publication::borrowed(topic, span, expiry_at, publish.payload, turn.now);
        publication.expiry = properties.message_expiry;
        publication.qos = publish.qos;
        publication.retain = publish.retain;
        publication.publisher = peer.client.id();
        let Some(id) = publish.packet_id else {
            turn.publish(&mut publication);
            return Ok(());
        };
        if publish.qos == QoS::AtLeastOnce {
            let taken = turn.publish(&mut publication);
            return peer.acknowledge(turn, PacketType::PubAck, id, received(taken));
        }
        let reason = match peer.begin_qos2(id, turn)? {
            true => received(turn.publish(&mut publication)),
            false => ReasonCode::Success,
        };
        peer.acknowledge(turn, PacketType::PubRec, id, reason)
    }
}

/// Whom the packets come from.
struct Peer {
    client: Arc<Client>,
    number: u64,
    version: Version,
    problem_information: bool,
}

impl Peer {
    /// An acknowledgement: the session takes note, and what waits for the window goes out.
    fn acknowledged(
        &self,
        turn: &mut Turn<'_>,
        note: impl FnOnce(&mut broker_core::session::Session, &mut broker_core::outbox::Outbox),
    ) -> Result<(), End> {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        note(&mut state.session, &mut state.outbox);
        let limits = &turn.broker().limits.session;
        let expired = state.session.pump(turn.now, limits, &mut state.outbox);
        for _ in 0..expired {
            turn.broker().metrics.dropped(broker_core::session::DropCause::Expired);
        }
        turn.touch(&self.client, state);
        Ok(())
    }

    fn write(
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
        turn.touch(&self.client, &mut state);
        Ok(())
    }

    fn acknowledge(
        &self,
        turn: &mut Turn<'_>,
        kind: PacketType,
        id: PacketId,
        reason: ReasonCode,
    ) -> Result<(), End> {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        write_ack_reason(self.version, kind, id, reason, &mut state.outbox);
        turn.touch(&self.client, state);
        Ok(())
    }

    /// True when the QoS 2 message is new [MQTT-4.3.3-10].
    fn begin_qos2(&self, id: PacketId, turn: &Turn<'_>) -> Result<bool, End> {
        let mut state = self.client.lock();
        let new = state.session.on_publish_qos2(id);
        if state.session.incoming() > usize::from(turn.broker().limits.receive_maximum) {
            return Err(End::Refused {
                reason: ReasonCode::ReceiveMaximumExceeded, // [MQTT-3.3.4-7]
                what: "more QoS 2 messages are under way than the receive maximum allows",
            });
        }
        Ok(new)
    }

    fn subscribe(&self, subscribe: &Subscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        let mut said = PropertiesBuilder::new();
        let order = match ordered::asked(subscribe.properties) {
            Ok(order) => order,
            Err(why) => return self.refuse_subscriptions(subscribe, &why, turn),
        };
        if let Some(order) = order {
            ordered::granted(order, &mut said);
        }
        let identifier = subscribe.properties.subscription_identifier();
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for subscription in subscribe.subscriptions() {
            let (code, wants) = self.subscribe_one(&subscription, identifier, order, turn);
            codes.push(code.code());
            retained.extend(wants);
        }
        self.suback(subscribe, &said, &codes, turn)?;
        for due in retained {
            self.send_retained(&due, turn);
        }
        Ok(())
    }

    /// Grants nothing, and says why.
    fn refuse_subscriptions(
        &self,
        subscribe: &Subscribe<'_>,
        why: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        tracing::info!(client = self.client.lock().session.client_id(), "a SUBSCRIBE is refused: {why}");
        let mut said = PropertiesBuilder::new();
        // A text that does not fit is left out.
        let _ = said.put(Property::ReasonString(why));
        let code = ReasonCode::ImplementationSpecificError.code();
        let codes: Vec<u8> = subscribe.subscriptions().map(|_| code).collect();
        self.suback(subscribe, &said, &codes, turn)
    }

    /// Answers a SUBSCRIBE [MQTT-3.8.4-1].
    fn suback(
        &self,
        subscribe: &Subscribe<'_>,
        said: &PropertiesBuilder,
        codes: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        let bare = SubAck { packet_id: subscribe.packet_id, properties: Properties::EMPTY, codes };
        // [MQTT-3.1.2-29]: a client may not want to hear more than codes.
        let full = match self.problem_information {
            true => SubAck { properties: said.properties(), ..bare },
            false => bare,
        };
        let size_max = self.client.lock().session.link().map_or(usize::MAX, |link| link.packet_size_max);
        self.write(turn, |out| {
            let start = out.len();
            full.encode(self.version, out)?;
            if out.len() - start > size_max {
                // [MQTT-3.9.2-1]
                out.truncate(start);
                bare.encode(self.version, out)?;
            }
            Ok(())
        })
    }

    /// Makes one subscription. Says what it was granted, and whether retained messages are due.
    fn subscribe_one<'p>(
        &self,
        subscription: &Subscription<'p>,
        identifier: Option<u32>,
        order: Option<Order>,
        turn: &mut Turn<'_>,
    ) -> (ReasonCode, Option<RetainedDue<'p>>) {
        let Subscription { filter, options } = *subscription;
        let broker = turn.broker();
        let wanted = Options {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
            order,
        };
        let new = {
            let mut state = self.client.lock();
            let known = state.session.subscriptions();
            if known.len() >= broker.limits.subscriptions_max && !known.contains_key(filter) {
                return (ReasonCode::QuotaExceeded, None);
            }
            state.session.subscribe(filter, wanted)
        };
        let ordered = broker.subscribe(filter, &self.client, wanted);
        let granted = match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        let due = match options.retain_handling {
            RetainHandling::SendAlways => true, // [MQTT-3.3.1-9]
            RetainHandling::SendIfNew => new,   // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
        };
        let (share, filter) = split_share(filter);
        let due = due && share.is_none();
        (granted, due.then_some(RetainedDue { filter, options: wanted, ordered }))
    }

    fn send_retained(&self, due: &RetainedDue<'_>, turn: &mut Turn<'_>) {
        let RetainedDue { filter, options, ordered } = due;
        let broker = turn.broker();
        let identifiers: &[u32] = options.identifier.as_slice();
        for message in broker.retained(filter, turn.now) {
            if options.no_local && message.publisher == self.client.id() {
                continue;
            }
            if let Some(ordered) = ordered {
                turn.arrange(ordered, Held { message, retained: true });
                continue;
            }
            let mut publication = Publication::of(&message);
            let how = Delivery { qos: options.qos, retain: true, identifiers }; // [MQTT-3.3.1-8]
            let mut guard = self.client.lock();
            let state = &mut *guard;
            let limits = &broker.limits.session;
            let delivered =
                state.session.deliver(&mut publication, None, how, turn.now, limits, &mut state.outbox);
            match delivered {
                Delivered::Sent => turn.touch(&self.client, state),
                Delivered::Queued => {}
                Delivered::Dropped(cause) => broker.metrics.dropped(cause),
            }
        }
    }

    fn unsubscribe(&self, unsubscribe: &Unsubscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        let mut codes = Vec::new();
        for filter in unsubscribe.filters() {
            let mut state = self.client.lock();
            let existed = state.session.unsubscribe(filter);
            state.order(filter, None);
            drop(state);
            if existed {
                turn.broker().unsubscribe(filter, self.client.id());
            }
            let code = if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code.code());
        }
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::EMPTY, codes: &codes };
        self.write(turn, |out| unsuback.encode(self.version, out)) // [MQTT-3.10.4-4]
    }

    fn disconnect(&self, disconnect: &packet::Disconnect<'_>) -> End {
        if let Some(expiry) = disconnect.properties.session_expiry() {
            let mut state = self.client.lock();
            if state.session.expiry == 0 && expiry != 0 {
                return refused("DISCONNECT sets a session expiry, but CONNECT had set none"); // [MQTT-3.14.2-2]
            }
            state.session.expiry = expiry;
        }
        End::Disconnected { with_will: disconnect.reason == ReasonCode::DisconnectWithWill }
    }
}

/// A new subscription that retained messages are due for.
struct RetainedDue<'p> {
    filter: &'p str,
    options: Options,
    ordered: Option<Arc<Ordered>>,
}

fn received(taken: bool) -> ReasonCode {
    if taken { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers }
}

fn refused(what: &'static str) -> End {
    crate::metrics::packet_refused("protocol");
    End::Refused { reason: ReasonCode::ProtocolError, what }
}

/// The topic that a PUBLISH with a topic alias means; notes a new one.
fn resolve<'t>(
    aliases: &'t mut Vec<Option<Box<str>>>,
    alias: u16,
    topic: &'t str,
    maximum: u16,
) -> Result<&'t str, End> {
    if alias > maximum {
        crate::metrics::packet_refused("protocol");
        return Err(End::Refused {
            reason: ReasonCode::TopicAliasInvalid, // [MQTT-3.3.2-9]
            what: "a topic alias is larger than the topic alias maximum",
        });
    }
    let at = usize::from(alias.saturating_sub(1));
    if aliases.len() <= at {
        aliases.resize(at + 1, None);
    }
    let known = &mut aliases[at];
    if topic.is_empty() {
        return known.as_deref().ok_or_else(|| refused("a topic alias was used before it was set"));
    }
    if known.as_deref() != Some(topic) {
        *known = Some(topic.into());
    }
    Ok(topic)
}
