//! The durable store: one append-only log is the truth, and what is kept beside it can be made from it.
//!
//! Events are appended as atomic records; a single writer thread commits them in groups, applies them to a mirror of
//! the durable state in memory, and tells an [`Observer`]. The log is cut into segments; a checkpoint of the state now
//! and then lets a start skip what is older; segments are given back as what they hold is done.
//!
//! Nothing here knows MQTT packets, an async runtime or what time it is: moments come as arguments, wall
//! milliseconds.
//!
//! ```text
//! append → line → writer: write, sync → apply to the state → tell the observer
//!                    └ between batches: checkpoint, delete, compact
//! ```

mod checkpoint;
mod checkpointing;
mod chores;
mod clock;
mod codec;
mod compaction;
pub mod disk;
mod error;
mod event;
mod failpoint;
mod files;
mod format;
mod frame;
mod index;
mod inspection;
mod line;
mod log;
mod observer;
mod options;
mod queue;
mod recovery;
mod replay;
mod segment;
#[cfg(feature = "sim")]
pub mod sim;
mod state;
mod stats;
mod store;
mod wire;
mod writer;

pub use disk::{Disk, DiskFile, Lock, RealDisk};
pub use error::{OpenError, ReadError, Refused};
pub use event::{Event, Lsn, Message, SessionKey, Taker, Will};
pub use failpoint::FAILPOINTS;
pub use format::VERSION;
pub use inspection::{Inspection, Report, Sizes};
pub use observer::{Committed, Failed, Observer, OnFailure};
pub use options::Options;
pub use queue::{Entry, Queue};
pub use recovery::{Quarantined, Recovery, Torn};
pub use state::{SessionState, State};
pub use stats::{SYNC_CLASSES_US, Stats};
pub use store::Store;
