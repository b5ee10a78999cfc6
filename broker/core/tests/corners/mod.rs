//! Packets made by hand: each breaks one rule of the standard, or comes as close as is allowed.
//! `malformed.rs` holds our codec against them, `differential.rs` two others.

mod acks;
mod connect;
mod publish;
mod subscribe;

pub use crate::bytes::{field, packet, properties, text_property, user};
use broker_core::packet::{ErrorKind, Role, Version};

/// Versions in which a packet is the same bytes.
pub const V3: &[Version] = &[Version::V31, Version::V311];
pub const V311: &[Version] = &[Version::V311];
pub const V5: &[Version] = &[Version::V5];
pub const ALL: &[Version] = &[Version::V31, Version::V311, Version::V5];

/// One packet and what is to be said of it.
pub struct Corner {
    /// The rule, with the standard's tag, as a sentence.
    pub rule: &'static str,
    /// The versions that say so.
    pub versions: &'static [Version],
    /// Who sends it.
    pub from: Role,
    /// The whole packet.
    pub bytes: Vec<u8>,
    /// The kind of error; `None` where the packet is good.
    pub error: Option<ErrorKind>,
}

/// Everything.
pub fn all() -> Vec<Corner> {
    [frame(), connect::corners(), publish::corners(), acks::corners(), subscribe::corners()]
        .into_iter()
        .flatten()
        .collect()
}

pub fn good(rule: &'static str, versions: &'static [Version], from: Role, bytes: Vec<u8>) -> Corner {
    Corner { rule, versions, from, bytes, error: None }
}

pub fn bad(
    rule: &'static str,
    versions: &'static [Version],
    from: Role,
    bytes: Vec<u8>,
    error: ErrorKind,
) -> Corner {
    Corner { rule, versions, from, bytes, error: Some(error) }
}

/// Fixed headers.
fn frame() -> Vec<Corner> {
    use ErrorKind::{Malformed, Protocol};
    use Role::{Client, Server};
    let mut corners = vec![
        bad("type 0 is reserved (table 2-1)", ALL, Client, vec![0x00, 0], Malformed),
        bad("type 15 is reserved before v5 (table 2.1)", V3, Client, vec![0xf0, 0], Malformed),
        good("PINGREQ is two bytes", ALL, Client, vec![0xc0, 0]),
        good("PINGRESP is two bytes", ALL, Server, vec![0xd0, 0]),
        bad("PINGREQ has no body (v5 §3.12)", ALL, Client, vec![0xc0, 1, 0], Malformed),
        bad("PINGRESP has no body (v5 §3.13)", ALL, Server, vec![0xd0, 1, 0], Malformed),
        bad("a server sends no PINGREQ (table 2-1)", ALL, Server, vec![0xc0, 0], Protocol),
        bad("a client sends no PINGRESP (table 2-1)", ALL, Client, vec![0xd0, 0], Protocol),
        bad("a client sends no CONNACK (table 2-1)", V311, Client, vec![0x20, 2, 0, 0], Protocol),
        bad("a server sends no DISCONNECT before v5 (table 2.1)", V3, Server, vec![0xe0, 0], Protocol),
        bad("[MQTT-1.5.5-1] an over-long remaining length", V5, Client, vec![0xc0, 0x80, 0], Malformed),
        good("3.1.1 §2.2.3 does not forbid over-long remaining lengths", V3, Client, vec![0xc0, 0x80, 0]),
        bad(
            "a remaining length of five bytes (v5 §1.5.5)",
            ALL,
            Client,
            vec![0xc0, 255, 255, 255, 255, 1],
            Malformed,
        ),
        bad(
            "a remaining length that goes on behind four bytes",
            ALL,
            Client,
            vec![0xc0, 128, 128, 128, 128],
            Malformed,
        ),
    ];
    // [MQTT-2.1.3-1]: every flag that is reserved, of every packet but PUBLISH.
    for (first, from) in [
        (0x10, Client),
        (0x20, Server),
        (0x40, Client),
        (0x50, Client),
        (0x62, Client),
        (0x70, Client),
        (0x82, Client),
        (0x90, Server),
        (0xa2, Client),
        (0xb0, Server),
        (0xc0, Client),
        (0xd0, Server),
        (0xe0, Client),
    ] {
        for bit in 0..3 {
            let bytes = vec![first ^ (1 << bit), 0];
            corners.push(bad(
                "[MQTT-2.1.3-1] a reserved flag of the fixed header is wrong",
                ALL,
                from,
                bytes,
                Malformed,
            ));
        }
        corners.push(bad(
            "[MQTT-2.1.3-1] a reserved flag of the fixed header is wrong",
            &[Version::V311, Version::V5],
            from,
            vec![first ^ 8, 0],
            Malformed,
        ));
    }
    corners.push(bad("[MQTT-3.15.1-1] a reserved flag of AUTH is set", V5, Client, vec![0xf1, 0], Malformed));
    corners
}
