//! Sessions under a clock that is moved by hand: what is sent, what waits, what is sent again, what is given up.
#![allow(clippy::unwrap_used, clippy::panic)] // in the helpers, too

use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::{Message, Publication};
use broker_core::outbox::Outbox;
use broker_core::packet::{
    self, Decoded, Limits as PacketLimits, Packet, PacketId, QoS, ReasonCode, Version,
};
use broker_core::session::{Delivered, Delivery, DropCause, Limits, Link, Overflow, Session};
use bytes::Bytes;

const LINK: Link = Link {
    version: Version::V5,
    receive_maximum: 65_535,
    packet_size_max: usize::MAX,
    topic_alias_maximum: 0,
};

/// A session with the socket that it writes to.
struct Client {
    session: Session,
    outbox: Outbox,
    limits: Limits,
    now: Millis,
}

impl Client {
    fn new(limits: Limits) -> Self {
        Self { session: Session::new(1, "c"), outbox: Outbox::default(), limits, now: Millis(0) }
    }

    fn open(&mut self, link: Link) -> &mut Self {
        self.session.open(link, self.now, &self.limits, &mut self.outbox);
        self
    }

    fn close(&mut self) {
        self.session.close(self.now);
        self.outbox.clear();
    }

    fn deliver(&mut self, message: &Arc<Message>) -> Delivered {
        self.deliver_by(message, None)
    }

    fn deliver_by(&mut self, message: &Arc<Message>, share: Option<&Arc<str>>) -> Delivered {
        let how = Delivery { qos: QoS::ExactlyOnce, retain: false, identifiers: &[], share };
        let mut publication = Publication::of(message);
        self.session.deliver(&mut publication, None, how, self.now, &self.limits, &mut self.outbox)
    }

    fn puback(&mut self, id: u16) {
        self.session.on_puback(PacketId::new(id).unwrap());
        self.session.pump(self.now, &self.limits, &mut self.outbox);
    }

    /// The packets written so far, in short: payload, identifier, DUP, seconds left; or type and identifier.
    fn said(&mut self) -> Vec<String> {
        let outgoing = self.outbox.take(Vec::new());
        let mut bytes = Vec::new();
        outgoing.slices(usize::MAX, |slice| bytes.extend_from_slice(slice));
        let (mut said, mut at) = (Vec::new(), 0);
        while let Ok(Decoded::Packet(packet, len)) =
            packet::decode(&bytes[at..], Version::V5, &PacketLimits::client(usize::MAX))
        {
            at += len;
            said.push(match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.map_or(0, PacketId::get);
                    let dup = if publish.dup { " dup" } else { "" };
                    let left =
                        publish.properties.message_expiry.map_or(String::new(), |left| format!(" {left}s"));
                    let alias =
                        publish.properties.topic_alias.map_or(String::new(), |alias| format!(" ={alias}"));
                    let topic = publish.topic;
                    format!("{topic} {} {id}{dup}{left}{alias}", String::from_utf8_lossy(publish.payload))
                }
                Packet::PubRel(release) => format!("release {}", release.packet_id),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(at, bytes.len(), "all of it is packets");
        said
    }
}

fn message(payload: &str, qos: QoS, expiry: Option<u32>, received: Millis) -> Arc<Message> {
    let properties =
        expiry.map_or(Bytes::new(), |seconds| Bytes::from([&[2][..], &seconds.to_be_bytes()].concat()));
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let mut message = Message::new(Bytes::from_static(b"topic/of/all"), properties, payload, received);
    message.expiry = expiry;
    message.expiry_offset = expiry.map(|_| 1);
    message.qos = qos;
    Arc::new(message)
}

fn one(payload: &str) -> Arc<Message> {
    message(payload, QoS::AtLeastOnce, None, Millis(0))
}

/// [MQTT-3.3.2-6] [MQTT-3.3.2-5]
#[test]
fn the_time_that_is_left_is_counted_down_in_the_queue() {
    let mut client = Client::new(Limits::default());
    client.session.expiry = 100;
    client.close();
    for seconds in [1, 5, 9] {
        let text = seconds.to_string();
        assert_eq!(
            client.deliver(&message(&text, QoS::AtLeastOnce, Some(seconds), Millis(0))),
            Delivered::Queued
        );
    }
    client.now = Millis(4_999);
    assert_eq!(client.open(LINK).said(), ["topic/of/all 5 2 1s", "topic/of/all 9 3 5s"]);
    // What was sent is not given up any more.
    client.close();
    client.now = Millis(60_000);
    assert_eq!(client.open(LINK).said(), ["topic/of/all 5 2 dup 0s", "topic/of/all 9 3 dup 0s"]);
}

/// [MQTT-4.4.0-1] [MQTT-4.9.0-1] [MQTT-4.6.0-1]
#[test]
fn what_is_sent_again_keeps_to_the_receive_maximum_of_the_new_connection() {
    let mut client = Client::new(Limits::default());
    client.session.expiry = 100;
    client.open(LINK);
    for text in ["a", "b", "c"] {
        assert_eq!(client.deliver(&one(text)), Delivered::Sent);
    }
    let two = message("d", QoS::ExactlyOnce, None, Millis(0));
    assert_eq!(client.deliver(&two), Delivered::Sent);
    client.said();
    client.session.on_pubrec(PacketId::new(4).unwrap(), ReasonCode::Success, &mut client.outbox);
    assert_eq!(client.said(), ["release 4"]);
    client.close();
    assert_eq!(client.deliver(&one("e")), Delivered::Queued);
    let narrow = Link { receive_maximum: 2, ..LINK };
    assert_eq!(client.open(narrow).said(), ["topic/of/all a 1 dup", "topic/of/all b 2 dup"]);
    assert!(!client.session.is_held_back(&client.limits, &client.outbox), "what waits cannot be sent yet");
    // New ones wait behind what comes again.
    assert_eq!(client.deliver(&one("f")), Delivered::Queued);
    client.puback(2);
    assert_eq!(client.said(), ["topic/of/all c 3 dup", "release 4"]);
    // One that is acknowledged although it was not sent again needs no sending.
    client.close();
    assert_eq!(client.open(narrow).said(), ["topic/of/all a 1 dup", "topic/of/all c 3 dup", "release 4"]);
    client.puback(3);
    client.puback(1);
    let said = client.said();
    assert_eq!(said, ["topic/of/all e 5"]);
}

/// One that is never acknowledged keeps its identifier, and in the end those behind it wait for it.
#[test]
fn a_message_that_is_never_acknowledged_holds_its_own_session_up_and_nothing_spins() {
    let mut client = Client::new(Limits::default());
    client.open(LINK);
    assert_eq!(client.deliver(&one("never")), Delivered::Sent);
    for id in 2..=32_767 {
        assert_eq!(client.deliver(&one("x")), Delivered::Sent);
        client.puback(id);
    }
    assert_eq!(client.deliver(&one("waits")), Delivered::Queued);
    assert!(!client.session.is_held_back(&client.limits, &client.outbox), "there is nothing to do");
    client.said();
    client.puback(1);
    assert_eq!(client.said(), ["topic/of/all waits 1"]);
}

/// [MQTT-3.1.2-25]
#[test]
fn what_the_next_connection_cannot_take_is_done() {
    let mut client = Client::new(Limits::default());
    client.session.expiry = 100;
    client.open(LINK);
    client.deliver(&one("a message that is long"));
    client.deliver(&one("short"));
    client.close();
    let tiny = Link { packet_size_max: 30, receive_maximum: 1, ..LINK };
    assert_eq!(client.open(tiny).said(), ["topic/of/all short 2 dup"]);
    assert_eq!(client.session.inflight(), 1);
    assert_eq!(client.deliver(&one("again one that is too long")), Delivered::Queued);
    client.puback(2);
    assert_eq!((client.said().len(), client.session.inflight(), client.session.queued()), (0, 0, 0));
    let long = message("too long for a client that takes thirty bytes", QoS::AtMostOnce, None, Millis(0));
    assert_eq!(client.deliver(&long), Delivered::Dropped(DropCause::TooLarge));
}

#[test]
fn a_full_queue_drops_as_it_is_told_and_what_has_expired_first() {
    for (overflow, rest) in [(Overflow::DropNewest, ["b", "c"]), (Overflow::DropOldest, ["c", "d"])] {
        let limits = Limits { queue_messages_max: 2, overflow, ..Limits::default() };
        let mut client = Client::new(limits);
        client.session.expiry = 100;
        client.close();
        client.deliver(&message("a", QoS::AtLeastOnce, Some(1), Millis(0)));
        client.deliver(&one("b"));
        client.now = Millis(2_000);
        let Delivered::Displaced(shed) = client.deliver(&one("c")) else { panic!("a makes room") };
        assert_eq!((shed.expired, shed.oldest), (1, 0));
        match client.deliver(&one("d")) {
            Delivered::Displaced(shed) => assert_eq!((overflow, shed.oldest), (Overflow::DropOldest, 1)),
            other => {
                assert_eq!(
                    (overflow, other),
                    (Overflow::DropNewest, Delivered::Dropped(DropCause::QueueFull))
                );
            }
        }
        let said = client.open(LINK).said();
        assert_eq!(said, [format!("topic/of/all {} 1", rest[0]), format!("topic/of/all {} 2", rest[1])]);
    }
}

/// [MQTT-3.1.2-26] [MQTT-3.3.2-7]
#[test]
fn an_alias_is_said_with_its_topic_once_on_each_connection() {
    let mut client = Client::new(Limits::default());
    client.session.expiry = 100;
    let link = Link { topic_alias_maximum: 1, ..LINK };
    client.open(link);
    // What is not sent says nothing.
    client.limits.outbox_bytes_max = 0;
    client.outbox.buffer().push(0);
    let zero = message("x", QoS::AtMostOnce, None, Millis(0));
    assert_eq!(client.deliver(&zero), Delivered::Dropped(DropCause::Slow));
    client.outbox.clear();
    client.limits.outbox_bytes_max = usize::MAX;
    client.deliver(&one("a"));
    client.deliver(&one("b"));
    assert_eq!(client.said(), ["topic/of/all a 1 =1", " b 2 =1"]);
    client.close();
    assert_eq!(client.open(link).said(), ["topic/of/all a 1 dup =1", " b 2 dup =1"]);
}

/// [MQTT-4.8.2-5]
#[test]
fn a_session_that_ends_leaves_what_its_shares_brought_to_others() {
    let mut client = Client::new(Limits { inflight_max: 3, ..Limits::default() });
    client.open(LINK);
    let share: Arc<str> = "group/filter".into();
    client.deliver(&one("its own"));
    client.deliver_by(&one("under way"), Some(&share));
    client.deliver_by(&message("at QoS 2", QoS::ExactlyOnce, None, Millis(0)), Some(&share));
    client.deliver_by(&message("waits", QoS::ExactlyOnce, None, Millis(0)), Some(&share));
    client.deliver(&one("waits, its own"));
    let orphans = client.session.orphans();
    let left: Vec<_> = orphans.iter().map(|orphan| (&*orphan.share, orphan.message.payload())).collect();
    assert_eq!(left, [("group/filter", &b"under way"[..]), ("group/filter", b"waits")]);
    assert_eq!(client.session.queued(), 0);
}
