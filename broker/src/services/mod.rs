//! What the broker itself answers: requests that clients publish, with the answer on the response topic.

pub mod call;
pub mod command_invoker;
pub mod schema_registry;
pub mod state_store;

use std::sync::Arc;

use broker_core::message::Message;

use crate::auth::access::Access;
use crate::broker::Broker;

/// What whoever sent a request may do; nothing when that is everything, as for graphs.
pub fn access_of(request: &Message, broker: &Broker) -> Option<Arc<Access>> {
    broker.client(request.publisher)?.lock().access.clone()
}

/// Something that answers what is published to its topic.
pub trait Service: Send + Sync {
    /// Answers a request: what is to be published goes to `emit`.
    fn answer(&self, request: &Arc<Message>, broker: &Broker, emit: &mut dyn FnMut(Arc<Message>));

    /// The connection of a session is gone; `session` is its number.
    fn disconnected(&self, session: u64) {
        let _ = session;
    }
}
