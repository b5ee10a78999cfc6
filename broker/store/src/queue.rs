//! What waits for one session: 16 bytes an entry, in the order of the messages' numbers. The few that have
//! subscription identifiers keep them beside.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use crate::codec::{self, taker};
use crate::event::{Lsn, Taker};

/// A message that waits for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which message.
    pub message: Lsn,
    /// The QoS it is delivered with.
    pub qos: u8,
    /// The retain flag it is delivered with.
    pub retain: bool,
    /// Its packet id, 0 while it has none.
    pub packet_id: u16,
    /// Its PUBREC came: only PUBREL is owed.
    pub received: bool,
    /// Subscription identifiers it is delivered with.
    pub identifiers: &'a [u32],
}

#[derive(Debug, Clone, Copy)]
struct Packed {
    message: Lsn,
    packet_id: u16,
    flags: u8,
}

/// The entries of one session.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    entries: VecDeque<Packed>,
    identifiers: HashMap<Lsn, Box<[u32]>, FixedState>,
}

impl Queue {
    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + ExactSizeIterator {
        self.entries.iter().map(|packed| self.unpack(packed))
    }

    /// The entries from `first` on.
    pub fn from(&self, first: Lsn) -> impl Iterator<Item = Entry<'_>> {
        let start = self.entries.partition_point(|packed| packed.message < first);
        self.entries.range(start..).map(|packed| self.unpack(packed))
    }

    /// The entry of a message.
    pub fn get(&self, message: Lsn) -> Option<Entry<'_>> {
        self.find(message).and_then(|at| self.entries.get(at)).map(|packed| self.unpack(packed))
    }

    /// Memory that the entries take, bytes.
    pub(crate) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Packed>() + self.identifiers.capacity() * 24
    }

    /// Adds an entry; false if it is there already, or comes too late to be new.
    pub(crate) fn push(&mut self, message: Lsn, taker: &Taker) -> bool {
        let flags = codec::entry_flags(taker.qos, taker.retain, false);
        self.restore(message, flags, taker.packet_id, &taker.identifiers)
    }

    /// Adds an entry as it was written down.
    pub(crate) fn restore(&mut self, message: Lsn, flags: u8, packet_id: u16, identifiers: &[u32]) -> bool {
        if self.entries.back().is_some_and(|last| last.message >= message) {
            return false;
        }
        self.entries.push_back(Packed { message, packet_id, flags });
        if !identifiers.is_empty() {
            self.identifiers.insert(message, identifiers.into());
        }
        true
    }

    /// The flags that [`Queue::restore`] takes.
    pub(crate) fn flags(entry: &Entry<'_>) -> u8 {
        codec::entry_flags(entry.qos, entry.retain, entry.received)
    }

    pub(crate) fn reserve(&mut self, entries: usize) {
        self.entries.reserve_exact(entries);
    }

    pub(crate) fn remove(&mut self, message: Lsn) -> bool {
        let Some(at) = self.find(message) else { return false };
        self.entries.remove(at);
        self.identifiers.remove(&message);
        if self.entries.capacity() > 64 && self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        true
    }

    pub(crate) fn set_packet_id(&mut self, message: Lsn, packet_id: u16) {
        if let Some(packed) = self.find_mut(message) {
            packed.packet_id = packet_id;
        }
    }

    pub(crate) fn set_received(&mut self, message: Lsn) {
        if let Some(packed) = self.find_mut(message) {
            packed.flags |= taker::RECEIVED;
        }
    }

    /// Keeps the entries whose message passes; says how many went.
    pub(crate) fn keep(&mut self, mut passes: impl FnMut(Lsn) -> bool) -> usize {
        let before = self.entries.len();
        let identifiers = &mut self.identifiers;
        self.entries.retain(|packed| {
            let stays = passes(packed.message);
            if !stays {
                identifiers.remove(&packed.message);
            }
            stays
        });
        before - self.entries.len()
    }

    fn find(&self, message: Lsn) -> Option<usize> {
        // Entries are done in order, nearly always.
        if self.entries.front().is_some_and(|first| first.message == message) {
            return Some(0);
        }
        self.entries.binary_search_by_key(&message, |packed| packed.message).ok()
    }

    fn find_mut(&mut self, message: Lsn) -> Option<&mut Packed> {
        self.find(message).and_then(|at| self.entries.get_mut(at))
    }

    fn unpack(&self, packed: &Packed) -> Entry<'_> {
        let identifiers = match self.identifiers.is_empty() {
            true => None,
            false => self.identifiers.get(&packed.message),
        };
        Entry {
            message: packed.message,
            qos: packed.flags & taker::QOS,
            retain: packed.flags & taker::RETAIN != 0,
            packet_id: packed.packet_id,
            received: packed.flags & taker::RECEIVED != 0,
            identifiers: identifiers.map_or(&[], |identifiers| identifiers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taker(identifiers: &[u32]) -> Taker {
        Taker { session: 1, qos: 2, retain: true, packet_id: 7, identifiers: identifiers.into() }
    }

    #[test]
    fn an_entry_takes_16_bytes() {
        assert_eq!(size_of::<Packed>(), 16);
    }

    #[test]
    fn an_entry_is_what_was_pushed_and_changed_since() {
        let mut queue = Queue::default();
        assert!(queue.push(Lsn(3), &taker(&[])) && queue.push(Lsn(5), &taker(&[1, 9])));
        assert!(!queue.push(Lsn(5), &taker(&[])), "a session takes a message once");
        queue.set_received(Lsn(5));
        queue.set_packet_id(Lsn(3), 12);
        let identifiers: &[u32] = &[1, 9];
        let second =
            Entry { message: Lsn(5), qos: 2, retain: true, packet_id: 7, received: true, identifiers };
        assert_eq!(queue.get(Lsn(5)), Some(second));
        assert_eq!(queue.iter().next().map(|first| first.packet_id), Some(12));
        assert_eq!(queue.from(Lsn(4)).collect::<Vec<_>>(), [second]);
        assert!(queue.remove(Lsn(5)) && !queue.remove(Lsn(5)));
        assert_eq!(queue.len(), 1);
    }
}
