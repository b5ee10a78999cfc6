//! A client that takes what is published for the ledger. Its half of the session outlives the broker.

use std::collections::{BTreeSet, VecDeque};

use broker_store::sim::Random;
use forebay_tests::ledger::{Id, Ledger};
use forebay_tests::mqtt::{
    Connect, PUBACK, PUBLISH, PUBREC, PUBREL, Packet, Publish, SUBACK, packet, span, text,
};

use super::graph::BETWEEN;
use super::life::Life;
use super::wire::{Opened, Wire, lasting};

/// The client.
#[derive(Debug)]
pub struct Subscriber {
    pub name: &'static str,
    filters: &'static [&'static str],
    qos: u8,
    /// Who it is in the ledger: those of a share are one.
    counts_as: &'static str,
    /// Its session is kept; otherwise it begins anew with each connection, and takes what comes.
    lasts: bool,
    pub wire: Wire,
    /// QoS 2 messages whose PUBREL has not come.
    received: BTreeSet<u16>,
    /// Answers that it has not sent yet.
    owed: VecDeque<Vec<u8>>,
    has_session: bool,
    pub is_subscribed: bool,
}

impl Subscriber {
    pub fn new(name: &'static str, filters: &'static [&'static str], qos: u8, lasts: bool) -> Self {
        Self {
            name,
            filters,
            qos,
            counts_as: name,
            lasts,
            wire: Wire::default(),
            received: BTreeSet::new(),
            owed: VecDeque::new(),
            has_session: false,
            is_subscribed: false,
        }
    }

    /// One of several that are one subscriber together.
    pub fn counts_as(self, name: &'static str) -> Self {
        Self { counts_as: name, ..self }
    }

    pub fn connect(&mut self, life: &Life, random: &mut Random) {
        self.owed.clear();
        if !self.lasts {
            self.is_subscribed = false;
            return self.wire.connect(life, &Connect::v5(self.name), random);
        }
        // A window that is smaller than what waits has the log read in parts.
        let window = 1 + random.below(6) as u8;
        self.wire.connect(life, &lasting(self.name).property(&[0x21, 0, window]), random);
    }

    /// Sends an answer that it owes, or asks for its subscription.
    pub fn go_on(&mut self) {
        if let Some(answer) = self.owed.pop_front() {
            self.wire.send(&answer);
        }
    }

    fn subscribe(&self) {
        let asked = self.filters.iter().flat_map(|filter| [text(filter), vec![self.qos]].concat());
        let body = [vec![0, 7], span(&[]), asked.collect()].concat();
        self.wire.send(&packet(0x82, &body));
    }

    /// Takes a packet of the broker's.
    pub fn take(&mut self, packet: &Packet, ledger: &Ledger) {
        if !self.wire.is_accepted() {
            let Opened::Accepted { present } = self.wire.opened(packet) else { return };
            assert!(present || !self.has_session, "{} lost its session", self.name);
            self.has_session = self.lasts;
            if !self.is_subscribed {
                self.subscribe();
            }
            return;
        }
        match packet.kind() {
            SUBACK if packet.body.last().is_some_and(|reason| *reason < 0x80) => self.is_subscribed = true,
            SUBACK => self.wire.lose(),
            PUBREL => {
                self.received.remove(&packet.id());
                self.owed.push_back(answer(0x70, packet.id()));
            }
            PUBLISH => self.message(&Publish::of(packet, 5), ledger),
            other => panic!("{} got packet {other}", self.name),
        }
    }

    fn message(&mut self, message: &Publish, ledger: &Ledger) {
        let is_new = message.qos < 2 || self.received.insert(message.id);
        for part in message.text().split_terminator(BETWEEN) {
            let id = Id::of(part).expect("a message of the ledger");
            match self.lasts {
                true if is_new => ledger.received(self.counts_as, id),
                // It comes in between, and messages are sent again: nothing follows of what comes in which order.
                _ => {
                    assert!(ledger.is_published(id), "{} received {id:?}, which nobody published", self.name)
                }
            }
        }
        self.owed.push_back(answer(if message.qos == 2 { PUBREC << 4 } else { PUBACK << 4 }, message.id));
    }
}

fn answer(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}
