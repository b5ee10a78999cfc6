//! What comes out of a graph, as the engine hands it out.

use processing_core::engine::{Cause, Outlet};
use processing_core::item::Item;
use processing_core::time::Time;

use crate::translate::{Carry, Refused};

/// What comes out of a graph.
#[derive(Default)]
pub(super) struct Out {
    pub(super) items: Vec<(usize, Item<Carry>)>,
    pub(super) failed: Vec<Failed>,
    pub(super) filtered: u64,
}

/// An item that ended at an operation.
pub(super) struct Failed {
    pub(super) operation: String,
    pub(super) reason: &'static str,
    pub(super) why: String,
    pub(super) carry: Carry,
}

impl Outlet<Carry> for Out {
    fn emit(&mut self, sink: usize, item: Item<Carry>) {
        self.items.push((sink, item));
    }

    fn dropped(&mut self, operation: &str, cause: Cause, carry: &Carry) {
        let (reason, why) = match &cause {
            Cause::Filtered => return self.filtered += 1,
            Cause::Error(error) => (error.reason(), error.to_string()),
            Cause::Late => ("late", "its time was over already".to_owned()),
            Cause::Full => ("full", "as much as may waits for its time".to_owned()),
        };
        self.failed.push(Failed { operation: operation.to_owned(), reason, why, carry: carry.clone() });
    }

    fn combine(&mut self, carry: &mut Carry, later: Carry) {
        carry.combine(later);
    }

    fn window_closed(&mut self, operation: &str, time: Time, carry: &mut Carry) {
        carry.origins.close_window(operation, time);
    }
}

impl Out {
    pub(super) fn refuse(&mut self, carry: Carry, refused: &Refused) {
        self.failed.push(Failed::of(carry, refused));
    }
}

impl Failed {
    /// A message that did not get in, or an item that did not get out.
    pub(super) fn of(carry: Carry, refused: &Refused) -> Self {
        Self { operation: String::new(), reason: refused.reason(), why: refused.to_string(), carry }
    }
}
