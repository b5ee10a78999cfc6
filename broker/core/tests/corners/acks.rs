//! PUBACK to PUBCOMP, DISCONNECT and AUTH.

use super::{Corner, V3, V5, bad, good, packet, properties, text_property, user};
use broker_core::packet::ErrorKind::{Malformed, Protocol};
use broker_core::packet::Role::{Client, Server};
use broker_core::packet::Version;

pub fn corners() -> Vec<Corner> {
    [acks(), disconnect(), auth()].into_iter().flatten().collect()
}

fn acks() -> Vec<Corner> {
    let mut corners =
        vec![good("3.1 allows DUP in PUBREL", &[Version::V31], Client, packet(0x6a, &[&[0, 1]]))];
    for (first, code, foreign) in
        [(0x40, 0x10, 0x92), (0x50, 0x99, 0x92), (0x62, 0x92, 0x10), (0x70, 0x92, 0x80)]
    {
        let ack = |body: &[u8]| packet(first, &[body]);
        let reason = text_property(0x1f, "why");
        let all = [&[0, 1, code][..], &properties(&[&reason, &user("a", "b"), &user("a", "b")])].concat();
        let twice = [&[0, 1, code][..], &properties(&[&reason, &reason])].concat();
        corners.extend([
            good("an acknowledgement is two bytes", super::ALL, Client, ack(&[0, 1])),
            good("v5 §3.4.2.1 the properties may be left out", V5, Server, ack(&[1, 0, code])),
            good("v5 §3.4.2.2.1 a property length of 0", V5, Server, ack(&[1, 0, 0, 0])),
            good("every property of an acknowledgement", V5, Client, ack(&all)),
            bad("[MQTT-2.2.1-3] packet identifier 0", super::ALL, Client, ack(&[0, 0]), Protocol),
            bad("an acknowledgement of one byte", super::ALL, Client, ack(&[1]), Malformed),
            bad("an empty acknowledgement", super::ALL, Client, ack(&[]), Malformed),
            bad("a reason code before v5", V3, Client, ack(&[0, 1, 0]), Malformed),
            bad(
                "[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] a reason code of another packet",
                V5,
                Client,
                ack(&[0, 1, foreign]),
                Malformed,
            ),
            bad(
                "[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] an unknown reason code",
                V5,
                Client,
                ack(&[0, 1, 0x7f]),
                Malformed,
            ),
            bad("v5 §3.4.2.2.2 the reason string twice", V5, Client, ack(&twice), Protocol),
            bad("v5 §2.2.2.2 a property of PUBLISH", V5, Client, ack(&[0, 1, 0, 2, 1, 1]), Malformed),
            bad("bytes behind the properties", V5, Client, ack(&[0, 1, 0, 0, 0]), Malformed),
            bad("a property length behind the end of the packet", V5, Client, ack(&[0, 1, 0, 1]), Malformed),
        ]);
    }
    corners
}

fn disconnect() -> Vec<Corner> {
    let with = |code: u8, props: &[&[u8]]| packet(0xe0, &[&[code], &properties(props)]);
    let expiry: &[u8] = &[0x11, 0, 0, 0, 1];
    vec![
        good("DISCONNECT is two bytes", super::ALL, Client, vec![0xe0, 0]),
        good("a server says why it ends", V5, Server, packet(0xe0, &[&[0x8e]])),
        good("v5 §2.4 lists 0x8C for DISCONNECT, table 3-10 does not", V5, Server, packet(0xe0, &[&[0x8c]])),
        good("a client wants its will", V5, Client, packet(0xe0, &[&[0x04]])),
        good("a property length of 0", V5, Client, packet(0xe0, &[&[0, 0]])),
        good(
            "every property of a client's DISCONNECT",
            V5,
            Client,
            with(0, &[expiry, &text_property(0x1f, "r"), &user("a", "b"), &user("a", "b")]),
        ),
        good(
            "every property of a server's DISCONNECT",
            V5,
            Server,
            with(0x9c, &[&text_property(0x1c, "s"), &text_property(0x1f, "r"), &user("a", "b")]),
        ),
        bad("DISCONNECT has no body before v5 (3.1.1 §3.14)", V3, Client, packet(0xe0, &[&[0]]), Malformed),
        bad(
            "[MQTT-3.14.2-2] a server's session expiry interval",
            V5,
            Server,
            with(0x8b, &[expiry]),
            Protocol,
        ),
        bad(
            "v5 §3.14.2.2.2 the session expiry interval twice",
            V5,
            Client,
            with(0, &[expiry, expiry]),
            Protocol,
        ),
        bad("[MQTT-3.14.2-1] a reason code of SUBACK", V5, Client, packet(0xe0, &[&[0x01]]), Malformed),
        bad("[MQTT-3.14.2-1] an unknown reason code", V5, Client, packet(0xe0, &[&[0xa3]]), Malformed),
        bad(
            "v5 table 3-10 a client does not take a session over",
            V5,
            Client,
            packet(0xe0, &[&[0x8e]]),
            Malformed,
        ),
        bad("v5 table 3-10 a server has no will", V5, Server, packet(0xe0, &[&[0x04]]), Malformed),
        bad("v5 §2.2.2.2 a property of CONNECT", V5, Client, with(0, &[&[0x21, 0, 1]]), Malformed),
        bad("bytes behind the properties", V5, Client, packet(0xe0, &[&[0, 0, 0]]), Malformed),
    ]
}

fn auth() -> Vec<Corner> {
    let with = |code: u8, props: &[&[u8]]| packet(0xf0, &[&[code], &properties(props)]);
    let method: &[u8] = &text_property(0x15, "SCRAM-SHA-1");
    let data: &[u8] = &text_property(0x16, b"\0\xff");
    let reason: &[u8] = &text_property(0x1f, "r");
    vec![
        good("v5 §3.15.2.1 an empty AUTH is a success", V5, Server, vec![0xf0, 0]),
        good(
            "every property of AUTH",
            V5,
            Client,
            with(0x18, &[method, data, reason, &user("a", "b"), &user("a", "b")]),
        ),
        good("a client authenticates again", V5, Client, with(0x19, &[method])),
        good("a server is satisfied", V5, Server, with(0, &[method])),
        bad("v5 table 3-11 a client does not declare success", V5, Client, with(0, &[method]), Malformed),
        bad("v5 table 3-11 a server does not ask again", V5, Server, with(0x19, &[method]), Malformed),
        bad("[MQTT-3.15.2-1] an unknown reason code", V5, Client, with(0x17, &[method]), Malformed),
        bad("v5 §3.15.2.2.2 no method", V5, Client, with(0x18, &[]), Protocol),
        bad("v5 §3.15.2.2.2 no method and no properties", V5, Client, packet(0xf0, &[&[0x18]]), Protocol),
        bad("v5 §3.15.2.2.2 the method twice", V5, Client, with(0x18, &[method, method]), Protocol),
        bad("v5 §3.15.2.2.3 the data twice", V5, Client, with(0x18, &[method, data, data]), Protocol),
        bad("v5 §3.15.2.2.3 data without a method", V5, Client, with(0x18, &[data]), Protocol),
        bad("v5 §2.2.2.2 a property of CONNECT", V5, Client, with(0x18, &[method, &[0x21, 0, 1]]), Malformed),
        bad(
            "bytes behind the properties",
            V5,
            Client,
            packet(0xf0, &[&[0x18], &properties(&[method]), &[0]]),
            Malformed,
        ),
    ]
}
