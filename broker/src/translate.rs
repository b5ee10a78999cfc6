//! Messages become items, and items messages again.

use std::sync::Arc;

use broker_core::hlc::{Timestamp, TimestampError};
use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, PublishProperties, QoS, Role};
use broker_core::{Millis, topic};
use bytes::Bytes;
use processing_core::item::{self, Data, Item};
use processing_core::time::Hlc;

use crate::broker::Broker;
use crate::clock;
use crate::pipeline::Exit;
use crate::pipeline::origin::Origins;

/// The user property that carries a message's timestamp (AIO.md §4.2).
pub const TIMESTAMP: &str = "__ts";

/// The reason of a message whose time was over.
pub const EXPIRED: &str = "expired";

/// Why a message does not enter a graph, or what it became does not leave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its time was over before the graph came to it.
    #[error("it has expired")]
    Expired,
    /// `__ts` is there and cannot be used.
    #[error("its user property __ts cannot be used: {0}")]
    Timestamp(#[from] TimestampError),
    /// A message with a later `__ts` has entered already, and the graph wants them in order.
    #[error("it came too late: one with a later __ts has been passed on already")]
    OutOfOrder,
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
            Self::Expired => EXPIRED,
            Self::Timestamp(TimestampError::Drift) => "timestamp-ahead",
            Self::Timestamp(_) => "timestamp-malformed",
            Self::OutOfOrder => "late",
            Self::Destination(_) => "destination",
            Self::Topic(_) => "topic",
            Self::Property(_) => "property",
        }
    }
}

/// What every item carries through a graph: the message it was derived from.
#[derive(Debug, Clone)]
pub struct Carry {
    /// The message; of several, the latest.
    pub origin: Arc<Message>,
    /// It stands for several: what belongs to one of them only is nobody's.
    combined: bool,
    qos: QoS,
    /// Where what it was derived from is in the log.
    pub origins: Origins,
}

impl Carry {
    /// For a message on its way into a graph.
    pub fn of(origin: &Arc<Message>, origins: &Origins) -> Self {
        Self { qos: origin.qos, origin: Arc::clone(origin), combined: false, origins: origins.clone() }
    }

    /// Goes on with no higher QoS than this.
    pub fn limit_qos(&mut self, qos_max: QoS) {
        self.qos = self.qos.min(qos_max);
    }

    /// Stands for another message, too: with the QoS of the one that has the highest.
    pub fn combine(&mut self, later: Self) {
        self.origins.combine(later.origins);
        (self.qos, self.combined, self.origin) = (self.qos.max(later.qos), true, later.origin);
    }
}

/// What a graph sees of a message (AIO.md §1.6); `schema` is that of the connection it comes by, `wall` the time it is there.
pub fn item(
    message: &Arc<Message>,
    origins: &Origins,
    schema: Option<&item::MessageSchema>,
    broker: &Broker,
    wall: Millis,
) -> Result<Item<Carry>, Refused> {
    if message.expiry.is_some() && message.expiry_left(clock::monotonic()) == Some(0) {
        return Err(Refused::Expired);
    }
    let properties = properties(message);
    let stamp = match properties.user_property(TIMESTAMP) {
        Some(text) => {
            let stamp = Timestamp::parse(text)?;
            broker.observe(&stamp, wall)?;
            stamp
        }
        // The same each time that it comes out of the log.
        None => match origins.first() {
            Some(number) => Timestamp { ms: wall.0, counter: number, ..broker.timestamp(wall) },
            None => broker.timestamp(wall),
        },
    };
    let timestamp = hlc(&stamp);
    let user_properties = match properties.user_properties_count > 0 {
        true => properties.user_properties().map(|(k, v)| (copy(k), copy(v))).collect(),
        false => Vec::new(),
    };
    let data = Data::Message(item::Message {
        timestamp: timestamp.clone(),
        topic: copy(message.topic()),
        content_type: properties.content_type.map(copy),
        payload: message.shared_payload(),
        user_properties,
        schema: schema.cloned(),
    });
    Ok(Item { time: timestamp, data, carry: Carry::of(message, origins) })
}

/// The message that an item becomes: the item's bytes, and beside them what the message it was derived from
/// had: QoS, retain flag, response topic, correlation data and expiry. An item that stands for several messages has
/// the QoS only.
pub fn message(item: Item<Carry>, exit: &Exit, broker: &Broker, wall: Millis) -> Result<Message, Refused> {
    let Carry { origin, combined, qos, .. } = item.carry;
    let mut made = match item.data {
        Data::Message(message) => message,
        Data::Snapshot(snapshot) => bare(snapshot.timestamp, snapshot.frame, &origin),
        Data::Bytes(payload) => bare(item.time, payload, &origin),
    };
    let output = std::str::from_utf8(&made.topic).map_err(|_| Refused::Property("topic"))?;
    let topic = exit
        .topic
        .render(origin.topic(), Some(output))
        .ok_or_else(|| Refused::Destination(exit.topic.to_string()))?;
    exit.apply_headers(&mut made.user_properties);
    topic::validate_name(&topic).map_err(|_| Refused::Topic(topic.clone()))?;
    let kept = (!combined).then_some(&*origin);
    let (properties, expiry_offset) = encode_properties(&made, kept, broker, wall)?;
    let mut message = Message::new(topic.into(), properties.into(), made.payload, origin.received);
    message.expiry_offset = expiry_offset;
    message.expiry = kept.and_then(|origin| origin.expiry);
    message.qos = qos;
    message.retain = kept.is_some_and(|origin| origin.retain);
    message.hops = origin.hops.saturating_add(1);
    Ok(message)
}

/// Why a message could not be processed.
#[derive(Debug)]
pub struct Letter<'a> {
    /// The DataflowGraph.
    pub graph: &'a str,
    /// The operation where it ended; empty when it did not get into the graph, or not out.
    pub operation: &'a str,
    /// The cause, in one word.
    pub reason: &'a str,
    /// The cause, in a sentence.
    pub why: &'a str,
    /// The digest of the operation's module.
    pub digest: Option<&'a str>,
}

/// Longest explanation in a dead letter, bytes.
const WHY_BYTES_MAX: usize = 1024;

/// What becomes of a message that could not be processed (DESIGN: processing errors keep the message): its own bytes
/// and properties, and what happened to it as user properties.
pub fn dead_letter(origin: &Message, topic: &str, letter: &Letter<'_>) -> Result<Message, Refused> {
    let why = &letter.why[..letter.why.floor_char_boundary(WHY_BYTES_MAX)];
    let told = [
        ("dead-letter-topic", origin.topic()),
        ("dead-letter-graph", letter.graph),
        ("dead-letter-operation", letter.operation),
        ("dead-letter-module", letter.digest.unwrap_or_default()),
        ("dead-letter-reason", letter.reason),
        ("dead-letter-cause", why),
        ("dead-letter-attempt", "1"),
    ];
    copied(origin, topic, &told)
}

/// The user property that a copy of a message is known by: the topic that the message came by.
const SAMPLE: &str = "sample-topic";

/// Whether a message is a copy itself.
pub fn is_sample(message: &Message) -> bool {
    properties(message).user_property(SAMPLE).is_some()
}

/// The copy of a message that came into a graph, for those who look for a fault: its own bytes and properties, and the topic it
/// came by as a user property.
pub fn sample(origin: &Message, topic: &str) -> Result<Message, Refused> {
    copied(origin, topic, &[(SAMPLE, origin.topic())])
}

/// A message as it is, on another topic and with more user properties; those that are empty are left out. It does not expire
/// where it waits for somebody to look at it; the property stays as it came.
fn copied(origin: &Message, topic: &str, more: &[(&str, &str)]) -> Result<Message, Refused> {
    topic::validate_name(topic).map_err(|_| Refused::Topic(topic.to_owned()))?;
    let mut out = PropertiesBuilder::new();
    for (key, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
        out.put(Property::UserProperty((key, value))).map_err(|_| Refused::Property("user property"))?;
    }
    let properties = [origin.properties(), &out.into_bytes()].concat();
    let mut message =
        Message::new(topic.to_owned().into(), properties.into(), origin.shared_payload(), origin.received);
    message.qos = origin.qos;
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
    origin: Option<&Message>,
    broker: &Broker,
    wall: Millis,
) -> Result<(Vec<u8>, Option<usize>), Refused> {
    let kept = origin.map(properties).unwrap_or_default();
    let stamped = made.user_properties.iter().any(|(key, _)| key == TIMESTAMP);
    // What graphs publish carries a timestamp.
    let stamp =
        (!stamped).then(|| stamp(&made.timestamp).unwrap_or_else(|| broker.timestamp(wall)).to_string());
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
    if let Some(stamp) = &stamp {
        put(Property::UserProperty((TIMESTAMP, stamp)), "user property")?;
    }
    let expiry = origin.and_then(|origin| origin.expiry);
    if let Some(expiry) = expiry {
        put(Property::MessageExpiryInterval(expiry), "message expiry")?;
    }
    let bytes = out.into_bytes();
    let expiry_offset = expiry.map(|_| bytes.len() - 4); // it was put last
    Ok((bytes, expiry_offset))
}

/// The properties of a message that the codec has checked already.
pub fn properties(message: &Message) -> PublishProperties<'_> {
    PublishProperties::parse(message.properties(), Role::Client).unwrap_or_default()
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn utf8<'a>(bytes: &'a Bytes, name: &'static str) -> Result<&'a str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| Refused::Property(name))
}

/// A timestamp as graphs have it.
pub fn hlc(stamp: &Timestamp) -> Hlc {
    Hlc {
        secs: stamp.ms / 1000,
        nanos: u32::try_from(stamp.ms % 1000).unwrap_or(0) * 1_000_000,
        counter: stamp.counter,
        node: Arc::clone(&stamp.node),
    }
}

/// A time as messages carry it. The wire form knows milliseconds only. `None` for a node that it cannot carry.
pub fn stamp(hlc: &Hlc) -> Option<Timestamp> {
    let ms = hlc.secs.checked_mul(1000)?.checked_add(u64::from(hlc.nanos) / 1_000_000)?;
    (!hlc.node.contains(':')).then(|| Timestamp { ms, counter: hlc.counter, node: Arc::clone(&hlc.node) })
}
