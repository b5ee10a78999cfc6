//! CONNECT and CONNACK.

use super::{ALL, Corner, V3, V5, V311, bad, field, good, packet, properties, text_property, user};
use broker_core::packet::ErrorKind::{
    ClientIdInvalid, Malformed, Protocol, TopicNameInvalid, UnsupportedVersion,
};
use broker_core::packet::Role::{Client, Server};
use broker_core::packet::Version;

const V31: &[Version] = &[Version::V31];

/// CONNECT with keep alive 60; `rest` is what stands behind it.
fn connect(name: &str, level: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[&field(name), &[level, flags, 0, 60], &rest.concat()])
}

fn v311(flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    connect("MQTT", 4, flags, rest)
}

fn v5(flags: u8, props: &[&[u8]], rest: &[&[u8]]) -> Vec<u8> {
    connect("MQTT", 5, flags, &[&properties(props), &rest.concat()])
}

/// v5, clean start, no client identifier.
fn with(props: &[&[u8]]) -> Vec<u8> {
    v5(0b10, props, &[&field("")])
}

/// v5 with a will that has these properties.
fn with_will(props: &[&[u8]]) -> Vec<u8> {
    v5(0b110, &[], &[&field("c"), &properties(props), &field("t"), &field("gone")])
}

pub fn corners() -> Vec<Corner> {
    [versions(), flags(), identifiers(), wills(), fields(), connect_properties(), connack()]
        .into_iter()
        .flatten()
        .collect()
}

fn versions() -> Vec<Corner> {
    let c = &field("c");
    vec![
        good("3.1 is MQIsdp, level 3", V31, Client, connect("MQIsdp", 3, 2, &[c])),
        good("3.1.1 is MQTT, level 4", V311, Client, v311(2, &[c])),
        good("5 is MQTT, level 5", V5, Client, v5(2, &[], &[c])),
        bad(
            "[MQTT-3.1.2-1] another protocol name",
            ALL,
            Client,
            connect("MQTS", 4, 2, &[c]),
            UnsupportedVersion,
        ),
        bad(
            "[MQTT-3.1.2-1] the name in small letters",
            ALL,
            Client,
            connect("mqtt", 4, 2, &[c]),
            UnsupportedVersion,
        ),
        bad("[MQTT-3.1.2-1] an empty name", ALL, Client, connect("", 4, 2, &[c]), UnsupportedVersion),
        bad("[MQTT-3.1.2-2] level 6", V5, Client, connect("MQTT", 6, 2, &[&[0], c]), UnsupportedVersion),
        bad(
            "[MQTT-3.1.2-2] level 3 under the new name",
            V311,
            Client,
            connect("MQTT", 3, 2, &[c]),
            UnsupportedVersion,
        ),
        bad(
            "[MQTT-3.1.2-2] level 4 under the old name",
            V311,
            Client,
            connect("MQIsdp", 4, 2, &[c]),
            UnsupportedVersion,
        ),
        bad("[MQTT-3.1.2-2] level 0", V311, Client, connect("MQTT", 0, 2, &[c]), UnsupportedVersion),
        bad("a server sends no CONNECT (table 2-1)", V311, Server, v311(2, &[c]), Protocol),
    ]
}

fn flags() -> Vec<Corner> {
    let c = &field("c");
    let will = [field("t"), field("gone")].concat();
    vec![
        bad("[MQTT-3.1.2-3] the reserved connect flag", V311, Client, v311(0b11, &[c]), Malformed),
        bad("[MQTT-3.1.2-3] the reserved connect flag", V5, Client, v5(0b11, &[], &[c]), Malformed),
        good("3.1 does not look at the unused connect flag", V31, Client, connect("MQIsdp", 3, 0b11, &[c])),
        bad("[MQTT-3.1.2-11] a will QoS without a will", V311, Client, v311(0b1010, &[c]), Malformed),
        bad("[MQTT-3.1.2-11] a will QoS without a will", V5, Client, v5(0b1_0010, &[], &[c]), Malformed),
        bad(
            "[MQTT-3.1.2-13] a will retain flag without a will",
            V311,
            Client,
            v311(0b10_0010, &[c]),
            Malformed,
        ),
        bad(
            "[MQTT-3.1.2-13] a will retain flag without a will",
            V5,
            Client,
            v5(0b10_0010, &[], &[c]),
            Malformed,
        ),
        bad("[MQTT-3.1.2-12] a will of QoS 3", V311, Client, v311(0b1_1110, &[c, &will]), Malformed),
        bad("[MQTT-3.1.2-12] a will of QoS 3", V5, Client, v5(0b1_1110, &[], &[c, &[0], &will]), Malformed),
        bad(
            "3.1.1 [MQTT-3.1.2-22] a password without a user name",
            V311,
            Client,
            v311(0b0100_0010, &[c, &field("p")]),
            Malformed,
        ),
        good(
            "v5 §3.1.2.9 allows a password without a user name",
            V5,
            Client,
            v5(0b0100_0010, &[], &[c, &field("p")]),
        ),
        good("a user name without a password", V311, Client, v311(0b1000_0010, &[c, &field("u")])),
        bad("[MQTT-3.1.2-17] the user name is missing", V311, Client, v311(0b1000_0010, &[c]), Malformed),
        bad(
            "[MQTT-3.1.2-19] the password is missing",
            V5,
            Client,
            v5(0b1100_0010, &[], &[c, &field("u")]),
            Malformed,
        ),
        good("3.1 lets flagged credentials be missing", V31, Client, connect("MQIsdp", 3, 0b1100_0010, &[c])),
        bad(
            "[MQTT-3.1.2-16] a user name without its flag",
            V311,
            Client,
            v311(2, &[c, &field("u")]),
            Malformed,
        ),
        bad(
            "[MQTT-3.1.2-18] a password without its flag",
            V5,
            Client,
            v5(0b1000_0010, &[], &[c, &field("u"), &field("p")]),
            Malformed,
        ),
    ]
}

fn identifiers() -> Vec<Corner> {
    let none = &field("");
    vec![
        bad("3.1 wants an identifier", V31, Client, connect("MQIsdp", 3, 2, &[none]), ClientIdInvalid),
        good("3.1 takes 23 characters", V31, Client, connect("MQIsdp", 3, 2, &[&field("é".repeat(23))])),
        bad(
            "3.1 does not take 24",
            V31,
            Client,
            connect("MQIsdp", 3, 2, &[&field("x".repeat(24))]),
            ClientIdInvalid,
        ),
        good("3.1.1 [MQTT-3.1.3-7] no identifier, clean session", V311, Client, v311(2, &[none])),
        bad(
            "3.1.1 [MQTT-3.1.3-8] no identifier, session to be kept",
            V311,
            Client,
            v311(0, &[none]),
            ClientIdInvalid,
        ),
        good("[MQTT-3.1.3-6] no identifier", V5, Client, v5(0, &[], &[none])),
        good("a long identifier", V5, Client, v5(0, &[], &[&field("x".repeat(65_535))])),
        bad("[MQTT-3.1.3-3] the identifier is missing", V311, Client, v311(2, &[]), Malformed),
        bad("[MQTT-3.1.3-3] the identifier is missing", V5, Client, v5(2, &[], &[]), Malformed),
        bad(
            "[MQTT-3.1.3-4] [MQTT-1.5.4-1] the identifier is not UTF-8",
            V5,
            Client,
            v5(2, &[], &[&field(b"\xff")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.4-2] the identifier holds U+0000",
            V5,
            Client,
            v5(2, &[], &[&field("a\0b")]),
            Malformed,
        ),
        bad(
            "3.1.1 [MQTT-1.5.3-2] the identifier holds U+0000",
            V311,
            Client,
            v311(2, &[&field("a\0b")]),
            Malformed,
        ),
    ]
}

fn wills() -> Vec<Corner> {
    let will = |topic: &[u8]| v5(0b110, &[], &[&field("c"), &[0], &field(topic), &field("gone")]);
    let will_v311 = |topic: &[u8]| v311(0b110, &[&field("c"), &field(topic), &field("gone")]);
    let expiry = [2, 0, 0, 0, 9];
    let delay = [0x18, 0, 0, 0, 9];
    vec![
        good("a will", V5, Client, will(b"t")),
        good("a will", V311, Client, will_v311(b"t")),
        good(
            "a retained will of QoS 2",
            V311,
            Client,
            v311(0b11_0110, &[&field("c"), &field("t"), &field("")]),
        ),
        bad("[MQTT-4.7.3-1] the will's topic is empty", V5, Client, will(b""), Malformed),
        bad("[MQTT-4.7.3-1] the will's topic is empty", V311, Client, will_v311(b""), Malformed),
        bad("[MQTT-4.7.0-1] the will's topic has a wildcard", V5, Client, will(b"a/+"), Malformed),
        bad("[MQTT-4.7.0-1] the will's topic has a wildcard", V311, Client, will_v311(b"#"), Malformed),
        bad("[MQTT-3.1.3-11] the will's topic is not UTF-8", V5, Client, will(b"\xc0\x80"), Malformed),
        bad("[MQTT-1.5.4-2] the will's topic holds U+0000", V5, Client, will(b"a\0"), Malformed),
        bad(
            "a limit of ours: the will's topic has too many levels",
            V5,
            Client,
            will("/".repeat(128).as_bytes()),
            TopicNameInvalid,
        ),
        bad("[MQTT-3.1.2-9] the will is missing", V311, Client, v311(0b110, &[&field("c")]), Malformed),
        bad(
            "[MQTT-3.1.2-9] the will's payload is missing",
            V311,
            Client,
            v311(0b110, &[&field("c"), &field("t")]),
            Malformed,
        ),
        bad(
            "[MQTT-3.1.2-9] the will's properties are missing",
            V5,
            Client,
            v5(0b110, &[], &[&field("c")]),
            Malformed,
        ),
        good(
            "every property of a will",
            V5,
            Client,
            with_will(&[
                &delay,
                &expiry,
                &[1, 1],
                &text_property(3, "text/plain"),
                &text_property(8, "r"),
                &text_property(9, b"\0"),
                &user("a", "b"),
                &user("a", "b"),
            ]),
        ),
        bad(
            "v5 §3.1.3.2.2 the will delay interval twice",
            V5,
            Client,
            with_will(&[&delay, &delay]),
            Protocol,
        ),
        bad("v5 §2.2.2.2 a topic alias in a will", V5, Client, with_will(&[&[0x23, 0, 1]]), Malformed),
        bad(
            "v5 §2.2.2.2 a session expiry interval in a will",
            V5,
            Client,
            with_will(&[&[0x11, 0, 0, 0, 1]]),
            Malformed,
        ),
        bad(
            "[MQTT-3.3.2-14] a will's response topic has a wildcard",
            V5,
            Client,
            with_will(&[&text_property(8, "r/#")]),
            Protocol,
        ),
    ]
}

fn fields() -> Vec<Corner> {
    let c = &field("c");
    vec![
        bad("an empty CONNECT", ALL, Client, packet(0x10, &[]), Malformed),
        bad(
            "a CONNECT that ends in the protocol name",
            ALL,
            Client,
            packet(0x10, &[&[0, 4], b"MQ"]),
            Malformed,
        ),
        bad("a CONNECT without a level", ALL, Client, packet(0x10, &[&field("MQTT")]), Malformed),
        bad("a CONNECT without flags", ALL, Client, packet(0x10, &[&field("MQTT"), &[4]]), Malformed),
        bad(
            "a CONNECT without keep alive",
            ALL,
            Client,
            packet(0x10, &[&field("MQTT"), &[4, 2, 0]]),
            Malformed,
        ),
        bad("a v5 CONNECT without property length", V5, Client, connect("MQTT", 5, 2, &[]), Malformed),
        bad("bytes behind the last field", V311, Client, v311(2, &[c, &[0]]), Malformed),
        bad("bytes behind the last field", V5, Client, v5(2, &[], &[c, &[0]]), Malformed),
        bad(
            "[MQTT-3.1.3-12] the user name is not UTF-8",
            V311,
            Client,
            v311(0b1000_0010, &[c, &field(b"\xed\xa0\x80")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.4-2] the user name holds U+0000",
            V5,
            Client,
            v5(0b1000_0010, &[], &[c, &field("\0")]),
            Malformed,
        ),
        good(
            "a password is any bytes",
            V311,
            Client,
            v311(0b1100_0010, &[c, &field("u"), &field(b"\0\xff")]),
        ),
    ]
}

fn connect_properties() -> Vec<Corner> {
    let all: &[&[u8]] = &[
        &[0x11, 0, 0, 0, 1],
        &[0x21, 0, 1],
        &[0x27, 0, 0, 0, 1],
        &[0x22, 0, 0],
        &[0x19, 1],
        &[0x17, 0],
        &user("", ""),
        &text_property(0x15, "K8S-SAT"),
        &text_property(0x16, b"\0\xff"),
    ];
    let mut corners = vec![
        good("every property of CONNECT", V5, Client, with(all)),
        bad("v5 §3.1.2.11.3 receive maximum 0", V5, Client, with(&[&[0x21, 0, 0]]), Protocol),
        bad("v5 §3.1.2.11.4 maximum packet size 0", V5, Client, with(&[&[0x27, 0, 0, 0, 0]]), Protocol),
        bad("v5 §3.1.2.11.6 request response information 2", V5, Client, with(&[&[0x19, 2]]), Protocol),
        bad("v5 §3.1.2.11.7 request problem information 2", V5, Client, with(&[&[0x17, 2]]), Protocol),
        bad(
            "v5 §3.1.2.11.10 authentication data without a method",
            V5,
            Client,
            with(&[&text_property(0x16, "d")]),
            Protocol,
        ),
        bad(
            "[MQTT-1.5.4-2] the authentication method holds U+0000",
            V5,
            Client,
            with(&[&text_property(0x15, "\0")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.7-1] a user property's name is not UTF-8",
            V5,
            Client,
            with(&[&user(b"\xff", "")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.7-1] a user property's value is not UTF-8",
            V5,
            Client,
            with(&[&user("", b"\xff")]),
            Malformed,
        ),
        bad("[MQTT-1.5.4-2] a user property holds U+0000", V5, Client, with(&[&user("", "\0")]), Malformed),
        bad("v5 §2.2.2.2 an unknown property", V5, Client, with(&[&[0x7f, 0]]), Malformed),
        bad("v5 §2.2.2.2 property 0", V5, Client, with(&[&[0x00]]), Malformed),
        bad("v5 §2.2.2.2 a property of PUBLISH", V5, Client, with(&[&[0x01, 0]]), Malformed),
        bad("v5 §2.2.2.2 a property of CONNACK", V5, Client, with(&[&[0x13, 0, 1]]), Malformed),
        bad("v5 §2.2.2.2 a property of a will", V5, Client, with(&[&[0x18, 0, 0, 0, 1]]), Malformed),
        bad(
            "a property whose value is cut off by the property length",
            V5,
            Client,
            connect("MQTT", 5, 2, &[&[3, 0x11, 0, 0, 0, 1], &field("c")]),
            Malformed,
        ),
        bad(
            "a property length behind the end of the packet",
            V5,
            Client,
            connect("MQTT", 5, 2, &[&[9, 0x11, 0, 0, 0, 1]]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.5-1] an over-long property length",
            V5,
            Client,
            connect("MQTT", 5, 2, &[&[0x80, 0], &field("c")]),
            Malformed,
        ),
        bad(
            "[MQTT-1.5.5-1] an over-long remaining length",
            V5,
            Client,
            {
                let mut bytes = v5(2, &[], &[&field("c")]);
                bytes.splice(1..2, [bytes[1] | 0x80, 0]);
                bytes
            },
            Malformed,
        ),
    ];
    for property in all.iter().filter(|property| property[0] != 0x26) {
        let mut twice = all.to_vec();
        twice.push(property);
        corners.push(bad("v5 §3.1.2.11 a property of CONNECT twice", V5, Client, with(&twice), Protocol));
    }
    corners
}

fn connack() -> Vec<Corner> {
    let with = |props: &[&[u8]]| packet(0x20, &[&[0, 0], &properties(props)]);
    let all: &[&[u8]] = &[
        &[0x11, 0, 0, 0, 0],
        &[0x21, 0, 1],
        &[0x24, 1],
        &[0x25, 0],
        &[0x27, 0, 0, 0, 1],
        &text_property(0x12, "c"),
        &[0x22, 0, 1],
        &text_property(0x1f, "ok"),
        &user("a", "b"),
        &[0x28, 1],
        &[0x29, 1],
        &[0x2a, 1],
        &[0x13, 0, 1],
        &text_property(0x1a, "i"),
        &text_property(0x1c, "s"),
        &text_property(0x15, "m"),
        &text_property(0x16, "d"),
    ];
    let mut corners = vec![
        good("a CONNACK", V3, Server, packet(0x20, &[&[0, 0]])),
        good("a CONNACK with a session", V311, Server, packet(0x20, &[&[1, 0]])),
        good("3.1 does not look at the reserved byte of CONNACK", V31, Server, packet(0x20, &[&[0xff, 0]])),
        good("a CONNACK", V5, Server, packet(0x20, &[&[0, 0, 0]])),
        good("every property of CONNACK", V5, Server, with(all)),
        bad("[MQTT-3.2.2-1] a reserved flag of CONNACK", V311, Server, packet(0x20, &[&[2, 0]]), Malformed),
        bad("[MQTT-3.2.2-1] a reserved flag of CONNACK", V5, Server, packet(0x20, &[&[2, 0, 0]]), Malformed),
        bad("3.1.1 table 3.1 return code 6", V3, Server, packet(0x20, &[&[0, 6]]), Malformed),
        bad("[MQTT-3.2.2-8] reason code 1 in CONNACK", V5, Server, packet(0x20, &[&[0, 1, 0]]), Malformed),
        bad(
            "[MQTT-3.2.2-8] reason code 0x8E in CONNACK",
            V5,
            Server,
            packet(0x20, &[&[0, 0x8e, 0]]),
            Malformed,
        ),
        bad("3.1.1 [MQTT-3.2.2-4] a session with an error", V311, Server, packet(0x20, &[&[1, 5]]), Protocol),
        bad("[MQTT-3.2.2-6] a session with an error", V5, Server, packet(0x20, &[&[1, 0x87, 0]]), Protocol),
        bad("a CONNACK without its code", ALL, Server, packet(0x20, &[&[0]]), Malformed),
        bad("a CONNACK without property length", V5, Server, packet(0x20, &[&[0, 0]]), Malformed),
        bad("bytes behind the code", V311, Server, packet(0x20, &[&[0, 0, 0]]), Malformed),
        bad("bytes behind the properties", V5, Server, packet(0x20, &[&[0, 0, 0, 0]]), Malformed),
        bad("v5 §3.2.2.3.4 maximum QoS 2", V5, Server, with(&[&[0x24, 2]]), Protocol),
        bad("v5 §3.2.2.3.3 receive maximum 0", V5, Server, with(&[&[0x21, 0, 0]]), Protocol),
        bad("v5 §3.2.2.3.5 retain available 2", V5, Server, with(&[&[0x25, 2]]), Protocol),
        bad("v5 §3.2.2.3.6 maximum packet size 0", V5, Server, with(&[&[0x27, 0, 0, 0, 0]]), Protocol),
        bad("v5 §2.2.2.2 a topic alias in CONNACK", V5, Server, with(&[&[0x23, 0, 1]]), Malformed),
    ];
    for property in all.iter().filter(|property| property[0] != 0x26) {
        let mut twice = all.to_vec();
        twice.push(property);
        corners.push(bad("v5 §3.2.2.3 a property of CONNACK twice", V5, Server, with(&twice), Protocol));
    }
    corners
}
