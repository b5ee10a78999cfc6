//! What a session writes into its outbox.

use std::sync::Arc;

use super::{Delivered, Delivery, DropCause, Link};
use crate::Millis;
use crate::alias::{Alias, Aliases};
use crate::message::{Frame, Message, Publication};
use crate::outbox::{Outbox, SHARE_BYTES_MIN};
use crate::packet::publish::{Delivery as Shape, Forward};
use crate::packet::{PacketId, PacketType, ReasonCode, Version};

/// Writes one PUBLISH, from shared bytes where several clients get the same.
#[allow(clippy::too_many_arguments)] // the parts of a session that are borrowed one by one
pub(super) fn send(
    link: &Link,
    aliases: &mut Aliases,
    publication: &mut Publication<'_>,
    frame: Option<&mut Frame>,
    how: &Delivery<'_>,
    id: Option<PacketId>,
    now: Millis,
    outbox: &mut Outbox,
) -> Delivered {
    if publication.expiry.is_some() || publication.forward.payload.len() >= SHARE_BYTES_MIN {
        let message = publication.owned();
        return write_publish(link, aliases, &message, how, id, false, now, outbox);
    }
    if how.identifiers.is_empty()
        && !aliases.in_use()
        && let Some(frame) = frame
    {
        let Some((bytes, encoded)) = frame.of(&publication.forward, link.version, how.qos, how.retain) else {
            return Delivered::Dropped(DropCause::TooLarge);
        };
        if bytes.len() > link.packet_size_max {
            return Delivered::Dropped(DropCause::TooLarge);
        }
        let start = outbox.buffer().len();
        outbox.buffer().extend_from_slice(bytes);
        if let Some(id) = id {
            encoded.patch_packet_id(&mut outbox.buffer()[start..], id);
        }
        return Delivered::Sent;
    }
    let alias = aliases.of(publication.forward.topic);
    let shape = shape(how, id, false, None, alias);
    let forward = aliased(publication.forward, alias);
    match forward.encoded_len(link.version, &shape) {
        Ok(len) if len <= link.packet_size_max => {}
        _ => return Delivered::Dropped(DropCause::TooLarge), // [MQTT-3.1.2-24]
    }
    match forward.encode(link.version, &shape, outbox.buffer()) {
        Ok(_) => {
            aliases.said(publication.forward.topic, alias);
            Delivered::Sent
        }
        Err(_) => Delivered::Dropped(DropCause::TooLarge),
    }
}

fn shape<'a>(
    how: &Delivery<'a>,
    id: Option<PacketId>,
    dup: bool,
    expiry_left: Option<u32>,
    alias: Alias,
) -> Shape<'a> {
    Shape {
        dup,
        qos: how.qos,
        retain: how.retain,
        packet_id: id,
        expiry_left,
        topic_alias: match alias {
            Alias::None => None,
            Alias::New(number) | Alias::Known(number) => Some(number),
        },
        subscription_ids: how.identifiers,
    }
}

/// The message as it is written where an alias stands for its topic.
fn aliased(forward: Forward<'_>, alias: Alias) -> Forward<'_> {
    match alias {
        Alias::Known(_) => Forward { topic: b"", ..forward },
        Alias::None | Alias::New(_) => forward,
    }
}

/// Writes one kept message: with the time it has left [MQTT-3.3.2-6], a large payload by reference.
#[allow(clippy::too_many_arguments)] // as above
pub(super) fn write_publish(
    link: &Link,
    aliases: &mut Aliases,
    message: &Arc<Message>,
    how: &Delivery<'_>,
    id: Option<PacketId>,
    dup: bool,
    now: Millis,
    outbox: &mut Outbox,
) -> Delivered {
    let left = message.expiry_left(now);
    // What was sent once is sent again even when its time is over: the exchange must complete [MQTT-4.3.3-7]
    // [MQTT-4.3.3-13]. And what
    // does not wait at all is passed on even with an interval of 0.
    if left == Some(0) && !dup && now > message.received {
        return Delivered::Dropped(DropCause::Expired); // [MQTT-3.3.2-5]
    }
    let alias = aliases.of(message.forward().topic);
    let shape = shape(how, id, dup, left, alias);
    let forward = aliased(message.forward(), alias);
    match forward.encoded_len(link.version, &shape) {
        Ok(len) if len <= link.packet_size_max => {}
        _ => return Delivered::Dropped(DropCause::TooLarge), // [MQTT-3.1.2-24]
    }
    let shared = forward.payload.len() >= SHARE_BYTES_MIN;
    let encoded = match shared {
        true => forward.encode_head(link.version, &shape, outbox.buffer()),
        false => forward.encode(link.version, &shape, outbox.buffer()),
    };
    if encoded.is_err() {
        return Delivered::Dropped(DropCause::TooLarge);
    }
    aliases.said(message.forward().topic, alias);
    if shared {
        outbox.push_shared(message.shared_payload());
    }
    Delivered::Sent
}

pub(super) fn write_ack(version: Version, kind: PacketType, id: PacketId, outbox: &mut Outbox) {
    write_ack_reason(version, kind, id, ReasonCode::Success, outbox);
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP: without reason strings and user properties, so that it is never too large
/// for its receiver [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3].
pub fn write_ack_reason(
    version: Version,
    kind: PacketType,
    id: PacketId,
    reason: ReasonCode,
    outbox: &mut Outbox,
) {
    let first = match kind {
        PacketType::PubAck => 0x40,
        PacketType::PubRec => 0x50,
        PacketType::PubRel => 0x62,
        _ => 0x70,
    };
    let [high, low] = id.get().to_be_bytes();
    // Success needs no reason code, and 3.1.1 has none [MQTT-3.4.2-1].
    if version < Version::V5 || reason == ReasonCode::Success {
        outbox.buffer().extend_from_slice(&[first, 2, high, low]);
    } else {
        outbox.buffer().extend_from_slice(&[first, 3, high, low, reason.code()]);
    }
}
