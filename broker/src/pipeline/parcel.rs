//! Messages become parcels, and parcels messages.

use std::time::{Duration, Instant};

use bridge::Parcel;
use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, QoS};
use broker_core::topic;
use bytes::Bytes;

use crate::clock;
use crate::translate::{Refused, properties};

/// The parcel that a message becomes.
pub fn of(message: &Message) -> Parcel {
    let properties = properties(message);
    let text = |text: Option<&str>| text.map(ToOwned::to_owned);
    let expiry = message.expiry_left(clock::monotonic());
    Parcel {
        topic: message.topic().to_owned(),
        payload: message.shared_payload(),
        qos: message.qos as u8,
        retain: message.retain,
        utf8: properties.payload_format,
        content_type: text(properties.content_type),
        response_topic: text(properties.response_topic),
        correlation_data: properties.correlation_data.map(Bytes::copy_from_slice),
        expires: expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into())),
        user_properties: properties.user_properties().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// The message that a parcel becomes.
///
/// # Errors
/// It has something that no message of MQTT can carry.
pub fn message(parcel: &Parcel) -> Result<Message, Refused> {
    topic::validate_name(&parcel.topic).map_err(|_| Refused::Topic(parcel.topic.clone()))?;
    let mut out = PropertiesBuilder::new();
    let mut put = |property, name| out.put(property).map(|_| ()).map_err(|_| Refused::Property(name));
    if let Some(utf8) = parcel.utf8 {
        put(Property::PayloadFormatIndicator(utf8), "payload format")?;
    }
    if let Some(content_type) = &parcel.content_type {
        put(Property::ContentType(content_type), "content type")?;
    }
    if let Some(response_topic) = &parcel.response_topic {
        put(Property::ResponseTopic(response_topic), "response topic")?;
    }
    if let Some(data) = &parcel.correlation_data {
        put(Property::CorrelationData(data), "correlation data")?;
    }
    for (key, value) in &parcel.user_properties {
        put(Property::UserProperty((key, value)), "user property")?;
    }
    let expiry = parcel.expiry_left(Instant::now());
    if let Some(expiry) = expiry {
        put(Property::MessageExpiryInterval(expiry), "message expiry")?;
    }
    let bytes = out.into_bytes();
    let expiry_offset = expiry.map(|_| bytes.len() - 4); // it was put last
    let topic = Bytes::copy_from_slice(parcel.topic.as_bytes());
    let mut message = Message::new(topic, bytes.into(), parcel.payload.clone(), clock::monotonic());
    message.expiry_offset = expiry_offset;
    message.expiry = expiry;
    message.retain = parcel.retain;
    message.qos = match parcel.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parcel_says_is_what_its_message_says() {
        let mut parcel = Parcel {
            topic: "a/b".to_owned(),
            payload: Bytes::from_static(b"payload"),
            qos: 1,
            retain: true,
            utf8: Some(true),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers".to_owned()),
            correlation_data: Some(Bytes::from_static(&[0, 255])),
            expires: Some(Instant::now() + Duration::from_secs(60)),
            user_properties: vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())],
        };
        let mut again = of(&message(&parcel).unwrap());
        let left = again.expires.take().unwrap() - parcel.expires.take().unwrap();
        assert!(left < Duration::from_secs(1), "{left:?}");
        assert_eq!(again, parcel);
    }

    #[test]
    fn what_no_message_can_carry_is_refused() {
        let wild = Parcel { topic: "a/#".to_owned(), ..Parcel::default() };
        assert_eq!(message(&wild).unwrap_err(), Refused::Topic("a/#".to_owned()));
        let long = vec![("k".to_owned(), "x".repeat(65_536))];
        let long = Parcel { topic: "a".to_owned(), user_properties: long, ..Parcel::default() };
        assert_eq!(message(&long).unwrap_err(), Refused::Property("user property"));
    }
}
