//! CONNECT (v5 §3.1).

use std::borrow::Cow;

use super::error::{ConnectError, DecodeError, EncodeError, ErrorKind};
use super::property::{Place, Properties, Property};
use super::publish::{Forwardable, topic_name};
use super::wire::{self, Reader};
use super::{Limits, PacketType, QoS, Version};
use crate::topic;

/// A client's request to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that this connection speaks.
    pub version: Version,
    /// Clean start; "clean session" in v3.
    pub clean_start: bool,
    /// Keep alive, seconds; 0 is off.
    pub keep_alive: u16,
    /// Client identifier; empty where the server is to choose one.
    pub client_id: &'a str,
    /// What to publish when the client is gone.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password; in v3 only together with a user name.
    pub password: Option<&'a [u8]>,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
}

/// A will, as CONNECT carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS to publish it with.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Its topic, a topic name.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its properties; none in v3.
    pub properties: Properties<'a>,
}

impl<'a> Will<'a> {
    /// The properties that belong to the PUBLISH that the will becomes, in their order [MQTT-3.1.3-10]: all but the will delay interval.
    pub fn forwardable(&self) -> Forwardable<'a> {
        Forwardable::of(self.properties, |property| !matches!(property, Property::WillDelayInterval(_)))
    }

    /// The encoded properties without the will delay interval; see [`forwardable`](Self::forwardable).
    pub fn forwardable_bytes(&self) -> Cow<'a, [u8]> {
        self.forwardable().bytes
    }
}

// Connect flags (v5 §3.1.2.3).
const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// Longest client identifier in 3.1, characters.
const CLIENT_ID_CHARS_MAX_V31: usize = 23;

impl<'a> Connect<'a> {
    pub(super) fn decode(body: &'a [u8], limits: &Limits) -> Result<Self, ConnectError> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        Self::decode_rest(reader, version, limits)
            .map_err(|error| ConnectError { error, version: Some(version) })
    }

    fn decode_rest(mut reader: Reader<'a>, version: Version, limits: &Limits) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let clean_start = flags & CLEAN_START != 0;
        let keep_alive = reader.u16()?;
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::Connect))?;
        // The payload's order is fixed [MQTT-3.1.3-1]; the client identifier is always there [MQTT-3.1.3-3].
        let client_id = reader.text()?; // [MQTT-3.1.3-4]
        check_client_id(client_id, clean_start, version)?;
        let will = match flags & WILL {
            0 => None,
            _ => Some(Will::decode(flags, &mut reader, version, limits)?), // [MQTT-3.1.2-7], [MQTT-3.1.2-9]
        };
        // 3.1 lets the remaining length overrule these two flags: a flagged field may be missing.
        let present =
            |flag, reader: &Reader<'_>| flags & flag != 0 && !(version == Version::V31 && reader.is_empty());
        let username = match present(USERNAME, &reader) {
            true => Some(reader.text()?), // [MQTT-3.1.2-17], [MQTT-3.1.3-12]
            false => None,                // [MQTT-3.1.2-16]
        };
        let password = match present(PASSWORD, &reader) {
            true => Some(reader.binary()?), // [MQTT-3.1.2-19]
            false => None,                  // [MQTT-3.1.2-18]
        };
        reader.finish()?;
        Ok(Self { version, clean_start, keep_alive, client_id, will, username, password, properties })
    }

    /// Appends the packet, in its own version.
    ///
    /// # Errors
    /// Fields that are too long or ill-formed; `out` is then as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.password.is_some() && self.username.is_none() && !self.version.is_v5() {
            return Err(EncodeError::new("a password needs a user name before v5"));
        }
        let mut flags = if self.clean_start { CLEAN_START } else { 0 };
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << 3 | if will.retain { WILL_RETAIN } else { 0 };
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        wire::put_packet(PacketType::Connect.first_byte(), out, |out| {
            wire::put_text(self.version.protocol_name(), out)?;
            out.push(self.version.level());
            out.push(flags);
            wire::put_u16(self.keep_alive, out);
            if self.version.is_v5() {
                self.properties.put(out)?;
            }
            wire::put_text(self.client_id, out)?;
            if let Some(will) = &self.will {
                if self.version.is_v5() {
                    will.properties.put(out)?;
                }
                topic::validate_name(will.topic).map_err(|error| EncodeError::new(error.what()))?;
                wire::put_text(will.topic, out)?;
                wire::put_binary(will.payload, out)?;
            }
            if let Some(username) = self.username {
                wire::put_text(username, out)?;
            }
            if let Some(password) = self.password {
                wire::put_binary(password, out)?;
            }
            Ok(())
        })
    }
}

impl<'a> Will<'a> {
    fn decode(
        flags: u8,
        reader: &mut Reader<'a>,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let properties = read_properties(reader, version, Place::Will)?;
        let topic = topic_name(reader.binary()?, limits)?; // [MQTT-3.1.3-11]
        let payload = reader.binary()?;
        let qos =
            QoS::from_bits((flags & WILL_QOS) >> 3).ok_or(DecodeError::malformed("a will has QoS 3"))?; // [MQTT-3.1.2-12]
        Ok(Self { qos, retain: flags & WILL_RETAIN != 0, topic, payload, properties })
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, ConnectError> {
    let unanswerable = |error| ConnectError { error, version: None };
    let unsupported = |what, version| {
        Err(ConnectError { error: DecodeError::new(ErrorKind::UnsupportedVersion, what), version })
    };
    let name = reader.binary().map_err(unanswerable)?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return unsupported("the protocol is not named MQTT", None); // [MQTT-3.1.2-1]
    }
    match (name, reader.u8().map_err(unanswerable)?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // [MQTT-3.1.2-2]: 0x84 for whoever may know v5 or later. The highest bit marks bridges of some brokers.
        (_, level) if level & 0x7f > 5 => {
            unsupported("the protocol level is not 3, 4 or 5", Some(Version::V5))
        }
        _ => unsupported("the protocol level is not 3, 4 or 5", Some(Version::V311)),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // 3.1 calls the bit unused and does not have it checked.
    if flags & RESERVED != 0 && version != Version::V31 {
        return Err(DecodeError::malformed("the reserved connect flag is set")); // [MQTT-3.1.2-3]
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        return Err(DecodeError::malformed("a CONNECT has a will QoS or will retain flag without a will"));
    }
    if flags & (USERNAME | PASSWORD) == PASSWORD && !version.is_v5() {
        // 3.1.1 [MQTT-3.1.2-22]; v5 allows it.
        return Err(DecodeError::malformed("a CONNECT has a password without a user name"));
    }
    Ok(())
}

fn check_client_id(client_id: &str, clean_start: bool, version: Version) -> Result<(), DecodeError> {
    let refused = |what| Err(DecodeError::new(ErrorKind::ClientIdInvalid, what));
    match version {
        Version::V31 if client_id.is_empty() => refused("a 3.1 client has no identifier"),
        Version::V31 if client_id.chars().count() > CLIENT_ID_CHARS_MAX_V31 => {
            refused("a 3.1 client has an identifier of more than 23 characters")
        }
        // 3.1.1 [MQTT-3.1.3-8], 3.1.1 [MQTT-3.1.3-9]
        Version::V311 if client_id.is_empty() && !clean_start => {
            refused("a client without an identifier asks for a session that outlives its connection")
        }
        _ => Ok(()), // [MQTT-3.1.3-5], [MQTT-3.1.3-6]
    }
}

pub(super) fn read_properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    place: Place,
) -> Result<Properties<'a>, DecodeError> {
    if version.is_v5() { Properties::parse(reader.property_span()?, place) } else { Ok(Properties::EMPTY) }
}
