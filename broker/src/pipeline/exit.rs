//! Where what comes out of a graph goes: a topic of this broker, or the queue in front of a remote system.

use bridge::{Full, Receipt, Sender};
use broker_core::message::Message;
use broker_core::packet::QoS;
use bytes::Bytes;
use config::resource::endpoint::{CloudEventAttributes, Retain};
use config::resource::graph::HeaderAction;
use config::{DestinationPlan, System};

use super::origin::Origins;
use super::parcel;

/// Where a sink of the graph leads to, and what is done to messages on the way out.
pub struct Exit {
    /// The topic of what goes there.
    pub topic: config::Template,
    /// What is done to user properties, in that order.
    pub headers: Vec<HeaderAction>,
    /// The remote system; nothing for this broker.
    pub queue: Option<Sender>,
    /// The QoS of messages for this broker, where it is not that which they have.
    pub qos: Option<QoS>,
    /// Messages for this broker lose their retain flag.
    pub clears_retain: bool,
    /// What becomes of the CloudEvents attributes of messages for this broker.
    pub cloud_events: Option<CloudEventAttributes>,
    /// The name of the destination.
    pub name: String,
}

impl Exit {
    /// The one that a plan describes, but for its queue.
    pub fn of(plan: &DestinationPlan<'_>) -> Self {
        // A bridge does what a remote endpoint says by itself.
        let local = match &plan.system {
            System::Local(settings) => Some(settings),
            System::Remote(_) => None,
        };
        Self {
            topic: plan.topic.clone(),
            headers: plan.headers.to_vec(),
            queue: None,
            qos: local.and_then(|settings| settings.qos).and_then(QoS::from_bits),
            clears_retain: local.is_some_and(|settings| settings.retain == Retain::Never),
            cloud_events: local.and_then(|settings| settings.cloud_event_attributes),
            name: plan.node.to_owned(),
        }
    }

    /// Does to user properties what the destination's `headers` say.
    pub fn apply_headers(&self, properties: &mut Vec<(Bytes, Bytes)>) {
        let pair = |key: &String, value: &String| (key.clone().into(), value.clone().into());
        for action in &self.headers {
            match action {
                HeaderAction::AddIfNotPresent { key, value } => {
                    if !properties.iter().any(|(name, _)| *name == *key) {
                        properties.push(pair(key, value));
                    }
                }
                HeaderAction::AddOrReplace { key, value } => {
                    properties.retain(|(name, _)| *name != *key);
                    properties.push(pair(key, value));
                }
                HeaderAction::Remove { key } => properties.retain(|(name, _)| *name != *key),
            }
        }
    }

    /// The message as it goes out.
    pub fn dress(&self, mut message: Message) -> Message {
        message.retain &= !self.clears_retain;
        message.qos = self.qos.unwrap_or(message.qos);
        let Some(attributes) = self.cloud_events else { return message };
        let mut parcel = parcel::of(&message);
        let topic = parcel.topic.clone();
        bridge::cloud_events::apply(&mut parcel, attributes, &self.name, &topic);
        match parcel::message(&parcel) {
            Ok(mut dressed) => {
                dressed.hops = message.hops;
                dressed
            }
            // Longer than a property may be: it goes out as it is.
            Err(_) => message,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_added_replaced_and_removed_in_their_order() {
        let text = |text: &str| text.to_owned();
        let exit = Exit {
            topic: config::Template::parse("t").unwrap(),
            headers: vec![
                HeaderAction::AddIfNotPresent { key: text("a"), value: text("2") },
                HeaderAction::AddIfNotPresent { key: text("b"), value: text("2") },
                HeaderAction::AddOrReplace { key: text("c"), value: text("2") },
                HeaderAction::Remove { key: text("d") },
            ],
            queue: None,
            qos: None,
            clears_retain: false,
            cloud_events: None,
            name: String::new(),
        };
        let pair = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
        let mut properties = vec![pair("a", "1"), pair("c", "1"), pair("c", "1b"), pair("d", "1")];
        exit.apply_headers(&mut properties);
        assert_eq!(properties, [pair("a", "1"), pair("b", "2"), pair("c", "2")]);
    }
}
