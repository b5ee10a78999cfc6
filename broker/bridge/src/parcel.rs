//! A message between this broker and a remote system.

use std::time::Instant;

use bytes::Bytes;

/// A message between this broker and a remote system, with what MQTT 5 says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// Towards MQTT, the topic to publish on; towards others, the topic that the graph gave it. Coming in, the topic it
    /// came from.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The remote broker is to keep it as its topic's retained message.
    pub retain: bool,
    /// The payload is said to be UTF-8 text (payload format indicator 1).
    pub utf8: Option<bool>,
    /// The content type.
    pub content_type: Option<String>,
    /// The response topic.
    pub response_topic: Option<String>,
    /// The correlation data.
    pub correlation_data: Option<Bytes>,
    /// When it is of no use any more.
    pub expires: Option<Instant>,
    /// User properties in their order; keys may come several times.
    pub user_properties: Vec<(String, String)>,
}

impl Parcel {
    /// The first user property of this name.
    pub fn user_property(&self, name: &str) -> Option<&str> {
        self.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Seconds until it is of no use any more, rounded up; 0 when it is of none; nothing when it always is.
    pub fn expiry_left(&self, now: Instant) -> Option<u32> {
        let left = self.expires?.saturating_duration_since(now);
        let rounded_up = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(rounded_up).unwrap_or(u32::MAX))
    }

    /// Whether it is of no use any more.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// What it takes in memory, about, bytes.
    pub fn size(&self) -> usize {
        const FIXED: usize = size_of::<Parcel>();
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let properties: usize = self.user_properties.iter().map(|(k, v)| k.len() + v.len() + 48).sum();
        FIXED
            + self.topic.len()
            + self.payload.len()
            + text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + properties
    }
}
