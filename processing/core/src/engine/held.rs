//! Items that wait inside a graph until their logical time is over.

use std::collections::{BTreeMap, BTreeSet};

use super::Cause;
use crate::item::{Data, Item};
use crate::time::Time;

/// An accumulate is called as soon as so many items of one time wait, so that a long window stays small.
const BATCH_ITEMS_MAX: usize = 64;
/// The same in bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How much may wait inside one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items, and windows beside them.
    pub items_max: usize,
    /// Bytes of content.
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { items_max: 100_000, bytes_max: 64 << 20 }
    }
}

/// What an accumulate has of one time.
pub(super) struct Window<C> {
    /// What was combined so far.
    pub staged: Option<(Data, C)>,
    batch: Vec<Data>,
    carries: Vec<C>,
    batch_bytes: usize,
    /// What `staged` counts for.
    staged_bytes: usize,
}

/// All that waits in one graph.
pub(super) struct Held<C> {
    pub bounds: Bounds,
    /// Times that are to come, each with the rank of the operation that waits for it: an operation ranks after all
    /// those that lead to it.
    due: BTreeSet<(Time, usize)>,
    ranks: Vec<usize>,
    operations: Vec<usize>,
    windows: BTreeMap<(usize, Time), Window<C>>,
    delayed: BTreeMap<(usize, Time), Vec<Item<C>>>,
    /// Times before this one are over.
    closed: Time,
    items: usize,
    bytes: usize,
}

impl<C> Held<C> {
    /// `order` names every operation after all those that lead to it.
    pub fn new(order: Vec<usize>) -> Self {
        let mut ranks = vec![0; order.len()];
        for (rank, &at) in order.iter().enumerate() {
            ranks[at] = rank;
        }
        Self {
            bounds: Bounds::default(),
            due: BTreeSet::new(),
            ranks,
            operations: order,
            windows: BTreeMap::new(),
            delayed: BTreeMap::new(),
            closed: Time::default(),
            items: 0,
            bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.items
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    pub fn first_due(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// The earliest that `frontier` has passed: which operation, and which time.
    pub fn pop_due(&mut self, frontier: Time) -> Option<(usize, Time)> {
        let &(time, rank) = self.due.first().filter(|(time, _)| *time < frontier)?;
        self.due.pop_first();
        Some((self.operations[rank], time))
    }

    /// From now on, items of times before `frontier` are late.
    pub fn close(&mut self, frontier: Time) {
        self.closed = self.closed.max(frontier);
    }

    /// Keeps an item of a delay until `time` is over.
    pub fn hold(&mut self, at: usize, time: Time, item: Item<C>) -> Result<(), (Cause, C)> {
        let bytes = item.data.len_bytes();
        if let Err(cause) = self.admit(time, 1, bytes) {
            return Err((cause, item.carry));
        }
        self.due.insert((time, self.ranks[at]));
        self.delayed.entry((at, time)).or_default().push(item);
        Ok(())
    }

    /// The items of a delay whose time is over, in the order in which they came.
    pub fn release(&mut self, at: usize, time: Time) -> Vec<Item<C>> {
        let items = self.delayed.remove(&(at, time)).unwrap_or_default();
        self.items -= items.len();
        self.bytes -= items.iter().map(|item| item.data.len_bytes()).sum::<usize>();
        items
    }

    /// An item joins the window of its time. Whether it made the batch full.
    pub fn gather(&mut self, at: usize, item: Item<C>) -> Result<bool, (Cause, C)> {
        let time = item.time.time();
        let bytes = item.data.len_bytes();
        let begins = !self.windows.contains_key(&(at, time));
        // A window counts for one item as long as it is there.
        if let Err(cause) = self.admit(time, 1 + usize::from(begins), bytes) {
            return Err((cause, item.carry));
        }
        self.due.insert((time, self.ranks[at]));
        let window = self.windows.entry((at, time)).or_insert_with(|| Window {
            staged: None,
            batch: Vec::new(),
            carries: Vec::new(),
            batch_bytes: 0,
            staged_bytes: 0,
        });
        window.batch.push(item.data);
        window.carries.push(item.carry);
        window.batch_bytes += bytes;
        Ok(window.batch.len() >= BATCH_ITEMS_MAX || window.batch_bytes >= BATCH_BYTES_MAX)
    }

    /// What of a window waits to be combined; `None` when nothing does.
    pub fn take_batch(&mut self, at: usize, time: Time) -> Option<(Vec<Data>, Vec<C>)> {
        let window = self.windows.get_mut(&(at, time)).filter(|window| !window.batch.is_empty())?;
        self.items -= window.batch.len();
        self.bytes -= std::mem::take(&mut window.batch_bytes);
        Some((std::mem::take(&mut window.batch), std::mem::take(&mut window.carries)))
    }

    pub fn window(&mut self, at: usize, time: Time) -> Option<&mut Window<C>> {
        self.windows.get_mut(&(at, time))
    }

    /// Counts what the window's combined data holds, which the operator has just changed.
    pub fn recount(&mut self, at: usize, time: Time) {
        if let Some(window) = self.windows.get_mut(&(at, time)) {
            let bytes = window.staged.as_ref().map_or(0, |(data, _)| data.len_bytes());
            self.bytes = self.bytes - std::mem::replace(&mut window.staged_bytes, bytes) + bytes;
        }
    }

    /// The window is over.
    pub fn take_window(&mut self, at: usize, time: Time) -> Option<Window<C>> {
        let window = self.windows.remove(&(at, time))?;
        self.items -= 1;
        self.bytes -= window.staged_bytes;
        Some(window)
    }

    fn admit(&mut self, time: Time, items: usize, bytes: usize) -> Result<(), Cause> {
        if time < self.closed {
            return Err(Cause::Late);
        }
        if self.items + items > self.bounds.items_max || self.bytes + bytes > self.bounds.bytes_max {
            return Err(Cause::Full);
        }
        self.items += items;
        self.bytes += bytes;
        Ok(())
    }
}
