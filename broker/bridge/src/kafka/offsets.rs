//! Which messages of each partition are done with, and so how far its offset may be committed.

use std::collections::{HashMap, VecDeque};

/// A partition of a topic.
pub type Partition = (String, i32);

/// What is under way of each partition.
#[derive(Debug, Default)]
pub struct Offsets {
    next: u64,
    partitions: HashMap<Partition, Track>,
    /// In which partition the message of a number is.
    places: HashMap<u64, Partition>,
}

#[derive(Debug, Default)]
struct Track {
    /// In the order of their offsets.
    under_way: VecDeque<Message>,
    /// The offset to go on from that is not committed yet.
    reached: Option<i64>,
}

#[derive(Debug)]
struct Message {
    number: u64,
    offset: i64,
    done: bool,
}

impl Offsets {
    /// A message came; its number.
    pub fn begin(&mut self, partition: &Partition, offset: i64) -> u64 {
        let number = self.next;
        self.next += 1;
        let track = self.partitions.entry(partition.clone()).or_default();
        track.under_way.push_back(Message { number, offset, done: false });
        self.places.insert(number, partition.clone());
        number
    }

    /// These are done with.
    pub fn done(&mut self, numbers: &[u64]) {
        for number in numbers {
            let Some(partition) = self.places.remove(number) else { continue };
            let Some(track) = self.partitions.get_mut(&partition) else { continue };
            if let Ok(at) = track.under_way.binary_search_by_key(number, |message| message.number) {
                track.under_way[at].done = true;
            }
            while track.under_way.front().is_some_and(|front| front.done) {
                track.reached = track.under_way.pop_front().map(|front| front.offset + 1);
            }
        }
    }

    /// These are not waited for: they will come again.
    pub fn abandon(&mut self, numbers: &[u64]) {
        for number in numbers {
            let track = self.places.remove(number).and_then(|partition| self.partitions.get_mut(&partition));
            track.into_iter().for_each(|track| track.under_way.retain(|message| message.number != *number));
        }
    }

    /// The offsets that have been reached since the last call.
    pub fn take_reached(&mut self) -> Vec<(Partition, i64)> {
        let reached =
            |(partition, track): (&Partition, &mut Track)| Some((partition.clone(), track.reached.take()?));
        self.partitions.iter_mut().filter_map(reached).collect()
    }

    /// An offset that was taken could not be committed: it is taken again, unless it has gone on or is somebody else's now.
    pub fn put_back(&mut self, partition: &Partition, offset: i64) {
        if let Some(track) = self.partitions.get_mut(partition) {
            track.reached.get_or_insert(offset);
        }
    }

    /// Whether something of these partitions is under way.
    pub fn are_under_way(&self, partitions: &[Partition]) -> bool {
        let under_way =
            |partition| self.partitions.get(partition).is_some_and(|track| !track.under_way.is_empty());
        partitions.iter().any(under_way)
    }

    /// These partitions are somebody else's from now on.
    pub fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            for message in self.partitions.remove(partition).into_iter().flat_map(|track| track.under_way) {
                self.places.remove(&message.number);
            }
        }
    }

    /// All partitions that anything came from.
    pub fn all(&self) -> Vec<Partition> {
        self.partitions.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_reached_when_everything_before_it_is_done() {
        let (mut offsets, p0, p1) = (Offsets::default(), ("t".to_owned(), 0), ("t".to_owned(), 1));
        let numbers: Vec<u64> = [(&p0, 5), (&p1, 9), (&p0, 7), (&p0, 8)]
            .into_iter()
            .map(|(partition, offset)| offsets.begin(partition, offset))
            .collect();
        offsets.done(&numbers[2..3]);
        assert_eq!(offsets.take_reached(), []);
        offsets.done(&numbers[..1]);
        assert_eq!(offsets.take_reached(), [(p0.clone(), 8)]);
        assert_eq!(offsets.take_reached(), []);
        offsets.put_back(&p0, 8);
        offsets.put_back(&("t".to_owned(), 7), 1);
        assert_eq!(offsets.take_reached(), [(p0.clone(), 8)]);
        assert!(offsets.are_under_way(std::slice::from_ref(&p0)));
        offsets.forget(std::slice::from_ref(&p0));
        offsets.done(&numbers[3..]);
        offsets.done(&numbers[1..2]);
        assert_eq!(offsets.take_reached(), [(p1.clone(), 10)]);
        assert!(!offsets.are_under_way(&[p0, p1]) && offsets.places.is_empty());
    }
}
