//! One application message: borrowed while it crosses the broker, owned once somebody must keep it.

use std::sync::Arc;

use bytes::Bytes;

use crate::Millis;
use crate::memory::Weight;
use crate::outbox::SHARE_BYTES_MIN;
use crate::packet::publish::{Delivery, Encoded, Forward};
use crate::packet::{PacketId, PropertiesBuilder, QoS, Version};

/// A message that is kept: retained, queued, in flight, or on its way through a graph.
#[derive(Debug, Clone)]
pub struct Message {
    body: Body,
    /// Where in the properties the four bytes of the message expiry interval are.
    pub expiry_offset: Option<usize>,
    /// Seconds that the message lives after `received`.
    pub expiry: Option<u32>,
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
    weight: Weight,
}

/// What a message takes in memory beyond its bytes, about.
pub const OVERHEAD_BYTES: usize = 128;

/// Topic, properties and payload; most messages are small and lie in one piece.
#[derive(Debug, Clone)]
enum Body {
    /// One piece: topic, then properties, then payload.
    Whole { bytes: Box<[u8]>, topic: usize, properties: usize },
    /// Three pieces, the payload shared with whoever else holds it.
    Parts { topic: Bytes, properties: Bytes, payload: Bytes },
}

impl Message {
    /// A message with everything but its bytes left at "QoS 0, for ever, now".
    ///
    /// `topic` is a valid topic name; `properties` are those that are forwarded: no topic alias, no
    /// subscription identifier.
    pub fn new(topic: Bytes, properties: Bytes, payload: Bytes, received: Millis) -> Self {
        Self {
            weight: Weight::of(topic.len() + properties.len() + payload.len() + OVERHEAD_BYTES),
            body: Body::Parts { topic, properties, payload },
            expiry_offset: None,
            expiry: None,
            qos: QoS::AtMostOnce,
            retain: false,
            received,
            publisher: 0,
            hops: 0,
        }
    }

    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        match &self.body {
            Body::Parts { topic, properties, payload } => (topic, properties, payload),
            Body::Whole { bytes, topic, properties } => {
                let (head, payload) = bytes.split_at(topic + properties);
                let (topic, properties) = head.split_at(*topic);
                (topic, properties, payload)
            }
        }
    }

    /// The topic as text.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.parts().0).unwrap_or_default()
    }

    /// The forwarded properties, encoded.
    pub fn properties(&self) -> &[u8] {
        self.parts().1
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        self.parts().2
    }

    /// The application's bytes, to be shared; copied when they are few.
    pub fn shared_payload(&self) -> Bytes {
        match &self.body {
            Body::Parts { payload, .. } => payload.clone(),
            Body::Whole { .. } => Bytes::copy_from_slice(self.payload()),
        }
    }

    /// Bytes it holds, for limits.
    pub fn size(&self) -> usize {
        let (topic, properties, payload) = self.parts();
        topic.len() + properties.len() + payload.len()
    }

    /// The same message with one more user property; without it when that does not fit.
    pub fn with_user_property(&self, key: &str, value: &str) -> Self {
        let (topic, properties, _) = self.parts();
        let mut more = PropertiesBuilder::new();
        // Text that no property can carry is left out.
        let _ = more.put_user(key, value);
        let topic = Bytes::copy_from_slice(topic);
        let properties = Bytes::from([properties, more.as_bytes()].concat());
        let more = Self::new(topic, properties, self.shared_payload(), self.received);
        Self { body: more.body, weight: more.weight, ..self.clone() }
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
        let (topic, properties, payload) = self.parts();
        Forward { topic, properties, expiry_offset: self.expiry_offset, payload }
    }
}

/// A message on its way to its subscribers: borrowed from the read buffer (or from an owned message),
/// encoded at most once per shape, owned at most once however many subscribers keep it.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Topic, properties and payload.
    pub forward: Forward<'a>,
    topic: Option<&'a str>,
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
        topic: &'a str,
        properties: &'a [u8],
        expiry_offset: Option<usize>,
        payload: &'a [u8],
        received: Millis,
    ) -> Self {
        Self {
            forward: Forward { topic: topic.as_bytes(), properties, expiry_offset, payload },
            topic: Some(topic),
            expiry: None,
            qos: QoS::AtMostOnce,
            retain: false,
            received,
            publisher: 0,
            hops: 0,
            owned: None,
        }
    }

    /// A message that is kept already.
    pub fn of(message: &'a Arc<Message>) -> Self {
        Self {
            forward: message.forward(),
            topic: None,
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
    pub fn topic(&self) -> &'a str {
        self.topic.unwrap_or_else(|| std::str::from_utf8(self.forward.topic).unwrap_or_default())
    }

    /// The message as something that may be kept. Copied from the read buffer the first time only.
    pub fn owned(&mut self) -> Arc<Message> {
        if let Some(message) = &self.owned {
            return Arc::clone(message);
        }
        let Forward { topic, properties, payload, .. } = self.forward;
        let message = Arc::new(Message {
            weight: Weight::of(topic.len() + properties.len() + payload.len() + OVERHEAD_BYTES),
            body: body(&self.forward),
            expiry_offset: self.forward.expiry_offset,
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

fn body(forward: &Forward<'_>) -> Body {
    let Forward { topic, properties, payload, .. } = *forward;
    if payload.len() >= SHARE_BYTES_MIN {
        return Body::Parts {
            topic: Bytes::copy_from_slice(topic),
            properties: Bytes::copy_from_slice(properties),
            payload: Bytes::copy_from_slice(payload),
        };
    }
    let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
    bytes.extend_from_slice(topic);
    bytes.extend_from_slice(properties);
    bytes.extend_from_slice(payload);
    Body::Whole { bytes: bytes.into(), topic: topic.len(), properties: properties.len() }
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
