//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use super::{ALL, Corner, V3, V5, V311, bad, field, good, packet, properties, text_property, user};
use broker_core::packet::ErrorKind::{Malformed, Protocol, TopicFilterInvalid};
use broker_core::packet::Role::{Client, Server};
use broker_core::packet::Version;

const V31: &[Version] = &[Version::V31];
const ID: &[u8] = &[0, 1];

pub fn corners() -> Vec<Corner> {
    [options(), filters(), shared(), lists(), subscribe_properties(), answers()]
        .into_iter()
        .flatten()
        .collect()
}

fn subscribe_v3(filter: &[u8], qos: u8) -> Vec<u8> {
    packet(0x82, &[ID, &field(filter), &[qos]])
}

fn subscribe_v5(filter: &[u8], options: u8) -> Vec<u8> {
    packet(0x82, &[ID, &[0], &field(filter), &[options]])
}

fn unsubscribe_v3(filter: &[u8]) -> Vec<u8> {
    packet(0xa2, &[ID, &field(filter)])
}

fn unsubscribe_v5(filter: &[u8]) -> Vec<u8> {
    packet(0xa2, &[ID, &[0], &field(filter)])
}

fn options() -> Vec<Corner> {
    vec![
        good("QoS 2", V3, Client, subscribe_v3(b"a", 2)),
        good("every option", V5, Client, subscribe_v5(b"a", 0b0010_1110)),
        good("retain handling 1", V5, Client, subscribe_v5(b"a", 0b0001_0001)),
        bad("3.1.1 [MQTT-3-8.3-4] QoS 3", V3, Client, subscribe_v3(b"a", 3), Malformed),
        bad(
            "3.1.1 [MQTT-3-8.3-4] reserved bits of the QoS byte",
            V311,
            Client,
            subscribe_v3(b"a", 0b101),
            Malformed,
        ),
        bad(
            "3.1.1 [MQTT-3-8.3-4] the highest bit of the QoS byte",
            V311,
            Client,
            subscribe_v3(b"a", 0x81),
            Malformed,
        ),
        bad("v5 §3.8.3.1 QoS 3", V5, Client, subscribe_v5(b"a", 3), Protocol),
        bad("v5 §3.8.3.1 retain handling 3", V5, Client, subscribe_v5(b"a", 0b0011_0000), Protocol),
        bad("[MQTT-3.8.3-5] reserved option bit 6", V5, Client, subscribe_v5(b"a", 0b0100_0000), Malformed),
        bad("[MQTT-3.8.3-5] reserved option bit 7", V5, Client, subscribe_v5(b"a", 0b1000_0000), Malformed),
        good("3.1 allows DUP in SUBSCRIBE", V31, Client, packet(0x8a, &[ID, &field("a"), &[0]])),
        good("3.1 allows DUP in UNSUBSCRIBE", V31, Client, packet(0xaa, &[ID, &field("a")])),
    ]
}

fn filters() -> Vec<Corner> {
    let mut corners = Vec::new();
    for filter in
        [&b"#"[..], b"+", b"/", b"+/+", b"/#", b"a/#", b"+/a/#", b"a//b", b"$SYS/#", "温度/+".as_bytes()]
    {
        corners.push(good("v5 §4.7.1 a filter", V3, Client, subscribe_v3(filter, 0)));
        corners.push(good("v5 §4.7.1 a filter", V5, Client, subscribe_v5(filter, 0)));
        corners.push(good("v5 §4.7.1 a filter", V3, Client, unsubscribe_v3(filter)));
        corners.push(good("v5 §4.7.1 a filter", V5, Client, unsubscribe_v5(filter)));
    }
    let rules: &[(&str, &[&[u8]])] = &[
        ("[MQTT-4.7.1-1] # stands alone and last", &[b"a#", b"#a", b"a/#/b", b"##", b"#/", b"sport/tennis#"]),
        ("[MQTT-4.7.1-2] + stands alone", &[b"a+", b"+a", b"a/+b/c", b"++", b"sport+"]),
        ("[MQTT-4.7.3-1] a filter is not empty", &[b""]),
        ("[MQTT-1.5.4-2] a filter has no U+0000", &[b"a\0", b"\0"]),
        ("[MQTT-3.8.3-1] [MQTT-3.10.3-1] a filter is UTF-8", &[b"\xff", b"\xed\xbf\xbf"]),
    ];
    for (rule, broken) in rules {
        for filter in *broken {
            corners.push(bad(rule, V3, Client, subscribe_v3(filter, 0), Malformed));
            corners.push(bad(rule, V5, Client, subscribe_v5(filter, 0), Malformed));
            corners.push(bad(rule, V3, Client, unsubscribe_v3(filter), Malformed));
            corners.push(bad(rule, V5, Client, unsubscribe_v5(filter), Malformed));
        }
    }
    let deep = "a/".repeat(128);
    corners.push(good("128 levels", V5, Client, subscribe_v5(&deep.as_bytes()[..254], 0)));
    corners.push(bad(
        "a limit of ours: 129 levels",
        V5,
        Client,
        subscribe_v5(deep.as_bytes(), 0),
        TopicFilterInvalid,
    ));
    corners.push(bad(
        "a limit of ours: 129 levels",
        V311,
        Client,
        unsubscribe_v3(deep.as_bytes()),
        TopicFilterInvalid,
    ));
    corners
}

fn shared() -> Vec<Corner> {
    let mut corners = vec![
        good("a shared subscription", V5, Client, subscribe_v5(b"$share/group/a/+/#", 1)),
        good("a shared subscription ends", V5, Client, unsubscribe_v5(b"$share/group/a")),
        good("a filter that only looks shared", V5, Client, subscribe_v5(b"$share", 0b100)),
        good("no-local without a group", V5, Client, subscribe_v5(b"a", 0b100)),
        good(
            "AIO's spelling is an ordinary filter by the standard",
            V5,
            Client,
            subscribe_v5(b"$shared/group/a", 0b100),
        ),
        bad(
            "[MQTT-3.8.3-4] a shared subscription with no-local",
            V5,
            Client,
            subscribe_v5(b"$share/group/a", 0b100),
            Protocol,
        ),
        good("3.1.1 knows no shared subscriptions", V311, Client, subscribe_v3(b"$share//a", 0)),
    ];
    for filter in
        [&b"$share//a"[..], b"$share/", b"$share/group", b"$share/group/", b"$share/+/a", b"$share/#"]
    {
        let rule = "[MQTT-4.8.2-1], [MQTT-4.8.2-2] a group and a filter, and no wildcard in the group";
        corners.push(bad(rule, V5, Client, subscribe_v5(filter, 0), Protocol));
        corners.push(bad(rule, V5, Client, unsubscribe_v5(filter), Protocol));
    }
    corners
}

fn lists() -> Vec<Corner> {
    vec![
        good("several filters", V3, Client, packet(0x82, &[ID, &field("a"), &[0], &field("b"), &[1]])),
        good("several filters", V5, Client, packet(0xa2, &[ID, &[0], &field("a"), &field("b")])),
        bad("3.1.1 [MQTT-3.8.3-3] no filter", V3, Client, packet(0x82, &[ID]), Protocol),
        bad("[MQTT-3.8.3-2] no filter", V5, Client, packet(0x82, &[ID, &[0]]), Protocol),
        bad("3.1.1 [MQTT-3.10.3-2] no filter", V3, Client, packet(0xa2, &[ID]), Protocol),
        bad("[MQTT-3.10.3-2] no filter", V5, Client, packet(0xa2, &[ID, &[0]]), Protocol),
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V3,
            Client,
            packet(0x82, &[&[0, 0], &field("a"), &[0]]),
            Protocol,
        ),
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V5,
            Client,
            packet(0x82, &[&[0, 0, 0], &field("a"), &[0]]),
            Protocol,
        ),
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V3,
            Client,
            packet(0xa2, &[&[0, 0], &field("a")]),
            Protocol,
        ),
        bad(
            "[MQTT-2.2.1-3] packet identifier 0",
            V5,
            Client,
            packet(0xa2, &[&[0, 0, 0], &field("a")]),
            Protocol,
        ),
        bad("a filter without its QoS", V3, Client, packet(0x82, &[ID, &field("a")]), Malformed),
        bad("a filter without its options", V5, Client, packet(0x82, &[ID, &[0], &field("a")]), Malformed),
        bad("a filter that is cut off", V3, Client, packet(0xa2, &[ID, &[0, 2], b"a"]), Malformed),
        bad("a SUBSCRIBE without property length", V5, Client, packet(0x82, &[ID]), Malformed),
        bad("an empty SUBSCRIBE", ALL, Client, packet(0x82, &[]), Malformed),
        bad("an empty UNSUBSCRIBE", ALL, Client, packet(0xa2, &[]), Malformed),
        bad(
            "a byte behind the last filter",
            V3,
            Client,
            packet(0x82, &[ID, &field("a"), &[0, 0]]),
            Malformed,
        ),
    ]
}

fn subscribe_properties() -> Vec<Corner> {
    let subscribe = |props: &[&[u8]]| packet(0x82, &[ID, &properties(props), &field("a"), &[0]]);
    let unsubscribe = |props: &[&[u8]]| packet(0xa2, &[ID, &properties(props), &field("a")]);
    let id: &[u8] = &[0x0b, 0x80, 0x01];
    let pair: &[u8] = &user("aio-persistence", "true");
    vec![
        good("every property of SUBSCRIBE", V5, Client, subscribe(&[id, pair, pair])),
        good("every property of UNSUBSCRIBE", V5, Client, unsubscribe(&[pair, pair])),
        bad("v5 §3.8.2.1.2 subscription identifier 0", V5, Client, subscribe(&[&[0x0b, 0]]), Protocol),
        bad("v5 §3.8.2.1.2 two subscription identifiers", V5, Client, subscribe(&[id, id]), Protocol),
        bad(
            "v5 §3.8.2.1.2 a subscription identifier of five bytes",
            V5,
            Client,
            subscribe(&[&[0x0b, 255, 255, 255, 255, 1]]),
            Malformed,
        ),
        bad(
            "v5 §2.2.2.2 a reason string in SUBSCRIBE",
            V5,
            Client,
            subscribe(&[&text_property(0x1f, "r")]),
            Malformed,
        ),
        bad(
            "v5 §2.2.2.2 a subscription identifier in UNSUBSCRIBE",
            V5,
            Client,
            unsubscribe(&[id]),
            Malformed,
        ),
    ]
}

fn answers() -> Vec<Corner> {
    let reason: &[u8] = &text_property(0x1f, "r");
    let mut corners = vec![
        good("SUBACK with every code", V311, Server, packet(0x90, &[ID, &[0, 1, 2, 0x80]])),
        good(
            "SUBACK with every code",
            V5,
            Server,
            packet(0x90, &[ID, &[0, 0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2]]),
        ),
        good("UNSUBACK has no codes before v5", V3, Server, packet(0xb0, &[ID])),
        good(
            "UNSUBACK with every code",
            V5,
            Server,
            packet(0xb0, &[ID, &[0, 0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]]),
        ),
        bad("3.1.1 [MQTT-3.9.3-2] SUBACK code 3", V311, Server, packet(0x90, &[ID, &[3]]), Malformed),
        bad("3.1.1 [MQTT-3.9.3-2] SUBACK code 0x87", V311, Server, packet(0x90, &[ID, &[0x87]]), Malformed),
        bad("[MQTT-3.9.3-2] SUBACK code 0x11", V5, Server, packet(0x90, &[ID, &[0, 0x11]]), Malformed),
        bad("[MQTT-3.11.3-2] UNSUBACK code 1", V5, Server, packet(0xb0, &[ID, &[0, 1]]), Malformed),
        bad("[MQTT-3.9.3-1] a SUBACK without codes", V3, Server, packet(0x90, &[ID]), Protocol),
        bad("[MQTT-3.9.3-1] a SUBACK without codes", V5, Server, packet(0x90, &[ID, &[0]]), Protocol),
        bad("[MQTT-3.11.3-1] an UNSUBACK without codes", V5, Server, packet(0xb0, &[ID, &[0]]), Protocol),
        bad("codes in UNSUBACK before v5", V3, Server, packet(0xb0, &[ID, &[0]]), Malformed),
    ];
    for first in [0x90, 0xb0] {
        let with = |props: &[&[u8]]| packet(first, &[ID, &properties(props), &[0]]);
        corners.extend([
            good(
                "every property of the answer",
                V5,
                Server,
                with(&[reason, &user("a", "b"), &user("a", "b")]),
            ),
            bad("v5 §3.9.2.1.2 the reason string twice", V5, Server, with(&[reason, reason]), Protocol),
            bad("v5 §2.2.2.2 a property of SUBSCRIBE", V5, Server, with(&[&[0x0b, 1]]), Malformed),
            bad("[MQTT-2.2.1-3] packet identifier 0", V5, Server, packet(first, &[&[0, 0, 0, 0]]), Protocol),
            bad("[MQTT-2.2.1-3] packet identifier 0", V311, Server, packet(first, &[&[0, 0]]), Protocol),
        ]);
    }
    corners
}
