//! One client's session: what it is owed, what is under way, and what of it outlives the connection.
//!
//! The session decides and encodes into an [`Outbox`]; whoever holds the socket writes the outbox out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::Millis;
use crate::durable::{Durable, Entry, Number, OnPubRec};
use crate::inflight::{Incoming, Outgoing, Waiting};
use crate::message::{Frame, Message, Publication};
use crate::outbox::{Outbox, SHARE_BYTES_MIN};
use crate::packet::publish::Delivery as Shape;
use crate::packet::{PacketId, PacketType, QoS, ReasonCode, Version};
use crate::router::{Options, SubscriberId};

/// What one session may hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// QoS 1 and 2 messages under way to a client at once; the client's receive maximum may ask for fewer.
    pub inflight_max: u16,
    /// Messages that wait for a client, away or slow.
    pub queue_messages_max: usize,
    /// Bytes of those messages.
    pub queue_bytes_max: usize,
    /// Encoded bytes that wait for the socket before QoS 0 messages are shed.
    pub outbox_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflight_max: 1024,
            queue_messages_max: 100_000,
            queue_bytes_max: 64 << 20,
            outbox_bytes_max: 4 << 20,
        }
    }
}

/// What the connection that carries a session has negotiated.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Protocol version of the connection.
    pub version: Version,
    /// QoS 1 and 2 messages that the client takes at once [MQTT-3.3.4-9].
    pub receive_maximum: u16,
    /// The largest packet the client takes [MQTT-3.1.2-24].
    pub packet_size_max: usize,
}

/// A will message and when it is due.
#[derive(Debug, Clone)]
pub struct Will {
    /// What is published.
    pub message: Message,
    /// Seconds between the end of the connection and the publication [MQTT-3.1.3-9].
    pub delay: u32,
}

impl Will {
    /// The message, published at `now`: its lifetime begins with that (v5 §3.1.3.2.4).
    pub fn message(self, now: Millis) -> Arc<Message> {
        let mut message = self.message;
        message.received = now;
        Arc::new(message)
    }
}

/// How a subscription takes one message.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The highest QoS of the subscriptions that match.
    pub qos: QoS,
    /// The retain flag the client sees.
    pub retain: bool,
    /// The identifiers of all subscriptions that match [MQTT-3.3.4-3].
    pub identifiers: &'a [u32],
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the outbox.
    Sent,
    /// It waits in the session's queue.
    Queued,
    /// It is not delivered.
    Dropped(DropCause),
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

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    identifiers: Box<[u32]>,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    id: SubscriberId,
    client_id: Box<str>,
    /// By filter, as the client wrote it.
    subscriptions: BTreeMap<Box<str>, Options>,
    outgoing: Outgoing,
    incoming: Incoming,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    link: Option<Link>,
    /// What of it is persisted.
    durable: Option<Box<Durable>>,
    /// Seconds the session lives without a connection; `u32::MAX` is for ever.
    pub expiry: u32,
    /// When the connection ended.
    pub closed: Option<Millis>,
    /// Published unless the client takes its leave.
    pub will: Option<Box<Will>>,
}

impl Session {
    /// A session without connection.
    pub fn new(id: SubscriberId, client_id: &str) -> Self {
        Self {
            id,
            client_id: client_id.into(),
            subscriptions: BTreeMap::new(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            link: None,
            durable: None,
            expiry: 0,
            closed: None,
            will: None,
        }
    }

    /// Its number in the router.
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// The client identifier.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The connection that carries it.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// Messages that wait, in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Messages under way to the client.
    pub fn inflight(&self) -> usize {
        self.outgoing.len()
    }

    /// The subscriptions, by filter as written.
    pub fn subscriptions(&self) -> &BTreeMap<Box<str>, Options> {
        &self.subscriptions
    }

    /// Its persisted part, if it has one.
    pub fn durable(&mut self) -> Option<&mut Durable> {
        self.durable.as_deref_mut()
    }

    /// From now on it has a persisted part; as it came out of the log, or a new one.
    pub fn persist(&mut self, durable: Durable) {
        self.durable = Some(Box::new(durable));
    }

    /// It has no persisted part any more.
    pub fn persist_no_more(&mut self) {
        self.durable = None;
    }

    /// Whether it has a persisted part.
    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Drops what waits in the queue and is not to be kept.
    pub fn retain_queued(&mut self, keep: impl Fn(&Message) -> bool) {
        self.queue.retain(|queued| keep(&queued.message));
        self.queue_bytes = self.queue.iter().map(|queued| queued.message.size()).sum();
    }

    /// Notes a subscription. True when it is new.
    pub fn subscribe(&mut self, filter: &str, options: Options) -> bool {
        self.subscriptions.insert(filter.into(), options).is_none()
    }

    /// Forgets a subscription. False when there was none.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        self.subscriptions.remove(filter).is_some()
    }

    /// A connection takes the session up: what was under way is sent again, in its order and marked as
    /// duplicate [MQTT-4.4.0-1] [MQTT-3.3.1-1], then what waited.
    pub fn open(&mut self, link: Link, now: Millis, limits: &Limits, outbox: &mut Outbox) {
        self.link = Some(link);
        self.closed = None;
        for (id, waiting) in self.outgoing.iter() {
            match waiting {
                Waiting::Received { message, qos, retain, subscription_ids } => {
                    let how = Delivery { qos: *qos, retain: *retain, identifiers: subscription_ids };
                    write_publish(&link, message, &how, Some(id), true, now, outbox);
                }
                Waiting::Completed => write_ack(link.version, PacketType::PubRel, id, outbox),
            }
        }
        if let Some(durable) = &mut self.durable {
            durable.reopen();
            for id in durable.received() {
                write_ack(link.version, PacketType::PubRel, id, outbox);
            }
        }
        self.pump(now, limits, outbox);
    }

    /// The connection is gone.
    pub fn close(&mut self, now: Millis) {
        self.link = None;
        self.closed = Some(now);
    }

    /// Whether nothing of the session is left to keep at `now`.
    pub fn expired(&self, now: Millis) -> bool {
        match self.closed {
            Some(closed) if self.expiry != u32::MAX => now.since(closed) >= u64::from(self.expiry) * 1000,
            _ => false,
        }
    }

    /// Passes one message to the client, or keeps it for it. `frame` serves when several clients get the
    /// same bytes.
    pub fn deliver(
        &mut self,
        publication: &mut Publication<'_>,
        frame: Option<&mut Frame>,
        how: Delivery<'_>,
        now: Millis,
        limits: &Limits,
        outbox: &mut Outbox,
    ) -> Delivered {
        let qos = how.qos.min(publication.qos);
        let how = Delivery { qos, ..how };
        let Some(link) = self.link else {
            return match qos {
                QoS::AtMostOnce => Delivered::Dropped(DropCause::Away),
                _ => self.enqueue(publication.owned(), how, limits),
            };
        };
        if qos == QoS::AtMostOnce {
            if outbox.len() > limits.outbox_bytes_max {
                return Delivered::Dropped(DropCause::Slow);
            }
            return send(&link, publication, frame, &how, None, now, outbox);
        }
        let window = self.window(&link, limits);
        if !self.queue.is_empty() || self.outgoing.len() >= window || outbox.len() > limits.outbox_bytes_max {
            return self.enqueue(publication.owned(), how, limits);
        }
        let waiting = Waiting::Received {
            message: publication.owned(),
            qos,
            retain: how.retain,
            subscription_ids: how.identifiers.into(),
        };
        let Some(id) = self.outgoing.start(waiting) else {
            return self.enqueue(publication.owned(), how, limits);
        };
        let delivered = send(&link, publication, frame, &how, Some(id), now, outbox);
        if let Delivered::Dropped(_) = delivered {
            self.abandon(id, qos);
        }
        delivered
    }

    /// How many messages of those that are in memory only may be under way.
    fn window(&self, link: &Link, limits: &Limits) -> usize {
        let all = usize::from(limits.inflight_max.min(link.receive_maximum));
        all - all.min(self.durable.as_ref().map_or(0, |durable| durable.under_way()))
    }

    /// Sends what is ready of the persisted part, as far as the client takes more. How many were sent, and the numbers of
    /// those that cannot be: their time is over, they are too large [MQTT-3.1.2-25], or they `may` not be any more.
    pub fn pump_durable(
        &mut self,
        now: Millis,
        limits: &Limits,
        outbox: &mut Outbox,
        mut may: impl FnMut(&Message) -> bool,
    ) -> (u64, Vec<Number>) {
        let (Some(link), Some(durable)) = (self.link, &mut self.durable) else { return (0, Vec::new()) };
        let window = usize::from(limits.inflight_max.min(link.receive_maximum));
        let under_way = self.outgoing.len() + durable.under_way();
        let mut count = 0;
        let dropped = durable.send(window.saturating_sub(under_way), |entry: &Entry| {
            let Some(message) = entry.message.as_ref().filter(|message| may(message)) else { return false };
            let how = Delivery { qos: entry.qos, retain: entry.retain, identifiers: &entry.identifiers };
            let sent = write_publish(&link, message, &how, Some(entry.id), entry.dup, now, outbox);
            count += u64::from(sent == Delivered::Sent);
            sent == Delivered::Sent
        });
        (count, dropped)
    }

    fn enqueue(&mut self, message: Arc<Message>, how: Delivery<'_>, limits: &Limits) -> Delivered {
        let size = message.size();
        if self.queue.len() >= limits.queue_messages_max || self.queue_bytes + size > limits.queue_bytes_max {
            return Delivered::Dropped(DropCause::QueueFull);
        }
        self.queue_bytes += size;
        let Delivery { qos, retain, identifiers } = how;
        self.queue.push_back(Queued { message, qos, retain, identifiers: identifiers.into() });
        Delivered::Queued
    }

    /// A message that was not sent after all gives its identifier back.
    fn abandon(&mut self, id: PacketId, qos: QoS) {
        match qos {
            QoS::ExactlyOnce => self.outgoing.reject(id),
            _ => self.outgoing.acknowledge(id),
        };
    }

    /// Sends what waits, as far as the client takes more. Returns how many messages expired on the way.
    pub fn pump(&mut self, now: Millis, limits: &Limits, outbox: &mut Outbox) -> usize {
        let Some(link) = self.link else { return 0 };
        let window = self.window(&link, limits);
        let mut dropped = 0;
        while self.outgoing.len() < window && outbox.len() <= limits.outbox_bytes_max {
            let Some(next) = self.queue.pop_front() else { break };
            self.queue_bytes -= next.message.size();
            let mut publication = Publication::of(&next.message);
            let how = Delivery { qos: next.qos, retain: next.retain, identifiers: &next.identifiers };
            let waiting = Waiting::Received {
                message: Arc::clone(&next.message),
                qos: next.qos,
                retain: next.retain,
                subscription_ids: next.identifiers.clone(),
            };
            let Some(id) = self.outgoing.start(waiting) else { break };
            if let Delivered::Dropped(_) = send(&link, &mut publication, None, &how, Some(id), now, outbox) {
                self.abandon(id, next.qos);
                dropped += 1;
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        dropped
    }

    /// PUBACK from the client: the window has room for one more. Unknown identifiers are not an error in
    /// MQTT; they are ignored. Gives the number of a persisted message that is done.
    pub fn on_puback(&mut self, id: PacketId) -> Option<Number> {
        match self.durable_of(id) {
            Some(durable) => durable.acknowledge(id),
            None => {
                self.outgoing.acknowledge(id);
                None
            }
        }
    }

    /// The persisted part, when this identifier is one of its.
    fn durable_of(&mut self, id: PacketId) -> Option<&mut Durable> {
        self.durable.as_deref_mut().filter(|_| id.get() >= crate::durable::FIRST_ID)
    }

    /// PUBREC from the client; answers PUBREL [MQTT-4.3.3-4], with "packet identifier not found" when there is
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
                self.outgoing.reject(id);
                return PubRec::Answered;
            }
            None => self.outgoing.receive(id),
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
                self.outgoing.complete(id);
                None
            }
        }
    }

    /// QoS 2 PUBLISH from the client. False when it is one that was taken already [MQTT-4.3.3-10].
    pub fn on_publish_qos2(&mut self, id: PacketId) -> bool {
        self.incoming.publish(id)
    }

    /// Takes back what [`Self::on_publish_qos2`] noted: the message was refused.
    pub fn refuse_qos2(&mut self, id: PacketId) {
        self.incoming.release(id);
    }

    /// QoS 2 messages from the client that are not completed: counts against our receive maximum.
    pub fn incoming(&self) -> usize {
        self.incoming.len()
    }

    /// PUBREL from the client. The reason of the PUBCOMP that is to follow [MQTT-4.3.3-11], and whether the message is
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

/// Writes one PUBLISH, from shared bytes where several clients get the same.
fn send(
    link: &Link,
    publication: &mut Publication<'_>,
    frame: Option<&mut Frame>,
    how: &Delivery<'_>,
    id: Option<PacketId>,
    now: Millis,
    outbox: &mut Outbox,
) -> Delivered {
    if publication.expiry.is_some() || publication.forward.payload.len() >= SHARE_BYTES_MIN {
        let message = publication.owned();
        return write_publish(link, &message, how, id, false, now, outbox);
    }
    if how.identifiers.is_empty()
        && let Some(frame) = frame
    {
        let Some((bytes, encoded)) = frame.of(&publication.forward, link.version, how.qos, how.retain) else {
            return Delivered::Dropped(DropCause::TooLarge);
        };
        if bytes.len() > link.packet_size_max {
            return Delivered::Dropped(DropCause::TooLarge);
        }
        let start = outbox.buffer().len();
        outbox.buffer().extend_from_slice(bytes);
        if let Some(id) = id {
            encoded.patch_packet_id(&mut outbox.buffer()[start..], id);
        }
        return Delivered::Sent;
    }
    let shape = shape(how, id, false, None);
    let fits = |len| len <= link.packet_size_max;
    match publication.forward.encoded_len(link.version, &shape) {
        Ok(len) if fits(len) => {}
        _ => return Delivered::Dropped(DropCause::TooLarge),
    }
    match publication.forward.encode(link.version, &shape, outbox.buffer()) {
        Ok(_) => Delivered::Sent,
        Err(_) => Delivered::Dropped(DropCause::TooLarge),
    }
}

fn shape<'a>(how: &Delivery<'a>, id: Option<PacketId>, dup: bool, expiry_left: Option<u32>) -> Shape<'a> {
    Shape {
        dup,
        qos: how.qos,
        retain: how.retain,
        packet_id: id,
        expiry_left,
        topic_alias: None,
        subscription_ids: how.identifiers,
    }
}

/// Writes one kept message: with the time it has left [MQTT-3.3.2-6], a large payload by reference.
fn write_publish(
    link: &Link,
    message: &Arc<Message>,
    how: &Delivery<'_>,
    id: Option<PacketId>,
    dup: bool,
    now: Millis,
    outbox: &mut Outbox,
) -> Delivered {
    let left = message.expiry_left(now);
    // What was sent once is sent again even when its time is over: the exchange must complete.
    if left == Some(0) && !dup {
        return Delivered::Dropped(DropCause::Expired);
    }
    let shape = shape(how, id, dup, left);
    let forward = message.forward();
    match forward.encoded_len(link.version, &shape) {
        Ok(len) if len <= link.packet_size_max => {}
        _ => return Delivered::Dropped(DropCause::TooLarge),
    }
    let shared = forward.payload.len() >= SHARE_BYTES_MIN;
    let encoded = match shared {
        true => forward.encode_head(link.version, &shape, outbox.buffer()),
        false => forward.encode(link.version, &shape, outbox.buffer()),
    };
    if encoded.is_err() {
        return Delivered::Dropped(DropCause::TooLarge);
    }
    if shared {
        outbox.push_shared(message.shared_payload());
    }
    Delivered::Sent
}

fn write_ack(version: Version, kind: PacketType, id: PacketId, outbox: &mut Outbox) {
    write_ack_reason(version, kind, id, ReasonCode::Success, outbox);
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP without properties.
pub fn write_ack_reason(
    version: Version,
    kind: PacketType,
    id: PacketId,
    reason: ReasonCode,
    outbox: &mut Outbox,
) {
    let first = match kind {
        PacketType::PubAck => 0x40,
        PacketType::PubRec => 0x50,
        PacketType::PubRel => 0x62,
        _ => 0x70,
    };
    let [high, low] = id.get().to_be_bytes();
    // Success needs no reason code, and 3.1.1 has none [MQTT-3.4.2-1].
    if version < Version::V5 || reason == ReasonCode::Success {
        outbox.buffer().extend_from_slice(&[first, 2, high, low]);
    } else {
        outbox.buffer().extend_from_slice(&[first, 3, high, low, reason.code()]);
    }
}
