//! Bytes that are no MQTT: each ends its own connection with the reason that the standard has for it, is counted, and
//! touches nobody else.

use forebay_tests::bystander::Bystander;
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::metric;
use forebay_tests::mqtt::{Client, Connect, packet, span, text};

const REFUSED: &str = metric::PACKETS_REFUSED;

fn broker() -> Forebay {
    Serve::new().file("config/samples/fahrenheit.yaml").start()
}

/// Sends `bytes` on a fresh MQTT 5 connection; the broker must end it with DISCONNECT and one of `reasons`.
fn refuses(broker: &Forebay, what: &str, bytes: &[u8], reasons: &[u8]) {
    let before = broker.metric(REFUSED, &[]);
    let mut client = Client::connect(broker.addr, &Connect::v5("babbler"));
    client.send_to_the_unwilling(bytes);
    let said = client.closed();
    let last = said.last().unwrap_or_else(|| panic!("{what}: closed without DISCONNECT"));
    assert_eq!(last.first, 0xE0, "{what}: {said:02x?}");
    assert!(reasons.contains(&last.body[0]), "{what}: reason {:#04x}, wanted {reasons:02x?}", last.body[0]);
    broker.wait_metric(REFUSED, &[], before + 1.0);
}

#[test]
fn malformed_packets_end_their_own_connection_and_nothing_else() {
    let broker = broker();
    let mut bystander = Bystander::new(&broker);
    let malformed = &[0x81u8];
    let either = &[0x81u8, 0x82];
    let publish = |first: u8, body: &[&[u8]]| packet(first, &body.concat());
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("packet type 0", vec![0x00, 0x00], either),
        ("a remaining length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], malformed),
        ("PUBLISH with QoS 3", publish(0x36, &[&text("a"), &[0, 1, 0], b"x"]), malformed),
        ("PUBLISH whose topic is longer than the packet", publish(0x30, &[&[0, 200], b"a"]), malformed),
        (
            "PUBLISH whose properties are longer than the packet",
            publish(0x30, &[&text("a"), &[9, 1]]),
            malformed,
        ),
        ("PUBLISH with an unknown property", publish(0x30, &[&text("a"), &span(&[0x7E, 0])]), malformed),
        ("PUBLISH with a property twice", publish(0x30, &[&text("a"), &span(&[1, 1, 1, 1])]), either),
        ("PUBLISH with a topic that is no UTF-8", publish(0x30, &[&[0, 2, 0xC3, 0x28, 0]]), malformed),
        (
            "PUBLISH with a null character in its topic",
            publish(0x30, &[&text("a\0b"), &[0]]),
            &[0x81, 0x82, 0x90],
        ),
        ("PUBLISH to a wildcard", publish(0x30, &[&text("a/#"), &[0]]), &[0x81, 0x82, 0x90]),
        ("PUBLISH with packet identifier 0", publish(0x32, &[&text("a"), &[0, 0, 0]]), either),
        ("PUBLISH with QoS 0 and DUP", publish(0x38, &[&text("a"), &[0]]), either),
        (
            "PUBLISH with an alias above the maximum",
            publish(0x30, &[&text("a"), &span(&[0x23, 0xFF, 0xFF])]),
            &[0x94],
        ),
        ("PUBLISH with no topic and no alias", publish(0x30, &[&text(""), &[0]]), either),
        ("SUBSCRIBE with flags 0", publish(0x80, &[&[0, 1, 0], &text("a"), &[0]]), malformed),
        ("SUBSCRIBE without a filter", publish(0x82, &[&[0, 1, 0]]), either),
        ("SUBSCRIBE with QoS 3", publish(0x82, &[&[0, 1, 0], &text("a"), &[3]]), either),
        ("SUBSCRIBE with packet identifier 0", publish(0x82, &[&[0, 0, 0], &text("a"), &[0]]), either),
        ("PUBREL with flags 0", vec![0x60, 2, 0, 1], malformed),
        ("PINGREQ with a body", vec![0xC0, 1, 0], malformed),
        ("a second CONNECT", Connect::v5("babbler").bytes(), &[0x82]),
        ("a packet only servers send", vec![0x20, 3, 0, 0, 0], either),
        ("AUTH with a server's reason", vec![0xF0, 0], either),
        ("AUTH without a method", vec![0xF0, 2, 0x19, 0], either),
        (
            "AUTH where none was agreed on",
            packet(0xF0, &[vec![0x19], span(&[&[0x15], &text("PLAIN")[..]].concat())].concat()),
            &[0x82, 0x8C],
        ),
    ];
    for (what, bytes, reasons) in cases {
        refuses(&broker, what, &bytes, reasons);
        bystander.goes_on();
    }
}

#[test]
fn a_packet_larger_than_the_maximum_is_refused_by_its_header_alone() {
    let broker = broker();
    let mut bystander = Bystander::new(&broker);
    // The largest remaining length there is, and none of the bytes.
    refuses(&broker, "256 MiB", &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[0x95]);
    bystander.goes_on();
}

#[test]
fn a_packet_that_never_ends_holds_nobody_up() {
    let broker = broker();
    let mut bystander = Bystander::new(&broker);
    let mut slow = Client::connect(broker.addr, &Connect::v5("slow"));
    let whole = slow.publish_bytes("slow/a", 1, false, &[], b"a payload that takes its time");
    for byte in &whole[..whole.len() - 1] {
        slow.send(&[*byte]);
    }
    bystander.goes_on();
    // The rest makes it a packet like any other.
    slow.send(&whole[whole.len() - 1..]);
    slow.expect(forebay_tests::mqtt::PUBACK);
    let cut = slow.publish_bytes("slow/a", 1, false, &[], b"never whole");
    slow.send(&cut[..cut.len() / 2]);
    drop(slow);
    bystander.goes_on();
}

#[test]
fn a_connection_that_does_not_begin_with_a_good_connect_is_closed_and_counted() {
    let broker = broker();
    let mut bystander = Bystander::new(&broker);
    let connect = |name: &str, level: u8, flags: u8, rest: &[u8]| {
        packet(0x10, &[text(name), vec![level, flags, 0, 0], rest.to_vec()].concat())
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03]),
        ("PUBLISH first", packet(0x30, &[text("a"), vec![0]].concat())),
        ("another protocol", connect("MQTX", 5, 2, &[0, 0, 0])),
        ("protocol level 6", connect("MQTT", 6, 2, &[0, 0, 0])),
        ("the reserved flag", connect("MQTT", 4, 3, &text("x"))),
        ("a will QoS without a will", connect("MQTT", 4, 0x0A, &text("x"))),
        ("CONNECT cut short", packet(0x10, &text("MQTT"))),
        ("bytes after the last field", connect("MQTT", 4, 2, &[text("x"), vec![1, 2, 3]].concat())),
    ];
    for (what, bytes) in cases {
        let before = broker.metric(REFUSED, &[]);
        let mut client = Client::open(broker.addr, 4);
        client.send_to_the_unwilling(&bytes);
        let said = client.closed();
        // A CONNACK with a reason, or nothing at all [MQTT-3.1.4-1].
        assert!(said.iter().all(|packet| packet.kind() == 2 && packet.body[1] != 0), "{what}: {said:02x?}");
        broker.wait_metric(REFUSED, &[], before + 1.0);
        bystander.goes_on();
    }
}
