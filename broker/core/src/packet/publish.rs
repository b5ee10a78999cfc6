//! PUBLISH (v5 §3.3): read in place, and forwarded from stored bytes.

use std::borrow::Cow;

use super::ack::packet_id;
use super::error::{DecodeError, EncodeError, ErrorKind};
use super::property::{Place, Properties, Property, Seen, USER_PROPERTY};
use super::wire::Reader;
use super::{Limits, PacketId, PacketType, QoS, Role, Version};
use crate::topic;

mod forward;

pub use forward::{Delivery, Encoded, Forward};

/// An application message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether this may be a repetition; never with QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Received: the message is to be retained. Sent: it was retained.
    pub retain: bool,
    /// Topic name; empty only where a topic alias stands for it.
    pub topic: &'a str,
    /// Packet identifier, exactly with QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties; none in v3.
    pub properties: PublishProperties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH: the bytes, and what a server wants to know of them, found in the one pass that
/// checks them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    all: Properties<'a>,
    /// Topic alias.
    pub topic_alias: Option<u16>,
    /// Message expiry interval, seconds.
    pub message_expiry: Option<u32>,
    /// Where the four bytes of the message expiry interval begin in [`as_bytes`](Self::as_bytes).
    pub expiry_offset: Option<usize>,
    /// Whether the sender says that the payload is UTF-8; `None` where it says nothing.
    pub payload_format: Option<bool>,
    /// How many user properties there are.
    pub user_properties_count: usize,
    /// Whether there is at least one subscription identifier.
    pub has_subscription_identifiers: bool,
    /// Response topic.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// Content type.
    pub content_type: Option<&'a str>,
}

impl<'a> Publish<'a> {
    /// `first` is the first byte of the packet, its QoS and DUP flag checked.
    #[inline(always)] // so that it is built where `decode` returns it
    pub(super) fn decode(
        first: u8,
        body: &'a [u8],
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let qos = QoS::from_bits(first >> 1 & 0b11).ok_or(DecodeError::malformed("a PUBLISH has QoS 3"))?; // [MQTT-3.3.1-4]
        let name = reader.binary()?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,            // [MQTT-2.2.1-2]
            _ => Some(packet_id(&mut reader)?), // [MQTT-2.2.1-3]
        };
        let properties = if version.is_v5() {
            PublishProperties::parse(reader.property_span()?, limits.from)?
        } else {
            PublishProperties::default()
        };
        let topic = if name.is_empty() && properties.topic_alias.is_some() {
            "" // v5 §3.3.2.1: the alias says what it is.
        } else if name.is_empty() && version.is_v5() {
            return Err(DecodeError::protocol("a PUBLISH has neither a topic name nor a topic alias"));
        } else {
            topic_name(name, limits)?
        };
        Ok(Self {
            dup: first & 0b1000 != 0 && qos != QoS::AtMostOnce, // 3.1 lets it be set, without a meaning
            qos,
            retain: first & 0b0001 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Whether the payload is what the payload format indicator says: UTF-8 where it is 1 (v5 §3.3.2.3.2).
    /// Not part of decoding, because a server need not look.
    ///
    /// # Errors
    /// The error to answer QoS 1 and 2 with (0x99).
    pub fn check_payload_format(&self) -> Result<(), DecodeError> {
        if self.properties.payload_format == Some(true) && std::str::from_utf8(self.payload).is_err() {
            let what = "a payload that is said to be UTF-8 is not";
            return Err(DecodeError::new(ErrorKind::PayloadFormatInvalid, what));
        }
        Ok(())
    }

    /// Appends the packet with all its properties as they are. A server that passes messages on uses
    /// [`Forward`].
    ///
    /// # Errors
    /// A packet identifier missing with QoS 1 and 2, or fields that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.topic.is_empty() || !version.is_v5() || self.properties.topic_alias.is_none() {
            topic::validate_name(self.topic).map_err(|error| EncodeError::new(error.what()))?;
        }
        let forward = Forward {
            topic: self.topic.as_bytes(),
            properties: self.properties.as_bytes(),
            expiry_offset: None,
            payload: self.payload,
        };
        let delivery = Delivery {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            packet_id: self.packet_id,
            ..Delivery::default()
        };
        forward.encode(version, &delivery, out).map(|_| ())
    }
}

/// A topic name out of its bytes, checked in full.
#[inline]
pub(super) fn topic_name<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, DecodeError> {
    // [MQTT-3.3.2-1]
    let name = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::malformed("a topic name is not well-formed UTF-8"))?;
    // [MQTT-3.3.2-2]
    topic::validate_name(name).map_err(|error| DecodeError::malformed(error.what()))?;
    if !topic::within_levels(name, limits.topic_levels_max) {
        return Err(DecodeError::new(ErrorKind::TopicNameInvalid, "a topic name has too many levels"));
    }
    Ok(name)
}

impl<'a> PublishProperties<'a> {
    /// Takes the encoded properties of a PUBLISH (without their length) after checking each of them.
    ///
    /// # Errors
    /// The same as for a received PUBLISH of that sender.
    #[inline]
    pub fn parse(span: &'a [u8], from: Role) -> Result<Self, DecodeError> {
        if span.is_empty() { Ok(Self::default()) } else { Self::parse_some(span, from) }
    }

    fn parse_some(span: &'a [u8], from: Role) -> Result<Self, DecodeError> {
        let mut found = Self { all: Properties::trusted(span), ..Self::default() };
        let mut seen = Seen::default();
        let mut reader = Reader::new(span);
        while let Some(&id) = reader.rest().first() {
            if id == USER_PROPERTY {
                // The one that comes most, may always stand here, and is not looked at yet.
                reader.u8()?;
                reader.skip_text()?;
                reader.skip_text()?;
                found.user_properties_count += 1;
                continue;
            }
            let property = Property::read(&mut reader)?;
            seen.check(&property, Place::Packet(PacketType::Publish))?;
            found.note(property, span.len() - reader.rest().len());
        }
        if found.has_subscription_identifiers && from == Role::Client {
            // [MQTT-3.3.4-6]
            return Err(DecodeError::protocol("a client's PUBLISH has a subscription identifier"));
        }
        Ok(found)
    }

    /// Notes one property, which ended `end` bytes into the span.
    #[inline]
    fn note(&mut self, property: Property<'a>, end: usize) {
        match property {
            Property::SubscriptionIdentifier(_) => self.has_subscription_identifiers = true,
            Property::TopicAlias(alias) => self.topic_alias = Some(alias),
            Property::MessageExpiryInterval(seconds) => {
                self.message_expiry = Some(seconds);
                self.expiry_offset = Some(end - size_of::<u32>());
            }
            Property::PayloadFormatIndicator(utf8) => self.payload_format = Some(utf8),
            Property::ResponseTopic(topic) => self.response_topic = Some(topic),
            Property::CorrelationData(data) => self.correlation_data = Some(data),
            Property::ContentType(content_type) => self.content_type = Some(content_type),
            _ => {} // user properties were noted, and no other is allowed here
        }
    }

    /// The encoded properties, without their length in front.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.all.as_bytes()
    }

    /// The same as a plain list.
    #[inline]
    pub const fn all(&self) -> Properties<'a> {
        self.all
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// User properties in the order of the packet.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let all = if self.user_properties_count > 0 { self.all } else { Properties::EMPTY };
        all.user_properties()
    }

    /// Value of the first user property of this name.
    pub fn user_property(&self, name: &str) -> Option<&'a str> {
        self.user_properties().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Subscription identifiers in the order of the packet; only servers send them.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let all = if self.has_subscription_identifiers { self.all } else { Properties::EMPTY };
        all.subscription_identifiers()
    }

    /// The properties that a server passes on, unaltered and in order `[MQTT-3.3.2-4]`, `[MQTT-3.3.2-15]`,
    /// `[MQTT-3.3.2-16]`, `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`: all but the topic alias, which belongs to one connection `[MQTT-3.3.2-7]`, and
    /// subscription identifiers, which belong to one subscriber.
    #[inline]
    pub fn forwardable(&self) -> Forwardable<'a> {
        if self.topic_alias.is_none() && !self.has_subscription_identifiers {
            return Forwardable { bytes: Cow::Borrowed(self.as_bytes()), expiry_offset: self.expiry_offset };
        }
        Forwardable::of(self.all, |property| {
            !matches!(property, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_))
        })
    }
}

/// Encoded properties that may stand in a forwarded PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwardable<'a> {
    /// The properties, without their length in front: a slice of what was received unless something had to be cut
    /// out of its middle.
    pub bytes: Cow<'a, [u8]>,
    /// Where the four bytes of the message expiry interval begin in `bytes`.
    pub expiry_offset: Option<usize>,
}

impl<'a> Forwardable<'a> {
    /// Keeps what `keep` says.
    pub(super) fn of(properties: Properties<'a>, keep: impl Fn(&Property<'a>) -> bool) -> Self {
        let span = properties.as_bytes();
        let mut forwardable = Forwardable::default();
        let mut iter = properties.iter();
        let mut start = 0;
        let mut kept = 0..0; // the last run of bytes that is kept and not in `bytes` yet
        while let Some(property) = iter.next() {
            let end = span.len() - iter.bytes_left();
            if keep(&property) {
                if kept.end != start && !kept.is_empty() {
                    forwardable.bytes.to_mut().extend_from_slice(&span[kept.clone()]);
                }
                kept = if kept.end == start && !kept.is_empty() { kept.start..end } else { start..end };
                if let Property::MessageExpiryInterval(_) = property {
                    let behind = forwardable.bytes.len() + kept.len();
                    forwardable.expiry_offset = Some(behind - size_of::<u32>());
                }
            }
            start = end;
        }
        if forwardable.bytes.is_empty() {
            forwardable.bytes = Cow::Borrowed(&span[kept]);
        } else {
            forwardable.bytes.to_mut().extend_from_slice(&span[kept]);
        }
        forwardable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{PropertiesBuilder, decode};

    fn span(properties: &[Property<'_>]) -> Vec<u8> {
        let mut builder = PropertiesBuilder::new();
        for property in properties {
            builder.put(*property).unwrap();
        }
        builder.into_bytes()
    }

    const ALIAS: Property<'_> = Property::TopicAlias(7);
    const ID: Property<'_> = Property::SubscriptionIdentifier(300);
    const EXPIRY: Property<'_> = Property::MessageExpiryInterval(0x0102_0304);
    const USER: Property<'_> = Property::UserProperty(("name", "value"));

    /// What is kept of `properties`, after checking that it is what is left without alias and identifiers.
    fn kept(properties: &[Property<'static>]) -> (bool, Option<usize>) {
        let span = span(properties);
        let parsed = PublishProperties::parse(&span, Role::Server).unwrap();
        let kept = parsed.forwardable();
        let wanted: Vec<_> = properties
            .iter()
            .filter(|property| {
                !matches!(property, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_))
            })
            .collect();
        let left = Properties::parse(&kept.bytes, Place::Packet(PacketType::Publish)).unwrap();
        assert!(left.iter().eq(wanted.into_iter().copied()), "{left:?}");
        if let Some(offset) = kept.expiry_offset {
            assert_eq!(kept.bytes[offset..offset + 4], [1, 2, 3, 4]);
        }
        (matches!(kept.bytes, Cow::Borrowed(_)), kept.expiry_offset)
    }

    #[test]
    fn what_is_forwarded_is_borrowed_unless_its_middle_is_cut_out() {
        assert_eq!(kept(&[]), (true, None));
        assert_eq!(kept(&[USER, EXPIRY]), (true, Some(15)));
        assert_eq!(kept(&[ALIAS, USER, EXPIRY]), (true, Some(15)));
        assert_eq!(kept(&[EXPIRY, USER, ID, ALIAS]), (true, Some(1)));
        assert_eq!(kept(&[ID, ID, EXPIRY, ALIAS, ID]), (true, Some(1)));
        assert_eq!(kept(&[ALIAS, ID]), (true, None));
        assert_eq!(kept(&[USER, ALIAS, EXPIRY]), (false, Some(15)));
        assert_eq!(kept(&[EXPIRY, ID, USER, ID, USER, ALIAS]), (false, Some(1)));
    }

    #[test]
    fn the_summary_is_what_the_properties_say() {
        let span = span(&[
            USER,
            Property::ContentType("text/plain"),
            EXPIRY,
            Property::PayloadFormatIndicator(true),
            Property::UserProperty(("name", "again")),
            Property::ResponseTopic("reply"),
            Property::CorrelationData(b"\0"),
            ALIAS,
        ]);
        let properties = PublishProperties::parse(&span, Role::Client).unwrap();
        assert_eq!(properties.content_type, Some("text/plain"));
        assert_eq!(properties.message_expiry, Some(0x0102_0304));
        let at = properties.expiry_offset.unwrap();
        assert_eq!(span[at..at + 4], [1, 2, 3, 4]);
        assert_eq!(properties.payload_format, Some(true));
        assert_eq!(properties.response_topic, Some("reply"));
        assert_eq!(properties.correlation_data, Some(&b"\0"[..]));
        assert_eq!(properties.topic_alias, Some(7));
        assert_eq!(properties.user_property("name"), Some("value"));
        assert_eq!(properties.user_property("other"), None);
        assert!(properties.user_properties().eq([("name", "value"), ("name", "again")]));
        assert!(!properties.has_subscription_identifiers);
    }

    #[test]
    fn a_payload_is_held_against_its_format_only_when_asked() {
        let bytes = |format: u8| [&[0x30, 7, 0, 1, b't', 2, 1, format][..], b"\xff"].concat();
        for (format, answer) in [(0, Ok(())), (1, Err(ErrorKind::PayloadFormatInvalid))] {
            let bytes = bytes(format);
            let decoded = decode(&bytes, Version::V5, &Limits::server(100)).unwrap();
            let crate::packet::Decoded::Packet(crate::packet::Packet::Publish(publish), 9) = decoded else {
                panic!("{decoded:?}")
            };
            assert_eq!(publish.check_payload_format().map_err(|error| error.kind), answer);
        }
    }

    #[test]
    fn a_publish_that_nobody_could_read_is_not_written() {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: PublishProperties::default(),
            payload: b"",
        };
        let mut out = Vec::new();
        for broken in [
            Publish { topic: "", ..publish },
            Publish { topic: "a/#", ..publish },
            Publish { qos: QoS::AtLeastOnce, ..publish },
        ] {
            assert!(broken.encode(Version::V5, &mut out).is_err() && out.is_empty());
        }
        publish.encode(Version::V311, &mut out).unwrap();
        assert_eq!(out, [0x30, 3, 0, 1, b't']);
    }
}
