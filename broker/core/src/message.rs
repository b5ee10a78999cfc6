//! One application message: borrowed while it crosses the broker, owned once somebody must keep it.

use std::sync::Arc;

use bytes::Bytes;

use crate::Millis;
use crate::packet::publish::{Delivery, Encoded, Forward};
use crate::packet::{PacketId, QoS, Version};

/// A message that is kept: retained, queued, in flight, or on its way through a graph.
#[derive(Debug, Clone)]
pub struct Message {
    /// Topic name, valid UTF-8 without wildcards.
    pub topic: Bytes,
    /// The property bytes that are forwarded: no topic alias, no subscription identifier.
    pub properties: Bytes,
    /// Where in `properties` the four bytes of the message expiry interval are.
    pub expiry_offset: Option<usize>,
    /// Seconds that the message lives after `received`.
    pub expiry: Option<u32>,
    /// The application's bytes.
    pub payload: Bytes,
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// When the broker took it.
    pub received: Millis,
    /// The session that published it, for no-local.
    pub publisher: u64,
    /// How often it was derived from another message by a graph; 0 for what a client published.
    pub hops: u8,
}

impl Message {
    /// The topic as text.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }

    /// Bytes it holds, for limits.
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// Seconds left to live: `None` when it lives for ever, `Some(0)` when it has expired.
    pub fn expiry_left(&self, now: Millis) -> Option<u32> {
        self.expiry.map(|seconds| {
            let waited = now.0.saturating_sub(self.received.0) / 1000;
            u32::try_from(u64::from(seconds).saturating_sub(waited)).unwrap_or(0)
        })
    }

    /// What the codec needs to send it on.
    pub fn forward(&self) -> Forward<'_> {
        Forward {
            topic: &self.topic,
            properties: &self.properties,
            expiry_offset: self.expiry_offset,
            payload: &self.payload,
        }
    }
}

/// A message on its way to its subscribers: borrowed from the read buffer (or from an owned message),
/// encoded at most once per shape, owned at most once however many subscribers keep it.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Topic, properties and payload.
    pub forward: Forward<'a>,
    /// Seconds to live, at `received`.
    pub expiry: Option<u32>,
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// When the broker took it.
    pub received: Millis,
    /// The session that published it.
    pub publisher: u64,
    /// How often it was derived by a graph.
    pub hops: u8,
    owned: Option<Arc<Message>>,
}

impl<'a> Publication<'a> {
    /// A message straight from a read buffer.
    pub fn borrowed(
        forward: Forward<'a>,
        expiry: Option<u32>,
        qos: QoS,
        retain: bool,
        received: Millis,
        publisher: u64,
    ) -> Self {
        Self { forward, expiry, qos, retain, received, publisher, hops: 0, owned: None }
    }

    /// A message that is kept already.
    pub fn of(message: &'a Arc<Message>) -> Self {
        Self {
            forward: message.forward(),
            expiry: message.expiry,
            qos: message.qos,
            retain: message.retain,
            received: message.received,
            publisher: message.publisher,
            hops: message.hops,
            owned: Some(Arc::clone(message)),
        }
    }

    /// The topic as text.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.forward.topic).unwrap_or_default()
    }

    /// The message as something that may be kept. Copied from the read buffer the first time only.
    pub fn owned(&mut self) -> Arc<Message> {
        if let Some(message) = &self.owned {
            return Arc::clone(message);
        }
        let Forward { topic, properties, expiry_offset, payload } = &self.forward;
        let mut body = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        body.extend_from_slice(topic);
        body.extend_from_slice(properties);
        body.extend_from_slice(payload);
        let mut rest = Bytes::from(body);
        let message = Arc::new(Message {
            topic: rest.split_to(topic.len()),
            properties: rest.split_to(properties.len()),
            payload: rest,
            expiry_offset: *expiry_offset,
            expiry: self.expiry,
            qos: self.qos,
            retain: self.retain,
            received: self.received,
            publisher: self.publisher,
            hops: self.hops,
        });
        self.owned = Some(Arc::clone(&message));
        message
    }
}

/// The bytes of a PUBLISH that several subscribers share: encoded once, copied to each outbox, the packet
/// identifier patched in where there is one.
#[derive(Debug, Default)]
pub struct Frame {
    shape: Option<(Version, QoS, bool)>,
    bytes: Vec<u8>,
    encoded: Option<Encoded>,
}

impl Frame {
    /// Forgets what was encoded: the next message begins.
    pub fn clear(&mut self) {
        self.shape = None;
    }

    /// The frame of `forward` in this shape, encoded now unless the last call was for the same shape, and
    /// where in it the packet identifier goes. `None` when the message fits no packet.
    pub fn of(
        &mut self,
        forward: &Forward<'_>,
        version: Version,
        qos: QoS,
        retain: bool,
    ) -> Option<(&[u8], Encoded)> {
        if self.shape != Some((version, qos, retain)) {
            self.bytes.clear();
            let delivery = Delivery {
                qos,
                retain,
                packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::MIN),
                ..Delivery::default()
            };
            self.encoded = forward.encode(version, &delivery, &mut self.bytes).ok();
            self.shape = Some((version, qos, retain));
        }
        Some((&self.bytes, self.encoded?))
    }
}
