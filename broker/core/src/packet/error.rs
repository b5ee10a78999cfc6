//! What was wrong with received bytes, and with packets that cannot be put on the wire.

use super::reason::ReasonCode;
use super::{ConnAck, Properties, Version};

/// What kind of mistake the peer made. Each kind has one v5 reason code to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The bytes cannot be parsed by the rules of the standard (v5 §1.2 Malformed Packet).
    Malformed,
    /// The bytes can be parsed, but their content or their sender is not allowed (v5 §1.2 Protocol Error).
    Protocol,
    /// The fixed header announces more than [`Limits::packet_size_max`](super::Limits).
    PacketTooLarge,
    /// CONNECT for a protocol name or level that is not spoken here.
    UnsupportedVersion,
    /// The client identifier is not one that this protocol level allows.
    ClientIdInvalid,
    /// A well-formed topic name that is over a limit of ours.
    TopicNameInvalid,
    /// A well-formed topic filter that is over a limit of ours.
    TopicFilterInvalid,
    /// Topic alias 0.
    TopicAliasInvalid,
    /// Payload format indicator 1 with a payload that is not UTF-8.
    PayloadFormatInvalid,
}

impl ErrorKind {
    /// The v5 reason code for CONNACK, DISCONNECT or an acknowledgement.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Malformed => ReasonCode::MalformedPacket,
            Self::Protocol => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdInvalid => ReasonCode::ClientIdentifierNotValid,
            Self::TopicNameInvalid => ReasonCode::TopicNameInvalid,
            Self::TopicFilterInvalid => ReasonCode::TopicFilterInvalid,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
        }
    }
}

/// Why received bytes are no acceptable packet. After one of these the connection is closed
/// `[MQTT-4.13.1-1]`; nothing that follows on the stream can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// The kind, which decides what is answered.
    pub kind: ErrorKind,
    /// What was wrong, as a sentence for logs and reason strings.
    pub what: &'static str,
}

impl DecodeError {
    /// An error of `kind` that `what` describes.
    pub const fn new(kind: ErrorKind, what: &'static str) -> Self {
        Self { kind, what }
    }

    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::new(ErrorKind::Malformed, what)
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::new(ErrorKind::Protocol, what)
    }

    /// The v5 reason code to answer with.
    pub const fn reason(&self) -> ReasonCode {
        self.kind.reason()
    }
}

/// Why the first packet of a connection was refused, and in which dialect that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ConnectError {
    /// What was wrong.
    pub error: DecodeError,
    /// The version whose CONNACK the client can read, where its CONNECT told us.
    /// For an unsupported level: the supported version whose CONNACK has the nearest form.
    pub version: Option<Version>,
}

impl ConnectError {
    /// The CONNACK to send before closing, never a DISCONNECT [MQTT-3.14.0-1]; to be encoded for [`version`](Self::version); `None` where the
    /// standard wants the connection closed without a word.
    ///
    /// v3: only return codes that exist there, 0x01 and 0x02 (3.1.1 `[MQTT-3.1.2-2]`, `[MQTT-3.1.3-8]`);
    /// any other defect closes (3.1.1 `[MQTT-3.1.4-1]`). v5: always (§4.13.2).
    pub fn answer(&self) -> Option<ConnAck<'static>> {
        let speaks_codes = match self.version? {
            Version::V5 => true,
            Version::V31 | Version::V311 => {
                matches!(self.error.kind, ErrorKind::UnsupportedVersion | ErrorKind::ClientIdInvalid)
            }
        };
        speaks_codes.then(|| ConnAck {
            session_present: false, // [MQTT-3.2.2-6]
            reason: self.error.reason(),
            properties: Properties::EMPTY,
        })
    }
}

/// Why a packet cannot be written: it holds something that the wire format has no room or no form for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct EncodeError {
    /// What does not fit, as a sentence.
    pub what: &'static str,
}

impl EncodeError {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}
