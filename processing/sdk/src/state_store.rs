//! The broker's key-value store.

use crate::bindings::wasm_graph::processor::state_store as host;

pub use crate::bindings::wasm_graph::processor::hybrid_logical_clock::{HybridLogicalClock, Timespec};
pub use crate::bindings::wasm_graph::processor::state_store_types::{
    Duration, SetConditions, SetOptions, StateStoreDelResponse, StateStoreError, StateStoreGetResponse,
    StateStoreSetResponse,
};
pub use host::{del, get, vdel};

/// Unconditional, without expiry.
impl Default for SetOptions {
    fn default() -> Self {
        Self { conditions: SetConditions::Unconditional, expires: None }
    }
}

/// Sets `key`, as far as the options' condition allows. `response` says whether it was set.
///
/// # Errors
/// What the store refuses, in its own words.
pub fn set(
    key: &[u8],
    value: &[u8],
    timeout: Option<Duration>,
    fencing_token: Option<&HybridLogicalClock>,
    options: SetOptions,
) -> Result<StateStoreSetResponse, StateStoreError> {
    host::set(key, value, timeout, fencing_token, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_without_options_is_set_whatever_is_there_and_stays() {
        let options = SetOptions::default();
        assert!(matches!(options.conditions, SetConditions::Unconditional));
        assert!(options.expires.is_none());
    }
}
