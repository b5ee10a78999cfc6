//! The few MQTT bytes that a load generator needs: packets made once and sent many times, and a reader that only finds
//! where each packet ends, of which type it is and which packet identifier it carries.
//!
//! Does not know: sockets. Deliberately not forebay's codec: the load must not share a mistake, or a speed, with a
//! broker it measures.

use crate::Result;

/// MQTT version on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    #[value(name = "4")]
    V4,
    /// MQTT 5, protocol level 5.
    #[value(name = "5")]
    V5,
}

/// CONNACK, in the high nibble of a packet's first byte.
pub const CONNACK: u8 = 2;
/// PUBLISH.
pub const PUBLISH: u8 = 3;
/// PUBACK: ends a QoS 1 exchange.
pub const PUBACK: u8 = 4;
/// PUBREC: first answer of a QoS 2 exchange.
pub const PUBREC: u8 = 5;
/// PUBREL: the sender's second step of a QoS 2 exchange.
pub const PUBREL: u8 = 6;
/// PUBCOMP: ends a QoS 2 exchange.
pub const PUBCOMP: u8 = 7;
/// SUBACK.
pub const SUBACK: u8 = 9;

/// CONNECT with a clean start, a keep alive that no run reaches, and (MQTT 5) a receive maximum that never throttles the broker.
pub fn connect(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T'];
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.push(0x02); // clean start
    body.extend_from_slice(&600u16.to_be_bytes()); // keep alive longer than any run; rumqttd refuses 0
    if version == Version::V5 {
        body.extend_from_slice(&[3, 0x21, 0xFF, 0xFF]); // receive maximum 65,535
    }
    push_text(&mut body, client_id);
    packet(0x10, &body)
}

/// CONNECT to a session that outlives the connection and is to be on disk; before MQTT 5 a broker must know that by itself.
pub fn connect_lasting(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T'];
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.push(0); // the session goes on
    body.extend_from_slice(&600u16.to_be_bytes());
    if version == Version::V5 {
        let mut properties = vec![0x21, 0xFF, 0xFF, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x26];
        push_text(&mut properties, "aio-persistence");
        push_text(&mut properties, "true");
        body.push(properties.len() as u8);
        body.extend_from_slice(&properties);
    }
    push_text(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE to one filter, packet identifier 1.
pub fn subscribe(version: Version, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    push_text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// One PUBLISH and where its packet identifier stands (0 when QoS is 0: there is none).
pub struct Template {
    /// The whole packet.
    pub bytes: Vec<u8>,
    /// Offset of the two identifier bytes.
    pub id_at: usize,
}

/// PUBLISH to `topic` with no properties.
pub fn publish(version: Version, topic: &str, qos: u8, payload: &[u8]) -> Template {
    let mut body = Vec::new();
    push_text(&mut body, topic);
    let id_in_body = body.len();
    if qos > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    let bytes = packet(0x30 | (qos << 1), &body);
    let id_at = if qos > 0 { bytes.len() - body.len() + id_in_body } else { 0 };
    Template { bytes, id_at }
}

/// A four-byte acknowledgement: PUBACK, PUBREC, PUBREL or PUBCOMP with the identifier alone.
pub fn ack(kind: u8, id: [u8; 2]) -> [u8; 4] {
    let flags = if kind == PUBREL { 2 } else { 0 };
    [(kind << 4) | flags, 2, id[0], id[1]]
}

/// DISCONNECT, normal, in its two-byte form (valid in every version).
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// One whole packet inside a read buffer.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The whole packet, fixed header included.
    pub bytes: &'a [u8],
    /// Length of the fixed header.
    pub header: usize,
}

impl<'a> Frame<'a> {
    /// Packet type, the high nibble of the first byte.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    /// QoS of a PUBLISH.
    #[inline]
    pub fn qos(&self) -> u8 {
        (self.bytes[0] >> 1) & 3
    }

    /// The packet after its fixed header.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }

    /// Packet identifier: after the topic in a PUBLISH, first in everything else that has one.
    #[inline]
    pub fn id(&self) -> Option<[u8; 2]> {
        let body = self.body();
        let at = if self.kind() == PUBLISH { 2 + text_len(body)? } else { 0 };
        Some([*body.get(at)?, *body.get(at + 1)?])
    }

    /// Payload of a PUBLISH.
    pub fn payload(&self, version: Version) -> Option<&'a [u8]> {
        let body = self.body();
        let mut at = 2 + text_len(body)? + if self.qos() > 0 { 2 } else { 0 };
        if version == Version::V5 {
            let (length, width) = varint(body.get(at..)?)?;
            at += width + length;
        }
        body.get(at..)
    }
}

/// The first whole packet of `bytes`, or `None` when more bytes are needed.
#[inline]
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (length, width) = varint(bytes.get(1..)?)?;
    let end = 1 + width + length;
    Some(Frame { bytes: bytes.get(..end)?, header: 1 + width })
}

/// The receive maximum that a CONNACK grants, 65,535 when it does not say. Errors when the broker refused.
pub fn receive_maximum(version: Version, connack: Frame<'_>) -> Result<u16> {
    let body = connack.body();
    if connack.kind() != CONNACK || body.len() < 2 {
        return Err("the broker did not answer CONNECT with CONNACK".into());
    }
    if body[1] != 0 {
        return Err(format!("the broker refused the connection, reason {:#04x}", body[1]).into());
    }
    if version == Version::V4 {
        return Ok(u16::MAX);
    }
    Ok(find_receive_maximum(body.get(2..).unwrap_or_default()).unwrap_or(u16::MAX))
}

/// Walks CONNACK properties; `None` when the property is absent or the list does not parse.
fn find_receive_maximum(bytes: &[u8]) -> Option<u16> {
    let (length, width) = varint(bytes)?;
    let mut rest = bytes.get(width..width + length)?;
    while let Some((&id, value)) = rest.split_first() {
        let size = match id {
            0x21 => return Some(u16::from_be_bytes([*value.first()?, *value.get(1)?])),
            0x11 | 0x27 => 4,
            0x13 | 0x22 => 2,
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + text_len(value)?,
            0x26 => {
                let key = 2 + text_len(value)?;
                key + 2 + text_len(value.get(key..)?)?
            }
            _ => return None,
        };
        rest = value.get(size..)?;
    }
    None
}

fn text_len(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?])))
}

/// A variable byte integer and how many bytes it took.
#[inline]
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_reads_back_as_it_was_made() {
        for version in [Version::V4, Version::V5] {
            for qos in 0..3u8 {
                let made = publish(version, "a/b", qos, &[7; 200]);
                let read = frame(&made.bytes).unwrap();
                assert_eq!(read.bytes.len(), made.bytes.len());
                assert_eq!((read.kind(), read.qos()), (PUBLISH, qos));
                assert_eq!(read.payload(version), Some(&[7; 200][..]));
                if qos > 0 {
                    assert_eq!(read.id(), Some([0, 1]));
                    assert_eq!(&made.bytes[made.id_at..made.id_at + 2], &[0, 1]);
                }
            }
        }
    }

    #[test]
    fn a_cut_packet_is_no_packet_yet() {
        let made = publish(Version::V5, "a", 1, b"xyz");
        for cut in 0..made.bytes.len() {
            assert!(frame(&made.bytes[..cut]).is_none());
        }
    }

    #[test]
    fn the_receive_maximum_is_found_behind_other_properties() {
        let connack = [0x20, 14, 0, 0, 11, 0x12, 0, 3, b'a', b'b', b'c', 0x22, 0, 9, 0x21, 0, 20];
        // 11 property bytes: assigned id (6), alias maximum (3), and only then the receive maximum (3) = 12.
        let mut connack = connack.to_vec();
        connack[1] = (connack.len() - 2) as u8;
        connack[4] = (connack.len() - 5) as u8;
        assert_eq!(receive_maximum(Version::V5, frame(&connack).unwrap()).unwrap(), 20);
    }
}
