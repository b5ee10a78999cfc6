//! Write operators for data flow graphs as the preview of the contract had them: `tinykube-graph:processor@1.0.0`.
//!
//! For operators that exist already. It is used as `wasm_graph_sdk` is, which has what there is to read; here an operator
//! returns its result as it is, and has no error to answer with. New operators are written with `wasm_graph_sdk`.

/// The attributes that make a function an operator.
pub mod macros {
    pub use wasm_graph_sdk_macros::{
        preview_accumulate_operator as accumulate_operator, preview_branch_operator as branch_operator,
        preview_delay_operator as delay_operator, preview_filter_operator as filter_operator,
        preview_map_operator as map_operator,
    };
}

#[path = "../../sdk/src/helpers.rs"]
mod helpers;
#[path = "../../sdk/src/state_store.rs"]
pub mod state_store;

/// What the host offers, as generated from the contract.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit-preview",
        world: "tinykube-graph:processor/operator-imports",
        generate_all,
    });
    // The shared sources know the contract by its later name.
    pub use tinykube_graph as wasm_graph;
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
        Buffer, BufferOrBytes, BufferOrString, DataModel, InlineSchema, Message, MessageProperties,
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
                    path: "../wit-preview",
                    world: $world,
                    pub_export_macro: true,
                    with: {
                        "tinykube-graph:processor/hybrid-logical-clock@1.0.0":
                            crate::bindings::tinykube_graph::processor::hybrid_logical_clock,
                        "tinykube-graph:processor/types@1.0.0": crate::bindings::tinykube_graph::processor::types,
                        "tinykube-graph:processor/logger@1.0.0": crate::bindings::tinykube_graph::processor::logger,
                        "tinykube-graph:processor/metrics@1.0.0": crate::bindings::tinykube_graph::processor::metrics,
                        "tinykube-graph:processor/state-store@1.0.0": crate::bindings::tinykube_graph::processor::state_store,
                        "tinykube-graph:processor/state-store-types@1.0.0":
                            crate::bindings::tinykube_graph::processor::state_store_types,
                    },
                });
                pub use self::exports::tinykube_graph::processor::$name::Guest;
            }
        )*};
    }

    worlds! {
        map "tinykube-graph:processor/map-impl";
        filter "tinykube-graph:processor/filter-impl";
        branch "tinykube-graph:processor/branch-impl";
        accumulate "tinykube-graph:processor/accumulate-impl";
        delay "tinykube-graph:processor/delay-impl";
    }
}
