//! What a client sends once it is connected, packet by packet.

use std::sync::Arc;

use broker_core::durable::Durable;
use broker_core::message::Publication;
use broker_core::packet::{
    self, PINGRESP, Packet, PacketId, PacketType, Properties, PropertiesBuilder, Property, PubAck, Publish,
    QoS, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version,
};
use broker_core::reorder::Order;
use broker_core::router::Options;
use broker_core::session::{PubRec, Session};
use broker_store::{Event, Lsn};

use crate::auth::access::Access;
use crate::broker::split_share;
use crate::client::{Answer, Client};
use crate::connection::End;
use crate::metrics::Category;
use crate::ordered;
use crate::persistence;
use crate::reauthentication::Login;
use crate::replay::Replay;
use crate::turn::{Taken, Turn};

/// The receiving side of a connection.
pub struct Inbound {
    peer: Peer,
    /// Topic aliases of this connection [MQTT-3.3.2-12]; by alias − 1.
    aliases: Vec<Option<Box<str>>>,
    /// Whom its messages are counted for, where it said so.
    category: Option<Arc<Category>>,
}

/// The user property of PUBLISH by which a message is taken even when the memory for messages is used up (AIO.md §9.2).
const HIGH_PRIORITY: &str = "$high_priority";
/// Topics that are the broker's own.
const SYS: &str = "$SYS/";

impl Inbound {
    /// Nothing received yet.
    ///
    /// `problem_information`: the client reads what is said beyond codes [MQTT-3.1.2-29].
    pub fn new(client: Arc<Client>, number: u64, version: Version, problem_information: bool) -> Self {
        let category = client.lock().category.clone();
        let peer = Peer { client, number, version, problem_information, access: None, login: None };
        Self { peer, aliases: Vec::new(), category }
    }

    /// Only what `access` allows is done from now on; by `login` the client may prove anew who it is.
    pub fn bound_by(mut self, access: Option<Arc<Access>>, login: Option<Box<Login>>) -> Self {
        self.peer.access = access;
        self.peer.login = login;
        self
    }

    /// Does what `packet` asks for.
    pub fn packet(&mut self, packet: Packet<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        turn.count_packet();
        match packet {
            Packet::Publish(publish) => self.publish(&publish, turn),
            Packet::PubAck(ack) => self.peer.acknowledged(turn, |session, _| {
                let done = session.on_puback(ack.packet_id);
                done.map_or(PubRec::Answered, PubRec::Done)
            }),
            Packet::PubRec(ack) => self
                .peer
                .acknowledged(turn, |session, outbox| session.on_pubrec(ack.packet_id, ack.reason, outbox)),
            Packet::PubRel(ack) => self.peer.released(ack.packet_id, turn),
            Packet::PubComp(ack) => self.peer.acknowledged(turn, |session, _| {
                let done = session.on_pubcomp(ack.packet_id);
                done.map_or(PubRec::Answered, PubRec::Done)
            }),
            Packet::Subscribe(subscribe) => self.peer.subscribe(&subscribe, turn),
            Packet::Unsubscribe(unsubscribe) => self.peer.unsubscribe(&unsubscribe, turn),
            Packet::PingReq => self.peer.write(turn, |out| {
                out.extend_from_slice(&PINGRESP); // [MQTT-3.12.4-1]
                Ok(())
            }),
            Packet::Disconnect(disconnect) => Err(self.peer.disconnect(&disconnect, turn)),
            Packet::Connect(_) => Err(refused("a second CONNECT came on one connection")), // [MQTT-3.1.0-2]
            Packet::Auth(auth) => match &self.peer.login {
                Some(login) => login.renew(&auth, &self.peer.client, self.peer.number, turn.broker().own()),
                None => Err(refused("AUTH came, but no authentication method was agreed on")), // [MQTT-4.12.0-6]
            },
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(refused("a packet came that only a server may send"))
            }
        }
    }

    fn publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
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

/// More user properties than the broker takes in one packet.
fn too_many_user_properties() -> End {
    crate::metrics::packet_refused("user-properties");
    End::Refused {
        reason: ReasonCode::QuotaExceeded,
        what: "a packet has more user properties than the broker takes",
    }
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

/// Whom the packets come from.
struct Peer {
    client: Arc<Client>,
    number: u64,
    version: Version,
    problem_information: bool,
    /// What it may do; nothing when it may do everything.
    access: Option<Arc<Access>>,
    login: Option<Box<Login>>,
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
    fn acknowledged(
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
    fn released(&self, id: PacketId, turn: &mut Turn<'_>) -> Result<(), End> {
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

    fn subscribe(&self, subscribe: &Subscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        check_user_properties(&subscribe.properties, turn)?;
        let mut said = PropertiesBuilder::new();
        let order = match ordered::asked(subscribe.properties) {
            Ok(order) => order,
            Err(why) => return self.refuse_subscriptions(subscribe, &why, turn),
        };
        if let Some(order) = order {
            ordered::granted(order, &mut said);
        }
        let asking = turn.broker().asking();
        let asked = asking.asked(subscribe.properties.user_properties());
        let grant = match self.persist_subscriptions(subscribe, asked && order.is_none(), turn) {
            Ok(grant) => grant,
            Err(reason) => {
                let codes: Vec<u8> = subscribe.subscriptions().map(|_| reason.code()).collect();
                return self.suback(subscribe, &said, &codes, 0, turn);
            }
        };
        if asked {
            asking.granted(grant.persisted, &mut said);
        }
        let identifier = subscribe.properties.subscription_identifier();
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        // One after the other [MQTT-3.8.4-5], with a reason for each [MQTT-3.8.4-6].
        for subscription in subscribe.subscriptions() {
            let persisted = grant.persisted && order.is_none();
            let (code, wants) = self.subscribe_one(&subscription, identifier, order, persisted, turn);
            codes.push(code.code());
            retained.extend(wants);
        }
        self.suback(subscribe, &said, &codes, grant.wait, turn)?;
        if !retained.is_empty() {
            let mut state = self.client.lock();
            retained.into_iter().for_each(|due| state.replay(due));
            drop(state);
            turn.replay(&self.client);
        }
        Ok(())
    }

    /// Has subscriptions written down, if the session is one of those that are, or becomes one by this.
    fn persist_subscriptions(
        &self,
        subscribe: &Subscribe<'_>,
        asked: bool,
        turn: &Turn<'_>,
    ) -> Result<Grant, ReasonCode> {
        let nothing = Ok(Grant { persisted: false, wait: 0 });
        let Some(persistence) = turn.broker().persistence() else { return nothing };
        let mut state = self.client.lock();
        // Whose session ends with the connection has nothing that could be restored.
        if state.session.expiry == 0 {
            return nothing;
        }
        let all = state.session.durable().is_some_and(|durable| durable.all);
        let persisted = all || persistence.policy.subscription(asked);
        let is_new = !state.session.is_durable();
        if is_new && !persisted {
            return nothing;
        }
        let session = self.client.id();
        let mut events = Vec::new();
        if is_new {
            events.push(persistence::opened(&state.session));
            events.extend(persistence::subscriptions(&state.session));
        }
        let identifier = subscribe.properties.subscription_identifier();
        for subscription in subscribe.subscriptions() {
            let filter = split_share(subscription.filter).1;
            if self.access.as_ref().is_some_and(|access| !access.covers(filter)) {
                continue;
            }
            let options = options_of(&subscription, identifier, None);
            let known = state.session.subscriptions().get(subscription.filter);
            events.push(Event::Subscribed {
                session,
                filter: subscription.filter.into(),
                options: persistence::options_bytes(&options),
                persisted: persisted || known.is_some_and(|known| known.persisted),
            });
        }
        let wait = persistence.append(events, session)?;
        if is_new {
            state.session.persist(Durable::default());
        }
        Ok(Grant { persisted, wait })
    }

    /// Grants nothing, and says why.
    fn refuse_subscriptions(
        &self,
        subscribe: &Subscribe<'_>,
        why: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        tracing::info!(client = &**self.client.lock().session.client_id(), "a SUBSCRIBE is refused: {why}");
        let mut said = PropertiesBuilder::new();
        // A text that does not fit is left out.
        let _ = said.put(Property::ReasonString(why));
        let code = ReasonCode::ImplementationSpecificError.code();
        let codes: Vec<u8> = subscribe.subscriptions().map(|_| code).collect();
        self.suback(subscribe, &said, &codes, 0, turn)
    }

    /// Answers a SUBSCRIBE [MQTT-3.8.4-1].
    fn suback(
        &self,
        subscribe: &Subscribe<'_>,
        said: &PropertiesBuilder,
        codes: &[u8],
        wait: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        let bare = SubAck { packet_id: subscribe.packet_id, properties: Properties::EMPTY, codes };
        // [MQTT-3.1.2-29]: a client may not want to hear more than codes.
        let full = match self.problem_information {
            true => SubAck { properties: said.properties(), ..bare },
            false => bare,
        };
        let size_max = self.client.lock().session.link().map_or(usize::MAX, |link| link.packet_size_max);
        let no = vec![ReasonCode::UnspecifiedError.code(); codes.len()];
        let refused = SubAck { codes: &no, ..bare };
        self.answer(
            wait,
            turn,
            |out| refused.encode(self.version, out),
            |out| {
                let start = out.len();
                full.encode(self.version, out)?;
                if out.len() - start > size_max {
                    // [MQTT-3.9.2-1] [MQTT-3.9.2-2]
                    out.truncate(start);
                    bare.encode(self.version, out)?;
                }
                Ok(())
            },
        )
    }

    /// Answers with a packet, once the record `wait` is written; or with another, when it is not.
    fn answer(
        &self,
        wait: u64,
        turn: &mut Turn<'_>,
        refused: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>,
        written: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>,
    ) -> Result<(), End> {
        if wait == 0 {
            return self.write(turn, written);
        }
        let (mut yes, mut no) = (Vec::new(), Vec::new());
        let too_large = |error: packet::EncodeError| End::Refused {
            reason: ReasonCode::PacketTooLarge,
            what: error.what,
        };
        written(&mut yes).and_then(|()| refused(&mut no)).map_err(too_large)?;
        let mut state = self.client.lock();
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        let answer = Answer::Packet { written: yes.into(), refused: no.into() };
        state.answer(wait, answer, turn.broker().persistence());
        turn.count_answer();
        turn.touch(&self.client, &mut state);
        Ok(())
    }

    /// Makes one subscription. Says what it was granted, and whether retained messages are due.
    fn subscribe_one(
        &self,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
        order: Option<Order>,
        persisted: bool,
        turn: &mut Turn<'_>,
    ) -> (ReasonCode, Option<Replay>) {
        let Subscription { filter, options } = *subscription;
        let broker = turn.broker();
        if let Some(access) = &self.access
            && !access.may_subscribe(split_share(filter).1)
        {
            return (ReasonCode::NotAuthorized, None); // [MQTT-3.8.4-6]
        }
        let mut wanted = options_of(subscription, identifier, order);
        let new = {
            let mut state = self.client.lock();
            let known = state.session.subscriptions();
            if known.len() >= broker.limits.subscriptions_max && !known.contains_key(filter) {
                broker.metrics.subscriptions_refused.increment(1);
                return (ReasonCode::QuotaExceeded, None);
            }
            // Switched on, it stays on as long as the session lives (AIO.md §6).
            let before = known.get(filter).is_some_and(|known| known.persisted);
            wanted.persisted = order.is_none() && (persisted || before);
            state.session.subscribe(filter, wanted)
        };
        let ordered = broker.subscribe(filter, &self.client, wanted);
        // [MQTT-3.8.4-7]
        let granted = match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        let due = match options.retain_handling {
            RetainHandling::SendAlways => true, // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            RetainHandling::SendIfNew => new,   // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
        };
        let due = due && split_share(filter).0.is_none(); // v5 §4.8.2
        (granted, due.then(|| Replay::new(filter, wanted, ordered)))
    }

    fn unsubscribe(&self, unsubscribe: &Unsubscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        check_user_properties(&unsubscribe.properties, turn)?;
        let mut codes = Vec::new();
        let mut gone = Vec::new();
        let session = self.client.id();
        // One after the other [MQTT-3.10.4-6]; nothing more comes for it [MQTT-3.10.4-2], what is under way is left to the
        // session [MQTT-3.10.4-3].
        for filter in unsubscribe.filters() {
            let mut state = self.client.lock();
            let existed = state.session.unsubscribe(filter);
            state.order(filter, None);
            state.replay_no_more(filter);
            let durable = state.session.is_durable();
            drop(state);
            if existed {
                turn.broker().unsubscribe(filter, session);
            }
            if existed && durable {
                gone.push(Event::Unsubscribed { session, filter: filter.into() });
            }
            let code = if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code.code());
        }
        let wait = match turn.broker().persistence() {
            Some(persistence) if !gone.is_empty() => persistence.insist(gone, session).unwrap_or(u64::MAX),
            _ => 0,
        };
        // Without properties [MQTT-3.11.2-1] [MQTT-3.11.2-2].
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::EMPTY, codes: &codes };
        let encode = |out: &mut Vec<u8>| unsuback.encode(self.version, out);
        self.answer(wait, turn, encode, encode) // [MQTT-3.10.4-4]
    }

    fn disconnect(&self, disconnect: &packet::Disconnect<'_>, turn: &Turn<'_>) -> End {
        if let Some(expiry) = disconnect.properties.session_expiry() {
            let mut state = self.client.lock();
            if state.session.expiry == 0 && expiry != 0 {
                return refused("DISCONNECT sets a session expiry, but CONNECT had set none"); // [MQTT-3.14.2-2]
            }
            state.session.expiry = expiry.min(turn.broker().limits.session_expiry_max);
        }
        // Only a normal disconnection takes the will back [MQTT-3.14.4-3] [MQTT-3.1.2-8].
        End::Disconnected { with_will: disconnect.reason != ReasonCode::NORMAL_DISCONNECTION }
    }
}

/// What is granted to a SUBSCRIBE that may be persisted.
struct Grant {
    persisted: bool,
    /// The record that the answer waits for; 0 for none.
    wait: u64,
}

fn options_of(subscription: &Subscription<'_>, identifier: Option<u32>, order: Option<Order>) -> Options {
    let options = subscription.options;
    Options {
        qos: options.qos,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier,
        order,
        persisted: false,
    }
}

fn check_user_properties(properties: &Properties<'_>, turn: &Turn<'_>) -> Result<(), End> {
    match properties.user_properties().count() > turn.broker().limits.user_properties_max {
        true => Err(too_many_user_properties()),
        false => Ok(()),
    }
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
