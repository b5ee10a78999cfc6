//! What an item was made of: entries of the log and messages of remote systems. Each is done when nothing in the graph, or on its
//! way to a remote system, is made of it any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bridge::Ticket;
use parking_lot::Mutex;
use processing_core::time::Time;

/// Numbers of entries that nothing in the graph is made of any more.
pub type Finished = Arc<Mutex<Vec<u64>>>;

/// Something that is in the graph and that somebody wants to hear the end of. When the last item that was made of it is gone,
/// it is finished.
enum Entry {
    /// An entry of the log.
    Logged { number: u64, finished: Finished },
    /// A message of a remote system.
    Remote { _ticket: Ticket },
}

impl Entry {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Logged { number, .. } => Some(*number),
            Self::Remote { .. } => None,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Self::Logged { number, finished } = self {
            finished.lock().push(*number);
        }
    }
}

/// What an item was made of; nothing for what is in memory only.
#[derive(Clone, Default)]
pub struct Origins(Option<Arc<Made>>);

struct Made {
    of: Vec<Arc<Entry>>,
    /// The window that made one item of several.
    window: Option<(Box<str>, Time)>,
    /// Messages that were derived from it so far.
    derived: AtomicU32,
}

impl Made {
    fn of(of: Vec<Arc<Entry>>) -> Self {
        Self { of, window: None, derived: AtomicU32::new(0) }
    }
}

impl Origins {
    /// The entry of this number enters a graph.
    pub fn entry(number: u64, finished: &Finished) -> Self {
        Self::one(Entry::Logged { number, finished: Arc::clone(finished) })
    }

    /// The message of a remote system that has this ticket enters a graph.
    pub fn remote(ticket: Ticket) -> Self {
        Self::one(Entry::Remote { _ticket: ticket })
    }

    fn one(entry: Entry) -> Self {
        Self(Some(Arc::new(Made::of(vec![Arc::new(entry)]))))
    }

    /// Nobody wants to hear the end of it: it is in memory only.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Something of it is in the log.
    pub fn is_logged(&self) -> bool {
        self.first().is_some()
    }

    /// The number of the entry, or of the first of several.
    pub fn first(&self) -> Option<u64> {
        self.entries().find_map(|entry| entry.number())
    }

    /// The numbers of the entries.
    pub fn numbers(&self) -> Vec<u64> {
        self.entries().filter_map(|entry| entry.number()).collect()
    }

    fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.iter().flat_map(|made| &made.of)
    }

    /// Only what is of remote systems; nothing when nothing is.
    pub fn tickets(&self) -> Self {
        let tickets: Vec<_> = self.entries().filter(|entry| entry.number().is_none()).cloned().collect();
        if tickets.is_empty() { Self(None) } else { Self(Some(Arc::new(Made::of(tickets)))) }
    }

    /// Stands for another item, too.
    pub fn combine(&mut self, later: Self) {
        let Some(later) = later.0 else { return };
        let Some(made) = &mut self.0 else {
            self.0 = Some(later);
            return;
        };
        let more = later.of.iter().cloned();
        match Arc::get_mut(made) {
            Some(made) => made.of.extend(more),
            // What it was made of may be on other ways, too.
            None => *made = Arc::new(Made::of(made.of.iter().cloned().chain(more).collect())),
        }
    }

    /// The window of this operation and time has made it.
    pub fn close_window(&mut self, operation: &str, time: Time) {
        let Some(made) = &mut self.0 else { return };
        let window = Some((operation.into(), time));
        match Arc::get_mut(made) {
            Some(made) => made.window = window,
            None => *made = Arc::new(Made { window, ..Made::of(made.of.clone()) }),
        }
    }

    /// The identity of the next message that is derived from it: when the same entries go through the same graph once more,
    /// their messages have the same identities. Empty for what is in memory only.
    pub fn next_identity(&self) -> String {
        let Some(made) = &self.0 else { return String::new() };
        let count = made.derived.fetch_add(1, Ordering::Relaxed);
        match (&made.window, self.first()) {
            (Some((operation, Time { secs, nanos, counter })), _) => {
                format!("{operation}@{secs}.{nanos:09}:{counter}/{count}")
            }
            (None, Some(number)) => format!("#{number}/{count}"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.numbers()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bridge::Tickets;

    use super::*;

    const TIME: Time = Time { secs: 10, nanos: 0, counter: 0 };

    fn taken(finished: &Finished) -> Vec<u64> {
        std::mem::take(&mut *finished.lock())
    }

    #[test]
    fn an_entry_is_finished_when_its_last_item_is_gone() {
        let finished = Finished::default();
        let mut window = Origins::entry(1, &finished);
        let other_way = window.clone();
        window.combine(Origins::entry(2, &finished));
        assert_eq!(window.numbers(), [1, 2]);
        assert_eq!(other_way.numbers(), [1]);
        drop(window);
        assert_eq!(taken(&finished), [2]);
        drop(other_way);
        assert_eq!(taken(&finished), [1]);
    }

    #[test]
    fn a_message_of_a_remote_system_is_done_with_when_its_last_item_is_gone() {
        let (finished, tickets) = (Finished::default(), Tickets::new());
        let mut window = Origins::remote(tickets.issue(7));
        assert!(!window.is_none() && !window.is_logged() && window.numbers().is_empty());
        window.combine(Origins::entry(1, &finished));
        let held = window.tickets();
        assert_eq!((window.first(), held.first()), (Some(1), None));
        drop(window);
        assert_eq!((taken(&finished), tickets.take()), (vec![1], vec![]));
        drop(held);
        assert_eq!(tickets.take(), [7]);
    }

    #[test]
    fn what_is_in_memory_only_changes_nothing() {
        let finished = Finished::default();
        let mut origins = Origins::default();
        origins.close_window("a", TIME);
        assert!(origins.is_none() && origins.next_identity().is_empty());
        origins.combine(Origins::entry(3, &finished));
        origins.combine(Origins::default());
        assert_eq!(origins.numbers(), [3]);
    }

    #[test]
    fn identities_are_those_of_the_window_or_of_the_entry_whatever_else_is_in_it() {
        let finished = Finished::default();
        let identities = |numbers: &[u64]| {
            let mut entries = numbers.iter().map(|number| Origins::entry(*number, &finished));
            let mut window = entries.next().unwrap();
            let first = window.clone();
            entries.for_each(|entry| window.combine(entry));
            window.close_window("average", TIME);
            [window.next_identity(), window.next_identity(), first.next_identity()]
        };
        let [one, two, first] = identities(&[4, 5]);
        assert_eq!((one.as_str(), two.as_str()), ("average@10.000000000:0/0", "average@10.000000000:0/1"));
        assert_eq!(first, "#4/0");
        assert_eq!(identities(&[4])[..2], [one, two]);
    }
}
