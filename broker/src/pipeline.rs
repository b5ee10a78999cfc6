//! Between the broker's messages and the graphs' items.
use std::sync::Arc;
use broker_core::Millis;
use broker_core::message::Message;
use crate::broker::Broker;

/// A graph's subscription.
#[derive(Debug)]
pub struct Source {}

impl Source {
    /// Runs a message through the graph.
    pub fn push(&self, _message: &Arc<Message>, _broker: &Broker, _now: Millis, _emit: &mut dyn FnMut(Arc<Message>)) {}
}
