//! The hot path out: a PUBLISH written for one subscriber from bytes that were stored once.

use crate::packet::error::EncodeError;
use crate::packet::wire::{self, VARINT_MAX, varint_len};
use crate::packet::{PacketId, PacketType, QoS, Version};

const TOPIC_ALIAS: u8 = 0x23;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;

/// What all deliveries of one message have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'a> {
    /// Topic name; empty only where [`Delivery::topic_alias`] was announced before.
    pub topic: &'a [u8],
    /// Properties as [`forwardable`](super::PublishProperties::forwardable) gives them.
    pub properties: &'a [u8],
    /// Where the four bytes of the message expiry interval begin in `properties`.
    pub expiry_offset: Option<usize>,
    /// The message.
    pub payload: &'a [u8],
}

/// What one delivery has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Whether it was sent before `[MQTT-3.3.1-1]`, whatever the message came with `[MQTT-3.3.1-3]`, `[MQTT-4.3.2-2]`,
    /// `[MQTT-4.3.3-2]`; never with QoS 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// Packet identifier; required with QoS 1 and 2, not written with QoS 0.
    pub packet_id: Option<PacketId>,
    /// Seconds that the message still lives, written over the message expiry interval `[MQTT-3.3.2-6]`; `None`
    /// leaves it as it is. Ignored where the message has none.
    pub expiry_left: Option<u32>,
    /// Topic alias of the receiving connection, not 0.
    pub topic_alias: Option<u16>,
    /// Identifiers of the subscriptions that the message is for, not 0 `[MQTT-3.3.4-3]`.
    pub subscription_ids: &'a [u32],
}

/// Where an encoded packet stands in the output, so that it can be patched or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Index of the first byte, which holds the flags.
    pub start: usize,
    /// Index of the two bytes of the packet identifier.
    pub packet_id_offset: Option<usize>,
    /// Index of the four bytes of the message expiry interval.
    pub expiry_offset: Option<usize>,
    /// Index behind the last byte that was written; the payload, if it was left out, belongs here.
    pub end: usize,
}

impl Encoded {
    /// Writes another packet identifier into `out`. Nothing happens where the packet has none.
    #[inline]
    pub fn patch_packet_id(&self, out: &mut [u8], packet_id: PacketId) {
        patch(out, self.packet_id_offset, packet_id.get().to_be_bytes());
    }

    /// Writes another message expiry interval into `out`. Nothing happens where the packet has none.
    #[inline]
    pub fn patch_expiry(&self, out: &mut [u8], seconds: u32) {
        patch(out, self.expiry_offset, seconds.to_be_bytes());
    }

    /// Sets or clears the DUP flag in `out`.
    #[inline]
    pub fn patch_dup(&self, out: &mut [u8], dup: bool) {
        if let Some(first) = out.get_mut(self.start) {
            *first = *first & !DUP | if dup { DUP } else { 0 };
        }
    }
}

const DUP: u8 = 0b1000;

#[inline]
fn patch<const LEN: usize>(out: &mut [u8], at: Option<usize>, bytes: [u8; LEN]) {
    if let Some(place) = at.and_then(|at| out.get_mut(at..at.checked_add(LEN)?)) {
        place.copy_from_slice(&bytes);
    }
}

impl Forward<'_> {
    /// Appends the whole packet. In v3 properties, alias and subscription identifiers vanish.
    ///
    /// The topic is trusted to be a topic name and the properties to be forwardable ones.
    ///
    /// # Errors
    /// A topic of more than 65,535 bytes or none at all, a packet above the 256 MiB of the wire format, a missing
    /// packet identifier, a zero among aliases and subscription identifiers; `out` is then as it was.
    #[inline]
    pub fn encode(
        &self,
        version: Version,
        delivery: &Delivery<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        let sizes = self.sizes(version, delivery)?;
        out.reserve(sizes.total());
        let mut encoded = self.write_head(version, delivery, sizes, out);
        out.extend_from_slice(self.payload);
        encoded.end = out.len();
        Ok(encoded)
    }

    /// Appends everything but the payload, which the caller sends behind it from where it lies.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encode_head(
        &self,
        version: Version,
        delivery: &Delivery<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        let sizes = self.sizes(version, delivery)?;
        out.reserve(sizes.total() - self.payload.len());
        Ok(self.write_head(version, delivery, sizes, out))
    }

    /// Bytes of the whole packet, to be held against the receiver's maximum packet size `[MQTT-3.1.2-24]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encoded_len(&self, version: Version, delivery: &Delivery<'_>) -> Result<usize, EncodeError> {
        Ok(self.sizes(version, delivery)?.total())
    }

    #[inline]
    fn sizes(&self, version: Version, delivery: &Delivery<'_>) -> Result<Sizes, EncodeError> {
        let topic = u16::try_from(self.topic.len())
            .map_err(|_| EncodeError::new("a topic name is longer than 65,535 bytes"))?; // [MQTT-4.7.3-3]
        let mut remaining = 2 + self.topic.len() + self.payload.len();
        if delivery.qos != QoS::AtMostOnce {
            if delivery.packet_id.is_none() {
                return Err(EncodeError::new("a PUBLISH with QoS 1 or 2 has no packet identifier")); // [MQTT-2.2.1-4]
            }
            remaining += 2;
        }
        let mut properties = 0;
        if version.is_v5() {
            properties = self.properties.len() + delivery.own_properties_len()?;
            remaining += varint_len(properties) + properties;
        }
        if remaining > VARINT_MAX as usize {
            return Err(EncodeError::new("a packet is longer than its remaining length can say"));
        }
        Ok(Sizes { topic, properties, remaining })
    }

    #[inline]
    fn write_head(
        &self,
        version: Version,
        delivery: &Delivery<'_>,
        sizes: Sizes,
        out: &mut Vec<u8>,
    ) -> Encoded {
        let start = out.len();
        out.push(delivery.first_byte());
        push_varint(sizes.remaining, out);
        wire::put_u16(sizes.topic, out);
        out.extend_from_slice(self.topic);
        let mut encoded = Encoded { start, packet_id_offset: None, expiry_offset: None, end: 0 };
        if let (Some(packet_id), true) = (delivery.packet_id, delivery.qos != QoS::AtMostOnce) {
            encoded.packet_id_offset = Some(out.len());
            wire::put_u16(packet_id.get(), out);
        }
        if version.is_v5() {
            push_varint(sizes.properties, out);
            delivery.write_own_properties(out);
            encoded.expiry_offset = self.expiry_offset.map(|offset| out.len() + offset);
            out.extend_from_slice(self.properties);
            if let Some(seconds) = delivery.expiry_left {
                encoded.patch_expiry(out, seconds); // [MQTT-3.3.2-6]
            }
        }
        encoded.end = out.len();
        encoded
    }
}

impl Delivery<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        let dup = self.dup && self.qos != QoS::AtMostOnce; // [MQTT-3.3.1-2], [MQTT-4.3.1-1]
        PacketType::Publish.first_byte()
            | if dup { DUP } else { 0 }
            | (self.qos as u8) << 1
            | u8::from(self.retain)
    }

    #[inline]
    fn own_properties_len(&self) -> Result<usize, EncodeError> {
        let mut len = match self.topic_alias {
            None => 0,
            Some(0) => return Err(EncodeError::new("a topic alias is not 0")), // [MQTT-3.3.2-8]
            Some(_) => 3,
        };
        for &id in self.subscription_ids {
            if id == 0 || id > VARINT_MAX {
                return Err(EncodeError::new("a subscription identifier is out of range")); // v5 §3.3.2.3.8
            }
            len += 1 + varint_len(id as usize);
        }
        Ok(len)
    }

    #[inline]
    fn write_own_properties(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            out.push(TOPIC_ALIAS);
            wire::put_u16(alias, out);
        }
        for &id in self.subscription_ids {
            out.push(SUBSCRIPTION_IDENTIFIER);
            push_varint(id as usize, out);
        }
    }
}

/// Lengths that were found to fit.
#[derive(Clone, Copy)]
struct Sizes {
    topic: u16,
    properties: usize,
    remaining: usize,
}

impl Sizes {
    #[inline]
    const fn total(self) -> usize {
        1 + varint_len(self.remaining) + self.remaining
    }
}

/// As [`wire::put_varint`], for a value that is known to fit.
#[inline]
fn push_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User property a = b, then a message expiry interval of 9 seconds.
    const PROPERTIES: &[u8] = &[0x26, 0, 1, b'a', 0, 1, b'b', 2, 0, 0, 0, 9];
    const FORWARD: Forward<'_> =
        Forward { topic: b"t/u", properties: PROPERTIES, expiry_offset: Some(8), payload: b"hello" };

    fn qos1() -> Delivery<'static> {
        Delivery { qos: QoS::AtLeastOnce, packet_id: PacketId::new(0x0102), ..Delivery::default() }
    }

    #[test]
    fn a_message_is_written_for_each_version() {
        let mut out = Vec::new();
        FORWARD.encode(Version::V311, &Delivery::default(), &mut out).unwrap();
        assert_eq!(out, b"\x30\x0a\0\x03t/uhello");
        out.clear();
        let delivery =
            Delivery { dup: true, retain: true, subscription_ids: &[1, 128], topic_alias: Some(5), ..qos1() };
        FORWARD.encode(Version::V5, &delivery, &mut out).unwrap();
        let own = b"\x23\0\x05\x0b\x01\x0b\x80\x01";
        let expected = [&b"\x3b\x21\0\x03t/u\x01\x02\x14"[..], own, PROPERTIES, b"hello"].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn dup_and_identifier_are_not_written_with_qos_0() {
        let mut out = Vec::new();
        let delivery = Delivery { qos: QoS::AtMostOnce, dup: true, ..qos1() };
        let encoded = FORWARD.encode(Version::V311, &delivery, &mut out).unwrap();
        assert_eq!((out[0], encoded.packet_id_offset), (0x30, None)); // [MQTT-3.3.1-2], [MQTT-2.2.1-2]
    }

    #[test]
    fn what_was_written_can_be_patched_for_the_next_subscriber() {
        for version in [Version::V311, Version::V5] {
            let mut out = b"something before".to_vec();
            let encoded = FORWARD.encode(version, &qos1(), &mut out).unwrap();
            let id = PacketId::new(0xfffe).unwrap();
            encoded.patch_packet_id(&mut out, id);
            encoded.patch_expiry(&mut out, 3);
            encoded.patch_dup(&mut out, true);
            let mut expected = b"something before".to_vec();
            let delivery = Delivery { dup: true, packet_id: Some(id), expiry_left: Some(3), ..qos1() };
            FORWARD.encode(version, &delivery, &mut expected).unwrap();
            assert_eq!(out, expected);
            encoded.patch_dup(&mut out, false);
            assert_eq!(out[encoded.start], 0x32);
        }
    }

    #[test]
    fn a_patch_outside_the_bytes_changes_nothing() {
        let encoded =
            Encoded { start: 9, packet_id_offset: Some(1), expiry_offset: Some(usize::MAX), end: 9 };
        let mut out = [0, 0];
        encoded.patch_dup(&mut out, true);
        encoded.patch_packet_id(&mut out, PacketId::MAX);
        encoded.patch_expiry(&mut out, u32::MAX);
        assert_eq!(out, [0, 0]);
    }

    #[test]
    fn what_cannot_be_said_leaves_the_output_as_it_was() {
        let mut out = b"x".to_vec();
        let long = vec![b'a'; 65_536];
        let huge = vec![0; VARINT_MAX as usize];
        let plain = Delivery::default();
        for (forward, delivery) in [
            (Forward { topic: &long, ..FORWARD }, plain),
            (Forward { payload: &huge, ..FORWARD }, plain),
            (FORWARD, Delivery { packet_id: None, ..qos1() }),
            (FORWARD, Delivery { topic_alias: Some(0), ..plain }),
            (FORWARD, Delivery { subscription_ids: &[1, 0], ..plain }),
            (FORWARD, Delivery { subscription_ids: &[VARINT_MAX + 1], ..plain }),
        ] {
            assert!(forward.encode(Version::V5, &delivery, &mut out).is_err());
            assert!(forward.encode_head(Version::V5, &delivery, &mut out).is_err());
            assert!(forward.encoded_len(Version::V5, &delivery).is_err());
            assert_eq!(out, b"x");
        }
    }
}
