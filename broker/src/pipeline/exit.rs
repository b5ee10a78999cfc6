//! Where what comes out of a graph goes: a topic of this broker, or the queue in front of a remote system.

use bridge::{Full, Receipt, Sender};
use broker_core::message::Message;

use super::origin::Origins;
use super::parcel;

/// Where a sink of a graph leads to.
pub struct Exit {
    /// The topic of what goes there.
    pub topic: config::Template,
    /// The remote system; nothing for this broker.
    pub queue: Option<Sender>,
}

/// Queues a message for a remote system; what it was made of is done when it is delivered. False when it is in memory only and
/// there is no room for it.
pub(super) fn ship(queue: &Sender, message: &Message, origins: &Origins) -> bool {
    let parcel = parcel::of(message);
    if origins.is_none() {
        return queue.send(parcel, Receipt::none()).is_ok();
    }
    if let Err(Full(back)) = queue.insist(parcel, Receipt::keep(origins.clone())) {
        // The flow is being stopped. What it was made of must not count as done: it comes again from where it came.
        std::mem::forget(back.1);
    }
    true
}
