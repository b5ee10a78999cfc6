//! Messages become items, and items messages again.

use std::sync::Arc;

use broker_core::hlc::{Timestamp, TimestampError};
use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, PublishProperties, Role};
use broker_core::{Millis, topic};
use bytes::Bytes;
use config::Template;
use processing_core::item::{self, Data, Item};
use processing_core::time::Hlc;

use crate::broker::Broker;
use crate::clock;

/// The user property that carries a message's timestamp (AIO.md §4.2).
pub const TIMESTAMP: &str = "__ts";

/// Why a message does not enter a graph, or what it became does not leave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its time was over before the graph came to it.
    #[error("it has expired")]
    Expired,
    /// `__ts` is there and cannot be used.
    #[error("its user property __ts cannot be used: {0}")]
    Timestamp(#[from] TimestampError),
    /// The destination's topic could not be made.
    #[error("the destination `{0}` has a variable that this message has no value for")]
    Destination(String),
    /// The topic is none that a message may have.
    #[error("`{0}` is no topic to publish on")]
    Topic(String),
    /// Text that is not UTF-8, or is too long for an MQTT property.
    #[error("its {0} does not fit an MQTT property")]
    Property(&'static str),
}

impl Refused {
    /// The label on metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Timestamp(TimestampError::Drift) => "timestamp-ahead",
            Self::Timestamp(_) => "timestamp-malformed",
            Self::Destination(_) => "destination",
            Self::Topic(_) => "topic",
            Self::Property(_) => "property",
        }
    }
}

/// What a graph sees of a message (AIO.md §1.6).
pub fn item(message: &Arc<Message>, broker: &Broker, wall: Millis) -> Result<Item<Arc<Message>>, Refused> {
    if message.expiry_left(clock::monotonic()) == Some(0) {
        return Err(Refused::Expired);
    }
    let properties = properties(message);
    let stamp = match properties.user_property(TIMESTAMP) {
        Some(text) => {
            let stamp = Timestamp::parse(text)?;
            broker.observe(&stamp, wall)?;
            stamp
        }
        None => broker.timestamp(wall),
    };
    let timestamp = hlc(&stamp);
    let user_properties = match properties.has_user_properties {
        true => properties.user_properties().map(|(k, v)| (copy(k), copy(v))).collect(),
        false => Vec::new(),
    };
    let data = Data::Message(item::Message {
        timestamp: timestamp.clone(),
        topic: copy(message.topic()),
        content_type: properties.content_type.map(copy),
        payload: message.shared_payload(),
        user_properties,
        schema: None,
    });
    Ok(Item { time: timestamp, data, carry: Arc::clone(message) })
}

/// The message that an item becomes: the item's bytes, and beside them what the message it was derived from
/// had: QoS, retain flag, response topic, correlation data and expiry.
pub fn message(
    item: Item<Arc<Message>>,
    destination: &Template,
    broker: &Broker,
    wall: Millis,
) -> Result<Message, Refused> {
    let origin = item.carry;
    let made = match item.data {
        Data::Message(message) => message,
        Data::Snapshot(snapshot) => bare(snapshot.timestamp, snapshot.frame, &origin),
        Data::Bytes(payload) => bare(item.time, payload, &origin),
    };
    let output = std::str::from_utf8(&made.topic).map_err(|_| Refused::Property("topic"))?;
    let topic = destination
        .render(origin.topic(), Some(output))
        .ok_or_else(|| Refused::Destination(destination.to_string()))?;
    topic::validate_name(&topic).map_err(|_| Refused::Topic(topic.clone()))?;
    let (properties, expiry_offset) = encode_properties(&made, &origin, broker, wall)?;
    let mut message = Message::new(topic.into(), properties.into(), made.payload, origin.received);
    message.expiry_offset = expiry_offset;
    message.expiry = origin.expiry;
    message.qos = origin.qos;
    message.retain = origin.retain;
    message.hops = origin.hops.saturating_add(1);
    Ok(message)
}

fn bare(timestamp: Hlc, payload: Bytes, origin: &Message) -> item::Message {
    item::Message {
        timestamp,
        topic: copy(origin.topic()),
        content_type: None,
        payload,
        user_properties: Vec::new(),
        schema: None,
    }
}

fn encode_properties(
    made: &item::Message,
    origin: &Message,
    broker: &Broker,
    wall: Millis,
) -> Result<(Vec<u8>, Option<usize>), Refused> {
    let kept = properties(origin);
    let stamped = made.user_properties.iter().any(|(key, _)| key == TIMESTAMP);
    let stamp = match stamp(&made.timestamp) {
        Some(stamp) => stamp.to_string(),
        None => broker.timestamp(wall).to_string(),
    };
    let mut out = PropertiesBuilder::new();
    let mut put = |property, name| out.put(property).map(|_| ()).map_err(|_| Refused::Property(name));
    // Text stays text only if the graph left it that way.
    if kept.payload_format == Some(true) && std::str::from_utf8(&made.payload).is_ok() {
        put(Property::PayloadFormatIndicator(true), "payload format")?;
    }
    if let Some(content_type) = &made.content_type {
        put(Property::ContentType(utf8(content_type, "content type")?), "content type")?;
    }
    if let Some(response_topic) = kept.response_topic {
        put(Property::ResponseTopic(response_topic), "response topic")?;
    }
    if let Some(data) = kept.correlation_data {
        put(Property::CorrelationData(data), "correlation data")?;
    }
    for (key, value) in &made.user_properties {
        let (key, value) = (utf8(key, "user property")?, utf8(value, "user property")?);
        put(Property::UserProperty((key, value)), "user property")?;
    }
    if !stamped {
        // What graphs publish carries a timestamp.
        put(Property::UserProperty((TIMESTAMP, &stamp)), "user property")?;
    }
    let mut expiry_offset = None;
    if let Some(expiry) = origin.expiry {
        put(Property::MessageExpiryInterval(expiry), "message expiry")?;
    }
    let bytes = out.into_bytes();
    if origin.expiry.is_some() {
        expiry_offset = Some(bytes.len() - 4); // it was put last
    }
    Ok((bytes, expiry_offset))
}

/// The properties of a message that the codec has checked already.
fn properties(message: &Message) -> PublishProperties<'_> {
    PublishProperties::parse(message.properties(), Role::Client).unwrap_or_default()
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn utf8<'a>(bytes: &'a Bytes, name: &'static str) -> Result<&'a str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| Refused::Property(name))
}

fn hlc(stamp: &Timestamp) -> Hlc {
    Hlc {
        secs: stamp.ms / 1000,
        nanos: u32::try_from(stamp.ms % 1000).unwrap_or(0) * 1_000_000,
        counter: stamp.counter,
        node: Arc::clone(&stamp.node),
    }
}

/// The wire form knows milliseconds only. `None` for a node that it cannot carry.
fn stamp(hlc: &Hlc) -> Option<Timestamp> {
    let ms = hlc.secs.checked_mul(1000)?.checked_add(u64::from(hlc.nanos) / 1_000_000)?;
    (!hlc.node.contains(':')).then(|| Timestamp { ms, counter: hlc.counter, node: Arc::clone(&hlc.node) })
}
