//! MQTT control packets of 3.1, 3.1.1 and 5: bytes to borrowed structs and back.
//!
//! [`decode`] works in place: whatever a packet holds is a slice of the bytes it was read from, nothing is copied
//! or allocated. What it returns has been checked in full; iterators over lists and properties only walk what was
//! checked. [`publish::Forward`] writes the packet that matters most straight from stored bytes.
//!
//! Knows no sessions and no connections: whether a packet may come *now* is for others to say.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
pub mod property;
pub mod publish;
mod reason;
mod subscribe;
mod unsubscribe;
pub(crate) mod wire;

pub use ack::{PubAck, PubComp, PubRec, PubRel};
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use error::{ConnectError, DecodeError, EncodeError, ErrorKind};
pub use property::{Place, Properties, PropertiesBuilder, Property};
pub use publish::{Publish, PublishProperties};
pub use reason::ReasonCode;
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeOptions, Subscription, SubscriptionList, Subscriptions,
};
pub use unsubscribe::{FilterList, Filters, UnsubAck, Unsubscribe};

use frame::Frame;
use wire::Reader;

/// Packet identifier: never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = std::num::NonZeroU16;

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: level 4.
    V311,
    /// MQTT 5.0: level 5.
    V5,
}

impl Version {
    /// The protocol level in CONNECT.
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// The protocol name in CONNECT.
    pub const fn protocol_name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// Whether packets have properties and reason codes.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }
}

/// One of the two ends of a connection. As a limit: who sent the bytes that are decoded, because each end may
/// send only some packets, and a client may not send subscription identifiers in PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that sent CONNECT.
    Client,
    /// The end that answered it.
    Server,
}

/// What the receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet, in bytes with its fixed header (as v5 §3.1.2.11.4 counts).
    pub packet_size_max: usize,
    /// Most levels in a topic name or filter.
    pub topic_levels_max: usize,
    /// Who sent the bytes.
    pub from: Role,
}

impl Limits {
    /// For a server, which reads what clients send.
    pub const fn server(packet_size_max: usize) -> Self {
        Self { packet_size_max, topic_levels_max: crate::topic::LEVELS_MAX_DEFAULT, from: Role::Client }
    }

    /// For a client (a bridge, a test, a load generator), which reads what servers send.
    pub const fn client(packet_size_max: usize) -> Self {
        Self { packet_size_max, topic_levels_max: crate::topic::LEVELS_MAX_DEFAULT, from: Role::Server }
    }
}

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: PUBACK.
    AtLeastOnce = 1,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of this number; `None` for 3 and above.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Type of a control packet; its number stands in the upper half of the first byte (v5 §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // they are the standard's names
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// The first byte of such a packet; PUBLISH adds its flags `[MQTT-2.1.3-1]`.
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// A decoded control packet, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // they are the standard's names
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(PubAck<'a>),
    PubRec(PubRec<'a>),
    PubRel(PubRel<'a>),
    PubComp(PubComp<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// What the bytes at hand amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A packet, and how many bytes it took.
    Packet(Packet<'a>, usize),
    /// The packet has not arrived in full.
    Incomplete {
        /// Bytes of the whole packet where its length is known, else a lower bound; always more than there are.
        needed: usize,
    },
}

/// What the first bytes of a connection amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedConnect<'a> {
    /// A CONNECT, and how many bytes it took.
    Connect(Connect<'a>, usize),
    /// The CONNECT has not arrived in full.
    Incomplete {
        /// Bytes of the whole packet where its length is known, else a lower bound; always more than there are.
        needed: usize,
    },
}

/// Decodes the packet at the front of `bytes`, on a connection that speaks `version`.
///
/// # Errors
/// Whatever the standard calls malformed or a protocol error and can be seen in one packet; as early as the
/// fixed header shows it, so that nobody waits for the body of a packet that will be refused.
pub fn decode<'a>(bytes: &'a [u8], version: Version, limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let Some(&first) = bytes.first() else { return Ok(Decoded::Incomplete { needed: 2 }) };
    let packet_type = frame::check_first_byte(first, version, limits.from)?;
    let (body, len) = match frame::read(bytes, limits.packet_size_max)? {
        Frame::Complete { overlong: true, .. } | Frame::Incomplete { overlong: true, .. }
            if version.is_v5() =>
        {
            return Err(wire::OVERLONG); // [MQTT-1.5.5-1]
        }
        Frame::Complete { body, len, .. } => (body, len),
        Frame::Incomplete { needed, .. } => return Ok(Decoded::Incomplete { needed }),
    };
    // Each arm builds the whole answer: moving a packet costs more than decoding it.
    macro_rules! whole {
        ($name:ident($($argument:expr),*)) => {
            Ok(Decoded::Packet(Packet::$name($name::decode($($argument),*)?), len))
        };
    }
    match packet_type {
        PacketType::Publish => whole!(Publish(first, body, version, limits)),
        PacketType::PubAck => whole!(PubAck(body, version)),
        PacketType::PubRec => whole!(PubRec(body, version)),
        PacketType::PubRel => whole!(PubRel(body, version)),
        PacketType::PubComp => whole!(PubComp(body, version)),
        PacketType::PingReq => Reader::new(body).finish().map(|()| Decoded::Packet(Packet::PingReq, len)),
        PacketType::PingResp => Reader::new(body).finish().map(|()| Decoded::Packet(Packet::PingResp, len)),
        PacketType::Subscribe => whole!(Subscribe(body, version, limits)),
        PacketType::SubAck => whole!(SubAck(body, version)),
        PacketType::Unsubscribe => whole!(Unsubscribe(body, version, limits)),
        PacketType::UnsubAck => whole!(UnsubAck(body, version)),
        PacketType::Disconnect => whole!(Disconnect(body, version, limits.from)),
        PacketType::Auth => whole!(Auth(body, limits.from)),
        PacketType::ConnAck => whole!(ConnAck(body, version)),
        PacketType::Connect => {
            let connect = Connect::decode(body, limits).map_err(|error| error.error)?;
            Ok(Decoded::Packet(Packet::Connect(connect), len))
        }
    }
}

/// Decodes the first packet of a connection, which must be CONNECT `[MQTT-3.1.0-1]` and says what version
/// everything after it speaks.
///
/// # Errors
/// As [`decode`], together with the version, so that [`ConnectError::answer`] can say what to send back.
pub fn decode_connect<'a>(bytes: &'a [u8], limits: &Limits) -> Result<DecodedConnect<'a>, ConnectError> {
    let unanswerable = |error| ConnectError { error, version: None };
    let Some(&first) = bytes.first() else { return Ok(DecodedConnect::Incomplete { needed: 2 }) };
    if first >> 4 != PacketType::Connect as u8 {
        let error = DecodeError::protocol("the first packet of a connection is not CONNECT"); // [MQTT-3.1.0-1]
        return Err(unanswerable(error));
    }
    if first != PacketType::Connect.first_byte() {
        return Err(unanswerable(frame::RESERVED_FLAGS)); // [MQTT-2.1.3-1]
    }
    match frame::read(bytes, limits.packet_size_max).map_err(unanswerable)? {
        Frame::Incomplete { needed, .. } => Ok(DecodedConnect::Incomplete { needed }),
        Frame::Complete { body, len, overlong } => {
            let connect = Connect::decode(body, limits)?;
            if overlong && connect.version.is_v5() {
                return Err(ConnectError { error: wire::OVERLONG, version: Some(Version::V5) }); // [MQTT-1.5.5-1]
            }
            Ok(DecodedConnect::Connect(connect, len))
        }
    }
}

impl Packet<'_> {
    /// Its type.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet as `version` writes it. What a version cannot say vanishes (properties and reason codes
    /// in v3) or becomes the nearest thing (CONNACK and SUBACK codes). CONNECT is written in its own version.
    ///
    /// # Errors
    /// Fields that are too long, AUTH in v3; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) => packet.encode(version, out),
            Self::PubRec(packet) => packet.encode(version, out),
            Self::PubRel(packet) => packet.encode(version, out),
            Self::PubComp(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => {
                out.extend_from_slice(&PINGREQ);
                Ok(())
            }
            Self::PingResp => {
                out.extend_from_slice(&PINGRESP);
                Ok(())
            }
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }
}

/// A PINGREQ, which is the same in every version.
pub const PINGREQ: [u8; 2] = [PacketType::PingReq.first_byte(), 0];
/// A PINGRESP, which is the same in every version.
pub const PINGRESP: [u8; 2] = [PacketType::PingResp.first_byte(), 0];
