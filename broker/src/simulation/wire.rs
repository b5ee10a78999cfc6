//! A client's connection, as an actor of the simulation has it.

use broker_store::sim::Random;
use forebay_tests::mqtt::{CONNACK, Connect, DISCONNECT, Packet, user_property};

use super::life::Life;
use crate::transport::memory::ClientEnd;

/// What the broker's CONNACK said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The session goes on, or is new.
    Accepted {
        /// It goes on.
        present: bool,
    },
    /// No.
    Refused,
}

/// A connection, or none.
#[derive(Debug, Default)]
pub struct Wire {
    end: Option<ClientEnd>,
    read: Vec<u8>,
    accepted: bool,
}

/// CONNECT of a client whose session and subscriptions are to be kept.
pub fn lasting(id: &str) -> Connect {
    Connect::v5(id).resume().session_expiry(u32::MAX).property(&user_property("aio-persistence", "true"))
}

impl Wire {
    /// Whether there is a connection, accepted or not.
    pub fn is_up(&self) -> bool {
        self.end.is_some()
    }

    /// Whether CONNACK came.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Connects anew.
    pub fn connect(&mut self, life: &Life, connect: &Connect, random: &mut Random) {
        let capacity = [40, 300, 5000, 1 << 20][random.below_len(4)];
        let end = life.connect(capacity);
        end.send(&connect.bytes());
        *self = Self { end: Some(end), read: Vec::new(), accepted: false };
    }

    /// The connection is gone.
    pub fn lose(&mut self) {
        *self = Self::default();
    }

    /// Sends bytes; they may never arrive.
    pub fn send(&self, bytes: &[u8]) {
        if let Some(end) = &self.end {
            end.send(bytes);
        }
    }

    /// Some of what is under way arrives, or all of it.
    pub fn arrive(&self, random: Option<&mut Random>) {
        let Some(end) = &self.end else { return };
        let all = end.under_way();
        end.arrive(random.map_or(all, |random| 1 + random.below_len(all.max(1))));
    }

    /// Some of what the broker sent is read, or all of it; the next whole packet. A connection that the broker has ended is
    /// lost with its last one.
    pub fn receive(&mut self, random: Option<&mut Random>) -> Option<Packet> {
        let end = self.end.as_ref()?;
        let all = end.readable();
        self.read.extend(end.read(random.map_or(all, |random| 1 + random.below_len(all.max(1)))));
        let packet = Packet::take(&mut self.read);
        let is_over = packet.is_none() && end.is_over();
        if is_over || packet.as_ref().is_some_and(|packet| packet.kind() == DISCONNECT) {
            self.lose();
            return None;
        }
        packet
    }

    /// Takes a packet for CONNACK, where none came yet.
    pub fn opened(&mut self, packet: &Packet) -> Opened {
        assert_eq!(packet.kind(), CONNACK, "{packet:02x?}");
        if packet.body[1] >= 0x80 {
            self.lose();
            return Opened::Refused;
        }
        self.accepted = true;
        Opened::Accepted { present: packet.body[0] & 1 == 1 }
    }
}
