//! What can be seen in the images of one window.
//!
//! Behaviour: AIO.md §3, "snapshot".

mod accumulate;
mod branch;
mod classifier;
mod map;

/// wasi-nn, which the SDK leaves to those who use it.
mod nn {
    wit_bindgen::generate!({
        path: "../../wit/deps/nn",
        world: "wasi:nn/ml",
        generate_all,
    });
}
