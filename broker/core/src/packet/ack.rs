//! PUBACK, PUBREC, PUBREL and PUBCOMP (v5 §3.4 to §3.7): four packets of one form.

use super::error::{DecodeError, EncodeError};
use super::property::{Place, Properties};
use super::reason::ReasonCode;
use super::wire::{self, Reader};
use super::{PacketId, PacketType, Role, Version};

macro_rules! acks {
    ($($name:ident $doc:literal $tag:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a> {
            /// Identifier of the PUBLISH that this is about [MQTT-2.2.1-5].
            pub packet_id: PacketId,
            #[doc = concat!("How it went ", $tag, "; always success in v3.")]
            pub reason: ReasonCode,
            /// Properties; none in v3.
            pub properties: Properties<'a>,
        }

        impl<'a> $name<'a> {
            /// Success, without properties.
            pub const fn new(packet_id: PacketId) -> Self {
                Self { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
            }

            #[inline]
            pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
                let (packet_id, reason, properties) = decode(PacketType::$name, body, version)?;
                Ok(Self { packet_id, reason, properties })
            }

            /// Appends the packet, in the shortest form that says it all.
            ///
            /// # Errors
            /// Properties that are too long; `out` is then as it was.
            #[inline]
            pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                encode(PacketType::$name, self.packet_id, self.reason, self.properties, version, out)
            }
        }
    )*};
}

acks! {
    PubAck "QoS 1: the message is taken." "`[MQTT-3.4.2-1]`";
    PubRec "QoS 2, step 1: the message is taken." "`[MQTT-3.5.2-1]`";
    PubRel "QoS 2, step 2: the message will not come again." "`[MQTT-3.6.2-1]`";
    PubComp "QoS 2, step 3: the identifier is free." "`[MQTT-3.7.2-1]`";
}

fn decode(
    packet_type: PacketType,
    body: &[u8],
    version: Version,
) -> Result<(PacketId, ReasonCode, Properties<'_>), DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = packet_id(&mut reader)?;
    if reader.is_empty() {
        return Ok((packet_id, ReasonCode::Success, Properties::EMPTY)); // v5 §3.4.2.1
    }
    if !version.is_v5() {
        reader.finish()?;
    }
    // The four take the same codes from either side.
    let reason = ReasonCode::from_code(reader.u8()?)
        .filter(|reason| reason.allowed_in(packet_type, Role::Client))
        .ok_or(DecodeError::malformed("an acknowledgement has a reason code that it may not have"))?;
    if reader.is_empty() {
        return Ok((packet_id, reason, Properties::EMPTY)); // v5 §3.4.2.2.1
    }
    let properties = Properties::parse(reader.property_span()?, Place::Packet(packet_type))?;
    reader.finish()?;
    Ok((packet_id, reason, properties))
}

fn encode(
    packet_type: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
    properties: Properties<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let [high, low] = packet_id.get().to_be_bytes();
    let first = packet_type.first_byte();
    if !version.is_v5() || (reason == ReasonCode::Success && properties.is_empty()) {
        out.extend_from_slice(&[first, 2, high, low]);
        return Ok(());
    }
    if properties.is_empty() {
        out.extend_from_slice(&[first, 3, high, low, reason.code()]);
        return Ok(());
    }
    wire::put_packet(first, out, |out| {
        out.extend_from_slice(&[high, low, reason.code()]);
        properties.put(out)
    })
}

/// A packet identifier, which is not 0 `[MQTT-2.2.1-3]`, `[MQTT-2.2.1-4]`.
#[inline]
pub(super) fn packet_id(reader: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(reader.u16()?).ok_or(DecodeError::protocol("a packet identifier is 0"))
}
