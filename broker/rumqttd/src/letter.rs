//! What becomes of messages that cannot be processed.

use processing_core::engine::Cause;

use crate::message::Origin;

/// A message that ended on its way.
#[derive(Debug)]
pub struct Failed {
    /// The operation where it ended; empty when it did not get in, or not out.
    pub operation: String,
    /// A word for it.
    pub reason: &'static str,
    /// What is wrong.
    pub why: String,
    /// The message that it came from.
    pub origin: Origin,
}

impl Failed {
    /// What the engine says; nothing for what a filter drops.
    pub fn of(operation: &str, cause: &Cause, origin: &Origin) -> Option<Self> {
        let (reason, why) = match cause {
            Cause::Filtered => return None,
            Cause::Error(error) => (error.reason(), error.to_string()),
            Cause::Late => ("late", "its time was over already".to_owned()),
            Cause::Full => ("full", "as much as may waits for its time".to_owned()),
        };
        Some(Self { operation: operation.to_owned(), reason, why, origin: origin.clone() })
    }
}
