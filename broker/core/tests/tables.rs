//! The standard's tables of properties and reason codes, packet by packet, held against the codec: every property
//! and every code in every place, allowed or not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bytes;

use broker_core::packet::{Decoded, ErrorKind, Limits, Role, Version, decode};
use bytes::{field, packet, properties, text_property, user};

/// Every property with a value that any place accepts.
fn values() -> Vec<(u8, Vec<u8>)> {
    let mut values: Vec<(u8, Vec<u8>)> = vec![
        (0x01, vec![0x01, 1]),
        (0x02, vec![0x02, 0, 0, 0, 1]),
        (0x0b, vec![0x0b, 1]),
        (0x11, vec![0x11, 0, 0, 0, 1]),
        (0x13, vec![0x13, 0, 1]),
        (0x17, vec![0x17, 1]),
        (0x18, vec![0x18, 0, 0, 0, 1]),
        (0x19, vec![0x19, 1]),
        (0x21, vec![0x21, 0, 1]),
        (0x22, vec![0x22, 0, 1]),
        (0x23, vec![0x23, 0, 1]),
        (0x24, vec![0x24, 1]),
        (0x25, vec![0x25, 1]),
        (0x26, user("a", "b")),
        (0x27, vec![0x27, 0, 0, 0, 1]),
        (0x28, vec![0x28, 1]),
        (0x29, vec![0x29, 1]),
        (0x2a, vec![0x2a, 1]),
    ];
    let texts = [0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f];
    values.extend(texts.map(|id| (id, text_property(id, "x"))));
    assert_eq!(values.len(), 27); // table 2-4
    values
}

/// Somewhere that properties stand.
struct Place {
    name: &'static str,
    from: Role,
    /// The properties that the standard's section on the packet names.
    allowed: &'static [u8],
    /// A packet with these properties, encoded with their length.
    packet: fn(&[u8]) -> Vec<u8>,
}

const ACK: &[u8] = &[0x1f, 0x26];

const PLACES: &[Place] = &[
    Place {
        name: "CONNECT (v5 §3.1.2.11)",
        from: Role::Client,
        allowed: &[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x26, 0x15, 0x16],
        packet: |props| packet(0x10, &[&field("MQTT"), &[5, 2, 0, 9], props, &field("c")]),
    },
    Place {
        name: "will (v5 §3.1.3.2)",
        from: Role::Client,
        allowed: &[0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26],
        packet: |props| {
            let will = [props, &field("t"), &field("p")].concat();
            packet(0x10, &[&field("MQTT"), &[5, 6, 0, 9, 0], &field("c"), &will])
        },
    },
    Place {
        name: "CONNACK (v5 §3.2.2.3)",
        from: Role::Server,
        allowed: &[
            0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1f, 0x26, 0x28, 0x29, 0x2a, 0x13, 0x1a, 0x1c, 0x15,
            0x16,
        ],
        packet: |props| packet(0x20, &[&[0, 0], props]),
    },
    Place {
        name: "a client's PUBLISH (v5 §3.3.2.3)",
        from: Role::Client,
        allowed: &[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x03],
        packet: |props| packet(0x30, &[&field("t"), props, b"p"]),
    },
    Place {
        name: "a server's PUBLISH (v5 §3.3.2.3)",
        from: Role::Server,
        allowed: &[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0b, 0x03],
        packet: |props| packet(0x30, &[&field("t"), props, b"p"]),
    },
    Place {
        name: "PUBACK (v5 §3.4.2.2)",
        from: Role::Client,
        allowed: ACK,
        packet: |props| packet(0x40, &[&[0, 1, 0], props]),
    },
    Place {
        name: "PUBREC (v5 §3.5.2.2)",
        from: Role::Client,
        allowed: ACK,
        packet: |props| packet(0x50, &[&[0, 1, 0], props]),
    },
    Place {
        name: "PUBREL (v5 §3.6.2.2)",
        from: Role::Client,
        allowed: ACK,
        packet: |props| packet(0x62, &[&[0, 1, 0], props]),
    },
    Place {
        name: "PUBCOMP (v5 §3.7.2.2)",
        from: Role::Client,
        allowed: ACK,
        packet: |props| packet(0x70, &[&[0, 1, 0], props]),
    },
    Place {
        name: "SUBSCRIBE (v5 §3.8.2.1)",
        from: Role::Client,
        allowed: &[0x0b, 0x26],
        packet: |props| packet(0x82, &[&[0, 1], props, &field("a"), &[0]]),
    },
    Place {
        name: "SUBACK (v5 §3.9.2.1)",
        from: Role::Server,
        allowed: ACK,
        packet: |props| packet(0x90, &[&[0, 1], props, &[0]]),
    },
    Place {
        name: "UNSUBSCRIBE (v5 §3.10.2.1)",
        from: Role::Client,
        allowed: &[0x26],
        packet: |props| packet(0xa2, &[&[0, 1], props, &field("a")]),
    },
    Place {
        name: "UNSUBACK (v5 §3.11.2.1)",
        from: Role::Server,
        allowed: ACK,
        packet: |props| packet(0xb0, &[&[0, 1], props, &[0]]),
    },
    Place {
        name: "a client's DISCONNECT (v5 §3.14.2.2)",
        from: Role::Client,
        allowed: &[0x11, 0x1f, 0x26, 0x1c],
        packet: |props| packet(0xe0, &[&[0], props]),
    },
    Place {
        name: "a server's DISCONNECT (v5 §3.14.2.2, [MQTT-3.14.2-2])",
        from: Role::Server,
        allowed: &[0x1f, 0x26, 0x1c],
        packet: |props| packet(0xe0, &[&[0], props]),
    },
    Place {
        name: "AUTH (v5 §3.15.2.2)",
        from: Role::Client,
        allowed: &[0x15, 0x16, 0x1f, 0x26],
        packet: |props| packet(0xf0, &[&[0x18], props]),
    },
];

fn verdict(bytes: &[u8], from: Role) -> Result<(), ErrorKind> {
    match decode(bytes, Version::V5, &Limits { from, ..Limits::server(1000) }) {
        Ok(Decoded::Packet(_, len)) if len == bytes.len() => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.kind),
    }
}

#[test]
fn each_property_stands_where_the_standard_lists_it_and_nowhere_else() {
    for place in PLACES {
        for (id, value) in values() {
            let mut list = value.clone();
            let is_auth = place.name.starts_with("AUTH");
            if (id == 0x16 && place.allowed.contains(&id)) || (is_auth && id != 0x15) {
                list.extend(text_property(0x15, "method"));
            }
            let said = verdict(&(place.packet)(&properties(&[&list])), place.from);
            assert_eq!(said.is_ok(), place.allowed.contains(&id), "{} {id:#04x}: {said:?}", place.name);
        }
    }
}

#[test]
fn no_property_but_two_may_be_repeated() {
    for place in PLACES {
        for (id, value) in values().into_iter().filter(|(id, _)| place.allowed.contains(id)) {
            let mut list = [&value[..], &value].concat();
            if place.name.starts_with("AUTH") && id != 0x15 {
                list.extend(text_property(0x15, "method"));
            }
            let may = id == 0x26 || (id == 0x0b && place.name.contains("PUBLISH"));
            let expected = if may { Ok(()) } else { Err(ErrorKind::Protocol) };
            let said = verdict(&(place.packet)(&properties(&[&list])), place.from);
            assert_eq!(said, expected, "{} {id:#04x}", place.name);
        }
    }
}

#[test]
fn each_reason_code_stands_where_the_standard_lists_it_and_nowhere_else() {
    const RECEIPT: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const CONNACK: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99,
        0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
    ];
    const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
    const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
    const FROM_CLIENT: &[u8] =
        &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    const FROM_SERVER: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
    ];
    type Packet = fn(u8) -> Vec<u8>;
    let auth: Packet = |code| packet(0xf0, &[&[code], &properties(&[&text_property(0x15, "m")])]);
    let tables: [(&str, Role, &[u8], Packet); 12] = [
        ("CONNACK, table 3-1", Role::Server, CONNACK, |code| packet(0x20, &[&[0, code, 0]])),
        ("PUBACK, table 3-4", Role::Client, RECEIPT, |code| packet(0x40, &[&[0, 1, code]])),
        ("PUBREC, table 3-5", Role::Server, RECEIPT, |code| packet(0x50, &[&[0, 1, code]])),
        ("PUBREL, table 3-6", Role::Client, &[0x00, 0x92], |code| packet(0x62, &[&[0, 1, code]])),
        ("PUBCOMP, table 3-7", Role::Client, &[0x00, 0x92], |code| packet(0x70, &[&[0, 1, code]])),
        ("SUBACK, table 3-8", Role::Server, SUBACK, |code| packet(0x90, &[&[0, 1, 0, code]])),
        ("UNSUBACK, table 3-9", Role::Server, UNSUBACK, |code| packet(0xb0, &[&[0, 1, 0, code]])),
        ("DISCONNECT, table 3-10", Role::Client, FROM_CLIENT, |code| packet(0xe0, &[&[code]])),
        ("DISCONNECT, table 3-10", Role::Server, FROM_SERVER, |code| packet(0xe0, &[&[code]])),
        ("AUTH, table 3-11", Role::Client, &[0x18, 0x19], auth),
        ("AUTH, table 3-11", Role::Server, &[0x00, 0x18], auth),
        ("CONNACK with a session", Role::Server, &[0x00], |code| packet(0x20, &[&[1, code, 0]])),
    ];
    for (table, from, allowed, packet) in tables {
        for code in 0..=u8::MAX {
            let said = verdict(&packet(code), from);
            assert_eq!(said.is_ok(), allowed.contains(&code), "{table} from {from:?}: {code:#04x} {said:?}");
        }
    }
}
