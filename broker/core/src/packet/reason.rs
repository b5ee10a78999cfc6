//! Reason codes: code, name, meaning and where each may appear, in one table.

use super::{PacketType, Role};

// Where a code may appear. DISCONNECT and AUTH have a "sent by" column in the standard, hence two bits each.
const CONNACK: u16 = 1 << 0;
const PUBACK: u16 = 1 << 1;
const PUBREC: u16 = 1 << 2;
const PUBREL: u16 = 1 << 3;
const PUBCOMP: u16 = 1 << 4;
const SUBACK: u16 = 1 << 5;
const UNSUBACK: u16 = 1 << 6;
const DISC_CLIENT: u16 = 1 << 7;
const DISC_SERVER: u16 = 1 << 8;
const AUTH_CLIENT: u16 = 1 << 9;
const AUTH_SERVER: u16 = 1 << 10;
/// Both acknowledgements of a PUBLISH that carry the same codes.
const RECEIPT: u16 = PUBACK | PUBREC;
/// Both acknowledgements of a packet identifier.
const IDENTIFIER: u16 = PUBREL | PUBCOMP;
const DISCONNECT: u16 = DISC_CLIENT | DISC_SERVER;

macro_rules! reason_codes {
    ($($code:literal $variant:ident $name:literal $places:expr, $meaning:literal;)*) => {
        /// Result of an operation, as acknowledgements, DISCONNECT and AUTH carry it (v5 §2.4). Below 0x80 it
        /// went well.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = concat!($name, ": ", $meaning)] $variant = $code,)*
        }

        impl ReasonCode {
            /// Every reason code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason code of this number; `None` where the standard names none.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The standard's name, for example "Not authorized".
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it says to whom it is sent, as a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            const fn places(self) -> u16 {
                match self { $(Self::$variant => $places,)* }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" CONNACK | RECEIPT | IDENTIFIER | SUBACK | UNSUBACK | DISCONNECT | AUTH_SERVER,
        "It is done; in a SUBACK QoS 0 is granted, in a DISCONNECT the will is dropped.";
    0x01 GrantedQoS1 "Granted QoS 1" SUBACK, "The subscription is made with QoS 1 at most.";
    0x02 GrantedQoS2 "Granted QoS 2" SUBACK, "The subscription is made with QoS 2 at most.";
    0x04 DisconnectWithWill "Disconnect with Will Message" DISC_CLIENT,
        "The client leaves and wants its will published.";
    0x10 NoMatchingSubscribers "No matching subscribers" RECEIPT,
        "The message is accepted, but nobody subscribes to its topic.";
    0x11 NoSubscriptionExisted "No subscription existed" UNSUBACK, "There was no such subscription to end.";
    0x18 ContinueAuthentication "Continue authentication" AUTH_CLIENT | AUTH_SERVER,
        "The authentication goes on with another step.";
    0x19 ReAuthenticate "Re-authenticate" AUTH_CLIENT, "The client starts to authenticate once more.";
    0x80 UnspecifiedError "Unspecified error" CONNACK | RECEIPT | SUBACK | UNSUBACK | DISCONNECT,
        "It failed, and the sender does not say why.";
    0x81 MalformedPacket "Malformed Packet" CONNACK | DISCONNECT, "A packet could not be parsed.";
    0x82 ProtocolError "Protocol Error" CONNACK | DISCONNECT,
        "A packet was unexpected or held what is not allowed.";
    0x83 ImplementationSpecificError "Implementation specific error"
        CONNACK | RECEIPT | SUBACK | UNSUBACK | DISCONNECT,
        "The packet is valid, but the receiver does not accept it.";
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" CONNACK,
        "The server does not speak the protocol version that was asked for.";
    0x85 ClientIdentifierNotValid "Client Identifier not valid" CONNACK,
        "The client identifier is well-formed but not allowed.";
    0x86 BadUserNameOrPassword "Bad User Name or Password" CONNACK,
        "The server does not accept this user name or password.";
    0x87 NotAuthorized "Not authorized" CONNACK | RECEIPT | SUBACK | UNSUBACK | DISC_SERVER,
        "The client may not do this.";
    0x88 ServerUnavailable "Server unavailable" CONNACK, "The server is not available.";
    0x89 ServerBusy "Server busy" CONNACK | DISC_SERVER, "The server is busy; try again later.";
    0x8A Banned "Banned" CONNACK, "An administrator has banned this client.";
    0x8B ServerShuttingDown "Server shutting down" DISC_SERVER, "The server is shutting down.";
    // §2.4 lists DISCONNECT for 0x8C, table 3-10 does not; whoever receives it is told why, so it passes.
    0x8C BadAuthenticationMethod "Bad authentication method" CONNACK | DISC_SERVER,
        "The authentication method is not supported or not the one in use.";
    0x8D KeepAliveTimeout "Keep Alive timeout" DISC_SERVER,
        "Nothing was received for one and a half times the keep alive.";
    0x8E SessionTakenOver "Session taken over" DISC_SERVER,
        "Another connection uses the same client identifier.";
    0x8F TopicFilterInvalid "Topic Filter invalid" SUBACK | UNSUBACK | DISC_SERVER,
        "The topic filter is well-formed but not accepted.";
    0x90 TopicNameInvalid "Topic Name invalid" CONNACK | RECEIPT | DISCONNECT,
        "The topic name is well-formed but not accepted.";
    0x91 PacketIdentifierInUse "Packet Identifier in use" RECEIPT | SUBACK | UNSUBACK,
        "The packet identifier is already in use.";
    0x92 PacketIdentifierNotFound "Packet Identifier not found" IDENTIFIER,
        "The packet identifier is not known.";
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" DISCONNECT,
        "More messages are unacknowledged than the receiver allowed.";
    0x94 TopicAliasInvalid "Topic Alias invalid" DISCONNECT,
        "The topic alias is zero or above the maximum.";
    0x95 PacketTooLarge "Packet too large" CONNACK | DISCONNECT,
        "The packet is larger than the receiver allows.";
    0x96 MessageRateTooHigh "Message rate too high" DISCONNECT, "Messages come too fast.";
    0x97 QuotaExceeded "Quota exceeded" CONNACK | RECEIPT | SUBACK | DISCONNECT,
        "A limit of the implementation or of its administrator is exceeded.";
    0x98 AdministrativeAction "Administrative action" DISCONNECT, "An administrator closed the connection.";
    0x99 PayloadFormatInvalid "Payload format invalid" CONNACK | RECEIPT | DISCONNECT,
        "The payload is not what its payload format indicator says.";
    0x9A RetainNotSupported "Retain not supported" CONNACK | DISC_SERVER,
        "The server does not keep retained messages.";
    0x9B QoSNotSupported "QoS not supported" CONNACK | DISC_SERVER,
        "The QoS is above the server's maximum.";
    0x9C UseAnotherServer "Use another server" CONNACK | DISC_SERVER,
        "The client should use another server for now.";
    0x9D ServerMoved "Server moved" CONNACK | DISC_SERVER, "The client should use another server for good.";
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" SUBACK | DISC_SERVER,
        "The server does not support shared subscriptions for this client.";
    0x9F ConnectionRateExceeded "Connection rate exceeded" CONNACK | DISC_SERVER,
        "Connections come too fast.";
    0xA0 MaximumConnectTime "Maximum connect time" DISC_SERVER,
        "The connection was open for as long as it may be.";
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported" SUBACK | DISC_SERVER,
        "The server does not support subscription identifiers.";
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported" SUBACK | DISC_SERVER,
        "The server does not support wildcards in subscriptions.";
}

impl ReasonCode {
    /// 0x00 as a DISCONNECT spells it.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    /// 0x00 as a SUBACK spells it.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it reports a failure.
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// Whether v5 allows this code in a packet of this type that `sender` sent.
    pub const fn allowed_in(self, packet: PacketType, sender: Role) -> bool {
        let place = match (packet, sender) {
            (PacketType::ConnAck, _) => CONNACK,
            (PacketType::PubAck, _) => PUBACK,
            (PacketType::PubRec, _) => PUBREC,
            (PacketType::PubRel, _) => PUBREL,
            (PacketType::PubComp, _) => PUBCOMP,
            (PacketType::SubAck, _) => SUBACK,
            (PacketType::UnsubAck, _) => UNSUBACK,
            (PacketType::Disconnect, Role::Client) => DISC_CLIENT,
            (PacketType::Disconnect, Role::Server) => DISC_SERVER,
            (PacketType::Auth, Role::Client) => AUTH_CLIENT,
            (PacketType::Auth, Role::Server) => AUTH_SERVER,
            _ => 0,
        };
        self.places() & place != 0
    }

    /// The return code of a v3 CONNACK that says the same or the nearest thing (3.1.1 table 3.1).
    pub const fn connack_v3(self) -> u8 {
        match self {
            Self::Success => 0x00,
            Self::UnsupportedProtocolVersion => 0x01,
            Self::ClientIdentifierNotValid => 0x02,
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => 0x04,
            Self::NotAuthorized | Self::Banned => 0x05,
            _ => 0x03,
        }
    }

    /// The reason code that a v3 CONNACK return code stands for; `None` for the reserved ones.
    pub const fn from_connack_v3(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::Success,
            0x01 => Self::UnsupportedProtocolVersion,
            0x02 => Self::ClientIdentifierNotValid,
            0x03 => Self::ServerUnavailable,
            0x04 => Self::BadUserNameOrPassword,
            0x05 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_no_other_number_is() {
        for number in 0..=u8::MAX {
            let listed = ReasonCode::ALL.iter().copied().find(|reason| reason.code() == number);
            assert_eq!(ReasonCode::from_code(number), listed);
        }
        assert_eq!(ReasonCode::ALL.len(), 43);
    }

    #[test]
    fn return_codes_of_3_1_1_survive_the_way_there_and_back() {
        for code in 0..=5 {
            assert_eq!(ReasonCode::from_connack_v3(code).map(ReasonCode::connack_v3), Some(code));
        }
        assert_eq!(ReasonCode::from_connack_v3(6), None);
    }

    #[test]
    fn a_code_is_allowed_only_where_the_standard_lists_it() {
        let session_taken_over = ReasonCode::SessionTakenOver;
        assert!(session_taken_over.allowed_in(PacketType::Disconnect, Role::Server));
        assert!(!session_taken_over.allowed_in(PacketType::Disconnect, Role::Client));
        assert!(!session_taken_over.allowed_in(PacketType::ConnAck, Role::Server));
        assert!(!ReasonCode::Success.allowed_in(PacketType::Publish, Role::Client));
    }
}
