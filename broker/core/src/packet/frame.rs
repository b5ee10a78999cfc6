//! The fixed header: type, flags and remaining length (v5 §2.1).

use super::error::{DecodeError, ErrorKind};
use super::wire::{read_varint, varint_len};
use super::{PacketType, Role, Version};

/// What the fixed header says of the bytes behind it.
pub(super) enum Frame<'a> {
    /// All are there: the packet's body, and its length with the fixed header.
    Complete { body: &'a [u8], len: usize, overlong: bool },
    /// More are needed.
    Incomplete { needed: usize, overlong: bool },
}

pub(super) const RESERVED_FLAGS: DecodeError =
    DecodeError::malformed("the reserved flags of a fixed header are not as they must be");

/// Type of the packet that begins with this byte, if its flags are right and its sender may send it.
#[inline]
pub(super) fn check_first_byte(first: u8, version: Version, from: Role) -> Result<PacketType, DecodeError> {
    // PUBLISH comes most and from both sides; its flags are looked at with its body.
    if first >> 4 == PacketType::Publish as u8 {
        if first & 0b0110 == 0b0110 {
            return Err(DecodeError::malformed("a PUBLISH has QoS 3")); // [MQTT-3.3.1-4]
        }
        if first & 0b1110 == 0b1000 && version != Version::V31 {
            return Err(DecodeError::malformed("a PUBLISH with QoS 0 has the DUP flag")); // [MQTT-3.3.1-2]
        }
        return Ok(PacketType::Publish);
    }
    let (packet_type, sender) = match first >> 4 {
        1 => (PacketType::Connect, Some(Role::Client)),
        2 => (PacketType::ConnAck, Some(Role::Server)),
        4 => (PacketType::PubAck, None),
        5 => (PacketType::PubRec, None),
        6 => (PacketType::PubRel, None),
        7 => (PacketType::PubComp, None),
        8 => (PacketType::Subscribe, Some(Role::Client)),
        9 => (PacketType::SubAck, Some(Role::Server)),
        10 => (PacketType::Unsubscribe, Some(Role::Client)),
        11 => (PacketType::UnsubAck, Some(Role::Server)),
        12 => (PacketType::PingReq, Some(Role::Client)),
        13 => (PacketType::PingResp, Some(Role::Server)),
        14 if version.is_v5() => (PacketType::Disconnect, None),
        14 => (PacketType::Disconnect, Some(Role::Client)),
        15 if version.is_v5() => (PacketType::Auth, None),
        _ => return Err(DecodeError::malformed("a packet is of a reserved type")), // v5 table 2-1
    };
    // 3.1 lets a sender mark what it sends again: DUP stands in PUBREL, SUBSCRIBE and UNSUBSCRIBE too.
    let ignored = match (version, packet_type) {
        (Version::V31, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe) => 0b1000,
        _ => 0,
    };
    if first & !ignored != packet_type.first_byte() {
        // [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
        return Err(RESERVED_FLAGS);
    }
    if sender.is_some_and(|sender| sender != from) {
        return Err(DecodeError::protocol("a packet is of a type that its sender may not send"));
    }
    Ok(packet_type)
}

/// Reads the remaining length and finds the body.
#[inline]
pub(super) fn read(bytes: &[u8], packet_size_max: usize) -> Result<Frame<'_>, DecodeError> {
    let after_first = bytes.get(1..).unwrap_or_default();
    let Some((remaining, digits)) = read_varint(after_first)? else {
        return Ok(Frame::Incomplete { needed: bytes.len() + 1, overlong: false });
    };
    let remaining = remaining as usize;
    let len = 1 + digits + remaining;
    let overlong = digits != varint_len(remaining);
    // Said before the body is here, so that it is never waited for or kept.
    if len > packet_size_max {
        return Err(DecodeError::new(
            ErrorKind::PacketTooLarge,
            "a packet is larger than the receiver accepts",
        ));
    }
    Ok(match bytes.get(1 + digits..len) {
        Some(body) => Frame::Complete { body, len, overlong },
        None => Frame::Incomplete { needed: len, overlong },
    })
}
