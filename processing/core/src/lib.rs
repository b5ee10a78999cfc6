//! Operator graphs: what they look like, and how items move through them.
//!
//! A [`graph::Graph`] is a checked topology. An [`engine::Engine`] steps items through it, from a source, operation by
//! operation, to sinks, calling one [`operator::Operator`] per operation. Whatever leaves the graph, at a sink or
//! because it was dropped, is handed to an [`engine::Outlet`].
//!
//! Not known here: WebAssembly, MQTT, files, sockets, threads and clocks. Time is an argument, an operator is a trait
//! object, and what a message brought along that operators do not see (its QoS, whom to acknowledge) is carried
//! beside the data without being looked at.

pub mod engine;
pub mod graph;
pub mod item;
pub mod operator;
pub mod time;
