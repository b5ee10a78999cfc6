//! What MQTT 5 says beside a payload, as headers of Kafka, and the reverse (AIO.md §7.5).

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::message::{Header, Headers, OwnedHeaders};

use crate::Parcel;

const FORMAT: &str = "Payload Format Indicator";
const RESPONSE_TOPIC: &str = "Response Topic";
const EXPIRY: &str = "Message Expiry Interval";
const CORRELATION: &str = "Correlation Data";
const CONTENT_TYPE: &str = "Content Type";
/// The user properties that a message's key and timestamp become.
const KEY: &str = "Key";
const TIMESTAMP: &str = "Timestamp";
/// Headers that long are left out: no property could carry them.
const VALUE_MAX: usize = 64 << 10;

/// The headers of a message to Kafka.
pub fn of(parcel: &Parcel, now: Instant) -> OwnedHeaders {
    let expiry = parcel.expiry_left(now).map(|seconds| seconds.to_string());
    let format = parcel.utf8.map(|utf8| if utf8 { "1" } else { "0" });
    let fixed = [
        (FORMAT, format.map(str::as_bytes)),
        (RESPONSE_TOPIC, parcel.response_topic.as_deref().map(str::as_bytes)),
        (EXPIRY, expiry.as_deref().map(str::as_bytes)),
        (CORRELATION, parcel.correlation_data.as_deref()),
        (CONTENT_TYPE, parcel.content_type.as_deref().map(str::as_bytes)),
    ];
    let fixed = fixed.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let own = parcel.user_properties.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let count = parcel.user_properties.len() + 5;
    fixed.chain(own).fold(OwnedHeaders::new_with_capacity(count), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}

/// Fills in what the headers of a message from Kafka say. What is no text, or too long, is left out.
pub fn read<H: Headers>(
    headers: Option<&H>,
    key: Option<&[u8]>,
    timestamp_ms: Option<i64>,
    parcel: &mut Parcel,
) {
    for header in headers.iter().flat_map(|headers| headers.iter()) {
        let Some(value) = header.value.filter(|value| value.len() < VALUE_MAX) else { continue };
        if header.key == CORRELATION {
            parcel.correlation_data = Some(Bytes::copy_from_slice(value));
            continue;
        }
        let Ok(text) = std::str::from_utf8(value) else { continue };
        match header.key {
            FORMAT => parcel.utf8 = Some(text == "1"),
            RESPONSE_TOPIC => parcel.response_topic = Some(text.to_owned()),
            CONTENT_TYPE => parcel.content_type = Some(text.to_owned()),
            EXPIRY => {
                parcel.expires =
                    text.parse().ok().map(|seconds| Instant::now() + Duration::from_secs(seconds))
            }
            key => parcel.user_properties.push((key.to_owned(), text.to_owned())),
        }
    }
    if let Some(key) = key.filter(|key| key.len() < VALUE_MAX).and_then(|key| std::str::from_utf8(key).ok()) {
        parcel.user_properties.push((KEY.to_owned(), key.to_owned()));
    }
    if let Some(timestamp_ms) = timestamp_ms {
        parcel.user_properties.push((TIMESTAMP.to_owned(), timestamp_ms.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_headers_say_of_a_message_is_what_was_said_of_it() {
        let now = Instant::now();
        let mut parcel = Parcel {
            utf8: Some(true),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers".to_owned()),
            correlation_data: Some(Bytes::from_static(&[0, 255])),
            expires: Some(now + Duration::from_secs(60)),
            user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
            ..Parcel::default()
        };
        let mut again = Parcel::default();
        read(Some(&of(&parcel, now)), Some(b"k"), Some(12), &mut again);
        let left = again.expires.take().unwrap() - parcel.expires.take().unwrap();
        assert!(left < Duration::from_secs(1), "{left:?}");
        for (key, value) in [("Key", "k"), ("Timestamp", "12")] {
            parcel.user_properties.push((key.to_owned(), value.to_owned()));
        }
        assert_eq!(again, parcel);
    }

    #[test]
    fn what_is_no_text_or_too_long_is_left_out() {
        let long = vec![b'x'; VALUE_MAX];
        let headers = [("bytes", &[0xff_u8][..]), ("long", &long), ("fits", &long[1..])];
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let mut parcel = Parcel::default();
        read(Some(&headers), Some(&[0xff]), None, &mut parcel);
        assert_eq!(parcel.user_properties.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["fits"]);
    }
}
