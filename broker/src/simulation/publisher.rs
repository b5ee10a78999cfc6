//! A client that publishes for the ledger, and takes up where it was cut off.

use std::collections::VecDeque;

use broker_store::sim::Random;
use forebay_tests::ledger::{Id, Ledger};
use forebay_tests::mqtt::{PUBACK, PUBCOMP, PUBREC, Packet, packet, text};

use super::life::Life;
use super::wire::{Opened, Wire, lasting};

/// Messages under way at once.
const WINDOW: usize = 6;

/// A message that is not done.
#[derive(Debug)]
struct UnderWay {
    id: u16,
    message: Id,
    /// PUBREC came.
    received: bool,
}

/// The client.
#[derive(Debug)]
pub struct Publisher {
    number: u32,
    qos: u8,
    pub wire: Wire,
    next: u32,
    next_id: u16,
    under_way: VecDeque<UnderWay>,
    has_session: bool,
    /// Messages that the broker said it could not take.
    pub refused: u64,
}

impl Publisher {
    pub fn new(number: u32, qos: u8) -> Self {
        Self {
            number,
            qos,
            wire: Wire::default(),
            next: 0,
            next_id: 1,
            under_way: VecDeque::new(),
            has_session: false,
            refused: 0,
        }
    }

    pub fn connect(&mut self, life: &Life, random: &mut Random) {
        self.wire.connect(life, &lasting(&format!("publisher-{}", self.number)), random);
    }

    /// Everything that was begun is done.
    pub fn is_done(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Publishes another message, if it may.
    pub fn publish(&mut self, ledger: &Ledger) {
        if !self.wire.is_accepted() || self.under_way.len() >= WINDOW {
            return;
        }
        let message = Id { publisher: self.number, number: self.next };
        ledger.published(message);
        self.next += 1;
        // Every one is used again soon: a broker that forgot what it released would take a new message for an old one.
        while self.under_way.iter().any(|other| other.id == self.next_id) {
            self.next_id = self.next_id % (2 * WINDOW as u16) + 1;
        }
        let under_way = UnderWay { id: self.next_id, message, received: false };
        self.next_id = self.next_id % (2 * WINDOW as u16) + 1;
        self.wire.send(&self.publish_bytes(&under_way, false));
        self.under_way.push_back(under_way);
    }

    fn publish_bytes(&self, under_way: &UnderWay, dup: bool) -> Vec<u8> {
        let pad = [0, 30, 400][under_way.message.number as usize % 3];
        let mut body = text(&format!("ledger/{}", self.number));
        body.extend_from_slice(&under_way.id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(format!("{} {}", under_way.message.payload(), "x".repeat(pad)).as_bytes());
        packet(0x30 | (self.qos << 1) | if dup { 8 } else { 0 }, &body)
    }

    /// Takes a packet of the broker's; `refuses` when it may have refused messages.
    pub fn take(&mut self, answer: &Packet, ledger: &Ledger, refuses: bool) {
        if !self.wire.is_accepted() {
            let Opened::Accepted { present } = self.wire.opened(answer) else { return };
            assert!(present || !self.has_session, "publisher {} lost its session", self.number);
            self.has_session = true;
            for under_way in &self.under_way {
                if refuses && !under_way.received {
                    ledger.may_be_late(under_way.message);
                }
                self.wire.send(&match under_way.received {
                    true => packet(0x62, &under_way.id.to_be_bytes()),
                    false => self.publish_bytes(under_way, true),
                });
            }
            return;
        }
        let (kind, id) = (answer.kind(), answer.id());
        let reason = answer.body.get(2).copied().unwrap_or(0);
        let at = self.under_way.iter().position(|under_way| under_way.id == id);
        let Some(at) = at else { panic!("{kind} for {id}, which is not under way") };
        // The exchange may have been over, and we not have heard of it.
        let is_over = kind == PUBCOMP && reason == 0x92;
        if reason >= 0x80 && matches!(kind, PUBACK | PUBREC) {
            assert!(matches!(reason, 0x80 | 0x97), "publisher {}: {kind} with {reason:#x}", self.number);
            self.refused += 1;
            self.under_way.remove(at);
            return;
        }
        assert!(reason < 0x80 || is_over, "publisher {}: {kind} with {reason:#x}", self.number);
        match kind {
            PUBACK | PUBREC => {
                ledger.acknowledged(self.under_way[at].message);
                if kind == PUBACK {
                    self.under_way.remove(at);
                } else {
                    self.under_way[at].received = true;
                    self.wire.send(&packet(0x62, &id.to_be_bytes()));
                }
            }
            PUBCOMP => drop(self.under_way.remove(at)),
            other => panic!("packet {other}"),
        }
    }
}
