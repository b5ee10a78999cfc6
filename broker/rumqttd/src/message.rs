//! What rumqttd forwards becomes items, and items become what it is given to publish.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use config::Template;
use processing_core::item::{self, Data, Item, MessageSchema};
use processing_core::time::Hlc;
use rumqttd::protocol::{Packet, Publish, PublishProperties};

/// The user property that carries a message's timestamp (AIO.md §4.2).
const TIMESTAMP: &str = "__ts";
/// How far ahead of this machine's clock a timestamp may be, milliseconds.
const DRIFT_MS_MAX: u64 = 60_000;

/// A message as it came: what an item carries through a graph.
#[derive(Debug, Clone)]
pub struct Origin(pub Arc<Arrived>);

/// A message as it came.
#[derive(Debug)]
pub struct Arrived {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// What MQTT 5 says of it; nothing of what a 3.1.1 client publishes.
    pub properties: PublishProperties,
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A message as it came.
pub fn arrived(publish: Publish, properties: Option<PublishProperties>) -> Result<Arrived, &'static str> {
    let topic = String::from_utf8(publish.topic.to_vec()).map_err(|_| "its topic is no UTF-8")?;
    let properties = properties.unwrap_or_else(nothing);
    Ok(Arrived { topic, payload: publish.payload, properties })
}

fn nothing() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        subscription_identifiers: Vec::new(),
        content_type: None,
    }
}

/// The item that a message becomes; `counter` tells apart those of one millisecond that say no time of their own.
///
/// # Errors
/// Its timestamp cannot be used.
pub fn item(
    arrived: &Arc<Arrived>,
    schema: Option<&MessageSchema>,
    node: &Arc<str>,
    counter: u64,
) -> Result<Item<Origin>, &'static str> {
    let wall = wall_ms();
    let said = arrived.properties.user_properties.iter().find(|(key, _)| key == TIMESTAMP);
    let time = match said {
        Some((_, text)) => {
            let time = parse(text).ok_or("its user property __ts is no timestamp")?;
            if time.secs.saturating_mul(1000) > wall + DRIFT_MS_MAX {
                return Err("its user property __ts is too far ahead");
            }
            time
        }
        None => of_ms(wall, counter, node),
    };
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let properties = &arrived.properties;
    let data = Data::Message(item::Message {
        timestamp: time.clone(),
        topic: copy(&arrived.topic),
        content_type: properties.content_type.as_deref().map(copy),
        payload: arrived.payload.clone(),
        user_properties: properties.user_properties.iter().map(|(k, v)| (copy(k), copy(v))).collect(),
        schema: schema.cloned(),
    });
    Ok(Item { time, data, carry: Origin(Arc::clone(arrived)) })
}

/// `ms:counter:node`, with any number of digits.
fn parse(text: &str) -> Option<Hlc> {
    let mut parts = text.splitn(3, ':');
    let ms: u64 = parts.next()?.parse().ok()?;
    let counter = parts.next()?.parse().ok()?;
    let node = parts.next().filter(|node| !node.is_empty())?;
    Some(of_ms(ms, counter, &Arc::from(node)))
}

fn of_ms(ms: u64, counter: u64, node: &Arc<str>) -> Hlc {
    let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    Hlc { secs: ms / 1000, nanos, counter, node: Arc::clone(node) }
}

fn text_of(time: &Hlc) -> String {
    let ms = time.secs.saturating_mul(1000).saturating_add(u64::from(time.nanos) / 1_000_000);
    format!("{ms:015}:{:05}:{}", time.counter, time.node)
}

/// What is published of an item.
///
/// # Errors
/// Why it cannot be.
pub fn packet(item: Item<Origin>, destination: &Template) -> Result<Packet, String> {
    let origin = &item.carry.0;
    let text = |bytes: &[u8], what: &str| {
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("its {what} is no UTF-8"))
    };
    let (time, made_topic, content_type, payload, made) = match item.data {
        Data::Message(made) => {
            (made.timestamp, made.topic, made.content_type, made.payload, made.user_properties)
        }
        Data::Snapshot(made) => (made.timestamp, origin.topic.clone().into(), None, made.frame, Vec::new()),
        Data::Bytes(payload) => (item.time, origin.topic.clone().into(), None, payload, Vec::new()),
    };
    let made_topic = text(&made_topic, "topic")?;
    let topic = destination.render(&origin.topic, Some(&made_topic));
    let topic =
        topic.ok_or_else(|| format!("the destination `{destination}` has a variable without a value"))?;
    if topic.is_empty() || topic.contains(['#', '+', '\0']) {
        return Err(format!("`{topic}` is no topic to publish on"));
    }
    let mut user_properties = Vec::with_capacity(made.len() + 1);
    for (key, value) in &made {
        user_properties.push((text(key, "user property")?, text(value, "user property")?));
    }
    if !user_properties.iter().any(|(key, _)| key == TIMESTAMP) {
        user_properties.push((TIMESTAMP.to_owned(), text_of(&time)));
    }
    let content_type = content_type.map(|bytes| text(&bytes, "content type")).transpose()?;
    let said = &origin.properties;
    let utf8 = said.payload_format_indicator.filter(|_| std::str::from_utf8(&payload).is_ok());
    let properties = PublishProperties {
        payload_format_indicator: utf8,
        message_expiry_interval: said.message_expiry_interval,
        response_topic: said.response_topic.clone(),
        correlation_data: said.correlation_data.clone(),
        user_properties,
        content_type,
        ..nothing()
    };
    Ok(Packet::Publish(Publish::new(Bytes::from(topic), payload, false), Some(properties)))
}

/// The message that keeps another with what happened to it.
pub fn kept(origin: &Arrived, topic: &str, told: &[(&str, &str)]) -> Packet {
    let mut user_properties = origin.properties.user_properties.clone();
    user_properties.extend(told.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let properties = PublishProperties {
        user_properties,
        content_type: origin.properties.content_type.clone(),
        ..nothing()
    };
    Packet::Publish(
        Publish::new(Bytes::from(topic.to_owned()), origin.payload.clone(), false),
        Some(properties),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_any_width_and_written_in_one() {
        let time = parse("1500:7:a:b").unwrap();
        assert_eq!((time.secs, time.nanos, time.counter, &*time.node), (1, 500_000_000, 7, "a:b"));
        assert_eq!(text_of(&time), "000000000001500:00007:a:b");
        for wrong in ["", "1", "1:2", "1:2:", "x:1:n", "-1:1:n"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
