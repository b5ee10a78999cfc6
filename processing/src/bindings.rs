//! The contract in Rust, made from `processing/wit`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub use crate::host::Buffer;

wasmtime::component::bindgen!({
    path: "wit",
    world: "wasm-graph:processor/host",
    with: {
        "wasm-graph:processor/types.buffer": Buffer,
    },
    imports: { default: trappable },
});
