//! Every rule of the standard that one packet can break, broken once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bytes;
mod corners;

use broker_core::packet::{
    Decoded, DecodedConnect, ErrorKind, Limits, ReasonCode, Version, decode, decode_connect,
};

fn limits(corner: &corners::Corner) -> Limits {
    Limits { from: corner.from, ..Limits::server(1 << 20) }
}

/// What is said of whole packets: how many bytes, or which error.
fn verdict(bytes: &[u8], version: Version, limits: &Limits) -> Result<usize, ErrorKind> {
    match decode(bytes, version, limits).map_err(|error| error.kind)? {
        Decoded::Packet(_, len) => Ok(len),
        Decoded::Incomplete { needed } => panic!("{bytes:02x?} is whole but {needed} bytes are wanted"),
    }
}

#[test]
fn each_packet_is_taken_or_refused_as_the_standard_says() {
    let mut wrong = Vec::new();
    for corner in corners::all() {
        for &version in corner.versions {
            let expected = corner.error.map_or(Ok(corner.bytes.len()), Err);
            let said = verdict(&corner.bytes, version, &limits(&corner));
            if said != expected {
                wrong.push(format!(
                    "{version:?} {}: {said:?}, not {expected:?}: {:02x?}",
                    corner.rule, corner.bytes
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_follows_a_packet_changes_nothing() {
    for corner in corners::all() {
        let mut bytes = corner.bytes.clone();
        bytes.extend([0xc0, 0, 0x30]);
        for &version in corner.versions {
            let alone = verdict(&corner.bytes, version, &limits(&corner));
            assert_eq!(verdict(&bytes, version, &limits(&corner)), alone, "{}", corner.rule);
        }
    }
}

#[test]
fn a_good_packet_that_is_cut_off_anywhere_is_incomplete_and_says_how_much_is_missing() {
    for corner in corners::all().iter().filter(|corner| corner.error.is_none() && corner.bytes.len() < 1000) {
        for len in 0..corner.bytes.len() {
            for &version in corner.versions {
                let decoded = decode(&corner.bytes[..len], version, &limits(corner));
                let Ok(Decoded::Incomplete { needed }) = decoded else {
                    panic!("{}: {decoded:?}", corner.rule)
                };
                assert!(needed > len && needed <= corner.bytes.len(), "{}: {needed} of {len}", corner.rule);
                assert!(len < 3 || needed == corner.bytes.len(), "{}: {needed} of {len}", corner.rule);
            }
        }
    }
}

#[test]
fn a_packet_that_is_too_large_is_refused_from_its_fixed_header() {
    let limits = Limits::server(100);
    let too_large =
        |bytes: &'static [u8]| decode(bytes, Version::V311, &limits).map_err(|error| error.reason());
    assert_eq!(too_large(&[0x30, 99]), Err(ReasonCode::PacketTooLarge));
    assert_eq!(too_large(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(ReasonCode::PacketTooLarge));
    assert_eq!(too_large(&[0x30, 98]), Ok(Decoded::Incomplete { needed: 100 }));
    let connect = decode_connect(&[0x10, 99], &limits).unwrap_err();
    assert_eq!((connect.error.kind, connect.answer()), (ErrorKind::PacketTooLarge, None));
}

#[test]
fn the_first_packet_is_connect_or_the_connection_ends() {
    let limits = Limits::server(100);
    for first in (0..=u8::MAX).filter(|first| *first != 0x10) {
        let error = decode_connect(&[first], &limits).unwrap_err();
        assert_eq!(error.answer(), None);
    }
    assert_eq!(decode_connect(&[], &limits), Ok(DecodedConnect::Incomplete { needed: 2 }));
    assert_eq!(decode_connect(&[0x10], &limits), Ok(DecodedConnect::Incomplete { needed: 2 }));
    assert_eq!(decode_connect(&[0x10, 12, 0], &limits), Ok(DecodedConnect::Incomplete { needed: 14 }));
}

/// What a client that sent `connect` is answered, as bytes.
fn answer(connect: &[u8]) -> Option<Vec<u8>> {
    let error = decode_connect(connect, &Limits::server(1 << 20)).unwrap_err();
    let mut bytes = Vec::new();
    error.answer()?.encode(error.version?, &mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn a_connect_that_cannot_be_served_is_answered_in_its_own_dialect() {
    let connect = |level: u8, flags: u8, rest: &[u8]| {
        corners::packet(0x10, &[&corners::field("MQTT"), &[level, flags, 0, 60], rest])
    };
    // 3.1.1 [MQTT-3.1.2-2]: return code 0x01; v5 [MQTT-3.1.2-2]: reason code 0x84.
    assert_eq!(answer(&connect(2, 2, &[0, 1, b'c'])), Some(vec![0x20, 2, 0, 1]));
    assert_eq!(answer(&connect(6, 2, &[0, 0, 1, b'c'])), Some(vec![0x20, 3, 0, 0x84, 0]));
    // Bridges mark their level with the highest bit and try again without.
    assert_eq!(answer(&connect(0x84, 2, &[0, 1, b'c'])), Some(vec![0x20, 2, 0, 1]));
    // 3.1.1 [MQTT-3.1.3-8].
    assert_eq!(answer(&connect(4, 0, &[0, 0])), Some(vec![0x20, 2, 0, 2]));
    // 3.1.1 [MQTT-3.1.4-1] closes without a word; v5 §4.13.2 may say why.
    assert_eq!(answer(&connect(4, 3, &[0, 1, b'c'])), None);
    assert_eq!(answer(&connect(5, 3, &[0, 0, 1, b'c'])), Some(vec![0x20, 3, 0, 0x81, 0]));
    // [MQTT-3.1.2-1]: whoever speaks another protocol could not read an answer.
    assert_eq!(answer(&corners::packet(0x10, &[&corners::field("HTTP"), &[4, 2, 0, 60, 0, 0]])), None);
}

#[test]
fn connect_means_the_same_to_both_ways_of_decoding_it() {
    for corner in corners::all()
        .iter()
        .filter(|corner| corner.bytes[0] == 0x10 && corner.from == broker_core::packet::Role::Client)
    {
        for &version in corner.versions {
            let first = match decode_connect(&corner.bytes, &limits(corner)) {
                Ok(DecodedConnect::Connect(_, len)) => Ok(len),
                Ok(DecodedConnect::Incomplete { .. }) => panic!("{}", corner.rule),
                Err(error) => Err(error.error.kind),
            };
            assert_eq!(first, verdict(&corner.bytes, version, &limits(corner)), "{}", corner.rule);
        }
    }
}
