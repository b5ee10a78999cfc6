//! The same bytes, the same verdict: our codec against two others, for 3.1.1 and 5, over good packets, packets with
//! a few bytes changed, and the packets made by hand. Where another codec is laxer or stricter than the standard,
//! `LAXER` and `STRICTER` say so, one rule at a time; a rule that is no longer needed fails the test too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bytes;
mod corners;
mod generate;
mod oracles;

use std::collections::BTreeSet;

use broker_core::packet::{Decoded, Limits, Packet, PacketType, ReasonCode, Role, Version, decode};
use oracles::{ORACLES, Oracle, Verdict};
use proptest::prelude::*;

const V3: &[Version] = &[Version::V311];
const V5: &[Version] = &[Version::V5];
const BOTH: &[Version] = &[Version::V311, Version::V5];
const NEITHER: &[Version] = &[];

/// A rule of the standard that another codec does not check.
struct Laxer {
    /// Our sentence for it.
    what: &'static str,
    /// The standard's.
    tag: &'static str,
    /// The versions in which rmqtt-codec lets it pass.
    rmqtt: &'static [Version],
    /// The versions in which mqtt-protocol-core lets it pass.
    protocol_core: &'static [Version],
}

const fn laxer(
    what: &'static str,
    tag: &'static str,
    rmqtt: &'static [Version],
    protocol_core: &'static [Version],
) -> Laxer {
    Laxer { what, tag, rmqtt, protocol_core }
}

#[rustfmt::skip]
const LAXER: &[Laxer] = &[
    // The fixed header.
    laxer("the reserved flags of a fixed header are not as they must be", "[MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]", NEITHER, BOTH),
    laxer("bytes follow the last field of the packet", "v5 §3.12, §3.13; 3.1.1 §2.2.3", BOTH, V3),
    laxer("a variable byte integer has more bytes than its value needs", "[MQTT-1.5.5-1]", V5, V5),
    laxer("a packet identifier is 0", "[MQTT-2.2.1-3]", NEITHER, BOTH),
    laxer("a string holds the character U+0000", "[MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-2]", BOTH, BOTH),
    // Topics.
    laxer("a topic name is empty", "[MQTT-4.7.3-1]", BOTH, BOTH),
    laxer("a topic name holds a wildcard or the character U+0000", "[MQTT-4.7.0-1], [MQTT-4.7.3-2]", BOTH, BOTH),
    laxer("a topic filter is empty", "[MQTT-4.7.3-1]", V5, BOTH),
    laxer("a topic filter has a # that is not its last level on its own", "[MQTT-4.7.1-1]", BOTH, BOTH),
    laxer("a topic filter has a + that is not a level on its own", "[MQTT-4.7.1-2]", BOTH, BOTH),
    laxer("a topic name has too many levels", "a limit of ours", BOTH, BOTH),
    laxer("a topic filter has too many levels", "a limit of ours", BOTH, BOTH),
    laxer("a shared subscription has an empty group or one with a wildcard", "[MQTT-4.8.2-1], [MQTT-4.8.2-2]", V5, NEITHER),
    laxer("a shared subscription has no topic filter", "[MQTT-4.8.2-2]", V5, V5),
    laxer("a shared subscription has the no-local option", "[MQTT-3.8.3-4]", V5, V5),
    // CONNECT and CONNACK.
    laxer("the protocol level is not 3, 4 or 5", "3.1.1 [MQTT-3.1.2-2]: level 3 with the new name and 4 with the old", V3, NEITHER),
    laxer("the reserved connect flag is set", "[MQTT-3.1.2-3]", NEITHER, BOTH),
    laxer("a CONNECT has a will QoS or will retain flag without a will", "[MQTT-3.1.2-11], [MQTT-3.1.2-13]", V5, BOTH),
    laxer("a will has QoS 3", "[MQTT-3.1.2-12]", NEITHER, BOTH),
    laxer("a CONNECT has a password without a user name", "3.1.1 [MQTT-3.1.2-22]", V3, NEITHER),
    laxer("a client without an identifier asks for a session that outlives its connection", "3.1.1 [MQTT-3.1.3-8]", NEITHER, V3),
    laxer("authentication data comes without an authentication method", "v5 §3.1.2.11.10, §3.15.2.2.3", V5, V5),
    laxer("the reserved flags of a CONNACK are set", "[MQTT-3.2.2-1]", NEITHER, BOTH),
    laxer("a CONNACK with an error says that a session is present", "[MQTT-3.2.2-6], 3.1.1 [MQTT-3.2.2-4]", BOTH, BOTH),
    laxer("a CONNACK has an unknown reason code", "3.1.1 table 3.1", V3, NEITHER),
    laxer("the maximum QoS is neither 0 nor 1", "v5 §3.2.2.3.4", V5, NEITHER),
    laxer("the maximum packet size is 0", "v5 §3.2.2.3.6", V5, NEITHER),
    // PUBLISH.
    laxer("a PUBLISH with QoS 0 has the DUP flag", "[MQTT-3.3.1-2]", BOTH, BOTH),
    laxer("a PUBLISH has neither a topic name nor a topic alias", "v5 §3.3.2.1", V5, V5),
    laxer("the response topic is no topic name", "[MQTT-3.3.2-14], [MQTT-4.7.3-1]", V5, V5),
    laxer("a field runs past the end of its packet", "v5 §3.3.2.3.1: a PUBLISH without property length", NEITHER, V5),
    // SUBSCRIBE and the answers.
    laxer("a requested QoS is none of 0, 1 and 2", "3.1.1 [MQTT-3-8.3-4]: reserved bits", V3, V3),
    laxer("a property that may stand once is repeated", "v5 §3.8.2.1.2: two subscription identifiers", NEITHER, V5),
    laxer("a SUBACK has no reason code", "[MQTT-3.9.3-1], 3.1.1 §3.9.3", BOTH, NEITHER),
    laxer("an UNSUBACK has no reason code", "[MQTT-3.11.3-1]", V5, NEITHER),
    // The end.
    laxer("a server's DISCONNECT has a session expiry interval", "[MQTT-3.14.2-2]", V5, V5),
    laxer("an AUTH has no authentication method", "v5 §3.15.2.2.2", V5, NEITHER),
];

impl Laxer {
    fn versions(&self, oracle: Oracle) -> &'static [Version] {
        match oracle {
            Oracle::Rmqtt => self.rmqtt,
            Oracle::ProtocolCore => self.protocol_core,
        }
    }
}

/// Something that the standard allows and another codec refuses.
struct Stricter {
    oracle: Oracle,
    version: Version,
    /// What it is, and what the standard says of it.
    what: &'static str,
    /// Whether a packet is of that kind.
    is: fn(&Packet<'_>) -> bool,
}

const STRICTER: &[Stricter] = &[
    Stricter {
        oracle: Oracle::ProtocolCore,
        version: Version::V5,
        what: "v5 §3.1.2.9: a password without a user name",
        is: |packet| matches!(packet, Packet::Connect(c) if c.password.is_some() && c.username.is_none()),
    },
    Stricter {
        oracle: Oracle::ProtocolCore,
        version: Version::V5,
        what: "v5 §2.4 lists DISCONNECT for 0x8C (bad authentication method)",
        is: |packet| matches!(packet, Packet::Disconnect(d) if d.reason == ReasonCode::BadAuthenticationMethod),
    },
    Stricter {
        oracle: Oracle::Rmqtt,
        version: Version::V5,
        what: "[MQTT-3.1.3-6]: no client identifier, and a session that is to be kept",
        is: |packet| matches!(packet, Packet::Connect(c) if c.client_id.is_empty() && !c.clean_start),
    },
    Stricter {
        oracle: Oracle::Rmqtt,
        version: Version::V5,
        what: "v5 §3.3.2.3.3: a message expiry interval of 0",
        is: |packet| {
            matches!(packet, Packet::Publish(p) if p.properties.message_expiry == Some(0))
                || matches!(packet, Packet::Connect(c)
                    if c.will.is_some_and(|will| will.properties.message_expiry() == Some(0)))
        },
    },
];

/// What we say of a whole packet, whoever sent it: the other codecs do not ask.
enum Ours<'a> {
    Accepted(Packet<'a>),
    /// With the sentences for both senders, unless one may not send such a packet at all.
    Refused(Vec<&'static str>),
}

fn ours(bytes: &[u8], version: Version) -> Ours<'_> {
    let mut sentences = Vec::new();
    for from in [Role::Client, Role::Server] {
        match decode(bytes, version, &Limits { from, ..Limits::server(usize::MAX) }) {
            Ok(Decoded::Packet(packet, used)) => {
                assert_eq!(used, bytes.len());
                return Ours::Accepted(packet);
            }
            Ok(Decoded::Incomplete { .. }) => panic!("{bytes:02x?} is whole"),
            Err(error) => sentences.push(error.what),
        }
    }
    sentences.retain(|what| *what != "a packet is of a type that its sender may not send");
    Ours::Refused(sentences)
}

/// The packet at the front, if all of it is there.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let mut remaining = 0;
    for (digit, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 127) << (7 * digit);
        if byte < 128 {
            return bytes.get(..2 + digit + remaining);
        }
    }
    None
}

/// An exception that explained a difference.
type Used = (Oracle, Version, &'static str);

/// Holds our verdict against the others'; says which exceptions were needed.
fn compare(bytes: &[u8], version: Version) -> Result<Vec<Used>, String> {
    let Some(bytes) = whole(bytes) else { return compare_incomplete(bytes, version).map(|()| Vec::new()) };
    let mut used = Vec::new();
    for oracle in ORACLES {
        let theirs = oracle.verdict(bytes, version);
        let excuse = match (ours(bytes, version), theirs) {
            (Ours::Accepted(_), Verdict::Accepted) | (Ours::Refused(_), Verdict::Refused) => continue,
            // They know one version at a time; we know a CONNECT of any.
            (Ours::Accepted(Packet::Connect(connect)), Verdict::Refused) if connect.version != version => {
                continue;
            }
            (Ours::Accepted(packet), Verdict::Refused) => STRICTER
                .iter()
                .find(|rule| rule.oracle == oracle && rule.version == version && (rule.is)(&packet))
                .map(|rule| rule.what),
            (Ours::Refused(sentences), Verdict::Accepted) => {
                let excuse = |sentence: &&str| {
                    let lax =
                        |rule: &&Laxer| rule.what == *sentence && rule.versions(oracle).contains(&version);
                    LAXER.iter().find(lax).map(|rule| rule.what)
                };
                // Whoever does not ask who sends accepts when one sender's packet would pass.
                sentences.iter().find_map(excuse)
            }
            (Ours::Accepted(_) | Ours::Refused(_), Verdict::Incomplete | Verdict::Panicked) => None,
        };
        match (excuse, ours(bytes, version)) {
            (Some(what), _) => used.push((oracle, version, what)),
            (None, Ours::Accepted(packet)) => {
                return Err(format!("{oracle:?} {version:?}: {theirs:?}, but good: {packet:?} {bytes:02x?}"));
            }
            (None, Ours::Refused(sentences)) => {
                return Err(format!("{oracle:?} {version:?}: {theirs:?}, but {sentences:?} {bytes:02x?}"));
            }
        }
    }
    Ok(used)
}

/// Nobody may take for whole what is not.
fn compare_incomplete(bytes: &[u8], version: Version) -> Result<(), String> {
    if let Ok(Decoded::Packet(packet, _)) = decode(bytes, version, &Limits::server(usize::MAX)) {
        return Err(format!("{version:?}: not whole, but {packet:?} {bytes:02x?}"));
    }
    match ORACLES.map(|oracle| oracle.verdict(bytes, version)) {
        [Verdict::Incomplete | Verdict::Refused, Verdict::Incomplete | Verdict::Refused] => Ok(()),
        theirs => Err(format!("{version:?}: {theirs:?}, but not whole: {bytes:02x?}")),
    }
}

fn sample() -> impl Strategy<Value = generate::Sample> {
    prop_oneof![1 => generate::sample(Version::V311), 2 => generate::sample(Version::V5)]
}

/// One change to a packet.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    CutOff(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::CutOff),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match change {
        Change::Set(at, byte) => bytes[at.index(len)] = *byte,
        Change::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Change::Insert(at, byte) => bytes.insert(at.index(len), *byte),
        Change::Remove(at) => {
            bytes.remove(at.index(len));
        }
        Change::CutOff(at) => bytes.truncate(at.index(len)),
    }
}

/// Sixteen times as many cases as usual; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 16, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn good_packets_are_good_for_all(sample in sample()) {
        let bytes = sample.bytes();
        let limits = Limits { from: sample.from, ..Limits::server(usize::MAX) };
        prop_assert_eq!(decode(&bytes, sample.version, &limits), Ok(Decoded::Packet(sample.packet, bytes.len())));
        compare(&bytes, sample.version).map_err(TestCaseError::fail)?;
    }

    /// Mostly with the remaining length mended, so that the change is met inside the packet.
    #[test]
    fn changed_packets_are_good_for_all_or_for_none(
        sample in sample(),
        changes in prop::collection::vec(change(), 1..4),
        mend in prop::bool::weighted(0.8),
    ) {
        let mut bytes = sample.bytes();
        let digits = bytes[1..].iter().position(|byte| *byte < 128).unwrap() + 1;
        let mut body = bytes.split_off(1 + digits);
        let first = bytes[0];
        if mend {
            changes.iter().for_each(|change| apply(change, &mut body));
            bytes = corners::packet(first, &[&body]);
        } else {
            bytes.extend(body);
            changes.iter().for_each(|change| apply(change, &mut bytes));
        }
        compare(&bytes, sample.version).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_publish_says_the_same_to_rmqtt(sample in generate::sample(Version::V5)) {
        let Packet::Publish(ours) = sample.packet else { return Ok(()) };
        prop_assume!(ours.properties.message_expiry != Some(0));
        let theirs = oracles::rmqtt_publish(&sample.bytes()).unwrap();
        let properties = theirs.properties.unwrap_or_default();
        prop_assert_eq!(&theirs.topic[..], ours.topic);
        prop_assert_eq!(&theirs.payload[..], ours.payload);
        prop_assert_eq!(theirs.packet_id, ours.packet_id);
        prop_assert_eq!((theirs.dup, theirs.retain), (ours.dup, ours.retain));
        prop_assert_eq!(u8::from(theirs.qos), ours.qos as u8);
        prop_assert_eq!(properties.topic_alias.map(std::num::NonZeroU16::get), ours.properties.topic_alias);
        prop_assert_eq!(properties.message_expiry_interval.map(|seconds| seconds.get()), ours.properties.message_expiry);
        prop_assert_eq!(properties.response_topic.as_deref(), ours.properties.response_topic);
        prop_assert_eq!(properties.correlation_data.as_deref(), ours.properties.correlation_data);
        prop_assert_eq!(properties.content_type.as_deref(), ours.properties.content_type);
        prop_assert_eq!(properties.is_utf8_payload, ours.properties.payload_format.unwrap_or(false));
        let users = properties.user_properties.iter().map(|(name, value)| (&name[..], &value[..]));
        prop_assert!(users.eq(ours.properties.user_properties()));
        let identifiers = properties.subscription_ids.iter().map(|id| id.get());
        prop_assert!(identifiers.eq(ours.properties.subscription_identifiers()));
    }
}

#[test]
fn packets_made_by_hand_get_the_same_verdict_and_every_exception_is_needed() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for corner in corners::all() {
        for &version in corner.versions.iter().filter(|version| **version != Version::V31) {
            match compare(&corner.bytes, version) {
                Ok(exceptions) => used.extend(exceptions),
                Err(difference) => wrong.push(format!("{}: {difference}", corner.rule)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lax = LAXER.iter().flat_map(|rule| {
        assert!(!rule.tag.is_empty());
        ORACLES.into_iter().flat_map(move |oracle| {
            rule.versions(oracle).iter().map(move |version| (oracle, *version, rule.what))
        })
    });
    let strict = STRICTER.iter().map(|rule| (rule.oracle, rule.version, rule.what));
    let idle: Vec<_> = lax.chain(strict).filter(|exception| !used.contains(exception)).collect();
    assert!(idle.is_empty(), "not needed: {idle:#?}");
}

/// The hand-made packets and the generated ones reach every type of packet.
#[test]
fn no_type_of_packet_is_left_out() {
    let types: BTreeSet<u8> = corners::all().iter().map(|corner| corner.bytes[0] >> 4).collect();
    assert!((PacketType::Connect as u8..=PacketType::Auth as u8).all(|number| types.contains(&number)));
    let directions =
        |from: Role| corners::all().iter().filter(|c| c.from == from && c.error.is_none()).count();
    assert!(directions(Role::Client) > 50 && directions(Role::Server) > 20);
}
