//! Graphs between this broker and remote ones: mosquitto, and another forebay.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::mosquitto;
use forebay_tests::mosquitto_broker::MosquittoBroker;
use forebay_tests::mqtt::{Client, Connect, PUBACK, user_property};
use forebay_tests::outage;
use forebay_tests::pki::Authority;
use forebay_tests::place::{Place, celsius, value, wait_connected, wait_reason};
use forebay_tests::proxy::Proxy;
use forebay_tests::resources::{
    Resources, between, broker_authentication, broker_authorization, broker_listener, config_map,
    dataflow_graph, mqtt_endpoint, persisted, secret,
};
use forebay_tests::wait;

const ANONYMOUS: &str = "authentication: {method: Anonymous, anonymousSettings: {}}";
const PLAIN: &str = "tls: {mode: Disabled}";
const PASS: &str = "graph-simple:1.0.0";

/// From `raw/#` of this broker to `cooked/…` of the remote one.
fn outward() -> String {
    between(
        &dataflow_graph("outward", "registry", PASS, "raw/#", "cooked/${inputTopic.2}"),
        "default",
        "remote",
    )
}

/// From `far/#` of the remote broker to `near` of this one.
fn inward() -> String {
    between(&dataflow_graph("inward", "registry", PASS, "far/#", "near"), "remote", "default")
}

fn remote(addr: SocketAddr, more: &[&str]) -> String {
    mqtt_endpoint("remote", &addr.to_string(), &[&[ANONYMOUS, PLAIN], more].concat(), &[])
}

/// Receives until all these values are there; they may come twice, but not without having been sent.
fn all_of(client: &mut Client, values: impl IntoIterator<Item = u32>) {
    let mut missing: BTreeSet<u32> = values.into_iter().collect();
    let sent = missing.clone();
    while !missing.is_empty() {
        let got = value(&client.receive().payload);
        assert!(sent.contains(&got), "{got} was never sent");
        missing.remove(&got);
    }
}

#[test]
fn messages_go_out_and_come_in_with_all_that_mqtt_5_says_of_them() {
    let far = MosquittoBroker::start();
    let place = Place::new(&[remote(far.addr, &[]), outward(), inward()]);
    let broker = place.serve().start();
    let mut there = mosquitto::Subscriber::start(far.addr, "mqttv5", "cooked/#", 1, &[]);
    let mut here = mosquitto::Subscriber::start(broker.addr, "mqttv5", "near", 1, &[]);
    wait_connected(&broker, "source");
    let text = String::from_utf8(celsius(21)).expect("text");
    let said = ["-D", "publish", "user-property", "line", "7", "-D", "publish", "response-topic", "answers"];
    mosquitto::publish(broker.addr, "mqttv5", "raw/boiler", &text, 1, &said);
    let message = there.receive();
    assert_eq!(
        (message.topic.as_str(), message.qos, value(message.payload.as_bytes())),
        ("cooked/boiler", 1, 21)
    );
    for part in ["\"line\":\"7\"", "\"__ts\":", "\"forebay-hops\":\"1\"", "answers"] {
        assert!(message.properties.contains(part), "{part} in {}", message.properties);
    }
    mosquitto::publish(far.addr, "mqttv5", "far/boiler", &text, 1, &said);
    let message = here.receive();
    assert_eq!((message.topic.as_str(), value(message.payload.as_bytes())), ("near", 21));
    assert!(message.properties.contains("\"line\":\"7\""), "{}", message.properties);
    // What came and went is counted.
    broker.wait_metric_is("forebay_bridge_messages_received_total", &["node=\"source\""], 1.0);
    broker.wait_metric_is("forebay_bridge_messages_delivered_total", &["success=\"true\""], 1.0);
}

#[test]
fn what_is_acknowledged_reaches_a_remote_broker_that_was_away_and_this_one_was_killed() {
    let far = MosquittoBroker::start();
    let proxy = Proxy::to(far.addr);
    let place = Place::new(&[remote(proxy.addr, &[]), persisted(&outward())]);
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("cooked/#", 1);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let send = |publisher: &mut Client, values: std::ops::Range<u32>| {
        values.for_each(|value| publisher.publish("raw/x", 1, &celsius(value)));
    };
    send(&mut publisher, 0..50);
    proxy.cut();
    let gone = outage::publish(&mut publisher, "raw/x", celsius, 50);
    let why = wait_reason(&broker, "outward", "DataflowMqttTargetConnectionFailed");
    assert!(why.starts_with("destination (remote): "), "{why}");
    drop(broker);
    let broker = place.serve().start();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    send(&mut publisher, gone.end..gone.end + 100);
    proxy.restore();
    all_of(&mut there, 0..gone.end + 100);
    // All of it is done with: the log has nothing left for the graph.
    broker.wait_metric_is("forebay_store_graph_entries", &["dataflow_id=\"outward\""], 0.0);
    drop(broker);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    send(&mut publisher, 999_999..1_000_000);
    assert_eq!(value(&there.receive().payload), 999_999);
}

/// Publishes; whether the broker takes it, or has no room.
fn is_taken(publisher: &mut Client, value: u32) -> bool {
    publisher.send(&publisher.publish_bytes("raw/x", 1, false, &[], &celsius(value)));
    match publisher.expect(PUBACK).body.get(2) {
        None | Some(0) => true,
        Some(0x97) => false,
        Some(other) => panic!("{other:#x}"),
    }
}

#[test]
fn what_waits_in_memory_for_a_remote_broker_is_delivered_in_order_or_refused() {
    let far = MosquittoBroker::start();
    let proxy = Proxy::to(far.addr);
    let graph = outward().replace(
        "  name: outward\n",
        "  name: outward\n  annotations: {forebay.dev/bridge-queue-limit: 20KiB}\n",
    );
    let place = Place::new(&[remote(proxy.addr, &[]), graph]);
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("cooked/#", 1);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    proxy.cut();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let taken: Vec<u32> = (0..200).filter(|value| is_taken(&mut publisher, *value)).collect();
    assert!(taken.len() > 10 && taken.len() < 200, "{}", taken.len());
    assert!(
        taken.iter().zip(0..).all(|(taken, value)| *taken == value),
        "the last ones are refused: {taken:?}"
    );
    proxy.restore();
    let got: Vec<u32> = taken.iter().map(|_| value(&there.receive().payload)).collect();
    assert_eq!(got, taken);
    // There is room again.
    wait::until("a message is taken", || is_taken(&mut publisher, 7).then_some(()).ok_or_else(String::new));
}

#[test]
fn a_remote_broker_keeps_what_this_one_has_not_taken_for_certain() {
    let far = MosquittoBroker::start();
    let place = Place::new(&[remote(far.addr, &[]), inward()]);
    let broker = place.serve().start();
    let asks = user_property("aio-persistence", "true");
    let lasting = Connect::v5("here").resume().session_expiry(u32::MAX).property(&asks);
    Client::connect(broker.addr, &lasting).subscribe("near", 1);
    wait_connected(&broker, "source");
    let feeder = thread::spawn(move || {
        let mut feeder = Client::connect(far.addr, &Connect::v5("feeder"));
        (0..2_000).for_each(|value| feeder.publish("far/x", 1, &celsius(value)));
        far
    });
    let mut broker = Some(broker);
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(60));
        drop(broker.take()); // killed
        broker = Some(place.serve().start());
    }
    let _far = feeder.join().expect("the feeder feeds");
    let broker = broker.expect("a broker");
    let mut here = Client::connect(broker.addr, &lasting);
    all_of(&mut here, 0..2_000);
}

#[test]
fn certificates_on_both_sides_and_their_faults() {
    let (authority, other) = (Authority::new("plant"), Authority::new("other"));
    let server = authority.server();
    let settings = "cafile DIR/ca\ncertfile DIR/crt\nkeyfile DIR/key\nrequire_certificate true\n\
                    use_identity_as_username true\nallow_anonymous false\n";
    let files = [("ca", &*authority.certificate), ("crt", &*server.certificate), ("key", &*server.key)];
    let far = MosquittoBroker::with(settings, &files);
    let x509 = "authentication: {method: X509Certificate, x509CertificateSettings: {secretRef: device}}\n\
                tls: {mode: Enabled, trustedCaCertificateConfigMapRef: trusted}";
    let endpoint = |host: String| mqtt_endpoint("remote", &host, &[x509], &[]);
    let parts = |host: String, trusted: &Authority, device: &Authority| {
        let device = device.client("device-7").secret("device");
        [endpoint(host), config_map("trusted", "ca.crt", &trusted.certificate), device, outward()]
    };
    let localhost = format!("localhost:{}", far.addr.port());
    let place = Place::new(&parts(localhost.clone(), &authority, &authority));
    let broker = place.serve().start();
    wait_connected(&broker, "destination");

    // Whom we do not trust, who does not trust us, and who is called otherwise.
    for (host, trusted, device, says) in [
        (localhost.clone(), &other, &authority, "UnknownIssuer"),
        (localhost, &authority, &other, ""),
        (far.addr.to_string().replace("127.0.0.1", "127.0.0.2"), &authority, &authority, ""),
    ] {
        let place = Place::new(&parts(host, trusted, device));
        let broker = place.serve().start();
        let why = wait_reason(&broker, "outward", "DataflowMqttTargetConnectionFailed");
        assert!(why.contains(says), "{why}");
    }
}

/// Another forebay with one user, `device`, who may do what `rules` say, at this port.
fn strict(port: &str, rules: &str) -> (Forebay, Resources) {
    let resources = Resources::default();
    let passwords = resources.file("passwords").display().to_string();
    let (status, output) = forebay::run(["passwd", "-b", "-I", "100", &passwords, "device", "open sesame"]);
    assert!(status.success(), "{output}");
    let port = format!("{port}\nauthenticationRef: users\nauthorizationRef: rules");
    let resources = resources
        .with("listener.yaml", &broker_listener(&[port]))
        .with("authentication.yaml", &broker_authentication("users", &[("password-file", "passwords")], &[]))
        .with("authorization.yaml", &broker_authorization("rules", rules));
    (Serve::new().resources(&resources).start(), resources)
}

const ONLY_PUBLISH: &str = "\
- principals: {usernames: [device]}
  brokerResources: [{method: Connect}, {method: Publish, topics: ['#']}]
";

#[test]
fn a_name_and_password_and_wrong_ones_over_web_sockets() {
    let addr = wait::free_addr();
    let (_far, _resources) = strict(&format!("port: {}\nprotocol: WebSockets", addr.port()), ONLY_PUBLISH);
    let parts = |password: &str| {
        let settings = [ANONYMOUS, PLAIN, "protocol: WebSockets"];
        let endpoint = mqtt_endpoint("remote", &format!("{addr}/mqtt"), &settings, &[("login", "login")]);
        [endpoint, secret("login", &[("username", "device"), ("password", password)]), outward()]
    };
    let place = Place::new(&parts("open sesame"));
    let right = place.serve().start();
    wait_connected(&right, "destination");
    let mut publisher = Client::connect(right.addr, &Connect::v5("publisher"));
    publisher.publish("raw/x", 1, &celsius(1));
    right.wait_metric_is("forebay_bridge_messages_delivered_total", &["success=\"true\""], 1.0);
    let place = Place::new(&parts("guessed"));
    let wrong = place.serve().start();
    let why = wait_reason(&wrong, "outward", "DataflowMqttTargetConnectionFailed");
    assert!(why.contains("refuses the connection"), "{why}");
    assert!(!wrong.output().contains("guessed") && !why.contains("guessed"));
}

#[test]
fn what_the_remote_broker_never_takes_goes_to_the_dead_letter_topic() {
    let far = MosquittoBroker::with("allow_anonymous true\nmax_packet_size 400\n", &[]);
    let graph = outward().replace(
        "  name: outward\n",
        "  name: outward\n  annotations: {forebay.dev/dead-letter-topic: dead}\n",
    );
    let place = Place::new(&[remote(far.addr, &[]), graph]);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("cooked/#", 1);
    let mut dead = Client::connect(broker.addr, &Connect::v5("dead"));
    dead.subscribe("dead", 1);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let large = user_property("large", &"x".repeat(500));
    publisher.publish_with("raw/x", 1, false, &large, &celsius(1));
    publisher.publish("raw/x", 1, &celsius(2));
    let letter = dead.receive();
    let said = letter.user_properties();
    let property = |name: &str| said.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!(property("dead-letter-reason").as_deref(), Some("too-large"));
    assert_eq!(property("dead-letter-operation").as_deref(), Some("destination"));
    assert_eq!(value(&letter.payload), 1);
    // Those behind it are not held up.
    assert_eq!(value(&there.receive().payload), 2);
}

#[test]
fn a_remote_broker_that_talks_nonsense_or_not_at_all_is_told_of() {
    for (nonsense, says) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no MQTT"), (b"", "")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut socket, nonsense);
            }
        });
        let place = Place::new(&[remote(addr, &[]), inward()]);
        let broker = place.serve().start();
        let why = wait_reason(&broker, "inward", "DataflowMqttSourceConnectionFailed");
        assert!(why.contains(says), "{why}");
        // The broker does its work.
        let mut client = Client::connect(broker.addr, &Connect::v5("c"));
        client.settle();
    }
}

#[test]
fn a_remote_broker_that_hangs_is_waited_for() {
    let far = MosquittoBroker::start();
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("cooked/#", 1);
    let place = Place::new(&[remote(far.addr, &[]), outward()]);
    let broker = place.serve().start();
    wait_connected(&broker, "destination");
    far.hang();
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    (0..50).for_each(|value| publisher.publish("raw/x", 1, &celsius(value)));
    thread::sleep(Duration::from_secs(3));
    publisher.settle();
    far.go_on();
    all_of(&mut there, 0..50);
}

#[test]
fn a_filter_that_the_remote_broker_refuses_is_told_of() {
    let addr = wait::free_addr();
    let (_far, _resources) = strict(&format!("port: {}", addr.port()), ONLY_PUBLISH);
    let endpoint = mqtt_endpoint("remote", &addr.to_string(), &[ANONYMOUS, PLAIN], &[("login", "login")]);
    let login = secret("login", &[("username", "device"), ("password", "open sesame")]);
    let place = Place::new(&[endpoint, login, inward()]);
    let broker = place.serve().start();
    let why = wait_reason(&broker, "inward", "DataflowMqttSourceSubscriptionFailed");
    assert!(why.contains("far/#"), "{why}");
}

#[test]
fn two_brokers_that_bridge_to_each_other_do_not_send_messages_in_circles() {
    // Each hands what comes on `ring` to the other's `ring`.
    let (one, two) = (wait::free_addr(), wait::free_addr());
    let ring = between(&dataflow_graph("ring", "registry", PASS, "ring", "ring"), "default", "remote");
    let places = [Place::new(&[remote(two, &[]), ring.clone()]), Place::new(&[remote(one, &[]), ring])];
    let brokers: Vec<Forebay> = places
        .iter()
        .zip([one, two])
        .map(|(place, addr)| place.serve().options(&["--listen", &addr.to_string()]).start())
        .collect();
    for broker in &brokers {
        wait_connected(broker, "destination");
    }
    let mut watch = Client::connect(brokers[0].addr, &Connect::v5("watch"));
    watch.subscribe("ring", 1);
    let mut publisher = Client::connect(brokers[0].addr, &Connect::v5("publisher"));
    publisher.publish("ring", 1, &celsius(1));
    let rejected =
        |broker: &Forebay| broker.metric("forebay_bridge_messages_delivered_total", &["success=\"false\""]);
    wait::until("the message is stopped", || {
        let stopped: f64 = brokers.iter().map(rejected).sum();
        (stopped == 1.0).then_some(()).ok_or_else(|| format!("{stopped}"))
    });
}

#[test]
fn a_broker_that_knows_3_1_1_only_is_spoken_to_in_that() {
    let far = MosquittoBroker::start();
    let old = old_broker(far.addr);
    let place = Place::new(&[remote(old, &[]), outward(), inward()]);
    let broker = place.serve().start();
    wait_connected(&broker, "source");
    wait_connected(&broker, "destination");
    let mut there = Client::connect(far.addr, &Connect::v5("there"));
    there.subscribe("cooked/#", 1);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish("raw/x", 1, &celsius(3));
    let message = there.receive();
    assert_eq!((value(&message.payload), message.user_properties()), (3, vec![]));
    let mut here = Client::connect(broker.addr, &Connect::v5("here"));
    here.subscribe("near", 1);
    let mut feeder = Client::connect(far.addr, &Connect::v5("feeder"));
    feeder.publish("far/x", 1, &celsius(4));
    assert_eq!(value(&here.receive().payload), 4);
}

/// mosquitto behind a door that turns MQTT 5 away, as brokers of that time do.
fn old_broker(far: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let mut first = [0; 512];
            let Ok(count @ 10..) = std::io::Read::read(&mut near, &mut first) else { continue };
            // Fixed header of two bytes, "MQTT" with its length, the version.
            if first[8] == 5 {
                let _ = std::io::Write::write_all(&mut near, &[0x20, 2, 0, 1]);
                continue;
            }
            let Ok(mut far) = std::net::TcpStream::connect(far) else { continue };
            let _ = std::io::Write::write_all(&mut far, &first[..count]);
            let back = (far.try_clone().expect("a socket"), near.try_clone().expect("a socket"));
            for (mut from, mut to) in [back, (near, far)] {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    addr
}
