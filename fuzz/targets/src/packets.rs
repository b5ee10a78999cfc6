//! Packets and properties: whatever is taken can be written, and then says the same.

use broker_core::packet::{
    self, Decoded, DecodedConnect, Limits, Packet, PacketType, Place, Properties, PropertiesBuilder, Version,
};

/// Packets are no larger than this, so that a length that is made up means something.
const SIZE_MAX: usize = 4096;

/// The first byte chooses version and sender, the rest is a stream of packets.
pub fn packets(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(how & 3) % 3];
    let limits = if how & 4 == 0 { Limits::server(SIZE_MAX) } else { Limits::client(SIZE_MAX) };
    let server = Limits::server(SIZE_MAX);
    if let Ok(DecodedConnect::Connect(connect, len)) = packet::decode_connect(stream, &server) {
        assert!(len <= stream.len());
        same_again(&Packet::Connect(connect), connect.version, &server);
    }
    let mut rest = stream;
    loop {
        match packet::decode(rest, version, &limits) {
            Ok(Decoded::Packet(packet, len)) => {
                assert!((1..=rest.len()).contains(&len) && len <= SIZE_MAX);
                // A CONNECT is of its own version, whatever the connection is of.
                if !matches!(packet, Packet::Connect(_)) {
                    same_again(&packet, version, &limits);
                }
                rest = &rest[len..];
            }
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > rest.len() && needed <= SIZE_MAX.max(rest.len() + 1));
                return;
            }
            Err(error) => {
                assert!(!error.what.is_empty() && error.reason().is_error());
                return;
            }
        }
    }
}

fn same_again(packet: &Packet<'_>, version: Version, limits: &Limits) {
    let mut bytes = Vec::new();
    // A longer form than it came in may be too large: the limit is on the first.
    packet.encode(version, &mut bytes).expect("what was read can be written");
    let limits = Limits { packet_size_max: bytes.len(), ..*limits };
    let again = packet::decode(&bytes, version, &limits).expect("what was written can be read");
    assert_eq!(again, Decoded::Packet(*packet, bytes.len()));
    if let Packet::Publish(publish) = packet {
        let kept = publish.properties.forwardable();
        let place = Place::Packet(PacketType::Publish);
        let kept = Properties::parse(&kept.bytes, place).expect("what is passed on is well-formed");
        assert!(kept.topic_alias().is_none() && kept.subscription_identifier().is_none());
        assert!(kept.user_properties().eq(publish.properties.user_properties()));
    }
}

/// The first byte chooses the packet, the rest is its properties.
pub fn properties(data: &[u8]) {
    let Some((&how, span)) = data.split_first() else { return };
    const PLACES: [Place; 6] = [
        Place::Will,
        Place::Packet(PacketType::Connect),
        Place::Packet(PacketType::ConnAck),
        Place::Packet(PacketType::Publish),
        Place::Packet(PacketType::Subscribe),
        Place::Packet(PacketType::Auth),
    ];
    let place = PLACES[usize::from(how) % PLACES.len()];
    let Ok(properties) = Properties::parse(span, place) else { return };
    let mut written = PropertiesBuilder::new();
    for property in properties {
        written.put(property).expect("what was read can be written");
    }
    assert_eq!(written.as_bytes(), span);
}
