//! The ledger of what was published, acknowledged and received, and what must hold of it whatever happens to the broker.
//!
//! Publishers and subscribers write down what they see, through any number of lives of the broker. Afterwards every
//! acknowledged message must have reached each persisted subscription: at least once, at QoS 2 exactly once; and the
//! first deliveries of one publisher's messages must be in the order in which it published them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A message, by its publisher and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Which publisher.
    pub publisher: u32,
    /// Which of its messages, from 0 on.
    pub number: u32,
}

impl Id {
    /// The payload that stands for it.
    pub fn payload(self) -> String {
        format!("{}:{}", self.publisher, self.number)
    }

    /// The message that a payload stands for.
    pub fn of(payload: &str) -> Option<Self> {
        let (publisher, rest) = payload.split_once(':')?;
        let number = rest.split(' ').next()?;
        Some(Self { publisher: publisher.parse().ok()?, number: number.parse().ok()? })
    }
}

/// What has been seen.
#[derive(Default)]
pub struct Ledger {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    published: BTreeSet<Id>,
    acknowledged: BTreeSet<Id>,
    /// By subscriber, in the order of arrival.
    received: BTreeMap<String, Vec<Id>>,
    /// By subscriber: what was acknowledged and has not come. Kept along, since it is asked for after each message.
    lacking: BTreeMap<String, BTreeSet<Id>>,
    /// By subscriber: what has come.
    seen_by: BTreeMap<String, BTreeSet<Id>>,
    /// May come behind others.
    late: BTreeSet<Id>,
    /// Subscribers for whom no order is promised.
    unordered: BTreeSet<String>,
}

impl Ledger {
    /// A message is about to be published.
    pub fn published(&self, id: Id) {
        self.seen.lock().expect("no holder panics").published.insert(id);
    }

    /// Its acknowledgement came.
    pub fn acknowledged(&self, id: Id) {
        let mut seen = self.seen.lock().expect("no holder panics");
        let Seen { acknowledged, lacking, seen_by, .. } = &mut *seen;
        acknowledged.insert(id);
        for (subscriber, lacking) in lacking {
            if !seen_by.get(subscriber).is_some_and(|seen| seen.contains(&id)) {
                lacking.insert(id);
            }
        }
    }

    /// A subscriber received a message, and took it for a new one by the rules of its QoS.
    pub fn received(&self, subscriber: &str, id: Id) {
        let mut seen = self.seen.lock().expect("no holder panics");
        let Seen { acknowledged, received, lacking, seen_by, .. } = &mut *seen;
        received.entry(subscriber.to_owned()).or_default().push(id);
        seen_by.entry(subscriber.to_owned()).or_default().insert(id);
        lacking.entry(subscriber.to_owned()).or_insert_with(|| acknowledged.clone()).remove(&id);
    }

    /// A message was sent again after it may have been refused, while others were taken: it may come behind those.
    pub fn may_be_late(&self, id: Id) {
        self.seen.lock().expect("no holder panics").late.insert(id);
    }

    /// A subscriber has a part of the messages, or gets them on several ways: it may have them in any order.
    pub fn unordered(&self, subscriber: &str) {
        self.seen.lock().expect("no holder panics").unordered.insert(subscriber.to_owned());
    }

    /// Whether somebody published it.
    pub fn is_published(&self, id: Id) -> bool {
        self.seen.lock().expect("no holder panics").published.contains(&id)
    }

    /// Messages that were acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        self.seen.lock().expect("no holder panics").acknowledged.len()
    }

    /// Whether a subscriber has received all that was acknowledged.
    pub fn has_all(&self, subscriber: &str) -> bool {
        let seen = self.seen.lock().expect("no holder panics");
        seen.lacking.get(subscriber).map_or(seen.acknowledged.is_empty(), BTreeSet::is_empty)
    }

    /// Everything that does not hold, in words; `exactly_once` says of which publishers' messages none may be doubled.
    pub fn complaints(&self, subscriber: &str, exactly_once: impl Fn(u32) -> bool) -> Vec<String> {
        let seen = self.seen.lock().expect("no holder panics");
        let received = seen.received.get(subscriber).map_or(&[][..], |received| received);
        let mut complaints = Vec::new();
        let mut counts: BTreeMap<Id, u32> = BTreeMap::new();
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for id in received {
            if !seen.published.contains(id) {
                complaints.push(format!("{subscriber} received {id:?}, which nobody published"));
            }
            let count = counts.entry(*id).or_default();
            *count += 1;
            if *count > 1 || seen.late.contains(id) || seen.unordered.contains(subscriber) {
                continue;
            }
            if let Some(before) = last.insert(id.publisher, id.number)
                && before > id.number
            {
                complaints
                    .push(format!("{subscriber} received {id:?} for the first time after number {before}"));
            }
        }
        for id in &seen.acknowledged {
            if !counts.contains_key(id) {
                complaints.push(format!("{subscriber} never received {id:?}, which was acknowledged"));
            }
        }
        let doubled = counts.iter().filter(|(id, count)| **count > 1 && exactly_once(id.publisher));
        complaints.extend(doubled.map(|(id, count)| format!("{subscriber} received {id:?} {count} times")));
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        Id { publisher: 1, number }
    }

    #[test]
    fn what_is_lost_doubled_out_of_order_or_made_up_is_found() {
        let ledger = Ledger::default();
        for number in 0..4 {
            ledger.published(id(number));
            ledger.acknowledged(id(number));
        }
        for number in [0, 1, 1, 2, 3] {
            ledger.received("good", id(number));
        }
        assert_eq!(ledger.complaints("good", |_| false), Vec::<String>::new());
        assert!(ledger.has_all("good"));
        assert_eq!(ledger.complaints("good", |publisher| publisher == 1).len(), 1);
        for number in [2, 0, 3, 9] {
            ledger.received("bad", id(number));
        }
        let complaints = ledger.complaints("bad", |_| false).join("\n");
        for part in ["after number 2", "nobody published", "never received Id { publisher: 1, number: 1 }"] {
            assert!(complaints.contains(part), "{complaints}");
        }
        assert!(!ledger.has_all("bad"));
        for number in [3, 2, 1, 0] {
            ledger.received("mixed", id(number));
        }
        assert!(!ledger.complaints("mixed", |_| true).is_empty());
        ledger.unordered("mixed");
        assert_eq!(ledger.complaints("mixed", |_| true), Vec::<String>::new());
        assert_eq!(Id::of(&id(7).payload()), Some(id(7)));
    }
}
