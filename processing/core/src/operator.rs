//! What an operation of a graph does with data: the five kinds of operator (AIO.md §1.4).
//!
//! Sources, sinks and concatenate have no operator; the engine itself is all they need.

use crate::item::Data;
use crate::time::Hlc;

/// The code of one operation. An operation calls only the method of its own kind.
pub trait Operator: Send {
    /// The memory that it uses, bytes.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// map: one out for each in.
    fn map(&mut self, data: Data) -> Result<Data, OperatorError> {
        let _ = data;
        Err(OperatorError::NotExported("map"))
    }

    /// filter: whether the item goes on.
    fn filter(&mut self, data: &Data) -> Result<bool, OperatorError> {
        let _ = data;
        Err(OperatorError::NotExported("filter"))
    }

    /// branch: which arm the item takes. `time` is its logical time.
    fn branch(&mut self, time: &Hlc, data: &Data) -> Result<bool, OperatorError> {
        let _ = (time, data);
        Err(OperatorError::NotExported("branch"))
    }

    /// accumulate: what was combined so far together with `batch`. At first `staged` is a message with an empty
    /// payload.
    fn accumulate(&mut self, staged: &Data, batch: &[Data]) -> Result<Data, OperatorError> {
        let _ = (staged, batch);
        Err(OperatorError::NotExported("accumulate"))
    }

    /// delay: the item's new logical time, not before `time`, which is its present one.
    fn delay(&mut self, data: &Data, time: &Hlc) -> Result<Hlc, OperatorError> {
        let _ = (data, time);
        Err(OperatorError::NotExported("delay"))
    }
}

/// Why an operator gave no answer. The item it was called with is dropped; the graph goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The operator answered with the contract's `error`.
    #[error("{0}")]
    Failed(String),
    /// The operator's code stopped, and with it the instance, which is replaced.
    #[error("the operator trapped: {message}")]
    Trapped {
        /// What happened, in one line.
        message: String,
        /// The functions that were running, innermost first, if known.
        backtrace: Vec<String>,
    },
    /// The call took longer than it may; the instance is replaced.
    #[error("the call exceeded its deadline of {0:?}")]
    Deadline(std::time::Duration),
    /// The operator wanted more memory than it may have and then trapped; the instance is replaced.
    #[error("the operator exceeded its memory limit of {0} bytes")]
    Memory(usize),
    /// There is no instance at present: it is being restarted, or its restart failed.
    #[error("the operator is not running: {0}")]
    Unavailable(String),
    /// The operator's answer cannot be used.
    #[error("the operator's answer is invalid: {0}")]
    Invalid(String),
    /// The operation has no code of this kind.
    #[error("the operator has no `{0}`")]
    NotExported(&'static str),
}

impl OperatorError {
    /// One word for metrics and dead letters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed(_) => "error",
            Self::Trapped { .. } => "trap",
            Self::Deadline(_) => "deadline",
            Self::Memory(_) => "memory",
            Self::Unavailable(_) => "unavailable",
            Self::Invalid(_) => "invalid-answer",
            Self::NotExported(_) => "not-exported",
        }
    }

    /// Whether the operator's code came to an unexpected end (AIO.md §4.3, module fault).
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Trapped { .. } | Self::Deadline(_) | Self::Memory(_))
    }
}
