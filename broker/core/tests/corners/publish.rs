//! PUBLISH.

use super::{ALL, Corner, V3, V5, V311, bad, field, good, packet, properties, text_property, user};
use broker_core::packet::ErrorKind::{Malformed, Protocol, TopicAliasInvalid, TopicNameInvalid};
use broker_core::packet::Role::{Client, Server};
use broker_core::packet::Version;

/// QoS 0, v5, on topic `t`.
fn with(props: &[&[u8]]) -> Vec<u8> {
    packet(0x30, &[&field("t"), &properties(props), b"payload"])
}

pub fn corners() -> Vec<Corner> {
    [flags(), topics(), identifiers(), publish_properties()].into_iter().flatten().collect()
}

fn flags() -> Vec<Corner> {
    let publish_v3 = |first: u8| packet(first, &[&field("t"), &[0, 1], b"p"]);
    let publish_v5 = |first: u8| packet(first, &[&field("t"), &[0, 1, 0], b"p"]);
    vec![
        bad("[MQTT-3.3.1-4] QoS 3", V3, Client, publish_v3(0x36), Malformed),
        bad("[MQTT-3.3.1-4] QoS 3", V5, Server, publish_v5(0x36), Malformed),
        bad("[MQTT-3.3.1-2] DUP with QoS 0", V311, Client, packet(0x38, &[&field("t"), b"p"]), Malformed),
        bad("[MQTT-3.3.1-2] DUP with QoS 0", V5, Client, packet(0x38, &[&field("t"), &[0], b"p"]), Malformed),
        good(
            "3.1 gives DUP with QoS 0 no meaning",
            &[Version::V31],
            Client,
            packet(0x38, &[&field("t"), b"p"]),
        ),
        good("DUP and RETAIN with QoS 1", V3, Client, publish_v3(0x3b)),
        good("DUP and RETAIN with QoS 2", V5, Server, publish_v5(0x3d)),
        good("RETAIN with QoS 0 and no payload", V311, Client, packet(0x31, &[&field("t")])),
    ]
}

fn topics() -> Vec<Corner> {
    let v3 = |topic: &[u8]| packet(0x30, &[&field(topic), b"p"]);
    let v5 = |topic: &[u8]| packet(0x30, &[&field(topic), &[0], b"p"]);
    let mut corners = vec![
        bad("[MQTT-4.7.3-1] an empty topic", V3, Client, v3(b""), Malformed),
        bad("v5 §3.3.2.1 neither topic nor alias", V5, Client, v5(b""), Protocol),
        good(
            "v5 §3.3.2.1 an alias for a topic",
            V5,
            Client,
            packet(0x30, &[&field(""), &properties(&[&[0x23, 0, 1]])]),
        ),
        good("a slash alone", V3, Client, v3(b"/")),
        good("a topic with spaces and other letters", V5, Client, v5("Größe / 温度".as_bytes())),
        good("[MQTT-1.5.4-3] a byte order mark stays", V5, Client, v5(b"\xef\xbb\xbfa")),
        good("[MQTT-4.7.2-1] a topic that begins with $", V5, Client, v5(b"$SYS/x")),
        good(
            "control characters SHOULD NOT, but may, be in a string (v5 §1.5.4)",
            V5,
            Client,
            v5(b"a\x01\x7f"),
        ),
        good("[MQTT-4.7.3-3] a topic of 65,535 bytes", V5, Client, v5(&[b'x'; 65_535])),
        good("128 levels", V311, Client, v3("/".repeat(127).as_bytes())),
        bad("a limit of ours: 129 levels", V311, Client, v3("/".repeat(128).as_bytes()), TopicNameInvalid),
        bad("a limit of ours: 129 levels", V5, Client, v5("/".repeat(128).as_bytes()), TopicNameInvalid),
    ];
    for topic in [&b"a/+/b"[..], b"+", b"#", b"a/#", b"abcdefg+", b"abcdefgh#", b"abcdefghijklm+nop"] {
        corners.push(bad("[MQTT-3.3.2-2] a topic with a wildcard", V3, Client, v3(topic), Malformed));
        corners.push(bad("[MQTT-3.3.2-2] a topic with a wildcard", V5, Client, v5(topic), Malformed));
    }
    for topic in [&b"a\0"[..], b"\0", b"abcdefgh\0", b"\0abcdefghijklmno"] {
        corners.push(bad("3.1.1 [MQTT-1.5.3-2] a topic with U+0000", V3, Client, v3(topic), Malformed));
        corners.push(bad("[MQTT-1.5.4-2] a topic with U+0000", V5, Client, v5(topic), Malformed));
    }
    // A stray byte, a cut-off sequence, U+0000 in two bytes, a surrogate, above U+10FFFF.
    for topic in [&b"\xff"[..], b"a\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        corners.push(bad("3.1.1 [MQTT-1.5.3-1] a topic that is not UTF-8", V3, Client, v3(topic), Malformed));
        corners.push(bad(
            "[MQTT-3.3.2-1] [MQTT-1.5.4-1] a topic that is not UTF-8",
            V5,
            Client,
            v5(topic),
            Malformed,
        ));
    }
    corners
}

fn identifiers() -> Vec<Corner> {
    vec![
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V3,
            Client,
            packet(0x32, &[&field("t"), &[0, 0], b"p"]),
            Protocol,
        ),
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V5,
            Client,
            packet(0x34, &[&field("t"), &[0, 0, 0], b"p"]),
            Protocol,
        ),
        bad("the packet identifier is cut off", ALL, Client, packet(0x32, &[&field("t"), &[1]]), Malformed),
        bad("the packet identifier is missing", ALL, Client, packet(0x34, &[&field("t")]), Malformed),
        bad("the topic is longer than the packet", ALL, Client, packet(0x30, &[&[0, 9], b"t"]), Malformed),
        bad("an empty PUBLISH", ALL, Client, packet(0x30, &[]), Malformed),
        bad(
            "v5 §3.3.2.3.1 the property length is missing",
            V5,
            Client,
            packet(0x30, &[&field("t")]),
            Malformed,
        ),
        bad(
            "a property length behind the end of the packet",
            V5,
            Client,
            packet(0x30, &[&field("t"), &[5], b"p"]),
            Malformed,
        ),
    ]
}

fn publish_properties() -> Vec<Corner> {
    let all: &[&[u8]] = &[
        &[1, 1],
        &[2, 0, 0, 0, 0],
        &[0x23, 0xff, 0xff],
        &text_property(8, "reply/to"),
        &text_property(9, b"\0\xff"),
        &text_property(3, ""),
        &user("a", "b"),
        &user("a", "é"),
    ];
    let id: &[u8] = &[0x0b, 0xff, 0xff, 0xff, 0x7f];
    let mut corners = vec![
        good("every property of a client's PUBLISH", V5, Client, with(all)),
        good("one subscription identifier", V5, Server, with(&[id])),
        good(
            "v5 §3.3.2.3.8 several subscription identifiers",
            V5,
            Server,
            with(&[id, &user("a", "b"), id, &[0x0b, 1]]),
        ),
        bad("[MQTT-3.3.4-6] a client's subscription identifier", V5, Client, with(&[id]), Protocol),
        bad("v5 §3.3.2.3.8 subscription identifier 0", V5, Server, with(&[&[0x0b, 0]]), Protocol),
        bad(
            "[MQTT-1.5.5-1] an over-long subscription identifier",
            V5,
            Server,
            with(&[&[0x0b, 0x81, 0]]),
            Malformed,
        ),
        bad("[MQTT-3.3.2-8] topic alias 0", V5, Client, with(&[&[0x23, 0, 0]]), TopicAliasInvalid),
        bad("v5 §3.3.2.3.2 payload format indicator 2", V5, Client, with(&[&[1, 2]]), Protocol),
        bad(
            "[MQTT-3.3.2-14] a response topic with a wildcard",
            V5,
            Client,
            with(&[&text_property(8, "r/+")]),
            Protocol,
        ),
        bad("[MQTT-4.7.3-1] an empty response topic", V5, Client, with(&[&text_property(8, "")]), Protocol),
        bad(
            "[MQTT-3.3.2-13] a response topic that is not UTF-8",
            V5,
            Client,
            with(&[&text_property(8, b"\xff")]),
            Malformed,
        ),
        bad(
            "[MQTT-3.3.2-19] a content type that is not UTF-8",
            V5,
            Client,
            with(&[&text_property(3, b"\xff")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.4-2] a content type with U+0000",
            V5,
            Client,
            with(&[&text_property(3, "a\0b")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.7-1] a user property's name with U+0000",
            V5,
            Client,
            with(&[&user("name with \0", "v")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.7-1] a user property's value with U+0000",
            V5,
            Client,
            with(&[&user("n", "a value with \0")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.7-1] a user property's value is not UTF-8",
            V5,
            Client,
            with(&[&user("n", b"a value with \xff")]),
            Malformed,
        ),
        bad("a user property without its value", V5, Client, with(&[&text_property(0x26, "n")]), Malformed),
        bad("v5 §2.2.2.2 an unknown property", V5, Client, with(&[&[0x04, 0]]), Malformed),
        bad(
            "v5 §2.2.2.2 a property identifier of two bytes",
            V5,
            Client,
            with(&[&[0x81, 0x00, 1]]),
            Malformed,
        ),
        bad("v5 §2.2.2.2 a reason string", V5, Client, with(&[&text_property(0x1f, "r")]), Malformed),
        bad(
            "[MQTT-1.5.5-1] an over-long property length",
            V5,
            Client,
            packet(0x30, &[&field("t"), &[0x80, 0], b"p"]),
            Malformed,
        ),
        good(
            "v5 §3.3.2.3.2 a payload is not checked against its format",
            V5,
            Client,
            packet(0x30, &[&field("t"), &properties(&[&[1, 1]]), b"\xff"]),
        ),
    ];
    for property in all.iter().filter(|property| property[0] != 0x26) {
        let mut twice = all.to_vec();
        twice.push(property);
        corners.push(bad("v5 §3.3.2.3 a property of PUBLISH twice", V5, Client, with(&twice), Protocol));
    }
    corners
}
