//! What is written is read back, nothing that is read can panic, and what is cut off is never mistaken for whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod generate;

use broker_core::packet::publish::{Delivery, Forward};
use broker_core::packet::{
    Decoded, DecodedConnect, Limits, Packet, PacketId, QoS, Role, Version, decode, decode_connect,
};
use proptest::collection::vec;
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn limits(from: Role) -> Limits {
    Limits { from, ..Limits::server(1 << 20) }
}

fn any_sample() -> impl Strategy<Value = generate::Sample> {
    prop_oneof![
        1 => generate::sample(Version::V31),
        1 => generate::sample(Version::V311),
        3 => generate::sample(Version::V5),
    ]
}

/// Looks at everything that a packet can be asked for.
fn walk(packet: &Packet<'_>) {
    match packet {
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.subscriptions().all(|subscription| !subscription.filter.is_empty()));
            assert!(subscribe.subscriptions().len() > 0);
            assert_eq!(subscribe.subscriptions().count(), subscribe.subscriptions().len());
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.filters().count(), unsubscribe.filters().len());
        }
        Packet::SubAck(suback) => assert_eq!(suback.reasons().count(), suback.codes.len()),
        Packet::UnsubAck(unsuback) => assert_eq!(unsuback.reasons().count(), unsuback.codes.len()),
        Packet::Publish(publish) => {
            let properties = &publish.properties;
            assert_eq!(properties.user_properties().count(), properties.user_properties_count);
            let all = properties.all();
            assert_eq!(all.topic_alias(), properties.topic_alias);
            assert_eq!(all.message_expiry(), properties.message_expiry);
            assert_eq!(all.response_topic(), properties.response_topic);
            assert_eq!(all.correlation_data(), properties.correlation_data);
            assert_eq!(all.content_type(), properties.content_type);
            assert_eq!(all.payload_format(), properties.payload_format);
            let _ = publish.check_payload_format();
            let _ = format!("{:?}", properties.forwardable());
        }
        other => {
            let _ = format!("{other:?}");
        }
    }
}

/// Four times as many cases as usual; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 4, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_packet_that_is_written_is_read_back(sample in any_sample()) {
        let bytes = sample.bytes();
        let decoded = decode(&bytes, sample.version, &limits(sample.from));
        prop_assert_eq!(decoded, Ok(Decoded::Packet(sample.packet, bytes.len())));
        walk(&sample.packet);
        if let Packet::Connect(connect) = sample.packet {
            let decoded = decode_connect(&bytes, &limits(Role::Client));
            prop_assert_eq!(decoded, Ok(DecodedConnect::Connect(connect, bytes.len())));
        }
    }

    #[test]
    fn a_packet_that_is_cut_off_is_incomplete(sample in any_sample(), at in any::<prop::sample::Index>()) {
        let bytes = sample.bytes();
        let len = at.index(bytes.len());
        let decoded = decode(&bytes[..len], sample.version, &limits(sample.from));
        let Ok(Decoded::Incomplete { needed }) = decoded else { panic!("{decoded:?}") };
        prop_assert!(needed > len && needed <= bytes.len());
    }

    /// The header is mended, so that what is missing is missed inside the packet.
    #[test]
    fn a_body_that_is_cut_off_is_never_read_past_its_end(sample in any_sample(), at in any::<prop::sample::Index>()) {
        let bytes = sample.bytes();
        let len = at.index(bytes.len().min(127));
        let digits = bytes[1..].iter().position(|byte| *byte < 128).unwrap() + 1;
        let mut cut = vec![bytes[0], len as u8];
        cut.extend(bytes[1 + digits..].iter().take(len));
        cut[1] = (cut.len() - 2) as u8;
        if let Ok(Decoded::Packet(packet, used)) = decode(&cut, sample.version, &limits(sample.from)) {
            prop_assert_eq!(used, cut.len());
            walk(&packet);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in vec(any::<u8>(), 0..80), fit in any::<bool>(), first in any::<u8>()) {
        if let [_, length, rest @ ..] = &mut bytes[..] && fit {
            *length = rest.len() as u8;
        }
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        for version in VERSIONS {
            for from in [Role::Client, Role::Server] {
                match decode(&bytes, version, &limits(from)) {
                    Ok(Decoded::Packet(packet, used)) => {
                        prop_assert!(used <= bytes.len());
                        walk(&packet);
                    }
                    Ok(Decoded::Incomplete { needed }) => prop_assert!(needed > bytes.len()),
                    Err(error) => prop_assert!(error.reason().is_error()),
                }
            }
        }
        if let Err(error) = decode_connect(&bytes, &limits(Role::Client)) && let Some(answer) = error.answer() {
            let mut out = Vec::new();
            prop_assert!(answer.encode(error.version.unwrap(), &mut out).is_ok());
        }
    }

    /// A packet that was read can be written, and then it is read as the same one.
    #[test]
    fn a_packet_with_a_byte_changed_is_refused_or_a_packet_again(
        sample in any_sample(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = sample.bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for version in VERSIONS {
            if let Ok(Decoded::Packet(packet, used)) = decode(&bytes, version, &limits(sample.from)) {
                walk(&packet);
                let mut again = Vec::new();
                packet.encode(version, &mut again).unwrap();
                prop_assert_eq!(decode(&again, version, &limits(sample.from)), Ok(Decoded::Packet(packet, again.len())));
                prop_assert!(again.len() <= used);
            }
        }
    }

    #[test]
    fn a_forwarded_publish_keeps_what_must_be_kept(
        sample in generate::sample(Version::V5),
        qos in prop::sample::select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..]),
        flags in any::<[bool; 2]>(),
        id in 1..=u16::MAX,
        expiry_left in prop::option::of(any::<u32>()),
        ids in vec(1..=268_435_455_u32, 0..3),
        alias in prop::option::of(1..=u16::MAX),
    ) {
        let Packet::Publish(publish) = sample.packet else { return Ok(()) };
        prop_assume!(!publish.topic.is_empty());
        let kept = publish.properties.forwardable();
        let forward = Forward {
            topic: publish.topic.as_bytes(),
            properties: &kept.bytes,
            expiry_offset: kept.expiry_offset,
            payload: publish.payload,
        };
        let delivery = Delivery {
            dup: flags[0],
            retain: flags[1],
            qos,
            packet_id: PacketId::new(id),
            expiry_left,
            topic_alias: alias,
            subscription_ids: &ids,
        };
        for version in VERSIONS {
            let mut out = b"before".to_vec();
            let encoded = forward.encode(version, &delivery, &mut out).unwrap();
            prop_assert_eq!((encoded.start, encoded.end), (6, out.len()));
            prop_assert_eq!(forward.encoded_len(version, &delivery), Ok(out.len() - 6));
            let Ok(Decoded::Packet(Packet::Publish(sent), used)) = decode(&out[6..], version, &limits(Role::Server))
            else {
                panic!("{out:02x?}")
            };
            prop_assert_eq!(used, out.len() - 6);
            prop_assert_eq!((sent.topic, sent.payload), (publish.topic, publish.payload));
            prop_assert_eq!((sent.qos, sent.retain), (qos, flags[1]));
            prop_assert_eq!(sent.dup, flags[0] && qos != QoS::AtMostOnce);
            prop_assert_eq!(sent.packet_id.is_some(), qos != QoS::AtMostOnce);
            if version.is_v5() {
                let (was, is) = (&publish.properties, &sent.properties);
                prop_assert!(is.user_properties().eq(was.user_properties()));
                prop_assert!(is.subscription_identifiers().eq(ids.iter().copied()));
                prop_assert_eq!(is.topic_alias, alias);
                prop_assert_eq!(is.payload_format, was.payload_format);
                prop_assert_eq!(is.response_topic, was.response_topic);
                prop_assert_eq!(is.correlation_data, was.correlation_data);
                prop_assert_eq!(is.content_type, was.content_type);
                let expected = was.message_expiry.map(|whole| expiry_left.unwrap_or(whole));
                prop_assert_eq!(is.message_expiry, expected);
            } else {
                prop_assert!(sent.properties.is_empty());
            }

            let mut head = b"before".to_vec();
            let of_head = forward.encode_head(version, &delivery, &mut head).unwrap();
            prop_assert_eq!(of_head.end, head.len());
            prop_assert_eq!(of_head.packet_id_offset, encoded.packet_id_offset);
            head.extend_from_slice(publish.payload);
            prop_assert_eq!(&head, &out);
        }
    }
}
