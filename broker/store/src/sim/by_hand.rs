//! A store whose writer has no thread: whoever tests says when it works, and what time it is.

use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::line::Closing;
use crate::options::Options;
use crate::recovery::Recovery;
use crate::store::{Shared, Store, assemble};
use crate::writer::Writer;

/// The writer of a [`Store`], in the hands of a test.
pub struct ByHand {
    shared: Arc<Shared>,
    writer: Option<Writer>,
}

impl ByHand {
    /// Opens a store as [`Store::open`] does. Only [`ByHand::step`] writes anything.
    pub fn open(disk: &Arc<dyn Disk>, options: Options) -> Result<(Store, Self, Recovery), OpenError> {
        let (shared, writer, recovery) = assemble(disk, options, Clock::by_hand())?;
        let store = Store::of(shared.clone(), None);
        Ok((store, Self { shared, writer: Some(writer) }, recovery))
    }

    /// Lets the writer do one turn of what is due, and says whether anything was.
    pub fn step(&mut self) -> bool {
        let Some(writer) = self.writer.take() else { return false };
        let (writer, worked) = writer.step();
        self.writer = writer;
        worked
    }

    /// Until nothing is due, or `turns` are done; says whether nothing is.
    pub fn settle(&mut self, turns: usize) -> bool {
        (0..turns).any(|_| !self.step())
    }

    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.shared.clock.advance(ms);
    }

    /// Asks for a checkpoint, without waiting for it.
    pub fn ask_checkpoint(&self) {
        self.shared.line.lock().checkpoints_asked += 1;
    }

    /// Writes what waits and a checkpoint, and lets go of the store.
    pub fn close(mut self) {
        self.shared.line.lock().closing.get_or_insert(Closing::Orderly);
        while self.step() {}
    }

    /// Whether what is counted along is what it is when it is counted anew.
    ///
    /// # Errors
    /// What differs.
    pub fn audit(&self) -> Result<(), String> {
        self.shared.state.read().audit()
    }
}
