//! Write operators for data flow graphs.
//!
//! An operator is a function with an attribute from [`macros`]; the attribute brings the contract's types into
//! scope ([`prelude`]):
//!
//! ```ignore
//! use wasm_graph_sdk::logger::{self, Level};
//! use wasm_graph_sdk::macros::map_operator;
//!
//! fn start(configuration: ModuleConfiguration) -> bool {
//!     logger::log(Level::Info, "double", &format!("{} properties", configuration.properties.len()));
//!     true
//! }
//!
//! #[map_operator(init = "start")]
//! fn double(input: DataModel) -> Result<DataModel, Error> {
//!     let DataModel::Message(mut message) = input else {
//!         return Err(Error { message: "only messages here".to_owned() });
//!     };
//!     message.payload = BufferOrBytes::Bytes(message.payload.read().repeat(2));
//!     Ok(DataModel::Message(message))
//! }
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2` as a `cdylib`. A component may hold several
//! operators, each in a `mod` of its own.

pub use wasm_graph_sdk_macros as macros;

// Its tests run on the host, which has an allocator of its own.
#[cfg(any(test, all(feature = "allocator", target_arch = "wasm32", not(target_feature = "atomics"))))]
mod allocator;
mod helpers;
pub mod state_store;

#[cfg(all(feature = "allocator", target_arch = "wasm32", not(target_feature = "atomics")))]
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator::new();

/// What the host offers, as generated from the contract.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "wasm-graph:processor/operator-imports",
        generate_all,
    });
}

/// The host's log.
pub mod logger {
    pub use crate::bindings::wasm_graph::processor::logger::{Level, log};
}

/// The host's metrics.
pub mod metrics {
    pub use crate::bindings::wasm_graph::processor::metrics::{
        CounterValue, HistogramValue, Label, MetricsError, add_to_counter, record_to_histogram,
    };
}

/// What the attributes of [`macros`] bring into scope.
pub mod prelude {
    pub use crate::bindings::wasm_graph::processor::hybrid_logical_clock::{HybridLogicalClock, Timespec};
    pub use crate::bindings::wasm_graph::processor::types::{
        Buffer, BufferOrBytes, BufferOrString, DataModel, Error, InlineSchema, Message, MessageProperties,
        MessageSchema, ModuleConfiguration, ModuleSchema, Snapshot, Timestamp,
    };
    pub use std::time::Duration;
}

pub use prelude::*;

/// What the attributes expand to; not for use by hand.
#[doc(hidden)]
#[allow(missing_docs, clippy::all)]
pub mod export {
    macro_rules! worlds {
        ($($name:ident $world:literal;)*) => {$(
            pub mod $name {
                wit_bindgen::generate!({
                    path: "../wit",
                    world: $world,
                    pub_export_macro: true,
                    with: {
                        "wasm-graph:processor/hybrid-logical-clock@1.1.0":
                            crate::bindings::wasm_graph::processor::hybrid_logical_clock,
                        "wasm-graph:processor/types@1.1.0": crate::bindings::wasm_graph::processor::types,
                        "wasm-graph:processor/logger@1.1.0": crate::bindings::wasm_graph::processor::logger,
                        "wasm-graph:processor/metrics@1.1.0": crate::bindings::wasm_graph::processor::metrics,
                        "wasm-graph:processor/state-store@1.1.0": crate::bindings::wasm_graph::processor::state_store,
                        "wasm-graph:processor/state-store-types@1.1.0":
                            crate::bindings::wasm_graph::processor::state_store_types,
                    },
                });
                pub use self::exports::wasm_graph::processor::$name::Guest;
            }
        )*};
    }

    worlds! {
        map "wasm-graph:processor/map-impl";
        filter "wasm-graph:processor/filter-impl";
        branch "wasm-graph:processor/branch-impl";
        accumulate "wasm-graph:processor/accumulate-impl";
        delay "wasm-graph:processor/delay-impl";
    }
}
