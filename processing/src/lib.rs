//! The WebAssembly host: operators as wasmtime components, modules, and the registries they come from.
//!
//! Nothing here knows MQTT or any broker: items in, items out. Guests get nothing they were not given: clocks
//! and randomness, the graph's log, metrics and state store; no files, no network, no environment.

pub mod bindings;
pub mod host;
mod imports;
pub mod instance;
mod lift;
pub mod limits;
mod log;
mod lower;
pub mod module;
#[cfg(feature = "wasi-nn")]
mod nn;
mod preview;
pub mod registry;
pub mod rpc;
pub mod runtime;
pub mod schema;
pub mod state_store;
mod telemetry;
mod ticker;
mod wasi;
