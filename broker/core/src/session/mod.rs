//! One client's session: what it is owed, what is under way, and what of it outlives the connection.
//!
//! The session decides and encodes into an [`Outbox`]; whoever holds the socket writes the outbox out.

mod encode;
mod exchange;
mod limits;
mod outcome;

pub use encode::write_ack_reason;
pub use limits::{Limits, Overflow};
pub use outcome::{Delivered, Delivery, DropCause, Orphan, PubRec, Pumped, Shed};

use std::collections::VecDeque;
use std::sync::Arc;

use self::encode::{send, write_ack, write_publish};
use crate::Millis;
use crate::alias::Aliases;
use crate::durable::{Durable, Entry, Number};
use crate::inflight::{Incoming, Outgoing, Waiting};
use crate::memory::Weight;
use crate::message::{Frame, Message, Publication};
use crate::outbox::Outbox;
use crate::packet::{PacketId, PacketType, QoS, Version};
use crate::rare::Rare;
use crate::router::{Options, SubscriberId};
use crate::small_map::SmallMap;

/// What the connection that carries a session has negotiated.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Protocol version of the connection.
    pub version: Version,
    /// QoS 1 and 2 messages that the client takes at once [MQTT-3.3.4-9].
    pub receive_maximum: u16,
    /// The largest packet the client takes [MQTT-3.1.2-24].
    pub packet_size_max: usize,
    /// Topic aliases that the client takes [MQTT-3.1.2-26].
    pub topic_alias_maximum: u16,
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

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    identifiers: Box<[u32]>,
    share: Option<Arc<str>>,
    /// What the entry takes beside its message, which has a weight of its own.
    _weight: Weight,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    id: SubscriberId,
    client_id: Arc<str>,
    /// By filter, as the client wrote it.
    subscriptions: SmallMap<Box<str>, Options>,
    outgoing: Outgoing,
    incoming: Incoming,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    link: Option<Link>,
    /// The version that its last connection spoke.
    version: Version,
    /// Topic aliases of this connection.
    aliases: Aliases,
    /// What is under way from an earlier connection and not sent again on this one, in its order.
    resend: Rare<VecDeque<PacketId>>,
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
            subscriptions: SmallMap::new(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            link: None,
            version: Version::V5,
            aliases: Aliases::default(),
            resend: Rare::none(),
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

    /// The client identifier; who keeps it may have a share of it.
    pub fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// The connection that carries it.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// The version that its connection speaks, or its last one spoke.
    pub fn version(&self) -> Version {
        self.version
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
    pub fn subscriptions(&self) -> &SmallMap<Box<str>, Options> {
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
    /// duplicate [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1], as far as the client takes more, then what waited.
    pub fn open(&mut self, link: Link, now: Millis, limits: &Limits, outbox: &mut Outbox) -> Pumped {
        self.link = Some(link);
        self.version = link.version;
        self.closed = None;
        self.aliases = Aliases::new(link.topic_alias_maximum); // [MQTT-3.3.2-7]
        self.resend.clear();
        if !self.outgoing.is_empty() {
            *self.resend.make() = self.outgoing.iter().map(|(id, _)| id).collect();
        }
        let mut again = Pumped::default();
        if let Some(durable) = &mut self.durable {
            durable.reopen();
        }
        self.send_again(&link, now, limits, outbox, &mut again);
        if let Some(durable) = &self.durable {
            for id in durable.received() {
                write_ack(link.version, PacketType::PubRel, id, outbox);
            }
        }
        again.and(self.pump(now, limits, outbox))
    }

    /// The connection is gone; the session is kept, with what is under way and what waits [MQTT-3.1.2-23].
    pub fn close(&mut self, now: Millis) {
        self.link = None;
        self.aliases = Aliases::default();
        self.resend.clear();
        self.closed = Some(now);
    }

    /// The session is over: what its shared subscriptions brought and it did not take goes to another member of the
    /// share (v5 §4.8.2). Not what is on its way at QoS 2 [MQTT-4.8.2-5], nor what it rejected: that is gone
    /// [MQTT-4.8.2-6].
    pub fn orphans(&mut self) -> Vec<Orphan> {
        let under_way = self.outgoing.iter().filter_map(|(_, waiting)| match waiting {
            Waiting::Received { message, qos: QoS::AtLeastOnce, share: Some(share), .. } => {
                Some(Orphan { share: Arc::clone(share), message: Arc::clone(message) })
            }
            _ => None,
        });
        let mut orphans: Vec<Orphan> = under_way.collect();
        self.queue_bytes = 0;
        let waiting = std::mem::take(&mut self.queue).into_iter();
        orphans.extend(
            waiting.filter_map(|queued| Some(Orphan { share: queued.share?, message: queued.message })),
        );
        orphans
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
        let qos = how.qos.min(publication.qos); // [MQTT-3.8.4-8]
        let how = Delivery { qos, ..how };
        let Some(link) = self.link else {
            return match qos {
                QoS::AtMostOnce => Delivered::Dropped(DropCause::Away),
                _ => self.enqueue(publication.owned(), how, now, limits), // [MQTT-4.5.0-1], 3.1.1 [MQTT-3.1.2-5]
            };
        };
        // QoS 0 and answers never wait for the window [MQTT-3.3.4-10] [MQTT-4.9.0-3].
        if qos == QoS::AtMostOnce {
            if outbox.len() > limits.outbox_bytes_max {
                return Delivered::Dropped(DropCause::Slow);
            }
            return send(&link, &mut self.aliases, publication, frame, &how, None, now, outbox);
        }
        // Behind what waits, so that the order is kept [MQTT-4.6.0-6].
        if !self.queue.is_empty() || !self.has_room(limits, outbox) {
            return self.enqueue(publication.owned(), how, now, limits);
        }
        let waiting = Waiting::Received {
            message: publication.owned(),
            qos,
            retain: how.retain,
            subscription_ids: how.identifiers.into(),
            share: how.share.cloned(),
        };
        let Some(id) = self.outgoing.start(waiting) else {
            return self.enqueue(publication.owned(), how, now, limits);
        };
        let delivered = send(&link, &mut self.aliases, publication, frame, &how, Some(id), now, outbox);
        if let Delivered::Dropped(_) = delivered {
            self.abandon(id, qos);
        }
        delivered
    }

    /// Whether a QoS 1 or 2 message could be sent now: the client takes one more [MQTT-3.3.4-9] [MQTT-4.9.0-2], and
    /// nothing of an earlier connection comes first.
    pub fn has_room(&self, limits: &Limits, outbox: &Outbox) -> bool {
        self.to_resend() == 0 && !self.outgoing.is_full() && self.may_send(limits, outbox)
    }

    /// Whether something waits that could be sent now.
    pub fn is_held_back(&self, limits: &Limits, outbox: &Outbox) -> bool {
        match self.to_resend() {
            0 => !self.queue.is_empty() && self.has_room(limits, outbox),
            _ => self.may_send(limits, outbox),
        }
    }

    fn to_resend(&self) -> usize {
        self.resend.get().map_or(0, VecDeque::len)
    }

    fn may_send(&self, limits: &Limits, outbox: &Outbox) -> bool {
        let Some(link) = &self.link else { return false };
        let under_way = self.outgoing.len().saturating_sub(self.to_resend());
        under_way < self.window(link, limits) && outbox.len() <= limits.outbox_bytes_max
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
        let aliases = &mut self.aliases;
        let mut count = 0;
        let dropped = durable.send(window.saturating_sub(under_way), |entry: &Entry| {
            let Some(message) = entry.message.as_ref().filter(|message| may(message)) else { return false };
            let (qos, retain) = (entry.qos, entry.retain);
            let how = Delivery { qos, retain, identifiers: &entry.identifiers, share: None };
            let sent = write_publish(&link, aliases, message, &how, Some(entry.id), entry.dup, now, outbox);
            count += u64::from(sent == Delivered::Sent);
            sent == Delivered::Sent
        });
        (count, dropped)
    }

    fn enqueue(
        &mut self,
        message: Arc<Message>,
        how: Delivery<'_>,
        now: Millis,
        limits: &Limits,
    ) -> Delivered {
        let size = message.size();
        let mut shed = Shed::default();
        while self.queue.len() >= limits.queue_messages_max
            || self.queue_bytes + size > limits.queue_bytes_max
        {
            // One whose time is over [MQTT-3.3.2-5] gives way in any case.
            let expired = self.queue.front().is_some_and(|queued| queued.message.expiry_left(now) == Some(0));
            let displaces = limits.overflow == Overflow::DropOldest && size <= limits.queue_bytes_max;
            if !expired && !displaces {
                return Delivered::Dropped(DropCause::QueueFull);
            }
            let Some(front) = self.queue.pop_front() else {
                return Delivered::Dropped(DropCause::QueueFull);
            };
            self.queue_bytes -= front.message.size();
            shed.add(if expired { DropCause::Expired } else { DropCause::QueueFull });
        }
        self.queue_bytes += size;
        let Delivery { qos, retain, identifiers, share } = how;
        self.queue.push_back(Queued {
            message,
            qos,
            retain,
            identifiers: identifiers.into(),
            share: share.cloned(),
            _weight: Weight::of(size_of::<Queued>() + size_of_val(identifiers)),
        });
        match shed == Shed::default() {
            true => Delivered::Queued,
            false => Delivered::Displaced(shed),
        }
    }

    /// A message that was not sent after all gives its identifier back.
    fn abandon(&mut self, id: PacketId, qos: QoS) {
        match qos {
            QoS::ExactlyOnce => self.outgoing.reject(id),
            _ => self.outgoing.acknowledge(id),
        };
    }

    /// Sends what waits, as far as the client takes more.
    pub fn pump(&mut self, now: Millis, limits: &Limits, outbox: &mut Outbox) -> Pumped {
        let mut pumped = Pumped::default();
        let Some(link) = self.link else { return pumped };
        self.send_again(&link, now, limits, outbox, &mut pumped);
        while self.has_room(limits, outbox) {
            let Some(next) = self.queue.pop_front() else { break };
            self.queue_bytes -= next.message.size();
            let mut publication = Publication::of(&next.message);
            let Queued { qos, retain, ref identifiers, ref share, .. } = next;
            let how = Delivery { qos, retain, identifiers, share: share.as_ref() };
            let waiting = Waiting::Received {
                message: Arc::clone(&next.message),
                qos,
                retain,
                subscription_ids: identifiers.clone(),
                share: share.clone(),
            };
            let Some(id) = self.outgoing.start(waiting) else {
                self.queue_bytes += next.message.size();
                self.queue.push_front(next);
                break;
            };
            match send(&link, &mut self.aliases, &mut publication, None, &how, Some(id), now, outbox) {
                Delivered::Dropped(cause) => {
                    self.abandon(id, qos);
                    pumped.shed.add(cause);
                }
                _ => pumped.sent += 1,
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        pumped
    }

    /// Sends again what is under way from an earlier connection: how much of it the client takes at once, it may have
    /// said anew [MQTT-4.9.0-1].
    fn send_again(
        &mut self,
        link: &Link,
        now: Millis,
        limits: &Limits,
        outbox: &mut Outbox,
        pumped: &mut Pumped,
    ) {
        while let Some(&id) = self.resend.get().and_then(VecDeque::front) {
            match self.outgoing.get(id) {
                Some(Waiting::Completed) => write_ack(link.version, PacketType::PubRel, id, outbox),
                Some(Waiting::Received { message, qos, retain, subscription_ids, .. }) => {
                    let (message, qos) = (Arc::clone(message), *qos);
                    let (retain, identifiers) = (*retain, subscription_ids.clone());
                    if !self.may_send(limits, outbox) {
                        return;
                    }
                    let how = Delivery { qos, retain, identifiers: &identifiers, share: None };
                    let aliases = &mut self.aliases;
                    match write_publish(link, aliases, &message, &how, Some(id), true, now, outbox) {
                        // As if it had been sent and acknowledged [MQTT-3.1.2-25].
                        Delivered::Dropped(cause) => {
                            self.abandon(id, qos);
                            pumped.shed.add(cause);
                        }
                        _ => pumped.sent += 1,
                    }
                }
                None => {}
            }
            self.resend.get_mut().and_then(VecDeque::pop_front);
        }
    }
}
