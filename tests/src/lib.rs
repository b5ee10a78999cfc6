//! What the black-box tests stand on: a forebay process, hand-made MQTT bytes, mosquitto's clients, a real registry.
//!
//! Every helper panics with a sentence when the world is not as the test needs it: a test has no better answer. Nothing
//! here waits for a fixed time; [`wait`] polls a condition and gives up, loudly, after a long while.
//!
//! Does not know: forebay's code. What is checked is what a user has: the executable, its output, its sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod artifact;
pub mod azurite;
pub mod bystander;
pub mod collector;
pub mod conversation;
pub mod forebay;
pub mod front;
pub mod http;
pub mod https;
pub mod kafka;
pub mod ledger;
pub mod lives;
pub mod metric;
pub mod mosquitto;
pub mod mosquitto_broker;
pub mod mqtt;
pub mod operators;
pub mod outage;
pub mod pki;
pub mod place;
pub mod process;
pub mod proxy;
pub mod random;
pub mod registry;
pub mod resources;
pub mod wait;

/// The root of the repository.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}
