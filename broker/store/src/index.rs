//! Where each live message stands, and how much of each segment is alive.
//!
//! Messages are numbered in the order in which they are written, so each segment keeps a sorted list of 16 bytes a
//! message; those that compaction has moved to a later segment are few, and kept in a map.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

use crate::event::Lsn;

/// What a message takes in its segment besides its block, roughly: its record's frame and takers.
const OVERHEAD: u64 = 32;

/// Where a message's block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment, by its first lsn.
    pub segment: u64,
    pub offset: u32,
    pub len: u32,
}

impl Location {
    fn cost(&self) -> u64 {
        u64::from(self.len) + OVERHEAD
    }
}

/// A message in the segment that its number belongs to.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Its number, less the segment's first.
    delta: u32,
    offset: u32,
    len: u32,
    /// How many queues and retained topics hold it; nobody, when it is dead.
    refs: u32,
}

impl Slot {
    fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

#[derive(Debug, Clone, Copy)]
struct Moved {
    at: Location,
    refs: u32,
}

/// What is known of one segment.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    slots: Vec<Slot>,
    slots_live: usize,
    /// Messages that stand here, native or moved.
    pub live: usize,
    /// What they take.
    pub live_bytes: u64,
    /// Size of the file, as far as it counts.
    pub size: u64,
}

/// The index of live messages.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: BTreeMap<u64, Segment>,
    moved: HashMap<u64, Moved, FixedState>,
    live: usize,
    live_bytes: u64,
}

impl Index {
    /// Messages that somebody holds.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// What they take on disk.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = (u64, &Segment)> {
        self.segments.iter().map(|(&first, segment)| (first, segment))
    }

    pub(crate) fn segment(&self, first: u64) -> Option<&Segment> {
        self.segments.get(&first)
    }

    /// A segment of this size exists.
    pub(crate) fn set_size(&mut self, first: u64, size: u64) {
        self.segments.entry(first).or_default().size = size;
    }

    /// The segment is gone, and with it what still stood in it.
    pub(crate) fn remove_segment(&mut self, first: u64) {
        let lost: Vec<_> = self.live_in(first).into_iter().map(|(lsn, _)| lsn).collect();
        lost.into_iter().for_each(|lsn| self.forget(lsn));
        self.segments.remove(&first);
    }

    /// What does not stand within the first `size` bytes of a segment is lost; says how many messages are.
    pub(crate) fn lose_beyond(&mut self, first: u64, size: u64) -> usize {
        let beyond = |at: &Location| u64::from(at.offset) + u64::from(at.len) > size;
        let lost: Vec<_> = self.live_in(first).into_iter().filter(|(_, at)| beyond(at)).collect();
        lost.iter().for_each(|&(lsn, _)| self.forget(lsn));
        lost.len()
    }

    /// A new message, held by `refs`.
    pub(crate) fn insert(&mut self, lsn: Lsn, at: Location, refs: u32) {
        if refs == 0 {
            return;
        }
        self.count(at, true);
        let segment = self.segments.entry(at.segment).or_default();
        let delta = lsn.0.checked_sub(at.segment).and_then(|delta| u32::try_from(delta).ok());
        let in_order = |delta: &u32| {
            segment.slots.last().is_none_or(|last| last.delta < *delta && last.end() <= at.offset)
        };
        match delta.filter(in_order) {
            Some(delta) => {
                segment.slots.push(Slot { delta, offset: at.offset, len: at.len, refs });
                segment.slots_live += 1;
            }
            None => {
                self.moved.insert(lsn.0, Moved { at, refs });
            }
        }
    }

    /// A message that does not stand where its number belongs, held by `refs`.
    pub(crate) fn insert_moved(&mut self, lsn: Lsn, at: Location, refs: u32) {
        if refs > 0 && self.moved.insert(lsn.0, Moved { at, refs }).is_none() {
            self.count(at, true);
        }
    }

    /// Where the message stands, if anybody holds it.
    pub(crate) fn locate(&self, lsn: Lsn) -> Option<Location> {
        if let Some((segment, slot)) = self.slot(lsn) {
            return Some(Location { segment, offset: slot.offset, len: slot.len });
        }
        self.moved.get(&lsn.0).map(|moved| moved.at)
    }

    /// One less holds the message.
    pub(crate) fn release(&mut self, lsn: Lsn) {
        let Some(refs) = self.refs_mut(lsn) else { return };
        *refs -= 1;
        if *refs == 0 {
            *refs = 1;
            self.forget(lsn);
        }
    }

    /// The message's block stands elsewhere from now on.
    pub(crate) fn relocate(&mut self, lsn: Lsn, at: Location) {
        let Some(refs) = self.refs_mut(lsn).map(|refs| *refs) else { return };
        self.forget(lsn);
        self.count(at, true);
        self.segments.entry(at.segment).or_default();
        self.moved.insert(lsn.0, Moved { at, refs });
    }

    /// The live messages of a segment in the order of their places.
    pub(crate) fn live_in(&self, first: u64) -> Vec<(Lsn, Location)> {
        let mut live = Vec::new();
        if let Some(segment) = self.segments.get(&first) {
            live.extend(segment.slots.iter().filter(|slot| slot.refs > 0).map(|slot| {
                let at = Location { segment: first, offset: slot.offset, len: slot.len };
                (Lsn(first + u64::from(slot.delta)), at)
            }));
        }
        let moved = self.moved.iter().filter(|(_, moved)| moved.at.segment == first);
        live.extend(moved.map(|(&lsn, moved)| (Lsn(lsn), moved.at)));
        live.sort_unstable_by_key(|(_, at)| at.offset);
        live
    }

    /// All live messages, by number.
    pub(crate) fn all(&self) -> Vec<Lsn> {
        let native = self.segments.keys().flat_map(|&first| self.native(first)).map(|(lsn, ..)| lsn);
        let mut all: Vec<_> = native.chain(self.moved.keys().map(|&lsn| Lsn(lsn))).collect();
        all.sort_unstable();
        all
    }

    /// All live messages of a segment's own, with how many hold each: for the checkpoint.
    pub(crate) fn native(&self, first: u64) -> impl Iterator<Item = (Lsn, Location, u32)> {
        let slots = self.segments.get(&first).map_or(&[][..], |segment| &segment.slots);
        slots.iter().filter(|slot| slot.refs > 0).map(move |slot| {
            let at = Location { segment: first, offset: slot.offset, len: slot.len };
            (Lsn(first + u64::from(slot.delta)), at, slot.refs)
        })
    }

    /// Live messages of a segment's own.
    pub(crate) fn native_count(&self, first: u64) -> usize {
        self.segments.get(&first).map_or(0, |segment| segment.slots_live)
    }

    /// Messages that were moved, by number, with how many hold each.
    pub(crate) fn moved(&self) -> Vec<(Lsn, Location, u32)> {
        let mut moved: Vec<_> =
            self.moved.iter().map(|(&lsn, moved)| (Lsn(lsn), moved.at, moved.refs)).collect();
        moved.sort_unstable_by_key(|&(lsn, ..)| lsn);
        moved
    }

    /// Makes room for what a checkpoint is about to bring.
    pub(crate) fn reserve(&mut self, first: u64, slots: usize) {
        self.segments.entry(first).or_default().slots.reserve_exact(slots);
    }

    /// Gives back what growing has reserved, once nothing more comes to a segment.
    pub(crate) fn seal(&mut self, first: u64) {
        if let Some(segment) = self.segments.get_mut(&first) {
            segment.slots.shrink_to_fit();
        }
    }

    /// Whether these messages live, held by so many, and no others; and whether the sums are right.
    #[cfg(feature = "sim")]
    pub(crate) fn audit(&self, holders: &BTreeMap<Lsn, u32>) -> Result<(), String> {
        let mut found = BTreeMap::new();
        let (mut live, mut live_bytes) = (0, 0);
        for &first in self.segments.keys() {
            let here = self.live_in(first);
            let bytes = here.iter().map(|(_, at)| at.cost()).sum::<u64>();
            let segment = self.segments.get(&first).map(|segment| (segment.live, segment.live_bytes));
            if segment != Some((here.len(), bytes)) {
                return Err(format!(
                    "segment {first} is counted as {segment:?}, not {}, {bytes}",
                    here.len()
                ));
            }
            (live, live_bytes) = (live + here.len(), live_bytes + bytes);
            found.extend(self.native(first).map(|(lsn, _, refs)| (lsn, refs)));
        }
        found.extend(self.moved().into_iter().map(|(lsn, _, refs)| (lsn, refs)));
        if (live, live_bytes) != (self.live, self.live_bytes) {
            return Err(format!("{live}, {live_bytes} live, not {}, {}", self.live, self.live_bytes));
        }
        match found == *holders {
            true => Ok(()),
            false => Err(format!("the index has {found:?}, but held are {holders:?}")),
        }
    }

    /// Memory that the index takes, bytes.
    pub(crate) fn memory(&self) -> usize {
        let slots: usize = self.segments.values().map(|segment| segment.slots.capacity()).sum();
        slots * size_of::<Slot>() + self.moved.capacity() * size_of::<(u64, Moved)>()
    }

    fn slot(&self, lsn: Lsn) -> Option<(u64, &Slot)> {
        let (&first, segment) = self.segments.range(..=lsn.0).next_back()?;
        let delta = u32::try_from(lsn.0 - first).ok()?;
        let at = segment.slots.binary_search_by_key(&delta, |slot| slot.delta).ok()?;
        segment.slots.get(at).filter(|slot| slot.refs > 0).map(|slot| (first, slot))
    }

    fn slot_mut(&mut self, lsn: Lsn) -> Option<(u64, &mut Slot)> {
        let (&first, segment) = self.segments.range_mut(..=lsn.0).next_back()?;
        let delta = u32::try_from(lsn.0 - first).ok()?;
        let at = segment.slots.binary_search_by_key(&delta, |slot| slot.delta).ok()?;
        segment.slots.get_mut(at).filter(|slot| slot.refs > 0).map(|slot| (first, slot))
    }

    fn refs_mut(&mut self, lsn: Lsn) -> Option<&mut u32> {
        // Asked twice, since the borrow checker does not see that the first is over.
        if self.slot(lsn).is_some() {
            return self.slot_mut(lsn).map(|(_, slot)| &mut slot.refs);
        }
        self.moved.get_mut(&lsn.0).map(|moved| &mut moved.refs)
    }

    /// Nobody holds the message any more.
    fn forget(&mut self, lsn: Lsn) {
        if let Some((segment, slot)) = self.slot_mut(lsn) {
            slot.refs = 0;
            let at = Location { segment, offset: slot.offset, len: slot.len };
            self.count(at, false);
            self.drop_slot(segment);
        } else if let Some(moved) = self.moved.remove(&lsn.0) {
            self.count(moved.at, false);
        }
    }

    /// Dead slots go when they are the greater part, so that each is paid for once.
    fn drop_slot(&mut self, first: u64) {
        let Some(segment) = self.segments.get_mut(&first) else { return };
        segment.slots_live -= 1;
        if segment.slots.len() >= 64 && segment.slots_live * 2 < segment.slots.len() {
            segment.slots.retain(|slot| slot.refs > 0);
            segment.slots.shrink_to_fit();
        }
    }

    fn count(&mut self, at: Location, came: bool) {
        let segment = self.segments.entry(at.segment).or_default();
        if came {
            segment.live += 1;
            segment.live_bytes += at.cost();
            self.live += 1;
            self.live_bytes += at.cost();
        } else {
            segment.live -= 1;
            segment.live_bytes -= at.cost();
            self.live -= 1;
            self.live_bytes -= at.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64, offset: u32) -> Location {
        Location { segment, offset, len: 100 }
    }

    #[test]
    fn a_message_lives_as_long_as_somebody_holds_it() {
        let mut index = Index::default();
        index.insert(Lsn(5), at(1, 44), 2);
        index.release(Lsn(5));
        assert_eq!(index.locate(Lsn(5)), Some(at(1, 44)));
        index.release(Lsn(5));
        index.release(Lsn(5));
        assert_eq!(index.locate(Lsn(5)), None);
        assert_eq!((index.live(), index.live_bytes()), (0, 0));
    }

    #[test]
    fn a_moved_message_is_found_where_it_is_and_counts_there() {
        let mut index = Index::default();
        index.insert(Lsn(5), at(1, 44), 1);
        index.insert(Lsn(6), at(1, 144), 1);
        index.set_size(9, 44);
        index.relocate(Lsn(5), at(9, 44));
        assert_eq!(index.locate(Lsn(5)), Some(at(9, 44)));
        assert_eq!(index.live_in(1), [(Lsn(6), at(1, 144))]);
        assert_eq!(index.live_in(9), [(Lsn(5), at(9, 44))]);
        index.relocate(Lsn(5), at(12, 44));
        index.release(Lsn(5));
        assert_eq!((index.locate(Lsn(5)), index.live()), (None, 1));
    }

    #[test]
    fn dead_messages_leave_no_memory_behind() {
        let mut index = Index::default();
        (1..=1000).for_each(|lsn| index.insert(Lsn(lsn), at(1, lsn as u32 * 100), 1));
        (1..=990).for_each(|lsn| index.release(Lsn(lsn)));
        assert!(index.memory() < 130 * 16, "{}", index.memory());
        assert_eq!(index.locate(Lsn(995)), Some(at(1, 99_500)));
        assert_eq!(index.live_in(1).len(), 10);
    }

    #[test]
    fn what_stood_in_a_lost_segment_is_lost() {
        let mut index = Index::default();
        index.insert(Lsn(1), at(1, 44), 1);
        index.insert(Lsn(9), at(9, 44), 1);
        index.remove_segment(1);
        assert_eq!((index.locate(Lsn(1)), index.locate(Lsn(9))), (None, Some(at(9, 44))));
    }
}
