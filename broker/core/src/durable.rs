//! The persisted part of a session: entries of the log that are on their way to the client.
//!
//! The log holds everything; here is only as much of it as the client may soon be sent. A session that is *behind* has
//! entries in the log that are not here: they are loaded as those before them are acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;

use crate::message::Message;
use crate::packet::{PacketId, QoS};

/// Number of a message in the log.
pub type Number = u64;

/// Entries that are kept ready in memory, beyond what is under way.
pub const AHEAD_MAX: usize = 1024;
/// With fewer than these, more are loaded.
pub const AHEAD_LOW: usize = AHEAD_MAX / 2;
/// Packet identifiers from this one on are those of persisted messages: they are written down before they are used, and
/// others never collide with them.
pub const FIRST_ID: u16 = 0x8000;
const IDS: u16 = u16::MAX - FIRST_ID + 1;

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not sent on this connection.
    Ready,
    /// Sent: PUBACK or PUBREC is awaited.
    Sent,
    /// PUBREC came, and is being written down; PUBREL waits for that.
    Receiving,
    /// PUBREC is written down: PUBCOMP is awaited.
    Received,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its message's number.
    pub number: Number,
    /// The identifier it is sent with.
    pub id: PacketId,
    /// What is sent; nothing once PUBREC came.
    pub message: Option<Arc<Message>>,
    /// At which QoS.
    pub qos: QoS,
    /// With the retain flag set.
    pub retain: bool,
    /// With these subscription identifiers.
    pub identifiers: Box<[u32]>,
    /// How far it is.
    pub progress: Progress,
    /// It may have been sent before.
    pub dup: bool,
}

/// What a PUBREC changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPubRec {
    /// To be written down; PUBREL follows then.
    WriteDown(Number),
    /// It was written down before: PUBREL at once.
    Again,
    /// It is being written down.
    Wait,
    /// No such message.
    Unknown,
}

/// The persisted part of a session.
#[derive(Debug, Default)]
pub struct Durable {
    /// All subscriptions of the session are persisted.
    pub all: bool,
    /// In the order of their numbers.
    entries: VecDeque<Entry>,
    /// Identifiers in use; the number is 0 until it is known.
    ids: HashMap<PacketId, Number>,
    next_id: u16,
    under_way: usize,
    /// From this number on, entries may be in the log only.
    behind: Option<Number>,
    /// The highest number that was here or is known to be in the log.
    seen: Number,
    /// Entries up to this one have been here.
    here: Number,
    loading: bool,
    /// No entry before this number is ready.
    ready_from: Number,
    /// QoS 2 messages of the client itself that are in the log, whose PUBREL has not come.
    pub incoming: BTreeSet<PacketId>,
}

impl Durable {
    /// As it comes out of the log: everything is still there only. `ids` are those that the log's entries have.
    pub fn restored(
        all: bool,
        first: Option<Number>,
        last: Number,
        ids: impl IntoIterator<Item = (PacketId, Number)>,
    ) -> Self {
        let ids: HashMap<PacketId, Number> = ids.into_iter().collect();
        // The next one after those in use: the client may remember them.
        let next_id = ids.keys().map(|id| id.get() - FIRST_ID + 1).max().unwrap_or(0) % IDS;
        Self { all, behind: first, seen: last, ids, next_id, ..Self::default() }
    }

    /// Entries here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None is here.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that were sent and are not done.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// A packet identifier for a message that is about to be written; none when it is better loaded later.
    pub fn reserve(&mut self) -> Option<PacketId> {
        if self.behind.is_some() || self.ids.len() >= AHEAD_MAX {
            return None;
        }
        self.take_id()
    }

    fn take_id(&mut self) -> Option<PacketId> {
        for _ in 0..IDS {
            let id = PacketId::new(FIRST_ID + self.next_id);
            self.next_id = (self.next_id + 1) % IDS;
            if let Some(id) = id
                && !self.ids.contains_key(&id)
            {
                self.ids.insert(id, 0);
                return Some(id);
            }
        }
        None
    }

    /// The message was not written after all.
    pub fn give_back(&mut self, id: PacketId) {
        self.ids.remove(&id);
    }

    /// An entry is in the log. Without an identifier, or behind others, it is loaded later.
    pub fn committed(
        &mut self,
        number: Number,
        id: Option<PacketId>,
        entry: impl FnOnce(Number, PacketId) -> Entry,
    ) {
        self.seen = self.seen.max(number);
        if let Some(id) = id {
            self.ids.insert(id, number);
        }
        if number <= self.here || self.behind.is_some() {
            return;
        }
        match id {
            Some(id) => {
                self.here = number;
                self.entries.push_back(entry(number, id));
            }
            None => self.behind = Some(number),
        }
    }

    /// Where to go on loading, and how many entries; nothing when there is no need or it is being done.
    pub fn wants(&self) -> Option<(Number, usize)> {
        let room = AHEAD_MAX.saturating_sub(self.entries.len());
        (!self.loading && self.entries.len() < AHEAD_LOW).then_some(())?;
        Some((self.behind?, room))
    }

    /// Loading begins.
    pub fn begin_loading(&mut self) {
        self.loading = true;
    }

    /// Gives identifiers to entries of the log that have none.
    pub fn assign(&mut self, number: Number) -> Option<PacketId> {
        let id = self.take_id()?;
        self.ids.insert(id, number);
        Some(id)
    }

    /// Loading is over: these are all that the log had, up to and with `last`.
    pub fn loaded(&mut self, entries: impl IntoIterator<Item = Entry>, last: Option<Number>) {
        self.loading = false;
        for entry in entries {
            self.under_way += usize::from(entry.progress != Progress::Ready);
            self.entries.push_back(entry);
        }
        match last {
            Some(last) => {
                self.here = self.here.max(last);
                self.behind = (self.seen > last).then_some(last + 1);
            }
            // Nothing was there: what was seen is done already.
            None => self.behind = None,
        }
    }

    /// Loading did not come to an end.
    pub fn not_loaded(&mut self) {
        self.loading = false;
    }

    /// A new connection: nothing has been sent on it.
    pub fn reopen(&mut self) {
        for entry in &mut self.entries {
            if entry.progress == Progress::Sent {
                entry.progress = Progress::Ready;
                entry.dup = true;
            }
        }
        self.ready_from = 0;
        self.under_way = self.entries.iter().filter(|entry| entry.progress != Progress::Ready).count();
    }

    /// The entries whose PUBREL is owed.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.entries.iter().filter(|entry| entry.progress == Progress::Received).map(|entry| entry.id)
    }

    /// Sends what is ready, up to `room` entries: `send` says whether it was sent. What was not is handed back by its
    /// number, and gone from here.
    pub fn send(&mut self, mut room: usize, mut send: impl FnMut(&Entry) -> bool) -> Vec<Number> {
        let mut dropped = Vec::new();
        let first = self.entries.partition_point(|entry| entry.number < self.ready_from);
        for entry in self.entries.range_mut(first..) {
            self.ready_from = entry.number;
            if entry.progress != Progress::Ready {
                continue;
            }
            if room == 0 {
                break;
            }
            if send(entry) {
                entry.progress = Progress::Sent;
                self.under_way += 1;
                room -= 1;
            } else {
                dropped.push(entry.number);
            }
        }
        for number in &dropped {
            self.forget(*number);
        }
        dropped
    }

    fn find(&self, number: Number) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn forget(&mut self, number: Number) {
        if let Some(entry) = self.find(number).and_then(|at| self.entries.remove(at)) {
            self.ids.remove(&entry.id);
            self.under_way -= usize::from(entry.progress != Progress::Ready);
        }
    }

    fn by_id(&mut self, id: PacketId) -> Option<&mut Entry> {
        let number = *self.ids.get(&id)?;
        let at = self.find(number)?;
        self.entries.get_mut(at)
    }

    /// PUBACK: the number of the message that is done.
    pub fn acknowledge(&mut self, id: PacketId) -> Option<Number> {
        let entry = self.by_id(id)?;
        let done = entry.qos == QoS::AtLeastOnce && entry.progress == Progress::Sent;
        let number = entry.number;
        done.then(|| {
            self.forget(number);
            number
        })
    }

    /// PUBREC with success.
    pub fn receive(&mut self, id: PacketId) -> OnPubRec {
        let Some(entry) = self.by_id(id) else { return OnPubRec::Unknown };
        match entry.progress {
            Progress::Sent if entry.qos == QoS::ExactlyOnce => {
                entry.progress = Progress::Receiving;
                entry.message = None;
                OnPubRec::WriteDown(entry.number)
            }
            Progress::Receiving => OnPubRec::Wait,
            Progress::Received => OnPubRec::Again,
            _ => OnPubRec::Unknown,
        }
    }

    /// PUBREC is written down: the identifier whose PUBREL is owed now.
    pub fn written_received(&mut self, number: Number) -> Option<PacketId> {
        let at = self.find(number)?;
        let entry = self.entries.get_mut(at)?;
        entry.progress = Progress::Received;
        Some(entry.id)
    }

    /// PUBREC with an error: the number of the message that is done.
    pub fn reject(&mut self, id: PacketId) -> Option<Number> {
        let entry = self.by_id(id)?;
        let done = entry.qos == QoS::ExactlyOnce && entry.progress == Progress::Sent;
        let number = entry.number;
        done.then(|| {
            self.forget(number);
            number
        })
    }

    /// PUBCOMP: the number of the message that is done.
    pub fn complete(&mut self, id: PacketId) -> Option<Number> {
        let entry = self.by_id(id)?;
        let done = matches!(entry.progress, Progress::Received);
        let number = entry.number;
        done.then(|| {
            self.forget(number);
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Millis;

    fn entry(number: Number, id: PacketId, qos: QoS) -> Entry {
        let message = Message::new(Bytes::from_static(b"t"), Bytes::new(), Bytes::new(), Millis(0));
        Entry {
            number,
            id,
            message: Some(Arc::new(message)),
            qos,
            retain: false,
            identifiers: Box::default(),
            progress: Progress::Ready,
            dup: false,
        }
    }

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    fn sent(durable: &mut Durable, room: usize) -> Vec<(Number, bool)> {
        let mut all = Vec::new();
        durable.send(room, |entry| {
            all.push((entry.number, entry.dup));
            true
        });
        all
    }

    #[test]
    fn what_is_committed_is_sent_in_order_and_once_a_connection() {
        let mut durable = Durable::default();
        let ids: Vec<PacketId> = (0..3).map(|_| durable.reserve().unwrap()).collect();
        assert_eq!(ids[0].get(), FIRST_ID);
        for (number, id) in [(10, ids[1]), (11, ids[0]), (15, ids[2])] {
            durable.committed(number, Some(id), |number, id| entry(number, id, QoS::AtLeastOnce));
        }
        assert_eq!(sent(&mut durable, 2), [(10, false), (11, false)]);
        assert_eq!(sent(&mut durable, 9), [(15, false)]);
        assert_eq!(durable.acknowledge(ids[0]), Some(11));
        assert_eq!(durable.acknowledge(ids[0]), None);
        durable.reopen();
        assert_eq!((durable.under_way(), sent(&mut durable, 9)), (0, vec![(10, true), (15, true)]));
    }

    #[test]
    fn an_entry_without_an_identifier_and_all_after_it_are_loaded() {
        let mut durable = Durable::default();
        let first = durable.reserve();
        let late = durable.reserve();
        durable.committed(1, first, |number, id| entry(number, id, QoS::AtLeastOnce));
        durable.committed(2, None, |_, _| unreachable!());
        durable.committed(3, late, |_, _| panic!("it would overtake"));
        assert_eq!(durable.reserve(), None);
        assert_eq!(durable.wants(), Some((2, AHEAD_MAX - 1)));
        durable.begin_loading();
        assert_eq!(durable.wants(), None);
        // One more is committed while the log is read; it was not seen there.
        let second = durable.assign(2).unwrap();
        durable.committed(4, None, |_, _| unreachable!());
        let loaded = [entry(2, second, QoS::AtLeastOnce), entry(3, late.unwrap(), QoS::AtLeastOnce)];
        durable.loaded(loaded, Some(3));
        assert_eq!(durable.wants().map(|(from, _)| from), Some(4));
        assert_eq!(sent(&mut durable, 9).len(), 3);
        // What was loaded is told once more, late: no second entry.
        let fourth = durable.assign(4).unwrap();
        durable.loaded([entry(4, fourth, QoS::AtLeastOnce)], Some(4));
        durable.committed(4, None, |_, _| unreachable!());
        assert_eq!((durable.len(), durable.wants()), (4, None));
        assert!(durable.reserve().is_some());
    }

    #[test]
    fn a_qos_2_message_is_released_when_its_pubrec_is_written_down() {
        let mut durable = Durable::default();
        let id = durable.reserve().unwrap();
        durable.committed(7, Some(id), |number, id| entry(number, id, QoS::ExactlyOnce));
        assert_eq!(durable.receive(id), OnPubRec::Unknown, "it was not sent");
        sent(&mut durable, 1);
        assert_eq!(durable.acknowledge(id), None);
        assert_eq!(durable.receive(id), OnPubRec::WriteDown(7));
        assert_eq!((durable.receive(id), durable.complete(id)), (OnPubRec::Wait, None));
        durable.reopen();
        assert_eq!(durable.written_received(7), Some(id));
        assert_eq!(durable.receive(id), OnPubRec::Again);
        assert_eq!(durable.received().collect::<Vec<_>>(), [id]);
        assert_eq!((durable.under_way(), durable.complete(id)), (1, Some(7)));
        assert!(durable.is_empty() && durable.under_way() == 0);
    }

    #[test]
    fn identifiers_that_the_log_knows_are_not_given_to_others() {
        let mut durable = Durable::restored(true, Some(3), 9, [(id(FIRST_ID + 1), 3), (id(u16::MAX), 5)]);
        assert_eq!(durable.wants().map(|(from, _)| from), Some(3));
        assert_eq!(durable.assign(9), Some(id(FIRST_ID)));
        assert_eq!(durable.assign(9), Some(id(FIRST_ID + 2)));
    }
}
