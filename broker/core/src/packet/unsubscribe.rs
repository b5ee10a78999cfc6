//! UNSUBSCRIBE and UNSUBACK (v5 §3.10, §3.11).

use super::ack::packet_id;
use super::connect::read_properties;
use super::error::{DecodeError, EncodeError};
use super::property::{Place, Properties};
use super::reason::ReasonCode;
use super::subscribe::check_filter;
use super::wire::{self, Reader};
use super::{Limits, PacketId, PacketType, Role, Version};
use crate::topic;

/// A client's request to be sent no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Identifier that the UNSUBACK repeats.
    pub packet_id: PacketId,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
    filters: Filters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// An UNSUBSCRIBE for what `list` holds.
    pub fn new(packet_id: PacketId, properties: Properties<'a>, list: &'a FilterList) -> Self {
        Self { packet_id, properties, filters: Filters { reader: Reader::new(&list.bytes), left: list.len } }
    }

    /// The topic filters, in order; at least one in a received packet.
    #[inline]
    pub const fn filters(&self) -> Filters<'a> {
        self.filters
    }

    pub(super) fn decode(body: &'a [u8], version: Version, limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::Unsubscribe))?;
        let list = reader;
        let mut left = 0;
        while !reader.is_empty() {
            check_filter(reader.text()?, version, limits)?; // [MQTT-3.10.3-1]
            left += 1;
        }
        if left == 0 {
            return Err(DecodeError::protocol("an UNSUBSCRIBE has no topic filter")); // [MQTT-3.10.3-2]
        }
        Ok(Self { packet_id, properties, filters: Filters { reader: list, left } })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// An empty list, or too much of it; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.filters.left == 0 {
            return Err(EncodeError::new("an UNSUBSCRIBE has no topic filter")); // [MQTT-3.10.3-2]
        }
        wire::put_packet(PacketType::Unsubscribe.first_byte(), out, |out| {
            wire::put_u16(self.packet_id.get(), out);
            if version.is_v5() {
                self.properties.put(out)?;
            }
            out.extend_from_slice(self.filters.reader.rest());
            Ok(())
        })
    }
}

/// Iterator over the topic filters of an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.reader.rest() == other.reader.rest()
    }
}

impl Eq for Filters<'_> {}

impl<'a> Iterator for Filters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The bytes were checked when they came in, so this reads what was read then.
        self.reader.text().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Filters<'_> {}

/// Topic filters to be sent.
#[derive(Clone, Debug, Default)]
pub struct FilterList {
    bytes: Vec<u8>,
    len: usize,
}

impl FilterList {
    /// Appends one.
    ///
    /// # Errors
    /// A filter that is ill-formed.
    pub fn push(&mut self, filter: &str) -> Result<&mut Self, EncodeError> {
        topic::validate_filter(filter).map_err(|error| EncodeError::new(error.what()))?;
        wire::put_text(filter, &mut self.bytes)?;
        self.len += 1;
        Ok(self)
    }
}

/// A server's answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Identifier of the UNSUBSCRIBE [MQTT-3.10.4-5] [MQTT-2.2.1-6].
    pub packet_id: PacketId,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
    /// One reason code for each filter, in the order of the UNSUBSCRIBE `[MQTT-3.11.3-1]`; none in v3.
    pub codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        if !version.is_v5() {
            reader.finish()?;
            return Ok(Self { packet_id, properties: Properties::EMPTY, codes: &[] });
        }
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::UnsubAck))?;
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(DecodeError::protocol("an UNSUBACK has no reason code"));
        }
        let allowed = |&code: &u8| {
            ReasonCode::from_code(code)
                .is_some_and(|reason| reason.allowed_in(PacketType::UnsubAck, Role::Server))
        };
        if !codes.iter().all(allowed) {
            // [MQTT-3.11.3-2]
            return Err(DecodeError::malformed("an UNSUBACK has a reason code that it may not have"));
        }
        Ok(Self { packet_id, properties, codes })
    }

    /// The reason codes.
    pub fn reasons(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        self.codes.iter().filter_map(|&code| ReasonCode::from_code(code))
    }

    /// Appends the packet. v3 has no reason codes.
    ///
    /// # Errors
    /// Properties that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_packet(PacketType::UnsubAck.first_byte(), out, |out| {
            wire::put_u16(self.packet_id.get(), out);
            if version.is_v5() {
                self.properties.put(out)?;
                out.extend_from_slice(self.codes);
            }
            Ok(())
        })
    }
}
