//! Order by `__ts` at the broker: subscriptions of clients and sources of graphs are fed in the order in which messages
//! were stamped, whoever brings them, within a bounded lateness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_tests::artifact::{Artifact, Shape};
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mosquitto;
use forebay_tests::mqtt::{self, Client, Connect, Packet, Publish, SUBACK, Will, user_property};
use forebay_tests::operators;
use forebay_tests::resources::{Resources, dataflow_graph, documents, map_graph, registry_endpoint};

/// Wall time in milliseconds.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Subscribes with user properties; the SUBACK.
fn subscribe(client: &mut Client, filter: &str, qos: u8, properties: &[(&str, &str)]) -> Packet {
    let properties: Vec<u8> = properties.iter().flat_map(|(key, value)| user_property(key, value)).collect();
    let body = [vec![0, 7], mqtt::span(&properties), mqtt::text(filter), vec![qos]].concat();
    client.send(&mqtt::packet(0x82, &body));
    client.expect(SUBACK)
}

/// Subscribes in order of `__ts`.
fn subscribe_in_order(client: &mut Client, filter: &str, qos: u8, lateness_ms: u32) {
    let lateness = lateness_ms.to_string();
    let suback =
        subscribe(client, filter, qos, &[("order-by", "__ts"), ("max-lateness-ms", lateness.as_str())]);
    assert_eq!(suback.body.last(), Some(&qos), "{suback:02x?}");
}

/// What a SUBACK says: its properties and the code of its one filter.
fn said(suback: &Packet) -> (&[u8], u8) {
    let length = usize::from(suback.body[2]);
    (&suback.body[3..3 + length], suback.body[3 + length])
}

fn publish(client: &mut Client, topic: &str, qos: u8, stamp: &str, text: &str) {
    client.publish_with(topic, qos, false, &user_property("__ts", stamp), text.as_bytes());
}

fn texts(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.receive().text()).collect()
}

fn late(message: &Publish) -> bool {
    message.user_properties().contains(&("late".to_owned(), "true".to_owned()))
}

#[test]
fn several_publishers_are_put_in_order_and_others_do_not_wait() {
    let broker = Serve::new().start();
    let mut ordered = Client::connect(broker.addr, &Connect::v5("ordered"));
    let mut plain = Client::connect(broker.addr, &Connect::v5("plain"));
    subscribe_in_order(&mut ordered, "o/#", 1, 400);
    plain.subscribe("o/#", 1);
    let mut publishers: Vec<Client> =
        ["a", "b"].iter().map(|id| Client::connect(broker.addr, &Connect::v5(id))).collect();
    let base = now_ms();
    let begun = Instant::now();
    // Equal times go by counter, then node, then arrival.
    let sent = [
        (0, 5, 0, "z", "5z"),
        (1, 3, 0, "y", "3"),
        (0, 5, 0, "a", "5a"),
        (1, 4, 1, "y", "4 second"),
        (0, 4, 0, "y", "4 first"),
        (1, 5, 0, "a", "5a again"),
    ];
    for (publisher, after, counter, node, text) in sent {
        let stamp = format!("{}:{counter}:{node}", base + after);
        publish(&mut publishers[publisher], "o/x", 1, &stamp, text);
    }
    assert_eq!(texts(&mut plain, 6), sent.map(|(.., text)| text));
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(texts(&mut ordered, 6), ["3", "4 first", "4 second", "5a", "5a again", "5z"]);
    assert!(begun.elapsed() >= Duration::from_millis(400), "nothing leaves before others had their time");
    ordered.settle();
}

#[test]
fn what_comes_too_late_is_marked_or_dropped() {
    let broker = Serve::new().start();
    let mut marks = Client::connect(broker.addr, &Connect::v5("marks"));
    let mut drops = Client::connect(broker.addr, &Connect::v5("drops"));
    subscribe_in_order(&mut marks, "o", 0, 50);
    let asked = [("order-by", "__ts"), ("max-lateness-ms", "50"), ("late-messages", "drop")];
    subscribe(&mut drops, "o", 0, &asked);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publish(&mut publisher, "o", 1, "2000:0:n", "first");
    assert_eq!((marks.receive().text(), drops.receive().text()), ("first".to_owned(), "first".to_owned()));
    publish(&mut publisher, "o", 1, "1999:0:n", "late");
    let message = marks.receive();
    assert!(message.text() == "late" && late(&message), "{message:?}");
    assert!(message.user_properties().contains(&("__ts".to_owned(), "1999:0:n".to_owned())));
    publish(&mut publisher, "o", 1, "2000:0:n", "equal");
    for client in [&mut marks, &mut drops] {
        let message = client.receive();
        assert!(message.text() == "equal" && !late(&message), "{message:?}");
    }
    assert_eq!(broker.metric("forebay_order_late_total", &["action=\"drop\""]), 1.0);
    assert_eq!(broker.metric("forebay_order_late_total", &["action=\"deliver\""]), 1.0);
}

#[test]
fn a_publisher_whose_clock_is_ahead_delays_only_its_own() {
    let broker = Serve::new().start();
    let mut ordered = Client::connect(broker.addr, &Connect::v5("ordered"));
    subscribe_in_order(&mut ordered, "o", 1, 100);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let base = now_ms();
    publish(&mut publisher, "o", 1, &format!("{}:0:ahead", base + 3_000), "ahead");
    publish(&mut publisher, "o", 1, &format!("{}:0:right", base - 5), "right");
    publish(&mut publisher, "o", 1, &format!("{}:0:wrong", base + 3_600_000), "an hour ahead");
    publisher.publish("o", 1, b"without");
    // What cannot be used, and what is not there, is the time of arrival.
    assert_eq!(texts(&mut ordered, 4), ["right", "an hour ahead", "without", "ahead"]);
    assert!(now_ms() >= base + 3_000);
    let unused = broker.metric("forebay_order_timestamps_unused_total", &["timestamp-ahead"]);
    assert_eq!(unused, 1.0);
}

#[test]
fn retained_messages_wills_and_shared_subscriptions_are_ordered_too() {
    let broker = Serve::new().start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for (topic, stamp) in [("o/a", "3000:0:n"), ("o/b", "1000:0:n"), ("o/c", "2000:0:n")] {
        publisher.publish_with(topic, 1, true, &user_property("__ts", stamp), stamp.as_bytes());
    }
    let mut alone = Client::connect(broker.addr, &Connect::v5("alone"));
    subscribe_in_order(&mut alone, "o/#", 1, 300);
    let mut member = Client::connect(broker.addr, &Connect::v5("member"));
    subscribe_in_order(&mut member, "$share/group/o/#", 1, 300);
    let will = Will { topic: "o/will", payload: b"will", qos: 1, retain: false };
    let dies = Client::connect(broker.addr, &Connect::v5("dies").will(will));
    drop(dies);
    for stamp in ["2500:0:n", "1500:0:n"] {
        publish(&mut publisher, "o/live", 1, stamp, stamp);
    }
    let got: Vec<(String, bool)> = (0..6)
        .map(|_| {
            let message = alone.receive();
            (message.text(), message.retain)
        })
        .collect();
    let expected = [
        ("1000:0:n", true),
        ("1500:0:n", false),
        ("2000:0:n", true),
        ("2500:0:n", false),
        ("3000:0:n", true),
        ("will", false),
    ];
    assert_eq!(got, expected.map(|(text, retain)| (text.to_owned(), retain)));
    assert_eq!(texts(&mut member, 3), ["1500:0:n", "2500:0:n", "will"]);
}

#[test]
fn what_waits_outlives_a_connection_and_not_a_subscription() {
    let broker = Serve::new().start();
    let connect = Connect::v5("subscriber").resume().session_expiry(60);
    let mut subscriber = Client::connect(broker.addr, &connect);
    subscribe_in_order(&mut subscriber, "o", 1, 300);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publish(&mut publisher, "o", 1, "2:0:n", "second");
    publish(&mut publisher, "o", 1, "1:0:n", "first");
    drop(subscriber);
    let mut subscriber = Client::connect(broker.addr, &connect);
    assert!(subscriber.session_present());
    assert_eq!(texts(&mut subscriber, 2), ["first", "second"]);
    // Subscribing anew begins anew; the end of a subscription sets free what waits.
    subscribe_in_order(&mut subscriber, "o", 1, 60_000);
    publish(&mut publisher, "o", 1, "2:0:n", "waits");
    publish(&mut publisher, "o", 1, "1:0:n", "waits, too");
    subscriber.send(&mqtt::packet(0xA2, &[vec![0, 8, 0], mqtt::text("o")].concat()));
    let mut packets = Vec::new();
    while packets.len() < 3 {
        packets.push(subscriber.packet());
    }
    let publishes: Vec<String> = packets
        .iter()
        .filter(|packet| packet.kind() == 3)
        .map(|packet| String::from_utf8_lossy(&packet.body).into_owned())
        .collect();
    assert!(publishes[0].ends_with("waits, too") && publishes[1].ends_with("waits"), "{publishes:?}");
    publish(&mut publisher, "o", 1, "3:0:n", "for nobody");
    subscriber.settle();
}

#[test]
fn what_is_granted_is_told_and_what_is_wrong_is_refused() {
    let broker = Serve::new().start();
    let mut client = Client::connect(broker.addr, &Connect::v5("client"));
    let suback = subscribe(&mut client, "o", 1, &[("order-by", "__ts"), ("other", "x")]);
    let (properties, code) = said(&suback);
    assert_eq!(code, 1);
    let expected = [("order-by", "__ts"), ("max-lateness-ms", "1000"), ("late-messages", "deliver")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(mqtt::user_properties(properties), expected);
    let suback = subscribe(&mut client, "wrong", 1, &[("order-by", "__ts"), ("max-lateness-ms", "soon")]);
    let (properties, code) = said(&suback);
    assert_eq!(code, 0x83);
    let why = "max-lateness-ms is a number from 0 to 600000, not soon";
    assert_eq!(properties, [vec![0x1F], mqtt::text(why)].concat());
    client.publish("wrong", 0, b"for nobody");
    client.settle();
    // A client that wants to hear codes only hears codes only [MQTT-3.1.2-29].
    let mut terse = Client::connect(broker.addr, &Connect::v5("terse").property(&[0x17, 0]));
    assert_eq!(said(&subscribe(&mut terse, "o", 1, &[("order-by", "__ts")])), (&[][..], 1));
}

#[test]
fn mosquitto_sub_asks_for_order_like_anybody() {
    let broker = Serve::new().start();
    let asked = ["-D", "subscribe", "user-property", "order-by", "__ts"];
    let lateness = ["-D", "subscribe", "user-property", "max-lateness-ms", "500"];
    let mut subscriber =
        mosquitto::Subscriber::start(broker.addr, "mqttv5", "o", 1, &[asked, lateness].concat());
    for stamp in ["3000:0:n", "1000:0:n", "2000:0:n"] {
        let property = ["-D", "publish", "user-property", "__ts", stamp];
        mosquitto::publish(broker.addr, "mqttv5", "o", stamp, 1, &property);
    }
    let got: Vec<String> = (0..3).map(|_| subscriber.receive().payload).collect();
    assert_eq!(got, ["1000:0:n", "2000:0:n", "3000:0:n"]);
}

/// A broker with a graph whose source is fed in order.
fn with_graph(annotations: &str) -> Forebay {
    let registry = operators::sample_registry();
    let graph = map_graph("module-temperature/map", "temperature:1.0.0");
    registry.push("map", "1.0.0", &Artifact::new(Shape::Graph, "graph.yaml", graph));
    let flow = dataflow_graph("in-order", "registry", "map:1.0.0", "raw", "cooked");
    let flow =
        flow.replace("  name: in-order\n", &format!("  name: in-order\n  annotations:\n{annotations}"));
    let all = documents(&[registry_endpoint("registry", registry.addr), flow]);
    let resources = Resources::default().with("all.yaml", &all);
    Serve::new().resources(&resources).start()
}

fn fahrenheit(value: f64) -> String {
    format!(r#"{{"temperature":{{"value":{value:?},"unit":"F"}}}}"#)
}

#[test]
fn a_graph_is_fed_in_order_and_keeps_what_is_late() {
    let broker = with_graph(
        "    forebay.dev/order-by: __ts\n    forebay.dev/max-lateness: 400ms\n    \
         forebay.dev/late-messages: drop\n    forebay.dev/dead-letter-topic: letters\n",
    );
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("subscriber"));
    subscriber.subscribe("cooked", 1);
    let mut letters = Client::connect(broker.addr, &Connect::v5("letters"));
    letters.subscribe("letters", 1);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let base = now_ms();
    for (after, value) in [(20, 50.0), (0, 32.0), (10, 41.0)] {
        publish(&mut publisher, "raw", 1, &format!("{}:0:n", base + after), &fahrenheit(value));
    }
    for celsius in ["0.0", "5.0", "10.0"] {
        let message = subscriber.receive();
        assert!(message.text().contains(&format!(r#""value":{celsius},"#)), "{}", message.text());
    }
    publish(&mut publisher, "raw", 1, &format!("{}:0:n", base + 5), &fahrenheit(59.0));
    let letter = letters.receive();
    assert_eq!(letter.text(), fahrenheit(59.0));
    assert!(letter.user_properties().contains(&("dead-letter-reason".to_owned(), "late".to_owned())));
    publish(&mut publisher, "raw", 1, &format!("{}:0:n", base + 30), &fahrenheit(68.0));
    assert!(subscriber.receive().text().contains(r#""value":20.0,"#));
}
