//! What is written, byte for byte; what a version cannot say; and what is refused because nobody could read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use broker_core::packet::{
    Auth, ConnAck, Connect, Disconnect, FilterList, Packet, PacketId, Properties, PropertiesBuilder,
    Property, PubAck, PubRel, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions,
    SubscriptionList, UnsubAck, Unsubscribe, Version, Will,
};

const ID: PacketId = PacketId::new(0x0102).unwrap();

fn bytes(packet: Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    out
}

fn reason_string() -> PropertiesBuilder {
    let mut builder = PropertiesBuilder::new();
    builder.put(Property::ReasonString("no")).unwrap();
    builder
}

#[test]
fn an_acknowledgement_is_as_short_as_its_version_allows() {
    let with_words = reason_string();
    let plain = PubAck::new(ID);
    let failed = PubAck { reason: ReasonCode::QuotaExceeded, ..plain };
    let explained = PubAck { properties: with_words.properties(), ..failed };
    assert_eq!(bytes(Packet::PubAck(plain), Version::V5), [0x40, 2, 1, 2]);
    assert_eq!(bytes(Packet::PubAck(failed), Version::V5), [0x40, 3, 1, 2, 0x97]);
    let words = [0x40, 9, 1, 2, 0x97, 5, 0x1f, 0, 2, b'n', b'o'];
    assert_eq!(bytes(Packet::PubAck(explained), Version::V5), words);
    for version in [Version::V31, Version::V311] {
        assert_eq!(bytes(Packet::PubAck(explained), version), [0x40, 2, 1, 2]);
        assert_eq!(bytes(Packet::PubRel(PubRel::new(ID)), version), [0x62, 2, 1, 2]);
    }
}

#[test]
fn the_ends_of_a_connection_are_as_short_as_their_version_allows() {
    let words = reason_string();
    let normal = Disconnect { reason: ReasonCode::NORMAL_DISCONNECTION, properties: Properties::EMPTY };
    let busy = Disconnect { reason: ReasonCode::ServerBusy, properties: Properties::EMPTY };
    let explained = Disconnect { properties: words.properties(), ..busy };
    assert_eq!(bytes(Packet::Disconnect(normal), Version::V5), [0xe0, 0]);
    assert_eq!(bytes(Packet::Disconnect(busy), Version::V5), [0xe0, 1, 0x89]);
    assert_eq!(bytes(Packet::Disconnect(explained), Version::V5), [0xe0, 7, 0x89, 5, 0x1f, 0, 2, b'n', b'o']);
    assert_eq!(bytes(Packet::Disconnect(explained), Version::V311), [0xe0, 0]);
    let auth = Auth { reason: ReasonCode::Success, properties: Properties::EMPTY };
    assert_eq!(bytes(Packet::Auth(auth), Version::V5), [0xf0, 0]);
    assert!(Packet::Auth(auth).encode(Version::V311, &mut Vec::new()).is_err());
    for version in [Version::V31, Version::V311, Version::V5] {
        assert_eq!(bytes(Packet::PingReq, version), [0xc0, 0]);
        assert_eq!(bytes(Packet::PingResp, version), [0xd0, 0]);
    }
}

#[test]
fn a_connack_says_the_nearest_thing_that_its_version_knows() {
    let connack = |session_present, reason| {
        Packet::ConnAck(ConnAck { session_present, reason, properties: Properties::EMPTY })
    };
    assert_eq!(bytes(connack(true, ReasonCode::Success), Version::V5), [0x20, 3, 1, 0, 0]);
    assert_eq!(bytes(connack(true, ReasonCode::Success), Version::V311), [0x20, 2, 1, 0]);
    assert_eq!(bytes(connack(true, ReasonCode::Success), Version::V31), [0x20, 2, 0, 0]);
    // [MQTT-3.2.2-6]
    assert_eq!(bytes(connack(true, ReasonCode::Banned), Version::V5), [0x20, 3, 0, 0x8a, 0]);
    for (reason, code) in [
        (ReasonCode::Banned, 5),
        (ReasonCode::BadAuthenticationMethod, 4),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::QuotaExceeded, 3),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::UnsupportedProtocolVersion, 1),
    ] {
        assert_eq!(bytes(connack(false, reason), Version::V311), [0x20, 2, 0, code]);
    }
}

#[test]
fn answers_to_subscribers_know_one_failure_before_v5() {
    let suback = SubAck { packet_id: ID, properties: Properties::EMPTY, codes: &[0, 1, 2, 0x80, 0x87, 0xa2] };
    assert_eq!(bytes(Packet::SubAck(suback), Version::V5), [0x90, 9, 1, 2, 0, 0, 1, 2, 0x80, 0x87, 0xa2]);
    assert_eq!(bytes(Packet::SubAck(suback), Version::V311), [0x90, 8, 1, 2, 0, 1, 2, 0x80, 0x80, 0x80]);
    let unsuback = UnsubAck { packet_id: ID, properties: Properties::EMPTY, codes: &[0, 0x11] };
    assert_eq!(bytes(Packet::UnsubAck(unsuback), Version::V5), [0xb0, 5, 1, 2, 0, 0, 0x11]);
    assert_eq!(bytes(Packet::UnsubAck(unsuback), Version::V311), [0xb0, 2, 1, 2]);
}

#[test]
fn subscriptions_keep_only_their_qos_before_v5() {
    let mut list = SubscriptionList::default();
    let options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    list.push("a/#", options).unwrap();
    let subscribe = Packet::Subscribe(Subscribe::new(ID, Properties::EMPTY, &list));
    assert_eq!(bytes(subscribe, Version::V5), [0x82, 9, 1, 2, 0, 0, 3, b'a', b'/', b'#', 0b10_1110]);
    assert_eq!(bytes(subscribe, Version::V311), [0x82, 8, 1, 2, 0, 3, b'a', b'/', b'#', 2]);
    let mut list = FilterList::default();
    list.push("a").unwrap().push("+").unwrap();
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(ID, Properties::EMPTY, &list));
    assert_eq!(bytes(unsubscribe, Version::V5), [0xa2, 9, 1, 2, 0, 0, 1, b'a', 0, 1, b'+']);
    assert_eq!(bytes(unsubscribe, Version::V31), [0xa2, 8, 1, 2, 0, 1, b'a', 0, 1, b'+']);
}

#[test]
fn lists_take_no_filter_that_is_none_and_are_not_sent_empty() {
    let mut list = SubscriptionList::default();
    let mut filters = FilterList::default();
    for filter in ["", "a#", "+a", "a\0"] {
        assert!(list.push(filter, SubscribeOptions::default()).is_err());
        assert!(filters.push(filter).is_err());
    }
    let mut out = Vec::new();
    assert!(Subscribe::new(ID, Properties::EMPTY, &list).encode(Version::V5, &mut out).is_err());
    assert!(Unsubscribe::new(ID, Properties::EMPTY, &filters).encode(Version::V5, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn a_connect_that_would_be_refused_is_not_written() {
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 60,
        client_id: "c",
        will: None,
        username: Some("u"),
        password: Some(b"p"),
        properties: Properties::EMPTY,
    };
    let mut out = Vec::new();
    connect.encode(&mut out).unwrap();
    assert_eq!(out, b"\x10\x13\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x01u\0\x01p");
    out.clear();
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/+",
        payload: b"",
        properties: Properties::EMPTY,
    };
    let long = "x".repeat(65_536);
    for broken in [
        Connect { username: None, ..connect },
        Connect { will: Some(will), ..connect },
        Connect { client_id: &long, ..connect },
        Connect { client_id: "\0", ..connect },
        Connect { password: Some(long.as_bytes()), ..connect },
    ] {
        assert!(broken.encode(&mut out).is_err());
        assert!(out.is_empty());
    }
    Connect { version: Version::V5, username: None, ..connect }.encode(&mut out).unwrap();
    assert_eq!(out[9], 0b0100_0010);
}

#[test]
fn a_property_that_its_receiver_would_refuse_is_not_put() {
    let mut builder = PropertiesBuilder::new();
    builder.put_user("kept", "value").unwrap();
    let before = builder.as_bytes().to_vec();
    let long = "x".repeat(65_536);
    for property in [
        Property::ReceiveMaximum(0),
        Property::MaximumPacketSize(0),
        Property::TopicAlias(0),
        Property::SubscriptionIdentifier(0),
        Property::SubscriptionIdentifier(268_435_456),
        Property::MaximumQoS(QoS::ExactlyOnce),
        Property::ResponseTopic("a/#"),
        Property::ResponseTopic(""),
        Property::ContentType("\0"),
        Property::ReasonString(&long),
        Property::CorrelationData(long.as_bytes()),
        Property::UserProperty(("name", "\0")),
        Property::UserProperty((&long, "")),
    ] {
        assert!(builder.put(property).is_err(), "{property:?}");
        assert_eq!(builder.as_bytes(), before);
    }
    let reused = PropertiesBuilder::reusing(builder.into_bytes());
    assert!(reused.properties().is_empty());
}
