//! What the broker itself answers: requests that clients publish, with the answer on the response topic.

pub mod call;
pub mod command_invoker;
pub mod schema_registry;
pub mod state_store;

use std::sync::Arc;

use broker_core::message::Message;

use crate::broker::Broker;

/// Something that answers what is published to its topic.
pub trait Service: Send + Sync {
    /// Answers a request: what is to be published goes to `emit`.
    fn answer(&self, request: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>));

    /// The connection of a session is gone; `session` is its number.
    fn disconnected(&self, session: u64) {
        let _ = session;
    }
}
