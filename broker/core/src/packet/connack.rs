//! CONNACK (v5 §3.2).

use super::connect::read_properties;
use super::error::{DecodeError, EncodeError};
use super::property::{Place, Properties};
use super::reason::ReasonCode;
use super::wire::{self, Reader};
use super::{PacketType, Role, Version};

/// A server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server goes on with a session that it had; never with an error.
    pub session_present: bool,
    /// How it went. v3 knows only the reasons of [`ReasonCode::from_connack_v3`].
    pub reason: ReasonCode,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        // 3.1 has no flags here and does not have the byte checked.
        if flags > 1 && version != Version::V31 {
            return Err(DecodeError::malformed("the reserved flags of a CONNACK are set")); // [MQTT-3.2.2-1]
        }
        let code = reader.u8()?;
        let reason = match version {
            Version::V5 => ReasonCode::from_code(code)
                .filter(|reason| reason.allowed_in(PacketType::ConnAck, Role::Server)), // [MQTT-3.2.2-8]
            Version::V31 | Version::V311 => ReasonCode::from_connack_v3(code),
        };
        let reason = reason.ok_or(DecodeError::malformed("a CONNACK has an unknown reason code"))?;
        let session_present = flags == 1 && version != Version::V31;
        if session_present && reason != ReasonCode::Success {
            // [MQTT-3.2.2-6], 3.1.1 [MQTT-3.2.2-4]
            return Err(DecodeError::protocol("a CONNACK with an error says that a session is present"));
        }
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::ConnAck))?;
        reader.finish()?;
        Ok(Self { session_present, reason, properties })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// Properties that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_packet(PacketType::ConnAck.first_byte(), out, |out| {
            let session_present = self.session_present && self.reason == ReasonCode::Success; // [MQTT-3.2.2-6]
            out.push(u8::from(session_present && version != Version::V31));
            if version.is_v5() {
                out.push(self.reason.code());
                return self.properties.put(out);
            }
            out.push(self.reason.connack_v3());
            Ok(())
        })
    }
}
