//! SUBSCRIBE and SUBACK (v5 §3.8, §3.9).

use super::ack::packet_id;
use super::connect::read_properties;
use super::error::{DecodeError, EncodeError, ErrorKind};
use super::property::{Place, Properties};
use super::reason::ReasonCode;
use super::wire::{self, Reader};
use super::{Limits, PacketId, PacketType, QoS, Role, Version};
use crate::topic::{self, SharedFilter};

/// A client's request to be sent messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Identifier that the SUBACK repeats.
    pub packet_id: PacketId,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
    subscriptions: Subscriptions<'a>,
}

/// One topic filter of a SUBSCRIBE and what is asked for with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The topic filter as it was sent, with the prefix of a shared subscription.
    pub filter: &'a str,
    /// Its options.
    pub options: SubscribeOptions,
}

/// Subscription options (v5 §3.8.3.1). v3 has only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Highest QoS to deliver with.
    pub qos: QoS,
    /// Whether the subscriber's own messages stay away `[MQTT-3.8.3-3]`.
    pub no_local: bool,
    /// Whether messages keep the RETAIN flag that they were published with.
    pub retain_as_published: bool,
    /// Whether retained messages are sent when the subscription is made.
    pub retain_handling: RetainHandling,
}

/// When a new subscription gets retained messages (v5 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Each time the subscription is made.
    #[default]
    SendAlways = 0,
    /// Only where the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl SubscribeOptions {
    /// The options that one byte says.
    ///
    /// # Errors
    /// Reserved bits, QoS 3, retain handling 3.
    pub const fn from_bits(bits: u8) -> Result<Self, DecodeError> {
        if bits & 0b1100_0000 != 0 {
            return Err(DecodeError::malformed("reserved subscription options are set")); // [MQTT-3.8.3-5]
        }
        let Some(qos) = QoS::from_bits(bits & 0b11) else {
            return Err(DecodeError::protocol("a subscription asks for QoS 3")); // v5 §3.8.3.1
        };
        let retain_handling = match bits >> 4 {
            0 => RetainHandling::SendAlways,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("a subscription has the retain handling 3")), // v5 §3.8.3.1
        };
        Ok(Self {
            qos,
            no_local: bits & 0b0100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling,
        })
    }

    /// The byte that says these options.
    pub const fn bits(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl<'a> Subscribe<'a> {
    /// A SUBSCRIBE for what `list` holds.
    pub fn new(packet_id: PacketId, properties: Properties<'a>, list: &'a SubscriptionList) -> Self {
        let subscriptions = Subscriptions { reader: Reader::new(&list.bytes), left: list.len };
        Self { packet_id, properties, subscriptions }
    }

    /// The filters with their options, in order; at least one in a received packet.
    #[inline]
    pub const fn subscriptions(&self) -> Subscriptions<'a> {
        self.subscriptions
    }

    pub(super) fn decode(body: &'a [u8], version: Version, limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::Subscribe))?;
        let list = reader;
        let mut left = 0;
        while !reader.is_empty() {
            check_subscription(&mut reader, version, limits)?;
            left += 1;
        }
        if left == 0 {
            return Err(DecodeError::protocol("a SUBSCRIBE has no topic filter")); // [MQTT-3.8.3-2]
        }
        Ok(Self { packet_id, properties, subscriptions: Subscriptions { reader: list, left } })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// An empty list, or too much of it; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.subscriptions.left == 0 {
            return Err(EncodeError::new("a SUBSCRIBE has no topic filter")); // [MQTT-3.8.3-2]
        }
        wire::put_packet(PacketType::Subscribe.first_byte(), out, |out| {
            wire::put_u16(self.packet_id.get(), out);
            if version.is_v5() {
                self.properties.put(out)?;
                out.extend_from_slice(self.subscriptions.reader.rest());
                return Ok(());
            }
            for subscription in self.subscriptions {
                wire::put_text(subscription.filter, out)?;
                out.push(subscription.options.qos as u8);
            }
            Ok(())
        })
    }
}

fn check_subscription(reader: &mut Reader<'_>, version: Version, limits: &Limits) -> Result<(), DecodeError> {
    let filter = reader.text()?; // [MQTT-3.8.3-1]
    let shared = check_filter(filter, version, limits)?;
    let bits = reader.u8()?;
    if !version.is_v5() && bits > QoS::ExactlyOnce as u8 {
        return Err(DecodeError::malformed("a requested QoS is none of 0, 1 and 2")); // 3.1.1 [MQTT-3-8.3-4]
    }
    let options = SubscribeOptions::from_bits(bits)?;
    if shared && options.no_local {
        return Err(DecodeError::protocol("a shared subscription has the no-local option")); // [MQTT-3.8.3-4]
    }
    Ok(())
}

/// Checks a topic filter of SUBSCRIBE or UNSUBSCRIBE, and says whether it is a shared subscription by the
/// standard. AIO's `$shared/` is an ordinary filter here: what it means is the session's choice, and v3 has
/// no shared subscriptions at all.
pub(super) fn check_filter(filter: &str, version: Version, limits: &Limits) -> Result<bool, DecodeError> {
    topic::validate_filter(filter).map_err(|error| DecodeError::malformed(error.what()))?;
    if !topic::within_levels(filter, limits.topic_levels_max) {
        return Err(DecodeError::new(ErrorKind::TopicFilterInvalid, "a topic filter has too many levels"));
    }
    if !version.is_v5() || !filter.starts_with("$share/") {
        return Ok(false);
    }
    match SharedFilter::parse(filter) {
        Ok(shared) => Ok(shared.is_some()),
        Err(error) => Err(DecodeError::protocol(error.what())), // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    }
}

/// Iterator over the subscriptions of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct Subscriptions<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.reader.rest() == other.reader.rest()
    }
}

impl Eq for Subscriptions<'_> {}

impl<'a> Iterator for Subscriptions<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The bytes were checked when they came in, so this reads what was read then.
        let filter = self.reader.text().ok()?;
        let options = SubscribeOptions::from_bits(self.reader.u8().ok()?).ok()?;
        Some(Subscription { filter, options })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Subscriptions<'_> {}

/// Subscriptions to be sent.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionList {
    bytes: Vec<u8>,
    len: usize,
}

impl SubscriptionList {
    /// Appends one.
    ///
    /// # Errors
    /// A filter that is ill-formed.
    pub fn push(&mut self, filter: &str, options: SubscribeOptions) -> Result<&mut Self, EncodeError> {
        topic::validate_filter(filter).map_err(|error| EncodeError::new(error.what()))?;
        wire::put_text(filter, &mut self.bytes)?;
        self.bytes.push(options.bits());
        self.len += 1;
        Ok(self)
    }
}

/// A server's answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Identifier of the SUBSCRIBE [MQTT-3.8.4-2] [MQTT-2.2.1-6].
    pub packet_id: PacketId,
    /// Properties; none in v3.
    pub properties: Properties<'a>,
    /// One reason code for each filter, in the order of the SUBSCRIBE `[MQTT-3.9.3-1]`.
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        let properties = read_properties(&mut reader, version, Place::Packet(PacketType::SubAck))?;
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(DecodeError::protocol("a SUBACK has no reason code"));
        }
        let allowed = |&code: &u8| match version {
            Version::V5 => ReasonCode::from_code(code)
                .is_some_and(|reason| reason.allowed_in(PacketType::SubAck, Role::Server)),
            Version::V31 | Version::V311 => matches!(code, 0 | 1 | 2 | 0x80), // 3.1.1 [MQTT-3.9.3-2]
        };
        if !codes.iter().all(allowed) {
            return Err(DecodeError::malformed("a SUBACK has a reason code that it may not have")); // [MQTT-3.9.3-2]
        }
        Ok(Self { packet_id, properties, codes })
    }

    /// The reason codes.
    pub fn reasons(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        self.codes.iter().filter_map(|&code| ReasonCode::from_code(code))
    }

    /// Appends the packet. v3 knows one failure code, 0x80.
    ///
    /// # Errors
    /// Properties that are too long; `out` is then as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        wire::put_packet(PacketType::SubAck.first_byte(), out, |out| {
            wire::put_u16(self.packet_id.get(), out);
            if version.is_v5() {
                self.properties.put(out)?;
                out.extend_from_slice(self.codes);
            } else {
                out.extend(self.codes.iter().map(|&code| code.min(0x80)));
            }
            Ok(())
        })
    }
}
