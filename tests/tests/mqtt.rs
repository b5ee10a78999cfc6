//! MQTT as clients see it: retained messages, wills, wildcards, sessions, keep alive, take-over, QoS 2; 3.1, 3.1.1 and 5
//! on one port.

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mosquitto::{self, Subscriber};
use forebay_tests::mqtt::{self, Client, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Will};

fn broker() -> Forebay {
    Serve::new().start()
}

#[test]
fn every_protocol_version_and_qos_reaches_every_other_on_one_port() {
    let broker = broker();
    let versions = ["mqttv31", "mqttv311", "mqttv5"];
    let mut subscribers: Vec<Subscriber> =
        versions.iter().map(|version| Subscriber::start(broker.addr, version, "plain/#", 2, &[])).collect();
    for version in versions {
        for qos in 0..3 {
            let text = format!("{version} at {qos}");
            mosquitto::publish(broker.addr, version, "plain/a", &text, qos, &[]);
            for subscriber in &mut subscribers {
                let message = subscriber.receive();
                assert_eq!((message.payload.as_str(), message.qos), (text.as_str(), u64::from(qos)));
                assert_eq!(message.topic, "plain/a");
            }
        }
    }
}

#[test]
fn properties_of_a_publish_reach_the_subscriber_in_their_order() {
    let broker = broker();
    let mut subscriber = Subscriber::start(broker.addr, "mqttv5", "p", 1, &[]);
    let properties = [
        ["-D", "publish", "user-property", "k", "1"].as_slice(),
        &["-D", "publish", "user-property", "k", "2"],
        &["-D", "publish", "content-type", "text/plain"],
        &["-D", "publish", "response-topic", "answer/here"],
        &["-D", "publish", "correlation-data", "c0ffee"],
    ];
    mosquitto::publish(broker.addr, "mqttv5", "p", "x", 1, &properties.concat());
    let got = subscriber.receive().properties;
    assert!(got.contains(r#""user-properties":{"k":"1","k":"2"}"#), "{got}");
    for part in [
        r#""content-type":"text/plain""#,
        r#""response-topic":"answer/here""#,
        r#""correlation-data":"c0ffee""#,
    ] {
        assert!(got.contains(part), "{got}");
    }
}

#[test]
fn a_retained_message_greets_a_new_subscriber_until_an_empty_one_takes_it_away() {
    let broker = broker();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.retain("state/door", 1, b"open");
    publisher.retain("state/lamp", 1, b"on");
    publisher.retain("state/door", 1, b"closed");

    let mut late = Client::connect(broker.addr, &Connect::v4("late"));
    late.subscribe("state/door", 1);
    let message = late.receive();
    assert_eq!((message.text().as_str(), message.retain), ("closed", true));

    publisher.retain("state/door", 1, b"ajar");
    let message = late.receive();
    assert_eq!(
        (message.text().as_str(), message.retain),
        ("ajar", false),
        "a live message is not marked retained"
    );

    publisher.retain("state/door", 1, b"");
    assert_eq!(late.receive().text(), "");
    let mut later = Client::connect(broker.addr, &Connect::v5("later"));
    later.subscribe("state/#", 1);
    let message = later.receive();
    assert_eq!((message.topic.as_str(), message.text().as_str()), ("state/lamp", "on"));
    later.settle();
}

#[test]
fn wildcards_match_levels_and_leave_dollar_topics_alone() {
    let broker = broker();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    // The marker's four levels are matched by no filter here but "#".
    const MARKER: &str = "end/of/the/list";
    let sent = [
        "site",
        "site/a/temperature",
        "site/b/temperature",
        "site//temperature",
        "site/a/b/c",
        "/top",
        "$x/y",
        MARKER,
    ];
    let cases: [(&str, &[&str]); 6] = [
        ("site/+/temperature", &["site/a/temperature", "site/b/temperature", "site//temperature"]),
        ("site/#", &["site", "site/a/temperature", "site/b/temperature", "site//temperature", "site/a/b/c"]),
        ("+", &["site"]),
        ("+/+", &["/top"]),
        ("/+", &["/top"]),
        (
            "#",
            &["site", "site/a/temperature", "site/b/temperature", "site//temperature", "site/a/b/c", "/top"],
        ),
    ];
    for (n, (filter, expected)) in cases.iter().enumerate() {
        let mut subscriber = Client::connect(broker.addr, &Connect::v5(&format!("subscriber-{n}")));
        subscriber.subscribe(filter, 1);
        if *filter != "#" {
            subscriber.subscribe(MARKER, 1);
        }
        for topic in sent {
            publisher.publish(topic, 1, b"x");
        }
        let mut got = Vec::new();
        while got.last().map(String::as_str) != Some(MARKER) {
            got.push(subscriber.receive().topic);
        }
        got.pop();
        assert_eq!(&got, expected, "{filter}");
        subscriber.settle();
    }
}

#[test]
fn a_will_is_published_when_the_connection_breaks_and_not_after_disconnect() {
    let broker = broker();
    let mut watcher = Client::connect(broker.addr, &Connect::v5("watcher"));
    watcher.subscribe("gone/#", 1);
    let will = |topic| Will { topic, payload: b"it is gone", qos: 1, retain: true };

    let polite = Client::connect(broker.addr, &Connect::v5("polite").will(will("gone/polite")));
    polite.disconnect();
    drop(Client::connect(broker.addr, &Connect::v4("rude").will(will("gone/rude"))));
    let message = watcher.receive();
    assert_eq!(
        (message.topic.as_str(), message.text().as_str(), message.qos),
        ("gone/rude", "it is gone", 1)
    );
    watcher.settle();

    let mut late = Client::connect(broker.addr, &Connect::v4("late"));
    late.subscribe("gone/#", 1);
    assert_eq!(late.receive().topic, "gone/rude", "the will was retained");
    late.settle();
}

#[test]
fn a_will_also_speaks_for_a_client_whose_packet_was_malformed() {
    let broker = broker();
    let mut watcher = Client::connect(broker.addr, &Connect::v5("watcher"));
    watcher.subscribe("gone/#", 1);
    let will = Will { topic: "gone/babbler", payload: b"x", qos: 0, retain: false };
    let mut babbler = Client::connect(broker.addr, &Connect::v5("babbler").will(will));
    babbler.send(&[0x00, 0x00]);
    babbler.closed();
    assert_eq!(watcher.receive().topic, "gone/babbler");
}

#[test]
fn what_was_published_meanwhile_waits_for_a_session_that_is_resumed() {
    let broker = broker();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for (name, again) in
        [("five", Connect::v5("five").resume().session_expiry(600)), ("four", Connect::v4("four").resume())]
    {
        let mut client = Client::connect(broker.addr, &again);
        assert!(!client.session_present(), "{name}");
        client.subscribe("queue/a", 1);
        client.disconnect();
        publisher.publish("queue/a", 1, b"1");
        publisher.publish("queue/a", 2, b"2");

        let mut client = Client::connect(broker.addr, &again);
        assert!(client.session_present(), "{name}");
        let first = client.receive();
        assert_eq!((first.text().as_str(), first.qos, first.dup), ("1", 1, false), "{name}");
        assert_eq!(client.receive().text(), "2", "{name}");
        client.disconnect();

        let clean = if name == "five" { Connect::v5(name) } else { Connect::v4(name) };
        let client = Client::connect(broker.addr, &clean);
        assert!(!client.session_present(), "a clean start forgets the session of {name}");
        client.disconnect();
    }
}

#[test]
fn an_unacknowledged_message_comes_again_with_dup_in_the_resumed_session() {
    let broker = broker();
    let connect = Connect::v4("forgetful").resume();
    let mut client = Client::connect(broker.addr, &connect);
    client.subscribe("again", 1);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("again", 1, b"x");
    let first = client.message();
    assert!(!first.dup);
    drop(client);
    let mut client = Client::connect(broker.addr, &connect);
    let second = client.receive();
    assert_eq!((second.dup, second.id, second.text()), (true, first.id, first.text()));
}

/// [MQTT-3.1.2-22]
#[test]
fn a_client_that_says_nothing_for_one_and_a_half_keep_alives_is_let_go() {
    let broker = broker();
    let will = Will { topic: "gone/silent", payload: b"x", qos: 1, retain: false };
    let mut watcher = Client::connect(broker.addr, &Connect::v5("watcher"));
    watcher.subscribe("gone/#", 1);
    let silent = Client::connect(broker.addr, &Connect::v5("silent").keep_alive(1).will(will));
    assert_eq!(watcher.receive().topic, "gone/silent");
    let said = silent.closed();
    // v5 §4.13: keep alive timeout.
    assert!(
        said.iter().all(|packet| packet.first == 0xE0 && packet.body.first() == Some(&0x8D)),
        "{said:02x?}"
    );
}

/// [MQTT-3.1.3-5] and longer ones: every field may have what its length can say.
#[test]
fn the_longest_connect_is_taken() {
    let broker = broker();
    let long = "x".repeat(65_535);
    let will = Will { topic: "gone/long", payload: &[b'w'; 65_535], qos: 0, retain: false };
    let mut watcher = Client::connect(broker.addr, &Connect::v5("watcher"));
    watcher.subscribe("gone/long", 0);
    let connect = Connect::v5(&long).will(will).property(&mqtt::user_property("k", &long));
    Client::connect(broker.addr, &connect).is_gone();
    assert_eq!(watcher.receive().payload, [b'w'; 65_535]);
}

#[test]
fn a_second_connection_with_the_same_identifier_takes_the_session_over() {
    let broker = broker();
    let connect = Connect::v5("twin").resume().session_expiry(600);
    let mut first = Client::connect(broker.addr, &connect);
    first.subscribe("twin/inbox", 1);
    let mut second = Client::connect(broker.addr, &connect);
    assert!(second.session_present());
    let said = first.closed();
    let reasons: Vec<Option<&u8>> = said.iter().map(|packet| packet.body.first()).collect();
    assert_eq!(reasons, [Some(&0x8E)], "the first is told that its session was taken over: {said:02x?}");
    Client::connect(broker.addr, &Connect::v4("publisher")).publish("twin/inbox", 1, b"x");
    assert_eq!(second.receive().text(), "x");
}

#[test]
fn a_qos_2_message_sent_twice_before_its_release_is_delivered_once() {
    let broker = broker();
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("subscriber"));
    subscriber.subscribe("exactly/once", 2);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let bytes = publisher.publish_bytes("exactly/once", 2, false, &[], b"once");
    publisher.send(&bytes);
    assert_eq!(publisher.expect(PUBREC).id(), 9);
    let mut again = bytes;
    again[0] |= 0x08;
    publisher.send(&again);
    assert_eq!(publisher.expect(PUBREC).id(), 9);
    publisher.acknowledge(PUBREL, 9);
    assert_eq!(publisher.expect(PUBCOMP).id(), 9);
    publisher.acknowledge(PUBREL, 9);
    let unknown = publisher.expect(PUBCOMP);
    assert_eq!(unknown.id(), 9, "a release of what is already released is answered too");

    let message = subscriber.receive();
    assert_eq!((message.text().as_str(), message.qos), ("once", 2));
    publisher.publish("exactly/once", 1, b"end");
    let end = subscriber.receive();
    assert_eq!((end.text().as_str(), end.qos), ("end", 1));
}

#[test]
fn the_qos_2_handshake_goes_on_where_a_broken_connection_left_it() {
    let broker = broker();
    let connect = Connect::v5("receiver").resume().session_expiry(600);
    let mut receiver = Client::connect(broker.addr, &connect);
    receiver.subscribe("exactly/once", 2);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("exactly/once", 2, b"once");
    let message = receiver.message();
    receiver.acknowledge(PUBREC, message.id);
    assert_eq!(receiver.expect(PUBREL).id(), message.id);
    drop(receiver);
    let mut receiver = Client::connect(broker.addr, &connect);
    assert_eq!(receiver.expect(PUBREL).id(), message.id, "the release comes again, not the message");
    receiver.acknowledge(PUBCOMP, message.id);
    receiver.settle();
}

#[test]
fn overlapping_subscriptions_and_identifiers_are_all_served() {
    let broker = broker();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    // SUBSCRIBE with subscription identifier 5, then another filter with 6.
    for (identifier, filter) in [(5u8, "over/#"), (6, "over/lap")] {
        let body = [vec![0, 3, 2, 0x0B, identifier], mqtt::text(filter), vec![1]].concat();
        client.send(&mqtt::packet(0x82, &body));
        client.expect(mqtt::SUBACK);
    }
    client.publish("other", 0, b"nobody hears this");
    let publish = client.publish_bytes("over/lap", 1, false, &[], b"x");
    client.send(&publish);
    let mut identifiers = Vec::new();
    let mut acknowledged = false;
    // One message with both identifiers, or one for each subscription [MQTT-3.3.4-4]; the PUBACK comes in between.
    while identifiers.len() < 2 || !acknowledged {
        let packet = client.packet();
        match packet.kind() {
            PUBACK => acknowledged = true,
            kind => {
                assert_eq!(kind, mqtt::PUBLISH);
                let properties = &packet.body[2 + 8 + 2 + 1..];
                let length = usize::from(packet.body[2 + 8 + 2]);
                identifiers.extend(properties[..length].chunks(2).map(|pair| pair[1]));
                client.acknowledge(PUBACK, u16::from_be_bytes([packet.body[10], packet.body[11]]));
            }
        }
    }
    identifiers.sort_unstable();
    assert_eq!(identifiers, [5, 6]);
}

#[test]
fn the_subscriber_is_given_no_more_than_its_receive_maximum_at_once() {
    let broker = broker();
    let mut client = Client::connect(broker.addr, &Connect::v5("narrow").property(&[0x21, 0, 2]));
    client.subscribe("many", 1);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for n in 0..5u8 {
        publisher.publish("many", 1, &[b'0' + n]);
    }
    let first = client.message();
    let second = client.message();
    client.settle();
    client.acknowledge(PUBACK, first.id);
    let third = client.message();
    client.settle();
    client.acknowledge(PUBACK, second.id);
    client.acknowledge(PUBACK, third.id);
    let rest = [client.receive().text(), client.receive().text()];
    assert_eq!(
        [first.text(), second.text(), third.text(), rest[0].clone(), rest[1].clone()],
        ["0", "1", "2", "3", "4"]
    );
}
