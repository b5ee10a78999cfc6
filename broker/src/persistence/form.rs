//! What things look like in the log, which knows neither MQTT nor this process's clock.

use std::sync::OnceLock;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::packet::QoS;
use bytes::Bytes;

use crate::clock;

/// When the process began, by both clocks: what the log says in wall time counts on.
fn offset_ms() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| clock::wall().0.cast_signed() - clock::monotonic().0.cast_signed())
}

/// Wall time as it is written down.
pub fn to_wall(moment: Millis) -> u64 {
    moment.0.saturating_add_signed(offset_ms())
}

/// A moment that was written down, on the clock that everything counts with.
pub fn from_wall(wall: u64) -> Millis {
    Millis(wall.saturating_add_signed(-offset_ms()))
}

/// A message as it is written down.
pub fn stored(message: &Message) -> broker_store::Message {
    let (topic, properties) = (message.topic().as_bytes(), message.properties());
    let mut all = Vec::with_capacity(message.size());
    all.extend_from_slice(topic);
    all.extend_from_slice(properties);
    all.extend_from_slice(message.payload());
    let all = Bytes::from(all);
    let head = topic.len() + properties.len();
    broker_store::Message {
        topic: all.slice(..topic.len()),
        properties: all.slice(topic.len()..head),
        payload: all.slice(head..),
        expiry_offset: message.expiry_offset.and_then(|offset| u32::try_from(offset).ok()),
        expiry: message.expiry,
        qos: message.qos as u8,
        retain: message.retain,
        received: to_wall(message.received),
        hops: message.hops,
    }
}

/// A message as it was written down.
pub fn message_of(stored: &broker_store::Message) -> Message {
    let broker_store::Message { topic, properties, payload, .. } = stored;
    let received = from_wall(stored.received);
    let mut message = Message::new(topic.clone(), properties.clone(), payload.clone(), received);
    message.expiry_offset = stored.expiry_offset.map(|offset| offset as usize);
    message.expiry = stored.expiry;
    message.qos = qos(stored.qos);
    message.retain = stored.retain;
    message.hops = stored.hops;
    message
}

/// A QoS as it was written down.
pub fn qos(code: u8) -> QoS {
    match code {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// A subscription's options as they are written down: flags, then the identifier.
pub fn options_bytes(options: &broker_core::router::Options) -> Bytes {
    let flags =
        options.qos as u8 | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3;
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&options.identifier.unwrap_or(0).to_le_bytes());
    bytes.into()
}

/// A subscription's options as they were written down.
pub fn options_of(bytes: &[u8], persisted: bool) -> broker_core::router::Options {
    let flags = bytes.first().copied().unwrap_or(0);
    let identifier = bytes.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    broker_core::router::Options {
        qos: qos(flags & 3),
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        identifier: (identifier != 0).then_some(identifier),
        order: None,
        persisted,
    }
}
