//! The graphs of forebay as a plugin inside an embedded rumqttd: the same resources, the same artifacts and the same engine, in
//! another broker.
//!
//! A graph is a client of the broker's router, by its in-process link: it subscribes to the filters of its sources, and
//! publishes what comes out. Each graph has a thread of its own, which also lets its windows close in time.
//! What this host cannot do is said when a graph is started ([`Limitation`]), and in the README beside this package.

mod flow;
mod letter;
mod message;
mod start;

pub use flow::Tally;
pub use start::{Fault, Limitation, Plugin, Protocol, Started};
