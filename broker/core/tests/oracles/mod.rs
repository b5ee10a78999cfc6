//! Two independent codecs behind one question: does this packet pass?

use broker_core::packet::Version;

/// What a codec says of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Refused,
    /// It waits for more.
    Incomplete,
    /// It panicked.
    Panicked,
}

/// Someone else's codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    Rmqtt,
    ProtocolCore,
}

pub const ORACLES: [Oracle; 2] = [Oracle::Rmqtt, Oracle::ProtocolCore];

impl Oracle {
    /// Asks it.
    pub fn verdict(self, bytes: &[u8], version: Version) -> Verdict {
        let ask = || match self {
            Self::Rmqtt => rmqtt(bytes, version),
            Self::ProtocolCore => protocol_core(bytes, version),
        };
        std::panic::catch_unwind(ask).unwrap_or(Verdict::Panicked)
    }
}

fn rmqtt(bytes: &[u8], version: Version) -> Verdict {
    use tokio_util::bytes::BytesMut;
    use tokio_util::codec::Decoder;

    let mut bytes = BytesMut::from(bytes);
    let decoded = match version {
        Version::V5 => rmqtt_codec::v5::Codec::new(0, 0).decode(&mut bytes).map(|packet| packet.is_some()),
        Version::V31 | Version::V311 => {
            rmqtt_codec::v3::Codec::new(0).decode(&mut bytes).map(|packet| packet.is_some())
        }
    };
    match decoded {
        Ok(true) => Verdict::Accepted,
        Ok(false) => Verdict::Incomplete,
        Err(_) => Verdict::Refused,
    }
}

fn protocol_core(bytes: &[u8], version: Version) -> Verdict {
    use mqtt_protocol_core::mqtt::common::Cursor;
    use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder};

    let raw = match PacketBuilder::new().feed(&mut Cursor::new(bytes)) {
        PacketBuildResult::Complete(raw) => raw,
        PacketBuildResult::Incomplete => return Verdict::Incomplete,
        PacketBuildResult::Error(_) => return Verdict::Refused,
    };
    // The same calls as its connection makes, without the connection's state.
    macro_rules! parse {
        ($version:ident, $type:ident) => {
            raw.parse_exact(mqtt_protocol_core::mqtt::packet::$version::$type::parse).is_ok()
        };
        ($version:ident publish) => {
            mqtt_protocol_core::mqtt::packet::$version::Publish::parse(raw.flags(), raw.data_as_slice().into())
                .is_ok()
        };
        ($version:ident $($more:literal $type:ident)?) => {
            match raw.packet_type() {
                1 => parse!($version, Connect),
                2 => parse!($version, Connack),
                3 => parse!($version publish),
                4 => parse!($version, Puback),
                5 => parse!($version, Pubrec),
                6 => parse!($version, Pubrel),
                7 => parse!($version, Pubcomp),
                8 => parse!($version, Subscribe),
                9 => parse!($version, Suback),
                10 => parse!($version, Unsubscribe),
                11 => parse!($version, Unsuback),
                12 => parse!($version, Pingreq),
                13 => parse!($version, Pingresp),
                14 => parse!($version, Disconnect),
                $($more => parse!($version, $type),)?
                _ => false,
            }
        };
    }
    let accepted = match version {
        Version::V5 => parse!(v5_0 15 Auth),
        Version::V31 | Version::V311 => parse!(v3_1_1),
    };
    if accepted { Verdict::Accepted } else { Verdict::Refused }
}

/// A v5 PUBLISH as rmqtt-codec reads it.
pub fn rmqtt_publish(bytes: &[u8]) -> Option<rmqtt_codec::types::Publish> {
    use tokio_util::bytes::BytesMut;
    use tokio_util::codec::Decoder;

    match rmqtt_codec::v5::Codec::new(0, 0).decode(&mut BytesMut::from(bytes)) {
        Ok(Some((rmqtt_codec::v5::Packet::Publish(publish), _))) => Some(*publish),
        _ => None,
    }
}
