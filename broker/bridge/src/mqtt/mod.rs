//! Remote MQTT brokers, MQTT 5 and 3.1.1 (AIO.md §5.2).
//!
//! The client is our own, on the codec of `broker-core`: acknowledgements are given when what was derived is delivered, in the
//! order that MQTT wants, and nothing is queued twice. Libraries acknowledge on receipt or keep queues of their own.

mod destination;
mod link;
mod session;
mod settings;
mod source;

pub use destination::MqttDestination;
pub use source::MqttSource;

/// The user property that counts over how many bridges a message came.
pub const HOPS: &str = "forebay-hops";
/// The user property that names the process whose bridge was the first.
pub const ORIGIN: &str = "forebay-origin";
/// Over so many bridges a message may go: more is taken for a loop.
pub const HOPS_MAX: u32 = 16;
