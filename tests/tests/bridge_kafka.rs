//! Graphs between this broker and Kafka: a server that speaks its protocol, and clients that others wrote.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use forebay_tests::forebay::Forebay;
use forebay_tests::kafka::Kafka;
use forebay_tests::mqtt::{Client, Connect, user_property};
use forebay_tests::outage;
use forebay_tests::pki::{Authority, config_map};
use forebay_tests::place::{Place, celsius, value, wait_connected, wait_reason};
use forebay_tests::resources::{between, dataflow_graph, kafka_endpoint, persisted, secret};
use forebay_tests::wait;

const ANONYMOUS: &str = "authentication: {method: Anonymous, anonymousSettings: {}}\ntls: {mode: Disabled}";
const PASS: &str = "graph-simple:1.0.0";

fn kafka(host: &str, more: &[&str]) -> String {
    kafka_endpoint("kafka", host, &[&[ANONYMOUS], more].concat())
}

/// From `raw/#` of this broker to the topic `cooked` of Kafka.
fn outward() -> String {
    between(&dataflow_graph("outward", "registry", PASS, "raw/#", "cooked"), "default", "kafka")
}

/// From the topic `raw` of Kafka to `near` of this broker.
fn inward() -> String {
    between(&dataflow_graph("inward", "registry", PASS, "raw", "near"), "kafka", "default")
}

/// From Kafka to Kafka.
fn through() -> String {
    between(&dataflow_graph("through", "registry", PASS, "raw", "cooked"), "kafka", "kafka")
}

fn lines(values: std::ops::Range<u32>) -> Vec<String> {
    values.map(|value| String::from_utf8(celsius(value)).expect("text")).collect()
}

/// The values that a topic has, which may be there twice.
fn values(kafka: &Kafka, topic: &str) -> BTreeSet<u32> {
    kafka.consume(topic, "%s").iter().map(|line| value(line.as_bytes())).collect()
}

fn wait_values(kafka: &Kafka, topic: &str, expected: std::ops::Range<u32>) {
    let expected: BTreeSet<u32> = expected.collect();
    wait::until("everything is there", || {
        let got = values(kafka, topic);
        let missing = expected.difference(&got).count();
        (got == expected).then_some(()).ok_or_else(|| format!("{} there, {missing} missing", got.len()))
    });
}

#[test]
fn messages_go_out_with_headers_and_keys_and_come_in_with_properties() {
    let server = Kafka::start();
    server.create("raw", 2);
    server.create("cooked", 2);
    let settings = [
        "consumerGroupId: readers",
        "partitionStrategy: Property",
        "partitionKeyProperty: machine",
        "compression: Lz4",
    ];
    let place = Place::new(&[kafka(&server.addr.to_string(), &settings), outward(), inward()]);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    wait_connected(&broker, "source");
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    let properties =
        [user_property("machine", "m7"), vec![0x03, 0, 4, b'j', b's', b'o', b'n'], vec![0x02, 0, 0, 0, 90]]
            .concat();
    client.publish_with("raw/x", 1, false, &properties, &celsius(1));
    let line =
        wait::until("it is there", || server.consume("cooked", "%k|%h|%s").pop().ok_or_else(String::new));
    for part in ["m7|", "machine=m7", "Content Type=json", "__ts=", "Message Expiry Interval="] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let mut here = Client::connect(broker.addr, &Connect::v5("here"));
    here.subscribe("near", 1);
    server.produce(
        "raw",
        &["-K", "|", "-H", "line=8", "-H", "Content Type=json"],
        &[format!("k1|{}", lines(2..3)[0])],
    );
    let message = here.receive();
    let said = message.user_properties();
    let property = |name: &str| said.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((value(&message.payload), property("line"), property("Key")), (2, Some("8"), Some("k1")));
    assert!(property("Timestamp").is_some_and(|text| text.parse::<u64>().is_ok()), "{said:?}");
    assert!(message.properties.windows(4).any(|bytes| bytes == b"json"));
}

#[test]
fn what_is_acknowledged_reaches_kafka_that_was_away_and_this_broker_was_killed() {
    let mut server = Kafka::start();
    let place = Place::new(&[kafka(&server.addr.to_string(), &[]), persisted(&outward())]);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let send = |publisher: &mut Client, values: std::ops::Range<u32>| {
        values.for_each(|value| publisher.publish("raw/x", 1, &celsius(value)));
    };
    send(&mut publisher, 0..50);
    wait_values(&server, "cooked", 0..50);
    server.stop();
    let gone = outage::publish(&mut publisher, "raw/x", celsius, 50);
    let why = wait::until("it is told", || {
        let output = broker.output();
        output.lines().find(|line| line.contains("DataflowKafkaTarget")).map(ToOwned::to_owned).ok_or(output)
    });
    assert!(why.contains("endpoint=kafka"), "{why}");
    drop(broker);
    let broker = place.serve().start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    send(&mut publisher, gone.end..gone.end + 100);
    server.resume();
    wait_values(&server, "cooked", 0..gone.end + 100);
    broker.wait_metric_is("forebay_store_graph_entries", &["dataflow_id=\"outward\""], 0.0);
}

#[test]
fn three_processes_are_one_group_and_one_that_is_killed_loses_nothing() {
    let server = Kafka::start();
    server.create("raw", 6);
    server.create("cooked", 3);
    let parts = [kafka(&server.addr.to_string(), &["consumerGroupId: workers"]), through()];
    let places: Vec<Place> = (0..3).map(|_| Place::new(&parts)).collect();
    let mut brokers: Vec<Forebay> = places.iter().map(|place| place.serve().start()).collect();
    for broker in &brokers {
        wait_connected(broker, "source");
    }
    let received =
        |broker: &Forebay| broker.metric("forebay_bridge_messages_received_total", &["node=\"source\""]);
    for batch in 0..10 {
        server.produce("raw", &["-X", "topic.partitioner=random"], &lines(batch * 200..(batch + 1) * 200));
        if batch == 4 {
            assert!(brokers.iter().all(|broker| received(broker) > 0.0), "each has its part");
            // In the middle of its work.
            drop(brokers.pop());
        }
        thread::sleep(Duration::from_millis(100));
    }
    // A cluster gives its partitions to the others when its session is over; this server does not. It comes back.
    brokers.push(places[2].serve().start());
    wait_values(&server, "cooked", 0..2_000);
    // What is committed does not come again.
    wait::until("all of it is committed", || match server.committed("workers", "raw", 6) {
        2_000 => Ok(()),
        other => Err(format!("{other} are")),
    });
    brokers.clear();
    let before = server.consume("cooked", "%s").len();
    let _brokers: Vec<Forebay> = places.iter().map(|place| place.serve().start()).collect();
    server.produce("raw", &[], &lines(2_000..2_001));
    wait_values(&server, "cooked", 0..2_001);
    assert_eq!(server.consume("cooked", "%s").len() - before, 1, "only the new one came");
}

#[test]
fn offsets_wait_for_what_is_derived() {
    let server = Kafka::start();
    server.create("raw", 1);
    let place = Place::new(&[kafka(&server.addr.to_string(), &["consumerGroupId: readers"]), inward()]);
    let asks = user_property("aio-persistence", "true");
    let lasting = Connect::v5("here").resume().session_expiry(u32::MAX).property(&asks);
    let broker = place.serve().start();
    Client::connect(broker.addr, &lasting).subscribe("near", 1);
    wait_connected(&broker, "source");
    let mut broker = Some(broker);
    for batch in 0..5 {
        server.produce("raw", &[], &lines(batch * 100..(batch + 1) * 100));
        thread::sleep(Duration::from_millis(40));
        drop(broker.take()); // killed
        broker = Some(place.serve().start());
    }
    let broker = broker.expect("a broker");
    let mut here = Client::connect(broker.addr, &lasting);
    let mut missing: BTreeSet<u32> = (0..500).collect();
    while !missing.is_empty() {
        missing.remove(&value(&here.receive().payload));
    }
}

#[test]
fn a_cluster_that_hangs_or_is_not_there_or_talks_nonsense_is_told_of() {
    let server = Kafka::start();
    let place = Place::new(&[kafka(&server.addr.to_string(), &[]), outward()]);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    server.hang();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    (0..20).for_each(|value| publisher.publish("raw/x", 1, &celsius(value)));
    thread::sleep(Duration::from_secs(3));
    publisher.settle();
    server.go_on();
    wait_values(&server, "cooked", 0..20);

    let nobody = wait::free_addr();
    let nonsense = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let garbled = nonsense.local_addr().expect("an address");
    thread::spawn(move || {
        for mut socket in nonsense.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for (addr, graph, codes) in [
        (
            nobody,
            outward(),
            ["DataflowKafkaTargetEndpointUnreachable", "DataflowKafkaTargetConnectionFailed"],
        ),
        (garbled, inward(), ["DataflowKafkaSourceConnectionFailed"; 2]),
    ] {
        let place = Place::new(&[kafka(&addr.to_string(), &["consumerGroupId: g"]), graph]);
        let broker = place.serve().start();
        wait::until("it is told", || {
            let output = broker.output();
            codes.iter().any(|code| output.contains(code)).then_some(()).ok_or(output)
        });
        Client::connect(broker.addr, &Connect::v5("c")).settle();
    }
}

#[test]
fn certificates_on_both_sides_and_their_faults() {
    let (authority, other) = (Authority::new("plant"), Authority::new("other"));
    let server = Kafka::behind_tls(&authority);
    server.create("raw", 1);
    server.create("cooked", 1);
    let x509 = "authentication: {method: X509Certificate, x509CertificateSettings: {secretRef: device}}\n\
                tls: {mode: Enabled, trustedCaCertificateConfigMapRef: trusted}\nconsumerGroupId: plant";
    let parts = |host: &str, settings: &str, trusted: &Authority, device: &Authority| {
        let endpoint = kafka_endpoint("kafka", host, &[settings]);
        let trusted = config_map("trusted", &[("ca.crt", &trusted.certificate)]);
        [endpoint, trusted, device.client("device-7").secret("device"), through()]
    };
    let (addr, port) = (server.addr.to_string(), server.addr.port());
    let place = Place::new(&parts(&addr, x509, &authority, &authority));
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    server.produce("raw", &[], &lines(0..20));
    wait_values(&server, "cooked", 0..20);
    drop(broker);

    // Whom we do not trust, who does not trust us, who is called otherwise, and who waits for TLS in vain.
    let plain = format!("{ANONYMOUS}\nconsumerGroupId: plant");
    for (host, settings, trusted, device, says) in [
        (&*addr, x509, &other, &authority, "certificate verify failed"),
        (&*addr, x509, &authority, &other, "certificate"),
        (&*format!("127.0.0.2:{port}"), x509, &authority, &authority, ""),
        (&*addr, &*plain, &authority, &authority, ""),
    ] {
        let place = Place::new(&parts(host, settings, trusted, device));
        let broker = place.serve().start();
        let why = wait_reason(&broker, "through", "DataflowKafkaSourceConnectionFailed");
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn what_cannot_be_used_is_said_by_its_name() {
    let azure =
        "authentication: {method: SystemAssignedManagedIdentity, systemAssignedManagedIdentitySettings: {}}";
    let sasl = "authentication: {method: Sasl, saslSettings: {saslType: ScramSha512, secretRef: login}}";
    let parts = |settings: &str, graph: String| {
        [kafka_endpoint("kafka", "127.0.0.1:1", &[settings]), secret("login", &[("user", "x")]), graph]
    };
    for (settings, graph, name, code, says) in [
        (
            azure,
            outward(),
            "outward",
            "DataflowKafkaTargetConfigurationError",
            "SystemAssignedManagedIdentity",
        ),
        (sasl, outward(), "outward", "DataflowKafkaTargetConfigurationError", "username"),
        (ANONYMOUS, inward(), "inward", "DataflowGraphConfigurationFailed", "consumerGroupId"),
    ] {
        let place = Place::new(&parts(settings, graph));
        let broker = place.serve().start();
        let why = wait_reason(&broker, name, code);
        assert!(why.contains(says), "{why}");
    }
}
