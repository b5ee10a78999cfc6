//! Properties (v5 §2.2.2): one table of all of them, validated spans, and a writer.

use super::error::{DecodeError, EncodeError};
use super::wire::{self, Reader};
use super::{PacketType, QoS};

mod kind;

const CONNECT: u16 = PacketType::Connect.bit();
const CONNACK: u16 = PacketType::ConnAck.bit();
const PUBLISH: u16 = PacketType::Publish.bit();
const SUBSCRIBE: u16 = PacketType::Subscribe.bit();
const DISCONNECT: u16 = PacketType::Disconnect.bit();
const AUTH: u16 = PacketType::Auth.bit();
/// Bit 0 is no packet type: it stands for the properties of a will.
const WILL: u16 = 1;
const ACKS: u16 = PacketType::PubAck.bit()
    | PacketType::PubRec.bit()
    | PacketType::PubRel.bit()
    | PacketType::PubComp.bit()
    | PacketType::SubAck.bit()
    | PacketType::UnsubAck.bit();
const EVERYWHERE: u16 =
    CONNECT | CONNACK | PUBLISH | WILL | SUBSCRIBE | ACKS | DISCONNECT | AUTH | PacketType::Unsubscribe.bit();

/// Identifier of the user property.
pub(super) const USER_PROPERTY: u8 = 0x26;

/// Where properties stand, which decides what is allowed among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the variable header of a packet of this type.
    Packet(PacketType),
    /// In front of the will in CONNECT's payload.
    Will,
}

impl Place {
    const fn bit(self) -> u16 {
        match self {
            Self::Packet(packet) => packet.bit(),
            Self::Will => WILL,
        }
    }
}

macro_rules! properties {
    ($($id:literal $variant:ident($type:ty) $kind:ident $getter:ident $places:expr, $doc:literal;)*) => {
        /// One property, decoded (v5 §2.2.2.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Property<'a> {
            $(#[doc = $doc] $variant($type),)*
        }

        impl<'a> Property<'a> {
            /// Its identifier on the wire.
            pub const fn id(&self) -> u8 {
                match self { $(Self::$variant(_) => $id,)* }
            }

            #[inline]
            pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match reader.u8()? {
                    $($id => Ok(Self::$variant(kind::$kind::read(reader)?)),)*
                    _ => Err(DecodeError::malformed("a property has an unknown identifier")),
                }
            }

            /// Appends identifier and value.
            fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                match *self {
                    $(Self::$variant(value) => {
                        out.push($id);
                        kind::$kind::write(value, out)
                    })*
                }
            }

            /// A bit for each place in which it may stand.
            const fn places(&self) -> u16 {
                match self { $(Self::$variant(_) => $places,)* }
            }
        }

        impl<'a> Properties<'a> {
            $(
                #[doc = $doc]
                ///
                /// The first one where several are allowed; `None` where there is none.
                pub fn $getter(&self) -> Option<$type> {
                    self.iter().find_map(|property| match property {
                        Property::$variant(value) => Some(value),
                        _ => None,
                    })
                }
            )*
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(bool) flag payload_format PUBLISH | WILL,
        "Payload format indicator: true says that the payload is UTF-8.";
    0x02 MessageExpiryInterval(u32) four message_expiry PUBLISH | WILL, "Message expiry interval, seconds.";
    0x03 ContentType(&'a str) text content_type PUBLISH | WILL, "Content type.";
    0x08 ResponseTopic(&'a str) topic_name response_topic PUBLISH | WILL, "Response topic, a topic name.";
    0x09 CorrelationData(&'a [u8]) binary correlation_data PUBLISH | WILL, "Correlation data.";
    0x0B SubscriptionIdentifier(u32) identifier subscription_identifier PUBLISH | SUBSCRIBE,
        "Subscription identifier, 1 to 268,435,455.";
    0x11 SessionExpiryInterval(u32) four session_expiry CONNECT | CONNACK | DISCONNECT,
        "Session expiry interval, seconds; 0xFFFFFFFF is never.";
    0x12 AssignedClientIdentifier(&'a str) text assigned_client_identifier CONNACK,
        "Client identifier that the server assigned.";
    0x13 ServerKeepAlive(u16) two server_keep_alive CONNACK, "Keep alive that the server sets, seconds.";
    0x15 AuthenticationMethod(&'a str) text authentication_method CONNECT | CONNACK | AUTH,
        "Authentication method.";
    0x16 AuthenticationData(&'a [u8]) binary authentication_data CONNECT | CONNACK | AUTH,
        "Authentication data.";
    0x17 RequestProblemInformation(bool) flag request_problem_information CONNECT,
        "Whether reason strings and user properties are wanted with failures; true when absent.";
    0x18 WillDelayInterval(u32) four will_delay WILL, "Will delay interval, seconds.";
    0x19 RequestResponseInformation(bool) flag request_response_information CONNECT,
        "Whether response information is wanted in CONNACK; false when absent.";
    0x1A ResponseInformation(&'a str) text response_information CONNACK,
        "Basis on which the client builds response topics.";
    0x1C ServerReference(&'a str) text server_reference CONNACK | DISCONNECT, "Another server to use.";
    0x1F ReasonString(&'a str) text reason_string CONNACK | ACKS | DISCONNECT | AUTH,
        "Reason in words, for diagnosis.";
    0x21 ReceiveMaximum(u16) two_nonzero receive_maximum CONNECT | CONNACK,
        "How many unacknowledged QoS 1 and 2 messages the sender takes at once; 65,535 when absent.";
    0x22 TopicAliasMaximum(u16) two topic_alias_maximum CONNECT | CONNACK,
        "Highest topic alias that the sender takes; 0 when absent.";
    0x23 TopicAlias(u16) alias topic_alias PUBLISH, "Topic alias, not 0.";
    0x24 MaximumQoS(QoS) maximum_qos maximum_qos CONNACK, "Highest QoS of the server, 0 or 1; 2 when absent.";
    0x25 RetainAvailable(bool) flag retain_available CONNACK,
        "Whether the server keeps retained messages; true when absent.";
    0x26 UserProperty((&'a str, &'a str)) pair user_property EVERYWHERE, "User property: name and value.";
    0x27 MaximumPacketSize(u32) four_nonzero maximum_packet_size CONNECT | CONNACK,
        "Largest packet that the sender takes, bytes with the fixed header; no limit when absent.";
    0x28 WildcardSubscriptionAvailable(bool) flag wildcard_subscription_available CONNACK,
        "Whether the server supports wildcards; true when absent.";
    0x29 SubscriptionIdentifierAvailable(bool) flag subscription_identifier_available CONNACK,
        "Whether the server supports subscription identifiers; true when absent.";
    0x2A SharedSubscriptionAvailable(bool) flag shared_subscription_available CONNACK,
        "Whether the server supports shared subscriptions; true when absent.";
}

/// Properties whose every value was checked: known, in their place, not repeated, in range.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    span: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { span: &[] };

    /// Takes encoded properties (without their length) after checking each of them.
    ///
    /// # Errors
    /// The same as for a received packet that holds them in this place.
    pub fn parse(span: &'a [u8], place: Place) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(span);
        let mut seen = Seen::default();
        while !reader.is_empty() {
            seen.check(&Property::read(&mut reader)?, place)?;
        }
        let properties = Self { span };
        // Auth data without a method is a protocol error (v5 §3.1.2.11.10, §3.15.2.2.3).
        if seen.has(0x16) && !seen.has(0x15) {
            return Err(DecodeError::protocol("authentication data comes without an authentication method"));
        }
        Ok(properties)
    }

    #[inline]
    pub(crate) const fn trusted(span: &'a [u8]) -> Self {
        Self { span }
    }

    /// The encoded properties, without their length in front.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.span
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    /// All properties in the order of the packet.
    #[inline]
    pub const fn iter(&self) -> PropertyIter<'a> {
        PropertyIter { reader: Reader::new(self.span) }
    }

    /// User properties in the order of the packet, which means something `[MQTT-3.3.2-18]`.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(pair) => Some(pair),
            _ => None,
        })
    }

    /// Subscription identifiers in the order of the packet.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// Appends length and properties; the length is there even if it is 0 [MQTT-2.2.2-1].
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_varint(self.span.len(), out)?;
        out.extend_from_slice(self.span);
        Ok(())
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator over [`Properties`].
#[derive(Clone, Debug)]
pub struct PropertyIter<'a> {
    reader: Reader<'a>,
}

impl<'a> PropertyIter<'a> {
    /// How many bytes have not been read yet.
    pub(crate) const fn bytes_left(&self) -> usize {
        self.reader.rest().len()
    }
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        // The span was checked when it came in, so this reads what was read then.
        Property::read(&mut self.reader).ok()
    }
}

/// Which properties a packet has shown so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Accepts one more property, or says why it may not stand here.
    #[inline]
    pub fn check(&mut self, property: &Property<'_>, place: Place) -> Result<(), DecodeError> {
        if property.places() & place.bit() == 0 {
            // v5 §2.2.2.2: an identifier that is not valid for its packet type is a malformed packet.
            return Err(DecodeError::malformed("a property is not allowed in this packet"));
        }
        let bit = 1 << property.id();
        let repeats = match property {
            Property::UserProperty(_) => true,
            Property::SubscriptionIdentifier(_) => matches!(place, Place::Packet(PacketType::Publish)),
            _ => false,
        };
        if self.0 & bit != 0 && !repeats {
            return Err(DecodeError::protocol("a property that may stand once is repeated"));
        }
        self.0 |= bit;
        Ok(())
    }

    #[inline]
    pub const fn has(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }
}

/// Writes properties into a byte vector that can be used again.
///
/// Values are checked as they are put; whether they stand in their place is up to the caller, who knows the
/// packet.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuilder {
    bytes: Vec<u8>,
}

impl PropertiesBuilder {
    /// An empty list.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// An empty list that uses the memory of `bytes`.
    pub fn reusing(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// Appends one property.
    ///
    /// # Errors
    /// A string that is too long or holds U+0000, or a number that its property does not allow; nothing is
    /// appended then.
    pub fn put(&mut self, property: Property<'_>) -> Result<&mut Self, EncodeError> {
        let start = self.bytes.len();
        match property.write(&mut self.bytes) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Appends a user property.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_user(&mut self, name: &str, value: &str) -> Result<&mut Self, EncodeError> {
        self.put(Property::UserProperty((name, value)))
    }

    /// Appends properties that are encoded already.
    pub fn put_all(&mut self, properties: Properties<'_>) -> &mut Self {
        self.bytes.extend_from_slice(properties.as_bytes());
        self
    }

    /// What was put so far, to stand in a packet.
    pub fn properties(&self) -> Properties<'_> {
        Properties::trusted(&self.bytes)
    }

    /// The encoded bytes, without a length in front.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded bytes, without a length in front.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
