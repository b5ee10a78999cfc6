//! A client that has a message retained, another in its place, and now and then none.

use broker_store::sim::Random;
use forebay_tests::mqtt::{PUBACK, Packet, packet, span, text, user_property};

use super::life::Life;
use super::wire::{Opened, Wire, lasting};

pub const TOPIC: &str = "kept";

/// The client.
#[derive(Debug, Default)]
pub struct Keeper {
    pub wire: Wire,
    next: u32,
    /// What was published last, if it is not done.
    under_way: Option<Option<u32>>,
    /// What may be retained now: what was acknowledged last, and what was published since.
    possible: Vec<Option<u32>>,
    pub refused: u64,
}

impl Keeper {
    pub fn connect(&mut self, life: &Life, random: &mut Random) {
        self.wire.connect(life, &lasting("keeper"), random);
    }

    pub fn is_done(&self) -> bool {
        self.under_way.is_none()
    }

    /// Publishes another one, if the one before is done.
    pub fn publish(&mut self, random: &mut Random) {
        if !self.wire.is_accepted() || self.under_way.is_some() {
            return;
        }
        self.next += 1;
        let value = (!random.once_in(4)).then_some(self.next);
        if self.possible.is_empty() {
            self.possible.push(None);
        }
        self.possible.push(value);
        self.under_way = Some(value);
        self.send(value, false);
    }

    fn send(&self, value: Option<u32>, dup: bool) {
        let mut body = text(TOPIC);
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(&span(&user_property("aio-persistence", "true")));
        body.extend(value.iter().flat_map(|number| number.to_string().into_bytes()));
        self.wire.send(&packet(0x33 | if dup { 8 } else { 0 }, &body));
    }

    /// Takes a packet of the broker's.
    pub fn take(&mut self, answer: &Packet) {
        if !self.wire.is_accepted() {
            if let Opened::Accepted { .. } = self.wire.opened(answer)
                && let Some(value) = self.under_way
            {
                self.send(value, true);
            }
            return;
        }
        assert_eq!((answer.kind(), answer.id()), (PUBACK, 1), "{answer:02x?}");
        let Some(value) = self.under_way.take() else { panic!("{answer:02x?}, which nothing waits for") };
        let reason = answer.body.get(2).copied().unwrap_or(0);
        if reason < 0x80 {
            self.possible = vec![value];
        } else {
            assert!(matches!(reason, 0x80 | 0x97), "{answer:02x?}");
            self.refused += 1;
        }
    }

    /// Whether this may be what is retained.
    pub fn allows(&self, found: Option<u32>) -> bool {
        self.possible.contains(&found) || (self.possible.is_empty() && found.is_none())
    }
}
