//! A session and a client that says anything, in any order, across connections: what a session promises holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::{Message, Publication};
use broker_core::outbox::Outbox;
use broker_core::packet::{self, Decoded, PacketId, QoS, ReasonCode, Version};
use broker_core::session::{Delivery, Limits, Link, Overflow, Session};
use bytes::Bytes;

/// What the client has seen and not answered for good.
#[derive(Default)]
struct Seen {
    /// Messages by identifier: payload, and whether PUBREL came.
    under_way: BTreeMap<u16, (u8, bool)>,
}

struct Run {
    session: Session,
    outbox: Outbox,
    limits: Limits,
    link: Option<Link>,
    now: Millis,
    seen: Seen,
    /// On this connection: PUBLISH at QoS 1 and 2 less what was answered for good.
    quota_used: usize,
}

/// Pairs of bytes: what happens, and a detail of it.
pub fn sessions(data: &[u8]) {
    let limits = Limits {
        inflight_max: 4,
        queue_messages_max: 8,
        overflow: if data.len().is_multiple_of(2) { Overflow::DropNewest } else { Overflow::DropOldest },
        ..Limits::default()
    };
    let mut session = Session::new(1, "fuzz");
    session.expiry = u32::MAX;
    let mut run = Run {
        session,
        outbox: Outbox::default(),
        limits,
        link: None,
        now: Millis(0),
        seen: Seen::default(),
        quota_used: 0,
    };
    for step in data.as_chunks::<2>().0.iter().take(400) {
        run.step(step[0], step[1]);
        run.read();
        assert!(run.session.queued() <= 8 && run.session.inflight() <= 4);
    }
    run.finish();
}

impl Run {
    fn step(&mut self, what: u8, detail: u8) {
        match what % 8 {
            0 | 1 => self.deliver(detail),
            2 => self.session.on_puback(id(detail)).map_or((), |_| unreachable!("nothing is persisted")),
            3 => {
                let reason =
                    if detail & 0x80 == 0 { ReasonCode::Success } else { ReasonCode::UnspecifiedError };
                self.session.on_pubrec(id(detail), reason, &mut self.outbox);
            }
            4 => drop(self.session.on_pubcomp(id(detail))),
            5 => self.now = self.now.plus(u64::from(detail) * 100),
            6 => self.close(),
            _ => self.open(detail),
        }
        match what % 8 {
            2 => self.answered(detail, |released| !released, false),
            3 => self.answered(detail, |_| detail & 0x80 != 0, true),
            4 => self.answered(detail, |released| released, true),
            _ => return,
        }
        self.session.pump(self.now, &self.limits, &mut self.outbox);
    }

    /// The client answers for good, if `ends` of what it has seen.
    fn answered(&mut self, detail: u8, ends: impl Fn(bool) -> bool, two: bool) {
        let id = id(detail).get();
        if let Some((payload, released)) = self.seen.under_way.get(&id).copied() {
            let is_two = payload % 3 == 2;
            if is_two == two && ends(released) && self.link.is_some() {
                self.seen.under_way.remove(&id);
                self.quota_used = self.quota_used.saturating_sub(1);
            }
        }
    }

    fn deliver(&mut self, detail: u8) {
        let mut message = Message::new(
            Bytes::from_static(b"a/topic/that/is/long/enough"),
            Bytes::new(),
            Bytes::copy_from_slice(&[detail]),
            self.now,
        );
        message.qos = QoS::from_bits(detail % 3).expect("0 to 2");
        message.expiry = (detail & 0x40 != 0).then_some(3);
        let message = Arc::new(message);
        let how = Delivery { qos: QoS::ExactlyOnce, retain: false, identifiers: &[], share: None };
        let mut publication = Publication::of(&message);
        self.session.deliver(&mut publication, None, how, self.now, &self.limits, &mut self.outbox);
    }

    fn close(&mut self) {
        self.session.close(self.now);
        self.outbox.clear();
        self.link = None;
    }

    fn open(&mut self, detail: u8) {
        self.close();
        let link = Link {
            version: Version::V5,
            receive_maximum: u16::from(detail % 6) + 1,
            packet_size_max: if detail & 0x20 == 0 { usize::MAX } else { 40 },
            topic_alias_maximum: u16::from(detail >> 6),
        };
        self.link = Some(link);
        self.quota_used = 0;
        self.session.open(link, self.now, &self.limits, &mut self.outbox);
    }

    /// What was written is whole packets, each of which the client takes.
    fn read(&mut self) {
        let outgoing = self.outbox.take(Vec::new());
        let mut bytes = Vec::new();
        outgoing.slices(usize::MAX, |slice| bytes.extend_from_slice(slice));
        let Some(link) = self.link else { return assert!(bytes.is_empty(), "said to nobody") };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let decoded = packet::decode(rest, Version::V5, &packet::Limits::client(link.packet_size_max));
            let Ok(Decoded::Packet(packet, len)) = decoded else {
                unreachable!("{decoded:?} of {rest:02x?}")
            };
            rest = &rest[len..];
            match packet {
                packet::Packet::Publish(publish) => {
                    let alias = publish.properties.topic_alias.unwrap_or(0);
                    assert!(alias <= link.topic_alias_maximum);
                    let Some(id) = publish.packet_id else { continue };
                    let new = self.seen.under_way.insert(id.get(), (publish.payload[0], false));
                    assert!(new.is_none() || publish.dup, "identifier {id} is in use");
                    assert!(new.is_none_or(|(_, released)| !released), "a message after its PUBREL");
                    self.quota_used += 1;
                    assert!(
                        self.quota_used <= usize::from(link.receive_maximum),
                        "more than the client takes"
                    );
                }
                // One that answers nothing says so.
                packet::Packet::PubRel(release) if release.reason.is_error() => {}
                packet::Packet::PubRel(release) => {
                    self.seen.under_way.entry(release.packet_id.get()).or_insert((2, true)).1 = true;
                }
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// A client that answers everything as it should gets all there is, and nothing stays.
    fn finish(&mut self) {
        self.open(5);
        for _ in 0..200 {
            self.read();
            let Some((&id, &(payload, released))) = self.seen.under_way.iter().next() else { break };
            let id = PacketId::new(id).expect("not 0");
            if payload % 3 == 1 {
                self.session.on_puback(id);
            } else if released {
                self.session.on_pubcomp(id);
            } else {
                self.session.on_pubrec(id, ReasonCode::Success, &mut self.outbox);
                self.read();
                continue;
            }
            self.seen.under_way.remove(&id.get());
            self.quota_used = self.quota_used.saturating_sub(1);
            self.session.pump(self.now, &self.limits, &mut self.outbox);
        }
        assert_eq!((self.session.queued(), self.session.inflight()), (0, 0), "something is stuck");
    }
}

/// One of the first identifiers: those that are in use.
fn id(detail: u8) -> PacketId {
    PacketId::new(u16::from(detail % 16) + 1).expect("not 0")
}
