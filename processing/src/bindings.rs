//! The contract in Rust, made from `processing/wit`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub use crate::host::Buffer;
pub use crate::rpc::{CommandInvoker, Options, OptionsBuilder, Request, RequestBuilder};

wasmtime::component::bindgen!({
    path: "wit",
    world: "wasm-graph:processor/host",
    with: {
        "wasm-graph:processor/types.buffer": Buffer,
        "wasm-graph:processor/rpc-types.command-request-builder": RequestBuilder,
        "wasm-graph:processor/rpc-types.command-request": Request,
        "wasm-graph:processor/rpc-types.command-invoker-options-builder": OptionsBuilder,
        "wasm-graph:processor/rpc-types.command-invoker-options": Options,
        "wasm-graph:processor/command-invoker.command-invoker": CommandInvoker,
    },
    imports: { default: trappable },
});
