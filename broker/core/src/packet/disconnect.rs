//! DISCONNECT and AUTH (v5 §3.14, §3.15): a reason code and properties.

use super::error::{DecodeError, EncodeError};
use super::property::{Place, Properties};
use super::reason::ReasonCode;
use super::wire::{self, Reader};
use super::{PacketType, Role, Version};

/// The last packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; always a normal disconnection in v3.
    pub reason: ReasonCode,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
}

/// A step of an extended authentication (v5 §4.12). v5 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication, or re-authenticate.
    pub reason: ReasonCode,
    /// Properties; the authentication method is among them unless the packet was empty.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version, from: Role) -> Result<Self, DecodeError> {
        if !version.is_v5() {
            Reader::new(body).finish()?;
        }
        let (reason, properties) = decode(PacketType::Disconnect, body, from)?; // [MQTT-3.14.2-1]
        if from == Role::Server && properties.session_expiry().is_some() {
            // [MQTT-3.14.2-2]
            return Err(DecodeError::protocol("a server's DISCONNECT has a session expiry interval"));
        }
        Ok(Self { reason, properties })
    }

    /// Appends the packet, in the shortest form that says it all.
    ///
    /// # Errors
    /// Properties that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.is_v5() {
            out.extend_from_slice(&[PacketType::Disconnect.first_byte(), 0]);
            return Ok(());
        }
        encode(PacketType::Disconnect, self.reason, self.properties, out)
    }
}

impl<'a> Auth<'a> {
    pub(super) fn decode(body: &'a [u8], from: Role) -> Result<Self, DecodeError> {
        let (reason, properties) = decode(PacketType::Auth, body, from)?; // [MQTT-3.15.2-1]
        // v5 §3.15.2.2.2 wants a method always, §3.15.2.1 allows a success without properties.
        if properties.authentication_method().is_none()
            && (reason != ReasonCode::Success || !properties.is_empty())
        {
            return Err(DecodeError::protocol("an AUTH has no authentication method"));
        }
        Ok(Self { reason, properties })
    }

    /// Appends the packet, in the shortest form that says it all.
    ///
    /// # Errors
    /// A version that has no AUTH, or properties that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.is_v5() {
            return Err(EncodeError::new("there is no AUTH before v5"));
        }
        encode(PacketType::Auth, self.reason, self.properties, out)
    }
}

fn decode(
    packet_type: PacketType,
    body: &[u8],
    from: Role,
) -> Result<(ReasonCode, Properties<'_>), DecodeError> {
    let mut reader = Reader::new(body);
    // An empty packet says 0x00 (v5 §3.14.2.1, §3.15.2.1).
    let code = if reader.is_empty() { 0 } else { reader.u8()? };
    let reason = ReasonCode::from_code(code)
        .filter(|reason| reason.allowed_in(packet_type, from))
        .ok_or(DecodeError::malformed("a packet has a reason code that its sender may not give in it"))?;
    if reader.is_empty() {
        return Ok((reason, Properties::EMPTY)); // v5 §3.14.2.2.1
    }
    let properties = Properties::parse(reader.property_span()?, Place::Packet(packet_type))?;
    reader.finish()?;
    Ok((reason, properties))
}

fn encode(
    packet_type: PacketType,
    reason: ReasonCode,
    properties: Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let first = packet_type.first_byte();
    if properties.is_empty() {
        match reason {
            ReasonCode::Success => out.extend_from_slice(&[first, 0]),
            _ => out.extend_from_slice(&[first, 1, reason.code()]),
        }
        return Ok(());
    }
    wire::put_packet(first, out, |out| {
        out.push(reason.code());
        properties.put(out)
    })
}
